//! `World`: what most rows share: the binary, the oracles, and finished projects to begin from.
//!
//! It does not know what a row does to them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::crew::Orders;
use crate::headwater::Headwater;
use crate::oracle::Oracles;
use crate::score::{Trouble, during};
use crate::subject::Inputs;

/// What a case begins from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    /// Inputs and nothing else.
    Fresh,
    /// A finished project with one input edited.
    Edited,
}

/// What rows share.
pub struct World {
    pub headwater: Headwater,
    pub oracles: Oracles,
    /// A finished project of the default inputs.
    pub finished: PathBuf,
}

impl World {
    /// Makes the finished project.
    ///
    /// # Errors
    /// If an undisturbed run is not as it should be.
    pub fn new(headwater: &Headwater, orders: &Orders) -> Result<Self, Trouble> {
        let oracles = Oracles::new(headwater.clone(), orders.make_folder("oracles")?);
        let this = Self { headwater: headwater.clone(), oracles, finished: orders.make_folder("finished")? };
        let inputs = Inputs::default();
        inputs.write(&this.finished)?;
        let run = this.headwater.call(&this.finished, &["run", "--format", "json"])?;
        let judged = this.oracles.of(&inputs)?.judge_run(&this.finished, &run);
        judged.map_err(|trouble| trouble.at("an undisturbed run"))?;
        Ok(this)
    }

    /// Begins a project; the inputs that it has now.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn begin(&self, base: Base, project: &Path, inputs: &Inputs) -> Result<(), Trouble> {
        match base {
            Base::Fresh => fs::create_dir_all(project)?,
            Base::Edited => copy(&self.finished, project)?,
        }
        inputs.write(project)
    }
}

impl Base {
    /// The inputs that a case of this base has, an edit away from those of the finished project.
    pub fn inputs(self, random: &mut crate::random::Random) -> Inputs {
        match self {
            Self::Fresh => Inputs::default(),
            Self::Edited => Inputs::default().edited(random),
        }
    }
}

/// Copies a folder: files, modes and links.
///
/// # Errors
/// If something cannot be copied.
pub fn copy(from: &Path, to: &Path) -> Result<(), Trouble> {
    for entry in walkdir::WalkDir::new(from).sort_by_file_name() {
        let entry = during("list", entry)?;
        let target = to.join(entry.path().strip_prefix(from).unwrap_or(entry.path()));
        let kind = entry.file_type();
        let copied = if kind.is_dir() {
            fs::create_dir_all(&target)
        } else if kind.is_symlink() {
            symlink(fs::read_link(entry.path())?, &target)
        } else {
            fs::copy(entry.path(), &target).map(drop)
        };
        during(format!("copy {}", entry.path().display()), copied)?;
    }
    Ok(())
}
