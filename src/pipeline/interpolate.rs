//! `${param}`: finding the mentions, and putting values in their place.
//!
//! `${x}` alone keeps the param's type. In a query it is a literal of that type, in a command one shell-quoted argument,
//! elsewhere text. `$${` is a literal `${`. It does not know stages or variants.
//!
//! Limits: whether a mention stands inside quotes is told from plain strings and comments alone. A comment inside a
//! comment ends with the inner one; here-documents of the shell and dollar-quoted strings of SQL are not known: their text
//! is taken for code, so an odd quote in one makes a mention behind it look quoted.

use std::collections::BTreeMap;

use crate::error::Diagnostic;
use crate::pipeline::value::{Datum, Span, Value};

/// A param's value, with the label that stands for it in names and paths.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    pub label: String,
    pub value: Value,
}

/// The values of all params.
pub type Choices = BTreeMap<String, Choice>;

/// How a param is written into the text around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Text,
    /// A literal, quoted by us.
    Sql,
    /// One argument, quoted by us.
    Shell,
    /// One argument that no shell reads: text, also where it stands alone.
    Word,
}

enum Piece<'a> {
    Text(&'a str),
    Dollar,
    Param(&'a str),
}

/// The names of the params that a value mentions, with where.
pub fn mentions(value: &Value, source: &str) -> Vec<(String, Span)> {
    match &value.datum {
        Datum::Text(text) => {
            let pieces = pieces(text).unwrap_or_default();
            let names = pieces.iter().filter_map(|piece| match piece {
                Piece::Param(name) => Some(*name),
                Piece::Text(_) | Piece::Dollar => None,
            });
            names.enumerate().map(|(nth, name)| (name.to_owned(), place(nth, value, source))).collect()
        }
        Datum::List(values) => values.iter().flat_map(|value| mentions(value, source)).collect(),
        Datum::Table(entries) => entries.iter().flat_map(|(_, value)| mentions(value, source)).collect(),
        Datum::Bool(_) | Datum::Integer(_) | Datum::Float(_) => Vec::new(),
    }
}

/// The range of the n-th mention within its string, counted from 0; to the end of its line if it is not closed.
fn place(nth: usize, value: &Value, source: &str) -> Span {
    let Some(written) = source.get(value.span.clone()) else { return value.span.clone() };
    let literal = |at: usize| written[..at].ends_with('$');
    let mut opened = written.match_indices("${").map(|(at, _)| at).filter(|at| !literal(*at));
    let Some(at) = opened.nth(nth) else { return value.span.clone() };
    let line = written[at..].find('\n').map_or(written.len(), |end| at + end);
    let end = written[at..].find('}').map_or(line, |end| at + end + 1);
    value.span.start + at..value.span.start + end.min(line)
}

/// Puts params in. All of them must be known, which the caller has checked.
///
/// # Errors
/// A mention that is not closed, stands inside quotes, or cannot be written in this style.
pub fn substitute(value: &Value, choices: &Choices, style: Style, source: &str) -> Result<Value, Diagnostic> {
    let datum = match &value.datum {
        Datum::Text(text) => substitute_text(text, value, choices, style, source)?,
        Datum::List(values) => {
            Datum::List(values.iter().map(|value| substitute(value, choices, style, source)).collect::<Result<_, _>>()?)
        }
        Datum::Table(entries) => {
            let put = |(key, value): &(_, Value)| Ok((Clone::clone(key), substitute(value, choices, style, source)?));
            Datum::Table(entries.iter().map(put).collect::<Result<_, _>>()?)
        }
        plain => plain.clone(),
    };
    Ok(Value { datum, span: value.span.clone() })
}

fn substitute_text(
    text: &str,
    value: &Value,
    choices: &Choices,
    style: Style,
    source: &str,
) -> Result<Datum, Diagnostic> {
    let pieces = pieces(text).map_err(|closed| {
        Diagnostic::new("`${` without its `}`")
            .at(place(closed, value, source), "")
            .hint("for a literal `${` write `$${`")
    })?;
    if let ([Piece::Param(name)], Style::Text) = (pieces.as_slice(), style)
        && let Some(choice) = choices.get(*name)
    {
        return Ok(choice.value.datum.clone());
    }
    let (mut written, mut nth) = (String::new(), 0);
    for piece in pieces {
        match piece {
            Piece::Text(text) => written.push_str(text),
            Piece::Dollar => written.push_str("${"),
            Piece::Param(name) => {
                let put = put_in(&written, name, choices, style);
                written.push_str(&put.map_err(|error| error.at(place(nth, value, source), ""))?);
                nth += 1;
            }
        }
    }
    Ok(Datum::Text(written))
}

/// What stands for a param behind the text so far.
fn put_in(before: &str, name: &str, choices: &Choices, style: Style) -> Result<String, Diagnostic> {
    let choice = choices.get(name).ok_or_else(|| Diagnostic::new(format!("unknown param `{name}`")))?;
    if matches!(style, Style::Sql | Style::Shell) && inside_quotes(before, style) {
        let text = format!("`${{{name}}}` stands inside quotes, but is quoted by Headwater already");
        return Err(Diagnostic::new(text).hint("remove the quotes"));
    }
    write_choice(choice, style).map_err(|why| {
        let unfit = Diagnostic::new(format!("`${{{name}}}` cannot be put here: {why}"));
        match (&choice.value.datum, style) {
            (Datum::List(_), Style::Text | Style::Shell | Style::Word) => {
                unfit.hint("an array fits into a query, or stands alone as the value of a key")
            }
            _ => unfit,
        }
    })
}

/// Splits a text at its mentions.
///
/// # Errors
/// How many mentions are closed, if the one behind them is not.
fn pieces(text: &str) -> Result<Vec<Piece<'_>>, usize> {
    let (mut pieces, mut closed) = (Vec::new(), 0_usize);
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if rest[..at].ends_with('$') {
            pieces.push(Piece::Text(&rest[..at - 1]));
            pieces.push(Piece::Dollar);
            rest = &rest[at + 2..];
            continue;
        }
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        let end = rest[at..].find('}').ok_or(closed)? + at;
        pieces.push(Piece::Param(rest[at + 2..end].trim()));
        closed += 1;
        rest = &rest[end + 1..];
    }
    if !rest.is_empty() || pieces.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

fn write_choice(choice: &Choice, style: Style) -> Result<String, &'static str> {
    match style {
        Style::Sql => sql_literal(&choice.value),
        Style::Shell => Ok(shell_argument(&as_text(choice)?)),
        Style::Text | Style::Word => as_text(choice),
    }
}

/// A table is known by its label.
fn as_text(choice: &Choice) -> Result<String, &'static str> {
    match &choice.value.datum {
        Datum::List(_) => Err("it is an array"),
        Datum::Table(_) if choice.label.is_empty() => Err("it is a table without a label"),
        Datum::Table(_) => Ok(choice.label.clone()),
        _ => Ok(choice.value.to_string()),
    }
}

fn sql_literal(value: &Value) -> Result<String, &'static str> {
    match &value.datum {
        Datum::Bool(value) => Ok(if *value { "TRUE" } else { "FALSE" }.into()),
        Datum::Integer(_) | Datum::Float(_) => {
            let number = sql_number(value)?;
            // Behind a minus, the minus of a bare number would begin a comment.
            Ok(if number.starts_with('-') { format!("({number})") } else { number })
        }
        Datum::Text(text) => Ok(format!("'{}'", text.replace('\'', "''"))),
        Datum::List(values) if values.is_empty() => Err("it is an empty array"),
        Datum::List(values) => {
            let item = |value: &Value| sql_number(value).or_else(|_| sql_literal(value));
            let literals: Vec<String> = values.iter().map(item).collect::<Result<_, _>>()?;
            Ok(format!("({})", literals.join(", ")))
        }
        Datum::Table(_) => Err("it is a table"),
    }
}

/// A number in plain decimal digits: polars takes digits without a point, as those of `1e-5`, for an integer.
fn sql_number(value: &Value) -> Result<String, &'static str> {
    match &value.datum {
        Datum::Integer(value) => Ok(value.to_string()),
        Datum::Float(value) if value.is_finite() => {
            let digits = value.to_string();
            Ok(if digits.contains('.') { digits } else { digits + ".0" })
        }
        _ => Err("a query has no literal for it"),
    }
}

/// Quotes an argument for `sh`.
pub fn shell_argument(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_./:=@%+,-".contains(c);
    if !text.is_empty() && text.chars().all(safe) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Whether the text so far ends inside a quoted string; its limits stand at the top of this file.
fn inside_quotes(text: &str, style: Style) -> bool {
    let mut chars = text.chars().peekable();
    let (mut open, mut last) = (None, None);
    while let Some(char) = chars.next() {
        let before = last.replace(char);
        match (open, char) {
            (None, '\'' | '"') => open = Some(char),
            (None, '-') if style == Style::Sql && chars.peek() == Some(&'-') => {
                chars.find(|c| *c == '\n');
            }
            (None, '/') if style == Style::Sql && chars.peek() == Some(&'*') => {
                // The star that opens it does not close it.
                chars.next();
                while chars.find(|c| *c == '*').is_some() && chars.peek() != Some(&'/') {}
            }
            (None, '#') if style == Style::Shell && before.is_none_or(char::is_whitespace) => {
                chars.find(|c| *c == '\n');
            }
            (None | Some('"'), '\\') if style == Style::Shell => {
                chars.next();
            }
            (Some(quote), char) if quote == char => open = None,
            _ => {}
        }
    }
    open.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(datum: Datum) -> Value {
        Value { datum, span: 0..0 }
    }

    fn choices() -> Choices {
        let mut choices = Choices::new();
        let mut set = |name: &str, datum: Datum| {
            let value = value(datum);
            choices.insert(name.into(), Choice { label: value.to_string(), value });
        };
        set("n", Datum::Integer(15));
        set("negative", Datum::Integer(-5));
        set("name", Datum::Text("O'Hare it's".into()));
        set("list", Datum::List(vec![value(Datum::Text("a".into())), value(Datum::Text("b".into()))]));
        set("model", Datum::Table(vec![]));
        choices.get_mut("model").expect("set").label = "forest".into();
        choices
    }

    fn put(text: &str, style: Style) -> Result<Datum, String> {
        let value = value(Datum::Text(text.into()));
        substitute(&value, &choices(), style, "").map(|value| value.datum).map_err(|error| error.message)
    }

    fn text(text: &str) -> Result<Datum, String> {
        Ok(Datum::Text(text.into()))
    }

    #[test]
    fn alone_it_keeps_its_type() {
        assert_eq!(put("${n}", Style::Text), Ok(Datum::Integer(15)));
        assert_eq!(put("out/${model}/${n}.csv", Style::Text), text("out/forest/15.csv"));
    }

    #[test]
    fn in_a_query_it_is_a_literal() {
        assert_eq!(put("a > ${n} and b = ${name}", Style::Sql), text("a > 15 and b = 'O''Hare it''s'"));
        assert_eq!(put("a in ${list}", Style::Sql), text("a in ('a', 'b')"));
        assert_eq!(put("-- it's a comment\n${n}", Style::Sql), text("-- it's a comment\n15"));
        assert_eq!(put("/* it's a **/ ${n}", Style::Sql), text("/* it's a **/ 15"));
        assert_eq!(put("/*/ it's open */ ${n}", Style::Sql), text("/*/ it's open */ 15"));
    }

    #[test]
    fn a_negative_number_in_a_query_stands_in_parentheses() {
        assert_eq!(put("10 -${negative}", Style::Sql), text("10 -(-5)"));
        assert_eq!(sql_literal(&value(Datum::Float(-0.0))), Ok("(-0.0)".into()));
        let list = Datum::List(vec![value(Datum::Integer(-5)), value(Datum::Float(2.0))]);
        assert_eq!(sql_literal(&value(list)), Ok("(-5, 2.0)".into()));
    }

    #[test]
    fn in_a_command_it_is_one_argument() {
        assert_eq!(put("echo ${name}", Style::Shell), text(r"echo 'O'\''Hare it'\''s'"));
        assert_eq!(put("echo # it's\necho ${n}", Style::Shell), text("echo # it's\necho 15"));
    }

    #[test]
    fn inside_quotes_it_is_refused() {
        let refused = Err("`${name}` stands inside quotes, but is quoted by Headwater already".to_owned());
        assert_eq!(put("a = '${name}'", Style::Sql), refused);
        assert_eq!(put("echo \"${name}\"", Style::Shell), refused);
    }

    #[test]
    fn two_dollars_are_a_literal_one() {
        assert_eq!(put("$${n} ${n}", Style::Text), text("${n} 15"));
    }

    #[test]
    fn an_array_does_not_fit_into_text() {
        assert_eq!(put("x-${list}", Style::Text), Err("`${list}` cannot be put here: it is an array".into()));
    }

    #[test]
    fn a_word_of_a_command_is_text_also_where_it_stands_alone() {
        assert_eq!(put("${model}", Style::Word), text("forest"));
        assert_eq!(put("${n}", Style::Word), text("15"));
        assert_eq!(put("'${name}'", Style::Word), text("'O'Hare it's'"));
    }

    fn is_plain_and_comes_back(float: f64) -> bool {
        let literal = sql_literal(&value(Datum::Float(float))).expect("a literal");
        let digits = literal.trim_matches(['(', ')']);
        let plain = digits.contains('.') && digits.chars().all(|c| c.is_ascii_digit() || "-.".contains(c));
        plain && digits.parse::<f64>().is_ok_and(|read| read.to_bits() == float.to_bits())
    }

    #[test]
    fn a_float_of_any_size_is_plain_digits_that_come_back() {
        for float in [1e-5, 1e300, 5e-324, f64::MAX, f64::MIN_POSITIVE, -1e-5, 0.1, 2.0, 0.0, -0.0] {
            assert!(is_plain_and_comes_back(float), "{float:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_finite_float_is_plain_digits_that_come_back(float in proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL) {
            proptest::prop_assert!(is_plain_and_comes_back(float), "{:?}", float);
        }

        #[test]
        fn a_shell_argument_comes_back_as_it_was(argument in "[^\0]{0,20}") {
            let printed = std::process::Command::new("sh")
                .arg("-c")
                .arg(format!("printf %s {}", shell_argument(&argument)))
                .output()
                .expect("sh runs");
            proptest::prop_assert_eq!(String::from_utf8(printed.stdout).expect("text"), argument);
        }
    }
}
