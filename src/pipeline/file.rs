//! `PipelineFile`: what was written, checked for shape alone: which tables and keys there are.
//!
//! It does not know what a kind's keys mean, and resolves no name. All errors of shape are collected.

use std::collections::BTreeMap;

use headwater_engine::{Capacities, Request};

use crate::error::{Diagnostic, nearest};
use crate::pipeline::resources;
use crate::pipeline::value::{Datum, Key, Span, Value};

/// The tables of a pipeline file.
#[derive(Debug, Clone)]
pub struct PipelineFile {
    pub name: String,
    /// Whether commands are hermetic that do not say it themselves.
    pub hermetic: bool,
    pub params: Vec<(Key, Value)>,
    /// The axes as written: a list, a range, a glob, or labelled tables.
    pub matrix: Vec<(Key, Value)>,
    pub exclude: Vec<Value>,
    pub variants: Vec<(Key, Vec<(Key, Value)>)>,
    pub stages: Vec<StageDeclaration>,
    /// Where each stage stands among the stages.
    positions: BTreeMap<String, usize>,
    pub store: StoreDeclaration,
    /// What there is for stages that say what they take up.
    pub resources: Capacities,
}

/// `[store]`.
#[derive(Debug, Clone, Default)]
pub struct StoreDeclaration {
    pub path: Option<String>,
    /// Whether the files that stages read are put into the store too.
    pub keep_sources: bool,
}

/// One `[stages.NAME]`.
#[derive(Debug, Clone)]
pub struct StageDeclaration {
    pub name: Key,
    pub work: WorkDeclaration,
    pub wires: Vec<WireDeclaration>,
    /// What it takes up while it runs.
    pub request: Request,
    /// Where that stands, if it is declared.
    pub request_span: Option<Span>,
    /// How often it is tried again when it fails.
    pub retries: u32,
    /// The keys that are the kind's own business.
    pub config: Value,
}

/// `uses` or `run`.
#[derive(Debug, Clone)]
pub enum WorkDeclaration {
    Uses(String, Span),
    Run(Value),
}

/// One connection as written.
#[derive(Debug, Clone, PartialEq)]
pub struct WireDeclaration {
    pub port: Option<String>,
    pub stage: String,
    pub output: Option<String>,
    pub gather: Option<Gather>,
    pub span: Span,
    /// Where the port is named; the same as `span` if it is not.
    pub port_span: Span,
}

/// What a `gather` collapses.
#[derive(Debug, Clone, PartialEq)]
pub enum Gather {
    AllAxes,
    /// `over = ["fold"]`.
    Over(Vec<(String, Span)>),
}

const SECTIONS: [&str; 7] = ["pipeline", "params", "matrix", "variants", "stages", "store", "resources"];

impl PipelineFile {
    /// Reads the tables of a file.
    ///
    /// # Errors
    /// Everything whose shape is wrong.
    pub fn read(root: &Value) -> Result<Self, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        for (key, _) in root.as_table().unwrap_or_default() {
            if !SECTIONS.contains(&key.name.as_str()) {
                let unknown = Diagnostic::new(format!("unknown section `{}`", key.name));
                errors.push(unknown.at(key.span.clone(), "").suggest(&key.name, SECTIONS, "sections"));
            }
        }
        let mut section = |name: &str| table(root.get(name), name, &mut errors);
        let (params, matrix) = (section("params"), section("matrix"));
        let (variants, stages) = (section("variants"), section("stages"));
        let (pipeline, store, resources) = (section("pipeline"), section("store"), section("resources"));
        let (exclude, matrix): (Vec<_>, Vec<_>) = matrix.into_iter().partition(|(key, _)| key.name == "exclude");
        let (name, hermetic) = read_pipeline(&pipeline, &mut errors);
        let exclude = exclude.into_iter().flat_map(|(_, value)| exclusions(value, &mut errors)).collect();
        let variants = variants.into_iter().map(|(key, value)| read_variant(key, &value, &mut errors)).collect();
        let stages = stages.into_iter().filter_map(|(key, value)| read_stage(key, value, &mut errors));
        let stages: Vec<StageDeclaration> = stages.collect();
        let positions = stages.iter().enumerate().map(|(at, stage)| (stage.name.name.clone(), at)).collect();
        let store = read_store(&store, &mut errors);
        let resources = resources::capacities(&resources).unwrap_or_else(|wrong| {
            errors.extend(wrong);
            Capacities::default()
        });
        let file = Self { name, hermetic, params, matrix, exclude, variants, stages, positions, store, resources };
        if file.stages.is_empty() && errors.is_empty() {
            errors.push(Diagnostic::new("there are no stages").hint("add one: [stages.NAME] with `uses` or `run`"));
        }
        if errors.is_empty() { Ok(file) } else { Err(errors) }
    }

    /// Where the stage of this name stands among the stages.
    pub fn position(&self, stage: &str) -> Option<usize> {
        self.positions.get(stage).copied()
    }
}

fn table(value: Option<&Value>, name: &str, errors: &mut Vec<Diagnostic>) -> Vec<(Key, Value)> {
    let Some(value) = value else { return Vec::new() };
    if value.as_table().is_none() {
        let text = format!("`{name}` is {}, expected a table", value.describe());
        errors.push(Diagnostic::new(text).at(value.span.clone(), "").hint(format!("write: [{name}]")));
    }
    value.as_table().unwrap_or_default().to_vec()
}

/// Its name, and whether its commands are hermetic.
fn read_pipeline(entries: &[(Key, Value)], errors: &mut Vec<Diagnostic>) -> (String, bool) {
    let (mut name, mut hermetic) = ("pipeline".to_owned(), true);
    for (key, value) in entries {
        match (key.name.as_str(), &value.datum) {
            ("name", Datum::Text(text)) => name.clone_from(text),
            ("name", _) => errors.push(expected(value, "name", "a string")),
            ("hermetic", Datum::Bool(declared)) => hermetic = *declared,
            ("hermetic", _) => errors.push(expected(value, "hermetic", "true or false")),
            _ => errors.push(unknown_key(key, "pipeline", &["name", "hermetic"])),
        }
    }
    (name, hermetic)
}

fn read_store(entries: &[(Key, Value)], errors: &mut Vec<Diagnostic>) -> StoreDeclaration {
    let mut store = StoreDeclaration::default();
    for (key, value) in entries {
        match (key.name.as_str(), &value.datum) {
            ("path", Datum::Text(path)) => store.path = Some(path.clone()),
            ("path", _) => errors.push(expected(value, "path", "a string")),
            ("keep_sources", Datum::Bool(keep)) => store.keep_sources = *keep,
            ("keep_sources", _) => errors.push(expected(value, "keep_sources", "true or false")),
            _ => errors.push(unknown_key(key, "store", &["path", "keep_sources"])),
        }
    }
    store
}

fn unknown_key(key: &Key, section: &str, names: &[&str]) -> Diagnostic {
    let unknown = Diagnostic::new(format!("unknown key `{}` in [{section}]", key.name));
    unknown.at(key.span.clone(), "").suggest(&key.name, names.iter().copied(), "keys")
}

fn exclusions(value: Value, errors: &mut Vec<Diagnostic>) -> Vec<Value> {
    let span = value.span.clone();
    match value.datum {
        Datum::List(values) if values.iter().all(|value| value.as_table().is_some()) => values,
        _ => {
            let text = "`exclude` takes an array of tables, each an assignment of axes";
            errors.push(Diagnostic::new(text).at(span, "").hint("write: exclude = [{ model = \"forest\", fold = 4 }]"));
            Vec::new()
        }
    }
}

fn read_variant(key: Key, value: &Value, errors: &mut Vec<Diagnostic>) -> (Key, Vec<(Key, Value)>) {
    let settings = table(Some(value), &format!("variants.{}", key.name), errors);
    (key, settings)
}

/// Stage names are part of node names and of `stage.output`, so they are plain words.
fn check_name(key: &Key, errors: &mut Vec<Diagnostic>) {
    let plain = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
    if key.name.is_empty() || !key.name.chars().all(plain) {
        let text = format!("`{}` is no name for a stage", key.name);
        errors.push(Diagnostic::new(text).at(key.span.clone(), "").hint("use letters, digits, `_` and `-`"));
    }
}

fn read_stage(name: Key, value: Value, errors: &mut Vec<Diagnostic>) -> Option<StageDeclaration> {
    check_name(&name, errors);
    let span = value.span.clone();
    let entries = table(Some(&value), &format!("stages.{}", name.name), errors);
    value.as_table()?;
    let (mut request, mut request_span, mut retries) = (Request::default(), None, 0);
    let (mut config, mut wires, mut works, mut over) = (Vec::new(), Vec::new(), Vec::new(), None);
    for (key, value) in entries {
        match key.name.as_str() {
            "uses" => {
                if value.as_text().is_none() {
                    errors.push(expected(&value, "uses", "the name of a kind"));
                }
                let kind = value.as_text().unwrap_or_default().to_owned();
                works.push(WorkDeclaration::Uses(kind, value.span.clone()));
            }
            "run" => works.push(WorkDeclaration::Run(value)),
            "input" => wires.extend(read_wire(None, &value, false, errors)),
            "inputs" => wires.extend(read_wires(&value, errors)),
            "gather" => wires.extend(read_wire(None, &value, true, errors)),
            "resources" => match resources::request(&value) {
                Ok(read) => (request, request_span) = (read, Some(value.span)),
                Err(wrong) => errors.extend(wrong),
            },
            "retries" => match resources::retries(&value) {
                Ok(read) => retries = read,
                Err(wrong) => errors.push(wrong),
            },
            "over" => over = Some((key.span.clone(), read_over(&value, errors))),
            _ => config.push((key, value)),
        }
    }
    if let Some((place, axes)) = over {
        set_over(&name, place, axes, &mut wires, errors);
    }
    let config = Value { datum: Datum::Table(config), span };
    match (works.pop(), works.pop()) {
        (Some(work), None) => Some(StageDeclaration { name, work, wires, request, request_span, retries, config }),
        (None, _) => {
            errors.push(without_work(name, &config));
            None
        }
        (Some(_), Some(_)) => {
            let text = format!("stage `{}` has both `uses` and `run`", name.name);
            errors.push(Diagnostic::new(text).at(name.span, "").hint("keep one of the two"));
            None
        }
    }
}

fn without_work(stage: Key, config: &Value) -> Diagnostic {
    let text = format!("stage `{}` has neither `uses` nor `run`", stage.name);
    let misspelt =
        config.as_table().into_iter().flatten().find_map(|(key, _)| Some((key, nearest(&key.name, ["uses", "run"])?)));
    match misspelt {
        Some((key, meant)) => Diagnostic::new(text).at(key.span.clone(), "").hint(format!("did you mean `{meant}`?")),
        None => Diagnostic::new(text).at(stage.span, "").hint("`uses` names a kind, `run` a command"),
    }
}

fn expected(value: &Value, key: &str, what: &str) -> Diagnostic {
    Diagnostic::new(format!("`{key}` is {}, expected {what}", value.describe())).at(value.span.clone(), "")
}

fn read_wires(value: &Value, errors: &mut Vec<Diagnostic>) -> Vec<WireDeclaration> {
    let Some(entries) = value.as_table() else {
        let hint = "write: inputs = { port = \"stage.output\" }; for one input: input = \"stage\"";
        errors.push(expected(value, "inputs", "a table of ports").hint(hint));
        return Vec::new();
    };
    entries.iter().filter_map(|(port, value)| read_wire(Some(port), value, false, errors)).collect()
}

fn read_wire(port: Option<&Key>, value: &Value, gather: bool, errors: &mut Vec<Diagnostic>) -> Option<WireDeclaration> {
    let key = port.map_or(if gather { "gather" } else { "input" }, |port| port.name.as_str());
    let Some(text) = value.as_text() else {
        let wrong = expected(value, key, "the name of a stage, or stage.output");
        errors.push(wrong.hint(format!("write: {key} = \"STAGE\"")));
        return None;
    };
    if text.contains("${") {
        let text = format!("`{key}` names a stage and cannot hold a param");
        let hint = "name the stage alone: of its nodes each node takes those that agree with it on the axes";
        errors.push(Diagnostic::new(text).at(value.span.clone(), "").hint(hint));
        return None;
    }
    let (stage, output) = split_reference(text);
    let gather = gather.then_some(Gather::AllAxes);
    let port_span = port.map_or_else(|| value.span.clone(), |port| port.span.clone());
    let port = port.map(|port| port.name.clone());
    Some(WireDeclaration { port, stage, output, gather, span: value.span.clone(), port_span })
}

/// `stage.output` or `stage`.
pub fn split_reference(text: &str) -> (String, Option<String>) {
    match text.split_once('.') {
        Some((stage, output)) => (stage.to_owned(), Some(output.to_owned())),
        None => (text.to_owned(), None),
    }
}

fn read_over(value: &Value, errors: &mut Vec<Diagnostic>) -> Vec<(String, Span)> {
    let texts = match &value.datum {
        Datum::List(values) => {
            values.iter().map(|value| Some((value.as_text()?.to_owned(), value.span.clone()))).collect()
        }
        _ => None,
    };
    texts.unwrap_or_else(|| {
        errors.push(expected(value, "over", "an array of axis names").hint("write: over = [\"AXIS\"]"));
        Vec::new()
    })
}

fn set_over(
    name: &Key,
    place: Span,
    axes: Vec<(String, Span)>,
    wires: &mut [WireDeclaration],
    errors: &mut Vec<Diagnostic>,
) {
    let mut gathers = wires.iter_mut().filter_map(|wire| wire.gather.as_mut()).peekable();
    if gathers.peek().is_none() {
        let text = format!("stage `{}` has `over` without `gather`", name.name);
        errors.push(
            Diagnostic::new(text).at(place, "").hint("`over` says which axes a gather collapses: gather = \"STAGE\""),
        );
    }
    for gather in gathers {
        *gather = Gather::Over(axes.clone());
    }
}
