//! Several processes over one store. Each is a bench with a store, ledger and claims of its own, as locks belong to
//! open files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use headwater_cache::{Claim, Claims, Digest, Record};
use headwater_engine::{Event, Failure, NodeId, Options, Outcome};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::bench::{Bench, Draft, Told, blob, failing, options, stage};

/// Two processes, of which the second has claimed what a draft computes.
fn claimed(draft: &Draft) -> (Bench, Bench, Option<Claim>) {
    let one = Bench::new(&[]);
    let two = one.other();
    let claim = two.claims.try_claim(&one.key(draft).0).unwrap();
    assert!(claim.is_some());
    (one, two, claim)
}

/// Runs, and lets go of claims when so many nodes wait.
fn run_until_waiting(bench: &mut Bench, drafts: &[Draft], count: usize, mut let_go: impl FnMut()) -> Told {
    let mut waiting = 0;
    bench.watch(drafts, &options(), &mut |event| {
        if matches!(event, Event::Waiting { .. }) {
            waiting += 1;
            if waiting == count {
                let_go();
            }
        }
    })
}

/// Whether something comes true before a test has paused for so long that it never will.
fn comes_true(mut fact: impl FnMut() -> bool) -> bool {
    (0..60_000).any(|_| {
        thread::sleep(Duration::from_millis(1));
        fact()
    })
}

/// Lets go of a claim and stays until it has come to who waits for it. While an event is told, the run cannot let go of it.
fn hand_over(claim: &mut Option<Claim>, claims: &Claims, key: &Digest) {
    drop(claim.take());
    assert!(comes_true(|| claims.try_claim(key).unwrap().is_none()));
}

#[test]
fn what_another_process_computes_is_waited_for_and_taken() {
    let make = stage("make");
    let (mut one, two, mut claim) = claimed(&make);
    let told = run_until_waiting(&mut one, &[make.clone(), stage("use").after("make")], 1, || {
        two.store.put(b"made elsewhere").unwrap();
        let outputs = vec![("out".into(), blob("made elsewhere"))];
        let record = Record { outputs, manifest: String::new(), seconds: 7.0 };
        two.ledger.append(&[(two.key(&make).0, record)]).unwrap();
        claim = None;
    });
    assert_eq!(told.events, ["waiting for make", "started use", "cached make", "ran use"]);
    assert_eq!(told.finishes["make"].saved, 7.0);
    assert_eq!(one.output(&told, "use"), "use:(made elsewhere)");
}

#[test]
fn what_another_process_computed_before_is_not_computed_again() {
    let drafts = [stage("make"), stage("use").after("make")];
    let mut one = Bench::new(&[]);
    let mut two = one.other();
    assert_eq!(two.run(&drafts).counts(), [2, 0, 0, 0, 0]);
    assert_eq!(one.run(&drafts).events, ["cached make", "cached use"]);
}

#[test]
fn what_another_process_gave_up_is_computed_by_who_waits() {
    let make = stage("make");
    let (mut one, _two, mut claim) = claimed(&make);
    let told = run_until_waiting(&mut one, &[make, stage("use").after("make")], 1, || claim = None);
    assert_eq!(told.events, ["waiting for make", "started make", "started use", "ran make", "ran use"]);
}

#[test]
fn a_forced_node_waits_and_runs_nonetheless() {
    let make = stage("make");
    let (mut one, mut two, claim) = claimed(&make);
    drop(claim);
    two.run(std::slice::from_ref(&make));
    let mut claim = two.claims.try_claim(&two.key(&make).0).unwrap();
    assert!(claim.is_some());
    let forced = Options { forced: vec![NodeId(0)], ..options() };
    let told = one.watch(&[make], &forced, &mut |event| {
        if matches!(event, Event::Waiting { .. }) {
            claim = None;
        }
    });
    assert_eq!(told.events, ["waiting for make", "started make", "ran make"]);
}

#[test]
fn nodes_with_one_key_wait_as_one() {
    let make = stage("make").kind("make");
    let (mut one, _two, mut claim) = claimed(&make);
    let drafts = [make.clone(), make.named("twin"), stage("other")];
    // The twin is behind the first by now, or will be.
    let told = one.watch(&drafts, &options(), &mut |event| {
        if matches!(event, Event::Started { .. }) {
            claim = None;
        }
    });
    assert_eq!(told.events[..3], ["waiting for make", "started other", "started make"]);
    assert_eq!((told.outcome("make"), told.outcome("twin")), (Outcome::Ran, Outcome::Cached));
}

#[test]
fn who_waits_takes_no_worker() {
    let make = stage("make");
    let (mut one, _two, claim) = claimed(&make);
    let claim = Mutex::new(claim);
    // With one worker, this runs only if the other leaves it.
    let other = stage("other").work(move |work| {
        drop(claim.lock().unwrap().take());
        work.put("other")
    });
    let told = one.run(&[make, other]);
    assert_eq!(told.events[..2], ["waiting for make", "started other"]);
    assert_eq!(told.counts(), [2, 0, 0, 0, 0]);
}

#[test]
fn a_run_that_ends_does_not_wait_for_other_processes() {
    let make = stage("make");
    let (mut one, _two, _claim) = claimed(&make);
    let drafts = [make.clone(), failing("bad"), stage("use").after("make"), make.named("twin").kind("make")];
    let told = one.run(&drafts);
    assert_eq!(told.counts(), [0, 0, 1, 0, 3]);
    assert_eq!(told.error("bad"), "no luck");
}

#[test]
fn at_most_so_many_nodes_wait_at_once() {
    let drafts: Vec<Draft> = (0..80).map(|at| stage("wait").named(&format!("n{at}")).config(&at.to_string())).collect();
    let mut one = Bench::new(&[]);
    let two = one.other();
    let mut claims: Vec<Claim> =
        drafts.iter().map(|draft| two.claims.try_claim(&two.key(draft).0).unwrap().unwrap()).collect();
    let told = run_until_waiting(&mut one, &drafts, 64, || claims.clear());
    assert_eq!(told.events.iter().filter(|event| event.starts_with("waiting")).count(), 64);
    assert_eq!(told.counts(), [80, 0, 0, 0, 0]);
}

#[test]
fn a_claim_that_comes_while_what_the_node_reads_is_made_anew_is_let_go() {
    let mut bench = Bench::new(&[]);
    let claims = bench.other().claims;
    let (calls, has_come) = (AtomicUsize::new(0), Arc::new(AtomicBool::new(false)));
    let wait = stage("wait").after("make").work(|work| work.put(&work.read()?));
    // The key of what waits, from a run of it elsewhere.
    let key = Bench::new(&[]).run(&[stage("make").work(|work| work.put("bytes")), wait.clone()]).finishes["wait"].key;
    let key = key.unwrap().0;
    let make = stage("make").work({
        let (claims, has_come) = (claims.clone(), has_come.clone());
        move |work| {
            if calls.fetch_add(1, Ordering::SeqCst) == 1 {
                // It would be kept until this node ends.
                assert!(comes_true(|| has_come.load(Ordering::SeqCst) && claims.try_claim(&key).unwrap().is_some()));
            }
            work.put("bytes")
        }
    });
    bench.run(std::slice::from_ref(&make));
    bench.damage("bytes");
    let mut claim = claims.try_claim(&key).unwrap();
    assert!(claim.is_some());
    // Of two that are ready the first comes first.
    let drafts = [make, wait, stage("use").after("make")];
    let told = bench.watch(&drafts, &Options { jobs: 2, ..options() }, &mut |event| {
        if matches!(event, Event::Started { node: NodeId(0), .. }) {
            hand_over(&mut claim, &claims, &key);
            has_come.store(true, Ordering::SeqCst);
        }
    });
    assert_eq!(told.counts(), [3, 0, 0, 0, 0], "{:?}", told.events);
    assert_eq!(told.events[..3], ["waiting for wait", "started use", "started make"]);
    // Not from bytes that are lost.
    assert_eq!(told.called.iter().filter(|name| *name == "wait").count(), 1);
    assert_eq!(bench.output(&told, "wait"), "bytes");
}

/// While `long` runs, which takes up all, another process lets go of what a node waits for, having done this with it: gives
/// what was told, and whether the claim could be had again before `long` ended.
fn let_go_while_long_runs(finish: impl Fn(&Bench, &Draft)) -> (Told, bool) {
    let make = stage("make");
    let (mut one, two, mut claim) = claimed(&make);
    let key = one.key(&make).0;
    let (has_come, was_free) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let long = stage("long").work({
        let (claims, has_come, was_free) = (two.claims.clone(), has_come.clone(), was_free.clone());
        move |work| {
            let is_free = || has_come.load(Ordering::SeqCst) && claims.try_claim(&key).unwrap().is_some();
            was_free.store(comes_true(is_free), Ordering::SeqCst);
            work.put("long")
        }
    });
    let told = one.watch(&[make.clone(), long], &options(), &mut |event| {
        if matches!(event, Event::Started { node: NodeId(1), .. }) {
            finish(&two, &make);
            hand_over(&mut claim, &two.claims, &key);
            has_come.store(true, Ordering::SeqCst);
        }
    });
    (told, was_free.load(Ordering::SeqCst))
}

#[test]
fn a_claim_that_comes_while_there_is_no_room_is_let_go() {
    let (told, was_free) = let_go_while_long_runs(|_, _| {});
    assert!(was_free);
    assert_eq!(told.events, ["waiting for make", "started long", "started make", "ran long", "ran make"]);
}

#[test]
fn what_another_process_computed_is_taken_while_there_is_no_room() {
    let (told, was_free) = let_go_while_long_runs(|two, make| {
        two.store.put(b"made elsewhere").unwrap();
        let outputs = vec![("out".into(), blob("made elsewhere"))];
        two.ledger.append(&[(two.key(make).0, Record { outputs, manifest: String::new(), seconds: 7.0 })]).unwrap();
    });
    assert!(was_free);
    assert_eq!(told.events, ["waiting for make", "started long", "cached make", "ran long"]);
}

#[test]
fn keys_that_share_lock_files_never_wait_for_each_other_for_ever() {
    let bench = Bench::new(&[]);
    let draft = |at: usize| stage("node").named(&format!("n{at}")).config(&at.to_string());
    let mut files: BTreeMap<[u8; 2], Vec<Draft>> = BTreeMap::new();
    for at in 0..12_000 {
        let key = bench.key(&draft(at));
        files.entry([key.0.as_bytes()[0], key.0.as_bytes()[1]]).or_default().push(draft(at));
    }
    let shared: Vec<Draft> = files.into_values().filter(|drafts| drafts.len() > 2).flatten().collect();
    assert!(shared.len() > 30, "{}", shared.len());
    let backwards: Vec<Draft> = shared.iter().rev().cloned().collect();
    for jobs in [1, 2] {
        let (mut one, bench) = (Bench::new(&[]), &bench);
        let mut two = one.other();
        let told = thread::scope(|scope| {
            let (shared, backwards) = (&shared, &backwards);
            let runs = [
                scope.spawn(move || one.run_with(shared, &Options { jobs, ..options() })),
                scope.spawn(move || two.run_with(backwards, &Options { jobs, ..options() })),
            ];
            runs.map(|run| run.join().unwrap())
        });
        assert_eq!(told.iter().map(|told| told.summary.ran).sum::<usize>(), shared.len());
        assert!(told.iter().all(|told| told.summary.ran + told.summary.cached == shared.len()));
        let keys: BTreeSet<_> = shared.iter().map(|draft| bench.key(draft)).collect();
        assert_eq!(told[0].finishes.values().map(|finish| finish.key.unwrap()).collect::<BTreeSet<_>>(), keys);
    }
}

/// What happens to a key when it is computed.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Good,
    /// The first process that tries fails, as if it had died there.
    FailsOnce,
    PanicsOnce,
}

#[derive(Debug, Clone)]
struct Shape {
    reads: Vec<usize>,
    config: u8,
    fate: Fate,
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let fate = prop_oneof![4 => Just(Fate::Good), 1 => Just(Fate::FailsOnce), 1 => Just(Fate::PanicsOnce)];
    vec((vec(any::<Index>(), 0..3), 0..3u8, fate), 1..16).prop_map(|drawn| {
        let shape = |(at, (picks, config, fate)): (usize, (Vec<Index>, u8, Fate))| {
            let reads = if at == 0 { Vec::new() } else { picks.iter().map(|pick| pick.index(at)).collect() };
            Shape { reads, config, fate }
        };
        drawn.into_iter().enumerate().map(shape).collect()
    })
}

/// What all processes did together, by what each key stands for.
#[derive(Default)]
struct Log {
    made: Mutex<Vec<String>>,
    failed: Mutex<BTreeSet<String>>,
}

fn drafts(shapes: &[Shape], fails: bool, log: &Arc<Log>) -> Vec<Draft> {
    let draft = |(at, shape): (usize, &Shape)| {
        let (log, fate) = (log.clone(), if fails { shape.fate } else { Fate::Good });
        let mut draft = stage(&format!("n{at}")).kind("node").config(&shape.config.to_string());
        for read in &shape.reads {
            draft = draft.after(&format!("n{read}"));
        }
        draft.work(move |work| {
            let text = format!("{}({})", work.config, work.read()?);
            if fate != Fate::Good && log.failed.lock().unwrap().insert(text.clone()) {
                assert!(fate != Fate::PanicsOnce, "died");
                return Err(Failure::new("failed"));
            }
            log.made.lock().unwrap().push(text.clone());
            work.put(&blob(&text).digest.to_string())
        })
    };
    shapes.iter().enumerate().map(draft).collect()
}

/// Runs the same nodes in so many processes at once.
fn run_at_once(processes: &mut [Bench], drafts: &[Draft], jobs: usize) -> Vec<Told> {
    thread::scope(|scope| {
        let run = |bench| scope.spawn(move || bench_run(bench, drafts, jobs));
        let runs: Vec<_> = processes.iter_mut().map(run).collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    })
}

fn bench_run(bench: &mut Bench, drafts: &[Draft], jobs: usize) -> Told {
    bench.run_with(drafts, &Options { jobs, keep_going: true, ..options() })
}

fn processes(count: usize) -> Vec<Bench> {
    let first = Bench::new(&[]);
    let mut processes: Vec<Bench> = (1..count).map(|_| first.other()).collect();
    processes.push(first);
    processes
}

fn distinct(made: &[String]) -> BTreeSet<&String> {
    made.iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn several_processes_compute_each_key_once(shapes in shapes(), count in 2..4usize, jobs in 1..4usize) {
        let log = Arc::default();
        let drafts = drafts(&shapes, false, &log);
        let told = run_at_once(&mut processes(count), &drafts, jobs);
        let made = log.made.lock().unwrap();
        prop_assert_eq!(made.len(), distinct(&made).len());
        prop_assert_eq!(told.iter().map(|told| told.summary.ran).sum::<usize>(), made.len());
        for one in &told {
            prop_assert_eq!(one.summary.ran + one.summary.cached, shapes.len());
            for (name, finish) in &one.finishes {
                prop_assert_eq!(&finish.outputs, &told[0].finishes[name].outputs);
            }
        }
    }

    #[test]
    fn what_a_process_leaves_undone_is_computed_once_by_another(shapes in shapes(), jobs in 1..4usize) {
        let log = Arc::default();
        let drafts = drafts(&shapes, true, &log);
        let mut processes = processes(2);
        run_at_once(&mut processes, &drafts, jobs);
        // What both have given up for a failure is left to the next; each key fails once.
        let told = loop {
            let told = bench_run(&mut processes[0], &drafts, jobs);
            if told.summary.failed == 0 {
                break told;
            }
        };
        let made = log.made.lock().unwrap();
        prop_assert_eq!(made.len(), distinct(&made).len());
        prop_assert_eq!(told.summary.ran + told.summary.cached, shapes.len());
    }
}
