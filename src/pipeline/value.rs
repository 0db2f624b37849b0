//! `Value`: what stands in the pipeline file, with its place, and a serde deserializer over it.
//!
//! It does not know what any key means. Invariant: every value and every key has the byte range of the text it came
//! from; a value that a param was put into keeps the range of the text that mentions the param.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{self, DeserializeSeed, IntoDeserializer, Visitor};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Diagnostic, line_of};
use crate::pipeline::blame::ConfigError;

/// A byte range of the pipeline file.
pub type Span = Range<usize>;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Value {
    pub datum: Datum,
    pub span: Span,
}

/// A key and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Key {
    pub name: String,
    pub span: Span,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub enum Datum {
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    /// In the order of the file.
    Table(Vec<(Key, Value)>),
}

impl Value {
    /// Parses a whole file. All syntax errors are reported.
    ///
    /// # Errors
    /// What TOML itself forbids, and date-times, which no key takes.
    pub fn parse(source: &str) -> Result<Self, Vec<Diagnostic>> {
        let (table, errors) = DeTable::parse_recoverable(source);
        if !errors.is_empty() {
            return Err(syntax_errors(source, &errors));
        }
        let span = table.span();
        let datum = read_table(table.into_inner()).map_err(|error| vec![error])?;
        Ok(Self { datum, span })
    }

    /// The same value, which stands elsewhere: its text is a part of another one.
    pub fn moved(self, place: &impl Fn(usize) -> usize) -> Self {
        let datum = match self.datum {
            Datum::List(values) => Datum::List(values.into_iter().map(|value| value.moved(place)).collect()),
            Datum::Table(entries) => {
                let entry = |(key, value): (Key, Self)| {
                    (Key { span: moved(&key.span, place), name: key.name }, value.moved(place))
                };
                Datum::Table(entries.into_iter().map(entry).collect())
            }
            plain => plain,
        };
        Self { datum, span: moved(&self.span, place) }
    }

    /// Parses one value, as it stands behind `--set name=`; text needs no quotes there.
    pub fn parse_setting(text: &str) -> Self {
        let span = 0..0;
        let parsed = DeValue::parse(text).ok().and_then(|value| read_value(value).ok());
        let datum = parsed.map_or_else(|| Datum::Text(text.to_owned()), |value| value.datum);
        Self { datum, span }
    }

    /// Reads a configuration.
    ///
    /// # Errors
    /// What does not fit, with its place.
    pub fn read<'de, T: Deserialize<'de>>(&'de self) -> Result<T, ConfigError> {
        T::deserialize(self).map_err(|error| error.within(self))
    }

    /// Whether both say the same, wherever they stand.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.datum, &other.datum) {
            (Datum::List(ours), Datum::List(theirs)) => {
                ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| a.is_same(b))
            }
            (Datum::Table(ours), Datum::Table(_)) => {
                let same = |(key, value): &(Key, Self)| other.get(&key.name).is_some_and(|its| value.is_same(its));
                other.as_table().is_some_and(|theirs| theirs.len() == ours.len()) && ours.iter().all(same)
            }
            (Datum::Float(ours), Datum::Float(theirs)) => ours.to_bits() == theirs.to_bits(),
            (ours, theirs) => ours == theirs,
        }
    }

    /// A text that two values have in common if and only if they are the same: 1 and "1", or `["a, b"]` and
    /// `["a", "b"]`, are printed alike but are not.
    pub fn identity(&self) -> String {
        match &self.datum {
            Datum::Text(text) => format!("{text:?}"),
            Datum::Float(value) => format!("f{:x}", value.to_bits()),
            Datum::Bool(_) | Datum::Integer(_) => self.to_string(),
            Datum::List(values) => {
                let values: Vec<String> = values.iter().map(Self::identity).collect();
                format!("[{}]", values.join(","))
            }
            Datum::Table(entries) => {
                let entry = |(key, value): &(Key, Self)| format!("{:?}={}", key.name, value.identity());
                let mut entries: Vec<String> = entries.iter().map(entry).collect();
                entries.sort();
                format!("{{{}}}", entries.join(","))
            }
        }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match &self.datum {
            Datum::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The table, if it is one.
    pub fn as_table(&self) -> Option<&[(Key, Value)]> {
        match &self.datum {
            Datum::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The value of a key of a table.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.as_table()?.iter().find(|(key, _)| key.name == name).map(|(_, value)| value)
    }

    /// "a number", "a table"…, for messages.
    pub fn describe(&self) -> &'static str {
        match self.datum {
            Datum::Bool(_) => "a boolean",
            Datum::Integer(_) => "an integer",
            Datum::Float(_) => "a float",
            Datum::Text(_) => "a string",
            Datum::List(_) => "an array",
            Datum::Table(_) => "a table",
        }
    }
}

/// As a person would write it in one line.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.datum {
            Datum::Bool(value) => write!(f, "{value}"),
            Datum::Integer(value) => write!(f, "{value}"),
            Datum::Float(value) => write!(f, "{value:?}"),
            Datum::Text(text) => f.write_str(text),
            Datum::List(values) => {
                f.write_str("[")?;
                for (at, value) in values.iter().enumerate() {
                    write!(f, "{}{value}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Datum::Table(entries) => {
                f.write_str("{ ")?;
                for (at, (key, value)) in entries.iter().enumerate() {
                    write!(f, "{}{} = {value}", if at == 0 { "" } else { ", " }, key.name)?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// A range whose first and last byte stand elsewhere.
fn moved(span: &Span, place: &impl Fn(usize) -> usize) -> Span {
    match span.is_empty() {
        true => place(span.start)..place(span.start),
        false => place(span.start)..place(span.end - 1) + 1,
    }
}

/// In the order of the file. What follows an error in its line is mostly its consequence, so one a line.
fn syntax_errors(source: &str, errors: &[toml::de::Error]) -> Vec<Diagnostic> {
    let mut by_line = BTreeMap::new();
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        let first = by_line.entry(line_of(source, span.start)).or_insert((span.clone(), error));
        if span.start < first.0.start {
            *first = (span, error);
        }
    }
    let diagnostic = |(span, error): (Span, &toml::de::Error)| {
        Diagnostic::new(format!("the file is not valid TOML: {}", error.message())).at(span, "")
    };
    by_line.into_values().map(diagnostic).collect()
}

fn read_table(table: DeTable<'_>) -> Result<Datum, Diagnostic> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let span = key.span();
        entries.push((Key { name: key.into_inner().into_owned(), span }, read_value(value)?));
    }
    entries.sort_by_key(|(key, _)| key.span.start);
    Ok(Datum::Table(entries))
}

fn read_value(value: Spanned<DeValue<'_>>) -> Result<Value, Diagnostic> {
    let span = value.span();
    let bad = |text: &str| Diagnostic::new(text.to_owned()).at(span.clone(), "");
    let datum = match value.into_inner() {
        DeValue::String(text) => Datum::Text(text.into_owned()),
        DeValue::Integer(number) => Datum::Integer(
            i64::from_str_radix(number.as_str(), number.radix())
                .map_err(|_| bad("this integer has more than 64 bits"))?,
        ),
        DeValue::Float(number) => Datum::Float(number.as_str().parse().map_err(|_| bad("this is not a number"))?),
        DeValue::Boolean(value) => Datum::Bool(value),
        DeValue::Datetime(_) => return Err(bad("a date is written as a string here: put quotes around it")),
        DeValue::Array(values) => Datum::List(values.into_iter().map(read_value).collect::<Result<_, _>>()?),
        DeValue::Table(table) => read_table(table)?,
    };
    Ok(Value { datum, span })
}

impl<'de> de::Deserializer<'de> for &'de Value {
    type Error = ConfigError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        let visited = match &self.datum {
            Datum::Bool(value) => visitor.visit_bool(*value),
            Datum::Integer(value) => visitor.visit_i64(*value),
            Datum::Float(value) => visitor.visit_f64(*value),
            Datum::Text(text) => visitor.visit_borrowed_str(text),
            Datum::List(values) => visitor.visit_seq(Elements(values.iter())),
            Datum::Table(entries) => visitor.visit_map(Entries { entries: entries.iter(), value: None }),
        };
        visited.map_err(|error| error.within(self))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConfigError> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConfigError> {
        let visited = match &self.datum {
            Datum::Text(text) => visitor.visit_enum(text.as_str().into_deserializer()),
            Datum::Table(entries) if entries.len() == 1 => visitor
                .visit_enum(de::value::MapAccessDeserializer::new(Entries { entries: entries.iter(), value: None })),
            _ => Err(ConfigError::of(format!("found {}, expected one of: {}", self.describe(), variants.join(", ")))),
        };
        visited.map_err(|error| error.within(self))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Elements<'de>(std::slice::Iter<'de, Value>);

impl<'de> de::SeqAccess<'de> for Elements<'de> {
    type Error = ConfigError;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, ConfigError> {
        self.0.next().map(|value| seed.deserialize(value).map_err(|error| error.within(value))).transpose()
    }
}

struct Entries<'de> {
    entries: std::slice::Iter<'de, (Key, Value)>,
    value: Option<&'de Value>,
}

impl<'de> de::MapAccess<'de> for Entries<'de> {
    type Error = ConfigError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConfigError> {
        let Some((key, value)) = self.entries.next() else { return Ok(None) };
        self.value = Some(value);
        let name: de::value::BorrowedStrDeserializer<'de, ConfigError> =
            de::value::BorrowedStrDeserializer::new(&key.name);
        let seeded = seed.deserialize(name);
        seeded.map(Some).map_err(|error| error.at_key(key))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ConfigError> {
        let value = self.value.take().expect("serde asks for a key before its value");
        seed.deserialize(value).map_err(|error| error.within(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[serde(default)]
        rate: f64,
        model: Option<Inner>,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(tag = "algorithm", rename_all = "snake_case", deny_unknown_fields)]
    enum Inner {
        Logistic { l2: f64 },
        Tree { depth: u32 },
    }

    fn fail(source: &str) -> (String, String, Vec<String>) {
        let value = Value::parse(source).expect("valid TOML");
        let error = value.read::<Outer>().expect_err("an error").into_diagnostic(0..0, source);
        let span = error.span.expect("a place");
        (error.message, source[span].to_owned(), error.hints)
    }

    #[test]
    fn an_unknown_key_is_underlined_and_the_nearest_named() {
        let (message, text, hints) = fail("rat = 1.0");
        assert_eq!((message.as_str(), text.as_str()), ("unknown key `rat`", "rat"));
        assert_eq!(hints, ["did you mean `rate`?", "the keys are: rate, model"]);
    }

    #[test]
    fn an_unknown_key_inside_a_tagged_table_is_underlined() {
        let (message, text, _) = fail("model = { algorithm = \"tree\", dept = 3 }");
        assert_eq!((message.as_str(), text.as_str()), ("unknown key `dept`", "dept"));
    }

    #[test]
    fn a_value_of_the_wrong_type_is_underlined() {
        let (message, text, _) = fail("rate = \"fast\"");
        assert_eq!((message.as_str(), text.as_str()), ("found the string \"fast\", expected a number", "\"fast\""));
    }

    #[test]
    fn an_unknown_algorithm_names_the_known_ones() {
        let (message, _, hints) = fail("model = { algorithm = \"logistics\" }");
        assert_eq!(message, "unknown value `logistics`");
        assert_eq!(hints, ["did you mean `logistic`?", "the values are: logistic, tree"]);
    }

    #[test]
    fn tables_keep_the_order_of_the_file() {
        let value = Value::parse("zeta = 1\nalpha = 2\n[middle]\nx = 1").expect("valid");
        let names: Vec<_> = value.as_table().expect("a table").iter().map(|(key, _)| key.name.as_str()).collect();
        assert_eq!(names, ["zeta", "alpha", "middle"]);
    }
}
