//! A file of text that `predict` reads: its first byte says of which format. What was read is stored and predicted for.

#![no_main]

use headwater_fuzz_stages::artifacts::{others, raw, round_trip};
use headwater_fuzz_stages::{LEARNED, frugally, seed};
use headwater_stages::collect::{ReadConfig, read_frame_for, write_frame};
use headwater_stages::deploy::predict;
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 3] = ["in.csv", "in.tsv", "in.jsonl"];

fn files() -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    for frame in [raw().head(Some(3)), others()] {
        for (mark, name) in NAMES.iter().enumerate() {
            let file = write_frame(&frame, name).expect("it is written");
            files.push([&[mark as u8], file.as_slice()].concat());
        }
    }
    files
}

fuzz_target!(init: seed(files()), |data: &[u8]| {
    let Some((mark, file)) = data.split_first() else { return };
    let config = ReadConfig::of_path(NAMES[*mark as usize % NAMES.len()]).expect("a name that tells the format");
    frugally(|| {
        let Ok(frame) = read_frame_for(config, file, &["text".to_owned()]) else { return };
        round_trip(&frame);
        for model in &LEARNED.models {
            let _ = predict(model, &frame);
        }
    });
});
