//! The manifest of a record, as text. What is read of it is written so that the same is read again.

#![no_main]

use headwater_engine::Manifest;
use headwater_fuzz::{frugally, record, seed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed([record().manifest.into_bytes(), b"a\\tb\\\\\tc\\n\n".to_vec()]), |data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    frugally(|| {
        let manifest = Manifest::parse(text);
        assert_eq!(Manifest::parse(&manifest.text()), manifest);
        assert!(manifest.changes_since(&manifest).is_empty());
        manifest.changes_since(&Manifest::default());
    });
});
