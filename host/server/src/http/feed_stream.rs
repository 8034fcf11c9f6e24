//! `GET /v1/feed/sse`: the feed as an event stream (server-sent events).

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use futures_util::StreamExt as _;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use lantern_live::{Refused, SessionEnd, StreamRefusal, StreamRequest};
use serde::Deserialize;
use tokio::sync::oneshot;
use utoipa::IntoParams;

use super::Shared;
use super::connection_control::ConnectionControl;
use super::feed::FeedConnection;
use super::params::{Params, single};
use crate::problem::Problem;

/// The address of event streams.
pub(super) const PATH: &str = "/v1/feed/sse";
/// The media type of event streams.
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
/// Proxies must neither store nor compress the stream, because they would delay its events.
const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-cache, no-transform");
/// Tells the proxy nginx not to buffer the answer.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
/// The header with the `id` of the last event that a client has received.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// The subscriptions of an event stream.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamQuery {
    /// A subscription; may be given several times. Either `PROJECTION/TABLE`, or a JSON object with
    /// the members of a `sub` message of the WebSocket, without `t`. Without `id`, the id is the
    /// position among the subscriptions, from 1.
    #[serde(deserialize_with = "single")]
    sub: Vec<String>,
    /// The `id` of the last event that the client has received, if the client cannot send it in
    /// the header `Last-Event-ID`, which comes first.
    resume: Option<String>,
}

/// Opens the feed as an event stream (server-sent events). See the page about the feed for the
/// events.
///
/// The answer begins when every subscription is open or refused. The header `Last-Event-ID`, which
/// browsers send when they connect again, continues all subscriptions.
#[utoipa::path(
    get, path = "/v1/feed/sse", tag = "tables", params(StreamQuery),
    responses((status = 200, description = "the event stream", content_type = "text/event-stream", body = String),
        (status = 400, body = Problem), (status = 404, body = Problem), (status = 422, body = Problem),
        (status = 503, body = Problem))
)]
pub(crate) async fn stream(
    State(app): State<Shared>,
    mut request: Request,
) -> Result<Response, Problem> {
    app.check_open()?;
    let connection = request.extensions_mut().remove::<FeedConnection>();
    let mut wanted = read(request.headers(), request.uri())?;
    wanted.address = connection.as_ref().map(|connection| connection.address);
    let control = connection.map(|connection| connection.control);
    let shutdown = app.tasks.stopping.clone().cancelled_owned();
    let (stream, session) = Arc::clone(&app.hub).stream(wanted, shutdown);
    let close = Duration::from_millis(app.config.live.close_ms);
    let (opened, is_open) = oneshot::channel();
    app.tasks.feeds.spawn(end_connection(session, is_open, close));
    let pieces = stream
        .open()
        .await
        .map_err(|refusal| app.check_open().err().unwrap_or_else(|| problem(refusal)))?;
    if let Some(control) = control {
        // From now on the limit on sessions applies.
        control.release();
        // If the session has ended already, there is nothing to cut.
        let _ = opened.send(control);
    }
    let mut response =
        Body::from_stream(pieces.map(Ok::<_, std::convert::Infallible>)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, EVENT_STREAM);
    headers.insert(CACHE_CONTROL, NOT_KEPT);
    headers.insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    // The connection no longer counts as one for requests, so it must not be used for others.
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(response)
}

/// Runs a session. After it has ended, cuts the connection if the client does not read the rest.
/// `is_open` gives the connection once the stream is open.
async fn end_connection(
    session: impl Future<Output = SessionEnd>,
    is_open: oneshot::Receiver<Arc<ConnectionControl>>,
    close: Duration,
) {
    let end = session.await;
    tracing::debug!(?end, "an event stream ended");
    // After a refusal, the connection serves other requests.
    let Ok(control) = is_open.await else { return };
    if end == SessionEnd::Cut {
        return control.cut();
    }
    tokio::spawn(async move {
        tokio::time::sleep(close).await;
        control.cut();
    });
}

/// Reads the subscriptions and the point from which they continue.
fn read(headers: &HeaderMap, uri: &Uri) -> Result<StreamRequest, Problem> {
    let query = Params::<StreamQuery>::read_repeated(uri, "sub", |query| &mut query.sub)?;
    if query.sub.is_empty() {
        let detail = "`sub` is missing: name a table, as in `?sub=PROJECTION/TABLE`";
        return Err(Problem::new("LAN-0403", detail).with("parameter", "sub"));
    }
    let header = headers.get(LAST_EVENT_ID).filter(|id| !id.is_empty());
    let header = header.map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned());
    let cursor = header.or(query.resume).filter(|cursor| !cursor.is_empty());
    Ok(StreamRequest { subs: query.sub, cursor, address: None })
}

/// Returns the answer to a request whose stream is refused.
fn problem(refusal: StreamRefusal) -> Problem {
    match refusal {
        StreamRefusal::TooManySessions(max) => {
            let detail = format!(
                "{max} clients are connected to the feed: the limit is {max} (`live.sessions_max`)"
            );
            Problem::new("LAN-0444", detail).with("setting", "live.sessions_max")
        }
        StreamRefusal::Subscription(refused) => refused_subscription(refused),
        StreamRefusal::Failed(why) => Problem::new("LAN-0413", why),
    }
}

fn refused_subscription(refused: Refused) -> Problem {
    let Refused { id, code, msg, parameter, mut setting, .. } = refused;
    let code = match (&*code, &parameter) {
        ("no_such_table", None) => "LAN-0404",
        ("too_many_subs", _) => {
            setting = Some(Cow::Borrowed("live.subs_max"));
            "LAN-0427"
        }
        ("too_large" | "LAN-0427", _) => "LAN-0427",
        ("LAN-0428", _) => "LAN-0428",
        _ => "LAN-0426",
    };
    let mut problem = Problem::new(code, format!("in subscription {id}: {msg}")).with("sub", id);
    if setting.as_deref() == Some("live.subs_max") {
        problem = problem.help("open another stream for some of them, or raise `live.subs_max`");
    }
    for (name, value) in [("parameter", parameter), ("setting", setting)] {
        if let Some(value) = value {
            problem = problem.with(name, value.into_owned());
        }
    }
    problem
}
