//! `Command`: what the pipeline file says of a command stage, and the engine's stage made from it.
//!
//! It does not run anything. Invariant: the command line, the paths of deps and outs, declared environment variables,
//! the versions of tools, and whether the command was held to what it declares are in the key; absolute paths and limits of
//! time are not. Loading a pipeline starts no program: what has to be asked
//! for is a [`LateKey`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use headwater_engine::{Bound, InputPort, InputPorts, OutputPort, Presence, Selection, Stage};

use crate::error::Diagnostic;
use crate::pipeline::duration;
use crate::pipeline::expand::normal;
use crate::pipeline::value::{Datum, Span, Value};
use crate::process::outs::PlacedOuts;
use crate::process::secret::SecretKey;
use crate::process::versions::versions;
use crate::process::workshop::Hermetic;
use crate::process::{shell, staging};
use crate::project::{Project, STATE};

/// Raised when command stages work differently for the same declaration.
const VERSION: u32 = 5;

const KEYS: [&str; 13] = [
    "run",
    "deps",
    "outs",
    "env",
    "secrets",
    "tools",
    "environment",
    "hermetic",
    "network",
    "timeout",
    "idle_timeout",
    "resources",
    "retries",
];

/// One node's command.
#[derive(Debug, Clone)]
pub struct Command {
    pub line: CommandLine,
    pub deps: Vec<(Dep, Span)>,
    pub outs: Vec<(PathBuf, Span)>,
    /// Environment variables that are passed on, and are in the key by value.
    pub env: Vec<String>,
    /// Environment variables that are passed on, and are in the key by a keyed hash.
    pub secrets: Vec<String>,
    /// Programs whose versions are in the key.
    pub tools: Vec<String>,
    /// The programs that are started whose paths lie in the project.
    pub programs: Vec<(PathBuf, Span)>,
    /// Whether it is to be held to what it declares.
    pub declared_hermetic: bool,
    /// Whether it may use the network, if it is held to that.
    pub network: bool,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// How long it may print nothing.
    pub idle_timeout: Option<Duration>,
}

/// What of a command's key takes time or a key to find, and is found when keys are needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LateKey {
    /// Programs outside the project, and those declared.
    pub tools: BTreeSet<String>,
    pub secrets: BTreeSet<String>,
}

/// How the program is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Through `sh -c`.
    Shell(String),
    Program(Vec<String>),
}

/// Something that the command reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dep {
    Path(PathBuf),
    /// The output of a stage, as a file.
    Mount {
        reference: String,
        path: PathBuf,
        path_span: Span,
    },
}

impl CommandLine {
    /// As a person would type it.
    pub fn text(&self) -> String {
        match self {
            Self::Shell(line) => line.clone(),
            Self::Program(words) => {
                let words: Vec<String> =
                    words.iter().map(|word| crate::pipeline::interpolate::shell_argument(word)).collect();
                words.join(" ")
            }
        }
    }

    /// The programs that are started, where that can be told.
    pub fn programs(&self) -> BTreeSet<String> {
        match self {
            Self::Program(words) => words.first().cloned().into_iter().collect(),
            Self::Shell(line) => shell::programs(line),
        }
    }
}

impl Command {
    /// Reads a command from its `run` and the other keys of its stage, params put in; `hermetic` is what holds for those
    /// that do not say it.
    ///
    /// # Errors
    /// Every key or value that is wrong.
    pub fn read(run: &Value, config: &Value, hermetic: bool, project: &Project) -> Result<Self, Vec<Diagnostic>> {
        let mut errors = Vec::new();
        for (key, _) in config.as_table().unwrap_or_default() {
            if !KEYS.contains(&key.name.as_str()) {
                let unknown = Diagnostic::new(format!("unknown key `{}` of a command stage", key.name));
                errors.push(unknown.at(key.span.clone(), "").suggest(&key.name, KEYS, "keys"));
            }
        }
        let line = read_line(run).unwrap_or_else(|error| {
            errors.push(error);
            CommandLine::Shell(String::new())
        });
        let mut deps = Vec::new();
        for dep in items(config, "deps", &mut errors) {
            match read_dep(dep) {
                Ok(read) => deps.push((read, dep.span.clone())),
                Err(error) => errors.push(error),
            }
        }
        let mut command = Self {
            deps,
            programs: line
                .programs()
                .iter()
                .filter_map(|program| Some((program_in(project, program)?, run.span.clone())))
                .collect(),
            outs: paths(config, "outs", &mut errors),
            env: texts(config, "env", &mut errors),
            secrets: texts(config, "secrets", &mut errors),
            tools: texts(config, "tools", &mut errors),
            declared_hermetic: flag(config, "hermetic", &mut errors).unwrap_or(hermetic),
            network: flag(config, "network", &mut errors).unwrap_or(false),
            timeout: duration(config, "timeout", &mut errors),
            idle_timeout: duration(config, "idle_timeout", &mut errors),
            line,
        };
        let locks = paths(config, "environment", &mut errors);
        command.deps.extend(locks.into_iter().map(|(path, span)| (Dep::Path(path), span)));
        command.check_places(project, &mut errors);
        if command.outs.is_empty() && errors.is_empty() {
            let text = "a command stage needs `outs`, the files that it makes";
            errors.push(Diagnostic::new(text).at(run.span.clone(), "").hint("write: outs = [\"PATH\"]"));
        }
        if errors.is_empty() { Ok(command) } else { Err(errors) }
    }

    /// Whether it is held to what it declares, here.
    pub fn hermetic(&self) -> Hermetic {
        Hermetic::of(self.declared_hermetic)
    }

    /// Headwater's own files are no command's, and a file cannot be both given to a command and made by it.
    fn check_places(&self, project: &Project, errors: &mut Vec<Diagnostic>) {
        let own = |path: &Path| path.starts_with(STATE);
        let deps = || self.deps.iter().map(|(dep, span)| (dep.path(), span));
        for (path, span) in
            deps().chain(self.outs.iter().map(|(path, span)| (path.as_path(), span))).filter(|p| own(p.0))
        {
            let text = format!("`{}` lies in `{STATE}`, which is Headwater's own", path.display());
            errors.push(Diagnostic::new(text).at(span.clone(), "").hint("choose a path elsewhere in the project"));
        }
        for (out, span) in &self.outs {
            let mounted = |dep: &Dep| matches!(dep, Dep::Mount { path, .. } if overlap(path, out));
            if *out == project.file {
                let text = format!("the out `{}` would replace the pipeline file", out.display());
                errors.push(Diagnostic::new(text).at(span.clone(), "").hint("choose another path"));
            } else if self.deps.iter().any(|(dep, _)| mounted(dep)) {
                let text = format!("the out `{}` is also where a dep is put", out.display());
                errors.push(Diagnostic::new(text).at(span.clone(), "").hint("give the dep another path with `as`"));
            }
        }
    }

    /// The engine's stage, with a port for each path that the command reads.
    pub fn stage(&self, ports: &[String], project: &Arc<Project>) -> Stage {
        let outs = Arc::new(PlacedOuts::new(self.outs.iter().map(|(path, _)| path.clone()).collect(), project.clone()));
        let (command, project) = (Arc::new(self.clone()), project.clone());
        let port = |name: &String| InputPort { name: name.clone(), type_name: None, presence: Presence::Required };
        let output = |(path, _): &(PathBuf, Span)| OutputPort {
            name: path.to_string_lossy().into_owned(),
            type_name: "file".into(),
            passes: None,
        };
        Stage {
            kind: "run".into(),
            version: VERSION,
            config: self.config(),
            inputs: InputPorts::Fixed(ports.iter().map(port).collect()),
            outputs: self.outs.iter().map(output).collect(),
            reads: Arc::new(|bound: &[Bound]| Ok(vec![Selection::All; bound.len()])),
            run: Arc::new(move |job| staging::run(&command, job, &project)),
            outs: Some(outs),
        }
    }

    fn config(&self) -> Vec<(String, String)> {
        let mut lines = match &self.line {
            CommandLine::Shell(line) => vec![("run".to_owned(), quoted(line))],
            CommandLine::Program(words) => {
                let word = |(at, word): (usize, &String)| (format!("run.{at}"), quoted(word));
                words.iter().enumerate().map(word).collect()
            }
        };
        let outs: BTreeSet<String> = self.outs.iter().map(|(path, _)| path.to_string_lossy().into_owned()).collect();
        lines.extend(outs.into_iter().enumerate().map(|(at, path)| (format!("outs.{at}"), quoted(&path))));
        for name in self.env.iter().filter(|name| !self.secrets.contains(name)).collect::<BTreeSet<_>>() {
            // A value that is no text must differ from every other one, too.
            let text = |value: std::ffi::OsString| value.to_str().map_or_else(|| format!("{value:?}"), quoted);
            let value = std::env::var_os(name).map(text);
            lines.push((format!("env.{name}"), value.unwrap_or_else(|| "unset".into())));
        }
        // What was made without bounds may have read what is not declared: it is no result of who asks for bounds.
        let hermetic = Some(self.hermetic()).filter(|hermetic| *hermetic != Hermetic::Enforced);
        lines.extend(hermetic.map(|hermetic| ("hermetic".into(), hermetic.word().into())));
        lines.extend(self.network.then(|| ("network".into(), "true".into())));
        lines
    }

    /// The declared tools and secrets, and the programs that are started. Those of the project are read as deps.
    pub fn late_key(&self, project: &Project) -> LateKey {
        let started = self.line.programs().into_iter().filter(|program| program_in(project, program).is_none());
        LateKey {
            tools: self.tools.iter().cloned().chain(started).collect(),
            secrets: self.secrets.iter().cloned().collect(),
        }
    }

    /// The folder of the project, and those in which deps lie.
    pub fn folders_of_deps(&self) -> BTreeSet<PathBuf> {
        let folders = self.deps.iter().filter_map(|(dep, _)| dep.path().parent());
        folders.chain([Path::new("")]).map(Path::to_owned).collect()
    }

    /// Whether a path is an out of this command, or lies in one.
    pub fn makes(&self, path: &Path) -> bool {
        self.outs.iter().any(|(out, _)| path.starts_with(out))
    }
}

/// What late keys ask for, found for all nodes at once.
pub struct Answers {
    pub versions: BTreeMap<String, String>,
    secrets: BTreeMap<String, String>,
}

impl Answers {
    /// Finds every version once, and reads the variables.
    ///
    /// # Errors
    /// If there are secrets, and their key cannot be had from the store at this path.
    pub fn to<'a>(
        keys: impl Iterator<Item = &'a LateKey> + Clone,
        project: &Project,
        store: &Path,
    ) -> io::Result<Self> {
        let tools: BTreeSet<&str> = keys.clone().flat_map(|key| key.tools.iter().map(String::as_str)).collect();
        let names: BTreeSet<&String> = keys.flat_map(|key| &key.secrets).collect();
        let key = if names.is_empty() { None } else { Some(SecretKey::of_store(store)?) };
        let hash = |name: &String| Some((name.clone(), key.as_ref()?.hash(&std::env::var_os(name)?)));
        let versions = versions(&tools, project);
        Ok(Self { versions, secrets: names.into_iter().filter_map(hash).collect() })
    }

    /// The lines of one node's configuration.
    pub fn lines(&self, key: &LateKey) -> Vec<(String, String)> {
        let version = |tool: &String| (format!("tools.{tool}"), quoted(&self.versions[tool]));
        let hash = |name: &String| self.secrets.get(name).map_or("unset", String::as_str).to_owned();
        let secret = |name: &String| (format!("secrets.{name}"), hash(name));
        key.tools.iter().map(version).chain(key.secrets.iter().map(secret)).collect()
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Dep {
    /// Where the command finds it.
    pub fn path(&self) -> &Path {
        match self {
            Self::Path(path) | Self::Mount { path, .. } => path,
        }
    }
}

/// The path of a program within the project; one without a slash is looked for in `PATH`.
fn program_in(project: &Project, program: &str) -> Option<PathBuf> {
    let path = normal(Path::new(program));
    let path = path.strip_prefix(&project.root).map(Path::to_owned).unwrap_or(path);
    let inside = program.contains('/') && path.components().all(|part| matches!(part, Component::Normal(_)));
    inside.then_some(path)
}

fn overlap(a: &Path, b: &Path) -> bool {
    a.starts_with(b) || b.starts_with(a)
}

fn read_line(run: &Value) -> Result<CommandLine, Diagnostic> {
    let wrong = |text: &str| Diagnostic::new(text.to_owned()).at(run.span.clone(), "");
    match &run.datum {
        Datum::Text(line) if line.trim().is_empty() => Err(wrong("`run` is empty")),
        Datum::Text(line) => Ok(CommandLine::Shell(line.clone())),
        Datum::List(words) if !words.is_empty() => {
            let word = |word: &Value| match word.datum {
                Datum::List(_) | Datum::Table(_) => {
                    let text = format!("a word of `run` is {}, expected a string or a number", word.describe());
                    Err(Diagnostic::new(text).at(word.span.clone(), ""))
                }
                _ => Ok(word.to_string()),
            };
            Ok(CommandLine::Program(words.iter().map(word).collect::<Result<_, _>>()?))
        }
        Datum::List(_) => Err(wrong("`run` is empty")),
        _ => {
            let text = format!("`run` is {}, expected a command line, or an array of words", run.describe());
            Err(wrong(&text).hint("write: run = \"python train.py\", or run = [\"python\", \"train.py\"]"))
        }
    }
}

fn items<'a>(config: &'a Value, key: &str, errors: &mut Vec<Diagnostic>) -> &'a [Value] {
    match config.get(key) {
        None => &[],
        Some(Value { datum: Datum::List(values), .. }) => values,
        Some(other) => {
            let text = format!("`{key}` is {}, expected an array", other.describe());
            let wrong = Diagnostic::new(text).at(other.span.clone(), "");
            errors.push(match other.as_text() {
                Some(text) => wrong.hint(format!("write: {key} = [{text:?}]")),
                None => wrong,
            });
            &[]
        }
    }
}

fn flag(config: &Value, key: &str, errors: &mut Vec<Diagnostic>) -> Option<bool> {
    let value = config.get(key)?;
    if let Datum::Bool(flag) = value.datum {
        return Some(flag);
    }
    let text = format!("`{key}` is {}, expected true or false", value.describe());
    errors.push(Diagnostic::new(text).at(value.span.clone(), ""));
    None
}

fn duration(config: &Value, key: &str, errors: &mut Vec<Diagnostic>) -> Option<Duration> {
    duration::read(key, config.get(key)?).map_err(|error| errors.push(error)).ok()
}

fn texts(config: &Value, key: &str, errors: &mut Vec<Diagnostic>) -> Vec<String> {
    let mut texts = Vec::new();
    for item in items(config, key, errors) {
        match item.as_text() {
            Some(text) => texts.push(text.to_owned()),
            None => {
                let text = format!("`{key}` holds {}, expected a string", item.describe());
                errors.push(Diagnostic::new(text).at(item.span.clone(), ""));
            }
        }
    }
    texts
}

fn paths(config: &Value, key: &str, errors: &mut Vec<Diagnostic>) -> Vec<(PathBuf, Span)> {
    let mut paths = Vec::new();
    for item in items(config, key, errors) {
        match read_path(item, key) {
            Ok(path) => paths.push((path, item.span.clone())),
            Err(error) => errors.push(error),
        }
    }
    paths
}

/// A path inside the project.
fn read_path(item: &Value, key: &str) -> Result<PathBuf, Diagnostic> {
    let wrong = |text: String| Diagnostic::new(text).at(item.span.clone(), "");
    let text = item.as_text().ok_or_else(|| wrong(format!("`{key}` holds {}, expected a path", item.describe())))?;
    let path = normal(Path::new(text));
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    match (inside, path.as_os_str().is_empty()) {
        (true, false) => Ok(path),
        _ => Err(wrong(format!("`{text}` is not a path inside the project"))
            .hint("write paths relative to the folder of the pipeline file, without `..`")),
    }
}

fn read_dep(dep: &Value) -> Result<Dep, Diagnostic> {
    match &dep.datum {
        Datum::Table(_) => read_mount(dep),
        _ => read_path(dep, "deps").map(Dep::Path),
    }
}

fn read_mount(dep: &Value) -> Result<Dep, Diagnostic> {
    let wrong = |text: &str| Diagnostic::new(text.to_owned()).at(dep.span.clone(), "");
    for (key, _) in dep.as_table().unwrap_or_default() {
        if key.name != "from" && key.name != "as" {
            let unknown = Diagnostic::new(format!("unknown key `{}` in a dep", key.name));
            return Err(unknown.at(key.span.clone(), "").hint("the keys are: from, as"));
        }
    }
    match (dep.get("from").and_then(Value::as_text), dep.get("as")) {
        (Some(reference), Some(path)) => {
            let (reference, path_span) = (reference.to_owned(), path.span.clone());
            Ok(Dep::Mount { reference, path: read_path(path, "as")?, path_span })
        }
        _ => Err(wrong("a dep table takes `from` and `as`").hint("write: { from = \"stage.output\", as = \"path\" }")),
    }
}
