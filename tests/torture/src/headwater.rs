//! `Headwater`: the binary under test, called from the outside, and what its lines say.
//!
//! It does not know what is right. Invariant: a call sees a fixed environment, so that nothing of this machine's user
//! decides a result.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::score::Trouble;
use crate::traced::Ending;
use crate::watchdog;

/// Where programs are looked for: few places, as each costs the commands a failed call.
pub const PROGRAMS: &str = "/usr/bin:/bin:/usr/sbin:/sbin";

/// The binary under test.
#[derive(Debug, Clone)]
pub struct Headwater {
    pub path: PathBuf,
    /// The verbs of `headwater store` that there are.
    pub store_verbs: BTreeSet<String>,
}

/// What became of a node, as a line said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: String,
    pub outcome: String,
    pub key: Option<String>,
    /// Port to digest.
    pub outputs: BTreeMap<String, String>,
    /// Why it failed.
    pub error: Option<String>,
}

impl Headwater {
    /// The binary at a path.
    ///
    /// # Errors
    /// If it cannot be run.
    pub fn at(path: &Path) -> Result<Self, Trouble> {
        let path = path.canonicalize().map_err(|error| Trouble::harness(format!("{}: {error}", path.display())))?;
        let mut this = Self { path, store_verbs: BTreeSet::new() };
        let help = this.call(Path::new("/"), &["store", "--help"])?;
        if help.code == Some(0) {
            let known = ["gc", "verify", "stats"].map(str::to_owned);
            let words: BTreeSet<&str> = help.out.split_whitespace().collect();
            this.store_verbs = known.into_iter().filter(|verb| words.contains(verb.as_str())).collect();
        }
        Ok(this)
    }

    /// A command in a project.
    pub fn command(&self, project: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).current_dir(project).env_clear();
        command.env("PATH", PROGRAMS).env("LANG", "C.UTF-8").env("HOME", project);
        command
    }

    /// Calls it, untraced and undisturbed, to its end.
    ///
    /// # Errors
    /// If it hangs, or cannot be called.
    pub fn call(&self, project: &Path, arguments: &[&str]) -> Result<Ending, Trouble> {
        ending(&mut self.command(project, arguments))
    }

    /// Its version, in one line.
    ///
    /// # Errors
    /// If it cannot be called.
    pub fn version(&self) -> Result<String, Trouble> {
        Ok(self.call(Path::new("/"), &["--version"])?.out.trim().to_owned())
    }
}

/// Runs a command, untraced and undisturbed, to its end.
///
/// # Errors
/// If it hangs, or cannot be started.
pub fn ending(command: &mut Command) -> Result<Ending, Trouble> {
    use std::os::unix::process::ExitStatusExt;
    let output = watchdog::output(command)?;
    let signal = output.status.signal().and_then(|signal| nix::sys::signal::Signal::try_from(signal).ok());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    Ok(Ending { code: output.status.code(), signal, out, err, ..Ending::default() })
}

impl Ending {
    /// The nodes whose end was reported; a last line may be torn.
    pub fn nodes(&self) -> Vec<Node> {
        self.out.split_inclusive('\n').filter(|line| line.ends_with('\n')).filter_map(node).collect()
    }

    /// The names of nodes with these outcomes.
    pub fn with(&self, outcomes: &[&str]) -> BTreeSet<String> {
        let nodes = self.nodes().into_iter().filter(|node| outcomes.contains(&node.outcome.as_str()));
        nodes.map(|node| node.name).collect()
    }

    /// Those that were reported as done.
    pub fn done(&self) -> BTreeSet<String> {
        self.with(&["ran", "cached"])
    }

    /// Whether the program broke down, and did not end by itself with an answer.
    pub fn broke_down(&self) -> Option<String> {
        let broken = self.code == Some(101) || self.code.is_none() || self.err.contains("panicked at");
        broken.then(|| format!("it broke down: {}", self.told()))
    }

    /// All that it said of what went wrong: on standard error, and in the lines of nodes.
    pub fn message(&self) -> String {
        let errors = self.nodes().into_iter().filter_map(|node| node.error);
        errors.fold(self.err.clone(), |text, error| format!("{text}\n{error}"))
    }

    /// How it ended, for a message.
    pub fn told(&self) -> String {
        let end: String = self.message().chars().take(1500).collect();
        let node = |node: Node| format!("{} {}", node.name, node.outcome);
        let nodes: Vec<String> = self.nodes().into_iter().map(node).collect();
        format!("exit code {:?}, signal {:?}, nodes [{}], errors: {end}", self.code, self.signal, nodes.join(", "))
    }
}

fn node(line: &str) -> Option<Node> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
    if text("event")? != "node_finished" {
        return None;
    }
    let outputs = value.get("outputs").and_then(Value::as_object).cloned().unwrap_or_default();
    let digest = |(port, about): (String, Value)| Some((port, about.get("digest")?.as_str()?.to_owned()));
    let outputs = outputs.into_iter().filter_map(digest).collect();
    let (name, outcome, key, error) = (text("node")?, text("outcome")?, text("key"), text("error"));
    Some(Node { name, outcome, key, outputs, error })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_no_report() {
        let line = r#"{"event":"node_finished","node":"a","outcome":"ran","outputs":{"x":{"digest":"00"}}}"#;
        let ending = Ending { out: format!("{line}\n{line}"), ..Ending::default() };
        assert_eq!(ending.nodes().len(), 1);
        assert_eq!(ending.done(), BTreeSet::from(["a".to_owned()]));
    }

    #[test]
    fn a_panic_is_a_breakdown_and_an_error_is_none() {
        let panicked = Ending { code: Some(101), ..Ending::default() };
        assert!(panicked.broke_down().is_some());
        assert!(Ending { code: Some(1), ..Ending::default() }.broke_down().is_none());
    }
}
