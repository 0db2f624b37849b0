//! `Ledger`: which outputs a key produced, and what that cost.
//!
//! Does not know what a key is made of, nor whether the blobs that a record names can still be produced: ask
//! [`Store::holds`](crate::Store::holds) before relying on one.
//!
//! Records are entries of the segment `ledger/records-v1.seg` (see the crate's documentation for its layout).
//!
//! Invariants: a record that [`Ledger::get`] returns was written whole and is durable; of several records of a key
//! the last in the file wins; damage costs the records it hits and no others, and is never an error.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::digest::Digest;
use crate::disk::{Disk, RealDisk};
use crate::segment::{Kind, MAX_PAYLOAD, Segment, SegmentError};
use crate::tree::Artifact;

const FILE: &str = "ledger/records-v1.seg";
const SEGMENT: Kind = Kind { name: *b"HWLEDGER", version: 1 };
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

/// Why the ledger cannot be read or appended to. Damage is not among the reasons.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The file cannot be read or written, or is of another format.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The record cannot be encoded.
    #[error("the record cannot be written: {0}")]
    Encode(#[from] CodecError),
}

/// All records of a folder, in memory, and the file that they are appended to.
///
/// Used from many threads at once; several processes may have the same folder open.
#[derive(Debug)]
pub struct Ledger {
    segment: Mutex<Segment>,
    records: RwLock<HashMap<Digest, Arc<Record>>>,
}

impl Ledger {
    /// Reads all records below `root`, the folder of a store. A missing file is an empty ledger and is made by the
    /// first append.
    ///
    /// # Errors
    /// If the file cannot be read, or is of a newer format. Damage is reported by [`Ledger::damage`].
    pub fn open(root: &Path) -> Result<Ledger, LedgerError> {
        Ledger::open_on(Arc::new(RealDisk), root)
    }

    /// [`Ledger::open`] on another disk than that of the operating system.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn open_on(disk: Arc<dyn Disk>, root: &Path) -> Result<Ledger, LedgerError> {
        let segment = Segment::new(disk, root.join(FILE), SEGMENT);
        let ledger = Ledger { segment: Mutex::new(segment), records: RwLock::default() };
        ledger.refresh()?;
        Ok(ledger)
    }

    /// Reads what other processes have appended since.
    ///
    /// # Errors
    /// As [`Ledger::open`].
    pub fn refresh(&self) -> Result<(), LedgerError> {
        let mut segment = self.segment.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = Vec::new();
        let done = segment.catch_up(&mut |payload| collect(payload, &mut fresh));
        self.learn(fresh);
        Ok(done?)
    }

    /// The last record of `key`.
    pub fn get(&self, key: &Digest) -> Option<Arc<Record>> {
        let records = self.records.read().unwrap_or_else(PoisonError::into_inner);
        records.get(key).cloned()
    }

    /// Commits all that was put before, then appends the records of these keys with one sync: when this returns they
    /// are durable, and only then [`Ledger::get`] finds them.
    ///
    /// # Errors
    /// If they cannot be written and synced: none of them is found then. After a failed sync every later append is
    /// refused.
    pub fn append(&self, records: &[(Digest, Record)]) -> Result<(), LedgerError> {
        let payloads: Result<Vec<_>, _> = records.iter().map(|(key, record)| encode(key, record)).collect();
        let payloads = payloads?;
        let mut segment = self.segment.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fresh = Vec::new();
        let done = segment.append_all(&payloads, &mut |payload| collect(payload, &mut fresh));
        if done.is_ok() {
            fresh.extend(records.iter().map(|(key, record)| (*key, Arc::new(record.clone()))));
        }
        // While the segment is held, so that the order in memory is the order in the file.
        self.learn(fresh);
        Ok(done?)
    }

    /// Number of keys that have a record.
    pub fn len(&self) -> usize {
        self.records.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether no key has a record.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What was skipped as damaged since the ledger was opened, as a sentence; `None` if nothing was.
    pub fn damage(&self) -> Option<String> {
        let segment = self.segment.lock().unwrap_or_else(PoisonError::into_inner);
        let path = segment.path().display();
        match segment.skipped() {
            0 => None,
            bytes => Some(format!("{path}: {bytes} damaged bytes were skipped")),
        }
    }

    fn learn(&self, fresh: Vec<(Digest, Arc<Record>)>) {
        let mut records = self.records.write().unwrap_or_else(PoisonError::into_inner);
        records.extend(fresh);
    }
}

fn encode(key: &Digest, record: &Record) -> Result<Vec<u8>, CodecError> {
    codec::encode::<MAX_PAYLOAD>(MAGIC, VERSION, &(key, record))
}

fn decode(payload: &[u8]) -> Result<(Digest, Record), CodecError> {
    codec::decode::<MAX_PAYLOAD, _>(MAGIC, VERSION, payload)
}

/// Whether the payload was a record.
fn collect(payload: &[u8], fresh: &mut Vec<(Digest, Arc<Record>)>) -> bool {
    let decoded = decode(payload);
    let good = decoded.is_ok();
    fresh.extend(decoded.map(|(key, record)| (key, Arc::new(record))));
    good
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Call, FailingDisk, Fault, ForgetfulDisk};
    use crate::tree::Shape;
    use proptest::collection::vec;
    use proptest::prelude::*;
    use std::fs;
    use std::io::Write;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn file(root: &tempfile::TempDir) -> PathBuf {
        root.path().join(FILE)
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

    fn filled(names: &[&str]) -> tempfile::TempDir {
        let root = folder();
        let ledger = Ledger::open(root.path()).unwrap();
        for name in names {
            ledger.append(&[(key(name), record(name))]).unwrap();
        }
        root
    }

    /// How many of `names` the ledger has; fails if it has any of them wrong, or anything else.
    fn held(root: &tempfile::TempDir, names: &[&str]) -> usize {
        let ledger = Ledger::open(root.path()).unwrap();
        let mut held = 0;
        for name in names {
            if let Some(found) = ledger.get(&key(name)) {
                assert_eq!(*found, record(name));
                held += 1;
            }
        }
        assert_eq!(ledger.len(), held);
        held
    }

    #[test]
    fn a_new_folder_has_an_empty_ledger_and_stays_untouched() {
        let root = folder();
        let ledger = Ledger::open(root.path()).unwrap();
        assert!(ledger.is_empty());
        assert_eq!(ledger.damage(), None);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_record_is_there_at_once_and_after_reopening() {
        let root = folder();
        let ledger = Ledger::open(root.path()).unwrap();
        ledger.append(&[(key("a"), record("a"))]).unwrap();
        assert_eq!(*ledger.get(&key("a")).unwrap(), record("a"));
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
        let ledger = Ledger::open(root.path()).unwrap();
        ledger.append(&[(key("a"), record("first"))]).unwrap();
        ledger.append(&[(key("a"), record("second"))]).unwrap();
        for ledger in [ledger, Ledger::open(root.path()).unwrap()] {
            assert_eq!(*ledger.get(&key("a")).unwrap(), record("second"));
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
    fn a_torn_tail_does_not_swallow_the_next_record() {
        let names = ["a", "b", "c"];
        let root = filled(&names);
        let good = fs::read(file(&root)).unwrap();
        fs::write(file(&root), &good[..good.len() - 20]).unwrap();
        let ledger = Ledger::open(root.path()).unwrap();
        ledger.append(&[(key("d"), record("d"))]).unwrap();
        assert_eq!(held(&root, &["a", "b", "d"]), 3);
    }

    #[test]
    fn a_tail_torn_by_another_process_does_not_swallow_the_next_record() {
        let root = folder();
        let ledger = Ledger::open(root.path()).unwrap();
        ledger.append(&[(key("a"), record("a"))]).unwrap();
        let mut other = fs::OpenOptions::new().append(true).open(file(&root)).unwrap();
        other.write_all(b"\xf5HWe\xff\xff\0\0 and then it died").unwrap();
        ledger.append(&[(key("b"), record("b"))]).unwrap();
        assert_eq!(held(&root, &["a", "b"]), 2);
    }

    #[test]
    fn damage_is_reported_in_bytes_and_only_while_it_is_there() {
        let root = filled(&["a", "b"]);
        let mut bytes = fs::read(file(&root)).unwrap();
        bytes.extend_from_slice(b"torn");
        fs::write(file(&root), &bytes).unwrap();
        let ledger = Ledger::open(root.path()).unwrap();
        let text = format!("{}: 4 damaged bytes were skipped", file(&root).display());
        assert_eq!(ledger.damage(), Some(text.clone()));
        ledger.refresh().unwrap();
        ledger.append(&[(key("c"), record("c"))]).unwrap();
        assert_eq!(ledger.damage(), Some(text));
        assert_eq!(Ledger::open(root.path()).unwrap().damage(), None);
    }

    #[test]
    fn an_intact_entry_that_is_no_record_is_skipped_and_reported() {
        let root = filled(&["a"]);
        let mut segment = Segment::new(Arc::new(RealDisk), file(&root), SEGMENT);
        segment.append(b"HWRC\x02\0\0\0 of the future", &mut |_| true).unwrap();
        let ledger = Ledger::open(root.path()).unwrap();
        assert_eq!(ledger.len(), 1);
        assert!(ledger.damage().is_some());
    }

    #[test]
    fn two_handles_on_one_folder_lose_nothing() {
        let root = folder();
        let names: Vec<String> = (0..40).map(|i| format!("record {i}")).collect();
        std::thread::scope(|scope| {
            for half in names.chunks(10) {
                let root = root.path();
                scope.spawn(move || {
                    let ledger = Ledger::open(root).unwrap();
                    for name in half {
                        ledger.append(&[(key(name), record(name))]).unwrap();
                    }
                });
            }
        });
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(held(&root, &names), 40);
        assert_eq!(Ledger::open(root.path()).unwrap().damage(), None);
    }

    #[test]
    fn one_handle_takes_appends_from_many_threads() {
        let root = folder();
        let ledger = Ledger::open(root.path()).unwrap();
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
        let ledger = Ledger::open(root.path()).unwrap();
        let other = Ledger::open(root.path()).unwrap();
        other.append(&[(key("a"), record("a"))]).unwrap();
        assert_eq!(ledger.get(&key("a")), None);
        ledger.refresh().unwrap();
        assert_eq!(*ledger.get(&key("a")).unwrap(), record("a"));
    }

    #[test]
    fn a_record_over_the_limit_is_refused_and_nothing_is_written() {
        let root = folder();
        let ledger = Ledger::open(root.path()).unwrap();
        let huge = Record { manifest: "x".repeat(MAX_PAYLOAD), ..record("a") };
        let error = ledger.append(&[(key("a"), huge)]).unwrap_err().to_string();
        assert!(error.starts_with("the record cannot be written: the data has 67108"), "{error}");
        assert!(error.ends_with(" bytes, the limit is 67108864"), "{error}");
        assert!(!file(&root).exists());
    }

    const STORE: &str = "/store";

    /// A disk in memory with a ledger of these records.
    fn in_memory(names: &[&str]) -> ForgetfulDisk {
        let disk = ForgetfulDisk::new();
        let ledger = Ledger::open_on(Arc::new(disk.clone()), Path::new(STORE)).unwrap();
        names.iter().for_each(|name| ledger.append(&[(key(name), record(name))]).unwrap());
        disk
    }

    /// The same disk, where syncs of the ledger's file have this fault, from the first write on or from the start.
    fn unsyncable(disk: &ForgetfulDisk, fault: Fault, after_a_write: bool) -> Ledger {
        let written = AtomicBool::new(!after_a_write);
        let decide = move |call: &Call| {
            let ours = call.path.ends_with("records-v1.seg");
            written.fetch_or(ours && call.operation == "write_at", Ordering::SeqCst);
            (ours && call.operation == "sync" && written.load(Ordering::SeqCst)).then_some(fault)
        };
        let failing = FailingDisk::new(Arc::new(disk.clone()), decide);
        let segment = Segment::new(Arc::new(failing), Path::new(STORE).join(FILE), SEGMENT);
        Ledger { segment: Mutex::new(segment), records: RwLock::default() }
    }

    fn refusal(done: Result<(), LedgerError>) -> String {
        done.unwrap_err().to_string()
    }

    #[test]
    fn a_failed_sync_of_the_ledger_is_final_and_leaves_no_record() {
        let disk = in_memory(&["a"]);
        let ledger = unsyncable(&disk, Fault::Error(libc::EIO), true);
        let path = format!("{STORE}/{FILE}");
        let first = refusal(ledger.append(&[(key("b"), record("b"))]));
        assert_eq!(first, format!("cannot sync {path}: Input/output error (os error 5)"));
        let later = refusal(ledger.append(&[(key("c"), record("c"))]));
        assert_eq!(later, format!("{path} takes no more entries: an earlier sync failed"));
        assert_eq!((ledger.len(), ledger.get(&key("b"))), (1, None));
        assert_eq!(Ledger::open_on(Arc::new(disk), Path::new(STORE)).unwrap().len(), 1);
    }

    #[test]
    fn a_reader_whose_sync_failed_believes_nothing_later() {
        let disk = in_memory(&["a"]);
        let ledger = unsyncable(&disk, Fault::Error(libc::EIO), false);
        for _ in 0..2 {
            assert!(ledger.refresh().is_err());
            assert_eq!(ledger.get(&key("a")), None);
        }
        assert!(refusal(ledger.append(&[(key("b"), record("b"))])).ends_with("an earlier sync failed"));
    }

    #[test]
    fn a_record_that_a_killed_process_did_not_sync_is_not_found_before_it_is_durable() {
        let disk = in_memory(&["a"]);
        let reader = Ledger::open_on(Arc::new(disk.clone()), Path::new(STORE)).unwrap();
        assert!(unsyncable(&disk, Fault::Killed, true).append(&[(key("b"), record("b"))]).is_err());
        let failing = unsyncable(&disk, Fault::Error(libc::EIO), false);
        assert!(failing.append(&[(key("c"), record("c"))]).is_err());
        assert_eq!(failing.get(&key("b")), None, "an append must not believe what it could not sync");
        reader.append(&[(key("d"), record("d"))]).unwrap();
        assert_eq!(*reader.get(&key("b")).unwrap(), record("b"));
        for crashed in disk.crashes(64, 0) {
            assert_eq!(Ledger::open_on(Arc::new(crashed), Path::new(STORE)).unwrap().len(), 3);
        }
    }

    #[test]
    fn a_record_in_a_folder_that_a_killed_process_made_survives_a_crash() {
        let disk = ForgetfulDisk::new();
        disk.create_dir(Path::new(STORE), 0o700).unwrap();
        disk.sync_all();
        disk.create_dir(Path::new("/store/ledger"), 0o700).unwrap();
        let ledger = Ledger::open_on(Arc::new(disk.clone()), Path::new(STORE)).unwrap();
        ledger.append(&[(key("a"), record("a"))]).unwrap();
        assert!(disk.crashes(64, 0).all(|disk| Ledger::open_on(Arc::new(disk), Path::new(STORE)).unwrap().len() == 1));
    }

    #[test]
    fn no_descriptor_left_to_sync_the_folder_with_is_no_failed_sync() {
        let disk = ForgetfulDisk::new();
        let seen = AtomicBool::new(false);
        let decide = move |call: &Call| {
            let chosen = call.operation == "open" && call.path.ends_with("ledger");
            (chosen && !seen.swap(true, Ordering::SeqCst)).then_some(Fault::Error(libc::EMFILE))
        };
        let failing = FailingDisk::new(Arc::new(disk.clone()), decide);
        let ledger = Ledger::open_on(Arc::new(failing), Path::new(STORE)).unwrap();
        assert!(ledger.append(&[(key("a"), record("a"))]).is_err());
        ledger.append(&[(key("a"), record("a"))]).unwrap();
        assert!(disk.crashes(64, 0).all(|disk| Ledger::open_on(Arc::new(disk), Path::new(STORE)).unwrap().len() == 1));
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
