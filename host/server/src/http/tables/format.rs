//! The forms of an answer: JSON, NDJSON and CSV.

use axum::response::{IntoResponse, Response};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use lantern_core::{Row, TableSpec, View};

use super::page::Cursor;
use crate::cloudevents::NDJSON;
use crate::http::params::AnswerFormat;
use crate::rows::{csv_head, csv_row, json_rows, ndjson_row};

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
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    // NDJSON and CSV have no place for the cursor.
    if let Some(cursor) = cursor.and_then(|cursor| HeaderValue::try_from(cursor).ok()) {
        headers.insert("lantern-next", cursor);
    }
    response
}

fn json_page(view: &View, table: &TableSpec, rows: &[Row], next: Option<&str>) -> Vec<u8> {
    let fields = serde_json::to_string(&table.fields).expect("fields always encode");
    let text = |text: &str| serde_json::to_string(text).expect("a string always encodes");
    let (epoch, commit) = (text(view.epoch()), view.pos());
    let offsets = view.offsets().into_iter();
    let offsets: Vec<_> =
        offsets.map(|(partition, next)| format!("\"{partition}\":{next}")).collect();
    let (offsets, per_tenant) = (offsets.join(","), table.per_tenant);
    let mut body = format!(
        "{{\"epoch\":{epoch},\"commit\":{commit},\"offsets\":{{{offsets}}},\"fields\":{fields},\"per_tenant\":{per_tenant},\"rows\":{{"
    )
    .into_bytes();
    json_rows(table, rows, &mut body);
    let next = next.map_or_else(|| "null".into(), text);
    body.extend_from_slice(format!("}},\"next\":{next}}}").as_bytes());
    body
}
