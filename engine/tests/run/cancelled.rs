//! Runs that are told to end.

use headwater_cache::Artifact;
use headwater_engine::{Cancel, Event, Failure, Level, Options, Outcome};

use crate::bench::{Bench, Work, options, stage};

/// Options, and a stage's work: it raises the handle, and then does this.
fn raising(
    work: impl Fn(&Work<'_>) -> Result<Vec<Artifact>, Failure> + Send + Sync + 'static,
) -> (Options, impl Fn(&Work<'_>) -> Result<Vec<Artifact>, Failure> + Send + Sync + 'static) {
    let options = options();
    let cancel = options.cancel.clone();
    let raise = move |told: &Work<'_>| {
        cancel.raise();
        told.job.cancel.wait(Level::Stop);
        work(told)
    };
    (options, raise)
}

#[test]
fn nothing_begins_in_a_run_that_was_told_to_end_before() {
    let mut bench = Bench::new(&[("a", "1")]);
    let options = options();
    options.cancel.raise();
    let told = bench.run_with(&[stage("read").file("a"), stage("below").after("read")], &options);
    assert_eq!((told.counts(), told.called.len()), ([0, 0, 0, 0, 2], 0));
}

#[test]
fn what_runs_is_recorded_and_what_has_not_begun_is_cancelled() {
    let mut bench = Bench::new(&[]);
    let (options, work) = raising(|work| work.put("done"));
    let drafts = [stage("waits").work(work), stage("below").after("waits"), stage("other").config("1")];
    let told = bench.run_with(&drafts, &options);
    assert_eq!(told.counts(), [1, 0, 0, 0, 2]);
    assert_eq!(told.events, ["started waits", "cancelled below", "cancelled other", "ran waits"]);
    bench.reopen();
    let told = bench.run(&drafts);
    assert_eq!(told.counts(), [2, 1, 0, 0, 0]);
}

#[test]
fn a_stage_that_gives_up_is_cancelled_and_so_is_what_needs_it() {
    let mut bench = Bench::new(&[]);
    let (options, work) = raising(|_| Err(Failure::Cancelled));
    let told = bench.run_with(&[stage("gives up").retries(3).work(work), stage("below").after("gives up")], &options);
    assert_eq!((told.outcome("gives up"), told.outcome("below")), (Outcome::Cancelled, Outcome::Cancelled));
    assert_eq!(told.counts(), [0, 0, 0, 0, 2]);
    assert!(bench.ledger.is_empty());
}

#[test]
fn a_stage_that_fails_while_the_run_ends_has_failed() {
    let mut bench = Bench::new(&[]);
    let (options, work) = raising(|_| Err(Failure::new("no luck")));
    let told = bench.run_with(&[stage("fails").retries(3).work(work)], &options);
    assert_eq!((told.error("fails"), told.counts()), ("no luck", [0, 0, 1, 0, 0]));
}

#[test]
fn a_stage_that_gives_up_unasked_has_failed() {
    let told = Bench::new(&[]).run(&[stage("odd").work(|_| Err(Failure::Cancelled))]);
    assert_eq!(told.error("odd"), "it gave up, and nobody had told it to");
}

#[test]
fn a_stage_is_told_of_both_levels() {
    let mut bench = Bench::new(&[]);
    let cancel = Cancel::new();
    let raise = cancel.clone();
    let stubborn = stage("stubborn").work(move |work| {
        let levels = [raise.raise(), raise.raise()];
        work.job.cancel.wait(Level::Kill);
        assert_eq!(levels, [Level::Stop, Level::Kill]);
        Err(Failure::Cancelled)
    });
    let told = bench.run_with(&[stubborn], &Options { cancel, ..options() });
    assert_eq!(told.outcome("stubborn"), Outcome::Cancelled);
}

#[test]
fn a_node_that_was_handed_out_and_has_not_begun_is_cancelled() {
    let mut bench = Bench::new(&[]);
    let options = options();
    let told = bench.watch(&[stage("node"), stage("below").after("node")], &options, &mut |event| {
        if matches!(event, Event::Started { .. }) {
            options.cancel.raise();
        }
    });
    assert_eq!((told.counts(), told.called.len()), ([0, 0, 0, 0, 2], 0));
}
