//! Implements the client for Lantern's HTTP API. It has a function for each request that commands
//! send.

mod boards;
mod component;
mod error;
mod queries;
mod transport;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use lantern_api::{
    ActivateBody, AppendResult, DryRun, EventPath, EventsPage, ExplainLine, LogLine, Logs,
    ParkedOutcome, ParkedPage, ParkedSelection, ParkedSummary, ProjectionStatus, Projections,
    QueryPage, RawJson, ResendResult, ServerStatus, TableDiff, TablePage, Uploaded, VerifyStatus,
};
use reqwest::Method;

pub(crate) use error::{Answer, ApiError};

pub(crate) use component::PluginFile;
pub(crate) use queries::QueryAnswer;

use component::component;
use transport::{Body, Path, escaped, projection};

/// The media type of a text with one event on each line.
pub(crate) const NDJSON: &str = "application/x-ndjson";
/// The media type of one event as JSON.
pub(crate) const STRUCTURED: &str = "application/cloudevents+json";
/// The media type of a JSON array of events.
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";

/// A client for one server.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
}

/// Selects the events of the log that a request reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogQuery {
    /// The number of the partition.
    pub(crate) partition: u32,
    /// The offset of the first event; `None` for the oldest event that is kept.
    pub(crate) from: Option<u64>,
    /// Used in place of `from`: the time (RFC 3339) at or after which the first event was appended.
    pub(crate) time: Option<String>,
    /// The maximum number of events.
    pub(crate) limit: u64,
    /// The event types; empty for all types.
    pub(crate) types: Vec<String>,
    /// How long to wait for the first event if there is none yet, in seconds.
    pub(crate) wait_s: u64,
}

/// What an upload sends to the server.
pub(crate) struct Upload {
    /// The plugin that is uploaded.
    pub(crate) plugin: PluginFile,
    /// The name of the projection; `None` to use the name in the manifest.
    pub(crate) name: Option<String>,
    /// The parameters, which are passed to `setup`.
    pub(crate) parameters: Option<String>,
    /// Whether the version becomes active when it has caught up.
    pub(crate) activate: bool,
    /// Whether the version becomes active even if it has parked events that the active version has
    /// applied.
    pub(crate) force: bool,
    /// The number of bytes sent so far.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Api {
    /// Creates a client for the server at `base`, which is an `http://` address.
    pub(crate) fn new(base: &str) -> Self {
        Self { http: transport::http(), base: base.trim_end_matches('/').to_owned() }
    }

    /// Returns the address of the server.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Appends the events in `body`. With `partial`, it appends the valid events even if others are
    /// refused.
    pub(crate) async fn push(
        &self,
        media: &str,
        body: Bytes,
        partial: bool,
    ) -> Answer<AppendResult> {
        let path = if partial { "/v1/events?partial=true" } else { "/v1/events" };
        self.push_to(path, media, body).await
    }

    /// Appends events that were exported from another log, exactly as they were there.
    pub(crate) async fn push_exact(&self, media: &str, body: Bytes) -> Answer<AppendResult> {
        self.push_to("/v1/events?exact=true", media, body).await
    }

    async fn push_to(&self, path: &str, media: &str, body: Bytes) -> Answer<AppendResult> {
        let length = body.len() as u64;
        let body = Body { media: media.to_owned(), length, content: body.into() };
        self.send(Method::POST, path, Some(body)).await?.json().await
    }

    /// Reads events of the log.
    pub(crate) async fn events(&self, query: &LogQuery) -> Answer<EventsPage> {
        let mut path = Path::new("/v1/events");
        path.add("partition", query.partition).add("limit", query.limit);
        query.from.map(|from| path.add("from", from));
        query.time.as_ref().map(|time| path.add("time", time));
        if !query.types.is_empty() {
            path.add("types", query.types.join(","));
        }
        if query.wait_s > 0 {
            path.add("wait", format!("{}s", query.wait_s));
        }
        self.get(&path).await
    }

    /// Requests the status of the server and the partitions of its log.
    pub(crate) async fn status(&self) -> Answer<ServerStatus> {
        self.get(&Path::new("/v1/status")).await
    }

    /// Requests the status of all projections.
    pub(crate) async fn projections(&self) -> Answer<Vec<ProjectionStatus>> {
        let list: Projections = self.get(&Path::new("/v1/projections")).await?;
        Ok(list.projections)
    }

    /// Requests the status of one projection.
    pub(crate) async fn projection(&self, name: &str) -> Answer<ProjectionStatus> {
        self.get(&projection(name, "")).await
    }

    /// Uploads a plugin as a version.
    pub(crate) async fn upload(&self, upload: Upload) -> Answer<Uploaded> {
        let mut path = match &upload.name {
            Some(name) => projection(name, "/versions"),
            None => Path::new("/v1/versions"),
        };
        path.add("activate", upload.activate);
        if upload.force {
            path.add("force", true);
        }
        upload.plugin.source_name.as_ref().map(|name| path.add("source_name", name));
        let body = component(upload.plugin, upload.parameters.as_deref(), upload.sent);
        self.send(Method::POST, &path.0, Some(body)).await?.json().await
    }

    /// What an upload would write; `query` contains parameters under the API's names.
    pub(crate) async fn dry_run(
        &self,
        plugin: PluginFile,
        parameters: Option<&str>,
        query: &[(&str, String)],
    ) -> Answer<DryRun> {
        let mut path = Path::new("/v1/versions/dry-run");
        for (name, value) in query {
            path.add(name, value);
        }
        plugin.source_name.as_ref().map(|name| path.add("source_name", name));
        let body = component(plugin, parameters, Arc::default());
        self.send(Method::POST, &path.0, Some(body)).await?.json().await
    }

    /// Lets the server check a plugin without storing it.
    pub(crate) async fn check(
        &self,
        plugin: PluginFile,
        parameters: Option<&str>,
    ) -> Answer<serde_json::Value> {
        let mut path = Path::new("/v1/plugins/check");
        plugin.source_name.as_ref().map(|name| path.add("source_name", name));
        let body = component(plugin, parameters, Arc::default());
        self.send(Method::POST, &path.0, Some(body)).await?.json().await
    }

    /// Requests the source code of a version.
    pub(crate) async fn source(&self, name: &str, version: &str) -> Answer<String> {
        let path = projection(name, &format!("/versions/{}/source", escaped(version)));
        self.send(Method::GET, &path.0, None).await?.text().await
    }

    /// Deletes a version's tables and folds the log again.
    pub(crate) async fn rebuild(&self, name: &str, version: &str) -> Answer<serde_json::Value> {
        let path = projection(name, &format!("/versions/{}/rebuild", escaped(version)));
        self.post(&path, None::<&()>).await
    }

    /// Sends `POST /v1/projections/{name}/{action}`. If a version is given, it is in the body.
    pub(crate) async fn act(
        &self,
        name: &str,
        action: &str,
        version: Option<&str>,
    ) -> Answer<serde_json::Value> {
        let body = version.map(|version| serde_json::json!({"version": version}));
        self.post(&projection(name, &format!("/{action}")), body.as_ref()).await
    }

    /// Activates `version`. With `force`, it is activated even if it has parked events that the
    /// active version has applied.
    pub(crate) async fn activate(
        &self,
        name: &str,
        version: &str,
        force: bool,
    ) -> Answer<ProjectionStatus> {
        let body = ActivateBody { version: version.to_owned(), force };
        self.post(&projection(name, "/activate"), Some(&body)).await
    }

    /// Starts a verification of a version's tables.
    pub(crate) async fn verify(&self, name: &str, version: Option<&str>) -> Answer<VerifyStatus> {
        let mut path = projection(name, "/verify");
        version.map(|version| path.add("version", version));
        self.post(&path, None::<&()>).await
    }

    /// Deletes a version, or the whole projection.
    pub(crate) async fn delete(&self, name: &str, version: Option<&str>) -> Answer<()> {
        let path = match version {
            Some(version) => projection(name, &format!("/versions/{}", escaped(version))),
            None => projection(name, ""),
        };
        self.send(Method::DELETE, &path.0, None).await.map(drop)
    }

    /// Requests the newest messages that a projection's plugin has logged, the newest last.
    pub(crate) async fn logs(&self, name: &str, limit: usize) -> Answer<Vec<LogLine>> {
        let mut path = projection(name, "/logs");
        path.add("limit", limit);
        let list: Logs = self.get(&path).await?;
        Ok(list.logs)
    }

    /// Requests a page of parked events. `query` contains parameters by their names in the API.
    pub(crate) async fn parked(&self, name: &str, query: &[(&str, String)]) -> Answer<ParkedPage> {
        let mut path = projection(name, "/parked");
        for (name, value) in query {
            path.add(name, value);
        }
        self.get(&path).await
    }

    /// Requests the parked events of a version, grouped by reason.
    pub(crate) async fn parked_summary(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Answer<ParkedSummary> {
        let mut path = projection(name, "/parked/reasons");
        version.map(|version| path.add("version", version));
        self.get(&path).await
    }

    /// Retries or drops parked events, as `action` says.
    pub(crate) async fn parked_act(
        &self,
        name: &str,
        action: &str,
        version: Option<&str>,
        which: &ParkedSelection,
    ) -> Answer<ParkedOutcome> {
        let mut path = projection(name, &format!("/parked/{action}"));
        version.map(|version| path.add("version", version));
        self.post(&path, Some(which)).await
    }

    /// Lets the server retry the parked events that the dead-letter topic names.
    pub(crate) async fn resend(&self, from_beginning: bool) -> Answer<ResendResult> {
        let mut path = Path::new("/v1/dead-letters/resend");
        path.add("from_beginning", if from_beginning { "true" } else { "false" });
        self.post(&path, None::<&()>).await
    }

    /// Explains a row. `query` contains parameters by their names in the API. `take` gets each line
    /// of the answer as soon as it arrives.
    pub(crate) async fn explain(
        &self,
        table: (&str, &str),
        query: &[(&str, String)],
        take: impl FnMut(ExplainLine),
    ) -> Answer<()> {
        self.get_as(&table_path(table, "/explain", query), NDJSON).await?.json_lines(take).await
    }

    /// Returns how a table differs between two versions. `query` contains parameters by their names
    /// in the API.
    pub(crate) async fn diff(
        &self,
        table: (&str, &str),
        query: &[(&str, String)],
    ) -> Answer<TableDiff> {
        self.get(&table_path(table, "/diff", query)).await
    }

    /// What each version has done with an event.
    pub(crate) async fn event_path(&self, partition: u32, offset: u64) -> Answer<EventPath> {
        self.get(&Path::new(&format!("/v1/events/{partition}/{offset}/path"))).await
    }

    /// Rows of a table; `query` contains parameters under the API's names.
    pub(crate) async fn rows(
        &self,
        table: (&str, &str),
        query: &[(&str, String)],
    ) -> Answer<TablePage> {
        Ok(flattened(self.get(&table_path(table, "", query)).await?))
    }

    /// Requests rows in the order of a field, or groups.
    pub(crate) async fn query_page(
        &self,
        table: (&str, &str),
        query: &[(&str, String)],
    ) -> Answer<QueryPage> {
        self.get(&table_path(table, "", query)).await
    }

    /// Requests rows or groups as CSV, and the cursor of the next page.
    pub(crate) async fn csv_page(
        &self,
        table: (&str, &str),
        query: &[(&str, String)],
    ) -> Answer<(String, Option<String>)> {
        let answer = self.get_as(&table_path(table, "", query), "text/csv").await?;
        let next = answer.header("lantern-next");
        Ok((answer.text().await?, next))
    }
}

fn table_path((projection, table): (&str, &str), rest: &str, query: &[(&str, String)]) -> Path {
    let path = format!("/v1/tables/{}/{}{rest}", escaped(projection), escaped(table));
    let mut path = Path::new(&path);
    for (name, value) in query {
        path.add(name, value);
    }
    path
}

/// Puts the rows of all tenants into one map. In its keys, U+0000 separates the tenant from the
/// rest of the key, as in the store.
fn flattened(mut page: TablePage) -> TablePage {
    if page.per_tenant {
        let tenants = std::mem::take(&mut page.rows);
        for (tenant, rows) in &tenants {
            for (key, row) in rows.members() {
                page.rows.insert(format!("{tenant}\0{key}"), RawJson::new(row.get()));
            }
        }
    }
    page
}
