//! `headwater completions`: what a shell loads to complete commands and options.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::commands::Cli;
use crate::error::CommandError;

/// Print what a shell loads to complete commands and options
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell, as in: headwater completions bash > ~/.local/share/bash-completion/completions/headwater
    shell: Shell,
}

impl Completions {
    /// # Errors
    /// If output cannot be written.
    pub fn execute(&self) -> Result<(), CommandError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "headwater", &mut script);
        Ok(std::io::stdout().write_all(&script)?)
    }
}
