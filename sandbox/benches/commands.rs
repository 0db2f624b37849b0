//! A trivial program under a supervisor, bounded and not, beside a bare process: as ratios, all in one run.
//!
//! `cargo bench -p headwater-sandbox --bench commands`

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use headwater_sandbox::{Bounds, Ending, Order, Supervisors};

const ROUNDS: usize = 5;
const RUNS: u32 = 300;

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let supervisors = Supervisors::new(PathBuf::from(env!("CARGO_BIN_EXE_headwater-supervisor")), Vec::new());
    let names = |names: &[&str]| -> Vec<OsString> { names.iter().map(OsString::from).collect() };
    let free = Order {
        program: "sh".into(),
        arguments: names(&["-c", ": > out"]),
        environment: vec![("PATH".into(), "/usr/bin:/bin".into())],
        folder: folder.path().into(),
        log: folder.path().join("log").into(),
        ..Order::default()
    };
    let read = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/opt", "/proc", "/sys"];
    let bounds = Bounds {
        read: names(&read),
        write: vec![folder.path().into()],
        devices: names(&["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/pts", "/dev/shm"]),
        network: false,
    };
    let bounded = Order { bounds: Some(bounds), ..free.clone() };
    let run = |order: &Order| assert_eq!(supervisors.run(order).expect("a report").ending, Ending::Code(0));
    let bare = || {
        let mut command = Command::new("sh");
        command.args(["-c", ": > out"]).current_dir(folder.path()).stdin(Stdio::null());
        assert!(command.status().expect("it starts").success());
    };
    run(&free);
    let mut times: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        times[0].push(each(&bare));
        times[1].push(each(&|| run(&free)));
        times[2].push(each(&|| run(&bounded)));
    }
    let [bare, free, bounded] = times.map(median);
    println!("bare process          {:7.3} ms", bare * 1e3);
    println!("below a supervisor    {:7.3} ms  {:5.2} x", free * 1e3, free / bare);
    println!("… and bounded         {:7.3} ms  {:5.2} x", bounded * 1e3, bounded / bare);
}

/// Seconds that one run takes, of many.
fn each(run: &dyn Fn()) -> f64 {
    let begun = Instant::now();
    (0..RUNS).for_each(|_| run());
    begun.elapsed().as_secs_f64() / f64::from(RUNS)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
