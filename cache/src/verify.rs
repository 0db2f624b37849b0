//! `Store::verify` and `Store::stats`: whether everything is what it should be, and how much there is of it.
//!
//! Does not know who uses what. Reads only, unless it is told to repair.
//!
//! Invariants: a full look reads every byte of every blob and every entry, whatever the contents of segments say; what is
//! found is named; a repair moves away, forgets or cuts off what is damaged, so that the next run makes it again, and before
//! that writes a list of uses anew in the place of each that is damaged; it writes headers of segments anew, and changes
//! nothing else.

use std::collections::BTreeSet;

use rayon::prelude::*;
use serde::Serialize;

use crate::digest::Digest;
use crate::entry::Kind;
use crate::ledger::Ledger;
use crate::store::{QUARANTINE, Store, StoreError};
use crate::tree::Artifact;

/// How closely a store is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Read and hash everything; otherwise only names and lengths are compared.
    pub full: bool,
    /// Set aside what is damaged. Only what was read can be found so.
    pub repair: bool,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Blobs that were looked at.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Records that were looked at.
    pub records: u64,
    /// Blobs that are not what they should be.
    pub damaged: Vec<Digest>,
    /// What else is damaged, a sentence each.
    pub remarks: Vec<String>,
    /// Keys of records whose outputs cannot be produced any more; a run computes them again.
    pub lost: Vec<Digest>,
}

impl Findings {
    /// Whether nothing is damaged or lost.
    pub fn is_clean(&self) -> bool {
        self.damaged.is_empty() && self.remarks.is_empty() && self.lost.is_empty()
    }
}

/// How much a store holds. Serialised, its fields stand in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Records.
    pub records: u64,
    /// Blobs that are files of their own.
    pub large_blobs: u64,
    /// Their bytes.
    pub large_bytes: u64,
    /// Blobs that are entries of segments.
    pub small_blobs: u64,
    /// Their bytes.
    pub small_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// Bytes of segments, dead ones included.
    pub segment_bytes: u64,
    /// Damaged files that were set aside.
    pub quarantined: u64,
    /// Bytes of the outputs of all records, each counted as if it were stored alone.
    pub referenced_bytes: u64,
    /// Bytes of the different blobs among these outputs.
    pub distinct_bytes: u64,
}

impl Store {
    /// Looks at everything. Other processes may use the store meanwhile.
    ///
    /// # Errors
    /// If the store cannot be read. Damage is no error.
    pub fn verify(&self, ledger: &Ledger, look: Look) -> Result<Findings, StoreError> {
        let mut found = Findings::default();
        if look.repair {
            self.mend_uses()?;
        }
        if look.full {
            self.verify_large(look, &mut found)?;
            self.verify_segments(look, &mut found)?;
        } else {
            let small = self.segments().survey().into_iter().flat_map(|(_, _, heads)| heads);
            let small: Vec<u64> =
                small.filter(|head| head.kind == Kind::Blob).map(|head| u64::from(head.length)).collect();
            let large = self.large_blobs()?;
            found.blobs = (small.len() + large.len()) as u64;
            found.bytes = small.iter().sum::<u64>() + large.iter().map(|(_, bytes)| bytes).sum::<u64>();
        }
        found.remarks.extend(self.segments().damage());
        if look.repair {
            self.segments().set_strange_aside(&self.root().join(QUARANTINE))?;
        }
        for key in self.segments().names(Kind::Record) {
            found.records += 1;
            let damaged = |artifact: &Artifact| found.damaged.contains(&artifact.digest);
            let good = ledger.read(&key)?.is_some_and(|record| {
                record.outputs.iter().all(|(_, artifact)| self.holds(artifact) && !damaged(artifact))
            });
            if !good {
                found.lost.push(key);
            }
        }
        Ok(found)
    }

    /// How much there is.
    ///
    /// # Errors
    /// If the store cannot be read. Damage is no error.
    pub fn stats(&self, ledger: &Ledger) -> Result<Stats, StoreError> {
        let mut stats = Stats { quarantined: self.quarantined()?.len() as u64, ..Stats::default() };
        for (_, bytes) in self.large_blobs()? {
            stats.large_blobs += 1;
            stats.large_bytes += bytes;
        }
        for (_, bytes, heads) in self.segments().survey() {
            stats.segments += 1;
            stats.segment_bytes += bytes;
            for head in heads.iter().filter(|head| head.kind == Kind::Blob) {
                stats.small_blobs += 1;
                stats.small_bytes += u64::from(head.length);
            }
        }
        let mut seen = BTreeSet::new();
        for key in self.segments().names(Kind::Record) {
            stats.records += 1;
            for (_, artifact) in ledger.read(&key)?.iter().flat_map(|record| &record.outputs) {
                let new = self.bytes_of_new(artifact, |digest| seen.insert(*digest))?;
                stats.referenced_bytes = stats.referenced_bytes.saturating_add(artifact.bytes);
                stats.distinct_bytes = stats.distinct_bytes.saturating_add(new);
            }
        }
        Ok(stats)
    }

    fn verify_large(&self, look: Look, found: &mut Findings) -> Result<(), StoreError> {
        let blobs = self.large_blobs()?;
        let wrong = |(digest, bytes): &(Digest, u64)| {
            let intact = match look.repair {
                true => self.blobs().is_intact(digest, *bytes),
                false => self.blobs().matches(digest),
            };
            intact.map(|intact| (!intact).then_some(*digest))
        };
        let damaged: Vec<Option<Digest>> = blobs.par_iter().map(wrong).collect::<Result<_, StoreError>>()?;
        found.blobs += blobs.len() as u64;
        found.bytes += blobs.iter().map(|(_, bytes)| bytes).sum::<u64>();
        found.damaged.extend(damaged.into_iter().flatten());
        Ok(())
    }

    fn verify_segments(&self, look: Look, found: &mut Findings) -> Result<(), StoreError> {
        for (blobs, bytes, damaged) in self.segments().verify(look.repair)? {
            found.blobs += blobs;
            found.bytes += bytes;
            for head in damaged {
                match head.kind {
                    Kind::Blob if self.segments().has_intact(Kind::Blob, &head.name).map_err(StoreError::from)? => {
                        found.remarks.push(format!("one copy of blob {} is damaged", head.name));
                    }
                    Kind::Blob => found.damaged.push(head.name),
                    Kind::Record => found.remarks.push(format!("the record of {} is damaged", head.name)),
                    Kind::Uses => found.remarks.push("the list of what a project uses is damaged".to_owned()),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Record;
    use crate::tree::Shape;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    const LOOK: Look = Look { full: false, repair: false };
    const FULL: Look = Look { full: true, repair: false };
    const REPAIR: Look = Look { full: true, repair: true };

    fn open(root: &Path) -> (Arc<Store>, Ledger) {
        let store = Arc::new(Store::open(root).unwrap().with_small(8));
        let ledger = Ledger::of(&store);
        (store, ledger)
    }

    /// A store with a record of a small blob, one of a large blob, and one of both.
    fn filled() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let (store, ledger) = open(folder.path());
        let artifact = |content: &str| {
            let digest = store.put(content.as_bytes()).unwrap();
            let bytes = content.len() as u64;
            ("out".to_owned(), Artifact { type_name: "file".to_owned(), shape: Shape::Blob, digest, bytes })
        };
        for contents in [&["small"][..], &["a large blob"], &["small", "a large blob"]] {
            let outputs = contents.iter().map(|content| artifact(content)).collect();
            let record = Record { outputs, manifest: String::new(), seconds: 1.0 };
            ledger.append(&[(Digest::of(contents.concat().as_bytes()), record)]).unwrap();
        }
        folder
    }

    fn verify(root: &Path, look: Look) -> Findings {
        let (store, ledger) = open(root);
        store.verify(&ledger, look).unwrap()
    }

    fn segment(root: &Path) -> PathBuf {
        let files = fs::read_dir(root.join("segments")).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.extension().is_some_and(|end| end == "seg")).unwrap()
    }

    #[test]
    fn an_intact_store_is_clean_and_counted() {
        let folder = filled();
        for look in [LOOK, FULL, REPAIR] {
            let found = verify(folder.path(), look);
            assert!(found.is_clean(), "{found:?}");
            assert_eq!((found.blobs, found.bytes, found.records), (2, 17, 3));
        }
        let (store, ledger) = open(folder.path());
        let stats = store.stats(&ledger).unwrap();
        assert_eq!((stats.large_blobs, stats.large_bytes, stats.small_blobs, stats.small_bytes), (1, 12, 1, 5));
        assert_eq!((stats.referenced_bytes, stats.distinct_bytes), (34, 17));
    }

    #[test]
    fn a_damaged_large_blob_is_found_by_a_full_look_and_set_aside_by_a_repair() {
        let folder = filled();
        let digest = Digest::of(b"a large blob");
        let path = open(folder.path()).0.blobs().path(&digest);
        fs::remove_file(&path).unwrap();
        fs::write(&path, b"a LARGE blob").unwrap();
        assert!(verify(folder.path(), LOOK).is_clean());
        for look in [FULL, FULL, REPAIR] {
            let found = verify(folder.path(), look);
            assert_eq!((found.damaged, found.lost.len()), (vec![digest], 2));
        }
        let after = verify(folder.path(), FULL);
        assert_eq!((after.damaged, after.lost.len()), (vec![], 2));
        assert!(!path.exists());
    }

    #[test]
    fn a_damaged_entry_is_found_by_a_full_look_and_forgotten_by_a_repair() {
        let folder = filled();
        // So that what lies where is known, and not looked up anew.
        assert!(verify(folder.path(), LOOK).is_clean());
        let path = segment(folder.path());
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(5).position(|part| part == b"small").unwrap();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let digest = Digest::of(b"small");
        for look in [FULL, FULL, REPAIR] {
            let found = verify(folder.path(), look);
            assert_eq!((found.damaged, found.lost.len()), (vec![digest], 2));
        }
        assert_eq!(verify(folder.path(), FULL).lost.len(), 2);
        assert!(!open(folder.path()).0.contains(&digest));
    }

    #[test]
    fn a_damaged_header_of_a_segment_is_found_and_mended_by_a_repair() {
        let folder = filled();
        let path = segment(folder.path());
        let intact = fs::read(&path).unwrap();
        for at in [0, 9, 14] {
            let mut bytes = intact.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            for look in [LOOK, FULL, REPAIR] {
                let found = verify(folder.path(), look);
                assert_eq!((found.remarks.len(), found.damaged, found.lost), (1, vec![], vec![]), "byte {at}");
                assert!(found.remarks[0].ends_with(": 16 damaged bytes were skipped"), "{:?}", found.remarks);
            }
            assert!(verify(folder.path(), FULL).is_clean());
            assert_eq!(fs::read(&path).unwrap(), intact);
        }
    }

    #[test]
    fn a_blob_of_which_one_copy_is_damaged_is_not_lost() {
        let folder = filled();
        let first = segment(folder.path());
        let copy = first.with_file_name(format!("{}.seg", "0".repeat(32)));
        fs::copy(&first, &copy).unwrap();
        assert!(verify(folder.path(), FULL).is_clean());
        let mut bytes = fs::read(&copy).unwrap();
        let at = bytes.windows(5).position(|part| part == b"small").unwrap();
        bytes[at] ^= 1;
        fs::write(&copy, bytes).unwrap();
        let text = format!("one copy of blob {} is damaged", Digest::of(b"small"));
        for look in [FULL, FULL, REPAIR] {
            let found = verify(folder.path(), look);
            assert_eq!((&found.remarks[0], found.damaged, found.lost), (&text, vec![], vec![]));
        }
        let after = verify(folder.path(), FULL);
        assert!(after.damaged.is_empty() && after.lost.is_empty() && !after.remarks.contains(&text), "{after:?}");
    }

    #[test]
    fn what_is_no_file_in_the_place_of_a_segment_is_set_aside_by_a_repair() {
        let folder = filled();
        let path = segment(folder.path());
        let away = folder.path().join("away");
        fs::rename(&path, &away).unwrap();
        std::os::unix::fs::symlink(&away, &path).unwrap();
        let text = format!("{} is a symbolic link, not a segment", path.display());
        for look in [LOOK, FULL, REPAIR] {
            assert_eq!(verify(folder.path(), look).remarks, [text.as_str()]);
        }
        assert!(verify(folder.path(), FULL).is_clean());
        assert!(path.symlink_metadata().is_err());
    }
}
