//! The payload of the list of what a project uses, in a segment whose checksums are right.

#![no_main]

use std::sync::LazyLock;

use headwater_cache::Digest;
use headwater_cache::disk::ForgetfulDisk;
use headwater_fuzz::{SEGMENT, USER, empty, filled, forged, frugally, payloads, seed, use_store, write};
use libfuzzer_sys::fuzz_target;

static STORE: LazyLock<ForgetfulDisk> = LazyLock::new(empty);

fuzz_target!(init: seed(payloads(&filled(), forged::USES)), |data: &[u8]| {
    let (disk, mut segment) = (STORE.copy(), forged::header());
    forged::append(&mut segment, forged::USES, &Digest::of(USER.as_bytes()), data);
    forged::entries(&mut segment);
    write(&disk, SEGMENT, &segment);
    frugally(|| use_store(&disk));
});
