//! The WebAssembly engine of a host: which features are enabled, and the timer that ends
//! calls that hang.

use std::hash::{Hash as _, Hasher};
use std::num::NonZeroUsize;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wasmtime::{
    Config, Engine, Inlining, OperatorCost, OptLevel, Strategy, VariableOperatorCost,
    WasmBacktraceDetails,
};

/// How often the epoch advances. This is the resolution of `plugin.limits.apply_ms`.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(100);

/// The address space that is reserved for each linear memory. With the whole 4 GiB of
/// 32-bit addresses and the guard after them, compiled code needs no bounds checks. In a
/// measurement with Rust guests that parse JSON, calls took 15 % less time than with a
/// reservation of 64 MiB, and an instance took the same time (20 µs) and memory (10 KB and
/// the pages that it touches). An address space of 47 bits has room for 30,000
/// reservations of this size.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;
/// The address space after a memory, where every access traps.
const MEMORY_GUARD_BYTES: u64 = 32 << 20;
/// The stack that WebAssembly may use on the calling thread. Threads of a pool have 2 MiB
/// by default, so at least half of it remains for host calls.
const WASM_STACK_BYTES: usize = 1 << 20;
/// The fuel of an instruction that grows a memory or table, also if it fails. Such an
/// instruction calls the engine and takes half a microsecond (measured). If it took one
/// unit like other instructions, a loop of them would exceed the limit of wall time before
/// the limit of fuel.
const GROW_FUEL: u8 = 250;
/// The fuel of copying, filling or initialising memory or tables, in addition to one unit
/// for each byte. These instructions call the engine, like those that grow a memory.
const BULK_FUEL: u8 = 20;
/// The most frames of a backtrace.
const BACKTRACE_FRAMES_MAX: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");

/// Part of the name of every cache folder. Change it with every change of the wrapping or
/// the checks after which the same upload gives other code.
const BUILD: &str = concat!("lantern-plugin ", env!("CARGO_PKG_VERSION"), " build 1");

/// Creates the engine. Host and compiling child must have the same settings, so both call
/// this function.
///
/// # Errors
/// If the machine or system cannot run it.
pub(crate) fn new() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // Inlining would make guests no faster, because their own compilers have inlined
        // the functions already. It would also double the time to compile a plugin.
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
    // The same results on every machine.
    config.cranelift_nan_canonicalization(true).relaxed_simd_deterministic(true);
    // Each feature increases the attack surface, so features that no supported language
    // needs are off.
    config
        .wasm_relaxed_simd(false)
        .wasm_simd(true)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_extended_const(true)
        .wasm_shared_everything_threads(false)
        .shared_memory(false)
        .wasm_memory64(false)
        // The loader of JavaScript modules in QuickJS components has a memory of its own.
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

/// The fuel of instructions: one, except for instructions that do much work.
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
        // The system zeroes each page of a memory when it is first touched.
        variable: VariableOperatorCost {
            memory_grow_per_page: GROW_FUEL,
            ..VariableOperatorCost::new()
        },
        ..OperatorCost::new()
    }
}

/// The id of an engine in the names of cache folders. Engines with the same id can run
/// each other's compiled code.
pub(crate) fn id(engine: &Engine) -> String {
    let mut hasher = Sha256Hasher(Sha256::new());
    BUILD.hash(&mut hasher);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hex::encode(&hasher.0.finalize()[..8])
}

/// Starts the thread that advances the engine's epoch, a counter by which wasmtime
/// interrupts calls, as long as the engine exists.
///
/// # Errors
/// If the system cannot create a thread.
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

/// SHA-256 as a [`Hasher`], for ids that are the same in every process.
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
