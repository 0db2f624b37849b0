//! Row `processes`: many processes on one store, some killed at any moment; each that ends well must be right at once.
//!
//! A case is a game on a new store: half of the processes each have a project of their own, which they edit, and the others
//! share one. A round of a process is a run that is judged, or one that is killed. If the binary has `store gc`, one more
//! process collects all the time. A store in use is not collected, so that every few rounds all processes gather, and go on
//! one after the other while the collector is at it.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use crate::crew::{Case, Orders};
use crate::headwater::ending;
use crate::random::Random;
use crate::score::{Score, Trouble};
use crate::subject::{Inputs, OUTS};
use crate::upkeep::COLLECT;
use crate::world::{Base, World};

/// After so many rounds all processes gather, and go on within this time.
const GATHERED: u64 = 5;
const SPREAD: u64 = 30_000;
/// One run in so many is killed.
const KILLED: u64 = 4;

/// How many play, and how long.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    pub processes: u64,
    /// How many rounds each process has in a game.
    pub rounds: u64,
}

/// Who plays.
struct Player<'a> {
    world: &'a World,
    case: &'a Case<'a>,
    project: &'a Path,
    store: &'a Path,
    /// Whether the project is nobody else's.
    alone: bool,
    random: Random,
    crowd: Crowd,
    over: &'a AtomicBool,
    /// How often a player has come to a gathering.
    gathered: &'a AtomicU64,
}

/// Runs the row; `count` is of games.
///
/// # Errors
/// If no undisturbed run can be had.
pub fn row(world: &World, orders: &Orders, default: u64, crowd: Crowd) -> Result<Score, Trouble> {
    let count = orders.count.unwrap_or(default);
    let Crowd { processes, rounds } = crowd;
    let command = format!("{} --processes {processes} --rounds {rounds}", orders.command("processes", count));
    let mut score = Score::new("processes", command);
    for name in ["processes at once", "rounds", "runs", "kills", "ended before", "collections", "collections refused"] {
        score.add(name, 0);
    }
    score.add("processes at once", processes);
    let one_by_one = Orders { workers: 1, ..orders.clone() };
    Ok(one_by_one.deal(score, count, |_| Ok(()), |(), case| game(world, case, crowd)))
}

fn game(world: &World, case: &mut Case<'_>, crowd: Crowd) -> Result<(), Trouble> {
    let (store, over, gathered) = (case.folder.join("store"), AtomicBool::new(false), AtomicU64::new(0));
    let processes = crowd.processes;
    let projects: Vec<_> = (0..processes / 2 + 1).map(|at| case.folder.join(format!("project-{at}"))).collect();
    for project in &projects {
        world.begin(Base::Fresh, project, &Inputs::default())?;
    }
    let mut randoms = Vec::new();
    for _ in 0..processes + 1 {
        randoms.push(Random::of(case.random.next(), 0));
    }
    let case = &*case;
    let ended: Vec<Result<(), Trouble>> = thread::scope(|scope| {
        let collecting = world.headwater.store_verbs.contains("gc");
        let collector = collecting.then(|| scope.spawn(|| collect(world, case, &projects[0], &store, &over)));
        let players: Vec<_> = (0..processes)
            .map(|at| {
                let shared = (processes / 2) as usize;
                let (project, alone) = (&projects[(at as usize).min(shared)], (at as usize) < shared);
                let random = randoms[at as usize].clone();
                let (store, over, gathered) = (&store, &over, &gathered);
                let player = Player { world, case, project, store, alone, random, crowd, over, gathered };
                scope.spawn(move || player.play())
            })
            .collect();
        let mut ended: Vec<_> = players.into_iter().map(|player| player.join().expect("no player panics")).collect();
        over.store(true, Ordering::Relaxed);
        ended.extend(collector.map(|collector| collector.join().expect("no collector panics")));
        ended
    });
    ended.into_iter().collect()
}

fn run(world: &World, project: &Path, store: &Path) -> Command {
    let mut command = world.headwater.command(project, &["run", "--format", "json", "-j", "2"]);
    command.env("HEADWATER_STORE", store);
    command
}

impl Player<'_> {
    fn play(mut self) -> Result<(), Trouble> {
        let mut inputs = Inputs::default();
        for round in 0..self.crowd.rounds {
            if round % GATHERED == 0 {
                self.gather(round / GATHERED + 1);
            }
            if self.over.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.alone {
                self.disturb(&mut inputs)?;
            }
            let result = self.round(&inputs);
            if result.is_err() {
                self.over.store(true, Ordering::Relaxed);
            }
            result.map_err(|trouble| trouble.at(format!("round {round} in {}", self.project.display())))?;
        }
        Ok(())
    }

    /// Waits until all have come as often, then a moment of its own.
    fn gather(&mut self, times: u64) {
        self.gathered.fetch_add(1, Ordering::Relaxed);
        let all = times * self.crowd.processes;
        while self.gathered.load(Ordering::Relaxed) < all && !self.over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(self.random.below(SPREAD)));
    }

    /// What a person does between two runs. Inputs are few, so that processes meet at the same keys.
    fn disturb(&mut self, inputs: &mut Inputs) -> Result<(), Trouble> {
        match self.random.below(3) {
            0 => {
                inputs.contents[self.random.below(3) as usize] = self.random.below(2);
                inputs.write(self.project)
            }
            1 => {
                let out = self.project.join(self.random.pick(&OUTS));
                if out.exists() { Ok(fs::remove_file(out)?) } else { Ok(()) }
            }
            _ => Ok(()),
        }
    }

    fn round(&mut self, inputs: &Inputs) -> Result<(), Trouble> {
        let mut command = run(self.world, self.project, self.store);
        self.case.add("rounds", 1);
        if self.random.once_in(KILLED) {
            let killed = kill_soon(&mut command, self.random.below(80_000))?;
            self.case.add(if killed { "kills" } else { "ended before" }, 1);
            return Ok(());
        }
        let ended = ending(&mut command)?;
        self.case.add("runs", 1);
        self.world.oracles.of_runs(inputs)?.judge_run(self.project, &ended)
    }
}

/// Whether it was killed, and had not ended before.
fn kill_soon(command: &mut Command, microseconds: u64) -> Result<bool, Trouble> {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    thread::sleep(Duration::from_micros(microseconds));
    child.kill()?;
    Ok(child.wait()?.signal().is_some())
}

fn collect(world: &World, case: &Case<'_>, project: &Path, store: &Path, over: &AtomicBool) -> Result<(), Trouble> {
    while !over.load(Ordering::Relaxed) {
        let mut command = world.headwater.command(project, &COLLECT);
        let ended = ending(command.env("HEADWATER_STORE", store))?;
        // A store in use is not collected.
        case.add(if ended.code == Some(0) { "collections" } else { "collections refused" }, 1);
        if let Some(broken) = ended.broke_down() {
            return Err(Trouble::violation(format!("`store gc`: {broken}")));
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}
