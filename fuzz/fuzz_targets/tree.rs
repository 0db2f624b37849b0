//! The encoding of a tree. What is read of it is written so that the same is read again.

#![no_main]

use headwater_cache::Tree;
use headwater_fuzz::{frugally, seed, tree};
use libfuzzer_sys::fuzz_target;

fuzz_target!(init: seed([tree(), Tree::default()].map(|tree| tree.encode().expect("a tree"))), |data: &[u8]| {
    frugally(|| {
        if let Ok(tree) = Tree::decode(data) {
            assert_eq!(Tree::decode(&tree.encode().expect("it was a tree")), Ok(tree));
        }
    });
});
