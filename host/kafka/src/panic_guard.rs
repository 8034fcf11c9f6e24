//! Catches panics of the client library. Records of other programs can cause them, so a panic is
//! not logged: otherwise everyone who may write to a topic could flood the server's output.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Calls `call`. If `call` panics, prints nothing and returns `None`.
pub(crate) fn catch<T>(call: impl FnOnce() -> T) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            if !QUIET.get() {
                before(info);
            }
        }));
    });
    QUIET.set(true);
    let called = catch_unwind(AssertUnwindSafe(call));
    QUIET.set(false);
    called.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_caught_and_the_next_call_works() {
        assert_eq!(catch(|| -> u32 { panic!("as the client library does") }), None);
        assert!(!QUIET.get());
        assert_eq!(catch(|| 7), Some(7));
    }
}
