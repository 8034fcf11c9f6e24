//! Converts a core module that imports WASI preview 1 to a component. The compiler of Go writes
//! such modules.
//!
//! The component contains an implementation of these imports ([`ADAPTER`]) that reaches nothing
//! outside of the component. So the component imports only the contract, and the host needs no code
//! for WASI preview 1.
//!
//! The conversion takes place on the developer's machine and not at an upload, because the
//! behaviour of a version must not depend on the host that runs it.

use std::sync::LazyLock;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use crate::LoadError;
use crate::contract;

/// The functions of WASI preview 1, without the description of what they import.
const ADAPTER: &str = include_str!("preview1.wat");
/// The name of the module that the functions are imported from.
const MODULE: &str = "wasi_snapshot_preview1";
/// The world that describes what the functions import.
const WORLD: &str = "output";

/// [`ADAPTER`] with the description of its import: the plugin's log.
static DESCRIBED_ADAPTER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut resolve = contract::resolve();
    let version = contract::version();
    let world = format!(
        "package lantern:preview1; world {WORLD} {{ import lantern:projection/logging@{version}; }}"
    );
    let package = resolve.push_source("preview1.wit", &world).expect("it has one import");
    let world = resolve.select_world(&[package], Some(WORLD)).expect("it has one world");
    let mut adapter = wat::parse_str(ADAPTER).expect("a test translates it");
    embed_component_metadata(&mut adapter, &resolve, world, StringEncoding::UTF8)
        .expect("the world has one import");
    adapter
});

/// Converts a core module to a component. The module has the exports of the contract and may import
/// WASI preview 1. The functions of WASI have constant results: no files, no arguments, a clock
/// that is always at 1970, and the same random bytes at each call. Output goes to the plugin's log.
///
/// # Errors
/// Returns [`LoadError::Wrap`] if `module` lacks the exports of the contract, or imports something
/// else.
pub fn componentize(module: &[u8]) -> Result<Vec<u8>, LoadError> {
    let failed = |reason: String| LoadError::Wrap { reason };
    let mut module = module.to_vec();
    contract::describe_module(&mut module).map_err(failed)?;
    ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.adapter(MODULE, &DESCRIBED_ADAPTER))
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| failed(format!("{error:#}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A core module with the exports of the contract and an import of WASI preview 1.
    fn module(import: &str) -> Vec<u8> {
        let text = format!(
            r#"(module
              (import "wasi_snapshot_preview1" {import})
              (memory (export "memory") 1)
              (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) unreachable)
              (func (export "lantern:projection/projector@0.2.0#setup") (param i32 i32) (result i32)
                unreachable)
              (func (export "lantern:projection/projector@0.2.0#apply") (param i32) (result i32)
                unreachable))"#
        );
        wat::parse_str(text).unwrap()
    }

    #[test]
    fn a_module_for_preview_1_becomes_a_component_that_imports_only_the_contract() {
        for import in [
            r#""clock_time_get" (func (param i32 i64 i32) (result i32))"#,
            r#""random_get" (func (param i32 i32) (result i32))"#,
            r#""poll_oneoff" (func (param i32 i32 i32 i32) (result i32))"#,
            r#""fd_write" (func (param i32 i32 i32 i32) (result i32))"#,
            r#""path_open" (func (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32))"#,
            r#""proc_exit" (func (param i32))"#,
        ] {
            let component = componentize(&module(import)).unwrap();
            contract::check(&component, false).unwrap();
        }
    }

    #[test]
    fn a_module_that_imports_something_else_is_refused() {
        let error = componentize(&module(r#""no_such_function" (func)"#)).unwrap_err();
        assert!(matches!(error, LoadError::Wrap { .. }), "{error}");
        assert!(error.to_string().contains("no_such_function"), "{error}");
    }
}
