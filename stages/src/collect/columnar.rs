//! `columnar`: Parquet and Arrow IPC files, read by polars.
//!
//! It picks columns before it reads any and casts what was asked for. It does not know compressions around the file.
//!
//! Invariants: a file on which polars panics is an error, as is any other that it cannot read. A cast that would change a
//! value is an error with its row, except that f64 as f32 is rounded, as asked, though never to an infinity.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};

use polars::prelude::*;

use super::cell::Builder;
use super::read::{Format, ReadConfig, first_duplicate};
use crate::StageError;
use crate::frame;
use crate::summary::cell;

/// Reads a file.
pub(super) fn read(config: &ReadConfig, bytes: &[u8]) -> Result<DataFrame, StageError> {
    let names = whole(config, || names(config, bytes))?;
    if let Some(twice) = first_duplicate(&names) {
        return Err(config.wrong_file(format!("it has two columns named `{twice}`")));
    }
    let selected: Vec<String> = config.select(&names)?.into_iter().map(|at| names[at].clone()).collect();
    let frame = whole(config, || {
        let cursor = Cursor::new(bytes);
        let frame = match config.format {
            Format::Parquet => ParquetReader::new(cursor).with_columns(Some(selected.clone())).finish(),
            _ => IpcReader::new(cursor).with_columns(Some(selected.clone())).finish(),
        };
        frame?.select(&selected)
    })?;
    let height = frame.height();
    let columns = frame.columns().iter().map(|column| cast(config, column.as_materialized_series()).map(Into::into));
    let columns = columns.collect::<Result<Vec<Column>, StageError>>()?;
    DataFrame::new(height, columns).map_err(|error| unreadable(config, &error.to_string()))
}

/// What polars reads of a file that is as it should be; of some that are not it panics.
fn whole<T>(config: &ReadConfig, read: impl FnOnce() -> PolarsResult<T>) -> Result<T, StageError> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|error| unreadable(config, &error.to_string())),
        Err(_) => Err(unreadable(config, DAMAGED)),
    }
}

const DAMAGED: &str = "it is damaged so that polars panics";

fn unreadable(config: &ReadConfig, detail: &str) -> StageError {
    config.wrong_file(format!("it cannot be read: {detail}"))
}

fn names(config: &ReadConfig, bytes: &[u8]) -> PolarsResult<Vec<String>> {
    let cursor = Cursor::new(bytes);
    let schema = match config.format {
        Format::Parquet => ParquetReader::new(cursor).schema()?,
        _ => IpcReader::new(cursor).schema()?,
    };
    Ok(schema.iter_names().map(|name| name.to_string()).collect())
}

fn cast(config: &ReadConfig, column: &Series) -> Result<Series, StageError> {
    let Some(to) = config.type_of(column.name()).filter(|to| to != column.dtype()) else {
        return Ok(column.clone());
    };
    let failed = |error: PolarsError| StageError::ColumnType {
        place: format!("{}: types", config.path),
        column: column.name().to_string(),
        found: format!("{}, which cannot be cast: {error}", type_name(column.dtype())),
        expected: type_name(&to),
    };
    if column.dtype().is_string() {
        return parse(config, column, &to);
    }
    let cast = column.cast(&to).map_err(failed)?;
    if to.is_string() {
        return Ok(cast);
    }
    let same = match (column.dtype(), &to) {
        (DataType::Float64, DataType::Float32) => {
            cast.is_infinite().and_then(|after| Ok(after.equal_missing(&column.is_infinite()?))).map_err(failed)?
        }
        _ => cast.cast(column.dtype()).and_then(|back| back.equal_missing(column)).map_err(failed)?,
    };
    match same.iter().position(|same| same != Some(true)) {
        None => Ok(cast),
        Some(at) => {
            let value = cell(&column.get(at).map_err(failed)?);
            Err(config.wrong_row(
                at as u64 + 1,
                Some(column.name()),
                format!("found `{value}`, expected {}", type_name(&to)),
            ))
        }
    }
}

fn parse(config: &ReadConfig, column: &Series, to: &DataType) -> Result<Series, StageError> {
    let failed = |error: PolarsError| StageError::Library { what: "polars", detail: error.to_string() };
    let mut builder = Builder::new(to, column.len());
    for (at, text) in column.str().map_err(failed)?.iter().enumerate() {
        match text {
            None => builder.push_null(),
            Some(text) => {
                builder.push(text).map_err(|detail| config.wrong_row(at as u64 + 1, Some(column.name()), detail))?
            }
        }
    }
    Ok(builder.finish().map_err(failed)?.with_name(column.name().clone()))
}

fn type_name(dtype: &DataType) -> String {
    frame::type_name(dtype).unwrap_or_else(|| dtype.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::{read_frame, write_frame};

    /// What each change of one byte makes of a file, in words. Of Parquet the footer alone is changed: elsewhere a byte can
    /// have polars ask for more memory than there is, which ends the process.
    fn told(name: &str) -> Vec<String> {
        let columns = vec![Column::new("a".into(), [Some(1_i64), None]), Column::new("b".into(), ["x", "y"])];
        let good = write_frame(&DataFrame::new(2, columns).expect("a frame"), name).expect("it is written");
        let config = ReadConfig::of_path(name).expect("a known name");
        let begin = if config.format == Format::Parquet { footer(&good) } else { 0 };
        let changed = (begin..good.len()).map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 0x11;
            read_frame(&config, &bytes).map_or_else(|error| error.to_string(), |_| String::new())
        });
        changed.collect()
    }

    /// Where the footer of a Parquet file begins; its length and a magic word are behind it.
    fn footer(file: &[u8]) -> usize {
        let (rest, end) = file.split_last_chunk::<8>().expect("an end");
        let [a, b, c, d, ..] = *end;
        rest.len() - u32::from_le_bytes([a, b, c, d]) as usize
    }

    #[test]
    fn a_damaged_file_on_which_polars_panics_is_an_error() {
        for name in ["a.parquet", "a.arrow"] {
            assert!(told(name).contains(&format!("{name}: it cannot be read: {DAMAGED}")), "{name}");
        }
    }
}
