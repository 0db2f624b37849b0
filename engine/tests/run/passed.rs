//! Outputs that carry on the entries of an input.

use headwater_engine::{Options, Preview, Reason};

use crate::bench::{Bench, Draft, options, stage, table};

/// Reads `x`, gives `x` anew and `sum`.
fn adding() -> Draft {
    stage("add").reads(&["x"]).passing().work(|work| {
        let x = work.read()?.replace("x=", "");
        work.put_tree("rows and sum", &format!("sum={x}{x} x=-{x}"))
    })
}

/// Reads `x`, adds nothing.
fn expecting() -> Draft {
    stage("expect").reads(&["x"]).passing().work(|work| {
        work.read()?;
        work.put_tree("rows", "")
    })
}

fn checked() -> Vec<Draft> {
    vec![
        table("read", "a"),
        expecting().after("read"),
        stage("uses x").after("expect").reads(&["x"]),
        stage("uses all").after("expect"),
    ]
}

#[test]
fn replaced_entries_keep_their_place_and_added_ones_follow() {
    let mut bench = Bench::new(&[("a", "v=0 x=1 y=2")]);
    let drafts = [table("read", "a"), adding().after("read"), stage("uses all").after("add")];
    let told = bench.run(&drafts);
    assert_eq!(bench.output(&told, "add"), "rows and sum: v=0 x=-1 y=2 sum=11");
    assert_eq!(bench.output(&told, "uses all"), "uses all:(v=0 x=-1 y=2 sum=11)");
    let record = bench.ledger.get(&told.finishes["add"].key.unwrap().0).unwrap();
    assert_eq!(record.outputs[0].1.bytes, 4);
    assert_eq!(told.finishes["add"].outputs[0].bytes, 6);
    bench.reopen();
    let told = bench.run(&drafts);
    assert_eq!(told.counts(), [0, 3, 0, 0, 0]);
    assert_eq!(bench.output(&told, "add"), "rows and sum: v=0 x=-1 y=2 sum=11");
}

#[test]
fn an_added_entry_passes_by_a_stage_that_does_not_read_it() {
    let mut bench = Bench::new(&[("a", "x=1")]);
    bench.run(&checked());
    bench.files.set("a", "x=1 y=2");
    let told = bench.run(&checked());
    assert_eq!(told.called, ["read", "uses all"]);
    assert_eq!(bench.output(&told, "expect"), "rows: x=1 y=2");
    assert_eq!(bench.output(&told, "uses all"), "uses all:(x=1 y=2)");
    bench.files.set("a", "x=2 y=2");
    assert_eq!(bench.run(&checked()).called, ["read", "expect", "uses x", "uses all"]);
}

#[test]
fn a_preview_composes_without_storing() {
    let mut bench = Bench::new(&[("a", "x=1"), ("b", "x=1 y=2")]);
    bench.run(&checked());
    bench.run(&[table("read", "b")]);
    let mut drafts = checked();
    drafts[0] = table("read", "b");
    let before = bench.listing();
    let told = bench.preview(&drafts);
    assert_eq!(bench.listing(), before);
    assert_eq!(told.previews["expect"], Preview::Cached);
    assert_eq!(told.previews["uses x"], Preview::Cached);
    assert!(matches!(&told.previews["uses all"], Preview::Stale(Reason::Changed(_))));
    assert_eq!(bench.run_with(&drafts, &Options { jobs: 3, ..options() }).called, ["uses all"]);
}

#[test]
fn damage_is_found_through_a_node_that_passes_it_on() {
    let mut bench = Bench::new(&[("a", "x=1 y=damaged")]);
    bench.run(&checked());
    bench.damage("damaged");
    let mut drafts = checked();
    drafts[3] = drafts[3].clone().config("2");
    bench.reopen();
    let told = bench.run(&drafts);
    assert_eq!(told.starts(), ["started uses all", "started read", "started uses all"]);
    assert_eq!(told.events[told.events.len() - 3..], ["ran read", "cached expect", "ran uses all"]);
    assert_eq!(told.counts(), [2, 2, 0, 0, 0]);
    assert_eq!(bench.output(&told, "uses all"), "uses all:2(x=1 y=damaged)");
    assert!(bench.run(&drafts).called.is_empty());
}

#[test]
fn a_composed_tree_that_is_lost_is_composed_again() {
    let mut bench = Bench::new(&[("a", "x=1 y=2")]);
    let drafts = [table("read", "a"), adding().after("read"), stage("uses all").after("add")];
    let told = bench.run(&drafts);
    std::fs::remove_file(bench.path(&told.finishes["add"].outputs[0].digest)).unwrap();
    bench.reopen();
    let told = bench.run(&drafts);
    assert!(told.called.is_empty());
    assert_eq!(bench.output(&told, "add"), "rows and sum: x=-1 y=2 sum=11");
}
