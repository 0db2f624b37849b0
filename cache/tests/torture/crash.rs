//! Power cuts: at every call of the scenario, every state that the disk could be left in, or a sample of them.

use std::time::Instant;

use headwater_cache::disk::ForgetfulDisk;

use crate::kill::{Life, killed, lives};
use crate::scenario::{self, Promises, Seen};
use crate::seeded::{Random, torture};

/// All states after a call are looked at if there are no more than this, otherwise as many of them.
const STATES: u64 = 96;
/// In how many of the states after a call a second life begins.
const SECOND_LIVES: u64 = 3;
/// How many states are looked at after a second life.
const SECOND_STATES: u64 = 8;

/// Counts states, and looks at each once.
#[derive(Default)]
struct Looks {
    states: u64,
    seen: Seen,
}

impl Looks {
    fn check(&mut self, disk: &ForgetfulDisk, promises: &Promises, place: &str) {
        self.states += 1;
        if self.seen.is_new(disk, promises) {
            scenario::check(disk, promises, place);
        }
    }
}

#[test]
fn what_is_promised_survives_every_crash_and_no_record_outlives_its_blobs() {
    let (begin, mut looks, mut sampled) = (Instant::now(), Looks::default(), 0);
    for Life { kind, number, .. } in lives() {
        let (disk, mut promises) = (scenario::new_disk(kind), Promises::default());
        killed(&disk, number, &mut promises);
        let bound = STATES * torture();
        sampled += u64::from(disk.crash_count() > bound);
        for (index, crashed) in disk.crashes(bound, number).enumerate() {
            looks.check(&crashed, &promises, &format!("{kind:?}: crash {index} before call {number}"));
        }
    }
    let (states, different, time) = (looks.states, looks.seen.count(), begin.elapsed());
    println!("{states} crash states, {different} different, {sampled} calls sampled, in {time:.1?}");
}

#[test]
fn what_is_promised_survives_a_crash_of_the_life_after_a_crash() {
    let (begin, mut looks, mut random) = (Instant::now(), Looks::default(), Random(2));
    for Life { kind, number, calls } in lives() {
        let (disk, mut promises) = (scenario::new_disk(kind), Promises::default());
        killed(&disk, number, &mut promises);
        for crashed in disk.crashes(SECOND_LIVES * torture(), random.below(u64::MAX)) {
            live_again(&crashed, &promises, number, random.below(calls + 1), &mut looks);
        }
    }
    let (states, different, time) = (looks.states, looks.seen.count(), begin.elapsed());
    println!("{states} crash states of second lives, {different} different, in {time:.1?}");
}

#[test]
fn what_is_promised_after_a_kill_survives_a_crash() {
    let (begin, mut looks, mut random) = (Instant::now(), Looks::default(), Random(3));
    for Life { kind, number, calls } in lives() {
        let (disk, mut promises) = (scenario::new_disk(kind), Promises::default());
        killed(&disk, number, &mut promises);
        // What the dead process did not sync is still pending when the next one begins.
        live_again(&disk.copy(), &promises, number, calls, &mut looks);
        live_again(&disk, &promises, number, random.below(calls + 1), &mut looks);
    }
    let (states, different, time) = (looks.states, looks.seen.count(), begin.elapsed());
    println!("{states} crash states after a kill and a second life, {different} different, in {time:.1?}");
}

/// A second life on what the first one left, killed before the call `second`, and the crashes after it.
fn live_again(disk: &ForgetfulDisk, promises: &Promises, first: u64, second: u64, looks: &mut Looks) {
    let mut promises = promises.clone();
    killed(disk, second, &mut promises);
    for (index, crashed) in disk.crashes(SECOND_STATES * torture(), first ^ second).enumerate() {
        let place = format!("first life until call {first}, second until call {second}, crash {index}");
        looks.check(&crashed, &promises, &place);
    }
}

#[test]
fn after_any_crash_everything_can_be_done_again() {
    let (begin, mut states) = (Instant::now(), 0);
    for Life { kind, number, .. } in lives() {
        let (disk, mut promises) = (scenario::new_disk(kind), Promises::default());
        killed(&disk, number, &mut promises);
        for (index, crashed) in disk.crashes(3 * torture(), number).enumerate() {
            scenario::retry(&crashed, &promises, &format!("{kind:?}: crash {index} before call {number}"));
            states += 1;
        }
    }
    println!("{states} crash states lived on in {:.1?}", begin.elapsed());
}
