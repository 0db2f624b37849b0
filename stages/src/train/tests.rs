//! Tests of the kind `train` as a whole: configuration, wiring, determinism, golden bytes, known solutions.

use std::sync::Arc;

use ndarray::Array2;
use polars::prelude::{Column, DataFrame, DataType};

use super::*;
use crate::deploy::predict;
use crate::io::{Draft, EntryHead, Stored};
use crate::model::Predictions;

/// 24 rows of two features and a score, as the reference script makes them:
/// `x = [[i*7%11/4 - 1, i*5%13/3 - 2]], s = x0 - x1/2 + (i*17%19)/9 - 1`.
pub fn reference() -> (Array2<f64>, Vec<f64>) {
    let number = |i: usize, by: usize, modulus: usize| (i * by % modulus) as f64;
    let x = Array2::from_shape_fn((24, 2), |(i, column)| match column {
        0 => number(i, 7, 11) / 4.0 - 1.0,
        _ => number(i, 5, 13) / 3.0 - 2.0,
    });
    let s = (0..24).map(|i| x[[i, 0]] - 0.5 * x[[i, 1]] + number(i, 17, 19) / 9.0 - 1.0).collect();
    (x, s)
}

pub fn frame() -> DataFrame {
    let (x, s) = reference();
    let late: Vec<bool> = s.iter().map(|s| *s > 0.6).collect();
    let speed: Vec<&str> = s
        .iter()
        .map(|s| {
            if *s < -0.4 {
                "fast"
            } else if *s < 0.9 {
                "medium"
            } else {
                "slow"
            }
        })
        .collect();
    let columns = vec![
        Column::new("a".into(), x.column(0).to_vec()),
        Column::new("b".into(), x.column(1).to_vec()),
        Column::new("s".into(), s),
        Column::new("late".into(), late),
        Column::new("speed".into(), speed),
    ];
    DataFrame::new(24, columns).unwrap()
}

pub fn config(text: &str) -> TrainConfig {
    serde_json::from_str(text).unwrap()
}

fn drafts(config: &TrainConfig, frame: &DataFrame, transform: Option<Transform>) -> Result<Draft, StageError> {
    let bytes = transform.map(|transform| transform.encode().unwrap());
    let mark = bytes.as_deref().map(Mark::of);
    drafts_marked(config, frame, mark, bytes)
}

fn drafts_marked(
    config: &TrainConfig,
    frame: &DataFrame,
    mark: Option<Mark>,
    transform: Option<Vec<u8>>,
) -> Result<Draft, StageError> {
    let mut inputs = Inputs::default();
    let tree = frame::encode_marked(frame, mark.as_ref()).unwrap();
    inputs.add("train", BTreeMap::new(), Arc::new(Draft::tree(artifact::FRAME, tree)));
    if let Some(bytes) = transform {
        inputs.add("transform", BTreeMap::new(), Arc::new(Draft::blob(artifact::TRANSFORM, bytes)));
    }
    let mut outputs = Outputs::default();
    Train::run(config, &inputs, &mut outputs)?;
    Ok(outputs.into_drafts().remove("model").unwrap())
}

pub fn trained(text: &str) -> Draft {
    drafts(&config(text), &frame(), None).unwrap()
}

fn refused(text: &str) -> String {
    drafts(&config(text), &frame(), None).unwrap_err().to_string()
}

fn card(model: &Draft) -> serde_json::Value {
    serde_json::from_slice(&model.entry("card").unwrap()).unwrap()
}

const LINEAR: &str = r#"{"target": "s", "features": ["a", "b"], "model": {"algorithm": "linear_regression"}}"#;
const LOGISTIC: &str = r#"{"target": "late", "features": ["a", "b"], "model": {"algorithm": "logistic"}}"#;
const LOGISTIC3: &str = r#"{"target": "speed", "features": ["a", "b"], "model": {"algorithm": "logistic"}}"#;
const KMEANS: &str = r#"{"features": ["a", "b"], "model": {"algorithm": "kmeans", "clusters": 3}, "seed": 7}"#;
const TREE: &str =
    r#"{"target": "speed", "features": ["a", "b"], "model": {"algorithm": "decision_tree", "max_depth": 3}}"#;
const TREE_VALUES: &str = r#"{"target": "s", "features": ["a", "b"], "model": {"algorithm": "decision_tree"}}"#;
const ALL: [&str; 6] = [LINEAR, LOGISTIC, LOGISTIC3, KMEANS, TREE, TREE_VALUES];

#[test]
fn what_the_configuration_does_not_know_is_refused() {
    let error = |text: &str| serde_json::from_str::<TrainConfig>(text).unwrap_err().to_string();
    let hyper = |text: &str| error(&format!(r#"{{"model": {text}}}"#));
    assert!(
        hyper(r#"{"algorithm": "decision_tree", "depht": 3}"#).starts_with(
            "unknown field `depht`, expected one of `max_depth`, `min_samples_split`, `min_samples_leaf`, `min_gain`, `task`"
        ),
        "{}",
        hyper(r#"{"algorithm": "decision_tree", "depht": 3}"#)
    );
    assert!(hyper(r#"{"algorithm": "forest"}"#).starts_with(
        "unknown variant `forest`, expected one of `linear_regression`, `logistic`, `kmeans`, `decision_tree`"
    ));
    assert!(
        hyper(r#"{"algorithm": "linear_regression", "l2": 1}"#).starts_with("unknown field `l2`, expected `intercept`")
    );
    assert!(
        hyper(r#"{"algorithm": "logistic", "C": 1}"#)
            .starts_with("unknown field `C`, expected one of `l2`, `intercept`")
    );
    assert!(hyper(r#"{"algorithm": "kmeans", "k": 1}"#).starts_with("unknown field `k`, expected one of `clusters`"));
    assert!(hyper(r#"{"algorithm": "kmeans"}"#).starts_with("missing field `clusters`"));
    assert!(hyper(r#"{"l2": 1}"#).starts_with("missing field `algorithm`"));
    assert!(
        error(r#"{"model": {"algorithm": "logistic"}, "sed": 1}"#).starts_with("unknown field `sed`, expected one of")
    );
}

#[test]
fn values_that_no_model_can_be_trained_with_are_refused() {
    let error = |text: &str| serde_json::from_str::<Algorithm>(text).unwrap_err().to_string();
    let cases = [
        (r#"{"algorithm": "logistic", "l2": -1}"#, "`l2` is -1, expected a finite number of 0 or more"),
        (r#"{"algorithm": "logistic", "tolerance": 0}"#, "`tolerance` is 0, expected a finite number above 0"),
        (
            r#"{"algorithm": "logistic", "max_iterations": 0}"#,
            "`max_iterations` is 0, expected a whole number of 1 or more",
        ),
        (r#"{"algorithm": "kmeans", "clusters": -2}"#, "`clusters` is -2, expected a whole number of 1 or more"),
        (r#"{"algorithm": "kmeans", "clusters": 2, "runs": 0}"#, "`runs` is 0, expected a whole number of 1 or more"),
        (r#"{"algorithm": "decision_tree", "max_depth": 0}"#, "`max_depth` is 0, expected a whole number of 1 or more"),
        (
            r#"{"algorithm": "decision_tree", "min_samples_split": 1}"#,
            "`min_samples_split` is 1, expected a whole number of 2 or more",
        ),
        (
            r#"{"algorithm": "decision_tree", "min_samples_leaf": 0}"#,
            "`min_samples_leaf` is 0, expected a whole number of 1 or more",
        ),
        (
            r#"{"algorithm": "decision_tree", "min_gain": -0.5}"#,
            "`min_gain` is -0.5, expected a finite number of 0 or more",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn the_canonical_configuration_has_its_defaults_and_reads_back() {
    let written = serde_json::to_value(config(LOGISTIC)).unwrap();
    let model = serde_json::json!({
        "algorithm": "logistic", "intercept": true, "l2": 1.0, "max_iterations": 100, "tolerance": 1e-4
    });
    assert_eq!(written["model"], model);
    for text in ALL {
        let one = config(text);
        assert_eq!(serde_json::from_value::<TrainConfig>(serde_json::to_value(&one).unwrap()).unwrap(), one);
    }
}

#[test]
fn equal_inputs_give_equal_bytes_at_any_number_of_threads() {
    for text in ALL {
        let once = trained(text);
        assert_eq!(trained(text), once, "{text}");
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (config, frame) = (config(text), frame());
            let x = matrix::features(PLACE, &frame, config.features.as_ref().unwrap()).unwrap();
            let target = config.target.clone();
            // The fit alone: polars is never called from within a pool.
            let (model, card) = match &config.model {
                Algorithm::Kmeans(kmeans) => {
                    let centroids = pool.install(|| kmeans::fit(kmeans, &x, config.seed)).unwrap();
                    let (_, card) = fit(&config, &frame, config.features.clone().unwrap(), None).unwrap();
                    (Model::new(config.features.clone().unwrap(), None, Fitted::Kmeans(centroids)).unwrap(), card)
                }
                _ => pool.install(|| fit(&config, &frame, config.features.clone().unwrap(), target)).unwrap(),
            };
            assert_eq!(model.draft(&card, None).unwrap(), once, "{text} on {threads} threads");
        }
    }
}

/// A change of these bytes needs a new `VERSION`. Trees and centroids come from additions, products and quotients
/// alone, which are the same everywhere.
#[test]
fn trees_and_centroids_keep_their_bytes() {
    let digest = |text| {
        let model = trained(text);
        let mut bytes = model.header().as_bytes().to_vec();
        bytes.extend_from_slice(&model.entry("model").unwrap());
        bytes.extend_from_slice(&model.entry("card").unwrap());
        blake3::hash(&bytes).to_hex().to_string()
    };
    assert_eq!(
        [KMEANS, TREE, TREE_VALUES].map(digest),
        [
            "564c1e39d8dad29c0195ab4e75c3ea4b6c1aaae418281bf0af7d9e1aed969966",
            "9751010a0662dbb96bcbe2b78b2d1cee58d4c66c3028c346a384e48798f09206",
            "cf4cd62137f82b4772488bc27e069df2d2cbb6e31b88119e4e5dbb765cfa90cb"
        ]
    );
}

/// matrixmultiply fuses products and sums where a processor can, and logarithms differ in the last bit between systems:
/// these are held to seven digits, so that the test says the same on every machine.
#[test]
fn linear_models_keep_their_digits() {
    fn rounded(value: &serde_json::Value, text: &mut String) {
        match value {
            serde_json::Value::Object(fields) => fields.iter().for_each(|(key, value)| {
                if key != "gradient" {
                    text.push_str(key);
                    rounded(value, text);
                }
            }),
            serde_json::Value::Array(items) => items.iter().for_each(|item| rounded(item, text)),
            serde_json::Value::Number(number) => text.push_str(&format!(" {:.6e}", number.as_f64().unwrap())),
            other => text.push_str(&other.to_string()),
        }
    }
    let digest = |text| {
        let mut digits = String::new();
        rounded(&card(&trained(text)), &mut digits);
        blake3::hash(digits.as_bytes()).to_hex().to_string()
    };
    assert_eq!(
        [LINEAR, LOGISTIC, LOGISTIC3].map(digest),
        [
            "9b08306b0c108d25127beaa30f048e7ba9724cca9cac70afdba40ba90ae49818",
            "16705e6ea225c88ae75280c52b0dd7d28bf010562efcecefaaa7ae761c04a547",
            "e1de7ee8ddd2bad48e7cfd0338e6d645f320ad9a8302cbe5bff983d65d193770"
        ]
    );
}

fn close(found: &serde_json::Value, expected: f64) {
    let found = found.as_f64().unwrap();
    assert!((found - expected).abs() < 2e-6, "{found} is not {expected}");
}

// scikit-learn 1.9.1: LogisticRegression(C=1/l2, tol=1e-12, max_iter=10000) on the reference rows.
#[test]
fn a_binary_logistic_regression_is_that_of_scikit_learn() {
    let known = [
        (1, [1.467_542_897_645_007_1, -0.851_991_919_934_837_7, -1.256_825_681_561_026_8]),
        (10, [0.380_136_484_063_489, -0.287_061_460_181_110_4, -0.800_970_890_018_173_1]),
    ];
    for (l2, [a, b, intercept]) in known {
        let hyper = format!(r#"{{"algorithm": "logistic", "l2": {l2}, "tolerance": 1e-9, "max_iterations": 1000}}"#);
        let model = trained(&format!(r#"{{"target": "late", "features": ["a", "b"], "model": {hyper}}}"#));
        let card = card(&model);
        // `true` is the positive class though it is the rarer one.
        let found = &card["fit"]["by_class"]["true"];
        close(&found["coefficients"]["a"], a);
        close(&found["coefficients"]["b"], b);
        close(&found["intercept"], intercept);
        assert!(card["fit"]["gradient"].as_f64().unwrap() < 1e-7);
        assert_eq!(card["classes"], serde_json::json!([false, true]));
    }
}

#[test]
fn a_logistic_regression_of_three_classes_is_that_of_scikit_learn() {
    let hyper = r#"{"algorithm": "logistic", "tolerance": 1e-9, "max_iterations": 1000}"#;
    let model = trained(&format!(r#"{{"target": "speed", "features": ["a", "b"], "model": {hyper}}}"#));
    let by_class = card(&model)["fit"]["by_class"].clone();
    let known = [
        ("fast", [-1.241_692_275_711_083, 0.350_178_497_329_296_46, 0.025_720_380_924_391_783]),
        ("medium", [0.015_701_566_434_179_085, 0.305_706_981_494_272_56, 0.347_946_707_867_707_54]),
        ("slow", [1.225_990_709_276_903_8, -0.655_885_478_823_569_1, -0.373_667_088_792_098_9]),
    ];
    for (class, [a, b, intercept]) in known {
        close(&by_class[class]["coefficients"]["a"], a);
        close(&by_class[class]["coefficients"]["b"], b);
        close(&by_class[class]["intercept"], intercept);
    }
    let predictions = predict(&model, &frame().head(Some(1))).unwrap();
    let names: Vec<&str> = predictions.get_column_names().iter().map(|name| name.as_str()).collect();
    assert_eq!(names, ["prediction", "probability_fast", "probability_medium", "probability_slow"]);
    let first = predictions.column("probability_fast").unwrap().f64().unwrap().get(0).unwrap();
    assert!((first - 0.539_275_621_837_110_2).abs() < 1e-6);
    assert_eq!(predictions.column("prediction").unwrap().str().unwrap().get(0), Some("fast"));
}

/// Equality that tells 0 from -0.
fn same_bits(one: &Column, other: &Column) -> bool {
    match (one.f64(), other.f64()) {
        (Ok(one), Ok(other)) => one.iter().map(|v| v.map(f64::to_bits)).eq(other.iter().map(|v| v.map(f64::to_bits))),
        _ => one == other,
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    for text in ALL {
        let model = trained(text);
        let frame = frame();
        let all = predict(&model, &frame).unwrap();
        for row in 0..frame.height() {
            let alone = predict(&model, &frame.slice(row as i64, 1)).unwrap();
            for (one, expected) in alone.columns().iter().zip(all.slice(row as i64, 1).columns()) {
                assert!(same_bits(one, expected), "{text}, row {row}: {one:?} is not {expected:?}");
            }
        }
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let read = Model::read(&model).unwrap();
            let x = matrix::features(PLACE, &frame, read.features()).unwrap();
            assert_eq!(pool.install(|| read.predict(&x)), read.predict(&x));
        }
        assert_eq!(predict(&model, &frame.head(Some(0))).unwrap().height(), 0);
    }
}

#[test]
fn predictions_have_the_type_of_the_target() {
    let dtype = |text| predict(&trained(text), &frame()).unwrap().column("prediction").unwrap().dtype().clone();
    assert_eq!(dtype(LOGISTIC), DataType::Boolean);
    assert_eq!(dtype(TREE), DataType::String);
    assert_eq!(dtype(LINEAR), DataType::Float64);
    assert_eq!(dtype(KMEANS), DataType::UInt32);
    let binary = predict(&trained(LOGISTIC), &frame()).unwrap();
    assert_eq!(binary.get_column_names(), ["prediction", "probability"]);
}

/// A preparation that only chooses columns.
fn transform_for(target: &str, features: &[&str]) -> Transform {
    let config = crate::prepare::PrepareConfig { target: target.into(), features: None, steps: Vec::new() };
    let columns = features.iter().copied().chain([target]);
    crate::prepare::fit::fit(&config, &frame().select(columns).unwrap()).unwrap()
}

#[test]
fn a_model_carries_its_transform_and_takes_its_target_from_it() {
    let transform = transform_for("late", &["a", "b"]);
    let plain = frame().select(["b", "a", "late"]).unwrap();
    let mark = blake3::hash(&transform.encode().unwrap()).to_hex()[..16].to_owned();
    let draft = drafts(&config(r#"{"model": {"algorithm": "logistic"}}"#), &plain, Some(transform)).unwrap();
    let names: Vec<&str> = draft.entries().iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(draft.header(), format!("algorithm logistic prepared {mark}"));
    assert_eq!(names, ["model", "transform", "card"]);
    assert_eq!(Model::read(&draft).unwrap().features(), ["b", "a"]);
    assert_eq!(Model::read(&draft).unwrap().target(), Some("late"));
    assert_eq!(predict(&draft, &frame()).unwrap().height(), 24);
    assert_eq!(predict(&draft, &frame().drop("late").unwrap()).unwrap().height(), 24);
    let error = predict(&draft, &frame().drop("a").unwrap()).unwrap_err().to_string();
    assert!(error.contains("there is no column `a`; the columns are `b`, `s`"), "{error}");
}

#[test]
fn a_frame_that_the_wired_transform_did_not_prepare_is_refused() {
    let bytes = transform_for("late", &["a", "b"]).encode().unwrap();
    let other = transform_for("late", &["a"]).encode().unwrap();
    let told = |mark: Option<Mark>| {
        drafts_marked(&config(LOGISTIC), &frame(), mark, Some(bytes.clone())).unwrap_err().to_string()
    };
    let advice = "wire both from one `prepare` stage: `train = \"prepare.train\", transform = \"prepare.transform\"`";
    let fact = "a transform is wired, the frame `train` was not prepared by it";
    assert_eq!(told(None), format!("train: {fact}; {advice}"));
    let fact = "the frame `train` was prepared by another transform than the one that is wired";
    assert_eq!(told(Some(Mark::of(&other))), format!("train: {fact}; {advice}"));
    // Without a transform nothing is known of what comes later.
    assert!(drafts_marked(&config(LOGISTIC), &frame(), Some(Mark::of(&other)), None).is_ok());
}

#[test]
fn a_missing_column_is_named_with_what_there_is() {
    let error = predict(&trained(TREE), &frame().drop("b").unwrap()).unwrap_err().to_string();
    assert_eq!(error, "predict: there is no column `b`; the columns are `a`, `s`, `late`, `speed`");
}

#[test]
fn wiring_and_data_that_cannot_be_trained_on_are_refused() {
    let logistic = |rest: &str| format!(r#"{{"model": {{"algorithm": "logistic"}}{rest}}}"#);
    let cases = [
        (logistic(""), "train: no target; set `target`, or wire the `transform` of a `prepare` stage that has one"),
        (
            logistic(r#", "target": "latte""#),
            "train: there is no column `latte`; the columns are `a`, `b`, `s`, `late`, `speed`",
        ),
        (
            logistic(r#", "target": "late""#),
            "train: column `speed` is str, expected a number or a bool; put a `prepare` stage with `one_hot` before `train`",
        ),
        (
            logistic(r#", "target": "late", "features": ["a", "late"]"#),
            "train: `late` is the target, it cannot be a feature",
        ),
        (logistic(r#", "target": "late", "features": ["a", "a"]"#), "train: the feature `a` is named twice"),
        (
            logistic(r#", "target": "late", "features": ["c"]"#),
            "train: there is no column `c`; the columns are `a`, `b`, `s`, `late`, `speed`",
        ),
        (
            logistic(r#", "target": "late", "features": []"#),
            "train: no features; the columns are `a`, `b`, `s`, `late`, `speed`",
        ),
        (
            logistic(r#", "target": "s", "features": ["a"]"#),
            "train: target `s` has a fraction in row 2; a classifier needs classes: bool, str or whole numbers",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(refused(&text), expected, "{text}");
    }
    let error = drafts(&config(LOGISTIC), &frame().head(Some(0)), None).unwrap_err();
    assert_eq!(error.to_string(), "train: no rows are left");
    let transform = transform_for("late", &["a"]);
    let error = drafts(&config(LOGISTIC), &frame(), Some(transform.clone())).unwrap_err();
    assert_eq!(error.to_string(), "train: the feature `b` does not come out of the transform, which gives `a`");
    let error = drafts(&config(LINEAR), &frame(), Some(transform)).unwrap_err();
    assert_eq!(error.to_string(), "train: `target` is `s`, the transform was fitted for the target `late`");
}

#[test]
fn a_selection_holds_what_is_named_and_all_else() {
    let schema = |names: &[&str]| {
        let head = |name: &&str| EntryHead { name: (*name).into(), type_name: "f64".into() };
        BTreeMap::from([(
            "train".to_owned(),
            Schema { rows: 1, mark: None, columns: names.iter().map(head).collect() },
        )])
    };
    let schemas = schema(&["a", "b", "c", "late"]);
    let named = Selection::Only(vec!["a".into(), "b".into(), "late".into()]);
    assert_eq!(Train::reads(&config(LOGISTIC), &schemas)["train"], named);
    let open = config(r#"{"target": "late", "model": {"algorithm": "logistic"}}"#);
    assert_eq!(Train::reads(&open, &schemas)["train"], Selection::All);
    let unknown_target = config(r#"{"features": ["a"], "model": {"algorithm": "logistic"}}"#);
    assert_eq!(Train::reads(&unknown_target, &schemas)["train"], Selection::All);
    let without_b = Train::reads(&config(LOGISTIC), &schema(&["a", "c", "late"]));
    assert_eq!(without_b["train"], Selection::All, "so that the error can list what is there");
}

#[test]
fn a_clustering_needs_no_target_but_leaves_out_one_that_is_known() {
    let text = r#"{"model": {"algorithm": "kmeans", "clusters": 2}}"#;
    let transform = transform_for("late", &["a", "b"]);
    let with = frame().select(["a", "b", "late"]).unwrap();
    let without = frame().select(["a", "b"]).unwrap();
    let one = drafts(&config(text), &with, Some(transform.clone())).unwrap();
    assert_eq!(one, drafts(&config(text), &without, Some(transform)).unwrap());
    assert_eq!(Model::read(&one).unwrap().features(), ["a", "b"]);
    assert_eq!(Model::read(&one).unwrap().target(), None);
}

#[test]
fn a_damaged_model_is_refused() {
    let bytes = trained(TREE).entry("model").unwrap().to_vec();
    let read = |bytes: Vec<u8>| {
        let mut tree = crate::io::DraftTree::new("algorithm decision_tree");
        tree.push("model", "parameters", bytes);
        Model::read(&Draft::tree(artifact::MODEL, tree))
    };
    assert!(read(bytes.clone()).is_ok());
    let frame = frame();
    for at in 0..bytes.len() {
        for bit in [0, 3, 7] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << bit;
            // What is still accepted must predict without a panic or a loop.
            if let Ok(model) = read(damaged) {
                let x = Array2::zeros((3, model.features().len()));
                assert!(!matches!(model.predict(&x), Predictions::Values(_)));
            }
        }
        assert!(read(bytes[..at].to_vec()).is_err());
    }
    assert_eq!(frame.height(), 24);
}

#[test]
fn the_card_says_what_a_person_asks() {
    let card = card(&trained(TREE_VALUES));
    assert_eq!(card["algorithm"], "decision_tree");
    assert_eq!(card["task"], "regression");
    assert_eq!(card["training_rows"], 24);
    assert_eq!(card["hyper_parameters"]["min_samples_split"], 2);
    assert!(card.get("classes").is_none());
    let importances = &card["fit"]["feature_importances"];
    let sum = importances["a"].as_f64().unwrap() + importances["b"].as_f64().unwrap();
    assert!((sum - 1.0).abs() < 1e-12);
}
