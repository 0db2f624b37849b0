//! What the fuzz targets of `stages/` share: artifacts that the crate has made, as one run of bytes each, and frames whose
//! header is made right.
//!
//! Does not know layouts: the artifacts and what is done with them are those of the crate's own tests.
//!
//! Invariant: a tree that was turned into bytes comes out of them as it was.

#[path = "../../../stages/tests/artifacts/mod.rs"]
pub mod artifacts;
#[path = "../../src/trial.rs"]
mod trial;

use std::sync::LazyLock;

use headwater_stages::frame;
use headwater_stages::io::Draft;
use headwater_stages::kind::artifact;
use polars::prelude::DataFrame;

pub use trial::{frugally, seed};

use crate::artifacts::{Learned, Parts, learned};

/// Between the parts of a tree; forged bytes may have it too, and then make one part more.
const SEAM: &[u8] = b"\n~~~\n";

/// What a pipeline of all kinds has stored. It is made once, before any bytes are tried.
pub static LEARNED: LazyLock<Learned> = LazyLock::new(learned);

/// A tree as bytes: its header, then name, type and bytes of each entry.
pub fn tree_bytes(draft: &Draft) -> Vec<u8> {
    let parts = Parts::of(draft.clone());
    let mut bytes = parts.header.into_bytes();
    for (name, type_name, entry) in parts.entries {
        bytes.extend([SEAM, format!("{name}\n{type_name}\n").as_bytes(), &entry].concat());
    }
    bytes
}

/// The tree in such bytes. Of two entries of one name the second is left out: no store has such a tree.
pub fn tree_of(type_name: &'static str, bytes: &[u8]) -> Draft {
    let (header, mut rest) = split(bytes, SEAM);
    let mut parts = Parts { type_name, is_blob: false, header: text(header), entries: Vec::new() };
    while !rest.is_empty() {
        let (entry, others) = split(rest, SEAM);
        let (name, typed) = split(entry, b"\n");
        let (entry_type, content) = split(typed, b"\n");
        if parts.entries.iter().all(|(taken, _, _)| taken.as_bytes() != name) {
            parts.entries.push((text(name), text(entry_type), content.to_vec()));
        }
        rest = others;
    }
    parts.draft()
}

/// What is before the first `seam`, and what is after it.
fn split<'a>(bytes: &'a [u8], seam: &[u8]) -> (&'a [u8], &'a [u8]) {
    match bytes.windows(seam.len()).position(|window| window == seam) {
        Some(at) => (&bytes[..at], &bytes[at + seam.len()..]),
        None => (bytes, &[]),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A frame of so many entries, with the count of rows in its header that its decoder has found in them, as if whoever
/// forged them had seen to it.
pub fn counted(entries: Vec<(String, String, Vec<u8>)>) -> (Draft, Option<DataFrame>) {
    let mut parts = Parts { type_name: artifact::FRAME, is_blob: false, header: "rows 0".to_owned(), entries };
    for _ in 0..2 {
        match frame::decode(&parts.draft()) {
            Ok(decoded) => return (parts.draft(), Some(decoded)),
            Err(error) => match found_rows(&error.to_string()) {
                Some(rows) => parts.header = format!("rows {rows}"),
                None => break,
            },
        }
    }
    (parts.draft(), None)
}

/// The count in a complaint such as "column `a` has 3 rows, the header says 0".
fn found_rows(complaint: &str) -> Option<u64> {
    let (found, _) = complaint.split_once(" rows, the header says ")?;
    found.rsplit(' ').next()?.parse().ok()
}
