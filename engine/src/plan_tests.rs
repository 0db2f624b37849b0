//! The plan, on graphs of a few integers.

use super::*;
use proptest::prelude::*;

fn lists(producers: &[Vec<usize>]) -> Lists {
    producers.iter().cloned().collect()
}

fn plan(producers: &[Vec<usize>]) -> Plan {
    Plan::new(&lists(producers), &vec![true; producers.len()])
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
    let remaining = remaining_paths(0..3, &lists(&producers), &[5, 1, 9]);
    assert_eq!(remaining, [5, 10, 9]);
    let mut plan = plan(&producers);
    plan.rank(remaining);
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
