//! pipeline.toml -> the engine's graph; the only module that knows that format.
//!
//! | file | |
//! |---|---|
//! | `value` | what stands in the file, with places, and a serde deserializer over it |
//! | `blame` | what is wrong with a value, and the search for the text to underline |
//! | `duration` | `"10m"` |
//! | `file` | the tables of the file, checked for shape |
//! | `interpolate` | `${param}` |
//! | `variants` | params, matrix and named variants -> variants and axes |
//! | `resources` | what stages take up, and what there is |
//! | `references` | what stages name, and the axes that follow from it |
//! | `excerpt` | the part of the file that one node needs |
//! | `expand` | stages and variants -> nodes |
//! | `outs` | which node writes which file |
//! | `edges` | which node reads what |
//! | `wiring` | what the engine finds wrong with the wires, in the words of the file |
//!
//! Invariant: all errors of one pass are reported together, each with its place.

pub mod blame;
pub mod duration;
mod edges;
mod excerpt;
pub mod expand;
pub mod file;
pub mod interpolate;
mod outs;
mod references;
pub mod resources;
pub mod value;
pub mod variants;
pub mod wiring;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_engine::{Graph, NodeId, Options, TooMuch, WireFrom, too_much};

use crate::error::{CommandError, Diagnostic, line_of, nearest};
use crate::pipeline::edges::within_project;
use crate::pipeline::excerpt::{Excerpt, Sections};
use crate::pipeline::expand::{NodeInfo, expand};
use crate::pipeline::file::PipelineFile;
use crate::pipeline::value::{Key, Value};
use crate::pipeline::variants::Variants;
use crate::process::command::{Answers, LateKey};
use crate::project::{Project, passed_over};

/// A loaded pipeline.
pub struct Pipeline {
    pub path: PathBuf,
    pub source: String,
    pub file: PipelineFile,
    pub project: Arc<Project>,
    pub graph: Graph,
    pub nodes: Vec<NodeInfo>,
    pub variants: Variants,
    /// Whether stages were not loaded, as what is asked for does not need them.
    is_part: bool,
}

impl Pipeline {
    /// Loads a file, with the settings of the command line laid over its params.
    ///
    /// # Errors
    /// Everything that is wrong with the file, or that it cannot be read.
    pub fn load(path: &Path, settings: &[String]) -> Result<Self, CommandError> {
        let source = source(path)?;
        Self::read(path, source, settings)
    }

    /// Loads what one node needs, as a word of the command line names it; all, if that part cannot be told or is wrong.
    ///
    /// # Errors
    /// As [`Pipeline::load`].
    pub fn load_for(word: &str, path: &Path, settings: &[String]) -> Result<Self, CommandError> {
        let source = source(path)?;
        let sections = Sections::of(&source);
        let part = sections.as_ref().and_then(|sections| {
            let excerpt = sections.needed_by(&parse_node(word).0)?;
            let value = Value::parse(&excerpt.text()).ok()?.moved(&|at| excerpt.place(at));
            let mut part = Self::of(path, source.clone(), &value, settings).ok()?;
            part.is_part = true;
            part.has_all_of(&excerpt).then_some(part)
        });
        if let Some(part) = part {
            return Ok(part);
        }
        Self::read(path, source, settings)
    }

    /// Whether no node reads what a stage makes that was left out, and no axis depends on that.
    fn has_all_of(&self, excerpt: &Excerpt<'_>) -> bool {
        let wires = self.graph.ids().flat_map(|id| &self.graph.node(id).wires);
        let files = wires.filter_map(|wire| match &wire.from {
            WireFrom::File { path, .. } => Some(path),
            WireFrom::Node { .. } | WireFrom::Gather { .. } => None,
        });
        let absent = self.nodes.iter().flat_map(|node| &node.absent);
        !self.has_globs()
            && !files.chain(absent).any(|path| excerpt.may_miss(&within_project(path, &self.project.root)))
    }

    fn read(path: &Path, source: String, settings: &[String]) -> Result<Self, CommandError> {
        match Value::parse(&source) {
            Ok(value) => Self::of(path, source, &value, settings),
            Err(diagnostics) => Err(CommandError::Pipeline { path: path.to_owned(), source_text: source, diagnostics }),
        }
    }

    /// The pipeline that a value says, which stands in the source.
    fn of(path: &Path, source: String, value: &Value, settings: &[String]) -> Result<Self, CommandError> {
        let project = Arc::new(Project::of(path).map_err(CommandError::failed)?);
        let settings = settings.iter().map(|text| setting(text)).collect::<Result<Vec<_>, _>>()?;
        let wrong = |diagnostics: Vec<Diagnostic>| CommandError::Pipeline {
            path: path.to_owned(),
            source_text: source.clone(),
            diagnostics,
        };
        let file = PipelineFile::read(value).map_err(wrong)?;
        let store = project.store_path(file.store.path.as_deref());
        project.workshop.hide(vec![project.root.clone(), project.state.clone(), store]);
        let variants = Variants::expand(&file, &settings, &project.root).map_err(wrong)?;
        let expanded = expand(&file, &variants, &source, &project).map_err(wrong)?;
        let (graph, nodes) = (expanded.graph, expanded.nodes);
        Ok(Self { path: path.to_owned(), source, file, project, graph, nodes, variants, is_part: false })
    }

    /// Whether there is a node of this name, or its stage was left out.
    pub fn may_have(&self, node: &str) -> bool {
        let (stage, _) = parse_node(node);
        let is_loaded = || self.file.stages.iter().any(|loaded| loaded.name.name == stage);
        self.graph.find(node).is_some() || (self.is_part && !is_loaded() && excerpt::has_stage(&self.source, &stage))
    }

    /// Where the store is.
    pub fn store_path(&self) -> PathBuf {
        self.project.store_path(self.file.store.path.as_deref())
    }

    /// Whether what its axes are depends on which files there are.
    pub fn has_globs(&self) -> bool {
        let is_glob = |(_, value): &(Key, Value)| value.get("glob").is_some();
        let variants = self.file.variants.iter().flat_map(|(_, settings)| settings);
        self.file.matrix.iter().chain(&self.file.params).chain(variants).any(is_glob)
    }

    /// What keys are made from beside the file and has to be asked for: the versions of programs, and the hashes of
    /// secrets. Loading leaves it out, as most commands need no key. `None` if there is no such thing.
    ///
    /// # Errors
    /// If the key of secrets cannot be read or made.
    pub fn answers(&self) -> Result<Option<Answers>, CommandError> {
        let late = || self.nodes.iter().map(|node| &node.late);
        if late().all(|key| *key == LateKey::default()) {
            return Ok(None);
        }
        let answers = Answers::to(late(), &self.project, &self.store_path());
        answers.map(Some).map_err(CommandError::failed)
    }

    /// The graph with all that keys are made from.
    pub fn keyed_graph(&self, answers: &Answers) -> Graph {
        let with_answers = |(id, key): (NodeId, &LateKey)| {
            let mut node = self.graph.node(id).clone();
            node.stage.config.extend(answers.lines(key));
            node
        };
        let late = self.nodes.iter().map(|node| &node.late);
        let nodes = self.graph.ids().zip(late).map(with_answers).collect();
        Graph::new(nodes).expect("the wires fitted when the file was loaded")
    }

    /// The nodes that a word of the command line names: a stage, or a stage with some of its axes. No word names all.
    ///
    /// # Errors
    /// If a word names nothing; the nearest name is suggested.
    pub fn targets(&self, words: &[String]) -> Result<Vec<NodeId>, CommandError> {
        if words.is_empty() {
            return Ok(self.graph.ids().collect());
        }
        let mut targets = Vec::new();
        for word in words {
            targets.extend(self.matching(word)?);
        }
        targets.sort_unstable();
        targets.dedup();
        Ok(targets)
    }

    /// Whether there is what the targets take up.
    ///
    /// # Errors
    /// Every stage that asks for more.
    pub fn check_resources(&self, options: &Options) -> Result<(), CommandError> {
        let mut stages = BTreeSet::new();
        let excesses = too_much(&self.graph, options).into_iter();
        let firsts = excesses.filter(|one| stages.insert(self.graph.node(one.node).stage_name.as_str()));
        let diagnostics: Vec<Diagnostic> = firsts
            .filter_map(|TooMuch { node, excess, .. }| {
                let stage = &self.file.stages[self.file.position(&self.graph.node(node).stage_name)?];
                Some(resources::excessive(stage, &excess))
            })
            .collect();
        match diagnostics.is_empty() {
            true => Ok(()),
            false => {
                let (path, source_text) = (self.path.clone(), self.source.clone());
                Err(CommandError::Pipeline { path, source_text, diagnostics })
            }
        }
    }

    /// The one node that a word names.
    ///
    /// # Errors
    /// If it names none, or several, which are listed.
    pub fn one_node(&self, word: &str) -> Result<NodeId, CommandError> {
        match self.matching(word)?.as_slice() {
            [one] => Ok(*one),
            several => {
                let names: Vec<&str> = several.iter().map(|id| self.graph.node(*id).name.as_str()).collect();
                let text = format!("`{word}` names {} nodes; choose one", names.len());
                let (stage, _) = parse_node(word);
                Err(CommandError::Usage(text, vec![shorten(&names), format!("write: {stage}[AXIS=VALUE,…]")]))
            }
        }
    }

    fn matching(&self, word: &str) -> Result<Vec<NodeId>, CommandError> {
        if let Some(id) = self.graph.find(word) {
            return Ok(vec![id]);
        }
        let (stage, wanted) = parse_node(word);
        let empty = wanted.is_empty() && bare_part(word).is_none();
        if word.contains('[') && (empty || !word.ends_with(']')) {
            let hint = "write: STAGE, or STAGE[AXIS=VALUE,…]".into();
            return Err(CommandError::Usage(format!("`{word}` names no node"), vec![hint]));
        }
        if let Some(part) = bare_part(word) {
            return Err(self.without_axis(word, &stage, part));
        }
        let agrees = |id: &NodeId| {
            let assignment = &self.nodes[id.0].assignment;
            self.graph.node(*id).stage_name == stage && wanted.iter().all(|pair| assignment.contains(pair))
        };
        let found: Vec<NodeId> = self.graph.ids().filter(agrees).collect();
        if found.is_empty() { Err(self.unknown(word, &stage)) } else { Ok(found) }
    }

    /// A label without its axis selects nothing: it must not stand for all.
    fn without_axis(&self, word: &str, stage: &str, part: &str) -> CommandError {
        let Some(first) = self.graph.ids().find(|id| self.graph.node(*id).stage_name == stage) else {
            return self.unknown(word, stage);
        };
        let axes: Vec<&str> = self.nodes[first.0].assignment.iter().map(|(axis, _)| axis.as_str()).collect();
        let mut hints = vec![match axes.is_empty() {
            true => format!("`{stage}` has no axes"),
            false => format!("the axes of `{stage}` are: {}", axes.join(", ")),
        }];
        let labels = self.graph.ids().filter(|id| self.graph.node(*id).stage_name == stage);
        let mut labels = labels.flat_map(|id| &self.nodes[id.0].assignment);
        if let Some((axis, label)) = labels.find(|(_, label)| label == part) {
            hints.push(format!("write: {stage}[{axis}={label}]"));
        }
        CommandError::Usage(format!("`{word}` names no node: `{part}` stands without its axis"), hints)
    }

    fn unknown(&self, word: &str, stage: &str) -> CommandError {
        let stages: Vec<&str> = self.file.stages.iter().map(|stage| stage.name.name.as_str()).collect();
        let nodes = self.graph.ids().map(|id| self.graph.node(id).name.as_str());
        let of_stage: Vec<&str> = nodes.filter(|name| name.split('[').next() == Some(stage)).collect();
        let mut hints = Vec::new();
        if of_stage.is_empty() {
            hints.extend(nearest(stage, stages.iter().copied()).map(|name| format!("did you mean `{name}`?")));
            hints.push(format!("the stages are: {}", stages.join(", ")));
        } else {
            hints.push(format!("its nodes are: {}", shorten(&of_stage)));
        }
        let what = if word.contains('[') { "node" } else { "stage" };
        CommandError::Usage(format!("there is no {what} `{word}`"), hints)
    }

    /// The line at which a param gets the value that a node has, if that is in the file.
    pub fn param_line(&self, id: NodeId, name: &str) -> Option<usize> {
        let label = self.nodes[id.0].assignment.iter().find(|(axis, _)| axis == name).map(|(_, label)| label.as_str());
        let own = |(key, value): &(Key, Value)| {
            // A table's label is its key on the matrix, or the name of its variant.
            let labelled =
                value.as_table().and_then(|table| table.iter().find(|(key, _)| Some(key.name.as_str()) == label));
            labelled.map_or(key.span.start, |(key, _)| key.span.start)
        };
        let named = self.file.variants.iter().filter(|(variant, settings)| {
            let sets = |(key, value): &(Key, Value)| key.name == name && Some(value.to_string().as_str()) == label;
            label == Some(variant.name.as_str()) || settings.iter().any(sets)
        });
        let settings = named.flat_map(|(_, settings)| settings);
        let mut declared =
            settings.chain(&self.file.matrix).chain(&self.file.params).filter(|(key, _)| key.name == name);
        declared.next().map(|entry| line_of(&self.source, own(entry)))
    }

    /// The line of a config field of a node's stage; the stage's own if it is a default.
    pub fn config_line(&self, id: NodeId, label: &str) -> usize {
        let stage = &self.file.stages[self.nodes[id.0].stage];
        let mut place = stage.name.span.start;
        let mut value = &stage.config;
        for part in label.split('.') {
            let inside = value.as_table().and_then(|table| table.iter().find(|(key, _)| key.name == part));
            let Some((key, inner)) = inside else { break };
            place = key.span.start;
            value = inner;
        }
        line_of(&self.source, place)
    }
}

/// `stage[axis=label,…]` -> the stage and the pairs.
pub fn parse_node(word: &str) -> (String, Vec<(String, String)>) {
    let Some((stage, rest)) = word.split_once('[') else { return (word.to_owned(), Vec::new()) };
    let inside = rest.strip_suffix(']').unwrap_or(rest);
    let pair = |text: &str| text.split_once('=').map(|(axis, label)| (axis.trim().to_owned(), label.trim().to_owned()));
    (stage.to_owned(), inside.split(',').filter_map(pair).collect())
}

/// The first part inside the brackets that is no `axis=label`.
fn bare_part(word: &str) -> Option<&str> {
    let inside = word.split_once('[')?.1.strip_suffix(']')?;
    inside.split(',').map(str::trim).find(|part| !part.is_empty() && !part.contains('='))
}

fn setting(text: &str) -> Result<(String, Value), CommandError> {
    let parts = text.split_once('=').filter(|(name, _)| !name.trim().is_empty());
    let (name, value) = parts.ok_or_else(|| {
        CommandError::Usage(format!("--set takes NAME=VALUE, found `{text}`"), vec!["write: --set seed=7".into()])
    })?;
    Ok((name.trim().to_owned(), Value::parse_setting(value.trim())))
}

/// The text of a pipeline file. Ends of lines are those of Unix, wherever it was written: a shell would take others for words.
fn source(path: &Path) -> Result<String, CommandError> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    Ok(if text.contains('\r') { text.replace("\r\n", "\n") } else { text })
}

/// Why there is no pipeline.
pub fn unreadable(path: &Path, error: &std::io::Error) -> CommandError {
    let text = format!("{} cannot be read: {error}", path.display());
    let others = std::env::current_dir().ok().and_then(|folder| passed_over(&folder));
    let others = others.map(|path| format!("{0} is another user's: --pipeline {0}", path.display()));
    let hints = vec![
        others.unwrap_or_else(|| "name the file: --pipeline PATH".to_owned()),
        "make one: headwater init, or headwater init --example penguins".to_owned(),
    ];
    CommandError::Usage(text, if error.kind() == std::io::ErrorKind::NotFound { hints } else { Vec::new() })
}

fn shorten(names: &[&str]) -> String {
    match names.len() {
        0..=12 => names.join(", "),
        more => format!("{} and {} more", names[..12].join(", "), more - 12),
    }
}
