use super::*;
use crate::cloudevents::NDJSON;

const TABLE: &str = "/v1/tables/counts/by_subject";

/// Returns a server with a table of counts for the subjects `s0` to `s9`: 2 for `s0`, and 1 for
/// each of the others.
pub(super) async fn filled() -> Fixture {
    filled_with(|_| ()).await
}

/// Like [`filled`], with other settings.
pub(super) async fn filled_with(change: impl FnOnce(&mut ServerConfig)) -> Fixture {
    let fixture = Fixture::with(change);
    fixture.project(counts()).await;
    let mut body: String =
        (0..10).map(|i| event(&i.to_string(), "t", &format!("s{i}")) + "\n").collect();
    body += &event("again", "t", "s0");
    fixture.post("/v1/events", NDJSON, body).await.expect_ok();
    fixture.until(TABLE, |a| a.text.contains(r#""s9""#) && a.text.contains(r#""count":2"#)).await;
    fixture
}

#[tokio::test]
async fn rows_are_read_by_key_prefix_and_range() {
    let fixture = filled().await;
    let keys = async |query: &str| -> Vec<String> {
        let page = fixture.get(&format!("{TABLE}?{query}")).await.expect_ok().json();
        page["rows"].as_object().unwrap().keys().cloned().collect()
    };
    assert_eq!(keys("").await.len(), 10);
    assert_eq!(keys("key=s3").await, ["s3"]);
    let missing = fixture.get(&format!("{TABLE}?key=missing")).await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["code"], "LAN-0425");
    assert!(missing.headers.contains_key("lantern-epoch"), "as of which state");
    assert_eq!(keys("prefix=s1").await, ["s1"]);
    assert_eq!(keys("from=s8").await, ["s8", "s9"]);
    assert_eq!(keys("from=s2&to=s4").await, ["s2", "s3"]);
    assert_eq!(keys("order=desc&limit=2").await, ["s8", "s9"]);
    let page = fixture.get(&format!("{TABLE}?key=s0")).await.json();
    assert_eq!(page["rows"]["s0"], serde_json::json!({"subject": "s0", "count": 2}));
    assert_eq!(
        page["fields"][1],
        serde_json::json!({"name":"count","kind":"integer","merge":"sum"})
    );
    assert_eq!(page["next"], Value::Null);
}

#[tokio::test]
async fn pages_follow_one_another_without_gap_or_repeat() {
    let fixture = filled().await;
    for order in ["asc", "desc"] {
        let (mut keys, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("{TABLE}?limit=3&order={order}{cursor}");
            let page = fixture.get_as(&path, NDJSON).await.expect_ok();
            for line in page.text.lines() {
                let line: Value = serde_json::from_str(line).unwrap();
                keys.push(line["key"].as_str().unwrap().to_owned());
            }
            let Some(next) = page.headers.get("lantern-next") else { break };
            cursor = format!("&cursor={}", next.to_str().unwrap());
        }
        let mut expected: Vec<_> = (0..10).map(|i| format!("s{i}")).collect();
        if order == "desc" {
            expected.reverse();
        }
        assert_eq!(keys, expected, "{order}");
    }
}

#[tokio::test]
async fn an_answer_tells_how_fresh_it_is_and_is_spared_when_it_has_not_changed() {
    let fixture = filled().await;
    let answer = fixture.get(TABLE).await.expect_ok();
    let page = answer.json();
    assert_eq!(answer.headers["lantern-commit"], page["commit"].to_string());
    let next = page["offsets"]["0"].as_u64().unwrap();
    assert_eq!(answer.headers["lantern-offsets"], format!("0:{next}"));
    assert_eq!(answer.headers["lantern-epoch"], page["epoch"].as_str().unwrap());
    assert!(answer.headers.contains_key("lantern-lag-ms"));
    let etag = answer.headers["etag"].to_str().unwrap().to_owned();
    let seen = [("if-none-match", etag.as_str())];
    let same = fixture.send(request(Method::GET, TABLE, &seen, "")).await;
    assert_eq!((same.status, same.text.as_str()), (StatusCode::NOT_MODIFIED, ""));
    assert_eq!(same.headers["etag"], etag);
    let other = fixture.send(request(Method::GET, &format!("{TABLE}?limit=2"), &seen, "")).await;
    assert_eq!(other.status, StatusCode::OK);
    let csv = fixture.get_as(&format!("{TABLE}?limit=1"), "text/csv").await.expect_ok();
    assert_eq!(csv.text, "key,subject,count\r\ns0,s0,2\r\n");
}

#[tokio::test]
async fn a_reader_can_wait_for_its_own_write() {
    let fixture = filled().await;
    let single = "application/cloudevents+json";
    let answer = fixture.post("/v1/events", single, event("f", "t", "fresh")).await.json();
    let (partition, offset) = (&answer["events"][0]["partition"], &answer["events"][0]["offset"]);
    let path = format!("{TABLE}?key=fresh&min_offset={partition}:{offset}&wait=20s");
    let page = fixture.get(&path).await.expect_ok().json();
    assert_eq!(page["rows"]["fresh"]["count"], 1);
    assert!(page["offsets"]["0"].as_u64() > offset.as_u64(), "{page}");
    let never = fixture.get(&format!("{TABLE}?min_offset=0:999999&wait=10ms")).await;
    never.is_problem("LAN-0407", "does not contain offset 999999 of partition 0 yet");
    fixture.get(&format!("{TABLE}?min_offset=7:1")).await.is_problem("LAN-0403", "partition 7");
    fixture.get(&format!("{TABLE}?min_offset=5")).await.is_problem("LAN-0403", "PARTITION:OFFSET");
}

#[tokio::test]
async fn wrong_reads_are_refused_with_the_reason() {
    let fixture = filled().await;
    let check = async |path: &str, code: &str, words: &str| {
        fixture.get(path).await.is_problem(code, words);
    };
    check("/v1/tables/nothing/x", "LAN-0201", "`nothing`").await;
    check("/v1/tables/counts/x", "LAN-0404", "has no table `x`").await;
    check("/v1/tables/counts/secret", "LAN-0404", "`secret` of `counts` is private").await;
    check(&format!("{TABLE}?version=abc"), "LAN-0202", "`abc`").await;
    check(&format!("{TABLE}?wher=x"), "LAN-0403", "wher").await;
    check(&format!("{TABLE}?as_of=0:1"), "LAN-0405", "`as_of`").await;
    check(&format!("{TABLE}?order=up"), "LAN-0426", "no field `up`").await;
    check(&format!("{TABLE}?cursor=xx"), "LAN-0212", "`xx`").await;
    check(&format!("{TABLE}?key=a&prefix=b"), "LAN-0403", "`key`").await;
    check(&format!("{TABLE}?limit=999999"), "LAN-0403", "999999").await;
}

#[tokio::test]
async fn a_cursor_of_an_earlier_state_is_refused() {
    let fixture = filled().await;
    let page = fixture.get(&format!("{TABLE}?limit=3")).await.json();
    let cursor = page["next"].as_str().unwrap();
    let version = fixture.get("/v1/projections/counts").await.json()["active"].clone();
    let path = format!("/v1/projections/counts/versions/{}/rebuild", version.as_str().unwrap());
    fixture.post(&path, "", "").await.expect_ok();
    let epoch = page["epoch"].as_str().unwrap();
    fixture.until(TABLE, |a| a.status == 200 && a.json()["epoch"] != epoch).await;
    let old = fixture.get(&format!("{TABLE}?limit=3&cursor={cursor}")).await;
    old.is_problem("LAN-0406", "another history");
}

#[tokio::test]
async fn tokens_of_a_deleted_projection_are_refused_by_the_next_one_of_its_name() {
    let fixture = filled().await;
    let first = fixture.get(&format!("{TABLE}?limit=3")).await.expect_ok();
    let (page, etag) = (first.json(), first.headers["etag"].to_str().unwrap().to_owned());
    let path = format!("{TABLE}?limit=3&cursor={}", page["next"].as_str().unwrap());
    fixture.get(&path).await.expect_ok();

    let deleted = request(Method::DELETE, "/v1/projections/counts", &[], "");
    fixture.send(deleted).await.expect_ok();
    fixture.project(counts()).await;
    fixture.until(TABLE, |a| a.status == 200 && a.json()["offsets"] == page["offsets"]).await;
    fixture.get(&path).await.is_problem("LAN-0406", "another history");
    let seen = [("if-none-match", etag.as_str())];
    let again = fixture.send(request(Method::GET, &format!("{TABLE}?limit=3"), &seen, "")).await;
    assert_eq!(again.status, StatusCode::OK, "the same rows, of another history");
    assert_eq!(again.json()["rows"], page["rows"]);
}

/// Returns a projection with two public tables. The type of an event names the table that it
/// changes.
fn two_tables() -> Arc<dyn Plugin> {
    let table = |name: &str| TableSpec {
        name: name.into(),
        public: true,
        fields: vec![FieldSpec { name: "note".into(), ..FieldSpec::default() }],
        ..TableSpec::default()
    };
    let manifest = Manifest {
        name: "counts".into(),
        version: "1.0.0".into(),
        subscribes: vec!["*".into()],
        attributes: Attributes { subject: true, data: true, ..Attributes::default() },
        tables: vec![table("by_subject"), table("other")],
        ..Manifest::default()
    };
    Arc::new(NativePlugin::<()>::new(manifest, |batch, host, ()| {
        for index in 0..batch.events.len() {
            let table = TableId(u32::from(batch.events.kind(index) == "other"));
            let (subject, cause) = (batch.events.subject(index), batch.cause_of_event(index));
            host.put(cause, table, subject, b"{}").map_err(host_error)?;
        }
        Ok(())
    }))
}

#[tokio::test]
async fn a_table_keeps_its_tag_while_other_tables_change() {
    let fixture = Fixture::new();
    fixture.project(two_tables()).await;
    let append = async |id: &str, kind: &str| {
        let media = "application/cloudevents+json";
        let answer = fixture.post("/v1/events", media, event(id, kind, id)).await.expect_ok();
        let offset = answer.json()["events"][0]["offset"].as_u64().unwrap();
        format!("min_offset=0:{offset}&wait=20s")
    };
    let read = async |table: &str, state: &str, seen: &str| {
        let path = format!("/v1/tables/counts/{table}?{state}");
        fixture.send(request(Method::GET, &path, &[("if-none-match", seen)], "")).await
    };
    let tag = |answer: &Answer| answer.headers["etag"].to_str().unwrap().to_owned();
    let empty = tag(&read("by_subject", "", "\"\"").await);
    let state = append("a", "other").await;
    let still_empty = read("by_subject", &state, &empty).await;
    assert_eq!(still_empty.status, 304, "{still_empty:?}");
    let state = append("b", "t").await;
    let changed = read("by_subject", &state, &empty).await;
    assert_eq!(changed.status, 200);
    let other = tag(&read("other", &state, "\"\"").await);
    let first = tag(&changed);
    for id in ["c", "d"] {
        let state = append(id, "other").await;
        let same = read("by_subject", &state, &first).await;
        assert_eq!((same.status.as_u16(), tag(&same)), (304, first.clone()));
        assert_eq!(
            same.headers["lantern-offsets"],
            read("other", &state, "\"\"").await.headers["lantern-offsets"]
        );
        assert_eq!(read("other", &state, &other).await.status, 200);
    }
    // A write of the same row counts as a change too.
    let state = append("e", "t").await;
    assert_eq!(read("by_subject", &state, &first).await.status, 200);
}
