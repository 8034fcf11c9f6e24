//! Protects a server without authentication from web pages of other sites. A browser lets such a
//! page send requests to the loopback address, even under the page's own host name (DNS rebinding).

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{HOST, ORIGIN};
use http::{HeaderMap, Uri};

use super::App;
use crate::cloudevents::percent_decode;
use crate::config::HttpConfig;
use crate::problem::Problem;

/// Answers a request only under two conditions: its `Host` names this server, and it comes from a
/// page that may call the server or from no page at all.
pub(super) async fn check(
    app: &App,
    request: Request,
    next: impl AsyncFnOnce(Request) -> Response,
) -> Response {
    match allowed(request.headers(), request.uri(), &app.config.http) {
        Ok(()) => next(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn allowed(headers: &HeaderMap, uri: &Uri, config: &HttpConfig) -> Result<(), Problem> {
    let host = host(headers, uri)?;
    if !is_ours(host, config) {
        let detail = format!("`Host` is `{host}`, which is not this server's");
        return Err(Problem::new("LAN-0409", detail));
    }
    check_encoding(uri)?;
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else { return Ok(()) };
    if origins.next().is_some() {
        return Err(Problem::new("LAN-0415", "there is more than one `Origin` header"));
    }
    let origin = origin.to_str().unwrap_or("?");
    let site = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    // A page that was loaded from another port of this machine belongs to another site.
    let own = site.is_some_and(|site| site == host && is_ours(site, config));
    if own || config.origins.iter().any(|allowed| allowed == origin) {
        return Ok(());
    }
    Err(Problem::new("LAN-0410", format!("`Origin` is `{origin}`, which may not call this server")))
}

/// Returns the host that the request names (RFC 9112, section 3.2): the host in its target or, if
/// the target has none, in the `Host` header. A request must have exactly one `Host` header.
fn host<'a>(headers: &'a HeaderMap, uri: &'a Uri) -> Result<&'a str, Problem> {
    let bad = |detail: &str| Problem::new("LAN-0415", detail);
    let mut hosts = headers.get_all(HOST).iter();
    let host = hosts.next().ok_or_else(|| bad("the `Host` header is missing"))?;
    if hosts.next().is_some() {
        return Err(bad("there is more than one `Host` header"));
    }
    let host = host.to_str().map_err(|_| bad("`Host` is not ASCII"))?;
    if host.contains([',', ' ', '@', '/']) {
        return Err(bad(&format!("`Host` is `{host}`, which is not a host and port")));
    }
    match uri.authority() {
        None => Ok(host),
        Some(target) if target.as_str().contains('@') => Err(bad("the target names a user")),
        Some(target) => Ok(target.as_str()),
    }
}

/// Refuses a path or query that is not percent-encoded UTF-8, because a tolerant decoder could
/// change its meaning.
fn check_encoding(uri: &Uri) -> Result<(), Problem> {
    for part in [uri.path(), uri.query().unwrap_or_default()] {
        if percent_decode(part.as_bytes()).is_none() {
            let detail = format!("`{part}` is not percent-encoded UTF-8");
            return Err(Problem::new("LAN-0403", detail));
        }
    }
    Ok(())
}

/// Returns whether `host`, with or without a port, names this server.
fn is_ours(host: &str, config: &HttpConfig) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        || config.hosts.iter().any(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_that_name_the_server_from_its_own_pages_pass() {
        let config = HttpConfig {
            hosts: vec!["lantern.example".into()],
            origins: vec!["https://dash.example".into()],
            ..HttpConfig::default()
        };
        let check = |host: &str, origin: &str, expected: &str| {
            let mut headers = HeaderMap::new();
            for host in host.split('|').filter(|host| !host.is_empty()) {
                headers.append(HOST, host.parse().unwrap());
            }
            if !origin.is_empty() {
                headers.insert(ORIGIN, origin.parse().unwrap());
            }
            let code = allowed(&headers, &Uri::from_static("/"), &config)
                .map_or_else(|problem| problem.code.clone(), |()| "fine".into());
            assert_eq!(code, expected, "host {host}, origin {origin}");
        };
        check("localhost:7420", "", "fine");
        check("127.0.0.1", "", "fine");
        check("127.0.0.1:80", "http://127.0.0.1:80", "fine");
        check("[::1]:7420", "http://[::1]:7420", "fine");
        check("Lantern.example", "", "fine");
        check("localhost:7420", "https://dash.example", "fine");
        check("evil.example:7420", "", "LAN-0409");
        check("localhost.evil.example", "", "LAN-0409");
        check("192.168.0.1", "", "LAN-0409");
        check("", "", "LAN-0415");
        check("localhost|localhost", "", "LAN-0415");
        check("localhost, evil.example", "", "LAN-0415");
        check("me@localhost", "", "LAN-0415");
        check("localhost:7420", "http://evil.example", "LAN-0410");
        check("localhost:7420", "http://localhost:3000", "LAN-0410");
        check("localhost:7420", "null", "LAN-0410");
        check("evil.example", "http://evil.example", "LAN-0409");
    }

    #[test]
    fn a_target_with_a_host_is_held_to_the_list_and_must_be_percent_encoded() {
        let check = |target: &str, expected: &str| {
            let headers = HeaderMap::from_iter([(HOST, "localhost".parse().unwrap())]);
            let uri = target.parse().unwrap();
            let code = allowed(&headers, &uri, &HttpConfig::default())
                .map_or_else(|problem| problem.code.clone(), |()| "fine".into());
            assert_eq!(code, expected, "{target}");
        };
        check("http://localhost:7420/healthz", "fine");
        check("http://evil.example/healthz", "LAN-0409");
        check("http://me@localhost/healthz", "LAN-0415");
        check("/v1/tables/a/b?key=%C3%A9+%2B", "fine");
        check("/v1/tables/a/b?key=100%", "LAN-0403");
        check("/v1/tables/a/b?key=%zz", "LAN-0403");
        check("/v1/tables/a/b?key=%ff", "LAN-0403");
        check("/v1/projections/%c3", "LAN-0403");
    }
}
