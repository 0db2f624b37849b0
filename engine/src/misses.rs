//! `Misses`: nodes that were looked up and are not cached, and whose turn to begin has not come.
//!
//! They take up nothing and hold no claim. It does not know the plan, nor what there is room for.
//!
//! What such a node reads is kept for some of them, so that it need not be gathered again when their turn comes. It is
//! forgotten when anything that was done is opened again, or a source has changed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::known::Inputs;

/// Of how many nodes is kept what they read: of a million that are ready it would fill the memory.
const KEPT: usize = 1024;

/// The nodes, the one with the highest priority first.
#[derive(Default)]
pub(crate) struct Misses {
    ranked: BinaryHeap<(u64, Reverse<usize>)>,
    inputs: BTreeMap<usize, Inputs>,
}

impl Misses {
    /// Adds a node.
    pub fn add(&mut self, node: usize, priority: u64, inputs: Inputs) {
        self.ranked.push((priority, Reverse(node)));
        if self.inputs.len() < KEPT {
            self.inputs.insert(node, inputs);
        }
    }

    /// The node that comes first.
    pub fn first(&self) -> Option<usize> {
        self.ranked.peek().map(|(_, Reverse(node))| *node)
    }

    /// Takes out the node that comes first; what it reads, if that is known.
    pub fn take(&mut self) -> Option<(usize, Option<Inputs>)> {
        let (_, Reverse(node)) = self.ranked.pop()?;
        Some((node, self.inputs.remove(&node)))
    }

    /// Forgets what they read.
    pub fn forget_inputs(&mut self) {
        self.inputs.clear();
    }

    /// Lets go of all nodes, and gives them.
    pub fn give_up(&mut self) -> Vec<usize> {
        self.inputs.clear();
        let mut nodes: Vec<usize> = self.ranked.drain().map(|(_, Reverse(node))| node).collect();
        nodes.sort_unstable();
        nodes
    }
}
