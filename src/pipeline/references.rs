//! What stages name: the axes that follow from it, and names that are nowhere declared.
//!
//! A stage's axes are those that it mentions plus those of its inputs, less those that a gather collapses. It knows no node
//! and no value of a param.

use std::collections::BTreeSet;

use crate::error::Diagnostic;
use crate::pipeline::file::{
    Gather, PipelineFile, StageDeclaration, WireDeclaration, WorkDeclaration, split_reference,
};
use crate::pipeline::interpolate::mentions;
use crate::pipeline::value::{Datum, Span, Value};
use crate::pipeline::variants::Variants;

/// The axes of each stage.
pub struct StageAxes {
    pub axes: Vec<Vec<String>>,
}

impl StageAxes {
    /// Of every stage of a file.
    ///
    /// # Errors
    /// Every name that is nowhere declared, or a cycle.
    pub fn find(file: &PipelineFile, variants: &Variants, source: &str) -> Result<Self, Vec<Diagnostic>> {
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
    let wired = stage.wires.iter().filter_map(|wire| Some((file.position(&wire.stage)?, wire.gather.as_ref())));
    let mounted = mounts(stage).into_iter().filter_map(|wire| Some((file.position(&wire.stage)?, None)));
    wired.chain(mounted).collect()
}

/// The `{ from, as }` deps of a command.
fn mounts(stage: &StageDeclaration) -> Vec<WireDeclaration> {
    let Some(Datum::List(deps)) = stage.config.get("deps").map(|deps| &deps.datum) else { return Vec::new() };
    let mount = |dep: &Value| {
        let (from, path) = (dep.get("from")?, dep.get("as")?);
        let (stage, output) = split_reference(from.as_text()?);
        let port = path.as_text().map(str::to_owned);
        let (span, port_span) = (from.span.clone(), path.span.clone());
        Some(WireDeclaration { port, stage, output, gather: None, span, port_span })
    };
    deps.iter().filter_map(mount).collect()
}

/// The params that a stage mentions, with where.
pub fn stage_mentions(stage: &StageDeclaration, source: &str) -> Vec<(String, Span)> {
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
    if file.position(&wire.stage).is_some() {
        return None;
    }
    let stages = file.stages.iter().map(|stage| stage.name.name.as_str());
    let unknown = Diagnostic::new(format!("there is no stage `{}`", wire.stage)).at(wire.span.clone(), "");
    Some(unknown.suggest(&wire.stage, stages, "stages"))
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

/// The params that a stage mentions and that are nowhere declared.
pub fn unknown_params(stage: &StageDeclaration, variants: &Variants, source: &str) -> Vec<Diagnostic> {
    let params = &variants.all[0].choices;
    let shell = match &stage.work {
        WorkDeclaration::Run(run) if run.as_text().is_some() => run.span.clone(),
        _ => Span::default(),
    };
    let unknown = |(name, span): (String, Span)| {
        if name.is_empty() {
            return Diagnostic::new("`${}` names no param").at(span, "").hint("write: ${NAME}");
        }
        let text = Diagnostic::new(format!("unknown param `{name}`")).at(span.clone(), "");
        let text = text.suggest(&name, params.keys().map(String::as_str), "params");
        if !shell.contains(&span.start) {
            return text;
        }
        text.hint(format!("for a variable of the shell write `$${{{name}}}`"))
    };
    let mentioned = stage_mentions(stage, source).into_iter();
    mentioned.filter(|(name, _)| !params.contains_key(name)).map(unknown).collect()
}
