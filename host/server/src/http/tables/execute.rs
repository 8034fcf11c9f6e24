//! Reads a table on a thread that may block: opens a view, and writes the answer.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use lantern_core::{
    Manifest, Offset, PartitionId, Recovering, TableId, TableSpec, VersionId, View, ViewError,
    Views as _,
};
use lantern_query::{Budget, Cancel, PageSize, Plan, QueryRequest};

use super::etag;
use super::format::{self, Shown};
use super::page;
use super::query::TableQuery;
use super::query_cursor::{Position, QueryCursor};
use crate::app::App;
use crate::http::conditional::{Conditions, Verdict};
use crate::http::params::{AnswerFormat, MinOffsets};
use crate::problem::Problem;

/// One read of a table.
pub(super) struct TableRead {
    pub(super) projection: String,
    pub(super) table: String,
    pub(super) which: TableQuery,
    /// The query; `None` if rows are read only by their keys.
    pub(super) request: Option<QueryRequest>,
    pub(super) limit: usize,
    pub(super) format: AnswerFormat,
    /// `None` if the answer has no tag.
    pub(super) conditions: Option<Conditions>,
    pub(super) least: MinOffsets,
}

/// The result of a read.
pub(super) enum ReadOutcome {
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
        let (id, table) = manifest
            .table(&self.table)
            .filter(|(_, table)| table.public)
            .ok_or_else(|| self.no_table(&manifest))?;
        let request = self.request.as_ref();
        let plan = request.map(|request| Plan::new(table, request)).transpose()?;
        let tag = self.conditions.as_ref().map(|conditions| {
            let names = (self.projection.as_str(), self.table.as_str());
            let tag = etag::etag(&view, names, &self.which, self.limit, self.format);
            (conditions.evaluate(&tag), tag)
        });
        let mut response = match &tag {
            Some((Verdict::NotModified, _)) => StatusCode::NOT_MODIFIED.into_response(),
            Some((Verdict::Failed, tag)) => {
                let detail = format!("the table's state is {tag} now");
                Problem::new("LAN-0421", detail).into_response()
            }
            _ => match (&plan, request) {
                (Some(plan), Some(request)) => {
                    let mut budget = Budget::new(&app.config.query, cancel.clone());
                    self.run_plan(app, &view, (id, table), (plan, request), &mut budget)?
                }
                _ => self.read_by_key(app, &view, (id, table))?,
            },
        };
        let lag_ms = app.engine.lag(&self.projection).map(|(_, ms)| ms);
        let missing = response.status() == StatusCode::NOT_FOUND;
        let tag = tag.as_ref().filter(|_| !missing).map(|(_, tag)| tag.as_str());
        etag::describe(response.headers_mut(), &view, tag, lag_ms);
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
            _ => format::answer(self.format, view, table, &rows, next.as_deref()),
        })
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
            let next = found.next.as_ref().map(|next| next.key.as_str());
            return Ok(match &self.which.key {
                Some(key) if found.rows.is_empty() => self.no_row(key).into_response(),
                _ => format::answer(self.format, view, &shown, &found.rows, next),
            });
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
            let shown = Shown::Groups(plan, &found.groups);
            return Ok(format::answer_in_order(self.format, view, plan, &shown, next));
        }
        let after = match &after {
            Some(Position::Row(after)) => Some(after),
            _ => None,
        };
        let found = plan.rows(&source, &range, after, size, budget)?;
        let next = found.next.map(|next| cursor(Position::Row(next)));
        let shown = Shown::Rows(&shown, &found.rows);
        Ok(format::answer_in_order(self.format, view, plan, &shown, next))
    }

    fn no_row(&self, key: &str) -> Problem {
        let detail = format!("`{}/{}` has no row under key `{key}`", self.projection, self.table);
        Problem::new("LAN-0425", detail)
    }

    fn no_table(&self, manifest: &Manifest) -> Problem {
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
