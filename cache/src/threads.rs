//! Threads of this crate's own, for work on many files or on large ones.
//!
//! Does not know the work.
//!
//! A worker of a rayon pool that waits for a part of its work takes up other jobs of that pool meanwhile. To whoever
//! runs stages as jobs that would mean: a look at a folder that ends hours later, and a lock that is held meanwhile or
//! that its own thread waits for. So the work of this crate is done in a pool that knows no other, and the caller waits
//! without taking up anything.
//!
//! Invariant: nothing but [`aside`] runs in the pool.

use std::panic::resume_unwind;
use std::sync::LazyLock;

use rayon::ThreadPool;

static POOL: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let name = |number| format!("headwater-files-{number}");
    rayon::ThreadPoolBuilder::new().thread_name(name).build().ok()
});

/// Does `work` with all threads of the crate's pool; on this one if there are no threads to be had.
pub(crate) fn aside<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let Some(pool) = POOL.as_ref().filter(|pool| pool.current_thread_index().is_none()) else { return work() };
    if rayon::current_thread_index().is_none() {
        return pool.install(work);
    }
    std::thread::scope(|scope| scope.spawn(|| pool.install(work)).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

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
