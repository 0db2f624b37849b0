//! `Contents`: what a segment holds up to some offset, sorted for looking up, and as a file beside the segment.
//!
//! Does not know the segment's bytes. It is an index and no truth: what it says lies somewhere is checked when it is
//! read there, and without it the segment is looked through.
//!
//! Layout of the file, all integers little-endian: `HWSEGIDX`, version `1` as a `u32`, the offset up to which the
//! segment is covered as a `u64`, then for each entry kind, generation, length (`u32`), offset (`u64`) and name (32
//! bytes), and at the end the BLAKE3 of all that precedes. The segment is covered up to the end of the last entry: if that
//! does not lie where it is said to, the contents are of what the segment was before it was cut off.
//!
//! Invariant: a file that is not whole, or of another version, is none.

use std::path::Path;

use crate::digest::Digest;
use crate::disk::{self, Disk, Links, Opened};
use crate::entry::{Head, Kind, MAX_PAYLOAD};

const NAME: [u8; 8] = *b"HWSEGIDX";
const VERSION: u32 = 1;
/// Length of what precedes the entries.
const HEADER: usize = 20;
/// Length of an entry.
const ENTRY: usize = 52;
/// Length of the checksum at the end.
const CHECKSUM: usize = 32;
/// More than the contents of a segment ever have.
const MAX_BYTES: u64 = 512 << 20;

/// More than a segment is ever covered.
const MAX_END: u64 = 1 << 48;

/// The entries of a segment from its beginning up to `end`.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Sorted by kind and name; of equal ones the highest generation first, then the one that was written last.
    heads: Vec<Head>,
    pub(crate) end: u64,
}

impl Contents {
    /// The contents that these heads are, in whatever order.
    pub(crate) fn new(mut heads: Vec<Head>, end: u64) -> Contents {
        heads.sort_unstable_by_key(|head| {
            (head.kind, head.name, std::cmp::Reverse(head.generation), std::cmp::Reverse(head.offset))
        });
        Contents { heads, end }
    }

    /// The entries of this name, best first.
    pub(crate) fn find(&self, kind: Kind, name: &Digest) -> &[Head] {
        let begin = self.heads.partition_point(|head| (head.kind, &head.name) < (kind, name));
        let count = self.heads[begin..].iter().take_while(|head| (head.kind, &head.name) == (kind, name)).count();
        &self.heads[begin..begin + count]
    }

    /// [`Contents::find`] for names in ascending order: looks from `begin` on, where the one before was found, and sets it to
    /// where this one is or would be. It costs as little as the next is near.
    pub(crate) fn find_next(&self, kind: Kind, name: &Digest, begin: &mut usize) -> &[Head] {
        let is_before = |head: &Head| (head.kind, &head.name) < (kind, name);
        let rest = &self.heads[*begin..];
        let mut far = 1;
        while rest.get(far - 1).is_some_and(is_before) {
            far *= 2;
        }
        let near = far / 2;
        *begin += near + rest[near..rest.len().min(far)].partition_point(is_before);
        let found = &self.heads[*begin..];
        let count = found.iter().take_while(|head| (head.kind, &head.name) == (kind, name)).count();
        &found[..count]
    }

    /// All entries, by kind and name.
    pub(crate) fn heads(&self) -> &[Head] {
        &self.heads
    }

    /// The file's bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER + self.heads.len() * ENTRY + CHECKSUM);
        bytes.extend_from_slice(&NAME);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.end.to_le_bytes());
        for head in &self.heads {
            bytes.extend_from_slice(&head.kind.number().to_le_bytes());
            bytes.extend_from_slice(&head.generation.to_le_bytes());
            bytes.extend_from_slice(&head.length.to_le_bytes());
            bytes.extend_from_slice(&head.offset.to_le_bytes());
            bytes.extend_from_slice(head.name.as_bytes());
        }
        bytes.extend_from_slice(Digest::of(&bytes).as_bytes());
        bytes
    }

    /// What the file's bytes say, if they are whole.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Contents> {
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM>()?;
        let (header, entries) = body.split_first_chunk::<HEADER>()?;
        let known = header[..8] == NAME && header[8..12] == VERSION.to_le_bytes();
        if !known || !entries.len().is_multiple_of(ENTRY) || Digest::of(body).as_bytes() != checksum {
            return None;
        }
        let end = u64::from_le_bytes(std::array::from_fn(|i| header[12 + i]));
        let heads = entries.chunks_exact(ENTRY).map(decode_head).collect::<Option<Vec<Head>>>()?;
        let within = |head: &Head| head.length as usize <= MAX_PAYLOAD && head.offset < end && head.end() <= end;
        (end <= MAX_END && heads.iter().all(within)).then(|| Contents::new(heads, end))
    }

    /// The contents that stand in the file at `path`, if it is there and whole.
    pub(crate) fn load(disk: &dyn Disk, path: &Path) -> Option<Contents> {
        match disk::open_regular(disk, path, Links::Refuse) {
            Ok(Opened::Regular(file, found)) if found.bytes <= MAX_BYTES => {
                Contents::decode(&disk::read(&*file, path, found.bytes).ok()?)
            }
            _ => None,
        }
    }
}

fn decode_head(entry: &[u8]) -> Option<Head> {
    let number = |from: usize| u32::from_le_bytes(std::array::from_fn(|i| entry[from + i]));
    Some(Head {
        kind: Kind::from_number(number(0))?,
        generation: number(4),
        length: number(8),
        offset: u64::from_le_bytes(std::array::from_fn(|i| entry[12 + i])),
        name: Digest::from_bytes(std::array::from_fn(|i| entry[20 + i])),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(name: u8, generation: u32, offset: u64) -> Head {
        Head { kind: Kind::Record, name: Digest::of(&[name]), generation, offset, length: 5 }
    }

    fn contents() -> Contents {
        let blob = Head { kind: Kind::Blob, ..head(2, 0, 400) };
        Contents::new(vec![head(1, 0, 16), head(2, 1, 96), head(2, 0, 176), head(2, 1, 256), blob], 1000)
    }

    #[test]
    fn entries_are_found_best_first_and_by_kind() {
        let found = contents();
        let offsets = |kind, name: u8| -> Vec<u64> {
            found.find(kind, &Digest::of(&[name])).iter().map(|head| head.offset).collect()
        };
        assert_eq!(offsets(Kind::Record, 1), [16]);
        assert_eq!(offsets(Kind::Record, 2), [256, 96, 176]);
        assert_eq!(offsets(Kind::Blob, 2), [400]);
        assert!(offsets(Kind::Blob, 1).is_empty() && offsets(Kind::Record, 9).is_empty());
    }

    #[test]
    fn contents_come_back_from_their_bytes() {
        for contents in [contents(), Contents::default()] {
            assert_eq!(Contents::decode(&contents.encode()).unwrap(), contents);
        }
    }

    #[test]
    fn an_encoding_never_changes_within_a_version() {
        let digest = Digest::of(&contents().encode()).to_string();
        assert_eq!(digest, "b60746e8d67c1004f8747f8ef1da3a5f5825a70b62a04a780c58d90db7522ee1");
    }

    #[test]
    fn every_flipped_bit_and_every_truncation_makes_it_none() {
        let good = contents().encode();
        for bit in 0..good.len() * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Contents::decode(&bytes), None, "bit {bit}");
        }
        for length in 0..good.len() {
            assert_eq!(Contents::decode(&good[..length]), None, "cut at {length}");
        }
    }

    #[test]
    fn an_entry_beyond_what_is_covered_makes_it_none() {
        let beyond = Contents { heads: vec![head(1, 0, 960)], end: 1000 };
        assert_eq!(Contents::decode(&beyond.encode()), None);
    }

    proptest! {
        #[test]
        fn names_that_are_found_in_order_are_those_that_are_found_alone(
            held in proptest::collection::vec((0..60u8, 0..3u32), 0..80),
            asked in proptest::collection::btree_set(0..60u8, 0..60),
        ) {
            let heads = held.iter().zip((16..).step_by(80)).map(|((name, generation), at)| head(*name, *generation, at));
            let contents = Contents::new(heads.collect(), 1 << 20);
            let mut names: Vec<Digest> = asked.iter().map(|name| Digest::of(&[*name])).collect();
            names.sort();
            let mut begin = 0;
            for name in names {
                prop_assert_eq!(contents.find_next(Kind::Record, &name, &mut begin), contents.find(Kind::Record, &name));
            }
        }

        #[test]
        fn no_bytes_are_too_strange(mut bytes in proptest::collection::vec(any::<u8>(), 0..300), whole: bool) {
            if whole {
                bytes.splice(..0, NAME.into_iter().chain(VERSION.to_le_bytes()));
                let sum = Digest::of(&bytes);
                bytes.extend_from_slice(sum.as_bytes());
            }
            if let Some(contents) = Contents::decode(&bytes) {
                prop_assert_eq!(Contents::decode(&contents.encode()), Some(contents));
            }
        }
    }
}
