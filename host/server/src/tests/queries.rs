use lantern_api::QueryPage;
use tokio::sync::oneshot;

use super::tables::filled;
use super::*;
use crate::cloudevents::NDJSON;

const TABLE: &str = "/v1/tables/counts/by_subject";
const QUERY: &str = "/v1/tables/counts/by_subject/query";
const JSON: &str = "application/json";

/// Returns the keys of the rows in an answer that is in the order of a field.
fn keys(page: &Value) -> Vec<&str> {
    page["rows"].as_array().unwrap().iter().map(|row| row["key"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn rows_are_filtered_and_their_fields_chosen() {
    let fixture = filled().await;
    let get = async |query: &str| fixture.get(&format!("{TABLE}?{query}")).await.expect_ok();
    let page = get("where=count%3E1").await.json();
    assert_eq!(page["rows"], serde_json::json!({"s0": {"subject": "s0", "count": 2}}));
    let page = get("where=count=1&where=subject%20in%20s3,s4,s0&cols=count").await.json();
    assert_eq!(page["rows"], serde_json::json!({"s3": {"count": 1}, "s4": {"count": 1}}));
    assert_eq!(page["fields"].as_array().unwrap().len(), 1);
    let page = get("prefix=s1&where=count=1").await.json();
    assert_eq!(page["rows"].as_object().unwrap().len(), 1);
    let page = get("key=s0&cols=count").await.json();
    assert_eq!(page["rows"], serde_json::json!({"s0": {"count": 2}}));
    let missing = fixture.get(&format!("{TABLE}?key=none&cols=count")).await;
    missing.is_problem("LAN-0425", "`none`");
    let csv = fixture.get_as(&format!("{TABLE}?where=count%3E1&cols=count"), "text/csv").await;
    assert_eq!(csv.text, "key,count\r\ns0,2\r\n");
    // The cursor of a page continues after this page, with the same filter.
    let page = get("where=count=1&limit=8&order=-key").await.json();
    let next = page["next"].as_str().unwrap();
    let last = get(&format!("where=count=1&limit=8&order=-key&cursor={next}")).await.json();
    assert_eq!(last["rows"].as_object().unwrap().keys().collect::<Vec<_>>(), ["s1"]);
    assert_eq!(last["next"], Value::Null);
}

#[tokio::test]
async fn rows_are_ordered_by_a_field_and_paged() {
    let fixture = filled().await;
    let (mut found, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = fixture.get(&format!("{TABLE}?order=-count&limit=4{cursor}")).await.expect_ok();
        let typed: QueryPage = serde_json::from_str(&page.text).unwrap();
        found.extend(keys(&page.json()).into_iter().map(str::to_owned));
        let Some(next) = typed.next else { break };
        cursor = format!("&cursor={next}");
    }
    assert_eq!(found, ["s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9"]);
    let lines = fixture.get_as(&format!("{TABLE}?order=-count&limit=1"), NDJSON).await.expect_ok();
    let line: Value = serde_json::from_str(&lines.text).unwrap();
    assert_eq!(line, serde_json::json!({"key": "s0", "value": {"subject": "s0", "count": 2}}));
    let next = lines.headers["lantern-next"].to_str().unwrap();
    let other = fixture.get(&format!("{TABLE}?order=count&cursor={next}")).await;
    other.is_problem("LAN-0212", "cursor of another query");
    let by_key = fixture.get(&format!("{TABLE}?limit=1")).await.json();
    let by_key = by_key["next"].as_str().unwrap();
    let other = fixture.get(&format!("{TABLE}?order=count&cursor={by_key}")).await;
    other.is_problem("LAN-0212", "not a cursor of this query");
}

#[tokio::test]
async fn rows_are_grouped_and_a_body_asks_the_same() {
    let fixture = filled().await;
    let path = format!("{TABLE}?by=count&agg=count()%20as%20n,max(subject)&order=-n");
    let page = fixture.get(&path).await.expect_ok().json();
    let groups = serde_json::json!([
        {"count": 1, "n": 9, "max_subject": "s9"},
        {"count": 2, "n": 1, "max_subject": "s0"},
    ]);
    assert_eq!(page["rows"], groups);
    let names: Vec<_> = page["fields"].as_array().unwrap().iter().map(|f| &f["name"]).collect();
    assert_eq!(names, ["count", "n", "max_subject"]);
    let csv = fixture.get_as(&path, "text/csv").await.expect_ok();
    assert_eq!(csv.text, "count,n,max_subject\r\n1,9,s9\r\n2,1,s0\r\n");
    let body =
        r#"{"by":["count"],"agg":{"n":["count"],"max_subject":["max","subject"]},"order":"-n"}"#;
    let answer = fixture.post(QUERY, JSON, body).await.expect_ok();
    assert_eq!(answer.json()["rows"], groups);
    assert!(!answer.headers.contains_key("etag"));
    let body = r#"{"where":[["count",">",1]],"order":"count","limit":5}"#;
    assert_eq!(keys(&fixture.post(QUERY, JSON, body).await.expect_ok().json()), ["s0"]);
    let all = fixture.post(QUERY, JSON, "{}").await.expect_ok().json();
    assert_eq!(all["rows"].as_object().unwrap().len(), 10);
    // The tag of an answer depends on the query.
    let etag = async |path: &str| {
        fixture.get(path).await.expect_ok().headers["etag"].to_str().unwrap().to_owned()
    };
    let tag = etag(&path).await;
    let seen = [("if-none-match", tag.as_str())];
    assert_eq!(fixture.send(request(Method::GET, &path, &seen, "")).await.status, 304);
    assert_ne!(tag, etag(&format!("{TABLE}?by=count&agg=count()%20as%20n&order=-n")).await);
}

#[tokio::test]
async fn a_wrong_query_is_refused_with_the_parameter_and_the_fix() {
    let fixture = filled().await;
    for (query, parameter, words) in [
        ("where=cont=1", "where", "did you mean `count`?"),
        ("where=count=x", "where", "whole number"),
        ("where=count", "where", "is no condition"),
        ("cols=a", "cols", "it has `subject`, `count`"),
        ("order=a", "order", "no field `a`"),
        ("bucket=1h", "bucket", "no field of kind `timestamp`"),
        ("agg=sum(subject)", "agg", "`text`"),
        ("agg=sum", "agg", "`sum` is no aggregate"),
        ("by=count&tz=Mars", "tz", "`Mars`"),
        ("fill=zero", "fill", "needs `bucket`"),
    ] {
        let answer = fixture.get(&format!("{TABLE}?{query}")).await;
        answer.is_problem("LAN-0426", words);
        assert_eq!(answer.json()["parameter"], parameter, "{query}");
        assert_eq!(answer.status, 400);
    }
    for (body, code, words) in [
        (r#"{"where":[["count","=","1"]]}"#, "LAN-0426", "whole number"),
        (r#"{"agg":{"n":["sum","count","x"]}}"#, "LAN-0426", "at most one field"),
        (r#"{"agg":[1]}"#, "LAN-0408", "such as"),
        (r#"{"wher":[]}"#, "LAN-0408", "unknown field `wher`"),
        ("{", "LAN-0408", "the body is not as expected"),
    ] {
        fixture.post(QUERY, JSON, body).await.is_problem(code, words);
    }
    fixture.post("/v1/tables/counts/none/query", JSON, "{}").await.is_problem("LAN-0404", "`none`");
}

#[tokio::test]
async fn an_expensive_query_ends_at_its_limit() {
    let fixture = Fixture::with(|config| config.query.rows_scanned_max = 5);
    fixture.project(counts()).await;
    let body: String =
        (0..10).map(|i| event(&i.to_string(), "t", &format!("s{i}")) + "\n").collect();
    fixture.post("/v1/events", NDJSON, body).await.expect_ok();
    fixture.until(TABLE, |answer| answer.text.contains(r#""s9""#)).await;
    let answer = fixture.get(&format!("{TABLE}?agg=count()")).await;
    answer.is_problem("LAN-0427", "the limit is 5 (`query.rows_scanned_max`)");
    assert_eq!(answer.json()["setting"], "query.rows_scanned_max");
    let narrow = fixture.get(&format!("{TABLE}?agg=count()&to=s5")).await.expect_ok().json();
    assert_eq!(narrow["rows"], serde_json::json!([{"count": 5}]));
}

/// Starts a query that runs until the returned sender is dropped.
async fn occupied(fixture: &Fixture) -> std::sync::mpsc::Sender<()> {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (started, running) = oneshot::channel();
    let app = Arc::clone(&fixture.app);
    tokio::spawn(async move {
        app.query(move |_, _| {
            let _ = started.send(());
            let _ = released.recv();
            Ok(())
        })
        .await
    });
    running.await.unwrap();
    release
}

#[tokio::test]
async fn no_more_queries_wait_than_allowed() {
    let fixture = Fixture::with(|config| {
        config.query.threads = 1;
        config.query.waiting_max = 1;
    });
    let release = occupied(&fixture).await;
    let app = Arc::clone(&fixture.app);
    let waiting = tokio::spawn(async move { app.query(|_, _| Ok(7)).await });
    while fixture.app.permits.waiting_queries.available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    let refused = fixture.app.query(|_, _| Ok(8)).await.unwrap_err();
    assert_eq!(refused.code, "LAN-0429");
    drop(release);
    assert_eq!(waiting.await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn queries_beyond_the_queue_are_refused_and_reads_by_key_are_not() {
    let fixture = Fixture::with(|config| {
        config.query.threads = 1;
        config.query.waiting_max = 0;
    });
    fixture.project(counts()).await;
    let release = occupied(&fixture).await;
    let answer = fixture.get(&format!("{TABLE}?agg=count()")).await;
    answer.is_problem("LAN-0429", "`query.waiting_max`");
    assert_eq!(answer.status, 503);
    fixture.get(TABLE).await.expect_ok();
    drop(release);
    fixture.until(&format!("{TABLE}?agg=count()"), |answer| answer.status == 200).await;
}

#[tokio::test]
async fn a_query_is_cancelled_when_its_client_is_gone() {
    let fixture = Fixture::new();
    let (started, running) = oneshot::channel();
    let (ended, cancelled) = oneshot::channel();
    let app = Arc::clone(&fixture.app);
    let client = tokio::spawn(async move {
        app.query(move |_, cancel| {
            let _ = started.send(());
            while !cancel.is_cancelled() {
                std::thread::yield_now();
            }
            let _ = ended.send(());
            Ok(())
        })
        .await
    });
    running.await.unwrap();
    client.abort();
    tokio::time::timeout(PATIENCE, cancelled).await.expect("it is cancelled").unwrap();
}
