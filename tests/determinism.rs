//! Same inputs, same bytes: fresh runs at one and two threads give equal digests for every kind.

mod support;

use support::Project;

const PIPELINE: &str = r#"
[matrix]
model.linear = { algorithm = "linear_regression" }
model.tree = { algorithm = "decision_tree", max_depth = 4 }
model.groups = { algorithm = "kmeans", clusters = 3 }

[stages.rows]
uses = "read"
path = "rows.csv"

[stages.means]
uses = "sql"
input = "rows"
query = "select g, avg(x) as mean_x, count(*) as n from input group by g"

[stages.joined]
uses = "sql"
inputs = { r = "rows", m = "means" }
query = "select r.x, r.y, r.g, m.mean_x, r.x * 2.0 + m.mean_x as target from r left join m on r.g = m.g"

[stages.split]
uses = "split"
input = "joined"
stratify = "g"
seed = 3

[stages.prepare]
uses = "prepare"
input = "split"
target = "target"
steps = [{ impute = "mean" }, { one_hot = "categorical" }, { scale = "standard" }]

[stages.train]
uses = "train"
input = "prepare"
model = "${model}"
seed = 5

[stages.evaluate]
uses = "evaluate"
inputs = { model = "train", data = "prepare.test" }

[stages.class]
uses = "sql"
input = "joined"
query = "select x, y, x > y as bigger from input where y is not null"

[stages.class_split]
uses = "split"
input = "class"
seed = 3

[stages.class_prepare]
uses = "prepare"
input = "class_split"
target = "bigger"
steps = [{ scale = "standard" }]

[stages.logistic]
uses = "train"
input = "class_prepare"
model = { algorithm = "logistic" }

[stages.class_evaluate]
uses = "evaluate"
inputs = { model = "logistic", data = "class_prepare.test" }

[stages.board]
uses = "compare"
gather = "class_evaluate"

[stages.command]
run = "sort rows.csv > sorted.csv"
deps = ["rows.csv"]
outs = ["sorted.csv"]
"#;

fn rows() -> String {
    let mut text = String::from("x,y,g\n");
    let mut state = 12_345_u64;
    for _ in 0..400 {
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as f64 / 2f64.powi(31)
        };
        let (x, y, g) = (next() * 10.0, next() * 10.0, (next() * 4.0) as u32);
        let y = if next() < 0.1 { String::new() } else { y.to_string() };
        text += &format!("{x},{y},g{g}\n");
    }
    text
}

#[test]
fn fresh_runs_give_equal_bytes_at_any_number_of_threads() {
    let project = Project::with(PIPELINE);
    project.write("rows.csv", rows());
    let mut first = None;
    for round in 0..5 {
        for threads in ["1", "2"] {
            let store = Project::empty();
            let mut command = project.command(&["run", "--format", "json", "-j", threads]);
            command.env("HEADWATER_STORE", store.root());
            command.env("POLARS_MAX_THREADS", threads).env("RAYON_NUM_THREADS", threads);
            let output = command.output().expect("the program starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
            let digests = digests(&String::from_utf8(output.stdout).expect("text"));
            assert_eq!(digests.len(), 28, "{digests:#?}");
            match &first {
                None => first = Some(digests),
                Some(first) => assert_eq!(*first, digests, "round {round}, {threads} threads"),
            }
        }
    }
}

fn digests(out: &str) -> std::collections::BTreeMap<String, String> {
    let mut found = std::collections::BTreeMap::new();
    for line in out.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        for (port, output) in line["outputs"].as_object().into_iter().flatten() {
            assert_eq!(line["outcome"], "ran");
            found.insert(format!("{}.{port}", line["node"]), output["digest"].to_string());
        }
    }
    found
}
