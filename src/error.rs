//! One error shape for the whole program, and its text: what is wrong, where, and what to do next.
//!
//! Libraries give facts; this is the edge that turns them into sentences, hints and exit codes.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::PathBuf;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use headwater_stages::StageError;

use crate::interrupt::EXIT_CODE;

/// One thing wrong with the pipeline file or the command line.
#[derive(Debug, Clone, PartialEq)]
pub struct Diagnostic {
    pub message: String,
    /// Bytes of the pipeline file to underline.
    pub span: Option<Range<usize>>,
    /// What stands beside the underlining.
    pub label: String,
    pub hints: Vec<String>,
}

impl Diagnostic {
    /// A message without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), span: None, label: String::new(), hints: Vec::new() }
    }

    /// Underlines a range.
    #[must_use]
    pub fn at(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.span = Some(span);
        self.label = label.into();
        self
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Suggests the nearest of the names there are, and lists them.
    #[must_use]
    pub fn suggest<'a>(mut self, found: &str, known: impl IntoIterator<Item = &'a str> + Clone, what: &str) -> Self {
        if let Some(name) = nearest(found, known.clone()) {
            self.hints.push(format!("did you mean `{name}`?"));
        }
        let names: Vec<&str> = known.into_iter().collect();
        self.hints.push(match names.is_empty() {
            true => format!("there are no {what}"),
            false => format!("the {what} are: {}", names.join(", ")),
        });
        self
    }
}

/// Why a command ends without having done what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The pipeline file is wrong.
    #[error("{} is wrong", path.display())]
    Pipeline { path: PathBuf, source_text: String, diagnostics: Vec<Diagnostic> },
    /// The command line is wrong, or asks for something that is not there.
    #[error("{0}")]
    Usage(String, Vec<String>),
    /// Something failed while the command worked.
    #[error("{0}")]
    Failed(String, Vec<String>),
    /// A run ended with failures, which have been reported already.
    #[error("the run failed")]
    RunFailed,
    /// Damage was found, which has been reported already.
    #[error("the store is damaged")]
    Damaged,
    /// A run was interrupted, which has been reported already.
    #[error("interrupted")]
    Interrupted,
    /// Standard output was closed by its reader; nothing is wrong.
    #[error("standard output is closed")]
    OutputClosed,
}

impl CommandError {
    /// A usage error without hints.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(message.into(), Vec::new())
    }

    /// A failure without hints.
    pub fn failed(message: impl ToString) -> Self {
        Self::Failed(message.to_string(), Vec::new())
    }

    /// What is wrong with an artifact's bytes or content.
    pub fn artifact(error: StageError) -> Self {
        let hints = match &error {
            StageError::Unreadable { .. } => vec!["`headwater run` makes it again".into()],
            _ => Vec::new(),
        };
        Self::Failed(error.to_string(), hints)
    }

    /// The exit code of the process.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Pipeline { .. } | Self::Usage(..) => 2,
            Self::Failed(..) | Self::RunFailed => 1,
            Self::Damaged => 3,
            Self::Interrupted => EXIT_CODE,
            Self::OutputClosed => 0,
        }
    }

    /// What a person reads; empty if everything has been said.
    pub fn render(&self, colour: bool) -> String {
        match self {
            Self::Pipeline { path, source_text, diagnostics } => {
                let path = path.display().to_string();
                diagnostics.iter().map(|one| render(one, &path, source_text, colour)).collect()
            }
            Self::Usage(message, hints) | Self::Failed(message, hints) => {
                let mut text = format!("error: {message}\n");
                for hint in hints {
                    let _ = writeln!(text, "  help: {hint}");
                }
                text
            }
            Self::RunFailed | Self::Damaged | Self::Interrupted | Self::OutputClosed => String::new(),
        }
    }
}

impl From<std::io::Error> for CommandError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::failed(error),
        }
    }
}

fn render(diagnostic: &Diagnostic, path: &str, source: &str, colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut group =
        Level::ERROR.primary_title(diagnostic.message.as_str()).elements(Vec::<annotate_snippets::Element<'_>>::new());
    if let Some(span) = &diagnostic.span {
        let span = first_line(source, span);
        let annotation = AnnotationKind::Primary.span(span);
        let annotation =
            if diagnostic.label.is_empty() { annotation } else { annotation.label(diagnostic.label.as_str()) };
        group = group.element(Snippet::source(source).path(path).annotation(annotation));
    } else {
        group = group.element(Level::NOTE.message(format!("in {path}")));
    }
    for hint in &diagnostic.hints {
        group = group.element(Level::HELP.message(hint.as_str()));
    }
    format!("{}\n\n", renderer.render(&[group]))
}

/// A value of many lines is underlined on its first.
fn first_line(source: &str, span: &Range<usize>) -> Range<usize> {
    let end = span.end.min(source.len());
    let start = span.start.min(end);
    let line = source[start..end].find('\n').map_or(end, |at| start + at);
    start..line
}

/// The known name that is most like what was found, if any is like it.
pub fn nearest<'a>(found: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Who writes a part of a name means that name: `auc` is `roc_auc`.
    let part = |name: &str| found.len() > 2 && name.contains(found);
    let score = |name: &str| strsim::jaro_winkler(found, name).max(if part(name) { 0.9 } else { 0.0 });
    let scored = known.into_iter().map(|name| (score(name), name));
    let best = scored.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.75).then_some(best.1)
}

/// The line of a place in a text, from 1.
pub fn line_of(source: &str, at: usize) -> usize {
    source[..at.min(source.len())].matches('\n').count() + 1
}
