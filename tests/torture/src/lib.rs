//! `headwater-torture`: faults on the real kernel, with the real `headwater`, judged from the outside.
//!
//! | row | fault |
//! |---|---|
//! | `kill` | SIGKILL before every call that changes a file, in the middle of writes, and again in the recovery |
//! | `power` | power cuts on ext4 and XFS: what was not synced is lost |
//! | `flips` | one bit of one file of the store flipped; files cut, emptied, grown, removed, swapped, replaced |
//! | `errno` | every call on a file of the project failing with every error |
//! | `space` | so many bytes of room left on the file system, from none to enough |
//! | `edits` | edits of inputs and outs that hide themselves |
//! | `pipelines` | edits of random pipelines, against builds from scratch |
//! | `processes` | many processes on one store, some of them killed |
//! | `verify` | damage that `store verify` must find, if the binary has it |
//! | `repair`, `gc` | repairs and collections that are killed at every call, if the binary has them |
//! | `rivals` | power cuts and flips of git and DVC, by the same functions |
//!
//! A row has numbered cases; its seed and the number determine a case. It prints a line of figures, and what was wrong
//! with the command that shows it again.
//!
//! The harness does not know how a store looks inside: it judges bytes of files, of fetched artifacts, reported digests and
//! exit codes against an undisturbed run.
//!
//! Exit codes: 0 if nothing was wrong, 1 if a promise was broken, 2 if the harness could not do its work. A row that the
//! machine cannot do says `SKIPPED, NOT PASSED`.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![deny(unsafe_code)]
#![warn(missing_docs)]

mod calls;
mod careful;
mod careless;
mod crew;
mod crowd;
mod edits;
mod errnos;
mod flips;
mod godown;
mod headwater;
mod image;
mod kills;
mod oracle;
mod pipeline;
mod pipelines;
mod power;
mod random;
mod revision;
mod rivals;
mod rows;
mod score;
mod sketch;
mod space;
mod subject;
mod tool;
mod traced;
mod upkeep;
mod watchdog;
mod ways;
mod witnesses;
mod world;

pub use rows::main;
