//! `ConfigError`: what is wrong with a value of the pipeline file, and the search for the text to underline.
//!
//! A kind may read a value through another form first (a tagged table, a `try_from`), and serde buffers it then: of the
//! place nothing is left but the names and values that the message tells. So the place is looked for again, below the
//! innermost value that is known. Within a text, a query above all, the line and column or the words that the message
//! quotes are looked for. This file knows neither keys nor kinds.

use std::fmt;

use serde::de::{self, Unexpected};

use crate::error::Diagnostic;
use crate::pipeline::value::{Datum, Key, Span, Value};

/// An error of deserialization, with the place where it arose.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigError(Box<Fault>);

#[derive(Debug, Clone, PartialEq)]
struct Fault {
    message: String,
    label: String,
    hints: Vec<String>,
    /// A name that is not known, and those that are.
    unknown: Option<Unknown>,
    blamed: Blamed,
    span: Option<Span>,
    /// The text, params put in, if it is a text that is wrong.
    text: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Unknown {
    found: String,
    known: Vec<String>,
    what: &'static str,
}

/// What is wrong, within the value at hand.
#[derive(Debug, Clone, PartialEq)]
enum Blamed {
    /// All of it.
    Whole,
    Key(String),
    Scalar(Datum),
    /// What the message quotes.
    Quoted,
}

impl ConfigError {
    /// About the value at hand as a whole.
    pub fn of(message: String) -> Self {
        let (label, hints, unknown) = (String::new(), Vec::new(), None);
        Self(Box::new(Fault { message, label, hints, unknown, blamed: Blamed::Whole, span: None, text: None }))
    }

    fn blaming(mut self, blamed: Blamed) -> Self {
        self.0.blamed = blamed;
        self
    }

    /// Fixes the place, unless a deeper one is known already.
    pub fn within(mut self, value: &Value) -> Self {
        if self.0.span.is_none() {
            self.0.span = Some(self.find(value).unwrap_or_else(|| value.span.clone()));
            self.0.text = value.as_text().filter(|_| self.0.blamed == Blamed::Quoted).map(str::to_owned);
        }
        self
    }

    /// Fixes the place at a key.
    pub fn at_key(mut self, key: &Key) -> Self {
        self.0.span.get_or_insert_with(|| key.span.clone());
        self
    }

    /// If it is a key of this table that is not known: these keys may stand there too.
    pub fn also_known(mut self, table: &Value, keys: &[&str]) -> Self {
        let of_table = |span: &Span| table.as_table().is_some_and(|all| all.iter().any(|(key, _)| key.span == *span));
        if let (Some(unknown), true) = (&mut self.0.unknown, self.0.span.as_ref().is_some_and(of_table)) {
            unknown.known.extend(keys.iter().map(|key| (*key).to_owned()));
        }
        self
    }

    fn find(&self, value: &Value) -> Option<Span> {
        match &self.0.blamed {
            Blamed::Whole => None,
            Blamed::Key(name) => find_key(value, name).map(|(key, _)| key.span.clone()),
            Blamed::Scalar(datum) => {
                below(value).into_iter().find(|value| value.datum == *datum).map(|v| v.span.clone())
            }
            Blamed::Quoted => quoted(&self.0.message).find_map(|name| self.find_quoted(value, name)),
        }
    }

    /// A message that begins with a key is about its value; else the key is meant.
    fn find_quoted(&self, value: &Value, name: &str) -> Option<Span> {
        if let Some((key, inner)) = find_path(value, name) {
            if !self.0.message.starts_with(&format!("`{name}`")) {
                return Some(key.span.clone());
            }
            let others: Vec<&str> = quoted(&self.0.message).skip(1).collect();
            let inside =
                below(inner).into_iter().find(|value| value.as_text().is_some_and(|text| others.contains(&text)));
            return Some(inside.unwrap_or(inner).span.clone());
        }
        below(value).into_iter().find(|value| value.as_text() == Some(name)).map(|value| value.span.clone())
    }

    /// As the program shows it; `fallback` is the place if none is known.
    pub fn into_diagnostic(self, fallback: Span, source: &str) -> Diagnostic {
        let Fault { mut message, label, hints, unknown, span, text, .. } = *self.0;
        let mut span = span.unwrap_or(fallback);
        if let Some(text) = &text {
            let written = Written { span: span.clone(), source, text };
            if let Some(found) = written.place_of(&message) {
                (span, message) = found;
            }
        }
        let mut diagnostic = Diagnostic::new(message).at(span, label);
        diagnostic.hints = hints;
        match unknown {
            Some(Unknown { found, known, what }) => {
                diagnostic.suggest(&found, known.iter().map(String::as_str).collect::<Vec<_>>(), what)
            }
            None => diagnostic,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ConfigError {}

impl de::Error for ConfigError {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::of(message.to_string()).blaming(Blamed::Quoted)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = match expected.to_string().as_str() {
            "f32" | "f64" => "a number".to_owned(),
            "u8" | "u16" | "u32" | "u64" | "i8" | "i16" | "i32" | "i64" => "a whole number".into(),
            "a sequence" => "an array".into(),
            "a map" => "a table".into(),
            other if other.starts_with("struct ") || other.contains("tagged enum ") => "a table".into(),
            other => other.to_owned(),
        };
        Self::of(format!("found {}, expected {expected}", described(found))).blaming(scalar(found))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn de::Expected) -> Self {
        let expected = match expected.to_string().as_str() {
            "u8" => "a whole number from 0 to 255".to_owned(),
            "u16" => "a whole number from 0 to 65535".into(),
            "u32" => "a whole number from 0 to 4294967295".into(),
            "u64" => "a whole number of 0 or more".into(),
            "i32" => "a whole number of 32 bits".into(),
            other => other.to_owned(),
        };
        Self::of(format!("found {}, expected {expected}", described(found))).blaming(scalar(found))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let known = expected.iter().map(|name| (*name).to_owned()).collect();
        let mut error = Self::of(format!("unknown key `{field}`")).blaming(Blamed::Key(field.to_owned()));
        error.0.unknown = Some(Unknown { found: field.to_owned(), known, what: "keys" });
        error
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let known = expected.iter().map(|name| (*name).to_owned()).collect();
        let mut error = Self::of(format!("unknown value `{variant}`"));
        error.0.blamed = Blamed::Scalar(Datum::Text(variant.to_owned()));
        error.0.unknown = Some(Unknown { found: variant.to_owned(), known, what: "values" });
        error
    }

    fn missing_field(field: &'static str) -> Self {
        let mut error = Self::of(format!("the key `{field}` is missing"));
        error.0.label = format!("needs `{field}`");
        error.0.hints.push(format!("write: {field} = …"));
        error
    }
}

fn described(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(value) => format!("the boolean {value}"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number:?}"),
        Unexpected::Str(text) => format!("the string {text:?}"),
        Unexpected::Seq => "an array".into(),
        Unexpected::Map => "a table".into(),
        other => other.to_string(),
    }
}

fn scalar(found: Unexpected<'_>) -> Blamed {
    match found {
        Unexpected::Bool(value) => Blamed::Scalar(Datum::Bool(value)),
        Unexpected::Signed(number) => Blamed::Scalar(Datum::Integer(number)),
        Unexpected::Unsigned(number) => {
            i64::try_from(number).map_or(Blamed::Whole, |n| Blamed::Scalar(Datum::Integer(n)))
        }
        Unexpected::Float(number) => Blamed::Scalar(Datum::Float(number)),
        Unexpected::Str(text) => Blamed::Scalar(Datum::Text(text.to_owned())),
        _ => Blamed::Whole,
    }
}

/// What stands between backticks.
fn quoted(message: &str) -> impl Iterator<Item = &str> {
    message.split('`').skip(1).step_by(2).filter(|name| !name.is_empty())
}

/// A value and all that is inside it, the shallow before the deep.
fn below(value: &Value) -> Vec<&Value> {
    let mut found = vec![value];
    let mut at = 0;
    while let Some(value) = found.get(at).copied() {
        match &value.datum {
            Datum::List(values) => found.extend(values),
            Datum::Table(entries) => found.extend(entries.iter().map(|(_, value)| value)),
            _ => {}
        }
        at += 1;
    }
    found
}

fn find_key<'a>(value: &'a Value, name: &str) -> Option<&'a (Key, Value)> {
    below(value).into_iter().filter_map(Value::as_table).flatten().find(|(key, _)| key.name == name)
}

/// The entry at a dotted path that begins anywhere.
fn find_path<'a>(value: &'a Value, path: &str) -> Option<&'a (Key, Value)> {
    let mut parts = path.split('.');
    let mut entry = find_key(value, parts.next()?)?;
    for part in parts {
        entry = entry.1.as_table()?.iter().find(|(key, _)| key.name == part)?;
    }
    Some(entry)
}

/// A text as it stands in the file, delimiters and mentions of params included, and as it was read.
struct Written<'a> {
    span: Span,
    source: &'a str,
    text: &'a str,
}

impl Written<'_> {
    /// The place that a message is about, and the message without its line and column.
    fn place_of(&self, message: &str) -> Option<(Span, String)> {
        let inner = self.inner()?;
        if let Some((before, line, column, fact)) = line_and_column(message) {
            return Some((self.token(&inner, line, column)?, format!("{before}{fact}")));
        }
        let raw = self.source.get(inner.clone())?;
        if message.ends_with("found EOF") {
            let end = raw.trim_end().len();
            let start = raw[..end].rfind(char::is_whitespace).map_or(0, |at| at + 1);
            return Some((inner.start + start..inner.start + end, message.replace("EOF", "the end of the text")));
        }
        let span = quoted(message).find_map(|words| find_words(raw, words))?;
        Some((inner.start + span.start..inner.start + span.end, message.to_owned()))
    }

    /// The range between the delimiters; a line break behind the first of many lines is not content.
    fn inner(&self) -> Option<Span> {
        let raw = self.source.get(self.span.clone())?;
        let long = raw.starts_with("\"\"\"") || raw.starts_with("'''");
        let width = if long { 3 } else { usize::from(raw.starts_with(['"', '\''])) };
        let inner = raw.get(width..raw.len().checked_sub(width)?)?;
        let skipped = if long && inner.starts_with('\n') { 1 } else { 0 };
        Some(self.span.start + width + skipped..self.span.end - width)
    }

    /// The word at a line and column, both from 1, of the text; the whole line if params moved it.
    fn token(&self, inner: &Span, line: usize, column: usize) -> Option<Span> {
        let (raw, line) = (self.source.get(inner.clone())?, line.checked_sub(1)?);
        let read = self.text.split('\n').nth(line)?;
        let start = raw.split('\n').take(line).map(|line| line.len() + 1).sum::<usize>();
        let written = raw.split('\n').nth(line)?;
        if raw.split('\n').count() != self.text.split('\n').count() {
            return None;
        }
        let at = read.char_indices().nth(column.checked_sub(1)?).map_or(read.len(), |(at, _)| at);
        let span = aligned(read, written, at).map_or_else(|| trimmed(written), |at| word(written, at));
        Some(inner.start + start + span.start..inner.start + start + span.end)
    }
}

/// The place in the written line of a place in the line as read, if it stands before or behind all that was put in.
fn aligned(read: &str, written: &str, at: usize) -> Option<usize> {
    let ahead = read.bytes().zip(written.bytes()).take_while(|(a, b)| a == b).count();
    if at < ahead || read == written {
        return Some(at);
    }
    let behind = read.bytes().rev().zip(written.bytes().rev()).take_while(|(a, b)| a == b).count();
    let from_end = read.len() - at;
    (from_end <= behind).then(|| written.len() - from_end)
}

fn trimmed(line: &str) -> Span {
    let start = line.len() - line.trim_start().len();
    start..line.trim_end().len().max(start)
}

fn word(line: &str, at: usize) -> Span {
    let rest = &line[at.min(line.len())..];
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let width = rest.find(|c| !part(c)).unwrap_or(rest.len());
    at..at + width.max(rest.chars().next().map_or(0, char::len_utf8))
}

/// `query: line 2, column 8: fact` -> what stands before, the line, the column, the fact.
fn line_and_column(message: &str) -> Option<(&str, usize, usize, &str)> {
    let (before, rest) = message.split_once("line ")?;
    let (line, rest) = rest.split_once(", column ")?;
    let (column, fact) = rest.split_once(": ")?;
    Some((before, line.parse().ok()?, column.parse().ok()?, fact))
}

/// Words of a text, in any case, that no letter touches.
fn find_words(text: &str, words: &str) -> Option<Span> {
    let (lower, words) = (text.to_ascii_lowercase(), words.to_ascii_lowercase());
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let stands_alone = |at: usize| !lower[..at].ends_with(part) && !lower[at + words.len()..].starts_with(part);
    lower.match_indices(&words).map(|(at, _)| at).find(|at| stands_alone(*at)).map(|at| at..at + words.len())
}
