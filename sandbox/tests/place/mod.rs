//! What the tests of real programs share: a folder, and supervisors that run shell lines in it.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use headwater_sandbox::{Bounds, Order, Report, Supervisors, SupervisorsError};
use tempfile::TempDir;

/// Longer than anything here takes, but for a hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A folder, and supervisors of its own.
pub struct Place {
    pub folder: TempDir,
    pub supervisors: Arc<Supervisors>,
}

impl Place {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("work")).expect("a folder");
        let supervisors = Supervisors::new(PathBuf::from(env!("CARGO_BIN_EXE_headwater-supervisor")), Vec::new());
        Self { folder, supervisors: Arc::new(supervisors) }
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// A shell line in the folder `work`.
    pub fn order(&self, line: &str) -> Order {
        let path = std::env::var_os("PATH").expect("PATH");
        Order {
            program: "sh".into(),
            arguments: vec!["-c".into(), line.into()],
            environment: vec![("PATH".into(), path)],
            folder: self.path("work").into(),
            log: self.path("log").into(),
            ..Order::default()
        }
    }

    pub fn bounded(&self, line: &str) -> Order {
        Order { bounds: Some(self.bounds()), ..self.order(line) }
    }

    pub fn bounds(&self) -> Bounds {
        let names = |names: &[&str]| names.iter().map(OsString::from).collect();
        Bounds {
            read: names(&["/usr", "/bin", "/lib", "/lib64", "/etc", "/proc"]),
            write: vec![self.path("work").into()],
            devices: names(&["/dev/null", "/dev/tty"]),
            network: false,
        }
    }

    pub fn run(&self, order: &Order) -> Report {
        let report = self.supervisors.run(order).expect("a report");
        assert_eq!(processes(self.folder.path()), Vec::<String>::new(), "nothing is left");
        report
    }

    pub fn printed(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("log")).expect("a log")).into_owned()
    }

    /// Runs an order beside the test, until it has written `begun`.
    pub fn start(&self, order: Order) -> thread::JoinHandle<Result<Report, SupervisorsError>> {
        let supervisors = self.supervisors.clone();
        let running = thread::spawn(move || supervisors.run(&order));
        wait_for("the program begins", || self.path("work/begun").exists());
        running
    }
}

/// The command lines of processes that work in a folder, or whose program lies there.
pub fn processes(folder: &Path) -> Vec<String> {
    let folder = folder.canonicalize().expect("a path");
    let inside = |process: &Path, link: &str| fs::read_link(process.join(link)).is_ok_and(|to| to.starts_with(&folder));
    let all = fs::read_dir("/proc").expect("processes").filter_map(|entry| Some(entry.ok()?.path()));
    all.filter(|process| inside(process, "cwd") || inside(process, "exe"))
        .map(|process| fs::read_to_string(process.join("cmdline")).unwrap_or_default())
        .collect()
}

pub fn wait_for(what: &str, happened: impl Fn() -> bool) {
    let begun = Instant::now();
    while !happened() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}
