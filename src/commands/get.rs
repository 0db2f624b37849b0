//! `headwater get`: copies an artifact out of the store, a frame in the form that the file's ending says.

use std::path::{Path, PathBuf};

use clap::Args;
use headwater_cache::{Shape, Store};
use headwater_stages::collect::write::write_frame;
use headwater_stages::frame;
use headwater_stages::kind::artifact;
use headwater_stages::transform::Transform;

use crate::commands::Globals;
use crate::commands::show::open;
use crate::error::CommandError;
use crate::process::outs::write_tree;
use crate::workspace::Workspace;

/// Copy an artifact out of the store
#[derive(Debug, Args)]
pub struct Get {
    /// stage[axis=value,…].output, or the beginning of a digest
    reference: String,
    /// The file to write; for a frame .csv, .tsv, .parquet, .arrow or .jsonl, for metrics and tables .json
    #[arg(short, long, value_name = "PATH")]
    output: PathBuf,
    /// Replace the file if it is there
    #[arg(long)]
    overwrite: bool,
}

impl Get {
    /// # Errors
    /// If there is no such artifact, or the file is there already or cannot be written.
    pub fn execute(&self, globals: &Globals) -> Result<(), CommandError> {
        let workspace = Workspace::open(&globals.pipeline, &[])?;
        let found = workspace.artifact(&self.reference)?;
        refuse_to_replace(&self.output, self.overwrite)?;
        let (store, artifact) = (&workspace.store, &found.artifact);
        match (artifact.type_name.as_str(), artifact.shape) {
            (artifact::FRAME, _) => {
                let stored = open(&workspace, &found)?;
                let frame = frame::decode(&*stored).map_err(CommandError::artifact)?;
                let bytes = write_frame(&frame, &self.output.to_string_lossy());
                write(&self.output, &bytes.map_err(|error| CommandError::usage(error.to_string()))?)
            }
            (artifact::METRICS | artifact::REPORT | artifact::TRANSFORM, _) if !self.is_json() => {
                let text = format!("`{}` is written as JSON, not as {}", found.reference, self.output.display());
                Err(CommandError::Usage(text, vec!["choose a path that ends in .json".into()]))
            }
            (artifact::TRANSFORM, _) => {
                let bytes = open(&workspace, &found)?.blob().map_err(CommandError::artifact)?;
                let transform = Transform::decode(&bytes).map_err(CommandError::artifact)?;
                write(&self.output, transform.describe().as_bytes())
            }
            (_, Shape::Tree) if self.output.read_dir().is_ok_and(|mut entries| entries.next().is_some()) => {
                let text = format!("{} is a folder with files in it", self.output.display());
                Err(CommandError::Usage(text, vec!["choose a path that is not there".into()]))
            }
            (_, Shape::Tree) => {
                write_tree(store, artifact, &self.output, Store::restore).map_err(failure)?;
                store.commit().map_err(CommandError::failed)
            }
            (type_name, Shape::Blob) => {
                let executable = type_name == "executable";
                let restored = store.restore(&artifact.digest, &self.output, executable);
                restored.and_then(|()| store.commit()).map_err(CommandError::failed)
            }
        }
    }
}

impl Get {
    fn is_json(&self) -> bool {
        self.output.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"))
    }
}

fn failure(failure: headwater_engine::Failure) -> CommandError {
    match failure {
        headwater_engine::Failure::Error(error) => CommandError::failed(error),
        headwater_engine::Failure::Lost(digest) => {
            let text = format!("the bytes {digest} are missing or damaged");
            CommandError::Failed(text, vec!["`headwater run` makes them again".into()])
        }
    }
}

/// A file that is there is the user's, and is not replaced unasked.
///
/// # Errors
/// If it is there.
pub fn refuse_to_replace(path: &Path, overwrite: bool) -> Result<(), CommandError> {
    if !overwrite && path.exists() {
        let text = format!("{} is there already", path.display());
        return Err(CommandError::Usage(text, vec!["replace it with --overwrite, or choose another path".into()]));
    }
    Ok(())
}

/// Writes a file whole, or not at all: what stood there is replaced at once.
///
/// # Errors
/// If it cannot be written; the path is named.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    let failed = |error: std::io::Error| CommandError::failed(format!("{} cannot be written: {error}", path.display()));
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&part);
        failed(error)
    })
}
