//! `Sketch`: a random pipeline as data, and the files that a person would have written for it.
//!
//! Params, an axis `k`, tables, texts, scripts and variables; stages that read, query, split, and commands of the shell's
//! own words, which print all that they are given. A stage reads what stands before it only. It does not know what an edit
//! is, nor who runs it. Invariants: same sketch, same files; what its [`Layout`] changes means nothing; outs are named by a
//! stage's number, never by its name.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::random::Random;

/// The rows of each table.
pub const ROWS: u64 = 12;
/// What a command prints grows with what it reads: no stage reads more lines than this.
const HEAVY: usize = 120;

/// A pipeline with all its files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch {
    pub params: Vec<(String, u64)>,
    /// The values of the axis `k`.
    pub axis: Vec<u64>,
    pub tables: Vec<Table>,
    /// Path to lines.
    pub texts: BTreeMap<String, Vec<String>>,
    pub stages: Vec<Stage>,
    /// The number of the next stage: one that had another's name would be explained by that.
    pub next: u64,
    pub environment: BTreeMap<String, String>,
    pub layout: Layout,
}

/// How the pipeline file is laid out: seeds of what means nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    pub spaces: u64,
    pub keys: u64,
    pub stages: u64,
}

/// A CSV file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    pub path: String,
    /// Name and values; the first is `id`.
    pub columns: Vec<(String, Vec<u64>)>,
    /// Lines that no `read` takes: a command drops them first.
    pub comments: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    pub id: u64,
    pub name: String,
    pub work: Work,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    Read {
        from: Origin,
        columns: Option<Vec<String>>,
        null_values: Vec<String>,
    },
    Sql {
        inputs: Vec<Frame>,
        picks: Vec<Pick>,
        /// A seed of comments and white space.
        spaces: u64,
    },
    Split {
        input: Frame,
        percent: u64,
        seed: Number,
    },
    Clean {
        table: usize,
    },
    Print(Print),
}

/// Where a table is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    Table(usize),
    /// The out of a stage that cleans one.
    Cleaned(u64),
}

/// An output of a stage that is a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub stage: u64,
    pub output: &'static str,
}

/// A column of a query: one of an input's, with a number added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    pub input: usize,
    pub column: String,
    pub added: Number,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Number {
    Given(u64),
    Param(String),
    Axis,
}

/// A command that prints words and all that it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Print {
    pub words: Vec<String>,
    pub numbers: Vec<Number>,
    pub deps: Vec<Dep>,
    pub variables: Vec<String>,
    pub script: Option<String>,
    /// Lines that begin with `#` are not printed.
    pub drops_comments: bool,
    /// Its out is a folder of two files.
    pub makes_folder: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dep {
    File(String),
    Folder(String),
    Out(u64),
    /// The outs of all nodes of a stage.
    Gathered(u64),
    Mount(Frame),
}

/// The labels by which a query calls its inputs.
pub const ALIASES: [&str; 2] = ["a", "b"];

impl Table {
    /// Whether a command has to clean it before it can be read.
    pub fn is_raw(&self) -> bool {
        self.path.ends_with(".txt")
    }

    fn text(&self) -> String {
        let names: Vec<&str> = self.columns.iter().map(|(name, _)| name.as_str()).collect();
        let mut text = format!("{}\n", names.join(","));
        for row in 0..ROWS as usize {
            if let Some(comment) = self.comments.get(row) {
                let _ = writeln!(text, "# {comment}");
            }
            let values: Vec<String> = self.columns.iter().map(|(_, values)| values[row].to_string()).collect();
            let _ = writeln!(text, "{}", values.join(","));
        }
        text
    }

    fn any(path: String, random: &mut Random) -> Self {
        let mut columns = vec![("id".to_owned(), (0..ROWS).collect())];
        for at in 0..2 + random.below(3) {
            columns.push((format!("c{at}"), (0..ROWS).map(|_| random.below(10)).collect()));
        }
        let comments = if path.ends_with(".txt") { vec!["a comment".to_owned()] } else { Vec::new() };
        Self { path, columns, comments }
    }
}

impl Number {
    fn text(&self) -> String {
        match self {
            Self::Given(number) => number.to_string(),
            Self::Param(name) => format!("${{{name}}}"),
            Self::Axis => "${k}".into(),
        }
    }

    /// The same, as a value of the file.
    fn value(&self) -> String {
        match self {
            Self::Given(number) => number.to_string(),
            other => format!("\"{}\"", other.text()),
        }
    }
}

impl Sketch {
    /// Any pipeline.
    pub fn any(random: &mut Random) -> Self {
        let mut this = Self {
            params: (0..2 + random.below(2)).map(|at| (format!("p{at}"), random.below(4))).collect(),
            axis: (1..=2 + random.below(2)).collect(),
            tables: vec![Table::any("data/t0.csv".into(), random), Table::any("data/t1.csv".into(), random)],
            texts: BTreeMap::new(),
            stages: Vec::new(),
            next: 0,
            environment: (0..2).map(|at| (format!("SKETCH_{at}"), random.below(4).to_string())).collect(),
            layout: Layout::default(),
        };
        this.tables.push(Table::any("data/t2.txt".into(), random));
        for folder in ["texts", "texts/deep", "more"] {
            for file in ["a", "b"] {
                this.texts.insert(format!("{folder}/{file}.txt"), lines(random));
            }
        }
        for at in 0..2 {
            let lines = vec!["#!/bin/sh".into(), format!("echo tool {}", word(random))];
            this.texts.insert(format!("tools/t{at}.sh"), lines);
        }
        this.texts.insert("notes/unread.txt".into(), lines(random));
        this.add(Work::Read { from: Origin::Table(0), columns: None, null_values: Vec::new() });
        for _ in 0..5 + random.below(8) {
            let work = this.any_work(random);
            this.add(work);
        }
        this
    }

    /// Adds a stage; its number.
    pub fn add(&mut self, work: Work) -> u64 {
        let id = self.next;
        self.next += 1;
        self.stages.push(Stage { id, name: format!("s{id}"), work });
        id
    }

    /// A stage that reads some of what there is.
    pub fn any_work(&self, random: &mut Random) -> Work {
        match random.below(10) {
            0 => match self.stages.iter().find(|stage| matches!(stage.work, Work::Clean { .. })) {
                Some(stage) => Work::Read { from: Origin::Cleaned(stage.id), columns: None, null_values: Vec::new() },
                None => Work::Clean { table: 2 },
            },
            1 => {
                let table = random.below(2) as usize;
                let all: Vec<String> = self.tables[table].columns.iter().map(|(name, _)| name.clone()).collect();
                let columns = random.once_in(2).then(|| all[..=1 + random.below(2) as usize].to_vec());
                Work::Read { from: Origin::Table(table), columns, null_values: Vec::new() }
            }
            2 | 3 => self.any_query(random),
            4 => {
                let whole: Vec<Frame> = self.frames().into_iter().filter(|frame| self.is_whole(frame)).collect();
                let seed = self.any_number(random);
                Work::Split { input: random.pick(&whole).clone(), percent: 25 + 25 * random.below(2), seed }
            }
            _ => self.any_print(random),
        }
    }

    fn any_query(&self, random: &mut Random) -> Work {
        let frames = self.frames();
        let mut inputs = vec![random.pick(&frames).clone()];
        if random.once_in(2) {
            // Two parts of a table may have no row in common, and a query that gives none is an error.
            let whole: Vec<Frame> = frames.into_iter().filter(|frame| self.is_whole(frame)).collect();
            inputs.push(random.pick(&whole).clone());
        }
        let pick = |random: &mut Random| {
            let input = random.below(inputs.len() as u64) as usize;
            let column = random.pick(&self.columns(&inputs[input])).clone();
            Pick { input, column, added: self.any_number(random) }
        };
        let picks = (0..1 + random.below(2)).map(|_| pick(random)).collect();
        Work::Sql { inputs, picks, spaces: 0 }
    }

    fn any_print(&self, random: &mut Random) -> Work {
        let mut print = Print {
            words: (0..1 + random.below(2)).map(|_| word(random)).collect(),
            numbers: (0..random.below(2)).map(|_| self.any_number(random)).collect(),
            deps: Vec::new(),
            variables: self
                .environment
                .keys()
                .filter(|name| name.starts_with("SKETCH") && random.once_in(4))
                .cloned()
                .collect(),
            script: random.once_in(4).then(|| format!("tools/t{}.sh", random.below(2))),
            drops_comments: random.once_in(2),
            makes_folder: random.once_in(8),
        };
        for _ in 0..1 + random.below(3) {
            if let Some(dep) = self.any_dep(&print, self.stages.len(), true, random) {
                print.deps.push(dep);
            }
        }
        print.makes_folder &= !self.work_has_axis(&Work::Print(print.clone()));
        Work::Print(print)
    }

    /// A dep that a command does not have, of the stages before a place, and not too heavy; only with `axes` one that gives
    /// the command an axis.
    pub fn any_dep(&self, print: &Print, before: usize, axes: bool, random: &mut Random) -> Option<Dep> {
        let mut all: Vec<Dep> = self
            .texts
            .keys()
            .filter(|path| !path.starts_with("tools") && !path.starts_with("notes"))
            .map(|path| Dep::File(path.clone()))
            .collect();
        all.extend(["texts", "texts/deep", "more"].map(|path| Dep::Folder(path.into())));
        for stage in &self.stages[..before] {
            match &stage.work {
                Work::Print(_) => {
                    all.push(Dep::Out(stage.id));
                    // Twice, as stages are what edges are for.
                    all.push(if self.has_axis(stage.id) { Dep::Gathered(stage.id) } else { Dep::Out(stage.id) });
                }
                Work::Clean { .. } => all.push(Dep::Out(stage.id)),
                _ => {}
            }
        }
        let frames = self.frames();
        let before: BTreeSet<u64> = self.stages[..before].iter().map(|stage| stage.id).collect();
        all.extend(frames.into_iter().filter(|frame| before.contains(&frame.stage)).map(Dep::Mount));
        // A file within a folder that is a dep too would be one place with two names.
        let place = |dep: &Dep| self.dep_place(dep);
        let overlap = |a: &str, b: &str| a == b || a.starts_with(&format!("{b}/")) || b.starts_with(&format!("{a}/"));
        all.retain(|dep| !print.deps.iter().any(|known| overlap(&place(known), &place(dep))));
        all.retain(|dep| axes || !self.dep_has_axis(dep));
        let own: usize = print.deps.iter().map(|dep| self.dep_weight(dep)).sum();
        all.retain(|dep| own + self.dep_weight(dep) <= HEAVY);
        (!all.is_empty()).then(|| random.pick(&all).clone())
    }

    /// Any number: one in two is a param, the axis now and then.
    fn any_number(&self, random: &mut Random) -> Number {
        match random.below(8) {
            0 => Number::Axis,
            1..4 => Number::Param(random.pick(&self.params).0.clone()),
            _ => Number::Given(random.below(4)),
        }
    }

    pub fn stage(&self, id: u64) -> &Stage {
        self.stages.iter().find(|stage| stage.id == id).expect("a stage that is read is there")
    }

    /// All frames there are.
    pub fn frames(&self) -> Vec<Frame> {
        let outputs = |stage: &Stage| -> &'static [&'static str] {
            match stage.work {
                Work::Read { .. } | Work::Sql { .. } => &["frame"],
                Work::Split { .. } => &["train", "test"],
                Work::Clean { .. } | Work::Print(_) => &[],
            }
        };
        let of =
            |stage: &Stage| outputs(stage).iter().map(|output| Frame { stage: stage.id, output }).collect::<Vec<_>>();
        self.stages.iter().flat_map(of).collect()
    }

    /// Whether a frame has all rows, so that it can be split.
    pub fn is_whole(&self, frame: &Frame) -> bool {
        match &self.stage(frame.stage).work {
            Work::Sql { inputs, .. } => inputs.iter().all(|input| self.is_whole(input)),
            Work::Read { .. } => true,
            _ => false,
        }
    }

    /// The columns of a frame.
    pub fn columns(&self, frame: &Frame) -> Vec<String> {
        match &self.stage(frame.stage).work {
            Work::Read { columns: Some(columns), .. } => columns.clone(),
            Work::Read { from, .. } => {
                self.tables[self.table_of(*from)].columns.iter().map(|(name, _)| name.clone()).collect()
            }
            Work::Sql { picks, .. } => {
                ["id".to_owned()].into_iter().chain((0..picks.len()).map(|at| format!("y{at}"))).collect()
            }
            Work::Split { input, .. } => self.columns(input),
            Work::Clean { .. } | Work::Print(_) => Vec::new(),
        }
    }

    fn table_of(&self, origin: Origin) -> usize {
        match origin {
            Origin::Table(table) => table,
            Origin::Cleaned(stage) => match self.stage(stage).work {
                Work::Clean { table } => table,
                _ => unreachable!("only what cleans is read as cleaned"),
            },
        }
    }

    /// Whether any stage needs the values of a column.
    pub fn is_read(&self, frame: &Frame, column: &str) -> bool {
        self.stages.iter().any(|stage| match &stage.work {
            Work::Sql { inputs, picks, .. } => inputs.iter().enumerate().any(|(at, input)| {
                input == frame && (column == "id" || picks.iter().any(|pick| pick.input == at && pick.column == column))
            }),
            Work::Split { input, .. } => {
                let passed = |output| self.is_read(&Frame { stage: stage.id, output }, column);
                input == frame && (passed("train") || passed("test"))
            }
            Work::Print(print) => print.deps.contains(&Dep::Mount(frame.clone())),
            Work::Read { .. } | Work::Clean { .. } => false,
        })
    }

    /// The stages whose outputs this one names.
    pub fn sources(&self, work: &Work) -> Vec<u64> {
        match work {
            Work::Read { from: Origin::Cleaned(stage), .. } => vec![*stage],
            Work::Read { .. } | Work::Clean { .. } => Vec::new(),
            Work::Sql { inputs, .. } => inputs.iter().map(|input| input.stage).collect(),
            Work::Split { input, .. } => vec![input.stage],
            Work::Print(print) => print
                .deps
                .iter()
                .filter_map(|dep| match dep {
                    Dep::Out(stage) | Dep::Gathered(stage) | Dep::Mount(Frame { stage, .. }) => Some(*stage),
                    Dep::File(_) | Dep::Folder(_) => None,
                })
                .collect(),
        }
    }

    /// The params and the axis that a stage mentions.
    pub fn numbers<'a>(&self, work: &'a Work) -> Vec<&'a Number> {
        match work {
            Work::Sql { picks, .. } => picks.iter().map(|pick| &pick.added).collect(),
            Work::Split { seed, .. } => vec![seed],
            Work::Print(print) => print.numbers.iter().collect(),
            Work::Read { .. } | Work::Clean { .. } => Vec::new(),
        }
    }

    pub fn has_axis(&self, id: u64) -> bool {
        self.work_has_axis(&self.stage(id).work)
    }

    fn work_has_axis(&self, work: &Work) -> bool {
        let gathered = |id: &u64| matches!(work, Work::Print(print) if print.deps.contains(&Dep::Gathered(*id)));
        self.numbers(work).contains(&&Number::Axis)
            || self.sources(work).iter().any(|id| !gathered(id) && self.has_axis(*id))
    }

    fn dep_has_axis(&self, dep: &Dep) -> bool {
        match dep {
            Dep::Out(id) | Dep::Mount(Frame { stage: id, .. }) => self.has_axis(*id),
            Dep::File(_) | Dep::Folder(_) | Dep::Gathered(_) => false,
        }
    }

    /// How many lines a stage gives, about.
    fn weight(&self, id: u64) -> usize {
        match &self.stage(id).work {
            Work::Print(print) => 3 + print.deps.iter().map(|dep| self.dep_weight(dep)).sum::<usize>(),
            _ => ROWS as usize,
        }
    }

    fn dep_weight(&self, dep: &Dep) -> usize {
        match dep {
            Dep::File(_) => 3,
            Dep::Folder(_) => 12,
            Dep::Out(id) | Dep::Mount(Frame { stage: id, .. }) => self.weight(*id),
            Dep::Gathered(id) => 3 * self.weight(*id),
        }
    }

    /// The out of a command.
    pub fn out(&self, stage: &Stage) -> String {
        let id = stage.id;
        match &stage.work {
            Work::Clean { .. } => format!("out/{id}.csv"),
            Work::Print(print) if print.makes_folder => format!("out/{id}.d"),
            _ if self.has_axis(id) => format!("out/{id}/${{k}}.txt"),
            _ => format!("out/{id}.txt"),
        }
    }

    /// The outs of all nodes.
    pub fn outs(&self) -> BTreeSet<String> {
        let of = |stage: &Stage| {
            let out = self.out(stage);
            self.axis.iter().map(move |value| out.replace("${k}", &value.to_string())).collect::<Vec<_>>()
        };
        let commands = self.stages.iter().filter(|stage| matches!(stage.work, Work::Clean { .. } | Work::Print(_)));
        commands.flat_map(of).collect()
    }

    /// Where a dep stands, up to the first param.
    pub fn dep_place(&self, dep: &Dep) -> String {
        match dep {
            Dep::File(path) | Dep::Folder(path) => path.clone(),
            Dep::Out(id) if self.has_axis(*id) => format!("out/{id}"),
            Dep::Out(id) => self.out(self.stage(*id)),
            Dep::Gathered(id) => format!("out/{id}"),
            Dep::Mount(frame) => format!("in/{}-{}.csv", frame.stage, frame.output),
        }
    }

    fn dep_text(&self, dep: &Dep) -> String {
        match dep {
            Dep::Out(id) => format!("\"{}\"", self.out(self.stage(*id))),
            Dep::Mount(frame) => {
                format!("{{ from = \"{}\", as = \"{}\" }}", self.reference(frame), self.dep_place(dep))
            }
            other => format!("\"{}\"", self.dep_place(other)),
        }
    }

    /// `stage.output`.
    pub fn reference(&self, frame: &Frame) -> String {
        format!("{}.{}", self.stage(frame.stage).name, frame.output)
    }

    /// All files of the project.
    pub fn files(&self) -> BTreeMap<String, String> {
        let texts = self.texts.iter().map(|(path, lines)| (path.clone(), format!("{}\n", lines.join("\n"))));
        let tables = self.tables.iter().map(|table| (table.path.clone(), table.text()));
        texts.chain(tables).chain([("pipeline.toml".to_owned(), self.pipeline())]).collect()
    }

    fn pipeline(&self) -> String {
        let mut spaces = Spaces(Random::of(self.layout.spaces, 1), self.layout.spaces > 0);
        let mut text = String::new();
        spaces.line("[params]", &mut text);
        for (name, value) in &self.params {
            spaces.entry(name, &value.to_string(), &mut text);
        }
        spaces.line("[matrix]", &mut text);
        spaces.entry("k", &format!("{:?}", self.axis), &mut text);
        let (mut keys, mut order) = (Random::of(self.layout.keys, 2), Random::of(self.layout.stages, 3));
        let mut stages: Vec<&Stage> = self.stages.iter().collect();
        shuffle(&mut stages, self.layout.stages, &mut order);
        for stage in stages {
            spaces.line(&format!("[stages.{}]", stage.name), &mut text);
            let mut entries = self.entries(stage);
            shuffle(&mut entries, self.layout.keys, &mut keys);
            for (key, value) in entries {
                spaces.entry(key, &value, &mut text);
            }
        }
        text
    }

    fn entries(&self, stage: &Stage) -> Vec<(&'static str, String)> {
        let quoted = |texts: &[String]| format!("{texts:?}");
        match &stage.work {
            Work::Read { from, columns, null_values } => {
                let path = match from {
                    Origin::Table(table) => self.tables[*table].path.clone(),
                    Origin::Cleaned(id) => self.out(self.stage(*id)),
                };
                let mut entries = vec![("uses", "\"read\"".into()), ("path", format!("\"{path}\""))];
                entries.extend(columns.as_ref().map(|columns| ("columns", quoted(columns))));
                entries.extend((!null_values.is_empty()).then(|| ("null_values", quoted(null_values))));
                entries
            }
            Work::Sql { inputs, picks, spaces } => {
                let input = |(at, frame): (usize, &Frame)| format!("{} = \"{}\"", ALIASES[at], self.reference(frame));
                let inputs: Vec<String> = inputs.iter().enumerate().map(input).collect();
                let query = format!("'''{}'''", query(inputs.len(), picks, *spaces));
                vec![("uses", "\"sql\"".into()), ("inputs", format!("{{ {} }}", inputs.join(", "))), ("query", query)]
            }
            Work::Split { input, percent, seed } => vec![
                ("uses", "\"split\"".into()),
                ("input", format!("\"{}\"", self.reference(input))),
                ("test", format!("0.{percent}")),
                ("seed", seed.value()),
            ],
            Work::Clean { table } => {
                let (from, to) = (&self.tables[*table].path, self.out(stage));
                let line = format!(
                    r##"while IFS= read -r l; do case "$l" in "#"*) ;; *) echo "$l";; esac; done < {from} > {to}"##
                );
                vec![
                    ("run", format!("'''{line}'''")),
                    ("deps", format!("[\"{from}\"]")),
                    ("outs", format!("[\"{to}\"]")),
                ]
            }
            Work::Print(print) => {
                let out = self.out(stage);
                let mut entries =
                    vec![("run", format!("'''{}'''", print.line(&out))), ("outs", format!("[\"{out}\"]"))];
                let deps: Vec<String> = print.deps.iter().map(|dep| self.dep_text(dep)).collect();
                entries.extend((!deps.is_empty()).then(|| ("deps", format!("[{}]", deps.join(", ")))));
                entries.extend((!print.variables.is_empty()).then(|| ("env", quoted(&print.variables))));
                entries
            }
        }
    }
}

impl Print {
    /// Nothing but words of the shell itself, as other programs are asked for their versions in each call.
    fn line(&self, out: &str) -> String {
        let each = match self.drops_comments {
            true => r##"case "$l" in "#"*) ;; *) echo "$l";; esac"##,
            false => r#"echo "$l""#,
        };
        let walk = format!(
            r#"w() {{ for e in "$1"/*; do if [ -d "$e" ]; then w "$e"; elif [ -f "$e" ] && [ "$e" != ./{out} ]; then echo "+ $e"; while IFS= read -r l; do {each}; done < "$e"; fi; done; }}"#
        );
        let mut said: Vec<String> = self.words.clone();
        said.extend(self.numbers.iter().map(Number::text));
        said.extend(self.variables.iter().map(|name| format!("\"${name}\"")));
        let script = self.script.as_ref().map(|path| format!(" ./{path};")).unwrap_or_default();
        let said = said.join(" ");
        match self.makes_folder {
            true => format!(
                r#"{walk}; w . > "$TMPDIR"/all; mkdir {out}; {{ echo {said};{script} }} > {out}/said; while IFS= read -r l; do echo "$l"; done < "$TMPDIR"/all > {out}/all"#
            ),
            false => format!("{walk}; {{ echo {said};{script} w .; }} > {out}"),
        }
    }
}

fn query(inputs: usize, picks: &[Pick], spaces: u64) -> String {
    let pick = |(at, pick): (usize, &Pick)| {
        format!("{}.{} + {} as y{at}", ALIASES[pick.input], pick.column, pick.added.text())
    };
    let picks: Vec<String> = picks.iter().enumerate().map(pick).collect();
    let join = if inputs > 1 { "a join b on a.id = b.id" } else { "a" };
    let text = format!("select a.id, {} from {join}", picks.join(", "));
    if spaces == 0 {
        return text;
    }
    let mut random = Random::of(spaces, 4);
    let gap = |random: &mut Random| *random.pick(&[" ", "  ", "\n", " /* why */ ", " -- a note\n"]);
    text.split(' ').fold(
        String::new(),
        |text, word| if text.is_empty() { word.to_owned() } else { text + gap(&mut random) + word },
    )
}

/// Comments and white space between what is written.
struct Spaces(Random, bool);

impl Spaces {
    fn line(&mut self, line: &str, text: &mut String) {
        if self.1 && self.0.once_in(3) {
            let gap: &&str = self.0.pick(&["\n", "\n\n", "# a comment\n"]);
            text.push_str(gap);
        }
        text.push_str(line);
        text.push_str(if self.1 && self.0.once_in(4) { "  # of this\n" } else { "\n" });
    }

    fn entry(&mut self, key: &str, value: &str, text: &mut String) {
        let equals = if self.1 { *self.0.pick(&[" = ", "=", "  =  "]) } else { " = " };
        self.line(&format!("{key}{equals}{value}"), text);
    }
}

fn shuffle<T>(all: &mut [T], seed: u64, random: &mut Random) {
    for at in (1..all.len()).rev().filter(|_| seed > 0) {
        all.swap(at, random.below(at as u64 + 1) as usize);
    }
}

/// A word that no two edits of one pipeline are likely to choose.
pub fn word(random: &mut Random) -> String {
    format!("w{:04}", random.below(10_000))
}

/// Some lines, of which one is a comment.
pub fn lines(random: &mut Random) -> Vec<String> {
    vec![word(random), format!("# {}", word(random)), word(random)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_the_files_and_another_one_gives_others() {
        let files = |seed| Sketch::any(&mut Random::of(seed, 1)).files();
        assert_eq!(files(1), files(1));
        assert_ne!(files(1), files(2));
    }

    #[test]
    fn another_layout_changes_the_pipeline_file_alone() {
        let plain = Sketch::any(&mut Random::of(1, 1));
        let layout = Layout { spaces: 3, keys: 4, stages: 5 };
        let (old, new) = (plain.files(), Sketch { layout, ..plain }.files());
        let changed: Vec<&String> = old.keys().filter(|path| old[*path] != new[*path]).collect();
        assert_eq!(changed, ["pipeline.toml"]);
    }
}
