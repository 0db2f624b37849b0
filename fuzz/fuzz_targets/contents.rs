//! The contents of a segment, as they are or with their checksum made right.

#![no_main]

use std::sync::LazyLock;

use headwater_cache::disk::ForgetfulDisk;
use headwater_fuzz::{
    CONTENTS, filled, forged, forged_if_marked, frugally, plain_and_forged, read, seed, use_store, write,
};
use libfuzzer_sys::fuzz_target;

static STORE: LazyLock<ForgetfulDisk> = LazyLock::new(filled);

fuzz_target!(init: seed(plain_and_forged(vec![read(&*STORE, CONTENTS)])), |data: &[u8]| {
    let disk = STORE.copy();
    write(&disk, CONTENTS, &forged_if_marked(data, forged::contents));
    frugally(|| use_store(&disk));
});
