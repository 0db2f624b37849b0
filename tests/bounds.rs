//! Runs that the system bounds: without rights, memory, open files or a careful umask, and beside a process that stands still.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};
use support::{Project, eventually};

const PIPELINE: &str = "[stages.table]\nuses = 'read'\npath = 'in.csv'\n\n\
                        [stages.copy]\nrun = 'cat in.csv > copy'\ndeps = ['in.csv']\nouts = ['copy']\n";

fn project() -> Project {
    let project = Project::with(PIPELINE);
    project.write("in.csv", "a,b\n1,2\n");
    project
}

/// The program, called by a shell line in which it is `"$0"`; rights to files count for it, whoever runs this.
fn by_shell(project: &Project, line: &str) -> Command {
    let words: &[&str] = match geteuid().is_root() {
        true => &["setpriv", "--bounding-set=-dac_override,-dac_read_search", "sh"],
        false => &["sh"],
    };
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["-c", line, env!("CARGO_BIN_EXE_headwater")]).current_dir(project.root());
    command.env_remove("HEADWATER_STORE");
    command
}

fn output(mut command: Command) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = command.output().expect("it starts");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

/// Everything in a folder, and whether it is a folder.
fn inside(project: &Project, folder: &str) -> Vec<(std::path::PathBuf, bool)> {
    let all = walkdir::WalkDir::new(project.path(folder)).into_iter().map(|entry| entry.expect("an entry"));
    all.map(|entry| (entry.path().to_owned(), entry.file_type().is_dir())).collect()
}

#[test]
fn what_is_in_a_store_that_cannot_be_written_to_is_used() {
    let project = project();
    project.run(&[]).succeeded();
    fs::remove_file(project.path("copy")).expect("removed");
    let all = inside(&project, ".headwater/store");
    for (path, is_folder) in &all {
        let mode = if *is_folder { 0o500 } else { 0o400 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("protected");
    }
    let warning = format!(
        "warning: the store {} cannot be written to: what is in it is used, and nothing is added\n",
        project.path(".headwater/store").display()
    );
    let (code, told) = output(by_shell(&project, r#"exec "$0" run"#));
    assert!(code == Some(0) && told.contains(&warning) && told.contains("ran 0, cached 2"), "{told}");
    assert_eq!(project.read("copy"), "a,b\n1,2\n");
    let (code, told) = output(by_shell(&project, r#"exec "$0" show table"#));
    assert!(code == Some(0) && told.contains("1 of 1 rows"), "{told}");
    project.write("in.csv", "a,b\n1,3\n");
    let (code, told) = output(by_shell(&project, r#"exec "$0" run"#));
    assert!(
        code == Some(1) && told.contains(".headwater/store/locks/") && told.contains("Permission denied"),
        "{told}"
    );
    for (path, is_folder) in all {
        let mode = if is_folder { 0o700 } else { 0o600 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("as before");
    }
    assert_eq!(project.run(&[]).succeeded().ran(), ["copy", "table"]);
}

#[test]
fn a_dep_that_may_not_be_read_is_named_before_anything_runs() {
    let project = project();
    fs::set_permissions(project.path("in.csv"), fs::Permissions::from_mode(0o0)).expect("protected");
    let (code, told) = output(by_shell(&project, r#"exec "$0" run"#));
    assert_eq!(code, Some(1));
    assert!(told.contains("in.csv: Permission denied (os error 13)") && told.contains("ran 0"), "{told}");
}

#[test]
fn whatever_the_umask_nobody_else_has_access_to_the_store() {
    let project = project();
    let (code, told) = output(by_shell(&project, r#"umask 000; exec "$0" run"#));
    assert_eq!(code, Some(0), "{told}");
    for (path, is_folder) in inside(&project, ".headwater/store") {
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert!(mode & 0o022 == 0 && (!is_folder || mode & 0o077 == 0), "{}: {mode:o}", path.display());
    }
}

/// Runs within a bound that differs from run to run, each after an edit: it may fail, and must say why; the next run, without the
/// bound, is right. `may_die` says that no words are expected.
fn within_bounds(bounds: impl IntoIterator<Item = u64>, limit: &str, may_die: bool) {
    let project = project();
    let mut failed = 0;
    for (round, bound) in bounds.into_iter().enumerate() {
        let table = format!("a,b\n{round},2\n");
        project.write("in.csv", &table);
        let (code, told) = output(by_shell(&project, &format!("{limit} {bound} || exit 99; exec \"$0\" run")));
        assert_ne!(code, Some(99), "{limit}: {told}");
        match code {
            Some(0) => assert_eq!(project.read("copy"), table, "{limit} {bound}: {told}"),
            _ => {
                failed += 1;
                assert!(
                    may_die || (code == Some(1) && told.contains("os error 24")),
                    "{limit} {bound}: {code:?} {told}"
                );
            }
        }
        project.run(&[]).succeeded();
        assert_eq!(project.read("copy"), table);
        project.ok(&["store", "verify", "--full"]);
    }
    assert!(failed > 0, "no bound was felt");
}

#[test]
fn without_memory_a_run_fails_and_the_next_is_right() {
    within_bounds((2..=16).map(|step| step * step * 16 * 1024), "ulimit -v", true);
}

#[test]
fn without_open_files_a_run_fails_and_says_so_and_the_next_is_right() {
    within_bounds((10..64).step_by(3), "ulimit -n", false);
}

#[test]
fn a_process_that_stands_still_keeps_what_it_has_begun() {
    let project = Project::with("[stages.slow]\nrun = 'echo begun; sleep 1; date +%N > out'\nouts = ['out']\n");
    let start = || by_shell(&project, r#"exec "$0" run"#).stdout(Stdio::null()).spawn().expect("it starts");
    let mut first = start();
    let pid = Pid::from_child(&first);
    let begun = || fs::read_dir(project.path(".headwater/work")).is_ok_and(|all| all.count() > 1);
    eventually("the command begins", begun);
    kill_process(pid, Signal::STOP).expect("stopped");
    let mut second = start();
    std::thread::sleep(Duration::from_millis(1500));
    let waits = second.try_wait().expect("asked").is_none();
    let collected = project.call(&["store", "gc", "--keep-last", "1"]);
    kill_process(pid, Signal::CONT).expect("continued");
    assert!(first.wait().expect("it ends").success() && second.wait().expect("it ends").success());
    assert!(waits, "the key is the first one's");
    assert!(collected.code == 1 && collected.err.contains("is in use"), "{}", collected.err);
    let log = project.ok(&["log", "--format", "json"]);
    assert_eq!(log.lines().filter(|line| line.contains(r#""ran":1"#)).count(), 1, "{log}");
}
