//! Lines kept, merged, damaged and lost.

use super::*;
use crate::disk::{FailingDisk, Fault, ForgetfulDisk};
use proptest::prelude::*;

const PATH: &str = "/state/files";
const ADDED: &str = "/state/files.new";
const BOOT: &[u8] = b"this boot";

fn load(disk: &(impl Disk + Clone + 'static)) -> Lines {
    Lines::load(Arc::new(disk.clone()), Path::new(PATH), BOOT)
}

fn key(number: u64) -> Key {
    Key::of(Path::new(&format!("/data/{number}")))
}

/// What file `number` is after so many edits; hashed long after.
fn hashed(number: u64, edits: i64) -> Hashed {
    let at = |seconds| Moment { seconds, nanos: 7 };
    let (modified, changed) = (at(1000 + edits), at(2000 + edits));
    let fingerprint = Fingerprint { device: 1, inode: number, size: 3, modified, changed, mode: 0o100644 };
    let digest = Digest::of(format!("{number} {edits}").as_bytes());
    Hashed { fingerprint, hashed_at: at(1_000_000 + edits), digest }
}

fn insert(lines: &mut Lines, numbers: std::ops::Range<u64>, edits: i64) {
    numbers.for_each(|number| lines.insert(key(number), hashed(number, edits)));
}

/// A disk with a saved index of so many files.
fn saved(count: u64) -> ForgetfulDisk {
    let disk = ForgetfulDisk::new();
    let mut lines = load(&disk);
    insert(&mut lines, 0..count, 0);
    lines.save().unwrap();
    disk
}

fn length(disk: &dyn Disk, path: &str) -> u64 {
    disk.look(Path::new(path), Links::Refuse).unwrap().bytes
}

fn bytes(disk: &dyn Disk, path: &str) -> Vec<u8> {
    let file = disk.open(Path::new(path), Access::Read(Links::Refuse)).unwrap();
    disk::read(&*file, Path::new(path), length(disk, path)).unwrap()
}

#[test]
fn every_line_of_a_base_of_many_pages_is_found_and_no_other() {
    for count in [1, 2, 127, 128, 129, 5000] {
        let lines = load(&saved(count));
        assert!(lines.fresh.is_empty(), "all of it is in the base");
        for number in 0..count {
            assert_eq!(lines.get(&key(number)), Some(hashed(number, 0)), "{number} of {count}");
        }
        assert!((count..count + 500).all(|number| lines.get(&key(number)).is_none()));
    }
}

#[test]
fn one_lookup_in_a_large_base_reads_a_few_pages() {
    let disk = FailingDisk::counting(Arc::new(saved(50_000)));
    let lines = load(&disk);
    let (before, lookups) = (disk.calls(), 100);
    for number in 0..lookups {
        // What was read is remembered: each lookup meets a value that has looked at nothing.
        assert!(load(&disk).get(&key(number * 400)).is_some());
    }
    let opening = 9;
    assert!(disk.calls() - before <= lookups * (opening + 3), "{} calls", disk.calls() - before);
    drop(lines);
}

#[test]
fn one_changed_file_among_many_is_one_line_more() {
    let disk = saved(5000);
    let base = bytes(&disk, PATH);
    let mut lines = load(&disk);
    insert(&mut lines, 7..8, 1);
    lines.save().unwrap();
    assert_eq!(bytes(&disk, PATH), base);
    assert_eq!(length(&disk, ADDED), 2 * LINE as u64);
    assert_eq!(load(&disk).get(&key(7)), Some(hashed(7, 1)));
}

#[test]
fn more_changes_than_a_share_of_the_base_are_merged_into_it() {
    let disk = saved(1000);
    for round in 0..10 {
        let mut lines = load(&disk);
        insert(&mut lines, round * 100..round * 100 + 100, 1);
        lines.save().unwrap();
    }
    assert_eq!(length(&disk, PATH), 1001 * LINE as u64);
    assert!(length(&disk, ADDED) <= 251 * LINE as u64);
    let lines = load(&disk);
    assert!((0..1000).all(|number| lines.get(&key(number)) == Some(hashed(number, 1))));
}

#[test]
fn a_save_without_news_writes_nothing() {
    let disk = FailingDisk::counting(Arc::new(saved(10)));
    let mut lines = load(&disk);
    lines.get(&key(1));
    let before = disk.calls();
    lines.save().unwrap();
    assert_eq!(disk.calls(), before);
}

#[test]
fn what_nobody_asks_for_leaves_after_some_merges_and_what_somebody_asks_for_stays() {
    let disk = saved(10);
    for edits in 1..=i64::from(KEPT_MERGES) {
        let mut lines = load(&disk);
        assert!(lines.get(&key(9)).is_some(), "nobody has forgotten it");
        // Four of ten are merged at once; the lines 4 to 8 are not asked for.
        insert(&mut lines, 0..4, edits);
        lines.save().unwrap();
    }
    let lines = load(&disk);
    let known: Vec<u64> = (0..10).filter(|number| lines.get(&key(*number)).is_some()).collect();
    assert_eq!(known, [0, 1, 2, 3, 9]);
}

#[test]
fn two_processes_that_save_lose_nothing_of_each_other() {
    for count in [0, 1000] {
        let disk = saved(count);
        let (mut one, mut two) = (load(&disk), load(&disk));
        insert(&mut one, 2000..2300, 0);
        insert(&mut two, 3000..3020, 0);
        insert(&mut two, 2000..2001, 1);
        one.save().unwrap();
        two.save().unwrap();
        insert(&mut one, 4000..4010, 0);
        one.save().unwrap();
        let lines = load(&disk);
        let rest = (2001..2300).chain(3000..3020).chain(4000..4010).chain(0..count);
        assert!(rest.clone().all(|number| lines.get(&key(number)) == Some(hashed(number, 0))));
        assert_eq!(lines.get(&key(2000)), Some(hashed(2000, 1)), "the later line");
    }
}

#[test]
fn many_processes_save_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state/files");
    let load = || Lines::load(Arc::new(crate::disk::RealDisk), &path, BOOT);
    std::thread::scope(|scope| {
        for process in 0..8 {
            scope.spawn(move || {
                for round in 0..20 {
                    let mut lines = load();
                    let begin = process * 1000 + round * 10;
                    insert(&mut lines, begin..begin + 10, 0);
                    lines.save().unwrap();
                    assert!((begin..begin + 10).all(|number| load().get(&key(number)).is_some()));
                }
            });
        }
    });
}

#[test]
fn a_file_that_had_not_settled_is_known_during_its_boot_only() {
    let disk = ForgetfulDisk::new();
    let load = |boot: &[u8]| Lines::load(Arc::new(disk.clone()), Path::new(PATH), boot);
    let mut young = hashed(1, 0);
    young.hashed_at = young.fingerprint.changed.plus(SETTLED_SECONDS - 1);
    for round in 0..2 {
        // The first save makes the base, the second appends to a base that is large enough.
        let mut lines = load(BOOT);
        insert(&mut lines, 100..120, round);
        lines.insert(key(1), young);
        lines.insert(key(2), hashed(2, 0));
        lines.save().unwrap();
        assert_eq!((load(BOOT).get(&key(1)), load(b"").get(&key(1))), (Some(young), None));
        assert!(load(b"another boot").get(&key(1)).is_none());
        assert!(load(b"another boot").get(&key(2)).is_some() && load(b"").get(&key(2)).is_some());
    }
    let mut lines = load(b"another boot");
    insert(&mut lines, 100..120, 2);
    lines.save().unwrap();
    assert!(load(BOOT).get(&key(1)).is_none(), "a merge under another boot has dropped it");
}

#[test]
fn without_a_name_of_the_boot_what_had_not_settled_is_known_in_this_process_only() {
    let disk = ForgetfulDisk::new();
    let mut lines = Lines::load(Arc::new(disk.clone()), Path::new(PATH), b"");
    let mut young = hashed(1, 0);
    young.hashed_at = young.fingerprint.changed;
    lines.insert(key(1), young);
    lines.insert(key(2), hashed(2, 0));
    lines.save().unwrap();
    assert_eq!((lines.get(&key(1)), lines.get(&key(2))), (Some(young), Some(hashed(2, 0))));
    assert!(load(&disk).get(&key(1)).is_none());
}

/// Saves made one after the other: first a base, then lines beside it, then both merged.
const SAVES: [(std::ops::Range<u64>, i64); 3] = [(0..40, 0), (3..5, 1), (30..50, 2)];

/// What is known of each file after so many saves.
fn expected(saves: usize) -> BTreeMap<u64, Hashed> {
    let all = SAVES[..saves].iter().flat_map(|(numbers, edits)| numbers.clone().map(|number| (number, *edits)));
    all.map(|(number, edits)| (number, hashed(number, edits))).collect()
}

/// Saves until one fails; how many did not.
fn save_all(disk: &Arc<dyn Disk>, from: usize) -> usize {
    for (done, (numbers, edits)) in SAVES.iter().enumerate().skip(from) {
        let mut lines = Lines::load(disk.clone(), Path::new(PATH), BOOT);
        insert(&mut lines, numbers.clone(), *edits);
        if lines.save().is_err() {
            return done;
        }
    }
    SAVES.len()
}

/// Everything that was saved is known; of what was being saved, all that is known is true.
fn check(disk: &ForgetfulDisk, saves: usize, place: &str) {
    let lines = load(disk);
    let (now, next) = (expected(saves), expected((saves + 1).min(SAVES.len())));
    for number in 0..60 {
        let found = lines.get(&key(number));
        let allowed = found.as_ref() == now.get(&number) || found.as_ref() == next.get(&number);
        assert!(allowed, "{place}: {number} after {saves} saves is {found:?}");
    }
}

#[test]
fn a_kill_or_a_power_cut_before_any_call_of_a_save_loses_nothing_that_was_saved() {
    for number in 0.. {
        let disk = ForgetfulDisk::new();
        let failing = FailingDisk::failing_at(Arc::new(disk.clone()), number, Fault::Killed);
        let saves = save_all(&(Arc::new(failing.clone()) as Arc<dyn Disk>), 0);
        check(&disk, saves, &format!("killed before call {number}"));
        for (index, crashed) in disk.crashes(60, number).enumerate() {
            let place = format!("crash {index} before call {number}");
            check(&crashed, saves, &place);
            let again = save_all(&(Arc::new(crashed.clone()) as Arc<dyn Disk>), saves.min(SAVES.len() - 1));
            assert_eq!(again, SAVES.len(), "{place}");
            check(&crashed, SAVES.len(), &place);
        }
        if failing.first_failure().is_none() {
            assert!(number > 60, "all of it was tried");
            break;
        }
    }
}

#[test]
fn a_save_that_fails_at_any_call_can_be_repeated() {
    for number in 0.. {
        let mut failures = 0;
        for fault in [Fault::Error(libc::EIO), Fault::Error(libc::EMFILE), Fault::Short(libc::ENOSPC)] {
            let disk = ForgetfulDisk::new();
            let failing = FailingDisk::failing_at(Arc::new(disk.clone()), number, fault);
            let shared: Arc<dyn Disk> = Arc::new(failing.clone());
            for (numbers, edits) in SAVES {
                let mut lines = Lines::load(shared.clone(), Path::new(PATH), BOOT);
                insert(&mut lines, numbers, edits);
                lines.save().or_else(|_| lines.save()).unwrap();
            }
            failures += u32::from(failing.first_failure().is_some());
            // What could not be read once may have been dropped from a new base; nothing is wrong, and what was
            // saved last is there.
            let lines = load(&disk);
            let expected = expected(SAVES.len());
            for file in 0..60 {
                let found = lines.get(&key(file));
                assert!(found.is_none() || found.as_ref() == expected.get(&file), "{fault:?} at {number}: {file}");
            }
            assert!((30..50).all(|file| lines.get(&key(file)) == Some(hashed(file, 2))));
        }
        if failures == 0 {
            break;
        }
    }
}

#[test]
fn a_torn_line_at_the_end_is_overwritten_by_the_next() {
    let disk = saved(100);
    let mut lines = load(&disk);
    insert(&mut lines, 0..2, 1);
    lines.save().unwrap();
    let added = disk.open(Path::new(ADDED), Access::Edit(0o600)).unwrap();
    added.set_len(length(&disk, ADDED) - 5).unwrap();
    let mut lines = load(&disk);
    assert_eq!((0..2).filter(|number| lines.get(&key(*number)) == Some(hashed(*number, 1))).count(), 1);
    insert(&mut lines, 5..6, 1);
    lines.save().unwrap();
    assert_eq!(length(&disk, ADDED), 3 * LINE as u64);
    assert_eq!(load(&disk).get(&key(5)), Some(hashed(5, 1)));
}

#[test]
fn a_second_file_of_something_else_is_written_anew() {
    let disk = saved(100);
    let added = disk.open(Path::new(ADDED), Access::Edit(0o600)).unwrap();
    added.write_at(&[9; 1000], 0).unwrap();
    let mut lines = load(&disk);
    insert(&mut lines, 0..1, 1);
    lines.save().unwrap();
    assert_eq!(load(&disk).get(&key(0)), Some(hashed(0, 1)));
    assert_eq!(length(&disk, ADDED), 2 * LINE as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_anywhere_hides_lines_and_shows_no_wrong_one(
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200),
        cut in any::<prop::sample::Index>(),
    ) {
        let disk = saved(1200);
        let mut lines = load(&disk);
        insert(&mut lines, 0..100, 1);
        lines.save().unwrap();
        for path in [PATH, ADDED] {
            let file = disk.open(Path::new(path), Access::Edit(0o600)).unwrap();
            let length = length(&disk, path);
            for (at, byte) in &damage {
                file.write_at(&[*byte], at.index(length as usize) as u64).unwrap();
            }
            file.set_len(length - cut.index(length as usize / 4) as u64).unwrap();
        }
        let mut lines = load(&disk);
        for number in 0..1300 {
            let found = lines.get(&key(number));
            let allowed = [None, (number < 100).then(|| hashed(number, 1)), (number < 1200).then(|| hashed(number, 0))];
            prop_assert!(allowed.contains(&found), "{number}");
        }
        // A merge carries nothing on that does not check.
        insert(&mut lines, 2000..4000, 0);
        lines.save().unwrap();
        let lines = load(&disk);
        prop_assert!((2000..4000).all(|number| lines.get(&key(number)) == Some(hashed(number, 0))));
        for number in 0..1300 {
            let found = lines.get(&key(number));
            prop_assert!(found.is_none_or(|found| found == hashed(number, 0) || found == hashed(number, 1)));
        }
    }
}
