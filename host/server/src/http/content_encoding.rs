//! Unpacks compressed bodies (`Content-Encoding`, RFC 9110, section 8.4) while they are read. The
//! memory for this is limited, even for a small body that unpacks to a very large one or requires a
//! large window.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_compression::tokio::bufread::{GzipDecoder, ZstdDecoder};
use async_compression::zstd::DParameter;
use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use tokio::io::{AsyncBufRead, BufReader};
use tokio_util::io::{ReaderStream, StreamReader};

use super::App;
use crate::problem::{CONTENT_CODING, Problem};

/// The maximum number of codings that were applied to one body.
const CODINGS_MAX: usize = 3;
/// The maximum size of Zstandard's window (RFC 9659), as a power of two: 8 MiB. The library itself
/// would allow 128 MiB for each body.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// The number of bytes that are unpacked at a time.
const PIECE_BYTES: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Zstd,
}

/// Why unpacking a body failed.
#[derive(Debug)]
struct DecodeError(String);

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for DecodeError {}

/// The limits of unpacking a body.
#[derive(Clone, Copy)]
struct UnpackLimit {
    /// The number of unpacked bytes that is always allowed.
    bytes: u64,
    /// The maximum ratio of unpacked bytes to packed bytes. It applies to bodies that unpack to
    /// more than `bytes`.
    ratio: u64,
}

/// Unpacks the body and passes it on. The layers after this one see neither `Content-Encoding` nor
/// the packed length.
pub(super) async fn unpack(
    app: &App,
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    let codings = match codings(request.headers()) {
        Ok(codings) if codings.is_empty() => return next(request).await,
        Ok(codings) => codings,
        Err(problem) => return problem.into_response(),
    };
    // Each body that is being unpacked needs memory for a window, so it waits for a permit.
    let wait = Duration::from_millis(app.config.http.body_idle_ms_max);
    let permit = Arc::clone(&app.permits.unpacking).acquire_owned();
    let Ok(Ok(permit)) = tokio::time::timeout(wait, permit).await else {
        return Problem::new("LAN-0423", "too many packed bodies are being read").into_response();
    };
    let (mut parts, packed) = request.into_parts();
    parts.headers.remove(CONTENT_ENCODING);
    parts.headers.remove(CONTENT_LENGTH);
    let limit = UnpackLimit {
        bytes: app.config.http.body_bytes_max as u64,
        ratio: app.config.http.unpack_ratio_max,
    };
    let pieces = pieces(packed, &codings, limit).map(move |piece| {
        let _held = &permit;
        piece
    });
    next(Request::from_parts(parts, Body::from_stream(pieces))).await
}

/// Returns the codings of the body, in order of their application.
fn codings(headers: &HeaderMap) -> Result<Vec<Coding>, Problem> {
    let mut codings = Vec::new();
    for value in headers.get_all(CONTENT_ENCODING) {
        let text = value.to_str().unwrap_or("?");
        for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            match name.to_ascii_lowercase().as_str() {
                "gzip" | "x-gzip" => codings.push(Coding::Gzip),
                "zstd" => codings.push(Coding::Zstd),
                "identity" => (),
                _ => {
                    let detail = format!("`Content-Encoding` is `{text}`");
                    return Err(Problem::new(CONTENT_CODING, detail));
                }
            }
        }
    }
    if codings.len() > CODINGS_MAX {
        let detail = format!(
            "`Content-Encoding` names {} codings, and the limit is {CODINGS_MAX}",
            codings.len()
        );
        return Err(Problem::new(CONTENT_CODING, detail));
    }
    Ok(codings)
}

fn pieces(
    packed: Body,
    codings: &[Coding],
    limit: UnpackLimit,
) -> impl futures_util::Stream<Item = Result<Bytes, io::Error>> + Send + use<> {
    let taken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&taken);
    let packed = packed.into_data_stream().map(move |piece| {
        let piece = piece.map_err(io::Error::other)?;
        counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        Ok::<_, io::Error>(piece)
    });
    let mut reader: Pin<Box<dyn AsyncBufRead + Send>> = Box::pin(StreamReader::new(packed));
    for coding in codings.iter().rev() {
        reader = match coding {
            Coding::Gzip => {
                let mut decoder = GzipDecoder::new(reader);
                decoder.multiple_members(true);
                Box::pin(BufReader::new(decoder))
            }
            Coding::Zstd => {
                let window = [DParameter::window_log_max(ZSTD_WINDOW_LOG_MAX)];
                let mut decoder = ZstdDecoder::with_params(reader, &window);
                decoder.multiple_members(true);
                Box::pin(BufReader::new(decoder))
            }
        };
    }
    let mut unpacked = 0;
    ReaderStream::with_capacity(reader, PIECE_BYTES).map(move |piece| {
        let piece = piece?;
        unpacked += piece.len() as u64;
        let packed = taken.load(Ordering::Relaxed);
        if unpacked > limit.bytes && unpacked > packed.saturating_mul(limit.ratio) {
            let why = format!(
                "{packed} bytes unpack to more than {unpacked}; the limit is {} times as many",
                limit.ratio
            );
            return Err(io::Error::other(DecodeError(why)));
        }
        Ok(piece)
    })
}

/// Returns the answer to a request whose body could not be read to its end. `place` says how much
/// was read, for example ` after line 3`.
pub(super) fn broken(error: axum::Error, place: &str) -> Problem {
    // Each layer that passes the body on wraps the error, so the innermost error is searched.
    let mut error = error.into_inner();
    let error = loop {
        match error.downcast::<axum::Error>() {
            Ok(nested) => error = nested.into_inner(),
            Err(other) => break other,
        }
    };
    let Some(error) = error.downcast_ref::<io::Error>() else {
        return Problem::new("LAN-0408", format!("the body broke off{place}: {error}"));
    };
    match error.get_ref().and_then(|inner| inner.downcast_ref::<DecodeError>()) {
        Some(decode_error) => {
            Problem::new("LAN-0422", format!("the body is too large{place}: {decode_error}"))
        }
        None => Problem::new("LAN-0408", format!("the body cannot be unpacked{place}: {error}")),
    }
}
