//! Tests declarations through the SDK's native harness.
#![allow(clippy::unwrap_used, reason = "tests")]

mod behaviour;
mod broken;
mod examples;
mod page;
mod random;

use lantern_sdk::testing::{Harness, set_source};

use crate::Declare;

/// Returns a harness in which the declaration `source` runs.
fn host(source: &str) -> Harness<Declare> {
    try_host(source, "").unwrap_or_else(|error| panic!("{error}"))
}

fn try_host(source: &str, parameters: &str) -> Result<Harness<Declare>, String> {
    set_source("test.yaml", source);
    Harness::try_with_parameters(parameters)
}
