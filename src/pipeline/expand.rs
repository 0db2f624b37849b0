//! Declared stages and variants -> nodes and their wires: the engine's graph.
//!
//! A stage's axes are those that it mentions plus those of its inputs, less those that a gather collapses; its nodes are
//! the distinct restrictions of the variants to these axes. An edge joins nodes that agree on the axes they share. A
//! dep that another node writes is an edge to that node. Every error is collected; none is reported twice for two nodes
//! of one stage.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use headwater_engine::{Graph, InputPorts, Node, NodeId, Wire, WireFrom};

use crate::catalog::{self, Built};
use crate::error::Diagnostic;
use crate::pipeline::file::{Gather, PipelineFile, StageDeclaration, WireDeclaration, WorkDeclaration};
use crate::pipeline::interpolate::{Choices, Style, mentions, substitute};
use crate::pipeline::value::{Datum, Span, Value};
use crate::pipeline::variants::{Variant, Variants};
use crate::pipeline::wiring::{self, Place};
use crate::process::command::{Command, Dep, LateKey};
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
    let infos = expansion.nodes.iter().map(|draft| draft.info.clone()).collect();
    let facts = wiring::Facts::of(file, &nodes, expansion.nodes.iter().map(|draft| draft.info.stage), wired);
    let graph = Graph::new(nodes).map_err(|errors| in_order(facts.diagnostics(errors)))?;
    Ok(Expanded { graph, nodes: infos })
}

/// Errors in the order of the file.
fn in_order(mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
    errors.sort_by_key(|error| error.span.as_ref().map(|span| (span.start, span.end)));
    errors
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
        let (span, port_span) = (from.span.clone(), path.span.clone());
        Some(WireDeclaration { port, stage, output, gather: None, span, port_span })
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
    let mut errors = Vec::new();
    for stage in &file.stages {
        for wire in stage.wires.iter().chain(&mounts(stage)) {
            errors.extend(unknown_stage(file, wire));
            errors.extend(unknown_axes(variants, wire));
        }
        errors.extend(unwanted_wire(stage));
        errors.extend(unknown_params(stage, variants, source));
    }
    errors
}

fn unknown_stage(file: &PipelineFile, wire: &WireDeclaration) -> Option<Diagnostic> {
    let stages: Vec<&str> = file.stages.iter().map(|stage| stage.name.name.as_str()).collect();
    let unknown = || Diagnostic::new(format!("there is no stage `{}`", wire.stage)).at(wire.span.clone(), "");
    (!stages.contains(&wire.stage.as_str())).then(|| unknown().suggest(&wire.stage, stages, "stages"))
}

fn unknown_axes(variants: &Variants, wire: &WireDeclaration) -> Vec<Diagnostic> {
    let Some(Gather::Over(axes)) = &wire.gather else { return Vec::new() };
    let known: Vec<&str> = variants.axes.iter().map(String::as_str).collect();
    let unknown = |(axis, span): &(String, Span)| {
        let unknown = Diagnostic::new(format!("`over` names an unknown axis `{axis}`")).at(span.clone(), "");
        unknown.suggest(axis, known.clone(), "axes")
    };
    axes.iter().filter(|(axis, _)| !variants.axes.contains(axis)).map(unknown).collect()
}

/// A command reads files alone.
fn unwanted_wire(stage: &StageDeclaration) -> Option<Diagnostic> {
    let (WorkDeclaration::Run(_), Some(wire)) = (&stage.work, stage.wires.first()) else { return None };
    let text = "a command takes no input, it reads files";
    let from = wire.output.as_ref().map_or(wire.stage.clone(), |output| format!("{}.{output}", wire.stage));
    let hint = format!("write: deps = [{{ from = \"{from}\", as = \"PATH\" }}]");
    Some(Diagnostic::new(text).at(wire.span.clone(), "").hint(hint))
}

fn unknown_params(stage: &StageDeclaration, variants: &Variants, source: &str) -> Vec<Diagnostic> {
    let params: Vec<&str> = variants.all[0].choices.keys().map(String::as_str).collect();
    let shell = match &stage.work {
        WorkDeclaration::Run(run) if run.as_text().is_some() => run.span.clone(),
        _ => Span::default(),
    };
    let unknown = |(name, span): (String, Span)| {
        if name.is_empty() {
            return Diagnostic::new("`${}` names no param").at(span, "").hint("write: ${NAME}");
        }
        let text = Diagnostic::new(format!("unknown param `{name}`")).at(span.clone(), "");
        let text = text.suggest(&name, params.clone(), "params");
        if !shell.contains(&span.start) {
            return text;
        }
        text.hint(format!("for a variable of the shell write `$${{{name}}}`"))
    };
    let mentioned = stage_mentions(stage, source).into_iter();
    mentioned.filter(|(name, _)| !params.contains(&name.as_str())).map(unknown).collect()
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

/// A path with a folder put in before its last part; a folder's path gets it behind.
fn with_folder(written: &str, folder: &str) -> String {
    let written = written.strip_prefix("./").unwrap_or(written);
    match written.rsplit_once('/') {
        Some((above, "")) => format!("{above}/{folder}/"),
        Some((above, file)) => format!("{above}/{folder}/{file}"),
        None => format!("{folder}/{written}"),
    }
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

/// The node that writes each out, by the out's path in the project. Paths are ordered by their components, so that what a folder holds follows it.
#[derive(Default)]
struct Outs(BTreeMap<PathBuf, usize>);

impl Outs {
    /// The out at this path, or the one that holds it.
    fn around(&self, path: &Path) -> Option<(&PathBuf, usize)> {
        path.ancestors().find_map(|above| self.0.get_key_value(above)).map(|(out, node)| (out, *node))
    }

    /// The outs inside a folder.
    fn within<'a>(&'a self, folder: &'a Path) -> impl Iterator<Item = (&'a PathBuf, usize)> {
        let from = self.0.range(folder.to_owned()..);
        from.take_while(move |(path, _)| path.starts_with(folder))
            .filter(move |(path, _)| *path != folder)
            .map(|(path, node)| (path, *node))
    }
}

struct Expansion<'a> {
    file: &'a PipelineFile,
    source: &'a str,
    project: &'a Arc<Project>,
    nodes: Vec<DraftNode>,
    errors: Vec<Diagnostic>,
    reported: Vec<Reported>,
}

/// A configuration that is wrong, of one or more nodes of a stage: told for the first.
struct Reported {
    error: Diagnostic,
    stage: usize,
    nodes: BTreeSet<usize>,
}

/// The keys that a stage may have beside those of its kind.
const STAGE_KEYS: [&str; 5] = ["uses", "input", "inputs", "gather", "over"];

impl Expansion<'_> {
    fn report(&mut self, stage: usize, node: usize, error: Diagnostic) {
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
        self.nodes.push(DraftNode { name, info: NodeInfo { stage: at, assignment, params, late, command }, work });
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

    /// Every file that nodes write, checked against each other.
    fn outs(&mut self) -> Outs {
        let (mut outs, mut errors) = (Outs::default(), Vec::<Diagnostic>::new());
        for (node, draft) in self.nodes.iter().enumerate() {
            let Work::Command(command) = &draft.work else { continue };
            for (path, span) in &command.outs {
                let other = outs.around(path).or_else(|| outs.within(path).next());
                let clash = other.map(|(other, out)| self.clash(path, span, node, other, out));
                errors.extend(clash.filter(|clash| errors.iter().all(|known| known.span != clash.span)));
                outs.0.entry(path.clone()).or_insert(node);
            }
        }
        self.errors.extend(errors);
        outs
    }

    fn clash(&self, path: &Path, span: &Span, node: usize, other_path: &Path, other: usize) -> Diagnostic {
        let (mine, theirs) = (&self.nodes[node], &self.nodes[other]);
        let stage = &self.file.stages[theirs.info.stage].name.name;
        if mine.info.stage == theirs.info.stage && node != other {
            return self.shared_out(span, node, &path.display().to_string());
        }
        let (mine, theirs) = (path.display(), other_path.display());
        let text = match (path == other_path, path.starts_with(other_path)) {
            (true, _) => format!("`{mine}` is an out of `{stage}` already"),
            (false, true) => format!("the out `{mine}` lies inside the out `{theirs}` of `{stage}`"),
            (false, false) => format!("the out `{mine}` contains the out `{theirs}` of `{stage}`"),
        };
        Diagnostic::new(text).at(span.clone(), "").hint("a file has one writer: give each out a path of its own")
    }

    /// Nodes of one stage write the same file: its path does not tell them apart.
    fn shared_out(&self, span: &Span, node: usize, path: &str) -> Diagnostic {
        let info = &self.nodes[node].info;
        let stage = &self.file.stages[info.stage];
        let text = Diagnostic::new(format!("several nodes of `{}` would write `{path}`", stage.name.name));
        let written = self.source.get(span.clone()).unwrap_or_default().trim_matches(['"', '\'']);
        let value = Value { datum: Datum::Text(written.into()), span: span.clone() };
        let mentioned: Vec<String> = mentions(&value, self.source).into_iter().map(|(name, _)| name).collect();
        let axes = info.assignment.iter().map(|(axis, _)| axis);
        let missing: Vec<String> =
            axes.filter(|axis| !mentioned.contains(axis)).map(|axis| format!("${{{axis}}}")).collect();
        if missing.is_empty() {
            return text.at(span.clone(), "").hint("the values run together: put a `-` or a `/` between the params");
        }
        let label = format!("does not mention {}", missing.join(" and "));
        text.at(span.clone(), label).hint(format!("write: \"{}\"", with_folder(written, &missing.join("/"))))
    }

    /// The engine's nodes, and the place of each wire.
    fn wire(&mut self, outs: &Outs) -> (Vec<Node>, Vec<Vec<Place>>) {
        (0..self.nodes.len()).for_each(|node| self.check_mounts(node));
        let index = NodeIndex::new(&self.nodes);
        let (mut nodes, mut places) = (Vec::new(), Vec::new());
        for at in 0..self.nodes.len() {
            let draft = &self.nodes[at];
            let declared = &self.file.stages[draft.info.stage];
            let mut wires: Vec<(Wire, Place)> = Vec::new();
            for wire in &declared.wires {
                wires.push((self.stage_wire(wire, &draft.info, &index), Place::of(wire)));
            }
            let stage = match &draft.work {
                Work::Broken => continue,
                Work::Kind(built) => {
                    for (port, path) in &built.files {
                        let span = declared.config.get(port).map_or(declared.name.span.clone(), |v| v.span.clone());
                        let from = file_wire(Path::new(path), outs, &self.project.root);
                        wires.push((Wire { port: Some(port.clone()), from }, Place::at(span)));
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
            let (wires, spans): (Vec<Wire>, Vec<Place>) = wires.into_iter().unzip();
            nodes.push(Node { name: draft.name.clone(), stage_name, stage, wires });
            places.push(spans);
        }
        (nodes, places)
    }

    /// The form of a mounted frame is told by the ending of its path: an unknown one is refused before anything runs.
    fn check_mounts(&mut self, node: usize) {
        let Work::Command(command) = &self.nodes[node].work else { return };
        let stage = self.nodes[node].info.stage;
        let mut errors = Vec::new();
        for (dep, _) in &command.deps {
            let Dep::Mount { reference, path, path_span } = dep else { continue };
            let error = catalog::unwritable(&path.to_string_lossy()).filter(|_| self.is_frame(reference));
            errors.extend(error.map(|text| Diagnostic::new(text).at(path_span.clone(), "")));
        }
        errors.into_iter().for_each(|error| self.report(stage, node, error));
    }

    /// Whether `stage.output` is a frame, as far as that is known.
    fn is_frame(&self, reference: &str) -> bool {
        let (stage, output) = super::file::split_reference(reference);
        let Some(stage) = self.file.stages.iter().position(|declared| declared.name.name == stage) else {
            return false;
        };
        let producer = self.nodes.iter().find(|draft| draft.info.stage == stage);
        let Some(Work::Kind(built)) = producer.map(|draft| &draft.work) else { return false };
        let outputs = &built.stage.outputs;
        let port = match output {
            Some(name) => outputs.iter().find(|port| port.name == name),
            None => outputs.first().filter(|_| outputs.len() == 1),
        };
        port.is_some_and(|port| port.type_name == catalog::FRAME)
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
    ) -> Vec<(Wire, Place)> {
        let port = |path: &Path| Some(path.to_string_lossy().into_owned());
        let wire = |path: &Path| Wire { port: port(path), from: file_wire(path, outs, &self.project.root) };
        let mut wires = Vec::new();
        for (dep, span) in &command.deps {
            match dep {
                Dep::Mount { reference, path, path_span } => {
                    let (stage, output) = super::file::split_reference(reference);
                    let (port, span, port_span) = (port(path), span.clone(), path_span.clone());
                    let declared = WireDeclaration { port, stage, output, gather: None, span, port_span };
                    wires.push((self.stage_wire(&declared, info, index), Place::of(&declared)));
                }
                Dep::Path(path) => {
                    let place = || Place::at(span.clone());
                    wires.push((wire(path), place()));
                    wires.extend(outs.within(path).map(|(out, _)| (wire(out), place())));
                }
            }
        }
        let is_given = |path: &Path| command.deps.iter().any(|(dep, _)| path.starts_with(dep.path()));
        let is_there = |path: &Path| outs.around(path).is_some() || self.project.root.join(path).is_file();
        let is_read = |path: &Path| is_there(path) && !is_given(path) && !command.makes(path);
        for (path, span) in command.programs.iter().filter(|(path, _)| is_read(path)) {
            wires.push((wire(path), Place::at(span.clone())));
        }
        wires
    }
}

/// A path as a source: another node's out, something inside one, or a file of the project.
fn file_wire(path: &Path, outs: &Outs, root: &Path) -> WireFrom {
    let path = normal(path);
    let place = within_project(&path, root);
    if let Some((out, node)) = outs.around(&place) {
        let inside = place.strip_prefix(out).ok().filter(|rest| !rest.as_os_str().is_empty());
        return WireFrom::Node {
            node: NodeId(node),
            output: Some(out.to_string_lossy().into_owned()),
            entry: inside.map(|rest| rest.to_string_lossy().into_owned()),
        };
    }
    let without = outs.within(&place).map(|(out, _)| out.clone()).collect();
    WireFrom::File { path, without }
}

/// Where in the project a path leads, as outs are written: relative to the root, `..` resolved by the words alone. A path
/// that leaves the project stays as it is.
fn within_project(path: &Path, root: &Path) -> PathBuf {
    let relative = path.strip_prefix(root).unwrap_or(path);
    let mut place = PathBuf::new();
    for part in relative.components() {
        match part {
            Component::ParentDir if !place.pop() => return path.to_owned(),
            Component::ParentDir | Component::CurDir => {}
            part => place.push(part),
        }
    }
    place
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

/// A node's axes and their labels.
type Labels<'a> = &'a [(String, String)];

/// The nodes of each stage by their assignments, to find those that agree with another without a scan a node.
struct NodeIndex<'a> {
    of_stage: BTreeMap<usize, Vec<NodeId>>,
    exact: BTreeMap<(usize, Labels<'a>), NodeId>,
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
