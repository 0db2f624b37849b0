//! A million trivial nodes, beside a bare loop over the same graph: petgraph, a rayon pool, and counters.
//!
//! Layers of a thousand nodes, each of which reads two of the layer above. Printed are microseconds a node as the clock
//! tells them, how much that is over the bare loop of the same run, and the microseconds that cpus spent, which other
//! work on the machine disturbs less. `SCALE_NODES` sets another number of nodes.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a benchmark has a clock and a folder")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock};
use std::time::Instant;

use headwater_cache::{Artifact, Claims, Digest, Ledger, Shape, Store};
use headwater_engine::crew::{Crew, Work};
use headwater_engine::manifest::text_of;
use headwater_engine::plan::{Plan, remaining_paths};
use headwater_engine::room::Room;
use headwater_engine::run::SourceState;
use headwater_engine::{
    Bound, Capacities, Clock, Event, Graph, InputPort, InputPorts, Key, Node, NodeId, Options, Outcome, OutputPort,
    Presence, Request, Selection, Session, SourceError, Sources, Stage, Summary, Wire, WireFrom,
};
use petgraph::graph::{DiGraph, NodeIndex};

/// Names the store, in the process for which all is cached.
const CACHED_IN: &str = "SCALE_CACHED_IN";
/// And what the bare loop took.
const BARE: &str = "SCALE_BARE";
const WIDTH: usize = 1000;
/// As the engine does.
const BATCH: usize = 64;
const LEAD: u64 = 256;

fn above(at: usize) -> Vec<usize> {
    if at < WIDTH {
        return Vec::new();
    }
    let (layer, column) = (at / WIDTH - 1, at % WIDTH);
    vec![layer * WIDTH + column, layer * WIDTH + (column + 1) % WIDTH]
}

/// What a user would write without an engine: nothing is known of a node but what it waits for.
fn bare(nodes: usize, threads: usize) {
    let mut graph = DiGraph::<(), ()>::with_capacity(nodes, nodes * 2);
    for _ in 0..nodes {
        graph.add_node(());
    }
    for at in 0..nodes {
        for producer in above(at) {
            graph.add_edge(NodeIndex::new(producer), NodeIndex::new(at), ());
        }
    }
    let incoming = |at| graph.neighbors_directed(NodeIndex::new(at), petgraph::Incoming).count() as u32;
    let waiting: Vec<AtomicU32> = (0..nodes).map(|at| AtomicU32::new(incoming(at))).collect();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
    let done = AtomicU64::new(0);
    pool.scope(|scope| {
        for at in 0..nodes.min(WIDTH) {
            visit(at, &graph, &waiting, &done, scope);
        }
    });
    assert_eq!(done.into_inner(), nodes as u64);
}

fn visit<'s>(
    at: usize,
    graph: &'s DiGraph<(), ()>,
    waiting: &'s [AtomicU32],
    done: &'s AtomicU64,
    scope: &rayon::Scope<'s>,
) {
    scope.spawn(move |scope| {
        done.fetch_add(1, Ordering::Relaxed);
        for consumer in graph.neighbors(NodeIndex::new(at)) {
            if waiting[consumer.index()].fetch_sub(1, Ordering::AcqRel) == 1 {
                visit(consumer.index(), graph, waiting, done, scope);
            }
        }
    });
}

struct Watch(Instant);

impl Clock for Watch {
    fn now(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }

    fn after(&self, _seconds: f64, _alarm: Box<dyn FnOnce() + Send>) {}
}

struct NoSources;

impl Sources for NoSources {
    fn look(&self, path: &Path, _without: &[PathBuf]) -> Result<SourceState, SourceError> {
        Err(SourceError(format!("there is no file {}", path.display())))
    }
}

fn tiny() -> Artifact {
    static DIGEST: LazyLock<Digest> = LazyLock::new(|| Digest::of(b"x"));
    Artifact { type_name: "text".into(), shape: Shape::Blob, digest: *DIGEST, bytes: 1 }
}

fn node(at: usize) -> Node {
    let port = |name: &str| InputPort { name: name.into(), type_name: None, presence: Presence::Required };
    let producers = above(at);
    let ports: Vec<InputPort> = ["left", "right"][..producers.len()].iter().map(|name| port(name)).collect();
    let wire = |(port, producer): (&InputPort, usize)| Wire {
        port: Some(port.name.clone()),
        from: WireFrom::Node { node: NodeId(producer), output: None, entry: None },
    };
    let wires = ports.iter().zip(producers).map(wire).collect();
    let stage = Stage {
        kind: "trivial".into(),
        version: 1,
        // Else a layer would be one key.
        config: vec![("number".into(), at.to_string())],
        inputs: InputPorts::Fixed(ports),
        outputs: vec![OutputPort { name: "out".into(), type_name: "text".into(), passes: None }],
        reads: Arc::new(|bound: &[Bound]| Ok(vec![Selection::All; bound.len()])),
        run: Arc::new(|job| {
            job.store.put(b"x")?;
            Ok(vec![tiny()])
        }),
        outs: None,
    };
    Node { name: format!("n{at}"), stage_name: "n".into(), stage, wires, request: Request::default(), retries: 0 }
}

/// What a process opens, and keeps until it ends.
struct Opened {
    store: Arc<Store>,
    ledger: Ledger,
    keys: Vec<(NodeId, Key)>,
}

/// Opens the store and runs all nodes.
fn run(graph: &Graph, root: &Path, jobs: usize, last: &[Option<Key>]) -> (Summary, Opened) {
    let store = Arc::new(Store::open(root).expect("a store"));
    let ledger = Ledger::of(&store);
    let claims = Claims::new(store.root());
    let mut keys = Vec::with_capacity(graph.len());
    let session = Session {
        graph,
        store: &store,
        ledger: &ledger,
        claims: &claims,
        sources: &NoSources,
        last_keys: last,
        clock: &Watch(Instant::now()),
    };
    let options = Options { targets: graph.ids().collect(), jobs, ..Options::default() };
    let summary = session.run(&options, &mut |event| {
        if let Event::Finished(finish) = event {
            keys.extend(finish.key.map(|key| (finish.node, key)));
        }
    });
    (summary.expect("threads"), Opened { store, ledger, keys })
}

struct Table {
    nodes: usize,
    bare: f64,
}

impl Table {
    fn row<T>(&self, what: &str, work: impl FnOnce() -> T) -> (T, f64) {
        let (begun, spent) = (Instant::now(), cpu_seconds());
        let value = work();
        let spent = (cpu_seconds() - spent) * 1e6 / self.nodes as f64;
        let each = begun.elapsed().as_secs_f64() * 1e6 / self.nodes as f64;
        println!("{what:44} {each:9.3} {:9.3} {spent:9.3} {:8} MB", each - self.bare, peak_megabytes());
        (value, each)
    }
}

fn peak_megabytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) / 1024
}

/// What this process has spent, in ticks of a hundredth of a second.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn main() {
    let nodes = std::env::var("SCALE_NODES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000_000);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    if let Some(root) = std::env::var_os(CACHED_IN) {
        return cached(Path::new(&root), nodes, threads);
    }
    println!("{nodes} nodes, {threads} threads: microseconds a node, less the bare loop, of cpus; peak memory");
    let (_, each) = Table { nodes, bare: 0.0 }.row("bare petgraph and rayon", || bare(nodes, threads));
    let table = Table { nodes, bare: each };
    let (graph, _) = table.row("graph: wired and ordered", || Graph::new((0..nodes).map(node).collect()));
    let graph = graph.unwrap_or_else(|errors| panic!("{errors:?}"));
    table.row("plan and its longest paths", || plan(&graph));
    table.row("(a) plan, room, crew: nodes that do nothing", || dispatch(&graph, threads, |_| ()));
    table.row("(b) the same, and keys", || dispatch(&graph, threads, |id| _ = black_box(key(&graph, id))));
    table.row("keys alone", || graph.ids().for_each(|id| _ = black_box(key(&graph, id))));
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("store");
    let ((summary, opened), _) =
        table.row("(c) a run: keys, claims, records, commits", || run(&graph, &root, threads, &vec![None; nodes]));
    assert_eq!(summary.ran, nodes);
    assert_eq!(opened.ledger.len(), nodes);
    let lines: String = opened.keys.iter().map(|(id, key)| format!("{} {key}\n", id.0)).collect();
    std::fs::write(root.with_extension("keys"), lines).expect("a file of keys");
    drop(opened);
    // The first finds a segment without its contents; both are processes of their own, as a user's would be.
    for _ in 0..2 {
        let program = std::env::current_exe().expect("its own path");
        let child = std::process::Command::new(program).env(CACHED_IN, &root).env(BARE, each.to_string()).status();
        assert!(child.is_ok_and(|status| status.success()));
    }
}

/// Another process, for which all is cached.
fn cached(root: &Path, nodes: usize, threads: usize) {
    let graph = Graph::new((0..nodes).map(node).collect()).unwrap_or_else(|errors| panic!("{errors:?}"));
    let text = std::fs::read_to_string(root.with_extension("keys")).expect("a file of keys");
    let key = |line: &str| {
        let (node, key) = line.split_once(' ')?;
        Some((node.parse::<usize>().ok()?, Key(key.parse().ok()?)))
    };
    let mut last = vec![None; nodes];
    text.lines().filter_map(key).for_each(|(node, key)| last[node] = Some(key));
    let bare = std::env::var(BARE).ok().and_then(|text| text.parse().ok()).unwrap_or(0.0);
    let row = Table { nodes, bare };
    let ((summary, opened), _) = row.row("(d) cached, in a process of its own", || run(&graph, root, threads, &last));
    assert_eq!((summary.cached, opened.store.root()), (nodes, root));
}

fn key(graph: &Graph, id: NodeId) -> Key {
    let bound = |port: &str| Bound {
        port: port.into(),
        label: BTreeMap::new(),
        artifact: tiny(),
        tree: None,
        path: None,
        selection: Selection::All,
    };
    let bound: Vec<Bound> = graph.inputs(id).iter().map(|input| bound(&input.port)).collect();
    Key(Digest::of(text_of(&graph.node(id).stage, &bound).as_bytes()))
}

fn plan(graph: &Graph) -> Plan {
    let mut plan = Plan::new(graph.all_producers(), &vec![true; graph.len()]);
    let order = graph.order().iter().map(|id| id.0);
    plan.rank(remaining_paths(order, graph.all_producers(), &vec![1; graph.len()]));
    plan
}

/// The loop of a run without a store: `prepare` is what the coordinator does for each node.
fn dispatch(graph: &Graph, threads: usize, prepare: impl Fn(NodeId)) {
    let mut plan = plan(graph);
    let requests = graph.ids().map(|id| &graph.node(id).request);
    let cpus = u32::try_from(threads).expect("a few");
    let mut room = Room::new(requests, cpus, &Capacities::default()).expect("room for all");
    let (sender, ended) = channel();
    std::thread::scope(|scope| {
        let crew = Crew::start(scope, "stage", threads).expect("threads");
        let mut seats = Vec::new();
        while !plan.is_done() {
            let mut jobs: Vec<Work> = Vec::new();
            while jobs.len() < BATCH
                && room.is_open_ahead(LEAD)
                && let Some(node) = plan.take()
            {
                prepare(NodeId(node));
                seats.push(room.enter_ahead(node, LEAD).expect("it was open"));
                let sender = sender.clone();
                jobs.push(Box::new(move || sender.send(node).expect("the loop waits")));
            }
            let idle = jobs.is_empty();
            crew.hand(jobs);
            let first = if idle { Some(ended.recv().expect("something runs")) } else { None };
            for node in first.into_iter().chain(ended.try_iter()) {
                room.leave(seats.pop().expect("it has one"));
                plan.finish(node, Outcome::Ran);
            }
        }
    });
}
