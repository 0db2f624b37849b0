//! The kind `compare`: the metrics of many variants as one table, best first.
//!
//! It knows metrics by name and variants by label; it does not know models. The table is JSON:
//! `{"axes": [..], "by": metric, "descending": bool, "metrics": [..], "rows": [row, ..]}` with a row
//! `{"metrics": {metric: value}, "variant": {axis: label}}`. A value is a number; with `repeats`, it is
//! `{"mean": m, "n": n, "spread": s}`, where the spread is the sample standard deviation (n - 1), null for n = 1.
//!
//! Invariants: `by` is in every row; rows that it cannot tell apart are in the order of their labels; every number is
//! finite.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Metric;
use crate::error::list;
use crate::io::{Draft, Input, Inputs, Outputs};
use crate::kind::{From, InputPort, InputPorts, Kind, OutputPort, Ports, artifact};
use crate::{StageError, json};

/// The kind `compare`.
pub struct Compare;

/// Puts the metrics of all nodes of a `gather` into one table, best first. Output `table`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareConfig {
    /// The metric to sort by. Default: the first that all nodes have, of roc_auc, f1, accuracy, r2, rmse, mae, mse,
    /// log_loss, precision, recall, inertia.
    #[serde(default)]
    pub by: Option<Metric>,
    /// Axes that are repetitions, as folds are: one row for all their values, with mean and spread.
    #[serde(default)]
    pub repeats: Vec<String>,
}

/// A table of variants, best first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Table {
    /// The axes that tell the rows apart, in order of name.
    pub axes: Vec<String>,
    pub by: Metric,
    /// Whether more of `by` is better.
    pub descending: bool,
    /// All metrics that occur, in order of name.
    pub metrics: Vec<String>,
    pub rows: Vec<Row>,
}

/// One variant.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub metrics: BTreeMap<String, Entry>,
    pub variant: BTreeMap<String, String>,
}

/// A metric of one row.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Entry {
    One(f64),
    Repeated { mean: f64, n: usize, spread: Option<f64> },
}

impl Entry {
    fn value(self) -> f64 {
        match self {
            Self::One(value) | Self::Repeated { mean: value, .. } => value,
        }
    }
}

impl Kind for Compare {
    const NAME: &'static str = "compare";
    const VERSION: u32 = 1;
    type Config = CompareConfig;

    fn ports(_config: &CompareConfig) -> Ports {
        Ports {
            inputs: InputPorts::Fixed(vec![InputPort {
                name: "metrics",
                type_name: artifact::METRICS,
                from: From::Gather,
            }]),
            outputs: vec![OutputPort::new("table", artifact::REPORT)],
        }
    }

    fn run(config: &CompareConfig, inputs: &Inputs, outputs: &mut Outputs) -> Result<(), StageError> {
        let nodes = inputs.gathered("metrics").iter().map(Node::read).collect::<Result<Vec<_>, _>>()?;
        let table = compare(config, &nodes)?;
        outputs.put("table", Draft::blob(artifact::REPORT, json::canonical(&table)?));
        Ok(())
    }
}

/// The metrics of one node, and its place among the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub variant: BTreeMap<String, String>,
    pub metrics: BTreeMap<String, f64>,
}

impl Node {
    fn read(input: &Input) -> Result<Self, StageError> {
        let metrics = serde_json::from_slice(&input.stored.blob()?).map_err(|error| StageError::Decode {
            what: format!("the metrics of {}", shown(&input.label)),
            detail: error.to_string(),
        })?;
        Ok(Self { variant: input.label.clone(), metrics })
    }
}

/// Puts nodes into one table.
///
/// # Errors
/// If there are none, `repeats` names an axis that none has, `by` is missing from one's metrics, or a mean overflows.
pub fn compare(config: &CompareConfig, nodes: &[Node]) -> Result<Table, StageError> {
    if nodes.is_empty() {
        return Err(StageError::NoInput { port: "metrics".into() });
    }
    let axes: BTreeSet<&String> = nodes.iter().flat_map(|node| node.variant.keys()).collect();
    if let Some(unknown) = config.repeats.iter().find(|axis| !axes.contains(axis)) {
        let axes: Vec<String> = axes.into_iter().cloned().collect();
        let known = if axes.is_empty() { "there are no axes".into() } else { format!("the axes are {}", list(&axes)) };
        let detail = format!("compare: `repeats` names `{unknown}`; {known}");
        return Err(StageError::Config { detail });
    }
    let by = sort_metric(config, nodes)?;
    let rows = sorted(rows(config, nodes)?, by);
    let metrics: BTreeSet<&String> = nodes.iter().flat_map(|node| node.metrics.keys()).collect();
    Ok(Table {
        axes: axes.into_iter().filter(|axis| !config.repeats.contains(axis)).cloned().collect(),
        by,
        descending: by.descending(),
        metrics: metrics.into_iter().cloned().collect(),
        rows,
    })
}

fn sort_metric(config: &CompareConfig, nodes: &[Node]) -> Result<Metric, StageError> {
    let lacking = |metric: &Metric| nodes.iter().find(|node| !node.metrics.contains_key(metric.name()));
    let Some(by) = config.by else {
        return Metric::ALL.into_iter().find(|metric| lacking(metric).is_none()).ok_or_else(|| StageError::Data {
            detail: "compare: no metric is common to all nodes; set `by` to one that all of them have".into(),
        });
    };
    let Some(node) = lacking(&by) else { return Ok(by) };
    let has: Vec<String> = node.metrics.keys().cloned().collect();
    let whose = if node.variant.is_empty() { "the evaluation".into() } else { shown(&node.variant) };
    let detail = format!("compare: {whose} has no metric `{}`; it has {}", by.name(), list(&has));
    Err(StageError::Data { detail })
}

fn rows(config: &CompareConfig, nodes: &[Node]) -> Result<Vec<Row>, StageError> {
    let mut groups: BTreeMap<BTreeMap<String, String>, BTreeMap<String, Vec<f64>>> = BTreeMap::new();
    for node in nodes {
        let mut variant = node.variant.clone();
        variant.retain(|axis, _| !config.repeats.contains(axis));
        let group = groups.entry(variant).or_default();
        for (metric, value) in &node.metrics {
            group.entry(metric.clone()).or_default().push(*value);
        }
    }
    let repeated = !config.repeats.is_empty();
    let row = |(variant, metrics): (BTreeMap<_, _>, BTreeMap<String, Vec<f64>>)| {
        let entries = metrics.into_iter().map(|(name, values)| Ok((name.clone(), entry(&name, &values, repeated)?)));
        Ok(Row { metrics: entries.collect::<Result<_, StageError>>()?, variant })
    };
    groups.into_iter().map(row).collect()
}

fn entry(name: &str, values: &[f64], repeated: bool) -> Result<Entry, StageError> {
    if let ([value], false) = (values, repeated) {
        return Ok(Entry::One(*value));
    }
    let n = values.len();
    let mean = values.iter().sum::<f64>() / n as f64;
    let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    let spread = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
    if !mean.is_finite() || spread.is_some_and(|spread| !spread.is_finite()) {
        return Err(StageError::Data { detail: format!("compare: the mean of `{name}` is too large for a number") });
    }
    Ok(Entry::Repeated { mean, n, spread })
}

/// Rows come in the order of their labels, and a stable sort keeps it among equals.
fn sorted(mut rows: Vec<Row>, by: Metric) -> Vec<Row> {
    let value = |row: &Row| row.metrics.get(by.name()).map_or(0.0, |entry| entry.value() + 0.0);
    rows.sort_by(|left, right| {
        let ascending = value(left).total_cmp(&value(right));
        if by.descending() { ascending.reverse() } else { ascending }
    });
    rows
}

fn shown(variant: &BTreeMap<String, String>) -> String {
    let assignments: Vec<String> = variant.iter().map(|(axis, label)| format!("{axis}={label}")).collect();
    format!("[{}]", assignments.join(","))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn node(model: &str, fold: &str, metrics: &[(&str, f64)]) -> Node {
        let variant = [("model", model), ("fold", fold)];
        Node {
            variant: variant.map(|(axis, label)| (axis.to_owned(), label.to_owned())).into(),
            metrics: metrics.iter().map(|(name, value)| (name.to_string(), *value)).collect(),
        }
    }

    fn config(by: Option<Metric>, repeats: &[&str]) -> CompareConfig {
        CompareConfig { by, repeats: repeats.iter().map(|axis| axis.to_string()).collect() }
    }

    fn order(table: &Table) -> Vec<String> {
        table.rows.iter().map(|row| shown(&row.variant)).collect()
    }

    #[test]
    fn rows_are_best_first_and_ties_by_label() {
        let nodes = [
            node("b", "0", &[("f1", 0.5), ("rmse", 1.0)]),
            node("a", "0", &[("f1", 0.5), ("rmse", 3.0)]),
            node("c", "0", &[("f1", 0.9), ("rmse", 2.0)]),
        ];
        let table = compare(&config(None, &[]), &nodes).unwrap();
        assert_eq!((table.by, table.descending), (Metric::F1, true));
        assert_eq!(order(&table), ["[fold=0,model=c]", "[fold=0,model=a]", "[fold=0,model=b]"]);
        let table = compare(&config(Some(Metric::Rmse), &[]), &nodes).unwrap();
        assert!(!table.descending);
        assert_eq!(order(&table), ["[fold=0,model=b]", "[fold=0,model=c]", "[fold=0,model=a]"]);
    }

    #[test]
    fn repeats_become_mean_and_spread() {
        let nodes = [
            node("a", "0", &[("f1", 0.5)]),
            node("b", "0", &[("f1", 0.6)]),
            node("a", "1", &[("f1", 0.75)]),
            node("a", "2", &[("f1", 1.0)]),
        ];
        let table = compare(&config(None, &["fold"]), &nodes).unwrap();
        assert_eq!(table.axes, ["model"]);
        assert_eq!(table.rows[0].metrics["f1"], Entry::Repeated { mean: 0.75, n: 3, spread: Some(0.25) });
        assert_eq!(table.rows[1].metrics["f1"], Entry::Repeated { mean: 0.6, n: 1, spread: None });
    }

    #[test]
    fn errors_name_what_there_is() {
        let nodes = [node("a", "0", &[("f1", 0.5)]), node("b", "0", &[("rmse", 0.6), ("mae", 0.1)])];
        let text = |config: CompareConfig| compare(&config, &nodes).unwrap_err().to_string();
        assert_eq!(text(config(None, &["fould"])), "compare: `repeats` names `fould`; the axes are `fold`, `model`");
        assert_eq!(
            text(config(Some(Metric::F1), &[])),
            "compare: [fold=0,model=b] has no metric `f1`; it has `mae`, `rmse`"
        );
        assert_eq!(
            text(config(None, &[])),
            "compare: no metric is common to all nodes; set `by` to one that all of them have"
        );
        assert_eq!(compare(&config(None, &[]), &[]).unwrap_err().to_string(), "input `metrics` is not wired");
    }

    #[test]
    fn the_table_keeps_its_bytes() {
        let mut inputs = Inputs::default();
        for (fold, metrics) in [("0", r#"{"accuracy": 0.5, "f1": 0.25}"#), ("1", r#"{"accuracy": 1, "f1": 0.75}"#)] {
            let label = BTreeMap::from([("fold".to_owned(), fold.to_owned()), ("model".to_owned(), "a".to_owned())]);
            inputs.add("metrics", label, Arc::new(Draft::blob(artifact::METRICS, metrics.into())));
        }
        let mut outputs = Outputs::default();
        Compare::run(&config(None, &["fold"]), &inputs, &mut outputs).unwrap();
        let text = outputs.into_drafts()["table"].clone();
        let crate::io::Content::Blob(bytes) = text.content else { panic!("a table is a blob") };
        assert_eq!(
            blake3::hash(&bytes).to_hex().as_str(),
            "14c67e7f198ef8517d7d172ec2b2c65316c2eeaf42da183f32c8f28d6c2969a7",
            "{}",
            String::from_utf8(bytes).unwrap()
        );
    }

    #[test]
    fn what_the_configuration_does_not_know_is_refused() {
        let error = |text: &str| serde_json::from_str::<CompareConfig>(text).unwrap_err().to_string();
        assert!(error(r#"{"bye": "f1"}"#).starts_with("unknown field `bye`, expected `by` or `repeats`"));
        assert!(error(r#"{"by": "auc"}"#).starts_with("unknown variant `auc`, expected one of `roc_auc`, `f1`,"));
    }
}
