//! What an operator sees.

use lantern_tests::{Server, guest};

use crate::line;

#[tokio::test(flavor = "multi_thread")]
async fn metrics_move_and_a_halted_projection_makes_the_server_not_ready() {
    let server = Server::start(&["engine.parked_in_a_row_max=3"]).unwrap();
    server.project("rogue", &guest("rogue"), "{}").await.unwrap();
    let lines: String = (0..3).map(|n| line(n, "probe.sent", "s", "{}")).collect();
    server.events(lines).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    let metrics = server.text("/metrics").await.unwrap();
    for name in [
        "lantern_log_events_total 3",
        "lantern_engine_commits_total{projection=\"rogue\"}",
        "lantern_shard_lag_events{",
        "lantern_shard_lag_seconds{",
        "lantern_shard_parked{",
        "lantern_shard_position{",
        "lantern_shard_fuel",
        "lantern_shard_apply_seconds",
    ] {
        assert!(metrics.contains(name), "no `{name}` in {metrics}");
    }
    assert_eq!(server.get("/readyz").await.unwrap()["ready"], true);
    let lines: String = (10..20).map(|n| line(n, "probe.sent", "s", r#"{"do":"fail"}"#)).collect();
    server.events(lines).await.unwrap();
    server.until("rogue", |s| s["versions"][0]["activity"] == "halted").await.unwrap();
    let (status, answer) = server
        .request(reqwest::Method::GET, "/readyz", "application/json", Vec::new())
        .await
        .unwrap();
    assert_eq!(status, 503);
    assert!(answer.to_string().contains("rogue"), "{answer}");
    assert!(!server.text("/healthz").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_interface_describes_itself() {
    let server = Server::start(&[]).unwrap();
    let api = server.get("/v1/openapi.json").await.unwrap();
    for path in ["/v1/events", "/v1/projections", "/v1/tables/{projection}/{table}"] {
        assert!(api["paths"][path].is_object(), "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_other_sites_are_refused() {
    let server = Server::start(&[]).unwrap();
    let http = reqwest::Client::new();
    let url = format!("{}/v1/projections", server.url);
    let foreign_host = http.get(&url).header("host", "evil.example").send().await.unwrap();
    assert_eq!(foreign_host.status().as_u16(), 403);
    let foreign_origin =
        http.get(&url).header("origin", "http://evil.example").send().await.unwrap();
    assert_eq!(foreign_origin.status().as_u16(), 403);
}
