//! Reasons and changes as sentences: what differs, old -> new, and where that is set.
//!
//! The engine gives manifests' labels; this file knows what users call them.

use std::collections::BTreeMap;

use headwater_engine::{Change, NodeId, Reason};

use crate::journal::NodeLine;
use crate::pipeline::Pipeline;

/// How much of a value a sentence shows, and how much of that stands before the place where two values differ.
const SHOWN: usize = 60;
const BEFORE: usize = 20;

/// Why a node runs, in one line.
pub fn sentence(reason: &Reason, id: NodeId, pipeline: &Pipeline, last: Option<&NodeLine>) -> String {
    match reason {
        Reason::Forced => "forced".into(),
        Reason::New => "new".into(),
        Reason::Forgotten => "its record is gone".into(),
        Reason::Lost(digest) => format!("its output {} is gone or damaged", digest.short()),
        Reason::Unknown(upstream) => {
            let names: Vec<&str> = upstream.iter().map(|id| pipeline.graph.node(*id).name.as_str()).collect();
            format!("below {}", first_and_more(&names))
        }
        Reason::Changed(changes) if changes.is_empty() => "what it reads has changed".into(),
        Reason::Changed(changes) => {
            let mut causes = params(id, pipeline, last);
            if causes.is_empty() || changes.iter().all(|change| !change.label.starts_with("config.")) {
                let read = last.map(|last| last.inputs.clone()).unwrap_or_default();
                causes = changes.iter().map(|change| cause(change, id, pipeline, &read)).collect();
            }
            let causes: Vec<&str> = causes.iter().map(String::as_str).collect();
            first_and_more(&causes)
        }
    }
}

fn first_and_more(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first, rest @ ..] => format!("{first} and {} more", rest.len()),
    }
}

/// The params of a node that differ from its last finish.
pub fn params(id: NodeId, pipeline: &Pipeline, last: Option<&NodeLine>) -> Vec<String> {
    let Some(last) = last else { return Vec::new() };
    let mut changed = Vec::new();
    for (name, value) in &pipeline.nodes[id.0].params {
        let Some(old) = last.params.get(name).filter(|old| *old != value) else { continue };
        let place = pipeline.param_line(id, name).map(|line| format!(" ({}:{line})", file_name(pipeline)));
        changed.push(format!("param {name} {}{}", turn(old, value), place.unwrap_or_default()));
    }
    changed
}

/// One change, with the place of a config field; `read` are the inputs that the node had before, some of which may be gone.
pub fn cause(change: &Change, id: NodeId, pipeline: &Pipeline, read: &BTreeMap<String, String>) -> String {
    let mut ports = ports(id, pipeline);
    ports.extend(read.keys().map(String::as_str));
    let text = difference(change, &ports);
    match change.label.strip_prefix("config.") {
        Some(field) if !field.starts_with("tools.") && !field.starts_with("env.") => {
            format!("{text} ({}:{})", file_name(pipeline), pipeline.config_line(id, field))
        }
        _ => text,
    }
}

/// The names of a node's inputs.
fn ports(id: NodeId, pipeline: &Pipeline) -> Vec<&str> {
    pipeline.graph.inputs(id).iter().map(|input| input.port.as_str()).collect()
}

/// One change of a node with these ports, without a place.
pub fn difference(change: &Change, ports: &[&str]) -> String {
    let what = subject(&change.label, ports);
    match (&change.old, &change.new) {
        (Some(old), Some(new)) => format!("{what} {}", turn(&plain(old), &plain(new))),
        (None, Some(new)) => format!("{what} added: {}", shown(&plain(new))),
        (Some(old), None) => format!("{what} removed: {}", shown(&plain(old))),
        (None, None) => what,
    }
}

/// What a manifest's label is called.
fn subject(label: &str, ports: &[&str]) -> String {
    if let Some(field) = label.strip_prefix("config.tools.") {
        return format!("version of {field}");
    }
    if let Some(field) = label.strip_prefix("config.") {
        return field.to_owned();
    }
    let Some(input) = label.strip_prefix("input.") else {
        return if label == "kind" { "code of the kind".into() } else { label.to_owned() };
    };
    match input_entry(input, ports) {
        (port, Some(":rows")) => format!("rows of input {port}"),
        (port, Some(entry)) => format!("{entry} of input {port}"),
        (port, None) => format!("input {port}"),
    }
}

/// `port/entry` or `port[label]/entry`; a port that is a path holds slashes itself, so the node's ports decide.
fn input_entry<'a>(input: &'a str, ports: &[&str]) -> (&'a str, Option<&'a str>) {
    let known = port_of(input, ports).map_or(0, str::len);
    let after = input[known..].find(']').map_or(known, |at| known + at);
    match input[after..].find('/') {
        Some(at) => (&input[..after + at], Some(&input[after + at + 1..])),
        None => (input, None),
    }
}

/// The longest of the ports that a label begins with.
fn port_of<'a>(input: &'a str, ports: &[&str]) -> Option<&'a str> {
    let begins =
        |port: &&&str| input.strip_prefix(**port).is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '/']));
    ports.iter().filter(begins).map(|port| &input[..port.len()]).max_by_key(|port| port.len())
}

/// The port of a changed input, if the change is one.
pub fn port<'a>(label: &'a str, id: NodeId, pipeline: &Pipeline) -> Option<&'a str> {
    port_of(label.strip_prefix("input.")?, &ports(id, pipeline))
}

/// Whether a change is of an entry of an input, and not of the input as a whole.
pub fn is_entry(label: &str, id: NodeId, pipeline: &Pipeline) -> bool {
    label.strip_prefix("input.").is_some_and(|input| input_entry(input, &ports(id, pipeline)).1.is_some())
}

/// Digests are cut to their beginning.
fn plain(value: &str) -> String {
    let word = |word: &str| match word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit()) {
        true => word[..12].to_owned(),
        false => word.to_owned(),
    };
    let words: Vec<String> = value.split(' ').map(word).collect();
    words.join(" ")
}

pub fn shown(text: &str) -> String {
    shown_from(text, 0)
}

/// As much as is shown of a text, from a character on.
fn shown_from(text: &str, begin: usize) -> String {
    let line = text.replace('\n', " ");
    let some: String = line.chars().skip(begin).take(SHOWN).collect();
    let ahead = if begin > 0 { "…" } else { "" };
    let behind = if line.chars().nth(begin + SHOWN).is_some() { "…" } else { "" };
    format!("{ahead}{some}{behind}")
}

/// `old -> new`; of long texts that begin alike what is shown begins shortly before they differ.
pub fn turn(old: &str, new: &str) -> String {
    let fit = [old, new].iter().all(|text| text.chars().count() <= SHOWN);
    let alike = old.chars().zip(new.chars()).take_while(|(old, new)| old == new).count();
    let begin = if fit || alike + BEFORE < SHOWN { 0 } else { alike - BEFORE };
    format!("{} -> {}", shown_from(old, begin), shown_from(new, begin))
}

/// The pipeline file's name, for places.
pub fn file_name(pipeline: &Pipeline) -> String {
    pipeline.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(label: &str, old: Option<&str>, new: Option<&str>) -> String {
        difference(&Change { label: label.into(), old: old.map(Into::into), new: new.map(Into::into) }, &[])
    }

    #[test]
    fn a_config_field_is_named_as_in_the_file() {
        assert_eq!(text("config.model.l2", Some("1.0"), Some("2.0")), "model.l2 1.0 -> 2.0");
    }

    #[test]
    fn of_long_values_is_shown_where_they_differ() {
        assert_eq!(turn("1", "2"), "1 -> 2");
        let text = |word: &str| format!("{}{word}{}", "ä".repeat(100), "z".repeat(100));
        let shown = |word: &str| format!("…{}{word}{}…", "ä".repeat(20), "z".repeat(39));
        assert_eq!(turn(&text("x"), &text("y")), format!("{} -> {}", shown("x"), shown("y")));
        let long = "a".repeat(70);
        assert_eq!(turn(&long, &format!("{long}b")), format!("…{} -> …{}b", "a".repeat(20), "a".repeat(20)));
    }

    #[test]
    fn a_column_is_named_with_its_input() {
        let (old, new) = (format!("f64 {}", "a".repeat(64)), format!("f64 {}", "b".repeat(64)));
        assert_eq!(
            text("input.train/dep_delay", Some(&old), Some(&new)),
            "dep_delay of input train f64 aaaaaaaaaaaa -> f64 bbbbbbbbbbbb"
        );
        assert_eq!(text("input.train/:rows", None, None), "rows of input train");
    }

    #[test]
    fn a_gathered_input_keeps_its_label() {
        assert_eq!(text("input.metrics[l2=0.5]", None, Some("x")), "input metrics[l2=0.5] added: x");
        assert_eq!(port_of("metrics[l2=0.5]/a", &["metrics", "met"]), Some("metrics"));
    }

    #[test]
    fn a_port_that_is_a_path_is_named_whole() {
        let ports = ["data", "data/in.txt"];
        assert_eq!(input_entry("data/in.txt", &ports), ("data/in.txt", None));
        assert_eq!(input_entry("data/other/a", &ports), ("data", Some("other/a")));
    }
}
