//! `Cancel`: by which a run is told to end, and a running stage is told so too.
//!
//! It does not know runs, stages or signals. A clone is the same handle: one is given to the run, another is raised by
//! whoever hears the user.
//!
//! Invariants: the level only rises; a [`Watch`] is told of each level once, in order, also of those that were reached
//! before it began, and of none after it was dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// How urgently a run is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Not at all.
    None,
    /// Nothing new begins. What runs may end by itself or give up, as it sees fit.
    Stop,
    /// What runs is to give up now.
    Kill,
}

/// A handle by which a run is told to end.
#[derive(Clone, Default)]
pub struct Cancel(Arc<Shared>);

#[derive(Default)]
struct Shared {
    level: AtomicU8,
    watches: Mutex<Watches>,
    raised: Condvar,
}

#[derive(Default)]
struct Watches {
    next: u64,
    tell: BTreeMap<u64, Box<Tell>>,
}

type Tell = dyn FnMut(Level) + Send;

impl Cancel {
    /// A handle that nobody has raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// The level that was reached.
    pub fn level(&self) -> Level {
        match self.0.level.load(Ordering::Acquire) {
            0 => Level::None,
            1 => Level::Stop,
            _ => Level::Kill,
        }
    }

    /// Whether a run with this handle is to end.
    pub fn is_raised(&self) -> bool {
        self.level() > Level::None
    }

    /// Goes one level up, and tells all watches before it returns. The highest stays.
    pub fn raise(&self) -> Level {
        let mut watches = self.0.watches();
        let level = match self.level() {
            Level::None => Level::Stop,
            Level::Stop => Level::Kill,
            Level::Kill => return Level::Kill,
        };
        self.0.level.store(level as u8, Ordering::Release);
        self.0.raised.notify_all();
        watches.tell.values_mut().for_each(|tell| tell(level));
        level
    }

    /// Has `tell` called with each level, on the thread that raises it, until the watch is dropped; and on this thread now
    /// with what was reached already. It must be quick, and must not use this handle but for [`Cancel::level`].
    pub fn watch(&self, mut tell: impl FnMut(Level) + Send + 'static) -> Watch {
        let mut watches = self.0.watches();
        let reached = self.level();
        [Level::Stop, Level::Kill].into_iter().filter(|level| *level <= reached).for_each(&mut tell);
        let number = watches.next;
        watches.next += 1;
        watches.tell.insert(number, Box::new(tell));
        Watch { shared: self.0.clone(), number }
    }

    /// Waits until the level is at least this.
    pub fn wait(&self, level: Level) {
        let mut watches = self.0.watches();
        while self.level() < level {
            watches = self.0.raised.wait(watches).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl fmt::Debug for Cancel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancel").field(&self.level()).finish()
    }
}

impl Shared {
    fn watches(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See [`Cancel::watch`].
#[must_use = "it ends when it is dropped"]
pub struct Watch {
    shared: Arc<Shared>,
    number: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.watches().tell.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> (Arc<Mutex<Vec<Level>>>, impl FnMut(Level) + Send + 'static) {
        let told = Arc::new(Mutex::new(Vec::new()));
        let keep = told.clone();
        (told, move |level| keep.lock().unwrap().push(level))
    }

    #[test]
    fn each_level_is_told_once_and_in_order() {
        let cancel = Cancel::new();
        let (told, tell) = told();
        let _watch = cancel.watch(tell);
        let other = cancel.clone();
        assert_eq!([other.raise(), other.raise(), other.raise()], [Level::Stop, Level::Kill, Level::Kill]);
        assert_eq!(*told.lock().unwrap(), [Level::Stop, Level::Kill]);
        assert_eq!(cancel.level(), Level::Kill);
    }

    #[test]
    fn who_watches_late_is_told_what_was_reached() {
        let cancel = Cancel::new();
        cancel.raise();
        let (told, tell) = told();
        let _watch = cancel.watch(tell);
        assert_eq!(*told.lock().unwrap(), [Level::Stop]);
        cancel.raise();
        assert_eq!(*told.lock().unwrap(), [Level::Stop, Level::Kill]);
    }

    #[test]
    fn a_watch_that_was_dropped_is_told_nothing() {
        let cancel = Cancel::new();
        let (told, tell) = told();
        drop(cancel.watch(tell));
        cancel.raise();
        assert!(told.lock().unwrap().is_empty());
    }

    #[test]
    fn who_waits_goes_on_when_the_level_is_reached() {
        let cancel = Cancel::new();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                cancel.wait(Level::Kill);
                cancel.level()
            });
            cancel.raise();
            cancel.raise();
            assert_eq!(waiter.join().unwrap(), Level::Kill);
        });
    }
}
