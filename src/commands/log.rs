//! `headwater log` and `headwater logs`: the history of runs, and a command's captured output.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};

use clap::Args;
use serde::Serialize;

use crate::commands::{Globals, number};
use crate::error::CommandError;
use crate::journal::{EndLine, History, PastRun};
use crate::pipeline::{Pipeline, unreadable};
use crate::process::staging::{printable, states};
use crate::project::Project;
use crate::report::{final_line, print_json, tell};

/// List past runs, newest first
#[derive(Debug, Args)]
pub struct Log {
    /// How many
    #[arg(short, long, default_value_t = 20, value_parser = number)]
    number: usize,
}

/// Show what a command stage printed when it last ran
#[derive(Debug, Args)]
pub struct Logs {
    /// A node of a command stage
    node: String,
}

#[derive(Serialize)]
struct RunJson<'a> {
    event: &'static str,
    run: &'a str,
    started: u64,
    arguments: &'a [String],
    end: Option<&'a EndLine>,
}

impl Log {
    /// # Errors
    /// If output cannot be written.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let project = Project::of(&globals.pipeline).map_err(CommandError::failed)?;
        let history = History::of(&project.state);
        if history.newest().is_none() {
            // In a folder that is not the project's, nothing would look like a project without a history.
            std::fs::metadata(&globals.pipeline).map_err(|error| unreadable(&globals.pipeline, &error))?;
            if !globals.quiet {
                tell("nothing has run yet");
            }
        }
        let mut out = std::io::stdout().lock();
        for run in history.runs().take(self.number) {
            if globals.json() {
                let head = &run.head;
                let (event, end) = ("run", run.end.as_ref());
                print_json(&RunJson { event, run: &head.run, started: head.started, arguments: &head.arguments, end })?;
            } else {
                writeln!(out, "{}", human(&run))?;
            }
        }
        Ok(())
    }
}

fn human(run: &PastRun) -> String {
    let what = match &run.end {
        // It was killed, or goes on.
        None => "has not ended".to_owned(),
        Some(end) => {
            let interrupted = if end.interrupted { "interrupted, " } else { "" };
            format!("{interrupted}{}", final_line(&end.summary(), end.seconds))
        }
    };
    format!("{}  {}  {what}  {}", run.head.run, utc(run.head.started), run.head.arguments.join(" "))
}

/// `2026-11-23 13:05:09`, in UTC; the date by the algorithm `civil_from_days` of Howard Hinnant's
/// "chrono-Compatible Low-Level Date Algorithms" (2013).
fn utc(seconds: u64) -> String {
    let (days, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

impl Logs {
    /// # Errors
    /// If there is no such node, or it has printed nothing yet.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let pipeline = Pipeline::load(&globals.pipeline, &[])?;
        let id = pipeline.one_node(&self.node)?;
        let node = pipeline.graph.node(id);
        if node.stage.kind != "run" {
            let text = format!("`{}` is a built-in stage ({}) and prints nothing", node.name, node.stage.kind);
            return Err(CommandError::Usage(text, vec!["its outputs: headwater show NODE".into()]));
        }
        let path = pipeline.project.log_path(&node.name);
        let file = File::open(&path).map_err(|_| {
            CommandError::Usage(format!("`{}` has not run here yet", node.name), vec!["run it: headwater run".into()])
        })?;
        if globals.json() { print_lines(&node.name, file) } else { print(file) }
    }
}

#[derive(Serialize)]
struct PrintedLine<'a> {
    event: &'static str,
    node: &'a str,
    text: &'a str,
}

/// A line an object; bytes that are no text are replaced.
fn print_lines(node: &str, file: File) -> Result<(), CommandError> {
    for line in BufReader::new(file).split(b'\n') {
        print_json(&PrintedLine { event: "printed", node, text: &String::from_utf8_lossy(&line?) })?;
    }
    Ok(())
}

/// Raw into a pipe; on a terminal, control characters are escaped.
fn print(file: File) -> Result<(), CommandError> {
    let mut out = std::io::stdout().lock();
    if !out.is_terminal() {
        std::io::copy(&mut BufReader::new(file), &mut out)?;
        return Ok(());
    }
    for line in BufReader::new(file).split(b'\n') {
        for shown in states(&String::from_utf8_lossy(&line?)) {
            writeln!(out, "{}", printable(shown))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00");
        assert_eq!(utc(951_782_400), "2000-02-29 00:00:00");
        assert_eq!(utc(1_795_439_109), "2026-11-23 13:05:09");
    }
}
