//! Nodes that have one key.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use headwater_engine::{Failure, NodeId, Options, Outcome};

use crate::bench::{Bench, Draft, options, stage};

fn two_jobs() -> Options {
    Options { jobs: 2, ..options() }
}

fn twins(draft: Draft) -> [Draft; 2] {
    [draft.clone().kind("twin").named("first"), draft.kind("twin").named("second")]
}

/// Fails so many times.
fn failing_first(times: usize) -> Draft {
    let calls = Arc::new(AtomicUsize::new(0));
    stage("twin").work(move |work| match calls.fetch_add(1, Ordering::SeqCst) {
        call if call < times => Err(Failure::new(format!("failure {call}"))),
        _ => work.put("done"),
    })
}

#[test]
fn nodes_with_one_key_run_once() {
    for jobs in [1, 2, 3] {
        let mut bench = Bench::new(&[]);
        let told = bench.run_with(&twins(stage("twin")), &Options { jobs, ..options() });
        assert_eq!(told.events, ["started first", "ran first", "cached second"]);
        assert_eq!(told.finishes["first"].outputs, told.finishes["second"].outputs);
        assert_eq!(told.counts(), [1, 1, 0, 0, 0]);
    }
}

#[test]
fn if_the_first_fails_the_second_tries_itself() {
    let mut bench = Bench::new(&[]);
    let told = bench.run_with(&twins(failing_first(1)), &Options { keep_going: true, ..two_jobs() });
    assert_eq!(told.called, ["first", "second"]);
    assert_eq!((told.outcome("first"), told.outcome("second")), (Outcome::Failed, Outcome::Ran));
}

#[test]
fn if_the_first_fails_and_that_ends_the_run_the_second_is_cancelled() {
    let mut bench = Bench::new(&[]);
    let drafts = [twins(failing_first(1)).to_vec(), vec![stage("below").after("first")]].concat();
    let told = bench.run_with(&drafts, &two_jobs());
    assert_eq!(told.events, ["started first", "failed first", "skipped below", "cancelled second"]);
}

#[test]
fn if_the_first_panics_the_second_tries_itself() {
    let mut bench = Bench::new(&[]);
    let told =
        bench.run_with(&twins(stage("twin").work(|_| panic!("both"))), &Options { keep_going: true, ..two_jobs() });
    assert_eq!(told.counts(), [0, 0, 2, 0, 0]);
}

#[test]
fn forced_nodes_with_one_key_run_once() {
    for jobs in [1, 2] {
        let mut bench = Bench::new(&[]);
        let drafts = twins(stage("twin"));
        bench.run(&drafts);
        let told = bench.run_with(&drafts, &Options { jobs, forced: vec![NodeId(0), NodeId(1)], ..options() });
        assert_eq!(told.events, ["started first", "ran first", "cached second"]);
    }
}
