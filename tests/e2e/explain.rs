//! Tests answers for which a real server folds the log again, such as the explanation of a row.

use lantern_tests::{Server, guest, run};
use serde_json::Value;

use crate::line;

/// The output of a command with `--json`, and the exit code of the command.
fn asked(server: &Server, words: &[&str]) -> (Value, i32) {
    let at = ["--server", server.url.as_str(), "--json"];
    let output = run(&[words, &at].concat()).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    let value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|e| panic!("{words:?}: {e}: {errors}"));
    (value, output.status.code().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_lists_every_event_that_changed_a_row_with_the_row_before_and_after() {
    let server = Server::start(&["engine.batch_events_max=200"]).unwrap();
    server.project("rogue", &guest("rogue"), r#"{"fixed":true,"by_subject":true}"#).await.unwrap();
    let mut random = crate::random();
    let subjects: Vec<u8> = (0..3_000).map(|_| random.u8(0..40)).collect();
    let lines: String = subjects
        .iter()
        .enumerate()
        .map(|(n, subject)| line(n, "probe.sent", &format!("s{subject}"), "{}"))
        .collect();
    server.events(lines).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    // The expected changes, from the events alone.
    let expected: Vec<(String, u64)> = subjects
        .iter()
        .enumerate()
        .filter(|(_, subject)| **subject == 7)
        .enumerate()
        .map(|(count, (n, _))| (n.to_string(), count as u64))
        .collect();
    let words = ["explain", "rogue/seen", "s7", "--limit", "1000"];
    let (answer, code) = asked(&server, &words);
    assert_eq!((code, &answer["complete"]), (0, &Value::Bool(true)), "{answer}");
    let changes = answer["changes"].as_array().unwrap();
    let found: Vec<(String, u64)> = changes
        .iter()
        .rev()
        .map(|change| {
            let before = change["before"]["events"].as_u64().unwrap_or_default();
            assert_eq!(change["after"]["events"], before + 1, "{change}");
            (change["event"]["id"].as_str().unwrap().to_owned(), before)
        })
        .collect();
    let partitions = answer["partitions"].as_array().unwrap();
    if partitions.len() == 1 {
        assert_eq!(found, expected);
    }
    let mut ids: Vec<_> = found.iter().map(|(id, _)| id.parse::<u64>().unwrap()).collect();
    ids.sort_unstable();
    let all: Vec<u64> = expected.iter().map(|(id, _)| id.parse().unwrap()).collect();
    assert_eq!(ids, all);
    assert!(partitions.iter().all(|partition| partition["agrees"] == true), "{answer}");
    // Without `--json` the output shows the newest change, with the field that it changed.
    let at = ["--server", server.url.as_str()];
    let text = run(&[&["explain", "rogue/seen", "s7", "--limit", "1"], &at[..]].concat()).unwrap();
    let text = String::from_utf8_lossy(&text.stdout).into_owned();
    let last = expected.len();
    assert!(text.contains(&format!("events: {} -> {last}", last - 1)), "{text}");
    let missing = run(&[&["explain", "rogue/none", "s7"], &at[..]].concat()).unwrap();
    assert_eq!(missing.status.code(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_that_reaches_its_limit_says_so_and_shows_the_newest_commits() {
    let server = Server::start(&["replay.events_max=100"]).unwrap();
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    for part in 0..3 {
        let lines: String =
            (0..500).map(|n| line(part * 500 + n, "probe.sent", "s1", "{}")).collect();
        server.events(lines).await.unwrap();
        server.caught_up("rogue").await.unwrap();
    }
    let (answer, code) = asked(&server, &["explain", "rogue/seen", "s1"]);
    assert_eq!((code, &answer["complete"]), (7, &Value::Bool(false)), "{answer}");
    assert!(answer["reason"].as_str().unwrap().contains("`replay.events_max`"), "{answer}");
    let rows = server.rows("rogue/seen").await.unwrap();
    assert_eq!(answer["commits"][0]["row"]["events"], rows[0].1["events"], "{answer}");
}

/// Appends `count` events of 10 subjects.
async fn fill(server: &Server, count: usize) {
    let lines: String =
        (0..count).map(|n| line(n, "probe.sent", &format!("s{}", n % 10), "{}")).collect();
    server.events(lines).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn diff_finds_exactly_the_rows_that_differ_between_two_versions() {
    let server = Server::start(&["upkeep.heartbeats=false"]).unwrap();
    fill(&server, 500).await;
    let good = r#"{"fixed":true}"#;
    server.project("rogue", &guest("rogue"), good).await.unwrap();
    // This version has the same rows, and parks events in another way.
    let same = r#"{"fixed":true,"by_subject":true}"#;
    let second = server.project("rogue", &guest("rogue"), same).await.unwrap();
    let second = second["version"].as_str().unwrap();
    let (diff, code) = asked(&server, &["table", "diff", "rogue/seen", "previous", "active"]);
    assert_eq!((code, &diff["same"], &diff["right"]), (0, &10.into(), &second.into()), "{diff}");
    // An event that fails in a version without `fixed`: its row lacks it there.
    server.events(line("f", "probe.sent", "s3", r#"{"do":"fail"}"#)).await.unwrap();
    let bad = r#"{"by_subject":false}"#;
    let (_, third) = server.push("rogue", &guest("rogue"), bad).await.unwrap();
    let third = third["version"].as_str().unwrap();
    let (diff, code) =
        asked(&server, &["table", "diff", "rogue/seen", "active", third, "--wait", "30s"]);
    assert_eq!((code, &diff["same"], &diff["changed"]), (1, &9.into(), &1.into()), "{diff}");
    let row = &diff["differences"][0];
    assert_eq!(row["key"], "s3");
    assert_eq!((&row["left"]["events"], &row["right"]["events"]), (&51.into(), &50.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn path_shows_what_each_projection_has_done_with_an_event() {
    let server = Server::start(&["upkeep.heartbeats=false"]).unwrap();
    server.project("rogue", &guest("rogue"), "{}").await.unwrap();
    server.events(line("f", "probe.sent", "s3", r#"{"do":"fail"}"#)).await.unwrap();
    server.events(line("o", "other.sent", "s3", "{}")).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    let outcome = |offset: &str| {
        let (path, code) = asked(&server, &["events", "path", offset]);
        assert_eq!(code, 0, "{path}");
        path["versions"][0].clone()
    };
    let parked = outcome("0:0");
    assert_eq!((&parked["outcome"], &parked["attempts"]), (&"parked".into(), &1.into()));
    assert!(!parked["reason"].as_str().unwrap().is_empty(), "{parked}");
    let skipped = outcome("0:1");
    assert_eq!(skipped["outcome"], "skipped", "{skipped}");
    let at = ["--server", server.url.as_str()];
    let missing = run(&[&["events", "path", "0:99"], &at[..]].concat()).unwrap();
    assert_eq!(missing.status.code(), Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_what_a_version_would_write_and_stores_nothing() {
    let server = Server::start(&["upkeep.heartbeats=false"]).unwrap();
    server.project("rogue", &guest("rogue"), r#"{"fixed":true}"#).await.unwrap();
    fill(&server, 400).await;
    server.events(line("f", "probe.sent", "s3", r#"{"do":"fail"}"#)).await.unwrap();
    server.caught_up("rogue").await.unwrap();
    let before = server.get("/v1/projections/rogue").await.unwrap();
    let wasm = guest("rogue");
    let push = ["plugin", "push", wasm.to_str().unwrap(), "--name", "rogue", "--dry-run"];
    let (dry, code) = asked(&server, &[&push[..], &["--events", "101"]].concat());
    // This version fails on the last event, which the active one applies.
    assert_eq!((code, &dry["new"]["parked"]), (1, &1.into()), "{dry}");
    assert_eq!(dry["new"]["first_parked"][0]["id"], "f");
    assert_eq!((&dry["new"]["applied"], &dry["active"]["applied"]), (&100.into(), &101.into()));
    assert_eq!((&dry["events"], &dry["sample"][0]["to"]), (&101.into(), &401.into()));
    let table = &dry["tables"][0];
    assert_eq!((&table["same"], &table["changed"]), (&9.into(), &1.into()), "{table}");
    let row = &table["differences"][0];
    assert_eq!((&row["left"]["events"], &row["right"]["events"]), (&11.into(), &10.into()));
    let after = server.get("/v1/projections/rogue").await.unwrap();
    assert_eq!(after["versions"].as_array().unwrap().len(), 1);
    assert_eq!(after["active"], before["active"]);
    // A version with the same rows: it only parks differently.
    let same = r#"{"fixed":true,"by_subject":true}"#;
    let (clean, code) = asked(&server, &[&push[..], &["--parameters", same]].concat());
    assert_eq!((code, &clean["tables"][0]["same"]), (0, &10.into()), "{clean}");
    // A dry run must refuse everything that an upload refuses.
    let at = ["--server", server.url.as_str(), "--json"];
    let cheat = r#"{"cheat_from":0}"#;
    let refused = run(&[&push[..], &["--parameters", cheat], &at[..]].concat()).unwrap();
    let error = String::from_utf8_lossy(&refused.stderr);
    assert!(error.contains("LAN-0208"), "{error}");
}
