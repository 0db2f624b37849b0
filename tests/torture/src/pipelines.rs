//! Row `pipelines`: random pipelines are edited, and each run after an edit must equal a build from scratch.
//!
//! After each edit `status` says what will run and `explain` why; then the project runs, and its files are copied to a
//! fresh folder and run there with an empty store. Outs and digests must be equal; what ran must have been foretold; a node
//! whose key the store had is needless, and so is every one after an edit that means nothing; the first line of an
//! explanation must name the edit, before the run and after it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::crew::{Case, Orders, remove};
use crate::headwater::{Node, ending};
use crate::oracle::{digests, hashes};
use crate::random::Random;
use crate::revision::{Deed, Revision};
use crate::score::{Score, Trouble, during};
use crate::sketch::Sketch;
use crate::traced::Ending;
use crate::ways::{Way, rewrite};
use crate::world::World;

/// How many edits each pipeline gets, one after the other.
const EDITS: u64 = 20;
/// One edit in so many takes back the one before.
const UNDONE: u64 = 8;
/// Of the nodes that an edit makes run, so many are explained, and after one run in so many one that has run.
const EXPLAINED: usize = 2;
const EXPLAINED_AFTER: u64 = 3;

/// What a run may call right, and a build from scratch calls wrong.
const STALE: &str = "stale";

/// Runs the row; `count` is of edits.
///
/// # Errors
/// If no pipeline can be made.
pub fn row(world: &World, orders: &Orders, default: u64) -> Result<Score, Trouble> {
    let count = orders.count.unwrap_or(default);
    let mut score = Score::new("pipelines", orders.command("pipelines", count));
    for name in FIGURES {
        score.add(name, 0);
    }
    let played = |(): &mut (), case: &mut Case<'_>| Game::begin(world, case)?.play();
    Ok(orders.deal(score, count.div_ceil(EDITS), |_| Ok(()), played))
}

const FIGURES: [&str; 10] = [
    "edits",
    "cosmetic",
    "nodes judged",
    "nodes ran",
    "cut off",
    STALE,
    "needless after cosmetic edits",
    "needless after others",
    "explained before the run",
    "explained after it",
];

struct Game<'a, 'b> {
    world: &'a World,
    case: &'a mut Case<'b>,
    sketch: Sketch,
    project: PathBuf,
    /// The keys that the store has records of.
    recorded: BTreeSet<String>,
    /// The sketch before the last edit, and that edit.
    before: Option<(Sketch, Revision)>,
    moves: u64,
}

impl<'a, 'b> Game<'a, 'b> {
    fn begin(world: &'a World, case: &'a mut Case<'b>) -> Result<Self, Trouble> {
        let (sketch, project) = (Sketch::any(&mut case.random), case.folder.join("project-0"));
        for (path, text) in sketch.files() {
            make(&project, &path, &text)?;
        }
        Ok(Self { world, case, sketch, project, recorded: BTreeSet::new(), before: None, moves: 0 })
    }

    fn play(mut self) -> Result<(), Trouble> {
        let run = self.run(&self.project)?;
        self.judge_run(&run).map_err(|trouble| trouble.at("the first run"))?;
        self.recorded.extend(run.nodes().into_iter().filter_map(|node| node.key));
        for at in 0..EDITS {
            let revision = self.edit()?;
            let place = format!("edit {at}, {}", revision.what);
            self.judge_edit(&revision).map_err(|trouble| trouble.at(place))?;
        }
        Ok(())
    }

    /// Makes an edit, in the sketch and in the project.
    fn edit(&mut self) -> Result<Revision, Trouble> {
        let old = self.sketch.clone();
        let undoes = self.case.random.once_in(UNDONE);
        let revision = match self.before.take().filter(|_| undoes) {
            Some((sketch, revision)) => {
                self.sketch = Sketch { next: self.sketch.next, ..sketch };
                revision.undone()
            }
            None => Revision::of(&mut self.sketch, &mut self.case.random),
        };
        self.write(&old, revision.way)?;
        self.tidy(&old)?;
        self.act(&revision.deed)?;
        self.before = Some((old, revision.clone()));
        self.case.add("edits", 1);
        self.case.add("cosmetic", u64::from(revision.cosmetic));
        Ok(revision)
    }

    /// Writes what differs from another sketch.
    fn write(&mut self, old: &Sketch, way: Way) -> Result<(), Trouble> {
        let (old, new) = (old.files(), self.sketch.files());
        for path in old.keys().filter(|path| !new.contains_key(*path)) {
            during(path, fs::remove_file(self.project.join(path)))?;
        }
        for (path, text) in &new {
            match old.get(path) {
                Some(known) if known == text => {}
                // The folder of the pipeline file is the project.
                Some(_) if way == Way::FolderSwapped && path == "pipeline.toml" => {
                    rewrite(&self.project.join(path), text, Way::Renamed, &self.case.folder)?;
                }
                Some(_) => rewrite(&self.project.join(path), text, way, &self.case.folder)?,
                None => make(&self.project, path, text)?,
            }
        }
        Ok(())
    }

    /// Removes what stages made that are gone: in a folder that is a dep it would be a file of the project.
    fn tidy(&self, old: &Sketch) -> Result<(), Trouble> {
        let (gone, left) = (old.outs(), self.sketch.outs());
        for path in gone.difference(&left).map(|out| self.project.join(out)) {
            match fs::metadata(&path) {
                Ok(about) if about.is_dir() => remove(&path)?,
                Ok(_) => fs::remove_file(path)?,
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn act(&mut self, deed: &Deed) -> Result<(), Trouble> {
        match deed {
            Deed::Nothing => {}
            Deed::Touch(path) => {
                let path = self.project.join(path);
                let bytes = fs::read(&path)?;
                fs::write(path, bytes)?;
            }
            Deed::Mode(path, mode) => {
                fs::set_permissions(self.project.join(path), fs::Permissions::from_mode(*mode))?;
            }
            Deed::Move => {
                self.moves += 1;
                let elsewhere = self.case.folder.join(format!("project-{}", self.moves));
                fs::rename(&self.project, &elsewhere)?;
                self.project = elsewhere;
            }
        }
        Ok(())
    }

    fn call(&self, project: &Path, arguments: &[&str]) -> Result<Ending, Trouble> {
        ending(self.world.headwater.command(project, arguments).envs(&self.sketch.environment))
    }

    fn run(&self, project: &Path) -> Result<Ending, Trouble> {
        self.call(project, &["run", "--format", "json"])
    }

    fn judge_edit(&mut self, revision: &Revision) -> Result<(), Trouble> {
        let foretold = self.foretold()?;
        self.explain_foretold(revision, &foretold)?;
        let run = self.run(&self.project)?;
        self.judge_run(&run)?;
        self.judge_foretold(&foretold, &run)?;
        self.judge_needless(revision, &run)?;
        self.explain_ran(revision, &run)?;
        self.recorded.extend(run.nodes().into_iter().filter_map(|node| node.key));
        Ok(())
    }

    /// What `status` says of each node.
    fn foretold(&self) -> Result<BTreeMap<String, String>, Trouble> {
        let told = self.call(&self.project, &["status", "--format", "json"])?;
        if told.code != Some(0) {
            return Err(Trouble::violation(format!("`status` failed: {}", told.told())));
        }
        let state = |line: &str| {
            let value: Value = serde_json::from_str(line).ok()?;
            let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
            Some((text("node")?, text("state")?))
        };
        Ok(told.out.lines().filter_map(state).collect())
    }

    fn explain_foretold(&mut self, revision: &Revision, foretold: &BTreeMap<String, String>) -> Result<(), Trouble> {
        let in_state = |state: &'static str| foretold.iter().filter(move |(_, found)| *found == state);
        let mut sample: Vec<&String> = in_state("stale").map(|(name, _)| name).collect();
        let more: Vec<&String> = in_state("maybe").map(|(name, _)| name).collect();
        choose(&mut sample, EXPLAINED, &mut self.case.random);
        if !more.is_empty() {
            sample.push(*self.case.random.pick(more.as_slice()));
        }
        for node in sample {
            self.judge_explained(revision, node, "before the run")?;
            self.case.add("explained before the run", 1);
        }
        Ok(())
    }

    fn explain_ran(&mut self, revision: &Revision, run: &Ending) -> Result<(), Trouble> {
        let ran: Vec<String> = run.with(&["ran"]).into_iter().collect();
        if revision.cosmetic || ran.is_empty() || !self.case.random.once_in(EXPLAINED_AFTER) {
            return Ok(());
        }
        let node = self.case.random.pick(&ran).clone();
        self.judge_explained(revision, &node, "after it")?;
        self.case.add("explained after it", 1);
        Ok(())
    }

    fn judge_explained(&self, revision: &Revision, node: &str, when: &str) -> Result<(), Trouble> {
        let told = self.call(&self.project, &["explain", node])?;
        let first = told.out.lines().next().unwrap_or_default();
        if told.code == Some(0) && revision.names.are_in(first) {
            return Ok(());
        }
        let (names, more) = (&revision.names, told.told());
        Err(Trouble::violation(format!("`explain {node}` {when} does not name {names:?}:\n{}\n{more}", told.out)))
    }

    /// A run must give what a build from scratch gives.
    fn judge_run(&mut self, run: &Ending) -> Result<(), Trouble> {
        if run.code != Some(0) {
            return Err(Trouble::violation(format!("it failed: {}", run.told())));
        }
        let fresh = self.case.folder.join("fresh");
        for path in self.sketch.files().keys() {
            let target = fresh.join(path);
            fs::create_dir_all(target.parent().unwrap_or(&fresh))?;
            during(path, fs::copy(self.project.join(path), target))?;
        }
        let scratch = self.run(&fresh)?;
        if scratch.code != Some(0) {
            return Err(Trouble::violation(format!("a build from scratch failed: {}", scratch.told())));
        }
        self.compare(run, &scratch, &fresh)?;
        self.case.add("nodes judged", run.nodes().len() as u64);
        remove(&fresh)
    }

    fn compare(&self, run: &Ending, scratch: &Ending, fresh: &Path) -> Result<(), Trouble> {
        let (found, right) = (digests(run), digests(scratch));
        if found != right {
            let differ = |port: &&(String, String)| found.get(*port) != right.get(*port);
            let wrong: BTreeSet<_> = found.keys().chain(right.keys()).filter(differ).collect();
            self.case.add(STALE, wrong.len() as u64);
            return Err(Trouble::violation(format!(
                "other digests than a build from scratch: {wrong:?}: {}",
                run.told()
            )));
        }
        // Of a pipeline that has lost its commands, there are none.
        let outs = |project: &Path| match project.join("out") {
            out if out.exists() => hashes(&out),
            _ => Ok(BTreeMap::new()),
        };
        let (found, right) = (outs(&self.project)?, outs(fresh)?);
        match right.iter().find(|(path, hash)| found.get(*path) != Some(hash)) {
            Some((path, _)) => {
                self.case.add(STALE, 1);
                Err(Trouble::violation(format!("out/{} is not what a build from scratch makes", path.display())))
            }
            None => Ok(()),
        }
    }

    /// What ran was stale or might run, and what was stale ran, or another node with its key.
    fn judge_foretold(&self, foretold: &BTreeMap<String, String>, run: &Ending) -> Result<(), Trouble> {
        let nodes = run.nodes();
        let is = |node: &Node, states: &[&str]| {
            foretold.get(&node.name).is_some_and(|state| states.contains(&state.as_str()))
        };
        let ran: Vec<&Node> = nodes.iter().filter(|node| node.outcome == "ran").collect();
        let keys: BTreeSet<&Option<String>> = ran.iter().map(|node| &node.key).collect();
        if let Some(node) = ran.iter().find(|node| !is(node, &["stale", "maybe"])) {
            let state = foretold.get(&node.name);
            return Err(Trouble::violation(format!("{} ran, and `status` said {state:?}", node.name)));
        }
        let idle = nodes.iter().find(|node| is(node, &["stale"]) && !keys.contains(&node.key));
        if let Some(node) = idle {
            return Err(Trouble::violation(format!("`status` was sure that {} runs: {}", node.name, run.told())));
        }
        let cut = nodes.iter().filter(|node| is(node, &["maybe"]) && node.outcome == "cached").count();
        self.case.add("nodes ran", ran.len() as u64);
        self.case.add("cut off", cut as u64);
        Ok(())
    }

    fn judge_needless(&self, revision: &Revision, run: &Ending) -> Result<(), Trouble> {
        let nodes = run.nodes().into_iter().filter(|node| node.outcome == "ran");
        let is_known = |node: &Node| node.key.as_ref().is_some_and(|key| self.recorded.contains(key));
        let stage = |node: &Node| node.name.split('[').next().unwrap_or_default().to_owned();
        let is_needless =
            |node: &Node| is_known(node) || (revision.cosmetic && !revision.readers.contains(&stage(node)));
        let needless: Vec<String> = nodes.filter(is_needless).map(|node| node.name).collect();
        let figure = if revision.cosmetic { "needless after cosmetic edits" } else { "needless after others" };
        self.case.add(figure, needless.len() as u64);
        match needless.is_empty() {
            true => Ok(()),
            false => Err(Trouble::violation(format!("{needless:?} ran needlessly: {}", run.told()))),
        }
    }
}

/// Writes a file that is not there; scripts may be executed.
fn make(project: &Path, path: &str, text: &str) -> Result<(), Trouble> {
    let target = project.join(path);
    fs::create_dir_all(target.parent().unwrap_or(project))?;
    fs::write(&target, text)?;
    let mode = if path.starts_with("tools") { 0o755 } else { 0o644 };
    Ok(fs::set_permissions(target, fs::Permissions::from_mode(mode))?)
}

/// Some of many, in any order.
fn choose<T>(all: &mut Vec<T>, count: usize, random: &mut Random) {
    while all.len() > count {
        all.swap_remove(random.below(all.len() as u64) as usize);
    }
}
