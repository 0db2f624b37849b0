//! `Kind`: the one door by which a step of work enters the program, built-in or a user's own.
//!
//! A kind states its identity as data (name, version, configuration, ports) and is otherwise one pure function. It
//! does not know which stage it is, where its inputs came from, or whether anything is cached.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Serialize, de::DeserializeOwned};

use crate::StageError;
use crate::frame::Schema;
use crate::io::{Inputs, Outputs};

/// A kind of stage. `Config` must refuse fields that it does not know (`#[serde(deny_unknown_fields)]`), and what it
/// serializes to is the canonical configuration that enters the key: defaults filled in, file paths left out.
pub trait Kind: 'static {
    /// The word after `uses` in the pipeline file.
    const NAME: &'static str;
    /// To be raised with every change that alters an output for an unchanged input; it is part of the key.
    const VERSION: u32;
    /// What the pipeline file sets.
    type Config: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;

    /// The inputs that this configuration takes and the outputs that it gives.
    fn ports(config: &Self::Config) -> Ports;

    /// Which entries of each input the function will read, from the headers alone. Entries left out cannot be read,
    /// and do not enter the key. A kind that cannot tell reads everything.
    fn reads(_config: &Self::Config, schemas: &BTreeMap<String, Schema>) -> Selections {
        schemas.keys().map(|port| (port.clone(), Selection::All)).collect()
    }

    /// Does the work. Every declared output must be written once.
    ///
    /// # Errors
    /// Whatever is wrong with the configuration or the data, with the facts needed to put it right.
    fn run(config: &Self::Config, inputs: &Inputs, outputs: &mut Outputs) -> Result<(), StageError>;
}

/// The type names of artifacts, as users see them.
pub mod artifact {
    pub const FRAME: &str = "frame";
    pub const TRANSFORM: &str = "transform";
    pub const MODEL: &str = "model";
    pub const METRICS: &str = "metrics";
    pub const REPORT: &str = "report";
    pub const FILE: &str = "file";
}

/// What a stage takes and gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    pub inputs: InputPorts,
    pub outputs: Vec<OutputPort>,
}

/// The inputs of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputPorts {
    /// Ports that the kind names itself.
    Fixed(Vec<InputPort>),
    /// One or more ports of one type that the pipeline file names, as the tables of a query.
    Named { type_name: &'static str },
}

/// One declared input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputPort {
    pub name: &'static str,
    pub type_name: &'static str,
    pub from: From,
}

/// Where an input comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// The output of another stage.
    Stage,
    /// The output of another stage, if one is wired.
    StageIfWired,
    /// The outputs of all nodes that a `gather` collects.
    Gather,
    /// A file of the project. The path itself never enters a key: content counts.
    File(String),
}

/// One declared output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputPort {
    pub name: &'static str,
    pub type_name: &'static str,
    /// The input port whose entries this output carries on unread; what the kind writes is added or replaces.
    pub passes: Option<&'static str>,
}

impl OutputPort {
    /// An output that the kind writes whole.
    pub fn new(name: &'static str, type_name: &'static str) -> Self {
        Self { name, type_name, passes: None }
    }

    /// An output that consists of the entries of `port`, less those that the kind replaces, plus those that it adds.
    pub fn passing(name: &'static str, type_name: &'static str, port: &'static str) -> Self {
        Self { name, type_name, passes: Some(port) }
    }
}

/// The entries of one input that a kind reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    All,
    /// These names alone; names that the input does not have are ignored. A frame's row selection is always included.
    Only(Vec<String>),
}

/// A selection for each port.
pub type Selections = BTreeMap<String, Selection>;
