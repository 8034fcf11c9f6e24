//! Answers `GET /v1/events`, which reads the log.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue};
use lantern_api::EventsPage;
use lantern_core::{
    Chunk, EventRef, HEARTBEAT_TYPE, LogRead, Offset, PartitionBounds, PartitionId, TypeFilter,
    UNREADABLE_TYPE, read_or_wait,
};
use serde::Deserialize;
use tokio::time::Instant;
use utoipa::IntoParams;

use super::params::{AnswerFormat, Params, answer_format, limit, wait};
use super::{App, Shared, export_attributes};
use crate::cloudevents::{BATCH, NDJSON, format_time, parse_time, write_event, write_exact};
use crate::problem::Problem;

/// The number of events in an answer if the request has no `limit`.
const LIMIT_DEFAULT: usize = 100;
/// The maximum number of chunks that are searched in one pass. If few events match the filter, this
/// keeps a pass from searching a large part of the log.
const CHUNKS_MAX: usize = 1_000;

/// Which events to read.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// The partition; 0 if left out.
    partition: u32,
    /// The offset of the first event, or `end` for events appended after this request. If left out,
    /// the oldest kept offset is used.
    from: Option<String>,
    /// In place of `from`: returns events from the first one on that was appended at or after this
    /// time, RFC 3339.
    time: Option<String>,
    /// The maximum number of events; 100 if left out.
    limit: Option<usize>,
    /// Event types, separated by commas: exact, or a prefix ending in `*`. `*` exports the whole
    /// log for `POST /v1/events?exact=true` on another server: it also returns host events, and for
    /// each event its append time and its partition.
    types: Option<String>,
    /// How long to wait for the first event if there is none yet: `5s`.
    wait: Option<String>,
}

/// Reads events.
///
/// Answers JSON. With `Accept: application/x-ndjson` (one event per line) or
/// `application/cloudevents-batch+json` (an array), the answer contains only the events, in the
/// form that `POST /v1/events` accepts. Two headers then contain the rest: `Lantern-Next` tells
/// where to continue, and `Lantern-Decisions` is the number of retries and drops of parked events.
/// The tables on this server depend on these in addition to the log.
#[utoipa::path(
    get, path = "/v1/events", tag = "events", params(EventsQuery),
    responses(
        (status = 200, body = EventsPage),
        (status = 404, body = Problem), (status = 410, body = Problem),
    )
)]
pub(crate) async fn read(
    State(app): State<Shared>,
    Params(query): Params<EventsQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let partition = PartitionId(query.partition);
    let wait = wait(query.wait.as_deref(), app.config.http.wait_s_max)?;
    let limit = limit(query.limit, LIMIT_DEFAULT, app.config.http.query_rows_max)?;
    let wanted = filter(query.types.as_deref());
    let exact = is_whole(query.types.as_deref());
    let format = answer_format(&headers, &AnswerFormat::EVENTS);
    let mut appended = app.signals.appended.clone();
    appended.mark_unchanged();
    let from = app.read(move |app| first(app, partition, &query)).await?;
    let mut page = PageBuilder::new(from, format, limit, app.config.http.query_bytes_max);
    page.exact = exact;
    let until = Instant::now() + wait;
    let bounds = loop {
        let wanted = wanted.clone();
        let read = move |app: &App| {
            let at_end = page.fill(app, partition, &wanted)?;
            Ok((page, at_end, app.log.bounds(partition)?))
        };
        let (filled, at_end, bounds) = app.read(read).await?;
        page = filled;
        if page.count > 0 || (at_end && !changed(&app, &mut appended, until).await) {
            break bounds;
        }
        if Instant::now() >= until {
            break bounds;
        }
    };
    Ok(page.answer(partition, bounds, app.engine.decisions()))
}

/// Waits for an append. Returns `false` if there is none in time, or if the server stops.
async fn changed(
    app: &App,
    appended: &mut tokio::sync::watch::Receiver<()>,
    until: Instant,
) -> bool {
    if until <= Instant::now() {
        return false;
    }
    tokio::select! {
        changed = tokio::time::timeout_at(until, appended.changed()) => {
            matches!(changed, Ok(Ok(())))
        }
        () = app.tasks.stopping.cancelled() => false,
    }
}

fn filter(types: Option<&str>) -> TypeFilter {
    let Some(types) = types else { return TypeFilter::everything() };
    let patterns = types.split(',').map(|kind| kind.trim().to_owned()).filter(|k| !k.is_empty());
    let filter = TypeFilter::new(&patterns.collect::<Vec<_>>());
    match is_whole(Some(types)) {
        true => filter.and(HEARTBEAT_TYPE).and(UNREADABLE_TYPE),
        false => filter,
    }
}

/// Returns whether the request asks for the whole log, with `types=*`.
fn is_whole(types: Option<&str>) -> bool {
    types.is_some_and(|types| types.split(',').any(|kind| kind.trim() == "*"))
}

/// Returns the offset from which the events are read.
fn first(app: &App, partition: PartitionId, query: &EventsQuery) -> Result<Offset, Problem> {
    let bounds = app.log.bounds(partition)?;
    match (query.from.as_deref(), query.time.as_deref()) {
        (Some(_), Some(_)) => {
            Err(Problem::new("LAN-0403", "both `from` and `time` are given: give only one of them"))
        }
        (None, None) => Ok(bounds.start),
        (Some("end"), None) => Ok(bounds.end),
        (Some(text), None) => {
            let offset = text.parse().map(Offset).map_err(|_| {
                Problem::new("LAN-0403", format!("`from` is `{text}`: give an offset, or `end`"))
            })?;
            Ok(offset.min(bounds.end))
        }
        (None, Some(text)) => {
            let time = parse_time(text).ok_or_else(|| {
                let detail = format!("`time` is `{text}`: write it as `2026-01-31T23:59:59Z`");
                Problem::new("LAN-0403", detail)
            })?;
            Ok(app.log.offset_at(partition, time)?)
        }
    }
}

/// Builds an answer with events.
struct PageBuilder {
    next: Offset,
    format: AnswerFormat,
    limit: usize,
    bytes_max: usize,
    count: usize,
    events: Vec<u8>,
    /// Whether each event gets the additional attributes of an exact export.
    exact: bool,
}

impl PageBuilder {
    fn new(next: Offset, format: AnswerFormat, limit: usize, bytes_max: usize) -> Self {
        Self { next, format, limit, bytes_max, count: 0, events: Vec::new(), exact: false }
    }

    fn is_full(&self) -> bool {
        self.count >= self.limit || self.events.len() >= self.bytes_max
    }

    /// Reads more events. Returns whether the end of the log was reached.
    fn fill(
        &mut self,
        app: &App,
        partition: PartitionId,
        types: &TypeFilter,
    ) -> Result<bool, Problem> {
        for _ in 0..CHUNKS_MAX {
            if self.is_full() {
                return Ok(false);
            }
            match read_or_wait(&*app.log, partition, self.next, types)? {
                // The log is at its end: `read_or_wait` never returns `Pending`.
                LogRead::End | LogRead::Pending => return Ok(true),
                LogRead::Skipped { next } => self.next = next,
                LogRead::Chunk(chunk) => self.take(&chunk, types),
            }
        }
        Ok(false)
    }

    fn take(&mut self, chunk: &Chunk, types: &TypeFilter) {
        for index in chunk.index_of(self.next)..chunk.events.len() {
            if self.is_full() {
                return;
            }
            let offset = chunk.offset(index);
            self.next = offset.next();
            if !types.matches(chunk.events.kind(index)) {
                continue;
            }
            let (event, appended) = (chunk.events.get(index), chunk.appended(index));
            let exported = self.exact.then(|| {
                export_attributes::with_export_attributes(&event, chunk.partition, appended)
            });
            let extensions = exported.as_deref().unwrap_or(event.extensions);
            let event = EventRef { extensions, ..event };
            let comma = if self.count == 0 { "" } else { "," };
            let write = if self.exact { write_exact } else { write_event };
            match self.format {
                AnswerFormat::Ndjson => {
                    write(&event, &mut self.events);
                    self.events.push(b'\n');
                }
                AnswerFormat::Batch => {
                    self.events.extend_from_slice(comma.as_bytes());
                    write(&event, &mut self.events);
                }
                // The formats of rows are not offered.
                _ => {
                    let appended = appended.map_or_else(
                        || "null".to_owned(),
                        |time| format!("\"{}\"", format_time(time)),
                    );
                    let head =
                        format!("{comma}{{\"offset\":{offset},\"appended\":{appended},\"event\":");
                    self.events.extend_from_slice(head.as_bytes());
                    write(&event, &mut self.events);
                    self.events.push(b'}');
                }
            }
            self.count += 1;
        }
    }

    fn answer(
        mut self,
        partition: PartitionId,
        bounds: PartitionBounds,
        decisions: u64,
    ) -> Response {
        let next = HeaderValue::from(self.next.0);
        let (media, body) = match self.format {
            AnswerFormat::Ndjson => (NDJSON, self.events),
            AnswerFormat::Batch => (BATCH, [b"[", &*self.events, b"]"].concat()),
            // The formats of rows are not offered.
            _ => {
                let PartitionBounds { start, end, .. } = bounds;
                let next = self.next;
                let mut body = format!(
                    "{{\"partition\":{partition},\"start\":{start},\"end\":{end},\"next\":{next},\"decisions\":{decisions},\"events\":["
                )
                .into_bytes();
                body.append(&mut self.events);
                body.extend_from_slice(b"]}");
                ("application/json", body)
            }
        };
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        headers.insert("lantern-next", next);
        headers.insert(VARY, HeaderValue::from_static("Accept"));
        headers.insert("lantern-decisions", HeaderValue::from(decisions));
        response
    }
}

/// Describes as text what `uri` requests from the log.
pub(crate) fn explain(
    uri: &http::Uri,
    config: &crate::config::HttpConfig,
) -> Result<String, Problem> {
    let Params(query) = Params::<EventsQuery>::read(uri)?;
    let wait = wait(query.wait.as_deref(), config.wait_s_max)?;
    let limit = limit(query.limit, LIMIT_DEFAULT, config.query_rows_max)?;
    let time = query.time.as_deref().map(parse_time);
    Ok(format!("{query:?} {wait:?} {limit} {time:?} {:?}", filter(query.types.as_deref())))
}
