//! The rules of axes, variants and nodes, by the names of the nodes and what each reads.

mod support;

use std::collections::BTreeMap;

use support::Project;

/// Data, parts by fold, a model, its score and a table of the scores.
const STAGES: &str = r#"
[stages.data]
uses = "read"
path = "data.csv"

[stages.parts]
uses = "split"
input = "data"
folds = 2
fold = "${fold}"

[stages.fit]
uses = "train"
input = "parts"
target = "y"
model = "${model}"

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "parts.test" }

[stages.board]
uses = "compare"
gather = "scored.metrics"
"#;

const MATRIX: &str = r#"
[matrix]
model.tree = { algorithm = "decision_tree" }
model.line = { algorithm = "linear_regression" }
fold = { from = 0, below = 2 }
"#;

/// One stage for each of some params: its query mentions them.
fn query(name: &str, input: &str, params: &[&str]) -> String {
    let columns: Vec<String> = params.iter().map(|param| format!("${{{param}}} as {param}")).collect();
    let query = format!("select {} from input", columns.join(", "));
    format!("[stages.{name}]\nuses = \"sql\"\ninput = \"{input}\"\nquery = \"{query}\"\n\n")
}

const DATA: &str = "[stages.data]\nuses = \"read\"\npath = \"data.csv\"\n\n";

/// What each node of a project reads, sorted, by the node's name.
fn reads(project: &Project) -> BTreeMap<String, Vec<String>> {
    let lines = project.ok(&["graph", "--format", "json"]);
    let parsed = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let names = |line: &serde_json::Value| -> Vec<String> {
        let mut names: Vec<String> = line["reads"].as_array().expect("an array").iter().map(text).collect();
        names.sort();
        names
    };
    parsed.map(|line| (text(&line["node"]), names(&line))).collect()
}

/// The names of a stage's nodes, sorted.
fn nodes(pipeline: &str, stage: &str) -> Vec<String> {
    of_stage(reads(&Project::with(pipeline)).into_keys(), stage)
}

fn of_stage(names: impl Iterator<Item = String>, stage: &str) -> Vec<String> {
    names.filter(|name| name.split('[').next() == Some(stage)).collect()
}

/// The names of a stage's nodes with these settings of the command line, sorted.
fn nodes_with(pipeline: &str, settings: &[&str], stage: &str) -> Vec<String> {
    let project = Project::with(pipeline);
    project.write("data.csv", "x,y\n1,2\n3,4\n");
    let arguments: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    of_stage(project.status(&arguments).into_keys(), stage)
}

#[test]
fn variants_share_the_upstream_that_does_not_tell_them_apart() {
    let reads = reads(&Project::with(&format!("{MATRIX}{STAGES}")));
    let names: Vec<&str> = reads.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "board",
            "data",
            "fit[model=line,fold=0]",
            "fit[model=line,fold=1]",
            "fit[model=tree,fold=0]",
            "fit[model=tree,fold=1]",
            "parts[fold=0]",
            "parts[fold=1]",
            "scored[model=line,fold=0]",
            "scored[model=line,fold=1]",
            "scored[model=tree,fold=0]",
            "scored[model=tree,fold=1]",
        ]
    );
    assert_eq!(reads["parts[fold=1]"], ["data"]);
    assert_eq!(reads["fit[model=line,fold=1]"], ["parts[fold=1]"]);
    assert_eq!(reads["fit[model=tree,fold=1]"], ["parts[fold=1]"]);
    assert_eq!(reads["scored[model=tree,fold=0]"], ["fit[model=tree,fold=0]", "parts[fold=0]"]);
}

#[test]
fn a_gather_collects_all_nodes() {
    let reads = reads(&Project::with(&format!("{MATRIX}{STAGES}")));
    let all = ["model=line,fold=0", "model=line,fold=1", "model=tree,fold=0", "model=tree,fold=1"];
    assert_eq!(reads["board"], all.map(|axes| format!("scored[{axes}]")));
}

#[test]
fn a_gather_over_one_axis_keeps_the_others() {
    let reads = reads(&Project::with(&format!("{MATRIX}{STAGES}over = [\"fold\"]\n")));
    assert_eq!(of_stage(reads.keys().cloned(), "board"), ["board[model=line]", "board[model=tree]"]);
    assert_eq!(reads["board[model=tree]"], ["scored[model=tree,fold=0]", "scored[model=tree,fold=1]"]);
}

#[test]
fn a_gather_over_every_axis_is_one_node() {
    assert_eq!(nodes(&format!("{MATRIX}{STAGES}over = [\"fold\", \"model\"]\n"), "board"), ["board"]);
}

#[test]
fn an_excluded_combination_has_no_node() {
    let reads = reads(&Project::with(&format!("{MATRIX}exclude = [{{ model = \"tree\", fold = 1 }}]\n{STAGES}")));
    let fits = ["fit[model=line,fold=0]", "fit[model=line,fold=1]", "fit[model=tree,fold=0]"];
    assert_eq!(of_stage(reads.keys().cloned(), "fit"), fits);
    assert_eq!(of_stage(reads.keys().cloned(), "parts"), ["parts[fold=0]", "parts[fold=1]"]);
    assert_eq!(reads["board"].len(), 3);
}

#[test]
fn a_gather_over_an_axis_takes_what_exclusions_leave() {
    let pipeline = format!("{MATRIX}exclude = [{{ model = \"tree\", fold = 1 }}]\n{STAGES}over = [\"fold\"]\n");
    let reads = reads(&Project::with(&pipeline));
    assert_eq!(reads["board[model=tree]"], ["scored[model=tree,fold=0]"]);
    assert_eq!(reads["board[model=line]"].len(), 2);
}

#[test]
fn an_exclusion_of_one_value_takes_the_axis_away_if_one_is_left() {
    let pipeline = format!("{MATRIX}exclude = [{{ fold = 0 }}]\n{STAGES}");
    assert_eq!(nodes(&pipeline, "parts"), ["parts"]);
    assert_eq!(nodes(&pipeline, "fit"), ["fit[model=line]", "fit[model=tree]"]);
}

#[test]
fn a_named_variant_with_a_table_bears_its_name_and_takes_every_value_of_what_it_leaves_out() {
    let variant = "[variants.deep]\nmodel = { algorithm = \"decision_tree\", max_depth = 9 }\n";
    assert_eq!(
        nodes(&format!("{MATRIX}{variant}{STAGES}"), "fit"),
        [
            "fit[model=deep,fold=0]",
            "fit[model=deep,fold=1]",
            "fit[model=line,fold=0]",
            "fit[model=line,fold=1]",
            "fit[model=tree,fold=0]",
            "fit[model=tree,fold=1]",
        ]
    );
}

#[test]
fn a_named_variant_may_set_an_axis_to_one_of_its_labels() {
    let pipeline =
        format!("{MATRIX}exclude = [{{ model = \"tree\" }}]\n[variants.one]\nmodel = \"tree\"\nfold = 1\n{STAGES}");
    assert_eq!(nodes(&pipeline, "fit"), ["fit[model=line,fold=0]", "fit[model=line,fold=1]", "fit[model=tree,fold=1]"]);
}

#[test]
fn a_plain_param_that_a_variant_sets_becomes_an_axis() {
    let stages = query("q", "data", &["rate"]);
    let pipeline = format!("[params]\nrate = 1\n[matrix]\nx = [0]\n[variants.fast]\nrate = 5\n{DATA}{stages}");
    assert_eq!(nodes(&pipeline, "q"), ["q[rate=1]", "q[rate=5]"]);
    assert_eq!(nodes(&pipeline, "data"), ["data"]);
}

#[test]
fn without_a_matrix_the_named_variants_are_all_there_are() {
    let stages = query("q", "data", &["rate", "seed"]);
    let variants = "[variants.slow]\nrate = 2\n[variants.fast]\nrate = 5\nseed = 8\n";
    let pipeline = format!("[params]\nrate = 1\nseed = 7\n{variants}{DATA}{stages}");
    assert_eq!(nodes(&pipeline, "q"), ["q[rate=2,seed=7]", "q[rate=5,seed=8]"]);
}

#[test]
fn an_axis_with_one_value_is_no_axis() {
    let stages = query("q", "data", &["x", "y"]);
    assert_eq!(nodes(&format!("[matrix]\nx = [3]\ny = [1, 2]\n{DATA}{stages}"), "q"), ["q[y=1]", "q[y=2]"]);
}

#[test]
fn axes_stand_in_the_order_of_the_matrix() {
    let stages = query("q", "data", &["a", "b"]);
    let names = nodes(&format!("[matrix]\nb = [1, 2]\na = [3, 4]\n{DATA}{stages}"), "q");
    assert_eq!(names, ["q[b=1,a=3]", "q[b=1,a=4]", "q[b=2,a=3]", "q[b=2,a=4]"]);
}

#[test]
fn an_edge_joins_nodes_that_agree_on_the_axes_they_share() {
    let both = "[stages.both]\nuses = \"sql\"\ninputs = { p = \"p\", q = \"q\" }\nquery = \"select p.x from p join q using (x)\"\n";
    let stages = format!("{DATA}{}{}{both}", query("p", "data", &["x", "a"]), query("q", "data", &["x", "b"]));
    let reads = reads(&Project::with(&format!("[matrix]\nx = [1, 2]\na = [3, 4]\nb = [5, 6]\n{stages}")));
    assert_eq!(of_stage(reads.keys().cloned(), "both").len(), 8);
    assert_eq!(reads["both[x=2,a=3,b=6]"], ["p[x=2,a=3]", "q[x=2,b=6]"]);
}

#[test]
fn a_table_is_known_by_its_label() {
    let command = "[stages.c]\nrun = \"echo ${model} > out/${model}.txt\"\nouts = [\"out/${model}.txt\"]\n";
    let project = Project::with(&format!("{MATRIX}{command}"));
    project.run(&[]).succeeded();
    assert_eq!((project.read("out/tree.txt"), project.read("out/line.txt")), ("tree\n".into(), "line\n".into()));
}

#[test]
fn a_glob_makes_an_axis_of_the_files_it_matches() {
    let pipeline = "[matrix]\nday = { glob = \"days/*.csv\" }\n[stages.day]\nuses = \"read\"\npath = \"${day}\"\n";
    let project = Project::with(pipeline);
    for day in ["b", "a"] {
        project.write(&format!("days/{day}.csv"), "x\n1\n");
    }
    project.write("days/notes.txt", "none");
    let names: Vec<String> = reads(&project).into_keys().collect();
    assert_eq!(names, ["day[day=days/a.csv]", "day[day=days/b.csv]"]);
    assert_eq!(
        project.run(&[]).succeeded().ran().len() + project.run(&[]).with("cached").len(),
        3,
        "equal files, one key"
    );
}

#[test]
fn a_setting_replaces_a_param_and_names_stay() {
    let stages = query("q", "data", &["rate", "x"]);
    let pipeline = format!("[params]\nrate = 1\n[matrix]\nx = [1, 2]\n{DATA}{stages}");
    assert_eq!(nodes_with(&pipeline, &["rate=9"], "q"), ["q[x=1]", "q[x=2]"]);
}

#[test]
fn a_setting_to_a_label_of_an_axis_leaves_those_variants_alone() {
    let pipeline = format!("{MATRIX}{STAGES}");
    assert_eq!(nodes_with(&pipeline, &["model=tree"], "fit"), ["fit[fold=0]", "fit[fold=1]"]);
    assert_eq!(nodes_with(&pipeline, &["model=tree", "fold=1"], "fit"), ["fit"]);
}

#[test]
fn a_setting_to_a_new_value_replaces_the_axis() {
    let stages = query("q", "data", &["x", "y"]);
    let pipeline = format!("[matrix]\nx = [1, 2]\ny = [3, 4]\n{DATA}{stages}");
    assert_eq!(nodes_with(&pipeline, &["x=7"], "q"), ["q[y=3]", "q[y=4]"]);
}

#[test]
fn two_dollars_are_a_literal_one() {
    let project = Project::with("[stages.c]\nrun = \"printf %s '$${x}' > c.txt\"\nouts = [\"c.txt\"]\n");
    project.run(&[]).succeeded();
    assert_eq!(project.read("c.txt"), "${x}");
}

#[test]
fn a_list_in_a_query_is_a_list_of_literals() {
    let query = "[stages.q]\nuses = \"sql\"\ninput = \"data\"\nquery = \"select x from input where t in ${kept}\"\n";
    let project = Project::with(&format!("[params]\nkept = [\"a\", \"it's\"]\n{DATA}{query}"));
    project.write("data.csv", "x,t\n1,a\n2,b\n3,it's\n");
    project.run(&[]).succeeded();
    project.ok(&["get", "q", "-o", "q.csv"]);
    assert_eq!(project.read("q.csv"), "x\n1\n3\n");
}

/// What a query over one row `x = 10` gives, as CSV, with `n` set to a value.
fn queried(n: &str, query: &str) -> String {
    let project = Project::with(&format!(
        "[params]\nn = {n}\n\n{DATA}[stages.q]\nuses = \"sql\"\ninput = \"data\"\nquery = \"{query}\"\n\n\
         [stages.copy]\nrun = \"cp in.csv out.csv\"\ndeps = [{{ from = \"q\", as = \"in.csv\" }}]\nouts = [\"out.csv\"]\n"
    ));
    project.write("data.csv", "x\n10\n");
    project.run(&[]).succeeded();
    project.read("out.csv")
}

#[test]
fn a_negative_number_behind_a_minus_is_subtracted() {
    assert_eq!(queried("-5", "select x -${n} as y from input"), "y\n15\n");
    assert_eq!(queried("-0.5", "select x -${n} as y from input"), "y\n10.5\n");
}

#[test]
fn a_negative_number_may_stand_in_a_list() {
    assert_eq!(queried("[-5, 10]", "select x from input where x in ${n}"), "x\n10\n");
}

#[test]
fn a_float_of_any_size_in_a_query_is_that_float() {
    for (written, printed) in [("0.00001", "1e-5"), ("1e300", "1e300"), ("5e-324", "5e-324"), ("2.0", "2.0")] {
        assert_eq!(queried(written, "select ${n} as y from input"), format!("y\n{printed}\n"));
    }
}

#[test]
fn a_glob_passes_over_folders_the_state_and_outs() {
    let pipeline = "[matrix]\nday = { glob = \"**/*.csv\" }\n\n[stages.day]\nuses = \"read\"\npath = \"${day}\"\n\n\
                    [stages.make]\nrun = \"mkdir -p res; cp days/a.csv made.csv; cp days/a.csv res/b.csv\"\n\
                    deps = [\"days/a.csv\"]\nouts = [\"made.csv\", \"res\"]\n";
    let project = Project::with(pipeline);
    for path in ["days/a.csv", "days/folder.csv/notes", ".headwater/trash/old.csv", "made.csv", "res/b.csv"] {
        project.write(path, "x\n1\n");
    }
    project.write("days/b.csv", "x\n1\n");
    let names: Vec<String> = reads(&project).into_keys().collect();
    assert_eq!(names, ["day[day=days/a.csv]", "day[day=days/b.csv]", "make"]);
}

#[test]
fn a_table_in_a_word_of_a_command_is_known_by_its_label() {
    let pipeline = "[params]\nn = 7\n\n[matrix]\nmodel.tree = { depth = 1 }\nmodel.line = { depth = 2 }\n\n[stages.make]\n\
                    run = [\"touch\", \"${model}\", \"${n}\"]\nouts = [\"./${model}\"]\n";
    let project = Project::with(pipeline);
    project.run(&[]).succeeded();
    assert!(project.path("tree").is_file() && project.path("line").is_file());
}
