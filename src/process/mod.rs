//! Command stages: any program with declared deps and outs.
//!
//! | file | |
//! |---|---|
//! | [`command`] | what the pipeline file says of a command, and the engine's stage made from it |
//! | [`staging`] | the folder in which a command runs, and the run itself |
//! | [`shell`] | the programs that a shell line starts |
//! | [`secret`] | what stands for secret variables in keys |
//! | [`outs`] | files that a command makes: into the store, and back into the project |
//! | [`made`] | files that a command has made, on their way into the project |
//! | [`missing`] | what a failed command missed, and the line to write for it |
//! | [`withheld`] | what else it did without: variables and the network |
//! | [`tools`] | the versions of programs |
//! | [`versions`] | what programs have told of their versions, kept as long as it stands |
//! | [`witnesses`] | the files that a program used when it told its version |
//! | [`workshop`] | what all commands share: who runs them, and whether their bounds are in force |
//! | [`reach`] | what a command may use beside its folder |
//! | [`unsynced`] | the mark of runs whose outs are not durable yet |
//! | [`work`] | folders that live as long as a run of a command |
//!
//! Who runs a command, and how its bounds are enforced, is `headwater-sandbox`.
//!
//! Invariants: a command never writes into the project or the store, only into its staging folder; what its outs replace
//! in the project goes to the trash, unless the store has it.

pub mod command;
pub mod made;
pub mod missing;
pub mod outs;
pub mod reach;
pub mod secret;
pub mod shell;
pub mod staging;
pub mod tools;
pub mod unsynced;
pub mod versions;
pub mod withheld;
pub mod witnesses;
pub mod work;
pub mod workshop;
