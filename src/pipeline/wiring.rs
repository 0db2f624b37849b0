//! What the engine finds wrong with the wires, in the words of the pipeline file: the place, and what to write.
//!
//! The engine checks every node; here what it finds is told once a stage. This file resolves nothing itself.

use std::collections::BTreeSet;

use headwater_engine::{InputPorts, Node, NodeId, Presence, Stage, WiringError};

use crate::error::Diagnostic;
use crate::pipeline::file::{PipelineFile, StageDeclaration, WireDeclaration, WorkDeclaration};
use crate::pipeline::value::Span;

/// More outputs than these are not listed as what could be wired.
const OFFERS: usize = 8;

/// Where a wire is declared.
#[derive(Debug, Clone)]
pub struct Place {
    source: Span,
    port: Span,
}

impl Place {
    /// A declared wire's.
    pub fn of(wire: &WireDeclaration) -> Self {
        Self { source: wire.span.clone(), port: wire.port_span.clone() }
    }

    /// One place for both ends.
    pub fn at(span: Span) -> Self {
        Self { source: span.clone(), port: span }
    }
}

/// What is kept of the nodes while the engine wires them.
pub struct Facts<'a> {
    file: &'a PipelineFile,
    nodes: Vec<Wired>,
    /// `stage.output` and its type, of every stage.
    outputs: Vec<(String, String)>,
}

struct Wired {
    /// Its index in the file.
    stage: usize,
    work: Stage,
    places: Vec<Place>,
}

impl<'a> Facts<'a> {
    /// Of nodes, each with the index of its stage and the places of its wires.
    pub fn of(
        file: &'a PipelineFile,
        nodes: &[Node],
        stages: impl Iterator<Item = usize>,
        places: Vec<Vec<Place>>,
    ) -> Self {
        let wired =
            |((node, stage), places): ((&Node, usize), Vec<Place>)| Wired { stage, work: node.stage.clone(), places };
        let (mut outputs, mut seen) = (Vec::new(), BTreeSet::new());
        for node in nodes {
            let one = node.stage.outputs.len() == 1;
            for output in &node.stage.outputs {
                let name = if one { node.stage_name.clone() } else { format!("{}.{}", node.stage_name, output.name) };
                let offer = (name, output.type_name.clone());
                if outputs.last() != Some(&offer) && seen.insert(offer.clone()) {
                    outputs.push(offer);
                }
            }
        }
        Self { file, nodes: nodes.iter().zip(stages).zip(places).map(wired).collect(), outputs }
    }

    /// The engine's errors with places and hints, one for all nodes of a stage.
    pub fn diagnostics(&self, errors: Vec<WiringError>) -> Vec<Diagnostic> {
        let mut diagnostics: Vec<Diagnostic> = Vec::new();
        for error in errors {
            let diagnostic = self.diagnostic(&error);
            if !diagnostics.contains(&diagnostic) {
                diagnostics.push(diagnostic);
            }
        }
        diagnostics
    }

    fn diagnostic(&self, error: &WiringError) -> Diagnostic {
        match error {
            WiringError::UnknownOutput { output, available, .. } => {
                let text = self.at_source(error, error.to_string());
                text.suggest(output, available.iter().map(String::as_str), "outputs")
            }
            WiringError::UnknownPort { port, available, .. } => {
                let text = self.at_port(error, format!("stage `{}` has no input `{port}`", self.name(error)));
                text.suggest(port, available.iter().map(String::as_str), "inputs")
            }
            WiringError::Ambiguous { from, port, available, .. } => self.several(error, from, port, available),
            WiringError::NothingFits { from, available, ports, .. } => self.nothing_fits(error, from, available, ports),
            WiringError::TypeMismatch { port, from, found, expected, .. } => {
                let text = format!(
                    "input `{port}` of stage `{}` takes {}, but `{from}` is {}",
                    self.name(error),
                    one(expected),
                    one(found)
                );
                self.with_offers(self.at_source(error, text), error, expected)
            }
            WiringError::MissingInput { port, type_name, .. } => self.missing(error, port, type_name),
            WiringError::NoInputs { .. } => {
                let text = format!("stage `{}` needs at least one input", self.name(error));
                let text =
                    self.at_stage(error, text).hint("write: input = \"STAGE\", or inputs = { NAME = \"STAGE\" }");
                self.with_offers(text, error, "frame")
            }
            WiringError::NeedsGather { port, .. } => {
                let text = format!("input `{port}` of stage `{}` collects several nodes", self.name(error));
                self.at_source(error, text).hint(format!("write: gather = {}", self.reference(error)))
            }
            WiringError::GatherNotTaken { port, .. } => {
                let text = format!("input `{port}` of stage `{}` takes one output, not a `gather`", self.name(error));
                self.at_source(error, text).hint(format!("write: input = {}", self.reference(error)))
            }
            WiringError::WiredTwice { port, .. } => {
                let text = format!("input `{port}` of stage `{}` is wired twice", self.name(error));
                self.at_port(error, text).hint("wire each input once")
            }
            WiringError::Cycle { nodes } => self.cycle(nodes),
        }
    }

    fn several(&self, error: &WiringError, from: &str, port: &str, available: &[String]) -> Diagnostic {
        let is_command = self.stage(error).is_some_and(|stage| matches!(stage.work, WorkDeclaration::Run(_)));
        let text = match is_command {
            true => format!("stage `{from}` has several outputs"),
            false => format!("stage `{from}` has several outputs, and none is named `{port}`"),
        };
        self.at_source(error, text).hint(format!("name one: {}", references(from, available)))
    }

    fn nothing_fits(&self, error: &WiringError, from: &str, available: &[String], ports: &[String]) -> Diagnostic {
        let collects = self.wired(error).is_some_and(|wired| gathers(&wired.work));
        match ports {
            _ if collects => self
                .at_source(error, format!("stage `{}` collects several nodes", self.name(error)))
                .hint(format!("write: gather = {}", self.reference(error))),
            [port] => self.several(error, from, port, available),
            _ => self
                .at_source(error, format!("no output of `{from}` is named as an input of `{}`", self.name(error)))
                .hint(format!("the outputs are: {}", references(from, available)))
                .hint(format!("the inputs are: {}", ports.join(", "))),
        }
    }

    fn missing(&self, error: &WiringError, port: &str, type_name: &str) -> Diagnostic {
        let text =
            self.at_stage(error, format!("stage `{}` lacks its input `{port}`, {}", self.name(error), one(type_name)));
        let ports = self.wired(error).map_or(0, |wired| required(&wired.work));
        let text = match (self.wired(error).is_some_and(|wired| gathers(&wired.work)), ports) {
            (true, _) => text.hint("write: gather = \"STAGE\""),
            (false, 1) => text.hint("write: input = \"STAGE\""),
            (false, _) => text.hint(format!("write: inputs = {{ {port} = \"STAGE.OUTPUT\" }}")),
        };
        self.with_offers(text, error, type_name)
    }

    /// Lists what could be wired instead.
    fn with_offers(&self, text: Diagnostic, error: &WiringError, type_name: &str) -> Diagnostic {
        let own = self.name(error);
        let others =
            self.outputs.iter().filter(|(name, found)| found == type_name && name.split('.').next() != Some(own));
        let names: Vec<&str> = others.map(|(name, _)| name.as_str()).collect();
        match names.len() {
            0 => text.hint(format!("no other stage gives {}", one(type_name))),
            1..=OFFERS => text.hint(format!("these give {}: {}", one(type_name), names.join(", "))),
            _ => text,
        }
    }

    fn cycle(&self, nodes: &[NodeId]) -> Diagnostic {
        let stages: BTreeSet<usize> = nodes.iter().map(|id| self.nodes[id.0].stage).collect();
        let names: Vec<&str> = stages.iter().map(|at| self.file.stages[*at].name.name.as_str()).collect();
        let text = match names.as_slice() {
            [one] => format!("stage `{one}` depends on a file that it writes"),
            several => format!("the stages form a cycle through their files: {}", several.join(", ")),
        };
        let first = stages.first().map(|at| self.file.stages[*at].name.span.clone()).unwrap_or_default();
        Diagnostic::new(text)
            .at(first, "")
            .hint("a command cannot depend, directly or through others, on a file that it writes")
    }

    fn wired(&self, error: &WiringError) -> Option<&Wired> {
        error.node().map(|id| &self.nodes[id.0])
    }

    fn stage(&self, error: &WiringError) -> Option<&StageDeclaration> {
        self.wired(error).map(|wired| &self.file.stages[wired.stage])
    }

    fn name(&self, error: &WiringError) -> &str {
        self.stage(error).map_or("", |stage| stage.name.name.as_str())
    }

    /// The source of the wire as it is written, quotes included.
    fn reference(&self, error: &WiringError) -> String {
        let wire = self.stage(error).zip(error.wire()).and_then(|(stage, wire)| stage.wires.get(wire));
        wire.map_or("\"STAGE\"".into(), |wire| match &wire.output {
            Some(output) => format!("\"{}.{output}\"", wire.stage),
            None => format!("\"{}\"", wire.stage),
        })
    }

    fn place(&self, error: &WiringError) -> Option<&Place> {
        self.wired(error).zip(error.wire()).map(|(wired, wire)| &wired.places[wire])
    }

    fn at_source(&self, error: &WiringError, text: String) -> Diagnostic {
        let text = Diagnostic::new(text);
        self.place(error).map_or(text.clone(), |place| text.at(place.source.clone(), ""))
    }

    fn at_port(&self, error: &WiringError, text: String) -> Diagnostic {
        let text = Diagnostic::new(text);
        self.place(error).map_or(text.clone(), |place| text.at(place.port.clone(), ""))
    }

    fn at_stage(&self, error: &WiringError, text: String) -> Diagnostic {
        let text = Diagnostic::new(text);
        self.stage(error).map_or(text.clone(), |stage| text.at(stage.name.span.clone(), ""))
    }
}

fn gathers(stage: &Stage) -> bool {
    match &stage.inputs {
        InputPorts::Fixed(ports) => ports.iter().any(|port| port.presence == Presence::Gathered),
        InputPorts::Named { .. } => false,
    }
}

fn required(stage: &Stage) -> usize {
    match &stage.inputs {
        InputPorts::Fixed(ports) => ports.iter().filter(|port| port.presence != Presence::Optional).count(),
        InputPorts::Named { .. } => 1,
    }
}

/// A type with its article.
fn one(type_name: &str) -> String {
    match type_name {
        "metrics" => "metrics".into(),
        "executable" | "artifact" => format!("an {type_name}"),
        _ => format!("a {type_name}"),
    }
}

fn references(stage: &str, outputs: &[String]) -> String {
    let names: Vec<String> = outputs.iter().map(|output| format!("{stage}.{output}")).collect();
    names.join(", ")
}
