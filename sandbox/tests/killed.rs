//! Supervisors that are killed or stopped.

mod place;

use std::fs;
use std::time::Duration;

use headwater_sandbox::{Ending, Level, Order, Report, SupervisorsError, Twin};
use rustix::process::{Pid, Signal, kill_process};

use place::{Place, processes, wait_for};

/// The supervisor that a program has written down.
fn begun(place: &Place) -> Pid {
    let supervisor = fs::read_to_string(place.path("work/begun")).expect("a number");
    Pid::from_raw(supervisor.trim().parse().expect("a number")).expect("a process")
}

const BEGIN: &str = "echo $PPID > begun.new; mv begun.new begun";

#[test]
fn nothing_is_left_when_the_supervisor_is_killed() {
    let place = Place::new();
    let line =
        "setsid sh -c '(sleep 1000 &); sleep 1000' & echo $PPID > begun.new; sleep 0.1; mv begun.new begun; sleep 1000";
    let running = place.start(place.order(line));
    kill_process(begun(&place), Signal::KILL).expect("it runs");
    assert!(matches!(running.join().expect("no panic"), Err(SupervisorsError::Lost)));
    assert_eq!(processes(place.folder.path()), Vec::<String>::new());
    assert_eq!(place.run(&place.order("true")).ending, Ending::Code(0), "there is another one");
}

#[test]
fn an_idle_supervisor_that_was_killed_is_replaced() {
    let place = Place::new();
    place.run(&place.order(BEGIN));
    let supervisor = begun(&place);
    kill_process(supervisor, Signal::KILL).expect("it is there");
    let state = || fs::read_to_string(format!("/proc/{}/stat", supervisor.as_raw_nonzero())).unwrap_or_default();
    wait_for("it has ended", || state().contains(") Z "));
    assert_eq!(place.run(&place.order("echo made")).ending, Ending::Code(0));
    assert_eq!(place.printed(), "made\n");
}

#[test]
fn limits_of_time_hold_if_the_supervisor_is_stopped() {
    let limit = Some(Duration::from_secs(3));
    let run = |limits: Order, ending: Ending| {
        let place = Place::new();
        let order = place.order(&format!("setsid sleep 1000 & echo said; {BEGIN}; sleep 1000"));
        let running = place.start(Order { timeout: limits.timeout, idle_timeout: limits.idle_timeout, ..order });
        kill_process(begun(&place), Signal::STOP).expect("it runs");
        // A supervisor would have told how much was printed.
        assert_eq!(running.join().expect("no panic").expect("a report"), Report::of(ending));
        assert_eq!(processes(place.folder.path()), Vec::<String>::new());
        assert_eq!(place.run(&place.order("true")).ending, Ending::Code(0), "there is another one");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| run(Order { timeout: limit, ..Order::default() }, Ending::TimedOut));
        scope.spawn(|| run(Order { idle_timeout: limit, ..Order::default() }, Ending::Silent));
    });
}

#[test]
fn an_interrupt_reaches_a_stopped_supervisor() {
    for level in [Level::Stop, Level::Kill] {
        let place = Place::new();
        let running = place.start(place.order(&format!("{BEGIN}; sleep 1000")));
        kill_process(begun(&place), Signal::STOP).expect("it runs");
        place.supervisors.interrupt(level);
        assert_eq!(running.join().expect("no panic").expect("a report").ending, Ending::Stopped);
        assert_eq!(processes(place.folder.path()), Vec::<String>::new());
    }
}

#[test]
fn a_stopped_idle_supervisor_is_not_waited_for() {
    let place = Place::new();
    place.run(&place.order(BEGIN));
    kill_process(begun(&place), Signal::STOP).expect("it is there");
    drop(place);
}

#[test]
fn a_supervisor_that_was_stopped_while_it_was_idle_runs_the_next_program() {
    let place = Place::new();
    place.run(&place.order(BEGIN));
    kill_process(begun(&place), Signal::STOP).expect("it is there");
    let order = Order { timeout: Some(Duration::from_secs(5)), ..place.order("true") };
    assert_eq!(place.run(&order).ending, Ending::Code(0));
}

#[test]
fn nothing_waits_for_the_killed_supervisor_of_a_watched_program() {
    let place = Place::new();
    let twin = Twin { here: place.path("work").into(), there: place.folder.path().into() };
    let line = format!("{BEGIN}; while :; do cat missing & cat missing; done 2> /dev/null");
    let running = place.start(Order { twin: Some(twin), ..place.bounded(&line) });
    kill_process(begun(&place), Signal::KILL).expect("it runs");
    assert!(matches!(running.join().expect("no panic"), Err(SupervisorsError::Lost)));
    assert_eq!(processes(place.folder.path()), Vec::<String>::new());
}

#[test]
fn a_supervisor_that_a_program_has_disabled_gives_up_and_nothing_is_left() {
    let place = Place::new();
    if place.run(&place.order("prlimit --version")).ending != Ending::Code(0) {
        eprintln!("skipped: this machine has no prlimit");
        return;
    }
    let order = place.order("setsid sleep 1000 & sleep 0.1; prlimit --pid $PPID --nofile=0:0; exit 3");
    assert!(matches!(place.supervisors.run(&order), Err(SupervisorsError::Lost)));
    assert_eq!(processes(place.folder.path()), Vec::<String>::new());
}
