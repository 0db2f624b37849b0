//! `headwater get`: copies an artifact out of the store, a frame in the form that the file's ending says.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use headwater_cache::{Artifact, Digest, Shape};
use headwater_stages::collect::write::write_frame;
use headwater_stages::frame;
use headwater_stages::kind::artifact;
use headwater_stages::transform::Transform;

use crate::commands::Globals;
use crate::commands::show::open;
use crate::error::CommandError;
use crate::process::outs::{Place, write_tree};
use crate::sources::Kept;
use crate::workspace::{Workspace, is_digest};

/// Copy an artifact out of the store
#[derive(Debug, Args)]
pub struct Get {
    /// stage[axis=value,…].output, or the beginning of a digest, also of a kept source
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
        let found = match workspace.artifact(&self.reference) {
            Ok(found) => found,
            Err(error) if is_digest(&self.reference) => return self.put_back(&workspace, error),
            Err(error) => return Err(error),
        };
        refuse_to_replace(&self.output, self.overwrite)?;
        let artifact = &found.artifact;
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
            (_, Shape::Tree) => self.write_folder(&workspace, artifact),
            (type_name, Shape::Blob) => self.write_file(&workspace, &artifact.digest, type_name == "executable"),
        }
    }

    /// Writes a source that a run has kept; `error` if there is none of such a digest.
    fn put_back(&self, workspace: &Workspace, error: CommandError) -> Result<(), CommandError> {
        let kept = workspace.kept_source(&self.reference)?.ok_or(error)?;
        refuse_to_replace(&self.output, self.overwrite)?;
        match kept {
            Kept::Folder(artifact) => self.write_folder(workspace, &artifact),
            Kept::File(digest) => self.write_file(workspace, &digest, false),
        }
    }

    fn write_file(&self, workspace: &Workspace, digest: &Digest, executable: bool) -> Result<(), CommandError> {
        let restored = workspace.store.restore(digest, &self.output, executable);
        restored.and_then(|()| workspace.store.commit_restored()).map_err(CommandError::failed)
    }

    fn write_folder(&self, workspace: &Workspace, artifact: &Artifact) -> Result<(), CommandError> {
        if self.output.read_dir().is_ok_and(|mut entries| entries.next().is_some()) {
            let text = format!("{} is a folder with files in it", self.output.display());
            return Err(CommandError::Usage(text, vec!["choose a path that is not there".into()]));
        }
        write_tree(&workspace.store, artifact, &self.output, Place::Stay).map_err(failure)?;
        workspace.store.commit_restored().map_err(CommandError::failed)
    }

    fn is_json(&self) -> bool {
        self.output.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"))
    }
}

fn failure(failure: headwater_engine::Failure) -> CommandError {
    match failure {
        headwater_engine::Failure::Error(error) => CommandError::failed(error),
        cancelled @ headwater_engine::Failure::Cancelled => CommandError::failed(cancelled.to_string()),
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

/// Writes a file whole, or not at all, durably: what stood there is replaced at once, and missing folders are made.
///
/// # Errors
/// If it cannot be written; the path is named.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    let failed = |error: std::io::Error| CommandError::failed(format!("{} cannot be written: {error}", path.display()));
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}.part", std::process::id()));
    let part = path.with_file_name(name);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || {
        std::fs::create_dir_all(folder)?;
        let mut file = File::create(&part)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&part, path)?;
        match File::open(folder) {
            // A folder may be written to and not read.
            Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
            folder => folder?.sync_all(),
        }
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&part);
        failed(error)
    })
}
