//! Bytes that are gone or damaged.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use headwater_cache::{Artifact, Digest, Entry, Tree};
use headwater_engine::{Failure, Options, Outcome, Reason};

use crate::bench::{Bench, Draft, Placed, blob, options, stage};

fn pair(config: &str) -> Vec<Draft> {
    vec![stage("make").file("a").work(|work| work.put(&work.read()?)), stage("use").after("make").config(config)]
}

#[test]
fn a_blob_that_is_gone_is_made_again() {
    let mut bench = Bench::new(&[("a", "bytes")]);
    bench.run(&pair("1"));
    bench.lose("bytes");
    let told = bench.run(&pair("1"));
    assert_eq!(told.events, ["started make", "ran make", "cached use"]);
    assert_eq!(told.reasons[0].1, Reason::Lost(blob("bytes").digest));
    assert!(bench.store.contains(&blob("bytes").digest));
}

#[test]
fn damage_that_a_consumer_finds_is_mended_and_the_consumer_runs() {
    let mut bench = Bench::new(&[("a", "bytes")]);
    bench.run(&pair("1"));
    bench.damage("bytes");
    let told = bench.run(&pair("2"));
    assert_eq!(told.events, ["started use", "started make", "started use", "cached make", "ran make", "ran use"]);
    assert_eq!(told.reasons[1].1, Reason::Lost(blob("bytes").digest));
    assert_eq!(told.counts(), [2, 0, 0, 0, 0]);
    assert_eq!(bench.output(&told, "use"), "use:2(bytes)");
    assert!(bench.run(&pair("2")).called.is_empty());
}

#[test]
fn damage_that_nothing_reads_runs_nothing() {
    let mut bench = Bench::new(&[("a", "bytes")]);
    bench.run(&pair("1"));
    bench.damage("bytes");
    assert!(bench.run(&pair("1")).called.is_empty());
}

#[test]
fn bytes_that_are_lost_again_and_again_are_a_failure() {
    let mut bench = Bench::new(&[("a", "bytes")]);
    let mut drafts = pair("1");
    let (store, path) = (bench.store.clone(), bench.path(&blob("bytes").digest));
    drafts[1] = drafts[1].clone().work(move |work| {
        // Before the commit there is no file to remove.
        store.commit().unwrap();
        std::fs::remove_file(&path).unwrap();
        work.read()?;
        unreachable!("the bytes are gone")
    });
    let told = bench.run(&drafts);
    assert_eq!(told.error("use"), "its bytes were lost again and again; is the disk failing?");
    assert_eq!(told.called.iter().filter(|name| *name == "use").count(), 4);
    assert_eq!(told.counts(), [1, 0, 1, 0, 0]);
}

#[test]
fn a_loss_in_a_tree_within_a_tree_is_found_to_be_its_makers() {
    let mut bench = Bench::new(&[]);
    let make = stage("make").work(|work| {
        let Artifact { type_name, shape, digest, bytes } = work.put_tree("inner", "x=deep")?.remove(0);
        let entry = Entry { name: "inner".into(), type_name: type_name.clone(), shape, digest, bytes };
        let digest = work.job.store.put_tree(&Tree { header: String::new(), entries: vec![entry] })?;
        Ok(vec![Artifact { type_name, shape, digest, bytes }])
    });
    let user = stage("use").after("make").work(|work| {
        work.job.store.get(&blob("deep").digest)?;
        work.put("found")
    });
    bench.run(std::slice::from_ref(&make));
    bench.damage("deep");
    assert_eq!(bench.run(&[make, user]).called, ["use", "make", "use"]);
}

#[test]
fn lost_bytes_that_no_stage_makes_are_a_failure() {
    let mut bench = Bench::new(&[("a", "bytes")]);
    let digest = Digest::of(b"of nobody");
    let mut drafts = pair("1");
    drafts[1] = drafts[1].clone().work(move |_| Err(Failure::Lost(digest)));
    let text = format!("the bytes {digest} are missing or damaged, and no stage makes them");
    assert_eq!(bench.run(&drafts).error("use"), text);
}

#[test]
fn a_maker_that_fails_when_it_is_asked_again_skips_all_that_need_it() {
    let mut bench = Bench::new(&[("a", "bytes")]);
    let calls = Arc::new(AtomicUsize::new(0));
    let make = stage("make").work(move |work| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => work.put("bytes"),
        _ => Err(Failure::new("no luck")),
    });
    let user = |name| stage(name).after("make").kind("use").config(name);
    bench.run(std::slice::from_ref(&make));
    bench.damage("bytes");
    let drafts = [make, user("use 1"), user("use 2"), stage("below").after("use 1"), stage("other")];
    for jobs in [1, 2, 3] {
        let told = bench.run_with(&drafts, &Options { jobs, keep_going: true, ..options() });
        assert_eq!(told.counts()[2..], [1, 3, 0], "{:?}", told.events);
        assert_eq!(told.error("make"), "no luck");
        assert_eq!(told.error("use 2"), "`make` failed");
        assert_eq!(told.error("below"), "`make` failed");
        assert_eq!(told.called.iter().filter(|name| *name == "make").count(), 1);
        assert!(told.finishes["make"].outputs.is_empty());
    }
}

#[test]
fn a_loss_found_after_its_maker_has_failed_skips_the_finder() {
    let mut bench = Bench::new(&[]);
    let calls = AtomicUsize::new(0);
    let make = stage("make").work(move |work| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => work.put("bytes"),
        _ => Err(Failure::new("no luck")),
    });
    bench.run(std::slice::from_ref(&make));
    bench.damage("bytes");
    let failures = bench.failures.clone();
    let late = stage("late").after("make").work(move |work| {
        while failures.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        work.put(&work.read()?)
    });
    let drafts = [make, stage("early").after("make"), late, stage("below").after("late")];
    let told = bench.run_with(&drafts, &Options { jobs: 2, keep_going: true, ..options() });
    assert_eq!(told.counts(), [0, 0, 1, 3, 0], "{:?}", told.events);
    assert_eq!((told.error("late"), told.error("below")), ("`make` failed", "`make` failed"));
    assert_eq!(told.called.iter().filter(|name| *name == "make" || *name == "late").count(), 2);
}

#[test]
fn consumers_with_one_key_that_find_a_loss_run_once_more() {
    let mut bench = Bench::new(&[("a", "bytes")]);
    bench.run(&pair("1"));
    bench.damage("bytes");
    let twin = |name: &str| pair("2")[1].clone().named(name);
    let told = bench.run_with(&[pair("2"), vec![twin("twin")]].concat(), &Options { jobs: 2, ..options() });
    // What has not run yet is taken to be long, and comes first.
    assert_eq!(told.called, ["twin", "make", "twin"]);
    assert_eq!((told.outcome("twin"), told.outcome("use")), (Outcome::Ran, Outcome::Cached));
}

/// Gives something else at each call.
fn fickle(name: &str) -> Draft {
    let calls = AtomicUsize::new(0);
    stage(name).work(move |work| work.put(&format!("bytes {}", calls.fetch_add(1, Ordering::SeqCst))))
}

#[test]
fn what_was_made_of_bytes_that_came_out_differently_is_made_again() {
    let mut bench = Bench::new(&[]);
    let make = fickle("make");
    let drafts = |config| {
        [
            make.clone(),
            stage("done").after("make"),
            stage("below").after("done"),
            stage("use").after("make").config(config),
        ]
    };
    bench.run(&drafts("1"));
    bench.damage("bytes 0");
    let told = bench.run(&drafts("2"));
    assert_eq!(bench.output(&told, "make"), "bytes 1");
    assert_eq!(bench.output(&told, "use"), "use:2(bytes 1)");
    assert_eq!(bench.output(&told, "below"), "below:(done:(bytes 1))");
    assert_eq!(told.counts(), [4, 0, 0, 0, 0]);
    assert!(bench.run(&drafts("2")).called.is_empty());
}

#[test]
fn what_runs_while_its_input_comes_out_differently_runs_again() {
    let mut bench = Bench::new(&[]);
    let make = fickle("make");
    bench.run(std::slice::from_ref(&make));
    let calls = bench.calls.clone();
    let slow = stage("slow").after("make").work(move |work| {
        let text = work.read().unwrap_or_else(|_| "bytes 0".into());
        let makes_again = || {
            std::thread::sleep(Duration::from_millis(1));
            calls.lock().unwrap().contains(&"make".to_owned())
        };
        assert!((0..60_000).any(|_| makes_again()), "make runs again");
        work.put(&text)
    });
    bench.damage("bytes 0");
    let drafts = [make, slow, stage("use").after("make")];
    let told = bench.run_with(&drafts, &Options { jobs: 2, ..options() });
    assert_eq!(bench.output(&told, "slow"), "bytes 1");
    assert_eq!(bench.output(&told, "use"), "use:(bytes 1)");
    assert_eq!(told.counts(), [3, 0, 0, 0, 0]);
}

#[test]
fn an_out_that_is_not_in_place_is_restored_without_running() {
    let mut bench = Bench::new(&[("a", "bytes")]);
    let placed = Arc::new(Placed::default());
    let drafts = [pair("1")[0].clone().outs(&placed), pair("1")[1].clone()];
    bench.run(&drafts);
    assert_eq!(placed.get().as_deref(), Some("bytes"));
    for content in [None, Some("changed")] {
        placed.set(content);
        let told = bench.run(&drafts);
        assert_eq!(told.events, ["restored make", "cached use"]);
        assert_eq!(told.counts(), [0, 2, 0, 0, 0]);
        assert_eq!(placed.get().as_deref(), Some("bytes"));
    }
    assert_eq!(bench.run(&drafts).events, ["cached make", "cached use"]);
}

#[test]
fn an_out_whose_bytes_are_damaged_is_made_again() {
    let mut bench = Bench::new(&[("a", "bytes")]);
    let placed = Arc::new(Placed::default());
    let drafts = [pair("1")[0].clone().outs(&placed)];
    bench.run(&drafts);
    placed.set(None);
    bench.damage("bytes");
    let told = bench.run(&drafts);
    assert_eq!(told.events, ["started make", "ran make"]);
    assert_eq!(placed.get().as_deref(), Some("bytes"));
    assert_eq!(told.counts(), [1, 0, 0, 0, 0]);
}

#[test]
fn an_out_that_cannot_be_put_in_place_fails_its_node_and_is_not_computed_again() {
    let mut bench = Bench::new(&[("a", "bytes")]);
    let placed = Arc::new(Placed::default());
    *placed.broken.lock().unwrap() = Some("the folder is not writable".into());
    let drafts = [pair("1")[0].clone().outs(&placed)];
    assert_eq!(bench.run(&drafts).error("make"), "the folder is not writable");
    assert_eq!(bench.run(&drafts).error("make"), "the folder is not writable");
    *placed.broken.lock().unwrap() = None;
    assert_eq!(bench.run(&drafts).events, ["restored make"]);
}

struct Bad;

impl headwater_engine::Outs for Bad {
    fn in_place(&self, _: &[headwater_cache::Artifact]) -> Result<bool, Failure> {
        Ok(false)
    }

    fn restore(&self, _: &headwater_cache::Store, _: &[headwater_cache::Artifact]) -> Result<(), Failure> {
        panic!("no disk")
    }
}

#[test]
fn a_panic_while_outs_are_put_in_place_ends_in_a_failure() {
    let mut bench = Bench::new(&[]);
    let drafts = [stage("make").placing(Arc::new(Bad))];
    for _ in 0..2 {
        assert_eq!(bench.run(&drafts).error("make"), "the stage panicked: no disk");
    }
}
