//! One id a request: taken from `x-request-id` or made here, in the log, in the answer's header and in error bodies.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{MatchedPath, Request};
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tracing::{Instrument as _, Span};

pub(crate) const HEADER: &str = "x-request-id";

tokio::task_local! {
    static REQUEST_ID: Arc<str>;
}

/// The id of the request that is being served. Outside of one it is a new one: it is never empty.
pub(crate) fn current() -> String {
    REQUEST_ID.try_with(|id| String::from(&**id)).unwrap_or_else(|_| made())
}

fn made() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// Gives the request its id and its span.
pub(crate) async fn middleware(request: Request, next: Next) -> Response {
    let id: Arc<str> = given(&request).unwrap_or_else(made).into();
    let path = request
        .extensions()
        .get::<MatchedPath>()
        .map_or("(no route)", MatchedPath::as_str);
    let span = tracing::info_span!("request", http.method = %request.method(), http.route = path, request.id = %id);
    let header = HeaderValue::from_str(&id);
    let answered = REQUEST_ID
        .scope(Arc::clone(&id), next.run(request))
        .instrument(span.clone());
    let mut response = answered.await;
    tracing::debug!(parent: &span, http.status = response.status().as_u16(), "answered {}", response.status());
    if let Ok(header) = header {
        response.headers_mut().insert(HEADER, header);
    }
    response.map(|body| {
        // What is whole has nothing more to say.
        if body.size_hint().exact().is_some() {
            return body;
        }
        Body::new(Told { body, id, span })
    })
}

/// A body that is made while it is sent: what goes wrong then belongs to the request too.
struct Told {
    body: Body,
    id: Arc<str>,
    span: Span,
}

impl HttpBody for Told {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Self { body, id, span } = self.get_mut();
        let _entered = span.enter();
        REQUEST_ID.sync_scope(Arc::clone(id), || Pin::new(body).poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A caller's own id, where it is harmless.
fn given(request: &Request) -> Option<String> {
    let id = request.headers().get(HEADER)?.to_str().ok()?;
    let harmless =
        (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    harmless.then(|| id.to_owned())
}
