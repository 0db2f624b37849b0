//! `write`: a frame as a file, for `get` and `predict`.
//!
//! It knows the formats that `read` knows, and what their text can carry. It does not touch the disk.
//!
//! Invariant: floats are written with the fewest digits that read back as the same number. In CSV a null is an empty
//! field and an empty text a quoted one; in JSON, which has no NaN and no infinity, those become null. Durations are
//! written as the whole number of their unit.

use polars::prelude::*;

use super::cell::per_second;
use super::iso;
use super::read::{Format, KNOWN_EXTENSIONS, format_of};
use crate::StageError;
use crate::frame;

/// Whether a frame can be written to a path of this name.
///
/// # Errors
/// [`StageError::Config`] if the extension is not known (a compressed file is not written).
pub fn check_path(path: &str) -> Result<(), StageError> {
    format_to_write(path).map(|_| ())
}

fn format_to_write(path: &str) -> Result<Format, StageError> {
    let unknown = || StageError::Config {
        detail: format!("a frame cannot be written to `{path}`: the extensions known are {KNOWN_EXTENSIONS}"),
    };
    format_of(path).ok_or_else(unknown)
}

/// Encodes a frame in the format of the path's extension.
///
/// # Errors
/// As [`check_path`], [`StageError::Encode`] or [`StageError::UnsupportedType`].
pub fn write_frame(frame: &DataFrame, path: &str) -> Result<Vec<u8>, StageError> {
    match format_to_write(path)? {
        Format::Csv => delimited(frame, ','),
        Format::Tsv => delimited(frame, '\t'),
        Format::Jsonl => json_lines(frame),
        Format::Parquet => {
            let mut bytes = Vec::new();
            ParquetWriter::new(&mut bytes).finish(&mut frame.clone()).map_err(failed)?;
            Ok(bytes)
        }
        Format::Ipc => {
            let mut bytes = Vec::new();
            IpcWriter::new(&mut bytes)
                .with_compat_level(CompatLevel::oldest())
                .finish(&mut frame.clone())
                .map_err(failed)?;
            Ok(bytes)
        }
    }
}

fn failed(error: PolarsError) -> StageError {
    StageError::Encode { detail: error.to_string() }
}

fn delimited(frame: &DataFrame, delimiter: char) -> Result<Vec<u8>, StageError> {
    let columns = frame.columns().iter().map(texts).collect::<Result<Vec<_>, _>>()?;
    let mut out = String::new();
    for (at, column) in frame.columns().iter().enumerate() {
        push_field(&mut out, at, delimiter, Some(column.name().as_str()), columns.len());
    }
    out.push('\n');
    for row in 0..frame.height() {
        for (at, column) in columns.iter().enumerate() {
            push_field(&mut out, at, delimiter, column.get(row), columns.len());
        }
        out.push('\n');
    }
    Ok(out.into_bytes())
}

/// A lone null is quoted too, for a blank line would be no row.
fn push_field(out: &mut String, at: usize, delimiter: char, text: Option<&str>, width: usize) {
    if at > 0 {
        out.push(delimiter);
    }
    match text {
        None if width > 1 => {}
        None => out.push_str("\"\""),
        Some(text) if text.is_empty() || text.contains([delimiter, '"', '\n', '\r']) => {
            out.push('"');
            out.push_str(&text.replace('"', "\"\""));
            out.push('"');
        }
        Some(text) => out.push_str(text),
    }
}

fn json_lines(frame: &DataFrame) -> Result<Vec<u8>, StageError> {
    let encode =
        |text: &str| serde_json::to_string(text).map_err(|error| StageError::Encode { detail: error.to_string() });
    let names = frame.columns().iter().map(|column| encode(column.name())).collect::<Result<Vec<_>, _>>()?;
    let columns = frame.columns().iter().map(texts).collect::<Result<Vec<_>, _>>()?;
    let mut out = String::new();
    for row in 0..frame.height() {
        for (at, column) in columns.iter().enumerate() {
            out.push(if at == 0 { '{' } else { ',' });
            out.push_str(&names[at]);
            out.push(':');
            let dtype = frame.columns()[at].dtype();
            match column.get(row) {
                None => out.push_str("null"),
                Some("NaN" | "inf" | "-inf") if dtype.is_float() => out.push_str("null"),
                Some(text) if dtype.is_primitive_numeric() || dtype.is_bool() || dtype.is_duration() => {
                    out.push_str(text)
                }
                Some(text) => out.push_str(&encode(text)?),
            }
        }
        out.push_str(if columns.is_empty() { "{}\n" } else { "}\n" });
    }
    Ok(out.into_bytes())
}

/// A column as text, the way both text formats carry it.
fn texts(column: &Column) -> Result<StringChunked, StageError> {
    let series = column.as_materialized_series().rechunk();
    let written: StringChunked = match series.dtype() {
        DataType::Float64 => series.f64().map_err(failed)?.iter().map(|v| v.map(|v| format!("{v:?}"))).collect(),
        DataType::Float32 => series.f32().map_err(failed)?.iter().map(|v| v.map(|v| format!("{v:?}"))).collect(),
        DataType::Date => counts(&series, iso::write_date)?,
        DataType::Time => counts(&series, iso::write_time)?,
        DataType::Duration(_) => counts(&series, |count| count.to_string())?,
        DataType::Datetime(unit, zone) => {
            let (per_second, zoned) = (per_second(*unit), zone.is_some());
            counts(&series, |count| iso::write_datetime(count, per_second, zoned))?
        }
        DataType::Null | DataType::Categorical(..) | DataType::Enum(..) => text_of(&series)?,
        dtype if frame::type_name(dtype).is_some() => text_of(&series)?,
        other => {
            return Err(StageError::UnsupportedType { column: column.name().to_string(), found: other.to_string() });
        }
    };
    Ok(written.rechunk().into_owned())
}

fn text_of(series: &Series) -> Result<StringChunked, StageError> {
    series.cast(&DataType::String).and_then(|text| text.str().cloned()).map_err(failed)
}

/// A temporal column's numbers, each turned into text.
fn counts(series: &Series, write: impl Fn(i64) -> String) -> Result<StringChunked, StageError> {
    let numbers = series.to_physical_repr().cast(&DataType::Int64).map_err(failed)?;
    Ok(numbers.i64().map_err(failed)?.iter().map(|count| count.map(&write)).collect())
}
