//! What senders send: names, encodings, header values.

use lantern_tests::Server;

use super::send;

#[tokio::test(flavor = "multi_thread")]
async fn null_members_are_absent_and_long_attribute_names_are_taken() {
    let server = Server::start(&[]).unwrap();
    let event = |id: u8, more: &str| {
        format!(
            r#"{{"specversion":"1.0","source":"/s","type":"order.placed","time":"2026-03-01T12:00:00Z","data":{{"product":"p","quantity":1,"cents":1}},"id":"{id}",{more}}}"#
        )
    };
    let taken = [
        r#""connectortransactiontotal":null"#,
        r#""connectorTxId":null"#,
        r#""trace_id":null"#,
        r#""abcdefghijklmnopqrstu":"x""#,
        r#""connectortransactiontotal":"7""#,
    ];
    for (id, more) in (0..).zip(taken) {
        let answer = send(&server, event(id, more)).await;
        assert_eq!(answer.status, 200, "{more}: {}", answer.text);
    }
    let log = server.log().await.unwrap();
    for logged in &log[..3] {
        let names: Vec<_> = logged["event"].as_object().unwrap().keys().collect();
        assert!(!names.iter().any(|n| n.contains("onnector") || n.contains("trace")), "{names:?}");
    }
    assert_eq!(log[3]["event"]["abcdefghijklmnopqrstu"], "x");
    assert_eq!(log[4]["event"]["connectortransactiontotal"], "7");
    // A tenant is text; a number is taken as its text, or refused.
    let number = send(&server, event(5, r#""tenant":42"#)).await;
    match number.status {
        200 => assert_eq!(server.log().await.unwrap()[5]["event"]["tenant"], "42"),
        status => assert_eq!(status, 400, "{}", number.text),
    }
}
