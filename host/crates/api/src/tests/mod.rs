//! The whole router against in-memory implementations of the traits: those are the seam.

mod auth;
mod connections;
mod document;
mod fake;
mod hostile;
mod resources;
mod streams;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::BodyExt as _;
use ports::space::{Room, Space};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use self::fake::{Fake, FixedClock, NOW};
use crate::{Authenticator, BodyLimits, Descriptors, EventsOf, State, router};

pub(crate) const PASSWORD: &str = "correct horse";
pub(crate) const SCHEDULER: uuid::Uuid = uuid::Uuid::from_u128(5);
const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

/// A disk with as many free bytes as a test says, of which a gibibyte is kept.
pub(crate) struct Disk(pub(crate) AtomicU64);

impl Space for Disk {
    fn room(&self) -> Room {
        Room {
            free: Some(self.0.load(Ordering::Relaxed)),
            floor: 1 << 30,
        }
    }
}

pub(crate) struct Server {
    pub(crate) fake: Arc<Fake>,
    pub(crate) disk: Arc<Disk>,
    pub(crate) router: Router,
    pub(crate) token: String,
    pub(crate) shutdown: CancellationToken,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// Status and code of an error.
    pub(crate) fn error(&self) -> (u16, String) {
        let body = self.json();
        assert!(body["detail"].is_string() || body["detail"].is_array(), "{body}");
        assert_eq!(
            body["request_id"].as_str(),
            self.headers["x-request-id"].to_str().ok(),
            "{body}"
        );
        (
            self.status.as_u16(),
            body["code"].as_str().unwrap_or_default().to_owned(),
        )
    }
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::telling(EventsOf::This(SCHEDULER))
    }

    pub(crate) fn telling(events_of: EventsOf) -> Self {
        let limits = BodyLimits {
            json_bytes: 64 << 10,
            component_bytes: 256 << 10,
            blob_bytes: 256 << 10,
            body_grace: Duration::from_millis(200),
            heartbeat: Duration::from_millis(20),
            ..BodyLimits::default()
        };
        let fake = Fake::new();
        let disk = Arc::new(Disk(AtomicU64::new(10 << 30)));
        let shutdown = CancellationToken::new();
        let authenticator = Authenticator::new(PASSWORD, KEY);
        let token = authenticator.issue("admin", NOW).unwrap();
        let router = router(State {
            control: fake.clone(),
            metadata: fake.clone(),
            components: fake.clone(),
            deployer: fake.clone(),
            logs: fake.clone(),
            blobs: fake.clone(),
            uploads: fake.clone(),
            space: disk.clone(),
            clock: Arc::new(FixedClock),
            authenticator,
            limits,
            events_of,
            descriptors: || Descriptors {
                open: Some(20),
                limit: Some(1024),
            },
            shutdown: shutdown.clone(),
        });
        Self {
            fake,
            disk,
            router,
            token,
            shutdown,
        }
    }

    pub(crate) async fn raw(&self, mut request: Request<Body>) -> axum::response::Response {
        let host = axum::http::HeaderValue::from_static("test");
        request.headers_mut().entry(axum::http::header::HOST).or_insert(host);
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn answer(&self, request: Request<Body>) -> Answer {
        let response = self.raw(request).await;
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        Answer {
            status,
            headers,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
        }
    }

    pub(crate) fn request(&self, method: &Method, path: &str) -> axum::http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {}", self.token))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let request = self.request(&Method::GET, path).body(Body::empty()).unwrap();
        self.answer(request).await
    }

    pub(crate) async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        let request = self
            .request(&method, path)
            .header("content-type", "application/json")
            .body(Body::from(body.to_string()))
            .unwrap();
        self.answer(request).await
    }

    pub(crate) async fn put_text(&self, method: Method, path: &str, content_type: &str, body: &str) -> Answer {
        let request = self
            .request(&method, path)
            .header("content-type", content_type)
            .body(Body::from(body.to_owned()))
            .unwrap();
        self.answer(request).await
    }

    /// A run named `r`, ended.
    pub(crate) async fn ended_run(&self) {
        let body = serde_json::json!({ "dag_run_id": "r", "logical_date": null, "conf": { "a": 1 } });
        let answer = self.send(Method::POST, "/api/v2/dags/etl/dagRuns", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        self.fake.finish("r");
    }
}
