//! Artifact types and stage kinds: what a pipeline is made of.
//!
//! A kind is a pure function from input artifacts to output artifacts, with a typed configuration ([`Kind`]). The
//! crate knows tables, transforms, models and metrics. It does not know graphs, keys, stores or the pipeline file:
//! bytes reach a kind through [`io::Stored`] and leave it as [`io::Draft`]s, and whoever runs it decides where both live.
//!
//! Invariant: the same configuration and the same input bytes give the same output bytes, at any number of threads. No
//! clock, no ambient randomness and no hash-map order may reach a draft. On another kind of CPU or platform, what linfa
//! fits (matrix products use the vector instructions that there are), and what takes an exponential or a logarithm of
//! the platform's library, may differ in its last bits; everything else is the same bytes everywhere.
#![deny(unsafe_code)]

pub mod classes;
pub mod collect;
pub mod deploy;
pub mod error;
pub mod evaluate;
pub mod frame;
pub mod io;
pub mod kind;
pub mod mapped;
pub mod matrix;
pub mod model;
pub mod prepare;
pub mod summary;
pub mod train;
pub mod transform;

mod codec;
mod column;
mod json;

pub use error::StageError;
pub use kind::Kind;
