//! `Plan`: which nodes wait, are ready, run or are done. Pure: no I/O, no clock, nodes are integers.
//!
//! It says which node comes next and what follows from the end of one. It does not know keys, stores, threads or what a
//! node takes up while it runs.
//!
//! Invariants: a waiting node counts exactly those of its producers that are not done, so it becomes ready once all of
//! them are; each wanted node ends exactly once, unless it is opened again. All that it does for a node and its edges
//! in a run is a bounded number of steps, but for the heap of ready nodes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::event::Outcome;

/// The state of one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not part of this run.
    Unwanted,
    /// This many of its producers are not done.
    Waiting(usize),
    Ready,
    /// Handed out.
    Running,
    Done(Outcome),
}

/// A list of nodes for each node, all in one piece of memory: a graph of a million nodes is two allocations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lists {
    /// Where each list begins; one more than there are lists.
    begins: Vec<usize>,
    items: Vec<usize>,
}

impl Default for Lists {
    fn default() -> Self {
        Self { begins: vec![0], items: Vec::new() }
    }
}

impl Lists {
    /// No lists, with room for so many and their items.
    pub fn with_capacity(lists: usize, items: usize) -> Self {
        let mut begins = Vec::with_capacity(lists + 1);
        begins.push(0);
        Self { begins, items: Vec::with_capacity(items) }
    }

    /// Adds the next node's list.
    pub fn push(&mut self, list: impl IntoIterator<Item = usize>) {
        self.items.extend(list);
        self.begins.push(self.items.len());
    }

    /// A node's list.
    pub fn get(&self, node: usize) -> &[usize] {
        &self.items[self.begins[node]..self.begins[node + 1]]
    }

    /// The number of lists.
    pub fn len(&self) -> usize {
        self.begins.len() - 1
    }

    /// Whether there is no list.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The lists in order.
    pub fn iter(&self) -> impl Iterator<Item = &[usize]> {
        self.begins.windows(2).map(|ends| &self.items[ends[0]..ends[1]])
    }

    /// For each node, those whose lists it is in and that are `wanted`, in order.
    fn turned(&self, wanted: &[bool]) -> Self {
        let within = || self.iter().enumerate().filter(|(node, _)| wanted[*node]);
        let mut begins = vec![0; self.len() + 1];
        for item in within().flat_map(|(_, list)| list) {
            begins[item + 1] += 1;
        }
        for at in 1..begins.len() {
            begins[at] += begins[at - 1];
        }
        let (mut next, mut items) = (begins.clone(), vec![0; begins[self.len()]]);
        for (node, list) in within() {
            for item in list {
                items[next[*item]] = node;
                next[*item] += 1;
            }
        }
        Self { begins, items }
    }
}

impl<L: IntoIterator<Item = usize>> FromIterator<L> for Lists {
    fn from_iter<T: IntoIterator<Item = L>>(lists: T) -> Self {
        let mut all = Self::default();
        lists.into_iter().for_each(|list| all.push(list));
        all
    }
}

/// The state of all nodes.
pub struct Plan {
    states: Vec<State>,
    producers: Lists,
    consumers: Lists,
    priorities: Vec<u64>,
    /// All ready nodes, and perhaps some that were ready once: what is taken from it is looked at again.
    ready: BinaryHeap<(u64, Reverse<usize>)>,
    /// Wanted nodes that have not ended.
    open: usize,
    /// Nodes that are handed out.
    running: usize,
}

impl Plan {
    /// A plan over the wanted nodes and all that they read. `producers` has the nodes that each reads, without
    /// repeats. Among ready nodes the one with the lowest index comes first, unless [`Plan::rank`] says otherwise.
    pub fn new(producers: &Lists, wanted: &[bool]) -> Self {
        let state = |(node, reads): (usize, &[usize])| match (wanted[node], reads.len()) {
            (false, _) => State::Unwanted,
            (true, 0) => State::Ready,
            (true, count) => State::Waiting(count),
        };
        let states: Vec<State> = producers.iter().enumerate().map(state).collect();
        let open = wanted.iter().filter(|wanted| **wanted).count();
        let (producers, consumers) = (producers.clone(), producers.turned(wanted));
        let priorities = vec![0; states.len()];
        let mut plan = Self { states, producers, consumers, priorities, ready: BinaryHeap::new(), open, running: 0 };
        plan.heap();
        plan
    }

    /// From now on the ready node with the highest priority comes first, then the lowest index.
    pub fn rank(&mut self, priorities: Vec<u64>) {
        self.priorities = priorities;
        self.heap();
    }

    fn heap(&mut self) {
        let ready = (0..self.states.len()).filter(|node| self.states[*node] == State::Ready);
        self.ready = ready.map(|node| (self.priorities[node], Reverse(node))).collect();
    }

    /// The priority of a node.
    pub fn priority(&self, node: usize) -> u64 {
        self.priorities[node]
    }

    /// The state of a node.
    pub fn state(&self, node: usize) -> State {
        self.states[node]
    }

    /// The nodes that a node reads.
    pub fn producers(&self, node: usize) -> &[usize] {
        self.producers.get(node)
    }

    /// The wanted nodes that read a node.
    pub fn consumers(&self, node: usize) -> &[usize] {
        self.consumers.get(node)
    }

    /// Whether all that a node reads has ended.
    pub fn is_fed(&self, node: usize) -> bool {
        self.producers(node).iter().all(|producer| matches!(self.states[*producer], State::Done(_)))
    }

    /// The next ready node.
    pub fn peek(&mut self) -> Option<usize> {
        while let Some((_, Reverse(node))) = self.ready.peek() {
            if self.states[*node] == State::Ready {
                return Some(*node);
            }
            self.ready.pop();
        }
        None
    }

    /// Takes the next ready node; it counts as running from now on.
    pub fn take(&mut self) -> Option<usize> {
        let node = self.peek()?;
        self.ready.pop();
        self.states[node] = State::Running;
        self.running += 1;
        Some(node)
    }

    /// Puts a running node back: it is to be looked at again, once all that it reads is done.
    pub fn put_back(&mut self, node: usize) {
        self.leave(node);
        self.wait(node);
    }

    /// A node waits for those of its producers that are not done, or is ready.
    fn wait(&mut self, node: usize) {
        let reads = self.producers.get(node).iter();
        match reads.filter(|producer| !matches!(self.states[**producer], State::Done(_))).count() {
            0 => self.make_ready(node),
            count => self.states[node] = State::Waiting(count),
        }
    }

    /// Whether every wanted node has ended.
    pub fn is_done(&self) -> bool {
        self.open == 0
    }

    /// Ends a running node. Gives the nodes that are skipped because of it, in order.
    pub fn finish(&mut self, node: usize, outcome: Outcome) -> Vec<usize> {
        self.end(node, outcome);
        if !matches!(outcome, Outcome::Ran | Outcome::Cached) {
            return self.skip(node);
        }
        for at in self.consumers.begins[node]..self.consumers.begins[node + 1] {
            self.release(self.consumers.items[at]);
        }
        Vec::new()
    }

    /// Opens a node that is done with outputs, so that it is looked at again; any other is left as it is. Its consumers
    /// that have not begun wait for it; those that run or are done go on as they are.
    pub fn reopen(&mut self, node: usize) {
        if !matches!(self.states[node], State::Done(Outcome::Ran | Outcome::Cached)) {
            return;
        }
        self.open += 1;
        for consumer in self.consumers.get(node) {
            match &mut self.states[*consumer] {
                State::Waiting(count) => *count += 1,
                state @ State::Ready => *state = State::Waiting(1),
                State::Unwanted | State::Running | State::Done(_) => {}
            }
        }
        self.wait(node);
    }

    /// Fails a node that is done with outputs. Gives the nodes that are skipped because of it, in order; those that run
    /// or are done stay as they are.
    pub fn revoke(&mut self, node: usize) -> Vec<usize> {
        self.states[node] = State::Done(Outcome::Failed);
        self.skip(node)
    }

    /// Ends all nodes that have not begun. Gives them, in order.
    pub fn cancel(&mut self) -> Vec<usize> {
        // A run that ends asks after each message.
        if self.open == self.running {
            return Vec::new();
        }
        self.ready.clear();
        let unbegun = |state: &State| matches!(state, State::Ready | State::Waiting(_));
        let nodes: Vec<usize> = (0..self.states.len()).filter(|node| unbegun(&self.states[*node])).collect();
        for node in &nodes {
            self.end(*node, Outcome::Cancelled);
        }
        nodes
    }

    fn make_ready(&mut self, node: usize) {
        self.states[node] = State::Ready;
        self.ready.push((self.priorities[node], Reverse(node)));
    }

    fn release(&mut self, consumer: usize) {
        match self.states[consumer] {
            State::Waiting(1) => self.make_ready(consumer),
            State::Waiting(count) => self.states[consumer] = State::Waiting(count - 1),
            State::Unwanted | State::Ready | State::Running | State::Done(_) => {}
        }
    }

    fn end(&mut self, node: usize, outcome: Outcome) {
        self.leave(node);
        self.states[node] = State::Done(outcome);
        self.open -= 1;
    }

    fn leave(&mut self, node: usize) {
        self.running -= usize::from(self.states[node] == State::Running);
    }

    /// Skips all that needs a node and has not begun.
    fn skip(&mut self, node: usize) -> Vec<usize> {
        let mut skipped = Vec::new();
        let mut open = self.consumers.get(node).to_vec();
        while let Some(node) = open.pop() {
            if matches!(self.states[node], State::Waiting(_) | State::Ready) {
                self.end(node, Outcome::Skipped);
                skipped.push(node);
                open.extend(self.consumers.get(node));
            }
        }
        skipped.sort_unstable();
        skipped
    }
}

/// The length of the longest path from each node to the end, itself included: `costs` summed along edges.
/// `order` has producers before consumers.
pub fn remaining_paths(order: impl DoubleEndedIterator<Item = usize>, producers: &Lists, costs: &[u64]) -> Vec<u64> {
    let mut remaining = costs.to_vec();
    for node in order.rev() {
        for producer in producers.get(node) {
            let through = remaining[node].saturating_add(costs[*producer]);
            remaining[*producer] = remaining[*producer].max(through);
        }
    }
    remaining
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
