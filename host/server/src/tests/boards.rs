use super::*;

const PATH: &str = "/v1/boards/sales";
/// White space, the order of members, and members that the server does not know are kept.
const SALES: &str = "{ \"title\":\"Sales ✓\",\n \"z\":[1,2.50,9007199254740993], \"a\":{} }\n";

async fn put(fixture: &Fixture, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    fixture.send(request(Method::PUT, path, headers, body.to_owned())).await
}

async fn delete(fixture: &Fixture, path: &str, headers: &[(&str, &str)]) -> Answer {
    fixture.send(request(Method::DELETE, path, headers, "")).await
}

fn tag(answer: &Answer) -> String {
    answer.headers["etag"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_board_is_returned_as_it_was_sent_and_survives_a_restart() {
    let fixture = Fixture::new();
    fixture.get(PATH).await.is_problem("LAN-0433", "`sales`");
    let stored = put(&fixture, PATH, &[], SALES).await;
    assert_eq!(stored.status, 201);
    let summary = stored.json();
    assert_eq!(summary["name"], "sales");
    assert_eq!(summary["title"], "Sales ✓");
    assert_eq!(summary["bytes"], SALES.len());
    assert_eq!(summary["etag"], tag(&stored));
    assert!(summary["changed_us"].as_i64().unwrap() > 1_600_000_000_000_000);
    assert_eq!(put(&fixture, "/v1/boards/b", &[], "{\"title\":1}").await.status, 201);

    let fixture = fixture.reopened(|_| ());
    let shown = fixture.get(PATH).await.expect_ok();
    assert_eq!(shown.text, SALES);
    assert_eq!(shown.headers[CONTENT_TYPE], "application/json");
    assert_eq!(tag(&shown), tag(&stored));
    let read = tag(&shown);
    let seen = [("if-none-match", read.as_str())];
    assert_eq!(fixture.send(request(Method::GET, PATH, &seen, "")).await.status, 304);
    let list = fixture.get("/v1/boards").await.expect_ok().json();
    assert_eq!(list["boards"][0]["name"], "b");
    assert_eq!(list["boards"][0]["title"], Value::Null);
    assert_eq!(list["boards"][1], summary);

    assert_eq!(delete(&fixture, PATH, &[]).await.status, 204);
    delete(&fixture, PATH, &[]).await.is_problem("LAN-0433", "`sales`");
    fixture.get(PATH).await.is_problem("LAN-0433", "`sales`");
}

#[tokio::test]
async fn two_editors_do_not_overwrite_each_other() {
    let fixture = Fixture::new();
    let only_new = [("if-none-match", "*")];
    let first = put(&fixture, PATH, &only_new, SALES).await;
    assert_eq!(first.status, 201);
    let refused = put(&fixture, PATH, &only_new, "{}").await;
    refused.is_problem("LAN-0437", "it is stored with the tag");
    assert_eq!((refused.status.as_u16(), &refused.json()["etag"]), (412, &tag(&first).into()));

    // Two editors have read the first document. The one that stores second must not overwrite the
    // change of the first, so the request is refused.
    let read = tag(&first);
    let condition = [("if-match", read.as_str())];
    let second = put(&fixture, PATH, &condition, "{\"by\":\"one\"}").await;
    assert_eq!(second.status, 200);
    assert_ne!(tag(&second), read);
    let refused = put(&fixture, PATH, &condition, "{\"by\":\"two\"}").await;
    refused.is_problem("LAN-0437", &tag(&second));
    delete(&fixture, PATH, &condition).await.is_problem("LAN-0437", &tag(&second));
    let shown = fixture.get(PATH).await;
    assert_eq!(shown.text, "{\"by\":\"one\"}");
    let read = request(Method::GET, PATH, &condition, "");
    fixture.send(read).await.is_problem("LAN-0437", &tag(&second));

    let second = tag(&second);
    assert_eq!(delete(&fixture, PATH, &[("if-match", &second)]).await.status, 204);
    let gone = put(&fixture, PATH, &[("if-match", &second)], "{}").await;
    gone.is_problem("LAN-0437", "it is not stored");
    // Without a condition a board is always replaced.
    assert_eq!(put(&fixture, PATH, &[], "{}").await.status, 201);
    assert_eq!(put(&fixture, PATH, &[], "{\"a\":1}").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_editors_at_a_time_one_stores_her_board() {
    let fixture = Fixture::new();
    let first = tag(&put(&fixture, PATH, &[], "{}").await);
    let writes = (0..16).map(|editor| {
        let body = format!("{{\"editor\":{editor}}}");
        let request = request(Method::PUT, PATH, &[("if-match", first.as_str())], body);
        let router = fixture.router.clone();
        tokio::spawn(async move { router.oneshot(request).await.unwrap().status().as_u16() })
    });
    let writes: Vec<_> = writes.collect();
    let mut statuses = Vec::new();
    for write in writes {
        statuses.push(write.await.unwrap());
    }
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200, "{statuses:?}");
    assert_eq!(statuses[1..], [412; 15]);
}

#[tokio::test]
async fn what_is_no_board_is_refused_with_the_reason() {
    let fixture = Fixture::new();
    for (body, words) in [
        ("", "EOF"),
        ("[]", "invalid type"),
        ("[[\"title\",1]]", "invalid type"),
        ("3", "invalid type"),
        ("{\"a\":1} x", "trailing characters"),
        ("{\"a\":1,}", "trailing comma"),
    ] {
        let answer = put(&fixture, PATH, &[], body).await;
        answer.is_problem("LAN-0434", words);
        assert_eq!(answer.status, 400);
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(500), "]".repeat(500));
    put(&fixture, PATH, &[], &deep).await.is_problem("LAN-0434", "recursion limit");
    let bytes = request(Method::PUT, PATH, &[], b"{\"a\":\"\xff\"}".to_vec());
    fixture.send(bytes).await.is_problem("LAN-0434", "not UTF-8");
    put(&fixture, "/v1/boards/a%20b", &[], "{}").await.is_problem("LAN-0434", "`a b`");
    let long = format!("/v1/boards/{}", "x".repeat(65));
    put(&fixture, &long, &[], "{}").await.is_problem("LAN-0434", "1 to 64 letters");
    fixture.get(PATH).await.is_problem("LAN-0433", "`sales`");
    assert_eq!(fixture.get("/v1/boards").await.text, "{\"boards\":[]}");
}

#[tokio::test]
async fn boards_are_limited_in_size_and_number() {
    let mut fixture = Fixture::with(|config| {
        config.boards.bytes_max = 100;
        config.boards.count_max = 2;
    });
    let fits = format!("{{\"a\":\"{}\"}}", "x".repeat(92));
    assert_eq!(fits.len(), 100);
    put(&fixture, PATH, &[], &fits).await.expect_ok();
    let larger = format!("{fits} ");
    let refused = put(&fixture, PATH, &[], &larger).await;
    refused.is_problem("LAN-0435", "larger than 100 bytes (`boards.bytes_max`)");
    assert_eq!(refused.status, 413);
    assert_eq!(fixture.get(PATH).await.text, fits);

    put(&fixture, "/v1/boards/b", &[], "{}").await.expect_ok();
    let third = put(&fixture, "/v1/boards/c", &[], "{}").await;
    third.is_problem("LAN-0436", "there are 2 boards: the limit is 2 (`boards.count_max`)");
    assert_eq!(third.status, 409);
    put(&fixture, "/v1/boards/b", &[], "{\"a\":1}").await.expect_ok();
    // Boards that are above a lower limit are kept.
    fixture = fixture.reopened(|config| config.boards.bytes_max = 10);
    assert_eq!(fixture.get(PATH).await.text, fits);
    put(&fixture, "/v1/boards/c", &[], "{}").await.expect_ok();
}

#[tokio::test]
async fn a_board_that_cannot_be_read_can_be_replaced_and_deleted() {
    let fixture = Fixture::new();
    fixture.app.documents.save_document("board", "sales", "damaged").unwrap();
    fixture.get(PATH).await.is_problem("LAN-0213", "`sales`");
    assert_eq!(fixture.get("/v1/boards").await.text, "{\"boards\":[]}");
    put(&fixture, PATH, &[("if-match", "*")], "{}").await.is_problem("LAN-0213", "`sales`");
    assert_eq!(put(&fixture, PATH, &[], "{}").await.status, 200);
    assert_eq!(fixture.get(PATH).await.text, "{}");
    fixture.app.documents.save_document("board", "sales", "damaged").unwrap();
    assert_eq!(delete(&fixture, PATH, &[]).await.status, 204);
}
