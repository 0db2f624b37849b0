//! Entries appended, found, damaged and rewritten, by one process and by several.

use super::loading::contents_path;
use super::*;
use crate::contents::Contents;
use crate::disk::{Call, FailingDisk, Fault, ForgetfulDisk, Links, RealDisk};
use crate::entry::MAX_PAYLOAD;
use std::fs::{self, OpenOptions};
use std::io::Write;

struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Bench {
        Bench { folder: tempfile::tempdir().unwrap() }
    }

    fn segments(&self) -> Segments {
        let folder = self.folder.path();
        Segments::open(Arc::new(RealDisk), folder.to_owned(), folder.to_owned()).unwrap()
    }

    /// The one segment that there is.
    fn path(&self) -> PathBuf {
        let paths = self.paths();
        assert_eq!(paths.len(), 1);
        paths[0].clone()
    }

    fn paths(&self) -> Vec<PathBuf> {
        let mut names = disk::names(&RealDisk, self.folder.path()).unwrap();
        names.retain(|name| is_segment(name));
        names.into_iter().map(|name| self.folder.path().join(name)).collect()
    }

    /// Forgets what is written beside the segments.
    fn forget_contents(&self) {
        for path in self.paths() {
            let _ = fs::remove_file(contents_path(&path));
        }
    }

    fn found(&self) -> Vec<Vec<u8>> {
        found(&self.segments())
    }
}

const THREE: [&[u8]; 3] = [b"first", b"the second entry", b""];

fn put(segments: &Segments, payloads: &[&[u8]]) -> Result<(), SegmentError> {
    let entry = |payload: &&'static [u8]| NewEntry::new(Kind::Blob, Digest::of(payload), payload);
    // Tests have static payloads.
    let payloads: Vec<&'static [u8]> = payloads.iter().map(|bytes| &*bytes.to_vec().leak()).collect();
    segments.append(&payloads.iter().map(entry).collect::<Vec<_>>())
}

fn record<'a>(name: &str, payload: &'a [u8]) -> NewEntry<'a> {
    NewEntry::new(Kind::Record, Digest::of(name.as_bytes()), payload)
}

fn get(segments: &Segments, name: &str) -> Found {
    segments.read(Kind::Record, &Digest::of(name.as_bytes())).unwrap()
}

/// The payloads of all blobs that are found and can be read.
fn found(segments: &Segments) -> Vec<Vec<u8>> {
    let names = segments.names(Kind::Blob);
    let read = names.iter().filter_map(|name| match segments.read(Kind::Blob, name).unwrap() {
        Found::Payload(payload) => Some(payload),
        Found::Nothing | Found::Damaged(_) => None,
    });
    let mut found: Vec<_> = read.collect();
    found.sort();
    found
}

fn sorted(payloads: &[&[u8]]) -> Vec<Vec<u8>> {
    let mut payloads: Vec<_> = payloads.iter().map(|payload| payload.to_vec()).collect();
    payloads.sort();
    payloads
}

#[test]
fn a_block_that_the_medium_cannot_give_back_costs_the_entries_in_it_alone() {
    let (disk, segments) = in_memory();
    let contents: Vec<Vec<u8>> = (0..40u8).map(|number| vec![number; 1000]).collect();
    put(&segments, &contents.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
    drop(segments);
    let path = only_segment(&disk);
    let size = disk.look(&path, Links::Refuse).unwrap().bytes;
    for bad in (0..size).step_by(4096) {
        let (disk, path) = (disk.copy(), path.clone());
        let fails = move |call: &Call| {
            let hit = call.path == path && call.part.start < bad + 4096 && bad < call.part.end;
            hit.then_some(Fault::Error(libc::EIO))
        };
        let segments = open_on(Arc::new(FailingDisk::new(Arc::new(disk.clone()), fails)));
        let whole = found(&segments).len();
        assert!((34..=38).contains(&whole), "{whole} are found beside a bad block at {bad}");
        assert_eq!(segments.damage().len(), 1);
        // What is there is not cut off: it may be read another time.
        put(&segments, &[b"later"]).unwrap();
        segments.verify(true).unwrap();
        assert_eq!(found(&segments).len(), whole + 1);
        drop(segments);
        disk.remove(&contents_path(&only_segment(&disk))).unwrap();
        assert_eq!(found(&open_on(Arc::new(disk))).len(), 41);
    }
}

/// The first segment that was made.
fn only_segment(disk: &ForgetfulDisk) -> PathBuf {
    let names = disk::names(disk, Path::new("/s")).unwrap();
    let paths = names.into_iter().filter(|name| is_segment(name)).map(|name| Path::new("/s").join(name));
    paths.max_by_key(|path| disk.look(path, Links::Refuse).unwrap().bytes).unwrap()
}

#[test]
fn a_segment_that_is_gone_is_not_made_again() {
    let bench = Bench::new();
    put(&bench.segments(), &THREE[..1]).unwrap();
    let segments = bench.segments();
    let gone = bench.path();
    fs::remove_file(&gone).unwrap();
    put(&segments, &THREE[1..]).unwrap();
    assert!(!gone.exists());
    assert_eq!(bench.found(), sorted(&THREE[1..]));
}

#[test]
fn a_segment_that_was_cut_and_has_grown_again_has_what_was_appended_since() {
    for left in [0, 10, 20, 90] {
        let bench = Bench::new();
        put(&bench.segments(), &[b"of the past"]).unwrap();
        put(&bench.segments(), &[b"too"]).unwrap();
        // The contents of all of it stand beside the segment now.
        drop(bench.segments());
        OpenOptions::new().write(true).open(bench.path()).unwrap().set_len(left).unwrap();
        put(&bench.segments(), &THREE).unwrap();
        assert_eq!(bench.found(), sorted(&THREE), "cut at {left}");
    }
}

#[test]
fn what_another_process_appended_in_the_place_of_a_damaged_end_stays() {
    for refreshes in [false, true] {
        let bench = Bench::new();
        put(&bench.segments(), &[b"first", b"rotten"]).unwrap();
        let slow = bench.segments();
        damage(&bench.path(), b"rotten");
        bench.forget_contents();
        let theirs: &[u8] = &[7; 300];
        put(&bench.segments(), &[theirs]).unwrap();
        if refreshes {
            slow.refresh().unwrap();
            assert_eq!(found(&slow), sorted(&[b"first", theirs]));
        }
        put(&slow, &[b"mine"]).unwrap();
        assert_eq!(found(&slow), sorted(&[b"first", theirs, b"mine"]));
        drop(slow);
        assert_eq!(bench.found(), sorted(&[b"first", theirs, b"mine"]));
    }
}

#[test]
fn what_lies_in_the_place_of_a_damaged_entry_that_was_cut_off_is_found() {
    let bench = Bench::new();
    put(&bench.segments(), &[b"first", b"rotten"]).unwrap();
    let slow = bench.segments();
    damage(&bench.path(), b"rotten");
    assert_eq!(found(&slow), [b"first"]);
    bench.forget_contents();
    put(&bench.segments(), &[b"theirs"]).unwrap();
    slow.refresh().unwrap();
    assert_eq!(found(&slow), sorted(&[b"first", b"theirs"]));
}

#[test]
fn a_rewrite_that_fills_a_segment_keeps_what_is_live() {
    let bench = Bench::new();
    let payloads: Vec<Vec<u8>> = (0..6).map(|number| vec![number; 100]).collect();
    let payloads: Vec<&[u8]> = payloads.iter().map(Vec::as_slice).collect();
    let one_each = Segments { roll_after: 1, ..bench.segments() };
    payloads.iter().for_each(|payload| put(&one_each, &[payload]).unwrap());
    drop(one_each);
    assert_eq!(bench.paths().len(), 6);
    // Each holds two of them.
    let segments = Segments { roll_after: 300, ..bench.segments() };
    segments.rewrite(&[0, 1, 2, 3, 4, 5], &|_| true).unwrap();
    drop(segments);
    assert_eq!(bench.found().iter().map(|payload| payload[0]).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    assert_eq!(bench.paths().len(), 3);
}

#[test]
fn entries_are_found_at_once_and_after_reopening_with_and_without_contents() {
    let bench = Bench::new();
    let segments = bench.segments();
    put(&segments, &THREE).unwrap();
    assert_eq!(found(&segments), sorted(&THREE));
    drop(segments);
    assert_eq!(bench.found(), sorted(&THREE));
    assert!(contents_path(&bench.path()).exists());
    assert_eq!(bench.found(), sorted(&THREE));
    bench.forget_contents();
    assert_eq!(bench.found(), sorted(&THREE));
}

#[test]
fn the_layout_is_as_documented() {
    let bench = Bench::new();
    let name = Digest::of(b"key");
    bench.segments().append(&[NewEntry::new(Kind::Record, name, b"first")]).unwrap();
    let bytes = fs::read(bench.path()).unwrap();
    assert_eq!(bytes.len(), 16 + 64 + 8);
    assert_eq!(&bytes[..12], b"HWSEGMNT\x01\0\0\0");
    assert_eq!(&bytes[16..32], b"\xf5HWe\x05\0\0\0\x02\0\0\0\0\0\0\0");
    assert_eq!(&bytes[32..64], name.as_bytes());
    assert_eq!(&bytes[80..], b"first\0\0\0");
    assert_eq!(Digest::of(&bytes).to_string(), "5b08a082f633b78ec9edc4c3106b9fb8670fdb50bb5c3406a623917370bf51dd");
}

#[test]
fn a_folder_in_which_nothing_was_appended_stays_empty() {
    let bench = Bench::new();
    bench.segments().append(&[]).unwrap();
    assert!(bench.found().is_empty());
    assert_eq!(fs::read_dir(bench.folder.path()).unwrap().count(), 0);
}

#[test]
fn of_several_records_the_last_wins_whichever_segment_it_is_in() {
    let bench = Bench::new();
    let (one, two) = (bench.segments(), bench.segments());
    one.append(&[record("a", b"1")]).unwrap();
    two.refresh().unwrap();
    two.append(&[record("a", b"2")]).unwrap();
    assert_eq!(bench.paths().len(), 2);
    assert_eq!(get(&bench.segments(), "a"), Found::Payload(b"2".to_vec()));
    one.refresh().unwrap();
    one.append(&[record("a", b"3"), record("b", b"x")]).unwrap();
    drop((one, two));
    for _ in 0..2 {
        assert_eq!(get(&bench.segments(), "a"), Found::Payload(b"3".to_vec()));
    }
}

#[test]
fn every_flipped_bit_costs_at_most_its_own_entry_with_and_without_contents() {
    let bench = Bench::new();
    put(&bench.segments(), &THREE).unwrap();
    let good = fs::read(bench.path()).unwrap();
    for bit in 0..good.len() * 8 {
        bench.forget_contents();
        fs::write(bench.path(), &good).unwrap();
        assert_eq!(bench.found().len(), 3);
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(bench.path(), &bytes).unwrap();
        for _ in ["with contents", "without"] {
            let found = bench.found();
            assert!(found.len() >= 2, "bit {bit}: {} entries", found.len());
            assert!(found.iter().all(|entry| THREE.contains(&entry.as_slice())));
            bench.forget_contents();
        }
    }
}

#[test]
fn every_truncation_leaves_the_entries_before_it_and_takes_the_next_append() {
    let bench = Bench::new();
    put(&bench.segments(), &THREE).unwrap();
    let (path, good) = (bench.path(), fs::read(bench.path()).unwrap());
    for length in 0..=good.len() {
        bench.forget_contents();
        fs::write(&path, &good[..length]).unwrap();
        let before = bench.found();
        assert!(before.iter().all(|entry| THREE.contains(&entry.as_slice())));
        let segments = bench.segments();
        put(&segments, &[b"next"]).unwrap();
        drop(segments);
        let after = bench.found();
        assert_eq!(after.len(), before.len() + 1, "cut at {length}");
        assert!(after.contains(&b"next".to_vec()), "cut at {length}");
        assert_eq!(bench.paths().len(), 1, "cut at {length}");
    }
}

#[test]
fn contents_that_cover_more_than_is_left_are_not_believed() {
    let bench = Bench::new();
    put(&bench.segments(), &THREE).unwrap();
    assert_eq!(bench.found().len(), 3);
    let good = fs::read(bench.path()).unwrap();
    fs::write(bench.path(), &good[..good.len() - 64]).unwrap();
    assert_eq!(bench.found().len(), 2);
    let segments = bench.segments();
    put(&segments, &[b"next"]).unwrap();
    drop(segments);
    assert_eq!(bench.found().len(), 3);
}

#[test]
fn a_damaged_entry_is_named_and_counts_for_nothing_and_can_be_written_again() {
    let bench = Bench::new();
    put(&bench.segments(), &THREE).unwrap();
    assert_eq!(bench.found().len(), 3);
    let mut bytes = fs::read(bench.path()).unwrap();
    bytes[16 + 64] ^= 0xff;
    fs::write(bench.path(), &bytes).unwrap();
    let segments = bench.segments();
    let name = segments
        .names(Kind::Blob)
        .into_iter()
        .find(|name| matches!(segments.read(Kind::Blob, name).unwrap(), Found::Damaged(path) if path == bench.path()));
    let name = name.expect("one of three is damaged");
    assert_eq!(segments.read(Kind::Blob, &name).unwrap(), Found::Damaged(bench.path()));
    assert_eq!(segments.length(Kind::Blob, &name), None);
    // So that whoever looks next makes it again instead of taking it to be there.
    assert_eq!(bench.segments().length(Kind::Blob, &name), None);
    put(&segments, &THREE).unwrap();
    assert_eq!(found(&segments), sorted(&THREE));
    drop(segments);
    assert_eq!(bench.found(), sorted(&THREE));
}

#[test]
fn damage_is_counted_and_stepped_over_until_what_is_torn_is_cut_off() {
    let bench = Bench::new();
    put(&bench.segments(), &THREE).unwrap();
    let mut bytes = fs::read(bench.path()).unwrap();
    bytes[16 + 72 + 4] ^= 0xff;
    bytes.extend_from_slice(b"torn");
    fs::write(bench.path(), &bytes).unwrap();
    let segments = bench.segments();
    let cost = 64
        + match THREE.iter().map(|entry| entry.len()).collect::<Vec<_>>()[..] {
            [_, _, _] => THREE[1].len() as u64,
            _ => 0,
        };
    let text = |bytes: u64| vec![format!("{}: {bytes} damaged bytes were skipped", bench.path().display())];
    assert_eq!(segments.damage(), text(cost + 4));
    segments.refresh().unwrap();
    assert_eq!(segments.damage(), text(cost + 4));
    put(&segments, &[b"next"]).unwrap();
    assert_eq!(segments.damage(), text(cost + 4));
    drop(segments);
    bench.forget_contents();
    assert_eq!(bench.segments().damage(), text(cost));
    assert_eq!(bench.found().len(), 3);
}

#[test]
fn what_a_living_process_has_written_in_part_is_no_damage() {
    let bench = Bench::new();
    let writer = bench.segments();
    put(&writer, &[b"whole"]).unwrap();
    OpenOptions::new().append(true).open(bench.path()).unwrap().write_all(b"\xf5HWe half").unwrap();
    assert_eq!(bench.segments().damage(), Vec::<String>::new());
    drop(writer);
    assert_eq!(bench.segments().damage().len(), 1);
}

#[test]
fn an_entry_at_another_offset_is_no_entry() {
    let bench = Bench::new();
    put(&bench.segments(), &[b"first"]).unwrap();
    let good = fs::read(bench.path()).unwrap();
    let moved = [&good[..16], &[0; 8], &good[16..]].concat();
    fs::write(bench.path(), moved).unwrap();
    assert!(bench.found().is_empty());
}

#[test]
fn an_entry_inside_a_payload_is_never_taken_for_one() {
    let bench = Bench::new();
    let mut inner = Vec::new();
    entry::encode(Kind::Blob, &Digest::of(b"inner"), 0, b"inner", 16, &mut inner);
    put(&bench.segments(), &[&inner]).unwrap();
    let mut bytes = fs::read(bench.path()).unwrap();
    bytes[16] ^= 1;
    fs::write(bench.path(), &bytes).unwrap();
    assert!(bench.found().is_empty());
}

#[test]
fn a_tail_of_zeros_is_cut_off() {
    let bench = Bench::new();
    put(&bench.segments(), &[b"first"]).unwrap();
    OpenOptions::new().write(true).open(bench.path()).unwrap().set_len(5000).unwrap();
    assert_eq!(bench.found(), [b"first"]);
    let segments = bench.segments();
    put(&segments, &[b"next"]).unwrap();
    drop(segments);
    assert_eq!(bench.found(), [b"first".to_vec(), b"next".to_vec()]);
    assert_eq!(fs::metadata(bench.path()).unwrap().len(), 16 + 72 + 72);
}

#[test]
fn a_damaged_header_hides_no_entry_and_nothing_is_appended_behind_it() {
    let bench = Bench::new();
    put(&bench.segments(), &[b"first"]).unwrap();
    let mut bytes = fs::read(bench.path()).unwrap();
    bytes[8] = 9;
    fs::write(bench.path(), &bytes).unwrap();
    assert_eq!(bench.found(), [b"first"]);
    put(&bench.segments(), &[b"next"]).unwrap();
    assert_eq!(bench.found(), [b"first".to_vec(), b"next".to_vec()]);
    assert_eq!(bench.paths().len(), 2);
}

#[test]
fn a_newer_format_is_refused_and_left_alone() {
    let bench = Bench::new();
    put(&bench.segments(), &[b"first"]).unwrap();
    let mut newer = fs::read(bench.path()).unwrap();
    newer[8] = 2;
    let check = blake3::hash(&newer[..12]);
    newer[12..16].copy_from_slice(&check.as_bytes()[..4]);
    fs::write(bench.path(), &newer).unwrap();
    let folder = bench.folder.path().to_owned();
    let error = Segments::open(Arc::new(RealDisk), folder.clone(), folder).unwrap_err();
    let text = format!("{} has format version 2, this program reads version 1", bench.path().display());
    assert_eq!(error.to_string(), text);
    assert_eq!(fs::read(bench.path()).unwrap(), newer);
}

#[test]
fn what_is_no_file_is_named_and_left_alone() {
    let bench = Bench::new();
    put(&bench.segments(), &[b"first"]).unwrap();
    let path = bench.path();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let segments = bench.segments();
    put(&segments, &[b"next"]).unwrap();
    assert_eq!(found(&segments), [b"next"]);
    assert_eq!(segments.damage(), [format!("{} is a directory, not a segment", path.display())]);
}

#[test]
fn an_entry_over_the_limit_is_refused_and_nothing_is_written() {
    let bench = Bench::new();
    let error = bench.segments().append(&[record("a", &vec![0; MAX_PAYLOAD + 1])]).unwrap_err();
    assert_eq!(error.to_string(), "an entry of 67108865 bytes is over the limit of 67108864");
    assert!(bench.paths().is_empty());
}

#[test]
fn entries_larger_than_what_is_read_at_a_time_are_read() {
    let bench = Bench::new();
    let large = vec![7; (3 << 20) + 5];
    put(&bench.segments(), &[b"first", &large, b"last"]).unwrap();
    assert_eq!(bench.found(), sorted(&[b"first", &large, b"last"]));
}

#[test]
fn a_process_takes_over_what_nobody_holds_and_leaves_what_is_held() {
    let bench = Bench::new();
    let (one, two) = (bench.segments(), bench.segments());
    put(&one, &[b"a"]).unwrap();
    put(&two, &[b"b"]).unwrap();
    put(&one, &[b"c"]).unwrap();
    assert_eq!(bench.paths().len(), 2);
    drop((one, two));
    for payload in [b"d", b"e"] {
        put(&bench.segments(), &[payload]).unwrap();
    }
    assert_eq!(bench.paths().len(), 2);
    assert_eq!(bench.found(), sorted(&[b"a", b"b", b"c", b"d", b"e"]));
}

#[test]
fn a_refresh_finds_what_another_process_appended_there_and_in_new_segments() {
    let bench = Bench::new();
    let reader = bench.segments();
    let (one, two) = (bench.segments(), bench.segments());
    for (writer, payload) in [(&one, b"a"), (&two, b"b"), (&one, b"c")] {
        put(writer, &[payload]).unwrap();
    }
    assert!(found(&reader).is_empty());
    reader.refresh().unwrap();
    assert_eq!(found(&reader), sorted(&[b"a", b"b", b"c"]));
    put(&two, &[b"d"]).unwrap();
    reader.refresh().unwrap();
    assert_eq!(found(&reader).len(), 4);
}

#[test]
fn a_segment_that_was_replaced_by_a_shorter_one_is_read_from_its_start() {
    let bench = Bench::new();
    put(&bench.segments(), &[b"a long entry of the old file", b"and another"]).unwrap();
    let reader = bench.segments();
    let bytes = fs::read(bench.path()).unwrap();
    OpenOptions::new().write(true).open(bench.path()).unwrap().set_len(bytes.len() as u64 - 80).unwrap();
    reader.refresh().unwrap();
    assert_eq!(found(&reader).len(), 1);
}

fn in_memory() -> (ForgetfulDisk, Segments) {
    let disk = ForgetfulDisk::new();
    disk.create_dir(Path::new("/s"), 0o700).unwrap();
    disk.sync_all();
    let segments = open_on(Arc::new(disk.clone()));
    (disk, segments)
}

fn open_on(disk: Arc<dyn Disk>) -> Segments {
    Segments::open(disk, "/s".into(), "/s".into()).unwrap()
}

#[test]
fn a_failed_sync_is_final_and_leaves_no_entry() {
    let (disk, segments) = in_memory();
    put(&segments, &[b"before"]).unwrap();
    drop(segments);
    let decide = |call: &Call| {
        let ours = call.operation == "sync" && call.path.extension().is_some();
        ours.then_some(Fault::Error(libc::EIO))
    };
    // Its contents are known, so that opening needs no sync.
    drop(open_on(Arc::new(disk.clone())));
    let failing = open_on(Arc::new(FailingDisk::new(Arc::new(disk.clone()), decide)));
    let first = put(&failing, &[b"after"]).unwrap_err().to_string();
    assert!(first.starts_with("cannot sync /s/") && first.ends_with("Input/output error (os error 5)"), "{first}");
    let text = "/s takes no more entries: an earlier sync failed";
    assert_eq!(put(&failing, &[b"later"]).unwrap_err().to_string(), text);
    assert_eq!(failing.refresh().unwrap_err().to_string(), text);
    assert_eq!(found(&failing), [b"before"]);
    drop(failing);
    assert_eq!(found(&open_on(Arc::new(disk))), [b"before"]);
}

#[test]
fn a_write_that_fails_half_way_leaves_no_entry_and_may_be_repeated() {
    let (disk, segments) = in_memory();
    put(&segments, &[b"before"]).unwrap();
    drop(segments);
    let count = AtomicUsize::new(0);
    let decide = move |call: &Call| {
        let chosen = call.operation == "write_at" && call.path.extension().is_some_and(|end| end == "seg");
        (chosen && count.fetch_add(1, Ordering::SeqCst) < 1).then_some(Fault::Short(libc::ENOSPC))
    };
    let failing = open_on(Arc::new(FailingDisk::new(Arc::new(disk.clone()), decide)));
    assert!(put(&failing, &[b"one", b"two"]).is_err());
    assert_eq!(found(&failing), [b"before"]);
    put(&failing, &[b"one", b"two"]).unwrap();
    drop(failing);
    assert_eq!(found(&open_on(Arc::new(disk))).len(), 3);
}

#[test]
fn what_another_process_has_found_of_a_group_stays_when_the_rest_cannot_be_written() {
    let (disk, segments) = in_memory();
    put(&segments, &[b"before"]).unwrap();
    drop(segments);
    let reader = Arc::new(open_on(Arc::new(disk.clone())));
    let (count, other) = (AtomicUsize::new(0), reader.clone());
    let decide = move |call: &Call| {
        let chosen = call.operation == "write_at" && call.path.extension().is_some_and(|end| end == "seg");
        if !chosen || count.fetch_add(1, Ordering::SeqCst) != 1 {
            return None;
        }
        other.refresh().unwrap();
        Some(Fault::Short(libc::ENOSPC))
    };
    let failing = open_on(Arc::new(FailingDisk::new(Arc::new(disk.clone()), decide)));
    let large = [vec![1; 400 << 10], vec![2; 400 << 10], vec![3; 400 << 10]];
    assert!(put(&failing, &[&large[0], &large[1], &large[2]]).is_err());
    assert_eq!(found(&failing), [b"before"]);
    let believed = sorted(&[b"before", &large[0], &large[1]]);
    assert_eq!(found(&reader), believed);
    put(&failing, &[b"later"]).unwrap();
    assert_eq!(found(&reader), believed);
    for opened in [failing, open_on(Arc::new(disk))] {
        assert_eq!(found(&opened), sorted(&[b"before", b"later", &large[0], &large[1]]));
    }
}

#[test]
fn what_a_killed_process_did_not_sync_is_not_found_before_it_is_durable() {
    let (disk, segments) = in_memory();
    put(&segments, &[b"before"]).unwrap();
    let reader = open_on(Arc::new(disk.clone()));
    drop(segments);
    let kill = |call: &Call| {
        let ours = call.operation == "sync" && call.path.extension().is_some();
        ours.then_some(Fault::Killed)
    };
    assert!(put(&open_on(Arc::new(FailingDisk::new(Arc::new(disk.clone()), kill))), &[b"unsynced"]).is_err());
    reader.refresh().unwrap();
    assert_eq!(found(&reader).len(), 2);
    for crashed in disk.crashes(64, 0) {
        assert_eq!(found(&open_on(Arc::new(crashed))).len(), 2);
    }
}

#[test]
fn a_new_segment_survives_any_crash_after_its_first_append() {
    let (disk, segments) = in_memory();
    put(&segments, &[b"first", b"second"]).unwrap();
    for crashed in disk.crashes(64, 0) {
        assert_eq!(found(&open_on(Arc::new(crashed))).len(), 2);
    }
}

fn list<'a>(payload: &'a [u8]) -> NewEntry<'a> {
    NewEntry::new(Kind::Uses, Digest::of(b"me"), payload)
}

fn newest(segments: &Segments) -> Newest {
    segments.newest(Kind::Uses, &Digest::of(b"me")).unwrap()
}

/// Damages the payload that is these bytes.
fn damage(path: &Path, payload: &[u8]) {
    let mut bytes = fs::read(path).unwrap();
    let at = bytes.windows(payload.len()).position(|part| part == payload).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[test]
fn contents_never_lead_past_damage_that_was_not_repaired() {
    let bench = Bench::new();
    let segments = bench.segments();
    segments.append(&[record("a", b"before"), list(b"a list")]).unwrap();
    put(&segments, &THREE).unwrap();
    drop(segments);
    damage(&bench.path(), b"a list");
    let is_in_sight = |segments: &Segments| {
        assert!(matches!(newest(segments), Newest::Damaged { older: None, .. }));
        assert_eq!(segments.damage().len(), 1);
    };
    is_in_sight(&bench.segments());

    // Another entry is found damaged.
    let segments = bench.segments();
    damage(&bench.path(), b"first");
    assert_eq!(found(&segments), sorted(&THREE[1..]));
    is_in_sight(&bench.segments());

    // The segment is full.
    let segments = Segments { roll_after: 1 << 10, ..bench.segments() };
    put(&segments, &[&[7; 1 << 10]]).unwrap();
    drop(segments);
    is_in_sight(&bench.segments());
    assert_eq!(get(&bench.segments(), "a"), Found::Payload(b"before".to_vec()));

    let segments = bench.segments();
    segments.append(&[list(b"another")]).unwrap();
    segments.verify(true).unwrap();
    drop(segments);
    let repaired = bench.segments();
    assert_eq!(newest(&repaired), Newest::Payload(b"another".to_vec()));
    assert!(repaired.damage().is_empty());
    assert_eq!(found(&repaired).len(), 3);
}

#[test]
fn a_list_that_is_written_anew_outranks_all_that_damaged_bytes_claim_to_be() {
    let bench = Bench::new();
    let segments = bench.segments();
    for payload in [b"list 0", b"list 1", b"list 2"] {
        segments.append(&[list(payload)]).unwrap();
    }
    put(&segments, &THREE).unwrap();
    drop(segments);
    damage(&bench.path(), b"list 1");
    damage(&bench.path(), b"list 2");
    let segments = bench.segments();
    assert!(matches!(newest(&segments), Newest::Damaged { older: Some(payload), .. } if payload == b"list 0"));
    segments.append(&[list(b"list 3")]).unwrap();
    drop(segments);
    for _ in 0..2 {
        assert_eq!(newest(&bench.segments()), Newest::Payload(b"list 3".to_vec()));
    }
}

#[test]
fn what_damaged_bytes_claim_to_be_is_known_without_reading_them_again() {
    let bench = Bench::new();
    let segments = bench.segments();
    segments.append(&[list(b"list 0")]).unwrap();
    segments.append(&[list(b"list 1")]).unwrap();
    put(&segments, &THREE).unwrap();
    drop(segments);
    damage(&bench.path(), b"list 1");
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let count = move |call: &Call| {
        counted.fetch_add(usize::from(call.operation == "read_at"), Ordering::SeqCst);
        None
    };
    let folder = bench.folder.path().to_owned();
    let disk = FailingDisk::new(Arc::new(RealDisk), count);
    let segments = Segments::open(Arc::new(disk), folder.clone(), folder).unwrap();
    let before = reads.load(Ordering::SeqCst);
    assert_eq!(segments.names_and_claims(Kind::Uses).len(), 1);
    assert_eq!(reads.load(Ordering::SeqCst), before);
    // The older one alone is read.
    assert!(matches!(newest(&segments), Newest::Damaged { older: Some(payload), .. } if payload == b"list 0"));
    assert_eq!(reads.load(Ordering::SeqCst), before + 1);
}

#[test]
fn contents_that_say_that_entries_overlap_are_no_reason_to_panic() {
    let bench = Bench::new();
    put(&bench.segments(), &THREE).unwrap();
    // The second opening writes the contents.
    assert_eq!(bench.found().len(), 3);
    let path = contents_path(&bench.path());
    let whole = Contents::load(&RealDisk, &path).unwrap();
    let names: Vec<Digest> = THREE.iter().map(|payload| Digest::of(payload)).collect();
    let mut heads: Vec<Head> = names.iter().map(|name| whole.find(Kind::Blob, name)[0]).collect();
    heads[1].offset = heads[0].offset + 1;
    fs::write(&path, Contents::new(heads, whole.end).encode()).unwrap();
    let segments = bench.segments();
    let read = segments.read_together(Kind::Blob, &names, |name, payload| Some((*name, payload.to_vec())));
    assert_eq!(read.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), BTreeSet::from([names[0], names[2]]));
}
