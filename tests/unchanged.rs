//! A run that found everything cached is told again by one look at each file, and by nothing less than that.

mod support;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use support::Project;

const PIPELINE: &str = r#"
[stages.both]
run = "cat a.txt > both.txt; tool >> both.txt; echo $WORD >> both.txt"
deps = ["a.txt"]
outs = ["both.txt"]
env = ["WORD"]

[stages.all]
run = "cat folder/* both.txt > all.txt; ./absent.sh >> all.txt || true"
deps = ["folder", "both.txt"]
outs = ["all.txt"]

[stages.many]
run = "mkdir many; cp folder/* many"
deps = ["folder"]
outs = ["many"]
"#;

/// A project in which nothing has changed for so long that the times of its files tell.
fn settled() -> Project {
    let project = Project::with(PIPELINE);
    project.write("a.txt", "one\n");
    project.write("folder/b.txt", "two\n");
    write_tool(&project, "1.0");
    assert_eq!(run(&project), "ran 3, cached 0");
    // The file index trusts times that are two seconds old.
    std::thread::sleep(Duration::from_millis(2_200));
    assert_eq!(run(&project), "ran 0, cached 3");
    assert!(!told_as_same(&project), "times had to be old when the files were hashed");
    assert_eq!(run(&project), "ran 0, cached 3");
    assert!(told_as_same(&project));
    project
}

#[test]
fn outs_that_a_killed_run_may_not_have_made_durable_are_made_so_before_a_run_says_that_nothing_has_changed() {
    let project = settled();
    let mark = project.path(".headwater/unsynced");
    assert!(!mark.exists());
    fs::write(&mark, "").unwrap();
    assert_eq!(run(&project), "ran 0, cached 3");
    assert!(!told_as_same(&project) && !mark.exists());
    assert_eq!(run(&project), "ran 0, cached 3");
    assert!(told_as_same(&project));
}

#[test]
fn what_a_killed_run_left_of_its_commands_goes_though_the_next_runs_none() {
    let project = settled();
    project.write(".headwater/work/4194305-0/1/project/large", "left");
    project.write(".headwater/work/4194305-0.lock", "");
    project.write("a.txt", "one\n");
    assert_eq!(run(&project), "ran 0, cached 3");
    assert_eq!(fs::read_dir(project.path(".headwater/work")).unwrap().count(), 0);
}

fn write_tool(project: &Project, version: &str) {
    project.write("bin/tool", format!("#!/bin/sh\necho tool {version}\n"));
    fs::set_permissions(project.path("bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
}

/// Runs with the project's tools in reach; the last line up to the time.
fn run(project: &Project) -> String {
    run_with(project, "word")
}

fn run_with(project: &Project, word: &str) -> String {
    call(project, &["run"], word)
}

fn call(project: &Project, arguments: &[&str], word: &str) -> String {
    let path = format!("{}:{}", project.path("bin").display(), std::env::var("PATH").unwrap());
    last_line(&project.command(arguments).env("PATH", path).env("WORD", word).output().unwrap())
}

/// The last line of a run that succeeded, up to the time.
fn last_line(done: &Output) -> String {
    let text = String::from_utf8(done.stderr.clone()).unwrap();
    assert!(done.status.success(), "{text}");
    text.lines().last().unwrap_or_default().split(" in ").next().unwrap_or_default().to_owned()
}

/// Whether the last run's journal names no node, but an earlier run.
fn told_as_same(project: &Project) -> bool {
    let mut journals: Vec<_> =
        fs::read_dir(project.path(".headwater/runs")).unwrap().map(|e| e.unwrap().path()).collect();
    journals.sort();
    let text = fs::read_to_string(journals.last().unwrap()).unwrap();
    assert!(text.contains(r#""line":"end""#), "{text}");
    text.contains(r#""line":"same""#)
}

#[test]
fn edits_are_found_whatever_they_leave_as_it_was() {
    let project = settled();
    let times = fs::metadata(project.path("a.txt")).unwrap().modified().unwrap();
    project.write("a.txt", "ONE\n");
    File::options().write(true).open(project.path("a.txt")).unwrap().set_modified(times).unwrap();
    assert_eq!(run(&project), "ran 2, cached 1");
    assert_eq!(project.read("all.txt").lines().next(), Some("two"));
    assert!(project.read("all.txt").contains("ONE"));
}

#[test]
fn a_file_that_comes_into_a_folder_is_found() {
    let project = settled();
    project.write("folder/c.txt", "three\n");
    assert_eq!(run(&project), "ran 2, cached 1");
    assert!(project.read("all.txt").contains("three"));
}

#[test]
fn outs_that_go_or_change_are_put_back() {
    let project = settled();
    fs::remove_file(project.path("both.txt")).unwrap();
    project.write("all.txt", "spoilt");
    fs::remove_file(project.path("many/b.txt")).unwrap();
    assert_eq!(run(&project), "ran 0, cached 3");
    assert!(!told_as_same(&project));
    assert!(project.path("both.txt").exists() && project.path("many/b.txt").exists());
    assert!(project.read("all.txt").starts_with("two"));
    project.write("many/more.txt", "a stranger");
    assert_eq!(run(&project), "ran 0, cached 3");
    assert!(!told_as_same(&project));
}

#[test]
fn variables_and_programs_are_asked_again() {
    let project = settled();
    assert_eq!(run_with(&project, "another"), "ran 2, cached 1");
    let project = settled();
    write_tool(&project, "2.0");
    assert_eq!(run(&project), "ran 2, cached 1");
    assert!(project.read("both.txt").contains("tool 2.0"));
}

#[test]
fn a_program_that_was_not_there_is_found() {
    let project = settled();
    project.write("absent.sh", "#!/bin/sh\necho here\n");
    fs::set_permissions(project.path("absent.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(run(&project), "ran 1, cached 2");
    assert!(project.read("all.txt").contains("here"));
}

#[test]
fn an_edit_of_the_pipeline_file_is_found() {
    let project = settled();
    project.edit("pipeline.toml", "cat a.txt > both.txt", "cat a.txt a.txt > both.txt");
    assert_eq!(run(&project), "ran 2, cached 1");
}

#[test]
fn what_a_collection_dropped_or_somebody_removed_is_made_again() {
    let project = settled();
    fs::remove_dir_all(project.path(".headwater/store")).unwrap();
    assert_eq!(run(&project), "ran 3, cached 0");
    let project = settled();
    project.ok(&["store", "gc", "--keep-last", "0", "--max-size", "0"]);
    assert_eq!(run(&project), "ran 3, cached 0");
}

#[test]
fn forced_and_other_targets_are_not_the_same_run() {
    let project = settled();
    assert_eq!(call(&project, &["run", "both"], "word"), "ran 0, cached 1");
    assert!(!told_as_same(&project));
    let project = settled();
    assert_eq!(call(&project, &["run", "--force", "both"], "word"), "ran 1, cached 2");
}

#[test]
fn damaged_notes_are_passed_over() {
    let project = settled();
    let path = project.path(".headwater/unchanged");
    let bytes = fs::read(&path).unwrap();
    for at in (0..bytes.len()).step_by(bytes.len() / 40) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 1;
        fs::write(&path, &wrong).unwrap();
        assert_eq!(run(&project), "ran 0, cached 3");
        assert!(!told_as_same(&project), "byte {at}");
    }
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(run(&project), "ran 0, cached 3");
    assert!(!told_as_same(&project));
}

#[test]
fn a_command_that_fails_has_the_next_run_look_closely() {
    let project = settled();
    assert!(!project.command(&["show", "nothing"]).output().unwrap().status.success());
    assert_eq!(run(&project), "ran 0, cached 3");
    assert!(!told_as_same(&project));
}

#[test]
fn history_goes_on_behind_runs_that_found_nothing_changed() {
    let project = settled();
    for _ in 0..3 {
        assert_eq!(run(&project), "ran 0, cached 3");
        assert!(told_as_same(&project));
    }
    let log = project.ok(&["log"]);
    assert_eq!(log.lines().count(), 6, "{log}");
    assert!(log.lines().take(4).all(|line| line.contains("ran 0, cached 3")), "{log}");
    project.write("a.txt", "ONE\n");
    let explained = project.command(&["explain", "both"]).env("WORD", "word").output().unwrap();
    let text = String::from_utf8(explained.stdout).unwrap();
    assert!(text.contains("a.txt"), "{text}");
}

#[test]
fn a_large_blob_that_is_gone_from_the_store_is_made_again() {
    let project = Project::with(
        "[stages.large]\nrun = \"seq 1 200000 > large.txt\"\nouts = [\"large.txt\"]\n\n\
         [stages.count]\nrun = \"wc -l < large.txt > count.txt\"\ndeps = [\"large.txt\"]\nouts = [\"count.txt\"]\n",
    );
    assert_eq!(run(&project), "ran 2, cached 0");
    std::thread::sleep(Duration::from_millis(2_200));
    run(&project);
    run(&project);
    assert!(told_as_same(&project));
    let blobs = walkdir::WalkDir::new(project.path(".headwater/store/blobs")).into_iter().map(|entry| entry.unwrap());
    let blobs: Vec<_> = blobs.filter(|entry| entry.file_type().is_file()).collect();
    assert_eq!(blobs.len(), 1);
    fs::remove_file(blobs[0].path()).unwrap();
    assert_eq!(run(&project), "ran 1, cached 1");
}

#[test]
fn what_another_project_puts_into_a_shared_store_is_looked_at() {
    let project = settled();
    let store = project.path(".headwater/store").display().to_string();
    let other = Project::with("[stages.a]\nrun = \"echo a > a.txt\"\nouts = [\"a.txt\"]\n");
    assert!(other.command(&["run"]).env("HEADWATER_STORE", &store).output().unwrap().status.success());
    assert_eq!(run(&project), "ran 0, cached 3");
    assert!(!told_as_same(&project));
    assert_eq!(run(&project), "ran 0, cached 3");
    assert!(told_as_same(&project));
}

/// A project, and programs outside of it.
struct Tool {
    folder: tempfile::TempDir,
    project: Project,
}

impl Tool {
    /// In a project with one command that is held to nothing; `keys` are more keys of it.
    fn with(run: &str, keys: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let pipeline = format!("[stages.a]\nrun = \"{run}\"\nouts = [\"out\"]\nhermetic = false\n{keys}\n");
        Self { folder, project: Project::with(&pipeline) }
    }

    /// A program that says that it was asked, and reads a file if it is there, started by the one command of a project in
    /// which nothing has changed for long.
    fn settled() -> Self {
        let tool = Self::with("tool > out", "");
        let place = tool.place();
        let text = format!("echo > {place}/asked\necho tool $(cat {place}/settings 2>/dev/null || echo 1)");
        tool.program("tool", "/bin/sh", &text);
        assert_eq!(tool.run(), "ran 1, cached 0");
        tool.settle();
        tool
    }

    fn place(&self) -> String {
        self.folder.path().display().to_string()
    }

    /// Writes a file beside the programs.
    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).expect("a file");
    }

    /// Makes a program of a text for an interpreter.
    fn program(&self, name: &str, interpreter: &str, text: &str) {
        self.write(name, &format!("#!{interpreter}\n{text}\n"));
        fs::set_permissions(self.folder.path().join(name), fs::Permissions::from_mode(0o755)).expect("permissions");
    }

    /// The command of a run with the programs in reach.
    fn command(&self) -> Command {
        let place = self.place();
        let mut command = self.project.command(&["run"]);
        command.env("PATH", format!("{place}/first:{place}:{}", std::env::var("PATH").unwrap()));
        command
    }

    fn run(&self) -> String {
        last_line(&self.command().output().unwrap())
    }

    /// Until the times of files tell, and what they told is kept.
    fn settle(&self) {
        std::thread::sleep(Duration::from_millis(3_200));
        (0..2).for_each(|_| assert_eq!(self.run(), "ran 0, cached 1"));
    }

    /// Whether a run asks the program for its version.
    fn asks(&self) -> bool {
        let asked = self.folder.path().join("asked");
        let _ = fs::remove_file(&asked);
        self.run();
        asked.exists()
    }
}

#[test]
fn a_program_that_uses_the_same_files_as_before_is_not_asked_for_its_version() {
    let tool = Tool::settled();
    assert!(!tool.asks());
    assert!(told_as_same(&tool.project));
    // What comes and goes beside the files that it uses is no reason to ask.
    fs::write(tool.folder.path().join("other"), "").unwrap();
    assert!(!tool.asks());
    let same = fs::read(tool.folder.path().join("tool")).unwrap();
    fs::write(tool.folder.path().join("tool"), same).unwrap();
    assert!(tool.asks());
}

#[test]
fn a_run_with_something_to_do_asks_no_program_either_whose_answer_stands() {
    let tool = Tool::settled();
    let more = "\n[stages.b]\nrun = \"echo b > b\"\nouts = [\"b\"]\nhermetic = false\n";
    tool.project.write("pipeline.toml", tool.project.read("pipeline.toml") + more);
    assert!(!tool.asks());
    assert_eq!(tool.project.read("b"), "b\n");
}

#[test]
fn a_program_is_asked_when_a_file_comes_or_changes_that_it_looked_for() {
    let tool = Tool::settled();
    let settings = tool.folder.path().join("settings");
    for version in ["2", "3"] {
        fs::write(&settings, version).unwrap();
        assert_eq!(tool.run(), "ran 1, cached 0");
        assert_eq!(tool.project.read("out"), format!("tool {version}\n"));
        tool.settle();
        assert!(!tool.asks());
    }
    fs::remove_file(&settings).unwrap();
    assert_eq!(tool.run(), "ran 0, cached 1");
    assert_eq!(tool.project.read("out"), "tool 1\n");
}

#[test]
fn another_program_of_the_name_that_comes_first_is_asked() {
    let tool = Tool::settled();
    fs::create_dir(tool.folder.path().join("first")).expect("a folder");
    tool.program("first/tool", "/bin/sh", "echo another");
    assert_eq!(tool.run(), "ran 1, cached 0");
    assert_eq!(tool.project.read("out"), "another\n");
}

#[test]
fn a_program_that_changes_while_others_are_asked_is_asked_by_the_next_run() {
    let tools: Vec<String> = ('b'..='i').map(|letter| format!("\"tool-{letter}\"")).collect();
    let tool = Tool::with("tool-a > out", &format!("tools = [{}]", tools.join(", ")));
    let place = tool.place();
    // Four are asked at once, and the next four after them: those that take long are asked when the first has answered, and
    // until the times of files tell that have changed since.
    let slow = format!("sleep $(cat {place}/pause); echo > {place}/asked; echo 1");
    tool.program("tool-a", "/bin/sh", &format!("cat {place}/settings"));
    tool.program("tool-b", "/bin/sh", &slow);
    let slow = format!("sleep $(cat {place}/pause); echo 1");
    ["tool-e", "tool-i"].iter().for_each(|name| tool.program(name, "/bin/sh", &slow));
    ["tool-c", "tool-d", "tool-f", "tool-g", "tool-h"].iter().for_each(|name| tool.program(name, "/bin/sh", "echo 1"));
    tool.write("settings", "1");
    tool.write("pause", "0");
    assert_eq!(tool.run(), "ran 1, cached 0");
    tool.write("pause", "1.3");
    std::thread::sleep(Duration::from_millis(3_200));
    let asked = tool.folder.path().join("asked");
    let _ = fs::remove_file(&asked);
    let slow = tool.command().stderr(Stdio::piped()).spawn().expect("it starts");
    while !asked.exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    tool.write("settings", "2");
    assert_eq!(last_line(&slow.wait_with_output().expect("it ends")), "ran 0, cached 1");
    tool.write("pause", "0");
    assert_eq!(tool.run(), "ran 1, cached 0", "the version that it tells now is another");
}

#[test]
fn a_program_is_asked_when_a_folder_has_changed_that_it_may_have_listed() {
    let python = "/usr/bin/python3";
    if !Path::new(python).exists() {
        return;
    }
    let tool = Tool::with("tool > out", "");
    // Opened as programs do that were not written in C: without `O_DIRECTORY`.
    let list = "import os; print(sorted(os.listdir(os.open('PLACE/installs', os.O_RDONLY)))[-1])";
    fs::create_dir_all(tool.folder.path().join("installs/1.0")).expect("folders");
    tool.program("tool", python, &list.replace("PLACE", &tool.place()));
    assert_eq!(tool.run(), "ran 1, cached 0");
    tool.settle();
    fs::create_dir(tool.folder.path().join("installs/2.0")).expect("a folder");
    assert_eq!(tool.run(), "ran 1, cached 0");
    assert_eq!(tool.project.read("out"), "2.0\n");
}
