//! Real programs under the real supervisor: what is left of them, what they reach, and what is reported.

mod place;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::thread;
use std::time::Duration;

use headwater_sandbox::{Bounds, Ending, Level, Order, Report, SupervisorsError};

use place::{Place, processes};

fn has_python() -> bool {
    Command::new("python3").arg("-c").arg("").status().is_ok_and(|status| status.success())
}

#[test]
fn a_program_is_reported_with_its_code_or_signal_and_what_it_printed() {
    let place = Place::new();
    let report = place.run(&place.order("echo out; echo err >&2; echo again; exit 3"));
    let (output, errors) = (Vec::new(), Vec::new());
    let ending = Ending::Code(3);
    assert_eq!(report, Report { ending, survivors: 0, printed: 14, output, errors, missed: None, alone: false });
    assert_eq!(place.printed(), "out\nerr\nagain\n");
    assert_eq!(place.run(&place.order("kill -9 $$")).ending, Ending::Signal(9));
}

#[test]
fn what_is_printed_comes_with_the_report_if_there_is_no_file_for_it() {
    let place = Place::new();
    let order = place.order("echo out; echo err >&2; echo again");
    let report = place.run(&Order { log: "".into(), errors_apart: true, ..order });
    assert_eq!((report.output.as_slice(), report.errors.as_slice()), (&b"out\nagain\n"[..], &b"err\n"[..]));
}

#[test]
fn one_supervisor_serves_one_program_after_the_other() {
    let place = Place::new();
    let parent = || {
        assert_eq!(place.run(&place.order("echo $PPID")).ending, Ending::Code(0));
        place.printed()
    };
    assert_eq!(parent(), parent());
}

#[test]
fn what_was_replaced_between_two_programs_of_one_supervisor_can_be_used_by_the_second() {
    let place = Place::new();
    let given = place.path("given");
    let reads = |version: &str| {
        fs::create_dir(&given).expect("a folder");
        fs::write(given.join("file"), version).expect("a file");
        let bounds = place.bounds();
        let read = bounds.read.iter().cloned().chain([given.clone().into()]).collect();
        let line = format!("cat {}/file; echo left > left", given.display());
        let report = place.run(&Order { bounds: Some(Bounds { read, ..bounds }), ..place.order(&line) });
        fs::rename(&given, place.path(version)).expect("moved away");
        (report.ending, place.printed())
    };
    for version in ["one", "two", "three"] {
        assert_eq!(reads(version), (Ending::Code(0), version.into()));
    }
}

#[test]
fn one_supervisor_serves_programs_of_different_bounds_by_turns() {
    let place = Place::new();
    fs::write(place.path("secret"), "secret").expect("a file");
    let line = format!("cat {}", place.path("secret").display());
    for round in 0..3 {
        let bounds = place.bounds();
        let read = bounds.read.iter().cloned().chain([place.path("secret").into()]).collect();
        let allowed = Order { bounds: Some(Bounds { read, ..bounds }), ..place.order(&line) };
        assert_eq!(place.run(&allowed).ending, Ending::Code(0), "{round}");
        assert_eq!(place.run(&place.bounded(&line)).ending, Ending::Code(1), "{round}");
    }
}

#[test]
fn a_program_that_is_not_there_is_told() {
    let place = Place::new();
    let report = place.run(&Order { program: "no-such-program".into(), ..place.order("") });
    assert_eq!(report.ending, Ending::NotStarted("No such file or directory (os error 2)".into()));
    let huge = vec!["x".repeat(100_000).into(); 100];
    let report = place.run(&Order { arguments: huge, ..place.order("") });
    assert_eq!(report.ending, Ending::NotStarted("Argument list too long (os error 7)".into()));
}

#[test]
fn the_environment_is_what_the_order_says_and_nothing_else() {
    let place = Place::new();
    place.run(&Order { program: "env".into(), arguments: Vec::new(), ..place.order("") });
    assert_eq!(place.printed(), format!("PATH={}\n", std::env::var("PATH").expect("PATH")));
}

#[test]
fn whatever_a_program_leaves_behind_is_gone_when_it_is_reported() {
    let lines = [
        "sleep 1000 &",
        "setsid sleep 1000 & sleep 0.1",
        "(setsid sh -c '(setsid sleep 1000 &) ; sleep 1000' &) ; sleep 0.1",
        "trap '' TERM HUP INT; (trap '' TERM HUP; while :; do sleep 1; done) & sleep 0.1",
        "nohup sh -c 'while :; do echo x >> still; done' > /dev/null 2>&1 &",
        "for i in 1 2 3 4 5 6 7 8 9; do setsid sh -c 'sleep 1000 & sleep 1000 & wait' & done; sleep 0.1",
        "sh -c 'kill -STOP $$' & sleep 0.1",
    ];
    for line in lines {
        let place = Place::new();
        let report = place.run(&place.order(line));
        assert_eq!(report.ending, Ending::Code(0), "{line}");
        assert!(report.survivors > 0, "{line}");
        let size = || fs::metadata(place.path("work/still")).map_or(0, |about| about.len());
        let before = size();
        thread::sleep(Duration::from_millis(20));
        assert_eq!(size(), before, "{line}");
    }
}

#[test]
fn a_chain_of_processes_each_of_which_forks_and_ends_is_caught() {
    if !has_python() {
        return;
    }
    let place = Place::new();
    let chain = "import os\nif os.fork(): os._exit(0)\nfor i in range(100000):\n  os.setsid() if i % 2 else None\n  if os.fork(): os._exit(0)\n";
    fs::write(place.path("work/chain.py"), chain).expect("a script");
    let report = place.run(&place.order("python3 chain.py"));
    assert_eq!(report.ending, Ending::Code(0));
}

#[test]
fn a_fork_bomb_is_gone_when_it_is_reported() {
    let place = Place::new();
    // Bounded by depth: a thousand processes at most.
    let bomb =
        "bomb() { if [ $1 -gt 0 ]; then bomb $(($1 - 1)) & bomb $(($1 - 1)) & fi; sleep 1000; }; bomb 9 & sleep 0.5";
    let report = place.run(&place.order(bomb));
    assert_eq!(report.ending, Ending::Code(0));
    assert!(report.survivors > 0);
}

#[test]
fn what_is_written_after_the_end_reaches_no_log() {
    let place = Place::new();
    place.run(&place.order("echo first; (sleep 0.05; echo late) &"));
    thread::sleep(Duration::from_millis(100));
    assert_eq!(place.printed(), "first\n");
}

#[test]
fn a_program_that_takes_too_long_is_told_to_end() {
    let place = Place::new();
    let order = place.order("trap 'echo cleaned; exit 0' TERM; echo begun; while :; do sleep 0.02; done");
    let report = place.run(&Order { timeout: Some(Duration::from_millis(200)), ..order });
    assert_eq!(report.ending, Ending::TimedOut);
    // The shell tells of its child, too, which is of its group.
    assert!(place.printed().starts_with("begun\n") && place.printed().ends_with("cleaned\n"), "{}", place.printed());
}

#[test]
fn a_program_that_takes_too_long_and_does_not_hear_is_killed() {
    let place = Place::new();
    let order = place
        .order("trap '' TERM; setsid sh -c \"trap '' TERM; while :; do sleep 1; done\" & while :; do sleep 1; done");
    let report = place.run(&Order { timeout: Some(Duration::from_millis(100)), ..order });
    assert_eq!(report.ending, Ending::TimedOut);
}

#[test]
fn children_of_a_shell_that_is_told_to_end_may_clean_up_too() {
    let place = Place::new();
    let child = "trap 'sleep 0.2; echo cleaned; exit' TERM; while :; do sleep 0.02; done";
    fs::write(place.path("work/child.sh"), child).expect("a script");
    let order = place.order("sh child.sh; echo not reached");
    let report = place.run(&Order { timeout: Some(Duration::from_millis(200)), ..order });
    assert_eq!(report.ending, Ending::TimedOut);
    assert_eq!(place.printed().matches("cleaned").count(), 1, "{}", place.printed());
    assert!(!place.printed().contains("reached"));
}

#[test]
fn a_program_that_prints_nothing_for_too_long_is_told_to_end_and_one_that_prints_is_not() {
    let place = Place::new();
    let limit = Some(Duration::from_millis(400));
    let report = place.run(&Order { idle_timeout: limit, ..place.order("echo begun; sleep 1000") });
    assert_eq!((report.ending, place.printed().as_str()), (Ending::Silent, "begun\n"));
    let order = place.order("for i in 1 2 3 4 5 6 7 8 9 10; do echo $i; sleep 0.06; done");
    assert_eq!(place.run(&Order { idle_timeout: limit, ..order }).ending, Ending::Code(0));
}

#[test]
fn an_interrupt_ends_what_runs_and_lets_nothing_begin() {
    for (level, trap) in [(Level::Stop, "echo cleaned; exit 0"), (Level::Kill, "")] {
        let place = Place::new();
        let line = format!("trap '{trap}' TERM; echo > begun; while :; do sleep 0.02; done");
        let running = place.start(place.order(&line));
        place.supervisors.interrupt(level);
        assert_eq!(running.join().expect("no panic").expect("a report").ending, Ending::Stopped, "{level:?}");
        assert_eq!(processes(place.folder.path()), Vec::<String>::new());
        assert_eq!(
            place.printed().matches("cleaned").count(),
            usize::from(level == Level::Stop),
            "{}",
            place.printed()
        );
        let refused = place.supervisors.run(&place.order("true"));
        assert!(matches!(refused, Err(SupervisorsError::Interrupted)), "{level:?}");
    }
}

#[test]
fn a_second_interrupt_kills_what_does_not_hear_the_first() {
    let place = Place::new();
    let running = place.start(place.order("trap '' TERM; echo > begun; while :; do sleep 1; done"));
    place.supervisors.interrupt(Level::Stop);
    thread::sleep(Duration::from_millis(50));
    assert!(!running.is_finished());
    place.supervisors.interrupt(Level::Kill);
    assert_eq!(running.join().expect("no panic").expect("a report").ending, Ending::Stopped);
    assert_eq!(processes(place.folder.path()), Vec::<String>::new());
}

#[test]
fn endless_output_is_bounded_on_disk() {
    let place = Place::new();
    let report = place.run(&place.order("head -c 30000000 /dev/zero; echo end"));
    assert_eq!(report.printed, 30_000_004);
    let log = fs::read(place.path("log")).expect("a log");
    assert!(log.len() < 17 * 1024 * 1024 && log.ends_with(b"\0end\n"), "{}", log.len());
    assert!(String::from_utf8_lossy(&log).contains("bytes are left out here"));
}

#[test]
fn bounded_programs_work_in_their_folder() {
    let place = Place::new();
    let line = "echo a > a && mkdir -p d/e && mv a d/e/b && ln -s b d/e/c && ln d/e/b f && rm f && cat d/e/c && truncate -s 1 d/e/b \
                && mkfifo p && date > /dev/null && echo x > /dev/stderr && cat /proc/self/stat > /dev/null";
    let report = place.run(&place.bounded(line));
    assert_eq!((report.ending, place.printed().as_str()), (Ending::Code(0), "a\nx\n"));
}

#[test]
fn bounded_programs_reach_nothing_else() {
    let place = Place::new();
    fs::write(place.path("outside"), "precious").expect("a file");
    fs::create_dir(place.path("folder")).expect("a folder");
    fs::set_permissions(place.path("outside"), fs::Permissions::from_mode(0o777)).expect("permissions");
    let lines = [
        "cat ../outside",
        "echo x >> ../outside",
        "echo x > ../new",
        "rm ../outside",
        "mv ../outside here",
        "ln ../outside here",
        "ln -s ../outside here && cat here",
        "mkdir ../made",
        "rmdir ../folder",
        "ls ..",
        "../outside",
        "mv begun ../begun",
        "mknod device c 1 3 && cat device",
        "mount --bind .. .",
        "cat /proc/$PPID/environ",
        "cat /proc/$PPID/mem",
    ];
    for line in lines {
        let report = place.run(&place.bounded(line));
        assert!(matches!(report.ending, Ending::Code(1..)), "{line}: {report:?} {}", place.printed());
        assert_eq!(fs::read_to_string(place.path("outside")).expect("it is there"), "precious", "{line}");
        assert!(place.path("folder").exists() && !place.path("made").exists() && !place.path("new").exists(), "{line}");
    }
}

#[test]
fn bounded_programs_have_no_network_unless_they_are_given_it() {
    if !has_python() {
        return;
    }
    let place = Place::new();
    let make = |family: &str, kind: &str| format!("python3 -c 'import socket as s; s.socket(s.{family}, s.{kind})'");
    for (family, kind) in [("AF_INET", "SOCK_STREAM"), ("AF_INET6", "SOCK_DGRAM"), ("AF_NETLINK", "SOCK_RAW")] {
        assert_eq!(place.run(&place.bounded(&make(family, kind))).ending, Ending::Code(1), "{family}");
        assert!(place.printed().contains("Operation not permitted"), "{}", place.printed());
    }
    assert_eq!(place.run(&place.bounded(&make("AF_UNIX", "SOCK_STREAM"))).ending, Ending::Code(0));
    let bounds = Some(Bounds { network: true, ..place.bounds() });
    let given = Order { bounds, ..place.order(&make("AF_INET", "SOCK_STREAM")) };
    assert_eq!(place.run(&given).ending, Ending::Code(0));
}

#[test]
fn bounded_programs_have_no_say_in_the_limits_of_others_also_with_the_network() {
    let place = Place::new();
    if place.run(&place.order("prlimit --pid $PPID --core=0:0")).ending != Ending::Code(0) {
        eprintln!("skipped: this machine has no prlimit");
        return;
    }
    for network in [false, true] {
        let bounds = Some(Bounds { network, ..place.bounds() });
        let run = |line: &str| place.run(&Order { bounds: bounds.clone(), ..place.order(line) }).ending;
        assert_ne!(run("prlimit --pid $PPID --core=0:0"), Ending::Code(0), "{network}");
        assert_eq!(run("ulimit -n 100; prlimit --nofile=50:50 true"), Ending::Code(0), "{network}");
    }
}

#[test]
fn a_program_inherits_nothing_open_but_its_standard_streams() {
    let place = Place::new();
    // As of whoever started the parent: open, and inherited.
    let inherited = fs::File::open("/dev/null").expect("a file");
    rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty()).expect("set");
    place.run(&place.order("ls -l /proc/self/fd"));
    // The listing itself is one.
    let open = place.printed().lines().filter(|line| line.contains("->")).count();
    assert_eq!(open, 4, "{}", place.printed());
}

#[test]
fn bounds_of_one_program_are_not_those_of_the_next() {
    let place = Place::new();
    fs::write(place.path("outside"), "text").expect("a file");
    assert_eq!(place.run(&place.bounded("cat ../outside")).ending, Ending::Code(1));
    assert_eq!(place.run(&place.order("cat ../outside")).ending, Ending::Code(0));
}
