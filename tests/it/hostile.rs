//! Uploads that mean harm, or are just wrong: each is refused with a reason that helps, and the server stays up.

use serde_json::Value;

use crate::component::Wat;
use crate::support::{Client, Database, Server};

/// What the server says about the upload, whether it refuses at once or after it looked inside.
async fn refusal(client: &Client, name: &str, wasm: Vec<u8>) -> (String, String) {
    let answer = client.upload(&format!("{name}@1"), wasm).await;
    let body = if answer.status.is_success() {
        assert_eq!(answer.body["state"], "refused", "{}", answer.text);
        answer.body["refusal"].clone()
    } else {
        assert!(answer.status.is_client_error(), "{}: {}", answer.status, answer.text);
        let mut body = answer.body;
        body["message"] = match &body["detail"] {
            Value::String(text) => text.as_str().into(),
            other => other.to_string().into(),
        };
        body
    };
    let text = |member: &Value| member.as_str().unwrap_or_default().to_owned();
    (text(&body["code"]), text(&body["message"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_uploads_are_refused_with_a_reason() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    let good = std::fs::read(test_artifacts::E2E_WORKLOAD).expect("it was built");

    let wat = |text: &str| wat::parse_str(text).expect("the test's WAT is valid");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("text", b"#!/bin/sh\necho hello\n".to_vec(), "WebAssembly"),
        ("empty", Vec::new(), "empty"),
        ("core-module", wat("(module)"), "wasm32-wasip2"),
        ("truncated", good[..good.len() / 2].to_vec(), ""),
        ("flipped", flipped(&good), ""),
        ("wrong-world", wat("(component)"), "airtight:task/guest"),
        (
            "unknown-import",
            wat(r#"(component (import "acme:things/robot@1.0.0" (instance (export "move" (func)))))"#),
            "acme:things/robot",
        ),
        ("deep", deep_nesting(), ""),
    ];
    for (name, wasm, says) in cases {
        let (code, message) = refusal(&client, name, wasm).await;
        assert!(
            !code.is_empty() && !message.is_empty(),
            "{name}: code `{code}`, message `{message}`"
        );
        assert!(message.contains(says), "{name}: `{message}` does not say `{says}`");
        client.get("/version").await.ok();
    }
    // These would be good but for one thing.
    let plain = client.upload("plain@1", Wat::default().wasm()).await;
    assert_eq!(plain.body["state"], "ready", "{}", plain.text);
    let cases = [
        ("huge-memory", huge_memory(), "component_too_large", "memory"),
        ("huge-function", huge_function(), "component_invalid", "locals"),
    ];
    for (name, wasm, code, says) in cases {
        let refused = refusal(&client, name, wasm).await;
        assert_eq!(refused.0, code, "{name}: {}", refused.1);
        assert!(
            refused.1.contains(says),
            "{name}: `{}` does not say `{says}`",
            refused.1
        );
    }
    // Refused components are not in the way of good ones.
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
}

fn flipped(good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for at in (100..bytes.len()).step_by(997) {
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0xff;
        }
    }
    bytes
}

/// Components inside components, far deeper than anybody means.
fn deep_nesting() -> Vec<u8> {
    let depth = 3_000;
    let header: &[u8] = &[0, b'a', b's', b'm', 0x0d, 0, 1, 0];
    let mut inner = header.to_vec();
    for _ in 0..depth {
        let mut outer = header.to_vec();
        outer.push(4);
        let mut length = inner.len();
        loop {
            let byte = (length & 0x7f) as u8;
            length >>= 7;
            outer.push(if length > 0 { byte | 0x80 } else { byte });
            if length == 0 {
                break;
            }
        }
        outer.extend_from_slice(&inner);
        inner = outer;
    }
    inner
}

/// It begins with 4 GiB of memory.
fn huge_memory() -> Vec<u8> {
    let memory = "(memory (export \"memory\") 65536)".to_owned();
    Wat {
        memory,
        ..Wat::default()
    }
    .wasm()
}

/// One function with more locals than any compiler should be asked for.
fn huge_function() -> Vec<u8> {
    let plain = Wat::default();
    let module = format!("{} (func (local {}))", plain.module, "i64 ".repeat(60_000));
    Wat { module, ..plain }.wasm()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    let parts = futures::stream::iter([Ok(b"\0asm\x0d\0\x01\0".to_vec()), Err(std::io::Error::other("gone"))]);
    let request = client
        .request(reqwest::Method::POST, "/components?name=half&version=1")
        .header("content-type", "application/wasm")
        .body(reqwest::Body::wrap_stream(parts));
    let _ = client.send(request).await;
    let components = client.get("/components").await.ok();
    assert_eq!(components["total_entries"], 0, "{components}");
    let left = std::fs::read_dir(server.data_dir().join("blobs/tmp"))
        .expect("the directory exists")
        .count();
    assert_eq!(left, 0);
}
