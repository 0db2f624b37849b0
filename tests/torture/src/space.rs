//! Row `space`: a run on a file system with so much room left, from none to more than enough.
//!
//! It may fail, and say for want of what and where; a collection goes on though nothing can be written; and with room again the
//! next run is right.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::statfs;

use crate::crew::{Case, Orders};
use crate::kills::spread;
use crate::oracle::Oracle;
use crate::random::Random;
use crate::score::{Score, Trouble, during};
use crate::traced::Ending;
use crate::world::{Base, World};

const BASES: [Base; 2] = [Base::Fresh, Base::Edited];
/// More than a case ever needs.
const AMPLE: u64 = 64 << 20;
const FAILED: &str = "failed and said why";
const COLLECTED: &str = "collected without room";

/// A file system in memory of which the size can be changed.
struct Room {
    at: PathBuf,
}

impl Room {
    fn mount(at: &Path) -> Result<Self, Trouble> {
        fs::create_dir_all(at)?;
        let this = Self { at: at.to_owned() };
        this.mount_with(MsFlags::empty(), AMPLE)?;
        Ok(this)
    }

    fn mount_with(&self, flags: MsFlags, bytes: u64) -> Result<(), Trouble> {
        let size = format!("size={bytes}");
        let mounted = mount(Some("tmpfs"), &self.at, Some("tmpfs"), flags, Some(size.as_str()));
        mounted.map_err(|error| Trouble::Skipped(format!("tmpfs cannot be mounted: {error}")))
    }

    fn used(&self) -> Result<u64, Trouble> {
        let about = during("look at the file system", statfs(&self.at))?;
        Ok((about.blocks() - about.blocks_free()) * about.block_size() as u64)
    }

    fn leave(&self, bytes: u64) -> Result<(), Trouble> {
        self.mount_with(MsFlags::MS_REMOUNT, self.used()? + bytes)
    }

    fn widen(&self) -> Result<(), Trouble> {
        self.mount_with(MsFlags::MS_REMOUNT, AMPLE)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
    }
}

/// Runs the row.
///
/// # Errors
/// If no undisturbed run can be had.
pub fn row(world: &World, orders: &Orders, default: u64) -> Result<Score, Trouble> {
    let count = orders.count.unwrap_or(default);
    let mut score = Score::new("space", orders.command("space", count));
    let folder = orders.make_folder("need")?;
    let need = match need(world, &folder) {
        Err(Trouble::Skipped(why)) => {
            score.skipped = Some(why);
            return Ok(score);
        }
        need => need?,
    };
    for name in ["bytes wanted", "enough", FAILED, COLLECTED] {
        score.add(name, 0);
    }
    score.add("bytes wanted", need);
    Ok(orders.deal(
        score,
        count,
        |_| Ok(()),
        |(), case| {
            let base = BASES[(case.number % 2) as usize];
            // Some more than is wanted.
            let left = spread(case.number / 2, count.div_ceil(2), need + need / 8, &mut case.random);
            one(world, case, base, left).map_err(|trouble| trouble.at(format!("{base:?}, {left} bytes left")))
        },
    ))
}

/// What a run takes at most.
fn need(world: &World, folder: &Path) -> Result<u64, Trouble> {
    let mut most = 0;
    for base in BASES {
        let room = Room::mount(&folder.join("room"))?;
        let (project, inputs) = (room.at.join("project"), base.inputs(&mut Random::of(1, 1)));
        world.begin(base, &project, &inputs)?;
        let before = room.used()?;
        let run = world.headwater.call(&project, &["run", "--format", "json"])?;
        world.oracles.of_runs(&inputs)?.judge_run(&project, &run)?;
        most = most.max(room.used()? - before);
    }
    Ok(most)
}

fn one(world: &World, case: &mut Case<'_>, base: Base, left: u64) -> Result<(), Trouble> {
    let room = Room::mount(&case.folder.join("room"))?;
    let (project, inputs) = (room.at.join("project"), base.inputs(&mut Random::of(case.number, 1)));
    world.begin(base, &project, &inputs)?;
    let oracle = world.oracles.of_runs(&inputs)?;
    room.leave(left)?;
    let run = world.headwater.call(&project, &["run", "--format", "json"])?;
    if run.code == Some(0) {
        oracle.judge_run(&project, &run)?;
        case.add("enough", 1);
    } else {
        judge_failed(&oracle, &room, &run)?;
        case.add(FAILED, 1);
        if project.join(".headwater/store/format").exists() {
            collect(world, &project)?;
            case.add(COLLECTED, 1);
        }
    }
    room.widen()?;
    let next = world.headwater.call(&project, &["run", "--format", "json"])?;
    oracle.judge_run(&project, &next).map_err(|trouble| trouble.at("the next run, with room"))
}

/// What it told is right, and it says what it wanted room for.
fn judge_failed(oracle: &Oracle, room: &Room, run: &Ending) -> Result<(), Trouble> {
    if run.late {
        return Err(Trouble::violation("it hung"));
    }
    if let Some(broken) = run.broke_down() {
        return Err(Trouble::violation(broken));
    }
    oracle.judge_reported(run)?;
    let message = run.message();
    let says_where = message.contains(&*room.at.to_string_lossy()) || message.contains("write error");
    match message.contains("No space left on device") && says_where {
        true => Ok(()),
        false => Err(Trouble::violation(format!("it does not say that there is no room, and where: {}", run.told()))),
    }
}

fn collect(world: &World, project: &Path) -> Result<(), Trouble> {
    let collected = world.headwater.call(project, &["store", "gc", "--keep-last", "1"])?;
    match collected.code {
        Some(0) => Ok(()),
        _ => Err(Trouble::violation(format!("`store gc` on a full file system: {}", collected.told()))),
    }
}
