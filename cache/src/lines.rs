//! `Lines`: what was hashed, on disk: a base of sorted lines, and beside it the lines that came since.
//!
//! Does not know files of the user's, nor when a digest may be trusted.
//!
//! Every line checks itself and is true alone: "the file at a path with this hash, in this state, had this digest". So
//! no two lines, and no two of the files, have to agree: a line that is lost, doubled or older than another costs time
//! only, and what does not check is not there.
//!
//! Layout: a first line of `HWFI`, the version as a `u32` and zeros; then lines of 128 bytes. Integers are
//! little-endian.
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 16 | first bytes of the BLAKE3 of the path |
//! | 16 | 24 | device, inode, length |
//! | 40 | 24 | seconds of modification, of status change, and of when hashing began |
//! | 64 | 12 | their nanoseconds |
//! | 76 | 2 | mode |
//! | 78 | 2 | through how many merges nobody asked for the line |
//! | 80 | 32 | digest |
//! | 112 | 16 | first bytes of the keyed BLAKE3 of all that precedes |
//!
//! The check of a line whose file changed shortly before it was hashed is keyed with the name of the boot, see
//! [`Seal`]: after another boot it does not check.
//!
//! The base is sorted by the hashes of paths. These are evenly spread, so where a line must be is known nearly to the
//! page, and a few lookups read a few pages, however large the base is. A save appends to the second file; when that
//! would be more than a quarter of the base, both are merged into a new base.
//!
//! Invariants: a base is replaced as a whole and never written to; whoever writes holds the lock on the second file,
//! which is never replaced or removed; memory is what was looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::digest::Digest;
use crate::disk::{self, Access, Disk, DiskError, Handle, Links, Lock, Opened, Temp, failed};
use crate::fingerprint::{Fingerprint, Hashed, Moment, SETTLED_SECONDS};

const MAGIC: [u8; 4] = *b"HWFI";
const VERSION: u32 = 3;
/// Length of a line, and of the header.
const LINE: usize = 128;
/// How much of a line is checked by the rest of it.
const BODY: usize = 112;
/// Lines that are read together.
const PAGE: usize = 128;
/// What the checks of lines begin with, so that they are the checks of nothing else.
const DOMAIN: &str = "headwater file index 3, check of a line";
/// The second file has this part of the base's lines at most, then it is merged.
const SHARE: u64 = 4;
/// A line that nobody asked for through so many merges is dropped: the index is at most twice what is asked for.
const KEPT_MERGES: u16 = 4;
/// More lines than this are no index of ours: some 8 GiB.
const MAX_LINES: u64 = 1 << 26;

/// A path, as the index knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key([u8; 16]);

impl Key {
    pub(crate) fn of(path: &Path) -> Key {
        Key(first(blake3::hash(path.as_os_str().as_encoded_bytes())))
    }

    /// Its first bytes: they are ordered as keys are, and evenly spread.
    fn tag(&self) -> u64 {
        u64::from_be_bytes(part(&self.0, 0))
    }

    /// The page that the key ought to be in, of a base with so many lines.
    fn page(&self, lines: u64) -> usize {
        ((u128::from(self.tag()) * u128::from(lines)) >> 64) as usize / PAGE
    }
}

fn first(hash: blake3::Hash) -> [u8; 16] {
    part(hash.as_bytes(), 0)
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    std::array::from_fn(|i| bytes[at + i])
}

/// What makes and tests the check of a line.
///
/// A power cut may leave a file with the times of a change and without its bytes. So a line of a file that had not
/// settled when it was hashed counts during that boot only.
#[derive(Debug)]
struct Seal {
    settled: [u8; 32],
    /// Of this boot, if it has a name.
    boot: Option<[u8; 32]>,
}

impl Seal {
    fn new(boot: &[u8]) -> Seal {
        let key = |name: &[u8]| blake3::Hasher::new_derive_key(DOMAIN).update(name).finalize().into();
        Seal { settled: key(b""), boot: (!boot.is_empty()).then(|| key(boot)) }
    }

    /// What the check of a line is keyed with; `None` if no other process may believe the line.
    fn key(&self, hashed: &Hashed) -> Option<&[u8; 32]> {
        if hashed.was_older_than(SETTLED_SECONDS) { Some(&self.settled) } else { self.boot.as_ref() }
    }

    /// Adds a line to `bytes`; none if no other process may believe it.
    fn write(&self, bytes: &mut Vec<u8>, key: &Key, hashed: &Hashed, idle: u16) {
        let Hashed { fingerprint: print, hashed_at, digest } = hashed;
        let Some(seal) = self.key(hashed) else { return };
        let begin = bytes.len();
        bytes.extend_from_slice(&key.0);
        let numbers = [print.device, print.inode, print.size];
        numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
        let moments = [print.modified, print.changed, *hashed_at];
        moments.iter().for_each(|moment| bytes.extend_from_slice(&moment.seconds.to_le_bytes()));
        moments.iter().for_each(|moment| bytes.extend_from_slice(&moment.nanos.to_le_bytes()));
        bytes.extend_from_slice(&print.mode.to_le_bytes());
        bytes.extend_from_slice(&idle.to_le_bytes());
        bytes.extend_from_slice(digest.as_bytes());
        let check: [u8; LINE - BODY] = first(blake3::keyed_hash(seal, &bytes[begin..]));
        bytes.extend_from_slice(&check);
    }

    /// What a line says, if it checks.
    fn read(&self, line: &[u8]) -> Option<Read> {
        let number = |at| u64::from_le_bytes(part(line, at));
        let moment = |second, nano| Moment {
            seconds: i64::from_le_bytes(part(line, second)),
            nanos: u32::from_le_bytes(part(line, nano)),
        };
        let short = |at| u16::from_le_bytes(part(line, at));
        let fingerprint = Fingerprint {
            device: number(16),
            inode: number(24),
            size: number(32),
            modified: moment(40, 64),
            changed: moment(48, 68),
            mode: short(76),
        };
        let hashed = Hashed { fingerprint, hashed_at: moment(56, 72), digest: Digest::from_bytes(part(line, 80)) };
        let key = Key(part(line, 0));
        let check: [u8; LINE - BODY] = first(blake3::keyed_hash(self.key(&hashed)?, &line[..BODY]));
        let checks = check == line[BODY..];
        checks.then_some(Read { key, hashed, idle: short(78) })
    }
}

/// A line.
struct Read {
    key: Key,
    hashed: Hashed,
    idle: u16,
}

/// Of two lines for one path the later one is nearer to what the file is now.
fn take(fresh: &mut BTreeMap<Key, Hashed>, read: Read) {
    let known = fresh.entry(read.key).or_insert(read.hashed);
    if known.hashed_at < read.hashed.hashed_at {
        *known = read.hashed;
    }
}

/// The first line of both files.
fn header() -> [u8; LINE] {
    let mut line = [0; LINE];
    line[..4].copy_from_slice(&MAGIC);
    line[4..8].copy_from_slice(&VERSION.to_le_bytes());
    line
}

fn has_header(file: &dyn Handle) -> bool {
    let mut found = [0; LINE];
    disk::fill(file, &mut found, 0).is_ok_and(|count| count == LINE) && found == header()
}

/// Where a line begins.
fn offset(line: u64) -> u64 {
    (line + 1) * LINE as u64
}

/// How many whole lines a file of this length holds.
fn lines_in(bytes: u64) -> u64 {
    (bytes / LINE as u64).saturating_sub(1)
}

/// Lines that lie together, and the beginnings of their keys, which are searched far quicker than the lines.
#[derive(Debug)]
struct Page {
    tags: Box<[u64]>,
    bytes: Box<[u8]>,
}

impl Page {
    fn new(bytes: Box<[u8]>) -> Page {
        let tags = bytes.chunks_exact(LINE).map(|line| u64::from_be_bytes(part(line, 0))).collect();
        Page { tags, bytes }
    }

    /// Where the line of a key is, if it is there. Keys are evenly spread: it is near to where that puts it.
    fn find(&self, key: &Key) -> Option<usize> {
        let (tag, tags) = (key.tag(), &*self.tags);
        let (first, last) = (*tags.first()?, *tags.last()?);
        let share = u128::from(tag.saturating_sub(first)) * (tags.len() as u128 - 1);
        let mut at = (share / u128::from(last.saturating_sub(first)).max(1)) as usize;
        at = at.min(tags.len() - 1);
        while at > 0 && tags[at] > tag {
            at -= 1;
        }
        while at + 1 < tags.len() && tags[at] < tag {
            at += 1;
        }
        (self.bytes[at * LINE..][..16] == key.0).then_some(at)
    }
}

/// The sorted file, open, and the pages of it that were looked at.
#[derive(Debug)]
struct Base {
    file: Box<dyn Handle>,
    /// Device and inode.
    place: (u64, u64),
    lines: u64,
    pages: Vec<OnceLock<Option<Page>>>,
    /// A bit for each line that was asked for.
    asked: Vec<AtomicU64>,
}

impl Base {
    /// The base at `path`; `None` if there is none that can be read.
    fn open(disk: &dyn Disk, path: &Path) -> Option<Base> {
        let Ok(Opened::Regular(file, found)) = disk::open_regular(disk, path, Links::Follow) else {
            return None;
        };
        let lines = lines_in(found.bytes);
        if lines > MAX_LINES || !has_header(&*file) {
            return None;
        }
        let pages = (0..lines.div_ceil(PAGE as u64)).map(|_| OnceLock::new()).collect();
        let asked = (0..lines.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        Some(Base { file, place: (found.device, found.inode), lines, pages, asked })
    }

    /// The lines of a page; `None` if they cannot be read.
    fn read_page(&self, page: usize) -> Option<Box<[u8]>> {
        let begin = page as u64 * PAGE as u64;
        let count = (self.lines - begin).min(PAGE as u64) as usize;
        let mut bytes = vec![0; count * LINE];
        let filled = disk::fill(&*self.file, &mut bytes, offset(begin)).ok()?;
        (filled == bytes.len()).then(|| bytes.into_boxed_slice())
    }

    fn page(&self, page: usize) -> Option<&Page> {
        self.pages[page].get_or_init(|| self.read_page(page).map(Page::new)).as_ref()
    }

    /// The line of a key, and that it was asked for. A page in disorder hides lines, and shows no wrong one.
    fn find(&self, key: &Key, seal: &Seal) -> Option<Hashed> {
        let (mut low, mut high) = (0, self.pages.len());
        let (mut number, mut step) = (key.page(self.lines), 1);
        while low < high {
            number = number.clamp(low, high - 1);
            let page = self.page(number)?;
            if key.tag() < *page.tags.first()? {
                high = number;
                number = number.saturating_sub(step);
            } else if key.tag() > *page.tags.last()? {
                low = number + 1;
                number += step;
            } else {
                return self.read(number, page, key, seal);
            }
            step *= 2;
        }
        None
    }

    fn read(&self, number: usize, page: &Page, key: &Key, seal: &Seal) -> Option<Hashed> {
        let at = page.find(key)?;
        let found = seal.read(&page.bytes[at * LINE..][..LINE])?;
        let line = number * PAGE + at;
        self.asked[line / 64].fetch_or(1 << (line % 64), Ordering::Relaxed);
        Some(found.hashed)
    }

    fn was_asked(&self, number: u64) -> bool {
        self.asked[(number / 64) as usize].load(Ordering::Relaxed) & (1 << (number % 64)) != 0
    }
}

/// All that is known of hashed files: the base, and what came since.
#[derive(Debug)]
pub(crate) struct Lines {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    seal: Seal,
    base: Option<Base>,
    /// What no base holds yet, from the second file and of this process.
    fresh: BTreeMap<Key, Hashed>,
    /// What neither file holds yet.
    unsaved: Vec<Key>,
}

impl Lines {
    /// What the files at `path` and beside it hold, as far as it can be read during the boot of this name.
    pub(crate) fn load(disk: Arc<dyn Disk>, path: &Path, boot: &[u8]) -> Lines {
        let (seal, fresh, unsaved) = (Seal::new(boot), BTreeMap::new(), Vec::new());
        let mut lines = Lines { disk, path: path.to_owned(), seal, base: None, fresh, unsaved };
        let added = lines.added_path();
        if let Ok(Opened::Regular(file, _)) = disk::open_regular(&*lines.disk, &added, Links::Refuse) {
            // What cannot be read is not there.
            let _ = lines.read_added(&*file, &added);
        }
        // Last: what another process merges meanwhile goes from the second file into the base.
        lines.base = Base::open(&*lines.disk, path);
        lines
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Hashed> {
        let fresh = self.fresh.get(key).copied();
        fresh.or_else(|| self.base.as_ref()?.find(key, &self.seal))
    }

    /// How many paths this process has learned of.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.fresh.len()
    }

    pub(crate) fn insert(&mut self, key: Key, hashed: Hashed) {
        self.fresh.insert(key, hashed);
        self.unsaved.push(key);
    }

    /// Writes what is new, durably. What another process has written meanwhile stays.
    pub(crate) fn save(&mut self) -> Result<(), DiskError> {
        if self.unsaved.is_empty() {
            return Ok(());
        }
        self.unsaved.sort_unstable();
        self.unsaved.dedup();
        let (disk, folder) = (self.disk.clone(), disk::parent(&self.path).to_owned());
        disk::create_dirs(&*disk, &folder, 0o700)?;
        disk::sweep(&*disk, &folder);
        let path = self.added_path();
        let added = disk::open(&*disk, &path, Access::Edit(0o600))?;
        disk::lock(&*added, &path, Lock::Exclusive)?;
        let base = Base::open(&*disk, &self.path);
        let held = lines_in(disk::look_at(&*added, &path)?.bytes);
        let lines = base.as_ref().map_or(0, |base| base.lines);
        match (held + self.unsaved.len() as u64) * SHARE <= lines {
            true => self.append(&*added, &path, held)?,
            false => self.merge(&*added, &path, base)?,
        }
        self.unsaved.clear();
        Ok(())
    }

    /// The name of the second file.
    fn added_path(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        name.into()
    }

    /// Takes the lines of the second file that are newer than what is known.
    fn read_added(&mut self, file: &dyn Handle, path: &Path) -> Result<(), DiskError> {
        if !has_header(file) {
            return Ok(());
        }
        let mut window = vec![0; PAGE * LINE];
        for at in (offset(0)..offset(MAX_LINES)).step_by(window.len()) {
            let filled = disk::fill(file, &mut window, at).map_err(failed("read", path))?;
            let (lines, _) = window[..filled].as_chunks::<LINE>();
            lines.iter().filter_map(|line| self.seal.read(line)).for_each(|read| take(&mut self.fresh, read));
            if filled < window.len() {
                break;
            }
        }
        Ok(())
    }

    /// Appends what is unsaved behind the lines that the second file holds. A torn line at its end is overwritten.
    fn append(&self, added: &dyn Handle, path: &Path, held: u64) -> Result<(), DiskError> {
        let is_new = !has_header(added);
        if is_new {
            disk::set_len(added, path, 0)?;
            disk::write(added, path, &header(), 0)?;
        }
        let mut line = if is_new { 0 } else { held };
        for keys in self.unsaved.chunks(PAGE) {
            let mut bytes = Vec::with_capacity(keys.len() * LINE);
            let fresh = keys.iter().filter_map(|key| Some((key, self.fresh.get(key)?)));
            fresh.for_each(|(key, hashed)| self.seal.write(&mut bytes, key, hashed, 0));
            disk::write(added, path, &bytes, offset(line))?;
            line += (bytes.len() / LINE) as u64;
        }
        added.sync().map_err(failed("sync", path))?;
        if is_new { disk::sync_dir(&*self.disk, disk::parent(path)) } else { Ok(()) }
    }

    /// Writes a new base from all that there is, and empties the second file.
    fn merge(&mut self, added: &dyn Handle, path: &Path, base: Option<Base>) -> Result<(), DiskError> {
        self.read_added(added, path)?;
        let mut temp = Temp::create(&self.disk, disk::parent(path), 0o600)?;
        temp.write(&header())?;
        self.write_merged(&mut temp, base.as_ref())?;
        temp.sync()?;
        temp.replace(&self.path)?;
        self.base = Base::open(&*self.disk, &self.path);
        // What nobody else may believe is in no base.
        self.fresh.retain(|_, hashed| self.seal.key(hashed).is_none());
        disk::set_len(added, path, 0)
    }

    /// The lines of a base and the fresh ones in the order of their keys, each key once.
    fn write_merged(&self, temp: &mut Temp, base: Option<&Base>) -> Result<(), DiskError> {
        let mut fresh = self.fresh.iter().peekable();
        let mut bytes = Vec::new();
        for page in 0..base.map_or(0, |base| base.pages.len()) {
            for (number, old) in base.map_or_else(Vec::new, |base| self.read_lines(base, page)) {
                while let Some((key, hashed)) = fresh.next_if(|(key, _)| **key < old.key) {
                    self.seal.write(&mut bytes, key, hashed, 0);
                }
                match fresh.next_if(|(key, _)| **key == old.key) {
                    Some((key, new)) if new.hashed_at >= old.hashed.hashed_at => {
                        self.seal.write(&mut bytes, key, new, 0);
                    }
                    Some((key, _)) => self.seal.write(&mut bytes, key, &old.hashed, 0),
                    None => self.write_aged(&mut bytes, number, base, &old),
                }
            }
            temp.write(&bytes)?;
            bytes.clear();
        }
        for (key, hashed) in fresh {
            self.seal.write(&mut bytes, key, hashed, 0);
            if bytes.len() >= PAGE * LINE {
                temp.write(&bytes)?;
                bytes.clear();
            }
        }
        temp.write(&bytes)
    }

    /// The lines of a page that check, with their numbers. What cannot be read is not there.
    fn read_lines(&self, base: &Base, page: usize) -> Vec<(u64, Read)> {
        let bytes = base.read_page(page).unwrap_or_default();
        let (lines, _) = bytes.as_chunks::<LINE>();
        let numbered = lines.iter().zip((page * PAGE) as u64..);
        numbered.filter_map(|(line, number)| Some((number, self.seal.read(line)?))).collect()
    }

    /// Adds a line that stays as it is, if anybody asked for it lately. Of another base than this process has looked
    /// at nothing is known.
    fn write_aged(&self, bytes: &mut Vec<u8>, number: u64, base: Option<&Base>, old: &Read) {
        let own = self.base.as_ref().filter(|own| base.is_some_and(|base| base.place == own.place));
        let idle = match own.map(|own| own.was_asked(number)) {
            Some(true) => 0,
            Some(false) => old.idle.saturating_add(1),
            None => old.idle,
        };
        if idle < KEPT_MERGES {
            self.seal.write(bytes, &old.key, &old.hashed, idle);
        }
    }
}

#[cfg(test)]
#[path = "lines_tests.rs"]
mod tests;
