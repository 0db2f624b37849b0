//! Rows `verify`, `repair` and `gc`: the store's own upkeep, for a binary that has it.
//!
//! `verify`: what `store verify --full` passes must be right without anything being run; what it finds, `--repair` and a run
//! must cure. `repair`: a repair of a damaged store killed at any call must leave one with which runs are right, and which
//! the next repair cures. `gc`: the same of collections.

use std::path::{Path, PathBuf};

use crate::calls::Scope;
use crate::crew::{Case, Orders, remove};
use crate::flips::{Damage, Template, inflict};
use crate::kills::spread;
use crate::pipeline::Pipeline;
use crate::score::{Score, Trouble};
use crate::subject::{Inputs, OUTS};
use crate::traced::{Act, Ending, Tracer};
use crate::world::{Base, World, copy};

/// The exit code of a store that cannot be opened at all.
const UNUSABLE: i32 = 1;

const VERIFY: [&str; 5] = ["store", "verify", "--full", "--format", "json"];
const REPAIR: [&str; 5] = ["store", "verify", "--repair", "--format", "json"];

/// What the last run did not use goes.
pub const COLLECT: [&str; 4] = ["store", "gc", "--keep-last", "1"];

fn missing(world: &World, verb: &str, score: &mut Score) -> bool {
    let missing = !world.headwater.store_verbs.contains(verb);
    if missing {
        score.take(0, Trouble::Skipped(format!("this binary has no `store {verb}`")));
    }
    missing
}

/// Damages a finished store, and has it verified.
///
/// # Errors
/// If there is no undisturbed store.
pub fn verify(world: &World, orders: &Orders, default: u64) -> Result<Score, Trouble> {
    let count = orders.count.unwrap_or(default);
    let mut score = Score::new("verify", orders.command("verify", count));
    if missing(world, "verify", &mut score) {
        return Ok(score);
    }
    for name in ["damages", "found", "harmless", "refused in words"] {
        score.add(name, 0);
    }
    let template = Template::make(&Pipeline { world }, "store", orders.make_folder("verify")?)?;
    Ok(orders.deal(score, count, |_| Ok(()), |(), case| verify_one(world, case, &template)))
}

fn verify_one(world: &World, case: &mut Case<'_>, template: &Template) -> Result<(), Trouble> {
    let folder = case.folder.join("project");
    copy(&template.folder, &folder)?;
    let ((file, _), damage) = template.choose(&mut case.random);
    let kept = folder.join(".headwater/store");
    let other = kept.join(&case.random.pick(&template.files).0);
    let place = format!("{damage:?} of {}", file.display());
    inflict(damage, &kept.join(file), &other)?;
    case.add("damages", 1);
    judge_verify(world, case, &folder, damage).map_err(|trouble| trouble.at(place))
}

/// Whether a store can tell that something was there before: of what is gone as a whole, or from its end, it cannot.
fn leaves_traces(damage: Damage) -> bool {
    matches!(damage, Damage::Flip(_) | Damage::ZeroTail(_) | Damage::Grow)
}

fn judge_verify(world: &World, case: &Case<'_>, folder: &Path, damage: Damage) -> Result<(), Trouble> {
    let (headwater, oracle) = (&world.headwater, world.oracles.of(&Inputs::default())?);
    let found = headwater.call(folder, &VERIFY)?;
    if let Some(broken) = found.broke_down() {
        return Err(Trouble::violation(broken));
    }
    if found.code == Some(UNUSABLE) {
        case.add("refused in words", 1);
        let silent = found.message().trim().is_empty();
        return if silent { Err(Trouble::violation("refused without a word")) } else { Ok(()) };
    }
    let passed = found.code == Some(0);
    case.add(if passed { "harmless" } else { "found" }, 1);
    if !passed {
        headwater.call(folder, &REPAIR)?;
    }
    remove_outs(folder)?;
    let run = headwater.call(folder, &["run", "--format", "json"])?;
    oracle.judge_run(folder, &run)?;
    if passed && !run.with(&["ran"]).is_empty() && leaves_traces(damage) {
        return Err(Trouble::violation(format!(
            "`verify` passed a store in which things were missing: {}",
            run.told()
        )));
    }
    judge_cured(world, folder, &found)
}

fn remove_outs(folder: &Path) -> Result<(), Trouble> {
    OUTS.iter().try_for_each(|out| Ok(std::fs::remove_file(folder.join(out))?))
}

/// After a repair and a run there is no damage, and everything can be had.
fn judge_cured(world: &World, folder: &Path, found: &Ending) -> Result<(), Trouble> {
    let cured = world.headwater.call(folder, &VERIFY)?;
    if cured.code != Some(0) {
        let (found, cured) = (&found.out, cured.out + &cured.err);
        return Err(Trouble::violation(format!("not clean after --repair and a run: {cured}, found before: {found}")));
    }
    world.oracles.of(&Inputs::default())?.judge_all(&world.headwater, folder)
}

/// Kills repairs, each at every call.
///
/// # Errors
/// If there is no undisturbed store.
pub fn repair(world: &World, orders: &Orders, default: u64) -> Result<Score, Trouble> {
    let count = orders.count.unwrap_or(default);
    let mut score = Score::new("repair", orders.command("repair", count));
    if missing(world, "verify", &mut score) {
        return Ok(score);
    }
    for name in ["damaged stores", "of which found", "refused in words", "kills", "ended before"] {
        score.add(name, 0);
    }
    let template = Template::make(&Pipeline { world }, "store", orders.make_folder("repair")?)?;
    let one = |tracer: &mut Tracer, case: &mut Case<'_>| Repairs::choose(world, case, &template).sweep(tracer);
    Ok(orders.deal(score, count, |_| Ok(Tracer::default()), one))
}

/// A damage, and all repairs of it that are killed.
struct Repairs<'a> {
    world: &'a World,
    case: &'a Case<'a>,
    template: &'a Template,
    /// File, what is done to it, and a second file.
    damages: Vec<(PathBuf, Damage, PathBuf)>,
}

impl<'a> Repairs<'a> {
    /// One damage of any kind, and half of the time bits flipped in another file.
    fn choose(world: &'a World, case: &'a mut Case<'_>, template: &'a Template) -> Self {
        let ((file, _), damage) = template.choose(&mut case.random);
        let other = &case.random.pick(&template.files).0;
        let mut damages = vec![(file.clone(), damage, other.clone())];
        let (next, bytes) = case.random.pick(&template.files);
        if *bytes > 0 && next != file && next != other && case.random.once_in(2) {
            damages.push((next.clone(), Damage::Flip(case.random.below(bytes * 8)), other.clone()));
        }
        Self { world, case, template, damages }
    }

    fn sweep(&self, tracer: &mut Tracer) -> Result<(), Trouble> {
        self.sweep_all(tracer).map_err(|trouble| trouble.at(format!("{:?}", self.damages)))
    }

    fn sweep_all(&self, tracer: &mut Tracer) -> Result<(), Trouble> {
        let project = self.case.folder.join("project");
        self.damage(&project)?;
        let found = self.world.headwater.call(&project, &VERIFY)?;
        self.case.add("damaged stores", 1);
        if found.code == Some(UNUSABLE) {
            self.case.add("refused in words", 1);
            return Ok(());
        }
        self.case.add("of which found", u64::from(found.code != Some(0)));
        let calls = self.mend(tracer, &project, u64::MAX)?.calls;
        for point in 0..calls {
            self.damage(&project)?;
            let killed = self.mend(tracer, &project, point);
            tracer.release()?;
            self.case.add(if killed?.hit.is_some() { "kills" } else { "ended before" }, 1);
            let judged = judge_repaired(self.world, &project, &found);
            judged.map_err(|trouble| trouble.at(format!("killed at point {point} of {calls}")))?;
        }
        Ok(())
    }

    /// Puts a damaged store in a project's place.
    fn damage(&self, project: &Path) -> Result<(), Trouble> {
        remove(project)?;
        copy(&self.template.folder, project)?;
        let kept = project.join(".headwater/store");
        let one =
            |(file, damage, other): &(PathBuf, Damage, PathBuf)| inflict(*damage, &kept.join(file), &kept.join(other));
        self.damages.iter().try_for_each(one)
    }

    fn mend(&self, tracer: &mut Tracer, project: &Path, point: u64) -> Result<Ending, Trouble> {
        let command = self.world.headwater.command(project, &REPAIR);
        let kill = |number| if number == point { Act::Kill } else { Act::Pass };
        tracer.run(&command, Scope::Changing, &self.case.folder, |call| kill(call.number))
    }
}

/// A run over what a killed repair left is right, with nothing done by hand; then another repair and a run cure it.
fn judge_repaired(world: &World, project: &Path, found: &Ending) -> Result<(), Trouble> {
    let oracle = world.oracles.of(&Inputs::default())?;
    let verified = world.headwater.call(project, &VERIFY)?;
    if verified.code == Some(UNUSABLE) || verified.broke_down().is_some() {
        return Err(Trouble::violation(format!("`verify` after the kill: {}", verified.told())));
    }
    remove_outs(project)?;
    let run = world.headwater.call(project, &["run", "--format", "json"])?;
    oracle.judge_run(project, &run)?;
    world.headwater.call(project, &REPAIR)?;
    let run = world.headwater.call(project, &["run", "--format", "json"])?;
    oracle.judge_run(project, &run)?;
    judge_cured(world, project, found)
}

/// Kills collections.
///
/// # Errors
/// If no undisturbed collection can be had.
pub fn gc(world: &World, orders: &Orders, default: u64) -> Result<Score, Trouble> {
    let count = orders.count.unwrap_or(default);
    let mut score = Score::new("gc", orders.command("gc", count));
    if missing(world, "gc", &mut score) {
        return Ok(score);
    }
    ["kills", "ended before"].iter().for_each(|figure| score.add(figure, 0));
    let folder = orders.make_folder("points")?;
    let project = folder.join("project");
    littered(world, &project)?;
    let calls = collect(world, &mut Tracer::default(), &project, &folder, u64::MAX)?.calls;
    score.add("points", calls);
    Ok(orders.deal(
        score,
        count,
        |_| Ok(Tracer::default()),
        |tracer, case| {
            let project = case.folder.join("project");
            littered(world, &project)?;
            let point = spread(case.number, count, calls, &mut case.random);
            let collected = collect(world, tracer, &project, &case.folder, point);
            tracer.release()?;
            case.add(if collected?.hit.is_some() { "kills" } else { "ended before" }, 1);
            judge_collected(world, &project).map_err(|trouble| trouble.at(format!("killed at point {point}")))
        },
    ))
}

/// A project with results of inputs that it no longer has.
fn littered(world: &World, project: &Path) -> Result<(), Trouble> {
    let edited = Inputs { contents: [1, 1, 0], ..Inputs::default() };
    world.begin(Base::Edited, project, &edited)?;
    let run = world.headwater.call(project, &["run", "--format", "json"])?;
    world.oracles.of(&edited)?.judge_run(project, &run)
}

fn collect(world: &World, tracer: &mut Tracer, project: &Path, folder: &Path, point: u64) -> Result<Ending, Trouble> {
    let command = world.headwater.command(project, &COLLECT);
    let kill = |number| if number == point { Act::Kill } else { Act::Pass };
    let ended = tracer.run(&command, Scope::Changing, folder, |call| kill(call.number))?;
    match ended.hit.is_none() && ended.code != Some(0) {
        true => Err(Trouble::violation(format!("`store gc`: {}", ended.told()))),
        false => Ok(ended),
    }
}

/// Runs of the present and of the former inputs are right, and another collection ends well.
fn judge_collected(world: &World, project: &Path) -> Result<(), Trouble> {
    let former = Inputs::default();
    let present = Inputs { contents: [1, 1, 0], ..former };
    for (at, inputs) in [present, former, present].iter().enumerate() {
        if at == 1 {
            collect(world, &mut Tracer::default(), project, project.parent().unwrap_or(project), u64::MAX)?;
        }
        inputs.write(project)?;
        let run = world.headwater.call(project, &["run", "--format", "json"])?;
        world.oracles.of(inputs)?.judge_run(project, &run)?;
    }
    Ok(())
}
