//! Answers cross-origin requests (the Fetch standard) of the pages in `http.origins`, requests with
//! the method `OPTIONS`, and the handshake of CloudEvents web hooks. [`super::origin_check`] runs
//! before this module and decides which pages may call.
//!
//! `tower-http` has a layer for this. But that layer answers every `OPTIONS` request as a preflight,
//! with status 200. The handshake of a web hook is an `OPTIONS` request too, and needs another
//! answer.

use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ALLOW, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::App;
use crate::config::HttpConfig;

/// The methods that addresses of the API accept.
const METHODS: &str = "GET, HEAD, POST, PUT, DELETE";
/// How long a browser may keep the answer to a preflight, in seconds. It is the longest time that
/// any browser accepts.
const MAX_AGE_S: &str = "7200";
/// The address to which events are sent.
const EVENTS: &str = "/v1/events";

const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");
const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const ALLOWED_RATE: HeaderName = HeaderName::from_static("webhook-allowed-rate");

/// Lets the pages in `http.origins` read any answer, errors included.
pub(super) async fn share(
    app: &App,
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let origin = origin(request.headers(), &app.config.http);
    let mut response = next(request).await;
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        // By the Fetch standard, `*` means all headers, unless the request has credentials such as
        // cookies. This server uses no such credentials.
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    }
    response
}

/// Returns the origin of the request, if it is one of `http.origins`.
fn origin(headers: &HeaderMap, config: &HttpConfig) -> Option<HeaderValue> {
    let origin = headers.get(ORIGIN)?;
    config.origins.iter().any(|own| own.as_bytes() == origin.as_bytes()).then(|| origin.clone())
}

/// Answers `OPTIONS`.
pub(super) async fn options(
    app: &App,
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    if request.method() != Method::OPTIONS {
        return next(request).await;
    }
    if let Some(response) = preflight(request.headers(), &app.config.http) {
        return response;
    }
    let web_hook = match request.headers().get(REQUEST_ORIGIN) {
        Some(name) if request.uri().path() == EVENTS => Some(name.clone()),
        _ => None,
    };
    let mut response = next(request).await;
    // The router knows which methods an address accepts, and lists them in `Allow`.
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        let allow = response.headers_mut().remove(ALLOW);
        response = StatusCode::NO_CONTENT.into_response();
        if let Some(allow) = allow {
            response.headers_mut().insert(ALLOW, allow);
        }
    }
    if let Some(name) = web_hook {
        // The server accepts events from every sender that may call it, so every web hook is
        // allowed.
        *response.status_mut() = StatusCode::OK;
        response.headers_mut().insert(ALLOWED_ORIGIN, name);
        response.headers_mut().insert(ALLOWED_RATE, HeaderValue::from_static("*"));
    }
    response
}

/// Returns the answer to a browser's preflight.
fn preflight(headers: &HeaderMap, config: &HttpConfig) -> Option<Response> {
    origin(headers, config)?;
    headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    let mut response = StatusCode::NO_CONTENT.into_response();
    let answer = response.headers_mut();
    answer.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    answer.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE_S));
    // All headers are allowed, because the headers of extension attributes cannot be listed.
    for asked in headers.get_all(ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.append(ACCESS_CONTROL_ALLOW_HEADERS, asked.clone());
    }
    let vary = "Access-Control-Request-Method, Access-Control-Request-Headers";
    answer.append(VARY, HeaderValue::from_static(vary));
    Some(response)
}
