//! `Unsynced`: a file in the state folder that says that outs were put in place which may not outlast a power cut.
//!
//! Outs are made durable when a run ends. A run that was killed before has told of outs which the next one finds in place: that
//! makes durable what it did not write, before it says that all is well. The file itself need not be durable: after a power
//! cut nothing is trusted that was not.
//!
//! It does not know which outs there are. Invariants: the file is there before an out is; each run that has put outs in place
//! and not made them durable has the kernel's shared lock on it; it goes only when nobody else has a lock.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};

const FILE: &str = "unsynced";
/// What the file says if a sync has failed.
const FAILED: &str = "failed";
/// More is not read of it.
const SAID_BYTES: u64 = 256;

/// The mark of one run.
pub struct Unsynced {
    pub path: PathBuf,
    /// Whether outs that stand in place may not be what is on the drive: a sync of them has failed.
    pub is_distrusted: bool,
    /// What the file said of that when this run began.
    said: Vec<u8>,
    own: Mutex<Option<Mark>>,
}

struct Mark {
    file: File,
    /// Whether another run had left the file, or had it still.
    of_others: bool,
}

impl Unsynced {
    /// With the file in this state folder.
    pub fn new(state: &Path) -> Self {
        let path = state.join(FILE);
        let said = said(&path);
        Self { path, is_distrusted: !said.is_empty(), said, own: Mutex::default() }
    }

    /// Whether any run may have left outs that are not durable.
    pub fn is_there(state: &Path) -> bool {
        fs::symlink_metadata(state.join(FILE)).is_ok()
    }

    /// Notes that outs are put in place.
    ///
    /// # Errors
    /// If the file cannot be made or locked.
    pub fn note(&self) -> io::Result<()> {
        let mut own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        if own.is_none() {
            *own = Some(Mark::make(&self.path)?);
        }
        Ok(())
    }

    /// Notes that a sync of outs has failed: the kernel may have dropped what it did not write, and a sync that succeeds later
    /// means nothing. The next run puts all outs in place anew.
    ///
    /// # Errors
    /// If that cannot be noted.
    pub fn distrust(&self) -> io::Result<()> {
        self.note()?;
        // As long as any other: never cut, which would say for a moment that all is well. Different each time, so that a run
        // which began to put right what an earlier one failed at does not take this for that.
        let (run, time) = (process::id(), SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos());
        let said = format!("{FAILED} {run:08x} {time:032x}\n");
        let how = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let write = || File::from(rustix::fs::open(&self.path, how, Mode::empty())?).write_all(said.as_bytes());
        self.named(write())
    }

    /// Takes the mark away, once this run's outs are durable; before, `sync_all` is to make all outs durable, if another run
    /// may have left some that are not.
    ///
    /// # Errors
    /// If the file cannot be looked at or removed, `sync_all` fails, or another run says that its sync has failed: the mark stays
    /// then.
    pub fn settle(&self, sync_all: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Mark { file, of_others }) =
            own.map_or_else(|| self.named(Mark::left(&self.path)), |own| Ok(Some(own)))?
        else {
            return Ok(());
        };
        let alone = file.try_lock().is_ok();
        let now = said(&self.path);
        if !now.is_empty() && now != self.said {
            return self.named(Err(io::Error::other("another run could not make its outs durable")));
        }
        if of_others || !alone {
            sync_all()?;
        }
        if alone { self.named(fs::remove_file(&self.path)) } else { Ok(()) }
    }

    fn named<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.path.display())))
    }
}

impl Mark {
    fn make(path: &Path) -> io::Result<Self> {
        loop {
            let (file, of_others) = match File::create_new(path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => (open(path), true),
                file => (file, false),
            };
            match file {
                // Whoever had it has removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && of_others => continue,
                Err(error) => return Err(error),
                Ok(file) => {
                    file.lock_shared()?;
                    if file.metadata()?.nlink() > 0 {
                        return Ok(Self { file, of_others });
                    }
                }
            }
        }
    }

    /// What another run has left.
    fn left(path: &Path) -> io::Result<Option<Self>> {
        match open(path) {
            Ok(file) => Ok(Some(Self { file, of_others: true })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What the file says of a sync that failed; nothing if none did.
fn said(path: &Path) -> Vec<u8> {
    let mut said = Vec::new();
    let read = open(path).and_then(|file| file.take(SAID_BYTES).read_to_end(&mut said));
    read.map_or_else(|_| Vec::new(), |_| said)
}

/// A link could lead to a lock that this process waits for.
fn open(path: &Path) -> io::Result<File> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Settles; gives whether all outs had to be made durable.
    fn settle(run: &Unsynced) -> bool {
        let mut all = false;
        run.settle(|| {
            all = true;
            Ok(())
        })
        .expect("settled");
        all
    }

    #[test]
    fn a_run_that_is_alone_makes_its_own_outs_durable_only() {
        let state = tempfile::tempdir().expect("a folder");
        let run = Unsynced::new(state.path());
        assert!(!settle(&run));
        run.note().expect("noted");
        run.note().expect("noted");
        assert!(Unsynced::is_there(state.path()));
        assert!(!settle(&run) && !Unsynced::is_there(state.path()));
    }

    #[test]
    fn what_a_killed_run_left_is_made_durable_by_the_next_whether_that_places_outs_or_not() {
        let state = tempfile::tempdir().expect("a folder");
        for places in [false, true] {
            let killed = Unsynced::new(state.path());
            killed.note().expect("noted");
            drop(killed);
            let next = Unsynced::new(state.path());
            if places {
                next.note().expect("noted");
            }
            assert!(settle(&next), "{places}");
            assert!(!Unsynced::is_there(state.path()));
            assert!(!settle(&next));
        }
    }

    #[test]
    fn a_run_beside_another_makes_all_durable_and_leaves_the_mark_to_it() {
        let state = tempfile::tempdir().expect("a folder");
        let [one, other, reader] = [(); 3].map(|()| Unsynced::new(state.path()));
        one.note().expect("noted");
        other.note().expect("noted");
        assert!(settle(&reader));
        assert!(settle(&one) && Unsynced::is_there(state.path()));
        assert!(settle(&other) && !Unsynced::is_there(state.path()));
    }

    #[test]
    fn a_link_in_its_place_is_an_error_that_names_it() {
        let state = tempfile::tempdir().expect("a folder");
        std::os::unix::fs::symlink("other", state.path().join(FILE)).expect("a link");
        let error = Unsynced::new(state.path()).settle(|| Ok(())).expect_err("a link");
        let path = state.path().join(FILE);
        assert_eq!(error.to_string(), format!("{}: Too many levels of symbolic links (os error 40)", path.display()));
    }

    #[test]
    fn a_run_that_began_before_another_failed_does_not_say_that_all_is_well() {
        let state = tempfile::tempdir().expect("a folder");
        let (failing, beside) = (Unsynced::new(state.path()), Unsynced::new(state.path()));
        failing.note().expect("noted");
        beside.note().expect("noted");
        failing.distrust().expect("noted");
        drop(failing);
        let error = beside.settle(|| Ok(())).expect_err("it failed").to_string();
        assert!(error.ends_with("another run could not make its outs durable"), "{error}");
        let next = Unsynced::new(state.path());
        assert!(next.is_distrusted);
        next.note().expect("noted");
        let last = Unsynced::new(state.path());
        last.distrust().expect("noted");
        drop(last);
        next.settle(|| Ok(())).expect_err("it failed again");
        let next = Unsynced::new(state.path());
        assert!(next.is_distrusted && settle(&next) && !Unsynced::is_there(state.path()));
    }

    #[test]
    fn a_sync_that_fails_leaves_the_mark() {
        let state = tempfile::tempdir().expect("a folder");
        drop(Unsynced::new(state.path()).note());
        let run = Unsynced::new(state.path());
        let failed = run.settle(|| Err(io::Error::other("no luck")));
        assert_eq!(failed.expect_err("it fails").to_string(), "no luck");
        assert!(Unsynced::is_there(state.path()) && settle(&run));
    }
}
