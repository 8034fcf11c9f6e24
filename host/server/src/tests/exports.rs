use std::io::Read;

use axum::body::BodyDataStream;
use axum::response::Response;
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tables::filled;
use super::*;
use crate::cloudevents::NDJSON;

const TABLE: &str = "/v1/tables/counts/by_subject";

async fn respond(fixture: &Fixture, path: &str, headers: &[(&str, &str)]) -> Response {
    let response = fixture.router.clone().oneshot(request(Method::GET, path, headers, "")).await;
    let response = response.unwrap();
    assert_eq!(response.status(), 200, "{path}");
    response
}

async fn bytes(response: Response) -> Vec<u8> {
    axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec()
}

/// A server whose table has `rows` rows, which are more than an export holds in memory.
async fn large(rows: usize, change: impl FnOnce(&mut ServerConfig)) -> Fixture {
    let fixture = Fixture::with(change);
    fixture.project(counts()).await;
    append(&fixture, 0..rows, "first").await;
    fixture
}

/// Appends an event for each subject, and waits until the table contains all of them.
async fn append(fixture: &Fixture, subjects: std::ops::Range<usize>, id: &str) {
    let line = |i: usize| event(&format!("{id}{i}"), "t", &format!("subject-{i:06}")) + "\n";
    let body: String = subjects.map(line).collect();
    let appended = fixture.post("/v1/events", NDJSON, body).await.expect_ok().json();
    assert_eq!(appended["errors"].as_array().map_or(0, Vec::len), 0, "{appended}");
    let next = fixture.app.log.bounds(lantern_core::PartitionId(0)).unwrap().end.0;
    let wait = format!("{TABLE}?min_offset=0:{}&wait=30s&limit=1", next - 1);
    fixture.get(&wait).await.expect_ok();
}

#[tokio::test]
async fn an_export_has_all_rows_and_the_forms_of_a_page() {
    let fixture = filled().await;
    let page = fixture.get(TABLE).await.expect_ok();
    for (query, accept) in [
        ("", "application/json"),
        ("", NDJSON),
        ("", "text/csv"),
        ("order=-key", "application/json"),
        ("where=count=1&cols=count", "text/csv"),
        ("order=-count", "application/json"),
        ("order=-count", NDJSON),
        ("by=count&agg=count()%20as%20n", "application/json"),
        ("by=count&agg=count()%20as%20n", "text/csv"),
        ("prefix=s1", "application/json"),
    ] {
        let page = fixture.get_as(&format!("{TABLE}?{query}"), accept).await.expect_ok();
        let whole = fixture.get_as(&format!("{TABLE}?{query}&export=1"), accept).await.expect_ok();
        assert_eq!(whole.text, page.text, "{query} {accept}");
        assert_eq!(whole.headers[CONTENT_TYPE], page.headers[CONTENT_TYPE]);
        assert_eq!(whole.headers["lantern-offsets"], page.headers["lantern-offsets"]);
    }
    let two = fixture.get(&format!("{TABLE}?export=true&limit=2")).await.expect_ok().json();
    assert_eq!(two["rows"].as_object().unwrap().len(), 2);
    let csv = fixture.get(&format!("{TABLE}?export=1&format=csv")).await.expect_ok();
    assert_eq!(csv.text.lines().count(), 11);
    let body = r#"{"export":true,"order":"-count"}"#;
    let posted = fixture.post(&format!("{TABLE}/query"), "application/json", body).await;
    assert_eq!(posted.expect_ok().json()["rows"].as_array().unwrap().len(), 10);
    for (query, words) in
        [("export=1&cursor=x", "`cursor`"), ("export=yes", "`1`"), ("format=xml", "`ndjson`")]
    {
        fixture.get(&format!("{TABLE}?{query}")).await.is_problem("LAN-0403", words);
    }
    let mut old = request(Method::GET, &format!("{TABLE}?export=1"), &[], "");
    *old.version_mut() = http::Version::HTTP_10;
    fixture.send(old).await.is_problem("LAN-0403", "HTTP/1.1");
    // An export has a tag of its own. A client that sends this tag gets 304.
    let whole = fixture.get(&format!("{TABLE}?export=1")).await;
    assert_ne!(whole.headers["etag"], page.headers["etag"]);
    let tag = whole.headers["etag"].to_str().unwrap();
    let seen = [("if-none-match", tag)];
    let again = request(Method::GET, &format!("{TABLE}?export=1"), &seen, "");
    assert_eq!(fixture.send(again).await.status, 304);
}

#[tokio::test]
async fn an_export_is_of_one_commit_while_events_are_folded() {
    let fixture = large(20_000, |_| ()).await;
    let response = respond(&fixture, &format!("{TABLE}?export=1&format=ndjson"), &[]).await;
    let offsets = response.headers()["lantern-offsets"].to_str().unwrap().to_owned();
    let mut body = response.into_body().into_data_stream();
    let mut text = body.next().await.unwrap().unwrap().to_vec();
    // The client has only the first rows. Now the other rows of the table change.
    append(&fixture, 10_000..25_000, "second").await;
    while let Some(piece) = body.next().await {
        text.extend(piece.unwrap());
    }
    let rows = std::str::from_utf8(&text).unwrap().lines().map(|line| {
        let row: Value = serde_json::from_str(line).unwrap();
        row["value"]["count"].as_u64().unwrap()
    });
    let counts: Vec<u64> = rows.collect();
    // Each event adds 1 to a count, so the sum is the number of events folded.
    assert_eq!(offsets, format!("0:{}", counts.iter().sum::<u64>()));
    assert_eq!(counts, vec![1; 20_000]);
    let now = fixture.get(&format!("{TABLE}?agg=count(),sum(count)")).await.expect_ok().json();
    assert_eq!(now["rows"], serde_json::json!([{"count": 25_000, "sum_count": 35_000}]));
}

/// Waits until no export runs.
async fn ended(fixture: &Fixture) {
    let all = u32::try_from(fixture.app.config.query.exports_max).unwrap();
    let permits = Arc::clone(&fixture.app.permits.exports).acquire_many_owned(all);
    drop(tokio::time::timeout(PATIENCE, permits).await.expect("the export never ended").unwrap());
}

async fn rest(mut body: BodyDataStream) -> Result<usize, axum::Error> {
    let mut bytes = 0;
    while let Some(piece) = body.next().await {
        bytes += piece?.len();
    }
    Ok(bytes)
}

#[tokio::test]
async fn an_export_past_its_time_ends_with_an_error() {
    let fixture = large(20_000, |config| config.query.export_ms_max = 300).await;
    for format in ["json", "ndjson", "csv", "arrow"] {
        let response = respond(&fixture, &format!("{TABLE}?export=1&format={format}"), &[]).await;
        // The client reads nothing until the export has ended.
        ended(&fixture).await;
        let error = rest(response.into_body().into_data_stream()).await.unwrap_err();
        assert!(error.to_string().contains("incomplete"), "{format}: {error}");
    }
}

#[tokio::test]
async fn more_exports_than_allowed_are_refused_and_a_gone_client_ends_its_export() {
    let fixture = large(20_000, |config| config.query.exports_max = 1).await;
    let path = format!("{TABLE}?export=1&format=csv");
    let running = respond(&fixture, &path, &[]).await;
    let refused = fixture.get(&path).await;
    refused.is_problem("LAN-0429", "the limit is 1 (`query.exports_max`)");
    assert_eq!(
        (refused.status.as_u16(), &refused.headers["retry-after"]),
        (503, &"2".parse().unwrap())
    );
    drop(running);
    ended(&fixture).await;
    assert_eq!(fixture.get(&path).await.expect_ok().text.lines().count(), 20_001);
}

#[tokio::test]
async fn answers_are_compressed_if_the_client_accepts_it() {
    let fixture = large(500, |_| ()).await;
    for path in [format!("{TABLE}?format=csv"), format!("{TABLE}?format=csv&export=1")] {
        let plain = bytes(respond(&fixture, &path, &[]).await).await;
        let mut tags = Vec::new();
        for coding in ["gzip", "zstd"] {
            let response = respond(&fixture, &path, &[("accept-encoding", coding)]).await;
            assert_eq!(response.headers()["content-encoding"], coding);
            assert_eq!(response.headers()["vary"], "Accept, Accept-Encoding");
            tags.push(response.headers()["etag"].clone());
            let packed = bytes(response).await;
            assert!(packed.len() < plain.len() / 2, "{coding}: {}", packed.len());
            let mut unpacked = Vec::new();
            match coding {
                "gzip" => {
                    flate2::read::GzDecoder::new(&*packed).read_to_end(&mut unpacked).unwrap();
                }
                _ => unpacked = zstd::decode_all(&*packed).unwrap(),
            }
            assert_eq!(unpacked, plain);
        }
        assert_ne!(tags[0], tags[1]);
    }
    let small =
        respond(&fixture, &format!("{TABLE}?limit=1"), &[("accept-encoding", "gzip")]).await;
    assert!(!small.headers().contains_key("content-encoding"));
}

/// Sends each request on a connection of its own to a server with a socket, and returns the
/// answers.
async fn over_a_socket(fixture: &Fixture, requests: &[String]) -> Vec<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (config, router) = (fixture.app.config.http.clone(), fixture.router.clone());
    let stopping = fixture.app.tasks.stopping.clone();
    let stop = stopping.clone();
    let serving =
        tokio::spawn(async move { crate::http::serve(listener, router, &config, stopping).await });
    let mut answers = Vec::new();
    for request in requests {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // An error of the connection also shows that the answer is incomplete.
        let _ = stream.read_to_end(&mut answer).await;
        answers.push(String::from_utf8(answer).unwrap());
    }
    stop.cancel();
    serving.await.unwrap();
    answers
}

#[tokio::test]
async fn an_incomplete_export_has_no_last_chunk() {
    let get = |query: &str| {
        format!(
            "GET {TABLE}?format=csv&{query} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
        )
    };
    let fixture = large(20_000, |config| config.query.export_ms_max = 1).await;
    let answers = over_a_socket(&fixture, &[get("export=1"), get("limit=10")]).await;
    assert!(answers[0].starts_with("HTTP/1.1 200"), "{}", answers[0]);
    assert!(!answers[0].ends_with("0\r\n\r\n") && !answers[0].contains("subject-019999"));
    assert!(answers[1].contains("subject-000009"), "{}", answers[1]);
    let fixture = large(20_000, |_| ()).await;
    let answers = over_a_socket(&fixture, &[get("export=1")]).await;
    assert!(answers[0].ends_with("\r\n0\r\n\r\n") && answers[0].contains("subject-019999"));
}
