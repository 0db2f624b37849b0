//! Files of the project: unreadable, changing, and folders in part.

use headwater_engine::{Options, Outcome, Reason};

use crate::bench::{Bench, Draft, options, stage};

/// Reads its sources, then changes these files, at most so many times.
fn changing(name: &str, files: &'static [&'static str], times: usize) -> Draft {
    let calls = std::sync::atomic::AtomicUsize::new(0);
    stage(name).work(move |work| {
        let read = work.read();
        let call = calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        if call < times {
            files.iter().for_each(|file| work.files.set(file, &format!("new {call}")));
        }
        work.put(&read?)
    })
}

#[test]
fn a_source_that_cannot_be_read_fails_its_node_alone() {
    let mut bench = Bench::new(&[("a", "1")]);
    let drafts = [stage("bad").file("none"), stage("below").after("bad"), stage("good").file("a")];
    let told = bench.keep_going(&drafts);
    assert_eq!(told.counts(), [1, 0, 1, 1, 0]);
    assert_eq!(told.error("bad"), "there is no file none");
    assert_eq!(told.called, ["good"]);
}

#[test]
fn nothing_is_made_for_a_node_that_also_reads_what_is_not_there() {
    let mut bench = Bench::new(&[]);
    let drafts = [
        stage("long"),
        stage("bad").after("long").file("none"),
        stage("below").after("bad"),
        stage("worse").after("bad").file("nothing"),
        stage("other").file("neither"),
    ];
    let told = bench.run(&drafts);
    let events = ["failed bad", "skipped below", "skipped worse", "failed other", "cancelled long"];
    assert_eq!((told.events, told.called), (events.map(String::from).into(), Vec::<String>::new()));
}

#[test]
fn a_source_that_nothing_wanted_reads_is_not_looked_at() {
    let mut bench = Bench::new(&[("a", "1")]);
    let drafts = [stage("good").file("a"), stage("bad").file("none")];
    let targets = vec![headwater_engine::NodeId(0)];
    assert_eq!(bench.run_with(&drafts, &Options { targets, ..options() }).counts(), [1, 0, 0, 0, 0]);
}

#[test]
fn a_node_whose_source_changes_while_it_runs_runs_again_from_the_new_content() {
    let mut bench = Bench::new(&[("a", "old")]);
    let drafts = [changing("read", &["a"], 1).file("a"), stage("below").after("read")];
    let told = bench.run(&drafts);
    assert_eq!(told.events, ["started read", "started read", "started below", "ran read", "ran below"]);
    assert_eq!(bench.output(&told, "read"), "new 0");
    assert_eq!(bench.ledger.len(), 2);
    assert!(bench.run(&drafts).called.is_empty());
}

#[test]
fn a_source_that_changes_twice_is_a_failure_and_nothing_is_recorded() {
    let mut bench = Bench::new(&[("a", "old")]);
    let told = bench.run(&[changing("read", &["a"], 2).file("a")]);
    assert_eq!(told.called, ["read", "read"]);
    assert_eq!(told.error("read"), "a changed while it was read, twice; let it come to rest and run again");
    assert!(bench.ledger.is_empty());
}

#[test]
fn two_sources_that_change_together_are_one_change() {
    let mut bench = Bench::new(&[("a", "old"), ("b", "old")]);
    let told = bench.run(&[changing("read", &["a", "b"], 1).file("a").file("b")]);
    assert_eq!(told.called, ["read", "read"]);
    assert_eq!(bench.output(&told, "read"), "new 0+new 0");
}

#[test]
fn a_failure_while_a_source_changes_is_tried_again() {
    let mut bench = Bench::new(&[("a", "torn")]);
    let drafts = [stage("read").file("a").work(|work| {
        let text = work.read()?;
        if text == "torn" {
            work.files.set("a", "whole");
            panic!("cannot parse");
        }
        work.put(&text)
    })];
    let told = bench.run(&drafts);
    assert_eq!(told.outcome("read"), Outcome::Ran);
    assert_eq!(bench.output(&told, "read"), "whole");
}

#[test]
fn a_source_that_vanishes_while_its_node_runs_is_a_failure_that_says_so() {
    let mut bench = Bench::new(&[("a", "1")]);
    let told = bench.run(&[stage("read").file("a").work(|work| {
        let text = work.read()?;
        work.files.remove("a");
        work.put(&text)
    })]);
    assert_eq!(told.error("read"), "there is no file a");
    assert!(bench.ledger.is_empty());
}

#[test]
fn a_forced_node_whose_source_changes_to_known_content_still_runs() {
    let mut bench = Bench::new(&[("a", "new 0")]);
    let read = changing("read", &["a"], 0);
    bench.run(&[read.file("a")]);
    bench.files.set("a", "old");
    let drafts = [changing("read", &["a"], 1).file("a")];
    let told = bench.force(&drafts, &["read"]);
    assert_eq!(told.called, ["read", "read"]);
    assert!(told.reasons.iter().all(|(_, reason)| *reason == Reason::Forced));
}

#[test]
fn one_folder_without_different_paths_is_two_sources() {
    let mut bench = Bench::new(&[("data/x", "1"), ("data/y", "2")]);
    let drafts = [stage("whole").folder("data", &[]), stage("part").folder("data", &["data/y"])];
    let told = bench.run(&drafts);
    assert_eq!(bench.output(&told, "whole"), "whole:(x=1 y=2)");
    assert_eq!(bench.output(&told, "part"), "part:(x=1)");
    bench.files.set("data/y", "3");
    assert_eq!(bench.run(&drafts).called, ["whole"]);
}
