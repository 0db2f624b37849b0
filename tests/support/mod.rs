//! What the tests of the real binary share: a project in a folder of its own, and what a run of the program did.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tempfile::TempDir;

/// A project in a temporary folder.
pub struct Project {
    folder: TempDir,
}

/// What one invocation did.
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Project {
    /// An empty folder.
    pub fn empty() -> Self {
        Self { folder: TempDir::new().expect("a temporary folder") }
    }

    /// A folder with this pipeline.toml.
    pub fn with(pipeline: &str) -> Self {
        let project = Self::empty();
        project.write("pipeline.toml", pipeline);
        project
    }

    /// A copy of an example of the repository.
    pub fn example(name: &str) -> Self {
        let project = Self::empty();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        fs::create_dir_all(project.path("data")).expect("a folder");
        fs::copy(from.join("pipeline.toml"), project.path("pipeline.toml")).expect("a copy");
        for file in fs::read_dir(from.join("data")).expect("the example's data") {
            let file = file.expect("an entry").path();
            fs::copy(&file, project.path("data").join(file.file_name().expect("a name"))).expect("a copy");
        }
        project
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    pub fn write(&self, relative: &str, text: impl AsRef<[u8]>) {
        let path = self.path(relative);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    pub fn read(&self, relative: &str) -> String {
        fs::read_to_string(self.path(relative)).unwrap_or_else(|error| panic!("{relative}: {error}"))
    }

    /// Replaces a text that must be there, once.
    pub fn edit(&self, relative: &str, old: &str, new: &str) {
        let text = self.read(relative);
        assert_eq!(text.matches(old).count(), 1, "`{old}` stands once in {relative}");
        self.write(relative, text.replacen(old, new, 1));
    }

    /// The program, to be run in the project's folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_headwater"));
        command.args(arguments).current_dir(self.root());
        command.env_remove("HEADWATER_STORE").env_remove("NO_COLOR");
        command
    }

    pub fn call(&self, arguments: &[&str]) -> Done {
        finish(self.command(arguments).output().expect("the program starts"))
    }

    /// A command that must succeed; gives its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let done = self.call(arguments);
        assert_eq!(done.code, 0, "{arguments:?}: {}{}", done.out, done.err);
        done.out
    }

    /// Damages every blob of the store that is chosen by its digest and bytes, in its place; says how many.
    pub fn damage(&self, choose: impl Fn(&str, &[u8]) -> bool) -> usize {
        let mut damaged = 0;
        for file in walkdir::WalkDir::new(self.path(".headwater/store")).into_iter().filter_map(Result::ok) {
            let path = file.path();
            let mut bytes = if file.file_type().is_file() { fs::read(path).expect("bytes") } else { continue };
            let parts =
                if path.extension().is_some_and(|end| end == "seg") { blobs(&bytes) } else { whole(path, &bytes) };
            let chosen: Vec<_> = parts.into_iter().filter(|(digest, at)| choose(digest, &bytes[at.clone()])).collect();
            for (_, at) in &chosen {
                bytes[at.clone()].iter_mut().for_each(|byte| *byte ^= 4);
            }
            if !chosen.is_empty() {
                fs::remove_file(path).expect("removed");
                fs::write(path, &bytes).expect("damage");
            }
            damaged += chosen.len();
        }
        damaged
    }

    /// The command lines of processes that work in the project's folder, or whose program lies there.
    pub fn processes(&self) -> Vec<String> {
        let root = self.root().canonicalize().expect("a path");
        let inside =
            |process: &Path, link: &str| fs::read_link(process.join(link)).is_ok_and(|to| to.starts_with(&root));
        let all = fs::read_dir("/proc").expect("processes").filter_map(|entry| Some(entry.ok()?.path()));
        all.filter(|process| inside(process, "cwd") || inside(process, "exe"))
            .map(|process| fs::read_to_string(process.join("cmdline")).unwrap_or_default())
            .collect()
    }

    /// `run` with further arguments; gives the outcome of each node.
    pub fn run(&self, arguments: &[&str]) -> Run {
        let all: Vec<&str> = ["run", "--format", "json"].into_iter().chain(arguments.iter().copied()).collect();
        let done = self.call(&all);
        Run { nodes: nodes(&done.out), done }
    }

    /// The state of each node, by `status`.
    pub fn status(&self, arguments: &[&str]) -> BTreeMap<String, String> {
        let all: Vec<&str> = ["status", "--format", "json"].into_iter().chain(arguments.iter().copied()).collect();
        let out = self.ok(&all);
        out.lines().map(parse).map(|line| (text(&line["node"]), text(&line["state"]))).collect()
    }
}

/// A run, node by node.
pub struct Run {
    pub nodes: Vec<Json>,
    pub done: Done,
}

impl Run {
    /// The nodes with this outcome, sorted.
    pub fn with(&self, outcome: &str) -> Vec<String> {
        let mut names: Vec<String> =
            self.nodes.iter().filter(|node| node["outcome"] == outcome).map(|node| text(&node["node"])).collect();
        names.sort();
        names
    }

    pub fn ran(&self) -> Vec<String> {
        self.with("ran")
    }

    pub fn node(&self, name: &str) -> &Json {
        self.nodes.iter().find(|node| node["node"] == name).unwrap_or_else(|| panic!("no node {name}"))
    }

    /// The digest of every output, by `node.port`.
    pub fn digests(&self) -> BTreeMap<String, String> {
        let mut digests = BTreeMap::new();
        for node in &self.nodes {
            for (port, output) in node["outputs"].as_object().expect("outputs") {
                digests.insert(format!("{}.{port}", text(&node["node"])), text(&output["digest"]));
            }
        }
        digests
    }

    /// Asserts that the run succeeded.
    pub fn succeeded(self) -> Self {
        assert_eq!(self.done.code, 0, "{}{}", self.done.out, self.done.err);
        self
    }
}

/// Waits until something has happened, as long as no machine takes.
pub fn eventually(what: &str, happened: impl Fn() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn finish(output: Output) -> Done {
    Done {
        code: output.status.code().expect("an exit code"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

fn nodes(out: &str) -> Vec<Json> {
    out.lines().map(parse).filter(|line| line["event"] == "node_finished").collect()
}

fn parse(line: &str) -> Json {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

fn text(value: &Json) -> String {
    value.as_str().expect("a string").to_owned()
}

/// Digest and place of each blob in a segment, whose layout the documentation of headwater-cache tells.
fn blobs(segment: &[u8]) -> Vec<(String, std::ops::Range<usize>)> {
    let number = |at: usize| u32::from_le_bytes(segment[at..at + 4].try_into().expect("four bytes")) as usize;
    let mut found = Vec::new();
    let mut at = 16;
    while at + 64 <= segment.len() {
        let payload = at + 64..at + 64 + number(at + 4);
        if number(at + 8) == 1 {
            let digest: String = segment[at + 16..at + 48].iter().map(|byte| format!("{byte:02x}")).collect();
            found.push((digest, payload.clone()));
        }
        at = payload.end.next_multiple_of(8);
    }
    found
}

/// A blob that is a file of its own.
fn whole(path: &Path, bytes: &[u8]) -> Vec<(String, std::ops::Range<usize>)> {
    let folder = path.parent().and_then(Path::file_name).expect("a folder").to_string_lossy();
    let digest = format!("{folder}{}", path.file_name().expect("a name").to_string_lossy());
    if digest.len() == 64 { vec![(digest, 0..bytes.len())] } else { Vec::new() }
}
