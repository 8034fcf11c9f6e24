//! Implements windows over event time.
//!
//! A window is *updating* or *final*.
//!
//! The row of an updating window changes with every event, so that readers see it grow. Updating
//! tumbling and hopping windows need only [`Windows::of`] and a key that begins with the window:
//!
//! ```
//! # use lantern_sdk::prelude::*;
//! # use lantern_sdk::window::Windows;
//! # #[derive(Row, Default)] struct Minute { events: u64 }
//! # fn apply(minutes: &mut Table<Minute>, event: &Event<'_>) -> Result<(), Error> {
//! for window in Windows::tumbling(Duration::from_secs(60)).of(event.time()) {
//!     minutes.row((window, event.kind()))?.events += 1;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The row of a final window is written once, when the watermark has passed the end of the window.
//! Until then a private table has the values of the window, and a timer is set for the end. If an
//! event of the window arrives later, it is late. Final windows need
//! [`event_time`](crate::Manifest::event_time) in the manifest.
//!
//! | windows | updating | final |
//! |---|---|---|
//! | tumbling, hopping | [`Windows::of`] | [`OpenWindows`] |
//! | session | [`OpenSessions::add`] | [`OpenSessions::close`] |
//! | sliding | [`Recent::add`], [`Advanced::current`] | [`Advanced::settled`] |
//!
//! If the key is an [`InTenant`](crate::InTenant), a closed window has the tenant in a
//! separate field, and can be written to `per_tenant` tables of that tenant. The
//! windows' own private table is never `per_tenant`.
//!
//! If an event arrives after its window was closed, it is *late*. It is not dropped silently: the
//! functions of windows report it, so that the projection can count it or write it to a row.

mod open;
mod sessions;
mod sliding;

use std::time::Duration;

pub use open::{Closed, OpenWindows};
pub use sessions::{ClosedSession, Combine, Joined, OpenSessions};
pub use sliding::{Advanced, RECENT_EVENTS_MAX, Recent, Slide};

use crate::error::{Error, RowError};
use crate::event::{OWN_TIMER, Timer};
use crate::key::{Key, split_tenant};
use crate::time::{Timestamp, micros_of};

/// A span of time: from `start` up to but not including `end`.
///
/// If a window is used as a key, the key is the start of the window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first moment in the window.
    pub start: Timestamp,
    /// The first moment after the window.
    pub end: Timestamp,
}

impl Key for Window {
    fn write(&self, out: &mut String) {
        self.start.write(out);
    }
}

/// Windows of equal size that begin at equal distances, counted from 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Windows {
    size_us: i64,
    hop_us: i64,
}

impl Windows {
    /// Windows of the size `size` without gaps between them, so that every time is in exactly one
    /// window. The size is at least a microsecond.
    #[must_use]
    pub fn tumbling(size: Duration) -> Self {
        Self::hopping(size, size)
    }

    /// Windows of the size `size`, one of which begins every `hop`. If `hop` is smaller than
    /// `size`, they overlap: every time is in about `size / hop` windows, and each of these needs a
    /// row. Both durations are at least a microsecond.
    #[must_use]
    pub fn hopping(size: Duration, hop: Duration) -> Self {
        Self { size_us: micros_of(size).max(1), hop_us: micros_of(hop).max(1) }
    }

    /// Returns the windows that contain `time`, oldest first.
    pub fn of(self, time: Timestamp) -> impl Iterator<Item = Window> {
        let time = time.micros();
        let newest = time.saturating_sub(time.rem_euclid(self.hop_us));
        let older = (self.size_us - 1).saturating_sub(time - newest).max(-1);
        // If there are gaps between windows, a time may be in no window.
        let count = if older < 0 { 0 } else { older / self.hop_us + 1 };
        (0..count).rev().map(move |back| {
            let start = newest.saturating_sub(back.saturating_mul(self.hop_us));
            Window {
                start: Timestamp::from_micros(start),
                end: Timestamp::from_micros(start.saturating_add(self.size_us)),
            }
        })
    }
}

/// A set of windows that [`OpenWindows`] can use: [`Windows`], or the hours, days, weeks or months
/// of a [`TimeZone`](crate::zone::TimeZone).
pub trait WindowSet {
    /// Returns the windows that contain `time`, oldest first.
    fn containing(&self, time: Timestamp) -> impl Iterator<Item = Window>;
}

impl WindowSet for Windows {
    fn containing(&self, time: Timestamp) -> impl Iterator<Item = Window> {
        self.of(time)
    }
}

/// Appends a time to `out`, as text that sorts by time.
fn write_sortable(time: Timestamp, out: &mut String) {
    let bits = (time.micros() as u64) ^ (1 << 63);
    for place in (0..16).rev() {
        let digit = (bits >> (place * 4)) as u32 & 15;
        out.push(char::from_digit(digit, 16).expect("four bits are a digit"));
    }
}

fn from_sortable(text: &str) -> Option<Timestamp> {
    let bits = u64::from_str_radix(text, 16).ok()?;
    Some(Timestamp::from_micros((bits ^ (1 << 63)) as i64))
}

/// The owner of a window: the tenant, if there is one, and the rest of the key under which events
/// are added.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    tenant: String,
    rest: String,
}

impl Owner {
    /// Returns the owner of a window to which an event is added under `key`. `table` is the name of
    /// the windows' table, which the error contains.
    fn of(table: &'static str, key: impl Key) -> Result<Self, Error> {
        match split_tenant(key) {
            Ok((tenant, rest)) => Ok(Self { tenant, rest }),
            Err((key, why)) => Err(Error::Key { table, key, why }),
        }
    }

    /// Returns the key of a row that contains all values of this owner.
    fn row_key(&self) -> String {
        let mut key = String::new();
        self.tenant.write_part(&mut key);
        key.push('/');
        key.push_str(&self.rest);
        key
    }
}

/// Returns the key of a timer that the table with the index `table` sets. If `tenant` is not empty,
/// the timer belongs to this tenant. The host then lets the timer write rows of the tenant.
fn timer_key(table: u32, tenant: &str, rest: &str) -> String {
    if tenant.is_empty() {
        format!("{OWN_TIMER}{table}/{rest}")
    } else {
        format!("{tenant}\0{OWN_TIMER}{table}/{rest}")
    }
}

/// Returns the owner of `timer`'s window, which its key contains (see [`timer_key`]); `None` if
/// this table did not set the timer.
fn timer_owner(table: u32, timer: &Timer<'_>) -> Option<Owner> {
    let rest = own_rest(table, timer.key())?;
    Some(Owner { tenant: timer.tenant().to_owned(), rest: rest.to_owned() })
}

fn own_rest(table: u32, key: &str) -> Option<&str> {
    let (owner, rest) = key.strip_prefix(OWN_TIMER)?.split_once('/')?;
    (owner.parse() == Ok(table)).then_some(rest)
}

/// Reads the bytes in which the row of a window is stored.
struct Reader<'a>(&'a [u8]);

const CUT_SHORT: RowError = RowError::Malformed("the row is cut short");

impl<'a> Reader<'a> {
    fn time(&mut self) -> Result<Timestamp, RowError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(Timestamp::from_micros(i64::from_le_bytes(*bytes)))
    }

    fn bytes(&mut self) -> Result<&'a [u8], RowError> {
        let (length, rest) = self.0.split_first_chunk().ok_or(CUT_SHORT)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (bytes, rest) = rest.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(bytes)
    }
}

fn write_time(time: Timestamp, out: &mut Vec<u8>) {
    out.extend_from_slice(&time.micros().to_le_bytes());
}

/// Appends what `write` writes, after its length.
fn write_bytes(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), RowError>,
) -> Result<(), RowError> {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    write(out)?;
    let length = u32::try_from(out.len() - start - 4)
        .map_err(|_| RowError::Malformed("a value is longer than 4 GiB"))?;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn starts(windows: Windows, seconds: i64) -> Vec<i64> {
        let of = windows.of(Timestamp::from_seconds(seconds));
        of.map(|window| window.start.micros() / 1_000_000).collect()
    }

    #[test]
    fn every_moment_is_in_one_tumbling_window() {
        let minutes = Windows::tumbling(Duration::from_secs(60));
        assert_eq!(starts(minutes, 0), [0]);
        assert_eq!(starts(minutes, 59), [0]);
        assert_eq!(starts(minutes, 60), [60]);
        assert_eq!(starts(minutes, -1), [-60]);
    }

    #[test]
    fn hopping_windows_overlap_and_may_leave_gaps() {
        let overlapping = Windows::hopping(Duration::from_secs(10), Duration::from_secs(4));
        assert_eq!(starts(overlapping, 8), [0, 4, 8]);
        assert_eq!(starts(overlapping, 10), [4, 8]);
        let apart = Windows::hopping(Duration::from_secs(2), Duration::from_secs(10));
        assert_eq!(starts(apart, 11), [10]);
        assert_eq!(starts(apart, 12), [0; 0]);
    }

    #[test]
    fn windows_are_those_that_hold_the_moment() {
        for (size, hop) in [(1, 1), (7, 2), (2, 7), (10, 10), (9, 4)] {
            let windows = Windows::hopping(Duration::from_secs(size), Duration::from_secs(hop));
            let (size, hop) = (size as i64, hop as i64);
            for time in -30..30_i64 {
                let expected: Vec<i64> = (-60..60)
                    .filter(|start| start % hop == 0 && (*start..start + size).contains(&time))
                    .collect();
                assert_eq!(starts(windows, time), expected, "{size} {hop} {time}");
            }
        }
    }

    #[test]
    fn sortable_times_order_as_time_does() {
        let times = [i64::MIN, -1, 0, 1, i64::MAX].map(Timestamp::from_micros);
        let texts = times.map(|time| {
            let mut text = String::new();
            write_sortable(time, &mut text);
            text
        });
        assert!(texts.is_sorted());
        for (time, text) in times.iter().zip(&texts) {
            assert_eq!(from_sortable(text), Some(*time));
        }
    }

    #[test]
    fn timers_find_their_table() {
        let key = timer_key(3, "", "a/b");
        assert_eq!(own_rest(3, &key), Some("a/b"));
        assert_eq!(own_rest(4, &key), None);
        assert_eq!(own_rest(3, "3/a"), None);
        assert_eq!(timer_key(3, "t", "a"), format!("t\0{OWN_TIMER}3/a"));
    }

    #[test]
    fn owners_never_share_a_row() {
        use crate::key::InTenant;
        let key = |tenant, rest| match tenant {
            "" => Owner::of("w", rest).map(|owner| owner.row_key()),
            _ => Owner::of("w", InTenant(tenant, rest)).map(|owner| owner.row_key()),
        };
        let keys = [("", "a/b"), ("a", "b"), ("/a", "b"), ("a", "/b"), ("a/", "b")];
        let keys = keys.map(|(tenant, rest)| key(tenant, rest).ok());
        assert_eq!(keys, ["/a/b", "a/b", "%2Fa/b", "a//b", "a%2F/b"].map(|key| Some(key.into())));
        for (tenant, rest) in [("", "a\0b"), ("a", "b\0c"), ("a\0b", "c")] {
            let error = key(tenant, rest).unwrap_err();
            assert!(error.to_string().contains("U+0000 cannot be part of a key"), "{error}");
        }
    }
}
