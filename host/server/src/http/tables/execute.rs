//! Reads a table on a thread that may block. It opens a view, and writes the answer.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::header::ETAG;
use http::{HeaderMap, StatusCode};
use lantern_core::{
    Manifest, Offset, PartitionId, Recovering, StoreError, TableId, TableSpec, VersionId, View,
    ViewError, Views as _,
};
use lantern_query::{Budget, Cancel, PageSize, Plan, QueryRequest};

use super::etag;
use super::export::{Export, ExportRows};
use super::format;
use super::page;
use super::prometheus::MetricSource;
use super::query_cursor::{Position, QueryCursor};
use super::result_shape::{PageRows, ResultShape};
use super::table_read::TableRead;
use crate::app::App;
use crate::http::conditional::Verdict;
use crate::http::params::AnswerFormat;
use crate::problem::Problem;

/// The result of a read.
pub(super) enum ReadOutcome {
    Answer(Box<Response>),
    /// The tables cannot be read yet after a crash: they are older than the tables that readers may
    /// have seen.
    Recovering(Recovering),
    /// The request requires an offset that the tables do not contain yet.
    Behind {
        partition: PartitionId,
        next: Offset,
        least: Offset,
    },
}

impl TableRead {
    pub(super) fn run(&self, app: &App, cancel: &Cancel) -> Result<ReadOutcome, Problem> {
        let view = match &self.which.version {
            None => app.engine.view(&self.projection),
            Some(id) => app.engine.view_version(&self.projection, &VersionId(id.clone())),
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
        let manifest = Arc::clone(view.manifest());
        let (id, table) = public_table(&manifest, &self.projection, &self.table)?;
        let request = self.request.as_ref();
        let plan = request.map(|request| Plan::new(table, request)).transpose()?;
        let tag = self.conditions.as_ref().map(|conditions| {
            let names = (self.projection.as_str(), self.table.as_str());
            let last_change = view.checkpoint_of(id)?;
            let tag = etag::etag(&view, &last_change, names, self);
            Ok::<_, StoreError>((conditions.evaluate(&tag), tag))
        });
        let tag = tag.transpose()?;
        let mut described = HeaderMap::new();
        let lag_ms = app.engine.lag(&self.projection).map(|(_, ms)| ms);
        let tag_text = tag.as_ref().map(|(_, tag)| tag.as_str());
        etag::describe(&mut described, &view, tag_text, lag_ms);
        let mut response = match &tag {
            Some((Verdict::NotModified, _)) => StatusCode::NOT_MODIFIED.into_response(),
            Some((Verdict::Failed, tag)) => {
                let detail = format!("the table's state is {tag} now");
                Problem::new("LAN-0421", detail).into_response()
            }
            _ if self.which.export => {
                let plan = plan.map_or_else(|| Plan::new(table, &self.all_rows()), Ok)?;
                self.export(app, view, (id, table), plan, cancel)?
            }
            _ => match (&plan, request) {
                (Some(plan), Some(request)) => {
                    let mut budget = Budget::new(&app.config.query, cancel.clone());
                    self.run_plan(app, &view, (id, table), (plan, request), &mut budget)?
                }
                _ => self.read_by_key(app, &view, (id, table))?,
            },
        };
        if response.status() == StatusCode::NOT_FOUND {
            described.remove(ETAG);
        }
        response.headers_mut().extend(described);
        Ok(ReadOutcome::Answer(Box::new(response)))
    }

    fn read_by_key(
        &self,
        app: &App,
        view: &View,
        (id, table): (TableId, &TableSpec),
    ) -> Result<Response, Problem> {
        let bytes_max = app.config.http.query_bytes_max;
        let (rows, next) = page::rows(view, id, &self.which, self.limit, bytes_max)?;
        Ok(match &self.which.key {
            Some(key) if rows.is_empty() => self.no_row(key).into_response(),
            _ => {
                let next = next.map(|key| format::cursor(view, &key));
                let (shape, rows) = (ResultShape::ByKey(table), PageRows::Rows(&rows));
                self.page(app, view, shape, rows, next)?
            }
        })
    }

    fn page(
        &self,
        app: &App,
        view: &View,
        shape: ResultShape<'_>,
        rows: PageRows<'_>,
        next: Option<String>,
    ) -> Result<Response, Problem> {
        let metrics = MetricSource {
            projection: &self.projection,
            table: &self.table,
            request: self.request.as_ref(),
            rows_max: app.config.query.prometheus_rows_max,
        };
        // Metrics have no pages. If the request has a limit, these rows are the whole result, so
        // the cursor is dropped.
        let next = next
            .filter(|_| self.form.format != AnswerFormat::Prometheus || self.which.limit.is_none());
        format::page(self.form, view, &metrics, shape, rows, next)
    }

    /// Returns the query that reads all rows in key order, for a read by keys.
    fn all_rows(&self) -> QueryRequest {
        QueryRequest { order: self.which.order.clone(), ..QueryRequest::default() }
    }

    /// Returns an answer that is written while the client reads it. Groups, and rows in the order
    /// of a field, are computed before the answer begins.
    fn export(
        &self,
        app: &App,
        view: View,
        (id, table): (TableId, &TableSpec),
        plan: Plan,
        cancel: &Cancel,
    ) -> Result<Response, Problem> {
        let permit = app.export_permit()?;
        let range = page::range(&self.which);
        let size = PageSize { rows: self.limit, bytes: usize::MAX };
        let mut budget = Budget::new(&app.config.query, cancel.clone());
        let rows = if plan.is_in_key_order() {
            ExportRows::InKeyOrder(id, range, self.limit)
        } else if plan.is_roll_up() {
            let found = plan.groups(&view.rows(id), &range, None, size, &mut budget)?;
            ExportRows::Groups(found.groups)
        } else {
            ExportRows::Rows(plan.rows(&view.rows(id), &range, None, size, &mut budget)?.rows)
        };
        let (table, config) = (format::projected(table, plan.columns()), app.config.query.clone());
        let export = Export { view, table, plan, rows, form: self.form, config, permit };
        Ok(export.respond())
    }

    fn run_plan(
        &self,
        app: &App,
        view: &View,
        (id, table): (TableId, &TableSpec),
        (plan, request): (&Plan, &QueryRequest),
        budget: &mut Budget<'_>,
    ) -> Result<Response, Problem> {
        let size = PageSize { rows: self.limit, bytes: app.config.http.query_bytes_max };
        let source = view.rows(id);
        let shown = format::projected(table, plan.columns());
        if plan.is_in_key_order() {
            let range = page::range_after_cursor(view, &self.which)?;
            let found = plan.rows(&source, &range, None, size, budget)?;
            let next = found.next.as_ref().map(|next| format::cursor(view, &next.key));
            if let Some(key) = self.which.key.as_ref().filter(|_| found.rows.is_empty()) {
                return Ok(self.no_row(key).into_response());
            }
            let (shape, rows) = (ResultShape::ByKey(&shown), PageRows::Rows(&found.rows));
            return self.page(app, view, shape, rows, next);
        }
        let range = page::range(&self.which);
        let after = QueryCursor::position(self.which.cursor.as_deref(), view, request)?;
        let cursor = |position| QueryCursor::new(view, request, position).write();
        if plan.is_roll_up() {
            let after = match &after {
                Some(Position::Group(after)) => Some(after),
                _ => None,
            };
            let found = plan.groups(&source, &range, after, size, budget)?;
            let next = found.next.map(|next| cursor(Position::Group(next)));
            let (shape, rows) = (ResultShape::Groups(plan), PageRows::Groups(&found.groups));
            return self.page(app, view, shape, rows, next);
        }
        let after = match &after {
            Some(Position::Row(after)) => Some(after),
            _ => None,
        };
        let found = plan.rows(&source, &range, after, size, budget)?;
        let next = found.next.map(|next| cursor(Position::Row(next)));
        let (shape, rows) = (ResultShape::InOrder(&shown, plan), PageRows::Rows(&found.rows));
        self.page(app, view, shape, rows, next)
    }

    fn no_row(&self, key: &str) -> Problem {
        let detail = format!("`{}/{}` has no row under key `{key}`", self.projection, self.table);
        Problem::new("LAN-0425", detail)
    }
}

/// Returns the public table `table` of `projection`. If the table does not exist or is private,
/// returns the answer for this.
pub(super) fn public_table<'m>(
    manifest: &'m Manifest,
    projection: &str,
    table: &str,
) -> Result<(TableId, &'m TableSpec), Problem> {
    if let Some(found) = manifest.public_table(table) {
        return Ok(found);
    }
    let detail = match manifest.table(table) {
        Some(_) => format!("table `{table}` of `{projection}` is private"),
        None => format!("projection `{projection}` has no table `{table}`"),
    };
    let public: Vec<_> = manifest.public_tables().map(|(_, table)| table.name.as_str()).collect();
    Err(Problem::new("LAN-0404", detail).with("tables", public))
}
