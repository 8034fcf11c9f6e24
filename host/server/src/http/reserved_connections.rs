//! Manages the few connections that are accepted beyond `http.connections_max`. They are reserved
//! for administrators, who can then see that the server runs, and can act, while clients use all
//! other connections.

use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};

use crate::problem::Problem;

/// Marks a request on a reserved connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reserved;

/// Restricts reserved connections to requests for which [`is_administration`] is true. Other
/// requests on them get a 503.
pub(super) async fn check(
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    if request.extensions().get::<Reserved>().is_some() && !is_administration(&request) {
        let detail = "all connections for this kind of request are in use";
        return Problem::new("LAN-0420", detail).into_response();
    }
    next(request).await
}

/// Returns whether the request has no body and is for health, metrics, or the administration of
/// projections. A request with a body could keep the connection in use without end.
fn is_administration(request: &Request) -> bool {
    let path = request.uri().path();
    let known = matches!(path, "/healthz" | "/readyz" | "/metrics" | "/v1/status")
        || path == "/v1/projections"
        || path.starts_with("/v1/projections/");
    known && request.body().is_end_stream()
}
