//! Messages to the host's log, for whoever looks after the plugin. They are
//! no output: what matters belongs in a table.
//!
//! ```
//! lantern_sdk::log::warn("the refund of order 7 is higher than its price");
//! ```

pub use crate::bindings::lantern::projection::types::Level;

use crate::{current, host};

/// Logs `message` at `level`. The host keeps a limited amount a call.
pub fn log(level: Level, message: impl AsRef<str>) {
    host::log(current::cause(), level, message.as_ref());
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
    /// Logs what only helps to follow a single event.
    trace: Trace,
    /// Logs what helps to find a mistake.
    debug: Debug,
    /// Logs what is good to know.
    info: Info,
    /// Logs what should not be, but does not stop the plugin.
    warn: Warn,
    /// Logs what went wrong.
    error: Error,
}
