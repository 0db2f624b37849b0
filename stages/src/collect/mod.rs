//! Collecting: files of the project become frames, and frames become files again.
//!
//! The formats that are text are parsed here, exactly and with places (`delimited`, `jsonl`); those that are not are
//! polars' (`columnar`). This folder does not know what a frame is for.
pub mod read;
pub mod write;

mod cell;
mod columnar;
mod decompress;
mod delimited;
mod iso;
mod jsonl;

pub use read::{Read, ReadConfig, read_frame, read_frame_for};
pub use write::write_frame;
