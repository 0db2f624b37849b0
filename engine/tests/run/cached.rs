//! What runs, what does not, and in which order.

use headwater_cache::Digest;
use headwater_engine::{Change, NodeId, Options, Reason};

use crate::bench::{Bench, Draft, options, stage, table};

fn chain() -> Vec<Draft> {
    vec![stage("read").file("a"), stage("train").after("read").config("1"), stage("score").after("train")]
}

fn reason<'a>(told: &'a crate::bench::Told, node: &str) -> &'a Reason {
    &told.reasons.iter().find(|(name, _)| name == node).expect("it started").1
}

#[test]
fn a_second_run_executes_nothing() {
    let mut bench = Bench::new(&[("a", "1")]);
    let told = bench.run(&chain());
    assert_eq!(told.called, ["read", "train", "score"]);
    assert_eq!(told.counts(), [3, 0, 0, 0, 0]);
    assert_eq!(*reason(&told, "train"), Reason::New);
    assert_eq!(bench.output(&told, "score"), "score:(train:1(read:(1)))");
    bench.reopen();
    let told = bench.run(&chain());
    assert_eq!(told.events, ["cached read", "cached train", "cached score"]);
    assert_eq!(told.counts(), [0, 3, 0, 0, 0]);
    assert_eq!(bench.output(&told, "score"), "score:(train:1(read:(1)))");
}

#[test]
fn a_source_written_again_with_the_same_content_runs_nothing() {
    let mut bench = Bench::new(&[("a", "1")]);
    bench.run(&chain());
    bench.files.set("a", "2");
    bench.files.set("a", "1");
    assert!(bench.run(&chain()).called.is_empty());
}

#[test]
fn a_source_that_goes_back_to_an_earlier_content_runs_nothing() {
    let mut bench = Bench::new(&[("a", "1")]);
    bench.run(&chain());
    bench.files.set("a", "2");
    assert_eq!(bench.run(&chain()).called, ["read", "train", "score"]);
    bench.files.set("a", "1");
    assert!(bench.run(&chain()).called.is_empty());
}

#[test]
fn a_changed_config_runs_the_node_and_what_follows() {
    let mut bench = Bench::new(&[("a", "1")]);
    bench.run(&chain());
    let mut drafts = chain();
    drafts[1] = drafts[1].clone().config("2");
    let told = bench.run(&drafts);
    assert_eq!(told.events, ["started train", "started score", "cached read", "ran train", "ran score"]);
    let change = Change { label: "config.value".into(), old: Some("1".into()), new: Some("2".into()) };
    assert_eq!(*reason(&told, "train"), Reason::Changed(vec![change]));
}

#[test]
fn a_stage_that_gives_what_it_gave_cuts_off_what_follows() {
    let mut bench = Bench::new(&[("a", "3")]);
    let drafts = [stage("sign").file("a").work(|work| work.put("positive")), stage("score").after("sign")];
    bench.run(&drafts);
    bench.files.set("a", "4");
    assert_eq!(bench.run(&drafts).events, ["started sign", "ran sign", "cached score"]);
}

#[test]
fn a_renamed_node_is_cached() {
    let mut bench = Bench::new(&[("a", "1")]);
    bench.run(&chain());
    let mut drafts = chain();
    drafts[2] = drafts[2].clone().named("evaluate");
    assert_eq!(bench.run(&drafts).events, ["cached read", "cached train", "cached evaluate"]);
}

#[test]
fn an_entry_that_is_not_selected_does_not_matter() {
    let mut bench = Bench::new(&[("a", "x=1 y=1")]);
    let drafts = [table("read", "a"), stage("uses x").after("read").reads(&["x"]), stage("uses all").after("read")];
    bench.run(&drafts);
    bench.files.set("a", "x=1 y=2");
    let told = bench.run(&drafts);
    assert_eq!(told.called, ["read", "uses all"]);
    assert_eq!(bench.output(&told, "uses all"), "uses all:(x=1 y=2)");
    bench.files.set("a", "x=3 y=2");
    assert_eq!(bench.run(&drafts).called, ["read", "uses x", "uses all"]);
}

#[test]
fn a_record_that_is_gone_is_told_as_forgotten() {
    let mut bench = Bench::new(&[("a", "1")]);
    bench.run(&chain());
    std::fs::remove_dir_all(bench.store.root().join("segments")).unwrap();
    bench.reopen();
    let told = bench.run(&chain());
    assert_eq!(told.called, ["read", "train", "score"]);
    assert_eq!(*reason(&told, "read"), Reason::Forgotten);
}

#[test]
fn a_forced_node_runs_and_equal_outputs_cut_off_what_follows() {
    let mut bench = Bench::new(&[("a", "1")]);
    bench.run(&chain());
    let told = bench.force(&chain(), &["train"]);
    assert_eq!(told.events, ["started train", "cached read", "ran train", "cached score"]);
    assert_eq!(*reason(&told, "train"), Reason::Forced);
}

#[test]
fn targets_limit_what_runs() {
    let mut bench = Bench::new(&[("a", "1"), ("b", "1")]);
    let drafts = [chain(), vec![stage("other").file("b")]].concat();
    let told = bench.run_with(&drafts, &Options { targets: vec![NodeId(1)], ..options() });
    assert_eq!(told.called, ["read", "train"]);
    assert_eq!(told.counts(), [2, 0, 0, 0, 0]);
}

#[test]
fn no_targets_are_no_nodes() {
    let mut bench = Bench::new(&[]);
    assert_eq!(bench.run(&[]).counts(), [0; 5]);
}

#[test]
fn a_gather_collects_in_the_order_of_labels() {
    let mut bench = Bench::new(&[("a", "1"), ("b", "2")]);
    let gather = |members| [stage("p").file("a"), stage("q").file("b"), stage("compare").gather(members)];
    let told = bench.run(&gather(&[("2", "p"), ("1", "q")]));
    assert_eq!(bench.output(&told, "compare"), "compare:(q:(2)+p:(1))");
    let told = bench.run(&gather(&[("1", "q"), ("2", "p")]));
    assert!(told.called.is_empty());
    let told = bench.run(&gather(&[("1", "p"), ("2", "q")]));
    assert_eq!(told.called, ["compare"]);
}

#[test]
fn the_manifest_of_a_record_hashes_to_its_key() {
    let mut bench = Bench::new(&[("a", "1")]);
    let told = bench.run(&chain());
    for finish in told.finishes.values() {
        let key = finish.key.unwrap();
        let record = bench.ledger.get(&key.0).unwrap();
        assert_eq!(Digest::of(record.manifest.as_bytes()), key.0);
    }
}

/// A stage that takes so many seconds.
fn taking(name: &str, seconds: u64) -> Draft {
    stage(name).work(move |work| {
        work.clock.fetch_add(seconds, std::sync::atomic::Ordering::SeqCst);
        work.put(&format!("{}{}", work.config, work.read()?))
    })
}

fn lanes(config: &str) -> Vec<Draft> {
    vec![
        taking("short", 2).config(config),
        taking("long", 9).config(config),
        taking("head", 1).config(config),
        taking("tail", 10).config(config).after("head"),
    ]
}

#[test]
fn what_the_longest_path_begins_with_runs_first() {
    let mut bench = Bench::new(&[]);
    let told = bench.run(&lanes("1"));
    // Nothing is known yet: a path counts its nodes.
    assert_eq!(told.called, ["head", "short", "long", "tail"]);
    assert_eq!(bench.run(&lanes("2")).called, ["head", "tail", "long", "short"]);
}

#[test]
fn a_path_through_nodes_that_are_not_wanted_does_not_count() {
    let mut bench = Bench::new(&[]);
    bench.run(&lanes("1"));
    let targets = vec![NodeId(0), NodeId(1), NodeId(2)];
    let told = bench.run_with(&lanes("2"), &Options { targets, ..options() });
    assert_eq!(told.called, ["long", "short", "head"]);
}

#[test]
fn what_a_node_took_is_told_and_what_it_saved_later() {
    let mut bench = Bench::new(&[]);
    let told = bench.run(&lanes("1"));
    assert_eq!((told.finishes["long"].seconds, told.finishes["long"].saved), (9.0, 0.0));
    let told = bench.run(&lanes("1"));
    assert_eq!((told.finishes["long"].seconds, told.finishes["long"].saved), (0.0, 9.0));
    assert_eq!(told.summary.saved, 22.0);
}

#[test]
fn an_entry_of_a_folder_is_read_alone() {
    let mut bench = Bench::new(&[("a", "x=1 sub/y=2 sub/z=3")]);
    let drafts =
        [table("read", "a"), stage("file").after_entry("read", "x"), stage("folder").after_entry("read", "sub")];
    let told = bench.run(&drafts);
    assert_eq!(bench.output(&told, "file"), "file:(1)");
    assert_eq!(bench.output(&told, "folder"), "folder:(y=2 z=3)");
    bench.files.set("a", "x=1 sub/y=2 sub/z=4");
    assert_eq!(bench.run(&drafts).called, ["read", "folder"]);
    let drafts = [table("read", "a"), stage("none").after_entry("read", "su")];
    assert_eq!(bench.run(&drafts).error("none"), "the folder has no file `su`");
}

#[test]
fn an_entry_keeps_its_type() {
    let mut bench = Bench::new(&[("a", "tool=1")]);
    let drafts = [table("read", "a"), stage("uses").after_entry("read", "tool")];
    let told = bench.run(&drafts);
    let record = bench.ledger.get(&told.finishes["uses"].key.unwrap().0).unwrap();
    assert!(record.manifest.contains("input.in0\ttext "), "{}", record.manifest);
}
