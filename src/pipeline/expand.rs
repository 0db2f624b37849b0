//! Declared stages and variants -> nodes and their wires: the engine's graph.
//!
//! A stage's axes are those that it mentions plus those of its inputs, less those that a gather collapses; its nodes are
//! the distinct restrictions of the variants to these axes. An edge joins nodes that agree on the axes they share. A
//! dep that another node writes is an edge to that node. Every error is collected; none is reported twice for two nodes
//! of one stage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use headwater_engine::{Graph, Node, NodeId, Wire, WireFrom, WiringError};

use crate::catalog::{self, Built};
use crate::error::Diagnostic;
use crate::pipeline::file::{Gather, PipelineFile, StageDeclaration, WireDeclaration, WorkDeclaration};
use crate::pipeline::interpolate::{Choices, Style, mentions, substitute};
use crate::pipeline::value::{Datum, Span, Value};
use crate::pipeline::variants::{Variant, Variants};
use crate::process::command::{Command, Dep};
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
    let stages = StageAxes::find(file, variants, source)?;
    let mut expansion = Expansion { file, source, project, nodes: Vec::new(), errors: Vec::new() };
    for (at, axes) in stages.axes.iter().enumerate() {
        expansion.add_nodes(at, axes, variants);
    }
    let outs = expansion.outs();
    let (nodes, wired) = expansion.wire(&outs);
    if !expansion.errors.is_empty() {
        return Err(expansion.errors);
    }
    let infos = expansion.nodes.iter().map(|draft| draft.info.clone()).collect();
    let graph = Graph::new(nodes).map_err(|errors| wiring_diagnostics(file, &expansion.nodes, &wired, errors))?;
    Ok(Expanded { graph, nodes: infos })
}

/// The axes of each stage.
struct StageAxes {
    axes: Vec<Vec<String>>,
}

impl StageAxes {
    fn find(file: &PipelineFile, variants: &Variants, source: &str) -> Result<Self, Vec<Diagnostic>> {
        let mut errors = check_references(file, variants, source);
        let mut finder = AxisFinder { file, variants, source, found: vec![None; file.stages.len()], path: Vec::new() };
        if errors.is_empty() {
            for at in 0..file.stages.len() {
                if let Err(error) = finder.axes_of(at) {
                    errors.push(error);
                    break;
                }
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { axes: finder.found.into_iter().map(Option::unwrap_or_default).collect() })
    }
}

struct AxisFinder<'a> {
    file: &'a PipelineFile,
    variants: &'a Variants,
    source: &'a str,
    found: Vec<Option<Vec<String>>>,
    /// The stages being looked at, for the text of a cycle.
    path: Vec<usize>,
}

impl AxisFinder<'_> {
    fn axes_of(&mut self, at: usize) -> Result<Vec<String>, Diagnostic> {
        if let Some(axes) = &self.found[at] {
            return Ok(axes.clone());
        }
        if let Some(begin) = self.path.iter().position(|on_path| *on_path == at) {
            return Err(self.cycle(begin));
        }
        self.path.push(at);
        let stage = &self.file.stages[at];
        let mut axes: BTreeSet<String> = stage_mentions(stage, self.source).into_iter().map(|(name, _)| name).collect();
        for (from, gather) in upstream(self.file, stage) {
            let theirs = self.axes_of(from)?;
            axes.extend(theirs.into_iter().filter(|axis| !collapses(gather, axis)));
        }
        self.path.pop();
        let axes: Vec<String> = self.variants.axes.iter().filter(|axis| axes.contains(*axis)).cloned().collect();
        self.found[at] = Some(axes.clone());
        Ok(axes)
    }

    fn cycle(&self, begin: usize) -> Diagnostic {
        let stages = self.path[begin..].iter().chain(&self.path[begin..=begin]);
        let names: Vec<&str> = stages.map(|at| self.file.stages[*at].name.name.as_str()).rev().collect();
        let first = &self.file.stages[self.path[begin]].name;
        Diagnostic::new(format!("the stages form a cycle: {}", names.join(" -> ")))
            .at(first.span.clone(), "")
            .hint("a stage cannot read, directly or through others, what it makes itself")
    }
}

fn collapses(gather: Option<&Gather>, axis: &str) -> bool {
    match gather {
        None => false,
        Some(Gather::AllAxes) => true,
        Some(Gather::Over(axes)) => axes.iter().any(|(name, _)| name == axis),
    }
}

/// The stages that a stage names, with how it collects them.
fn upstream<'a>(file: &'a PipelineFile, stage: &'a StageDeclaration) -> Vec<(usize, Option<&'a Gather>)> {
    let find = |name: &str| file.stages.iter().position(|stage| stage.name.name == name);
    let wired = stage.wires.iter().filter_map(|wire| Some((find(&wire.stage)?, wire.gather.as_ref())));
    let mounted = mounts(stage).into_iter().filter_map(|wire| Some((find(&wire.stage)?, None)));
    wired.chain(mounted).collect()
}

/// The `{ from, as }` deps of a command.
fn mounts(stage: &StageDeclaration) -> Vec<WireDeclaration> {
    let Some(Datum::List(deps)) = stage.config.get("deps").map(|deps| &deps.datum) else { return Vec::new() };
    let mount = |dep: &Value| {
        let (from, path) = (dep.get("from")?, dep.get("as")?);
        let (stage, output) = super::file::split_reference(from.as_text()?);
        let port = path.as_text().map(str::to_owned);
        Some(WireDeclaration { port, stage, output, gather: None, span: from.span.clone() })
    };
    deps.iter().filter_map(mount).collect()
}

fn stage_mentions(stage: &StageDeclaration, source: &str) -> Vec<(String, Span)> {
    let mut found = mentions(&stage.config, source);
    if let WorkDeclaration::Run(command) = &stage.work {
        found.extend(mentions(command, source));
    }
    found
}

/// Names that are nowhere declared.
fn check_references(file: &PipelineFile, variants: &Variants, source: &str) -> Vec<Diagnostic> {
    let stages = || file.stages.iter().map(|stage| stage.name.name.as_str());
    let params = || variants.all[0].choices.keys().map(String::as_str);
    let mut errors = Vec::new();
    for stage in &file.stages {
        for wire in stage.wires.iter().chain(&mounts(stage)) {
            if !stages().any(|name| name == wire.stage) {
                let unknown = Diagnostic::new(format!("there is no stage `{}`", wire.stage));
                errors.push(unknown.at(wire.span.clone(), "").suggest(
                    &wire.stage,
                    stages().collect::<Vec<_>>(),
                    "stages",
                ));
            }
            if let Some(Gather::Over(axes)) = &wire.gather {
                for (axis, span) in axes.iter().filter(|(axis, _)| !variants.axes.contains(axis)) {
                    let unknown = Diagnostic::new(format!("`over` names the axis `{axis}`, which there is not"));
                    let known: Vec<&str> = variants.axes.iter().map(String::as_str).collect();
                    errors.push(unknown.at(span.clone(), "").suggest(axis, known, "axes"));
                }
            }
        }
        for (name, span) in stage_mentions(stage, source) {
            if !params().any(|known| known == name) {
                let unknown = Diagnostic::new(format!("unknown param `{name}`"));
                errors.push(unknown.at(span, "").suggest(&name, params().collect::<Vec<_>>(), "params"));
            }
        }
    }
    errors
}

/// A node on its way to the engine.
struct DraftNode {
    name: String,
    info: NodeInfo,
    work: Work,
}

enum Work {
    Kind(Built),
    Command(Command),
    /// Its configuration is wrong, and has been reported.
    Broken,
}

/// A file or folder that a node writes into the project.
struct Out {
    node: usize,
    span: Span,
}

/// All outs by path. Paths are ordered by their components, so that what a folder holds follows it.
#[derive(Default)]
struct Outs(BTreeMap<PathBuf, Out>);

impl Outs {
    /// The out at this path, or the one that holds it.
    fn around(&self, path: &Path) -> Option<(&PathBuf, &Out)> {
        path.ancestors().find_map(|above| self.0.get_key_value(above))
    }

    /// The outs inside a folder.
    fn within<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = (&'a PathBuf, &'a Out)> {
        let from = self.0.range(folder.to_owned()..);
        from.take_while(move |(path, _)| path.starts_with(folder)).filter(move |(path, _)| *path != folder)
    }
}

struct Expansion<'a> {
    file: &'a PipelineFile,
    source: &'a str,
    project: &'a Arc<Project>,
    nodes: Vec<DraftNode>,
    errors: Vec<Diagnostic>,
}

impl Expansion<'_> {
    fn report(&mut self, error: Diagnostic) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
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
            errors.into_iter().for_each(|error| self.report(error));
            Work::Broken
        });
        self.nodes.push(DraftNode { name, info: NodeInfo { stage: at, assignment, params }, work });
    }

    fn build(&self, stage: &StageDeclaration, choices: &Choices) -> Result<Work, Vec<Diagnostic>> {
        match &stage.work {
            WorkDeclaration::Uses(kind, span) => {
                let Some(entry) = catalog::find(kind) else {
                    let names: Vec<&str> = catalog::KINDS.iter().map(|kind| kind.name).collect();
                    let unknown = Diagnostic::new(format!("there is no kind `{kind}`"));
                    return Err(vec![unknown.at(span.clone(), "").suggest(kind, names, "kinds")]);
                };
                let config = substitute_config(&stage.config, choices).map_err(|error| vec![error])?;
                let built = (entry.build)(&config, self.project);
                built.map(Work::Kind).map_err(|error| vec![error.into_diagnostic(stage.name.span.clone())])
            }
            WorkDeclaration::Run(run) => {
                if let Some(wire) = stage.wires.first() {
                    let error = Diagnostic::new("a command stage has no inputs: it reads files, which are its `deps`");
                    let hint = format!("write: deps = [{{ from = \"{}\", as = \"PATH\" }}]", wire.stage);
                    return Err(vec![error.at(wire.span.clone(), "").hint(hint)]);
                }
                let style = if run.as_text().is_some() { Style::Shell } else { Style::Text };
                let run = substitute(run, choices, style).map_err(|error| vec![error])?;
                let config = substitute(&stage.config, choices, Style::Text).map_err(|error| vec![error])?;
                Command::read(&run, &config, self.project).map(Work::Command)
            }
        }
    }

    /// Every file that nodes write, checked against each other.
    fn outs(&mut self) -> Outs {
        let (mut outs, mut errors) = (Outs::default(), Vec::new());
        for (node, draft) in self.nodes.iter().enumerate() {
            let Work::Command(command) = &draft.work else { continue };
            for (path, span) in &command.outs {
                if let Some((other, out)) = outs.around(path).or_else(|| outs.within(path).next()) {
                    errors.push(self.clash(path, span, node, other, out));
                }
                outs.0.entry(path.clone()).or_insert(Out { node, span: span.clone() });
            }
        }
        errors.into_iter().for_each(|error| self.report(error));
        outs
    }

    fn clash(&self, path: &Path, span: &Span, node: usize, other_path: &Path, other: &Out) -> Diagnostic {
        let (mine, theirs) = (&self.nodes[node], &self.nodes[other.node]);
        if mine.info.stage != theirs.info.stage || node == other.node {
            let stage = &self.file.stages[theirs.info.stage].name.name;
            let text = format!("the out `{}` overlaps the out `{}` of `{stage}`", path.display(), other_path.display());
            return Diagnostic::new(text).at(span.clone(), "").hint("give each stage outs of its own");
        }
        let axes: Vec<String> = mine.info.assignment.iter().map(|(axis, _)| format!("${{{axis}}}")).collect();
        let written = self.source.get(other.span.clone()).unwrap_or_default().trim_matches(['"', '\'']);
        let missing: Vec<&String> = axes.iter().filter(|axis| !written.contains(axis.as_str())).collect();
        let folder = missing.iter().fold(String::new(), |folder, axis| format!("{folder}{axis}/"));
        let proposal = match Path::new(written).parent().filter(|parent| !parent.as_os_str().is_empty()) {
            Some(parent) => {
                let file = Path::new(written).file_name().unwrap_or_default().to_string_lossy();
                format!("{}/{folder}{file}", parent.display())
            }
            None => format!("{folder}{written}"),
        };
        let stage = &self.file.stages[mine.info.stage].name.name;
        Diagnostic::new(format!("the nodes of `{stage}` would all write `{}`", path.display()))
            .at(span.clone(), "must mention every axis of its stage")
            .hint(format!("write: outs = [\"{proposal}\"]"))
    }

    /// The engine's nodes, and the place of each wire.
    fn wire(&mut self, outs: &Outs) -> (Vec<Node>, Vec<Vec<Span>>) {
        let index = NodeIndex::new(&self.nodes);
        let (mut nodes, mut places) = (Vec::new(), Vec::new());
        for at in 0..self.nodes.len() {
            let draft = &self.nodes[at];
            let declared = &self.file.stages[draft.info.stage];
            let mut wires: Vec<(Wire, Span)> = Vec::new();
            for wire in &declared.wires {
                wires.push((self.stage_wire(wire, &draft.info, &index), wire.span.clone()));
            }
            let stage = match &draft.work {
                Work::Broken => continue,
                Work::Kind(built) => {
                    for (port, path) in &built.files {
                        let span = declared.config.get(port).map_or(declared.name.span.clone(), |v| v.span.clone());
                        wires.push((Wire { port: Some(port.clone()), from: file_wire(Path::new(path), outs) }, span));
                    }
                    built.stage.clone()
                }
                Work::Command(command) => {
                    wires.extend(self.command_wires(command, &draft.info, &index, outs));
                    wires.sort_by(|a, b| a.0.port.cmp(&b.0.port));
                    // A folder and a file in it may both be named.
                    wires.dedup_by(|a, b| a.0 == b.0);
                    let ports: Vec<String> = wires.iter().filter_map(|(wire, _)| wire.port.clone()).collect();
                    command.stage(&ports, self.project)
                }
            };
            let stage_name = declared.name.name.clone();
            let (wires, spans): (Vec<Wire>, Vec<Span>) = wires.into_iter().unzip();
            nodes.push(Node { name: draft.name.clone(), stage_name, stage, wires });
            places.push(spans);
        }
        (nodes, places)
    }

    fn stage_wire(&self, wire: &WireDeclaration, info: &NodeInfo, index: &NodeIndex<'_>) -> Wire {
        let from = self.file.stages.iter().position(|stage| stage.name.name == wire.stage).expect("names are checked");
        let agreeing = index.agreeing(from, &info.assignment);
        let output = wire.output.clone();
        let from = match &wire.gather {
            None => WireFrom::Node { node: agreeing[0], output, entry: None },
            Some(_) => {
                let label = |id: &NodeId| {
                    let theirs = self.nodes[id.0].info.assignment.iter();
                    let own = |axis: &String| info.assignment.iter().any(|(mine, _)| mine == axis);
                    let label: BTreeMap<_, _> = theirs.filter(|(axis, _)| !own(axis)).cloned().collect();
                    (label, *id)
                };
                WireFrom::Gather { members: agreeing.iter().map(label).collect(), output }
            }
        };
        Wire { port: wire.port.clone(), from }
    }

    fn command_wires(
        &self,
        command: &Command,
        info: &NodeInfo,
        index: &NodeIndex<'_>,
        outs: &Outs,
    ) -> Vec<(Wire, Span)> {
        let port = |path: &Path| Some(path.to_string_lossy().into_owned());
        let wire = |path: &Path| Wire { port: port(path), from: file_wire(path, outs) };
        let mut wires = Vec::new();
        for (dep, span) in &command.deps {
            match dep {
                Dep::Mount { reference, path } => {
                    let (stage, output) = super::file::split_reference(reference);
                    let (port, span) = (port(path), span.clone());
                    let declared = WireDeclaration { port, stage, output, gather: None, span: span.clone() };
                    wires.push((self.stage_wire(&declared, info, index), span));
                }
                Dep::Path(path) => {
                    wires.push((wire(path), span.clone()));
                    wires.extend(outs.within(path).map(|(out, _)| (wire(out), span.clone())));
                }
            }
        }
        let is_given = |path: &Path| command.deps.iter().any(|(dep, _)| path.starts_with(dep.path()));
        let is_there = |path: &Path| outs.around(path).is_some() || self.project.root.join(path).is_file();
        if let Some((path, span)) = command.program.as_ref().filter(|(path, _)| is_there(path) && !is_given(path)) {
            wires.push((wire(path), span.clone()));
        }
        wires
    }
}

/// A path as a source: another node's out, something inside one, or a file of the project.
fn file_wire(path: &Path, outs: &Outs) -> WireFrom {
    let path = normal(path);
    if let Some((out, Out { node, .. })) = outs.around(&path) {
        let inside = path.strip_prefix(out).ok().filter(|rest| !rest.as_os_str().is_empty());
        return WireFrom::Node {
            node: NodeId(*node),
            output: Some(out.to_string_lossy().into_owned()),
            entry: inside.map(|rest| rest.to_string_lossy().into_owned()),
        };
    }
    let without = outs.within(&path).map(|(out, _)| out.clone()).collect();
    WireFrom::File { path, without }
}

/// The path without `.` components.
pub fn normal(path: &Path) -> PathBuf {
    path.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

/// A stage's text: configuration as text, its `query` as SQL.
fn substitute_config(config: &Value, choices: &Choices) -> Result<Value, Diagnostic> {
    let entries = config.as_table().unwrap_or_default().iter();
    let put = |(key, value): &(super::value::Key, Value)| {
        let style = if key.name == "query" { Style::Sql } else { Style::Text };
        Ok((key.clone(), substitute(value, choices, style)?))
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

/// The nodes of each stage by their assignments, to find those that agree with another without a scan a node.
struct NodeIndex<'a> {
    of_stage: BTreeMap<usize, Vec<NodeId>>,
    exact: BTreeMap<(usize, &'a [(String, String)]), NodeId>,
    nodes: &'a [DraftNode],
}

impl<'a> NodeIndex<'a> {
    fn new(nodes: &'a [DraftNode]) -> Self {
        let (mut of_stage, mut exact) = (BTreeMap::<usize, Vec<NodeId>>::new(), BTreeMap::new());
        for (at, node) in nodes.iter().enumerate() {
            of_stage.entry(node.info.stage).or_default().push(NodeId(at));
            exact.insert((node.info.stage, node.info.assignment.as_slice()), NodeId(at));
        }
        Self { of_stage, exact, nodes }
    }

    /// The nodes of a stage that agree with an assignment on the axes they share, in order.
    fn agreeing(&self, stage: usize, assignment: &[(String, String)]) -> Vec<NodeId> {
        let all = self.of_stage.get(&stage).map_or(&[][..], Vec::as_slice);
        let Some(first) = all.first() else { return Vec::new() };
        let theirs: Vec<&String> = self.nodes[first.0].info.assignment.iter().map(|(axis, _)| axis).collect();
        let shared: Vec<(String, String)> =
            assignment.iter().filter(|(axis, _)| theirs.contains(&axis)).cloned().collect();
        if shared.len() == theirs.len() {
            return self.exact.get(&(stage, shared.as_slice())).copied().into_iter().collect();
        }
        let agrees = |id: &&NodeId| shared.iter().all(|pair| self.nodes[id.0].info.assignment.contains(pair));
        all.iter().filter(agrees).copied().collect()
    }
}

/// The engine's wiring errors with places and hints, one for all nodes of a stage.
fn wiring_diagnostics(
    file: &PipelineFile,
    nodes: &[DraftNode],
    wired: &[Vec<Span>],
    errors: Vec<WiringError>,
) -> Vec<Diagnostic> {
    let mut diagnostics: Vec<Diagnostic> = Vec::new();
    for error in errors {
        let stage = |id: NodeId| &file.stages[nodes[id.0].info.stage];
        let span = match (error.node(), error.wire()) {
            (Some(node), Some(wire)) => wired[node.0][wire].clone(),
            (Some(node), None) => stage(node).name.span.clone(),
            (None, _) => Span::default(),
        };
        let plain = Diagnostic::new(error.to_string()).at(span, "");
        let diagnostic = match &error {
            WiringError::UnknownOutput { output, available, .. } => {
                plain.suggest(output, available.iter().map(String::as_str), "outputs")
            }
            WiringError::UnknownPort { port, available, .. } => {
                plain.suggest(port, available.iter().map(String::as_str), "inputs")
            }
            WiringError::Ambiguous { from, available, .. } => {
                plain.hint(format!("name one output: {}", references(from, available)))
            }
            WiringError::NothingFits { from, available, ports, .. } => plain
                .hint(format!("the outputs are: {}", references(from, available)))
                .hint(format!("the inputs are: {}", ports.join(", "))),
            WiringError::TypeMismatch { from, found, expected, .. } => {
                plain.hint(format!("`{from}` is a {found}; wire an output that is a {expected}"))
            }
            WiringError::MissingInput { port, type_name, .. } => {
                plain.hint(format!("wire it: inputs = {{ {port} = \"STAGE.OUTPUT\" }} ({type_name})"))
            }
            WiringError::NoInputs { .. } => plain.hint("wire it: input = \"STAGE\", or inputs = { NAME = \"STAGE\" }"),
            WiringError::NeedsGather { .. } => plain.hint("write: gather = \"STAGE\""),
            WiringError::GatherNotTaken { .. } => plain.hint("write: input = \"STAGE\""),
            WiringError::WiredTwice { .. } => plain.hint("wire each input once"),
            WiringError::Cycle { nodes } => cycle(stage, nodes),
        };
        if !diagnostics.contains(&diagnostic) {
            diagnostics.push(diagnostic);
        }
    }
    diagnostics
}

fn cycle<'a>(stage: impl Fn(NodeId) -> &'a StageDeclaration, nodes: &[NodeId]) -> Diagnostic {
    let names: BTreeSet<&str> = nodes.iter().map(|id| stage(*id).name.name.as_str()).collect();
    let names: Vec<&str> = names.into_iter().collect();
    Diagnostic::new(format!("the stages form a cycle through their files: {}", names.join(", ")))
        .at(stage(nodes[0]).name.span.clone(), "")
        .hint("a command cannot depend, directly or through others, on a file that it writes")
}

fn references(stage: &str, outputs: &[String]) -> String {
    let names: Vec<String> = outputs.iter().map(|output| format!("{stage}.{output}")).collect();
    names.join(", ")
}
