//! Rows `verify` and `gc`: the store's own upkeep, for a binary that has it.
//!
//! `verify`: what `store verify --full` passes must be right without anything being run; what it finds, `--repair` and a run
//! must cure. `gc`: a collection killed at any call must leave a store with which runs are right.

use std::path::Path;

use crate::calls::Scope;
use crate::crew::{Case, Orders};
use crate::flips::{Damage, Template, inflict};
use crate::kills::spread;
use crate::pipeline::Pipeline;
use crate::score::{Score, Trouble};
use crate::subject::{Inputs, OUTS};
use crate::traced::{Act, Ending, Tracer};
use crate::world::{Base, World, copy};

/// The exit code of a store that cannot be opened at all.
const UNUSABLE: i32 = 1;

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
    let verify = ["store", "verify", "--full", "--format", "json"];
    let found = headwater.call(folder, &verify)?;
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
        headwater.call(folder, &["store", "verify", "--repair", "--format", "json"])?;
    }
    for out in OUTS {
        std::fs::remove_file(folder.join(out))?;
    }
    let run = headwater.call(folder, &["run", "--format", "json"])?;
    oracle.judge_run(folder, &run)?;
    if passed && !run.with(&["ran"]).is_empty() && leaves_traces(damage) {
        return Err(Trouble::violation(format!(
            "`verify` passed a store in which things were missing: {}",
            run.told()
        )));
    }
    let cured = headwater.call(folder, &verify)?;
    if cured.code != Some(0) {
        let (found, cured) = (found.out, cured.out + &cured.err);
        return Err(Trouble::violation(format!("not clean after --repair and a run: {cured}, found before: {found}")));
    }
    oracle.judge_all(headwater, folder)
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
