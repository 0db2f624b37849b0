//! Everything that can be wrong with data: the error of the node that meets it, and what the run leaves behind. A test is
//! named after what is wrong.

mod support;

use support::{Project, Run};

/// The node fails with this error, in this run and the next; what is below it is skipped; what was done before is kept.
fn check(files: &[(&str, &[u8])], pipeline: &str, node: &str, error: &str) {
    let project = Project::with(pipeline);
    for (path, bytes) in files {
        project.write(path, bytes);
    }
    let first = failed(project.run(&[]), node, error);
    let again = failed(project.run(&[]), node, error);
    let finished = |run: &Run| [run.ran(), run.with("cached")].concat().len();
    assert_eq!(again.ran(), Vec::<String>::new(), "what finished before is cached");
    assert_eq!(finished(&again), finished(&first));
    assert_eq!(again.with("skipped"), first.with("skipped"));
}

fn failed(run: Run, node: &str, error: &str) -> Run {
    assert_eq!(run.node(node)["error"], error, "{}", run.done.err);
    assert_eq!(run.done.code, 1);
    assert_eq!(run.with("failed"), [node]);
    let done = [run.ran(), run.with("cached"), run.with("skipped")].concat().len();
    assert_eq!(done + 1, run.nodes.len(), "no node is left without an outcome");
    assert!(run.nodes.iter().all(|line| line["outcome"] != "failed" || line["outputs"] == serde_json::json!({})));
    let below = run.nodes.iter().any(|line| line["outcome"] == "skipped");
    assert!(below || node == "board", "what is below a failure is skipped");
    run
}

#[test]
fn a_missing_data_file() {
    check(
        &[],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "there is no file a.csv",
    );
}

#[test]
fn a_row_with_too_few_fields() {
    check(
        &[("a.csv", b"x,y,t\n1,2,a\n3,4\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv, row 3: it has 2 fields, the header has 3",
    );
}

#[test]
fn a_row_with_too_many_fields() {
    check(
        &[("a.csv", b"x,y,t\n1,2,a\n3,4,b,c\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv, row 3: it has 4 fields, the header has 3",
    );
}

#[test]
fn a_quote_that_is_not_closed() {
    check(
        &[("a.csv", b"x,y,t\n1,2,a\n3,4,\"b\n5,6,c\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv, row 3: a quote is opened in this row and never closed",
    );
}

#[test]
fn bytes_that_are_no_utf8() {
    check(
        &[("a.csv", b"x,y,t\n1,2,a\n3,4,\xff\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv, row 3, column `t`: the value is not valid UTF-8; save the file as UTF-8",
    );
}

#[test]
fn bytes_that_are_no_utf8_in_the_header() {
    check(
        &[("a.csv", b"x,\xff,t\n1,2,a\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv, row 1: the name of column 2 is not valid UTF-8; save the file as UTF-8",
    );
}

#[test]
fn an_empty_file() {
    check(
        &[("a.csv", b"")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv: the file is empty",
    );
}

#[test]
fn a_header_alone() {
    check(
        &[("a.csv", b"x,y,t\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv: the file has a header but no rows",
    );
}

#[test]
fn a_column_without_a_name() {
    check(
        &[("a.csv", b"x,,t\n1,2,a\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv, row 1: column 2 has no name",
    );
}

#[test]
fn two_columns_of_one_name() {
    check(
        &[("a.csv", b"x,x,t\n1,2,a\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv, row 1, column `x`: the header names it twice",
    );
}

#[test]
fn a_value_that_is_not_of_the_declared_type() {
    check(
        &[("a.csv", b"x,y,t\n1,2,a\nthree,4,b\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"
types = { x = "i64" }

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv, row 3, column `x`: found `three`, expected i64",
    );
}

#[test]
fn a_declared_type_of_an_unknown_column() {
    check(
        &[("a.csv", b"x,y,t\n1,10.5,red\n2,20.5,blue\n3,30.5,red\n4,40.5,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"
types = { xx = "i64" }

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv: types: there is no column `xx`; the columns are `x`, `y`, `t`",
    );
}

#[test]
fn a_kept_column_that_is_not_there() {
    check(
        &[("a.csv", b"x,y,t\n1,10.5,red\n2,20.5,blue\n3,30.5,red\n4,40.5,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"
columns = ["x", "yy"]

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv: columns: there is no column `yy`; the columns are `x`, `y`, `t`",
    );
}

#[test]
fn a_folder_instead_of_a_file() {
    check(
        &[("a.csv/x.csv", b"x,y,t\n1,10.5,red\n2,20.5,blue\n3,30.5,red\n4,40.5,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "`a.csv` cannot be read: it is a folder, expected a file",
    );
}

#[test]
fn a_parquet_file_that_is_none() {
    check(
        &[("a.parquet", b"hello")],
        r#"[stages.a]
uses = "read"
path = "a.parquet"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.parquet: it cannot be read: parquet: File out of specification: A Parquet file must contain a header and footer with at least 12 bytes",
    );
}

#[test]
fn a_gzip_file_that_is_none() {
    check(
        &[("a.csv.gz", b"hello")],
        r#"[stages.a]
uses = "read"
path = "a.csv.gz"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.csv.gz: it cannot be decompressed: unexpected end of file",
    );
}

#[test]
fn a_line_that_is_no_json() {
    check(
        &[("a.jsonl", b"{\"x\": 1}\n{\"x\": \n")],
        r#"[stages.a]
uses = "read"
path = "a.jsonl"

[stages.below]
uses = "sql"
input = "a"
query = "select x from input"
"#,
        "a",
        "a.jsonl, row 2: EOF while parsing a value at character 6",
    );
}

#[test]
fn an_unknown_column_of_a_query() {
    check(
        &[("a.csv", b"x,y,t\n1,10.5,red\n2,20.5,blue\n3,30.5,red\n4,40.5,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.q]
uses = "sql"
input = "a"
query = "select z from input"

[stages.below]
uses = "sql"
input = "q"
query = "select * from input"
"#,
        "q",
        "query: there is no column `z`; the columns are `input.x`, `input.y`, `input.t`",
    );
}

#[test]
fn an_unknown_table_of_a_query() {
    check(
        &[("a.csv", b"x,y,t\n1,10.5,red\n2,20.5,blue\n3,30.5,red\n4,40.5,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.q]
uses = "sql"
input = "a"
query = "select x from joined"

[stages.below]
uses = "sql"
input = "q"
query = "select * from input"
"#,
        "q",
        "query: there is no table `joined`; the inputs are `input`",
    );
}

#[test]
fn a_sum_of_texts() {
    check(
        &[("a.csv", b"x,y,t\n1,10.5,red\n2,20.5,blue\n3,30.5,red\n4,40.5,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.q]
uses = "sql"
input = "a"
query = "select sum(t) as s from input"

[stages.below]
uses = "sql"
input = "q"
query = "select * from input"
"#,
        "q",
        "query: `sum` operation not supported for dtype `str`",
    );
}

#[test]
fn a_text_compared_with_a_number() {
    check(
        &[("a.csv", b"x,y,t\n1,10.5,red\n2,20.5,blue\n3,30.5,red\n4,40.5,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.q]
uses = "sql"
input = "a"
query = "select x from input where t > 3"

[stages.below]
uses = "sql"
input = "q"
query = "select * from input"
"#,
        "q",
        "query: cannot compare string with numeric type (i32)",
    );
}

#[test]
fn an_unknown_function() {
    check(
        &[("a.csv", b"x,y,t\n1,10.5,red\n2,20.5,blue\n3,30.5,red\n4,40.5,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.q]
uses = "sql"
input = "a"
query = "select median_of(x) as m from input"

[stages.below]
uses = "sql"
input = "q"
query = "select * from input"
"#,
        "q",
        "query: unsupported function 'median_of'",
    );
}

#[test]
fn no_rows_behind_a_query() {
    check(
        &[("a.csv", b"x,y,t\n1,10.5,red\n2,20.5,blue\n3,30.5,red\n4,40.5,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.q]
uses = "sql"
input = "a"
query = "select x from input where x > 100"

[stages.below]
uses = "sql"
input = "q"
query = "select * from input"
"#,
        "q",
        "sql: no rows are left",
    );
}

#[test]
fn two_columns_of_a_result_with_one_name() {
    check(
        &[("a.csv", b"x,y,t\n1,10.5,red\n2,20.5,blue\n3,30.5,red\n4,40.5,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.q]
uses = "sql"
input = "a"
query = "select x, y as x from input"

[stages.below]
uses = "sql"
input = "q"
query = "select * from input"
"#,
        "q",
        "query: two columns are called `x`; name one of them with `as`",
    );
}

#[test]
fn an_unknown_column_to_stratify_by() {
    check(
        &[("a.csv", b"x,y,t\n1,10.5,red\n2,20.5,blue\n3,30.5,red\n4,40.5,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
stratify = "species"

[stages.below]
uses = "sql"
input = "parts.train"
query = "select * from input"
"#,
        "parts",
        "split: stratify: there is no column `species`; the columns are `x`, `y`, `t`",
    );
}

#[test]
fn more_folds_than_rows() {
    check(
        &[("a.csv", b"x,y,t\n1,10.5,red\n2,20.5,blue\n3,30.5,red\n4,40.5,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
folds = 9
fold = 0

[stages.below]
uses = "sql"
input = "parts.train"
query = "select * from input"
"#,
        "parts",
        "split: 4 rows are fewer than the 9 folds",
    );
}

#[test]
fn a_single_row_cannot_be_split() {
    check(
        &[("a.csv", b"x\n1\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
test = 0.5

[stages.below]
uses = "sql"
input = "parts.train"
query = "select * from input"
"#,
        "parts",
        "split: 2 rows are needed, 1 is there",
    );
}

#[test]
fn an_unknown_target_of_a_preparation() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,4.5,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,12.0,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
test = 0.5

[stages.ready]
uses = "prepare"
input = "parts"
target = "species"

[stages.below]
uses = "sql"
input = "ready.train"
query = "select * from input"
"#,
        "ready",
        "prepare: target: there is no column `species`; the columns are `x`, `y`, `t`",
    );
}

#[test]
fn an_unknown_column_of_a_step() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,4.5,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,12.0,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
test = 0.5

[stages.ready]
uses = "prepare"
input = "parts"
target = "t"
steps = [{ scale = "standard", columns = ["z"] }]

[stages.below]
uses = "sql"
input = "ready.train"
query = "select * from input"
"#,
        "ready",
        "prepare: step 1: there is no column `z`; the columns are `x`, `y`",
    );
}

#[test]
fn an_unknown_feature_of_a_preparation() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,4.5,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,12.0,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
test = 0.5

[stages.ready]
uses = "prepare"
input = "parts"
target = "t"
features = ["x", "z"]

[stages.below]
uses = "sql"
input = "ready.train"
query = "select * from input"
"#,
        "ready",
        "prepare: features: there is no column `z`; the columns are `x`, `y`, `t`",
    );
}

#[test]
fn a_median_of_texts() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,4.5,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,12.0,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
test = 0.5

[stages.ready]
uses = "prepare"
input = "parts"
target = "x"
steps = [{ impute = "median", columns = ["t"] }]

[stages.below]
uses = "sql"
input = "ready.train"
query = "select * from input"
"#,
        "ready",
        "prepare: step 1: column `t` is str, expected numbers, for impute = \"median\"",
    );
}

#[test]
fn a_text_that_no_step_turns_into_numbers() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,4.5,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,12.0,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
test = 0.5

[stages.ready]
uses = "prepare"
input = "parts"
target = "x"

[stages.below]
uses = "sql"
input = "ready.train"
query = "select * from input"
"#,
        "ready",
        "prepare: train: column `t` is still str after the last step; add a one_hot or drop step",
    );
}

#[test]
fn a_missing_value_that_no_step_fills() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
test = 0.5

[stages.ready]
uses = "prepare"
input = "parts"
target = "t"

[stages.below]
uses = "sql"
input = "ready.train"
query = "select * from input"
"#,
        "ready",
        "prepare: test: column `y` has 2 missing values, the first in row 2; add an impute step",
    );
}

#[test]
fn a_column_without_any_value_to_impute() {
    check(
        &[("a.csv", b"x,y,t\n1,,red\n2,,blue\n3,,red\n4,,blue\n5,,red\n6,,blue\n7,,red\n8,,blue\n9,,red\n10,,blue\n11,,red\n12,,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.parts]
uses = "split"
input = "a"
test = 0.5

[stages.ready]
uses = "prepare"
input = "parts"
target = "t"
steps = [{ impute = "median" }]

[stages.below]
uses = "sql"
input = "ready.train"
query = "select * from input"
"#,
        "ready",
        "prepare: train: column `y` is still str after the last step; add a one_hot or drop step",
    );
}

#[test]
fn a_target_that_is_not_there() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,4.5,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,12.0,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "species"
model = { algorithm = "logistic" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: there is no column `species`; the columns are `x`, `y`, `t`",
    );
}

#[test]
fn no_target_at_all() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,4.5,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,12.0,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
model = { algorithm = "logistic" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: no target; set `target`, or wire the `transform` of a `prepare` stage that has one",
    );
}

#[test]
fn an_unknown_feature() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,4.5,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,12.0,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
features = ["x", "z"]
model = { algorithm = "logistic" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: there is no column `z`; the columns are `x`, `y`, `t`",
    );
}

#[test]
fn the_target_among_the_features() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,4.5,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,12.0,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
features = ["x", "t"]
model = { algorithm = "logistic" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: `t` is the target, it cannot be a feature",
    );
}

#[test]
fn a_text_feature_that_was_not_made_a_number() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,4.5,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,12.0,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "x"
model = { algorithm = "decision_tree" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: column `t` is str, expected a number or a bool; put a `prepare` stage with `one_hot` before `train`",
    );
}

#[test]
fn a_text_target_of_a_linear_regression() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,4.5,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,12.0,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "linear_regression" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: column `t` is str, expected a number or a bool, to be the target of a regression",
    );
}

#[test]
fn one_class_alone() {
    check(
        &[("a.csv", b"x,t\n1,red\n2,red\n3,red\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: target `t` has one class only, `red`; a classifier needs two or more",
    );
}

#[test]
fn an_infinite_feature() {
    check(
        &[("a.csv", b"x,t\n1,red\ninf,blue\n3,red\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: column `x` is infinite in row 2; leave such rows out",
    );
}

#[test]
fn a_feature_that_is_nan() {
    check(
        &[("a.csv", b"x,t\n1.0,red\nNaN,blue\n3.0,red\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: column `x` is NaN in row 2; put a `prepare` stage with `impute` before `train`",
    );
}

#[test]
fn a_null_in_a_feature() {
    check(
        &[("a.csv", b"x,t\n1,red\n,blue\n3,red\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: column `x` is null in row 2; put a `prepare` stage with `impute` before `train`",
    );
}

#[test]
fn a_null_in_the_target() {
    check(
        &[("a.csv", b"x,t\n1,red\n2,\n3,red\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: target `t` is null in row 2; leave such rows out",
    );
}

#[test]
fn a_null_in_the_target_of_a_regression() {
    check(
        &[("a.csv", b"x,y\n1,1.5\n2,\n3,4.5\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "y"
model = { algorithm = "linear_regression" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: target `y` is null in row 2; leave such rows out",
    );
}

#[test]
fn more_clusters_than_rows() {
    check(
        &[("a.csv", b"x,y\n1,2\n2,3\n3,4\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
model = { algorithm = "kmeans", clusters = 5 }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: kmeans asks for 5 clusters, the data have 3 distinct rows",
    );
}

#[test]
fn a_number_target_of_a_classification() {
    check(
        &[("a.csv", b"x,y,t\n1,1.5,red\n2,3.0,blue\n3,4.5,red\n4,6.0,blue\n5,7.5,red\n6,9.0,blue\n7,10.5,red\n8,12.0,blue\n9,13.5,red\n10,15.0,blue\n11,16.5,red\n12,18.0,blue\n")],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "y"
model = { algorithm = "logistic" }

[stages.below]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
"#,
        "fit",
        "train: column `t` is str, expected a number or a bool; put a `prepare` stage with `one_hot` before `train`",
    );
}

#[test]
fn a_metric_of_another_task() {
    check(
        &[
            (
                "a.csv",
                b"x,t\n1,red\n2,blue\n3,red\n4,blue\n5,red\n6,blue\n7,red\n8,blue\n9,red\n10,blue\n11,red\n12,blue\n",
            ),
            (
                "c.csv",
                b"x,t\n1,red\n2,blue\n3,red\n4,blue\n5,red\n6,blue\n7,red\n8,blue\n9,red\n10,blue\n11,red\n12,blue\n",
            ),
        ],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.c]
uses = "read"
path = "c.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "c" }
metrics = ["rmse"]

[stages.board]
uses = "compare"
gather = "scored.metrics"
"#,
        "scored",
        "evaluate: `rmse` does not fit a classification model; these do: `roc_auc`, `f1`, `accuracy`, `log_loss`, `precision`, `recall`",
    );
}

#[test]
fn a_class_metric_of_a_regression() {
    check(
        &[
            (
                "a.csv",
                b"x,y\n1,1.5\n2,3.0\n3,4.5\n4,6.0\n5,7.5\n6,9.0\n7,10.5\n8,12.0\n9,13.5\n10,15.0\n11,16.5\n12,18.0\n",
            ),
            (
                "c.csv",
                b"x,y\n1,1.5\n2,3.0\n3,4.5\n4,6.0\n5,7.5\n6,9.0\n7,10.5\n8,12.0\n9,13.5\n10,15.0\n11,16.5\n12,18.0\n",
            ),
        ],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.c]
uses = "read"
path = "c.csv"

[stages.fit]
uses = "train"
input = "a"
target = "y"
model = { algorithm = "linear_regression" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "c" }
metrics = ["accuracy"]

[stages.board]
uses = "compare"
gather = "scored.metrics"
"#,
        "scored",
        "evaluate: `accuracy` does not fit a regression model; these do: `r2`, `rmse`, `mae`, `mse`",
    );
}

#[test]
fn an_area_under_a_curve_of_one_class() {
    check(
        &[
            (
                "a.csv",
                b"x,t\n1,red\n2,blue\n3,red\n4,blue\n5,red\n6,blue\n7,red\n8,blue\n9,red\n10,blue\n11,red\n12,blue\n",
            ),
            ("c.csv", b"x,t\n1,red\n2,red\n"),
        ],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.c]
uses = "read"
path = "c.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "c" }
metrics = ["roc_auc"]

[stages.board]
uses = "compare"
gather = "scored.metrics"
"#,
        "scored",
        "evaluate: `roc_auc` is undefined: every row has the class `red` of `t`",
    );
}

#[test]
fn evaluation_data_without_the_target() {
    check(
        &[
            (
                "a.csv",
                b"x,t\n1,red\n2,blue\n3,red\n4,blue\n5,red\n6,blue\n7,red\n8,blue\n9,red\n10,blue\n11,red\n12,blue\n",
            ),
            ("c.csv", b"x,z\n1,red\n2,red\n"),
        ],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.c]
uses = "read"
path = "c.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "c" }


[stages.board]
uses = "compare"
gather = "scored.metrics"
"#,
        "scored",
        "evaluate: there is no column `t`; the columns are `x`, `z`",
    );
}

#[test]
fn evaluation_data_without_a_feature() {
    check(
        &[
            (
                "a.csv",
                b"x,t\n1,red\n2,blue\n3,red\n4,blue\n5,red\n6,blue\n7,red\n8,blue\n9,red\n10,blue\n11,red\n12,blue\n",
            ),
            ("c.csv", b"z,t\n1,red\n2,blue\n"),
        ],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.c]
uses = "read"
path = "c.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "c" }


[stages.board]
uses = "compare"
gather = "scored.metrics"
"#,
        "scored",
        "evaluate: there is no column `x`; the columns are `z`, `t`",
    );
}

#[test]
fn a_class_that_the_model_does_not_know() {
    check(
        &[
            (
                "a.csv",
                b"x,t\n1,red\n2,blue\n3,red\n4,blue\n5,red\n6,blue\n7,red\n8,blue\n9,red\n10,blue\n11,red\n12,blue\n",
            ),
            ("c.csv", b"x,t\n1,red\n2,green\n"),
        ],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.c]
uses = "read"
path = "c.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "c" }


[stages.board]
uses = "compare"
gather = "scored.metrics"
"#,
        "scored",
        "evaluate: `roc_auc` is undefined: the target `t` has the class `green` in row 2, which the model never saw",
    );
}

#[test]
fn a_positive_class_that_is_not_there() {
    check(
        &[
            (
                "a.csv",
                b"x,t\n1,red\n2,blue\n3,red\n4,blue\n5,red\n6,blue\n7,red\n8,blue\n9,red\n10,blue\n11,red\n12,blue\n",
            ),
            (
                "c.csv",
                b"x,t\n1,red\n2,blue\n3,red\n4,blue\n5,red\n6,blue\n7,red\n8,blue\n9,red\n10,blue\n11,red\n12,blue\n",
            ),
        ],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.c]
uses = "read"
path = "c.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "c" }
positive = "green"

[stages.board]
uses = "compare"
gather = "scored.metrics"
"#,
        "scored",
        "evaluate: `positive` is \"green\", the classes are \"blue\" and \"red\"",
    );
}

#[test]
fn a_table_sorted_by_a_metric_that_is_not_there() {
    check(
        &[(
            "a.csv",
            b"x,t\n1,red\n2,blue\n3,red\n4,blue\n5,red\n6,blue\n7,red\n8,blue\n9,red\n10,blue\n11,red\n12,blue\n",
        )],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
metrics = ["accuracy"]

[stages.board]
uses = "compare"
gather = "scored.metrics"
by = "f1"
"#,
        "board",
        "compare: the evaluation has no metric `f1`; it has `accuracy`",
    );
}

#[test]
fn repeats_over_an_axis_that_is_not_there() {
    check(
        &[(
            "a.csv",
            b"x,t\n1,red\n2,blue\n3,red\n4,blue\n5,red\n6,blue\n7,red\n8,blue\n9,red\n10,blue\n11,red\n12,blue\n",
        )],
        r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.fit]
uses = "train"
input = "a"
target = "t"
model = { algorithm = "logistic" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "a" }
metrics = ["accuracy"]

[stages.board]
uses = "compare"
gather = "scored.metrics"
repeats = ["fold"]
"#,
        "board",
        "compare: `repeats` names `fold`; there are no axes",
    );
}

const PREPARED: &str = r#"[stages.a]
uses = "read"
path = "a.csv"

[stages.split]
uses = "split"
input = "a"

[stages.ready]
uses = "prepare"
input = "split"
target = "y"
steps = [{ scale = "standard" }]

[stages.fit]
uses = "train"
inputs = { train = "TRAIN", transform = "ready.transform" }
model = { algorithm = "linear_regression" }

[stages.scored]
uses = "evaluate"
inputs = { model = "fit", data = "DATA" }

[stages.board]
uses = "compare"
gather = "scored.metrics"
"#;

const TEN_ROWS: &[u8] = b"x,y\n1,1.5\n2,3\n3,4.5\n4,6\n5,7.5\n6,9\n7,10.5\n8,12\n9,13.5\n10,15\n";

#[test]
fn a_model_scored_on_data_that_were_not_prepared() {
    check(
        &[("a.csv", TEN_ROWS)],
        &PREPARED.replace("TRAIN", "ready.train").replace("DATA", "split.test"),
        "scored",
        "evaluate: the frame `data` was not prepared, and the model was trained behind a transform; wire what the model's \
         `prepare` stage gave: `data = \"prepare.test\"`",
    );
    let project = Project::with(&PREPARED.replace("TRAIN", "ready.train").replace("DATA", "ready.test"));
    project.write("a.csv", TEN_ROWS);
    assert_eq!(project.run(&[]).done.code, 0);
}

#[test]
fn a_model_trained_on_data_that_its_transform_did_not_prepare() {
    check(
        &[("a.csv", TEN_ROWS)],
        &PREPARED.replace("TRAIN", "split.train").replace("DATA", "ready.test"),
        "fit",
        "train: a transform is wired, the frame `train` was not prepared by it; wire both from one `prepare` stage: \
         `train = \"prepare.train\", transform = \"prepare.transform\"`",
    );
}
