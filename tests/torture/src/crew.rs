//! The cases of a row, dealt out to threads.
//!
//! A case is known by its number alone: seed and number determine what happens in it. It does not know what a case does.
//! Invariants: what a violated case left on disk is kept; a failing harness is no violation, and no success either.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::random::Random;
use crate::score::{Score, Trouble};

/// What all rows are told.
#[derive(Debug, Clone)]
pub struct Orders {
    pub seed: u64,
    /// How many cases; a row has its own number if none is given.
    pub count: Option<u64>,
    /// This case alone.
    pub case: Option<u64>,
    /// No case is begun after this time.
    pub limit: Option<Duration>,
    /// After this many violations or failures a row ends.
    pub enough: usize,
    pub workers: usize,
    /// Where the cases work.
    pub folder: PathBuf,
    /// What the harness was called with, before the row's name.
    pub program: String,
}

/// One case under way.
pub struct Case<'a> {
    pub number: u64,
    pub random: Random,
    /// Its own, empty at the beginning.
    pub folder: PathBuf,
    score: &'a Mutex<Score>,
}

impl Case<'_> {
    /// Adds to a figure of the row.
    pub fn add(&self, name: &'static str, number: u64) {
        self.score.lock().expect("no case panics with the score").add(name, number);
    }

    /// Notes what is no violation, and of interest.
    pub fn note(&self, text: String) {
        self.score.lock().expect("no case panics with the score").notes.push(format!("case {}: {text}", self.number));
    }
}

impl Orders {
    /// The command that gives a row again.
    pub fn command(&self, row: &str, count: u64) -> String {
        let limit = self.limit.map(|limit| format!(" --limit {}", limit.as_secs())).unwrap_or_default();
        format!("{} {row} --seed {} --count {count}{limit}", self.program, self.seed)
    }

    /// A folder for what a row needs beside its cases.
    pub fn make_folder(&self, name: &str) -> Result<PathBuf, Trouble> {
        let folder = self.folder.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    /// Runs `count` cases. Each thread begins with a state of its own, such as a mounted disk.
    pub fn deal<S>(
        &self,
        score: Score,
        count: u64,
        begin: impl Fn(usize) -> Result<S, Trouble> + Sync,
        case: impl Fn(&mut S, &mut Case<'_>) -> Result<(), Trouble> + Sync,
    ) -> Score {
        let (started, row) = (Instant::now(), score.row.clone());
        let score = Mutex::new(score);
        let next = AtomicU64::new(0);
        let numbers = self.case.map_or((0, count), |only| (only, only + 1));
        thread::scope(|scope| {
            for worker in 0..self.workers.min((numbers.1 - numbers.0).max(1) as usize) {
                let (next, score, begin, case, row) = (&next, &score, &begin, &case, &row);
                scope.spawn(move || {
                    let take = |number, trouble| score.lock().expect("no case panics").take(number, trouble);
                    let mut state = match begin(worker) {
                        Ok(state) => state,
                        Err(trouble) => return take(0, trouble),
                    };
                    loop {
                        let turn = next.fetch_add(1, Ordering::Relaxed);
                        let number = numbers.0 + scattered(turn, numbers.1 - numbers.0);
                        if turn >= numbers.1 - numbers.0
                            || self.is_over(started, &score.lock().expect("no case panics"))
                        {
                            return;
                        }
                        if let Err(trouble) = self.one(row, number, score, |this| case(&mut state, this)) {
                            take(number, trouble);
                        }
                    }
                });
            }
        });
        let mut score = score.into_inner().expect("no case panics");
        score.took = started.elapsed();
        score
    }

    fn is_over(&self, started: Instant, score: &Score) -> bool {
        let late = self.limit.is_some_and(|limit| started.elapsed() > limit);
        late || score.violations.len() + score.failures.len() >= self.enough || score.skipped.is_some()
    }

    fn one(
        &self,
        row: &str,
        number: u64,
        score: &Mutex<Score>,
        case: impl FnOnce(&mut Case<'_>) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let folder = self.make_folder(&format!("{row}-{number}").replace(' ', "-"))?;
        let mut this = Case { number, random: Random::of(self.seed, number), folder, score };
        let ended = case(&mut this);
        match ended {
            Err(Trouble::Violation(what)) => {
                let kept = self.keep(row, number, &this.folder);
                Err(Trouble::Violation(format!("{what}\n  left at {}", kept.display())))
            }
            other => {
                remove(&this.folder)?;
                other
            }
        }
    }

    fn keep(&self, row: &str, number: u64, folder: &Path) -> PathBuf {
        let kept = self.folder.with_extension(format!("violation-{}-{}-{number}", row.replace(' ', "-"), self.seed));
        let _ = fs::remove_dir_all(&kept);
        match fs::rename(folder, &kept) {
            Ok(()) => kept,
            Err(_) => folder.to_owned(),
        }
    }
}

/// The case whose turn it is: each of `count` once, neighbours far apart, so that a row that is ended early has cases of
/// every kind.
fn scattered(turn: u64, count: u64) -> u64 {
    let parts = |a: u64, b: u64| std::iter::successors(Some((a, b)), |(a, b)| (*b > 0).then(|| (*b, a % b)));
    let coprime = |stride: &u64| parts(*stride, count).last().is_some_and(|(divisor, _)| divisor == 1);
    let stride = (count * 3 / 8 + 1..).find(coprime).unwrap_or(1);
    turn % count.max(1) * stride % count.max(1)
}

/// Removes a folder and all in it.
pub fn remove(folder: &Path) -> Result<(), Trouble> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Trouble::harness(format!("remove {}: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_has_a_turn_and_the_first_turns_are_far_apart() {
        for count in [1, 2, 3, 8, 240, 1000, 3208] {
            let all: std::collections::BTreeSet<u64> = (0..count).map(|turn| scattered(turn, count)).collect();
            assert_eq!(all, (0..count).collect(), "{count}");
        }
        assert!(scattered(1, 1000) > 300);
    }
}
