//! Tests the whole API with the real log, store and engine. The plugin is a Rust closure. Tests
//! that need WebAssembly or a process are in the folder `tests` of the workspace.

mod api;
mod boards;
mod explaining;
mod exports;
mod feed_stream;
mod grafana;
mod ingest;
mod limits;
mod metrics;
mod named_queries;
mod packed;
mod queries;
mod running;
mod tables;
mod versions;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, StatusCode};
use lantern_core::fake::{NativePlugin, host_error};
use lantern_core::{
    Attributes, FieldKind, FieldSpec, Manifest, Merge, Plugin, TableId, TableSpec, VersionId,
};
use lantern_engine::{Activation, Upload};
use lantern_plugin::Compiler;
use serde_json::Value;
use tower::ServiceExt;

use crate::app::App;
use crate::config::ServerConfig;
use crate::data::DataDir;

/// How long a test waits before it fails. It is long enough for the slowest machine.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A server that tests call without a socket.
pub(super) struct Fixture {
    pub(super) app: Arc<App>,
    router: Router,
    _data: DataDir,
    dir: Arc<tempfile::TempDir>,
}

/// A complete answer of the server.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {}", self.text))
    }

    /// Checks that the answer is a problem with the code `code` and that its detail contains all of
    /// `words`.
    pub(super) fn is_problem(&self, code: &str, words: &str) {
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(self.headers[CONTENT_TYPE], crate::PROBLEM);
        assert_eq!(problem["status"], self.status.as_u16(), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
        assert!(!problem["help"].as_str().unwrap().is_empty());
    }

    pub(super) fn expect_ok(self) -> Self {
        assert!(self.status.is_success(), "{self:?}");
        self
    }
}

/// Settings for a server whose data is in the folder `dir`, with a free port.
pub(super) fn config(dir: &std::path::Path) -> ServerConfig {
    let mut config = ServerConfig { data: dir.join("data"), ..ServerConfig::default() };
    config.http.listen.set_port(0);
    config.plugin.compiler = Compiler::InProcess;
    config.log.disk_reserve_bytes = 1;
    config
}

impl Fixture {
    pub(super) fn new() -> Self {
        Self::with(|_| ())
    }

    pub(super) fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::in_folder(Arc::new(tempfile::tempdir().unwrap()), change)
    }

    fn in_folder(dir: Arc<tempfile::TempDir>, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = config(dir.path());
        change(&mut config);
        let (app, data) = crate::wiring::open(config).unwrap();
        let router = crate::http::router(Arc::clone(&app));
        Self { app, router, _data: data, dir }
    }

    /// Closes the server, and opens its data again with other settings.
    pub(super) fn reopened(self, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = Arc::clone(&self.dir);
        drop(self);
        Self::in_folder(dir, change)
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status: parts.status, headers: parts.headers, text }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(request(Method::GET, path, &[], "")).await
    }

    pub(super) async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(request(Method::GET, path, &[(ACCEPT.as_str(), accept)], "")).await
    }

    pub(super) async fn post(&self, path: &str, media: &str, body: impl Into<Body>) -> Answer {
        self.send(request(Method::POST, path, &[(CONTENT_TYPE.as_str(), media)], body)).await
    }

    /// Uploads `plugin` as the projection `counts`, and waits until it is active.
    pub(super) async fn project(&self, plugin: Arc<dyn Plugin>) -> VersionId {
        let engine = Arc::clone(&self.app.engine);
        let upload = unchecked(plugin);
        let uploaded =
            tokio::task::spawn_blocking(move || engine.upload(upload)).await.unwrap().unwrap();
        self.until("/v1/tables/counts/by_subject", |answer| answer.status == 200).await;
        VersionId(uploaded.version)
    }

    /// Repeats the request until `wanted` accepts the answer. It repeats the request after each
    /// commit and also at intervals, because some answers (such as that of a retry) change shortly
    /// after the commit.
    pub(super) async fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let mut committed = self.app.signals.committed.clone();
        let asking = async {
            loop {
                committed.mark_unchanged();
                let answer = self.get(path).await;
                if wanted(&answer) {
                    return answer;
                }
                let again = Duration::from_millis(100);
                let _ = tokio::time::timeout(again, committed.changed()).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.expect("the answer never came")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.app.engine.shutdown();
        self.app.log_services.closing.close();
    }
}

pub(super) fn request(
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header(HOST, "localhost");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).unwrap()
}

/// Formats an event as JSON.
pub(super) fn event(id: &str, kind: &str, subject: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"test","type":"{kind}","subject":"{subject}","time":"2026-01-01T00:00:00Z","data":{{"id":"{id}"}}}}"#
    )
}

/// Returns an upload of `plugin` without the determinism check.
fn unchecked(plugin: Arc<dyn Plugin>) -> Upload {
    Upload { check: false, ..Upload::new(plugin, "00".repeat(32)) }
}

/// Returns a projection that counts events by subject, fails on events of the type `bad`, and has a
/// private table.
pub(super) fn counts() -> Arc<dyn Plugin> {
    let field = |name: &str, kind, merge| FieldSpec {
        name: name.into(),
        kind,
        merge,
        ..FieldSpec::default()
    };
    let manifest = Manifest {
        name: "counts".into(),
        version: "1.0.0".into(),
        subscribes: vec!["*".into()],
        attributes: Attributes { subject: true, data: true, ..Attributes::default() },
        tables: vec![
            TableSpec {
                name: "by_subject".into(),
                public: true,
                fields: vec![
                    field("subject", FieldKind::Text, Merge::Same),
                    field("count", FieldKind::Integer, Merge::Sum),
                ],
                ..TableSpec::default()
            },
            TableSpec { name: "secret".into(), ..TableSpec::default() },
        ],
        on_failure: lantern_core::OnFailure::ParkEvent,
        ..Manifest::default()
    };
    Arc::new(NativePlugin::<()>::new(manifest, |batch, host, ()| {
        for index in 0..batch.events.len() {
            if batch.events.kind(index) == "bad" {
                let message = "cannot count this".to_owned();
                let cause = Some(batch.cause_of_event(index));
                return Err(lantern_core::ApplyError::Failed { cause, message });
            }
            let subject = batch.events.subject(index);
            let old = host.get(TableId(0), subject).map_err(host_error)?;
            let count = old.map_or(0, |row| {
                let row: Value = serde_json::from_slice(&row).unwrap();
                row["count"].as_i64().unwrap()
            });
            let row = serde_json::json!({"subject": subject, "count": count + 1});
            let cause = batch.cause_of_event(index);
            host.put(cause, TableId(0), subject, row.to_string().as_bytes()).map_err(host_error)?;
        }
        Ok(())
    }))
}
