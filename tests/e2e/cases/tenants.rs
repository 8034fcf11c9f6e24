//! Tests batches with events of several tenants: the host must judge each event by its own tenant.

use super::{folding, lantern, parked, verified};

const NOTES: [&str; 2] = [
    r#"{"specversion":"1.0","id":"1","source":"/s","type":"note.saved","tenant":"a","time":"2026-03-01T12:00:00Z","data":{"owner":"a","key":"one"}}"#,
    r#"{"specversion":"1.0","id":"2","source":"/s","type":"note.saved","tenant":"b","time":"2026-03-01T12:00:00Z","data":{"owner":"a","key":"two"}}"#,
];

async fn a_row_of_another_tenant_is_refused(together: bool) {
    let server = folding("tenants").await;
    if together {
        server.events(NOTES.join("\n")).await.unwrap();
    } else {
        for note in NOTES {
            server.events(note).await.unwrap();
            server.caught_up("tenants").await.unwrap();
        }
    }
    server.caught_up("tenants").await.unwrap();
    let rows = server.lines("tenants/notes").await.unwrap();
    assert_eq!(rows.lines().count(), 1, "{rows}");
    assert!(rows.contains("one"), "{rows}");
    let parked = parked(&server, "tenants").await;
    assert_eq!(parked.len(), 1, "{parked:?}");
    assert_eq!((parked[0].0, parked[0].2.as_str()), (1, "2"), "{parked:?}");
    verified(&server, "tenants");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_writes_a_row_of_another_tenant_of_its_batch_is_parked() {
    a_row_of_another_tenant_is_refused(true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_writes_a_row_of_another_tenant_is_parked_alone_too() {
    a_row_of_another_tenant_is_refused(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_subject_of_one_tenant_holds_back_no_other_tenants_subject() {
    let server = folding("subj").await;
    let line = |id: u8, tenant: &str, data: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"acct.x","tenant":"{tenant}","subject":"u1","time":"2026-03-01T12:00:00Z","data":{data}}}"#
        )
    };
    let lines = [line(1, "b", r#"{"bad":true}"#), line(2, "a", "{}"), line(3, "b", "{}")];
    server.events(lines.join("\n")).await.unwrap();
    server.caught_up("subj").await.unwrap();
    let rows = server.rows("subj/sums").await.unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0].0.as_str(), &rows[0].1["events"]), ("a/u1", &1.into()), "{rows:?}");
    let parked = parked(&server, "subj").await;
    let ids: Vec<_> = parked.iter().map(|(_, kind, id, _)| (kind.as_str(), id.as_str())).collect();
    assert_eq!(ids, [("event", "1"), ("waiting", "3")]);
    // The command accepts a tenant, and the list shows that tenant.
    let (_, listed, _) = lantern(&server, &["--json", "parked", "list", "subj"]);
    assert!(listed.contains(r#""tenant":"b""#), "{listed}");
    let drop = ["parked", "drop", "subj", "--subject", "u1", "--yes", "--tenant"];
    let (code, output, errors) = lantern(&server, &[drop.as_slice(), &["a"]].concat());
    assert_eq!(self::parked(&server, "subj").await.len(), 2, "{code} {output}{errors}");
    let (code, output, errors) = lantern(&server, &[drop.as_slice(), &["b"]].concat());
    assert_eq!(code, 0, "{output}{errors}");
    assert_eq!(self::parked(&server, "subj").await, []);
    verified(&server, "subj");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_all_tenants_are_returned_with_tenant_and_key_apart() {
    let wit = std::fs::read_to_string(lantern_tests::root().join("wit/projection.wit")).unwrap();
    let wit = wit.split_whitespace().filter(|word| *word != "///").collect::<Vec<_>>().join(" ");
    assert!(wit.contains("This release shows all rows to all readers"), "the contract is silent");
    let server = folding("tenants").await;
    let notes = [NOTES[0].to_owned(), NOTES[1].replace(r#""owner":"a""#, r#""owner":"b""#)];
    server.events(notes.join("\n")).await.unwrap();
    server.caught_up("tenants").await.unwrap();
    let path = "/v1/tables/tenants/notes";
    let csv = super::get(&server, path, &[("accept", "text/csv")]).await;
    let mut lines = csv.text.lines();
    assert_eq!(lines.next(), Some("tenant,key,saved"), "{}", csv.text);
    assert_eq!(lines.collect::<Vec<_>>(), ["a,one,1", "b,two,1"]);
    for media in ["application/json", "application/x-ndjson"] {
        let answer = super::get(&server, path, &[("accept", media)]).await;
        assert!(!answer.text.contains("\\u0000"), "{media}: {}", answer.text);
    }
}
