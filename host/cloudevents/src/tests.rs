use http::{HeaderMap, HeaderName, HeaderValue};
use lantern_core::{Event, Events, Timestamp};
use proptest::prelude::*;

use super::checks::event_bytes;
use super::*;

const NOW: Timestamp = Timestamp(1_790_000_000_000_000);

fn reader() -> Reader {
    Reader::new(EventLimits::default(), NOW)
}

fn read(json: &str) -> Result<Event, EventError> {
    let mut events = Events::new();
    reader().structured(json.as_bytes(), &mut events)?;
    assert_eq!(events.len(), 1);
    Ok(events.get(0).to_owned())
}

/// Returns a valid event with the additional members `members`.
fn with(members: &str) -> String {
    format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t"{members}}}"#)
}

#[test]
fn every_attribute_lands_in_its_column() {
    let event = read(
        r#" {"data" : {"a": [1, "\u00e9"]} ,"specversion":"1.0","id":"i\"1","source":"/shop",
            "type":"order.placed","subject":"u1","time":"2026-01-31T23:59:59.999Z","tenant":"t1",
            "dataschema":"urn:x","datacontenttype":"application/json","partitionkey":"k",
            "traceparent":"00-ab-cd-01","count":7,"flag":true,"gone":null} "#,
    )
    .unwrap();
    let expected = Event {
        id: "i\"1".into(),
        source: "/shop".into(),
        kind: "order.placed".into(),
        subject: "u1".into(),
        time: Timestamp(1_769_903_999_999_000),
        tenant: "t1".into(),
        dataschema: "urn:x".into(),
        datacontenttype: "application/json".into(),
        extensions: r#"{"partitionkey":"k","traceparent":"00-ab-cd-01","count":7,"flag":true}"#
            .into(),
        data: br#"{"a": [1, "\u00e9"]}"#.to_vec(),
    };
    assert_eq!(event, expected);
}

#[test]
fn payloads_are_kept_as_they_came() {
    let cases: [(&str, &[u8], &str); 8] = [
        ("", b"", ""),
        (r#","data":null"#, b"null", ""),
        (r#","data":"x""#, br#""x""#, ""),
        (r#","data": 1.50"#, b"1.50", ""),
        (r#","data":"a\nb","datacontenttype":"text/plain""#, b"a\nb", "text/plain"),
        (r#","data":{"x":1},"datacontenttype":"text/plain""#, br#"{"x":1}"#, "text/plain"),
        (r#","data_base64":"/wA=""#, &[0xFF, 0], "application/octet-stream"),
        (
            r#","data_base64":"e30=","datacontenttype":"application/vnd.x+json""#,
            b"{}",
            "application/vnd.x+json",
        ),
    ];
    for (members, data, kind) in cases {
        let event = read(&with(members)).unwrap();
        assert_eq!((event.data.as_slice(), event.datacontenttype.as_str()), (data, kind));
    }
}

#[test]
fn a_null_attribute_is_absent_under_any_name() {
    for members in [
        r#","connectortransactiontotal":null"#,
        r#","connectorTxId":null"#,
        r#","trace_id":null"#,
        r#","":null"#,
        r#","subject":null,"subject":"a""#,
        r#","x":null,"x":null"#,
    ] {
        let event = read(&with(members)).unwrap();
        assert_eq!(event.extensions, "", "{members}");
    }
}

#[test]
fn long_names_repeated_values_and_tenants_of_other_kinds_are_taken() {
    let members = r#","abcdefghijklmnopqrstu":"x","connectortransactiontotal":"7","a":1,"a":1,"id":"1","tenant":42"#;
    let event = read(&with(members)).unwrap();
    let expected = r#"{"abcdefghijklmnopqrstu":"x","connectortransactiontotal":"7","a":1}"#;
    assert_eq!((event.extensions.as_str(), event.tenant.as_str()), (expected, "42"));
    assert_eq!(read(&with(r#","tenant":-0"#)).unwrap().tenant, "0");
    assert_eq!(read(&with(r#","tenant":false"#)).unwrap().tenant, "false");
    let twice = [("ce-id", "1"), ("ce-x", "a"), ("ce-x", "a")];
    assert_eq!(binary(&twice, b"").unwrap().extensions, r#"{"x":"a"}"#);
}

#[test]
fn attributes_of_the_host_are_stripped_from_a_clients_event_and_kept_in_an_import() {
    let json = with(r#","lanterndepth":3,"lantern":"x","other":1"#);
    assert_eq!(read(&json).unwrap().extensions, r#"{"other":1}"#);
    let event = binary(&[("ce-lanterndepth", "3"), ("ce-other", "1")], b"").unwrap();
    assert_eq!(event.extensions, r#"{"other":"1"}"#);
    let mut import = reader();
    import.set_host_events(true);
    let json = r#"{"specversion":"1.0","id":"1","source":"lantern","type":"lantern.heartbeat","lanterndepth":3}"#;
    let mut events = Events::new();
    import.structured(json.as_bytes(), &mut events).unwrap();
    assert_eq!(events.get(0).extensions, r#"{"lanterndepth":3}"#);
}

#[test]
fn an_event_without_a_time_leaves_it_to_the_log() {
    assert_eq!(read(&with("")).unwrap().time, Timestamp::MIN);
}

#[test]
fn each_bad_event_is_refused_in_words_that_quote_it() {
    let deep = format!(r#","data":{}{}"#, "[".repeat(65), "]".repeat(65));
    let long = format!(r#","subject":"{}""#, "x".repeat(5_000));
    let cases = [
        ("", "LAN-0301", "not JSON"),
        ("{", "LAN-0301", "not JSON"),
        ("[]", "LAN-0301", "expected a JSON object, found `[]`"),
        ("7", "LAN-0301", "found `7`"),
        ("hello", "LAN-0301", "not JSON"),
        (r#"{"id":"1"} x"#, "LAN-0301", "trailing characters"),
        (r#"{"id":1"#, "LAN-0301", "not JSON"),
        ("{}", "LAN-0304", "`specversion` is missing"),
        (r#"{"specversion":"1.0"}"#, "LAN-0304", "`id` is missing"),
        (r#"{"specversion":"0.3","id":"1"}"#, "LAN-0306", "`0.3`"),
        (r#"{"specversion":1.0}"#, "LAN-0305", "`specversion` is `1.0`: it must be a string"),
        (&with(r#","id":"2""#), "LAN-0305", "`id` occurs twice"),
        (&with(r#","x":1,"x":2"#), "LAN-0305", "`x` occurs twice"),
        (&with(r#","Subject":"a""#), "LAN-0305", "`Subject` is not an attribute name"),
        (&with(r#","trace_id":"a""#), "LAN-0305", "`trace_id`"),
        (&with(&format!(r#","{}":"a""#, "a".repeat(256))), "LAN-0305", "not an attribute name"),
        (&with(r#","subject":"""#), "LAN-0304", "`subject` is empty"),
        (&with(r#","subject":["a"]"#), "LAN-0305", r#"`["a"]`"#),
        (&with(r#","tenant":5.5"#), "LAN-0305", "`tenant` is `5.5`"),
        (&with(r#","tenant":3000000000"#), "LAN-0305", "`tenant` is `3000000000`"),
        (&with(r#","subject":5"#), "LAN-0305", "`subject` is `5`"),
        (&with(r#","tenant":"a\u0000b""#), "LAN-0305", "control characters"),
        (&with(r#","ext":{"a":1}"#), "LAN-0305", r#"`ext` is `{"a":1}`"#),
        (&with(r#","ext":1.5"#), "LAN-0305", "`ext` is `1.5`"),
        (&with(r#","ext":3000000000"#), "LAN-0305", "32-bit"),
        (&with(r#","traceparent":1"#), "LAN-0305", "`traceparent` is `1`"),
        (&with(r#","data":1,"data_base64":"AA==""#), "LAN-0310", "give only one of them"),
        (&with(r#","data_base64":"?""#), "LAN-0310", "is not base64"),
        (
            &with(r#","data_base64":"AA==","datacontenttype":"application/json""#),
            "LAN-0310",
            "declared as JSON",
        ),
        (&with(&deep), "LAN-0303", "64 levels"),
        (&with(&long), "LAN-0302", "5000 bytes"),
        (
            r#"{"specversion":"1.0","id":"1","source":"s","type":"lantern.heartbeat"}"#,
            "LAN-0307",
            "`lantern.heartbeat`",
        ),
        (
            r#"{"specversion":"1.0","id":"1","source":"lantern/p","type":"t"}"#,
            "LAN-0307",
            "`lantern/p`",
        ),
        (r#"{"specversion":"1.0","id":"1","source":"","type":"t"}"#, "LAN-0304", "`source`"),
        (r#"{"specversion":"1.0","id":"\ud800","source":"s","type":"t"}"#, "LAN-0301", r"`\ud800`"),
        (&with(r#","data":{"t":"half \ud83d"}"#), "LAN-0301", r"`\ud83d` is half a character"),
        (
            r#"{"specversion":"1.0","id":"1","source":"a b","type":"t"}"#,
            "LAN-0305",
            "URI reference",
        ),
        (&with(r#","dataschema":"/s.json""#), "LAN-0305", "`dataschema` is `/s.json`"),
        (&with(r#","datacontenttype":"json""#), "LAN-0305", "`datacontenttype` is `json`"),
    ];
    assert_refused(&cases);
}

#[test]
fn each_bad_time_is_refused_in_words_that_quote_it() {
    let long_value = format!(r#","time":"{}""#, "y".repeat(500));
    let cases: [(&str, &str, &str); 6] = [
        (&with(r#","time":"yesterday""#), "LAN-0308", "`yesterday`"),
        (
            &with(r#","time":1767225600"#),
            "LAN-0308",
            "seconds (`s`), that is `2026-01-01T00:00:00Z`",
        ),
        (
            &with(r#","time":"1767225600000""#),
            "LAN-0308",
            "milliseconds (`ms`), that is `2026-01-01T00:00:00Z`",
        ),
        (&with(r#","time":"0000-06-01T00:00:00Z""#), "LAN-0308", "from 0001-01-01"),
        (&with(&long_value), "LAN-0308", "yyy…`"),
        (&with(r#","time":"2126-01-01T00:00:00Z""#), "LAN-0309", "86400 s ahead"),
    ];
    assert_refused(&cases);
}

/// Checks that each event is refused with the given code, and that the message contains the given
/// words.
fn assert_refused(cases: &[(&str, &str, &str)]) {
    for (json, code, words) in cases {
        let error = read(json).expect_err(json);
        assert_eq!(error.code(), *code, "{json}: {error}");
        assert!(error.to_string().contains(words), "{json}: {error}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_refused_with_their_place() {
    let mut json = with("").into_bytes();
    json[9] = 0xFF;
    let error = reader().structured(&json, &mut Events::new()).unwrap_err();
    assert_eq!(error, EventError::NotUtf8 { at: 9 });
}

#[test]
fn an_event_one_byte_over_the_limit_is_refused_however_it_is_sent() {
    let limits = |event_bytes_max| EventLimits { event_bytes_max, ..EventLimits::default() };
    // The size of an event is that of its payload (3 bytes here) and its attributes.
    let json = with(r#","data_base64":"AAAA""#);
    let mut events = Events::new();
    reader().structured(json.as_bytes(), &mut events).unwrap();
    let event = events.get(0);
    let attributes = [event.id, event.source, event.kind, event.datacontenttype];
    let bytes = 3 + attributes.iter().map(|text| text.len()).sum::<usize>();
    let mut fits = Reader::new(limits(bytes), NOW);
    fits.structured(json.as_bytes(), &mut Events::new()).unwrap();
    let mut over = Reader::new(limits(bytes - 1), NOW);
    let error = over.structured(json.as_bytes(), &mut Events::new()).unwrap_err();
    assert_eq!(error, EventError::TooLarge { bytes, max: bytes - 1 });
}

#[test]
fn an_accepted_event_can_be_read_back_as_written() {
    let limits = EventLimits { event_bytes_max: 100_000, ..EventLimits::default() };
    let deep = format!("{}{}", "[".repeat(64), "]".repeat(64)).into_bytes();
    let payloads = [
        (deep, "application/json"),
        (vec![0xFF; 99_000], "application/octet-stream"),
        (vec![1; 99_000], "text/plain"),
        (vec![b'"'; 99_000], "text/plain"),
        (vec![b'x'; 99_000], "text/plain"),
    ];
    for (data, datacontenttype) in payloads {
        let event = Event {
            id: "1".into(),
            source: "/s".into(),
            kind: "t".into(),
            datacontenttype: datacontenttype.into(),
            data,
            ..Event::default()
        };
        let mut taken = Events::new();
        Reader::new(limits, NOW).add(event.as_ref(), None, &mut taken).unwrap();
        let mut written = Vec::new();
        write_event(&taken.get(0), &mut written);
        assert!(written.len() <= limits.written_bytes_max(), "{} bytes", written.len());
        let mut back = Events::new();
        Reader::new(limits, NOW).structured(&written, &mut back).unwrap();
        assert_eq!(back.get(0).to_owned(), event);
    }
}

#[test]
fn a_batch_tells_which_of_its_events_are_bad() {
    let json = format!("[{}, 5, {}]", with(""), with(r#","subject":"b""#));
    let (mut events, mut bad) = (Events::new(), Vec::new());
    reader().batch(json.as_bytes(), &mut events, |place, error| bad.push((place, error))).unwrap();
    assert_eq!(events.len(), 2);
    assert_eq!(events.subject(1), "b");
    let shape = EventError::Shape { expected: "a JSON object", value: "5".into() };
    assert_eq!(bad, [(1, shape)]);

    let none = reader().batch(b"[]", &mut events, |_, _| unreachable!());
    assert_eq!(none, Ok(()));
    let error = reader().batch(b"{}", &mut events, |_, _| unreachable!()).unwrap_err();
    assert!(error.to_string().contains("a JSON array of events, found `{}`"), "{error}");
    let error = reader().batch(b"[1,", &mut events, |_, _| unreachable!()).unwrap_err();
    assert!(matches!(error, EventError::NotJson(_)), "{error}");
}

#[test]
fn lines_are_counted_also_the_empty_and_the_bad_ones() {
    let block = format!("{0}\r\n\n{{\n{0}", with(""));
    let (mut events, mut bad) = (Events::new(), Vec::new());
    let lines = reader().lines(block.as_bytes(), 11, &mut events, |error| {
        bad.push(error.line);
        true
    });
    assert_eq!((lines, events.len(), bad), (4, 2, vec![13]));

    let mut events = Events::new();
    let lines = reader().lines(block.as_bytes(), 1, &mut events, |_| false);
    assert_eq!((lines, events.len()), (3, 1));
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(
            HeaderName::from_bytes(name.as_bytes()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    headers
}

fn binary(pairs: &[(&str, &str)], body: &[u8]) -> Result<Event, EventError> {
    let mut all = vec![("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "s")];
    all.push(("ce-type", "t"));
    all.extend_from_slice(pairs);
    let mut events = Events::new();
    reader().binary(&headers(&all), body, &mut events)?;
    Ok(events.get(0).to_owned())
}

#[test]
fn binary_mode_takes_attributes_from_headers() {
    let event = binary(
        &[
            ("ce-subject", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
            ("CE-Time", "2026-01-31T23:59:59.999Z"),
            ("ce-tenant", "t1"),
            ("ce-count", "\"7\""),
            ("content-type", "application/json; charset=utf-8"),
            ("accept", "*/*"),
        ],
        br#"{"a":1}"#,
    )
    .unwrap();
    assert_eq!(event.subject, "Euro € 😀");
    assert_eq!(event.time, Timestamp(1_769_903_999_999_000));
    assert_eq!(event.tenant, "t1");
    assert_eq!(event.extensions, r#"{"count":"7"}"#);
    assert_eq!(event.data, br#"{"a":1}"#);
    assert_eq!(binary(&[], b"x").unwrap().datacontenttype, "application/octet-stream");
    assert_eq!(binary(&[], b"").unwrap().datacontenttype, "");
}

#[test]
fn header_values_are_unquoted_and_then_decoded_once() {
    for (value, text) in [
        (r#""say \"hi\" \\ 5%20%E2%82%AC""#, r#"say "hi" \ 5 €"#),
        ("5%2525", "5%25"),
        (r#""a" and "b""#, r#""a" and "b""#),
        (r#""open"#, r#""open"#),
        (r#"a"b"#, r#"a"b"#),
        (" padded ", "padded"),
        (r#"" kept ""#, " kept "),
    ] {
        let event = binary(&[("ce-subject", value)], b"").unwrap();
        assert_eq!(event.subject, text, "{value}");
    }
}

#[test]
fn bad_headers_are_named() {
    let check = |pairs: &[(&str, &str)], body: &[u8], code: &str, words: &str| {
        let error = binary(pairs, body).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    };
    check(&[("ce-id", "2")], b"", "LAN-0305", "`id` occurs twice");
    check(&[("ce-subject", "%zz")], b"", "LAN-0305", "header `ce-subject` is `%zz`");
    check(&[("ce-subject", "%ff")], b"", "LAN-0305", "percent-encoded UTF-8");
    check(&[("ce-a_b", "1")], b"", "LAN-0305", "`a_b`");
    check(&[("ce-x", "a%00")], b"", "LAN-0305", "control characters");
    check(&[("ce-x", "%C0%A0")], b"", "LAN-0305", "percent-encoded UTF-8");
    check(&[("content-type", "json")], b"", "LAN-0305", "media type");
    let half = br#"{"t":"\ud83d"}"#;
    check(&[("content-type", "application/json")], half, "LAN-0301", "half a character");
    check(&[("ce-datacontenttype", "a")], b"", "LAN-0305", "content-type");
    check(&[("ce-data", "a")], b"", "LAN-0305", "the body is the data");
    check(&[("content-type", "application/json")], b"{", "LAN-0310", "declared as JSON");
    check(&[("ce-time", "now")], b"", "LAN-0308", "`now`");
    let error = reader().binary(&headers(&[]), b"", &mut Events::new()).unwrap_err();
    assert_eq!(error, EventError::Missing("specversion"));
}

prop_compose! {
    fn any_event()(
        id in "[^\\p{Cc}]{1,20}",
        source in "[a-zA-Z0-9/._~-]{1,20}",
        kind in "[^\\p{Cc}l]{1,20}",
        subject in "[^\\p{Cc}]{0,20}",
        tenant in "[^\\p{Cc}]{0,5}",
        us in prop_oneof![Just(i64::MIN), 0..NOW.0],
        extensions in prop_oneof![
            Just(String::new()),
            Just(r#"{"a":"x\"y","b":-5,"c":false}"#.to_owned()),
        ],
        payload in prop_oneof![
            Just(("", b"".to_vec())),
            Just(("", br#"{"a":[1,2.50,"\u00e9"]}"#.to_vec())),
            Just(("application/json", b"null".to_vec())),
            "[^\\p{Cc}]{1,20}".prop_map(|text| ("text/plain", text.into_bytes())),
            proptest::collection::vec(any::<u8>(), 1..40)
                .prop_map(|bytes| ("application/octet-stream", bytes)),
        ],
    ) -> Event {
        Event {
            id, source, kind, subject, tenant,
            time: Timestamp(us),
            dataschema: String::new(),
            datacontenttype: payload.0.into(),
            extensions,
            data: payload.1,
        }
    }
}

proptest! {
    #[test]
    fn an_event_written_and_read_is_the_same(event in any_event()) {
        let mut json = Vec::new();
        write_event(&event.as_ref(), &mut json);
        let read = read(std::str::from_utf8(&json).unwrap());
        prop_assert_eq!(read, Ok(event));
    }

    #[test]
    fn an_exported_event_is_imported_as_it_was_whatever_was_accepted(
        event in any_event(),
        extensions in 0..=EXTENSIONS_MAX,
        json in prop::option::of(("[ \\n\\r\\t]{0,3}", "[ \\n\\r\\t]{0,3}", "[ \\n\\r\\t]{0,3}")),
        typed in any::<bool>(),
        full in any::<bool>(),
    ) {
        let mut event = event;
        if let Some((before, within, after)) = json {
            event.data = format!("{before}{{\"a\":{within}[1.50,\"x\\\\n\"]}}{after}").into_bytes();
            event.datacontenttype = if typed { "application/json".into() } else { String::new() };
        }
        if extensions > 0 {
            let all: Vec<_> = (0..extensions).map(|n| format!("\"x{n}\":\"v\\\"{n}\"")).collect();
            event.extensions = format!("{{{}}}", all.join(","));
        }
        let mut limits = EventLimits::default();
        if full {
            limits.event_bytes_max = event_bytes(&event.as_ref());
        }
        // The event is valid, so a client could have sent it.
        let mut taken = Events::new();
        let mut client = Reader::new(limits, NOW);
        prop_assert_eq!(client.add(event.as_ref(), None, &mut taken), Ok(()));
        // The attributes that an export adds, and those that the host gives to an emitted event.
        let stamps = r#""lanternpartition":3,"lanternappended":"2023-11-14T22:13:20.123456Z","lanterndepth":7"#;
        let stamped = match event.extensions.strip_prefix('{') {
            Some(own) => format!("{{{stamps},{own}"),
            None => format!("{{{stamps}}}"),
        };
        let exported = Event { extensions: stamped, ..event };
        let mut json = Vec::new();
        write_exact(&exported.as_ref(), &mut json);
        prop_assert!(!json.contains(&b'\n') && !json.contains(&b'\r'));
        let mut import = Reader::new(limits, NOW);
        import.set_host_events(true);
        let mut read = Events::new();
        prop_assert_eq!(import.structured(&json, &mut read), Ok(()));
        prop_assert_eq!(read.get(0).to_owned(), exported.clone());
        // A reader that removes the attributes of the host accepts the event too, and its data is
        // still JSON. This reader may add a media type, so it cannot read an event that is at the
        // limit.
        if full {
            return Ok(());
        }
        prop_assert_eq!(client.structured(&json, &mut read), Ok(()));
        let plain = read.get(1);
        prop_assert_eq!(is_json(plain.datacontenttype), is_json(&exported.datacontenttype));
        prop_assert_eq!(plain.data, &exported.data[..]);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut events = Events::new();
        let _ = reader().structured(&bytes, &mut events);
        let _ = reader().batch(&bytes, &mut events, |_, _| ());
        reader().lines(&bytes, 1, &mut events, |_| true);
    }

    #[test]
    fn a_byte_changed_never_panics_and_never_adds_two(
        event in any_event(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut json = Vec::new();
        write_event(&event.as_ref(), &mut json);
        let at = at.index(json.len());
        json[at] = byte;
        let mut events = Events::new();
        let added = reader().structured(&json, &mut events).is_ok();
        prop_assert_eq!(events.len(), usize::from(added));
    }
}

#[test]
fn a_log_is_read_without_a_limit_of_bytes() {
    let json = with(r#","data":"x""#);
    let mut events = Events::new();
    Reader::of_log().structured(json.as_bytes(), &mut events).unwrap();
    assert_eq!(events.len(), 1);
}
