//! Generates invalid requests of many kinds.

use anyhow::Result;
use fastrand::Rng;

use crate::feed::wire::text_frame;
use crate::parsers::{self, PARSERS};

/// Whether the server must answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    Always,
    Perhaps,
}

/// A request, or bytes that resemble one, with the answer that it must get.
pub(super) struct Case {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    pub(super) answered: Answered,
    /// Whether the sender closes its side of the connection before it has sent everything that it
    /// announced.
    pub(super) broken_off: bool,
    /// The statuses that the answer may have.
    pub(super) status: Option<Vec<u16>>,
    /// A text that the answer's detail must quote.
    pub(super) quoted: Option<String>,
}

/// The inputs that are mutated, by the name of the parser.
pub(super) struct Pools(Vec<(&'static str, Vec<Vec<u8>>)>);

impl Pools {
    pub(super) fn load() -> Result<Self> {
        let pool = |parser: &parsers::Parser| {
            let mut pool = parsers::corpus(parser.name)?;
            pool.extend((parser.seeds)());
            Ok((parser.name, pool))
        };
        PARSERS.iter().map(pool).collect::<Result<_>>().map(Self)
    }

    fn mutated(&self, parser: &str, rng: &mut Rng) -> Vec<u8> {
        let pool = self.0.iter().find(|(name, _)| *name == parser).map(|(_, pool)| &pool[..]);
        let mut input = parsers::mutated(pool.unwrap_or_default(), rng);
        input.truncate(1 << 20);
        input
    }
}

impl Case {
    fn new(name: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            name,
            bytes: bytes.into(),
            answered: Answered::Perhaps,
            broken_off: true,
            status: None,
            quoted: None,
        }
    }

    /// Creates a case with a complete request, to which the server must answer.
    fn whole(name: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { answered: Answered::Always, broken_off: false, ..Self::new(name, bytes) }
    }

    fn refused(mut self, status: &[u16], quoted: &str) -> Self {
        self.status = Some(status.to_vec());
        self.quoted = Some(quoted.to_owned());
        self
    }

    /// Creates a request with a valid event.
    pub(super) fn honest(address: &str) -> Self {
        let event = r#"{"specversion":"1.0","id":"honest","source":"s","type":"t"}"#;
        let kind = "application/cloudevents+json";
        Self::whole("an honest event", post(address, "/v1/events", kind, event.as_bytes()))
    }
}

/// Formats a complete `POST` request.
fn post(host: &str, path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\ncontent-type: {kind}\r\n\
         content-length: {length}\r\n\r\n"
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

fn get(host: &str, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
}

/// Generates a case of a random kind.
pub(super) fn random(pools: &Pools, host: &str, rng: &mut Rng) -> Case {
    match rng.u8(..34) {
        0..5 => body(pools, host, rng),
        5..9 => query(pools, host, rng),
        9..13 => refused_early(host, rng),
        13..17 => framing(host, rng),
        17..20 => head(host, rng),
        20..24 => path(host, rng),
        24..26 => upgrade(host, rng),
        26..31 => frames(pools, host, rng),
        31 => multipart(host, rng),
        32 => foreign(host, rng),
        _ => noise(host, rng),
    }
}

/// Generates a word that is not a known value of any parameter.
fn word(rng: &mut Rng) -> String {
    let letters = (0..rng.usize(3..12)).map(|_| rng.lowercase());
    format!("x{}", letters.collect::<String>())
}

/// Generates a nearly valid body, in one of the modes of sending events.
fn body(pools: &Pools, host: &str, rng: &mut Rng) -> Case {
    let (parser, kind) = [
        ("cloudevents_structured", "application/cloudevents+json"),
        ("cloudevents_batch", "application/cloudevents-batch+json"),
        ("ndjson", "application/x-ndjson"),
        ("ndjson", "application/x-ndjson; charset=utf-8"),
    ][rng.usize(..4)];
    let path = ["/v1/events", "/v1/events?partial=true"][rng.usize(..2)];
    Case::whole("a body mutated", post(host, path, kind, &pools.mutated(parser, rng)))
}

/// Generates a query that is nearly valid, or certainly invalid.
fn query(pools: &Pools, host: &str, rng: &mut Rng) -> Case {
    let wrong = word(rng);
    let number = rng.u64(20_000..);
    let (path, quoted) = match rng.u8(..6) {
        0 => (format!("/v1/events?{wrong}=1"), wrong),
        1 => (format!("/v1/events?limit={number}"), number.to_string()),
        2 => (format!("/v1/events?wait={wrong}"), wrong),
        3 => (format!("/v1/tables/a/b?{wrong}"), wrong),
        4 => (format!("/v1/events?partition={number}{number}"), format!("{number}{number}")),
        _ => {
            let (parser, path) =
                [("table_query", "/v1/tables/a/b"), ("events_query", "/v1/events")][rng.usize(..2)];
            let query = pools.mutated(parser, rng);
            // This kind of case leaves out characters that would end the line, because another kind
            // of case tests them.
            let query: Vec<u8> = query.into_iter().filter(|b| !b" \r\n".contains(b)).collect();
            // This kind of case sends no requests that wait.
            let query = String::from_utf8_lossy(&query).replace("wait", "wai");
            let query: String = query.chars().take(4_000).collect();
            return Case::new("a query mutated", get(host, &format!("{path}?{query}")));
        }
    };
    Case::whole("a wrong query", get(host, &path)).refused(&[400], &quoted)
}

/// Generates a request that the server refuses while the body is still being sent. The sender must
/// receive the answer.
fn refused_early(host: &str, rng: &mut Rng) -> Case {
    let body = vec![b'x'; 1 << rng.usize(0..23)];
    let wrong = word(rng);
    match rng.u8(..4) {
        0 => Case::whole("a wrong type", post(host, "/v1/events", &wrong, &body))
            .refused(&[415], &wrong),
        1 => {
            let path = format!("/{wrong}");
            Case::whole("no such place", post(host, &path, "text/plain", &body))
                .refused(&[404], &wrong)
        }
        2 => {
            let path = "/v1/status";
            Case::whole("no such method", post(host, path, "text/plain", &body))
                .refused(&[405], path)
        }
        _ => {
            let path = "/v1/events";
            Case::whole("another's name", post(&wrong, path, "application/x-ndjson", &body))
                .refused(&[403, 421], &wrong)
        }
    }
}

/// Generates a request whose length or chunks do not match its content.
fn framing(host: &str, rng: &mut Rng) -> Case {
    let head = format!(
        "POST /v1/events HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
         content-type: application/x-ndjson\r\n"
    );
    let line = "{\"specversion\":\"1.0\",\"id\":\"f\",\"source\":\"s\",\"type\":\"t\"}\n";
    let length = line.len();
    let more = length + rng.usize(1..1 << 20);
    let rest = match rng.u8(..12) {
        0 => format!("content-length: {more}\r\n\r\n{line}"),
        1 => format!("content-length: {}\r\n\r\n{line}", rng.usize(..length)),
        2 => format!("content-length: -1\r\n\r\n{line}"),
        3 => format!("content-length: {length}{}\r\n\r\n{line}", rng.u64(..)),
        4 => format!("content-length: {length}\r\ncontent-length: {more}\r\n\r\n{line}"),
        5 => {
            format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n{line}")
        }
        6 => format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{line}"),
        7 => format!("transfer-encoding: chunked\r\n\r\n{more:x}\r\n{line}\r\n0\r\n\r\n"),
        8 => format!("transfer-encoding: chunked\r\n\r\nffffffffffffffff{length:x}\r\n{line}"),
        9 => format!("transfer-encoding: chunked\r\n\r\nzz\r\n{line}\r\n0\r\n\r\n"),
        10 => {
            let extension = "e".repeat(rng.usize(..1 << 17));
            format!(
                "transfer-encoding: chunked\r\n\r\n{length:x};{extension}\r\n{line}\r\n0\r\n\r\n"
            )
        }
        _ => {
            let trailers = "a: b\r\n".repeat(rng.usize(..20_000));
            format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{line}\r\n0\r\n{trailers}\r\n")
        }
    };
    let mut case = Case::new("wrong lengths", head + &rest);
    // In some cases the sender keeps the connection open and sends nothing more.
    case.broken_off = rng.u8(..8) != 0;
    case
}

/// Generates headers that are too large or too many.
fn head(host: &str, rng: &mut Rng) -> Case {
    let many = rng.usize(1..3_000);
    let long = "v".repeat(rng.usize(1..200_000));
    let name = word(rng);
    let head = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    let rest = match rng.u8(..7) {
        0 => format!("{name}: {long}\r\n\r\n"),
        1 => format!("{long}: x\r\n\r\n"),
        2 => format!("{}\r\n", format!("{name}: x\r\n").repeat(many)),
        3 => format!("{name} : x\r\n\r\n"),
        4 => format!("{name}: a\r\n b\r\n\r\n"),
        5 => format!("{name}: \u{0}\r\n\r\n"),
        // The header never ends, so the server's limit for headers ends the request.
        _ => format!("{name}: "),
    };
    let mut case = Case::new("strange headers", head + &rest);
    case.broken_off = rng.u8(..8) != 0;
    case
}

/// Generates a request with an unknown path or method.
fn path(host: &str, rng: &mut Rng) -> Case {
    let wrong = word(rng);
    let path = match rng.u8(..10) {
        0 => "/v1/tables/%zz/%".to_owned(),
        1 => "/v1/tables/%ff%fe/%00".to_owned(),
        2 => format!("/v1/projections/{}", "..%2f".repeat(rng.usize(1..50))),
        3 => format!("/v1/{}", "a/".repeat(rng.usize(1..2_000))),
        4 => format!("/v1/projections/{wrong}/versions/%e2%82"),
        5 => format!("/v1/events?from={wrong}&prefix=%E2%82"),
        6 => format!("http://{wrong}/v1/events"),
        7 => format!("/v1/errors/{wrong}"),
        8 => format!("//{wrong}//"),
        _ => format!("/{}", "p".repeat(rng.usize(1..100_000))),
    };
    let method = match rng.u8(..6) {
        0 => wrong.to_uppercase(),
        1 => "DELETE".into(),
        2 => "PATCH".into(),
        3 => "CONNECT".into(),
        _ => "GET".into(),
    };
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    Case::new("a strange path", request)
}

/// Generates a request for a WebSocket that the server must refuse.
fn upgrade(host: &str, rng: &mut Rng) -> Case {
    let wrong = word(rng);
    let headers = [
        "upgrade: websocket\r\nsec-websocket-version: 13\r\n".to_owned(),
        format!("upgrade: {wrong}\r\nsec-websocket-version: 13\r\nsec-websocket-key: x\r\n"),
        "upgrade: websocket\r\nsec-websocket-version: 12\r\nsec-websocket-key: x\r\n".to_owned(),
        format!(
            "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: x\r\n\
             sec-websocket-protocol: {wrong}\r\n"
        ),
    ];
    let headers = &headers[rng.usize(..4)];
    let request = format!(
        "GET /v1/feed HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade, close\r\n{headers}\r\n"
    );
    let mut case = Case::whole("no WebSocket", request);
    case.status = Some(vec![400, 426]);
    case
}

/// Generates a request for a WebSocket that the server accepts, followed by invalid frames.
fn frames(pools: &Pools, host: &str, rng: &mut Rng) -> Case {
    let mut bytes = format!(
        "GET /v1/feed HTTP/1.1\r\nhost: {host}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: {}\r\n\
         sec-websocket-protocol: lantern.v1.json\r\n\r\n",
        "dGhlIHNhbXBsZSBub25jZQ=="
    )
    .into_bytes();
    let mask = rng.u32(..).to_be_bytes();
    if rng.bool() {
        bytes.extend(text_frame(br#"{"t":"hello"}"#, mask));
    }
    for _ in 0..rng.usize(1..6) {
        match rng.u8(..12) {
            0 => bytes.extend((0..rng.usize(..200)).map(|_| rng.u8(..))),
            1 => bytes.extend([0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            2 => bytes.extend([0x81, 0x05, b'h', b'e', b'l', b'l', b'o']),
            3 => bytes.extend([0xf1, 0x80, 0, 0, 0, 0]),
            4 => bytes.extend(text_frame(&vec![b'x'; 1 << rng.usize(10..18)], mask)),
            5 => bytes.extend(text_frame(b"\xff\xfe", mask)),
            6 => bytes.extend([0x89, 0x80, 0, 0, 0, 0].repeat(1 << rng.usize(0..11))),
            7 => bytes.extend([0x01, 0x80, 0, 0, 0, 0].repeat(rng.usize(1..100))),
            8 => bytes.extend([0x88, 0x81, 0, 0, 0, 0, 7]),
            9 => bytes.extend([0x89, 0xfe, 0x10, 0, 0, 0, 0, 0]),
            _ => bytes.extend(text_frame(&pools.mutated("feed_message", rng), mask)),
        }
    }
    let mut case = Case::new("nonsense on a WebSocket", bytes);
    case.status = Some(vec![101]);
    case
}

/// Generates an upload with an invalid form.
fn multipart(host: &str, rng: &mut Rng) -> Case {
    let boundary = word(rng);
    let kind = [
        "multipart/form-data".to_owned(),
        format!("multipart/form-data; boundary={boundary}"),
        format!("multipart/form-data; boundary={}", "b".repeat(300)),
        "multipart/form-data; boundary=".to_owned(),
    ];
    let part = format!("--{boundary}\r\ncontent-disposition: form-data; name=\"");
    let body = match rng.u8(..5) {
        0 => String::new(),
        1 => format!("--{boundary}--\r\n"),
        2 => format!("{part}parameters\"\r\n\r\n{{"),
        3 => part.repeat(rng.usize(1..500)),
        _ => format!("{part}plugin\"\r\n\r\n\0asm\r\n--{boundary}--\r\n"),
    };
    let path = ["/v1/projections/x/versions", "/v1/projections"][rng.usize(..2)];
    Case::whole("a broken form", post(host, path, &kind[rng.usize(..4)], body.as_bytes()))
}

/// Generates a request that comes from a page of another site.
fn foreign(host: &str, rng: &mut Rng) -> Case {
    let wrong = format!("http://{}.example", word(rng));
    let request = format!(
        "GET /v1/events HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\norigin: {wrong}\r\n\r\n"
    );
    Case::whole("a page of another site", request).refused(&[403], &wrong)
}

/// Generates bytes that are not a request.
fn noise(host: &str, rng: &mut Rng) -> Case {
    let request = get(host, "/healthz").into_bytes();
    let bytes = match rng.u8(..6) {
        0 => (0..rng.usize(1..2_000)).map(|_| rng.u8(..)).collect(),
        1 => request[..rng.usize(1..request.len())].to_vec(),
        2 => {
            let mut request = request;
            let at = rng.usize(..request.len());
            request[at] ^= 1 << rng.u8(..8);
            request
        }
        3 => b"GET /healthz HTTP/9.9\r\n\r\n".to_vec(),
        4 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        _ => vec![b'\n'; rng.usize(1..100_000)],
    };
    Case::new("no request at all", bytes)
}
