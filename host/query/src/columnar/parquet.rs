//! Parquet: a row group for each batch, and the metadata at the end.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use lantern_core::FieldKind;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::types::Type;

use super::batch::{Batch, Column, ColumnData, ColumnSpec};
use super::error::ColumnError;

/// A row group ends at this number of rows, or of bytes before compression.
pub(super) const ROW_GROUP_MAX: (usize, usize) = (131_072, 16 << 20);

pub(super) struct ParquetFile<W: Write + Send> {
    writer: SerializedFileWriter<W>,
}

impl<W: Write + Send> ParquetFile<W> {
    pub(super) fn new(columns: &[ColumnSpec], to: W) -> std::result::Result<Self, ColumnError> {
        let fields = columns.iter().map(|spec| parquet_type(spec).map(Arc::new));
        let fields = fields.collect::<Result<Vec<_>>>()?;
        let schema = Type::group_type_builder("lantern").with_fields(fields).build()?;
        let properties = WriterProperties::builder()
            .set_created_by(concat!("lantern ", env!("CARGO_PKG_VERSION")).to_owned())
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let writer = SerializedFileWriter::new(to, Arc::new(schema), Arc::new(properties))?;
        Ok(Self { writer })
    }

    pub(super) fn row_group(&mut self, batch: &Batch) -> std::result::Result<(), ColumnError> {
        let mut group = self.writer.next_row_group()?;
        for column in batch.each_column() {
            if let Some(mut writer) = group.next_column()? {
                write(&mut writer, column)?;
                writer.close()?;
            }
        }
        group.close()?;
        Ok(())
    }

    /// Writes the metadata.
    pub(super) fn finish(self) -> std::result::Result<W, ColumnError> {
        Ok(self.writer.into_inner()?)
    }
}

fn parquet_type(spec: &ColumnSpec) -> Result<Type> {
    let (physical, logical) = match spec.kind {
        FieldKind::Integer => (Physical::INT64, None),
        FieldKind::Number => (Physical::DOUBLE, None),
        FieldKind::Boolean => (Physical::BOOLEAN, None),
        FieldKind::Timestamp => {
            (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS)))
        }
        FieldKind::Text | FieldKind::Json | FieldKind::Distinct | FieldKind::Percentiles => {
            (Physical::BYTE_ARRAY, Some(LogicalType::String))
        }
    };
    let repetition = if spec.nullable { Repetition::OPTIONAL } else { Repetition::REQUIRED };
    Type::primitive_type_builder(&spec.name, physical)
        .with_repetition(repetition)
        .with_logical_type(logical)
        .build()
}

/// Writes the values of a column that are not null. If the column may have nulls, it also writes a
/// definition level for each row: 1 for a value, 0 for null.
fn write(writer: &mut SerializedColumnWriter<'_>, column: &Column) -> Result<()> {
    let levels: Vec<i16> = column.present.iter().map(|present| i16::from(*present)).collect();
    let levels = column.nullable.then_some(levels.as_slice());
    match &column.data {
        ColumnData::Integers(values) | ColumnData::Times(values) => {
            let values = present(&column.present, values);
            writer.typed::<Int64Type>().write_batch(&values, levels, None)?;
        }
        ColumnData::Numbers(values) => {
            let values = present(&column.present, values);
            writer.typed::<DoubleType>().write_batch(&values, levels, None)?;
        }
        ColumnData::Booleans(values) => {
            let values = present(&column.present, values);
            writer.typed::<BoolType>().write_batch(&values, levels, None)?;
        }
        ColumnData::Texts { starts, bytes } => {
            let bytes = Bytes::copy_from_slice(bytes);
            let text = |range: &[i32]| {
                let at = |index: usize| usize::try_from(range[index]).unwrap_or_default();
                ByteArray::from(bytes.slice(at(0)..at(1)))
            };
            let texts: Vec<ByteArray> = starts.windows(2).map(text).collect();
            let texts = present(&column.present, &texts);
            writer.typed::<ByteArrayType>().write_batch(&texts, levels, None)?;
        }
    }
    Ok(())
}

fn present<T: Clone>(present: &[bool], values: &[T]) -> Vec<T> {
    let values = values.iter().zip(present);
    values.filter(|(_, present)| **present).map(|(value, _)| value.clone()).collect()
}
