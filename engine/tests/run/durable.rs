//! What is told is durable, and costs few syncs.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use headwater_cache::disk::{Call, FailingDisk, Fault, ForgetfulDisk};
use headwater_cache::{Ledger, Store};
use headwater_engine::{Event, Failure, NodeId, Options, Outcome};

use crate::bench::{Bench, Draft, Told, Work, options, stage, table};

const EIO: i32 = 5;
/// What a node says whose commit failed, but for the random name of the segment.
const REFUSED: &str =
    "its outputs could not be made durable: cannot sync /store/segments/: Input/output error (os error 5)";

fn is_segment(call: &Call) -> bool {
    call.path.extension().is_some_and(|end| end == "seg")
}

fn syncs_ledger(call: &Call) -> bool {
    call.operation == "sync" && is_segment(call)
}

/// An error without the random name of a segment.
fn nameless(error: &str) -> String {
    match (error.find("/segments/"), error.find(".seg")) {
        (Some(begin), Some(end)) => format!("{}{}", &error[..begin + "/segments/".len()], &error[end + ".seg".len()..]),
        _ => error.to_owned(),
    }
}

fn open(disk: &ForgetfulDisk) -> (Ledger, Arc<Store>) {
    let store = Arc::new(Store::open_on(Arc::new(disk.clone()), Path::new("/store")).unwrap());
    (Ledger::of(&store), store)
}

/// A disk that does not sync the ledger while it is broken.
struct Unsyncable {
    memory: ForgetfulDisk,
    disk: FailingDisk,
    broken: Arc<AtomicBool>,
}

impl Unsyncable {
    fn new() -> Self {
        let broken = Arc::new(AtomicBool::new(true));
        let told = broken.clone();
        let decide =
            move |call: &Call| (syncs_ledger(call) && told.load(Ordering::SeqCst)).then_some(Fault::Error(EIO));
        let memory = ForgetfulDisk::new();
        Self { disk: FailingDisk::new(Arc::new(memory.clone()), decide), memory, broken }
    }

    fn set_broken(&self, broken: bool) {
        self.broken.store(broken, Ordering::SeqCst);
    }

    fn records(&self) -> usize {
        records(&self.memory)
    }
}

fn records(disk: &ForgetfulDisk) -> usize {
    open(disk).0.len()
}

/// A disk that counts syncs of the ledger.
fn counting(memory: &ForgetfulDisk) -> (FailingDisk, Arc<AtomicUsize>) {
    let syncs = Arc::new(AtomicUsize::new(0));
    let count = syncs.clone();
    let decide = move |call: &Call| {
        count.fetch_add(usize::from(syncs_ledger(call)), Ordering::SeqCst);
        None
    };
    (FailingDisk::new(Arc::new(memory.clone()), decide), syncs)
}

fn keep_going() -> Options {
    Options { keep_going: true, ..options() }
}

fn assert_refused(told: &Told, nodes: &[&str]) {
    for node in nodes {
        assert_eq!((told.outcome(node), nameless(told.error(node)).as_str()), (Outcome::Failed, REFUSED), "{node}");
        assert!(told.finishes[*node].outputs.is_empty());
    }
}

#[test]
fn a_thousand_nodes_pay_for_a_handful_of_syncs() {
    let memory = ForgetfulDisk::new();
    let (disk, syncs) = counting(&memory);
    let mut bench = Bench::on(&disk);
    let nodes = |parent: Option<&str>| -> Vec<Draft> {
        let node = |at: usize| stage(&format!("n{at}")).work(move |work| work.put(&format!("{}{at}", work.read()?)));
        let nodes = (0..1000).map(node);
        match parent {
            None => nodes.collect(),
            Some(parent) => [stage(parent)].into_iter().chain(nodes.map(|node| node.after(parent))).collect(),
        }
    };
    for (drafts, jobs) in [(nodes(None), 1), (nodes(Some("parent")), 3)] {
        syncs.store(0, Ordering::SeqCst);
        let told = bench.run_with(&drafts, &Options { jobs, ..options() });
        assert_eq!(told.counts(), [drafts.len(), 0, 0, 0, 0]);
        assert!((1..=100).contains(&syncs.load(Ordering::SeqCst)), "{syncs:?}");
    }
    assert_eq!(records(&memory), 2001);
}

#[test]
fn a_run_that_executes_nothing_syncs_no_ledger() {
    let (disk, syncs) = counting(&ForgetfulDisk::new());
    let mut bench = Bench::on(&disk);
    let drafts = [stage("make"), stage("use").after("make")];
    bench.run(&drafts);
    syncs.store(0, Ordering::SeqCst);
    assert_eq!(bench.run(&drafts).counts(), [0, 2, 0, 0, 0]);
    assert_eq!(syncs.load(Ordering::SeqCst), 0);
}

/// A stage whose result is not durable before the one that reads it has failed, on a disk that syncs or does not.
fn failing_early(syncs: bool) -> Told {
    let failed = Arc::new(AtomicBool::new(false));
    let (late, fail) = (failed.clone(), failed.clone());
    let decide = move |call: &Call| {
        // A moment more, so that the failure is known.
        while syncs_ledger(call) && !late.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
        (syncs_ledger(call) && !syncs).then_some(Fault::Error(EIO))
    };
    let mut bench = Bench::on(&FailingDisk::new(Arc::new(ForgetfulDisk::new()), decide));
    let bad = stage("bad").after("good").work(move |_| {
        fail.store(true, Ordering::SeqCst);
        Err(Failure::new("no luck"))
    });
    bench.run(&[stage("good"), bad, stage("below").after("bad"), stage("other").after("good").config("1")])
}

#[test]
fn a_failure_is_told_after_the_ends_of_what_it_reads_and_before_what_it_cancels() {
    let told = failing_early(true);
    let events = ["started good", "started bad", "ran good", "failed bad", "skipped below", "cancelled other"];
    assert_eq!(told.events, events);
}

#[test]
fn a_failure_that_waits_for_what_cannot_be_committed_is_told_after_that() {
    let told = failing_early(false);
    assert_refused(&told, &["good"]);
    assert_eq!((told.error("bad"), told.outcome("below")), ("no luck", Outcome::Skipped));
    let ends: Vec<&String> = told.events.iter().filter(|event| !event.starts_with("started")).collect();
    assert_eq!(ends, ["failed good", "skipped other", "failed bad", "skipped below"]);
    assert_eq!(told.counts(), [0, 0, 2, 2, 0]);
}

/// Layers of nodes, each of which reads two of the layer above; equal keys are among them.
fn layers() -> Vec<Draft> {
    let name = |layer: usize, at: usize| format!("n{layer}.{at}");
    let mut drafts = Vec::new();
    for layer in 0..6 {
        for at in 0..5 {
            let give = |work: &Work<'_>| work.put(&format!("{}({})", work.config, work.read()?));
            let mut draft = stage(&name(layer, at)).kind("node").config(&(at % 4).to_string()).work(give);
            for above in [at, (at + 1) % 5].into_iter().filter(|_| layer > 0) {
                draft = draft.after(&name(layer - 1, above));
            }
            drafts.push(draft);
        }
    }
    drafts
}

#[test]
fn the_end_of_a_node_is_told_when_others_find_its_record_and_after_all_that_it_reads() {
    for jobs in [1, 3] {
        let mut bench = Bench::new(&[("a", "x=1 y=2")]);
        let mut drafts = layers();
        drafts.push(table("read", "a"));
        drafts.push(stage("pass").after("read").passing().work(|work| work.put_tree("rows", "z=3")));
        drafts.push(stage("last").after("pass").after("n5.0"));
        let (graph, root) = (bench.graph(&drafts), bench.store.root().to_owned());
        for expected in [Outcome::Ran, Outcome::Cached] {
            let mut ended = BTreeSet::new();
            let told = bench.watch(&drafts, &Options { jobs, ..options() }, &mut |event| {
                let Event::Finished(finish) = event else { return };
                let store = Arc::new(Store::open(&root).unwrap());
                let ledger = Ledger::of(&store);
                assert!(ledger.get(&finish.key.unwrap().0).is_some());
                assert!(finish.outputs.iter().all(|output| store.holds(output)));
                assert!(graph.producers(finish.node).iter().all(|above| ended.contains(above)));
                ended.insert(finish.node);
            });
            assert_eq!(told.outcome("last"), expected);
            assert_eq!(ended.len(), drafts.len());
        }
    }
}

#[test]
fn a_commit_that_fails_fails_its_nodes_and_ends_the_run() {
    for jobs in [1, 3] {
        let disk = Unsyncable::new();
        let mut bench = Bench::on(&disk.disk);
        let drafts = [stage("make"), stage("use").after("make"), stage("below").after("use"), stage("other")];
        let told = bench.run_with(&drafts, &Options { jobs, ..keep_going() });
        assert_refused(&told, &["make"]);
        let [ran, cached, failed, skipped, cancelled] = told.counts();
        assert_eq!((ran, cached, failed + skipped + cancelled), (0, 0, 4), "{:?}", told.events);
        assert_eq!(disk.records(), 0);
    }
}

#[test]
fn after_a_failed_commit_what_ran_meanwhile_fails_and_nothing_begins() {
    let disk = Unsyncable::new();
    let mut bench = Bench::on(&disk.disk);
    let (failures, broken) = (bench.failures.clone(), disk.broken.clone());
    let slow = stage("slow").after("make").work(move |work| {
        while failures.load(Ordering::SeqCst) == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        // A second sync would succeed, and prove nothing.
        broken.store(false, Ordering::SeqCst);
        work.put("made of what is not there")
    });
    let drafts = [stage("make"), slow, stage("late").after("make"), stage("below").after("slow"), stage("other")];
    let last = Options { targets: (0..4).map(NodeId).collect(), ..keep_going() };
    let told = bench.run_with(&drafts, &last);
    assert_eq!(told.called, ["make", "slow"]);
    assert_refused(&told, &["make", "slow"]);
    assert_eq!((told.outcome("late"), told.error("late")), (Outcome::Skipped, "`make` failed"));
    assert_eq!(told.outcome("below"), Outcome::Cancelled);
    assert_eq!(disk.records(), 0);
}

#[test]
fn what_is_cached_below_a_node_whose_commit_fails_is_not_told_as_done() {
    let disk = Unsyncable::new();
    disk.set_broken(false);
    let mut bench = Bench::on(&disk.disk);
    let drafts = [stage("make"), stage("use").after("make")];
    bench.run(&drafts);
    disk.set_broken(true);
    let told = bench.force(&drafts, &["make"]);
    assert_eq!(told.called, ["make"]);
    assert_refused(&told, &["make", "use"]);
    assert_eq!(disk.records(), 2);
}

#[test]
fn what_failed_to_be_committed_runs_again_on_a_good_disk() {
    let disk = Unsyncable::new();
    let mut bench = Bench::on(&disk.disk);
    let drafts = [stage("make"), stage("use").after("make")];
    assert_eq!(bench.run(&drafts).counts()[0], 0);
    disk.set_broken(false);
    assert_eq!(Bench::on(&disk.disk).run(&drafts).counts(), [2, 0, 0, 0, 0]);
    assert_eq!(Bench::on(&disk.disk).run(&drafts).counts(), [0, 2, 0, 0, 0]);
}

#[test]
fn a_panic_while_records_are_written_ends_in_a_failure() {
    let disk = FailingDisk::new(Arc::new(ForgetfulDisk::new()), |call| {
        assert!(!(call.operation == "write_at" && is_segment(call)), "no luck");
        None
    });
    let told = Bench::on(&disk).run(&[stage("make")]);
    assert_eq!(told.error("make"), "its outputs could not be made durable: the store panicked");
}

#[test]
fn every_sync_of_a_run_may_fail_and_nothing_wrong_is_recorded() {
    let drafts = layers();
    let outputs = |told: &Told| -> BTreeMap<String, Vec<_>> {
        told.finishes.iter().map(|(name, finish)| (name.clone(), finish.outputs.clone())).collect()
    };
    let right = outputs(&Bench::on(&ForgetfulDisk::new()).run(&drafts));
    for number in 0.. {
        let syncs = AtomicUsize::new(0);
        let memory = ForgetfulDisk::new();
        // What a run puts and records, once everything is open.
        let begun = Arc::new(AtomicBool::new(false));
        let told_begun = begun.clone();
        let decide = move |call: &Call| {
            let counts = call.operation == "sync" && told_begun.load(Ordering::SeqCst);
            (counts && syncs.fetch_add(1, Ordering::SeqCst) == number).then_some(Fault::Error(EIO))
        };
        let disk = FailingDisk::new(Arc::new(memory.clone()), decide);
        let mut bench = Bench::on(&disk);
        begun.store(true, Ordering::SeqCst);
        let told = bench.run_with(&drafts, &Options { jobs: 2, ..keep_going() });
        if disk.first_failure().is_none() {
            assert!(told.counts()[2..] == [0; 3] && number > 10, "{number}: {:?}", told.events);
            break;
        }
        assert!(told.summary.failed > 0, "{number}: {:?}", told.events);
        // What was told as done is there after a power cut, with its bytes.
        let after = memory.crashes(1, 0).next().expect("one");
        let (ledger, store) = open(&after);
        let done = told.finishes.values().filter(|finish| !finish.outputs.is_empty());
        for finish in done {
            assert!(ledger.get(&finish.key.unwrap().0).is_some());
            assert!(finish.outputs.iter().all(|output| store.holds(output)));
        }
        let again = Bench::on(&memory).run(&drafts);
        assert_eq!(outputs(&again), right, "{number}");
    }
}
