use axum::http::Method;
use serde_json::json;

use super::{PASSWORD, Server};

#[tokio::test]
async fn logs_in_and_uses_the_token() {
    let mut server = Server::new();
    let body = json!({ "username": "admin", "password": PASSWORD });
    let answer = server.send(Method::POST, "/auth/token", body).await;
    assert_eq!(answer.status, 201);
    server.token = answer.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(server.get("/api/v2/dags").await.status, 200);
}

#[tokio::test]
async fn refuses_wrong_passwords_and_then_makes_them_wait() {
    let mut server = Server::new();
    let earlier = std::mem::take(&mut server.token);
    let login = |password: &str| json!({ "username": "admin", "password": password });
    for _ in 0..11 {
        let answer = server.send(Method::POST, "/auth/token", login("wrong")).await;
        assert_eq!(answer.error(), (401, "invalid_credentials".to_owned()));
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    // A token that somebody made up is no token.
    for token in ["", "a.b.c"] {
        server.token = token.to_owned();
        let answer = server.send(Method::POST, "/auth/token", login(PASSWORD)).await;
        assert_eq!(answer.error(), (429, "too_many_logins".to_owned()));
        assert_eq!(answer.headers["retry-after"], "2");
    }
    // Whoever has logged in before is counted apart.
    server.token = earlier;
    assert_eq!(
        server.send(Method::POST, "/auth/token", login(PASSWORD)).await.status,
        201
    );
}

#[tokio::test]
async fn a_program_that_has_the_key_needs_no_login() {
    let mut server = Server::new();
    server.token = crate::local_token(super::KEY, super::fake::NOW).unwrap();
    assert_eq!(server.get("/api/v2/dags").await.status, 200);
    server.token = crate::local_token(b"another key, also 32 bytes long.", super::fake::NOW).unwrap();
    assert_eq!(server.get("/api/v2/dags").await.status, 401);
}

#[tokio::test]
async fn health_says_when_the_disk_is_nearly_full() {
    let server = Server::new();
    let storage = |body: serde_json::Value| body["storage"].clone();
    let healthy = json!({ "status": "healthy", "free_bytes": 10_u64 << 30, "reserved_bytes": 1 << 30 });
    assert_eq!(storage(server.get("/api/v2/monitor/health").await.json()), healthy);
    server.disk.0.store((1 << 30) - 1, std::sync::atomic::Ordering::Relaxed);
    let body = server.get("/api/v2/monitor/health").await.json();
    assert_eq!(storage(body)["status"], "unhealthy");
}

#[tokio::test]
async fn an_error_in_a_stream_names_its_request() {
    let server = Server::new();
    server.ended_run().await;
    server.fake.break_logs();
    let request = server
        .request(
            &Method::GET,
            "/api/v2/dags/etl/dagRuns/r/taskInstances/load/logs/1?follow=true",
        )
        .header("x-request-id", "mine-2")
        .header("accept", "application/x-ndjson")
        .body(axum::body::Body::empty())
        .unwrap();
    let answer = server.answer(request).await;
    let line: serde_json::Value = serde_json::from_str(answer.text.trim()).unwrap();
    assert_eq!(
        (line["code"].as_str(), line["request_id"].as_str()),
        (Some("internal_error"), Some("mine-2"))
    );
}

#[tokio::test]
async fn refuses_requests_without_a_valid_token() {
    let mut server = Server::new();
    for token in ["", "x", "a.b.c"] {
        server.token = token.to_owned();
        let answer = server.get("/api/v2/dags").await;
        assert_eq!(answer.error(), (401, "unauthenticated".to_owned()));
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
}

#[tokio::test]
async fn version_and_health_need_no_token() {
    let mut server = Server::new();
    server.token = String::new();
    insta::assert_json_snapshot!(server.get("/api/v2/monitor/health").await.json());
    assert_eq!(server.get("/api/v2/version").await.json()["airflow_api"], "3.3.2");
    assert_eq!(server.get("/auth/token").await.error(), (403, "forbidden".to_owned()));
}

#[tokio::test]
async fn answers_carry_security_headers_and_a_request_id() {
    let server = Server::new();
    let request = server
        .request(&Method::GET, "/nowhere")
        .header("x-request-id", "mine-1")
        .body(axum::body::Body::empty())
        .unwrap();
    let answer = server.answer(request).await;
    assert_eq!(answer.error(), (404, "route_not_found".to_owned()));
    assert_eq!(answer.headers["x-request-id"], "mine-1");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["cache-control"], "no-store");
}
