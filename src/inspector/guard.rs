//! Guard: who may use the admin port, and what a browser may do with its answers.
//!
//! Without a token the port is open to this machine, where a browser runs other people's pages. So a
//! request must then name this machine as its host (against DNS rebinding to 127.0.0.1) and must not
//! come from a page of another origin. With a token neither attack gets anywhere.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::admin::Inspector;
use crate::http::{HttpError, bearer};

/// Where a browser's request comes from: <https://www.w3.org/TR/fetch-metadata/>
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Nothing but what this port serves, and no inline script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      connect-src 'self'; img-src 'self' data:; base-uri 'none'; \
                      frame-ancestors 'none'; form-action 'none'";

/// Requires the token, if one is set; otherwise refuses requests from pages of other origins.
pub async fn authorise(
    State(inspector): State<Arc<Inspector>>,
    request: Request,
    next: Next,
) -> Result<Response, HttpError> {
    let headers = request.headers();
    let tokens = &inspector.tokens;
    if tokens.are_set() && !bearer(headers).is_some_and(|given| tokens.accept(given)) {
        let error = "send ADMIN_TOKEN as Authorization: Bearer";
        return Err(HttpError::new(StatusCode::UNAUTHORIZED, error));
    }
    if !tokens.are_set() && !is_same_origin(headers) {
        let error = "pages of other origins may not use the admin port";
        return Err(HttpError::new(StatusCode::FORBIDDEN, error));
    }
    Ok(next.run(request).await)
}

/// Without a token, refuses hosts that are not this machine.
pub async fn check_host(
    State(inspector): State<Arc<Inspector>>,
    request: Request,
    next: Next,
) -> Result<Response, HttpError> {
    let is_own = host(request.headers()).is_some_and(|host| is_loopback(&host));
    if !inspector.tokens.are_set() && !is_own {
        let error = "without ADMIN_TOKEN the admin port answers only at localhost and loopback \
                     addresses";
        return Err(HttpError::new(StatusCode::FORBIDDEN, error));
    }
    Ok(next.run(request).await)
}

/// Adds the headers that tell browsers what they may do with an answer.
pub async fn protect(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What the API answers is private, and out of date a moment later.
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Without either header the request is not a page's: browsers send at least one of them with every
/// request that could do harm.
fn is_same_origin(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get(SEC_FETCH_SITE) {
        return site == "same-origin" || site == "none";
    }
    let Some(origin) = headers.get(ORIGIN) else { return true };
    let own = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    own.is_some_and(|(_, authority)| headers.get(HOST).is_some_and(|host| host == authority))
}

fn host(headers: &HeaderMap) -> Option<String> {
    let authority: Authority = headers.get(HOST)?.to_str().ok()?.parse().ok()?;
    Some(authority.host().trim_matches(['[', ']']).to_owned())
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pairs = pairs.iter();
        pairs.map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn only_loopback_names_this_machine() {
        for (value, expected) in [
            ("localhost:6002", true),
            ("LOCALHOST", true),
            ("127.0.0.1:6002", true),
            ("127.8.9.1", true),
            ("[::1]:6002", true),
            ("evil.test:6002", false),
            ("localhost.evil.test", false),
            ("127.0.0.1.evil.test", false),
            ("0.0.0.0:6002", false),
            ("192.168.0.7:6002", false),
            ("", false),
        ] {
            let headers = headers(&[(HOST, value)]);
            let is_own = host(&headers).is_some_and(|host| is_loopback(&host));
            assert_eq!(is_own, expected, "{value}");
        }
        assert_eq!(host(&HeaderMap::new()), None);
    }

    #[test]
    fn a_page_of_another_origin_is_told_by_what_its_browser_says() {
        let own = (HOST, "127.0.0.1:6002");
        for (said, expected) in [
            (None, true),
            (Some((SEC_FETCH_SITE, "same-origin")), true),
            (Some((SEC_FETCH_SITE, "none")), true),
            (Some((SEC_FETCH_SITE, "same-site")), false),
            (Some((SEC_FETCH_SITE, "cross-site")), false),
            (Some((ORIGIN, "http://127.0.0.1:6002")), true),
            (Some((ORIGIN, "http://127.0.0.1:8080")), false),
            (Some((ORIGIN, "https://evil.test")), false),
            (Some((ORIGIN, "null")), false),
        ] {
            let pairs: Vec<_> = [own.clone()].into_iter().chain(said.clone()).collect();
            assert_eq!(is_same_origin(&headers(&pairs)), expected, "{said:?}");
        }
    }
}
