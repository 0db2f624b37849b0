//! `Order` and `Report`: what is to run and within which bounds, and what became of it; and how they cross a socket.
//!
//! It does nothing. A message is its length in four bytes and JSON. Invariant: a length is checked before memory is taken.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// No message is longer.
const LIMIT: u32 = 256 * 1024 * 1024;

/// A program to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// A path, or a name to be found in the `PATH` of `environment`.
    pub program: OsString,
    pub arguments: Vec<OsString>,
    /// All that its environment holds.
    pub environment: Vec<(OsString, OsString)>,
    /// Where it begins.
    pub folder: OsString,
    /// The file that takes what it prints; if it is empty, the beginning comes with the report.
    pub log: OsString,
    /// Whether what it prints on standard error comes with the report. It may print no more there than a pipe holds.
    pub errors_apart: bool,
    /// What it may use; `None`: whatever its user may.
    pub bounds: Option<Bounds>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// How long it may print nothing.
    pub idle_timeout: Option<Duration>,
    /// Where to watch what it looks for, which takes bounds, and makes each such call slower.
    pub twin: Option<Twin>,
}

/// A folder that stands for another, of which it has a part. It may lie in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Twin {
    pub here: OsString,
    pub there: OsString,
}

/// A file that a program looked for in vain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Relative to [`Twin::here`], and to [`Twin::there`].
    pub path: OsString,
    pub why: Why,
    /// Whether it was to be opened or executed, and not only looked at.
    pub opened: bool,
}

/// Why a file was not found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Why {
    /// It is in [`Twin::there`], and not in [`Twin::here`].
    OnlyThere,
    /// It was named where it is in [`Twin::there`], which the program may not read.
    Refused,
    /// It is in neither.
    Nowhere,
}

/// What a program may use.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Files and folders that can be read and executed. What does not exist is passed over.
    pub read: Vec<OsString>,
    /// Folders in which all can be done, but making devices.
    pub write: Vec<OsString>,
    /// Devices, and folders of such, that can be read, written and controlled.
    pub devices: Vec<OsString>,
    /// Whether the network can be used.
    pub network: bool,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    Code(i32),
    Signal(i32),
    NotStarted(String),
    /// It took longer than [`Order::timeout`].
    TimedOut,
    /// It printed nothing for [`Order::idle_timeout`].
    Silent,
    /// It was told to end from outside.
    Stopped,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub ending: Ending,
    /// How many processes had to be killed after the program had ended.
    pub survivors: u32,
    /// Bytes that it printed.
    pub printed: u64,
    /// The first of them, if there is no file for them.
    pub output: Vec<u8>,
    /// What it printed on standard error, if that is kept apart.
    pub errors: Vec<u8>,
    /// What it looked for in vain, if it was watched and failed; `None` if nothing was heard of it.
    pub missed: Option<Vec<Missed>>,
    /// Whether it certainly had no socket by which it could ask somebody else for work, who may still be at it.
    pub alone: bool,
}

impl Report {
    /// One that knows nothing but the ending.
    pub fn of(ending: Ending) -> Self {
        Self { ending, survivors: 0, printed: 0, output: Vec::new(), errors: Vec::new(), missed: None, alone: false }
    }
}

/// What a supervisor is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    Run(Box<Order>),
    /// End what runs, with time to clean up.
    Stop,
    /// End what runs.
    Kill,
}

/// Writes a message.
pub(crate) fn send(mut stream: impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= LIMIT);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a command of more than 256 MB"))?;
    let mut framed = Vec::with_capacity(body.len() + 4);
    framed.extend(length.to_le_bytes());
    framed.extend(body);
    stream.write_all(&framed)
}

/// Reads a message; an end of file is an error.
pub(crate) fn receive<T: DeserializeOwned>(mut stream: impl Read) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message that is too long"));
    }
    let mut body = vec![0; length as usize];
    stream.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn an_order_crosses_whole_whatever_its_bytes() {
        let odd = OsString::from_vec(vec![0xff, b'\n', b'"', 0x80]);
        let order = Order {
            program: odd.clone(),
            arguments: vec![odd.clone(), OsString::new()],
            environment: vec![(odd.clone(), odd.clone())],
            bounds: Some(Bounds { read: vec![odd], ..Bounds::default() }),
            timeout: Some(Duration::from_millis(1500)),
            ..Order::default()
        };
        let mut bytes = Vec::new();
        send(&mut bytes, &order).expect("sent");
        assert_eq!(receive::<Order>(bytes.as_slice()).expect("received"), order);
    }

    #[test]
    fn a_message_that_claims_to_be_huge_is_refused_before_memory_is_taken() {
        let error = receive::<Order>([0xff; 8].as_slice()).expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
