//! Row `kill`: SIGKILL before every call that changes or locks a file, in the middle of writes, and in the recovery.
//!
//! The calls are counted over all threads of the run and its commands. After the kill, commands that were under way are
//! held; the next run must succeed with nothing done by hand, give what an undisturbed run gives, and not run a stage again
//! whose end had been reported; then the held commands go on, and must disturb nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::calls::Scope;
use crate::crew::{Case, Orders};
use crate::random::Random;
use crate::score::{Score, Trouble};
use crate::subject::Inputs;
use crate::traced::{Act, Call, Ending, Tracer};
use crate::world::{Base, World};

/// Where a run is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// Before a call.
    Before,
    /// After the first half of a write.
    HalfWrite,
    /// Before a call, and the next run too.
    Twice,
}

/// How a case is done; each is swept over all points.
#[derive(Debug, Clone, Copy)]
struct Flavor {
    base: Base,
    jobs: &'static str,
    style: Style,
}

const fn flavor(base: Base, jobs: &'static str, style: Style) -> Flavor {
    Flavor { base, jobs, style }
}

const FLAVORS: [Flavor; 8] = [
    flavor(Base::Fresh, "1", Style::Before),
    flavor(Base::Edited, "1", Style::Before),
    flavor(Base::Fresh, "3", Style::Before),
    flavor(Base::Edited, "3", Style::Before),
    flavor(Base::Fresh, "1", Style::HalfWrite),
    flavor(Base::Edited, "1", Style::HalfWrite),
    flavor(Base::Fresh, "1", Style::Twice),
    flavor(Base::Edited, "1", Style::Twice),
];

/// So many edits are looked at to find one that makes much run.
pub const EDITS_COUNTED: u64 = 8;

/// How many points an undisturbed run has.
#[derive(Debug, Clone, Copy, Default)]
struct Points {
    calls: u64,
    writes: u64,
}

/// Point `at` of `all`, if `count` cases are to be spread over them evenly; all of them, if there are enough cases.
pub fn spread(at: u64, count: u64, all: u64, random: &mut Random) -> u64 {
    if count >= all {
        return at % all.max(1);
    }
    let (from, to) = (at * all / count, (at + 1) * all / count);
    from + random.below(to - from)
}

/// Runs the row.
///
/// # Errors
/// If no undisturbed run can be had.
pub fn row(world: &World, orders: &Orders, default: Option<u64>) -> Result<Score, Trouble> {
    let points = [points(world, orders, Base::Fresh)?, points(world, orders, Base::Edited)?];
    let most = points.iter().map(|points| points.calls).max().unwrap_or(0);
    let count = orders.count.or(default).unwrap_or(most * FLAVORS.len() as u64);
    let mut score = Score::new("kill", orders.command("kill", count));
    for name in ["kills", "points", "reported stages run again", "surviving tasks", "litter", "ended before"] {
        score.add(name, 0);
    }
    score.add("points", points.iter().map(|points| points.calls).sum());
    let flavors = FLAVORS.len() as u64;
    Ok(orders.deal(
        score,
        count,
        |_| Ok(Tracer::default()),
        |tracer, case| {
            let flavor = FLAVORS[(case.number % flavors) as usize];
            let Points { calls, writes } = points[usize::from(flavor.base == Base::Edited)];
            let all = if flavor.style == Style::HalfWrite { writes } else { calls };
            let point = spread(case.number / flavors, count.div_ceil(flavors), all, &mut case.random);
            let second = (flavor.style == Style::Twice).then(|| case.random.below(calls));
            let judged = one(world, tracer, case, flavor, point, second);
            let survivors = tracer.release()?;
            let place = format!("{flavor:?}, point {point}, then {second:?}");
            judged.map_err(|trouble| trouble.at(&place))?;
            case.add("surviving tasks", survivors.len() as u64);
            if !survivors.is_empty() {
                return Err(Trouble::violation(format!("tasks outlived the killed run: {survivors:?}")).at(place));
            }
            after_release(world, case, flavor).map_err(|trouble| trouble.at(place))
        },
    ))
}

/// The most that a run of this base has, whichever input was edited.
fn points(world: &World, orders: &Orders, base: Base) -> Result<Points, Trouble> {
    let mut most = Points::default();
    for edit in 0..EDITS_COUNTED {
        let folder = orders.make_folder("points")?;
        let (project, inputs) = (folder.join("project"), base.inputs(&mut Random::of(edit, 1)));
        world.begin(base, &project, &inputs)?;
        let mut writes = 0;
        let ended = Tracer::default().run(&run(world, &project, "1"), Scope::Changing, &folder, |call| {
            writes += u64::from(call.length().is_some());
            Act::Pass
        })?;
        world.oracles.of(&inputs)?.judge_run(&project, &ended).map_err(|trouble| trouble.at("a traced run"))?;
        most = Points { calls: most.calls.max(ended.calls), writes: most.writes.max(writes) };
    }
    Ok(most)
}

fn run(world: &World, project: &Path, jobs: &str) -> Command {
    world.headwater.command(project, &["run", "--format", "json", "-j", jobs])
}

/// Kills before call `point`, or in the write of that number.
fn killer(point: u64, half: bool) -> impl FnMut(&Call) -> Act {
    let mut writes = 0;
    move |call| {
        if !half {
            return if call.number == point { Act::Kill } else { Act::Pass };
        }
        writes += u64::from(call.length().is_some());
        if call.length().is_some() && writes == point + 1 { Act::HalfThenKill } else { Act::Pass }
    }
}

/// The inputs of a case; the same at each call.
fn inputs(case: &Case<'_>, base: Base) -> Inputs {
    base.inputs(&mut Random::of(case.number, 1))
}

fn one(
    world: &World,
    tracer: &mut Tracer,
    case: &Case<'_>,
    flavor: Flavor,
    point: u64,
    second: Option<u64>,
) -> Result<(), Trouble> {
    let (project, inputs) = (case.folder.join("project"), inputs(case, flavor.base));
    world.begin(flavor.base, &project, &inputs)?;
    let oracle = world.oracles.of(&inputs)?;
    let command = run(world, &project, flavor.jobs);
    let half = flavor.style == Style::HalfWrite;
    let mut reported = BTreeSet::new();
    let first = tracer.run(&command, Scope::Changing, &case.folder, killer(point, half))?;
    let mut place = struck(case, &first);
    oracle.judge_reported(&first).map_err(|trouble| trouble.at(&place))?;
    reported.extend(first.done());
    if let Some(second) = second {
        let next = tracer.run(&command, Scope::Changing, &case.folder, killer(second, false))?;
        place = format!("{place}, {}", struck(case, &next));
        oracle.judge_reported(&next).map_err(|trouble| trouble.at(&place))?;
        again(case, &reported, &next).map_err(|trouble| trouble.at(&place))?;
        reported.extend(next.done());
    }
    let recovery = world.headwater.call(&project, &["run", "--format", "json"])?;
    let judged = oracle.judge_run(&project, &recovery).and_then(|()| again(case, &reported, &recovery));
    judged.map_err(|trouble| trouble.at(place))
}

fn struck(case: &Case<'_>, ending: &Ending) -> String {
    match &ending.hit {
        Some(hit) => {
            case.add("kills", 1);
            format!("killed at {hit}")
        }
        None => {
            case.add("ended before", 1);
            "not killed".to_owned()
        }
    }
}

/// What had been reported as done must not run again.
fn again(case: &Case<'_>, reported: &BTreeSet<String>, run: &Ending) -> Result<(), Trouble> {
    let ran = run.with(&["ran"]);
    let again: Vec<_> = ran.intersection(reported).collect();
    case.add("reported stages run again", again.len() as u64);
    if again.is_empty() {
        Ok(())
    } else {
        Err(Trouble::violation(format!("{again:?} had been reported, and ran again")))
    }
}

/// What was left to the supervisors of the killed run must have disturbed nothing.
fn after_release(world: &World, case: &Case<'_>, flavor: Flavor) -> Result<(), Trouble> {
    let (project, inputs) = (case.folder.join("project"), inputs(case, flavor.base));
    let oracle = world.oracles.of(&inputs)?;
    oracle.judge_outs(&project)?;
    if case.number % 16 < FLAVORS.len() as u64 / 8 {
        oracle.judge_all(&world.headwater, &project)?;
    }
    case.add("litter", litter(&project));
    Ok(())
}

/// Files and folders that a killed run left and the next one should have removed.
fn litter(project: &Path) -> u64 {
    let entries = walkdir::WalkDir::new(project.join(".headwater")).into_iter().filter_map(Result::ok);
    let is_litter = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.ends_with(".tmp") || entry.path().parent().is_some_and(|parent| parent.ends_with(".headwater/work"))
    };
    entries.filter(is_litter).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_enough_cases_every_point_is_struck_and_with_few_they_are_spread() {
        let mut random = Random::of(1, 1);
        let all: BTreeSet<u64> = (0..30).map(|at| spread(at, 30, 30, &mut random)).collect();
        assert_eq!(all.len(), 30);
        for at in 0..10 {
            assert_eq!(spread(at, 10, 100, &mut random) / 10, at);
        }
    }
}
