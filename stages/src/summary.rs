//! What a person wants to see of a frame: its first rows, and a line a column.
//!
//! It gives text; how that is laid out is not known here. Nothing of it enters an artifact.

use polars::prelude::*;
use serde::Serialize;

use crate::StageError;
use crate::frame::type_name;

/// Days from 1970, some 260,000 years.
const MOST_DAYS: i64 = 95_000_000;
/// Nanoseconds.
const DAY: i64 = 86_400_000_000_000;

/// One column in one line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ColumnSummary {
    pub column: String,
    #[serde(rename = "type")]
    pub type_name: String,
    pub nulls: usize,
    pub distinct: usize,
    /// Of numbers and booleans alone.
    pub mean: Option<f64>,
    pub min: Option<String>,
    pub max: Option<String>,
}

/// The names of the columns, and the cells of the first rows; nothing stands for null.
///
/// # Errors
/// Only if the frame is broken.
pub fn head(frame: &DataFrame, rows: usize) -> Result<(Vec<String>, Vec<Vec<String>>), StageError> {
    let names = frame.get_column_names().iter().map(|name| name.to_string()).collect();
    let mut table = Vec::new();
    for row in 0..rows.min(frame.height()) {
        let cells = frame.columns().iter().map(|column| column.get(row).map(|value| cell(&value)));
        table.push(cells.collect::<PolarsResult<_>>().map_err(failed)?);
    }
    Ok((names, table))
}

/// A line a column.
///
/// # Errors
/// Only if the frame is broken.
pub fn columns(frame: &DataFrame) -> Result<Vec<ColumnSummary>, StageError> {
    frame.columns().iter().map(summarize).collect()
}

fn summarize(column: &Column) -> Result<ColumnSummary, StageError> {
    let numeric = column.dtype().is_primitive_numeric() || column.dtype() == &DataType::Boolean;
    let bound = |scalar: PolarsResult<Scalar>| {
        let value = scalar.map_err(failed)?.into_value();
        Ok(Some(cell(&value)).filter(|text| !text.is_empty()))
    };
    Ok(ColumnSummary {
        column: column.name().to_string(),
        type_name: type_name(column.dtype()).unwrap_or_else(|| column.dtype().to_string()),
        nulls: column.null_count(),
        distinct: column.n_unique().map_err(failed)?,
        mean: if numeric { mean(column)? } else { None },
        min: bound(column.min_reduce())?,
        max: bound(column.max_reduce())?,
    })
}

fn mean(column: &Column) -> Result<Option<f64>, StageError> {
    Ok(column.cast(&DataType::Float64).map_err(failed)?.f64().map_err(failed)?.mean())
}

/// polars panics where the calendar of its dates ends: beyond, the number itself is shown.
pub(crate) fn cell(value: &AnyValue<'_>) -> String {
    let of_day = |number: i64, day: i64| (number / day).abs() > MOST_DAYS;
    match value {
        AnyValue::Null => String::new(),
        AnyValue::Date(days) if of_day((*days).into(), 1) => days.to_string(),
        AnyValue::Time(count) if !(0..DAY).contains(count) => count.to_string(),
        AnyValue::Datetime(count, unit, _) if of_day(*count, in_a_day(*unit)) => count.to_string(),
        AnyValue::DatetimeOwned(count, unit, _) if of_day(*count, in_a_day(*unit)) => count.to_string(),
        other => other.str_value().into_owned(),
    }
}

fn in_a_day(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Nanoseconds => DAY,
        TimeUnit::Microseconds => DAY / 1_000,
        TimeUnit::Milliseconds => DAY / 1_000_000,
    }
}

fn failed(error: PolarsError) -> StageError {
    StageError::Library { what: "polars", detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_beyond_the_calendar_is_shown_as_its_number() {
        let mut types = vec![DataType::Time];
        for unit in [TimeUnit::Nanoseconds, TimeUnit::Microseconds, TimeUnit::Milliseconds] {
            types.extend([DataType::Datetime(unit, None), DataType::Datetime(unit, Some(TimeZone::UTC))]);
        }
        let steps = |unit: i64| (0..64).map(move |power| (unit >> power, -(unit >> power)));
        let numbers: Vec<i64> = steps(i64::MAX).flat_map(|(late, early)| [late, early]).collect();
        for dtype in types {
            let moments = Series::new("m".into(), &numbers).cast(&dtype).expect("casts");
            let frame = DataFrame::new(numbers.len(), vec![moments.into()]).expect("a frame");
            let (_, rows) = head(&frame, numbers.len()).expect("rows");
            columns(&frame).expect("columns");
            if !matches!(dtype, DataType::Time | DataType::Datetime(TimeUnit::Nanoseconds, _)) {
                assert_eq!(rows[0], [i64::MAX.to_string()], "{dtype}");
            }
        }
        let days: Vec<i32> = numbers.iter().filter_map(|number| i32::try_from(*number).ok()).collect();
        let dates = Series::new("d".into(), &days).cast(&DataType::Date).expect("casts");
        let frame = DataFrame::new(days.len(), vec![dates.into()]).expect("a frame");
        let (_, rows) = head(&frame, days.len()).expect("rows");
        assert_eq!(rows[0], [i32::MAX.to_string()]);
        assert_eq!(rows.last(), Some(&vec!["1970-01-01".to_owned()]));
    }

    #[test]
    fn a_null_is_shown_as_nothing_and_counted() {
        let frame = df!("a" => [Some(1.0), None, Some(3.0)], "b" => ["x", "y", "x"]).expect("a frame");
        let (names, rows) = head(&frame, 2).expect("rows");
        assert_eq!(names, ["a", "b"]);
        assert_eq!(rows, [["1.0", "x"], ["", "y"]]);
        let columns = columns(&frame).expect("columns");
        assert_eq!((columns[0].nulls, columns[0].mean, columns[0].max.as_deref()), (1, Some(2.0), Some("3.0")));
        assert_eq!((columns[1].distinct, columns[1].mean, columns[1].min.as_deref()), (2, None, Some("x")));
    }
}
