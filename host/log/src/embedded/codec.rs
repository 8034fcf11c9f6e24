//! Encodes and decodes chunks. An encoded chunk is a header with a checksum, and the events in
//! columns, compressed together.
//!
//! Decoding detects damage. The checksum covers all bytes after the first eight, which are a fixed
//! mark and the checksum itself. These bytes include the partition and the first offset. So
//! decoding detects changed bits and missing bytes, and also a chunk that is stored under the key
//! of another chunk.
//!
//! The layout is as follows. Numbers are little-endian, and `LNC2` means format 2.
//!
//! | bytes | |
//! |---|---|
//! | 4 | `LNC2` |
//! | 4 | CRC-32 of all following bytes |
//! | 4 | compression: 0 none, 1 LZ4 (block), 2 Zstandard |
//! | 4 | partition |
//! | 8 | first offset |
//! | 4 | number of events |
//! | 4 | bytes of the body before compression |
//! | 8 + 8 | earliest and latest append time, µs since 1970 |
//! | 8 | highest event time |
//! | … | body: types, times, append times, eight columns |
//!
//! The types consist of:
//!
//! * the number of types (16 bits);
//! * each name, as a length (16 bits, or `FFFF` and 32 bits) and bytes;
//! * the number of bytes of an index (one byte: 0, 1 or 2);
//! * for each event, the index of its type.
//!
//! Times, and also append times, consist of:
//!
//! * the lowest time (64 bits);
//! * a unit in µs (32 bits);
//! * the number of bytes of a difference (one byte);
//! * for each event, the difference from the lowest time in this unit.
//!
//! A column consists of a byte for its kind, and of what [`ColumnEncoding`] describes.

use std::cell::RefCell;
use std::ops::Range;

use lantern_core::{Chunk, Column, Columns, Events, Offset, Offsets, PartitionId, Timestamp};
use thiserror::Error;

use super::encoding::{Reader, u32_of};
use super::{CHUNK_EVENTS_LIMIT, Compression};

const MARK: [u8; 4] = *b"LNC2";
const HEADER_BYTES: usize = 56;
/// The maximum number of bytes that the header of a chunk may state for its body. Columns of the
/// kinds [`ColumnEncoding::Constant`] and [`ColumnEncoding::Fixed`] are shorter than their values;
/// the same limit applies to the total size of these values. Chunks that a log writes are far
/// smaller.
const BODY_BYTES_MAX: u32 = 1 << 30;
/// The maximum size of a buffer that a thread keeps for the next body, in bytes.
const BODY_BYTES_KEPT: usize = 4 << 20;
/// The compression level that is passed to Zstandard.
const ZSTD_LEVEL: i32 = 1;

/// How the values of a column are stored in a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ColumnEncoding {
    /// All values are empty, and nothing follows.
    Empty = 0,
    /// All values are equal. The length (32 bits) and the bytes of one value follow.
    Constant = 1,
    /// All values have the same length. The length (32 bits) and the bytes of all values follow.
    Fixed = 2,
    /// The values differ in length. Three parts follow: the length of each value (8 bits), the
    /// number of bytes in total (32 bits), and the bytes.
    Lengths8 = 3,
    /// The same as `Lengths8`, but each length has 16 bits.
    Lengths16 = 4,
    /// The same as `Lengths8`, but each length has 32 bits.
    Lengths32 = 5,
}

/// Why bytes could not be decoded as the expected chunk.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub(crate) enum CodecError {
    #[error("it has {0} bytes, which is less than a header")]
    Short(usize),
    #[error("it does not begin like a chunk that this release can read")]
    Mark,
    #[error("its checksum does not match")]
    Checksum,
    #[error("it is the chunk of partition {partition} at offset {first}")]
    Elsewhere { partition: u32, first: u64 },
    #[error("its content is inconsistent, although its checksum matches")]
    Content,
}

/// The header of a chunk, without the partition and the first offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) count: u32,
    pub(crate) appended_min: Timestamp,
    pub(crate) appended_max: Timestamp,
    pub(crate) time_max: Timestamp,
}

/// A chunk that will be encoded.
pub(crate) struct ToEncode<'a> {
    pub(crate) events: &'a Events,
    pub(crate) range: Range<usize>,
    pub(crate) partition: PartitionId,
    pub(crate) first: Offset,
    /// The append time of each event in the range.
    pub(crate) appended: &'a [Timestamp],
}

/// Encodes chunks. It uses its buffers and compression contexts again for each chunk.
pub(crate) struct Encoder {
    compression: Compression,
    body: Vec<u8>,
    zstd: Option<zstd::bulk::Compressor<'static>>,
}

/// A chunk as the file stores it.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) header: Header,
    /// The event types in order of first appearance, each with its number of events.
    pub(crate) types: Vec<(String, u32)>,
}

impl Encoder {
    pub(crate) fn new(compression: Compression) -> Self {
        Self { compression, body: Vec::new(), zstd: None }
    }

    /// Encodes a chunk of the log.
    ///
    /// # Panics
    /// Panics if the range is empty or not within the events, or if its length differs from the
    /// number of append times.
    pub(crate) fn encode(&mut self, chunk: &ToEncode<'_>) -> Encoded {
        let ToEncode { events, range, .. } = chunk;
        let body = &mut self.body;
        body.clear();
        let types = encode_types(body, events, range.clone());
        let (_, time_max) = encode_times(body, &events.times()[range.clone()]);
        assert_eq!(chunk.appended.len(), range.len(), "each event has an append time");
        let (appended_min, appended_max) = encode_times(body, chunk.appended);
        for column in events.columns().all() {
            encode_column(body, column, range.clone());
        }
        let header = Header { count: u32_of(range.len()), appended_min, appended_max, time_max };
        let (compression, packed) = match self.compression {
            Compression::None => (0_u32, None),
            Compression::Lz4 => (1, Some(lz4_flex::block::compress(body))),
            Compression::Zstd => {
                let zstd = self.zstd.get_or_insert_with(|| {
                    zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("level 1 exists")
                });
                (2, zstd.compress(body).ok())
            }
        };
        // If compression does not make a body smaller, the body is stored uncompressed.
        let packed = packed.filter(|packed| packed.len() < body.len());
        let compression = if packed.is_some() { compression } else { 0 };
        let content = packed.as_deref().unwrap_or(body);
        let mut bytes = Vec::with_capacity(HEADER_BYTES + content.len());
        bytes.extend(MARK);
        bytes.extend([0; 4]);
        bytes.extend(compression.to_le_bytes());
        bytes.extend(chunk.partition.0.to_le_bytes());
        bytes.extend(chunk.first.0.to_le_bytes());
        bytes.extend(header.count.to_le_bytes());
        bytes.extend(u32_of(body.len()).to_le_bytes());
        bytes.extend(header.appended_min.0.to_le_bytes());
        bytes.extend(header.appended_max.0.to_le_bytes());
        bytes.extend(header.time_max.0.to_le_bytes());
        bytes.extend_from_slice(content);
        let crc = crc32fast::hash(&bytes[8..]);
        bytes[4..8].copy_from_slice(&crc.to_le_bytes());
        Encoded { bytes, header, types }
    }
}

/// Decodes the chunk of `partition` that begins at `first`.
pub(crate) fn decode(
    bytes: &[u8],
    partition: PartitionId,
    first: Offset,
) -> Result<(Header, Chunk), CodecError> {
    if bytes.len() < HEADER_BYTES {
        return Err(CodecError::Short(bytes.len()));
    }
    if bytes[..4] != MARK {
        return Err(CodecError::Mark);
    }
    if bytes[4..8] != crc32fast::hash(&bytes[8..]).to_le_bytes() {
        return Err(CodecError::Checksum);
    }
    decode_checked(&bytes[8..], partition, first)
}

fn decode_checked(
    bytes: &[u8],
    partition: PartitionId,
    first: Offset,
) -> Result<(Header, Chunk), CodecError> {
    let mut reader = Reader::new(bytes);
    let compression = reader.u32().ok_or(CodecError::Content)?;
    let place = (reader.u32(), reader.u64());
    if place != (Some(partition.0), Some(first.0)) {
        let (partition, first) = (place.0.unwrap_or_default(), place.1.unwrap_or_default());
        return Err(CodecError::Elsewhere { partition, first });
    }
    let mut rest = || {
        let (count, body_bytes) = (reader.u32()?, reader.u32()?);
        let header = Header {
            count,
            appended_min: Timestamp(reader.i64()?),
            appended_max: Timestamp(reader.i64()?),
            time_max: Timestamp(reader.i64()?),
        };
        if body_bytes > BODY_BYTES_MAX || count > CHUNK_EVENTS_LIMIT {
            return None;
        }
        let content = &bytes[HEADER_BYTES - 8..];
        let (len, count) = (body_bytes as usize, count as usize);
        let (events, appended) = match compression {
            0 if content.len() == len => decode_body(content, count)?,
            1 => unpacked(len, count, |to| lz4_flex::block::decompress_into(content, to).ok())?,
            2 => unpacked(len, count, |to| zstd::bulk::decompress_to_buffer(content, to).ok())?,
            _ => return None,
        };
        let offsets = Offsets::Dense { first };
        Some((header, Chunk { partition, offsets, events, appended }))
    };
    rest().ok_or(CodecError::Content)
}

/// Decodes a body of `len` bytes. `unpack` writes these bytes and returns how many it wrote.
fn unpacked(
    len: usize,
    count: usize,
    unpack: impl FnOnce(&mut [u8]) -> Option<usize>,
) -> Option<(Events, Vec<Timestamp>)> {
    thread_local! {
        // The same buffer is used for each chunk. Memory that is new to the process costs more than
        // decompressing into it.
        static BODY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    let mut body = BODY.take();
    if body.len() < len {
        body.resize(len, 0);
    }
    let whole = unpack(&mut body[..len]) == Some(len);
    let events = if whole { decode_body(&body[..len], count) } else { None };
    if body.len() <= BODY_BYTES_KEPT {
        BODY.set(body);
    }
    events
}

/// Decodes the events, and the append time of each event.
fn decode_body(body: &[u8], count: usize) -> Option<(Events, Vec<Timestamp>)> {
    let reader = &mut Reader::new(body);
    let (type_names, types) = decode_types(reader, count)?;
    let times = decode_times(reader, count)?;
    let appended = decode_times(reader, count)?;
    let mut unfolded = BODY_BYTES_MAX;
    let mut next = || decode_column(reader, count, &mut unfolded);
    // The columns are read in the order of `Columns::all`.
    let columns = Columns {
        id: next()?,
        source: next()?,
        subject: next()?,
        tenant: next()?,
        dataschema: next()?,
        datacontenttype: next()?,
        extensions: next()?,
        data: next()?,
    };
    if !reader.is_empty() {
        return None;
    }
    Some((Events::from_columns(times, type_names, types, columns)?, appended))
}

fn encode_types(body: &mut Vec<u8>, events: &Events, range: Range<usize>) -> Vec<(String, u32)> {
    // Only types that occur within the range are stored.
    let mut places = vec![u16::MAX; events.type_names().len()];
    let mut used: Vec<(String, u32)> = Vec::new();
    for &kind in &events.types()[range.clone()] {
        let place = &mut places[usize::from(kind)];
        if *place == u16::MAX {
            *place = u16::try_from(used.len()).expect("events hold under 65,536 types");
            used.push((events.type_names()[usize::from(kind)].clone(), 0));
        }
        used[usize::from(*place)].1 += 1;
    }
    body.extend(u16::try_from(used.len()).expect("events hold under 65,536 types").to_le_bytes());
    for (name, _) in &used {
        match u16::try_from(name.len()) {
            Ok(len) if len < u16::MAX => body.extend(len.to_le_bytes()),
            _ => {
                body.extend(u16::MAX.to_le_bytes());
                body.extend(u32_of(name.len()).to_le_bytes());
            }
        }
        body.extend(name.as_bytes());
    }
    let indexes = events.types()[range].iter().map(|&kind| places[usize::from(kind)]);
    match used.len() {
        0 | 1 => body.push(0),
        2..=256 => {
            body.push(1);
            body.extend(indexes.map(|place| place.to_le_bytes()[0]));
        }
        _ => {
            body.push(2);
            body.extend(indexes.flat_map(u16::to_le_bytes));
        }
    }
    used
}

fn decode_types(reader: &mut Reader<'_>, count: usize) -> Option<(Vec<String>, Vec<u16>)> {
    let names = (0..reader.u16()?)
        .map(|_| {
            let len = match reader.u16()? {
                u16::MAX => reader.u32()? as usize,
                len => usize::from(len),
            };
            Some(std::str::from_utf8(reader.bytes(len)?).ok()?.to_owned())
        })
        .collect::<Option<Vec<_>>>()?;
    let types = match reader.u8()? {
        0 => vec![0; count],
        1 => reader.bytes(count)?.iter().map(|&byte| u16::from(byte)).collect(),
        2 => {
            let (pairs, _) = reader.bytes(count.checked_mul(2)?)?.as_chunks();
            pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect()
        }
        _ => return None,
    };
    Some((names, types))
}

/// Stores times as differences from the lowest time, and returns the lowest and the highest time.
/// The unit is the largest one that divides all differences, and a difference takes as few bytes as
/// possible.
fn encode_times(body: &mut Vec<u8>, times: &[Timestamp]) -> (Timestamp, Timestamp) {
    let low = times.iter().map(|t| t.0).min().unwrap_or_default();
    let high = times.iter().map(|t| t.0).max().unwrap_or_default();
    let delta = |t: &Timestamp| t.0.wrapping_sub(low).cast_unsigned();
    let unit = [1_000_000_u32, 1_000]
        .into_iter()
        .find(|&unit| times.iter().all(|t| delta(t).is_multiple_of(u64::from(unit))))
        .unwrap_or(1);
    let widest = high.wrapping_sub(low).cast_unsigned() / u64::from(unit);
    let width = match widest {
        0 => 0_u8,
        1..=0xFF => 1,
        0x100..=0xFFFF => 2,
        0x1_0000..=0xFFFF_FFFF => 4,
        _ => 8,
    };
    body.extend(low.to_le_bytes());
    body.extend(unit.to_le_bytes());
    body.push(width);
    for time in times {
        let bytes = (delta(time) / u64::from(unit)).to_le_bytes();
        body.extend_from_slice(&bytes[..usize::from(width)]);
    }
    (Timestamp(low), Timestamp(high))
}

fn decode_times(reader: &mut Reader<'_>, count: usize) -> Option<Vec<Timestamp>> {
    let (low, unit, width) = (reader.i64()?, u64::from(reader.u32()?), reader.u8()?);
    let time = |delta: u64| Timestamp(low.wrapping_add(delta.wrapping_mul(unit).cast_signed()));
    let bytes = reader.bytes(count.checked_mul(usize::from(width))?)?;
    Some(match width {
        0 => vec![time(0); count],
        1 => bytes.iter().map(|&b| time(u64::from(b))).collect(),
        2 => bytes.as_chunks().0.iter().map(|b| time(u64::from(u16::from_le_bytes(*b)))).collect(),
        4 => bytes.as_chunks().0.iter().map(|b| time(u64::from(u32::from_le_bytes(*b)))).collect(),
        8 => bytes.as_chunks().0.iter().map(|b| time(u64::from_le_bytes(*b))).collect(),
        _ => return None,
    })
}

fn encode_column(body: &mut Vec<u8>, column: &Column, range: Range<usize>) {
    let ends = column.ends().get(range.clone()).unwrap_or_default();
    let start = match range.start {
        0 => 0,
        start => column.ends().get(start - 1).copied().unwrap_or_default(),
    };
    let bytes = &column.bytes()[start as usize..ends.last().map_or(start, |&e| e) as usize];
    if bytes.is_empty() {
        body.push(ColumnEncoding::Empty as u8);
        return;
    }
    let lengths = || {
        let starts = std::iter::once(start).chain(ends.iter().copied());
        starts.zip(ends).map(|(start, end)| end - start)
    };
    let first_len = ends[0] - start;
    let one_length = lengths().all(|len| len == first_len);
    if one_length {
        let first = &bytes[..first_len as usize];
        let equal = bytes.chunks_exact(first.len()).all(|value| value == first);
        let kind = if equal { ColumnEncoding::Constant } else { ColumnEncoding::Fixed };
        body.push(kind as u8);
        body.extend(first_len.to_le_bytes());
        body.extend_from_slice(if equal { first } else { bytes });
        return;
    }
    match lengths().max().unwrap_or_default() {
        0..=0xFF => {
            body.push(ColumnEncoding::Lengths8 as u8);
            body.extend(lengths().map(|len| len.to_le_bytes()[0]));
        }
        0x100..=0xFFFF => {
            body.push(ColumnEncoding::Lengths16 as u8);
            body.extend(lengths().flat_map(|len| [len.to_le_bytes()[0], len.to_le_bytes()[1]]));
        }
        _ => {
            body.push(ColumnEncoding::Lengths32 as u8);
            body.extend(lengths().flat_map(u32::to_le_bytes));
        }
    }
    body.extend(u32_of(bytes.len()).to_le_bytes());
    body.extend_from_slice(bytes);
}

fn decode_column(reader: &mut Reader<'_>, count: usize, unfolded: &mut u32) -> Option<Column> {
    let kind = reader.u8()?;
    let is = |k: ColumnEncoding| kind == k as u8;
    if is(ColumnEncoding::Empty) {
        return Column::from_parts(vec![0; count], Vec::new()).ok();
    }
    if is(ColumnEncoding::Constant) || is(ColumnEncoding::Fixed) {
        let len = reader.u32()?;
        let total = u32_of(count).checked_mul(len)?;
        *unfolded = unfolded.checked_sub(total)?;
        let bytes = if is(ColumnEncoding::Fixed) {
            reader.bytes(total as usize)?.to_vec()
        } else {
            reader.bytes(len as usize)?.repeat(count)
        };
        return Column::from_parts((1..=u32_of(count)).map(|i| i * len).collect(), bytes).ok();
    }
    let mut end = 0_u32;
    // `from_parts` checks that the sum of the lengths is the number of bytes.
    let mut add = |len: u32| {
        end = end.wrapping_add(len);
        end
    };
    let ends: Vec<u32> = if is(ColumnEncoding::Lengths8) {
        reader.bytes(count)?.iter().map(|&b| add(u32::from(b))).collect()
    } else if is(ColumnEncoding::Lengths16) {
        let (pairs, _) = reader.bytes(count.checked_mul(2)?)?.as_chunks();
        pairs.iter().map(|b| add(u32::from(u16::from_le_bytes(*b)))).collect()
    } else if is(ColumnEncoding::Lengths32) {
        let (fours, _) = reader.bytes(count.checked_mul(4)?)?.as_chunks();
        fours.iter().map(|b| add(u32::from_le_bytes(*b))).collect()
    } else {
        return None;
    };
    let len = reader.u32()?;
    Column::from_parts(ends, reader.bytes(len as usize)?.to_vec()).ok()
}
