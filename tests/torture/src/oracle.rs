//! `Oracle`: what is right for given inputs, as an undisturbed run in a project and store of its own made it.
//!
//! It judges bytes of files in the project, bytes of fetched artifacts and reported digests. It does not know how a store
//! looks. Invariant: an oracle that knows artifacts is made twice, and is none if the two differ.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use blake3::Hash;

use crate::crew::remove;
use crate::headwater::Headwater;
use crate::score::Trouble;
use crate::subject::{ARTIFACTS, FILES, Inputs, OUTS};
use crate::traced::Ending;

/// What is right for some inputs.
#[derive(Debug, PartialEq, Eq)]
pub struct Oracle {
    /// Node, port and digest.
    digests: BTreeMap<(String, String), String>,
    /// Out and the hash of its bytes.
    outs: BTreeMap<&'static str, Hash>,
    /// Artifact and the hash of its bytes as fetched.
    artifacts: BTreeMap<&'static str, BTreeMap<PathBuf, Hash>>,
    /// What `show` prints of each.
    shown: BTreeMap<&'static str, String>,
    predictions: Hash,
}

/// The oracles made so far.
pub struct Oracles {
    pub headwater: Headwater,
    folder: PathBuf,
    known: Mutex<BTreeMap<(Inputs, Depth), Arc<Oracle>>>,
}

/// How much an oracle knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Depth {
    /// What a run reports, and its outs.
    Runs,
    /// Also what artifacts are fetched and shown as.
    Artifacts,
}

impl Oracles {
    /// None yet; they are made in this folder.
    pub fn new(headwater: Headwater, folder: PathBuf) -> Self {
        Self { headwater, folder, known: Mutex::default() }
    }

    /// What is right for these inputs.
    ///
    /// # Errors
    /// If an undisturbed run fails, or two differ.
    pub fn of(&self, inputs: &Inputs) -> Result<Arc<Oracle>, Trouble> {
        self.known(inputs, Depth::Artifacts)
    }

    /// The same, for runs and outs only: one run in a fresh project, for rows with many different inputs.
    ///
    /// # Errors
    /// If an undisturbed run fails.
    pub fn of_runs(&self, inputs: &Inputs) -> Result<Arc<Oracle>, Trouble> {
        self.known(inputs, Depth::Runs)
    }

    fn known(&self, inputs: &Inputs, depth: Depth) -> Result<Arc<Oracle>, Trouble> {
        let key = (*inputs, depth);
        if let Some(known) = self.known.lock().expect("nothing panics with it").get(&key) {
            return Ok(known.clone());
        }
        let oracle = Arc::new(self.make(inputs, depth)?);
        if depth == Depth::Artifacts && *oracle != self.make(inputs, depth)? {
            return Err(Trouble::violation(format!("two undisturbed runs of {inputs:?} differ")));
        }
        self.known.lock().expect("nothing panics with it").insert(key, oracle.clone());
        Ok(oracle)
    }

    fn make(&self, inputs: &Inputs, depth: Depth) -> Result<Oracle, Trouble> {
        let folder = tempfile::tempdir_in(&self.folder)?;
        inputs.write(folder.path())?;
        let ran = self.headwater.call(folder.path(), &["run", "--format", "json"])?;
        if ran.code != Some(0) {
            return Err(Trouble::violation(format!("an undisturbed run failed: {}", ran.told())));
        }
        let mut oracle = Oracle {
            digests: digests(&ran),
            outs: BTreeMap::new(),
            artifacts: BTreeMap::new(),
            shown: BTreeMap::new(),
            predictions: blake3::hash(b""),
        };
        for out in OUTS {
            oracle.outs.insert(out, hash(&folder.path().join(out))?);
        }
        if depth == Depth::Runs {
            return Ok(oracle);
        }
        for (artifact, file) in ARTIFACTS {
            let fetched = fetch(&self.headwater, folder.path(), artifact, file)?.map_err(|end| undisturbed(&end))?;
            oracle.artifacts.insert(artifact, fetched);
            let shown = self.headwater.call(folder.path(), &["show", artifact])?;
            oracle.shown.insert(artifact, shown.out);
        }
        oracle.predictions = predict(&self.headwater, folder.path())?.map_err(|end| undisturbed(&end))?;
        Ok(oracle)
    }
}

fn undisturbed(ending: &Ending) -> Trouble {
    Trouble::violation(format!("an undisturbed call failed: {}", ending.told()))
}

/// Fetches an artifact; the hashes of its files, or how the call ended if it failed.
fn fetch(
    headwater: &Headwater,
    project: &Path,
    artifact: &str,
    file: &str,
) -> Result<Result<BTreeMap<PathBuf, Hash>, Ending>, Trouble> {
    let target = project.join("fetched");
    remove(&target)?;
    fs::create_dir_all(&target)?;
    let target = target.join(file);
    let ended = headwater.call(project, &["get", artifact, "-o", &target.to_string_lossy()])?;
    if ended.code == Some(0) { Ok(Ok(hashes(&target)?)) } else { Ok(Err(ended)) }
}

/// Predicts for the project's own rows; the hash of the predictions, or how the call ended if it failed.
fn predict(headwater: &Headwater, project: &Path) -> Result<Result<Hash, Ending>, Trouble> {
    let target = project.join("predicted.csv");
    let arguments = ["predict", "train", FILES[0], "--overwrite", "-o", "predicted.csv"];
    let ended = headwater.call(project, &arguments)?;
    if ended.code == Some(0) { Ok(Ok(hash(&target)?)) } else { Ok(Err(ended)) }
}

/// The hashes of a file, or of all files in a folder.
///
/// # Errors
/// If it cannot be read.
pub fn hashes(path: &Path) -> Result<BTreeMap<PathBuf, Hash>, Trouble> {
    let mut all = BTreeMap::new();
    for entry in walkdir::WalkDir::new(path) {
        let entry = entry.map_err(|error| Trouble::harness(error.to_string()))?;
        if entry.file_type().is_file() {
            let relative = entry.path().strip_prefix(path).unwrap_or(entry.path()).to_owned();
            all.insert(relative, hash(entry.path())?);
        }
    }
    Ok(all)
}

fn hash(path: &Path) -> Result<Hash, Trouble> {
    let bytes = fs::read(path).map_err(|error| Trouble::harness(format!("{}: {error}", path.display())))?;
    Ok(blake3::hash(&bytes))
}

/// The digests that a run reported: node and port to digest.
pub fn digests(ending: &Ending) -> BTreeMap<(String, String), String> {
    let nodes = ending.nodes().into_iter();
    nodes
        .flat_map(|node| node.outputs.into_iter().map(move |(port, digest)| ((node.name.clone(), port), digest)))
        .collect()
}

impl Oracle {
    /// The outs in a project must be there and right, and there must be no others.
    ///
    /// # Errors
    /// If they are not.
    pub fn judge_outs(&self, project: &Path) -> Result<(), Trouble> {
        for (out, right) in &self.outs {
            match fs::read(project.join(out)) {
                Ok(bytes) if blake3::hash(&bytes) == *right => {}
                Ok(bytes) => {
                    let text: String = String::from_utf8_lossy(&bytes).chars().take(200).collect();
                    return Err(Trouble::violation(format!("wrong bytes in {out}: {text:?}")));
                }
                Err(error) => return Err(Trouble::violation(format!("the out {out} after exit code 0: {error}"))),
            }
        }
        let pages: BTreeSet<_> = hashes(&project.join("pages"))?.into_keys().collect();
        if pages.len() != self.outs.len() - 1 {
            return Err(Trouble::violation(format!("files that are no outs in pages/: {pages:?}")));
        }
        Ok(())
    }

    /// A run that said that it succeeded must have told the right digests, and left the right outs.
    ///
    /// # Errors
    /// If it did not succeed, or something is wrong.
    pub fn judge_run(&self, project: &Path, run: &Ending) -> Result<(), Trouble> {
        if run.late {
            return Err(Trouble::violation("it hung"));
        }
        if run.code != Some(0) {
            return Err(Trouble::violation(format!("it failed: {}", run.told())));
        }
        self.judge_reported(run)?;
        let told = digests(run);
        if let Some(silent) = self.digests.keys().find(|port| !told.contains_key(*port)) {
            return Err(Trouble::violation(format!("exit code 0, and not a word of {silent:?}: {}", run.told())));
        }
        self.judge_outs(project)
    }

    /// Whatever a run told, even one that failed later, must be right.
    ///
    /// # Errors
    /// If it is not.
    pub fn judge_reported(&self, run: &Ending) -> Result<(), Trouble> {
        for (port, digest) in digests(run) {
            if self.digests.get(&port) != Some(&digest) {
                let right = self.digests.get(&port);
                return Err(Trouble::violation(format!("{port:?} is {digest} and should be {right:?}")));
            }
        }
        Ok(())
    }

    /// Fetches an artifact: the right bytes, or how the call ended that gave none.
    ///
    /// # Errors
    /// If the bytes are wrong.
    pub fn judge_get(&self, headwater: &Headwater, project: &Path, at: usize) -> Result<Option<Ending>, Trouble> {
        let (artifact, file) = ARTIFACTS[at % ARTIFACTS.len()];
        match fetch(headwater, project, artifact, file)? {
            Ok(fetched) if self.artifacts.get(artifact) == Some(&fetched) => Ok(None),
            Ok(_) => Err(Trouble::violation(format!("`get {artifact}` gave wrong bytes, exit code 0"))),
            Err(ended) => Ok(Some(ended)),
        }
    }

    /// Shows an artifact: the right text, or how the call ended that gave none.
    ///
    /// # Errors
    /// If the text is wrong.
    pub fn judge_show(&self, headwater: &Headwater, project: &Path, at: usize) -> Result<Option<Ending>, Trouble> {
        let (artifact, _) = ARTIFACTS[at % ARTIFACTS.len()];
        let ended = headwater.call(project, &["show", artifact])?;
        match ended.code {
            Some(0) if self.shown.get(artifact) == Some(&ended.out) => Ok(None),
            Some(0) => Err(Trouble::violation(format!("`show {artifact}` printed {:?}, exit code 0", ended.out))),
            _ => Ok(Some(ended)),
        }
    }

    /// Predicts: the right predictions, or how the call ended that gave none.
    ///
    /// # Errors
    /// If they are wrong.
    pub fn judge_predict(&self, headwater: &Headwater, project: &Path) -> Result<Option<Ending>, Trouble> {
        match predict(headwater, project)? {
            Ok(predicted) if predicted == self.predictions => Ok(None),
            Ok(_) => Err(Trouble::violation("`predict` gave wrong predictions, exit code 0")),
            Err(ended) => Ok(Some(ended)),
        }
    }

    /// Everything can be fetched, is right, and nothing has to run.
    ///
    /// # Errors
    /// If not.
    pub fn judge_all(&self, headwater: &Headwater, project: &Path) -> Result<(), Trouble> {
        let again = headwater.call(project, &["run", "--format", "json"])?;
        self.judge_run(project, &again)?;
        if !again.with(&["ran"]).is_empty() {
            return Err(Trouble::violation(format!("a finished pipeline ran again: {}", again.told())));
        }
        for (at, (artifact, _)) in ARTIFACTS.iter().enumerate() {
            if let Some(ended) = self.judge_get(headwater, project, at)? {
                return Err(Trouble::violation(format!("`get {artifact}`: {}", ended.told())));
            }
        }
        Ok(())
    }
}
