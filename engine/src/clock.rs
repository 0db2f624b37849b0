//! `Clock`: how time reaches the engine, and `Pauses`: nodes that are tried again later.
//!
//! It does not know nodes but as integers, nor why one pauses. No result depends on it.
//!
//! Invariants: a node that pauses takes up no thread and no room; at any time at most one alarm is set that is not
//! earlier than all others, so that a million pauses need no million alarms.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The pause after the first try that failed, in seconds; each further one is twice as long.
const FIRST: f64 = 1.0;
/// The longest pause.
const LONGEST: f64 = 60.0;

/// How time reaches the engine.
pub trait Clock: Sync {
    /// Seconds since some fixed moment.
    fn now(&self) -> f64;
    /// Has `alarm` called once, on any thread, when so many seconds have passed. Does not wait for that.
    fn after(&self, seconds: f64, alarm: Box<dyn FnOnce() + Send>);
}

/// The seconds from the end of a try that failed, counted from 1, to the next.
pub(crate) fn pause_after(attempt: u32) -> f64 {
    let doublings = i32::try_from(attempt.saturating_sub(1).min(16)).expect("it is at most 16");
    (FIRST * 2f64.powi(doublings)).min(LONGEST)
}

/// Nodes that pause, by the microsecond at which each is due.
#[derive(Default)]
pub(crate) struct Pauses {
    due: BinaryHeap<Reverse<(u64, usize)>>,
    /// The earliest alarm that has not rung.
    set: Option<u64>,
}

impl Pauses {
    /// Whether no node pauses.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Has a node pause.
    pub fn add(&mut self, node: usize, now: f64, seconds: f64) {
        self.due.push(Reverse((micros(now + seconds), node)));
    }

    /// The alarm to set now, if there is need of another: when it is due, and the seconds until then.
    pub fn alarm(&mut self, now: f64) -> Option<(u64, f64)> {
        let Reverse((due, _)) = *self.due.peek()?;
        if self.set.is_some_and(|set| set <= due) {
            return None;
        }
        self.set = Some(due);
        Some((due, (due as f64 / 1e6 - now).max(0.0)))
    }

    /// The alarm of this moment has rung: gives the nodes that are due.
    pub fn ring(&mut self, moment: u64) -> Vec<usize> {
        if self.set.is_some_and(|set| set <= moment) {
            self.set = None;
        }
        let mut nodes = Vec::new();
        while let Some(Reverse((due, node))) = self.due.peek()
            && *due <= moment
        {
            nodes.push(*node);
            self.due.pop();
        }
        nodes
    }

    /// Lets go of all nodes, and gives them.
    pub fn give_up(&mut self) -> Vec<usize> {
        let mut nodes: Vec<usize> = self.due.drain().map(|Reverse((_, node))| node).collect();
        nodes.sort_unstable();
        nodes
    }
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_a_minute() {
        let pauses: Vec<f64> = (1..=8).map(pause_after).collect();
        assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        assert_eq!(pause_after(u32::MAX), 60.0);
    }

    #[test]
    fn many_pauses_need_one_alarm_unless_one_is_earlier() {
        let mut pauses = Pauses::default();
        for node in 0..100 {
            pauses.add(node, 1.0, 2.0);
        }
        assert_eq!(pauses.alarm(1.0), Some((3_000_000, 2.0)));
        assert_eq!(pauses.alarm(1.0), None);
        pauses.add(100, 1.5, 1.0);
        assert_eq!(pauses.alarm(1.5), Some((2_500_000, 1.0)));
        assert_eq!(pauses.ring(2_500_000), [100]);
        assert_eq!(pauses.alarm(2.5), Some((3_000_000, 0.5)));
        assert_eq!(pauses.ring(3_000_000), (0..100).collect::<Vec<_>>());
        assert!(pauses.is_empty() && pauses.alarm(3.0).is_none());
        assert!(pauses.ring(3_000_000).is_empty());
    }

    #[test]
    fn a_pause_that_is_over_before_its_alarm_is_set_rings_at_once() {
        let mut pauses = Pauses::default();
        pauses.add(0, 1.0, 1.0);
        assert_eq!(pauses.alarm(5.0), Some((2_000_000, 0.0)));
    }
}
