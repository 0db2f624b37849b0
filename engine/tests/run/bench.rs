//! A store in a folder that ends with the test, sources in memory, a clock that stands still, and stages made of
//! closures. What a run did is told by its events.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use headwater_cache::disk::{Disk, RealDisk};
use headwater_cache::{Artifact, Claims, Digest, Entry, Ledger, Shape, Store, Tree};
use headwater_engine::manifest::{Manifest, selects};
use headwater_engine::run::SourceState;
use headwater_engine::{
    Bound, Clock, Event, Failure, Finish, Graph, InputPort, InputPorts, Job, Key, Node, NodeId, Options, Outcome,
    OutputPort, Outs, Presence, Preview, Reason, Request, RunError, Selection, Session, SourceError, Sources, Stage,
    Summary, Wire, WireFrom,
};

/// The project's files; a folder is all paths below it.
#[derive(Default)]
pub struct Files(Mutex<BTreeMap<PathBuf, String>>);

impl Files {
    pub fn set(&self, path: &str, content: &str) {
        self.0.lock().unwrap().insert(path.into(), content.into());
    }

    pub fn remove(&self, path: &str) {
        self.0.lock().unwrap().remove(Path::new(path));
    }

    pub fn read(&self, path: &Path) -> Option<String> {
        self.0.lock().unwrap().get(path).cloned()
    }

    fn folder(&self, folder: &Path, without: &[PathBuf]) -> Vec<Entry> {
        let files = self.0.lock().unwrap();
        let within = files.iter().filter(|(path, _)| path.starts_with(folder) && !without.contains(path));
        let entry = |(path, content): (&PathBuf, &String)| {
            let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            let blob = blob(content);
            Entry { name, type_name: blob.type_name, shape: blob.shape, digest: blob.digest, bytes: blob.bytes }
        };
        within.map(entry).collect()
    }
}

impl Sources for Files {
    fn look(&self, path: &Path, without: &[PathBuf]) -> Result<SourceState, SourceError> {
        if let Some(content) = self.read(path) {
            return Ok(SourceState { artifact: blob(&content), tree: None });
        }
        let tree = Tree { header: String::new(), entries: self.folder(path, without) };
        if tree.entries.is_empty() {
            return Err(SourceError(format!("there is no file {}", path.display())));
        }
        let digest = Digest::of(&tree.encode().unwrap());
        let artifact = Artifact { type_name: "directory".into(), shape: Shape::Tree, digest, bytes: tree.bytes() };
        Ok(SourceState { artifact, tree: Some(Arc::new(tree)) })
    }
}

/// The artifact of a text.
pub fn blob(content: &str) -> Artifact {
    let digest = Digest::of(content.as_bytes());
    Artifact { type_name: "text".into(), shape: Shape::Blob, digest, bytes: content.len() as u64 }
}

/// What a stage's closure works with.
pub struct Work<'a> {
    pub job: &'a Job<'a>,
    pub files: &'a Files,
    pub config: &'a str,
    pub clock: &'a AtomicU64,
}

impl Work<'_> {
    /// What is selected of all inputs: `text`, or `x=1 y=2` for a tree.
    pub fn read(&self) -> Result<String, Failure> {
        let texts: Result<Vec<String>, Failure> = self.job.inputs.iter().map(|input| self.read_one(input)).collect();
        Ok(texts?.join("+"))
    }

    fn read_one(&self, input: &Bound) -> Result<String, Failure> {
        let Some(tree) = &input.tree else { return self.blob(input.path.as_deref(), &input.artifact.digest) };
        let selected = tree.entries.iter().filter(|entry| selects(&input.selection, &entry.name));
        let text = |entry: &Entry| {
            let path = input.path.as_ref().map(|path| path.join(&entry.name));
            Ok(format!("{}={}", entry.name, self.blob(path.as_deref(), &entry.digest)?))
        };
        let texts: Result<Vec<String>, Failure> = selected.map(text).collect();
        Ok(texts?.join(" "))
    }

    fn blob(&self, path: Option<&Path>, digest: &Digest) -> Result<String, Failure> {
        match path {
            Some(path) => Ok(self.files.read(path).expect("the file is there")),
            None => Ok(String::from_utf8(self.job.store.get(digest)?).unwrap()),
        }
    }

    pub fn put(&self, text: &str) -> Result<Vec<Artifact>, Failure> {
        self.job.store.put(text.as_bytes())?;
        Ok(vec![blob(text)])
    }

    /// Stores `x=1 y=2` as a tree under a header.
    pub fn put_tree(&self, header: &str, text: &str) -> Result<Vec<Artifact>, Failure> {
        let mut entries = Vec::new();
        for (name, content) in text.split_whitespace().map(|pair| pair.split_once('=').unwrap()) {
            self.job.store.put(content.as_bytes())?;
            let Artifact { type_name, shape, digest, bytes } = blob(content);
            entries.push(Entry { name: name.into(), type_name, shape, digest, bytes });
        }
        let tree = Tree { header: header.into(), entries };
        let digest = self.job.store.put_tree(&tree)?;
        Ok(vec![Artifact { type_name: "frame".into(), shape: Shape::Tree, digest, bytes: tree.bytes() }])
    }
}

/// A clock that stands still unless somebody waits for it: then it is at once as late as they wait for.
pub struct Hands(pub Arc<AtomicU64>);

impl Clock for Hands {
    fn now(&self) -> f64 {
        self.0.load(Ordering::SeqCst) as f64
    }

    fn after(&self, seconds: f64, alarm: Box<dyn FnOnce() + Send>) {
        self.0.fetch_add(seconds.ceil() as u64, Ordering::SeqCst);
        alarm();
    }
}

type WorkFn = dyn Fn(&Work<'_>) -> Result<Vec<Artifact>, Failure> + Send + Sync;
type ReadsFn = dyn Fn(&[Bound]) -> Result<Vec<Selection>, Failure> + Send + Sync;

/// A node to be. Unless told otherwise its one output, `out`, is `kind:config(inputs)`.
#[derive(Clone)]
pub struct Draft {
    name: String,
    kind: String,
    config: String,
    ports: Vec<InputPort>,
    wires: Vec<(String, Feed)>,
    outputs: Vec<OutputPort>,
    reads: Arc<ReadsFn>,
    work: Arc<WorkFn>,
    outs: Option<Arc<dyn Outs>>,
    request: Request,
    retries: u32,
}

#[derive(Clone)]
enum Feed {
    File(String, Vec<PathBuf>),
    Node(String, Option<String>),
    Gather(Vec<(String, String)>),
}

/// A node whose kind is its name.
pub fn stage(name: &str) -> Draft {
    let kind = name.to_owned();
    Draft {
        name: name.into(),
        config: String::new(),
        ports: Vec::new(),
        wires: Vec::new(),
        outputs: vec![OutputPort { name: "out".into(), type_name: "text".into(), passes: None }],
        reads: Arc::new(|bound| Ok(vec![Selection::All; bound.len()])),
        work: Arc::new({
            let kind = kind.clone();
            move |work| work.put(&format!("{kind}:{}({})", work.config, work.read()?))
        }),
        kind,
        outs: None,
        request: Request::default(),
        retries: 0,
    }
}

impl Draft {
    pub fn kind(mut self, kind: &str) -> Self {
        self.kind = kind.into();
        self
    }

    pub fn config(mut self, config: &str) -> Self {
        self.config = config.into();
        self
    }

    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }

    fn wired(mut self, presence: Presence, feed: Feed) -> Self {
        let name = format!("in{}", self.ports.len());
        self.ports.push(InputPort { name: name.clone(), type_name: None, presence });
        self.wires.push((name, feed));
        self
    }

    pub fn file(self, path: &str) -> Self {
        self.wired(Presence::Required, Feed::File(path.into(), Vec::new()))
    }

    pub fn folder(self, path: &str, without: &[&str]) -> Self {
        let without = without.iter().map(PathBuf::from).collect();
        self.wired(Presence::Required, Feed::File(path.into(), without))
    }

    pub fn after(self, node: &str) -> Self {
        self.wired(Presence::Required, Feed::Node(node.into(), None))
    }

    pub fn after_entry(self, node: &str, entry: &str) -> Self {
        self.wired(Presence::Required, Feed::Node(node.into(), Some(entry.into())))
    }

    /// Collects nodes, each under a label of the axis `axis`.
    pub fn gather(self, members: &[(&str, &str)]) -> Self {
        let members = members.iter().map(|(label, node)| ((*label).into(), (*node).into())).collect();
        self.wired(Presence::Gathered, Feed::Gather(members))
    }

    /// Reads these entries of every input alone.
    pub fn reads(self, names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).into()).collect();
        self.selecting(move |bound| Ok(vec![Selection::Only(names.clone()); bound.len()]))
    }

    pub fn selecting(
        mut self,
        reads: impl Fn(&[Bound]) -> Result<Vec<Selection>, Failure> + Send + Sync + 'static,
    ) -> Self {
        self.reads = Arc::new(reads);
        self
    }

    /// The output carries on the entries of the first input.
    pub fn passing(mut self) -> Self {
        self.outputs[0].passes = Some("in0".into());
        self
    }

    pub fn work(mut self, work: impl Fn(&Work<'_>) -> Result<Vec<Artifact>, Failure> + Send + Sync + 'static) -> Self {
        self.work = Arc::new(work);
        self
    }

    pub fn outs(self, outs: &Arc<Placed>) -> Self {
        self.placing(outs.clone())
    }

    pub fn asking(mut self, request: Request) -> Self {
        self.request = request;
        self
    }

    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    pub fn placing(mut self, outs: Arc<dyn Outs>) -> Self {
        self.outs = Some(outs);
        self
    }
}

/// A stage that reads a table, `x=1 y=2`, from a file.
pub fn table(name: &str, path: &str) -> Draft {
    stage(name).file(path).work(|work| work.put_tree("rows", &work.read()?))
}

/// A stage that always fails.
pub fn failing(name: &str) -> Draft {
    stage(name).work(|_| Err(Failure::new("no luck")))
}

/// One out that stands somewhere in the project.
#[derive(Default)]
pub struct Placed {
    pub content: Mutex<Option<String>>,
    pub broken: Mutex<Option<String>>,
}

impl Placed {
    pub fn set(&self, content: Option<&str>) {
        *self.content.lock().unwrap() = content.map(Into::into);
    }

    pub fn get(&self) -> Option<String> {
        self.content.lock().unwrap().clone()
    }
}

impl Outs for Placed {
    fn in_place(&self, outputs: &[Artifact]) -> Result<bool, Failure> {
        Ok(self.get().map(|content| blob(&content)).as_ref() == outputs.first())
    }

    fn restore(&self, store: &Store, outputs: &[Artifact]) -> Result<(), Failure> {
        if let Some(text) = &*self.broken.lock().unwrap() {
            return Err(Failure::new(text.clone()));
        }
        self.set(Some(&String::from_utf8(store.get(&outputs[0].digest)?).unwrap()));
        Ok(())
    }
}

pub struct Bench {
    /// Goes with the last that uses it; a disk in memory needs none.
    folder: Option<Arc<tempfile::TempDir>>,
    pub store: Arc<Store>,
    pub ledger: Ledger,
    pub claims: Claims,
    pub files: Arc<Files>,
    pub clock: Arc<AtomicU64>,
    /// The last finish of each node, as the journal would have it.
    pub last: BTreeMap<String, Key>,
    /// Which nodes' closures were called, in order.
    pub calls: Arc<Mutex<Vec<String>>>,
    /// How many failures have been told, in all runs.
    pub failures: Arc<AtomicU64>,
}

/// What a run did.
pub struct Told {
    pub summary: Summary,
    /// `waiting for read`, `started read`, … in order, then `ran read`, `failed read`, … in order: when the end of a node
    /// is told, as compared with the starts of others, is a matter of time.
    pub events: Vec<String>,
    /// Each node's last finish.
    pub finishes: BTreeMap<String, Finish>,
    /// Each start.
    pub reasons: Vec<(String, Reason)>,
    pub previews: BTreeMap<String, Preview>,
    /// The nodes whose closures were called, in order.
    pub called: Vec<String>,
}

impl Told {
    pub fn outcome(&self, node: &str) -> Outcome {
        self.finishes[node].outcome
    }

    pub fn error(&self, node: &str) -> &str {
        self.finishes[node].error.as_deref().expect("it has an error")
    }

    pub fn starts(&self) -> Vec<&str> {
        self.events.iter().map(String::as_str).filter(|event| event.starts_with("started")).collect()
    }

    pub fn counts(&self) -> [usize; 5] {
        let Summary { ran, cached, failed, skipped, cancelled, .. } = self.summary;
        [ran, cached, failed, skipped, cancelled]
    }
}

pub fn options() -> Options {
    Options { jobs: 1, ..Options::default() }
}

impl Bench {
    pub fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("store");
        let bench = Self::open(Arc::new(RealDisk), &root, Some(Arc::new(folder)));
        for (path, content) in files {
            bench.files.set(path, content);
        }
        bench
    }

    /// A store on this disk, and no files.
    pub fn on(disk: &(impl Disk + Clone + 'static)) -> Self {
        Self::open(Arc::new(disk.clone()), Path::new("/store"), None)
    }

    fn open(disk: Arc<dyn Disk>, root: &Path, folder: Option<Arc<tempfile::TempDir>>) -> Self {
        // Every blob that has bytes is a file of its own, which tests take away.
        let store = Arc::new(Store::open_on(disk.clone(), root).unwrap().with_small(0));
        Self {
            folder,
            ledger: Ledger::of(&store),
            store,
            claims: Claims::on(disk, root),
            files: Arc::default(),
            clock: Arc::default(),
            last: BTreeMap::new(),
            calls: Arc::default(),
            failures: Arc::default(),
        }
    }

    /// Another process over the same store and files.
    pub fn other(&self) -> Self {
        let other = Self::open(Arc::new(RealDisk), self.store.root(), self.folder.clone());
        Self { files: self.files.clone(), ..other }
    }

    /// As another process would find the store.
    pub fn reopen(&mut self) {
        let Self { store, ledger, claims, .. } = self.other();
        (self.store, self.ledger, self.claims) = (store, ledger, claims);
    }

    pub fn graph(&self, drafts: &[Draft]) -> Graph {
        let find = |name: &String| NodeId(drafts.iter().position(|draft| draft.name == *name).expect("a name"));
        let nodes = drafts.iter().map(|draft| self.node(draft, &find)).collect();
        Graph::new(nodes).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn node(&self, draft: &Draft, find: &dyn Fn(&String) -> NodeId) -> Node {
        let from = |feed: &Feed| match feed {
            Feed::File(path, without) => WireFrom::File { path: path.into(), without: without.clone() },
            Feed::Node(name, entry) => WireFrom::Node { node: find(name), output: None, entry: entry.clone() },
            Feed::Gather(members) => {
                let member = |(label, name): &(String, String)| ([("axis".into(), label.clone())].into(), find(name));
                WireFrom::Gather { members: members.iter().map(member).collect(), output: None }
            }
        };
        let wire = |(port, feed): &(String, Feed)| Wire { port: Some(port.clone()), from: from(feed) };
        let stage = Stage {
            kind: draft.kind.clone(),
            version: 1,
            config: vec![("value".into(), draft.config.clone())],
            inputs: InputPorts::Fixed(draft.ports.clone()),
            outputs: draft.outputs.clone(),
            reads: draft.reads.clone(),
            run: self.run_fn(draft),
            outs: draft.outs.clone(),
        };
        let wires = draft.wires.iter().map(wire).collect();
        let (request, retries) = (draft.request.clone(), draft.retries);
        Node { name: draft.name.clone(), stage_name: draft.name.clone(), stage, wires, request, retries }
    }

    fn run_fn(&self, draft: &Draft) -> Arc<headwater_engine::stage::RunFn> {
        let (files, clock, calls) = (self.files.clone(), self.clock.clone(), self.calls.clone());
        let (work, config) = (draft.work.clone(), draft.config.clone());
        Arc::new(move |job| {
            calls.lock().unwrap().push(job.node.to_owned());
            work(&Work { job, files: &files, config: &config, clock: &clock })
        })
    }

    /// Runs all nodes, one at a time, up to the first failure.
    pub fn run(&mut self, drafts: &[Draft]) -> Told {
        self.run_with(drafts, &options())
    }

    pub fn preview(&mut self, drafts: &[Draft]) -> Told {
        self.run_with(drafts, &Options { preview: true, ..options() })
    }

    pub fn keep_going(&mut self, drafts: &[Draft]) -> Told {
        self.run_with(drafts, &Options { keep_going: true, ..options() })
    }

    pub fn force(&mut self, drafts: &[Draft], nodes: &[&str]) -> Told {
        let graph = self.graph(drafts);
        let forced = nodes.iter().map(|name| graph.find(name).unwrap()).collect();
        self.run_with(drafts, &Options { forced, ..options() })
    }

    /// Runs with these options; without targets, all nodes are meant.
    pub fn run_with(&mut self, drafts: &[Draft], options: &Options) -> Told {
        self.watch(drafts, options, &mut |_| {})
    }

    /// The same, and shows each event as it comes.
    pub fn watch(&mut self, drafts: &[Draft], options: &Options, watch: &mut dyn FnMut(&Event)) -> Told {
        let graph = self.graph(drafts);
        let (summary, events) = self.drive(&graph, options, watch);
        let told = self.tell(&graph, summary.unwrap(), events);
        for (name, finish) in &told.finishes {
            if matches!(finish.outcome, Outcome::Ran | Outcome::Cached) {
                self.last.insert(name.clone(), finish.key.expect("it has a key"));
            }
        }
        told
    }

    /// Why a run could not begin.
    pub fn refused(&self, drafts: &[Draft], options: &Options) -> RunError {
        self.drive(&self.graph(drafts), options, &mut |_| {}).0.unwrap_err()
    }

    fn drive(
        &self,
        graph: &Graph,
        options: &Options,
        watch: &mut dyn FnMut(&Event),
    ) -> (Result<Summary, RunError>, Vec<Event>) {
        let mut options = options.clone();
        if options.targets.is_empty() {
            options.targets = graph.ids().collect();
        }
        self.calls.lock().unwrap().clear();
        let mut events = Vec::new();
        let last_keys: Vec<Option<Key>> = graph.ids().map(|id| self.last.get(&graph.node(id).name).copied()).collect();
        let session = Session {
            graph,
            store: &self.store,
            ledger: &self.ledger,
            claims: &self.claims,
            sources: &*self.files,
            last_keys: &last_keys,
            clock: &Hands(self.clock.clone()),
        };
        let summary = session.run(&options, &mut |event| {
            watch(&event);
            if matches!(&event, Event::Finished(finish) if finish.outcome == Outcome::Failed) {
                self.failures.fetch_add(1, Ordering::SeqCst);
            }
            events.push(event);
        });
        (summary, events)
    }

    fn tell(&self, graph: &Graph, summary: Summary, events: Vec<Event>) -> Told {
        let (mut finishes, mut previews) = (BTreeMap::new(), BTreeMap::new());
        let (mut lines, mut ends, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for event in events {
            let name = |id: NodeId| graph.node(id).name.clone();
            match event {
                Event::Planned { .. } => {}
                Event::Waiting { node } => lines.push(format!("waiting for {}", name(node))),
                Event::Started { node, reason } => {
                    lines.push(format!("started {}", name(node)));
                    reasons.push((name(node), reason));
                }
                Event::Retrying { node, attempt, error, seconds } => {
                    lines.push(format!("{} failed {attempt} times ({error}), again in {seconds} s", name(node)));
                }
                Event::Finished(finish) => {
                    let word = if finish.restored { "restored".into() } else { format!("{:?}", finish.outcome) };
                    ends.push(format!("{} {}", word.to_lowercase(), name(finish.node)));
                    finishes.insert(name(finish.node), finish);
                }
                Event::Previewed { node, preview, .. } => {
                    previews.insert(name(node), preview);
                }
            }
        }
        lines.extend(ends);
        let called = self.calls.lock().unwrap().clone();
        Told { summary, events: lines, finishes, reasons, previews, called }
    }

    /// The key of a draft that reads nothing.
    pub fn key(&self, draft: &Draft) -> Key {
        let graph = self.graph(std::slice::from_ref(draft));
        Manifest::of(&graph.node(NodeId(0)).stage, &[]).key()
    }

    /// The content of a node's output.
    pub fn output(&self, told: &Told, node: &str) -> String {
        let artifact = &told.finishes[node].outputs[0];
        if artifact.shape == Shape::Blob {
            return String::from_utf8(self.store.get(&artifact.digest).unwrap()).unwrap();
        }
        let tree = self.store.get_tree(&artifact.digest).unwrap();
        let text = |entry: &Entry| {
            let content = String::from_utf8(self.store.get(&entry.digest).unwrap()).unwrap();
            format!("{}={content}", entry.name)
        };
        let entries: Vec<String> = tree.entries.iter().map(text).collect();
        format!("{}: {}", tree.header, entries.join(" "))
    }

    pub fn path(&self, digest: &Digest) -> PathBuf {
        let text = digest.to_string();
        self.store.root().join("blobs").join(&text[..2]).join(&text[2..])
    }

    /// Removes the blob with this content.
    pub fn lose(&self, content: &str) {
        fs::remove_file(self.path(&Digest::of(content.as_bytes()))).unwrap();
    }

    /// Flips a bit of the blob with this content.
    pub fn damage(&self, content: &str) {
        flip(&self.path(&Digest::of(content.as_bytes())));
    }

    /// All files of the store, ledger included, with their sizes.
    pub fn listing(&self) -> BTreeSet<(PathBuf, u64)> {
        let mut found = BTreeSet::new();
        let mut open = vec![self.store.root().to_owned()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let about = entry.metadata().unwrap();
                if about.is_dir() {
                    open.push(entry.path());
                } else {
                    found.insert((entry.path(), about.len()));
                }
            }
        }
        found
    }
}

pub fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}
