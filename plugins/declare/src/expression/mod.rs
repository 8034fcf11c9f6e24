//! Implements expressions: their syntax, their kinds, and their evaluation.
//!
//! In `setup`, each expression is read and checked once. The result is a tree in which every name
//! is an index and every kind is known. For each event, only this tree is evaluated.

pub(crate) mod compile;
pub(crate) mod evaluate;
pub(crate) mod fields;
pub(crate) mod functions;
pub(crate) mod syntax;
mod tokens;
