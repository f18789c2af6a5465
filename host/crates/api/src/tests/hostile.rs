//! Whatever is sent, the answer has the one shape and is never 500.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Method;
use proptest::prelude::*;

use super::Server;
use crate::routes::routes;

/// Paths of the document with something in the place of each parameter.
fn path() -> impl Strategy<Value = String> {
    let (.., document) = routes().finish();
    let paths: Vec<String> = document.paths.paths.keys().cloned().collect();
    let part = prop_oneof![
        Just("etl".to_owned()),
        Just("r".to_owned()),
        Just("~".to_owned()),
        Just("1".to_owned()),
        Just("-1".to_owned()),
        "[ -~]{1,8}"
    ];
    (proptest::sample::select(paths), proptest::collection::vec(part, 8)).prop_map(|(path, parts)| {
        let mut parts = parts.into_iter();
        path.split('/')
            .map(|segment| match segment.starts_with('{') {
                true => form_urlencoded::byte_serialize(parts.next().unwrap_or_default().as_bytes()).collect(),
                false => segment.to_owned(),
            })
            .collect::<Vec<String>>()
            .join("/")
    })
}

fn query() -> impl Strategy<Value = String> {
    let name = proptest::sample::select(vec![
        "limit",
        "offset",
        "cursor",
        "order_by",
        "state",
        "run_after_gte",
        "map_index",
        "interval",
        "token",
        "result",
        "dag_id_pattern",
        "run_id_prefix_pattern",
        "duration_gte",
        "try_number",
        "version_number",
        "follow",
        "stringify",
        "update_mask",
        "tags",
        "name",
        "version",
        "wait",
    ]);
    let value = prop_oneof![
        "[ -~]{0,12}",
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f64>().prop_map(|n| n.to_string()),
        Just("true".to_owned()),
        Just("-id".to_owned()),
        Just("9999-12-31T23:59:59Z".to_owned()),
        Just("%|_%".to_owned())
    ];
    proptest::collection::vec((name, value), 0..5).prop_map(|pairs| {
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(pairs)
            .finish()
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let name = proptest::sample::select(vec![
        "dag_run_id",
        "logical_date",
        "conf",
        "note",
        "state",
        "is_paused",
        "task_ids",
        "dry_run",
        "run_after",
        "page_limit",
        "page_offset",
        "dag_ids",
        "order_by",
        "username",
        "password",
        "odd",
    ]);
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<f32>().prop_map(|n| n.to_string()),
        "[a-z0-9:TZ+.~-]{0,24}".prop_map(|text| format!("\"{text}\"")),
        Just("[[[]]]".to_owned()),
        Just("{\"a\":[1]}".to_owned()),
        Just("[\"load\",-1]".to_owned())
    ];
    let object = proptest::collection::vec((name, leaf), 0..5).prop_map(|members| {
        let members: Vec<String> = members
            .into_iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", members.join(",")).into_bytes()
    });
    prop_oneof![3 => object, 1 => proptest::collection::vec(any::<u8>(), 0..64)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn random_requests_never_fail_inside(
        path in path(),
        query in query(),
        body in body(),
        method in proptest::sample::select(vec!["GET", "POST", "PUT", "PATCH", "DELETE"]),
        content_type in proptest::sample::select(vec!["application/json", "application/yaml", "application/wasm", "text/plain"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::new();
            server.ended_run().await;
            let Ok(request) = server
                .request(&Method::from_bytes(method.as_bytes()).unwrap(), &format!("{path}?{query}"))
                .header("content-type", content_type)
                .body(Body::from(body))
            else {
                return Ok(());
            };
            // The head of the answer is enough; some bodies are streams without an end.
            let response = server.raw(request).await;
            let status = response.status();
            prop_assert!(status.as_u16() < 500, "{method} {path}?{query}: {status}");
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_body_that_trickles_is_cut_off() {
    let server = Server::new();
    let trickle = futures::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from_static(b" ")), ()))
    });
    let request = server
        .request(&Method::POST, "/api/v2/dags/etl/dagRuns")
        .header("content-type", "application/json")
        .body(Body::from_stream(trickle))
        .unwrap();
    assert_eq!(
        server.answer(request).await.error(),
        (408, "request_timeout".to_owned())
    );
}

#[tokio::test]
async fn a_body_that_breaks_off_is_the_callers_fault() {
    let server = Server::new();
    for (path, content_type) in [
        ("/api/v2/components", "application/wasm"),
        ("/api/v2/blobs", "text/plain"),
    ] {
        let broken = futures::stream::iter([Ok(Bytes::from_static(b"abc")), Err(std::io::Error::other("gone"))]);
        let request = server
            .request(&Method::POST, path)
            .header("content-type", content_type)
            .body(Body::from_stream(broken))
            .unwrap();
        assert_eq!(
            server.answer(request).await.error(),
            (400, "body_incomplete".to_owned()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn endless_bodies_are_cut_off_at_their_limit() {
    let server = Server::new();
    let endless = || futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b'x'; 4096])));
    for (path, content_type) in [
        ("/api/v2/components", "application/wasm"),
        ("/api/v2/blobs", "text/plain"),
        ("/api/v2/dags/etl/dagRuns", "application/json"),
        ("/api/v2/dags/check", "application/yaml"),
        ("/auth/token", "application/json"),
    ] {
        let request = server
            .request(&Method::POST, path)
            .header("content-type", content_type)
            .body(Body::from_stream(endless()))
            .unwrap();
        assert_eq!(
            server.answer(request).await.error(),
            (413, "body_too_large".to_owned()),
            "{path}"
        );
    }
}
