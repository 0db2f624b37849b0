//! What past runs and nodes were: `params diff`, `metrics diff`, `lineage`, `run --trace`, `run --junit`.

mod support;

use serde_json::Value as Json;
use support::Project;

/// Two runs of the penguins, the second with two values of a param of the trees changed.
fn two_runs() -> Project {
    let project = Project::example("penguins");
    project.run(&[]).succeeded();
    project.edit("pipeline.toml", "max_depth = 2", "max_depth = 1");
    project.run(&[]).succeeded();
    project
}

fn lines(text: &str) -> Vec<Json> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn runs_and_nodes_are_compared_by_params_and_metrics() {
    let project = two_runs();
    let text = project.ok(&["params", "diff", "1", "2"]);
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(words[..4], ["param", "1", "2", "of"]);
    assert!(text.contains("max_depth = 2 }  { algorithm = decision_tree, max_depth = 1 }  "), "{text}");
    assert!(text.contains("train[model=shallow_tree,fold=0]") && text.ends_with("…\n"), "{text}");
    assert_eq!(project.ok(&["params", "diff", "last~1", "last"]).lines().count(), 2);

    let changed = lines(&project.ok(&["metrics", "diff", "last~1", "last", "--format", "json"]));
    assert!(changed.iter().all(|line| line["node"].as_str().unwrap().starts_with("evaluate[model=shallow_tree,")));
    assert!(changed.iter().any(|line| line["name"] == "accuracy"), "{changed:?}");
    for line in &changed {
        assert_eq!(line["event"], "metric_diff");
        assert_ne!(line["old"].as_f64().unwrap(), line["new"].as_f64().unwrap());
    }

    let (one, two) = ("evaluate[model=logistic,fold=0]", "evaluate[model=deep_tree,fold=0]");
    let text = project.ok(&["metrics", "diff", one, two]);
    assert!(text.starts_with(" metric "), "{text}");
    let shown =
        |node| lines(&project.ok(&["show", node, "--format", "json"]))[0]["content"]["accuracy"].as_f64().unwrap();
    let row = text.lines().find(|line| line.starts_with(" accuracy")).expect("a row");
    let numbers: Vec<f64> = row.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect();
    let (old, new) = (shown(one), shown(two));
    for (number, expected) in numbers.iter().zip([old, new, new - old]) {
        assert!((number - expected).abs() < 1e-6, "{row}");
    }
    assert_eq!(project.ok(&["params", "diff", "1", "1"]), "the params of 1 and 1 are the same\n");
}

#[test]
fn the_numbers_of_json_files_that_commands_make_are_metrics() {
    let project = Project::with(
        r#"
[params]
error = 1.5

[stages.score]
run = "printf '{\"rmse\": %s, \"of\": {\"rows\": 3}}' ${error} > score.json"
outs = ["score.json"]

[stages.plain]
run = "echo text > plain"
outs = ["plain"]
"#,
    );
    project.run(&[]).succeeded();
    project.run(&["--set", "error=1.25"]).succeeded();
    let changed = lines(&project.ok(&["metrics", "diff", "1", "2", "--format", "json"]));
    let told: Vec<_> = changed.iter().map(|line| (line["name"].as_str().unwrap(), line["new"].as_f64())).collect();
    assert_eq!(told, [("rmse", Some(1.25))]);
    assert_eq!(project.ok(&["metrics", "diff", "1", "1"]), "the metrics of 1 and 1 are the same\n");
    let done = project.call(&["metrics", "diff", "plain", "plain"]);
    let hint = "metrics are what `evaluate` gives, and the numbers in JSON files that commands make";
    assert_eq!(done.err, format!("error: neither `plain` nor `plain` has metrics\n  help: {hint}\n"));
    assert_eq!(done.code, 2);
}

#[test]
fn a_side_that_names_nothing_or_another_sort_is_refused() {
    let project = two_runs();
    let error = |arguments: &[&str]| {
        let done = project.call(arguments);
        assert_eq!(done.code, 2);
        done.err
    };
    let log = "`headwater log` lists runs";
    assert_eq!(error(&["params", "diff", "7", "1"]), format!("error: there is no run `7`\n  help: {log}\n"));
    assert_eq!(error(&["params", "diff", "last~2", "1"]), format!("error: there is no run `last~2`\n  help: {log}\n"));
    assert_eq!(
        error(&["params", "diff", "1", "measured"]),
        format!(
            "error: one of `1` and `measured` is a run, the other a node\n  help: compare two runs, or two nodes; {log}\n"
        )
    );
    assert!(error(&["metrics", "diff", "nothing", "1"]).starts_with("error: "));
}

#[test]
fn a_lineage_leads_to_the_files() {
    let project = two_runs();
    let node = "train[model=shallow_tree,fold=0]";
    let found = lines(&project.ok(&["lineage", node, "--format", "json"]));
    let nodes: Vec<&str> = found.iter().map(|line| line["node"].as_str().unwrap()).collect();
    assert_eq!(nodes, [node, "prepare[fold=0]", "split[fold=0]", "measured", "penguins"]);
    let source = &found[4]["inputs"][0];
    assert_eq!(source["from"], "data/penguins.csv");
    let bytes = std::fs::read(project.path("data/penguins.csv")).expect("a file");
    assert_eq!(source["digest"], blake3::hash(&bytes).to_hex().as_str());
    for (reader, producer) in found.iter().zip(&found[1..]) {
        let (port, digest) = reader["inputs"][0]["from"].as_str().unwrap().rsplit_once('.').unwrap();
        assert_eq!(port, producer["node"].as_str().unwrap());
        assert_eq!(reader["inputs"][0]["digest"], producer["outputs"][digest]);
    }
    let text = project.ok(&["lineage", node]);
    assert!(text.contains("    param model = { algorithm = decision_tree, max_depth = 1 }\n"), "{text}");
    assert!(text.contains("    path <- data/penguins.csv  "), "{text}");

    project.edit("pipeline.toml", "max_depth = 1", "max_depth = 3");
    let done = project.call(&["lineage", node]);
    assert_eq!(done.code, 2);
    let told = format!("error: `{node}` is not up to date\n  help: run it first: headwater run '{node}'\n");
    assert_eq!(done.err, told);
}

#[test]
fn a_trace_has_every_node_in_a_lane_of_its_own_while_it_runs() {
    let project = Project::example("penguins");
    let events = || {
        let text = project.read("trace.json");
        let events = serde_json::from_str::<Json>(&text).expect("JSON")["traceEvents"].as_array().unwrap().clone();
        events.into_iter().filter(|event| event["ph"] == "X").collect::<Vec<Json>>()
    };
    project.ok(&["run", "--trace", "trace.json"]);
    let ran = events();
    assert_eq!(ran.len(), 43);
    for (at, one) in ran.iter().enumerate() {
        assert_eq!(one["cat"], "ran");
        let span = |event: &Json| {
            let begin = event["ts"].as_f64().unwrap();
            (begin, begin + event["dur"].as_f64().unwrap())
        };
        for other in ran[at + 1..].iter().filter(|other| other["tid"] == one["tid"]) {
            let ((a, b), (c, d)) = (span(one), span(other));
            assert!(b <= c || d <= a, "{one} and {other} overlap");
        }
    }
    project.ok(&["run", "--trace", "trace.json"]);
    let cached = events();
    assert_eq!(cached.len(), 43);
    assert!(cached.iter().all(|event| event["cat"] == "cached" && event["tid"] == 0));
    let done = project.call(&["run", "--trace", "data"]);
    assert_eq!(done.code, 1);
    assert!(done.err.ends_with("error: data cannot be written: Is a directory (os error 21)\n"), "{}", done.err);
}

#[test]
fn what_an_earlier_run_made_is_found_by_its_digest_and_has_no_lineage_now() {
    let project = Project::with("[params]\nword = 'one'\n[stages.a]\nrun = 'echo ${word} > a'\nouts = ['a']\n");
    for word in ["one", "two", "three"] {
        project.run(&["--set", &format!("word={word}")]).succeeded();
    }
    let digest = |word: &str| blake3::hash(format!("{word}\n").as_bytes()).to_hex()[..4].to_owned();
    for word in ["one", "two", "three"] {
        project.ok(&["get", &digest(word), "-o", word]);
        assert_eq!(project.read(word), format!("{word}\n"));
    }
    // Two words whose digests begin alike.
    let mut seen = std::collections::BTreeMap::new();
    let pair = (0..).map(|n| format!("w{n}")).find_map(|word| Some([seen.insert(digest(&word), word.clone())?, word]));
    let pair = pair.expect("two words");
    for word in &pair {
        project.run(&["--set", &format!("word={word}")]).succeeded();
    }
    let both = digest(&pair[0]);
    let done = project.call(&["show", &both]);
    let begin = format!("error: `{both}` is the beginning of several digests\n  help: {both}");
    assert!(done.code == 2 && done.err.starts_with(&begin) && done.err.lines().count() == 3, "{}", done.err);
    let done = project.call(&["show", "aaaa"]);
    assert_eq!(done.err, "error: there is no stage `aaaa`\n  help: did you mean `a`?\n  help: the stages are: a\n");
    assert!(project.ok(&["lineage", &digest("one")]).contains("param word = one"));
    let done = project.call(&["lineage", &digest("two")]);
    let told = "is `a.a` of an earlier run; now it is another";
    let hint = "the runs and what they were told: headwater log";
    assert_eq!((done.code, done.err), (2, format!("error: `{}` {told}\n  help: {hint}\n", digest("two"))));
}

#[test]
fn a_lineage_tells_each_node_before_what_it_reads() {
    let project = Project::with(
        "[stages.base]\nrun = \"echo x > 1.txt\"\nouts = [\"1.txt\"]\n\n\
         [stages.middle]\nrun = \"cp 1.txt 2.txt\"\ndeps = [\"1.txt\"]\nouts = [\"2.txt\"]\n\n\
         [stages.top]\nrun = \"cat 1.txt 2.txt > 3.txt\"\ndeps = [\"1.txt\", \"2.txt\"]\nouts = [\"3.txt\"]\n",
    );
    project.run(&[]).succeeded();
    let found = lines(&project.ok(&["lineage", "top", "--format", "json"]));
    let nodes: Vec<&str> = found.iter().map(|line| line["node"].as_str().unwrap()).collect();
    assert_eq!(nodes, ["top", "middle", "base"]);
}

const FAILING: &str = r#"
[pipeline]
name = "a & b"

[matrix]
size = [1, 2]

[stages.make]
run = "echo ${size} > out-${size}"
outs = ["out-${size}"]

[stages.break]
run = "printf 'half <a> \\033[31m' && exit 3"
outs = ["never"]

[stages.below]
run = "cp never last"
deps = ["never"]
outs = ["last"]
"#;

#[test]
fn build_servers_are_told_each_node_as_a_case_of_its_stage() {
    let project = Project::with(FAILING);
    assert_eq!(project.call(&["run", "--keep-going", "--junit", "report.xml"]).code, 1);
    let text = project.read("report.xml");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    assert_eq!(lines[0], r#"<?xml version="1.0" encoding="UTF-8"?>"#);
    assert!(
        lines[1].starts_with(r#"<testsuites name="a &amp; b" tests="4" failures="1" errors="0" skipped="1" time=""#)
    );
    let has = |wanted: &str| assert!(lines.iter().any(|line| line.starts_with(wanted)), "{wanted}\n{text}");
    has(r#"<testsuite name="make" tests="2" failures="0" errors="0" skipped="0" time=""#);
    has(r#"<testcase name="make[size=1]" classname="make" time=""#);
    has(r#"<property name="outcome" value="ran"/>"#);
    has(r#"<failure message="the command ended with exit code 3" type="failed">the command ended with exit code 3"#);
    has(r#"<skipped message="`break` failed"/>"#);
    has(r"| half &lt;a&gt; \u{1b}[31m");
    project.ok(&["run", "make", "--junit", "report.xml"]);
    let text = project.read("report.xml");
    assert_eq!(text.matches(r#"<property name="outcome" value="cached"/>"#).count(), 2);
    let done = project.call(&["run", "make", "--junit", ".headwater"]);
    assert_eq!(done.code, 1);
    assert!(done.err.ends_with("error: .headwater cannot be written: Is a directory (os error 21)\n"), "{}", done.err);
}
