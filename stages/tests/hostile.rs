//! Forged bytes in everything stored that this crate reads: columns, row selections, headers, transforms, models, metrics.
//!
//! What must hold, whatever lengths, depths and counts the bytes claim: no panic, an error or something that can be used in
//! every way that a kind uses it, and never 64 MiB more than the bytes themselves have. One seed is one case:
//! `HEADWATER_TORTURE` multiplies the cases, `HEADWATER_SEED` is the first seed, and a failure names its own.
//!
//! Does not know layouts: it changes what the crate itself has written.

#[path = "../../cache/tests/seeded/mod.rs"]
mod seeded;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
use headwater_stages::{Kind, matrix, summary};
use peak_alloc::PeakAlloc;
use polars::prelude::{Column, DataFrame, DataType, NamedFrom, Series, TimeUnit, TimeZone};

use crate::seeded::{Random, torture};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// How much is asked for is counted for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// More than this must never be asked for on the word of a length.
const LIMIT: usize = 64 << 20;
const CASES: u64 = 400;
/// What a length, an offset or a count is set to.
const NUMBERS: [i64; 16] = [
    0,
    1,
    7,
    8,
    63,
    64,
    1 << 20,
    1 << 28,
    900 << 20,
    -1,
    i32::MAX as i64,
    u32::MAX as i64,
    1 << 60,
    i64::MAX,
    i64::MIN,
    i64::MAX - 63,
];

/// An artifact in parts that can be changed.
#[derive(Clone)]
struct Parts {
    type_name: &'static str,
    is_blob: bool,
    header: String,
    /// Name, type and bytes; of a blob the bytes alone matter.
    entries: Vec<(String, String, Vec<u8>)>,
}

impl Parts {
    fn of(draft: Draft) -> Parts {
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

    fn draft(&self) -> Draft {
        if self.is_blob {
            return Draft::blob(self.type_name, self.entries[0].2.clone());
        }
        let mut tree = DraftTree::new(self.header.clone());
        for (name, type_name, bytes) in &self.entries {
            tree.push(name.clone(), type_name.clone(), bytes.clone());
        }
        Draft::tree(self.type_name, tree)
    }

    /// Mostly bytes, now and then the header, an entry that becomes another, or is gone with all that follow.
    fn change(&mut self, random: &mut Random) {
        for _ in 0..=random.index(4) {
            let (at, kind) = (random.index(self.entries.len()), if self.is_blob { 16 } else { random.index(16) });
            match kind {
                0 => self.header = changed_text(&self.header, random),
                1 => self.entries.truncate(at),
                _ if self.entries.is_empty() => {}
                2 => {
                    let other = random.index(self.entries.len());
                    self.entries[at].2 = self.entries[other].2.clone();
                }
                _ => change_bytes(&mut self.entries[at].2, random),
            }
        }
    }
}

fn changed_text(text: &str, random: &mut Random) -> String {
    if random.index(2) == 0 {
        // The first number of it becomes another.
        let is_digit = |byte: u8| byte.is_ascii_digit();
        if let Some(begin) = text.bytes().position(is_digit) {
            let rest = text[begin..].trim_start_matches(|digit: char| digit.is_ascii_digit());
            let number = NUMBERS[random.index(NUMBERS.len())] as u64;
            return format!("{}{number}{rest}", &text[..begin]);
        }
    }
    let mut bytes = text.as_bytes().to_vec();
    change_bytes(&mut bytes, random);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn change_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        bytes.push(random.index(256) as u8);
    }
    let (at, length) = (random.index(bytes.len()), bytes.len());
    let chosen = NUMBERS[random.index(NUMBERS.len())].to_le_bytes();
    match random.index(8) {
        0 => bytes[at] ^= 1 << random.index(8),
        1 => bytes[at] = random.index(256) as u8,
        2 => overwrite(bytes, at & !3, &chosen),
        3 => overwrite(bytes, at & !3, &chosen[..4]),
        // The numbers of this crate's own formats stand at any place.
        4 => overwrite(bytes, at, &chosen),
        5 => bytes.truncate(at),
        6 => {
            let copied = bytes[at..(at + 16).min(length)].to_vec();
            overwrite(bytes, random.index(length) & !3, &copied);
        }
        _ => {
            let copied = bytes[at..(at + 1 + random.index(64)).min(length)].to_vec();
            let to = random.index(length);
            bytes.splice(to..to, copied);
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes.iter_mut().skip(at).zip(with).for_each(|(byte, new)| *byte = *new);
}

/// Columns of which features, targets and classes can be made.
fn raw() -> DataFrame {
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
fn others() -> DataFrame {
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

fn stored(frame: &DataFrame) -> Draft {
    Draft::tree(artifact::FRAME, frame::encode(frame).expect("encodes"))
}

/// The outputs of a kind, if it gives any.
fn run<K: Kind>(config: &str, wired: &[(&str, &Draft)]) -> Option<BTreeMap<&'static str, Draft>> {
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
fn halves(frame: &Draft) -> Vec<Draft> {
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
struct Learned {
    raw: Draft,
    prepared: Draft,
    transform: Draft,
    models: Vec<Draft>,
    metrics: Draft,
}

fn learned() -> Learned {
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

/// Everything that kinds and commands do with a frame.
fn use_frame(frame: &Draft, learned: &Learned) {
    let _ = (Schema::of(frame), frame::decode_rows(frame));
    for name in ["number", "text", "flags"] {
        let _ = frame::decode_columns(frame, &[name.to_owned()]);
    }
    if let Ok(decoded) = frame::decode(frame) {
        let again = frame::decode(&stored(&decoded)).expect("what was decoded and encoded decodes");
        assert!(again.equals_missing(&decoded), "{again} {decoded}");
        let _ = (summary::columns(&decoded), summary::head(&decoded, 5));
        for name in ["out.csv", "out.jsonl", "out.parquet", "out.arrow"] {
            let _ = write_frame(&decoded, name);
        }
        for model in &learned.models {
            let _ = predict(model, &decoded);
        }
    }
    let _ = run::<Sql>(r#"{"query": "select count(*) as rows from t"}"#, &[("t", frame)]);
    let _ = run::<Split>(r#"{"test": 0.5}"#, &[("input", frame)]);
    let _ = run::<Split>(r#"{"test": 0.5, "stratify": "late"}"#, &[("input", frame)]);
    let _ = run::<Prepare>(PREPARE, &[("train", frame), ("test", &learned.raw)]);
    let _ = run::<Train>(TREE, &[("train", frame), ("transform", &learned.transform)]);
    let _ = run::<Evaluate>("{}", &[("model", &learned.models[0]), ("data", frame)]);
}

fn use_transform(transform: &Draft, learned: &Learned) {
    if let Ok(decoded) = Transform::decode(&transform.blob().expect("a blob")) {
        let again = Transform::decode(&decoded.encode().expect("encodes")).expect("decodes");
        assert_eq!(again, decoded);
        let _ = (decoded.describe(), decoded.apply(&raw()));
    }
    let _ = run::<Train>(CLUSTERS, &[("train", &learned.prepared), ("transform", transform)]);
}

fn use_model(model: &Draft, learned: &Learned) {
    let _ = (Model::mark(model), Model::transform(model));
    if let Ok(read) = Model::read(model) {
        let _ = matrix::features("predict", &raw(), read.features());
        let rows = ndarray::Array2::from_shape_fn((3, read.features().len()), |(row, column)| (row * column) as f64);
        let _ = read.predict(&rows).frame();
    }
    let _ = predict(model, &raw());
    let _ = run::<Evaluate>("{}", &[("model", model), ("data", &learned.prepared)]);
}

fn use_metrics(metrics: &Draft, learned: &Learned) {
    for config in ["{}", r#"{"repeats": ["number"]}"#] {
        if let Some(drafts) = run::<Compare>(config, &[("metrics", metrics), ("metrics", &learned.metrics)]) {
            let table = drafts["table"].blob().expect("a blob");
            serde_json::from_slice::<serde_json::Value>(&table).expect("a table is JSON");
        }
    }
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names the seed of the case that panics.
struct Named(&'static str, u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was the {} of HEADWATER_SEED={}", self.0, self.1);
        }
    }
}

/// Does `work`, which must not ask for much memory.
fn frugally(work: impl FnOnce()) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    work();
    let asked = MEMORY.peak_usage().saturating_sub(before);
    assert!(asked < LIMIT, "{asked} bytes were asked for");
}

/// Changes one of the samples for each seed, and uses it.
fn survive(what: &'static str, samples: &[Draft], uses: impl Fn(&Draft)) {
    let first = std::env::var("HEADWATER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    samples.iter().for_each(&uses);
    for seed in first..first + CASES * torture() {
        let (_named, mut random) = (Named(what, seed), Random(seed));
        let mut parts = Parts::of(samples[random.index(samples.len())].clone());
        parts.change(&mut random);
        let draft = parts.draft();
        frugally(|| uses(&draft));
    }
}

#[test]
fn forged_frames_end_in_an_error_or_can_be_used() {
    let (_alone, learned) = (alone(), learned());
    let mut samples = vec![learned.raw.clone(), learned.prepared.clone(), stored(&others())];
    samples.extend(halves(&learned.raw));
    survive("frame", &samples, |frame| use_frame(frame, &learned));
}

#[test]
fn forged_transforms_end_in_an_error_or_can_be_applied() {
    let (_alone, learned) = (alone(), learned());
    survive("transform", std::slice::from_ref(&learned.transform), |transform| use_transform(transform, &learned));
}

#[test]
fn forged_models_end_in_an_error_or_predict() {
    let (_alone, learned) = (alone(), learned());
    survive("model", &learned.models, |model| use_model(model, &learned));
}

#[test]
fn forged_metrics_end_in_an_error_or_can_be_compared() {
    let (_alone, learned) = (alone(), learned());
    survive("metrics", std::slice::from_ref(&learned.metrics), |metrics| use_metrics(metrics, &learned));
}

#[test]
fn a_frame_that_claims_more_rows_than_its_bytes_can_hold_is_refused_by_whoever_reads_no_column() {
    let _alone = alone();
    let mut parts = Parts::of(stored(&raw()));
    let bytes: usize = parts.entries.iter().map(|(_, _, bytes)| bytes.len()).sum();
    parts.header = "rows 4000000000".to_owned();
    let refused = |parts: &Parts| {
        let draft = parts.draft();
        frugally(|| assert!(run::<Split>(r#"{"test": 0.5}"#, &[("input", &draft)]).is_none()));
        frugally(|| assert!(run::<Sql>(r#"{"query": "select count(*) as n from t"}"#, &[("t", &draft)]).is_none()));
        Schema::of(&draft).expect_err("too many rows").to_string()
    };
    assert_eq!(refused(&parts), format!("frame cannot be decoded: {bytes} bytes cannot hold 4000000000 rows"));
    parts.entries.clear();
    assert_eq!(refused(&parts), "frame cannot be decoded: 0 bytes cannot hold 4000000000 rows");
}

#[test]
fn a_selection_of_fewer_rows_than_its_header_says_is_not_split() {
    let _alone = alone();
    let mut parts = Parts::of(halves(&stored(&raw())).remove(0));
    parts.header = "rows 24".to_owned();
    let draft = parts.draft();
    assert!(run::<Split>(r#"{"test": 0.5}"#, &[("input", &draft)]).is_none());
    let error = frame::decode_rows(&draft).expect_err("too short").to_string();
    assert_eq!(error, "frame cannot be decoded: the row selection has 12 rows, the header says 24");
}

#[test]
fn a_text_that_claims_a_gigabyte_is_refused_before_it_is_believed() {
    let _alone = alone();
    for length in [100_u64 << 20, 900 << 20] {
        // One text follows, it says, of so many bytes.
        let body = [1_u64.to_le_bytes(), length.to_le_bytes()].concat();
        let transform = [b"HWTF\x01", body.as_slice()].concat();
        frugally(|| assert!(Transform::decode(&transform).is_err()));
        let mut tree = DraftTree::new("algorithm kmeans");
        tree.push("model", "parameters", [b"HWMO\x01", body.as_slice()].concat());
        let model = Draft::tree(artifact::MODEL, tree);
        frugally(|| assert!(Model::read(&model).is_err()));
    }
}
