//! Row `edits`: files of a project are edited in all ways that hide an edit; a run must see every one of them.
//!
//! Same size and same times, clocks that go back, renames, hard links, modes, older files put in place, folders swapped,
//! outs changed behind the back, edits while a run goes on. Most cases edit the inputs of [`Witness`]es, many between two
//! runs: each is judged by itself, by what is known of its contents, and files that were only touched must make nothing run;
//! some rounds also run in a fresh project. The other cases edit the pipeline of all rows, and every run must equal one in a
//! fresh project.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime};

use crate::crew::{Case, Orders, remove};
use crate::headwater::ending;
use crate::random::Random;
use crate::score::{Score, Trouble};
use crate::subject::{CONTENTS, FILES, Inputs, OUTS};
use crate::traced::Ending;
use crate::ways::{Way, rewrite, set_times, spoil, times};
use crate::witnesses::{self, Edit, Editor, Frames, Witness};
use crate::world::{Base, World};

/// One case in so many edits the pipeline of all rows; the others, witnesses.
const PIPELINES: u64 = 5;
/// How many edits such a case makes in its project, one after the other.
const PIPELINE_EDITS: u64 = 10;
/// How many rounds a case of witnesses has; in each so many are edited and so many others touched, and then a run judges.
const ROUNDS: u64 = 24;
const EDITED: usize = 20;
const TOUCHED: usize = 4;
/// In one round in so many some edits are made while a run goes on, and in one a run in a fresh project is judged too.
const DISTURBED: u64 = 6;
const AFRESH: u64 = 8;
/// In one round in so many the run before was told to have found nothing new by one look at each file, if that can be, and
/// a run for people, which may take that way again, comes before the one that is judged.
const SETTLED: u64 = 24;
/// After so long the times of files tell.
const SETTLING: Duration = Duration::from_millis(2200);

/// Runs that found in one look at each file that nothing was new.
const SAME: &str = "runs by one look";

/// How the pipeline of all rows is edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    Rewritten(Way),
    /// Nothing but the time changes.
    Touched,
    Mode,
    /// An out is changed, times set back.
    OutChanged,
    OutRemoved,
    /// The edit is made while a run goes on.
    WhileRunning,
    /// The param changes.
    Param,
}

const ALL: [How; 16] = [
    How::Rewritten(Way::Plain),
    How::Rewritten(Way::SameTimes),
    How::Rewritten(Way::Back),
    How::Rewritten(Way::Ahead),
    How::Rewritten(Way::Renamed),
    How::Rewritten(Way::Older),
    How::Rewritten(Way::Linked),
    How::Rewritten(Way::ByOtherName),
    How::Rewritten(Way::Anew),
    How::Rewritten(Way::FolderSwapped),
    How::Touched,
    How::Mode,
    How::OutChanged,
    How::OutRemoved,
    How::WhileRunning,
    How::Param,
];

/// Runs the row; `count` is of edits.
///
/// # Errors
/// If no undisturbed run can be had.
pub fn row(world: &World, orders: &Orders, default: u64) -> Result<Score, Trouble> {
    let count = orders.count.unwrap_or(default);
    let mut score = Score::new("edits", orders.command("edits", count));
    for name in ["edits", "with size and times kept", "touches", "runs", SAME, "runs in fresh projects"] {
        score.add(name, 0);
    }
    let frames = Frames::learn(&world.headwater, &orders.make_folder("contents")?)?;
    let a_turn = (PIPELINES - 1) * ROUNDS * EDITED as u64 + PIPELINE_EDITS;
    let cases = count.div_ceil(a_turn) * PIPELINES;
    Ok(orders.deal(
        score,
        cases,
        |_| Ok(()),
        |(), case| match case.number % PIPELINES {
            0 => pipeline(world, case),
            _ => Game { world, frames: &frames, case }.play(),
        },
    ))
}

struct Game<'a, 'b> {
    world: &'a World,
    frames: &'a Frames,
    case: &'a mut Case<'b>,
}

impl Game<'_, '_> {
    fn play(mut self) -> Result<(), Trouble> {
        let project = self.case.folder.join("project");
        let mut inputs = witnesses::Inputs::any(&mut self.case.random);
        inputs.write(&project)?;
        let first = self.run(&project)?;
        let new = |witness| Edit { witness, what: "new".into(), hidden: false };
        let all: Vec<Edit> = Witness::shuffled(&mut self.case.random).into_iter().map(new).collect();
        inputs.judge(self.frames, &project, &first, &all)?;
        for round in 0..ROUNDS {
            self.round(&project, &mut inputs, &all).map_err(|trouble| trouble.at(format!("round {round}")))?;
        }
        Ok(())
    }

    fn run(&self, project: &Path) -> Result<Ending, Trouble> {
        self.case.add("runs", 1);
        self.world.headwater.call(project, &["run", "--format", "json"])
    }

    fn round(&mut self, project: &Path, inputs: &mut witnesses::Inputs, all: &[Edit]) -> Result<(), Trouble> {
        let witnesses = Witness::shuffled(&mut self.case.random);
        let (edited, rest) = witnesses.split_at(EDITED);
        let mut edits = Vec::new();
        let settled = self.case.random.once_in(SETTLED) && self.settle(project)?;
        let late = if !settled && self.case.random.once_in(DISTURBED) { EDITED / 2 } else { 0 };
        for witness in &edited[late..] {
            edits.push(self.editor(project, inputs).edit(*witness, false)?);
        }
        if late > 0 {
            edits.extend(self.disturb(project, inputs, &edited[..late])?);
        }
        for witness in &rest[..TOUCHED] {
            self.editor(project, inputs).touch(*witness)?;
        }
        if settled {
            self.run_for_people(project)?;
        }
        let run = self.run(project)?;
        // What was edited has run before, then, and nothing is left to run.
        inputs.judge(self.frames, project, &run, if settled { &[] } else { &edits })?;
        self.case.add("edits", edits.len() as u64);
        self.case.add("with size and times kept", edits.iter().filter(|edit| edit.hidden).count() as u64);
        self.case.add("touches", TOUCHED as u64);
        if self.case.random.once_in(AFRESH) { self.afresh(inputs, all) } else { Ok(()) }
    }

    /// Whether a run has told by one look at each file that all is as it was.
    fn settle(&self, project: &Path) -> Result<bool, Trouble> {
        bring_back(project)?;
        thread::sleep(SETTLING);
        for _ in 0..2 {
            self.run(project)?;
        }
        self.run_for_people(project)?;
        let same = newest_journal(project)?.contains(r#""line":"same""#);
        self.case.add(SAME, u64::from(same));
        Ok(same)
    }

    fn run_for_people(&self, project: &Path) -> Result<(), Trouble> {
        let run = self.world.headwater.call(project, &["run"])?;
        self.case.add("runs", 1);
        if run.code == Some(0) { Ok(()) } else { Err(Trouble::violation(format!("it failed: {}", run.told()))) }
    }

    fn editor<'a>(&'a mut self, project: &'a Path, inputs: &'a mut witnesses::Inputs) -> Editor<'a> {
        Editor { project, aside: &self.case.folder, inputs, random: &mut self.case.random }
    }

    /// Edits while a run goes on, which may fail of it.
    fn disturb(
        &mut self,
        project: &Path,
        inputs: &mut witnesses::Inputs,
        edited: &[Witness],
    ) -> Result<Vec<Edit>, Trouble> {
        let mut command = self.world.headwater.command(project, &["run", "--format", "json"]);
        let pause = Duration::from_micros(self.case.random.below(40_000));
        let (run, edits) = thread::scope(|scope| {
            let running = scope.spawn(|| ending(&mut command));
            thread::sleep(pause);
            let edit = |witness: &Witness| self.editor(project, inputs).edit(*witness, true);
            let edits: Result<Vec<Edit>, Trouble> = edited.iter().map(edit).collect();
            (running.join().unwrap_or_else(|_| Err(Trouble::harness("a thread panicked"))), edits)
        });
        let (run, edits) = (run?, edits?);
        self.case.add("runs", 1);
        inputs.judge_disturbed(self.frames, &run, &edits)?;
        Ok(edits)
    }

    /// A run in a fresh project shows the same.
    fn afresh(&self, inputs: &witnesses::Inputs, all: &[Edit]) -> Result<(), Trouble> {
        let fresh = self.case.folder.join("fresh");
        inputs.write(&fresh)?;
        let run = self.world.headwater.call(&fresh, &["run", "--format", "json"])?;
        inputs.judge(self.frames, &fresh, &run, all).map_err(|trouble| trouble.at("in a fresh project"))?;
        self.case.add("runs in fresh projects", 1);
        remove(&fresh)
    }
}

/// Gives the present time to the files of a project whose times are ahead: of these no look tells enough.
fn bring_back(project: &Path) -> Result<(), Trouble> {
    let now = SystemTime::now();
    for entry in walkdir::WalkDir::new(project) {
        let entry = entry.map_err(|error| Trouble::harness(error.to_string()))?;
        if entry.file_type().is_file() && fs::metadata(entry.path())?.modified()? > now {
            fs::File::options().write(true).open(entry.path())?.set_modified(now)?;
        }
    }
    Ok(())
}

fn newest_journal(project: &Path) -> Result<String, Trouble> {
    let journals = fs::read_dir(project.join(".headwater/runs"))?.map(|entry| Ok(entry?.path()));
    let newest = journals.collect::<Result<BTreeSet<_>, Trouble>>()?.pop_last();
    Ok(fs::read_to_string(newest.unwrap_or_default())?)
}

fn pipeline(world: &World, case: &mut Case<'_>) -> Result<(), Trouble> {
    let project = case.folder.join("project");
    let mut inputs = Inputs::any(&mut case.random);
    world.begin(Base::Fresh, &project, &inputs)?;
    check(world, case, &project, &inputs)?;
    let mut done = Vec::new();
    for _ in 0..PIPELINE_EDITS {
        let how = *case.random.pick(&ALL);
        done.push(how);
        let before = inputs;
        edit(world, case, &project, &mut inputs, how)?;
        let checked = check(world, case, &project, &inputs);
        checked.map_err(|trouble| trouble.at(format!("{done:?}: {before:?} became {inputs:?}")))?;
        case.add(if how == How::Touched { "touches" } else { "edits" }, 1);
    }
    Ok(())
}

fn check(world: &World, case: &Case<'_>, project: &Path, inputs: &Inputs) -> Result<(), Trouble> {
    let run = world.headwater.call(project, &["run", "--format", "json"])?;
    case.add("runs", 1);
    world.oracles.of_runs(inputs)?.judge_run(project, &run)
}

fn edit(world: &World, case: &mut Case<'_>, project: &Path, inputs: &mut Inputs, how: How) -> Result<(), Trouble> {
    let random = &mut case.random;
    let file = random.below(FILES.len() as u64) as usize;
    let file = if how == How::Rewritten(Way::FolderSwapped) { 1 } else { file };
    let path = project.join(FILES[file]);
    if matches!(how, How::Rewritten(_) | How::WhileRunning) {
        inputs.contents[file] = other(inputs.contents[file], random);
    }
    let text = inputs.text(file);
    match how {
        How::OutChanged => return spoil(&project.join(random.pick(&OUTS))),
        How::OutRemoved => return Ok(fs::remove_file(project.join(random.pick(&OUTS)))?),
        How::WhileRunning => return while_running(world, project, &path, &text, random),
        How::Mode => inputs.executable = !inputs.executable,
        How::Param => inputs.seed = (inputs.seed + 1) % 3,
        How::Touched => return rewrite(&path, &text, Way::Plain, &case.folder),
        How::Rewritten(way) => return rewrite(&path, &text, way, &case.folder),
    }
    inputs.write(project)
}

/// Another content, mostly of the same length.
fn other(content: u64, random: &mut Random) -> u64 {
    let others: Vec<u64> = (0..CONTENTS).filter(|other| *other != content).collect();
    *random.pick(&others)
}

/// The run that is disturbed may fail; the next one may not.
fn while_running(world: &World, project: &Path, path: &Path, text: &str, random: &mut Random) -> Result<(), Trouble> {
    let kept = times(path)?;
    let mut command = world.headwater.command(project, &["run", "--format", "json", "--force", "joined"]);
    let running = thread::scope(|scope| {
        let running = scope.spawn(|| ending(&mut command));
        thread::sleep(Duration::from_micros(random.below(40_000)));
        fs::write(path, text)?;
        set_times(path, kept)?;
        running.join().unwrap_or_else(|_| Err(Trouble::harness("a thread panicked")))
    })?;
    running.broke_down().map_or(Ok(()), |broken| Err(Trouble::violation(broken)))
}
