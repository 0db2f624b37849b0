//! `Pending`: what was put or restored and is not durable yet, until a commit makes it so.
//!
//! Does not know how anything becomes durable.
//!
//! Invariant: what is pending stays so until it is durable, or can never become so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use crate::digest::Digest;
use crate::disk::Temp;

/// Small blobs of more bytes than this are not left pending for long.
const MANY_BYTES: usize = 16 << 20;
/// Nor are more large blobs than this: each has an open file.
const MANY_FILES: usize = 64;
/// So many times as much may be pending while a commit is under way.
const MEANWHILE: usize = 3;

/// A large blob that is written whole, under the name of a temp.
#[derive(Debug)]
pub(crate) struct Large {
    pub(crate) temp: Temp,
    pub(crate) bytes: u64,
}

/// What waits for the next commit. Clones share the bytes.
#[derive(Debug, Default, Clone)]
pub(crate) struct Pending {
    /// Blobs that will be entries of a segment.
    small: BTreeMap<Digest, Arc<[u8]>>,
    small_bytes: usize,
    /// Blobs that will be files.
    pub(crate) large: BTreeMap<Digest, Arc<Large>>,
    /// Blobs that are in their place, whose name is not known to be durable.
    pub(crate) named: BTreeSet<Digest>,
    /// Whether any blob could not be synced.
    pub(crate) has_lost: bool,
    /// Files outside of the store.
    pub(crate) restored: BTreeSet<PathBuf>,
}

impl Pending {
    pub(crate) fn small(&self) -> &BTreeMap<Digest, Arc<[u8]>> {
        &self.small
    }

    pub(crate) fn put_small(&mut self, digest: Digest, bytes: &[u8]) {
        if self.small.insert(digest, bytes.into()).is_none() {
            self.small_bytes += bytes.len();
        }
    }

    /// The length of a pending blob.
    pub(crate) fn length(&self, digest: &Digest) -> Option<u64> {
        let small = self.small.get(digest).map(|bytes| bytes.len() as u64);
        small.or_else(|| self.large.get(digest).map(|large| large.bytes))
    }

    /// Whether a commit should not be waited for.
    pub(crate) fn is_much(&self) -> bool {
        self.is_over(1)
    }

    /// Whether nothing more may be put before a commit that is under way has ended.
    pub(crate) fn is_too_much(&self) -> bool {
        self.is_over(MEANWHILE)
    }

    fn is_over(&self, times: usize) -> bool {
        self.small_bytes > times * MANY_BYTES || self.large.len() > times * MANY_FILES
    }

    /// Takes out small blobs that are durable now.
    pub(crate) fn settle_small(&mut self, settled: &BTreeMap<Digest, Arc<[u8]>>) {
        for (digest, bytes) in settled {
            if self.small.remove(digest).is_some() {
                self.small_bytes -= bytes.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_due_long_before_puts_have_to_wait() {
        let mut pending = Pending::default();
        let states = (0..50u8).map(|number| {
            pending.put_small(Digest::of(&[number]), &vec![0; 1 << 20]);
            (pending.is_much(), pending.is_too_much())
        });
        let states: Vec<(bool, bool)> = states.collect();
        assert_eq!(states[15..17], [(false, false), (true, false)]);
        assert_eq!(states[47..49], [(true, false), (true, true)]);
    }
}
