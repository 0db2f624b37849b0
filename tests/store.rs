//! `headwater store`: what it says, what it removes, and what it never removes.

mod support;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use support::{Project, eventually};

/// A param, a stage that reads it, and one that does not.
fn project() -> Project {
    let project = Project::with(
        "[params]\nn = 1\n[stages.numbers]\nrun = 'seq ${n} 50000 > numbers'\nouts = ['numbers']\n\
         [stages.fixed]\nrun = 'echo fixed > fixed'\nouts = ['fixed']\n",
    );
    project.run(&[]).succeeded();
    project
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn what_the_last_runs_used_stays_and_what_only_forgotten_ones_used_goes() {
    let project = project();
    project.edit("pipeline.toml", "n = 1", "n = 2");
    assert_eq!(project.run(&[]).succeeded().ran(), ["numbers"]);
    assert!(project.ok(&["store", "gc", "--keep-last", "2"]).contains("0 dropped"));
    let plan = json(&project.ok(&["store", "gc", "--keep-last", "1", "--dry-run", "--format", "json"]));
    assert_eq!((&plan["event"], &plan["dry_run"], &plan["kept"]), (&"store_gc".into(), &true.into(), &2.into()));
    assert_eq!(plan["dropped"].as_array().expect("a list").len(), 1);
    assert_eq!(plan["dropped"][0]["kind"], "run");
    let freed = plan["bytes_freed"].as_u64().expect("a number");
    assert!((288_000..300_000).contains(&freed), "{freed}");
    let text = project.ok(&["store", "gc", "--keep-last", "1"]);
    assert!(text.contains("1 kept, 1 forgotten") && text.contains("2 records kept, 1 dropped"), "{text}");
    assert!(project.run(&[]).succeeded().ran().is_empty());
    project.edit("pipeline.toml", "n = 2", "n = 1");
    assert_eq!(project.run(&[]).succeeded().ran(), ["numbers"]);
}

#[test]
fn a_collection_leaves_what_other_projects_in_the_store_use() {
    let (first, second) = (project(), project());
    let store = first.path(".headwater/store");
    second.edit("pipeline.toml", "n = 1", "n = 7");
    let run = |arguments: &[&str]| {
        let done = second.command(arguments).env("HEADWATER_STORE", &store).output().expect("it starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).expect("text")
    };
    run(&["run"]);
    first.edit("pipeline.toml", "n = 1", "n = 3");
    first.run(&[]).succeeded();
    first.ok(&["store", "gc", "--keep-last", "1"]);
    assert!(!run(&["run", "--format", "json"]).contains(r#""outcome":"ran""#));
}

#[test]
fn the_work_of_a_run_that_was_killed_stays() {
    let project = project();
    let slow = "[stages.slow]\nrun = 'cat done; sleep 60'\ndeps = ['done']\nouts = ['slow']\n\
                [stages.quick]\nrun = 'echo done > done'\nouts = ['done']\n";
    let pipeline = project.read("pipeline.toml") + slow;
    project.write("pipeline.toml", pipeline);
    let mut child = project.command(&["run", "--jobs", "2"]).spawn().expect("the program starts");
    let runs = || project.ok(&["log", "-n", "1", "--format", "json"]).contains("null");
    eventually("the first stage is done", || runs() && project.path("done").exists());
    std::thread::sleep(Duration::from_millis(500));
    let busy = project.call(&["store", "gc"]);
    assert_eq!(busy.code, 1);
    let store = project.path(".headwater/store").canonicalize().expect("a store");
    assert_eq!(
        busy.err,
        format!(
            "error: the store {} is in use\n  help: let the runs and servers that use it end, then collect again\n",
            store.display()
        )
    );
    child.kill().expect("a kill");
    child.wait().expect("it ends");
    project.ok(&["store", "gc", "--keep-last", "1"]);
    assert_eq!(project.run(&["quick"]).succeeded().with("cached"), ["quick"]);
}

#[test]
fn a_size_keeps_what_is_dearest_for_its_bytes() {
    let project = project();
    for (from, to) in [("n = 1", "n = 2"), ("n = 2", "n = 3")] {
        project.edit("pipeline.toml", from, to);
        project.run(&[]).succeeded();
    }
    let dropped = |size: &str| {
        let arguments = ["store", "gc", "--keep-last", "1", "--max-size", size, "--dry-run", "--format", "json"];
        json(&project.ok(&arguments))["dropped"].as_array().expect("a list").len()
    };
    assert_eq!((dropped("1G"), dropped("600K"), dropped("1K")), (0, 1, 2));
    let wrong = project.call(&["store", "gc", "--max-size", "much"]);
    assert_eq!(wrong.code, 2);
    assert!(wrong.err.contains("expected a number of bytes such as 500M or 20G"), "{}", wrong.err);
}

#[test]
fn damage_is_found_by_a_full_look_set_aside_by_a_repair_and_made_again_by_a_run() {
    let project = project();
    assert!(project.ok(&["store", "verify", "--full"]).ends_with("no damage\n"));
    assert_eq!(project.damage(|_, bytes| bytes.len() > 1000 || bytes == b"fixed\n"), 2);
    for arguments in [&["store", "verify", "--full"][..], &["store", "verify", "--repair"]] {
        let found = project.call(arguments);
        assert_eq!(found.code, 3, "{}", found.err);
        let damaged = found.out.lines().filter(|line| line.starts_with("blob ") && line.ends_with(" is damaged"));
        assert_eq!(damaged.count(), 2, "{}", found.out);
        assert_eq!(found.out.matches(" cannot be produced\n").count(), 2, "{}", found.out);
    }
    assert_eq!(project.run(&[]).succeeded().ran(), ["fixed", "numbers"]);
    let found = json(&project.ok(&["store", "verify", "--full", "--format", "json"]));
    assert_eq!((&found["event"], &found["damaged"]), (&"store_verify".into(), &serde_json::json!([])));
    assert!(project.ok(&["store", "stats"]).contains("quarantine 1 damaged files"));
    assert!(project.ok(&["store", "gc"]).contains("and 1 damaged files"));
    assert!(!project.ok(&["store", "stats"]).contains("quarantine"));
}

#[test]
fn a_damaged_list_of_uses_stops_a_collection_until_a_repair_which_forgets_nothing() {
    let project = project();
    let segments = project.path(".headwater/store/segments").canonicalize().expect("a folder");
    let files = fs::read_dir(segments).expect("files").map(|entry| entry.expect("a file").path());
    let lists = |path: &PathBuf| fs::read(path).expect("bytes").windows(4).rposition(|part| part == b"HWUS");
    let (segment, at) = files.filter_map(|path| Some((path.clone(), lists(&path)?))).next().expect("a list");
    let mut bytes = fs::read(&segment).expect("bytes");
    bytes[at] ^= 4;
    fs::write(&segment, bytes).expect("damage");

    let refused = project.call(&["store", "gc"]);
    let text = format!(
        "error: what a project uses cannot be read: the list of what a project uses is damaged in {}\n  \
         help: `headwater store verify --repair` writes it anew, with all that any run used; then collect again\n",
        segment.display()
    );
    assert_eq!((refused.code, refused.err), (1, text));
    assert_eq!(project.call(&["store", "verify", "--repair"]).code, 3);
    assert!(project.ok(&["store", "verify", "--full"]).ends_with("no damage\n"));
    let text = project.ok(&["store", "gc", "--keep-last", "1", "--max-size", "0"]);
    assert!(text.contains("a project  1 kept, 0 forgotten") && text.contains("2 records kept, 0 dropped"), "{text}");
    assert!(project.run(&[]).succeeded().ran().is_empty());
}

#[test]
fn stats_count_what_is_shared_once() {
    let project = Project::with(
        "[matrix]\nn = [1, 2, 3, 4]\n[stages.same]\nrun = 'echo ${n} > /dev/null; seq 50000 > same-${n}'\nouts = ['same-${n}']\n",
    );
    project.run(&[]).succeeded();
    let stats = json(&project.ok(&["store", "stats", "--format", "json"]));
    let number = |name: &str| stats[name].as_u64().expect("a number");
    assert_eq!((number("records"), number("large_blobs")), (4, 1));
    assert_eq!(number("referenced_bytes"), 4 * number("distinct_bytes"));
    assert!(project.ok(&["store", "stats"]).contains("shared 4.0 times"));
}
