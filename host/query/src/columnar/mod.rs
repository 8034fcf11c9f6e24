//! Writes results as columns: Arrow's IPC stream, and Parquet.
//!
//! Rows are collected into batches. A complete batch is written before the next one begins, so a
//! result of any size needs the memory of one batch.

mod arrow;
mod batch;
mod error;
mod parquet;

use std::io::Write;

use lantern_core::{FieldKind, FieldReader, FieldSpans, TableSpec, split_key};

use self::arrow::ArrowStream;
use self::batch::{Batch, ColumnSpec};
pub use self::error::ColumnError;
use self::parquet::ParquetFile;
use crate::Plan;
use crate::group_value::GroupValue;

/// A format of columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnFormat {
    /// Arrow's IPC streaming format.
    Arrow,
    /// Parquet.
    Parquet,
}

/// Writes rows or groups to `W` as columns.
///
/// The types of the columns are: Int64 for `integer`, Float64 for `number`, Boolean for `boolean`,
/// Timestamp in microseconds and UTC for `timestamp`, and Utf8 for all others. JSON values and
/// sketches are text with their JSON. A missing value is null.
pub struct ColumnWriter<W: Write + Send> {
    /// Decodes the fields of rows. It is not used for groups, whose values are decoded already.
    reader: FieldReader,
    spans: FieldSpans,
    per_tenant: bool,
    batch: Batch,
    target: Target<W>,
}

enum Target<W: Write + Send> {
    Arrow(ArrowStream<W>),
    Parquet(Box<ParquetFile<W>>),
}

impl<W: Write + Send> ColumnWriter<W> {
    /// Creates a writer for rows of `table`. The first column is the key, and the others are the
    /// fields. In a `per_tenant` table, a column with the tenant comes before the key.
    ///
    /// # Errors
    /// [`ColumnError`].
    pub fn of_rows(format: ColumnFormat, table: &TableSpec, to: W) -> Result<Self, ColumnError> {
        let free = |name: &str| {
            let taken = |name: &str| table.fields.iter().any(|field| field.name == *name);
            let mut name = name.to_owned();
            while taken(&name) {
                name.insert(0, '_');
            }
            ColumnSpec { name, kind: FieldKind::Text, nullable: false }
        };
        let mut columns = Vec::with_capacity(table.fields.len() + 2);
        columns.extend(table.per_tenant.then(|| free("tenant")));
        columns.push(free("key"));
        columns.extend(table.fields.iter().map(|field| ColumnSpec {
            name: field.name.clone(),
            kind: field.kind,
            nullable: true,
        }));
        let reader = FieldReader::new(&table.fields, 0..table.fields.len());
        Self::new(format, columns, reader, table.per_tenant, to)
    }

    /// Creates a writer for the groups of `plan`.
    ///
    /// # Errors
    /// [`ColumnError`].
    pub fn of_groups(format: ColumnFormat, plan: &Plan, to: W) -> Result<Self, ColumnError> {
        let columns = plan.columns().iter();
        let columns = columns.map(|column| ColumnSpec {
            name: column.name.clone(),
            kind: column.kind,
            nullable: true,
        });
        Self::new(format, columns.collect(), FieldReader::new(&[], []), false, to)
    }

    fn new(
        format: ColumnFormat,
        columns: Vec<ColumnSpec>,
        reader: FieldReader,
        per_tenant: bool,
        to: W,
    ) -> Result<Self, ColumnError> {
        let batch = Batch::new(&columns);
        let target = match format {
            ColumnFormat::Arrow => Target::Arrow(ArrowStream::new(&columns, to)?),
            ColumnFormat::Parquet => Target::Parquet(Box::new(ParquetFile::new(&columns, to)?)),
        };
        Ok(Self { reader, spans: FieldSpans::default(), per_tenant, batch, target })
    }

    /// Adds a row: its key and its value, a JSON object.
    ///
    /// # Errors
    /// [`ColumnError`].
    pub fn row(&mut self, key: &str, value: &[u8]) -> Result<(), ColumnError> {
        let (tenant, key) = split_key(self.per_tenant, key);
        for (place, text) in tenant.into_iter().chain([key]).enumerate() {
            self.batch.text(place, text);
        }
        let row = self.reader.read(value, &mut self.spans);
        let fields_from = 1 + usize::from(self.per_tenant);
        for (field, place) in (fields_from..self.batch.columns()).enumerate() {
            self.batch.json(place, row.json(field))?;
        }
        self.end_row()
    }

    /// Adds a group, with a value for each column of the plan.
    ///
    /// # Errors
    /// [`ColumnError`].
    pub fn group(&mut self, group: &[GroupValue]) -> Result<(), ColumnError> {
        for (place, value) in group.iter().enumerate() {
            self.batch.value(place, value.as_ref())?;
        }
        self.end_row()
    }

    fn end_row(&mut self) -> Result<(), ColumnError> {
        self.batch.end_row();
        let (rows_max, bytes_max) = match &self.target {
            Target::Arrow(_) => arrow::BATCH_MAX,
            Target::Parquet(_) => parquet::ROW_GROUP_MAX,
        };
        if self.batch.rows() >= rows_max || self.batch.bytes() >= bytes_max {
            self.write_batch()?;
        }
        Ok(())
    }

    fn write_batch(&mut self) -> Result<(), ColumnError> {
        match &mut self.target {
            Target::Arrow(stream) => stream.batch(&self.batch)?,
            Target::Parquet(file) => file.row_group(&self.batch)?,
        }
        self.batch.clear();
        Ok(())
    }

    /// Writes the remaining rows and the end of the stream or file, and returns the inner writer.
    ///
    /// # Errors
    /// [`ColumnError`].
    pub fn finish(mut self) -> Result<W, ColumnError> {
        if self.batch.rows() > 0 {
            self.write_batch()?;
        }
        match self.target {
            Target::Arrow(stream) => Ok(stream.finish()?),
            Target::Parquet(file) => file.finish(),
        }
    }
}
