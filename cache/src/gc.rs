//! `Collector`: a plan of what can go from a store, and its removal.
//!
//! Does not know projects, nodes or why anything is used: the roots are the sets that users of the store have written,
//! see [`UsedSet`](crate::UsedSet). What only forgotten sets name goes. What no set has ever named is the work of runs that
//! were killed: it goes only where bytes are asked for, and then what is cheapest to compute again for its bytes first.
//!
//! Invariants: a collector holds the store with the kernel's exclusive lock, so nobody reads, puts or runs meanwhile,
//! and whoever opens the store later sees it as it is then; roots that cannot be read, a damaged list of which an older one
//! is intact among them, and records and trees that cannot be read now, stop a collection before anything is removed; what is kept of a segment is durable elsewhere before
//! the segment goes; nothing that a kept record needs is ever removed. A collection that is killed has removed a part of
//! what it planned, and no more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::digest::Digest;
use crate::disk::{Disk, RealDisk};
use crate::entry::{HEADER, Head, Kind};
use crate::ledger::{Ledger, LedgerError, Record};
use crate::store::{Store, StoreError};
use crate::uses::Uses;

/// A segment of fewer bytes than this is written anew whatever part of it is dead.
const SMALL_SEGMENT: u64 = 8 << 20;
/// A larger one, if more than this part of it is.
const DEAD_SHARE: u64 = 4;

/// Why a store cannot be collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// A process has the store open.
    #[error("the store {root} is in use", root = root.display())]
    Busy {
        /// The folder of the store.
        root: PathBuf,
    },
    /// What a user of the store needs cannot be told, so nothing can be removed.
    #[error("what {user} uses cannot be read: {source}")]
    Root {
        /// Who uses the store.
        user: String,
        /// What befell the list.
        source: StoreError,
    },
    /// The store cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger cannot be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl CollectError {
    /// Whether there was no room to write.
    fn is_full(&self) -> bool {
        match self {
            Self::Store(StoreError::Disk(error)) => error.is_full(),
            Self::Store(StoreError::Segment(error)) => error.is_full(),
            _ => false,
        }
    }
}

/// What a collection is to leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// So many of the newest sets of each user.
    pub last: usize,
    /// Beyond that as much as fits into so many bytes; nothing if it is not said.
    pub max_bytes: Option<u64>,
}

/// What one user of the store has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name, as it was given.
    pub name: String,
    /// Sets that are kept.
    pub kept: usize,
    /// Sets that are not.
    pub dropped: usize,
}

/// A record that is dropped.
#[derive(Debug, Clone, PartialEq)]
pub struct Dropped {
    /// Its key.
    pub key: Digest,
    /// What it would take to compute again.
    pub seconds: f64,
    /// Length of its outputs.
    pub bytes: u64,
    /// The manifest whose digest is the key.
    pub manifest: String,
}

/// What a collection would do. Nothing of it has been done.
#[derive(Debug)]
pub struct Plan {
    /// Who uses the store.
    pub users: Vec<User>,
    /// Records that are dropped, in the order in which they go.
    pub dropped: Vec<Dropped>,
    /// Number of records that stay.
    pub kept: usize,
    /// Bytes of blobs and segments now.
    pub bytes_before: u64,
    /// Bytes of large blobs that are removed and of entries that are not written anew.
    pub bytes_freed: u64,
    /// Damaged files that were set aside, which go too.
    pub quarantined: Vec<PathBuf>,
    large: Vec<Digest>,
    /// Sets that anybody has now.
    sets: BTreeSet<Digest>,
    /// Under their names, in the order of the users.
    uses: Vec<(Digest, Uses)>,
    live: BTreeSet<(Kind, Digest)>,
    rewrite: Vec<usize>,
}

/// A store that nobody else has open.
#[derive(Debug)]
pub struct Collector {
    store: Arc<Store>,
    ledger: Ledger,
}

impl Collector {
    /// Opens the store at `root` for nobody else.
    ///
    /// # Errors
    /// [`CollectError::Busy`] if any process has it open; or if it cannot be opened.
    pub fn open(root: &Path) -> Result<Collector, CollectError> {
        Collector::open_on(Arc::new(RealDisk), root)
    }

    /// [`Collector::open`] on another disk than that of the operating system.
    ///
    /// # Errors
    /// As [`Collector::open`].
    pub fn open_on(disk: Arc<dyn Disk>, root: &Path) -> Result<Collector, CollectError> {
        let store = Store::open_alone(disk, root)?.ok_or_else(|| CollectError::Busy { root: root.to_owned() })?;
        let store = Arc::new(store);
        let ledger = Ledger::of(&store);
        Ok(Collector { store, ledger })
    }

    /// What would go.
    ///
    /// # Errors
    /// If the roots cannot be read, or the store cannot be listed.
    pub fn plan(&self, keep: Keep) -> Result<Plan, CollectError> {
        let mut uses = self.store.all_uses()?.map_err(|damaged| CollectError::Root {
            user: damaged.user,
            source: StoreError::DamagedUses { path: damaged.path },
        })?;
        uses.sort_by(|(_, a), (_, b)| a.user.cmp(&b.user));
        let (mut users, mut sets) = (Vec::new(), BTreeSet::new());
        let (mut live, mut kept, mut forgotten) = (Live::default(), BTreeSet::new(), BTreeSet::new());
        for (_, user) in &mut uses {
            sets.extend(user.sets.iter().copied());
            let dropped = user.sets.split_off(keep.last.min(user.sets.len()));
            users.push(User { name: user.user.clone(), kept: user.sets.len(), dropped: dropped.len() });
            self.mark_sets(user, &mut live, &mut kept)?;
            // One that cannot be read makes its records strays, which stay.
            let dropped = dropped.iter().filter_map(|set| self.store.used_set(set).ok());
            forgotten.extend(dropped.flat_map(|set| set.keys));
        }
        let is_kept = |key: &Digest| kept.contains(key) || (keep.max_bytes.is_none() && !forgotten.contains(key));
        let mut rest = Vec::new();
        for key in self.store.segments().names(Kind::Record) {
            match self.ledger.read(&key)? {
                Some(record) if is_kept(&key) => drop(live.mark_record(&self.store, &key, &record)?),
                Some(record) => rest.push((worth(&record), key)),
                None => {}
            }
        }
        let dropped = self.drop_cheapest(rest, keep.max_bytes, &mut live)?;
        let mut plan = Plan {
            users,
            kept: live.records,
            dropped,
            bytes_before: 0,
            bytes_freed: 0,
            quarantined: self.store.quarantined()?,
            large: Vec::new(),
            sets,
            uses,
            live: live.entries,
            rewrite: Vec::new(),
        };
        self.plan_large(&mut plan)?;
        self.plan_segments(&mut plan);
        Ok(plan)
    }

    /// Removes what the plan says. Files only leave their places as long as the store is held: to remove large ones takes a
    /// while, for which no run need wait. Gives how many segments stay for which there was no room to write them anew, even
    /// when all else was gone.
    ///
    /// # Errors
    /// If something cannot be removed or written; the rest of the plan is not done then, and a later collection does it.
    pub fn carry_out(self, plan: &Plan) -> Result<usize, CollectError> {
        let graves = self.store.graves();
        // What has left its place is room for what is to be written, on a full disk.
        let carried_out = match self.rearrange(plan) {
            Err(error) if error.is_full() => {
                graves.empty()?;
                self.rearrange(plan)
            }
            Ok(left) if !left.is_empty() => {
                graves.empty()?;
                self.rewrite(plan, &left)
            }
            carried_out => carried_out,
        };
        drop(self);
        graves.empty()?;
        carried_out.map(|left| left.len())
    }

    fn rearrange(&self, plan: &Plan) -> Result<Vec<usize>, CollectError> {
        // A set goes after the list that names it.
        let (sets, others): (Vec<Digest>, Vec<Digest>) =
            plan.large.iter().partition(|digest| plan.sets.contains(*digest));
        self.store.bury_blobs(&others)?;
        self.store.bury(&plan.quarantined)?;
        for ((name, uses), _) in plan.uses.iter().zip(&plan.users).filter(|(_, user)| user.dropped > 0) {
            self.store.write_uses(*name, uses)?;
        }
        self.store.bury_blobs(&sets)?;
        self.rewrite(plan, &plan.rewrite)
    }

    fn rewrite(&self, plan: &Plan, numbers: &[usize]) -> Result<Vec<usize>, CollectError> {
        let is_live = |head: &Head| plan.live.contains(&(head.kind, head.name));
        Ok(self.store.segments().rewrite(numbers, &is_live).map_err(StoreError::from)?)
    }

    fn mark_sets(&self, user: &Uses, live: &mut Live, keys: &mut BTreeSet<Digest>) -> Result<(), CollectError> {
        for digest in &user.sets {
            let set = self.store.used_set(digest).map_err(|source| {
                let user = user.user.clone();
                CollectError::Root { user, source }
            })?;
            for blob in set.blobs.iter().chain([digest]) {
                live.mark_blob(&self.store, blob)?;
            }
            keys.extend(set.keys);
        }
        Ok(())
    }

    /// Marks of the records that no root names those that fit, the dearest for their bytes first; returns the others, the
    /// cheapest first.
    fn drop_cheapest(
        &self,
        mut rest: Vec<(f64, Digest)>,
        max_bytes: Option<u64>,
        live: &mut Live,
    ) -> Result<Vec<Dropped>, StoreError> {
        rest.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let mut dropped = Vec::new();
        while let Some((_, key)) = rest.pop() {
            // Read again: all of them together may be more than there is memory for.
            let Some(record) = self.ledger.read(&key)? else { continue };
            let fits = match max_bytes {
                Some(max_bytes) => live.mark_if_it_fits(&self.store, &key, &record, max_bytes)?,
                None => false,
            };
            if !fits {
                let bytes = bytes_of(&record);
                dropped.push(Dropped { key, seconds: record.seconds, bytes, manifest: record.manifest });
            }
        }
        dropped.reverse();
        Ok(dropped)
    }

    fn plan_large(&self, plan: &mut Plan) -> Result<(), CollectError> {
        for (digest, bytes) in self.store.large_blobs()? {
            plan.bytes_before += bytes;
            if !plan.live.contains(&(Kind::Blob, digest)) {
                plan.bytes_freed += bytes;
                plan.large.push(digest);
            }
        }
        Ok(())
    }

    fn plan_segments(&self, plan: &mut Plan) {
        plan.live.extend(plan.uses.iter().map(|(name, _)| (Kind::Uses, *name)));
        let mut rewrite = Vec::new();
        for (number, bytes, heads) in self.store.segments().survey() {
            plan.bytes_before += bytes;
            let live = |head: &&Head| {
                plan.live.contains(&(head.kind, head.name)) && self.store.segments().is_best(number, head)
            };
            let live: u64 = heads.iter().filter(live).map(|head| head.end() - head.offset).sum();
            let dead = bytes.saturating_sub(live + HEADER as u64);
            if dead > 0 && (bytes < SMALL_SEGMENT || dead > bytes / DEAD_SHARE) {
                plan.bytes_freed += dead;
                rewrite.push((live, number));
            }
        }
        rewrite.sort_unstable();
        plan.rewrite = rewrite.into_iter().map(|(_, number)| number).collect();
    }
}

/// Seconds that a record saves for each byte that it keeps.
fn worth(record: &Record) -> f64 {
    record.seconds / (bytes_of(record).max(1) as f64)
}

/// Length of the outputs of a record.
fn bytes_of(record: &Record) -> u64 {
    record.outputs.iter().fold(0, |sum: u64, (_, artifact)| sum.saturating_add(artifact.bytes))
}

/// What stays.
#[derive(Debug, Default)]
struct Live {
    entries: BTreeSet<(Kind, Digest)>,
    records: usize,
    /// Bytes of the blobs that were marked.
    bytes: u64,
}

impl Live {
    /// Marks a blob that no record names.
    fn mark_blob(&mut self, store: &Store, blob: &Digest) -> Result<(), StoreError> {
        if self.entries.insert((Kind::Blob, *blob)) {
            self.bytes = self.bytes.saturating_add(store.length(blob)?.unwrap_or(0));
        }
        Ok(())
    }

    /// Marks a record and all that its outputs consist of; returns what was not marked before. What is damaged of them cannot
    /// be kept either.
    fn mark_record(&mut self, store: &Store, key: &Digest, record: &Record) -> Result<Vec<(Kind, Digest)>, StoreError> {
        let mut marked = Vec::new();
        self.mark(Kind::Record, *key, &mut marked);
        self.records += 1;
        for (_, artifact) in &record.outputs {
            let new = store.bytes_of_new(artifact, |digest| self.mark(Kind::Blob, *digest, &mut marked))?;
            self.bytes = self.bytes.saturating_add(new);
        }
        Ok(marked)
    }

    fn mark_if_it_fits(
        &mut self,
        store: &Store,
        key: &Digest,
        record: &Record,
        max_bytes: u64,
    ) -> Result<bool, StoreError> {
        let before = (self.records, self.bytes);
        let marked = self.mark_record(store, key, record)?;
        if self.bytes <= max_bytes {
            return Ok(true);
        }
        for entry in &marked {
            self.entries.remove(entry);
        }
        (self.records, self.bytes) = before;
        Ok(false)
    }

    fn mark(&mut self, kind: Kind, name: Digest, marked: &mut Vec<(Kind, Digest)>) -> bool {
        let is_new = self.entries.insert((kind, name));
        if is_new {
            marked.push((kind, name));
        }
        is_new
    }
}

#[cfg(test)]
#[path = "gc_tests.rs"]
mod tests;
