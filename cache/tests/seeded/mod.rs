//! What the tests of this crate that try many cases share: numbers by a seed, and how many cases are wanted.
//!
//! Does not know any test.
//!
//! Invariant: one seed is one sequence, on every machine.

// Each test crate has this module for itself, and none needs all of it.
#![allow(dead_code)]

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`; 0 if there is none.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }

    /// A place in something of this length; 0 if it is empty.
    pub fn index(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }
}

/// How much more than usual is asked for.
pub fn torture() -> u64 {
    std::env::var("HEADWATER_TORTURE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Whether all there is to try is asked for, not a sample of it: `HEADWATER_TORTURE=full`.
pub fn is_full() -> bool {
    std::env::var("HEADWATER_TORTURE").is_ok_and(|text| text == "full")
}
