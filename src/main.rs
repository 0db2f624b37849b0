//! The `headwater` program: parses the command line, runs one command, and turns its error into text and exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    headwater::commands::main()
}
