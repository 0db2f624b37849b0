//! What the store, the ledger and the file index keep of their word when calls fail, the process is killed, or the
//! power goes: at every call of one scenario that uses all of them.
//!
//! `HEADWATER_TORTURE=N` multiplies the sizes of the samples. Every sample has a fixed seed.

mod agreement;
mod crash;
mod fault;
mod kill;
mod scenario;

/// How much more than usual is asked for.
fn torture() -> u64 {
    std::env::var("HEADWATER_TORTURE").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
