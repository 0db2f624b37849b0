//! `jsonl`: one JSON object a line.
//!
//! Columns come in the order of their first appearance, a key that a line lacks is a null. It does not know
//! compressions or how frames are stored.
//!
//! Invariants: a column has one kind of value. Whole and broken numbers mix to f64 if f64 holds the whole ones exactly;
//! text and numbers do not mix unless `types` says what they are to become. Texts that are all dates become dates, as in
//! CSV. Memory is bounded by the text's length: a key that a line lacks takes none while it is read, and a large frame that
//! would hold hardly anything but nulls is refused.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use polars::prelude::*;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::cell::{self, Builder, Possible};
use super::read::ReadConfig;
use crate::StageError;

/// More keys than this are data, not columns.
const MAX_COLUMNS: usize = 10_000;

/// A short line may lack many keys, each of which is a null in the frame. A frame of more cells than this is refused if
/// fewer than one in [`SPARSE`] is in the text.
const MAX_SPARSE_CELLS: usize = 1 << 26;
const SPARSE: usize = 100;

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
struct Line<V>(Vec<(String, V)>);

/// The values that there are, each with its row, in order.
type Cells = Vec<(usize, Cell)>;

/// Everything in the file, columns in the order of first appearance.
struct Table {
    names: Vec<String>,
    columns: Vec<Cells>,
    /// The line of each row, counted from 1.
    lines: Vec<u64>,
}

/// Reads a text.
pub(super) fn read(config: &ReadConfig, bytes: &[u8]) -> Result<DataFrame, StageError> {
    let table = Table::parse(config, bytes)?;
    let selected = config.select(&table.names)?;
    check_size(config, &table, &selected)?;
    let columns = selected.into_iter().map(|at| table.column(config, at).map(Into::into));
    let columns = columns.collect::<Result<Vec<polars::prelude::Column>, StageError>>()?;
    DataFrame::new(table.lines.len(), columns).map_err(failed)
}

/// The columns' names alone.
pub(super) fn names(config: &ReadConfig, bytes: &[u8]) -> Result<Vec<String>, StageError> {
    let mut names = Names::default();
    each_line(config, bytes, |number, _, Line::<IgnoredAny>(cells)| {
        cells.into_iter().try_for_each(|(name, _)| names.position(config, number, name).map(drop))
    })?;
    Ok(names.in_order)
}

fn check_size(config: &ReadConfig, table: &Table, selected: &[usize]) -> Result<(), StageError> {
    let (rows, columns) = (table.lines.len(), selected.len());
    let present: usize = selected.iter().map(|at| table.columns[*at].len()).sum();
    if rows.saturating_mul(columns) <= MAX_SPARSE_CELLS.max(present.saturating_mul(SPARSE)) {
        return Ok(());
    }
    Err(config.wrong_file(format!(
        "{rows} rows with {columns} different keys, but fewer than 1 in {SPARSE} of their values is there; keep fewer \
         keys with `columns`"
    )))
}

/// The different keys so far, in the order of their first appearance.
#[derive(Default)]
struct Names {
    in_order: Vec<String>,
    positions: BTreeMap<String, usize>,
}

impl Names {
    fn position(&mut self, config: &ReadConfig, number: u64, name: String) -> Result<usize, StageError> {
        if let Some(at) = self.positions.get(&name) {
            return Ok(*at);
        }
        let at = self.in_order.len();
        if at == MAX_COLUMNS {
            let detail = format!("there are more than {MAX_COLUMNS} different keys by now");
            return Err(config.wrong_row(number, None, detail));
        }
        self.in_order.push(name.clone());
        self.positions.insert(name, at);
        Ok(at)
    }
}

/// Goes through the lines that are not blank, with their numbers counted from 1.
fn each_line<'a, V: Deserialize<'a>>(
    config: &ReadConfig,
    bytes: &'a [u8],
    mut take: impl FnMut(u64, &[u8], Line<V>) -> Result<(), StageError>,
) -> Result<(), StageError> {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    for (number, line) in (1..).zip(text.split(|byte| *byte == b'\n')) {
        if !line.iter().all(u8::is_ascii_whitespace) {
            let parsed = serde_json::from_slice::<Line<V>>(line);
            take(number, line, parsed.map_err(|error| config.wrong_row(number, None, without_place(&error)))?)?;
        }
    }
    Ok(())
}

fn failed(error: PolarsError) -> StageError {
    StageError::Library { what: "polars", detail: error.to_string() }
}

impl Table {
    fn parse(config: &ReadConfig, bytes: &[u8]) -> Result<Self, StageError> {
        let (mut names, mut columns, mut lines) = (Names::default(), Vec::<Cells>::new(), Vec::new());
        each_line(config, bytes, |number, line, Line::<Cell>(cells)| {
            let row = lines.len();
            if cells.iter().any(|(_, cell)| cell.is_beyond_integers()) && has_rounded_whole(line) {
                return Err(config.wrong_row(
                    number,
                    None,
                    "a whole number has more digits than 64 bits hold; write it as text",
                ));
            }
            for (name, cell) in cells {
                let at = names.position(config, number, name)?;
                if at == columns.len() {
                    columns.push(Vec::new());
                }
                if columns[at].last().is_some_and(|(last, _)| *last == row) {
                    return Err(config.wrong_row(number, Some(&names.in_order[at]), "the line names it twice"));
                }
                columns[at].push((row, cell));
            }
            lines.push(number);
            Ok(())
        })?;
        if lines.is_empty() {
            return Err(config.wrong_file("the file has no rows"));
        }
        Ok(Self { names: names.in_order, columns, lines })
    }

    fn column(&self, config: &ReadConfig, at: usize) -> Result<Series, StageError> {
        let (name, cells) = (&self.names[at], &self.columns[at]);
        let wrong = |row: usize, detail: String| config.wrong_row(self.lines[row], Some(name), detail);
        if let Some((row, _)) = cells.iter().find(|(_, cell)| *cell == Cell::Nested) {
            let detail = "it holds a list or an object, which a frame cannot; pick others with `columns`";
            return Err(wrong(*row, detail.into()));
        }
        let dtype = match config.type_of(name) {
            Some(dtype) => dtype,
            None => {
                infer(cells).map_err(|(row, detail)| wrong(row, format!("{detail}; set `types.{name} = \"str\"`")))?
            }
        };
        let rows = self.lines.len();
        let mut builder = Builder::new(&dtype, rows);
        let mut filled = 0;
        for (row, cell) in cells {
            (filled..*row).for_each(|_| builder.push_null());
            match cell.text() {
                None => builder.push_null(),
                Some(text) => builder.push(&text).map_err(|detail| wrong(*row, detail))?,
            }
            filled = row + 1;
        }
        (filled..rows).for_each(|_| builder.push_null());
        Ok(builder.finish().map_err(failed)?.with_name(name.as_str().into()))
    }
}

/// serde_json takes a whole number beyond 64 bits for a float, rounded; so the numbers of a line that it has understood
/// are looked at once more.
fn has_rounded_whole(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line);
    let (mut outside, mut is_escaped) = (String::new(), false);
    let mut is_text = false;
    for character in line.chars() {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' if is_text => is_escaped = true,
            '"' => is_text = !is_text,
            _ if is_text => {}
            other => outside.push(other),
        }
    }
    let is_part = |character: char| character.is_ascii_alphanumeric() || matches!(character, '+' | '-' | '.');
    outside.split(|character| !is_part(character)).any(|token| {
        let digits = token.strip_prefix('-').unwrap_or(token);
        let is_whole = digits.len() > 18 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let is_integer = token.parse::<i64>().is_ok() || token.parse::<u64>().is_ok();
        is_whole && !is_integer && !digits.parse().is_ok_and(|float| cell::is_exact(digits, float))
    })
}

/// The column's type, or the first row that does not go with those before it.
fn infer(cells: &[(usize, Cell)]) -> Result<DataType, (usize, String)> {
    let mut dtype: Option<DataType> = None;
    let mut texts = Possible::ALL;
    for (row, cell) in cells {
        let Some(found) = cell.dtype() else { continue };
        if let Cell::Text(text) = cell {
            texts = texts.and(Possible::of_text(text));
        }
        dtype = Some(match (dtype, found) {
            (None, found) => found,
            (Some(before), found) if before == found => found,
            (Some(before), found) => join(before, found).map_err(|detail| (*row, detail))?,
        });
    }
    let first = |is: fn(&Cell) -> bool| cells.iter().find(|(_, cell)| is(cell)).map(|(row, _)| *row);
    match dtype {
        Some(DataType::String) => Ok(texts.resolve()),
        Some(DataType::UInt64) if first(|cell| matches!(cell, Cell::Int(value) if *value < 0)).is_some() => {
            let row = first(|cell| matches!(cell, Cell::Unsigned(_))).unwrap_or(0);
            Err((row, "the number is too large for a column that has negative ones".into()))
        }
        Some(DataType::Float64) => match first(Cell::is_rounded_as_float) {
            Some(row) => Err((row, "the number has more digits than fit beside the fractions of this column".into())),
            None => Ok(DataType::Float64),
        },
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
    /// Whether it may be a whole number that is no integer here.
    fn is_beyond_integers(&self) -> bool {
        matches!(self, Self::Float(value) if value.abs() >= i64::MAX as f64)
    }

    fn is_rounded_as_float(&self) -> bool {
        match self {
            Self::Int(value) => *value as f64 as i128 != i128::from(*value),
            Self::Unsigned(value) => *value as f64 as i128 != i128::from(*value),
            _ => false,
        }
    }

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

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Line<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Keys<V> {
            type Value = Line<V>;
            fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
                formatter.write_str("one JSON object a line")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line<V>, A::Error> {
                let mut cells = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    cells.push(entry);
                }
                Ok(Line(cells))
            }
        }
        deserializer.deserialize_map(Keys(PhantomData))
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
