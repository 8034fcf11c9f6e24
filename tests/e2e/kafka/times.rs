//! Tests event times that producers choose: the times of one producer must not make the events of
//! other producers late.

use lantern_tests::{guest, kafka};

use super::{no_kafka, serve};
use crate::line_at;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_the_year_9998_makes_no_other_event_late() {
    if no_kafka() {
        return;
    }
    for stamped_by in ["LogAppendTime", "CreateTime"] {
        let topic = kafka::fresh_name("times");
        let setting = format!("message.timestamp.type={stamped_by}");
        kafka::create_topic(kafka::shared(), &topic, 1, &[&setting, "retention.ms=-1"]).unwrap();
        let server = serve(&topic, &["upkeep.heartbeats=false"]);
        let parameters = r#"{"type":"page.viewed"}"#;
        server.project("rate-alerts", &guest("rate-alerts"), parameters).await.unwrap();
        let view = |ms, id: &str| line_at(ms, id, "page.viewed", "u1", r#"{"user":"u1"}"#);
        let far = view(500, "far").replace("2026-01-01", "9998-01-01");
        let lines = [view(0, "1"), far, view(1_000, "3"), view(2_000, "4")].concat();
        let address = kafka::shared().address();
        kafka::produce(&address, &topic, "none", &lines).unwrap();
        let folded = |status: &serde_json::Value| status["versions"][0]["shards"][0]["next"] == 4;
        let status = server.until("rate-alerts", folded).await.unwrap();
        let shard = &status["versions"][0]["shards"][0];
        assert_eq!(shard["late"], 0, "{stamped_by}: {shard}");
        // The number is the time 2027-01-01.
        assert!(shard["watermark_us"].as_i64() < Some(1_798_761_600_000_000), "{shard}");
        if stamped_by == "LogAppendTime" {
            assert_eq!((&shard["ahead"], &shard["ahead_last"]["id"]), (&1.into(), &"far".into()));
        }
        // The server must warn the operator of topics that trust the clocks of their producers.
        let ready = server.get("/readyz").await.unwrap();
        let warned = ready["warnings"].to_string().contains(&topic);
        assert_eq!(warned, stamped_by == "CreateTime", "{ready}");
        assert_eq!(ready["ready"], true, "{ready}");
    }
}
