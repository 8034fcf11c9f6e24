//! The part of the binary `lantern` that benchmarks and tests also use: the generator of shop
//! events, and the code that controls how the process uses memory. The rest of the command line is
//! private to the binary.

pub mod generate;
pub mod memory;
