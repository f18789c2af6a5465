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
    let server = Server::new();
    for _ in 0..20 {
        let body = json!({ "username": "admin", "password": "wrong" });
        let answer = server.send(Method::POST, "/auth/token", body).await;
        assert_eq!(answer.error(), (401, "invalid_credentials".to_owned()));
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    let body = json!({ "username": "admin", "password": PASSWORD });
    let answer = server.send(Method::POST, "/auth/token", body).await;
    assert_eq!(answer.error(), (429, "too_many_logins".to_owned()));
    assert!(answer.headers.contains_key("retry-after"));
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
