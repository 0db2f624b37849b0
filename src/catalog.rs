//! The catalog of kinds: a kind's name -> the engine's `Stage`. The only file that knows both engine and stages.
//!
//! It lends the store's bytes to kinds (`Stored`) and stores what they give (`Draft`). Opening an artifact reads its
//! tree alone; an entry is looked at when it is asked for, and a large one is mapped, not copied.
//!
//! Invariant: a kind reads nothing but the entries of its selection, and every byte that it reads is verified against
//! its digest: a mapped one at its first use in a process, any other at each use.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use headwater_cache::{Artifact, Digest, Entry, Shape, Store, StoreError, Tree, Verified};
use headwater_engine::{
    Bound, Failure, InputPort, InputPorts, Job, OutputPort, Presence, Selection, Stage, manifest::selects,
};
use headwater_stages::StageError;
use headwater_stages::collect::{Read, write_frame};
use headwater_stages::evaluate::{Compare, Evaluate};
use headwater_stages::frame::{ROWS, Schema};
use headwater_stages::io::{Bytes, Content, Draft, EntryHead, Inputs, Outputs, Stored};
use headwater_stages::kind::{self, Kind, artifact};
use headwater_stages::mapped::Mapped;
use headwater_stages::prepare::{Prepare, Split, Sql};
use headwater_stages::train::Train;
use serde_json::Value as Json;

use crate::pipeline::blame::ConfigError;
use crate::pipeline::value::Value;
use crate::project::Project;

/// One kind, as data.
pub struct KindEntry {
    pub name: &'static str,
    /// The JSON Schema of its configuration.
    pub schema: fn() -> schemars::Schema,
    /// A configuration -> a stage.
    pub build: fn(&Value, &Arc<Project>) -> Result<Built, ConfigError>,
}

/// A stage, and the files of the project that its configuration names, by port.
pub struct Built {
    pub stage: Stage,
    pub files: Vec<(String, String)>,
}

/// The type of tables.
pub const FRAME: &str = artifact::FRAME;

/// Why no frame can be written to a path of this name, if that is so.
pub fn unwritable(path: &str) -> Option<String> {
    match write_frame(&Default::default(), path) {
        Err(StageError::Config { detail }) => Some(detail),
        // An empty frame fits into every form.
        Ok(_) | Err(_) => None,
    }
}

/// Every kind. A new one is one file and one line here.
pub const KINDS: [KindEntry; 7] = [
    entry::<Read>(),
    entry::<Sql>(),
    entry::<Split>(),
    entry::<Prepare>(),
    entry::<Train>(),
    entry::<Evaluate>(),
    entry::<Compare>(),
];

/// The kind of this name.
pub fn find(name: &str) -> Option<&'static KindEntry> {
    KINDS.iter().find(|kind| kind.name == name)
}

const fn entry<K: Kind>() -> KindEntry {
    KindEntry { name: K::NAME, schema: schema::<K>, build: build::<K> }
}

fn schema<K: Kind>() -> schemars::Schema {
    schemars::schema_for!(K::Config)
}

fn build<K: Kind>(config: &Value, project: &Arc<Project>) -> Result<Built, ConfigError> {
    let config = Arc::new(config.read::<K::Config>()?);
    let canonical = serde_json::to_value(&*config).map_err(serde::de::Error::custom)?;
    let ports = K::ports(&config);
    let (for_reads, for_run, project) = (config.clone(), config, project.clone());
    let names: Vec<&'static str> = ports.outputs.iter().map(|port| port.name).collect();
    let stage = Stage {
        kind: K::NAME.into(),
        version: K::VERSION,
        config: flatten(&canonical),
        inputs: input_ports(&ports.inputs),
        outputs: ports.outputs.iter().map(output_port).collect(),
        reads: Arc::new(move |bound| selections::<K>(&for_reads, bound)),
        run: Arc::new(move |job| execute::<K>(&for_run, &names, job, &project)),
        outs: None,
    };
    Ok(Built { stage, files: file_ports(&ports.inputs) })
}

fn input_ports(ports: &kind::InputPorts) -> InputPorts {
    match ports {
        kind::InputPorts::Named { type_name } => InputPorts::Named { type_name: (*type_name).into() },
        kind::InputPorts::Fixed(ports) => InputPorts::Fixed(ports.iter().map(input_port).collect()),
    }
}

fn input_port(port: &kind::InputPort) -> InputPort {
    let presence = match port.from {
        kind::From::Stage | kind::From::File(_) => Presence::Required,
        kind::From::StageIfWired => Presence::Optional,
        kind::From::Gather => Presence::Gathered,
    };
    InputPort { name: port.name.into(), type_name: Some(port.type_name.into()), presence }
}

fn output_port(port: &kind::OutputPort) -> OutputPort {
    OutputPort { name: port.name.into(), type_name: port.type_name.into(), passes: port.passes.map(Into::into) }
}

fn file_ports(ports: &kind::InputPorts) -> Vec<(String, String)> {
    let kind::InputPorts::Fixed(ports) = ports else { return Vec::new() };
    let file = |port: &kind::InputPort| match &port.from {
        kind::From::File(path) => Some((port.name.to_owned(), path.clone())),
        _ => None,
    };
    ports.iter().filter_map(file).collect()
}

/// A configuration as labelled lines: `model.l2` -> `1.0`. Keys are sorted, arrays numbered.
pub fn flatten(config: &Json) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    flatten_into(String::new(), config, &mut lines);
    lines
}

fn flatten_into(label: String, value: &Json, lines: &mut Vec<(String, String)>) {
    let below = |key: &str| if label.is_empty() { key.to_owned() } else { format!("{label}.{key}") };
    match value {
        Json::Object(map) if !map.is_empty() => {
            let sorted: BTreeMap<&String, &Json> = map.iter().collect();
            for (key, value) in sorted {
                flatten_into(below(key), value, lines);
            }
        }
        Json::Array(values) if !values.is_empty() => {
            for (at, value) in values.iter().enumerate() {
                flatten_into(below(&at.to_string()), value, lines);
            }
        }
        Json::Null if !label.is_empty() => {}
        leaf => {
            if !(label.is_empty() && leaf.as_object().is_some()) {
                lines.push((label, leaf.to_string()));
            }
        }
    }
}

fn selections<K: Kind>(config: &K::Config, bound: &[Bound]) -> Result<Vec<Selection>, Failure> {
    let mut schemas = BTreeMap::new();
    for input in bound.iter().filter(|input| input.artifact.type_name == artifact::FRAME) {
        let Some(tree) = &input.tree else { continue };
        let schema = Schema::new(&tree.header, &heads(tree, &Selection::All)).map_err(Failure::new)?;
        schemas.insert(input.port.clone(), schema);
    }
    let selected = K::reads(config, &schemas);
    let selection = |input: &Bound| match selected.get(&input.port) {
        Some(kind::Selection::Only(names)) => Selection::Only(names.iter().cloned().chain([ROWS.to_owned()]).collect()),
        Some(kind::Selection::All) | None => Selection::All,
    };
    Ok(bound.iter().map(selection).collect())
}

fn heads(tree: &Tree, selection: &Selection) -> Vec<EntryHead> {
    let head = |entry: &Entry| EntryHead { name: entry.name.clone(), type_name: entry.type_name.clone() };
    tree.entries.iter().filter(|entry| selects(selection, &entry.name)).map(head).collect()
}

fn execute<K: Kind>(
    config: &K::Config,
    names: &[&'static str],
    job: &Job<'_>,
    project: &Arc<Project>,
) -> Result<Vec<Artifact>, Failure> {
    let lost = Arc::new(Mutex::new(None));
    let mut inputs = Inputs::default();
    for bound in job.inputs {
        inputs.add(bound.port.clone(), bound.label.clone(), lend(job.store, bound, project, &lost));
    }
    let mut outputs = Outputs::default();
    let result = K::run(config, &inputs, &mut outputs);
    if let Some(digest) = lost.lock().expect("no panic happens while it is held").take() {
        return Err(Failure::Lost(digest));
    }
    result.map_err(Failure::new)?;
    let mut drafts = outputs.into_drafts();
    let mut stored = Vec::with_capacity(names.len());
    for name in names {
        let draft =
            drafts.remove(name).ok_or_else(|| Failure::new(format!("`{}` gave no output `{name}`", K::NAME)))?;
        stored.push(store_draft(job.store, draft)?);
    }
    Ok(stored)
}

/// Stores what a kind gave.
fn store_draft(store: &Store, draft: Draft) -> Result<Artifact, Failure> {
    let type_name = draft.type_name.to_owned();
    match draft.content {
        Content::Blob(bytes) => {
            let digest = store.put(&bytes)?;
            Ok(Artifact { type_name, shape: Shape::Blob, digest, bytes: bytes.len() as u64 })
        }
        Content::Tree(tree) => {
            let header = tree.header.clone();
            let mut entries = Vec::new();
            for (head, bytes) in tree.into_entries() {
                let digest = store.put(&bytes)?;
                let (name, type_name) = (head.name, head.type_name);
                entries.push(Entry { name, type_name, shape: Shape::Blob, digest, bytes: bytes.len() as u64 });
            }
            let tree = Tree { header, entries };
            let digest = store.put_tree(&tree)?;
            Ok(Artifact { type_name, shape: Shape::Tree, digest, bytes: tree.bytes() })
        }
    }
}

/// Lends an artifact of the store to a kind, or to a command that shows it.
pub fn open(store: &Arc<Store>, artifact: &Artifact) -> Result<Arc<dyn Stored>, StoreError> {
    Ok(Arc::new(Lent::whole(store, artifact)?))
}

/// Reads an artifact of the store with what reads a kind's inputs; bytes that are gone or damaged are a lost input.
///
/// # Errors
/// [`Failure::Lost`], or what `read` finds wrong.
pub fn read<T>(
    store: &Arc<Store>,
    artifact: &Artifact,
    read: impl FnOnce(&dyn Stored) -> Result<T, StageError>,
) -> Result<T, Failure> {
    let lent = Lent::whole(store, artifact)?;
    let result = read(&lent);
    match lent.lost.lock().expect("no panic happens while it is held").take() {
        Some(digest) => Err(Failure::Lost(digest)),
        None => result.map_err(Failure::new),
    }
}

/// Lends an input to a kind.
fn lend(
    store: &Arc<Store>,
    bound: &Bound,
    project: &Arc<Project>,
    lost: &Arc<Mutex<Option<Digest>>>,
) -> Arc<dyn Stored> {
    if let Some(path) = &bound.path {
        let (path, digest) = (project.root.join(path), bound.artifact.digest);
        return Arc::new(ProjectFile { path, shown: path_text(bound), digest });
    }
    let tree = bound.tree.clone();
    let heads = tree.as_ref().map(|tree| heads(tree, &bound.selection)).unwrap_or_default();
    Arc::new(Lent { store: store.clone(), artifact: bound.artifact.clone(), tree, heads, lost: lost.clone() })
}

fn path_text(bound: &Bound) -> String {
    bound.path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
}

/// An artifact of the store, within a selection.
struct Lent {
    store: Arc<Store>,
    artifact: Artifact,
    tree: Option<Arc<Tree>>,
    heads: Vec<EntryHead>,
    /// Where a missing or damaged blob is noted, so that its producer can run again.
    lost: Arc<Mutex<Option<Digest>>>,
}

impl Lent {
    fn whole(store: &Arc<Store>, artifact: &Artifact) -> Result<Self, StoreError> {
        let tree = match artifact.shape {
            Shape::Tree => Some(store.get_tree(&artifact.digest)?),
            Shape::Blob => None,
        };
        let heads = tree.as_ref().map(|tree| heads(tree, &Selection::All)).unwrap_or_default();
        let lost = Arc::new(Mutex::new(None));
        Ok(Self { store: store.clone(), artifact: artifact.clone(), tree, heads, lost })
    }

    fn read(&self, digest: &Digest, name: &str) -> Result<Bytes, StageError> {
        let verified = self.store.open_verified(digest).and_then(|verified| bytes(&self.store, digest, verified));
        verified.map_err(|error| {
            if let Some(digest) = error.lost() {
                *self.lost.lock().expect("no panic happens while it is held") = Some(digest);
            }
            StageError::Unreadable { entry: name.into(), detail: error.to_string() }
        })
    }
}

/// A blob as memory. Where no file can be mapped (the file system cannot, the process has too many, or a copied store
/// has lost its write protection), it is read.
fn bytes(store: &Store, digest: &Digest, verified: Verified) -> Result<Bytes, StoreError> {
    match verified {
        Verified::Read(bytes) => Ok(bytes.into()),
        Verified::File(file) => Mapped::new(&file).map(Bytes::from).or_else(|_| store.get(digest).map(Bytes::from)),
    }
}

impl Stored for Lent {
    fn header(&self) -> &str {
        self.tree.as_ref().map_or("", |tree| &tree.header)
    }

    fn entries(&self) -> &[EntryHead] {
        &self.heads
    }

    fn length(&self) -> u64 {
        self.tree.as_ref().map_or(self.artifact.bytes, |tree| tree.bytes())
    }

    fn entry(&self, name: &str) -> Result<Bytes, StageError> {
        let selected = self.heads.iter().any(|head| head.name == name);
        let entry = self.tree.as_ref().filter(|_| selected).and_then(|tree| tree.entry(name));
        let entry = entry.ok_or_else(|| StageError::NoEntry { entry: name.into() })?;
        self.read(&entry.digest, name)
    }

    fn blob(&self) -> Result<Bytes, StageError> {
        if self.tree.is_some() {
            return Err(StageError::NotABlob { type_name: self.artifact.type_name.clone() });
        }
        self.read(&self.artifact.digest, &self.artifact.type_name)
    }
}

/// A file of the project, which is in no store; it must still be what the key was made from.
struct ProjectFile {
    path: std::path::PathBuf,
    shown: String,
    digest: Digest,
}

impl Stored for ProjectFile {
    fn header(&self) -> &str {
        ""
    }

    fn entries(&self) -> &[EntryHead] {
        &[]
    }

    fn length(&self) -> u64 {
        std::fs::metadata(&self.path).map_or(0, |found| found.len())
    }

    fn entry(&self, name: &str) -> Result<Bytes, StageError> {
        Err(StageError::NoEntry { entry: name.into() })
    }

    fn blob(&self) -> Result<Bytes, StageError> {
        let unreadable = |detail: String| StageError::Unreadable { entry: self.shown.clone(), detail };
        let bytes = std::fs::read(&self.path).map_err(|error| match error.kind() {
            std::io::ErrorKind::IsADirectory => unreadable("it is a folder, expected a file".into()),
            _ => unreadable(error.to_string()),
        })?;
        if Digest::of(&bytes) != self.digest {
            return Err(unreadable("it changed while it was read".into()));
        }
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use std::path::{Path, PathBuf};

    use headwater_cache::disk::{FailingDisk, RealDisk};
    use headwater_stages::collect::{ReadConfig, read_frame};
    use headwater_stages::frame;

    use super::*;

    /// Enough for columns that are mapped.
    const ROWS: usize = 20_000;

    struct Bench {
        folder: tempfile::TempDir,
        store: Arc<Store>,
        /// The blobs of which bytes were read, a call a line.
        reads: Arc<Mutex<Vec<PathBuf>>>,
    }

    impl Bench {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let reads = Arc::new(Mutex::new(Vec::new()));
            let seen = reads.clone();
            let disk = FailingDisk::new(Arc::new(RealDisk), move |call| {
                if call.operation == "read_at" {
                    seen.lock().expect("no panic").push(call.path.clone());
                }
                None
            });
            let store = Arc::new(Store::open_on(Arc::new(disk), folder.path()).expect("a store"));
            Self { folder, store, reads }
        }

        /// A frame of three columns, and the digests of those.
        fn frame(&self) -> (Artifact, Vec<Digest>) {
            let lines: String = (0..ROWS).map(|row| format!("{row},{},text {row}\n", row as f64 / 7.0)).collect();
            let config = ReadConfig::of_path("a.csv").expect("a table");
            let frame = read_frame(&config, format!("i,f,t\n{lines}").as_bytes()).expect("reads");
            let draft = Draft::tree(FRAME, frame::encode(&frame).expect("encodes"));
            let artifact = store_draft(&self.store, draft).expect("stores");
            self.store.commit().expect("durable");
            let tree = self.store.get_tree(&artifact.digest).expect("a tree");
            let columns: Vec<Digest> = tree.entries.iter().map(|entry| entry.digest).collect();
            assert!(tree.entries.iter().all(|entry| entry.bytes > 64 << 10), "columns are large enough to be mapped");
            (artifact, columns)
        }

        fn blob(&self, digest: &Digest) -> PathBuf {
            let text = digest.to_string();
            self.folder.path().join("blobs").join(&text[..2]).join(&text[2..])
        }

        /// The blobs that `call` reads, without repetitions.
        fn read_by(&self, call: impl FnOnce()) -> Vec<PathBuf> {
            self.reads.lock().expect("no panic").clear();
            call();
            let mut reads = self.reads.lock().expect("no panic").clone();
            reads.sort();
            reads.dedup();
            reads
        }
    }

    fn rewrite(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = fs::read(path).expect("reads");
        change(&mut bytes);
        fs::remove_file(path).expect("removes");
        fs::write(path, bytes).expect("writes");
    }

    fn column(stored: &dyn Stored, name: &str) -> Result<Vec<u8>, StageError> {
        let frame = frame::decode_columns(stored, &[name.to_owned()])?;
        Ok(write_frame(&frame, "a.csv").expect("writes"))
    }

    #[test]
    fn opening_a_frame_reads_no_column_and_using_one_reads_that_one_once() {
        let bench = Bench::new();
        let (artifact, columns) = bench.frame();
        let mut opened = None;
        let reads = bench.read_by(|| opened = open(&bench.store, &artifact).ok());
        assert!(columns.iter().all(|column| !reads.contains(&bench.blob(column))), "{reads:?}");
        let stored = opened.expect("opens");
        assert_eq!(Schema::of(&*stored).expect("a schema").rows, ROWS as u64);
        let reads = bench.read_by(|| drop(column(&*stored, "f").expect("decodes")));
        assert_eq!(reads, [bench.blob(&columns[1])]);
        let reads = bench.read_by(|| drop(column(&*stored, "f").expect("decodes")));
        assert_eq!(reads, <[PathBuf; 0]>::default());
    }

    #[test]
    fn a_damaged_column_is_lost_when_it_is_used_and_the_others_are_not() {
        let bench = Bench::new();
        let (artifact, columns) = bench.frame();
        rewrite(&bench.blob(&columns[2]), |bytes| bytes[ROWS] ^= 1);
        read(&bench.store, &artifact, |stored| column(stored, "f")).expect("is whole");
        let failure = read(&bench.store, &artifact, |stored| column(stored, "t")).expect_err("is damaged");
        assert!(matches!(failure, Failure::Lost(digest) if digest == columns[2]));
    }

    #[test]
    fn a_column_in_use_outlives_the_quarantine_of_its_blob() {
        let bench = Bench::new();
        let (artifact, columns) = bench.frame();
        let stored = open(&bench.store, &artifact).expect("opens");
        let used = frame::decode_columns(&*stored, &["f".to_owned()]).expect("decodes");
        let before = write_frame(&used, "a.csv").expect("writes");
        rewrite(&bench.blob(&columns[1]), |bytes| bytes.fill(0));
        column(&*stored, "f").expect_err("another file lies in the place of the blob");
        assert!(!bench.blob(&columns[1]).exists());
        assert_eq!(write_frame(&used, "a.csv").expect("writes"), before);
    }

    #[test]
    fn a_blob_without_write_protection_is_read() {
        let bench = Bench::new();
        let (artifact, columns) = bench.frame();
        let stored = open(&bench.store, &artifact).expect("opens");
        let mapped = column(&*stored, "f").expect("decodes");
        fs::set_permissions(bench.blob(&columns[1]), Permissions::from_mode(0o644)).expect("sets");
        for _ in 0..2 {
            let reads = bench.read_by(|| assert_eq!(column(&*stored, "f").expect("decodes"), mapped));
            assert_eq!(reads, [bench.blob(&columns[1])]);
        }
    }

    #[test]
    fn a_column_cut_off_after_it_was_verified_is_damage() {
        let bench = Bench::new();
        let (artifact, columns) = bench.frame();
        let stored = open(&bench.store, &artifact).expect("opens");
        column(&*stored, "f").expect("decodes");
        rewrite(&bench.blob(&columns[1]), |bytes| bytes.truncate(100_000));
        let failure = read(&bench.store, &artifact, |stored| column(stored, "f")).expect_err("is damaged");
        assert!(matches!(failure, Failure::Lost(digest) if digest == columns[1]));
    }
}
