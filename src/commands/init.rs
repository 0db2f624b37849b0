//! `headwater init`: a pipeline file to begin with, or a worked example with its data.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::commands::Globals;
use crate::error::CommandError;
use crate::project::STATE;
use crate::report::tell;

/// Write a pipeline file to begin with, or a worked example
#[derive(Debug, Args)]
pub struct Init {
    /// A worked example with its data
    #[arg(long, value_enum, value_name = "NAME")]
    example: Option<Example>,
    /// The folder; made if it is not there
    #[arg(default_value = ".")]
    folder: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Example {
    Penguins,
}

const PENGUINS: [(&str, &[u8]); 3] = [
    ("pipeline.toml", include_bytes!("../../examples/penguins/pipeline.toml")),
    ("data/penguins.csv", include_bytes!("../../examples/penguins/data/penguins.csv")),
    ("README.md", include_bytes!("../../examples/penguins/README.md")),
];

const TEMPLATE: &str = include_str!("template.toml");

impl Init {
    /// # Errors
    /// If a file that it would write is there already.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let files: Vec<(&str, &[u8])> = match self.example {
            Some(Example::Penguins) => PENGUINS.to_vec(),
            None => vec![("pipeline.toml", TEMPLATE.as_bytes())],
        };
        for (path, _) in &files {
            let target = self.folder.join(path);
            if target.exists() {
                let text = format!("{} is there already", target.display());
                return Err(CommandError::Usage(text, vec!["choose another folder: headwater init FOLDER".into()]));
            }
        }
        for (path, bytes) in &files {
            write(&self.folder.join(path), bytes)?;
        }
        self.ignore_state()?;
        if !globals.quiet {
            let names: Vec<&str> = files.iter().map(|(path, _)| *path).collect();
            tell(&format!("wrote {} in {}", names.join(", "), self.folder.display()));
            let at =
                if self.folder == Path::new(".") { String::new() } else { format!("cd {} && ", self.folder.display()) };
            tell(&format!("next: {at}headwater run"));
        }
        Ok(())
    }

    /// Keeps the state folder out of git.
    fn ignore_state(&self) -> Result<(), CommandError> {
        let path = self.folder.join(".gitignore");
        let line = format!("/{STATE}/");
        let mut bytes = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            read => read.map_err(|error| CommandError::failed(format!("{}: {error}", path.display())))?,
        };
        if bytes.split(|byte| *byte == b'\n').any(|known| known.trim_ascii() == line.as_bytes()) {
            return Ok(());
        }
        if !bytes.is_empty() && !bytes.ends_with(b"\n") {
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(format!("{line}\n").as_bytes());
        write(&path, &bytes)
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    let failed = |error: std::io::Error| CommandError::failed(format!("{} cannot be written: {error}", path.display()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, bytes).map_err(failed)
}
