//! The bytes of one column, under a header that has its count of rows.

#![no_main]

use headwater_fuzz_stages::artifacts::{Parts, others, raw, round_trip, stored};
use headwater_fuzz_stages::{counted, frugally, seed};
use headwater_stages::summary;
use libfuzzer_sys::fuzz_target;

fn columns() -> Vec<Vec<u8>> {
    let frames = [raw().head(Some(3)), raw().head(Some(0)), others()];
    frames.iter().flat_map(|frame| Parts::of(stored(frame)).entries).map(|(_, _, bytes)| bytes).collect()
}

fuzz_target!(init: seed(columns()), |data: &[u8]| {
    frugally(|| {
        if let (_, Some(decoded)) = counted(vec![("number".to_owned(), "f64".to_owned(), data.to_vec())]) {
            round_trip(&decoded);
            summary::columns(&decoded).expect("a frame that was decoded is whole");
            summary::head(&decoded, 5).expect("a frame that was decoded is whole");
        }
    });
});
