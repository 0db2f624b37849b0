//! `headwater compare`: the variants side by side, best first.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;

use clap::Args;
use headwater_engine::NodeId;
use headwater_stages::Kind;
use headwater_stages::evaluate::Metric;
use headwater_stages::evaluate::compare::{Compare as CompareKind, CompareConfig};
use headwater_stages::io::{Content, Inputs, Outputs};
use headwater_stages::kind::artifact;
use serde::Deserialize;
use serde::de::value::StrDeserializer;
use serde_json::Value as Json;

use crate::catalog;
use crate::commands::Globals;
use crate::commands::show::table;
use crate::error::{CommandError, Diagnostic};
use crate::pipeline::blame::ConfigError;
use crate::report::print_json;
use crate::workspace::{Workspace, artifact_of};

/// Show the variants side by side, best first
#[derive(Debug, Args)]
pub struct Compare {
    /// The metric to sort by
    #[arg(long, value_name = "METRIC")]
    by: Option<String>,
    /// Axes that are repetitions: one row for all their values, with mean and spread
    #[arg(long, value_name = "AXIS")]
    repeats: Vec<String>,
    /// The stage whose metrics are compared, where several have some
    #[arg(long, value_name = "STAGE")]
    stage: Option<String>,
}

impl Compare {
    /// # Errors
    /// If no stage has metrics, or the metric is not there.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let workspace = Workspace::open(&globals.pipeline, &[])?;
        let stage = self.stage(&workspace)?;
        let inputs = metrics_of(&workspace, &stage)?;
        self.by.as_deref().map_or(Ok(()), check_metric)?;
        let settings = serde_json::json!({ "by": self.by, "repeats": self.repeats });
        let config = CompareConfig::deserialize(settings).map_err(|error| CommandError::usage(error.to_string()))?;
        let mut outputs = Outputs::default();
        CompareKind::run(&config, &inputs, &mut outputs).map_err(|error| CommandError::usage(error.to_string()))?;
        for draft in outputs.into_drafts().into_values() {
            let Content::Blob(bytes) = draft.content else { continue };
            let value: Json = serde_json::from_slice(&bytes).map_err(CommandError::failed)?;
            if globals.json() {
                print_json(&serde_json::json!({ "event": "compared", "stage": stage, "table": value }))?;
            } else {
                std::io::stdout().write_all(leaderboard(&value).as_bytes())?;
            }
        }
        Ok(())
    }

    fn stage(&self, workspace: &Workspace) -> Result<String, CommandError> {
        let graph = &workspace.pipeline.graph;
        let has_metrics =
            |id: &NodeId| graph.node(*id).stage.outputs.iter().any(|port| port.type_name == artifact::METRICS);
        let mut stages: Vec<&str> =
            graph.ids().filter(has_metrics).map(|id| graph.node(id).stage_name.as_str()).collect();
        stages.dedup();
        if let Some(stage) = &self.stage {
            let known = stages.contains(&stage.as_str());
            let unknown = || CommandError::Usage(format!("stage `{stage}` gives no metrics"), vec![stages.join(", ")]);
            return if known { Ok(stage.clone()) } else { Err(unknown()) };
        }
        match stages.as_slice() {
            [one] => Ok((*one).to_owned()),
            [] => Err(CommandError::Usage(
                "no stage gives metrics".into(),
                vec!["add one with `uses = \"evaluate\"`".into()],
            )),
            several => {
                let hint = format!("choose one with --stage: {}", several.join(", "));
                Err(CommandError::Usage("several stages give metrics".into(), vec![hint]))
            }
        }
    }
}

fn check_metric(name: &str) -> Result<(), CommandError> {
    let name = StrDeserializer::<ConfigError>::new(name);
    Metric::deserialize(name).map(drop).map_err(|error| {
        let Diagnostic { message, hints, .. } = error.into_diagnostic(0..0, "");
        CommandError::Usage(format!("--by: {message}"), hints)
    })
}

fn metrics_of(workspace: &Workspace, stage: &str) -> Result<Inputs, CommandError> {
    let pipeline = &workspace.pipeline;
    let mut inputs = Inputs::default();
    let nodes: Vec<NodeId> = pipeline.graph.ids().filter(|id| pipeline.graph.node(*id).stage_name == stage).collect();
    for (id, outputs) in nodes.iter().zip(workspace.outputs(&nodes)?) {
        let metrics = outputs.iter().find(|output| output.type_name == artifact::METRICS);
        let artifact = artifact_of(metrics.ok_or_else(|| CommandError::failed("an evaluation gave no metrics"))?)?;
        let stored = catalog::open(&workspace.store, &artifact).map_err(CommandError::failed)?;
        let label: BTreeMap<String, String> = pipeline.nodes[id.0].assignment.iter().cloned().collect();
        inputs.add("metrics", label, Arc::clone(&stored));
    }
    Ok(inputs)
}

/// The table of a `compare` stage, for people.
pub fn leaderboard(value: &Json) -> String {
    let texts = |name: &str| -> Vec<String> {
        let list = value[name].as_array().into_iter().flatten();
        list.filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let (axes, by) = (texts("axes"), value["by"].as_str().unwrap_or_default().to_owned());
    let mut metrics = texts("metrics");
    metrics.sort_by_key(|name| *name != by);
    let rows = value["rows"].as_array().into_iter().flatten().map(|row| {
        let labels = axes.iter().map(|axis| row["variant"][axis].as_str().unwrap_or_default().to_owned());
        labels.chain(metrics.iter().map(|metric| score(&row["metrics"][metric]))).collect()
    });
    let rows = rows.collect();
    table(axes.iter().cloned().chain(metrics.iter().cloned()).collect(), rows) + "\n"
}

fn score(value: &Json) -> String {
    match (value.as_f64(), value["mean"].as_f64(), value["spread"].as_f64()) {
        (Some(number), _, _) => format!("{number:.4}"),
        (None, Some(mean), Some(spread)) => format!("{mean:.4} ± {spread:.4}"),
        (None, Some(mean), None) => format!("{mean:.4}"),
        _ => String::new(),
    }
}
