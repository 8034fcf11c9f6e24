//! The one WebAssembly engine of a host: what is on, what is off, and the clock
//! that ends calls which hang.

use std::hash::{Hash as _, Hasher};
use std::num::NonZeroUsize;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use wasmtime::{
    Config, Engine, Inlining, OperatorCost, OptLevel, Strategy, VariableOperatorCost,
    WasmBacktraceDetails,
};

/// How often the epoch moves on: the grain of `plugin.limits.apply_ms`.
pub(crate) const EPOCH_TICK: Duration = Duration::from_millis(100);

/// Address space set aside for a linear memory. With the whole 4 GiB that 32
/// bits can name, and the guard behind them, compiled code needs no bounds
/// checks: measured on Rust guests that parse JSON, 15 % less time than with
/// 64 MiB, at the same cost of an instance in time (20 µs) and memory (10 KB and
/// the pages it touched). 47 bits of address space hold 30,000 of it.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;
/// Address space behind a memory that traps when touched.
const MEMORY_GUARD_BYTES: u64 = 32 << 20;
/// The stack WebAssembly may use on the calling thread. Pool threads have 2 MiB
/// by default, so host calls keep at least half.
const WASM_STACK_BYTES: usize = 1 << 20;
/// Fuel of an instruction that calls into the engine to grow a memory or table,
/// also if it is refused: measured, half a microsecond. At the one unit of
/// any other, a loop of them met the clock's limit before that of fuel.
const GROW_FUEL: u8 = 250;
/// Fuel of copying, filling or initialising, besides one for each byte: these
/// call into the engine too.
const BULK_FUEL: u8 = 20;
/// Frames of a backtrace.
const BACKTRACE_FRAMES_MAX: NonZeroUsize = NonZeroUsize::new(32).expect("not zero");

/// Part of every cache folder's name: change it whenever wrapping or checking
/// changes what is compiled for the same upload.
const BUILD: &str = concat!("lantern-plugin ", env!("CARGO_PKG_VERSION"), " build 1");

/// The engine. Host and compiling child must agree in every setting, so there
/// is this one function only.
///
/// # Errors
/// Where the machine or system cannot run it.
pub(crate) fn new() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        // What compilers left apart gains nothing, and compiling takes twice as long.
        .compiler_inlining(Inlining::No)
        .wasm_component_model(true)
        // Calls stay on the caller's thread and stack.
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
    // One answer on every machine.
    config.cranelift_nan_canonicalization(true).relaxed_simd_deterministic(true);
    // Each feature is a way in; what no supported language needs is off.
    config
        .wasm_relaxed_simd(false)
        .wasm_simd(true)
        .wasm_bulk_memory(true)
        .wasm_multi_value(true)
        .wasm_extended_const(true)
        .wasm_shared_everything_threads(false)
        .shared_memory(false)
        .wasm_memory64(false)
        .wasm_multi_memory(false)
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

/// What instructions cost in fuel: one, unless they do the work of many.
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
        // The pages of a memory are zeroed when they are touched.
        variable: VariableOperatorCost {
            memory_grow_per_page: GROW_FUEL,
            ..VariableOperatorCost::new()
        },
        ..OperatorCost::new()
    }
}

/// Names the engine's compiled code: two engines with one name can run each
/// other's.
pub(crate) fn id(engine: &Engine) -> String {
    let mut hasher = Sha256Hasher(Sha256::new());
    BUILD.hash(&mut hasher);
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hex::encode(&hasher.0.finalize()[..8])
}

/// Moves the epoch on for as long as the engine lives.
///
/// # Errors
/// Where the system gives no thread.
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

/// SHA-256 as a [`Hasher`], for a name that is stable over processes.
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
