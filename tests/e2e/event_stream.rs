//! Tests that clients of event streams keep their rows correct while the server is killed: one that
//! reads the stream itself, and `EventSource` in a real browser.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use lantern_tests::{PATIENCE, Server, guest, without};
use serde_json::{Value, json};

use crate::browser::Browser;
use crate::{line, random};

/// How many times events are sent and the stream is cut, and how many times the server is killed.
const CUTS: u64 = 12;
const KILLS: u64 = 3;

/// A client that keeps the rows of the tables of an event stream.
#[derive(Default)]
struct Reader {
    cursor: Option<String>,
    tables: BTreeMap<u64, BTreeMap<String, Value>>,
    /// The `id` of the subscription of each channel.
    ids: BTreeMap<u64, u64>,
    resumed: u64,
    resets: u64,
}

impl Reader {
    /// Connects with the last cursor, and reads frames until one fulfils `until` or the stream ends.
    /// Returns whether a frame fulfilled it.
    async fn read(&mut self, url: &str, mut until: impl FnMut(&Self, &Value) -> bool) -> bool {
        let mut request = reqwest::Client::new().get(url);
        if let Some(cursor) = &self.cursor {
            request = request.header("Last-Event-ID", cursor);
        }
        self.ids.clear();
        let Ok(mut answer) = request.send().await else { return false };
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        let (mut text, mut id) = (VecDeque::new(), None);
        while let Ok(Some(piece)) = answer.chunk().await {
            text.extend(piece);
            while let Some(end) = text.iter().position(|byte| *byte == b'\n') {
                let line = String::from_utf8(text.drain(..=end).collect()).unwrap();
                if let Some(cursor) = line.strip_prefix("id: ") {
                    id = Some(cursor.trim_end().to_owned());
                }
                let Some(data) = line.strip_prefix("data: ") else { continue };
                let frame = serde_json::from_str(data).unwrap();
                self.apply(&frame);
                self.cursor = id.take().or(self.cursor.take());
                if until(self, &frame) {
                    return true;
                }
            }
        }
        false
    }

    fn apply(&mut self, frame: &Value) {
        let id = frame["ch"].as_u64().and_then(|ch| self.ids.get(&ch)).copied();
        match frame["t"].as_str().unwrap() {
            "ok" => {
                let id = frame["id"].as_u64().unwrap();
                self.ids.insert(frame["ch"].as_u64().unwrap(), id);
                if frame["resumed"] == true {
                    self.resumed += 1;
                } else {
                    self.tables.insert(id, BTreeMap::new());
                }
            }
            "reset" => {
                self.resets += 1;
                self.tables.insert(id.unwrap(), BTreeMap::new());
            }
            "snap" | "delta" => {
                let rows = self.tables.get_mut(&id.unwrap()).unwrap();
                for up in [&frame["rows"], &frame["up"]] {
                    let up = up.as_object().into_iter().flatten();
                    rows.extend(up.map(|(key, row)| (key.clone(), row.clone())));
                }
                for key in frame["del"].as_array().into_iter().flatten() {
                    rows.remove(key.as_str().unwrap());
                }
            }
            _ => {}
        }
    }
}

/// Returns 1 to 60 events with the next numbers, for some of 20 subjects.
fn events(random: &mut fastrand::Rng, number: &mut u64) -> String {
    let lines = (0..random.u64(1..60)).map(|_| {
        *number += 1;
        let subject = format!("s{}", random.u64(0..20));
        line(*number, "probe.sent", &subject, &format!("{{\"text\":\"{number}\"}}"))
    });
    lines.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_stream_that_is_cut_ends_with_exactly_the_tables_rows() {
    let mut random = random();
    let mut server = Server::start(&["live.heartbeat_ms=1000"]).unwrap();
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    let filter = "%7B%22table%22:%22rogue/seen%22,%22where%22:[[%22text%22,%22%3E%22,%225%22]]%7D";
    let url = |server: &Server| format!("{}/v1/feed/sse?sub=rogue/seen&sub={filter}", server.url);
    let (mut reader, mut number) = (Reader::default(), 0);
    for round in 0..CUTS {
        server.events(events(&mut random, &mut number)).await.unwrap();
        // The client reads some frames and then disconnects.
        let mut left = random.u64(1..8);
        let url = url(&server);
        let some = reader.read(&url, |_, _| {
            left -= 1;
            left == 0
        });
        // An idle stream has few frames.
        let _ = tokio::time::timeout(Duration::from_millis(500), some).await;
        if round % (CUTS / KILLS) == 2 {
            server.kill().unwrap();
            server.restart().unwrap();
        }
    }
    server.events(line("last", "probe.sent", "last", r#"{"text":"9"}"#)).await.unwrap();
    let has_last = |reader: &Reader, _: &Value| {
        let tables = reader.tables.values().filter(|rows| rows.contains_key("last"));
        tables.count() == 2 && reader.ids.len() == 2
    };
    let read = async {
        while !reader.read(&url(&server), has_last).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the last row comes");
    server.caught_up("rogue").await.unwrap();
    let rows: BTreeMap<_, _> = server.rows("rogue/seen").await.unwrap().into_iter().collect();
    assert_eq!(reader.tables[&1], rows);
    let later = rows.into_iter().filter(|(_, row)| row["text"].as_str() > Some("5"));
    assert_eq!(reader.tables[&2], later.collect());
    println!("{} resumed, {} resets", reader.resumed, reader.resets);
    assert!(reader.resumed >= CUTS / 2, "{} subscriptions resumed", reader.resumed);
}

/// Returns the example in JavaScript of the page about the feed, for these tables.
fn example(first: &str, second: &str) -> String {
    let page = std::fs::read_to_string(lantern_tests::root().join("docs/feed.md")).unwrap();
    let (_, rest) = page.split_once("```js\n").unwrap();
    let (code, _) = rest.split_once("```").unwrap();
    assert!(code.contains("EventSource"), "{code}");
    code.replace("shop/orders", first).replace("order-counts/by_type", second)
}

#[tokio::test(flavor = "multi_thread")]
async fn event_source_in_a_browser_follows_a_table_through_a_restart() {
    if let Some(program) = ["chromedriver", "chromium"].into_iter().find(|name| without(name)) {
        println!("skipped: `{program}` is missing");
        return;
    }
    let mut random = random();
    let mut server = Server::start(&[]).unwrap();
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    let mut number = 0;
    server.events(events(&mut random, &mut number)).await.unwrap();
    let browser = Browser::open(&format!("{}/v1/errors/LAN-0444", server.url)).await;
    // The page shows the state of the stream, and the rows as JSON.
    let script = format!(
        "{}; let opens = 0, snaps = 0;
        source.addEventListener('open', () => opens += 1);
        source.addEventListener('snap', () => snaps += 1);
        setInterval(() => document.body.innerText = JSON.stringify(
            {{opens, snaps, tables: tables.map((rows) => Object.fromEntries(rows))}}), 20);",
        example("rogue/seen", "rogue/seen")
    );
    browser.run(&script).await;
    for last in ["one", "two", "three"] {
        server.events(events(&mut random, &mut number)).await.unwrap();
        server.events(line(last, "probe.sent", last, "{}")).await.unwrap();
        browser.shows(&format!("\"{last}\":")).await;
        if last != "three" {
            server.kill().unwrap();
            server.restart().unwrap();
        }
    }
    server.caught_up("rogue").await.unwrap();
    let rows: serde_json::Map<_, _> =
        server.rows("rogue/seen").await.unwrap().into_iter().collect();
    let expected = json!([rows, rows]);
    let compared = async {
        loop {
            let shown = browser.run("return document.body.innerText").await;
            let shown: Value = serde_json::from_str(shown.as_str().unwrap()).unwrap();
            if shown["tables"] == expected {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let shown = tokio::time::timeout(PATIENCE, compared).await.expect("the rows are the table's");
    println!("{} connections, {} snapshots", shown["opens"], shown["snaps"]);
    assert!(shown["opens"].as_u64() >= Some(3), "{} connections", shown["opens"]);
    assert_eq!(shown["snaps"], 2, "the stream was resumed");
}
