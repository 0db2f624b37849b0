//! Tests of the kind `evaluate` as a whole.

use std::sync::Arc;

use super::*;
use crate::io::{Content, Stored};
use crate::train::{self, TrainConfig};

/// Two classes: a tree that predicts `x > 0.5` with certainty.
fn stump(target: Column) -> Model {
    fitted(target, r#"{"model": {"algorithm": "decision_tree", "max_depth": 1, "task": "classification"}}"#)
}

fn fitted(target: Column, config: &str) -> Model {
    let config: TrainConfig = serde_json::from_str(config).unwrap();
    let rows: Vec<f64> = (0..target.len()).map(|row| row as f64).collect();
    let frame = DataFrame::new(target.len(), vec![Column::new("x".into(), rows), target]).unwrap();
    train::fit(&config, &frame, vec!["x".into()], Some("y".into())).unwrap().0
}

fn data(x: &[f64], y: Column) -> DataFrame {
    DataFrame::new(x.len(), vec![Column::new("x".into(), x), y]).unwrap()
}

fn config(text: &str) -> EvaluateConfig {
    serde_json::from_str(text).unwrap()
}

fn metrics(model: &Model, data: &DataFrame, text: &str) -> BTreeMap<String, f64> {
    evaluate(&config(text), model, data).unwrap().0
}

fn refused(model: &Model, data: &DataFrame, text: &str) -> String {
    evaluate(&config(text), model, data).unwrap_err().to_string()
}

fn y<T: AsRef<[U]>, U>(values: T) -> Column
where
    Series: NamedFrom<T, [U]>,
{
    Series::new("y".into(), values).into()
}

#[test]
fn a_binary_classifier_is_scored_for_its_positive_class() {
    let model = stump(y([false, true]));
    // Predicted: true, false, false, true.
    let data = data(&[1.0, 0.0, 0.0, 1.0], y([true, true, false, false]));
    let found = metrics(&model, &data, r#"{"metrics": ["accuracy", "precision", "recall", "f1", "roc_auc"]}"#);
    let expected = [("accuracy", 0.5), ("f1", 0.5), ("precision", 0.5), ("recall", 0.5), ("roc_auc", 0.5)];
    assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value)).into());
    let data = data_with_one_true();
    let of_true = metrics(&model, &data, r#"{"metrics": ["precision", "recall"]}"#);
    assert_eq!((of_true["precision"], of_true["recall"]), (0.5, 1.0));
    let of_false = metrics(&model, &data, r#"{"metrics": ["precision", "recall"], "positive": false}"#);
    assert_eq!((of_false["precision"], of_false["recall"]), (1.0, 2.0 / 3.0));
}

fn data_with_one_true() -> DataFrame {
    data(&[1.0, 1.0, 0.0, 0.0], y([true, false, false, false]))
}

// scikit-learn 1.9.1 on the reference rows: LogisticRegression(tol=1e-12, max_iter=10000), then precision_score,
// recall_score, f1_score (average="macro"), roc_auc_score (multi_class="ovr"), log_loss, on the training rows.
#[test]
fn more_than_two_classes_are_averaged_as_scikit_learn_does() {
    let frame = train::tests::frame().select(["a", "b", "speed"]).unwrap();
    let hyper = r#"{"algorithm": "logistic", "tolerance": 1e-9, "max_iterations": 1000}"#;
    let text = format!(r#"{{"target": "speed", "features": ["a", "b"], "model": {hyper}}}"#);
    let (model, _) =
        train::fit(&train::tests::config(&text), &frame, vec!["a".into(), "b".into()], Some("speed".into())).unwrap();
    let found = metrics(&model, &frame, "{}");
    let expected = [
        ("accuracy", 0.625),
        ("precision", 0.625),
        ("recall", 0.636_243_386_243_386_2),
        ("f1", 0.629_084_967_320_261_4),
        ("roc_auc", 0.851_394_076_148_978_1),
        ("log_loss", 0.714_698_094_476_372_4),
    ];
    assert_eq!(found.len(), expected.len());
    for (name, value) in expected {
        assert!((found[name] - value).abs() < 1e-6, "{name} is {}, not {value}", found[name]);
    }
}

#[test]
fn a_regression_and_a_clustering_have_metrics_of_their_own() {
    let model = fitted(y([0.0, 2.0, 4.0]), r#"{"model": {"algorithm": "linear_regression"}}"#);
    let found = metrics(&model, &data(&[0.0, 1.0], y([1.0, 1.0 + 4.0])), "{}");
    assert_eq!(found.keys().collect::<Vec<_>>(), ["mae", "mse", "r2", "rmse"]);
    assert!((found["mae"] - 2.0).abs() < 1e-12 && (found["mse"] - 5.0).abs() < 1e-12);
    assert!((found["r2"] - (1.0 - 10.0 / 8.0)).abs() < 1e-12);
    let kmeans = fitted(y([0.0, 2.0, 4.0]), r#"{"model": {"algorithm": "kmeans", "clusters": 1}}"#);
    let only = DataFrame::new(2, vec![Column::new("x".into(), [0.0, 3.0])]).unwrap();
    let found = metrics(&kmeans, &only, "{}");
    assert!((found["inertia"] - 5.0).abs() < 1e-3, "{found:?}");
}

#[test]
fn a_metric_that_does_not_fit_is_refused() {
    let model = stump(y([false, true]));
    let data = data_with_one_true();
    assert_eq!(
        refused(&model, &data, r#"{"metrics": ["f1", "rmse"]}"#),
        "evaluate: `rmse` does not fit a classification model; these do: `roc_auc`, `f1`, `accuracy`, `log_loss`, \
         `precision`, `recall`"
    );
    assert!(refused(&model, &data, r#"{"metrics": []}"#).starts_with("evaluate: `metrics` is empty; these fit"));
    assert_eq!(
        refused(&model, &data, r#"{"positive": "true"}"#),
        "evaluate: `positive` is \"true\", the classes are false and true"
    );
    let three = stump(y(["a", "b", "c"]));
    let of_three = self::data(&[0.0], y(["a"]));
    assert_eq!(
        refused(&three, &of_three, r#"{"positive": "a"}"#),
        "evaluate: `positive` is for a model of two classes"
    );
}

#[test]
fn an_undefined_metric_says_why() {
    let model = stump(y([false, true]));
    assert_eq!(
        refused(&model, &data(&[0.0, 1.0], y([true, true])), r#"{"metrics": ["roc_auc"]}"#),
        "evaluate: `roc_auc` is undefined: every row has the class `true` of `y`"
    );
    assert_eq!(
        refused(&model, &data(&[0.0, 1.0], y([false, false])), r#"{"metrics": ["roc_auc"]}"#),
        "evaluate: `roc_auc` is undefined: no row has the class `true` of `y`"
    );
    let plane = fitted(y([0.0, 2.0, 4.0]), r#"{"model": {"algorithm": "linear_regression"}}"#);
    assert_eq!(
        refused(&plane, &data(&[0.0, 1.0], y([7.5, 7.5])), "{}"),
        "evaluate: `r2` is undefined: the target `y` has one value only, 7.5"
    );
    assert_eq!(refused(&plane, &data(&[], y(Vec::<f64>::new())), "{}"), "evaluate: no rows are left");
}

#[test]
fn a_class_that_the_model_never_saw_counts_as_a_miss() {
    let model = stump(y(["a", "b"]));
    let data = data(&[0.0, 1.0, 1.0, 1.0], y(["a", "b", "c", "c"]));
    let found = metrics(&model, &data, r#"{"metrics": ["accuracy", "precision", "recall"]}"#);
    assert_eq!((found["accuracy"], found["precision"], found["recall"]), (0.5, 1.0 / 3.0, 1.0));
    for metric in ["log_loss", "roc_auc"] {
        assert_eq!(
            refused(&model, &data, &format!(r#"{{"metrics": ["{metric}"]}}"#)),
            format!(
                "evaluate: `{metric}` is undefined: the target `y` has the class `c` in row 3, which the model never saw"
            )
        );
    }
    // As scikit-learn, which averages over the labels of truth and predictions: three here, then four.
    let three = fitted(y(["a", "b", "c"]), r#"{"model": {"algorithm": "decision_tree"}}"#);
    let data = self::data(&[0.0, 1.0, 1.0], y(["a", "b", "d"]));
    let found = metrics(&three, &data, r#"{"metrics": ["precision", "recall"]}"#);
    assert_eq!((found["precision"], found["recall"]), ((1.0 + 0.5 + 0.0) / 3.0, (1.0 + 1.0 + 0.0) / 3.0));
}

#[test]
fn predictions_have_the_target_beside_them_and_keep_their_bytes() {
    let model = stump(y([false, true]));
    let data = data_with_one_true();
    let mut inputs = Inputs::default();
    let text = r#"{"target": "y", "model": {"algorithm": "decision_tree"}}"#;
    let config_of_model: TrainConfig = serde_json::from_str(text).unwrap();
    let (_, card) = train::fit(&config_of_model, &data, vec!["x".into()], Some("y".into())).unwrap();
    inputs.add("model", BTreeMap::new(), Arc::new(model.draft(&card, None).unwrap()));
    let tree = frame::encode(&data).unwrap();
    inputs.add("data", BTreeMap::new(), Arc::new(Draft::tree(artifact::FRAME, tree)));
    let mut outputs = Outputs::default();
    let chosen = config(r#"{"metrics": ["recall", "accuracy", "f1", "roc_auc"]}"#);
    Evaluate::run(&chosen, &inputs, &mut outputs).unwrap();
    let drafts = outputs.into_drafts();
    let Content::Blob(metrics) = &drafts["metrics"].content else { panic!("metrics are a blob") };
    assert!(metrics.starts_with(b"{\n  \"accuracy\": 0.75,\n  \"f1\": "));
    let predictions = frame::decode(&drafts["predictions"]).unwrap();
    assert_eq!(predictions.get_column_names(), ["prediction", "probability", "y"]);
    let mut bytes = metrics.clone();
    for entry in drafts["predictions"].entries() {
        bytes.extend_from_slice(&drafts["predictions"].entry(&entry.name).unwrap());
    }
    assert_eq!(
        blake3::hash(&bytes).to_hex().as_str(),
        "af0439648373fa47db3f48b221576703531a759dc1d238549e3a5023204dd6d7"
    );
}

#[test]
fn data_that_the_models_transform_did_not_prepare_are_refused() {
    let raw =
        DataFrame::new(4, vec![Column::new("x".into(), [1.0, 2.0, 3.0, 40.0]), y([true, false, false, true])]).unwrap();
    let transform = |step: &str| {
        let config = format!(r#"{{"target": "y", "steps": [{{"scale": "{step}"}}]}}"#);
        crate::prepare::fit::fit(&serde_json::from_str(&config).unwrap(), &raw).unwrap()
    };
    let (own, other) = (transform("standard"), transform("minmax"));
    let bytes = own.encode().unwrap();
    let prepared = own.apply(&raw).unwrap();
    let text = r#"{"target": "y", "model": {"algorithm": "decision_tree"}}"#;
    let (model, card) =
        train::fit(&serde_json::from_str(text).unwrap(), &prepared, vec!["x".into()], Some("y".into())).unwrap();
    let run = |data: &DataFrame, mark: Option<Mark>| {
        // As `reads` says: the numbers alone, with the header.
        let whole = model.draft(&card, Some(bytes.clone())).unwrap();
        let mut narrowed = crate::io::DraftTree::new(whole.header());
        narrowed.push("model", "parameters", whole.entry("model").unwrap().to_vec());
        let mut inputs = Inputs::default();
        inputs.add("model", BTreeMap::new(), Arc::new(Draft::tree(artifact::MODEL, narrowed)));
        let tree = frame::encode_marked(data, mark.as_ref()).unwrap();
        inputs.add("data", BTreeMap::new(), Arc::new(Draft::tree(artifact::FRAME, tree)));
        Evaluate::run(&config("{}"), &inputs, &mut Outputs::default()).map_err(|error| error.to_string())
    };
    let advice = "wire what the model's `prepare` stage gave: `data = \"prepare.test\"`";
    let fact = "was not prepared, and the model was trained behind a transform";
    assert_eq!(run(&raw, None), Err(format!("evaluate: the frame `data` {fact}; {advice}")));
    let fact = "was prepared by another transform than the one that the model was trained behind";
    let mark = Mark::of(&other.encode().unwrap());
    assert_eq!(
        run(&other.apply(&raw).unwrap(), Some(mark)),
        Err(format!("evaluate: the frame `data` {fact}; {advice}"))
    );
    assert_eq!(run(&prepared, Some(Mark::of(&bytes))), Ok(()));
}

#[test]
fn a_target_that_hides_a_prediction_is_refused() {
    let config_of_model: TrainConfig = serde_json::from_str(r#"{"model": {"algorithm": "decision_tree"}}"#).unwrap();
    let target = Column::new("prediction".into(), [true, false]);
    let data = data(&[0.0, 1.0], target);
    let (model, _) = train::fit(&config_of_model, &data, vec!["x".into()], Some("prediction".into())).unwrap();
    assert_eq!(
        refused(&model, &data, "{}"),
        "evaluate: a target may not be named `prediction`: the predictions have a column of that name"
    );
}

#[test]
fn what_the_configuration_does_not_know_is_refused() {
    let error = |text: &str| serde_json::from_str::<EvaluateConfig>(text).unwrap_err().to_string();
    assert!(error(r#"{"metric": ["f1"]}"#).starts_with("unknown field `metric`, expected `metrics` or `positive`"));
    assert!(error(r#"{"metrics": ["auc"]}"#).starts_with("unknown variant `auc`, expected one of `roc_auc`"));
}

#[test]
fn of_the_model_the_numbers_alone_are_read() {
    let schemas = BTreeMap::from([("data".to_owned(), Schema { rows: 1, mark: None, columns: Vec::new() })]);
    let reads = Evaluate::reads(&config("{}"), &schemas);
    assert_eq!(reads["data"], Selection::All);
    assert_eq!(reads["model"], Selection::Only(vec!["model".into()]));
}
