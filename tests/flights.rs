//! The example `flights`, whole: 336,776 real rows, eight variants over one shared ingestion and preparation.

mod support;

use support::Project;

const SHARED: [&str; 6] = ["flights", "joined", "planes", "prepare", "split", "weather"];
const MODELS: [&str; 8] =
    ["logistic_0", "logistic_1", "logistic_100", "logistic_10000", "tree_12", "tree_4", "tree_6", "tree_8"];

/// One run of the whole example serves all its facts: it takes a minute where nothing is optimized.
#[test]
fn eight_variants_share_one_preparation_and_nothing_runs_twice() {
    let project = Project::example("flights");
    shared_stages_run_once(&project);
    a_second_run_executes_nothing(&project);
    one_hyper_parameter_runs_one_variant(&project);
    an_equal_result_cuts_off(&project);
    a_touched_file_runs_nothing(&project);
    no_feature_is_known_only_after_departure(&project);
}

fn shared_stages_run_once(project: &Project) {
    let run = project.run(&[]).succeeded();
    assert_eq!(run.nodes.len(), 23, "6 shared, 8 trained, 8 evaluated, 1 table");
    let ran = run.ran();
    for stage in SHARED {
        assert_eq!(ran.iter().filter(|name| *name == stage).count(), 1, "{stage}");
    }
    for model in MODELS {
        assert!(ran.contains(&format!("train[model={model}]")) && ran.contains(&format!("evaluate[model={model}]")));
    }
}

fn a_second_run_executes_nothing(project: &Project) {
    let run = project.run(&[]).succeeded();
    assert_eq!((run.ran().len(), run.with("cached").len()), (0, 23));
}

fn one_hyper_parameter_runs_one_variant(project: &Project) {
    project.edit("pipeline.toml", "max_depth = 4 }", "max_depth = 3 }");
    let run = project.run(&[]).succeeded();
    assert_eq!(run.ran(), ["evaluate[model=tree_4]", "leaderboard", "train[model=tree_4]"]);
}

fn an_equal_result_cuts_off(project: &Project) {
    project.edit("pipeline.toml", "f.arr_delay > ${late_after} as late", "not (f.arr_delay <= ${late_after}) as late");
    assert_eq!(project.run(&[]).succeeded().ran(), ["joined"]);
}

fn a_touched_file_runs_nothing(project: &Project) {
    for file in ["data/flights.csv.zst", "data/weather.csv.zst", "data/planes.csv.zst"] {
        let bytes = std::fs::read(project.path(file)).expect("the data");
        project.write(file, bytes);
    }
    assert!(project.run(&[]).succeeded().ran().is_empty());
}

fn no_feature_is_known_only_after_departure(project: &Project) {
    let card = project.ok(&["show", "train[model=tree_8].model", "--format", "json"]);
    for leak in ["arr_time", "arr_delay", "air_time"] {
        assert!(!card.contains(leak), "{leak} is known only after departure");
    }
    let card: serde_json::Value = serde_json::from_str(&card).expect("JSON");
    let features = card["content"]["features"].as_array().expect("features");
    assert!(features.iter().any(|feature| feature == "dep_delay") && features.len() > 20, "{features:?}");
}
