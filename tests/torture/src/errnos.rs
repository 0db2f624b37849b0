//! Row `errno`: one call of a run on a file of the project fails with one error, or a write writes only half.
//!
//! The calls are those of the program itself on files of the project and its store, reading ones included. It may go on as
//! if nothing had happened, and be right; or fail, and say in which file. The next run, undisturbed, must be right.

use std::path::Path;

use nix::errno::Errno;

use crate::calls::Scope;
use crate::crew::{Case, Orders};
use crate::kills::{EDITS_COUNTED, spread};
use crate::oracle::Oracle;
use crate::random::Random;
use crate::score::{Score, Trouble};
use crate::traced::{Act, Call, Ending, Hit, Tracer};
use crate::world::{Base, World};

const ERRORS: [Errno; 10] = [
    Errno::EIO,
    Errno::ENOSPC,
    Errno::EINTR,
    Errno::EAGAIN,
    Errno::EMFILE,
    Errno::EACCES,
    Errno::ENOENT,
    Errno::ESTALE,
    Errno::EDQUOT,
    Errno::EROFS,
];

/// Of so many cases one writes half instead of failing.
const FLAVORS: u64 = ERRORS.len() as u64 + 1;

const HONEST: &str = "honest errors that name the path";

const BASES: [Base; 2] = [Base::Fresh, Base::Edited];

/// Runs the row.
///
/// # Errors
/// If no undisturbed run can be had.
pub fn row(world: &World, orders: &Orders, default: Option<u64>) -> Result<Score, Trouble> {
    let points = [points(world, orders, Base::Fresh)?, points(world, orders, Base::Edited)?];
    let most = points[0].0.max(points[1].0);
    let count = orders.count.or(default).unwrap_or(most * FLAVORS * 2);
    let mut score = Score::new("errno", orders.command("errno", count));
    for name in ["errors", "points", "went on and was right", HONEST] {
        score.add(name, 0);
    }
    score.add("points", points[0].0 + points[1].0);
    Ok(orders.deal(
        score,
        count,
        |_| Ok(Tracer::default()),
        |tracer, case| {
            let flavor = case.number % FLAVORS;
            let base = BASES[(case.number / FLAVORS % 2) as usize];
            let (calls, writes) = points[usize::from(base == Base::Edited)];
            let act = ERRORS.get(flavor as usize).map_or(Act::Half, |errno| Act::Fail(*errno));
            let all = if act == Act::Half { writes } else { calls };
            let point = spread(case.number / FLAVORS / 2, count.div_ceil(FLAVORS * 2), all, &mut case.random);
            let judged = one(world, tracer, case, base, act, point);
            tracer.release()?;
            judged.map_err(|trouble| trouble.at(format!("{act:?}, {base:?}")))
        },
    ))
}

/// How many calls of an undisturbed run are ours, and how many of them write: the most, whichever input was edited.
fn points(world: &World, orders: &Orders, base: Base) -> Result<(u64, u64), Trouble> {
    let mut most = (0, 0);
    for edit in 0..EDITS_COUNTED {
        let folder = orders.make_folder("points")?;
        let (project, inputs) = (folder.join("project"), base.inputs(&mut Random::of(edit, 1)));
        world.begin(base, &project, &inputs)?;
        let (mut calls, mut writes) = (0, 0);
        let command = world.headwater.command(&project, &["run", "--format", "json", "-j", "1"]);
        Tracer::default().run(&command, Scope::All, &folder, |call| {
            if is_ours(call, &project) {
                calls += 1;
                writes += u64::from(call.length().is_some());
            }
            Act::Pass
        })?;
        most = (most.0.max(calls), most.1.max(writes));
    }
    Ok(most)
}

fn is_ours(call: &Call, project: &Path) -> bool {
    call.own && call.target().is_some_and(|target| target.starts_with(project))
}

fn one(world: &World, tracer: &mut Tracer, case: &Case<'_>, base: Base, act: Act, point: u64) -> Result<(), Trouble> {
    let (project, inputs) = (case.folder.join("project"), base.inputs(&mut Random::of(case.number, 1)));
    world.begin(base, &project, &inputs)?;
    let oracle = world.oracles.of(&inputs)?;
    let command = world.headwater.command(&project, &["run", "--format", "json", "-j", "1"]);
    let mut number = 0;
    let ended = tracer.run(&command, Scope::All, &case.folder, |call| {
        let counts = is_ours(call, &project) && can(call, act);
        number += u64::from(counts);
        if counts && number == point + 1 { act } else { Act::Pass }
    })?;
    let Some(hit) = &ended.hit else { return oracle.judge_run(&project, &ended) };
    case.add("errors", 1);
    let place = hit.to_string();
    judge(case, &oracle, &project, &ended, hit).map_err(|trouble| trouble.at(&place))?;
    let next = world.headwater.call(&project, &["run", "--format", "json"])?;
    oracle.judge_run(&project, &next).map_err(|trouble| trouble.at(format!("{place}, the next run")))
}

/// Whether a call can end so.
fn can(call: &Call, act: Act) -> bool {
    match act {
        Act::Half => call.length().is_some(),
        // The kernel says so of a folder that was removed while it was open, and libc makes an end of the list of it, as
        // POSIX wants: no program can tell it from an empty folder.
        Act::Fail(Errno::ENOENT) => call.kind.name != "getdents64",
        _ => true,
    }
}

fn judge(case: &Case<'_>, oracle: &Oracle, project: &Path, ended: &Ending, hit: &Hit) -> Result<(), Trouble> {
    if ended.late {
        return Err(Trouble::violation("it hung"));
    }
    if let Some(broken) = ended.broke_down() {
        return Err(Trouble::violation(broken));
    }
    if ended.code == Some(0) {
        case.add("went on and was right", 1);
        return oracle.judge_run(project, ended);
    }
    oracle.judge_reported(ended)?;
    if !names(&ended.message(), hit, project) {
        return Err(Trouble::violation(format!("the message does not name the path: {}", ended.told())));
    }
    case.add(HONEST, 1);
    Ok(())
}

/// Whether a message names the file that failed, by its path, or by that of the file that it was to become; an out that a
/// command makes is known by where it will stand.
fn names(message: &str, hit: &Hit, project: &Path) -> bool {
    let paths = [&hit.path, &hit.destination].into_iter().flatten();
    paths.map(|path| shown(path, project)).any(|shown| message.contains(&*shown.to_string_lossy()))
}

fn shown<'a>(path: &'a Path, project: &Path) -> &'a Path {
    let Some(inside) = path.strip_prefix(project).ok().filter(|inside| !inside.as_os_str().is_empty()) else {
        return path;
    };
    let command = || {
        let mut names = inside.strip_prefix(".headwater/work").ok()?.iter();
        names.nth(1)?;
        (names.next()? == "project").then_some(names.as_path())
    };
    command().unwrap_or(inside)
}
