//! Random pipelines and edits, against a simulation that knows no keys, records or stores.
//!
//! Every node reads tables, makes one column out of what it selects, and gives that column alone or laid over its first
//! input. Columns have few values, so that early cutoff and equal keys are common.

use std::collections::BTreeSet;

use headwater_cache::{Artifact, Digest, Entry, Tree};
use headwater_engine::Options;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::bench::{Bench, Draft, Told, blob, flip, stage, table};

const COLUMNS: [&str; 3] = ["x", "y", "z"];

#[derive(Debug, Clone)]
struct Shape {
    /// The nodes read; without any, the source.
    reads: Vec<usize>,
    passes: bool,
    makes: usize,
}

/// What may change from run to run.
#[derive(Debug, Clone)]
struct Edit {
    sources: [(u8, u8); 2],
    configs: Vec<u8>,
    /// The one column that a node selects, or all.
    selects: Vec<Option<usize>>,
}

type Table = Vec<(String, String)>;

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let shape = (vec(any::<Index>(), 1..3), any::<bool>(), 0..COLUMNS.len());
    vec(shape, 1..8).prop_map(|drawn| {
        let shape = |(at, (picks, passes, makes)): (usize, (Vec<Index>, bool, usize))| {
            // Two sources stand before all nodes.
            let mut reads: Vec<usize> = picks.iter().map(|pick| pick.index(at + 2)).collect();
            reads.dedup();
            Shape { reads, passes, makes }
        };
        drawn.into_iter().enumerate().map(shape).collect()
    })
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let selects = prop_oneof![Just(None), (0..COLUMNS.len()).prop_map(Some)];
    let sources = [(0..2u8, 0..2u8), (0..2u8, 0..2u8)];
    let edit = (sources, vec(0..2u8, 8), vec(selects, 8));
    vec(edit.prop_map(|(sources, configs, selects)| Edit { sources, configs, selects }), 2..5)
}

fn source_table((x, y): (u8, u8)) -> Table {
    vec![("x".into(), x.to_string()), ("y".into(), y.to_string())]
}

fn text(table: &Table) -> String {
    let pairs: Vec<String> = table.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

/// What a node makes out of what it read: a text of `x=1 y=0+x=1`.
fn value_of(config: &str, read: &str) -> u8 {
    let digits = read.bytes().chain(config.bytes()).filter(u8::is_ascii_digit).map(|digit| digit - b'0');
    digits.fold(0, |sum, digit| (sum * 2 + digit) % 3)
}

fn name(at: usize) -> String {
    format!("n{at}")
}

fn drafts(shapes: &[Shape], edit: &Edit) -> Vec<Draft> {
    let sources = [table("n0", "a"), table("n1", "b")];
    let node = |(at, shape): (usize, &Shape)| {
        let makes = COLUMNS[shape.makes];
        let mut draft = stage(&name(at + 2)).kind("make").config(&format!("{}{makes}", edit.configs[at]));
        for read in &shape.reads {
            draft = draft.after(&name(*read));
        }
        if let Some(column) = edit.selects[at] {
            draft = draft.reads(&[COLUMNS[column]]);
        }
        if shape.passes {
            draft = draft.passing();
        }
        draft.work(move |work| {
            let value = value_of(&work.config[..1], &work.read()?);
            work.put_tree("rows", &format!("{makes}={value}"))
        })
    };
    sources.into_iter().chain(shapes.iter().enumerate().map(node)).collect()
}

/// What a whole run from scratch gives, and what each node reads, its config or file included, as a text.
struct Expected {
    tables: Vec<Table>,
    reads: Vec<String>,
}

fn simulate(shapes: &[Shape], edit: &Edit) -> Expected {
    let mut tables: Vec<Table> = edit.sources.iter().map(|source| source_table(*source)).collect();
    let mut reads: Vec<String> =
        ["a", "b"].iter().zip(&tables).map(|(file, t)| format!("{file} {}", text(t))).collect();
    for (at, shape) in shapes.iter().enumerate() {
        let selected = |read: &usize| {
            let table = tables[*read].iter();
            let within = table.filter(|(name, _)| edit.selects[at].is_none_or(|column| COLUMNS[column] == name));
            text(&within.cloned().collect())
        };
        let read: Vec<String> = shape.reads.iter().map(selected).collect();
        let read = read.join("+");
        let makes = COLUMNS[shape.makes].to_owned();
        let value = value_of(&edit.configs[at].to_string(), &read).to_string();
        reads.push(format!("{}{makes} {read}", edit.configs[at]));
        let mut table = if shape.passes { tables[shape.reads[0]].clone() } else { Vec::new() };
        match table.iter_mut().find(|(name, _)| *name == makes) {
            Some(column) => column.1 = value,
            None => table.push((makes, value)),
        }
        tables.push(table);
    }
    Expected { tables, reads }
}

fn check_outputs(bench: &Bench, told: &Told, expected: &Expected) -> Result<(), TestCaseError> {
    for (at, table) in expected.tables.iter().enumerate() {
        prop_assert_eq!(bench.output(told, &name(at)), format!("rows: {}", text(table)));
    }
    Ok(())
}

/// What the store calls a table; it need not be read, as what nothing read may still be damaged.
fn digest(table: &Table) -> Digest {
    let entry = |(name, value): &(String, String)| {
        let Artifact { type_name, shape, digest, bytes } = blob(value);
        Entry { name: name.clone(), type_name, shape, digest, bytes }
    };
    let tree = Tree { header: "rows".into(), entries: table.iter().map(entry).collect() };
    Digest::of(&tree.encode().unwrap())
}

fn set_sources(bench: &Bench, edit: &Edit) {
    for (path, source) in ["a", "b"].iter().zip(edit.sources) {
        bench.files.set(path, &text(&source_table(source)));
    }
}

fn run(bench: &mut Bench, shapes: &[Shape], edit: &Edit, jobs: usize) -> Told {
    set_sources(bench, edit);
    bench.run_with(&drafts(shapes, edit), &Options { jobs, ..Options::default() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn exactly_what_was_never_computed_is_computed(shapes in shapes(), edits in edits(), jobs in prop_oneof![Just(1), Just(3)]) {
        let mut bench = Bench::new(&[]);
        let mut computed = BTreeSet::new();
        for edit in &edits {
            bench.reopen();
            let expected = simulate(&shapes, edit);
            let fresh: BTreeSet<&String> = expected.reads.iter().filter(|read| !computed.contains(*read)).collect();
            let told = run(&mut bench, &shapes, edit, jobs);
            let called = told.called.iter().map(|name| &expected.reads[name[1..].parse::<usize>().unwrap()]);
            prop_assert_eq!(called.clone().count(), fresh.len());
            prop_assert_eq!(called.collect::<BTreeSet<_>>(), fresh.clone());
            prop_assert_eq!(told.summary.ran, fresh.len());
            prop_assert_eq!(told.summary.ran + told.summary.cached, expected.tables.len());
            check_outputs(&bench, &told, &expected)?;
            computed.extend(expected.reads.clone());
        }
    }

    #[test]
    fn no_loss_or_damage_changes_an_output(
        shapes in shapes(),
        edits in edits(),
        hits in vec((any::<Index>(), any::<bool>()), 1..6),
        jobs in prop_oneof![Just(1), Just(3)],
    ) {
        let mut bench = Bench::new(&[]);
        for edit in &edits {
            bench.reopen();
            let told = run(&mut bench, &shapes, edit, jobs);
            prop_assert_eq!(told.summary.ran + told.summary.cached, shapes.len() + 2, "{:?} {:?}", told.events, told.finishes);
            for (at, table) in simulate(&shapes, edit).tables.iter().enumerate() {
                prop_assert_eq!(told.finishes[&name(at)].outputs[0].digest, digest(table));
            }
            let blobs: Vec<_> = bench.listing().into_iter().map(|(path, _)| path).collect();
            let blobs: Vec<_> = blobs.iter().filter(|path| path.starts_with(bench.store.root().join("blobs"))).collect();
            for (index, gone) in &hits {
                let path = index.get(&blobs);
                match (path.exists(), gone) {
                    (true, true) => std::fs::remove_file(path).unwrap(),
                    (true, false) => flip(path),
                    _ => {}
                }
            }
        }
    }
}
