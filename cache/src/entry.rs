//! The format of a segment: an append-only file of checksummed, aligned entries. An entry is a small blob, a
//! record, or what a project uses.
//!
//! Does not know which segments there are, who may write one, nor what a payload means.
//!
//! Layout, all integers little-endian:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 8 | `HWSEGMNT` |
//! | 8 | 4 | format version, `1` |
//! | 12 | 4 | first bytes of the BLAKE3 of bytes 0 to 11 |
//! | 16 … | | entries, at multiples of 8 |
//!
//! | entry | bytes | |
//! |---|---|---|
//! | +0 | 4 | mark, `F5 48 57 65` |
//! | +4 | 4 | length of the payload |
//! | +8 | 4 | kind: `1` blob, `2` record, `3` uses |
//! | +12 | 4 | generation: of the records or uses of one name the highest counts; `0` for a blob |
//! | +16 | 32 | name: the digest of a blob, the key of a record, the digest of the name of who uses |
//! | +48 | 16 | first bytes of the BLAKE3 of: a constant, version, the entry's own offset, bytes +4 to +47, and the payload unless it is a blob |
//! | +64 | length | payload |
//! | | 0-7 | zeros up to a multiple of 8 |
//!
//! The payload of a blob is checked by its name: hashing it twice would prove nothing more.
//!
//! Invariants: an entry counts only where it was written, because its offset is in its checksum: bytes that look like
//! an entry inside another's payload are never taken for one. Damage is stepped over, 8 bytes at a time, until the next
//! entry that checks; so is what the medium cannot give back, asked twice. A payload leaves this file checked.

use std::io::{self, ErrorKind};
use std::path::Path;

use crate::digest::Digest;
use crate::disk::{self, DiskError, Handle, failed};

/// Length of the file's header.
pub(crate) const HEADER: usize = 16;
/// Length of what precedes a payload.
pub(crate) const PREFIX: usize = 64;
/// The version of the format.
pub(crate) const VERSION: u32 = 1;
const NAME: [u8; 8] = *b"HWSEGMNT";
const MARK: [u8; 4] = *b"\xf5HWe";
/// Where in the prefix the checksum stands.
const SUM: usize = 48;
/// Entries begin at multiples of this.
const ALIGNMENT: u64 = 8;
/// What the checksum begins with, so that it is the checksum of nothing else.
const DOMAIN: &[u8] = b"headwater segment entry\0";
/// What of a medium fails as one.
const BLOCK: usize = 4096;
/// How much is read at a time.
const WINDOW: usize = 1 << 20;

/// The most bytes a payload may have.
pub(crate) const MAX_PAYLOAD: usize = 64 << 20;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    Blob,
    Record,
    Uses,
}

impl Kind {
    pub(crate) fn number(self) -> u32 {
        match self {
            Kind::Blob => 1,
            Kind::Record => 2,
            Kind::Uses => 3,
        }
    }

    pub(crate) fn from_number(number: u32) -> Option<Kind> {
        [Kind::Blob, Kind::Record, Kind::Uses].into_iter().find(|kind| kind.number() == number)
    }
}

/// An entry without its payload, and where it lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) kind: Kind,
    pub(crate) name: Digest,
    pub(crate) generation: u32,
    /// Offset of the entry.
    pub(crate) offset: u64,
    /// Length of the payload.
    pub(crate) length: u32,
}

impl Head {
    /// Where the next entry may begin.
    pub(crate) fn end(&self) -> u64 {
        self.offset + entry_length(self.length as usize)
    }
}

/// What a header says.
pub(crate) enum Header {
    Good,
    /// The file is too short to have one.
    Missing,
    Damaged,
    /// The medium did not give it back, twice: it may another time.
    Unreadable,
    /// An intact header of a version that this program does not know.
    Newer(u32),
}

/// The header of every segment.
pub(crate) fn header() -> [u8; HEADER] {
    header_of(VERSION)
}

fn header_of(version: u32) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..8].copy_from_slice(&NAME);
    header[8..12].copy_from_slice(&version.to_le_bytes());
    let check = blake3::hash(&header[..12]);
    header[12..].copy_from_slice(&check.as_bytes()[..4]);
    header
}

/// Appends the entry that lies at offset `at` to `bytes`.
pub(crate) fn encode(kind: Kind, name: &Digest, generation: u32, payload: &[u8], at: u64, bytes: &mut Vec<u8>) -> Head {
    let length = u32::try_from(payload.len()).expect("a payload is at most MAX_PAYLOAD, far below 4 GiB");
    let mut prefix = [0; PREFIX];
    prefix[..4].copy_from_slice(&MARK);
    prefix[4..8].copy_from_slice(&length.to_le_bytes());
    prefix[8..12].copy_from_slice(&kind.number().to_le_bytes());
    prefix[12..16].copy_from_slice(&generation.to_le_bytes());
    prefix[16..SUM].copy_from_slice(name.as_bytes());
    let sum = checksum(&prefix, at, covered(kind, payload));
    prefix[SUM..].copy_from_slice(&sum);
    bytes.extend_from_slice(&prefix);
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len() + padding(payload.len()), 0);
    Head { kind, name: *name, generation, offset: at, length }
}

/// Bytes that an entry takes, with its padding.
pub(crate) fn entry_length(payload: usize) -> u64 {
    (PREFIX + payload + padding(payload)) as u64
}

fn padding(payload: usize) -> usize {
    payload.next_multiple_of(ALIGNMENT as usize) - payload
}

/// What of the payload is under the checksum of the prefix.
fn covered(kind: Kind, payload: &[u8]) -> &[u8] {
    match kind {
        Kind::Blob => &[],
        Kind::Record | Kind::Uses => payload,
    }
}

fn checksum(prefix: &[u8; PREFIX], at: u64, payload: &[u8]) -> [u8; PREFIX - SUM] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(DOMAIN);
    hasher.update(&VERSION.to_le_bytes());
    hasher.update(&at.to_le_bytes());
    hasher.update(&prefix[4..SUM]);
    hasher.update(payload);
    let mut sum = [0; PREFIX - SUM];
    hasher.finalize_xof().fill(&mut sum);
    sum
}

/// The head that a prefix at offset `at` claims to be; nothing of it is checked yet but what bounds it.
fn claimed(prefix: &[u8; PREFIX], at: u64) -> Option<Head> {
    let number = |from: usize| u32::from_le_bytes(std::array::from_fn(|i| prefix[from + i]));
    let length = number(4);
    if prefix[..4] != MARK || length as usize > MAX_PAYLOAD {
        return None;
    }
    let kind = Kind::from_number(number(8))?;
    let name = Digest::from_bytes(std::array::from_fn(|i| prefix[16 + i]));
    Some(Head { kind, name, generation: number(12), offset: at, length })
}

/// Whether prefix and payload are an entry at this offset.
fn checks(head: &Head, prefix: &[u8; PREFIX], payload: &[u8]) -> bool {
    checksum(prefix, head.offset, covered(head.kind, payload)) == prefix[SUM..]
        && (head.kind != Kind::Blob || Digest::of(payload) == head.name)
}

/// The payload of an entry that was found here before; `None` if it is not there any more as it was.
pub(crate) fn read(file: &dyn Handle, path: &Path, head: &Head) -> Result<Option<Vec<u8>>, DiskError> {
    let size = PREFIX + head.length as usize;
    let mut bytes = vec![0; size];
    if disk::fill(file, &mut bytes, head.offset).map_err(failed("read", path))? < size {
        return Ok(None);
    }
    let checked = payload_in(&bytes, head).is_some();
    Ok(checked.then(|| bytes.split_off(PREFIX)))
}

/// The payload of an entry whose bytes begin these; `None` if they are not it any more.
pub(crate) fn payload_in<'a>(bytes: &'a [u8], head: &Head) -> Option<&'a [u8]> {
    let (prefix, rest) = bytes.split_first_chunk::<PREFIX>()?;
    let payload = rest.get(..head.length as usize)?;
    let same = claimed(prefix, head.offset).is_some_and(|found| found == *head);
    (same && checks(head, prefix, payload)).then_some(payload)
}

/// Whether there is what claims to be this entry; its payload is not looked at.
pub(crate) fn has(file: &dyn Handle, head: &Head) -> bool {
    let mut prefix = [0; PREFIX];
    let filled = disk::fill(file, &mut prefix, head.offset);
    filled.is_ok_and(|count| count == PREFIX) && claimed(&prefix, head.offset).is_some_and(|found| found == *head)
}

/// What a look through a part of a segment gave.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// The good entries, in the order of their offsets.
    pub(crate) heads: Vec<Head>,
    /// End of the last good entry, or where the look began.
    pub(crate) end: u64,
    /// Damaged bytes that good entries follow.
    pub(crate) skipped: u64,
    /// Where the first of them begin.
    pub(crate) gap: Option<u64>,
    /// Whether the medium could not give back a part, twice: no entry is found there.
    pub(crate) unreadable: bool,
    /// What bytes that are in no good entry claim to be. Of what claims to be longer than the file, an entry was never whole.
    pub(crate) claims: Vec<Head>,
}

/// Looks at the header of a segment.
pub(crate) fn scan_header(file: &dyn Handle, path: &Path) -> Result<Header, DiskError> {
    let Some(found) = disk::asked_twice(|| disk::read(file, path, HEADER as u64))? else {
        return Ok(Header::Unreadable);
    };
    let Ok(found) = <[u8; HEADER]>::try_from(found) else {
        return Ok(Header::Missing);
    };
    let version = u32::from_le_bytes(std::array::from_fn(|i| found[8 + i]));
    Ok(match () {
        () if found != header_of(version) => Header::Damaged,
        () if version != VERSION => Header::Newer(version),
        () => Header::Good,
    })
}

/// Looks for entries from `begin` up to `length`, and checks each of them whole.
pub(crate) fn scan(file: &dyn Handle, path: &Path, begin: u64, length: u64) -> Result<Scan, DiskError> {
    let mut window = Window { file, length, start: 0, bytes: Vec::new(), unreadable: false };
    let mut scan = Scan { end: begin, ..Scan::default() };
    let mut at = begin;
    while at < length {
        match window.look(at).map_err(failed("read", path))? {
            Seen::Nothing => at += ALIGNMENT,
            Seen::Claim(head) => {
                scan.claims.push(head);
                at += ALIGNMENT;
            }
            Seen::Entry(head) => {
                if at > scan.end {
                    scan.gap.get_or_insert(scan.end);
                }
                scan.skipped += at - scan.end;
                at = head.end();
                scan.end = at;
                scan.heads.push(head);
            }
        }
    }
    scan.unreadable = window.unreadable;
    Ok(scan)
}

/// What lies at some offset.
enum Seen {
    /// An entry that checks.
    Entry(Head),
    /// What was to be one: its prefix is there, and so many bytes, and they do not check.
    Claim(Head),
    Nothing,
}

/// A part of a file in memory that moves on as it is asked for what lies outside of it.
struct Window<'f> {
    file: &'f dyn Handle,
    /// Length of the file when the look began: nothing beyond it is looked at.
    length: u64,
    start: u64,
    bytes: Vec<u8>,
    /// Whether there were parts that the medium did not give back; they are zeros here.
    unreadable: bool,
}

impl Window<'_> {
    fn look(&mut self, at: u64) -> io::Result<Seen> {
        let Some(prefix) = self.slice(at, PREFIX)? else {
            return Ok(Seen::Nothing);
        };
        let prefix: [u8; PREFIX] = prefix.try_into().expect("a slice has the length that was asked for");
        let Some(head) = claimed(&prefix, at) else {
            return Ok(Seen::Nothing);
        };
        Ok(match self.slice(at + PREFIX as u64, head.length as usize)? {
            Some(payload) if checks(&head, &prefix, payload) => Seen::Entry(head),
            Some(_) => Seen::Claim(head),
            None => Seen::Nothing,
        })
    }

    /// `count` bytes at offset `at`; `None` beyond the end of the file.
    fn slice(&mut self, at: u64, count: usize) -> io::Result<Option<&[u8]>> {
        if self.length.saturating_sub(at) < count as u64 {
            return Ok(None);
        }
        let held = at >= self.start && at + count as u64 <= self.start + self.bytes.len() as u64;
        if !held && !self.move_to(at, count)? {
            return Ok(None);
        }
        let from = (at - self.start) as usize;
        Ok(Some(&self.bytes[from..from + count]))
    }

    /// Reads on from `at`; `false` if the file has become too short, which the writer of it may do to its tail.
    fn move_to(&mut self, at: u64, count: usize) -> io::Result<bool> {
        let left = usize::try_from(self.length - at).unwrap_or(usize::MAX);
        let size = count.max(WINDOW).min(left);
        self.bytes.clear();
        self.bytes.try_reserve_exact(size).map_err(|_| io::Error::from(ErrorKind::OutOfMemory))?;
        self.bytes.resize(size, 0);
        self.start = at;
        let filled = match disk::fill(self.file, &mut self.bytes, at) {
            Err(error) if disk::is_of_the_medium(&error) => self.fill_around(at)?,
            filled => filled?,
        };
        self.bytes.truncate(filled);
        Ok(filled >= count)
    }

    /// Reads all that the medium gives back, once more, and gives up where it does not.
    fn fill_around(&mut self, at: u64) -> io::Result<usize> {
        let (mut filled, size) = (0, self.bytes.len());
        while filled < size {
            let offset = at + filled as u64;
            // To the end of a block of the medium.
            let length = (BLOCK - (offset % BLOCK as u64) as usize).min(size - filled);
            let block = &mut self.bytes[filled..filled + length];
            match disk::fill(self.file, block, offset) {
                Ok(count) if count < length => return Ok(filled + count),
                Ok(_) => {}
                Err(error) if disk::is_of_the_medium(&error) => {
                    block.fill(0);
                    self.unreadable = true;
                }
                Err(error) => return Err(error),
            }
            filled += length;
        }
        Ok(filled)
    }
}
