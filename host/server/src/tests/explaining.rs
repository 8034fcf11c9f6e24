use super::*;
use crate::cloudevents::NDJSON;

const EXPLAIN: &str = "/v1/tables/counts/by_subject/explain";

#[tokio::test]
async fn a_row_is_explained_by_the_events_that_changed_it_newest_first() {
    let fixture = super::tables::filled().await;
    let answer = fixture.get(&format!("{EXPLAIN}?key=s0")).await.expect_ok().json();
    assert_eq!(answer["complete"], true, "{answer}");
    assert_eq!(answer["partitions"][0]["changes"], 2);
    assert_eq!(answer["partitions"][0]["agrees"], true);
    assert_eq!(answer["partitions"][0]["row"], serde_json::json!({"subject":"s0","count":2}));
    let changes = answer["changes"].as_array().unwrap();
    let ids: Vec<_> = changes.iter().map(|it| it["event"]["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["again", "0"]);
    assert_eq!(changes[0]["before"]["count"], 1);
    assert_eq!(changes[0]["after"]["count"], 2);
    assert_eq!((&changes[1]["before"], &changes[1]["cause"]), (&Value::Null, &"event".into()));
    assert_eq!(answer["commits"][0]["row"]["count"], 2, "{answer}");
    let newest = fixture.get(&format!("{EXPLAIN}?key=s0&limit=1")).await.expect_ok().json();
    assert_eq!(newest["changes"].as_array().unwrap().len(), 1);
    assert_eq!(newest["partitions"][0]["changes"], 2);
    let none = fixture.get(&format!("{EXPLAIN}?key=none")).await.expect_ok().json();
    assert_eq!((none["changes"].to_string(), &none["complete"]), ("[]".into(), &true.into()));
}

#[tokio::test]
async fn lines_tell_the_progress_and_end_with_the_same_explanation() {
    let fixture = super::tables::filled().await;
    let path = format!("{EXPLAIN}?key=s0");
    let mut whole = fixture.get(&path).await.expect_ok().json();
    let answer = fixture.get_as(&path, NDJSON).await.expect_ok();
    assert_eq!(answer.headers[CONTENT_TYPE], NDJSON);
    let lines: Vec<Value> =
        answer.text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["commit"], whole["commits"][0]);
    assert!(lines.iter().any(|line| line["progress"]["events"].as_u64() > Some(0)), "{lines:?}");
    whole["commits"] = serde_json::json!([]);
    assert_eq!(lines.last().unwrap()["explanation"], whole);
}

#[tokio::test]
async fn wrong_requests_for_an_explanation_are_refused_with_the_reason() {
    let fixture = super::tables::filled().await;
    let check = async |path: &str, code: &str, words: &str| {
        fixture.get(path).await.is_problem(code, words);
    };
    check(EXPLAIN, "LAN-0403", "key").await;
    check(&format!("{EXPLAIN}?key=a&limit=0"), "LAN-0403", "`limit` is 0").await;
    check(&format!("{EXPLAIN}?key=a&x=1"), "LAN-0403", "`x`").await;
    check(&format!("{EXPLAIN}?key=a&version=abc"), "LAN-0202", "`abc`").await;
    check("/v1/tables/nothing/x/explain?key=a", "LAN-0201", "`nothing`").await;
    check("/v1/tables/counts/x/explain?key=a", "LAN-0404", "`x`").await;
}

#[tokio::test]
async fn folds_for_requests_are_limited_and_end_with_their_client() {
    let fixture = super::tables::filled().await;
    let (replay, guard) = crate::jobs::replay::Replay::begin(&fixture.app).unwrap();
    let path = format!("{EXPLAIN}?key=s0");
    fixture.get(&path).await.is_problem("LAN-0440", "`replay.at_once_max`");
    // If the client disconnects, the body of the answer is dropped, and with it this guard.
    drop(guard);
    let ended = replay.run(|mut replay| Ok(replay.pace(1))).await.unwrap();
    assert_eq!(ended.unwrap_err(), "the client has disconnected");
    let (mut late, _guard) = crate::jobs::replay::Replay::begin(&fixture.app).unwrap();
    late.started -= Duration::from_secs(fixture.app.config.replay.time_s_max);
    let ended = late.run(|mut replay| Ok(replay.pace(1))).await.unwrap();
    assert!(ended.unwrap_err().contains("`replay.time_s_max`"));
    fixture.get(&path).await.expect_ok();
}

#[tokio::test]
async fn an_explanation_that_reaches_a_limit_names_it_and_shows_the_newest_commits() {
    let fixture = super::tables::filled_with(|config| config.replay.events_max = 1).await;
    let answer = fixture.get(&format!("{EXPLAIN}?key=s0")).await.expect_ok().json();
    assert_eq!(answer["complete"], false, "{answer}");
    assert!(answer["reason"].as_str().unwrap().contains("`replay.events_max`"), "{answer}");
    assert_eq!(answer["commits"][0]["row"]["count"], 2, "{answer}");
}
