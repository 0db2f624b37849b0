//! A frame: header, names and types of its columns, columns, row selection. The first byte says what is done with it.

#![no_main]

use headwater_fuzz_stages::artifacts::{FRAME_USES, halves, others, raw, stored};
use headwater_fuzz_stages::{LEARNED, frugally, seed, tree_bytes, tree_of};
use headwater_stages::io::Draft;
use headwater_stages::kind::artifact;
use libfuzzer_sys::fuzz_target;

fn frames() -> Vec<Draft> {
    let mut frames = vec![LEARNED.prepared.clone(), stored(&raw()), stored(&others())];
    frames.extend(halves(&stored(&raw())));
    frames
}

fn seeds() -> impl Iterator<Item = Vec<u8>> {
    let with = |uses: usize| frames().into_iter().map(move |frame| [vec![uses as u8], tree_bytes(&frame)].concat());
    (0..FRAME_USES.len()).flat_map(with)
}

fuzz_target!(init: seed(seeds()), |data: &[u8]| {
    let Some((uses, data)) = data.split_first() else { return };
    let frame = tree_of(artifact::FRAME, data);
    frugally(|| FRAME_USES[*uses as usize % FRAME_USES.len()](&frame, &LEARNED));
});
