//! Tests the parsers of inputs from clients (messages and tokens of the feed, queries, cursors) and
//! from operators (the configuration).

use lantern_core::{Checkpoint, Offset, ShardPoint, ShardProof};
use lantern_live::fuzzing as live;
use lantern_server::{Problem, ServerConfig, fuzzing as server};

/// Runs the parser of a message that a feed client sends.
pub fn feed_message(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match live::message(text) {
        // The size of the parsed message is limited by the size of the input.
        Ok(message) => assert!(message.len() < 400 + 40 * text.len()),
        Err(why) => assert!(!why.is_empty()),
    }
}

/// Runs the parser of a token with which a subscription resumes.
pub fn resume_token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(((epoch, commit), at, query)) = live::token(text) {
        assert!(epoch.len() + at.points.len() <= text.len(), "a token grew");
        let again = live::encode_token((&epoch, commit), &at, query);
        assert_eq!(live::token(&again), Some(((epoch, commit), at, query)));
    }
}

/// Runs the parser of a query of a table.
pub fn table_query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    is_clear(server::table_query(text), text);
}

/// Runs the parser of a query of the log.
pub fn events_query(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    is_clear(server::events_query(text), text);
}

/// Runs the parser of the cursor of a table query.
pub fn table_cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match server::cursor(text) {
        Ok((epoch, key, at)) => {
            let again = server::cursor(&server::encode_cursor(&epoch, &key, &at));
            assert!(again.is_ok_and(|again| again == (epoch, key, at)));
        }
        Err(problem) => assert_eq!(problem.code, "LAN-0212"),
    }
}

/// Runs the parser of the configuration file `lantern.toml`.
pub fn configuration(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match ServerConfig::parse(text) {
        Ok(config) => {
            assert!(config.check().is_ok());
            let json = serde_json::to_string(&config);
            let again = json.map(|json| serde_json::from_str::<ServerConfig>(&json));
            assert!(again.is_ok_and(|again| again.is_ok_and(|again| again == config)));
        }
        Err(error) => assert!(error.to_string().len() > 10),
    }
}

fn is_clear(answer: Result<String, Problem>, text: &str) {
    match answer {
        Ok(asked) => assert!(asked.len() < 4_000 + 40 * text.len()),
        Err(problem) => {
            assert!(problem.status < 500 || problem.status == 501, "{problem:?}");
            assert!(!problem.detail.is_empty(), "{problem:?}");
        }
    }
}

fn owned(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

pub(super) fn feed_message_seeds() -> Vec<Vec<u8>> {
    owned(&[
        r#"{"t":"hello","token":"x"}"#,
        r#"{"t":"sub","id":1,"table":"revenue/by_product","mode":"state","rate_ms":100,"resume":"e30"}"#,
        r#"{"t":"sub","id":18446744073709551615,"table":"a/b","where":[["c","in",["DE"]]],"cols":[]}"#,
        r#"{"t":"unsub","id":1}"#,
        r#"{"t":"auth","token":null}"#,
        r#"{"t":"ack","n":42}"#,
        r#"{"t":"pong"}"#,
        r#"{"id":1,"table":"a/b","t":"sub"}"#,
    ])
}

pub(super) fn resume_token_seeds() -> Vec<Vec<u8>> {
    let token = |at: &[u64]| {
        let point = |next| ShardPoint { next: Offset(next), ..ShardPoint::default() };
        let at = Checkpoint::new(at.iter().map(|next| (point(*next), ShardProof::default())));
        live::encode_token(("3.0af7651916cd43dd.0.77", 12), &at, 42).into_bytes()
    };
    vec![token(&[5]), token(&[5, 7]), token(&[u64::MAX, 1]), token(&[]), token(&[0; 300])]
}

pub(super) fn table_query_seeds() -> Vec<Vec<u8>> {
    let cursor = server::encode_cursor("1.a.0", "ké\u{0}y", &Checkpoint::default());
    let mut seeds = owned(&[
        "",
        "key=p1",
        "prefix=p&from=p2&to=z&limit=10&order=desc",
        "prefix=%ff%ff&limit=10000",
        "min_offset=0:18446744073709551615,7:0&wait=30s",
        "wait=250ms&version=0af7651916cd43dd",
        "from=z&to=a&order=asc",
        "prefix=%F4%8F%BF%BF&to=%00",
        "where=x&cols=y&bucket=1m&agg=sum(c)&by=d&fill=zero&as_of=pos:1",
        "limit=0",
        "key=a&key=b&unknown=1",
    ]);
    seeds.push(format!("cursor={cursor}&order=desc").into_bytes());
    seeds
}

pub(super) fn events_query_seeds() -> Vec<Vec<u8>> {
    owned(&[
        "partition=0&from=0&limit=100",
        "from=end&wait=5s&types=order.placed,order.*,*",
        "time=2026-09-01T10:00:00Z",
        "from=18446744073709551615&partition=4294967295",
        "types=,,**,a*b&limit=10000",
    ])
}

pub(super) fn table_cursor_seeds() -> Vec<Vec<u8>> {
    let cursor =
        |key: &str| server::encode_cursor("1.a.0", key, &Checkpoint::default()).into_bytes();
    vec![cursor(""), cursor("k"), cursor("ké\u{0}y\""), cursor(&"k".repeat(1_000))]
}

pub(super) fn configuration_seeds() -> Vec<Vec<u8>> {
    owned(&[
        "",
        "data = '/a'\n[http]\nlisten = '127.0.0.1:1'\nquery_rows_max = 5\nhosts = ['a', 'b']\n",
        "[ingest]\nevent_bytes_max = 1_048_576\n[live]\nwindow = 3\n[log]\npartitions = 4\n",
        "[engine]\nthreads = 2\n[plugin.limits]\nmemory_bytes = 0x4000000\n",
        "[log]\ncompression = \"zstd\"\nretention_age_seconds = 9223372036854775807\n",
        "http.listen = \"[::1]:99999\"\n",
        "a = [[[[[[[[1]]]]]]]]\nb = {c = {d = {e = 1979-05-27T07:32:00Z}}}\n",
    ])
}
