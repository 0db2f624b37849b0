//! The format file of a store.

#![no_main]

use std::sync::LazyLock;

use headwater_cache::disk::ForgetfulDisk;
use headwater_fuzz::{empty, frugally, open, read, seed, use_store, write};
use libfuzzer_sys::fuzz_target;

const FORMAT: &str = "/store/format";
const GOOD: &[u8] = b"headwater-store 2\n";

static STORE: LazyLock<ForgetfulDisk> = LazyLock::new(empty);

fuzz_target!(init: seed([read(&*STORE, FORMAT), b"headwater-store 4294967295\n".to_vec()]), |data: &[u8]| {
    let disk = STORE.copy();
    write(&disk, FORMAT, data);
    frugally(|| {
        // Another spelling of the number is read, and no other number.
        let opened = open(&disk).is_some();
        assert!(opened || data != GOOD);
        assert!(!opened || data.starts_with(b"headwater-store ") && data.ends_with(b"2\n"));
        use_store(&disk);
    });
});
