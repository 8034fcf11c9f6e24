//! Rows that are collected as columns.

use lantern_core::{FieldKind, FieldValue};

use super::error::ColumnError;

/// A column of the result.
#[derive(Clone, Debug)]
pub(super) struct ColumnSpec {
    pub(super) name: String,
    pub(super) kind: FieldKind,
    pub(super) nullable: bool,
}

/// A column's values so far. A null has an entry too: 0, or an empty text.
#[derive(Debug)]
pub(super) struct Column {
    name: String,
    kind: FieldKind,
    pub(super) nullable: bool,
    /// Whether each value is present.
    pub(super) present: Vec<bool>,
    pub(super) data: ColumnData,
}

#[derive(Debug)]
pub(super) enum ColumnData {
    Integers(Vec<i64>),
    Numbers(Vec<f64>),
    Booleans(Vec<bool>),
    /// Microseconds since 1970.
    Times(Vec<i64>),
    /// The bytes of all texts, and where each begins; the last entry is the end.
    Texts {
        starts: Vec<i32>,
        bytes: Vec<u8>,
    },
}

/// Some rows of a result, as columns.
#[derive(Debug)]
pub(super) struct Batch {
    columns: Vec<Column>,
    rows: usize,
    bytes: usize,
}

impl Batch {
    pub(super) fn new(columns: &[ColumnSpec]) -> Self {
        let column = |spec: &ColumnSpec| Column {
            name: spec.name.clone(),
            kind: spec.kind,
            nullable: spec.nullable,
            present: Vec::new(),
            data: ColumnData::new(spec.kind),
        };
        Self { columns: columns.iter().map(column).collect(), rows: 0, bytes: 0 }
    }

    pub(super) fn columns(&self) -> usize {
        self.columns.len()
    }

    pub(super) fn each_column(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter()
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes of memory the rows need.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn end_row(&mut self) {
        self.rows += 1;
        self.bytes += 9 * self.columns.len();
    }

    pub(super) fn clear(&mut self) {
        (self.rows, self.bytes) = (0, 0);
        for column in &mut self.columns {
            column.present.clear();
            column.data.clear();
        }
    }

    pub(super) fn text(&mut self, place: usize, text: &str) {
        self.bytes += text.len();
        let column = &mut self.columns[place];
        column.present.push(true);
        column.data.push_text(text.as_bytes());
    }

    /// Adds the JSON text of a value. A value that is not of the column's kind is null.
    pub(super) fn json(&mut self, place: usize, json: Option<&[u8]>) -> Result<(), ColumnError> {
        let kind = self.columns[place].kind;
        match json {
            Some(json) if kind == FieldKind::Json || kind.is_sketch() => {
                self.text(place, &String::from_utf8_lossy(json));
                Ok(())
            }
            json => {
                let value = json.and_then(|json| FieldValue::decode(kind, json));
                self.value(place, value.as_ref())
            }
        }
    }

    pub(super) fn value(
        &mut self,
        place: usize,
        value: Option<&FieldValue<'_>>,
    ) -> Result<(), ColumnError> {
        let column = &mut self.columns[place];
        column.present.push(value.is_some());
        match (&mut column.data, value) {
            (ColumnData::Integers(values), Some(FieldValue::Integer(value))) => {
                let fits = i64::try_from(*value).map_err(|_| ColumnError::OutOfRange {
                    column: column.name.clone(),
                    value: *value,
                })?;
                values.push(fits);
            }
            (ColumnData::Numbers(values), Some(FieldValue::Number(value))) => values.push(*value),
            (ColumnData::Booleans(values), Some(FieldValue::Boolean(value))) => values.push(*value),
            (ColumnData::Times(values), Some(FieldValue::Timestamp(value))) => values.push(*value),
            (data @ ColumnData::Texts { .. }, Some(FieldValue::Text(text))) => {
                self.bytes += text.len();
                data.push_text(text.as_bytes());
            }
            (data, _) => data.push_null(),
        }
        Ok(())
    }
}

impl ColumnData {
    fn new(kind: FieldKind) -> Self {
        match kind {
            FieldKind::Integer => Self::Integers(Vec::new()),
            FieldKind::Number => Self::Numbers(Vec::new()),
            FieldKind::Boolean => Self::Booleans(Vec::new()),
            FieldKind::Timestamp => Self::Times(Vec::new()),
            FieldKind::Text | FieldKind::Json | FieldKind::Distinct | FieldKind::Percentiles => {
                Self::Texts { starts: vec![0], bytes: Vec::new() }
            }
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Integers(values) | Self::Times(values) => values.clear(),
            Self::Numbers(values) => values.clear(),
            Self::Booleans(values) => values.clear(),
            Self::Texts { starts, bytes } => {
                starts.truncate(1);
                bytes.clear();
            }
        }
    }

    fn push_text(&mut self, text: &[u8]) {
        if let Self::Texts { starts, bytes } = self {
            bytes.extend_from_slice(text);
            // The number fits: a batch ends long before 2 GiB, and a single row is far smaller than
            // that.
            starts.push(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
        }
    }

    fn push_null(&mut self) {
        match self {
            Self::Integers(values) | Self::Times(values) => values.push(0),
            Self::Numbers(values) => values.push(0.0),
            Self::Booleans(values) => values.push(false),
            Self::Texts { .. } => self.push_text(b""),
        }
    }
}
