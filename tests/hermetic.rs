//! Whether a command was held to what it declares: in its key, in what is told, and on a system that cannot do it.

mod support;

use std::collections::BTreeMap;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
use support::{Done, Project, finish};

fn project() -> Project {
    let project = Project::with(
        "[pipeline]\nname = \"p\"\n\n[stages.make]\nrun = \"cp in.txt out\"\ndeps = [\"in.txt\"]\nouts = [\"out\"]\n",
    );
    project.write("in.txt", "text");
    project
}

/// A run on a kernel that knows no Landlock.
fn without_landlock(project: &Project) -> Done {
    let mut command = project.command(&["run", "--format", "json"]);
    let architecture = std::env::consts::ARCH.try_into().expect("a known processor");
    let rules = BTreeMap::from([(libc::SYS_landlock_create_ruleset, Vec::new())]);
    let refuse = SeccompAction::Errno(libc::ENOSYS as u32);
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, architecture).expect("a filter");
    let filter: BpfProgram = filter.try_into().expect("a program");
    // A filter binds a thread, and what it starts.
    let run = std::thread::spawn(move || {
        seccompiler::apply_filter(&filter).expect("a filter");
        command.output().expect("it starts")
    });
    finish(run.join().expect("no panic"))
}

#[test]
fn a_result_says_whether_its_command_was_held_to_what_it_declares() {
    let project = project();
    assert_eq!(project.run(&[]).succeeded().node("make")["hermetic"], "enforced");
    project.write("pipeline.toml", project.read("pipeline.toml") + "hermetic = false\n");
    assert_eq!(project.run(&[]).succeeded().node("make")["hermetic"], "off");
    let journal =
        std::fs::read_dir(project.path(".headwater/runs")).expect("runs").map(|run| run.expect("a run").path());
    let journal: Vec<String> = journal.map(|run| std::fs::read_to_string(run).expect("text")).collect();
    assert!(journal.iter().any(|run| run.contains(r#""hermetic":"off""#)), "{journal:?}");
}

#[test]
fn what_was_made_unheld_is_no_result_of_who_asks_for_bounds() {
    let project = project();
    project.edit("pipeline.toml", "name = \"p\"", "name = \"p\"\nhermetic = false");
    assert_eq!(project.run(&[]).succeeded().ran(), ["make"]);
    project.edit("pipeline.toml", "\nhermetic = false", "");
    assert_eq!(project.run(&[]).succeeded().ran(), ["make"]);
    assert!(project.run(&[]).succeeded().ran().is_empty());
}

#[test]
fn a_stage_may_be_hermetic_in_a_pipeline_that_is_not() {
    let project = project();
    project.edit("pipeline.toml", "name = \"p\"", "name = \"p\"\nhermetic = false");
    project.write("pipeline.toml", project.read("pipeline.toml") + "hermetic = true\n");
    assert_eq!(project.run(&[]).succeeded().node("make")["hermetic"], "enforced");
}

#[test]
fn limits_of_time_are_not_in_the_key_and_the_network_is() {
    let project = project();
    project.run(&[]).succeeded();
    project.write("pipeline.toml", project.read("pipeline.toml") + "timeout = \"1h\"\nidle_timeout = \"1h\"\n");
    assert!(project.run(&[]).succeeded().ran().is_empty());
    project.write("pipeline.toml", project.read("pipeline.toml") + "network = true\n");
    assert_eq!(project.run(&[]).succeeded().ran(), ["make"]);
}

#[test]
fn where_the_kernel_cannot_do_it_a_run_says_so_once_and_marks_its_results() {
    let project = project();
    let unheld = without_landlock(&project);
    assert_eq!(unheld.code, 0, "{}", unheld.err);
    assert_eq!(
        unheld.err.matches("this system cannot hold commands to what they declare").count(),
        1,
        "{}",
        unheld.err
    );
    assert!(unheld.out.contains(r#""hermetic":"unavailable""#), "{}", unheld.out);
    assert_eq!(project.processes(), Vec::<String>::new());
    let held = project.run(&[]).succeeded();
    assert_eq!((held.ran(), held.node("make")["hermetic"].as_str()), (vec!["make".to_owned()], Some("enforced")));
}

/// What a run says of a stage `make` that fails.
fn failing(line: &str, keys: &str) -> String {
    let project = project();
    let root = project.root().canonicalize().expect("a path").display().to_string();
    let line = format!("run = \"{}\"", line.replace("{root}", &root));
    project.edit("pipeline.toml", "run = \"cp in.txt out\"", &line);
    project.write("pipeline.toml", project.read("pipeline.toml") + keys);
    for path in ["data/x.csv", "data/y.csv", "tool.sh"] {
        project.write(path, "text");
    }
    let done = project.call(&["run"]);
    assert_eq!((done.code, project.processes()), (1, Vec::new()), "{}", done.err);
    done.err
}

#[test]
fn what_a_failed_command_looked_for_in_silence_is_told_with_the_line_to_add() {
    for line in ["cat data/x.csv > out 2> /dev/null", "cat data/x.csv nowhere .git/x > out 2> /dev/null; exit 3"] {
        let told = failing(line, "");
        let hint = " `data/x.csv` is in the project, and no dep: add it: deps = [\"in.txt\", \"data/x.csv\"]\n";
        assert!(told.contains(hint) && !told.contains("headwater deps"), "{told}");
    }
    let told = failing("(test -e tool.sh; ls data; cat data/y.csv) 2> /dev/null; exit 3", "");
    let hint =
        " `data/y.csv` is in the project, and no dep: add it: deps = [\"in.txt\", \"data/y.csv\", \"tool.sh\"]\n";
    assert!(told.contains(hint), "{told}");
}

#[test]
fn what_a_failed_command_named_where_it_may_not_read_is_told() {
    let told = failing("cat {root}/data/x.csv > out 2> /dev/null", "");
    let sight = "was to be read in the project itself, which is out of a hermetic command's sight: ";
    let hint = format!(" `data/x.csv` {sight}name it by that path, and add it: deps = [\"in.txt\", \"data/x.csv\"]\n");
    assert!(told.contains(&hint), "{told}");
    let told = failing("cat {root}/in.txt > out 2> /dev/null", "");
    let hint = format!(" `in.txt` {sight}it is a dep, and stands at `in.txt` where the command runs\n");
    assert!(told.contains(&hint), "{told}");
}

#[test]
fn what_is_nowhere_is_told_if_the_command_complains_of_it_and_nothing_else_is_missing() {
    let told = failing("cat in.txt odd.csv > out", "");
    assert!(told.contains(" `odd.csv` is no dep, and not in the project either\n"), "{told}");
    for line in ["cat odd.csv > out 2> /dev/null", "test -e odd.csv || { echo odd.csv; exit 3; }", "exit 3"] {
        let told = failing(line, "");
        assert!(!told.contains("in the project"), "{told}");
    }
}

#[test]
fn a_dep_that_a_failed_command_has_moved_or_removed_itself_is_not_told_as_missing() {
    for line in ["cat in.txt; rm in.txt; exit 3", "mv in.txt out; cat in.txt"] {
        let told = failing(line, "");
        assert!(!told.contains("in the project"), "{told}");
    }
    let told = failing("rm in.txt; cat data/x.csv > out 2> /dev/null", "");
    assert!(told.contains("add it: deps = [\"in.txt\", \"data/x.csv\"]\n"), "{told}");
}

#[test]
fn what_a_failed_command_complains_of_is_told_if_it_never_asked_the_kernel_for_it() {
    let told = failing("ls | grep -qx data || { echo 'data/x.csv: not found'; exit 3; }", "");
    let hint = " `data/x.csv` is in the project, and no dep: add it: deps = [\"in.txt\", \"data/x.csv\"]\n";
    assert!(told.contains(hint), "{told}");
}

#[test]
fn a_command_that_was_ended_by_a_signal_is_not_looked_at_again() {
    // Whoever is looked at asks for the file, and is told.
    let looks = "test -e data/x.csv;";
    let told = failing(&format!("{looks} exit 3"), "");
    assert!(told.contains("`data/x.csv` is in the project"), "{told}");
    for end in ["kill -9 $$", "sh -c 'kill -9 $$'; exit $?"] {
        let told = failing(&format!("{looks} {end}"), "");
        assert!(!told.contains("in the project"), "{told}");
    }
}

#[test]
fn a_command_with_large_deps_is_not_looked_at_again() {
    let project = project();
    project.edit("pipeline.toml", "cp in.txt out", "test -e data/x.csv; exit 3");
    project.write("data/x.csv", "text");
    let large = std::fs::File::create(project.path("in.txt")).expect("a file");
    large.set_len(300 * 1024 * 1024).expect("a hole");
    let done = project.call(&["run"]);
    assert!(done.code == 1 && !done.err.contains("data/x.csv` is in"), "{}", done.err);
}

#[test]
fn a_failed_command_that_may_change_the_world_is_run_once_and_told_how_to_find_out() {
    let told = failing("echo 'it is not found'; exit 3", "network = true\n");
    assert_eq!(told.contains("headwater deps make"), cfg!(target_arch = "x86_64"), "{told}");
    assert!(!failing("echo wrong; exit 3", "network = true\n").contains("headwater deps"));
    let once = "echo x >> {root}/times; exit 3";
    let project = project();
    let root = project.root().canonicalize().expect("a path").display().to_string();
    project.edit("pipeline.toml", "cp in.txt out", &once.replace("{root}", &root));
    project.write("pipeline.toml", project.read("pipeline.toml") + "hermetic = false\n");
    assert_eq!(project.call(&["run"]).code, 1);
    assert_eq!(project.read("times"), "x\n");
}

/// In a container, what has started a program may lie outside of all that the program can see: its session and its
/// group have the number 0 then.
#[test]
fn commands_run_in_a_session_from_outside_of_the_pid_namespace() {
    let project = project();
    let inside = ["--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    let unshare = || std::process::Command::new("unshare");
    if !unshare().args(inside).arg("true").status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine makes no PID namespace");
        return;
    }
    let command = project.command(&["run", "--format", "json"]);
    let mut whole = unshare();
    whole.args(inside).arg(command.get_program()).args(command.get_args()).current_dir(project.path("."));
    whole.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = finish(whole.output().expect("it starts"));
    assert!(done.code == 0 && done.out.contains(r#""hermetic":"enforced""#), "{}{}", done.out, done.err);
}

/// What a failed command is told of what it did not get, with this in its stage.
fn told_of_what_is_withheld(run: &str, more: &str) -> Vec<String> {
    let project = Project::with(&format!("[stages.make]\nrun = '''{run}'''\nouts = [\"out\"]\n{more}"));
    let variables = [("API_KEY", "1"), ("AAA", "2")];
    let done = finish(project.command(&["run"]).envs(variables).output().expect("it starts"));
    assert_eq!(done.code, 1);
    let hints = ["add: ", "add it: ", "add them: ", "not set here"];
    let lines = done.err.lines().filter(|line| hints.iter().any(|hint| line.contains(hint)));
    lines.map(|line| line.trim().to_owned()).collect()
}

#[test]
fn variables_that_a_failed_command_asks_for_and_does_not_get_are_named() {
    let told = told_of_what_is_withheld;
    let hint = |env: &str| {
        let hint = "`API_KEY` is set here and not declared, so it does without: add it:";
        format!("{hint} env = [{env}\"API_KEY\"], or to `secrets`")
    };
    assert_eq!(told("test -n \"$API_KEY\"", ""), [hint("")]);
    let complains = "echo AAA; echo \"KeyError: 'API_KEY'\"; exit 1";
    assert_eq!(told(complains, "env = [\"PATH\"]\n"), [hint("\"PATH\", ")]);
    let both = "`AAA`, `API_KEY` are set here and not declared, so it does without: add them: env = [\"AAA\", \"API_KEY\"], or to `secrets`";
    assert_eq!(told("test -n \"$API_KEY$AAA\"", ""), [both]);
    for declared in ["env", "secrets"] {
        assert_eq!(told("test -z \"$API_KEY\"", &format!("{declared} = [\"API_KEY\"]\n")), [""; 0]);
        let unset = "`TOKNE` is declared, and not set here";
        assert_eq!(told("exit 1", &format!("{declared} = [\"TOKNE\"]\n")), [unset]);
    }
    for other in ["echo API_KEY; exit 1", "true"] {
        assert_eq!(told(other, ""), [""; 0]);
    }
}

#[test]
fn a_failed_command_that_complains_of_the_network_is_told_that_it_has_none() {
    let hint = "it has no network, as it does not declare it: add: network = true";
    let fetch = "python3 -c 'import socket; socket.socket()'";
    let resolve = "echo 'curl: (6) Could not resolve host: example.org'; exit 6";
    assert_eq!(told_of_what_is_withheld(fetch, ""), [hint]);
    assert_eq!(told_of_what_is_withheld(resolve, ""), [hint]);
    for without in ["network = true\n", "hermetic = false\n"] {
        assert_eq!(told_of_what_is_withheld(resolve, without), [""; 0]);
    }
}

#[test]
fn a_variable_does_not_bring_files_of_the_project_into_sight() {
    let project = Project::with("[stages.make]\nrun = 'cat \"$DATA/x\" > out'\nouts = [\"out\"]\nenv = [\"DATA\"]\n");
    project.write("data/x", "text");
    let run = |data: &std::path::Path| finish(project.command(&["run"]).env("DATA", data).output().expect("it starts"));
    let done = run(&project.path("data"));
    assert!(done.code == 1 && done.err.contains("out of a hermetic command's sight"), "{}", done.err);
    let elsewhere = tempfile::tempdir().expect("a folder");
    std::fs::write(elsewhere.path().join("x"), "other").expect("a file");
    assert_eq!((run(elsewhere.path()).code, project.read("out")), (0, "other".to_owned()));
}

#[test]
fn a_module_beside_the_script_that_imports_it_is_named() {
    let project =
        Project::with("[stages.make]\nrun = 'python3 src/main.py'\ndeps = [\"src/main.py\"]\nouts = [\"out\"]\n");
    project.write("src/main.py", "import shared\nopen('out', 'w').write(shared.WORD)\n");
    project.write("src/shared.py", "WORD = 'text'\n");
    let done = project.call(&["run"]);
    let line = "add it: deps = [\"src/main.py\", \"src/shared.py\"]";
    assert!(done.code == 1 && done.err.contains(line), "{}", done.err);
}

#[test]
fn a_command_that_does_not_make_the_folder_of_its_out_is_told_to() {
    let project = Project::with("[stages.make]\nrun = 'echo text > made/file'\nouts = [\"made\"]\n");
    let done = project.call(&["run"]);
    let hint = "`made` is an out: a folder that the command makes itself: mkdir -p made\n";
    assert!(done.code == 1 && done.err.contains(hint), "{}", done.err);
}
