//! Answers `POST /v1/events`. It accepts events in every mode of CloudEvents.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use lantern_api::{AppendResult, AppendedLocation, EventRejection};
use lantern_core::{Appended, AppendedEvent, Events};
use lantern_traces::RequestTrace;

use super::append_result::{AppendQuery, INLINE_BYTES_MAX, count, json_of};
use super::params::{FullBody, Params, body, essence};
use super::{Shared, ndjson_stream, now};
use crate::cloudevents::{BATCH, EventError, NDJSON, Reader, STRUCTURED};
use crate::problem::Problem;

/// Appends events.
///
/// Takes one event (`application/cloudevents+json`, or binary mode with `ce-*` headers), a batch
/// (`application/cloudevents-batch+json`) or a stream of any length with one event per line
/// (`application/x-ndjson`). The answer is sent when the events are durable.
///
/// Sending an event again is safe: the log recognizes it by tenant, `source` and `id`. `differs`
/// counts the duplicates whose content differs from the event in the log.
///
/// If a batch contains an invalid event, nothing is appended, unless `partial=true`. A stream is
/// appended in groups of lines, each group completely or not at all. Without `partial=true` it
/// stops at the first group with an invalid line. The answer then names the line up to which every
/// event is in the log.
#[utoipa::path(
    post, path = "/v1/events", tag = "events", params(AppendQuery),
    request_body(content = Value, content_type = "application/cloudevents+json"),
    responses(
        (status = 200, body = AppendResult),
        (status = 400, body = Problem, description = "an event is invalid; `errors` names each"),
        (status = 413, body = Problem), (status = 415, body = Problem),
        (status = 422, body = Problem, description = "the topic cannot take an event"),
        (status = 409, body = Problem, description = "with `exact=true`: this log is not empty, or has other partitions"),
        (status = 503, body = Problem, description = "try again after `Retry-After` seconds"),
    )
)]
pub(crate) async fn append(
    State(app): State<Shared>,
    Params(query): Params<AppendQuery>,
    headers: HeaderMap,
    content: Body,
) -> Result<Json<AppendResult>, Problem> {
    let result = accept(&app, query, &headers, content).await;
    let result = result.inspect_err(|problem| {
        metrics::counter!("lantern_ingest_refused_total", "code" => problem.code.clone())
            .increment(1);
    })?;
    metrics::counter!("lantern_ingest_rejected_total").increment(result.rejected);
    Ok(Json(result))
}

async fn accept(
    app: &Shared,
    query: AppendQuery,
    headers: &HeaderMap,
    content: Body,
) -> Result<AppendResult, Problem> {
    app.check_open()?;
    let trace = app.request_trace(headers);
    let media = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let (max, limits) = (app.config.http.body_bytes_max, app.config.ingest.limits());
    match essence(media).as_str() {
        NDJSON | "application/ndjson" | "application/jsonl" => {
            if query.exact && !app.engine.status().is_empty() {
                let detail = "there are projections, which would emit their events again";
                return Err(Problem::new("LAN-0328", detail));
            }
            ndjson_stream::append(app, content, query, trace).await
        }
        _ if query.exact => {
            Err(Problem::new("LAN-0403", "`exact` takes `application/x-ndjson` alone"))
        }
        STRUCTURED => {
            let json = body(app, headers, content, max).await?;
            let mut events = Events::new();
            Reader::new(limits, now()).structured(&json, &mut events)?;
            single(app, trace, events).await
        }
        BATCH => {
            let json = body(app, headers, content, max).await?;
            batch(app, trace, json, query.partial).await
        }
        _ if headers.keys().any(|name| name.as_str().starts_with("ce-")) => {
            let payload = body(app, headers, content, max).await?;
            let mut events = Events::new();
            Reader::new(limits, now()).binary(headers, &payload, &mut events)?;
            single(app, trace, events).await
        }
        _ => Err(Problem::new("LAN-0312", format!("`Content-Type` is `{media}`"))),
    }
}

async fn single(
    app: &Shared,
    trace: Option<RequestTrace>,
    events: Events,
) -> Result<AppendResult, Problem> {
    let appended = app.append(trace, events).await?;
    let mut result = AppendResult::default();
    count(&mut result, &appended);
    result.events = Some(appended.events.iter().map(location_of).collect());
    Ok(result)
}

async fn batch(
    app: &Shared,
    trace: Option<RequestTrace>,
    json: FullBody,
    partial: bool,
) -> Result<AppendResult, Problem> {
    let limits = app.config.ingest.limits();
    let small = json.len() <= INLINE_BYTES_MAX;
    let read = move || {
        let (mut events, mut bad) = (Events::new(), Vec::new());
        let mut reader = Reader::new(limits, now());
        reader.batch(&json, &mut events, |index, error| bad.push((index, error)))?;
        Ok::<_, Problem>((events, bad))
    };
    let (events, bad) = if small { read()? } else { app.blocking(move |_| read()).await? };

    let named = bad.iter().take(app.config.ingest.errors_max);
    let errors: Vec<EventRejection> =
        named.map(|(index, error)| rejection(*index, error)).collect();
    if !bad.is_empty() && !partial {
        let all = events.len() + bad.len();
        let detail = format!("{} of {all} events are invalid: {}", bad.len(), bad[0].1);
        return Err(Problem::new("LAN-0314", detail).with("errors", json_of(&errors)));
    }
    let appended =
        if events.is_empty() { Appended::default() } else { app.append(trace, events).await? };
    let mut result = AppendResult { rejected: bad.len() as u64, errors, ..AppendResult::default() };
    count(&mut result, &appended);
    result.events = Some(in_order(&appended, &bad));
    Ok(result)
}

/// Returns a result for each event of a batch, in the order sent: its place in the log, or the
/// reason why it was refused.
fn in_order(appended: &Appended, bad: &[(usize, EventError)]) -> Vec<AppendedLocation> {
    let mut good = appended.events.iter().map(location_of);
    let mut bad = bad.iter().peekable();
    let all = appended.events.len() + bad.len();
    (0..all)
        .filter_map(|index| match bad.next_if(|(at, _)| *at == index) {
            Some((_, error)) => Some(AppendedLocation::Refused { code: error.code().into() }),
            None => good.next(),
        })
        .collect()
}

fn location_of(event: &AppendedEvent) -> AppendedLocation {
    AppendedLocation::InLog {
        partition: event.partition.0,
        offset: event.offset.0,
        duplicate: event.duplicate,
        differs: event.differs,
    }
}

fn rejection(index: usize, error: &EventError) -> EventRejection {
    EventRejection {
        index: Some(index as u64),
        line: None,
        code: error.code().into(),
        detail: error.to_string(),
    }
}
