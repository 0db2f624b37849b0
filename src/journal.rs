//! The journal: what each run did, a file of JSON lines a run, in `.headwater/runs/`.
//!
//! It is written while a run goes on and read by `log`, `explain`, `show` and the next run's reasons. It is no cache: it
//! says what happened and decides nothing about what is up to date. A line that cannot be read is passed over.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use headwater_cache::{Artifact, Digest, Shape};
use headwater_engine::{Key, OutputPort, Summary};
use memchr::memmem::Finder;
use serde::{Deserialize, Serialize};

/// How many runs are read back in search of a node's last finish.
const RUNS_READ: usize = 200;
const READ_AT_ONCE: usize = 256 << 10;

/// One line of a journal.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "snake_case")]
pub enum Line {
    Run(RunLine),
    Node(NodeLine),
    Same(SameLine),
    End(EndLine),
}

/// The beginning of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunLine {
    pub run: String,
    /// Seconds since 1970.
    pub started: u64,
    pub pipeline: String,
    pub arguments: Vec<String>,
}

/// The end of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NodeLine {
    pub node: String,
    pub outcome: String,
    pub key: Option<String>,
    pub reason: String,
    pub seconds: f64,
    pub outputs: Vec<OutputLine>,
    /// The producer of each port, `node.output`, or the path of a file.
    pub inputs: BTreeMap<String, String>,
    /// The params that the stage mentions.
    pub params: BTreeMap<String, String>,
    /// Of a command: whether it was held to what it declares, see [`crate::process::workshop::Hermetic`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hermetic: Option<String>,
    pub error: Option<String>,
}

/// One output of a node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OutputLine {
    pub port: String,
    #[serde(rename = "type")]
    pub type_name: String,
    pub digest: String,
    pub bytes: u64,
    pub tree: bool,
}

/// In place of lines for nodes: each is what it was in an earlier run, cached.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SameLine {
    pub run: String,
}

/// The end of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EndLine {
    pub ran: usize,
    pub cached: usize,
    pub failed: usize,
    pub skipped: usize,
    pub cancelled: usize,
    pub seconds: f64,
    pub saved: f64,
    /// Whether it was told to end.
    #[serde(default)]
    pub interrupted: bool,
}

impl OutputLine {
    /// What a port gave.
    pub fn new(port: &OutputPort, artifact: &Artifact) -> Self {
        Self {
            port: port.name.clone(),
            type_name: artifact.type_name.clone(),
            digest: artifact.digest.to_string(),
            bytes: artifact.bytes,
            tree: artifact.shape == Shape::Tree,
        }
    }
}

impl NodeLine {
    /// Whether the node had outputs at the end.
    pub fn finished(&self) -> bool {
        self.outcome == "ran" || self.outcome == "cached"
    }

    /// Its key.
    pub fn key(&self) -> Option<Key> {
        self.key.as_ref()?.parse::<Digest>().ok().map(Key)
    }
}

impl EndLine {
    /// A summary with the run's wall time.
    pub fn new(summary: &Summary, seconds: f64, interrupted: bool) -> Self {
        let Summary { ran, cached, failed, skipped, cancelled, saved } = *summary;
        Self { ran, cached, failed, skipped, cancelled, seconds, saved, interrupted }
    }

    /// The summary again.
    pub fn summary(&self) -> Summary {
        let Self { ran, cached, failed, skipped, cancelled, saved, .. } = *self;
        Summary { ran, cached, failed, skipped, cancelled, saved }
    }
}

/// Why a journal cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the journal {path} cannot be written: {source}", path = path.display())]
pub struct JournalError {
    pub path: PathBuf,
    pub source: io::Error,
}

fn at<T>(path: &Path, result: io::Result<T>) -> Result<T, JournalError> {
    result.map_err(|source| JournalError { path: path.to_owned(), source })
}

/// The journal of the run under way.
pub struct Journal {
    file: BufWriter<File>,
    path: PathBuf,
    pub run: String,
}

impl Journal {
    /// Begins a run's journal.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn begin(state: &Path, pipeline: &str, arguments: Vec<String>) -> Result<Self, JournalError> {
        let folder = state.join("runs");
        at(&folder, fs::create_dir_all(&folder))?;
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (file, path, run) = create(&folder, started)?;
        let mut journal = Self { file: BufWriter::new(file), path, run: run.clone() };
        journal.write(&Line::Run(RunLine { run, started, pipeline: pipeline.to_owned(), arguments }), true)?;
        Ok(journal)
    }

    /// Appends a line, and hands it to the system `at_once` or with a later one: what ran must be known after a kill,
    /// what was cached is known anyway.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&mut self, line: &Line, at_once: bool) -> Result<(), JournalError> {
        let mut text = serde_json::to_vec(line).expect("lines have text keys and no value that fails");
        text.push(b'\n');
        let written = self.file.write_all(&text).and_then(|()| if at_once { self.file.flush() } else { Ok(()) });
        at(&self.path, written)
    }
}

/// The next free number after the runs that are there; names sort by time.
fn create(folder: &Path, started: u64) -> Result<(File, PathBuf, String), JournalError> {
    let mut number = paths(folder).last().and_then(|path| number_of(path)).unwrap_or(0) + 1;
    loop {
        let run = format!("{number:06}");
        let path = folder.join(format!("{run}-{started}.jsonl"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path, run)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => return Err(JournalError { path, source }),
        }
    }
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.split('-').next()?.parse().ok()
}

/// The journals there are, oldest first.
fn paths(folder: &Path) -> Vec<PathBuf> {
    let Ok(found) = fs::read_dir(folder) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = found.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.retain(|path| number_of(path).is_some());
    paths.sort_by_key(|path| number_of(path));
    paths
}

/// A run as its journal tells it.
#[derive(Debug, Clone)]
pub struct PastRun {
    pub head: RunLine,
    /// The last line of each node; none if the run found nothing changed.
    pub nodes: BTreeMap<String, NodeLine>,
    /// The run since which nothing had changed.
    pub same: Option<String>,
    /// Missing if the run was killed.
    pub end: Option<EndLine>,
}

/// Past runs, newest first, read when asked for.
pub struct History {
    paths: Vec<PathBuf>,
}

impl History {
    /// The runs of a project.
    pub fn of(state: &Path) -> Self {
        let mut paths = paths(&state.join("runs"));
        paths.reverse();
        Self { paths }
    }

    /// The runs, newest first.
    pub fn runs(&self) -> impl Iterator<Item = PastRun> + '_ {
        self.paths.iter().filter_map(|path| read(path, &|_| true))
    }

    /// The number of the run that began last.
    pub fn newest(&self) -> Option<String> {
        let name = self.paths.first()?.file_name()?.to_str()?;
        Some(name.split('-').next()?.to_owned())
    }

    /// The runs that tell of nodes, newest first. Those between one that found nothing changed and the one before which
    /// that was are passed over: they found the same.
    pub fn telling_runs(&self) -> impl Iterator<Item = PastRun> + '_ {
        self.telling_runs_of(|_| true)
    }

    /// The same, with the lines of these nodes alone: a line that is not wanted costs next to nothing.
    pub fn telling_runs_of<'a>(&'a self, wants: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = PastRun> + 'a {
        let mut since: Option<u64> = None;
        let telling = move |path: &PathBuf| {
            if since.is_some_and(|since| number_of(path).is_some_and(|number| number > since)) {
                return None;
            }
            let run = read(path, &wants)?;
            since = run.same.as_ref().and_then(|run| run.parse().ok());
            run.same.is_none().then_some(run)
        };
        self.paths.iter().filter_map(telling).take(RUNS_READ)
    }

    /// What runs have made whose digests begin so: each digest once, with the name that it had last.
    pub fn outputs_beginning_with(&self, hex: &str) -> Vec<(String, OutputLine)> {
        let wanted = format!(r#""digest":"{hex}"#);
        let finder = Finder::new(&wanted);
        let (mut seen, mut found) = (BTreeSet::new(), Vec::new());
        // Most runs have nothing of it: that is told without reading them line by line.
        let journals = self.paths.iter().filter_map(|path| fs::read(path).ok());
        for journal in journals.filter(|journal| finder.find(journal).is_some()) {
            for line in journal.split(|byte| *byte == b'\n').filter(|line| finder.find(line).is_some()) {
                let Ok(Line::Node(node)) = serde_json::from_slice(line) else { continue };
                let of_hex = node.outputs.into_iter().filter(|output| output.digest.starts_with(hex));
                let new = of_hex.filter(|output| seen.insert(output.digest.clone()));
                found.extend(new.map(|output| (format!("{}.{}", node.node, output.port), output)));
            }
        }
        found
    }

    /// The last finish of each of these nodes.
    pub fn last_finishes<'a>(&self, nodes: impl Iterator<Item = &'a str>) -> BTreeMap<String, NodeLine> {
        let all: BTreeSet<&str> = nodes.collect();
        let (mut wanted, mut found) = (all.clone(), BTreeMap::new());
        for mut run in self.telling_runs_of(|name| all.contains(name)) {
            wanted.retain(|name| match run.nodes.remove(*name).filter(NodeLine::finished) {
                Some(line) => {
                    found.insert((*name).to_owned(), line);
                    false
                }
                None => true,
            });
            if wanted.is_empty() {
                break;
            }
        }
        found
    }
}

fn read(path: &Path, wants: &dyn Fn(&str) -> bool) -> Option<PastRun> {
    let mut reader = BufReader::with_capacity(READ_AT_ONCE, File::open(path).ok()?);
    let (mut run, mut line): (Option<PastRun>, Vec<u8>) = Default::default();
    while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        if node_of(&line).is_none_or(wants) {
            match (serde_json::from_slice::<Line>(&line), &mut run) {
                (Ok(Line::Run(head)), None) => {
                    run = Some(PastRun { head, nodes: BTreeMap::new(), same: None, end: None });
                }
                (Ok(Line::Node(node)), Some(run)) => {
                    run.nodes.insert(node.node.clone(), node);
                }
                (Ok(Line::Same(same)), Some(run)) => run.same = Some(same.run),
                (Ok(Line::End(end)), Some(run)) => run.end = Some(end),
                _ => {}
            }
        }
        line.clear();
    }
    run
}

/// The node that a line tells of, if its beginning says so plainly.
fn node_of(line: &[u8]) -> Option<&str> {
    let rest = line.strip_prefix(br#"{"line":"node","node":""#)?;
    let name = &rest[..rest.iter().position(|byte| matches!(byte, b'"' | b'\\'))?];
    (rest[name.len()] == b'"').then(|| std::str::from_utf8(name).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_line_says_which_node_it_is_of() {
        let node = |name: &str| NodeLine {
            node: name.into(),
            outcome: "ran".into(),
            key: None,
            reason: String::new(),
            seconds: 0.0,
            outputs: Vec::new(),
            inputs: BTreeMap::new(),
            params: BTreeMap::new(),
            hermetic: None,
            error: None,
        };
        let line = |name: &str| serde_json::to_vec(&Line::Node(node(name))).expect("a line");
        assert_eq!(node_of(&line("train[model=forest]")), Some("train[model=forest]"));
        assert_eq!(node_of(&line("a[x=\"]")), None);
    }
}
