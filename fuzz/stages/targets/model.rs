//! A model: header, parameters, transform. It predicts and is evaluated.

#![no_main]

use headwater_fuzz_stages::artifacts::use_model;
use headwater_fuzz_stages::{LEARNED, frugally, seed, tree_bytes, tree_of};
use headwater_stages::kind::artifact;
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed(LEARNED.models.iter().map(tree_bytes)), |data: &[u8]| {
    let model = tree_of(artifact::MODEL, data);
    frugally(|| use_model(&model, &LEARNED));
});
