//! A model of runs and collections over one store, explored schedule by schedule.
//!
//! The model has what the store's code has: a lock that runs share and a collection has alone, an index that is read
//! after the lock was taken, uses that a run writes before it lets go. The kernel's lock is a counter that blocks.
//!
//! What must hold at every step of every schedule: what a run was told is there stays readable until it lets go, and what
//! the last sets name is there whenever nobody collects.

mod seeded;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use shuttle::rand::{Rng, thread_rng};
use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::thread;

/// Schedules that are tried; `HEADWATER_TORTURE` multiplies them.
const SCHEDULES: usize = 3_000;
const KEYS: u64 = 3;
/// So many sets of a user are kept.
const KEPT: usize = 1;

type Key = u64;

/// What lies on the disk. Each access is one step.
#[derive(Default)]
struct Disk {
    blobs: BTreeSet<Key>,
    records: BTreeMap<Key, Key>,
    /// The newest last.
    uses: BTreeMap<usize, Vec<BTreeSet<Key>>>,
}

/// A kernel lock: shared by some, or held by one alone.
#[derive(Default)]
struct Lock {
    /// How many share it; -1 if it is held alone.
    state: Mutex<i64>,
    free: Condvar,
}

impl Lock {
    fn share(&self) {
        let mut state = self.state.lock().unwrap();
        while *state < 0 {
            state = self.free.wait(state).unwrap();
        }
        *state += 1;
    }

    fn try_alone(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        let free = *state == 0;
        if free {
            *state = -1;
        }
        free
    }

    fn release(&self) {
        let mut state = self.state.lock().unwrap();
        *state = if *state < 0 { 0 } else { *state - 1 };
        self.free.notify_all();
    }
}

/// What a broken variant of the code leaves out.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// A collection does not ask whether anybody runs.
    CollectsUnasked,
    /// A run reads its index before it takes the lock.
    IndexBeforeLock,
}

struct World {
    disk: Mutex<Disk>,
    lock: Lock,
    fault: Fault,
}

impl World {
    fn run(&self, user: usize) {
        let early = (self.fault == Fault::IndexBeforeLock).then(|| self.disk.lock().unwrap().records.clone());
        self.lock.share();
        let mut index = early.unwrap_or_else(|| self.disk.lock().unwrap().records.clone());
        let mut set = BTreeSet::new();
        for _ in 0..2 {
            let key = thread_rng().gen_range(0..KEYS);
            match index.get(&key) {
                Some(blob) => self.read(*blob),
                None => {
                    // Blobs are durable before the record is.
                    self.disk.lock().unwrap().blobs.insert(key);
                    self.disk.lock().unwrap().records.insert(key, key);
                    index.insert(key, key);
                }
            }
            set.insert(key);
        }
        if thread_rng().gen_bool(0.2) {
            // Killed: the kernel lets go of its lock, and nobody has written what it used.
            return self.lock.release();
        }
        self.disk.lock().unwrap().uses.entry(user).or_default().push(set.clone());
        for key in set {
            self.read(key);
        }
        self.lock.release();
    }

    fn read(&self, blob: Key) {
        assert!(self.disk.lock().unwrap().blobs.contains(&blob), "a run was told of a blob that is gone");
    }

    fn collect(&self) {
        if self.fault != Fault::CollectsUnasked && !self.lock.try_alone() {
            return;
        }
        let (kept, forgotten) = self.mark();
        let records = self.disk.lock().unwrap().records.clone();
        for (key, blob) in records {
            if forgotten.contains(&key) && !kept.contains(&key) {
                self.disk.lock().unwrap().blobs.remove(&blob);
                self.disk.lock().unwrap().records.remove(&key);
            }
            // It may be killed between any two removals.
            if thread_rng().gen_bool(0.1) {
                break;
            }
        }
        if self.fault != Fault::CollectsUnasked {
            self.lock.release();
        }
    }

    /// The keys of the sets that are kept, and of those that are not.
    fn mark(&self) -> (BTreeSet<Key>, BTreeSet<Key>) {
        let disk = self.disk.lock().unwrap();
        let (mut kept, mut forgotten) = (BTreeSet::new(), BTreeSet::new());
        for sets in disk.uses.values() {
            let (old, new) = sets.split_at(sets.len().saturating_sub(KEPT));
            kept.extend(new.iter().flatten());
            forgotten.extend(old.iter().flatten());
        }
        (kept, forgotten)
    }

    /// What the last sets name can be had.
    fn check(&self) {
        let (kept, _) = self.mark();
        let disk = self.disk.lock().unwrap();
        for key in kept {
            assert!(disk.records.get(&key).is_some_and(|blob| disk.blobs.contains(blob)), "what is used is gone");
        }
    }
}

fn explore(fault: Fault) {
    let schedules = SCHEDULES * seeded::torture() as usize;
    let life = move || {
        let world = Arc::new(World { disk: Mutex::default(), lock: Lock::default(), fault });
        let run = |user| {
            let world = world.clone();
            thread::spawn(move || (0..3).for_each(|_| world.run(user)))
        };
        let collect = || {
            let world = world.clone();
            thread::spawn(move || (0..3).for_each(|_| world.collect()))
        };
        let threads = [run(0), run(1), collect(), collect()];
        for thread in threads {
            thread.join().unwrap();
        }
        world.check();
    };
    shuttle::check_random(life, schedules);
    shuttle::check_pct(life, schedules, 3);
}

#[test]
fn no_schedule_of_runs_and_collections_loses_what_is_used() {
    explore(Fault::None);
}

/// The model can tell: without the lock, or with the lock taken too late, some schedule loses something.
#[test]
fn a_collection_that_does_not_ask_and_an_index_read_too_early_are_found() {
    for fault in [Fault::CollectsUnasked, Fault::IndexBeforeLock] {
        assert!(catch_unwind(AssertUnwindSafe(|| explore(fault))).is_err());
    }
}
