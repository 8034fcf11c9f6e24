//! The same log gives the same bytes, and a plugin that cheats is refused.

use lantern_tests::{Server, guest};

use crate::line;

#[tokio::test(flavor = "multi_thread")]
async fn tables_are_byte_identical_whatever_the_batch_sizes_and_restarts() {
    let shop = lantern_cli::generate::Shop::new(lantern_cli::generate::Options {
        events: 5_000,
        ..lantern_cli::generate::Options::default()
    });
    let mut lines = Vec::new();
    (0..5_000).for_each(|index| shop.write_line(index, &mut lines));
    let mut first: Option<Vec<String>> = None;
    for batch in [1, 7, 1_000, 16_384] {
        let setting = format!("engine.batch_events_max={batch}");
        let mut server = Server::start(&[&setting, "engine.commit_ms=50"]).unwrap();
        server.events(lines.clone()).await.unwrap();
        for name in ["revenue", "funnel"] {
            let (status, answer) = server.push(name, &guest(name), "").await.unwrap();
            assert!(status < 300, "{answer}");
        }
        // In the middle of catching up, or just after it.
        server.kill().unwrap();
        server.restart().unwrap();
        let mut tables = Vec::new();
        for name in ["revenue", "funnel"] {
            let status = server.caught_up(name).await.unwrap();
            for table in status["versions"][0]["tables"].as_array().unwrap() {
                if table["public"] == true {
                    let table = format!("{name}/{}", table["name"].as_str().unwrap());
                    let path = format!("/v1/tables/{table}?limit=1000");
                    let page = server.get(&path).await.unwrap();
                    tables.push(format!("{table}: {}", page["rows"]));
                }
            }
        }
        let expected = first.get_or_insert_with(|| tables.clone());
        assert_eq!(tables, *expected, "batches of {batch}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plugin_that_keeps_state_in_memory_is_refused_with_the_row_that_differs() {
    let server = Server::start(&[]).unwrap();
    let lines: String =
        (0..50).map(|n| line(n, "probe.sent", &format!("s{}", n % 3), "{}")).collect();
    server.events(lines).await.unwrap();
    let (status, answer) =
        server.push("rogue", &guest("rogue"), r#"{"cheat":true}"#).await.unwrap();
    assert_eq!(status, 422, "{answer}");
    assert_eq!(answer["code"], "LAN-0208");
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains("table `seen`") && detail.contains("key `s"), "{detail}");
    assert!(detail.contains(r#""calls":"#), "{detail}");
    assert_eq!(server.get("/v1/projections").await.unwrap()["projections"], serde_json::json!([]));
}
