//! The sorted file of a file index, as it is or with its checks made right.

#![no_main]

use std::sync::LazyLock;

use headwater_cache::disk::ForgetfulDisk;
use headwater_fuzz::{
    INDEX, filled, forged, forged_if_marked, frugally, plain_and_forged, read, seed, use_index, write,
};
use libfuzzer_sys::fuzz_target;

static STORE: LazyLock<ForgetfulDisk> = LazyLock::new(filled);

fuzz_target!(init: seed(plain_and_forged(vec![read(&*STORE, INDEX)])), |data: &[u8]| {
    let disk = STORE.copy();
    write(&disk, INDEX, &forged_if_marked(data, forged::lines));
    frugally(|| use_index(&disk));
});
