//! Programs that are watched for what they look for in vain, beside the same ones that are not: as ratios, taking turns.
//! Of each the fastest tenth counts: on a busy machine, who waits often is served sooner.
//!
//! `cargo bench -p headwater-sandbox --bench watched`

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use headwater_sandbox::{Bounds, Ending, Order, Supervisors, Twin};

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let here = folder.path().join("work/project");
    std::fs::create_dir_all(&here).expect("a folder");
    let supervisors = Supervisors::new(PathBuf::from(env!("CARGO_BIN_EXE_headwater-supervisor")), Vec::new());
    let twin = Twin { here: here.clone().into(), there: folder.path().into() };
    let path = std::env::var_os("PATH").expect("PATH");
    for (line, rounds) in [("true", 1000), ("python3 -c ''", 100), ("python3 -c 'import numpy'", 40)] {
        let names = |names: &[&str]| -> Vec<OsString> { names.iter().map(OsString::from).collect() };
        let read = ["/usr", "/bin", "/lib", "/lib64", "/etc", "/opt", "/proc", "/sys", "/root"];
        let bounds = Bounds {
            read: names(&read),
            write: vec![here.clone().into()],
            devices: names(&["/dev/null", "/dev/urandom"]),
            network: false,
        };
        let plain = Order {
            program: "sh".into(),
            arguments: vec!["-c".into(), line.into()],
            environment: vec![("PATH".into(), path.clone())],
            folder: here.clone().into(),
            log: folder.path().join("log").into(),
            bounds: Some(bounds),
            ..Order::default()
        };
        let watched = Order { twin: Some(twin.clone()), ..plain.clone() };
        if supervisors.run(&plain).expect("a report").ending != Ending::Code(0) {
            println!("{line:30} is not here");
            continue;
        }
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (order, times) in [&plain, &watched].into_iter().zip(&mut times) {
                let begun = Instant::now();
                supervisors.run(order).expect("a report");
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
        }
        let [plain, watched] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[times.len() / 10]
        });
        println!("{line:30} {plain:8.3} ms, watched {watched:8.3} ms, {:5.3} x", watched / plain);
    }
}
