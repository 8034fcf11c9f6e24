//! The declaration of a table.

use crate::row::Field;

/// How a field of a `#[derive(Tables)]` struct is declared.
#[doc(hidden)]
#[derive(Debug)]
pub struct TableSpec {
    pub id: u32,
    pub name: &'static str,
    pub description: &'static str,
    pub public: bool,
    pub per_tenant: bool,
    pub fields: &'static [Field],
    pub newest_by: Option<&'static str>,
    pub retention_us: Option<u64>,
    pub cache_rows: usize,
}
