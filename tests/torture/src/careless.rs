//! `Careless`: writers that say that they are done and have synced nothing. A harness that does not see them lose data
//! sees nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::headwater::PROGRAMS;
use crate::random::Random;
use crate::score::Trouble;
use crate::tool::{Tool, Verdict};
use crate::traced::Ending;

/// Writes a file beside another and renames it over that, without a sync.
pub struct Careless;

/// What is there before, and after.
fn text(number: u64, after: bool) -> String {
    format!("{} {number}\n", if after { "after" } else { "before" }).repeat(500)
}

impl Tool for Careless {
    fn name(&self) -> &'static str {
        "careless"
    }

    fn version(&self) -> Result<String, Trouble> {
        Ok("a writer that syncs nothing".into())
    }

    fn prepare(&self, folder: &Path, number: u64) -> Result<(), Trouble> {
        fs::create_dir_all(folder.join("kept"))?;
        fs::write(folder.join("kept/file"), text(number, false))?;
        Ok(fs::write(folder.join("wanted"), text(number, true))?)
    }

    fn work(&self, folder: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", "cat wanted > kept/tmp && mv kept/tmp kept/file"]).current_dir(folder);
        command.env_clear().env("PATH", PROGRAMS);
        command
    }

    fn judge(&self, folder: &Path, number: u64, _work: &Ending) -> Result<Verdict, Trouble> {
        let found = fs::read(folder.join("kept/file")).unwrap_or_default();
        Ok(match found {
            found if found == text(number, true).as_bytes() => Verdict::Right,
            found if found == text(number, false).as_bytes() => Verdict::Lost("the file is as it was before".into()),
            found => Verdict::Wrong(format!("the file has {} bytes, neither old nor new", found.len())),
        })
    }

    fn kept(&self, folder: &Path) -> PathBuf {
        folder.join("kept")
    }

    fn read(&self, folder: &Path, number: u64, _random: &mut Random) -> Result<Verdict, Trouble> {
        self.judge(folder, number, &Ending::default())
    }
}
