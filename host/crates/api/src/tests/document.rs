use std::collections::BTreeSet;

use serde_json::Value;

use super::Server;
use crate::routes::routes;

#[test]
fn every_operation_has_its_own_id_and_its_references_resolve() {
    let (.., document) = routes().finish();
    let document = serde_json::to_value(&document).unwrap();
    let mut ids = BTreeSet::new();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() >= 50, "{}", paths.len());
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap_or_default();
            assert!(ids.insert(id.to_owned()), "{method} {path}: id `{id}` is not its own");
            assert!(operation["summary"].is_string(), "{method} {path}");
        }
    }
    references(&document, &document["components"]["schemas"]);
}

fn references(value: &Value, schemas: &Value) {
    match value {
        Value::Object(members) => {
            if let Some(reference) = members.get("$ref").and_then(Value::as_str) {
                let name = reference.strip_prefix("#/components/schemas/").unwrap();
                assert!(schemas.get(name).is_some(), "{name}");
            }
            members.values().for_each(|value| references(value, schemas));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, schemas)),
        _ => {}
    }
}

/// The document is made with the routes, so what is left to show is that the routes are served: none answers 404 for its
/// path or 405 for its method.
#[tokio::test]
async fn every_described_operation_is_served_and_guarded() {
    let server = Server::new();
    let (.., document) = routes().finish();
    let document = serde_json::to_value(&document).unwrap();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let path: String = path
                .split('/')
                .map(|part| if part.starts_with('{') { "1" } else { part })
                .collect::<Vec<_>>()
                .join("/");
            let request = axum::http::Request::builder()
                .method(method.to_uppercase().as_str())
                .uri(&path)
                .body(axum::body::Body::empty())
                .unwrap();
            let answer = server.answer(request).await;
            if operation.get("security").is_some() {
                assert_eq!(answer.error(), (401, "unauthenticated".to_owned()), "{method} {path}");
            } else {
                assert!(![401, 404, 405].contains(&answer.status.as_u16()), "{method} {path}");
            }
        }
    }
}

#[tokio::test]
async fn the_document_is_openapi_3_1() {
    let document = Server::new().get("/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
}

#[test]
fn every_code_has_an_entry_in_the_docs() {
    let docs = include_str!("../../../../../docs/errors.md");
    for code in crate::Code::ALL {
        let name = code.as_str();
        assert!(docs.contains(&format!("### `{name}`")), "docs/errors.md lacks `{name}`");
    }
}
