//! Opens the feed: accepts a WebSocket and passes it to the hub.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use lantern_live::{SUBPROTOCOL, accept_key};

use super::Shared;
use super::connection_control::ConnectionControl;
use crate::problem::Problem;

/// The length of the key that a client sends (RFC 6455, section 4.1), in bytes.
const KEY_BYTES: usize = 16;

/// The address of the feed.
pub(super) const PATH: &str = "/v1/feed";

/// The connection of a request to the feed.
#[derive(Clone)]
pub(super) struct FeedConnection {
    /// The address from which the client has connected.
    pub(super) address: SocketAddr,
    pub(super) control: Arc<ConnectionControl>,
}

/// Opens the feed, a WebSocket. See the page about the feed for the protocol.
#[utoipa::path(
    get, path = "/v1/feed", tag = "tables",
    responses((status = 101, description = "the WebSocket"), (status = 400, body = Problem),
        (status = 426, body = Problem), (status = 503, body = Problem))
)]
pub(crate) async fn connect(State(app): State<Shared>, mut request: Request) -> Response {
    if let Err(problem) = app.check_open() {
        return problem.into_response();
    }
    let (accept, subprotocol) = match handshake(request.headers()) {
        Ok(handshake) => handshake,
        Err(problem) => return problem.into_response(),
    };
    let Some(upgrade) = request.extensions_mut().remove::<hyper::upgrade::OnUpgrade>() else {
        return Problem::new("LAN-0412", "this connection cannot become a WebSocket")
            .into_response();
    };
    let address = request.extensions().get::<FeedConnection>().map(|it| it.address);
    app.tasks.feeds.clone().spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let shutdown = app.tasks.stopping.clone().cancelled_owned();
                let hub = Arc::clone(&app.hub);
                drop(app);
                let end = hub.serve_from(address, TokioIo::new(upgraded), shutdown).await;
                tracing::debug!(?end, "a feed session ended");
            }
            Err(error) => tracing::debug!(%error, "opening a WebSocket failed"),
        }
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
}

/// Returns the value of the header `Sec-WebSocket-Accept`, which answers the client's key. Also
/// returns whether the client requested the feed's subprotocol.
fn handshake(headers: &HeaderMap) -> Result<(HeaderValue, bool), Problem> {
    let has = |name, wanted: &str| {
        headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(wanted))
    };
    if !has(UPGRADE, "websocket") || !has(CONNECTION, "upgrade") {
        return Err(Problem::new("LAN-0412", "the request does not ask for a WebSocket"));
    }
    if !has(SEC_WEBSOCKET_VERSION, "13") {
        return Err(Problem::new("LAN-0412", "the WebSocket's version must be 13"));
    }
    let wrong = |detail: String| Problem::new("LAN-0418", detail);
    let asked = headers.contains_key(SEC_WEBSOCKET_PROTOCOL);
    if asked && !has(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err(wrong(format!("this server supports only the subprotocol `{SUBPROTOCOL}`")));
    }
    let mut keys = headers.get_all(SEC_WEBSOCKET_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (None, _) => return Err(wrong("`Sec-WebSocket-Key` is missing".into())),
        (Some(_), Some(_)) => return Err(wrong("there are two `Sec-WebSocket-Key`".into())),
        (Some(key), None) => key.as_bytes(),
    };
    if BASE64_STANDARD.decode(key).map(|bytes| bytes.len()) != Ok(KEY_BYTES) {
        let key = String::from_utf8_lossy(key);
        return Err(wrong(format!(
            "`Sec-WebSocket-Key` is `{key}`: it must be 16 bytes in base64"
        )));
    }
    let accept = HeaderValue::from_str(&accept_key(key)).expect("base64 is a header's value");
    Ok((accept, asked))
}
