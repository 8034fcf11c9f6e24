//! Configures the WebAssembly engine of the host. This module decides which features of WebAssembly
//! are enabled, and runs the timer that ends calls that take too long.

use std::hash::{Hash as _, Hasher};
use std::num::NonZeroUsize;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wasmtime::{
    Config, Engine, Inlining, OperatorCost, OptLevel, Strategy, VariableOperatorCost,
    WasmBacktraceDetails,
};

/// The interval at which the engine's epoch, a counter of time, advances. The time limit of a call
/// (`plugin.limits.apply_ms`) is measured in these steps.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(100);

/// The address space that is reserved for each linear memory, in bytes: all 4 GiB that 32-bit
/// addresses can reach. With the guard that follows it, compiled code needs no checks of bounds.
///
/// In a measurement with Rust guests that parse JSON, calls took 15 % less time than with a
/// reservation of 64 MiB. Creating an instance took the same time (20 µs) and the same memory (10
/// KB and the pages that the instance uses). An address space of 47 bits has room for 30,000 such
/// reservations.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;
/// The address space after each linear memory, in bytes. Every access to it traps.
const MEMORY_GUARD_BYTES: u64 = 32 << 20;
/// The stack that WebAssembly may use on the calling thread, in bytes. Threads of a pool have 2 MiB
/// by default, so at least half of it is left for host calls.
const WASM_STACK_BYTES: usize = 1 << 20;
/// The fuel that an instruction uses to grow a memory or a table, even if it fails. Such an
/// instruction calls the engine, which takes half a microsecond (measured). If it used one unit
/// like other instructions, a loop of them would exceed the limit of wall time before the limit of
/// fuel.
const GROW_FUEL: u8 = 250;
/// The fuel that an instruction uses to copy, fill or initialize memory or tables, in addition to
/// one unit for each byte. Such instructions call the engine, like those that grow a memory.
const BULK_FUEL: u8 = 20;
/// The maximum number of frames in a backtrace.
const BACKTRACE_FRAMES_MAX: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");

/// A part of the name of every cache folder. It must be changed together with any change of this
/// program that leads to other code for the same upload.
const BUILD: &str = concat!("lantern-plugin ", env!("CARGO_PKG_VERSION"), " build 1");

/// Creates the engine. The host and the compiling child must use the same settings, so both call
/// this function.
///
/// # Errors
/// Fails if the engine cannot run on this machine or system.
pub(crate) fn new() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // Inlining would double the time to compile a plugin. It would not make guests faster,
        // because the compilers of their languages have already inlined functions.
        .compiler_inlining(Inlining::No)
        .wasm_component_model(true)
        // Calls run on the caller's thread and stack.
        .concurrency_support(false)
        .max_wasm_stack(WASM_STACK_BYTES)
        .consume_fuel(true)
        .operator_cost(operator_cost())
        .epoch_interruption(true)
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(Some(BACKTRACE_FRAMES_MAX))
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .memory_init_cow(true);
    // With these settings, floating-point results are the same on every machine.
    config.cranelift_nan_canonicalization(true).relaxed_simd_deterministic(true);
    // Features that no supported language needs are off, because each feature of WebAssembly gives
    // attackers more possibilities.
    config
        .wasm_relaxed_simd(false)
        .wasm_simd(true)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_extended_const(true)
        .wasm_shared_everything_threads(false)
        .shared_memory(false)
        .wasm_memory64(false)
        // In QuickJS components, the loader of JavaScript modules has a memory of its own.
        .wasm_multi_memory(true)
        .wasm_tail_call(false)
        .wasm_gc(false)
        .gc_support(false)
        .wasm_stack_switching(false)
        .wasm_wide_arithmetic(false)
        .wasm_custom_page_sizes(false)
        .wasm_component_model_error_context(false)
        .wasm_component_model_gc(false)
        .wasm_component_model_map(false)
        .wasm_component_model_memory64(false)
        .wasm_component_model_fixed_length_lists(false);
    Engine::new(&config)
}

/// Returns the fuel that each instruction uses. It is one unit, except for instructions that do
/// much work.
fn operator_cost() -> OperatorCost {
    OperatorCost {
        MemoryGrow: GROW_FUEL,
        TableGrow: GROW_FUEL,
        MemoryCopy: BULK_FUEL,
        MemoryFill: BULK_FUEL,
        MemoryInit: BULK_FUEL,
        TableCopy: BULK_FUEL,
        TableFill: BULK_FUEL,
        TableInit: BULK_FUEL,
        // The operating system zeroes each page of a memory when the page is first used.
        variable: VariableOperatorCost {
            memory_grow_per_page: GROW_FUEL,
            ..VariableOperatorCost::new()
        },
        ..OperatorCost::new()
    }
}

/// Returns the id of an engine, which is part of the names of cache folders. Engines with the same
/// id can run each other's compiled code.
pub(crate) fn id(engine: &Engine) -> String {
    let mut hasher = Sha256Hasher(Sha256::new());
    BUILD.hash(&mut hasher);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hex::encode(&hasher.0.finalize()[..8])
}

/// Starts a thread that advances the engine's epoch as long as the engine exists. The epoch is a
/// counter that wasmtime uses to interrupt calls that take too long.
///
/// # Errors
/// Fails if the system cannot create a thread.
pub(crate) fn tick(engine: &Engine) -> std::io::Result<()> {
    let weak = engine.weak();
    std::thread::Builder::new().name("lantern-epoch".into()).spawn(move || {
        loop {
            std::thread::sleep(EPOCH_TICK);
            let Some(engine) = weak.upgrade() else { return };
            engine.increment_epoch();
        }
    })?;
    Ok(())
}

/// Makes SHA-256 usable as a [`Hasher`], for ids that are the same in every process.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let digest = self.0.clone().finalize();
        u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
    }
}
