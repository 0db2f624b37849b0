//! A segment: an append-only file of length-prefixed, checksummed, aligned entries.
//!
//! Does not know what an entry means.
//!
//! Layout, all integers little-endian:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | kind of the segment |
//! | 8 | 4 | format version |
//! | 12 | 4 | first bytes of the BLAKE3 of bytes 0 to 11 |
//! | 16 … | | entries |
//!
//! | entry | bytes | |
//! |---|---|---|
//! | +0 | 4 | mark, `F5 48 57 65` |
//! | +4 | 4 | length of the payload |
//! | +8 | 32 | BLAKE3 of: a constant, kind, version, the entry's own offset in the file, the length, the payload |
//! | +40 | length | payload |
//! | | 0-7 | zeros up to a multiple of 8 |
//!
//! Invariants: an entry counts only where it was written, because its offset is in its checksum: bytes that look like
//! an entry inside another's payload are never taken for one. Appends hold the kernel's exclusive lock on the file from
//! before they look at its end until the sync is done, and readers hold the shared lock; both sync before they believe
//! what another process appended, so that what is read is durable. Damage is stepped over, 8 bytes at a time, until the
//! next entry that checks. Only bytes after the last good entry are ever cut off, and only by a writer that holds the
//! lock.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{self, Access, Disk, DiskError, Handle, Links, Lock, Opened, failed};

/// Length of the file's header.
const HEADER: usize = 16;
/// Length of what precedes a payload.
const PREFIX: usize = 40;
const MARK: [u8; 4] = *b"\xf5HWe";
/// Entries begin at multiples of this.
const ALIGNMENT: u64 = 8;
/// What the checksum begins with, so that it is the checksum of nothing else.
const DOMAIN: &[u8] = b"headwater segment entry\0";
/// How much is read at a time.
const WINDOW: usize = 1 << 20;

/// The most bytes a payload may have.
pub(crate) const MAX_PAYLOAD: usize = 64 << 20;

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
    /// The file is an intact segment of another kind, or no regular file.
    #[error("{path} is something else than its name says", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
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
    #[error("{path} takes no more entries: an earlier sync failed", path = path.display())]
    SyncFailed {
        /// The file.
        path: PathBuf,
    },
}

/// What a segment is: written into its header and into every checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) name: [u8; 8],
    pub(crate) version: u32,
}

/// One segment file and how far this process has read it. The file is opened anew for each use: closing it is
/// what lets go of the lock.
#[derive(Debug)]
pub(crate) struct Segment {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    kind: Kind,
    /// End of the last good entry; 0 before the header is known to be there.
    end: u64,
    header_is_good: bool,
    /// Damaged bytes that good entries follow, or that were cut off.
    skipped: u64,
    /// Bytes after the last good entry.
    tail: u64,
    /// The name of the file and of its folder have been synced by this process.
    name_is_durable: bool,
    sync_failed: bool,
}

/// Receives the payload of each good entry; says whether it could make sense of it.
pub(crate) type Visit<'v> = dyn FnMut(&[u8]) -> bool + 'v;

impl Segment {
    /// The segment at `path`, of which nothing has been read and which need not exist.
    pub(crate) fn new(disk: Arc<dyn Disk>, path: PathBuf, kind: Kind) -> Segment {
        Segment {
            disk,
            path,
            kind,
            end: 0,
            header_is_good: true,
            skipped: 0,
            tail: 0,
            name_is_durable: false,
            sync_failed: false,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes that were no good entry, so far.
    pub(crate) fn skipped(&self) -> u64 {
        self.skipped + self.tail
    }

    /// Visits the entries that were appended since the last look, by whatever process.
    pub(crate) fn catch_up(&mut self, visit: &mut Visit) -> Result<(), SegmentError> {
        let file = match disk::open_regular(&*self.disk, &self.path, Links::Refuse)? {
            Opened::Regular(file, _) => file,
            Opened::Missing => return Ok(()),
            Opened::Other(_) => return Err(self.foreign()),
        };
        disk::lock(&*file, &self.path, Lock::Shared)?;
        self.scan(&*file, visit)
    }

    /// Appends entries and makes them durable with one sync; visits what other processes appended before them.
    pub(crate) fn append_all(&mut self, payloads: &[Vec<u8>], visit: &mut Visit) -> Result<(), SegmentError> {
        payloads.iter().try_for_each(|payload| self.check_can_append(payload))?;
        let file = self.open_for_append()?;
        disk::lock(&*file, &self.path, Lock::Exclusive)?;
        self.make_name_durable()?;
        self.scan(&*file, visit)?;
        self.mend(&*file)?;
        let mut entries = Vec::new();
        for payload in payloads {
            entries.extend(entry(self.kind, self.end + entries.len() as u64, payload));
        }
        self.write_durably(&*file, &entries)?;
        self.end += entries.len() as u64;
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn append(&mut self, payload: &[u8], visit: &mut Visit) -> Result<(), SegmentError> {
        self.append_all(&[payload.to_vec()], visit)
    }

    fn check_can_append(&self, payload: &[u8]) -> Result<(), SegmentError> {
        let (bytes, limit) = (payload.len(), MAX_PAYLOAD);
        if bytes > limit {
            return Err(SegmentError::TooLarge { bytes, limit });
        }
        self.check_synced()
    }

    fn check_synced(&self) -> Result<(), SegmentError> {
        if self.sync_failed {
            let path = self.path.clone();
            return Err(SegmentError::SyncFailed { path });
        }
        Ok(())
    }

    fn open_for_append(&self) -> Result<Box<dyn Handle>, SegmentError> {
        disk::create_dirs(&*self.disk, disk::parent(&self.path), 0o700)?;
        Ok(disk::open(&*self.disk, &self.path, Access::Edit(0o600))?)
    }

    /// The file or its folder may have been made by a process that died before it could sync their names.
    fn make_name_durable(&mut self) -> Result<(), SegmentError> {
        if !self.name_is_durable {
            let folder = disk::parent(&self.path).to_owned();
            for folder in [disk::parent(&folder), &folder] {
                // No descriptor left is no failed sync: it may be tried again.
                let handle = disk::open(&*self.disk, folder, Access::Read(Links::Follow))?;
                self.sync(&*handle, folder, "sync directory")?;
            }
            self.name_is_durable = true;
        }
        Ok(())
    }

    /// Syncs a file or folder. After a failure nothing is read or appended any more: a second sync would succeed and
    /// mean nothing.
    fn sync(&mut self, handle: &dyn Handle, path: &Path, operation: &'static str) -> Result<(), SegmentError> {
        self.check_synced()?;
        let synced = handle.sync();
        self.sync_failed |= synced.is_err();
        Ok(synced.map_err(failed(operation, path))?)
    }

    /// Writes a missing or damaged header and cuts off what a dead writer left, so that the next entry follows the
    /// last good one.
    fn mend(&mut self, file: &dyn Handle) -> Result<(), SegmentError> {
        if self.end == 0 || !self.header_is_good {
            disk::write(file, &self.path, &header(self.kind), 0)?;
            self.header_is_good = true;
            self.end = self.end.max(HEADER as u64);
        }
        if self.tail > 0 {
            disk::set_len(file, &self.path, self.end)?;
            self.skipped += self.tail;
            self.tail = 0;
        }
        Ok(())
    }

    fn write_durably(&mut self, file: &dyn Handle, entry: &[u8]) -> Result<(), SegmentError> {
        let path = self.path.clone();
        let written = disk::write(file, &path, entry, self.end).map_err(SegmentError::from);
        let synced = written.and_then(|()| self.sync(file, &path, "sync"));
        if synced.is_err() {
            // Nobody may find an entry that was reported as failed. If this fails too, the checksum decides.
            let _ = disk::set_len(file, &path, self.end);
        }
        synced
    }

    fn scan(&mut self, file: &dyn Handle, visit: &mut Visit) -> Result<(), SegmentError> {
        let length = disk::look_at(file, &self.path)?.bytes;
        if length != self.end {
            // A writer that died between write and sync leaves entries that are whole and not durable.
            self.sync(file, &self.path.clone(), "sync")?;
        }
        let mut window = Window::new(file, length);
        let scanned = self.scan_header(&mut window)?;
        if scanned {
            self.scan_entries(&mut window, visit)?;
        }
        self.tail = length.saturating_sub(self.end);
        Ok(())
    }

    /// Checks the header if this is the first look; `false` if the file is too short to have one.
    fn scan_header(&mut self, window: &mut Window) -> Result<bool, SegmentError> {
        if window.length < self.end {
            // Another file lies here than the one that was read: whoever replaced it meant this one.
            self.end = 0;
        }
        if self.end > 0 {
            return Ok(true);
        }
        let Some(found) = window.array::<HEADER>(0).map_err(failed("read", &self.path))? else {
            return Ok(false);
        };
        self.check_header(found)?;
        self.end = HEADER as u64;
        Ok(true)
    }

    /// An intact header of something else is refused. A damaged one says nothing: the entries speak for themselves.
    fn check_header(&mut self, found: [u8; HEADER]) -> Result<(), SegmentError> {
        let kind = Kind {
            name: std::array::from_fn(|i| found[i]),
            version: u32::from_le_bytes(std::array::from_fn(|i| found[8 + i])),
        };
        self.header_is_good = found == header(kind);
        if !self.header_is_good {
            self.skipped += HEADER as u64;
        } else if kind.name != self.kind.name {
            return Err(self.foreign());
        } else if kind.version != self.kind.version {
            return Err(SegmentError::Version {
                path: self.path.clone(),
                found: kind.version,
                supported: self.kind.version,
            });
        }
        Ok(())
    }

    fn scan_entries(&mut self, window: &mut Window, visit: &mut Visit) -> Result<(), SegmentError> {
        let mut at = self.end;
        while at < window.length {
            let payload = window.payload(self.kind, at).map_err(failed("read", &self.path))?;
            let Some(payload) = payload else {
                at += ALIGNMENT;
                continue;
            };
            let next = at + entry_length(payload.len());
            self.skipped += at - self.end;
            if !visit(payload) {
                self.skipped += next - at;
            }
            (at, self.end) = (next, next);
        }
        Ok(())
    }

    fn foreign(&self) -> SegmentError {
        let path = self.path.clone();
        SegmentError::Foreign { path }
    }
}

fn header(kind: Kind) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&kind.name);
    header[8..12].copy_from_slice(&kind.version.to_le_bytes());
    let check = blake3::hash(&header[..12]);
    header[12..].copy_from_slice(&check.as_bytes()[..4]);
    header
}

/// Bytes that an entry takes, with its padding.
fn entry_length(payload: usize) -> u64 {
    ((PREFIX + payload) as u64).next_multiple_of(ALIGNMENT)
}

/// The entry that holds `payload` at offset `at`.
fn entry(kind: Kind, at: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("MAX_PAYLOAD is far below 4 GiB");
    let mut bytes = Vec::with_capacity(PREFIX + payload.len() + ALIGNMENT as usize);
    bytes.extend_from_slice(&MARK);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum(kind, at, payload));
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(ALIGNMENT as usize), 0);
    bytes
}

fn checksum(kind: Kind, at: u64, payload: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN);
    hasher.update(&kind.name);
    hasher.update(&kind.version.to_le_bytes());
    hasher.update(&at.to_le_bytes());
    hasher.update(&(payload.len() as u64).to_le_bytes());
    hasher.update(payload);
    hasher.finalize().into()
}

/// A part of a file in memory that moves on as it is asked for what lies outside of it.
struct Window<'f> {
    file: &'f dyn Handle,
    /// Length of the file when the lock was taken: nothing beyond it is looked at.
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'f> Window<'f> {
    fn new(file: &'f dyn Handle, length: u64) -> Window<'f> {
        let (start, bytes) = (0, Vec::new());
        Window { file, length, start, bytes }
    }

    /// The payload of the entry at `at`, if there is one and it checks.
    fn payload(&mut self, kind: Kind, at: u64) -> io::Result<Option<&[u8]>> {
        let Some(prefix) = self.array::<PREFIX>(at)? else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(std::array::from_fn(|i| prefix[4 + i])) as usize;
        if prefix[..4] != MARK || length > MAX_PAYLOAD {
            return Ok(None);
        }
        let payload = self.slice(at + PREFIX as u64, length)?;
        Ok(payload.filter(|payload| checksum(kind, at, payload) == prefix[8..]))
    }

    fn array<const N: usize>(&mut self, at: u64) -> io::Result<Option<[u8; N]>> {
        let slice = self.slice(at, N)?;
        Ok(slice.and_then(|slice| slice.try_into().ok()))
    }

    /// `count` bytes at offset `at`; `None` beyond the end of the file.
    fn slice(&mut self, at: u64, count: usize) -> io::Result<Option<&[u8]>> {
        if self.length.saturating_sub(at) < count as u64 {
            return Ok(None);
        }
        let held = at >= self.start && at + count as u64 <= self.start + self.bytes.len() as u64;
        if !held {
            self.move_to(at, count)?;
        }
        let from = (at - self.start) as usize;
        Ok(Some(&self.bytes[from..from + count]))
    }

    fn move_to(&mut self, at: u64, count: usize) -> io::Result<()> {
        let left = usize::try_from(self.length - at).unwrap_or(usize::MAX);
        self.bytes.clear();
        self.bytes.resize(count.max(WINDOW).min(left), 0);
        self.start = at;
        match disk::fill(self.file, &mut self.bytes, at)? == self.bytes.len() {
            true => Ok(()),
            false => Err(ErrorKind::UnexpectedEof.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;
    use std::fs::{self, OpenOptions};

    const KIND: Kind = Kind { name: *b"HWTESTSG", version: 1 };

    struct Bench {
        folder: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { folder: tempfile::tempdir().unwrap() }
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("test.seg")
        }

        fn segment(&self) -> Segment {
            Segment::new(Arc::new(RealDisk), self.path(), KIND)
        }

        fn append(&self, payloads: &[&[u8]]) {
            let mut segment = self.segment();
            for payload in payloads {
                segment.append(payload, &mut |_| true).unwrap();
            }
        }

        fn read(&self) -> (Vec<Vec<u8>>, u64) {
            let mut segment = self.segment();
            let mut found = Vec::new();
            segment
                .catch_up(&mut |payload| {
                    found.push(payload.to_vec());
                    true
                })
                .unwrap();
            (found, segment.skipped())
        }

        fn refusal(&self) -> String {
            self.segment().catch_up(&mut |_| true).unwrap_err().to_string()
        }
    }

    const THREE: [&[u8]; 3] = [b"first", b"the second entry", b""];

    #[test]
    fn entries_are_read_back_in_order() {
        let bench = Bench::new();
        bench.append(&THREE);
        assert_eq!(bench.read(), (THREE.map(<[u8]>::to_vec).to_vec(), 0));
    }

    #[test]
    fn the_layout_is_as_documented() {
        let bench = Bench::new();
        bench.append(&[b"first"]);
        let bytes = fs::read(bench.path()).unwrap();
        assert_eq!(bytes.len(), 16 + 48);
        assert_eq!(&bytes[..12], b"HWTESTSG\x01\0\0\0");
        assert_eq!(&bytes[16..24], b"\xf5HWe\x05\0\0\0");
        assert_eq!(&bytes[56..], b"first\0\0\0");
    }

    #[test]
    fn a_missing_file_is_an_empty_segment_and_stays_missing() {
        let bench = Bench::new();
        assert_eq!(bench.read(), (vec![], 0));
        assert!(!bench.path().exists());
    }

    #[test]
    fn every_flipped_bit_costs_at_most_its_own_entry() {
        let bench = Bench::new();
        bench.append(&THREE);
        let good = fs::read(bench.path()).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(bench.path(), &bytes).unwrap();
            let (found, _) = bench.read();
            assert!(found.len() >= 2, "bit {bit}: {} entries", found.len());
            assert!(found.iter().all(|entry| THREE.contains(&entry.as_slice())));
        }
    }

    #[test]
    fn every_truncation_leaves_the_entries_before_it_and_takes_the_next_append() {
        let bench = Bench::new();
        bench.append(&THREE);
        let good = fs::read(bench.path()).unwrap();
        for length in 0..=good.len() {
            fs::write(bench.path(), &good[..length]).unwrap();
            let (before, _) = bench.read();
            assert!(before.len() <= 3 && before.iter().zip(THREE).all(|(a, b)| a == b));
            bench.append(&[b"next"]);
            let (after, skipped) = bench.read();
            assert_eq!(after[..before.len()], before, "cut at {length}");
            assert_eq!(after[before.len()..], [b"next".to_vec()], "cut at {length}");
            assert_eq!(skipped, 0, "cut at {length}");
        }
    }

    #[test]
    fn damage_in_the_middle_is_counted_and_stepped_over() {
        let bench = Bench::new();
        bench.append(&THREE);
        let mut bytes = fs::read(bench.path()).unwrap();
        bytes[16 + 48 + 4] ^= 0xff;
        fs::write(bench.path(), &bytes).unwrap();
        assert_eq!(bench.read(), (vec![b"first".to_vec(), vec![]], 56));
        bench.append(&[b"next"]);
        assert_eq!(bench.read(), (vec![b"first".to_vec(), vec![], b"next".to_vec()], 56));
    }

    #[test]
    fn an_entry_at_another_offset_is_no_entry() {
        let bench = Bench::new();
        bench.append(&[b"first"]);
        let good = fs::read(bench.path()).unwrap();
        let moved = [&good[..16], &[0; 8], &good[16..]].concat();
        fs::write(bench.path(), moved).unwrap();
        assert_eq!(bench.read(), (vec![], 56));
    }

    #[test]
    fn an_entry_inside_a_payload_is_never_taken_for_one() {
        let bench = Bench::new();
        bench.append(&[&entry(KIND, 16, b"inner")]);
        let mut bytes = fs::read(bench.path()).unwrap();
        bytes[16] ^= 1;
        fs::write(bench.path(), &bytes).unwrap();
        assert_eq!(bench.read().0, Vec::<Vec<u8>>::new());
    }

    #[test]
    fn a_tail_of_zeros_is_skipped_and_cut_off() {
        let bench = Bench::new();
        bench.append(&[b"first"]);
        let file = OpenOptions::new().write(true).open(bench.path()).unwrap();
        file.set_len(5000).unwrap();
        assert_eq!(bench.read(), (vec![b"first".to_vec()], 5000 - 64));
        bench.append(&[b"next"]);
        assert_eq!(bench.read(), (vec![b"first".to_vec(), b"next".to_vec()], 0));
    }

    #[test]
    fn a_damaged_header_hides_no_entry_and_is_mended() {
        let bench = Bench::new();
        bench.append(&[b"first"]);
        let mut bytes = fs::read(bench.path()).unwrap();
        bytes[8] = 9;
        fs::write(bench.path(), &bytes).unwrap();
        assert_eq!(bench.read(), (vec![b"first".to_vec()], 16));
        bench.append(&[b"next"]);
        assert_eq!(bench.read(), (vec![b"first".to_vec(), b"next".to_vec()], 0));
    }

    #[test]
    fn a_newer_format_is_refused_and_left_alone() {
        let bench = Bench::new();
        let newer = header(Kind { version: 2, ..KIND });
        fs::write(bench.path(), newer).unwrap();
        let text = format!("{} has format version 2, this program reads version 1", bench.path().display());
        assert_eq!(bench.refusal(), text);
        let error = bench.segment().append(b"x", &mut |_| true).unwrap_err();
        assert_eq!(error.to_string(), text);
        assert_eq!(fs::read(bench.path()).unwrap(), newer);
    }

    #[test]
    fn a_segment_of_another_kind_is_refused() {
        let bench = Bench::new();
        fs::write(bench.path(), header(Kind { name: *b"HWOTHERS", ..KIND })).unwrap();
        let text = format!("{} is something else than its name says", bench.path().display());
        assert_eq!(bench.refusal(), text);
        fs::remove_file(bench.path()).unwrap();
        fs::create_dir(bench.path()).unwrap();
        assert_eq!(bench.refusal(), text);
    }

    #[test]
    fn an_entry_over_the_limit_is_refused() {
        let bench = Bench::new();
        let error = bench.segment().append(&vec![0; MAX_PAYLOAD + 1], &mut |_| true).unwrap_err();
        assert_eq!(error.to_string(), "an entry of 67108865 bytes is over the limit of 67108864");
    }

    #[test]
    fn after_a_failed_sync_nothing_is_appended() {
        let bench = Bench::new();
        let mut segment = bench.segment();
        segment.sync_failed = true;
        assert_eq!(
            segment.append(b"x", &mut |_| true).unwrap_err().to_string(),
            format!("{} takes no more entries: an earlier sync failed", bench.path().display())
        );
    }

    #[test]
    fn entries_larger_than_the_window_are_read() {
        let bench = Bench::new();
        let large = vec![7; 3 * WINDOW + 5];
        bench.append(&[b"first", &large, b"last"]);
        assert_eq!(bench.read(), (vec![b"first".to_vec(), large, b"last".to_vec()], 0));
    }

    #[test]
    fn two_handles_append_behind_each_other_and_see_each_other() {
        let bench = Bench::new();
        let (mut one, mut two) = (bench.segment(), bench.segment());
        let mut seen = Vec::new();
        one.append(b"a", &mut |_| true).unwrap();
        two.append(b"b", &mut |payload| {
            seen.push(payload.to_vec());
            true
        })
        .unwrap();
        one.append(b"c", &mut |payload| {
            seen.push(payload.to_vec());
            true
        })
        .unwrap();
        assert_eq!(seen, [b"a".to_vec(), b"b".to_vec()]);
        assert_eq!(bench.read().0, [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
    }

    #[test]
    fn a_file_that_was_replaced_by_a_shorter_one_is_read_from_its_start() {
        let bench = Bench::new();
        let mut segment = bench.segment();
        segment.append(b"a long entry of the old file", &mut |_| true).unwrap();
        fs::remove_file(bench.path()).unwrap();
        segment.append(b"new", &mut |_| true).unwrap();
        assert_eq!(bench.read(), (vec![b"new".to_vec()], 0));
    }
}
