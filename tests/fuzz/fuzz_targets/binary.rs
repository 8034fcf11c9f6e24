//! Fuzzes the parser in `lantern_proof::parsers::binary`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lantern_proof::parsers::binary(bytes));
