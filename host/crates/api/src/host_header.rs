//! A request names the host that it is for, once: proxies and servers that choose different ones of two are led astray.

use axum::extract::Request;
use axum::http::{Version, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::error::{ApiError, Code};

/// Refuses requests without a host (but for HTTP/1.0, which has none), with several, or with one that cannot be.
pub(crate) async fn middleware(request: Request, next: Next) -> Response {
    match problem(&request) {
        Some(problem) => ApiError::new(Code::InvalidHost, problem).into_response(),
        None => next.run(request).await,
    }
}

fn problem(request: &Request) -> Option<&'static str> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let Some(host) = hosts.next() else {
        let old = matches!(request.version(), Version::HTTP_09 | Version::HTTP_10);
        return (!old).then_some("the request has no `Host` header");
    };
    if hosts.next().is_some() {
        return Some("the request has more than one `Host` header");
    }
    let valid = host.is_empty() || Authority::try_from(host.as_bytes()).is_ok();
    (!valid).then_some("the `Host` header names no host")
}
