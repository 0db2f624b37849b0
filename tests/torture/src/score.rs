//! `Score`: what a row counted, and what it found wrong; and `Trouble`, why a case ended early.
//!
//! It does not know what the rows do. Invariant: a skipped row is never shown as passed.

use std::fmt;
use std::io;
use std::time::Duration;

/// Why a case ended before its end.
#[derive(Debug)]
pub enum Trouble {
    /// The subject broke a promise.
    Violation(String),
    /// The harness itself could not go on; nothing is said of the subject.
    Harness(String),
    /// What the row needs is not on this machine.
    Skipped(String),
}

/// What went wrong, and the case that shows it again.
#[derive(Debug, Clone)]
pub struct Violation {
    pub case: u64,
    pub what: String,
}

/// The figures of one row.
#[derive(Debug, Clone)]
pub struct Score {
    pub row: String,
    /// The command line that gives these figures again.
    pub command: String,
    pub figures: Vec<(&'static str, u64)>,
    pub violations: Vec<Violation>,
    /// What the harness could not do.
    pub failures: Vec<String>,
    /// What is no violation, and of interest.
    pub notes: Vec<String>,
    pub skipped: Option<String>,
    pub took: Duration,
}

impl Trouble {
    /// A promise broken.
    pub fn violation(what: impl Into<String>) -> Self {
        Self::Violation(what.into())
    }

    /// The same, with where it happened in front.
    pub fn at(self, place: impl fmt::Display) -> Self {
        match self {
            Self::Violation(what) => Self::Violation(format!("{place}: {what}")),
            Self::Harness(what) => Self::Harness(format!("{place}: {what}")),
            Self::Skipped(why) => Self::Skipped(why),
        }
    }

    /// A fault of the harness or the machine.
    pub fn harness(what: impl Into<String>) -> Self {
        Self::Harness(what.into())
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Harness(error.to_string())
    }
}

impl From<nix::Error> for Trouble {
    fn from(error: nix::Error) -> Self {
        Self::Harness(format!("a system call of the harness: {error}"))
    }
}

/// Says where an error of the harness came from.
pub fn during<T, E: fmt::Display>(what: impl fmt::Display, result: Result<T, E>) -> Result<T, Trouble> {
    result.map_err(|error| Trouble::harness(format!("{what}: {error}")))
}

impl Score {
    /// No case yet.
    pub fn new(row: impl Into<String>, command: impl Into<String>) -> Self {
        let (row, command, took) = (row.into(), command.into(), Duration::ZERO);
        let (figures, violations) = (Vec::new(), Vec::new());
        Self { row, command, figures, violations, failures: Vec::new(), notes: Vec::new(), skipped: None, took }
    }

    /// Adds to a figure; figures stand in the order in which they were first named.
    pub fn add(&mut self, name: &'static str, number: u64) {
        match self.figures.iter_mut().find(|(known, _)| *known == name) {
            Some((_, figure)) => *figure += number,
            None => self.figures.push((name, number)),
        }
    }

    /// Takes in why a case ended.
    pub fn take(&mut self, case: u64, trouble: Trouble) {
        match trouble {
            Trouble::Violation(what) => self.violations.push(Violation { case, what }),
            Trouble::Harness(what) => self.failures.push(format!("case {case}: {what}")),
            Trouble::Skipped(why) => self.skipped = Some(why),
        }
    }

    /// Whether every case was as promised, and there was one.
    pub fn passed(&self) -> bool {
        self.skipped.is_none() && self.violations.is_empty() && self.failures.is_empty()
    }

    fn counted(&self) -> String {
        let figures = self.figures.iter().map(|(name, figure)| format!("{} {name}", thousands(*figure)));
        figures.collect::<Vec<_>>().join(", ")
    }

    /// One row of a Markdown table: row, figures, violations, seconds, command.
    pub fn markdown(&self) -> String {
        let seconds = self.took.as_secs();
        let (figures, violations) = match &self.skipped {
            Some(why) => (format!("skipped: {why}"), "-".to_owned()),
            None => (self.counted(), self.violations.len().to_string()),
        };
        format!("| {} | {figures} | {violations} | {seconds} s | `{}` |", self.row, self.command)
    }
}

/// One line for people.
impl fmt::Display for Score {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(why) = &self.skipped {
            return write!(f, "{}: SKIPPED, NOT PASSED: {why}", self.row);
        }
        let (violations, seconds) = (self.violations.len(), self.took.as_secs_f64());
        write!(f, "{}: {}, {violations} violations in {seconds:.1} s", self.row, self.counted())?;
        if self.failures.is_empty() { Ok(()) } else { write!(f, ", {} FAILURES OF THE HARNESS", self.failures.len()) }
    }
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skipped_row_says_so_and_has_not_passed() {
        let mut score = Score::new("power", "headwater-torture power");
        score.take(0, Trouble::Skipped("no loop devices".into()));
        assert!(!score.passed());
        assert!(score.to_string().contains("SKIPPED, NOT PASSED: no loop devices"));
        assert!(score.markdown().contains("skipped: no loop devices | - |"));
    }

    #[test]
    fn figures_keep_their_order_and_show_thousands() {
        let mut score = Score::new("kill", "c");
        score.add("kills", 1_234_567);
        score.add("again", 0);
        score.add("kills", 1);
        assert_eq!(score.counted(), "1,234,568 kills, 0 again");
    }
}
