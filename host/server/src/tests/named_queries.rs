use super::tables::filled;
use super::*;

const JSON: &str = "application/json";
const PATH: &str = "/v1/queries/busy";
const BUSY: &str = r#"{"table":"counts/by_subject","description":"subjects with events",
    "parameters":{"least":{"kind":"integer","default":"2"},
                  "only":{"kind":"text","list":true,"optional":true}},
    "query":{"where":[["count",">=","$least"],["subject","in","$only"]],"order":"-count"}}"#;

async fn put(fixture: &Fixture, path: &str, body: &str) -> Answer {
    fixture.send(request(Method::PUT, path, &[("content-type", JSON)], body.to_owned())).await
}

fn keys(answer: &Answer) -> Vec<String> {
    let page = answer.json();
    let rows = page["rows"].as_array().unwrap_or_else(|| panic!("{page}")).iter();
    rows.map(|row| row["key"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn an_array_in_the_place_of_an_object_is_refused() {
    let fixture = filled().await;
    let query = r#"{"table":"counts/by_subject","query":[null,null]}"#;
    put(&fixture, PATH, query).await.is_problem("LAN-0431", "`query` is an array");
    let parameter = r#"{"table":"counts/by_subject","parameters":{"least":["integer"]}}"#;
    put(&fixture, PATH, parameter).await.is_problem("LAN-0431", "`least` is an array");
}

#[tokio::test]
async fn a_named_query_runs_with_its_parameters_and_survives_a_restart() {
    let fixture = filled().await;
    assert_eq!(put(&fixture, PATH, BUSY).await.status, 201);
    assert_eq!(put(&fixture, PATH, BUSY).await.status, 200);
    let run = async |query: &str| fixture.get(&format!("{PATH}?{query}")).await.expect_ok();
    assert_eq!(keys(&run("").await), ["s0"]);
    assert_eq!(keys(&run("least=1").await).len(), 10);
    assert_eq!(keys(&run("least=1&only=s3,s4").await), ["s3", "s4"]);
    assert_eq!(keys(&run("least=1&only=&limit=3").await), ["s0", "s1", "s2"]);
    let first = run("least=1&limit=4").await.json();
    let next = first["next"].as_str().unwrap();
    assert_eq!(keys(&run(&format!("least=1&limit=9&cursor={next}")).await).len(), 6);
    let csv = run("format=csv&export=1").await;
    assert_eq!(csv.text, "key,subject,count\r\ns0,s0,2\r\n");
    // A client that has the current answer gets 304. With another value of the parameter it gets a
    // new answer.
    let tag = run("least=1").await.headers["etag"].to_str().unwrap().to_owned();
    let seen = [("if-none-match", tag.as_str())];
    let again = |query: &str| request(Method::GET, &format!("{PATH}?{query}"), &seen, "");
    assert_eq!(fixture.send(again("least=1")).await.status, 304);
    assert_eq!(fixture.send(again("least=2")).await.status, 200);

    let list = fixture.get("/v1/queries").await.expect_ok().json();
    assert_eq!(list["queries"][0]["name"], "busy");
    assert_eq!(list["queries"][0]["parameters"]["least"]["kind"], "integer");
    let definition = fixture.get(&format!("{PATH}/definition")).await.expect_ok().json();
    let stored: Value = serde_json::from_str(BUSY).unwrap();
    assert_eq!(definition, stored);
    assert_eq!(fixture.app.documents.documents("query").unwrap().len(), 1);

    let delete = || request(Method::DELETE, PATH, &[], "");
    assert_eq!(fixture.send(delete()).await.status, 204);
    fixture.send(delete()).await.is_problem("LAN-0430", "`busy`");
    fixture.get(PATH).await.is_problem("LAN-0430", "`busy`");
}

#[tokio::test]
async fn a_wrong_parameter_of_a_named_query_is_refused_with_its_name() {
    let fixture = filled().await;
    put(&fixture, PATH, BUSY).await.expect_ok();
    for (query, parameter, words) in [
        ("least=x", "least", "`least` is `x`, which is no integer: write `least=10`"),
        ("lest=1", "lest", "did you mean `least`?"),
        ("least=1&least=2", "least", "given twice"),
    ] {
        let answer = fixture.get(&format!("{PATH}?{query}")).await;
        answer.is_problem("LAN-0432", words);
        assert_eq!((answer.status.as_u16(), &answer.json()["parameter"]), (400, &parameter.into()));
    }
    fixture.get(&format!("{PATH}?limit=0")).await.is_problem("LAN-0403", "`limit`");
}

#[tokio::test]
async fn a_wrong_definition_is_refused_with_the_member_and_the_fix() {
    let fixture = filled().await;
    let query = |parameters: &str, query: &str| {
        format!(r#"{{"table":"counts/by_subject","parameters":{parameters},"query":{query}}}"#)
    };
    for (body, code, words) in [
        (r#"{"table":"counts"}"#.to_owned(), "LAN-0431", "`PROJECTION/TABLE`"),
        (r#"{"table":"none/x"}"#.to_owned(), "LAN-0201", "`none`"),
        (r#"{"table":"counts/none"}"#.to_owned(), "LAN-0404", "`none`"),
        (r#"{"table":"counts/secret"}"#.to_owned(), "LAN-0404", "private"),
        (query("{}", r#"{"where":[["cont","=",1]]}"#), "LAN-0426", "did you mean `count`?"),
        (query("{}", r#"{"where":[["count","=","$n"]]}"#), "LAN-0431", "declare `n`"),
        (
            query(r#"{"n":{"kind":"text"}}"#, r#"{"where":[["count","=","$n"]]}"#),
            "LAN-0426",
            "whole number",
        ),
        (query(r#"{"n":{"kind":"integer"}}"#, "{}"), "LAN-0431", "`n` is not used"),
        (
            query(r#"{"n":{"kind":"integer","default":"x"}}"#, r#"{"where":[["count","=","$n"]]}"#),
            "LAN-0431",
            "no integer",
        ),
        (
            query(r#"{"limit":{"kind":"integer"}}"#, r#"{"where":[["count","=","$limit"]]}"#),
            "LAN-0431",
            "`limit` cannot be",
        ),
        (query(r#"{"o":{"kind":"text"}}"#, r#"{"order":"$o"}"#), "LAN-0431", "`default`"),
        (
            query(r#"{"o":{"kind":"text","default":"x"}}"#, r#"{"order":"$o"}"#),
            "LAN-0426",
            "no field `x`",
        ),
        (
            query(r#"{"o":{"kind":"text","list":true}}"#, r#"{"prefix":"$o"}"#),
            "LAN-0431",
            "is a list",
        ),
        (query("{}", r#"{"export":true}"#), "LAN-0431", "`query.export`"),
        (query(r#"{"n":{"kind":"int"}}"#, "{}"), "LAN-0408", "`integer`"),
        (query("{}", r#"{"wher":[]}"#), "LAN-0408", "`wher`"),
    ] {
        let answer = put(&fixture, PATH, &body).await;
        answer.is_problem(code, words);
        fixture.get(PATH).await.is_problem("LAN-0430", "busy");
    }
    put(&fixture, "/v1/queries/a%20b", BUSY).await.is_problem("LAN-0431", "letters");
}

#[tokio::test]
async fn no_more_named_queries_are_stored_than_allowed() {
    let fixture = Fixture::with(|config| config.query.named_max = 1);
    fixture.project(counts()).await;
    put(&fixture, PATH, BUSY).await.expect_ok();
    put(&fixture, PATH, BUSY).await.expect_ok();
    let second = put(&fixture, "/v1/queries/other", BUSY).await;
    second.is_problem("LAN-0431", "the limit is 1 (`query.named_max`)");
}
