//! Columns of a frame as the numbers that a model takes: features as one matrix, a regression's target as values.
//!
//! It does not know algorithms. Rows in messages count from 1. Classes are made in `classes.rs`.
//!
//! Invariant: what leaves this file is finite. A matrix is column-major, rows x features, its columns in the order of
//! the names asked for; a bool is 0 or 1.

use ndarray::{Array2, ShapeBuilder};
use polars::prelude::*;

use crate::{StageError, frame};

/// The named columns as one matrix, rows x names. Zero rows are allowed.
///
/// # Errors
/// If a column is missing, is neither number nor bool, or holds a null, a NaN or an infinity.
pub fn features(place: &str, frame: &DataFrame, names: &[String]) -> Result<Array2<f64>, StageError> {
    let columns = names.iter().map(|name| column(place, frame, name)).collect::<Result<Vec<_>, _>>()?;
    let mut values = Vec::with_capacity(frame.height() * names.len());
    for column in columns {
        let expected = "a number or a bool; put a `prepare` stage with `one_hot` before `train`";
        values.extend(numbers(
            place,
            "column",
            column,
            expected,
            "put a `prepare` stage with `impute` before `train`",
        )?);
    }
    Array2::from_shape_vec((frame.height(), names.len()).f(), values)
        .map_err(|error| StageError::Library { what: "ndarray", detail: error.to_string() })
}

/// The values of a regression's target, in row order.
///
/// # Errors
/// If the column is missing, is neither number nor bool, or holds a null, a NaN or an infinity.
pub fn values(place: &str, frame: &DataFrame, target: &str) -> Result<Vec<f64>, StageError> {
    let column = column(place, frame, target)?;
    numbers(place, "target", column, "a number or a bool, to be the target of a regression", "leave such rows out")
}

/// A column by its name.
pub(crate) fn column<'a>(place: &str, frame: &'a DataFrame, name: &str) -> Result<&'a Column, StageError> {
    frame.column(name).map_err(|_| StageError::UnknownColumn {
        place: place.into(),
        column: name.into(),
        available: frame.columns().iter().map(|column| column.name().to_string()).collect(),
    })
}

fn numbers(place: &str, role: &str, column: &Column, expected: &str, advice: &str) -> Result<Vec<f64>, StageError> {
    let series = column.as_materialized_series();
    let dtype = series.dtype();
    if !(dtype.is_integer() || dtype.is_float() || dtype.is_bool()) {
        return Err(StageError::ColumnType {
            place: place.into(),
            column: column.name().to_string(),
            found: frame::type_name(dtype).unwrap_or_else(|| dtype.to_string()),
            expected: expected.into(),
        });
    }
    let failed = |error: PolarsError| StageError::Library { what: "polars", detail: error.to_string() };
    let floats = series.cast(&DataType::Float64).map_err(failed)?;
    let mut values = Vec::with_capacity(series.len());
    for (row, value) in floats.f64().map_err(failed)?.iter().enumerate() {
        match value {
            Some(value) if value.is_finite() => values.push(value),
            other => {
                let found = match other {
                    None => "null",
                    Some(value) if value.is_nan() => "NaN",
                    Some(_) => "infinite",
                };
                // No step takes an infinite value away.
                let advice = if found == "infinite" { "leave such rows out" } else { advice };
                let detail = format!("{place}: {role} `{}` is {found} in row {}; {advice}", column.name(), row + 1);
                return Err(StageError::Data { detail });
            }
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> DataFrame {
        let columns = vec![
            Column::new("a".into(), [1i32, 2, 3]),
            Column::new("b".into(), [true, false, true]),
            Column::new("c".into(), ["x", "y", "z"]),
            Column::new("d".into(), [Some(1.0), None, Some(2.0)]),
            Column::new("e".into(), [1.0, 2.0, f64::NAN]),
            Column::new("f".into(), [f64::INFINITY, 2.0, 0.0]),
        ];
        DataFrame::new(3, columns).unwrap()
    }

    fn text(name: &str) -> String {
        features("train", &frame(), &[name.to_owned()]).unwrap_err().to_string()
    }

    #[test]
    fn a_matrix_is_column_major_in_the_order_asked_for() {
        let matrix = features("train", &frame(), &["b".into(), "a".into()]).unwrap();
        assert_eq!(matrix.as_slice_memory_order().unwrap(), [1.0, 0.0, 1.0, 1.0, 2.0, 3.0]);
        assert_eq!(matrix.column(1).to_vec(), [1.0, 2.0, 3.0]);
        assert!(!matrix.is_standard_layout());
    }

    #[test]
    fn what_is_no_number_is_refused_with_column_and_row() {
        assert_eq!(
            text("c"),
            "train: column `c` is str, expected a number or a bool; put a `prepare` stage with `one_hot` before `train`"
        );
        let advice = "put a `prepare` stage with `impute` before `train`";
        assert_eq!(text("d"), format!("train: column `d` is null in row 2; {advice}"));
        assert_eq!(text("e"), format!("train: column `e` is NaN in row 3; {advice}"));
        assert_eq!(text("f"), "train: column `f` is infinite in row 1; leave such rows out");
        assert_eq!(text("g"), "train: there is no column `g`; the columns are `a`, `b`, `c`, `d`, `e`, `f`");
        let target = values("train", &frame(), "d").unwrap_err().to_string();
        assert_eq!(target, "train: target `d` is null in row 2; leave such rows out");
    }
}
