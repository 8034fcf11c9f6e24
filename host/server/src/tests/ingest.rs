use super::*;
use lantern_core::{LogRead, PartitionId, TypeFilter};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::cloudevents::{BATCH, NDJSON, STRUCTURED};

/// A page of events, each as it is written.
#[derive(Deserialize)]
struct Page {
    events: Vec<Logged>,
}

#[derive(Deserialize)]
struct Logged {
    event: Box<RawValue>,
}

fn lines(from: usize, to: usize) -> String {
    (from..to).map(|i| event(&i.to_string(), "t", "s") + "\n").collect()
}

async fn end(fixture: &Fixture) -> u64 {
    fixture.get("/v1/events").await.json()["end"].as_u64().unwrap()
}

#[tokio::test]
async fn one_event_is_answered_with_its_place_and_known_when_sent_again() {
    let fixture = Fixture::new();
    let first =
        fixture.post("/v1/events", STRUCTURED, event("1", "t", "s")).await.expect_ok().json();
    let expected = serde_json::json!({
        "appended": 1, "duplicates": 0, "differs": 0, "rejected": 0,
        "partitions": {"0": {"first": 0, "last": 0}},
        "events": [{"partition": 0, "offset": 0, "duplicate": false}],
    });
    assert_eq!(first, expected);
    let again =
        fixture.post("/v1/events", STRUCTURED, event("1", "t", "s")).await.expect_ok().json();
    assert_eq!(again["duplicates"], 1);
    assert_eq!(again["events"][0]["offset"], 0);

    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "2"),
        ("ce-source", "test"),
        ("ce-type", "t"),
        ("content-type", "text/plain"),
    ];
    let binary = fixture.send(request(Method::POST, "/v1/events", &headers, "hello")).await;
    assert_eq!(binary.expect_ok().json()["events"][0]["offset"], 1);
}

#[tokio::test]
async fn nothing_of_a_bad_batch_is_appended_unless_asked_for() {
    let fixture = Fixture::new();
    let batch = format!("[{},{{}},{}]", event("1", "t", "s"), event("2", "lantern.x", "s"));
    let refused = fixture.post("/v1/events", BATCH, batch.clone()).await;
    refused.is_problem("LAN-0314", "2 of 3 events are invalid: attribute `specversion` is missing");
    let errors = &refused.json()["errors"];
    assert_eq!((&errors[0]["index"], &errors[1]["index"]), (&1.into(), &2.into()));
    assert_eq!(errors[1]["code"], "LAN-0307");
    assert_eq!(end(&fixture).await, 0);

    let partial = fixture.post("/v1/events?partial=true", BATCH, batch).await.expect_ok().json();
    assert_eq!((&partial["appended"], &partial["rejected"]), (&1.into(), &2.into()));
    assert_eq!(partial["events"][0]["offset"], 0);
    assert_eq!(partial["events"][1]["code"], "LAN-0304");
    assert_eq!(end(&fixture).await, 1);
}

#[tokio::test]
async fn wrong_requests_are_refused_with_the_reason() {
    let fixture = Fixture::with(|config| config.http.body_bytes_max = 2_000);
    let post = async |media: &str, body: String| fixture.post("/v1/events", media, body).await;
    post("text/plain", "x".into()).await.is_problem("LAN-0312", "`text/plain`");
    post("application/json", event("1", "t", "s")).await.is_problem("LAN-0312", "application/json");
    post(STRUCTURED, "{".into()).await.is_problem("LAN-0301", "not JSON");
    post(STRUCTURED, " ".repeat(3_000)).await.is_problem("LAN-0313", "2000 bytes");
    let unknown = fixture.post("/v1/events?partail=true", STRUCTURED, "{}").await;
    unknown.is_problem("LAN-0403", "partail");
    assert_eq!(end(&fixture).await, 0);
}

#[tokio::test]
async fn lines_of_any_number_are_appended_in_order() {
    let fixture = Fixture::with(|config| {
        config.http.body_bytes_max = 2_000;
        config.ingest.group_bytes = 2_000;
    });
    let body = lines(0, 1_000) + "\n\n" + lines(1_000, 1_001).trim_end();
    let pieces: Vec<_> = body.as_bytes().chunks(777).map(|p| Ok::<_, String>(p.to_vec())).collect();
    let body = Body::from_stream(futures_util::stream::iter(pieces));
    let taken = fixture.post("/v1/events", NDJSON, body).await.expect_ok().json();
    assert_eq!(taken["appended"], 1_001);
    assert_eq!(taken["lines"], 1_003);
    assert_eq!(taken["partitions"]["0"], serde_json::json!({"first": 0, "last": 1_000}));
    assert!(taken.get("events").is_none());
    let last = fixture.get("/v1/events?from=1000").await.json();
    assert_eq!(last["events"][0]["event"]["id"], "1000");
}

#[tokio::test]
async fn a_stream_stops_at_a_bad_line_and_can_be_gone_on_with() {
    let fixture = Fixture::with(|config| config.ingest.group_bytes = 2_000);
    let body = lines(0, 100) + "{}\n" + &lines(100, 200);
    let stopped = fixture.post("/v1/events", NDJSON, body.clone()).await;
    stopped.is_problem("LAN-0315", "line 101: attribute `specversion` is missing");
    let answer = stopped.json();
    assert_eq!(answer["errors"][0]["line"], 101);
    let appended = answer["appended"].as_u64().unwrap();
    assert_eq!(answer["lines"], appended);
    assert_eq!(end(&fixture).await, appended);

    let rest = fixture.post("/v1/events?partial=true", NDJSON, body).await.expect_ok().json();
    assert_eq!(rest["duplicates"], appended);
    assert_eq!(rest["appended"], 200 - appended);
    assert_eq!((&rest["rejected"], &rest["lines"]), (&1.into(), &201.into()));
    assert_eq!(end(&fixture).await, 200);
}

#[tokio::test]
async fn a_short_stream_with_a_bad_line_appends_nothing() {
    let fixture = Fixture::new();
    let stopped = fixture.post("/v1/events", NDJSON, lines(0, 2) + "nonsense\n").await;
    stopped.is_problem("LAN-0314", "line 3: not JSON");
    assert_eq!((stopped.json()["lines"].clone(), end(&fixture).await), (0.into(), 0));
}

#[tokio::test]
async fn a_line_without_an_end_is_cut_off() {
    let fixture = Fixture::with(|config| config.ingest.event_bytes_max = 2_000);
    let stopped = fixture.post("/v1/events", NDJSON, lines(0, 1) + &"x".repeat(400_000)).await;
    stopped.is_problem("LAN-0302", "line 2: the event has");
}

#[tokio::test]
async fn events_are_read_by_place_type_and_time() {
    let fixture = Fixture::new();
    for (id, kind) in [("1", "a.x"), ("2", "b"), ("3", "a.y")] {
        fixture.post("/v1/events", STRUCTURED, event(id, kind, "s")).await.expect_ok();
    }
    let ids = |answer: Answer| -> Vec<String> {
        let events = answer.expect_ok().json()["events"].clone();
        let ids = events.as_array().unwrap().iter();
        ids.map(|e| e["event"]["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(fixture.get("/v1/events").await), ["1", "2", "3"]);
    assert_eq!(ids(fixture.get("/v1/events?from=1&limit=1").await), ["2"]);
    assert_eq!(ids(fixture.get("/v1/events?types=a.*").await), ["1", "3"]);
    assert_eq!(ids(fixture.get("/v1/events?types=a.x,b").await), ["1", "2"]);
    assert_eq!(ids(fixture.get("/v1/events?from=end").await), [""; 0]);
    assert_eq!(ids(fixture.get("/v1/events?time=2000-01-01T00:00:00Z").await).len(), 3);
    let page = fixture.get("/v1/events?limit=2").await.json();
    assert_eq!((&page["next"], &page["end"]), (&2.into(), &3.into()));

    let ndjson = fixture.get_as("/v1/events", NDJSON).await;
    assert_eq!(ndjson.headers["lantern-next"], "3");
    let again = fixture.post("/v1/events", NDJSON, ndjson.text).await.expect_ok().json();
    assert_eq!(again["duplicates"], 3);

    fixture.get("/v1/events?partition=7").await.is_problem("LAN-0321", "no partition 7");
    fixture.get("/v1/events?from=x").await.is_problem("LAN-0403", "`x`");
    fixture.get("/v1/events?limit=0").await.is_problem("LAN-0403", "`limit` is 0");
    fixture.get("/v1/events?form=1").await.is_problem("LAN-0403", "form");
    fixture.get("/v1/events?wait=1h").await.is_problem("LAN-0403", "`1h`");
}

#[tokio::test]
async fn a_reader_that_waits_is_woken_by_the_next_event() {
    let fixture = Fixture::new();
    let waiting = fixture.get("/v1/events?from=end&types=b&wait=1s");
    let sending = async {
        // The request with `from=end` reads the end of the log before the append. So it must return
        // the event, even if the append is done before the request begins to wait.
        tokio::task::yield_now().await;
        fixture.post("/v1/events", STRUCTURED, event("1", "a", "s")).await.expect_ok();
        fixture.post("/v1/events", STRUCTURED, event("2", "b", "s")).await.expect_ok();
    };
    let reading = async {
        let mut answer = waiting.await;
        while answer.json()["events"].as_array().unwrap().is_empty() {
            answer = fixture.get("/v1/events?types=b&wait=20s").await;
        }
        answer
    };
    let (answer, ()) = tokio::join!(tokio::time::timeout(PATIENCE, reading), sending);
    assert_eq!(answer.unwrap().json()["events"][0]["event"]["id"], "2");
}

#[tokio::test]
async fn an_exact_import_gives_the_same_log_and_the_same_tables() {
    const EXPORT: &str = "/v1/events?types=*&limit=1000";
    const TABLE: &str = "/v1/tables/counts/by_subject";
    let origin = Fixture::new();
    origin.project(counts()).await;
    origin.post("/v1/events", NDJSON, lines(0, 50)).await.expect_ok();
    let mut host_events = lantern_core::Events::new();
    host_events.push(&lantern_core::EventRef {
        id: "beat",
        source: "lantern",
        kind: lantern_core::HEARTBEAT_TYPE,
        subject: "",
        time: lantern_core::Timestamp(1_700_000_000_000_000),
        tenant: "",
        dataschema: "",
        datacontenttype: "",
        extensions: r#"{"note":"x"}"#,
        data: b"",
    });
    origin.app.append(None, host_events).await.unwrap();
    origin.post("/v1/events", NDJSON, lines(50, 60)).await.expect_ok();
    let exported = origin.get_as(EXPORT, NDJSON).await.expect_ok();
    assert!(exported.text.contains(lantern_core::HEARTBEAT_TYPE));
    assert_eq!(exported.headers["lantern-decisions"], "0");

    let copy = Fixture::new();
    // The second round sends the whole export again, as a client may do after its connection was
    // lost. All 61 events are then duplicates.
    for round in 0..2 {
        let answer = copy.post("/v1/events?exact=true", NDJSON, exported.text.clone()).await;
        assert_eq!(answer.expect_ok().json()["duplicates"], 61 * round);
    }
    let again = copy.get_as(EXPORT, NDJSON).await.expect_ok();
    assert_eq!(again.text, exported.text, "append times and host events too");
    copy.project(counts()).await;
    let whole = |answer: &Answer| answer.headers["lantern-offsets"] == "0:61";
    let (first, second) = (origin.until(TABLE, whole).await, copy.until(TABLE, whole).await);
    assert_eq!(first.json()["rows"], second.json()["rows"]);

    let refused = copy.post("/v1/events?exact=true", NDJSON, exported.text.clone()).await;
    refused.is_problem("LAN-0328", "projections");
    let other = Fixture::new();
    other.post("/v1/events", NDJSON, lines(90, 91)).await.expect_ok();
    let refused = other.post("/v1/events?exact=true", NDJSON, exported.text.clone()).await;
    refused.is_problem("LAN-0328", "were not imported");
    let more = Fixture::with(|config| config.log.partitions = 7);
    let refused = more.post("/v1/events?exact=true", NDJSON, exported.text.clone()).await;
    refused.is_problem("LAN-0328", "another partition");
    let plain = copy.post("/v1/events", NDJSON, exported.text).await;
    plain.is_problem("LAN-0314", "lantern");
}

#[tokio::test]
async fn an_exact_import_takes_every_event_that_was_accepted_byte_for_byte() {
    const BYTES_MAX: usize = 60_000;
    let small = |config: &mut ServerConfig| config.ingest.event_bytes_max = BYTES_MAX;
    let origin = Fixture::with(small);
    // The maximum number of extension attributes.
    let many: String = (0..64).map(|n| format!(",\"x{n}\":\"{n}\"")).collect();
    let many = format!(r#"{{"specversion":"1.0","id":"many","source":"/s","type":"t"{many}}}"#);
    origin.post("/v1/events", STRUCTURED, many).await.expect_ok();
    // The maximum size of an event: one byte more is refused.
    let large = |bytes: usize| {
        let text = "x".repeat(bytes - "large/stt\"\"".len() + 1);
        format!(r#"{{"specversion":"1.0","id":"large","source":"/s","type":"tt","data":"{text}"}}"#)
    };
    origin.post("/v1/events", STRUCTURED, large(BYTES_MAX)).await.is_problem("LAN-0302", "");
    origin.post("/v1/events", STRUCTURED, large(BYTES_MAX - 1)).await.expect_ok();
    // The event has line ends and spaces, and is sent with and without a media type.
    let pretty = "{\n  \"specversion\": \"1.0\", \"id\": \"pretty\",\n \"source\": \"/s\", \"type\": \"t\",\n  \"data\": {\n    \"a\":\t[1.50,\r\n 2]\n  }\n}";
    origin.post("/v1/events", STRUCTURED, pretty).await.expect_ok();
    for (id, media, body) in [
        ("spaced", "application/json", " {\"a\": 1}\n"),
        ("untyped", "", "\t[\n1\n]\n"),
        ("null", "application/json", "null"),
        ("text", "text/plain", "a\n\tb\u{1}"),
    ] {
        let mut headers =
            vec![("ce-specversion", "1.0"), ("ce-id", id), ("ce-source", "/s"), ("ce-type", "t")];
        if !media.is_empty() {
            headers.push(("content-type", media));
        }
        let sent = request(Method::POST, "/v1/events", &headers, body);
        origin.send(sent).await.expect_ok();
    }
    let all = |fixture: &Fixture| {
        let log = &fixture.app.log;
        let mut events = Vec::new();
        for partition in (0..log.partitions()).map(PartitionId) {
            let mut from = log.bounds(partition).unwrap().start;
            while let LogRead::Chunk(chunk) =
                log.read(partition, from, &TypeFilter::everything()).unwrap()
            {
                events.extend(
                    (0..chunk.events.len())
                        .map(|place| (chunk.events.get(place).to_owned(), chunk.appended(place))),
                );
                from = chunk.end();
            }
        }
        events
    };
    let taken = all(&origin);
    assert_eq!(taken.len(), 7);
    for media in [NDJSON, "application/json"] {
        let exported = origin.get_as("/v1/events?types=*&limit=1000", media).await.expect_ok();
        let lines = match media {
            NDJSON => exported.text,
            // This is the form in which `lantern events tail --json` prints the event.
            _ => {
                let page: Page = serde_json::from_str(&exported.text).unwrap();
                page.events.iter().map(|logged| format!("{}\n", logged.event)).collect()
            }
        };
        let copy = Fixture::with(small);
        copy.post("/v1/events?exact=true", NDJSON, lines).await.expect_ok();
        assert_eq!(all(&copy), taken, "{media}");
    }
}

#[tokio::test]
async fn another_event_of_the_same_identity_is_reported_and_one_of_another_tenant_is_none() {
    let fixture = Fixture::new();
    let send = async |tenant: &str, data: &str| {
        let body = format!(
            r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","tenant":"{tenant}","data":{data}}}"#
        );
        fixture.post("/v1/events", STRUCTURED, body).await.expect_ok().json()
    };
    assert_eq!(send("a", "1").await["appended"], 1);
    assert_eq!(send("b", "2").await["appended"], 1);
    let same = send("a", "1").await;
    assert_eq!((&same["duplicates"], &same["differs"]), (&1.into(), &0.into()));
    assert_eq!(same["events"][0]["differs"], Value::Null);
    let other = send("a", "2").await;
    assert_eq!((&other["duplicates"], &other["differs"]), (&1.into(), &1.into()));
    assert_eq!(other["events"][0]["differs"], true);
    assert_eq!(end(&fixture).await, 2);
}
