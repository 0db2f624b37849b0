//! `delimited`: CSV and TSV (RFC 4180, with any delimiter), read exactly.
//!
//! Three passes: one over the whole text for its structure (field counts, quotes, UTF-8), which also cuts it into parts
//! of whole rows; then, part by part on all threads, one that finds the type of each column and one that fills it. It
//! does not know compressions or how frames are stored.
//!
//! Invariants: every row has as many fields as the header; every value is in the frame exactly or the read fails; the
//! cut is made by row count, so nothing depends on the number of threads. An empty field is a null, as are the
//! configured null values, quoted or not; in a text column a quoted empty field is the empty text. Blank lines are
//! skipped.

use std::collections::BTreeSet;

use csv::{ByteRecord, Position, Reader, ReaderBuilder};
use polars::prelude::*;
use rayon::prelude::*;

use super::cell::{Builder, Possible};
use super::read::{ReadConfig, fields, first_duplicate};
use crate::StageError;

const ROWS_A_PART: usize = 1 << 16;

/// Whole rows of the text: where they begin, as bytes and as a line number counted from 1.
struct Part<'a> {
    text: &'a [u8],
    line: u64,
    rows: usize,
}

/// What the first pass finds.
struct Layout<'a> {
    names: Vec<String>,
    parts: Vec<Part<'a>>,
}

/// One column to fill.
struct Target {
    field: usize,
    name: String,
    asked: Option<DataType>,
}

/// Reads a text.
pub(super) fn read(config: &ReadConfig, bytes: &[u8]) -> Result<DataFrame, StageError> {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let layout = layout(config, text)?;
    let selected = config.select(&layout.names)?.into_iter();
    let targets: Vec<Target> = selected
        .map(|field| {
            let name = layout.names[field].clone();
            Target { field, asked: config.type_of(&name), name }
        })
        .collect();
    let nulls: BTreeSet<&str> = config.null_values.iter().map(String::as_str).collect();
    let types = infer(config, &layout.parts, &targets, &nulls)?;
    let filled = layout.parts.par_iter().map(|part| fill(config, part, &targets, &types, &nulls));
    assemble(&targets, filled.collect::<Vec<_>>())
}

/// The columns' names alone.
pub(super) fn names(config: &ReadConfig, bytes: &[u8]) -> Result<Vec<String>, StageError> {
    let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let mut record = ByteRecord::new();
    if !next(config, &mut reader(config, text), &mut record)? {
        return Err(config.wrong_file("the file is empty"));
    }
    header(config, text, &record)
}

fn reader<'a>(config: &ReadConfig, text: &'a [u8]) -> Reader<&'a [u8]> {
    ReaderBuilder::new().has_headers(false).flexible(true).delimiter(config.delimiter as u8).from_reader(text)
}

fn next(config: &ReadConfig, reader: &mut Reader<&[u8]>, record: &mut ByteRecord) -> Result<bool, StageError> {
    reader.read_byte_record(record).map_err(|error| config.wrong_file(error.to_string()))
}

/// The bytes of the record just read, from where the reader stood before it, and its line: the reader counts a blank
/// line before a record as part of it.
fn raw_record<'a>(text: &'a [u8], record: &ByteRecord, end: &Position) -> (&'a [u8], u64) {
    let start = record.position().map_or(0, Position::byte) as usize;
    let line = record.position().map_or(1, Position::line);
    let raw = &text[start..end.byte() as usize];
    let blank = raw.iter().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
    let skipped = raw[..blank].iter().filter(|byte| **byte == b'\n').count() as u64;
    (&raw[blank..], line + skipped)
}

fn layout<'a>(config: &ReadConfig, text: &'a [u8]) -> Result<Layout<'a>, StageError> {
    let is_utf8 = std::str::from_utf8(text).is_ok();
    let (mut reader, mut record) = (reader(config, text), ByteRecord::new());
    if !next(config, &mut reader, &mut record)? {
        return Err(config.wrong_file("the file is empty"));
    }
    let names = header(config, text, &record)?;
    let (mut parts, mut start, mut rows) = (Vec::new(), Position::new(), 0);
    start.set_line(1);
    if config.header {
        check_quotes(config, text, &record, reader.position())?;
        start = reader.position().clone();
    } else {
        check_record(config, text, &record, &reader, &names, is_utf8)?;
        rows = 1;
    }
    while next(config, &mut reader, &mut record)? {
        check_record(config, text, &record, &reader, &names, is_utf8)?;
        rows += 1;
        if rows == ROWS_A_PART {
            let end = reader.position().clone();
            parts.push(Part { text: &text[start.byte() as usize..end.byte() as usize], line: start.line(), rows });
            (start, rows) = (end, 0);
        }
    }
    if rows > 0 {
        parts.push(Part { text: &text[start.byte() as usize..], line: start.line(), rows });
    }
    if parts.is_empty() {
        return Err(config.wrong_file("the file has a header but no rows"));
    }
    Ok(Layout { names, parts })
}

fn header(config: &ReadConfig, text: &[u8], record: &ByteRecord) -> Result<Vec<String>, StageError> {
    if !config.header {
        return Ok((1..=record.len()).map(|number| format!("column_{number}")).collect());
    }
    let line = raw_record(text, record, record.position().unwrap_or(&Position::new())).1;
    let mut names = Vec::with_capacity(record.len());
    for (at, field) in record.iter().enumerate() {
        match std::str::from_utf8(field) {
            Ok("") => return Err(config.wrong_row(line, None, format!("column {} has no name", at + 1))),
            Ok(name) => names.push(name.to_string()),
            Err(_) => return Err(config.wrong_row(line, None, format!("the name of column {} {NOT_UTF8}", at + 1))),
        }
    }
    match first_duplicate(&names) {
        Some(name) => Err(config.wrong_row(line, Some(name), "the header names it twice")),
        None => Ok(names),
    }
}

const NOT_UTF8: &str = "is not valid UTF-8; save the file as UTF-8";

fn check_record(
    config: &ReadConfig,
    text: &[u8],
    record: &ByteRecord,
    reader: &Reader<&[u8]>,
    names: &[String],
    is_utf8: bool,
) -> Result<(), StageError> {
    check_quotes(config, text, record, reader.position())?;
    if record.len() != names.len() {
        let line = raw_record(text, record, reader.position()).1;
        let source = if config.header { "the header" } else { "the first row" };
        let detail = format!("it has {}, {source} has {}", fields(record.len()), names.len());
        return Err(config.wrong_row(line, None, detail));
    }
    if is_utf8 {
        return Ok(());
    }
    match record.iter().position(|field| std::str::from_utf8(field).is_err()) {
        None => Ok(()),
        Some(at) => {
            let line = raw_record(text, record, reader.position()).1;
            Err(config.wrong_row(line, Some(&names[at]), format!("the value {NOT_UTF8}")))
        }
    }
}

/// The reader takes any quotes as they come. A text that ends within them has lost its end or has a stray quote, and
/// text behind a closing quote would be joined to the field.
fn check_quotes(config: &ReadConfig, text: &[u8], record: &ByteRecord, end: &Position) -> Result<(), StageError> {
    let (raw, line) = raw_record(text, record, end);
    if !raw.contains(&b'"') {
        return Ok(());
    }
    match walk_quotes(raw, config.delimiter as u8, |_| ()) {
        Quoting::Closed => Ok(()),
        Quoting::Open => Err(config.wrong_row(line, None, "a quote is opened in this row and never closed")),
        Quoting::Stray => Err(config.wrong_row(line, None, "text follows the quote that closes a field")),
    }
}

/// How the quotes of a record end.
#[derive(Debug, PartialEq, Eq)]
enum Quoting {
    Closed,
    Open,
    Stray,
}

/// Goes through the fields of a record and tells of each whether it is quoted.
fn walk_quotes(raw: &[u8], delimiter: u8, mut field: impl FnMut(bool)) -> Quoting {
    let mut rest = raw;
    loop {
        let is_quoted = rest.first() == Some(&b'"');
        field(is_quoted);
        if is_quoted {
            match after_quotes(&rest[1..]) {
                Some([]) => return Quoting::Closed,
                Some([byte, after @ ..]) if *byte == delimiter => rest = after,
                Some([b'\r' | b'\n', ..]) => return Quoting::Closed,
                Some(_) => return Quoting::Stray,
                None => return Quoting::Open,
            }
            continue;
        }
        match rest.iter().position(|byte| *byte == delimiter) {
            Some(at) => rest = &rest[at + 1..],
            None => return Quoting::Closed,
        }
    }
}

/// What follows the quote that closes a field; a doubled one does not.
fn after_quotes(mut rest: &[u8]) -> Option<&[u8]> {
    loop {
        let at = rest.iter().position(|byte| *byte == b'"')?;
        rest = &rest[at + 1..];
        match rest.strip_prefix(b"\"") {
            Some(after) => rest = after,
            None => return Some(rest),
        }
    }
}

fn infer(
    config: &ReadConfig,
    parts: &[Part],
    targets: &[Target],
    nulls: &BTreeSet<&str>,
) -> Result<Vec<DataType>, StageError> {
    let seen: Vec<_> = parts.par_iter().map(|part| infer_part(config, part, targets, nulls)).collect();
    let mut all = vec![Possible::ALL; targets.len()];
    for part in seen {
        all.iter_mut().zip(part?).for_each(|(all, part)| *all = all.and(part));
    }
    let types = targets.iter().zip(all);
    Ok(types.map(|(target, possible)| target.asked.clone().unwrap_or_else(|| possible.resolve())).collect())
}

fn infer_part(
    config: &ReadConfig,
    part: &Part,
    targets: &[Target],
    nulls: &BTreeSet<&str>,
) -> Result<Vec<Possible>, StageError> {
    let mut possible = vec![Possible::ALL; targets.len()];
    let (mut reader, mut record) = (reader(config, part.text), ByteRecord::new());
    while next(config, &mut reader, &mut record)? {
        for (target, possible) in targets.iter().zip(&mut possible) {
            if possible.is_text() || target.asked.is_some() {
                continue;
            }
            let text = utf8(config, &record[target.field])?;
            if !text.is_empty() && !nulls.contains(text) {
                *possible = possible.and(Possible::of(text));
            }
        }
    }
    Ok(possible)
}

/// The first pass has found every field to be UTF-8.
fn utf8<'a>(config: &ReadConfig, field: &'a [u8]) -> Result<&'a str, StageError> {
    std::str::from_utf8(field).map_err(|_| config.wrong_file("a value is not valid UTF-8"))
}

fn fill(
    config: &ReadConfig,
    part: &Part,
    targets: &[Target],
    types: &[DataType],
    nulls: &BTreeSet<&str>,
) -> Result<Vec<Series>, StageError> {
    let mut builders: Vec<Builder> = types.iter().map(|dtype| Builder::new(dtype, part.rows)).collect();
    let (mut reader, mut record) = (reader(config, part.text), ByteRecord::new());
    while next(config, &mut reader, &mut record)? {
        let mut quoted = None;
        for (target, builder) in targets.iter().zip(&mut builders) {
            let text = utf8(config, &record[target.field])?;
            if nulls.contains(text) {
                builder.push_null();
            } else if !text.is_empty() {
                builder.push(text).map_err(|detail| {
                    let line = raw_record(part.text, &record, reader.position()).1 + part.line - 1;
                    config.wrong_row(line, Some(&target.name), detail)
                })?;
            } else if builder.is_text() && is_quoted(&mut quoted, config, part, &record, &reader, target.field) {
                builder.push("").map_err(|detail| config.wrong_file(detail))?;
            } else {
                builder.push_null();
            }
        }
    }
    let failed = |error: PolarsError| StageError::Library { what: "polars", detail: error.to_string() };
    builders.into_iter().map(|builder| builder.finish().map_err(failed)).collect()
}

/// The reader does not tell a quoted empty field from an empty one, so the record's own bytes are asked, once a record.
fn is_quoted(
    quoted: &mut Option<Vec<bool>>,
    config: &ReadConfig,
    part: &Part,
    record: &ByteRecord,
    reader: &Reader<&[u8]>,
    field: usize,
) -> bool {
    let of_record = || {
        let mut quoted = Vec::with_capacity(record.len());
        let raw = raw_record(part.text, record, reader.position()).0;
        walk_quotes(raw, config.delimiter as u8, |is_quoted| quoted.push(is_quoted));
        quoted
    };
    quoted.get_or_insert_with(of_record).get(field).copied().unwrap_or(false)
}

/// The first error in file order, or the parts one below the other.
fn assemble(targets: &[Target], parts: Vec<Result<Vec<Series>, StageError>>) -> Result<DataFrame, StageError> {
    let failed = |error: PolarsError| StageError::Library { what: "polars", detail: error.to_string() };
    let mut columns: Vec<Series> = Vec::new();
    for part in parts {
        let part = part?;
        if columns.is_empty() {
            columns = part;
            continue;
        }
        for (column, more) in columns.iter_mut().zip(&part) {
            column.append(more).map_err(failed)?;
        }
    }
    let height = columns.first().map_or(0, |column| column.len());
    let named =
        columns.into_iter().zip(targets).map(|(column, target)| column.with_name(target.name.as_str().into()).into());
    DataFrame::new(height, named.collect()).map_err(failed)
}
