//! `transform`: a fitted preparation, which turns raw columns into features.
//!
//! It is stored beside the frames that it made and inside of every model trained on them, so that a prediction prepares
//! its input exactly as the training did. It does not know how it was fitted (`prepare::fit` does) or what a model is.
//!
//! Invariants: a row's features depend on that row alone, so they are the same bits alone and in any batch. Features are
//! finite f64 in a fixed order; whatever cannot become that is an error, never a default. What [`Transform::decode`]
//! accepts can be applied: its steps have been checked against its inputs.

use std::collections::{BTreeMap, BTreeSet};

use polars::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{StageError, codec, frame};

const MAGIC: &[u8; 4] = b"HWTF";
const FORMAT: u8 = 1;

/// A fitted preparation. Stored as a blob of type `transform`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transform {
    inputs: Vec<InputColumn>,
    steps: Vec<Fitted>,
    target: String,
    features: Vec<String>,
}

/// A column that the transform reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputColumn {
    pub name: String,
    /// As [`frame::type_name`] gives it: `str`, `bool`, or a number's type.
    pub type_name: String,
}

/// One fitted step on one column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Fitted {
    FillNumber {
        column: String,
        value: f64,
    },
    FillText {
        column: String,
        value: String,
    },
    /// Replaces the column by `column=category` for each category, and `column=other` for the rest if `other`.
    /// A missing value is 0 in all of them, as is a category that was not seen if there is no `other`.
    OneHot {
        column: String,
        categories: Vec<String>,
        other: bool,
    },
    /// `(x - shift) / scale`.
    Scale {
        column: String,
        shift: f64,
        scale: f64,
    },
    Drop {
        column: String,
    },
}

/// The columns between two steps.
#[derive(Default)]
pub(crate) struct Table {
    pub columns: BTreeMap<String, Values>,
}

/// One column between two steps.
#[derive(Debug, Clone)]
pub(crate) enum Values {
    /// NaN is a missing value, whether it was NaN or null.
    Number(Vec<f64>),
    Text(StringChunked),
    /// What no step can use, by the name of its type.
    Other(String),
}

impl Transform {
    /// A transform of parts that fit each other.
    pub(crate) fn new(
        inputs: Vec<InputColumn>,
        steps: Vec<Fitted>,
        target: String,
        features: Vec<String>,
    ) -> Result<Self, StageError> {
        let transform = Self { inputs, steps, target, features };
        transform.check().map_err(|detail| StageError::Encode { detail })?;
        Ok(transform)
    }

    /// Decodes and checks a stored transform.
    ///
    /// # Errors
    /// [`StageError::Decode`] if the bytes are no transform of a known version, or its parts do not fit each other.
    pub fn decode(bytes: &[u8]) -> Result<Self, StageError> {
        let transform: Self = codec::decode(MAGIC, FORMAT, bytes)?;
        transform.check().map_err(|detail| StageError::Decode { what: "transform".into(), detail })?;
        Ok(transform)
    }

    /// The stored form.
    ///
    /// # Errors
    /// Only if encoding fails.
    pub fn encode(&self) -> Result<Vec<u8>, StageError> {
        codec::encode(MAGIC, FORMAT, self)
    }

    /// The features of each row, as f64 in the order of [`Transform::features`], then the target as it is, if the frame
    /// has it. Other columns are ignored. Numbers of any type serve for numbers as long as f64 holds them exactly.
    ///
    /// # Errors
    /// [`StageError::UnknownColumn`] for a missing input, [`StageError::ColumnType`] for one of another type, and
    /// [`StageError::Data`] for a missing or infinite value that no step fills.
    pub fn apply(&self, frame: &DataFrame) -> Result<DataFrame, StageError> {
        self.apply_at("transform", frame)
    }

    /// As [`Transform::apply`], with the place that errors name.
    pub(crate) fn apply_at(&self, place: &str, frame: &DataFrame) -> Result<DataFrame, StageError> {
        let mut table = Table::default();
        for input in &self.inputs {
            table.columns.insert(input.name.clone(), input.read(place, frame)?);
        }
        for step in &self.steps {
            step.apply(&mut table);
        }
        let mut columns = table.into_features(place, &self.features)?;
        if let Ok(target) = frame.column(&self.target) {
            columns.push(target.clone());
        }
        let failed = |error: PolarsError| StageError::Library { what: "polars", detail: error.to_string() };
        DataFrame::new(frame.height(), columns).map_err(failed)
    }

    /// The column to be predicted.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The names of the features, in the order of the model's inputs.
    pub fn features(&self) -> &[String] {
        &self.features
    }

    /// The columns that a frame must have.
    pub fn inputs(&self) -> &[InputColumn] {
        &self.inputs
    }

    /// The inputs that are text, for [`crate::collect::read_frame_for`].
    pub fn text_inputs(&self) -> Vec<String> {
        let is_text = |input: &&InputColumn| input.type_name == "str";
        self.inputs.iter().filter(is_text).map(|input| input.name.clone()).collect()
    }

    /// Inputs, steps with their fitted values, features and target as JSON with sorted keys, on one line.
    pub fn describe(&self) -> String {
        let inputs: Vec<Value> =
            self.inputs.iter().map(|input| json!({ "name": input.name, "type": input.type_name })).collect();
        let steps: Vec<Value> = self.steps.iter().map(Fitted::describe).collect();
        json!({ "features": self.features, "inputs": inputs, "steps": steps, "target": self.target }).to_string()
    }

    /// Runs the steps over the kinds of columns alone.
    fn check(&self) -> Result<(), String> {
        let mut kinds = BTreeMap::new();
        for input in &self.inputs {
            let is_text = input.is_text().ok_or_else(|| format!("input `{}` is {}", input.name, input.type_name))?;
            if kinds.insert(input.name.clone(), is_text).is_some() || input.name == self.target {
                return Err(format!("input `{}` is there twice, or the target", input.name));
            }
        }
        self.check_made()?;
        for step in &self.steps {
            step.check(&mut kinds)?;
        }
        let distinct: BTreeSet<&String> = self.features.iter().collect();
        let numeric = self.features.iter().all(|feature| kinds.get(feature) == Some(&false));
        if distinct.len() != self.features.len() || distinct.len() != kinds.len() || !numeric || distinct.is_empty() {
            return Err("the features are not the numeric columns that the steps leave".into());
        }
        Ok(())
    }

    /// A few bytes can ask for many long names, each that of a one-hot step's column and a category. What is made is a feature
    /// in the end, or taken by a later step, which names it: as long as all such names there are no others.
    fn check_made(&self) -> Result<(), String> {
        let made: usize = self.steps.iter().map(Fitted::made_length).fold(0, usize::saturating_add);
        let named = self.steps.iter().map(Fitted::column).chain(self.features.iter().map(String::as_str));
        if made <= named.map(str::len).sum() {
            return Ok(());
        }
        Err("its steps make columns that are no features and that no step takes".into())
    }
}

impl InputColumn {
    /// Whether it is text; `None` for a type that no feature can be made of.
    fn is_text(&self) -> Option<bool> {
        let dtype = frame::parse_type(&self.type_name)?;
        match dtype.is_string() {
            true => Some(true),
            false => (dtype.is_bool() || dtype.is_primitive_numeric()).then_some(false),
        }
    }

    fn read(&self, place: &str, frame: &DataFrame) -> Result<Values, StageError> {
        let column = frame.column(&self.name).map_err(|_| StageError::UnknownColumn {
            place: place.into(),
            column: self.name.clone(),
            available: frame.columns().iter().map(|column| column.name().to_string()).collect(),
        })?;
        let series = column.as_materialized_series();
        let is_text = self.type_name == "str";
        if series.null_count() == series.len() {
            return Ok(match is_text {
                true => Values::Text(StringChunked::full_null(PlSmallStr::EMPTY, series.len())),
                false => Values::Number(vec![f64::NAN; series.len()]),
            });
        }
        let found = type_of(series.dtype());
        match Values::of(series)? {
            Values::Text(texts) if is_text => Ok(Values::Text(texts)),
            Values::Number(numbers) if !is_text && (found == self.type_name || self.holds(series, &numbers)) => {
                Ok(Values::Number(numbers))
            }
            _ => Err(StageError::ColumnType {
                place: place.into(),
                column: self.name.clone(),
                found,
                expected: self.type_name.clone(),
            }),
        }
    }

    /// Whether numbers of another type mean the same here: whole ones must be exact as f64, booleans 0 or 1.
    fn holds(&self, series: &Series, numbers: &[f64]) -> bool {
        const EXACT: f64 = 9_007_199_254_740_992.0;
        let is_exact =
            !series.dtype().is_integer() || numbers.iter().all(|number| number.is_nan() || number.abs() < EXACT);
        let is_flag =
            self.type_name != "bool" || numbers.iter().all(|number| number.is_nan() || [0.0, 1.0].contains(number));
        is_exact && is_flag
    }
}

fn type_of(dtype: &DataType) -> String {
    match dtype {
        DataType::Categorical(..) | DataType::Enum(..) => "str".into(),
        dtype => frame::type_name(dtype).unwrap_or_else(|| dtype.to_string()),
    }
}

impl Values {
    /// A frame's column as steps see it.
    pub fn of(series: &Series) -> Result<Self, StageError> {
        let failed = |error: PolarsError| StageError::Library { what: "polars", detail: error.to_string() };
        let dtype = series.dtype();
        match dtype {
            DataType::String | DataType::Categorical(..) | DataType::Enum(..) | DataType::Null => {
                let texts = series.cast(&DataType::String).map_err(failed)?;
                Ok(Self::Text(texts.str().map_err(failed)?.clone()))
            }
            _ if dtype.is_bool() || dtype.is_primitive_numeric() => {
                let numbers = series.cast(&DataType::Float64).map_err(failed)?;
                let numbers = numbers.f64().map_err(failed)?.iter();
                Ok(Self::Number(numbers.map(|number| number.unwrap_or(f64::NAN)).collect()))
            }
            _ => Ok(Self::Other(type_of(dtype))),
        }
    }

    pub fn type_name(&self) -> &str {
        match self {
            Self::Number(_) => "f64",
            Self::Text(_) => "str",
            Self::Other(name) => name,
        }
    }
}

/// A number as a category: `1` for 1.0, and one zero.
pub(crate) fn category_of(number: f64) -> String {
    (number + 0.0).to_string()
}

impl Table {
    /// The features, each a column without missing values.
    pub fn into_features(mut self, place: &str, features: &[String]) -> Result<Vec<Column>, StageError> {
        let wrong = |detail: String| StageError::Data { detail: format!("{place}: {detail}") };
        let mut columns = Vec::with_capacity(features.len());
        for name in features {
            let numbers = match self.columns.remove(name) {
                Some(Values::Number(numbers)) => numbers,
                Some(other) => return Err(wrong(not_numeric(name, other.type_name()))),
                None => return Err(wrong(format!("there is no feature `{name}`"))),
            };
            check_numbers(name, &numbers).map_err(wrong)?;
            columns.push(Float64Chunked::from_vec(name.as_str().into(), numbers).into_series().into());
        }
        Ok(columns)
    }
}

fn not_numeric(name: &str, type_name: &str) -> String {
    let hint =
        if type_name == "str" { "add a one_hot or drop step" } else { "add a drop step, or make numbers of it in sql" };
    format!("column `{name}` is still {type_name} after the last step; {hint}")
}

fn check_numbers(name: &str, numbers: &[f64]) -> Result<(), String> {
    let missing = numbers.iter().filter(|number| number.is_nan()).count();
    if let Some(first) = numbers.iter().position(|number| number.is_nan()) {
        let values = if missing == 1 {
            "1 missing value, in row".into()
        } else {
            format!("{missing} missing values, the first in row")
        };
        return Err(format!("column `{name}` has {values} {}; add an impute step", first + 1));
    }
    match numbers.iter().position(|number| number.is_infinite()) {
        Some(row) => Err(format!("column `{name}` is infinite in row {}", row + 1)),
        None => Ok(()),
    }
}

impl Fitted {
    pub fn column(&self) -> &str {
        match self {
            Self::FillNumber { column, .. }
            | Self::FillText { column, .. }
            | Self::OneHot { column, .. }
            | Self::Scale { column, .. }
            | Self::Drop { column } => column,
        }
    }

    /// The columns that a one-hot step makes, in order.
    pub fn made(&self) -> Vec<String> {
        match self {
            Self::OneHot { column, categories, other } => {
                let named = categories.iter().map(|category| format!("{column}={category}"));
                named.chain(other.then(|| format!("{column}=other"))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The length of all names in [`Fitted::made`].
    fn made_length(&self) -> usize {
        let Self::OneHot { column, categories, other } = self else { return 0 };
        let before = (column.len() + "=".len()).saturating_mul(categories.len() + usize::from(*other));
        let behind: usize = categories.iter().map(String::len).sum();
        before.saturating_add(behind + if *other { "other".len() } else { 0 })
    }

    /// Changes the table. A step finds its column, of its kind: fitting and [`Transform::check`] see to that.
    pub fn apply(&self, table: &mut Table) {
        let Some(values) = table.columns.remove(self.column()) else { return };
        let kept = match (self, values) {
            (Self::FillNumber { value, .. }, Values::Number(mut numbers)) => {
                numbers.iter_mut().filter(|number| number.is_nan()).for_each(|number| *number = *value);
                Values::Number(numbers)
            }
            (Self::FillText { value, .. }, Values::Text(texts)) => {
                Values::Text(texts.iter().map(|text| Some(text.unwrap_or(value))).collect())
            }
            (Self::Scale { shift, scale, .. }, Values::Number(mut numbers)) => {
                numbers.iter_mut().for_each(|number| *number = (*number - shift) / scale);
                Values::Number(numbers)
            }
            (Self::OneHot { .. }, values) => return self.encode_categories(&values, table),
            (Self::Drop { .. }, _) => return,
            (_, values) => values,
        };
        table.columns.insert(self.column().to_string(), kept);
    }

    fn encode_categories(&self, values: &Values, table: &mut Table) {
        let Self::OneHot { categories, other, .. } = self else { return };
        let positions: BTreeMap<&str, usize> = categories.iter().map(String::as_str).zip(0..).collect();
        let position = |category: &str| positions.get(category).copied().or(other.then_some(categories.len()));
        let hot: Vec<Option<usize>> = match values {
            Values::Text(texts) => texts.iter().map(|text| text.and_then(position)).collect(),
            Values::Number(numbers) => numbers
                .iter()
                .map(|number| if number.is_nan() { None } else { position(&category_of(*number)) })
                .collect(),
            Values::Other(_) => return,
        };
        let names = self.made();
        let mut made = vec![vec![0.0; hot.len()]; names.len()];
        for (row, at) in hot.iter().enumerate() {
            if let Some(at) = at {
                made[*at][row] = 1.0;
            }
        }
        table.columns.extend(names.into_iter().zip(made.into_iter().map(Values::Number)));
    }

    /// Whether the step fits the columns before it, by name to whether they are text; changes them to those behind it.
    fn check(&self, kinds: &mut BTreeMap<String, bool>) -> Result<(), String> {
        let column = self.column();
        let wrong = || format!("a step does not fit its column `{column}`");
        let is_text = kinds.remove(column).ok_or_else(wrong)?;
        let (fits, kept) = match self {
            Self::FillNumber { value, .. } => (!is_text && value.is_finite(), Some(false)),
            Self::FillText { .. } => (is_text, Some(true)),
            Self::Scale { shift, scale, .. } => {
                (!is_text && shift.is_finite() && scale.is_finite() && *scale > 0.0, Some(false))
            }
            Self::OneHot { .. } | Self::Drop { .. } => (true, None),
        };
        if let Some(kept) = kept {
            kinds.insert(column.to_string(), kept);
        }
        let made_is_new = self.made().into_iter().all(|name| kinds.insert(name, false).is_none());
        if fits && made_is_new { Ok(()) } else { Err(wrong()) }
    }

    fn describe(&self) -> Value {
        match self {
            Self::FillNumber { column, value } => json!({ "column": column, "impute": value }),
            Self::FillText { column, value } => json!({ "column": column, "impute": value }),
            Self::OneHot { column, categories, other } => {
                json!({ "categories": categories, "column": column, "one_hot": self.made(), "other": other })
            }
            Self::Scale { column, shift, scale } => {
                json!({ "column": column, "scale": { "scale": scale, "shift": shift } })
            }
            Self::Drop { column } => json!({ "column": column, "drop": true }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

    use super::*;

    fn input(name: &str, type_name: &str) -> InputColumn {
        InputColumn { name: name.into(), type_name: type_name.into() }
    }

    fn example() -> Transform {
        let steps = vec![
            Fitted::FillNumber { column: "x".into(), value: 1.5 },
            Fitted::OneHot { column: "c".into(), categories: vec!["a".into(), "b".into()], other: true },
            Fitted::Scale { column: "x".into(), shift: 1.0, scale: 3.0 },
        ];
        let features = ["x", "c=a", "c=b", "c=other"].map(String::from).to_vec();
        Transform::new(vec![input("x", "f64"), input("c", "str")], steps, "y".into(), features).expect("fits")
    }

    fn frame(columns: Vec<Series>) -> DataFrame {
        DataFrame::new(columns[0].len(), columns.into_iter().map(Into::into).collect()).expect("equal lengths")
    }

    #[test]
    fn features_come_first_and_the_target_last() {
        let raw = frame(vec![
            Series::new("y".into(), [true, false, true]),
            Series::new("extra".into(), [1, 2, 3]),
            Series::new("c".into(), [Some("b"), None, Some("z")]),
            Series::new("x".into(), [Some(4.0), None, Some(1.0)]),
        ]);
        let expected = frame(vec![
            Series::new("x".into(), [1.0, 0.5 / 3.0, 0.0]),
            Series::new("c=a".into(), [0.0, 0.0, 0.0]),
            Series::new("c=b".into(), [1.0, 0.0, 0.0]),
            Series::new("c=other".into(), [0.0, 0.0, 1.0]),
            Series::new("y".into(), [true, false, true]),
        ]);
        assert_eq!(example().apply(&raw).expect("applies"), expected);
        let without = raw.drop("y").expect("has it");
        assert_eq!(example().apply(&without).expect("applies"), expected.drop("y").expect("has it"));
    }

    #[test]
    fn numbers_of_another_type_serve_if_they_are_exact() {
        let c = Series::new("c".into(), ["a"]);
        let applied = |x: Series| example().apply(&frame(vec![x, c.clone()]));
        assert_eq!(
            applied(Series::new("x".into(), [4_i64])).expect("applies").columns()[0],
            Series::new("x".into(), [1.0]).into()
        );
        assert!(applied(Series::new_null("x".into(), 1)).is_ok());
        let error = applied(Series::new("x".into(), [(1_i64 << 53) + 1])).expect_err("not exact");
        assert_eq!(error.to_string(), "transform: column `x` is i64, expected f64");
        let error = applied(Series::new("x".into(), ["4"])).expect_err("text");
        assert_eq!(error.to_string(), "transform: column `x` is str, expected f64");
        let date = Series::new("x".into(), [4_i32]).cast(&DataType::Date).expect("casts");
        assert_eq!(applied(date).expect_err("a date").to_string(), "transform: column `x` is date, expected f64");
        let number = example().apply(&frame(vec![Series::new("x".into(), [1.0]), Series::new("c".into(), [7])]));
        assert_eq!(number.expect_err("a number").to_string(), "transform: column `c` is i32, expected str");
    }

    #[test]
    fn what_is_missing_or_infinite_is_named() {
        let error = example().apply(&frame(vec![Series::new("x".into(), [1.0])])).expect_err("no c");
        assert_eq!(error.to_string(), "transform: there is no column `c`; the columns are `x`");
        let error = example()
            .apply(&frame(vec![Series::new("x".into(), [1.0, f64::INFINITY]), Series::new("c".into(), ["a", "a"])]))
            .expect_err("infinite");
        assert_eq!(error.to_string(), "transform: column `x` is infinite in row 2");
        let bare = Transform::new(vec![input("x", "f64")], vec![], "y".into(), vec!["x".into()]).expect("fits");
        let error = bare.apply(&frame(vec![Series::new("x".into(), [Some(1.0), None])])).expect_err("missing");
        assert_eq!(error.to_string(), "transform: column `x` has 1 missing value, in row 2; add an impute step");
    }

    #[test]
    fn it_is_stored_whole_and_damage_is_refused() {
        let bytes = example().encode().expect("encodes");
        assert_eq!(Transform::decode(&bytes).expect("decodes"), example());
        for cut in 0..bytes.len() {
            assert!(Transform::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        for bad in [
            Transform { features: vec!["x".into()], ..example() },
            Transform { target: "x".into(), ..example() },
            Transform { inputs: vec![input("x", "f64")], ..example() },
            Transform { inputs: vec![input("x", "date"), input("c", "str")], ..example() },
            Transform { steps: vec![Fitted::Scale { column: "x".into(), shift: 0.0, scale: 0.0 }], ..example() },
            Transform { steps: vec![Fitted::FillNumber { column: "c".into(), value: 0.0 }], ..example() },
        ] {
            let error = Transform::decode(&bad.encode().expect("encodes")).expect_err("does not fit").to_string();
            assert!(error.starts_with("transform cannot be decoded: "), "{error}");
        }
    }

    #[test]
    fn it_describes_itself_with_sorted_keys() {
        let expected = concat!(
            r#"{"features":["x","c=a","c=b","c=other"],"inputs":[{"name":"x","type":"f64"},{"name":"c","type":"str"}],"#,
            r#""steps":[{"column":"x","impute":1.5},"#,
            r#"{"categories":["a","b"],"column":"c","one_hot":["c=a","c=b","c=other"],"other":true},"#,
            r#"{"column":"x","scale":{"scale":3.0,"shift":1.0}}],"target":"y"}"#
        );
        assert_eq!(example().describe(), expected);
    }

    fn any_row() -> impl Strategy<Value = (Option<f64>, Option<&'static str>)> {
        let number = prop_oneof![Just(None), (-1e300..1e300_f64).prop_map(Some)];
        (number, prop_oneof![Just(None), Just(Some("a")), Just(Some("b")), Just(Some("q"))])
    }

    proptest! {
        #[test]
        fn a_row_alone_gives_the_bits_that_it_gives_in_a_batch(rows in proptest::collection::vec(any_row(), 1..20)) {
            let table = |rows: &[(Option<f64>, Option<&str>)]| frame(vec![
                Series::new("x".into(), rows.iter().map(|row| row.0).collect::<Vec<_>>()),
                Series::new("c".into(), rows.iter().map(|row| row.1).collect::<Vec<_>>()),
            ]);
            let bits = |applied: &DataFrame, row: usize| -> Vec<u64> {
                let value = |column: &Column| column.f64().expect("a feature").get(row).expect("no null").to_bits();
                applied.columns().iter().map(value).collect()
            };
            let batch = example().apply(&table(&rows)).expect("applies");
            for (at, row) in rows.iter().enumerate() {
                let alone = example().apply(&table(&[*row])).expect("applies");
                prop_assert_eq!(bits(&alone, 0), bits(&batch, at));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut whole = b"HWTF\x01".to_vec();
            whole.extend(&bytes);
            let _ = Transform::decode(&bytes);
            let _ = Transform::decode(&whole);
        }
    }
}
