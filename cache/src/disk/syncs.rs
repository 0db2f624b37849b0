//! `Syncs`: whether every sync so far has succeeded.
//!
//! Does not know what is synced.
//!
//! Invariant: a sync that failed is final. The kernel reports a lost write once: a second sync would succeed and mean
//! nothing.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{DiskError, Handle, failed};

/// Remembers that a sync has failed.
#[derive(Debug, Default)]
pub(crate) struct Syncs(AtomicBool);

impl Syncs {
    /// Whether any sync has failed: what is durable is not known any more then.
    pub(crate) fn have_failed(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    /// Makes what is open durable.
    pub(crate) fn sync(&self, file: &dyn Handle, path: &Path, operation: &'static str) -> Result<(), DiskError> {
        file.sync().map_err(|error| {
            self.fail();
            failed(operation, path)(error)
        })
    }

    /// As if a sync had failed.
    pub(crate) fn fail(&self) {
        self.0.store(true, Ordering::Release);
    }
}
