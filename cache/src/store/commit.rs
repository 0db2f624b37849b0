//! What was put becomes durable: large blobs first, then small ones and records with one sync for all.
//!
//! Invariants: one thread commits at a time, and others go on putting meanwhile; nothing leaves [`Pending`] before it is
//! durable, but what a sync failed for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, MutexGuard, PoisonError, TryLockError};

use super::{Store, StoreError};
use crate::digest::Digest;
use crate::disk::DiskError;
use crate::entry::Kind;
use crate::pending::{Large, Pending};
use crate::segments::NewEntry;
use crate::threads::waiting;
use crate::tree::Artifact;

/// Fewer bytes than this are not worth the threads.
const SYNCED_BY_ONE: u64 = 4 << 20;

impl Store {
    /// Makes durable what was put before this call: large blobs, then small ones with one sync for all of them.
    ///
    /// # Errors
    /// If anything of it cannot be written or synced. What a sync failed for is not kept, what else failed waits for the
    /// next commit; after a failed sync of a folder or a segment nothing is taken any more.
    pub fn commit(&self) -> Result<(), StoreError> {
        self.commit_with(&[], &[])
    }

    /// [`Store::commit`], and then appends records of these outputs, with the same sync as the small blobs.
    pub(crate) fn commit_with(&self, records: &[NewEntry], outputs: &[&Artifact]) -> Result<(), StoreError> {
        self.commit_alone(&self.committing.lock().unwrap_or_else(PoisonError::into_inner), records, outputs)
    }

    /// Commits while no other thread does.
    fn commit_alone(
        &self,
        _alone: &MutexGuard<()>,
        records: &[NewEntry],
        outputs: &[&Artifact],
    ) -> Result<(), StoreError> {
        self.blobs.check_synced()?;
        let pending = self.lock_pending().clone();
        self.commit_large(&pending)?;
        // Not before nobody else commits: it is then that a blob is lost of which this thread waited to write a record.
        outputs.iter().try_for_each(|artifact| self.check_not_lost(artifact))?;
        self.commit_small(&pending, records)
    }

    /// An error if blobs of this artifact were lost because they could not be synced: perhaps in a commit of somebody else's,
    /// who was told of it.
    fn check_not_lost(&self, artifact: &Artifact) -> Result<(), StoreError> {
        let lost = self.lock_pending().has_lost && !self.holds(artifact);
        if lost { Err(StoreError::Missing { digest: artifact.digest }) } else { Ok(()) }
    }

    /// Commits when so much is pending that it should not wait. If another thread does, this one goes on putting for a while.
    pub(super) fn relieve(&self) -> Result<(), StoreError> {
        if !self.lock_pending().is_much() {
            return Ok(());
        }
        let alone = match self.committing.try_lock() {
            Ok(alone) => alone,
            Err(TryLockError::Poisoned(alone)) => alone.into_inner(),
            Err(TryLockError::WouldBlock) if !self.lock_pending().is_too_much() => return Ok(()),
            Err(TryLockError::WouldBlock) => self.committing.lock().unwrap_or_else(PoisonError::into_inner),
        };
        // Others have waited for the same commit.
        if self.lock_pending().is_much() { self.commit_alone(&alone, &[], &[]) } else { Ok(()) }
    }

    fn commit_large(&self, pending: &Pending) -> Result<(), StoreError> {
        self.sync_large(&pending.large)?;
        for (digest, large) in &pending.large {
            self.blobs.publish(&large.temp, digest, large.bytes)?;
        }
        let mut named: BTreeSet<Digest> = std::mem::take(&mut self.lock_pending().named);
        named.extend(pending.large.keys());
        if let Err(error) = self.blobs.make_names_durable(&named) {
            self.lock_pending().named.append(&mut named);
            return Err(error);
        }
        let mut settled = self.lock_pending();
        pending.large.keys().for_each(|digest| drop(settled.large.remove(digest)));
        Ok(())
    }

    /// Makes the bytes of large blobs durable, of many at once: a drive that has much to do does it in less time.
    fn sync_large(&self, large: &BTreeMap<Digest, Arc<Large>>) -> Result<(), StoreError> {
        let large: Vec<(&Digest, &Arc<Large>)> = large.iter().collect();
        let sync = |(digest, large): &(&Digest, &Arc<Large>)| {
            large.temp.sync().inspect_err(|_| {
                // The kernel may have dropped its pages: it is of no use any more.
                let mut pending = self.lock_pending();
                pending.large.remove(*digest);
                pending.has_lost = true;
            })
        };
        match large.iter().map(|(_, large)| large.bytes).sum::<u64>() > SYNCED_BY_ONE {
            true => waiting(&large, sync).into_iter().collect::<Result<(), DiskError>>()?,
            false => large.iter().try_for_each(sync)?,
        }
        Ok(())
    }

    fn commit_small(&self, pending: &Pending, records: &[NewEntry]) -> Result<(), StoreError> {
        let small = pending.small().iter();
        let blobs = small.map(|(digest, bytes)| NewEntry::new(Kind::Blob, *digest, bytes));
        let entries: Vec<NewEntry> = blobs.chain(records.iter().copied()).collect();
        self.segments.append(&entries)?;
        self.lock_pending().settle_small(pending.small());
        Ok(())
    }
}
