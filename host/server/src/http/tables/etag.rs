//! Writes the headers of an answer: the `ETag` for conditional requests, the state that the answer
//! shows, and its lag.

use http::header::{CACHE_CONTROL, ETAG, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};
use lantern_core::{Checkpoint, View};

use super::table_read::TableRead;

/// Returns a tag for conditional requests. It identifies the last change of the table, and the
/// query. Answers with equal tags have equal rows.
pub(super) fn etag(
    view: &View,
    last_change: &Checkpoint,
    (projection, table): (&str, &str),
    read: &TableRead,
) -> String {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hash = DefaultHasher::new();
    last_change.hash(&mut hash);
    let TableRead { which: w, request, form, limit, .. } = read;
    (projection, table, view.version(), limit).hash(&mut hash);
    (&w.key, &w.prefix, &w.from, &w.to, &w.cursor).hash(&mut hash);
    (w.is_descending(), form.format as u8, form.coding, w.export).hash(&mut hash);
    format!("{request:?}").hash(&mut hash);
    format!("\"{}-{:016x}\"", view.epoch(), hash.finish())
}

/// Adds the headers that describe the state of `view`. `etag` is `None` for a missing row, which
/// has no tag. `lag_ms` is `None` if the lag is not known.
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
        (VARY, text("Accept, Accept-Encoding")),
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

/// Returns the offsets of a view, in the form of the parameter `min_offset`.
fn offsets_text(view: &View) -> String {
    let offsets = view.offsets().into_iter();
    let offsets: Vec<_> = offsets.map(|(partition, next)| format!("{partition}:{next}")).collect();
    offsets.join(",")
}
