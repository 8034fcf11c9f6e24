//! The format of an answer, and its compression.

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};

use super::response_coding::ResponseCoding;
use crate::cloudevents::NDJSON;
use crate::http::params::{ARROW, AnswerFormat, PARQUET};

/// The format of an answer, and how it is compressed.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerForm {
    pub(super) format: AnswerFormat,
    pub(super) coding: ResponseCoding,
}

impl AnswerForm {
    /// How the body is compressed. Parquet is compressed already.
    pub(super) fn body_coding(self) -> ResponseCoding {
        match self.format {
            AnswerFormat::Parquet => ResponseCoding::Identity,
            _ => self.coding,
        }
    }

    /// Adds the headers of the format and the coding.
    pub(super) fn describe(self, headers: &mut HeaderMap) {
        let media = match self.format {
            AnswerFormat::Json | AnswerFormat::Batch => "application/json",
            AnswerFormat::Ndjson => NDJSON,
            AnswerFormat::Csv => "text/csv; charset=utf-8",
            AnswerFormat::Arrow => ARROW,
            AnswerFormat::Parquet => PARQUET,
            AnswerFormat::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        if let Some(name) = self.body_coding().name() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
    }
}
