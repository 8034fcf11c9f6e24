//! Tests that a plugin that misbehaves affects no other projection.

use lantern_tests::{Server, guest};
use serde_json::Value;

use crate::line;

/// Starts a server with the test plugin `rogue` and with an honest projection that receives the
/// same events.
async fn rogue(parameters: &str) -> Server {
    let server = Server::start(&[]).unwrap();
    server.project("victim", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    server.project("rogue", &guest("rogue"), parameters).await.unwrap();
    server
}

/// Returns 200 probes of 5 subjects. Probe 120 contains `what`, which names the misbehaviour that
/// the guest shows at this probe.
fn probes(what: &str) -> String {
    let data = |n| if n == 120 { format!("{{\"do\":\"{what}\"}}") } else { "{}".into() };
    (0..200).map(|n| line(n, "probe.sent", &format!("s{}", n % 5), &data(n))).collect()
}

fn events_of(rows: &[(String, Value)]) -> Vec<u64> {
    rows.iter().map(|(_, row)| row["events"].as_u64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_guest_does_its_event_is_parked_and_everything_else_is_folded() {
    let server = rogue("{}").await;
    let pid = server.pid();
    let cases = [
        ("fail", "told to fail"),
        ("fail-unnamed", "not to say why"),
        ("panic", "told to panic"),
        ("loop", "fuel"),
        ("recurse", "trapped"),
        ("eat", "memory"),
        ("key", "limit"),
        ("rows", "wrote more than"),
    ];
    for (round, (what, reason)) in (1..).zip(cases) {
        let lines = probes(what).replace("\"id\":\"", &format!("\"id\":\"{what}"));
        server.events(lines).await.unwrap();
        server.caught_up("rogue").await.unwrap();
        let parked = server.get("/v1/projections/rogue/parked").await.unwrap();
        assert_eq!(parked["total"], round, "{what}: {parked:#}");
        let last = parked["parked"].as_array().unwrap().last().unwrap();
        let shown = last["reason"].as_str().unwrap();
        assert!(shown.contains(reason), "{what}: {shown}");
        assert_eq!(last["id"], format!("{what}120"));
        if ["panic", "loop", "recurse"].contains(&what) {
            assert!(last["backtrace"].as_str().unwrap().contains("rogue"), "{what}: {last:#}");
        }
        // All other events must be applied, both by the rogue and by the honest projection.
        let rows = server.rows("rogue/seen").await.unwrap();
        assert_eq!(events_of(&rows).iter().sum::<u64>(), round * 199, "{what}");
        server.caught_up("victim").await.unwrap();
        let rows = server.rows("victim/seen").await.unwrap();
        assert_eq!(events_of(&rows), vec![round * 40; 5], "{what}");
    }
    // The server must be the same process as before, and still be ready.
    assert_eq!(server.pid(), pid);
    assert_eq!(server.get("/readyz").await.unwrap()["ready"], true);

    // A version without the fault must apply all of the events.
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    let rows = server.rows("rogue/seen").await.unwrap();
    assert_eq!(events_of(&rows), vec![cases.len() as u64 * 40; 5]);
    let parked = server.get("/v1/projections/rogue/parked").await.unwrap();
    assert_eq!(parked["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_messages_is_cut_and_harms_nothing() {
    let server = rogue("{}").await;
    server.events(probes("log")).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    let logs = server.text("/v1/projections/rogue/logs?limit=1000").await.unwrap();
    assert!(logs.len() < 4 << 20, "{} bytes", logs.len());
    let rows = server.rows("victim/seen").await.unwrap();
    assert_eq!(events_of(&rows), vec![40; 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn parked_events_are_retried_in_order_and_dropped_by_request_only() {
    let server = rogue(r#"{"by_subject":true}"#).await;
    server.events(probes("fail")).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    // Event 120 of the subject `s0` fails, and the later events of `s0` wait. So 16 of the
    // subject's 40 events are parked.
    let parked = server.get("/v1/projections/rogue/parked?limit=100").await.unwrap();
    assert_eq!(parked["total"], 16);
    let kinds: Vec<_> =
        parked["parked"].as_array().unwrap().iter().map(|p| p["kind"].clone()).collect();
    assert_eq!(kinds[0], "event");
    assert!(kinds[1..].iter().all(|kind| kind == "waiting"));
    let post = |path: &'static str, body: &'static str| {
        server.request(reqwest::Method::POST, path, "application/json", body.into())
    };
    let (_, failed) = post("/v1/projections/rogue/parked/retry", r#"{"all":true}"#).await.unwrap();
    assert_eq!((&failed["failed"], &failed["waiting"]), (&1.into(), &15.into()), "{failed}");
    let head = r#"{"offsets":[120]}"#;
    let (status, _) = post("/v1/projections/rogue/parked/drop", head).await.unwrap();
    assert_eq!(status, 200);
    let (_, done) = post("/v1/projections/rogue/parked/retry", r#"{"all":true}"#).await.unwrap();
    assert_eq!(done["done"], 15, "{done}");
    let rows = server.rows("rogue/seen").await.unwrap();
    assert_eq!(events_of(&rows), [39, 40, 40, 40, 40]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_puts_the_event_into_the_tables_once_it_can_be_applied() {
    let server = rogue("{}").await;
    server.events(line(1, "probe.sent", "s", r#"{"do":"need"}"#)).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    let retry = async || {
        let path = "/v1/projections/rogue/parked/retry";
        let body = br#"{"all":true}"#.to_vec();
        server.request(reqwest::Method::POST, path, "application/json", body).await.unwrap().1
    };
    // A retry before the limit is raised fails: the event stays parked, and its number of attempts
    // increases.
    assert_eq!(retry().await["failed"], 1);
    let parked = server.get("/v1/projections/rogue/parked").await.unwrap();
    assert_eq!((&parked["total"], &parked["parked"][0]["attempts"]), (&1.into(), &2.into()));
    assert_eq!(server.rows("rogue/seen").await.unwrap(), []);
    server.events(line(2, "probe.sent", "needed", "{}")).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    assert_eq!(retry().await["done"], 1);
    let rows = server.rows("rogue/seen").await.unwrap();
    assert_eq!(events_of(&rows), [1, 1]);
    let parked = server.get("/v1/projections/rogue/parked").await.unwrap();
    assert_eq!(parked["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_scans_without_end_runs_out_of_fuel() {
    let server = Server::start(&["engine.fuel_event=20000000"]).unwrap();
    server.project("rogue", &guest("rogue"), "{}").await.unwrap();
    server.events(probes("scan")).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    let parked = server.get("/v1/projections/rogue/parked").await.unwrap();
    assert_eq!((&parked["total"], &parked["parked"][0]["id"]), (&1.into(), &"120".into()));
    let reason = parked["parked"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("fuel"), "{reason}");
    let rows = server.rows("rogue/seen").await.unwrap();
    assert_eq!(events_of(&rows), [39, 40, 40, 40, 40]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_never_ends_setup_is_refused() {
    let server = Server::start(&[]).unwrap();
    let (status, answer) =
        server.push("rogue", &guest("rogue"), r#"{"endless_setup":true}"#).await.unwrap();
    assert_eq!(status, 422, "{answer}");
    let detail = answer["detail"].as_str().unwrap();
    assert!(detail.contains("fuel"), "{detail}");
    assert_eq!(server.get("/v1/projections").await.unwrap()["projections"], serde_json::json!([]));
}
