//! `Witnesses`: a project of many small stages, each of which shows one input as it was when it was last looked at.
//!
//! Many edits can be made between two runs and each of them be judged by itself: what a stage shows is a known function of
//! its one input, no two inputs show the same, and no stage runs for the sake of another. It does not know when a run takes
//! place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::headwater::{Headwater, Node};
use crate::random::Random;
use crate::score::Trouble;
use crate::traced::Ending;
use crate::ways::{WAYS, Way, rewrite, set_times, spoil, times};

/// Tables that a `read` shows as a frame, texts that a command copies, folders that a command lists; and one param.
const TABLES: u64 = 40;
const TEXTS: u64 = 8;
const TREES: u64 = 4;
/// So many files of a kind share a folder.
const A_FOLDER: u64 = 10;
/// How many contents a file has. All but every eighth have the same length.
const CONTENTS: u64 = 64;

/// Shows every name, whether it may be executed, and every text.
const LIST: &str = "for f in trees/N/*; do echo $f; if test -x $f; then echo executable; fi; cat $f; done > tree-N.txt";

/// A stage, and the input that it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Witness {
    Table(u64),
    Text(u64),
    Tree(u64),
    Param,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leaf {
    content: u64,
    executable: bool,
}

/// The inputs as they are now.
#[derive(Debug, Clone)]
pub struct Inputs {
    tables: Vec<u64>,
    texts: Vec<u64>,
    trees: Vec<BTreeMap<String, Leaf>>,
    param: u64,
    keeps_sources: bool,
}

/// What an edit was, for a message, and whether size and times are what they were.
#[derive(Debug, Clone)]
pub struct Edit {
    pub witness: Witness,
    pub what: String,
    pub hidden: bool,
}

/// The digest of the frame of each content.
pub struct Frames(Vec<String>);

fn table(content: u64) -> String {
    let tail = if content % 8 == 7 { "2,5000\n" } else { "" };
    format!("id,v\n1,{}\n{tail}", 1000 + content)
}

fn text(content: u64) -> String {
    format!("text {}{}\n", 1000 + content, if content % 8 == 7 { " and some more" } else { "" })
}

impl Frames {
    /// Learns them of a project that reads every content, and sees that the frames are right, and differ.
    ///
    /// # Errors
    /// If they are not, or do not.
    pub fn learn(headwater: &Headwater, folder: &Path) -> Result<Self, Trouble> {
        let mut pipeline = String::from("[pipeline]\nname = \"contents\"\n");
        for content in 0..CONTENTS {
            fs::write(folder.join(format!("{content}.csv")), table(content))?;
            let _ = write!(pipeline, "[stages.table-{content}]\nuses = \"read\"\npath = \"{content}.csv\"\n");
        }
        fs::write(folder.join("pipeline.toml"), pipeline)?;
        let run = headwater.call(folder, &["run", "--format", "json"])?;
        let nodes: BTreeMap<String, Node> = run.nodes().into_iter().map(|node| (node.name.clone(), node)).collect();
        let mut frames = Vec::new();
        for content in 0..CONTENTS {
            let name = format!("table-{content}");
            let digest = nodes.get(&name).and_then(|node| node.outputs.get("frame"));
            frames
                .push(digest.ok_or_else(|| Trouble::violation(format!("no frame of {name}: {}", run.told())))?.clone());
            let target = folder.join(format!("fetched-{content}.csv"));
            headwater.call(folder, &["get", &format!("{name}.frame"), "-o", &target.to_string_lossy()])?;
            if fs::read_to_string(&target)? != table(content) {
                return Err(Trouble::violation(format!("the frame of {name} is not what it was read from")));
            }
        }
        match frames.iter().collect::<BTreeSet<_>>().len() as u64 {
            CONTENTS => Ok(Self(frames)),
            _ => Err(Trouble::violation("different tables have the same digest")),
        }
    }
}

impl Witness {
    /// All of them, in any order.
    pub fn shuffled(random: &mut Random) -> Vec<Self> {
        let mut all = vec![Self::Param];
        all.extend((0..TABLES).map(Self::Table));
        all.extend((0..TEXTS).map(Self::Text));
        all.extend((0..TREES).map(Self::Tree));
        for at in (1..all.len()).rev() {
            all.swap(at, random.below(at as u64 + 1) as usize);
        }
        all
    }

    fn name(self) -> String {
        match self {
            Self::Table(at) => format!("table-{at}"),
            Self::Text(at) => format!("text-{at}"),
            Self::Tree(at) => format!("tree-{at}"),
            Self::Param => "param".to_owned(),
        }
    }

    /// The file of the project that it makes, if it makes one.
    fn out(self) -> Option<String> {
        (!matches!(self, Self::Table(_))).then(|| format!("{}.txt", self.name()))
    }

    /// The file that it reads, or the folder.
    fn input(self) -> String {
        match self {
            Self::Table(at) => format!("tables/{}/{at}.csv", at / A_FOLDER),
            Self::Text(at) => format!("texts/{}/{at}.txt", at / A_FOLDER),
            Self::Tree(at) => format!("trees/{at}"),
            Self::Param => "pipeline.toml".to_owned(),
        }
    }

    fn stage(self) -> String {
        let (name, input) = (self.name(), self.input());
        match self {
            Self::Table(_) => format!("[stages.{name}]\nuses = \"read\"\npath = \"{input}\"\n"),
            Self::Param => format!("[stages.{name}]\nrun = \"echo ${{p}} > {name}.txt\"\nouts = [\"{name}.txt\"]\n"),
            Self::Text(_) | Self::Tree(_) => {
                let copy = format!("cat {input} > {name}.txt");
                let line = if let Self::Tree(at) = self { LIST.replace('N', &at.to_string()) } else { copy };
                format!("[stages.{name}]\nrun = \"{line}\"\ndeps = [\"{input}\"]\nouts = [\"{name}.txt\"]\n")
            }
        }
    }
}

impl Inputs {
    /// Any.
    pub fn any(random: &mut Random) -> Self {
        let mut some = |count: u64| (0..count).map(|_| random.below(CONTENTS)).collect::<Vec<_>>();
        let (tables, texts) = (some(TABLES), some(TEXTS));
        let leaf = |random: &mut Random| Leaf { content: random.below(CONTENTS), executable: random.once_in(3) };
        let tree = |random: &mut Random| (0..5).map(|name| (format!("leaf-{name}"), leaf(random))).collect();
        let trees = (0..TREES).map(|_| tree(random)).collect();
        Self { tables, texts, trees, param: 0, keeps_sources: random.once_in(2) }
    }

    fn pipeline(&self) -> String {
        let mut text = format!("[pipeline]\nname = \"witnesses\"\n[params]\np = {}\n", 1000 + self.param);
        if self.keeps_sources {
            text += "[store]\nkeep_sources = true\n";
        }
        let all = [Witness::Param].into_iter().chain((0..TABLES).map(Witness::Table));
        let all = all.chain((0..TEXTS).map(Witness::Text)).chain((0..TREES).map(Witness::Tree));
        all.fold(text, |text, witness| text + &witness.stage())
    }

    /// What the file of a witness that has one is to hold.
    fn wanted(&self, witness: Witness) -> String {
        match witness {
            Witness::Table(at) => table(self.tables[at as usize]),
            Witness::Text(at) => text(self.texts[at as usize]),
            Witness::Param => self.pipeline(),
            Witness::Tree(_) => unreachable!("a folder has many"),
        }
    }

    /// Writes a project.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, project: &Path) -> Result<(), Trouble> {
        for witness in Witness::shuffled(&mut Random::of(0, 0)) {
            let path = project.join(witness.input());
            fs::create_dir_all(path.parent().unwrap_or(project))?;
            let Witness::Tree(at) = witness else {
                fs::write(path, self.wanted(witness))?;
                continue;
            };
            fs::create_dir_all(&path)?;
            for (name, leaf) in &self.trees[at as usize] {
                fs::write(path.join(name), text(leaf.content))?;
                set_executable(&path.join(name), leaf.executable)?;
            }
        }
        Ok(())
    }

    /// The bytes of the out of a witness.
    fn shown(&self, witness: Witness) -> String {
        match witness {
            Witness::Table(_) | Witness::Text(_) => self.wanted(witness),
            Witness::Param => format!("{}\n", 1000 + self.param),
            Witness::Tree(at) => self.trees[at as usize].iter().fold(String::new(), |shown, (name, leaf)| {
                let mode = if leaf.executable { "executable\n" } else { "" };
                format!("{shown}{}/{name}\n{mode}{}", witness.input(), text(leaf.content))
            }),
        }
    }

    fn digest(&self, frames: &Frames, witness: Witness) -> String {
        match witness {
            Witness::Table(at) => frames.0[self.tables[at as usize] as usize].clone(),
            _ => blake3::hash(self.shown(witness).as_bytes()).to_string(),
        }
    }

    /// A successful run: each witness shows its input as it is now, and those that are not among the edits did not run.
    ///
    /// # Errors
    /// If one does not, or did.
    pub fn judge(&self, frames: &Frames, project: &Path, run: &Ending, edits: &[Edit]) -> Result<(), Trouble> {
        if run.code != Some(0) {
            return Err(Trouble::violation(format!("it failed: {}", run.told())));
        }
        let nodes: BTreeMap<String, Node> = run.nodes().into_iter().map(|node| (node.name.clone(), node)).collect();
        for witness in Witness::shuffled(&mut Random::of(0, 0)) {
            let edit = edits.iter().find(|edit| edit.witness == witness);
            let what = format!("{}, edited: {:?}", witness.name(), edit.map(|edit| &edit.what));
            let Some(node) = nodes.get(&witness.name()) else {
                return Err(Trouble::violation(format!("exit code 0, and not a word of {what}")));
            };
            if edit.is_none() && node.outcome != "cached" {
                return Err(Trouble::violation(format!("{what}: nothing changed, and it {}", node.outcome)));
            }
            self.judge_node(frames, node, witness).map_err(|trouble| trouble.at(&what))?;
            self.judge_out(project, witness).map_err(|trouble| trouble.at(&what))?;
        }
        Ok(())
    }

    /// A run that was disturbed by edits: what it tells of all other inputs is right.
    ///
    /// # Errors
    /// If it is not, or it broke down.
    pub fn judge_disturbed(&self, frames: &Frames, run: &Ending, edits: &[Edit]) -> Result<(), Trouble> {
        if let Some(broken) = run.broke_down() {
            return Err(Trouble::violation(broken));
        }
        let (nodes, done) = (run.nodes(), run.done());
        for witness in Witness::shuffled(&mut Random::of(0, 0)) {
            let node = nodes.iter().find(|node| node.name == witness.name() && done.contains(&node.name));
            if let (Some(node), false) = (node, edits.iter().any(|edit| edit.witness == witness)) {
                self.judge_node(frames, node, witness).map_err(|trouble| trouble.at("a disturbed run"))?;
            }
        }
        Ok(())
    }

    fn judge_node(&self, frames: &Frames, node: &Node, witness: Witness) -> Result<(), Trouble> {
        let right = self.digest(frames, witness);
        if node.outputs.len() == 1 && node.outputs.values().all(|digest| *digest == right) {
            return Ok(());
        }
        let (outcome, outputs) = (&node.outcome, &node.outputs);
        Err(Trouble::violation(format!("{} {outcome} with {outputs:?} and should be {right}", node.name)))
    }

    fn judge_out(&self, project: &Path, witness: Witness) -> Result<(), Trouble> {
        let Some(out) = witness.out() else { return Ok(()) };
        match fs::read_to_string(project.join(&out)) {
            Ok(text) if text == self.shown(witness) => Ok(()),
            other => Err(Trouble::violation(format!("{out} is {other:?} and should be {:?}", self.shown(witness)))),
        }
    }
}

/// Makes edits in a project.
pub struct Editor<'a> {
    pub project: &'a Path,
    /// A folder outside of the project.
    pub aside: &'a Path,
    pub inputs: &'a mut Inputs,
    pub random: &'a mut Random,
}

impl Editor<'_> {
    /// Edits the input of a witness so that it must show something else; or, if no run goes on, its out.
    ///
    /// # Errors
    /// If it cannot be edited.
    pub fn edit(&mut self, witness: Witness, running: bool) -> Result<Edit, Trouble> {
        let (what, hidden) = match witness.out() {
            Some(out) if !running && self.random.once_in(6) => self.disturb(&self.project.join(out))?,
            _ => match witness {
                Witness::Tree(at) => self.edit_tree(at)?,
                _ => {
                    self.choose(witness);
                    self.put(&self.project.join(witness.input()), &self.inputs.wanted(witness))?
                }
            },
        };
        Ok(Edit { witness, what, hidden })
    }

    /// Rewrites the input of a witness with the text that it has.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn touch(&mut self, witness: Witness) -> Result<(), Trouble> {
        let path = self.project.join(witness.input());
        match witness {
            Witness::Tree(at) => {
                let (name, leaf) = self.leaf(at);
                self.put(&path.join(name), &text(leaf.content))
            }
            _ => self.put(&path, &self.inputs.wanted(witness)),
        }
        .map(drop)
    }

    fn choose(&mut self, witness: Witness) {
        let content = match witness {
            Witness::Table(at) => &mut self.inputs.tables[at as usize],
            Witness::Text(at) => &mut self.inputs.texts[at as usize],
            Witness::Param => &mut self.inputs.param,
            Witness::Tree(_) => unreachable!("a folder has many"),
        };
        *content = other(*content, self.random);
    }

    /// Gives a file a text by any way; which, and whether size and times are as before.
    fn put(&mut self, path: &Path, text: &str) -> Result<(String, bool), Trouble> {
        let way = match *self.random.pick(&WAYS) {
            // The folder of the pipeline file is the project.
            Way::FolderSwapped if path.parent() == Some(self.project) => Way::Renamed,
            way => way,
        };
        let before = looks(path)?;
        rewrite(path, text, way, self.aside)?;
        Ok((format!("{way:?}"), looks(path)? == before))
    }

    fn disturb(&mut self, out: &Path) -> Result<(String, bool), Trouble> {
        if self.random.once_in(2) {
            fs::remove_file(out)?;
            return Ok(("out removed".into(), false));
        }
        let before = looks(out)?;
        spoil(out)?;
        Ok(("out changed".into(), looks(out)? == before))
    }

    fn leaf(&mut self, tree: u64) -> (String, Leaf) {
        let leaves: Vec<_> = self.inputs.trees[tree as usize].clone().into_iter().collect();
        self.random.pick(&leaves).clone()
    }

    fn edit_tree(&mut self, tree: u64) -> Result<(String, bool), Trouble> {
        let folder = self.project.join(Witness::Tree(tree).input());
        let ((name, mut leaf), others) = (self.leaf(tree), self.inputs.trees[tree as usize].len());
        let new =
            (0..).map(|at| format!("leaf-{at}")).find(|name| !self.inputs.trees[tree as usize].contains_key(name));
        let (path, new) = (folder.join(&name), new.expect("there are more names than files"));
        let leaves = |inputs: &mut Inputs| std::mem::take(&mut inputs.trees[tree as usize]);
        let mut all = leaves(self.inputs);
        let done = match self.random.below(10) {
            0 => {
                fs::write(folder.join(&new), text(leaf.content))?;
                set_executable(&folder.join(&new), false)?;
                all.insert(new, Leaf { executable: false, ..leaf });
                ("file added".into(), false)
            }
            1 if others > 2 => {
                fs::remove_file(&path)?;
                all.remove(&name);
                ("file removed".into(), false)
            }
            2 => {
                fs::rename(&path, folder.join(&new))?;
                all.remove(&name);
                all.insert(new, leaf);
                ("file renamed".into(), false)
            }
            3 => {
                let kept = times(&path)?;
                leaf.executable = !leaf.executable;
                set_executable(&path, leaf.executable)?;
                set_times(&path, kept)?;
                all.insert(name, leaf);
                ("mode".into(), true)
            }
            4 if exchange(&folder, &mut all)? => ("two files exchanged".into(), true),
            _ => {
                leaf.content = other(leaf.content, self.random);
                let put = self.put(&path, &text(leaf.content));
                all.insert(name, leaf);
                put?
            }
        };
        self.inputs.trees[tree as usize] = all;
        Ok(done)
    }
}

/// Exchanges the first two files of a folder that differ and have the same size, with each other's times.
fn exchange(folder: &Path, leaves: &mut BTreeMap<String, Leaf>) -> Result<bool, Trouble> {
    let all: Vec<(String, Leaf)> = leaves.clone().into_iter().collect();
    let pairs = all.windows(2).map(|pair| (&pair[0], &pair[1]));
    let mut alike = pairs.filter(|(a, b)| a.1 != b.1 && text(a.1.content).len() == text(b.1.content).len());
    let Some(((a, first), (b, second))) = alike.next() else { return Ok(false) };
    let (one, two, between) = (folder.join(a), folder.join(b), folder.join("between"));
    let kept = (times(&one)?, times(&two)?);
    fs::rename(&one, &between)?;
    fs::rename(&two, &one)?;
    fs::rename(&between, &two)?;
    set_times(&one, kept.0)?;
    set_times(&two, kept.1)?;
    leaves.insert(a.clone(), *second);
    leaves.insert(b.clone(), *first);
    Ok(true)
}

/// Another content, mostly of the same length.
fn other(content: u64, random: &mut Random) -> u64 {
    (content + 1 + random.below(CONTENTS - 1)) % CONTENTS
}

/// What a look at size and times alone sees.
fn looks(path: &Path) -> Result<(u64, std::time::SystemTime), Trouble> {
    let about = fs::metadata(path)?;
    Ok((about.len(), about.modified()?))
}

fn set_executable(path: &PathBuf, executable: bool) -> Result<(), Trouble> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edit_makes_its_witness_show_something_else_and_no_other_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (project, aside) = (folder.path().join("project"), folder.path().join("aside"));
        fs::create_dir_all(&aside).expect("made");
        let mut random = Random::of(3, 4);
        let mut inputs = Inputs::any(&mut random);
        inputs.write(&project).expect("written");
        for witness in (0..20).flat_map(|_| Witness::shuffled(&mut Random::of(1, 1))) {
            let before = inputs.clone();
            let mut editor = Editor { project: &project, aside: &aside, inputs: &mut inputs, random: &mut random };
            let edit = editor.edit(witness, true).expect("edited");
            for other in Witness::shuffled(&mut Random::of(1, 1)) {
                assert_eq!(before.shown(other) != inputs.shown(other), other == witness, "{edit:?}");
            }
        }
    }

    #[test]
    fn a_project_after_edits_is_the_project_of_the_inputs() {
        let folder = tempfile::tempdir().expect("a folder");
        let (project, aside) = (folder.path().join("project"), folder.path().join("aside"));
        fs::create_dir_all(&aside).expect("made");
        let mut random = Random::of(5, 6);
        let mut inputs = Inputs::any(&mut random);
        inputs.write(&project).expect("written");
        for witness in (0..20).flat_map(|_| Witness::shuffled(&mut Random::of(1, 1))) {
            let mut editor = Editor { project: &project, aside: &aside, inputs: &mut inputs, random: &mut random };
            editor.edit(witness, true).expect("edited");
            editor.touch(witness).expect("touched");
        }
        let fresh = folder.path().join("fresh");
        inputs.write(&fresh).expect("written");
        let files = |folder: &Path| {
            let all = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter().map(|entry| entry.expect("listed"));
            let files = all.filter(|entry| entry.file_type().is_file());
            files
                .map(|entry| {
                    let mode = entry.metadata().expect("looked at").permissions().mode();
                    (
                        entry.path().strip_prefix(folder).expect("inside").to_owned(),
                        mode,
                        fs::read(entry.path()).expect("read"),
                    )
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(files(&project), files(&fresh));
    }
}
