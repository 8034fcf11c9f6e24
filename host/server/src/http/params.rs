//! Reads query parameters and bodies strictly. An unknown parameter is refused, and the answer
//! names it.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_LENGTH};
use http::request::Parts;
use http::{HeaderMap, Uri};
use http_body_util::BodyExt;
use lantern_core::{Offset, PartitionId};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

use super::content_encoding::broken;
use super::{App, SMALL_BODY_BYTES_MAX, Shared};
use crate::cloudevents::BATCH;
use crate::durations::{DURATION_FORMS, parse_duration};
use crate::problem::Problem;

/// The query parameters of a request. Unknown parameters are errors if `T` denies unknown fields.
pub(crate) struct Params<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        Self::read(&parts.uri)
    }
}

impl<T: DeserializeOwned> Params<T> {
    /// Reads the query parameters of `uri`, of which the one with the name `name` may occur several
    /// times. `values` returns its values; [`single`] reads one of them.
    pub(super) fn read_repeated(
        uri: &Uri,
        name: &str,
        values: impl Fn(&mut T) -> &mut Vec<String>,
    ) -> Result<T, Problem> {
        // The library that parses queries refuses a parameter that occurs twice, so each is read
        // separately.
        let query = uri.query().unwrap_or_default();
        let is_named = |part: &&str| part.split('=').next() == Some(name);
        let (named, others): (Vec<&str>, Vec<&str>) = query.split('&').partition(is_named);
        let mut read = Self::read(&with_query(&others)?)?.0;
        for part in named {
            let mut part = Self::read(&with_query(&[part])?)?.0;
            values(&mut read).append(values(&mut part));
        }
        Ok(read)
    }

    /// Reads the query parameters of `uri`.
    pub(super) fn read(uri: &Uri) -> Result<Self, Problem> {
        match Query::try_from_uri(uri) {
            Ok(Query(params)) => Ok(Self(params)),
            Err(error) => {
                let text = error.body_text();
                let reason = text.strip_prefix("Failed to deserialize query string: ");
                let query = uri.query().unwrap_or_default();
                let reason = reason.unwrap_or(&text);
                Err(Problem::new("LAN-0403", format!("in `?{query}`: {reason}")))
            }
        }
    }
}

/// Reads one of the values of a parameter that may occur several times; see
/// [`Params::read_repeated`].
pub(super) fn single<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    String::deserialize(deserializer).map(|value| vec![value])
}

/// Returns an address whose query consists of `parts`.
pub(super) fn with_query(parts: &[&str]) -> Result<Uri, Problem> {
    let query = parts.join("&");
    format!("/?{query}").parse().map_err(|e| Problem::new("LAN-0403", format!("`{query}`: {e}")))
}

/// The names in the path of a request.
pub(crate) struct Names<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Names<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(error) => Err(Problem::new("LAN-0403", error.body_text())),
        }
    }
}

/// The code of the problem that a body is larger than its limit.
pub(super) const BODY_TOO_LARGE: &str = "LAN-0313";

/// The maximum size of a body that is not counted for `http.bodies_max`, in bytes.
const UNCOUNTED_BYTES_MAX: u64 = 64 << 10;

/// A complete body. If it is large, it holds a permit of `http.bodies_max` until it is dropped.
pub(crate) struct FullBody {
    /// The bytes of the body.
    pub(crate) bytes: Bytes,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Deref for FullBody {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Reads a complete body of at most `max` bytes. Between two pieces the client may pause for
/// `http.body_idle_ms_max`.
pub(crate) async fn body(
    app: &App,
    headers: &HeaderMap,
    mut body: Body,
    max: usize,
) -> Result<FullBody, Problem> {
    let too_large = || {
        Problem::new(BODY_TOO_LARGE, format!("the body is larger than the limit of {max} bytes"))
    };
    let announced =
        headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > max as u64) {
        return Err(too_large());
    }
    let idle = Duration::from_millis(app.config.http.body_idle_ms_max);
    let permit = match announced {
        Some(..=UNCOUNTED_BYTES_MAX) => None,
        _ => {
            let permit = Arc::clone(&app.permits.bodies).acquire_owned();
            let permit = tokio::time::timeout(idle, permit).await;
            let busy = |_| Problem::new("LAN-0423", "too many large bodies are being read");
            permit.map_err(busy)?.ok()
        }
    };
    let mut whole =
        Vec::with_capacity(announced.and_then(|n| usize::try_from(n).ok()).unwrap_or(0));
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_| {
            Problem::new("LAN-0408", format!("the body paused for more than {} s", idle.as_secs()))
        })?;
        match frame {
            None => return Ok(FullBody { bytes: whole.into(), _permit: permit }),
            Some(Ok(frame)) => {
                let Some(data) = frame.data_ref() else { continue };
                if data.len() > max - whole.len() {
                    return Err(too_large());
                }
                whole.extend_from_slice(data);
            }
            Some(Err(error)) => return Err(broken(error, "")),
        }
    }
}

/// A body that contains only a few names.
pub(crate) struct SmallBody(pub(crate) FullBody);

impl FromRequest<Shared> for SmallBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &Shared) -> Result<Self, Problem> {
        let (parts, content) = request.into_parts();
        body(app, &parts.headers, content, SMALL_BODY_BYTES_MAX).await.map(Self)
    }
}

/// Returns the media type in a header, without parameters and in lower case.
pub(crate) fn essence(value: &str) -> String {
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// The media type of Arrow's IPC stream.
pub(crate) const ARROW: &str = "application/vnd.apache.arrow.stream";
/// The media type of Parquet.
pub(crate) const PARQUET: &str = "application/vnd.apache.parquet";

/// The format of the rows or events in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerFormat {
    /// A single JSON object.
    Json,
    /// A JSON object for each row or event, each on a line of its own.
    Ndjson,
    /// Comma-separated values.
    Csv,
    /// A CloudEvents batch: a JSON array of events.
    Batch,
    /// Arrow's IPC stream.
    Arrow,
    /// Parquet.
    Parquet,
    /// The text format of Prometheus.
    Prometheus,
}

impl AnswerFormat {
    /// Formats of rows; the first is the default if the client accepts none of them.
    pub(crate) const ROWS: [Self; 5] =
        [Self::Json, Self::Ndjson, Self::Csv, Self::Arrow, Self::Parquet];
    /// Formats of events.
    pub(crate) const EVENTS: [Self; 3] = [Self::Json, Self::Ndjson, Self::Batch];

    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Json => &["application/json"],
            Self::Ndjson => &["application/x-ndjson", "application/ndjson", "application/jsonl"],
            Self::Csv => &["text/csv"],
            Self::Batch => &[BATCH],
            Self::Arrow => &[ARROW],
            Self::Parquet => &[PARQUET],
            // Clients can select this format only with the parameter `format`. Its media type,
            // `text/plain`, is no choice: a client that accepts it may expect any text.
            Self::Prometheus => &[],
        }
    }
}

/// A format that `format=` names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FormatName {
    /// One JSON object.
    Json,
    /// A JSON object per row.
    Ndjson,
    /// Comma-separated values.
    Csv,
    /// Arrow's IPC stream.
    Arrow,
    /// Parquet.
    Parquet,
    /// The text format of Prometheus.
    Prometheus,
}

impl From<FormatName> for AnswerFormat {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Json => Self::Json,
            FormatName::Ndjson => Self::Ndjson,
            FormatName::Csv => Self::Csv,
            FormatName::Arrow => Self::Arrow,
            FormatName::Parquet => Self::Parquet,
            FormatName::Prometheus => Self::Prometheus,
        }
    }
}

/// A parameter that is `1` or `true`, or `0` or `false`.
pub(super) fn flag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    match String::deserialize(deserializer)?.as_str() {
        "1" | "true" => Ok(true),
        "0" | "false" => Ok(false),
        other => Err(D::Error::custom(format!("`{other}` must be `1` or `0`"))),
    }
}

/// The weight of a range in thousandths, and how exactly the range names a media type: 2 by name, 1
/// by its type alone (`text/*`), 0 as `*/*`.
type AcceptWeight = (u16, u8);

/// Returns the format with the highest weight in `Accept` (RFC 9110, section 12.5.1). Among formats
/// with equal weights, the one that is named most exactly comes first, and then the one that is
/// named first. If the client accepts none of the formats in `offered`, the function returns the
/// first of them, which the client may be able to use nevertheless.
pub(crate) fn answer_format(headers: &HeaderMap, offered: &[AnswerFormat]) -> AnswerFormat {
    let mut best: Option<(AcceptWeight, AnswerFormat)> = None;
    let lines = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    for range in lines.flat_map(|line| line.split(',')) {
        for &format in offered {
            let Some(weight) = accept_weight(range, format, headers) else { continue };
            if best.is_none_or(|(known, _)| weight > known) {
                best = Some((weight, format));
            }
        }
    }
    best.map_or(offered[0], |(_, format)| format)
}

/// Returns the weight that the range `range` of `Accept` gives `format`. It is `None` in these
/// cases:
///
/// * The range does not include the format.
/// * The range refuses the format (weight 0).
/// * Another range names the format more exactly.
fn accept_weight(range: &str, format: AnswerFormat, headers: &HeaderMap) -> Option<AcceptWeight> {
    let closeness = |range: &str| {
        let range = essence(range);
        let named = |name: &str| match range.strip_suffix("/*") {
            _ if range == name => Some(2),
            Some("*") => Some(0),
            Some(kind) if name.split('/').next() == Some(kind) => Some(1),
            _ => None,
        };
        format.names().iter().filter_map(|name| named(name)).max()
    };
    let close = closeness(range)?;
    let lines = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let closest = lines.flat_map(|line| line.split(',')).filter_map(closeness).max();
    let weight = quality(range);
    (closest == Some(close) && weight > 0).then_some((weight, close))
}

/// The `q` of a range in thousandths; 1,000 if it is missing or malformed.
pub(super) fn quality(range: &str) -> u16 {
    let q = range.split(';').skip(1).find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| value.trim().parse::<f32>().ok())?
    });
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    q.map_or(1_000, |q| (q.clamp(0.0, 1.0) * 1_000.0) as u16)
}

/// Parses the parameter `wait`, a duration such as `5s` of at most `max_s` seconds.
pub(crate) fn wait(text: Option<&str>, max_s: u64) -> Result<Duration, Problem> {
    let Some(text) = text else { return Ok(Duration::ZERO) };
    let Some(wait) = parse_duration(text) else {
        let detail = format!("`wait` is `{text}`: {DURATION_FORMS}");
        return Err(Problem::new("LAN-0403", detail));
    };
    if wait > Duration::from_secs(max_s) {
        let detail = format!("`wait` is `{text}`: the limit is {max_s}s");
        return Err(Problem::new("LAN-0403", detail));
    }
    Ok(wait)
}

/// The parameter `min_offset`: for each partition, an offset that the answer must contain, for
/// example `0:501,1:77`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct MinOffsets(BTreeMap<u32, u64>);

impl MinOffsets {
    /// Parses the parameter `min_offset`.
    pub(crate) fn read(text: &str) -> Result<Self, Problem> {
        let mut offsets = BTreeMap::new();
        for part in text.split(',') {
            let parsed = part.split_once(':').and_then(|(partition, offset)| {
                Some((partition.parse().ok()?, offset.parse::<u64>().ok()?))
            });
            let Some((partition, offset)) = parsed else {
                let detail = format!(
                    "`min_offset` is `{text}`: write it as `PARTITION:OFFSET`, such as `0:501`, several separated by commas"
                );
                return Err(Problem::new("LAN-0403", detail));
            };
            let least = offsets.entry(partition).or_insert(offset);
            *least = (*least).max(offset);
        }
        Ok(Self(offsets))
    }

    /// Refuses partitions that the log does not have.
    pub(crate) fn check(&self, partitions: u32) -> Result<(), Problem> {
        match self.0.keys().find(|partition| **partition >= partitions) {
            Some(partition) => {
                let detail = format!(
                    "`min_offset` names partition {partition}: the log has {partitions}, counted from 0"
                );
                Err(Problem::new("LAN-0403", detail))
            }
            None => Ok(()),
        }
    }

    /// Returns the offset of `partition` that the answer must contain.
    pub(crate) fn of(&self, partition: PartitionId) -> Option<Offset> {
        self.0.get(&partition.0).copied().map(Offset)
    }
}

/// Checks the parameter `limit`, which must be between 1 and `max`.
pub(crate) fn limit(
    requested: Option<usize>,
    default: usize,
    max: usize,
) -> Result<usize, Problem> {
    match requested {
        None => Ok(default.min(max)),
        Some(limit) if (1..=max).contains(&limit) => Ok(limit),
        Some(limit) => {
            let detail = format!("`limit` is {limit}: it must be 1 to {max}");
            Err(Problem::new("LAN-0403", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_and_bounded() {
        assert_eq!(wait(None, 30).unwrap(), Duration::ZERO);
        assert_eq!(wait(Some("250ms"), 30).unwrap(), Duration::from_millis(250));
        assert_eq!(wait(Some("5s"), 30).unwrap(), Duration::from_secs(5));
        assert_eq!(wait(Some("5"), 30).unwrap(), Duration::from_secs(5));
        for (bad, words) in [("1m", "limit is 30s"), ("s", "`s`"), ("5h", "`5h`"), ("-1s", "`-1s`")]
        {
            let problem = wait(Some(bad), 30).unwrap_err();
            assert!(problem.detail.contains(words), "{}", problem.detail);
        }
    }

    #[test]
    fn offsets_to_wait_for_are_read_strictly() {
        let read = MinOffsets::read("0:5,2:7,0:3").unwrap();
        let of = |partition| read.of(PartitionId(partition));
        assert_eq!((of(0), of(1), of(2)), (Some(Offset(5)), None, Some(Offset(7))));
        assert!(read.check(3).is_ok());
        assert!(read.check(2).unwrap_err().detail.contains("partition 2"));
        for bad in ["", "5", "0:", ":5", "0:5,", "0:-1", "a:1", "0:5:6"] {
            let problem = MinOffsets::read(bad).unwrap_err();
            assert!(problem.detail.contains("PARTITION:OFFSET"), "{bad}: {}", problem.detail);
        }
    }

    #[test]
    fn the_format_with_the_greatest_weight_is_taken() {
        let check = |accept: &str, expected| {
            let mut headers = HeaderMap::new();
            for line in accept.split('|') {
                headers.append(ACCEPT, line.parse().unwrap());
            }
            assert_eq!(answer_format(&headers, &AnswerFormat::ROWS), expected, "{accept}");
        };
        check("text/csv;q=0.5, */*", AnswerFormat::Json);
        check("text/csv, */*", AnswerFormat::Csv);
        check("application/json;q=0.2, text/csv;q=0.9", AnswerFormat::Csv);
        check("application/json;q=0.2|TEXT/CSV; Q=0.9", AnswerFormat::Csv);
        check("text/*, application/json;q=0.9", AnswerFormat::Csv);
        check("application/x-ndjson, text/csv", AnswerFormat::Ndjson);
        check("application/*;q=0.5, application/json;q=0", AnswerFormat::Ndjson);
        check("*/*, application/json;q=0", AnswerFormat::Ndjson);
        check("text/html, application/x-ndjson", AnswerFormat::Ndjson);
        check("text/csv;q=0", AnswerFormat::Json);
        check("text/html", AnswerFormat::Json);
        check("*/*", AnswerFormat::Json);
        assert_eq!(answer_format(&HeaderMap::new(), &AnswerFormat::EVENTS), AnswerFormat::Json);
    }
}
