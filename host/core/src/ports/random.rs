//! Randomness, for identities that must not come again.

/// Draws numbers that were not drawn before. Never for what ends up in a
/// table or in an event.
pub trait Random: Send + Sync {
    /// A number that is drawn again with no more probability than any other of
    /// 64 bits.
    fn draw(&self) -> u64;
}
