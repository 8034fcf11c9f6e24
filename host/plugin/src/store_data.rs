//! Defines the data that the engine stores with an instance: the host that executes the instance's
//! calls, what the instance has used so far, and its memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use lantern_core::{Cause, Host, HostError, Level, VersionSource};
use thiserror::Error;

use crate::PluginLimits;
use crate::wasi::Wasi;

/// The fuel that one host call uses. A host call takes about as long as this many WebAssembly
/// instructions.
pub(crate) const HOST_CALL_FUEL: u64 = 200;

/// Why a host call ended the call of the guest.
#[derive(Debug, Error)]
pub(crate) enum CallEnd {
    /// The plugin made a mistake.
    #[error("{0}")]
    Guest(String),
    /// The host failed, and not the plugin. The text is the reason.
    #[error("{0}")]
    Fault(String),
    /// The work that the host did for the guest has used up the fuel of the call.
    #[error("all fuel consumed by host calls")]
    Fuel,
}

impl From<HostError> for CallEnd {
    fn from(error: HostError) -> Self {
        match error {
            HostError::Guest(message) => Self::Guest(message),
            HostError::Fault(message) => Self::Fault(message),
        }
    }
}

/// Counts the fuel that the host's work uses during a call. The limit is the same as that of the
/// guest's fuel. The two are counted separately, because the engine does not allow the guest's fuel
/// to be changed during a call. All code that uses fuel has a handle to this counter, on the thread
/// of the call.
#[derive(Debug, Default)]
pub(crate) struct HostFuel {
    used: AtomicU64,
    limit: AtomicU64,
}

impl HostFuel {
    fn begin(&self, limit: u64) {
        self.used.store(0, Ordering::Relaxed);
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Subtracts `fuel`, and one unit for each of `bytes` bytes. Fails if the limit is exceeded.
    pub(crate) fn charge(&self, fuel: u64, bytes: usize) -> Result<(), CallEnd> {
        let used = self.used().saturating_add(fuel).saturating_add(bytes as u64);
        self.used.store(used, Ordering::Relaxed);
        if used > self.limit.load(Ordering::Relaxed) { Err(CallEnd::Fuel) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// The data that the engine stores with an instance.
pub(crate) struct GuestState {
    pub(crate) limits: Arc<PluginLimits>,
    pub(crate) memory: MemoryMeter,
    pub(crate) wasi: Option<Box<Wasi>>,
    /// The source code that the guest runs, if it is an interpreter.
    pub(crate) source: Option<Arc<VersionSource>>,
    /// The host of the current call of `apply`; `None` during `setup`.
    host: Option<Box<dyn Host>>,
    host_fuel: Arc<HostFuel>,
    logged_bytes: usize,
    log_full: bool,
    /// The last message that the guest logged as an error. If a Rust guest panics, this is the
    /// panic message.
    last_error: Option<String>,
}

impl GuestState {
    pub(crate) fn new(limits: Arc<PluginLimits>, wasi: bool) -> Self {
        let memory = MemoryMeter::new(&limits);
        let host_fuel = Arc::<HostFuel>::default();
        Self {
            limits,
            memory,
            wasi: wasi.then(|| Box::new(Wasi::new(&host_fuel))),
            source: None,
            host: None,
            host_fuel,
            logged_bytes: 0,
            log_full: false,
            last_error: None,
        }
    }

    /// Prepares a call, which may use `fuel`.
    pub(crate) fn begin(&mut self, host: Option<Box<dyn Host>>, fuel: u64, watermark_us: i64) {
        self.host = host;
        self.host_fuel.begin(fuel);
        self.logged_bytes = 0;
        self.log_full = false;
        self.last_error = None;
        self.memory.refused = None;
        self.memory.shortage = None;
        if let Some(wasi) = &mut self.wasi {
            wasi.begin(watermark_us, self.limits.log_bytes_max);
        }
    }

    /// Ends a call: logs what the guest wrote with WASI, and returns the host and the fuel that the
    /// host's work has used.
    pub(crate) fn end(&mut self) -> (Option<Box<dyn Host>>, u64) {
        if let Some(output) = self.wasi.as_mut().map(|wasi| wasi.take_output()) {
            for line in output.lines().filter(|line| !line.trim().is_empty()) {
                // The call has ended, so a failure of logging does not change its result.
                let _ = self.log(None, Level::Info, line);
            }
            if self.last_error.is_none() {
                let output = output.trim();
                self.last_error = (!output.is_empty()).then(|| self.cut(output).to_owned());
            }
        }
        (self.host.take(), self.host_fuel.used())
    }

    /// Begins the host call `what`, in which the guest passes `bytes` bytes. Subtracts the fuel of
    /// the call and returns the host.
    pub(crate) fn call(&mut self, what: &str, bytes: usize) -> Result<&mut dyn Host, CallEnd> {
        self.charge(HOST_CALL_FUEL, bytes)?;
        self.host(what)
    }

    /// Returns the host for another step of a host call whose fuel was already subtracted.
    pub(crate) fn host(&mut self, what: &str) -> Result<&mut dyn Host, CallEnd> {
        match &mut self.host {
            Some(host) => Ok(host.as_mut()),
            None => Err(CallEnd::Guest(format!(
                "it called `{what}` outside of `apply`: setup may not touch tables, timers or the \
                 outbox"
            ))),
        }
    }

    /// Subtracts the fuel for work of the host.
    pub(crate) fn charge(&mut self, fuel: u64, bytes: usize) -> Result<(), CallEnd> {
        self.host_fuel.charge(fuel, bytes)
    }

    /// Passes a log message on, and cuts it if it is too long. If all messages of a call together
    /// exceed their limit, one note replaces this message and all further ones.
    pub(crate) fn log(
        &mut self,
        cause: Option<Cause>,
        level: Level,
        message: &str,
    ) -> Result<(), CallEnd> {
        let cut = self.cut(message);
        if level == Level::Error {
            self.last_error = Some(cut.to_owned());
        }
        let limit = self.limits.log_bytes_max;
        let (level, message) = if self.logged_bytes + cut.len() <= limit {
            self.logged_bytes += cut.len();
            (level, cut.to_owned())
        } else if self.log_full {
            return Ok(());
        } else {
            self.log_full = true;
            let note = format!(
                "further messages of this call were dropped: they exceed {limit} bytes (`plugin.limits.log_bytes_max`)"
            );
            (Level::Warn, note)
        };
        if let Some(host) = &mut self.host {
            host.log(cause, level, &message)?;
        } else {
            tracing::debug!(?level, message, "a plugin logged during setup");
        }
        Ok(())
    }

    /// Returns the last message that the guest logged as an error before it failed.
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Cuts `text` to the maximum length of a message.
    pub(crate) fn cut<'a>(&self, text: &'a str) -> &'a str {
        &text[..text.floor_char_boundary(self.limits.message_bytes_max)]
    }
}

/// Adds up the sizes of all memories and tables of an instance. The limits are for the sums, but
/// Wasmtime reports the growth of each memory and table separately.
pub(crate) struct MemoryMeter {
    bytes: usize,
    bytes_max: usize,
    elements: usize,
    elements_max: usize,
    core_instances_max: usize,
    memories_max: usize,
    tables_max: usize,
    /// The sizes of the last growth (memory and tables). If the growth fails, they are subtracted
    /// again.
    pending: (usize, usize),
    /// Whether the last growth exceeded the maximum that the memory itself declares.
    past_maximum: bool,
    /// The last request of this call that was refused, as text.
    pub(crate) refused: Option<String>,
    /// A resource that the machine could not provide in this call although the limits allow it. The
    /// call then fails with a fault of the host, and no event is parked.
    pub(crate) shortage: Option<String>,
}

impl MemoryMeter {
    fn new(limits: &PluginLimits) -> Self {
        Self {
            bytes: 0,
            bytes_max: limits.memory_bytes_max,
            elements: 0,
            elements_max: limits.table_elements_max,
            core_instances_max: limits.core_instances_max,
            memories_max: limits.memories_max,
            tables_max: limits.tables_max,
            pending: (0, 0),
            past_maximum: false,
            refused: None,
            shortage: None,
        }
    }

    /// Returns the linear memory in use, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    fn take_back(&mut self) {
        let (bytes, elements) = std::mem::take(&mut self.pending);
        self.bytes -= bytes;
        self.elements -= elements;
    }
}

impl wasmtime::ResourceLimiter for MemoryMeter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        if more > self.bytes_max.saturating_sub(self.bytes) {
            self.refused = Some(format!(
                "more than {} of memory (`plugin.limits.memory_bytes_max`)",
                in_words(self.bytes_max)
            ));
            return Ok(false);
        }
        // A growth beyond the memory's declared maximum fails later. It is subtracted then.
        debug_assert!(maximum.is_none_or(|maximum| current <= maximum));
        self.bytes += more;
        self.pending = (more, 0);
        self.past_maximum = maximum.is_some_and(|maximum| desired > maximum);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        if !self.past_maximum {
            self.shortage = Some(shortage(&error));
        }
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        if more > self.elements_max.saturating_sub(self.elements) {
            self.refused = Some(format!(
                "more than {} table elements (`plugin.limits.table_elements_max`)",
                self.elements_max
            ));
            return Ok(false);
        }
        self.elements += more;
        self.pending = (0, more);
        Ok(true)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn instances(&self) -> usize {
        self.core_instances_max
    }

    fn tables(&self) -> usize {
        self.tables_max
    }

    fn memories(&self) -> usize {
        self.memories_max
    }
}

/// Returns the error text for a machine that has no memory or address space. It says what to do.
pub(crate) fn shortage(error: &wasmtime::Error) -> String {
    format!(
        "the machine gives no memory for an instance of the plugin: {error:#}; each takes 4 GiB of address space (raise the limit of the process, `ulimit -v`) and up to `plugin.limits.memory_bytes_max` of memory"
    )
}

/// Returns a number of bytes, as text for people.
pub(crate) fn in_words(bytes: usize) -> String {
    if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) {
        format!("{} MiB", bytes >> 20)
    } else if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) {
        format!("{} KiB", bytes >> 10)
    } else {
        format!("{bytes} bytes")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use wasmtime::ResourceLimiter as _;

    use super::*;

    #[test]
    fn memories_are_summed_and_failed_growth_is_reverted() {
        let limits = PluginLimits { memory_bytes_max: 3 << 16, ..PluginLimits::default() };
        let mut meter = MemoryMeter::new(&limits);
        assert!(meter.memory_growing(0, 1 << 16, None).unwrap());
        assert!(meter.memory_growing(0, 1 << 16, None).unwrap());
        assert!(!meter.memory_growing(1 << 16, 3 << 16, None).unwrap());
        assert!(meter.refused.as_deref().unwrap().contains("192 KiB of memory"));
        assert!(meter.memory_growing(1 << 16, 2 << 16, Some(1 << 16)).unwrap());
        meter.memory_grow_failed(wasmtime::Error::msg("past its maximum")).unwrap();
        assert_eq!(meter.bytes(), 2 << 16);
        assert_eq!(meter.shortage, None, "the plugin asked for too much");
        assert!(meter.memory_growing(1 << 16, 2 << 16, Some(2 << 16)).unwrap());
        meter.memory_grow_failed(wasmtime::Error::msg("mprotect failed")).unwrap();
        let shortage = meter.shortage.as_deref().unwrap();
        assert!(shortage.contains("mprotect failed") && shortage.contains("ulimit -v"));
    }

    #[test]
    fn messages_are_cut_between_characters_and_dropped_past_the_limit() {
        let limits =
            PluginLimits { message_bytes_max: 5, log_bytes_max: 9, ..PluginLimits::default() };
        let mut state = GuestState::new(Arc::new(limits), false);
        state.begin(None, 1_000, 0);
        assert_eq!(state.cut("äöü"), "äö");
        for _ in 0..5 {
            state.log(None, Level::Error, "äöü").unwrap();
        }
        assert_eq!(state.logged_bytes, 8);
        assert!(state.log_full);
    }
}
