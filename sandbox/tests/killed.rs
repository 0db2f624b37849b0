//! A supervisor that is killed. What it leaves is known by not being anybody else's, so no other test runs in this process.

mod place;

use std::fs;

use headwater_sandbox::{Ending, SupervisorsError};
use rustix::process::{Pid, Signal, kill_process};

use place::{Place, processes};

#[test]
fn nothing_is_left_when_the_supervisor_is_killed() {
    let place = Place::new();
    let line =
        "setsid sh -c '(sleep 1000 &); sleep 1000' & echo $PPID > begun.new; sleep 0.1; mv begun.new begun; sleep 1000";
    let running = place.start(place.order(line));
    let supervisor = fs::read_to_string(place.path("work/begun")).expect("a number");
    // By a call: a `kill` that is a child of this process would be taken for something that the supervisor left.
    let supervisor = Pid::from_raw(supervisor.trim().parse().expect("a number")).expect("a process");
    kill_process(supervisor, Signal::KILL).expect("it runs");
    assert!(matches!(running.join().expect("no panic"), Err(SupervisorsError::Lost)));
    assert_eq!(processes(place.folder.path()), Vec::<String>::new());
    assert_eq!(place.run(&place.order("true")).ending, Ending::Code(0), "there is another one");
}
