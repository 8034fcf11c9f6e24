//! Runs a micro-benchmark for each hot step of a fold, so that the effect of a change is visible in
//! its step. Run all of them with `cargo xtask bench steps`, or some of them with a part of their
//! names: `cargo xtask bench steps -- boundary`.
//!
//! | step | here |
//! |---|---|
//! | reading: a chunk from the log's file, decoded; from memory | `reading::chunk_decoded`, `reading::chunk_cached` |
//! | gathering: the events and attributes that a projection requests, copied into a batch | `reading::gather` |
//! | boundary: a call of a guest that does nothing | `calling::boundary` |
//! | the guest's JSON: in Wasm; the same code outside of it | `calling::guest_json`, `calling::json_outside` |
//! | rows out: one row per event, from the guest to the host | `calling::rows_out` |
//! | write buffer: rows that a plugin without Wasm puts, or reads and puts | `writing::overlay_put`, `writing::overlay_get_put` |
//! | scan: ten rows of a table whose rows are all uncommitted | `state::scan` |
//! | ticks: events that each move the watermark, and nothing is due | `state::tick` |
//! | redb: a commit of adjacent rows; of rows spread over a large table | `writing::commit`, `writing::commit_scattered` |
//! | feed: a commit's rows as text on a WebSocket | `writing::feed` |
//! | query: filters, orders and roll-ups over a table of a million rows | `querying::query` |
//!
//! Each time is the time of a whole run. The line below a time shows the events or rows per second.

mod calling;
mod querying;
mod reading;
mod state;
mod writing;

use lantern_cli::generate::{Options, Shop};
use lantern_core::Events;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    lantern_cli::memory::without_huge_pages();
    // The plugin host compiles guests in a child process, for which it starts this binary again.
    // The server does the same with its own binary.
    if std::env::args().nth(1).as_deref() == Some("__compile") {
        return lantern_plugin::compile_child_main();
    }
    divan::main();
    std::process::ExitCode::SUCCESS
}

/// Creates the first `count` events of the benchmark W1.
fn shop_events(count: u64) -> Events {
    let shop = Shop::new(Options { events: 5_000_000, ..Options::default() });
    let mut events = Events::new();
    shop.fill(0..count, &mut events, &mut Vec::new());
    events
}
