//! Defines the query parameters of `GET /v1/tables/{projection}/{table}`.

use http::{Uri, Version};
use lantern_api::QueryBody;
use lantern_query::{AggregateRequest, ConditionRequest, QueryRequest};
use serde::Deserialize;
use utoipa::IntoParams;

use crate::http::params::{FormatName, Params, flag, single};
use crate::problem::Problem;

/// The number of rows in an answer if the request has no `limit`.
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
    /// Rows whose field fulfils a condition: `FIELD OPERATOR VALUE`, with the operator
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`, `in` or `prefix`. May be given several times; all
    /// conditions must hold.
    #[serde(deserialize_with = "single")]
    pub(super) r#where: Vec<String>,
    /// The fields in the answer, separated by commas; all if left out.
    pub(super) cols: Option<String>,
    /// The maximum number of rows or groups; 1,000 if left out, or all with `export`.
    pub(in crate::http) limit: Option<usize>,
    /// The order of the answer: `key` (the default) or a field; for a roll-up, a column. With `-`
    /// before it, the largest comes first. `asc` and `desc` order by key.
    pub(super) order: Option<String>,
    /// `next` of the previous page.
    pub(in crate::http) cursor: Option<String>,
    /// Whether to send the whole result from one committed state, without pages: `1` or
    /// `true`.
    #[serde(deserialize_with = "flag")]
    pub(in crate::http) export: bool,
    /// The format of the answer, in place of `Accept`.
    #[param(inline)]
    pub(in crate::http) format: Option<FormatName>,
    /// The timestamp field to which `start`, `end` and `bucket` refer. If the table has only one
    /// such field, this parameter may be left out.
    pub(super) time: Option<String>,
    /// Rows at or after this time.
    pub(super) start: Option<String>,
    /// Rows before this time.
    pub(super) end: Option<String>,
    /// Groups rows by buckets of time of this length: a number and `s`, `m`, `h`, `d`,
    /// `w`, `mo` or `y`.
    pub(super) bucket: Option<String>,
    /// Groups rows by these fields, separated by commas.
    pub(super) by: Option<String>,
    /// The aggregates of each group, separated by commas, such as `sum(cents) as revenue`. An
    /// aggregate is `count()`, or `sum`, `avg`, `min`, `max`, `first`, `last`, `distinct` or `p1`
    /// to `p99` of a field.
    pub(super) agg: Option<String>,
    /// What buckets without rows contain: `zero`, `null` or `previous`. If this is left out, such
    /// buckets are missing in the answer.
    pub(super) fill: Option<String>,
    /// The time zone of buckets and of times without an offset, such as `Europe/Berlin`;
    /// UTC if left out.
    pub(super) tz: Option<String>,
    /// Answers with a state that contains the events at these offsets. They have the form that an
    /// append returns: `PARTITION:OFFSET`, several separated by commas. The request waits for such
    /// a state, at most for `wait`.
    pub(in crate::http) min_offset: Option<String>,
    /// How long to wait for `min_offset`: `5s`.
    pub(in crate::http) wait: Option<String>,
    /// The version to read; the active one if left out.
    pub(super) version: Option<String>,
    // Not supported yet, and therefore not described: refused by name, with 501.
    #[param(ignore)]
    pub(super) as_of: Option<String>,
}

impl TableQuery {
    /// Reads the query parameters of `uri`.
    pub(super) fn read(uri: &Uri) -> Result<Self, Problem> {
        Params::<Self>::read_repeated(uri, "where", |query| &mut query.r#where)
    }

    /// Refuses parameters that are not supported, or that exclude each other.
    pub(in crate::http) fn check(&self) -> Result<(), Problem> {
        if self.as_of.is_some() {
            let detail = "`as_of` is not supported by this server";
            return Err(Problem::new("LAN-0405", detail).with("parameter", "as_of"));
        }
        if self.export && self.cursor.is_some() {
            let detail = "`export` sends the whole result: leave `cursor` out";
            return Err(Problem::new("LAN-0403", detail));
        }
        if self.export && self.format == Some(FormatName::Prometheus) {
            let detail = "`format=prometheus` has all rows without `export`: leave it out";
            return Err(Problem::new("LAN-0403", detail));
        }
        let ranged = self.prefix.is_some() || self.from.is_some() || self.to.is_some();
        if self.key.is_some() && (ranged || self.cursor.is_some()) {
            let detail = "`key` names one row: leave `prefix`, `from`, `to` and `cursor` out";
            return Err(Problem::new("LAN-0403", detail));
        }
        Ok(())
    }

    /// Refuses an export over HTTP/1.0. In this version a body ends when the connection ends, so
    /// the client could not know whether the export is complete.
    pub(in crate::http) fn check_version(&self, version: Version) -> Result<(), Problem> {
        if self.export && version < Version::HTTP_11 {
            let detail = "`export` needs HTTP/1.1: HTTP/1.0 cannot tell an incomplete body";
            return Err(Problem::new("LAN-0403", detail));
        }
        Ok(())
    }

    /// Whether the largest key comes first.
    pub(super) fn is_descending(&self) -> bool {
        matches!(self.order.as_deref(), Some("desc" | "-key"))
    }

    /// Returns the query that the parameters request; `None` if rows are read only by their keys.
    pub(super) fn request(&self) -> Result<Option<QueryRequest>, Problem> {
        let by_key = matches!(self.order.as_deref(), None | Some("asc" | "desc" | "key" | "-key"));
        let aggregates = self.agg.as_deref().map(AggregateRequest::parse_all).transpose()?;
        let request = QueryRequest {
            conditions: self.r#where.iter().cloned().map(ConditionRequest::Text).collect(),
            columns: self.cols.as_deref().map(names),
            order: self.order.clone(),
            time: self.time.clone(),
            start: self.start.clone(),
            end: self.end.clone(),
            bucket: self.bucket.clone(),
            by: self.by.as_deref().map(names).unwrap_or_default(),
            aggregates: aggregates.unwrap_or_default(),
            fill: self.fill.clone(),
            tz: self.tz.clone(),
        };
        let plain = QueryRequest { order: self.order.clone(), ..QueryRequest::default() };
        Ok((!by_key || request != plain).then_some(request))
    }

    /// The parameters of a body, and its query.
    pub(in crate::http) fn of_body(body: QueryBody) -> Result<(Self, QueryRequest), Problem> {
        let conditions = body.conditions.into_iter().map(|(field, operator, value)| {
            let value = serde_json::from_str(value.get());
            let value =
                value.map_err(|error| Problem::new("LAN-0408", format!("`where`: {error}")))?;
            Ok(ConditionRequest::Json { field, operator, value })
        });
        let aggregates = body.aggregates.0.into_iter().map(|(name, call)| match call.as_slice() {
            [function] => Ok(AggregateRequest { name: Some(name), function: function.clone(), field: None }),
            [function, field] => Ok(AggregateRequest {
                name: Some(name),
                function: function.clone(),
                field: Some(field.clone()),
            }),
            _ => {
                let detail = format!(
                    "`agg`: `{name}` must be a function and at most one field, such as `[\"sum\", \"cents\"]`"
                );
                Err(Problem::new("LAN-0426", detail).with("parameter", "agg"))
            }
        });
        let request = QueryRequest {
            conditions: conditions.collect::<Result<_, Problem>>()?,
            columns: body.cols,
            order: body.order.clone(),
            time: body.time,
            start: body.start,
            end: body.end,
            bucket: body.bucket,
            by: body.by,
            aggregates: aggregates.collect::<Result<_, _>>()?,
            fill: body.fill,
            tz: body.tz,
        };
        let query = Self {
            prefix: body.prefix,
            from: body.from,
            to: body.to,
            limit: body.limit,
            export: body.export,
            order: body.order,
            cursor: body.cursor,
            min_offset: body.min_offset,
            wait: body.wait,
            version: body.version,
            ..Self::default()
        };
        query.check()?;
        Ok((query, request))
    }
}

/// Splits names that are separated by commas.
fn names(text: &str) -> Vec<String> {
    text.split(',').map(|name| name.trim().to_owned()).collect()
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

    fn read(query: &str) -> TableQuery {
        TableQuery::read(&format!("/?{query}").parse().unwrap()).unwrap()
    }

    #[test]
    fn conditions_may_be_given_several_times() {
        let query = read("where=cents%3E=100&limit=5&where=country%20in%20DE,FR");
        assert_eq!(query.r#where, ["cents>=100", "country in DE,FR"]);
        assert_eq!(query.limit, Some(5));
        let twice = TableQuery::read(&"/?limit=5&limit=6".parse().unwrap());
        assert_eq!(twice.unwrap_err().code, "LAN-0403");
        assert_eq!(read("").r#where, [""; 0]);
    }

    #[test]
    fn reads_by_key_alone_are_no_queries() {
        for query in ["", "key=a", "prefix=a&order=desc", "order=-key&limit=1", "from=a&to=b"] {
            assert_eq!(read(query).request().unwrap(), None, "{query}");
        }
        for query in ["where=a=1", "cols=a", "order=-cents", "time=at", "by=a", "agg=count()"] {
            assert!(read(query).request().unwrap().is_some(), "{query}");
        }
        assert_eq!(read("agg=sum").request().unwrap_err().code, "LAN-0426");
    }
}
