//! What the fuzz targets of `cache/` and `engine/` share: a store in memory of which one file consists of the bytes to try,
//! and everything that a program does with a store.
//!
//! Does not know formats beyond what `forged` knows: targets go through the public interface of the crates.
//!
//! Invariants: nothing is written outside of memory; what is read under a digest has it.

#[path = "../../cache/tests/forged/mod.rs"]
pub mod forged;
mod trial;

use std::path::Path;
use std::sync::Arc;

use headwater_cache::disk::{Access, Disk, ForgetfulDisk, Links};
use headwater_cache::{
    Artifact, Collector, Digest, Entry, FileIndex, Keep, Ledger, Look, Record, Shape, Store, Tree, UsedSet,
};

pub use trial::{frugally, seed};

pub const ROOT: &str = "/store";
pub const INDEX: &str = "/state/files";
pub const SEGMENT: &str = "/store/segments/00000000000000000000000000000000.seg";
pub const CONTENTS: &str = "/store/segments/00000000000000000000000000000000.idx";
pub const USER: &str = "me";
const INPUTS: usize = 6;

/// Inputs twice: as they are, and as ones whose checksums are to be made right.
pub fn plain_and_forged(inputs: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    let with = |mark: u8| inputs.iter().map(move |input| [&[mark], input.as_slice()].concat());
    with(0).chain(with(1)).collect()
}

/// What an input is that begins with a mark of whether its checksums are to be made right.
pub fn forged_if_marked(data: &[u8], forge: impl Fn(&mut [u8])) -> Vec<u8> {
    let Some((mark, bytes)) = data.split_first() else { return Vec::new() };
    let mut bytes = bytes.to_vec();
    if mark % 2 == 1 {
        forge(&mut bytes);
    }
    bytes
}

pub fn key() -> Digest {
    Digest::of(b"key")
}

/// Small ones, and a large one that is a file.
pub fn contents() -> Vec<Vec<u8>> {
    vec![Vec::new(), b"small".to_vec(), vec![7; 300], vec![9; 900]]
}

pub fn tree() -> Tree {
    let entry = |(at, content): (usize, &Vec<u8>)| Entry {
        name: format!("entry {at}"),
        type_name: "file".to_owned(),
        shape: Shape::Blob,
        digest: Digest::of(content),
        bytes: content.len() as u64,
    };
    Tree { header: "rows 3".to_owned(), entries: contents().iter().enumerate().map(entry).collect() }
}

pub fn record() -> Record {
    let digest = Digest::of(&tree().encode().expect("it is a tree"));
    let artifact = Artifact { type_name: "frame".to_owned(), shape: Shape::Tree, digest, bytes: tree().bytes() };
    Record {
        outputs: vec![("out".to_owned(), artifact)],
        manifest: "kind\ttest 1\nport\tvalue\n".to_owned(),
        seconds: 1.5,
    }
}

fn input(number: usize) -> String {
    format!("/in/{number}")
}

/// An empty store, and the files of a user.
pub fn empty() -> ForgetfulDisk {
    let disk = ForgetfulDisk::new();
    for folder in ["/in", "/state"] {
        disk.create_dir(Path::new(folder), 0o755).expect("it is made");
    }
    (0..INPUTS).for_each(|number| write(&disk, &input(number), input(number).as_bytes()));
    drop(open(&disk));
    disk.sync_all();
    disk
}

/// A store with everything that one can have, in one segment of a known name with its contents, and a file index in both
/// of its files.
pub fn filled() -> ForgetfulDisk {
    let disk = empty();
    // So that the store's own segment has this name.
    write(&disk, SEGMENT, &forged::header());
    let (store, ledger) = open(&disk).expect("it opens");
    contents().iter().for_each(|content| assert!(store.put(content).is_ok()));
    store.put_tree(&tree()).expect("it is put");
    ledger.append(&[(key(), record())]).expect("it is appended");
    store.use_now(USER, &used()).expect("it is written");
    drop((store, ledger));
    drop(open(&disk));
    for inputs in [0..INPUTS - 1, 0..INPUTS] {
        let index = FileIndex::open_on(Arc::new(disk.clone()), Path::new(INDEX));
        inputs.for_each(|number| assert!(index.digest(Path::new(&input(number))).is_ok()));
        index.save().expect("it is saved");
    }
    disk.sync_all();
    disk
}

pub fn used() -> UsedSet {
    UsedSet { keys: [key()].into(), blobs: [Digest::of(b"small")].into() }
}

pub fn write(disk: &dyn Disk, path: &str, bytes: &[u8]) {
    let handle = disk.open(Path::new(path), Access::Edit(0o644)).expect("it opens");
    handle.set_len(0).expect("it is cut");
    assert_eq!(handle.write_at(bytes, 0).expect("it is written"), bytes.len());
}

pub fn read(disk: &dyn Disk, path: &str) -> Vec<u8> {
    let handle = disk.open(Path::new(path), Access::Read(Links::Refuse)).expect("it opens");
    let mut bytes = vec![0; handle.look().expect("it is there").bytes as usize];
    assert_eq!(handle.read_at(&mut bytes, 0).expect("it is read"), bytes.len());
    bytes
}

pub fn open(disk: &ForgetfulDisk) -> Option<(Arc<Store>, Ledger)> {
    let store = Arc::new(Store::open_on(Arc::new(disk.clone()), Path::new(ROOT)).ok()?.with_small(500));
    let ledger = Ledger::of(&store);
    Some((store, ledger))
}

/// The payloads of all entries of a kind in a store's segment.
pub fn payloads(disk: &dyn Disk, kind: u32) -> Vec<Vec<u8>> {
    forged::payloads(&read(disk, SEGMENT), kind)
}

/// The one set of what a run used.
pub fn set(disk: &dyn Disk) -> Vec<u8> {
    let mut blobs = payloads(disk, forged::BLOB).into_iter();
    blobs.find(|blob| blob.starts_with(b"HWUE")).expect("something is used")
}

/// Everything that a program does with a store.
pub fn use_store(disk: &ForgetfulDisk) {
    if let Some((store, ledger)) = open(disk) {
        for digest in store.with_prefix("").expect("it is listed") {
            if let Ok(bytes) = store.get(&digest) {
                assert_eq!(Digest::of(&bytes), digest);
            }
            let _ = store.get_tree(&digest);
        }
        if let Some(record) = ledger.get(&key()) {
            for (_, artifact) in &record.outputs {
                store.holds(artifact);
            }
        }
        let _ = store.stats(&ledger);
        let _ = store.verify(&ledger, Look { full: true, repair: true });
        let _ = store.use_now(USER, &UsedSet::default());
    }
    let _ = Collector::open_on(Arc::new(disk.clone()), Path::new(ROOT)).and_then(|collector| {
        let plan = collector.plan(Keep { last: 1, max_bytes: Some(100) })?;
        collector.carry_out(&plan)
    });
    can_be_used(disk);
}

/// Whatever was there, what is put and appended now is found by the next process.
fn can_be_used(disk: &ForgetfulDisk) {
    let (bytes, key) = (b"put afterwards", Digest::of(b"another key"));
    let Some((store, ledger)) = open(disk) else { return };
    store.put(bytes).expect("it is put");
    ledger.append(&[(key, record())]).expect("it is appended");
    drop((store, ledger));
    let (store, ledger) = open(disk).expect("it opens");
    assert_eq!(store.get(&Digest::of(bytes)).expect("it is there"), bytes);
    assert_eq!(ledger.get(&key).as_ref(), Some(&record()));
}

/// Everything that a program does with a file index: it can forget, and not err about bytes that it has to read. What
/// it believes of a file was forged with the file's own times, and is no fault of the parser.
pub fn use_index(disk: &ForgetfulDisk) {
    for _ in 0..2 {
        let index = FileIndex::open_on(Arc::new(disk.clone()), Path::new(INDEX));
        (0..INPUTS).for_each(|number| assert!(index.digest(Path::new(&input(number))).is_ok()));
        let _ = index.digest(Path::new(INDEX));
        index.save().expect("it is saved");
    }
}
