//! Tests traces of events: a collector in the test receives the spans of a real server over OTLP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use lantern_client::{Client, Options, Status};
use lantern_tests::{Launch, PATIENCE, Server, fresh_log, guest, run};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;

use crate::line;

/// The spans that a collector has received.
#[derive(Clone, Default)]
struct Received(Arc<Mutex<Vec<ServerSpan>>>);

/// A span, with the attributes of the server that has sent it.
type ServerSpan = (Vec<KeyValue>, Span);

/// A collector that accepts OTLP over HTTP.
struct Collector {
    url: String,
    received: Received,
}

async fn export(
    State(received): State<Received>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Vec<u8>, StatusCode> {
    if headers.get("content-type").is_none_or(|value| value != "application/x-protobuf") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let request = ExportTraceServiceRequest::decode(body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let mut spans = received.0.lock().unwrap();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default().attributes;
        let found = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(found.map(|span| (resource.clone(), span)));
    }
    Ok(ExportTraceServiceResponse::default().encode_to_vec())
}

impl Collector {
    async fn start() -> Self {
        let received = Received::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = axum::Router::new().route("/v1/traces", post(export));
        let app = app.with_state(received.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { url, received }
    }

    /// Starts a server that sends its spans to this collector, with the projection `rogue`.
    async fn server(&self, setting: &str) -> Server {
        let endpoint = format!("tracing.otlp_endpoint={}", self.url);
        let settings = [endpoint.as_str(), "tracing.export_ms=20", setting];
        let server = Server::start(&settings).unwrap();
        server.project("rogue", &guest("rogue"), "{}").await.unwrap();
        server
    }

    /// Returns the spans of `trace` received so far, by name.
    fn spans(&self, trace: &str) -> BTreeMap<String, Vec<Span>> {
        let mut by_name: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (_, span) in &*self.received.0.lock().unwrap() {
            if hex(&span.trace_id) == trace {
                by_name.entry(span.name.clone()).or_default().push(span.clone());
            }
        }
        by_name
    }

    /// Waits until the spans of `trace` have the names `names`, each at least once.
    async fn until(&self, trace: &str, names: &[&str]) -> BTreeMap<String, Vec<Span>> {
        let started = Instant::now();
        loop {
            let spans = self.spans(trace);
            if names.iter().all(|name| spans.contains_key(*name)) {
                return spans;
            }
            assert!(started.elapsed() < PATIENCE, "{:?} of {names:?}", spans.keys());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns an attribute as text.
fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    let found = found.unwrap_or_else(|| panic!("no `{key}` in {attributes:?}"));
    match found.value.as_ref().and_then(|value| value.value.as_ref()).unwrap() {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(value) => value.to_string(),
        other => panic!("{key}: {other:?}"),
    }
}

/// Checks attributes of a span.
fn check(span: &Span, expected: &[(&str, &str)]) {
    for (key, value) in expected {
        assert_eq!(attribute(&span.attributes, key), *value, "{key} of {}", span.name);
    }
}

/// Formats an event as a line of JSON, with a `traceparent`.
fn traced(id: u32, data: &str, traceparent: &str) -> String {
    let event = line(id, "probe.sent", &format!("s{id}"), data);
    event.replacen('{', &format!("{{\"traceparent\":\"{traceparent}\","), 1)
}

async fn send(server: &Server, events: String, traceparent: Option<&str>) {
    let request = reqwest::Client::new()
        .post(format!("{}/v1/events", server.url))
        .header("content-type", "application/x-ndjson");
    let request = match traceparent {
        Some(traceparent) => request.header("traceparent", traceparent),
        None => request,
    };
    let answer = request.body(events).send().await.unwrap();
    assert_eq!(answer.status().as_u16(), 200, "{}", answer.text().await.unwrap());
}

const EVENT: &str = "0af7651916cd43dd8448eb211c80319c";
const REQUEST: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARKED: &str = "11111111111111111111111111111111";
const SKIPPED: &str = "22222222222222222222222222222222";
const BARE: &str = "33333333333333333333333333333333";

fn traceparent(trace: &str, sampled: bool) -> String {
    format!("00-{trace}-b7ad6b7169203331-0{}", u8::from(sampled))
}

/// All steps of an event that clients of the feed get.
const STEPS: [&str; 5] = ["ingest", "fold", "commit", "publish", "send"];

#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_an_event_shows_its_path_from_the_request_to_the_feed() {
    let collector = Collector::start().await;
    let server = collector.server("tracing.service_name=shop").await;
    let feed = format!("{}/v1/feed", server.url.replace("http", "ws"));
    let client = Client::connect(&feed, Options::default()).await.unwrap();
    let table = client.table("rogue/seen");
    tokio::time::timeout(PATIENCE, table.wait_for_status(Status::is_live)).await.unwrap();

    let header = traceparent(REQUEST, true);
    send(&server, traced(1, "{}", &traceparent(EVENT, true)), Some(&header)).await;
    let spans = collector.until(EVENT, &STEPS).await;
    let [ingest, fold, commit, publish, sent] = STEPS.map(|name| {
        assert_eq!(spans[name].len(), 1, "{name}: {spans:?}");
        &spans[name][0]
    });
    // Each step is the parent of the next one, and the sender of the event that of the first.
    assert_eq!(hex(&ingest.parent_span_id), "b7ad6b7169203331");
    for (before, step) in [(ingest, fold), (fold, commit), (commit, publish), (publish, sent)] {
        assert_eq!(step.parent_span_id, before.span_id, "{} of {}", before.name, step.name);
        assert!(before.start_time_unix_nano <= step.end_time_unix_nano, "{before:?} {step:?}");
        assert!(step.start_time_unix_nano <= step.end_time_unix_nano, "{step:?}");
    }
    assert!(ingest.end_time_unix_nano - ingest.start_time_unix_nano < 60_000_000_000);
    check(ingest, &[("lantern.partition", "0"), ("lantern.offset", "0")]);
    check(ingest, &[("lantern.ingest.duplicate", "false"), ("cloudevents.event_id", "1")]);
    let status = server.get("/v1/projections/rogue").await.unwrap();
    let version = status["active"].as_str().unwrap();
    check(fold, &[("lantern.projection", "rogue"), ("lantern.version", version)]);
    check(fold, &[("lantern.offset", "0"), ("lantern.fold.outcome", "applied")]);
    check(fold, &[("lantern.batch.first_offset", "0"), ("lantern.batch.next_offset", "1")]);
    check(fold, &[("lantern.batch.events", "1"), ("lantern.version.active", "true")]);
    check(commit, &[("lantern.commit.next_offset", "1"), ("lantern.commit.rows", "1")]);
    check(publish, &[("lantern.feed.subscriptions", "1")]);
    check(sent, &[("lantern.feed.frame", "delta"), ("lantern.projection", "rogue")]);
    let received = collector.received.0.lock().unwrap().clone();
    assert!(received.iter().all(|(of, _)| attribute(of, "service.name") == "shop"));

    // The request has a trace of its own, with which the event's trace is linked.
    let request = &collector.until(REQUEST, &["ingest"]).await["ingest"][0];
    let link = &ingest.links[0];
    assert_eq!((&link.trace_id, &link.span_id), (&request.trace_id, &request.span_id));
    assert_eq!(collector.spans(REQUEST).len(), 1, "the event follows its own trace");

    // An event without a trace follows the trace of its request, and stays as it is.
    let bare = line(2, "probe.sent", "s2", "{}");
    send(&server, bare, Some(&traceparent(BARE, true))).await;
    let spans = collector.until(BARE, &STEPS).await;
    assert_eq!(spans["fold"][0].parent_span_id, spans["ingest"][0].span_id);
    assert_eq!(server.log().await.unwrap()[1]["event"].get("traceparent"), None);

    // A parked event shows why.
    send(&server, traced(3, r#"{"do":"fail"}"#, &traceparent(PARKED, true)), None).await;
    let spans = collector.until(PARKED, &["ingest", "fold", "commit"]).await;
    check(&spans["fold"][0], &[("lantern.fold.outcome", "parked"), ("lantern.offset", "2")]);
    assert_eq!(spans["fold"][0].status.as_ref().unwrap().code, 2, "{spans:?}");

    // Events whose traces are not recorded make no spans.
    let before = collector.received.0.lock().unwrap().len();
    let skipped: String =
        (10..20).map(|id| traced(id, "{}", &traceparent(SKIPPED, false))).collect();
    send(&server, skipped, Some(&traceparent(SKIPPED, false))).await;
    send(&server, line(30, "probe.sent", "s", "{}"), None).await;
    server.caught_up("rogue").await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let all = collector.received.0.lock().unwrap().clone();
    let late = all[before..].iter().filter(|(_, span)| hex(&span.trace_id) != PARKED);
    assert_eq!(late.count(), 0, "{:?}", &all[before..]);
    let started = Instant::now();
    loop {
        let metrics = server.text("/metrics").await.unwrap();
        let received = collector.received.0.lock().unwrap().len();
        if metrics.contains(&format!("lantern_trace_exported_spans_total {received}\n")) {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{received} spans: {metrics}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_of_requests_without_a_trace_is_recorded() {
    let collector = Collector::start().await;
    let server = collector.server("tracing.sample_ratio=1").await;
    send(&server, line(1, "probe.sent", "s", "{}"), None).await;
    let started = Instant::now();
    let trace = loop {
        let first = collector.received.0.lock().unwrap().first().cloned();
        if let Some((_, span)) = first {
            break hex(&span.trace_id);
        }
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(10)).await;
    };
    let spans = collector.until(&trace, &["ingest", "fold", "commit", "publish"]).await;
    assert!(spans["ingest"][0].parent_span_id.is_empty(), "the trace begins here: {spans:?}");
    check(&spans["publish"][0], &[("lantern.feed.subscriptions", "0")]);
}

/// A collector that does not work: it refuses connections, or accepts them and never answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_does_not_work_delays_nothing_and_shows_in_metrics_and_one_log_line() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [closed, silent.local_addr().unwrap()] {
        let folder = tempfile::tempdir().unwrap();
        let stderr = folder.path().join("stderr");
        let settings = [
            format!("tracing.otlp_endpoint=http://{address}"),
            "tracing.export_ms=10".into(),
            "tracing.timeout_ms_max=100".into(),
            "tracing.queue_spans_max=50".into(),
            "tracing.batch_spans_max=10".into(),
        ];
        let mut server = Server::launch(Launch {
            folder: folder.path().join("data"),
            address: "127.0.0.1:0".into(),
            log: fresh_log().unwrap(),
            settings: settings.to_vec(),
            stderr: Some(stderr.clone()),
            ..Launch::default()
        })
        .unwrap();
        server.project("rogue", &guest("rogue"), "{}").await.unwrap();
        let events = |first: u32| -> String {
            (first..first + 200).map(|id| traced(id, "{}", &traceparent(EVENT, true))).collect()
        };
        for round in 0..5 {
            let started = Instant::now();
            send(&server, events(round * 200), None).await;
            let taken = started.elapsed();
            assert!(taken < Duration::from_secs(5), "an append took {taken:?}");
        }
        server.caught_up("rogue").await.unwrap();
        assert_eq!(server.log().await.unwrap().len(), 1_000);
        let started = Instant::now();
        let counted = |metrics: &str, name: &str| -> f64 {
            let mut lines = metrics.lines().filter(|line| line.starts_with(name));
            let value = lines.next().and_then(|line| line.rsplit_once(' '));
            value.map_or(0.0, |(_, value)| value.parse().unwrap())
        };
        let seen = |metrics: &str| {
            counted(metrics, "lantern_trace_dropped_spans_total{why=\"queue\"}") > 0.0
                && counted(metrics, "lantern_trace_dropped_spans_total{why=\"collector\"}") >= 10.0
                && counted(metrics, "lantern_trace_export_failures_total") >= 4.0
        };
        loop {
            let metrics = server.text("/metrics").await.unwrap();
            if seen(&metrics) {
                break;
            }
            assert!(started.elapsed() < PATIENCE, "{metrics}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let stopping = Instant::now();
        assert!(server.stop().unwrap().success());
        assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
        let text = std::fs::read_to_string(&stderr).unwrap();
        let said = text.lines().filter(|line| line.contains("did not accept spans")).count();
        assert_eq!(said, 1, "{text}");
    }
}

#[test]
fn an_address_that_is_not_one_of_a_collector_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data").display().to_string();
    for (endpoint, why) in [("localhost:4318", "begin with `http://`"), ("https://c:4318", "TLS")] {
        let setting = format!("tracing.otlp_endpoint={endpoint}");
        let serve = ["serve", "--listen", "127.0.0.1:0", "--data", &data, "--set", &setting];
        let refused = run(&serve).unwrap();
        let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success(), "{errors}");
        for words in ["LAN-0001", "otlp_endpoint", endpoint, why] {
            assert!(errors.contains(words), "no `{words}` in {errors}");
        }
    }
}
