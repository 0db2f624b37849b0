//! The metrics of an evaluation. They are compared with others.

#![no_main]

use headwater_fuzz_stages::artifacts::use_metrics;
use headwater_fuzz_stages::{LEARNED, frugally, seed};
use headwater_stages::io::{Draft, Stored};
use headwater_stages::kind::artifact;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed([LEARNED.metrics.blob().expect("a blob").to_vec()]), |data: &[u8]| {
    let metrics = Draft::blob(artifact::METRICS, data.to_vec());
    frugally(|| use_metrics(&metrics, &LEARNED));
});
