//! A process that has no descriptors left. It is a program of its own: others would not have any either.

mod place;

use std::fs::{self, File};

use headwater_sandbox::SupervisorsError;
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};

use place::{Place, processes};

#[test]
fn what_a_killed_supervisor_left_is_ended_where_no_descriptors_are_left() {
    let place = Place::new();
    let line = "setsid sleep 1000 & echo $PPID > begun.new; sleep 0.1; mv begun.new begun; sleep 1000";
    let running = place.start(place.order(line));
    let supervisor = fs::read_to_string(place.path("work/begun")).expect("a number").trim().parse().expect("a number");
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), maximum: Some(256) }).expect("a limit");
    let all: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    kill_process(Pid::from_raw(supervisor).expect("a process"), Signal::KILL).expect("it runs");
    assert!(matches!(running.join().expect("no panic"), Err(SupervisorsError::Lost)));
    drop(all);
    assert_eq!(processes(place.folder.path()), Vec::<String>::new());
}
