//! Whole runs of the engine, over a real store.
#![allow(clippy::disallowed_methods, reason = "tests look at the store's files")]

mod bench;
mod cached;
mod cancelled;
mod durable;
mod failures;
mod lost;
mod oracle;
mod passed;
mod preview;
mod retries;
mod rooms;
mod several;
mod shared;
mod sources;
