//! Tests inputs that similar systems or earlier versions of Lantern handled wrongly. Each input is
//! an example of a kind of fault, with the correct result.

mod http;
mod identity;
mod ingest;
mod rows;
mod session;
mod shortage;
mod tenants;
mod time;

use lantern_tests::{Server, guest, run};
use reqwest::Method;
use reqwest::header::HeaderMap;
use serde_json::Value;

/// The media type of a request with one event.
pub(crate) const ONE: &str = "application/cloudevents+json";

/// The answer of a server to a request.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or(Value::Null)
    }
}

/// Sends a request with headers.
pub(crate) async fn ask(
    server: &Server,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<reqwest::Body>,
) -> Answer {
    let http = reqwest::Client::new();
    let mut request = http.request(method, format!("{}{path}", server.url)).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = request.send().await.unwrap();
    Answer {
        status: answer.status().as_u16(),
        headers: answer.headers().clone(),
        text: answer.text().await.unwrap(),
    }
}

pub(crate) async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> Answer {
    ask(server, Method::GET, path, headers, "").await
}

/// Sends one event in structured mode.
pub(crate) async fn send(server: &Server, event: impl Into<reqwest::Body>) -> Answer {
    ask(server, Method::POST, "/v1/events", &[("content-type", ONE)], event).await
}

/// Pushes a projection of the guest `cases`, and waits until it has folded the
/// log.
pub(crate) async fn push(server: &Server, name: &str) {
    let parameters = format!(r#"{{"projection":"{name}"}}"#);
    server.project(name, &guest("cases"), &parameters).await.unwrap();
}

/// Starts a server with a projection of the guest `cases`.
pub(crate) async fn folding(name: &str) -> Server {
    let server = Server::start(&[]).unwrap();
    push(&server, name).await;
    server
}

/// Returns the offset, kind, id and reason of each parked event.
pub(crate) async fn parked(server: &Server, name: &str) -> Vec<(u64, String, String, String)> {
    let page = server.get(&format!("/v1/projections/{name}/parked")).await.unwrap();
    let text = |event: &Value, member: &str| event[member].as_str().unwrap_or_default().to_owned();
    let parked = page["parked"].as_array().unwrap().iter();
    parked
        .map(|event| {
            let offset = event["offset"].as_u64().unwrap();
            (offset, text(event, "kind"), text(event, "id"), text(event, "reason"))
        })
        .collect()
}

/// Runs `lantern` against `server`. Returns the exit code, the output and the error output.
pub(crate) fn lantern(server: &Server, words: &[&str]) -> (i32, String, String) {
    let at = ["--server", server.url.as_str()];
    let output = run(&[words, at.as_slice()].concat()).unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

/// Folds the log again and compares the tables. Panics if they differ.
pub(crate) fn verified(server: &Server, name: &str) {
    let (code, output, errors) = lantern(server, &["verify", name]);
    assert_eq!(code, 0, "{output}{errors}");
    assert!(format!("{output}{errors}").contains("same"), "{output}{errors}");
}
