//! `Leftovers`: which files of the project are outs that runs put there, so that one which no node makes any more is known.
//!
//! A folder that is a dep may hold outs; its other files are files of the project. An out of a node that is gone, such as of a
//! value that was taken out of the matrix, is none of either: a build from scratch would not have it. It is known by its path
//! and its content, so that a file that a person put there or changed counts. Nothing is ever removed.
//!
//! It does not know nodes or stages. Invariant: a list that cannot be read is none, and every file then one of the project.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use headwater_cache::{Artifact, Digest};

const FILE: &str = "outs";

/// Outs that stand in the project, or once did.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Leftovers(BTreeMap<PathBuf, String>);

impl Leftovers {
    /// What runs have noted.
    pub fn of(state: &Path) -> Self {
        let bytes = fs::read(state.join(FILE)).unwrap_or_default();
        Self(serde_json::from_slice(&bytes).unwrap_or_default())
    }

    /// Whether anything was noted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was noted within a folder, with its content.
    pub fn within(&self, folder: &Path) -> impl Iterator<Item = (&Path, Digest)> {
        let all = self.0.range::<Path, _>((Bound::Excluded(folder), Bound::Unbounded));
        let inside = all.take_while(move |(path, _)| path.starts_with(folder));
        inside.filter_map(|(path, digest)| Some((path.as_path(), digest.parse().ok()?)))
    }

    /// Notes the outs of a run beside those that still stand there.
    ///
    /// # Errors
    /// If the list cannot be written.
    pub fn note(&self, root: &Path, state: &Path, outs: &[(PathBuf, Artifact)]) -> io::Result<()> {
        let stands = |path: &Path| fs::symlink_metadata(root.join(path)).is_ok();
        let mut all = Self(self.0.clone());
        all.0.retain(|path, _| stands(path));
        all.0.extend(outs.iter().map(|(path, out)| (path.clone(), out.digest.to_string())));
        if all == *self {
            return Ok(());
        }
        let (path, aside) = (state.join(FILE), state.join(FILE).with_extension("part"));
        fs::write(&aside, serde_json::to_vec(&all.0)?)?;
        fs::rename(&aside, &path)
    }
}
