//! `Segments`: the folder of all segments, and where each entry lies.
//!
//! Does not know what a blob or a record means, nor when something is to be made durable. Its parts: `segment`, one of them;
//! `loading`, how others' entries come in; `writer`, the one that this process appends to; `together`, many entries at once;
//! `survey`, what is damaged.
//!
//! A segment is written by one process at a time: it holds the kernel's exclusive lock on the file for as long as it
//! has the segment. A process takes a segment over that nobody holds, or makes a new one. Everybody reads all of them,
//! without locks: an entry checks or it does not.
//!
//! Invariants: an entry is found only after its file was synced, whoever wrote it, so what is found is durable; what is
//! read is checked; nothing but bytes after the last good entry is ever cut off, only by the holder of the lock, and what
//! claims to be a list of uses only by a repair, which has written the list anew; contents never lead past bytes that were
//! skipped as damaged, until a repair, so that whoever opens the segment meets them; an entry that was found damaged is not
//! found again by this process, but by who asks whether the newest of a name is intact. After a sync that failed nothing is
//! appended and nothing newly believed: a second sync would succeed and mean nothing. What it covered is cut off, which
//! others may have found by a sync of theirs that succeeded: on a drive that fails, being durable means nothing either.

mod loading;
mod segment;
mod survey;
mod together;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::digest::{self, Digest};
use crate::disk::{self, Disk, DiskError, Handle, Syncs};
use crate::entry::{self, Head, Kind};
use segment::Segment;
use writer::Writer;

pub(crate) use writer::NewEntry;

/// What the name of a segment ends in.
const SUFFIX: &str = ".seg";
/// Hexadecimal digits in the name of a segment.
const DIGITS: usize = 32;
/// A segment that has reached this length is left, and another begun.
const ROLL_AFTER: u64 = 256 << 20;
/// The number of no segment.
const NONE: usize = usize::MAX;

/// Why a segment cannot be read or appended to.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SegmentError {
    /// A file operation failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The file is of a format that this program does not know.
    #[error("{path} has format version {found}, this program reads version {supported}", path = path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in the file.
        found: u32,
        /// The one version that this program reads.
        supported: u32,
    },
    /// The entry is over the limit.
    #[error("an entry of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// Length of the entry.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// An earlier sync failed: what is on disk is not known any more, so nothing is appended or newly believed.
    #[error("{folder} takes no more entries: an earlier sync failed", folder = folder.display())]
    SyncFailed {
        /// The folder of the segments.
        folder: PathBuf,
    },
}

impl SegmentError {
    /// Whether there was no room to write.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Disk(error) if error.is_full())
    }
}

/// What reading an entry gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Payload(Vec<u8>),
    Nothing,
    /// The one entry, or every one of them, is damaged; the last of them lies in this file.
    Damaged(PathBuf),
}

/// What reading the newest entry of a name gave, which no older one stands in for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Newest {
    Payload(Vec<u8>),
    Nothing,
    Damaged {
        /// The file in which it lies.
        path: PathBuf,
        /// The best that is intact.
        older: Option<Vec<u8>>,
    },
}

/// All segments of a store.
#[derive(Debug)]
pub(crate) struct Segments {
    disk: Arc<dyn Disk>,
    folder: PathBuf,
    /// Where files are written before they get their names.
    tmp: PathBuf,
    /// In the order in which they were met; none is ever taken out.
    loaded: RwLock<Vec<Segment>>,
    /// What has the name of a segment and is no file, and what it is.
    strange: Mutex<BTreeMap<PathBuf, &'static str>>,
    writer: Mutex<Option<Writer>>,
    /// The number of that segment, or [`NONE`]: who only reads does not wait for who writes.
    own: AtomicUsize,
    /// Grows whenever entries that others wrote come in, or go.
    met: AtomicU64,
    syncs: Syncs,
    /// A segment that has reached this length is left.
    roll_after: u64,
}

impl Segments {
    /// Looks through the segments in `folder`, which is there. Temps go to `tmp`.
    pub(crate) fn open(disk: Arc<dyn Disk>, folder: PathBuf, tmp: PathBuf) -> Result<Segments, SegmentError> {
        let segments = Segments {
            disk,
            folder,
            tmp,
            loaded: RwLock::default(),
            strange: Mutex::default(),
            writer: Mutex::default(),
            own: AtomicUsize::new(NONE),
            met: AtomicU64::new(0),
            syncs: Syncs::default(),
            roll_after: ROLL_AFTER,
        };
        segments.refresh()?;
        Ok(segments)
    }

    /// Reads what other processes have appended; gives [`Segments::met`].
    pub(crate) fn refresh(&self) -> Result<u64, SegmentError> {
        self.check_synced()?;
        let own = self.own.load(Ordering::Acquire);
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        for (number, segment) in loaded.iter_mut().enumerate() {
            if own != number {
                self.catch_up(segment)?;
            }
        }
        for name in disk::names(&*self.disk, &self.folder)? {
            let path = self.folder.join(&name);
            if is_segment(&name) && !loaded.iter().any(|segment| segment.path == path) {
                loaded.extend(self.load(path)?);
            }
        }
        Ok(self.met())
    }

    /// A number that grows whenever what others wrote comes in: when it is looked for, and when a segment of theirs is
    /// taken over to append to.
    pub(crate) fn met(&self) -> u64 {
        self.met.load(Ordering::Acquire)
    }

    fn meet(&self) {
        self.met.fetch_add(1, Ordering::AcqRel);
    }

    /// The payload of an entry, checked; of several records of a name the one of the highest generation.
    pub(crate) fn read(&self, kind: Kind, name: &Digest) -> Result<Found, DiskError> {
        for (number, head) in self.places(kind, name) {
            let (file, path) = self.file(number);
            match read_twice(&*file, &path, &head)? {
                Some(payload) => return Ok(Found::Payload(payload)),
                None => self.lose(number, &head),
            }
        }
        Ok(self.lost_place(kind, name).map_or(Found::Nothing, Found::Damaged))
    }

    /// The payload of the newest entry of a name, checked. One that is damaged is not forgotten, and damaged bytes that
    /// claim to be a newer entry are one too.
    pub(crate) fn newest(&self, kind: Kind, name: &Digest) -> Result<Newest, DiskError> {
        let mut damaged = None;
        let mut intact = None;
        for (number, head) in self.places(kind, name) {
            let (file, path) = self.file(number);
            match read_twice(&*file, &path, &head)? {
                Some(payload) => {
                    intact = Some((head.generation, payload));
                    break;
                }
                None => damaged = damaged.or(Some(path)),
            }
        }
        let generation = intact.as_ref().map(|(generation, _)| *generation);
        let claimed = self.newest_claim(kind, name).filter(|(head, _)| Some(head.generation) > generation);
        let claimed = claimed.map(|(_, path)| path);
        let older = intact.map(|(_, payload)| payload);
        Ok(match (damaged.or(claimed), older) {
            (Some(path), older) => Newest::Damaged { path, older },
            (None, Some(payload)) => Newest::Payload(payload),
            (None, None) => Newest::Nothing,
        })
    }

    /// The newest entry of a name that damaged bytes claim to be, and the file in which they lie.
    fn newest_claim(&self, kind: Kind, name: &Digest) -> Option<(Head, PathBuf)> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let claims = loaded.iter().flat_map(|segment| segment.claims().map(|head| (*head, &segment.path)));
        let ours = claims.filter(|(head, _)| (head.kind, head.name) == (kind, *name));
        ours.max_by_key(|(head, _)| head.generation).map(|(head, path)| (head, path.clone()))
    }

    /// Whether an entry of this name is what it was. Nothing is forgotten, whatever is found.
    pub(crate) fn has_intact(&self, kind: Kind, name: &Digest) -> Result<bool, DiskError> {
        for (number, head) in self.places(kind, name) {
            let (file, path) = self.file(number);
            if read_twice(&*file, &path, &head)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The segment in which this process found an entry of this name damaged.
    fn lost_place(&self, kind: Kind, name: &Digest) -> Option<PathBuf> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let is_this = |head: &Head| (head.kind, head.name) == (kind, *name);
        let segment = loaded.iter().find(|segment| segment.lost.values().any(is_this))?;
        Some(segment.path.clone())
    }

    /// The length of the payload of an entry that has not been found damaged; it is not looked at.
    pub(crate) fn length(&self, kind: Kind, name: &Digest) -> Option<u64> {
        self.best(kind, name).map(|(_, head)| u64::from(head.length))
    }

    /// The names of all entries of a kind, in order.
    pub(crate) fn names(&self, kind: Kind) -> BTreeSet<Digest> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let of = |segment: &Segment| -> Vec<Digest> {
            let good = |head: &&Head| head.kind == kind && segment.is_good(head);
            segment.heads().filter(good).map(|head| head.name).collect()
        };
        loaded.iter().flat_map(of).collect()
    }

    /// The first of [`Segments::places`]: what is asked for of every output of every cached node.
    fn best(&self, kind: Kind, name: &Digest) -> Option<(usize, Head)> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let mut best: Option<(usize, Head)> = None;
        for (number, segment) in loaded.iter().enumerate() {
            for head in segment.find(kind, name) {
                if best.is_none_or(|(_, best)| head.generation > best.generation) {
                    best = Some((number, *head));
                }
            }
        }
        best
    }

    /// Where entries of this name lie, best first.
    fn places(&self, kind: Kind, name: &Digest) -> Vec<(usize, Head)> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let mut places = Vec::new();
        for (number, segment) in loaded.iter().enumerate() {
            places.extend(segment.find(kind, name).map(|head| (number, *head)));
        }
        // Stable, so that of equal generations the one that was met first stays first.
        places.sort_by_key(|(_, head)| std::cmp::Reverse(head.generation));
        places
    }

    fn file(&self, number: usize) -> (Arc<dyn Handle>, PathBuf) {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        (loaded[number].file.clone(), loaded[number].path.clone())
    }

    /// Takes an entry that is not what it was out of what is found: here, and in the contents for those to come.
    fn lose(&self, number: usize, head: &Head) {
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        let segment = &mut loaded[number];
        // It may have been cut off since it was looked for, and another lie there.
        if segment.find(head.kind, &head.name).any(|found| found == head) {
            segment.lost.insert(head.offset, *head);
            segment.skipped += head.end() - head.offset;
            self.index(segment);
        }
    }

    fn check_synced(&self) -> Result<(), SegmentError> {
        if self.syncs.have_failed() {
            let folder = self.folder.clone();
            return Err(SegmentError::SyncFailed { folder });
        }
        Ok(())
    }

    fn sync(&self, handle: &dyn Handle, path: &Path, operation: &'static str) -> Result<(), SegmentError> {
        self.check_synced()?;
        Ok(self.syncs.sync(handle, path, operation)?)
    }

    fn lock_writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_strange(&self) -> MutexGuard<'_, BTreeMap<PathBuf, &'static str>> {
        self.strange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads an entry; a fault that passes is no damage, one that stays is.
fn read_twice(file: &dyn Handle, path: &Path, head: &Head) -> Result<Option<Vec<u8>>, DiskError> {
    match entry::read(file, path, head) {
        Ok(Some(payload)) => Ok(Some(payload)),
        Err(error) if !error.is_of_the_medium() => Err(error),
        Ok(None) | Err(_) => match entry::read(file, path, head) {
            Err(error) if error.is_of_the_medium() => Ok(None),
            again => again,
        },
    }
}

fn is_segment(name: &str) -> bool {
    let digits = name.strip_suffix(SUFFIX).map(str::as_bytes).unwrap_or_default();
    digits.len() == DIGITS && digits.iter().all(|character| digest::digit(*character).is_some())
}

#[cfg(test)]
mod tests;
