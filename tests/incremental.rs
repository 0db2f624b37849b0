//! What runs again after an edit, and what does not: run, edit, run, and what executed.

mod support;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use support::Project;

/// Two tables, a query over some of their columns, a split, a preparation, two models.
const PIPELINE: &str = r#"
[params]
late_after = 15
seed = 7

[matrix]
model.small = { algorithm = "decision_tree", max_depth = 1 }
model.large = { algorithm = "decision_tree", max_depth = 3 }

[stages.flights]
uses = "read"
path = "data/flights.csv"

[stages.joined]
uses = "sql"
inputs = { f = "flights" }
query = "select f.delay, f.distance, f.carrier, f.arrival > ${late_after} as late from f"

[stages.split]
uses = "split"
input = "joined"
test = 0.25
stratify = "late"
seed = "${seed}"

[stages.prepare]
uses = "prepare"
input = "split"
target = "late"
steps = [{ impute = "median" }, { one_hot = ["carrier"] }, { scale = "standard" }]

[stages.train]
uses = "train"
input = "prepare"
model = "${model}"

[stages.evaluate]
uses = "evaluate"
inputs = { model = "train", data = "prepare.test" }
metrics = ["accuracy", "f1", "log_loss"]

[stages.board]
uses = "compare"
gather = "evaluate"
"#;

const ALL: [&str; 9] = [
    "board",
    "evaluate[model=large]",
    "evaluate[model=small]",
    "flights",
    "joined",
    "prepare",
    "split",
    "train[model=large]",
    "train[model=small]",
];

fn flights() -> String {
    let mut text = String::from("delay,distance,carrier,arrival,note\n");
    for row in 0..80 {
        let delay = (row * 37) % 60;
        let arrival = delay + (row * row * 13) % 41 - 20;
        let carrier = ["AA", "UA", "DL"][row as usize % 3];
        text += &format!("{delay},{},{carrier},{arrival},n{row}\n", 200 + (row * 71) % 900);
    }
    text
}

fn project() -> Project {
    let project = Project::with(PIPELINE);
    project.write("data/flights.csv", flights());
    project
}

fn project_that_ran() -> Project {
    let project = project();
    assert_eq!(project.run(&[]).succeeded().ran(), ALL);
    project
}

#[test]
fn variants_share_what_they_have_in_common() {
    let run = project().run(&[]).succeeded();
    assert_eq!(run.ran(), ALL);
    assert_eq!(run.nodes.len(), ALL.len(), "each node ends once");
}

#[test]
fn a_second_run_executes_nothing() {
    let project = project_that_ran();
    let run = project.run(&[]).succeeded();
    assert_eq!((run.ran().len(), run.with("cached").len()), (0, ALL.len()));
    assert!(project.status(&[]).values().all(|state| state == "cached"));
}

#[test]
fn a_touched_file_with_equal_bytes_hits() {
    let project = project_that_ran();
    for file in ["data/flights.csv", "pipeline.toml"] {
        project.write(file, project.read(file));
    }
    assert!(project.run(&[]).succeeded().ran().is_empty());
}

#[test]
fn a_hyper_parameter_runs_its_variant_alone() {
    let project = project_that_ran();
    project.edit("pipeline.toml", "max_depth = 3", "max_depth = 2");
    let run = project.run(&[]).succeeded();
    assert_eq!(run.ran(), ["board", "evaluate[model=large]", "train[model=large]"]);
    let reason = run.node("train[model=large]")["reason"].as_str().expect("a reason").to_owned();
    assert_eq!(
        reason,
        "param model { algorithm = decision_tree, max_depth = 3 } -> { algorithm = decision_tree, max_depth = 2 } (pipeline.toml:8)"
    );
}

#[test]
fn a_query_with_the_same_result_runs_alone() {
    let project = project_that_ran();
    project.edit("pipeline.toml", "f.arrival > ${late_after} as late", "(f.arrival - ${late_after}) > 0 as late");
    assert_eq!(project.run(&[]).succeeded().ran(), ["joined"]);
}

#[test]
fn a_comment_in_a_query_runs_nothing() {
    let project = project_that_ran();
    project.edit("pipeline.toml", "select f.delay, ", "select /* minutes */  f.delay, ");
    assert!(project.run(&[]).succeeded().ran().is_empty());
}

#[test]
fn an_edited_row_runs_what_depends_on_the_changed_column() {
    let project = project_that_ran();
    project.edit("data/flights.csv", ",n5\n", ",changed\n");
    assert_eq!(project.run(&[]).succeeded().ran(), ["flights"], "no stage reads the note");
    project.write("data/flights.csv", flights().replace("37,271,UA", "38,271,UA"));
    let ran = project.run(&[]).succeeded().ran();
    for node in ["joined", "prepare", "train[model=large]", "evaluate[model=small]"] {
        assert!(ran.contains(&node.to_owned()), "{node} depends on the delay: {ran:?}");
    }
    assert!(!ran.contains(&"split".to_owned()), "split reads the target alone, which is as it was");
}

#[test]
fn a_column_added_upstream_leaves_its_non_readers_cached() {
    let project = project_that_ran();
    let wider: Vec<String> = flights().lines().map(|line| format!("{line},1")).collect();
    project.write("data/flights.csv", wider.join("\n").replacen("note,1", "note,extra", 1));
    assert_eq!(project.run(&[]).succeeded().ran(), ["flights"]);
}

#[test]
fn a_column_passes_through_split_unread() {
    let pipeline = r#"
[stages.rows]
uses = "read"
path = "rows.csv"

[stages.split]
uses = "split"
input = "rows"
test = 0.5
seed = 1

[stages.prepare]
uses = "prepare"
input = "split"
target = "y"
features = ["x"]
steps = []
"#;
    let project = Project::with(pipeline);
    let rows = |extra: &str| {
        let row = |at: i32| format!("{at},{}{extra}\n", at * 2);
        (0..10).map(row).collect::<String>()
    };
    project.write("rows.csv", format!("x,y\n{}", rows("")));
    assert_eq!(project.run(&[]).succeeded().ran(), ["prepare", "rows", "split"]);
    project.write("rows.csv", format!("x,y,z\n{}", rows(",5")));
    assert_eq!(project.run(&[]).succeeded().ran(), ["rows"]);
    let shown = project.ok(&["show", "split.train"]);
    assert!(shown.contains(" z "), "split passes the new column on: {shown}");
}

#[test]
fn a_renamed_stage_is_cached() {
    let project = project_that_ran();
    let text =
        project.read("pipeline.toml").replace("stages.joined", "stages.combined").replace("\"joined\"", "\"combined\"");
    project.write("pipeline.toml", text);
    assert!(project.run(&[]).succeeded().ran().is_empty());
}

#[test]
fn a_renamed_variant_runs_the_table_that_shows_its_name_alone() {
    let project = project_that_ran();
    project.edit("pipeline.toml", "model.small", "model.tiny");
    assert_eq!(project.run(&[]).succeeded().ran(), ["board"]);
}

#[test]
fn a_moved_project_is_cached() {
    let project = project_that_ran();
    let elsewhere = Project::empty();
    std::fs::rename(project.root(), elsewhere.path("moved")).expect("a move");
    let run = elsewhere.run(&["--pipeline", "moved/pipeline.toml"]).succeeded();
    assert!(run.ran().is_empty(), "{:?}", run.ran());
}

#[test]
fn going_back_to_an_old_value_runs_nothing() {
    let project = project_that_ran();
    project.edit("pipeline.toml", "late_after = 15", "late_after = 20");
    assert!(!project.run(&[]).succeeded().ran().is_empty());
    project.edit("pipeline.toml", "late_after = 20", "late_after = 15");
    assert!(project.run(&[]).succeeded().ran().is_empty());
}

#[test]
fn a_target_brings_what_it_needs_and_nothing_else() {
    let project = project();
    assert_eq!(project.run(&["split"]).succeeded().ran(), ["flights", "joined", "split"]);
    assert_eq!(project.run(&["train[model=small]"]).succeeded().ran(), ["prepare", "train[model=small]"]);
}

#[test]
fn a_forced_stage_runs_and_cuts_off() {
    let project = project_that_ran();
    let run = project.run(&["--force", "joined"]).succeeded();
    assert_eq!(run.ran(), ["joined"]);
    assert_eq!(run.node("joined")["reason"], "forced");
}

#[test]
fn a_forced_stage_runs_beside_other_targets() {
    let project = project_that_ran();
    assert_eq!(project.run(&["flights", "--force", "split"]).succeeded().ran(), ["split"]);
}

#[test]
fn a_setting_of_the_command_line_is_an_edit_for_one_run() {
    let project = project_that_ran();
    assert_eq!(project.run(&["--set", "model=small"]).succeeded().ran(), ["board"]);
    assert!(project.run(&["--set", "seed=8"]).succeeded().ran().contains(&"split".to_owned()));
    assert!(project.run(&[]).succeeded().ran().is_empty());
}

#[test]
fn a_lost_artifact_is_made_again() {
    let project = project_that_ran();
    let digest = project.run(&[]).digests()["train[model=small].model"].clone();
    assert_eq!(project.damage(|found, _| found == digest), 1);
    // Whoever reads it finds the damage; from then on it is missing.
    assert_eq!(project.call(&["show", "train[model=small].model"]).code, 1);
    let run = project.run(&[]).succeeded();
    assert_eq!(run.ran(), ["train[model=small]"]);
    assert_eq!(run.node("train[model=small]")["reason"], format!("its output {} is gone or damaged", &digest[..12]));
    assert_eq!(run.digests()["train[model=small].model"], digest);
}

#[test]
fn status_says_what_a_run_would_do_and_does_nothing() {
    let project = project_that_ran();
    project.edit("pipeline.toml", "seed = 7", "seed = 8");
    for _ in 0..2 {
        let status = project.status(&[]);
        assert_eq!((status["joined"].as_str(), status["split"].as_str()), ("cached", "stale"));
        assert_eq!((status["prepare"].as_str(), status["board"].as_str()), ("maybe", "maybe"));
    }
    let told = project.ok(&["run", "--dry-run", "split"]);
    let (told, expected) = told.trim_end().rsplit_once('\n').expect("lines");
    assert_eq!(told, "    stale split  param seed 7 -> 8 (pipeline.toml:4)\n2 cached, 1 to run");
    assert!(expected.starts_with("expected: "), "{expected}");
}

#[test]
fn explain_names_the_param_before_the_run_and_after_it() {
    let project = project_that_ran();
    project.edit("pipeline.toml", "late_after = 15", "late_after = 20");
    let before = project.ok(&["explain", "train[model=small]"]);
    let edit = "param late_after 15 -> 20 (pipeline.toml:3), of joined";
    assert_eq!(before.lines().next(), Some(format!("train[model=small] may run: {edit}").as_str()));
    assert!(before.contains("joined param late_after 15 -> 20 (pipeline.toml:3)"), "{before}");
    project.run(&[]).succeeded();
    let after = project.ok(&["explain", "train[model=small]"]);
    let first = format!("train[model=small] is cached; its key is new since run 000002: {edit}");
    assert_eq!(after.lines().next(), Some(first.as_str()));
    assert!(after.contains("joined param late_after 15 -> 20 (pipeline.toml:3)"), "{after}");
}

#[test]
fn explain_follows_an_edited_file_to_its_root() {
    let project = project_that_ran();
    project.write("data/flights.csv", flights().replace("37,271,UA", "38,271,UA"));
    project.run(&[]).succeeded();
    let text = project.ok(&["explain", "prepare"]);
    let root = text.lines().last().expect("lines");
    assert!(
        root.trim_start().starts_with("flights input path file ") && root.ends_with("(file data/flights.csv)"),
        "{text}"
    );
}

/// Two sources, and a command that reads the first.
const TWO: &str = r#"
[params]
word = "one"
other = "x"

[stages.first]
run = "echo ${word} > first.txt"
outs = ["first.txt"]

[stages.second]
run = "echo two > second.txt"
outs = ["second.txt"]

[stages.joined]
run = "echo ${other} * > joined.txt"
deps = ["first.txt"]
outs = ["joined.txt"]
"#;

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[test]
fn explain_names_an_edge_that_was_added_and_one_that_was_removed() {
    let project = Project::with(TWO);
    project.run(&[]).succeeded();
    let (one, two) = ("deps = [\"first.txt\"]", "deps = [\"first.txt\", \"second.txt\"]");
    project.edit("pipeline.toml", one, two);
    let before = project.ok(&["explain", "joined"]);
    assert!(first_line(&before).starts_with("joined will run: input second.txt added: file "), "{before}");
    project.run(&[]).succeeded();
    let after = project.ok(&["explain", "joined"]);
    assert!(first_line(&after).contains(" since run 000002: input second.txt added: file "), "{after}");
    project.edit("pipeline.toml", two, one);
    project.edit("pipeline.toml", "other = \"x\"", "other = \"y\"");
    project.run(&[]).succeeded();
    let removed = project.ok(&["explain", "joined"]);
    assert!(removed.contains("joined input second.txt removed: file "), "{removed}");
}

#[test]
fn explain_needs_no_stage_that_its_node_does_not_need() {
    let project = Project::with(TWO);
    project.run(&[]).succeeded();
    project.edit("pipeline.toml", "word = \"one\"", "word = \"three\"");
    let told = project.ok(&["explain", "joined"]);
    let broken = format!("{}\n[stages.broken]\nuses = \"nothing\"\n", project.read("pipeline.toml"));
    project.write("pipeline.toml", &broken);
    assert_eq!(project.call(&["status"]).code, 2);
    assert_eq!(project.ok(&["explain", "joined"]), told);
    assert_eq!(project.call(&["explain", "broken"]).code, 2);
    assert_eq!(project.call(&["explain", "nowhere"]).code, 2);
}

#[test]
fn explain_sees_an_edge_whose_path_is_written_in_a_roundabout_way() {
    let pipeline = r#"
[stages.rows]
run = "echo x > data/rows.csv; echo 1 >> data/rows.csv"
outs = ["data/rows.csv"]

[stages.read]
uses = "read"
path = "other/../data/rows.csv"
"#;
    let project = Project::with(pipeline);
    project.write("other/file", "");
    assert_eq!(first_line(&project.ok(&["explain", "read"])), "read may run: new, of rows");
    project.run(&[]).succeeded();
    project.edit("pipeline.toml", "echo x", "echo y");
    let told = project.ok(&["explain", "read"]);
    assert!(first_line(&told).starts_with("read may run: run \"echo x"), "{told}");
}

#[test]
fn explain_names_a_removed_dep_by_its_whole_path() {
    let pipeline = |deps: &str| format!("[stages.a]\nrun = \"echo > out\"\ndeps = [{deps}]\nouts = [\"out\"]\n");
    let project = Project::with(&pipeline("\"in/a.txt\", \"in/b.txt\""));
    project.write("in/a.txt", "a");
    project.write("in/b.txt", "b");
    project.run(&[]).succeeded();
    project.write("pipeline.toml", pipeline("\"in/a.txt\""));
    for told in [project.ok(&["explain", "a"]), project.ok(&["status"])] {
        assert!(first_line(&told).contains(" input in/b.txt removed: file "), "{told}");
    }
    project.run(&[]).succeeded();
    let after = project.ok(&["explain", "a"]);
    assert!(first_line(&after).contains(": input in/b.txt removed: file "), "{after}");
}

#[test]
fn explain_names_the_stage_that_an_input_now_reads() {
    let pipeline = r#"
[stages.one]
uses = "read"
path = "one.csv"

[stages.two]
uses = "read"
path = "two.csv"

[stages.query]
uses = "sql"
inputs = { a = "one" }
query = "select x from a"
"#;
    let project = Project::with(pipeline);
    project.write("one.csv", "x\n1\n");
    project.write("two.csv", "x\n2\n");
    project.run(&[]).succeeded();
    project.edit("pipeline.toml", "a = \"one\"", "a = \"two\"");
    let edit = "input a one.frame -> two.frame";
    let before = project.ok(&["explain", "query"]);
    assert_eq!(first_line(&before), format!("query will run: {edit}"));
    project.run(&[]).succeeded();
    let after = project.ok(&["explain", "query"]);
    assert_eq!(first_line(&after), format!("query is cached; its key is new since run 000002: {edit}"));
}

#[test]
fn explain_names_a_variant_that_is_gone() {
    let project = project();
    let third = "model.third = { algorithm = \"decision_tree\", max_depth = 2 }\n";
    project.edit("pipeline.toml", "\n[stages.flights]", &format!("{third}\n[stages.flights]"));
    project.run(&[]).succeeded();
    project.edit("pipeline.toml", third, "");
    let told = project.ok(&["explain", "board"]);
    assert!(first_line(&told).starts_with("board will run: input metrics[model=third] removed: "), "{told}");
}

#[test]
fn explain_names_a_value_that_is_again_what_it_once_was() {
    let project = Project::with(TWO);
    project.run(&[]).succeeded();
    project.edit("pipeline.toml", "word = \"one\"", "word = \"three\"");
    project.edit("pipeline.toml", "other = \"x\"", "other = \"y\"");
    project.run(&[]).succeeded();
    project.edit("pipeline.toml", "word = \"three\"", "word = \"one\"");
    let states = project.status(&[]);
    assert_eq!((states["first"].as_str(), states["joined"].as_str()), ("restore", "stale"));
    let told = project.ok(&["explain", "joined"]);
    assert_eq!(first_line(&told), "joined will run: param word three -> one (pipeline.toml:3), of first");
}

#[test]
fn explain_says_what_a_cached_stage_was_in_a_run_with_another_param() {
    let query = "[stages.q]\nuses = \"sql\"\ninput = \"r\"\nquery = \"select x + ${n} as z from input\"\n";
    let read = "[stages.r]\nuses = \"read\"\npath = \"d.csv\"\n";
    let project = Project::with(&format!("[params]\nn = 7\n{read}{query}"));
    project.write("d.csv", "x\n1\n2\n");
    project.run(&[]).succeeded();
    project.run(&["--set", "n=9"]).succeeded();
    let told = project.ok(&["explain", "q"]);
    let first = "q is cached, and was another when it last finished: param n 9 -> 7 (pipeline.toml:2)";
    assert_eq!(first_line(&told), first);
    project.run(&[]).succeeded();
    let told = project.ok(&["explain", "q"]);
    assert!(first_line(&told).ends_with("param n 9 -> 7 (pipeline.toml:2)"), "{told}");
}

#[test]
fn explain_shows_where_two_long_commands_differ() {
    let pipeline = |word: &str| {
        let long = "true; ".repeat(40);
        format!("[stages.a]\nrun = \"{long}echo {word} > a.txt; {long}\"\nouts = [\"a.txt\"]\n")
    };
    let project = Project::with(&pipeline("alpha"));
    project.run(&[]).succeeded();
    project.write("pipeline.toml", pipeline("beta"));
    let told = project.ok(&["explain", "a"]);
    let (old, new) = first_line(&told).split_once(" -> ").expect("both");
    assert!(old.starts_with("a will run: run …") && old.contains("echo alpha > a.txt"), "{told}");
    assert!(new.contains("echo beta > a.txt"), "{told}");
}

#[test]
fn two_projects_share_a_store() {
    let (one, two, store) = (project(), project(), Project::empty());
    let run = |project: &Project| {
        let mut command = project.command(&["run", "--format", "json"]);
        command.env("HEADWATER_STORE", store.root()).output().expect("the program starts")
    };
    let (first, second) = (run(&one), run(&two));
    let count =
        |output: &std::process::Output| String::from_utf8_lossy(&output.stdout).matches("\"outcome\":\"ran\"").count();
    assert_eq!((count(&first), count(&second)), (ALL.len(), 0));
}

#[test]
fn a_damaged_column_is_made_again_when_it_is_read() {
    let rows: String = (0..20_000).map(|row| format!("{row},{}\n", row % 7)).collect();
    let pipeline = |added: u32| {
        let query = format!("select x + {added} as y from input");
        format!(
            "[stages.a]\nuses = \"read\"\npath = \"a.csv\"\n\n[stages.b]\nuses = \"sql\"\ninput = \"a\"\nquery = \"{query}\"\n"
        )
    };
    let project = Project::with(&pipeline(1));
    project.write("a.csv", format!("x,z\n{rows}"));
    project.run(&["a"]).succeeded();
    let columns = blobs_over(&project, 64 << 10);
    assert_eq!(columns.len(), 2, "a column is large enough to be mapped");
    project.run(&[]).succeeded();
    for column in &columns {
        let mut bytes = std::fs::read(column).expect("a blob");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::set_permissions(column, std::fs::Permissions::from_mode(0o644)).expect("set");
        std::fs::write(column, bytes).expect("written");
    }
    assert_eq!(project.run(&[]).succeeded().ran(), Vec::<String>::new(), "nothing reads the column");
    project.write("pipeline.toml", pipeline(2));
    let run = project.run(&[]).succeeded();
    assert_eq!(run.ran(), ["a", "b"]);
    let whole = Project::with(&pipeline(2));
    whole.write("a.csv", format!("x,z\n{rows}"));
    assert_eq!(run.digests(), whole.run(&[]).succeeded().digests());
    assert_eq!(project.run(&[]).succeeded().ran(), Vec::<String>::new());
}

/// The blobs of a project's store that are longer than this.
fn blobs_over(project: &Project, bytes: u64) -> Vec<std::path::PathBuf> {
    let files = walkdir::WalkDir::new(project.path(".headwater/store/blobs")).into_iter();
    let files = files.map(|file| file.expect("an entry")).filter(|file| file.file_type().is_file());
    let large = files.filter(|file| file.metadata().expect("metadata").len() > bytes);
    large.map(|file| file.into_path()).collect()
}

#[test]
fn verifying_runs_a_node_twice_and_names_what_differs() {
    let stages = r#"
[stages.steady]
run = "echo same > steady.txt"
outs = ["steady.txt"]

[stages.shaky]
run = "mkdir parts; cp steady.txt parts/a; head -c 16 /dev/urandom > parts/b"
deps = ["steady.txt"]
outs = ["parts"]

[stages.below]
run = "cat parts/a parts/b > below"
deps = ["parts"]
outs = ["below"]
"#;
    let project = Project::with(stages);
    let done = project.call(&["run", "--verify", "steady"]);
    assert!(done.code == 0 && done.err.contains("verified: 1 the same, 0 not"), "{}", done.err);
    let done = project.call(&["run", "--verify"]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("  differs shaky.parts (b): "), "{}", done.err);
    assert!(done.err.contains("verified: 1 the same, 1 not"), "{}", done.err);
    assert!(done.err.contains("not every node gives the same twice"), "{}", done.err);
    let lines = project.call(&["run", "--verify", "shaky", "--format", "json"]).out;
    let told: Vec<&str> = lines.lines().filter(|line| line.contains("output_differs")).collect();
    assert_eq!(told.len(), 1, "{lines}");
    assert!(
        told[0].contains(r#""node":"shaky","output":"parts""#) && told[0].contains(r#""entries":["b"]"#),
        "{lines}"
    );
}

#[test]
fn status_says_how_long_a_run_is_expected_to_take() {
    let project = Project::with("[stages.make]\nrun = \"cp a b\"\ndeps = [\"a\"]\nouts = [\"b\"]\n");
    project.write("a", "1");
    assert!(project.ok(&["status"]).ends_with("1 to run\nexpected: not known, 1 with no run on record\n"));
    project.run(&[]).succeeded();
    assert!(!project.ok(&["status"]).contains("expected"));
    project.write("a", "2");
    let told = project.ok(&["status"]);
    assert!(told.lines().last().expect("a line").starts_with("expected: "), "{told}");
    assert!(!told.contains("on record"), "{told}");
    assert!(project.ok(&["status", "--format", "json"]).contains(r#""expected_seconds":"#));
}

/// Writes to a file through a mapping, a word at each line that it reads; a page is written to for the first time before
/// the program is run.
const MAPPED: &str = "
import mmap, sys
with open('data.csv', 'r+b') as file:
    mapped = mmap.mmap(file.fileno(), 0)
    for word in (b'first ', b'second'):
        mapped[2:2 + len(word)] = word
        print('written', flush=True)
        sys.stdin.readline()
";

#[test]
fn what_is_written_through_a_mapping_after_a_file_was_read_is_seen() {
    let project = Project::with("[stages.s]\nrun = \"cat data.csv > out\"\ndeps = [\"data.csv\"]\nouts = [\"out\"]\n");
    project.write("data.csv", "a,......\n");
    let kind = Command::new("stat").args(["-f", "-c", "%T"]).arg(project.root()).output().expect("stat");
    if kind.stdout.starts_with(b"tmpfs") {
        eprintln!("SKIPPED: where files lie in memory alone this cannot be seen");
        return;
    }
    let mut writer = Command::new("python3")
        .args(["-c", MAPPED])
        .current_dir(project.root())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut told = BufReader::new(writer.stdout.take().expect("its output")).lines();
    let mut go_on = writer.stdin.take().expect("its input");
    told.next().expect("a line").expect("written");
    // Older than the coarsest clock among file systems ticks, so that its times are trusted.
    std::thread::sleep(Duration::from_millis(2100));
    project.ok(&["run"]);
    assert_eq!(project.read("out"), "a,first \n");
    writeln!(go_on).expect("it goes on");
    told.next().expect("a line").expect("written");
    project.ok(&["run"]);
    assert_eq!(project.read("out"), "a,second\n");
    drop(go_on);
    writer.wait().expect("it ends");
}
