//! Declared stages and variants -> nodes and their wires: the engine's graph.
//!
//! A stage's nodes are the distinct restrictions of the variants to its axes. Every error is collected; none is reported
//! twice for two nodes of one stage. Its time grows with the nodes and their wires, not with their product.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use headwater_engine::{Graph, InputPorts};

use crate::catalog::{self, Built};
use crate::error::Diagnostic;
use crate::pipeline::file::{PipelineFile, StageDeclaration, WireDeclaration, WorkDeclaration};
use crate::pipeline::interpolate::{Choices, Style, mentions, substitute};
use crate::pipeline::references::{StageAxes, stage_mentions, unknown_params};
use crate::pipeline::value::{Datum, Span, Value};
use crate::pipeline::variants::{Variant, Variants};
use crate::pipeline::wiring;
use crate::process::command::{Command, LateKey};
use crate::project::Project;

/// What is known of a node beside what the engine needs.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// The index of its stage in the file.
    pub stage: usize,
    /// Its axes and their labels, in the order of the axes.
    pub assignment: Vec<(String, String)>,
    /// The params that its stage mentions, with their values.
    pub params: Vec<(String, String)>,
    /// What of its key is found when keys are needed.
    pub late: LateKey,
    /// Programs of the project that its command starts and that are not there.
    pub absent: Vec<PathBuf>,
    /// The command, if it is one.
    pub command: Option<Command>,
}

/// The graph of a pipeline.
pub struct Expanded {
    pub graph: Graph,
    pub nodes: Vec<NodeInfo>,
}

/// Expands a file.
///
/// # Errors
/// Everything that is wrong between stages, in the order of the file.
pub fn expand(
    file: &PipelineFile,
    variants: &Variants,
    source: &str,
    project: &Arc<Project>,
) -> Result<Expanded, Vec<Diagnostic>> {
    let mut expansion =
        Expansion { file, source, project, nodes: Vec::new(), errors: Vec::new(), reported: Vec::new() };
    let stages =
        StageAxes::find(file, variants, source).map_err(|errors| expansion.with_config_errors(variants, errors))?;
    for (at, axes) in stages.axes.iter().enumerate() {
        expansion.add_nodes(at, axes, variants);
    }
    let outs = expansion.outs();
    let (nodes, wired) = expansion.wire(&outs);
    if !expansion.errors.is_empty() || !expansion.reported.is_empty() {
        return Err(expansion.into_errors());
    }
    let facts = wiring::Facts::of(file, &nodes, expansion.nodes.iter().map(|draft| draft.info.stage), wired);
    let infos = expansion.nodes.into_iter().map(|draft| draft.info).collect();
    let graph = Graph::new(nodes).map_err(|errors| in_order(facts.diagnostics(errors)))?;
    Ok(Expanded { graph, nodes: infos })
}

/// Errors in the order of the file.
fn in_order(mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
    errors.sort_by_key(|error| error.span.as_ref().map(|span| (span.start, span.end)));
    errors
}

/// A node on its way to the engine.
pub(super) struct DraftNode {
    pub(super) name: String,
    pub(super) info: NodeInfo,
    pub(super) work: Work,
}

pub(super) enum Work {
    Kind(Built),
    Command(Command),
    /// Its configuration is wrong, and has been reported.
    Broken,
}

/// Whether a wire leads to a kind that reads files of the project alone, or to the port of such a file.
fn takes_no(wire: &WireDeclaration, built: &Built) -> bool {
    let is_file = |name: &str| built.files.iter().any(|(port, _)| port == name);
    match (&built.stage.inputs, &wire.port) {
        (InputPorts::Fixed(_), Some(port)) => is_file(port),
        (InputPorts::Fixed(ports), None) => ports.iter().all(|port| is_file(&port.name)),
        (InputPorts::Named { .. }, _) => false,
    }
}

fn no_input(stage: &StageDeclaration, kind: &str, wire: &WireDeclaration, built: &Built) -> Diagnostic {
    let text = format!("stage `{}` takes no input: `{kind}` reads a file", stage.name.name);
    let keys: Vec<String> = built.files.iter().map(|(port, _)| format!("`{port}`")).collect();
    Diagnostic::new(text)
        .at(wire.span.clone(), "")
        .hint(format!("{} names the file; remove the input", keys.join(", ")))
}

/// A pipeline file on its way to a graph.
pub(super) struct Expansion<'a> {
    pub(super) file: &'a PipelineFile,
    pub(super) source: &'a str,
    pub(super) project: &'a Arc<Project>,
    pub(super) nodes: Vec<DraftNode>,
    pub(super) errors: Vec<Diagnostic>,
    reported: Vec<Reported>,
}

/// A configuration that is wrong, of one or more nodes of a stage: told for the first.
struct Reported {
    error: Diagnostic,
    stage: usize,
    nodes: BTreeSet<usize>,
}

/// The keys that a stage may have beside those of its kind.
const STAGE_KEYS: [&str; 7] = ["uses", "input", "inputs", "gather", "over", "resources", "retries"];

impl Expansion<'_> {
    pub(super) fn report(&mut self, stage: usize, node: usize, error: Diagnostic) {
        let same = |known: &&mut Reported| {
            known.stage == stage
                && known.error.span == error.span
                && (!known.nodes.contains(&node) || known.error == error)
        };
        match self.reported.iter_mut().find(same) {
            Some(known) => {
                known.nodes.insert(node);
            }
            None => self.reported.push(Reported { error, stage, nodes: BTreeSet::from([node]) }),
        }
    }

    fn into_errors(self) -> Vec<Diagnostic> {
        let told = |reported: Reported| match reported.nodes.len() {
            1 => reported.error,
            nodes => {
                let stage = &self.file.stages[reported.stage].name.name;
                reported.error.hint(format!("this concerns {nodes} nodes of `{stage}`"))
            }
        };
        in_order(self.errors.into_iter().chain(self.reported.into_iter().map(told)).collect())
    }

    /// Adds what is wrong within stages to what is wrong between them, as far as it can be told.
    fn with_config_errors(&mut self, variants: &Variants, errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
        for (at, stage) in self.file.stages.iter().enumerate() {
            if unknown_params(stage, variants, self.source).is_empty() {
                let built = self.build(stage, &variants.all[0].choices);
                built.err().into_iter().flatten().for_each(|error| self.report(at, at, error));
            }
        }
        let more = self.reported.drain(..).map(|reported| reported.error);
        in_order(errors.into_iter().chain(more).collect())
    }

    fn add_nodes(&mut self, at: usize, axes: &[String], variants: &Variants) {
        let mut seen = BTreeSet::new();
        for variant in &variants.all {
            let label = |axis: &String| (axis.clone(), variant.choices[axis].label.clone());
            let assignment: Vec<(String, String)> = axes.iter().map(label).collect();
            if seen.insert(assignment.clone()) {
                self.add_node(at, assignment, variant);
            }
        }
    }

    fn add_node(&mut self, at: usize, assignment: Vec<(String, String)>, variant: &Variant) {
        let stage = &self.file.stages[at];
        let name = node_name(&stage.name.name, &assignment);
        let mentioned: BTreeSet<String> =
            stage_mentions(stage, self.source).into_iter().map(|(name, _)| name).collect();
        let value = |name: String| {
            let value = variant.choices[&name].value.to_string();
            (name, value)
        };
        let params = mentioned.into_iter().map(value).collect();
        let work = self.build(stage, &variant.choices).unwrap_or_else(|errors| {
            let node = self.nodes.len();
            errors.into_iter().for_each(|error| self.report(at, node, error));
            Work::Broken
        });
        let late = match &work {
            Work::Command(command) => command.late_key(self.project),
            Work::Kind(_) | Work::Broken => LateKey::default(),
        };
        let command = match &work {
            Work::Command(command) => Some(command.clone()),
            Work::Kind(_) | Work::Broken => None,
        };
        let info = NodeInfo { stage: at, assignment, params, late, absent: Vec::new(), command };
        self.nodes.push(DraftNode { name, info, work });
    }

    fn build(&self, stage: &StageDeclaration, choices: &Choices) -> Result<Work, Vec<Diagnostic>> {
        match &stage.work {
            WorkDeclaration::Uses(kind, span) => {
                self.build_kind(stage, kind, span, choices).map_err(|error| vec![error])
            }
            WorkDeclaration::Run(run) => {
                let style = if run.as_text().is_some() { Style::Shell } else { Style::Word };
                let run = substitute(run, choices, style, self.source).map_err(|error| vec![error])?;
                let config =
                    substitute(&stage.config, choices, Style::Text, self.source).map_err(|error| vec![error])?;
                Command::read(&run, &config, self.file.hermetic, self.project).map(Work::Command)
            }
        }
    }

    fn build_kind(
        &self,
        stage: &StageDeclaration,
        kind: &str,
        span: &Span,
        choices: &Choices,
    ) -> Result<Work, Diagnostic> {
        let Some(entry) = catalog::find(kind) else {
            let names: Vec<&str> = catalog::KINDS.iter().map(|kind| kind.name).collect();
            let unknown = Diagnostic::new(format!("there is no kind `{kind}`"));
            return Err(unknown.at(span.clone(), "").suggest(kind, names, "kinds"));
        };
        let config = substitute_config(&stage.config, choices, self.source)?;
        let built = (entry.build)(&config, self.project).map_err(|error| {
            let error = error.also_known(&config, &STAGE_KEYS);
            self.with_param(error.into_diagnostic(stage.name.span.clone(), self.source), choices)
        })?;
        match stage.wires.iter().find(|wire| takes_no(wire, &built)) {
            Some(wire) => Err(no_input(stage, kind, wire, &built)),
            None => Ok(Work::Kind(built)),
        }
    }

    /// Says which value a param has that is mentioned at the place of an error.
    fn with_param(&self, mut error: Diagnostic, choices: &Choices) -> Diagnostic {
        let Some(span) = error.span.clone().filter(|_| error.label.is_empty()) else { return error };
        let value = Value { datum: Datum::Text(self.source.get(span.clone()).unwrap_or_default().into()), span };
        let said = |(name, _): (String, Span)| Some(format!("`{name}` is {}", choices.get(&name)?.label));
        let said: Vec<String> = mentions(&value, self.source).into_iter().filter_map(said).collect();
        error.label = said.join(", ");
        error
    }
}

/// The path without `.` components.
pub fn normal(path: &Path) -> PathBuf {
    path.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

/// A stage's text: configuration as text, its `query` as SQL.
fn substitute_config(config: &Value, choices: &Choices, source: &str) -> Result<Value, Diagnostic> {
    let entries = config.as_table().unwrap_or_default().iter();
    let put = |(key, value): &(super::value::Key, Value)| {
        let style = if key.name == "query" { Style::Sql } else { Style::Text };
        Ok((key.clone(), substitute(value, choices, style, source)?))
    };
    Ok(Value { datum: Datum::Table(entries.map(put).collect::<Result<_, _>>()?), span: config.span.clone() })
}

/// `stage[axis=label,…]`.
fn node_name(stage: &str, assignment: &[(String, String)]) -> String {
    if assignment.is_empty() {
        return stage.to_owned();
    }
    let labels: Vec<String> = assignment.iter().map(|(axis, label)| format!("{axis}={label}")).collect();
    format!("{stage}[{}]", labels.join(","))
}
