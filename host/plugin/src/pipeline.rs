//! Runs the steps from an upload to compiled code: convert it to a component, check it, compile it.
//! The result depends only on the input. Hostile input may take minutes or gigabytes, so these
//! steps run in a separate process.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustix::io::Errno;
use thiserror::Error;
use wasmparser::{Encoding, Parser, Payload};
use wasmtime::Engine;
use wasmtime::error::OutOfMemory;

use crate::upload_format::{UploadFormat, detect_format};
use crate::{LoadError, contract};

/// The name of the custom section of a core module that describes its component.
const METADATA: &str = "component-type";
/// The maximum length of a library's error text that is passed on, in bytes.
const REASON_BYTES_MAX: usize = 2_000;

/// Why an upload was not compiled.
#[derive(Debug, Error)]
pub(crate) enum PrepareError {
    /// The upload is not a valid plugin.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The operating system had no memory, so it is unknown whether the upload is valid.
    #[error("the operating system refused memory")]
    NoMemory,
}

/// Compiles an upload for `engine`.
///
/// # Errors
/// Returns [`PrepareError`] if the upload is not a valid plugin, or memory ran out.
pub(crate) fn prepare(
    engine: &Engine,
    bytes: &[u8],
    allow_wasi: bool,
) -> Result<Vec<u8>, PrepareError> {
    let wrapped;
    let component = match detect_format(bytes)? {
        UploadFormat::Component => bytes,
        UploadFormat::Module => {
            wrapped = wrap(bytes)?;
            &wrapped
        }
    };
    validate(component)?;
    guarded("checked", || contract::check(component, allow_wasi))??;
    guarded("compiled", || engine.precompile_component(component))?.map_err(|error| {
        if is_out_of_memory(&error) {
            return PrepareError::NoMemory;
        }
        LoadError::Invalid { reason: reason(&format!("{error:#}")) }.into()
    })
}

/// Returns whether `error` means that the engine got no memory or could not map memory.
fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        let errno = cause.downcast_ref::<Errno>().copied();
        let errno = errno.or_else(|| Errno::from_io_error(cause.downcast_ref()?));
        cause.is::<OutOfMemory>() || errno == Some(Errno::NOMEM)
    })
}

/// Converts a core module to the component that its metadata describes. If it has no metadata but
/// exports the functions of the contract, it gets the metadata of the contract.
fn wrap(module: &[u8]) -> Result<Vec<u8>, LoadError> {
    let described = check_module(module)?;
    let wrap_error =
        |error: &dyn std::fmt::Display| LoadError::Wrap { reason: reason(&error.to_string()) };
    guarded("wrapped", || {
        let mut module = module.to_vec();
        if !described {
            contract::describe_module(&mut module).map_err(|error| wrap_error(&error))?;
        }
        wit_component::ComponentEncoder::default()
            .module(&module)
            .and_then(|encoder| encoder.validate(false).encode())
            .map_err(|error| wrap_error(&format!("{error:#}")))
    })?
}

/// Checks a core module for problems that have a simple explanation and would prevent its
/// conversion to a component. Returns whether the module has metadata.
fn check_module(module: &[u8]) -> Result<bool, LoadError> {
    let invalid = |error: wasmparser::BinaryReaderError| LoadError::Invalid {
        reason: reason(&error.to_string()),
    };
    let (mut described, mut by_hand) = (false, false);
    let mut foreign = None;
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding: Encoding::Component, .. } => {
                return Err(LoadError::Invalid { reason: "a component within a module".into() });
            }
            Payload::CustomSection(section) => described |= section.name().starts_with(METADATA),
            Payload::ImportSection(imports) => {
                for import in imports.into_imports() {
                    let import = import.map_err(invalid)?;
                    if foreign.is_none()
                        && let Some(why) = foreign_to_components(import.module)
                    {
                        foreign = Some(LoadError::CoreImport {
                            module: import.module.into(),
                            name: import.name.into(),
                            why: why.into(),
                        });
                    }
                }
            }
            Payload::ExportSection(exports) => {
                for export in exports {
                    by_hand |= export.map_err(invalid)?.name.starts_with(contract::PACKAGE);
                }
            }
            _ => {}
        }
    }
    match foreign {
        Some(error) => Err(error),
        None if !described && !by_hand => Err(LoadError::NoMetadata),
        None => Ok(described),
    }
}

/// Returns the probable reason why a core module imports from `module`, if components cannot have
/// such an import. Otherwise `None`.
fn foreign_to_components(module: &str) -> Option<&'static str> {
    match module {
        "wasi_snapshot_preview1" | "wasi_unstable" => {
            Some("it was built for WASI preview 1 (such as wasm32-wasip1)")
        }
        "env" => Some("a function was declared but not linked in"),
        "go" | "gojs" => Some("Go's js/wasm target is for browsers"),
        name if name.starts_with("__wbindgen") || name == "wbg" => {
            Some("a library expects JavaScript and a browser (wasm-bindgen)")
        }
        _ => None,
    }
}

fn validate(component: &[u8]) -> Result<(), LoadError> {
    // All features are allowed here, because this validation only ensures that the next steps can
    // decode the input. The engine later validates it with only the enabled features.
    wasmparser::Validator::new_with_features(wasmparser::WasmFeatures::all())
        .validate_all(component)
        .map(|_| ())
        .map_err(|error| LoadError::Invalid { reason: reason(&error.to_string()) })
}

/// Runs a library on input that may be hostile. If the library panics, an error is returned.
fn guarded<T>(what: &str, run: impl FnOnce() -> T) -> Result<T, LoadError> {
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| LoadError::CompilerBroke {
        reason: format!("it panicked while the plugin was {what}: {}", panic_text(&*panic)),
    })
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    reason(text.unwrap_or("no message"))
}

fn reason(text: &str) -> String {
    text[..text.floor_char_boundary(REASON_BYTES_MAX)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_mapping_is_a_lack_of_memory_and_an_invalid_upload_is_not() {
        let of = |errno: Errno| wasmtime::Error::from(errno).context("mmap failed");
        assert!(is_out_of_memory(&of(Errno::NOMEM)));
        assert!(is_out_of_memory(&wasmtime::Error::from(std::io::Error::from(Errno::NOMEM))));
        assert!(is_out_of_memory(&OutOfMemory::new(8).into()));
        assert!(!is_out_of_memory(&of(Errno::ACCESS)));
        assert!(!is_out_of_memory(&wasmtime::Error::msg("Cannot allocate memory")));
    }
}
