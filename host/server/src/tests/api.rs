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
    delete(&path).await.is_problem("LAN-0206", "activate another version first");
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
    retry("{}").await.is_problem("LAN-0211", "no parked events are selected");
    retry(r#"{"al":true}"#).await.is_problem("LAN-0408", "al");
    assert_eq!(retry(r#"{"all":true}"#).await.expect_ok().json()["failed"], 1);
    let drop =
        fixture.post(&format!("{path}/drop"), "", r#"{"offsets":[1]}"#).await.expect_ok().json();
    assert_eq!(drop["done"], 1);
    assert_eq!(fixture.get(path).await.json()["total"], 0);
}

#[tokio::test]
async fn files_that_are_no_plugin_are_refused_in_plain_words() {
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
    .is_problem("LAN-0408", "neither a part `plugin`");
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
    let refused = fixture.get("/v1/feed").await;
    refused.is_problem("LAN-0412", "does not ask for a WebSocket");
    assert_eq!(refused.headers["upgrade"], "websocket");
    let refused = fixture.post("/v1/status", "", "").await;
    assert_eq!(refused.headers["allow"], "GET,HEAD");
}

#[tokio::test]
async fn a_handshake_that_is_wrong_is_refused_as_rfc_6455_has_it() {
    let fixture = Fixture::new();
    let check = async |version: &str, keys: &[&str], protocol: &str, status: u16, code: &str| {
        let mut headers = vec![
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", version),
            ("sec-websocket-protocol", protocol),
        ];
        headers.extend(keys.iter().map(|key| ("sec-websocket-key", *key)));
        let answer = fixture.send(request(Method::GET, "/v1/feed", &headers, "")).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        answer.is_problem(code, "");
        for (name, value) in
            [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "13")]
        {
            let named = answer.headers.get(name).is_some_and(|found| found == value);
            assert_eq!(named, status == 426, "{name}: {answer:?}");
        }
    };
    let key = "AAAAAAAAAAAAAAAAAAAAAA==";
    check("8", &[key], "lantern.v1.json", 426, "LAN-0412").await;
    check("13", &["short"], "lantern.v1.json", 400, "LAN-0418").await;
    check("13", &[], "lantern.v1.json", 400, "LAN-0418").await;
    check("13", &[key, key], "lantern.v1.json", 400, "LAN-0418").await;
    check("13", &[key], "other", 400, "LAN-0418").await;
}

#[tokio::test]
async fn a_page_that_is_configured_may_read_every_answer_and_others_none() {
    let fixture = Fixture::with(|config| config.http.origins = vec!["https://dash.example".into()]);
    let page = ("origin", "https://dash.example");
    for (method, path, status) in [
        (Method::GET, "/v1/status", 200),
        (Method::GET, "/v1/nowhere", 404),
        (Method::PUT, "/v1/status", 405),
        (Method::POST, "/v1/events", 415),
        (Method::GET, "/v1/feed", 426),
    ] {
        let answer = fixture.send(request(method, path, &[page], "")).await;
        assert_eq!(answer.status.as_u16(), status, "{answer:?}");
        assert_eq!(answer.headers["access-control-allow-origin"], page.1);
        assert_eq!(answer.headers["access-control-expose-headers"], "*");
        assert_eq!(answer.headers["vary"], "Origin");
    }
    let asked = [
        page,
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "content-type, ce-id"),
    ];
    let preflight = fixture.send(request(Method::OPTIONS, "/v1/events", &asked, "")).await;
    assert_eq!(preflight.status, StatusCode::NO_CONTENT);
    assert_eq!(preflight.headers["access-control-allow-origin"], page.1);
    let allowed = preflight.headers["access-control-allow-methods"].to_str().unwrap();
    let api = fixture.get("/v1/openapi.json").await.expect_ok().json();
    for (path, item) in api["paths"].as_object().unwrap() {
        for method in ["get", "head", "post", "put", "patch", "delete"] {
            let allows = allowed.split(", ").any(|name| name.eq_ignore_ascii_case(method));
            assert!(item.get(method).is_none() || allows, "{path} has {method}: {allowed}");
        }
    }
    assert_eq!(preflight.headers["access-control-allow-headers"], "content-type, ce-id");
    assert!(preflight.headers.contains_key("access-control-max-age"));

    let foreign = [("origin", "https://evil.example"), asked[1]];
    let refused = fixture.send(request(Method::OPTIONS, "/v1/events", &foreign, "")).await;
    refused.is_problem("LAN-0410", "evil.example");
    assert!(!refused.headers.contains_key("access-control-allow-origin"));
    let answer = fixture.get("/v1/status").await.expect_ok();
    assert_eq!(answer.headers["vary"], "Origin");
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
}

#[tokio::test]
async fn options_names_the_methods_and_agrees_to_be_a_web_hook() {
    let fixture = Fixture::new();
    let plain = fixture.send(request(Method::OPTIONS, "/v1/events", &[], "")).await;
    assert_eq!((plain.status, plain.text.as_str()), (StatusCode::NO_CONTENT, ""));
    assert!(plain.headers["allow"].to_str().unwrap().contains("POST"));
    assert!(!plain.headers.contains_key("webhook-allowed-origin"));
    let asked = [("webhook-request-origin", "emitter.example"), ("webhook-request-rate", "120")];
    let agreed = fixture.send(request(Method::OPTIONS, "/v1/events", &asked, "")).await;
    assert_eq!(agreed.status, StatusCode::OK);
    assert_eq!(agreed.headers["webhook-allowed-origin"], "emitter.example");
    assert_eq!(agreed.headers["webhook-allowed-rate"], "*");
    assert!(agreed.headers["allow"].to_str().unwrap().contains("POST"));
    let other = fixture.send(request(Method::OPTIONS, "/v1/status", &asked, "")).await;
    assert!(!other.headers.contains_key("webhook-allowed-origin"));
    fixture
        .send(request(Method::OPTIONS, "/v1/nowhere", &[], ""))
        .await
        .is_problem("LAN-0401", "nowhere");
}

#[tokio::test]
async fn health_metrics_and_errors_are_returned() {
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

    fixture.app.tasks.stopping.cancel();
    let unready = fixture.get("/readyz").await;
    assert_eq!(unready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(unready.json()["reasons"][0].as_str().unwrap().contains("shutting down"));
    let refused = fixture.post("/v1/events", NDJSON, event("1", "t", "s")).await;
    refused.is_problem("LAN-0215", "shutting down");
    assert_eq!(refused.headers["retry-after"], "2");
}

/// Routes that the OpenAPI document must describe.
const ROUTES: [&str; 30] = [
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
    "/v1/queries",
    "/v1/queries/{name}",
    "/v1/queries/{name}/definition",
    "/v1/tables/{projection}/{table}",
    "/v1/feed",
    "/v1/feed/sse",
    "/v1/status",
    "/v1/errors/{code}",
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/dead-letters/resend",
];

#[tokio::test]
async fn the_description_names_every_route_and_schema() {
    let fixture = Fixture::new();
    let api = fixture.get("/v1/openapi.json").await.expect_ok().json();
    for path in ROUTES {
        assert!(api["paths"].get(path).is_some(), "{path} is not described");
    }
    let mut ids = std::collections::BTreeSet::new();
    for (path, item) in api["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap().to_owned();
            assert!(ids.insert(id.clone()), "{id} names two operations");
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let problem = answer["content"].get(crate::PROBLEM).is_some();
                let own = path == "/readyz" && status == "503";
                let expected = status.starts_with(['4', '5']) && !own;
                assert_eq!(problem, expected, "{method} {path}: {status}");
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let (name, schema) = (&parameter["name"], &parameter["schema"]);
                assert!(!schema.to_string().contains("null"), "{path} {name}: {schema}");
                assert!(
                    name != "limit" || schema["maximum"].is_number(),
                    "{path} {name}: {schema}"
                );
            }
        }
    }
    let media = |path: &str, method: &str, of: &str| {
        let content = api["paths"][path][method].pointer(of).unwrap().as_object().unwrap();
        content.keys().cloned().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        media("/v1/tables/{projection}/{table}", "get", "/responses/200/content"),
        "application/json application/vnd.apache.arrow.stream application/vnd.apache.parquet application/x-ndjson text/csv text/plain"
    );
    assert_eq!(
        media("/v1/events", "post", "/requestBody/content"),
        "application/cloudevents+json application/cloudevents-batch+json application/x-ndjson"
    );
    // Every reference in the document must resolve.
    let text = api.to_string();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(api["components"]["schemas"].get(name).is_some(), "{name} is not described");
    }
}

#[tokio::test]
async fn the_page_may_load_nothing_from_elsewhere() {
    let fixture = Fixture::new();
    let index = fixture.get("/").await.expect_ok().text;
    // A script or an event handler within the HTML would need a weaker content security policy.
    assert!(!index.contains("<script>") && !index.contains(" onload="), "{index}");
    let mut paths = vec!["/"];
    for attribute in ["src=\"", "href=\""] {
        paths.extend(index.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()));
    }
    for path in paths {
        assert!(path.starts_with('/') && !path.starts_with("//"), "{path}");
        let page = fixture.get(path).await.expect_ok();
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'"), "{policy}");
        assert_eq!(page.headers["x-content-type-options"], "nosniff");
    }
    // Text from projections must never be inserted as HTML.
    let mut folders = vec![concat!(env!("CARGO_MANIFEST_DIR"), "/../../web/src").into()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir::<std::path::PathBuf>(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            for never in [
                "nnerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "https://",
            ] {
                assert!(!text.contains(never), "{} has {never}", path.display());
            }
            files += 1;
        }
    }
    assert!(files > 10, "{files} sources");
}

#[tokio::test]
async fn the_settings_of_the_server_are_listed_with_their_defaults() {
    let fixture = Fixture::with(|config| config.http.queries_max = 5);
    let answer = fixture.get("/v1/settings").await.expect_ok().json();
    let settings = answer["settings"].as_array().unwrap();
    let setting = settings.iter().find(|setting| setting["key"] == "http.queries_max").unwrap();
    let expected = serde_json::json!(
        {"key": "http.queries_max", "value": 5, "default": 16, "changed": true}
    );
    assert_eq!(*setting, expected);
}

#[tokio::test]
async fn the_clients_of_the_feed_are_listed_up_to_a_limit() {
    let fixture = Fixture::new();
    assert_eq!(fixture.get("/v1/feed/clients").await.text, "{\"open\":0,\"clients\":[]}");
    fixture.get("/v1/feed/clients?limit=0").await.is_problem("LAN-0403", "`limit`");
}
