//! `Careful`: a writer of few lines that does all that is known to be needed, and nothing else: each file is written beside
//! its place, synced, renamed, and its folder synced. What a file system does to it is the file system's doing: it is the
//! control by which a fault of the machine is told from one of the subject.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::headwater::{PROGRAMS, ending};
use crate::random::Random;
use crate::score::Trouble;
use crate::tool::{Tool, Verdict};
use crate::traced::Ending;

/// How many files it writes.
const FILES: u64 = 8;

/// `sync` is `fsync` of what it is given, a folder as well.
const WRITE: &str = "for n in 0 1 2 3 4 5 6 7; do mkdir -p kept/$n && sync kept && cat wanted/$n > kept/$n/tmp && \
     sync kept/$n/tmp && mv kept/$n/tmp kept/$n/file && sync kept/$n || exit 1; done";

/// Syncs everything, in order.
pub struct Careful;

/// Files of 2 to 9 kB.
fn text(number: u64, file: u64, after: bool) -> String {
    format!("{} {number} {file}\n", if after { "after" } else { "before" }).repeat(200 + 80 * file as usize)
}

impl Careful {
    /// Whether each file has the new text; one that has neither is wrong.
    fn written(folder: &Path, number: u64) -> Result<Vec<bool>, Verdict> {
        let state = |file| match fs::read(folder.join(format!("kept/{file}/file"))) {
            Ok(found) if found == text(number, file, true).as_bytes() => Ok(true),
            Ok(found) if file % 2 == 0 && found == text(number, file, false).as_bytes() => Ok(false),
            Err(error) if file % 2 == 1 && error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Ok(found) => Err(Verdict::Wrong(format!("file {file} has {} bytes, neither old nor new", found.len()))),
            Err(error) => Err(Verdict::Lost(format!("file {file}: {error}"))),
        };
        (0..FILES).map(state).collect()
    }
}

impl Tool for Careful {
    fn name(&self) -> &'static str {
        "careful"
    }

    fn version(&self) -> Result<String, Trouble> {
        Ok("a writer that syncs everything".into())
    }

    /// Every other file is there before, in an older version.
    fn prepare(&self, folder: &Path, number: u64) -> Result<(), Trouble> {
        fs::create_dir_all(folder.join("wanted"))?;
        for file in 0..FILES {
            fs::write(folder.join(format!("wanted/{file}")), text(number, file, true))?;
            if file % 2 == 0 {
                fs::create_dir_all(folder.join(format!("kept/{file}")))?;
                fs::write(folder.join(format!("kept/{file}/file")), text(number, file, false))?;
            }
        }
        Ok(fs::create_dir_all(folder.join("kept"))?)
    }

    fn work(&self, folder: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", WRITE]).current_dir(folder).env_clear().env("PATH", PROGRAMS);
        command
    }

    fn can_be_traced(&self) -> bool {
        true
    }

    fn judge(&self, folder: &Path, number: u64, work: &Ending) -> Result<Verdict, Trouble> {
        match Self::written(folder, number) {
            Err(verdict) => return Ok(verdict),
            Ok(written) if work.code == Some(0) && written.contains(&false) => {
                return Ok(Verdict::Lost(format!("exit code 0, files written: {written:?}")));
            }
            Ok(_) => {}
        }
        let again = ending(&mut self.work(folder))?;
        if again.code != Some(0) {
            return Ok(Verdict::Stuck(again.told()));
        }
        Ok(match Self::written(folder, number) {
            Err(verdict) => verdict,
            Ok(written) if written.contains(&false) => Verdict::Wrong(format!("written again: {written:?}")),
            Ok(_) => Verdict::Right,
        })
    }

    fn kept(&self, folder: &Path) -> PathBuf {
        folder.join("kept")
    }

    fn read(&self, folder: &Path, number: u64, _random: &mut Random) -> Result<Verdict, Trouble> {
        self.judge(folder, number, &Ending::default())
    }
}
