//! Folds events like the host. A projection cannot notice a difference.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{Emitted, Level, Outcome, TestEvent};
use crate::Timestamp;
use crate::bindings::lantern::projection::types as wit;
use crate::host::native::{self, MemoryHost, Trigger};
use crate::projection::{Failure, Instance, Projection};
use crate::row::Stored;

/// The number of events in a batch, unless [`Harness::batch_size`] sets another number.
const BATCH_EVENTS: usize = 1_000;

/// The maximum number of timers that fire in one call.
const BATCH_TIMERS: usize = 1_000;

/// A projection and its host in memory; see [the module](crate::testing).
pub struct Harness<P> {
    parameters: String,
    batch_events: usize,
    drop_instances: bool,
    manifest: wit::Manifest,
    instance: Option<Instance<P>>,
    host: MemoryHost,
    next_offset: u64,
    newest: Timestamp,
    watermark: Timestamp,
    parked: Vec<Parked>,
    /// The tenants and subjects that have parked events.
    parked_subjects: BTreeSet<(String, String)>,
    timer_failures: Vec<String>,
    halted: Option<String>,
}

/// An event that could not be applied, or that waits behind such an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The offset of the event: its index among all events that were fed.
    pub offset: u64,
    /// The event that could not be applied.
    pub event: TestEvent,
    /// The reason why it could not be applied.
    pub reason: String,
}

type NumberedEvent = (u64, TestEvent);

impl<P: Projection> Default for Harness<P> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P: Projection> Harness<P> {
    /// Creates a harness for the projection without parameters.
    ///
    /// # Panics
    /// Panics if the projection's `setup` fails.
    #[must_use]
    pub fn new() -> Self {
        Self::with_parameters("")
    }

    /// Creates a harness for the projection with the parameters `json`.
    ///
    /// # Panics
    /// Panics if the projection's `setup` fails.
    #[must_use]
    pub fn with_parameters(json: &str) -> Self {
        Self::try_with_parameters(json).unwrap_or_else(|error| panic!("setup failed: {error}"))
    }

    /// Creates a harness for the projection with the parameters `json`.
    ///
    /// # Errors
    /// Returns the message of the projection's `setup`, if it fails.
    pub fn try_with_parameters(json: &str) -> Result<Self, String> {
        let (instance, manifest) = Instance::setup(json).map_err(|error| error.to_string())?;
        Ok(Self {
            parameters: json.to_owned(),
            batch_events: BATCH_EVENTS,
            drop_instances: false,
            manifest,
            instance: Some(instance),
            host: MemoryHost::default(),
            next_offset: 0,
            newest: Timestamp::MIN,
            watermark: Timestamp::MIN,
            parked: Vec::new(),
            parked_subjects: BTreeSet::new(),
            timer_failures: Vec::new(),
            halted: None,
        })
    }

    /// Sets the maximum number of events in a batch, which must be at least 1. The default is
    /// 1,000.
    #[must_use]
    pub fn batch_size(mut self, events: usize) -> Self {
        self.batch_events = events.max(1);
        self
    }

    /// Sets whether every call gets a fresh instance, as the host may do.
    #[must_use]
    pub fn drop_instances(mut self, drop_instances: bool) -> Self {
        self.drop_instances = drop_instances;
        self
    }

    /// Appends `events` to the log and folds them. Each event gets the next offset, even if the
    /// projection does not subscribe to its type. Only events to which the projection subscribes
    /// advance event time.
    pub fn feed(&mut self, events: impl IntoIterator<Item = TestEvent>) -> &mut Self {
        let mut batch: Vec<NumberedEvent> = Vec::new();
        for event in events {
            let offset = self.next_offset;
            self.next_offset += 1;
            if !self.subscribes(&event.kind) {
                continue;
            }
            self.newest = self.newest.max(event.time);
            batch.push((offset, event));
            let watermark = self.watermark_now();
            if watermark > self.watermark {
                self.apply(std::mem::take(&mut batch));
                self.move_on(watermark);
            } else if batch.len() == self.batch_events {
                self.apply(std::mem::take(&mut batch));
            }
        }
        self.apply(batch);
        self
    }

    /// Folds the events in a text with one CloudEvent, as a JSON object, on each line.
    ///
    /// # Panics
    /// At the first line that is not an event.
    pub fn feed_ndjson(&mut self, text: &str) -> &mut Self {
        self.feed(super::read_ndjson(text))
    }

    /// Advances event time to `time` without an event, as the host does on an idle
    /// partition, and fires the timers that are due then.
    pub fn advance_to(&mut self, time: Timestamp) -> &mut Self {
        self.newest = self.newest.max(time);
        let watermark = self.watermark_now();
        if watermark > self.watermark {
            self.move_on(watermark);
        }
        self
    }

    /// Returns the rows of a table, by key, each parsed as JSON.
    ///
    /// # Panics
    /// Panics if there is no such table, or a row is not JSON.
    #[must_use]
    pub fn rows(&self, table: &str) -> BTreeMap<String, serde_json::Value> {
        self.raw_rows(table)
            .into_iter()
            .map(|(key, row)| {
                let row = serde_json::from_slice(&row)
                    .unwrap_or_else(|error| panic!("table `{table}`, row {key:?}: {error}"));
                (key, row)
            })
            .collect()
    }

    /// Returns the row of a table under `key`, parsed as JSON.
    ///
    /// # Panics
    /// Panics if there is no such table, or the row is not JSON.
    #[must_use]
    pub fn row(&self, table: &str, key: &str) -> Option<serde_json::Value> {
        let row = self.raw_rows(table).remove(key)?;
        let row = serde_json::from_slice(&row);
        Some(row.unwrap_or_else(|error| panic!("table `{table}`, row {key:?}: {error}")))
    }

    /// Returns the rows of a table, by key, as the type with which they are stored.
    ///
    /// # Panics
    /// Panics if there is no such table, or its rows are of another type.
    #[must_use]
    pub fn typed_rows<R: Stored>(&self, table: &str) -> BTreeMap<String, R> {
        self.raw_rows(table)
            .into_iter()
            .map(|(key, row)| {
                let row = R::decode(&row)
                    .unwrap_or_else(|error| panic!("table `{table}`, row {key:?}: {error}"));
                (key, row)
            })
            .collect()
    }

    /// Returns the bytes of the rows of a table, by key.
    ///
    /// # Panics
    /// Panics if there is no such table.
    #[must_use]
    pub fn raw_rows(&self, table: &str) -> BTreeMap<String, Vec<u8>> {
        let tables = &self.manifest.tables;
        let id = tables.iter().position(|it| it.name == table);
        let id = id.unwrap_or_else(|| panic!("there is no table `{table}`"));
        let rows = self.host.state.tables.get(&(id as u32));
        rows.cloned().unwrap_or_default()
    }

    /// Returns the due times of the timers, by key. The timers of windows have keys that begin with
    /// U+0001.
    #[must_use]
    pub fn timers(&self) -> BTreeMap<String, Timestamp> {
        let timers = self.host.state.timers.iter();
        timers.map(|(key, timer)| (key.clone(), Timestamp::from_micros(timer.at))).collect()
    }

    /// Returns the events that the projection has emitted, oldest first.
    ///
    /// # Panics
    /// Panics if the data of an emitted event is not JSON.
    #[must_use]
    pub fn emitted(&self) -> Vec<Emitted> {
        let emitted = self.host.state.emitted.iter();
        emitted
            .map(|(cause, event)| Emitted {
                cause: *cause,
                kind: event.type_.clone(),
                subject: event.subject.clone(),
                tenant: event.tenant.clone(),
                time: Timestamp::from_micros(event.time),
                data: serde_json::from_slice(&event.data)
                    .unwrap_or_else(|error| panic!("`{}`: data: {error}", event.type_)),
            })
            .collect()
    }

    /// Returns the log messages, including those of calls that failed.
    #[must_use]
    pub fn logs(&self) -> &[(Level, String)] {
        &self.host.logs
    }

    /// Returns the events that could not be applied, in the order of their offsets.
    #[must_use]
    pub fn parked(&self) -> &[Parked] {
        &self.parked
    }

    /// Returns the error messages of calls with timers that failed.
    #[must_use]
    pub fn timer_failures(&self) -> &[String] {
        &self.timer_failures
    }

    /// Returns the reason why the projection was halted; `None` if it was not. After a halt,
    /// further events have no effect.
    #[must_use]
    pub fn halted(&self) -> Option<&str> {
        self.halted.as_deref()
    }

    /// Returns the watermark. It is [`Timestamp::MIN`] before the first event, and if the manifest
    /// has no event time.
    #[must_use]
    pub fn watermark(&self) -> Timestamp {
        self.watermark
    }

    /// Returns the number of host calls that the projection has made. A test can use it to see the
    /// effect of the tables' cache.
    #[must_use]
    pub fn host_calls(&self) -> u64 {
        self.host.calls
    }

    /// Returns the complete result of the projection so far.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let tables = self.manifest.tables.iter();
        Outcome {
            tables: tables.map(|table| (table.name.clone(), self.raw_rows(&table.name))).collect(),
            timers: self.timers(),
            emitted: self.emitted(),
            parked: self.parked.clone(),
        }
    }

    fn subscribes(&self, kind: &str) -> bool {
        let wanted = self.manifest.subscribes.iter();
        wanted.into_iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => kind.starts_with(prefix),
            None => kind == pattern,
        })
    }

    /// Returns the time of the newest event minus the lateness, rounded down to a tick.
    fn watermark_now(&self) -> Timestamp {
        match &self.manifest.event_time {
            Some(rules) if self.newest > Timestamp::MIN => {
                let lateness = std::time::Duration::from_micros(rules.allowed_lateness);
                let tick = std::time::Duration::from_micros(rules.tick);
                (self.newest - lateness).floor(tick)
            }
            _ => Timestamp::MIN,
        }
    }

    /// Moves the watermark and fires the timers that are due. If these timers set further timers,
    /// the further timers wait for the next tick.
    fn move_on(&mut self, watermark: Timestamp) {
        self.watermark = watermark;
        let mut due = self
            .host
            .state
            .timers
            .iter()
            .filter(|(_, timer)| timer.due <= watermark.micros())
            .map(|(key, timer)| (timer.due, key.clone(), timer.at, timer.offset))
            .collect::<Vec<_>>();
        due.sort();
        let due: Vec<_> =
            due.into_iter().map(|(_, key, at, offset)| wit::Timer { at, key, offset }).collect();
        for timers in due.chunks(BATCH_TIMERS.min(self.batch_events)) {
            if self.halted.is_some() {
                return;
            }
            for timer in timers {
                self.host.state.timers.remove(&timer.key);
            }
            let batch = self.batch(&[], timers.to_vec());
            let triggers = timers.iter().map(|timer| Trigger {
                offset: timer.offset,
                tenant: timer.key.split_once('\0').map(|(tenant, _)| tenant.to_owned()),
            });
            self.host.triggers = triggers.collect();
            if let Err(failure) = self.call(&batch) {
                self.timer_failures.push(failure.message);
            }
        }
    }

    fn apply(&mut self, events: Vec<NumberedEvent>) {
        let mut free = Vec::with_capacity(events.len());
        for (offset, event) in events {
            if self.parked_subjects.contains(&(event.tenant.clone(), event.subject.clone())) {
                self.park(offset, event, "it waits behind a parked event of its subject");
            } else {
                free.push((offset, event));
            }
        }
        if free.is_empty() || self.halted.is_some() {
            return;
        }
        let batch = self.batch(&free, Vec::new());
        let triggers = free
            .iter()
            .map(|(offset, event)| Trigger { offset: *offset, tenant: Some(event.tenant.clone()) });
        self.host.triggers = triggers.collect();
        let Err(failure) = self.call(&batch) else {
            return;
        };
        match failure.cause {
            Some(place) => self.part_at(free, place as usize, &failure.message),
            None if free.len() == 1 => self.part_at(free, 0, &failure.message),
            None => {
                let second = free.split_off(free.len() / 2);
                self.apply(free);
                self.apply(second);
            }
        }
    }

    /// Applies the events before `place`, handles the event at `place`, and continues with the
    /// events after it.
    fn part_at(&mut self, mut events: Vec<NumberedEvent>, place: usize, reason: &str) {
        let rest = events.split_off((place + 1).min(events.len()));
        let failed = events.pop();
        self.apply(events);
        if let Some((offset, event)) = failed {
            match self.manifest.on_failure {
                wit::OnFailure::Halt => {
                    self.halted = Some(reason.to_owned());
                    return;
                }
                wit::OnFailure::ParkSubject => {
                    // Events without a subject have no order.
                    if !event.subject.is_empty() {
                        let key = (event.tenant.clone(), event.subject.clone());
                        self.parked_subjects.insert(key);
                    }
                }
                wit::OnFailure::ParkEvent => {}
            }
            self.park(offset, event, reason);
        }
        self.apply(rest);
    }

    fn park(&mut self, offset: u64, event: TestEvent, reason: &str) {
        let parked = Parked { offset, event, reason: reason.to_owned() };
        let place = self.parked.partition_point(|other| other.offset < offset);
        self.parked.insert(place, parked);
    }

    /// Calls the plugin's `apply` once. If it succeeds, its writes are kept; otherwise they are
    /// dropped together with the instance.
    fn call(&mut self, batch: &wit::Batch) -> Result<(), Failure> {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                let setup = Instance::setup(&self.parameters);
                setup.unwrap_or_else(|error| panic!("setup failed on a fresh instance: {error}")).0
            }
        };
        self.host.watermark = self.watermark.micros();
        native::swap(&mut self.host);
        let result = catch_unwind(AssertUnwindSafe(|| instance.apply(batch)));
        native::swap(&mut self.host);
        let result = result.unwrap_or_else(|panic| {
            Err(Failure {
                cause: None,
                message: format!("the plugin panicked: {}", panic_message(&*panic)),
            })
        });
        match result {
            Ok(()) => {
                self.check_rows();
                self.host.commit();
                if !self.drop_instances {
                    self.instance = Some(instance);
                }
                Ok(())
            }
            Err(failure) => {
                self.host.discard();
                Err(failure)
            }
        }
    }

    /// Checks that the rows match the manifest. Like the host, it refuses rows that do not.
    fn check_rows(&self) {
        for (table, key, value) in self.host.written() {
            let spec = self.manifest.tables.get(table as usize).filter(|spec| spec.public);
            let (Some(spec), Some(value)) = (spec, value) else {
                continue;
            };
            if let Err(why) = check_row(spec, value) {
                panic!("table `{}`, row {key:?}: {why}", spec.name);
            }
        }
    }

    fn batch(&self, events: &[NumberedEvent], timers: Vec<wit::Timer>) -> wit::Batch {
        let mut type_names: Vec<String> = Vec::new();
        let mut types = Vec::with_capacity(events.len());
        for (_, event) in events {
            let known = type_names.iter().position(|name| *name == event.kind);
            let place = known.unwrap_or_else(|| {
                type_names.push(event.kind.clone());
                type_names.len() - 1
            });
            types.push(place as u16);
        }
        let asked = self.manifest.attributes.bits();
        let column = |flag: wit::Attributes, value: fn(&TestEvent) -> &[u8]| {
            let mut column = wit::Column { ends: Vec::new(), bytes: Vec::new() };
            if asked & flag.bits() != 0 {
                for (_, event) in events {
                    column.bytes.extend_from_slice(value(event));
                    column.ends.push(column.bytes.len() as u32);
                }
            }
            column
        };
        let data: Vec<&[u8]> = events.iter().map(|(_, event)| &*event.data).collect();
        use wit::Attributes as A;
        wit::Batch {
            partition: 0,
            timers,
            watermark: self.watermark.micros(),
            offsets: events.iter().map(|(offset, _)| *offset).collect(),
            times: events.iter().map(|(_, it)| it.time.micros()).collect(),
            watermarks: vec![self.watermark.micros(); events.len()],
            type_names,
            types,
            id: column(A::ID, |event| event.id.as_bytes()),
            source: column(A::SOURCE, |event| event.source.as_bytes()),
            subject: column(A::SUBJECT, |event| event.subject.as_bytes()),
            tenant: column(A::TENANT, |event| event.tenant.as_bytes()),
            dataschema: column(A::DATASCHEMA, |event| event.dataschema.as_bytes()),
            datacontenttype: column(A::DATACONTENTTYPE, |event| event.datacontenttype.as_bytes()),
            extensions: column(A::EXTENSIONS, |event| event.extensions.as_bytes()),
            data: column(A::DATA, |event| &event.data),
            members: super::members::decode_members(&self.manifest.members, &data),
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message")
}

fn check_row(spec: &wit::Table, value: &[u8]) -> Result<(), String> {
    let row: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(value).map_err(|error| format!("not a JSON object: {error}"))?;
    for (name, value) in &row {
        let field = spec.fields.iter().find(|field| field.name == *name);
        let field = field.ok_or_else(|| format!("the field `{name}` is not declared"))?;
        use crate::FieldKind as Kind;
        let fits = value.is_null()
            || match field.kind {
                Kind::Integer => value.is_i64() || value.is_u64(),
                Kind::Number => value.is_number(),
                Kind::Text => value.is_string(),
                Kind::Boolean => value.is_boolean(),
                Kind::Timestamp => {
                    value.as_str().is_some_and(|text| text.parse::<Timestamp>().is_ok())
                }
                Kind::Json => true,
                Kind::Distinct | Kind::Percentiles => value.is_object(),
            };
        if !fits {
            return Err(format!("the field `{name}` is {value}, which is not a {:?}", field.kind));
        }
    }
    Ok(())
}
