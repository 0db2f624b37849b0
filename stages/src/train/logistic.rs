//! `logistic`: logistic regression for two and more classes, by linfa-logistic's L-BFGS.
//!
//! It knows numbers alone: no frames, no labels. Minimised is the sum of the log losses of all rows + l2/2 ||w||^2, the
//! intercept unpenalised: linfa's `alpha` is `l2`, and scikit-learn's `C` is 1/l2. For K > 2 classes the loss is that
//! of the softmax.
//!
//! Invariants: of two classes, 1 is the positive one, whichever is more frequent (linfa's positive one is the more
//! frequent). A score is the intercept plus the products in the order of the features, added one by one.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_logistic::{LogisticRegression, MultiLogisticRegression};
use ndarray::{Array1, Array2};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::checked;
use crate::StageError;

/// Hyper-parameters of a logistic regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogisticConfig {
    /// The penalty is l2/2 times the sum of squared coefficients, beside the sum of the rows' losses; 0 or more.
    #[serde(default = "one", deserialize_with = "checked::l2")]
    pub l2: f64,
    /// Whether constants are fitted.
    #[serde(default = "yes")]
    pub intercept: bool,
    /// L-BFGS steps at most; 1 or more.
    #[serde(default = "hundred", deserialize_with = "checked::max_iterations")]
    pub max_iterations: u32,
    /// The fit ends when the gradient of the mean loss of a row is no longer than this, features centred and divided
    /// by their common root mean square; above 0.
    #[serde(default = "small", deserialize_with = "checked::tolerance")]
    pub tolerance: f64,
}

fn one() -> f64 {
    1.0
}

fn yes() -> bool {
    true
}

fn hundred() -> u32 {
    100
}

fn small() -> f64 {
    1e-4
}

/// A fitted logistic regression. For two classes there is one score, that of class 1; else one a class.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Logistic {
    /// Scores x features, one score after the other.
    pub coefficients: Vec<f64>,
    /// One a score.
    pub intercepts: Vec<f64>,
}

impl Logistic {
    /// The probabilities of the classes for a row of features; they sum to 1 but for rounding.
    pub fn probabilities(&self, row: &[f64]) -> Vec<f64> {
        let score = |(at, intercept): (usize, &f64)| {
            let weights = &self.coefficients[at * row.len()..(at + 1) * row.len()];
            weights.iter().zip(row).fold(*intercept, |sum, (weight, value)| sum + weight * value)
        };
        let scores: Vec<f64> = self.intercepts.iter().enumerate().map(score).collect();
        match scores[..] {
            [score] => {
                let positive = sigmoid(score);
                // 1 - positive would lose all digits of a small probability.
                vec![sigmoid(-score), positive]
            }
            _ => softmax(scores),
        }
    }

    pub(crate) fn check(&self, features: usize, classes: usize) -> Result<(), String> {
        let scores = if classes == 2 { 1 } else { classes };
        let lengths = (self.coefficients.len(), self.intercepts.len());
        let finite = self.coefficients.iter().chain(&self.intercepts).all(|value| value.is_finite());
        if Some(lengths.0) == features.checked_mul(scores) && lengths.1 == scores && finite {
            return Ok(());
        }
        Err("the coefficients are not one finite number a score and feature".into())
    }
}

/// 1 / (1 + e^-z), with no overflow for either sign.
fn sigmoid(score: f64) -> f64 {
    if score >= 0.0 {
        1.0 / (1.0 + (-score).exp())
    } else {
        let power = score.exp();
        power / (1.0 + power)
    }
}

fn softmax(mut scores: Vec<f64>) -> Vec<f64> {
    let greatest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter_mut().for_each(|score| *score = (*score - greatest).exp());
    let sum: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
    scores
}

/// A fitted model, and how far the fit got.
pub struct Fitted {
    pub logistic: Logistic,
    /// The length of the gradient of the mean loss at the solution, penalty included.
    pub gradient: f64,
}

/// Fits a logistic regression to rows of two or more classes, all of which occur.
///
/// # Errors
/// If linfa fails, or ends at a solution that is not finite or worse than a model of the class frequencies alone.
pub fn fit(config: &LogisticConfig, x: &Array2<f64>, y: &[u32], classes: usize) -> Result<Fitted, StageError> {
    let eased = Eased::new(config, x);
    let inner = LogisticConfig { l2: config.l2 / (eased.scale * eased.scale), ..config.clone() };
    let logistic = if classes == 2 { fit_two(&inner, &eased.x, y)? } else { fit_many(&inner, &eased.x, y, classes)? };
    let objective = Objective { config: &inner, x: &eased.x, y };
    let reached = objective.at(&logistic, classes);
    let start = objective.at(&frequencies(config, y, classes, x.ncols()), classes);
    let logistic = eased.undo(logistic);
    // A NaN is no better either.
    let better = reached.loss <= start.loss * (1.0 + 1e-9);
    if !better || logistic.check(x.ncols(), classes).is_err() {
        return Err(diverged());
    }
    Ok(Fitted { logistic, gradient: reached.gradient / x.nrows() as f64 })
}

/// The same problem, easier to solve: columns less their means, which the unpenalised intercept makes up for, and all
/// of them divided by one number, which the penalty makes up for.
struct Eased {
    x: Array2<f64>,
    means: Vec<f64>,
    scale: f64,
}

impl Eased {
    fn new(config: &LogisticConfig, x: &Array2<f64>) -> Self {
        let mut x = x.clone();
        let mut means = vec![0.0; x.ncols()];
        if config.intercept {
            for (mut column, to) in x.columns_mut().into_iter().zip(&mut means) {
                *to = column.iter().sum::<f64>() / column.len() as f64;
                column.iter_mut().for_each(|value| *value -= *to);
            }
        }
        let squares: f64 = x.columns().into_iter().map(|column| column.iter().map(|v| v * v).sum::<f64>()).sum();
        let scale = (squares / x.len() as f64).sqrt();
        let scale = if scale > 0.0 && scale.is_finite() { scale } else { 1.0 };
        x.iter_mut().for_each(|value| *value /= scale);
        Self { x, means, scale }
    }

    fn undo(&self, mut logistic: Logistic) -> Logistic {
        logistic.coefficients.iter_mut().for_each(|weight| *weight /= self.scale);
        let scores = logistic.coefficients.chunks(self.means.len()).zip(&mut logistic.intercepts);
        for (weights, intercept) in scores {
            *intercept -= weights.iter().zip(&self.means).map(|(weight, mean)| weight * mean).sum::<f64>();
        }
        logistic
    }
}

fn diverged() -> StageError {
    StageError::Data {
        detail:
            "train: the logistic regression diverged; put a `prepare` stage with `scale` before `train`, or raise `l2`"
                .into(),
    }
}

fn failed(error: linfa_logistic::error::Error) -> StageError {
    StageError::Library { what: "linfa-logistic", detail: error.to_string() }
}

fn fit_two(config: &LogisticConfig, x: &Array2<f64>, y: &[u32]) -> Result<Logistic, StageError> {
    let fitted = LogisticRegression::default()
        .alpha(config.l2)
        .with_intercept(config.intercept)
        .max_iterations(config.max_iterations.into())
        .gradient_tolerance(config.tolerance * x.nrows() as f64)
        .fit(&DatasetBase::new(x.view(), Array1::from(y.to_vec())))
        .map_err(failed)?;
    let sign = if fitted.labels().pos.class == 1 { 1.0 } else { -1.0 };
    Ok(Logistic {
        coefficients: fitted.params().iter().map(|weight| sign * weight).collect(),
        intercepts: vec![sign * fitted.intercept()],
    })
}

fn fit_many(config: &LogisticConfig, x: &Array2<f64>, y: &[u32], classes: usize) -> Result<Logistic, StageError> {
    let fitted = MultiLogisticRegression::default()
        .alpha(config.l2)
        .with_intercept(config.intercept)
        .max_iterations(config.max_iterations.into())
        .gradient_tolerance(config.tolerance * x.nrows() as f64)
        .initial_params(start(config, y, classes, x.ncols()))
        .fit(&DatasetBase::new(x.view(), Array1::from(y.to_vec())))
        .map_err(failed)?;
    let coefficients = fitted.params().columns().into_iter().flat_map(|class| class.to_vec()).collect();
    Ok(Logistic { coefficients, intercepts: fitted.intercept().to_vec() })
}

/// linfa's parameters, (features + intercept) x classes, of a model that knows the class frequencies alone.
fn start(config: &LogisticConfig, y: &[u32], classes: usize, features: usize) -> Array2<f64> {
    let known = frequencies(config, y, classes, features);
    let mut parameters = Array2::zeros((features + usize::from(config.intercept), classes));
    if config.intercept {
        parameters.row_mut(features).assign(&Array1::from(known.intercepts));
    }
    parameters
}

/// The best model without coefficients: its scores are the logarithms of the classes' shares, less their mean.
fn frequencies(config: &LogisticConfig, y: &[u32], classes: usize, features: usize) -> Logistic {
    let scores = if classes == 2 { 1 } else { classes };
    let mut intercepts = vec![0.0; scores];
    if config.intercept {
        let mut counts = vec![0u32; classes];
        y.iter().for_each(|class| counts[*class as usize] += 1);
        let logs: Vec<f64> = counts.iter().map(|count| f64::from(*count).ln()).collect();
        let mean = logs.iter().sum::<f64>() / classes as f64;
        intercepts = match logs[..] {
            [negative, positive] => vec![positive - negative],
            _ => logs.iter().map(|log| log - mean).collect(),
        };
    }
    Logistic { coefficients: vec![0.0; scores * features], intercepts }
}

/// What is minimised, computed apart from linfa: its softmax subtracts the greatest score of all rows instead of each
/// row's own, which can end a fit in the wrong place without a word.
struct Objective<'a> {
    config: &'a LogisticConfig,
    x: &'a Array2<f64>,
    y: &'a [u32],
}

struct Point {
    loss: f64,
    gradient: f64,
}

impl Objective<'_> {
    fn at(&self, model: &Logistic, classes: usize) -> Point {
        let features = self.x.ncols();
        let scores = model.intercepts.len();
        let mut slopes: Vec<f64> = model.coefficients.iter().map(|weight| self.config.l2 * weight).collect();
        let mut intercept_slopes = vec![0.0; scores];
        let squares: f64 = model.coefficients.iter().map(|weight| weight * weight).sum();
        let mut loss = 0.5 * self.config.l2 * squares;
        let mut row = vec![0.0; features];
        for (values, &class) in self.x.rows().into_iter().zip(self.y) {
            row.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
            let probabilities = model.probabilities(&row);
            loss -= probabilities[class as usize].max(f64::MIN_POSITIVE).ln();
            for score in 0..scores {
                let of = score + classes - scores;
                let error = probabilities[of] - f64::from(u8::from(of == class as usize));
                intercept_slopes[score] += error;
                let slopes = &mut slopes[score * features..(score + 1) * features];
                slopes.iter_mut().zip(&row).for_each(|(slope, value)| *slope += error * value);
            }
        }
        if !self.config.intercept {
            intercept_slopes.fill(0.0);
        }
        let gradient = slopes.iter().chain(&intercept_slopes).map(|slope| slope * slope).sum::<f64>().sqrt();
        Point { loss, gradient }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn config() -> LogisticConfig {
        LogisticConfig { l2: 1.0, intercept: true, max_iterations: 1000, tolerance: 1e-9 }
    }

    #[test]
    fn the_positive_class_is_1_whichever_is_more_frequent() {
        let x = array![[0.0], [1.0], [2.0], [3.0], [4.0]];
        for y in [[0, 0, 0, 0, 1], [0, 1, 1, 1, 1]] {
            let fitted = fit(&config(), &x, &y, 2).unwrap().logistic;
            assert!(fitted.coefficients[0] > 0.0, "{y:?}: {fitted:?}");
            let negated = fit(&config(), &x, &y.map(|class| 1 - class), 2).unwrap().logistic;
            assert!((negated.coefficients[0] + fitted.coefficients[0]).abs() < 1e-7);
            assert!((negated.intercepts[0] + fitted.intercepts[0]).abs() < 1e-7);
        }
    }

    /// The gradient of the sum is X^T (p - y) + l2 w = 0 at the solution, in the units of the caller.
    #[test]
    fn the_penalty_is_half_l2_times_the_squares() {
        let x = array![[100.0], [101.0], [104.0], [103.0], [107.0]];
        let y = [0, 1, 0, 1, 1];
        for l2 in [0.1, 1.0, 30.0] {
            let fitted = fit(&LogisticConfig { l2, ..config() }, &x, &y, 2).unwrap().logistic;
            let errors = (0..5).map(|row| (fitted.probabilities(&[x[[row, 0]]])[1] - f64::from(y[row])) * x[[row, 0]]);
            let slope = errors.sum::<f64>() + l2 * fitted.coefficients[0];
            assert!(slope.abs() < 1e-4, "{slope} at l2 = {l2}");
        }
    }

    #[test]
    fn without_an_intercept_there_is_none() {
        let x = array![[1.0, 3.0], [2.0, 1.0], [-1.0, 1.0], [-2.0, 0.5]];
        let without = LogisticConfig { intercept: false, ..config() };
        assert_eq!(fit(&without, &x, &[1, 1, 0, 0], 2).unwrap().logistic.intercepts, [0.0]);
        assert_eq!(fit(&without, &x, &[1, 2, 0, 0], 3).unwrap().logistic.intercepts, [0.0; 3]);
    }

    #[test]
    fn great_scores_give_probabilities_and_no_nan() {
        let two = Logistic { coefficients: vec![1.0], intercepts: vec![0.0] };
        assert_eq!(two.probabilities(&[1e4]), [0.0, 1.0]);
        assert_eq!(two.probabilities(&[-1e4]), [1.0, 0.0]);
        let three = Logistic { coefficients: vec![1.0, 2.0, -1.0], intercepts: vec![0.0; 3] };
        assert_eq!(three.probabilities(&[1e4]), [0.0, 1.0, 0.0]);
    }
}
