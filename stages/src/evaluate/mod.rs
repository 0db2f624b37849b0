//! The kind `evaluate`: how well a model predicts a prepared frame, as metrics and as the predictions themselves.
//!
//! It knows which metric fits which task; the formulas are in `scores.rs`. It does not know how a model was trained,
//! and does not prepare: `data` is what the model's own transform gave, which its mark tells.
//!
//! Invariant: every number that leaves is finite; a metric that the data leave undefined is an error that says why.

use std::collections::BTreeMap;

use polars::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::classes::Classes;
use crate::error::list;
use crate::frame::{self, Mark, Schema};
use crate::io::{Draft, Inputs, Outputs};
use crate::kind::{InputPort, InputPorts, Kind, OutputPort, Ports, Selection, Selections, artifact};
use crate::model::{self, Model, Predictions, Task};
use crate::{StageError, json, matrix};

pub mod compare;
pub mod scores;

pub use compare::Compare;

const PLACE: &str = "evaluate";

/// The kind `evaluate`.
pub struct Evaluate;

/// Scores a `model` on the frame `data`, prepared as the model's training data were. Of more than two classes,
/// precision, recall and f1 are means over the classes, and roc_auc is the mean of one class against the rest. Outputs
/// `metrics` and `predictions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvaluateConfig {
    /// Default: all that fit the model's task.
    #[serde(default)]
    pub metrics: Option<Vec<Metric>>,
    /// Of two classes, the label that counts as positive. Default: the last in order (`true`, the greater number, the
    /// later text). The column `probability` stays that of the last class.
    #[serde(default)]
    pub positive: Option<serde_json::Value>,
}

/// A number that says how well a model predicts; defined in [`scores`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    RocAuc,
    F1,
    Accuracy,
    R2,
    Rmse,
    Mae,
    Mse,
    LogLoss,
    Precision,
    Recall,
    /// The sum of squared distances to the nearest centroid.
    Inertia,
}

impl Metric {
    /// All of them; `compare` sorts by the first that all nodes have.
    pub const ALL: [Self; 11] = [
        Self::RocAuc,
        Self::F1,
        Self::Accuracy,
        Self::R2,
        Self::Rmse,
        Self::Mae,
        Self::Mse,
        Self::LogLoss,
        Self::Precision,
        Self::Recall,
        Self::Inertia,
    ];

    /// The name, as in the pipeline file and in a metrics artifact.
    pub fn name(self) -> &'static str {
        match self {
            Self::RocAuc => "roc_auc",
            Self::F1 => "f1",
            Self::Accuracy => "accuracy",
            Self::R2 => "r2",
            Self::Rmse => "rmse",
            Self::Mae => "mae",
            Self::Mse => "mse",
            Self::LogLoss => "log_loss",
            Self::Precision => "precision",
            Self::Recall => "recall",
            Self::Inertia => "inertia",
        }
    }

    /// The task whose predictions it judges.
    pub fn task(self) -> Task {
        match self {
            Self::R2 | Self::Rmse | Self::Mae | Self::Mse => Task::Regression,
            Self::Inertia => Task::Clustering,
            _ => Task::Classification,
        }
    }

    /// Whether more is better; errors and losses are better the less they are.
    pub fn descending(self) -> bool {
        !matches!(self, Self::Rmse | Self::Mae | Self::Mse | Self::LogLoss | Self::Inertia)
    }

    fn of(task: Task) -> Vec<Self> {
        Self::ALL.into_iter().filter(|metric| metric.task() == task).collect()
    }
}

impl Kind for Evaluate {
    const NAME: &'static str = "evaluate";
    const VERSION: u32 = 2;
    type Config = EvaluateConfig;

    fn ports(_config: &EvaluateConfig) -> Ports {
        let input = |name, type_name| InputPort { name, type_name, from: crate::kind::From::Stage };
        Ports {
            inputs: InputPorts::Fixed(vec![input("model", artifact::MODEL), input("data", artifact::FRAME)]),
            outputs: vec![
                OutputPort::new("metrics", artifact::METRICS),
                OutputPort::new("predictions", artifact::FRAME),
            ],
        }
    }

    /// Of the model the numbers alone: a change in its card or preparation changes no metric of prepared data.
    fn reads(_config: &EvaluateConfig, schemas: &BTreeMap<String, Schema>) -> Selections {
        let mut reads: Selections = schemas.keys().map(|port| (port.clone(), Selection::All)).collect();
        reads.insert("model".into(), Selection::Only(vec![model::MODEL.into()]));
        reads
    }

    fn run(config: &EvaluateConfig, inputs: &Inputs, outputs: &mut Outputs) -> Result<(), StageError> {
        let (model, data) = (inputs.one("model")?, inputs.one("data")?);
        check_mark(&Model::mark(model)?, &Schema::of(data)?)?;
        let (model, data) = (Model::read(model)?, frame::decode(data)?);
        let (metrics, predictions) = evaluate(config, &model, &data)?;
        outputs.put("metrics", Draft::blob(artifact::METRICS, json::canonical(&metrics)?));
        outputs.put("predictions", Draft::tree(artifact::FRAME, frame::encode(&predictions)?));
        Ok(())
    }
}

/// Imputing and scaling keep the columns' names, so data that were not prepared would be scored without a word.
fn check_mark(model: &Option<Mark>, data: &Schema) -> Result<(), StageError> {
    let fact = match (model, &data.mark) {
        (None, _) => return Ok(()),
        (Some(model), Some(data)) if model == data => return Ok(()),
        (Some(_), Some(_)) => "was prepared by another transform than the one that the model was trained behind",
        (Some(_), None) => "was not prepared, and the model was trained behind a transform",
    };
    let advice = "wire what the model's `prepare` stage gave: `data = \"prepare.test\"`";
    Err(StageError::Config { detail: format!("evaluate: the frame `data` {fact}; {advice}") })
}

/// The metrics by name, and the predictions with the target beside them.
///
/// # Errors
/// If a column that the model takes is missing or not numeric, a metric does not fit the model's task, or the data
/// leave one undefined.
pub fn evaluate(
    config: &EvaluateConfig,
    model: &Model,
    data: &DataFrame,
) -> Result<(BTreeMap<String, f64>, DataFrame), StageError> {
    let metrics = chosen(config, model)?;
    if data.height() == 0 {
        return Err(StageError::Empty { place: PLACE.into() });
    }
    let predictions = model.predict(&matrix::features(PLACE, data, model.features())?);
    let scored = Scored::new(config, model, data, &predictions)?;
    let mut found = BTreeMap::new();
    for metric in metrics {
        let value = scored.score(metric)?;
        if !value.is_finite() {
            return Err(StageError::Data {
                detail: format!("evaluate: `{}` is too large for a number", metric.name()),
            });
        }
        found.insert(metric.name().to_owned(), value);
    }
    Ok((found, with_target(model, data, &predictions)?))
}

/// The metrics to compute, each of which fits the model.
fn chosen(config: &EvaluateConfig, model: &Model) -> Result<Vec<Metric>, StageError> {
    let task = model.task();
    let fitting = Metric::of(task);
    let names: Vec<String> = fitting.iter().map(|metric| metric.name().to_owned()).collect();
    let metrics = config.metrics.clone().unwrap_or(fitting);
    if let Some(other) = metrics.iter().find(|metric| metric.task() != task) {
        let (other, task) = (other.name(), task.name());
        let detail = format!("evaluate: `{other}` does not fit a {task} model; these do: {}", list(&names));
        return Err(StageError::Config { detail });
    }
    if metrics.is_empty() {
        let detail = format!("evaluate: `metrics` is empty; these fit a {} model: {}", task.name(), list(&names));
        return Err(StageError::Config { detail });
    }
    Ok(metrics)
}

fn with_target(model: &Model, data: &DataFrame, predictions: &Predictions) -> Result<DataFrame, StageError> {
    let mut frame = predictions.frame()?;
    if let Some(target) = model.target() {
        if frame.column(target).is_ok() {
            let detail =
                format!("evaluate: a target may not be named `{target}`: the predictions have a column of that name");
            return Err(StageError::Config { detail });
        }
        let failed = |error: PolarsError| StageError::Encode { detail: error.to_string() };
        frame.with_column(matrix::column(PLACE, data, target)?.clone()).map_err(failed)?;
    }
    Ok(frame)
}

/// Predictions beside the truth.
enum Scored<'a> {
    Classes(ScoredClasses<'a>),
    Values { target: &'a str, truth: Vec<f64>, predicted: &'a [f64] },
    Clusters { squared_distances: &'a [f64] },
}

struct ScoredClasses<'a> {
    target: &'a str,
    data: &'a DataFrame,
    classes: &'a Classes,
    /// None is a class that the model never saw.
    truth: Vec<Option<u32>>,
    predicted: &'a [u32],
    probabilities: &'a [Vec<f64>],
    positive: u32,
}

impl<'a> Scored<'a> {
    fn new(
        config: &EvaluateConfig,
        model: &'a Model,
        data: &'a DataFrame,
        predictions: &'a Predictions,
    ) -> Result<Self, StageError> {
        let target = model.target().unwrap_or_default();
        if config.positive.is_some() && model.classes().is_none_or(|classes| classes.count() != 2) {
            let detail = "evaluate: `positive` is for a model of two classes";
            return Err(StageError::Config { detail: detail.into() });
        }
        Ok(match predictions {
            Predictions::Clusters { squared_distances, .. } => Self::Clusters { squared_distances },
            Predictions::Values(predicted) => {
                Self::Values { target, truth: matrix::values(PLACE, data, target)?, predicted }
            }
            Predictions::Classes { classes, predicted, probabilities } => Self::Classes(ScoredClasses {
                target,
                data,
                classes,
                truth: classes.locate(PLACE, data, target)?,
                predicted,
                probabilities,
                positive: positive(config, classes)?,
            }),
        })
    }

    fn score(&self, metric: Metric) -> Result<f64, StageError> {
        match self {
            Self::Classes(classes) => classes.score(metric),
            Self::Clusters { squared_distances } => Ok(squared_distances.iter().sum()),
            Self::Values { target, truth, predicted } => match metric {
                Metric::Mse => Ok(scores::mse(truth, predicted)),
                Metric::Rmse => Ok(scores::mse(truth, predicted).sqrt()),
                Metric::Mae => Ok(scores::mae(truth, predicted)),
                _ => scores::r2(truth, predicted).ok_or_else(|| StageError::Data {
                    detail: format!(
                        "evaluate: `r2` is undefined: the target `{target}` has one value only, {}",
                        truth[0]
                    ),
                }),
            },
        }
    }
}

/// The class that counts as positive; of more than two it has no meaning.
fn positive(config: &EvaluateConfig, classes: &Classes) -> Result<u32, StageError> {
    let Some(label) = &config.positive else {
        return Ok(classes.count() as u32 - 1);
    };
    classes.find(label).map(|class| class as u32).ok_or_else(|| StageError::Config {
        detail: format!("evaluate: `positive` is {label}, the classes are {} and {}", classes.json(0), classes.json(1)),
    })
}

impl ScoredClasses<'_> {
    fn score(&self, metric: Metric) -> Result<f64, StageError> {
        match metric {
            Metric::Accuracy => Ok(scores::accuracy(&self.truth, self.predicted)),
            Metric::Precision => Ok(self.averaged(scores::Counts::precision)),
            Metric::Recall => Ok(self.averaged(scores::Counts::recall)),
            Metric::F1 => Ok(self.averaged(scores::Counts::f1)),
            Metric::LogLoss => self.log_loss(),
            _ => self.roc_auc(),
        }
    }

    /// That of the positive one of two classes; of more, the mean over those that occur. A class that the model never
    /// saw occurs too, with the value 0 for each distinct one.
    fn averaged(&self, score: fn(scores::Counts) -> f64) -> f64 {
        if self.classes.count() == 2 {
            return score(scores::Counts::of(self.positive, &self.truth, self.predicted));
        }
        let counts =
            (0..self.classes.count() as u32).map(|class| scores::Counts::of(class, &self.truth, self.predicted));
        let occurring: Vec<f64> = counts.filter(|counts| *counts != scores::Counts::default()).map(score).collect();
        occurring.iter().sum::<f64>() / (occurring.len() + self.unseen().len()) as f64
    }

    /// The labels that the model never saw.
    fn unseen(&self) -> std::collections::BTreeSet<String> {
        let rows = self.truth.iter().enumerate().filter(|(_, truth)| truth.is_none());
        rows.map(|(row, _)| self.label(row)).collect()
    }

    fn label(&self, row: usize) -> String {
        let column = self.data.column(self.target).ok();
        let value = column.and_then(|column| column.get(row).ok());
        value.map_or_else(String::new, |value| value.str_value().into_owned())
    }

    /// Each row's class, for metrics that need its probability.
    fn seen(&self, metric: Metric) -> Result<Vec<u32>, StageError> {
        if let Some(row) = self.truth.iter().position(Option::is_none) {
            return Err(StageError::Data {
                detail: format!(
                    "evaluate: `{}` is undefined: the target `{}` has the class `{}` in row {}, which the model never saw",
                    metric.name(),
                    self.target,
                    self.label(row),
                    row + 1
                ),
            });
        }
        Ok(self.truth.iter().flatten().copied().collect())
    }

    fn log_loss(&self) -> Result<f64, StageError> {
        let truth = self.seen(Metric::LogLoss)?;
        let of_truth: Vec<f64> =
            truth.iter().zip(self.probabilities).map(|(class, row)| row[*class as usize]).collect();
        Ok(scores::log_loss(&of_truth))
    }

    fn roc_auc(&self) -> Result<f64, StageError> {
        let truth = self.seen(Metric::RocAuc)?;
        let classes =
            if self.classes.count() == 2 { self.positive..self.positive + 1 } else { 0..self.classes.count() as u32 };
        let count = f64::from(classes.end - classes.start);
        let mut sum = 0.0;
        for class in classes {
            let positive: Vec<bool> = truth.iter().map(|truth| *truth == class).collect();
            let scores: Vec<f64> = self.probabilities.iter().map(|row| row[class as usize]).collect();
            sum += scores::roc_auc(&positive, &scores).ok_or_else(|| self.one_sided(class, &positive))?;
        }
        Ok(sum / count)
    }

    fn one_sided(&self, class: u32, positive: &[bool]) -> StageError {
        let how_many = if positive[0] { "every" } else { "no" };
        let label = self.classes.name(class as usize);
        StageError::Data {
            detail: format!(
                "evaluate: `roc_auc` is undefined: {how_many} row has the class `{label}` of `{}`",
                self.target
            ),
        }
    }
}

#[cfg(test)]
mod tests;
