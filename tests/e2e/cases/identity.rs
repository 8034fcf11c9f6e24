//! Tests that tokens, ETags, cursors, offsets and ids of one history of the log are not mistaken
//! for those of another, for instance after a backup was restored.

use std::path::Path;

use lantern_tests::{Server, guest};
use reqwest::Method;
use serde_json::Value;

use super::session::{Shown, session};
use super::{Answer, folding, get, push, send};

const TABLE: &str = "revenue/by_product";

/// A change of a stopped server's folder, after which the server has another history.
type Change = fn(&Path);

fn order(product: &str, cents: u64) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{product}","source":"/s","type":"order.placed","time":"2026-03-01T12:00:00Z","data":{{"product":"{product}","quantity":1,"cents":{cents}}}}}"#
    )
}

async fn append(server: &Server, product: &str, cents: u64) {
    let answer = send(server, order(product, cents)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    server.caught_up("revenue").await.unwrap();
}

async fn revenue(server: &Server) {
    server.project("revenue", &guest("revenue"), "").await.unwrap();
}

/// The values that a client keeps between two connections.
struct Kept {
    shown: Shown,
    etag: String,
    cursor: String,
}

async fn visit(server: &Server) -> Kept {
    let shown = session(server, TABLE, None, |rows| rows.len() == 5).await;
    let path = format!("/v1/tables/{TABLE}");
    let etag = get(server, &path, &[]).await.header("etag").to_owned();
    assert!(!etag.is_empty());
    let page = get(server, &format!("{path}?limit=2"), &[]).await.json();
    Kept { shown, etag, cursor: page["next"].as_str().unwrap().to_owned() }
}

/// Checks that the server accepts nothing that the client kept from another history.
async fn is_another_history(server: &Server, kept: &Kept) {
    let path = format!("/v1/tables/{TABLE}");
    for number in 0..9 {
        append(server, &format!("second{number}"), 900).await;
        let again = get(server, &path, &[("if-none-match", &kept.etag)]).await;
        assert_eq!(again.status, 200, "the old ETag is accepted after {} events", number + 1);
    }
    let page = get(server, &format!("{path}?limit=2&cursor={}", kept.cursor), &[]).await;
    assert_eq!(page.status, 410, "{}", page.text);
    let table = server.rows(TABLE).await.unwrap();
    let all = table.len();
    let shown = session(server, TABLE, Some(&kept.shown), |rows| rows.len() >= all).await;
    assert!(!shown.resumed && shown.reset, "an old token was accepted");
    assert_eq!(shown.rows.into_iter().collect::<Vec<(String, Value)>>(), table);
}

async fn first_events(server: &Server) {
    for number in 0..5 {
        append(server, &format!("first{number}"), 100).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_etags_and_cursors_of_a_deleted_projection_are_refused_by_its_successor() {
    let server = Server::start(&[]).unwrap();
    revenue(&server).await;
    first_events(&server).await;
    let kept = visit(&server).await;
    let deleted = server
        .request(Method::DELETE, "/v1/projections/revenue", "application/json", Vec::new())
        .await
        .unwrap();
    assert!((200..300).contains(&deleted.0), "{deleted:?}");
    revenue(&server).await;
    is_another_history(&server, &kept).await;
}

/// Stops the server, changes its folder, starts it again, and checks that its history is another
/// one.
async fn after(change: Change) {
    let mut server = Server::start_over(None, &[]).unwrap();
    revenue(&server).await;
    first_events(&server).await;
    let kept = visit(&server).await;
    server.stop().unwrap();
    change(server.folder());
    server.restart().unwrap();
    revenue(&server).await;
    is_another_history(&server, &kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_etags_and_cursors_of_a_removed_folder_are_refused() {
    after(|folder| std::fs::remove_dir_all(folder).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_etags_and_cursors_are_refused_after_the_catalogue_was_moved_away() {
    let moved: Change = |folder| {
        std::fs::rename(folder.join("catalog.redb"), folder.join("moved")).unwrap();
    };
    after(moved).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_etags_and_cursors_are_refused_after_the_states_were_removed() {
    after(|folder| std::fs::remove_dir_all(folder.join("state")).unwrap()).await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_etags_and_cursors_are_refused_after_an_older_copy_was_restored() {
    let mut server = Server::start_over(None, &[]).unwrap();
    revenue(&server).await;
    append(&server, "first0", 100).await;
    server.stop().unwrap();
    let older = server.folder().with_file_name("older");
    copy(server.folder(), &older);
    server.restart().unwrap();
    for number in 1..5 {
        append(&server, &format!("first{number}"), 100).await;
    }
    let kept = visit(&server).await;
    server.stop().unwrap();
    std::fs::remove_dir_all(server.folder()).unwrap();
    std::fs::rename(&older, server.folder()).unwrap();
    server.restart().unwrap();
    is_another_history(&server, &kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_honoured_after_an_orderly_restart_and_after_a_kill() {
    let mut server = Server::start(&[]).unwrap();
    revenue(&server).await;
    first_events(&server).await;
    let mut kept = visit(&server).await.shown;
    for number in 0..2 {
        if number == 0 {
            server.stop().unwrap();
        } else {
            server.kill().unwrap();
        }
        server.restart().unwrap();
        append(&server, &format!("later{number}"), 100).await;
        kept = session(&server, TABLE, Some(&kept), |rows| rows.len() == 6 + number).await;
        assert!(kept.resumed && !kept.reset, "round {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_waits_for_the_offset_that_an_append_answered() {
    let server = Server::start(&[]).unwrap();
    revenue(&server).await;
    let other = r#"{"specversion":"1.0","id":"ID","source":"/s","type":"x.y","data":{}}"#;
    for number in 0..5 {
        send(&server, other.replace("ID", &format!("o{number}"))).await;
    }
    let placed = send(&server, order("p", 9_007_199_254_740_993)).await.json();
    let placed = &placed["events"][0];
    let (partition, offset) = (placed["partition"].to_string(), placed["offset"].to_string());
    let path = format!("/v1/tables/{TABLE}?min_offset={partition}:{offset}&wait=10s");
    let answer = get(&server, &path, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(answer.text.contains(r#""p":{"product":"p""#), "{}", answer.text);
    let replaced = get(&server, &format!("/v1/tables/{TABLE}?min_pos=6"), &[]).await;
    assert_eq!(replaced.status, 400, "{}", replaced.text);
}

fn of_tenant(tenant: &str, cents: u64) -> String {
    order("p", cents).replace("\"source\"", &format!("\"tenant\":\"{tenant}\",\"source\""))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_of_another_tenant_is_another_event() {
    let server = Server::start(&[]).unwrap();
    revenue(&server).await;
    for (tenant, cents) in [("b", 0), ("a", 999)] {
        let answer = send(&server, of_tenant(tenant, cents)).await.json();
        assert_eq!(
            (&answer["appended"], &answer["duplicates"]),
            (&1.into(), &0.into()),
            "{answer}"
        );
    }
    server.caught_up("revenue").await.unwrap();
    let rows = server.rows(TABLE).await.unwrap();
    assert_eq!((&rows[0].1["orders"], &rows[0].1["cents"]), (&2.into(), &999.into()), "{rows:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_identity_with_other_content_is_reported_as_such() {
    let server = Server::start(&[]).unwrap();
    send(&server, of_tenant("a", 1)).await;
    let same = send(&server, of_tenant("a", 1)).await.json();
    assert_eq!(same["duplicates"], 1, "{same}");
    assert!(differing(&same) == 0, "{same}");
    let other = send(&server, of_tenant("a", 2)).await.json();
    assert_eq!(other["duplicates"], 1, "{other}");
    assert_eq!(differing(&other), 1, "{other}");
    let metrics = server.text("/metrics").await.unwrap();
    let counted = metrics.lines().any(|l| l.contains("differ") && l.ends_with(" 1"));
    assert!(counted, "{metrics}");
}

/// Returns how many duplicates in an answer differ from the event that is in the log.
fn differing(answer: &Value) -> u64 {
    answer["differs"].as_u64().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_and_types_of_the_host_are_refused_from_outside() {
    let server = folding("emitter").await;
    let go_event = |id: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"go","data":{{"size":3}}}}"#
        )
    };
    send(&server, go_event("1")).await;
    let emitted = emitted(&server, 1).await;
    let id = emitted[0]["id"].as_str().unwrap();
    let source = emitted[0]["source"].as_str().unwrap();
    assert!(source.starts_with("lantern/"), "{emitted:?}");
    // The id that the second event will have, as another client could guess it.
    let next = id.strip_suffix("/0/0/0").map_or(id.to_owned(), |stem| format!("{stem}/0/3/1"));
    let refused: Answer = send(
        &server,
        format!(
            r#"{{"specversion":"1.0","id":"{next}","source":"{source}","type":"went","data":{{"text":"from outside"}}}}"#
        ),
    )
    .await;
    assert_eq!(refused.status, 400, "{}", refused.text);
    assert!(refused.text.contains(source), "{}", refused.text);
    send(&server, go_event("2")).await;
    let emitted = self::emitted(&server, 2).await;
    assert_eq!(emitted[1]["data"]["text"], "xxx", "{emitted:?}");
}

/// Waits until there are `count` events of type `went`, and returns them.
async fn emitted(server: &Server, count: usize) -> Vec<Value> {
    let started = std::time::Instant::now();
    loop {
        let log = server.log().await.unwrap();
        let events = log.into_iter().map(|logged| logged["event"].clone());
        let went: Vec<_> = events.filter(|event| event["type"] == "went").collect();
        if went.len() >= count {
            return went;
        }
        assert!(started.elapsed() < lantern_tests::PATIENCE / 4, "{went:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_guests_of_the_cases_answer_under_the_name_they_are_pushed_with() {
    let server = Server::start(&[]).unwrap();
    for name in ["docs", "subj"] {
        push(&server, name).await;
    }
    let list = server.get("/v1/projections").await.unwrap().to_string();
    assert!(list.contains("docs") && list.contains("subj"), "{list}");
}
