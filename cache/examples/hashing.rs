//! What `benches/hashing` measures: the file index, folders and the store, one action a run, with its seconds.
//!
//! Usage: `hashing hash FILE… | put STORE FILE… | look INDEX FOLDER | add INDEX STORE FOLDER`

use std::path::Path;
use std::time::Instant;

use headwater_cache::{FileIndex, Store};

/// As many as a run uses to keep sources.
const WRITERS: usize = 16;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let begun = Instant::now();
    let done = match words.as_slice() {
        ["hash", files @ ..] => hash(files),
        ["put", store, files @ ..] => put(store, files),
        ["look", index, folder] => look(index, folder),
        ["add", index, store, folder] => add(index, store, folder),
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

/// Looks at a folder and puts all its files into the store, as a run does that keeps its sources: durably, and known to the
/// index.
fn add(index: &str, store: &str, folder: &str) -> String {
    let (index, folder) = (FileIndex::open(Path::new(index)), Path::new(folder));
    let store = Store::open(Path::new(store)).expect("a store");
    let files = index.folder_into(&store, folder, &|_| false).expect("a folder");
    std::thread::scope(|scope| {
        for part in files.chunks(files.len().div_ceil(WRITERS).max(1)) {
            scope.spawn(|| {
                part.iter().filter(|file| !store.contains(&file.state.digest)).for_each(|file| {
                    let (digest, _) = store.put_file(&folder.join(&file.name)).expect("a put");
                    assert_eq!(digest, file.state.digest, "it holds still");
                });
            });
        }
    });
    store.commit().expect("a commit");
    index.save().expect("a saved index");
    format!("{} files", files.len())
}

/// Looks at a folder, and keeps what was learned.
fn look(index: &str, folder: &str) -> String {
    let index = FileIndex::open(Path::new(index));
    let files = index.folder(Path::new(folder), &|_| false).expect("a folder");
    let looked = Instant::now();
    index.save().expect("a saved index");
    format!("{} files, saved in {:.4} s", files.len(), looked.elapsed().as_secs_f64())
}
