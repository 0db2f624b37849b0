//! What becomes of a stage that waits for another pool, as one that calls polars does: the experiment behind
//! `engine/src/crew.rs`.
//!
//! A watch-dog ends a test that would wait for ever; no other time is looked at.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use headwater_engine::crew::{Crew, Work};
use rayon::prelude::*;
use rayon::{ThreadPool, ThreadPoolBuilder};

/// Far more than any of it takes.
const LIMIT: Duration = Duration::from_secs(300);

fn pool(threads: usize) -> ThreadPool {
    ThreadPoolBuilder::new().num_threads(threads).build().unwrap()
}

fn within_limit<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = channel();
    std::thread::spawn(move || done.send(work()));
    result.recv_timeout(LIMIT).expect("it ends within the limit")
}

thread_local! {
    /// Whether a stage is on this thread's stack.
    static BUSY: AtomicBool = const { AtomicBool::new(false) };
}

/// Runs a stage; counts it if another is on the stack below.
fn stage(stacked: &AtomicUsize, work: impl FnOnce()) {
    let below = BUSY.with(|busy| busy.swap(true, Ordering::SeqCst));
    stacked.fetch_add(usize::from(below), Ordering::SeqCst);
    work();
    BUSY.with(|busy| busy.store(below, Ordering::SeqCst));
}

/// What decided against a rayon pool: one that is handed no more jobs than it has threads still runs one upon another.
/// The first stage waits for another pool; the second ends, and with both threads free to look, the third is the first's
/// to take as well as the second's. With one thread of two held busy it has no choice.
#[test]
fn a_rayon_worker_that_waits_for_another_pool_takes_up_a_stage() {
    let stacked = within_limit(|| {
        let (engine, other) = (pool(2), Arc::new(pool(1)));
        let (stacked, begun) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(2)));
        let (go, gone) = channel::<()>();
        let (let_go, held) = channel::<()>();
        let (ended, end) = channel();
        let tell = |ended: &Sender<()>| ended.send(()).unwrap();
        // Keeps the second thread: the stage that is handed out next has but one thread to go to.
        let kept = begun.clone();
        engine.spawn(move || {
            kept.wait();
            let_go_of(&held);
        });
        begun.wait();
        let (first, before, ended_first) = (stacked.clone(), begun.clone(), ended.clone());
        engine.spawn(move || {
            stage(&first, || {
                before.wait();
                other.install(move || gone.recv().unwrap());
            });
            tell(&ended_first);
        });
        begun.wait();
        let next = stacked.clone();
        engine.spawn(move || {
            stage(&next, || go.send(()).unwrap());
            tell(&ended);
        });
        // The first ends only if the other stage runs, which has no thread of its own.
        let ends = [end.recv().unwrap(), end.recv().unwrap()];
        drop(let_go);
        assert_eq!(ends.len(), 2);
        stacked.load(Ordering::SeqCst)
    });
    assert_eq!(stacked, 1);
}

/// Waits until the other end is dropped.
fn let_go_of(held: &Receiver<()>) {
    assert!(held.recv().is_err());
}

/// A stage that uses its own rayon iterators, joins, and another pool within these, some levels deep.
fn nested(other: &ThreadPool, depth: usize) -> usize {
    if depth == 0 {
        return other.install(|| (0..32usize).into_par_iter().sum());
    }
    let (left, right) = rayon::join(|| nested(other, depth - 1), || nested(other, depth - 1));
    left + right + (0..16usize).into_par_iter().map(|number| other.install(|| number)).sum::<usize>()
}

#[test]
fn stages_that_wait_for_other_pools_never_run_upon_each_other_and_all_end() {
    const STAGES: usize = 200;
    let expected = nested(&pool(1), 3);
    for (threads, others) in [(1, 1), (2, 1), (2, 3), (4, 2)] {
        let (stacked, most, sum) = within_limit(move || {
            let other = pool(others);
            let (stacked, running) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let (most, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
            std::thread::scope(|scope| {
                let crew = Crew::start(scope, "stage", threads).unwrap();
                let job = || {
                    stage(&stacked, || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        sum.fetch_add(nested(&other, 3), Ordering::SeqCst);
                        running.fetch_sub(1, Ordering::SeqCst);
                    });
                };
                // All at once: far more than there are threads.
                crew.hand((0..STAGES).map(|_| Box::new(job) as Work));
            });
            (stacked.into_inner(), most.into_inner(), sum.into_inner())
        });
        assert_eq!((stacked, sum), (0, STAGES * expected));
        assert!(most <= threads, "{most} stages at once on {threads} threads");
    }
}
