//! Serves the web page: its built files, which are compressed and compiled into the binary.
//!
//! The page shows different screens at different paths. At each of these paths the server returns
//! the same file, `index.html`, whose script reads the path.

use async_compression::tokio::bufread::GzipDecoder;
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncReadExt as _;

use super::Shared;
use super::coding_weights::CodingWeights;

/// The content security policy. The page runs only its own script and connects only to its own
/// server. So text from a projection does no harm even if it is inserted as HTML by mistake.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";

/// The built files: the path of each, and its content in gzip. The list is empty if the page was
/// not built before the server.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/page_files.rs"));

/// The file of all screens.
const INDEX: &str = "/index.html";

/// The paths of the screens. They match paths of the script, `web/src/app.tsx`.
const SCREENS: [&str; 11] = [
    "/",
    "/upload",
    "/upload/declaration",
    "/boards",
    "/boards/{*rest}",
    "/events",
    "/server",
    "/server/{*rest}",
    "/parked",
    "/p/{*rest}",
    "/t/{*rest}",
];

/// The answer at `/` if the page was not built.
const NOT_BUILT: &str = "This server was built without its web page.\n\n\
    To get the page, install Node.js 20 or newer, run `cargo xtask page`, and build the \
    server again.\n\nThe API works without the page: the tables are under /v1/tables, and \
    /v1/openapi.json describes all requests.\n";

/// Returns the routes of the web page.
pub(crate) fn routes() -> Router<Shared> {
    let mut router = Router::new();
    if !FILES.iter().any(|&(path, _)| path == INDEX) {
        return router
            .route("/", get(async || headers("text/plain; charset=utf-8", NO_CACHE, NOT_BUILT)));
    }
    for &(path, packed) in FILES {
        let file = PageFile { media: media(path), cache: cache(path), packed };
        if path == INDEX {
            for screen in SCREENS {
                router = router.route(screen, get(move |headers| file.answer(headers)));
            }
        } else {
            router = router.route(path, get(move |headers| file.answer(headers)));
        }
    }
    router
}

const NO_CACHE: &str = "no-cache";

/// The names of files under `/assets` contain a hash of their content.
fn cache(path: &str) -> &'static str {
    if path.starts_with("/assets/") { "public, max-age=31536000, immutable" } else { NO_CACHE }
}

fn media(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

/// A built file.
#[derive(Clone, Copy)]
struct PageFile {
    media: &'static str,
    cache: &'static str,
    /// The content in gzip.
    packed: &'static [u8],
}

impl PageFile {
    async fn answer(self, request: HeaderMap) -> Response {
        let mut answer = if CodingWeights::read(&request).gzip() > 0 {
            let mut answer = headers(self.media, self.cache, self.packed);
            answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            answer
        } else {
            let mut content = Vec::new();
            let unpacked = GzipDecoder::new(self.packed).read_to_end(&mut content).await;
            unpacked.expect("the build compressed this file");
            headers(self.media, self.cache, content)
        };
        answer.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
        answer
    }
}

fn headers(media: &'static str, cache: &'static str, content: impl IntoResponse) -> Response {
    let headers: [(HeaderName, HeaderValue); 5] = [
        (CONTENT_TYPE, HeaderValue::from_static(media)),
        (CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY)),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CACHE_CONTROL, HeaderValue::from_static(cache)),
    ];
    (headers, content).into_response()
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT_ENCODING;

    use super::*;

    #[test]
    fn every_screen_of_the_script_has_a_path() {
        let script = include_str!("../../../../web/src/app.tsx");
        let paths =
            script.split("<Route path=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let paths: Vec<_> = paths.collect();
        assert!(paths.len() > 8, "{paths:?}");
        for path in paths {
            let served = SCREENS.iter().any(|screen| match screen.strip_suffix("{*rest}") {
                Some(prefix) => path.len() > prefix.len() && path.starts_with(prefix),
                None => *screen == path,
            });
            assert!(served, "the server answers `{path}` with 404");
        }
    }

    #[test]
    fn gzip_is_sent_only_to_clients_that_accept_it() {
        let accepts = |text: &'static str| {
            let text = HeaderValue::from_static(text);
            CodingWeights::read(&HeaderMap::from_iter([(ACCEPT_ENCODING, text)])).gzip() > 0
        };
        for text in ["gzip", "deflate, gzip;q=0.5, br", "GZIP", "*", "br;q=1, *;q=0.1"] {
            assert!(accepts(text), "{text}");
        }
        for text in ["", "br", "gzip;q=0", "gzip; q=0, *", "*;q=0"] {
            assert!(!accepts(text), "{text}");
        }
        assert_eq!(CodingWeights::read(&HeaderMap::new()).gzip(), 0);
    }

    #[tokio::test]
    async fn a_file_is_the_same_packed_and_unpacked_and_only_hashed_names_are_kept_for_ever() {
        use flate2::{Compression, write::GzEncoder};
        use std::io::Write as _;
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(b"<p>page</p>").unwrap();
        let packed: &'static [u8] = Box::leak(packer.finish().unwrap().into_boxed_slice());
        let file = PageFile { media: media("/index.html"), cache: cache("/index.html"), packed };
        let plain = file.answer(HeaderMap::new()).await;
        assert!(!plain.headers().contains_key(CONTENT_ENCODING));
        assert_eq!(plain.headers()[CACHE_CONTROL], "no-cache");
        assert_eq!(plain.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(
            plain.headers()[CONTENT_SECURITY_POLICY]
                .to_str()
                .unwrap()
                .contains("script-src 'self';")
        );
        let body = axum::body::to_bytes(plain.into_body(), 1 << 10).await.unwrap();
        assert_eq!(&body[..], b"<p>page</p>");
        let wants = HeaderMap::from_iter([(ACCEPT_ENCODING, HeaderValue::from_static("gzip, br"))]);
        let answer = file.answer(wants).await;
        assert_eq!(answer.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(answer.headers()[VARY], "accept-encoding");
        let body = axum::body::to_bytes(answer.into_body(), 1 << 10).await.unwrap();
        assert_eq!(&body[..], packed);
        assert!(cache("/assets/index-1a2b3c.js").contains("immutable"));
        assert!(!cache("/icon.svg").contains("immutable"));
    }
}
