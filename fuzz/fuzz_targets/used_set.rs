//! A set of what a run used, which the list of its project names.

#![no_main]

use std::sync::LazyLock;

use headwater_cache::Digest;
use headwater_cache::disk::ForgetfulDisk;
use headwater_fuzz::{SEGMENT, USER, empty, filled, forged, frugally, seed, set, use_store, write};
use libfuzzer_sys::fuzz_target;

static STORE: LazyLock<ForgetfulDisk> = LazyLock::new(empty);

fuzz_target!(init: seed([set(&filled())]), |data: &[u8]| {
    let (disk, mut segment, digest) = (STORE.copy(), forged::header(), Digest::of(data));
    let user = USER.as_bytes();
    let list = [b"HWUS\x01\0\0\0", &[user.len() as u8][..], user, &[1], digest.as_bytes()].concat();
    forged::append(&mut segment, forged::BLOB, &digest, data);
    forged::append(&mut segment, forged::USES, &Digest::of(user), &list);
    forged::entries(&mut segment);
    write(&disk, SEGMENT, &segment);
    frugally(|| use_store(&disk));
});
