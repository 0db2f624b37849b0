//! The text of a digest, and names of blobs: one digest has one text.

#![no_main]

use headwater_cache::Digest;
use headwater_fuzz::{frugally, key, seed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed([key().to_string().into_bytes()]), |data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    frugally(|| match text.parse::<Digest>() {
        Ok(digest) => assert_eq!(digest.to_string(), text),
        Err(error) => assert!(!error.to_string().is_empty()),
    });
});
