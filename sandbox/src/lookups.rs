//! Files that a program looked for in vain: in a folder that stands for another one, which has them.
//!
//! The kernel tells of each call that names a file (see [`crate::notifier`]), a thread of its own notes the path and lets
//! the call go on. Nobody waits for the outcome: when the program has ended, a path that is not there was looked for in
//! vain. It does not know what the folders are for. Invariants: nothing is changed in what the program does; what is noted
//! is bounded in number and bytes; the thread ends with [`Lookups::missed`], whatever is left of the program.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, PipeReader, PipeWriter};
use std::path::{Component, Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};

use crate::calls::{self, Does};
use crate::notifier::{Listener, Waiting};
use crate::order::{Bounds, Missed, Order, Twin, Why};

/// No more paths are noted.
const NOTED: usize = 10_000;
/// Nor more bytes of paths.
const NOTED_BYTES: usize = 1024 * 1024;
/// No more are reported.
const REPORTED: usize = 100;

/// What is heard of one program.
pub(crate) struct Lookups {
    listeners: Sender<Listener>,
    /// Its end tells the thread to end.
    running: PipeWriter,
    thread: JoinHandle<Option<Notes>>,
}

/// By which the thread that starts the program binds itself.
pub(crate) type Binding = Sender<Listener>;

impl Lookups {
    /// A thread that waits for a listener.
    pub fn begin(twin: &Twin) -> io::Result<Self> {
        let ((listeners, listener), (ended, running)) = (channel(), io::pipe()?);
        let notes = Notes::of(twin);
        let thread = thread::Builder::new().name("lookups".into());
        let thread = thread.spawn(move || notes.take(&listener, &ended))?;
        Ok(Self { listeners, running, thread })
    }

    pub fn binding(&self) -> Binding {
        self.listeners.clone()
    }

    /// What a program looked for in vain that has ended, with all that it had started; `None` if nothing was heard of it.
    pub fn missed(self, order: &Order) -> Option<Vec<Missed>> {
        let Self { listeners, running, thread } = self;
        drop((listeners, running));
        // A thread that has failed has closed its listener: each call that is watched has failed since (`ENOSYS`).
        thread.join().ok()?.map(|notes| notes.missed(order.bounds.as_ref()))
    }
}

/// Binds the calling thread, and what it starts from now on. A kernel that cannot do it is no failure: nothing is heard.
pub(crate) fn bind(binding: &Binding) {
    if let Ok(listener) = Listener::here(Vec::new(), calls::all().map(|kind| kind.number)) {
        // Should nobody take it, it is closed, and no call waits.
        let _ = binding.send(listener);
    }
}

/// How a program named a file, relative to the folder or the one that this stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Here,
    There,
}

/// Paths, and whether each was to be opened or executed.
struct Notes {
    here: Vec<PathBuf>,
    there: Vec<PathBuf>,
    /// What lies beside the folder is not the other's, even if it lies in it.
    around: Vec<PathBuf>,
    noted: BTreeMap<(Place, PathBuf), bool>,
    bytes: usize,
}

impl Notes {
    fn of(twin: &Twin) -> Self {
        let spellings = |path: &Path| {
            let real = path.canonicalize().ok().filter(|real| real != path);
            [path.to_owned()].into_iter().chain(real).collect::<Vec<_>>()
        };
        let here = spellings(Path::new(&twin.here));
        let there = spellings(Path::new(&twin.there));
        let inside = |path: &&Path| there.iter().any(|there| path.starts_with(there) && path != there);
        let around = here.iter().filter_map(|path| path.parent()).filter(inside).map(Path::to_owned).collect();
        Self { here, there, around, noted: BTreeMap::new(), bytes: 0 }
    }

    /// To the end of the program; `None` if there was no listener, or it could not be heard.
    fn take(mut self, listener: &Receiver<Listener>, ended: &PipeReader) -> Option<Self> {
        let listener = listener.recv().ok()?;
        loop {
            let mut awaited = [PollFd::new(&listener, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
            // A failed wait is a short one.
            let _ = poll(&mut awaited, None);
            let [call, end] = awaited.map(|one| one.revents());
            // Whatever still waits then: what was watched has ended.
            if !end.is_empty() || !call.is_empty() && !call.contains(PollFlags::IN) {
                return Some(self);
            }
            if call.contains(PollFlags::IN) {
                self.hear(&listener).ok()?;
            }
        }
    }

    fn hear(&mut self, listener: &Listener) -> io::Result<()> {
        match listener.receive() {
            Ok(call) => {
                self.note(listener, &call);
                listener.let_go(&call);
                Ok(())
            }
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn note(&mut self, listener: &Listener, call: &Waiting) {
        let Some((place, path, opens)) = self.named(call) else { return };
        // The memory that was read may have become another program's.
        if self.noted.len() < NOTED && self.bytes + path.as_os_str().len() < NOTED_BYTES && listener.waits(call) {
            let bytes = path.as_os_str().len();
            let opened = self.noted.entry((place, path)).or_insert_with(|| {
                self.bytes += bytes;
                false
            });
            *opened |= opens;
        }
    }

    /// The file that a call names, if it lies in one of the folders, and whether it is to be opened.
    fn named(&self, call: &Waiting) -> Option<(Place, PathBuf, bool)> {
        let (kind, task) = (calls::of(call.number)?, Pid::from_raw(call.task));
        // What is made cannot be missed.
        if kind.flags(&call.arguments).is_some_and(|flags| flags & libc::O_CREAT != 0) {
            return None;
        }
        let path = kind.path(task, &call.arguments)?;
        let (place, path) = self.place(&plain(&kind.absolute(task, &call.arguments, &path)))?;
        Some((place, path, kind.does != Does::Looks))
    }

    fn place(&self, path: &Path) -> Option<(Place, PathBuf)> {
        let within = |roots: &[PathBuf]| {
            let inside = roots.iter().find_map(|root| path.strip_prefix(root).ok());
            inside.filter(|inside| !inside.as_os_str().is_empty()).map(Path::to_owned)
        };
        if let Some(inside) = within(&self.here) {
            return Some((Place::Here, inside));
        }
        if self.around.iter().any(|around| path.starts_with(around)) {
            return None;
        }
        within(&self.there).map(|inside| (Place::There, inside))
    }

    /// What was looked for in vain, what was to be opened first.
    fn missed(&self, bounds: Option<&Bounds>) -> Vec<Missed> {
        let (Some(here), Some(there)) = (self.here.first(), self.there.first()) else { return Vec::new() };
        let is = |path: PathBuf| fs::symlink_metadata(path).is_ok();
        let mut found = Vec::new();
        for ((place, path), opened) in &self.noted {
            let why = match (place, is(there.join(path))) {
                (Place::Here, _) if is(here.join(path)) => continue,
                (Place::Here, true) => Why::OnlyThere,
                (Place::Here, false) if *opened => Why::Nowhere,
                (Place::There, true) if *opened && !may_read(bounds, &there.join(path)) => Why::Refused,
                _ => continue,
            };
            found.push(Missed { path: path.clone().into(), why, opened: *opened });
        }
        found.sort_by_key(|missed| (missed.why, !missed.opened));
        found.truncate(REPORTED);
        found
    }
}

fn may_read(bounds: Option<&Bounds>, path: &Path) -> bool {
    let real = path.canonicalize();
    let spellings: Vec<&Path> = [path].into_iter().chain(real.as_deref()).collect();
    let within = |place: &OsString| spellings.iter().any(|path| path.starts_with(place));
    bounds.is_none_or(|bounds| bounds.read.iter().chain(&bounds.write).any(within))
}

/// `..` taken at its word.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(plain.pop()),
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::time::Duration;

    /// What the thread gives, with a listener that is readable and can never be heard.
    fn given(ended: bool) -> Option<BTreeMap<(Place, PathBuf), bool>> {
        let ((listeners, listener), (end, running)) = (channel(), io::pipe().expect("a pipe"));
        let (stuck, mut writer) = io::pipe().expect("a pipe");
        writer.write_all(b"x").expect("written");
        listeners.send(Listener::of(stuck.into())).expect("sent");
        let running = Some(running).filter(|_| !ended);
        let (given, gives) = channel();
        let notes = Notes::of(&Twin::default());
        thread::spawn(move || given.send(notes.take(&listener, &end).map(|notes| notes.noted)));
        let given = gives.recv_timeout(Duration::from_secs(30)).expect("the thread ends");
        drop((running, writer));
        given
    }

    #[test]
    fn a_listener_that_cannot_be_heard_is_given_up() {
        assert_eq!(given(false), None);
    }

    #[test]
    fn nothing_that_waits_is_heard_after_the_end() {
        assert_eq!(given(true), Some(BTreeMap::new()));
    }
}
