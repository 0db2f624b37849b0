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
mod tests {
    use super::*;
    use crate::disk::{FailingDisk, Fault, ForgetfulDisk};
    use proptest::prelude::*;

    const PATH: &str = "/state/files";
    const ADDED: &str = "/state/files.new";
    const BOOT: &[u8] = b"this boot";

    fn load(disk: &(impl Disk + Clone + 'static)) -> Lines {
        Lines::load(Arc::new(disk.clone()), Path::new(PATH), BOOT)
    }

    fn key(number: u64) -> Key {
        Key::of(Path::new(&format!("/data/{number}")))
    }

    /// What file `number` is after so many edits; hashed long after.
    fn hashed(number: u64, edits: i64) -> Hashed {
        let at = |seconds| Moment { seconds, nanos: 7 };
        let (modified, changed) = (at(1000 + edits), at(2000 + edits));
        let fingerprint = Fingerprint { device: 1, inode: number, size: 3, modified, changed, mode: 0o100644 };
        let digest = Digest::of(format!("{number} {edits}").as_bytes());
        Hashed { fingerprint, hashed_at: at(1_000_000 + edits), digest }
    }

    fn insert(lines: &mut Lines, numbers: std::ops::Range<u64>, edits: i64) {
        numbers.for_each(|number| lines.insert(key(number), hashed(number, edits)));
    }

    /// A disk with a saved index of so many files.
    fn saved(count: u64) -> ForgetfulDisk {
        let disk = ForgetfulDisk::new();
        let mut lines = load(&disk);
        insert(&mut lines, 0..count, 0);
        lines.save().unwrap();
        disk
    }

    fn length(disk: &dyn Disk, path: &str) -> u64 {
        disk.look(Path::new(path), Links::Refuse).unwrap().bytes
    }

    fn bytes(disk: &dyn Disk, path: &str) -> Vec<u8> {
        let file = disk.open(Path::new(path), Access::Read(Links::Refuse)).unwrap();
        disk::read(&*file, Path::new(path), length(disk, path)).unwrap()
    }

    #[test]
    fn every_line_of_a_base_of_many_pages_is_found_and_no_other() {
        for count in [1, 2, 127, 128, 129, 5000] {
            let lines = load(&saved(count));
            assert!(lines.fresh.is_empty(), "all of it is in the base");
            for number in 0..count {
                assert_eq!(lines.get(&key(number)), Some(hashed(number, 0)), "{number} of {count}");
            }
            assert!((count..count + 500).all(|number| lines.get(&key(number)).is_none()));
        }
    }

    #[test]
    fn one_lookup_in_a_large_base_reads_a_few_pages() {
        let disk = FailingDisk::counting(Arc::new(saved(50_000)));
        let lines = load(&disk);
        let (before, lookups) = (disk.calls(), 100);
        for number in 0..lookups {
            // What was read is remembered: each lookup meets a value that has looked at nothing.
            assert!(load(&disk).get(&key(number * 400)).is_some());
        }
        let opening = 9;
        assert!(disk.calls() - before <= lookups * (opening + 3), "{} calls", disk.calls() - before);
        drop(lines);
    }

    #[test]
    fn one_changed_file_among_many_is_one_line_more() {
        let disk = saved(5000);
        let base = bytes(&disk, PATH);
        let mut lines = load(&disk);
        insert(&mut lines, 7..8, 1);
        lines.save().unwrap();
        assert_eq!(bytes(&disk, PATH), base);
        assert_eq!(length(&disk, ADDED), 2 * LINE as u64);
        assert_eq!(load(&disk).get(&key(7)), Some(hashed(7, 1)));
    }

    #[test]
    fn more_changes_than_a_share_of_the_base_are_merged_into_it() {
        let disk = saved(1000);
        for round in 0..10 {
            let mut lines = load(&disk);
            insert(&mut lines, round * 100..round * 100 + 100, 1);
            lines.save().unwrap();
        }
        assert_eq!(length(&disk, PATH), 1001 * LINE as u64);
        assert!(length(&disk, ADDED) <= 251 * LINE as u64);
        let lines = load(&disk);
        assert!((0..1000).all(|number| lines.get(&key(number)) == Some(hashed(number, 1))));
    }

    #[test]
    fn a_save_without_news_writes_nothing() {
        let disk = FailingDisk::counting(Arc::new(saved(10)));
        let mut lines = load(&disk);
        lines.get(&key(1));
        let before = disk.calls();
        lines.save().unwrap();
        assert_eq!(disk.calls(), before);
    }

    #[test]
    fn what_nobody_asks_for_leaves_after_some_merges_and_what_somebody_asks_for_stays() {
        let disk = saved(10);
        for edits in 1..=i64::from(KEPT_MERGES) {
            let mut lines = load(&disk);
            assert!(lines.get(&key(9)).is_some(), "nobody has forgotten it");
            // Four of ten are merged at once; the lines 4 to 8 are not asked for.
            insert(&mut lines, 0..4, edits);
            lines.save().unwrap();
        }
        let lines = load(&disk);
        let known: Vec<u64> = (0..10).filter(|number| lines.get(&key(*number)).is_some()).collect();
        assert_eq!(known, [0, 1, 2, 3, 9]);
    }

    #[test]
    fn two_processes_that_save_lose_nothing_of_each_other() {
        for count in [0, 1000] {
            let disk = saved(count);
            let (mut one, mut two) = (load(&disk), load(&disk));
            insert(&mut one, 2000..2300, 0);
            insert(&mut two, 3000..3020, 0);
            insert(&mut two, 2000..2001, 1);
            one.save().unwrap();
            two.save().unwrap();
            insert(&mut one, 4000..4010, 0);
            one.save().unwrap();
            let lines = load(&disk);
            let rest = (2001..2300).chain(3000..3020).chain(4000..4010).chain(0..count);
            assert!(rest.clone().all(|number| lines.get(&key(number)) == Some(hashed(number, 0))));
            assert_eq!(lines.get(&key(2000)), Some(hashed(2000, 1)), "the later line");
        }
    }

    #[test]
    fn many_processes_save_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/files");
        let load = || Lines::load(Arc::new(crate::disk::RealDisk), &path, BOOT);
        std::thread::scope(|scope| {
            for process in 0..8 {
                scope.spawn(move || {
                    for round in 0..20 {
                        let mut lines = load();
                        let begin = process * 1000 + round * 10;
                        insert(&mut lines, begin..begin + 10, 0);
                        lines.save().unwrap();
                        assert!((begin..begin + 10).all(|number| load().get(&key(number)).is_some()));
                    }
                });
            }
        });
    }

    #[test]
    fn a_file_that_had_not_settled_is_known_during_its_boot_only() {
        let disk = ForgetfulDisk::new();
        let load = |boot: &[u8]| Lines::load(Arc::new(disk.clone()), Path::new(PATH), boot);
        let mut young = hashed(1, 0);
        young.hashed_at = young.fingerprint.changed.plus(SETTLED_SECONDS - 1);
        for round in 0..2 {
            // The first save makes the base, the second appends to a base that is large enough.
            let mut lines = load(BOOT);
            insert(&mut lines, 100..120, round);
            lines.insert(key(1), young);
            lines.insert(key(2), hashed(2, 0));
            lines.save().unwrap();
            assert_eq!((load(BOOT).get(&key(1)), load(b"").get(&key(1))), (Some(young), None));
            assert!(load(b"another boot").get(&key(1)).is_none());
            assert!(load(b"another boot").get(&key(2)).is_some() && load(b"").get(&key(2)).is_some());
        }
        let mut lines = load(b"another boot");
        insert(&mut lines, 100..120, 2);
        lines.save().unwrap();
        assert!(load(BOOT).get(&key(1)).is_none(), "a merge under another boot has dropped it");
    }

    #[test]
    fn without_a_name_of_the_boot_what_had_not_settled_is_known_in_this_process_only() {
        let disk = ForgetfulDisk::new();
        let mut lines = Lines::load(Arc::new(disk.clone()), Path::new(PATH), b"");
        let mut young = hashed(1, 0);
        young.hashed_at = young.fingerprint.changed;
        lines.insert(key(1), young);
        lines.insert(key(2), hashed(2, 0));
        lines.save().unwrap();
        assert_eq!((lines.get(&key(1)), lines.get(&key(2))), (Some(young), Some(hashed(2, 0))));
        assert!(load(&disk).get(&key(1)).is_none());
    }

    /// Saves made one after the other: first a base, then lines beside it, then both merged.
    const SAVES: [(std::ops::Range<u64>, i64); 3] = [(0..40, 0), (3..5, 1), (30..50, 2)];

    /// What is known of each file after so many saves.
    fn expected(saves: usize) -> BTreeMap<u64, Hashed> {
        let all = SAVES[..saves].iter().flat_map(|(numbers, edits)| numbers.clone().map(|number| (number, *edits)));
        all.map(|(number, edits)| (number, hashed(number, edits))).collect()
    }

    /// Saves until one fails; how many did not.
    fn save_all(disk: &Arc<dyn Disk>, from: usize) -> usize {
        for (done, (numbers, edits)) in SAVES.iter().enumerate().skip(from) {
            let mut lines = Lines::load(disk.clone(), Path::new(PATH), BOOT);
            insert(&mut lines, numbers.clone(), *edits);
            if lines.save().is_err() {
                return done;
            }
        }
        SAVES.len()
    }

    /// Everything that was saved is known; of what was being saved, all that is known is true.
    fn check(disk: &ForgetfulDisk, saves: usize, place: &str) {
        let lines = load(disk);
        let (now, next) = (expected(saves), expected((saves + 1).min(SAVES.len())));
        for number in 0..60 {
            let found = lines.get(&key(number));
            let allowed = found.as_ref() == now.get(&number) || found.as_ref() == next.get(&number);
            assert!(allowed, "{place}: {number} after {saves} saves is {found:?}");
        }
    }

    #[test]
    fn a_kill_or_a_power_cut_before_any_call_of_a_save_loses_nothing_that_was_saved() {
        for number in 0.. {
            let disk = ForgetfulDisk::new();
            let failing = FailingDisk::failing_at(Arc::new(disk.clone()), number, Fault::Killed);
            let saves = save_all(&(Arc::new(failing.clone()) as Arc<dyn Disk>), 0);
            check(&disk, saves, &format!("killed before call {number}"));
            for (index, crashed) in disk.crashes(60, number).enumerate() {
                let place = format!("crash {index} before call {number}");
                check(&crashed, saves, &place);
                let again = save_all(&(Arc::new(crashed.clone()) as Arc<dyn Disk>), saves.min(SAVES.len() - 1));
                assert_eq!(again, SAVES.len(), "{place}");
                check(&crashed, SAVES.len(), &place);
            }
            if failing.first_failure().is_none() {
                assert!(number > 60, "all of it was tried");
                break;
            }
        }
    }

    #[test]
    fn a_save_that_fails_at_any_call_can_be_repeated() {
        for number in 0.. {
            let mut failures = 0;
            for fault in [Fault::Error(libc::EIO), Fault::Error(libc::EMFILE), Fault::Short(libc::ENOSPC)] {
                let disk = ForgetfulDisk::new();
                let failing = FailingDisk::failing_at(Arc::new(disk.clone()), number, fault);
                let shared: Arc<dyn Disk> = Arc::new(failing.clone());
                for (numbers, edits) in SAVES {
                    let mut lines = Lines::load(shared.clone(), Path::new(PATH), BOOT);
                    insert(&mut lines, numbers, edits);
                    lines.save().or_else(|_| lines.save()).unwrap();
                }
                failures += u32::from(failing.first_failure().is_some());
                // What could not be read once may have been dropped from a new base; nothing is wrong, and what was
                // saved last is there.
                let lines = load(&disk);
                let expected = expected(SAVES.len());
                for file in 0..60 {
                    let found = lines.get(&key(file));
                    assert!(found.is_none() || found.as_ref() == expected.get(&file), "{fault:?} at {number}: {file}");
                }
                assert!((30..50).all(|file| lines.get(&key(file)) == Some(hashed(file, 2))));
            }
            if failures == 0 {
                break;
            }
        }
    }

    #[test]
    fn a_torn_line_at_the_end_is_overwritten_by_the_next() {
        let disk = saved(100);
        let mut lines = load(&disk);
        insert(&mut lines, 0..2, 1);
        lines.save().unwrap();
        let added = disk.open(Path::new(ADDED), Access::Edit(0o600)).unwrap();
        added.set_len(length(&disk, ADDED) - 5).unwrap();
        let mut lines = load(&disk);
        assert_eq!((0..2).filter(|number| lines.get(&key(*number)) == Some(hashed(*number, 1))).count(), 1);
        insert(&mut lines, 5..6, 1);
        lines.save().unwrap();
        assert_eq!(length(&disk, ADDED), 3 * LINE as u64);
        assert_eq!(load(&disk).get(&key(5)), Some(hashed(5, 1)));
    }

    #[test]
    fn a_second_file_of_something_else_is_written_anew() {
        let disk = saved(100);
        let added = disk.open(Path::new(ADDED), Access::Edit(0o600)).unwrap();
        added.write_at(&[9; 1000], 0).unwrap();
        let mut lines = load(&disk);
        insert(&mut lines, 0..1, 1);
        lines.save().unwrap();
        assert_eq!(load(&disk).get(&key(0)), Some(hashed(0, 1)));
        assert_eq!(length(&disk, ADDED), 2 * LINE as u64);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn damage_anywhere_hides_lines_and_shows_no_wrong_one(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
            cut in any::<prop::sample::Index>(),
        ) {
            let disk = saved(1200);
            let mut lines = load(&disk);
            insert(&mut lines, 0..100, 1);
            lines.save().unwrap();
            for path in [PATH, ADDED] {
                let file = disk.open(Path::new(path), Access::Edit(0o600)).unwrap();
                let length = length(&disk, path);
                for (at, byte) in &damage {
                    file.write_at(&[*byte], at.index(length as usize) as u64).unwrap();
                }
                file.set_len(length - cut.index(length as usize / 4) as u64).unwrap();
            }
            let mut lines = load(&disk);
            for number in 0..1300 {
                let found = lines.get(&key(number));
                let allowed = [None, (number < 100).then(|| hashed(number, 1)), (number < 1200).then(|| hashed(number, 0))];
                prop_assert!(allowed.contains(&found), "{number}");
            }
            // A merge carries nothing on that does not check.
            insert(&mut lines, 2000..4000, 0);
            lines.save().unwrap();
            let lines = load(&disk);
            prop_assert!((2000..4000).all(|number| lines.get(&key(number)) == Some(hashed(number, 0))));
            for number in 0..1300 {
                let found = lines.get(&key(number));
                prop_assert!(found.is_none_or(|found| found == hashed(number, 0) || found == hashed(number, 1)));
            }
        }
    }
}
