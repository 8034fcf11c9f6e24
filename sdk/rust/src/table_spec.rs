//! The declaration of a table.

use crate::row::Field;

/// The declaration of a table. `#[derive(Tables)]` writes it for each field of the
/// struct; see [`crate::dynamic`] for tables that are declared at run time.
#[derive(Debug)]
pub struct TableSpec {
    /// The table's index in the manifest.
    pub id: u32,
    /// The name.
    pub name: &'static str,
    /// A description for people.
    pub description: &'static str,
    /// Whether readers can see it.
    pub public: bool,
    /// Whether every row belongs to a tenant.
    pub per_tenant: bool,
    /// The fields of its rows, if it is public.
    pub fields: &'static [Field],
    /// The field whose latest time decides over fields with merge `newest`.
    pub newest_by: Option<&'static str>,
    /// How long a row is kept after its last change, in microseconds; `None` for ever.
    pub retention_us: Option<u64>,
    /// How many rows are kept in memory.
    pub cache_rows: usize,
}
