//! `read`: a file of the project as a frame.
//!
//! It knows formats, compressions and what the pipeline file says of types. It does not open files: their bytes come in
//! through a port, so the path is no part of what the stage is.
//!
//! Invariants: no value is changed, dropped or turned into a null silently; whatever does not fit is an error with file,
//! row and column. Types follow from the whole file, never from its beginning.

use std::collections::{BTreeMap, BTreeSet};

use polars::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decompress::{self, decompress};
use super::{columnar, delimited, jsonl};
use crate::frame;
use crate::io::{Draft, Inputs, Outputs};
use crate::kind::{From, InputPort, InputPorts, OutputPort, Ports, artifact};
use crate::{Kind, StageError};

/// The kind `read`.
pub struct Read;

/// How a file is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    Csv,
    Tsv,
    Parquet,
    Ipc,
    Jsonl,
}

/// What a file is packed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// What `read` was asked for, with everything that the path implies filled in. The path itself is left out of what is
/// serialized: content counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawRead")]
pub struct ReadConfig {
    #[serde(skip_serializing)]
    pub path: String,
    pub format: Format,
    pub compression: Compression,
    pub null_values: Vec<String>,
    pub delimiter: char,
    pub header: bool,
    /// Column to type, as [`frame::parse_type`] reads it.
    pub types: BTreeMap<String, String>,
    pub columns: Option<Vec<String>>,
}

/// Reads a file into a frame. Output `frame`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ReadConfig")]
struct RawRead {
    /// The file, relative to the project's root.
    path: String,
    /// Default: by the path's extension (.csv .tsv .parquet .arrow .ipc .feather .jsonl .ndjson).
    format: Option<Format>,
    /// Default: by the path's last extension (.gz .zst).
    compression: Option<Compression>,
    /// Texts that stand for a missing value, beside the empty one (csv, tsv).
    #[serde(default)]
    null_values: Vec<String>,
    /// What separates fields; default `,` for csv, a tabulator for tsv.
    delimiter: Option<char>,
    /// Whether the first row names the columns (csv, tsv); default true. Otherwise they are column_1, column_2, …
    header: Option<bool>,
    /// Column to type: bool str i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 date time duration[us] datetime[us] (or ns, ms).
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// The columns to keep, in this order; default all.
    columns: Option<Vec<String>>,
}

impl JsonSchema for ReadConfig {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        RawRead::schema_name()
    }

    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        RawRead::json_schema(generator)
    }
}

impl TryFrom<RawRead> for ReadConfig {
    type Error = String;

    fn try_from(raw: RawRead) -> Result<Self, String> {
        let (stem, packed) = strip_compression(&raw.path);
        let format = match raw.format {
            Some(format) => format,
            None => infer_format(&raw.path, stem)?,
        };
        let compression = raw.compression.unwrap_or(packed);
        let config = Self {
            format,
            compression,
            null_values: sorted(raw.null_values.clone()),
            delimiter: raw.delimiter.unwrap_or(if format == Format::Tsv { '\t' } else { ',' }),
            header: raw.header.unwrap_or(true),
            types: raw.types.clone(),
            columns: raw.columns.clone(),
            path: raw.path.clone(),
        };
        config.check_fields_of_format(&raw)?;
        config.check_columns_and_types()?;
        Ok(config)
    }
}

fn sorted(texts: Vec<String>) -> Vec<String> {
    texts.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

fn strip_compression(path: &str) -> (&str, Compression) {
    let lower = path.to_ascii_lowercase();
    match lower.rsplit_once('.') {
        Some((stem, "gz")) => (&path[..stem.len()], Compression::Gzip),
        Some((stem, "zst")) => (&path[..stem.len()], Compression::Zstd),
        _ => (path, Compression::None),
    }
}

/// The format of a name without its compression's extension.
pub(super) fn format_of(name: &str) -> Option<Format> {
    let file = name.rsplit(['/', '\\']).next().unwrap_or(name);
    let (_, extension) = file.rsplit_once('.')?;
    match extension.to_ascii_lowercase().as_str() {
        "csv" => Some(Format::Csv),
        "tsv" => Some(Format::Tsv),
        "parquet" => Some(Format::Parquet),
        "arrow" | "ipc" | "feather" => Some(Format::Ipc),
        "jsonl" | "ndjson" => Some(Format::Jsonl),
        _ => None,
    }
}

pub(super) const KNOWN_EXTENSIONS: &str = ".csv, .tsv, .parquet, .arrow, .ipc, .feather, .jsonl and .ndjson";

fn infer_format(path: &str, stem: &str) -> Result<Format, String> {
    format_of(stem).ok_or_else(|| {
        format!(
            "the format of `{path}` cannot be told from its name: known are {KNOWN_EXTENSIONS}, each also with .gz or \
             .zst behind; set `format = \"csv\"` or another of tsv, parquet, ipc, jsonl"
        )
    })
}

impl ReadConfig {
    /// The configuration of a path alone.
    ///
    /// # Errors
    /// [`StageError::Config`] if the name does not tell the format.
    pub fn of_path(path: &str) -> Result<Self, StageError> {
        let (stem, compression) = strip_compression(path);
        let format = infer_format(path, stem).map_err(|detail| StageError::Config { detail })?;
        Ok(Self {
            path: path.into(),
            format,
            compression,
            null_values: Vec::new(),
            delimiter: if format == Format::Tsv { '\t' } else { ',' },
            header: true,
            types: BTreeMap::new(),
            columns: None,
        })
    }

    fn check_fields_of_format(&self, raw: &RawRead) -> Result<(), String> {
        let is_delimited = matches!(self.format, Format::Csv | Format::Tsv);
        let given = [
            ("delimiter", raw.delimiter.is_some()),
            ("header", raw.header.is_some()),
            ("null_values", !raw.null_values.is_empty()),
        ];
        match given.iter().find(|(_, given)| *given && !is_delimited) {
            Some((field, _)) => Err(format!("`{field}` is for the formats csv and tsv")),
            None if !self.delimiter.is_ascii() || matches!(self.delimiter, '"' | '\n' | '\r') => Err(format!(
                "`delimiter` must be one ASCII character other than a quote or a line break, not {:?}",
                self.delimiter
            )),
            None => Ok(()),
        }
    }

    fn check_columns_and_types(&self) -> Result<(), String> {
        let columns = self.columns.as_deref();
        if columns.is_some_and(<[String]>::is_empty) {
            return Err("`columns` is empty; leave it out to keep all".into());
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = columns.unwrap_or_default().iter().find(|column| !seen.insert(*column)) {
            return Err(format!("`columns` names `{twice}` twice"));
        }
        for (column, name) in &self.types {
            if frame::parse_type(name).is_none() {
                return Err(format!(
                    "`types.{column}`: there is no type `{name}`; the types are bool, str, i8, i16, i32, i64, u8, u16, \
                     u32, u64, f32, f64, date, time, duration[us] and datetime[us] (also with ns and ms)"
                ));
            }
            if columns.is_some_and(|columns| !columns.contains(column)) {
                return Err(format!("`types.{column}`: `columns` leaves this column out"));
            }
        }
        Ok(())
    }

    /// The type that was asked for a column.
    pub(super) fn type_of(&self, column: &str) -> Option<DataType> {
        self.types.get(column).and_then(|name| frame::parse_type(name))
    }

    /// The positions of the columns to keep, in their order.
    pub(super) fn select(&self, names: &[String]) -> Result<Vec<usize>, StageError> {
        let position = |place: &str, column: &String| {
            names.iter().position(|name| name == column).ok_or_else(|| StageError::UnknownColumn {
                place: format!("{}: {place}", self.path),
                column: column.clone(),
                available: names.to_vec(),
            })
        };
        for column in self.types.keys() {
            position("types", column)?;
        }
        match &self.columns {
            Some(columns) => columns.iter().map(|column| position("columns", column)).collect(),
            None => Ok((0..names.len()).collect()),
        }
    }

    pub(super) fn wrong_file(&self, detail: impl Into<String>) -> StageError {
        StageError::File { file: self.path.clone(), detail: detail.into() }
    }

    pub(super) fn wrong_row(&self, row: u64, column: Option<&str>, detail: impl Into<String>) -> StageError {
        StageError::Row { file: self.path.clone(), row, column: column.map(Into::into), detail: detail.into() }
    }
}

impl Kind for Read {
    const NAME: &'static str = "read";
    const VERSION: u32 = 2;
    type Config = ReadConfig;

    fn ports(config: &ReadConfig) -> Ports {
        let from = From::File(config.path.clone());
        Ports {
            inputs: InputPorts::Fixed(vec![InputPort { name: "path", type_name: artifact::FILE, from }]),
            outputs: vec![OutputPort::new("frame", artifact::FRAME)],
        }
    }

    fn run(config: &ReadConfig, inputs: &Inputs, outputs: &mut Outputs) -> Result<(), StageError> {
        let frame = read_frame(config, &inputs.one("path")?.blob()?)?;
        outputs.put("frame", Draft::tree(artifact::FRAME, frame::encode(&frame)?));
        Ok(())
    }
}

/// Reads the bytes of a file. Rows in errors are lines of a text file (the header is line 1), and rows counted from 1
/// of any other.
///
/// # Errors
/// Whatever in the file does not fit its format or the configuration: see the variants with a file in [`StageError`].
pub fn read_frame(config: &ReadConfig, bytes: &[u8]) -> Result<DataFrame, StageError> {
    let plain = decompress(&config.path, bytes, config.compression, decompress::MAX_BYTES)?;
    if plain.is_empty() {
        return Err(config.wrong_file("the file is empty"));
    }
    if let (Compression::None, Some(found)) = (config.compression, decompress::sniff(&plain)) {
        return Err(config.wrong_file(format!("the file is compressed; set `compression = \"{found}\"`")));
    }
    let frame = match config.format {
        Format::Csv | Format::Tsv => delimited::read(config, &plain)?,
        Format::Jsonl => jsonl::read(config, &plain)?,
        Format::Parquet | Format::Ipc => columnar::read(config, &plain)?,
    };
    if frame.height() == 0 {
        return Err(config.wrong_file("the file has no rows"));
    }
    // Rows of nothing could not be told from none in a stored frame.
    if frame.width() == 0 {
        return Err(config.wrong_file("the file has no columns"));
    }
    refuse_unsupported(&frame)?;
    Ok(frame)
}

/// Reads a new file for prediction: `text` names columns that are text whatever they look like in this file (a code
/// such as `007` stays one), if they are there.
///
/// # Errors
/// As [`read_frame`].
pub fn read_frame_for(mut config: ReadConfig, bytes: &[u8], text: &[String]) -> Result<DataFrame, StageError> {
    if !matches!(config.format, Format::Csv | Format::Tsv | Format::Jsonl) {
        return read_frame(&config, bytes);
    }
    let plain = decompress(&config.path, bytes, config.compression, decompress::MAX_BYTES)?;
    config.compression = Compression::None;
    let names = match config.format {
        Format::Jsonl => jsonl::names(&config, &plain)?,
        _ => delimited::names(&config, &plain)?,
    };
    let present = text.iter().filter(|column| names.contains(column));
    config.types = present.map(|column| (column.clone(), "str".to_string())).collect();
    read_frame(&config, &plain)
}

fn refuse_unsupported(frame: &DataFrame) -> Result<(), StageError> {
    let holds = |dtype: &DataType| {
        matches!(dtype, DataType::Categorical(..) | DataType::Enum(..) | DataType::Null)
            || frame::type_name(dtype).is_some()
    };
    match frame.columns().iter().find(|column| !holds(column.dtype())) {
        None => Ok(()),
        Some(column) => {
            Err(StageError::UnsupportedType { column: column.name().to_string(), found: column.dtype().to_string() })
        }
    }
}

/// The first name that stands twice.
pub(super) fn first_duplicate(names: &[String]) -> Option<&String> {
    let mut seen = BTreeSet::new();
    names.iter().find(|name| !seen.insert(*name))
}

/// A count of fields, as messages say it.
pub(super) fn fields(count: usize) -> String {
    if count == 1 { "1 field".into() } else { format!("{count} fields") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::{any, prop_assert_eq, proptest};
    use serde_json::{Value, json};

    use super::super::write_frame;
    use super::*;

    fn config(value: Value) -> Result<ReadConfig, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    fn read_with(mut value: Value, path: &str, text: &[u8]) -> Result<DataFrame, StageError> {
        value["path"] = json!(path);
        read_frame(&config(value).expect("valid"), text)
    }

    fn csv(text: &str) -> Result<DataFrame, StageError> {
        read_with(json!({}), "a.csv", text.as_bytes())
    }

    fn told(value: Value, path: &str, text: &[u8]) -> String {
        read_with(value, path, text).expect_err("refused").to_string()
    }

    fn frame(columns: Vec<Series>) -> DataFrame {
        DataFrame::new(columns[0].len(), columns.into_iter().map(Into::into).collect()).expect("equal lengths")
    }

    #[test]
    fn a_path_tells_format_and_compression() {
        for (path, format, compression) in [
            ("data/a.csv", Format::Csv, Compression::None),
            ("A.CSV.GZ", Format::Csv, Compression::Gzip),
            ("a.b/c.tsv.zst", Format::Tsv, Compression::Zstd),
            ("a.parquet", Format::Parquet, Compression::None),
            ("a.feather", Format::Ipc, Compression::None),
            ("a.ndjson.gz", Format::Jsonl, Compression::Gzip),
        ] {
            let config = ReadConfig::of_path(path).expect("known");
            assert_eq!((config.format, config.compression), (format, compression), "{path}");
        }
        let given = config(json!({"path": "data.gz", "format": "csv"})).expect("valid");
        assert_eq!((given.format, given.compression), (Format::Csv, Compression::Gzip));
    }

    #[test]
    fn configurations_that_mean_nothing_are_refused() {
        let unknown = "the format of `data.v1/table` cannot be told from its name: known are .csv, .tsv, .parquet, \
                       .arrow, .ipc, .feather, .jsonl and .ndjson, each also with .gz or .zst behind; \
                       set `format = \"csv\"` or another of tsv, parquet, ipc, jsonl";
        for (value, text) in [
            (json!({"path": "data.v1/table"}), unknown),
            (json!({"path": "a.parquet", "header": true}), "`header` is for the formats csv and tsv"),
            (json!({"path": "a.jsonl", "null_values": ["NA"]}), "`null_values` is for the formats csv and tsv"),
            (
                json!({"path": "a.csv", "delimiter": "é"}),
                "`delimiter` must be one ASCII character other than a quote or a line break, not 'é'",
            ),
            (json!({"path": "a.csv", "columns": []}), "`columns` is empty; leave it out to keep all"),
            (json!({"path": "a.csv", "columns": ["a", "a"]}), "`columns` names `a` twice"),
            (
                json!({"path": "a.csv", "columns": ["a"], "types": {"b": "i64"}}),
                "`types.b`: `columns` leaves this column out",
            ),
            (
                json!({"path": "a.csv", "types": {"b": "int"}}),
                "`types.b`: there is no type `int`; the types are bool, str, i8, i16, i32, i64, u8, u16, u32, u64, \
                 f32, f64, date, time, duration[us] and datetime[us] (also with ns and ms)",
            ),
        ] {
            assert_eq!(config(value).expect_err("refused"), text);
        }
        assert!(config(json!({"path": "a.csv", "sep": ";"})).expect_err("unknown").starts_with("unknown field `sep`"));
    }

    #[test]
    fn the_path_is_no_part_of_the_canonical_configuration() {
        let config = config(json!({"path": "x/a.csv.zst", "null_values": ["NA", "-", "NA"]})).expect("valid");
        let canonical = serde_json::to_value(&config).expect("serializes");
        let expected = json!({
            "format": "csv", "compression": "zstd", "null_values": ["-", "NA"], "delimiter": ",", "header": true,
            "types": {}, "columns": null,
        });
        assert_eq!(canonical, expected);
        let Ports { inputs: InputPorts::Fixed(inputs), .. } = Read::ports(&config) else { panic!("one input") };
        assert_eq!(inputs[0].from, From::File("x/a.csv.zst".into()));
    }

    #[test]
    fn csv_is_read_exactly() {
        let text = "\u{feff}id,name,x,ok,day,at\r\n1,\"a \"\"q\"\", b\",0.1,true,2020-02-29,2020-02-29T01:02:03Z\r\n\r\n\
                    -2,,NaN,FALSE,,\r\n3,\"\",1e3,,1969-12-31,1970-01-01T00:00:00+01:00\r\n";
        let expected = frame(vec![
            Series::new("id".into(), [1_i64, -2, 3]),
            Series::new("name".into(), [Some("a \"q\", b"), None, Some("")]),
            Series::new("x".into(), [0.1, f64::NAN, 1000.0]),
            Series::new("ok".into(), [Some(true), Some(false), None]),
            Series::new("day".into(), [Some(18_321_i32), None, Some(-1)]).cast(&DataType::Date).expect("casts"),
            Series::new("at".into(), [Some(1_582_938_123_000_000_i64), None, Some(-3_600_000_000)])
                .cast(&DataType::Datetime(TimeUnit::Microseconds, Some(TimeZone::UTC)))
                .expect("casts"),
        ]);
        let read = csv(text).expect("reads");
        assert!(read.equals_missing(&expected), "{read}");
        assert_eq!(read.dtypes(), expected.dtypes());
    }

    #[test]
    fn types_follow_from_the_whole_file() {
        let mut text = String::from("x\n");
        (0..3000).for_each(|n| text.push_str(&format!("{n}\n")));
        text.push_str("late\n");
        assert_eq!(csv(&text).expect("reads").dtypes(), [DataType::String]);
    }

    #[test]
    fn options_of_csv() {
        let value =
            json!({"delimiter": ";", "header": false, "null_values": ["NA"], "columns": ["column_3", "column_1"]});
        let read = read_with(value, "a.csv", b"1;x;NA\n2;y;7\n").expect("reads");
        let expected = frame(vec![
            Series::new("column_3".into(), [None, Some(7_i64)]),
            Series::new("column_1".into(), [1_i64, 2]),
        ]);
        assert!(read.equals_missing(&expected), "{read}");
        let value = json!({"types": {"zip": "str", "n": "u8", "d": "datetime[ms]", "t": "time"}});
        let read = read_with(value, "a.tsv", b"zip\tn\td\tt\n007\t255\t2020-01-01\t10:00\n").expect("reads");
        assert_eq!(read.columns()[0].str().expect("text").get(0), Some("007"));
        assert_eq!(
            read.dtypes()[1..],
            [DataType::UInt8, DataType::Datetime(TimeUnit::Milliseconds, None), DataType::Time]
        );
    }

    #[test]
    fn what_is_wrong_in_a_csv_is_placed() {
        for (text, message) in [
            ("", "a.csv: the file is empty"),
            ("\u{feff}", "a.csv: the file is empty"),
            ("a,b\n", "a.csv: the file has a header but no rows"),
            ("a,b,a\n1,2,3\n", "a.csv, row 1, column `a`: the header names it twice"),
            ("a,,c\n1,2,3\n", "a.csv, row 1: column 2 has no name"),
            ("a,b\n1,2\n\n\n3\n", "a.csv, row 5: it has 1 field, the header has 2"),
            ("a,b\n1,2\n3,4,5\n", "a.csv, row 3: it has 3 fields, the header has 2"),
            ("a,b\n\"x\ny\",2\n3,4,5\n", "a.csv, row 4: it has 3 fields, the header has 2"),
            ("a,b\n1,2\n3,\"4\n5,6\n", "a.csv, row 3: a quote is opened in this row and never closed"),
            ("a,b\n\"3\"4,\"5\"\n", "a.csv, row 2: text follows the quote that closes a field"),
            ("a,b\n3,\"4\n5,\"6\n", "a.csv, row 2: text follows the quote that closes a field"),
            ("a,\"b\n1,2\n", "a.csv, row 1: a quote is opened in this row and never closed"),
        ] {
            assert_eq!(told(json!({}), "a.csv", text.as_bytes()), message, "{text:?}");
        }
        let latin = b"a,b\n1,2\n3,caf\xe9\n";
        let text = "a.csv, row 3, column `b`: the value is not valid UTF-8; save the file as UTF-8";
        assert_eq!(told(json!({}), "a.csv", latin), text);
        let text = "a.csv, row 3, column `n`: found `12.5`, expected i64";
        assert_eq!(told(json!({"types": {"n": "i64"}}), "a.csv", b"m,n\n1,2\n3,12.5\n4,x\n"), text);
        let text = "a.csv: columns: there is no column `z`; the columns are `m`, `n`";
        assert_eq!(told(json!({"columns": ["z"]}), "a.csv", b"m,n\n1,2\n"), text);
        let text = "a.csv: types: there is no column `z`; the columns are `m`, `n`";
        assert_eq!(told(json!({"types": {"z": "i64"}}), "a.csv", b"m,n\n1,2\n"), text);
        let text = "a.csv: the file is compressed; set `compression = \"gzip\"`";
        assert_eq!(told(json!({}), "a.csv", b"\x1f\x8b\x08rest"), text);
    }

    #[test]
    fn json_lines_are_read_in_order_of_appearance() {
        let text = b"{\"b\": 1, \"a\": \"x\"}\n\n{\"a\": null, \"c\": 18446744073709551615, \"b\": 2.5}\r\n{\"d\": \"2020-01-31\"}";
        let read = read_with(json!({}), "a.jsonl", text).expect("reads");
        let expected = frame(vec![
            Series::new("b".into(), [Some(1.0), Some(2.5), None]),
            Series::new("a".into(), [Some("x"), None, None]),
            Series::new("c".into(), [None, Some(u64::MAX), None]),
            Series::new("d".into(), [None, None, Some(18_292_i32)]).cast(&DataType::Date).expect("casts"),
        ]);
        assert!(read.equals_missing(&expected), "{read}");
        let read = read_with(json!({"types": {"a": "str"}}), "a.jsonl", b"{\"a\":1}\n{\"a\":\"x\"}\n").expect("reads");
        assert_eq!(read.columns()[0].str().expect("text").get(0), Some("1"));
    }

    #[test]
    fn what_is_wrong_in_json_lines_is_placed() {
        for (text, message) in [
            ("\n\n", "a.jsonl: the file has no rows"),
            ("{}\n{}\n", "a.jsonl: the file has no columns"),
            ("{\"a\":1}\n{\"a\":}\n", "a.jsonl, row 2: expected value at character 6"),
            ("{\"a\":1}\n[1]\n", "a.jsonl, row 2: invalid type: sequence, expected one JSON object a line"),
            ("{\"a\":1,\"a\":2}\n", "a.jsonl, row 1, column `a`: the line names it twice"),
            (
                "{\"a\":1}\n\n{\"a\":\"x\"}\n",
                "a.jsonl, row 3, column `a`: it is text, and a number in the rows before; set `types.a = \"str\"`",
            ),
            (
                "{\"a\":[1]}\n",
                "a.jsonl, row 1, column `a`: it holds a list or an object, which a frame cannot; pick others with `columns`",
            ),
        ] {
            assert_eq!(told(json!({}), "a.jsonl", text.as_bytes()), message, "{text:?}");
        }
        let text = "a.jsonl, row 2, column `a`: found `x`, expected i64";
        assert_eq!(told(json!({"types": {"a": "i64"}}), "a.jsonl", b"{\"a\":1}\n{\"a\":\"x\"}\n"), text);
    }

    fn sample() -> DataFrame {
        let count = Series::new("".into(), [Some(0_i64), None, Some(86_399_000_000)]);
        frame(vec![
            Series::new("i".into(), [Some(1_i64), None, Some(-3)]),
            Series::new("f".into(), [Some(0.1), None, Some(1e-300)]),
            Series::new("s".into(), [Some("a,\"b\"\n"), None, Some("")]),
            Series::new("b".into(), [Some(true), None, Some(false)]),
            Series::new("d".into(), [Some(0_i32), None, Some(-700_000)]).cast(&DataType::Date).expect("casts"),
            count.cast(&DataType::Datetime(TimeUnit::Microseconds, None)).expect("casts").with_name("t".into()),
        ])
    }

    #[test]
    fn every_format_that_is_written_is_read_again() {
        for path in ["a.csv", "a.tsv", "a.parquet", "a.arrow", "a.jsonl"] {
            let bytes = write_frame(&sample(), path).expect("writes");
            let read = read_with(json!({}), path, &bytes).expect("reads");
            assert!(read.equals_missing(&sample()), "{path}: {read}");
            assert_eq!(read.dtypes(), sample().dtypes(), "{path}");
        }
        let error = write_frame(&sample(), "a.xlsx").expect_err("unknown").to_string();
        let text = "a frame cannot be written to `a.xlsx`: the extensions known are .csv, .tsv, .parquet, .arrow, .ipc, \
                    .feather, .jsonl and .ndjson";
        assert_eq!(error, text);
    }

    #[test]
    fn columnar_files_are_cast_exactly_or_not_at_all() {
        let bytes = write_frame(
            &frame(vec![Series::new("x".into(), [1.0, 2.5]), Series::new("s".into(), ["1", "x"])]),
            "a.parquet",
        );
        let bytes = bytes.expect("writes");
        let text = "a.parquet, row 2, column `x`: found `2.5`, expected i64";
        assert_eq!(told(json!({"types": {"x": "i64"}}), "a.parquet", &bytes), text);
        let text = "a.parquet, row 2, column `s`: found `x`, expected i64";
        assert_eq!(told(json!({"types": {"s": "i64"}}), "a.parquet", &bytes), text);
        let read = read_with(json!({"types": {"x": "f32"}, "columns": ["x"]}), "a.parquet", &bytes).expect("reads");
        assert_eq!(read.dtypes(), [DataType::Float32]);
        let text = "a.parquet: columns: there is no column `z`; the columns are `x`, `s`";
        assert_eq!(told(json!({"columns": ["z"]}), "a.parquet", &bytes), text);
        assert!(told(json!({}), "a.parquet", b"no parquet").starts_with("a.parquet: it cannot be read: "));
        assert!(told(json!({}), "a.arrow", b"no arrow").starts_with("a.arrow: it cannot be read: "));
    }

    #[test]
    fn nested_columns_are_refused_unless_they_are_left_out() {
        let list = Series::new("l".into(), [Series::new("".into(), [1_i64])]);
        let nested = frame(vec![list, Series::new("x".into(), [1.5])]);
        for path in ["a.parquet", "a.arrow"] {
            let bytes = write_nested(&nested, path);
            let text = "column `l` has the type list[i64], which a frame cannot hold; leave it out or turn it into text or numbers";
            assert_eq!(told(json!({}), path, &bytes), text);
            assert_eq!(read_with(json!({"columns": ["x"]}), path, &bytes).expect("reads").width(), 1);
        }
    }

    fn write_nested(frame: &DataFrame, path: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        match path {
            "a.parquet" => ParquetWriter::new(&mut bytes).finish(&mut frame.clone()).map(|_| ()).expect("writes"),
            _ => IpcWriter::new(&mut bytes).finish(&mut frame.clone()).expect("writes"),
        }
        bytes
    }

    #[test]
    fn a_code_column_keeps_its_leading_zeros() {
        let read = csv("code,n\n007,1\n7,0\n").expect("reads");
        assert_eq!(read.dtypes(), [DataType::String, DataType::Int64]);
        assert_eq!(read.columns()[0].str().expect("text").get(0), Some("007"));
        let read = read_with(json!({"types": {"code": "i64"}}), "a.csv", b"code\n007\n").expect("reads");
        assert_eq!(read.columns()[0].i64().expect("asked for").get(0), Some(7));
    }

    #[test]
    fn numbers_are_not_rounded_beside_fractions() {
        assert_eq!(csv("n\n9007199254740993\n0.5\n").expect("reads").dtypes(), [DataType::String]);
        let text = "a.jsonl, row 1, column `a`: the number has more digits than fit beside the fractions of this column; \
                    set `types.a = \"str\"`";
        assert_eq!(told(json!({}), "a.jsonl", b"{\"a\":9007199254740993}\n{\"a\":0.5}\n"), text);
        let exact = b"{\"a\":9007199254740992}\n{\"a\":0.5}\n";
        assert_eq!(read_with(json!({}), "a.jsonl", exact).expect("reads").dtypes(), [DataType::Float64]);
        let text = "a.jsonl, row 1: a whole number has more digits than 64 bits hold; write it as text";
        assert_eq!(told(json!({}), "a.jsonl", b"{\"a\":12345678901234567890123}\n"), text);
        assert_eq!(told(json!({}), "a.jsonl", b"{\"a\":-9223372036854775809}\n"), text);
        let fine = br#"{"a":1e300,"b":"\"12345678901234567890123","c":100000000000000000000}"#;
        assert_eq!(read_with(json!({}), "a.jsonl", fine).expect("reads").height(), 1);
    }

    #[test]
    fn finite_values_never_become_infinite() {
        let text = "a.csv, row 3, column `x`: found `1e999`, which is too large for f64";
        assert_eq!(told(json!({}), "a.csv", b"x\n1.5\n1e999\n"), text);
        let text = "a.csv, row 2, column `x`: found `1e300`, which is too large for f32";
        assert_eq!(told(json!({"types": {"x": "f32"}}), "a.csv", b"x\n1e300\n"), text);
        let text = "a.jsonl, row 1, column `x`: found `1e300`, which is too large for f32";
        assert_eq!(told(json!({"types": {"x": "f32"}}), "a.jsonl", b"{\"x\":1e300}\n"), text);
        assert_eq!(
            told(json!({}), "a.jsonl", b"{\"x\":1e999}\n"),
            "a.jsonl, row 1: number out of range at character 10"
        );
        let table = frame(vec![Series::new("x".into(), [f64::INFINITY, 0.1, 1e300])]);
        let bytes = write_frame(&table, "a.parquet").expect("writes");
        let told = told(json!({"types": {"x": "f32"}}), "a.parquet", &bytes);
        assert_eq!(told, "a.parquet, row 3, column `x`: found `1.0000e300`, expected f32");
    }

    #[test]
    fn keys_that_lines_lack_take_no_memory_and_have_a_limit() {
        let keys: Vec<String> = (0..10_000).map(|key| format!("\"k{key}\":1")).collect();
        let mut text = format!("{{{}}}\n", keys.join(","));
        (0..60_000).for_each(|_| text.push_str("{}\n"));
        let message = "a.jsonl: 60001 rows with 10000 different keys, but fewer than 1 in 100 of their values is there; \
                       keep fewer keys with `columns`";
        assert_eq!(told(json!({}), "a.jsonl", text.as_bytes()), message);
        let read = read_with(json!({"columns": ["k9999", "k1"]}), "a.jsonl", text.as_bytes()).expect("reads");
        assert_eq!((read.height(), read.width(), read.columns()[0].null_count()), (60_001, 2, 60_000));
        text.push_str("{\"one more\":1}\n");
        let message = "a.jsonl, row 60002: there are more than 10000 different keys by now";
        assert_eq!(told(json!({}), "a.jsonl", text.as_bytes()), message);
    }

    #[test]
    fn codes_stay_text_in_a_file_for_prediction() {
        let text = ["zip".to_string(), "absent".to_string()];
        let read =
            read_frame_for(ReadConfig::of_path("a.csv").expect("a path"), b"zip,n\n007,1\n", &text).expect("reads");
        assert_eq!(read.dtypes(), [DataType::String, DataType::Int64]);
        let read =
            read_frame_for(ReadConfig::of_path("a.jsonl").expect("a path"), b"{\"zip\":7}\n", &text).expect("reads");
        assert_eq!(read.dtypes(), [DataType::String]);
    }

    fn run(text: &[u8]) -> Vec<String> {
        let mut inputs = Inputs::default();
        inputs.add("path", BTreeMap::new(), Arc::new(Draft::blob(artifact::FILE, text.to_vec())));
        let mut outputs = Outputs::default();
        Read::run(&ReadConfig::of_path("a.csv").expect("known"), &inputs, &mut outputs).expect("reads");
        let crate::io::Content::Tree(tree) = outputs.into_drafts().remove("frame").expect("a frame").content else {
            panic!("a frame is a tree")
        };
        let line = |head: &crate::io::EntryHead, bytes: &[u8]| {
            format!("{} {} {}", head.name, head.type_name, &blake3::hash(bytes).to_hex()[..16])
        };
        tree.into_entries().map(|(head, bytes)| line(&head, &bytes)).collect()
    }

    #[test]
    fn the_output_is_pinned() {
        let found = run(b"i,f,s,b,d\n1,0.5,x,true,2020-01-31\n,,,,\n-3,2,\"\",false,1999-12-31\n");
        assert_eq!(found, PINNED, "raise VERSION");
    }

    const PINNED: [&str; 5] = [
        "i i64 5700d587033813ec",
        "f f64 791d219d0a4b2657",
        "s str e3519f787f657231",
        "b bool 40ae3180f01068e7",
        "d date 675fa8791e19f0ec",
    ];

    #[test]
    fn quotes_within_a_field_are_text() {
        let read = csv("a,b\n5\" pipe,1\n,2\n").expect("reads");
        assert_eq!(read.columns()[0].str().expect("text").get(0), Some("5\" pipe"));
    }

    #[test]
    fn threads_do_not_count() {
        let mut text = String::from("n,s\n");
        (0..70_000).for_each(|n| text.push_str(&format!("{n},{}\n", if n % 7 == 0 { "\"\"" } else { "abc" })));
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool");
            pool.install(|| run(text.as_bytes()))
        };
        assert_eq!(with(1), with(2));
        text.push_str("x,y,z\n");
        assert_eq!(told(json!({}), "a.csv", text.as_bytes()), "a.csv, row 70002: it has 3 fields, the header has 2");
        let bad = text.replace("x,y,z\n", "x,y\n");
        let message = "a.csv, row 70002, column `n`: found `x`, expected i64";
        assert_eq!(told(json!({"types": {"n": "i64"}}), "a.csv", bad.as_bytes()), message);
    }

    proptest! {
        #[test]
        fn any_table_survives_csv_and_json_lines(rows in proptest::collection::vec((any::<Option<String>>(), any::<f64>(), any::<Option<i64>>()), 1..20)) {
            let table = frame(vec![
                Series::new("s".into(), rows.iter().map(|row| row.0.clone()).collect::<Vec<_>>()),
                Series::new("f".into(), rows.iter().map(|row| row.1).collect::<Vec<_>>()),
                Series::new("i".into(), rows.iter().map(|row| row.2).collect::<Vec<_>>()),
            ]);
            let types = json!({"types": {"s": "str", "f": "f64", "i": "i64"}});
            let bytes = write_frame(&table, "a.csv").expect("writes");
            prop_assert_eq!(read_with(types.clone(), "a.csv", &bytes).expect("reads").equals_missing(&table), true);
            if rows.iter().all(|row| row.1.is_finite()) {
                let bytes = write_frame(&table, "a.jsonl").expect("writes");
                prop_assert_eq!(read_with(types, "a.jsonl", &bytes).expect("reads").equals_missing(&table), true);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80), text in "[ab\",\n\r0-9.]{0,60}") {
            for path in ["a.csv", "a.jsonl", "a.csv.gz", "a.csv.zst"] {
                let _ = read_with(json!({}), path, &bytes);
                let _ = read_with(json!({}), path, text.as_bytes());
            }
        }
    }
}
