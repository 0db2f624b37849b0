//! `Fingerprint`: what tells one state of a file from another without reading it, and `Hashed`: what it had then.
//!
//! Does not know where digests are kept, nor how files are read.
//!
//! Git's rule for racily clean files holds: a file may change twice within one tick of its clock, so a digest is
//! trusted only if both times of the file were at least two seconds old when hashing began, and only while the clock is
//! not behind that moment.
//!
//! Invariant: nothing is trusted that a clock which was set back, or a file of the future, could have made look old.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::disk::Meta;

/// How old a file's times must be when it is hashed: the coarsest clock among file systems ticks every two seconds.
pub(crate) const MARGIN_SECONDS: i64 = 2;
/// How old a file's times must be when it is hashed to be sure that its bytes are on the drive, though nobody synced
/// them: the kernel writes them back within a minute, unless it is told to take longer.
pub(crate) const SETTLED_SECONDS: i64 = 600;
/// The bit that makes a file executable for its owner.
const EXECUTABLE: u16 = 0o100;

/// What a file contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    /// Digest of its content.
    pub digest: Digest,
    /// Length of its content.
    pub bytes: u64,
    /// Whether its owner may execute it.
    pub executable: bool,
}

/// A moment of the wall clock or of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) seconds: i64,
    pub(crate) nanos: u32,
}

impl Moment {
    /// A clock before 1970 is the earliest of moments: nothing is trusted then.
    pub(crate) fn now() -> Moment {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let parts = since.and_then(|since| Some((i64::try_from(since.as_secs()).ok()?, since.subsec_nanos())));
        let (seconds, nanos) = parts.unwrap_or((i64::MIN, 0));
        Moment { seconds, nanos }
    }

    pub(crate) fn plus(self, seconds: i64) -> Moment {
        let seconds = self.seconds.saturating_add(seconds);
        Moment { seconds, ..self }
    }

    /// What the kernel says; nanoseconds outside of a second are none, and such a moment is the last of its second.
    fn of((seconds, nanos): (i64, i64)) -> Moment {
        let nanos = u32::try_from(nanos).unwrap_or(u32::MAX);
        Moment { seconds, nanos }
    }
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    pub(crate) size: u64,
    pub(crate) modified: Moment,
    pub(crate) changed: Moment,
    pub(crate) mode: u16,
}

impl Fingerprint {
    pub(crate) fn of(found: &Meta) -> Fingerprint {
        Fingerprint {
            device: found.device,
            inode: found.inode,
            size: found.bytes,
            modified: Moment::of(found.modified),
            changed: Moment::of(found.changed),
            // Type and permissions are 16 bits.
            mode: found.mode as u16,
        }
    }
}

/// A digest, the fingerprint of the file that had it, and when hashing began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hashed {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) hashed_at: Moment,
    pub(crate) digest: Digest,
}

impl Hashed {
    /// Whether a file with this fingerprint certainly still has this digest.
    pub(crate) fn is_trusted(&self, fingerprint: &Fingerprint, now: Moment) -> bool {
        *fingerprint == self.fingerprint && self.was_older_than(MARGIN_SECONDS) && self.hashed_at <= now
    }

    /// Whether the file had not changed for so many seconds when it was hashed.
    pub(crate) fn was_older_than(&self, seconds: i64) -> bool {
        let last = self.fingerprint.modified.max(self.fingerprint.changed);
        last.plus(seconds) <= self.hashed_at
    }

    pub(crate) fn state(&self) -> FileState {
        FileState {
            digest: self.digest,
            bytes: self.fingerprint.size,
            executable: self.fingerprint.mode & EXECUTABLE != 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trust_needs_an_equal_fingerprint_old_times_and_a_clock_that_went_forward() {
        let at = |seconds| Moment { seconds, nanos: 5 };
        let print = Fingerprint { device: 1, inode: 2, size: 3, modified: at(100), changed: at(100), mode: 0o100644 };
        let hashed = |hashed_at| Hashed { fingerprint: print, hashed_at, digest: Digest::of(b"") };
        assert!(hashed(at(102)).is_trusted(&print, at(102)));
        assert!(!hashed(at(101)).is_trusted(&print, at(200)), "racily clean");
        assert!(!hashed(at(99)).is_trusted(&print, at(200)), "hashed under a clock set back");
        assert!(!hashed(at(150)).is_trusted(&print, at(149)), "the clock went backwards since");
        let others = [
            Fingerprint { device: 9, ..print },
            Fingerprint { inode: 9, ..print },
            Fingerprint { size: 9, ..print },
            Fingerprint { modified: at(99), ..print },
            Fingerprint { changed: at(99), ..print },
            Fingerprint { mode: 0o100755, ..print },
        ];
        for other in others {
            assert!(!hashed(at(150)).is_trusted(&other, at(200)), "{other:?}");
        }
        let end = Fingerprint { modified: at(i64::MAX), ..print };
        let hashed = Hashed { fingerprint: end, ..hashed(at(150)) };
        assert!(!hashed.is_trusted(&end, at(200)), "a file of the far future");
    }
}
