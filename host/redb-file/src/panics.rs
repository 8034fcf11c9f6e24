//! Catches panics of redb.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use thiserror::Error;

/// The error of a panic in redb. The file is damaged, and must be opened again before its next use.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("redb panicked: {message}")]
pub struct RedbPanic {
    /// The message of the panic.
    pub message: String,
}

/// Runs `task` on a redb file, and catches panics. redb panics on some damaged files, and such a
/// panic must not end the calling thread.
///
/// # Errors
/// Returns [`RedbPanic`] if `task` panicked. The panic may have left the transaction and the file
/// half changed in memory. So the caller must not use them any more.
pub fn catch_panic<R>(task: impl FnOnce() -> R) -> Result<R, RedbPanic> {
    catch_unwind(AssertUnwindSafe(task))
        .map_err(|panic| RedbPanic { message: message(&*panic).to_owned() })
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message() {
        let caught = |result: Result<(), RedbPanic>| result.unwrap_err().to_string();
        assert_eq!(caught(catch_panic(|| panic!("page 7"))), "redb panicked: page 7");
        let page = 8;
        assert_eq!(caught(catch_panic(|| panic!("page {page}"))), "redb panicked: page 8");
        assert_eq!(catch_panic(|| 9), Ok(9));
    }
}
