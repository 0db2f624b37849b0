//! `Crew`: the threads on which stages run, each one job after another.
//!
//! It does not know what a job is, nor how many should be handed out at once.
//!
//! They are plain threads and no rayon pool, which was decided by experiment (`tests/pools.rs`). A rayon worker that waits
//! for another pool, as a stage does that calls polars, looks for jobs of its own pool meanwhile. It then runs another
//! stage upon the stack of the first, whose result is ready and waits until the other one ends, perhaps hours later, while
//! a thread that could have run it sleeps. To hand out no more jobs than there are threads does not prevent that: the job
//! that follows one which ended goes to whoever looks first. A plain thread that waits for a pool sleeps. What a stage
//! itself does with rayon's parallel iterators goes to rayon's global pool, which all stages share, and at worst a stage
//! takes up a piece of another's iterator there, which is short.
//!
//! Invariants: a thread takes up a job only when it has ended the one before; jobs begin in the order in which they were
//! handed in; all have ended when the crew's scope ends. A job must not panic.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

/// Some work.
pub type Work<'scope> = Box<dyn FnOnce() + Send + 'scope>;

/// Threads that take jobs. They end when it is dropped and all that was handed in is done.
pub struct Crew<'scope>(Arc<Shared<'scope>>);

struct Shared<'scope> {
    bench: Mutex<Bench<'scope>>,
    /// There is a job, or there will be no more.
    called: Condvar,
}

struct Bench<'scope> {
    jobs: VecDeque<Work<'scope>>,
    /// Threads that wait for a job.
    idle: usize,
    closed: bool,
}

impl<'scope> Crew<'scope> {
    /// Starts so many threads, with this name and a number.
    ///
    /// # Errors
    /// If not all of them can be had.
    pub fn start<'env>(threads: &'scope Scope<'scope, 'env>, name: &str, count: usize) -> io::Result<Self> {
        let bench = Mutex::new(Bench { jobs: VecDeque::new(), idle: 0, closed: false });
        let crew = Self(Arc::new(Shared { bench, called: Condvar::new() }));
        for number in 0..count {
            let shared = crew.0.clone();
            let name = format!("{name}-{number}");
            std::thread::Builder::new().name(name).spawn_scoped(threads, move || shared.work())?;
        }
        Ok(crew)
    }

    /// Hands jobs in; the next thread that is free takes the first.
    pub fn hand(&self, jobs: impl IntoIterator<Item = Work<'scope>>) {
        let mut bench = self.0.lock();
        bench.jobs.extend(jobs);
        let called = bench.idle.min(bench.jobs.len());
        drop(bench);
        (0..called).for_each(|_| self.0.called.notify_one());
    }
}

impl Drop for Crew<'_> {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.called.notify_all();
    }
}

impl<'scope> Shared<'scope> {
    fn work(&self) {
        while let Some(job) = self.next() {
            job();
        }
    }

    fn next(&self) -> Option<Work<'scope>> {
        let mut bench = self.lock();
        loop {
            if let Some(job) = bench.jobs.pop_front() {
                return Some(job);
            }
            if bench.closed {
                return None;
            }
            bench.idle += 1;
            bench = self.called.wait(bench).unwrap_or_else(PoisonError::into_inner);
            bench.idle -= 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bench<'scope>> {
        self.bench.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn all_that_was_handed_in_is_done_when_the_scope_ends() {
        let done = Mutex::new(Vec::new());
        std::thread::scope(|threads| {
            let crew = Crew::start(threads, "stage", 1).unwrap();
            for number in 0..100 {
                let done = &done;
                crew.hand([Box::new(move || done.lock().unwrap().push(number)) as Work]);
            }
        });
        assert_eq!(done.into_inner().unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn jobs_run_at_once_on_as_many_threads_as_there_are() {
        let meet = std::sync::Barrier::new(3);
        std::thread::scope(|threads| {
            let crew = Crew::start(threads, "stage", 3).unwrap();
            let job = || {
                meet.wait();
            };
            crew.hand((0..3).map(|_| Box::new(job) as Work));
        });
    }

    #[test]
    fn a_thread_that_waits_takes_up_no_other_job() {
        let (sender, answers) = channel();
        let (go, gone) = channel();
        std::thread::scope(|threads| {
            let crew = Crew::start(threads, "stage", 1).unwrap();
            let second = sender.clone();
            let first: Work = Box::new(move || {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
                pool.install(move || gone.recv().unwrap());
                sender.send("first").unwrap();
            });
            crew.hand([first, Box::new(move || second.send("second").unwrap()) as Work]);
            go.send(()).unwrap();
        });
        assert_eq!(answers.iter().collect::<Vec<_>>(), ["first", "second"]);
    }
}
