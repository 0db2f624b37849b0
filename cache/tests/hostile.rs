//! Forged bytes in every file that a store reads: with right checksums too, so that it is the parsers that must hold.
//!
//! What must hold: no panic, never a wrong byte, and never more memory than 64 MiB beyond what the file itself has,
//! whatever lengths, depths and counts the bytes claim. One seed is one sequence; `HEADWATER_TORTURE` multiplies the cases.

mod forged;
mod seeded;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use headwater_cache::disk::{Access, Disk, FileKind, ForgetfulDisk, Links};
use headwater_cache::{Artifact, Digest, Entry, FileIndex, Ledger, Look, Record, Shape, Store, Tree, UsedSet};
use peak_alloc::PeakAlloc;

use crate::seeded::{Random, torture};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

const CASES: u64 = 4_000;
/// More than this must never be asked for on the word of a length.
const LIMIT: usize = 64 << 20;
const ROOT: &str = "/store";
const INDEX: &str = "/state/files";
const INPUT: &str = "/input";

fn contents() -> Vec<Vec<u8>> {
    vec![b"small".to_vec(), b"another".to_vec(), vec![7; 300], vec![9; 900]]
}

fn tree() -> Tree {
    let entry = |(at, content): (usize, &Vec<u8>)| Entry {
        name: format!("entry {at}"),
        type_name: "file".to_owned(),
        shape: Shape::Blob,
        digest: Digest::of(content),
        bytes: content.len() as u64,
    };
    Tree { header: "rows 3".to_owned(), entries: contents().iter().enumerate().map(entry).collect() }
}

fn open(disk: &ForgetfulDisk) -> Option<(Arc<Store>, Ledger)> {
    let store = Store::open_on(Arc::new(disk.clone()), Path::new(ROOT)).ok()?.with_small(500);
    let store = Arc::new(store);
    let ledger = Ledger::of(&store);
    Some((store, ledger))
}

/// A store with everything that one can have, and a file index.
fn filled() -> ForgetfulDisk {
    let disk = ForgetfulDisk::new();
    write(&disk, Path::new(INPUT), b"an input");
    let (store, ledger) = open(&disk).expect("it opens");
    for content in contents() {
        store.put(&content).expect("it is put");
    }
    let digest = store.put_tree(&tree()).expect("it is put");
    let artifact = Artifact { type_name: "frame".to_owned(), shape: Shape::Tree, digest, bytes: tree().bytes() };
    let record =
        Record { outputs: vec![("out".to_owned(), artifact)], manifest: "kind\ttest\n".repeat(9), seconds: 1.0 };
    let key = Digest::of(b"key");
    ledger.append(&[(key, record)]).expect("it is appended");
    store.use_now("me", &UsedSet { keys: [key].into(), blobs: [digest].into() }).expect("it is written");
    drop((store, ledger));
    // The second opening writes the contents of the segment.
    open(&disk).expect("it opens");
    let index = FileIndex::open_on(Arc::new(disk.clone()), Path::new(INDEX));
    index.digest(Path::new(INPUT)).expect("it is read");
    index.save().expect("it is saved");
    disk
}

fn write(disk: &dyn Disk, path: &Path, bytes: &[u8]) {
    let handle = disk.open(path, Access::Edit(0o644)).expect("it opens");
    handle.set_len(0).expect("it is cut");
    let mut written = 0;
    while written < bytes.len() {
        written += handle.write_at(&bytes[written..], written as u64).expect("it is written");
    }
}

fn read(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let handle = disk.open(path, Access::Read(Links::Refuse)).expect("it opens");
    let mut bytes = vec![0; handle.look().expect("it is there").bytes as usize];
    assert_eq!(handle.read_at(&mut bytes, 0).expect("it is read"), bytes.len());
    bytes
}

/// All files of the store and of the index that have bytes.
fn files(disk: &dyn Disk) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![PathBuf::from(ROOT), PathBuf::from("/state")]);
    while let Some(folder) = open.pop() {
        let mut names = disk.names(&folder).unwrap_or_default();
        names.sort();
        for name in names {
            let path = folder.join(name);
            let about = disk.look(&path, Links::Refuse).expect("it is there");
            match about.kind {
                FileKind::Folder => open.push(path),
                _ if about.bytes > 0 => found.push(path),
                _ => {}
            }
        }
    }
    // Random names must not make a seed mean another case.
    found.sort_by_key(|path| (path.extension().map(ToOwned::to_owned), read(disk, path).len()));
    found
}

/// One to four changes of any kind.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.index(4) {
        let at = random.index(bytes.len());
        match random.index(6) {
            0 => bytes[at] ^= 1 << random.index(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfb, 0xfc, 0xfd, 0xff][random.index(8)],
            // A length that asks for everything, in both of the forms that the formats have.
            2 => overwrite(bytes, at, &[0xff; 8][..1 + random.index(8)]),
            3 => overwrite(bytes, at, &[0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            4 => bytes.truncate(at.max(1)),
            _ => {
                let end = (at + 1 + random.index(64)).min(bytes.len());
                let copy = bytes[at..end].to_vec();
                let to = random.index(bytes.len());
                bytes.splice(to..to, copy);
            }
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    let end = (at + with.len()).min(bytes.len());
    bytes[at..end].copy_from_slice(&with[..end - at]);
}

/// Makes checksums right again.
fn forge(path: &Path, bytes: &mut [u8]) {
    match path.extension().and_then(|end| end.to_str()) {
        Some("seg") => forged::entries(bytes),
        Some("idx") => forged::contents(bytes),
        // A line of the file index that was forged with a right check is believed: it is an index and no truth.
        _ => {}
    }
}

/// Everything that a program does with a store; what it gets must be right.
fn use_all(disk: &ForgetfulDisk) {
    if let Some((store, ledger)) = open(disk) {
        for content in contents() {
            if let Ok(bytes) = store.get(&Digest::of(&content)) {
                assert_eq!(bytes, content);
            }
        }
        for digest in store.with_prefix("").unwrap_or_default() {
            if let Ok(bytes) = store.get(&digest) {
                assert_eq!(Digest::of(&bytes), digest);
            }
            let _ = store.get_tree(&digest);
        }
        if let Some(record) = ledger.get(&Digest::of(b"key")) {
            for (_, artifact) in &record.outputs {
                store.holds(artifact);
            }
        }
        let _ = store.stats(&ledger);
        let _ = store.verify(&ledger, Look { full: true, repair: true });
        let _ = store.use_now("me", &UsedSet::default());
    }
    let index = FileIndex::open_on(Arc::new(disk.clone()), Path::new(INDEX));
    assert_eq!(index.digest(Path::new(INPUT)).expect("it is read").digest, Digest::of(b"an input"));
    let _ = index.save();
}

#[test]
fn forged_bytes_end_in_an_error_and_ask_for_no_memory() {
    let good = filled();
    let files = files(&good);
    assert!(files.len() >= 5, "{files:?}");
    for seed in 0..CASES * torture() {
        let mut random = Random(seed);
        let (disk, path) = (good.copy(), &files[random.index(files.len())]);
        let mut bytes = read(&disk, path);
        mutate(&mut bytes, &mut random);
        if random.index(2) == 0 {
            forge(path, &mut bytes);
        }
        write(&disk, path, &bytes);
        MEMORY.reset_peak_usage();
        let before = MEMORY.current_usage();
        use_all(&disk);
        let asked = MEMORY.peak_usage().saturating_sub(before);
        assert!(asked < LIMIT, "seed {seed}: {asked} bytes for {}", path.display());
    }
}

#[test]
fn forged_trees_end_in_an_error_or_are_what_they_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(folder.path()).expect("a store");
    let good = tree().encode().expect("it is encoded");
    for seed in 0..CASES {
        let (mut bytes, mut random) = (good.clone(), Random(seed));
        mutate(&mut bytes, &mut random);
        let digest = store.put(&bytes).expect("it is put");
        if let Ok(tree) = store.get_tree(&digest) {
            assert_eq!(tree.encode().expect("it is a tree"), bytes, "seed {seed}");
        }
    }
}

#[test]
fn a_short_tree_that_claims_a_long_text_asks_for_no_memory() {
    // The header of the tree has 67,130,029 bytes, it says.
    let forged = [&b"HWTR\x01\0\0\0"[..], &[0xfc, 0xad, 0x52, 0x00, 0x04], b"rows"].concat();
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    assert!(Tree::decode(&forged).is_err());
    // Other tests run meanwhile, and take a few windows of 1 MiB.
    assert!(MEMORY.peak_usage().saturating_sub(before) < LIMIT / 2);
}

#[test]
fn a_long_tree_that_claims_a_longer_text_asks_for_no_memory() {
    let long = |length: u32| [&[0xfc][..], &length.to_le_bytes()].concat();
    let name = vec![b'n'; 5 << 20];
    // No header; two entries, and of the second a name of 250,000,000 bytes, it says.
    let first = [long(5 << 20), name, b"\x01f\x00".to_vec(), vec![7; 32], vec![0]].concat();
    let forged = [&b"HWTR\x01\0\0\0\x00\x02"[..], &first, &long(250_000_000), b"name"].concat();
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    assert!(Tree::decode(&forged).is_err());
    assert!(MEMORY.peak_usage().saturating_sub(before) < LIMIT / 2);
}
