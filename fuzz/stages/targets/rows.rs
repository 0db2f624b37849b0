//! The bytes of a row selection over good columns, under a header that has its count of rows.

#![no_main]

use std::sync::LazyLock;

use headwater_fuzz_stages::artifacts::{Parts, halves, raw, round_trip, run, stored};
use headwater_fuzz_stages::{counted, frugally, seed};
use headwater_stages::frame::{self, ROWS};
use headwater_stages::prepare::Split;
use libfuzzer_sys::fuzz_target;

type Entries = Vec<(String, String, Vec<u8>)>;

/// Of the columns one of each layout.
static COLUMNS: LazyLock<Entries> = LazyLock::new(|| Parts::of(stored(&raw())).entries.drain(1..4).collect());

fn selections() -> Vec<Vec<u8>> {
    let entries = halves(&stored(&raw())).into_iter().flat_map(|half| Parts::of(half).entries);
    entries.filter(|(name, _, _)| name == ROWS).map(|(_, _, bytes)| bytes).collect()
}

fuzz_target!(init: seed(selections()), |data: &[u8]| {
    let mut entries = COLUMNS.clone();
    entries.push((ROWS.to_owned(), "rows".to_owned(), data.to_vec()));
    frugally(|| {
        let (draft, decoded) = counted(entries);
        if let Some(decoded) = decoded {
            let rows = frame::decode_rows(&draft).expect("it was decoded").expect("there is a selection");
            assert_eq!(rows.len(), decoded.height());
            round_trip(&decoded);
        }
        for config in [r#"{"test": 0.5}"#, r#"{"test": 0.5, "stratify": "late"}"#] {
            run::<Split>(config, &[("input", &draft)]);
        }
    });
});
