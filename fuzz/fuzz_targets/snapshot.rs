//! The encoding of a snapshot of files. What is read of it is written so that the same is read again.

#![no_main]

use std::path::Path;

use headwater_cache::{FileIndex, Snapshot};
use headwater_fuzz::{frugally, seed};
use libfuzzer_sys::fuzz_target;

/// One of no files.
fn empty() -> Vec<u8> {
    let snapshot = FileIndex::open(Path::new("/nowhere")).snapshot(&[]).expect("no file has changed");
    snapshot.encode().expect("a snapshot")
}

fuzz_target!(init: seed([empty()]), |data: &[u8]| {
    frugally(|| {
        if let Ok(snapshot) = Snapshot::decode(data) {
            assert_eq!(Snapshot::decode(&snapshot.encode().expect("it was a snapshot")), Ok(snapshot));
        }
    });
});
