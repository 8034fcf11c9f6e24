//! The settings of a server.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The settings with which a server runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServerSettings {
    /// All settings, by key.
    pub settings: Vec<Setting>,
}

/// A setting of a server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Setting {
    /// The section and the name: `http.listen`.
    pub key: String,
    /// The value that the server uses; `null` if it is not set. Values that may be secret are
    /// `"(not shown)"`.
    pub value: Value,
    /// The value without a configuration.
    pub default: Value,
    /// Whether `value` differs from `default`.
    pub changed: bool,
}
