//! `Writer`: the segment that this process appends to: taken over from who has left it, or new.
//!
//! Invariants: its lock is held as long as it is the one; a group of entries is found when it has been synced as a whole;
//! what others may have found of a group that could not be written stays, and what is torn behind it is cut off.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{MutexGuard, PoisonError};

use super::loading::contents_path;
use super::segment::Segment;
use super::{NONE, SUFFIX, SegmentError, Segments, read_twice};
use crate::digest::Digest;
use crate::disk::{self, Access, DiskError, Handle, Links, failed};
use crate::entry::{self, HEADER, Head, Kind, MAX_PAYLOAD};

/// Entries are written anew in groups of about so many bytes.
const COPIED_AT_ONCE: usize = 16 << 20;
/// Entries are written in pieces of about so many: what a processor core has in its cache.
const WRITTEN_AT_ONCE: usize = 512 << 10;
/// How often a name for a new segment is tried that another process takes over at once.
const ATTEMPTS: usize = 16;

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

/// The segment that this process appends to: its lock is held as long as this lives.
#[derive(Debug)]
pub(super) struct Writer {
    number: usize,
    file: Box<dyn Handle>,
}

impl Segments {
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

    fn check_can_append(&self, entries: &[NewEntry]) -> Result<(), SegmentError> {
        let limit = MAX_PAYLOAD;
        if let Some(bytes) = entries.iter().map(|entry| entry.payload.len()).find(|bytes| *bytes > limit) {
            return Err(SegmentError::TooLarge { bytes, limit });
        }
        self.check_synced()
    }

    /// Appends to the segment that is held; returns where it ends now.
    fn append_to(&self, held: &Writer, entries: &[NewEntry]) -> Result<u64, SegmentError> {
        let (read, path) = self.file(held.number);
        let begin = self.loaded.read().unwrap_or_else(PoisonError::into_inner)[held.number].end;
        let written = self.write_behind(begin, entries, &*held.file, &path);
        let (heads, end) = written.inspect_err(|_| cut_torn(&*held.file, &*read, &path, begin))?;
        let synced = self.sync(&*held.file, &path, "sync");
        if synced.is_err() {
            // What is on disk is not known any more. If this fails too, others may sync it again, and believe that.
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
            heads.push(entry::encode(entry.kind, &entry.name, generation, entry.payload, at, &mut bytes));
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
            let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
            self.index(&mut loaded[held.number]);
        }
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
        let claims_uses = |head: &Head| head.kind == Kind::Uses && head.offset >= segment.end;
        if segment.unreadable || segment.claims.iter().any(claims_uses) {
            return Ok(None);
        }
        if segment.end == 0 {
            disk::write(&*file, &segment.path, &entry::header(), 0)?;
            segment.end = HEADER as u64;
            segment.forget_tail();
        }
        cut(&*file, segment)?;
        // Whoever made the file may have died before it could sync its name.
        self.sync_folder()?;
        Ok(Some(file))
    }

    /// Locks a segment that nobody else holds, and reads all of it that is an entry.
    pub(super) fn hold(&self, segment: &mut Segment) -> Result<Option<Box<dyn Handle>>, SegmentError> {
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

    fn begin_new(&self) -> Result<Writer, SegmentError> {
        let (segment, file) = self.create()?;
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        loaded.push(segment);
        Ok(Writer { number: loaded.len() - 1, file })
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
            disk::write(&*file, &path, &entry::header(), 0)?;
            self.sync_folder()?;
            let read = disk::open(&*self.disk, &path, Access::Read(Links::Refuse))?;
            let segment = Segment { end: HEADER as u64, ..Segment::unread(path, read.into()) };
            return Ok((segment, file));
        }
        Err(failed("create a segment in", &self.folder)(ErrorKind::AlreadyExists.into()).into())
    }

    /// Makes the names of the segments durable. No descriptor left is no failed sync: it may be tried again.
    fn sync_folder(&self) -> Result<(), SegmentError> {
        let handle = disk::open(&*self.disk, &self.folder, Access::Read(Links::Follow))?;
        self.sync(&*handle, &self.folder, "sync directory")
    }

    /// Writes what `is_live` of these segments anew, durably, and then removes them, one after the other: those first of which
    /// little is to be written make room for the others. Gives those for which there was none; they stay. Of several entries of
    /// one name the best is written. Nobody else may have any segment open.
    pub(crate) fn rewrite(
        &self,
        numbers: &[usize],
        is_live: &dyn Fn(&Head) -> bool,
    ) -> Result<Vec<usize>, SegmentError> {
        // What is appended now goes into another segment, not into one that is about to go.
        self.lock_writer().take();
        self.freeze(numbers);
        let mut left = Vec::new();
        for number in numbers {
            match self.copy_live(*number, is_live) {
                Err(error) if error.is_full() => left.push(*number),
                copied => {
                    copied?;
                    self.remove(*number)?;
                }
            }
        }
        Ok(left)
    }

    fn remove(&self, number: usize) -> Result<(), SegmentError> {
        let (_, path) = self.file(number);
        [contents_path(&path), path].iter().try_for_each(|path| disk::remove(&*self.disk, path))?;
        Ok(())
    }

    fn freeze(&self, numbers: &[usize]) {
        let mut loaded = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
        numbers.iter().for_each(|number| loaded[*number].may_grow = false);
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
}

/// Cuts off what is behind the last good entry of a segment that is held, if all of that could be read.
pub(super) fn cut(file: &dyn Handle, segment: &mut Segment) -> Result<(), DiskError> {
    if segment.tail > 0 && !segment.unreadable {
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
    let whole = length.and_then(|length| Ok(entry::scan(read, path, begin, length)?.end));
    let _ = whole.and_then(|whole| disk::set_len(file, path, whole));
}
