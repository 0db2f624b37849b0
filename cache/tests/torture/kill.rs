//! Processes that are killed: before every call of the scenario, and again before every call of the recovery.

use std::sync::Arc;
use std::time::Instant;

use headwater_cache::disk::{Disk, FailingDisk, Fault, ForgetfulDisk};

use crate::scenario::{self, KINDS, Kind, Promises, Seen};
use crate::seeded::{Random, torture};

/// How many lives after a kill are killed again, at random calls, for each call at which the first life was.
const SECOND_LIVES: u64 = 2;

/// Runs the scenario until it is killed before the call with this number; how many calls it made before.
pub fn killed(disk: &ForgetfulDisk, number: u64, promises: &mut Promises) -> u64 {
    let failing = FailingDisk::failing_at(Arc::new(disk.clone()), number, Fault::Killed);
    scenario::run(&(Arc::new(failing.clone()) as Arc<dyn Disk>), promises);
    failing.first_failure().map_or(failing.calls(), |call| call.number)
}

/// How many calls the scenario makes.
fn calls(kind: Kind) -> u64 {
    killed(&scenario::new_disk(kind), u64::MAX, &mut Promises::default())
}

/// A life that ends before the call with this number.
pub struct Life {
    pub kind: Kind,
    pub number: u64,
    /// How many calls a whole life makes.
    pub calls: u64,
}

/// Lives that end before each call on each kind of disk, and the whole ones.
pub fn lives() -> impl Iterator<Item = Life> {
    let lives = |kind, calls| (0..=calls).map(move |number| Life { kind, number, calls });
    KINDS.into_iter().flat_map(move |kind| lives(kind, calls(kind)))
}

#[test]
fn where_bytes_can_be_shared_they_are() {
    let [copying, sharing] = KINDS.map(calls);
    assert_ne!(copying, sharing);
}

#[test]
fn a_kill_before_any_call_and_before_any_call_of_the_recovery_loses_nothing() {
    let (begin, mut first, mut second, mut seen) = (Instant::now(), 0, 0, Seen::default());
    for Life { kind, number, .. } in lives() {
        let (disk, mut promises) = (scenario::new_disk(kind), Promises::default());
        killed(&disk, number, &mut promises);
        let place = format!("{kind:?}: killed before call {number}");
        second += kill_recovery(&disk, &promises, &mut seen, &place);
        scenario::retry(&disk.copy(), &promises, &place);
        scenario::check(&disk, &promises, &place);
        first += 1;
    }
    println!("{first} kills, {second} kills of the recovery in {:.1?}", begin.elapsed());
}

/// Kills the opening of what was left before each of its calls; returns how often.
fn kill_recovery(disk: &ForgetfulDisk, promises: &Promises, seen: &mut Seen, place: &str) -> u64 {
    for number in 0.. {
        let copy = disk.copy();
        let failing = FailingDisk::failing_at(Arc::new(copy.clone()), number, Fault::Killed);
        scenario::open(&(Arc::new(failing.clone()) as Arc<dyn Disk>));
        if failing.first_failure().is_none() {
            return number;
        }
        if seen.is_new(&copy, promises) {
            scenario::check(&copy, promises, &format!("{place}, then before call {number}"));
        }
    }
    0
}

#[test]
fn a_second_life_that_is_killed_too_loses_nothing() {
    let (begin, mut random, mut kills, mut seen) = (Instant::now(), Random(1), 0, Seen::default());
    for Life { kind, number, calls } in lives() {
        for _ in 0..SECOND_LIVES * torture() {
            let (disk, mut promises) = (scenario::new_disk(kind), Promises::default());
            killed(&disk, number, &mut promises);
            let second = random.below(calls + 1);
            killed(&disk, second, &mut promises);
            let place = format!("{kind:?}: killed before call {number}, then before call {second}");
            if seen.is_new(&disk, &promises) {
                scenario::retry(&disk.copy(), &promises, &place);
                scenario::check(&disk, &promises, &place);
            }
            kills += 2;
        }
    }
    println!("{kills} kills of first and second lives in {:.1?}", begin.elapsed());
}
