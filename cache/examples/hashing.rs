//! What `benches/hashing` measures: the file index, folders and the store, one action a run, with its seconds.
//!
//! Usage: `hashing hash FILE… | put STORE FILE… | look INDEX FOLDER`

use std::path::Path;
use std::time::Instant;

use headwater_cache::{FileIndex, Store};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begun = Instant::now();
    let done = match words.as_slice() {
        ["hash", files @ ..] => hash(files),
        ["put", store, files @ ..] => put(store, files),
        ["look", index, folder] => look(index, folder),
        _ => panic!("see the first lines of this file"),
    };
    println!("{:.4} s  {done}", begun.elapsed().as_secs_f64());
}

/// Digests of files that no index knows.
fn hash(files: &[&str]) -> String {
    let index = FileIndex::open(Path::new("/nonexistent/index"));
    let digests = files.iter().map(|file| index.digest(Path::new(file)).expect("a file").digest.to_string());
    digests.collect::<Vec<_>>().join(" ")
}

fn put(store: &str, files: &[&str]) -> String {
    let store = Store::open(Path::new(store)).expect("a store");
    let digests = files.iter().map(|file| store.put_file(Path::new(file)).expect("a put").0.to_string());
    let digests = digests.collect::<Vec<_>>().join(" ");
    // Nothing is durable before.
    store.commit().expect("a commit");
    digests
}

/// Looks at a folder, and keeps what was learned.
fn look(index: &str, folder: &str) -> String {
    let index = FileIndex::open(Path::new(index));
    let files = index.folder(Path::new(folder), &|_| false).expect("a folder");
    let looked = Instant::now();
    index.save().expect("a saved index");
    format!("{} files, saved in {:.4} s", files.len(), looked.elapsed().as_secs_f64())
}
