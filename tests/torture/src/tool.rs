//! `Tool`: something that keeps data and says when it has them, so that the same faults can be tried on all such things.
//!
//! Implemented by Headwater, by its rivals, and by a careless writer that must fail, as a proof that the harness can see.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::random::Random;
use crate::score::Trouble;
use crate::traced::Ending;

/// What is found after a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Right.
    Right,
    /// Right, after something that should have been there was made again.
    MadeAgain,
    /// It said that something is wrong, and gave nothing wrong.
    Refused(String),
    /// As refused, and it says so every time: a person has to do something.
    Stuck(String),
    /// What it had said to be done is gone or has to be done again.
    Lost(String),
    /// It gave wrong bytes as if they were right, or broke down.
    Wrong(String),
}

/// Something that keeps data.
pub trait Tool: Sync {
    /// Its name.
    fn name(&self) -> &'static str;

    /// Its version, in one line.
    ///
    /// # Errors
    /// If it is not there.
    fn version(&self) -> Result<String, Trouble>;

    /// Makes what is there before the work, which the harness then makes durable. `number` chooses the data.
    ///
    /// # Errors
    /// If it cannot be made.
    fn prepare(&self, folder: &Path, number: u64) -> Result<(), Trouble>;

    /// The work; with exit code 0 it says that its results are kept.
    fn work(&self, folder: &Path) -> Command;

    /// Whether its work may be stopped at any call: it is quick, and its children do not outlive it by much.
    fn can_be_traced(&self) -> bool {
        false
    }

    /// Looks at what is there after a power cut. `work` is how the work ended, or what was seen of it until the cut.
    ///
    /// # Errors
    /// If the harness cannot do it.
    fn judge(&self, folder: &Path, number: u64, work: &Ending) -> Result<Verdict, Trouble>;

    /// The folder whose files are to be damaged.
    fn kept(&self, folder: &Path) -> PathBuf;

    /// Uses what is kept, after damage, without knowing of it.
    ///
    /// # Errors
    /// If the harness cannot do it.
    fn read(&self, folder: &Path, number: u64, random: &mut Random) -> Result<Verdict, Trouble>;
}

impl Verdict {
    /// The figure that counts it.
    pub fn figure(&self) -> &'static str {
        match self {
            Self::Right => "right",
            Self::MadeAgain => "right and made again",
            Self::Refused(_) => "honest errors",
            Self::Stuck(_) => "stuck with an honest error",
            Self::Lost(_) => "lost",
            Self::Wrong(_) => "wrong",
        }
    }

    /// All figures, in the order in which they are shown.
    pub const FIGURES: [&'static str; 6] =
        ["right", "right and made again", "honest errors", "stuck with an honest error", "lost", "wrong"];

    /// What was found, if it is not right.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Right | Self::MadeAgain => None,
            Self::Refused(text) | Self::Stuck(text) | Self::Lost(text) | Self::Wrong(text) => Some(text),
        }
    }
}

/// A violation is a wrong answer; a fault of the harness stays one.
///
/// # Errors
/// The fault of the harness.
pub fn wrong(judged: Result<Verdict, Trouble>) -> Result<Verdict, Trouble> {
    match judged {
        Err(Trouble::Violation(what)) => Ok(Verdict::Wrong(what)),
        other => other,
    }
}
