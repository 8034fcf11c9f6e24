use super::*;
use crate::cloudevents::NDJSON;

const DIFF: &str = "/v1/tables/counts/by_subject/diff";

/// Like [`counts`], but each event counts twice.
fn doubled() -> Arc<dyn Plugin> {
    let manifest = counts().manifest().clone();
    Arc::new(NativePlugin::new(manifest, |batch, host, _: &mut ()| {
        for (index, event) in batch.events.iter().enumerate() {
            let cause = batch.cause_of_event(index);
            let before = host.get(TableId(0), event.subject).map_err(host_error)?;
            let before: Value =
                before.map_or(Value::Null, |row| serde_json::from_slice(&row).unwrap_or_default());
            let count = before["count"].as_u64().unwrap_or_default() + 2;
            let row = serde_json::json!({"subject": event.subject, "count": count});
            let row = row.to_string();
            host.put(cause, TableId(0), event.subject, row.as_bytes()).map_err(host_error)?;
        }
        Ok(())
    }))
}

/// Adds `doubled` as a version, but does not activate it.
async fn add_doubled(fixture: &Fixture) -> String {
    let engine = Arc::clone(&fixture.app.engine);
    let upload = Upload {
        activate: Activation::Never,
        check: false,
        ..Upload::new(doubled(), "11".repeat(32))
    };
    tokio::task::spawn_blocking(move || engine.upload(upload)).await.unwrap().unwrap().version
}

#[tokio::test]
async fn two_versions_are_compared_at_the_same_offsets() {
    let fixture = super::tables::filled().await;
    let other = add_doubled(&fixture).await;
    let path = format!("{DIFF}?right={other}&wait=20s");
    let diff = fixture.get(&path).await.expect_ok().json();
    assert_eq!(diff["changed"], 10, "{diff}");
    assert_eq!(
        (&diff["same"], &diff["added"], &diff["removed"]),
        (&0.into(), &0.into(), &0.into())
    );
    assert_eq!(diff["right"], other);
    let first = &diff["differences"][0];
    assert_eq!((&first["key"], &first["left"]["count"]), (&"s0".into(), &2.into()));
    assert_eq!(first["right"]["count"], 4);
    assert_eq!(diff["more"], false);
    let few = fixture.get(&format!("{path}&limit=3")).await.expect_ok().json();
    assert_eq!((few["differences"].as_array().unwrap().len(), &few["more"]), (3, &true.into()));
    assert_eq!(few["changed"], 10, "all are counted");
    let same = fixture.get(&format!("{path}&cols=subject")).await.expect_ok().json();
    assert_eq!((&same["same"], &same["changed"]), (&10.into(), &0.into()));
    let one = fixture.get(&format!("{path}&prefix=s3")).await.expect_ok().json();
    assert_eq!(one["changed"], 1);
    let own = diff["left"].as_str().unwrap();
    let own = fixture.get(&format!("{DIFF}?left={own}&right={own}")).await.expect_ok().json();
    assert_eq!((&own["same"], &own["changed"]), (&10.into(), &0.into()));
    // More events: the versions follow, and are compared at the new offsets.
    let body: String = (0..200).map(|n| event(&format!("more{n}"), "t", "s1") + "\n").collect();
    fixture.post("/v1/events", NDJSON, body).await.expect_ok();
    let now = format!("/v1/tables/counts/by_subject?key=s1&min_offset=0:{}&wait=20s", 210);
    fixture.get(&now).await.expect_ok();
    let diff = fixture.get(&path).await.expect_ok().json();
    assert!(diff["offsets"]["0"].as_u64() >= Some(211), "{diff}");
    let s1 = diff["differences"].as_array().unwrap().iter().find(|it| it["key"] == "s1").unwrap();
    assert_eq!((&s1["left"]["count"], &s1["right"]["count"]), (&201.into(), &402.into()));
}

#[tokio::test]
async fn wrong_comparisons_are_refused_with_the_reason() {
    let fixture = super::tables::filled().await;
    let check = async |path: &str, code: &str, words: &str| {
        fixture.get(path).await.is_problem(code, words);
    };
    let other = add_doubled(&fixture).await;
    check(DIFF, "LAN-0403", "right").await;
    check(&format!("{DIFF}?right=abc"), "LAN-0202", "`abc`").await;
    check(&format!("{DIFF}?right={other}&cols=subject,cnt&wait=20s"), "LAN-0403", "`cnt`").await;
    check(&format!("{DIFF}?right=abc&x=1"), "LAN-0403", "`x`").await;
    check("/v1/tables/none/x/diff?right=a", "LAN-0201", "`none`").await;
    check(&format!("/v1/tables/counts/x/diff?right={other}&wait=20s"), "LAN-0404", "`x`").await;
}

#[tokio::test]
async fn the_path_of_an_event_names_each_version_and_what_it_has_done() {
    let fixture = super::tables::filled().await;
    let path = fixture.get("/v1/events/0/10/path").await.expect_ok().json();
    assert_eq!(path["event"]["id"], "again", "{path}");
    assert_eq!(path["versions"][0]["projection"], "counts");
    assert_eq!(path["versions"][0]["outcome"], "applied");
    assert_eq!(path["versions"][0]["state"], "active");
    fixture.get("/v1/events/0/999/path").await.is_problem("LAN-0442", "999");
    fixture.get("/v1/events/7/0/path").await.is_problem("LAN-0321", "7");
    fixture.get("/v1/events/x/0/path").await.is_problem("LAN-0403", "x");
}

#[tokio::test]
async fn the_rows_that_an_event_has_changed_are_shown_before_and_after() {
    let fixture = super::tables::filled().await;
    let path = "/v1/events/0/10/changes?projection=counts";
    let answer = fixture.get(path).await.expect_ok().json();
    assert_eq!((&answer["complete"], &answer["applied"]), (&true.into(), &true.into()), "{answer}");
    assert_eq!(answer["changed"], answer["rows"].as_array().unwrap().len());
    let row = answer["rows"].as_array().unwrap().iter().find(|row| row["table"] == "by_subject");
    let row = row.unwrap_or_else(|| panic!("{answer}"));
    assert_eq!((&row["key"], &row["before"]["count"]), (&"s0".into(), &1.into()), "{answer}");
    assert_eq!(row["after"], serde_json::json!({"subject":"s0","count":2}));
    let first = fixture.get("/v1/events/0/3/changes?projection=counts").await.expect_ok().json();
    let new = first["rows"].as_array().unwrap().iter().find(|row| row["key"] == "s3").unwrap();
    assert_eq!((&new["before"], &new["after"]["count"]), (&Value::Null, &1.into()));
    let lines = fixture.get_as(path, NDJSON).await.expect_ok();
    let last: Value = serde_json::from_str(lines.text.lines().last().unwrap()).unwrap();
    assert_eq!(last["changes"], answer);
    let check = async |path: &str, code: &str, words: &str| {
        fixture.get(path).await.is_problem(code, words);
    };
    check("/v1/events/0/10/changes", "LAN-0403", "projection").await;
    check("/v1/events/0/999/changes?projection=counts", "LAN-0442", "999").await;
    check("/v1/events/7/0/changes?projection=counts", "LAN-0321", "7").await;
    check("/v1/events/0/1/changes?projection=none", "LAN-0201", "`none`").await;
    check("/v1/events/0/1/changes?projection=counts&version=abc", "LAN-0202", "`abc`").await;
    check(&format!("{path}&limit=0"), "LAN-0403", "`limit` is 0").await;
}

#[tokio::test]
async fn wrong_dry_runs_are_refused_with_the_reason() {
    let fixture = super::tables::filled().await;
    let check = async |query: &str, media: &str, code: &str, words: &str| {
        let path = format!("/v1/versions/dry-run{query}");
        fixture.post(&path, media, "no component").await.is_problem(code, words);
    };
    let wasm = "application/wasm";
    for events in ["0", "100001"] {
        check(&format!("?events={events}"), wasm, "LAN-0403", "1 to 100000").await;
    }
    check("?x=1", wasm, "LAN-0403", "`x`").await;
    check("", "text/html", "LAN-0411", "text/html").await;
    let broken = fixture.post("/v1/versions/dry-run", wasm, "no component").await;
    assert_eq!(broken.status, 422, "{broken:?}");
}
