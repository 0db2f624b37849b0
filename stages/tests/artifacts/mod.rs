//! Artifacts that this crate has made, in parts that can be forged, and everything that kinds and commands do with one.
//!
//! Does not know what is forged, nor layouts. It is shared by the tests that change bytes by a seed and the fuzz targets.
//!
//! Invariant: a use ends in an error or does all of its work; whatever else comes of the bytes is a fault, and a panic.

// Each crate has this module for itself, and none needs all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_stages::collect::write_frame;
use headwater_stages::deploy::predict;
use headwater_stages::evaluate::{Compare, Evaluate};
use headwater_stages::frame::{self, ROWS, Schema};
use headwater_stages::io::{Content, Draft, DraftTree, Inputs, Outputs, Stored};
use headwater_stages::kind::artifact;
use headwater_stages::model::Model;
use headwater_stages::prepare::{Prepare, Split, Sql};
use headwater_stages::train::Train;
use headwater_stages::transform::Transform;
use headwater_stages::{Kind, StageError, matrix, summary};
use polars::prelude::{Column, DataFrame, DataType, NamedFrom, Series, TimeUnit, TimeZone};

/// An artifact in parts that can be changed.
#[derive(Clone)]
pub struct Parts {
    pub type_name: &'static str,
    pub is_blob: bool,
    pub header: String,
    /// Name, type and bytes; of a blob the bytes alone matter.
    pub entries: Vec<(String, String, Vec<u8>)>,
}

impl Parts {
    pub fn of(draft: Draft) -> Parts {
        let type_name = draft.type_name;
        match draft.content {
            Content::Blob(bytes) => {
                let entries = vec![(String::new(), String::new(), bytes)];
                Parts { type_name, is_blob: true, header: String::new(), entries }
            }
            Content::Tree(tree) => {
                let header = tree.header.clone();
                let entries = tree.into_entries().map(|(head, bytes)| (head.name, head.type_name, bytes)).collect();
                Parts { type_name, is_blob: false, header, entries }
            }
        }
    }

    pub fn draft(&self) -> Draft {
        if self.is_blob {
            return Draft::blob(self.type_name, self.entries[0].2.clone());
        }
        let mut tree = DraftTree::new(self.header.clone());
        for (name, type_name, bytes) in &self.entries {
            tree.push(name.clone(), type_name.clone(), bytes.clone());
        }
        Draft::tree(self.type_name, tree)
    }
}

/// Columns of which features, targets and classes can be made.
pub fn raw() -> DataFrame {
    let rows = 0..24_usize;
    let number: Vec<f64> = rows.clone().map(|row| (row * 7 % 11) as f64).collect();
    let holes: Vec<Option<i64>> = rows.clone().map(|row| (row % 5 != 3).then_some((row * 3 % 13) as i64)).collect();
    let text: Vec<&str> = rows.clone().map(|row| ["a", "bå", "a text of more than twelve bytes"][row % 3]).collect();
    let late: Vec<bool> = rows.clone().map(|row| row % 7 > 3).collect();
    let speed: Vec<&str> = rows.map(|row| ["slow", "quick", "quick"][row * 5 % 3]).collect();
    let columns = vec![
        Column::new("number".into(), number),
        Column::new("holes".into(), holes),
        Column::new("text".into(), text),
        Column::new("late".into(), late),
        Column::new("speed".into(), speed),
    ];
    DataFrame::new(24, columns).expect("a frame")
}

/// Columns of types that `raw` has not.
pub fn others() -> DataFrame {
    let whole = Series::new("".into(), [Some(1_i64), None, Some(86_399_000_000_000)]);
    let types = [
        DataType::Time,
        DataType::Duration(TimeUnit::Milliseconds),
        DataType::Datetime(TimeUnit::Microseconds, Some(TimeZone::UTC)),
        DataType::UInt64,
        DataType::Float32,
    ];
    let named = |(at, dtype): (usize, &DataType)| {
        let name = format!("column {at}");
        Column::from(whole.cast(dtype).expect("casts").with_name(name.as_str().into()))
    };
    let mut columns: Vec<Column> = types.iter().enumerate().map(named).collect();
    columns.push(Column::new("flags".into(), [Some(true), None, Some(false)]));
    columns.push(Column::new("texts".into(), [Some("x"), None, Some("")]));
    columns.push(Column::new("bytes".into(), [1_i8, -1, 7]));
    DataFrame::new(3, columns).expect("a frame")
}

pub fn stored(frame: &DataFrame) -> Draft {
    Draft::tree(artifact::FRAME, frame::encode(frame).expect("encodes"))
}

/// The outputs of a kind, if it gives any.
pub fn run<K: Kind>(config: &str, wired: &[(&str, &Draft)]) -> Option<BTreeMap<&'static str, Draft>> {
    let config: K::Config = serde_json::from_str(config).expect("a configuration");
    let mut inputs = Inputs::default();
    for (number, (port, draft)) in wired.iter().enumerate() {
        let label = BTreeMap::from([("number".to_owned(), number.to_string())]);
        inputs.add(*port, label, Arc::new((*draft).clone()));
    }
    let mut outputs = Outputs::default();
    K::run(&config, &inputs, &mut outputs).ok()?;
    Some(outputs.into_drafts())
}

fn output<K: Kind>(config: &str, wired: &[(&str, &Draft)], port: &str) -> Draft {
    run::<K>(config, wired).expect("it runs").remove(port).expect("an output")
}

/// Both halves of a frame, each a selection of rows over its columns.
pub fn halves(frame: &Draft) -> Vec<Draft> {
    let drafts = run::<Split>(r#"{"test": 0.5}"#, &[("input", frame)]).expect("splits");
    let over = |half: &Draft| {
        let mut parts = Parts::of(frame.clone());
        parts.header = half.header().to_owned();
        parts.entries.push((ROWS.to_owned(), "rows".to_owned(), half.entry(ROWS).expect("a selection").to_vec()));
        parts.draft()
    };
    drafts.values().map(over).collect()
}

const PREPARE: &str = r#"{"target": "speed", "features": ["number", "holes", "text"],
    "steps": [{"impute": "mean", "columns": ["holes"]}, {"one_hot": ["text"]}, {"scale": "standard"}]}"#;
const TREE: &str = r#"{"model": {"algorithm": "decision_tree"}}"#;
const CLUSTERS: &str = r#"{"model": {"algorithm": "kmeans", "clusters": 2}}"#;

/// What a pipeline of all kinds has stored.
pub struct Learned {
    pub raw: Draft,
    pub prepared: Draft,
    pub transform: Draft,
    pub models: Vec<Draft>,
    pub metrics: Draft,
}

pub fn learned() -> Learned {
    let raw = stored(&raw());
    let mut drafts = run::<Prepare>(PREPARE, &[("train", &raw), ("test", &raw)]).expect("prepares");
    let mut taken = |port: &str| drafts.remove(port).expect("an output");
    let (prepared, transform) = (taken("train"), taken("transform"));
    let behind = [("train", &prepared), ("transform", &transform)];
    let linear = r#"{"target": "number", "features": ["late"], "model": {"algorithm": "linear_regression"}}"#;
    let values = r#"{"target": "number", "features": ["late"], "model": {"algorithm": "decision_tree"}}"#;
    let models = vec![
        output::<Train>(TREE, &behind, "model"),
        output::<Train>(r#"{"model": {"algorithm": "logistic"}}"#, &behind, "model"),
        output::<Train>(CLUSTERS, &behind, "model"),
        output::<Train>(linear, &[("train", &raw)], "model"),
        output::<Train>(values, &[("train", &raw)], "model"),
    ];
    let metrics = output::<Evaluate>("{}", &[("model", &models[0]), ("data", &prepared)], "metrics");
    Learned { raw, prepared, transform, models, metrics }
}

/// What was decoded is encoded so that the same is decoded again; but for names that no column of a frame has.
pub fn round_trip(decoded: &DataFrame) {
    let tree = match frame::encode(decoded) {
        Err(StageError::UnnamedColumn { .. } | StageError::ReservedColumn { .. }) => return,
        tree => tree.expect("what was decoded encodes"),
    };
    let again = frame::decode(&Draft::tree(artifact::FRAME, tree)).expect("what was decoded and encoded decodes");
    assert!(again.equals_missing(decoded), "{again} {decoded}");
}

/// All that kinds and commands do with a frame, in parts that take about as long as each other.
pub const FRAME_USES: [fn(&Draft, &Learned); 6] =
    [look_at_frame, write_and_predict, query, split, prepare, train_and_evaluate];

fn look_at_frame(frame: &Draft, _: &Learned) {
    let _ = (Schema::of(frame), frame::decode_rows(frame));
    for name in ["number", "text", "flags"] {
        let _ = frame::decode_columns(frame, &[name.to_owned()]);
    }
    if let Ok(decoded) = frame::decode(frame) {
        round_trip(&decoded);
        let _ = (summary::columns(&decoded), summary::head(&decoded, 5));
    }
}

fn write_and_predict(frame: &Draft, learned: &Learned) {
    let Ok(decoded) = frame::decode(frame) else { return };
    for name in ["out.csv", "out.jsonl", "out.parquet", "out.arrow"] {
        let _ = write_frame(&decoded, name);
    }
    for model in &learned.models {
        let _ = predict(model, &decoded);
    }
}

fn query(frame: &Draft, _: &Learned) {
    let _ = run::<Sql>(r#"{"query": "select count(*) as rows from t"}"#, &[("t", frame)]);
}

fn split(frame: &Draft, _: &Learned) {
    let _ = run::<Split>(r#"{"test": 0.5}"#, &[("input", frame)]);
    let _ = run::<Split>(r#"{"test": 0.5, "stratify": "late"}"#, &[("input", frame)]);
}

fn prepare(frame: &Draft, learned: &Learned) {
    let _ = run::<Prepare>(PREPARE, &[("train", frame), ("test", &learned.raw)]);
}

fn train_and_evaluate(frame: &Draft, learned: &Learned) {
    let _ = run::<Train>(TREE, &[("train", frame), ("transform", &learned.transform)]);
    let _ = run::<Evaluate>("{}", &[("model", &learned.models[0]), ("data", frame)]);
}

pub fn use_transform(transform: &Draft, learned: &Learned) {
    if let Ok(decoded) = Transform::decode(&transform.blob().expect("a blob")) {
        let again = Transform::decode(&decoded.encode().expect("encodes")).expect("decodes");
        assert_eq!(again, decoded);
        let _ = (decoded.describe(), decoded.apply(&raw()));
    }
    let _ = run::<Train>(CLUSTERS, &[("train", &learned.prepared), ("transform", transform)]);
}

pub fn use_model(model: &Draft, learned: &Learned) {
    let _ = (Model::mark(model), Model::transform(model));
    if let Ok(read) = Model::read(model) {
        let _ = matrix::features("predict", &raw(), read.features());
        let rows = ndarray::Array2::from_shape_fn((3, read.features().len()), |(row, column)| (row * column) as f64);
        let _ = read.predict(&rows).frame();
    }
    let _ = predict(model, &raw());
    let _ = run::<Evaluate>("{}", &[("model", model), ("data", &learned.prepared)]);
}

pub fn use_metrics(metrics: &Draft, learned: &Learned) {
    for config in ["{}", r#"{"repeats": ["number"]}"#] {
        if let Some(drafts) = run::<Compare>(config, &[("metrics", metrics), ("metrics", &learned.metrics)]) {
            let table = drafts["table"].blob().expect("a blob");
            serde_json::from_slice::<serde_json::Value>(&table).expect("a table is JSON");
        }
    }
}
