use super::*;
use crate::cloudevents::NDJSON;

#[tokio::test]
async fn a_projection_is_shown_paused_resumed_and_deleted() {
    let fixture = Fixture::new();
    assert_eq!(fixture.get("/v1/projections").await.json(), serde_json::json!({"projections": []}));
    let version = fixture.project(counts()).await.0;
    let list = fixture.get("/v1/projections").await.expect_ok().json();
    assert_eq!(list["projections"][0]["name"], "counts");
    let one = fixture.get("/v1/projections/counts").await.expect_ok().json();
    assert_eq!(one["active"], version.as_str());
    let path = format!("/v1/projections/counts/versions/{version}");
    assert_eq!(fixture.get(&path).await.expect_ok().json()["state"], "active");

    let paused = fixture.post("/v1/projections/counts/pause", "", "").await.expect_ok().json();
    assert_eq!(paused["paused"], true);
    let resumed = fixture.post("/v1/projections/counts/resume", "", "").await.expect_ok().json();
    assert_eq!(resumed["paused"], false);
    assert_eq!(
        fixture.get("/v1/projections/counts/logs").await.expect_ok().json()["logs"],
        serde_json::json!([])
    );

    let delete = async |path: &str| fixture.send(request(Method::DELETE, path, &[], "")).await;
    delete(&path).await.is_problem("LAN-0206", "serves readers");
    fixture
        .post("/v1/projections/counts/rollback", "", "")
        .await
        .is_problem("LAN-0205", "`counts`");
    assert_eq!(delete("/v1/projections/counts").await.status, StatusCode::NO_CONTENT);
    delete("/v1/projections/counts").await.is_problem("LAN-0201", "`counts`");
    fixture.get("/v1/projections/counts/versions/x").await.is_problem("LAN-0201", "`counts`");
}

#[tokio::test]
async fn parked_events_are_listed_retried_and_dropped() {
    let fixture = Fixture::new();
    fixture.project(counts()).await;
    let body = event("1", "t", "s") + "\n" + &event("2", "bad", "s") + "\n";
    fixture.post("/v1/events", NDJSON, body).await.expect_ok();
    let path = "/v1/projections/counts/parked";
    let parked = fixture.until(path, |a| a.json()["total"] == 1).await.json();
    assert_eq!(parked["parked"][0]["id"], "2");
    assert!(parked["parked"][0]["reason"].as_str().unwrap().contains("cannot count this"));
    let retry = async |body: &str| {
        fixture.post(&format!("{path}/retry"), "application/json", body.to_owned()).await
    };
    retry("{}").await.is_problem("LAN-0211", "which parked events");
    retry(r#"{"al":true}"#).await.is_problem("LAN-0408", "al");
    assert_eq!(retry(r#"{"all":true}"#).await.expect_ok().json()["failed"], 1);
    let drop =
        fixture.post(&format!("{path}/drop"), "", r#"{"offsets":[1]}"#).await.expect_ok().json();
    assert_eq!(drop["done"], 1);
    assert_eq!(fixture.get(path).await.json()["total"], 0);
}

#[tokio::test]
async fn what_is_no_plugin_is_refused_in_plain_words() {
    let fixture = Fixture::new();
    let upload = async |media: &str, body: &'static str| {
        fixture.post("/v1/projections/x/versions", media, body).await
    };
    upload("application/wasm", "#!/bin/sh").await.is_problem("LAN-0101", "not WebAssembly");
    upload("text/plain", "x").await.is_problem("LAN-0411", "`text/plain`");
    let form = "multipart/form-data; boundary=b";
    upload(
        form,
        "--b\r\nContent-Disposition: form-data; name=\"parameters\"\r\n\r\n{}\r\n--b--\r\n",
    )
    .await
    .is_problem("LAN-0408", "no part `plugin`");
    upload(form, "--b\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\n{}\r\n--b--\r\n")
        .await
        .is_problem("LAN-0408", "`other`");
    upload(form, "--b\r\nContent-Disposition: form-data; name=\"plugin\"\r\n\r\nabc\r\n--b--\r\n")
        .await
        .is_problem("LAN-0101", "not WebAssembly");
    let long = format!(
        "--b\r\nContent-Disposition: form-data; name=\"plugin\"\r\n\r\n{}\r\n--b--\r\n",
        "x".repeat(5 << 20)
    );
    fixture.post("/v1/versions", form, long).await.is_problem("LAN-0101", "not WebAssembly");
    fixture
        .post("/v1/versions?activat=1", "application/wasm", "")
        .await
        .is_problem("LAN-0403", "activat");
    fixture
        .post("/v1/plugins/check", "application/wasm", "text")
        .await
        .is_problem("LAN-0101", "not WebAssembly");
    assert_eq!(fixture.get("/v1/projections").await.json()["projections"], serde_json::json!([]));
}

#[tokio::test]
async fn foreign_hosts_sites_and_addresses_are_refused() {
    let fixture = Fixture::new();
    let foreign = Request::builder().uri("/v1/projections").header(HOST, "evil.example");
    fixture.send(foreign.body(Body::empty()).unwrap()).await.is_problem("LAN-0409", "evil.example");
    let site = [("origin", "http://evil.example")];
    fixture.send(request(Method::GET, "/", &site, "")).await.is_problem("LAN-0410", "evil.example");
    fixture.get("/v2/x").await.is_problem("LAN-0401", "`/v2/x`");
    fixture.post("/v1/projections", "", "").await.is_problem("LAN-0402", "POST");
    fixture.get("/v1/feed").await.is_problem("LAN-0412", "no WebSocket");
}

#[tokio::test]
async fn health_metrics_and_errors_are_told() {
    let fixture = Fixture::new();
    let version = fixture.project(counts()).await;
    assert_eq!(fixture.get("/healthz").await.expect_ok().text, "ok\n");
    assert_eq!(fixture.get("/readyz").await.expect_ok().json()["ready"], true);
    let status = fixture.get("/v1/status").await.expect_ok().json();
    assert_eq!(status["partitions"][0]["end"], 0);
    let metrics = fixture.get("/metrics").await.expect_ok().text;
    let line = format!("lantern_shard_next_offset{{projection=\"counts\",version=\"{version}\"");
    assert!(metrics.contains(&line), "{metrics}");
    assert!(metrics.contains("lantern_http_requests_total"), "{metrics}");
    let code = fixture.get("/v1/errors/LAN-0301").await.expect_ok().json();
    assert_eq!(code["title"], "not a CloudEvents event");
    fixture.get("/v1/errors/LAN-9999").await.is_problem("LAN-0401", "LAN-9999");

    fixture.app.stopping.cancel();
    let unready = fixture.get("/readyz").await;
    assert_eq!(unready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(unready.json()["reasons"][0].as_str().unwrap().contains("shutting down"));
    let refused = fixture.post("/v1/events", NDJSON, event("1", "t", "s")).await;
    refused.is_problem("LAN-0215", "shutting down");
    assert_eq!(refused.headers["retry-after"], "2");
}

#[tokio::test]
async fn the_description_names_every_route_and_schema() {
    let fixture = Fixture::new();
    let api = fixture.get("/v1/openapi.json").await.expect_ok().json();
    for path in [
        "/v1/events",
        "/v1/versions",
        "/v1/plugins/check",
        "/v1/projections",
        "/v1/projections/{name}",
        "/v1/projections/{name}/activate",
        "/v1/projections/{name}/logs",
        "/v1/projections/{name}/parked",
        "/v1/projections/{name}/parked/drop",
        "/v1/projections/{name}/parked/retry",
        "/v1/projections/{name}/pause",
        "/v1/projections/{name}/resume",
        "/v1/projections/{name}/rollback",
        "/v1/projections/{name}/verify",
        "/v1/projections/{name}/versions",
        "/v1/projections/{name}/versions/{id}",
        "/v1/projections/{name}/versions/{id}/activate",
        "/v1/projections/{name}/versions/{id}/rebuild",
        "/v1/tables/{projection}/{table}",
        "/v1/feed",
        "/v1/status",
        "/v1/errors/{code}",
        "/healthz",
        "/readyz",
        "/metrics",
    ] {
        assert!(api["paths"].get(path).is_some(), "{path} is not described");
    }
    // Every reference leads somewhere.
    let text = api.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(api["components"]["schemas"].get(name).is_some(), "{name} is not described");
    }
}

#[tokio::test]
async fn the_page_may_load_nothing_from_elsewhere() {
    let fixture = Fixture::new();
    for path in ["/", "/app.js", "/style.css", "/icon.svg"] {
        let page = fixture.get(path).await.expect_ok();
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
        for never in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "https://"]
        {
            assert!(!page.text.contains(never), "{path} has {never}");
        }
    }
}
