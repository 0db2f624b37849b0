//! `Unchanged`: all that a run looked at in which every node was cached, kept so that the next run needs one look at each
//! file to know that it would find the same.
//!
//! What such a run depends on is the pipeline file, the program itself, environment variables, the versions of other
//! programs, files and folders of the project, outs, and the records in the store. All of it is compared here. It does not
//! know what a key is, and decides nothing: where anything differs, or cannot be compared, the run goes the long way,
//! which forgets what was kept.
//!
//! Invariants: it is kept only at the end of a run that found everything cached and in place, and names the very contents
//! that run saw; a command that fails forgets it, as it may have found bytes of the store lost.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use headwater_cache::disk::{Links, RealDisk};
use headwater_cache::{Artifact, Digest, Shape, Snapshot, Store};
use headwater_engine::{Outs, SourceError, Sources, Summary, run::SourceState};
use serde::{Deserialize, Serialize};

use crate::kept;
use crate::pipeline::Pipeline;
use crate::place::Place;
use crate::process::command::Answers;
use crate::process::outs::PlacedOuts;
use crate::process::unsynced::Unsynced;
use crate::process::versions::{self, versions};
use crate::process::workshop::Hermetic;
use crate::project::{Project, STATE};

const FILE: &str = "unchanged";
/// Raised when a run depends on something that was not compared before.
const VERSION: u32 = 3;
/// The length of the facts stands before them.
const HEAD: usize = 8;

/// A run in which everything was cached.
pub struct Unchanged {
    /// The pipeline's name.
    pub pipeline: String,
    /// The number of the run whose journal says what each node is.
    pub run: String,
    pub cached: usize,
    pub saved: f64,
}

/// What is compared beside single files.
#[derive(Serialize, Deserialize)]
struct Facts {
    version: u32,
    program: Place,
    hermetic: String,
    root: PathBuf,
    pipeline: String,
    targets: Vec<String>,
    /// `None` for a variable that is not set.
    environment: BTreeMap<String, Option<String>>,
    /// The versions of programs outside of the project.
    tools: BTreeMap<String, String>,
    folders: Vec<Folder>,
    /// Programs that would be read if they were there.
    absent: Vec<PathBuf>,
    landmarks: Vec<(PathBuf, Place)>,
    name: String,
    run: String,
    cached: usize,
    saved: f64,
}

#[derive(Serialize, Deserialize)]
struct Folder {
    path: PathBuf,
    without: Vec<PathBuf>,
    digest: String,
    is_out: bool,
}

/// A source's path, and what is left out of it.
pub type Source = (PathBuf, Vec<PathBuf>);

/// Sources, noting what each was.
pub struct Watched<'a> {
    pub sources: &'a dyn Sources,
    pub seen: &'a Mutex<BTreeMap<Source, Artifact>>,
}

impl Sources for Watched<'_> {
    fn look(&self, path: &Path, without: &[PathBuf]) -> Result<SourceState, SourceError> {
        let state = self.sources.look(path, without)?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert((path.to_owned(), without.to_vec()), state.artifact.clone());
        Ok(state)
    }
}

/// A run that found everything cached and in place.
pub struct CachedRun<'a> {
    pub pipeline: &'a Pipeline,
    pub store: &'a Store,
    pub targets: &'a [String],
    pub answers: Option<&'a Answers>,
    pub sources: &'a BTreeMap<Source, Artifact>,
    /// Each out in the project.
    pub outs: &'a [(PathBuf, Artifact)],
    pub run: &'a str,
    pub summary: &'a Summary,
}

impl CachedRun<'_> {
    /// Keeps it for the next run, if all that it looked at can be compared. It is an index alone: that it cannot be
    /// written costs time.
    pub fn keep(&self) {
        let project = &self.pipeline.project;
        if let Some(body) = self.encode() {
            kept::write(&path_in(&project.state), &body);
            if let Some(answers) = self.answers {
                versions::keep(&answers.versions, project);
            }
        }
    }

    fn encode(&self) -> Option<Vec<u8>> {
        let snapshot = self.pipeline.project.index.snapshot(&self.files())?.encode().ok()?;
        let facts = serde_json::to_vec(&self.facts()?).ok()?;
        let mut body = (facts.len() as u64).to_le_bytes().to_vec();
        body.extend(facts);
        body.extend(snapshot);
        Some(body)
    }

    fn files(&self) -> Vec<(PathBuf, Links, Digest)> {
        let root = &self.pipeline.project.root;
        let is_file = |artifact: &Artifact| artifact.shape == Shape::Blob;
        let sources = self.sources.iter().filter(|(_, artifact)| is_file(artifact));
        let outs = self.outs.iter().filter(|(_, artifact)| is_file(artifact));
        let sources = sources.map(|((path, _), artifact)| (root.join(path), Links::Follow, artifact.digest));
        sources.chain(outs.map(|(path, artifact)| (root.join(path), Links::Refuse, artifact.digest))).collect()
    }

    fn facts(&self) -> Option<Facts> {
        let (pipeline, project) = (self.pipeline, &self.pipeline.project);
        let has_secrets = pipeline.nodes.iter().any(|node| !node.late.secrets.is_empty());
        let commands = pipeline.nodes.iter().filter_map(|node| node.command.as_ref());
        let is_unbound = commands.into_iter().any(|command| command.hermetic() == Hermetic::Unavailable);
        // Globs are found by searching folders, secrets must not be written down, and that nobody holds a command to what
        // it declares is said in each run.
        // Where a relative path leads is another place in another folder.
        let store_moves = std::env::var_os("HEADWATER_STORE").is_some_and(|path| Path::new(&path).is_relative());
        if pipeline.has_globs() || has_secrets || is_unbound || store_moves {
            return None;
        }
        let place = |path: PathBuf| Ok((path.clone(), Place::of(&path)?));
        let landmarks: io::Result<Vec<(PathBuf, Place)>> =
            self.store.landmarks().ok()?.into_iter().map(place).collect();
        Some(Facts {
            version: VERSION,
            program: Place::of_program().ok()?,
            hermetic: hermetic(),
            root: project.root.clone(),
            pipeline: Digest::of(pipeline.source.as_bytes()).to_string(),
            targets: self.targets.to_vec(),
            environment: environment(pipeline)?,
            tools: self.answers.map(|answers| answers.versions.clone()).unwrap_or_default(),
            folders: self.folders(),
            absent: pipeline.nodes.iter().flat_map(|node| node.absent.iter().cloned()).collect(),
            landmarks: landmarks.ok()?,
            name: pipeline.file.name.clone(),
            run: self.run.to_owned(),
            cached: self.summary.cached,
            saved: self.summary.saved,
        })
    }

    fn folders(&self) -> Vec<Folder> {
        let folder = |path: &PathBuf, without: &[PathBuf], artifact: &Artifact, is_out| {
            let (path, without, digest) = (path.clone(), without.to_vec(), artifact.digest.to_string());
            (artifact.shape == Shape::Tree).then_some(Folder { path, without, digest, is_out })
        };
        let sources = self.sources.iter().filter_map(|((path, without), found)| folder(path, without, found, false));
        sources.chain(self.outs.iter().filter_map(|(path, out)| folder(path, &[], out, true))).collect()
    }
}

/// The variables that decide where things are, and those that commands declare; `None` if one is no text.
fn environment(pipeline: &Pipeline) -> Option<BTreeMap<String, Option<String>>> {
    let stages = pipeline.graph.ids().map(|id| &pipeline.graph.node(id).stage);
    let lines = stages.filter(|stage| stage.kind == "run").flat_map(|stage| &stage.config);
    let declared: BTreeSet<&str> = lines.filter_map(|(label, _)| label.strip_prefix("env.")).collect();
    declared
        .into_iter()
        .chain(["HEADWATER_STORE", "HOME", "PATH"])
        .map(|name| Some((name.to_owned(), variable(name)?)))
        .collect()
}

/// A variable that is text or not set.
fn variable(name: &str) -> Option<Option<String>> {
    match std::env::var_os(name) {
        None => Some(None),
        Some(value) => value.into_string().ok().map(Some),
    }
}

/// Whether commands can be held to what they declare, here.
fn hermetic() -> String {
    Hermetic::of(true).word().to_owned()
}

fn path_in(state: &Path) -> PathBuf {
    state.join(FILE)
}

/// Forgets what was kept for a pipeline file.
pub fn forget(pipeline: &Path) {
    // What is not there need not go; what cannot go is compared as ever.
    let _ = fs::remove_file(path_in(&pipeline.with_file_name(STATE)));
}

impl Unchanged {
    /// What a run of these targets would find, if that is certain: that all is as it was.
    pub fn of(pipeline: &Path, targets: &[String]) -> Option<Self> {
        let body = kept::read(&path_in(&pipeline.with_file_name(STATE)))?;
        let (facts, snapshot) = decode(&body)?;
        let project = Project::of(pipeline).ok()?;
        let same = facts.version == VERSION
            && !Unsynced::is_there(&project.state)
            && Place::of_program().is_ok_and(|place| place == facts.program)
            && hermetic() == facts.hermetic
            && project.root == facts.root
            && targets == facts.targets
            && facts.environment.iter().all(|(name, value)| variable(name).as_ref() == Some(value))
            && fs::read(pipeline).is_ok_and(|bytes| Digest::of(&bytes).to_string() == facts.pipeline)
            && facts.landmarks.iter().all(|(path, place)| Place::of(path).is_ok_and(|found| found == *place))
            && facts.absent.iter().all(|path| !project.root.join(path).is_file());
        (same && all_stand(&facts, &snapshot, project)).then_some(Self {
            pipeline: facts.name,
            run: facts.run,
            cached: facts.cached,
            saved: facts.saved,
        })
    }
}

/// Whether files, folders and programs are what they were. Programs take their time to answer, so those that must be asked
/// are asked meanwhile.
fn all_stand(facts: &Facts, snapshot: &Snapshot, project: Project) -> bool {
    let project = Arc::new(project);
    std::thread::scope(|scope| {
        let ask = || versions(&facts.tools.keys().map(String::as_str).collect(), &project);
        let asked = (!facts.tools.is_empty()).then(|| scope.spawn(ask));
        let stand = snapshot.holds(&RealDisk) && facts.folders.iter().all(|folder| folder.stands(&project));
        stand && asked.is_none_or(|asked| asked.join().is_ok_and(|versions| versions == facts.tools))
    })
}

impl Folder {
    fn stands(&self, project: &Arc<Project>) -> bool {
        let Ok(digest) = self.digest.parse::<Digest>() else { return false };
        if !self.is_out {
            return project.look(&self.path, &self.without).is_ok_and(|state| state.artifact.digest == digest);
        }
        let artifact = Artifact { type_name: "directory".into(), shape: Shape::Tree, digest, bytes: 0 };
        PlacedOuts::new(vec![self.path.clone()], project.clone()).in_place(&[artifact]).is_ok_and(|stands| stands)
    }
}

/// The facts and files that were kept.
fn decode(body: &[u8]) -> Option<(Facts, Snapshot)> {
    let (length, rest) = body.split_first_chunk::<HEAD>()?;
    let (facts, snapshot) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    Some((serde_json::from_slice(facts).ok()?, Snapshot::decode(snapshot).ok()?))
}
