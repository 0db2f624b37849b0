//! Blobs and trees put, got, restored and committed; what damage and failing calls do to them.

use super::restore::SYNCED_ALONE;
use super::*;
use crate::disk::tests::make_fifo;
use crate::disk::{Call, FailingDisk, Fault, ForgetfulDisk, RealDisk};
use crate::tree::Entry;
use crate::tree::tests::{entry, tree};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

struct Bench {
    folder: tempfile::TempDir,
    store: Store,
}

/// Calls with their commit.
trait Committed {
    fn keep(&self, bytes: &[u8]) -> Result<Digest, StoreError>;
    fn keep_file(&self, path: &Path) -> Result<(Digest, u64), StoreError>;
    fn keep_tree(&self, tree: &Tree) -> Result<Digest, StoreError>;
    fn restore_kept(&self, digest: &Digest, dest: &Path, executable: bool) -> Result<(), StoreError>;
}

impl Committed for Store {
    fn keep(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.put(bytes).and_then(|digest| self.commit().map(|()| digest))
    }

    fn keep_file(&self, path: &Path) -> Result<(Digest, u64), StoreError> {
        self.put_file(path).and_then(|put| self.commit().map(|()| put))
    }

    fn keep_tree(&self, tree: &Tree) -> Result<Digest, StoreError> {
        self.put_tree(tree).and_then(|digest| self.commit().map(|()| digest))
    }

    fn restore_kept(&self, digest: &Digest, dest: &Path, executable: bool) -> Result<(), StoreError> {
        self.restore(digest, dest, executable).and_then(|()| self.commit_restored())
    }
}

impl Bench {
    fn new() -> Bench {
        let folder = tempfile::tempdir().unwrap();
        // Every blob that has bytes is a file of its own.
        let store = Store::open(&folder.path().join("store")).unwrap().with_small(0);
        Bench { folder, store }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts `content` and then exchanges the blob's bytes for `damaged`.
    fn damaged(&self, content: &[u8], damaged: &[u8]) -> Digest {
        let digest = self.store.keep(content).unwrap();
        let path = self.store.blobs.path(&digest);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&path, damaged).unwrap();
        digest
    }

    fn quarantined(&self) -> Vec<String> {
        let mut names = disk::names(&RealDisk, &self.store.root.join("quarantine")).unwrap();
        names.retain(|name| name != "lock");
        names
    }

    /// Asserts that `digest` is reported as damaged, then as missing, and that a put makes it whole.
    fn is_damage(&self, digest: Digest, content: &[u8]) {
        let error = self.store.get(&digest).unwrap_err();
        let StoreError::Damaged { digest: named, path } = error else {
            panic!("{error}");
        };
        assert_eq!(named, digest);
        assert!(path.symlink_metadata().is_ok());
        let error = self.store.get(&digest).unwrap_err();
        assert!(matches!(error, StoreError::Missing { digest: named } if named == digest));
        self.store.keep(content).unwrap();
        assert_eq!(self.store.get(&digest).unwrap(), content);
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn artifact(shape: Shape, digest: Digest, bytes: u64) -> Artifact {
    let type_name = "file".to_owned();
    Artifact { type_name, shape, digest, bytes }
}

#[test]
fn a_put_replaces_a_damaged_blob_of_the_same_length() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap().with_small(0);
    let digest = store.keep(b"right").unwrap();
    let path = store.blobs.path(&digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, b"wrong").unwrap();
    assert_eq!(store.keep(b"right").unwrap(), digest);
    assert_eq!(store.get(&digest).unwrap(), b"right");
}

#[test]
fn bytes_come_back() {
    let bench = Bench::new();
    for content in [&b""[..], b"x", &[7; 3 << 20]] {
        let digest = bench.store.keep(content).unwrap();
        assert_eq!(digest, Digest::of(content));
        assert!(bench.store.contains(&digest));
        assert_eq!(bench.store.get(&digest).unwrap(), content);
    }
}

#[test]
fn the_layout_and_the_modes_are_as_documented() {
    let bench = Bench::new();
    let root = bench.store.root();
    assert_eq!(mode(root), 0o700);
    assert_eq!(fs::read(root.join("format")).unwrap(), b"headwater-store 2\n");
    let text = bench.store.keep(b"content").unwrap().to_string();
    let blob = root.join("blobs").join(&text[..2]).join(&text[2..]);
    assert_eq!(mode(&blob), 0o444);
    assert_eq!(fs::metadata(&blob).unwrap().nlink(), 1);
    assert!(disk::names(&RealDisk, &root.join("tmp")).unwrap().is_empty());
}

#[test]
fn a_missing_blob_is_named() {
    let bench = Bench::new();
    let digest = Digest::of(b"never put");
    let text = format!("blob {digest} is not in the store");
    assert_eq!(bench.store.get(&digest).unwrap_err().to_string(), text);
    assert_eq!(bench.store.get_tree(&digest).unwrap_err().to_string(), text);
    let dest = bench.path("new/dest");
    let error = bench.store.restore_kept(&digest, &dest, false).unwrap_err();
    assert_eq!(error.to_string(), text);
    assert!(!bench.path("new").exists());
    assert!(!bench.store.contains(&digest));
}

#[test]
fn a_flipped_bit_is_damage_not_data() {
    let bench = Bench::new();
    for bit in 0..24 {
        let mut bytes = *b"abc";
        bytes[bit / 8] ^= 1 << (bit % 8);
        bench.is_damage(bench.damaged(b"abc", &bytes), b"abc");
    }
    assert_eq!(bench.quarantined().len(), 24);
}

#[test]
fn damage_is_reported_with_the_place_it_was_moved_to() {
    let bench = Bench::new();
    let digest = bench.damaged(b"content", b"CONTENT");
    let text = bench.store.get(&digest).unwrap_err().to_string();
    let place = bench.store.root.join("quarantine").join(&bench.quarantined()[0]);
    assert_eq!(fs::read(&place).unwrap(), b"CONTENT");
    assert_eq!(text, format!("blob {digest} is damaged; it was moved to {}", place.display()));
}

#[test]
fn every_truncation_and_a_growth_is_damage() {
    let bench = Bench::new();
    for other in [&b""[..], b"a", b"ab", b"abc\0"] {
        bench.is_damage(bench.damaged(b"abc", other), b"abc");
    }
}

#[test]
fn a_folder_a_link_or_a_fifo_in_the_place_of_a_blob_is_damage() {
    let bench = Bench::new();
    let digest = bench.store.keep(b"abc").unwrap();
    let path = bench.store.blobs.path(&digest);
    let outside = bench.path("outside");
    fs::write(&outside, b"abc").unwrap();
    let replace: [&dyn Fn(); 3] =
        [&|| fs::create_dir(&path).unwrap(), &|| std::os::unix::fs::symlink(&outside, &path).unwrap(), &|| {
            make_fifo(&path)
        }];
    for replace in replace {
        fs::remove_file(&path).unwrap();
        replace();
        assert!(!bench.store.contains(&digest));
        bench.is_damage(digest, b"abc");
    }
}

#[test]
fn a_blob_of_the_wrong_size_is_replaced_by_a_put() {
    let bench = Bench::new();
    let digest = bench.damaged(b"content", b"cont");
    bench.store.keep(b"content").unwrap();
    assert_eq!(bench.store.get(&digest).unwrap(), b"content");
    assert_eq!(bench.quarantined().len(), 1);
}

#[test]
fn a_good_blob_that_took_the_place_of_a_damaged_one_is_not_set_aside() {
    let bench = Bench::new();
    let digest = bench.damaged(b"content", b"CONTENT");
    let (_held_open, seen) = bench.store.blobs.open(&digest).unwrap();
    fs::remove_file(bench.store.blobs.path(&digest)).unwrap();
    bench.store.keep(b"content").unwrap();
    bench.store.blobs.condemn(&digest, &seen).unwrap();
    assert_eq!(bench.store.get(&digest).unwrap(), b"content");
}

#[test]
fn a_file_is_put_as_its_bytes() {
    let bench = Bench::new();
    let path = bench.path("file");
    for content in [&b""[..], b"some content", &[3; (2 << 20) + 5]] {
        fs::write(&path, content).unwrap();
        let expected = (Digest::of(content), content.len() as u64);
        assert_eq!(bench.store.keep_file(&path).unwrap(), expected);
        assert_eq!(bench.store.get(&expected.0).unwrap(), content);
    }
}

#[test]
fn only_a_regular_file_is_put() {
    let bench = Bench::new();
    let folder = bench.folder.path();
    assert_eq!(
        bench.store.keep_file(folder).unwrap_err().to_string(),
        format!("{} is a directory, not a regular file", folder.display())
    );
    let error = bench.store.keep_file(Path::new("/no/such/file")).unwrap_err();
    assert_eq!(error.to_string(), "cannot open /no/such/file: No such file or directory (os error 2)");
}

/// A store on the real disk on which, once `armed`, the first sync of a temp fails.
fn failing_once(folder: &Path) -> (Store, Arc<AtomicUsize>) {
    let armed = Arc::new(AtomicUsize::new(0));
    let left = armed.clone();
    let decide = move |call: &Call| {
        let is_temp = call.operation == "sync" && call.path.components().any(|part| part.as_os_str() == "tmp");
        let fails =
            is_temp && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        fails.then_some(Fault::Error(libc::EIO))
    };
    let disk = FailingDisk::new(Arc::new(RealDisk), decide);
    (Store::open_on(Arc::new(disk), folder).unwrap(), armed)
}

#[test]
fn of_many_large_blobs_only_the_one_that_cannot_be_synced_is_lost() {
    let bench = Bench::new();
    let (store, armed) = failing_once(&bench.path("failing"));
    let contents: Vec<Vec<u8>> = (0..6).map(|number| vec![number; 1 << 20]).collect();
    let digests: Vec<Digest> = contents.iter().map(|content| store.put(content).unwrap()).collect();
    armed.store(1, Ordering::SeqCst);
    assert!(store.commit().is_err());
    let lost: Vec<usize> = (0..6).filter(|number| !store.contains(&digests[*number])).collect();
    assert_eq!(lost.len(), 1);
    store.put(&contents[lost[0]]).unwrap();
    store.commit().unwrap();
    drop(store);
    let store = Store::open(&bench.path("failing")).unwrap();
    assert!(digests.iter().zip(&contents).all(|(digest, content)| store.get(digest).unwrap() == *content));
}

#[test]
fn a_put_file_shares_no_inode_with_the_store() {
    let bench = Bench::new();
    let path = bench.path("file");
    fs::write(&path, b"content").unwrap();
    let (digest, _) = bench.store.keep_file(&path).unwrap();
    fs::write(&path, b"written to afterwards").unwrap();
    assert_eq!(bench.store.get(&digest).unwrap(), b"content");
}

#[test]
fn a_tree_comes_back_and_is_read_once() {
    let bench = Bench::new();
    let tree = tree(&["a", "b"]);
    let digest = bench.store.keep_tree(&tree).unwrap();
    let first = bench.store.get_tree(&digest).unwrap();
    assert_eq!(*first, tree);
    fs::remove_file(bench.store.blobs.path(&digest)).unwrap();
    assert!(Arc::ptr_eq(&first, &bench.store.get_tree(&digest).unwrap()));
}

#[test]
fn bytes_that_are_no_tree_are_named_and_stay() {
    let bench = Bench::new();
    let digest = bench.store.keep(b"no tree at all").unwrap();
    assert_eq!(
        bench.store.get_tree(&digest).unwrap_err().to_string(),
        format!(
            "blob {digest} is not a readable tree: \
             the data is of another kind: it does not begin with \"HWTR\""
        )
    );
    assert!(bench.store.contains(&digest));
}

#[test]
fn a_tree_grown_beyond_the_limit_is_damage_and_not_read_into_memory() {
    let bench = Bench::new();
    let digest = bench.store.keep_tree(&tree(&["a"])).unwrap();
    let path = bench.store.blobs.path(&digest);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(MAX_TREE_BYTES as u64 + 1).unwrap();
    let error = bench.store.get_tree(&digest).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn an_invalid_tree_is_refused_before_it_is_written() {
    let bench = Bench::new();
    assert_eq!(
        bench.store.keep_tree(&tree(&["a", "a"])).unwrap_err().to_string(),
        "two entries of the tree are named \"a\""
    );
    assert!(bench.store.with_prefix("").unwrap().is_empty());
}

#[test]
fn an_artifact_is_held_only_if_every_part_is_there() {
    let bench = Bench::new();
    let store = &bench.store;
    let inner = tree(&["a", "b"]);
    let sub = Entry { shape: Shape::Tree, digest: store.keep_tree(&inner).unwrap(), ..entry("sub", b"") };
    let outer = Tree { header: String::new(), entries: vec![sub, entry("c", b"c")] };
    let whole = artifact(Shape::Tree, store.keep_tree(&outer).unwrap(), 3);
    assert!(!store.holds(&whole));
    let digests = [b"a", b"b", b"c"].map(|content| store.keep(content).unwrap());
    assert!(store.holds(&whole));
    let parts = digests.iter().chain([&whole.digest, &outer.entries[0].digest]);
    for digest in parts {
        let (path, away) = (store.blobs.path(digest), bench.path("away"));
        fs::rename(&path, &away).unwrap();
        assert!(!store.holds(&whole), "without {digest}");
        fs::rename(&away, &path).unwrap();
    }
    assert!(store.holds(&whole));
}

#[test]
fn a_blob_of_another_length_is_not_held() {
    let bench = Bench::new();
    let digest = bench.store.keep(b"abc").unwrap();
    assert!(bench.store.holds(&artifact(Shape::Blob, digest, 3)));
    assert!(!bench.store.holds(&artifact(Shape::Blob, digest, 4)));
}

/// A chain of trees, each with the one before it twice.
fn chain(store: &Store, length: usize) -> Artifact {
    let mut last = Digest::of(b"");
    let mut shape = Shape::Blob;
    store.keep(b"").unwrap();
    for _ in 0..length {
        let part = |name| Entry { digest: last, shape, ..entry(name, b"") };
        let entries = vec![part("left"), part("right")];
        last = store.keep_tree(&Tree { header: String::new(), entries }).unwrap();
        shape = Shape::Tree;
    }
    artifact(shape, last, 0)
}

#[test]
fn shared_subtrees_are_walked_once_and_depth_is_limited() {
    let bench = Bench::new();
    assert!(bench.store.holds(&chain(&bench.store, MAX_DEPTH)));
    assert!(!bench.store.holds(&chain(&bench.store, MAX_DEPTH + 1)));
}

#[test]
fn a_restored_file_is_a_copy_with_ordinary_permissions() {
    let bench = Bench::new();
    let digest = bench.store.keep(b"content").unwrap();
    let (plain, program) = (bench.path("new/folder/plain"), bench.path("program"));
    bench.store.restore_kept(&digest, &plain, false).unwrap();
    bench.store.restore_kept(&digest, &program, true).unwrap();
    assert_eq!(fs::read(&plain).unwrap(), b"content");
    assert_eq!(mode(&plain) & 0o111, 0);
    assert_eq!(mode(&plain) & 0o600, 0o600);
    assert_eq!(mode(&program) & 0o100, 0o100);
    fs::write(&plain, b"written to").unwrap();
    assert_eq!(bench.store.get(&digest).unwrap(), b"content");
}

#[test]
fn a_restore_replaces_a_link_and_not_what_it_leads_to() {
    let bench = Bench::new();
    let digest = bench.store.keep(b"content").unwrap();
    let (target, link) = (bench.path("target"), bench.path("link"));
    fs::write(&target, b"mine").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    bench.store.restore_kept(&digest, &link, false).unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"mine");
    assert!(fs::symlink_metadata(&link).unwrap().is_file());
}

#[test]
fn a_damaged_blob_is_never_restored() {
    let bench = Bench::new();
    let digest = bench.damaged(b"content", b"CONTENT");
    let dest = bench.path("dest/file");
    fs::create_dir(bench.path("dest")).unwrap();
    fs::write(&dest, b"before").unwrap();
    let error = bench.store.restore_kept(&digest, &dest, false).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(fs::read(&dest).unwrap(), b"before");
    assert_eq!(disk::names(&RealDisk, &bench.path("dest")).unwrap(), ["file"]);
}

#[test]
fn a_restore_clears_what_a_killed_one_left() {
    let bench = Bench::new();
    let digest = bench.store.keep(b"content").unwrap();
    let left = bench.path(&format!(".headwater-{}.tmp", disk::random_name()));
    fs::write(&left, b"half of the cont").unwrap();
    bench.store.restore_kept(&digest, &bench.path("dest"), false).unwrap();
    assert!(!left.exists());
}

#[test]
fn digests_are_found_by_any_prefix_in_order() {
    let bench = Bench::new();
    let mut all: Vec<_> = (0..40u8).map(|i| bench.store.keep(&[i]).unwrap()).collect();
    all.sort();
    assert_eq!(bench.store.with_prefix("").unwrap(), all);
    for digest in &all {
        let text = digest.to_string();
        for length in [1, 2, 3, 12, 64] {
            let prefix = &text[..length];
            let mut expected = all.clone();
            expected.retain(|digest| digest.to_string().starts_with(prefix));
            assert_eq!(bench.store.with_prefix(prefix).unwrap(), expected);
        }
    }
    for none in ["zz", "é", "..", "AF", &"0".repeat(65)] {
        assert!(bench.store.with_prefix(none).unwrap().is_empty());
    }
}

#[test]
fn strange_names_among_the_blobs_are_no_digests() {
    let bench = Bench::new();
    let digest = bench.store.keep(b"content").unwrap();
    let folder = bench.store.blobs.path(&digest);
    fs::write(folder.with_file_name("notes"), b"").unwrap();
    fs::write(bench.store.root.join("blobs/README"), b"").unwrap();
    assert_eq!(bench.store.with_prefix("").unwrap(), [digest]);
}

#[test]
fn a_newer_store_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("format"), b"headwater-store 3\n").unwrap();
    assert_eq!(
        Store::open(folder.path()).unwrap_err().to_string(),
        format!("the store {} has format version 3, this program reads version 2", folder.path().display())
    );
    assert_eq!(disk::names(&RealDisk, folder.path()).unwrap(), ["format"]);
}

#[test]
fn a_format_file_of_something_else_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("format");
    let texts = ["", "headwater-store 1", "headwater-store 0\n", "headwater-store x\n", "other"];
    for text in texts {
        fs::write(&path, text).unwrap();
        assert_eq!(
            Store::open(folder.path()).unwrap_err().to_string(),
            format!("{} is not the format file of a store", path.display())
        );
    }
}

#[test]
fn a_store_whose_making_was_cut_short_is_completed() {
    let bench = Bench::new();
    let root = bench.store.root();
    let digest = bench.store.keep(b"content").unwrap();
    fs::remove_file(root.join("format")).unwrap();
    fs::remove_dir_all(root.join("quarantine")).unwrap();
    let again = Store::open(root).unwrap();
    assert!(root.join("format").exists() && root.join("quarantine").exists());
    assert_eq!(again.get(&digest).unwrap(), b"content");
}

#[test]
fn opening_sweeps_the_temps_of_the_dead_and_not_those_of_the_living() {
    let bench = Bench::new();
    let digest = bench.store.put(b"content").unwrap();
    let tmp = bench.store.root.join("tmp");
    let dead = tmp.join(format!(".headwater-{}.tmp", disk::random_name()));
    fs::write(&dead, b"half").unwrap();
    let _again = Store::open(bench.store.root()).unwrap();
    assert!(!dead.exists());
    bench.store.commit().unwrap();
    assert!(bench.store.contains(&digest));
}

#[test]
fn after_a_failed_sync_nothing_is_put() {
    let bench = Bench::new();
    let digest = bench.store.keep(b"before").unwrap();
    bench.store.blobs.fail_sync();
    let text = format!("the store {} takes nothing more: an earlier sync failed", bench.store.root().display());
    assert_eq!(bench.store.keep(b"before").unwrap_err().to_string(), text);
    let error = bench.store.keep_file(Path::new("/dev/null")).unwrap_err();
    assert_eq!(error.to_string(), text);
    assert_eq!(bench.store.get(&digest).unwrap(), b"before");
}

/// A store in memory, made before anything fails, on a disk where those calls fail that `decide` chooses.
fn failing(decide: impl Fn(&Call) -> Option<Fault> + Send + Sync + 'static) -> (ForgetfulDisk, Store) {
    let memory = ForgetfulDisk::new();
    Store::open_on(Arc::new(memory.clone()), Path::new("/store")).unwrap();
    let disk = FailingDisk::new(Arc::new(memory.clone()), decide);
    (memory, Store::open_on(Arc::new(disk), Path::new("/store")).unwrap().with_small(0))
}

/// Chooses the first `times` calls of this operation on a path that contains `part`.
fn first(times: usize, operation: &'static str, part: &'static str, errno: i32) -> impl Fn(&Call) -> Option<Fault> {
    let seen = AtomicUsize::new(0);
    move |call| {
        let chosen = call.operation == operation && call.path.to_string_lossy().contains(part);
        (chosen && seen.fetch_add(1, Ordering::SeqCst) < times).then_some(Fault::Error(errno))
    }
}

#[test]
fn a_failed_sync_of_a_folder_is_final() {
    let (memory, store) = failing(first(1, "sync", "/blobs/", libc::EIO));
    let error = store.keep(b"content").unwrap_err().to_string();
    let folder = format!("/store/blobs/{}", &Digest::of(b"content").to_string()[..2]);
    assert_eq!(error, format!("cannot sync directory {folder}: Input/output error (os error 5)"));
    for content in [&b"content"[..], b"other"] {
        let error = store.keep(content).unwrap_err();
        assert!(matches!(error, StoreError::SyncFailed { .. }), "{error}");
    }
    let again = Store::open_on(Arc::new(memory), Path::new("/store")).unwrap();
    again.keep(b"content").unwrap();
}

#[test]
fn a_failed_sync_of_a_blob_costs_that_put_and_no_other() {
    let (memory, store) = failing(first(1, "sync", ".tmp", libc::ENOSPC));
    assert!(store.keep(b"content").is_err());
    assert!(!store.contains(&Digest::of(b"content")));
    assert!(disk::names(&memory, Path::new("/store/tmp")).unwrap().is_empty());
    let digest = store.keep(b"content").unwrap();
    assert_eq!(store.get(&digest).unwrap(), b"content");
}

#[test]
fn no_descriptor_left_to_sync_a_folder_with_is_no_failed_sync() {
    let (_, store) = failing(first(1, "open", "/blobs/", libc::EMFILE));
    assert!(store.keep(b"content").is_err());
    let digest = store.keep(b"content").unwrap();
    assert_eq!(store.get(&digest).unwrap(), b"content");
}

#[test]
fn a_blob_that_the_medium_cannot_give_back_is_damage() {
    for errno in [libc::EIO, libc::EUCLEAN, libc::EBADMSG] {
        let (memory, store) = failing(first(4, "read_at", "/blobs/", errno));
        let digest = store.keep(b"content").unwrap();
        let error = store.get(&digest).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { digest: named, .. } if named == digest), "{error}");
        store.keep(b"content").unwrap();
        let error = store.restore_kept(&digest, Path::new("/out/file"), false).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        assert!(disk::names(&memory, Path::new("/out")).unwrap().is_empty());
        store.keep(b"content").unwrap();
        assert_eq!(store.get(&digest).unwrap(), b"content");
    }
}

#[test]
fn a_read_that_fails_once_is_no_damage() {
    let (memory, store) = failing(first(1, "read_at", "/blobs/", libc::EIO));
    let digest = store.keep(b"content").unwrap();
    assert_eq!(store.get(&digest).unwrap(), b"content");
    assert!(disk::names(&memory, Path::new("/store/quarantine")).unwrap().is_empty());
}

#[test]
fn a_read_that_fails_for_another_reason_is_an_error_and_no_damage() {
    let (memory, store) = failing(first(usize::MAX, "read_at", "/blobs/", libc::ENOMEM));
    let digest = store.keep(b"content").unwrap();
    let text = store.get(&digest).unwrap_err().to_string();
    assert_eq!(
        text,
        format!("cannot read {}: Cannot allocate memory (os error 12)", store.blobs.path(&digest).display())
    );
    assert!(memory.look(&store.blobs.path(&digest), Links::Refuse).is_ok());
}

#[test]
fn a_target_that_cannot_be_written_is_no_damage_of_the_blob() {
    let (_, store) = failing(first(1, "write_at", "/out/", libc::EIO));
    let digest = store.keep(b"content").unwrap();
    let error = store.restore_kept(&digest, Path::new("/out/file"), false).unwrap_err();
    assert!(matches!(error, StoreError::Disk(_)), "{error}");
    assert_eq!(store.get(&digest).unwrap(), b"content");
}

/// The folders that a killed process made, whose names it did not sync.
fn left_by_the_dead(folders: &[&str]) -> ForgetfulDisk {
    let disk = ForgetfulDisk::new();
    folders.iter().for_each(|folder| disk.create_dir(Path::new(folder), 0o700).unwrap());
    disk
}

#[test]
fn a_store_whose_folder_was_made_by_a_killed_process_survives_a_crash() {
    for folders in [&["/a"][..], &["/a", "/a/store"], &["/a", "/a/store", "/a/store/tmp"]] {
        let disk = left_by_the_dead(&folders[..1]);
        // Whoever makes anything in a folder has made that folder's name durable: so must the dead have done.
        for folder in &folders[1..] {
            disk::sync_name_of(&disk, disk::parent(Path::new(folder))).unwrap();
            disk.create_dir(Path::new(folder), 0o700).unwrap();
        }
        let store = Store::open_on(Arc::new(disk.clone()), Path::new("/a/store")).unwrap().with_small(0);
        let digest = store.keep(b"content").unwrap();
        for crashed in disk.crashes(64, 0) {
            let store = Store::open_on(Arc::new(crashed), Path::new("/a/store")).unwrap();
            assert_eq!(store.get(&digest).unwrap(), b"content");
        }
    }
}

#[test]
fn a_file_restored_into_a_folder_that_a_killed_process_made_survives_a_crash() {
    let disk = left_by_the_dead(&["/out"]);
    let store = Store::open_on(Arc::new(disk.clone()), Path::new("/store")).unwrap();
    let digest = store.keep(b"content").unwrap();
    // What opening the store synced is not what counts.
    disk.create_dir(Path::new("/out/deep"), 0o700).unwrap();
    store.restore_kept(&digest, Path::new("/out/deep/file"), false).unwrap();
    for crashed in disk.crashes(64, 0) {
        assert!(crashed.look(Path::new("/out/deep/file"), Links::Refuse).is_ok());
    }
}

#[test]
fn a_file_restored_into_a_folder_that_was_made_again_survives_a_crash() {
    let disk = ForgetfulDisk::new();
    let store = Store::open_on(Arc::new(disk.clone()), Path::new("/store")).unwrap();
    let digest = store.keep(b"content").unwrap();
    store.restore_kept(&digest, Path::new("/out/file"), false).unwrap();
    disk.rename(Path::new("/out"), Path::new("/away")).unwrap();
    store.restore_kept(&digest, Path::new("/out/file"), false).unwrap();
    for crashed in disk.crashes(64, 0) {
        assert!(crashed.look(Path::new("/out/file"), Links::Refuse).is_ok());
    }
}

#[test]
fn many_restored_files_are_made_durable_with_one_sync_and_few_one_by_one() {
    let syncs = |files: usize| {
        let disk = ForgetfulDisk::new();
        let syncs = Arc::new(Mutex::new(Vec::new()));
        let seen = syncs.clone();
        let watching = FailingDisk::new(Arc::new(disk.clone()), move |call: &Call| {
            let wanted = call.operation.starts_with("sync") && call.path.starts_with("/out");
            seen.lock().unwrap().extend(wanted.then_some(call.operation));
            None
        });
        let store = Store::open_on(Arc::new(watching), Path::new("/store")).unwrap();
        let digest = store.keep(b"content").unwrap();
        let paths: Vec<String> = (0..files).map(|number| format!("/out/{}/{number}", number % 2)).collect();
        paths.iter().for_each(|path| store.restore(&digest, Path::new(path), false).unwrap());
        syncs.lock().unwrap().clear();
        store.commit_restored().unwrap();
        for crashed in disk.crashes(64, 0) {
            let bytes = |path| crashed.look(Path::new(path), Links::Refuse).unwrap().bytes;
            assert!(paths.iter().all(|path| bytes(path) == 7));
        }
        syncs.lock().unwrap().clone()
    };
    assert_eq!(syncs(SYNCED_ALONE + 1), ["sync_file_system"]);
    assert_eq!(syncs(SYNCED_ALONE), vec!["sync"; SYNCED_ALONE + 2]);
}

#[test]
fn a_folder_that_was_made_for_restored_files_survives_any_crash_empty_or_not() {
    let disk = ForgetfulDisk::new();
    let store = Store::open_on(Arc::new(disk.clone()), Path::new("/store")).unwrap();
    store.make_folder(Path::new("/out/a/b")).unwrap();
    for crashed in disk.crashes(64, 0) {
        assert!(crashed.look(Path::new("/out/a/b"), Links::Refuse).is_ok());
    }
}

#[test]
fn what_is_restored_to_where_nothing_is_replaces_nothing() {
    let disk = ForgetfulDisk::new();
    let store = Store::open_on(Arc::new(disk.clone()), Path::new("/store")).unwrap();
    let (one, other) = (store.keep(b"one").unwrap(), store.keep(b"other").unwrap());
    let out = Path::new("/out/file");
    store.restore_new(&one, out, false).unwrap();
    let error = store.restore_new(&other, out, false).unwrap_err();
    assert_eq!(error.to_string(), "/out/file is there, and was not a moment ago: another program makes it");
    store.restore_new(&one, Path::new("/out/moved"), false).unwrap();
    assert!(!store.move_restored(Path::new("/out/moved"), out).unwrap());
    let bytes = |path| disk.look(Path::new(path), Links::Refuse).unwrap().bytes;
    assert_eq!([bytes("/out/file"), bytes("/out/moved")], [3, 3]);
    assert_eq!(disk.names(Path::new("/out")).unwrap().len(), 2);
}

#[test]
fn a_blob_whose_maker_died_before_its_name_was_durable_is_made_durable_by_who_needs_it() {
    let disk = ForgetfulDisk::at(Moment::now().seconds);
    let content = [7; 100_000];
    let (store, digest) = (Store::open_on(Arc::new(disk.clone()), Path::new("/store")).unwrap(), Digest::of(&content));
    let kill = |call: &Call| {
        let named = call.operation == "sync" && call.path.starts_with("/store/blobs");
        named.then_some(Fault::Killed)
    };
    let dying = FailingDisk::new(Arc::new(disk.clone()), kill);
    assert!(Store::open_on(Arc::new(dying), Path::new("/store")).unwrap().keep(&content).is_err());
    assert!(store.contains_for_good(&digest));
    store.commit().unwrap();
    for crashed in disk.crashes(64, 0) {
        let store = Store::open_on(Arc::new(crashed), Path::new("/store")).unwrap();
        assert_eq!(store.get(&digest).unwrap(), content);
    }
}

#[test]
fn a_format_file_that_goes_on_behind_what_is_read_of_it_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("format");
    let good = format!("headwater-store {}2\n", "0".repeat(64 - "headwater-store 2\n".len()));
    fs::write(&path, &good).unwrap();
    Store::open(folder.path()).unwrap();
    fs::write(&path, format!("{good}0000")).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert_eq!(error.to_string(), format!("{} is not the format file of a store", path.display()));
}

#[test]
fn trees_are_forgotten_before_they_are_too_many() {
    let mut trees = Trees::default();
    let tree = |names: usize| Arc::new(Tree { header: String::new(), entries: vec![entry("a", b""); names] });
    for number in 0..5u8 {
        trees.keep(Digest::of(&[number]), &tree(MAX_KNOWN_ENTRIES / 3));
        trees.keep(Digest::of(&[number]), &tree(MAX_KNOWN_ENTRIES / 3));
    }
    assert_eq!((trees.known.len(), trees.entries), (2, MAX_KNOWN_ENTRIES / 3 * 2));
    trees.keep(Digest::of(b"large"), &tree(MAX_KNOWN_ENTRIES + 1));
    assert_eq!(trees.known.len(), 1);
}

#[test]
fn only_what_the_store_has_intact_is_kept_by_it() {
    let bench = Bench::new();
    for content in [&b"small"[..], &[7; 100_000]] {
        let digest = bench.store.put(content).unwrap();
        assert!(bench.store.keeps(&digest).unwrap());
        assert!(!bench.store.keeps(&Digest::of(b"nothing")).unwrap());
    }
    let path = bench.store.blobs.path(&Digest::of(&[7; 100_000]));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&path, [8; 100_000]).unwrap();
    assert!(!bench.store.keeps(&Digest::of(&[7; 100_000])).unwrap());
}

#[test]
fn a_sync_of_restored_files_that_fails_is_an_error_that_names_where() {
    for (files, expected) in [(1, "cannot sync /out/0: "), (40, "cannot sync the file system of /out: ")] {
        let fail = |call: &Call| {
            let fails = call.operation.starts_with("sync") && call.path.starts_with("/out");
            fails.then_some(Fault::Error(libc::EIO))
        };
        let disk = ForgetfulDisk::new();
        disk.create_dir(Path::new("/out"), 0o700).unwrap();
        let store = Store::open_on(Arc::new(FailingDisk::new(Arc::new(disk), fail)), Path::new("/store")).unwrap();
        let digest = store.keep(b"content").unwrap();
        (0..files).for_each(|number| store.restore(&digest, Path::new(&format!("/out/{number}")), false).unwrap());
        let error = store.commit_restored().unwrap_err().to_string();
        assert_eq!(error, format!("{expected}Input/output error (os error 5)"));
        store.commit_restored().unwrap();
    }
}

#[test]
fn a_store_that_was_opened_says_what_it_is_after_any_crash() {
    for number in 0.. {
        let disk = ForgetfulDisk::new();
        // A first process dies somewhere while it makes the store.
        let dying = FailingDisk::failing_at(Arc::new(disk.clone()), number, Fault::Killed);
        let lived = Store::open_on(Arc::new(dying.clone()), Path::new("/store")).is_ok();
        Store::open_on(Arc::new(disk.clone()), Path::new("/store")).unwrap();
        for crashed in disk.crashes(64, number) {
            for name in ["format", "lock", "quarantine", "blobs", "segments", "tmp"] {
                let found = crashed.look(&Path::new("/store").join(name), Links::Refuse);
                assert!(found.is_ok(), "{name} is gone, killed before call {number}");
            }
        }
        if lived && dying.first_failure().is_none() {
            break;
        }
    }
}

#[test]
fn a_folder_above_that_may_not_be_read_does_not_keep_a_store_from_being_made() {
    let deny =
        |call: &Call| (call.operation == "open" && call.path == Path::new("/")).then_some(Fault::Error(libc::EACCES));
    let disk = FailingDisk::new(Arc::new(left_by_the_dead(&["/home"])), deny);
    Store::open_on(Arc::new(disk), Path::new("/home/store")).unwrap();
}

#[test]
fn many_threads_and_stores_put_the_same_and_get_it() {
    let bench = Bench::new();
    let other = Store::open(bench.store.root()).unwrap().with_small(0);
    std::thread::scope(|scope| {
        for store in [&bench.store, &other, &bench.store, &other] {
            scope.spawn(move || {
                for i in 0..20u8 {
                    let content = [i; 100];
                    let digest = store.keep(&content).unwrap();
                    assert_eq!(store.get(&digest).unwrap(), content);
                }
            });
        }
    });
    assert_eq!(bench.store.with_prefix("").unwrap().len(), 20);
    assert!(bench.quarantined().is_empty());
}

/// A store beside a file of 70 MB, on a disk where of the syncs of temps those fail that are chosen by their numbers, and how
/// many there were.
fn large_file(fails: impl Fn(usize) -> bool + Send + Sync + 'static) -> (tempfile::TempDir, Store, Arc<AtomicUsize>) {
    let folder = tempfile::tempdir().unwrap();
    fs::File::create(folder.path().join("large")).unwrap().set_len(70 << 20).unwrap();
    Store::open(&folder.path().join("store")).unwrap();
    let syncs = Arc::new(AtomicUsize::new(0));
    let count = syncs.clone();
    let disk = FailingDisk::new(Arc::new(RealDisk), move |call: &Call| {
        let chosen = call.operation == "sync" && call.path.to_string_lossy().contains("/store/tmp/");
        (chosen && fails(count.fetch_add(1, Ordering::SeqCst))).then_some(Fault::Error(libc::EIO))
    });
    let store = Store::open_on(Arc::new(disk), &folder.path().join("store")).unwrap();
    (folder, store, syncs)
}

#[test]
fn a_large_file_is_synced_while_it_is_put_and_when_it_is_committed() {
    let (folder, store, syncs) = large_file(|_| false);
    let (digest, bytes) = store.put_file(&folder.path().join("large")).unwrap();
    assert_eq!((bytes, syncs.load(Ordering::SeqCst)), (70 << 20, 1));
    store.commit().unwrap();
    assert_eq!(syncs.load(Ordering::SeqCst), 2);
    assert_eq!(store.put(&vec![0; 70 << 20]).unwrap(), digest);
    assert!(store.contains(&digest));
}

#[test]
fn a_sync_that_fails_while_a_large_file_is_put_costs_that_put_and_no_other() {
    let (folder, store, _) = large_file(|number| number == 0);
    let error = store.put_file(&folder.path().join("large")).unwrap_err().to_string();
    assert!(error.starts_with("cannot sync ") && error.ends_with(".tmp: Input/output error (os error 5)"), "{error}");
    assert_eq!(fs::read_dir(folder.path().join("store/tmp")).unwrap().count(), 0);
    let (digest, _) = store.keep_file(&folder.path().join("large")).unwrap();
    assert!(store.contains(&digest));
}

#[test]
fn while_one_thread_commits_others_put_and_do_not_commit_again_what_it_made_durable() {
    let (entered, waits) = mpsc::channel();
    let (go_on, told) = mpsc::channel::<()>();
    let (told, syncs) = (Mutex::new(told), Arc::new(AtomicUsize::new(0)));
    let count = syncs.clone();
    let (_, store) = failing(move |call| {
        let chosen = call.operation == "sync" && call.path.extension().is_some_and(|suffix| suffix == "seg");
        if chosen && count.fetch_add(1, Ordering::SeqCst) == 0 {
            entered.send(()).unwrap();
            told.lock().unwrap().recv_timeout(Duration::from_secs(60)).unwrap();
        }
        None
    });
    let store = store.with_small(2 << 20);
    let blob = |number: u8| vec![number; 1 << 20];
    let put = |numbers: std::ops::Range<u8>| numbers.for_each(|number| assert!(store.put(&blob(number)).is_ok()));
    std::thread::scope(|scope| {
        scope.spawn(|| put(0..17));
        waits.recv_timeout(Duration::from_secs(60)).expect("so much is committed at once");
        let (done, others) = mpsc::channel();
        scope.spawn(move || {
            put(17..27);
            done.send(()).unwrap();
        });
        others.recv_timeout(Duration::from_secs(60)).expect("the others do not wait");
        go_on.send(()).unwrap();
    });
    assert_eq!(syncs.load(Ordering::SeqCst), 1);
    store.commit().unwrap();
    (0..27).for_each(|number| assert_eq!(store.get(&Digest::of(&blob(number))).unwrap(), blob(number)));
}

#[test]
fn many_threads_that_find_one_damaged_blob_never_see_its_bytes() {
    let bench = Bench::new();
    let digest = bench.damaged(b"content", b"CONTENT");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| match bench.store.get(&digest) {
                Ok(bytes) => assert_eq!(bytes, b"content"),
                Err(StoreError::Damaged { .. } | StoreError::Missing { .. }) => {
                    bench.store.keep(b"content").unwrap();
                }
                Err(error) => panic!("{error}"),
            });
        }
    });
    assert_eq!(bench.store.get(&digest).unwrap(), b"content");
    assert_eq!(bench.quarantined().len(), 1);
}

#[test]
fn a_store_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Store>();
}

#[test]
fn locks_that_keep_nobody_out_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    let feigning = FailingDisk::new(Arc::new(RealDisk), |call| (call.operation == "lock").then_some(Fault::Feigned));
    let feigning: Arc<dyn Disk> = Arc::new(feigning);
    let lock = root.join("lock");
    let told = format!(
        "locks keep nobody out on the file system of {}, so that programs could destroy each other's work; keep the store on \
         another: HEADWATER_STORE, or `path` in [store]",
        lock.display()
    );
    assert_eq!(Store::open_on(Arc::clone(&feigning), &root).unwrap_err().to_string(), told);
    assert_eq!(Store::open_alone(feigning, &root).unwrap_err().to_string(), told);
    Store::open(&root).unwrap();
}

#[test]
fn a_second_lock_that_is_an_error_says_nothing_of_locks() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    drop(Store::open(&root).unwrap());
    let locks = AtomicUsize::new(0);
    let failing = FailingDisk::new(Arc::new(RealDisk), move |call| {
        let second = call.operation == "lock" && locks.fetch_add(1, Ordering::SeqCst) == 1;
        second.then_some(Fault::Error(libc::EBADF))
    });
    Store::open_on(Arc::new(failing.clone()), &root).unwrap();
    assert_eq!(failing.first_failure().unwrap().path, root.join("lock"));
}
