//! Implements a plugin whose code is a Rust closure, for tests.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::lock;
use crate::{
    ApplyError, ApplyOutcome, Batch, Host, HostError, Instance, InstantiateError, Manifest, Plugin,
    TrapKind,
};

/// The fuel that each call uses, in addition to the fuel for its events and timers.
const CALL_FUEL: u64 = 100;
/// The fuel that an event or a timer uses, unless a test sets another amount.
const EVENT_FUEL: u64 = 1_000;
/// The linear memory that an instance reports, in bytes.
const MEMORY_BYTES: u64 = 1 << 20;

type Apply<S> =
    dyn Fn(&Batch, &mut dyn Host, &mut S) -> Result<(), ApplyError> + Send + Sync + 'static;

/// A plugin whose code is a closure. The closure gets the batch, the host and the
/// instance's own state, which is `S::default()` in a fresh instance.
pub struct NativePlugin<S = ()> {
    manifest: Manifest,
    shared: Arc<SharedPlugin<S>>,
    faults: Mutex<VecDeque<InstantiateError>>,
}

struct SharedPlugin<S> {
    apply: Box<Apply<S>>,
    event_fuel: AtomicU64,
    made: AtomicU64,
    alive: AtomicU64,
    calls: AtomicU64,
}

impl<S: Default + Send + 'static> NativePlugin<S> {
    /// Returns a plugin with this manifest and code.
    pub fn new(
        manifest: Manifest,
        apply: impl Fn(&Batch, &mut dyn Host, &mut S) -> Result<(), ApplyError> + Send + Sync + 'static,
    ) -> Self {
        let shared = SharedPlugin {
            apply: Box::new(apply),
            event_fuel: AtomicU64::new(EVENT_FUEL),
            made: AtomicU64::new(0),
            alive: AtomicU64::new(0),
            calls: AtomicU64::new(0),
        };
        Self { manifest, shared: Arc::new(shared), faults: Mutex::new(VecDeque::new()) }
    }

    /// Sets the fuel that each event and timer of a batch uses. A call with too little
    /// fuel traps.
    pub fn set_event_fuel(&self, fuel: u64) {
        self.shared.event_fuel.store(fuel, Ordering::SeqCst);
    }

    /// Makes the next `instantiate` fail with `error`. If this is called several times, the
    /// errors apply to consecutive calls.
    pub fn fail_next_instantiate(&self, error: InstantiateError) {
        lock(&self.faults).push_back(error);
    }

    /// Returns how many instances were created so far.
    #[must_use]
    pub fn instances_made(&self) -> u64 {
        self.shared.made.load(Ordering::SeqCst)
    }

    /// Returns how many instances exist now.
    #[must_use]
    pub fn instances_alive(&self) -> u64 {
        self.shared.alive.load(Ordering::SeqCst)
    }

    /// Returns how often `apply` was called so far, over all instances.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.shared.calls.load(Ordering::SeqCst)
    }
}

impl<S: Default + Send + 'static> Plugin for NativePlugin<S> {
    fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    fn instantiate(&self) -> Result<Box<dyn Instance>, InstantiateError> {
        if let Some(fault) = lock(&self.faults).pop_front() {
            return Err(fault);
        }
        self.shared.made.fetch_add(1, Ordering::SeqCst);
        self.shared.alive.fetch_add(1, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        Ok(Box::new(NativeInstance { shared, state: S::default(), failed: false }))
    }
}

struct NativeInstance<S> {
    shared: Arc<SharedPlugin<S>>,
    state: S,
    failed: bool,
}

impl<S> Drop for NativeInstance<S> {
    fn drop(&mut self) {
        self.shared.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl<S: Send> Instance for NativeInstance<S> {
    /// # Panics
    /// Panics if the instance is used after an error, which the port forbids.
    fn apply(&mut self, batch: &Batch, mut host: Box<dyn Host>, fuel: u64) -> ApplyOutcome {
        assert!(!self.failed, "an instance must not be used after an error");
        self.shared.calls.fetch_add(1, Ordering::SeqCst);
        let count = (batch.events.len() + batch.timers.len()) as u64;
        let needed = CALL_FUEL + count * self.shared.event_fuel.load(Ordering::SeqCst);
        let result = if needed > fuel {
            Err(ApplyError::Trapped {
                kind: TrapKind::Fuel,
                message: format!("the call needs {needed} fuel, and the limit is {fuel}"),
                backtrace: String::new(),
            })
        } else {
            (self.shared.apply)(batch, host.as_mut(), &mut self.state)
        };
        self.failed = result.is_err();
        let fuel = needed.min(fuel);
        // The call takes one nanosecond for each unit of fuel, so that its time is the same in
        // every run.
        let elapsed = Duration::from_nanos(fuel);
        ApplyOutcome { host, result, fuel, memory_bytes: MEMORY_BYTES, elapsed }
    }
}

/// Returns the error that `apply` returns if a host call failed with `error`. A real plugin returns
/// the same.
#[must_use]
pub fn host_error(error: HostError) -> ApplyError {
    match error {
        HostError::Guest(message) => {
            ApplyError::Trapped { kind: TrapKind::HostCall, message, backtrace: String::new() }
        }
        HostError::Fault(message) => ApplyError::Fault(message),
    }
}
