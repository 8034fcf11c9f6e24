//! Tests the parsers of events that clients send: the modes of CloudEvents, NDJSON, and times.

use lantern_core::{EventRef, Events, Timestamp};
use lantern_server::cloudevents::{
    EventError, EventLimits, Reader, format_time, is_json, parse_time, write_event,
};

/// The time that all parsers here take to be the present: a moment on 2026-09-21.
const NOW: Timestamp = Timestamp(1_790_000_000_000_000);

fn reader() -> Reader {
    Reader::new(EventLimits::default(), NOW)
}

/// Runs the parser of one event in structured mode.
pub fn cloudevents_structured(bytes: &[u8]) {
    let mut events = Events::new();
    match reader().structured(bytes, &mut events) {
        Ok(()) => assert_eq!(events.len(), 1),
        Err(error) => {
            assert!(events.is_empty(), "{error}, and yet an event was taken");
            is_clear(&error);
        }
    }
    events.iter().for_each(comes_back);
}

/// Runs the parser of an array of events.
pub fn cloudevents_batch(bytes: &[u8]) {
    let (mut events, mut bad) = (Events::new(), Vec::new());
    match reader().batch(bytes, &mut events, |index, error| bad.push((index, error))) {
        Ok(()) => {
            let rising = bad.windows(2).all(|pair| pair[0].0 < pair[1].0);
            let within = bad.iter().all(|(index, _)| *index < bad.len() + events.len());
            assert!(rising && within, "places of bad events: {bad:?}");
            bad.iter().for_each(|(_, error)| is_clear(error));
        }
        Err(error) => {
            assert!(events.is_empty() && bad.is_empty(), "{error}, and yet something was read");
            is_clear(&error);
        }
    }
    events.iter().for_each(comes_back);
}

/// Runs the parser of NDJSON, which has one event per line. The result must not depend on how the
/// lines are divided among calls of the parser.
pub fn ndjson(bytes: &[u8]) {
    let read = |block: &[u8], first: u64| {
        let (mut events, mut bad) = (Events::new(), Vec::new());
        let lines = reader().lines(block, first, &mut events, |error| {
            bad.push((error.line, error.error.to_string()));
            true
        });
        (events, bad, lines)
    };
    let (events, bad, lines) = read(bytes, 1);
    let ends = bytes.iter().filter(|&&byte| byte == b'\n').count() as u64;
    let open = u64::from(bytes.last() != Some(&b'\n'));
    assert_eq!(lines, ends + open, "lines were lost");
    assert!(events.len() as u64 + bad.len() as u64 <= lines);
    assert!(bad.iter().all(|(line, said)| (1..=lines).contains(line) && !said.is_empty()));
    let half = bytes.len() / 2;
    if let Some(end) = bytes[half..].iter().position(|&byte| byte == b'\n') {
        let (one, other) = bytes.split_at(half + end + 1);
        let (first, mut all_bad, read_lines) = read(one, 1);
        let (second, more_bad, _) = read(other, read_lines + 1);
        all_bad.extend(more_bad);
        assert_eq!(all_bad, bad);
        assert!(first.iter().chain(second.iter()).eq(events.iter()), "a cut changed an event");
    }
    events.iter().for_each(comes_back);
}

/// Runs the parser of one event in binary mode. The input has lines `name: value`, an empty line
/// and the payload.
pub fn binary(bytes: &[u8]) {
    let mut headers = http::HeaderMap::new();
    let mut rest = bytes;
    while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
        let (line, tail) = (&rest[..end], &rest[end + 1..]);
        rest = tail;
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let name = http::HeaderName::from_bytes(&line[..colon]);
        let value = http::HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    let mut events = Events::new();
    match reader().binary(&headers, rest, &mut events) {
        Ok(()) => assert!(events.len() == 1 && events.get(0).data == rest),
        Err(error) => {
            assert!(events.is_empty(), "{error}, and yet an event was taken");
            is_clear(&error);
        }
    }
    events.iter().for_each(comes_back);
}

/// Runs the parser of a time in RFC 3339.
pub fn time(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(time) = parse_time(text) {
        let written = format_time(time);
        assert_eq!(parse_time(&written), Some(time), "`{text}` was written as `{written}`");
    }
}

/// Checks that the error is one readable line, however long the input is.
fn is_clear(error: &EventError) {
    let said = error.to_string();
    assert!((4..2_000).contains(&said.len()), "{} bytes: {said:.200}", said.len());
    assert!(error.code().starts_with("LAN-"), "{said}");
}

/// Checks that the event can be encoded, and that this decodes to the same event.
fn comes_back(event: EventRef<'_>) {
    let mut written = Vec::new();
    write_event(&event, &mut written);
    assert!(!written.contains(&b'\n'), "a line end within {}", written.escape_ascii());
    // An encoded event may be longer than its input, because characters can be escaped.
    let limits = EventLimits { event_bytes_max: 64 << 20, ..EventLimits::default() };
    let mut again = Events::new();
    if let Err(error) = Reader::new(limits, NOW).structured(&written, &mut again) {
        panic!("{error}: {}", written.escape_ascii());
    }
    let read = again.get(0);
    // The only allowed differences are white space around a JSON payload and line ends between its
    // members.
    let one_line: Vec<u8>;
    let data = match is_json(event.datacontenttype) {
        true => {
            let spaces = |b: &u8| if b"\n\r".contains(b) { b' ' } else { *b };
            one_line = event.data.iter().map(spaces).collect();
            one_line.trim_ascii()
        }
        false => event.data,
    };
    let expected = EventRef { data, ..event };
    assert_eq!(read, expected, "{}", written.escape_ascii());
    let (mut once, mut twice) = (Vec::new(), Vec::new());
    write_event(&expected, &mut once);
    write_event(&read, &mut twice);
    assert_eq!(twice.escape_ascii().to_string(), once.escape_ascii().to_string());
}

pub(super) fn structured_seeds() -> Vec<Vec<u8>> {
    let head = r#""specversion":"1.0","id":"a-1","source":"/shop","type":"order.placed""#;
    let members = [
        r#""data":{"cents":340,"product":"p1","list":[1,2.5e3,null,true,"\u00e9\n"]}"#,
        r#""subject":"user-7","time":"2026-09-01T10:00:00.123456+02:00","data":"text""#,
        r#""datacontenttype":"text/plain","data":"a line\nand another \ud83d\ude00""#,
        r#""datacontenttype":"application/octet-stream","data_base64":"AAECAwT/""#,
        r#""data_base64":"eyJhIjoxfQ==","datacontenttype":"application/json""#,
        r#""tenant":"acme","dataschema":"https://example.com/s","n":-2147483648,"yes":true"#,
        r#""traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","x":"\t""#,
        r#""subject":null,"data":null"#,
    ];
    let mut seeds: Vec<_> = members.iter().map(|more| format!("{{{head},{more}}}")).collect();
    seeds.push(format!("{{{head}}}"));
    seeds.push(format!("{{{head},\"data\":{}1{}}}", "[".repeat(63), "]".repeat(63)));
    seeds.push(format!("{{{head},\"subject\":\"{}\"}}", "s".repeat(4_096)));
    seeds.push(format!("{{{head},\"time\":\"0000-01-01T00:00:00+23:59\"}}"));
    seeds.push(format!("{{{head},\"data\":\n{{\"a\":\r\n1 }}\n}}"));
    seeds.into_iter().map(String::into_bytes).collect()
}

pub(super) fn batch_seeds() -> Vec<Vec<u8>> {
    let events = structured_seeds();
    let all = [b"[".to_vec(), events.join(&b","[..]), b"]".to_vec()].concat();
    let one = [b" [ ".to_vec(), events[0].clone(), b", 7, {}, null ] ".to_vec()].concat();
    vec![all, one, b"[]".to_vec(), b"{}".to_vec(), b"[[[[]]]]".to_vec()]
}

pub(super) fn ndjson_seeds() -> Vec<Vec<u8>> {
    // A seed whose event spans several lines becomes several lines of NDJSON, each of them invalid.
    let lines = structured_seeds().join(&b"\n"[..]);
    vec![lines.clone(), [&lines[..], b"\r\n\n\xff\n{}\n"].concat(), b"\n\n\n".to_vec(), Vec::new()]
}

pub(super) fn binary_seeds() -> Vec<Vec<u8>> {
    let head = "ce-specversion: 1.0\nce-id: a-1\nce-source: /shop\nce-type: order.placed\n";
    [
        "content-type: application/json\n\n{\"cents\":340}",
        "content-type: text/plain\nce-subject: caf%C3%A9 %22x%22\n\nhello",
        "ce-time: 2026-09-01T10:00:00Z\nce-tenant: \"acme\"\nce-n: 5\n\n\u{1}\u{2}",
        "ce-subject: %E2%82\n\n",
        "ce-data: x\nce-databaseid: 7\n\n{}",
        "\n",
    ]
    .iter()
    .map(|rest| format!("{head}{rest}").into_bytes())
    .collect()
}

pub(super) fn time_seeds() -> Vec<Vec<u8>> {
    [
        "2026-09-01T10:00:00Z",
        "2026-09-01 10:00:00.123456789+02:00",
        "1969-12-31t23:59:60.9z",
        "0000-01-01T00:00:00-00:00",
        "0000-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59.999999-23:59",
        "2024-02-29T12:30:30-12:00",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}
