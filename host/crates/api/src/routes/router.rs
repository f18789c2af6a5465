//! The router: all resources, and what every request passes through.

use std::any::Any;
use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, Response, header};
use axum::middleware;
use axum::response::IntoResponse;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;

use crate::error::{ApiError, Code};
use crate::openapi::Routes;
use crate::request::unread;
use crate::state::{App, State};
use crate::{auth, host_header, request_id};

/// The API as an axum router, ready to be served or merged with others.
pub fn router(state: State) -> Router {
    let (public, guarded, document) = routes().finish();
    let app = Arc::new(App::new(state, json_of(&document)));
    let guarded = guarded
        .method_not_allowed_fallback(method_not_allowed)
        .route_layer(middleware::from_fn_with_state(app.clone(), auth::require));
    let router = public.method_not_allowed_fallback(method_not_allowed).merge(guarded);
    layered(router.fallback(not_found).with_state(app))
}

/// What every request passes through, from the inside out.
fn layered(router: Router) -> Router {
    router
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(unread::middleware))
        .layer(middleware::from_fn(host_header::middleware))
        .layer(middleware::from_fn(security_headers))
        .layer(middleware::from_fn(request_id::middleware))
}

pub(crate) fn routes() -> Routes {
    let routes = Routes::new();
    let routes = super::landing::add(routes);
    let routes = super::monitor::add(routes);
    let routes = super::token::add(routes);
    let routes = super::dags::add(routes);
    let routes = super::deploy::add(routes);
    let routes = super::dag_sources::add(routes);
    let routes = super::dag_stats::add(routes);
    let routes = super::dag_tags::add(routes);
    let routes = super::dag_versions::add(routes);
    let routes = super::tasks::add(routes);
    let routes = super::dag_runs::add(routes);
    let routes = super::wait::add(routes);
    let routes = super::clear::add(routes);
    let routes = super::task_instances::add(routes);
    let routes = super::set_state::add(routes);
    let routes = super::bulk_task_instances::add(routes);
    let routes = super::dependencies::add(routes);
    let routes = super::tries::add(routes);
    let routes = super::hitl::add(routes);
    let routes = super::callbacks::add(routes);
    let routes = super::logs::add(routes);
    let routes = super::xcoms::add(routes);
    let routes = super::components::add(routes);
    let routes = super::blobs::add(routes);
    let routes = super::events::add(routes);
    let routes = super::pools::add(routes);
    let routes = super::event_logs::add(routes);
    super::constants::add(routes)
}

fn json_of(document: &OpenApi) -> bytes::Bytes {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    // utoipa writes the newest 3.x by default; every feature used here is of 3.1, which tools read.
    if let Some(version) = document.get_mut("openapi") {
        *version = "3.1.0".into();
    }
    document.to_string().into()
}

async fn not_found() -> ApiError {
    ApiError::new(Code::RouteNotFound, "there is nothing under this path")
}

async fn method_not_allowed() -> ApiError {
    ApiError::new(Code::MethodNotAllowed, "this method is not allowed here")
}

fn panicked(cause: Box<dyn Any + Send>) -> Response<axum::body::Body> {
    let text = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("no message");
    ApiError::internal(format!("a handler panicked: {text}")).into_response()
}

/// What a browser needs to hear, unless the handler said something else.
async fn security_headers(request: axum::extract::Request, next: middleware::Next) -> axum::response::Response {
    const HEADERS: [(HeaderName, HeaderValue); 5] = [
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; base-uri 'none'"),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(value);
    }
    response
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::extract::Request;
    use axum::routing::get;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn panics() {
        panic!("a bug")
    }

    #[tokio::test]
    async fn a_panic_is_answered_in_the_one_shape() {
        let router = layered(Router::new().route("/", get(panics)));
        let request = Request::builder()
            .header(header::HOST, "x")
            .body(Body::empty())
            .unwrap();
        let response = router.oneshot(request).await.unwrap();
        assert_eq!(response.status(), 500);
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({ "detail": "internal error", "code": "internal_error", "request_id": id });
        assert_eq!(body, expected);
    }
}
