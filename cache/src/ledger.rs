//! `Ledger`: which outputs a key produced, and what that cost.
//!
//! Does not know what a key is made of, nor whether the blobs that a record names can still be produced: ask
//! [`Store::holds`] before relying on one.
//!
//! Records are entries of the store's segments, beside the small blobs, so that both become durable with one sync.
//!
//! Invariants: a record that [`Ledger::get`] returns was written whole, is durable, and so is all that was put before it;
//! of several records of a key the last that was written wins, also while it is being written; damage costs the records
//! it hits and no others, and is never an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::digest::{Digest, LENGTH};
use crate::disk::DiskError;
use crate::entry::{Kind, MAX_PAYLOAD};
use crate::segments::{Found, NewEntry, SegmentError};
use crate::store::{Store, StoreError};
use crate::threads::aside;
use crate::tree::Artifact;

const MAGIC: [u8; 4] = *b"HWRC";
const VERSION: u32 = 1;

/// What a key produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Output port and artifact, in the order of the ports.
    pub outputs: Vec<(String, Artifact)>,
    /// The manifest whose digest is the key.
    pub manifest: String,
    /// What it took to produce, in seconds.
    pub seconds: f64,
}

/// What a key produced, without the manifest: what is asked for of every cached node.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// Output port and artifact, in the order of the ports.
    pub outputs: Vec<(String, Artifact)>,
    /// What it took to produce, in seconds.
    pub seconds: f64,
}

/// A record of which the manifest is not copied.
#[derive(Deserialize)]
struct Skimmed<'a> {
    outputs: Vec<(String, Artifact)>,
    #[serde(rename = "manifest", borrow)]
    _manifest: &'a str,
    seconds: f64,
}

/// Why the ledger cannot be read or appended to. Damage is not among the reasons.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// A segment cannot be read.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The blobs before the record, or the record, cannot be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The record cannot be encoded.
    #[error("the record cannot be written: {0}")]
    Encode(#[from] CodecError),
}

/// The records of a store. Nothing is kept of what was read: of each key the last record is given, whoever wrote it.
///
/// Used from many threads at once; several processes may have the same store open.
#[derive(Debug)]
pub struct Ledger {
    store: Arc<Store>,
    /// How much of others' the segments had met at the last refresh.
    met: AtomicU64,
}

impl Ledger {
    /// The ledger of a store.
    pub fn of(store: &Arc<Store>) -> Ledger {
        Ledger { store: store.clone(), met: store.segments().met().into() }
    }

    /// Reads what other processes have appended; gives whether anything of theirs has come in since the last refresh,
    /// by this call or otherwise.
    ///
    /// # Errors
    /// If a segment cannot be read, or is of a newer format. Damage is reported by [`Ledger::damage`].
    pub fn refresh(&self) -> Result<bool, LedgerError> {
        let met = self.store.segments().refresh()?;
        Ok(self.met.swap(met, Ordering::AcqRel) != met)
    }

    /// What the last records of many keys say was made, where the keys stand; of a key that stands more than once, at the
    /// first. They are read together: a million one by one take several times as long.
    pub fn load(&self, keys: &[Option<Digest>]) -> Vec<Option<Made>> {
        let wanted = keys.iter().enumerate().filter_map(|(at, key)| Some(((*key)?, at)));
        let mut wanted: Vec<(Digest, usize)> = wanted.collect();
        aside(|| wanted.par_sort_unstable());
        wanted.dedup_by_key(|(key, _)| *key);
        let names: Vec<Digest> = wanted.iter().map(|(key, _)| *key).collect();
        let take = |name: &Digest, payload: &[u8]| Some((*name, made_of(name, payload)?));
        let mut found = self.store.segments().read_together(Kind::Record, &names, take);
        aside(|| found.par_sort_unstable_by_key(|(key, _)| *key));
        let mut loaded = vec![None; keys.len()];
        let mut places = wanted.into_iter();
        for (key, made) in found {
            let place = places.find(|(wanted, _)| *wanted == key);
            let (_, at) = place.expect("what was found was wanted, and both are sorted");
            loaded[at] = Some(made);
        }
        loaded
    }

    /// The last record of `key`. One that cannot be read is none.
    pub fn get(&self, key: &Digest) -> Option<Record> {
        decode_of(key, &self.payload(key).ok()??)
    }

    /// What the last record of `key` says was made. One that cannot be read is none.
    pub fn made(&self, key: &Digest) -> Option<Made> {
        made_of(key, &self.payload(key).ok()??)
    }

    /// [`Ledger::get`] for who removes what no record names: one that is damaged is none, one that cannot be read now may be
    /// one.
    pub(crate) fn read(&self, key: &Digest) -> Result<Option<Record>, StoreError> {
        Ok(self.payload(key)?.and_then(|payload| decode_of(key, &payload)))
    }

    fn payload(&self, key: &Digest) -> Result<Option<Vec<u8>>, DiskError> {
        Ok(match self.store.segments().read(Kind::Record, key)? {
            Found::Payload(payload) => Some(payload),
            Found::Nothing | Found::Damaged(_) => None,
        })
    }

    /// Commits what was put into the store before, and then appends records: when this returns all of it is durable, and
    /// only then [`Ledger::get`] finds them.
    ///
    /// # Errors
    /// If anything of it cannot be written and synced, or a blob that a record names could not be; those records are found then that were written before a write that
    /// failed, as soon as they are durable.
    pub fn append(&self, records: &[(Digest, Record)]) -> Result<(), LedgerError> {
        let shared: Vec<_> = records.iter().map(|(key, record)| (*key, Arc::new(record.clone()))).collect();
        self.append_shared(&shared)
    }

    /// [`Ledger::append`] of records that somebody else holds too.
    ///
    /// # Errors
    /// As [`Ledger::append`].
    pub fn append_shared(&self, records: &[(Digest, Arc<Record>)]) -> Result<(), LedgerError> {
        let outputs: Vec<_> = records.iter().flat_map(|(_, record)| &record.outputs).map(|(_, made)| made).collect();
        let encoded: Vec<Vec<u8>> =
            records.iter().map(|(key, record)| encode(key, record)).collect::<Result<_, _>>()?;
        let entry = |((key, _), payload): (&(Digest, Arc<Record>), _)| NewEntry::new(Kind::Record, *key, payload);
        let entries: Vec<NewEntry> = records.iter().zip(encoded.iter().map(Vec::as_slice)).map(entry).collect();
        Ok(self.store.commit_with(&entries, &outputs)?)
    }

    /// Number of keys that have a record.
    pub fn len(&self) -> usize {
        self.store.segments().names(Kind::Record).len()
    }

    /// Whether no key has a record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was skipped as damaged since the store was opened, as a sentence; `None` if nothing was.
    pub fn damage(&self) -> Option<String> {
        let damage = self.store.segments().damage();
        (!damage.is_empty()).then(|| damage.join("; "))
    }
}

fn encode(key: &Digest, record: &Record) -> Result<Vec<u8>, CodecError> {
    codec::encode::<MAX_PAYLOAD>(MAGIC, VERSION, &(key, record))
}

/// The record in a payload, if it is one of this key.
fn decode_of<'a, T: Deserialize<'a>>(key: &Digest, payload: &'a [u8]) -> Option<T> {
    // The key stands first, and as it is: compared there, a million need not be decoded.
    let stands_first = payload.get(codec::HEADER..)?.starts_with(key.as_bytes());
    let decoded = stands_first.then(|| codec::decode_after::<MAX_PAYLOAD, _>(MAGIC, VERSION, payload, LENGTH));
    decoded?.ok()
}

fn made_of(key: &Digest, payload: &[u8]) -> Option<Made> {
    let Skimmed { outputs, seconds, .. } = decode_of(key, payload)?;
    Some(Made { outputs, seconds })
}

#[cfg(test)]
fn decode(payload: &[u8]) -> Result<(Digest, Record), CodecError> {
    codec::decode::<MAX_PAYLOAD, _>(MAGIC, VERSION, payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Call, FailingDisk, Fault, ForgetfulDisk, RealDisk};
    use crate::tree::{Entry, Shape, Tree};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Barrier, Mutex, OnceLock};

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn open(root: &Path) -> Ledger {
        Ledger::of(&Arc::new(Store::open(root).unwrap()))
    }

    /// The one segment that there is.
    fn file(root: &tempfile::TempDir) -> PathBuf {
        let found = fs::read_dir(root.path().join("segments")).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> = found.filter(|path| path.extension().is_some_and(|end| end == "seg")).collect();
        assert_eq!(found.len(), 1);
        found.remove(0)
    }

    fn key(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn record(name: &str) -> Record {
        let artifact = Artifact {
            type_name: "file".to_owned(),
            shape: Shape::Blob,
            digest: Digest::of(name.as_bytes()),
            bytes: name.len() as u64,
        };
        Record {
            outputs: vec![("out".to_owned(), artifact)],
            manifest: format!("kind test\nname {name}\n"),
            seconds: 1.5,
        }
    }

    fn made(name: &str) -> Made {
        let Record { outputs, seconds, .. } = record(name);
        Made { outputs, seconds }
    }

    fn filled(names: &[&str]) -> tempfile::TempDir {
        let root = folder();
        let ledger = open(root.path());
        for name in names {
            ledger.append(&[(key(name), record(name))]).unwrap();
        }
        root
    }

    /// How many of `names` the ledger has; fails if it has any of them wrong, or anything else.
    fn held(root: &tempfile::TempDir, names: &[&str]) -> usize {
        let ledger = open(root.path());
        let mut held = 0;
        for name in names {
            if let Some(found) = ledger.get(&key(name)) {
                assert_eq!(found, record(name));
                held += 1;
            }
        }
        // What is damaged may be counted until it is read.
        assert!(ledger.len() >= held && ledger.len() <= names.len());
        held
    }

    #[test]
    fn no_record_is_written_of_a_blob_that_somebody_elses_commit_could_not_sync() {
        let armed = Arc::new(AtomicBool::new(false));
        let once = armed.clone();
        let fail = move |call: &Call| {
            let of_blob = call.operation == "sync" && call.path.extension().is_some_and(|end| end == "tmp");
            (of_blob && once.swap(false, Ordering::SeqCst)).then_some(Fault::Error(libc::EIO))
        };
        let disk = FailingDisk::new(Arc::new(ForgetfulDisk::new()), fail);
        let store = Arc::new(Store::open_on(Arc::new(disk), Path::new("/store")).unwrap().with_small(8));
        let ledger = Ledger::of(&store);
        let content = vec![7; 100];
        let blob = store.put(&content).unwrap();
        let entries = vec![Entry {
            name: "part".to_owned(),
            type_name: "file".to_owned(),
            shape: Shape::Blob,
            digest: blob,
            bytes: 100,
        }];
        let tree = Tree { header: String::new(), entries };
        let digest = store.put_tree(&tree).unwrap();
        let output = Artifact { type_name: "frame".to_owned(), shape: Shape::Tree, digest, bytes: 100 };
        let record = Record { outputs: vec![("out".to_owned(), output)], manifest: "m".to_owned(), seconds: 1.0 };
        armed.store(true, Ordering::SeqCst);
        assert!(store.commit().is_err());
        let records = [(Digest::of(b"m"), record)];
        let error = ledger.append(&records).unwrap_err();
        assert_eq!(error.to_string(), format!("blob {digest} is not in the store"));
        assert_eq!(ledger.get(&records[0].0), None);
        store.put(&content).and_then(|_| store.put_tree(&tree)).unwrap();
        ledger.append(&records).unwrap();
        assert!(ledger.get(&records[0].0).is_some());
    }

    #[test]
    fn a_record_is_there_at_once_and_after_reopening() {
        let root = folder();
        let ledger = open(root.path());
        ledger.append(&[(key("a"), record("a"))]).unwrap();
        assert_eq!(ledger.get(&key("a")).unwrap(), record("a"));
        assert_eq!(held(&root, &["a"]), 1);
    }

    #[test]
    fn an_encoding_never_changes_within_a_version() {
        let bytes = encode(&key("a"), &record("a")).unwrap();
        assert_eq!(Digest::of(&bytes).to_string(), "602dba5b41bc961cddb07033f78d81ef27d1664be5cff567c39b8113c2b9209b");
    }

    #[test]
    fn the_last_record_of_a_key_wins() {
        let root = folder();
        let ledger = open(root.path());
        ledger.append(&[(key("a"), record("first"))]).unwrap();
        ledger.append(&[(key("a"), record("second"))]).unwrap();
        for ledger in [ledger, open(root.path())] {
            assert_eq!(ledger.get(&key("a")).unwrap(), record("second"));
            assert_eq!(ledger.len(), 1);
        }
    }

    #[test]
    fn a_flipped_bit_never_makes_a_wrong_record() {
        let names = ["a", "b", "c"];
        let root = filled(&names);
        let good = fs::read(file(&root)).unwrap();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            fs::write(file(&root), &bytes).unwrap();
            let _ = fs::remove_file(file(&root).with_extension("idx"));
            assert!(held(&root, &names) >= 2, "bit {bit}");
        }
    }

    #[test]
    fn a_truncation_never_makes_a_wrong_record() {
        let names = ["a", "b", "c"];
        let root = filled(&names);
        let good = fs::read(file(&root)).unwrap();
        let mut last = 0;
        for length in 0..=good.len() {
            fs::write(file(&root), &good[..length]).unwrap();
            let held = held(&root, &names);
            assert!(held >= last, "cut at {length}");
            last = held;
        }
        assert_eq!(last, 3);
    }

    #[test]
    fn two_handles_on_one_folder_lose_nothing() {
        let root = folder();
        let names: Vec<String> = (0..40).map(|i| format!("record {i}")).collect();
        std::thread::scope(|scope| {
            for half in names.chunks(10) {
                let root = root.path();
                scope.spawn(move || {
                    let ledger = open(root);
                    for name in half {
                        ledger.append(&[(key(name), record(name))]).unwrap();
                    }
                });
            }
        });
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(held(&root, &names), 40);
        assert_eq!(open(root.path()).damage(), None);
    }

    #[test]
    fn one_handle_takes_appends_from_many_threads() {
        let root = folder();
        let ledger = open(root.path());
        std::thread::scope(|scope| {
            for name in ["a", "b", "c", "d"] {
                let ledger = &ledger;
                scope.spawn(move || ledger.append(&[(key(name), record(name))]).unwrap());
            }
        });
        assert_eq!(held(&root, &["a", "b", "c", "d"]), 4);
    }

    #[test]
    fn a_refresh_finds_what_another_process_appended() {
        let root = folder();
        let ledger = open(root.path());
        let other = open(root.path());
        other.append(&[(key("a"), record("a"))]).unwrap();
        assert_eq!(ledger.get(&key("a")), None);
        ledger.refresh().unwrap();
        assert_eq!(ledger.get(&key("a")).unwrap(), record("a"));
    }

    #[test]
    fn records_loaded_together_are_those_that_are_read_one_by_one() {
        let root = folder();
        let names: Vec<String> =
            (0..5000).map(|number| format!("record {number} {}", "x".repeat(number % 700))).collect();
        let ledger = open(root.path());
        for names in names.chunks(500) {
            let records: Vec<_> = names.iter().map(|name| (key(name), record(name))).collect();
            ledger.append(&records).unwrap();
        }
        let ledger = open(root.path());
        let wanted = |(at, name): (usize, &String)| (at % 3 == 0).then(|| key(name));
        let mut keys: Vec<Option<Digest>> = names.iter().enumerate().map(wanted).collect();
        keys.extend([Some(key("unknown")), keys[0]]);
        let loaded = ledger.load(&keys);
        let told = |(at, name): (usize, &String)| (at % 3 == 0).then(|| made(name));
        // Of two equal keys the first has it.
        let expected = names.iter().enumerate().map(told).chain([None, None]);
        assert_eq!(loaded, expected.collect::<Vec<_>>());
        assert!(names.iter().step_by(3).all(|name| ledger.made(&key(name)) == Some(made(name))));
    }

    #[test]
    fn a_damaged_record_is_left_out_of_those_that_are_loaded_together() {
        let names = ["a", "b", "c"];
        let root = filled(&names);
        let ledger = open(root.path());
        let mut bytes = fs::read(file(&root)).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(file(&root), bytes).unwrap();
        let loaded = ledger.load(&names.map(|name| Some(key(name))));
        assert_eq!(loaded.iter().flatten().count(), 2);
        assert!(loaded.into_iter().zip(names).all(|(found, name)| found.is_none_or(|found| found == made(name))));
    }

    #[test]
    fn a_refresh_tells_whether_there_is_anything_new() {
        let root = folder();
        let (ledger, other) = (open(root.path()), open(root.path()));
        assert!(!ledger.refresh().unwrap());
        other.append(&[(key("a"), record("a"))]).unwrap();
        assert_eq!([ledger.refresh().unwrap(), ledger.refresh().unwrap()], [true, false]);
        ledger.append(&[(key("b"), record("b"))]).unwrap();
        assert!(!ledger.refresh().unwrap());
    }

    /// A ledger on a disk that calls `once` when a segment is read the next time after it was armed.
    fn interrupted(root: &Path, once: impl Fn(&Ledger) + Send + Sync + 'static) -> (Arc<Ledger>, impl Fn()) {
        let (armed, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(OnceLock::<Arc<Ledger>>::new()));
        let (arms, calls) = (armed.clone(), opened.clone());
        let disk = FailingDisk::new(Arc::new(RealDisk), move |call| {
            let of_segment = call.path.extension().is_some_and(|end| end == "seg");
            if call.operation == "read_at" && of_segment && armed.swap(false, Ordering::SeqCst) {
                once(calls.get().expect("it is open"));
            }
            None
        });
        let ledger = Arc::new(Ledger::of(&Arc::new(Store::open_on(Arc::new(disk), root).unwrap())));
        opened.set(ledger.clone()).unwrap();
        (ledger, move || arms.store(true, Ordering::SeqCst))
    }

    #[test]
    fn a_record_that_is_written_while_the_one_before_is_read_is_the_one_that_is_found() {
        let ways: [fn(&Ledger); 2] =
            [|ledger| drop(ledger.made(&key("a"))), |ledger| drop(ledger.load(&[Some(key("a")), Some(key("b"))]))];
        for read in ways {
            let root = filled(&["a", "b"]);
            let (ledger, arm) =
                interrupted(root.path(), |ledger| ledger.append(&[(key("a"), record("second"))]).unwrap());
            arm();
            read(&ledger);
            assert_eq!(ledger.made(&key("a")).unwrap(), made("second"));
        }
    }

    #[test]
    fn a_record_of_another_process_that_comes_while_the_one_before_is_read_is_the_one_that_is_found() {
        let root = filled(&["a"]);
        let other = Mutex::new(Some(open(root.path())));
        let (ledger, arm) = interrupted(root.path(), move |ledger| {
            let other = other.lock().unwrap().take().unwrap();
            other.append(&[(key("a"), record("second"))]).unwrap();
            assert!(ledger.refresh().unwrap());
        });
        arm();
        assert_eq!(ledger.made(&key("a")).unwrap(), made("a"));
        assert_eq!(ledger.made(&key("a")).unwrap(), made("second"));
    }

    #[test]
    fn of_two_records_appended_at_once_the_one_that_is_found_is_the_one_that_is_found_later() {
        let root = folder();
        let ledger = open(root.path());
        for round in 0..200 {
            let barrier = Barrier::new(2);
            std::thread::scope(|scope| {
                for name in ["first", "second"] {
                    let (ledger, barrier) = (&ledger, &barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        ledger.append(&[(key(&round.to_string()), record(name))]).unwrap();
                    });
                }
            });
        }
        let later = open(root.path());
        for round in (0..200).map(|round| key(&round.to_string())) {
            assert_eq!(ledger.made(&round), later.made(&round));
        }
    }

    #[test]
    fn a_refresh_tells_of_records_that_came_in_when_a_segment_was_taken_over() {
        let root = folder();
        let other = open(root.path());
        other.append(&[(key("a"), record("a"))]).unwrap();
        let ledger = open(root.path());
        assert_eq!(ledger.made(&key("a")).unwrap(), made("a"));
        other.append(&[(key("a"), record("second")), (key("b"), record("b"))]).unwrap();
        drop(other);
        // What the other process held is free, and goes on with this.
        ledger.append(&[(key("c"), record("c"))]).unwrap();
        assert_eq!([ledger.refresh().unwrap(), ledger.refresh().unwrap()], [true, false]);
        assert_eq!(ledger.made(&key("a")).unwrap(), made("second"));
        assert_eq!(ledger.made(&key("b")).unwrap(), made("b"));
        // Else it would not have been taken over.
        assert!(file(&root).exists());
    }

    #[test]
    fn a_record_over_the_limit_is_refused_and_nothing_is_written() {
        let root = folder();
        let ledger = open(root.path());
        let huge = Record { manifest: "x".repeat(MAX_PAYLOAD), ..record("a") };
        let error = ledger.append(&[(key("a"), huge)]).unwrap_err().to_string();
        assert!(error.starts_with("the record cannot be written: the data has 67108"), "{error}");
        assert!(error.ends_with(" bytes, the limit is 67108864"), "{error}");
        assert!(ledger.is_empty());
        assert_eq!(fs::read_dir(root.path().join("segments")).unwrap().count(), 0);
    }

    #[test]
    fn a_record_makes_durable_what_was_put_before_it() {
        let disk = crate::disk::ForgetfulDisk::new();
        let store = Arc::new(Store::open_on(Arc::new(disk.clone()), Path::new("/store")).unwrap().with_small(8));
        let (small, large) = (store.put(b"small").unwrap(), store.put(b"a large blob").unwrap());
        Ledger::of(&store).append(&[(key("a"), record("a"))]).unwrap();
        for crashed in disk.crashes(64, 0) {
            let store = Arc::new(Store::open_on(Arc::new(crashed), Path::new("/store")).unwrap());
            assert_eq!(Ledger::of(&store).get(&key("a")).unwrap(), record("a"));
            assert_eq!(store.get(&small).unwrap(), b"small");
            assert_eq!(store.get(&large).unwrap(), b"a large blob");
        }
    }

    #[test]
    fn an_intact_entry_that_is_no_record_is_none() {
        let root = folder();
        let store = Arc::new(Store::open(root.path()).unwrap());
        let payload = b"HWRC\x02\0\0\0 of the future";
        store.commit_with(&[NewEntry::new(Kind::Record, key("a"), payload)], &[]).unwrap();
        assert_eq!(Ledger::of(&store).get(&key("a")), None);
    }

    fn any_artifact() -> impl Strategy<Value = Artifact> {
        let shape = prop_oneof![Just(Shape::Blob), Just(Shape::Tree)];
        (".*", shape, any::<[u8; 32]>(), any::<u64>()).prop_map(|(type_name, shape, digest, bytes)| Artifact {
            type_name,
            shape,
            digest: Digest::from_bytes(digest),
            bytes,
        })
    }

    fn any_record() -> impl Strategy<Value = Record> {
        let number = proptest::num::f64::NORMAL | proptest::num::f64::ZERO;
        (vec((".*", any_artifact()), 0..5), ".*", number).prop_map(|(outputs, manifest, seconds)| Record {
            outputs,
            manifest,
            seconds,
        })
    }

    proptest! {
        #[test]
        fn a_record_round_trips(key: [u8; 32], record in any_record()) {
            let key = Digest::from_bytes(key);
            let bytes = encode(&key, &record).unwrap();
            prop_assert_eq!(decode(&bytes), Ok((key, record)));
        }

        #[test]
        fn any_payload_decodes_without_panic(body in vec(any::<u8>(), 0..200)) {
            let _ = decode(&[&b"HWRC\x01\0\0\0"[..], &body].concat());
        }
    }
}
