//! The harness from the outside: that it does its work is shown by `all --small`; here is what it says when it cannot.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use std::process::{Command, Output};

fn torture(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headwater-torture")).args(arguments).output().expect("it runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_binary_that_is_not_there_is_a_failure_of_the_harness() {
    let output = torture(&["kill", "--headwater", "/nowhere/headwater"]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("/nowhere/headwater"), "{}", said(&output));
}

#[test]
fn a_binary_that_does_nothing_has_not_passed() {
    let output = torture(&["kill", "--count", "1", "--headwater", "/bin/true"]);
    assert_ne!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn a_row_is_wanted() {
    assert_eq!(torture(&[]).status.code(), Some(2));
}
