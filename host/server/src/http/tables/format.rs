//! The forms of an answer: JSON, NDJSON and CSV.

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use lantern_api::feed::Field;
use lantern_core::{Row, TableSpec, View};
use lantern_query::{GroupValue, OutputColumn, Plan};

use super::page::Cursor;
use crate::cloudevents::NDJSON;
use crate::http::params::AnswerFormat;
use crate::rows::{csv_head, csv_line, csv_row, json_row, json_rows, ndjson_row};

/// The answer with `rows` in `format`; `next` is the key after which the next page
/// begins.
pub(super) fn answer(
    format: AnswerFormat,
    view: &View,
    table: &TableSpec,
    rows: &[Row],
    next: Option<&str>,
) -> Response {
    let cursor = next.map(|key| {
        let (epoch, checkpoint) = (view.epoch().into(), view.checkpoint().coarse());
        Cursor { epoch, key: key.into(), checkpoint }.write()
    });
    let (media, body) = match format {
        // Rows cannot be written as events.
        AnswerFormat::Json | AnswerFormat::Batch => {
            ("application/json", json_page(view, table, rows, cursor.as_deref()))
        }
        AnswerFormat::Ndjson => {
            let mut body = Vec::new();
            rows.iter().for_each(|row| ndjson_row(table, row, &mut body));
            (NDJSON, body)
        }
        AnswerFormat::Csv => {
            let mut body = csv_head(table);
            rows.iter().for_each(|row| csv_row(table, row, &mut body));
            ("text/csv; charset=utf-8", body)
        }
    };
    respond(media, body, cursor)
}

/// The table with only the fields in `columns`, in their order.
pub(super) fn projected(table: &TableSpec, columns: &[OutputColumn]) -> TableSpec {
    let field = |column: &OutputColumn| {
        table.fields.iter().find(|field| field.name == column.name).cloned()
    };
    TableSpec { fields: columns.iter().filter_map(field).collect(), ..table.clone() }
}

/// What an answer in order contains.
pub(super) enum Shown<'a> {
    Rows(&'a TableSpec, &'a [Row]),
    Groups(&'a Plan, &'a [Vec<GroupValue>]),
}

/// The answer with rows in the order of a field, or with groups; `next` is the cursor of
/// the next page.
pub(super) fn answer_in_order(
    format: AnswerFormat,
    view: &View,
    plan: &Plan,
    shown: &Shown<'_>,
    next: Option<String>,
) -> Response {
    let mut body = Vec::new();
    let media = match format {
        AnswerFormat::Json | AnswerFormat::Batch => {
            write_page(view, plan, shown, next.as_deref(), &mut body);
            "application/json"
        }
        AnswerFormat::Ndjson => {
            shown.each_json(&mut body, |out, _| out.push(b'\n'));
            NDJSON
        }
        AnswerFormat::Csv => {
            shown.write_csv(&mut body);
            "text/csv; charset=utf-8"
        }
    };
    respond(media, body, next)
}

impl Shown<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Rows(_, rows) => rows.len(),
            Self::Groups(_, groups) => groups.len(),
        }
    }

    /// Appends each row or group as an object, and calls `after` with its index.
    fn each_json(&self, out: &mut Vec<u8>, after: impl Fn(&mut Vec<u8>, usize)) {
        for index in 0..self.len() {
            match self {
                Self::Rows(table, rows) => json_row(table, &rows[index], out),
                Self::Groups(plan, groups) => plan.write_group(&groups[index], out),
            }
            after(out, index);
        }
    }

    fn write_csv(&self, out: &mut Vec<u8>) {
        match self {
            Self::Rows(table, rows) => {
                out.extend(csv_head(table));
                rows.iter().for_each(|row| csv_row(table, row, out));
            }
            Self::Groups(plan, groups) => {
                csv_line(plan.columns().iter().map(|column| column.name.as_str()), out);
                for group in *groups {
                    let cells: Vec<String> = group
                        .iter()
                        .enumerate()
                        .map(|(index, value)| plan.cell(index, value))
                        .collect();
                    csv_line(cells.iter().map(String::as_str), out);
                }
            }
        }
    }
}

/// Writes [`lantern_api::QueryPage`].
fn write_page(view: &View, plan: &Plan, shown: &Shown<'_>, next: Option<&str>, body: &mut Vec<u8>) {
    let fields = plan.columns().iter().map(|column| Field {
        name: column.name.clone(),
        kind: column.kind.name().to_owned(),
        unit: column.unit.clone(),
    });
    let fields = serde_json::to_string(&fields.collect::<Vec<_>>()).expect("fields always encode");
    body.extend_from_slice(format!("{{{},\"fields\":{fields},\"rows\":[", state(view)).as_bytes());
    let last = shown.len().saturating_sub(1);
    shown.each_json(body, |out, index| {
        if index < last {
            out.push(b',');
        }
    });
    body.extend_from_slice(
        format!("],\"next\":{}}}", next.map_or_else(|| "null".into(), text)).as_bytes(),
    );
}

fn respond(media: &'static str, body: Vec<u8>, cursor: Option<String>) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    // NDJSON and CSV have no place for the cursor.
    if let Some(cursor) = cursor.and_then(|cursor| HeaderValue::try_from(cursor).ok()) {
        headers.insert("lantern-next", cursor);
    }
    response
}

fn text(text: &str) -> String {
    serde_json::to_string(text).expect("a string always encodes")
}

/// The members that identify the state of `view`.
fn state(view: &View) -> String {
    let (epoch, commit) = (text(view.epoch()), view.pos());
    let offsets = view.offsets().into_iter();
    let offsets: Vec<_> =
        offsets.map(|(partition, next)| format!("\"{partition}\":{next}")).collect();
    format!("\"epoch\":{epoch},\"commit\":{commit},\"offsets\":{{{}}}", offsets.join(","))
}

fn json_page(view: &View, table: &TableSpec, rows: &[Row], next: Option<&str>) -> Vec<u8> {
    let fields = serde_json::to_string(&table.fields).expect("fields always encode");
    let (state, per_tenant) = (state(view), table.per_tenant);
    let mut body = format!("{{{state},\"fields\":{fields},\"per_tenant\":{per_tenant},\"rows\":{{")
        .into_bytes();
    json_rows(table, rows, &mut body);
    let next = next.map_or_else(|| "null".into(), text);
    body.extend_from_slice(format!("}},\"next\":{next}}}").as_bytes());
    body
}
