//! What nodes take up while they run.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use headwater_engine::{Capacities, Event, Failure, Options, Outcome, Request, RunError};

use crate::bench::{Bench, Draft, Placed, options, stage};

fn cpus(count: u32) -> Request {
    Request { cpus: NonZeroU32::new(count).unwrap(), ..Request::default() }
}

fn tagged(tag: &str) -> Request {
    Request { tags: [(tag.to_owned(), 1)].into(), ..Request::default() }
}

/// Counts what runs at once.
#[derive(Clone, Default)]
struct Gauge(Arc<(AtomicU64, AtomicU64)>);

impl Gauge {
    fn measured(&self, draft: Draft, amount: u64) -> Draft {
        let gauge = self.clone();
        draft.work(move |work| {
            let (now, most) = &*gauge.0;
            most.fetch_max(now.fetch_add(amount, Ordering::SeqCst) + amount, Ordering::SeqCst);
            std::thread::yield_now();
            now.fetch_sub(amount, Ordering::SeqCst);
            work.put(work.config)
        })
    }

    fn most(&self) -> u64 {
        self.0.1.load(Ordering::SeqCst)
    }
}

#[test]
fn nodes_never_take_up_more_cpus_than_there_are_jobs() {
    let (mut bench, gauge) = (Bench::new(&[]), Gauge::default());
    let draft = |at: u32| {
        let count = at % 4 + 1;
        gauge.measured(stage(&format!("n{at}")).kind("node").config(&at.to_string()).asking(cpus(count)), count.into())
    };
    let drafts: Vec<Draft> = (0..60).map(draft).collect();
    let told = bench.run_with(&drafts, &Options { jobs: 4, ..options() });
    assert_eq!(told.counts(), [60, 0, 0, 0, 0]);
    assert!(gauge.most() <= 4, "{}", gauge.most());
}

#[test]
fn quick_nodes_that_are_handed_out_ahead_are_not_beside_a_big_one() {
    let (mut bench, gauge) = (Bench::new(&[]), Gauge::default());
    let draft = |at: u32| {
        let count = if at > 40 && at.is_multiple_of(9) { 3 } else { 1 };
        gauge.measured(stage(&format!("n{at}")).kind("node").config(&at.to_string()).asking(cpus(count)), count.into())
    };
    let drafts: Vec<Draft> = (0..200).map(draft).collect();
    let told = bench.run_with(&drafts, &Options { jobs: 3, ..options() });
    assert_eq!(told.counts(), [200, 0, 0, 0, 0]);
    assert!(gauge.most() <= 3, "{}", gauge.most());
}

#[test]
fn nodes_that_share_a_tag_run_one_at_a_time_unless_there_is_more_of_it() {
    for (count, most) in [(None, 1), (Some(2), 2)] {
        let (mut bench, gauge) = (Bench::new(&[]), Gauge::default());
        let draft = |at: u32| {
            gauge.measured(stage(&format!("n{at}")).kind("node").config(&at.to_string()).asking(tagged("database")), 1)
        };
        let drafts: Vec<Draft> = (0..30).map(draft).collect();
        let tags: BTreeMap<String, u32> = count.into_iter().map(|count| ("database".to_owned(), count)).collect();
        let capacities = Capacities { tags, ..Capacities::default() };
        let told = bench.run_with(&drafts, &Options { jobs: 4, capacities, ..options() });
        assert_eq!(told.counts(), [30, 0, 0, 0, 0]);
        assert!(gauge.most() <= most, "{}", gauge.most());
    }
}

#[test]
fn a_request_beyond_the_capacity_is_an_error_before_anything_runs() {
    let mut bench = Bench::new(&[]);
    let drafts = [
        stage("small"),
        stage("large").asking(Request { memory: 20, ..Request::default() }),
        stage("drawn").asking(Request { gpus: 1, ..Request::default() }),
    ];
    let capacities = Capacities { memory: Some(10), ..Capacities::default() };
    let error = bench.refused(&drafts, &Options { jobs: 2, capacities, ..options() });
    assert!(matches!(error, RunError::TooMuch(_)));
    assert_eq!(
        error.to_string(),
        "`large` asks for 20 memory, and there are 10\n`drawn` asks for 1 gpus, and there are 0"
    );
    assert!(bench.calls.lock().unwrap().is_empty());
    assert_eq!(bench.run_with(&drafts, &Options { preview: true, ..options() }).previews.len(), 3);
}

#[test]
fn what_a_node_takes_up_is_not_in_its_key() {
    let mut bench = Bench::new(&[]);
    bench.run(&[stage("node")]);
    let told = bench.run_with(&[stage("node").asking(cpus(2)).retries(3)], &Options { jobs: 2, ..options() });
    assert_eq!(told.counts(), [0, 1, 0, 0, 0]);
}

#[test]
fn what_is_expected_to_take_longest_begins_first() {
    let mut bench = Bench::new(&[]);
    let order = Arc::new(Mutex::new(Vec::new()));
    let draft = |name: &'static str| {
        let order = order.clone();
        stage(name).work(move |work| {
            order.lock().unwrap().push(name);
            work.put(name)
        })
    };
    let drafts = [draft("quick"), draft("slow"), draft("slowest")];
    let graph = bench.graph(&drafts);
    let seconds = |name: &str| if name == "quick" { 0.5 } else { 100.0 };
    let expected = ["quick", "slowest"].map(|name| (graph.find(name).unwrap(), seconds(name))).into();
    bench.run_with(&drafts, &Options { expected, ..options() });
    assert_eq!(*order.lock().unwrap(), ["slowest", "slow", "quick"]);
}

/// A stage that runs until the end of some other node is told, and fails if that does not come.
fn until_told(name: &str, told: &Arc<Told>) -> Draft {
    let told = told.clone();
    stage(name).work(move |work| match told.wait() {
        true => work.put("it was told"),
        false => Err(Failure::new("it was not told while this ran")),
    })
}

/// Whether the end of a node was told, and whom to wake then.
#[derive(Default)]
struct Told(Mutex<bool>, Condvar);

impl Told {
    fn tell(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) -> bool {
        let wait = self.1.wait_timeout_while(self.0.lock().unwrap(), Duration::from_secs(20), |told| !*told);
        *wait.unwrap().0
    }
}

/// Runs `long`, which comes first and takes all that there is, beside nodes that are cached: all of these must be told
/// while it runs.
fn run_beside(bench: &mut Bench, cached: &[Draft], request: Request, options: Options) {
    let told = Arc::new(Told::default());
    let mut drafts = vec![until_told("long", &told).config(&options.jobs.to_string()).asking(request)];
    drafts.extend_from_slice(cached);
    let expected = [(bench.graph(&drafts).find("long").unwrap(), 1e6)].into();
    let mut left = cached.len();
    let done = bench.watch(&drafts, &Options { expected, ..options }, &mut |event| {
        if matches!(event, Event::Finished(finish) if finish.outcome == Outcome::Cached) {
            left -= 1;
            if left == 0 {
                told.tell();
            }
        }
    });
    assert_eq!(done.counts(), [1, cached.len(), 0, 0, 0], "{:?}", done.finishes["long"].error);
}

#[test]
fn cached_nodes_are_told_while_what_runs_takes_up_all() {
    let mut bench = Bench::new(&[]);
    let cached: Vec<Draft> =
        (0..200).map(|at| stage("cached").named(&format!("n{at}")).config(&at.to_string())).collect();
    bench.run(&cached);
    run_beside(&mut bench, &cached, Request::default(), options());
    run_beside(&mut bench, &cached, cpus(2), Options { jobs: 2, ..options() });
}

#[test]
fn outs_are_put_back_while_what_runs_takes_up_all_that_their_stage_asks_for() {
    let mut bench = Bench::new(&[]);
    let all = || Request { cpus: NonZeroU32::new(2).unwrap(), ..tagged("database") };
    let outs: Vec<Arc<Placed>> = (0..5).map(|_| Arc::default()).collect();
    let draft = |(at, outs): (usize, &Arc<Placed>)| {
        stage("placed").named(&format!("n{at}")).config(&at.to_string()).asking(all()).outs(outs)
    };
    let cached: Vec<Draft> = outs.iter().enumerate().map(draft).collect();
    let options = || Options { jobs: 2, ..options() };
    bench.run_with(&cached, &options());
    outs.iter().for_each(|outs| outs.set(None));
    run_beside(&mut bench, &cached, all(), options());
    assert!(outs.iter().all(|outs| outs.get().is_some()));
}

#[test]
fn a_cached_node_is_told_while_a_node_is_due() {
    let (mut bench, told) = (Bench::new(&[]), Arc::new(Told::default()));
    bench.run(&[stage("cached")]);
    // One cpu of two is taken all the time; small nodes pass through the other until the big one is due.
    let mut drafts = vec![until_told("long", &told), stage("big").asking(cpus(2))];
    drafts.extend((0..40).map(|at| stage("small").named(&format!("n{at}")).config(&at.to_string())));
    drafts.push(stage("cached"));
    let graph = bench.graph(&drafts);
    let expected = [("long", 1e6), ("big", 1e5)].map(|(name, seconds)| (graph.find(name).unwrap(), seconds)).into();
    let done = bench.watch(&drafts, &Options { jobs: 2, expected, ..options() }, &mut |event| {
        if matches!(event, Event::Finished(finish) if finish.outcome == Outcome::Cached) {
            told.tell();
        }
    });
    assert_eq!(done.counts(), [42, 1, 0, 0, 0], "{:?}", done.finishes["long"].error);
}
