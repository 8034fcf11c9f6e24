//! Compresses answers: `Accept-Encoding` (RFC 9110, section 12.5.3).

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use zstd::stream::write::Encoder as ZstdEncoder;

use crate::http::coding_weights::CodingWeights;

/// The level of Zstandard.
const ZSTD_LEVEL: i32 = 1;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum ResponseCoding {
    #[default]
    Identity,
    Gzip,
    Zstd,
}

impl ResponseCoding {
    /// Returns the coding with the highest weight in `Accept-Encoding`. If the weights are equal,
    /// zstd is preferred to gzip. Without the header the body is not compressed.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let weights = CodingWeights::read(headers);
        let identity = weights.named("identity").unwrap_or(1);
        match (weights.zstd(), weights.gzip()) {
            (0, 0) => Self::Identity,
            (zstd, gzip) if zstd.max(gzip) < identity => Self::Identity,
            (zstd, gzip) if zstd >= gzip => Self::Zstd,
            _ => Self::Gzip,
        }
    }

    /// The value of `Content-Encoding`.
    pub(super) fn name(self) -> Option<&'static str> {
        match self {
            Self::Identity => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }
}

/// Compresses the bytes that are written to it, and writes the compressed bytes to `W`.
pub(super) enum Encoder<W: Write> {
    Identity(W),
    Gzip(GzEncoder<W>),
    Zstd(ZstdEncoder<'static, W>),
}

impl<W: Write> Encoder<W> {
    pub(super) fn new(coding: ResponseCoding, to: W) -> io::Result<Self> {
        Ok(match coding {
            ResponseCoding::Identity => Self::Identity(to),
            ResponseCoding::Gzip => Self::Gzip(GzEncoder::new(to, Compression::fast())),
            ResponseCoding::Zstd => Self::Zstd(ZstdEncoder::new(to, ZSTD_LEVEL)?),
        })
    }

    /// Writes the end, and returns the target.
    pub(super) fn finish(self) -> io::Result<W> {
        match self {
            Self::Identity(to) => Ok(to),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Identity(to) => to.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Identity(to) => to.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT_ENCODING;

    use super::*;

    #[test]
    fn the_coding_with_the_greatest_weight_is_taken() {
        let check = |accept: &str, expected| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
            assert_eq!(ResponseCoding::accepted(&headers), expected, "{accept}");
        };
        check("gzip, deflate, br, zstd", ResponseCoding::Zstd);
        check("gzip, deflate", ResponseCoding::Gzip);
        check("zstd;q=0.5, gzip;q=0.8", ResponseCoding::Gzip);
        check("zstd;q=0, *", ResponseCoding::Gzip);
        check("*", ResponseCoding::Zstd);
        check("identity, gzip;q=0.5", ResponseCoding::Identity);
        check("gzip;q=0", ResponseCoding::Identity);
        check("br", ResponseCoding::Identity);
        check("", ResponseCoding::Identity);
        assert_eq!(ResponseCoding::accepted(&HeaderMap::new()), ResponseCoding::Identity);
    }
}
