//! Provides random numbers for identities that must be unique.

/// Draws random numbers. They must never affect a table or an event.
pub trait Random: Send + Sync {
    /// Returns a random number, uniform over 64 bits.
    fn draw(&self) -> u64;
}
