//! Runs that start nothing.

use std::sync::Arc;

use headwater_engine::{NodeId, Options, Preview, Reason};

use crate::bench::{Bench, Draft, Placed, blob, options, stage};

fn chain() -> Vec<Draft> {
    vec![stage("read").file("a"), stage("train").after("read"), stage("other")]
}

#[test]
fn a_preview_executes_and_writes_nothing() {
    let mut bench = Bench::new(&[("a", "1")]);
    let before = bench.listing();
    let told = bench.preview(&chain());
    assert!(told.called.is_empty() && told.events.is_empty());
    assert_eq!(told.counts(), [0; 5]);
    assert_eq!(told.previews["read"], Preview::Stale(Reason::New));
    assert_eq!(told.previews["train"], Preview::Maybe(Reason::Unknown(vec![NodeId(0)])));
    assert_eq!(bench.listing(), before);
    bench.run(&chain());
    let before = bench.listing();
    let told = bench.preview(&chain());
    assert!(told.previews.values().all(|preview| *preview == Preview::Cached));
    assert_eq!(told.previews.len(), 3);
    assert_eq!(bench.listing(), before);
}

#[test]
fn a_preview_tells_what_is_certain_from_what_may_be() {
    let mut bench = Bench::new(&[("a", "1")]);
    bench.run(&chain());
    bench.files.set("a", "2");
    let told = bench.preview(&chain());
    let Preview::Stale(Reason::Changed(changes)) = &told.previews["read"] else { panic!("it changed") };
    let change = &changes[0];
    assert_eq!(change.label, "input.in0");
    assert_eq!(change.old, Some(format!("text {}", blob("1").digest)));
    assert_eq!(change.new, Some(format!("text {}", blob("2").digest)));
    assert_eq!(told.previews["train"], Preview::Maybe(Reason::Unknown(vec![NodeId(0)])));
    assert_eq!(told.previews["other"], Preview::Cached);
}

#[test]
fn a_preview_of_forced_nodes_says_so_even_below_what_is_stale() {
    let mut bench = Bench::new(&[("a", "1")]);
    bench.run(&chain());
    let preview = Options { preview: true, ..options() };
    let told = bench.run_with(&chain(), &Options { forced: vec![NodeId(2)], ..preview.clone() });
    assert_eq!(told.previews["other"], Preview::Stale(Reason::Forced));
    bench.files.set("a", "2");
    let told = bench.run_with(&chain(), &Options { forced: vec![NodeId(1)], ..preview });
    assert_eq!(told.previews["train"], Preview::Stale(Reason::Forced));
}

#[test]
fn a_preview_names_what_is_lost() {
    let mut bench = Bench::new(&[("a", "1")]);
    bench.run(&chain());
    bench.lose("read:(1)");
    let told = bench.preview(&chain());
    assert_eq!(told.previews["read"], Preview::Stale(Reason::Lost(blob("read:(1)").digest)));
    assert_eq!(told.previews["train"], Preview::Maybe(Reason::Unknown(vec![NodeId(0)])));
}

#[test]
fn a_preview_tells_outs_that_are_not_in_place_and_leaves_them() {
    let mut bench = Bench::new(&[("a", "1")]);
    let placed = Arc::new(Placed::default());
    let mut drafts = chain();
    drafts[0] = drafts[0].clone().outs(&placed);
    bench.run(&drafts);
    placed.set(None);
    let told = bench.preview(&drafts);
    assert_eq!(told.previews["read"], Preview::Restore);
    assert_eq!(told.previews["train"], Preview::Cached);
    assert_eq!(placed.get(), None);
}

#[test]
fn a_preview_tells_a_source_that_cannot_be_read() {
    let mut bench = Bench::new(&[]);
    let told = bench.preview(&chain());
    assert_eq!(told.previews["read"], Preview::Failed("there is no file a".into()));
    assert_eq!(told.previews["other"], Preview::Stale(Reason::New));
    let told = bench.preview(&[stage("long"), stage("read").after("long").file("a")]);
    assert_eq!(told.previews["read"], Preview::Failed("there is no file a".into()));
}
