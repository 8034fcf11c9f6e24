//! Implements `cargo xtask proof`, which runs the experiments for Lantern's claims with more cases
//! than the tests run.

use anyhow::{Result, bail};

use crate::artifacts::{self, Guests};
use crate::metadata::Workspace;
use crate::suite::{self, Summary};
use crate::{interpreters, shell};

/// Builds the same artifacts as `cargo xtask test`, and runs the experiments with
/// `args`.
pub(crate) fn run(args: &[String]) -> Result<()> {
    let without = suite::missing_tools(&mut Summary::default())?;
    artifacts::wasm_target()?;
    shell::step("Building the guests");
    artifacts::guests(
        &Workspace::load()?,
        &[Guests::Plugins, Guests::Interpreters, Guests::Others],
    )?;
    interpreters::build(&mut Summary::default())?;
    // The command is the same as for the tests, so that nothing is built twice.
    shell::step("Building the host and the experiments");
    shell::run(&mut shell::cargo(["build", "--workspace", "--all-targets"]))?;
    let mut proof = std::process::Command::new(shell::target_dir().join("debug/lantern-proof"));
    let status =
        proof.current_dir(shell::root()).args(args).envs(suite::environment(&without)).status()?;
    if !status.success() {
        bail!("not every claim held");
    }
    Ok(())
}
