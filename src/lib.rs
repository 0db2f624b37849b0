//! Headwater: machine-learning pipelines built the way a build system builds software.
//!
//! This crate is the composition of the other three and the command line over them:
//!
//! | module | |
//! |---|---|
//! | [`pipeline`] | pipeline.toml -> the engine's graph |
//! | [`catalog`] | a kind's name -> the engine's stage |
//! | [`process`] | command stages |
//! | [`project`], [`workspace`] | the folder of a pipeline, and all that a command opens of it |
//! | [`unchanged`] | a run that found everything cached, kept to know the next one at a glance |
//! | [`kept`] | files that are read as they were written, or not at all |
//! | [`place`] | which file stands at a path, and when it was changed |
//! | [`sources`] | files that stages read, kept in the store |
//! | [`interrupt`] | Ctrl-C and its like |
//! | [`journal`] | what each run did |
//! | [`report`], [`reason`], [`error`] | events, reasons and errors as text |
//! | [`trace`] | a run as a file for a trace viewer |
//! | [`junit`] | a run as a file for build servers |
//! | [`size`] | bytes as they are written and told |
//! | [`drawing`] | the graph as text, dot, mermaid and svg |
//! | [`commands`] | a verb a file |
#![forbid(unsafe_code)]

pub mod catalog;
pub mod clock;
pub mod commands;
pub mod drawing;
pub mod error;
pub mod forecast;
pub mod interrupt;
pub mod journal;
pub mod junit;
pub mod kept;
pub mod pipeline;
pub mod place;
pub mod process;
pub mod project;
pub mod reason;
pub mod report;
pub mod size;
pub mod sources;
pub mod trace;
pub mod unchanged;
pub mod workspace;
