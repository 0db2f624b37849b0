//! Forged bytes in everything stored that this crate reads: columns, row selections, headers, transforms, models, metrics.
//!
//! What must hold, whatever lengths, depths and counts the bytes claim: no panic, an error or something that can be used in
//! every way that a kind uses it, and never 64 MiB more than the bytes themselves have. One seed is one case:
//! `HEADWATER_TORTURE` multiplies the cases, `HEADWATER_SEED` is the first seed, and a failure names its own.
//!
//! Does not know layouts: it changes what the crate itself has written.

mod artifacts;
#[path = "../../cache/tests/seeded/mod.rs"]
mod seeded;

use std::sync::{Mutex, MutexGuard, PoisonError};

use headwater_stages::frame::{self, Schema};
use headwater_stages::io::{Draft, DraftTree};
use headwater_stages::kind::artifact;
use headwater_stages::model::Model;
use headwater_stages::prepare::{Split, Sql};
use headwater_stages::transform::Transform;
use peak_alloc::PeakAlloc;

use crate::artifacts::{
    FRAME_USES, Parts, halves, learned, others, raw, run, stored, use_metrics, use_model, use_transform,
};
use crate::seeded::{Random, torture};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// How much is asked for is counted for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// More than this must never be asked for on the word of a length.
const LIMIT: usize = 64 << 20;
const CASES: u64 = 400;
/// What a length, an offset or a count is set to.
const NUMBERS: [i64; 16] = [
    0,
    1,
    7,
    8,
    63,
    64,
    1 << 20,
    1 << 28,
    900 << 20,
    -1,
    i32::MAX as i64,
    u32::MAX as i64,
    1 << 60,
    i64::MAX,
    i64::MIN,
    i64::MAX - 63,
];

impl Parts {
    /// Mostly bytes, now and then the header, an entry that becomes another, or is gone with all that follow.
    fn change(&mut self, random: &mut Random) {
        for _ in 0..=random.index(4) {
            let (at, kind) = (random.index(self.entries.len()), if self.is_blob { 16 } else { random.index(16) });
            match kind {
                0 => self.header = changed_text(&self.header, random),
                1 => self.entries.truncate(at),
                _ if self.entries.is_empty() => {}
                2 => {
                    let other = random.index(self.entries.len());
                    self.entries[at].2 = self.entries[other].2.clone();
                }
                _ => change_bytes(&mut self.entries[at].2, random),
            }
        }
    }
}

fn changed_text(text: &str, random: &mut Random) -> String {
    if random.index(2) == 0 {
        // The first number of it becomes another.
        let is_digit = |byte: u8| byte.is_ascii_digit();
        if let Some(begin) = text.bytes().position(is_digit) {
            let rest = text[begin..].trim_start_matches(|digit: char| digit.is_ascii_digit());
            let number = NUMBERS[random.index(NUMBERS.len())] as u64;
            return format!("{}{number}{rest}", &text[..begin]);
        }
    }
    let mut bytes = text.as_bytes().to_vec();
    change_bytes(&mut bytes, random);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn change_bytes(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.is_empty() {
        bytes.push(random.index(256) as u8);
    }
    let (at, length) = (random.index(bytes.len()), bytes.len());
    let chosen = NUMBERS[random.index(NUMBERS.len())].to_le_bytes();
    match random.index(8) {
        0 => bytes[at] ^= 1 << random.index(8),
        1 => bytes[at] = random.index(256) as u8,
        2 => overwrite(bytes, at & !3, &chosen),
        3 => overwrite(bytes, at & !3, &chosen[..4]),
        // The numbers of this crate's own formats stand at any place.
        4 => overwrite(bytes, at, &chosen),
        5 => bytes.truncate(at),
        6 => {
            let copied = bytes[at..(at + 16).min(length)].to_vec();
            overwrite(bytes, random.index(length) & !3, &copied);
        }
        _ => {
            let copied = bytes[at..(at + 1 + random.index(64)).min(length)].to_vec();
            let to = random.index(length);
            bytes.splice(to..to, copied);
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    bytes.iter_mut().skip(at).zip(with).for_each(|(byte, new)| *byte = *new);
}

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Names the seed of the case that panics.
struct Named(&'static str, u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("it was the {} of HEADWATER_SEED={}", self.0, self.1);
        }
    }
}

/// Does `work`, which must not ask for much memory.
fn frugally(work: impl FnOnce()) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    work();
    let asked = MEMORY.peak_usage().saturating_sub(before);
    assert!(asked < LIMIT, "{asked} bytes were asked for");
}

/// Changes one of the samples for each seed, and uses it.
fn survive(what: &'static str, samples: &[Draft], uses: impl Fn(&Draft)) {
    let first = std::env::var("HEADWATER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    samples.iter().for_each(&uses);
    for seed in first..first + CASES * torture() {
        let (_named, mut random) = (Named(what, seed), Random(seed));
        let mut parts = Parts::of(samples[random.index(samples.len())].clone());
        parts.change(&mut random);
        let draft = parts.draft();
        frugally(|| uses(&draft));
    }
}

#[test]
fn forged_frames_end_in_an_error_or_can_be_used() {
    let (_alone, learned) = (alone(), learned());
    let mut samples = vec![learned.raw.clone(), learned.prepared.clone(), stored(&others())];
    samples.extend(halves(&learned.raw));
    survive("frame", &samples, |frame| FRAME_USES.iter().for_each(|uses| uses(frame, &learned)));
}

#[test]
fn forged_transforms_end_in_an_error_or_can_be_applied() {
    let (_alone, learned) = (alone(), learned());
    survive("transform", std::slice::from_ref(&learned.transform), |transform| use_transform(transform, &learned));
}

#[test]
fn forged_models_end_in_an_error_or_predict() {
    let (_alone, learned) = (alone(), learned());
    survive("model", &learned.models, |model| use_model(model, &learned));
}

#[test]
fn forged_metrics_end_in_an_error_or_can_be_compared() {
    let (_alone, learned) = (alone(), learned());
    survive("metrics", std::slice::from_ref(&learned.metrics), |metrics| use_metrics(metrics, &learned));
}

#[test]
fn a_frame_that_claims_more_rows_than_its_bytes_can_hold_is_refused_by_whoever_reads_no_column() {
    let _alone = alone();
    let mut parts = Parts::of(stored(&raw()));
    let bytes: usize = parts.entries.iter().map(|(_, _, bytes)| bytes.len()).sum();
    parts.header = "rows 4000000000".to_owned();
    let refused = |parts: &Parts| {
        let draft = parts.draft();
        frugally(|| assert!(run::<Split>(r#"{"test": 0.5}"#, &[("input", &draft)]).is_none()));
        frugally(|| assert!(run::<Sql>(r#"{"query": "select count(*) as n from t"}"#, &[("t", &draft)]).is_none()));
        Schema::of(&draft).expect_err("too many rows").to_string()
    };
    assert_eq!(refused(&parts), format!("frame cannot be decoded: {bytes} bytes cannot hold 4000000000 rows"));
    parts.entries.clear();
    assert_eq!(refused(&parts), "frame cannot be decoded: 0 bytes cannot hold 4000000000 rows");
}

#[test]
fn a_selection_of_fewer_rows_than_its_header_says_is_not_split() {
    let _alone = alone();
    let mut parts = Parts::of(halves(&stored(&raw())).remove(0));
    parts.header = "rows 24".to_owned();
    let draft = parts.draft();
    assert!(run::<Split>(r#"{"test": 0.5}"#, &[("input", &draft)]).is_none());
    let error = frame::decode_rows(&draft).expect_err("too short").to_string();
    assert_eq!(error, "frame cannot be decoded: the row selection has 12 rows, the header says 24");
}

#[test]
fn a_text_that_claims_a_gigabyte_is_refused_before_it_is_believed() {
    let _alone = alone();
    for length in [100_u64 << 20, 900 << 20] {
        // One text follows, it says, of so many bytes.
        let body = [1_u64.to_le_bytes(), length.to_le_bytes()].concat();
        let transform = [b"HWTF\x01", body.as_slice()].concat();
        frugally(|| assert!(Transform::decode(&transform).is_err()));
        let mut tree = DraftTree::new("algorithm kmeans");
        tree.push("model", "parameters", [b"HWMO\x01", body.as_slice()].concat());
        let model = Draft::tree(artifact::MODEL, tree);
        frugally(|| assert!(Model::read(&model).is_err()));
    }
}

#[test]
fn a_transform_whose_steps_would_make_a_gigabyte_of_names_is_refused_before_one_is_made() {
    let _alone = alone();
    let counted = |bytes: &[u8]| [&(bytes.len() as u64).to_le_bytes(), bytes].concat();
    let count = |count: u64| count.to_le_bytes().to_vec();
    let long = vec![b'x'; 1 << 20];
    let categories = (0..1024).map(|category: u32| counted(category.to_string().as_bytes()));
    let transform = [
        b"HWTF\x01".to_vec(),
        [count(1), counted(&long), counted(b"str")].concat(),
        // One step, the third of its kinds: one-hot.
        [count(1), 2_u32.to_le_bytes().to_vec(), counted(&long), count(1024)].concat(),
        categories.collect::<Vec<_>>().concat(),
        [vec![1], counted(b"target"), count(1), counted(b"feature")].concat(),
    ];
    let transform = transform.concat();
    frugally(|| {
        let error = Transform::decode(&transform).expect_err("far too many").to_string();
        let expected =
            "transform cannot be decoded: its steps make columns that are no features and that no step takes";
        assert_eq!(error, expected);
    });
}
