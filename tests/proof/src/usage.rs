//! Generates events for the guest `usage`, which declares everything that a manifest can declare:
//! typed members, retention, tables per tenant, windows that close and emit, and `park-subject`.

use fastrand::Rng;
use lantern_core::{Event, Timestamp};

/// The name of the guest, and of its projection.
pub const GUEST: &str = "usage";
/// The event type to which the guest subscribes.
pub const READ: &str = "usage.read";

/// Creates a reading at `time`, with `data` exactly as it is sent. An empty tenant means no tenant.
#[must_use]
pub fn reading(id: &str, tenant: &str, subject: &str, time: i64, data: &str) -> Event {
    Event {
        id: id.into(),
        source: "meters".into(),
        kind: READ.into(),
        subject: subject.into(),
        tenant: tenant.into(),
        time: Timestamp(time),
        data: data.into(),
        ..Event::default()
    }
}

/// Generates a random reading at about `time`. Some readings are late, and at most about one in
/// `odd` cannot be applied.
#[must_use]
pub fn random(rng: &mut Rng, number: u64, time: i64, odd: u16) -> Event {
    let meter = rng.u8(..5);
    let wh = rng.i8(0..100);
    let kind = if rng.u16(..odd) == 0 { rng.u8(..9) } else { u8::MAX };
    let data = match kind {
        // The guest accepts this reading only after the meter has had some others.
        0 | 1 => format!(r#"{{"meter":"m{meter}","wh":-{wh}}}"#),
        // The value is not an integer, is missing or repeated, or the data is not an
        // object.
        2 => format!(r#"{{"meter":"m{meter}","wh":1.5}}"#),
        3 => r#"{"wh":1}"#.to_owned(),
        4 => "[]".to_owned(),
        5 => format!(r#"{{"meter":"m{meter}","wh":1,"wh":2}}"#),
        // The reading names a payer: another tenant, or explicitly the event's own tenant.
        6..8 => format!(r#"{{"meter":"m{meter}","wh":{wh},"owner":"a"}}"#),
        8 => format!(r#"{{"meter":"m{meter}","wh":{wh},"owner":null,"note":"x"}}"#),
        _ => format!(r#"{{"wh":{wh},"meter":"m{meter}"}}"#),
    };
    let late = if rng.u8(..10) == 0 { rng.i64(0..9_000_000) } else { 0 };
    // There are many subjects, so that not all are parked at the end.
    let subject = format!("s{}", rng.u16(..400));
    let tenant = ["", "a", "b", "c"][rng.usize(..4)];
    reading(&format!("u{number}"), tenant, &subject, (time - late).max(0), &data)
}
