//! Implements the conformance projection in Rust; `sdk/conformance/README.md` defines it.
#![forbid(unsafe_code)]

mod tables;

use lantern_sdk::prelude::*;
use lantern_sdk::window::Windows;
use lantern_sdk::zone::TimeZone;
use serde::{Deserialize, Serialize};

pub use tables::Conformance;
use tables::{Day, Hop, Hour, Late, Minute, Scanned, Session, Settled, Sketches, Sliding};
use tables::{Sum, Tenant, Values};

/// The type of the events that it emits.
const EMITTED: &str = "conformance.out";
const EMITTED_MAX: i64 = 100;
const SCAN_ROWS_MAX: i64 = 1_000;
/// The scale of the sketch `scaled`.
const SCALE: u32 = 1_000;

const SCHEMA: &str = r#"{
    "type": "object",
    "additionalProperties": false,
    "properties": {
        "zone": {"type": "string", "default": "Europe/Berlin"},
        "factor": {"type": "integer", "default": 1}
    }
}"#;

/// The parameters.
#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    zone: TimeZone,
    factor: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { zone: lantern_sdk::time_zone!("Europe/Berlin"), factor: 1 }
    }
}

#[derive(EventData)]
struct KeyData<'a> {
    key: &'a str,
}

#[derive(EventData)]
struct AddData<'a> {
    key: &'a str,
    n: Option<i64>,
}

#[derive(EventData)]
struct ValueData<'a> {
    n: Option<i64>,
    x: Option<f64>,
    s: Option<&'a str>,
    b: Option<bool>,
    t: Option<Timestamp>,
    j: Option<Json<serde_json::Value>>,
}

#[derive(EventData)]
struct ScanData<'a> {
    start: &'a str,
    end: &'a str,
    limit: i64,
    reverse: Option<bool>,
}

#[derive(EventData)]
struct RemindData<'a> {
    key: &'a str,
    seconds: Option<i64>,
}

#[derive(EventData)]
struct EmitData<'a> {
    key: &'a str,
    n: i64,
}

#[derive(EventData)]
struct FailData<'a> {
    key: &'a str,
    fail: Option<bool>,
}

#[derive(EventData)]
struct DayData {
    t: Option<Timestamp>,
}

#[derive(EventData)]
struct SketchData<'a> {
    key: &'a str,
    s: Option<&'a str>,
    n: Option<i64>,
    x: Option<f64>,
}

/// The data of an event that `c.emit` emits.
#[derive(Serialize)]
struct Out<'a> {
    key: &'a str,
    i: i64,
}

/// The data of an event that a timer emits.
#[derive(Serialize)]
struct TimerOut<'a> {
    timer: &'a str,
}

impl Projection for Conformance {
    fn setup(&mut self, parameters: &Parameters<'_>) -> Result<Manifest, Error> {
        self.settings = parameters.parse()?;
        Ok(Manifest::new("conformance", "1.0.0", env!("CARGO_PKG_DESCRIPTION"))
            .subscribe(["c.*"])
            .attributes([Attribute::Id, Attribute::Subject, Attribute::Tenant])
            .without_data()
            .members::<AddData<'_>>()
            .members::<ValueData<'_>>()
            .members::<ScanData<'_>>()
            .members::<RemindData<'_>>()
            .members::<FailData<'_>>()
            .event_time(Duration::from_secs(10), Duration::from_secs(5))
            .emits([EMITTED])
            .parameters(SCHEMA)
            .on_failure(OnFailure::ParkEvent))
    }

    fn apply(&mut self, event: &Event<'_>) -> Result<(), Error> {
        match event.kind() {
            "c.add" => {
                let AddData { key, n } = event.members()?;
                self.add(event, key, n)
            }
            "c.delete" => self.sums.delete(event.members::<KeyData<'_>>()?.key),
            "c.once" => self.once(event),
            "c.value" => self.value(event),
            "c.scan" => self.scan(event),
            "c.remind" => remind(event),
            "c.emit" => {
                let EmitData { key, n } = event.members()?;
                if n > EMITTED_MAX {
                    return Err(format!("n is {n}, over {EMITTED_MAX}").into());
                }
                emit(event, key, n)
            }
            "c.fail" => self.fail(event),
            "c.tenant" => self.tenant(event),
            "c.visit" => self.visit(event),
            "c.day" => self.day(event),
            "c.sketch" => self.sketch(event),
            _ => Ok(()),
        }
    }

    fn on_timer(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        for closed in self.open_hops.close(timer)? {
            let (start, end) = (closed.window.start, closed.window.end);
            let row = Hop { start, end, user: closed.key.clone(), total: closed.value };
            self.hops.put((start, &closed.key), row)?;
        }
        for closed in self.open_sessions.close(timer)? {
            let (start, end) = (closed.window.start, closed.window.end);
            let row = Session { start, end, user: closed.key.clone(), events: closed.value };
            self.sessions.put((start, &closed.key), row)?;
        }
        if let Some(user) = self.recent.advance(timer)? {
            for slide in user.settled() {
                let total = sum(slide.values())?;
                let row = Settled { at: slide.at, user: user.key.clone(), total };
                self.settled.put((slide.at, &user.key), row)?;
            }
            put_sliding(&mut self.sliding, &user.key, user.current().values())?;
        }
        if !timer.tenant().is_empty() {
            let row = self.tenants.row(InTenant(timer.tenant(), timer.key()))?;
            row.closed += 1;
        } else if !timer.key().starts_with('\u{1}') {
            self.fire(timer)?;
        }
        Ok(())
    }
}

/// Returns the sum of `values`.
fn sum<'a>(mut values: impl Iterator<Item = &'a i64>) -> Result<i64, Error> {
    values.try_fold(0_i64, |sum, value| add(sum, *value))
}

fn add(a: i64, b: i64) -> Result<i64, Error> {
    a.checked_add(b).ok_or_else(|| format!("{a} + {b} is outside of the range").into())
}

fn remind(event: &Event<'_>) -> Result<(), Error> {
    let RemindData { key, seconds } = event.members()?;
    match seconds {
        Some(seconds) => {
            let later = Timestamp::from_seconds(seconds).micros();
            event.set_timer(Timestamp::from_micros(add(event.time().micros(), later)?), key)
        }
        None => event.cancel_timer(key),
    }
}

fn emit(event: &Event<'_>, key: &str, count: i64) -> Result<(), Error> {
    for i in 0..count {
        event.emit(NewEvent::new(EMITTED, &Out { key, i })?.subject(event.subject()?))?;
    }
    Ok(())
}

/// Puts the values of a sliding window into the user's row.
fn put_sliding<'a>(
    table: &mut Table<Sliding>,
    user: &str,
    values: impl ExactSizeIterator<Item = &'a i64>,
) -> Result<(), Error> {
    let (events, total) = (values.len() as i64, sum(values)?);
    table.put(user, Sliding { user: user.to_owned(), events, total })
}

impl Conformance {
    fn add(&mut self, event: &Event<'_>, key: &str, n: Option<i64>) -> Result<(), Error> {
        let factor = self.settings.factor;
        let row = self.sums.row_or(key, || Sum { key: key.to_owned(), ..Sum::default() })?;
        row.events += 1;
        row.last = event.time();
        if let Some(n) = n {
            let value = n.checked_mul(factor).ok_or("n · factor is outside of the range")?;
            row.total = add(row.total, value)?;
            row.least = Some(row.least.map_or(value, |least| least.min(value)));
            row.greatest = Some(row.greatest.map_or(value, |greatest| greatest.max(value)));
        }
        Ok(())
    }

    fn once(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let KeyData { key } = event.members()?;
        if self.seen.get(key)?.is_some() {
            return Ok(());
        }
        self.seen.put(key, ())?;
        self.add(event, key, None)
    }

    fn value(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let ValueData { n, x, s, b, t, j } = event.members()?;
        let id = event.id()?.to_owned();
        let s = s.map(str::to_owned);
        self.values.put(event.id()?, Values { id, n, x, s, b, t, j })
    }

    fn scan(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let ScanData { start, end, limit, reverse } = event.members()?;
        if !(0..=SCAN_ROWS_MAX).contains(&limit) {
            return Err(format!("limit is {limit}").into());
        }
        let mut scan = Scan::range(start, end).limit(limit as usize);
        if reverse == Some(true) {
            scan = scan.newest_first();
        }
        let rows = self.sums.scan(&scan)?;
        let total = sum(rows.iter().map(|(_, row)| &row.total))?;
        let count = rows.len() as i64;
        let keys = rows.into_iter().map(|(key, _)| key).collect();
        let id = event.id()?.to_owned();
        self.scans.put(event.id()?, Scanned { id, count, keys, total })
    }

    fn fire(&mut self, timer: &Timer<'_>) -> Result<(), Error> {
        let key = timer.key();
        let row = self.fired.row(key)?;
        key.clone_into(&mut row.key);
        (row.at, row.watermark) = (timer.at(), timer.watermark());
        row.times += 1;
        timer.emit(NewEvent::new(EMITTED, &TimerOut { timer: key })?.subject(key))
    }

    fn fail(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let FailData { key, fail } = event.members()?;
        self.add(event, key, None)?;
        self.sums.delete("gone")?;
        emit(event, key, 1)?;
        event.set_timer(event.time() + Duration::from_secs(5), key)?;
        if fail == Some(true) { Err("asked to fail".into()) } else { Ok(()) }
    }

    fn tenant(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let (tenant, subject) = (event.tenant()?, event.subject()?);
        if tenant.is_empty() || subject.is_empty() {
            return Ok(());
        }
        let key = InTenant(tenant, subject);
        let row = self
            .tenants
            .row_or(key, || Tenant { subject: subject.to_owned(), ..Tenant::default() })?;
        row.events += 1;
        event.set_timer(event.time() + Duration::from_secs(10), key)
    }

    fn visit(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let AddData { key: user, n } = event.members()?;
        if user.is_empty() {
            return Err("the key is empty".into());
        }
        let n = n.unwrap_or(1);
        let start = event.time().minute();
        let minute = || Minute { start, user: user.to_owned(), events: 0 };
        self.minutes.row_or((start, user), minute)?.events += 1;

        let windows = Windows::hopping(Duration::from_secs(60), Duration::from_secs(20));
        let mut overflow = false;
        let hops = self.open_hops.add(event, windows, user, |total| {
            let (sum, over) = total.overflowing_add(n);
            *total = sum;
            overflow |= over;
        })?;
        if overflow {
            return Err("a sum is outside of the range".into());
        }
        let gap = Duration::from_secs(30);
        let joined = self.open_sessions.add(event, gap, user, |events| *events += 1)?;
        let sessions = i64::from(joined.is_none());
        let slide = self.recent.add(event, Duration::from_secs(60), user, n)?;
        let sliding = i64::from(slide.is_none());
        if let Some(slide) = slide {
            put_sliding(&mut self.sliding, user, slide.values())?;
        }
        if hops > 0 || sessions + sliding > 0 {
            let late =
                self.late.row_or(user, || Late { user: user.to_owned(), ..Late::default() })?;
            late.hops += hops as i64;
            late.sessions += sessions;
            late.sliding += sliding;
        }
        Ok(())
    }

    fn day(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let DayData { t } = event.members()?;
        let time = t.unwrap_or(event.time());
        let zone = &self.settings.zone;
        let (date, day, hour) = (zone.date(time), zone.day(time), zone.hour(time));
        let row = || Day { day: date.to_string(), start: day.start, end: day.end, events: 0 };
        self.days.row_or(date, row)?.events += 1;
        let row = || Hour { start: hour.start, end: hour.end, events: 0 };
        self.hours.row_or(hour, row)?.events += 1;
        Ok(())
    }

    fn sketch(&mut self, event: &Event<'_>) -> Result<(), Error> {
        let SketchData { key, s, n, x } = event.members()?;
        let row = self
            .sketches
            .row_or(key, || Sketches { key: key.to_owned(), ..Sketches::default() })?;
        if let Some(s) = s {
            row.texts.add(s);
        }
        if let Some(n) = n {
            row.values.add(n);
        }
        if let Some(x) = x
            && !row.scaled.add_number(x, SCALE)
        {
            return Err(format!("x is {x}").into());
        }
        Ok(())
    }
}

lantern_sdk::export!(Conformance);
