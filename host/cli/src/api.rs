//! The client of Lantern's HTTP API: requests, answers, and the exit code for each
//! error. Only this module uses the HTTP library.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use lantern_engine::{
    LogLine, ParkedOutcome, ParkedPage, ParkedSelection, ParkedSummary, ProjectionStatus, Uploaded,
    VerifyStatus,
};
use lantern_server::ResendResult;
use reqwest::{Method, Response, StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Exit, Failure, Problem};
use crate::raw_json::RawJson;

/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the server may send nothing within one request. During an upload it sends
/// nothing while it compiles and checks the plugin.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// The number of bytes of an upload that are passed to the connection at a time.
const UPLOAD_PART_BYTES: usize = 64 << 10;
/// The longest `Retry-After` that is respected.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// The media type of one event per line.
pub(crate) const NDJSON: &str = "application/x-ndjson";
/// The media type of one event as JSON.
pub(crate) const STRUCTURED: &str = "application/cloudevents+json";
/// The media type of a JSON array of events.
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";
const WASM: &str = "application/wasm";
const JSON: &str = "application/json";

/// Why a request failed.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// No answer: the server is not running, or the connection broke.
    Unreachable {
        /// The server's address.
        base: String,
        /// The error of the connection.
        reason: String,
    },
    /// The server refused the request.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The value of `Retry-After`, if there is one.
        retry_after: Option<Duration>,
        /// The reason.
        problem: Box<Problem>,
    },
    /// The answer cannot be parsed.
    Answer(String),
}

impl ApiError {
    /// Whether the same request may succeed later, and when to retry if the server
    /// tells that.
    pub(crate) fn passing(&self) -> Option<Option<Duration>> {
        match self {
            Self::Unreachable { .. } => Some(None),
            Self::Refused { status: 429 | 502..=504, retry_after, .. } => Some(*retry_after),
            Self::Refused { .. } | Self::Answer(_) => None,
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::Unreachable { base, reason } => {
                Self::new(Exit::Unreachable, format!("no server answers at {base}: {reason}"))
                    .help("start one with `lantern serve`, or name another with --server")
            }
            ApiError::Refused { status, problem, .. } => problem.into_failure(status),
            ApiError::Answer(reason) => {
                Self::new(Exit::Failure, format!("cannot parse the server's answer: {reason}"))
                    .help("check that it is a Lantern server of this version")
            }
        }
    }
}

/// A request's result.
pub(crate) type Answer<T> = Result<T, ApiError>;

/// A server.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
}

/// The result of sending events.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Pushed {
    /// How many events were appended.
    pub(crate) appended: u64,
    /// How many were in the log already.
    pub(crate) duplicates: u64,
    /// How many were refused.
    pub(crate) rejected: u64,
    /// The place of each event, for requests with few events.
    pub(crate) events: Vec<serde_json::Value>,
    /// What is wrong with the refused events.
    pub(crate) errors: Vec<serde_json::Value>,
}

/// Events from one offset on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LogPage {
    /// The oldest offset kept.
    pub(crate) start: u64,
    /// The next offset to be written.
    pub(crate) end: u64,
    /// Where to continue reading.
    pub(crate) next: u64,
    /// Retries and drops of parked events that the tables depend on in addition to the
    /// log.
    #[serde(default)]
    pub(crate) decisions: u64,
    /// The events.
    pub(crate) events: Vec<LoggedEvent>,
}

/// The log's partitions, in order.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct LogStatus {
    /// One per partition.
    pub(crate) partitions: Vec<PartitionStatus>,
}

/// A partition of the log.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct PartitionStatus {
    /// The next offset to be written, if known.
    pub(crate) end: Option<u64>,
}

/// An event in the log.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct LoggedEvent {
    /// Its offset.
    pub(crate) offset: u64,
    /// The event, a CloudEvent as JSON.
    pub(crate) event: RawJson,
}

/// Which events to read.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogQuery {
    /// The partition.
    pub(crate) partition: u32,
    /// The first offset; `None` for the oldest kept offset.
    pub(crate) from: Option<u64>,
    /// Instead of `from`: the first event appended at or after this time, RFC 3339.
    pub(crate) time: Option<String>,
    /// The maximum number of events.
    pub(crate) limit: u64,
    /// Their types; empty for all.
    pub(crate) types: Vec<String>,
    /// How long to wait for the first event if there is none yet, in seconds.
    pub(crate) wait_s: u64,
}

/// A page of a table's rows.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct TablePage {
    /// The feed's epoch.
    pub(crate) epoch: String,
    /// The commit from which the rows are.
    pub(crate) commit: u64,
    /// For each partition the next offset that the rows do not contain yet.
    pub(crate) offsets: std::collections::BTreeMap<String, u64>,
    /// The fields of the rows.
    pub(crate) fields: Vec<Field>,
    /// Whether each row belongs to a tenant; then `rows` has the rows by key under each
    /// tenant.
    pub(crate) per_tenant: bool,
    /// The rows by key, in key order; for a table by tenant after
    /// [`TablePage::flatten`].
    pub(crate) rows: BTreeMap<String, RawJson>,
    /// The cursor of the next page.
    pub(crate) next: Option<String>,
}

impl TablePage {
    /// Puts the rows of all tenants into one map: U+0000 separates the tenant from the
    /// key, as in the store.
    fn flatten(mut self) -> Self {
        if self.per_tenant {
            let tenants = std::mem::take(&mut self.rows);
            for (tenant, rows) in &tenants {
                for (key, row) in rows.members() {
                    self.rows.insert(format!("{tenant}\0{key}"), RawJson::new(row.get()));
                }
            }
        }
        self
    }
}

/// A field of a table's rows.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Field {
    /// The JSON key.
    pub(crate) name: String,
    /// `integer`, `number`, `text`, …
    pub(crate) kind: String,
    /// The unit; may be empty.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) unit: String,
}

/// What to upload.
pub(crate) struct Upload {
    /// The component.
    pub(crate) wasm: Vec<u8>,
    /// The projection's name; `None` for the name in the manifest.
    pub(crate) name: Option<String>,
    /// The argument of `setup`.
    pub(crate) parameters: Option<String>,
    /// Whether the version is activated when it has caught up.
    pub(crate) activate: bool,
    /// Whether it is activated even if it has parked events.
    pub(crate) force: bool,
    /// Counts the bytes sent.
    pub(crate) sent: Arc<AtomicU64>,
}

impl Api {
    /// A client of the server at `base`, an `http://` address.
    pub(crate) fn new(base: &str) -> Self {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_MAX)
            .read_timeout(SILENCE_MAX)
            .user_agent(concat!("lantern/", env!("CARGO_PKG_VERSION")))
            .build()
            .expect("a client without TLS and proxies can be created");
        Self { http, base: base.trim_end_matches('/').to_owned() }
    }

    /// The server's address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Appends the events in `body`; with `partial`, only the valid ones.
    pub(crate) async fn push(&self, media: &str, body: Bytes, partial: bool) -> Answer<Pushed> {
        let path = if partial { "/v1/events?partial=true" } else { "/v1/events" };
        self.push_to(path, media, body).await
    }

    /// Appends events of another log exactly as they were.
    pub(crate) async fn push_exact(&self, media: &str, body: Bytes) -> Answer<Pushed> {
        self.push_to("/v1/events?exact=true", media, body).await
    }

    async fn push_to(&self, path: &str, media: &str, body: Bytes) -> Answer<Pushed> {
        let length = body.len() as u64;
        let body = Body { media: media.to_owned(), length, content: body.into() };
        self.send(Method::POST, path, Some(body)).await?.json().await
    }

    /// Reads the log.
    pub(crate) async fn events(&self, query: &LogQuery) -> Answer<LogPage> {
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

    /// The log's partitions.
    pub(crate) async fn status(&self) -> Answer<LogStatus> {
        self.get(&Path::new("/v1/status")).await
    }

    /// All projections.
    pub(crate) async fn projections(&self) -> Answer<Vec<ProjectionStatus>> {
        #[derive(Deserialize)]
        struct List {
            projections: Vec<ProjectionStatus>,
        }
        let list: List = self.get(&Path::new("/v1/projections")).await?;
        Ok(list.projections)
    }

    /// One projection.
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
        let body = component(upload.wasm, upload.parameters.as_deref(), upload.sent);
        self.send(Method::POST, &path.0, Some(body)).await?.json().await
    }

    /// Lets the server check a plugin without storing it.
    pub(crate) async fn check(
        &self,
        wasm: Vec<u8>,
        parameters: Option<&str>,
    ) -> Answer<serde_json::Value> {
        let body = component(wasm, parameters, Arc::default());
        self.send(Method::POST, "/v1/plugins/check", Some(body)).await?.json().await
    }

    /// Deletes a version's tables and folds the log again.
    pub(crate) async fn rebuild(&self, name: &str, version: &str) -> Answer<serde_json::Value> {
        let path = projection(name, &format!("/versions/{}/rebuild", escaped(version)));
        self.post(&path, None::<&()>).await
    }

    /// `POST /v1/projections/{name}/{action}`, with the version if one is given.
    pub(crate) async fn act(
        &self,
        name: &str,
        action: &str,
        version: Option<&str>,
    ) -> Answer<serde_json::Value> {
        let body = version.map(|version| serde_json::json!({"version": version}));
        self.post(&projection(name, &format!("/{action}")), body.as_ref()).await
    }

    /// Activates `version`; with `force`, also if it has parked events that the active
    /// version has applied.
    pub(crate) async fn activate(
        &self,
        name: &str,
        version: &str,
        force: bool,
    ) -> Answer<ProjectionStatus> {
        let body = serde_json::json!({"version": version, "force": force});
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

    /// The newest messages of a projection's plugin, newest last.
    pub(crate) async fn logs(&self, name: &str, limit: usize) -> Answer<Vec<LogLine>> {
        #[derive(Deserialize)]
        struct List {
            logs: Vec<LogLine>,
        }
        let mut path = projection(name, "/logs");
        path.add("limit", limit);
        let list: List = self.get(&path).await?;
        Ok(list.logs)
    }

    /// A page of parked events; `query` contains parameters under the API's names.
    pub(crate) async fn parked(&self, name: &str, query: &[(&str, String)]) -> Answer<ParkedPage> {
        let mut path = projection(name, "/parked");
        for (name, value) in query {
            path.add(name, value);
        }
        self.get(&path).await
    }

    /// Parked events in groups by reason.
    pub(crate) async fn parked_summary(
        &self,
        name: &str,
        version: Option<&str>,
    ) -> Answer<ParkedSummary> {
        let mut path = projection(name, "/parked/reasons");
        version.map(|version| path.add("version", version));
        self.get(&path).await
    }

    /// Retries or drops (`action`) parked events.
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

    /// Lets the server retry the events that the dead-letter topic names.
    pub(crate) async fn resend(&self, from_beginning: bool) -> Answer<ResendResult> {
        let mut path = Path::new("/v1/dead-letters/resend");
        path.add("from_beginning", if from_beginning { "true" } else { "false" });
        self.post(&path, None::<&()>).await
    }

    /// Rows of a table; `query` contains parameters under the API's names.
    pub(crate) async fn rows(
        &self,
        table: (&str, &str),
        query: &[(&str, String)],
    ) -> Answer<TablePage> {
        let (projection, table) = table;
        let mut path = Path::new(&format!("/v1/tables/{}/{}", escaped(projection), escaped(table)));
        for (name, value) in query {
            path.add(name, value);
        }
        Ok(self.get::<TablePage>(&path).await?.flatten())
    }

    async fn get<T: DeserializeOwned>(&self, path: &Path) -> Answer<T> {
        self.send(Method::GET, &path.0, None).await?.json().await
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &Path,
        body: Option<&impl Serialize>,
    ) -> Answer<T> {
        let body = body.map(|body| {
            let bytes = serde_json::to_vec(body).expect("requests are plain JSON");
            Body { media: JSON.into(), length: bytes.len() as u64, content: bytes.into() }
        });
        self.send(Method::POST, &path.0, body).await?.json().await
    }

    async fn send(&self, method: Method, path: &str, body: Option<Body>) -> Answer<Received> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request
                .header(header::CONTENT_TYPE, body.media)
                .header(header::CONTENT_LENGTH, body.length)
                .body(body.content);
        }
        let response = request.send().await.map_err(|e| self.broken(&e))?;
        if response.status().is_success() {
            Ok(Received { api: self.clone(), response })
        } else {
            Err(self.refused(response).await)
        }
    }

    async fn refused(&self, response: Response) -> ApiError {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        let body = response.bytes().await.unwrap_or_default();
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| Problem {
            title: format!("the server answered {status}"),
            ..Problem::default()
        });
        ApiError::Refused { status: status.as_u16(), retry_after, problem: Box::new(problem) }
    }

    fn broken(&self, error: &reqwest::Error) -> ApiError {
        // The library's own text repeats the address; the cause is in the innermost
        // error.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        ApiError::Unreachable { base: self.base.clone(), reason: cause.to_string() }
    }
}

/// A request's content.
struct Body {
    media: String,
    length: u64,
    content: reqwest::Body,
}

/// A successful answer.
struct Received {
    api: Api,
    response: Response,
}

impl Received {
    async fn json<T: DeserializeOwned>(self) -> Answer<T> {
        let empty = self.response.status() == StatusCode::NO_CONTENT;
        let bytes = self.response.bytes().await.map_err(|e| self.api.broken(&e))?;
        let bytes: &[u8] = if empty || bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(bytes).map_err(|e| ApiError::Answer(e.to_string()))
    }
}

/// A path with its query.
struct Path(String);

impl Path {
    fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    fn add(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&escaped(&value.to_string()));
        self
    }
}

fn projection(name: &str, rest: &str) -> Path {
    Path::new(&format!("/v1/projections/{}{rest}", escaped(name)))
}

/// `text` escaped for a path segment or a query value.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out
}

/// A component as a request's body: on its own, or with its parameters as a form.
fn component(wasm: Vec<u8>, parameters: Option<&str>, sent: Arc<AtomicU64>) -> Body {
    let Some(parameters) = parameters else {
        let length = wasm.len() as u64;
        return Body { media: WASM.into(), length, content: counted(wasm.into(), sent) };
    };
    let boundary = boundary(&wasm, parameters);
    let mut form = Vec::with_capacity(wasm.len() + parameters.len() + 512);
    let mut part = |name: &str, media: &str, content: &[u8]| {
        let file = if media == WASM { "; filename=\"plugin.wasm\"" } else { "" };
        form.extend_from_slice(
            format!(
                "--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\nContent-Type: {media}\r\n\r\n"
            )
            .as_bytes(),
        );
        form.extend_from_slice(content);
        form.extend_from_slice(b"\r\n");
    };
    part("parameters", JSON, parameters.as_bytes());
    part("plugin", WASM, &wasm);
    form.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    let length = form.len() as u64;
    let media = format!("multipart/form-data; boundary={boundary}");
    Body { media, length, content: counted(form.into(), sent) }
}

/// A boundary line that occurs in neither of the two.
fn boundary(wasm: &[u8], parameters: &str) -> String {
    (0_u32..)
        .map(|n| format!("lantern-part-{n:08x}"))
        .find(|b| {
            let within = |text: &[u8]| text.windows(b.len()).any(|window| window == b.as_bytes());
            !within(wasm) && !within(parameters.as_bytes())
        })
        .expect("finite contents cannot hold every boundary")
}

/// A body that counts the bytes when the connection takes them.
fn counted(bytes: Bytes, sent: Arc<AtomicU64>) -> reqwest::Body {
    reqwest::Body::wrap_stream(stream::unfold((bytes, sent), |(mut rest, sent)| async move {
        if rest.is_empty() {
            return None;
        }
        let part = rest.split_to(rest.len().min(UPLOAD_PART_BYTES));
        sent.fetch_add(part.len() as u64, Ordering::Relaxed);
        Some((Ok::<_, std::convert::Infallible>(part), (rest, sent)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_a_meaning_in_an_address_is_escaped() {
        assert_eq!(escaped("a/b?c=d&e é"), "a%2Fb%3Fc%3Dd%26e%20%C3%A9");
        let mut path = Path::new("/v1/x");
        path.add("key", "a&b").add("limit", 5);
        assert_eq!(path.0, "/v1/x?key=a%26b&limit=5");
    }

    #[test]
    fn a_boundary_stands_in_neither_part() {
        assert_eq!(boundary(b"..lantern-part-00000000..", "{}"), "lantern-part-00000001");
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let refused = |status, retry_after| ApiError::Refused {
            status,
            retry_after,
            problem: Box::default(),
        };
        let second = Some(Duration::from_secs(1));
        assert_eq!(refused(503, second).passing(), Some(second));
        assert_eq!(refused(429, None).passing(), Some(None));
        assert_eq!(refused(400, second).passing(), None);
        assert_eq!(refused(500, None).passing(), None);
    }
}
