//! `Artifact`, what a stage hands on, and `Tree`, an artifact that consists of named others.
//!
//! Does not know where bytes are kept, nor what a type name or a header means: those belong to whoever wrote them.
//!
//! Encoding: `HWTR`, the format version as a little-endian `u32`, then header and entries in bincode's standard
//! configuration. A tree's digest is the digest of its encoding.
//!
//! Invariants of every encoded and every decoded tree: names are not empty and differ from each other; at most
//! [`MAX_ENTRIES`] entries and [`MAX_TREE_BYTES`] bytes; the order of entries is the writer's and is part of the
//! identity.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::codec::{self, CodecError};
use crate::digest::Digest;

const MAGIC: [u8; 4] = *b"HWTR";
const VERSION: u32 = 1;

/// The most entries a tree may have.
pub const MAX_ENTRIES: usize = 1 << 20;
/// The most bytes a tree's encoding may have.
pub const MAX_TREE_BYTES: usize = 256 << 20;

/// Whether an artifact is bytes or a tree of artifacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Plain bytes.
    Blob,
    /// The encoding of a [`Tree`].
    Tree,
}

/// What a stage produced: what it is, and which bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Artifact {
    /// What the bytes mean, for example `frame`, `model`, `file`, `directory`.
    pub type_name: String,
    /// Whether `digest` names a blob or a tree.
    pub shape: Shape,
    /// Digest of the blob, or of the tree's encoding.
    pub digest: Digest,
    /// Bytes of content: the length of a blob, the sum over the entries of a tree.
    pub bytes: u64,
}

/// A named artifact inside a [`Tree`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Its name, unique in the tree and not empty.
    pub name: String,
    /// What the bytes mean.
    pub type_name: String,
    /// Whether `digest` names a blob or a tree.
    pub shape: Shape,
    /// Digest of the blob, or of the tree's encoding.
    pub digest: Digest,
    /// Bytes of content: the length of a blob, the sum over the entries of a tree.
    pub bytes: u64,
}

/// An [`Entry`] as it lies in the bytes of a tree: a text of its own would take memory on the word of its length.
#[derive(Deserialize)]
struct EntryIn<'b> {
    name: &'b str,
    type_name: &'b str,
    shape: Shape,
    digest: Digest,
    bytes: u64,
}

impl EntryIn<'_> {
    fn taken(self) -> Entry {
        let (name, type_name) = (self.name.to_owned(), self.type_name.to_owned());
        Entry { name, type_name, shape: self.shape, digest: self.digest, bytes: self.bytes }
    }
}

/// Named artifacts in an order, under a header that belongs to the writer.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Tree {
    /// Text of the writer's; a frame keeps its row count here.
    pub header: String,
    /// The entries, in the writer's order.
    pub entries: Vec<Entry>,
}

/// Why a tree cannot be encoded, or bytes are not a tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The bytes are of another kind or version, malformed, or beyond the limit.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// There are too many entries.
    #[error("a tree of {entries} entries is over the limit of {limit}")]
    TooManyEntries {
        /// Number of entries.
        entries: usize,
        /// [`MAX_ENTRIES`].
        limit: usize,
    },
    /// An entry has no name.
    #[error("entry {position} of the tree has no name")]
    EmptyName {
        /// Its position, counted from 0.
        position: usize,
    },
    /// Two entries have the same name.
    #[error("two entries of the tree are named {name:?}")]
    DuplicateName {
        /// The name.
        name: String,
    },
}

impl Tree {
    /// The entry called `name`.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Bytes of content: the sum over the entries, `u64::MAX` if it would overflow.
    pub fn bytes(&self) -> u64 {
        let add = |sum: u64, entry: &Entry| sum.saturating_add(entry.bytes);
        self.entries.iter().fold(0, add)
    }

    /// The encoding, whose digest is the tree's digest.
    ///
    /// # Errors
    /// If the tree breaks a rule that [`Tree::decode`] would refuse.
    pub fn encode(&self) -> Result<Vec<u8>, TreeError> {
        self.check()?;
        let parts = (&self.header, &self.entries);
        Ok(codec::encode::<MAX_TREE_BYTES>(MAGIC, VERSION, &parts)?)
    }

    /// The tree that `bytes` encode.
    ///
    /// # Errors
    /// If they are of another kind or version, malformed, longer than the tree, over a limit, or if names are
    /// empty or repeated.
    pub fn decode(bytes: &[u8]) -> Result<Tree, TreeError> {
        let (header, entries): (&str, Vec<EntryIn>) =
            codec::decode_after::<MAX_TREE_BYTES, _>(MAGIC, VERSION, bytes, 0)?;
        let tree = Tree { header: header.to_owned(), entries: entries.into_iter().map(EntryIn::taken).collect() };
        tree.check()?;
        Ok(tree)
    }

    fn check(&self) -> Result<(), TreeError> {
        let (entries, limit) = (self.entries.len(), MAX_ENTRIES);
        if entries > limit {
            return Err(TreeError::TooManyEntries { entries, limit });
        }
        let mut names = HashSet::with_capacity(entries);
        for (position, Entry { name, .. }) in self.entries.iter().enumerate() {
            if name.is_empty() {
                return Err(TreeError::EmptyName { position });
            }
            if !names.insert(name.as_str()) {
                return Err(TreeError::DuplicateName { name: name.clone() });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    pub(crate) fn entry(name: &str, content: &[u8]) -> Entry {
        Entry {
            name: name.to_owned(),
            type_name: "file".to_owned(),
            shape: Shape::Blob,
            digest: Digest::of(content),
            bytes: content.len() as u64,
        }
    }

    pub(crate) fn tree(names: &[&str]) -> Tree {
        Tree { header: "rows = 3".to_owned(), entries: names.iter().map(|name| entry(name, name.as_bytes())).collect() }
    }

    /// The encoding without the checks that would refuse it.
    fn encode_unchecked(tree: &Tree) -> Vec<u8> {
        let parts = (&tree.header, &tree.entries);
        codec::encode::<MAX_TREE_BYTES>(MAGIC, VERSION, &parts).unwrap()
    }

    fn refusal(bytes: &[u8]) -> String {
        Tree::decode(bytes).unwrap_err().to_string()
    }

    #[test]
    fn an_encoding_never_changes_within_a_version() {
        let digest = Digest::of(&tree(&["a", "b"]).encode().unwrap());
        assert_eq!(digest.to_string(), "b3e45ddb255ede02cd6fc0a91fd0adf4587bc8460102e302d42ac1f3a565ed5c");
    }

    #[test]
    fn an_entry_is_found_by_its_name() {
        let tree = tree(&["a", "bb"]);
        assert_eq!(tree.entry("bb"), Some(&entry("bb", b"bb")));
        assert_eq!(tree.entry("c"), None);
    }

    #[test]
    fn the_bytes_of_a_tree_are_the_sum_over_its_entries() {
        let mut tree = tree(&["a", "bb"]);
        assert_eq!(tree.bytes(), 3);
        tree.entries[0].bytes = u64::MAX;
        assert_eq!(tree.bytes(), u64::MAX);
    }

    #[test]
    fn the_order_of_entries_is_part_of_the_identity() {
        assert_ne!(tree(&["a", "b"]).encode(), tree(&["b", "a"]).encode());
    }

    #[test]
    fn equal_names_are_refused_both_ways() {
        let text = "two entries of the tree are named \"a\"";
        let tree = tree(&["a", "b", "a"]);
        assert_eq!(tree.encode().unwrap_err().to_string(), text);
        assert_eq!(refusal(&encode_unchecked(&tree)), text);
    }

    #[test]
    fn an_empty_name_is_refused_both_ways() {
        let text = "entry 1 of the tree has no name";
        let tree = tree(&["a", ""]);
        assert_eq!(tree.encode().unwrap_err().to_string(), text);
        assert_eq!(refusal(&encode_unchecked(&tree)), text);
    }

    #[test]
    fn too_many_entries_are_refused() {
        let entries = vec![entry("a", b""); MAX_ENTRIES + 1];
        let tree = Tree { header: String::new(), entries };
        assert_eq!(tree.encode().unwrap_err().to_string(), "a tree of 1048577 entries is over the limit of 1048576");
    }

    #[test]
    fn a_newer_version_is_refused() {
        let mut bytes = tree(&["a"]).encode().unwrap();
        bytes[4] = 2;
        assert_eq!(refusal(&bytes), "the data has format version 2, this program reads version 1");
    }

    #[test]
    fn a_blob_that_is_no_tree_is_refused() {
        assert_eq!(refusal(b"PAR1 and so on"), "the data is of another kind: it does not begin with \"HWTR\"");
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = tree(&["a", "b"]).encode().unwrap();
        for length in 0..bytes.len() {
            assert!(Tree::decode(&bytes[..length]).is_err());
        }
    }

    fn any_entry(name: String) -> impl Strategy<Value = Entry> {
        let shape = prop_oneof![Just(Shape::Blob), Just(Shape::Tree)];
        (".*", shape, any::<[u8; 32]>(), any::<u64>()).prop_map(move |(type_name, shape, digest, bytes)| Entry {
            name: name.clone(),
            type_name,
            shape,
            digest: Digest::from_bytes(digest),
            bytes,
        })
    }

    fn any_tree() -> impl Strategy<Value = Tree> {
        let entries = btree_set(".+", 0..8)
            .prop_flat_map(|names| names.into_iter().map(any_entry).collect::<Vec<_>>())
            .prop_shuffle();
        (".*", entries).prop_map(|(header, entries)| Tree { header, entries })
    }

    proptest! {
        #[test]
        fn a_tree_round_trips(tree in any_tree()) {
            prop_assert_eq!(Tree::decode(&tree.encode().unwrap()), Ok(tree));
        }

        #[test]
        fn any_bytes_decode_without_panic(body in vec(any::<u8>(), 0..200)) {
            let _ = Tree::decode(&[&b"HWTR\x01\0\0\0"[..], &body].concat());
        }
    }
}
