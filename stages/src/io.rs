//! How bytes reach a kind and leave it.
//!
//! A kind sees its inputs as [`Stored`] artifacts: named entries, each readable on its own and verified when it is
//! first read. It gives [`Draft`]s: artifacts that nobody has stored yet. This file does not know stores or digests.
//!
//! Invariant: a kind can read no entry outside of its selection, so nothing that is missing from its key can
//! influence its output.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use crate::StageError;
use crate::mapped::Mapped;

/// Verified bytes that nobody changes any more, in memory or in a mapped file. A clone shares them.
#[derive(Clone)]
pub struct Bytes(Arc<dyn AsRef<[u8]> + Send + Sync>);

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(bytes))
    }
}

impl From<Mapped> for Bytes {
    fn from(mapped: Mapped) -> Self {
        Self(Arc::new(mapped))
    }
}

/// The name and type of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryHead {
    pub name: String,
    pub type_name: String,
}

/// An artifact that can be read: a blob, or a tree of named entries.
///
/// Implemented by [`Draft`] (what has just been made) and by the program's store.
pub trait Stored: Send + Sync {
    /// The tree's header text; empty for a blob.
    fn header(&self) -> &str;
    /// The tree's entries within the selection, in tree order; empty for a blob.
    fn entries(&self) -> &[EntryHead];
    /// Length of all that was stored, outside of the selection too. It is not part of any key: what cannot be true may be
    /// refused by it, and nothing else may depend on it.
    fn length(&self) -> u64;
    /// The bytes of one entry.
    ///
    /// # Errors
    /// If there is no such entry within the selection, or its bytes are missing or damaged.
    fn entry(&self, name: &str) -> Result<Bytes, StageError>;
    /// The bytes of a blob.
    ///
    /// # Errors
    /// If this is a tree, or its bytes are missing or damaged.
    fn blob(&self) -> Result<Bytes, StageError>;
}

/// An artifact as a kind hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    pub type_name: &'static str,
    pub content: Content,
}

/// What a draft consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Blob(Vec<u8>),
    Tree(DraftTree),
}

/// A tree that nobody has stored yet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DraftTree {
    pub header: String,
    heads: Vec<EntryHead>,
    bytes: Vec<Vec<u8>>,
}

impl DraftTree {
    /// A tree without entries.
    pub fn new(header: impl Into<String>) -> Self {
        Self { header: header.into(), ..Self::default() }
    }

    /// Appends an entry; names are unique, which the caller sees to.
    pub fn push(&mut self, name: impl Into<String>, type_name: impl Into<String>, bytes: Vec<u8>) {
        self.heads.push(EntryHead { name: name.into(), type_name: type_name.into() });
        self.bytes.push(bytes);
    }

    /// Name, type and bytes of each entry, in order.
    pub fn into_entries(self) -> impl Iterator<Item = (EntryHead, Vec<u8>)> {
        self.heads.into_iter().zip(self.bytes)
    }
}

impl Draft {
    /// A blob of the given type.
    pub fn blob(type_name: &'static str, bytes: Vec<u8>) -> Self {
        Self { type_name, content: Content::Blob(bytes) }
    }

    /// A tree of the given type.
    pub fn tree(type_name: &'static str, tree: DraftTree) -> Self {
        Self { type_name, content: Content::Tree(tree) }
    }
}

impl Stored for Draft {
    fn header(&self) -> &str {
        match &self.content {
            Content::Tree(tree) => &tree.header,
            Content::Blob(_) => "",
        }
    }

    fn entries(&self) -> &[EntryHead] {
        match &self.content {
            Content::Tree(tree) => &tree.heads,
            Content::Blob(_) => &[],
        }
    }

    fn length(&self) -> u64 {
        let bytes = match &self.content {
            Content::Tree(tree) => tree.bytes.iter().map(Vec::len).sum(),
            Content::Blob(bytes) => bytes.len(),
        };
        bytes as u64
    }

    fn entry(&self, name: &str) -> Result<Bytes, StageError> {
        let Content::Tree(tree) = &self.content else {
            return Err(StageError::NoEntry { entry: name.into() });
        };
        let at = tree.heads.iter().position(|head| head.name == name);
        at.map(|at| tree.bytes[at].clone().into()).ok_or_else(|| StageError::NoEntry { entry: name.into() })
    }

    fn blob(&self) -> Result<Bytes, StageError> {
        match &self.content {
            Content::Blob(bytes) => Ok(bytes.clone().into()),
            Content::Tree(_) => Err(StageError::NotABlob { type_name: self.type_name.into() }),
        }
    }
}

/// The inputs of one execution, by port.
#[derive(Clone, Default)]
pub struct Inputs {
    ports: BTreeMap<String, Vec<Input>>,
}

/// One input artifact; `label` tells a gathered one from its siblings (`model=forest,fold=2`), and is empty otherwise.
#[derive(Clone)]
pub struct Input {
    pub label: BTreeMap<String, String>,
    pub stored: Arc<dyn Stored>,
}

impl Inputs {
    /// Adds an artifact to a port; gathered ones keep the order in which they are added.
    pub fn add(&mut self, port: impl Into<String>, label: BTreeMap<String, String>, stored: Arc<dyn Stored>) {
        self.ports.entry(port.into()).or_default().push(Input { label, stored });
    }

    /// The artifact at a port that must be wired.
    ///
    /// # Errors
    /// [`StageError::NoInput`] if it is not.
    pub fn one(&self, port: &str) -> Result<&dyn Stored, StageError> {
        self.optional(port).ok_or_else(|| StageError::NoInput { port: port.into() })
    }

    /// The artifact at a port that may be left out.
    pub fn optional(&self, port: &str) -> Option<&dyn Stored> {
        self.ports.get(port).and_then(|all| all.first()).map(|input| &*input.stored)
    }

    /// All artifacts gathered at a port.
    pub fn gathered(&self, port: &str) -> &[Input] {
        self.ports.get(port).map_or(&[], Vec::as_slice)
    }

    /// The names of the ports that are wired, in order.
    pub fn ports(&self) -> impl Iterator<Item = &str> {
        self.ports.keys().map(String::as_str)
    }
}

/// The outputs of one execution, by port.
#[derive(Debug, Default)]
pub struct Outputs {
    drafts: BTreeMap<&'static str, Draft>,
}

impl Outputs {
    /// Hands over the artifact of a port.
    pub fn put(&mut self, port: &'static str, draft: Draft) {
        self.drafts.insert(port, draft);
    }

    /// What was handed over, by port.
    pub fn into_drafts(self) -> BTreeMap<&'static str, Draft> {
        self.drafts
    }
}
