//! Command stages: any program with declared deps and outs.
//!
//! | file | |
//! |---|---|
//! | [`command`] | what the pipeline file says of a command, and the engine's stage made from it |
//! | [`staging`] | the folder in which a command runs, and the run itself |
//! | [`shell`] | the programs that a shell line starts |
//! | [`secret`] | what stands for secret variables in keys |
//! | [`outs`] | files that a command makes: into the store, and back into the project |
//! | [`tools`] | the versions of programs |
//! | [`work`] | folders that live as long as a run of a command |
//!
//! Invariants: a command never writes into the project or the store, only into its staging folder; what its outs replace
//! in the project goes to the trash, unless the store has it.

pub mod command;
pub mod outs;
pub mod secret;
pub mod shell;
pub mod staging;
pub mod tools;
pub mod work;
