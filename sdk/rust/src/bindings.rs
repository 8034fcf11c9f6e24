//! Contains the bindings of a guest to the plugin contract, generated from `wit/projection.wit`.
//!
//! Only [`crate::export!`] and this crate may use them. The other modules of the crate contain
//! everything that a plugin needs, with documentation.
//!
//! The generated code is a file of the repository, because the macro that generates it takes longer
//! to compile than the whole SDK. A test compares the file with the contract.
#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::allow_attributes_without_reason,
    reason = "generated code"
)]

include!("../generated/bindings.inc");

#[cfg(test)]
mod tests {
    use std::path::Path;

    use wit_bindgen_core::wit_parser::Resolve;
    use wit_bindgen_core::{Files, WorldGenerator};
    use wit_bindgen_rust::Opts;

    /// The path of the generated file.
    const GENERATED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/generated/bindings.inc");

    /// Generates the bindings from the contract.
    fn generated() -> String {
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let mut resolve = Resolve::default();
        let (package, _) = resolve.push_path(&wit).unwrap();
        let world = resolve.select_world(&[package], Some("interpreter")).unwrap();
        let options = Opts {
            format: true,
            pub_export_macro: true,
            export_macro_name: Some("export_projector".into()),
            default_bindings_module: Some("lantern_sdk::bindings".into()),
            ..Opts::default()
        };
        let mut files = Files::default();
        options.build().generate(&mut resolve, world, &mut files).unwrap();
        let (_, bytes) = files.iter().next().unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    /// With `LANTERN_WRITE_BINDINGS=1` this test writes the file instead.
    #[test]
    fn the_bindings_are_those_of_the_contract() {
        if std::env::var_os("LANTERN_WRITE_BINDINGS").is_some() {
            std::fs::write(GENERATED, generated()).unwrap();
        }
        let stored = std::fs::read_to_string(GENERATED).unwrap();
        assert!(
            stored == generated(),
            "sdk/rust/generated/bindings.inc is not generated from wit/projection.wit: set \
             LANTERN_WRITE_BINDINGS=1 and run this test again"
        );
    }
}
