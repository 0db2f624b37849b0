//! `Settling`: sees to it that a file which is about to be hashed changes its times when it changes after that.
//!
//! Who writes to a file through a mapping changes its times once, when a page is first written to; until the kernel has
//! written the page to the drive, more may be written to it and nothing tells. A sync makes the kernel look again. Files that
//! have not changed for long have been written by the kernel itself.
//!
//! Does not know what a file has. Invariant: few files are synced one by one, and then each file system once: what has not
//! changed since that is settled. Where a file lies in memory alone (tmpfs) nothing of this holds; see the docs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::disk::{Handle, Meta};
use crate::fingerprint::{Fingerprint, Moment, SETTLED_SECONDS};

/// So many files are synced one by one.
const ONE_BY_ONE: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct Settling(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    alone: usize,
    /// By device, when all of it was synced last.
    synced: BTreeMap<u64, Moment>,
}

impl Settling {
    /// Whether the file, which was found so, will tell of changes from now on.
    pub(crate) fn settle(&self, file: &dyn Handle, found: &Meta) -> bool {
        let (now, fingerprint) = (Moment::now(), Fingerprint::of(found));
        let last = fingerprint.modified.max(fingerprint.changed);
        if last.plus(SETTLED_SECONDS) <= now {
            return true;
        }
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.synced.get(&found.device).is_some_and(|synced| last < *synced) {
            return true;
        }
        if state.alone < ONE_BY_ONE {
            state.alone += 1;
            drop(state);
            return file.sync().is_ok();
        }
        // Others wait for it instead of doing the same.
        match file.sync_file_system() {
            Ok(true) => {
                state.synced.insert(found.device, now);
                true
            }
            Ok(false) => file.sync().is_ok(),
            Err(_) => false,
        }
    }
}
