//! `Workshop`: what all commands of a project share: the supervisors that run them, the folders in which they run, what they
//! have made, and what each may use.
//!
//! It does not know what a command makes.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use headwater_sandbox::{Bounds, Supervisors, bounds};

use crate::process::command::Command;
use crate::process::made::MadeOuts;
use crate::process::reach::{self, Reach};
use crate::process::work::WorkFolders;

/// The first argument by which this program knows that it is to be a supervisor.
pub const SUPERVISE: &str = "supervise-commands";

/// The first argument by which this program knows that it is to become a traced command.
pub const TRACE: &str = "trace-command";

/// Whether and how the bounds of a command are in force; it is part of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hermetic {
    /// The kernel refuses what is not declared.
    Enforced,
    /// The pipeline file does not ask for it.
    Off,
    /// The pipeline file asks for it, and this system cannot do it.
    Unavailable,
}

impl Hermetic {
    /// What holds for a command that asks for bounds, or does not.
    pub fn of(declared: bool) -> Self {
        static ENFORCEABLE: OnceLock<bool> = OnceLock::new();
        match (declared, ENFORCEABLE.get_or_init(bounds::enforceable)) {
            (false, _) => Self::Off,
            (true, true) => Self::Enforced,
            (true, false) => Self::Unavailable,
        }
    }

    /// The word for it in keys, in JSON and in the journal.
    pub fn word(self) -> &'static str {
        match self {
            Self::Enforced => "enforced",
            Self::Off => "off",
            Self::Unavailable => "unavailable",
        }
    }
}

/// Where a project's commands are run.
pub struct Workshop {
    pub supervisors: Supervisors,
    pub folders: WorkFolders,
    pub made: MadeOuts,
    /// What no command may see.
    holes: OnceLock<Vec<PathBuf>>,
    reach: OnceLock<Reach>,
}

impl Workshop {
    /// Nothing is started yet.
    pub fn new() -> Self {
        // The file that runs, also if another has been put in its place meanwhile.
        let supervisors = Supervisors::new("/proc/self/exe".into(), vec![SUPERVISE.into()]);
        let (folders, made) = (WorkFolders::default(), MadeOuts::default());
        Self { supervisors, folders, made, holes: OnceLock::new(), reach: OnceLock::new() }
    }

    /// Says which folders no command may see; the first call counts.
    pub fn hide(&self, holes: Vec<PathBuf>) {
        self.holes.get_or_init(|| holes);
    }

    /// The bounds of a command that works in `folder`, if it has any.
    pub fn bounds(&self, command: &Command, folder: &Path) -> Option<Bounds> {
        let reach = || Reach::new(self.holes.get().cloned().unwrap_or_default());
        let enforced = command.hermetic() == Hermetic::Enforced;
        enforced.then(|| self.reach.get_or_init(reach).bounds(command, folder))
    }

    /// The bounds of a command that is traced in `folder`: it reads what is there, and changes nothing elsewhere. `None` if
    /// this system has no bounds.
    pub fn tracing_bounds(command: &Command, folder: &Path) -> Option<Bounds> {
        // One that asks for no bounds has the network.
        let network = command.network || !command.declared_hermetic;
        (Hermetic::of(true) == Hermetic::Enforced).then(|| reach::reading_all(folder, network))
    }
}

impl Default for Workshop {
    fn default() -> Self {
        Self::new()
    }
}
