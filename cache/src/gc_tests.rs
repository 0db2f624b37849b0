//! What is collected and what stays, also when calls fail and others work meanwhile.

use super::*;
use crate::disk::{Access, Call, FailingDisk, Fault, ForgetfulDisk, Links};
use crate::tree::{Artifact, Shape};
use crate::tree::{Entry, Tree};
use crate::uses::UsedSet;
use crate::verify::Look;
use std::sync::atomic::{AtomicBool, Ordering};

const ROOT: &str = "/store";

fn open(disk: &ForgetfulDisk) -> (Arc<Store>, Ledger) {
    let store = Arc::new(Store::open_on(Arc::new(disk.clone()), Path::new(ROOT)).unwrap().with_small(8));
    let ledger = Ledger::of(&store);
    (store, ledger)
}

fn collector(disk: &ForgetfulDisk) -> Collector {
    Collector::open_on(Arc::new(disk.clone()), Path::new(ROOT)).unwrap()
}

fn key(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn content(name: &str, part: &str) -> String {
    // Some are small, some are not.
    format!("{name}{part}{}", "+".repeat(name.len() * 3))
}

/// Records a tree of two blobs, one of which all records share, and a blob.
fn record(store: &Store, ledger: &Ledger, name: &str, seconds: f64) {
    let entry = |name: &str, content: &str| Entry {
        name: name.to_owned(),
        type_name: "file".to_owned(),
        shape: Shape::Blob,
        digest: store.put(content.as_bytes()).unwrap(),
        bytes: content.len() as u64,
    };
    let tree = Tree { header: String::new(), entries: vec![entry("own", &content(name, "a")), entry("shared", "x")] };
    let (blob, bytes) = (content(name, "b"), tree.bytes());
    let artifact = |shape, digest, bytes| Artifact { type_name: "file".to_owned(), shape, digest, bytes };
    let outputs = vec![
        ("tree".to_owned(), artifact(Shape::Tree, store.put_tree(&tree).unwrap(), bytes)),
        ("blob".to_owned(), artifact(Shape::Blob, store.put(blob.as_bytes()).unwrap(), blob.len() as u64)),
    ];
    let record = Record { outputs, manifest: format!("name {name}"), seconds };
    ledger.append(&[(key(name), record)]).unwrap();
}

fn uses(store: &Store, user: &str, names: &[&str]) {
    let keys = names.iter().map(|name| key(name)).collect();
    store.use_now(user, &UsedSet { keys, ..UsedSet::default() }).unwrap();
}

/// Whether the record and every byte of its outputs are there.
fn is_whole(disk: &ForgetfulDisk, name: &str) -> bool {
    let (store, ledger) = open(disk);
    let Some(record) = ledger.get(&key(name)) else { return false };
    record.outputs.iter().all(|(_, artifact)| store.holds(artifact))
        && [content(name, "a"), content(name, "b"), "x".to_owned()]
            .iter()
            .all(|content| store.get(&Digest::of(content.as_bytes())).is_ok_and(|bytes| bytes == content.as_bytes()))
}

/// Two users, three runs of one of them, and what no run used.
fn used() -> ForgetfulDisk {
    let disk = ForgetfulDisk::new();
    let (store, ledger) = open(&disk);
    for (name, seconds) in [("first", 1.0), ("second", 9.0), ("third", 2.0), ("yours", 3.0), ("stray", 0.1)] {
        record(&store, &ledger, name, seconds);
    }
    store.put(b"never recorded, and long").unwrap();
    for names in [&["first"][..], &["first", "second"], &["third"]] {
        uses(&store, "me", names);
    }
    uses(&store, "you", &["yours"]);
    disk
}

fn keep(last: usize, max_bytes: Option<u64>) -> Keep {
    Keep { last, max_bytes }
}

fn bytes(disk: &ForgetfulDisk) -> u64 {
    collector(disk).plan(keep(9, None)).unwrap().bytes_before
}

#[test]
fn what_the_last_runs_of_anybody_used_stays_and_the_rest_goes() {
    let disk = used();
    let before = bytes(&disk);
    let plan = collector(&disk).plan(keep(1, None)).unwrap();
    assert_eq!(plan.users[0], User { name: "me".to_owned(), kept: 1, dropped: 2 });
    let dropped: Vec<&str> = plan.dropped.iter().map(|dropped| dropped.manifest.as_str()).collect();
    assert_eq!(dropped, ["name first", "name second"]);
    collector(&disk).carry_out(&plan).unwrap();
    // What no run has said that it uses is the work of one that was killed.
    for name in ["third", "yours", "stray"] {
        assert!(is_whole(&disk, name), "{name}");
    }
    assert!(!is_whole(&disk, "first") && !is_whole(&disk, "second"));
    // The headers of the segments that went are freed too.
    assert!(bytes(&disk) <= before - plan.bytes_freed);
    assert!(!open(&disk).0.contains(&Digest::of(b"never recorded, and long")));
}

#[test]
fn a_plan_removes_nothing() {
    let disk = used();
    let before = bytes(&disk);
    let plan = collector(&disk).plan(keep(1, None)).unwrap();
    assert!(plan.bytes_freed > 0);
    assert_eq!(bytes(&disk), before);
    assert!(is_whole(&disk, "stray"));
}

#[test]
fn the_cheapest_for_its_bytes_goes_first_and_no_more_than_must() {
    let disk = used();
    let order = |max_bytes| -> Vec<String> {
        let plan = collector(&disk).plan(keep(1, max_bytes)).unwrap();
        plan.dropped.into_iter().map(|dropped| dropped.manifest).collect()
    };
    assert_eq!(order(None), ["name first", "name second"]);
    assert_eq!(order(Some(0)), ["name stray", "name first", "name second"]);
    assert_eq!(order(Some(1 << 30)), Vec::<String>::new());
    let blob = |name: &str| content(name, "a").len() as u64;
    let without_stray: u64 = 1 + ["first", "second", "third", "yours"].map(|name| 2 * blob(name)).iter().sum::<u64>();
    let (store, _) = open(&disk);
    let lists = store.all_uses().unwrap().ok().unwrap();
    let sets: u64 = lists.iter().map(|(_, uses)| store.length(&uses.sets[0]).unwrap().unwrap()).sum();
    drop(store);
    assert_eq!(order(Some(without_stray + sets)), ["name stray"]);
}

#[test]
fn a_second_collection_finds_nothing() {
    let disk = used();
    let plan = collector(&disk).plan(keep(1, None)).unwrap();
    collector(&disk).carry_out(&plan).unwrap();
    let again = collector(&disk).plan(keep(1, None)).unwrap();
    assert_eq!((again.bytes_freed, again.dropped.len()), (0, 0));
    assert!(is_whole(&disk, "third") && is_whole(&disk, "yours"));
}

#[test]
fn a_store_that_is_open_is_not_collected() {
    let disk = used();
    let held = open(&disk);
    let error = Collector::open_on(Arc::new(disk.clone()), Path::new(ROOT)).unwrap_err();
    assert_eq!(error.to_string(), "the store /store is in use");
    drop(held);
    collector(&disk);
}

#[test]
fn roots_that_cannot_be_read_stop_a_collection() {
    let disk = used();
    let store = open(&disk).0;
    let lists = store.all_uses().unwrap().ok().unwrap();
    let set = lists.iter().find(|(_, uses)| uses.user == "you").unwrap().1.sets[0];
    drop(store);
    let path = collector(&disk).store.blobs().path(&set);
    disk.remove(&path).unwrap();
    let error = collector(&disk).plan(keep(1, None)).unwrap_err();
    assert_eq!(error.to_string(), format!("what you uses cannot be read: blob {set} is not in the store"));
}

/// Whether the contents of a segment tell that a damaged list was there, and whether it is the last entry.
const PLACES: [(bool, bool); 4] = [(true, true), (true, false), (false, true), (false, false)];

/// Two segments, as of two processes at once: in the first the list of the second run, in the other that of the
/// third, which names what is the second's too. Damages the newest list; whoever opened the store since knows that it
/// was there by the contents of the segment, unless these are gone.
fn with_damaged_list((with_contents, is_last): (bool, bool)) -> ForgetfulDisk {
    let disk = ForgetfulDisk::new();
    let held = open(&disk);
    record(&held.0, &held.1, "second", 9.0);
    uses(&held.0, "me", &["second"]);
    let (store, ledger) = open(&disk);
    record(&store, &ledger, "third", 2.0);
    uses(&store, "me", &["third"]);
    uses_all(&store);
    if !is_last {
        uses(&store, "you", &["third"]);
    }
    drop((store, ledger, held));
    damage_list(&disk, "me", with_contents);
    disk
}

/// Damages the newest list of a user.
fn damage_list(disk: &ForgetfulDisk, user: &str, with_contents: bool) {
    // So that the contents are there.
    drop(open(disk));
    let segments = open(disk).0.segments().survey();
    let lists = |(_, _, heads): &(usize, u64, Vec<Head>)| {
        let is_theirs = |head: &&Head| (head.kind, head.name) == (Kind::Uses, Digest::of(user.as_bytes()));
        heads.iter().filter(is_theirs).copied().collect::<Vec<Head>>()
    };
    let newest = segments.iter().flat_map(lists).max_by_key(|head| head.generation).unwrap();
    for name in disk.names(&Path::new(ROOT).join("segments")).unwrap() {
        let path = Path::new(ROOT).join("segments").join(name);
        if path.extension().is_some_and(|end| end == "idx") {
            if !with_contents {
                disk.remove(&path).unwrap();
            }
        } else if crate::entry::has(&*disk.open(&path, Access::Read(Links::Refuse)).unwrap(), &newest) {
            let file = disk.open(&path, Access::Edit(0o600)).unwrap();
            file.write_at(b"rot", newest.offset + 80).unwrap();
        }
    }
}

/// The only list of a user, of a run that kept a source, is damaged.
fn with_damaged_only_list((with_contents, is_last): (bool, bool)) -> ForgetfulDisk {
    let disk = ForgetfulDisk::new();
    let (store, ledger) = open(&disk);
    record(&store, &ledger, "second", 9.0);
    record(&store, &ledger, "third", 2.0);
    uses_all(&store);
    if !is_last {
        uses(&store, "you", &[]);
    }
    drop((store, ledger));
    damage_list(&disk, "me", with_contents);
    disk
}

const SOURCE: &[u8] = b"a source that no record names";

/// The same set each time.
fn uses_all(store: &Store) {
    let source = store.put(SOURCE).unwrap();
    let keys = [key("second"), key("third")].into();
    store.use_now("me", &UsedSet { keys, blobs: [source].into() }).unwrap();
}

fn collect(disk: &ForgetfulDisk, keep: Keep) -> Plan {
    let plan = collector(disk).plan(keep).unwrap();
    collector(disk).carry_out(&plan).unwrap();
    plan
}

fn repair(disk: &ForgetfulDisk) {
    let (store, ledger) = open(disk);
    store.verify(&ledger, Look { full: true, repair: true }).unwrap();
}

fn is_clean(disk: &ForgetfulDisk) -> bool {
    let (store, ledger) = open(disk);
    store.verify(&ledger, Look { full: true, repair: false }).unwrap().is_clean()
}

#[test]
fn a_run_that_uses_what_the_last_one_used_writes_a_damaged_list_anew() {
    for place in PLACES {
        let disk = with_damaged_only_list(place);
        assert!(collector(&disk).plan(keep(1, None)).is_err());
        uses_all(&open(&disk).0);
        collect(&disk, keep(1, Some(0)));
        assert!(is_whole(&disk, "second") && is_whole(&disk, "third"));
        let disk = with_damaged_list(place);
        uses_all(&open(&disk).0);
        collect(&disk, keep(1, Some(0)));
        assert!(is_whole(&disk, "second") && is_whole(&disk, "third"));
    }
}

#[test]
fn repair_keeps_all_that_a_damaged_only_list_may_have_held_until_its_user_runs_again() {
    for place in PLACES {
        let disk = with_damaged_only_list(place);
        repair(&disk);
        for _ in 0..2 {
            let plan = collect(&disk, keep(1, Some(0)));
            assert_eq!(plan.users[0].name, "a project");
            assert!(is_whole(&disk, "second") && is_whole(&disk, "third"));
            assert!(open(&disk).0.get(&Digest::of(SOURCE)).is_ok());
        }
        assert!(is_clean(&disk));
        uses(&open(&disk).0, "me", &[]);
        assert_eq!(collect(&disk, keep(1, Some(0))).users[0].name, "me");
        assert!(open(&disk).0.get(&Digest::of(SOURCE)).is_err());
    }
}

#[test]
fn a_damaged_list_is_named_and_what_it_may_have_held_is_kept_until_its_user_runs_again() {
    for place in PLACES {
        let disk = with_damaged_list(place);
        // Once more is no permission, and looking at the store is none.
        for _ in 0..3 {
            let error = collector(&disk).plan(keep(1, Some(0))).unwrap_err().to_string();
            let expected =
                "what me uses cannot be read: the list of what a project uses is damaged in /store/segments/";
            assert!(error.starts_with(expected), "{error}");
            let (store, ledger) = open(&disk);
            store.stats(&ledger).unwrap();
        }
        uses(&open(&disk).0, "me", &["third"]);
        // The last run, what the damaged list held, and what an older one still held.
        let plan = collector(&disk).plan(keep(2, Some(0))).unwrap();
        assert_eq!(plan.users[0].kept + plan.users[0].dropped, 3);
        collector(&disk).carry_out(&plan).unwrap();
        assert!(is_whole(&disk, "second") && is_whole(&disk, "third"));
        assert!(open(&disk).0.get(&Digest::of(SOURCE)).is_ok());
    }
}

#[test]
fn repair_makes_a_damaged_list_anew_of_the_sets_that_are_there() {
    for place in PLACES {
        let disk = with_damaged_list(place);
        repair(&disk);
        collect(&disk, keep(1, Some(0)));
        assert!(is_whole(&disk, "second") && is_whole(&disk, "third"));
        assert!(open(&disk).0.get(&Digest::of(SOURCE)).is_ok());
        assert!(is_clean(&disk));
    }
}

#[test]
fn a_damaged_list_is_not_cut_off_by_what_is_appended_before_its_user_has_run() {
    for place in PLACES {
        for disk in [with_damaged_list(place), with_damaged_only_list(place)] {
            let processes = [open(&disk), open(&disk)];
            for (at, (store, ledger)) in processes.iter().enumerate() {
                record(store, ledger, &format!("new {at}"), 1.0);
            }
            drop(processes);
            assert!(collector(&disk).plan(keep(1, None)).is_err());
            uses(&open(&disk).0, "me", &["new 0"]);
            collect(&disk, keep(2, Some(0)));
            assert!(is_whole(&disk, "second") && is_whole(&disk, "third"));
            assert!(open(&disk).0.get(&Digest::of(SOURCE)).is_ok());
            repair(&disk);
            assert!(is_clean(&disk));
        }
    }
}

/// What runs used one after another, until the newest used what the first did; their list is damaged.
const RUNS: [&str; 3] = ["first", "second", "third"];

fn with_damaged_long_list((with_contents, is_last): (bool, bool)) -> ForgetfulDisk {
    let disk = ForgetfulDisk::new();
    let (store, ledger) = open(&disk);
    RUNS.iter().for_each(|name| record(&store, &ledger, name, 1.0));
    RUNS.iter().chain(&["first"]).for_each(|name| uses(&store, "me", &[name]));
    if !is_last {
        uses(&store, "you", &[]);
    }
    drop((store, ledger));
    damage_list(&disk, "me", with_contents);
    disk
}

fn whole(disk: &ForgetfulDisk) -> [bool; 3] {
    RUNS.map(|name| is_whole(disk, name))
}

#[test]
fn what_a_damaged_list_may_have_held_counts_as_one_run_whatever_its_order_was() {
    for (place, is_repaired) in PLACES.into_iter().flat_map(|place| [(place, true), (place, false)]) {
        let disk = with_damaged_long_list(place);
        if is_repaired {
            repair(&disk);
            collect(&disk, keep(1, Some(0)));
            assert_eq!(whole(&disk), [true, true, true], "{place:?}");
        }
        uses(&open(&disk).0, "me", &["second"]);
        collect(&disk, keep(2, Some(0)));
        assert_eq!(whole(&disk), [true, true, true], "{place:?}");
        uses(&open(&disk).0, "me", &["first"]);
        collect(&disk, keep(2, Some(0)));
        assert_eq!(whole(&disk), [true, true, false], "{place:?}");
    }
}

#[test]
fn what_a_damaged_list_may_have_held_is_kept_also_when_another_held_it_then() {
    for place in PLACES {
        let disk = with_damaged_long_list(place);
        uses(&open(&disk).0, "you", &["third"]);
        uses(&open(&disk).0, "me", &["second"]);
        for names in [&["first"][..], &["second"]] {
            uses(&open(&disk).0, "you", names);
        }
        collect(&disk, keep(2, Some(0)));
        assert_eq!(whole(&disk), [true, true, true], "{place:?}");
    }
}

#[test]
fn a_list_that_was_half_written_when_its_run_was_killed_stops_nothing() {
    let disk = used();
    let file = disk.open(Path::new(&segment_of(&disk)), Access::Edit(0o600)).unwrap();
    let length = file.look().unwrap().bytes;
    let mut entry = Vec::new();
    crate::entry::encode(Kind::Uses, &Digest::of(b"me"), 9, &[7; 100], length, &mut entry);
    file.write_at(&entry[..120], length).unwrap();
    drop(file);
    collector(&disk).plan(keep(1, None)).unwrap();
}

fn segment_of(disk: &ForgetfulDisk) -> String {
    let names = disk.names(&Path::new(ROOT).join("segments")).unwrap();
    let name = names.into_iter().find(|name| name.to_string_lossy().ends_with(".seg")).unwrap();
    format!("{ROOT}/segments/{}", name.to_string_lossy())
}

#[test]
fn a_damaged_tree_costs_its_record_and_stops_nothing() {
    let disk = used();
    let plan = collector(&disk).plan(keep(1, None)).unwrap();
    let (store, ledger) = open(&disk);
    let tree = ledger.get(&key("third")).unwrap().outputs[0].1.digest;
    disk.remove(&store.blobs().path(&tree)).unwrap();
    drop((store, ledger));
    collector(&disk).carry_out(&plan).unwrap();
    let plan = collector(&disk).plan(keep(1, None)).unwrap();
    collector(&disk).carry_out(&plan).unwrap();
    assert!(is_whole(&disk, "yours") && !is_whole(&disk, "third"));
}

#[test]
fn a_collection_that_is_killed_or_loses_power_anywhere_leaves_all_that_is_kept() {
    let plan = |disk: &ForgetfulDisk| collector(disk).plan(keep(2, None)).unwrap();
    // A list that was torn while it was written cannot be told from one that is damaged.
    let make_lists_whole = |disk: &ForgetfulDisk| {
        let planned = collector(disk).plan(keep(2, None));
        let torn = matches!(&planned, Err(CollectError::Root { source: StoreError::DamagedUses { .. }, .. }));
        if torn {
            repair(disk);
        }
        torn
    };
    for number in 0.. {
        let disk = used();
        disk.sync_all();
        let failing = FailingDisk::failing_at(Arc::new(disk.clone()), number, Fault::Killed);
        let done = Collector::open_on(Arc::new(failing.clone()), Path::new(ROOT))
            .and_then(|collector| collector.plan(keep(2, None)).map(|plan| (collector, plan)))
            .and_then(|(collector, plan)| collector.carry_out(&plan));
        for crashed in disk.crashes(6, number).chain([disk.copy()]) {
            for name in ["first", "second", "third", "yours"] {
                assert!(is_whole(&crashed, name), "{name} is lost, killed before call {number}");
            }
            let torn = make_lists_whole(&crashed);
            let rest = plan(&crashed);
            collector(&crashed).carry_out(&rest).unwrap();
            assert!(torn || plan(&crashed).bytes_freed == 0, "killed before call {number}");
            assert!(is_whole(&crashed, "first"));
        }
        if done.is_ok() && failing.first_failure().is_none() {
            break;
        }
    }
}

#[test]
fn what_cannot_be_read_for_a_moment_is_not_taken_for_gone() {
    for number in 0.. {
        let disk = used();
        let failing = FailingDisk::failing_at(Arc::new(disk.clone()), number, Fault::Error(libc::ENOMEM));
        let done = Collector::open_on(Arc::new(failing.clone()), Path::new(ROOT))
            .and_then(|collector| collector.plan(keep(2, None)).map(|plan| (collector, plan)))
            .and_then(|(collector, plan)| collector.carry_out(&plan));
        for name in ["first", "second", "third", "yours", "stray"] {
            assert!(is_whole(&disk, name), "{name} is lost, {:?} failed", failing.first_failure());
        }
        if failing.first_failure().is_none() {
            assert_eq!(done.unwrap(), 0);
            return;
        }
    }
}

#[test]
fn kept_blobs_and_sets_count_among_the_bytes_that_are_kept() {
    let disk = used();
    let (store, _) = open(&disk);
    let source = vec![7; 1000];
    let used = UsedSet { keys: [key("third")].into(), blobs: [store.put(&source).unwrap()].into() };
    store.use_now("me", &used).unwrap();
    drop(store);
    let max_bytes = Some(source.len() as u64 + content("third", "ab").len() as u64);
    let plan = collector(&disk).plan(keep(1, max_bytes)).unwrap();
    assert_eq!(plan.dropped.len(), 3);
}

#[test]
fn what_goes_is_removed_when_the_store_can_be_opened_again() {
    let disk = used();
    let (other, opened) = (disk.clone(), Arc::new(AtomicBool::new(false)));
    let told = opened.clone();
    let watching = FailingDisk::new(Arc::new(disk.clone()), move |call: &Call| {
        if call.operation == "remove" && call.path.starts_with("/store/removed") {
            told.store(true, Ordering::SeqCst);
            drop(open(&other));
        }
        None
    });
    let collector = Collector::open_on(Arc::new(watching), Path::new(ROOT)).unwrap();
    let plan = collector.plan(keep(1, None)).unwrap();
    collector.carry_out(&plan).unwrap();
    assert!(opened.load(Ordering::SeqCst));
    assert!(disk.names(Path::new("/store/removed")).unwrap().is_empty());
}

#[test]
fn a_collection_on_a_full_disk_frees_the_large_blobs() {
    let disk = used();
    let full = FailingDisk::new(Arc::new(disk.clone()), |call| {
        (call.operation == "write_at").then_some(Fault::Error(libc::ENOSPC))
    });
    let before = bytes(&disk);
    let collector = Collector::open_on(Arc::new(full), Path::new(ROOT)).unwrap();
    let plan = collector.plan(keep(1, None)).unwrap();
    assert!(collector.carry_out(&plan).is_err());
    assert!(bytes(&disk) < before);
    assert!(is_whole(&disk, "third") && is_whole(&disk, "yours"));
}

#[test]
fn a_collection_without_any_room_leaves_the_segments_that_it_would_write_anew() {
    let disk = used();
    let (store, _) = open(&disk);
    store.put(b"named by nobody").unwrap();
    store.commit().unwrap();
    drop(store);
    let full = FailingDisk::new(Arc::new(disk.clone()), |call| {
        (call.operation == "write_at").then_some(Fault::Error(libc::ENOSPC))
    });
    let collector = Collector::open_on(Arc::new(full), Path::new(ROOT)).unwrap();
    let plan = collector.plan(keep(10, None)).unwrap();
    assert!(plan.bytes_freed > 0 && plan.dropped.is_empty());
    assert!(collector.carry_out(&plan).unwrap() > 0);
    assert!(is_whole(&disk, "third") && is_whole(&disk, "yours"));
    let with_room = Collector::open_on(Arc::new(disk.clone()), Path::new(ROOT)).unwrap();
    let plan = with_room.plan(keep(10, None)).unwrap();
    assert_eq!(with_room.carry_out(&plan).unwrap(), 0);
    assert!(is_whole(&disk, "third") && is_whole(&disk, "yours"));
}
