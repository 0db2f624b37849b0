//! The classes of a target: its distinct labels, in order, and rows as indices into them.
//!
//! Labels are booleans, text or whole numbers, and keep the type of the column that they came from, so that predictions
//! come back in it. This file does not know models or metrics.
//!
//! Invariant: labels are distinct and ascending: false before true, text bytewise, numbers by value. Of two classes the
//! last one is the positive one.

use polars::prelude::*;
use serde::{Deserialize, Serialize};

use crate::matrix::column;
use crate::{StageError, frame};

/// More classes than this are taken for a mistake, such as an identifier named as the target.
pub const MOST_CLASSES: usize = 1000;

/// Whole numbers beyond 2^53 do not survive a column of floats.
const WHOLE: f64 = 9_007_199_254_740_992.0;

/// The distinct labels of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classes {
    type_name: String,
    labels: Labels,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Labels {
    /// Booleans are 0 and 1 here.
    Number(Vec<i64>),
    Text(Vec<String>),
}

/// One label for each row; `None` stands for a number that is not whole.
enum Keys {
    Number(Vec<Option<i64>>),
    Text(Vec<String>),
}

impl Classes {
    /// The classes of a target and, for each row, the index of its class.
    ///
    /// # Errors
    /// If the column is missing, is neither bool, text nor number, has nulls, NaN or fractional numbers, fewer than two
    /// classes, or more than [`MOST_CLASSES`].
    pub fn learn(place: &str, frame: &DataFrame, target: &str) -> Result<(Self, Vec<u32>), StageError> {
        let column = column(place, frame, target)?;
        let type_name = frame::type_name(column.dtype()).unwrap_or_else(|| column.dtype().to_string());
        let (labels, rows) = match keys(place, column)? {
            Keys::Text(keys) => {
                let (labels, rows) = distinct(keys);
                (Labels::Text(labels), rows)
            }
            Keys::Number(keys) => {
                let (labels, rows) = distinct(whole(place, target, keys)?);
                (Labels::Number(labels), rows)
            }
        };
        let classes = Self { type_name, labels };
        classes.check_count(place, target)?;
        Ok((classes, rows))
    }

    /// For each row the index of its class, `None` for a class that is not among these.
    ///
    /// # Errors
    /// If the column is missing, has nulls or NaN, or its labels are of another sort than these.
    pub fn locate(&self, place: &str, frame: &DataFrame, target: &str) -> Result<Vec<Option<u32>>, StageError> {
        let column = column(place, frame, target)?;
        if sort_of(column.dtype()) != frame::parse_type(&self.type_name).as_ref().and_then(sort_of_type) {
            return Err(StageError::ColumnType {
                place: place.into(),
                column: target.into(),
                found: frame::type_name(column.dtype()).unwrap_or_else(|| column.dtype().to_string()),
                expected: format!("{}, as the model was trained on", self.type_name),
            });
        }
        let index = |at: Result<usize, usize>| at.ok().and_then(|at| u32::try_from(at).ok());
        Ok(match (keys(place, column)?, &self.labels) {
            (Keys::Text(keys), Labels::Text(labels)) => keys.iter().map(|k| index(labels.binary_search(k))).collect(),
            (Keys::Number(keys), Labels::Number(labels)) => {
                keys.iter().map(|k| k.and_then(|k| index(labels.binary_search(&k)))).collect()
            }
            (keys, _) => vec![None; keys.len()],
        })
    }

    /// How many classes there are: two or more.
    pub fn count(&self) -> usize {
        match &self.labels {
            Labels::Number(labels) => labels.len(),
            Labels::Text(labels) => labels.len(),
        }
    }

    /// The text of a class's label.
    pub fn name(&self, class: usize) -> String {
        match &self.labels {
            Labels::Number(labels) if self.type_name == "bool" => (labels[class] != 0).to_string(),
            Labels::Number(labels) => labels[class].to_string(),
            Labels::Text(labels) => labels[class].clone(),
        }
    }

    /// The texts of all labels, in order.
    pub fn names(&self) -> Vec<String> {
        (0..self.count()).map(|class| self.name(class)).collect()
    }

    /// A label as JSON: `true`, `3` or `"late"`.
    pub fn json(&self, class: usize) -> serde_json::Value {
        match &self.labels {
            Labels::Number(labels) if self.type_name == "bool" => (labels[class] != 0).into(),
            Labels::Number(labels) => labels[class].into(),
            Labels::Text(labels) => labels[class].clone().into(),
        }
    }

    /// The class that a JSON value names; a whole number may be written as a float.
    pub fn find(&self, label: &serde_json::Value) -> Option<usize> {
        let wanted = match label.as_f64() {
            Some(number) if !label.is_i64() && is_whole(number) => serde_json::Value::from(number as i64),
            _ => label.clone(),
        };
        (0..self.count()).find(|&class| self.json(class) == wanted)
    }

    /// A column of labels, in the type of the target.
    ///
    /// # Errors
    /// If the type can no longer hold a label, which decoding rules out.
    pub fn column(&self, name: &str, rows: &[u32]) -> Result<Column, StageError> {
        let series = match &self.labels {
            Labels::Text(labels) => {
                Series::new(name.into(), rows.iter().map(|&r| labels[r as usize].as_str()).collect::<Vec<_>>())
            }
            Labels::Number(labels) => {
                Series::new(name.into(), rows.iter().map(|&r| labels[r as usize]).collect::<Vec<_>>())
            }
        };
        let dtype = self.dtype().map_err(|detail| StageError::Encode { detail })?;
        let series = series.strict_cast(&dtype).map_err(|error| StageError::Encode { detail: error.to_string() })?;
        Ok(series.into())
    }

    /// Whether these may have come from [`Classes::learn`]; decoded ones are not trusted.
    pub(crate) fn check(&self) -> Result<(), String> {
        let ascending = match &self.labels {
            Labels::Number(labels) => labels.is_sorted_by(|a, b| a < b),
            Labels::Text(labels) => labels.is_sorted_by(|a, b| a < b),
        };
        if !ascending || !(2..=MOST_CLASSES).contains(&self.count()) {
            return Err("the classes are not distinct and ascending".into());
        }
        let every: Vec<u32> = (0..self.count() as u32).collect();
        self.column("", &every).map(|_| ()).map_err(|error| error.to_string())
    }

    fn dtype(&self) -> Result<DataType, String> {
        let dtype = frame::parse_type(&self.type_name);
        let fits = match &self.labels {
            Labels::Text(_) => dtype == Some(DataType::String),
            Labels::Number(_) => matches!(dtype.as_ref().and_then(sort_of_type), Some(Sort::Bool | Sort::Number)),
        };
        dtype.filter(|_| fits).ok_or_else(|| format!("classes cannot be of type `{}`", self.type_name))
    }

    fn check_count(&self, place: &str, target: &str) -> Result<(), StageError> {
        let detail = match self.count() {
            0 | 1 => {
                let only = if self.count() == 1 { format!(", `{}`", self.name(0)) } else { String::new() };
                format!("{place}: target `{target}` has one class only{only}; a classifier needs two or more")
            }
            count if count > MOST_CLASSES => format!(
                "{place}: target `{target}` has {count} distinct values; a classifier takes at most {MOST_CLASSES} classes"
            ),
            _ => return Ok(()),
        };
        Err(StageError::Data { detail })
    }
}

impl Keys {
    fn len(&self) -> usize {
        match self {
            Self::Number(keys) => keys.len(),
            Self::Text(keys) => keys.len(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Bool,
    Text,
    Number,
}

fn sort_of(dtype: &DataType) -> Option<Sort> {
    match dtype {
        DataType::Categorical(..) | DataType::Enum(..) => Some(Sort::Text),
        other => sort_of_type(other),
    }
}

fn sort_of_type(dtype: &DataType) -> Option<Sort> {
    match dtype {
        DataType::Boolean => Some(Sort::Bool),
        DataType::String => Some(Sort::Text),
        other if other.is_integer() || other.is_float() => Some(Sort::Number),
        _ => None,
    }
}

fn is_whole(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() <= WHOLE
}

fn keys(place: &str, column: &Column) -> Result<Keys, StageError> {
    refuse_null(place, column)?;
    let failed = |error: PolarsError| StageError::Library { what: "polars", detail: error.to_string() };
    let series = column.as_materialized_series();
    match sort_of(series.dtype()) {
        Some(Sort::Text) => {
            let text = series.cast(&DataType::String).map_err(failed)?;
            Ok(Keys::Text(text.str().map_err(failed)?.iter().flatten().map(str::to_owned).collect()))
        }
        Some(Sort::Number) if series.dtype().is_float() => {
            let floats = series.cast(&DataType::Float64).map_err(failed)?;
            let floats = floats.f64().map_err(failed)?;
            refuse_nan(place, column.name(), floats)?;
            Ok(Keys::Number(floats.iter().flatten().map(|v| is_whole(v).then_some(v as i64)).collect()))
        }
        Some(Sort::Number | Sort::Bool) => {
            let whole = series.strict_cast(&DataType::Int64).map_err(failed)?;
            Ok(Keys::Number(whole.i64().map_err(failed)?.iter().collect()))
        }
        None => Err(StageError::ColumnType {
            place: place.into(),
            column: column.name().to_string(),
            found: frame::type_name(series.dtype()).unwrap_or_else(|| series.dtype().to_string()),
            expected: "bool, str or a number, to be a target".into(),
        }),
    }
}

fn refuse_null(place: &str, column: &Column) -> Result<(), StageError> {
    let nulls = column.as_materialized_series().is_null();
    match nulls.iter().position(|null| null == Some(true)) {
        None => Ok(()),
        Some(row) => Err(StageError::Data {
            detail: format!("{place}: target `{}` is null in row {}; leave such rows out", column.name(), row + 1),
        }),
    }
}

fn refuse_nan(place: &str, name: &str, floats: &Float64Chunked) -> Result<(), StageError> {
    match floats.iter().position(|value| value.is_some_and(f64::is_nan)) {
        None => Ok(()),
        Some(row) => Err(StageError::Data {
            detail: format!("{place}: target `{name}` is NaN in row {}; leave such rows out", row + 1),
        }),
    }
}

fn whole(place: &str, target: &str, keys: Vec<Option<i64>>) -> Result<Vec<i64>, StageError> {
    let row = keys.iter().position(Option::is_none);
    match row {
        None => Ok(keys.into_iter().flatten().collect()),
        Some(row) => Err(StageError::Data {
            detail: format!(
                "{place}: target `{target}` has a fraction in row {}; a classifier needs classes: bool, str or whole numbers",
                row + 1
            ),
        }),
    }
}

fn distinct<T: Ord + Clone>(keys: Vec<T>) -> (Vec<T>, Vec<u32>) {
    let mut labels = keys.clone();
    labels.sort_unstable();
    labels.dedup();
    let rows = keys.iter().map(|key| {
        let at = labels.binary_search(key).expect("every key is among the labels");
        u32::try_from(at).expect("rows, and so labels, are fewer than 2^32")
    });
    let rows = rows.collect();
    (labels, rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(column: Column) -> Result<(Classes, Vec<u32>), StageError> {
        let frame = DataFrame::new(column.len(), vec![column]).unwrap();
        Classes::learn("train", &frame, "y")
    }

    #[test]
    fn labels_ascend_and_keep_their_type() {
        let (classes, rows) = learn(Column::new("y".into(), [10.0f64, 9.0, 10.0])).unwrap();
        assert_eq!((classes.names(), rows.clone()), (vec!["9".into(), "10".into()], vec![1, 0, 1]));
        assert_eq!(classes.column("y", &rows).unwrap(), Column::new("y".into(), [10.0f64, 9.0, 10.0]));
        let (classes, rows) = learn(Column::new("y".into(), ["b", "a", "B"])).unwrap();
        assert_eq!((classes.names(), rows), (vec!["B".into(), "a".into(), "b".into()], vec![2, 1, 0]));
        let (classes, rows) = learn(Column::new("y".into(), [true, false])).unwrap();
        assert_eq!((classes.names(), rows.clone()), (vec!["false".into(), "true".into()], vec![1, 0]));
        assert_eq!(classes.column("y", &rows).unwrap().dtype(), &DataType::Boolean);
        let (classes, rows) = learn(Column::new("y".into(), [3u8, 200])).unwrap();
        assert_eq!(classes.column("y", &rows).unwrap().dtype(), &DataType::UInt8);
    }

    #[test]
    fn what_is_no_class_is_refused_with_its_row() {
        let text = |column| learn(column).unwrap_err().to_string();
        assert_eq!(
            text(Column::new("y".into(), [Some(1), None])),
            "train: target `y` is null in row 2; leave such rows out"
        );
        assert_eq!(
            text(Column::new("y".into(), [1.0, f64::NAN])),
            "train: target `y` is NaN in row 2; leave such rows out"
        );
        assert_eq!(
            text(Column::new("y".into(), [1.0, 1.5])),
            "train: target `y` has a fraction in row 2; a classifier needs classes: bool, str or whole numbers"
        );
        assert_eq!(
            text(Column::new("y".into(), ["a", "a"])),
            "train: target `y` has one class only, `a`; a classifier needs two or more"
        );
        let many: Vec<i32> = (0..1001).collect();
        assert_eq!(
            text(Column::new("y".into(), many)),
            "train: target `y` has 1001 distinct values; a classifier takes at most 1000 classes"
        );
    }

    #[test]
    fn rows_of_an_unknown_class_are_none() {
        let (classes, _) = learn(Column::new("y".into(), [1i64, 2])).unwrap();
        let frame = DataFrame::new(3, vec![Column::new("y".into(), [2.0f64, 2.5, 7.0])]).unwrap();
        assert_eq!(classes.locate("evaluate", &frame, "y").unwrap(), [Some(1), None, None]);
        let frame = DataFrame::new(1, vec![Column::new("y".into(), ["2"])]).unwrap();
        let error = classes.locate("evaluate", &frame, "y").unwrap_err();
        assert_eq!(error.to_string(), "evaluate: column `y` is str, expected i64, as the model was trained on");
    }

    #[test]
    fn a_label_is_found_by_its_json() {
        let (classes, _) = learn(Column::new("y".into(), [1i64, 2])).unwrap();
        assert_eq!(classes.find(&2.into()), Some(1));
        assert_eq!(classes.find(&2.0.into()), Some(1));
        assert_eq!(classes.find(&"2".into()), None);
        let (classes, _) = learn(Column::new("y".into(), [true, false])).unwrap();
        assert_eq!(classes.find(&true.into()), Some(1));
    }
}
