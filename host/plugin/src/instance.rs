//! Implements a loaded plugin and its running instances. This module calls the plugin, enforces the
//! limits of calls, and writes the error texts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lantern_core::{
    ApplyError, ApplyOutcome, Attributes, Batch, Cause, Column, Host, Instance, InstantiateError,
    Manifest, ManifestError, Member, MemberColumn, MemberValues, Plugin, Timestamp, TrapKind,
    VersionSource, decode_members,
};
use wasmtime::component::ResourceTableError;
use wasmtime::{Engine, Store, Trap, WasmBacktrace};

use crate::bindings::v0_2::lantern::projection::types;
use crate::bindings::v0_2::{Interpreter, InterpreterPre};
use crate::engine::EPOCH_TICK;
use crate::store_data::{CallEnd, GuestState, in_words, shortage};
use crate::wasi::RESOURCES_MAX;
use crate::{LoadError, PluginLimits, manifest};

/// The maximum length of a backtrace that is returned, in bytes.
const BACKTRACE_BYTES_MAX: usize = 8 << 10;

/// Linked code that can run. All plugins that were loaded from the same upload share it.
pub(crate) struct Linked {
    pub(crate) engine: Engine,
    pub(crate) limits: Arc<PluginLimits>,
    pub(crate) pre: InterpreterPre<GuestState>,
    /// Whether the plugin imports WASI.
    pub(crate) wasi: bool,
    /// Whether the plugin is an interpreter, which imports the source code of the version.
    pub(crate) source: bool,
}

/// A loaded plugin with its parameters.
pub(crate) struct LoadedPlugin {
    linked: Arc<Linked>,
    parameters: String,
    source: Option<Arc<VersionSource>>,
    manifest: Manifest,
}

/// Why `setup` returned no manifest.
enum SetupError {
    /// The plugin's `setup` returned an error.
    Refused(String),
    /// No instance could be created within the limits.
    Start(String),
    /// The machine has no memory or address space.
    Shortage(String),
    /// The plugin's `setup` trapped or exceeded a limit.
    Trapped(ApplyError),
    /// The manifest breaks a rule.
    Manifest(ManifestError),
}

impl LoadedPlugin {
    /// Loads a plugin: calls `setup` on two instances, and compares the two manifests.
    pub(crate) fn load(
        linked: Arc<Linked>,
        parameters: &str,
        source: Option<&VersionSource>,
    ) -> Result<Self, LoadError> {
        match source {
            None if linked.source => return Err(LoadError::NoSource),
            Some(VersionSource { name, .. }) if !linked.source => {
                return Err(LoadError::UnusedSource { name: name.clone() });
            }
            _ => {}
        }
        let source = source.cloned().map(Arc::new);
        let limit = linked.limits.fuel_setup;
        let setup = || match linked.start(parameters, source.as_ref()) {
            Ok((_, manifest)) => Ok(manifest),
            Err(SetupError::Refused(message)) if linked.source => {
                Err(LoadError::SourceRefused { message })
            }
            Err(SetupError::Refused(message)) => Err(LoadError::Setup { message }),
            Err(SetupError::Start(reason)) => Err(LoadError::Instance { reason }),
            Err(SetupError::Shortage(reason)) => Err(LoadError::Host { reason }),
            Err(SetupError::Manifest(error)) => Err(LoadError::Manifest(error)),
            Err(SetupError::Trapped(ApplyError::Trapped {
                kind: TrapKind::Fuel,
                backtrace,
                ..
            })) => Err(LoadError::SetupFuel { limit, backtrace }),
            Err(SetupError::Trapped(ApplyError::Trapped { message, backtrace, .. })) => {
                Err(LoadError::SetupTrapped { message, backtrace })
            }
            Err(SetupError::Trapped(error)) => Err(LoadError::Host { reason: error.to_string() }),
        };
        let manifest = setup()?;
        if let Some(field) = manifest::difference(&manifest, &setup()?) {
            return Err(LoadError::Varies { field: field.into() });
        }
        Ok(Self { linked, parameters: parameters.to_owned(), source, manifest })
    }
}

impl Plugin for LoadedPlugin {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, InstantiateError> {
        let (instance, manifest) = self
            .linked
            .start(&self.parameters, self.source.as_ref())
            .map_err(|error| match error {
                SetupError::Refused(message) => InstantiateError::Setup(message),
                SetupError::Start(reason) | SetupError::Shortage(reason) => {
                    InstantiateError::Host(reason)
                }
                SetupError::Manifest(error) => InstantiateError::Changed(error.to_string()),
                SetupError::Trapped(ApplyError::Fault(reason)) => InstantiateError::Host(reason),
                SetupError::Trapped(error) => InstantiateError::Setup(error.to_string()),
            })?;
        match manifest::difference(&self.manifest, &manifest) {
            Some(field) => Err(InstantiateError::Changed(format!("it has another {field}"))),
            None => Ok(Box::new(instance)),
        }
    }
}

impl Linked {
    /// Creates an instance and calls its `setup`.
    fn start(
        self: &Arc<Self>,
        parameters: &str,
        source: Option<&Arc<VersionSource>>,
    ) -> Result<(RunningInstance, Manifest), SetupError> {
        let limits = &self.limits;
        let mut store = Store::new(&self.engine, GuestState::new(Arc::clone(limits), self.wasi));
        store.data_mut().source = source.cloned();
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(limits.host_call_bytes_max);
        store.set_max_component_handles(limits.handles_max);
        store.data_mut().begin(None, limits.fuel_setup, 0);
        ready(&mut store, limits.fuel_setup);
        let guest = match self.pre.instantiate(&mut store) {
            Ok(guest) => guest,
            Err(error) => return Err(start_error(&store, &error)),
        };
        let answer = guest.lantern_projection_projector().call_setup(&mut store, parameters);
        let (_, host_fuel) = store.data_mut().end();
        if let Some(shortage) = store.data_mut().memory.shortage.take() {
            return Err(SetupError::Shortage(shortage));
        }
        let manifest = match answer {
            Ok(Ok(manifest)) => manifest::convert(manifest).map_err(SetupError::Manifest)?,
            Ok(Err(message)) => {
                return Err(SetupError::Refused(store.data().cut(&message).to_owned()));
            }
            Err(error) => {
                let call = CallFuel {
                    fuel: limits.fuel_setup,
                    key: "plugin.limits.fuel_setup",
                    host_fuel,
                };
                return Err(SetupError::Trapped(ended(store.data(), &error, &call)));
            }
        };
        metrics::counter!("lantern_plugin_instances_total").increment(1);
        metrics::gauge!("lantern_plugin_instances").increment(1);
        let instance = RunningInstance {
            store,
            guest,
            _linked: Arc::clone(self),
            attributes: manifest.attributes,
            members: manifest.members.clone(),
            times: Vec::new(),
            watermarks: Vec::new(),
            over: false,
        };
        Ok((instance, manifest))
    }
}

/// Sets the fuel and the time limit for the next call.
fn ready(store: &mut Store<GuestState>, fuel: u64) {
    store.set_fuel(fuel).expect("the engine counts fuel");
    let ms = u128::from(store.data().limits.apply_ms);
    let ticks = u64::try_from(ms.div_ceil(EPOCH_TICK.as_millis())).unwrap_or(u64::MAX);
    // One tick is added because the current tick may end soon. So no call gets less time than the
    // limit.
    store.set_epoch_deadline(ticks.saturating_add(1));
}

fn start_error(store: &Store<GuestState>, error: &wasmtime::Error) -> SetupError {
    if error.is::<Trap>() || error.is::<CallEnd>() {
        let fuel = store.data().limits.fuel_setup;
        let call = CallFuel { fuel, key: "plugin.limits.fuel_setup", host_fuel: 0 };
        return SetupError::Trapped(ended(store.data(), error, &call));
    }
    if let Some(what) = &store.data().memory.refused {
        return SetupError::Start(format!("at its start it needs {what}"));
    }
    let (text, limits) = (format!("{error:#}"), &store.data().limits);
    // The host checks these limits itself, because the engine has no error types for them.
    let counted = [
        ("instance count", "core instances", limits.core_instances_max, "core_instances_max"),
        ("memory count", "memories", limits.memories_max, "memories_max"),
        ("table count", "tables", limits.tables_max, "tables_max"),
    ];
    let passed = counted.iter().find(|(sign, ..)| text.contains(sign));
    match passed {
        Some((_, what, limit, key)) => {
            SetupError::Start(format!("it has more than {limit} {what} (`plugin.limits.{key}`)"))
        }
        None => SetupError::Shortage(shortage(error)),
    }
}

/// An instance whose `setup` has returned.
struct RunningInstance {
    store: Store<GuestState>,
    guest: Interpreter,
    /// Holds the linked code, so that another load of the same upload can share it.
    _linked: Arc<Linked>,
    /// The attributes of events that the guest requests.
    attributes: Attributes,
    members: Vec<Member>,
    /// The times of the events in a batch, as integers.
    times: Vec<i64>,
    watermarks: Vec<i64>,
    /// Whether a call has failed. If so, the content of the guest's memory is unknown, and the
    /// instance must not be used again.
    over: bool,
}

impl Drop for RunningInstance {
    fn drop(&mut self) {
        metrics::gauge!("lantern_plugin_instances").decrement(1);
    }
}

impl Instance for RunningInstance {
    fn apply(&mut self, batch: &Batch, host: Box<dyn Host>, fuel: u64) -> ApplyOutcome {
        if self.over {
            let result = Err(ApplyError::Fault(
                "the instance was used again after a call that failed".into(),
            ));
            let memory_bytes = self.memory_bytes();
            return ApplyOutcome { host, result, fuel: 0, elapsed: Duration::ZERO, memory_bytes };
        }
        let started = Instant::now();
        self.store.data_mut().begin(Some(host), fuel, watermark_of(batch));
        ready(&mut self.store, fuel);
        let answer = self.call(batch);
        let left = self.store.get_fuel().expect("the engine counts fuel");
        let (host, host_fuel) = self.store.data_mut().end();
        let host = host.expect("it was given above and nothing else takes it");
        let result = match answer {
            Ok(Ok(())) => Ok(()),
            Ok(Err(failure)) => Err(self.failed(batch, failure)),
            Err(error) => {
                let call = CallFuel { fuel, key: "engine.fuel_event", host_fuel };
                Err(ended(self.store.data(), &error, &call))
            }
        };
        // If the machine lacked memory, this is a fault of the host, whatever the plugin returned.
        // On another machine the result would be different.
        let result = match self.store.data_mut().memory.shortage.take() {
            Some(shortage) => Err(ApplyError::Fault(shortage)),
            None => result,
        };
        self.over = result.is_err();
        let used = (fuel - left.min(fuel)).saturating_add(host_fuel);
        let elapsed = started.elapsed();
        ApplyOutcome { host, result, fuel: used, elapsed, memory_bytes: self.memory_bytes() }
    }
}

impl RunningInstance {
    /// Passes the batch to the guest, without copying the host's columns first.
    fn call(&mut self, batch: &Batch) -> wasmtime::Result<Result<(), types::Failure>> {
        let events = &batch.events;
        let columns = events.columns();
        self.times.clear();
        self.times.extend(events.times().iter().map(|time| time.0));
        self.watermarks.clear();
        self.watermarks.extend(batch.watermarks.iter().map(|time| time.0));
        let timers: Vec<_> = batch
            .timers
            .iter()
            .map(|t| types::Timer { at: t.at.0, key: &t.key, offset: t.offset.0 })
            .collect();
        let members = decode_members(&self.members, &columns.data);
        let members: Vec<_> = members.iter().map(lower_member).collect();
        // The host may have read more columns than the guest requested.
        let (requested, none) = (self.attributes, Column::new());
        let lower = |requested: bool, column| lower(if requested { column } else { &none });
        let type_names: Vec<_> = events.type_names().iter().map(String::as_str).collect();
        let batch = types::Batch {
            partition: batch.partition.0,
            timers: &timers,
            watermark: watermark_of(batch),
            offsets: &batch.offsets,
            times: &self.times,
            watermarks: &self.watermarks,
            type_names: &type_names,
            types: events.types(),
            id: lower(requested.id, &columns.id),
            source: lower(requested.source, &columns.source),
            subject: lower(requested.subject, &columns.subject),
            tenant: lower(requested.tenant, &columns.tenant),
            dataschema: lower(requested.dataschema, &columns.dataschema),
            datacontenttype: lower(requested.datacontenttype, &columns.datacontenttype),
            extensions: lower(requested.extensions, &columns.extensions),
            data: lower(requested.data, &columns.data),
            members: &members,
        };
        self.guest.lantern_projection_projector().call_apply(&mut self.store, batch)
    }

    fn failed(&self, batch: &Batch, failure: types::Failure) -> ApplyError {
        let message = self.store.data().cut(&failure.message);
        let len = batch.len();
        match failure.cause {
            Some(cause) if cause as usize >= len => ApplyError::Failed {
                cause: None,
                message: format!(
                    "{message} (it names {cause} as the cause, but the batch has {len} timers and events)"
                ),
            },
            cause => ApplyError::Failed { cause: cause.map(Cause), message: message.to_owned() },
        }
    }

    fn memory_bytes(&self) -> u64 {
        self.store.data().memory.bytes() as u64
    }
}

/// Returns the watermark at which the timers of `batch` are due, in microseconds;
/// [`Timestamp::MIN`] if there are no timers.
///
/// A guest must not see a watermark while it applies events. A batch may span several ticks, so the
/// watermark at its beginning depends on how events were divided into batches.
fn watermark_of(batch: &Batch) -> i64 {
    if batch.timers.is_empty() { Timestamp::MIN.0 } else { batch.watermark.0 }
}

fn lower(column: &Column) -> types::ColumnParam<'_> {
    types::ColumnParam { ends: column.ends(), bytes: column.bytes() }
}

fn lower_member(column: &MemberColumn) -> types::MemberColumn<'_> {
    use types::MemberValues as Lowered;
    types::MemberColumn {
        validity: &column.validity,
        values: match &column.values {
            MemberValues::Integers(values) => Lowered::Integers(values),
            MemberValues::Timestamps(values) => Lowered::Timestamps(values),
            MemberValues::Numbers(values) => Lowered::Numbers(values),
            MemberValues::Booleans(bits) => Lowered::Booleans(bits),
            MemberValues::Texts(values) => Lowered::Texts(lower(values)),
            MemberValues::Jsons(values) => Lowered::Jsons(lower(values)),
        },
        mismatched: &column.mismatched,
    }
}

/// The fuel limit of a call, for error texts.
struct CallFuel {
    fuel: u64,
    /// The name of the setting that is the limit.
    key: &'static str,
    host_fuel: u64,
}

/// Returns the error of a call that ended without returning.
fn ended(state: &GuestState, error: &wasmtime::Error, call: &CallFuel) -> ApplyError {
    let backtrace = error.downcast_ref::<WasmBacktrace>().map(backtrace).unwrap_or_default();
    let trapped = |kind, message| {
        metrics::counter!("lantern_plugin_traps_total", "kind" => kind_name(kind)).increment(1);
        ApplyError::Trapped { kind, message, backtrace: backtrace.clone() }
    };
    let out_of_fuel = || {
        let CallFuel { fuel, key, host_fuel } = call;
        let host = if *host_fuel > 0 {
            format!(", of which calls to the host used {host_fuel}")
        } else {
            String::new()
        };
        format!("it used up its fuel: the call had {fuel} (`{key}`){host}")
    };
    match error.downcast_ref::<CallEnd>() {
        Some(CallEnd::Guest(message)) => return trapped(TrapKind::HostCall, message.clone()),
        Some(CallEnd::Fault(message)) => return ApplyError::Fault(message.clone()),
        Some(CallEnd::Fuel) => return trapped(TrapKind::Fuel, out_of_fuel()),
        None => {}
    }
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => return trapped(TrapKind::Fuel, out_of_fuel()),
        Some(Trap::Interrupt) => {
            return ApplyError::Fault(format!(
                "the call took longer than {} ms of wall time (`plugin.limits.apply_ms`)",
                state.limits.apply_ms
            ));
        }
        _ => {}
    }
    let last_message = state
        .last_error()
        .map(|text| format!("; its last message was: {text}"))
        .unwrap_or_default();
    let ending = Ending::of(error);
    let what = ending.describe(&state.limits);
    match &state.memory.refused {
        Some(refused) => trapped(
            TrapKind::Memory,
            format!("{what}, after it was refused {refused}{last_message}"),
        ),
        None => trapped(ending.kind(), format!("{what}{last_message}")),
    }
}

/// Why the engine ended a call. The call did not return, and the host did not end it.
#[derive(Debug)]
enum Ending {
    Exit(i32),
    Trap(Trap),
    /// The plugin passed more than `host_call_bytes_max` bytes in one host call.
    HostCallBytes,
    /// The plugin held more than `handles_max` handles.
    Handles,
    /// The plugin held more resources of the host than [`RESOURCES_MAX`].
    Resources,
    /// Another reason. Contains the engine's text.
    Rule(String),
}

impl Ending {
    fn of(error: &wasmtime::Error) -> Self {
        if let Some(exit) = error.downcast_ref::<wasmtime_wasi::I32Exit>() {
            return Self::Exit(exit.0);
        }
        if let Some(trap) = error.downcast_ref::<Trap>() {
            return Self::Trap(*trap);
        }
        if let Some(ResourceTableError::Full) = error.downcast_ref() {
            return Self::Resources;
        }
        // The engine has no public error types for these two limits, only texts.
        let text = error.root_cause().to_string();
        if text.starts_with("too much data is being copied between the host and the guest") {
            Self::HostCallBytes
        } else if text.contains("store handle limit exceeded") {
            Self::Handles
        } else {
            Self::Rule(text)
        }
    }

    fn kind(&self) -> TrapKind {
        match self {
            Self::HostCallBytes => TrapKind::HostCall,
            Self::Handles | Self::Resources => TrapKind::Memory,
            Self::Exit(_) | Self::Trap(_) | Self::Rule(_) => TrapKind::Trap,
        }
    }

    fn describe(&self, limits: &PluginLimits) -> String {
        match self {
            Self::Exit(code) => format!("it exited with code {code}"),
            Self::Trap(Trap::UnreachableCodeReached) => {
                "it trapped: `unreachable` was executed (a panic or abort)".into()
            }
            Self::Trap(trap) => {
                let text = trap.to_string();
                format!("it trapped: {}", text.strip_prefix("wasm trap: ").unwrap_or(&text))
            }
            Self::HostCallBytes => format!(
                "it passed more than {} to one host call (`plugin.limits.host_call_bytes_max`)",
                in_words(limits.host_call_bytes_max)
            ),
            Self::Handles => format!(
                "it held more than {} handles of resources (`plugin.limits.handles_max`)",
                limits.handles_max
            ),
            Self::Resources => {
                format!("it held more than {RESOURCES_MAX} resources of WASI, such as streams")
            }
            Self::Rule(text) => format!("it broke the rules of the component model: {text}"),
        }
    }
}

fn kind_name(kind: TrapKind) -> &'static str {
    match kind {
        TrapKind::Fuel => "fuel",
        TrapKind::Memory => "memory",
        TrapKind::HostCall => "host-call",
        _ => "trap",
    }
}

fn backtrace(trace: &WasmBacktrace) -> String {
    let text = trace.to_string();
    // Nothing else in the first line of the engine's text is useful.
    let frames = text.split_once('\n').map_or("", |(_, frames)| frames);
    frames[..frames.floor_char_boundary(BACKTRACE_BYTES_MAX)].to_owned()
}
