//! The commands beside `run`, over the penguins example.

mod support;

use std::sync::OnceLock;

use serde_json::Value as Json;
use support::{Project, eventually};

const MODEL: &str = "train[model=logistic,fold=0]";

/// The example, run once for all tests of this file; none of them changes it.
fn penguins() -> &'static Project {
    static PROJECT: OnceLock<Project> = OnceLock::new();
    PROJECT.get_or_init(|| {
        let project = Project::example("penguins");
        assert_eq!(project.run(&[]).succeeded().ran().len(), 43);
        project
    })
}

fn json(text: &str) -> Json {
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn predict_over_the_test_rows_is_what_evaluate_saw() {
    let project = penguins();
    for model in ["logistic", "shallow_tree", "deep_tree"] {
        let (rows, seen, predicted) =
            (format!("{model}.rows.csv"), format!("{model}.seen.csv"), format!("{model}.csv"));
        let node = format!("[model={model},fold=2]");
        project.ok(&["get", "split[fold=2].test", "-o", &rows]);
        project.ok(&["get", &format!("evaluate{node}.predictions"), "-o", &seen]);
        project.ok(&["predict", &format!("train{node}"), &rows, "-o", &predicted]);
        let without_target: Vec<String> =
            project.read(&seen).lines().map(|line| line.rsplit_once(',').expect("a target").0.to_owned()).collect();
        let predicted = project.read(&predicted);
        assert_eq!(predicted.lines().collect::<Vec<_>>(), without_target);
        assert!(without_target.len() > 60, "the header and a fifth of 342 rows");
    }
}

#[test]
fn a_column_missing_from_the_new_file_is_named() {
    let project = penguins();
    project.write("short.csv", "island,bill_length_mm\nDream,40.0\n");
    let done = project.call(&["predict", MODEL, "short.csv", "-o", "never.csv"]);
    assert_eq!(done.code, 1);
    assert_eq!(
        done.err,
        "error: transform: there is no column `bill_depth_mm`; the columns are `island`, `bill_length_mm`\n  help: the \
         file is short.csv; what stands for a missing value there: --null-value TEXT\n"
    );
    assert!(!project.path("never.csv").exists());
}

#[test]
fn a_file_that_is_there_is_not_replaced_unasked() {
    let project = penguins();
    project.write("precious.csv", "mine");
    let done = project.call(&["get", "penguins", "-o", "precious.csv"]);
    assert_eq!((done.code, project.read("precious.csv").as_str()), (2, "mine"));
    assert_eq!(
        done.err,
        "error: precious.csv is there already\n  help: replace it with --overwrite, or choose another path\n"
    );
    let done = project.call(&["predict", MODEL, "data/penguins.csv", "-o", "precious.csv"]);
    assert_eq!((done.code, project.read("precious.csv").as_str()), (2, "mine"));
}

#[test]
fn a_frame_is_copied_out_in_the_form_of_the_ending() {
    let project = penguins();
    project.ok(&["get", "measured", "-o", "measured.tsv"]);
    let text = project.read("measured.tsv");
    assert!(text.starts_with("species\tisland\tbill_length_mm\t"), "{text}");
    assert_eq!(text.lines().count(), 343);
    let done = project.call(&["get", "measured", "-o", "measured.xlsx"]);
    assert_eq!(done.code, 2);
    assert!(done.err.contains("measured.xlsx"), "{}", done.err);
}

#[test]
fn a_table_is_not_written_as_what_it_is_not() {
    let project = penguins();
    let done = project.call(&["get", "leaderboard", "-o", "board.csv"]);
    assert_eq!(
        (done.code, done.err.as_str()),
        (
            2,
            "error: `leaderboard.table` is written as JSON, not as board.csv\n  help: choose a path that ends in .json\n"
        )
    );
    project.ok(&["get", "leaderboard", "-o", "board.json"]);
    assert_eq!(json(&project.read("board.json"))["by"], "f1");
    project.ok(&["get", "prepare[fold=0].transform", "-o", "transform.json"]);
    assert!(json(&project.read("transform.json")).is_object());
}

#[test]
fn show_previews_every_type() {
    let project = penguins();
    let shown = |reference: &str| json(&project.ok(&["show", reference, "--format", "json"]));
    let frame = shown("penguins");
    assert_eq!((&frame["type"], &frame["content"]["rows"]), (&Json::from("frame"), &Json::from(344)));
    assert_eq!(shown(&format!("{MODEL}.model"))["content"]["algorithm"], "logistic");
    let metrics = shown("evaluate[model=logistic,fold=0].metrics");
    assert!(metrics["content"]["accuracy"].as_f64().expect("a number") > 0.9);
    assert_eq!(shown("leaderboard")["content"]["by"], "f1");
    assert_eq!(shown("prepare[fold=0].transform")["type"], "transform");
    let digest = frame["digest"].as_str().expect("a digest").to_owned();
    assert_eq!(shown(&digest[..10])["digest"], digest.as_str());
}

#[test]
fn a_reference_to_nothing_says_what_there_is() {
    let project = penguins();
    let fails = |reference: &str| {
        let done = project.call(&["show", reference]);
        assert_eq!(done.code, 2);
        done.err
    };
    assert_eq!(
        fails("penguin"),
        "error: there is no stage `penguin`\n  help: did you mean `penguins`?\n  help: the stages are: penguins, measured, \
         split, prepare, train, evaluate, leaderboard\n"
    );
    assert!(
        fails("train").starts_with("error: `train` names 15 nodes; choose one\n  help: train[model=logistic,fold=0],")
    );
    assert_eq!(
        fails("split[fold=0].validation"),
        "error: `split[fold=0]` has no output `validation`\n  help: split[fold=0].train, split[fold=0].test\n"
    );
}

#[test]
fn compare_shows_mean_and_spread_over_the_repeats() {
    let project = penguins();
    let table = json(&project.ok(&["compare", "--repeats", "fold", "--by", "accuracy", "--format", "json"]));
    let rows = table["table"]["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 3);
    assert_eq!(rows[0]["variant"]["model"], "logistic");
    assert_eq!(rows[0]["metrics"]["accuracy"]["n"], 5);
    let done = project.call(&["compare", "--by", "speed"]);
    assert_eq!(done.code, 2);
    let known = "roc_auc, f1, accuracy, r2, rmse, mae, mse, log_loss, precision, recall, inertia";
    assert_eq!(done.err, format!("error: --by: unknown value `speed`\n  help: the values are: {known}\n"));
    let done = project.call(&["compare", "--by", "auc"]);
    assert!(done.err.contains("\n  help: did you mean `roc_auc`?\n"), "{}", done.err);
}

#[test]
fn a_damaged_artifact_is_not_shown_and_the_next_run_makes_it_again() {
    let project = Project::example("penguins");
    let digest = project.run(&["penguins"]).succeeded().digests()["penguins.frame"].clone();
    assert_eq!(project.damage(|found, _| found == digest), 1);
    let done = project.call(&["show", &digest[..12]]);
    assert_eq!(done.code, 1);
    assert!(
        done.err.contains("damaged bytes were skipped") && done.err.ends_with("help: `headwater run` makes it again\n"),
        "{}",
        done.err
    );
    assert_eq!(project.run(&["penguins"]).succeeded().ran(), ["penguins"]);
    project.ok(&["show", "penguins"]);
}

#[test]
fn the_graph_is_drawn_in_every_form() {
    let project = penguins();
    let text = project.ok(&["graph", "--stages"]);
    assert!(text.contains("leaderboard  compare   <- evaluate\n"), "{text}");
    assert!(project.ok(&["graph", "--as", "dot"]).starts_with("digraph \"penguins\" {\n"));
    assert!(project.ok(&["graph", "--as", "mermaid"]).starts_with("flowchart LR\n"));
    project.ok(&["graph", "--output", "graph.svg"]);
    let svg = project.read("graph.svg");
    assert!(svg.starts_with("<svg ") && svg.matches("<rect x=").count() == 43);
    assert_eq!(project.ok(&["graph", "--format", "json"]).lines().count(), 43);
}

#[test]
fn log_lists_runs_newest_first() {
    let project = Project::example("penguins");
    project.run(&["penguins"]).succeeded();
    project.run(&["penguins"]).succeeded();
    let runs: Vec<Json> = project.ok(&["log", "--format", "json"]).lines().map(json).collect();
    let told: Vec<_> = runs.iter().map(|run| (run["run"].as_str(), run["end"]["ran"].as_u64())).collect();
    assert_eq!(told, [(Some("000002"), Some(0)), (Some("000001"), Some(1))]);
}

#[test]
fn a_number_of_the_command_line_that_is_none_is_told_in_plain_words() {
    let project = Project::with("[stages.a]\nrun = 'echo a > a'\nouts = ['a']\n");
    let errors = [
        (["run", "-j", "0"], "invalid value '0' for '--jobs <N>': expected a whole number of at least 1"),
        (["log", "-n", "x"], "invalid value 'x' for '--number <NUMBER>': expected a whole number"),
    ];
    for (arguments, text) in errors {
        let done = project.call(&arguments);
        let all = format!("error: {text}\n\nFor more information, try '--help'.\n");
        assert_eq!((done.code, done.err), (2, all));
    }
}

#[test]
fn bash_completes_commands_and_their_options() {
    let project = Project::empty();
    project.write("headwater.bash", project.ok(&["completions", "bash"]));
    let complete = |words: &str| {
        let word = words.split(' ').next_back().expect("a word");
        let script = format!(
            "source headwater.bash; COMP_WORDS=({words}); COMP_CWORD={}; _headwater headwater '{word}' x; echo ${{COMPREPLY[@]}}",
            words.matches(' ').count()
        );
        let done = std::process::Command::new("bash").args(["-c", &script]).current_dir(project.root()).output();
        String::from_utf8(done.expect("bash starts").stdout).expect("text").trim().to_owned()
    };
    assert_eq!(complete("headwater st"), "status store");
    assert_eq!(complete("headwater run --ke"), "--keep-going");
}

#[test]
fn log_says_that_nothing_has_run_or_that_there_is_no_project() {
    let project = Project::with("[stages.a]\nrun = 'echo a > a'\nouts = ['a']\n");
    let done = project.call(&["log"]);
    assert_eq!((done.code, done.out.as_str(), done.err.as_str()), (0, "", "nothing has run yet\n"));
    assert_eq!(project.call(&["log", "-q"]).err, "");
    project.write("pipeline.toml", "wrong");
    assert_eq!(project.call(&["log"]).code, 0);
    let done = Project::empty().call(&["log"]);
    assert!(done.err.starts_with("error: pipeline.toml cannot be read: No such file or directory"), "{}", done.err);
    assert_eq!(done.code, 2);
}

#[test]
fn a_file_that_cannot_be_written_at_the_end_is_refused_before_anything_runs() {
    let project = Project::with("[stages.a]\nrun = 'echo a > a'\nouts = ['a']\n");
    for option in ["--trace", "--junit"] {
        let done = project.call(&["run", option, "pipeline.toml/in/file"]);
        let text = "error: pipeline.toml/in/file cannot be written: pipeline.toml is no folder\n";
        assert_eq!((done.code, done.err.as_str()), (2, text));
    }
    assert!(!project.path("a").exists());
    assert_eq!(project.call(&["log"]).err, "nothing has run yet\n");
    project.ok(&["run", "--junit", "told/here/report.xml"]);
    assert!(project.read("told/here/report.xml").starts_with("<?xml"));
}

#[test]
fn init_makes_a_pipeline_that_runs() {
    for arguments in [&["init", "new"][..], &["init", "--example", "penguins", "new"][..]] {
        let project = Project::empty();
        project.ok(arguments);
        assert!(project.read("new/.gitignore").contains("/.headwater/\n"));
        let run = project.run(&["--pipeline", "new/pipeline.toml"]).succeeded();
        assert!(!run.ran().is_empty());
        let again = project.call(arguments);
        assert_eq!(again.code, 2);
        assert!(again.err.starts_with("error: new/pipeline.toml is there already\n"), "{}", again.err);
    }
}

#[test]
fn predict_takes_for_missing_what_training_took() {
    let project = penguins();
    project.ok(&["predict", MODEL, "data/penguins.csv", "-o", "own.csv"]);
    project.ok(&["predict", MODEL, "data/penguins.csv", "--null-value", "NA", "-o", "told.csv"]);
    assert_eq!(project.read("own.csv"), project.read("told.csv"));
    assert_eq!(project.read("own.csv").lines().count(), 345);
    let other = project.call(&["predict", MODEL, "data/penguins.csv", "--null-value", "?", "-o", "other.csv"]);
    assert!(other.err.contains("column `bill_length_mm` is str, expected f64"), "{}", other.err);
}

#[test]
fn what_is_shown_is_what_the_file_asks_for_now() {
    let project = Project::example("penguins");
    project.run(&["split"]).succeeded();
    let digest = |arguments: &[&str]| {
        let done = project.call(&[&["show", "split[fold=0].train", "--format", "json"], arguments].concat());
        (json(&done.out)["digest"].as_str().expect("a digest").to_owned(), done.err)
    };
    let (seven, warning) = digest(&[]);
    assert_eq!(warning, "");
    project.run(&["split", "--set", "seed=8"]).succeeded();
    assert_eq!(digest(&[]), (seven.clone(), String::new()), "not what another seed gave last");
    project.edit("pipeline.toml", "seed = 7", "seed = 9");
    let (shown, warning) = digest(&[]);
    assert_ne!(shown, seven, "the last finish was that of seed 8");
    assert_eq!(warning, "warning: `split[fold=0]` is not up to date; this is what it gave when it last ran\n");
}

#[test]
fn a_closed_pipe_ends_a_command_quietly() {
    let project = penguins();
    for arguments in [&["status", "-v"][..], &["run", "--format", "json"], &["log"], &["graph"], &["schema"]] {
        let mut child = project.command(arguments);
        child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        let mut child = child.spawn().expect("the program starts");
        drop(child.stdout.take());
        let done = child.wait_with_output().expect("it ends");
        assert_eq!(
            (done.status.code(), String::from_utf8_lossy(&done.stderr).as_ref()),
            (Some(0), ""),
            "{arguments:?}"
        );
    }
}

#[test]
fn what_ran_before_a_kill_is_known() {
    let pipeline = "[stages.a]\nrun = 'echo a > a'\nouts = ['a']\n[stages.b]\nrun = 'cat a; sleep 60'\ndeps = ['a']\nouts = ['b']\n";
    let project = Project::with(pipeline);
    let mut child = project.command(&["run"]).spawn().expect("the program starts");
    // A record waits for others for a moment, so that they share a sync: what is told is there.
    let journal = || {
        let runs = std::fs::read_dir(project.path(".headwater/runs")).into_iter().flatten();
        runs.map(|run| std::fs::read_to_string(run.expect("a run").path()).expect("a journal")).collect::<String>()
    };
    eventually("the journal tells of a", || journal().contains(r#""node":"a""#));
    child.kill().expect("a kill");
    child.wait().expect("it ends");
    let log = project.ok(&["log"]);
    assert!(log.contains("has not ended"), "{log}");
    assert!(project.ok(&["show", "a"]).contains("a.a  file"));
    assert_eq!(project.run(&["a"]).succeeded().with("cached"), ["a"]);
}

#[test]
fn init_keeps_a_gitignore_of_any_bytes() {
    let project = Project::empty();
    project.write(".gitignore", b"caf\xe9/");
    project.ok(&["init"]);
    let bytes = std::fs::read(project.path(".gitignore")).expect("a file");
    assert_eq!(bytes, b"caf\xe9/\n/.headwater/\n");
}

#[test]
fn graph_does_not_replace_a_file_unasked() {
    let project = Project::example("penguins");
    let before = project.read("pipeline.toml");
    let done = project.call(&["graph", "-o", "pipeline.toml", "--as", "dot"]);
    assert_eq!((done.code, project.read("pipeline.toml")), (2, before));
    assert!(done.err.starts_with("error: pipeline.toml is there already\n"), "{}", done.err);
    project.ok(&["graph", "-o", "graph.dot"]);
    project.ok(&["graph", "-o", "graph.dot", "--overwrite"]);
}

#[test]
fn predict_checks_where_it_writes_before_it_reads() {
    let done = penguins().call(&["predict", MODEL, "not-there.csv", "-o", "out.xlsx"]);
    assert_eq!(done.code, 2);
    assert!(done.err.starts_with("error: a frame cannot be written to `out.xlsx`: "), "{}", done.err);
}

#[test]
fn the_schema_covers_every_kind() {
    let schema = json(&Project::empty().ok(&["schema"]));
    let kinds: Vec<&str> =
        schema["$defs"].as_object().expect("definitions").keys().filter_map(|key| key.strip_prefix("stage.")).collect();
    assert_eq!(kinds, ["read", "sql", "split", "prepare", "train", "evaluate", "compare", "run"]);
    assert_eq!(schema["$defs"]["stage.split"]["properties"]["uses"]["const"], "split");
}

#[test]
fn the_documentation_has_the_current_schema_and_reference() {
    let project = Project::empty();
    for (file, arguments) in [("docs/schema.json", &["schema"][..]), ("docs/kinds.md", &["schema", "--markdown"][..])] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        let kept = std::fs::read_to_string(&path).expect("the file");
        assert!(kept == project.ok(arguments), "{file} is old: write it anew with `headwater {}`", arguments.join(" "));
    }
}

#[test]
fn a_folder_of_the_project_is_as_good_as_its_root() {
    let project = Project::with("[stages.a]\nrun = 'cat in/text > a'\ndeps = ['in/text']\nouts = ['a']\n");
    project.write("in/text", "text");
    let call = |arguments: &[&str]| {
        let mut command = project.command(arguments);
        let done = command.current_dir(project.path("in")).output().expect("the program starts");
        (done.status.code(), String::from_utf8(done.stderr).expect("UTF-8"))
    };
    let (code, err) = call(&["run"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(project.read("a"), "text");
    assert_eq!(call(&["get", "a.a", "-o", "copy"]).0, Some(0));
    assert_eq!(project.read("in/copy"), "text", "paths on the command line are of the folder that it is in");
    assert_eq!(project.run(&[]).succeeded().ran().len(), 0);
    project.edit("pipeline.toml", "run", "rum");
    let (code, err) = call(&["run"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("../pipeline.toml:2:1"), "{err}");
}

#[test]
fn bytes_that_are_no_text_are_not_shown() {
    let project = Project::with("[stages.a]\nrun = 'printf \"\\\\000\\\\001\" > a'\nouts = ['a']\n");
    project.run(&[]).succeeded();
    let shown = project.ok(&["show", "a.a"]);
    assert_eq!(shown.lines().nth(1), Some("not a text; headwater get writes it to a file"));
    assert_eq!(json(&project.ok(&["show", "a.a", "--format", "json"]))["content"], serde_json::json!({ "text": null }));
}

#[test]
fn without_a_pipeline_file_the_error_says_how_to_get_one() {
    let done = Project::empty().call(&["run"]);
    assert_eq!(done.code, 2);
    assert_eq!(
        done.err,
        "error: pipeline.toml cannot be read: No such file or directory (os error 2)\n  help: name the file: --pipeline \
         PATH\n  help: make one: headwater init, or headwater init --example penguins\n"
    );
}

#[test]
fn results_go_to_standard_output_and_the_rest_to_standard_error() {
    let project = Project::example("penguins");
    let done = project.call(&["run", "penguins"]);
    assert_eq!((done.code, done.out.as_str()), (0, ""));
    assert!(done.err.ends_with(" ms\n") && done.err.contains("ran 1, cached 0 in "), "{}", done.err);
    let run = project.run(&["penguins"]);
    assert_eq!(run.done.err, "");
}

#[test]
fn what_was_to_be_traced_ends_if_its_tracer_is_gone() {
    let project = Project::with("");
    let done = project.command(&["trace-command", "1", "true"]).output().expect("it ends");
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&done.stderr), "whoever was to trace it is gone\n");
}
