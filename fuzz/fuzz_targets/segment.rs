//! A whole segment, as it is or with its checksums made right.

#![no_main]

use std::sync::LazyLock;

use headwater_cache::disk::ForgetfulDisk;
use headwater_fuzz::{
    SEGMENT, empty, filled, forged, forged_if_marked, frugally, plain_and_forged, read, seed, use_store, write,
};
use libfuzzer_sys::fuzz_target;

static STORE: LazyLock<ForgetfulDisk> = LazyLock::new(empty);

fuzz_target!(init: seed(plain_and_forged(vec![read(&filled(), SEGMENT)])), |data: &[u8]| {
    let disk = STORE.copy();
    write(&disk, SEGMENT, &forged_if_marked(data, forged::entries));
    frugally(|| use_store(&disk));
});
