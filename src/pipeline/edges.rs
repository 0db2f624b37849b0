//! What each node reads: an edge joins nodes that agree on the axes they share; a dep that another node writes is an edge
//! to that node, every other path a file of the project.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use headwater_engine::{Node, NodeId, Wire, WireFrom};

use crate::catalog;
use crate::error::Diagnostic;
use crate::pipeline::expand::{DraftNode, Expansion, NodeInfo, Work, normal};
use crate::pipeline::file::{WireDeclaration, split_reference};
use crate::pipeline::outs::Outs;
use crate::pipeline::wiring::Place;
use crate::process::command::{Command, Dep};

impl Expansion<'_> {
    /// The engine's nodes, and the place of each wire.
    pub(super) fn wire(&mut self, outs: &Outs) -> (Vec<Node>, Vec<Vec<Place>>) {
        (0..self.nodes.len()).for_each(|node| self.check_mounts(node));
        let index = NodeIndex::new(&self.nodes);
        let (mut nodes, mut places, mut absent) = (Vec::new(), Vec::new(), Vec::new());
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
                    let (programs, missing) = self.program_wires(command, outs);
                    wires.extend(programs);
                    absent.push((at, missing));
                    wires.sort_by(|a, b| a.0.port.cmp(&b.0.port));
                    // A folder and a file in it may both be named.
                    wires.dedup_by(|a, b| a.0 == b.0);
                    let ports: Vec<String> = wires.iter().filter_map(|(wire, _)| wire.port.clone()).collect();
                    command.stage(&ports, self.project)
                }
            };
            let stage_name = declared.name.name.clone();
            let (wires, spans): (Vec<Wire>, Vec<Place>) = wires.into_iter().unzip();
            let (request, retries) = (declared.request.clone(), declared.retries);
            nodes.push(Node { name: draft.name.clone(), stage_name, stage, wires, request, retries });
            places.push(spans);
        }
        absent.into_iter().for_each(|(at, missing)| self.nodes[at].info.absent = missing);
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
        let (stage, output) = split_reference(reference);
        let Some(stage) = self.file.position(&stage) else { return false };
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
        let from = self.file.position(&wire.stage).expect("names are checked");
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
                    let (stage, output) = split_reference(reference);
                    let (port, span, port_span) = (port(path), span.clone(), path_span.clone());
                    let declared = WireDeclaration { port, stage, output, gather: None, span, port_span };
                    wires.push((self.stage_wire(&declared, info, index), Place::of(&declared)));
                }
                Dep::Path(path) => {
                    let place = || Place::at(span.clone());
                    wires.push((wire(path), place()));
                    wires.extend(outs.within(path).map(|(out, _)| (wire(Path::new(out)), place())));
                }
            }
        }
        wires
    }

    /// The programs of the project that a command starts, and those that are not there.
    fn program_wires(&self, command: &Command, outs: &Outs) -> (Vec<(Wire, Place)>, Vec<PathBuf>) {
        let is_given = |path: &Path| command.deps.iter().any(|(dep, _)| path.starts_with(dep.path()));
        let is_there = |path: &Path| outs.around(path).is_some() || self.project.root.join(path).is_file();
        let (mut wires, mut absent) = (Vec::new(), Vec::new());
        for (path, span) in command.programs.iter().filter(|(path, _)| !is_given(path) && !command.makes(path)) {
            if is_there(path) {
                let from = file_wire(path, outs, &self.project.root);
                wires.push((Wire { port: Some(path.to_string_lossy().into_owned()), from }, Place::at(span.clone())));
            } else {
                absent.push(path.clone());
            }
        }
        (wires, absent)
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
            output: Some(out.to_owned()),
            entry: inside.map(|rest| rest.to_string_lossy().into_owned()),
        };
    }
    let without = outs.within(&place).map(|(out, _)| PathBuf::from(out)).collect();
    WireFrom::File { path, without }
}

/// Where in the project a path leads, as outs are written: relative to the root, `..` resolved by the words alone. A path
/// that leaves the project stays as it is.
pub(super) fn within_project(path: &Path, root: &Path) -> PathBuf {
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
