//! `frame`: a table as a tree of columns, and its one encoding.
//!
//! Each column is a blob of its own (Arrow IPC file, one chunk, no compression, column name left out), so frames that
//! share a column share its bytes. The header is `rows N`, or `rows N prepared MARK` for what a transform gave, whose
//! [`Mark`] it bears. A frame may carry an entry [`ROWS`], the indices of its rows
//! within longer shared columns: a split copies no column. Decoding a column shares its blob's memory, decoding under
//! `:rows` copies the chosen rows. This file does not know what a frame is used for.
//!
//! Invariant: equal columns have equal bytes. A column is made canonical before it is encoded: one chunk at offset 0,
//! zeros under nulls, no bitmap when nothing is null, one NaN, categories as their text.

use polars::prelude::*;
use polars_arrow::array::{Array, BooleanArray, MutableBinaryViewArray};
use polars_arrow::bitmap::Bitmap;

use crate::io::{Bytes, DraftTree, EntryHead, Stored};
use crate::{StageError, column};

/// The entry that holds the row indices (`u32`) of a frame over longer columns.
pub const ROWS: &str = ":rows";

/// Tells what one transform gave from what another did, and from what none did: 16 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    /// The mark of an encoded transform.
    pub fn of(transform: &[u8]) -> Self {
        Self(blake3::hash(transform).to_hex()[..16].to_owned())
    }

    fn parse(text: &str) -> Option<Self> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        (text.len() == 16 && text.bytes().all(is_digit)).then(|| Self(text.into()))
    }
}

/// A header and the mark behind it, if there is one.
pub(crate) fn with_mark(header: String, mark: Option<&Mark>) -> String {
    match mark {
        Some(mark) => format!("{header}{PREPARED}{}", mark.0),
        None => header,
    }
}

/// Takes a header and its mark apart; `None` if what stands there is no mark.
pub(crate) fn split_mark(header: &str) -> Option<(&str, Option<Mark>)> {
    match header.split_once(PREPARED) {
        Some((before, mark)) => Mark::parse(mark).map(|mark| (before, Some(mark))),
        None => Some((header, None)),
    }
}

const PREPARED: &str = " prepared ";

/// Names and types of a frame's columns, as its header tells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    pub rows: u64,
    /// Of the transform that gave the frame, if one did.
    pub mark: Option<Mark>,
    pub columns: Vec<EntryHead>,
}

impl Schema {
    /// Reads a schema from header and entries alone.
    ///
    /// # Errors
    /// [`StageError::Decode`] if the header is not a frame's.
    pub fn new(header: &str, entries: &[EntryHead]) -> Result<Self, StageError> {
        let parsed =
            split_mark(header).and_then(|(rows, mark)| Some((rows.strip_prefix("rows ")?.parse().ok()?, mark)));
        let (rows, mark) =
            parsed.ok_or_else(|| StageError::Decode { what: "frame".into(), detail: format!("header `{header}`") })?;
        let columns = entries.iter().filter(|entry| entry.name != ROWS).cloned().collect();
        Ok(Self { rows, mark, columns })
    }

    /// The schema of a stored frame.
    ///
    /// # Errors
    /// As [`Schema::new`], and if the header claims more rows than there is a bit for: a kind that reads no column goes by
    /// that number alone.
    pub fn of(stored: &dyn Stored) -> Result<Self, StageError> {
        let schema = Self::new(stored.header(), stored.entries())?;
        if schema.rows.div_ceil(8) > stored.length() {
            return Err(mismatch(&format!("{} bytes cannot hold {} rows", stored.length(), schema.rows)));
        }
        Ok(schema)
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
    encode_marked(frame, None)
}

/// As [`encode`], with the mark of the transform that gave the frame.
///
/// # Errors
/// As [`encode`].
pub fn encode_marked(frame: &DataFrame, mark: Option<&Mark>) -> Result<DraftTree, StageError> {
    let mut tree = DraftTree::new(with_mark(format!("rows {}", frame.height()), mark));
    for (at, column) in frame.columns().iter().enumerate() {
        let name = column.name().as_str();
        if name.is_empty() {
            return Err(StageError::UnnamedColumn { number: at + 1 });
        }
        if name == ROWS {
            return Err(StageError::ReservedColumn { name: name.into() });
        }
        let canonical = canonical(column)?;
        let stored_type = type_name(canonical.dtype()).ok_or_else(|| unsupported(column))?;
        tree.push(name, stored_type, encode_column(canonical)?);
    }
    Ok(tree)
}

/// A frame's row selection, to be laid over the columns of another, whose mark it keeps: header and the entry [`ROWS`].
///
/// # Errors
/// Only if encoding fails.
pub fn encode_rows(rows: Vec<u32>, mark: Option<&Mark>) -> Result<DraftTree, StageError> {
    let mut tree = DraftTree::new(with_mark(format!("rows {}", rows.len()), mark));
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
        let mut column = decode_column(name, &stored.entry(name)?)?;
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

/// The row selection of a stored frame, if it carries one: as many rows as the frame has, none of them null.
///
/// # Errors
/// If the entry is missing, damaged, or of another length than the header says.
pub fn decode_rows(stored: &dyn Stored) -> Result<Option<IdxCa>, StageError> {
    if !stored.entries().iter().any(|entry| entry.name == ROWS) {
        return Ok(None);
    }
    let rows = decode_column(ROWS, &stored.entry(ROWS)?)?;
    let rows = rows.idx().map_err(|error| mismatch(&error.to_string()))?;
    if rows.null_count() > 0 {
        return Err(mismatch("the row selection has nulls"));
    }
    let height = Schema::of(stored)?.rows;
    if rows.len() as u64 != height {
        return Err(mismatch(&format!("the row selection has {} rows, the header says {height}", rows.len())));
    }
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

fn decode_column(name: &str, blob: &Bytes) -> Result<Series, StageError> {
    column::decode(blob).map_err(|detail| mismatch(&format!("column `{name}`: {detail}")))
}

/// The one representation of a column's content. What is canonical already is shared, not copied.
fn canonical(column: &Column) -> Result<Series, StageError> {
    let series = column.as_materialized_series();
    let as_stored = match series.dtype() {
        DataType::Categorical(..) | DataType::Enum(..) | DataType::Null => {
            series.cast(&DataType::String).map_err(|error| StageError::Encode { detail: error.to_string() })?
        }
        _ => series.clone(),
    };
    let dtype = as_stored.dtype().clone();
    if type_name(&dtype).is_none() {
        return Err(unsupported(column));
    }
    let physical = as_stored.to_physical_repr().rechunk();
    tidy(&physical)
        .and_then(|tidied| tidied.cast(&dtype))
        .map_err(|error| StageError::Encode { detail: error.to_string() })
}

/// One chunk at offset 0, zeros under nulls, no bitmap without nulls, no bits behind a bitmap's end, one NaN.
fn tidy(physical: &Series) -> PolarsResult<Series> {
    macro_rules! integers {
        ($get:ident) => {
            tidy_numbers(physical.$get()?, |_| false, 0, |value| value == 0)
        };
    }
    Ok(match physical.dtype() {
        DataType::Boolean => tidy_booleans(physical.bool()?),
        DataType::String => tidy_strings(physical.str()?),
        DataType::Float32 => {
            let odd = |value: f32| value.is_nan() && value.to_bits() != f32::NAN.to_bits();
            tidy_numbers(physical.f32()?, odd, f32::NAN, |value| value.to_bits() == 0)
        }
        DataType::Float64 => {
            let odd = |value: f64| value.is_nan() && value.to_bits() != f64::NAN.to_bits();
            tidy_numbers(physical.f64()?, odd, f64::NAN, |value| value.to_bits() == 0)
        }
        DataType::Int8 => integers!(i8),
        DataType::Int16 => integers!(i16),
        DataType::Int32 => integers!(i32),
        DataType::Int64 => integers!(i64),
        DataType::UInt8 => integers!(u8),
        DataType::UInt16 => integers!(u16),
        DataType::UInt32 => integers!(u32),
        DataType::UInt64 => integers!(u64),
        other => polars_bail!(InvalidOperation: "{other} has no canonical form"),
    })
}

/// No bitmap if nothing is null. Bits behind a bitmap's end, which slices and some of polars' builders leave set, would
/// be written with it.
fn tidy_validity(validity: Option<&Bitmap>) -> Option<Bitmap> {
    validity.filter(|bitmap| bitmap.unset_bits() > 0).map(tidy_bitmap)
}

fn tidy_bitmap(bitmap: &Bitmap) -> Bitmap {
    let (bytes, offset, bits) = bitmap.as_slice();
    let spare_is_zero = bits.is_multiple_of(8) || bytes.last().is_none_or(|last| last >> (bits % 8) == 0);
    if offset == 0 && spare_is_zero { bitmap.clone() } else { pack(bitmap.iter(), bits) }
}

fn pack(bits: impl Iterator<Item = bool>, count: usize) -> Bitmap {
    let mut bytes = vec![0; count.div_ceil(8)];
    for (at, _) in bits.enumerate().filter(|(_, bit)| *bit) {
        bytes[at / 8] |= 1 << (at % 8);
    }
    Bitmap::from_u8_vec(bytes, count)
}

fn tidy_numbers<T: PolarsNumericType>(
    numbers: &ChunkedArray<T>,
    is_odd_nan: impl Fn(T::Native) -> bool,
    nan: T::Native,
    is_zero: impl Fn(T::Native) -> bool,
) -> Series
where
    ChunkedArray<T>: IntoSeries,
{
    let array = numbers.downcast_iter().next().expect("a rechunked column has one chunk");
    let values = array.values();
    let validity = tidy_validity(array.validity());
    let one_nan = |value: &T::Native| if is_odd_nan(*value) { nan } else { *value };
    let is_tidy = match &validity {
        None => !values.iter().any(|value| is_odd_nan(*value)),
        Some(bits) => {
            values.iter().zip(bits).all(|(value, valid)| if valid { !is_odd_nan(*value) } else { is_zero(*value) })
        }
    };
    if is_tidy {
        return ChunkedArray::<T>::with_chunk(PlSmallStr::EMPTY, array.clone().with_validity(validity)).into_series();
    }
    let values = match &validity {
        None => values.iter().map(one_nan).collect(),
        Some(bits) => values
            .iter()
            .zip(bits)
            .map(|(value, valid)| if valid { one_nan(value) } else { Default::default() })
            .collect(),
    };
    ChunkedArray::<T>::from_vec_validity(PlSmallStr::EMPTY, values, validity).into_series()
}

fn tidy_strings(strings: &StringChunked) -> Series {
    let array = strings.downcast_iter().next().expect("a rechunked column has one chunk");
    let validity = tidy_validity(array.validity());
    let is_tidy = validity
        .as_ref()
        .is_none_or(|bits| array.views().iter().zip(bits).all(|(view, valid)| valid || view.length == 0));
    let array = if is_tidy {
        array.clone()
    } else {
        MutableBinaryViewArray::<str>::from_values_iter(strings.iter().map(Option::unwrap_or_default)).freeze()
    };
    StringChunked::with_chunk(PlSmallStr::EMPTY, array.with_validity(validity)).into_series()
}

fn tidy_booleans(booleans: &BooleanChunked) -> Series {
    let array = booleans.downcast_iter().next().expect("a rechunked column has one chunk");
    let validity = tidy_validity(array.validity());
    let is_tidy =
        validity.as_ref().is_none_or(|bits| array.values().iter().zip(bits).all(|(value, valid)| valid || !value));
    let values = match (&validity, is_tidy) {
        (Some(bits), false) => pack(array.values().iter().zip(bits).map(|(value, valid)| value && valid), array.len()),
        _ => tidy_bitmap(array.values()),
    };
    BooleanChunked::with_chunk(PlSmallStr::EMPTY, BooleanArray::new(ArrowDataType::Boolean, values, validity))
        .into_series()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop_assert_eq, prop_oneof, proptest};

    use super::*;
    use crate::io::Draft;
    use crate::kind::artifact;

    fn bytes_of(series: Series) -> Vec<u8> {
        let tree = encode(&frame(vec![series])).expect("encodes");
        tree.into_entries().next().expect("one column").1
    }

    fn frame(columns: Vec<Series>) -> DataFrame {
        let height = columns.first().map_or(0, |column| column.len());
        DataFrame::new(height, columns.into_iter().map(Into::into).collect()).expect("equal lengths")
    }

    fn round_trip(frame: &DataFrame) -> DataFrame {
        decode(&Draft::tree(artifact::FRAME, encode(frame).expect("encodes"))).expect("decodes")
    }

    /// The values of `kept`, the rest null, with whatever `values` holds left lying under the nulls.
    fn dirty(values: Vec<i64>, kept: &[bool]) -> Series {
        let bits = kept.iter().copied().collect::<BooleanChunked>();
        let bitmap = bits.downcast_iter().next().expect("one chunk").values().clone();
        Int64Chunked::from_vec_validity("x".into(), values, Some(bitmap)).into_series()
    }

    #[test]
    fn bytes_under_nulls_do_not_count() {
        let clean = Series::new("x".into(), [Some(1_i64), None, Some(3)]);
        assert_eq!(bytes_of(dirty(vec![1, 77, 3], &[true, false, true])), bytes_of(clean.clone()));
        assert_eq!(bytes_of(dirty(vec![1, 0, 3], &[true, false, true])), bytes_of(clean));
    }

    #[test]
    fn a_bitmap_without_nulls_does_not_count() {
        assert_eq!(bytes_of(dirty(vec![1, 2], &[true, true])), bytes_of(Series::new("x".into(), [1_i64, 2])));
        let sliced = Series::new("x".into(), [Some("a"), Some("b"), None]).slice(0, 2);
        assert_eq!(bytes_of(sliced), bytes_of(Series::new("x".into(), ["a", "b"])));
        let sliced = Series::new("x".into(), [Some(true), Some(false), None]).slice(0, 2);
        assert_eq!(bytes_of(sliced), bytes_of(Series::new("x".into(), [true, false])));
    }

    #[test]
    fn nan_payloads_and_signs_do_not_count_but_the_sign_of_zero_does() {
        let odd = f64::from_bits(0xFFF8_0000_0000_0123);
        assert_eq!(bytes_of(Series::new("x".into(), [odd, 1.0])), bytes_of(Series::new("x".into(), [f64::NAN, 1.0])));
        let with_null = Series::new("x".into(), [Some(odd), None]);
        assert_eq!(bytes_of(with_null), bytes_of(Series::new("x".into(), [Some(f64::NAN), None])));
        let odd = f32::from_bits(0xFFC0_0123);
        assert_eq!(bytes_of(Series::new("x".into(), [odd])), bytes_of(Series::new("x".into(), [f32::NAN])));
        assert_ne!(bytes_of(Series::new("x".into(), [-0.0])), bytes_of(Series::new("x".into(), [0.0])));
    }

    #[test]
    fn slices_and_chunks_do_not_count() {
        let long: Vec<Option<bool>> = (0..40).map(|n| (n % 5 != 0).then_some(n % 3 == 0)).collect();
        for (from, len) in [(0, 13), (3, 13), (8, 13), (9, 16), (1, 3)] {
            let sliced = Series::new("x".into(), &long).slice(from as i64, len);
            assert_eq!(bytes_of(sliced), bytes_of(Series::new("x".into(), &long[from..from + len])), "{from}, {len}");
        }
        let mut chunked = Series::new("x".into(), [Some("a"), None]);
        chunked.append(&Series::new("x".into(), [Some("a text longer than twelve bytes"), None])).expect("same type");
        let whole = Series::new("x".into(), [Some("a"), None, Some("a text longer than twelve bytes"), None]);
        assert_eq!(bytes_of(chunked), bytes_of(whole));
    }

    #[test]
    fn an_empty_column_has_one_encoding() {
        let empty = Series::new_empty("x".into(), &DataType::Int64);
        assert_eq!(bytes_of(Series::new("x".into(), [1_i64, 2]).slice(1, 0)), bytes_of(empty.clone()));
        assert_eq!(round_trip(&frame(vec![empty])).height(), 0);
    }

    #[test]
    fn categories_are_stored_as_their_text() {
        let text = Series::new("x".into(), [Some("b"), None, Some("a")]);
        let categorical = text.cast(&DataType::from_categories(Categories::global())).expect("casts");
        assert_eq!(bytes_of(categorical), bytes_of(text));
    }

    #[test]
    fn every_type_round_trips_and_names_itself() {
        let names = "bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 date duration[ns] duration[us] duration[ms] \
                     datetime[ns] datetime[us] datetime[ms] time str";
        let numbers = Series::new("".into(), [Some(0_i64), None, Some(1)]);
        let columns = names.split(' ').map(|name| {
            let dtype = parse_type(name).expect("known");
            assert_eq!(type_name(&dtype).as_deref(), Some(name));
            let typed = if name == "date" { numbers.cast(&DataType::Int32) } else { Ok(numbers.clone()) };
            typed.and_then(|typed| typed.cast(&dtype)).expect("casts").with_name(name.into())
        });
        let frame = frame(columns.collect());
        assert!(round_trip(&frame).equals_missing(&frame));
        let zoned = DataType::Datetime(TimeUnit::Microseconds, Some(TimeZone::UTC));
        let zoned = self::tests::frame(vec![numbers.cast(&zoned).expect("casts").with_name("z".into())]);
        assert!(round_trip(&zoned).equals_missing(&zoned));
        assert_eq!(type_name(zoned.columns()[0].dtype()).as_deref(), Some("datetime[us, UTC]"));
    }

    #[test]
    fn what_a_frame_cannot_hold_is_named() {
        let list = Series::new("l".into(), [Series::new("".into(), [1_i64])]);
        let error = encode(&frame(vec![list])).expect_err("a list").to_string();
        assert!(error.starts_with("column `l` has the type list[i64], which a frame cannot hold"), "{error}");
        let error = encode(&frame(vec![Series::new("".into(), [1])])).expect_err("no name");
        assert_eq!(error.to_string(), "column 1 has no name; name every column");
        let error = encode(&frame(vec![Series::new(ROWS.into(), [1])])).expect_err("reserved");
        assert_eq!(error.to_string(), "a column may not be named `:rows`: that name is taken by Headwater");
    }

    /// A frame's columns under a row selection, as the engine composes them.
    fn selected(frame: &DataFrame, rows: Vec<u32>) -> Draft {
        let mut tree = encode_rows(rows, None).expect("encodes");
        for (head, bytes) in encode(frame).expect("encodes").into_entries() {
            tree.push(head.name, head.type_name, bytes);
        }
        Draft::tree(artifact::FRAME, tree)
    }

    #[test]
    fn a_row_selection_gathers() {
        let whole = frame(vec![Series::new("x".into(), [10_i64, 20, 30]), Series::new("s".into(), ["a", "b", "c"])]);
        let picked = decode(&selected(&whole, vec![2, 0])).expect("decodes");
        let expected = frame(vec![Series::new("x".into(), [30_i64, 10]), Series::new("s".into(), ["c", "a"])]);
        assert!(picked.equals(&expected));
        let error = decode(&selected(&whole, vec![3])).expect_err("out of bounds").to_string();
        assert!(error.starts_with("frame cannot be decoded"), "{error}");
    }

    #[test]
    fn a_count_that_is_not_the_columns_is_damage() {
        let mut tree = encode(&frame(vec![Series::new("x".into(), [1_i64, 2])])).expect("encodes");
        tree.header = "rows 3".into();
        let error = decode(&Draft::tree(artifact::FRAME, tree)).expect_err("two rows");
        assert_eq!(error.to_string(), "frame cannot be decoded: column `x` has 2 rows, the header says 3");
    }

    #[test]
    fn a_header_bears_the_mark_of_a_transform() {
        let mark = Mark::of(b"a transform");
        let frame = DataFrame::new(2, vec![Column::new("a".into(), [1i64, 2])]).unwrap();
        let tree = encode_marked(&frame, Some(&mark)).unwrap();
        assert_eq!(tree.header, format!("rows 2 prepared {}", &blake3::hash(b"a transform").to_hex()[..16]));
        let schema = Schema::new(&tree.header, &[]).unwrap();
        assert_eq!((schema.rows, schema.mark), (2, Some(mark)));
        assert_eq!(Schema::new("rows 2", &[]).unwrap().mark, None);
        for header in
            ["rows 2 prepared ", "rows 2 prepared 0123456789ABCDEF", "rows 2 prepared 0123", "rows 2 ", "rows"]
        {
            let error = Schema::new(header, &[]).unwrap_err().to_string();
            assert_eq!(error, format!("frame cannot be decoded: header `{header}`"));
        }
    }

    #[test]
    fn the_bytes_of_a_column_are_pinned() {
        let digest = |series| blake3::hash(&bytes_of(series)).to_hex().to_string();
        pinned(
            &digest(Series::new("x".into(), [Some(1.5), None, Some(f64::NAN)])),
            "5673e409030783671a2e76a6a092a9b5d6812e5f585e03c9debf11ff1e1ee9b7",
        );
        pinned(
            &digest(Series::new("x".into(), [Some("a"), None, Some("")])),
            "6bc07ffa0ab4a93d392c9661cd31cc5541471768c4066baefae3225d061049a6",
        );
    }

    fn pinned(found: &str, expected: &str) {
        assert_eq!(found, expected, "the encoding changed: raise the version of every kind that writes frames");
    }

    fn any_float() -> impl Strategy<Value = Option<f64>> {
        prop_oneof![Just(None), any::<u64>().prop_map(|bits| Some(f64::from_bits(bits))), Just(Some(f64::NAN))]
    }

    proptest! {
        #[test]
        fn frames_round_trip_however_they_are_cut(
            rows in proptest::collection::vec((any_float(), any::<Option<String>>(), any::<Option<bool>>(), any::<Option<i16>>()), 0..40),
            cut in 0_usize..40,
        ) {
            let floats: Vec<_> = rows.iter().map(|row| row.0).collect();
            let texts: Vec<_> = rows.iter().map(|row| row.1.clone()).collect();
            let flags: Vec<_> = rows.iter().map(|row| row.2).collect();
            let shorts: Vec<_> = rows.iter().map(|row| row.3).collect();
            let whole = frame(vec![
                Series::new("f".into(), floats),
                Series::new("t".into(), texts),
                Series::new("b".into(), flags),
                Series::new("i".into(), shorts),
            ]);
            prop_assert_eq!(round_trip(&whole).equals_missing(&whole), true);
            let cut = cut.min(whole.height());
            let mut glued = whole.slice(0, cut);
            glued.vstack_mut(&whole.slice(cut as i64, whole.height() - cut)).expect("same schema");
            prop_assert_eq!(encode(&glued).expect("encodes"), encode(&whole).expect("encodes"));
            let again = round_trip(&whole);
            prop_assert_eq!(encode(&again).expect("encodes"), encode(&whole).expect("encodes"));
            let tail = whole.slice(cut as i64, whole.height() - cut);
            let fresh = whole.take(&IdxCa::from_vec("".into(), (cut as u32..whole.height() as u32).collect())).expect("in bounds");
            prop_assert_eq!(encode(&tail).expect("encodes"), encode(&fresh).expect("encodes"));
        }
    }
}
