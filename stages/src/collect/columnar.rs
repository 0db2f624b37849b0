//! `columnar`: Parquet and Arrow IPC files, read by polars.
//!
//! It picks columns before it reads any and casts what was asked for. It does not know compressions around the file.
//!
//! Invariant: a cast that would change a value is an error with its row, except that f64 as f32 is rounded, as asked, though
//! never to an infinity.

use std::io::Cursor;

use polars::prelude::*;

use super::cell::Builder;
use super::read::{Format, ReadConfig, first_duplicate};
use crate::StageError;
use crate::frame;
use crate::summary::cell;

/// Reads a file.
pub(super) fn read(config: &ReadConfig, bytes: &[u8]) -> Result<DataFrame, StageError> {
    let failed = |error: PolarsError| config.wrong_file(format!("it cannot be read: {error}"));
    let names = names(config, bytes).map_err(failed)?;
    if let Some(twice) = first_duplicate(&names) {
        return Err(config.wrong_file(format!("it has two columns named `{twice}`")));
    }
    let selected: Vec<String> = config.select(&names)?.into_iter().map(|at| names[at].clone()).collect();
    let cursor = Cursor::new(bytes);
    let frame = match config.format {
        Format::Parquet => ParquetReader::new(cursor).with_columns(Some(selected.clone())).finish(),
        _ => IpcReader::new(cursor).with_columns(Some(selected.clone())).finish(),
    };
    let frame = frame.and_then(|frame| frame.select(&selected)).map_err(failed)?;
    let height = frame.height();
    let columns = frame.columns().iter().map(|column| cast(config, column.as_materialized_series()).map(Into::into));
    let columns = columns.collect::<Result<Vec<Column>, StageError>>()?;
    DataFrame::new(height, columns).map_err(failed)
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
