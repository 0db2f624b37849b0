//! `Forecast`: how long a run is expected to take, from what its nodes cost when they last ran.
//!
//! It does not know why a node runs. Invariant: it is at least the longest chain of what runs, and at least the work
//! divided by how many run at once; what starts and moves data beside the stages themselves is not in it.

use std::collections::BTreeMap;

use headwater_engine::{Graph, NodeId, Preview};

use crate::report::duration;
use crate::workspace::Previewed;

/// What a preview's nodes will take.
#[derive(Debug, Default, PartialEq)]
pub struct Forecast {
    /// Seconds for what is certain to run.
    certain: f64,
    /// Seconds if all runs that may.
    at_most: f64,
    /// How many may run of which no run is on record: they are new, or their records were removed.
    unknown: usize,
}

/// A node of a preview: what reads it comes later.
struct Task {
    is_certain: bool,
    is_possible: bool,
    /// What it cost when it last ran.
    seconds: Option<f64>,
    /// Where those stand that it reads.
    producers: Vec<usize>,
}

impl Forecast {
    /// For nodes in the graph's order, what they cost, and how many of them run at once.
    pub fn of(graph: &Graph, previews: &[(NodeId, Previewed)], costs: &BTreeMap<NodeId, f64>, jobs: usize) -> Self {
        let mut places = vec![None; graph.len()];
        let mut tasks = Vec::with_capacity(previews.len());
        for (at, (id, Previewed { preview, .. })) in previews.iter().enumerate() {
            places[id.0] = Some(at);
            let is_certain = matches!(preview, Preview::Stale(_));
            let is_possible = is_certain || matches!(preview, Preview::Maybe(_));
            let producers = graph.producers(*id).into_iter().filter_map(|node| places[node.0]).collect();
            let seconds = costs.get(id).copied();
            tasks.push(Task { is_certain, is_possible, seconds, producers });
        }
        Self::of_tasks(&tasks, jobs)
    }

    fn of_tasks(tasks: &[Task], jobs: usize) -> Self {
        let unknown = tasks.iter().filter(|task| task.is_possible && task.seconds.is_none()).count();
        let (certain, at_most) = (|task: &Task| task.is_certain, |task: &Task| task.is_possible);
        Self { certain: bound(tasks, jobs, certain), at_most: bound(tasks, jobs, at_most), unknown }
    }

    /// A line for a person; `None` if nothing runs.
    pub fn line(&self) -> Option<String> {
        let unknown = match self.unknown {
            0 => None,
            some => Some(format!("{some} with no run on record")),
        };
        if self.at_most == 0.0 {
            return unknown.map(|unknown| format!("expected: not known, {unknown}"));
        }
        let (certain, at_most) = (duration(self.certain), duration(self.at_most));
        let told = if certain == at_most { certain } else { format!("{certain} to {at_most}") };
        Some(format!("expected: {told}{}", unknown.map_or_else(String::new, |unknown| format!(", and {unknown}"))))
    }
}

/// The longer of the longest chain and the work divided by `jobs` (Graham, 1969: no schedule is shorter).
fn bound(tasks: &[Task], jobs: usize, counts: impl Fn(&Task) -> bool) -> f64 {
    let (mut ends, mut work) = (Vec::with_capacity(tasks.len()), 0.0);
    for task in tasks {
        let seconds = task.seconds.filter(|_| counts(task)).unwrap_or(0.0);
        let begin = task.producers.iter().map(|at| ends[*at]).fold(0.0, f64::max);
        ends.push(begin + seconds);
        work += seconds;
    }
    ends.into_iter().fold(work / jobs.max(1) as f64, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(is_certain: bool, seconds: Option<f64>, producers: &[usize]) -> Task {
        Task { is_certain, is_possible: true, seconds, producers: producers.to_vec() }
    }

    fn cached() -> Task {
        Task { is_certain: false, is_possible: false, seconds: None, producers: vec![] }
    }

    #[test]
    fn a_chain_takes_its_length_and_what_is_wide_its_work() {
        let chain = [task(true, Some(2.0), &[]), task(true, Some(3.0), &[0])];
        assert_eq!(Forecast::of_tasks(&chain, 8).line().as_deref(), Some("expected: 5.00 s"));
        let wide: Vec<Task> = (0..8).map(|_| task(true, Some(2.0), &[])).collect();
        assert_eq!(Forecast::of_tasks(&wide, 4).line().as_deref(), Some("expected: 4.00 s"));
    }

    #[test]
    fn what_may_be_cut_off_is_a_range() {
        let tasks = [task(true, Some(2.0), &[]), task(false, Some(90.0), &[0])];
        assert_eq!(Forecast::of_tasks(&tasks, 2).line().as_deref(), Some("expected: 2.00 s to 1 min 32 s"));
    }

    #[test]
    fn what_never_ran_is_counted_and_not_guessed() {
        let known = [task(true, Some(2.0), &[]), task(true, None, &[0]), task(false, None, &[1])];
        assert_eq!(
            Forecast::of_tasks(&known, 2).line().as_deref(),
            Some("expected: 2.00 s, and 2 with no run on record")
        );
        let new = [task(true, None, &[])];
        assert_eq!(Forecast::of_tasks(&new, 2).line().as_deref(), Some("expected: not known, 1 with no run on record"));
    }

    #[test]
    fn where_nothing_runs_nothing_is_expected() {
        assert_eq!(Forecast::of_tasks(&[cached(), cached()], 2).line(), None);
    }
}
