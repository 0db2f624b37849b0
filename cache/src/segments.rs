//! `Segments`: the folder of all segments, the one that this process appends to, and where each entry lies.
//!
//! Does not know what a blob or a record means, nor when something is to be made durable.
//!
//! A segment is written by one process at a time: it holds the kernel's exclusive lock on the file for as long as it
//! has the segment. A process takes a segment over that nobody holds, or makes a new one. Everybody reads all of them,
//! without locks: an entry checks or it does not.
//!
//! Invariants: an entry is found only after its file was synced, whoever wrote it, so what is found is durable; what is
//! read is checked; nothing but bytes after the last good entry is ever cut off, and only by the holder of the lock;
//! an entry that was found damaged is not found again by this process. After a sync that failed nothing is appended
//! and nothing newly believed: a second sync would succeed and mean nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rayon::prelude::*;

use crate::contents::Contents;
use crate::digest::{self, Digest, Uniform};
use crate::disk::{self, Access, Disk, DiskError, Handle, Links, Opened, Temp, failed};
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
    sync_failed: AtomicBool,
}

/// One segment, and how far it has been read.
#[derive(Debug)]
struct Segment {
    path: PathBuf,
    file: Arc<dyn Handle>,
    /// Whether entries may be appended: its header is intact, or still missing.
    is_whole: bool,
    indexed: Contents,
    /// The best of each name behind what is indexed.
    fresh: HashMap<(Kind, Digest), Head, Uniform>,
    /// End of the last good entry; 0 as long as there is no header.
    end: u64,
    /// Damaged bytes that good entries follow, or that were cut off.
    skipped: u64,
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
            sync_failed: AtomicBool::new(false),
        };
        segments.refresh()?;
        Ok(segments)
    }

    /// Reads what other processes have appended since the last look; gives whether that was anything.
    pub(crate) fn refresh(&self) -> Result<bool, SegmentError> {
        self.check_synced()?;
        let own = self.own.load(Ordering::Acquire);
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        let mut news = false;
        for (number, segment) in loaded.iter_mut().enumerate() {
            if own != number {
                news |= self.catch_up(segment)?;
            }
        }
        for name in disk::names(&*self.disk, &self.folder)? {
            let path = self.folder.join(&name);
            if is_segment(&name) && !loaded.iter().any(|segment| segment.path == path) {
                let found = self.load(path)?;
                news |= found.is_some();
                loaded.extend(found);
            }
        }
        Ok(news)
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

    /// What `take` makes of the payloads of many entries, checked, in no order. They are read as they lie, many with one
    /// call. What cannot be read, or is not what it was, is left out: [`Segments::read`] tells what is wrong with it.
    pub(crate) fn read_together<T: Send>(
        &self,
        kind: Kind,
        names: &[Digest],
        take: impl Fn(&Digest, &[u8]) -> Option<T> + Sync,
    ) -> Vec<T> {
        aside(|| {
            // Sorted, neighbours are looked for in the same places.
            let mut names: Vec<&Digest> = names.iter().collect();
            names.par_sort_unstable();
            names.dedup();
            let mut places: Vec<(usize, Head)> = names.into_iter().filter_map(|name| self.best(kind, name)).collect();
            places.par_sort_unstable_by_key(|(number, head)| (*number, head.offset));
            let together = |(one, before): &(usize, Head), (other, after): &(usize, Head)| {
                one == other && after.offset - before.end() <= GAP && after.offset / STRETCH == before.offset / STRETCH
            };
            let stretches: Vec<&[(usize, Head)]> = places.chunk_by(together).collect();
            let read = |stretch: &&[(usize, Head)]| self.read_stretch(stretch, &take);
            stretches.par_iter().flat_map_iter(read).collect()
        })
    }

    /// Reads entries of one segment that lie behind each other.
    fn read_stretch<T>(&self, stretch: &[(usize, Head)], take: &impl Fn(&Digest, &[u8]) -> Option<T>) -> Vec<T> {
        let [(number, first), .., (_, last)] = stretch else {
            return stretch.iter().filter_map(|(number, head)| self.read_one(*number, head, take)).collect();
        };
        let (file, _) = self.file(*number);
        let mut bytes = vec![0; usize::try_from(last.end() - first.offset).unwrap_or(0)];
        let read = disk::fill(&*file, &mut bytes, first.offset).unwrap_or(0);
        let payload = |head: &Head| {
            let begin = usize::try_from(head.offset - first.offset).ok()?;
            segment::payload_in(bytes[..read].get(begin..)?, head)
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

    /// Appends entries and makes them durable with one sync: all of them are found afterwards, or none.
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
        let held = writer.insert(held);
        if self.append_to(held, entries)? >= ROLL_AFTER {
            self.leave(writer);
        }
        Ok(())
    }

    /// Writes what `is_live` of these segments anew, durably, and then removes them. Of several entries of one name the
    /// best is written. Nobody else may have any segment open.
    pub(crate) fn rewrite(&self, numbers: &[usize], is_live: &dyn Fn(&Head) -> bool) -> Result<(), SegmentError> {
        // What is appended now goes into a new segment, not into one that is about to go.
        *self.lock_writer() = Some(self.begin_new()?);
        for number in numbers {
            self.copy_live(*number, is_live)?;
            let (_, path) = self.file(*number);
            for path in [contents_path(&path), path] {
                disk::remove(&*self.disk, &path)?;
            }
        }
        Ok(())
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
            }
            verified.push((count, bytes, damaged));
        }
        Ok(verified)
    }

    /// Moves what has the name of a segment and is no file to `quarantine`.
    pub(crate) fn set_strange_aside(&self, quarantine: &Path) -> Result<(), DiskError> {
        for path in std::mem::take(&mut *self.lock_strange()).into_keys() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let place = quarantine.join(format!("{name}-{}", disk::random_name()));
            self.disk.rename(&path, &place).map_err(failed("quarantine", &path))?;
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
        {
            segment.end = indexed.end.max(segment.end);
            segment.indexed = indexed;
        }
        self.catch_up(&mut segment)?;
        if segment.fresh.len() * STALE_SHARE > segment.indexed.heads().len() {
            self.index(&mut segment, &BTreeSet::new());
        }
        Ok(Some(segment))
    }

    /// Reads what lies behind the last good entry that is known; gives whether what is known has changed.
    fn catch_up(&self, segment: &mut Segment) -> Result<bool, SegmentError> {
        let length = disk::look_at(&*segment.file, &segment.path)?.bytes;
        let cut = length < segment.end;
        if cut {
            // Somebody has cut off what was read: what is left is looked through from the beginning.
            segment.forget();
        }
        if !segment.has_header()? || length <= segment.end {
            return Ok(cut);
        }
        let scan = scan_twice(&*segment.file, &segment.path, segment.end, length)?;
        if !scan.heads.is_empty() {
            // A writer that died between write and sync leaves entries that are whole and not durable.
            self.sync(&*segment.file, &segment.path, "sync")?;
            segment.learn(&scan.heads, scan.end);
            segment.skipped += scan.skipped;
        }
        let tail = length.saturating_sub(segment.end);
        segment.tail = if tail > 0 && self.is_abandoned(segment) { tail } else { 0 };
        Ok(cut || !scan.heads.is_empty())
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
            if segment.is_whole
                && segment.end < ROLL_AFTER
                && let Some(file) = self.take_over(segment)?
            {
                return Ok(Writer { number, file });
            }
        }
        drop(loaded);
        self.begin_new()
    }

    /// Takes over a segment that nobody holds, and mends its end.
    fn take_over(&self, segment: &mut Segment) -> Result<Option<Box<dyn Handle>>, SegmentError> {
        let path = segment.path.clone();
        let file = match self.disk.open(&path, Access::Edit(0o600)) {
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
        if segment.end == 0 {
            disk::write(&*file, &path, &segment::header(), 0)?;
            segment.end = HEADER as u64;
        }
        let tail = disk::look_at(&*file, &path)?.bytes.saturating_sub(segment.end);
        if tail > 0 {
            disk::set_len(&*file, &path, segment.end)?;
            segment.skipped += tail;
            segment.tail = 0;
        }
        // Whoever made the file may have died before it could sync its name.
        self.sync_folder()?;
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
        let (_, path) = self.file(held.number);
        let begin = self.loaded.read().unwrap_or_else(PoisonError::into_inner)[held.number].end;
        let (mut bytes, mut heads) = (Vec::new(), Vec::with_capacity(entries.len()));
        for entry in entries {
            let at = begin + bytes.len() as u64;
            let generation = entry.generation.unwrap_or_else(|| self.next_generation(entry));
            heads.push(segment::encode(entry.kind, &entry.name, generation, entry.payload, at, &mut bytes));
        }
        let written = disk::write(&*held.file, &path, &bytes, begin).map_err(SegmentError::from);
        let synced = written.and_then(|()| self.sync(&*held.file, &path, "sync"));
        if synced.is_err() {
            // Nobody may find an entry that was reported as failed. If this fails too, it is cut off or overwritten later.
            let _ = disk::set_len(&*held.file, &path, begin);
            synced?;
        }
        let end = begin + bytes.len() as u64;
        self.loaded.write().unwrap_or_else(PoisonError::into_inner)[held.number].learn(&heads, end);
        Ok(end)
    }

    /// A record that is written now counts more than those of its key before it.
    fn next_generation(&self, entry: &NewEntry) -> u32 {
        match entry.kind {
            Kind::Blob => 0,
            Kind::Record | Kind::Uses => {
                let last = self.places(entry.kind, &entry.name).first().map(|(_, head)| head.generation);
                last.map_or(0, |last| last.saturating_add(1))
            }
        }
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

    /// Writes the contents of a segment beside it. They are an index: if that fails, the segment is looked through
    /// again the next time, and if they are torn, they are none.
    fn index(&self, segment: &mut Segment, lost: &BTreeSet<u64>) {
        let heads = segment.heads().filter(|head| !lost.contains(&head.offset)).copied().collect();
        let contents = Contents::new(heads, segment.end);
        let written = Temp::create(&self.disk, &self.tmp, 0o600).and_then(|mut temp| {
            temp.write(&contents.encode())?;
            temp.place(&contents_path(&segment.path))
        });
        if written.is_ok() {
            segment.fresh.clear();
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
        if self.sync_failed.load(Ordering::Acquire) {
            let folder = self.folder.clone();
            return Err(SegmentError::SyncFailed { folder });
        }
        Ok(())
    }

    fn sync(&self, handle: &dyn Handle, path: &Path, operation: &'static str) -> Result<(), SegmentError> {
        self.check_synced()?;
        handle.sync().map_err(|error| {
            self.sync_failed.store(true, Ordering::Release);
            failed(operation, path)(error).into()
        })
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
        let (indexed, fresh) = (Contents::default(), HashMap::default());
        Segment { path, file, is_whole: true, indexed, fresh, end: 0, skipped: 0, tail: 0 }
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
            Header::Damaged => (self.is_whole, self.skipped) = (false, HEADER as u64),
            Header::Newer(found) => {
                return Err(SegmentError::Version { path: self.path.clone(), found, supported: VERSION });
            }
        }
        self.end = HEADER as u64;
        Ok(true)
    }

    fn forget(&mut self) {
        self.indexed = Contents::default();
        self.fresh.clear();
        self.end = 0;
    }

    fn damaged(&self) -> u64 {
        self.skipped + self.tail
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
mod tests {
    use super::*;
    use crate::disk::{Call, FailingDisk, Fault, ForgetfulDisk, RealDisk};
    use std::fs::{self, OpenOptions};
    use std::io::Write;

    struct Bench {
        folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { folder: tempfile::tempdir().unwrap() }
        }

        fn segments(&self) -> Segments {
            let folder = self.folder.path();
            Segments::open(Arc::new(RealDisk), folder.to_owned(), folder.to_owned()).unwrap()
        }

        /// The one segment that there is.
        fn path(&self) -> PathBuf {
            let paths = self.paths();
            assert_eq!(paths.len(), 1);
            paths[0].clone()
        }

        fn paths(&self) -> Vec<PathBuf> {
            let mut names = disk::names(&RealDisk, self.folder.path()).unwrap();
            names.retain(|name| is_segment(name));
            names.into_iter().map(|name| self.folder.path().join(name)).collect()
        }

        /// Forgets what is written beside the segments.
        fn forget_contents(&self) {
            for path in self.paths() {
                let _ = fs::remove_file(contents_path(&path));
            }
        }

        fn found(&self) -> Vec<Vec<u8>> {
            found(&self.segments())
        }
    }

    const THREE: [&[u8]; 3] = [b"first", b"the second entry", b""];

    fn put(segments: &Segments, payloads: &[&[u8]]) -> Result<(), SegmentError> {
        let entry = |payload: &&'static [u8]| NewEntry::new(Kind::Blob, Digest::of(payload), payload);
        // Tests have static payloads.
        let payloads: Vec<&'static [u8]> = payloads.iter().map(|bytes| &*bytes.to_vec().leak()).collect();
        segments.append(&payloads.iter().map(entry).collect::<Vec<_>>())
    }

    fn record<'a>(name: &str, payload: &'a [u8]) -> NewEntry<'a> {
        NewEntry::new(Kind::Record, Digest::of(name.as_bytes()), payload)
    }

    fn get(segments: &Segments, name: &str) -> Found {
        segments.read(Kind::Record, &Digest::of(name.as_bytes())).unwrap()
    }

    /// The payloads of all blobs that are found and can be read.
    fn found(segments: &Segments) -> Vec<Vec<u8>> {
        let names = segments.names(Kind::Blob);
        let read = names.iter().filter_map(|name| match segments.read(Kind::Blob, name).unwrap() {
            Found::Payload(payload) => Some(payload),
            Found::Nothing | Found::Damaged(_) => None,
        });
        let mut found: Vec<_> = read.collect();
        found.sort();
        found
    }

    fn sorted(payloads: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut payloads: Vec<_> = payloads.iter().map(|payload| payload.to_vec()).collect();
        payloads.sort();
        payloads
    }

    #[test]
    fn entries_are_found_at_once_and_after_reopening_with_and_without_contents() {
        let bench = Bench::new();
        let segments = bench.segments();
        put(&segments, &THREE).unwrap();
        assert_eq!(found(&segments), sorted(&THREE));
        drop(segments);
        assert_eq!(bench.found(), sorted(&THREE));
        assert!(contents_path(&bench.path()).exists());
        assert_eq!(bench.found(), sorted(&THREE));
        bench.forget_contents();
        assert_eq!(bench.found(), sorted(&THREE));
    }

    #[test]
    fn the_layout_is_as_documented() {
        let bench = Bench::new();
        let name = Digest::of(b"key");
        bench.segments().append(&[NewEntry::new(Kind::Record, name, b"first")]).unwrap();
        let bytes = fs::read(bench.path()).unwrap();
        assert_eq!(bytes.len(), 16 + 64 + 8);
        assert_eq!(&bytes[..12], b"HWSEGMNT\x01\0\0\0");
        assert_eq!(&bytes[16..32], b"\xf5HWe\x05\0\0\0\x02\0\0\0\0\0\0\0");
        assert_eq!(&bytes[32..64], name.as_bytes());
        assert_eq!(&bytes[80..], b"first\0\0\0");
        assert_eq!(Digest::of(&bytes).to_string(), "5b08a082f633b78ec9edc4c3106b9fb8670fdb50bb5c3406a623917370bf51dd");
    }

    #[test]
    fn a_folder_in_which_nothing_was_appended_stays_empty() {
        let bench = Bench::new();
        bench.segments().append(&[]).unwrap();
        assert!(bench.found().is_empty());
        assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn of_several_records_the_last_wins_whichever_segment_it_is_in() {
        let bench = Bench::new();
        let (one, two) = (bench.segments(), bench.segments());
        one.append(&[record("a", b"1")]).unwrap();
        two.refresh().unwrap();
        two.append(&[record("a", b"2")]).unwrap();
        assert_eq!(bench.paths().len(), 2);
        assert_eq!(get(&bench.segments(), "a"), Found::Payload(b"2".to_vec()));
        one.refresh().unwrap();
        one.append(&[record("a", b"3"), record("b", b"x")]).unwrap();
        drop((one, two));
        for _ in 0..2 {
            assert_eq!(get(&bench.segments(), "a"), Found::Payload(b"3".to_vec()));
        }
    }

    #[test]
    fn every_flipped_bit_costs_at_most_its_own_entry_with_and_without_contents() {
        let bench = Bench::new();
        put(&bench.segments(), &THREE).unwrap();
        let good = fs::read(bench.path()).unwrap();
        for bit in 0..good.len() * 8 {
            bench.forget_contents();
            fs::write(bench.path(), &good).unwrap();
            assert_eq!(bench.found().len(), 3);
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(bench.path(), &bytes).unwrap();
            for _ in ["with contents", "without"] {
                let found = bench.found();
                assert!(found.len() >= 2, "bit {bit}: {} entries", found.len());
                assert!(found.iter().all(|entry| THREE.contains(&entry.as_slice())));
                bench.forget_contents();
            }
        }
    }

    #[test]
    fn every_truncation_leaves_the_entries_before_it_and_takes_the_next_append() {
        let bench = Bench::new();
        put(&bench.segments(), &THREE).unwrap();
        let (path, good) = (bench.path(), fs::read(bench.path()).unwrap());
        for length in 0..=good.len() {
            bench.forget_contents();
            fs::write(&path, &good[..length]).unwrap();
            let before = bench.found();
            assert!(before.iter().all(|entry| THREE.contains(&entry.as_slice())));
            let segments = bench.segments();
            put(&segments, &[b"next"]).unwrap();
            drop(segments);
            let after = bench.found();
            assert_eq!(after.len(), before.len() + 1, "cut at {length}");
            assert!(after.contains(&b"next".to_vec()), "cut at {length}");
            assert_eq!(bench.paths().len(), 1, "cut at {length}");
        }
    }

    #[test]
    fn contents_that_cover_more_than_is_left_are_not_believed() {
        let bench = Bench::new();
        put(&bench.segments(), &THREE).unwrap();
        assert_eq!(bench.found().len(), 3);
        let good = fs::read(bench.path()).unwrap();
        fs::write(bench.path(), &good[..good.len() - 64]).unwrap();
        assert_eq!(bench.found().len(), 2);
        let segments = bench.segments();
        put(&segments, &[b"next"]).unwrap();
        drop(segments);
        assert_eq!(bench.found().len(), 3);
    }

    #[test]
    fn a_damaged_entry_is_named_and_counts_for_nothing_and_can_be_written_again() {
        let bench = Bench::new();
        put(&bench.segments(), &THREE).unwrap();
        assert_eq!(bench.found().len(), 3);
        let mut bytes = fs::read(bench.path()).unwrap();
        bytes[16 + 64] ^= 0xff;
        fs::write(bench.path(), &bytes).unwrap();
        let segments = bench.segments();
        let name = segments.names(Kind::Blob).into_iter().find(
            |name| matches!(segments.read(Kind::Blob, name).unwrap(), Found::Damaged(path) if path == bench.path()),
        );
        let name = name.expect("one of three is damaged");
        assert_eq!(segments.read(Kind::Blob, &name).unwrap(), Found::Damaged(bench.path()));
        assert_eq!(segments.length(Kind::Blob, &name), None);
        // So that whoever looks next makes it again instead of taking it to be there.
        assert_eq!(bench.segments().length(Kind::Blob, &name), None);
        put(&segments, &THREE).unwrap();
        assert_eq!(found(&segments), sorted(&THREE));
        drop(segments);
        assert_eq!(bench.found(), sorted(&THREE));
    }

    #[test]
    fn damage_is_counted_and_stepped_over_until_what_is_torn_is_cut_off() {
        let bench = Bench::new();
        put(&bench.segments(), &THREE).unwrap();
        let mut bytes = fs::read(bench.path()).unwrap();
        bytes[16 + 72 + 4] ^= 0xff;
        bytes.extend_from_slice(b"torn");
        fs::write(bench.path(), &bytes).unwrap();
        let segments = bench.segments();
        let cost = 64
            + match THREE.iter().map(|entry| entry.len()).collect::<Vec<_>>()[..] {
                [_, _, _] => THREE[1].len() as u64,
                _ => 0,
            };
        let text = |bytes: u64| vec![format!("{}: {bytes} damaged bytes were skipped", bench.path().display())];
        assert_eq!(segments.damage(), text(cost + 4));
        segments.refresh().unwrap();
        assert_eq!(segments.damage(), text(cost + 4));
        put(&segments, &[b"next"]).unwrap();
        assert_eq!(segments.damage(), text(cost + 4));
        drop(segments);
        bench.forget_contents();
        assert_eq!(bench.segments().damage(), text(cost));
        assert_eq!(bench.found().len(), 3);
    }

    #[test]
    fn what_a_living_process_has_written_in_part_is_no_damage() {
        let bench = Bench::new();
        let writer = bench.segments();
        put(&writer, &[b"whole"]).unwrap();
        OpenOptions::new().append(true).open(bench.path()).unwrap().write_all(b"\xf5HWe half").unwrap();
        assert_eq!(bench.segments().damage(), Vec::<String>::new());
        drop(writer);
        assert_eq!(bench.segments().damage().len(), 1);
    }

    #[test]
    fn an_entry_at_another_offset_is_no_entry() {
        let bench = Bench::new();
        put(&bench.segments(), &[b"first"]).unwrap();
        let good = fs::read(bench.path()).unwrap();
        let moved = [&good[..16], &[0; 8], &good[16..]].concat();
        fs::write(bench.path(), moved).unwrap();
        assert!(bench.found().is_empty());
    }

    #[test]
    fn an_entry_inside_a_payload_is_never_taken_for_one() {
        let bench = Bench::new();
        let mut inner = Vec::new();
        segment::encode(Kind::Blob, &Digest::of(b"inner"), 0, b"inner", 16, &mut inner);
        put(&bench.segments(), &[&inner]).unwrap();
        let mut bytes = fs::read(bench.path()).unwrap();
        bytes[16] ^= 1;
        fs::write(bench.path(), &bytes).unwrap();
        assert!(bench.found().is_empty());
    }

    #[test]
    fn a_tail_of_zeros_is_cut_off() {
        let bench = Bench::new();
        put(&bench.segments(), &[b"first"]).unwrap();
        OpenOptions::new().write(true).open(bench.path()).unwrap().set_len(5000).unwrap();
        assert_eq!(bench.found(), [b"first"]);
        let segments = bench.segments();
        put(&segments, &[b"next"]).unwrap();
        drop(segments);
        assert_eq!(bench.found(), [b"first".to_vec(), b"next".to_vec()]);
        assert_eq!(fs::metadata(bench.path()).unwrap().len(), 16 + 72 + 72);
    }

    #[test]
    fn a_damaged_header_hides_no_entry_and_nothing_is_appended_behind_it() {
        let bench = Bench::new();
        put(&bench.segments(), &[b"first"]).unwrap();
        let mut bytes = fs::read(bench.path()).unwrap();
        bytes[8] = 9;
        fs::write(bench.path(), &bytes).unwrap();
        assert_eq!(bench.found(), [b"first"]);
        put(&bench.segments(), &[b"next"]).unwrap();
        assert_eq!(bench.found(), [b"first".to_vec(), b"next".to_vec()]);
        assert_eq!(bench.paths().len(), 2);
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let bench = Bench::new();
        put(&bench.segments(), &[b"first"]).unwrap();
        let mut newer = fs::read(bench.path()).unwrap();
        newer[8] = 2;
        let check = blake3::hash(&newer[..12]);
        newer[12..16].copy_from_slice(&check.as_bytes()[..4]);
        fs::write(bench.path(), &newer).unwrap();
        let folder = bench.folder.path().to_owned();
        let error = Segments::open(Arc::new(RealDisk), folder.clone(), folder).unwrap_err();
        let text = format!("{} has format version 2, this program reads version 1", bench.path().display());
        assert_eq!(error.to_string(), text);
        assert_eq!(fs::read(bench.path()).unwrap(), newer);
    }

    #[test]
    fn what_is_no_file_is_named_and_left_alone() {
        let bench = Bench::new();
        put(&bench.segments(), &[b"first"]).unwrap();
        let path = bench.path();
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let segments = bench.segments();
        put(&segments, &[b"next"]).unwrap();
        assert_eq!(found(&segments), [b"next"]);
        assert_eq!(segments.damage(), [format!("{} is a directory, not a segment", path.display())]);
    }

    #[test]
    fn an_entry_over_the_limit_is_refused_and_nothing_is_written() {
        let bench = Bench::new();
        let error = bench.segments().append(&[record("a", &vec![0; MAX_PAYLOAD + 1])]).unwrap_err();
        assert_eq!(error.to_string(), "an entry of 67108865 bytes is over the limit of 67108864");
        assert!(bench.paths().is_empty());
    }

    #[test]
    fn entries_larger_than_what_is_read_at_a_time_are_read() {
        let bench = Bench::new();
        let large = vec![7; (3 << 20) + 5];
        put(&bench.segments(), &[b"first", &large, b"last"]).unwrap();
        assert_eq!(bench.found(), sorted(&[b"first", &large, b"last"]));
    }

    #[test]
    fn a_process_takes_over_what_nobody_holds_and_leaves_what_is_held() {
        let bench = Bench::new();
        let (one, two) = (bench.segments(), bench.segments());
        put(&one, &[b"a"]).unwrap();
        put(&two, &[b"b"]).unwrap();
        put(&one, &[b"c"]).unwrap();
        assert_eq!(bench.paths().len(), 2);
        drop((one, two));
        for payload in [b"d", b"e"] {
            put(&bench.segments(), &[payload]).unwrap();
        }
        assert_eq!(bench.paths().len(), 2);
        assert_eq!(bench.found(), sorted(&[b"a", b"b", b"c", b"d", b"e"]));
    }

    #[test]
    fn a_refresh_finds_what_another_process_appended_there_and_in_new_segments() {
        let bench = Bench::new();
        let reader = bench.segments();
        let (one, two) = (bench.segments(), bench.segments());
        for (writer, payload) in [(&one, b"a"), (&two, b"b"), (&one, b"c")] {
            put(writer, &[payload]).unwrap();
        }
        assert!(found(&reader).is_empty());
        reader.refresh().unwrap();
        assert_eq!(found(&reader), sorted(&[b"a", b"b", b"c"]));
        put(&two, &[b"d"]).unwrap();
        reader.refresh().unwrap();
        assert_eq!(found(&reader).len(), 4);
    }

    #[test]
    fn a_segment_that_was_replaced_by_a_shorter_one_is_read_from_its_start() {
        let bench = Bench::new();
        put(&bench.segments(), &[b"a long entry of the old file", b"and another"]).unwrap();
        let reader = bench.segments();
        let bytes = fs::read(bench.path()).unwrap();
        OpenOptions::new().write(true).open(bench.path()).unwrap().set_len(bytes.len() as u64 - 80).unwrap();
        reader.refresh().unwrap();
        assert_eq!(found(&reader).len(), 1);
    }

    fn in_memory() -> (ForgetfulDisk, Segments) {
        let disk = ForgetfulDisk::new();
        disk.create_dir(Path::new("/s"), 0o700).unwrap();
        disk.sync_all();
        let segments = open_on(Arc::new(disk.clone()));
        (disk, segments)
    }

    fn open_on(disk: Arc<dyn Disk>) -> Segments {
        Segments::open(disk, "/s".into(), "/s".into()).unwrap()
    }

    #[test]
    fn a_failed_sync_is_final_and_leaves_no_entry() {
        let (disk, segments) = in_memory();
        put(&segments, &[b"before"]).unwrap();
        drop(segments);
        let decide = |call: &Call| {
            let ours = call.operation == "sync" && call.path.extension().is_some();
            ours.then_some(Fault::Error(libc::EIO))
        };
        // Its contents are known, so that opening needs no sync.
        drop(open_on(Arc::new(disk.clone())));
        let failing = open_on(Arc::new(FailingDisk::new(Arc::new(disk.clone()), decide)));
        let first = put(&failing, &[b"after"]).unwrap_err().to_string();
        assert!(first.starts_with("cannot sync /s/") && first.ends_with("Input/output error (os error 5)"), "{first}");
        let text = "/s takes no more entries: an earlier sync failed";
        assert_eq!(put(&failing, &[b"later"]).unwrap_err().to_string(), text);
        assert_eq!(failing.refresh().unwrap_err().to_string(), text);
        assert_eq!(found(&failing), [b"before"]);
        drop(failing);
        assert_eq!(found(&open_on(Arc::new(disk))), [b"before"]);
    }

    #[test]
    fn a_write_that_fails_half_way_leaves_no_entry_and_may_be_repeated() {
        let (disk, segments) = in_memory();
        put(&segments, &[b"before"]).unwrap();
        drop(segments);
        let count = std::sync::atomic::AtomicUsize::new(0);
        let decide = move |call: &Call| {
            let chosen = call.operation == "write_at" && call.path.extension().is_some_and(|end| end == "seg");
            (chosen && count.fetch_add(1, Ordering::SeqCst) < 1).then_some(Fault::Short(libc::ENOSPC))
        };
        let failing = open_on(Arc::new(FailingDisk::new(Arc::new(disk.clone()), decide)));
        assert!(put(&failing, &[b"one", b"two"]).is_err());
        assert_eq!(found(&failing), [b"before"]);
        put(&failing, &[b"one", b"two"]).unwrap();
        drop(failing);
        assert_eq!(found(&open_on(Arc::new(disk))).len(), 3);
    }

    #[test]
    fn what_a_killed_process_did_not_sync_is_not_found_before_it_is_durable() {
        let (disk, segments) = in_memory();
        put(&segments, &[b"before"]).unwrap();
        let reader = open_on(Arc::new(disk.clone()));
        drop(segments);
        let kill = |call: &Call| {
            let ours = call.operation == "sync" && call.path.extension().is_some();
            ours.then_some(Fault::Killed)
        };
        assert!(put(&open_on(Arc::new(FailingDisk::new(Arc::new(disk.clone()), kill))), &[b"unsynced"]).is_err());
        reader.refresh().unwrap();
        assert_eq!(found(&reader).len(), 2);
        for crashed in disk.crashes(64, 0) {
            assert_eq!(found(&open_on(Arc::new(crashed))).len(), 2);
        }
    }

    #[test]
    fn a_new_segment_survives_any_crash_after_its_first_append() {
        let (disk, segments) = in_memory();
        put(&segments, &[b"first", b"second"]).unwrap();
        for crashed in disk.crashes(64, 0) {
            assert_eq!(found(&open_on(Arc::new(crashed))).len(), 2);
        }
    }
}
