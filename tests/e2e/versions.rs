//! Tests that versions fold in the background, become active in one step, and can be rolled back.

use lantern_tests::{Server, guest};
use reqwest::Method;

use crate::line;

async fn post(server: &Server, path: &str) -> u16 {
    let path = format!("/v1/projections/{path}");
    server.request(Method::POST, &path, "application/json", Vec::new()).await.unwrap().0
}

/// Two sets of parameters, which make two versions of the guest `rogue`. With both, the guest
/// behaves well and gives the same counts.
const ONE: &str = r#"{"fixed":true}"#;
const TWO: &str = r#"{"fixed":true,"by_subject":true}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_takes_over_whole_and_a_rollback_is_at_once() {
    let server = Server::start(&["engine.batch_events_max=50"]).unwrap();
    let lines: String =
        (0..20_000).map(|n| line(n, "probe.sent", &format!("s{}", n % 10), "{}")).collect();
    server.events(lines).await.unwrap();
    let first = server.project("rogue", &guest("rogue"), ONE).await.unwrap();
    let (status, second) = server.push("rogue", &guest("rogue"), TWO).await.unwrap();
    assert!(status < 300, "{second}");
    // Before and after the activation, readers must always see the whole table.
    loop {
        let status = server.get("/v1/projections/rogue").await.unwrap();
        let rows = server.rows("rogue/seen").await.unwrap();
        assert_eq!(rows.len(), 10);
        assert!(rows.iter().all(|(_, row)| row["events"] == 2_000));
        if status["active"] == second["version"] {
            break;
        }
    }
    assert_eq!(post(&server, "rogue/rollback").await, 200);
    let status = server.get("/v1/projections/rogue").await.unwrap();
    assert_eq!(status["active"], first["version"]);
    let active = format!("rogue/versions/{}", first["version"].as_str().unwrap());
    let path = format!("/v1/projections/{active}");
    let (refused, answer) =
        server.request(Method::DELETE, &path, "application/json", Vec::new()).await.unwrap();
    assert_eq!((refused, answer["code"].as_str()), (409, Some("LAN-0206")), "{answer}");
    let (gone, _) = server
        .request(Method::DELETE, "/v1/projections/rogue", "application/json", Vec::new())
        .await
        .unwrap();
    assert!(gone < 300);
    let (missing, answer) = server
        .request(Method::GET, "/v1/tables/rogue/seen", "application/json", Vec::new())
        .await
        .unwrap();
    assert_eq!(missing, 404, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backfill_that_is_killed_goes_on_where_it_was() {
    let mut server =
        Server::start(&["engine.batch_events_max=1", "engine.commit_ms=20", "engine.threads=1"])
            .unwrap();
    let lines: String =
        (0..20_000).map(|n| line(n, "probe.sent", &format!("s{}", n % 10), "{}")).collect();
    server.events(lines).await.unwrap();
    let (status, answer) = server.push("rogue", &guest("rogue"), ONE).await.unwrap();
    assert!(status < 300, "{answer}");
    let pos =
        |status: &serde_json::Value| status["versions"][0]["shards"][0]["commit"].as_u64().unwrap();
    let begun = server.until("rogue", |status| pos(status) > 2).await.unwrap();
    server.kill().unwrap();
    server.restart().unwrap();
    let after = server.get("/v1/projections/rogue").await.unwrap();
    assert!(pos(&after) >= pos(&begun), "{after:#}");
    assert!(after["versions"][0]["shards"][0]["next"].as_u64().unwrap() > 0);
    server.caught_up("rogue").await.unwrap();
    let rows = server.rows("rogue/seen").await.unwrap();
    assert!(rows.iter().all(|(_, row)| row["events"] == 2_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_projection_serves_what_it_has_and_goes_on_when_resumed() {
    let server = Server::start(&[]).unwrap();
    server.project("rogue", &guest("rogue"), ONE).await.unwrap();
    server.project("other", &guest("rogue"), ONE).await.unwrap();
    server.events(line(1, "probe.sent", "s", "{}")).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    assert_eq!(post(&server, "rogue/pause").await, 200);
    server.events(line(2, "probe.sent", "s", "{}")).await.unwrap();
    // By now the paused projection would have applied the event, too.
    server.caught_up("other").await.unwrap();
    let rows = server.rows("rogue/seen").await.unwrap();
    assert_eq!(rows[0].1["events"], 1);
    let status = server.get("/v1/projections/rogue").await.unwrap();
    assert_eq!(status["versions"][0]["activity"], "paused");
    assert_eq!(status["versions"][0]["shards"][0]["lag_events"], 1);
    assert_eq!(post(&server, "rogue/resume").await, 200);
    server.caught_up("rogue").await.unwrap();
    let rows = server.rows("rogue/seen").await.unwrap();
    assert_eq!(rows[0].1["events"], 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_folds_the_log_again_to_the_same_rows() {
    let server = Server::start(&[]).unwrap();
    let lines: String =
        (0..500).map(|n| line(n, "probe.sent", &format!("s{}", n % 10), "{}")).collect();
    server.events(lines).await.unwrap();
    let pushed = server.project("rogue", &guest("rogue"), ONE).await.unwrap();
    let before = server.lines("rogue/seen").await.unwrap();
    let epoch = server.get("/v1/projections/rogue").await.unwrap()["epoch"].clone();
    let version = pushed["version"].as_str().unwrap();
    assert_eq!(post(&server, &format!("rogue/versions/{version}/rebuild")).await, 200);
    let after = server.caught_up("rogue").await.unwrap();
    assert_ne!(after["epoch"], epoch, "commits of before mean nothing now");
    assert_eq!(server.lines("rogue/seen").await.unwrap(), before);
}
