//! `Plan`: which nodes wait, are ready, run or are done. Pure: no I/O, no clock, nodes are integers.
//!
//! It says which node comes next and what follows from the end of one. It does not know keys, stores or threads.
//!
//! Invariants: a node becomes ready once all nodes that it reads are done with outputs; each wanted node ends exactly
//! once, unless its bytes are found lost, which reopens it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

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

/// The state of all nodes.
pub struct Plan {
    states: Vec<State>,
    consumers: Vec<Vec<usize>>,
    priorities: Vec<u64>,
    ready: BinaryHeap<(u64, Reverse<usize>)>,
    /// Consumers that found a producer's bytes lost and wait for it alone.
    rewound: BTreeMap<usize, Vec<usize>>,
    open: usize,
}

impl Plan {
    /// A plan over the wanted nodes. `producers[n]` are the nodes that `n` reads, without repeats; among ready nodes the
    /// one with the highest priority comes first, then the lowest index.
    pub fn new(producers: &[Vec<usize>], wanted: &[bool], priorities: Vec<u64>) -> Self {
        let mut consumers = vec![Vec::new(); producers.len()];
        for (node, reads) in producers.iter().enumerate().filter(|(node, _)| wanted[*node]) {
            for producer in reads {
                consumers[*producer].push(node);
            }
        }
        let states = producers.iter().zip(wanted).map(|(reads, wanted)| match (wanted, reads.len()) {
            (false, _) => State::Unwanted,
            (true, 0) => State::Ready,
            (true, count) => State::Waiting(count),
        });
        let states: Vec<State> = states.collect();
        let ready = (0..states.len()).filter(|node| states[*node] == State::Ready);
        let ready = ready.map(|node| (priorities[node], Reverse(node))).collect();
        let open = wanted.iter().filter(|wanted| **wanted).count();
        Self { states, consumers, priorities, ready, rewound: BTreeMap::new(), open }
    }

    /// The state of a node.
    pub fn state(&self, node: usize) -> State {
        self.states[node]
    }

    /// Takes the next ready node; it counts as running from now on.
    pub fn next(&mut self) -> Option<usize> {
        let (_, Reverse(node)) = self.ready.pop()?;
        self.states[node] = State::Running;
        Some(node)
    }

    /// Puts a running node back: it is to be looked at again.
    pub fn put_back(&mut self, node: usize) {
        self.make_ready(node);
    }

    /// Whether every wanted node has ended.
    pub fn is_done(&self) -> bool {
        self.open == 0
    }

    /// Ends a running node. Gives the nodes that are skipped because of it, in order.
    pub fn finish(&mut self, node: usize, outcome: Outcome) -> Vec<usize> {
        self.end(node, outcome);
        let waiting = self.rewound.remove(&node).unwrap_or_else(|| self.consumers[node].clone());
        if matches!(outcome, Outcome::Ran | Outcome::Cached) {
            for consumer in waiting {
                self.release(consumer);
            }
            return Vec::new();
        }
        self.skip(waiting)
    }

    /// The bytes that `consumer` reads of `producer` are lost: the producer is opened again, and the consumer waits for
    /// it. Where the producer only passes on what another node made, that edge is rewound first.
    pub fn rewind(&mut self, consumer: usize, producer: usize) {
        if matches!(self.states[consumer], State::Done(_)) {
            self.open += 1;
        }
        self.states[consumer] = State::Waiting(1);
        self.rewound.entry(producer).or_default().push(consumer);
        if matches!(self.states[producer], State::Done(_)) {
            self.open += 1;
            self.make_ready(producer);
        }
    }

    /// Ends all nodes that have not begun. Gives them, in order.
    pub fn cancel(&mut self) -> Vec<usize> {
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
            _ => {}
        }
    }

    fn end(&mut self, node: usize, outcome: Outcome) {
        self.states[node] = State::Done(outcome);
        self.open -= 1;
    }

    fn skip(&mut self, first: Vec<usize>) -> Vec<usize> {
        let mut skipped = Vec::new();
        let mut open = first;
        while let Some(node) = open.pop() {
            if matches!(self.states[node], State::Waiting(_) | State::Ready) {
                self.end(node, Outcome::Skipped);
                skipped.push(node);
                open.extend(self.consumers[node].iter().copied());
            }
        }
        skipped.sort_unstable();
        skipped
    }
}

/// The length of the longest path from each node to the end, itself included: `costs` summed along edges.
/// `order` has producers before consumers.
pub fn remaining_paths(order: &[usize], producers: &[Vec<usize>], costs: &[u64]) -> Vec<u64> {
    let mut remaining = costs.to_vec();
    for node in order.iter().rev() {
        for producer in &producers[*node] {
            let through = remaining[*node].saturating_add(costs[*producer]);
            remaining[*producer] = remaining[*producer].max(through);
        }
    }
    remaining
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(producers: &[Vec<usize>]) -> Plan {
        Plan::new(producers, &vec![true; producers.len()], vec![0; producers.len()])
    }

    #[test]
    fn a_node_is_ready_once_all_that_it_reads_is_done() {
        let mut plan = plan(&[vec![], vec![], vec![0, 1]]);
        assert_eq!((plan.next(), plan.next(), plan.next()), (Some(0), Some(1), None));
        assert!(plan.finish(1, Outcome::Cached).is_empty());
        assert_eq!(plan.next(), None);
        assert!(plan.finish(0, Outcome::Ran).is_empty());
        assert_eq!(plan.next(), Some(2));
        plan.finish(2, Outcome::Ran);
        assert!(plan.is_done());
    }

    #[test]
    fn the_longest_remaining_path_comes_first() {
        let producers = [vec![], vec![], vec![1]];
        let remaining = remaining_paths(&[0, 1, 2], &producers, &[5, 1, 9]);
        assert_eq!(remaining, [5, 10, 9]);
        let mut plan = Plan::new(&producers, &[true; 3], remaining);
        assert_eq!(plan.next(), Some(1));
    }

    #[test]
    fn a_failure_skips_what_needs_it_and_nothing_else() {
        let mut plan = plan(&[vec![], vec![], vec![0], vec![2], vec![1]]);
        let (a, b) = (plan.next().expect("ready"), plan.next().expect("ready"));
        assert_eq!(plan.finish(a, Outcome::Failed), [2, 3]);
        plan.finish(b, Outcome::Ran);
        assert_eq!(plan.next(), Some(4));
    }

    #[test]
    fn lost_bytes_reopen_their_producer_and_only_the_finder_waits() {
        let mut plan = plan(&[vec![], vec![0], vec![0]]);
        plan.next();
        plan.finish(0, Outcome::Cached);
        let (finder, other) = (plan.next().expect("ready"), plan.next().expect("ready"));
        plan.rewind(finder, 0);
        assert_eq!(plan.next(), Some(0));
        plan.finish(other, Outcome::Ran);
        plan.finish(0, Outcome::Ran);
        assert_eq!(plan.next(), Some(finder));
        plan.finish(finder, Outcome::Ran);
        assert!(plan.is_done());
    }

    #[test]
    fn two_finders_of_one_loss_rebuild_it_once() {
        let mut plan = plan(&[vec![], vec![0], vec![0]]);
        plan.next();
        plan.finish(0, Outcome::Cached);
        let (a, b) = (plan.next().expect("ready"), plan.next().expect("ready"));
        plan.rewind(a, 0);
        plan.rewind(b, 0);
        assert_eq!((plan.next(), plan.next()), (Some(0), None));
        plan.finish(0, Outcome::Ran);
        assert_eq!((plan.next(), plan.next(), plan.next()), (Some(1), Some(2), None));
    }

    #[test]
    fn a_loss_behind_a_node_that_passes_it_on_reopens_both() {
        let mut plan = plan(&[vec![], vec![0], vec![1]]);
        for node in 0..2 {
            assert_eq!(plan.next(), Some(node));
            plan.finish(node, Outcome::Cached);
        }
        assert_eq!(plan.next(), Some(2));
        plan.rewind(1, 0);
        plan.rewind(2, 1);
        for node in 0..3 {
            assert_eq!((plan.next(), plan.is_done()), (Some(node), false));
            plan.finish(node, Outcome::Ran);
        }
        assert!(plan.is_done());
    }

    #[test]
    fn cancelling_ends_what_has_not_begun() {
        let mut plan = plan(&[vec![], vec![], vec![0]]);
        let running = plan.next().expect("ready");
        assert_eq!(plan.cancel(), [1, 2]);
        assert!(!plan.is_done());
        plan.finish(running, Outcome::Ran);
        assert!(plan.is_done());
        assert_eq!(plan.next(), None);
    }

    /// Producers with lower indices only: acyclic by construction.
    fn any_graph() -> impl Strategy<Value = Vec<Vec<usize>>> {
        proptest::collection::vec(proptest::collection::vec(any::<proptest::sample::Index>(), 0..4), 1..30).prop_map(
            |picks| {
                let reads = |(node, picks): (usize, &Vec<proptest::sample::Index>)| {
                    let mut reads: Vec<usize> =
                        if node == 0 { vec![] } else { picks.iter().map(|pick| pick.index(node)).collect() };
                    reads.sort_unstable();
                    reads.dedup();
                    reads
                };
                picks.iter().enumerate().map(reads).collect()
            },
        )
    }

    proptest! {
        #[test]
        fn every_node_ends_once_and_after_what_it_reads(
            producers in any_graph(),
            choices in proptest::collection::vec((any::<bool>(), 0u8..20), 200),
        ) {
            let mut plan = plan(&producers);
            let mut ended = vec![None; producers.len()];
            let mut running = Vec::new();
            let mut choices = choices.into_iter().cycle();
            while !plan.is_done() {
                let (start, fate) = choices.next().expect("endless");
                if start || running.is_empty() {
                    if let Some(node) = plan.next() {
                        for producer in &producers[node] {
                            prop_assert_eq!(ended[*producer], Some(Outcome::Ran));
                        }
                        running.push(node);
                    }
                } else if let Some(node) = running.pop() {
                    let outcome = if fate == 0 { Outcome::Failed } else { Outcome::Ran };
                    prop_assert_eq!(ended[node].replace(outcome), None);
                    for skipped in plan.finish(node, outcome) {
                        prop_assert_eq!(ended[skipped].replace(Outcome::Skipped), None);
                    }
                }
            }
            prop_assert!(ended.iter().all(Option::is_some));
        }
    }
}
