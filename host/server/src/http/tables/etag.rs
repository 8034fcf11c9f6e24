//! The `ETag` of an answer, for conditional requests, and the headers with the state that
//! the answer shows and its lag.

use http::header::{CACHE_CONTROL, ETAG, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};
use lantern_core::View;

use super::query::TableQuery;
use crate::http::params::AnswerFormat;

/// Identifies the state and the query; equal tags have equal answers.
pub(super) fn etag(
    view: &View,
    (projection, table): (&str, &str),
    w: &TableQuery,
    limit: usize,
    format: AnswerFormat,
) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hash = DefaultHasher::new();
    view.checkpoint().hash(&mut hash);
    (projection, table, view.version(), limit).hash(&mut hash);
    (&w.key, &w.prefix, &w.from, &w.to, &w.cursor).hash(&mut hash);
    (w.is_descending(), format as u8).hash(&mut hash);
    (&w.r#where, &w.cols, &w.order, &w.time, &w.start, &w.end).hash(&mut hash);
    (&w.bucket, &w.by, &w.agg, &w.fill, &w.tz).hash(&mut hash);
    format!("\"{}-{:016x}\"", view.epoch(), hash.finish())
}

/// Adds the headers that describe the state of `view`. `etag` is left out for a missing
/// row, which has no tag to compare with; `lag_ms` if it is unknown.
pub(super) fn describe(
    headers: &mut HeaderMap,
    view: &View,
    etag: Option<&str>,
    lag_ms: Option<u64>,
) {
    let text = |text: &str| HeaderValue::from_str(text).ok();
    for (name, value) in [
        (ETAG, etag.and_then(text)),
        (CACHE_CONTROL, text("no-cache")),
        (VARY, text("Accept")),
        (HeaderName::from_static("lantern-commit"), Some(view.pos().into())),
        (HeaderName::from_static("lantern-offsets"), text(&offsets_text(view))),
        (HeaderName::from_static("lantern-epoch"), text(view.epoch())),
        (HeaderName::from_static("lantern-lag-ms"), lag_ms.map(Into::into)),
    ] {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
}

/// The offsets of a view in the form of `min_offset`.
fn offsets_text(view: &View) -> String {
    let offsets = view.offsets().into_iter();
    let offsets: Vec<_> = offsets.map(|(partition, next)| format!("{partition}:{next}")).collect();
    offsets.join(",")
}
