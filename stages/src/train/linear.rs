//! `linear_regression`: ordinary least squares, by linfa-linear's QR decomposition.
//!
//! It knows numbers alone: no frames, no names. linfa refuses or blows up collinear columns, which one-hot encoding
//! makes as a rule; so columns that earlier ones already determine are left out first and get the coefficient 0, as
//! R's `lm` does.
//!
//! Invariants: a row's prediction is the intercept plus the products in the order of the features, added one by one: the
//! same bits alone, in any batch and on any machine. A fit is the same bits on one kind of CPU and platform: matrix
//! products use the vector instructions that there are.

use linfa::DatasetBase;
use linfa::traits::Fit;
use linfa_linear::LinearRegression;
use ndarray::{Array1, Array2, ArrayView1, ShapeBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::StageError;

/// A column is determined by the earlier ones if less than this share of its length is left once they are projected
/// out; the tolerance of R's `lm`.
const COLLINEAR: f64 = 1e-7;
/// A column is constant if its deviations are this much smaller than its values.
const CONSTANT: f64 = 1e-12;

/// Hyper-parameters of a linear regression.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LinearConfig {
    /// Whether a constant is fitted; without one the plane goes through the origin.
    #[serde(default = "yes")]
    pub intercept: bool,
}

fn yes() -> bool {
    true
}

/// A fitted plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Linear {
    /// In the order of the features.
    pub coefficients: Vec<f64>,
    pub intercept: f64,
}

impl Linear {
    /// The value for a row of features.
    pub fn value(&self, row: &[f64]) -> f64 {
        self.coefficients.iter().zip(row).fold(self.intercept, |sum, (weight, value)| sum + weight * value)
    }

    pub(crate) fn check(&self, features: usize) -> Result<(), String> {
        let finite = self.coefficients.iter().chain([&self.intercept]).all(|value| value.is_finite());
        if self.coefficients.len() == features && finite {
            return Ok(());
        }
        Err("the coefficients are not one finite number a feature".into())
    }
}

/// A fitted plane, and the features that were left out because earlier ones determine them.
pub struct Fitted {
    pub linear: Linear,
    pub collinear: Vec<usize>,
}

/// Fits a plane to one or more rows.
///
/// # Errors
/// If linfa fails, or the numbers are too large for a finite solution.
pub fn fit(config: &LinearConfig, x: &Array2<f64>, y: Vec<f64>) -> Result<Fitted, StageError> {
    let columns: Vec<Scaled> = x.columns().into_iter().map(|column| Scaled::new(column, config.intercept)).collect();
    let kept = independent(&columns);
    let mean = if config.intercept { mean(ArrayView1::from(&y)) } else { 0.0 };
    let weights = solve(&columns, &kept, y.iter().map(|value| value - mean).collect())?;
    let mut linear = Linear { coefficients: vec![0.0; x.ncols()], intercept: mean };
    for (&at, weight) in kept.iter().zip(weights) {
        linear.coefficients[at] = weight / columns[at].scale;
        linear.intercept -= linear.coefficients[at] * columns[at].mean;
    }
    linear.check(x.ncols()).map_err(|_| StageError::Data {
        detail: "train: the least-squares solution is not finite; scale the features and the target".into(),
    })?;
    let collinear = (0..x.ncols()).filter(|at| !kept.contains(at)).collect();
    Ok(Fitted { linear, collinear })
}

/// A column less its mean, divided by its root mean square.
struct Scaled {
    values: Vec<f64>,
    mean: f64,
    scale: f64,
}

impl Scaled {
    fn new(column: ArrayView1<'_, f64>, centred: bool) -> Self {
        let mean = if centred { mean(column) } else { 0.0 };
        let mut values: Vec<f64> = column.iter().map(|value| value - mean).collect();
        let rows = (values.len() as f64).sqrt();
        let scale = length(&values) / rows;
        // A scale of 0 marks a constant column: rounding errors of its mean must not pass for a signal.
        let scale = if scale <= CONSTANT * mean.abs() { 0.0 } else { scale };
        if scale > 0.0 {
            values.iter_mut().for_each(|value| *value /= scale);
        }
        Self { values, mean, scale }
    }
}

fn mean(values: ArrayView1<'_, f64>) -> f64 {
    let first = values[0];
    first + values.iter().map(|value| value - first).sum::<f64>() / values.len() as f64
}

fn length(values: &[f64]) -> f64 {
    dot(values, values).sqrt()
}

fn dot(left: &[f64], right: &[f64]) -> f64 {
    left.iter().zip(right).map(|(l, r)| l * r).sum()
}

/// The columns that the earlier ones do not determine, by Gram-Schmidt with each projection taken twice ("twice is
/// enough": Giraud et al., *The loss of orthogonality in the Gram-Schmidt orthogonalization process*, 2005).
fn independent(columns: &[Scaled]) -> Vec<usize> {
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let mut kept = Vec::new();
    for (at, column) in columns.iter().enumerate().filter(|(_, column)| column.scale > 0.0) {
        let mut rest = column.values.clone();
        let whole = length(&rest);
        for direction in basis.iter().chain(&basis) {
            let along = dot(direction, &rest);
            rest.iter_mut().zip(direction).for_each(|(value, d)| *value -= along * d);
        }
        let left = length(&rest);
        if left > COLLINEAR * whole {
            rest.iter_mut().for_each(|value| *value /= left);
            basis.push(rest);
            kept.push(at);
        }
    }
    kept
}

fn solve(columns: &[Scaled], kept: &[usize], y: Vec<f64>) -> Result<Array1<f64>, StageError> {
    let rows = y.len();
    let failed = |detail: String| StageError::Library { what: "linfa-linear", detail };
    if kept.is_empty() {
        return Ok(Array1::zeros(0));
    }
    let values: Vec<f64> = kept.iter().flat_map(|at| columns[*at].values.iter().copied()).collect();
    let x = Array2::from_shape_vec((rows, kept.len()).f(), values).map_err(|error| failed(error.to_string()))?;
    // Columns and target are centred already, which is what an intercept would do.
    let regression = LinearRegression::new().with_intercept(false);
    let fitted = regression.fit(&DatasetBase::new(x, Array1::from(y))).map_err(|error| failed(error.to_string()))?;
    Ok(fitted.params().clone())
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-9 * expected.abs().max(1.0), "{found} is not {expected}");
    }

    #[test]
    fn a_plane_is_found() {
        let x = array![[1.0, 10.0], [2.0, 14.0], [3.0, 11.0], [4.0, 19.0]];
        let y = x.rows().into_iter().map(|row| 3.0 * row[0] - 0.5 * row[1] + 7.0).collect();
        let fitted = fit(&LinearConfig { intercept: true }, &x, y).unwrap();
        close(fitted.linear.coefficients[0], 3.0);
        close(fitted.linear.coefficients[1], -0.5);
        close(fitted.linear.intercept, 7.0);
        assert!(fitted.collinear.is_empty());
    }

    #[test]
    fn without_an_intercept_the_plane_goes_through_the_origin() {
        // The normal equations [[14, 19], [19, 30]] w = [17, 24], solved by hand.
        let x = array![[1.0, 2.0], [2.0, 1.0], [3.0, 5.0]];
        let fitted = fit(&LinearConfig { intercept: false }, &x, vec![1.0, 2.0, 4.0]).unwrap();
        close(fitted.linear.coefficients[0], 54.0 / 59.0);
        close(fitted.linear.coefficients[1], 13.0 / 59.0);
        assert_eq!(fitted.linear.intercept, 0.0);
    }

    #[test]
    fn collinear_and_constant_columns_are_left_out() {
        // One-hot: the first two columns sum to 1; the third is constant.
        let x = array![[1.0, 0.0, 5.0], [1.0, 0.0, 5.0], [0.0, 1.0, 5.0], [0.0, 1.0, 5.0]];
        let fitted = fit(&LinearConfig { intercept: true }, &x, vec![1.0, 3.0, 7.0, 9.0]).unwrap();
        assert_eq!(fitted.collinear, [1, 2]);
        close(fitted.linear.value(&[1.0, 0.0, 5.0]), 2.0);
        close(fitted.linear.value(&[0.0, 1.0, 5.0]), 8.0);
    }

    #[test]
    fn more_features_than_rows_interpolate() {
        let x = array![[1.0, 2.0, 3.0, 9.0], [4.0, 1.0, 5.0, 2.0]];
        let fitted = fit(&LinearConfig { intercept: true }, &x, vec![1.0, 5.0]).unwrap();
        assert_eq!(fitted.collinear, [1, 2, 3]);
        close(fitted.linear.value(&[1.0, 2.0, 3.0, 9.0]), 1.0);
        close(fitted.linear.value(&[4.0, 1.0, 5.0, 2.0]), 5.0);
    }
}
