//! Implements the HTTP client of the load generator. Each sender has one connection, which stays
//! open. The client has as little overhead as possible, because it runs on the same machine as the
//! server that it measures.

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The media type of a request with one event.
pub(crate) const SINGLE: &str = "application/cloudevents+json";
/// The media type of a request with a JSON array of events.
pub(crate) const BATCH: &str = "application/cloudevents-batch+json";
/// The media type of a request with lines of JSON.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// A connection on which events are sent, one request at a time.
pub(crate) struct Sender {
    requests: SendRequest<Full<Bytes>>,
    host: String,
}

impl Sender {
    /// Connects to the server at `url`.
    pub(crate) async fn connect(url: &str) -> Result<Self> {
        let host = url.trim_start_matches("http://").to_owned();
        let stream = TcpStream::connect(&host).await?;
        stream.set_nodelay(true)?;
        let (requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // If the connection fails, the request in progress returns the error.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self { requests, host })
    }

    /// Sends events in one request, and waits until the server acknowledges them.
    pub(crate) async fn events(&mut self, media_type: &str, body: Bytes) -> Result<()> {
        self.requests.ready().await?;
        let request = Request::post("/v1/events")
            .header(header::HOST, &self.host)
            .header(header::CONTENT_TYPE, media_type)
            .body(Full::new(body))?;
        let answer = self.requests.send_request(request).await.context("sending events")?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if !status.is_success() {
            bail!("{status}: {}", String::from_utf8_lossy(&body));
        }
        Ok(())
    }
}

/// Checks that the log has exactly `events` events: none was lost, and none was appended twice.
/// Fails otherwise.
pub(crate) async fn check_log(server: &lantern_tests::Server, events: u64) -> Result<()> {
    let status = server.get("/v1/status").await?;
    let partitions = status["partitions"].as_array().context("`partitions` is no list")?;
    let end: u64 = partitions.iter().filter_map(|p| p["end"].as_u64()).sum();
    ensure!(end == events, "the log holds {end} events instead of {events}");
    Ok(())
}
