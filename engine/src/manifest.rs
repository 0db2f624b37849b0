//! `Manifest`: the labelled lines whose hash is a node's key.
//!
//! One walk makes both the key and its explanation: two manifests compared say what changed. The text form is what is
//! hashed and what is kept in the record, so every key can be read back.
//!
//! Invariants: the encoding of lines is unambiguous (label, tab, value, newline; all three escaped inside). No absolute
//! path, no time and no node name is in a manifest.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use headwater_cache::{Digest, Entry, Tree};

use crate::stage::{Bound, Selection, Stage};

/// The version of the key's format: raised when the meaning of a manifest changes, so that old records never match.
pub const KEY_FORMAT: u32 = 1;

/// Of an input with more selected entries than this the manifest has one line for all, by their digest: a record of a
/// million lines would tell nobody more.
const MAX_LISTED: usize = 10_000;

/// The digest of a manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub Digest);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Labelled lines, in a fixed order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Manifest {
    lines: Vec<(String, String)>,
}

/// One difference between two manifests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub label: String,
    pub old: Option<String>,
    pub new: Option<String>,
}

impl Manifest {
    /// All that a node reads: its stage's identity, its configuration, and the selected entries of its inputs.
    pub fn of(stage: &Stage, inputs: &[Bound]) -> Self {
        Self::parse(&text_of(stage, inputs))
    }

    /// The lines, in order.
    pub fn lines(&self) -> &[(String, String)] {
        &self.lines
    }

    /// The text that is hashed and kept.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (label, value) in &self.lines {
            escape(label, &mut text);
            text.push('\t');
            escape(value, &mut text);
            text.push('\n');
        }
        text
    }

    /// Reads back [`Manifest::text`]; lines without a tab are passed over.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once('\t'));
        Self { lines: lines.map(|(label, value)| (unescape(label), unescape(value))).collect() }
    }

    /// The hash of the text.
    pub fn key(&self) -> Key {
        Key(Digest::of(self.text().as_bytes()))
    }

    /// What differs from an older manifest: changed and added lines in this one's order, then removed ones.
    pub fn changes_since(&self, old: &Self) -> Vec<Change> {
        if self.lines == old.lines {
            return Vec::new();
        }
        let before: BTreeMap<&str, &str> = old.lines.iter().map(|(l, v)| (l.as_str(), v.as_str())).collect();
        let now: BTreeMap<&str, &str> = self.lines.iter().map(|(l, v)| (l.as_str(), v.as_str())).collect();
        let mut changes = Vec::new();
        for (label, value) in &self.lines {
            let old = before.get(label.as_str()).map(|value| (*value).to_owned());
            if old.as_ref() != Some(value) {
                changes.push(Change { label: label.clone(), old, new: Some(value.clone()) });
            }
        }
        for (label, value) in &old.lines {
            if !now.contains_key(label.as_str()) {
                changes.push(Change { label: label.clone(), old: Some(value.clone()), new: None });
            }
        }
        if changes.is_empty() {
            changes.push(Change { label: "order".into(), old: Some("another".into()), new: Some("this".into()) });
        }
        changes
    }
}

/// The text of [`Manifest::of`]: what a run makes for each node, so it is written at once and with few allocations.
pub fn text_of(stage: &Stage, inputs: &[Bound]) -> String {
    let mut text = Text(String::with_capacity(512));
    text.line(["headwater-key"], format_args!("{KEY_FORMAT}"));
    text.line(["kind"], format_args!("{} {}", stage.kind, stage.version));
    for (label, value) in &stage.config {
        text.plain_line(["config.", label], value);
    }
    for input in inputs {
        text.push_input(input);
    }
    text.0
}

/// A manifest's text under way.
struct Text(String);

impl Text {
    fn plain_line<const N: usize>(&mut self, label: [&str; N], value: &str) {
        label.into_iter().for_each(|part| escape(part, &mut self.0));
        self.0.push('\t');
        escape(value, &mut self.0);
        self.0.push('\n');
    }

    fn line<const N: usize>(&mut self, label: [&str; N], value: fmt::Arguments<'_>) {
        label.into_iter().for_each(|part| escape(part, &mut self.0));
        self.0.push('\t');
        let begin = self.0.len();
        fmt::Write::write_fmt(&mut self.0, value).expect("a string takes all text");
        if self.0[begin..].bytes().any(is_special) {
            let value = self.0.split_off(begin);
            escape(&value, &mut self.0);
        }
        self.0.push('\n');
    }

    fn push_input(&mut self, input: &Bound) {
        let label = port_label(&input.port, &input.label);
        match &input.tree {
            Some(tree) => {
                let value = format!("{} {}", input.artifact.type_name, tree.header);
                self.plain_line(["input.", &label], value.trim_end());
                self.push_entries(&label, tree, &input.selection);
            }
            None => self.digest_line(["input.", &label], &input.artifact.type_name, &input.artifact.digest),
        }
    }

    fn digest_line<const N: usize>(&mut self, label: [&str; N], type_name: &str, digest: &Digest) {
        label.into_iter().for_each(|part| escape(part, &mut self.0));
        self.0.push('\t');
        escape(type_name, &mut self.0);
        self.0.push(' ');
        fmt::Write::write_fmt(&mut self.0, format_args!("{digest}")).expect("a string takes all text");
        self.0.push('\n');
    }

    fn push_entries(&mut self, label: &str, tree: &Tree, selection: &Selection) {
        // As a set, as a frame may have many thousand columns.
        let only: Option<BTreeSet<&str>> = match selection {
            Selection::All => None,
            Selection::Only(names) => Some(names.iter().map(String::as_str).collect()),
        };
        let selected = |entry: &&Entry| only.as_ref().is_none_or(|only| only.contains(entry.name.as_str()));
        let begin = self.0.len();
        let mut count = 0;
        for entry in tree.entries.iter().filter(selected) {
            self.digest_line(["input.", label, "/", &entry.name], &entry.type_name, &entry.digest);
            count += 1;
        }
        if count > MAX_LISTED {
            let digest = Digest::of(&self.0.as_bytes()[begin..]);
            self.0.truncate(begin);
            self.line(["input.", label, "/*"], format_args!("{count} entries {digest}"));
        }
    }
}

/// Whether an entry is within a selection.
pub fn selects(selection: &Selection, name: &str) -> bool {
    match selection {
        Selection::All => true,
        Selection::Only(names) => names.iter().any(|wanted| wanted == name),
    }
}

/// `PORT` or `PORT[axis=label,…]`, what separates these escaped inside them: two gathers that differ in their
/// labels differ here.
fn port_label<'a>(port: &'a str, label: &BTreeMap<String, String>) -> Cow<'a, str> {
    if label.is_empty() {
        return port.into();
    }
    let labels: Vec<String> =
        label.iter().map(|(axis, value)| format!("{}={}", separable(axis), separable(value))).collect();
    format!("{port}[{}]", labels.join(",")).into()
}

fn separable(text: &str) -> String {
    let escaped = |char| if matches!(char, '\\' | ',' | '=' | ']') { vec!['\\', char] } else { vec![char] };
    text.chars().flat_map(escaped).collect()
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'\\' | b'\n' | b'\r' | b'\t')
}

fn escape(text: &str, into: &mut String) {
    if !text.bytes().any(is_special) {
        return into.push_str(text);
    }
    for char in text.chars() {
        match char {
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            '\r' => into.push_str("\\r"),
            '\t' => into.push_str("\\t"),
            other => into.push(other),
        }
    }
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        if char != '\\' {
            plain.push(char);
            continue;
        }
        plain.push(match chars.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some(other) => other,
            None => '\\',
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use headwater_cache::Shape;
    use proptest::prelude::*;

    fn manifest(lines: &[(&str, &str)]) -> Manifest {
        Manifest { lines: lines.iter().map(|(l, v)| ((*l).to_owned(), (*v).to_owned())).collect() }
    }

    #[test]
    fn a_manifest_that_has_a_label_twice_has_not_changed_since_itself() {
        let twice = manifest(&[("a", "1"), ("a", "2")]);
        assert_eq!(twice.changes_since(&twice), []);
    }

    #[test]
    fn a_changed_an_added_and_a_removed_line_are_told_apart() {
        let old = manifest(&[("config.l2", "1.0"), ("config.gone", "1")]);
        let new = manifest(&[("config.l2", "2.0"), ("config.added", "3")]);
        let changes = new.changes_since(&old);
        let told: Vec<_> = changes.iter().map(|c| (c.label.as_str(), c.old.as_deref(), c.new.as_deref())).collect();
        assert_eq!(
            told,
            [
                ("config.l2", Some("1.0"), Some("2.0")),
                ("config.added", None, Some("3")),
                ("config.gone", Some("1"), None),
            ]
        );
    }

    #[test]
    fn lines_in_another_order_are_a_change() {
        let old = manifest(&[("input.a/x", "i64 1"), ("input.a/y", "i64 2")]);
        let new = manifest(&[("input.a/y", "i64 2"), ("input.a/x", "i64 1")]);
        assert_ne!(old.key(), new.key());
        assert_eq!(new.changes_since(&old)[0].label, "order");
    }

    /// The manifest of one folder with so many files, the first of which has this content.
    fn of_folder(files: usize, first: &str) -> Manifest {
        let entry = |at: usize| Entry {
            name: format!("{at:06}"),
            type_name: "file".into(),
            shape: Shape::Blob,
            digest: Digest::of(if at == 0 { first.as_bytes() } else { b"" }),
            bytes: 0,
        };
        let tree = Tree { header: String::new(), entries: (0..files).map(entry).collect() };
        let mut text = Text(String::new());
        text.push_entries("in", &tree, &Selection::All);
        Manifest::parse(&text.0)
    }

    #[test]
    fn a_folder_of_a_million_files_is_one_line_and_still_tells_one_from_another() {
        let one = of_folder(1_000_000, "a");
        assert_eq!(one.lines().len(), 1);
        let changes = of_folder(1_000_000, "b").changes_since(&one);
        assert_eq!((changes.len(), changes[0].label.as_str()), (1, "input.in/*"));
        assert!(changes[0].new.as_ref().is_some_and(|new| new.starts_with("1000000 entries ")));
        assert_eq!(of_folder(MAX_LISTED, "a").lines().len(), MAX_LISTED);
    }

    #[test]
    fn labels_that_hold_separators_stay_distinct() {
        let label = |pairs: &[(&str, &str)]| {
            port_label("in", &pairs.iter().map(|(a, v)| ((*a).to_owned(), (*v).to_owned())).collect()).into_owned()
        };
        assert_eq!(label(&[("fold", "1"), ("model", "forest")]), "in[fold=1,model=forest]");
        assert_ne!(label(&[("a", "1,b=2")]), label(&[("a", "1"), ("b", "2")]));
        assert_ne!(label(&[("a=b", "c")]), label(&[("a", "b=c")]));
    }

    proptest! {
        #[test]
        fn the_text_reads_back_as_the_same_lines(lines in proptest::collection::vec((any::<String>(), any::<String>()), 0..8)) {
            let manifest = Manifest { lines };
            prop_assert_eq!(Manifest::parse(&manifest.text()), manifest);
        }

        #[test]
        fn different_lines_have_different_texts(
            a in proptest::collection::vec(("[a\\\\\t\n]{0,3}", "[a\\\\\t\n]{0,3}"), 0..3),
            b in proptest::collection::vec(("[a\\\\\t\n]{0,3}", "[a\\\\\t\n]{0,3}"), 0..3),
        ) {
            let (a, b) = (Manifest { lines: a }, Manifest { lines: b });
            prop_assert_eq!(a == b, a.text() == b.text());
        }
    }
}
