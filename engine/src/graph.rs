//! `Graph`: nodes and edges, and every wiring error at once.
//!
//! A graph is made from nodes whose wires name other nodes; making it resolves each wire to ports and outputs. A wire
//! that names a port takes the output that it names, else the node's only one, else the port's namesake. A wire that
//! names no port offers one output or all: each port takes its namesake; if no port has one, and one output is offered,
//! the first required port takes that. It does not know files or the store.
//!
//! Invariants: a [`Graph`] that exists is acyclic and fully wired; [`NodeId`]s are dense and in the order given.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::PathBuf;

use petgraph::algo::tarjan_scc;
use petgraph::graph::{DiGraph, NodeIndex};

use crate::plan::Lists;
use crate::room::Request;
use crate::stage::{InputPort, InputPorts, OutputPort, Presence, Stage};

/// A node's dense index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub usize);

/// One node before and after wiring.
#[derive(Clone)]
pub struct Node {
    /// `train[model=forest,fold=2]`; not in the key.
    pub name: String,
    /// The stage's name alone.
    pub stage_name: String,
    pub stage: Stage,
    pub wires: Vec<Wire>,
    /// What it takes up while it runs; not in the key.
    pub request: Request,
    /// How often its stage's function is tried again after it failed; not in the key.
    pub retries: u32,
}

/// A declared connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wire {
    /// The port; `None` feeds whichever ports the source's outputs fit.
    pub port: Option<String>,
    pub from: WireFrom,
}

/// Where a wire begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WireFrom {
    /// An output of a node, or the node as a whole; `entry` narrows a directory to one of its files.
    Node { node: NodeId, output: Option<String>, entry: Option<String> },
    /// The nodes that a gather collects, each with what tells it from its siblings.
    Gather { members: Vec<(BTreeMap<String, String>, NodeId)>, output: Option<String> },
    /// A file or folder of the project, relative to its root; `without` are paths inside it that other nodes write.
    File { path: PathBuf, without: Vec<PathBuf> },
}

/// A resolved input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    pub port: String,
    pub label: BTreeMap<String, String>,
    pub source: Source,
}

/// Where a resolved input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Output { node: NodeId, output: usize, entry: Option<String> },
    File { path: PathBuf, without: Vec<PathBuf> },
}

/// Something that cannot be wired. `wire` is the index within the node's wires.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WiringError {
    #[error("`{from}` has no output `{output}`")]
    UnknownOutput { node: NodeId, wire: usize, from: String, output: String, available: Vec<String> },
    #[error("no output of `{from}` fits the inputs of `{kind}`")]
    NothingFits { node: NodeId, wire: usize, from: String, kind: String, available: Vec<String>, ports: Vec<String> },
    #[error("`{from}` has no output named `{port}`, and more than one")]
    Ambiguous { node: NodeId, wire: usize, from: String, port: String, available: Vec<String> },
    #[error("`{kind}` has no input `{port}`")]
    UnknownPort { node: NodeId, wire: usize, kind: String, port: String, available: Vec<String> },
    #[error("input `{port}` is a {found}, expected a {expected}")]
    TypeMismatch { node: NodeId, wire: usize, port: String, from: String, found: String, expected: String },
    #[error("input `{port}` is wired twice")]
    WiredTwice { node: NodeId, wire: usize, port: String },
    #[error("input `{port}` collects several nodes: it takes a `gather`")]
    NeedsGather { node: NodeId, wire: usize, port: String },
    #[error("input `{port}` takes one artifact, not a `gather`")]
    GatherNotTaken { node: NodeId, wire: usize, port: String },
    #[error("input `{port}` of `{kind}` is missing")]
    MissingInput { node: NodeId, kind: String, port: String, type_name: String },
    #[error("`{kind}` needs at least one input")]
    NoInputs { node: NodeId, kind: String },
    #[error("the stages form a cycle")]
    Cycle { nodes: Vec<NodeId> },
}

/// A wired, acyclic graph.
pub struct Graph {
    inner: DiGraph<Node, ()>,
    inputs: Vec<Vec<Input>>,
    producers: Lists,
    order: Vec<NodeId>,
}

impl Graph {
    /// Wires the nodes.
    ///
    /// # Errors
    /// All wiring errors, in the order of the nodes; cycles last.
    pub fn new(nodes: Vec<Node>) -> Result<Self, Vec<WiringError>> {
        let mut errors = Vec::new();
        let inputs: Vec<Vec<Input>> = (0..nodes.len())
            .map(|at| Wiring { nodes: &nodes, node: NodeId(at), errors: &mut errors }.resolve())
            .collect();
        let mut inner = DiGraph::with_capacity(nodes.len(), nodes.len());
        for node in nodes {
            inner.add_node(node);
        }
        let producers: Lists = inputs.iter().map(|inputs| distinct_producers(inputs)).collect();
        for (at, producers) in producers.iter().enumerate() {
            for producer in producers {
                inner.add_edge(NodeIndex::new(*producer), NodeIndex::new(at), ());
            }
        }
        let order = order(&inner);
        if order.len() != inner.node_count() {
            errors.extend(cycles(&inner));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { inner, inputs, producers, order })
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.inputs.len()
    }

    /// Whether there is no node.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty()
    }

    /// All ids, in the order in which the nodes were given.
    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.inputs.len()).map(NodeId)
    }

    /// All ids, producers before consumers, and otherwise in the order given.
    pub fn order(&self) -> &[NodeId] {
        &self.order
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.inner[NodeIndex::new(id.0)]
    }

    /// The node of this name.
    pub fn find(&self, name: &str) -> Option<NodeId> {
        self.ids().find(|id| self.node(*id).name == name)
    }

    /// A node's resolved inputs, in the order of the ports.
    pub fn inputs(&self, id: NodeId) -> &[Input] {
        &self.inputs[id.0]
    }

    /// The nodes that a node reads from, without repeats.
    pub fn producers(&self, id: NodeId) -> Vec<NodeId> {
        self.producers.get(id.0).iter().map(|producer| NodeId(*producer)).collect()
    }

    /// The nodes that each node reads from, without repeats and in order.
    pub fn all_producers(&self) -> &Lists {
        &self.producers
    }

    /// The nodes that read from a node, without repeats.
    pub fn consumers(&self, id: NodeId) -> Vec<NodeId> {
        let neighbours = self.inner.neighbors(NodeIndex::new(id.0));
        let mut found: Vec<NodeId> = neighbours.map(|index| NodeId(index.index())).collect();
        found.sort_unstable();
        found
    }

    /// The nodes given and all that they need, as a mask.
    pub fn closure(&self, targets: &[NodeId]) -> Vec<bool> {
        let mut within = vec![false; self.len()];
        let mut open = targets.to_vec();
        while let Some(id) = open.pop() {
            if !std::mem::replace(&mut within[id.0], true) {
                open.extend(self.producers.get(id.0).iter().map(|producer| NodeId(*producer)));
            }
        }
        within
    }
}

fn distinct_producers(inputs: &[Input]) -> Vec<usize> {
    let producer = |input: &Input| match input.source {
        Source::Output { node, .. } => Some(node.0),
        Source::File { .. } => None,
    };
    let mut producers: Vec<usize> = inputs.iter().filter_map(producer).collect();
    producers.sort_unstable();
    producers.dedup();
    producers
}

/// Producers before consumers, the lowest index first (Kahn 1962); nodes on a cycle, and below one, are left out.
fn order(inner: &DiGraph<Node, ()>) -> Vec<NodeId> {
    let incoming = |index| inner.edges_directed(index, petgraph::Incoming).count();
    let mut waiting: Vec<usize> = inner.node_indices().map(incoming).collect();
    let free = waiting.iter().enumerate().filter(|(_, count)| **count == 0).map(|(at, _)| Reverse(at));
    let mut ready: BinaryHeap<Reverse<usize>> = free.collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(Reverse(at)) = ready.pop() {
        order.push(NodeId(at));
        for consumer in inner.neighbors(NodeIndex::new(at)) {
            waiting[consumer.index()] -= 1;
            if waiting[consumer.index()] == 0 {
                ready.push(Reverse(consumer.index()));
            }
        }
    }
    order
}

fn cycles(inner: &DiGraph<Node, ()>) -> Vec<WiringError> {
    let knots = tarjan_scc(inner).into_iter().filter(|knot| knot.len() > 1 || inner.contains_edge(knot[0], knot[0]));
    knots
        .map(|knot| {
            let mut nodes: Vec<NodeId> = knot.into_iter().map(|index| NodeId(index.index())).collect();
            nodes.sort_unstable();
            WiringError::Cycle { nodes }
        })
        .collect()
}

/// The wiring of one node.
struct Wiring<'a> {
    nodes: &'a [Node],
    node: NodeId,
    errors: &'a mut Vec<WiringError>,
}

impl Wiring<'_> {
    fn resolve(mut self) -> Vec<Input> {
        let node = &self.nodes[self.node.0];
        let mut inputs = Vec::new();
        for (wire, Wire { port, from }) in node.wires.iter().enumerate() {
            match (port, &node.stage.inputs) {
                (Some(port), ports) => {
                    let Some(declared) = self.declared(wire, port, ports) else { continue };
                    self.connect(wire, &declared, from, &mut inputs);
                }
                (None, InputPorts::Fixed(ports)) => self.connect_all(wire, ports, from, &mut inputs),
                (None, InputPorts::Named { type_name }) => {
                    let port = InputPort {
                        name: "input".into(),
                        type_name: Some(type_name.clone()),
                        presence: Presence::Required,
                    };
                    self.connect(wire, &port, from, &mut inputs);
                }
            }
        }
        self.check_missing(&inputs);
        self.in_port_order(inputs)
    }

    fn declared(&mut self, wire: usize, port: &str, ports: &InputPorts) -> Option<InputPort> {
        match ports {
            InputPorts::Named { type_name } => {
                Some(InputPort { name: port.into(), type_name: Some(type_name.clone()), presence: Presence::Required })
            }
            InputPorts::Fixed(ports) => {
                let found = ports.iter().find(|declared| declared.name == port).cloned();
                if found.is_none() {
                    self.errors.push(WiringError::UnknownPort {
                        node: self.node,
                        wire,
                        kind: self.kind(),
                        port: port.into(),
                        available: ports.iter().map(|port| port.name.clone()).collect(),
                    });
                }
                found
            }
        }
    }

    /// Feeds the ports that a wire without a port goes to.
    fn connect_all(&mut self, wire: usize, ports: &[InputPort], from: &WireFrom, inputs: &mut Vec<Input>) {
        let (name, offered) = self.offered(from);
        let fed = fed_by(ports, &offered, matches!(from, WireFrom::Gather { .. }));
        if fed.is_empty() {
            self.errors.push(WiringError::NothingFits {
                node: self.node,
                wire,
                from: name,
                kind: self.kind(),
                available: offered,
                ports: ports.iter().map(|port| port.name.clone()).collect(),
            });
        }
        for port in fed {
            self.connect(wire, port, from, inputs);
        }
    }

    /// What a wire begins at, and the outputs that it offers; a file offers itself.
    fn offered(&self, from: &WireFrom) -> (String, Vec<String>) {
        let (node, output) = match from {
            WireFrom::File { path, .. } => return (path.display().to_string(), vec![String::new()]),
            WireFrom::Node { node, output, .. } => (Some(*node), output),
            WireFrom::Gather { members, output } => (members.first().map(|(_, node)| *node), output),
        };
        let Some(node) = node else { return Default::default() };
        let source = &self.nodes[node.0];
        let offered = output.as_ref().map_or_else(|| output_names(&source.stage.outputs), |one| vec![one.clone()]);
        (source.stage_name.clone(), offered)
    }

    fn connect(&mut self, wire: usize, port: &InputPort, from: &WireFrom, inputs: &mut Vec<Input>) {
        if inputs.iter().any(|input| input.port == port.name) {
            self.errors.push(WiringError::WiredTwice { node: self.node, wire, port: port.name.clone() });
            return;
        }
        match from {
            WireFrom::File { path, without } => inputs.push(Input {
                port: port.name.clone(),
                label: BTreeMap::new(),
                source: Source::File { path: path.clone(), without: without.clone() },
            }),
            WireFrom::Node { .. } if port.presence == Presence::Gathered => {
                self.errors.push(WiringError::NeedsGather { node: self.node, wire, port: port.name.clone() });
            }
            WireFrom::Node { node, output, entry } => {
                let label = BTreeMap::new();
                inputs.extend(self.output(wire, port, *node, output.as_deref(), entry.clone(), label));
            }
            WireFrom::Gather { .. } if port.presence != Presence::Gathered => {
                self.errors.push(WiringError::GatherNotTaken { node: self.node, wire, port: port.name.clone() });
            }
            WireFrom::Gather { members, output } => {
                let mut members: Vec<_> = members.iter().collect();
                members.sort();
                for (label, node) in members {
                    inputs.extend(self.output(wire, port, *node, output.as_deref(), None, label.clone()));
                }
            }
        }
    }

    fn output(
        &mut self,
        wire: usize,
        port: &InputPort,
        from: NodeId,
        output: Option<&str>,
        entry: Option<String>,
        label: BTreeMap<String, String>,
    ) -> Option<Input> {
        let source = &self.nodes[from.0];
        let outputs = &source.stage.outputs;
        let found = match output {
            Some(name) => outputs.iter().position(|output| output.name == name),
            None if outputs.len() == 1 => Some(0),
            None => outputs.iter().position(|output| output.name == port.name),
        };
        let (node, available, stage) = (self.node, output_names(outputs), source.stage_name.clone());
        let Some(at) = found else {
            self.errors.push(match output {
                Some(output) => {
                    WiringError::UnknownOutput { node, wire, from: stage, output: output.into(), available }
                }
                None => WiringError::Ambiguous { node, wire, from: stage, port: port.name.clone(), available },
            });
            return None;
        };
        if let (Some(expected), None) = (&port.type_name, &entry) {
            let found = &outputs[at].type_name;
            if found != expected {
                self.errors.push(WiringError::TypeMismatch {
                    node,
                    wire,
                    port: port.name.clone(),
                    from: format!("{stage}.{}", outputs[at].name),
                    found: found.clone(),
                    expected: expected.clone(),
                });
                return None;
            }
        }
        Some(Input { port: port.name.clone(), label, source: Source::Output { node: from, output: at, entry } })
    }

    fn check_missing(&mut self, inputs: &[Input]) {
        let node = &self.nodes[self.node.0];
        match &node.stage.inputs {
            InputPorts::Named { .. } if node.wires.is_empty() => {
                self.errors.push(WiringError::NoInputs { node: self.node, kind: self.kind() });
            }
            InputPorts::Named { .. } => {}
            InputPorts::Fixed(ports) => {
                for port in ports {
                    let wired = inputs.iter().any(|input| input.port == port.name);
                    if !wired && port.presence != Presence::Optional && !self.has_error() {
                        self.errors.push(WiringError::MissingInput {
                            node: self.node,
                            kind: self.kind(),
                            port: port.name.clone(),
                            type_name: port.type_name.clone().unwrap_or_else(|| "artifact".into()),
                        });
                    }
                }
            }
        }
    }

    /// A wire that failed explains a missing port well enough.
    fn has_error(&self) -> bool {
        self.errors.iter().any(|error| error.node() == Some(self.node))
    }

    /// Inputs follow the ports' declared order, so that the order of lines in the pipeline file is not in a key.
    fn in_port_order(&self, mut inputs: Vec<Input>) -> Vec<Input> {
        let rank = |input: &Input| match &self.nodes[self.node.0].stage.inputs {
            InputPorts::Fixed(ports) => ports.iter().position(|port| port.name == input.port),
            InputPorts::Named { .. } => None,
        };
        inputs.sort_by_key(|input| (rank(input), input.port.clone()));
        inputs
    }

    fn kind(&self) -> String {
        self.nodes[self.node.0].stage.kind.clone()
    }
}

impl WiringError {
    /// The node at which the error stands; none for a cycle, which has several.
    pub fn node(&self) -> Option<NodeId> {
        match self {
            Self::UnknownOutput { node, .. }
            | Self::NothingFits { node, .. }
            | Self::Ambiguous { node, .. }
            | Self::UnknownPort { node, .. }
            | Self::TypeMismatch { node, .. }
            | Self::WiredTwice { node, .. }
            | Self::NeedsGather { node, .. }
            | Self::GatherNotTaken { node, .. }
            | Self::MissingInput { node, .. }
            | Self::NoInputs { node, .. } => Some(*node),
            Self::Cycle { .. } => None,
        }
    }

    /// The wire at which the error stands, as an index within the node's wires.
    pub fn wire(&self) -> Option<usize> {
        match self {
            Self::UnknownOutput { wire, .. }
            | Self::NothingFits { wire, .. }
            | Self::Ambiguous { wire, .. }
            | Self::UnknownPort { wire, .. }
            | Self::TypeMismatch { wire, .. }
            | Self::WiredTwice { wire, .. }
            | Self::NeedsGather { wire, .. }
            | Self::GatherNotTaken { wire, .. } => Some(*wire),
            Self::MissingInput { .. } | Self::NoInputs { .. } | Self::Cycle { .. } => None,
        }
    }
}

/// The ports that take one of the outputs offered: the namesakes, else the first that is required takes the only one.
fn fed_by<'a>(ports: &'a [InputPort], offered: &[String], gathered: bool) -> Vec<&'a InputPort> {
    let fits = |port: &&InputPort| (port.presence == Presence::Gathered) == gathered;
    let namesakes: Vec<_> = ports.iter().filter(fits).filter(|port| offered.contains(&port.name)).collect();
    if !namesakes.is_empty() || offered.len() != 1 {
        return namesakes;
    }
    let mut required = ports.iter().filter(|port| port.presence != Presence::Optional);
    // One of the other form is better than none: wiring it says what is wrong.
    required.clone().find(fits).or_else(|| required.next()).into_iter().collect()
}

fn output_names(outputs: &[OutputPort]) -> Vec<String> {
    outputs.iter().map(|output| output.name.clone()).collect()
}

#[cfg(test)]
#[path = "graph_tests.rs"]
mod tests;
