//! `cell`: the text of one table cell: what type it may have, and its value as a given type.
//!
//! Shared by the formats that are text (CSV, JSON lines). It does not know files, rows or where a cell stands.
//!
//! Invariants: nothing is trimmed, rounded or guessed; a fraction, which few floats are exactly, becomes the nearest one.
//! The type of a column is the one that all of its values can have without loss, whatever their order: inference is an
//! intersection, so it is the same for any division into parts. `007` is a code, not the number 7.

use polars::prelude::*;

use super::iso;
use crate::frame;

/// The types that a text may have, as a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Possible(u8);

impl Possible {
    pub const ALL: Self = Self(0xFF);
    const BOOL: u8 = 1;
    const INT: u8 = 2;
    const DIGITS: u8 = 4;
    const FLOAT: u8 = 8;
    const DATE: u8 = 16;
    const DATETIME: u8 = 32;
    const INSTANT: u8 = 64;

    /// What remains possible when another value has been seen.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether nothing but text remains.
    pub fn is_text(self) -> bool {
        self.0 == 0
    }

    /// What one text, which is not empty, may be.
    pub fn of(text: &str) -> Self {
        Self(match text.as_bytes() {
            [b'0'..=b'9' | b'+' | b'-' | b'.', ..] => Self::of_number(text),
            b"true" | b"false" | b"True" | b"False" | b"TRUE" | b"FALSE" => Self::BOOL,
            b"nan" | b"NaN" | b"inf" | b"Inf" => Self::FLOAT,
            _ => 0,
        })
    }

    /// What one text may be in a format that has numbers and booleans of its own.
    pub fn of_text(text: &str) -> Self {
        Self(Self::of(text).0 & (Self::DATE | Self::DATETIME | Self::INSTANT))
    }

    fn of_number(text: &str) -> u8 {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if let Ok(float) = text.parse::<f64>() {
            let whole = digits.bytes().all(|byte| byte.is_ascii_digit());
            return match digits.as_bytes() {
                // As a number it would be the same as one without the zero.
                [b'0', b'0'..=b'9', ..] => 0,
                _ if !whole => Self::FLOAT,
                _ => {
                    let int = if text.parse::<i64>().is_ok() { Self::INT } else { 0 };
                    let exact = if is_exact(digits, float) { Self::FLOAT } else { 0 };
                    Self::DIGITS | int | exact
                }
            };
        }
        if iso::date(text).is_some() {
            return Self::DATE;
        }
        // Inferred datetimes count microseconds; a text with more digits than that stays text.
        match iso::datetime(text) {
            Some(at) if at.count(1_000_000).is_none() => 0,
            Some(at) if at.zoned => Self::INSTANT,
            Some(_) => Self::DATETIME,
            None => 0,
        }
    }

    /// The type of a column. Whole numbers that do not fit into i64 stay text: as f64 they would lose digits.
    pub fn resolve(self) -> DataType {
        let microseconds = TimeUnit::Microseconds;
        match self.0 {
            0xFF => DataType::String,
            bits if bits & Self::BOOL != 0 => DataType::Boolean,
            bits if bits & Self::INT != 0 => DataType::Int64,
            bits if bits & Self::DIGITS != 0 => DataType::String,
            bits if bits & Self::FLOAT != 0 => DataType::Float64,
            bits if bits & Self::DATE != 0 => DataType::Date,
            bits if bits & Self::DATETIME != 0 => DataType::Datetime(microseconds, None),
            bits if bits & Self::INSTANT != 0 => DataType::Datetime(microseconds, Some(TimeZone::UTC)),
            _ => DataType::String,
        }
    }
}

/// Whether the digits of a whole number are those of the float.
pub(super) fn is_exact(digits: &str, float: f64) -> bool {
    digits.len() < 16 || format!("{:.0}", float.abs()) == digits
}

/// A column that is being filled from text.
pub(super) struct Builder {
    dtype: DataType,
    values: Values,
}

enum Values {
    Bool(BooleanChunkedBuilder),
    /// All whole numbers but u64, and all counts of days or units.
    Int(PrimitiveChunkedBuilder<Int64Type>),
    Unsigned(PrimitiveChunkedBuilder<UInt64Type>),
    Float(PrimitiveChunkedBuilder<Float64Type>),
    Text(StringChunkedBuilder),
}

impl Builder {
    /// A column of a type that [`frame::type_name`] names.
    pub fn new(dtype: &DataType, capacity: usize) -> Self {
        let name = PlSmallStr::EMPTY;
        let values = match dtype {
            DataType::Boolean => Values::Bool(BooleanChunkedBuilder::new(name, capacity)),
            DataType::UInt64 => Values::Unsigned(PrimitiveChunkedBuilder::new(name, capacity)),
            DataType::Float32 | DataType::Float64 => Values::Float(PrimitiveChunkedBuilder::new(name, capacity)),
            DataType::String => Values::Text(StringChunkedBuilder::new(name, capacity)),
            _ => Values::Int(PrimitiveChunkedBuilder::new(name, capacity)),
        };
        Self { dtype: dtype.clone(), values }
    }

    pub fn is_text(&self) -> bool {
        matches!(self.values, Values::Text(_))
    }

    pub fn push_null(&mut self) {
        match &mut self.values {
            Values::Bool(builder) => builder.append_null(),
            Values::Int(builder) => builder.append_null(),
            Values::Unsigned(builder) => builder.append_null(),
            Values::Float(builder) => builder.append_null(),
            Values::Text(builder) => builder.append_null(),
        }
    }

    /// Appends a value; on failure nothing is appended, and the message says what was found and expected.
    pub fn push(&mut self, text: &str) -> Result<(), String> {
        let pushed = match &mut self.values {
            Values::Bool(builder) => boolean(text).map(|value| builder.append_value(value)),
            Values::Int(builder) => count(text, &self.dtype).map(|value| builder.append_value(value)),
            Values::Unsigned(builder) => text.parse().ok().map(|value| builder.append_value(value)),
            Values::Float(builder) => float(text, &self.dtype).map(|value| builder.append_value(value)),
            Values::Text(builder) => {
                builder.append_value(text);
                Some(())
            }
        };
        pushed.ok_or_else(|| self.expected(text))
    }

    fn expected(&self, text: &str) -> String {
        let shown: String = text.chars().take(60).collect();
        let more = if shown.len() < text.len() { "…" } else { "" };
        let name = frame::type_name(&self.dtype).unwrap_or_else(|| self.dtype.to_string());
        if self.dtype.is_float() && text.parse::<f64>().is_ok() {
            return format!("found `{shown}{more}`, which is too large for {name}");
        }
        format!("found `{shown}{more}`, expected {name}")
    }

    /// The column, of the type asked for.
    pub fn finish(self) -> PolarsResult<Series> {
        match self.values {
            Values::Bool(builder) => Ok(builder.finish().into_series()),
            Values::Unsigned(builder) => Ok(builder.finish().into_series()),
            Values::Text(builder) => Ok(builder.finish().into_series()),
            Values::Float(builder) => builder.finish().into_series().strict_cast(&self.dtype),
            Values::Int(builder) if self.dtype == DataType::Date => {
                builder.finish().into_series().strict_cast(&DataType::Int32)?.cast(&DataType::Date)
            }
            Values::Int(builder) => builder.finish().into_series().strict_cast(&self.dtype),
        }
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// A float of the type's width; a finite text never becomes an infinity.
fn float(text: &str, dtype: &DataType) -> Option<f64> {
    let value = match dtype {
        DataType::Float32 => text.parse::<f32>().ok().map(f64::from),
        _ => text.parse().ok(),
    };
    let is_finite_text = || text.bytes().any(|byte| byte.is_ascii_digit());
    value.filter(|value| !(value.is_infinite() && is_finite_text()))
}

/// Units in a second.
pub(super) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Nanoseconds => 1_000_000_000,
        TimeUnit::Microseconds => 1_000_000,
        TimeUnit::Milliseconds => 1_000,
    }
}

/// A whole number within the type's range, or what a temporal type counts.
fn count(text: &str, dtype: &DataType) -> Option<i64> {
    let within = |low: i64, high: i64| text.parse().ok().filter(|value| (low..=high).contains(value));
    match dtype {
        DataType::Int8 => within(i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => within(i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => within(i32::MIN.into(), i32::MAX.into()),
        DataType::UInt8 => within(0, u8::MAX.into()),
        DataType::UInt16 => within(0, u16::MAX.into()),
        DataType::UInt32 => within(0, u32::MAX.into()),
        DataType::Date => iso::date(text).map(i64::from),
        DataType::Time => iso::time(text),
        DataType::Datetime(unit, zone) => datetime(text, *unit, zone.is_some()),
        _ => text.parse().ok(),
    }
}

fn datetime(text: &str, unit: TimeUnit, zoned: bool) -> Option<i64> {
    let midnight = |days| iso::Instant { seconds: i64::from(days) * 86_400, nanos: 0, zoned: false };
    let at = iso::datetime(text).or_else(|| iso::date(text).map(midnight))?;
    if at.zoned == zoned { at.count(per_second(unit)) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inferred(texts: &[&str]) -> String {
        let possible = texts.iter().fold(Possible::ALL, |seen, text| seen.and(Possible::of(text)));
        frame::type_name(&possible.resolve()).expect("a frame's type")
    }

    #[test]
    fn a_column_gets_the_type_of_all_its_values() {
        assert_eq!(inferred(&[]), "str");
        assert_eq!(inferred(&["1", "-2", "+3", "0"]), "i64");
        assert_eq!(inferred(&["1", "2.5", "1e3", "NaN", "-inf"]), "f64");
        assert_eq!(inferred(&["1", "x"]), "str");
        assert_eq!(inferred(&["true", "FALSE"]), "bool");
        assert_eq!(inferred(&["true", "1"]), "str");
        assert_eq!(inferred(&["2020-01-31"]), "date");
        assert_eq!(inferred(&["2020-01-31", "2020-02-31"]), "str");
        assert_eq!(inferred(&["2020-01-31T10:00", "2020-01-31 10:00:00.123456"]), "datetime[us]");
        assert_eq!(inferred(&["2020-01-31T10:00:00Z"]), "datetime[us, UTC]");
        assert_eq!(inferred(&["2020-01-31T10:00:00Z", "2020-01-31T10:00:00"]), "str");
        assert_eq!(inferred(&["2020-01-31T10:00:00.1234567"]), "str");
        assert_eq!(inferred(&[" 1"]), "str");
    }

    #[test]
    fn identifiers_too_long_for_a_number_keep_their_digits() {
        assert_eq!(inferred(&["12345678901234567890", "1"]), "str");
        assert_eq!(inferred(&["12345678901234567890", "1.5"]), "str");
    }

    #[test]
    fn codes_with_leading_zeros_stay_text() {
        assert_eq!(inferred(&["007", "7"]), "str");
        assert_eq!(inferred(&["-01", "1"]), "str");
        assert_eq!(inferred(&["00", "0"]), "str");
        assert_eq!(inferred(&["00.5", "1"]), "str");
        assert_eq!(inferred(&["0", "-0", "1"]), "i64");
        assert_eq!(inferred(&["0", "0.5", "-0.25", "0e3"]), "f64");
    }

    #[test]
    fn whole_numbers_that_a_float_would_round_are_no_floats() {
        assert_eq!(inferred(&["9007199254740992", "0.5"]), "f64");
        assert_eq!(inferred(&["9007199254740993", "0.5"]), "str");
        assert_eq!(inferred(&["0.5", "-9223372036854775807"]), "str");
        assert_eq!(inferred(&["9007199254740993", "1"]), "i64");
        assert_eq!(inferred(&["100000000000000000000", "0.5"]), "f64");
    }

    #[test]
    fn a_finite_text_never_becomes_infinite() {
        let pushed = |name: &str, text: &str| Builder::new(&frame::parse_type(name).expect("known"), 1).push(text);
        assert_eq!(pushed("f64", "1e999").expect_err("too large"), "found `1e999`, which is too large for f64");
        assert_eq!(pushed("f32", "-1e300").expect_err("too large"), "found `-1e300`, which is too large for f32");
        for (name, text) in [("f64", "1e308"), ("f64", "-inf"), ("f32", "3.4e38"), ("f32", "inf"), ("f32", "NaN")] {
            assert_eq!(pushed(name, text), Ok(()), "{name} {text}");
        }
    }

    #[test]
    fn a_value_outside_of_the_type_is_told() {
        let told = |name: &str, text: &str| {
            let dtype = frame::parse_type(name).expect("known");
            Builder::new(&dtype, 1).push(text).expect_err("does not fit")
        };
        assert_eq!(told("i8", "128"), "found `128`, expected i8");
        assert_eq!(told("u64", "-1"), "found `-1`, expected u64");
        assert_eq!(told("bool", "1"), "found `1`, expected bool");
        assert_eq!(told("date", "31.12.2020"), "found `31.12.2020`, expected date");
        assert_eq!(
            told("datetime[ms]", "2020-01-01T00:00:00.0001"),
            "found `2020-01-01T00:00:00.0001`, expected datetime[ms]"
        );
        assert_eq!(told("f64", &"é".repeat(61)), format!("found `{}…`, expected f64", "é".repeat(60)));
    }
}
