//! Stages that fail and are tried again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use headwater_cache::{Digest, StoreError};
use headwater_engine::{Event, Failure, Options, Outcome};

use crate::bench::{Bench, Draft, Work, options, stage};

/// Fails so many times.
fn flaky(name: &str, times: usize) -> Draft {
    let calls = Arc::new(AtomicUsize::new(0));
    stage(name).work(move |work| match calls.fetch_add(1, Ordering::SeqCst) {
        call if call < times => Err(Failure::new(format!("failure {call}"))),
        _ => work.put("done"),
    })
}

#[test]
fn a_stage_that_fails_is_tried_again_as_often_as_was_said_and_later_each_time() {
    let mut bench = Bench::new(&[]);
    let told = bench.run(&[flaky("flaky", 2).retries(2), stage("below").after("flaky")]);
    assert_eq!(
        told.events,
        [
            "started flaky",
            "flaky failed 1 times (failure 0), again in 1 s",
            "started flaky",
            "flaky failed 2 times (failure 1), again in 2 s",
            "started flaky",
            "started below",
            "ran flaky",
            "ran below"
        ]
    );
    assert_eq!(bench.clock.load(Ordering::SeqCst), 3);
}

#[test]
fn a_stage_that_fails_once_more_than_that_has_failed() {
    let mut bench = Bench::new(&[]);
    let told = bench.run(&[flaky("flaky", 3).retries(2), stage("below").after("flaky")]);
    assert_eq!((told.counts(), told.error("flaky")), ([0, 0, 1, 1, 0], "failure 2"));
    assert_eq!(told.called.len(), 3);
    assert!(bench.ledger.is_empty());
}

#[test]
fn a_stage_is_told_whether_it_is_tried_again() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = |name: &str, retries: u32| {
        let told = told.clone();
        let fails = move |work: &Work<'_>| {
            told.lock().expect("no panic").push(work.job.is_last);
            Err(Failure::new("no luck"))
        };
        stage(name).retries(retries).work(fails)
    };
    Bench::new(&[]).run(&[tells("flaky", 2)]);
    Bench::new(&[]).run(&[tells("steady", 0)]);
    assert_eq!(*told.lock().expect("no panic"), [false, false, true, true]);
}

#[test]
fn a_panic_is_tried_again() {
    let calls = AtomicUsize::new(0);
    let panics = stage("panics").retries(1).work(move |work| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => panic!("out of luck"),
        _ => work.put("done"),
    });
    assert_eq!(Bench::new(&[]).run(&[panics]).outcome("panics"), Outcome::Ran);
}

#[derive(Debug, thiserror::Error)]
#[error("cannot keep it")]
struct Kept(#[source] StoreError);

#[test]
fn a_failure_of_the_store_is_not_tried_again() {
    let missing = || StoreError::Format { root: "store".into(), found: 7, supported: 2 };
    let plain = stage("plain").retries(5).work(move |_| Err(missing().into()));
    let wrapped = stage("wrapped").retries(5).work(move |_| Err(Failure::new(Kept(missing()))));
    let told = Bench::new(&[]).keep_going(&[plain, wrapped]);
    assert_eq!((told.called.len(), told.counts()), (2, [0, 0, 2, 0, 0]));
}

#[test]
fn lost_inputs_are_made_anew_and_count_for_no_try() {
    let mut bench = Bench::new(&[]);
    let drafts = [stage("above"), flaky("flaky", 1).after("above").retries(1)];
    let lossy = drafts[1].clone().work({
        let calls = AtomicUsize::new(0);
        move |work| match calls.fetch_add(1, Ordering::SeqCst) {
            0 => Err(Failure::Lost(Digest::of(b"above:()"))),
            1 => Err(Failure::new("no luck")),
            _ => work.put("done"),
        }
    });
    let told = bench.run(&[drafts[0].clone(), lossy]);
    assert_eq!(told.outcome("flaky"), Outcome::Ran);
}

#[test]
fn who_pauses_takes_up_no_room() {
    let mut bench = Bench::new(&[]);
    let told = bench.run_with(&[flaky("flaky", 1).retries(1), stage("other")], &options());
    let order: Vec<_> = told.starts();
    assert_eq!(told.counts(), [2, 0, 0, 0, 0]);
    assert_eq!(order.len(), 3);
    // One at a time, and the pause ends by a message, so the other one has begun before it is looked at.
    assert_eq!(order[0], "started flaky");
}

#[test]
fn twins_of_a_flaky_stage_try_one_after_another_and_run_once() {
    for jobs in [1, 2] {
        let mut bench = Bench::new(&[]);
        let first = flaky("twin", 1).retries(1);
        let twins = [first.clone().named("first"), first.named("second")];
        let told = bench.run_with(&twins, &Options { jobs, ..options() });
        assert_eq!(told.counts(), [1, 1, 0, 0, 0]);
        assert_eq!(told.called.len(), 2);
    }
}

#[test]
fn a_run_that_ends_while_a_node_pauses_tells_how_that_failed() {
    let mut bench = Bench::new(&[]);
    let cancel = options().cancel;
    let options = Options { cancel: cancel.clone(), ..options() };
    let told = bench.watch(&[flaky("flaky", 1).retries(1), stage("below").after("flaky")], &options, &mut |event| {
        if matches!(event, Event::Retrying { .. }) {
            cancel.raise();
        }
    });
    assert_eq!((told.error("flaky"), told.called.len()), ("failure 0", 1));
    assert_eq!(told.counts(), [0, 0, 1, 1, 0]);
}
