//! The kind `train`: fits a model to a frame of numbers and a target.
//!
//! It knows which columns are features and hands a matrix to an algorithm; each algorithm is a file of its own and
//! knows numbers alone. It does not know how the features were prepared: it carries the preparation's bytes along.
//!
//! Invariants: the target is never a feature. Equal inputs give equal bytes at any number of threads.

use std::collections::BTreeMap;

use ndarray::{Array1, Array2};
use polars::prelude::DataFrame;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::classes::Classes;
use crate::error::list;
use crate::frame::{self, Mark, Schema};
use crate::io::{Inputs, Outputs};
use crate::kind::{From, InputPort, InputPorts, Kind, OutputPort, Ports, Selection, Selections, artifact};
use crate::model::{Card, Fitted, Model};
use crate::transform::Transform;
use crate::{StageError, matrix};

mod checked;
pub mod kmeans;
pub mod linear;
pub mod logistic;
pub mod tree;

const PLACE: &str = "train";

/// The kind `train`.
pub struct Train;

/// Fits a model to the frame `train`, behind the `transform` that made it, if there is one. Output `model`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The column to predict. Default: the target that the transform was fitted for. `kmeans` needs none.
    #[serde(default)]
    pub target: Option<String>,
    /// The columns to predict from. Default: all but the target.
    #[serde(default)]
    pub features: Option<Vec<String>>,
    /// The algorithm and its hyper-parameters: `{ algorithm = "logistic", l2 = 1.0 }`.
    pub model: Algorithm,
    /// Where random numbers start.
    #[serde(default)]
    pub seed: u64,
}

/// An algorithm and its hyper-parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "algorithm", rename_all = "snake_case")]
pub enum Algorithm {
    LinearRegression(linear::LinearConfig),
    Logistic(logistic::LogisticConfig),
    Kmeans(kmeans::KmeansConfig),
    DecisionTree(tree::TreeConfig),
}

impl Kind for Train {
    const NAME: &'static str = "train";
    const VERSION: u32 = 2;
    type Config = TrainConfig;

    fn ports(_config: &TrainConfig) -> Ports {
        let input = |name, type_name, from| InputPort { name, type_name, from };
        Ports {
            inputs: InputPorts::Fixed(vec![
                input("train", artifact::FRAME, From::Stage),
                input("transform", artifact::TRANSFORM, From::StageIfWired),
            ]),
            outputs: vec![OutputPort::new("model", artifact::MODEL)],
        }
    }

    /// The features and the target if the configuration names both; else everything.
    fn reads(config: &TrainConfig, schemas: &BTreeMap<String, Schema>) -> Selections {
        let mut reads: Selections = schemas.keys().map(|port| (port.clone(), Selection::All)).collect();
        let target = config.target.iter().filter(|_| !config.clusters()).cloned();
        if let Some(features) = config.features.as_ref().filter(|_| config.target.is_some() || config.clusters()) {
            let names: Vec<String> = features.iter().cloned().chain(target).collect();
            let available = schemas.get("train").map(Schema::names).unwrap_or_default();
            // With a column that is not there everything is read, so that the error can list what is.
            if names.iter().all(|name| available.contains(name)) {
                reads.insert("train".into(), Selection::Only(names));
            }
        }
        reads
    }

    fn run(config: &TrainConfig, inputs: &Inputs, outputs: &mut Outputs) -> Result<(), StageError> {
        let stored = inputs.one("train")?;
        let bytes = inputs.optional("transform").map(|transform| transform.blob()).transpose()?;
        let transform = bytes.as_deref().map(Transform::decode).transpose()?;
        let schema = Schema::of(stored)?;
        check_mark(&schema, bytes.as_deref())?;
        let target = config.target(transform.as_ref())?;
        let features = config.features(&schema, target.as_deref(), transform.as_ref())?;
        // A clustering does without the target, which need not even be there.
        let target = target.filter(|_| !config.clusters());
        let columns: Vec<String> = features.iter().chain(&target).cloned().collect();
        let frame = frame::decode_columns(stored, &columns)?;
        let (model, card) = fit(config, &frame, features, target)?;
        outputs.put("model", model.draft(&card, bytes.map(|bytes| bytes.to_vec()))?);
        Ok(())
    }
}

/// A model learns from what the transform gave that it will predict behind.
fn check_mark(schema: &Schema, transform: Option<&[u8]>) -> Result<(), StageError> {
    let Some(mark) = transform.map(Mark::of) else { return Ok(()) };
    let fact = match &schema.mark {
        Some(found) if *found == mark => return Ok(()),
        Some(_) => "the frame `train` was prepared by another transform than the one that is wired",
        None => "a transform is wired, the frame `train` was not prepared by it",
    };
    let advice = "wire both from one `prepare` stage: `train = \"prepare.train\", transform = \"prepare.transform\"`";
    Err(StageError::Config { detail: format!("train: {fact}; {advice}") })
}

impl TrainConfig {
    fn clusters(&self) -> bool {
        matches!(self.model, Algorithm::Kmeans(_))
    }

    fn target(&self, transform: Option<&Transform>) -> Result<Option<String>, StageError> {
        let behind = transform.map(Transform::target).filter(|target| !target.is_empty());
        match (&self.target, behind) {
            (Some(own), Some(behind)) if own != behind => Err(StageError::Config {
                detail: format!("train: `target` is `{own}`, the transform was fitted for the target `{behind}`"),
            }),
            (None, None) if !self.clusters() => Err(StageError::Config {
                detail: "train: no target; set `target`, or wire the `transform` of a `prepare` stage that has one"
                    .into(),
            }),
            (own, behind) => Ok(own.clone().or(behind.map(str::to_owned))),
        }
    }

    /// The columns to train on, each of which the frame has.
    fn features(
        &self,
        schema: &Schema,
        target: Option<&str>,
        transform: Option<&Transform>,
    ) -> Result<Vec<String>, StageError> {
        let available = schema.names();
        let others = || available.iter().filter(|name| Some(name.as_str()) != target).cloned().collect();
        let features: Vec<String> = self.features.clone().unwrap_or_else(others);
        let wrong = |detail| Err(StageError::Config { detail });
        if features.is_empty() {
            return wrong(format!("train: no features; the columns are {}", list(&available)));
        }
        // A clustering may do without the target that the preparation knows.
        let needed = target.filter(|_| !self.clusters());
        for name in features.iter().map(String::as_str).chain(needed) {
            if !available.iter().any(|column| column == name) {
                return Err(StageError::UnknownColumn { place: PLACE.into(), column: name.into(), available });
            }
        }
        for (at, name) in features.iter().enumerate() {
            if Some(name.as_str()) == target {
                return wrong(format!("train: `{name}` is the target, it cannot be a feature"));
            }
            if features[..at].contains(name) {
                return wrong(format!("train: the feature `{name}` is named twice"));
            }
            if let Some(transform) = transform.filter(|transform| !transform.features().contains(name)) {
                let known = list(transform.features());
                return wrong(format!(
                    "train: the feature `{name}` does not come out of the transform, which gives {known}"
                ));
            }
        }
        Ok(features)
    }
}

/// Fits a model to a frame that holds its features and its target; a clustering takes no notice of one.
///
/// # Errors
/// If the frame is empty or holds what a model cannot take, or the fit fails.
pub fn fit(
    config: &TrainConfig,
    frame: &DataFrame,
    features: Vec<String>,
    target: Option<String>,
) -> Result<(Model, Card), StageError> {
    if frame.height() == 0 {
        return Err(StageError::Empty { place: PLACE.into() });
    }
    let target = target.filter(|_| !config.clusters());
    let x = matrix::features(PLACE, frame, &features)?;
    let data = Data { frame, x, features: &features, target: target.as_deref().unwrap_or_default() };
    let (fitted, found) = match &config.model {
        Algorithm::LinearRegression(linear) => data.linear(linear)?,
        Algorithm::Logistic(logistic) => data.logistic(logistic)?,
        Algorithm::Kmeans(kmeans) => data.kmeans(kmeans, config.seed)?,
        Algorithm::DecisionTree(tree) => data.tree(tree)?,
    };
    let model = Model::new(features, target, fitted)?;
    let card = card(config, &model, frame.height(), found)?;
    Ok((model, card))
}

/// What the fit found, for the card.
type Found = BTreeMap<String, Value>;

struct Data<'a> {
    frame: &'a DataFrame,
    x: Array2<f64>,
    features: &'a [String],
    target: &'a str,
}

impl Data<'_> {
    fn linear(&self, config: &linear::LinearConfig) -> Result<(Fitted, Found), StageError> {
        let y = matrix::values(PLACE, self.frame, self.target)?;
        let fitted = linear::fit(config, &self.x, y)?;
        let left_out: Vec<&String> = fitted.collinear.iter().map(|at| &self.features[*at]).collect();
        let found = Found::from([
            ("coefficients".into(), self.by_feature(&fitted.linear.coefficients)),
            ("collinear_features".into(), json!(left_out)),
            ("intercept".into(), json!(fitted.linear.intercept)),
        ]);
        Ok((Fitted::LinearRegression(fitted.linear), found))
    }

    fn logistic(&self, config: &logistic::LogisticConfig) -> Result<(Fitted, Found), StageError> {
        let (classes, y) = Classes::learn(PLACE, self.frame, self.target)?;
        let logistic::Fitted { logistic, gradient } = logistic::fit(config, &self.x, &y, classes.count())?;
        let scores = logistic.coefficients.chunks(self.features.len()).zip(&logistic.intercepts);
        let score = |(weights, intercept)| json!({ "coefficients": self.by_feature(weights), "intercept": intercept });
        // Two classes have one score, that of the last class.
        let names = classes.names().split_off(classes.count() - logistic.intercepts.len());
        let by_class: BTreeMap<String, Value> = names.into_iter().zip(scores.map(score)).collect();
        let found = Found::from([
            ("by_class".into(), json!(by_class)),
            ("converged".into(), json!(gradient <= config.tolerance)),
            ("gradient".into(), json!(gradient)),
        ]);
        Ok((Fitted::Logistic { classes, logistic }, found))
    }

    fn kmeans(&self, config: &kmeans::KmeansConfig, seed: u64) -> Result<(Fitted, Found), StageError> {
        let centroids = kmeans::fit(config, &self.x, seed)?;
        let mut sizes = vec![0u64; centroids.clusters as usize];
        let mut inertia = 0.0;
        for row in self.x.rows() {
            let (cluster, squared) = centroids.nearest(&row.to_vec());
            sizes[cluster as usize] += 1;
            inertia += squared;
        }
        let rows: Vec<Value> = centroids.centroids.chunks(self.features.len()).map(|c| self.by_feature(c)).collect();
        let found = Found::from([
            ("centroids".into(), json!(rows)),
            ("inertia".into(), json!(inertia)),
            ("sizes".into(), json!(sizes)),
        ]);
        Ok((Fitted::Kmeans(centroids), found))
    }

    fn tree(&self, config: &tree::TreeConfig) -> Result<(Fitted, Found), StageError> {
        let target = matrix::column(PLACE, self.frame, self.target)?;
        let task = config.task.unwrap_or(match target.dtype() {
            dtype if dtype.is_integer() || dtype.is_float() => tree::TreeTask::Regression,
            _ => tree::TreeTask::Classification,
        });
        let fitted = match task {
            tree::TreeTask::Regression => {
                let y = Array1::from(matrix::values(PLACE, self.frame, self.target)?);
                Fitted::RegressionTree(self.grow(config, y)?)
            }
            tree::TreeTask::Classification => {
                let (classes, y) = Classes::learn(PLACE, self.frame, self.target)?;
                let y: Array1<usize> = y.into_iter().map(|class| class as usize).collect();
                Fitted::ClassificationTree { classes, tree: self.grow(config, y)? }
            }
        };
        let found = match &fitted {
            Fitted::RegressionTree(tree) | Fitted::ClassificationTree { tree, .. } => Found::from([
                ("depth".into(), json!(tree.depth())),
                ("feature_importances".into(), self.by_feature(&tree.importances)),
                ("leaves".into(), json!(tree.leaves())),
            ]),
            _ => Found::new(),
        };
        Ok((fitted, found))
    }

    fn grow<T>(&self, config: &tree::TreeConfig, y: T) -> Result<tree::Tree, StageError>
    where
        tree::TreeConfig:
            for<'a> linfa::traits::Fit<ndarray::ArrayView2<'a, f64>, T, linfa::Error, Object = tree::Tree>,
    {
        let failed = |error: linfa::Error| StageError::Library { what: "decision_tree", detail: error.to_string() };
        linfa::traits::Fit::fit(config, &linfa::DatasetBase::new(self.x.view(), y)).map_err(failed)
    }

    fn by_feature(&self, values: &[f64]) -> Value {
        let named: BTreeMap<&String, f64> = self.features.iter().zip(values.iter().copied()).collect();
        json!(named)
    }
}

fn card(config: &TrainConfig, model: &Model, rows: usize, fit: Found) -> Result<Card, StageError> {
    let failed = |error: serde_json::Error| StageError::Encode { detail: error.to_string() };
    let mut hyper_parameters = serde_json::to_value(&config.model).map_err(failed)?;
    if let Value::Object(fields) = &mut hyper_parameters {
        fields.remove("algorithm");
    }
    Ok(Card {
        algorithm: model.algorithm().into(),
        task: model.task(),
        target: model.target().map(str::to_owned),
        features: model.features().to_vec(),
        classes: model.classes().map(|classes| (0..classes.count()).map(|class| classes.json(class)).collect()),
        hyper_parameters,
        seed: config.seed,
        training_rows: rows,
        fit,
    })
}

#[cfg(test)]
pub(crate) mod tests;
