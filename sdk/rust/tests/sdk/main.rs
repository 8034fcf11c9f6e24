//! Tests the SDK as a plugin uses it, with small projections in the native harness.
#![allow(clippy::unwrap_used, reason = "tests")]

mod events;
mod harness;
mod keys;
mod members;
mod tables;
mod top;
mod windows;
mod zones;
