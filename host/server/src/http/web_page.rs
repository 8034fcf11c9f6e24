//! The dashboard: three files and an icon, all compiled into the binary.

use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue};

use super::Shared;

/// The page runs only its own script and connects only to its own server. So text from
/// projections would be harmless even if a mistake inserted it as HTML.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("../../../../web/index.html")),
    ("/app.js", "text/javascript; charset=utf-8", include_str!("../../../../web/app.js")),
    ("/style.css", "text/css; charset=utf-8", include_str!("../../../../web/style.css")),
    ("/icon.svg", "image/svg+xml", include_str!("../../../../web/icon.svg")),
];

/// The page's routes.
pub(crate) fn routes() -> Router<Shared> {
    FILES.iter().fold(Router::new(), |router, &(path, media, content)| {
        router.route(path, get(async move || answer(media, content)))
    })
}

fn answer(media: &'static str, content: &'static str) -> Response {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (CONTENT_TYPE, HeaderValue::from_static(media)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, content).into_response()
}
