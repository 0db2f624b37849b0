//! Interrupts of the real binary: what ends, what is kept, and that nothing is left.

mod support;

use std::fs;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use support::{Project, eventually};

/// A stage that ends, and one that goes on until it is told to end.
fn project(trap: &str) -> Project {
    let project = Project::with(&format!(
        r#"
[pipeline]
name = "p"
[stages.first]
run = "echo first > first"
outs = ["first"]
[stages.long]
run = '''trap '{trap}' TERM; cat first > /dev/null; echo begun; while :; do sleep 0.02; done'''
deps = ["first"]
outs = ["long"]
[stages.last]
run = "cp long last"
deps = ["long"]
outs = ["last"]
[stages.other]
run = "echo other > other"
deps = ["last"]
outs = ["other"]
"#
    ));
    project.write("mine.txt", "mine");
    project
}

/// A run whose second stage has begun. It hears signals, also where whoever started the tests ignores them, as a shell does
/// in the background.
fn begun(project: &Project, arguments: &[&str]) -> Child {
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_headwater"), "run", "--format", "json"]);
    command.args(arguments).current_dir(project.root()).env_remove("HEADWATER_STORE");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let log = project.path(".headwater/logs/long.log");
    eventually("the stage begins", || fs::read_to_string(&log).is_ok_and(|log| log.contains("begun")));
    child
}

fn signal(name: &str, process: u32) {
    let sent = Command::new("kill").args([format!("-{name}"), process.to_string()]).status().expect("kill");
    assert!(sent.success());
}

fn ended(child: Child) -> (ExitStatus, String, String) {
    let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
    (status, String::from_utf8(stdout).expect("text"), String::from_utf8(stderr).expect("text"))
}

/// What had finished is kept, and the next run begins where this one ended.
fn goes_on(project: &Project) {
    assert_eq!(project.processes(), Vec::<String>::new());
    assert_eq!(project.read("first"), "first\n");
    project.edit("pipeline.toml", "while :; do sleep 0.02; done", "cp first long");
    let next = project.run(&[]).succeeded();
    assert_eq!(
        (next.with("cached"), next.ran()),
        (vec!["first".to_owned()], vec!["last".into(), "long".into(), "other".into()])
    );
    assert_eq!(project.read("mine.txt"), "mine");
}

#[test]
fn one_interrupt_lets_commands_clean_up_and_starts_nothing_more() {
    for name in ["INT", "TERM", "HUP"] {
        for arguments in [&[][..], &["--keep-going"]] {
            let project = project("echo cleaned; exit 0");
            let child = begun(&project, arguments);
            signal(name, child.id());
            let (status, out, err) = ended(child);
            assert_eq!(status.code(), Some(130), "{name}: {out}{err}");
            assert!(project.read(".headwater/logs/long.log").contains("cleaned"), "{name}");
            assert!(err.contains("interrupted"), "{err}");
            let outcome = |node: &str, outcome: &str| {
                let line = out.lines().find(|line| line.contains(&format!(r#""node":"{node}""#))).expect("a line");
                assert!(line.contains(&format!(r#""outcome":"{outcome}""#)), "{line}");
            };
            outcome("first", "ran");
            outcome("long", "cancelled");
            assert!(out.contains(r#""event":"run_finished""#) && out.contains(r#""failed":0"#), "{out}");
            assert!(!project.path(".headwater/failed").exists());
            let log = project.ok(&["log"]);
            assert!(log.contains("  interrupted, ran 1, cached 0, cancelled 3 in "), "{log}");
            goes_on(&project);
        }
    }
}

#[test]
fn a_second_interrupt_kills_what_does_not_hear() {
    let project = project("");
    let child = begun(&project, &[]);
    signal("INT", child.id());
    // Two signals at once are one to the kernel.
    std::thread::sleep(std::time::Duration::from_millis(100));
    signal("INT", child.id());
    let (status, _, err) = ended(child);
    assert_eq!(status.code(), Some(130), "{err}");
    eventually("nothing is left", || project.processes().is_empty());
    goes_on(&project);
}

#[test]
fn a_killed_run_leaves_no_process() {
    for setsid in ["", "setsid "] {
        let project = project("");
        project.edit("pipeline.toml", "echo begun; while", &format!("{setsid}sleep 1000 & echo begun; while"));
        let mut child = begun(&project, &[]);
        child.kill().expect("killed");
        child.wait().expect("ended");
        eventually("nothing is left", || project.processes().is_empty());
        project.edit("pipeline.toml", "while :; do sleep 0.02; done", "cp first long");
        project.run(&[]).succeeded();
        assert_eq!((project.read("long"), project.processes()), ("first\n".into(), Vec::new()));
    }
}

#[test]
fn a_signal_that_is_ignored_from_the_beginning_interrupts_nothing() {
    let project = project("");
    project.edit("pipeline.toml", "while :; do sleep 0.02; done", "sleep 0.5; cp first long");
    let line = format!("trap '' HUP; exec {} run --format json", env!("CARGO_BIN_EXE_headwater"));
    let mut command = Command::new("sh");
    let command = command.args(["-c", &line]).current_dir(project.root()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it starts");
    let log = project.path(".headwater/logs/long.log");
    eventually("the stage begins", || fs::read_to_string(&log).is_ok_and(|log| log.contains("begun")));
    signal("HUP", child.id());
    let (status, out, err) = ended(child);
    assert_eq!(status.code(), Some(0), "{out}{err}");
}

#[test]
fn a_terminal_that_is_closed_interrupts() {
    let project = project("echo cleaned; exit 0");
    // The terminal is that of `script`, which is killed.
    let line = format!("{} run; echo $? > code", env!("CARGO_BIN_EXE_headwater"));
    let mut command = Command::new("script");
    let command = command.args(["-qec", &line, "/dev/null"]).current_dir(project.root());
    let Ok(mut script) = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn() else {
        return;
    };
    let log = project.path(".headwater/logs/long.log");
    eventually("the stage begins", || fs::read_to_string(&log).is_ok_and(|log| log.contains("begun")));
    script.kill().expect("killed");
    script.wait().expect("ended");
    eventually("nothing is left", || project.processes().is_empty());
    assert!(fs::read_to_string(&log).expect("a log").contains("cleaned"));
    goes_on(&project);
}
