//! Tests compressed bodies (`Content-Encoding`).

use std::io::Write as _;

use super::*;
use crate::cloudevents::{BATCH, NDJSON};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packer.write_all(bytes).unwrap();
    packer.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

async fn send(fixture: &Fixture, media: &str, coding: &str, body: Vec<u8>) -> Answer {
    let length = body.len().to_string();
    let mut headers =
        vec![("content-type", media), ("content-length", &*length), ("content-encoding", coding)];
    headers.extend([("ce-specversion", "1.0"), ("ce-source", "/s"), ("ce-type", "t")]);
    if media == "text/plain" {
        headers.push(("ce-id", "binary"));
    }
    fixture.send(request(Method::POST, "/v1/events", &headers, body)).await
}

#[tokio::test]
async fn packed_bodies_are_unpacked_in_every_mode() {
    let fixture = Fixture::new();
    let plain = b"a line of plain text";
    send(&fixture, "text/plain", "gzip", gzip(plain)).await.expect_ok();
    let read = fixture.get("/v1/events").await.expect_ok().json();
    assert_eq!(read["events"][0]["event"]["data"], "a line of plain text");
    let batch = format!("[{}]", event("b", "t", "s"));
    send(&fixture, BATCH, "zstd", zstd(batch.as_bytes())).await.expect_ok();
    let lines: String = (0..5_000).map(|n| event(&n.to_string(), "t", "s") + "\n").collect();
    let twice = zstd(&gzip(lines.as_bytes()));
    let taken = send(&fixture, NDJSON, "GZIP, zstd", twice).await.expect_ok().json();
    assert_eq!((&taken["appended"], &taken["lines"]), (&5_000.into(), &5_000.into()));
    let members = [
        gzip(event("m1", "t", "s").as_bytes()),
        gzip(b"\n"),
        gzip(event("m2", "t", "s").as_bytes()),
    ];
    let taken = send(&fixture, NDJSON, "x-gzip", members.concat()).await.expect_ok().json();
    assert_eq!(taken["appended"], 2);
    send(&fixture, BATCH, "identity", batch.into_bytes()).await.expect_ok();
}

#[tokio::test]
async fn other_codings_and_broken_bodies_are_refused_by_name() {
    let fixture = Fixture::new();
    for coding in ["br", "gzip, deflate", "gzip, gzip, gzip, gzip"] {
        let refused = send(&fixture, NDJSON, coding, b"x".to_vec()).await;
        refused.is_problem("LAN-0419", "");
        assert_eq!(refused.headers["accept-encoding"], "gzip, zstd");
    }
    let whole = zstd(event("1", "t", "s").as_bytes());
    for (coding, body) in [
        ("zstd", b"plain".to_vec()),
        ("gzip", whole.clone()),
        ("zstd", whole[..whole.len() - 3].to_vec()),
    ] {
        send(&fixture, BATCH, coding, body.clone())
            .await
            .is_problem("LAN-0408", "cannot be unpacked");
        send(&fixture, NDJSON, coding, body).await.is_problem("LAN-0408", "cannot be unpacked");
    }
    assert_eq!(fixture.get("/v1/events").await.json()["end"], 0);
}

#[tokio::test]
async fn a_body_that_unpacks_to_too_much_is_refused_while_it_is_read() {
    let fixture = Fixture::with(|config| {
        config.http.body_bytes_max = 1 << 20;
        config.http.unpack_ratio_max = 100;
    });
    let blank = vec![b'\n'; 64 << 20];
    for (coding, body) in [("gzip", gzip(&blank)), ("zstd", zstd(&blank))] {
        // The code of the problem depends on which limit is exceeded first.
        let whole = send(&fixture, BATCH, coding, body.clone()).await;
        assert_eq!(whole.status, StatusCode::PAYLOAD_TOO_LARGE, "{whole:?}");
        send(&fixture, NDJSON, coding, body).await.is_problem("LAN-0422", "100 times");
    }
    // A window of 128 MiB is refused, whatever the body contains.
    let mut packer = zstd::Encoder::new(Vec::new(), 3).unwrap();
    packer.window_log(27).unwrap();
    packer.write_all(&blank).unwrap();
    let body = packer.finish().unwrap();
    send(&fixture, NDJSON, "zstd", body).await.is_problem("LAN-0408", "cannot be unpacked");
}

#[tokio::test]
async fn no_more_packed_bodies_are_read_than_allowed() {
    let fixture = Fixture::with(|config| {
        config.http.bodies_max = 1;
        config.http.body_idle_ms_max = 50;
    });
    let held = Arc::clone(&fixture.app.permits.unpacking).acquire_owned().await.unwrap();
    let body = || gzip(event("1", "t", "s").as_bytes());
    send(&fixture, NDJSON, "gzip", body()).await.is_problem("LAN-0423", "packed");
    drop(held);
    send(&fixture, NDJSON, "gzip", body()).await.expect_ok();
}
