//! The official Airflow client for Python, unchanged, against the real server.

use std::process::Command;

use crate::support::{Database, Server, skip};

#[tokio::test(flavor = "multi_thread")]
async fn the_official_airflow_client_works() {
    drive("the_official_airflow_client_works", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_airflow_client_works_with_an_api_server() {
    drive("the_official_airflow_client_works_with_an_api_server", true).await;
}

/// Drives a standalone server, or one for the API beside it.
async fn drive(test: &str, beside: bool) {
    let Some(python) = std::env::var_os("AIRTIGHT_PYTHON") else {
        skip(test, "AIRTIGHT_PYTHON names no interpreter with the client");
        return;
    };
    let server = Server::start(&Database::Own).await;
    let mut api = server.api_server(&[]);
    if beside {
        api.resume().await;
    }
    let driven = if beside { &api } else { &server };
    let client = driven.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    let manifest = include_str!("../python/dag.yaml");
    client.deploy(manifest).await.ok();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/drive.py");
    let (url, password) = (driven.url(), server.password());
    let output = tokio::task::spawn_blocking(move || {
        Command::new(python)
            .arg(script)
            .args([&url, &password])
            .args(["driven"])
            .output()
    });
    let output = output.await.expect("no panic").expect("Python starts");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}
