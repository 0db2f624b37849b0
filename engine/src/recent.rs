//! `Recent`: what nodes had made last, as it was read together when the run began.
//!
//! It saves a read for each node that is cached. It does not know keys: who asks knows that the node's is the one of its
//! last finish. Invariant: when others have written records meanwhile, it is empty.

use headwater_cache::Made;

/// What each node had made last, until somebody asks.
#[derive(Debug, Default)]
pub(crate) struct Recent(Vec<Option<Made>>);

impl Recent {
    /// With what the nodes had made, in their order.
    pub fn new(made: Vec<Option<Made>>) -> Self {
        Self(made)
    }

    /// Gives what a node had made, once.
    pub fn take(&mut self, node: usize) -> Option<Made> {
        self.0.get_mut(node)?.take()
    }

    /// What that had cost, if it was not taken.
    pub fn seconds(&self, node: usize) -> Option<f64> {
        self.0.get(node)?.as_ref().map(|made| made.seconds)
    }

    /// Others have written records: what was read may not be the last any more.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}
