//! `model`: what training leaves behind, its one encoding, and its predictions.
//!
//! A model is a tree of entries: `model`, the numbers; `transform`, the fitted preparation, if it was trained behind
//! one; `card`, what a person asks about it, as canonical JSON. The header is `algorithm NAME`, and behind it
//! `prepared MARK` if there is a transform, so that who reads the numbers alone knows it. This file does not know how models are trained or scored. Models are plain numbers of our own, never a library's types.
//!
//! Invariants: what is decoded has been checked, so that predicting can neither fail, loop nor leave an array. A row's
//! prediction depends on that row alone, in a fixed order of additions: the same bits alone, in any batch, at any
//! number of threads.

use std::collections::{BTreeMap, BTreeSet};

use ndarray::Array2;
use polars::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::classes::Classes;
use crate::frame::{self, Mark};
use crate::io::{Draft, DraftTree, Stored};
use crate::kind::artifact;
use crate::train::kmeans::Centroids;
use crate::train::linear::Linear;
use crate::train::logistic::Logistic;
use crate::train::tree::Tree;
use crate::transform::Transform;
use crate::{StageError, codec, json};

const MAGIC: &[u8; 4] = b"HWMO";
const FORMAT: u8 = 1;

/// The entry that holds the numbers.
pub const MODEL: &str = "model";
/// The entry that holds the fitted preparation, if there is one.
pub const TRANSFORM: &str = "transform";
/// The entry that describes the model.
pub const CARD: &str = "card";
/// The column of predictions.
pub const PREDICTION: &str = "prediction";
/// The column of the positive class's probability, and the beginning of the names of all classes' ones.
pub const PROBABILITY: &str = "probability";

/// A trained model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Model {
    features: Vec<String>,
    target: Option<String>,
    fitted: Fitted,
}

/// The numbers of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Fitted {
    LinearRegression(Linear),
    Logistic { classes: Classes, logistic: Logistic },
    Kmeans(Centroids),
    ClassificationTree { classes: Classes, tree: Tree },
    RegressionTree(Tree),
}

/// What a model predicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    Classification,
    Regression,
    Clustering,
}

impl Task {
    /// The task in words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Classification => "classification",
            Self::Regression => "regression",
            Self::Clustering => "clustering",
        }
    }
}

/// What a person asks about a model. Fields that an algorithm does not have are left out of the text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Card {
    pub algorithm: String,
    pub task: Task,
    pub target: Option<String>,
    pub features: Vec<String>,
    /// The labels in order; of two the last is the positive one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<Value>>,
    /// All of them, defaults filled in.
    pub hyper_parameters: Value,
    pub seed: u64,
    pub training_rows: usize,
    /// What the fit found, by the algorithm's own names (`coefficients`, `feature_importances`, …).
    pub fit: BTreeMap<String, Value>,
}

impl Model {
    /// A model; its parts fit each other.
    ///
    /// # Errors
    /// If they do not, or a number is not finite.
    pub fn new(features: Vec<String>, target: Option<String>, fitted: Fitted) -> Result<Self, StageError> {
        let model = Self { features, target, fitted };
        model.check().map_err(|detail| StageError::Encode { detail })?;
        Ok(model)
    }

    /// Reads a stored model; the entry [`MODEL`] is all that it needs.
    ///
    /// # Errors
    /// If the entry is missing, damaged or of a newer format.
    pub fn read(stored: &dyn Stored) -> Result<Self, StageError> {
        let model: Self = codec::decode(MAGIC, FORMAT, &stored.entry(MODEL)?)?;
        model.check().map_err(|detail| StageError::Decode { what: "model".into(), detail })?;
        Ok(model)
    }

    /// The preparation that a stored model was trained behind; none if it was trained on a frame as it was.
    ///
    /// # Errors
    /// If there is one and it is damaged.
    pub fn transform(stored: &dyn Stored) -> Result<Option<Transform>, StageError> {
        if !stored.entries().iter().any(|entry| entry.name == TRANSFORM) {
            return Ok(None);
        }
        Transform::decode(&stored.entry(TRANSFORM)?).map(Some)
    }

    /// The mark of the preparation that a stored model was trained behind, from its header alone.
    ///
    /// # Errors
    /// If the header is damaged.
    pub fn mark(stored: &dyn Stored) -> Result<Option<Mark>, StageError> {
        let header = stored.header();
        let damaged = || StageError::Decode { what: "model".into(), detail: format!("header `{header}`") };
        frame::split_mark(header).map(|(_, mark)| mark).ok_or_else(damaged)
    }

    /// The model as an artifact; `transform` is the encoded preparation that it was trained behind.
    ///
    /// # Errors
    /// If it cannot be encoded.
    pub fn draft(&self, card: &Card, transform: Option<Vec<u8>>) -> Result<Draft, StageError> {
        let mark = transform.as_deref().map(Mark::of);
        let mut tree = DraftTree::new(frame::with_mark(format!("algorithm {}", self.algorithm()), mark.as_ref()));
        tree.push(MODEL, "parameters", codec::encode(MAGIC, FORMAT, self)?);
        if let Some(transform) = transform {
            tree.push(TRANSFORM, artifact::TRANSFORM, transform);
        }
        tree.push(CARD, "card", json::canonical(card)?);
        Ok(Draft::tree(artifact::MODEL, tree))
    }

    /// The name of the algorithm, as in the pipeline file.
    pub fn algorithm(&self) -> &'static str {
        match self.fitted {
            Fitted::LinearRegression(_) => "linear_regression",
            Fitted::Logistic { .. } => "logistic",
            Fitted::Kmeans(_) => "kmeans",
            Fitted::ClassificationTree { .. } | Fitted::RegressionTree(_) => "decision_tree",
        }
    }

    /// What it predicts.
    pub fn task(&self) -> Task {
        match self.fitted {
            Fitted::LinearRegression(_) | Fitted::RegressionTree(_) => Task::Regression,
            Fitted::Logistic { .. } | Fitted::ClassificationTree { .. } => Task::Classification,
            Fitted::Kmeans(_) => Task::Clustering,
        }
    }

    /// The columns that it takes, in order.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// The column that it predicts; none for a clustering.
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// The classes that it tells apart, if it does.
    pub fn classes(&self) -> Option<&Classes> {
        match &self.fitted {
            Fitted::Logistic { classes, .. } | Fitted::ClassificationTree { classes, .. } => Some(classes),
            _ => None,
        }
    }

    /// Its numbers.
    pub fn fitted(&self) -> &Fitted {
        &self.fitted
    }

    /// Predictions for a matrix, rows x [`Model::features`], of finite numbers.
    pub fn predict(&self, x: &Array2<f64>) -> Predictions {
        match &self.fitted {
            Fitted::LinearRegression(linear) => Predictions::Values(by_row(x, |row| linear.value(row))),
            Fitted::RegressionTree(tree) => Predictions::Values(by_row(x, |row| tree.leaf(row)[0])),
            Fitted::Logistic { classes, logistic } => {
                Predictions::classes(classes.clone(), by_row(x, |row| logistic.probabilities(row)))
            }
            Fitted::ClassificationTree { classes, tree } => {
                Predictions::classes(classes.clone(), by_row(x, |row| tree.leaf(row).to_vec()))
            }
            Fitted::Kmeans(centroids) => {
                let (clusters, squared_distances) = by_row(x, |row| centroids.nearest(row)).into_iter().unzip();
                Predictions::Clusters { clusters, squared_distances }
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        let features = self.features.len();
        let distinct: BTreeSet<&String> = self.features.iter().collect();
        if features == 0 || distinct.len() != features {
            return Err("the features are not one or more distinct names".into());
        }
        if self.target.is_none() != (self.task() == Task::Clustering) {
            return Err("the target does not fit the algorithm".into());
        }
        if let Some(classes) = self.classes() {
            classes.check()?;
        }
        match &self.fitted {
            Fitted::LinearRegression(linear) => linear.check(features),
            Fitted::Logistic { classes, logistic } => logistic.check(features, classes.count()),
            Fitted::Kmeans(centroids) => centroids.check(features),
            Fitted::ClassificationTree { classes, tree } => tree.check(features, classes.count()),
            Fitted::RegressionTree(tree) => tree.check(features, 1),
        }
    }
}

/// Copies each row out of the column-major matrix and computes it on its own.
fn by_row<T>(x: &Array2<f64>, mut predict: impl FnMut(&[f64]) -> T) -> Vec<T> {
    let mut row = vec![0.0; x.ncols()];
    let rows = x.rows().into_iter().map(|values| {
        row.iter_mut().zip(values).for_each(|(to, from)| *to = *from);
        predict(&row)
    });
    rows.collect()
}

/// The index of the greatest value, the first of equals.
pub(crate) fn greatest(values: &[f64]) -> usize {
    values.iter().enumerate().fold(0, |best, (at, value)| if *value > values[best] { at } else { best })
}

/// Predictions, an element a row.
#[derive(Debug, Clone, PartialEq)]
pub enum Predictions {
    Classes {
        classes: Classes,
        /// The class of the greatest probability, the first of equals.
        predicted: Vec<u32>,
        /// Rows x classes.
        probabilities: Vec<Vec<f64>>,
    },
    Values(Vec<f64>),
    Clusters {
        clusters: Vec<u32>,
        squared_distances: Vec<f64>,
    },
}

impl Predictions {
    fn classes(classes: Classes, probabilities: Vec<Vec<f64>>) -> Self {
        let predicted = probabilities.iter().map(|row| greatest(row) as u32).collect();
        Self::Classes { classes, predicted, probabilities }
    }

    /// The predictions as a frame. The column [`PREDICTION`] holds labels in the type of the target, values (f64) or
    /// clusters (u32, from 0). For two classes, [`PROBABILITY`] is the probability of the positive, that is the last,
    /// class; for more, `probability_LABEL` is that of each.
    ///
    /// # Errors
    /// If it cannot be put together.
    pub fn frame(&self) -> Result<DataFrame, StageError> {
        let columns = match self {
            Self::Values(values) => vec![Column::new(PREDICTION.into(), values)],
            Self::Clusters { clusters, .. } => vec![Column::new(PREDICTION.into(), clusters)],
            Self::Classes { classes, predicted, probabilities } => {
                let mut columns = vec![classes.column(PREDICTION, predicted)?];
                let shown = if classes.count() == 2 { 1..2 } else { 0..classes.count() };
                for class in shown {
                    let values: Vec<f64> = probabilities.iter().map(|row| row[class]).collect();
                    columns.push(Column::new(probability_name(classes, class).into(), values));
                }
                columns
            }
        };
        DataFrame::new(columns[0].len(), columns).map_err(|error| StageError::Encode { detail: error.to_string() })
    }
}

fn probability_name(classes: &Classes, class: usize) -> String {
    if classes.count() == 2 { PROBABILITY.into() } else { format!("{PROBABILITY}_{}", classes.name(class)) }
}
