//! `Junit`: a run as JUnit XML, which build servers show: a suite a stage, a case a node.
//!
//! What ran or was cached has passed, what failed has failed with its text, what was skipped or cancelled was skipped.
//! The elements and attributes are those on which Ant, Jenkins, GitLab and GitHub's reporters agree. It decides nothing,
//! and knows of a run what its events tell. Invariants: each node is one case, by its last end, in the order of the graph;
//! the file is well-formed whatever a command has printed.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use headwater_engine::{Event, Finish, Graph, NodeId, Outcome};
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesText, Event as Xml};

use crate::error::CommandError;
use crate::report::outcome_word;

/// What a run's events have told so far.
#[derive(Default)]
pub struct Junit {
    cases: BTreeMap<NodeId, Case>,
}

struct Case {
    outcome: Outcome,
    seconds: f64,
    error: Option<String>,
}

/// The cases of a stage, in the order of the graph.
struct Suite<'a> {
    name: &'a str,
    cases: Vec<(&'a str, &'a Case)>,
}

/// How many cases there are, and what became of them.
struct Counts {
    tests: usize,
    failures: usize,
    skipped: usize,
    seconds: f64,
}

impl Junit {
    /// Takes in an event.
    pub fn take(&mut self, event: &Event) {
        if let Event::Finished(Finish { node, outcome, seconds, error, .. }) = event {
            self.cases.insert(*node, Case { outcome: *outcome, seconds: *seconds, error: error.clone() });
        }
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written; the path is named.
    pub fn write(&self, path: &Path, pipeline: &str, graph: &Graph) -> Result<(), CommandError> {
        let text = self.text(pipeline, graph).expect("memory takes all that is written");
        crate::commands::get::write(path, &text)
    }

    fn text(&self, pipeline: &str, graph: &Graph) -> io::Result<Vec<u8>> {
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        writer.write_event(Xml::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        let suites = self.suites(graph);
        let all = Counts::of(suites.iter().flat_map(|suite| &suite.cases));
        let attributes = all.attributes(pipeline);
        let attributes = attributes.iter().map(|(name, value)| (*name, value.as_str()));
        writer
            .create_element("testsuites")
            .with_attributes(attributes)
            .write_inner_content(|writer| suites.iter().try_for_each(|suite| suite.write(writer)))?;
        let mut text = writer.into_inner();
        text.push(b'\n');
        Ok(text)
    }

    fn suites<'a>(&'a self, graph: &'a Graph) -> Vec<Suite<'a>> {
        let mut suites: Vec<Suite<'a>> = Vec::new();
        for (id, case) in &self.cases {
            let node = graph.node(*id);
            let case = (node.name.as_str(), case);
            match suites.last_mut().filter(|suite| suite.name == node.stage_name) {
                Some(suite) => suite.cases.push(case),
                None => suites.push(Suite { name: &node.stage_name, cases: vec![case] }),
            }
        }
        suites
    }
}

impl Suite<'_> {
    fn write(&self, writer: &mut Writer<Vec<u8>>) -> io::Result<()> {
        let attributes = Counts::of(&self.cases).attributes(self.name);
        let attributes = attributes.iter().map(|(name, value)| (*name, value.as_str()));
        let cases = |writer: &mut _| self.cases.iter().try_for_each(|(name, case)| case.write(self.name, name, writer));
        writer.create_element("testsuite").with_attributes(attributes).write_inner_content(cases)?;
        Ok(())
    }
}

impl Case {
    fn write(&self, stage: &str, node: &str, writer: &mut Writer<Vec<u8>>) -> io::Result<()> {
        let time = time(self.seconds);
        let (stage, node) = (permitted(stage), permitted(node));
        let attributes = [("name", node.as_str()), ("classname", &stage), ("time", &time)];
        let case = writer.create_element("testcase").with_attributes(attributes);
        let text = permitted(self.error.as_deref().unwrap_or_default());
        let message = ("message", text.lines().next().unwrap_or_default());
        case.write_inner_content(|writer| {
            match self.outcome {
                Outcome::Ran | Outcome::Cached => {
                    let outcome = [("name", "outcome"), ("value", outcome_word(self.outcome))];
                    let property = |writer: &mut Writer<Vec<u8>>| {
                        writer.create_element("property").with_attributes(outcome).write_empty().map(drop)
                    };
                    writer.create_element("properties").write_inner_content(property)?
                }
                Outcome::Failed => {
                    let failure = writer.create_element("failure").with_attributes([message, ("type", "failed")]);
                    failure.write_text_content(BytesText::new(&text))?
                }
                Outcome::Skipped => writer.create_element("skipped").with_attribute(message).write_empty()?,
                Outcome::Cancelled => {
                    writer.create_element("skipped").with_attribute(("message", "cancelled")).write_empty()?
                }
            };
            Ok(())
        })?;
        Ok(())
    }
}

impl Counts {
    fn of<'a>(cases: impl IntoIterator<Item = &'a (&'a str, &'a Case)>) -> Self {
        let mut counts = Self { tests: 0, failures: 0, skipped: 0, seconds: 0.0 };
        for (_, case) in cases {
            counts.tests += 1;
            counts.failures += usize::from(case.outcome == Outcome::Failed);
            counts.skipped += usize::from(matches!(case.outcome, Outcome::Skipped | Outcome::Cancelled));
            counts.seconds += case.seconds;
        }
        counts
    }

    fn attributes(&self, name: &str) -> [(&'static str, String); 6] {
        [
            ("name", permitted(name)),
            ("tests", self.tests.to_string()),
            ("failures", self.failures.to_string()),
            ("errors", "0".into()),
            ("skipped", self.skipped.to_string()),
            ("time", time(self.seconds)),
        ]
    }
}

fn time(seconds: f64) -> String {
    format!("{seconds:.3}")
}

/// What XML 1.0 has no way to write, section 2.2, is replaced.
fn permitted(text: &str) -> String {
    let is_permitted =
        |c: char| matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}') || c > '\u{FFFF}';
    text.chars().map(|c| if is_permitted(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

#[cfg(test)]
mod tests {
    use super::permitted;

    #[test]
    fn characters_that_xml_cannot_hold_are_replaced_and_all_others_kept() {
        assert_eq!(permitted("a\tb\nc\u{0}d\u{1b}e\u{FFFE}f\u{1F30A}"), "a\tb\nc\u{FFFD}d\u{FFFD}e\u{FFFD}f\u{1F30A}");
    }
}
