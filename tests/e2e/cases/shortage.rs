//! Tests that a lack of memory on the machine is treated as a fault of the host, and parks no
//! event.

use lantern_tests::{Launch, Server, guest};

use super::send;

#[tokio::test(flavor = "multi_thread")]
async fn little_address_space_is_a_fault_that_ends_with_the_shortage() {
    let mut server = Server::start_over(None, &[]).unwrap();
    server.project("revenue", &guest("revenue"), "").await.unwrap();
    server.stop().unwrap();
    let launch = server.launched().clone();
    // With the default settings, the instance pool reserves more address space for one WebAssembly
    // memory than this limit allows.
    let limited = ["sh", "-c", "ulimit -v 6000000; exec \"$@\"", "sh"];
    let limited = limited.iter().map(|word| (*word).to_owned()).collect();
    server.restart_as(Launch { under: limited, grouped: true, ..launch.clone() }).unwrap();
    let order = r#"{"specversion":"1.0","id":"1","source":"/s","type":"order.placed","time":"2026-03-01T12:00:00Z","data":{"product":"p","quantity":1,"cents":9007199254740993}}"#;
    assert_eq!(send(&server, order).await.status, 200);
    let activity = |status: &serde_json::Value| {
        let shards = status["versions"][0]["shards"].as_array().cloned().unwrap_or_default();
        shards.first().map(|shard| shard["activity"].as_str().unwrap_or_default().to_owned())
    };
    let status = server
        .until("revenue", |status| {
            matches!(activity(status).as_deref(), Some("faulted" | "halted" | "idle"))
        })
        .await
        .unwrap();
    assert_ne!(activity(&status).as_deref(), Some("halted"), "{status:#}");
    if activity(&status).as_deref() == Some("faulted") {
        let reason = status.to_string();
        assert!(reason.contains("address space") || reason.contains("memory"), "{reason}");
    }
    server.kill().unwrap();
    server.restart_as(launch).unwrap();
    server.caught_up("revenue").await.unwrap();
    assert_eq!(server.get("/readyz").await.unwrap()["ready"], true);
    let rows = server.rows("revenue/by_product").await.unwrap();
    assert_eq!(rows[0].1["orders"], 1, "{rows:?}");
}
