//! Durations as they are written: `"90s"`, `"1h30m"`.
//!
//! It does not know what they limit. Invariant: what is read is longer than nothing.

use std::time::Duration;

use crate::error::Diagnostic;
use crate::pipeline::value::Value;

/// Longest first where one begins like another.
const UNITS: [(&str, u64); 5] = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// The duration that a key has.
///
/// # Errors
/// If it is none.
pub fn read(key: &str, value: &Value) -> Result<Duration, Diagnostic> {
    let Some(text) = value.as_text() else {
        let text = format!("`{key}` is {}, expected a duration", value.describe());
        return Err(wrong(text, key, value));
    };
    match parse(text) {
        Some(Duration::ZERO) => Err(wrong(format!("`{text}` is no time at all"), key, value)),
        Some(duration) => Ok(duration),
        None => Err(wrong(format!("`{text}` is no duration"), key, value)),
    }
}

fn wrong(text: String, key: &str, value: &Value) -> Diagnostic {
    let hint = format!("write: {key} = \"10m\", or \"1h30m\"; the units are ms, s, m, h, d");
    Diagnostic::new(text).at(value.span.clone(), "").hint(hint)
}

fn parse(text: &str) -> Option<Duration> {
    let (mut rest, mut total) = (text.trim(), 0_u64);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        let behind = &rest[digits..];
        let (unit, millis) = UNITS.iter().find(|(unit, _)| behind.starts_with(unit))?;
        total = total.checked_add(number.checked_mul(*millis)?)?;
        rest = &behind[unit.len()..];
    }
    Some(Duration::from_millis(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_are_durations_and_nothing_else_is() {
        let cases = [
            ("10m", Some(600_000)),
            ("1h30m", Some(5_400_000)),
            ("500ms", Some(500)),
            ("1d", Some(86_400_000)),
            (" 2s ", Some(2000)),
            ("1s5ms", Some(1005)),
            ("0s", Some(0)),
            ("", None),
            ("10", None),
            ("m", None),
            ("-1s", None),
            ("1.5h", None),
            ("1 h", None),
            ("1y", None),
            ("99999999999999999999d", None),
            ("999999999999999999d", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text), expected.map(Duration::from_millis), "{text:?}");
        }
    }
}
