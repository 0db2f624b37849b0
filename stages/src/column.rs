//! A column's blob -> a series that shares the blob's memory.
//!
//! A blob is an Arrow IPC file of one column as `frame.rs` writes it. Numbers and texts are used where they lie, be that
//! a mapped file; only bitmaps, a 64th of a column of numbers, are copied. This file does not know names, frames or
//! stores.
//!
//! Invariant: that a blob has the right digest says nothing of who made it. No length, offset or text in it is believed
//! before it is checked: whatever the bytes are, the result is an error or a column that polars may use in any way. The
//! checks are those of safe constructors; nothing here is `unsafe`.

use std::marker::PhantomData;
use std::ops::Range;

use polars::prelude::*;
use polars_arrow::array::{BooleanArray, PrimitiveArray, Utf8Array};
use polars_arrow::bitmap::Bitmap;
use polars_arrow::io::ipc::format::ipc::planus::{ReadAsRoot, Vector};
use polars_arrow::io::ipc::format::ipc::{
    BlockRef, BufferRef, DateUnit, Endianness, FieldRef, FooterRef, IntRef, MessageHeaderRef, MessageRef, Precision,
    RecordBatchRef, TimeUnit as Unit, TypeRef,
};
use polars_arrow::offset::OffsetsBuffer;
use polars_arrow::types::NativeType;
use polars_buffer::Buffer;

use crate::io::Bytes;

/// What the file ends with.
const MAGIC: &[u8] = b"ARROW1";
/// What a message begins with.
const CONTINUATION: [u8; 4] = [0xFF; 4];

/// What is wrong with a blob, in words.
type Checked<T> = Result<T, String>;

/// The column in a blob, without a name.
///
/// # Errors
/// If the bytes are anything else than one column, in one chunk, of a type that a frame can hold.
pub(crate) fn decode(blob: &Bytes) -> Checked<Series> {
    if cfg!(target_endian = "big") {
        return Err("columns are little-endian, this machine is not".into());
    }
    let footer = footer(blob)?;
    let dtype = dtype(field(&footer)?)?;
    let blocks = present(footer.record_batches(), "list of chunks")?;
    match (blocks.len(), blocks.first()) {
        (0, _) => Ok(Series::new_empty(PlSmallStr::EMPTY, &dtype)),
        (1, Some(block)) => Chunk::new(blob, block)?.series(dtype),
        (chunks, _) => Err(format!("it has {chunks} chunks, expected one")),
    }
}

/// The footer, which tells the type and where the chunk lies.
fn footer(blob: &[u8]) -> Checked<FooterRef<'_>> {
    let damaged = || "it does not end as an Arrow file".to_owned();
    let (rest, length) = blob.strip_suffix(MAGIC).and_then(|rest| rest.split_last_chunk()).ok_or_else(damaged)?;
    let length = number(i32::from_le_bytes(*length))?;
    let at = rest.len().checked_sub(length).ok_or_else(damaged)?;
    FooterRef::read_as_root(&rest[at..]).map_err(|error| error.to_string())
}

fn field<'a>(footer: &FooterRef<'a>) -> Checked<FieldRef<'a>> {
    let schema = present(footer.schema(), "schema")?;
    if schema.endianness().map_err(|error| error.to_string())? != Endianness::Little {
        return Err("its numbers are big-endian".into());
    }
    let fields = present(schema.fields(), "field")?;
    match (fields.len(), fields.first()) {
        (1, Some(field)) => field.map_err(|error| error.to_string()),
        (columns, _) => Err(format!("it holds {columns} columns, expected one")),
    }
}

/// The type of a field; only those that a frame can hold.
fn dtype(field: FieldRef<'_>) -> Checked<DataType> {
    let foreign = || Err("it holds a type that no frame has".to_owned());
    if field.dictionary().map_err(|error| error.to_string())?.is_some() {
        return foreign();
    }
    let failed = |error: polars_arrow::io::ipc::format::ipc::planus::Error| error.to_string();
    Ok(match present(field.type_(), "type")? {
        TypeRef::Bool(_) => DataType::Boolean,
        TypeRef::LargeUtf8(_) => DataType::String,
        TypeRef::Int(int) => integer(int)?,
        TypeRef::FloatingPoint(float) => match float.precision().map_err(failed)? {
            Precision::Single => DataType::Float32,
            Precision::Double => DataType::Float64,
            Precision::Half => return foreign(),
        },
        TypeRef::Date(date) => match date.unit().map_err(failed)? {
            DateUnit::Day => DataType::Date,
            DateUnit::Millisecond => return foreign(),
        },
        TypeRef::Time(time) => match (time.bit_width().map_err(failed)?, time.unit().map_err(failed)?) {
            (64, Unit::Nanosecond) => DataType::Time,
            _ => return foreign(),
        },
        TypeRef::Duration(duration) => DataType::Duration(unit(duration.unit().map_err(failed)?)?),
        TypeRef::Timestamp(time) => {
            let zone = TimeZone::opt_try_new(time.timezone().map_err(failed)?).map_err(|error| error.to_string())?;
            DataType::Datetime(unit(time.unit().map_err(failed)?)?, zone)
        }
        _ => return foreign(),
    })
}

fn integer(int: IntRef<'_>) -> Checked<DataType> {
    let width = int.bit_width().map_err(|error| error.to_string())?;
    Ok(match (width, int.is_signed().map_err(|error| error.to_string())?) {
        (8, true) => DataType::Int8,
        (16, true) => DataType::Int16,
        (32, true) => DataType::Int32,
        (64, true) => DataType::Int64,
        (8, false) => DataType::UInt8,
        (16, false) => DataType::UInt16,
        (32, false) => DataType::UInt32,
        (64, false) => DataType::UInt64,
        (width, _) => return Err(format!("it holds integers of {width} bits")),
    })
}

fn unit(unit: Unit) -> Checked<TimeUnit> {
    match unit {
        Unit::Nanosecond => Ok(TimeUnit::Nanoseconds),
        Unit::Microsecond => Ok(TimeUnit::Microseconds),
        Unit::Millisecond => Ok(TimeUnit::Milliseconds),
        Unit::Second => Err("it counts time in seconds, which no frame does".into()),
    }
}

/// The one chunk of a column.
struct Chunk<'a> {
    blob: &'a Bytes,
    rows: usize,
    has_nulls: bool,
    /// Where the buffers lie in the blob.
    body: Range<usize>,
    buffers: Vector<'a, BufferRef<'a>>,
}

impl<'a> Chunk<'a> {
    fn new(blob: &'a Bytes, block: BlockRef<'_>) -> Checked<Self> {
        let head = range(number(block.offset())?, number(block.meta_data_length())?, blob.len())?;
        let body = range(head.end, number(block.body_length())?, blob.len())?;
        let batch = batch(&blob[head])?;
        let nodes = present(batch.nodes(), "row count")?;
        let (1, Some(node)) = (nodes.len(), nodes.first()) else {
            return Err(format!("its chunk has {} columns, expected one", nodes.len()));
        };
        let rows = number(node.length())?;
        if IdxSize::try_from(rows).is_err() {
            return Err(format!("it has {rows} rows, more than a frame can have"));
        }
        if batch.length().ok().map(number) != Some(Ok(rows)) {
            return Err("its chunk and its column differ in length".into());
        }
        let buffers = present(batch.buffers(), "list of buffers")?;
        Ok(Self { blob, rows, has_nulls: node.null_count() != 0, body, buffers })
    }

    fn series(&self, dtype: DataType) -> Checked<Series> {
        Ok(match dtype {
            DataType::Boolean => {
                let array = BooleanArray::try_new(ArrowDataType::Boolean, self.bits(1)?, self.validity()?);
                BooleanChunked::with_chunk(PlSmallStr::EMPTY, array.map_err(text)?).into_series()
            }
            DataType::String => self.texts()?,
            DataType::Int8 => self.numbers::<Int8Type>()?.into_series(),
            DataType::Int16 => self.numbers::<Int16Type>()?.into_series(),
            DataType::Int32 => self.numbers::<Int32Type>()?.into_series(),
            DataType::Int64 => self.numbers::<Int64Type>()?.into_series(),
            DataType::UInt8 => self.numbers::<UInt8Type>()?.into_series(),
            DataType::UInt16 => self.numbers::<UInt16Type>()?.into_series(),
            DataType::UInt32 => self.numbers::<UInt32Type>()?.into_series(),
            DataType::UInt64 => self.numbers::<UInt64Type>()?.into_series(),
            DataType::Float32 => self.numbers::<Float32Type>()?.into_series(),
            DataType::Float64 => self.numbers::<Float64Type>()?.into_series(),
            DataType::Date => self.numbers::<Int32Type>()?.into_date().into_series(),
            DataType::Time => self.numbers::<Int64Type>()?.into_time().into_series(),
            DataType::Duration(unit) => self.numbers::<Int64Type>()?.into_duration(unit).into_series(),
            DataType::Datetime(unit, zone) => self.numbers::<Int64Type>()?.into_datetime(unit, zone).into_series(),
            other => return Err(format!("it holds {other}, which no frame does")),
        })
    }

    fn numbers<T: PolarsNumericType>(&self) -> Checked<ChunkedArray<T>>
    where
        PrimitiveArray<T::Native>: StaticArray,
    {
        let values = self.values::<T::Native>(1, self.rows)?;
        let array = PrimitiveArray::try_new(T::Native::PRIMITIVE.into(), values, self.validity()?).map_err(text)?;
        Ok(ChunkedArray::with_chunk(PlSmallStr::EMPTY, array))
    }

    fn texts(&self) -> Checked<Series> {
        if self.rows == 0 {
            return Ok(Series::new_empty(PlSmallStr::EMPTY, &DataType::String));
        }
        let offsets = OffsetsBuffer::try_from(self.values::<i64>(1, self.rows + 1)?).map_err(text)?;
        let letters = self.values::<u8>(2, number(*offsets.last())?)?;
        let array = Utf8Array::try_new(ArrowDataType::LargeUtf8, offsets, letters, self.validity()?).map_err(text)?;
        Series::try_from((PlSmallStr::EMPTY, Box::new(array) as ArrayRef)).map_err(text)
    }

    /// Which rows are not null; `None` if all are not.
    fn validity(&self) -> Checked<Option<Bitmap>> {
        self.has_nulls.then(|| self.bits(0)).transpose()
    }

    /// A copy of a buffer of one bit a row.
    fn bits(&self, at: usize) -> Checked<Bitmap> {
        let all = self.buffer(at)?;
        let used = range(all.start, self.rows.div_ceil(8), all.end)?;
        Bitmap::try_new(self.blob[used].to_vec(), self.rows).map_err(text)
    }

    /// The first `count` values of a buffer. They are shared; copied only if the blob is in memory at an address that
    /// they cannot have.
    fn values<T: NativeType>(&self, at: usize, count: usize) -> Checked<Buffer<T>> {
        let all = self.buffer(at)?;
        let length = count.checked_mul(size_of::<T>()).ok_or_else(outside)?;
        let used = range(all.start, length, all.end)?;
        match bytemuck::try_cast_slice::<u8, T>(&self.blob[used.clone()]) {
            Ok(_) => Ok(Buffer::from_owner(Part { blob: self.blob.clone(), used, of: PhantomData })),
            Err(_) => Ok(bytemuck::pod_collect_to_vec::<u8, T>(&self.blob[used]).into()),
        }
    }

    /// Where a buffer lies in the blob.
    fn buffer(&self, at: usize) -> Checked<Range<usize>> {
        let buffer = self.buffers.get(at).ok_or_else(|| format!("it has no buffer {at}"))?;
        let start = self.body.start.checked_add(number(buffer.offset())?).ok_or_else(outside)?;
        range(start, number(buffer.length())?, self.body.end)
    }
}

/// The values in a part of a blob, whose address fits them.
struct Part<T> {
    blob: Bytes,
    used: Range<usize>,
    of: PhantomData<T>,
}

impl<T: NativeType> AsRef<[T]> for Part<T> {
    fn as_ref(&self) -> &[T] {
        bytemuck::cast_slice(&self.blob[self.used.clone()])
    }
}

/// The chunk's description in the bytes before its buffers.
fn batch(head: &[u8]) -> Checked<RecordBatchRef<'_>> {
    let damaged = || "its chunk does not begin with a message".to_owned();
    let (length, rest) =
        head.strip_prefix(&CONTINUATION).and_then(|rest| rest.split_first_chunk()).ok_or_else(damaged)?;
    let message = rest.get(..number(i32::from_le_bytes(*length))?).ok_or_else(outside)?;
    let message = MessageRef::read_as_root(message).map_err(|error| error.to_string())?;
    let MessageHeaderRef::RecordBatch(batch) = present(message.header(), "message")? else {
        return Err(damaged());
    };
    match batch.compression() {
        Ok(None) => Ok(batch),
        Ok(Some(_)) => Err("it is compressed".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// `length` bytes from `start` on, if they end at or before `end`.
fn range(start: usize, length: usize, end: usize) -> Checked<Range<usize>> {
    let stop = start.checked_add(length).filter(|stop| *stop <= end).ok_or_else(outside)?;
    Ok(start..stop)
}

fn outside() -> String {
    "it refers to bytes that it does not have".into()
}

fn number<N: TryInto<usize>>(number: N) -> Checked<usize> {
    number.try_into().map_err(|_| "it has a negative length".into())
}

fn text(error: PolarsError) -> String {
    error.to_string()
}

/// What must be there.
fn present<T, E: std::fmt::Display>(found: Result<Option<T>, E>, what: &str) -> Checked<T> {
    found.map_err(|error| error.to_string())?.ok_or_else(|| format!("it has no {what}"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use polars_arrow::io::ipc::IpcField;
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;
    use crate::frame;

    fn blob(series: Series) -> Vec<u8> {
        let frame = DataFrame::new(series.len(), vec![series.with_name("x".into()).into()]).expect("a frame");
        frame::encode(&frame).expect("encodes").into_entries().next().expect("one column").1
    }

    /// A column of each encoding, with nulls and without.
    fn columns() -> Vec<Series> {
        let texts = ["", "å", "a text that is longer than twelve bytes", "x", "ð"];
        let numbers = [i64::MIN, -1, 0, 1, i64::MAX];
        let kept = |row: usize| row != 3;
        let mut columns = vec![
            Series::new_empty("".into(), &DataType::String),
            Series::new_empty("".into(), &DataType::Float64),
            Series::new("".into(), texts),
            Series::new(
                "".into(),
                texts.iter().enumerate().map(|(row, text)| kept(row).then_some(*text)).collect::<Vec<_>>(),
            ),
            Series::new("".into(), numbers),
            Series::new(
                "".into(),
                numbers.iter().enumerate().map(|(row, n)| kept(row).then_some(*n)).collect::<Vec<_>>(),
            ),
            Series::new("".into(), [true, false, true]),
            Series::new("".into(), [Some(true), None, Some(false)]),
            Series::new("".into(), [1u8, 2, 255]),
            Series::new("".into(), [0.5f32, f32::NAN]),
        ];
        let small = Series::new("".into(), [Some(1_i64), None, Some(86_399_000_000_000)]);
        let zoned = DataType::Datetime(TimeUnit::Microseconds, Some(TimeZone::UTC));
        for dtype in [DataType::Time, DataType::Duration(TimeUnit::Milliseconds), zoned] {
            columns.push(small.cast(&dtype).expect("casts"));
        }
        columns.push(Series::new("".into(), [Some(1_i32), None]).cast(&DataType::Date).expect("casts"));
        columns
    }

    fn error(blob: Vec<u8>) -> String {
        decode(&blob.into()).expect_err("damaged")
    }

    /// Uses every value, in the ways that polars' `unsafe` code uses it.
    fn walk(series: &Series) {
        let again = blob(series.clone());
        let again = decode(&again.into()).expect("what was decoded and encoded decodes");
        assert!(again.len() == series.len() && again.null_count() == series.null_count());
        if let Ok(texts) = series.str() {
            assert!(texts.iter().flatten().all(|text| std::str::from_utf8(text.as_bytes()).is_ok()));
        }
        series.to_physical_repr().iter().for_each(drop);
    }

    /// Decodes and walks what may be anything; whether it was a column.
    fn survives(bytes: Vec<u8>) -> bool {
        match decode(&bytes.into()) {
            Ok(series) => {
                walk(&series);
                true
            }
            Err(_) => false,
        }
    }

    #[test]
    fn a_column_is_what_polars_reads_from_the_same_file() {
        for column in columns() {
            let bytes = blob(column.clone());
            let theirs = IpcReader::new(Cursor::new(&bytes)).finish().expect("reads");
            let theirs = theirs.columns()[0].as_materialized_series().clone();
            let ours = decode(&bytes.into()).expect("decodes");
            assert!(ours.equals_missing(&theirs), "{ours} {theirs}");
            assert_eq!(ours.dtype(), theirs.dtype());
            assert_eq!(ours.n_chunks(), 1);
        }
    }

    #[test]
    fn numbers_and_long_texts_are_used_where_they_lie() {
        let inside = |blob: &Bytes, address: *const u8| blob.as_ptr_range().contains(&address);
        let numbers: Bytes = blob(Series::new("".into(), [Some(1.5), None])).into();
        let series = decode(&numbers).expect("decodes");
        let values = series.f64().expect("floats").downcast_iter().next().expect("one chunk").values().clone();
        assert!(inside(&numbers, values.as_ptr().cast()));
        drop((numbers, series));
        assert_eq!(values[0], 1.5, "the values keep the blob");
        let texts: Bytes = blob(Series::new("".into(), ["a text that is longer than twelve bytes"])).into();
        let series = decode(&texts).expect("decodes");
        assert!(inside(&texts, series.str().expect("texts").get(0).expect("a text").as_ptr()));
    }

    #[test]
    fn values_at_an_odd_address_are_copied() {
        let mut bytes = blob(Series::new("".into(), [0x0100_i64, 0x0200, 0x0300]));
        let entry = [0_u64.to_le_bytes(), 24_u64.to_le_bytes()].concat();
        let at = bytes.windows(16).position(|window| window == entry).expect("the buffer of the values");
        bytes[at] = 1;
        let column = decode(&bytes.into()).expect("decodes");
        assert!(column.equals(&Series::new("".into(), [1_i64, 2, 3])), "{column}");
    }

    fn writer(bytes: &mut Vec<u8>) -> IpcWriter<&mut Vec<u8>> {
        IpcWriter::new(bytes).with_compat_level(CompatLevel::oldest())
    }

    #[test]
    fn what_is_no_column_is_named() {
        assert_eq!(error(Vec::new()), "it does not end as an Arrow file");
        assert_eq!(error(b"ARROW1".to_vec()), "it does not end as an Arrow file");
        assert_eq!(error(b"\xFF\xFF\xFF\xFFARROW1".to_vec()), "it has a negative length");
        assert_eq!(error(b"\x01\0\0\0ARROW1".to_vec()), "it does not end as an Arrow file");
        let written = |frame: &mut DataFrame, compression| {
            let mut bytes = Vec::new();
            writer(&mut bytes).with_compression(compression).finish(frame).expect("writes");
            bytes
        };
        let mut two = df!("a" => [1], "b" => [2]).expect("a frame");
        assert_eq!(error(written(&mut two, None)), "it holds 2 columns, expected one");
        let mut one = df!("a" => [1, 2]).expect("a frame");
        assert_eq!(error(written(&mut one, Some(IpcCompression::LZ4))), "it is compressed");
        let mut bytes = Vec::new();
        let mut chunks = writer(&mut bytes).batched(one.schema(), vec![IpcField::default()]).expect("begins");
        (0..2).for_each(|_| chunks.write_batch(&one).expect("writes"));
        chunks.finish().expect("ends");
        drop(chunks);
        assert_eq!(error(bytes), "it has 2 chunks, expected one");
        let mut list = df!("a" => [Series::new("".into(), [1])]).expect("a frame");
        assert_eq!(error(written(&mut list, None)), "it holds a type that no frame has");
    }

    #[test]
    fn text_that_is_none_is_refused() {
        let bytes = blob(Series::new("".into(), ["aå"]));
        let at = bytes.windows(3).position(|window| window == "aå".as_bytes()).expect("the text");
        let mut broken = bytes.clone();
        broken[at + 1] = 0xFF;
        assert!(error(broken).contains("invalid utf-8"), "not UTF-8");
        let bytes = blob(Series::new("".into(), ["a", "å"]));
        let offsets: Vec<u8> = [0_i64, 1, 3].iter().flat_map(|offset| offset.to_le_bytes()).collect();
        let at = bytes.windows(24).position(|window| window == offsets).expect("the offsets");
        for offset in [2, -1, 4, i64::MAX] {
            let mut broken = bytes.clone();
            broken[at + 8..at + 16].copy_from_slice(&offset.to_le_bytes());
            assert!(!survives(broken), "{offset}");
        }
    }

    #[test]
    fn any_flipped_bit_and_any_cut_gives_an_error_or_a_column() {
        // One of each layout; the zoned one has a text in its type.
        for at in [0, 3, 5, 7, 12] {
            let good = blob(columns().swap_remove(at));
            assert!(survives(good.clone()));
            for bit in 0..good.len() * 8 {
                let mut bytes = good.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                let done = catch_unwind(AssertUnwindSafe(|| survives(bytes)));
                assert!(done.is_ok(), "bit {bit}");
            }
            for length in 0..good.len() {
                assert!(!survives(good[..length].to_vec()), "cut at {length}");
            }
        }
    }

    /// What a length, an offset or a count may be set to.
    const NUMBERS: [i64; 12] =
        [0, 1, 7, 8, 63, 64, -1, i32::MAX as i64, u32::MAX as i64, i64::MAX, i64::MIN, i64::MAX - 63];

    proptest! {
        #[test]
        fn any_change_gives_an_error_or_a_column(
            column in 0..14_usize,
            changes in proptest::collection::vec((any::<usize>(), 0..5_u8, any::<u64>()), 1..6),
        ) {
            let mut bytes = blob(columns().swap_remove(column));
            for (at, kind, value) in changes {
                let at = at % bytes.len();
                let word = at & !3;
                let chosen = NUMBERS[value as usize % NUMBERS.len()].to_le_bytes();
                let copied = bytes.clone();
                match kind {
                    0 => bytes[at] = value as u8,
                    1 => bytes.iter_mut().skip(word).zip(chosen).for_each(|(byte, new)| *byte = new),
                    2 => bytes.iter_mut().skip(word).zip(&chosen[..4]).for_each(|(byte, new)| *byte = *new),
                    3 => bytes.iter_mut().skip(word).zip(&copied[value as usize % copied.len()..]).take(16).for_each(|(byte, new)| *byte = *new),
                    _ => bytes.insert(at, value as u8),
                }
            }
            let done = catch_unwind(AssertUnwindSafe(|| survives(bytes)));
            prop_assert!(done.is_ok());
        }

        #[test]
        fn any_bytes_before_an_end_give_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let length = bytes.len() as i32;
            survives([bytes, length.to_le_bytes().to_vec(), MAGIC.to_vec()].concat());
        }
    }
}
