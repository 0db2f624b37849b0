//! `Image`: a file system in a file, mounted through a loop device, whose power can be cut.
//!
//! It does not know what is on it. Invariant: when it is dropped, or its process ends in whatever way, nothing stays mounted
//! and no loop device in use: mounts are in a namespace of the process, and a loop device frees itself when nobody has it
//! open.

use std::cell::Cell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use nix::mount::{MntFlags, MsFlags, mount, umount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::godown::go_down;
use crate::headwater::{PROGRAMS, ending};
use crate::score::{Trouble, during};

/// A file system of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FileSystem {
    Ext4,
    Xfs,
}

/// After this many cuts a file system is made anew: its faults are not our subject.
const CUTS: u64 = 16;
const PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of the kernel's memory of the device in a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// It is lost, as in any computer: the file gets a new loop device.
    Lost,
    /// Blocks that were never written may still be there when the file system is mounted again, as after no power cut: a
    /// control for what comes of that. ext4 is damaged by it.
    Kept,
}

/// A loop device, in use as long as it is open.
struct Device {
    name: String,
    _open: File,
}

/// A mounted file system.
pub struct Image {
    pub system: FileSystem,
    memory: Memory,
    file: PathBuf,
    device: Option<Device>,
    /// Where it is mounted.
    pub at: PathBuf,
    mounted: bool,
    cuts: u64,
    /// The power is cut, and it was not mounted again.
    down: Cell<bool>,
}

impl FileSystem {
    /// All that power cuts can be had of.
    pub const ALL: [Self; 2] = [Self::Ext4, Self::Xfs];

    /// Its name, as `mount` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
        }
    }

    fn bytes(self) -> u64 {
        match self {
            Self::Ext4 => 64 << 20,
            // mkfs.xfs makes none smaller.
            Self::Xfs => 320 << 20,
        }
    }

    fn make(self) -> Command {
        let mut command = tool(&format!("mkfs.{}", self.name()));
        match self {
            Self::Ext4 => command.args(["-q", "-F"]),
            Self::Xfs => command.args(["-q", "-f"]),
        };
        command
    }
}

fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env("PATH", PROGRAMS);
    command
}

fn done(command: &mut Command) -> Result<String, Trouble> {
    let ended = ending(command)?;
    if ended.code == Some(0) { Ok(ended.out) } else { Err(Trouble::harness(format!("{command:?}: {}", ended.err))) }
}

/// Whether mounts are this process's own.
static ISOLATED: AtomicBool = AtomicBool::new(false);

/// Gives this process mounts of its own, which end with it. To be called before there are threads; where it may not, there
/// will be no mounts.
pub fn isolate() {
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    let own =
        unshare(CloneFlags::CLONE_NEWNS).and_then(|()| mount(None::<&str>, "/", None::<&str>, private, None::<&str>));
    ISOLATED.store(own.is_ok(), Ordering::Relaxed);
}

/// Whether this machine has what power cuts need; else what is missing.
///
/// # Errors
/// As skipped, if it has not.
pub fn available(system: FileSystem) -> Result<(), Trouble> {
    let skipped = |why: String| Err(Trouble::Skipped(why));
    if !ISOLATED.load(Ordering::Relaxed) {
        return skipped("no loop devices: mounting needs root".into());
    }
    if !Path::new("/dev/loop-control").exists() {
        return skipped("no loop devices: there is no /dev/loop-control".into());
    }
    let program = format!("mkfs.{}", system.name());
    let found = PROGRAMS.split(':').any(|folder| Path::new(folder).join(&program).exists());
    if found { Ok(()) } else { skipped(format!("there is no {program}")) }
}

impl Image {
    /// Makes and mounts one; its file and its place are made in `folder`.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn new(system: FileSystem, memory: Memory, folder: &Path) -> Result<Self, Trouble> {
        let (file, at) = (folder.join("image"), folder.join("mounted"));
        fs::create_dir_all(&at)?;
        let down = Cell::new(false);
        let mut image = Self { system, memory, file, device: None, at, mounted: false, cuts: 0, down };
        image.make()?;
        Ok(image)
    }

    fn make(&mut self) -> Result<(), Trouble> {
        File::create(&self.file)?.set_len(self.system.bytes())?;
        done(self.system.make().arg(&self.file))?;
        self.device = Some(Device::attach(&self.file)?);
        self.mount()
    }

    fn mount(&mut self) -> Result<(), Trouble> {
        let (name, device) = (self.system.name(), self.device.as_ref().map(|device| device.name.as_str()));
        let mounted = mount(device, &self.at, Some(name), MsFlags::empty(), None::<&str>);
        during(format!("mount {name}"), mounted)?;
        self.mounted = true;
        Ok(())
    }

    /// Everything written so far is on the disk.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn sync(&self) -> Result<(), Trouble> {
        during("sync", nix::unistd::syncfs(File::open(&self.at)?))
    }

    /// Cuts the power.
    ///
    /// # Errors
    /// If the file system does not go down.
    pub fn cut(&self) -> Result<(), Trouble> {
        self.down.set(true);
        go_down(&self.at)
    }

    /// Mounts it again after a cut, as the next boot does; nothing may use it any more.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn boot(&mut self) -> Result<(), Trouble> {
        self.unmount()?;
        self.cuts += 1;
        self.down.set(false);
        if self.memory == Memory::Lost {
            self.device = None;
            self.device = Some(Device::attach(&self.file)?);
        }
        self.mount()
    }

    /// Made anew when it has been cut often.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn refresh(&mut self) -> Result<(), Trouble> {
        if self.cuts < CUTS {
            // A case that ended early has left it as its cut did.
            return if self.down.get() { self.boot() } else { Ok(()) };
        }
        self.down.set(false);
        self.unmount()?;
        self.device = None;
        self.cuts = 0;
        self.make()
    }

    /// Whether the file system's own check finds it damaged; it is made anew before the next case then.
    ///
    /// # Errors
    /// If it cannot be checked.
    pub fn is_damaged(&mut self) -> Result<bool, Trouble> {
        self.unmount()?;
        let mut check = match self.system {
            FileSystem::Ext4 => tool("e2fsck"),
            FileSystem::Xfs => tool("xfs_repair"),
        };
        let flags: &[&str] = if matches!(self.system, FileSystem::Ext4) { &["-fn"] } else { &["-n", "-f"] };
        let damaged = !check.args(flags).arg(&self.file).output()?.status.success();
        if damaged {
            self.cuts = CUTS;
        }
        self.mount()?;
        Ok(damaged)
    }

    fn unmount(&mut self) -> Result<(), Trouble> {
        let begun = Instant::now();
        loop {
            match umount(&self.at) {
                Ok(()) => break self.mounted = false,
                // A process that was just killed lets go of its files a moment later.
                Err(nix::Error::EBUSY) if begun.elapsed() < PATIENCE => thread::sleep(Duration::from_millis(2)),
                Err(error) => return Err(Trouble::harness(format!("unmount {}: {error}", self.at.display()))),
            }
        }
        Ok(())
    }
}

impl Device {
    fn attach(file: &Path) -> Result<Self, Trouble> {
        let attached = done(tool("losetup").args(["--find", "--show"]).arg(file));
        let name = attached.map_err(|trouble| Trouble::Skipped(format!("no loop devices: {trouble:?}")))?;
        let name = name.trim().to_owned();
        let open = during(&name, File::open(&name))?;
        // A device that is in use is detached when it no longer is.
        done(tool("losetup").args(["--detach", &name]))?;
        Ok(Self { name, _open: open })
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        if self.mounted {
            let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        }
    }
}
