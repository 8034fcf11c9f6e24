//! Why a subscription does not start, and how the store's errors become such a reason.

use lantern_core::{StoreError, ViewError};

use crate::encode::RowTooLarge;

/// Why a subscription does not start.
pub(crate) enum SubscribeError {
    /// There is no such public table.
    NoTable,
    /// The projection serves nothing yet.
    NotActive(String),
    /// The request asks for what this server cannot do.
    NotSupported(String),
    /// A row fits no frame, or there are too many: a sentence for people.
    Unsendable(String),
    /// The store failed.
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
