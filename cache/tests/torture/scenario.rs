//! One life of a store, and what must be true of what it left.
//!
//! Invariants: every step's outcome is known beforehand, so wrong bytes are noticed wherever they come out; what a
//! step reported as done is remembered as a promise; a run goes on after a failed step, as far as it can.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use headwater_cache::disk::{Access, Disk, FileKind, ForgetfulDisk, Links};
use headwater_cache::{Artifact, Digest, Entry, FileIndex, Ledger, Record, Shape, Store, StoreError, Tree};

pub const ROOT: &str = "/w/project/.headwater";
const INDEX: &str = "/w/project/.headwater/files.idx";
const INPUT: &str = "/w/input";
const OUT: &str = "/w/out/deep/file";
const KEYS: [&str; 3] = ["blobs", "tree", "late"];
const LATE: &[u8] = b"put after everything was opened again";

/// What a run was told is done.
#[derive(Debug, Clone, Default)]
pub struct Promises {
    pub blobs: BTreeSet<Digest>,
    /// What was put and waits for a commit.
    pub pending: BTreeSet<Digest>,
    pub records: BTreeSet<&'static str>,
    /// What the restored file may be: the last that is promised, and what came after.
    pub restored: Vec<Option<Vec<u8>>>,
    /// Whether a restore was begun and has not been committed.
    pub is_restoring: bool,
    /// What failed, in the words of the errors.
    pub errors: Vec<String>,
    /// Whether a put or an append that failed must succeed when it is repeated, unless a sync failed.
    pub repeat: bool,
}

/// Disks on which files cannot share their bytes, and disks on which they can.
pub const KINDS: [Kind; 2] = [Kind::Copying, Kind::Sharing];

/// What a disk does when a large file is to be copied.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Copying,
    Sharing,
}

/// A disk with a user's files and no store.
pub fn new_disk(kind: Kind) -> ForgetfulDisk {
    let disk = match kind {
        Kind::Copying => ForgetfulDisk::new(),
        Kind::Sharing => ForgetfulDisk::new().sharing(),
    };
    disk.create_dir(Path::new("/w"), 0o755).unwrap();
    write(&disk, INPUT, &INPUT_BYTES);
    disk.sync_all();
    disk
}

pub fn write(disk: &dyn Disk, path: &str, bytes: &[u8]) {
    let handle = disk.open(Path::new(path), Access::Edit(0o644)).unwrap();
    assert_eq!(handle.write_at(bytes, 0).unwrap(), bytes.len());
}

pub fn read(disk: &dyn Disk, path: &str) -> Option<Vec<u8>> {
    let handle = disk.open(Path::new(path), Access::Read(Links::Refuse)).ok()?;
    let mut bytes = vec![0; handle.look().unwrap().bytes as usize];
    assert_eq!(handle.read_at(&mut bytes, 0).unwrap(), bytes.len());
    Some(bytes)
}

/// Enough for a file of its own in the store.
const INPUT_LENGTH: u64 = 900;
static INPUT_BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| (0..INPUT_LENGTH).map(|i| (i % 7) as u8).collect());
static SMALL: LazyLock<[Vec<u8>; 4]> = LazyLock::new(|| [Vec::new(), b"five!".to_vec(), vec![1; 700], vec![2; 1500]]);
static TREE: LazyLock<Tree> = LazyLock::new(|| {
    let entry = |name: &str, content: &[u8]| Entry {
        name: name.to_owned(),
        type_name: "file".to_owned(),
        shape: Shape::Blob,
        digest: Digest::of(content),
        bytes: content.len() as u64,
    };
    Tree { header: "two files".to_owned(), entries: vec![entry("a", &SMALL[1]), entry("b", &SMALL[3])] }
});
static TREE_BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| TREE.encode().unwrap());
/// Everything that a blob of the scenario may contain.
static CONTENTS: LazyLock<BTreeMap<Digest, Vec<u8>>> = LazyLock::new(|| {
    let all = SMALL.iter().chain([&*INPUT_BYTES, &*TREE_BYTES]).cloned().chain([LATE.to_vec()]);
    all.map(|content| (Digest::of(&content), content)).collect()
});
static RECORDS: LazyLock<BTreeMap<&str, Record>> = LazyLock::new(|| KEYS.map(|name| (name, record(name))).into());

fn key(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn record(name: &str) -> Record {
    let artifact = |shape, content: &[u8], bytes| Artifact {
        type_name: "file".to_owned(),
        shape,
        digest: Digest::of(content),
        bytes,
    };
    let blob = |content: &[u8]| artifact(Shape::Blob, content, content.len() as u64);
    let outputs = match name {
        "blobs" => SMALL.iter().map(|content| ("out".to_owned(), blob(content))).collect(),
        "tree" => vec![("tree".to_owned(), artifact(Shape::Tree, &TREE_BYTES, TREE.bytes()))],
        _ => vec![("late".to_owned(), blob(LATE)), ("input".to_owned(), blob(&INPUT_BYTES))],
    };
    // Long enough to cross two units of the disk.
    Record { outputs, manifest: format!("name {name}\n{}", "x".repeat(400)), seconds: 0.5 }
}

/// The blobs without which a record must not be seen.
fn needs(name: &str) -> Vec<Digest> {
    let mut needs: Vec<Digest> = RECORDS[name].outputs.iter().map(|(_, artifact)| artifact.digest).collect();
    if name == "tree" {
        needs.extend(TREE.entries.iter().map(|entry| entry.digest));
    }
    needs
}

fn put_again(store: &Store, digests: &BTreeSet<Digest>) -> Result<(), StoreError> {
    digests.iter().try_for_each(|digest| store.put(&CONTENTS[digest]).map(drop))
}

fn open_store(disk: &Arc<dyn Disk>) -> Result<(Arc<Store>, Ledger), StoreError> {
    // Of what is put some will be files and some entries of segments.
    let store = Arc::new(Store::open_on(disk.clone(), Path::new(ROOT))?.with_small(650));
    let ledger = Ledger::of(&store);
    Ok((store, ledger))
}

impl Promises {
    fn step<T, E: Display>(&mut self, outcome: Result<T, E>) -> Option<T> {
        outcome.map_err(|error| self.errors.push(error.to_string())).ok()
    }

    /// A step that succeeds the second time, unless a sync failed for good.
    fn steady<T, E: Display>(&mut self, step: impl Fn() -> Result<T, E>) -> Option<T> {
        if let Some(done) = self.step(step()) {
            return Some(done);
        }
        let again = step();
        if let (true, Err(error)) = (self.repeat, &again) {
            let text = error.to_string();
            assert!(text.contains("an earlier sync failed"), "{text} after {:?}", self.errors.last());
        }
        self.step(again)
    }

    fn put(&mut self, store: &Store, content: &[u8]) {
        if let Some(digest) = self.steady(|| store.put(content)) {
            assert_eq!(digest, Digest::of(content));
            self.pending.insert(digest);
        }
    }

    fn commit(&mut self, store: &Store) {
        let pending = self.pending.clone();
        // A put whose sync failed is to be done again.
        if self.steady(|| put_again(store, &pending).and_then(|()| store.commit())).is_some() {
            self.blobs.append(&mut self.pending);
        }
    }

    fn append(&mut self, store: &Store, ledger: &Ledger, name: &'static str) {
        let is_put = |digest: &Digest| self.blobs.contains(digest) || self.pending.contains(digest);
        if !needs(name).iter().all(is_put) {
            return;
        }
        let (pending, record) = (self.pending.clone(), [(key(name), RECORDS[name].clone())]);
        let append = || match put_again(store, &pending) {
            Ok(()) => ledger.append(&record).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if self.steady(append).is_some() {
            self.blobs.append(&mut self.pending);
            self.records.insert(name);
        }
    }

    fn restore(&mut self, store: &Store, content: &[u8]) {
        self.restored.push(Some(content.to_vec()));
        // Until the commit the file may have its name and not its bytes.
        self.is_restoring = true;
        let restored =
            store.restore(&Digest::of(content), Path::new(OUT), false).and_then(|()| store.commit_restored());
        if self.step(restored).is_some() {
            self.restored.drain(..self.restored.len() - 1);
            self.is_restoring = false;
        }
    }

    fn index(&mut self, disk: &Arc<dyn Disk>) {
        let index = FileIndex::open_on(disk.clone(), Path::new(INDEX));
        if let Some(state) = self.step(index.digest(Path::new(INPUT))) {
            assert_eq!((state.digest, state.bytes), (Digest::of(&INPUT_BYTES), INPUT_LENGTH));
        }
        self.step(index.save());
    }

    /// Reads everything, as far as it can be read; what is read must be right.
    fn read(&mut self, store: &Store, ledger: &Ledger) {
        for (digest, content) in &*CONTENTS {
            match store.get(digest) {
                Ok(bytes) => assert_eq!(bytes, *content),
                Err(StoreError::Missing { .. }) if !self.blobs.contains(digest) => {}
                Err(error) => self.errors.push(error.to_string()),
            }
        }
        for name in KEYS {
            if let Some(found) = ledger.get(&key(name)) {
                assert_eq!(found, RECORDS[name]);
            }
        }
        if self.blobs.contains(&Digest::of(&TREE_BYTES))
            && let Some(found) = self.step(store.get_tree(&Digest::of(&TREE_BYTES)))
        {
            assert_eq!(*found, *TREE);
        }
    }
}

/// The whole life. Goes on after errors; says in `promises` what was reported as done.
pub fn run(disk: &Arc<dyn Disk>, promises: &mut Promises) {
    if promises.restored.is_empty() {
        promises.restored.push(None);
    }
    first_half(disk, promises);
    second_half(disk, promises);
}

fn first_half(disk: &Arc<dyn Disk>, promises: &mut Promises) {
    let Some((store, ledger)) = promises.step(open_store(disk)) else { return };
    promises.put(&store, &SMALL[1]);
    promises.commit(&store);
    SMALL.iter().for_each(|content| promises.put(&store, content));
    promises.append(&store, &ledger, "blobs");
    if let Some((digest, bytes)) = promises.steady(|| store.put_file(Path::new(INPUT))) {
        assert_eq!((digest, bytes), (Digest::of(&INPUT_BYTES), INPUT_LENGTH));
        promises.pending.insert(digest);
    }
    if let Some(digest) = promises.steady(|| store.put_tree(&TREE)) {
        promises.pending.insert(digest);
    }
    promises.append(&store, &ledger, "tree");
    promises.restore(&store, &SMALL[2]);
    promises.restore(&store, &SMALL[1]);
    promises.index(disk);
    // What was put and not committed dies with the process.
    promises.pending.clear();
}

fn second_half(disk: &Arc<dyn Disk>, promises: &mut Promises) {
    let Some((store, ledger)) = promises.step(open_store(disk)) else { return };
    promises.read(&store, &ledger);
    promises.put(&store, LATE);
    promises.append(&store, &ledger, "late");
    promises.index(disk);
    promises.pending.clear();
}

/// What a program does first after a crash, and no more.
pub fn open(disk: &Arc<dyn Disk>) {
    let _ = open_store(disk);
    let _ = FileIndex::open_on(disk.clone(), Path::new(INDEX));
}

/// Opens everything that was left and looks at all of it: what was promised is there, what is there is right, no
/// record is without its blobs, nothing was damaged, and nothing is left lying about.
pub fn check(disk: &ForgetfulDisk, promises: &Promises, place: &str) {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    check_restored(disk, promises, place);
    let (store, ledger) = open_store(&shared).unwrap_or_else(|error| panic!("{place}: {error}"));
    check_records(&store, &ledger, promises, place);
    check_blobs(&store, promises, place);
    check_index(disk, &shared, place);
    assert!(names(disk, &format!("{ROOT}/tmp")).is_empty(), "{place}: temps are left");
    let mut quarantined = names(disk, &format!("{ROOT}/quarantine"));
    quarantined.retain(|name| name != "lock");
    assert!(quarantined.is_empty(), "{place}: {quarantined:?} was damaged");
}

fn check_records(store: &Store, ledger: &Ledger, promises: &Promises, place: &str) {
    for name in KEYS {
        let Some(found) = ledger.get(&key(name)) else {
            assert!(!promises.records.contains(name), "{place}: the record {name} is lost");
            continue;
        };
        assert_eq!(found, RECORDS[name], "{place}: {name}");
        if !found.outputs.iter().all(|(_, artifact)| store.holds(artifact)) {
            assert!(!promises.records.contains(name), "{place}: the record {name} has outlived its blobs");
            continue;
        }
        for digest in needs(name) {
            let bytes = store.get(&digest).unwrap_or_else(|error| panic!("{place}: {name}: {error}"));
            assert_eq!(bytes, CONTENTS[&digest], "{place}: {name}");
        }
    }
}

fn check_blobs(store: &Store, promises: &Promises, place: &str) {
    let there = store.with_prefix("").unwrap();
    let lost = promises.blobs.iter().find(|digest| !there.contains(digest));
    assert_eq!(lost, None, "{place}: a promised blob is lost");
    for digest in there {
        let bytes = store.get(&digest).unwrap_or_else(|error| panic!("{place}: {error}"));
        assert_eq!(bytes, CONTENTS[&digest], "{place}");
    }
}

fn check_restored(disk: &ForgetfulDisk, promises: &Promises, place: &str) {
    let found = read(disk, OUT);
    let allowed = promises.restored.contains(&found) || promises.restored.is_empty() || promises.is_restoring;
    assert!(allowed, "{place}: the restored file is {found:?}, none of {:?}", promises.restored);
}

/// The index tells the truth, and saving it clears its folder.
fn check_index(disk: &ForgetfulDisk, shared: &Arc<dyn Disk>, place: &str) {
    let index = FileIndex::open_on(shared.clone(), Path::new(INDEX));
    assert_eq!(index.digest(Path::new(INPUT)).unwrap().digest, Digest::of(&INPUT_BYTES), "{place}");
    write(disk, "/w/fresh", b"fresh");
    index.digest(Path::new("/w/fresh")).unwrap();
    index.save().unwrap_or_else(|error| panic!("{place}: {error}"));
    let left: Vec<_> = names(disk, ROOT).into_iter().filter(|name| name.starts_with(".headwater")).collect();
    assert!(left.is_empty(), "{place}: {left:?} in the store");
}

/// The whole life once more, in which nothing may fail.
pub fn retry(disk: &ForgetfulDisk, promises: &Promises, place: &str) {
    let mut again = promises.clone();
    again.errors.clear();
    run(&(Arc::new(disk.clone()) as Arc<dyn Disk>), &mut again);
    assert_eq!(again.errors, Vec::<String>::new(), "{place}: a second try fails");
    assert_eq!((again.blobs.len(), again.records.len()), (CONTENTS.len(), KEYS.len()), "{place}");
    assert_eq!(read(disk, OUT).as_ref(), Some(&SMALL[1]), "{place}");
    assert_eq!(names(disk, "/w/out/deep"), ["file"], "{place}");
}

/// What was looked at already: the same disk after the same promises need not be looked at twice.
#[derive(Default)]
pub struct Seen(HashSet<(Digest, Digest)>);

impl Seen {
    pub fn is_new(&mut self, disk: &ForgetfulDisk, promises: &Promises) -> bool {
        let promised =
            format!("{:?} {:?} {:?} {}", promises.blobs, promises.records, promises.restored, promises.is_restoring);
        self.0.insert((image(disk), Digest::of(promised.as_bytes())))
    }

    pub fn count(&self) -> usize {
        self.0.len()
    }
}

fn names(disk: &dyn Disk, folder: &str) -> Vec<String> {
    let names = disk.names(Path::new(folder)).unwrap_or_default();
    names.into_iter().map(|name| name.into_string().unwrap()).collect()
}

/// A file as it is, but in a line of the file index only whether there are times and checks: the time of day is in them.
fn timeless(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.starts_with(b"HWFI") {
        for line in bytes.chunks_exact_mut(128) {
            for part in [56..64, 72..76, 112..128] {
                let any = line[part.clone()].iter().any(|byte| *byte != 0);
                line[part].fill(u8::from(any));
            }
        }
    }
    bytes
}

/// Digest of all that is on a disk, but for the random parts of names.
fn image(disk: &dyn Disk) -> Digest {
    let mut lines = Vec::new();
    let mut open = vec![PathBuf::from("/")];
    while let Some(folder) = open.pop() {
        for name in names(disk, folder.to_str().unwrap()) {
            let path = folder.join(&name);
            let found = disk.look(&path, Links::Refuse).unwrap();
            let shown = match name.rsplit_once('.') {
                Some((stem, end)) if stem.starts_with(".headwater-") || stem.len() == 32 => end,
                _ => name.as_str(),
            };
            let mut line = format!("{}/{shown} {:o} ", folder.display(), found.mode).into_bytes();
            match found.kind {
                FileKind::Folder => open.push(path),
                _ => line.extend(timeless(read(disk, path.to_str().unwrap()).unwrap())),
            }
            lines.push(line);
        }
    }
    lines.sort();
    let lines: Vec<Vec<u8>> = lines.iter().map(|line| Digest::of(line).as_bytes().to_vec()).collect();
    Digest::of(&lines.concat())
}
