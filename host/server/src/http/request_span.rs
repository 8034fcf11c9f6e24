//! Traces and counts every request.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::response::Response;
use http::{HeaderMap, Method};
use lantern_traces::TraceContext;
use tracing::Instrument as _;

/// Runs the request in a span that continues the caller's trace.
pub(super) async fn request(
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    // Metrics and spans get the route's pattern and not the path. Clients choose the names in a
    // path, so paths would create an unlimited number of metrics.
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "other".to_owned(), |path| path.as_str().to_owned());
    let method = method(request.method());
    let (trace_id, parent_id) = trace_context(request.headers()).unwrap_or_default();
    let span = tracing::info_span!("request", method, route, trace_id, parent_id);
    let start = Instant::now();
    let response = next(request).instrument(span.clone()).await;
    let (status, seconds) = (response.status().as_u16(), start.elapsed().as_secs_f64());
    span.in_scope(|| match status {
        500.. => tracing::warn!(status, seconds, "request failed"),
        _ => tracing::debug!(status, seconds, "request answered"),
    });
    let labels = [("route", route), ("method", method.to_owned()), ("status", status.to_string())];
    metrics::counter!("lantern_http_requests_total", &labels).increment(1);
    metrics::histogram!("lantern_http_request_seconds", &labels[..1]).record(seconds);
    response
}

/// Returns the method, if HTTP defines it. Other names would each create another time series.
fn method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        Method::TRACE => "TRACE",
        Method::CONNECT => "CONNECT",
        _ => "other",
    }
}

/// Returns the trace and the parent in a W3C `traceparent` header.
fn trace_context(headers: &HeaderMap) -> Option<(String, String)> {
    let context = TraceContext::parse(headers.get("traceparent")?.to_str().ok()?)?;
    Some((context.trace_hex(), context.parent_hex()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_trace_of_a_request_is_that_of_its_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(trace_context(&headers), None);
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
        headers.insert("traceparent", text.parse().unwrap());
        let expected = ("4bf92f3577b34da6a3ce929d0e0e4736".into(), "00f067aa0ba902b7".into());
        assert_eq!(trace_context(&headers), Some(expected));
        headers.insert("traceparent", "nonsense".parse().unwrap());
        assert_eq!(trace_context(&headers), None);
    }
}
