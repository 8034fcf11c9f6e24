//! The feed: a WebSocket handed over to the hub.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper_util::rt::TokioIo;
use lantern_live::{SUBPROTOCOL, accept_key};

use super::Shared;
use crate::problem::Problem;

/// Opens the feed. A WebSocket; the protocol is on the page of the feed.
#[utoipa::path(
    get, path = "/v1/feed", tag = "tables",
    responses((status = 101, description = "the WebSocket"), (status = 426, body = Problem))
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
    app.feeds.clone().spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let shutdown = app.stopping.clone().cancelled_owned();
                let hub = std::sync::Arc::clone(&app.hub);
                drop(app);
                let end = hub.serve(TokioIo::new(upgraded), shutdown).await;
                tracing::debug!(?end, "a feed session ended");
            }
            Err(error) => tracing::debug!(%error, "a WebSocket did not come about"),
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

/// The answer to the client's key, and whether it asked for the subprotocol.
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
        return Err(Problem::new("LAN-0412", "the request asks for no WebSocket"));
    }
    if !has(SEC_WEBSOCKET_VERSION, "13") {
        return Err(Problem::new("LAN-0412", "the WebSocket's version must be 13"));
    }
    let asked = headers.contains_key(SEC_WEBSOCKET_PROTOCOL);
    if asked && !has(SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        let detail = format!("this server speaks the subprotocol `{SUBPROTOCOL}` alone");
        return Err(Problem::new("LAN-0412", detail));
    }
    let key = headers
        .get(SEC_WEBSOCKET_KEY)
        .ok_or_else(|| Problem::new("LAN-0412", "`Sec-WebSocket-Key` is missing"))?;
    let accept =
        HeaderValue::from_str(&accept_key(key.as_bytes())).expect("base64 is a header's value");
    Ok((accept, asked))
}
