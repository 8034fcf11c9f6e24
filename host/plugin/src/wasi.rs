//! Implements WASI 0.2 for languages that need it, with deterministic results:
//!
//! * The clock shows the watermark while timers fire, and 1970 while events are applied. Waiting
//!   takes no time.
//! * Random numbers have a fixed seed.
//! * There are no arguments, environment variables or files.
//! * Output to standard output and standard error is logged.
//! * There are no interfaces to the outside, such as sockets and HTTP.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use wasmtime::component::{HasData, HasSelf, Linker, Resource, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliCtx, WasiCliCtxView};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::p2::bindings::{cli, clocks, filesystem, io, random, sync};
use wasmtime_wasi::p2::{
    DynOutputStream, DynPollable, OutputStream, Pollable, StreamError, StreamResult, subscribe,
};

use crate::store_data::{CallEnd, GuestState, HOST_CALL_FUEL, HostFuel};

/// The supported interfaces of WASI, without the version of their package.
pub(crate) const INTERFACES: [&str; 20] = [
    "wasi:cli/environment",
    "wasi:cli/exit",
    "wasi:cli/stderr",
    "wasi:cli/stdin",
    "wasi:cli/stdout",
    "wasi:cli/terminal-input",
    "wasi:cli/terminal-output",
    "wasi:cli/terminal-stderr",
    "wasi:cli/terminal-stdin",
    "wasi:cli/terminal-stdout",
    "wasi:clocks/monotonic-clock",
    "wasi:clocks/wall-clock",
    "wasi:filesystem/preopens",
    "wasi:filesystem/types",
    "wasi:io/error",
    "wasi:io/poll",
    "wasi:io/streams",
    "wasi:random/insecure",
    "wasi:random/insecure-seed",
    "wasi:random/random",
];

/// The seed of the guest's random numbers. It is the same for every instance.
const SEED: u64 = 0x6C61_6E74_6572_6E21;
/// The maximum number of random bytes that one call returns.
const RANDOM_BYTES_MAX: u64 = 1 << 20;
/// The maximum number of bytes that one write to standard output accepts.
const WRITE_BYTES_MAX: usize = 64 << 10;
/// The fuel that a wait or a write to standard output uses; a write also uses one unit for each
/// byte. Both are expensive in the WASI library: a write of 4 KiB takes more than a microsecond.
const STREAM_FUEL: u64 = 2_000;
/// The maximum number of resources, such as streams, that an instance may have.
pub(crate) const RESOURCES_MAX: usize = 1024;

/// The state of WASI for one instance.
pub(crate) struct Wasi {
    table: ResourceTable,
    cli: WasiCliCtx,
    files: WasiFilesystemCtx,
    clock: GuestClock,
    random: GuestRandom,
    output: Arc<Mutex<GuestOutput>>,
    fuel: Arc<HostFuel>,
}

impl Wasi {
    /// Creates the state. The work of the host uses fuel from `fuel`.
    pub(crate) fn new(fuel: &Arc<HostFuel>) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(RESOURCES_MAX);
        Self {
            table,
            cli: WasiCliCtx::default(),
            files: WasiFilesystemCtx::default(),
            clock: GuestClock { wall_us: 0, monotonic_ns: 0 },
            random: GuestRandom { state: SEED },
            output: Arc::default(),
            fuel: Arc::clone(fuel),
        }
    }

    /// Prepares a call: sets the time that the clock shows, and the limit for output.
    pub(crate) fn begin(&mut self, watermark_us: i64, bytes_max: usize) {
        self.clock.wall_us = u64::try_from(watermark_us).unwrap_or(0);
        let mut output = lock(&self.output);
        *output = GuestOutput { text: Vec::new(), bytes_max };
    }

    /// Returns what the call has written to standard output and standard error.
    pub(crate) fn take_output(&mut self) -> String {
        let text = std::mem::take(&mut lock(&self.output).text);
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Adds each of the [`INTERFACES`] to the linker.
pub(crate) fn add_to_linker(linker: &mut Linker<GuestState>) -> wasmtime::Result<()> {
    let l = linker;
    cli::environment::add_to_linker::<GuestState, WasiCli>(l, cli_view)?;
    cli::exit::add_to_linker::<GuestState, WasiCli>(l, cli_view)?;
    cli::stdin::add_to_linker::<GuestState, WasiCli>(l, cli_view)?;
    cli::stdout::add_to_linker::<GuestState, HasSelf<Wasi>>(l, wasi)?;
    cli::stderr::add_to_linker::<GuestState, HasSelf<Wasi>>(l, wasi)?;
    cli::terminal_input::add_to_linker::<GuestState, WasiCli>(l, cli_view)?;
    cli::terminal_output::add_to_linker::<GuestState, WasiCli>(l, cli_view)?;
    cli::terminal_stdin::add_to_linker::<GuestState, WasiCli>(l, cli_view)?;
    cli::terminal_stdout::add_to_linker::<GuestState, WasiCli>(l, cli_view)?;
    cli::terminal_stderr::add_to_linker::<GuestState, WasiCli>(l, cli_view)?;
    clocks::wall_clock::add_to_linker::<GuestState, HasSelf<Wasi>>(l, wasi)?;
    clocks::monotonic_clock::add_to_linker::<GuestState, HasSelf<Wasi>>(l, wasi)?;
    filesystem::preopens::add_to_linker::<GuestState, WasiFilesystem>(l, files_view)?;
    sync::filesystem::types::add_to_linker::<GuestState, WasiFilesystem>(l, files_view)?;
    io::error::add_to_linker::<GuestState, WasiIo>(l, |s| &mut wasi(s).table)?;
    sync::io::poll::add_to_linker::<GuestState, HasSelf<Wasi>>(l, wasi)?;
    sync::io::streams::add_to_linker::<GuestState, WasiIo>(l, |s| &mut wasi(s).table)?;
    random::random::add_to_linker::<GuestState, HasSelf<Wasi>>(l, wasi)?;
    random::insecure::add_to_linker::<GuestState, HasSelf<Wasi>>(l, wasi)?;
    random::insecure_seed::add_to_linker::<GuestState, HasSelf<Wasi>>(l, wasi)?;
    Ok(())
}

fn wasi(state: &mut GuestState) -> &mut Wasi {
    state.wasi.as_mut().expect("a component that imports WASI is given it")
}

fn cli_view(state: &mut GuestState) -> WasiCliCtxView<'_> {
    let wasi = wasi(state);
    WasiCliCtxView { ctx: &mut wasi.cli, table: &mut wasi.table }
}

fn files_view(state: &mut GuestState) -> WasiFilesystemCtxView<'_> {
    let wasi = wasi(state);
    WasiFilesystemCtxView { ctx: &mut wasi.files, table: &mut wasi.table }
}

struct WasiIo;

impl HasData for WasiIo {
    type Data<'a> = &'a mut ResourceTable;
}

/// The clock that a guest sees. It depends only on the log.
struct GuestClock {
    /// The time of day, in microseconds since 1970.
    wall_us: u64,
    /// The monotonic time, in nanoseconds. It begins at 1, because Go treats 0 as a broken clock.
    /// Each read increases it by one, so a loop that waits for time to pass ends.
    monotonic_ns: u64,
}

impl clocks::wall_clock::Host for Wasi {
    fn now(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        self.fuel.charge(HOST_CALL_FUEL, 0)?;
        let micros = u32::try_from(self.clock.wall_us % 1_000_000).expect("under a million");
        Ok(clocks::wall_clock::Datetime {
            seconds: self.clock.wall_us / 1_000_000,
            nanoseconds: micros * 1_000,
        })
    }

    fn resolution(&mut self) -> wasmtime::Result<clocks::wall_clock::Datetime> {
        Ok(clocks::wall_clock::Datetime { seconds: 0, nanoseconds: 1_000 })
    }
}

impl clocks::monotonic_clock::Host for Wasi {
    fn now(&mut self) -> wasmtime::Result<u64> {
        self.fuel.charge(HOST_CALL_FUEL, 0)?;
        self.clock.monotonic_ns += 1;
        Ok(self.clock.monotonic_ns)
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        Ok(1)
    }

    /// Sets the clock to the end of the wait at once. Nothing else can happen during the wait.
    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.fuel.charge(STREAM_FUEL, 0)?;
        self.clock.monotonic_ns = self.clock.monotonic_ns.max(when);
        let ready = self.table.push(CompletedWait)?;
        subscribe(&mut self.table, ready)
    }

    fn subscribe_duration(&mut self, wait_ns: u64) -> wasmtime::Result<Resource<DynPollable>> {
        self.subscribe_instant(self.clock.monotonic_ns.saturating_add(wait_ns))
    }
}

impl sync::io::poll::Host for Wasi {
    fn poll(&mut self, of: Vec<Resource<DynPollable>>) -> wasmtime::Result<Vec<u32>> {
        self.fuel.charge(STREAM_FUEL.saturating_mul(of.len() as u64), 0)?;
        sync::io::poll::Host::poll(&mut self.table, of)
    }
}

impl sync::io::poll::HostPollable for Wasi {
    fn ready(&mut self, of: Resource<DynPollable>) -> wasmtime::Result<bool> {
        self.fuel.charge(STREAM_FUEL, 0)?;
        sync::io::poll::HostPollable::ready(&mut self.table, of)
    }

    fn block(&mut self, of: Resource<DynPollable>) -> wasmtime::Result<()> {
        self.fuel.charge(STREAM_FUEL, 0)?;
        sync::io::poll::HostPollable::block(&mut self.table, of)
    }

    fn drop(&mut self, of: Resource<DynPollable>) -> wasmtime::Result<()> {
        sync::io::poll::HostPollable::drop(&mut self.table, of)
    }
}

/// A wait that has ended.
struct CompletedWait;

#[wasmtime_wasi::async_trait]
impl Pollable for CompletedWait {
    async fn ready(&mut self) {}
}

/// Generates the guest's random numbers: SplitMix64 with a fixed seed.
struct GuestRandom {
    state: u64,
}

impl GuestRandom {
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl Wasi {
    fn random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        if len > RANDOM_BYTES_MAX {
            return Err(CallEnd::Guest(format!(
                "it asked for {len} random bytes, and the limit is {RANDOM_BYTES_MAX} a call"
            ))
            .into());
        }
        let len = usize::try_from(len).expect("bounded above");
        self.fuel.charge(HOST_CALL_FUEL, len)?;
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend_from_slice(&self.random.next().to_le_bytes());
        }
        bytes.truncate(len);
        Ok(bytes)
    }

    fn random_number(&mut self) -> wasmtime::Result<u64> {
        self.fuel.charge(HOST_CALL_FUEL, 0)?;
        Ok(self.random.next())
    }
}

impl random::random::Host for Wasi {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.random_number()
    }
}

impl random::insecure::Host for Wasi {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        self.random_bytes(len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        self.random_number()
    }
}

impl random::insecure_seed::Host for Wasi {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        Ok((SEED, !SEED))
    }
}

/// What a call has written to standard output, up to a limit. Further output is dropped.
#[derive(Default)]
struct GuestOutput {
    text: Vec<u8>,
    bytes_max: usize,
}

struct OutputPipe {
    output: Arc<Mutex<GuestOutput>>,
    fuel: Arc<HostFuel>,
}

impl OutputPipe {
    fn charge(&self, fuel: u64, bytes: usize) -> StreamResult<()> {
        self.fuel.charge(fuel, bytes).map_err(|end| StreamError::Trap(end.into()))
    }
}

impl OutputStream for OutputPipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.charge(STREAM_FUEL, bytes.len())?;
        let mut output = lock(&self.output);
        let room = output.bytes_max.saturating_sub(output.text.len());
        output.text.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.charge(HOST_CALL_FUEL, 0)
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        self.charge(HOST_CALL_FUEL, 0)?;
        Ok(WRITE_BYTES_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for OutputPipe {
    async fn ready(&mut self) {}
}

impl Wasi {
    fn pipe(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        let (output, fuel) = (Arc::clone(&self.output), Arc::clone(&self.fuel));
        let pipe: DynOutputStream = Box::new(OutputPipe { output, fuel });
        Ok(self.table.push(pipe)?)
    }
}

impl cli::stdout::Host for Wasi {
    fn get_stdout(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.pipe()
    }
}

impl cli::stderr::Host for Wasi {
    fn get_stderr(&mut self) -> wasmtime::Result<Resource<DynOutputStream>> {
        self.pipe()
    }
}

fn lock(output: &Mutex<GuestOutput>) -> std::sync::MutexGuard<'_, GuestOutput> {
    output.lock().unwrap_or_else(PoisonError::into_inner)
}
