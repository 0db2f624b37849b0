//! `frame`: a table as a tree of columns, and its one encoding.
//!
//! Each column is a blob of its own (Arrow IPC file, one chunk, no compression, column name left out), so frames that
//! share a column share its bytes. The header is `rows N`. A frame may carry an entry [`ROWS`], the indices of its rows
//! within longer shared columns: a split copies no column. This file does not know what a frame is used for.
//!
//! Invariant: equal columns have equal bytes. A column is made canonical before it is encoded: one chunk at offset 0,
//! zeros under nulls, no bitmap when nothing is null, one NaN, categories as their text.

use std::io::Cursor;

use polars::prelude::*;

use crate::StageError;
use crate::io::{DraftTree, EntryHead, Stored};

/// The entry that holds the row indices (`u32`) of a frame over longer columns.
pub const ROWS: &str = ":rows";

/// Names and types of a frame's columns, as its header tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    pub rows: u64,
    pub columns: Vec<EntryHead>,
}

impl Schema {
    /// Reads a schema from header and entries alone.
    ///
    /// # Errors
    /// [`StageError::Decode`] if the header is not a frame's.
    pub fn new(header: &str, entries: &[EntryHead]) -> Result<Self, StageError> {
        let rows = header.strip_prefix("rows ").and_then(|count| count.parse().ok());
        let rows = rows.ok_or_else(|| StageError::Decode { what: "frame".into(), detail: format!("header `{header}`") })?;
        let columns = entries.iter().filter(|entry| entry.name != ROWS).cloned().collect();
        Ok(Self { rows, columns })
    }

    /// The schema of a stored frame.
    ///
    /// # Errors
    /// As [`Schema::new`].
    pub fn of(stored: &dyn Stored) -> Result<Self, StageError> {
        Self::new(stored.header(), stored.entries())
    }

    /// The names of the columns, in order.
    pub fn names(&self) -> Vec<String> {
        self.columns.iter().map(|column| column.name.clone()).collect()
    }
}

/// The stable name of a column type; `None` for what a frame cannot hold.
pub fn type_name(dtype: &DataType) -> Option<String> {
    let unit = |unit: &TimeUnit| match unit {
        TimeUnit::Nanoseconds => "ns",
        TimeUnit::Microseconds => "us",
        TimeUnit::Milliseconds => "ms",
    };
    Some(match dtype {
        DataType::Boolean => "bool".into(),
        DataType::String => "str".into(),
        DataType::Int8 => "i8".into(),
        DataType::Int16 => "i16".into(),
        DataType::Int32 => "i32".into(),
        DataType::Int64 => "i64".into(),
        DataType::UInt8 => "u8".into(),
        DataType::UInt16 => "u16".into(),
        DataType::UInt32 => "u32".into(),
        DataType::UInt64 => "u64".into(),
        DataType::Float32 => "f32".into(),
        DataType::Float64 => "f64".into(),
        DataType::Date => "date".into(),
        DataType::Time => "time".into(),
        DataType::Duration(u) => format!("duration[{}]", unit(u)),
        DataType::Datetime(u, None) => format!("datetime[{}]", unit(u)),
        DataType::Datetime(u, Some(zone)) => format!("datetime[{}, {zone}]", unit(u)),
        _ => return None,
    })
}

/// The type of a name that [`type_name`] gives, zoned datetimes excepted.
pub fn parse_type(name: &str) -> Option<DataType> {
    use TimeUnit::{Microseconds, Milliseconds, Nanoseconds};
    Some(match name {
        "bool" => DataType::Boolean,
        "str" => DataType::String,
        "i8" => DataType::Int8,
        "i16" => DataType::Int16,
        "i32" => DataType::Int32,
        "i64" => DataType::Int64,
        "u8" => DataType::UInt8,
        "u16" => DataType::UInt16,
        "u32" => DataType::UInt32,
        "u64" => DataType::UInt64,
        "f32" => DataType::Float32,
        "f64" => DataType::Float64,
        "date" => DataType::Date,
        "time" => DataType::Time,
        "duration[ns]" => DataType::Duration(Nanoseconds),
        "duration[us]" => DataType::Duration(Microseconds),
        "duration[ms]" => DataType::Duration(Milliseconds),
        "datetime[ns]" => DataType::Datetime(Nanoseconds, None),
        "datetime[us]" => DataType::Datetime(Microseconds, None),
        "datetime[ms]" => DataType::Datetime(Milliseconds, None),
        _ => return None,
    })
}

/// Encodes a frame, a column an entry.
///
/// # Errors
/// If a column has no name, a reserved one, or a type that a frame cannot hold.
pub fn encode(frame: &DataFrame) -> Result<DraftTree, StageError> {
    let mut tree = DraftTree::new(format!("rows {}", frame.height()));
    for (at, column) in frame.columns().iter().enumerate() {
        let name = column.name().as_str();
        if name.is_empty() {
            return Err(StageError::UnnamedColumn { number: at + 1 });
        }
        if name == ROWS {
            return Err(StageError::ReservedColumn { name: name.into() });
        }
        let canonical = canonical(column)?;
        let type_name = type_name(canonical.dtype()).ok_or_else(|| unsupported(column))?;
        tree.push(name, type_name, encode_column(canonical)?);
    }
    Ok(tree)
}

/// A frame's row selection, to be laid over the columns of another: header and the entry [`ROWS`].
///
/// # Errors
/// Only if encoding fails.
pub fn encode_rows(rows: Vec<u32>) -> Result<DraftTree, StageError> {
    let mut tree = DraftTree::new(format!("rows {}", rows.len()));
    tree.push(ROWS, "rows", encode_column(Series::new(PlSmallStr::EMPTY, rows))?);
    Ok(tree)
}

/// Decodes all columns within the selection.
///
/// # Errors
/// If an entry is missing, damaged, or of another length than the header says.
pub fn decode(stored: &dyn Stored) -> Result<DataFrame, StageError> {
    let names = Schema::of(stored)?.names();
    decode_columns(stored, &names)
}

/// Decodes the named columns, in the order given.
///
/// # Errors
/// As [`decode`].
pub fn decode_columns(stored: &dyn Stored, names: &[String]) -> Result<DataFrame, StageError> {
    let height = usize::try_from(Schema::of(stored)?.rows).map_err(|_| mismatch("the row count is too large"))?;
    let rows = decode_rows(stored)?;
    let mut columns = Vec::with_capacity(names.len());
    for name in names {
        let mut column = decode_column(&stored.entry(name)?)?;
        if let Some(rows) = &rows {
            column = column.take(rows).map_err(|error| mismatch(&error.to_string()))?;
        }
        if column.len() != height {
            return Err(mismatch(&format!("column `{name}` has {} rows, the header says {height}", column.len())));
        }
        column.rename(name.as_str().into());
        columns.push(column.into());
    }
    DataFrame::new(height, columns).map_err(|error| mismatch(&error.to_string()))
}

/// The row selection of a stored frame, if it carries one.
///
/// # Errors
/// If the entry is missing or damaged.
pub fn decode_rows(stored: &dyn Stored) -> Result<Option<IdxCa>, StageError> {
    if !stored.entries().iter().any(|entry| entry.name == ROWS) {
        return Ok(None);
    }
    let rows = decode_column(&stored.entry(ROWS)?)?;
    let rows = rows.idx().map_err(|error| mismatch(&error.to_string()))?;
    Ok(Some(rows.clone()))
}

fn mismatch(detail: &str) -> StageError {
    StageError::Decode { what: "frame".into(), detail: detail.into() }
}

fn unsupported(column: &Column) -> StageError {
    StageError::UnsupportedType { column: column.name().to_string(), found: column.dtype().to_string() }
}

fn encode_column(series: Series) -> Result<Vec<u8>, StageError> {
    let failed = |error: PolarsError| StageError::Encode { detail: error.to_string() };
    let height = series.len();
    let mut frame = DataFrame::new(height, vec![series.with_name(PlSmallStr::EMPTY).into()]).map_err(failed)?;
    let mut bytes = Vec::new();
    IpcWriter::new(&mut bytes)
        .with_compression(None)
        .with_compat_level(CompatLevel::oldest())
        .with_record_batch_size(Some(height.max(1)))
        .with_parallel(false)
        .finish(&mut frame)
        .map_err(failed)?;
    Ok(bytes)
}

fn decode_column(bytes: &[u8]) -> Result<Series, StageError> {
    let frame = IpcReader::new(Cursor::new(bytes)).finish().map_err(|error| mismatch(&error.to_string()))?;
    match frame.columns() {
        [column] => Ok(column.as_materialized_series().rechunk()),
        other => Err(mismatch(&format!("a column's blob holds {} columns", other.len()))),
    }
}

/// The one representation of a column's content.
fn canonical(column: &Column) -> Result<Series, StageError> {
    let series = column.as_materialized_series();
    let failed = |error: PolarsError| StageError::Encode { detail: error.to_string() };
    let physical = match series.dtype() {
        DataType::Categorical(..) | DataType::Enum(..) | DataType::Null => {
            series.cast(&DataType::String).map_err(failed)?
        }
        _ => series.clone(),
    };
    let dtype = physical.dtype().clone();
    let physical = physical.to_physical_repr().rechunk();
    let rebuilt = match physical.dtype() {
        DataType::Float64 => rebuild_floats(physical.f64().map_err(failed)?),
        DataType::Float32 => {
            let floats = physical.f32().map_err(failed)?;
            floats.iter().map(|value| value.map(|v| if v.is_nan() { f32::NAN } else { v })).collect::<Float32Chunked>().into_series()
        }
        DataType::String => {
            let strings = physical.str().map_err(failed)?;
            strings.iter().collect::<StringChunked>().into_series()
        }
        DataType::Boolean if physical.null_count() > 0 => {
            physical.bool().map_err(failed)?.iter().collect::<BooleanChunked>().into_series()
        }
        DataType::Boolean => physical.clone(),
        _ => rebuild_integers(&physical)?,
    };
    rebuilt.cast(&dtype).map_err(failed)
}

fn rebuild_floats(floats: &Float64Chunked) -> Series {
    floats
        .iter()
        .map(|value| value.map(|v| if v.is_nan() { f64::NAN } else { v }))
        .collect::<Float64Chunked>()
        .into_series()
}

/// Collecting writes zeros under nulls, whatever was there.
fn rebuild_integers(physical: &Series) -> Result<Series, StageError> {
    if physical.null_count() == 0 {
        return Ok(physical.clone());
    }
    macro_rules! rebuild {
        ($($dtype:ident: $ca:ident, $get:ident);* $(;)?) => {
            match physical.dtype() {
                $(DataType::$dtype => {
                    let values = physical.$get().map_err(|error| StageError::Encode { detail: error.to_string() })?;
                    Ok(values.iter().collect::<$ca>().into_series())
                })*
                other => Err(StageError::UnsupportedType { column: physical.name().to_string(), found: other.to_string() }),
            }
        };
    }
    rebuild! {
        Int8: Int8Chunked, i8; Int16: Int16Chunked, i16; Int32: Int32Chunked, i32; Int64: Int64Chunked, i64;
        UInt8: UInt8Chunked, u8; UInt16: UInt16Chunked, u16; UInt32: UInt32Chunked, u32; UInt64: UInt64Chunked, u64;
    }
}
