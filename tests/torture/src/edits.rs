//! Row `edits`: files of a project are edited in all ways that hide an edit; a run must see every one of them.
//!
//! After each edit a run must give what a run in a fresh project gives. Same size and same times, clocks that go back,
//! renames, hard links, modes, older files put in place, outs changed behind the back, edits while a run goes on.

use std::fs::{self, File, FileTimes};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::crew::{Case, Orders};
use crate::random::Random;
use crate::score::{Score, Trouble};
use crate::subject::{CONTENTS, FILES, Inputs, OUTS};
use crate::world::{Base, World};

/// How many edits a case makes in its project, one after the other.
const EDITS: u64 = 10;

/// How an edit is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Written over, as an editor does.
    Plain,
    /// The times are set back to what they were.
    SameTimes,
    /// The times are long ago, or to come.
    Back,
    Ahead,
    /// Another file is renamed over it, with the times of the old one.
    Renamed,
    /// An older file is moved in its place.
    Older,
    /// It is made a hard link to a file elsewhere.
    Linked,
    /// It is written by its other name, outside of the project, and the times are set back.
    ByOtherName,
    /// Removed and made anew at once, which may give it the same inode.
    Anew,
    /// Nothing but the time changes.
    Touched,
    Mode,
    /// The folder is renamed and another one put in its place.
    FolderSwapped,
    /// An out is changed, times set back.
    OutChanged,
    OutRemoved,
    /// The edit is made while a run goes on.
    WhileRunning,
    /// The param changes.
    Param,
}

const WAYS: [Way; 16] = [
    Way::Plain,
    Way::SameTimes,
    Way::Back,
    Way::Ahead,
    Way::Renamed,
    Way::Older,
    Way::Linked,
    Way::ByOtherName,
    Way::Anew,
    Way::Touched,
    Way::Mode,
    Way::FolderSwapped,
    Way::OutChanged,
    Way::OutRemoved,
    Way::WhileRunning,
    Way::Param,
];

/// Runs the row; `count` is of edits.
///
/// # Errors
/// If no undisturbed run can be had.
pub fn row(world: &World, orders: &Orders, default: u64) -> Result<Score, Trouble> {
    let count = orders.count.unwrap_or(default);
    let mut score = Score::new("edits", orders.command("edits", count));
    for name in ["edits", "runs"] {
        score.add(name, 0);
    }
    Ok(orders.deal(score, count.div_ceil(EDITS), |_| Ok(()), |(), case| one(world, case)))
}

fn one(world: &World, case: &mut Case<'_>) -> Result<(), Trouble> {
    let project = case.folder.join("project");
    let mut inputs = Inputs::any(&mut case.random);
    world.begin(Base::Fresh, &project, &inputs)?;
    check(world, case, &project, &inputs)?;
    let mut ways = Vec::new();
    for _ in 0..EDITS {
        let way = *case.random.pick(&WAYS);
        ways.push(way);
        let before = inputs;
        edit(world, case, &project, &mut inputs, way)?;
        case.add("edits", 1);
        let checked = check(world, case, &project, &inputs);
        checked.map_err(|trouble| trouble.at(format!("{ways:?}: {before:?} became {inputs:?}")))?;
    }
    Ok(())
}

fn check(world: &World, case: &Case<'_>, project: &Path, inputs: &Inputs) -> Result<(), Trouble> {
    let run = world.headwater.call(project, &["run", "--format", "json"])?;
    case.add("runs", 1);
    world.oracles.of_runs(inputs)?.judge_run(project, &run)
}

fn edit(world: &World, case: &mut Case<'_>, project: &Path, inputs: &mut Inputs, way: Way) -> Result<(), Trouble> {
    let random = &mut case.random;
    let file = random.below(FILES.len() as u64) as usize;
    let file = if way == Way::FolderSwapped { 1 } else { file };
    let path = project.join(FILES[file]);
    let keeps = matches!(way, Way::Touched | Way::Mode | Way::OutChanged | Way::OutRemoved | Way::Param);
    if !keeps {
        inputs.contents[file] = other(inputs.contents[file], random);
    }
    let text = inputs.text(file);
    match way {
        Way::OutChanged => return change_out(project, random),
        Way::OutRemoved => return Ok(fs::remove_file(project.join(random.pick(&OUTS)))?),
        Way::WhileRunning => return while_running(world, project, &path, &text, random),
        Way::Mode => inputs.executable = !inputs.executable,
        Way::Param => inputs.seed = (inputs.seed + 1) % 3,
        _ => return rewrite(&path, &text, way, &case.folder),
    }
    inputs.write(project)
}

/// Another content, mostly of the same length.
fn other(content: u64, random: &mut Random) -> u64 {
    let others: Vec<u64> = (0..CONTENTS).filter(|other| *other != content).collect();
    *random.pick(&others)
}

/// Gives a file a new text by this way. `aside` is a folder outside of the project.
fn rewrite(path: &Path, text: &str, way: Way, aside: &Path) -> Result<(), Trouble> {
    let (times, mode) = (times(path)?, fs::metadata(path)?.permissions());
    let far = Duration::from_secs(400 * 24 * 3600);
    let new = aside.join("new");
    match way {
        Way::Renamed | Way::Older => {
            fs::write(&new, text)?;
            let times = if way == Way::Older { at(SystemTime::now() - far) } else { times };
            set_times(&new, times)?;
            fs::rename(&new, path)?;
        }
        Way::Linked | Way::ByOtherName => {
            let _ = fs::remove_file(&new);
            if way == Way::Linked {
                fs::write(&new, text)?;
                fs::remove_file(path)?;
                fs::hard_link(&new, path)?;
            } else {
                fs::hard_link(path, &new)?;
                fs::write(&new, text)?;
            }
            set_times(&new, times)?;
            fs::remove_file(&new)?;
        }
        Way::Anew => {
            fs::remove_file(path)?;
            fs::write(path, text)?;
            set_times(path, times)?;
        }
        Way::FolderSwapped => swap_folder(path, text, aside)?,
        _ => fs::write(path, text)?,
    }
    if fs::metadata(path)?.permissions() != mode {
        fs::set_permissions(path, mode)?;
    }
    match way {
        Way::SameTimes => set_times(path, times),
        Way::Back => set_times(path, at(SystemTime::now() - far)),
        Way::Ahead => set_times(path, at(SystemTime::now() + far)),
        _ => Ok(()),
    }
}

/// Puts a copy of the file's folder, with the new text in it, in the folder's place.
fn swap_folder(path: &Path, text: &str, aside: &Path) -> Result<(), Trouble> {
    let (folder, copied, old) = (path.parent().unwrap_or(path), aside.join("folder"), aside.join("old"));
    crate::world::copy(folder, &copied)?;
    let twin: PathBuf = copied.join(path.file_name().unwrap_or_default());
    fs::write(&twin, text)?;
    set_times(&twin, times(path)?)?;
    fs::rename(folder, &old)?;
    fs::rename(&copied, folder)?;
    crate::crew::remove(&old)
}

/// The same number of other bytes, and the same times.
fn change_out(project: &Path, random: &mut Random) -> Result<(), Trouble> {
    let out = project.join(random.pick(&OUTS));
    let mut bytes = fs::read(&out)?;
    let kept = times(&out)?;
    if let Some(byte) = bytes.first_mut() {
        *byte ^= 1;
    }
    fs::write(&out, bytes)?;
    set_times(&out, kept)
}

/// The run that is disturbed may fail; the next one may not.
fn while_running(world: &World, project: &Path, path: &Path, text: &str, random: &mut Random) -> Result<(), Trouble> {
    let kept = times(path)?;
    let mut command = world.headwater.command(project, &["run", "--format", "json", "--force", "joined"]);
    let running = thread::scope(|scope| {
        let running = scope.spawn(|| crate::headwater::ending(&mut command));
        thread::sleep(Duration::from_micros(random.below(40_000)));
        fs::write(path, text)?;
        set_times(path, kept)?;
        running.join().unwrap_or_else(|_| Err(Trouble::harness("a thread panicked")))
    })?;
    running.broke_down().map_or(Ok(()), |broken| Err(Trouble::violation(broken)))
}

fn at(time: SystemTime) -> FileTimes {
    FileTimes::new().set_modified(time).set_accessed(time)
}

fn times(path: &Path) -> Result<FileTimes, Trouble> {
    let about = fs::metadata(path)?;
    Ok(FileTimes::new().set_modified(about.modified()?).set_accessed(about.accessed()?))
}

fn set_times(path: &Path, times: FileTimes) -> Result<(), Trouble> {
    Ok(File::options().write(true).open(path)?.set_times(times)?)
}
