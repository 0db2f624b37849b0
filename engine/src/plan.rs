//! `Plan`: which nodes wait, are ready, run or are done. Pure: no I/O, no clock, nodes are integers.
//!
//! It says which node comes next and what follows from the end of one. It does not know keys, stores or threads.
//!
//! Invariants: a waiting node counts exactly those of its producers that are not done, so it becomes ready once all of
//! them are; each wanted node ends exactly once, unless it is opened again.

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

/// The state of all nodes.
pub struct Plan {
    states: Vec<State>,
    producers: Vec<Vec<usize>>,
    consumers: Vec<Vec<usize>>,
    priorities: Vec<u64>,
    /// All ready nodes, and perhaps some that were ready once: what is taken from it is looked at again.
    ready: BinaryHeap<(u64, Reverse<usize>)>,
    open: usize,
}

impl Plan {
    /// A plan over the wanted nodes and all that they read. `producers[n]` are the nodes that `n` reads, without
    /// repeats; among ready nodes the one with the highest priority comes first, then the lowest index.
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
        Self { states, producers: producers.to_vec(), consumers, priorities, ready, open }
    }

    /// The state of a node.
    pub fn state(&self, node: usize) -> State {
        self.states[node]
    }

    /// Takes the next ready node; it counts as running from now on.
    pub fn take(&mut self) -> Option<usize> {
        while let Some((_, Reverse(node))) = self.ready.pop() {
            if self.states[node] == State::Ready {
                self.states[node] = State::Running;
                return Some(node);
            }
        }
        None
    }

    /// Puts a running node back: it is to be looked at again, once all that it reads is done.
    pub fn put_back(&mut self, node: usize) {
        let reads = self.producers[node].iter();
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
        let consumers = self.consumers[node].clone();
        if !matches!(outcome, Outcome::Ran | Outcome::Cached) {
            return self.skip(consumers);
        }
        for consumer in consumers {
            self.release(consumer);
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
        for consumer in &self.consumers[node] {
            match &mut self.states[*consumer] {
                State::Waiting(count) => *count += 1,
                state @ State::Ready => *state = State::Waiting(1),
                State::Unwanted | State::Running | State::Done(_) => {}
            }
        }
        self.put_back(node);
    }

    /// Fails a node that is done with outputs. Gives the nodes that are skipped because of it, in order; those that run
    /// or are done stay as they are.
    pub fn revoke(&mut self, node: usize) -> Vec<usize> {
        self.states[node] = State::Done(Outcome::Failed);
        self.skip(self.consumers[node].clone())
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
            State::Unwanted | State::Ready | State::Running | State::Done(_) => {}
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
        assert_eq!((plan.take(), plan.take(), plan.take()), (Some(0), Some(1), None));
        assert!(plan.finish(1, Outcome::Cached).is_empty());
        assert_eq!(plan.take(), None);
        assert!(plan.finish(0, Outcome::Ran).is_empty());
        assert_eq!(plan.take(), Some(2));
        plan.finish(2, Outcome::Ran);
        assert!(plan.is_done());
    }

    #[test]
    fn the_longest_remaining_path_comes_first() {
        let producers = [vec![], vec![], vec![1]];
        let remaining = remaining_paths(&[0, 1, 2], &producers, &[5, 1, 9]);
        assert_eq!(remaining, [5, 10, 9]);
        let mut plan = Plan::new(&producers, &[true; 3], remaining);
        assert_eq!(plan.take(), Some(1));
    }

    #[test]
    fn a_failure_skips_what_needs_it_and_nothing_else() {
        let mut plan = plan(&[vec![], vec![], vec![0], vec![2], vec![1]]);
        let (a, b) = (plan.take().expect("ready"), plan.take().expect("ready"));
        assert_eq!(plan.finish(a, Outcome::Failed), [2, 3]);
        plan.finish(b, Outcome::Ran);
        assert_eq!(plan.take(), Some(4));
    }

    #[test]
    fn a_node_put_back_waits_for_a_producer_that_was_opened_again() {
        let mut plan = plan(&[vec![], vec![0], vec![0]]);
        plan.take();
        plan.finish(0, Outcome::Cached);
        let (finder, other) = (plan.take().expect("ready"), plan.take().expect("ready"));
        plan.reopen(0);
        plan.put_back(finder);
        assert_eq!((plan.take(), plan.take()), (Some(0), None));
        plan.finish(other, Outcome::Ran);
        plan.finish(0, Outcome::Ran);
        assert_eq!(plan.take(), Some(finder));
        plan.finish(finder, Outcome::Ran);
        assert!(plan.is_done());
    }

    #[test]
    fn consumers_that_have_not_begun_wait_for_a_producer_that_was_opened_again() {
        let mut plan = plan(&[vec![], vec![], vec![0], vec![0], vec![0, 1]]);
        plan.take();
        plan.finish(0, Outcome::Cached);
        assert_eq!((plan.take(), plan.take()), (Some(1), Some(2)));
        plan.reopen(0);
        plan.put_back(2);
        assert_eq!((plan.state(3), plan.state(4)), (State::Waiting(1), State::Waiting(2)));
        assert_eq!((plan.take(), plan.take()), (Some(0), None));
        plan.finish(0, Outcome::Ran);
        plan.finish(1, Outcome::Ran);
        assert_eq!((plan.take(), plan.take(), plan.take(), plan.take()), (Some(2), Some(3), Some(4), None));
    }

    #[test]
    fn two_finders_of_one_loss_open_its_producer_once() {
        let mut plan = plan(&[vec![], vec![0], vec![0]]);
        plan.take();
        plan.finish(0, Outcome::Cached);
        for finder in [plan.take().expect("ready"), plan.take().expect("ready")] {
            plan.reopen(0);
            plan.put_back(finder);
        }
        assert_eq!((plan.take(), plan.take()), (Some(0), None));
        plan.finish(0, Outcome::Ran);
        assert_eq!((plan.take(), plan.take(), plan.take()), (Some(1), Some(2), None));
    }

    #[test]
    fn nodes_opened_again_from_the_top_run_in_order() {
        let mut plan = plan(&[vec![], vec![0], vec![1]]);
        for node in 0..2 {
            assert_eq!(plan.take(), Some(node));
            plan.finish(node, Outcome::Cached);
        }
        assert_eq!(plan.take(), Some(2));
        plan.reopen(0);
        plan.reopen(1);
        plan.put_back(2);
        for node in 0..3 {
            assert_eq!((plan.take(), plan.is_done()), (Some(node), false));
            plan.finish(node, Outcome::Ran);
        }
        assert!(plan.is_done());
    }

    #[test]
    fn a_failed_node_is_not_opened_again() {
        let mut plan = plan(&[vec![], vec![0]]);
        plan.take();
        plan.finish(0, Outcome::Cached);
        assert_eq!(plan.take(), Some(1));
        plan.reopen(0);
        assert_eq!(plan.take(), Some(0));
        assert!(plan.finish(0, Outcome::Failed).is_empty());
        plan.reopen(0);
        assert_eq!(plan.state(0), State::Done(Outcome::Failed));
        plan.put_back(1);
        assert_eq!(plan.take(), Some(1));
        plan.finish(1, Outcome::Skipped);
        assert!(plan.is_done());
    }

    #[test]
    fn a_node_revoked_skips_what_has_not_begun_and_nothing_else() {
        let mut plan = plan(&[vec![], vec![0], vec![0], vec![0, 2], vec![1]]);
        plan.take();
        plan.finish(0, Outcome::Ran);
        let (done, running) = (plan.take().expect("ready"), plan.take().expect("ready"));
        plan.finish(done, Outcome::Ran);
        assert_eq!(plan.revoke(0), [3]);
        assert_eq!((plan.state(0), plan.state(done)), (State::Done(Outcome::Failed), State::Done(Outcome::Ran)));
        plan.reopen(0);
        assert_eq!((plan.take(), plan.take()), (Some(4), None));
        plan.finish(4, Outcome::Ran);
        assert!(!plan.is_done());
        plan.finish(running, Outcome::Ran);
        assert!(plan.is_done());
    }

    #[test]
    fn cancelling_ends_what_has_not_begun() {
        let mut plan = plan(&[vec![], vec![], vec![0]]);
        let running = plan.take().expect("ready");
        assert_eq!(plan.cancel(), [1, 2]);
        assert!(!plan.is_done());
        plan.finish(running, Outcome::Ran);
        assert!(plan.is_done());
        assert_eq!(plan.take(), None);
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
                    if let Some(node) = plan.take() {
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
