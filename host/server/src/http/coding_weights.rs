//! Reads the weights that a client gives codings in `Accept-Encoding` (RFC 9110, section 12.5.3).

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use super::params::{essence, quality};

/// The codings in `Accept-Encoding`, each with its weight in thousandths.
pub(super) struct CodingWeights(Vec<(String, u16)>);

impl CodingWeights {
    pub(super) fn read(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
        let entries = lines.flat_map(|line| line.split(','));
        Self(entries.map(|entry| (essence(entry), quality(entry))).collect())
    }

    /// The weight of gzip; 0 if the client does not accept it.
    pub(super) fn gzip(&self) -> u16 {
        self.named("gzip").or_else(|| self.named("x-gzip")).unwrap_or_else(|| self.any())
    }

    /// The weight of Zstandard; 0 if the client does not accept it.
    pub(super) fn zstd(&self) -> u16 {
        self.named("zstd").unwrap_or_else(|| self.any())
    }

    /// The weight of a coding that the header names.
    pub(super) fn named(&self, coding: &str) -> Option<u16> {
        self.0.iter().find(|(name, _)| name == coding).map(|&(_, weight)| weight)
    }

    /// The weight of codings that the header does not name.
    fn any(&self) -> u16 {
        self.named("*").unwrap_or(0)
    }
}
