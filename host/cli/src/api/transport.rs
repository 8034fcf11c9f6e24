//! Sends requests and reads answers. Only this module uses the HTTP library.

use std::io::Write;
use std::time::Duration;

use lantern_api::Problem;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Answer, Api, ApiError};
use crate::error::Refusal;

/// The time after which an attempt to connect fails.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long the server may send nothing while a request is in progress. During an upload it sends
/// nothing while it compiles and checks the plugin.
const SILENCE_MAX: Duration = Duration::from_secs(600);
/// The maximum wait that the server's `Retry-After` can cause. Longer values are shortened.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

pub(super) const JSON: &str = "application/json";

/// Creates the HTTP client, which keeps the connections to the server.
pub(super) fn http() -> reqwest::Client {
    reqwest::Client::builder()
        .connect_timeout(CONNECT_MAX)
        .read_timeout(SILENCE_MAX)
        .user_agent(concat!("lantern/", env!("CARGO_PKG_VERSION")))
        .build()
        .expect("a client without TLS and proxies can be created")
}

impl Api {
    pub(super) async fn get<T: DeserializeOwned>(&self, path: &Path) -> Answer<T> {
        self.send(Method::GET, &path.0, None).await?.json().await
    }

    /// Requests an answer with the media type `media`.
    pub(super) async fn get_as(&self, path: &Path, media: &str) -> Answer<Received> {
        let request = self.http.get(format!("{}{}", self.base, path.0));
        self.received(request.header(header::ACCEPT, media)).await
    }

    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &Path,
        body: Option<&impl Serialize>,
    ) -> Answer<T> {
        let body = body.map(|body| {
            let bytes = serde_json::to_vec(body).expect("requests are plain JSON");
            Body { media: JSON.into(), length: bytes.len() as u64, content: bytes.into() }
        });
        self.send(Method::POST, &path.0, body).await?.json().await
    }

    pub(super) async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Body>,
    ) -> Answer<Received> {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        if let Some(body) = body {
            request = request
                .header(header::CONTENT_TYPE, body.media)
                .header(header::CONTENT_LENGTH, body.length)
                .body(body.content);
        }
        self.received(request).await
    }

    async fn received(&self, request: RequestBuilder) -> Answer<Received> {
        let response = request.send().await.map_err(|e| self.broken(&e))?;
        if response.status().is_success() {
            Ok(Received { api: self.clone(), response })
        } else {
            Err(self.refused(response).await)
        }
    }

    async fn refused(&self, response: Response) -> ApiError {
        let status = response.status();
        let retry_after = response
            .headers()
            .get(header::RETRY_AFTER)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
        let body = response.bytes().await.unwrap_or_default();
        let problem = serde_json::from_slice(&body).unwrap_or_else(|_| Problem {
            title: format!("the server answered {status}"),
            ..Problem::default()
        });
        let refusal = Box::new(Refusal::from(problem));
        ApiError::Refused { status: status.as_u16(), retry_after, refusal }
    }

    fn broken(&self, error: &reqwest::Error) -> ApiError {
        // Only the innermost cause is shown, because the texts of the HTTP library repeat the
        // address of the server.
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        ApiError::Unreachable { base: self.base.clone(), reason: cause.to_string() }
    }
}

/// The body of a request, with its media type.
pub(super) struct Body {
    pub(super) media: String,
    pub(super) length: u64,
    pub(super) content: reqwest::Body,
}

/// The answer to a request that succeeded.
pub(super) struct Received {
    api: Api,
    response: Response,
}

impl Received {
    pub(super) async fn json<T: DeserializeOwned>(self) -> Answer<T> {
        let empty = self.response.status() == StatusCode::NO_CONTENT;
        let bytes = self.response.bytes().await.map_err(|e| self.api.broken(&e))?;
        let bytes: &[u8] = if empty || bytes.is_empty() { b"null" } else { &bytes };
        serde_json::from_slice(bytes).map_err(|e| ApiError::Answer(e.to_string()))
    }

    /// Returns the value of a header.
    pub(super) fn header(&self, name: &str) -> Option<String> {
        self.response.headers().get(name)?.to_str().ok().map(str::to_owned)
    }

    /// Writes the body to `target` while it arrives.
    ///
    /// # Errors
    /// Returns an error if a read or a write fails, and also if the body breaks off.
    pub(super) async fn write_to(mut self, target: &mut dyn Write) -> Answer<()> {
        let incomplete = |error: reqwest::Error| ApiError::Incomplete(error.to_string());
        while let Some(piece) = self.response.chunk().await.map_err(incomplete)? {
            target.write_all(&piece).map_err(|e| ApiError::Output(e.to_string()))?;
        }
        target.flush().map_err(|e| ApiError::Output(e.to_string()))
    }

    pub(super) async fn text(self) -> Answer<String> {
        self.response.text().await.map_err(|e| self.api.broken(&e))
    }

    /// Calls `take` with each line of JSON as soon as it arrives.
    pub(super) async fn json_lines<T: DeserializeOwned>(
        mut self,
        mut take: impl FnMut(T),
    ) -> Answer<()> {
        let mut partial = Vec::new();
        while let Some(bytes) = self.response.chunk().await.map_err(|e| self.api.broken(&e))? {
            partial.extend_from_slice(&bytes);
            while let Some(end) = partial.iter().position(|byte| *byte == b'\n') {
                let rest = partial.split_off(end + 1);
                let line = std::mem::replace(&mut partial, rest);
                let line = serde_json::from_slice(&line);
                take(line.map_err(|e| ApiError::Answer(e.to_string()))?);
            }
        }
        Ok(())
    }
}

/// The path of a request with its query.
pub(super) struct Path(pub(super) String);

impl Path {
    pub(super) fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    pub(super) fn add(&mut self, name: &str, value: impl ToString) -> &mut Self {
        self.0.push(if self.0.contains('?') { '&' } else { '?' });
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&escaped(&value.to_string()));
        self
    }
}

pub(super) fn projection(name: &str, rest: &str) -> Path {
    Path::new(&format!("/v1/projections/{}{rest}", escaped(name)))
}

/// Escapes `text` so that it can be part of a path or a value of a query.
pub(super) fn escaped(text: &str) -> String {
    /// All characters except the unreserved ones of RFC 3986.
    const RESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_with_a_meaning_in_an_address_are_escaped() {
        assert_eq!(escaped("a/b?c=d&e é"), "a%2Fb%3Fc%3Dd%26e%20%C3%A9");
        let mut path = Path::new("/v1/x");
        path.add("key", "a&b").add("limit", 5);
        assert_eq!(path.0, "/v1/x?key=a%26b&limit=5");
    }
}
