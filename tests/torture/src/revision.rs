//! `Revision`: one edit of a sketch, as a person makes it, and what is to be said of it.
//!
//! Half a dozen sorts of edits mean nothing: touching, laying out, renaming, moving. It does not know what a run makes of
//! an edit. Invariants: a revised sketch is a pipeline that runs; what is `cosmetic` changes nothing that any stage reads,
//! but for the stages that read a file which got another unread column.

use std::collections::BTreeSet;

use crate::random::Random;
use crate::sketch::{ALIASES, Dep, Frame, Number, Origin, Print, ROWS, Sketch, Stage, Work, lines, word};
use crate::ways::{WAYS, Way};

/// An edit that was made to a sketch.
#[derive(Debug, Clone)]
pub struct Revision {
    /// For messages.
    pub what: String,
    pub cosmetic: bool,
    pub names: Names,
    /// The stages that a cosmetic edit lets run: those that read a file which changed.
    pub readers: BTreeSet<String>,
    /// How files that changed are written.
    pub way: Way,
    pub deed: Deed,
}

/// What the first line of an explanation must hold.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub all: Vec<String>,
    /// At least one of these, if there are any.
    pub any: Vec<String>,
    /// What was not there before.
    pub new: Option<String>,
}

/// What is done beside writing what differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    Nothing,
    Touch(String),
    Mode(String, u32),
    /// The project is moved elsewhere.
    Move,
}

type Maker = fn(&mut Sketch, &mut Random) -> Option<Revision>;

const MEANT: [Maker; 17] = [
    param_value,
    param_value,
    a_word,
    text,
    text,
    file_added,
    file_removed,
    field,
    query,
    cell,
    comment,
    variable,
    script,
    dep_added,
    dep_removed,
    stage,
    axis,
];
const COSMETIC: [Maker; 12] = [
    touched,
    spaces,
    keys,
    order,
    renamed,
    query_spaces,
    param_nobody_mentions,
    variable_nobody_declares,
    moved,
    mode,
    file_nobody_reads,
    column_nobody_reads,
];

/// One edit in so many is cosmetic, times ten.
const COSMETIC_OF_TEN: u64 = 4;

impl Revision {
    /// Makes any edit.
    pub fn of(sketch: &mut Sketch, random: &mut Random) -> Self {
        let makers: &[Maker] = if random.below(10) < COSMETIC_OF_TEN { &COSMETIC } else { &MEANT };
        loop {
            // One that cannot be made here may have begun.
            let mut revised = sketch.clone();
            if let Some(revision) = random.pick(makers)(&mut revised, random)
                && (revised != *sketch || revision.deed != Deed::Nothing)
            {
                *sketch = revised;
                return revision;
            }
        }
    }

    /// The edit that takes this one back.
    pub fn undone(&self) -> Self {
        let what = format!("undone: {}", self.what);
        let any = self.names.any.iter().filter(|name| !name.starts_with(" -> ")).cloned().collect();
        let names = Names { new: None, any, ..self.names.clone() };
        Self { what, names, deed: Deed::Nothing, ..self.clone() }
    }

    fn meant(what: String, names: &[&str]) -> Option<Self> {
        let all = names.iter().map(|name| (*name).to_owned()).collect();
        Some(Self { cosmetic: false, names: Names { all, ..Names::default() }, ..Self::nothing(what) })
    }

    fn with_new(self, new: String) -> Self {
        Self { names: Names { new: Some(new), ..self.names }, ..self }
    }

    fn cosmetic(what: String) -> Option<Self> {
        Some(Self::nothing(what))
    }

    fn nothing(what: String) -> Self {
        let (names, readers, way, deed) = (Names::default(), BTreeSet::new(), Way::Plain, Deed::Nothing);
        Self { what, cosmetic: true, names, readers, way, deed }
    }

    fn by(self, random: &mut Random) -> Option<Self> {
        Some(Self { way: *random.pick(&WAYS), ..self })
    }
}

impl Names {
    /// Whether a line holds them.
    pub fn are_in(&self, line: &str) -> bool {
        let within = |name: &String| line.contains(name.as_str());
        self.all.iter().chain(&self.new).all(within) && (self.any.is_empty() || self.any.iter().any(within))
    }
}

/// A number below 4 that is another.
fn other(number: u64, random: &mut Random) -> u64 {
    (number + 1 + random.below(3)) % 4
}

/// A seed that lays something out in another way.
fn seed(random: &mut Random) -> u64 {
    1 + random.below(1 << 30)
}

fn one<'a, T>(some: Vec<T>, random: &mut Random) -> Option<T>
where
    T: Clone + 'a,
{
    (!some.is_empty()).then(|| random.pick(&some).clone())
}

/// The place of a stage of a sort.
fn place(sketch: &Sketch, random: &mut Random, is: impl Fn(&Stage) -> bool) -> Option<usize> {
    one((0..sketch.stages.len()).filter(|at| is(&sketch.stages[*at])).collect(), random)
}

fn print_at(sketch: &mut Sketch, at: usize) -> Option<&mut Print> {
    match &mut sketch.stages[at].work {
        Work::Print(print) => Some(print),
        _ => None,
    }
}

fn prints(stage: &Stage) -> bool {
    matches!(stage.work, Work::Print(_))
}

fn param_value(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let at = random.below(sketch.params.len() as u64) as usize;
    let (name, value) = &mut sketch.params[at];
    *value = other(*value, random);
    Revision::meant(format!("param {name} is {value}"), &[&format!("param {name} ")])
}

fn a_word(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let at = place(sketch, random, prints)?;
    let new = word(random);
    let words = &mut print_at(sketch, at)?.words;
    *words.last_mut()? = new.clone();
    let revision = Revision::meant(format!("a word of stage {} is {new}", sketch.stages[at].name), &["run "])?;
    Some(revision.with_new(new))
}

/// The files that commands may be given.
fn given(sketch: &Sketch) -> Vec<String> {
    sketch.texts.keys().filter(|path| path.starts_with("texts") || path.starts_with("more")).cloned().collect()
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// How a file, or one in a folder, is called: `texts/a.txt`, or `a.txt of input texts`.
fn file_names(path: &str) -> [&str; 2] {
    [file_name(path), if path.starts_with("texts") { "input texts" } else { "input more" }]
}

fn text(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let path = one(given(sketch), random)?;
    *sketch.texts.get_mut(&path)? = lines(random);
    Revision::meant(format!("new lines in {path}"), &file_names(&path))?.by(random)
}

fn file_added(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let path = format!("{}/n{}.txt", random.pick(&["texts", "texts/deep", "more"]), random.below(9));
    sketch.texts.insert(path.clone(), lines(random)).is_none().then_some(())?;
    Revision::meant(format!("{path} added"), &file_names(&path))
}

fn file_removed(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let named = |path: &String| {
        sketch.stages.iter().any(|stage| match &stage.work {
            Work::Print(print) => print.deps.contains(&Dep::File(path.clone())),
            _ => false,
        })
    };
    let extra = |path: &String| file_name(path).starts_with('n') && !named(path);
    let path = one(given(sketch).into_iter().filter(extra).collect(), random)?;
    sketch.texts.remove(&path);
    Revision::meant(format!("{path} removed"), &file_names(&path))
}

fn field(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let at = place(sketch, random, |stage| matches!(stage.work, Work::Read { .. } | Work::Split { .. }))?;
    let tables = sketch.tables.clone();
    let field = match &mut sketch.stages[at].work {
        Work::Split { seed: Number::Given(seed), .. } if random.once_in(2) => {
            *seed = other(*seed, random);
            "seed "
        }
        Work::Split { percent, .. } => {
            *percent = if *percent == 25 { 50 } else { 25 };
            "test "
        }
        Work::Read { from: Origin::Table(table), columns: Some(columns), .. } if random.once_in(2) => {
            let all = tables[*table].columns.iter().map(|(name, _)| name);
            columns.push(one(all.filter(|name| !columns.contains(name)).cloned().collect(), random)?);
            "columns"
        }
        Work::Read { null_values, .. } => {
            match null_values.pop() {
                Some(_) => {}
                None => null_values.push("none".into()),
            }
            "null_values"
        }
        _ => return None,
    };
    Revision::meant(format!("{field} of stage {}", sketch.stages[at].name), &[field])
}

/// A number in a query, or where it reads from.
fn query(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let at = place(sketch, random, |stage| matches!(stage.work, Work::Sql { .. }))?;
    let before: BTreeSet<u64> = sketch.stages[..at].iter().map(|stage| stage.id).collect();
    let old = sketch.clone();
    let Work::Sql { inputs, picks, .. } = &mut sketch.stages[at].work else { return None };
    if random.once_in(2) {
        let pick = picks.iter_mut().find(|pick| matches!(pick.added, Number::Given(_)))?;
        let Number::Given(number) = &mut pick.added else { return None };
        *number = other(*number, random);
        return Revision::meant(format!("a number in the query of {}", sketch.stages[at].name), &["query "]);
    }
    let input = random.below(inputs.len() as u64) as usize;
    let has_all = |frame: &Frame| {
        let columns = old.columns(frame);
        picks.iter().filter(|pick| pick.input == input).all(|pick| columns.contains(&pick.column))
    };
    let fits = |frame: &Frame| before.contains(&frame.stage) && *frame != inputs[input] && has_all(frame);
    // What splits it wants all rows, and what reads it has its axes.
    let is_alike = |frame: &Frame| {
        let sort = |frame: &Frame| (old.has_axis(frame.stage), old.is_whole(frame));
        sort(frame) == sort(&inputs[input])
    };
    let frame = one(old.frames().into_iter().filter(|frame| fits(frame) && is_alike(frame)).collect(), random)?;
    inputs[input] = frame.clone();
    let (port, reference) = (format!("input {}", ALIASES[input]), old.reference(&frame));
    // A stage with an axis is called by its nodes.
    let any = vec![format!(" -> {reference}"), format!(" -> {}[", old.stage(frame.stage).name)];
    let revision = Revision::meant(format!("{} now reads {reference}", sketch.stages[at].name), &[&port])?;
    Some(Revision { names: Names { any, ..revision.names }, ..revision })
}

fn cell(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let at = random.below(sketch.tables.len() as u64) as usize;
    let table = &mut sketch.tables[at];
    let column = 1 + random.below(table.columns.len() as u64 - 1) as usize;
    let row = random.below(ROWS) as usize;
    let value = &mut table.columns[column].1[row];
    *value = (*value + 1 + random.below(9)) % 10;
    let path = table.path.clone();
    Revision::meant(format!("a value in {path}"), &[&path])?.by(random)
}

/// What a command drops: nothing below it may run.
fn comment(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    if random.once_in(2) {
        let table = sketch.tables.iter_mut().find(|table| table.is_raw())?;
        *table.comments.last_mut()? = word(random);
        let path = table.path.clone();
        return Revision::meant(format!("a comment in {path}"), &[&path])?.by(random);
    }
    let path = one(given(sketch), random)?;
    let line = sketch.texts.get_mut(&path)?.iter_mut().find(|line| line.starts_with('#'))?;
    *line = format!("# {}", word(random));
    Revision::meant(format!("a comment in {path}"), &file_names(&path))?.by(random)
}

fn variable(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let declared = sketch.stages.iter().flat_map(|stage| match &stage.work {
        Work::Print(print) => print.variables.clone(),
        _ => Vec::new(),
    });
    let name = one(declared.collect(), random)?;
    let value = sketch.environment.get_mut(&name)?;
    *value = other(value.parse().ok()?, random).to_string();
    Revision::meant(format!("the variable {name} is {value}"), &[&name])
}

fn script(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let path = format!("tools/t{}.sh", random.below(2));
    *sketch.texts.get_mut(&path)?.last_mut()? = format!("echo tool {}", word(random));
    Revision::meant(format!("the script {path}"), &[&path])?.by(random)
}

fn dep_added(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let at = place(sketch, random, prints)?;
    let has_axis = sketch.has_axis(sketch.stages[at].id);
    let print = print_at(sketch, at)?.clone();
    let dep = sketch.any_dep(&print, at, has_axis, random)?;
    let path = sketch.dep_place(&dep);
    print_at(sketch, at)?.deps.push(dep);
    Revision::meant(format!("stage {} also reads {path}", sketch.stages[at].name), &[&path])
}

fn dep_removed(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let at = place(sketch, random, prints)?;
    let id = sketch.stages[at].id;
    let has_axis = sketch.has_axis(id);
    let deps = &mut print_at(sketch, at)?.deps;
    (!deps.is_empty()).then_some(())?;
    let dep = deps.remove(random.below(deps.len() as u64) as usize);
    (sketch.has_axis(id) == has_axis).then_some(())?;
    let path = sketch.dep_place(&dep);
    Revision::meant(format!("stage {} no longer reads {path}", sketch.stages[at].name), &[&path])
}

/// One more stage, or one less, with all that names it.
fn stage(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    if random.once_in(2) && sketch.stages.len() < 14 {
        let work = sketch.any_work(random);
        let id = sketch.add(work);
        let name = &sketch.stage(id).name;
        let revision = Revision::meant(format!("stage {name} added"), &[name])?;
        let any = ["new", "it has had one key only"].map(str::to_owned).to_vec();
        return Some(Revision { names: Names { any, ..revision.names }, ..revision });
    }
    let old = sketch.clone();
    let at = place(sketch, random, |_| true)?;
    let gone = sketch.stages.remove(at);
    for stage in &mut sketch.stages {
        if let Work::Print(print) = &mut stage.work {
            print.deps.retain(|dep| match dep {
                Dep::Out(id) | Dep::Gathered(id) | Dep::Mount(Frame { stage: id, .. }) => *id != gone.id,
                Dep::File(_) | Dep::Folder(_) => true,
            });
        }
    }
    let still_named = |stage: &Stage| sketch.sources(&stage.work).contains(&gone.id);
    (!sketch.stages.iter().any(still_named) && !sketch.frames().is_empty()).then_some(())?;
    let same_axes = |stage: &Stage| old.has_axis(stage.id) == sketch.has_axis(stage.id);
    sketch.stages.iter().all(same_axes).then_some(())?;
    Revision::meant(format!("stage {} removed", gone.name), &["input", &format!("/{}", gone.id)])
}

fn axis(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let at = random.below(sketch.axis.len() as u64) as usize;
    let new = one((1..=6).filter(|value| !sketch.axis.contains(value)).collect(), random)?;
    let (old, values) = (sketch.axis[at], sketch.axis.len());
    let changed = match random.below(3) {
        0 if sketch.axis.len() < 3 => {
            sketch.axis.push(new);
            vec![new]
        }
        1 if sketch.axis.len() > 1 => {
            sketch.axis.remove(at);
            vec![old]
        }
        _ => {
            sketch.axis[at] = new;
            vec![new, old]
        }
    };
    let named = changed.iter().flat_map(|value| [format!("k={value}"), format!("/{value}.txt")]);
    // With one value it is no axis, but a param, and nodes have other names.
    let is_param = |values: usize| values == 1;
    let renamed = (is_param(values) != is_param(sketch.axis.len())).then(|| "new".to_owned());
    let any = named.chain(["param k ".to_owned()]).chain(renamed).collect();
    let revision = Revision::meant(format!("the axis is {:?}", sketch.axis), &[])?;
    Some(Revision { names: Names { any, ..Names::default() }, ..revision })
}

fn touched(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let path = one(sketch.files().into_keys().collect(), random)?;
    Some(Revision { deed: Deed::Touch(path.clone()), ..Revision::cosmetic(format!("{path} touched"))? })
}

fn spaces(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    sketch.layout.spaces = seed(random);
    Revision::cosmetic("comments and white space".into())
}

fn keys(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    sketch.layout.keys = seed(random);
    Revision::cosmetic("the order of keys".into())
}

fn order(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    sketch.layout.stages = seed(random);
    Revision::cosmetic("the order of stages".into())
}

fn renamed(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let stage = one((0..sketch.stages.len()).collect(), random).map(|at| &mut sketch.stages[at])?;
    let name = format!("r{}-{}", stage.id, random.below(100));
    let old = std::mem::replace(&mut stage.name, name.clone());
    Revision::cosmetic(format!("stage {old} is called {name}"))
}

fn query_spaces(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let at = place(sketch, random, |stage| matches!(stage.work, Work::Sql { .. }))?;
    let Work::Sql { spaces, .. } = &mut sketch.stages[at].work else { return None };
    *spaces = seed(random);
    Revision::cosmetic(format!("comments and white space in the query of {}", sketch.stages[at].name))
}

fn param_nobody_mentions(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let name = format!("u{}", random.below(9));
    sketch.params.iter().all(|(known, _)| *known != name).then_some(())?;
    let value = random.below(4);
    sketch.params.insert(0, (name.clone(), value));
    Revision::cosmetic(format!("param {name} added"))
}

fn variable_nobody_declares(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let name = random.pick(&["UNDECLARED", "SEED", "PYTHONHASHSEED"]).to_string();
    sketch.environment.insert(name.clone(), random.below(99).to_string());
    Revision::cosmetic(format!("the variable {name}"))
}

fn moved(_: &mut Sketch, _: &mut Random) -> Option<Revision> {
    Some(Revision { deed: Deed::Move, ..Revision::cosmetic("the project is moved".into())? })
}

fn mode(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let path = one(sketch.files().into_keys().collect(), random)?;
    // Whether a file may be executed is part of what it is.
    let modes: [u32; 3] = if path.starts_with("tools") { [0o755, 0o700, 0o775] } else { [0o644, 0o600, 0o664] };
    let mode = *random.pick(&modes);
    Some(Revision { deed: Deed::Mode(path.clone(), mode), ..Revision::cosmetic(format!("{path} has mode {mode:o}"))? })
}

fn file_nobody_reads(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let path = format!("{}/u{}.txt", random.pick(&["notes", "data", "tools"]), random.below(4));
    match sketch.texts.remove(&path) {
        Some(_) if random.once_in(2) => Revision::cosmetic(format!("{path} removed"))?.by(random),
        _ => {
            sketch.texts.insert(path.clone(), lines(random));
            Revision::cosmetic(format!("new lines in {path}"))?.by(random)
        }
    }
}

/// A column that no stage needs gets other values, or there is one more.
fn column_nobody_reads(sketch: &mut Sketch, random: &mut Random) -> Option<Revision> {
    let at = random.below(2) as usize;
    let readers: Vec<&Stage> = sketch
        .stages
        .iter()
        .filter(|stage| matches!(stage.work, Work::Read { from: Origin::Table(table), .. } if table == at))
        .collect();
    let is_read = |column: &str| {
        readers.iter().any(|stage| {
            let frame = Frame { stage: stage.id, output: "frame" };
            sketch.columns(&frame).iter().any(|known| known == column) && sketch.is_read(&frame, column)
        })
    };
    // A frame that is printed whole shows one more column.
    let is_shown = readers.iter().any(|stage| match &stage.work {
        Work::Read { columns: None, .. } => {
            sketch.is_read(&Frame { stage: stage.id, output: "frame" }, "a column of no query")
        }
        _ => false,
    });
    let all = &sketch.tables[at].columns;
    let unread = one((1..all.len()).filter(|column| !is_read(&all[*column].0)).collect(), random);
    let names: BTreeSet<String> = readers.iter().map(|stage| stage.name.clone()).collect();
    let values: Vec<u64> = (0..ROWS).map(|_| random.below(10)).collect();
    let what = match unread {
        Some(column) if random.once_in(2) => {
            let (name, known) = &mut sketch.tables[at].columns[column];
            *known = values;
            name.clone()
        }
        _ => {
            let name = format!("c{}", sketch.tables[at].columns.len() - 1);
            (!is_shown && sketch.tables[at].columns.len() < 8).then_some(())?;
            sketch.tables[at].columns.push((name.clone(), values));
            name
        }
    };
    let what = format!("the column {what} of {}, which nobody reads", sketch.tables[at].path);
    Revision { readers: names, ..Revision::cosmetic(what)? }.by(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_never_end_and_change_something() {
        for case in 0..20 {
            let mut random = Random::of(3, case);
            let mut sketch = Sketch::any(&mut random);
            for _ in 0..40 {
                let before = sketch.clone();
                let revision = Revision::of(&mut sketch, &mut random);
                assert!(sketch != before || revision.deed != Deed::Nothing, "{}", revision.what);
            }
        }
    }
}
