//! Compresses answers: `Accept-Encoding` (RFC 9110, section 12.5.3).

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use http::header::ACCEPT_ENCODING;
use zstd::stream::write::Encoder as ZstdEncoder;

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
    /// The coding with the highest weight in `Accept-Encoding`. For equal weights, zstd comes
    /// before gzip. Without the header a body is not compressed.
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(ACCEPT_ENCODING).iter();
        let entries: Vec<(String, u16)> = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .map(|entry| {
                let name = crate::http::params::essence(entry);
                (name, crate::http::params::quality(entry))
            })
            .collect();
        let weight = |names: &[&str]| {
            let of = |name: &str| entries.iter().find(|(known, _)| known == name).map(|(_, w)| *w);
            names.iter().find_map(|name| of(name)).or_else(|| of("*")).unwrap_or(0)
        };
        let (gzip, zstd) = (weight(&["gzip", "x-gzip"]), weight(&["zstd"]));
        let identity = entries.iter().find(|(name, _)| name == "identity").map_or(1, |(_, w)| *w);
        match (zstd, gzip) {
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

/// Compresses what is written to it, and writes that to `W`.
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
