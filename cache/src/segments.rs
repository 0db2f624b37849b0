//! `Segments`: the folder of all segments, the one that this process appends to, and where each entry lies.
//!
//! Does not know what a blob or a record means, nor when something is to be made durable.
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

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rayon::prelude::*;

use crate::contents::Contents;
use crate::digest::{self, Digest, Uniform};
use crate::disk::{self, Access, Disk, DiskError, Handle, Links, Opened, Syncs, Temp, failed};
use crate::segment::{self, HEADER, Head, Header, Kind, MAX_PAYLOAD, Scan, VERSION};
use crate::threads::aside;

/// What the name of a segment ends in.
const SUFFIX: &str = ".seg";
/// What the name of its contents ends in.
const CONTENTS_SUFFIX: &str = ".idx";
/// Hexadecimal digits in the name of a segment.
const DIGITS: usize = 32;
/// A segment that has reached this length is left, and another begun.
const ROLL_AFTER: u64 = 256 << 20;
/// Entries are written anew in groups of about so many bytes.
const COPIED_AT_ONCE: usize = 16 << 20;
/// And written in pieces of about so many: what a processor core has in its cache.
const WRITTEN_AT_ONCE: usize = 512 << 10;
/// Entries with no more bytes between them than this are read together.
const GAP: u64 = 16 << 10;
/// And so many bytes at once, but for an entry that begins within them and ends behind.
const STRETCH: u64 = 1 << 20;
/// The number of no segment.
const NONE: usize = usize::MAX;
/// How often a name for a new segment is tried that another process takes over at once.
const ATTEMPTS: usize = 16;
/// Contents are written anew when what they lack is more than this part of them.
const STALE_SHARE: usize = 8;

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

/// What is to be appended.
#[derive(Clone, Copy)]
pub(crate) struct NewEntry<'a> {
    pub(crate) kind: Kind,
    pub(crate) name: Digest,
    pub(crate) payload: &'a [u8],
    /// That of an entry which is written anew; a new one gets the next of its name.
    generation: Option<u32>,
}

impl<'a> NewEntry<'a> {
    pub(crate) fn new(kind: Kind, name: Digest, payload: &'a [u8]) -> NewEntry<'a> {
        NewEntry { kind, name, payload, generation: None }
    }

    /// An entry that is written anew, as what it was.
    fn again(head: &Head, payload: &'a [u8]) -> NewEntry<'a> {
        NewEntry { kind: head.kind, name: head.name, payload, generation: Some(head.generation) }
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
    /// Segment and offset of what was found damaged.
    lost: Mutex<BTreeMap<(usize, u64), Head>>,
    writer: Mutex<Option<Writer>>,
    /// The number of that segment, or [`NONE`]: who only reads does not wait for who writes.
    own: AtomicUsize,
    /// Grows whenever entries that others wrote come in, or go.
    met: AtomicU64,
    syncs: Syncs,
    /// A segment that has reached this length is left.
    roll_after: u64,
}

/// One segment, and how far it has been read.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Arc<dyn Handle>,
    /// Whether entries may be appended: its header is intact, or still missing, and it is not about to be removed.
    may_grow: bool,
    indexed: Contents,
    /// The best of each name behind what is indexed.
    fresh: HashMap<(Kind, Digest), Head, Uniform>,
    /// End of the last good entry; 0 as long as there is no header.
    end: u64,
    /// Damaged bytes that good entries follow, or that were cut off.
    skipped: u64,
    /// Where the first of them begin that were skipped and not repaired since: contents lead so far.
    gap: Option<u64>,
    /// What claims to be an entry in what was skipped, and behind the last good entry.
    claims: Vec<Head>,
    /// Bytes after the last good entry that nobody is about to make an entry of.
    tail: u64,
}

/// The segment that this process appends to: its lock is held as long as this lives.
#[derive(Debug)]
struct Writer {
    number: usize,
    file: Box<dyn Handle>,
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
            lost: Mutex::default(),
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

    /// The names of all entries of a kind, and of what damaged bytes claim to be one.
    pub(crate) fn names_and_claims(&self, kind: Kind) -> BTreeSet<Digest> {
        let mut names = self.names(kind);
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let claims = loaded.iter().flat_map(Segment::claims).filter(|head| head.kind == kind);
        names.extend(claims.map(|head| head.name));
        names
    }

    /// The newest entry of a name that damaged bytes claim to be, and the file in which they lie.
    fn newest_claim(&self, kind: Kind, name: &Digest) -> Option<(Head, PathBuf)> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let claims = loaded.iter().flat_map(|segment| segment.claims().map(|head| (*head, &segment.path)));
        let ours = claims.filter(|(head, _)| (head.kind, head.name) == (kind, *name));
        ours.max_by_key(|(head, _)| head.generation).map(|(head, path)| (head, path.clone()))
    }

    /// What `take` makes of the payloads of many entries, checked, in no order. They are read as they lie, many with one
    /// call. What cannot be read, or is not what it was, is left out: [`Segments::read`] tells what is wrong with it.
    pub(crate) fn read_together<T: Send>(
        &self,
        kind: Kind,
        names: &[Digest],
        take: impl Fn(&Digest, &[u8]) -> Option<T> + Sync,
    ) -> Vec<T> {
        aside(|| {
            // Sorted, each is looked for from where the one before was.
            let mut names: Vec<&Digest> = names.iter().collect();
            names.par_sort_unstable();
            names.dedup();
            let mut places = self.best_of(kind, &names);
            places.par_sort_unstable_by_key(|(number, head)| (*number, head.offset));
            let together = |(one, before): &(usize, Head), (other, after): &(usize, Head)| {
                one == other && after.offset - before.end() <= GAP && after.offset / STRETCH == before.offset / STRETCH
            };
            let stretches: Vec<&[(usize, Head)]> = places.chunk_by(together).collect();
            // One buffer for many stretches: a new one each time is cleared by the kernel first.
            let read = |buffer: &mut Vec<u8>, stretch: &&[(usize, Head)]| self.read_stretch(stretch, buffer, &take);
            stretches.par_iter().map_init(Vec::new, read).flatten_iter().collect()
        })
    }

    /// Reads entries of one segment that lie behind each other.
    fn read_stretch<T>(
        &self,
        stretch: &[(usize, Head)],
        buffer: &mut Vec<u8>,
        take: &impl Fn(&Digest, &[u8]) -> Option<T>,
    ) -> Vec<T> {
        let [(number, first), .., (_, last)] = stretch else {
            return stretch.iter().filter_map(|(number, head)| self.read_one(*number, head, take)).collect();
        };
        let (file, _) = self.file(*number);
        let length = usize::try_from(last.end() - first.offset).unwrap_or(0);
        if buffer.len() < length {
            buffer.resize(length, 0);
        }
        let read = disk::fill(&*file, &mut buffer[..length], first.offset).unwrap_or(0);
        let payload = |head: &Head| {
            let begin = usize::try_from(head.offset - first.offset).ok()?;
            segment::payload_in(buffer[..read].get(begin..)?, head)
        };
        stretch.iter().filter_map(|(_, head)| take(&head.name, payload(head)?)).collect()
    }

    fn read_one<T>(&self, number: usize, head: &Head, take: &impl Fn(&Digest, &[u8]) -> Option<T>) -> Option<T> {
        let (file, path) = self.file(number);
        take(&head.name, &segment::read(&*file, &path, head).ok()??)
    }

    /// The segment in which this process found an entry of this name damaged.
    fn lost_place(&self, kind: Kind, name: &Digest) -> Option<PathBuf> {
        let lost = self.lock_lost();
        let (number, _) = lost.iter().find(|(_, head)| (head.kind, head.name) == (kind, *name))?.0;
        Some(self.file(*number).1)
    }

    /// The length of the payload of an entry that has not been found damaged; it is not looked at.
    pub(crate) fn length(&self, kind: Kind, name: &Digest) -> Option<u64> {
        self.best(kind, name).map(|(_, head)| u64::from(head.length))
    }

    /// Appends entries and makes them durable with one sync. After a write that failed, those before it are found once
    /// they are durable, as if this process had been killed: others may have found them. After a sync that failed none is.
    pub(crate) fn append(&self, entries: &[NewEntry]) -> Result<(), SegmentError> {
        if entries.is_empty() {
            return Ok(());
        }
        self.check_can_append(entries)?;
        let mut writer = self.lock_writer();
        let held = match writer.take() {
            Some(held) => held,
            None => self.take_segment()?,
        };
        self.own.store(held.number, Ordering::Release);
        let appended = self.append_to(&held, entries);
        if appended.is_err() {
            self.own.store(NONE, Ordering::Release);
        }
        let end = appended?;
        *writer = Some(held);
        if end >= self.roll_after {
            self.leave(writer);
        }
        Ok(())
    }

    /// Writes what `is_live` of these segments anew, durably, and then removes them. Of several entries of one name the
    /// best is written. Nobody else may have any segment open.
    pub(crate) fn rewrite(&self, numbers: &[usize], is_live: &dyn Fn(&Head) -> bool) -> Result<(), SegmentError> {
        // What is appended now goes into new segments, not into one that is about to go.
        *self.lock_writer() = Some(self.begin_new()?);
        self.freeze(numbers);
        for number in numbers {
            self.copy_live(*number, is_live)?;
            let (_, path) = self.file(*number);
            for path in [contents_path(&path), path] {
                disk::remove(&*self.disk, &path)?;
            }
        }
        Ok(())
    }

    fn freeze(&self, numbers: &[usize]) {
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        numbers.iter().for_each(|number| loaded[*number].may_grow = false);
    }

    fn begin_new(&self) -> Result<Writer, SegmentError> {
        let (segment, file) = self.create()?;
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        loaded.push(segment);
        Ok(Writer { number: loaded.len() - 1, file })
    }

    /// Appends the live entries of a segment that are the best of their names, some at a time.
    fn copy_live(&self, number: usize, is_live: &dyn Fn(&Head) -> bool) -> Result<(), SegmentError> {
        let heads: Vec<Head> = {
            let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
            loaded[number].heads().filter(|head| is_live(head)).copied().collect()
        };
        let (file, path) = self.file(number);
        let mut batch = Vec::new();
        let mut bytes = 0;
        for head in heads.iter().filter(|head| self.is_best(number, head)) {
            match read_twice(&*file, &path, head)? {
                Some(payload) => {
                    bytes += payload.len();
                    batch.push((*head, payload));
                }
                // Then another of its name may be the best one.
                None => self.lose(number, head),
            }
            if bytes > COPIED_AT_ONCE {
                self.append_copies(&std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        self.append_copies(&batch)
    }

    /// Whether this entry is the one that is found under its name.
    pub(crate) fn is_best(&self, number: usize, head: &Head) -> bool {
        self.places(head.kind, &head.name).first().is_some_and(|(of, best)| (*of, best) == (number, head))
    }

    fn append_copies(&self, batch: &[(Head, Vec<u8>)]) -> Result<(), SegmentError> {
        let entries: Vec<NewEntry> = batch.iter().map(|(head, payload)| NewEntry::again(head, payload)).collect();
        self.append(&entries)
    }

    /// Reads every segment whole: number and bytes of its blobs, and the entries that were found before and are damaged;
    /// to repair is not to find these again.
    pub(crate) fn verify(&self, repair: bool) -> Result<Vec<(u64, u64, Vec<Head>)>, SegmentError> {
        let mut verified = Vec::new();
        for (number, end, heads) in self.survey() {
            let (file, path) = self.file(number);
            let scan = scan_twice(&*file, &path, HEADER as u64, end)?;
            let good: BTreeSet<u64> = scan.heads.iter().map(|head| head.offset).collect();
            let blobs = scan.heads.iter().filter(|head| head.kind == Kind::Blob);
            let (count, bytes) = blobs.fold((0, 0), |(n, sum), head| (n + 1, sum + u64::from(head.length)));
            let damaged: Vec<Head> = heads.into_iter().filter(|head| !good.contains(&head.offset)).collect();
            if repair {
                damaged.iter().for_each(|head| self.lose(number, head));
                self.pass_over_damage(number)?;
            }
            verified.push((count, bytes, damaged));
        }
        Ok(verified)
    }

    /// Has those to come not find what was skipped, and cuts off what is damaged at the end.
    fn pass_over_damage(&self, number: usize) -> Result<(), SegmentError> {
        let lost = self.lost_of(number);
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        let segment = &mut loaded[number];
        if segment.damaged() == 0 {
            return Ok(());
        }
        // What is lost at the end is bytes after the last good entry now. Nothing follows what this process appends.
        if self.own.load(Ordering::Acquire) != number {
            let end = segment.end;
            segment.end = end_of(segment.heads().filter(|head| !lost.contains(&head.offset))).min(end);
            match self.hold(segment)? {
                Some(file) => cut(&*file, segment)?,
                None => segment.end = end,
            }
        }
        segment.gap = None;
        segment.claims.clear();
        self.index(segment, &lost);
        Ok(())
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

    /// Moves what has the name of a segment and is no file to `quarantine`.
    pub(crate) fn set_strange_aside(&self, quarantine: &Path) -> Result<(), DiskError> {
        for path in std::mem::take(&mut *self.lock_strange()).into_keys() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            disk::set_aside(&*self.disk, &path, quarantine, &name)?;
        }
        Ok(())
    }

    /// Number, length and entries of each segment.
    pub(crate) fn survey(&self) -> Vec<(usize, u64, Vec<Head>)> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let segments = loaded.iter().enumerate();
        segments.map(|(number, segment)| (number, segment.end, segment.heads().copied().collect())).collect()
    }

    /// The names of all entries of a kind, in order.
    pub(crate) fn names(&self, kind: Kind) -> BTreeSet<Digest> {
        let lost = self.lock_lost();
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let mut names = BTreeSet::new();
        for (number, segment) in loaded.iter().enumerate() {
            let good = |head: &&Head| head.kind == kind && !lost.contains_key(&(number, head.offset));
            names.extend(segment.heads().filter(good).map(|head| head.name));
        }
        names
    }

    /// What was skipped as damaged, a line a file.
    pub(crate) fn damage(&self) -> Vec<String> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let damaged = loaded.iter().filter(|segment| segment.damaged() > 0);
        let skipped =
            |segment: &Segment| format!("{}: {} damaged bytes were skipped", segment.path.display(), segment.damaged());
        let strange = self.lock_strange();
        let strange = strange.iter().map(|(path, kind)| format!("{} is a {kind}, not a segment", path.display()));
        damaged.map(skipped).chain(strange).collect()
    }

    /// Where the best entries of names lie, which are in ascending order.
    fn best_of(&self, kind: Kind, names: &[&Digest]) -> Vec<(usize, Head)> {
        let lost = self.lock_lost();
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let mut begins = vec![0; loaded.len()];
        let mut places = Vec::with_capacity(names.len());
        for name in names {
            let mut best: Option<(usize, Head)> = None;
            for (number, (segment, begin)) in loaded.iter().zip(&mut begins).enumerate() {
                let fresh = segment.fresh.get(&(kind, **name));
                for head in fresh.into_iter().chain(segment.indexed.find_next(kind, name, begin)) {
                    let better = best.is_none_or(|(_, best)| head.generation > best.generation);
                    if better && !lost.contains_key(&(number, head.offset)) {
                        best = Some((number, *head));
                    }
                }
            }
            places.extend(best);
        }
        places
    }

    /// The first of [`Segments::places`]: what is asked for of every output of every cached node.
    fn best(&self, kind: Kind, name: &Digest) -> Option<(usize, Head)> {
        let lost = self.lock_lost();
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let mut best: Option<(usize, Head)> = None;
        for (number, segment) in loaded.iter().enumerate() {
            let fresh = segment.fresh.get(&(kind, *name));
            for head in fresh.into_iter().chain(segment.indexed.find(kind, name)) {
                let better = best.is_none_or(|(_, best)| head.generation > best.generation);
                if better && !lost.contains_key(&(number, head.offset)) {
                    best = Some((number, *head));
                }
            }
        }
        best
    }

    /// Where entries of this name lie, best first.
    fn places(&self, kind: Kind, name: &Digest) -> Vec<(usize, Head)> {
        let lost = self.lock_lost();
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        let mut places = Vec::new();
        for (number, segment) in loaded.iter().enumerate() {
            let fresh = segment.fresh.get(&(kind, *name));
            let found = fresh.into_iter().chain(segment.indexed.find(kind, name));
            places.extend(
                found.map(|head| (number, *head)).filter(|(_, head)| !lost.contains_key(&(number, head.offset))),
            );
        }
        // Stable, so that of equal generations the one that was met first stays first.
        places.sort_by_key(|(_, head)| std::cmp::Reverse(head.generation));
        places
    }

    fn file(&self, number: usize) -> (Arc<dyn Handle>, PathBuf) {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        (loaded[number].file.clone(), loaded[number].path.clone())
    }

    /// Reads a segment for the first time; `None` if there is nothing that could be one.
    fn load(&self, path: PathBuf) -> Result<Option<Segment>, SegmentError> {
        let (file, found) = match disk::open_regular(&*self.disk, &path, Links::Refuse)? {
            Opened::Regular(file, found) => (file, found),
            Opened::Missing => return Ok(None),
            Opened::Other(kind) => {
                self.lock_strange().insert(path, kind);
                return Ok(None);
            }
        };
        let mut segment = Segment::unread(path, file.into());
        let indexed = Contents::load(&*self.disk, &contents_path(&segment.path));
        if let Some(indexed) = indexed.filter(|indexed| indexed.end <= found.bytes)
            && segment.has_header()?
            && segment.ends_as(&indexed)
        {
            segment.end = indexed.end.max(segment.end);
            segment.indexed = indexed;
        }
        self.meet();
        self.catch_up(&mut segment)?;
        let lacking = segment.fresh.values().filter(|head| segment.is_in_reach(head)).count();
        if lacking * STALE_SHARE > segment.indexed.heads().len() {
            self.index(&mut segment, &BTreeSet::new());
        }
        Ok(Some(segment))
    }

    /// Reads what lies behind the last good entry that is known.
    fn catch_up(&self, segment: &mut Segment) -> Result<(), SegmentError> {
        let length = disk::look_at(&*segment.file, &segment.path)?.bytes;
        if length < segment.end {
            // Somebody has cut off what was read: what is left is looked through from the beginning.
            segment.forget();
            self.meet();
        }
        segment.forget_tail();
        if !segment.has_header()? || length <= segment.end {
            return Ok(());
        }
        let scan = scan_twice(&*segment.file, &segment.path, segment.end, length)?;
        if !scan.heads.is_empty() {
            // A writer that died between write and sync leaves entries that are whole and not durable.
            self.sync(&*segment.file, &segment.path, "sync")?;
            segment.learn(&scan.heads, scan.end);
            segment.skipped += scan.skipped;
            segment.gap = segment.gap.or(scan.gap);
            self.meet();
        }
        segment.claims.extend(scan.claims);
        let tail = length.saturating_sub(segment.end);
        segment.tail = if tail > 0 && self.is_abandoned(segment) { tail } else { 0 };
        Ok(())
    }

    /// Whether nobody is writing to the segment, so that what follows its last good entry is what somebody left.
    fn is_abandoned(&self, segment: &Segment) -> bool {
        let file = self.disk.open(&segment.path, Access::Read(Links::Refuse));
        file.is_ok_and(|file| disk::try_lock(&*file, &segment.path).unwrap_or(false))
    }

    /// A segment of this process's own, to append to: one that nobody holds, or a new one.
    fn take_segment(&self) -> Result<Writer, SegmentError> {
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        for (number, segment) in loaded.iter_mut().enumerate() {
            if segment.may_grow
                && segment.end < self.roll_after
                && let Some(file) = self.take_over(segment)?
            {
                return Ok(Writer { number, file });
            }
        }
        drop(loaded);
        self.begin_new()
    }

    /// Takes over a segment that nobody holds, and mends its end; `None` also if what is damaged there claims to be a list
    /// of uses: it would be gone in silence, so a repair is what cuts it off.
    fn take_over(&self, segment: &mut Segment) -> Result<Option<Box<dyn Handle>>, SegmentError> {
        let Some(file) = self.hold(segment)? else {
            return Ok(None);
        };
        if segment.claims.iter().any(|head| head.kind == Kind::Uses && head.offset >= segment.end) {
            return Ok(None);
        }
        if segment.end == 0 {
            disk::write(&*file, &segment.path, &segment::header(), 0)?;
            segment.end = HEADER as u64;
            segment.forget_tail();
        }
        cut(&*file, segment)?;
        // Whoever made the file may have died before it could sync its name.
        self.sync_folder()?;
        Ok(Some(file))
    }

    /// Locks a segment that nobody else holds, and reads all of it that is an entry.
    fn hold(&self, segment: &mut Segment) -> Result<Option<Box<dyn Handle>>, SegmentError> {
        let path = segment.path.clone();
        let file = match self.disk.open(&path, Access::Write) {
            // A segment that may not be written, or is gone, is no reason to fail: another will do.
            Err(_) => return Ok(None),
            Ok(file) => file,
        };
        let (ours, read) = (disk::look_at(&*file, &path)?, disk::look_at(&*segment.file, &path)?);
        let same = (ours.device, ours.inode) == (read.device, read.inode);
        if !same || !disk::try_lock(&*file, &path)? {
            return Ok(None);
        }
        self.catch_up(segment)?;
        segment.tail = disk::look_at(&*file, &path)?.bytes.saturating_sub(segment.end);
        Ok(Some(file))
    }

    fn create(&self) -> Result<(Segment, Box<dyn Handle>), SegmentError> {
        for _ in 0..ATTEMPTS {
            let path = self.folder.join(format!("{}{SUFFIX}", disk::random_name()));
            let file = match self.disk.open(&path, Access::Create(0o600)) {
                Err(error) if disk::is_accident(&error) => continue,
                file => file.map_err(failed("create", &path))?,
            };
            if !disk::try_lock(&*file, &path)? {
                continue;
            }
            disk::write(&*file, &path, &segment::header(), 0)?;
            self.sync_folder()?;
            let read = disk::open(&*self.disk, &path, Access::Read(Links::Refuse))?;
            let segment = Segment { end: HEADER as u64, ..Segment::unread(path, read.into()) };
            return Ok((segment, file));
        }
        Err(failed("create a segment in", &self.folder)(ErrorKind::AlreadyExists.into()).into())
    }

    /// Appends to the segment that is held; returns where it ends now.
    fn append_to(&self, held: &Writer, entries: &[NewEntry]) -> Result<u64, SegmentError> {
        let (read, path) = self.file(held.number);
        let begin = self.loaded.read().unwrap_or_else(PoisonError::into_inner)[held.number].end;
        let written = self.write_behind(begin, entries, &*held.file, &path);
        let (heads, end) = written.inspect_err(|_| cut_torn(&*held.file, &*read, &path, begin))?;
        let synced = self.sync(&*held.file, &path, "sync");
        if synced.is_err() {
            // What is on disk is not known any more. If this fails too, it is cut off or overwritten later.
            let _ = disk::set_len(&*held.file, &path, begin);
        }
        synced?;
        self.loaded.write().unwrap_or_else(PoisonError::into_inner)[held.number].learn(&heads, end);
        Ok(end)
    }

    /// Writes entries from an offset on; gives where they lie and end.
    fn write_behind(
        &self,
        begin: u64,
        entries: &[NewEntry],
        file: &dyn Handle,
        path: &Path,
    ) -> Result<(Vec<Head>, u64), DiskError> {
        let (mut heads, mut bytes, mut end) = (Vec::with_capacity(entries.len()), Vec::new(), begin);
        for entry in entries {
            let at = end + bytes.len() as u64;
            let generation = entry.generation.unwrap_or_else(|| self.next_generation(entry));
            heads.push(segment::encode(entry.kind, &entry.name, generation, entry.payload, at, &mut bytes));
            if bytes.len() > WRITTEN_AT_ONCE {
                disk::write(file, path, &bytes, end)?;
                end += bytes.len() as u64;
                bytes.clear();
            }
        }
        disk::write(file, path, &bytes, end)?;
        Ok((heads, end + bytes.len() as u64))
    }

    /// A record or list that is written now counts more than those of its name before it, also than what damaged bytes
    /// claim to be one.
    fn next_generation(&self, entry: &NewEntry) -> u32 {
        if entry.kind == Kind::Blob {
            return 0;
        }
        let known = self.places(entry.kind, &entry.name).first().map(|(_, head)| head.generation);
        let claimed = self.newest_claim(entry.kind, &entry.name).map(|(head, _)| head.generation);
        known.max(claimed).map_or(0, |last| last.saturating_add(1))
    }

    /// Lets go of a full segment.
    fn leave(&self, mut writer: MutexGuard<Option<Writer>>) {
        if let Some(held) = writer.take() {
            self.own.store(NONE, Ordering::Release);
            let lost = self.lost_of(held.number);
            let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
            self.index(&mut loaded[held.number], &lost);
        }
    }

    /// Takes an entry that is not what it was out of what is found: here, and in the contents for those to come.
    fn lose(&self, number: usize, head: &Head) {
        self.lock_lost().insert((number, head.offset), *head);
        let lost = self.lost_of(number);
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        loaded[number].skipped += head.end() - head.offset;
        self.index(&mut loaded[number], &lost);
    }

    /// Offsets of what was found damaged in a segment.
    fn lost_of(&self, number: usize) -> BTreeSet<u64> {
        self.lock_lost().range((number, 0)..=(number, u64::MAX)).map(|((_, offset), _)| *offset).collect()
    }

    /// Writes the contents of a segment beside it, up to what is damaged: that stays in sight until it is repaired. They are
    /// an index: if that fails, the segment is looked through again the next time, and if they are torn, they are none.
    fn index(&self, segment: &mut Segment, lost: &BTreeSet<u64>) {
        let good = |head: &&Head| segment.is_in_reach(head) && !lost.contains(&head.offset);
        let heads: Vec<Head> = segment.heads().filter(good).copied().collect();
        // Not further than the last entry: it is the one by which they are known to be of this segment.
        let end = end_of(heads.iter());
        let contents = Contents::new(heads, end);
        let written = Temp::create(&self.disk, &self.tmp, 0o600).and_then(|mut temp| {
            temp.write(&contents.encode())?;
            temp.place(&contents_path(&segment.path))
        });
        if written.is_ok() {
            let gap = segment.gap;
            segment.fresh.retain(|_, head| gap.is_some_and(|gap| head.offset >= gap));
            segment.indexed = contents;
        }
    }

    fn check_can_append(&self, entries: &[NewEntry]) -> Result<(), SegmentError> {
        let limit = MAX_PAYLOAD;
        if let Some(bytes) = entries.iter().map(|entry| entry.payload.len()).find(|bytes| *bytes > limit) {
            return Err(SegmentError::TooLarge { bytes, limit });
        }
        self.check_synced()
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

    /// Makes the names of the segments durable. No descriptor left is no failed sync: it may be tried again.
    fn sync_folder(&self) -> Result<(), SegmentError> {
        let handle = disk::open(&*self.disk, &self.folder, Access::Read(Links::Follow))?;
        self.sync(&*handle, &self.folder, "sync directory")
    }

    fn lock_writer(&self) -> MutexGuard<'_, Option<Writer>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_strange(&self) -> MutexGuard<'_, BTreeMap<PathBuf, &'static str>> {
        self.strange.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_lost(&self) -> MutexGuard<'_, BTreeMap<(usize, u64), Head>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Segment {
    fn unread(path: PathBuf, file: Arc<dyn Handle>) -> Segment {
        let (indexed, fresh, claims) = (Contents::default(), HashMap::default(), Vec::new());
        Segment { path, file, may_grow: true, indexed, fresh, end: 0, skipped: 0, gap: None, claims, tail: 0 }
    }

    /// Looks at the header, unless that was done; `false` if there is none yet.
    fn has_header(&mut self) -> Result<bool, SegmentError> {
        if self.end > 0 {
            return Ok(true);
        }
        match segment::scan_header(&*self.file, &self.path)? {
            Header::Good => {}
            Header::Missing => return Ok(false),
            // A damaged header says nothing: the entries speak for themselves.
            Header::Damaged => (self.may_grow, self.skipped) = (false, HEADER as u64),
            Header::Newer(found) => {
                return Err(SegmentError::Version { path: self.path.clone(), found, supported: VERSION });
            }
        }
        self.end = HEADER as u64;
        Ok(true)
    }

    /// Whether these contents are of this file: one that lost its end and has grown again since has other entries there.
    fn ends_as(&self, contents: &Contents) -> bool {
        let last = contents.heads().iter().max_by_key(|head| head.offset);
        last.is_some_and(|last| last.end() == contents.end && segment::has(&*self.file, last))
    }

    fn forget(&mut self) {
        self.indexed = Contents::default();
        self.fresh.clear();
        self.gap = None;
        self.claims.clear();
        self.end = 0;
    }

    /// What follows the last good entry is looked at anew each time.
    fn forget_tail(&mut self) {
        self.claims.retain(|claim| claim.offset < self.end);
        self.tail = 0;
    }

    /// What damaged bytes claim to be; what somebody may be about to write is not damaged.
    fn claims(&self) -> impl Iterator<Item = &Head> {
        self.claims.iter().filter(|claim| claim.offset < self.end || self.tail > 0)
    }

    fn damaged(&self) -> u64 {
        self.skipped + self.tail
    }

    /// Whether contents may say where this lies: nothing is damaged before it that was not repaired.
    fn is_in_reach(&self, head: &Head) -> bool {
        self.gap.is_none_or(|gap| head.offset < gap)
    }

    /// Takes in entries that follow each other, up to `end`.
    fn learn(&mut self, heads: &[Head], end: u64) {
        for head in heads {
            let best = self.fresh.entry((head.kind, head.name)).or_insert(*head);
            if head.generation >= best.generation {
                *best = *head;
            }
        }
        self.end = end;
        self.tail = 0;
    }

    fn heads(&self) -> impl Iterator<Item = &Head> {
        self.indexed.heads().iter().chain(self.fresh.values())
    }
}

/// End of the last of these entries.
fn end_of<'h>(heads: impl Iterator<Item = &'h Head>) -> u64 {
    heads.map(Head::end).max().unwrap_or(HEADER as u64)
}

/// Cuts off what is behind the last good entry of a segment that is held.
fn cut(file: &dyn Handle, segment: &mut Segment) -> Result<(), DiskError> {
    if segment.tail > 0 {
        disk::set_len(file, &segment.path, segment.end)?;
        segment.skipped += segment.tail;
        segment.forget_tail();
    }
    Ok(())
}

/// Cuts off what is behind the last whole entry of a group that could not be written: others may have found those before,
/// and made them durable. If this fails too, whoever takes the segment over does it.
fn cut_torn(file: &dyn Handle, read: &dyn Handle, path: &Path, begin: u64) {
    let length = disk::look_at(read, path).map(|found| found.bytes);
    let whole = length.and_then(|length| Ok(segment::scan(read, path, begin, length)?.end));
    let _ = whole.and_then(|whole| disk::set_len(file, path, whole));
}

/// Looks for entries; what is skipped is looked at again, as a fault that passes is no damage.
fn scan_twice(file: &dyn Handle, path: &Path, begin: u64, length: u64) -> Result<Scan, DiskError> {
    let scan = segment::scan(file, path, begin, length)?;
    if scan.skipped == 0 && scan.end >= length { Ok(scan) } else { segment::scan(file, path, begin, length) }
}

/// Reads an entry; a fault that passes is no damage, one that stays is.
fn read_twice(file: &dyn Handle, path: &Path, head: &Head) -> Result<Option<Vec<u8>>, DiskError> {
    match segment::read(file, path, head) {
        Ok(Some(payload)) => Ok(Some(payload)),
        Err(error) if !error.is_of_the_medium() => Err(error),
        Ok(None) | Err(_) => match segment::read(file, path, head) {
            Err(error) if error.is_of_the_medium() => Ok(None),
            again => again,
        },
    }
}

fn contents_path(segment: &Path) -> PathBuf {
    segment.with_extension(&CONTENTS_SUFFIX[1..])
}

fn is_segment(name: &str) -> bool {
    let digits = name.strip_suffix(SUFFIX).map(str::as_bytes).unwrap_or_default();
    digits.len() == DIGITS && digits.iter().all(|character| digest::digit(*character).is_some())
}

#[cfg(test)]
#[path = "segments_tests.rs"]
mod tests;
