//! Small documents that users store on the server.

use crate::StoreError;

/// Stores documents by kind and name, such as the definitions of named queries.
pub trait Documents: Send + Sync {
    /// Calls `visit` with the name and the text of each document of `kind`, by name. `visit` must
    /// not call other methods of the store.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    fn visit_documents(
        &self,
        kind: &str,
        visit: &mut dyn FnMut(&str, &str),
    ) -> Result<(), StoreError>;

    /// The names and texts of all documents of `kind`, by name.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be read.
    fn documents(&self, kind: &str) -> Result<Vec<(String, String)>, StoreError> {
        let mut documents = Vec::new();
        self.visit_documents(kind, &mut |name, text| {
            documents.push((name.to_owned(), text.to_owned()));
        })?;
        Ok(documents)
    }

    /// Returns the text of a document; `None` if there is no such document.
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
