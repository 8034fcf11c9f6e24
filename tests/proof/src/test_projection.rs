//! Implements the projection of the experiments that run in one process, called the *meter*. It
//! uses everything that a projection can use (public and private tables, timers, retention, emitted
//! events, failures of every kind), and its code is a Rust closure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use lantern_core::fake::{NativePlugin, host_error};
use lantern_core::{
    ApplyError, ApplyOutcome, Attributes, Batch, Cause, Event, EventRef, EventTime, FieldKind,
    FieldSpec, Host, HostError, Instance, InstantiateError, Manifest, NewEvent, OnFailure, Plugin,
    TableId, TableSpec, Timestamp, TrapKind, VersionRecord,
};
use lantern_engine::{PluginError, PluginSource};
use parking_lot::Mutex;

/// The number of microseconds in a second.
pub const SECOND: i64 = 1_000_000;
/// The length of a window, in microseconds.
pub const WINDOW: i64 = 5 * SECOND;
/// How long a row of `recent` is kept, in microseconds.
pub const RETENTION: i64 = 8 * SECOND;
/// The time by which an event may be late, in microseconds.
pub const LATENESS: i64 = 2 * SECOND;
/// The maximum number of seconds by which an event may be ahead of its append time and still move
/// the watermark.
pub const AHEAD_S: u64 = 30;
/// The extension attribute with an event's append time, in microseconds.
pub const APPENDED: &str = "appended";
/// The number of events of a subject after which the meter accepts the subject's bad events.
pub const ENOUGH: i64 = 2;
/// The name of the projection, the *meter*.
pub const NAME: &str = "meter";
/// The event type to which the meter subscribes.
pub const READ: &str = "m.read";
/// The event type that the meter emits.
pub const CLOSED: &str = "window.closed";
/// The data of an emitted event that a `loud` reading causes.
pub const LOUD: &str = r#""loud""#;
/// The data of an emitted event that is too large for a log with a limit.
pub const LARGE: &str = r#""large, larger, and too large for some logs to take""#;
/// The `cycle-depth-max` of the manifests. The host's limit on the emit depth is lower.
pub const CYCLE_DEPTH_MAX: u32 = 1_000;

/// The table `totals`. The constants give the number of each table.
pub const TOTALS: TableId = TableId(0);
/// The table of windows that are still open.
pub const WINDOWS: TableId = TableId(1);
/// The table whose rows expire.
pub const RECENT: TableId = TableId(2);
/// The table whose rows belong to tenants.
pub const OWNED: TableId = TableId(3);

/// A version of the meter. Versions differ in the events that they can apply and in the
/// rows that they write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// A number that this version adds to the value of every reading.
    pub offset: i64,
    /// Whether this version can apply an event whose data is `bad`, `trap` or `late`.
    pub mended: bool,
    /// What the host does with an event that this version cannot apply.
    pub on_failure: Policy,
}

/// What happens to an event that cannot be applied: [`OnFailure`] without the policy that halts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// Only the event itself is parked.
    ParkEvent,
    /// The later events of its subject are parked, too.
    ParkSubject,
}

/// The bugs that are planted in the meter's code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flaws {
    /// Whether the writes depend on the number of events in the batch.
    pub batch_dependent: bool,
    /// Whether the plugin keeps totals in its instance's memory, and relies on them.
    pub remembers: bool,
    /// Whether each write is checked against the tenants of all events of the batch. A host would
    /// do that if it did not know which event wrote a row.
    pub tenant_of_batch: bool,
    /// Whether the projection writes all rows of tenants at the end of a call, and names the last
    /// event as their cause.
    pub coalesces: bool,
    /// From this offset on, the plugin's writes depend on the number of events that its
    /// instance has seen.
    pub late: Option<u64>,
}

/// The content of an event's data, which determines what the meter does with the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// The meter adds this value.
    Value(i64),
    /// If a version is not mended, it fails until its subject has had [`ENOUGH`] events. The reason
    /// contains the event.
    Bad,
    /// A version that is not mended traps.
    Trap,
    /// The meter sets a timer that fails if the version is not mended.
    BadTimer,
    /// Every version fails.
    Poison,
    /// If a version is not mended, it writes a row of another tenant, which the host refuses.
    Foreign,
    /// The meter emits an event at once.
    Loud,
    /// The meter emits an event that a log with a limit refuses.
    Large,
}

impl Reading {
    /// Parses the data of an event.
    #[must_use]
    pub fn of(data: &[u8]) -> Self {
        match data {
            b"bad" => Self::Bad,
            b"trap" => Self::Trap,
            b"timer" => Self::BadTimer,
            b"poison" => Self::Poison,
            b"foreign" => Self::Foreign,
            data if data == LOUD.as_bytes() => Self::Loud,
            b"large" => Self::Large,
            data => Self::Value(
                std::str::from_utf8(data).ok().and_then(|t| t.parse().ok()).unwrap_or(0),
            ),
        }
    }

    /// Returns the data that [`Reading::of`] parses to this reading.
    #[must_use]
    pub fn data(self) -> String {
        match self {
            Self::Value(value) => value.to_string(),
            Self::Bad => "bad".into(),
            Self::Trap => "trap".into(),
            Self::BadTimer => "timer".into(),
            Self::Poison => "poison".into(),
            Self::Foreign => "foreign".into(),
            Self::Loud => LOUD.into(),
            Self::Large => "large".into(),
        }
    }

    /// Returns the data of the event that the meter emits at once for this reading.
    #[must_use]
    pub fn emitted(self) -> Option<&'static str> {
        match self {
            Self::Loud => Some(LOUD),
            Self::Large => Some(LARGE),
            _ => None,
        }
    }

    /// Returns whether a version of the kind `kind` can apply this event, if the event's subject
    /// has had `n` events before.
    #[must_use]
    pub fn fits(self, kind: Kind, n: i64) -> bool {
        match self {
            Self::Value(_) | Self::BadTimer | Self::Loud | Self::Large => true,
            Self::Bad => kind.mended || n >= ENOUGH,
            Self::Trap | Self::Foreign => kind.mended,
            Self::Poison => false,
        }
    }
}

/// Creates an event for the meter. An empty tenant means no tenant.
#[must_use]
pub fn event(id: &str, tenant: &str, subject: &str, time: i64, reading: Reading) -> Event {
    Event {
        id: id.into(),
        source: "test".into(),
        kind: READ.into(),
        subject: subject.into(),
        tenant: tenant.into(),
        time: Timestamp(time),
        data: reading.data().into_bytes(),
        ..Event::default()
    }
}

/// Returns the manifest of the meter of `kind`.
#[must_use]
pub fn manifest(kind: Kind) -> Manifest {
    let field = |name: &str| FieldSpec {
        name: name.into(),
        kind: FieldKind::Integer,
        ..FieldSpec::default()
    };
    Manifest {
        name: NAME.into(),
        version: format!("{}.0.0", kind.offset),
        subscribes: vec!["m.*".into()],
        attributes: Attributes { subject: true, tenant: true, data: true, ..Attributes::default() },
        tables: vec![
            TableSpec {
                name: "totals".into(),
                public: true,
                fields: vec![field("n"), field("sum")],
                ..TableSpec::default()
            },
            TableSpec { name: "windows".into(), ..TableSpec::default() },
            TableSpec {
                name: "recent".into(),
                public: true,
                fields: vec![field("value")],
                retention_us: Some(RETENTION.cast_unsigned()),
                ..TableSpec::default()
            },
            TableSpec { name: "owned".into(), per_tenant: true, ..TableSpec::default() },
        ],
        emits: vec![CLOSED.into()],
        cycle_depth_max: Some(CYCLE_DEPTH_MAX),
        event_time: Some(EventTime {
            allowed_lateness_us: LATENESS.cast_unsigned(),
            tick_us: SECOND.cast_unsigned(),
        }),
        on_failure: match kind.on_failure {
            Policy::ParkEvent => OnFailure::ParkEvent,
            Policy::ParkSubject => OnFailure::ParkSubject,
        },
        ..Manifest::default()
    }
}

/// Returns the hash that the plugin bytes of `kind` would have.
#[must_use]
pub fn sha256(kind: Kind) -> String {
    format!("{kind:?}")
}

/// Creates the meter of `kind`, with planted bugs.
#[must_use]
pub fn plugin(kind: Kind, flaws: Flaws) -> Arc<dyn Plugin> {
    let apply =
        move |batch: &Batch, host: &mut dyn Host, memory: &mut BTreeMap<String, (i64, i64)>| {
            let mut held = Vec::new();
            for (index, timer) in (0..).zip(&batch.timers) {
                if timer.key.ends_with('!') && !kind.mended {
                    return Err(ApplyError::Failed { cause: None, message: "bad timer".into() });
                }
                close(batch, host, Cause(index), &timer.key).map_err(host_error)?;
            }
            for (index, event) in batch.events.iter().enumerate() {
                let (cause, reading) = (batch.cause_of_event(index), Reading::of(event.data));
                let who = who(event.tenant, event.subject);
                let row = host.get(TOTALS, &who).map_err(host_error)?;
                let n = row.map_or(0, |row| numbers(&row).0);
                // The plugin itself must not refuse foreign rows, because the host must.
                if reading != Reading::Foreign && !reading.fits(kind, n) {
                    return Err(refusal(reading, cause));
                }
                let mut extra = if flaws.batch_dependent { batch.events.len() as i64 } else { 0 };
                if flaws.late.is_some_and(|from| batch.offsets[index] >= from) {
                    let seen = &mut memory.entry(String::new()).or_default().0;
                    *seen += 1;
                    extra += *seen;
                }
                let memory = flaws.remembers.then_some(&mut *memory);
                let read = Read { cause, who: &who, time: event.time, reading, extra };
                apply_one(host, kind, &read, memory).map_err(host_error)?;
                if let Some(data) = reading.emitted() {
                    emit_at_once(host, cause, &event, data).map_err(host_error)?;
                }
                let owner = owner(kind, event.tenant, reading);
                if owner.is_empty() {
                    continue;
                }
                let row = (format!("{owner}\0{}", event.subject), owned(n + 1));
                if flaws.coalesces {
                    held.push(row);
                    continue;
                }
                let by = flaws.tenant_of_batch.then(|| by_any_of(batch, owner)).flatten();
                let by = by.unwrap_or(cause);
                host.put(by, OWNED, &row.0, row.1.as_bytes()).map_err(host_error)?;
            }
            for (key, value) in held {
                let last = batch.cause_of_event(batch.events.len() - 1);
                host.put(last, OWNED, &key, value.as_bytes()).map_err(host_error)?;
            }
            Ok(())
        };
    Arc::new(NativePlugin::new(manifest(kind), apply))
}

/// Finds an event of the batch whose tenant is `owner`.
fn by_any_of(batch: &Batch, owner: &str) -> Option<Cause> {
    let index = batch.events.iter().position(|event| event.tenant == owner)?;
    Some(batch.cause_of_event(index))
}

fn refusal(reading: Reading, cause: Cause) -> ApplyError {
    if reading == Reading::Trap {
        let message = "unreachable".into();
        return ApplyError::Trapped { kind: TrapKind::Trap, message, backtrace: String::new() };
    }
    ApplyError::Failed { cause: Some(cause), message: "bad data".into() }
}

/// An event as the meter reads it.
struct Read<'a> {
    cause: Cause,
    /// The owner of the rows that the event changes; see [`who`].
    who: &'a str,
    time: Timestamp,
    reading: Reading,
    extra: i64,
}

/// Computes the value that a reading adds.
#[must_use]
pub fn value_of(kind: Kind, reading: Reading) -> i64 {
    let value = if let Reading::Value(value) = reading { value } else { 0 };
    value + kind.offset
}

/// Formats a row of the table `totals`.
#[must_use]
pub fn total(n: i64, sum: i64) -> String {
    format!(r#"{{"n":{n},"sum":{sum}}}"#)
}

/// Computes the owner of the rows that an event changes. If two tenants have the same subject,
/// these are two owners.
#[must_use]
pub fn who(tenant: &str, subject: &str) -> String {
    format!("{tenant}/{subject}")
}

/// Returns the tenant whose row an event writes; empty if it writes no such row.
#[must_use]
pub fn owner(kind: Kind, tenant: &str, reading: Reading) -> &str {
    match (reading == Reading::Foreign && !kind.mended, tenant) {
        (true, "a") => "b",
        (true, _) => "a",
        (false, own) => own,
    }
}

/// Formats a row of the table `owned`.
#[must_use]
pub fn owned(n: i64) -> String {
    n.to_string()
}

/// Formats a row of the table `recent`.
#[must_use]
pub fn recent(value: i64) -> String {
    format!(r#"{{"value":{value}}}"#)
}

/// Computes the timer and the key of the window to which an event belongs.
#[must_use]
pub fn window(who: &str, time: Timestamp, reading: Reading) -> (Timestamp, String) {
    let end = (time.0.div_euclid(WINDOW) + 1) * WINDOW;
    let mark = if reading == Reading::BadTimer { "!" } else { "" };
    (Timestamp(end), format!("{end:020}/{who}{mark}"))
}

fn apply_one(
    host: &mut dyn Host,
    kind: Kind,
    read: &Read<'_>,
    memory: Option<&mut BTreeMap<String, (i64, i64)>>,
) -> Result<(), HostError> {
    let Read { cause, who, time, reading, extra } = *read;
    let stored = host.get(TOTALS, who)?.map_or((0, 0), |row| numbers(&row));
    let (n, sum) = match &memory {
        Some(memory) => memory.get(who).copied().unwrap_or_default(),
        None => stored,
    };
    let (n, sum) = (n + 1, sum + value_of(kind, reading) + extra);
    if let Some(memory) = memory {
        memory.insert(who.into(), (n, sum));
    }
    host.put(cause, TOTALS, who, total(n, sum).as_bytes())?;
    if sum % 7 == 0 {
        host.delete(cause, RECENT, who)?;
    } else {
        host.put(cause, RECENT, who, recent(sum).as_bytes())?;
    }
    let (end, key) = window(who, time, reading);
    let count = host.get(WINDOWS, &key)?.map_or(0, |row| row.len());
    host.put(cause, WINDOWS, &key, &vec![b'x'; count + 1])?;
    if sum % 11 == 0 { host.cancel_timer(cause, &key) } else { host.set_timer(cause, end, &key) }
}

fn emit_at_once(
    host: &mut dyn Host,
    cause: Cause,
    event: &EventRef<'_>,
    data: &str,
) -> Result<(), HostError> {
    host.emit(NewEvent {
        cause,
        kind: CLOSED.into(),
        subject: event.subject.into(),
        time: event.time,
        data: data.into(),
        ..NewEvent::default()
    })
}

fn numbers(row: &[u8]) -> (i64, i64) {
    let row: serde_json::Value = serde_json::from_slice(row).unwrap_or_default();
    (row["n"].as_i64().unwrap_or_default(), row["sum"].as_i64().unwrap_or_default())
}

fn close(batch: &Batch, host: &mut dyn Host, cause: Cause, key: &str) -> Result<(), HostError> {
    let count = host.get(WINDOWS, key)?.map_or(0, |row| row.len());
    host.delete(cause, WINDOWS, key)?;
    host.emit(NewEvent {
        cause,
        kind: CLOSED.into(),
        subject: key.into(),
        time: batch.watermark,
        data: count.to_string().into_bytes(),
        ..NewEvent::default()
    })
}

/// A plugin whose calls can be made to fail through a fault of the host.
pub struct Flaky {
    inner: Arc<dyn Plugin>,
    /// The number of further calls that fail.
    faults: Arc<AtomicU32>,
}

struct FlakyInstance {
    inner: Box<dyn Instance>,
    faults: Arc<AtomicU32>,
}

impl Flaky {
    /// Wraps `inner`. The next calls fail while `faults` is not 0.
    #[must_use]
    pub fn new(inner: Arc<dyn Plugin>, faults: Arc<AtomicU32>) -> Self {
        Self { inner, faults }
    }
}

impl Plugin for Flaky {
    fn manifest(&self) -> &Manifest {
        self.inner.manifest()
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, InstantiateError> {
        let faults = Arc::clone(&self.faults);
        Ok(Box::new(FlakyInstance { inner: self.inner.instantiate()?, faults }))
    }
}

impl Instance for FlakyInstance {
    fn apply(&mut self, batch: &Batch, host: Box<dyn Host>, fuel: u64) -> ApplyOutcome {
        let fails = |left: u32| left.checked_sub(1);
        if self.faults.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fails).is_err() {
            return self.inner.apply(batch, host, fuel);
        }
        // The call writes before it fails, so that the host must discard the writes.
        let applied = self.inner.apply(batch, host, fuel);
        ApplyOutcome { result: Err(ApplyError::Fault("told to fail".into())), ..applied }
    }
}

/// A collection of plugins, each under the name that [`sha256`] gives it.
#[derive(Default)]
pub struct Shelf(Mutex<BTreeMap<String, Arc<dyn Plugin>>>);

impl Shelf {
    /// Adds a plugin to the collection.
    pub fn put(&self, sha256: &str, plugin: Arc<dyn Plugin>) {
        self.0.lock().insert(sha256.into(), plugin);
    }
}

impl PluginSource for Shelf {
    fn load(&self, version: &VersionRecord) -> Result<Arc<dyn Plugin>, PluginError> {
        let held = self.0.lock().get(&version.sha256).cloned();
        held.ok_or_else(|| PluginError::Unfit(format!("there is no plugin `{}`", version.sha256)))
    }
}
