//! Files of a store with checksums made right again, so that what was forged is believed as far as the parsers let it.
//! As the crate's documentation tells the layouts; written by hand, and so a second opinion on them.
//!
//! Does not know which bytes were forged, nor what must come of them.

// Each test crate has this module for itself, and none needs all of it.
#![allow(dead_code)]

use headwater_cache::Digest;

/// Kinds of entries.
pub const BLOB: u32 = 1;
pub const RECORD: u32 = 2;
pub const USES: u32 = 3;

/// The beginning of every segment.
pub fn header() -> Vec<u8> {
    let mut header = [&b"HWSEGMNT"[..], &1u32.to_le_bytes()].concat();
    let check = Digest::of(&header);
    header.extend(&check.as_bytes()[..4]);
    header
}

/// Adds an entry to a segment; its checksum is made right by [`entries`].
pub fn append(segment: &mut Vec<u8>, kind: u32, name: &Digest, payload: &[u8]) {
    segment.extend(b"\xf5HWe");
    segment.extend((payload.len() as u32).to_le_bytes());
    segment.extend(kind.to_le_bytes());
    segment.extend(0u32.to_le_bytes());
    segment.extend(name.as_bytes());
    segment.extend([0; 16]);
    segment.extend(payload);
    segment.resize(segment.len().next_multiple_of(8), 0);
}

/// The checksums of a segment's entries. Blobs get the names that their bytes have.
pub fn entries(bytes: &mut [u8]) {
    let mut at = 16;
    while at + 64 <= bytes.len() {
        let number = |from: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + from + i])) as usize;
        let (length, kind) = (number(4), number(8));
        let Some(payload) = bytes.get(at + 64..at.saturating_add(64).saturating_add(length)).map(<[u8]>::to_vec) else {
            at += 8;
            continue;
        };
        if kind == 1 {
            bytes[at + 16..at + 48].copy_from_slice(Digest::of(&payload).as_bytes());
        }
        let mut hashed = b"headwater segment entry\0".to_vec();
        hashed.extend(1u32.to_le_bytes());
        hashed.extend((at as u64).to_le_bytes());
        hashed.extend(&bytes[at + 4..at + 48]);
        hashed.extend(if kind == 1 { &[] } else { payload.as_slice() });
        bytes[at + 48..at + 64].copy_from_slice(&Digest::of(&hashed).as_bytes()[..16]);
        at += 64 + length.next_multiple_of(8);
    }
}

/// The payloads of a segment's entries of a kind; the segment is a good one.
pub fn payloads(bytes: &[u8], kind: u32) -> Vec<Vec<u8>> {
    let (mut payloads, mut at) = (Vec::new(), 16);
    while at < bytes.len() {
        let number = |from: usize| u32::from_le_bytes(std::array::from_fn(|i| bytes[at + from + i]));
        let (length, found) = (number(4) as usize, number(8));
        if found == kind {
            payloads.push(bytes[at + 64..at + 64 + length].to_vec());
        }
        at += 64 + length.next_multiple_of(8);
    }
    payloads
}

/// The checksum of a segment's contents.
pub fn contents(bytes: &mut [u8]) {
    if let Some(end) = bytes.len().checked_sub(32) {
        let sum = Digest::of(&bytes[..end]);
        bytes[end..].copy_from_slice(sum.as_bytes());
    }
}

/// The checks of a file index's lines, as those of files that had settled.
pub fn lines(bytes: &mut [u8]) {
    let key = blake3::Hasher::new_derive_key("headwater file index 3, check of a line").finalize();
    for line in bytes.chunks_exact_mut(128).skip(1) {
        let check = blake3::keyed_hash(key.as_bytes(), &line[..112]);
        line[112..].copy_from_slice(&check.as_bytes()[..16]);
    }
}
