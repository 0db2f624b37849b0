//! A claim of another process. Alone in a process of its own, which starts one: between its beginning and its program
//! a child has copies of all locks, so that those of other tests would seem to be held still.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use headwater_cache::{Claims, Digest};

/// Names the store in which the other process claims a key.
const CHILD: &str = "HEADWATER_CLAIM_IN";

fn key() -> Digest {
    Digest::of(b"key")
}

/// Not a test of its own: the other process of the next one.
#[test]
fn claims_for_another_test() {
    let Some(root) = std::env::var_os(CHILD) else { return };
    let _claim = Claims::new(Path::new(&root)).try_claim(&key()).unwrap().expect("it is free");
    println!("\nclaimed");
    loop {
        thread::park();
    }
}

fn process_that_claims(root: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "claims_for_another_test", "--nocapture"])
        .env(CHILD, root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line == "claimed"));
    child
}

#[test]
fn the_death_of_a_process_ends_its_claims() {
    let root = tempfile::tempdir().unwrap();
    let mut child = process_that_claims(root.path());
    let claims = Claims::new(root.path());
    assert!(claims.try_claim(&key()).unwrap().is_none());
    let waiter = thread::spawn(move || claims.wait(&key()).map(drop));
    child.kill().unwrap();
    waiter.join().unwrap().unwrap();
    child.wait().unwrap();
}
