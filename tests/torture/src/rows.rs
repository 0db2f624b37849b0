//! The command line: which rows, how often, and what is printed of them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs, thread};

use clap::{Parser, ValueEnum};

use crate::careful::Careful;
use crate::careless::Careless;
use crate::crew::{Orders, remove};
use crate::crowd::Crowd;
use crate::headwater::Headwater;
use crate::image::{FileSystem, Memory, isolate};
use crate::pipeline::Pipeline;
use crate::power::{Cut, Expected};
use crate::rivals::{Dvc, Git};
use crate::score::{Score, Trouble};
use crate::tool::Tool;
use crate::traced::{STUB, stub_main};
use crate::world::World;
use crate::{crowd, edits, errnos, flips, kills, pipelines, power, space, upkeep};

/// With `--small` no case of a row begins after this time.
const SMALL_LIMIT: Duration = Duration::from_secs(15);

/// A row of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Row {
    Kill,
    Power,
    Flips,
    Errno,
    Space,
    Edits,
    Pipelines,
    Processes,
    Verify,
    Repair,
    Gc,
    /// git and DVC.
    Rivals,
    /// All but the rivals.
    All,
}

/// Who works while the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Worker {
    /// The control that syncs nothing, and must lose data.
    Careless,
    /// The control that syncs everything, and must lose none.
    Careful,
    Headwater,
}

/// Faults on the real kernel, with the real headwater.
#[derive(Debug, Parser)]
#[command(name = "headwater-torture")]
struct Arguments {
    #[arg(required = true)]
    rows: Vec<Row>,
    /// Determines every case, with its number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many cases; each row has its own number, which for kill and errno is every point.
    #[arg(long)]
    count: Option<u64>,
    /// This case alone, of as many as `--count` says.
    #[arg(long)]
    case: Option<u64>,
    /// Few cases, and no row longer than 15 seconds: what CI runs.
    #[arg(long)]
    small: bool,
    /// The binary under test; default: beside this one.
    #[arg(long)]
    headwater: Option<PathBuf>,
    /// Where to work; default: in memory, else where temporary files go.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// How many cases at once; default: the number of cores.
    #[arg(long)]
    workers: Option<usize>,
    /// No case of a row begins after so many seconds.
    #[arg(long)]
    limit: Option<u64>,
    /// A row ends after so many violations.
    #[arg(long, default_value_t = 20)]
    enough: usize,
    /// How many processes play in the row `processes`.
    #[arg(long, default_value_t = 8)]
    processes: u64,
    /// How many rounds each of them has in a game.
    #[arg(long, default_value_t = 10)]
    rounds: u64,
    /// Flip every bit, in order, instead of some.
    #[arg(long)]
    exhaustive: bool,
    /// Only this file system's power is cut.
    #[arg(long)]
    file_system: Option<FileSystem>,
    /// Only this one works while the power goes.
    #[arg(long)]
    worker: Option<Worker>,
    /// Mount again what the power was cut of through the same loop device, of which the kernel may still have blocks that
    /// were never written, as after no power cut.
    #[arg(long)]
    same_device: bool,
    /// Seconds between exit code 0 and the power cut.
    #[arg(long, default_value_t = 0)]
    wait: u64,
    /// The DVC to compare with, such as of `python3 -m venv V; V/bin/pip install dvc`; without it that row is skipped.
    #[arg(long)]
    dvc: Option<PathBuf>,
    /// Show what is no violation too, such as honest errors.
    #[arg(long)]
    verbose: bool,
    /// Rows of a Markdown table.
    #[arg(long)]
    markdown: bool,
}

/// How many cases a row has: by itself, and with `--small`.
struct Sizes {
    kill: Option<u64>,
    power: u64,
    careless: u64,
    flips: u64,
    errno: Option<u64>,
    space: u64,
    edits: u64,
    pipelines: u64,
    games: u64,
    upkeep: u64,
    repairs: u64,
    rivals: u64,
}

const FULL: Sizes = Sizes {
    kill: None,
    power: 1500,
    careless: 20,
    flips: 20_000,
    errno: None,
    space: 400,
    edits: 10_000,
    pipelines: 10_000,
    games: 20,
    upkeep: 2000,
    repairs: 200,
    rivals: 20,
};

const SMALL: Sizes = Sizes {
    kill: Some(240),
    power: 30,
    careless: 4,
    flips: 200,
    errno: Some(220),
    space: 24,
    edits: 100,
    pipelines: 100,
    games: 1,
    upkeep: 60,
    repairs: 8,
    rivals: 3,
};

/// The whole program.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().collect();
    if arguments.get(1).is_some_and(|first| first == STUB) {
        stub_main(&arguments[2..]);
    }
    match run(&Arguments::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(trouble) => {
            eprintln!("headwater-torture: {trouble:?}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<u8, Trouble> {
    isolate();
    let beside = env::current_exe()?.with_file_name("headwater");
    let headwater = Headwater::at(arguments.headwater.as_ref().unwrap_or(&beside))?;
    let orders = orders(arguments)?;
    eprintln!("headwater-torture: {} ({}), seed {}", headwater.version()?, headwater.path.display(), orders.seed);
    let rows = Rows { arguments, orders: &orders, headwater: &headwater };
    let scores = rows.all();
    remove(&orders.folder)?;
    summary(&scores?)
}

fn orders(arguments: &Arguments) -> Result<Orders, Trouble> {
    let memory = Path::new("/dev/shm");
    let base = match &arguments.folder {
        Some(folder) => folder.clone(),
        None if memory.is_dir() => memory.to_owned(),
        None => env::temp_dir(),
    };
    let folder = base.join(format!("headwater-torture-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let limit = arguments.limit.map(Duration::from_secs);
    Ok(Orders {
        seed: arguments.seed,
        count: arguments.count,
        case: arguments.case,
        limit: if arguments.small { Some(limit.unwrap_or(SMALL_LIMIT)) } else { limit },
        enough: arguments.enough,
        workers: arguments.workers.unwrap_or(cores),
        folder: folder.canonicalize()?,
        program: "headwater-torture".into(),
    })
}

struct Rows<'a> {
    arguments: &'a Arguments,
    orders: &'a Orders,
    headwater: &'a Headwater,
}

impl Rows<'_> {
    fn all(&self) -> Result<Vec<Score>, Trouble> {
        let world = World::new(self.headwater, self.orders)?;
        let all = [
            Row::Kill,
            Row::Power,
            Row::Flips,
            Row::Errno,
            Row::Space,
            Row::Edits,
            Row::Pipelines,
            Row::Processes,
            Row::Verify,
            Row::Repair,
            Row::Gc,
        ];
        let mut scores = Vec::new();
        for row in &self.arguments.rows {
            let rows = if *row == Row::All { &all[..] } else { std::slice::from_ref(row) };
            for row in rows {
                self.row(&world, *row, &mut |score| {
                    self.print(&score);
                    scores.push(score);
                })?;
            }
        }
        Ok(scores)
    }

    fn row(&self, world: &World, row: Row, done: &mut dyn FnMut(Score)) -> Result<(), Trouble> {
        let sizes = if self.arguments.small { &SMALL } else { &FULL };
        let (orders, subject) = (self.orders, Pipeline { world });
        let control = Orders { count: None, case: None, ..orders.clone() };
        match row {
            Row::Kill => done(kills::row(world, orders, sizes.kill)?),
            Row::Power => {
                let wanted = |worker| self.arguments.worker.is_none_or(|only| only == worker);
                for system in self.systems() {
                    if wanted(Worker::Careless) {
                        done(self.power(&Careless, system, &control, sizes.careless, Expected::Loss)?);
                    }
                    if wanted(Worker::Careful) {
                        done(self.power(&Careful, system, orders, sizes.power / 10, Expected::Right)?);
                    }
                    if wanted(Worker::Headwater) {
                        done(self.power(&subject, system, orders, sizes.power, Expected::Right)?);
                    }
                }
            }
            Row::Flips => {
                done(flips::row(&Careless, &control, sizes.careless, false, Expected::Loss)?);
                done(flips::row(&subject, orders, sizes.flips, self.arguments.exhaustive, Expected::Right)?);
            }
            Row::Errno => done(errnos::row(world, orders, sizes.errno)?),
            Row::Space => done(space::row(world, orders, sizes.space)?),
            Row::Edits => done(edits::row(world, orders, sizes.edits)?),
            Row::Pipelines => done(pipelines::row(world, orders, sizes.pipelines)?),
            Row::Processes => {
                let crowd = Crowd { processes: self.arguments.processes, rounds: self.arguments.rounds };
                done(crowd::row(world, orders, sizes.games, crowd)?);
            }
            Row::Verify => done(upkeep::verify(world, orders, sizes.upkeep)?),
            Row::Repair => done(upkeep::repair(world, orders, sizes.repairs)?),
            Row::Gc => done(upkeep::gc(world, orders, sizes.upkeep)?),
            Row::Rivals => self.rivals(sizes.rivals, done)?,
            Row::All => unreachable!("replaced by the rows that it means"),
        }
        Ok(())
    }

    fn systems(&self) -> Vec<FileSystem> {
        self.arguments.file_system.map_or(FileSystem::ALL.to_vec(), |system| vec![system])
    }

    fn power(
        &self,
        tool: &dyn Tool,
        system: FileSystem,
        orders: &Orders,
        default: u64,
        expected: Expected,
    ) -> Result<Score, Trouble> {
        let memory = if self.arguments.same_device { Memory::Kept } else { Memory::Lost };
        let cut = Cut { system, memory, wait: Duration::from_secs(self.arguments.wait) };
        power::row(tool, cut, orders, default, expected)
    }

    fn rivals(&self, default: u64, done: &mut dyn FnMut(Score)) -> Result<(), Trouble> {
        let mut tools: Vec<Box<dyn Tool>> = vec![Box::new(Git)];
        match &self.arguments.dvc {
            Some(program) => tools.push(Box::new(Dvc { program: program.canonicalize()? })),
            None => {
                let mut score = Score::new("DVC", "headwater-torture rivals");
                score.skipped = Some("no --dvc was given".into());
                done(score);
            }
        }
        for tool in &tools {
            eprintln!("headwater-torture: {}", tool.version()?);
            for system in self.systems() {
                done(self.power(&**tool, system, self.orders, default, Expected::Anything)?);
            }
            done(flips::row(&**tool, self.orders, default * 5, self.arguments.exhaustive, Expected::Anything)?);
        }
        Ok(())
    }

    fn print(&self, score: &Score) {
        if self.arguments.markdown {
            println!("{}", score.markdown());
        } else {
            println!("{score}");
        }
        for violation in &score.violations {
            println!("  VIOLATION, `{} --case {}`: {}", score.command, violation.case, violation.what);
        }
        for note in score.notes.iter().filter(|_| self.arguments.verbose) {
            println!("  {note}");
        }
        for failure in &score.failures {
            println!("  failure of the harness: {failure}");
        }
    }
}

fn summary(scores: &[Score]) -> Result<u8, Trouble> {
    let count = |is: &dyn Fn(&Score) -> bool| scores.iter().filter(|score| is(score)).count();
    let (passed, skipped) = (count(&|score| score.passed()), count(&|score| score.skipped.is_some()));
    let violations: usize = scores.iter().map(|score| score.violations.len()).sum();
    let failures: usize = scores.iter().map(|score| score.failures.len()).sum();
    let skips = if skipped > 0 { format!(", {skipped} SKIPPED") } else { String::new() };
    eprintln!("headwater-torture: {passed} rows passed{skips}, {violations} violations");
    Ok(if violations > 0 { 1 } else { u8::from(failures > 0) * 2 })
}
