//! Threads of this crate's own, for work on many files or on large ones.
//!
//! Does not know the work.
//!
//! A worker of a rayon pool that waits for a part of its work takes up other jobs of that pool meanwhile. To whoever
//! runs stages as jobs that would mean: a look at a folder that ends hours later, and a lock that is held meanwhile or
//! that its own thread waits for. So the work of this crate is done in a pool that knows no other, and the caller waits
//! without taking up anything.
//!
//! Invariant: nothing but [`aside`] runs in the pool, and nothing but [`aside_with_waits`] in the other, which is for work that
//! mostly reads and now and then waits for the drive.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use rayon::ThreadPool;

/// So many wait at once.
const WAITING: usize = 8;

/// Threads of the pool for work that waits.
const WITH_WAITS: usize = 16;

static POOL: LazyLock<Option<ThreadPool>> = LazyLock::new(|| pool("headwater-files", 0));
static WAITING_POOL: LazyLock<Option<ThreadPool>> = LazyLock::new(|| pool("headwater-keeps", WITH_WAITS));

/// So many threads; one for each processor core if `threads` is 0.
fn pool(name: &'static str, threads: usize) -> Option<ThreadPool> {
    let name = move |number| format!("{name}-{number}");
    rayon::ThreadPoolBuilder::new().thread_name(name).num_threads(threads).build().ok()
}

/// Does `work` with all threads of the crate's pool; on this one if there are no threads to be had.
pub(crate) fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    aside_in(&POOL, work)
}

/// [`aside`], for work each part of which may wait for the drive: there are more threads than cores.
pub(crate) fn aside_with_waits<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    aside_in(&WAITING_POOL, work)
}

fn aside_in<T: Send>(pool: &Option<ThreadPool>, work: impl FnOnce() -> T + Send) -> T {
    let Some(pool) = pool.as_ref().filter(|pool| pool.current_thread_index().is_none()) else { return work() };
    if rayon::current_thread_index().is_none() {
        return pool.install(work);
    }
    std::thread::scope(|scope| scope.spawn(|| pool.install(work)).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

/// Does `work`, which mostly waits, with each of the items, on several threads at once; with fewer if no more are to be had.
pub(crate) fn waiting<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let go_on = || {
        while let Some((number, item)) = items.iter().enumerate().nth(next.fetch_add(1, Ordering::Relaxed)) {
            let result = work(item);
            done.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..items.len().min(WAITING) {
            // This thread is one of them, so nothing is left undone.
            let _ = std::thread::Builder::new().spawn_scoped(scope, go_on);
        }
        go_on();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_wait_wait_at_once_and_answer_in_order() {
        let barrier = std::sync::Barrier::new(WAITING);
        let items: Vec<usize> = (0..WAITING).collect();
        let answers = waiting(&items, |item| {
            // Nobody goes on before all of them are here.
            barrier.wait();
            item * 2
        });
        assert_eq!(answers, [0, 2, 4, 6, 8, 10, 12, 14]);
        assert!(waiting(&[], |item: &usize| *item).is_empty());
    }

    #[test]
    fn whoever_waits_takes_up_no_other_job() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let told = Mutex::new(Vec::new());
        let tell = |what| told.lock().unwrap().push(what);
        pool.scope(|scope| {
            for _ in 0..10 {
                scope.spawn(|_| {
                    tell("begin");
                    aside(|| std::thread::sleep(std::time::Duration::from_millis(1)));
                    tell("end");
                });
            }
        });
        assert_eq!(told.into_inner().unwrap(), ["begin", "end"].repeat(10));
    }

    #[test]
    fn work_within_work_has_the_same_threads() {
        let names = aside(|| aside(|| rayon::broadcast(|_| std::thread::current().name().map(str::to_owned))));
        assert!(names.iter().flatten().all(|name| name.starts_with("headwater-files-")), "{names:?}");
    }

    #[test]
    fn a_panic_goes_on_where_the_work_was_asked_for() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        let panicked = pool.install(|| std::panic::catch_unwind(|| aside(|| panic!("this one"))));
        assert_eq!(panicked.unwrap_err().downcast_ref(), Some(&"this one"));
    }
}
