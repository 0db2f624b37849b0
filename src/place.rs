//! `Place`: which file stands at a path, and when it was last changed in any way.
//!
//! It does not know what the file holds. Invariant: a file that was written to, replaced, or given other rights since has
//! another place, unless that happened within the instant that its times can tell apart.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// Times of files may be as coarse as this.
const COARSE: Duration = Duration::from_secs(2);

/// Which file stands at a path, links followed, and when its content, rights or names were changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    device: u64,
    inode: u64,
    changed: (i64, i64),
}

impl Place {
    /// What stands there now.
    ///
    /// # Errors
    /// If nothing does, or it cannot be looked at.
    pub fn of(path: &Path) -> io::Result<Self> {
        let about = fs::metadata(path)?;
        Ok(Self { device: about.dev(), inode: about.ino(), changed: (about.ctime(), about.ctime_nsec()) })
    }

    /// This program's own.
    ///
    /// # Errors
    /// If it cannot be looked at.
    pub fn of_program() -> io::Result<Self> {
        Self::of(&std::env::current_exe()?)
    }

    /// Whether it is the same file or folder, changed or not.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Whether a change from now on would be told by the times.
    pub fn is_settled(&self) -> bool {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(self.changed.0).is_ok_and(|changed| Duration::from_secs(changed) + COARSE < now)
    }
}
