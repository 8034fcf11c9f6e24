//! `GET /v1/tables/{projection}/{table}`: reads rows.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use lantern_api::TablePage;
use lantern_core::{
    Checkpoint, KeyRange, Offset, PartitionId, Row, TableId, TableSpec, View, Views as _,
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};

use super::conditional::{Conditions, Verdict};
use super::params::{AnswerFormat, MinOffsets, Names, Params, answer_format, limit, wait};
use super::{App, Shared};
use crate::cloudevents::NDJSON;
use crate::config::HttpConfig;
use crate::problem::Problem;
use crate::rows::{csv_head, csv_row, json_rows, ndjson_row};

/// The number of rows in an answer if `limit` is not given.
const LIMIT_DEFAULT: usize = 1_000;
/// The number of rows read from the store at a time, so that an answer of large rows
/// ends before all of them are in memory.
const PAGE_ROWS: usize = 500;

/// Which rows to read.
// Long because its members are the parameters of one request.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct TableQuery {
    /// Only the row under this key.
    key: Option<String>,
    /// Rows whose keys begin with this text.
    prefix: Option<String>,
    /// Rows from this key on, including it.
    from: Option<String>,
    /// Rows before this key.
    to: Option<String>,
    /// The maximum number of rows; 1,000 if left out.
    limit: Option<usize>,
    /// `asc` (the default) or `desc`, by key.
    order: Option<Order>,
    /// `next` of the previous page.
    cursor: Option<String>,
    /// Answer with a state that contains the events at these offsets, in the form that
    /// an append returns: `PARTITION:OFFSET`, several separated by commas. The request
    /// waits for that state up to `wait`.
    min_offset: Option<String>,
    /// How long to wait for `min_offset`: `5s`.
    wait: Option<String>,
    /// The version to read; the active one if left out.
    version: Option<String>,
    // Not supported yet, and therefore not described: refused by name, with 501.
    #[param(ignore)]
    r#where: Option<String>,
    #[param(ignore)]
    cols: Option<String>,
    #[param(ignore)]
    bucket: Option<String>,
    #[param(ignore)]
    agg: Option<String>,
    #[param(ignore)]
    by: Option<String>,
    #[param(ignore)]
    fill: Option<String>,
    #[param(ignore)]
    as_of: Option<String>,
}

/// The order of the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// Ascending.
    #[default]
    Asc,
    /// Descending.
    Desc,
}

/// Reads rows of a public table, all from one committed state.
///
/// Answers JSON, or by `Accept` NDJSON (one `{"key":…,"value":{…}}` per line, with
/// `tenant` for a table by tenant) or CSV. `Lantern-Epoch`, `Lantern-Commit`,
/// `Lantern-Offsets` (`PARTITION:OFFSET`, the first offset that the rows do not
/// contain) and `Lantern-Lag-Ms` tell how fresh the rows are. `ETag` and
/// `If-None-Match` avoid sending an answer that has not changed.
#[utoipa::path(
    get, path = "/v1/tables/{projection}/{table}", tag = "tables",
    params(("projection" = String, Path), ("table" = String, Path), TableQuery),
    responses(
        (status = 200, body = TablePage),
        (status = 304, description = "as the `ETag` says"),
        (status = 400, body = Problem),
        (status = 404, body = Problem, description = "no such table, or no row under `key`"),
        (status = 409, body = Problem), (status = 410, body = Problem),
        (status = 412, body = Problem),
        (status = 501, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read(
    State(app): State<Shared>,
    Names((projection, table)): Names<(String, String)>,
    Params(which): Params<TableQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    which.check()?;
    let wait = wait(which.wait.as_deref(), app.config.http.wait_s_max)?;
    let limit = limit(which.limit, LIMIT_DEFAULT, app.config.http.query_rows_max)?;
    let (format, until) = (answer_format(&headers, &AnswerFormat::ROWS), Instant::now() + wait);
    let least = which.min_offset.as_deref().map(MinOffsets::read).transpose()?;
    if let Some(least) = &least {
        least.check(app.log.partitions())?;
    }
    let conditions = Conditions::read(&headers);
    let mut committed = app.signals.committed.clone();
    loop {
        committed.mark_unchanged();
        let query = ParsedQuery {
            projection: projection.clone(),
            table: table.clone(),
            which: which.clone(),
            limit,
            format,
            conditions: conditions.clone(),
            least: least.clone().unwrap_or_default(),
        };
        match app.query(move |app| query.run(app)).await? {
            ReadOutcome::Answer(response) => return Ok(*response),
            ReadOutcome::Behind { partition, next, least } => {
                let changed = async {
                    tokio::select! {
                        changed = timeout_at(until, committed.changed()) => {
                            matches!(changed, Ok(Ok(())))
                        }
                        () = app.tasks.stopping.cancelled() => false,
                    }
                };
                if !changed.await {
                    let detail = format!(
                        "`{projection}` does not contain offset {least} of partition {partition} yet: its next offset is {next}"
                    );
                    return Err(Problem::new("LAN-0407", detail));
                }
            }
        }
    }
}

impl TableQuery {
    fn check(&self) -> Result<(), Problem> {
        for (name, value) in [
            ("where", &self.r#where),
            ("cols", &self.cols),
            ("bucket", &self.bucket),
            ("agg", &self.agg),
            ("by", &self.by),
            ("fill", &self.fill),
            ("as_of", &self.as_of),
        ] {
            if value.is_some() {
                let detail = format!("`{name}` is not supported by this server");
                return Err(Problem::new("LAN-0405", detail).with("parameter", name));
            }
        }
        let ranged = self.prefix.is_some() || self.from.is_some() || self.to.is_some();
        if self.key.is_some() && (ranged || self.cursor.is_some()) {
            let detail = "`key` names one row: leave `prefix`, `from`, `to` and `cursor` out";
            return Err(Problem::new("LAN-0403", detail));
        }
        Ok(())
    }

    /// The range of keys that was requested.
    fn range(&self) -> KeyRange {
        let mut range = KeyRange::prefix(self.prefix.as_deref().unwrap_or_default().as_bytes());
        if let Some(from) = &self.from {
            range.start = range.start.max(from.clone().into_bytes());
        }
        if let Some(to) = &self.to {
            let to = to.clone().into_bytes();
            range.end = Some(range.end.map_or_else(|| to.clone(), |end| end.min(to.clone())));
        }
        range
    }
}

/// One read of a table.
struct ParsedQuery {
    projection: String,
    table: String,
    which: TableQuery,
    limit: usize,
    format: AnswerFormat,
    conditions: Conditions,
    least: MinOffsets,
}

enum ReadOutcome {
    Answer(Box<Response>),
    /// The tables do not contain a requested offset yet.
    Behind {
        partition: PartitionId,
        next: Offset,
        least: Offset,
    },
}

/// Where a page ended.
#[derive(Serialize, Deserialize)]
struct Cursor {
    epoch: String,
    key: String,
    checkpoint: Checkpoint,
}

impl ParsedQuery {
    fn run(&self, app: &App) -> Result<ReadOutcome, Problem> {
        let view = match &self.which.version {
            None => app.engine.view(&self.projection)?,
            Some(id) => {
                app.engine.view_version(&self.projection, &lantern_core::VersionId(id.clone()))?
            }
        };
        for (partition, next) in view.offsets() {
            if let Some(least) = self.least.of(partition).filter(|least| next <= *least) {
                return Ok(ReadOutcome::Behind { partition, next, least });
            }
        }
        let manifest = std::sync::Arc::clone(view.manifest());
        let (id, table) = manifest
            .table(&self.table)
            .filter(|(_, table)| table.public)
            .ok_or_else(|| self.no_table(&manifest))?;
        let etag = self.etag(&view);
        let mut response = match self.conditions.evaluate(&etag) {
            Verdict::NotModified => StatusCode::NOT_MODIFIED.into_response(),
            Verdict::Failed => {
                let detail = format!("the table's state is {etag} now");
                Problem::new("LAN-0421", detail).into_response()
            }
            Verdict::Answer => {
                let (rows, next) = self.rows(&view, id, app.config.http.query_bytes_max)?;
                match &self.which.key {
                    Some(key) if rows.is_empty() => self.no_row(key).into_response(),
                    _ => self.write(&view, table, &rows, next.as_deref()),
                }
            }
        };
        // Left out if it is unknown.
        let lag_ms = app.engine.lag(&self.projection).map(|(_, ms)| ms.into());
        let text = |text: &str| HeaderValue::from_str(text).ok();
        // A missing row has no tag to compare with.
        let tag = if response.status() == StatusCode::NOT_FOUND { None } else { text(&etag) };
        let headers = response.headers_mut();
        for (name, value) in [
            (ETAG, tag),
            (CACHE_CONTROL, text("no-cache")),
            (VARY, text("Accept")),
            (HeaderName::from_static("lantern-commit"), Some(view.pos().into())),
            (HeaderName::from_static("lantern-offsets"), text(&offsets_text(&view))),
            (HeaderName::from_static("lantern-epoch"), text(view.epoch())),
            (HeaderName::from_static("lantern-lag-ms"), lag_ms),
        ] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
        Ok(ReadOutcome::Answer(Box::new(response)))
    }

    fn no_row(&self, key: &str) -> Problem {
        let detail = format!("`{}/{}` has no row under key `{key}`", self.projection, self.table);
        Problem::new("LAN-0425", detail)
    }

    fn no_table(&self, manifest: &lantern_core::Manifest) -> Problem {
        let (projection, table) = (&self.projection, &self.table);
        let detail = match manifest.table(table) {
            Some(_) => format!("table `{table}` of `{projection}` is private"),
            None => format!("projection `{projection}` has no table `{table}`"),
        };
        let public = manifest.tables.iter().filter(|t| t.public).map(|t| t.name.as_str());
        let public: Vec<_> = public.collect();
        Problem::new("LAN-0404", detail).with("tables", public)
    }

    /// The rows, and the key to continue after if there are more.
    fn rows(
        &self,
        view: &View,
        table: TableId,
        bytes_max: usize,
    ) -> Result<(Vec<Row>, Option<String>), Problem> {
        if let Some(key) = &self.which.key {
            let value = view.get(table, key)?;
            let row = value.map(|value| Row { key: key.clone(), value });
            return Ok((row.into_iter().collect(), None));
        }
        let reverse = self.which.order == Some(Order::Desc);
        let mut range = self.which.range();
        if let Some(cursor) = &self.which.cursor {
            let cursor = Cursor::read(cursor)?;
            if cursor.epoch != view.epoch() || !view.continues(&cursor.checkpoint)? {
                let detail = "the table has another history than at the previous page";
                return Err(Problem::new("LAN-0406", detail));
            }
            go_on_after(&mut range, &cursor.key, reverse);
        }
        let (mut rows, mut bytes) = (Vec::new(), 0);
        loop {
            // One row more than requested shows whether there is a next page.
            let wanted = (self.limit - rows.len() + 1).min(PAGE_ROWS);
            if range.is_empty() {
                return Ok((rows, None));
            }
            let page = view.scan(table, &range, wanted, reverse)?;
            let last_page = page.len() < wanted;
            for row in page {
                if rows.len() == self.limit || bytes >= bytes_max {
                    let last = rows.last().map(|last: &Row| last.key.clone());
                    return Ok((rows, last));
                }
                bytes += row.key.len() + row.value.len();
                rows.push(row);
            }
            if last_page {
                return Ok((rows, None));
            }
            if let Some(last) = rows.last() {
                go_on_after(&mut range, &last.key, reverse);
            }
        }
    }

    fn write(&self, view: &View, table: &TableSpec, rows: &[Row], next: Option<&str>) -> Response {
        let cursor = next.map(|key| {
            let (epoch, checkpoint) = (view.epoch().into(), view.checkpoint().coarse());
            Cursor { epoch, key: key.into(), checkpoint }.write()
        });
        let (media, body) = match self.format {
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

    /// Identifies the state and the query; equal tags have equal answers.
    fn etag(&self, view: &View) -> String {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hash = DefaultHasher::new();
        view.checkpoint().hash(&mut hash);
        let w = &self.which;
        (&self.projection, &self.table, view.version(), self.limit).hash(&mut hash);
        (&w.key, &w.prefix, &w.from, &w.to, &w.cursor).hash(&mut hash);
        (w.order == Some(Order::Desc), self.format as u8).hash(&mut hash);
        format!("\"{}-{:016x}\"", view.epoch(), hash.finish())
    }
}

/// The offsets of a view in the form of `min_offset`.
fn offsets_text(view: &View) -> String {
    let offsets = view.offsets().into_iter();
    let offsets: Vec<_> = offsets.map(|(partition, next)| format!("{partition}:{next}")).collect();
    offsets.join(",")
}

fn go_on_after(range: &mut KeyRange, key: &str, reverse: bool) {
    let mut key = key.as_bytes().to_vec();
    if reverse {
        range.end = Some(range.end.take().map_or_else(|| key.clone(), |end| end.min(key.clone())));
    } else {
        key.push(0);
        range.start = std::mem::take(&mut range.start).max(key);
    }
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

impl Cursor {
    fn write(&self) -> String {
        let bytes = postcard::to_stdvec(self).expect("strings and numbers always encode");
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    fn read(text: &str) -> Result<Self, Problem> {
        BASE64_URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| postcard::from_bytes(&bytes).ok())
            .ok_or_else(|| Problem::new("LAN-0212", format!("`{text}` is not a cursor of a table")))
    }
}

/// What `uri` requests from a table, as text.
pub(crate) fn explain(uri: &Uri, config: &HttpConfig) -> Result<String, Problem> {
    let Params(which) = Params::<TableQuery>::read(uri)?;
    which.check()?;
    let wait = wait(which.wait.as_deref(), config.wait_s_max)?;
    let least = which.min_offset.as_deref().map(MinOffsets::read).transpose()?;
    let limit = limit(which.limit, LIMIT_DEFAULT, config.query_rows_max)?;
    let reverse = which.order == Some(Order::Desc);
    let mut range = which.range();
    if let Some(cursor) = &which.cursor {
        go_on_after(&mut range, &Cursor::read(cursor)?.key, reverse);
    }
    Ok(format!("{which:?} {wait:?} {least:?} {limit} {range:?} {}", range.is_empty()))
}

/// The epoch, the key and the checkpoint that a cursor contains.
pub(crate) fn read_cursor(text: &str) -> Result<(String, String, Checkpoint), Problem> {
    Cursor::read(text).map(|cursor| (cursor.epoch, cursor.key, cursor.checkpoint))
}

/// The inverse of [`read_cursor`].
pub(crate) fn write_cursor(epoch: &str, key: &str, checkpoint: &Checkpoint) -> String {
    Cursor { epoch: epoch.into(), key: key.into(), checkpoint: checkpoint.clone() }.write()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_goes_on_where_the_one_before_ended() {
        let which = TableQuery {
            prefix: Some("p".into()),
            from: Some("p2".into()),
            to: Some("z".into()),
            ..TableQuery::default()
        };
        let mut range = which.range();
        assert_eq!(range, KeyRange { start: b"p2".to_vec(), end: Some(b"q".to_vec()) });
        go_on_after(&mut range, "p5", false);
        assert_eq!(range.start, b"p5\0");
        go_on_after(&mut range, "p7", true);
        assert_eq!(range.end, Some(b"p7".to_vec()));
        go_on_after(&mut range, "p5", true);
        assert!(range.is_empty());
    }

    #[test]
    fn a_cursor_comes_back_as_given_and_others_are_refused() {
        let checkpoint = Checkpoint::default();
        let cursor = Cursor { epoch: "1.a.0".into(), key: "ké\u{0}y".into(), checkpoint };
        let back = Cursor::read(&cursor.write()).unwrap();
        assert_eq!((back.epoch, back.key), (cursor.epoch, cursor.key));
        for bad in ["???", "e30", "e"] {
            assert_eq!(Cursor::read(bad).err().unwrap().code, "LAN-0212");
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let which = TableQuery { as_of: Some("pos:1".into()), ..TableQuery::default() };
        let problem = which.check().unwrap_err();
        assert_eq!((problem.status, problem.more["parameter"].as_str()), (501, Some("as_of")));
        let both =
            TableQuery { key: Some("a".into()), from: Some("b".into()), ..TableQuery::default() };
        assert_eq!(both.check().unwrap_err().status, 400);
    }
}
