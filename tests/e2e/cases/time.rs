//! Tests that one event cannot make the events of other senders late, and that keys of windows may
//! contain any text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{folding, lantern, parked, send};

/// Formats the time `seconds` from now in RFC 3339.
fn from_now(seconds: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let then = now.as_secs().cast_signed() + seconds;
    rfc_3339(then)
}

/// Formats a number of seconds since 1970 in RFC 3339. The date is computed with Howard Hinnant's
/// `civil_from_days`.
fn rfc_3339(seconds: i64) -> String {
    let (days, of_day) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    let era = days.div_euclid(146_097);
    let of_era = days.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn view(id: u8, source: &str, time: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"{source}","type":"page.viewed","time":"{time}","data":{{"product":"p"}}}}"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_tomorrow_makes_no_other_event_late_and_is_named() {
    let server = folding("wins").await;
    let ahead = from_now(23 * 3_600 + 59 * 60);
    send(&server, view(1, "/good", &from_now(0))).await;
    let answer = send(&server, view(2, "/ahead", &ahead)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    server.caught_up("wins").await.unwrap();
    for id in 3..6 {
        send(&server, view(id, "/good", &from_now(0))).await;
    }
    server.caught_up("wins").await.unwrap();
    let late = server.rows("wins/late").await.unwrap();
    assert_eq!(late, [], "an event of /good is late");
    // The server counts the event that is too far ahead, and the status names it.
    let (_, status, _) = lantern(&server, &["--json", "plugin", "status", "wins"]);
    let (_, shown, _) = lantern(&server, &["plugin", "status", "wins"]);
    assert!(status.contains("ahead") && shown.contains("ahead"), "{status}{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_the_separator_in_it_is_parked_and_merges_nothing() {
    let server = folding("wins").await;
    let line = |id: u8, hour: u8, product: &str| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/s","type":"x","time":"2026-03-01T{hour}:00:00Z","data":{{"product":"{product}"}}}}"#
        )
    };
    let lines =
        [line(1, 12, "x\\u0000b"), line(2, 12, "y\\u0000b"), line(3, 12, "b"), line(4, 13, "end")];
    server.events(lines.join("\n")).await.unwrap();
    server.caught_up("wins").await.unwrap();
    let rows = server.rows("wins/done").await.unwrap();
    assert_eq!(rows.len(), 1, "{rows:?}");
    let (key, row) = &rows[0];
    assert!(key.ends_with("/b"), "{key}");
    assert_eq!((&row["events"], &row["tenant"]), (&1.into(), &"".into()), "{row}");
    let parked = parked(&server, "wins").await;
    let ids: Vec<_> = parked.iter().map(|(_, _, id, _)| id.as_str()).collect();
    assert_eq!(ids, ["1", "2"], "{parked:?}");
    for (_, _, _, reason) in &parked {
        assert!(reason.contains("U+0000"), "{reason}");
    }
}
