//! The REST API under bad input: one shape of errors, the right status, and nothing lost.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;

use crate::support::{Database, Server};

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_the_right_status_and_change_nothing() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    let manifest = "dag: d\nparams: {n: {type: integer}}\ntasks:\n  t: {component: workload@1, task: skip}\n";
    client.deploy(manifest).await.ok();

    let anonymous = reqwest::Client::new();
    let url = |path: &str| format!("{}{path}", server.url());
    for path in [
        "/api/v2/dags",
        "/api/v2/components",
        "/api/v2/events",
        "/api/v2/dags/d/dagRuns",
    ] {
        assert_eq!(
            anonymous.get(url(path)).send().await.expect("an answer").status(),
            401,
            "{path}"
        );
    }
    for path in ["/api/v2/version", "/api/v2/monitor/health", "/openapi.json"] {
        assert_eq!(
            anonymous.get(url(path)).send().await.expect("an answer").status(),
            200,
            "{path}"
        );
    }
    let wrong = json!({"username": "admin", "password": "wrong"});
    let answer = anonymous
        .post(url("/auth/token"))
        .json(&wrong)
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 401);
    let forged = anonymous
        .get(url("/api/v2/dags"))
        .bearer_auth("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9.");
    assert_eq!(forged.send().await.expect("an answer").status(), 401);

    let missing = client.get("/dags/nothing").await.expect(404);
    assert!(
        missing["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("nothing")),
        "{missing}"
    );
    client.get("/dags/d/dagRuns/nothing").await.expect(404);
    client
        .get("/dags/d/dagRuns/~/taskInstances?order_by=nonsense")
        .await
        .expect(400);
    client.get("/dags?limit=many").await.expect(422);
    // As Airflow answers parameters that are missing or wrong.
    client
        .post("/dags/d/dagRuns", &json!({"logical_date": null}))
        .await
        .expect(400);
    client
        .post("/dags/d/dagRuns", &json!({"logical_date": null, "conf": {"n": "text"}}))
        .await
        .expect(400);
    client
        .post(
            "/dags/d/dagRuns",
            &json!({"logical_date": "yesterday", "conf": {"n": 1}}),
        )
        .await
        .expect(422);
    let run = json!({"dag_run_id": "mine", "logical_date": "2026-01-01T00:00:00Z", "conf": {"n": 1}});
    client.post("/dags/d/dagRuns", &run).await.ok();
    client.post("/dags/d/dagRuns", &run).await.expect(409);
    let same_date = json!({"dag_run_id": "other", "logical_date": "2026-01-01T00:00:00Z", "conf": {"n": 1}});
    client.post("/dags/d/dagRuns", &same_date).await.expect(409);

    let text = client
        .request(reqwest::Method::POST, "/dags/d/dagRuns")
        .header("content-type", "text/plain")
        .body("{}");
    client.send(text).await.expect("an answer").expect(415);
    let large = json!({"logical_date": null, "conf": {"n": 1, "x": "x".repeat(3 << 20)}});
    client.post("/dags/d/dagRuns", &large).await.expect(413);
    let broken = client
        .request(reqwest::Method::POST, "/dags/d/dagRuns")
        .header("content-type", "application/json");
    client
        .send(broken.body("{\"logical_date\": nul"))
        .await
        .expect("an answer")
        .expect(422);

    let taken = client
        .upload(
            "workload@1",
            std::fs::read(test_artifacts::E2E_NOOP).expect("it was built"),
        )
        .await;
    let taken = taken.expect(409);
    assert!(
        taken["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("workload@1")),
        "{taken}"
    );
    client.delete("/components/workload@1").await.expect(409);
    assert_eq!(client.get("/dags/d/dagRuns").await.ok()["total_entries"], 1);
}

/// A client that sends its request a byte at a time, or never ends it, is disconnected; others are served meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_kept_or_refused_and_no_key_is_taken_twice() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    let dag = r#"
dag: d
params: {n: {type: integer}}
tasks:
  a: {component: workload@1, task: spin, input: {ms: 0, value: "{{ params.n }}"}}
"#;
    client.deploy(dag).await.ok();
    let trigger = async |conf: &str| {
        let request = client
            .request(reqwest::Method::POST, "/dags/d/dagRuns")
            .header("content-type", "application/json")
            .body(format!("{{\"logical_date\": null, \"conf\": {conf}}}"));
        client.send(request).await.expect("an answer")
    };
    let refused = trigger("{\"n\": 1, \"big\": [123456789012345678901234567890]}")
        .await
        .expect(422);
    assert_eq!(
        refused["detail"][0]["loc"],
        json!(["body", "conf", "big", 0]),
        "{refused}"
    );
    assert_eq!(refused["code"], "validation_failed");
    let twice = trigger("{\"n\": 1, \"n\": 2}").await.expect(422);
    assert!(
        twice["detail"][0]["msg"]
            .as_str()
            .is_some_and(|msg| msg.contains("key `n` is there twice")),
        "{twice}"
    );
    // Beyond what a float holds, within 64 bits: every digit goes through the database, the template and the task.
    let exact = 9_007_199_254_740_993_i64;
    let run = trigger(&format!("{{\"n\": {exact}, \"u\": {}, \"f\": 1e300}}", u64::MAX))
        .await
        .ok();
    assert_eq!(run["conf"], json!({"n": exact, "u": u64::MAX, "f": 1e300}));
    let run_id = run["dag_run_id"].as_str().expect("a run id");
    assert_eq!(client.wait("d", run_id).await, "success");
    let path = format!("/dags/d/dagRuns/{run_id}/taskInstances/a/xcomEntries/return_value");
    assert_eq!(client.get(&path).await.ok()["value"], exact);
    let stored = client.get(&format!("/dags/d/dagRuns/{run_id}")).await.ok();
    assert_eq!(stored["conf"], run["conf"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_do_not_hold_the_server() {
    let server = Server::start(&Database::Own).await;
    let address = format!("127.0.0.1:{}", server.port());
    let mut slow: Vec<TcpStream> = (0..200)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).expect("it listens");
            stream
                .write_all(b"GET /api/v2/version HTTP/1.1\r\nhost: x\r\n")
                .expect("it reads");
            stream
        })
        .collect();
    let client = server.client().await;
    client.get("/dags").await.ok();
    let stream = slow.first_mut().expect("there are 200");
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("a timeout can be set");
    let mut answer = Vec::new();
    // It ends: with an error answer or without any, but not with a timeout of ours.
    let ended = stream.read_to_end(&mut answer);
    assert!(
        ended.is_ok()
            || ended
                .as_ref()
                .is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
}
