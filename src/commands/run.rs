//! `headwater run`: brings targets up to date.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use clap::Args;
use headwater_engine::{Event, Finish, Options, Outcome};

use crate::commands::{Globals, status};
use crate::error::CommandError;
use crate::interrupt;
use crate::journal::Journal;
use crate::report::Reporter;
use crate::workspace::Workspace;

/// Bring targets up to date
#[derive(Debug, Args)]
pub struct Run {
    /// Stages or nodes, such as train or train[model=forest]; all if none is named
    targets: Vec<String>,
    /// Set a param for this run
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// How many nodes run at once [default: the number of cores]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
    /// After a failure, go on with what does not need it
    #[arg(long)]
    keep_going: bool,
    /// Run this stage or node whatever its record says
    #[arg(long, value_name = "TARGET")]
    force: Vec<String>,
    /// Say what would run, and run nothing
    #[arg(long)]
    dry_run: bool,
}

impl Run {
    /// # Errors
    /// If the pipeline is wrong, or a node fails.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let workspace = Workspace::open(&globals.pipeline, &self.settings)?;
        let forced = if self.force.is_empty() { Vec::new() } else { workspace.pipeline.targets(&self.force)? };
        let mut targets = workspace.pipeline.targets(&self.targets)?;
        targets.extend(&forced);
        let options =
            Options { targets, forced, jobs: self.jobs(), keep_going: self.keep_going, preview: self.dry_run };
        if self.dry_run {
            return status::preview(&workspace, &options, globals);
        }
        let project = &workspace.pipeline.project;
        interrupt::listen(project).map_err(CommandError::failed)?;
        let arguments = std::env::args().skip(1).collect();
        let pipeline = &workspace.pipeline;
        let journal = Journal::begin(&pipeline.project.state, &pipeline.file.name, arguments);
        let journal = journal.map_err(CommandError::failed)?;
        let mut reporter = Reporter::new(&workspace, globals, journal);
        let mut finished = BTreeMap::new();
        let summary = workspace.drive(&options, &mut |event| {
            if let Event::Finished(Finish { node, key: Some(key), outcome: Outcome::Ran | Outcome::Cached, .. }) =
                &event
            {
                finished.insert(*node, *key);
            }
            reporter.take(event);
        })?;
        workspace.remember_use(&finished)?;
        reporter.end(&summary)?;
        if interrupt::is_interrupted(project) {
            return Err(CommandError::Interrupted);
        }
        if summary.failed > 0 { Err(CommandError::RunFailed) } else { Ok(()) }
    }

    fn jobs(&self) -> usize {
        self.jobs.or_else(|| std::thread::available_parallelism().ok()).map_or(1, Into::into)
    }
}
