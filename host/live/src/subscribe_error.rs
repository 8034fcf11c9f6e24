//! Lists the reasons why a subscription cannot start, and the conversion from errors of the store.

use lantern_api::ShapeChange;
use lantern_core::{RequestError, RollUpError, StoreError, ViewError};

use crate::encode::RowTooLarge;
use crate::protocol::{
    BAD_QUERY, OTHER_SHAPE, OUT_OF_RANGE, OVER_LIMIT, Refused, refused, refused_member,
};
use crate::query::Query;

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
    /// The table is not the one that the client was written for. Contains a text for people, and
    /// what differs.
    Shape { detail: String, changes: Vec<ShapeChange> },
    /// A roll-up exceeds a limit, or has a number that cannot be written.
    RollUp(RollUpError),
    /// A row does not fit into a frame, or there are too many rows. The text is for
    /// people.
    Unsendable(String),
    /// The store failed. Contains the error as text.
    Failed(String),
}

impl SubscribeError {
    /// The error for a snapshot with more than `max` rows.
    pub(crate) fn too_many_rows(max: u64) -> Self {
        Self::Unsendable(format!(
            "the snapshot has more than {max} rows: raise `snapshot_rows_max`, select fewer rows with `where`, or read the table by pages"
        ))
    }

    /// The `err` message of the subscription `id` to `query`.
    pub(crate) fn refused(self, id: u64, query: &Query) -> Refused {
        let later = |code, msg: String| Refused { retry: true, ..refused(id, code, msg) };
        match self {
            Self::NoTable => {
                refused(id, "no_such_table", format!("there is no public table `{query}`"))
            }
            Self::NotActive(msg) => later("not_active", msg),
            Self::NotSupported(msg) => refused(id, "not_supported", msg),
            Self::BadQuery(error) => {
                refused_member(id, BAD_QUERY, error.to_string(), error.parameter)
            }
            Self::Shape { detail, changes } => {
                Refused { changes, ..refused_member(id, OTHER_SHAPE, detail, "shape") }
            }
            Self::RollUp(RollUpError::Limit { detail, setting }) => Refused {
                // Other roll-ups may end, so a limit on all of them can be met later.
                retry: setting.starts_with("live."),
                setting: Some(setting.into()),
                ..refused(id, OVER_LIMIT, detail)
            },
            Self::RollUp(error) => refused(id, OUT_OF_RANGE, error.to_string()),
            Self::Unsendable(msg) => refused(id, "too_large", msg),
            Self::Failed(msg) => later("unavailable", msg),
        }
    }
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

impl From<RollUpError> for SubscribeError {
    fn from(error: RollUpError) -> Self {
        match error {
            RollUpError::Store(error) => error.into(),
            error => Self::RollUp(error),
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
