//! The disk in memory does what the real one does: the same calls have the same outcomes.

use std::io;
use std::path::{Path, PathBuf};

use headwater_cache::disk::{Access, Disk, FileKind, ForgetfulDisk, Links, RealDisk};

use crate::seeded::{Random, torture};

const PATHS: [&str; 7] = ["a", "b", "d", "d/a", "d/b", "a/x", "none/x"];
const RUNS: u64 = 60;
const CALLS: u64 = 60;

/// One call by random, and what came of it.
fn act(disk: &dyn Disk, root: &Path, random: &mut Random) -> (String, Result<String, Option<i32>>) {
    let call = random.below(10);
    let paths = [0; 2].map(|_| root.join(PATHS[random.below(7) as usize]));
    let (at, length) = (random.below(1200), random.below(1200));
    let outcome = perform(disk, call, &paths, at, length);
    let told = format!("{call} {paths:?} {at} {length}");
    (told, outcome.map_err(|error| error.raw_os_error()))
}

fn perform(disk: &dyn Disk, call: u64, [one, two]: &[PathBuf; 2], at: u64, length: u64) -> io::Result<String> {
    let bytes = vec![length as u8; length as usize];
    match call {
        0 => disk.create_dir(one, 0o700)?,
        1 => disk.link(one, two)?,
        // Folders are never moved by the store, except into quarantine.
        2 if disk.look(one, Links::Refuse).is_ok_and(|found| found.kind == FileKind::Folder) => {}
        2 => disk.rename(one, two)?,
        3 => disk.remove(one)?,
        4 => return Ok(format!("{}", disk.open(one, Access::Create(0o600))?.write_at(&bytes, at)?)),
        5 => return Ok(format!("{}", disk.open(one, Access::Edit(0o600))?.write_at(&bytes, at)?)),
        6 => return Ok(format!("{}", disk.open(one, Access::Write)?.write_at(&bytes, at)?)),
        7 => disk.open(one, Access::Edit(0o600))?.set_len(length)?,
        8 => disk.open(one, Access::Edit(0o600))?.set_mode(0o400 + (at as u32 & 0o77))?,
        _ => disk.open(one, Access::Read(Links::Refuse))?.sync()?,
    }
    Ok(String::new())
}

/// All that can be seen of a path.
fn show(disk: &dyn Disk, path: &Path) -> io::Result<String> {
    let found = disk.look(path, Links::Refuse)?;
    let told = format!("{:?} {:o}", found.kind, found.mode);
    if found.kind == FileKind::Folder {
        let mut names = disk.names(path)?;
        names.sort();
        return Ok(format!("{told} {names:?}"));
    }
    let mut bytes = vec![0; found.bytes as usize + 10];
    let read = disk.open(path, Access::Read(Links::Refuse))?.read_at(&mut bytes, 0)?;
    Ok(format!("{told} {} {read} {:?}", found.links, &bytes[..read]))
}

#[test]
fn the_disk_in_memory_does_what_the_real_one_does() {
    for seed in 0..RUNS * torture() {
        let folder = tempfile::tempdir().unwrap();
        let memory = ForgetfulDisk::new();
        memory.create_dir(Path::new("/w"), 0o700).unwrap();
        let (mut one, mut two) = (Random(seed), Random(seed));
        for number in 0..CALLS {
            let (told, real) = act(&RealDisk, folder.path(), &mut one);
            let (_, simulated) = act(&memory, Path::new("/w"), &mut two);
            assert_eq!(simulated, real, "seed {seed}, call {number}: {told}");
        }
        for path in PATHS {
            let real = show(&RealDisk, &folder.path().join(path)).map_err(|error| error.raw_os_error());
            let simulated = show(&memory, &Path::new("/w").join(path)).map_err(|error| error.raw_os_error());
            assert_eq!(simulated, real, "seed {seed}: {path}");
        }
    }
}
