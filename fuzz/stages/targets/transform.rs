//! A fitted transform. It is applied, and a model trained behind it.

#![no_main]

use headwater_fuzz_stages::artifacts::use_transform;
use headwater_fuzz_stages::{LEARNED, frugally, seed};
use headwater_stages::io::{Draft, Stored};
use headwater_stages::kind::artifact;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed([LEARNED.transform.blob().expect("a blob").to_vec()]), |data: &[u8]| {
    let transform = Draft::blob(artifact::TRANSFORM, data.to_vec());
    frugally(|| use_transform(&transform, &LEARNED));
});
