//! Lists the reasons why a subscription cannot start, and the conversion from errors of the store.

use lantern_core::{RequestError, StoreError, ViewError};

use crate::encode::RowTooLarge;

/// Why a subscription cannot start.
pub(crate) enum SubscribeError {
    /// There is no public table with this name.
    NoTable,
    /// The projection has no active version. Contains a text for people.
    NotActive(String),
    /// The server does not support a part of the request.
    NotSupported(String),
    /// The table does not have what the query selects.
    BadQuery(RequestError),
    /// A row does not fit into a frame, or there are too many rows. The text is for
    /// people.
    Unsendable(String),
    /// The store failed. Contains the error as text.
    Failed(String),
}

impl From<ViewError> for SubscribeError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::NoProjection(_) | ViewError::NoVersion(..) => Self::NoTable,
            ViewError::NotActive(_) => Self::NotActive(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

impl From<RequestError> for SubscribeError {
    fn from(error: RequestError) -> Self {
        Self::BadQuery(error)
    }
}

impl From<RowTooLarge> for SubscribeError {
    fn from(error: RowTooLarge) -> Self {
        Self::Unsendable(error.to_string())
    }
}

impl From<StoreError> for SubscribeError {
    fn from(error: StoreError) -> Self {
        Self::Failed(error.to_string())
    }
}
