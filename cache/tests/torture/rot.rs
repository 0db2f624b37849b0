//! Every bit of a store: each is flipped, each file is cut at each length and zeroed block by block, and then everything
//! that a program does with a store is done.
//!
//! What must hold, whatever was damaged: what is read is right, or a miss, or an error in words; never another byte or
//! record, a panic, or a call of the disk after another without end. What `verify` passes is right. Whatever was read,
//! repaired or collected before, or nothing of it: once its makers have put everything again, all of it is right. The file
//! index is right at once, as it only saves reading.
//!
//! A seeded slice, `HEADWATER_TORTURE=N` for a slice N times as long, `HEADWATER_TORTURE=full` for all of it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

use headwater_cache::disk::{Access, Disk, FailingDisk, Fault, FileKind, ForgetfulDisk, Links};
use headwater_cache::{
    Artifact, Collector, Digest, Entry, FileIndex, Keep, Ledger, Look, Record, Shape, Store, StoreError, Tree, UsedSet,
};

use crate::scenario;
use crate::seeded::{Random, is_full, torture};

const ROOT: &str = "/store";
const INDEX: &str = "/state/files";
const INPUTS: usize = 48;
/// Inputs that were indexed later: their lines stand in the second file.
const LATE_INPUTS: usize = 6;
/// Blobs of more bytes than this are files.
const SMALL: u64 = 1000;
/// A block of a disk.
const BLOCK: usize = 512;
/// Cases of a slice.
const CASES: u64 = 150;
/// More calls of the disk than any one look at the store needs: what goes on after them goes on for ever.
const MAX_CALLS: u64 = 100_000;
const FULL: Look = Look { full: true, repair: false };
const REPAIR: Look = Look { full: true, repair: true };

/// Small and large, and some that differ in one byte only.
static CONTENTS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let mut random = Random(7);
    let lengths = (0..40).map(|number| 23 * number).chain((0..13).map(|number| 1001 + 170 * number));
    let mut contents: Vec<Vec<u8>> =
        lengths.map(|length| (0..length).map(|_| random.below(256) as u8).collect()).collect();
    contents.extend([vec![7; 300], [vec![7; 299], vec![8]].concat(), vec![7; 1500], [vec![7; 1499], vec![8]].concat()]);
    contents
});
static DIGESTS: LazyLock<Vec<Digest>> = LazyLock::new(|| CONTENTS.iter().map(|content| Digest::of(content)).collect());

/// A small tree, a large one that is a file, and one of both.
static TREES: LazyLock<Vec<Tree>> = LazyLock::new(|| {
    let blobs =
        |contents: &[Vec<u8>]| contents.iter().enumerate().map(|(at, content)| blob_entry(at, content)).collect();
    let small = Tree { header: "rows 3".to_owned(), entries: blobs(&CONTENTS[..4]) };
    let large = Tree { header: "rows 40".to_owned(), entries: blobs(&CONTENTS[20..50]) };
    let entry = |tree: &Tree| Entry {
        name: tree.header.clone(),
        type_name: "frame".to_owned(),
        shape: Shape::Tree,
        digest: tree_digest(tree),
        bytes: tree.bytes(),
    };
    let both = Tree { header: String::new(), entries: vec![entry(&small), entry(&large)] };
    vec![small, large, both]
});

static RECORDS: LazyLock<BTreeMap<Digest, Record>> = LazyLock::new(|| {
    let blob = |content: &Vec<u8>| artifact(Shape::Blob, Digest::of(content), content.len() as u64);
    let tree = |tree: &Tree| artifact(Shape::Tree, tree_digest(tree), tree.bytes());
    let outputs = CONTENTS.iter().skip(3).step_by(9).map(blob).chain(TREES.iter().map(tree));
    outputs.enumerate().map(|(at, output)| record(at, output)).collect()
});

fn blob_entry(at: usize, content: &[u8]) -> Entry {
    let (name, type_name) = (format!("entry {at}"), "file".to_owned());
    Entry { name, type_name, shape: Shape::Blob, digest: Digest::of(content), bytes: content.len() as u64 }
}

fn artifact(shape: Shape, digest: Digest, bytes: u64) -> Artifact {
    Artifact { type_name: "frame".to_owned(), shape, digest, bytes }
}

fn record(at: usize, output: Artifact) -> (Digest, Record) {
    let manifest = format!("kind\ttest\nnumber\t{at}\n{}", "line\n".repeat(20));
    (Digest::of(manifest.as_bytes()), Record { outputs: vec![("out".to_owned(), output)], manifest, seconds: 0.5 })
}

fn tree_digest(tree: &Tree) -> Digest {
    Digest::of(&tree.encode().unwrap())
}

fn used(records: usize) -> UsedSet {
    let source = Digest::of(&CONTENTS[1]);
    UsedSet { keys: RECORDS.keys().take(records).copied().collect(), blobs: [source].into() }
}

fn input(number: usize) -> PathBuf {
    PathBuf::from(format!("/in/{number}"))
}

/// A disk on which whoever goes on for ever is stopped.
fn bounded(disk: &ForgetfulDisk) -> FailingDisk {
    FailingDisk::failing_from(Arc::new(disk.clone()), MAX_CALLS, Fault::Killed)
}

fn open(disk: &dyn Fn() -> Arc<dyn Disk>) -> Result<(Arc<Store>, Ledger), StoreError> {
    let store = Arc::new(Store::open_on(disk(), Path::new(ROOT))?.with_small(SMALL));
    let ledger = Ledger::of(&store);
    Ok((store, ledger))
}

/// Puts a part of everything: what is at every `step`th place from `first` on.
fn make(store: &Store, ledger: &Ledger, first: usize, step: usize) -> Result<(), String> {
    let told = |error: &dyn std::fmt::Display| error.to_string();
    for content in CONTENTS.iter().skip(first).step_by(step) {
        store.put(content).map_err(|error| told(&error))?;
    }
    for tree in TREES.iter().skip(first).step_by(step) {
        store.put_tree(tree).map_err(|error| told(&error))?;
    }
    let records = RECORDS.iter().skip(first).step_by(step);
    let records: Vec<(Digest, Record)> = records.map(|(key, record)| (*key, record.clone())).collect();
    ledger.append(&records).map_err(|error| told(&error))
}

/// A store that has everything that one can have, in two segments with their contents and entries behind what these
/// cover, and a file index in both of its files.
fn built() -> ForgetfulDisk {
    let disk = ForgetfulDisk::new();
    disk.create_dir(Path::new("/in"), 0o755).unwrap();
    disk.create_dir(Path::new("/state"), 0o755).unwrap();
    for number in 0..INPUTS + LATE_INPUTS {
        scenario::write(&disk, input(number).to_str().unwrap(), format!("input {number}").as_bytes());
    }
    let opened = || open(&|| Arc::new(disk.clone())).unwrap();
    let (one, other) = (opened(), opened());
    for (at, (store, ledger)) in [&one, &other].into_iter().enumerate() {
        make(store, ledger, at, 2).unwrap();
        store.use_now(["me", "you"][at], &used(3)).unwrap();
    }
    drop((one, other));
    // Contents of segments are written by whoever opens them next, and do not cover what comes after.
    drop(opened());
    opened().0.use_now("me", &used(5)).unwrap();
    for inputs in [0..INPUTS, INPUTS..INPUTS + LATE_INPUTS] {
        let index = FileIndex::open_on(Arc::new(disk.clone()), Path::new(INDEX));
        inputs.for_each(|number| assert!(index.digest(&input(number)).is_ok()));
        index.save().unwrap();
    }
    disk.sync_all();
    disk
}

/// All files of the store and of the index that have bytes, in an order that random names do not change.
fn files(disk: &dyn Disk) -> Vec<(PathBuf, usize)> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::from(ROOT), PathBuf::from("/state")]);
    while let Some(folder) = open.pop() {
        for name in disk.names(&folder).unwrap() {
            let path = folder.join(name);
            let about = disk.look(&path, Links::Refuse).unwrap();
            match about.kind {
                FileKind::Folder => open.push(path),
                _ => found.push((path, about.bytes as usize)),
            }
        }
    }
    let is_packed = |path: &Path| path.starts_with(format!("{ROOT}/segments"));
    found.sort_by_key(|(path, bytes)| match is_packed(path) {
        true => (1, *bytes, PathBuf::new()),
        false => (0, 0, path.clone()),
    });
    found
}

/// What is done to a file.
#[derive(Debug, Clone, Copy)]
enum Damage {
    Flip(usize),
    Cut(usize),
    Zero(usize),
    Remove,
}

/// Makes the damage of a kind that has this number.
type Make = fn(usize) -> Damage;

/// Each kind of damage with how often it can be done to a file of this length.
fn kinds(bytes: usize) -> [(Make, usize); 4] {
    [(Damage::Flip, bytes * 8), (Damage::Cut, bytes), (Damage::Zero, bytes.div_ceil(BLOCK)), (|_| Damage::Remove, 1)]
}

impl Damage {
    fn strike(self, disk: &ForgetfulDisk, path: &Path) {
        let text = path.to_str().unwrap();
        let handle = disk.open(path, Access::Write).unwrap();
        match self {
            Damage::Flip(bit) => {
                let bytes = scenario::read(disk, text).unwrap();
                handle.write_at(&[bytes[bit / 8] ^ 1 << (bit % 8)], bit as u64 / 8).unwrap();
            }
            Damage::Cut(length) => handle.set_len(length as u64).unwrap(),
            Damage::Zero(block) => {
                let bytes = handle.look().unwrap().bytes as usize;
                let end = ((block + 1) * BLOCK).min(bytes);
                handle.write_at(&vec![0; end - block * BLOCK], (block * BLOCK) as u64).unwrap();
            }
            Damage::Remove => disk.remove(path).unwrap(),
        }
    }
}

/// What a look at everything came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Right,
    Miss,
    Error,
}

/// An error that a user can read.
fn worded(error: &dyn std::fmt::Display, place: &str) -> Verdict {
    let text = error.to_string();
    assert!(text.contains('/') || text.contains("blob "), "{place}: {text:?} names nothing");
    Verdict::Error
}

fn judged<T>(read: Result<T, StoreError>, is_right: impl Fn(&T) -> bool, place: &str) -> Verdict {
    match read {
        Ok(found) if is_right(&found) => Verdict::Right,
        Ok(_) => panic!("{place}: something else was read"),
        Err(error) if error.lost().is_some() => worded(&error, place).min(Verdict::Miss),
        Err(error) => worded(&error, place),
    }
}

/// Reads everything that was ever put.
fn read_all(disk: &ForgetfulDisk, place: &str) -> Verdict {
    let limited = bounded(disk);
    let (store, ledger) = match open(&|| Arc::new(limited.clone())) {
        Ok(opened) => opened,
        Err(error) => return worded(&error, place),
    };
    let made = read_made(&store, &ledger, place);
    let read = |digest: &Digest| judged(store.get(digest), |bytes| Digest::of(bytes) == *digest, place);
    let others = store.with_prefix("").unwrap().into_iter().filter(|digest| !DIGESTS.contains(digest));
    let verdict = others.map(|digest| read(&digest)).fold(made, Verdict::max);
    assert_eq!(limited.first_failure(), None, "{place}: it never ends");
    verdict
}

/// Reads what every run makes.
fn read_made(store: &Store, ledger: &Ledger, place: &str) -> Verdict {
    let mut verdict = Verdict::Right;
    for (digest, content) in DIGESTS.iter().zip(CONTENTS.iter()) {
        verdict = verdict.max(judged(store.get(digest), |bytes| bytes == content, place));
    }
    for tree in TREES.iter() {
        verdict = verdict.max(judged(store.get_tree(&tree_digest(tree)), |found| **found == *tree, place));
    }
    for (key, record) in RECORDS.iter() {
        match ledger.get(key) {
            Some(found) => assert_eq!(found, *record, "{place}"),
            None => verdict = verdict.max(Verdict::Miss),
        }
    }
    verdict
}

/// Writes blobs to where users want them: there are the right bytes then, or nothing.
fn restore_all(disk: &ForgetfulDisk, place: &str) {
    let limited = bounded(disk);
    let Ok((store, _)) = open(&|| Arc::new(limited.clone())) else { return };
    for (digest, content) in DIGESTS.iter().zip(CONTENTS.iter()) {
        let out = Path::new("/out/file");
        let restored = store.restore(digest, out, false);
        let verdict = judged(restored, |_| true, place);
        let found = scenario::read(disk, "/out/file");
        assert_eq!(found.is_some(), verdict == Verdict::Right, "{place}");
        if let Some(bytes) = found {
            assert_eq!(bytes, *content, "{place}");
            disk.remove(out).unwrap();
        }
    }
    assert_eq!(limited.first_failure(), None, "{place}: it never ends");
}

/// A run that makes everything; the lists of what is used that cannot be written then.
fn run(disk: &ForgetfulDisk, place: &str) -> Vec<StoreError> {
    let limited = bounded(disk);
    let (store, ledger) = open(&|| Arc::new(limited.clone())).unwrap_or_else(|error| panic!("{place}: {error}"));
    make(&store, &ledger, 0, 1).unwrap_or_else(|error| panic!("{place}: it cannot be made again: {error}"));
    let errors = ["me", "you"].into_iter().filter_map(|user| store.use_now(user, &used(RECORDS.len())).err()).collect();
    assert_eq!(limited.first_failure(), None, "{place}: it never ends");
    errors
}

/// Everything is made again; a list that is found damaged is gone for the run after that.
fn make_again(disk: &ForgetfulDisk, place: &str) {
    let errors = run(disk, place);
    if !errors.is_empty() {
        for error in &errors {
            worded(error, place);
        }
        assert!(run(disk, place).is_empty(), "{place}: {errors:?}, and again");
    }
    let (store, ledger) = open(&|| Arc::new(disk.clone())).unwrap();
    assert_eq!(read_made(&store, &ledger, place), Verdict::Right, "{place}: made again, and not right");
    drop((store, ledger));
    // The set of an earlier run is nobody's to make again: if it is damaged, it is gone once it was read.
    let found = read_all(disk, place);
    let found = if found == Verdict::Miss { read_all(disk, place) } else { found };
    assert_eq!(found, Verdict::Right, "{place}: made again, and not right");
    let (store, ledger) = open(&|| Arc::new(disk.clone())).unwrap();
    let found = store.verify(&ledger, FULL).unwrap();
    assert!(found.damaged.is_empty() && found.lost.is_empty(), "{place}: made again, and {found:?}");
}

/// Whether a full look finds nothing.
fn is_clean(disk: &ForgetfulDisk, look: Look, place: &str) -> Option<bool> {
    let limited = bounded(disk);
    let (store, ledger) = open(&|| Arc::new(limited.clone())).ok()?;
    let found = store.verify(&ledger, look).unwrap_or_else(|error| panic!("{place}: {error}"));
    let _ = store.stats(&ledger).unwrap_or_else(|error| panic!("{place}: {error}"));
    assert_eq!(limited.first_failure(), None, "{place}: it never ends");
    Some(found.is_clean())
}

fn collect(disk: &ForgetfulDisk, place: &str) {
    let limited = bounded(disk);
    let done = Collector::open_on(Arc::new(limited.clone()), Path::new(ROOT)).and_then(|collector| {
        let plan = collector.plan(Keep { last: 1, max_bytes: None })?;
        collector.carry_out(&plan)
    });
    if let Err(error) = done {
        worded(&error, place);
    }
    assert_eq!(limited.first_failure(), None, "{place}: it never ends");
}

/// What is done with a damaged store before everything is made again.
#[derive(Debug, Clone, Copy)]
enum Way {
    Read,
    Nothing,
    Repair,
    Collect,
}

/// Everything that a program does with a store of which one file is damaged.
fn judge_store(damaged: &ForgetfulDisk, damage: Damage, way: Way, place: &str) -> Verdict {
    let disk = damaged.copy();
    let verdict = read_all(&disk, place);
    let Some(clean) = is_clean(&damaged.copy(), FULL, place) else {
        assert_eq!(verdict, Verdict::Error, "{place}");
        return verdict;
    };
    // What is gone as a whole, or from the end of a file, does not show.
    let shows = matches!(damage, Damage::Flip(_));
    assert!(!shows || !clean || verdict == Verdict::Right, "{place}: verified and {verdict:?}");
    let disk = match way {
        Way::Read => disk,
        Way::Nothing => damaged.copy(),
        Way::Repair => {
            let disk = damaged.copy();
            is_clean(&disk, REPAIR, place);
            restore_all(&disk, place);
            disk
        }
        Way::Collect => {
            let disk = damaged.copy();
            collect(&disk, place);
            disk
        }
    };
    make_again(&disk, place);
    verdict
}

/// An index is no truth: whatever it has, digests are right, and it can be written again.
fn judge_index(disk: &ForgetfulDisk, place: &str) -> Verdict {
    for _ in 0..2 {
        let limited = bounded(disk);
        let index = FileIndex::open_on(Arc::new(limited.clone()), Path::new(INDEX));
        for number in 0..INPUTS + LATE_INPUTS {
            let found = index.digest(&input(number)).unwrap_or_else(|error| panic!("{place}: {error}"));
            assert_eq!(found.digest, Digest::of(format!("input {number}").as_bytes()), "{place}");
        }
        index.save().unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(limited.first_failure(), None, "{place}: it never ends");
    }
    Verdict::Right
}

fn judge(good: &ForgetfulDisk, path: &Path, damage: Damage, number: u64) -> Verdict {
    // Of the bits of a byte each way gets two.
    let way = [Way::Read, Way::Nothing, Way::Repair, Way::Collect][(number % 4) as usize];
    let (disk, place) = (good.copy(), format!("{damage:?} of {}, {way:?}", path.display()));
    damage.strike(&disk, path);
    match path.starts_with(ROOT) {
        true => judge_store(&disk, damage, way, &place),
        false => judge_index(&disk, &place),
    }
}

/// Everything that can be done to the files, as ranges of numbers.
struct Cases {
    ranges: Vec<(PathBuf, Make, u64)>,
    count: u64,
}

impl Cases {
    fn of(files: &[(PathBuf, usize)]) -> Cases {
        let ranges = files.iter().flat_map(|(path, bytes)| {
            kinds(*bytes).into_iter().map(|(kind, count)| (path.clone(), kind, count as u64))
        });
        let ranges: Vec<_> = ranges.collect();
        let count = ranges.iter().map(|(_, _, count)| count).sum();
        Cases { ranges, count }
    }

    fn at(&self, mut number: u64) -> (&Path, Damage) {
        for (path, kind, count) in &self.ranges {
            if number < *count {
                return (path, kind(number as usize));
            }
            number -= count;
        }
        panic!("there are {} cases", self.count)
    }

    /// Any case, or one of any file and kind: the few cuts and blocks as often as the many bits.
    fn any(&self, random: &mut Random) -> (&Path, Damage) {
        if random.below(2) == 0 {
            return self.at(random.below(self.count));
        }
        let ranges: Vec<_> = self.ranges.iter().filter(|(_, _, count)| *count > 0).collect();
        let (path, kind, count) = ranges[random.index(ranges.len())];
        (path, kind(random.below(*count) as usize))
    }
}

/// Number of cases by kind of damage, and by what they came to.
#[derive(Default)]
struct Tally {
    flips: u64,
    cuts: u64,
    others: u64,
    verdicts: BTreeMap<Verdict, u64>,
}

impl Tally {
    fn add(&mut self, damage: Damage, verdict: Verdict) {
        *match damage {
            Damage::Flip(_) => &mut self.flips,
            Damage::Cut(_) => &mut self.cuts,
            Damage::Zero(_) | Damage::Remove => &mut self.others,
        } += 1;
        *self.verdicts.entry(verdict).or_default() += 1;
    }
}

#[test]
fn no_damage_of_a_store_is_ever_read() {
    let (begin, good) = (Instant::now(), built());
    let files = files(&good);
    let cases = Cases::of(&files);
    let wanted = if is_full() { cases.count } else { CASES * torture() };
    let (next, tally) = (AtomicU64::new(0), Mutex::new(Tally::default()));
    let work = || {
        while let number = next.fetch_add(1, Ordering::Relaxed)
            && number < wanted
        {
            let (path, damage) = if is_full() { cases.at(number) } else { cases.any(&mut Random(number)) };
            let verdict =
                catch_unwind(AssertUnwindSafe(|| judge(&good, path, damage, number))).unwrap_or_else(|panic| {
                    eprintln!("case {number}: {damage:?} of {}", path.display());
                    resume_unwind(panic)
                });
            tally.lock().unwrap().add(damage, verdict);
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..std::thread::available_parallelism().map_or(1, usize::from)).map(|_| scope.spawn(work)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    let (tally, bytes) = (tally.into_inner().unwrap(), files.iter().map(|(_, bytes)| bytes).sum::<usize>());
    let Tally { flips, cuts, others, verdicts } = &tally;
    let of = |verdict| verdicts.get(&verdict).copied().unwrap_or_default();
    let (right, misses, errors) = (of(Verdict::Right), of(Verdict::Miss), of(Verdict::Error));
    println!(
        "{bytes} bytes in {} files: {flips} bits, {cuts} cuts, {others} blocks and files: {right} right, {misses} missed, \
         {errors} errors, 0 wrong, in {:.1?}",
        files.len(),
        begin.elapsed()
    );
    assert_eq!(flips + cuts + others, wanted);
    assert!(bytes >= 64 << 10 && right > 0 && misses > 0, "{bytes} bytes, {right} right, {misses} missed");
}
