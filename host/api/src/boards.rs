//! Boards: JSON documents of dashboards, which are stored on the server.

use serde::{Deserialize, Serialize};

/// What the server knows about a board, without its document.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BoardSummary {
    /// The name of the board.
    pub name: String,
    /// The first 200 characters of the document's member `title`; absent if the member is not a
    /// text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// When the document was stored, in microseconds since 1970.
    pub changed_us: i64,
    /// The size of the document in bytes.
    pub bytes: u64,
    /// The `ETag` of the document, with its quotes: the value for `If-Match`. Equal documents have
    /// equal tags.
    pub etag: String,
}

/// All boards, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BoardList {
    /// The boards.
    pub boards: Vec<BoardSummary>,
}
