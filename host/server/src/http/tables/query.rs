//! The query parameters of `GET /v1/tables/{projection}/{table}`.

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::problem::Problem;

/// The number of rows in an answer if `limit` is not given.
pub(super) const LIMIT_DEFAULT: usize = 1_000;

/// Which rows to read.
// Long because its members are the parameters of one request.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(crate) struct TableQuery {
    /// Only the row under this key.
    pub(super) key: Option<String>,
    /// Rows whose keys begin with this text.
    pub(super) prefix: Option<String>,
    /// Rows from this key on, including it.
    pub(super) from: Option<String>,
    /// Rows before this key.
    pub(super) to: Option<String>,
    /// The maximum number of rows; 1,000 if left out.
    pub(super) limit: Option<usize>,
    /// `asc` (the default) or `desc`, by key.
    pub(super) order: Option<Order>,
    /// `next` of the previous page.
    pub(super) cursor: Option<String>,
    /// Answer with a state that contains the events at these offsets, in the form that
    /// an append returns: `PARTITION:OFFSET`, several separated by commas. The request
    /// waits for that state up to `wait`.
    pub(super) min_offset: Option<String>,
    /// How long to wait for `min_offset`: `5s`.
    pub(super) wait: Option<String>,
    /// The version to read; the active one if left out.
    pub(super) version: Option<String>,
    // Not supported yet, and therefore not described: refused by name, with 501.
    #[param(ignore)]
    pub(super) r#where: Option<String>,
    #[param(ignore)]
    pub(super) cols: Option<String>,
    #[param(ignore)]
    pub(super) bucket: Option<String>,
    #[param(ignore)]
    pub(super) agg: Option<String>,
    #[param(ignore)]
    pub(super) by: Option<String>,
    #[param(ignore)]
    pub(super) fill: Option<String>,
    #[param(ignore)]
    pub(super) as_of: Option<String>,
}

/// The order of the keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Order {
    /// Ascending.
    #[default]
    Asc,
    /// Descending.
    Desc,
}

impl TableQuery {
    /// Refuses parameters that are not supported, or that exclude each other.
    pub(super) fn check(&self) -> Result<(), Problem> {
        for (name, value) in [
            ("where", &self.r#where),
            ("cols", &self.cols),
            ("bucket", &self.bucket),
            ("agg", &self.agg),
            ("by", &self.by),
            ("fill", &self.fill),
            ("as_of", &self.as_of),
        ] {
            if value.is_some() {
                let detail = format!("`{name}` is not supported by this server");
                return Err(Problem::new("LAN-0405", detail).with("parameter", name));
            }
        }
        let ranged = self.prefix.is_some() || self.from.is_some() || self.to.is_some();
        if self.key.is_some() && (ranged || self.cursor.is_some()) {
            let detail = "`key` names one row: leave `prefix`, `from`, `to` and `cursor` out";
            return Err(Problem::new("LAN-0403", detail));
        }
        Ok(())
    }

    /// Whether the largest key comes first.
    pub(super) fn is_descending(&self) -> bool {
        self.order == Some(Order::Desc)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_parameters_are_refused_by_name() {
        let which = TableQuery { as_of: Some("pos:1".into()), ..TableQuery::default() };
        let problem = which.check().unwrap_err();
        assert_eq!((problem.status, problem.more["parameter"].as_str()), (501, Some("as_of")));
        let both =
            TableQuery { key: Some("a".into()), from: Some("b".into()), ..TableQuery::default() };
        assert_eq!(both.check().unwrap_err().status, 400);
    }
}
