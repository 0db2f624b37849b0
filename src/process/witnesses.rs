//! `Witnesses`: the files that a program used when it told its version. As long as all of them are what they were, and those
//! that it looked for in vain are still not there, it would tell the same, and need not be asked.
//!
//! They are found by tracing the program once while it tells its version again. So a shim's witnesses are the files by which
//! it chooses, too: a file of settings that comes or changes has it asked. What a program is told by the kernel
//! (`/proc`, `/sys`, `/dev`) is no file that changes, and the loader of programs changes with the libraries that they load.
//! Where nothing can be traced there are no witnesses, and programs are asked each time.
//!
//! It does not know what a version is for. Invariant: the program is the one that would be found and asked now, in the same
//! environment, which whoever keeps witnesses compares itself.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::thread;

use headwater_sandbox::Ending;
use headwater_sandbox::tracing::{self, Use};
use serde::{Deserialize, Serialize};

use crate::place::Place;
use crate::process::reach::interpreter;
use crate::process::tools;
use crate::process::workshop::TRACE;

/// A program that uses more files than these is asked.
const MOST: usize = 4096;
/// What lies here is made by the kernel.
const OF_THE_KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// What an answer rests on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witnesses {
    program: PathBuf,
    files: Vec<Witness>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Witness {
    path: PathBuf,
    /// `None` where nothing stands.
    place: Option<Place>,
    /// A folder that was looked at, and not listed: what comes and goes in it does not count.
    is_passage: bool,
}

impl Witnesses {
    /// Those of a program that has told its version; `None` if they cannot be found, or have changed so lately that
    /// their times do not tell.
    pub fn of(name: &str, root: &Path) -> Option<Self> {
        let program = tools::find(name, root).filter(|program| !program.starts_with(root))?;
        let used = used(&program, root)?;
        (used.len() <= MOST).then_some(())?;
        let files = used.into_iter().map(|(path, uses)| Witness::of(path, &uses));
        Some(Self { program, files: files.collect::<Option<_>>()? })
    }

    /// Whether the program would be the same, and use the same.
    pub fn stand(&self, name: &str, root: &Path) -> bool {
        tools::find(name, root).is_some_and(|program| program == self.program) && self.files.iter().all(Witness::stands)
    }
}

impl Witness {
    /// `None` if what stands there cannot be told for certain.
    fn of(path: PathBuf, uses: &BTreeSet<Use>) -> Option<Self> {
        let is_passage = !uses.iter().any(|what| what.may_list()) && path.is_dir();
        let place = match Place::of(&path) {
            Ok(place) => (is_passage || place.is_settled()).then_some(Some(place))?,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
            Err(_) => return None,
        };
        Some(Self { path, place, is_passage })
    }

    fn stands(&self) -> bool {
        match (&self.place, Place::of(&self.path).ok()) {
            (Some(then), Some(now)) if self.is_passage => then.is_same(&now),
            (then, now) => *then == now,
        }
    }
}

/// What a program uses when it is asked. One that does not end this time is given up: it ends with this process.
fn used(program: &Path, root: &Path) -> Option<BTreeMap<PathBuf, BTreeSet<Use>>> {
    let mut question = tools::question(program, root);
    question.log = "/dev/null".into();
    let (sender, traced) = channel();
    let tracer = thread::Builder::new().name("witnesses".into());
    tracer.spawn(move || sender.send(tracing::trace(&question, &["/proc/self/exe".into(), TRACE.into()]))).ok()?;
    let traced = traced.recv_timeout(tools::PATIENCE).ok()?.ok()?;
    let mut used = traced.uses;
    used.retain(|path, _| !OF_THE_KERNEL.iter().any(|place| path.starts_with(place)));
    // The kernel opens the interpreter of a script by itself.
    let interpreters: Vec<PathBuf> = used.keys().filter_map(|path| interpreter(path)).collect();
    for path in interpreters {
        used.entry(path).or_default().insert(Use::Read);
    }
    (traced.ending == Ending::Code(0)).then_some(used)
}
