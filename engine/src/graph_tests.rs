//! Each wiring error with its text, and the rules by which wires find ports.

use std::sync::Arc;

use super::*;

fn kind(kind: &str, inputs: InputPorts, outputs: &[(&str, &str)]) -> Stage {
    let output = |(name, type_name): &(&str, &str)| OutputPort {
        name: (*name).into(),
        type_name: (*type_name).into(),
        passes: None,
    };
    Stage {
        kind: kind.into(),
        version: 1,
        config: Vec::new(),
        inputs,
        outputs: outputs.iter().map(output).collect(),
        reads: Arc::new(|_| Ok(Vec::new())),
        run: Arc::new(|_| Ok(Vec::new())),
        outs: None,
    }
}

fn ports(ports: &[(&str, &str, Presence)]) -> InputPorts {
    let port = |(name, type_name, presence): &(&str, &str, Presence)| InputPort {
        name: (*name).into(),
        type_name: Some((*type_name).into()),
        presence: *presence,
    };
    InputPorts::Fixed(ports.iter().map(port).collect())
}

fn node(stage: Stage, wires: Vec<Wire>) -> Node {
    Node {
        name: stage.kind.clone(),
        stage_name: stage.kind.clone(),
        stage,
        wires,
        request: Request::default(),
        retries: 0,
    }
}

fn none() -> InputPorts {
    InputPorts::Fixed(Vec::new())
}

fn read() -> Stage {
    kind("read", none(), &[("frame", "frame")])
}

fn split() -> Stage {
    kind("split", none(), &[("train", "frame"), ("test", "frame")])
}

fn whole(port: Option<&str>, node: usize) -> Wire {
    output(port, node, None)
}

fn output(port: Option<&str>, node: usize, output: Option<&str>) -> Wire {
    let from = WireFrom::Node { node: NodeId(node), output: output.map(Into::into), entry: None };
    Wire { port: port.map(Into::into), from }
}

fn entry(port: &str, node: usize, entry: &str) -> Wire {
    let from = WireFrom::Node { node: NodeId(node), output: None, entry: Some(entry.into()) };
    Wire { port: Some(port.into()), from }
}

fn gather(port: Option<&str>, members: &[(&str, usize)]) -> Wire {
    let member = |(label, node): &(&str, usize)| ([("fold".to_owned(), (*label).to_owned())].into(), NodeId(*node));
    let from = WireFrom::Gather { members: members.iter().map(member).collect(), output: None };
    Wire { port: port.map(Into::into), from }
}

fn file(port: Option<&str>, path: &str) -> Wire {
    Wire { port: port.map(Into::into), from: WireFrom::File { path: path.into(), without: Vec::new() } }
}

/// The last node's inputs, as `port<-kind.output`.
fn wired(nodes: Vec<Node>) -> Vec<String> {
    let last = NodeId(nodes.len() - 1);
    let graph = Graph::new(nodes).unwrap_or_else(|errors| panic!("{errors:?}"));
    let from = |source: &Source| match source {
        Source::Output { node, output, .. } => {
            let stage = &graph.node(*node).stage;
            format!("{}.{}", stage.kind, stage.outputs[*output].name)
        }
        Source::File { path, .. } => path.display().to_string(),
    };
    graph.inputs(last).iter().map(|input| format!("{}<-{}", input.port, from(&input.source))).collect()
}

fn texts(nodes: Vec<Node>) -> Vec<String> {
    let errors = Graph::new(nodes).err().expect("it cannot be wired");
    errors.iter().map(ToString::to_string).collect()
}

fn evaluate() -> InputPorts {
    use Presence::{Optional, Required};
    ports(&[("data", "frame", Required), ("model", "model", Required), ("schema", "frame", Optional)])
}

fn runs() -> InputPorts {
    ports(&[("runs", "metrics", Presence::Gathered)])
}

/// A node of these ports and wires, behind `read`, `split` and `train`.
fn behind(inputs: InputPorts, wires: Vec<Wire>) -> Vec<Node> {
    let train = kind("train", none(), &[("model", "model")]);
    vec![node(read(), vec![]), node(split(), vec![]), node(train, vec![]), node(kind("use", inputs, &[]), wires)]
}

#[test]
fn every_error_has_its_text() {
    use Presence::Required;
    let data = || ports(&[("data", "frame", Required)]);
    let table = [
        (behind(data(), vec![output(Some("data"), 1, Some("trian"))]), "`split` has no output `trian`"),
        (behind(data(), vec![output(None, 1, Some("trian"))]), "`split` has no output `trian`"),
        (behind(data(), vec![whole(None, 1)]), "no output of `split` fits the inputs of `use`"),
        (behind(none(), vec![whole(None, 0)]), "no output of `read` fits the inputs of `use`"),
        (behind(none(), vec![file(None, "a.csv")]), "no output of `a.csv` fits the inputs of `use`"),
        (behind(data(), vec![whole(Some("data"), 1)]), "`split` has no output named `data`, and more than one"),
        (behind(data(), vec![whole(Some("dta"), 0)]), "`use` has no input `dta`"),
        (behind(data(), vec![whole(None, 2)]), "input `data` is a model, expected a frame"),
        (behind(data(), vec![whole(Some("data"), 0), whole(Some("data"), 0)]), "input `data` is wired twice"),
        (behind(runs(), vec![whole(Some("runs"), 0)]), "input `runs` collects several nodes: it takes a `gather`"),
        (behind(runs(), vec![whole(None, 0)]), "input `runs` collects several nodes: it takes a `gather`"),
        (behind(data(), vec![gather(Some("data"), &[("1", 0)])]), "input `data` takes one artifact, not a `gather`"),
        (behind(data(), vec![gather(None, &[("1", 0)])]), "input `data` takes one artifact, not a `gather`"),
        (behind(data(), vec![]), "input `data` of `use` is missing"),
        (behind(runs(), vec![gather(Some("runs"), &[])]), "input `runs` of `use` is missing"),
        (behind(InputPorts::Named { type_name: "frame".into() }, vec![]), "`use` needs at least one input"),
    ];
    for (nodes, text) in table {
        assert_eq!(texts(nodes), [text]);
    }
}

#[test]
fn cycles_are_told_apart_and_named_by_their_nodes() {
    let link = |from| {
        node(kind("link", ports(&[("in", "frame", Presence::Required)]), &[("out", "frame")]), vec![whole(None, from)])
    };
    let errors = Graph::new(vec![link(1), link(0), link(2), link(1)]).err().expect("there are cycles");
    let mut knots: Vec<_> = errors.into_iter().map(|error| (error.to_string(), error)).collect();
    knots.sort_by_key(|(_, error)| format!("{error:?}"));
    let cycle = |nodes: &[usize]| {
        let nodes = nodes.iter().map(|node| NodeId(*node)).collect();
        ("the stages form a cycle".to_owned(), WiringError::Cycle { nodes })
    };
    assert_eq!(knots, [cycle(&[0, 1]), cycle(&[2])]);
}

#[test]
fn errors_of_several_nodes_come_together_in_the_order_of_the_nodes() {
    let data = || ports(&[("data", "frame", Presence::Required)]);
    let mut nodes = behind(data(), vec![whole(Some("dta"), 0)]);
    nodes.push(node(kind("other", data(), &[]), vec![]));
    assert_eq!(texts(nodes), ["`use` has no input `dta`", "input `data` of `other` is missing"]);
}

#[test]
fn a_whole_node_feeds_each_port_by_its_namesake() {
    use Presence::{Optional, Required};
    let inputs = ports(&[("test", "frame", Optional), ("train", "frame", Required)]);
    assert_eq!(wired(behind(inputs, vec![whole(None, 1)])), ["test<-split.test", "train<-split.train"]);
}

#[test]
fn a_port_without_a_namesake_takes_the_only_output() {
    let data = ports(&[("data", "frame", Presence::Required)]);
    assert_eq!(wired(behind(data, vec![whole(None, 0)])), ["data<-read.frame"]);
}

#[test]
fn the_only_output_goes_to_the_first_required_port_and_never_to_a_second() {
    use Presence::{Optional, Required};
    let inputs = ports(&[("extra", "frame", Optional), ("left", "frame", Required), ("right", "frame", Required)]);
    assert_eq!(texts(behind(inputs, vec![whole(None, 0)])), ["input `right` of `use` is missing"]);
    let inputs = ports(&[("extra", "frame", Optional), ("left", "frame", Required)]);
    assert_eq!(wired(behind(inputs, vec![whole(None, 0)])), ["left<-read.frame"]);
}

#[test]
fn the_only_output_goes_to_its_namesake_before_any_other_port() {
    use Presence::{Optional, Required};
    assert_eq!(texts(behind(evaluate(), vec![whole(None, 2)])), ["input `data` of `use` is missing"]);
    let inputs = ports(&[("first", "frame", Optional), ("frame", "frame", Required)]);
    assert_eq!(wired(behind(inputs, vec![whole(None, 0)])), ["frame<-read.frame"]);
}

#[test]
fn an_optional_port_is_fed_by_its_namesake_alone() {
    let inputs = || ports(&[("train", "frame", Presence::Optional)]);
    assert_eq!(texts(behind(inputs(), vec![whole(None, 0)])), ["no output of `read` fits the inputs of `use`"]);
    assert_eq!(wired(behind(inputs(), vec![whole(None, 1)])), ["train<-split.train"]);
    assert_eq!(wired(behind(inputs(), vec![])), Vec::<String>::new());
}

#[test]
fn a_named_output_goes_to_its_namesake_else_to_the_first_required_port() {
    use Presence::Required;
    let inputs = ports(&[("data", "frame", Required)]);
    assert_eq!(wired(behind(inputs, vec![output(None, 1, Some("test"))])), ["data<-split.test"]);
    let inputs = ports(&[("train", "frame", Required), ("test", "frame", Required)]);
    let wires = vec![output(None, 1, Some("test")), output(Some("train"), 1, Some("train"))];
    assert_eq!(wired(behind(inputs, wires)), ["train<-split.train", "test<-split.test"]);
}

#[test]
fn a_named_port_takes_the_only_output_whatever_its_name() {
    let wires = vec![whole(Some("model"), 2), whole(Some("data"), 0), output(Some("schema"), 1, Some("test"))];
    assert_eq!(wired(behind(evaluate(), wires)), ["data<-read.frame", "model<-train.model", "schema<-split.test"]);
}

#[test]
fn a_gather_goes_to_the_port_that_collects_and_in_the_order_of_labels() {
    use Presence::{Gathered, Required};
    let inputs = ports(&[("data", "frame", Required), ("parts", "frame", Gathered)]);
    let again = kind("again", none(), &[("frame", "frame")]);
    let wires = vec![gather(None, &[("2", 0), ("1", 1), ("3", 0)]), whole(Some("data"), 0)];
    let nodes = vec![node(read(), vec![]), node(again, vec![]), node(kind("use", inputs, &[]), wires)];
    let wanted = ["data<-read.frame", "parts<-again.frame", "parts<-read.frame", "parts<-read.frame"];
    assert_eq!(wired(nodes), wanted);
}

#[test]
fn a_file_goes_to_the_first_required_port() {
    use Presence::{Optional, Required};
    let inputs = ports(&[("extra", "frame", Optional), ("left", "frame", Required)]);
    assert_eq!(wired(behind(inputs, vec![file(None, "a.csv")])), ["left<-a.csv"]);
}

#[test]
fn named_inputs_come_in_the_order_of_their_names() {
    let tables = || InputPorts::Named { type_name: "frame".into() };
    let wires = vec![whole(Some("b"), 0), output(Some("a"), 1, Some("test"))];
    assert_eq!(wired(behind(tables(), wires)), ["a<-split.test", "b<-read.frame"]);
    assert_eq!(wired(behind(tables(), vec![whole(None, 0)])), ["input<-read.frame"]);
}

#[test]
fn an_entry_of_an_output_may_be_of_any_type() {
    let inputs = ports(&[("script", "file", Presence::Required)]);
    assert_eq!(wired(behind(inputs, vec![entry("script", 0, "run.sh")])), ["script<-read.frame"]);
}

#[test]
fn the_closure_of_a_node_is_all_that_it_needs() {
    let inputs = ports(&[("data", "frame", Presence::Required)]);
    let graph = Graph::new(behind(inputs, vec![whole(None, 0)])).unwrap_or_else(|errors| panic!("{errors:?}"));
    assert_eq!(graph.closure(&[NodeId(3)]), [true, false, false, true]);
    assert_eq!(graph.closure(&[]), [false; 4]);
    assert_eq!((graph.consumers(NodeId(0)), graph.producers(NodeId(3))), (vec![NodeId(3)], vec![NodeId(0)]));
    let at = |id| graph.order().iter().position(|other| *other == id);
    assert!(at(NodeId(0)) < at(NodeId(3)));
}
