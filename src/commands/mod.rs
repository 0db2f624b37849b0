//! The command line: a verb a file. This one parses and dispatches.

pub mod compare;
pub mod completions;
pub mod deps;
pub mod diff;
pub mod explain;
pub mod get;
pub mod graph;
pub mod init;
pub mod lineage;
pub mod log;
pub mod predict;
pub mod run;
pub mod schema;
pub mod show;
pub mod status;
pub mod store;
pub mod verify;

use std::ffi::OsString;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::error::CommandError;
use crate::process::workshop::{SUPERVISE, TRACE};
use crate::project::{self, PIPELINE};
use crate::unchanged;

/// Machine-learning pipelines built the way a build system builds software.
#[derive(Debug, Parser)]
#[command(name = "headwater", version, about, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

/// A number of the command line; a parser's own words for one that is none are those of a programmer.
///
/// # Errors
/// If it is none.
pub fn number(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "expected a whole number".to_owned())
}

/// Flags that every command takes.
#[derive(Debug, Args)]
pub struct Globals {
    /// The pipeline file; without it, the nearest pipeline.toml of this folder and those above
    #[arg(long = "pipeline", global = true, value_name = "PATH")]
    given: Option<PathBuf>,
    #[arg(skip)]
    pub pipeline: PathBuf,
    /// For people, or one JSON object a line on standard output
    #[arg(long, global = true, value_enum, default_value_t = Format::Human)]
    pub format: Format,
    /// When to use colours
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto)]
    pub color: Colour,
    /// Say less
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Say more: name cached nodes too
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Human,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Init),
    Run(run::Run),
    Status(status::Status),
    Explain(explain::Explain),
    Deps(deps::Deps),
    Graph(graph::DrawGraph),
    Show(show::Show),
    Get(get::Get),
    Compare(compare::Compare),
    Params(diff::Params),
    Metrics(diff::Metrics),
    Lineage(lineage::Lineage),
    Predict(predict::Predict),
    Log(log::Log),
    Logs(log::Logs),
    Schema(schema::PrintSchema),
    Store(store::StoreCommand),
    Completions(completions::Completions),
}

impl Cli {
    /// With the pipeline file of the project around, if none is given. `init` makes one.
    fn in_project(mut self) -> Self {
        let around = || std::env::current_dir().ok().and_then(|folder| project::around(&folder));
        let around = || if matches!(self.command, Command::Init(_)) { None } else { around() };
        self.globals.pipeline = self.globals.given.clone().or_else(around).unwrap_or_else(|| PIPELINE.into());
        self
    }
}

impl Globals {
    fn colours(&self) -> bool {
        match self.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none(),
        }
    }

    /// Whether results are for scripts.
    pub fn json(&self) -> bool {
        self.format == Format::Json
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    if std::env::args_os().nth(1).is_some_and(|word| word == SUPERVISE) {
        return headwater_sandbox::supervisor::serve().map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
    }
    if std::env::args_os().nth(1).is_some_and(|word| word == TRACE) {
        let arguments: Vec<OsString> = std::env::args_os().skip(2).collect();
        eprintln!("{}", headwater_sandbox::tracing::become_traced(&arguments));
        return ExitCode::FAILURE;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli.in_project(),
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    match dispatch(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // It may have found bytes of the store lost, which a run can make again.
            unchanged::forget(&cli.globals.pipeline);
            eprint!("{}", error.render(cli.globals.colours()));
            ExitCode::from(error.exit_code())
        }
    }
}

fn dispatch(cli: &Cli) -> Result<(), CommandError> {
    let globals = &cli.globals;
    match &cli.command {
        Command::Init(command) => command.execute(globals),
        Command::Run(command) => command.execute(globals),
        Command::Status(command) => command.execute(globals),
        Command::Explain(command) => command.execute(globals),
        Command::Deps(command) => command.execute(globals),
        Command::Graph(command) => command.execute(globals),
        Command::Show(command) => command.execute(globals),
        Command::Get(command) => command.execute(globals),
        Command::Compare(command) => command.execute(globals),
        Command::Params(command) => command.execute(globals),
        Command::Metrics(command) => command.execute(globals),
        Command::Lineage(command) => command.execute(globals),
        Command::Predict(command) => command.execute(globals),
        Command::Log(command) => command.execute(globals),
        Command::Logs(command) => command.execute(globals),
        Command::Schema(command) => command.execute(globals),
        Command::Store(command) => command.execute(globals),
        Command::Completions(command) => command.execute(),
    }
}
