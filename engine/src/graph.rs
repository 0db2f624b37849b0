//! `Graph`: nodes and edges, and every wiring error at once.
//!
//! A graph is made from nodes whose wires name other nodes; making it resolves each wire to ports and outputs, by the
//! rules that users read in the guide: a wire to a node as a whole offers all its outputs, each port takes the output of
//! its own name, and a port without a namesake takes the node's only output. It does not know files or the store.
//!
//! Invariants: a [`Graph`] that exists is acyclic and fully wired; [`NodeId`]s are dense and in the order given.

use std::collections::BTreeMap;
use std::path::PathBuf;

use petgraph::algo::{tarjan_scc, toposort};
use petgraph::graph::{DiGraph, NodeIndex};

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
        for (at, inputs) in inputs.iter().enumerate() {
            for input in inputs {
                if let Source::Output { node, .. } = input.source {
                    inner.update_edge(NodeIndex::new(node.0), NodeIndex::new(at), ());
                }
            }
        }
        let order = toposort(&inner, None).map_err(|_| ()).unwrap_or_default();
        if order.len() != inner.node_count() {
            errors.extend(cycles(&inner));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { inner, inputs, order: order.into_iter().map(|index| NodeId(index.index())).collect() })
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

    /// All ids, producers before consumers.
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
        self.neighbours(id, petgraph::Incoming)
    }

    /// The nodes that read from a node, without repeats.
    pub fn consumers(&self, id: NodeId) -> Vec<NodeId> {
        self.neighbours(id, petgraph::Outgoing)
    }

    fn neighbours(&self, id: NodeId, direction: petgraph::Direction) -> Vec<NodeId> {
        let index = NodeIndex::new(id.0);
        let mut found: Vec<NodeId> =
            self.inner.neighbors_directed(index, direction).map(|index| NodeId(index.index())).collect();
        found.sort_unstable();
        found
    }

    /// The nodes given and all that they need, as a mask.
    pub fn closure(&self, targets: &[NodeId]) -> Vec<bool> {
        let mut within = vec![false; self.len()];
        let mut open = targets.to_vec();
        while let Some(id) = open.pop() {
            if !std::mem::replace(&mut within[id.0], true) {
                open.extend(self.producers(id));
            }
        }
        within
    }
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

    /// Feeds every port that a whole node, or one output of it, can feed.
    fn connect_all(&mut self, wire: usize, ports: &[InputPort], from: &WireFrom, inputs: &mut Vec<Input>) {
        let (source, named) = match from {
            WireFrom::Node { node, output, .. } => (*node, output.is_some()),
            WireFrom::Gather { members, output } => match members.first() {
                Some((_, node)) => (*node, output.is_some()),
                None => return,
            },
            WireFrom::File { .. } => return,
        };
        let outputs = &self.nodes[source.0].stage.outputs;
        let gathered = matches!(from, WireFrom::Gather { .. });
        let open: Vec<&InputPort> =
            ports.iter().filter(|port| (port.presence == Presence::Gathered) == gathered).collect();
        let fed: Vec<&InputPort> = if named {
            // One named output goes to one port: the namesake, else the first required.
            open.iter().find(|p| p.presence != Presence::Optional).copied().into_iter().collect()
        } else {
            open.iter().filter(|port| namesake(outputs, &port.name) || outputs.len() == 1).copied().collect()
        };
        let fed = if !named && outputs.len() == 1 { fed.into_iter().take(1).collect() } else { fed };
        if fed.is_empty() {
            self.errors.push(WiringError::NothingFits {
                node: self.node,
                wire,
                from: self.nodes[source.0].stage_name.clone(),
                kind: self.kind(),
                available: output_names(outputs),
                ports: ports.iter().map(|port| port.name.clone()).collect(),
            });
        }
        for port in fed {
            self.connect(wire, port, from, inputs);
        }
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
        inputs.sort_by(|a, b| {
            rank(a).cmp(&rank(b)).then_with(|| match (rank(a), rank(b)) {
                (None, None) => a.port.cmp(&b.port),
                _ => std::cmp::Ordering::Equal,
            })
        });
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

fn namesake(outputs: &[OutputPort], port: &str) -> bool {
    outputs.iter().any(|output| output.name == port)
}

fn output_names(outputs: &[OutputPort]) -> Vec<String> {
    outputs.iter().map(|output| output.name.clone()).collect()
}
