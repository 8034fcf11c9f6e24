//! Small documents that users store on the server.

use crate::StoreError;

/// Stores documents by kind and name, such as the definitions of named queries.
pub trait Documents: Send + Sync {
    /// The names and texts of all documents of `kind`, by name.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    fn documents(&self, kind: &str) -> Result<Vec<(String, String)>, StoreError>;

    /// The text of a document.
    ///
    /// # Errors
    /// [`StoreError`] if it cannot be read.
    fn document(&self, kind: &str, name: &str) -> Result<Option<String>, StoreError>;

    /// Stores a document durably. Returns whether it replaced one of the same name.
    ///
    /// # Errors
    /// [`StoreError`]; then the old document is kept.
    fn save_document(&self, kind: &str, name: &str, text: &str) -> Result<bool, StoreError>;

    /// Deletes a document durably. Returns whether there was one.
    ///
    /// # Errors
    /// [`StoreError`]; then the document is kept.
    fn delete_document(&self, kind: &str, name: &str) -> Result<bool, StoreError>;
}
