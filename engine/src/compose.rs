//! `compose`: what a stage gave for a passing output, laid over the entries of the input that it passes on.
//!
//! It does not know nodes, keys or records.
//!
//! Invariants: passed entries keep their order, replaced ones their place, added ones follow in their own order; the
//! header is the stage's. In a preview nothing is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use headwater_cache::{Artifact, Digest, Entry, Shape, Store, Tree};

use crate::stage::{Bound, Failure, Stage};

/// Where trees are found and kept: the store, and in a preview a map over it that ends with the run.
pub(crate) struct Trees<'a> {
    store: &'a Store,
    unstored: Option<BTreeMap<Digest, Arc<Tree>>>,
}

impl<'a> Trees<'a> {
    pub fn new(store: &'a Store) -> Self {
        Self { store, unstored: None }
    }

    /// Trees that are put are kept in memory alone.
    pub fn preview(store: &'a Store) -> Self {
        Self { store, unstored: Some(BTreeMap::new()) }
    }

    /// The tree, if the artifact is one.
    pub fn of(&self, artifact: &Artifact) -> Result<Option<Arc<Tree>>, Failure> {
        if artifact.shape == Shape::Blob {
            return Ok(None);
        }
        let unstored = self.unstored.as_ref().and_then(|unstored| unstored.get(&artifact.digest));
        match unstored {
            Some(tree) => Ok(Some(tree.clone())),
            None => Ok(Some(self.store.get_tree(&artifact.digest)?)),
        }
    }

    /// Keeps a tree.
    pub fn put(&mut self, type_name: &str, tree: Tree) -> Result<Artifact, Failure> {
        let bytes = tree.bytes();
        let digest = match &mut self.unstored {
            None => self.store.put_tree(&tree)?,
            Some(unstored) => {
                let digest = Digest::of(&tree.encode().map_err(Failure::new)?);
                unstored.insert(digest, Arc::new(tree));
                digest
            }
        };
        Ok(Artifact { type_name: type_name.to_owned(), shape: Shape::Tree, digest, bytes })
    }
}

/// The outputs that consumers see, from those that the stage gave.
///
/// # Errors
/// [`Failure::Lost`] if the tree that a stage gave is gone; or if a composed tree cannot be stored.
pub(crate) fn compose(
    trees: &mut Trees<'_>,
    stage: &Stage,
    bound: &[Bound],
    given: Vec<Artifact>,
) -> Result<Vec<Artifact>, Failure> {
    if stage.outputs.iter().all(|port| port.passes.is_none()) {
        return Ok(given);
    }
    let mut composed = Vec::with_capacity(given.len());
    for (port, artifact) in stage.outputs.iter().zip(given) {
        let passed = port.passes.as_ref().and_then(|passed| bound.iter().find(|input| input.port == *passed));
        composed.push(match passed.and_then(|input| input.tree.as_ref()) {
            Some(base) => compose_one(trees, base, artifact)?,
            None => artifact,
        });
    }
    Ok(composed)
}

fn compose_one(trees: &mut Trees<'_>, base: &Tree, given: Artifact) -> Result<Artifact, Failure> {
    let Some(over) = trees.of(&given)? else { return Ok(given) };
    let tree = Tree { header: over.header.clone(), entries: lay_over(&base.entries, &over.entries) };
    trees.put(&given.type_name, tree)
}

fn lay_over(base: &[Entry], over: &[Entry]) -> Vec<Entry> {
    // By name, as a frame may have many thousand columns.
    let mut added: BTreeMap<&str, &Entry> = over.iter().map(|entry| (entry.name.as_str(), entry)).collect();
    let mut entries: Vec<Entry> =
        base.iter().map(|entry| added.remove(entry.name.as_str()).unwrap_or(entry).clone()).collect();
    entries.extend(over.iter().filter(|entry| added.contains_key(entry.name.as_str())).cloned());
    entries
}
