//! Commands that do what no command should, by the real binary: whatever they do, no process is left, no byte of the store
//! changes, and no file of the user is lost.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::{Done, Project};

/// What a file of the user, an out in the store and a home hold.
const PRECIOUS: &str = "hours of work";

/// A project with an out in the store, files of the user, and a stage `make` that depends on `in.txt`, has the out `out`,
/// and runs this line. `{root}` in it is the project's folder.
fn project(line: &str, keys: &str) -> Project {
    let project = Project::with("");
    let line = line.replace("{root}", &project.root().canonicalize().expect("a path").display().to_string());
    project.write(
        "pipeline.toml",
        format!(
            "[pipeline]\nname = \"p\"\n\n[stages.kept]\nrun = \"printf '{PRECIOUS}' > kept\"\nouts = [\"kept\"]\n\n\
             [stages.make]\nrun = '''{line}'''\ndeps = [\"in.txt\"]\nouts = [\"out\"]\n{keys}\n"
        ),
    );
    for file in ["in.txt", "mine.txt", "folder/mine.txt", "home/.ssh/key", "out"] {
        project.write(file, PRECIOUS);
    }
    project.run(&["kept"]).succeeded();
    project
}

/// Runs the stage, and looks at all that must be as it was.
fn suffer(project: &Project) -> Done {
    let before = snapshot(project);
    let home = project.path("home");
    let output = project.command(&["run", "--format", "json"]).env("HOME", home).output().expect("it starts");
    let done = Done {
        code: output.status.code().expect("an exit code"),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    };
    assert_eq!(project.processes(), Vec::<String>::new(), "nothing is left");
    for (path, bytes) in before {
        let now = fs::read(project.path(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(now.starts_with(&bytes), "{path} is as it was");
    }
    for file in ["in.txt", "mine.txt", "folder/mine.txt", "home/.ssh/key"] {
        assert_eq!(project.read(file), PRECIOUS, "{file}");
    }
    project.ok(&["store", "verify", "--full"]);
    fs::remove_file(project.path("kept")).expect("removed");
    assert_eq!(project.run(&["kept"]).succeeded().with("cached"), ["kept"]);
    assert_eq!(project.read("kept"), PRECIOUS);
    done
}

/// The files of the store that are only ever added to.
fn snapshot(project: &Project) -> Vec<(String, Vec<u8>)> {
    let store = project.path(".headwater/store");
    let files = walkdir::WalkDir::new(&store).into_iter().map(|entry| entry.expect("an entry"));
    let grows = |path: &std::path::Path| {
        path.components().any(|part| part.as_os_str() == "segments" || part.as_os_str() == "blobs")
    };
    files
        .filter(|entry| entry.file_type().is_file() && grows(entry.path()))
        .map(|entry| {
            let path = entry.path().strip_prefix(project.root()).expect("inside").to_string_lossy().into_owned();
            (path, fs::read(entry.path()).expect("bytes"))
        })
        .collect()
}

/// The stage fails, with this in its text, and the user's file in the place of its out is still there.
fn fails_with(line: &str, keys: &str, expected: &str) {
    let project = project(line, keys);
    let done = suffer(&project);
    assert_eq!(done.code, 1, "{line}: {}{}", done.out, done.err);
    assert!(done.out.contains(expected), "{line}: {}", done.out);
    assert_eq!(project.read("out"), PRECIOUS, "{line}");
}

/// The stage succeeds, with this as its out.
fn succeeds(line: &str, keys: &str, expected: &str) {
    let project = project(line, keys);
    let done = suffer(&project);
    assert_eq!(done.code, 0, "{line}: {}{}", done.out, done.err);
    assert_eq!(project.read("out"), expected, "{line}");
}

fn has(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[test]
fn daemons_end_with_the_command() {
    succeeds("(sleep 1000 &) ; echo made > out", "", "made\n");
    succeeds(
        "setsid sleep 1000 & setsid sh -c 'setsid sleep 1000 & sleep 1000' & sleep 0.1; echo made > out",
        "",
        "made\n",
    );
    succeeds("(trap '' TERM HUP INT; while :; do sleep 1; done) & sleep 0.1; echo made > out", "", "made\n");
    succeeds("env -i setsid sh -c 'sleep 1000' & sleep 0.1; echo made > out", "", "made\n");
    succeeds("sh -c 'kill -STOP $$' & sleep 0.1; echo made > out", "", "made\n");
}

#[test]
fn a_background_writer_to_an_out_is_gone_before_the_out_is_stored() {
    let project =
        project("echo made > out; (while :; do echo late >> out; sleep 0.01; done) & sleep 0.1; exec 3>> out", "");
    let done = suffer(&project);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    let stored = project.read("out");
    fs::remove_file(project.path("out")).expect("removed");
    project.run(&[]).succeeded();
    assert_eq!(project.read("out"), stored);
}

#[test]
fn a_bounded_fork_bomb_is_gone() {
    let bomb = "bomb() { if [ $1 -gt 0 ]; then bomb $(($1 - 1)) & bomb $(($1 - 1)) & fi; sleep 1000; }; bomb 7 & sleep 0.3; echo made > out";
    succeeds(bomb, "", "made\n");
}

#[test]
fn a_command_that_hangs_is_ended_by_its_limits() {
    fails_with(
        "trap '' TERM; while :; do sleep 1; done",
        "timeout = \"300ms\"",
        "it took longer than 300 ms (`timeout`)",
    );
    fails_with("kill -STOP $$", "timeout = \"300ms\"", "it took longer than 300 ms (`timeout`)");
    fails_with("echo a; sleep 1000", "idle_timeout = \"300ms\"", "it printed nothing for 300 ms (`idle_timeout`)");
}

#[test]
fn endless_output_is_bounded() {
    let project = project("yes", "timeout = \"2s\"");
    assert_eq!(suffer(&project).code, 1);
    let log = fs::metadata(project.path(".headwater/logs/make.log")).expect("a log").len();
    assert!(log < 17 * 1024 * 1024, "{log}");
    let shown = project.ok(&["logs", "make"]);
    assert!(shown.contains("bytes are left out here]"));
}

#[test]
fn control_characters_are_shown_as_text() {
    let project = project(r"printf 'a\033]0;title\007b\342\200\256c\n'; exit 1", "");
    let done = suffer(&project);
    assert_eq!(done.code, 1);
    assert!(done.out.contains(r"a\\u{1b}]0;title\\u{7}b\\u{202e}c"), "{}", done.out);
}

#[test]
fn deps_are_the_commands_own() {
    succeeds("rm in.txt; echo made > out", "", "made\n");
    succeeds("echo more >> in.txt; cp in.txt out", "", &format!("{PRECIOUS}more\n"));
    succeeds("chmod 000 in.txt; mv in.txt gone; echo made > out", "", "made\n");
    succeeds("ln in.txt linked; echo x > linked; cp in.txt out", "", "x\n");
}

#[test]
fn a_folder_that_is_made_unreadable_or_removed_is_the_commands_own() {
    succeeds("mkdir d; echo x > d/x; chmod 000 d; echo made > out; chmod 500 .", "", "made\n");
    fails_with("rm -rf \"$PWD\" ../tmp", "", "the command did not make its out");
}

#[test]
fn an_out_that_is_no_file_is_refused() {
    fails_with("ln -s /etc/passwd out", "", "the out `out` is a symbolic link");
    fails_with("ln -s {root}/mine.txt out", "", "the out `out` is a symbolic link");
    fails_with("mkfifo out", "", "the out `out` is a device, pipe or socket");
    fails_with("mkdir out; mkfifo out/p", "", "the out `out/p` is a device, pipe or socket");
    fails_with("mknod out c 1 3", "", "the command ended with exit code 1");
    if has("python3") {
        let socket = "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"out\")'";
        fails_with(socket, "", "the out `out` is a device, pipe or socket");
    }
}

#[test]
fn an_out_that_would_be_a_hole_of_a_tebibyte_is_refused() {
    fails_with("truncate -s 1T out", "", "the out `out` is 1099511627776 bytes long");
}

#[test]
fn an_out_that_is_missing_or_cut_off_by_a_signal_is_refused() {
    fails_with("true", "", "the command did not make its out `out`");
    fails_with("echo half > out; exit 3", "", "the command ended with exit code 3");
    fails_with("echo half > out; kill -SEGV $$", "", "the command ended with signal 11");
}

#[test]
fn names_that_are_no_text_and_folders_too_deep_are_refused() {
    fails_with(r"mkdir out; touch out/$(printf 'a\377b')", "", "is not UTF-8");
    if has("python3") {
        let deep = "python3 -c 'import os\nos.mkdir(\"out\"); os.chdir(\"out\")\nfor i in range(1200): os.mkdir(\"deeper\"); os.chdir(\"deeper\")'";
        fails_with(deep, "", "File name too long");
    }
}

#[test]
fn names_with_newlines_are_kept() {
    let project = project("mkdir out; printf x > \"$(printf 'out/a\\nb')\"", "");
    let done = suffer(&project);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    assert_eq!(project.read("out/a\nb"), "x");
}

#[test]
fn a_file_of_the_store_cannot_become_an_out() {
    let format = "{root}/.headwater/store/format";
    fails_with(&format!("ln -s {format} out"), "", "the out `out` is a symbolic link");
    fails_with(&format!("ln {format} out"), "", "ended with exit code 1");
    let line = &format!("ln {format} out");
    let project = project(line, "hermetic = false");
    assert_eq!(suffer(&project).code, 0);
    project.write("out", "written over");
    project.ok(&["store", "verify", "--full"]);
}

#[test]
fn what_is_not_declared_cannot_be_read() {
    for path in ["{root}/mine.txt", "{root}/home/.ssh/key", "{root}/in.txt", "{root}/kept", "{root}/pipeline.toml"] {
        fails_with(&format!("cat {path} > out"), "", "the command ended with exit code 1");
    }
    fails_with("ls {root} > out", "", "Permission denied");
    fails_with("cat {root}/.headwater/store/format > out", "", "Permission denied");
    fails_with("cat ../../../../../mine.txt > out", "", "Permission denied");
    fails_with("cp /proc/$PPID/environ out", "", "Permission denied");
}

#[test]
fn nothing_but_the_folder_can_be_written() {
    for line in [
        "echo x > {root}/new.txt",
        "echo x >> {root}/mine.txt",
        "echo x > {root}/kept",
        "rm {root}/mine.txt",
        "mv {root}/folder/mine.txt here",
        "rm -r {root}/folder",
        "echo x >> {root}/.headwater/store/format",
        "rm -r {root}/.headwater/store",
        "find {root}/.headwater/store -type f -exec truncate -s 0 {} + ; exit 1",
        "echo x > /tmp/headwater-was-here",
        "echo x > /dev/sda",
    ] {
        fails_with(line, "", "the command ended with exit code");
        let project = project(line, "");
        suffer(&project);
        assert!(!project.path("new.txt").exists());
    }
}

#[test]
fn an_undeclared_dep_that_changes_while_the_command_runs_is_not_seen() {
    let project = project("sleep 0.3; cp in.txt out", "");
    let root = project.root().to_owned();
    let editor = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(100));
        fs::write(root.join("unrelated.txt"), "edited").expect("written");
    });
    assert_eq!(suffer(&project).code, 0);
    editor.join().expect("no panic");
    assert_eq!(project.read("out"), PRECIOUS);
}

#[test]
fn the_network_is_closed_unless_it_is_declared() {
    if !has("python3") {
        return;
    }
    let connect = "python3 -c 'import socket; socket.socket()' && echo made > out";
    fails_with(connect, "", "Operation not permitted");
    succeeds(connect, "network = true", "made\n");
    succeeds(connect, "hermetic = false", "made\n");
}

#[test]
fn no_other_way_leads_to_a_socket() {
    if !has("python3") {
        return;
    }
    // `io_uring_setup`, which has this number on every kind of processor.
    let ring = "import ctypes; libc = ctypes.CDLL(None, use_errno=True); room = ctypes.create_string_buffer(120)\n\
                print(libc.syscall(425, 1, room), ctypes.get_errno())";
    succeeds(&format!("python3 -c '{ring}' > out"), "", "-1 1\n");
}

#[test]
fn a_command_can_neither_signal_nor_trace_what_runs_it() {
    let project = project("kill -9 $PPID; kill -0 $PPID && exit 7; echo made > out", "");
    let done = suffer(&project);
    // Kernels before 6.12 cannot keep signals in; then it is the supervisor that was killed, and nothing is left either.
    assert!(
        done.code == 0 || done.out.contains("the supervisor of the command was killed"),
        "{}{}",
        done.out,
        done.err
    );
    fails_with("kill -9 $PPID; sleep 1000", "hermetic = false", "the supervisor of the command was killed");
    fails_with("setsid sleep 1000 & sleep 0.1; kill -9 $PPID; sleep 1000", "hermetic = false", "was killed");
    if has("python3") {
        let trace = "python3 -c 'import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\nexit(libc.ptrace(16, int(os.environ[\"RUNS_IT\"]), 0, 0) != -1)' && echo made > out";
        let trace = &format!("export RUNS_IT=$PPID; {trace}");
        succeeds(trace, "", "made\n");
    }
}

#[test]
fn closed_standard_streams_are_no_trouble() {
    succeeds("exec < /dev/null > /dev/null 2>&1; exec <&- >&- 2>&-; printf made > out", "", "made");
}

#[test]
fn a_limit_on_file_sizes_and_a_full_folder_are_failures_with_their_text() {
    fails_with("ulimit -f 8; head -c 1000000 /dev/zero > out", "", "the command ended with");
}

#[test]
fn arguments_and_environments_that_are_too_large_are_told() {
    let project = project("true", "");
    let words = vec![format!("\"{}\"", "x".repeat(100_000)); 40].join(", ");
    project.write(
        "pipeline.toml",
        format!("{}\n[stages.huge]\nrun = [\"echo\", {words}]\nouts = [\"huge\"]\n", project.read("pipeline.toml")),
    );
    let done = project.call(&["run", "huge"]);
    assert_eq!(done.code, 1);
    assert!(
        done.err.contains("the command cannot be started: Argument list too long"),
        "{}",
        &done.err[done.err.len() - 300..]
    );
}

#[test]
fn files_without_a_mode_can_be_outs() {
    let project = project("umask 777; printf made > out; chmod 000 out", "");
    let done = suffer(&project);
    // Root reads what has no mode; others are told.
    assert!(done.code == 0 || done.out.contains("Permission denied"), "{}", done.out);
    assert!(!fs::symlink_metadata(project.path("out")).expect("it is there").file_type().is_fifo());
}

#[test]
fn what_a_command_reads_is_found_by_running_it_traced() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let line = "cat in.txt folder/mine.txt; test -e mine.txt; (cat out; ls folder > out) 2> /dev/null";
    let project = project(line, "");
    project.edit("pipeline.toml", r#"deps = ["in.txt"]"#, r#"deps = ["in.txt", "home/.ssh/key"]"#);
    let done = project.call(&["deps", "make"]);
    assert_eq!(
        (done.code, done.out.as_str()),
        (0, "deps = [\"in.txt\", \"home/.ssh/key\", \"folder\", \"mine.txt\"]\n"),
        "{}",
        done.err
    );
    assert!(done.err.contains("declares, and did not read: home/.ssh/key"), "{}", done.err);
    assert_eq!((project.read("out").as_str(), project.processes()), (PRECIOUS, Vec::new()), "nothing has changed");
    let json = project.ok(&["deps", "make", "--format", "json"]);
    assert!(json.contains(r#""undeclared":["folder","mine.txt"],"unused":["home/.ssh/key"]"#), "{json}");
}

#[test]
fn modules_are_found_one_by_one_although_python_lists_their_folder() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let project = project("python3 src/main.py > out", "");
    project.edit("pipeline.toml", r#"deps = ["in.txt"]"#, r#"deps = ["src/main.py"]"#);
    project.write("src/main.py", "import shared\nprint(open('src/word.txt').read())\n");
    for (path, text) in [("src/shared.py", ""), ("src/other.py", ""), ("src/word.txt", "word")] {
        project.write(path, text);
    }
    let done = project.call(&["deps", "make"]);
    let line = "deps = [\"src/main.py\", \"src/shared.py\", \"src/word.txt\"]\n";
    assert_eq!((done.code, done.out.as_str()), (0, line), "{}", done.err);
}

#[test]
fn what_a_command_reads_of_another_stage_is_no_unused_dep() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let project = project("cat table.csv > out", "");
    let mounts = r#"deps = [{ from = "kept", as = "table.csv" }, { from = "kept", as = "idle.csv" }]"#;
    project.edit("pipeline.toml", r#"deps = ["in.txt"]"#, mounts);
    let done = project.call(&["deps", "make"]);
    assert_eq!(
        done.err.lines().filter(|line| line.contains("did not read")).collect::<Vec<_>>().len(),
        1,
        "{}",
        done.err
    );
    assert!(done.err.contains("declares, and did not read: idle.csv"), "{}", done.err);
}

#[test]
fn a_command_whose_deps_and_outs_lie_behind_links_can_be_traced() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let far = tempfile::tempdir().expect("a folder");
    for (link, folder) in [("near", "folder"), ("far", far.path().to_str().expect("text"))] {
        let project = project("cat LINK/mine.txt LINK/mount > LINK/sub/out; cat LINK/other", "");
        project.write("pipeline.toml", project.read("pipeline.toml").replace("LINK", link));
        project.edit("pipeline.toml", r#"outs = ["out"]"#, &format!(r#"outs = ["{link}/sub/out"]"#));
        let deps = format!("[\"{link}/mine.txt\", {{ from = \"kept\", as = \"{link}/mount\" }}");
        project.edit("pipeline.toml", r#"["in.txt""#, &deps);
        std::os::unix::fs::symlink(folder, project.path(link)).expect("a link");
        for file in ["mine.txt", "other"] {
            project.write(&format!("{link}/{file}"), PRECIOUS);
        }
        let done = project.call(&["deps", "make"]);
        assert_eq!((done.code, done.out), (0, format!("deps = {deps}, \"{link}/other\"]\n")), "{}", done.err);
        assert!(!done.err.contains("failed"), "{}", done.err);
        assert!(!project.path(&format!("{link}/mount")).exists() && !project.path(&format!("{link}/sub")).exists());
    }
}

#[test]
fn a_failed_command_is_told_which_file_of_the_project_it_named_in_vain() {
    let project = project("cat folder/mine.txt > out", "");
    let done = project.call(&["run"]);
    let hint = "`folder/mine.txt` is in the project, and no dep: add it: deps = [\"in.txt\", \"folder/mine.txt\"]";
    assert!(done.err.contains(hint), "{}", done.err);
}

#[test]
fn a_traced_command_changes_nothing_behind_links_of_the_project() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    for keys in ["", "hermetic = false"] {
        let line =
            "echo x >> elsewhere/mine.txt; rm -f elsewhere/mine.txt; echo x >> {root}/mine.txt; cat in.txt > out";
        let project = project(line, keys);
        let folder = project.path("folder").canonicalize().expect("a path");
        std::os::unix::fs::symlink(folder, project.path("elsewhere")).expect("a link");
        let done = project.call(&["deps", "make"]);
        assert_eq!(done.code, 0, "{}", done.err);
        assert!(done.out.starts_with("deps = [\"in.txt\""), "{}", done.out);
        for file in ["folder/mine.txt", "mine.txt", "out"] {
            assert_eq!(project.read(file), PRECIOUS, "{file}");
        }
    }
}

/// As a container that a command has started, and given its folder, by the socket of a daemon.
#[test]
fn who_was_given_the_folder_of_a_command_from_outside_cannot_reach_that_of_the_next() {
    if !has("python3") {
        return;
    }
    let place = tempfile::tempdir().expect("a folder");
    let socket = place.path().join("socket");
    let asks = format!(
        "python3 -c 'import os, socket as s\nc = s.socket(s.AF_UNIX)\nc.connect(\"{}\")\n\
         c.sendall(os.getcwd().encode() + b\"\\n\")\nc.recv(1)'",
        socket.display()
    );
    let project = project(&format!("{asks}; echo made > out"), "");
    let next = format!("\n[stages.next]\nrun = '''{asks}; ls > next'''\ndeps = [\"out\"]\nouts = [\"next\"]\n");
    project.write("pipeline.toml", project.read("pipeline.toml") + &next);
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("a socket");
    listener.set_nonblocking(true).expect("set");
    let mut run = project.command(&["run", "-j", "1"]).stderr(Stdio::null()).spawn().expect("it starts");
    let mut held = Vec::new();
    while run.try_wait().expect("it can be asked").is_none() {
        let Ok((stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        let mut folder = String::new();
        BufReader::new(&stream).read_line(&mut folder).expect("a path");
        held.push(fs::File::open(folder.trim_end()).expect("a folder"));
        let first = format!("/proc/self/fd/{}", held[0].as_raw_fd());
        fs::write(format!("{first}/from-outside-{}", held.len()), "").expect("a file");
    }
    assert_eq!(held.len(), 2);
    assert!(run.wait().expect("it ends").success());
    assert_eq!(project.read("next"), "next\nout\n");
}

#[test]
fn a_command_that_asked_nobody_leaves_its_folder_to_the_next_and_nothing_in_it() {
    let look = "(pwd; find .. | sort)";
    let project = project(&format!("touch ../left ../tmp/left left; {look} > out"), "");
    let next = format!("\n[stages.next]\nrun = \"{look} > next\"\ndeps = [\"out\"]\nouts = [\"next\"]\n");
    project.write("pipeline.toml", project.read("pipeline.toml") + &next);
    project.run(&["-j", "1"]).succeeded();
    let folder = |name: &str| project.read(name).lines().next().map(str::to_owned).expect("a line");
    assert_eq!(folder("out"), folder("next"));
    let found: Vec<String> = project.read("next").lines().skip(1).map(str::to_owned).collect();
    assert_eq!(found, ["..", "../project", "../project/next", "../project/out", "../tmp"]);
}

#[test]
fn a_daemon_whose_program_is_no_file_ends_with_the_command() {
    if !has("python3") {
        return;
    }
    let daemon = "import os, time\nif os.fork() == 0:\n  os.setsid()\n  os.chdir(\"/\")\n  fd = os.memfd_create(\"x\")\n  \
                  os.write(fd, open(\"/bin/sleep\", \"rb\").read())\n  os.execve(fd, [\"hw-hostile-memfd\", \"1000\"], {})\n\
                  time.sleep(0.2)";
    succeeds(&format!("python3 -c '\n{daemon}' && echo made > out"), "", "made\n");
    let lines = fs::read_dir("/proc").expect("processes").filter_map(|entry| Some(entry.ok()?.path().join("cmdline")));
    let left = lines.filter(|line| fs::read(line).is_ok_and(|line| line.starts_with(b"hw-hostile-memfd"))).count();
    assert_eq!(left, 0);
}

#[test]
fn a_command_that_signals_all_that_it_may_ends_itself_alone() {
    // A kernel that would let it reach others is not asked to.
    let line = "sleep 1000 & kill -0 $PPID 2> /dev/null || kill -9 -1; echo made > out";
    succeeds(line, "", "made\n");
}

#[test]
fn limits_that_a_command_sets_on_its_supervisor_harm_nothing_but_its_own_run() {
    if !has("python3") {
        return;
    }
    let limits = ["RLIMIT_FSIZE", "RLIMIT_NOFILE", "RLIMIT_AS"];
    for (limit, keys) in limits.into_iter().flat_map(|limit| [(limit, ""), (limit, "hermetic = false")]) {
        let limits = format!(
            "import os, resource as r, subprocess\nr.prlimit(os.getppid(), r.{limit}, (0, 0))\n\
             subprocess.Popen([\"setsid\", \"sleep\", \"1000\"])\nprint(\"text\" * 100000)\nopen(\"out\", \"w\").write(\"made\")"
        );
        // A shell would be the parent, unless it becomes the program.
        let project = project(&format!("exec python3 -c '\n{limits}'"), keys);
        let done = suffer(&project);
        assert!(done.code == 0 || done.code == 1, "{limit}: {}{}", done.out, done.err);
        let expected = if done.code == 0 { "made" } else { PRECIOUS };
        assert_eq!(project.read("out"), expected, "{limit}");
    }
}

#[test]
fn links_that_come_and_go_in_an_out_lead_nowhere() {
    let line = "mkdir out; (while :; do ln -sfn {root}/mine.txt out/a; rm -f out/a; echo x > out/a; ln -sfn {root}/folder out/b; \
                rm -f out/b; mkdir -p out/b; echo x > out/b/mine.txt; rm -r out/b; done) 2> /dev/null & sleep 0.2";
    let project = project(line, "");
    for _ in 0..3 {
        let done = suffer(&project);
        assert!(done.code == 0 || done.out.contains("is a symbolic link"), "{}{}", done.out, done.err);
        if project.path("out").is_dir() {
            let found = walkdir::WalkDir::new(project.path("out")).into_iter().map(|entry| entry.expect("an entry"));
            assert!(found.into_iter().all(|entry| !entry.path_is_symlink()));
        }
        project.write("in.txt", PRECIOUS);
    }
}

#[test]
fn a_command_that_moves_its_folder_away_moves_nothing_else() {
    succeeds("mv ../project ../gone; mkdir ../project; echo made > ../project/out", "", "made\n");
    fails_with("rm -rf ../project; ln -s {root} ../project", "", "the command put a link in the place of its folder");
    fails_with("mv ../../../*/*/project ../../../..", "", "the command ended with exit code");
    fails_with("mv \"$(dirname \"$PWD\")\" {root}/away", "", "the command ended with exit code");
}

#[test]
fn memory_and_sockets_of_others_are_out_of_reach() {
    fails_with("echo x > /proc/$PPID/mem", "", "the command ended with exit code");
    if !has("python3") {
        return;
    }
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let name = format!("headwater-hostile-{}", std::process::id());
    let _listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).expect("an address")).expect("bound");
    let connect = format!("python3 -c 'import socket as s; s.socket(s.AF_UNIX).connect(\"\\0{name}\")'");
    // Kernels before 6.12 keep neither signals nor these sockets in.
    fails_with(&format!("kill -0 $PPID 2> /dev/null && exit 3; {connect}"), "", "the command ended with exit code");
}

#[test]
fn many_empty_files_are_an_out() {
    let project = project("mkdir out; cd out; seq 1 5000 | xargs touch", "");
    let done = suffer(&project);
    assert_eq!(done.code, 0, "{}{}", done.out, done.err);
    assert_eq!(fs::read_dir(project.path("out")).expect("a folder").count(), 5000);
}
