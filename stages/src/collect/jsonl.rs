//! `jsonl`: one JSON object a line.
//!
//! Columns come in the order of their first appearance, a key that a line lacks is a null. It does not know
//! compressions or how frames are stored.
//!
//! Invariant: a column has one kind of value. Whole and broken numbers mix to f64; text and numbers do not mix unless
//! `types` says what they are to become. Texts that are all dates become dates, as in CSV.

use std::collections::BTreeMap;
use std::fmt;

use polars::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::cell::{Builder, Possible};
use super::read::ReadConfig;
use crate::StageError;

/// More keys than this are data, not columns.
const MAX_COLUMNS: usize = 10_000;

/// A value of a line.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    Nested,
}

/// A line, its keys in the order in which they stand.
struct Line(Vec<(String, Cell)>);

/// A column, shorter than the table while rows lack its key.
#[derive(Default)]
struct Column {
    cells: Vec<Cell>,
}

/// Everything in the file, columns in the order of first appearance.
struct Table {
    names: Vec<String>,
    columns: Vec<Column>,
    /// The line of each row, counted from 1.
    lines: Vec<u64>,
}

/// Reads a text.
pub(super) fn read(config: &ReadConfig, bytes: &[u8]) -> Result<DataFrame, StageError> {
    let table = Table::parse(config, bytes)?;
    let selected = config.select(&table.names)?;
    let columns = selected.into_iter().map(|at| table.column(config, at).map(Into::into));
    let columns = columns.collect::<Result<Vec<polars::prelude::Column>, StageError>>()?;
    DataFrame::new(table.lines.len(), columns).map_err(failed)
}

/// The columns' names alone.
pub(super) fn names(config: &ReadConfig, bytes: &[u8]) -> Result<Vec<String>, StageError> {
    Ok(Table::parse(config, bytes)?.names)
}

fn failed(error: PolarsError) -> StageError {
    StageError::Library { what: "polars", detail: error.to_string() }
}

impl Table {
    fn parse(config: &ReadConfig, bytes: &[u8]) -> Result<Self, StageError> {
        let mut table = Self { names: Vec::new(), columns: Vec::new(), lines: Vec::new() };
        let mut positions = BTreeMap::new();
        let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            let parsed = serde_json::from_slice::<Line>(line);
            let Line(cells) = parsed.map_err(|error| config.wrong_row(number, None, without_place(&error)))?;
            table.push(config, number, cells, &mut positions)?;
        }
        if table.lines.is_empty() {
            return Err(config.wrong_file("the file has no rows"));
        }
        let rows = table.lines.len();
        table.columns.iter_mut().for_each(|column| column.cells.resize(rows, Cell::Null));
        Ok(table)
    }

    fn push(
        &mut self,
        config: &ReadConfig,
        number: u64,
        cells: Vec<(String, Cell)>,
        positions: &mut BTreeMap<String, usize>,
    ) -> Result<(), StageError> {
        let row = self.lines.len();
        for (name, cell) in cells {
            let at = *positions.entry(name).or_insert_with_key(|name| {
                self.names.push(name.clone());
                self.columns.push(Column::default());
                self.names.len() - 1
            });
            let cells = &mut self.columns[at].cells;
            if cells.len() > row {
                return Err(config.wrong_row(number, Some(&self.names[at]), "the line names it twice"));
            }
            cells.resize(row, Cell::Null);
            cells.push(cell);
            if self.names.len() > MAX_COLUMNS {
                return Err(config.wrong_row(
                    number,
                    None,
                    format!("there are more than {MAX_COLUMNS} different keys by now"),
                ));
            }
        }
        self.lines.push(number);
        Ok(())
    }

    fn column(&self, config: &ReadConfig, at: usize) -> Result<Series, StageError> {
        let (name, cells) = (&self.names[at], &self.columns[at].cells);
        let wrong = |row: usize, detail: String| config.wrong_row(self.lines[row], Some(name), detail);
        if let Some(row) = cells.iter().position(|cell| *cell == Cell::Nested) {
            return Err(wrong(
                row,
                "it holds a list or an object, which a frame cannot; pick others with `columns`".into(),
            ));
        }
        let dtype = match config.type_of(name) {
            Some(dtype) => dtype,
            None => {
                infer(cells).map_err(|(row, detail)| wrong(row, format!("{detail}; set `types.{name} = \"str\"`")))?
            }
        };
        let mut builder = Builder::new(&dtype, cells.len());
        for (row, cell) in cells.iter().enumerate() {
            match cell.text() {
                None => builder.push_null(),
                Some(text) => builder.push(&text).map_err(|detail| wrong(row, detail))?,
            }
        }
        Ok(builder.finish().map_err(failed)?.with_name(name.as_str().into()))
    }
}

/// The column's type, or the first row that does not go with those before it.
fn infer(cells: &[Cell]) -> Result<DataType, (usize, String)> {
    let mut dtype: Option<DataType> = None;
    let mut texts = Possible::ALL;
    for (row, cell) in cells.iter().enumerate() {
        let Some(found) = cell.dtype() else { continue };
        if let Cell::Text(text) = cell {
            texts = texts.and(Possible::of_text(text));
        }
        dtype = Some(match (dtype, found) {
            (None, found) => found,
            (Some(before), found) if before == found => found,
            (Some(before), found) => join(before, found).map_err(|detail| (row, detail))?,
        });
    }
    match dtype {
        Some(DataType::String) => Ok(texts.resolve()),
        Some(DataType::UInt64) if cells.iter().any(|cell| matches!(cell, Cell::Int(value) if *value < 0)) => {
            let row = cells.iter().position(|cell| matches!(cell, Cell::Unsigned(_))).unwrap_or(0);
            Err((row, "the number is too large for a column that has negative ones".into()))
        }
        Some(dtype) => Ok(dtype),
        None => Ok(DataType::String),
    }
}

fn join(before: DataType, found: DataType) -> Result<DataType, String> {
    let is_number = |dtype: &DataType| dtype.is_primitive_numeric();
    let word = |dtype: &DataType| match dtype {
        DataType::Boolean => "a boolean",
        DataType::String => "text",
        _ => "a number",
    };
    match (&before, &found) {
        (DataType::Float64, other) | (other, DataType::Float64) if is_number(other) => Ok(DataType::Float64),
        (left, right) if is_number(left) && is_number(right) => Ok(DataType::UInt64),
        _ => Err(format!("it is {}, and {} in the rows before", word(&found), word(&before))),
    }
}

impl Cell {
    fn dtype(&self) -> Option<DataType> {
        match self {
            Self::Null | Self::Nested => None,
            Self::Bool(_) => Some(DataType::Boolean),
            Self::Int(_) => Some(DataType::Int64),
            Self::Unsigned(_) => Some(DataType::UInt64),
            Self::Float(_) => Some(DataType::Float64),
            Self::Text(_) => Some(DataType::String),
        }
    }

    /// The shortest text that reads back as the same value.
    fn text(&self) -> Option<std::borrow::Cow<'_, str>> {
        match self {
            Self::Null | Self::Nested => None,
            Self::Bool(value) => Some(value.to_string().into()),
            Self::Int(value) => Some(value.to_string().into()),
            Self::Unsigned(value) => Some(value.to_string().into()),
            Self::Float(value) => Some(format!("{value:?}").into()),
            Self::Text(value) => Some(value.as_str().into()),
        }
    }
}

/// serde_json places an error within the line that it was given; the column of that is worth keeping.
fn without_place(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rsplit_once(" at line ") {
        Some((what, _)) if error.column() > 0 => format!("{what} at character {}", error.column()),
        Some((what, _)) => what.into(),
        None => text,
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Line;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("one JSON object a line")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
                let mut cells = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    cells.push(entry);
                }
                Ok(Line(cells))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Value;
        impl<'de> Visitor<'de> for Value {
            type Value = Cell;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("a JSON value")
            }
            fn visit_unit<E>(self) -> Result<Cell, E> {
                Ok(Cell::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Cell, E> {
                Ok(Cell::Bool(value))
            }
            fn visit_i64<E>(self, value: i64) -> Result<Cell, E> {
                Ok(Cell::Int(value))
            }
            fn visit_u64<E>(self, value: u64) -> Result<Cell, E> {
                Ok(i64::try_from(value).map_or(Cell::Unsigned(value), Cell::Int))
            }
            fn visit_f64<E>(self, value: f64) -> Result<Cell, E> {
                Ok(Cell::Float(value))
            }
            fn visit_str<E>(self, value: &str) -> Result<Cell, E> {
                Ok(Cell::Text(value.into()))
            }
            fn visit_string<E>(self, value: String) -> Result<Cell, E> {
                Ok(Cell::Text(value))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Cell, A::Error> {
                while sequence.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Cell::Nested)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cell, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Cell::Nested)
            }
        }
        deserializer.deserialize_any(Value)
    }
}
