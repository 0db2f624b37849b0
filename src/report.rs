//! Events -> what a person sees while a run goes on, what a script reads, and the journal.
//!
//! Human lines go to standard error, JSON to standard output, so that a pipe gets data alone. It decides nothing.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::sync::PoisonError;
use std::time::Duration;

use headwater_engine::graph::Source;
use headwater_engine::{Event, Finish, Graph, NodeId, Outcome, Summary};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::commands::{Format, Globals};
use crate::error::CommandError;
use crate::journal::{EndLine, Journal, Line, NodeLine, OutputLine};
use crate::process::staging::printable;
use crate::process::workshop::Hermetic;
use crate::project::STATE;
use crate::reason::sentence;
use crate::workspace::Workspace;

/// So much of what outs have replaced is told, a line each.
const REPLACED_SHOWN: usize = 10;
/// Said once a run.
const UNVERIFIED: &str = "warning: this system cannot hold commands to what they declare (Landlock, seccomp): a file that a command \
                          reads undeclared is not in its key, and what commands make is marked as such";

/// What a run tells, while it goes on.
pub struct Reporter<'a> {
    workspace: &'a Workspace,
    globals: &'a Globals,
    journal: Journal,
    bar: ProgressBar,
    running: Vec<NodeId>,
    /// The first thing that went wrong with telling; it must not end the run.
    trouble: Option<CommandError>,
}

#[derive(Serialize)]
struct NodeFinished<'a> {
    event: &'static str,
    node: &'a str,
    stage: &'a str,
    outcome: &'a str,
    reason: &'a str,
    key: Option<&'a str>,
    seconds: f64,
    outputs: BTreeMap<&'a str, OutputJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hermetic: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct NodeRetrying<'a> {
    event: &'static str,
    node: &'a str,
    attempt: u32,
    error: &'a str,
    seconds: f64,
}

#[derive(Serialize)]
struct OutputJson<'a> {
    r#type: &'a str,
    digest: &'a str,
    bytes: u64,
}

#[derive(Serialize)]
struct RunFinished<'a> {
    event: &'static str,
    run: &'a str,
    ran: usize,
    cached: usize,
    failed: usize,
    skipped: usize,
    cancelled: usize,
    seconds: f64,
    saved_seconds: f64,
}

/// The word for an outcome, in JSON and in the journal.
pub fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Cached => "cached",
        Outcome::Ran => "ran",
        Outcome::Failed => "failed",
        Outcome::Skipped => "skipped",
        Outcome::Cancelled => "cancelled",
    }
}

impl<'a> Reporter<'a> {
    /// Tells a run as the globals ask, and writes its journal.
    pub fn new(workspace: &'a Workspace, globals: &'a Globals, journal: Journal) -> Self {
        let shown = globals.format == Format::Human && !globals.quiet && io::stderr().is_terminal();
        let bar = if shown { live_bar() } else { ProgressBar::hidden() };
        let commands = workspace.pipeline.nodes.iter().filter_map(|node| node.command.as_ref());
        if commands.into_iter().any(|command| command.hermetic() == Hermetic::Unavailable) {
            tell(UNVERIFIED);
        }
        Self { workspace, globals, journal, bar, running: Vec::new(), trouble: None }
    }

    /// Takes in an event.
    pub fn take(&mut self, event: Event) {
        match event {
            Event::Planned { nodes } => self.bar.set_length(nodes as u64),
            Event::Waiting { node } => self.print_waiting(node),
            Event::Started { node, .. } => {
                self.running.push(node);
                self.show_running();
            }
            Event::Finished(finish) => self.finished(&finish),
            Event::Retrying { node, attempt, error, seconds } => self.retrying(node, attempt, &error, seconds),
            Event::Previewed { .. } => {}
        }
    }

    fn finished(&mut self, finish: &Finish) {
        self.running.retain(|node| *node != finish.node);
        let line = self.line(finish);
        let told = match self.globals.format {
            Format::Json => self.print_json(finish, &line),
            Format::Human => {
                self.print_line(finish, &line);
                Ok(())
            }
        };
        let kept = self.journal.write(&Line::Node(line), finish.outcome != Outcome::Cached);
        self.note(told.map_err(CommandError::from));
        self.note(kept.map_err(CommandError::failed));
        self.bar.inc(1);
        self.show_running();
    }

    fn note(&mut self, result: Result<(), CommandError>) {
        if let Err(error) = result {
            self.trouble.get_or_insert(error);
        }
    }

    fn line(&self, finish: &Finish) -> NodeLine {
        let pipeline = &self.workspace.pipeline;
        let node = pipeline.graph.node(finish.node);
        let ports = node.stage.outputs.iter().zip(&finish.outputs);
        let last = self.workspace.last.get(&node.name);
        let reason = finish.reason.as_ref().map(|reason| sentence(reason, finish.node, pipeline, last));
        NodeLine {
            node: node.name.clone(),
            outcome: outcome_word(finish.outcome).into(),
            key: finish.key.map(|key| key.to_string()),
            reason: reason.unwrap_or_else(|| if finish.restored { "restored".into() } else { String::new() }),
            seconds: finish.seconds,
            outputs: ports.map(|(port, artifact)| OutputLine::new(port, artifact)).collect(),
            inputs: producers(&pipeline.graph, finish.node),
            params: pipeline.nodes[finish.node.0].params.iter().cloned().collect(),
            hermetic: pipeline.nodes[finish.node.0]
                .command
                .as_ref()
                .map(|command| command.hermetic().word().to_owned()),
            error: finish.error.clone(),
        }
    }

    fn print_json(&self, finish: &Finish, line: &NodeLine) -> io::Result<()> {
        let output = |output: &'_ OutputLine| -> (String, String, String, u64) {
            (output.port.clone(), output.type_name.clone(), output.digest.clone(), output.bytes)
        };
        let outputs: Vec<_> = line.outputs.iter().map(output).collect();
        print_json(&NodeFinished {
            event: "node_finished",
            node: &line.node,
            stage: &self.workspace.pipeline.graph.node(finish.node).stage_name,
            outcome: &line.outcome,
            reason: &line.reason,
            key: line.key.as_deref(),
            seconds: line.seconds,
            outputs: outputs
                .iter()
                .map(|(port, type_name, digest, bytes)| {
                    (port.as_str(), OutputJson { r#type: type_name, digest, bytes: *bytes })
                })
                .collect(),
            hermetic: line.hermetic.as_deref(),
            error: line.error.as_deref(),
        })
    }

    fn retrying(&mut self, node: NodeId, attempt: u32, error: &str, seconds: f64) {
        self.running.retain(|other| *other != node);
        self.show_running();
        let name = &self.workspace.pipeline.graph.node(node).name;
        match self.globals.format {
            Format::Json => {
                let event = "node_retrying";
                let told = print_json(&NodeRetrying { event, node: name, attempt, error, seconds });
                self.note(told.map_err(CommandError::from));
            }
            Format::Human if self.globals.quiet => {}
            Format::Human => {
                let text = format!("{:>9} {name}  again in {}, failure {attempt}:", "retrying", duration(seconds));
                self.bar.suspend(|| tell(&format!("{text}\n{}", indented(error))));
            }
        }
    }

    fn print_waiting(&self, node: NodeId) {
        if self.globals.format == Format::Human && !self.globals.quiet {
            let name = &self.workspace.pipeline.graph.node(node).name;
            self.bar.suspend(|| tell(&format!("{:>9} {name}  another process computes it", "waiting")));
        }
    }

    fn print_line(&self, finish: &Finish, line: &NodeLine) {
        let quiet = match finish.outcome {
            Outcome::Failed => false,
            Outcome::Ran => self.globals.quiet,
            Outcome::Cached => self.globals.quiet || (self.globals.verbose == 0 && !finish.restored),
            Outcome::Skipped | Outcome::Cancelled => self.globals.quiet,
        };
        if quiet {
            return;
        }
        let word = if finish.restored { "restored" } else { line.outcome.as_str() };
        let text = match (finish.outcome, &line.error) {
            (Outcome::Failed, Some(error)) => format!("{word:>9} {}\n{}", line.node, indented(error)),
            (_, Some(error)) => format!("{word:>9} {}  {error}", line.node),
            (Outcome::Ran, None) => format!("{word:>9} {}  {}  {}", line.node, duration(line.seconds), line.reason),
            _ => format!("{word:>9} {}", line.node),
        };
        self.bar.suspend(|| tell(text.trim_end()));
    }

    fn show_running(&self) {
        let names: Vec<&str> =
            self.running.iter().map(|node| self.workspace.pipeline.graph.node(*node).name.as_str()).collect();
        self.bar.set_message(names.join(" "));
    }

    /// Tells where that is which outs have replaced: it may be somebody's work.
    fn tell_replaced(&self) {
        let replaced = self.workspace.pipeline.project.replaced.lock().unwrap_or_else(PoisonError::into_inner);
        for (path, now) in replaced.iter().take(REPLACED_SHOWN) {
            tell(&format!("warning: the out `{}` replaced what is now {}", path.display(), now.display()));
        }
        if let Some(more) = replaced.len().checked_sub(REPLACED_SHOWN).filter(|more| *more > 0) {
            tell(&format!("warning: and {more} more are in {STATE}/trash"));
        }
    }

    /// Tells the end of the run.
    ///
    /// # Errors
    /// If output or journal could not be written.
    pub fn end(mut self, summary: &Summary, interrupted: bool) -> Result<(), CommandError> {
        self.bar.finish_and_clear();
        self.tell_replaced();
        let seconds = self.workspace.elapsed();
        let end = Line::End(EndLine::new(summary, seconds, interrupted));
        self.journal.write(&end, true).map_err(CommandError::failed)?;
        match self.globals.format {
            Format::Json => print_json(&RunFinished {
                event: "run_finished",
                run: &self.journal.run,
                ran: summary.ran,
                cached: summary.cached,
                failed: summary.failed,
                skipped: summary.skipped,
                cancelled: summary.cancelled,
                seconds,
                saved_seconds: summary.saved,
            })?,
            Format::Human if self.globals.quiet => {}
            Format::Human => tell(&final_line(summary, seconds)),
        }
        self.trouble.map_or(Ok(()), Err)
    }
}

/// Prints a line on standard output.
///
/// # Errors
/// If standard output is closed.
pub fn say(line: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{line}")
}

/// Prints a line on standard error. Nobody may be reading there, which is no reason to end a run.
pub fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Prints one object a line on standard output.
///
/// # Errors
/// If standard output is closed.
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    out.write_all(b"\n")?;
    out.flush()
}

/// The producer of each port, `node.output`, or the path of a file.
pub fn producers(graph: &Graph, id: NodeId) -> BTreeMap<String, String> {
    let source = |source: &Source| match source {
        Source::Output { node, output, .. } => {
            let from = graph.node(*node);
            format!("{}.{}", from.name, from.stage.outputs[*output].name)
        }
        Source::File { path, .. } => path.display().to_string(),
    };
    let name = |input: &headwater_engine::graph::Input| {
        let labels: Vec<String> = input.label.iter().map(|(axis, label)| format!("{axis}={label}")).collect();
        if labels.is_empty() { input.port.clone() } else { format!("{}[{}]", input.port, labels.join(",")) }
    };
    graph.inputs(id).iter().map(|input| (name(input), source(&input.source))).collect()
}

fn live_bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed} {wide_msg}");
    bar.set_style(style.expect("the template is a constant that parses"));
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// How a run ended, in a line.
pub fn final_line(summary: &Summary, seconds: f64) -> String {
    let mut parts = vec![format!("ran {}", summary.ran), format!("cached {}", summary.cached)];
    let others = [("failed", summary.failed), ("skipped", summary.skipped), ("cancelled", summary.cancelled)];
    parts.extend(others.iter().filter(|(_, count)| *count > 0).map(|(word, count)| format!("{word} {count}")));
    let saved = if summary.saved > 0.0 { format!(", saved {}", duration(summary.saved)) } else { String::new() };
    format!("{} in {}{saved}", parts.join(", "), duration(seconds))
}

/// Seconds as a person reads them.
pub fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.9995 => format!("{:.0} ms", s * 1e3),
        s if s < 60.0 => format!("{s:.2} s"),
        s => format!("{} min {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
    }
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("          {}", printable(line))).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        assert_eq!(duration(0.0123), "12 ms");
        assert_eq!(duration(1.5), "1.50 s");
        assert_eq!(duration(125.0), "2 min 05 s");
    }

    #[test]
    fn the_final_line_leaves_out_what_did_not_happen() {
        let summary = Summary { ran: 3, cached: 17, saved: 12.4, ..Summary::default() };
        assert_eq!(final_line(&summary, 1.2), "ran 3, cached 17 in 1.20 s, saved 12.40 s");
        let summary = Summary { failed: 1, skipped: 2, ..Summary::default() };
        assert_eq!(final_line(&summary, 0.1), "ran 0, cached 0, failed 1, skipped 2 in 100 ms");
    }
}
