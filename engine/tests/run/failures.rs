//! Failures: what they stop, and what they leave behind.

use headwater_engine::{Failure, Options, Outcome};

use crate::bench::{Bench, blob, failing, options, stage};

#[test]
fn a_failure_skips_what_needs_it_and_the_rest_goes_on() {
    let mut bench = Bench::new(&[]);
    let drafts =
        [failing("bad"), stage("below").after("bad"), stage("far below").after("below"), stage("other").config("1")];
    let told = bench.keep_going(&drafts);
    assert_eq!(told.counts(), [1, 0, 1, 2, 0]);
    assert_eq!(told.error("bad"), "no luck");
    assert_eq!(told.error("far below"), "`bad` failed");
    assert!(told.finishes["bad"].outputs.is_empty());
    assert_eq!(told.outcome("other"), Outcome::Ran);
}

#[test]
fn a_failure_ends_the_run_unless_told_otherwise() {
    let mut bench = Bench::new(&[]);
    let told = bench.run(&[failing("bad"), stage("below").after("bad"), stage("other"), stage("last").after("other")]);
    assert_eq!(told.counts(), [0, 0, 1, 1, 2]);
    assert_eq!(told.events, ["started bad", "failed bad", "skipped below", "cancelled other", "cancelled last"]);
}

#[test]
fn what_runs_when_another_fails_is_recorded() {
    let mut bench = Bench::new(&[]);
    let drafts = [failing("bad"), stage("good")];
    let told = bench.run_with(&drafts, &Options { jobs: 2, ..options() });
    assert_eq!((told.outcome("bad"), told.outcome("good")), (Outcome::Failed, Outcome::Ran));
    assert_eq!(bench.keep_going(&drafts).outcome("good"), Outcome::Cached);
}

#[test]
fn a_failure_is_not_recorded() {
    let mut bench = Bench::new(&[]);
    for _ in 0..2 {
        assert_eq!(bench.run(&[failing("bad")]).called, ["bad"]);
        assert!(bench.ledger.is_empty());
    }
}

#[test]
fn a_panic_is_a_failure_with_its_text() {
    let mut bench = Bench::new(&[]);
    let drafts = [
        stage("plain").work(|_| panic!("out of luck")),
        stage("made").work(|work| panic!("out of {}", work.job.node)),
        stage("odd").work(|_| std::panic::panic_any(7)),
        stage("other"),
    ];
    let told = bench.keep_going(&drafts);
    assert_eq!(told.counts(), [1, 0, 3, 0, 0]);
    assert_eq!(told.error("plain"), "the stage panicked: out of luck");
    assert_eq!(told.error("made"), "the stage panicked: out of made");
    assert_eq!(told.error("odd"), "the stage panicked: without a message");
}

#[test]
fn a_panic_while_selecting_is_a_failure_of_its_node() {
    let mut bench = Bench::new(&[]);
    let told = bench.keep_going(&[stage("bad").selecting(|_| panic!("no header")), stage("other")]);
    assert_eq!(told.error("bad"), "the stage panicked: no header");
    assert_eq!(told.outcome("other"), Outcome::Ran);
}

#[test]
fn an_error_while_selecting_is_a_failure_of_its_node() {
    let mut bench = Bench::new(&[]);
    let told = bench.keep_going(&[stage("bad").selecting(|_| Err(Failure::new("no header"))), stage("other")]);
    assert_eq!(told.error("bad"), "no header");
    assert_eq!(told.counts(), [1, 0, 1, 0, 0]);
}

#[test]
fn a_stage_that_gives_too_few_outputs_fails() {
    let mut bench = Bench::new(&[]);
    let told = bench.run(&[stage("bad").work(|_| Ok(Vec::new())), stage("below").after("bad")]);
    assert_eq!(told.error("bad"), "the stage has 1 outputs and gave 0");
    assert_eq!(told.outcome("below"), Outcome::Skipped);
    assert!(bench.ledger.is_empty());
}

#[test]
fn outputs_that_are_not_in_the_store_are_not_recorded() {
    let mut bench = Bench::new(&[]);
    let told = bench.run(&[stage("bad").work(|_| Ok(vec![blob("never put")]))]);
    assert_eq!(told.error("bad"), "its bytes were lost again and again; is the disk failing?");
    assert!(bench.ledger.is_empty());
}
