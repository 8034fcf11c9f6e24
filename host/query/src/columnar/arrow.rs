//! Writes Arrow's IPC streaming format: a message with the schema, one message for each batch, and
//! an end. The specification is <https://arrow.apache.org/docs/format/Columnar.html>.

use std::io::{self, Write};

use lantern_core::FieldKind;
use polars_arrow_format::ipc::{
    Bool, Buffer, Endianness, Field, FieldNode, FloatingPoint, Int, Message, MessageHeader,
    MetadataVersion, Precision, RecordBatch, Schema, TimeUnit, Timestamp, Type, Utf8, planus,
};

use super::batch::{Batch, Column, ColumnData, ColumnSpec};

/// A batch ends at this number of rows, or of bytes.
pub(super) const BATCH_MAX: (usize, usize) = (8_192, 4 << 20);
/// The alignment of buffers and messages in bytes, as the format recommends it for buffers.
const ALIGNMENT: usize = 64;
/// Begins each message.
const CONTINUATION: [u8; 4] = [0xFF; 4];

pub(super) struct ArrowStream<W> {
    to: W,
}

impl<W: Write> ArrowStream<W> {
    /// Writes the schema.
    pub(super) fn new(columns: &[ColumnSpec], to: W) -> io::Result<Self> {
        let field = |spec: &ColumnSpec| Field {
            name: Some(spec.name.clone()),
            nullable: spec.nullable,
            type_: Some(arrow_type(spec.kind)),
            children: Some(Vec::new()),
            ..Field::default()
        };
        let schema = Schema {
            endianness: Endianness::Little,
            fields: Some(columns.iter().map(field).collect()),
            ..Schema::default()
        };
        let mut stream = Self { to };
        stream.message(MessageHeader::Schema(Box::new(schema)), &[])?;
        Ok(stream)
    }

    pub(super) fn batch(&mut self, batch: &Batch) -> io::Result<()> {
        let mut body = Body::default();
        let mut nodes = Vec::with_capacity(batch.columns());
        for column in batch.each_column() {
            let nulls = column.present.iter().filter(|present| !**present).count();
            nodes.push(FieldNode { length: long(batch.rows()), null_count: long(nulls) });
            body.column(column, nulls);
        }
        let header = RecordBatch {
            length: long(batch.rows()),
            nodes: Some(nodes),
            buffers: Some(body.buffers),
            ..RecordBatch::default()
        };
        self.message(MessageHeader::RecordBatch(Box::new(header)), &body.bytes)
    }

    /// Writes the end of the stream.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.to.write_all(&CONTINUATION)?;
        self.to.write_all(&0_i32.to_le_bytes())?;
        Ok(self.to)
    }

    fn message(&mut self, header: MessageHeader, body: &[u8]) -> io::Result<()> {
        let message = Message {
            version: MetadataVersion::V5,
            header: Some(header),
            body_length: long(body.len()),
            ..Message::default()
        };
        let mut builder = planus::Builder::new();
        let metadata = builder.finish(message, None);
        let prefix = CONTINUATION.len() + size_of::<i32>();
        let padded = (prefix + metadata.len()).next_multiple_of(ALIGNMENT) - prefix;
        let length = i32::try_from(padded).map_err(io::Error::other)?;
        self.to.write_all(&CONTINUATION)?;
        self.to.write_all(&length.to_le_bytes())?;
        self.to.write_all(metadata)?;
        self.to.write_all(&[0; ALIGNMENT][..padded - metadata.len()])?;
        self.to.write_all(body)
    }
}

fn arrow_type(kind: FieldKind) -> Type {
    match kind {
        FieldKind::Integer => Type::Int(Box::new(Int { bit_width: 64, is_signed: true })),
        FieldKind::Number => {
            Type::FloatingPoint(Box::new(FloatingPoint { precision: Precision::Double }))
        }
        FieldKind::Boolean => Type::Bool(Box::new(Bool {})),
        FieldKind::Timestamp => Type::Timestamp(Box::new(Timestamp {
            unit: TimeUnit::Microsecond,
            timezone: Some("UTC".into()),
        })),
        FieldKind::Text | FieldKind::Json | FieldKind::Distinct | FieldKind::Percentiles => {
            Type::Utf8(Box::new(Utf8 {}))
        }
    }
}

/// The buffers of a batch, one after another.
#[derive(Default)]
struct Body {
    bytes: Vec<u8>,
    buffers: Vec<Buffer>,
}

impl Body {
    fn column(&mut self, column: &Column, nulls: usize) {
        // If the column has no nulls, the format allows an empty buffer of validity bits.
        let present = if nulls == 0 { Vec::new() } else { bits(&column.present) };
        self.buffer(present);
        match &column.data {
            ColumnData::Integers(values) | ColumnData::Times(values) => {
                self.buffer(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            ColumnData::Numbers(values) => {
                self.buffer(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            ColumnData::Booleans(values) => self.buffer(bits(values)),
            ColumnData::Texts { starts, bytes } => {
                self.buffer(starts.iter().flat_map(|start| start.to_le_bytes()));
                self.buffer(bytes.iter().copied());
            }
        }
    }

    fn buffer(&mut self, bytes: impl IntoIterator<Item = u8>) {
        let offset = self.bytes.len();
        self.bytes.extend(bytes);
        let length = self.bytes.len() - offset;
        self.buffers.push(Buffer { offset: long(offset), length: long(length) });
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

/// Packs `values` into bits. The first value is the lowest bit of the first byte.
fn bits(values: &[bool]) -> Vec<u8> {
    let byte = |values: &[bool]| {
        values.iter().enumerate().fold(0, |byte, (bit, value)| byte | (u8::from(*value) << bit))
    };
    values.chunks(8).map(byte).collect()
}

fn long(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}
