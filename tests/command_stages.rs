//! Command stages by the real binary: what runs, what is restored, and what never happens to the user's files.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Project, Run, eventually};

/// One stage that copies a dep to an out.
const COPY: &str = r#"
[pipeline]
name = "copy"

[stages.copy]
run = "cat in.txt > out.txt"
deps = ["in.txt"]
outs = ["out.txt"]
"#;

/// A stage `make` with this command, deps and outs as TOML.
fn stage(run: &str, deps: &str, outs: &str) -> String {
    format!("[pipeline]\nname = \"p\"\n\n[stages.make]\nrun = '''{run}'''\ndeps = {deps}\nouts = {outs}\n")
}

/// The same, not held to what it declares: it changes what it is not given, as these tests need.
fn free_stage(run: &str, deps: &str, outs: &str) -> String {
    stage(run, deps, outs) + "hermetic = false\n"
}

fn with(pipeline: &str, files: &[(&str, &str)]) -> Project {
    let project = Project::with(pipeline);
    for (path, text) in files {
        project.write(path, text);
    }
    project
}

fn copy() -> Project {
    with(COPY, &[("in.txt", "one")])
}

fn run(project: &Project) -> Run {
    project.run(&[]).succeeded()
}

fn fails(project: &Project) -> String {
    let done = project.call(&["run"]);
    assert_eq!(done.code, 1, "{}{}", done.out, done.err);
    done.err
}

/// The pipeline is refused before anything runs.
fn refused(project: &Project) -> String {
    let done = project.call(&["run"]);
    assert_eq!(done.code, 2, "{}{}", done.out, done.err);
    done.err
}

/// The contents of the files in the trash, sorted.
fn trash(project: &Project) -> Vec<String> {
    let files = walkdir::WalkDir::new(project.path(".headwater/trash")).into_iter().filter_map(Result::ok);
    let mut texts: Vec<String> = files
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| fs::read_to_string(entry.path()).expect("text"))
        .collect();
    texts.sort();
    texts
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).expect("a file").permissions().mode() & 0o100 != 0
}

fn make_executable(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
}

fn work_folders(project: &Project) -> usize {
    fs::read_dir(project.path(".headwater/work")).map_or(0, Iterator::count)
}

#[test]
fn a_command_runs_once_and_is_cached_afterwards() {
    let project = copy();
    assert_eq!(run(&project).ran(), ["copy"]);
    assert_eq!(project.read("out.txt"), "one");
    assert_eq!(run(&project).with("cached"), ["copy"]);
    assert_eq!(project.status(&[])["copy"], "cached");
    assert_eq!(work_folders(&project), 0);
}

#[test]
fn touching_a_dep_does_nothing_and_editing_it_runs_the_command() {
    let project = copy();
    run(&project);
    project.write("in.txt", "one");
    assert_eq!(run(&project).with("cached"), ["copy"]);
    project.write("in.txt", "two");
    assert_eq!(project.status(&[])["copy"], "stale");
    assert_eq!(run(&project).ran(), ["copy"]);
    assert_eq!(project.read("out.txt"), "two");
}

#[test]
fn an_undeclared_file_is_not_seen_and_its_edits_run_nothing() {
    let project = with(&stage("ls > out.txt", r#"["in.txt"]"#, r#"["out.txt"]"#), &[("in.txt", ""), ("other.txt", "")]);
    run(&project);
    assert_eq!(project.read("out.txt"), "in.txt\nout.txt\n");
    project.write("other.txt", "edited");
    assert_eq!(run(&project).with("cached"), ["make"]);
}

#[test]
fn a_deleted_out_is_restored_without_running() {
    let project = copy();
    run(&project);
    fs::remove_file(project.path("out.txt")).expect("removed");
    assert_eq!(project.status(&[])["copy"], "restore");
    let again = run(&project);
    assert_eq!((again.with("cached"), again.node("copy")["reason"].as_str()), (vec!["copy".into()], Some("restored")));
    assert_eq!(project.read("out.txt"), "one");
}

#[test]
fn an_edited_out_is_restored_without_running_and_the_edit_is_in_the_trash() {
    let project = copy();
    run(&project);
    project.write("out.txt", "hours of work");
    assert_eq!(project.status(&[])["copy"], "restore");
    assert_eq!(run(&project).with("cached"), ["copy"]);
    assert_eq!(project.read("out.txt"), "one");
    assert_eq!(trash(&project), ["hours of work"]);
}

#[test]
fn a_file_that_stands_where_the_first_run_puts_an_out_goes_to_the_trash_and_is_told() {
    let project = copy();
    project.write("out.txt", "mine");
    let told = run(&project).done.err;
    let warning = "warning: the out `out.txt` replaced what is now .headwater/trash/";
    assert!(told.lines().any(|line| line.starts_with(warning) && line.ends_with("/out.txt")), "{told}");
    assert_eq!((project.read("out.txt").as_str(), trash(&project)), ("one", vec!["mine".into()]));
}

#[test]
fn a_folder_that_stands_where_an_out_goes_is_moved_to_the_trash_whole() {
    let project = copy();
    project.write("out.txt/a", "mine");
    run(&project);
    assert_eq!((project.read("out.txt").as_str(), trash(&project)), ("one", vec!["mine".into()]));
}

#[test]
fn a_link_that_stands_where_an_out_goes_is_moved_and_what_it_names_stays() {
    let project = copy();
    project.write("precious.txt", "mine");
    symlink("precious.txt", project.path("out.txt")).expect("a link");
    run(&project);
    assert_eq!((project.read("out.txt").as_str(), project.read("precious.txt").as_str()), ("one", "mine"));
    assert!(project.path("out.txt").symlink_metadata().expect("a file").is_file());
}

#[test]
fn all_outs_deleted_are_all_restored() {
    let project = with(&stage("mkdir -p d/e; echo a > a; echo b > d/e/b", "[]", r#"["a", "d"]"#), &[]);
    run(&project);
    fs::remove_file(project.path("a")).expect("removed");
    fs::remove_dir_all(project.path("d")).expect("removed");
    assert!(run(&project).ran().is_empty());
    assert_eq!((project.read("a").as_str(), project.read("d/e/b").as_str()), ("a\n", "b\n"));
}

#[test]
fn a_param_set_back_is_a_hit_and_its_out_is_restored() {
    let pipeline = stage("echo ${x} > out.txt", "[]", r#"["out.txt"]"#) + "\n[params]\nx = \"a\"\n";
    let project = Project::with(&pipeline);
    run(&project);
    assert_eq!(project.run(&["--set", "x=it's $b"]).succeeded().ran(), ["make"]);
    assert_eq!(project.read("out.txt"), "it's $b\n");
    assert!(run(&project).ran().is_empty());
    assert_eq!((project.read("out.txt").as_str(), trash(&project).len()), ("a\n", 0));
}

#[test]
fn a_failing_command_ends_the_run_with_its_last_lines_and_the_line_to_step_in() {
    let script = "for i in $(seq 30); do echo \"line $i\"; done; cat in.txt > copied; test -e ../fixed || exit 3; echo ok > out.txt";
    let project = with(&stage(script, r#"["in.txt"]"#, r#"["out.txt"]"#), &[("in.txt", "one"), ("out.txt", "mine")]);
    let error = fails(&project);
    assert!(error.contains("the command ended with exit code 3"), "{error}");
    assert!(error.contains("| line 30") && error.contains("| line 11") && !error.contains("| line 10\n"), "{error}");
    assert_eq!(project.read("out.txt"), "mine");
    assert_eq!(project.read(".headwater/failed/make/project/copied"), "one");
    assert_eq!(work_folders(&project), 0);

    let line = error.lines().find_map(|line| line.trim().strip_prefix("to step in: ")).expect("a line").to_owned();
    let step_in = |line: &str| Command::new("sh").arg("-c").arg(line).status().expect("sh").code();
    assert_eq!(step_in(&line), Some(3), "{line}");
    project.write(".headwater/failed/make/fixed", "");
    assert_eq!(step_in(&line), Some(0), "{line}");
    assert_eq!(project.read(".headwater/failed/make/project/out.txt"), "ok\n");
    assert_eq!(fails(&project).matches("exit code 3").count(), 1, "a failure is never cached");
}

#[test]
fn a_program_that_does_not_exist_is_named_and_leaves_no_work_folder() {
    let project = Project::with(
        "[pipeline]\nname = \"p\"\n[stages.make]\nrun = [\"no-such-program\", \"a b\"]\nouts = [\"x\"]\n",
    );
    let error = fails(&project);
    assert!(error.contains("cannot be started: No such file") && error.contains("no-such-program 'a b'"), "{error}");
    assert_eq!(work_folders(&project), 0);
}

#[test]
fn an_out_that_was_not_made_is_named() {
    let project = Project::with(&stage("echo hello > a", "[]", r#"["a", "b/c"]"#));
    let error = fails(&project);
    assert!(error.contains("the command did not make its out `b/c`") && error.contains("to step in:"), "{error}");
    assert!(!project.path("a").exists(), "nothing of a failed command reaches the project");
}

#[test]
fn an_out_that_is_a_link_or_a_pipe_is_refused() {
    let cases = [
        ("echo a > a; ln -s a out", "the out `out` is a symbolic link"),
        ("ln -s nowhere out", "the out `out` is a symbolic link"),
        ("mkfifo out", "the out `out` is a device, pipe or socket"),
        ("mkdir out; ln -s /etc/passwd out/x", "the out `out/x` is a symbolic link"),
        ("mkdir out; mkfifo out/x", "the out `out/x` is a device, pipe or socket"),
    ];
    for (command, expected) in cases {
        let project = Project::with(&stage(command, "[]", r#"["out"]"#));
        let error = fails(&project);
        assert!(error.contains(expected) && error.contains("to step in:"), "{error}");
        assert!(project.path("out").symlink_metadata().is_err());
    }
}

/// `make` writes a folder, `use` reads what `deps` says.
fn below_a_folder(deps: &str, command: &str) -> Project {
    let make =
        stage("mkdir -p out/sub/deep; echo a > out/a; echo b > out/sub/b; echo c > out/sub/deep/c", "[]", r#"["out"]"#);
    Project::with(&format!("{make}\n[stages.use]\nrun = '''{command}'''\ndeps = {deps}\nouts = [\"used\"]\n"))
}

#[test]
fn a_dep_on_the_out_of_another_stage_is_an_edge() {
    let project = below_a_folder(r#"["out"]"#, "find out -type f | sort > used");
    let first = run(&project);
    assert_eq!(first.ran(), ["make", "use"]);
    assert_eq!(project.read("used"), "out/a\nout/sub/b\nout/sub/deep/c\n");
    assert!(run(&project).ran().is_empty());
}

#[test]
fn a_dep_on_a_file_inside_an_out_is_an_edge_to_that_file_alone() {
    let project = below_a_folder(r#"["out/sub/b"]"#, "find out -type f > used; cat out/sub/b >> used");
    run(&project);
    assert_eq!(project.read("used"), "out/sub/b\nb\n");
    project.edit("pipeline.toml", "echo a > out/a", "echo other > out/a");
    assert_eq!(run(&project).ran(), ["make"]);
}

#[test]
fn a_dep_on_a_folder_inside_an_out_is_an_edge_to_that_folder_alone() {
    let project = below_a_folder(r#"["out/sub"]"#, "find out -type f | sort > used");
    run(&project);
    assert_eq!(project.read("used"), "out/sub/b\nout/sub/deep/c\n");
    assert!(project.status(&[]).values().all(|state| state == "cached"));
    project.edit("pipeline.toml", "echo a > out/a", "echo other > out/a");
    assert_eq!(run(&project).ran(), ["make"]);
    project.edit("pipeline.toml", "echo c >", "echo d >");
    assert_eq!(run(&project).ran(), ["make", "use"]);
}

#[test]
fn a_dep_on_what_a_folder_out_does_not_hold_is_an_error_that_names_it() {
    let project = below_a_folder(r#"["out/su"]"#, "true > used");
    assert!(fails(&project).contains("the folder has no file `su`"));
}

/// Two stages write into `data`, a third reads all of it.
const SHARED_FOLDER: &str = r#"
[pipeline]
name = "p"
[stages.a]
run = "echo a > data/a"
outs = ["data/a"]
[stages.b]
run = "echo b > data/b"
outs = ["data/b"]
[stages.all]
run = "cd data && cat * > ../all"
deps = ["data", "data/a"]
outs = ["all"]
"#;

#[test]
fn a_folder_dep_has_an_edge_to_each_out_in_it_and_its_other_files_are_project_files() {
    let project = with(SHARED_FOLDER, &[("data/c", "c\n")]);
    assert_eq!(run(&project).ran(), ["a", "all", "b"]);
    assert_eq!(project.read("all"), "a\nb\nc\n");
    assert!(run(&project).ran().is_empty());
    project.edit("pipeline.toml", "echo b", "echo B");
    assert_eq!(run(&project).ran(), ["all", "b"]);
    project.write("data/c", "C\n");
    assert_eq!(run(&project).ran(), ["all"]);
    assert_eq!(project.read("all"), "a\nB\nC\n");
}

#[test]
fn a_folder_dep_of_nothing_but_outs_need_not_exist_before_the_first_run() {
    let project = Project::with(SHARED_FOLDER);
    assert_eq!(run(&project).ran(), ["a", "all", "b"]);
    assert_eq!(project.read("all"), "a\nb\n");
    assert!(run(&project).ran().is_empty(), "that the folder exists now changes no key");
}

#[test]
fn what_programs_keep_for_themselves_is_no_part_of_a_folder_dep_unless_it_is_named() {
    let project = Project::with(
        &(stage("ls -A src > out", r#"["src"]"#, r#"["out"]"#)
            + "[stages.named]\nrun = 'ls -A src/__pycache__ > named'\ndeps = ['src/__pycache__']\nouts = ['named']\n"),
    );
    project.write("src/train.py", "");
    project.write("src/__pycache__/train.cpython-313.pyc", "");
    project.run(&[]).succeeded();
    assert_eq!(
        (project.read("out").as_str(), project.read("named").as_str()),
        ("train.py\n", "train.cpython-313.pyc\n")
    );
    project.write("src/__pycache__/train.cpython-314.pyc", "");
    project.write("src/.DS_Store", "");
    project.write(&format!("src/.headwater-{}.tmp", "0".repeat(32)), "half of what a killed process put there");
    assert_eq!(project.run(&[]).succeeded().ran(), ["named"]);
}

#[test]
fn an_empty_folder_dep_is_there() {
    let project = Project::with(&stage("ls -d data > out", r#"["data"]"#, r#"["out"]"#));
    fs::create_dir(project.path("data")).expect("a folder");
    run(&project);
    assert_eq!(project.read("out"), "data\n");
}

#[test]
fn outputs_of_built_in_stages_are_mounted_as_files() {
    let project = Project::example("penguins");
    let text = project.read("pipeline.toml")
        + r#"
[stages.report]
run = "head -n 1 test.csv > report/header; cp board.json report/board.json"
deps = [{ from = "prepare.test", as = "test.csv" }, { from = "leaderboard", as = "board.json" }]
outs = ["report/header-${model}-${fold}", "report/board-${model}-${fold}.json"]
"#;
    let text = text
        .replace("report/header;", "report/header-${model}-${fold};")
        .replace("report/board.json\"\ndeps", "report/board-${model}-${fold}.json\"\ndeps");
    project.write("pipeline.toml", text);
    let done = run(&project);
    let report = done.ran().into_iter().find(|node| node.starts_with("report[")).expect("a report");
    let files: Vec<PathBuf> =
        fs::read_dir(project.path("report")).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    let board = files.iter().find(|path| path.extension().is_some()).expect("a board");
    let header = files.iter().find(|path| path.extension().is_none()).expect("a header");
    assert!(fs::read_to_string(header).expect("text").contains(','), "{report}");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(board).expect("bytes")).expect("JSON");
    assert!(json.is_object() || json.is_array());
    assert!(run(&project).ran().is_empty());
}

#[test]
fn a_path_that_a_built_in_stage_reads_may_be_an_out() {
    let make = stage("mkdir -p data; printf 'x,y\\n1,2\\n' > data/t.csv", "[]", r#"["data"]"#);
    let project = Project::with(&format!("{make}\n[stages.table]\nuses = \"read\"\npath = \"data/t.csv\"\n"));
    assert_eq!(run(&project).ran(), ["make", "table"]);
    fs::remove_dir_all(project.path("data")).expect("removed");
    assert!(run(&project).ran().is_empty());
    project.edit("pipeline.toml", "1,2", "1,3");
    assert_eq!(run(&project).ran(), ["make", "table"]);
}

#[test]
fn a_program_of_the_project_counts_by_its_content_without_being_declared() {
    let project = with(&stage("bin/tool > out", "[]", r#"["out"]"#), &[("bin/tool", "#!/bin/sh\necho one\n")]);
    make_executable(&project.path("bin/tool"));
    run(&project);
    assert!(run(&project).ran().is_empty());
    project.write("bin/tool", "#!/bin/sh\necho two\n");
    assert_eq!(run(&project).ran(), ["make"]);
    assert_eq!(project.read("out"), "two\n");
}

#[test]
fn a_program_that_another_stage_makes_is_an_edge_from_the_first_run_on() {
    let build = stage("printf '#!/bin/sh\\necho built\\n' > bin/tool; chmod +x bin/tool", "[]", r#"["bin/tool"]"#);
    let project = Project::with(&format!("{build}\n[stages.use]\nrun = [\"./bin/tool\"]\nouts = [\"used\"]\n"));
    project.edit("pipeline.toml", r#"["./bin/tool"]"#, "'bin/tool > used'");
    assert_eq!(run(&project).ran(), ["make", "use"]);
    assert!(run(&project).ran().is_empty(), "that the program exists now changes no key");
    assert_eq!(project.read("used"), "built\n");
}

#[test]
fn a_script_given_by_its_absolute_path_is_not_started_to_ask_for_its_version() {
    let project = Project::with("");
    let tool = project.root().canonicalize().expect("a path").join("tool");
    project.write("tool", format!("#!/bin/sh\necho \"$@\" >> {}/calls\necho made > out\n", project.root().display()));
    make_executable(&tool);
    project.write("pipeline.toml", free_stage(&tool.to_string_lossy(), "[]", r#"["out"]"#));
    run(&project);
    project.status(&[]);
    assert_eq!(project.read("calls"), "\n");
    project.write("tool", "#!/bin/sh\necho other > out\n");
    assert_eq!(run(&project).ran(), ["make"]);
}

#[test]
fn an_array_starts_the_program_without_a_shell() {
    let project = Project::with(
        "[pipeline]\nname = \"p\"\n[stages.make]\nrun = [\"cp\", \"in $HOME;'x\", \"out *\"]\ndeps = [\"in $HOME;'x\"]\nouts = [\"out *\"]\n",
    );
    project.write("in $HOME;'x", "content");
    run(&project);
    assert_eq!(project.read("out *"), "content");
}

#[test]
fn declared_variables_are_passed_and_in_the_key_and_others_are_stripped() {
    let pipeline = stage("env | sort > out", "[]", r#"["out"]"#) + "env = [\"SHOWN\", \"NOT_SET\"]\n";
    let project = Project::with(&pipeline);
    let run = |value: &str| {
        let mut command = project.command(&["run", "--format", "json"]);
        let out = command.env("SHOWN", value).env("HIDDEN", "secret").output().expect("it starts");
        String::from_utf8(out.stdout).expect("text").contains(r#""outcome":"ran""#)
    };
    assert!(run("1"));
    let printed = project.read("out");
    let names: Vec<&str> = printed.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    let known = ["HOME", "LC_CTYPE", "PATH", "PWD", "OLDPWD", "SHLVL", "SHOWN", "TMPDIR", "TZ", "_"];
    assert!(names.iter().all(|name| known.contains(name)), "{names:?}");
    let value =
        |name: &str| printed.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).expect("it is set");
    assert!(value("HOME").contains("/.headwater/work/"), "{printed}");
    assert_eq!([value("PWD"), value("TMPDIR")], ["project", "tmp"].map(|name| format!("{}/{name}", value("HOME"))));
    assert!(!run("1"));
    assert!(run("2"));
    assert!(project.read("out").contains("SHOWN=2"));
}

#[test]
fn values_of_variables_are_not_shown_with_a_failure() {
    let project = Project::with(&(stage("exit 1", "[]", r#"["out"]"#) + "env = [\"TOKEN\"]\n"));
    let out = project.command(&["run"]).env("TOKEN", "hunter2").output().expect("it starts");
    let error = String::from_utf8(out.stderr).expect("text");
    assert!(error.contains("TOKEN=\"$TOKEN\"") && !error.contains("hunter2"), "{error}");
}

#[test]
fn a_tool_that_is_not_there_fails_the_stage() {
    let project = Project::with(&(stage("true > out", "[]", r#"["out"]"#) + "tools = [\"pythn3\"]\n"));
    let failed = |place: &str| {
        let done = project.call(&["run"]);
        assert_eq!(done.code, 1);
        let wanted = format!("and there is no such program {place}; install it, or correct the name");
        assert!(done.err.contains(&wanted), "{}", done.err);
    };
    failed("in PATH");
    project.edit("pipeline.toml", "\"pythn3\"", "\"./pythn3\"");
    failed("in the project");
}

#[test]
fn the_versions_of_tools_are_in_the_key() {
    let (project, tools) =
        (Project::with(&(stage("true > out", "[]", r#"["out"]"#) + "tools = [\"mytool\"]\n")), Project::empty());
    let path = format!("{}:{}", tools.root().display(), std::env::var("PATH").expect("PATH"));
    let run = |version: &str| {
        tools.write("mytool", format!("#!/bin/sh\necho mytool {version}\n"));
        make_executable(&tools.path("mytool"));
        let out = project.command(&["run", "--format", "json"]).env("PATH", &path).output().expect("it starts");
        String::from_utf8(out.stdout).expect("text")
    };
    assert!(run("1").contains(r#""outcome":"ran""#));
    assert!(run("1").contains(r#""outcome":"cached""#));
    let third = run("2");
    assert!(third.contains(r#""outcome":"ran""#) && third.contains("version of mytool"), "{third}");
    assert!(run("1").contains(r#""outcome":"cached""#));
}

#[test]
fn lock_files_of_the_environment_count_by_content() {
    let pipeline = stage("true > out", r#"["uv.lock"]"#, r#"["out"]"#) + "environment = [\"uv.lock\"]\n";
    let project = with(&pipeline, &[("uv.lock", "numpy 1")]);
    run(&project);
    project.write("uv.lock", "numpy 2");
    assert_eq!(run(&project).ran(), ["make"]);
}

#[test]
fn whether_a_file_can_be_executed_is_part_of_its_content() {
    let project = with(
        &stage(
            "cp in.sh out.sh; test -x in.sh && ./in.sh > said || echo no > said",
            r#"["in.sh"]"#,
            r#"["out.sh", "said"]"#,
        ),
        &[("in.sh", "#!/bin/sh\necho yes\n")],
    );
    run(&project);
    assert_eq!((project.read("said").as_str(), is_executable(&project.path("out.sh"))), ("no\n", false));
    make_executable(&project.path("in.sh"));
    assert_eq!(run(&project).ran(), ["make"]);
    assert_eq!((project.read("said").as_str(), is_executable(&project.path("out.sh"))), ("yes\n", true));
    fs::set_permissions(project.path("out.sh"), fs::Permissions::from_mode(0o644)).expect("permissions");
    assert!(run(&project).ran().is_empty());
    assert!(is_executable(&project.path("out.sh")));
}

#[test]
fn a_program_in_a_folder_out_can_be_executed_by_the_next_stage() {
    let build =
        stage("mkdir bin; printf '#!/bin/sh\\necho built\\n' > bin/tool; chmod +x bin/tool", "[]", r#"["bin"]"#);
    let project = Project::with(&format!("{build}\n[stages.use]\nrun = 'bin/tool > used'\nouts = [\"used\"]\n"));
    run(&project);
    assert_eq!(project.read("used"), "built\n");
}

/// `out/a`, `out/sub/b` and the empty folder `out/empty`.
fn folder_out() -> Project {
    let project =
        Project::with(&stage("mkdir -p out/sub out/empty; echo a > out/a; echo b > out/sub/b", "[]", r#"["out"]"#));
    run(&project);
    project
}

#[test]
fn a_folder_out_is_restored_with_its_empty_folders() {
    let project = folder_out();
    fs::remove_dir_all(project.path("out")).expect("removed");
    assert!(run(&project).ran().is_empty());
    assert!(project.path("out/empty").is_dir());
    assert_eq!(project.read("out/sub/b"), "b\n");
    assert_eq!(project.status(&[])["make"], "cached");
}

#[test]
fn an_out_may_be_an_empty_folder() {
    let project = Project::with(&stage("mkdir -p out", "[]", r#"["out"]"#));
    run(&project);
    assert!(project.path("out").is_dir());
    assert!(run(&project).ran().is_empty());
}

#[test]
fn only_what_differs_in_a_folder_out_is_replaced_and_only_what_the_store_lacks_goes_to_the_trash() {
    let project = folder_out();
    let before = fs::metadata(project.path("out/a")).expect("a file").modified().expect("a time");
    project.write("out/sub/b", "edited");
    project.write("out/notes/mine", "notes");
    project.write("out/sub/copy-of-a", "a\n");
    assert_eq!(project.status(&[])["make"], "restore");
    assert!(run(&project).ran().is_empty());
    assert_eq!(project.read("out/sub/b"), "b\n");
    assert!(!project.path("out/notes").exists() && !project.path("out/sub/copy-of-a").exists());
    assert!(project.path("out/empty").is_dir());
    assert_eq!(trash(&project), ["edited", "notes"]);
    assert_eq!(fs::metadata(project.path("out/a")).expect("a file").modified().expect("a time"), before);
}

#[test]
fn odd_things_in_a_folder_out_are_put_aside_and_nothing_is_written_through_a_link() {
    let project = folder_out();
    fs::remove_dir_all(project.path("out/sub")).expect("removed");
    fs::create_dir(project.path("elsewhere")).expect("a folder");
    symlink(project.path("elsewhere"), project.path("out/sub")).expect("a link");
    fs::remove_file(project.path("out/a")).expect("removed");
    project.write("out/a/inside", "mine");
    let made = Command::new("mkfifo").arg(project.path("out/pipe")).status().expect("mkfifo");
    assert!(made.success());
    assert!(run(&project).ran().is_empty());
    assert_eq!((project.read("out/a").as_str(), project.read("out/sub/b").as_str()), ("a\n", "b\n"));
    assert_eq!(fs::read_dir(project.path("elsewhere")).expect("a folder").count(), 0);
    assert!(
        project.path("out/sub").symlink_metadata().expect("a folder").is_dir() && !project.path("out/pipe").exists()
    );
    assert_eq!(trash(&project), ["mine"]);
}

#[test]
fn a_file_that_a_new_version_of_a_folder_out_lacks_is_gone_and_not_in_the_trash() {
    let project = folder_out();
    project.edit("pipeline.toml", "echo a > out/a; ", "");
    run(&project);
    assert!(!project.path("out/a").exists() && trash(&project).is_empty());
}

#[test]
fn read_only_files_are_read_replaced_and_written() {
    let project = with(
        &stage("echo more >> in.txt; cp in.txt out.txt", r#"["in.txt"]"#, r#"["out.txt"]"#),
        &[("in.txt", "one\n"), ("out.txt", "mine")],
    );
    for file in ["in.txt", "out.txt"] {
        fs::set_permissions(project.path(file), fs::Permissions::from_mode(0o444)).expect("permissions");
    }
    run(&project);
    assert_eq!((project.read("out.txt").as_str(), project.read("in.txt").as_str()), ("one\nmore\n", "one\n"));
    assert_eq!(trash(&project), ["mine"]);
}

#[test]
fn any_name_of_a_file_will_do() {
    for name in
        ["with space", "qu'o\"te", "new\nline", "ünïcode-日本", "-dash", "a=b", "#x", "tab\there", "back\\slash"]
    {
        let quoted = serde_json::to_string(name).expect("JSON");
        let line = format!(
            "[pipeline]\nname = \"p\"\n[stages.make]\nrun = [\"cp\", \"--\", \"in\", {quoted}]\ndeps = [\"in\"]\nouts = [{quoted}]\n"
        );
        let next = format!(
            "[stages.next]\nrun = [\"cp\", \"-r\", \"--\", {quoted}, \"next\"]\ndeps = [{quoted}]\nouts = [\"next\"]\n"
        );
        let project = with(&format!("{line}{next}"), &[("in", name)]);
        run(&project);
        assert_eq!((project.read(name).as_str(), project.read("next").as_str()), (name, name));
        assert!(run(&project).ran().is_empty(), "{name:?}");
    }
}

#[test]
fn a_command_that_edits_its_dep_does_not_touch_the_project() {
    let project = with(
        &stage("echo more >> d/in.txt; rm d/other; cp d/in.txt out", r#"["d"]"#, r#"["out"]"#),
        &[("d/in.txt", "one\n"), ("d/other", "other")],
    );
    run(&project);
    assert_eq!((project.read("d/in.txt").as_str(), project.read("d/other").as_str()), ("one\n", "other"));
    assert_eq!(project.read("out"), "one\nmore\n");
}

/// A command that changes its dep in the project as long as `times` says.
fn changing(times: usize) -> Project {
    let project = Project::with("");
    let root = project.root().display().to_string();
    let change = format!(
        "echo run >> {root}/runs; test $(wc -l < {root}/runs) -gt {times} || echo $$ >> {root}/in.txt; cp in.txt out.txt"
    );
    project.write("pipeline.toml", free_stage(&change, r#"["in.txt"]"#, r#"["out.txt"]"#));
    project.write("in.txt", "one\n");
    project
}

#[test]
fn a_dep_that_changes_while_the_command_runs_makes_it_run_again_once() {
    let project = changing(1);
    run(&project);
    assert_eq!(project.read("runs"), "run\nrun\n");
    assert_eq!(project.read("out.txt"), project.read("in.txt"));
    assert!(run(&project).ran().is_empty());
}

#[test]
fn a_dep_that_changes_each_time_is_a_failure() {
    let project = changing(9);
    let error = fails(&project);
    assert!(error.contains("in.txt changed while it was read, twice; let it come to rest and run again"), "{error}");
    assert_eq!(project.read("runs"), "run\nrun\n");
    assert!(!project.path("out.txt").exists());
}

/// A command that reads a folder, and the first time changes that in the project.
fn changing_folder(change: &str) -> Project {
    let project = Project::with("");
    let root = project.root().display().to_string();
    let line = format!(
        "echo run >> {root}/runs; test $(wc -l < {root}/runs) -gt 1 || {{ cd {root}/data; {change}; cd -; }}; find data \
         -type f | sort > out"
    );
    project.write("pipeline.toml", free_stage(&line, r#"["data"]"#, r#"["out"]"#));
    for name in ["data/a", "data/sub/b"] {
        project.write(name, name);
    }
    project
}

#[test]
fn a_folder_dep_that_gains_or_loses_a_file_while_the_command_runs_makes_it_run_again_once() {
    let cases = [
        ("echo new > sub/c", "data/a\ndata/sub/b\ndata/sub/c\n"),
        ("rm sub/b", "data/a\n"),
        ("mv a sub/z", "data/sub/b\ndata/sub/z\n"),
        ("echo longer >> a", "data/a\ndata/sub/b\n"),
    ];
    for (change, expected) in cases {
        let project = changing_folder(change);
        run(&project);
        assert_eq!((project.read("runs").as_str(), project.read("out").as_str()), ("run\nrun\n", expected), "{change}");
        assert!(run(&project).ran().is_empty(), "{change}");
    }
}

#[test]
fn a_folder_dep_that_changes_each_time_is_a_failure_that_names_it() {
    let project = changing_folder("true");
    let root = project.root().display().to_string();
    let line = format!("echo run >> {root}/runs; echo $$ > {root}/data/$$; find data -type f > out");
    project.write("pipeline.toml", free_stage(&line, r#"["data"]"#, r#"["out"]"#));
    let error = fails(&project);
    assert!(error.contains("data changed while it was read, twice; let it come to rest and run again"), "{error}");
    assert_eq!(project.read("runs"), "run\nrun\n");
    assert!(!project.path("out").exists());
}

/// Whether a file of the store holds these bytes, alone or among others.
fn holds(project: &Project, bytes: &str) -> bool {
    let store = walkdir::WalkDir::new(project.path(".headwater/store")).into_iter().filter_map(Result::ok);
    let mut files = store.filter(|one| one.file_type().is_file()).map(|one| fs::read(one.path()).expect("bytes"));
    files.any(|file| file.windows(bytes.len()).any(|window| window == bytes.as_bytes()))
}

/// A command that reads a file and a folder, in a project that keeps its sources if `store` says so.
fn reading(store: &str) -> Project {
    let make = stage("cat in.txt data/*/* | wc -c > out", r#"["in.txt", "data"]"#, r#"["out"]"#);
    with(
        &format!("{store}\n{make}"),
        &[("in.txt", "the first version"), ("data/sub/one", "content of one"), ("data/sub/two", "content of two")],
    )
}

#[test]
fn sources_are_hashed_and_not_kept_unless_the_file_says_so() {
    for (store, kept) in [("", false), ("[store]\nkeep_sources = false", false), ("[store]\nkeep_sources = true", true)]
    {
        let project = reading(store);
        run(&project);
        for content in ["the first version", "content of one", "content of two"] {
            assert_eq!(holds(&project, content), kept, "{store}: {content}");
        }
    }
}

#[test]
fn a_preview_keeps_no_source() {
    let project = reading("[store]\nkeep_sources = true");
    project.status(&[]);
    project.ok(&["run", "--dry-run"]);
    assert!(!holds(&project, "the first version"));
}

#[test]
fn an_old_source_that_was_kept_is_had_back_by_the_digest_that_explain_shows() {
    let project = reading("[store]\nkeep_sources = true");
    run(&project);
    project.write("in.txt", "the second version, which is longer");
    fs::remove_file(project.path("data/sub/two")).expect("removed");
    run(&project);
    let text = project.ok(&["explain", "make"]);
    let old = |input: &str| {
        let line = text.lines().find(|line| line.contains(input)).unwrap_or_else(|| panic!("{input} in {text}"));
        let hex = |word: &&str| word.len() == 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        line.split([' ', ',']).find(hex).unwrap_or_else(|| panic!("a digest in {line}")).to_owned()
    };
    project.ok(&["get", &old("input in.txt"), "-o", "old.txt"]);
    assert_eq!(project.read("old.txt"), "the first version");
    project.ok(&["get", &old("sub/two"), "-o", "old-two"]);
    assert_eq!(project.read("old-two"), "content of two");
    let done = project.call(&["get", &old("sub/two"), "-o", "old-two"]);
    assert!(done.code != 0 && done.err.contains("old-two is there already"), "{}", done.err);
    let done = project.call(&["get", "abcdef012345", "-o", "none"]);
    assert!(done.err.contains("nothing that runs have made has such a digest"), "{}", done.err);
}

#[test]
fn a_collection_leaves_the_kept_sources_of_stages_that_the_last_run_did_not_want() {
    let stages = "[stages.one]\nrun = 'wc -c one.txt > one'\ndeps = ['one.txt']\nouts = ['one']\n\n\
                  [stages.other]\nrun = 'wc -c other.txt > other'\ndeps = ['other.txt']\nouts = ['other']\n";
    let sources = [("one.txt", "this is in one.txt"), ("other.txt", "this is in other.txt")];
    let project = with(&format!("[store]\nkeep_sources = true\n\n{stages}"), &sources);
    run(&project);
    project.write("other.txt", "and this is there later");
    assert_eq!(project.run(&["other"]).succeeded().ran(), ["other"]);
    project.ok(&["store", "gc", "--keep-last", "1"]);
    assert!(holds(&project, "this is in one.txt"));
    run(&project);
    project.ok(&["store", "gc", "--keep-last", "1"]);
    assert!(holds(&project, "this is in one.txt") && !holds(&project, "this is in other.txt"));
}

#[test]
fn a_source_that_changes_while_the_command_runs_is_kept_in_both_versions_and_the_second_counts() {
    let project = changing(1);
    project.write("pipeline.toml", format!("[store]\nkeep_sources = true\n{}", project.read("pipeline.toml")));
    run(&project);
    assert_eq!(project.read("out.txt"), project.read("in.txt"));
    for (version, content) in ["one\n".to_owned(), project.read("in.txt")].iter().enumerate() {
        let (digest, path) =
            (headwater_cache::Digest::of(content.as_bytes()).to_string(), format!("version-{version}"));
        project.ok(&["get", &digest, "-o", &path]);
        assert_eq!(project.read(&path), *content);
    }
    assert!(run(&project).ran().is_empty());
}

/// What a command tells in its log of the inode and the permissions of its out.
fn told(project: &Project) -> String {
    project.ok(&["logs", "make"]).lines().last().expect("a line").to_owned()
}

fn seen(project: &Project, out: &str) -> String {
    let about = fs::metadata(project.path(out)).expect("an out");
    format!("{} {:o}", about.ino(), about.mode() & 0o777)
}

#[test]
fn an_out_is_moved_into_the_project_and_not_copied() {
    let line = "cat in.txt > deep/out; stat -c '%i %a' deep/out";
    let project = with(&stage(line, r#"["in.txt"]"#, r#"["deep/out"]"#), &[("in.txt", "content")]);
    run(&project);
    assert_eq!((seen(&project, "deep/out"), project.read("deep/out")), (told(&project), "content".into()));
    // Nor is it the only copy.
    fs::remove_file(project.path("deep/out")).expect("removed");
    assert!(run(&project).ran().is_empty());
    assert_eq!(project.read("deep/out"), "content");
}

#[test]
fn an_out_that_is_not_as_any_new_file_is_copied_and_the_copy_is() {
    let plain = "cat in.txt > out; stat -c '%i %a' out";
    let project = with(&stage(plain, r#"["in.txt"]"#, r#"["out"]"#), &[("in.txt", "content")]);
    run(&project);
    let ordinary = fs::metadata(project.path("out")).expect("an out").mode();
    for odd in ["chmod 600 out", "chmod a+w out", "ln out second", "chmod g+s out"] {
        let line = format!("cat in.txt > out; {odd}; stat -c '%i %a' out");
        let project = with(&stage(&line, r#"["in.txt"]"#, r#"["out"]"#), &[("in.txt", "content")]);
        run(&project);
        assert_ne!(seen(&project, "out").split(' ').next(), told(&project).split(' ').next(), "{odd}");
        assert_eq!(
            (fs::metadata(project.path("out")).expect("an out").mode(), project.read("out")),
            (ordinary, "content".into()),
            "{odd}"
        );
    }
}

#[test]
fn an_out_of_a_command_that_may_have_met_somebody_is_copied() {
    let line = "cat in.txt > out; python3 -c 'import socket; socket.socket(socket.AF_UNIX)'; stat -c '%i %a' out";
    let project = with(&stage(line, r#"["in.txt"]"#, r#"["out"]"#), &[("in.txt", "content")]);
    run(&project);
    assert_ne!(seen(&project, "out"), told(&project));
}

#[test]
fn a_command_that_makes_the_same_bytes_leaves_what_is_below_cached() {
    let make = stage("head -n 1 in.txt > first", r#"["in.txt"]"#, r#"["first"]"#);
    let project = with(
        &format!("{make}\n[stages.next]\nrun = 'cp first next'\ndeps = [\"first\"]\nouts = [\"next\"]\n"),
        &[("in.txt", "one\ntwo\n")],
    );
    run(&project);
    project.write("in.txt", "one\nthree\n");
    let again = run(&project);
    assert_eq!((again.ran(), again.with("cached")), (vec!["make".to_owned()], vec!["next".to_owned()]));
}

#[test]
fn a_moved_project_is_cached_with_its_outs_in_place() {
    let (project, other) = (folder_out(), Project::empty());
    let moved = other.path("moved");
    fs::rename(project.root(), &moved).expect("moved");
    let out = other
        .command(&["status", "--format", "json", "--pipeline", "moved/pipeline.toml"])
        .output()
        .expect("it starts");
    assert!(String::from_utf8(out.stdout).expect("text").contains(r#""state":"cached""#));
}

#[test]
fn with_a_shared_store_a_second_clone_restores_without_running() {
    let (first, second, store) = (copy(), copy(), Project::empty());
    let run = |project: &Project| {
        let mut command = project.command(&["run", "--format", "json"]);
        let out = command.env("HEADWATER_STORE", store.root()).output().expect("it starts");
        String::from_utf8(out.stdout).expect("text")
    };
    assert!(run(&first).contains(r#""outcome":"ran""#));
    assert!(run(&second).contains(r#""outcome":"cached""#));
    assert_eq!(second.read("out.txt"), "one");
    assert!(!first.path(".headwater/store").exists());
}

#[test]
fn damaged_bytes_of_an_out_are_made_again_in_the_same_run() {
    let project = copy();
    run(&project);
    fs::remove_file(project.path("out.txt")).expect("removed");
    assert_eq!(project.damage(|_, bytes| bytes == b"one"), 1);
    assert_eq!(run(&project).ran(), ["copy"]);
    assert_eq!(project.read("out.txt"), "one");
}

#[test]
fn logs_show_what_a_command_printed() {
    let project = Project::with(&stage(r"printf 'out\033[31m\n'; echo err >&2; true > out", "[]", r#"["out"]"#));
    run(&project);
    assert_eq!(project.ok(&["logs", "make"]), "out\u{1b}[31m\nerr\n");
}

#[test]
fn control_characters_of_a_failed_command_do_not_reach_the_terminal() {
    let project = Project::with(&stage(r"printf 'a\033]0;title\007b\n'; exit 1", "[]", r#"["out"]"#));
    let error = fails(&project);
    assert!(!error.contains('\u{7}') && !error.contains("\u{1b}]"), "{error}");
    assert!(error.contains(r"a\u{1b}]0;title\u{7}b"), "{error}");
}

#[test]
fn an_out_may_lie_in_a_folder_that_does_not_exist_yet() {
    let project = Project::with(&stage("echo a > deep/er/out", "[]", r#"["deep/er/out"]"#));
    run(&project);
    assert_eq!(project.read("deep/er/out"), "a\n");
}

const SWEEP: &str = r#"
[pipeline]
name = "sweep"
[matrix]
x = [1, 2, 3, 4]
y = ["a", "b"]
[stages.make]
run = "echo ${x} ${y} > out/${x}-${y}; echo ${x}"
deps = ["in.txt"]
outs = ["out/${x}-${y}"]
[stages.all]
run = "cat out/* > all"
deps = ["out"]
outs = ["all"]
"#;

#[test]
fn the_number_of_jobs_does_not_change_the_results() {
    let (one, four) = (with(SWEEP, &[("in.txt", "")]), with(SWEEP, &[("in.txt", "")]));
    let (a, b) = (one.run(&["-j", "1"]).succeeded(), four.run(&["-j", "4"]).succeeded());
    assert_eq!((a.ran().len(), a.digests()), (9, b.digests()));
    assert_eq!(one.read("all"), four.read("all"));
    assert_eq!(one.read("all").lines().count(), 8);
}

#[test]
fn a_renamed_stage_is_cached() {
    let project = copy();
    run(&project);
    project.edit("pipeline.toml", "[stages.copy]", "[stages.renamed]");
    assert_eq!(run(&project).with("cached"), ["renamed"]);
}

#[test]
fn two_processes_at_once_leave_the_project_right() {
    let project = with(SWEEP, &[("in.txt", "")]);
    let start =
        || project.command(&["run", "-j", "2"]).stderr(std::process::Stdio::piped()).spawn().expect("it starts");
    for child in [start(), start(), start()] {
        let out = child.wait_with_output().expect("it ends");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }
    assert_eq!(project.read("all").lines().count(), 8);
    assert!(run(&project).ran().is_empty());
    assert!(trash(&project).is_empty());
    assert_eq!(work_folders(&project), 0);
}

#[test]
fn the_work_folder_of_a_killed_run_is_swept_by_the_next_command() {
    let project = copy();
    project.write("pipeline.toml", stage("sleep 2; cp in.txt out.txt", r#"["in.txt"]"#, r#"["out.txt"]"#));
    let mut child = project.command(&["run"]).stderr(std::process::Stdio::null()).spawn().expect("it starts");
    let has_begun = || work_folders(&project) == 2 && project.path(".headwater/logs/make.log").exists();
    eventually("the command has begun", has_begun);
    child.kill().expect("killed");
    child.wait().expect("ended");
    assert_eq!(work_folders(&project), 2);
    project.edit("pipeline.toml", "sleep 2; ", "");
    run(&project);
    assert_eq!(work_folders(&project), 0);
}

#[test]
fn paths_that_no_command_may_have_are_refused_before_anything_runs() {
    let cases = [
        (r#"["../x"]"#, r#"["out"]"#, "`../x` is not a path inside the project"),
        (r#"["/etc/passwd"]"#, r#"["out"]"#, "`/etc/passwd` is not a path inside the project"),
        ("[]", r#"["."]"#, "`.` is not a path inside the project"),
        ("[]", r#"[".headwater/x"]"#, "`.headwater/x` lies in `.headwater`"),
        (r#"[".headwater/logs"]"#, r#"["out"]"#, "`.headwater/logs` lies in `.headwater`"),
        ("[]", r#"["pipeline.toml"]"#, "the out `pipeline.toml` would replace the pipeline file"),
        (r#"["d"]"#, r#"["d/out"]"#, "depends on a file that it writes"),
        (r#"["out"]"#, r#"["out"]"#, "depends on a file that it writes"),
        ("[]", r#"["out", "out/x"]"#, "the out `out/x` lies inside the out `out`"),
        ("[]", "[]", "a command stage needs `outs`"),
    ];
    for (deps, outs, expected) in cases {
        let error = refused(&with(&stage("touch ran; true", deps, outs), &[("d/x", "")]));
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn an_out_where_a_dep_is_put_and_inputs_of_a_command_are_refused() {
    let make = stage("true > out", "[]", r#"["out"]"#);
    let next = |keys: &str| Project::with(&format!("{make}\n[stages.next]\nrun = 'true'\nouts = [\"x/y\"]\n{keys}\n"));
    let error = refused(&next("deps = [{ from = \"make\", as = \"x\" }]"));
    assert!(error.contains("the out `x/y` is also where a dep is put"), "{error}");
    let error = refused(&next("input = \"make\""));
    assert!(error.contains("a command takes no input, it reads files") && error.contains("from = \"make\""), "{error}");
}

#[test]
fn what_cannot_be_read_in_a_folder_dep_is_named() {
    let make = |change: &dyn Fn(&Project)| {
        let project = with(&stage("true > out", r#"["data"]"#, r#"["out"]"#), &[("data/x", "")]);
        change(&project);
        fails(&project)
    };
    let link = |to: &'static str| move |project: &Project| symlink(to, project.path("data/link")).expect("a link");
    let error = make(&link("nowhere"));
    assert!(error.contains("data/link is a link to nothing"), "{error}");
    let error = make(&link("../data"));
    assert!(error.contains("data/link is a link to a folder that holds it"), "{error}");
    let error = make(&|project| fs::remove_dir_all(project.path("data")).expect("removed"));
    assert!(error.contains("there is no file data"), "{error}");
}

#[test]
fn the_line_to_step_into_a_program_works_when_pasted() {
    let project = with(
        "[pipeline]\nname = \"p\"\n[stages.make]\nrun = [\"bin/tool\", \"it's\"]\nouts = [\"out\"]\n",
        &[("bin/tool", "#!/bin/sh\necho \"$1\" >> said\nexit 7\n")],
    );
    make_executable(&project.path("bin/tool"));
    let error = fails(&project);
    let line = error.lines().find_map(|line| line.trim().strip_prefix("to step in: ")).expect("a line").to_owned();
    assert_eq!(Command::new("sh").arg("-c").arg(&line).status().expect("sh").code(), Some(7), "{line}");
    assert_eq!(project.read(".headwater/failed/make/project/said"), "it's\nit's\n");
}

#[test]
fn an_out_in_a_linked_folder_on_another_file_system_goes_to_the_trash_too() {
    let Ok(far) = tempfile::tempdir_in("/dev/shm") else { return };
    let project = Project::with(&stage("echo a > far/out", "[]", r#"["far/out"]"#));
    symlink(far.path(), project.path("far")).expect("a link");
    project.write("far/out", "mine");
    run(&project);
    assert_eq!((project.read("far/out").as_str(), trash(&project)), ("a\n", vec!["mine".into()]));
}

#[test]
fn control_characters_in_logs_are_escaped_on_a_terminal() {
    let project = Project::with(&stage(r"printf 'a\033[31mb\n'; true > out", "[]", r#"["out"]"#));
    run(&project);
    let line = format!("{} logs make", env!("CARGO_BIN_EXE_headwater"));
    let mut command = Command::new("script");
    let Ok(out) = command.args(["-qec", &line, "/dev/null"]).current_dir(project.root()).output() else { return };
    let text = String::from_utf8(out.stdout).expect("text");
    assert!(text.contains(r"a\u{1b}[31mb") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn damaged_bytes_that_the_next_stage_reads_are_made_again_in_the_same_run() {
    let project = below_a_folder(r#"["out/sub"]"#, "cat out/sub/b > used");
    run(&project);
    assert_eq!(project.damage(|_, bytes| bytes == b"b\n"), 1);
    project.edit("pipeline.toml", "cat out/sub/b", "cat -u out/sub/b");
    assert_eq!(run(&project).ran(), ["make", "use"]);
    assert_eq!(project.read("used"), "b\n");
}

#[test]
fn an_explanation_names_a_file_by_its_path_and_goes_up_to_the_file_that_changed() {
    let first = stage("cp data/in.txt res/a", r#"["data/in.txt"]"#, r#"["res/a"]"#);
    let second = "[stages.next]\nrun = 'cp res/a b'\ndeps = [\"res/a\"]\nouts = [\"b\"]\n";
    let project = with(&format!("{first}{second}"), &[("data/in.txt", "one")]);
    run(&project);
    project.write("data/in.txt", "two");
    run(&project);
    let text = project.ok(&["explain", "next"]);
    assert!(text.contains("input res/a file") && text.contains("(file data/in.txt)"), "{text}");
}

#[test]
fn a_path_by_way_of_dots_or_from_the_root_to_an_out_is_an_edge() {
    let make = stage("mkdir -p out; printf 'x\\n1\\n' > out/a.csv", "[]", r#"["out/a.csv"]"#);
    let project = Project::with("");
    let root = project.root().canonicalize().expect("a path");
    project.write(
        "pipeline.toml",
        format!(
            "{make}\n[stages.dots]\nuses = \"read\"\npath = \"data/../out/a.csv\"\n\n[stages.whole]\nuses = \"read\"\n\
             path = \"{}/out/./a.csv\"\n",
            root.display()
        ),
    );
    let first = run(&project).digests();
    project.edit("pipeline.toml", "x\\n1", "x\\n2");
    let second = run(&project).digests();
    for node in ["dots.frame", "whole.frame"] {
        assert_ne!(first[node], second[node], "{node}");
    }
}

/// A folder of programs to be found before others, and the `PATH` for it.
fn programs(names: &[&str], script: &str) -> (Project, String) {
    let folder = Project::empty();
    for name in names {
        folder.write(name, script);
        make_executable(&folder.path(name));
    }
    let path = format!("{}:{}", folder.root().display(), std::env::var("PATH").expect("PATH"));
    (folder, path)
}

fn call_with(project: &Project, arguments: &[&str], path: &str) -> String {
    let done = project.command(arguments).env("PATH", path).env("HIDDEN", "hidden").output().expect("it starts");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("text")
}

#[test]
fn every_program_of_a_shell_line_is_in_the_key_by_its_version() {
    let (folder, path) = programs(&["first", "second"], "#!/bin/sh\necho 1\n");
    let line = "set -e; mkdir src && cd src && if A=1 first; then (exec second); fi | cat > ../out";
    let project = Project::with(&stage(line, "[]", r#"["out"]"#));
    let again = || call_with(&project, &["run", "--format", "json"], &path).contains(r#""outcome":"ran""#);
    assert!(again() && !again());
    for name in ["first", "second"] {
        folder.write(name, "#!/bin/sh\necho 2\n");
        assert!(again(), "{name}");
        assert!(!again(), "{name}");
    }
}

#[test]
fn a_program_is_asked_for_its_version_by_commands_that_need_keys_alone() {
    let (folder, path) = programs(&["noted"], "");
    folder.write("noted", format!("#!/bin/sh\necho called \"$HIDDEN\" >> {}/calls\n", folder.root().display()));
    let project = Project::with(&free_stage("noted; echo made > out", "[]", r#"["out"]"#));
    let calls = || fs::read_to_string(folder.path("calls")).unwrap_or_default();
    call_with(&project, &["graph"], &path);
    assert_eq!(calls(), "");
    call_with(&project, &["run"], &path);
    assert_eq!(
        calls(),
        "called \ncalled \n",
        "once for the key and once for the command, neither sees the environment"
    );
    for arguments in [&["graph"][..], &["log"], &["logs", "make"], &["schema"]] {
        call_with(&project, arguments, &path);
    }
    assert_eq!(calls().lines().count(), 2);
    call_with(&project, &["status"], &path);
    call_with(&project, &["explain", "make"], &path);
    assert_eq!(calls().lines().count(), 4);
}

#[test]
fn a_program_that_does_not_tell_its_version_in_time_counts_by_its_file() {
    let (folder, path) = programs(&["silent"], "#!/bin/sh\n[ \"$1\" = --version ] && exec sleep 600\necho one > out\n");
    let project = Project::with(&stage("silent", "[]", r#"["out"]"#));
    let again = || call_with(&project, &["run", "--format", "json"], &path).contains(r#""outcome":"ran""#);
    assert!(again() && !again());
    folder.write("silent", "#!/bin/sh\n[ \"$1\" = --version ] && exec sleep 600\necho two > out\n");
    assert!(again());
}

#[test]
fn a_damaged_column_of_a_mounted_frame_is_made_again_in_the_same_run() {
    let table = "[stages.table]\nuses = \"read\"\npath = \"t.csv\"\n\n";
    let make = "[stages.make]\nrun = \"wc -l < in.csv > out\"\ndeps = [{ from = \"table\", as = \"in.csv\" }]\nouts = [\"out\"]\n";
    let project = with(&format!("{table}{make}"), &[("t.csv", "name\nneedle in a column\nother\n")]);
    run(&project);
    // Of the same length, so that only reading finds it.
    assert_eq!(project.damage(|_, bytes| bytes.windows(6).any(|part| part == b"needle")), 1);
    project.edit("pipeline.toml", "wc -l", "wc  -l");
    assert_eq!(run(&project).ran(), ["make", "table"]);
}

#[test]
fn a_secret_is_passed_on_and_in_the_key_and_written_nowhere() {
    let pipeline = stage("printf %s \"$API_KEY\" | wc -c > out", "[]", r#"["out"]"#) + "secrets = [\"API_KEY\"]\n";
    let project = Project::with(&pipeline);
    let call = |arguments: &[&str], value: &str| {
        let done = project.command(arguments).env("API_KEY", value).output().expect("it starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text")
    };
    let again = |value: &str| call(&["run", "--format", "json"], value).contains(r#""outcome":"ran""#);
    assert!(again("hunter2-one") && !again("hunter2-one"));
    assert_eq!(project.read("out").trim(), "11");
    let text = call(&["explain", "make"], "hunter2-three");
    assert!(text.contains("secrets.API_KEY") && !text.contains("hunter2"), "{text}");
    assert!(again("hunter2-three"));
    let key = project.path(".headwater/store/secrets.key");
    assert_eq!(fs::metadata(&key).expect("a key").permissions().mode() & 0o777, 0o600);
    for file in walkdir::WalkDir::new(project.path(".headwater")).into_iter().filter_map(Result::ok) {
        if file.file_type().is_file() {
            let bytes = fs::read(file.path()).expect("bytes");
            assert!(!bytes.windows(7).any(|part| part == b"hunter2"), "{}", file.path().display());
        }
    }
}

#[test]
fn projects_that_share_a_store_share_what_secrets_made() {
    let pipeline = stage("echo made > out", "[]", r#"["out"]"#) + "secrets = [\"API_KEY\"]\n";
    let store = Project::empty();
    let outcome = || {
        let project = Project::with(&pipeline);
        let mut command = project.command(&["run", "--format", "json"]);
        let done =
            command.env("API_KEY", "hunter2").env("HEADWATER_STORE", store.path("s")).output().expect("it starts");
        String::from_utf8(done.stdout).expect("text").contains(r#""outcome":"ran""#)
    };
    assert!(outcome() && !outcome());
}

#[test]
fn a_flaky_command_is_tried_again() {
    let project = Project::empty();
    let count = project.path("count").display().to_string();
    project.write(
        "pipeline.toml",
        format!(
            r#"
[stages.flaky]
run = "echo x >> {count} && test $(wc -l < {count}) = 2 && cp {count} out.txt"
outs = ["out.txt"]
hermetic = false
retries = 1
resources = {{ cpus = 64, memory = "1M", license = 1 }}

[stages.hopeless]
run = "false"
outs = ["never.txt"]
retries = 1
"#
        ),
    );
    let run = project.run(&["--keep-going"]);
    assert_eq!(run.done.code, 1);
    let retried: Vec<&str> = run.done.out.lines().filter(|line| line.contains(r#""event":"node_retrying""#)).collect();
    assert_eq!(retried.len(), 2, "{}", run.done.out);
    assert!(retried.iter().all(|line| line.contains(r#""attempt":1"#) && line.contains(r#""seconds":1.0"#)));
    assert_eq!(run.node("flaky")["outcome"], "ran");
    assert_eq!(project.read("out.txt"), "x\nx\n");
    assert_eq!(run.node("hopeless")["outcome"], "failed");
    assert!(run.node("hopeless")["error"].as_str().expect("a text").contains("exit code 1"));
}

#[test]
fn an_out_behind_a_link_is_refused() {
    let project = Project::with(
        "[stages.a]\nrun = \"rmdir a/b && ln -s /etc a/b\"\nouts = [\"a/b/hostname\"]\nhermetic = false\n",
    );
    let run = project.run(&[]);
    assert_eq!(run.done.code, 1);
    let error = run.node("a")["error"].as_str().expect("a text");
    let expected = "the out `a/b/hostname` lies behind a link, `a/b`; an out is a file, or a folder of files";
    assert!(error.contains(expected), "{error}");
}

#[test]
fn what_a_command_printed_is_an_object_a_line_for_scripts() {
    let project =
        Project::with("[stages.make]\nrun = '''printf 'one\\ntwo \\377\\n'; touch out'''\nouts = [\"out\"]\n");
    project.run(&[]).succeeded();
    let line = |text: &str| format!("{{\"event\":\"printed\",\"node\":\"make\",\"text\":\"{text}\"}}\n");
    assert_eq!(project.ok(&["logs", "make", "--format", "json"]), line("one") + &line("two \u{fffd}"));
}

#[test]
fn ends_of_lines_as_windows_has_them_mean_nothing() {
    let pipeline = "[stages.make]\nrun = '''\necho one > out\necho two >> out\n'''\nouts = [\"out\"]\n";
    let project = Project::with(pipeline);
    project.run(&[]).succeeded();
    project.write("pipeline.toml", pipeline.replace('\n', "\r\n"));
    assert!(project.run(&[]).succeeded().ran().is_empty());
    fs::remove_dir_all(project.path(".headwater")).expect("removed");
    project.run(&[]).succeeded();
    assert_eq!(project.read("out"), "one\ntwo\n");
}
