//! Answers `GET /v1/tables/{projection}/{table}`, which reads rows.

mod answer_form;
mod etag;
mod execute;
mod export;
mod format;
mod page;
mod prometheus;
mod query;
mod query_cursor;
mod response_coding;
mod result_shape;
mod table_read;

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::{HeaderMap, Uri, Version};
use lantern_api::{QueryBody, QueryPage, TablePage};
use lantern_core::{Recovering, View, ViewError};
use lantern_query::{Cancel, Plan, QueryRequest};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use self::answer_form::AnswerForm;
use self::execute::ReadOutcome;
use self::page::{Cursor, continue_after};
use self::query::LIMIT_DEFAULT;
use self::query_cursor::QueryCursor;
use self::response_coding::ResponseCoding;
use self::table_read::TableRead;
use super::conditional::Conditions;
use super::params::{AnswerFormat, MinOffsets, Names, SmallBody, answer_format, limit, wait};
use super::projections::read_json;
use super::{App, Shared};
use crate::config::HttpConfig;
use crate::problem::Problem;

pub(crate) use self::page::{read_cursor, write_cursor};
pub(in crate::http) use self::query::TableQuery;

/// Reads rows of a public table, or groups of them, all from one committed state.
///
/// Answers JSON. `format` or `Accept` selects another format:
///
/// * NDJSON: one `{"key":…,"value":{…}}` per line, with `tenant` for a table by tenant. For a
///   roll-up, one object per group.
/// * CSV, an Arrow IPC stream, or Parquet.
///
/// Rows in key order are an object by key. Rows in the order of a field, and the groups of a
/// roll-up (`bucket`, `by`, `agg`), are an array.
///
/// With `export=1` the answer is the whole result, from one committed state. If an export cannot be
/// completed, it breaks off within its body.
///
/// `Lantern-Epoch`, `Lantern-Commit`, `Lantern-Offsets` (`PARTITION:OFFSET`, the first offset that
/// the rows do not contain) and `Lantern-Lag-Ms` tell how fresh the rows are. With `ETag` and
/// `If-None-Match`, an answer that has not changed is not sent again.
#[utoipa::path(
    get, path = "/v1/tables/{projection}/{table}", tag = "tables",
    params(("projection" = String, Path), ("table" = String, Path), TableQuery),
    responses(
        (status = 200, body = TableAnswer),
        (status = 304, description = "the table's state is the one that `If-None-Match` names"),
        (status = 400, body = Problem),
        (status = 404, body = Problem, description = "no such table, or no row under `key`"),
        (status = 409, body = Problem), (status = 410, body = Problem),
        (status = 412, body = Problem), (status = 422, body = Problem),
        (status = 501, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn read(
    State(app): State<Shared>,
    Names(names): Names<(String, String)>,
    version: Version,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let which = TableQuery::read(&uri)?;
    which.check()?;
    which.check_version(version)?;
    let request = which.request()?;
    let form = form(&headers, &which);
    let conditions = Some(Conditions::read(&headers));
    answer(app, names, which, request, form, conditions).await
}

/// Runs a query of a public table.
///
/// Each member of the body means the same as the parameter of this name of `GET`. The answer is the
/// same too, but has no `ETag`.
#[utoipa::path(
    post, path = "/v1/tables/{projection}/{table}/query", tag = "tables",
    params(("projection" = String, Path), ("table" = String, Path)),
    request_body = QueryBody,
    responses(
        (status = 200, body = TableAnswer),
        (status = 400, body = Problem),
        (status = 404, body = Problem, description = "no such table"),
        (status = 409, body = Problem), (status = 410, body = Problem),
        (status = 422, body = Problem), (status = 503, body = Problem),
    )
)]
pub(crate) async fn query(
    State(app): State<Shared>,
    Names(names): Names<(String, String)>,
    version: Version,
    headers: HeaderMap,
    SmallBody(body): SmallBody,
) -> Result<Response, Problem> {
    let (which, request) = TableQuery::of_body(read_json::<QueryBody>(&body)?)?;
    which.check_version(version)?;
    let request = (request != QueryRequest::default()).then_some(request);
    let form = form(&headers, &which);
    answer(app, names, which, request, form, None).await
}

/// Returns the format and the compression of the answer that a request asks for.
fn form(headers: &HeaderMap, which: &TableQuery) -> AnswerForm {
    let accepted = || answer_format(headers, &AnswerFormat::ROWS);
    let format = which.format.map_or_else(accepted, AnswerFormat::from);
    AnswerForm { format, coding: ResponseCoding::accepted(headers) }
}

/// Answers a request that runs a query under another path than that of the table, such as a named
/// query.
pub(super) async fn answer_query(
    app: Shared,
    names: (String, String),
    which: TableQuery,
    request: QueryRequest,
    headers: &HeaderMap,
    conditions: Option<Conditions>,
) -> Result<Response, Problem> {
    let form = form(headers, &which);
    answer(app, names, which, Some(request), form, conditions).await
}

/// Checks a query against a table of `view`.
pub(super) fn check_query(view: &View, table: &str, request: &QueryRequest) -> Result<(), Problem> {
    let (_, table) = execute::public_table(view.manifest(), view.projection(), table)?;
    Ok(Plan::new(table, request).map(drop)?)
}

/// The answer of a query, in one of two forms.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it describes the answer, which is written as text")]
pub(crate) enum TableAnswer {
    /// Rows in key order.
    ByKey(TablePage),
    /// Rows in the order of a field, or groups.
    InOrder(QueryPage),
}

async fn answer(
    app: Shared,
    (projection, table): (String, String),
    which: TableQuery,
    request: Option<QueryRequest>,
    form: AnswerForm,
    conditions: Option<Conditions>,
) -> Result<Response, Problem> {
    let wait = wait(which.wait.as_deref(), app.config.http.wait_s_max)?;
    let limit = if form.format == AnswerFormat::Prometheus {
        let max = app.config.query.prometheus_rows_max;
        limit(which.limit, max, max)?
    } else if which.export {
        limit(which.limit, usize::MAX, usize::MAX)?
    } else {
        limit(which.limit, LIMIT_DEFAULT, app.config.http.query_rows_max)?
    };
    let now = Instant::now();
    let (until, recovered_by) = (now + wait, now + wait.max(Recovering::WAIT));
    let least = which.min_offset.as_deref().map(MinOffsets::read).transpose()?.unwrap_or_default();
    least.check(app.log.partitions())?;
    let read = TableRead { projection, table, which, request, limit, form, conditions, least };
    let read = Arc::new(read);
    let mut committed = app.signals.committed.clone();
    loop {
        committed.mark_unchanged();
        let reading = Arc::clone(&read);
        let outcome = if read.request.is_some() {
            app.query(move |app, cancel| reading.run(app, cancel)).await?
        } else {
            app.read(move |app| reading.run(app, &Cancel::default())).await?
        };
        match outcome {
            ReadOutcome::Answer(response) => return Ok(*response),
            ReadOutcome::Recovering(recovering) => {
                if recovering.stopped || !changed(&app, &mut committed, recovered_by).await {
                    return Err(ViewError::from(recovering).into());
                }
            }
            ReadOutcome::Behind { partition, next, least } => {
                if !changed(&app, &mut committed, until).await {
                    let detail = format!(
                        "`{}` does not contain offset {least} of partition {partition} yet: its next offset is {next}",
                        read.projection
                    );
                    return Err(Problem::new("LAN-0407", detail));
                }
            }
        }
    }
}

/// Waits for a commit or an activation. Returns `false` if there is none in time.
async fn changed(app: &App, committed: &mut watch::Receiver<()>, until: Instant) -> bool {
    tokio::select! {
        changed = timeout_at(until, committed.changed()) => matches!(changed, Ok(Ok(()))),
        () = app.tasks.stopping.cancelled() => false,
    }
}

/// Describes as text what `uri` requests from a table.
pub(crate) fn explain(uri: &Uri, config: &HttpConfig) -> Result<String, Problem> {
    let which = TableQuery::read(uri)?;
    which.check()?;
    let wait = wait(which.wait.as_deref(), config.wait_s_max)?;
    let least = which.min_offset.as_deref().map(MinOffsets::read).transpose()?;
    let limit = limit(which.limit, LIMIT_DEFAULT, config.query_rows_max)?;
    let request = which.request()?;
    let reverse = which.is_descending();
    let mut range = page::range(&which);
    if let Some(cursor) = &which.cursor {
        match QueryCursor::read(cursor) {
            Some(cursor) => _ = cursor?,
            None => continue_after(&mut range, &Cursor::read(cursor)?.key, reverse),
        }
    }
    let empty = range.is_empty();
    Ok(format!("{which:?} {request:?} {wait:?} {least:?} {limit} {range:?} {empty}"))
}
