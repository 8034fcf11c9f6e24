//! Writes messages to the host's log, for operators and developers. The messages are not part of
//! the result of a projection, so write data that others need to a table.
//!
//! ```
//! lantern_sdk::log::warn("the refund of order 7 is higher than its price");
//! ```

pub use crate::bindings::lantern::projection::types::Level;

use crate::{host, trigger};

/// Logs `message` at `level`. The host limits the size of the messages of a call.
pub fn log(level: Level, message: impl AsRef<str>) {
    host::log(trigger::cause(), level, message.as_ref());
}

macro_rules! levels {
    ($($(#[$doc:meta])* $name:ident: $level:ident),* $(,)?) => {$(
        $(#[$doc])*
        pub fn $name(message: impl AsRef<str>) {
            log(Level::$level, message);
        }
    )*};
}

levels! {
    /// Logs details of a single event.
    trace: Trace,
    /// Logs details that help to find an error.
    debug: Debug,
    /// Logs useful information.
    info: Info,
    /// Logs an unexpected condition that does not stop the plugin.
    warn: Warn,
    /// Logs an error.
    error: Error,
}
