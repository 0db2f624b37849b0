//! Processes that this one has, and that are no program's: as those that a shell has started before it became Headwater.

mod place;

use std::fs;
use std::process::{Child, Command};

use headwater_sandbox::{Ending, SupervisorsError};
use rustix::process::{Pid, Signal, kill_process};

use place::{Place, processes, wait_for};

/// A shell line of which this process gets the orphans, in a session of its own or in this one's.
fn stranger(line: &str, session: bool) -> Child {
    let mut command = Command::new(if session { "setsid" } else { "env" });
    command.args(["sh", "-c", line]).spawn().expect("it starts")
}

/// `None` for one from outside of this PID namespace, for which the library's function does not allow.
fn session(process: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).expect("it lives");
    let (_, fields) = stat.rsplit_once(')').expect("a name");
    Pid::from_raw(fields.split_ascii_whitespace().nth(3).expect("a session").parse().expect("a number"))
}

#[test]
fn what_is_no_programs_lives_on_when_a_supervisor_is_killed() {
    let place = Place::new();
    let number = |name: &str| {
        let written = || fs::read_to_string(place.path(name)).is_ok_and(|text| text.ends_with('\n'));
        wait_for("it is written", written);
        let text = fs::read_to_string(place.path(name)).expect("a number");
        Pid::from_raw(text.trim().parse().expect("a number")).expect("a process")
    };
    let orphan = |name: &str| {
        let path = |end: &str| place.path(&format!("{name}{end}")).display().to_string();
        let (go, written) = (path(".go"), path(""));
        format!("while ! test -e {go}; do sleep 0.01; done; sleep 1000 & echo $! > {written}")
    };
    let mut strangers = [stranger(&orphan("same"), false), stranger(&orphan("other"), true)];
    let other = Pid::from_child(&strangers[1]);
    wait_for("it has a session", || session(other) == Some(other));

    let line = "setsid sleep 1000 & echo $PPID > begun.new; sleep 0.1; mv begun.new begun; sleep 1000";
    let running = place.start(place.order(line));
    for name in ["same.go", "other.go"] {
        fs::write(place.path(name), "").expect("a file");
    }
    let orphans = [number("same"), number("other")];
    let lives = |process: Pid| {
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.as_raw_nonzero())).unwrap_or_default();
        stat.contains("(sleep)") && !stat.contains(") Z ")
    };
    // What a shell has started is not what it will be at once.
    wait_for("they sleep", || orphans.iter().all(|orphan| lives(*orphan)));
    // They have ended; nobody has waited for them yet.
    let mut later = Command::new("sleep").arg("1000").spawn().expect("it starts");
    kill_process(number("work/begun"), Signal::KILL).expect("it runs");
    assert!(matches!(running.join().expect("no panic"), Err(SupervisorsError::Lost)));
    assert_eq!(processes(place.folder.path()), Vec::<String>::new());

    for process in [orphans[0], orphans[1], Pid::from_child(&later)] {
        assert!(lives(process));
        kill_process(process, Signal::KILL).expect("it lives");
    }
    later.wait().expect("it was not waited for");
    for stranger in &mut strangers {
        assert!(stranger.wait().expect("it was not waited for").success());
    }
    assert_eq!(place.run(&place.order("true")).ending, Ending::Code(0), "there is another one");
}
