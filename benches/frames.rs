//! What a large stored frame costs: to open it, to use 3 of its 100 columns, to use all of them, beside hashing the same
//! bytes and beside reading them into memory. Each figure is of a process of its own, turn by turn in one run, medians.
//!
//! Usage: `cargo bench --bench frames -- [MEGABYTES] [ROUNDS]`. The frame lies in a temporary folder, in the page cache.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::hint::black_box;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use headwater::catalog::{self, FRAME};
use headwater_cache::{Artifact, Entry, Shape, Store, Tree};
use headwater_stages::collect::{ReadConfig, read_frame};
use headwater_stages::frame::{self, Schema};
use headwater_stages::io::{Draft, Stored};

type Done<T> = Result<T, Box<dyn Error>>;

const COLUMNS: usize = 100;
/// What is measured, in the order of the table; the ratios are to the first.
const WHATS: [&str; 6] = ["hash", "get", "open", "three", "all", "again"];

fn main() -> Done<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [what, store, digest] = arguments.as_slice() {
        return measure(what, Path::new(store), digest);
    }
    let number = |at: usize, default: usize| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let (megabytes, rounds) = (number(0, 1000)?, number(1, 5)?);
    let folder = tempfile::tempdir()?;
    let artifact = store_frame(folder.path(), megabytes * 1_000_000 / 8 / COLUMNS)?;
    println!("{} bytes in {COLUMNS} columns", artifact.bytes);
    let mut found: BTreeMap<&str, Vec<Measured>> = BTreeMap::new();
    for what in (0..rounds).flat_map(|_| WHATS) {
        found.entry(what).or_default().push(in_a_process(what, folder.path(), &artifact)?);
    }
    report(found);
    Ok(())
}

/// Milliseconds, and growth of the process in bytes: all, without mapped files, and what was read.
type Measured = [f64; 4];

fn report(mut found: BTreeMap<&str, Vec<Measured>>) {
    let mut median = |what: &str, figure: usize| {
        let all = found.get_mut(what).expect("was measured");
        all.sort_by(|one, other| one[figure].total_cmp(&other[figure]));
        all[all.len() / 2][figure]
    };
    let whole = median("hash", 0);
    for what in WHATS {
        let [milliseconds, resident, anonymous, read] = [0, 1, 2, 3].map(|figure| median(what, figure));
        println!(
            "{what:<6} {milliseconds:>9.2} ms  ratio {:>7.4}  grows by {:>7.1} MB, {:>7.1} MB of it its own  reads {:>7.1} MB",
            milliseconds / whole,
            resident / 1e6,
            anonymous / 1e6,
            read / 1e6
        );
    }
}

/// Stores a frame of floats, a column at a time.
fn store_frame(folder: &Path, rows: usize) -> Done<Artifact> {
    let store = Store::open(folder)?;
    let mut tree = Tree { header: format!("rows {rows}"), entries: Vec::new() };
    for column in 0..COLUMNS {
        let name = format!("c{column:03}");
        let lines: String = (0..rows).map(|row| format!("{:.3}\n", row as f64 * 0.37 + column as f64)).collect();
        let frame = read_frame(&ReadConfig::of_path("a.csv")?, format!("{name}\n{lines}").as_bytes())?;
        let draft = Draft::tree(FRAME, frame::encode(&frame)?);
        let bytes = draft.entry(&name)?;
        let (type_name, digest) = (draft.entries()[0].type_name.clone(), store.put(&bytes)?);
        tree.entries.push(Entry { name, type_name, shape: Shape::Blob, digest, bytes: bytes.len() as u64 });
    }
    let (bytes, digest) = (tree.bytes(), store.put_tree(&tree)?);
    store.commit()?;
    Ok(Artifact { type_name: FRAME.into(), shape: Shape::Tree, digest, bytes })
}

fn in_a_process(what: &str, store: &Path, artifact: &Artifact) -> Done<Measured> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg(what).arg(store).arg(artifact.digest.to_string()).output()?;
    let text = String::from_utf8(output.stdout)?;
    let figures: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
    figures?.try_into().map_err(|_| String::from_utf8_lossy(&output.stderr).into_owned().into())
}

/// Does one thing and prints what it took.
fn measure(what: &str, root: &Path, digest: &str) -> Done<()> {
    let store = Arc::new(Store::open(root)?);
    let artifact = Artifact { type_name: FRAME.into(), shape: Shape::Tree, digest: digest.parse()?, bytes: 0 };
    if what == "again" {
        black_box(used(&*catalog::open(&store, &artifact)?, COLUMNS)?);
    }
    let (begun, before) = (Instant::now(), [status("VmRSS:")?, status("RssAnon:")?, read_so_far()?]);
    let after = |begun: Instant| -> Done<Measured> {
        let milliseconds = begun.elapsed().as_secs_f64() * 1e3;
        Ok([milliseconds, status("VmRSS:")?, status("RssAnon:")?, read_so_far()?])
    };
    let after = match what {
        "hash" => {
            hash(root, &store, &artifact)?;
            after(begun)?
        }
        "get" => {
            let tree = store.get_tree(&artifact.digest)?;
            let all = tree.entries.iter().map(|entry| store.get(&entry.digest)).collect::<Result<Vec<_>, _>>()?;
            let after = after(begun)?;
            black_box(all);
            after
        }
        _ => {
            let stored = catalog::open(&store, &artifact)?;
            black_box(Schema::of(&*stored)?);
            let count = [("open", 0), ("three", 3)].into_iter().find(|(name, _)| *name == what);
            let held = used(&*stored, count.map_or(COLUMNS, |(_, count)| count))?;
            let after = after(begun)?;
            black_box(held);
            after
        }
    };
    let [milliseconds, growth @ ..] = after;
    print!("{milliseconds}");
    growth.iter().zip(before).for_each(|(after, before)| print!(" {}", after - before));
    Ok(())
}

/// Decodes columns and adds up every value of them; gives what keeps them in use.
fn used(stored: &dyn Stored, count: usize) -> Done<impl Sized> {
    let names: Vec<String> = Schema::of(stored)?.names().into_iter().take(count).collect();
    let frame = frame::decode_columns(stored, &names)?;
    for column in frame.columns() {
        black_box(column.f64()?.cont_slice()?.iter().sum::<f64>());
    }
    Ok(frame)
}

/// The least that verifying takes: each file once through the hash.
fn hash(root: &Path, store: &Store, artifact: &Artifact) -> Done<()> {
    let mut buffer = vec![0; 1 << 20];
    for entry in &store.get_tree(&artifact.digest)?.entries {
        let text = entry.digest.to_string();
        let mut file = fs::File::open(root.join("blobs").join(&text[..2]).join(&text[2..]))?;
        let mut hasher = blake3::Hasher::new();
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            };
        }
        assert_eq!(hasher.finalize().to_hex().as_str(), text);
    }
    Ok(())
}

/// A line of `/proc/self/status`, in bytes.
fn status(name: &str) -> Done<f64> {
    let text = fs::read_to_string("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).ok_or("no such line")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse::<f64>()? * 1024.0)
}

/// How many bytes this process has read by system calls.
fn read_so_far() -> Done<f64> {
    let text = fs::read_to_string("/proc/self/io")?;
    let line = text.lines().find_map(|line| line.strip_prefix("rchar:")).ok_or("no such line")?;
    Ok(line.trim().parse()?)
}
