//! Everything that can be wrong with a pipeline file or with the words behind a command: the whole text that a person
//! reads, and exit code 2. A test is named after the fact that its text tells.

mod support;

use support::Project;

/// The pipeline is refused with exactly this text.
fn check(pipeline: &str, expected: &str) {
    check_command(pipeline, &["graph"], expected);
}

/// The command is refused with exactly this text.
fn check_command(pipeline: &str, arguments: &[&str], expected: &str) {
    let done = Project::with(pipeline).call(arguments);
    assert_eq!(done.err, expected.strip_prefix('\n').expect("the text begins on a line of its own"));
    assert_eq!((done.code, done.out.as_str()), (2, ""));
}

#[test]
fn a_pipeline_file_that_is_no_text() {
    let project = Project::empty();
    project.write("pipeline.toml", b"[stages.\xff]");
    let done = project.call(&["graph"]);
    assert_eq!(done.err, "error: pipeline.toml cannot be read: stream did not contain valid UTF-8\n");
    assert_eq!(done.code, 2);
}

// ---- the shape of the file

#[test]
fn a_syntax_error_of_toml_is_underlined() {
    check(
        r#"[stages.a]
uses = "read
path = "a.csv"
"#,
        r#"
error: the file is not valid TOML: invalid basic string, expected `"`
 --> pipeline.toml:2:13
  |
2 | uses = "read
  |             ^

"#,
    );
}

#[test]
fn every_syntax_error_is_shown() {
    check(
        r#"[stages.a]
uses = read
path = = "a.csv"
"#,
        r#"
error: the file is not valid TOML: string values must be quoted, expected literal string
 --> pipeline.toml:2:8
  |
2 | uses = read
  |        ^^^^

error: the file is not valid TOML: extra `=`, expected nothing
 --> pipeline.toml:3:8
  |
3 | path = = "a.csv"
  |        ^

"#,
    );
}

#[test]
fn a_key_set_twice_is_underlined() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
path = "b.csv"
"#,
        r#"
error: the file is not valid TOML: duplicate key
 --> pipeline.toml:4:1
  |
4 | path = "b.csv"
  | ^^^^

"#,
    );
}

#[test]
fn a_date_is_asked_to_be_a_string() {
    check(
        r#"[params]
from = 2013-01-01
[stages.a]
uses = "read"
path = "a.csv"
"#,
        r#"
error: a date is written as a string here: put quotes around it
 --> pipeline.toml:2:8
  |
2 | from = 2013-01-01
  |        ^^^^^^^^^^

"#,
    );
}

#[test]
fn an_integer_of_more_than_64_bits_is_refused() {
    check(
        r#"[params]
seed = 99999999999999999999
[stages.a]
uses = "read"
path = "a.csv"
"#,
        r#"
error: this integer has more than 64 bits
 --> pipeline.toml:2:8
  |
2 | seed = 99999999999999999999
  |        ^^^^^^^^^^^^^^^^^^^^

"#,
    );
}

#[test]
fn an_unknown_section_names_the_nearest() {
    check(
        r#"[stage.a]
uses = "read"
path = "a.csv"
"#,
        r#"
error: unknown section `stage`
 --> pipeline.toml:1:2
  |
1 | [stage.a]
  |  ^^^^^
  |
  = help: did you mean `stages`?
  = help: the sections are: pipeline, params, matrix, variants, stages, store, resources

"#,
    );
}

#[test]
fn a_section_that_is_no_table() {
    check(
        r#"stages = 3
"#,
        r#"
error: `stages` is an integer, expected a table
 --> pipeline.toml:1:10
  |
1 | stages = 3
  |          ^
  |
  = help: write: [stages]

"#,
    );
}

#[test]
fn a_stage_that_is_no_table() {
    check(
        r#"[stages]
a = "read"
"#,
        r#"
error: `stages.a` is a string, expected a table
 --> pipeline.toml:2:5
  |
2 | a = "read"
  |     ^^^^^^
  |
  = help: write: [stages.a]

"#,
    );
}

#[test]
fn an_empty_file_says_how_to_begin() {
    check(
        r#""#,
        r#"
error: there are no stages
 |
 = note: in pipeline.toml
 = help: add one: [stages.NAME] with `uses` or `run`

"#,
    );
}

#[test]
fn an_unknown_key_of_the_pipeline_section() {
    check(
        r#"[pipeline]
nam = "x"
[stages.a]
uses = "read"
path = "a.csv"
"#,
        r#"
error: unknown key `nam` in [pipeline]
 --> pipeline.toml:2:1
  |
2 | nam = "x"
  | ^^^
  |
  = help: did you mean `name`?
  = help: the keys are: name, hermetic

"#,
    );
}

#[test]
fn an_unknown_key_of_the_store_section() {
    check(
        r#"[store]
keep_source = true
[stages.a]
uses = "read"
path = "a.csv"
"#,
        r#"
error: unknown key `keep_source` in [store]
 --> pipeline.toml:2:1
  |
2 | keep_source = true
  | ^^^^^^^^^^^
  |
  = help: did you mean `keep_sources`?
  = help: the keys are: path, keep_sources

"#,
    );
}

#[test]
fn what_is_kept_in_the_store_is_true_or_false() {
    check(
        r#"[store]
path = 3
keep_sources = "yes"
[stages.a]
uses = "read"
path = "a.csv"
"#,
        r#"
error: `path` is an integer, expected a string
 --> pipeline.toml:2:8
  |
2 | path = 3
  |        ^

error: `keep_sources` is a string, expected true or false
 --> pipeline.toml:3:16
  |
3 | keep_sources = "yes"
  |                ^^^^^

"#,
    );
}

#[test]
fn a_pipeline_name_that_is_no_string() {
    check(
        r#"[pipeline]
name = 3
[stages.a]
uses = "read"
path = "a.csv"
"#,
        r#"
error: `name` is an integer, expected a string
 --> pipeline.toml:2:8
  |
2 | name = 3
  |        ^

"#,
    );
}

#[test]
fn a_stage_name_with_a_dot_is_refused() {
    check(
        r#"[stages."a.b"]
uses = "read"
path = "a.csv"
"#,
        r#"
error: `a.b` is no name for a stage
 --> pipeline.toml:1:9
  |
1 | [stages."a.b"]
  |         ^^^^^
  |
  = help: use letters, digits, `_` and `-`

"#,
    );
}

#[test]
fn a_misspelt_run() {
    check(
        r#"[stages.a]
path = "a.csv"
rum = "cat a.csv > b"
"#,
        r#"
error: stage `a` has neither `uses` nor `run`
 --> pipeline.toml:3:1
  |
3 | rum = "cat a.csv > b"
  | ^^^
  |
  = help: did you mean `run`?

"#,
    );
}

#[test]
fn a_stage_with_neither_uses_nor_run() {
    check(
        r#"[stages.a]
path = "a.csv"
"#,
        r#"
error: stage `a` has neither `uses` nor `run`
 --> pipeline.toml:1:9
  |
1 | [stages.a]
  |         ^
  |
  = help: `uses` names a kind, `run` a command

"#,
    );
}

#[test]
fn a_stage_with_both_uses_and_run() {
    check(
        r#"[stages.a]
uses = "read"
run = "true"
path = "a.csv"
"#,
        r#"
error: stage `a` has both `uses` and `run`
 --> pipeline.toml:1:9
  |
1 | [stages.a]
  |         ^
  |
  = help: keep one of the two

"#,
    );
}

#[test]
fn uses_that_is_no_string() {
    check(
        r#"[stages.a]
uses = 3
"#,
        r#"
error: `uses` is an integer, expected the name of a kind
 --> pipeline.toml:2:8
  |
2 | uses = 3
  |        ^

"#,
    );
}

// ---- kinds and their keys

#[test]
fn an_unknown_kind_names_the_nearest() {
    check(
        r#"[stages.a]
uses = "raed"
path = "a.csv"
"#,
        r#"
error: there is no kind `raed`
 --> pipeline.toml:2:8
  |
2 | uses = "raed"
  |        ^^^^^^
  |
  = help: did you mean `read`?
  = help: the kinds are: read, sql, split, prepare, train, evaluate, compare

"#,
    );
}

#[test]
fn an_unknown_key_of_a_kind_names_the_nearest() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
null_vaules = ["NA"]
"#,
        r#"
error: unknown key `null_vaules`
 --> pipeline.toml:4:1
  |
4 | null_vaules = ["NA"]
  | ^^^^^^^^^^^
  |
  = help: did you mean `null_values`?
  = help: the keys are: path, format, compression, null_values, delimiter, header, types, columns, uses, input, inputs, gather, over, resources, retries

"#,
    );
}

#[test]
fn a_misspelt_input_is_suggested_among_the_keys_of_a_stage() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "split"
inptu = "a"
"#,
        r#"
error: unknown key `inptu`
 --> pipeline.toml:6:1
  |
6 | inptu = "a"
  | ^^^^^
  |
  = help: did you mean `input`?
  = help: the keys are: test, folds, fold, stratify, seed, uses, input, inputs, gather, over, resources, retries

"#,
    );
}

#[test]
fn an_unknown_key_of_a_nested_table_is_underlined_there() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "train"
input = "a"
model = { algorithm = "decision_tree", max_dept = 3 }
"#,
        r#"
error: unknown key `max_dept`
 --> pipeline.toml:7:40
  |
7 | model = { algorithm = "decision_tree", max_dept = 3 }
  |                                        ^^^^^^^^
  |
  = help: did you mean `max_depth`?
  = help: the keys are: max_depth, min_samples_split, min_samples_leaf, min_gain, task

"#,
    );
}

#[test]
fn an_unknown_key_of_a_table_in_the_matrix_is_underlined_there() {
    check(
        r#"[matrix]
model.small = { algorithm = "decision_tree", max_depth = 3 }
model.large = { algorithm = "decision_tree", max_dept = 9 }

[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "train"
input = "a"
model = "${model}"
"#,
        r#"
error: unknown key `max_dept`
 --> pipeline.toml:3:46
  |
3 | model.large = { algorithm = "decision_tree", max_dept = 9 }
  |                                              ^^^^^^^^
  |
  = help: did you mean `max_depth`?
  = help: the keys are: max_depth, min_samples_split, min_samples_leaf, min_gain, task

"#,
    );
}

#[test]
fn an_unknown_key_of_a_command_names_the_nearest() {
    check(
        r#"[stages.a]
run = "true"
outputs = ["a.txt"]
out = ["a.txt"]
"#,
        r#"
error: unknown key `outputs` of a command stage
 --> pipeline.toml:3:1
  |
3 | outputs = ["a.txt"]
  | ^^^^^^^
  |
  = help: did you mean `outs`?
  = help: the keys are: run, deps, outs, env, secrets, tools, environment, hermetic, network, timeout, idle_timeout, resources, retries

error: unknown key `out` of a command stage
 --> pipeline.toml:4:1
  |
4 | out = ["a.txt"]
  | ^^^
  |
  = help: did you mean `outs`?
  = help: the keys are: run, deps, outs, env, secrets, tools, environment, hermetic, network, timeout, idle_timeout, resources, retries

"#,
    );
}

#[test]
fn hermetic_of_the_pipeline_that_is_no_boolean() {
    check(
        r#"[pipeline]
hermetic = "no"
[stages.a]
uses = "read"
path = "a.csv"
"#,
        r#"
error: `hermetic` is a string, expected true or false
 --> pipeline.toml:2:12
  |
2 | hermetic = "no"
  |            ^^^^

"#,
    );
}

#[test]
fn hermetic_of_a_command_that_is_no_boolean() {
    check(
        r#"[stages.a]
run = "true"
outs = ["a.txt"]
hermetic = 0
"#,
        r#"
error: `hermetic` is an integer, expected true or false
 --> pipeline.toml:4:12
  |
4 | hermetic = 0
  |            ^

"#,
    );
}

#[test]
fn network_of_a_command_that_is_no_boolean() {
    check(
        r#"[stages.a]
run = "true"
outs = ["a.txt"]
network = ["github.com"]
"#,
        r#"
error: `network` is an array, expected true or false
 --> pipeline.toml:4:11
  |
4 | network = ["github.com"]
  |           ^^^^^^^^^^^^^^

"#,
    );
}

#[test]
fn a_timeout_that_is_a_number_lacks_its_unit() {
    check(
        r#"[stages.a]
run = "true"
outs = ["a.txt"]
timeout = 600
"#,
        r#"
error: `timeout` is an integer, expected a duration
 --> pipeline.toml:4:11
  |
4 | timeout = 600
  |           ^^^
  |
  = help: write: timeout = "10m", or "1h30m"; the units are ms, s, m, h, d

"#,
    );
}

#[test]
fn a_timeout_of_an_unknown_unit() {
    check(
        r#"[stages.a]
run = "true"
outs = ["a.txt"]
timeout = "10 minutes"
"#,
        r#"
error: `10 minutes` is no duration
 --> pipeline.toml:4:11
  |
4 | timeout = "10 minutes"
  |           ^^^^^^^^^^^^
  |
  = help: write: timeout = "10m", or "1h30m"; the units are ms, s, m, h, d

"#,
    );
}

#[test]
fn an_idle_timeout_of_nothing() {
    check(
        r#"[stages.a]
run = "true"
outs = ["a.txt"]
idle_timeout = "0s"
"#,
        r#"
error: `0s` is no time at all
 --> pipeline.toml:4:16
  |
4 | idle_timeout = "0s"
  |                ^^^^
  |
  = help: write: idle_timeout = "10m", or "1h30m"; the units are ms, s, m, h, d

"#,
    );
}

#[test]
fn an_unknown_algorithm_is_underlined() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "train"
input = "a"
model = { algorithm = "random_forrest" }
"#,
        r#"
error: unknown value `random_forrest`
 --> pipeline.toml:7:23
  |
7 | model = { algorithm = "random_forrest" }
  |                       ^^^^^^^^^^^^^^^^
  |
  = help: the values are: linear_regression, logistic, kmeans, decision_tree

"#,
    );
}

#[test]
fn a_model_without_an_algorithm() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "train"
input = "a"
model = { max_depth = 3 }
"#,
        r#"
error: the key `algorithm` is missing
 --> pipeline.toml:7:9
  |
7 | model = { max_depth = 3 }
  |         ^^^^^^^^^^^^^^^^^ needs `algorithm`
  |
  = help: write: algorithm = …

"#,
    );
}

#[test]
fn a_model_that_is_no_table() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "train"
input = "a"
model = "logistic"
"#,
        r#"
error: found the string "logistic", expected a table
 --> pipeline.toml:7:9
  |
7 | model = "logistic"
  |         ^^^^^^^^^^

"#,
    );
}

#[test]
fn a_text_where_a_number_is_expected() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "split"
input = "a"
test = "half"
"#,
        r#"
error: found the string "half", expected a number
 --> pipeline.toml:7:8
  |
7 | test = "half"
  |        ^^^^^^

"#,
    );
}

#[test]
fn a_number_where_a_text_is_expected() {
    check(
        r#"[stages.a]
uses = "read"
path = 3
"#,
        r#"
error: found the number 3, expected a string
 --> pipeline.toml:3:8
  |
3 | path = 3
  |        ^

"#,
    );
}

#[test]
fn a_text_where_an_array_is_expected() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
null_values = "NA"
"#,
        r#"
error: found the string "NA", expected an array
 --> pipeline.toml:4:15
  |
4 | null_values = "NA"
  |               ^^^^

"#,
    );
}

#[test]
fn a_number_where_a_boolean_is_expected() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
header = 1
"#,
        r#"
error: found the number 1, expected a boolean
 --> pipeline.toml:4:10
  |
4 | header = 1
  |          ^

"#,
    );
}

#[test]
fn a_fraction_where_a_whole_number_is_expected() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "split"
input = "a"
folds = 5.0
fold = 0
"#,
        r#"
error: found the number 5.0, expected a whole number
 --> pipeline.toml:7:9
  |
7 | folds = 5.0
  |         ^^^

"#,
    );
}

#[test]
fn a_negative_number_where_a_count_is_expected() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "split"
input = "a"
seed = -1
"#,
        r#"
error: found the number -1, expected a whole number of 0 or more
 --> pipeline.toml:7:8
  |
7 | seed = -1
  |        ^^

"#,
    );
}

#[test]
fn a_wrong_type_inside_a_tagged_table_is_underlined_there() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "train"
input = "a"
model = { algorithm = "decision_tree", min_samples_leaf = 3, max_depth = "deep" }
"#,
        r#"
error: found the string "deep", expected a whole number
 --> pipeline.toml:7:74
  |
7 | model = { algorithm = "decision_tree", min_samples_leaf = 3, max_depth = "deep" }
  |                                                                          ^^^^^^

"#,
    );
}

#[test]
fn an_array_with_an_element_of_the_wrong_type() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
null_values = ["NA", 9]
"#,
        r#"
error: found the number 9, expected a string
 --> pipeline.toml:4:22
  |
4 | null_values = ["NA", 9]
  |                      ^

"#,
    );
}

#[test]
fn a_missing_key_is_named_at_its_stage() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "prepare"
input = "a"
steps = []
"#,
        r#"
error: the key `target` is missing
 --> pipeline.toml:4:1
  |
4 | [stages.b]
  | ^^^^^^^^^^ needs `target`
  |
  = help: write: target = …

"#,
    );
}

#[test]
fn a_missing_query() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "sql"
input = "a"
"#,
        r#"
error: the key `query` is missing
 --> pipeline.toml:4:1
  |
4 | [stages.b]
  | ^^^^^^^^^^ needs `query`
  |
  = help: write: query = …

"#,
    );
}

// ---- values that cannot be

#[test]
fn a_fold_beyond_the_folds() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "split"
input = "a"
folds = 5
fold = 5
"#,
        r#"
error: `fold` is 5, but 5 folds are counted from 0 to 4
 --> pipeline.toml:8:8
  |
8 | fold = 5
  |        ^

"#,
    );
}

#[test]
fn a_fold_beyond_the_folds_is_told_once_with_the_first_node() {
    check(
        r#"[matrix]
fold = { from = 0, below = 9 }

[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "split"
input = "a"
folds = 5
fold = "${fold}"
"#,
        r#"
error: `fold` is 5, but 5 folds are counted from 0 to 4
  --> pipeline.toml:11:8
   |
11 | fold = "${fold}"
   |        ^^^^^^^^^ `fold` is 5
   |
   = help: this concerns 4 nodes of `b`

"#,
    );
}

#[test]
fn a_share_beyond_one() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "split"
input = "a"
test = 1.5
"#,
        r#"
error: `test` is 1.5, a share between 0 and 1 is needed
 --> pipeline.toml:7:8
  |
7 | test = 1.5
  |        ^^^

"#,
    );
}

#[test]
fn folds_without_a_fold() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "split"
input = "a"
folds = 5
"#,
        r#"
error: `folds` needs `fold`, the one that is the test
 --> pipeline.toml:7:9
  |
7 | folds = 5
  |         ^

"#,
    );
}

#[test]
fn test_and_folds_exclude_each_other() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "split"
input = "a"
test = 0.2
folds = 5
fold = 1
"#,
        r#"
error: `test` and `folds` exclude each other
 --> pipeline.toml:7:8
  |
7 | test = 0.2
  |        ^^^

"#,
    );
}

#[test]
fn a_negative_l2() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "train"
input = "a"
model = { algorithm = "logistic", l2 = -1.0 }
"#,
        r#"
error: `l2` is -1, expected a finite number of 0 or more
 --> pipeline.toml:7:40
  |
7 | model = { algorithm = "logistic", l2 = -1.0 }
  |                                        ^^^^

"#,
    );
}

#[test]
fn a_negative_l2_of_the_matrix_is_underlined_there() {
    check(
        r#"[matrix]
model.weak = { algorithm = "logistic", l2 = 1.0 }
model.wrong = { algorithm = "logistic", l2 = -1.0 }

[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "train"
input = "a"
model = "${model}"
"#,
        r#"
error: `l2` is -1, expected a finite number of 0 or more
 --> pipeline.toml:3:46
  |
3 | model.wrong = { algorithm = "logistic", l2 = -1.0 }
  |                                              ^^^^

"#,
    );
}

#[test]
fn no_clusters_at_all() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "train"
input = "a"
model = { algorithm = "kmeans", clusters = 0 }
"#,
        r#"
error: `clusters` is 0, expected a whole number of 1 or more
 --> pipeline.toml:7:44
  |
7 | model = { algorithm = "kmeans", clusters = 0 }
  |                                            ^

"#,
    );
}

#[test]
fn an_unknown_metric() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "evaluate"
inputs = { model = "a", data = "a" }
metrics = ["accuracy", "auc"]
"#,
        r#"
error: unknown value `auc`
 --> pipeline.toml:7:24
  |
7 | metrics = ["accuracy", "auc"]
  |                        ^^^^^
  |
  = help: did you mean `roc_auc`?
  = help: the values are: roc_auc, f1, accuracy, r2, rmse, mae, mse, log_loss, precision, recall, inertia

"#,
    );
}

#[test]
fn an_unknown_step() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "prepare"
input = "a"
target = "y"
steps = [
  { impute = "median" },
  { onehot = ["x"] },
]
"#,
        r#"
error: a step has no `onehot`; the verbs are impute, one_hot, scale and drop, the options columns and min_frequency
  --> pipeline.toml:10:5
   |
10 |   { onehot = ["x"] },
   |     ^^^^^^

"#,
    );
}

#[test]
fn two_verbs_in_a_step() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "prepare"
input = "a"
target = "y"
steps = [{ impute = "median", scale = "standard" }]
"#,
        r#"
error: a step has one verb, not both `impute` and `scale`; make two steps of it
 --> pipeline.toml:8:12
  |
8 | steps = [{ impute = "median", scale = "standard" }]
  |            ^^^^^^

"#,
    );
}

#[test]
fn a_step_without_a_verb() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "prepare"
input = "a"
target = "y"
steps = [{ columns = "numeric" }]
"#,
        r#"
error: a step needs one of impute, one_hot, scale and drop
 --> pipeline.toml:8:10
  |
8 | steps = [{ columns = "numeric" }]
  |          ^^^^^^^^^^^^^^^^^^^^^^^

"#,
    );
}

#[test]
fn a_step_with_an_unknown_way_to_impute() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "prepare"
input = "a"
target = "y"
steps = [{ columns = "numeric", impute = "medain" }]
"#,
        r#"
error: `impute` is "medain"; it can be "median", "mean", "most_frequent" or { constant = … }
 --> pipeline.toml:8:42
  |
8 | steps = [{ columns = "numeric", impute = "medain" }]
  |                                          ^^^^^^^^

"#,
    );
}

#[test]
fn an_option_of_another_step() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "prepare"
input = "a"
target = "y"
steps = [{ scale = "standard", min_frequency = 0.1 }]
"#,
        r#"
error: `min_frequency` is for one_hot, not for scale
 --> pipeline.toml:8:48
  |
8 | steps = [{ scale = "standard", min_frequency = 0.1 }]
  |                                                ^^^

"#,
    );
}

#[test]
fn a_target_among_the_features() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "prepare"
input = "a"
target = "y"
features = ["x", "y"]
"#,
        r#"
error: `features` names `y`, which is the target
 --> pipeline.toml:8:18
  |
8 | features = ["x", "y"]
  |                  ^^^

"#,
    );
}

#[test]
fn a_format_that_the_path_does_not_tell() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.dat"
"#,
        r#"
error: the format of `a.dat` cannot be told from its name: known are .csv, .tsv, .parquet, .arrow, .ipc, .feather, .jsonl and .ndjson, each also with .gz or .zst behind; set `format = "csv"` or another of tsv, parquet, ipc, jsonl
 --> pipeline.toml:3:8
  |
3 | path = "a.dat"
  |        ^^^^^^^

"#,
    );
}

#[test]
fn an_unknown_format() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.dat"
format = "excel"
"#,
        r#"
error: unknown value `excel`
 --> pipeline.toml:4:10
  |
4 | format = "excel"
  |          ^^^^^^^
  |
  = help: the values are: csv, tsv, parquet, ipc, jsonl

"#,
    );
}

#[test]
fn an_unknown_column_type() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
types = { x = "integer" }
"#,
        r#"
error: `types.x`: there is no type `integer`; the types are bool, str, i8, i16, i32, i64, u8, u16, u32, u64, f32, f64, date, time, duration[us] and datetime[us] (also with ns and ms)
 --> pipeline.toml:4:15
  |
4 | types = { x = "integer" }
  |               ^^^^^^^^^

"#,
    );
}

#[test]
fn a_delimiter_for_parquet() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.parquet"
delimiter = ";"
"#,
        r#"
error: `delimiter` is for the formats csv and tsv
 --> pipeline.toml:4:13
  |
4 | delimiter = ";"
  |             ^^^

"#,
    );
}

#[test]
fn a_step_on_the_target() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "prepare"
input = "a"
target = "y"
steps = [
  { impute = "median" },
  { one_hot = ["x", "y"] },
]
"#,
        r#"
error: `steps` names `y` in step 2, which is the target
  --> pipeline.toml:10:21
   |
10 |   { one_hot = ["x", "y"] },
   |                     ^^^

"#,
    );
}

#[test]
fn a_feature_named_twice() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "prepare"
input = "a"
target = "y"
features = ["x", "x"]
"#,
        r#"
error: `features` names `x` twice
 --> pipeline.toml:8:13
  |
8 | features = ["x", "x"]
  |             ^^^

"#,
    );
}

// ---- params

#[test]
fn an_unknown_param_names_the_nearest() {
    check(
        r#"[params]
seed = 7

[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "split"
input = "a"
seed = "${sede}"
"#,
        r#"
error: unknown param `sede`
  --> pipeline.toml:10:9
   |
10 | seed = "${sede}"
   |         ^^^^^^^
   |
   = help: did you mean `seed`?
   = help: the params are: seed

"#,
    );
}

#[test]
fn an_unknown_param_of_a_query_is_underlined_on_its_line() {
    check(
        r#"[params]
late_after = 7

[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "sql"
input = "a"
query = """
  select x
  from input where x > ${late_afer}
"""
"#,
        r#"
error: unknown param `late_afer`
  --> pipeline.toml:12:24
   |
12 |   from input where x > ${late_afer}
   |                        ^^^^^^^^^^^^
   |
   = help: did you mean `late_after`?
   = help: the params are: late_after

"#,
    );
}

#[test]
fn an_unknown_param_of_a_command_may_be_a_variable_of_the_shell() {
    check(
        r#"[stages.a]
run = "cp ${HOME}/a.txt a.txt"
outs = ["a.txt"]
"#,
        r#"
error: unknown param `HOME`
 --> pipeline.toml:2:11
  |
2 | run = "cp ${HOME}/a.txt a.txt"
  |           ^^^^^^^
  |
  = help: there are no params
  = help: for a variable of the shell write `$${HOME}`

"#,
    );
}

#[test]
fn an_empty_mention() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "split"
input = "a"
seed = "${}"
"#,
        r#"
error: `${}` names no param
 --> pipeline.toml:7:9
  |
7 | seed = "${}"
  |         ^^^
  |
  = help: write: ${NAME}

"#,
    );
}

#[test]
fn a_param_inside_quotes_of_a_query() {
    check(
        r#"[params]
name = "x"

[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "sql"
input = "a"
query = """
  select x, ${name} as y
  from input where y = '${name}'
"""
"#,
        r#"
error: `${name}` stands inside quotes, but is quoted by Headwater already
  --> pipeline.toml:12:25
   |
12 |   from input where y = '${name}'
   |                         ^^^^^^^
   |
   = help: remove the quotes

"#,
    );
}

#[test]
fn a_param_inside_quotes_of_a_command() {
    check(
        r#"[params]
name = "x"

[stages.a]
run = "echo '${name}' > a.txt"
outs = ["a.txt"]
"#,
        r#"
error: `${name}` stands inside quotes, but is quoted by Headwater already
 --> pipeline.toml:5:14
  |
5 | run = "echo '${name}' > a.txt"
  |              ^^^^^^^
  |
  = help: remove the quotes

"#,
    );
}

#[test]
fn a_mention_that_is_not_closed() {
    check(
        r#"[params]
name = "x"

[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "sql"
input = "a"
query = """
  select x
  from input where y = ${name
"""
"#,
        r#"
error: `${` without its `}`
  --> pipeline.toml:12:24
   |
12 |   from input where y = ${name
   |                        ^^^^^^
   |
   = help: for a literal `${` write `$${`

"#,
    );
}

#[test]
fn an_array_inside_a_text() {
    check(
        r#"[params]
days = [1, 2]

[stages.a]
uses = "read"
path = "data-${days}.csv"
"#,
        r#"
error: `${days}` cannot be put here: it is an array
 --> pipeline.toml:6:14
  |
6 | path = "data-${days}.csv"
  |              ^^^^^^^
  |
  = help: an array fits into a query, or stands alone as the value of a key

"#,
    );
}

#[test]
fn an_array_inside_a_command() {
    check(
        r#"[params]
days = [1, 2]

[stages.a]
run = "echo ${days} > a.txt"
outs = ["a.txt"]
"#,
        r#"
error: `${days}` cannot be put here: it is an array
 --> pipeline.toml:5:13
  |
5 | run = "echo ${days} > a.txt"
  |             ^^^^^^^
  |
  = help: an array fits into a query, or stands alone as the value of a key

"#,
    );
}

#[test]
fn a_table_inside_a_query() {
    check(
        r#"[params]
model = { algorithm = "logistic" }

[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "sql"
input = "a"
query = "select ${model} from input"
"#,
        r#"
error: `${model}` cannot be put here: it is a table
  --> pipeline.toml:10:17
   |
10 | query = "select ${model} from input"
   |                 ^^^^^^^^

"#,
    );
}

#[test]
fn a_param_of_the_wrong_type_is_underlined_where_it_is_mentioned() {
    check(
        r#"[params]
seed = "seven"

[stages.a]
uses = "read"
path = "a.csv"
[stages.b]
uses = "split"
input = "a"
seed = "${seed}"
"#,
        r#"
error: found the string "seven", expected a whole number
  --> pipeline.toml:10:8
   |
10 | seed = "${seed}"
   |        ^^^^^^^^^ `seed` is seven

"#,
    );
}

// ---- wiring

#[test]
fn a_stage_that_is_not_there_names_the_nearest() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "split"
input = "aa"
"#,
        r#"
error: there is no stage `aa`
 --> pipeline.toml:7:9
  |
7 | input = "aa"
  |         ^^^^
  |
  = help: did you mean `a`?
  = help: the stages are: a, b

"#,
    );
}

#[test]
fn an_input_that_is_no_text() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "split"
input = ["a"]
"#,
        r#"
error: `input` is an array, expected the name of a stage, or stage.output
 --> pipeline.toml:7:9
  |
7 | input = ["a"]
  |         ^^^^^
  |
  = help: write: input = "STAGE"

"#,
    );
}

#[test]
fn inputs_that_are_no_table() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
inputs = ["a"]
query = "select x from a"
"#,
        r#"
error: `inputs` is an array, expected a table of ports
 --> pipeline.toml:7:10
  |
7 | inputs = ["a"]
  |          ^^^^^
  |
  = help: write: inputs = { port = "stage.output" }; for one input: input = "stage"

"#,
    );
}

#[test]
fn an_input_that_holds_a_param() {
    check(
        r#"[params]
n = 1

[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "split"
input = "a${n}"
"#,
        r#"
error: `input` names a stage and cannot hold a param
  --> pipeline.toml:10:9
   |
10 | input = "a${n}"
   |         ^^^^^^^
   |
   = help: name the stage alone: of its nodes each node takes those that agree with it on the axes

"#,
    );
}

#[test]
fn an_unknown_output_names_the_nearest() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"

[stages.b]
uses = "sql"
input = "parts.trian"
query = "select x from input"
"#,
        r#"
error: `parts` has no output `trian`
  --> pipeline.toml:11:9
   |
11 | input = "parts.trian"
   |         ^^^^^^^^^^^^^
   |
   = help: did you mean `train`?
   = help: the outputs are: train, test

"#,
    );
}

#[test]
fn an_unknown_input_port_names_the_nearest() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"

[stages.ready]
uses = "prepare"
input = "parts"
target = "y"

[stages.fit]
uses = "train"
input = "ready"
model = { algorithm = "logistic" }

[stages.scored]
uses = "evaluate"
inputs = { modle = "fit", data = "ready.test" }
"#,
        r#"
error: stage `scored` has no input `modle`
  --> pipeline.toml:21:12
   |
21 | inputs = { modle = "fit", data = "ready.test" }
   |            ^^^^^
   |
   = help: did you mean `model`?
   = help: the inputs are: model, data

"#,
    );
}

#[test]
fn an_output_that_is_not_clear() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"

[stages.b]
uses = "sql"
input = "parts"
query = "select x from input"
"#,
        r#"
error: stage `parts` has several outputs, and none is named `input`
  --> pipeline.toml:11:9
   |
11 | input = "parts"
   |         ^^^^^^^
   |
   = help: name one: parts.train, parts.test

"#,
    );
}

#[test]
fn outputs_that_fit_no_input() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"

[stages.b]
uses = "split"
input = "parts"
"#,
        r#"
error: stage `parts` has several outputs, and none is named `input`
  --> pipeline.toml:11:9
   |
11 | input = "parts"
   |         ^^^^^^^
   |
   = help: name one: parts.train, parts.test

"#,
    );
}

#[test]
fn metrics_do_not_fit_where_a_frame_is_expected() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"

[stages.ready]
uses = "prepare"
input = "parts"
target = "y"

[stages.fit]
uses = "train"
input = "ready"
model = { algorithm = "logistic" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "ready.test" }

[stages.b]
uses = "sql"
input = "scored.metrics"
query = "select x from input"
"#,
        r#"
error: input `input` of stage `b` takes a frame, but `scored.metrics` is metrics
  --> pipeline.toml:25:9
   |
25 | input = "scored.metrics"
   |         ^^^^^^^^^^^^^^^^
   |
   = help: these give a frame: a, parts.train, parts.test, ready.train, ready.test, scored.predictions

"#,
    );
}

#[test]
fn a_missing_input() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"

[stages.ready]
uses = "prepare"
input = "parts"
target = "y"

[stages.fit]
uses = "train"
input = "ready"
model = { algorithm = "logistic" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit" }
"#,
        r#"
error: stage `scored` lacks its input `data`, a frame
  --> pipeline.toml:19:9
   |
19 | [stages.scored]
   |         ^^^^^^
   |
   = help: write: inputs = { data = "STAGE.OUTPUT" }
   = help: these give a frame: a, parts.train, parts.test, ready.train, ready.test

"#,
    );
}

#[test]
fn a_missing_only_input() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "split"
"#,
        r#"
error: stage `b` lacks its input `input`, a frame
 --> pipeline.toml:5:9
  |
5 | [stages.b]
  |         ^
  |
  = help: write: input = "STAGE"
  = help: these give a frame: a

"#,
    );
}

#[test]
fn no_inputs_at_all() {
    check(
        r#"[stages.b]
uses = "sql"
query = "select x from a"
"#,
        r#"
error: stage `b` needs at least one input
 --> pipeline.toml:1:9
  |
1 | [stages.b]
  |         ^
  |
  = help: write: input = "STAGE", or inputs = { NAME = "STAGE" }
  = help: no other stage gives a frame

"#,
    );
}

#[test]
fn an_input_wired_twice() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"

[stages.ready]
uses = "prepare"
input = "parts"
target = "y"

[stages.fit]
uses = "train"
input = "ready"
inputs = { train = "parts.train" }
model = { algorithm = "logistic" }
"#,
        r#"
error: input `train` of stage `fit` is wired twice
  --> pipeline.toml:17:12
   |
17 | inputs = { train = "parts.train" }
   |            ^^^^^
   |
   = help: wire each input once

"#,
    );
}

#[test]
fn an_input_of_a_kind_without_inputs() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "read"
path = "b.csv"
input = "a"
"#,
        r#"
error: stage `b` takes no input: `read` reads a file
 --> pipeline.toml:8:9
  |
8 | input = "a"
  |         ^^^
  |
  = help: `path` names the file; remove the input

"#,
    );
}

#[test]
fn a_gather_where_none_is_taken() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "split"
gather = "a"
"#,
        r#"
error: input `input` of stage `b` takes one output, not a `gather`
 --> pipeline.toml:7:10
  |
7 | gather = "a"
  |          ^^^
  |
  = help: write: input = "a"

"#,
    );
}

#[test]
fn an_input_where_a_gather_is_taken() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"

[stages.ready]
uses = "prepare"
input = "parts"
target = "y"

[stages.fit]
uses = "train"
input = "ready"
model = { algorithm = "logistic" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "ready.test" }

[stages.board]
uses = "compare"
input = "scored"
"#,
        r#"
error: stage `board` collects several nodes
  --> pipeline.toml:25:9
   |
25 | input = "scored"
   |         ^^^^^^^^
   |
   = help: write: gather = "scored"

"#,
    );
}

#[test]
fn a_gather_of_the_wrong_type() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.board]
uses = "compare"
gather = "a"
"#,
        r#"
error: input `metrics` of stage `board` takes metrics, but `a.frame` is a frame
 --> pipeline.toml:7:10
  |
7 | gather = "a"
  |          ^^^
  |
  = help: no other stage gives metrics

"#,
    );
}

#[test]
fn a_gather_by_a_command() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
run = "true"
gather = "a"
outs = ["b.txt"]
"#,
        r#"
error: a command takes no input, it reads files
 --> pipeline.toml:7:10
  |
7 | gather = "a"
  |          ^^^
  |
  = help: write: deps = [{ from = "a", as = "PATH" }]

"#,
    );
}

#[test]
fn an_input_of_a_command() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
run = "true"
input = "a"
outs = ["b.txt"]
"#,
        r#"
error: a command takes no input, it reads files
 --> pipeline.toml:7:9
  |
7 | input = "a"
  |         ^^^
  |
  = help: write: deps = [{ from = "a", as = "PATH" }]

"#,
    );
}

#[test]
fn inputs_of_a_command() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
run = "true"
inputs = { data = "a" }
outs = ["b.txt"]
"#,
        r#"
error: a command takes no input, it reads files
 --> pipeline.toml:7:19
  |
7 | inputs = { data = "a" }
  |                   ^^^
  |
  = help: write: deps = [{ from = "a", as = "PATH" }]

"#,
    );
}

#[test]
fn over_without_a_gather() {
    check(
        r#"[matrix]
fold = [0, 1]

[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "split"
input = "a"
folds = 2
fold = "${fold}"
over = ["fold"]
"#,
        r#"
error: stage `b` has `over` without `gather`
  --> pipeline.toml:13:1
   |
13 | over = ["fold"]
   | ^^^^
   |
   = help: `over` says which axes a gather collapses: gather = "STAGE"

"#,
    );
}

#[test]
fn over_an_unknown_axis() {
    check(
        r#"[matrix]
fold = [0, 1]
model = ["x", "y"]

[stages.a]
uses = "read"
path = "a.csv"

[stages.board]
uses = "compare"
gather = "a"
over = ["folds"]
"#,
        r#"
error: `over` names an unknown axis `folds`
  --> pipeline.toml:12:9
   |
12 | over = ["folds"]
   |         ^^^^^^^
   |
   = help: did you mean `fold`?
   = help: the axes are: fold, model

"#,
    );
}

#[test]
fn over_that_is_no_array() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.board]
uses = "compare"
gather = "a"
over = "fold"
"#,
        r#"
error: `over` is a string, expected an array of axis names
 --> pipeline.toml:8:8
  |
8 | over = "fold"
  |        ^^^^^^
  |
  = help: write: over = ["AXIS"]

"#,
    );
}

#[test]
fn a_cycle_by_inputs() {
    check(
        r#"[stages.a]
uses = "sql"
input = "c"
query = "select x from input"

[stages.b]
uses = "sql"
input = "a"
query = "select x from input"

[stages.c]
uses = "sql"
input = "b"
query = "select x from input"
"#,
        r#"
error: the stages form a cycle: a -> b -> c -> a
 --> pipeline.toml:1:9
  |
1 | [stages.a]
  |         ^
  |
  = help: a stage cannot read, directly or through others, what it makes itself

"#,
    );
}

#[test]
fn a_stage_that_reads_itself() {
    check(
        r#"[stages.a]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        r#"
error: the stages form a cycle: a -> a
 --> pipeline.toml:1:9
  |
1 | [stages.a]
  |         ^
  |
  = help: a stage cannot read, directly or through others, what it makes itself

"#,
    );
}

#[test]
fn a_cycle_through_files() {
    check(
        r#"[stages.a]
run = "cp b.txt a.txt"
deps = ["b.txt"]
outs = ["a.txt"]

[stages.b]
run = "cp a.txt b.txt"
deps = ["a.txt"]
outs = ["b.txt"]
"#,
        r#"
error: the stages form a cycle through their files: a, b
 --> pipeline.toml:1:9
  |
1 | [stages.a]
  |         ^
  |
  = help: a command cannot depend, directly or through others, on a file that it writes

"#,
    );
}

#[test]
fn a_command_that_reads_its_own_out() {
    check(
        r#"[stages.a]
run = "cp a.txt a.txt"
deps = ["a.txt"]
outs = ["a.txt"]
"#,
        r#"
error: stage `a` depends on a file that it writes
 --> pipeline.toml:1:9
  |
1 | [stages.a]
  |         ^
  |
  = help: a command cannot depend, directly or through others, on a file that it writes

"#,
    );
}

#[test]
fn a_wiring_error_of_many_nodes_is_told_once() {
    check(
        r#"[matrix]
fold = [0, 1, 2]

[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 3
fold = "${fold}"

[stages.b]
uses = "sql"
input = "parts"
query = "select x from input"
"#,
        r#"
error: stage `parts` has several outputs, and none is named `input`
  --> pipeline.toml:16:9
   |
16 | input = "parts"
   |         ^^^^^^^
   |
   = help: name one: parts.train, parts.test

"#,
    );
}

// ---- commands

#[test]
fn a_command_without_outs() {
    check(
        r#"[stages.a]
run = "true"
"#,
        r#"
error: a command stage needs `outs`, the files that it makes
 --> pipeline.toml:2:7
  |
2 | run = "true"
  |       ^^^^^^
  |
  = help: write: outs = ["PATH"]

"#,
    );
}

#[test]
fn an_empty_command() {
    check(
        r#"[stages.a]
run = " "
outs = ["a.txt"]
"#,
        r#"
error: `run` is empty
 --> pipeline.toml:2:7
  |
2 | run = " "
  |       ^^^

"#,
    );
}

#[test]
fn a_command_that_is_no_text() {
    check(
        r#"[stages.a]
run = 3
outs = ["a.txt"]
"#,
        r#"
error: `run` is an integer, expected a command line, or an array of words
 --> pipeline.toml:2:7
  |
2 | run = 3
  |       ^
  |
  = help: write: run = "python train.py", or run = ["python", "train.py"]

"#,
    );
}

#[test]
fn a_word_of_a_command_that_is_a_table() {
    check(
        r#"[stages.a]
run = ["echo", { x = 1 }]
outs = ["a.txt"]
"#,
        r#"
error: a word of `run` is a table, expected a string or a number
 --> pipeline.toml:2:16
  |
2 | run = ["echo", { x = 1 }]
  |                ^^^^^^^^^

"#,
    );
}

#[test]
fn deps_that_are_no_array() {
    check(
        r#"[stages.a]
run = "true"
deps = "b.txt"
outs = ["a.txt"]
"#,
        r#"
error: `deps` is a string, expected an array
 --> pipeline.toml:3:8
  |
3 | deps = "b.txt"
  |        ^^^^^^^
  |
  = help: write: deps = ["b.txt"]

"#,
    );
}

#[test]
fn an_out_that_is_no_path() {
    check(
        r#"[stages.a]
run = "true"
outs = [3]
"#,
        r#"
error: `outs` holds an integer, expected a path
 --> pipeline.toml:3:9
  |
3 | outs = [3]
  |         ^

"#,
    );
}

#[test]
fn an_environment_variable_that_is_no_text() {
    check(
        r#"[stages.a]
run = "true"
env = [3]
outs = ["a.txt"]
"#,
        r#"
error: `env` holds an integer, expected a string
 --> pipeline.toml:3:8
  |
3 | env = [3]
  |        ^

"#,
    );
}

#[test]
fn a_dep_outside_the_project() {
    check(
        r#"[stages.a]
run = "true"
deps = ["../secret.txt"]
outs = ["a.txt"]
"#,
        r#"
error: `../secret.txt` is not a path inside the project
 --> pipeline.toml:3:9
  |
3 | deps = ["../secret.txt"]
  |         ^^^^^^^^^^^^^^^
  |
  = help: write paths relative to the folder of the pipeline file, without `..`

"#,
    );
}

#[test]
fn an_absolute_dep() {
    check(
        r#"[stages.a]
run = "true"
deps = ["/etc/passwd"]
outs = ["a.txt"]
"#,
        r#"
error: `/etc/passwd` is not a path inside the project
 --> pipeline.toml:3:9
  |
3 | deps = ["/etc/passwd"]
  |         ^^^^^^^^^^^^^
  |
  = help: write paths relative to the folder of the pipeline file, without `..`

"#,
    );
}

#[test]
fn an_out_outside_the_project() {
    check(
        r#"[stages.a]
run = "true"
outs = ["../a.txt"]
"#,
        r#"
error: `../a.txt` is not a path inside the project
 --> pipeline.toml:3:9
  |
3 | outs = ["../a.txt"]
  |         ^^^^^^^^^^
  |
  = help: write paths relative to the folder of the pipeline file, without `..`

"#,
    );
}

#[test]
fn an_out_that_is_the_project() {
    check(
        r#"[stages.a]
run = "true"
outs = ["."]
"#,
        r#"
error: `.` is not a path inside the project
 --> pipeline.toml:3:9
  |
3 | outs = ["."]
  |         ^^^
  |
  = help: write paths relative to the folder of the pipeline file, without `..`

"#,
    );
}

#[test]
fn a_mount_without_a_path() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
run = "true"
deps = [{ from = "a" }]
outs = ["b.txt"]
"#,
        r#"
error: a dep table takes `from` and `as`
 --> pipeline.toml:7:9
  |
7 | deps = [{ from = "a" }]
  |         ^^^^^^^^^^^^^^
  |
  = help: write: { from = "stage.output", as = "path" }

"#,
    );
}

#[test]
fn an_unknown_key_of_a_mount() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
run = "true"
deps = [{ from = "a", to = "a.csv" }]
outs = ["b.txt"]
"#,
        r#"
error: unknown key `to` in a dep
 --> pipeline.toml:7:23
  |
7 | deps = [{ from = "a", to = "a.csv" }]
  |                       ^^
  |
  = help: the keys are: from, as

"#,
    );
}

#[test]
fn a_mount_of_an_unknown_stage() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
run = "true"
deps = [{ from = "aa", as = "a.csv" }]
outs = ["b.txt"]
"#,
        r#"
error: there is no stage `aa`
 --> pipeline.toml:7:18
  |
7 | deps = [{ from = "aa", as = "a.csv" }]
  |                  ^^^^
  |
  = help: did you mean `a`?
  = help: the stages are: a, b

"#,
    );
}

#[test]
fn a_mount_of_an_unknown_output() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"

[stages.b]
run = "true"
deps = [{ from = "parts.tset", as = "a.csv" }]
outs = ["b.txt"]
"#,
        r#"
error: `parts` has no output `tset`
  --> pipeline.toml:11:9
   |
11 | deps = [{ from = "parts.tset", as = "a.csv" }]
   |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   |
   = help: did you mean `test`?
   = help: the outputs are: train, test

"#,
    );
}

#[test]
fn a_mount_of_a_stage_with_several_outputs() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"

[stages.b]
run = "true"
deps = [{ from = "parts", as = "a.csv" }]
outs = ["b.txt"]
"#,
        r#"
error: stage `parts` has several outputs
  --> pipeline.toml:11:9
   |
11 | deps = [{ from = "parts", as = "a.csv" }]
   |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
   |
   = help: name one: parts.train, parts.test

"#,
    );
}

#[test]
fn outs_of_two_stages_that_are_the_same() {
    check(
        r#"[stages.a]
run = "true"
outs = ["a.txt"]

[stages.b]
run = "true"
outs = ["a.txt"]
"#,
        r#"
error: `a.txt` is an out of `a` already
 --> pipeline.toml:7:9
  |
7 | outs = ["a.txt"]
  |         ^^^^^^^
  |
  = help: a file has one writer: give each out a path of its own

"#,
    );
}

#[test]
fn an_out_inside_the_out_of_another_stage() {
    check(
        r#"[stages.a]
run = "true"
outs = ["out"]

[stages.b]
run = "true"
outs = ["out/b.txt"]
"#,
        r#"
error: the out `out/b.txt` lies inside the out `out` of `a`
 --> pipeline.toml:7:9
  |
7 | outs = ["out/b.txt"]
  |         ^^^^^^^^^^^
  |
  = help: a file has one writer: give each out a path of its own

"#,
    );
}

#[test]
fn an_out_that_contains_the_out_of_another_stage() {
    check(
        r#"[stages.a]
run = "true"
outs = ["out/a.txt"]

[stages.b]
run = "true"
outs = ["out"]
"#,
        r#"
error: the out `out` contains the out `out/a.txt` of `a`
 --> pipeline.toml:7:9
  |
7 | outs = ["out"]
  |         ^^^^^
  |
  = help: a file has one writer: give each out a path of its own

"#,
    );
}

#[test]
fn outs_of_one_stage_that_overlap() {
    check(
        r#"[stages.a]
run = "true"
outs = ["out", "out/a.txt"]
"#,
        r#"
error: the out `out/a.txt` lies inside the out `out` of `a`
 --> pipeline.toml:3:16
  |
3 | outs = ["out", "out/a.txt"]
  |                ^^^^^^^^^^^
  |
  = help: a file has one writer: give each out a path of its own

"#,
    );
}

#[test]
fn an_out_without_its_axis_is_proposed_a_folder() {
    check(
        r#"[matrix]
fold = [0, 1]

[stages.a]
run = "make ${fold}"
outs = ["a.txt"]
"#,
        r#"
error: several nodes of `a` would write `a.txt`
 --> pipeline.toml:6:9
  |
6 | outs = ["a.txt"]
  |         ^^^^^^^ does not mention ${fold}
  |
  = help: write: "${fold}/a.txt"

"#,
    );
}

#[test]
fn an_out_in_a_folder_is_proposed_a_folder_below() {
    check(
        r#"[matrix]
fold = [0, 1]

[stages.a]
run = "make ${fold}"
outs = ["out/deep/a.txt"]
"#,
        r#"
error: several nodes of `a` would write `out/deep/a.txt`
 --> pipeline.toml:6:9
  |
6 | outs = ["out/deep/a.txt"]
  |         ^^^^^^^^^^^^^^^^ does not mention ${fold}
  |
  = help: write: "out/deep/${fold}/a.txt"

"#,
    );
}

#[test]
fn an_out_in_the_current_folder_is_proposed_without_the_dot() {
    check(
        r#"[matrix]
fold = [0, 1]

[stages.a]
run = "make ${fold}"
outs = ["./a.txt"]
"#,
        r#"
error: several nodes of `a` would write `a.txt`
 --> pipeline.toml:6:9
  |
6 | outs = ["./a.txt"]
  |         ^^^^^^^^^ does not mention ${fold}
  |
  = help: write: "${fold}/a.txt"

"#,
    );
}

#[test]
fn an_out_that_is_a_folder_is_proposed_a_folder() {
    check(
        r#"[matrix]
fold = [0, 1]

[stages.a]
run = "make ${fold}"
outs = ["out/"]
"#,
        r#"
error: several nodes of `a` would write `out`
 --> pipeline.toml:6:9
  |
6 | outs = ["out/"]
  |         ^^^^^^ does not mention ${fold}
  |
  = help: write: "out/${fold}/"

"#,
    );
}

#[test]
fn one_of_several_outs_is_proposed_alone() {
    check(
        r#"[matrix]
fold = [0, 1]

[stages.a]
run = "make ${fold}"
outs = ["out/${fold}/a.txt", "b.txt"]
"#,
        r#"
error: several nodes of `a` would write `b.txt`
 --> pipeline.toml:6:30
  |
6 | outs = ["out/${fold}/a.txt", "b.txt"]
  |                              ^^^^^^^ does not mention ${fold}
  |
  = help: write: "${fold}/b.txt"

"#,
    );
}

#[test]
fn each_of_several_outs_is_proposed() {
    check(
        r#"[matrix]
fold = [0, 1]

[stages.a]
run = "make ${fold}"
outs = ["a.txt", "b.txt"]
"#,
        r#"
error: several nodes of `a` would write `a.txt`
 --> pipeline.toml:6:9
  |
6 | outs = ["a.txt", "b.txt"]
  |         ^^^^^^^ does not mention ${fold}
  |
  = help: write: "${fold}/a.txt"

error: several nodes of `a` would write `b.txt`
 --> pipeline.toml:6:18
  |
6 | outs = ["a.txt", "b.txt"]
  |                  ^^^^^^^ does not mention ${fold}
  |
  = help: write: "${fold}/b.txt"

"#,
    );
}

#[test]
fn an_out_that_mentions_one_of_two_axes_is_proposed_the_other() {
    check(
        r#"[matrix]
model = ["x", "y"]
fold = [0, 1, 2]

[stages.a]
run = "make ${model} ${fold}"
outs = ["out/${model}.txt"]
"#,
        r#"
error: several nodes of `a` would write `out/x.txt`
 --> pipeline.toml:7:9
  |
7 | outs = ["out/${model}.txt"]
  |         ^^^^^^^^^^^^^^^^^^ does not mention ${fold}
  |
  = help: write: "out/${fold}/${model}.txt"

"#,
    );
}

#[test]
fn an_out_in_the_folder_of_one_axis_is_proposed_the_other() {
    check(
        r#"[matrix]
model = ["x", "y"]
fold = [0, 1, 2]

[stages.a]
run = "make ${model} ${fold}"
outs = ["out/${model}/a.txt"]
"#,
        r#"
error: several nodes of `a` would write `out/x/a.txt`
 --> pipeline.toml:7:9
  |
7 | outs = ["out/${model}/a.txt"]
  |         ^^^^^^^^^^^^^^^^^^^^ does not mention ${fold}
  |
  = help: write: "out/${model}/${fold}/a.txt"

"#,
    );
}

#[test]
fn an_out_without_two_axes_is_proposed_both() {
    check(
        r#"[matrix]
model = ["x", "y"]
fold = [0, 1, 2]

[stages.a]
run = "make ${model} ${fold}"
outs = ["a.txt"]
"#,
        r#"
error: several nodes of `a` would write `a.txt`
 --> pipeline.toml:7:9
  |
7 | outs = ["a.txt"]
  |         ^^^^^^^ does not mention ${model} and ${fold}
  |
  = help: write: "${model}/${fold}/a.txt"

"#,
    );
}

#[test]
fn an_axis_of_an_input_counts_for_the_outs() {
    check(
        r#"[matrix]
fold = [0, 1]

[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 2
fold = "${fold}"

[stages.b]
run = "true"
deps = [{ from = "parts.test", as = "t.parquet" }]
outs = ["b.txt"]
"#,
        r#"
error: several nodes of `b` would write `b.txt`
  --> pipeline.toml:17:9
   |
17 | outs = ["b.txt"]
   |         ^^^^^^^ does not mention ${fold}
   |
   = help: write: "${fold}/b.txt"

"#,
    );
}

#[test]
fn an_out_that_mentions_its_axis_with_spaces() {
    check(
        r#"[matrix]
model = ["x", "y"]
fold = [0, 1, 2]

[stages.a]
run = "make ${model} ${fold}"
outs = ["out/${ model }.txt"]
"#,
        r#"
error: several nodes of `a` would write `out/x.txt`
 --> pipeline.toml:7:9
  |
7 | outs = ["out/${ model }.txt"]
  |         ^^^^^^^^^^^^^^^^^^^^ does not mention ${fold}
  |
  = help: write: "out/${fold}/${ model }.txt"

"#,
    );
}

#[test]
fn labels_that_run_together_are_told() {
    check(
        r#"[matrix]
x = [1, 11]
y = [1, 11]

[stages.a]
run = "make ${x} ${y}"
outs = ["out/${x}${y}"]
"#,
        r#"
error: several nodes of `a` would write `out/111`
 --> pipeline.toml:7:9
  |
7 | outs = ["out/${x}${y}"]
  |         ^^^^^^^^^^^^^^
  |
  = help: the values run together: put a `-` or a `/` between the params

"#,
    );
}

// ---- queries

#[test]
fn a_parse_error_is_underlined_on_its_line() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = """
  select x,
  from where y > 1
"""
"#,
        r#"
error: query: expected end of statement, found >
  --> pipeline.toml:10:16
   |
10 |   from where y > 1
   |                ^

"#,
    );
}

#[test]
fn a_parse_error_of_a_query_in_one_line() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = "select x form input where"
"#,
        r#"
error: query: expected end of statement, found input
 --> pipeline.toml:8:24
  |
8 | query = "select x form input where"
  |                        ^^^^^

"#,
    );
}

#[test]
fn a_parse_error_behind_a_param_underlines_the_line() {
    check(
        r#"[params]
late_after = 7

[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = """
  select x
  from input where y > ${late_after} and and z
"""
"#,
        r#"
error: query: expected end of statement, found z
  --> pipeline.toml:13:46
   |
13 |   from input where y > ${late_after} and and z
   |                                              ^

"#,
    );
}

#[test]
fn a_parse_error_at_the_end_of_a_query() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = """
  select x
  from input where
"""
"#,
        r#"
error: query: expected an expression, found the end of the text
  --> pipeline.toml:10:14
   |
10 |   from input where
   |              ^^^^^

"#,
    );
}

#[test]
fn a_literal_string_query_with_an_error() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = '''
select x
from input wehre y
'''
"#,
        r#"
error: query: expected end of statement, found y
  --> pipeline.toml:10:18
   |
10 | from input wehre y
   |                  ^

"#,
    );
}

#[test]
fn an_unsupported_clause_is_underlined() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = """
  with recursive t as (select 1)
  select x from t
"""
"#,
        r#"
error: query: `with recursive` is not understood
 --> pipeline.toml:9:3
  |
9 |   with recursive t as (select 1)
  |   ^^^^^^^^^^^^^^

"#,
    );
}

#[test]
fn a_limit_without_an_order() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = """
  select x
  from input
  limit 3
"""
"#,
        r#"
error: query: `limit` without `order by`: which rows are meant is not defined
  --> pipeline.toml:11:3
   |
11 |   limit 3
   |   ^^^^^

"#,
    );
}

#[test]
fn a_row_number_without_an_order() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = "select row_number() over () as n from input"
"#,
        r#"
error: query: `row_number` without `order by` in `over (…)`: which row comes first is not defined
 --> pipeline.toml:8:17
  |
8 | query = "select row_number() over () as n from input"
  |                 ^^^^^^^^^^

"#,
    );
}

#[test]
fn a_statement_that_is_no_query() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = "delete from input"
"#,
        r#"
error: query: `delete` is no query; a stage reads its inputs and gives one table
 --> pipeline.toml:8:10
  |
8 | query = "delete from input"
  |          ^^^^^^

"#,
    );
}

#[test]
fn two_statements() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = "select x from input; select y from input"
"#,
        r#"
error: query: one statement is expected, 2 are there
 --> pipeline.toml:8:9
  |
8 | query = "select x from input; select y from input"
  |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

"#,
    );
}

#[test]
fn an_empty_query() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = ""
"#,
        r#"
error: query: there is no statement
 --> pipeline.toml:8:9
  |
8 | query = ""
  |         ^^

"#,
    );
}

#[test]
fn a_function_that_is_no_function_of_its_arguments() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = """
  select x,
         random() as r
  from input
"""
"#,
        r#"
error: query: `random` gives another value each time; a stage's result follows from its inputs alone
  --> pipeline.toml:10:10
   |
10 |          random() as r
   |          ^^^^^^

"#,
    );
}

#[test]
fn a_qualifier_that_is_no_table() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = "select t.x from input"
"#,
        r#"
error: query: `t` is neither a table nor an alias of this query
 --> pipeline.toml:8:17
  |
8 | query = "select t.x from input"
  |                 ^

"#,
    );
}

#[test]
fn two_tables_of_one_name() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "sql"
input = "a"
query = """
  select x
  from input join input on true
"""
"#,
        r#"
error: query: two tables in one `from` are called `input`; give one an alias
  --> pipeline.toml:10:3
   |
10 |   from input join input on true
   |   ^^^^

"#,
    );
}

// ---- matrix and variants

#[test]
fn an_axis_without_values() {
    check(
        r#"[matrix]
fold = []

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: an axis needs at least one value
 --> pipeline.toml:2:8
  |
2 | fold = []
  |        ^^

"#,
    );
}

#[test]
fn an_axis_that_is_an_empty_table() {
    check(
        r#"[matrix]
fold = {}

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: an axis needs at least one value
 --> pipeline.toml:2:8
  |
2 | fold = {}
  |        ^^

"#,
    );
}

#[test]
fn an_axis_that_is_one_value() {
    check(
        r#"[matrix]
fold = 5

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: `fold` is an integer, expected an array, a range, a glob or labelled tables
 --> pipeline.toml:2:8
  |
2 | fold = 5
  |        ^
  |
  = help: write: lr = [0.1, 0.01], or fold = { from = 0, below = 5 }, or model.LABEL = { … }

"#,
    );
}

#[test]
fn a_list_of_tables_needs_labels() {
    check(
        r#"[matrix]
model = [{ algorithm = "logistic" }, { algorithm = "kmeans" }]

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: a table as a value of the axis `model` needs a label
 --> pipeline.toml:2:10
  |
2 | model = [{ algorithm = "logistic" }, { algorithm = "kmeans" }]
  |          ^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: write: model.LABEL = { … }

"#,
    );
}

#[test]
fn a_model_in_the_matrix_without_a_label() {
    check(
        r#"[matrix]
model = { algorithm = "logistic", l2 = 1.0 }

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: a table as a value of the axis `model` needs a label
 --> pipeline.toml:2:9
  |
2 | model = { algorithm = "logistic", l2 = 1.0 }
  |         ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: write: model.LABEL = { … }

"#,
    );
}

#[test]
fn a_range_without_values() {
    check(
        r#"[matrix]
fold = { from = 5, below = 5 }

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: the range from 5 below 5 has no values
 --> pipeline.toml:2:8
  |
2 | fold = { from = 5, below = 5 }
  |        ^^^^^^^^^^^^^^^^^^^^^^^

"#,
    );
}

#[test]
fn a_range_without_an_end() {
    check(
        r#"[matrix]
fold = { from = 3 }

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: the key `below` of a range is missing
 --> pipeline.toml:2:8
  |
2 | fold = { from = 3 }
  |        ^^^^^^^^^^^^
  |
  = help: write: { from = 0, below = 5 }

"#,
    );
}

#[test]
fn a_range_with_a_text() {
    check(
        r#"[matrix]
fold = { from = 0, below = "five" }

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: `below` of a range is a string, expected an integer
 --> pipeline.toml:2:28
  |
2 | fold = { from = 0, below = "five" }
  |                            ^^^^^^

"#,
    );
}

#[test]
fn a_range_with_an_unknown_key() {
    check(
        r#"[matrix]
fold = { from = 0, below = 10, step = 2 }

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: unknown key `step` in a range
 --> pipeline.toml:2:32
  |
2 | fold = { from = 0, below = 10, step = 2 }
  |                                ^^^^
  |
  = help: the keys are: from, below

"#,
    );
}

#[test]
fn a_range_with_too_many_values() {
    check(
        r#"[matrix]
fold = { below = 2000000 }

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: the range from 0 below 2000000 has more than 1000000 values
 --> pipeline.toml:2:8
  |
2 | fold = { below = 2000000 }
  |        ^^^^^^^^^^^^^^^^^^^

"#,
    );
}

#[test]
fn a_glob_that_matches_nothing() {
    check(
        r#"[matrix]
day = { glob = "data/*.csv" }

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: no file matches `data/*.csv`
 --> pipeline.toml:2:16
  |
2 | day = { glob = "data/*.csv" }
  |                ^^^^^^^^^^^^
  |
  = help: patterns are relative to the folder of the pipeline file

"#,
    );
}

#[test]
fn a_glob_that_is_no_pattern() {
    check(
        r#"[matrix]
day = { glob = "data/[.csv" }

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: `data/[.csv` is no pattern: invalid range pattern at character 6
 --> pipeline.toml:2:16
  |
2 | day = { glob = "data/[.csv" }
  |                ^^^^^^^^^^^^

"#,
    );
}

#[test]
fn a_glob_that_is_no_text() {
    check(
        r#"[matrix]
day = { glob = 3 }

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: `glob` is an integer, expected a pattern of paths
 --> pipeline.toml:2:16
  |
2 | day = { glob = 3 }
  |                ^

"#,
    );
}

#[test]
fn a_glob_with_an_unknown_key() {
    check(
        r#"[matrix]
day = { glob = "*.toml", sort = true }

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: unknown key `sort` in a glob
 --> pipeline.toml:2:26
  |
2 | day = { glob = "*.toml", sort = true }
  |                          ^^^^
  |
  = help: the keys are: glob

"#,
    );
}

#[test]
fn an_exclusion_that_is_no_table() {
    check(
        r#"[matrix]
fold = [0, 1]
exclude = [0]

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: `exclude` takes an array of tables, each an assignment of axes
 --> pipeline.toml:3:11
  |
3 | exclude = [0]
  |           ^^^
  |
  = help: write: exclude = [{ model = "forest", fold = 4 }]

"#,
    );
}

#[test]
fn an_exclusion_of_an_unknown_axis() {
    check(
        r#"[matrix]
fold = [0, 1]
exclude = [{ flod = 0 }]

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: `exclude` names an unknown axis `flod`
 --> pipeline.toml:3:14
  |
3 | exclude = [{ flod = 0 }]
  |              ^^^^
  |
  = help: did you mean `fold`?
  = help: the axes are: fold

"#,
    );
}

#[test]
fn an_exclusion_of_an_unknown_value() {
    check(
        r#"[matrix]
model.forest = { algorithm = "decision_tree" }
model.logistic = { algorithm = "logistic" }
exclude = [{ model = "forrest" }]

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: axis `model` has no value `forrest`
 --> pipeline.toml:4:22
  |
4 | exclude = [{ model = "forrest" }]
  |                      ^^^^^^^^^
  |
  = help: did you mean `forest`?
  = help: the values are: forest, logistic

"#,
    );
}

#[test]
fn everything_excluded() {
    check(
        r#"[matrix]
fold = [0, 1]
exclude = [{ fold = 0 }, { fold = 1 }]

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: no variant is left: `exclude` takes every combination of the matrix
 --> pipeline.toml:3:12
  |
3 | exclude = [{ fold = 0 }, { fold = 1 }]
  |            ^^^^^^^^^^^^^^^^^^^^^^^^^^

"#,
    );
}

#[test]
fn more_variants_than_the_limit() {
    check(
        r#"[matrix]
a = { below = 1000 }
b = { below = 1000 }
c = { below = 2 }

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: the matrix has more than 1000000 combinations
 --> pipeline.toml:4:1
  |
4 | c = { below = 2 }
  | ^ it is too many with this axis
  |
  = help: `exclude` does not count here: give axes fewer values

"#,
    );
}

#[test]
fn a_variant_that_leaves_a_param_without_a_value() {
    check(
        r#"[variants.one]
rate = 1

[variants.two]
seed = 2

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: variant `two` has no value for the param `rate`
 --> pipeline.toml:4:11
  |
4 | [variants.two]
  |           ^^^
  |
  = help: set `rate` in [params]: variants that leave it out take that value

error: variant `one` has no value for the param `seed`
 --> pipeline.toml:1:11
  |
1 | [variants.one]
  |           ^^^
  |
  = help: set `seed` in [params]: variants that leave it out take that value

"#,
    );
}

#[test]
fn a_matrix_beside_a_variant_with_a_param_of_its_own() {
    check(
        r#"[matrix]
fold = [0, 1]

[variants.one]
rate = 1

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: the variants of the matrix have no value for the param `rate`
 --> pipeline.toml:5:1
  |
5 | rate = 1
  | ^^^^
  |
  = help: set `rate` in [params]: variants that leave it out take that value

"#,
    );
}

#[test]
fn a_variant_that_is_no_table() {
    check(
        r#"[variants]
one = 1

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: `variants.one` is an integer, expected a table
 --> pipeline.toml:2:7
  |
2 | one = 1
  |       ^
  |
  = help: write: [variants.one]

"#,
    );
}

#[test]
fn two_values_with_one_label() {
    check(
        r#"[matrix]
x = [1, "1"]

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: the axis `x` has two different values with the label `1`
 --> pipeline.toml:2:9
  |
2 | x = [1, "1"]
  |         ^^^
  |
  = help: labels tell nodes apart: write the values so that their texts differ

"#,
    );
}

#[test]
fn two_values_with_one_label_among_the_variants() {
    check(
        r#"[variants.one]
x = 1

[variants.two]
x = "1"

[stages.a]
uses = "read"
path = "a.csv"

"#,
        r#"
error: the axis `x` has two different values with the label `1`
 --> pipeline.toml:5:5
  |
5 | x = "1"
  |     ^^^
  |
  = help: labels tell nodes apart: write the values so that their texts differ

"#,
    );
}

// ---- several errors in one pass

#[test]
fn config_errors_of_several_stages() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.dat"

[stages.b]
uses = "split"
input = "a"
test = 2

[stages.c]
uses = "spilt"
input = "a"
"#,
        r#"
error: the format of `a.dat` cannot be told from its name: known are .csv, .tsv, .parquet, .arrow, .ipc, .feather, .jsonl and .ndjson, each also with .gz or .zst behind; set `format = "csv"` or another of tsv, parquet, ipc, jsonl
 --> pipeline.toml:3:8
  |
3 | path = "a.dat"
  |        ^^^^^^^

error: `test` is 2, a share between 0 and 1 is needed
 --> pipeline.toml:8:8
  |
8 | test = 2
  |        ^

error: there is no kind `spilt`
  --> pipeline.toml:11:8
   |
11 | uses = "spilt"
   |        ^^^^^^^
   |
   = help: did you mean `split`?
   = help: the kinds are: read, sql, split, prepare, train, evaluate, compare

"#,
    );
}

#[test]
fn wiring_errors_of_several_stages() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "split"

[stages.c]
uses = "split"
gather = "a"
"#,
        r#"
error: stage `b` lacks its input `input`, a frame
 --> pipeline.toml:5:9
  |
5 | [stages.b]
  |         ^
  |
  = help: write: input = "STAGE"
  = help: these give a frame: a, c.train, c.test

error: input `input` of stage `c` takes one output, not a `gather`
  --> pipeline.toml:10:10
   |
10 | gather = "a"
   |          ^^^
   |
   = help: write: input = "a"

"#,
    );
}

#[test]
fn an_unknown_stage_and_a_wrong_config_of_another() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
uses = "split"
input = "x"

[stages.c]
uses = "split"
input = "a"
test = 2

[stages.d]
uses = "split"
input = "a"
seed = "${sede}"
"#,
        r#"
error: there is no stage `x`
 --> pipeline.toml:7:9
  |
7 | input = "x"
  |         ^^^
  |
  = help: the stages are: a, b, c, d

error: `test` is 2, a share between 0 and 1 is needed
  --> pipeline.toml:12:8
   |
12 | test = 2
   |        ^

error: unknown param `sede`
  --> pipeline.toml:17:9
   |
17 | seed = "${sede}"
   |         ^^^^^^^
   |
   = help: there are no params

"#,
    );
}

#[test]
fn errors_of_several_sections() {
    check(
        r#"[pipelin]
[matrix]
exclude = 3
[stages.a]
uses = "read"
run = "true"
"#,
        r#"
error: unknown section `pipelin`
 --> pipeline.toml:1:2
  |
1 | [pipelin]
  |  ^^^^^^^
  |
  = help: did you mean `pipeline`?
  = help: the sections are: pipeline, params, matrix, variants, stages, store, resources

error: `exclude` takes an array of tables, each an assignment of axes
 --> pipeline.toml:3:11
  |
3 | exclude = 3
  |           ^
  |
  = help: write: exclude = [{ model = "forest", fold = 4 }]

error: stage `a` has both `uses` and `run`
 --> pipeline.toml:4:9
  |
4 | [stages.a]
  |         ^
  |
  = help: keep one of the two

"#,
    );
}

// ---- the command line

#[test]
fn setting_an_unknown_param() {
    check_command(
        r#"[params]
seed = 7

[matrix]
fold = [0, 1]

[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 2
fold = "${fold}"
seed = "${seed}"
"#,
        &["status", "--set", "sede=8"],
        r#"
error: --set names an unknown param `sede`
 |
 = note: in pipeline.toml
 = help: did you mean `seed`?
 = help: the params are: seed, fold

"#,
    );
}

#[test]
fn setting_without_a_value() {
    check_command(
        r#"[params]
seed = 7

[matrix]
fold = [0, 1]

[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 2
fold = "${fold}"
seed = "${seed}"
"#,
        &["status", "--set", "seed"],
        r#"
error: --set takes NAME=VALUE, found `seed`
  help: write: --set seed=7
"#,
    );
}

#[test]
fn setting_without_a_name() {
    check_command(
        r#"[params]
seed = 7

[matrix]
fold = [0, 1]

[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 2
fold = "${fold}"
seed = "${seed}"
"#,
        &["status", "--set", "=8"],
        r#"
error: --set takes NAME=VALUE, found `=8`
  help: write: --set seed=7
"#,
    );
}

#[test]
fn setting_a_value_of_the_wrong_type() {
    check_command(
        r#"[params]
seed = 7

[matrix]
fold = [0, 1]

[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 2
fold = "${fold}"
seed = "${seed}"
"#,
        &["status", "--set", "seed=many"],
        r#"
error: found the string "many", expected a whole number
  --> pipeline.toml:16:8
   |
16 | seed = "${seed}"
   |        ^^^^^^^^^ `seed` is many
   |
   = help: this concerns 2 nodes of `parts`

"#,
    );
}

#[test]
fn an_unknown_target() {
    check_command(
        r#"[params]
seed = 7

[matrix]
fold = [0, 1]

[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 2
fold = "${fold}"
seed = "${seed}"
"#,
        &["status", "part"],
        r#"
error: there is no stage `part`
  help: did you mean `parts`?
  help: the stages are: a, parts
"#,
    );
}

#[test]
fn an_unknown_node_of_a_stage() {
    check_command(
        r#"[params]
seed = 7

[matrix]
fold = [0, 1]

[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 2
fold = "${fold}"
seed = "${seed}"
"#,
        &["status", "parts[fold=2]"],
        r#"
error: there is no node `parts[fold=2]`
  help: its nodes are: parts[fold=0], parts[fold=1]
"#,
    );
}

#[test]
fn a_target_whose_bracket_is_not_closed() {
    check_command(
        r#"[params]
seed = 7

[matrix]
fold = [0, 1]

[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 2
fold = "${fold}"
seed = "${seed}"
"#,
        &["status", "parts[fold=1"],
        r#"
error: `parts[fold=1` names no node
  help: write: STAGE, or STAGE[AXIS=VALUE,…]
"#,
    );
}

#[test]
fn an_unknown_axis_of_a_target() {
    check_command(
        r#"[params]
seed = 7

[matrix]
fold = [0, 1]

[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 2
fold = "${fold}"
seed = "${seed}"
"#,
        &["status", "parts[flod=1]"],
        r#"
error: there is no node `parts[flod=1]`
  help: its nodes are: parts[fold=0], parts[fold=1]
"#,
    );
}

#[test]
fn a_pipeline_file_that_is_not_there() {
    check_command(
        r#"[params]
seed = 7

[matrix]
fold = [0, 1]

[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 2
fold = "${fold}"
seed = "${seed}"
"#,
        &["--pipeline", "other.toml", "graph"],
        r#"
error: other.toml cannot be read: No such file or directory (os error 2)
  help: name the file: --pipeline PATH
  help: make one: headwater init, or headwater init --example penguins
"#,
    );
}

#[test]
fn a_part_of_a_node_without_its_axis_names_the_axes() {
    check_command(
        r#"[matrix]
model.forest = { algorithm = "decision_tree", max_depth = 2 }
model.tree = { algorithm = "decision_tree" }
fold = { from = 0, below = 2 }

[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 2
fold = "${fold}"

[stages.fit]
uses = "train"
input = "parts"
target = "y"
model = "${model}"
"#,
        &["status", "fit[forest,fold=1]"],
        r#"
error: `fit[forest,fold=1]` names no node: `forest` stands without its axis
  help: the axes of `fit` are: model, fold
  help: write: fit[model=forest]
"#,
    );
}

#[test]
fn a_part_of_a_node_whose_stage_has_no_axes() {
    check_command(
        r#"[stages.a]
uses = "read"
path = "a.csv"
"#,
        &["status", "a[forest]"],
        r#"
error: `a[forest]` names no node: `forest` stands without its axis
  help: `a` has no axes
"#,
    );
}

#[test]
fn a_frame_mounted_in_a_form_that_is_not_known() {
    check(
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.b]
run = "cat x.json > out"
deps = [{ from = "a", as = "x.json" }]
outs = ["out"]
"#,
        r#"
error: a frame cannot be written to `x.json`: the extensions known are .csv, .tsv, .parquet, .arrow, .ipc, .feather, .jsonl and .ndjson
 --> pipeline.toml:7:28
  |
7 | deps = [{ from = "a", as = "x.json" }]
  |                            ^^^^^^^^

"#,
    );
}

#[test]
fn arrays_that_are_written_alike_are_not_taken_for_one() {
    check(
        r#"[variants.one]
names = ["a, b"]

[variants.two]
names = ["a", "b"]

[stages.a]
uses = "read"
path = "a.csv"

[stages.q]
uses = "sql"
input = "a"
query = "select * from input where x in ${names}"
"#,
        r#"
error: the axis `names` has two different values with the label `[a, b]`
 --> pipeline.toml:5:9
  |
5 | names = ["a", "b"]
  |         ^^^^^^^^^^
  |
  = help: labels tell nodes apart: write the values so that their texts differ

"#,
    );
}

#[test]
fn resources_that_are_misnamed() {
    check(
        r#"[resources]
mem = 4

[stages.a]
run = "true"
outs = ["a.txt"]
resources = { cpu = 1 }
"#,
        r#"
error: `cpu` would be a tag that means nothing
 --> pipeline.toml:7:15
  |
7 | resources = { cpu = 1 }
  |               ^^^
  |
  = help: did you mean `cpus`?

error: `mem` would be a tag that means nothing
 --> pipeline.toml:2:1
  |
2 | mem = 4
  | ^^^
  |
  = help: did you mean `memory`?

"#,
    );
}

#[test]
fn amounts_that_are_none() {
    check(
        r#"[resources]
cpus = 4
memory = "16 GB of it"
license = 0

[stages.a]
run = "true"
outs = ["a.txt"]
resources = { cpus = 0, memory = -1, gpus = "one", license = 1.5 }
retries = 101
"#,
        r#"
error: `cpus` is `0`, expected a whole number of at least 1
 --> pipeline.toml:9:22
  |
9 | resources = { cpus = 0, memory = -1, gpus = "one", license = 1.5 }
  |                      ^

error: `memory` is `-1`, expected a number of bytes such as 500M or 20G
 --> pipeline.toml:9:34
  |
9 | resources = { cpus = 0, memory = -1, gpus = "one", license = 1.5 }
  |                                  ^^
  |
  = help: write: memory = "4G"

error: `gpus` is `one`, expected a whole number of at least 0
 --> pipeline.toml:9:45
  |
9 | resources = { cpus = 0, memory = -1, gpus = "one", license = 1.5 }
  |                                             ^^^^^

error: `license` is `1.5`, expected a whole number of at least 0
 --> pipeline.toml:9:62
  |
9 | resources = { cpus = 0, memory = -1, gpus = "one", license = 1.5 }
  |                                                              ^^^

error: `retries` is `101`, expected a whole number from 0 to 100
  --> pipeline.toml:10:11
   |
10 | retries = 101
   |           ^^^
   |
   = help: write: retries = 2

error: `cpus` is not set in the file: it is what `--jobs` says
 --> pipeline.toml:2:1
  |
2 | cpus = 4
  | ^^^^
  |
  = help: remove it; by default all cores are used

error: `memory` is `16 GB of it`, expected a number of bytes such as 500M or 20G
 --> pipeline.toml:3:10
  |
3 | memory = "16 GB of it"
  |          ^^^^^^^^^^^^^
  |
  = help: write: memory = "4G"

error: `license` is `0`, expected a whole number of at least 1
 --> pipeline.toml:4:11
  |
4 | license = 0
  |           ^

"#,
    );
}

#[test]
fn resources_are_a_table() {
    check(
        r#"[stages.a]
run = "true"
outs = ["a.txt"]
resources = 4
retries = "two"
"#,
        r#"
error: `resources` is an integer, expected a table
 --> pipeline.toml:4:13
  |
4 | resources = 4
  |             ^
  |
  = help: write: resources = { cpus = 2, memory = "4G" }

error: `retries` is `two`, expected a whole number from 0 to 100
 --> pipeline.toml:5:11
  |
5 | retries = "two"
  |           ^^^^^
  |
  = help: write: retries = 2

"#,
    );
}

#[test]
fn a_stage_that_asks_for_more_than_there_is() {
    let pipeline = r#"[resources]
memory = "1G"

[stages.a]
run = "true"
outs = ["a.txt"]
resources = { cpus = 4096, memory = "2G" }

[stages.b]
run = "true"
outs = ["b.txt"]
resources = { gpus = 1, license = 2 }
"#;
    let project = Project::with(pipeline);
    let text = r#"error: `a` asks for 2.0 GB of memory, and there is 1.0 GB
 --> pipeline.toml:7:13
  |
7 | resources = { cpus = 4096, memory = "2G" }
  |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  |
  = help: say what there is: [resources] in the pipeline file, or run --resource NAME=AMOUNT

error: `b` asks for 1 of `gpus`, and there is 0
  --> pipeline.toml:12:13
   |
12 | resources = { gpus = 1, license = 2 }
   |             ^^^^^^^^^^^^^^^^^^^^^^^^^
   |
   = help: say what there is: [resources] in the pipeline file, or run --resource NAME=AMOUNT

"#;
    for (arguments, out) in [
        (&["run"][..], ""),
        (&["run", "--dry-run"], "    stale a  new\n    stale b  new\n2 to run\n"),
        (&["status"], "    stale a  new\n    stale b  new\n2 to run\n"),
    ] {
        let done = project.call(arguments);
        assert_eq!((done.code, done.err.as_str()), (2, text));
        assert!(done.out.starts_with(out) && done.out.is_empty() == out.is_empty(), "{}", done.out);
    }
    let enough = ["--resource", "memory=2G", "--resource", "gpus=1", "--resource", "license=2"];
    project.ok(&[&["status"][..], &enough].concat());
    assert_eq!(project.call(&["log"]).err, "nothing has run yet\n");
    let done = project.call(&["run", "--resource", "gpus"]);
    assert_eq!(
        (done.code, done.err.as_str()),
        (2, "error: `gpus` is no resource: expected NAME=AMOUNT, such as gpus=1\n")
    );
}
