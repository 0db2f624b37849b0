//! Calls that fail: every call of the scenario, with every error number, and short writes.

use std::sync::Arc;
use std::time::Instant;

use headwater_cache::disk::{Disk, FailingDisk, Fault};

use crate::kill::{Life, lives};
use crate::scenario::{self, Kind, Promises, Seen};

const EIO: i32 = 5;
const EINTR: i32 = 4;
const EAGAIN: i32 = 11;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
/// EIO, ENOSPC, EDQUOT, EINTR, EAGAIN, EMFILE, EACCES, EROFS, ENOENT, ESTALE.
const ERRNOS: [i32; 10] = [EIO, ENOSPC, 122, EINTR, EAGAIN, 24, 13, EROFS, 2, 116];

/// Runs the scenario on a disk that fails, then asks what is left once it fails no more.
fn suffer(
    kind: Kind,
    failing: impl Fn(Arc<dyn Disk>) -> FailingDisk,
    repeat: bool,
    seen: &mut Seen,
    place: &str,
) -> (FailingDisk, Promises) {
    let disk = scenario::new_disk(kind);
    let failing = failing(Arc::new(disk.clone()));
    let mut promises = Promises { repeat, ..Promises::default() };
    scenario::run(&(Arc::new(failing.clone()) as Arc<dyn Disk>), &mut promises);
    let place = format!("{place} on {:?} after {:?}", failing.first_failure(), promises.errors);
    for error in &promises.errors {
        assert!(error.contains('/') || error.starts_with("blob "), "{place}: no path");
    }
    if seen.is_new(&disk, &promises) {
        scenario::retry(&disk.copy(), &promises, &place);
        scenario::check(&disk, &promises, &place);
    }
    (failing, promises)
}

#[test]
fn a_failed_call_is_an_error_that_loses_nothing_and_passes() {
    let (begin, mut injected, mut seen) = (Instant::now(), 0, Seen::default());
    for Life { kind, number, .. } in lives().filter(|life| life.number < life.calls) {
        let errors = ERRNOS.map(Fault::Error);
        for fault in errors.into_iter().chain([Fault::Short(ENOSPC), Fault::Short(EIO)]) {
            let place = format!("{kind:?}: call {number} {fault:?}");
            let failing = |inner| FailingDisk::failing_at(inner, number, fault);
            let (failing, _) = suffer(kind, failing, true, &mut seen, &place);
            assert!(failing.first_failure().is_some(), "{place}");
            injected += 1;
        }
    }
    let (outcomes, time) = (seen.count(), begin.elapsed());
    println!("{injected} faults injected, {outcomes} outcomes, in {time:.1?}");
}

#[test]
fn a_disk_that_stays_full_or_broken_or_read_only_loses_nothing_and_can_be_mended() {
    let (begin, mut disks, mut seen) = (Instant::now(), 0, Seen::default());
    for Life { kind, number, .. } in lives().filter(|life| life.number < life.calls) {
        for errno in [EIO, ENOSPC, EROFS] {
            let failing = |inner| FailingDisk::failing_from(inner, number, Fault::Error(errno));
            suffer(kind, failing, false, &mut seen, &format!("{kind:?}: from call {number} on {errno}"));
            disks += 1;
        }
    }
    println!("{disks} disks broken for good in {:.1?}", begin.elapsed());
}

#[test]
fn an_interrupted_call_is_repeated_unless_it_is_a_sync_or_a_rename() {
    for Life { kind, number, .. } in lives().filter(|life| life.number < life.calls) {
        for errno in [EINTR, EAGAIN] {
            let inner = Arc::new(scenario::new_disk(kind));
            let failing = FailingDisk::failing_at(inner, number, Fault::Error(errno));
            let mut promises = Promises::default();
            scenario::run(&(Arc::new(failing.clone()) as Arc<dyn Disk>), &mut promises);
            let call = failing.first_failure().unwrap();
            // Contents that cannot be written are no failure: the segment is looked through again.
            let is_contents = call.operation == "rename" && call.path.starts_with(format!("{}/tmp", scenario::ROOT));
            let is_final = ["sync", "rename"].contains(&call.operation) && !is_contents;
            assert_eq!(promises.errors.is_empty(), !is_final, "{call:?}: {:?}", promises.errors);
        }
    }
}

#[test]
fn a_disk_that_is_always_interrupted_is_an_error_and_no_hang() {
    let failing = |inner| FailingDisk::failing_from(inner, 0, Fault::Error(EINTR));
    let (_, promises) = suffer(Kind::Copying, failing, false, &mut Seen::default(), "always");
    let text = "cannot stat /w/project/.headwater/format: Interrupted system call (os error 4)";
    assert_eq!(promises.errors, [text, text]);
}
