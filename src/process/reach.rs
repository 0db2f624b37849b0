//! What a hermetic command may use beside its staging folder: installed software and the system's own files, to read and
//! execute, and devices that hold nothing.
//!
//! Installed software is what the system's folders hold and what `PATH` leads to: its folders, the installations that these
//! belong to (a virtual environment, a version of pyenv, a conda environment: the folder around `bin`), and those that
//! links in them lead to. A declared program, and a folder outside of the project that a declared variable names, count too.
//!
//! It does not know what enforces it. Invariant: no folder in the list holds the project, its state or the store: one that
//! would is replaced by what else lies in it.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use headwater_sandbox::{Bounds, search};

use crate::process::command::Command;

/// Where systems keep software, its settings, and what the kernel tells.
const SYSTEM: [&str; 17] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/proc",
    "/sys",
    "/nix/store",
    "/gnu/store",
    "/snap",
    "/var/lib/gems",
    "/var/lib/texmf",
    "/var/cache/fontconfig",
];

/// What names are looked up with.
const NETWORK: [&str; 5] =
    ["/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager", "/run/nscd", "/var/lib/ca-certificates"];

/// Devices that hold nothing, terminals, shared memory (semaphores are files there), and those that compute.
const DEVICES: [&str; 16] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/tty",
    "/dev/ptmx",
    "/dev/pts",
    "/dev/fd",
    "/dev/dri",
    "/dev/kfd",
    "/dev/accel",
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
    "/dev/nvidia-modeset",
];
const SHARED_MEMORY: &str = "/dev/shm";
/// The first graphics cards.
const CARDS: usize = 16;

/// The names of folders of programs: what lies around such a one is an installation.
const PROGRAM_FOLDERS: [&str; 4] = ["bin", "sbin", "shims", "libexec"];
/// More entries than this are in no folder of programs.
const ENTRIES: usize = 10_000;
/// Longer is no line that names an interpreter.
const SHEBANG_BYTES: u64 = 512;

/// What every command of a project may use.
#[derive(Debug, Clone)]
pub struct Reach {
    /// What no command may see, whatever lies around it.
    holes: Vec<PathBuf>,
    home: Option<PathBuf>,
    path: OsString,
    installed: BTreeSet<PathBuf>,
    /// What there is of the same, without holes.
    read: Vec<OsString>,
    /// The devices that there are.
    devices: Vec<OsString>,
}

impl Reach {
    /// With the project, its state and the store as `holes`.
    pub fn new(holes: Vec<PathBuf>) -> Self {
        let holes = holes.into_iter().map(|hole| hole.canonicalize().unwrap_or(hole)).collect();
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders: Vec<PathBuf> = std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
        let (installed, read, devices) = (BTreeSet::new(), Vec::new(), devices());
        let mut reach = Self { holes, home, path, installed, read, devices };
        reach.installed.extend(SYSTEM.iter().map(PathBuf::from));
        for folder in folders {
            reach.add_program_folder(&folder);
        }
        reach.read = reach.installed.iter().flat_map(|place| reach.around_holes(place)).collect();
        reach.read.retain(|place| Path::new(place).exists());
        reach
    }

    /// The bounds of a command that works in `folder`.
    pub fn bounds(&self, command: &Command, folder: &Path) -> Bounds {
        let mut all = self.clone();
        let programs = command.line.programs();
        for program in programs.iter().chain(&command.tools) {
            all.add_program(program);
        }
        for value in command.env.iter().chain(&command.secrets).filter_map(std::env::var_os) {
            all.add_variable(&value);
        }
        let added = all.installed.difference(&self.installed).flat_map(|place| self.around_holes(place));
        let mut read: Vec<OsString> = self.read.iter().cloned().chain(added).collect();
        if command.network {
            read.extend(NETWORK.iter().map(OsString::from));
        }
        bounds(read, folder, self.devices.clone(), command.network)
    }

    /// A folder of `PATH`, what it belongs to, and what its links belong to.
    fn add_program_folder(&mut self, folder: &Path) {
        let Ok(real) = folder.canonicalize() else { return };
        if self.has(&real) {
            return;
        }
        self.add_installation(folder);
        self.add_installation(&real);
        let entries = fs::read_dir(&real).into_iter().flatten().take(ENTRIES).filter_map(Result::ok);
        for link in entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink())) {
            self.add_target(&link.path());
        }
    }

    fn add_installation(&mut self, folder: &Path) {
        self.installed.insert(installation(folder, self.home.as_deref()).to_owned());
    }

    /// What a path leads to in the end.
    fn add_target(&mut self, path: &Path) {
        if let Ok(target) = path.canonicalize()
            && !self.has(&target)
            && let Some(folder) = target.parent()
        {
            self.add_installation(folder);
        }
    }

    /// A program that is started, and its interpreter.
    fn add_program(&mut self, program: &str) {
        let found = match program.contains('/') {
            true => Some(PathBuf::from(program)).filter(|path| path.is_absolute()),
            false => search::find(program.as_ref(), &self.path),
        };
        let Some(found) = found else { return };
        // The bytes of one that lies in the project are in the key, what lies around it is not.
        let real = found.canonicalize().unwrap_or_else(|_| found.clone());
        if self.is_hidden(&real) {
            self.installed.extend([real, found.clone()]);
        }
        for path in [interpreter(&found), Some(found)].into_iter().flatten() {
            if let Some(folder) = path.parent().filter(|folder| !self.has(folder)) {
                self.add_installation(folder);
            }
            self.add_target(&path);
        }
    }

    /// The folders and files that the value of a declared variable names. What lies in the project has to be a dep.
    fn add_variable(&mut self, value: &OsStr) {
        let paths: Vec<PathBuf> = std::env::split_paths(value).filter(|path| path.is_absolute()).collect();
        for path in paths {
            let real = path.canonicalize().unwrap_or_else(|_| path.clone());
            if !self.is_hidden(&real) {
                self.installed.extend([real, path].into_iter().filter(|path| path.parent().is_some()));
            }
        }
    }

    /// Whether a path, links followed, lies in a hole.
    fn is_hidden(&self, real: &Path) -> bool {
        self.holes.iter().any(|hole| real.starts_with(hole))
    }

    fn has(&self, path: &Path) -> bool {
        self.installed.iter().any(|place| path.starts_with(place))
    }

    /// A place, or what lies in it beside the holes.
    fn around_holes(&self, place: &Path) -> Vec<OsString> {
        let real = place.canonicalize().unwrap_or_else(|_| place.to_owned());
        if self.holes.contains(&real) {
            return Vec::new();
        }
        if !self.holes.iter().any(|hole| hole.starts_with(&real)) {
            return vec![place.into()];
        }
        let entries = fs::read_dir(&real).into_iter().flatten().filter_map(Result::ok);
        entries.flat_map(|entry| self.around_holes(&entry.path())).collect()
    }
}

/// The bounds of a command that may read whatever its user may, and write in `folder` alone.
pub fn reading_all(folder: &Path, network: bool) -> Bounds {
    bounds(vec!["/".into()], folder, devices(), network)
}

fn bounds(read: Vec<OsString>, folder: &Path, devices: Vec<OsString>, network: bool) -> Bounds {
    Bounds { read, write: vec![folder.into(), SHARED_MEMORY.into()], devices, network }
}

/// The devices that there are.
fn devices() -> Vec<OsString> {
    let cards = (0..CARDS).map(|card| format!("/dev/nvidia{card}"));
    let all = DEVICES.iter().map(|device| (*device).to_owned()).chain(cards);
    all.filter(|device| Path::new(device).exists()).map(OsString::from).collect()
}

/// What a folder of programs belongs to: the folder around it, unless that is a person's or the system's as a whole.
fn installation<'a>(folder: &'a Path, home: Option<&Path>) -> &'a Path {
    let named = folder.file_name().and_then(OsStr::to_str).is_some_and(|name| PROGRAM_FOLDERS.contains(&name));
    let around = folder.parent().filter(|around| named && around.parent().is_some());
    let personal = |around: &Path| home.is_some_and(|home| home.starts_with(around) || around == home.join(".local"));
    around.filter(|around| !personal(around)).unwrap_or(folder)
}

/// The program that the first line of a script names.
pub fn interpreter(script: &Path) -> Option<PathBuf> {
    let mut bytes = Vec::new();
    File::open(script).ok()?.take(SHEBANG_BYTES).read_to_end(&mut bytes).ok()?;
    let line = bytes.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?.trim_ascii_start();
    let path = line.split(u8::is_ascii_whitespace).next()?;
    Some(PathBuf::from(OsStr::from_bytes(path))).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn an_installation_is_what_lies_around_its_programs() {
        let home = Path::new("/home/u");
        let cases = [
            ("/home/u/work/venv/bin", "/home/u/work/venv"),
            ("/home/u/.pyenv/versions/3.12/bin", "/home/u/.pyenv/versions/3.12"),
            ("/home/u/.pyenv/shims", "/home/u/.pyenv"),
            ("/home/u/bin", "/home/u/bin"),
            ("/home/u/.local/bin", "/home/u/.local/bin"),
            ("/home/bin", "/home/bin"),
            ("/bin", "/bin"),
            ("/srv/tools", "/srv/tools"),
        ];
        for (folder, expected) in cases {
            assert_eq!(installation(Path::new(folder), Some(home)), Path::new(expected), "{folder}");
        }
    }

    /// A reach with nothing but `PATH`, in a folder that has `home` as home.
    fn reach(root: &Path, path: &str, hole: &str) -> Reach {
        let (holes, home) = (vec![root.join(hole)], Some(root.join("home")));
        let (folders, installed, read) = (root.join(path).into(), BTreeSet::new(), Vec::new());
        let mut reach = Reach { holes, home, path: folders, installed, read, devices: Vec::new() };
        reach.add_program_folder(&root.join(path));
        reach
    }

    fn folder(paths: &[&str]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().canonicalize().expect("a path");
        for path in paths {
            fs::create_dir_all(root.join(path).parent().expect("a parent")).expect("folders");
            fs::write(root.join(path), "").expect("a file");
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(0o755)).expect("permissions");
        }
        (folder, root)
    }

    #[test]
    fn what_links_among_programs_lead_to_is_installed_too() {
        let (_folder, root) = folder(&["base/3.12/bin/python3.12", "work/venv/bin/pip"]);
        symlink(root.join("base/3.12/bin/python3.12"), root.join("work/venv/bin/python")).expect("a link");
        let reach = reach(&root, "work/venv/bin", "project");
        assert_eq!(reach.installed, BTreeSet::from([root.join("base/3.12"), root.join("work/venv")]));
    }

    #[test]
    fn the_interpreter_of_a_started_script_is_installed_too() {
        let (_folder, root) = folder(&["apps/env/bin/python", "tools/run"]);
        fs::write(root.join("tools/run"), format!("#! {}/apps/env/bin/python -u\n", root.display())).expect("a script");
        let mut reach = reach(&root, "tools", "project");
        reach.add_program("run");
        assert_eq!(reach.installed, BTreeSet::from([root.join("apps/env"), root.join("tools")]));
    }

    #[test]
    fn a_started_program_of_the_project_is_within_reach_and_its_neighbour_is_not() {
        let (_folder, root) = folder(&["project/bin/tool", "project/bin/other"]);
        let mut reach = reach(&root, "project/bin", "project");
        reach.add_program("tool");
        let found: Vec<OsString> = reach.installed.iter().flat_map(|place| reach.around_holes(place)).collect();
        assert_eq!(found, [root.join("project/bin/tool").into_os_string()]);
    }

    #[test]
    fn what_a_variable_names_is_within_reach_unless_it_lies_in_the_project() {
        let (_folder, root) = folder(&["lib/python/x.py", "project/src/y.py"]);
        symlink(root.join("project/src"), root.join("link")).expect("a link");
        let mut reach = reach(&root, "none", "project");
        let paths = ["lib/python", "project/src", "project", "link"].map(|path| root.join(path));
        reach.add_variable(&std::env::join_paths(paths).expect("a value"));
        assert_eq!(reach.installed, BTreeSet::from([root.join("lib/python")]));
    }

    #[test]
    fn the_project_is_no_part_of_what_lies_around_it() {
        let (_folder, root) = folder(&["all/bin/tool", "all/lib/x", "all/src/project/data", "all/src/other/y"]);
        let reach = reach(&root, "all/bin", "all/src/project");
        let mut found = reach.around_holes(&root.join("all"));
        found.sort();
        assert_eq!(found, ["all/bin", "all/lib", "all/src/other"].map(|path| root.join(path).into_os_string()));
        assert!(reach.around_holes(&root.join("all/src/project")).is_empty());
        assert_eq!(reach.around_holes(&root.join("all/lib")).len(), 1);
    }
}
