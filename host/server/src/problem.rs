//! Defines problems (RFC 9457): the error answers of the API, with a stable code. People and
//! programs can read them.

use axum::response::{IntoResponse, Response};
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use http::{HeaderValue, StatusCode};
use lantern_core::{LogError, RejectedEvent, StoreError, ViewError};
use lantern_engine::EngineError;
use lantern_plugin::LoadError;
use lantern_query::{QueryError, RequestError};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::Schema;
use utoipa::{PartialSchema, ToSchema};

use crate::cloudevents::EventError;
use crate::codes::{UNKNOWN, find};

/// The media type of a problem.
pub const PROBLEM: &str = "application/problem+json";
/// The wait after which a client should repeat a request that got a 503, in seconds.
const RETRY_AFTER_S: &str = "2";
/// The code of the problem for a body with an unknown coding.
pub(crate) const CONTENT_CODING: &str = "LAN-0419";

/// The answer to a request that failed. The [`lantern_api::Problem`] is in a box so that results
/// are small.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Problem(Box<lantern_api::Problem>);

impl PartialSchema for Problem {
    fn schema() -> RefOr<Schema> {
        lantern_api::Problem::schema()
    }
}

impl ToSchema for Problem {}

impl Problem {
    /// Creates a problem with `code`, which must be in [`crate::CODES`].
    #[must_use]
    pub fn new(code: &'static str, detail: impl Into<String>) -> Self {
        let known = find(code).unwrap_or(&UNKNOWN);
        Self(Box::new(lantern_api::Problem {
            kind: format!("/v1/errors/{code}"),
            title: known.title.to_owned(),
            status: known.status,
            detail: detail.into(),
            code: code.to_owned(),
            help: known.help.to_owned(),
            more: Map::new(),
        }))
    }

    /// Replaces the advice that the table of codes has for this code.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.0.help = help.into();
        self
    }

    /// Returns the problem as JSON.
    pub(crate) fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a problem always encodes")
    }

    /// Adds a member to the problem.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.0.more.insert(name.to_owned(), value.into());
        self
    }
}

impl std::ops::Deref for Problem {
    type Target = lantern_api::Problem;

    fn deref(&self) -> &lantern_api::Problem {
        &self.0
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, self.json()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        if status == StatusCode::UPGRADE_REQUIRED {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if self.code == CONTENT_CODING {
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip, zstd"));
        }
        response
    }
}

impl From<EventError> for Problem {
    fn from(error: EventError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<LogError> for Problem {
    fn from(error: LogError) -> Self {
        if let LogError::Rejected { appended, reason, .. } = &error {
            let code = match reason {
                RejectedEvent::TooLarge { .. } => "LAN-0326",
                _ => "LAN-0327",
            };
            // The text identifies the event by its id and source. Its index is not used: invalid
            // events may have been left out, so the index among the parsed events may differ from
            // that in the request.
            return Self::new(code, error.to_string()).with("appended", *appended);
        }
        let code = match error {
            LogError::OutOfRange { .. } | LogError::Lost { .. } => "LAN-0320",
            LogError::NoPartition(_) => "LAN-0321",
            LogError::Full(_) => "LAN-0322",
            LogError::NoImport(_) => "LAN-0328",
            LogError::Damaged(_) => "LAN-0324",
            _ => "LAN-0323",
        };
        Self::new(code, error.to_string())
    }
}

impl From<LoadError> for Problem {
    fn from(error: LoadError) -> Self {
        let problem = Self::new(error.code(), error.to_string()).help(error.help());
        match error.backtrace() {
            "" => problem,
            backtrace => problem.with("backtrace", backtrace),
        }
    }
}

impl From<EngineError> for Problem {
    fn from(error: EngineError) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<ViewError> for Problem {
    fn from(error: ViewError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        EngineError::from(error).into()
    }
}

impl From<RequestError> for Problem {
    fn from(error: RequestError) -> Self {
        Self::new("LAN-0426", error.to_string()).with("parameter", error.parameter)
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let detail = error.to_string();
        match error {
            QueryError::Limit { setting, .. } => {
                Self::new("LAN-0427", detail).with("setting", format!("query.{setting}"))
            }
            QueryError::OutOfRange { .. } => Self::new("LAN-0428", detail),
            QueryError::Store(error) => error.into(),
            // The caller no longer waits, so no client reads this answer.
            _ => Self::new("LAN-0215", detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_has_the_members_of_rfc_9457_and_a_code() {
        let problem = Problem::from(LogError::Full("no space on /x".into())).with("line", 7);
        let response = problem.into_response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["type"], "/v1/errors/LAN-0322");
        assert_eq!(body["title"], "the disk is full");
        assert_eq!(body["status"], 503);
        assert_eq!(body["detail"], "the disk is full: no space on /x");
        assert_eq!(body["code"], "LAN-0322");
        assert_eq!(body["line"], 7);
        assert!(body["help"].as_str().unwrap().contains("free space"));
    }

    #[test]
    fn every_code_an_event_error_has_is_in_the_table() {
        for error in [
            EventError::NotJson(String::new()),
            EventError::TooLarge { bytes: 0, max: 0 },
            EventError::TooDeep { max: 0 },
            EventError::Missing("id"),
            EventError::DataTwice,
            EventError::SpecVersion(String::new()),
            EventError::Reserved { name: "type", value: String::new(), rule: "" },
            EventError::Time { value: String::new(), hint: String::new() },
            EventError::TimeAhead { value: String::new(), max_s: 0 },
            EventError::Name(String::new()),
            EventError::TooManyTypes,
        ] {
            assert!(find(error.code()).is_some(), "{}", error.code());
        }
    }
}
