//! Writes results in the formats of answers, as pages and as exports.

use std::io::{self, Write};

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use lantern_api::feed::Field;
use lantern_core::{Row, TableSpec, View};
use lantern_query::{ColumnError, ColumnFormat, ColumnWriter, GroupValue, OutputColumn, Plan};

use super::answer_form::AnswerForm;
use super::page::Cursor;
use super::prometheus::{self, MetricSource};
use super::response_coding::{Encoder, ResponseCoding};
use super::result_shape::{PageRows, ResultShape};
use crate::http::params::AnswerFormat;
use crate::problem::Problem;
use crate::rows::{JsonRows, csv_head, csv_line, csv_row, json_row, ndjson_row};

/// Smaller answers are not compressed.
const COMPRESSED_BYTES_MIN: usize = 1 << 10;

/// Writes a result to `W`, row by row.
pub(super) struct ResultWriter<'a, W: Write + Send> {
    shape: ResultShape<'a>,
    target: Target<W>,
    /// The text of one row.
    text: Vec<u8>,
}

enum Target<W: Write + Send> {
    Json(W, JsonRows),
    /// JSON with an array of rows. The flag tells whether a row was written already.
    JsonArray(W, bool),
    Ndjson(W),
    Csv(W),
    Columns(Box<ColumnWriter<W>>),
}

impl<'a, W: Write + Send> ResultWriter<'a, W> {
    /// Writes the beginning of a result of `view`.
    pub(super) fn begin(
        format: AnswerFormat,
        view: &View,
        shape: ResultShape<'a>,
        mut to: W,
    ) -> Result<Self, ColumnError> {
        let target = match (format, shape) {
            // Rows cannot be written as events.
            (AnswerFormat::Json | AnswerFormat::Batch, ResultShape::ByKey(table)) => {
                to.write_all(&json_begin(view, table))?;
                Target::Json(to, JsonRows::default())
            }
            (
                AnswerFormat::Json | AnswerFormat::Batch,
                ResultShape::InOrder(_, plan) | ResultShape::Groups(plan),
            ) => {
                to.write_all(&array_begin(view, plan))?;
                Target::JsonArray(to, false)
            }
            (AnswerFormat::Ndjson, _) => Target::Ndjson(to),
            (AnswerFormat::Csv, _) => {
                to.write_all(&shape.csv_head())?;
                Target::Csv(to)
            }
            (AnswerFormat::Arrow, _) => shape.columns(ColumnFormat::Arrow, to)?,
            (AnswerFormat::Parquet, _) => shape.columns(ColumnFormat::Parquet, to)?,
            // The text format of Prometheus has all samples of one metric together, so it cannot be
            // written row by row.
            (AnswerFormat::Prometheus, _) => {
                return Err(io::Error::from(io::ErrorKind::Unsupported).into());
            }
        };
        Ok(Self { shape, target, text: Vec::new() })
    }

    pub(super) fn row(&mut self, row: &Row) -> Result<(), ColumnError> {
        let (ResultShape::ByKey(table) | ResultShape::InOrder(table, _)) = self.shape else {
            return Ok(());
        };
        self.text.clear();
        let text = &mut self.text;
        match &mut self.target {
            Target::Json(to, rows) => {
                rows.row(table, row, text);
                to.write_all(text)?;
            }
            Target::JsonArray(to, any) => {
                text.extend(any.then_some(b','));
                *any = true;
                json_row(table, row, text);
                to.write_all(text)?;
            }
            Target::Ndjson(to) => {
                ndjson_row(table, row, text);
                to.write_all(text)?;
            }
            Target::Csv(to) => {
                csv_row(table, row, text);
                to.write_all(text)?;
            }
            Target::Columns(columns) => columns.row(&row.key, &row.value)?,
        }
        Ok(())
    }

    pub(super) fn group(&mut self, group: &[GroupValue]) -> Result<(), ColumnError> {
        let ResultShape::Groups(plan) = self.shape else { return Ok(()) };
        self.text.clear();
        let text = &mut self.text;
        match &mut self.target {
            Target::Json(to, _) | Target::Ndjson(to) => {
                plan.write_group(group, text);
                text.push(b'\n');
                to.write_all(text)?;
            }
            Target::JsonArray(to, any) => {
                text.extend(any.then_some(b','));
                *any = true;
                plan.write_group(group, text);
                to.write_all(text)?;
            }
            Target::Csv(to) => {
                let cells = group.iter().enumerate();
                let cells: Vec<_> = cells.map(|(index, value)| plan.cell(index, value)).collect();
                csv_line(cells.iter().map(String::as_str), text);
                to.write_all(text)?;
            }
            Target::Columns(columns) => columns.group(group)?,
        }
        Ok(())
    }

    /// Writes the end of the result. `next` is the cursor of the next page.
    pub(super) fn end(mut self, next: Option<&str>) -> Result<W, ColumnError> {
        let next = next.map_or_else(|| "null".into(), text);
        match self.target {
            Target::Json(mut to, rows) => {
                self.text.clear();
                rows.end(&mut self.text);
                to.write_all(&self.text)?;
                write!(to, "}},\"next\":{next}}}")?;
                Ok(to)
            }
            Target::JsonArray(mut to, _) => {
                write!(to, "],\"next\":{next}}}")?;
                Ok(to)
            }
            Target::Ndjson(to) | Target::Csv(to) => Ok(to),
            Target::Columns(columns) => columns.finish(),
        }
    }
}

impl ResultShape<'_> {
    fn columns<W: Write + Send>(
        self,
        format: ColumnFormat,
        to: W,
    ) -> Result<Target<W>, ColumnError> {
        let columns = match self {
            Self::ByKey(table) | Self::InOrder(table, _) => {
                ColumnWriter::of_rows(format, table, to)?
            }
            Self::Groups(plan) => ColumnWriter::of_groups(format, plan, to)?,
        };
        Ok(Target::Columns(Box::new(columns)))
    }

    fn csv_head(self) -> Vec<u8> {
        match self {
            Self::ByKey(table) | Self::InOrder(table, _) => csv_head(table),
            Self::Groups(plan) => {
                let mut head = Vec::new();
                csv_line(plan.columns().iter().map(|column| column.name.as_str()), &mut head);
                head
            }
        }
    }
}

/// Returns the answer with one page. `next` is the cursor of the next page.
pub(super) fn page(
    form: AnswerForm,
    view: &View,
    metrics: &MetricSource<'_>,
    shape: ResultShape<'_>,
    rows: PageRows<'_>,
    next: Option<String>,
) -> Result<Response, Problem> {
    if form.format == AnswerFormat::Prometheus {
        let body = prometheus::write(metrics, shape, rows, next.is_none())?;
        return respond(form, body, None);
    }
    let written = ResultWriter::begin(form.format, view, shape, Vec::new());
    let written = written.and_then(|mut writer| {
        match rows {
            PageRows::Rows(rows) => rows.iter().try_for_each(|row| writer.row(row))?,
            PageRows::Groups(groups) => groups.iter().try_for_each(|group| writer.group(group))?,
        }
        writer.end(next.as_deref())
    });
    respond(form, written.map_err(not_columns)?, next)
}

fn respond(form: AnswerForm, body: Vec<u8>, next: Option<String>) -> Result<Response, Problem> {
    let coding =
        if body.len() < COMPRESSED_BYTES_MIN { ResponseCoding::Identity } else { form.coding };
    let form = AnswerForm { coding, ..form };
    let encoded = Encoder::new(form.body_coding(), Vec::new()).and_then(|mut encoder| {
        encoder.write_all(&body)?;
        encoder.finish()
    });
    let mut response = encoded.map_err(unwritten)?.into_response();
    form.describe(response.headers_mut());
    // NDJSON and the formats of columns have no place for the cursor. It is sent in a header.
    if let Some(cursor) = next.and_then(|cursor| HeaderValue::try_from(cursor).ok()) {
        response.headers_mut().insert("lantern-next", cursor);
    }
    Ok(response)
}

/// The cursor of a page of rows in key order, after `key`.
pub(super) fn cursor(view: &View, key: &str) -> String {
    let (epoch, checkpoint) = (view.epoch().into(), view.checkpoint().coarse());
    Cursor { epoch, key: key.into(), checkpoint }.write()
}

/// Returns the problem for a result whose values cannot be stored in columns.
pub(super) fn not_columns(error: ColumnError) -> Problem {
    Problem::new("LAN-0428", error.to_string())
}

fn unwritten(error: io::Error) -> Problem {
    Problem::new("LAN-0413", format!("the answer cannot be compressed: {error}"))
}

/// Returns the declaration of the table with only the fields of `columns`, in their order.
pub(super) fn projected(table: &TableSpec, columns: &[OutputColumn]) -> TableSpec {
    let field = |column: &OutputColumn| {
        table.fields.iter().find(|field| field.name == column.name).cloned()
    };
    TableSpec { fields: columns.iter().filter_map(field).collect(), ..table.clone() }
}

fn text(text: &str) -> String {
    serde_json::to_string(text).expect("a string always encodes")
}

/// Returns the members of the answer that identify the state of `view`.
fn state(view: &View) -> String {
    let (epoch, commit) = (text(view.epoch()), view.pos());
    let offsets = view.offsets().into_iter();
    let offsets: Vec<_> =
        offsets.map(|(partition, next)| format!("\"{partition}\":{next}")).collect();
    format!("\"epoch\":{epoch},\"commit\":{commit},\"offsets\":{{{}}}", offsets.join(","))
}

/// The beginning of a [`lantern_api::TablePage`].
fn json_begin(view: &View, table: &TableSpec) -> Vec<u8> {
    let fields = serde_json::to_string(&table.fields).expect("fields always encode");
    let (state, per_tenant) = (state(view), table.per_tenant);
    format!("{{{state},\"fields\":{fields},\"per_tenant\":{per_tenant},\"rows\":{{").into_bytes()
}

/// The beginning of a [`lantern_api::QueryPage`].
fn array_begin(view: &View, plan: &Plan) -> Vec<u8> {
    let fields = plan.columns().iter().map(|column| Field {
        name: column.name.clone(),
        kind: column.kind.name().to_owned(),
        unit: column.unit.clone(),
    });
    let fields = serde_json::to_string(&fields.collect::<Vec<_>>()).expect("fields always encode");
    format!("{{{},\"fields\":{fields},\"rows\":[", state(view)).into_bytes()
}
