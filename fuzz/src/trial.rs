//! What every fuzz target needs: the memory that a look at its bytes may ask for, and a way to write its seeds.
//!
//! Does not know what is tried. It is a module of both crates of fuzz targets.
//!
//! Invariant: whatever the bytes claim, no look at them asks for [`LIMIT`] bytes.

use std::path::Path;
use std::process::exit;

use peak_alloc::PeakAlloc;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// More than this must never be asked for on the word of a length.
const LIMIT: usize = 64 << 20;
/// Where a run of a target is to write its seeds instead of fuzzing.
const SEEDS: &str = "HEADWATER_SEEDS";

/// Does `work`, which must not ask for much memory.
pub fn frugally(work: impl FnOnce()) {
    MEMORY.reset_peak_usage();
    let before = MEMORY.current_usage();
    work();
    let asked = MEMORY.peak_usage().saturating_sub(before);
    assert!(asked < LIMIT, "{asked} bytes were asked for");
}

/// Writes valid inputs to the folder that the environment names and ends; does nothing if it names none.
pub fn seed(seeds: impl IntoIterator<Item = Vec<u8>>) {
    let Ok(folder) = std::env::var(SEEDS) else { return };
    for (number, bytes) in seeds.into_iter().enumerate() {
        std::fs::write(Path::new(&folder).join(format!("seed-{number}")), bytes).expect("a seed is written");
    }
    exit(0)
}
