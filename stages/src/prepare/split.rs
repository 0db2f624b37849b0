//! `split`: the rows of a frame as train and test, by fraction or by fold.
//!
//! It writes row numbers, never columns: both outputs share the input's columns. It does not know what the columns are
//! for, except the one by whose classes it may stratify.
//!
//! Invariants: train and test have no row in common and together all of them, each in the order of the input. The
//! partition depends on the row count, the seed and the stratified classes alone, not on the fold that is asked for; the
//! tests of all folds are every row exactly once.

use std::collections::BTreeMap;

use polars::prelude::*;
use rand_xoshiro::Xoshiro256PlusPlus;
use rand_xoshiro::rand_core::{RngCore, SeedableRng};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::frame::{self, Schema};
use crate::io::{Draft, Inputs, Outputs, Stored};
use crate::kind::{From, InputPort, InputPorts, OutputPort, Ports, Selection, Selections, artifact};
use crate::{Kind, StageError};

/// The kind `split`.
pub struct Split;

/// What `split` was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawSplit")]
pub struct SplitConfig {
    #[serde(flatten)]
    pub part: TestPart,
    pub stratify: Option<String>,
    pub seed: u64,
}

/// Which rows are the test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TestPart {
    /// A share of the rows, within (0, 1).
    Fraction { test: f64 },
    /// One of `folds` parts, `fold` counted from 0.
    Fold { folds: u32, fold: u32 },
}

const DEFAULT_FRACTION: f64 = 0.25;

/// Divides the rows of a frame into `train` and `test`, by a share or by folds. Copies no column.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "SplitConfig")]
struct RawSplit {
    /// The share of the rows that is the test, between 0 and 1; default 0.25 unless `folds` is set.
    test: Option<f64>,
    /// The number of folds, at least 2.
    folds: Option<u32>,
    /// The fold that is the test, counted from 0.
    fold: Option<u32>,
    /// A column whose classes are to have the same shares in train and test.
    stratify: Option<String>,
    /// Another seed is another partition.
    #[serde(default)]
    seed: u64,
}

impl JsonSchema for SplitConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        RawSplit::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        RawSplit::json_schema(generator)
    }
}

impl TryFrom<RawSplit> for SplitConfig {
    type Error = String;

    fn try_from(raw: RawSplit) -> Result<Self, String> {
        let part = match (raw.test, raw.folds, raw.fold) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => return Err("`test` and `folds` exclude each other".into()),
            (None, Some(_), None) => return Err("`folds` needs `fold`, the one that is the test".into()),
            (None, None, Some(_)) => return Err("`fold` needs `folds`, their number".into()),
            (None, Some(folds), _) if folds < 2 => return Err(format!("`folds` is {folds}, at least 2 are needed")),
            (None, Some(folds), Some(fold)) if fold >= folds => {
                return Err(format!("`fold` is {fold}, but {folds} folds are counted from 0 to {}", folds - 1));
            }
            (None, Some(folds), Some(fold)) => TestPart::Fold { folds, fold },
            (test, None, None) => TestPart::Fraction { test: test.unwrap_or(DEFAULT_FRACTION) },
        };
        match part {
            TestPart::Fraction { test } if !(test > 0.0 && test < 1.0) => {
                Err(format!("`test` is {test}, a share between 0 and 1 is needed"))
            }
            part => Ok(Self { part, stratify: raw.stratify, seed: raw.seed }),
        }
    }
}

impl Kind for Split {
    const NAME: &'static str = "split";
    const VERSION: u32 = 1;
    type Config = SplitConfig;

    fn ports(_config: &SplitConfig) -> Ports {
        Ports {
            inputs: InputPorts::Fixed(vec![InputPort { name: "input", type_name: artifact::FRAME, from: From::Stage }]),
            outputs: vec![
                OutputPort::passing("train", artifact::FRAME, "input"),
                OutputPort::passing("test", artifact::FRAME, "input"),
            ],
        }
    }

    fn reads(config: &SplitConfig, schemas: &BTreeMap<String, Schema>) -> Selections {
        let selection = |schema: &Schema| match &config.stratify {
            // So that the error can list the columns that there are.
            Some(column) if !schema.columns.iter().any(|head| head.name == *column) => Selection::All,
            stratify => Selection::Only(stratify.iter().cloned().collect()),
        };
        schemas.iter().map(|(port, schema)| (port.clone(), selection(schema))).collect()
    }

    fn run(config: &SplitConfig, inputs: &Inputs, outputs: &mut Outputs) -> Result<(), StageError> {
        let input = inputs.one("input")?;
        let schema = Schema::of(input)?;
        let rows = u32::try_from(schema.rows).map_err(|_| StageError::Data {
            detail: "split: a frame of more than 4,294,967,295 rows cannot be split".into(),
        })?;
        let groups = match &config.stratify {
            None => vec![(None, (0..rows).collect())],
            Some(column) => classes(input, column)?,
        };
        let is_test = assign(config, rows, groups)?;
        let present = frame::decode_rows(input)?;
        for (port, wanted) in [("train", false), ("test", true)] {
            let chosen = (0..rows).zip(&is_test).filter(|(_, test)| **test == wanted).map(|(row, _)| row);
            let composed = match &present {
                None => chosen.collect(),
                Some(present) => compose(present, chosen),
            };
            outputs.put(port, Draft::tree(artifact::FRAME, frame::encode_rows(composed, schema.mark.as_ref())?));
        }
        Ok(())
    }
}

/// Rows of rows: the input's columns may themselves stand behind a selection.
fn compose(present: &IdxCa, chosen: impl Iterator<Item = u32>) -> Vec<u32> {
    chosen.map(|row| present.get(row as usize).expect("a selection is as long as its frame, without nulls")).collect()
}

/// A class's name for messages, none without classes, and its rows in ascending order.
type Group = (Option<String>, Vec<u32>);

/// A class of the column to stratify by; nulls are one of their own.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Class<'a> {
    Null,
    Number(i128),
    Text(&'a str),
}

impl Class<'_> {
    fn name(&self) -> String {
        match self {
            Self::Null => "null".into(),
            Self::Number(number) => number.to_string(),
            Self::Text(text) => (*text).to_string(),
        }
    }
}

/// The rows of each class, classes in ascending order: numbers by value, text by its bytes, nulls first.
fn classes(input: &dyn Stored, column: &str) -> Result<Vec<Group>, StageError> {
    let place = || "split: stratify".to_string();
    let available = Schema::of(input)?.names();
    if !available.iter().any(|name| name == column) {
        return Err(StageError::UnknownColumn { place: place(), column: column.into(), available });
    }
    let frame = frame::decode_columns(input, &[column.to_string()])?;
    let series = frame.columns()[0].as_materialized_series();
    let failed = |error: PolarsError| StageError::Library { what: "polars", detail: error.to_string() };
    if series.dtype().is_string() {
        let texts = series.str().map_err(failed)?;
        return Ok(group(texts.iter().map(|text| text.map_or(Class::Null, Class::Text))));
    }
    if let DataType::UInt64 = series.dtype() {
        let numbers = series.u64().map_err(failed)?;
        return Ok(group(
            numbers.iter().map(|number| number.map_or(Class::Null, |number| Class::Number(number.into()))),
        ));
    }
    if series.dtype().is_bool() || series.dtype().is_integer() {
        let numbers = series.cast(&DataType::Int64).map_err(failed)?;
        let numbers = numbers.i64().map_err(failed)?;
        return Ok(group(
            numbers.iter().map(|number| number.map_or(Class::Null, |number| Class::Number(number.into()))),
        ));
    }
    Err(StageError::ColumnType {
        place: place(),
        column: column.into(),
        found: frame::type_name(series.dtype()).unwrap_or_else(|| series.dtype().to_string()),
        expected: "text, whole numbers or booleans".into(),
    })
}

fn group<'a>(classes: impl Iterator<Item = Class<'a>>) -> Vec<Group> {
    let mut groups: BTreeMap<Class, Vec<u32>> = BTreeMap::new();
    for (row, class) in (0..).zip(classes) {
        groups.entry(class).or_default().push(row);
    }
    groups.into_iter().map(|(class, rows)| (Some(class.name()), rows)).collect()
}

/// For each row whether it is in the test.
fn assign(config: &SplitConfig, rows: u32, mut groups: Vec<Group>) -> Result<Vec<bool>, StageError> {
    check_sizes(config, rows, &groups)?;
    let mut random = Xoshiro256PlusPlus::seed_from_u64(config.seed);
    groups.iter_mut().for_each(|(_, rows)| shuffle(rows, &mut random));
    let mut is_test = vec![false; rows as usize];
    match config.part {
        TestPart::Fraction { test } => {
            for ((_, rows), count) in groups.iter().zip(shares(rows, &groups, test)) {
                rows[..count].iter().for_each(|row| is_test[*row as usize] = true);
            }
        }
        TestPart::Fold { folds, fold } => {
            // Dealt like cards, on from class to class: both classes and folds differ by one row at most.
            let dealt = groups.iter().flat_map(|(_, rows)| rows).zip((0..folds).cycle());
            dealt.filter(|(_, to)| *to == fold).for_each(|(row, _)| is_test[*row as usize] = true);
        }
    }
    Ok(is_test)
}

fn check_sizes(config: &SplitConfig, rows: u32, groups: &[Group]) -> Result<(), StageError> {
    let TestPart::Fold { folds, .. } = config.part else {
        return match rows {
            0 | 1 => Err(StageError::Data { detail: format!("split: 2 rows are needed, {rows} is there") }),
            _ => Ok(()),
        };
    };
    match groups.iter().find(|(_, rows)| rows.len() < folds as usize) {
        None if rows >= folds => Ok(()),
        Some((Some(class), rows)) => Err(StageError::Data {
            detail: format!(
                "split: class `{class}` of `{}` has {}, fewer than the {folds} folds",
                config.stratify.as_deref().unwrap_or_default(),
                if rows.len() == 1 { "1 row".into() } else { format!("{} rows", rows.len()) },
            ),
        }),
        _ => Err(StageError::Data { detail: format!("split: {rows} rows are fewer than the {folds} folds") }),
    }
}

/// How many rows of each group are in the test: the largest-remainder method (Hamilton), ties going to the first class.
/// The total is the rounded share of all rows, but at least one row on either side.
fn shares(rows: u32, groups: &[Group], test: f64) -> Vec<usize> {
    let total = ((f64::from(rows) * test).round() as usize).clamp(1, rows as usize - 1);
    let quota = |group: &Group| group.1.len() as f64 * total as f64 / f64::from(rows);
    let quotas: Vec<f64> = groups.iter().map(quota).collect();
    let mut counts: Vec<usize> = quotas.iter().map(|quota| quota.floor() as usize).collect();
    let mut by_remainder: Vec<usize> = (0..groups.len()).collect();
    by_remainder.sort_by(|a, b| quotas[*b].fract().total_cmp(&quotas[*a].fract()).then(a.cmp(b)));
    let missing = total.saturating_sub(counts.iter().sum());
    by_remainder.into_iter().take(missing).for_each(|at| counts[at] += 1);
    counts
}

/// Fisher–Yates. The bound is taken by multiplication (Lemire 2019, without the rejection: for fewer than 2^32 rows the
/// bias is below 2^-32), so that the sequence depends on no library's version.
fn shuffle(rows: &mut [u32], random: &mut Xoshiro256PlusPlus) {
    for at in (1..rows.len()).rev() {
        let bound = at as u128 + 1;
        let other = (u128::from(random.next_u64()) * bound) >> 64;
        rows.swap(at, other as usize);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use serde_json::{Value, json};

    use super::*;

    fn config(value: Value) -> Result<SplitConfig, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    fn labels(texts: &[Option<&str>]) -> Draft {
        let column = Series::new("label".into(), texts);
        let frame = DataFrame::new(texts.len(), vec![column.into()]).expect("one column");
        Draft::tree(artifact::FRAME, frame::encode(&frame).expect("encodes"))
    }

    fn run(value: Value, input: &Draft) -> Result<(Vec<u32>, Vec<u32>), StageError> {
        let mut inputs = Inputs::default();
        inputs.add("input", BTreeMap::new(), Arc::new(input.clone()));
        let mut outputs = Outputs::default();
        Split::run(&config(value).expect("valid"), &inputs, &mut outputs)?;
        let drafts = outputs.into_drafts();
        let rows = |port| {
            let rows = frame::decode_rows(&drafts[port]).expect("decodes").expect("rows");
            rows.iter().flatten().collect::<Vec<u32>>()
        };
        Ok((rows("train"), rows("test")))
    }

    #[test]
    fn configurations_that_say_nothing_sensible_are_refused() {
        for (value, text) in [
            (json!({"test": 0.2, "folds": 3, "fold": 0}), "`test` and `folds` exclude each other"),
            (json!({"folds": 3}), "`folds` needs `fold`, the one that is the test"),
            (json!({"fold": 3}), "`fold` needs `folds`, their number"),
            (json!({"folds": 1, "fold": 0}), "`folds` is 1, at least 2 are needed"),
            (json!({"folds": 3, "fold": 3}), "`fold` is 3, but 3 folds are counted from 0 to 2"),
            (json!({"test": 1.0}), "`test` is 1, a share between 0 and 1 is needed"),
        ] {
            assert_eq!(config(value).expect_err("refused"), text);
        }
        assert!(config(json!({"tset": 0.2})).expect_err("unknown").starts_with("unknown field `tset`"));
    }

    #[test]
    fn the_canonical_configuration_is_complete_and_reads_back_as_what_it_means() {
        let canonical = serde_json::to_value(config(json!({})).expect("valid")).expect("serializes");
        assert_eq!(canonical, json!({"test": 0.25, "stratify": null, "seed": 0}));
        let folds = config(json!({"folds": 5, "fold": 1, "stratify": "y", "seed": 3})).expect("valid");
        let canonical = serde_json::to_value(&folds).expect("serializes");
        assert_eq!(canonical, json!({"folds": 5, "fold": 1, "stratify": "y", "seed": 3}));
        assert_eq!(config(canonical).expect("valid"), folds);
    }

    #[test]
    fn only_the_stratified_column_is_read() {
        let schema = Schema::of(&labels(&[Some("a")])).expect("a frame");
        let schemas = BTreeMap::from([("input".to_string(), schema)]);
        let reads = |value| Split::reads(&config(value).expect("valid"), &schemas).remove("input");
        assert_eq!(reads(json!({})), Some(Selection::Only(vec![])));
        assert_eq!(reads(json!({"stratify": "label"})), Some(Selection::Only(vec!["label".into()])));
        assert_eq!(reads(json!({"stratify": "lable"})), Some(Selection::All));
    }

    #[test]
    fn data_that_cannot_be_split_are_named() {
        let told = |value, input: &Draft| run(value, input).expect_err("refused").to_string();
        let input = labels(&[Some("a"), Some("a"), Some("b"), None, None]);
        let text = "split: stratify: there is no column `x`; the columns are `label`";
        assert_eq!(told(json!({"stratify": "x"}), &input), text);
        let text = "split: class `b` of `label` has 1 row, fewer than the 2 folds";
        assert_eq!(told(json!({"stratify": "label", "folds": 2, "fold": 0}), &input), text);
        assert_eq!(told(json!({"folds": 6, "fold": 0}), &input), "split: 5 rows are fewer than the 6 folds");
        assert_eq!(told(json!({}), &labels(&[None])), "split: 2 rows are needed, 1 is there");
        let floats = DataFrame::new(2, vec![Series::new("f".into(), [1.0, 2.0]).into()]).expect("one column");
        let floats = Draft::tree(artifact::FRAME, frame::encode(&floats).expect("encodes"));
        let text = "split: stratify: column `f` is f64, expected text, whole numbers or booleans";
        assert_eq!(told(json!({"stratify": "f"}), &floats), text);
    }

    #[test]
    fn a_selection_is_composed_with_the_one_before() {
        let mut tree = frame::encode_rows(vec![7, 5, 3, 1], None).expect("encodes");
        let labels = labels(&[Some("x"), Some("b"), Some("x"), Some("a"), Some("x"), Some("b"), Some("x"), Some("a")]);
        let crate::io::Content::Tree(columns) = labels.content else { panic!("a frame is a tree") };
        columns.into_entries().for_each(|(head, bytes)| tree.push(head.name, head.type_name, bytes));
        let input = Draft::tree(artifact::FRAME, tree);
        let (train, test) = run(json!({"stratify": "label", "folds": 2, "fold": 0}), &input).expect("splits");
        let class = |row: &u32| if [3, 7].contains(row) { 'a' } else { 'b' };
        assert_eq!(train.iter().map(class).collect::<std::collections::BTreeSet<_>>().len(), 2);
        assert_eq!(test.iter().map(class).collect::<std::collections::BTreeSet<_>>().len(), 2);
        let order = |rows: &[u32]| rows.windows(2).all(|pair| pair[0] > pair[1]);
        assert!(order(&train) && order(&test), "the input's order is 7, 5, 3, 1");
    }

    #[test]
    fn the_parts_of_a_prepared_frame_bear_its_mark() {
        let mark = frame::Mark::of(b"a transform");
        let columns = DataFrame::new(2, vec![Series::new("a".into(), [1_i64, 2]).into()]).expect("one column");
        let input = Draft::tree(artifact::FRAME, frame::encode_marked(&columns, Some(&mark)).expect("encodes"));
        let mut inputs = Inputs::default();
        inputs.add("input", BTreeMap::new(), Arc::new(input));
        let mut outputs = Outputs::default();
        Split::run(&config(json!({"test": 0.5})).expect("valid"), &inputs, &mut outputs).expect("splits");
        for (port, draft) in outputs.into_drafts() {
            assert_eq!(Schema::of(&draft).expect("a frame").mark, Some(mark.clone()), "{port}");
        }
    }

    #[test]
    fn the_partition_is_pinned() {
        let input = labels(&[Some("a"); 12]);
        let (train, test) = run(json!({"seed": 7}), &input).expect("splits");
        assert_eq!((train.len(), test.clone()), (9, PINNED_TEST.to_vec()));
        let mut inputs = Inputs::default();
        inputs.add("input", BTreeMap::new(), Arc::new(input));
        let mut outputs = Outputs::default();
        Split::run(&config(json!({"seed": 7})).expect("valid"), &inputs, &mut outputs).expect("splits");
        let drafts = outputs.into_drafts();
        let digest = |port| blake3::hash(&drafts[port].entry(frame::ROWS).expect("rows")).to_hex().to_string();
        assert_eq!([digest("train"), digest("test")], PINNED_DIGESTS, "raise VERSION");
    }

    const PINNED_TEST: [u32; 3] = [2, 5, 11];
    const PINNED_DIGESTS: [&str; 2] = [
        "22c791403ade2184f16b9727652f39dfc345d4e6c2ff3c7f9a8518a454cb5fef",
        "ca9ee1eaad2ae6c19a2db6f88cbc0beb881c6da8e38a407042e9391e4432799c",
    ];

    #[test]
    fn threads_do_not_count() {
        let names = ["a", "b", "c"];
        let texts: Vec<Option<&str>> = (0..5000).map(|row| names.get(row % 4).copied()).collect();
        let input = labels(&texts);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| run(json!({"stratify": "label", "seed": 3}), &input).expect("splits"))
        };
        assert_eq!(with(1), with(2));
    }

    proptest! {
        #[test]
        fn folds_partition_the_rows(classes in proptest::collection::vec(0_u8..4, 2..120), folds in 2_u32..6, seed in any::<u64>()) {
            let names = ["a", "b", "c"];
            let texts: Vec<Option<&str>> = classes.iter().map(|class| names.get(*class as usize).copied()).collect();
            let input = labels(&texts);
            let mut seen = vec![0; texts.len()];
            let mut sizes = Vec::new();
            for fold in 0..folds {
                let value = json!({"folds": folds, "fold": fold, "stratify": "label", "seed": seed});
                let Ok((train, test)) = run(value, &input) else {
                    let smallest = (0..4).map(|class| classes.iter().filter(|c| **c == class).count()).filter(|n| *n > 0).min();
                    prop_assert!(smallest.expect("rows") < folds as usize);
                    return Ok(());
                };
                prop_assert!(train.is_sorted() && test.is_sorted());
                prop_assert_eq!(train.len() + test.len(), texts.len());
                test.iter().for_each(|row| seen[*row as usize] += 1);
                train.iter().for_each(|row| prop_assert_not_in(&test, *row));
                sizes.push(test.len());
                for class in 0..4 {
                    let all = classes.iter().filter(|c| **c == class).count();
                    let here = test.iter().filter(|row| classes[**row as usize] == class).count();
                    prop_assert!(here.abs_diff(all / folds as usize) <= 1);
                }
            }
            prop_assert!(seen.iter().all(|times| *times == 1));
            prop_assert!(sizes.iter().max().expect("folds") - sizes.iter().min().expect("folds") <= 1);
        }

        #[test]
        fn a_stratified_share_is_proportional(classes in proptest::collection::vec(0_u8..4, 2..120), test in 0.01..0.99_f64, seed in any::<u64>()) {
            let names = ["a", "b", "c"];
            let texts: Vec<Option<&str>> = classes.iter().map(|class| names.get(*class as usize).copied()).collect();
            let (train, rows) = run(json!({"test": test, "stratify": "label", "seed": seed}), &labels(&texts)).expect("splits");
            prop_assert_eq!(train.len() + rows.len(), texts.len());
            prop_assert!(!train.is_empty() && !rows.is_empty());
            let share = rows.len() as f64 / texts.len() as f64;
            for class in 0..4 {
                let all = classes.iter().filter(|c| **c == class).count() as f64;
                let here = rows.iter().filter(|row| classes[**row as usize] == class).count() as f64;
                prop_assert!((here - all * share).abs() < 1.0 + 1e-9, "{here} of {all} at {share}");
            }
        }
    }

    fn prop_assert_not_in(rows: &[u32], row: u32) {
        assert!(rows.binary_search(&row).is_err(), "row {row} is in train and test");
    }
}
