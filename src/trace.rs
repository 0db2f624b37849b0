//! `Trace`: a run as a file for Chrome's `about:tracing` and Perfetto: a lane a node that runs at the same time, and one
//! for what was cached.
//!
//! The format is the JSON array format of "Trace Event Format" (Google, 2016): complete events `X` with `ts` and `dur` in
//! microseconds. It decides nothing, and knows of a run what its events tell.

use std::collections::BTreeMap;
use std::path::Path;

use headwater_engine::{Event, Finish, Graph, NodeId, Outcome};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::error::CommandError;
use crate::report::outcome_word;

/// The lane of what did not run.
const CACHED: usize = 0;
const MICROSECONDS: f64 = 1e6;

/// What a run's events have told so far.
#[derive(Default)]
pub struct Trace {
    /// Where each running node began, and its lane.
    running: BTreeMap<NodeId, (f64, usize)>,
    done: Vec<Complete>,
}

#[derive(Serialize)]
struct Complete {
    name: String,
    cat: String,
    ph: &'static str,
    pid: u32,
    tid: usize,
    ts: f64,
    dur: f64,
    args: Json,
}

impl Trace {
    /// Takes in an event of a moment, in seconds since the run began.
    pub fn take(&mut self, event: &Event, graph: &Graph, seconds: f64) {
        match event {
            Event::Started { node, .. } => {
                let taken = |lane: &usize| self.running.values().any(|(_, other)| other == lane);
                let lane = (CACHED + 1..).find(|lane| !taken(lane)).expect("there are more lanes than nodes");
                self.running.insert(*node, (seconds, lane));
            }
            Event::Finished(finish) => self.finish(finish, graph, seconds),
            _ => {}
        }
    }

    fn finish(&mut self, finish: &Finish, graph: &Graph, seconds: f64) {
        let (begin, lane) = self.running.remove(&finish.node).unwrap_or((seconds, CACHED));
        let node = graph.node(finish.node);
        let outcome = if finish.restored { "restored" } else { outcome_word(finish.outcome) };
        // Its end is told once records are durable, its own or those of what it read, which is no work of its own.
        let has_worked = matches!(finish.outcome, Outcome::Ran | Outcome::Failed);
        let worked = if has_worked { finish.seconds } else { seconds - begin };
        self.done.push(Complete {
            name: node.name.clone(),
            cat: outcome.to_owned(),
            ph: "X",
            pid: 1,
            tid: lane,
            ts: begin * MICROSECONDS,
            dur: worked.min(seconds - begin) * MICROSECONDS,
            args: json!({
                "stage": node.stage_name,
                "kind": node.stage.kind,
                "outcome": outcome,
                "key": finish.key.map(|key| key.to_string()),
                "told": seconds * MICROSECONDS,
                "error": finish.error,
            }),
        });
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written; the path is named.
    pub fn write(&self, path: &Path) -> Result<(), CommandError> {
        let lanes = self.done.iter().map(|event| event.tid).collect::<std::collections::BTreeSet<_>>();
        let name = |lane: usize| if lane == CACHED { "cached".to_owned() } else { format!("worker {lane}") };
        let heads = lanes.into_iter().map(
            |lane| json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": lane, "args": { "name": name(lane) } }),
        );
        let events: Vec<Json> = heads.chain(self.done.iter().map(|event| json!(event))).collect();
        let text = json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string();
        crate::commands::get::write(path, text.as_bytes())
    }
}
