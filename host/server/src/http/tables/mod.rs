//! `GET /v1/tables/{projection}/{table}`: reads rows.

mod etag;
mod format;
mod page;
mod query;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use lantern_api::TablePage;
use lantern_core::{Offset, PartitionId, Recovering, ViewError, Views as _};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use self::page::{Cursor, continue_after};
use self::query::LIMIT_DEFAULT;
use super::conditional::{Conditions, Verdict};
use super::params::{AnswerFormat, MinOffsets, Names, Params, answer_format, limit, wait};
use super::{App, Shared};
use crate::config::HttpConfig;
use crate::problem::Problem;

pub(crate) use self::page::{read_cursor, write_cursor};
pub(crate) use self::query::{Order, TableQuery};

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
        (status = 304, description = "the table's state is the one that `If-None-Match` names"),
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
    let (format, now) = (answer_format(&headers, &AnswerFormat::ROWS), Instant::now());
    let (until, recovered_by) = (now + wait, now + wait.max(Recovering::WAIT));
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
            ReadOutcome::Recovering(recovering) => {
                if recovering.stopped || !changed(&app, &mut committed, recovered_by).await {
                    return Err(ViewError::from(recovering).into());
                }
            }
            ReadOutcome::Behind { partition, next, least } => {
                if !changed(&app, &mut committed, until).await {
                    let detail = format!(
                        "`{projection}` does not contain offset {least} of partition {partition} yet: its next offset is {next}"
                    );
                    return Err(Problem::new("LAN-0407", detail));
                }
            }
        }
    }
}

/// Waits for a commit or an activation; `false` if there is none in time.
async fn changed(app: &App, committed: &mut watch::Receiver<()>, until: Instant) -> bool {
    tokio::select! {
        changed = timeout_at(until, committed.changed()) => matches!(changed, Ok(Ok(()))),
        () = app.tasks.stopping.cancelled() => false,
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
    /// After a crash, the tables are older than what may have been read before.
    Recovering(Recovering),
    /// The tables do not contain a requested offset yet.
    Behind {
        partition: PartitionId,
        next: Offset,
        least: Offset,
    },
}

impl ParsedQuery {
    fn run(&self, app: &App) -> Result<ReadOutcome, Problem> {
        let view = match &self.which.version {
            None => app.engine.view(&self.projection),
            Some(id) => {
                app.engine.view_version(&self.projection, &lantern_core::VersionId(id.clone()))
            }
        };
        let view = match view {
            Err(ViewError::Recovering(recovering)) => {
                return Ok(ReadOutcome::Recovering(recovering));
            }
            view => view?,
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
        let bytes_max = app.config.http.query_bytes_max;
        let etag = etag::etag(
            &view,
            (&self.projection, &self.table),
            &self.which,
            self.limit,
            self.format,
        );
        let mut response = match self.conditions.evaluate(&etag) {
            Verdict::NotModified => StatusCode::NOT_MODIFIED.into_response(),
            Verdict::Failed => {
                let detail = format!("the table's state is {etag} now");
                Problem::new("LAN-0421", detail).into_response()
            }
            Verdict::Answer => {
                let (rows, next) = page::rows(&view, id, &self.which, self.limit, bytes_max)?;
                match &self.which.key {
                    Some(key) if rows.is_empty() => self.no_row(key).into_response(),
                    _ => format::answer(self.format, &view, table, &rows, next.as_deref()),
                }
            }
        };
        let lag_ms = app.engine.lag(&self.projection).map(|(_, ms)| ms);
        let missing = response.status() == StatusCode::NOT_FOUND;
        let tag = (!missing).then_some(etag.as_str());
        etag::describe(response.headers_mut(), &view, tag, lag_ms);
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
}

/// Describes, as text, what `uri` requests from a table.
pub(crate) fn explain(uri: &Uri, config: &HttpConfig) -> Result<String, Problem> {
    let Params(which) = Params::<TableQuery>::read(uri)?;
    which.check()?;
    let wait = wait(which.wait.as_deref(), config.wait_s_max)?;
    let least = which.min_offset.as_deref().map(MinOffsets::read).transpose()?;
    let limit = limit(which.limit, LIMIT_DEFAULT, config.query_rows_max)?;
    let reverse = which.is_descending();
    let mut range = page::range(&which);
    if let Some(cursor) = &which.cursor {
        continue_after(&mut range, &Cursor::read(cursor)?.key, reverse);
    }
    Ok(format!("{which:?} {wait:?} {least:?} {limit} {range:?} {}", range.is_empty()))
}
