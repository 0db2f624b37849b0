//! Programs that are watched for what they look for in vain: what is found, and that nothing hangs, whatever they do.

mod place;

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use headwater_sandbox::{Bounds, Ending, Missed, Order, Report, Twin, Why};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use place::Place;

/// A place whose folder `work` stands for `all`, which has more in it.
fn place() -> Place {
    let place = Place::new();
    for path in ["all/data/x", "all/y", "all/tool.sh", "all/in", "work/in"] {
        fs::create_dir_all(place.path(path).parent().expect("a parent")).expect("folders");
        fs::write(place.path(path), "text").expect("a file");
    }
    place
}

fn watched(place: &Place, line: &str) -> Order {
    let twin = Twin { here: place.path("work").into(), there: place.path("all").into() };
    Order { twin: Some(twin), ..place.bounded(line) }
}

/// What was missed, but for what is nowhere.
fn found(report: &Report) -> Vec<(String, Why, bool)> {
    let missed = report.missed.as_ref().expect("it was watched").iter();
    let known = missed.filter(|missed| missed.why != Why::Nowhere);
    known.map(|Missed { path, why, opened }| (path.to_str().expect("text").to_owned(), *why, *opened)).collect()
}

fn has_python() -> bool {
    std::process::Command::new("python3").arg("-c").arg("").status().is_ok_and(|status| status.success())
}

#[test]
fn what_is_only_in_the_other_folder_is_found_however_it_is_named() {
    let place = place();
    let absolute = place.path("work/y").display().to_string();
    let cases: [(&str, &str, bool); 9] = [
        ("cat data/x; false", "data/x", true),
        ("cat < y", "y", true),
        ("test -e y", "y", false),
        ("./tool.sh", "tool.sh", true),
        ("mkdir data; cd data; cat ./../data/x", "data/x", true),
        ("mkdir data; cd data; cat x", "data/x", true),
        (&format!("cat {absolute}"), "y", true),
        ("ls data; false", "data", true),
        ("cat y 2> /dev/null & wait; kill -9 $$", "y", true),
    ];
    for (line, path, opened) in cases {
        let report = place.run(&watched(&place, line));
        let mut found = found(&report);
        // `ls` looks before it opens.
        found.iter_mut().filter(|_| line.starts_with("ls")).for_each(|found| found.2 = opened);
        assert_eq!(found, [(path.to_owned(), Why::OnlyThere, opened)], "{line}: {}", place.printed());
        let _ = fs::remove_dir(place.path("work/data"));
    }
}

#[test]
fn what_is_named_where_it_may_not_be_read_is_found() {
    let place = place();
    let line = format!("cat {}", place.path("all/y").display());
    assert_eq!(found(&place.run(&watched(&place, &line))), [("y".to_owned(), Why::Refused, true)]);
    let order = watched(&place, &(line + "; false"));
    let mut bounds = place.bounds();
    bounds.read.push(place.path("all/y").into());
    assert_eq!(found(&place.run(&Order { bounds: Some(bounds), ..order })), []);
}

#[test]
fn what_is_there_was_made_or_is_nowhere_is_not_taken_for_missed() {
    let place = place();
    let report =
        place.run(&watched(&place, "cat in; echo > y; cat y; test -e nowhere; echo > data/x; cat odd; rm y; false"));
    // It was there once, and the program itself has removed it.
    assert_eq!(found(&report), [("y".to_owned(), Why::OnlyThere, true)]);
    let nowhere: Vec<Missed> = report.missed.into_iter().flatten().filter(|one| one.why == Why::Nowhere).collect();
    assert_eq!(nowhere, [Missed { path: "odd".into(), why: Why::Nowhere, opened: true }]);
}

#[test]
fn nothing_is_told_of_what_succeeds_or_is_not_watched_or_not_bounded() {
    let place = place();
    assert_eq!(place.run(&watched(&place, "cat y; true")).missed, None);
    assert_eq!(place.run(&place.bounded("cat y")).missed, None);
    assert_eq!(place.run(&Order { bounds: None, ..watched(&place, "cat y") }).missed, None);
}

#[test]
fn one_supervisor_watches_one_program_after_the_other() {
    let place = place();
    for _ in 0..50 {
        assert_eq!(found(&place.run(&watched(&place, "cat y"))).len(), 1);
        assert_eq!(found(&place.run(&watched(&place, "cat data/x"))), [("data/x".to_owned(), Why::OnlyThere, true)]);
        assert_eq!(place.run(&place.bounded("cat y")).missed, None);
    }
}

#[test]
fn programs_that_are_killed_while_their_calls_wait_are_no_trouble() {
    let place = place();
    let line = "cat y data/x; for i in 1 2 3 4 5 6 7 8; do (while :; do cat y data/x; done) 2> /dev/null & done; \
                for i in 1 2 3 4 5 6 7 8 9 10; do sh -c 'while :; do test -e y; done' & sleep 0.02; kill -9 $!; done; exit 3";
    let report = place.run(&watched(&place, line));
    assert_eq!((&report.ending, found(&report).len()), (&Ending::Code(3), 2));
    assert!(report.survivors > 0);
    let endless = Order { timeout: Some(Duration::from_millis(300)), ..watched(&place, "while :; do test -e y; done") };
    assert_eq!(place.run(&endless).ending, Ending::TimedOut);
}

#[test]
fn threads_and_signals_and_many_paths_are_no_trouble() {
    if !has_python() {
        return;
    }
    let place = place();
    let script = r#"
import os, signal, threading
signal.signal(signal.SIGALRM, lambda *_: None)
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
def look(of):
    for i in range(4000):
        try: os.close(os.open(f"{of}/{i}" * 20, os.O_RDONLY))
        except FileNotFoundError: pass
all = [threading.Thread(target=look, args=(of,)) for of in "abcd"]
for one in all: one.start()
for one in all: one.join()
pids = [os.posix_spawn("/bin/sh", ["sh", "-c", "test -e in"], os.environ) for _ in range(20)]
for pid in pids: assert os.waitpid(pid, 0)[1] == 0
os._exit(7)
"#;
    fs::write(place.path("work/look.py"), script).expect("a script");
    let bounds = Bounds { read: ["/"].map(Into::into).to_vec(), ..place.bounds() };
    let report = place.run(&Order { bounds: Some(bounds), ..watched(&place, "python3 look.py") });
    assert_eq!(report.ending, Ending::Code(7), "{}", place.printed());
    assert_eq!(report.missed.expect("it was watched").len(), 100);
}

#[test]
fn a_path_that_is_none_is_no_trouble() {
    if !has_python() {
        return;
    }
    let place = place();
    let script = "import ctypes\nc = ctypes.CDLL(None)\nfor at in (0, 1, 8, 2**47, 2**63, 2**64 - 1): c.syscall(257, -100, ctypes.c_void_p(at), 0)\n\
                  long = b'a/' * 10000\nc.open(long, 0); c.open(b'../' * 100 + b'x', 0); c.openat(99, b'y', 0)\nexit(5)";
    fs::write(place.path("work/odd.py"), script).expect("a script");
    let bounds = Bounds { read: ["/"].map(Into::into).to_vec(), ..place.bounds() };
    let report = place.run(&Order { bounds: Some(bounds), ..watched(&place, "python3 odd.py") });
    assert_eq!((&report.ending, found(&report)), (&Ending::Code(5), Vec::new()), "{}", place.printed());
}

#[test]
fn where_the_kernel_tells_of_no_calls_a_program_runs_as_ever() {
    let place = place();
    let flag = SeccompCmpOp::MaskedEq(8);
    let asks = SeccompCondition::new(1, SeccompCmpArgLen::Dword, flag, 8).expect("a condition");
    let rules = BTreeMap::from([(libc::SYS_seccomp, vec![SeccompRule::new(vec![asks]).expect("a rule")])]);
    let refuse = SeccompAction::Errno(libc::EBUSY as u32);
    let architecture = std::env::consts::ARCH.try_into().expect("a known processor");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture).expect("a filter");
    let filter: BpfProgram = filter.try_into().expect("a program");
    // A filter binds a thread, and what it starts.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            seccompiler::apply_filter(&filter).expect("a filter");
            let report = place.run(&watched(&place, "cat y"));
            assert_eq!((report.ending, report.missed), (Ending::Code(1), None));
            assert_eq!(place.run(&watched(&place, "cat in")).ending, Ending::Code(0));
        });
    });
}
