//! `GET /v1/tables/{projection}/{table}/diff`: how two versions of a table differ.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use lantern_api::TableDiff;
use lantern_core::{KeyRange, TableId, TableSpec, VersionId, View};
use lantern_engine::EngineError;
use lantern_query::{Budget, Cancel};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::params::{Names, Params, limit, wait};
use super::{App, Shared};
use crate::problem::Problem;
use crate::row_diff::{DiffOptions, RowDiff, field_changes};

/// The number of differences in an answer if `limit` is not given.
const LIMIT_DEFAULT: usize = 100;
/// The time between two tries to read both versions at the same offsets.
const RETRY: Duration = Duration::from_millis(50);

/// Which versions to compare.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct DiffQuery {
    /// One version; the active one if left out.
    left: Option<String>,
    /// The other version.
    right: String,
    /// Only rows whose keys begin with this text.
    prefix: Option<String>,
    /// Compare only these fields, separated by commas.
    cols: Option<String>,
    /// The maximum number of differences in the answer; 100 if left out. All differences are
    /// counted.
    limit: Option<usize>,
    /// How long to wait until both versions have folded the same offsets: `5s`.
    wait: Option<String>,
}

/// Compares the rows of a table in two versions at the same offsets.
///
/// A version that is not active follows the active one, a few events behind. The server folds this
/// version up to the offset of the active one, as an activation does, and then reads both. A
/// version that has not caught up yet is refused.
#[utoipa::path(
    get, path = "/v1/tables/{projection}/{table}/diff", tag = "tables",
    params(("projection" = String, Path), ("table" = String, Path), DiffQuery),
    responses(
        (status = 200, body = TableDiff),
        (status = 404, body = Problem, description = "no such projection, version or table"),
        (status = 409, body = Problem, description = "the versions are not at the same offsets"),
        (status = 503, body = Problem),
    )
)]
pub(crate) async fn diff(
    State(app): State<Shared>,
    Names((projection, table)): Names<(String, String)>,
    Params(query): Params<DiffQuery>,
) -> Result<Json<TableDiff>, Problem> {
    let wait = wait(query.wait.as_deref(), app.config.http.wait_s_max)?;
    let columns = query
        .cols
        .as_deref()
        .map(|cols| cols.split(',').map(|name| name.trim().to_owned()).collect::<BTreeSet<_>>());
    let options = DiffOptions {
        columns,
        rows_max: limit(query.limit, LIMIT_DEFAULT, app.config.http.query_rows_max)?,
        bytes_max: app.config.http.query_bytes_max,
    };
    let range = KeyRange::prefix(query.prefix.as_deref().unwrap_or_default().as_bytes());
    let comparison = Comparison {
        projection,
        table,
        left: query.left.map(VersionId),
        right: VersionId(query.right),
        range,
        options,
    };
    let comparison = Arc::new(comparison);
    let until = Instant::now() + wait;
    loop {
        let comparing = Arc::clone(&comparison);
        match app.query(move |app, cancel| comparing.run(app, cancel)).await? {
            Ok(diff) => return Ok(Json(diff)),
            Err(behind) if Instant::now() >= until => return Err(behind.into()),
            Err(_) => {
                app.check_open()?;
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

/// A comparison of two versions of a table.
struct Comparison {
    projection: String,
    table: String,
    /// The active version if `None`.
    left: Option<VersionId>,
    right: VersionId,
    range: KeyRange,
    options: DiffOptions,
}

impl Comparison {
    /// The differences. The inner error means that a version has not caught up, so the caller may
    /// try again.
    fn run(&self, app: &App, cancel: &Cancel) -> Result<Result<TableDiff, EngineError>, Problem> {
        let active = || {
            let active = app.engine.status_of(&self.projection)?.active;
            active.map(VersionId).ok_or_else(|| EngineError::NotActive(self.projection.clone()))
        };
        let left = self.left.clone().map_or_else(active, Ok)?;
        let views = match app.engine.aligned_views(&self.projection, [&left, &self.right]) {
            Err(behind @ EngineError::NotReady { .. }) => return Ok(Err(behind)),
            views => views?,
        };
        let mut budget = Budget::new(&app.config.query, cancel.clone());
        self.compare(&views, &mut budget).map(Ok)
    }

    fn compare(
        &self,
        [left, right]: &[View; 2],
        budget: &mut Budget<'_>,
    ) -> Result<TableDiff, Problem> {
        let (left_id, left_table) = self.table_of(left)?;
        let (right_id, right_table) = self.table_of(right)?;
        self.check_columns([left_table, right_table])?;
        let sides = [Some((left, left_id)), Some((right, right_id))];
        let rows = RowDiff::compare(sides, &self.range, &self.options, || budget.row())?;
        let RowDiff { same, added, removed, changed, differences, more, .. } = rows;
        let offsets = left.offsets().into_iter().map(|(partition, next)| (partition.0, next.0));
        Ok(TableDiff {
            left: left.version().0.clone(),
            right: right.version().0.clone(),
            offsets: offsets.collect(),
            same,
            added,
            removed,
            changed,
            fields: field_changes(left_table, right_table),
            differences,
            more,
        })
    }

    /// Refuses a compared field that neither version declares.
    fn check_columns(&self, tables: [&TableSpec; 2]) -> Result<(), Problem> {
        let declared: BTreeSet<&str> = tables
            .iter()
            .flat_map(|table| &table.fields)
            .map(|field| field.name.as_str())
            .collect();
        let mut columns = self.options.columns.iter().flatten();
        let Some(unknown) = columns.find(|name| !declared.contains(name.as_str())) else {
            return Ok(());
        };
        let declared: Vec<_> = declared.into_iter().map(|name| format!("`{name}`")).collect();
        let unknown: String = unknown.chars().take(128).collect();
        let detail = format!(
            "`cols`: neither version has a field `{unknown}`; they have {}",
            declared.join(", ")
        );
        Err(Problem::new("LAN-0403", detail))
    }

    fn table_of<'v>(&self, view: &'v View) -> Result<(TableId, &'v TableSpec), Problem> {
        view.manifest().public_table(&self.table).ok_or_else(|| {
            let (projection, table) = (&self.projection, &self.table);
            let version = view.version();
            let detail =
                format!("version `{version}` of `{projection}` has no public table `{table}`");
            Problem::new("LAN-0404", detail)
        })
    }
}
