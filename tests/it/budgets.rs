//! Small inputs that stand for very much work: each is answered, with a reason, and nobody else waits for it.

use serde_json::{Value, json};

use crate::support::{Client, Database, Server};

/// A schema by which a value of depth n can be described in 2^n ways.
fn twice() -> Value {
    let branch = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"]});
    json!({"$defs": {"n": {"anyOf": [branch, branch]}}, "$ref": "#/$defs/n"})
}

fn nested(depth: u32) -> Value {
    (0..depth).fold(json!({}), |inner, _| json!({"a": inner}))
}

async fn check(client: &Client, manifest: &Value) -> (u16, String) {
    let request = client
        .request(reqwest::Method::POST, "/dags/check")
        .header("content-type", "application/yaml")
        .body(manifest.to_string());
    let answer = client.send(request).await.expect("the server answers");
    (answer.status.as_u16(), answer.text)
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_that_stand_for_very_much_are_answered() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    let manifest = |param: &Value| json!({"dag": "d", "params": {"p": param}, "tasks": {"a": {"latest_only": true}}});
    let with_default = |depth: u32| {
        let mut param = twice();
        param["default"] = nested(depth);
        manifest(&param)
    };
    for depth in [20, 50] {
        let (status, text) = check(&client, &with_default(depth)).await;
        assert_eq!(status, 422, "{text}");
        assert!(text.contains("manifest_param"), "{text}");
    }
    let patterns: Vec<Value> = (0..200)
        .map(|n| json!({"pattern": format!("\\p{{L}}{{20}}{n}")}))
        .collect();
    let (status, text) = check(&client, &manifest(&json!({"anyOf": patterns}))).await;
    assert_eq!(status, 422, "{text}");
    assert!(text.contains("too large together"), "{text}");

    // The same by the conf of a run.
    client.deploy(&manifest(&twice()).to_string()).await.ok();
    let answer = client
        .post(
            "/dags/d/dagRuns",
            &json!({"logical_date": null, "conf": {"p": nested(20)}}),
        )
        .await;
    assert!(answer.status.is_client_error(), "{}", answer.text);
    assert!(answer.text.contains("parameter `p` is not valid"), "{}", answer.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_that_stand_for_very_much_end_with_their_try() {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    let (y, z) = ("y".repeat(500), "z".repeat(500));
    let sums =
        format!("{{{{ range(1000)|map('string')|map('replace','','{z}')|map('replace','z','{y}')|list|length }}}}");
    let loops = "{% for i in range(20000) %}{{ ('x'|replace('x','y'*3000)|replace('y','z'*5000))|length }}{% endfor %}";
    let compares = "{% for i in range(20000) %}{{ xcom.list == xcom.list }}{% endfor %}";
    let task = |template: &str, limits: Value| json!({"component": "workload@1", "task": "fail", "input": {"message": template, "fatal": true}, "limits": limits});
    let mut late = task(compares, json!({}));
    late["timeout"] = json!("50ms");
    let heavy = json!({
        "dag": "heavy",
        "defaults": {"retries": 0},
        "tasks": {
            "list": {"component": "workload@1", "task": "numbers", "input": {"count": 20000}},
            "sums": task(&sums, json!({"memory": "64MiB"})),
            "loops": task(loops, json!({"memory": "64MiB"})),
            "steps": task(&compares.replace("20000", "19999"), json!({"cpu_time": "50ms"})),
            "late": late,
            "again": task(compares, json!({"cpu_time": "60ms"})),
        },
    });
    client.deploy(&heavy.to_string()).await.ok();
    let small = "dag: small\ntasks: {a: {component: workload@1, task: spin, input: {ms: 0, value: 1}}}\n";
    client.deploy(small).await.ok();
    let run_id = client.trigger("heavy", json!({})).await;
    // Nobody waits for them.
    for _ in 0..5 {
        let beside = client.trigger("small", json!({})).await;
        assert_eq!(client.wait("small", &beside).await, "success");
    }
    assert_eq!(client.wait("heavy", &run_id).await, "failed");
    let task_instances = client.task_instances("heavy", &run_id).await;
    for (task, cause) in [
        ("sums", "out_of_memory"),
        ("loops", "out_of_memory"),
        ("steps", "cpu_exhausted"),
        ("late", "timed_out"),
        ("again", "cpu_exhausted"),
    ] {
        let ti = &task_instances[task];
        assert_eq!(ti["cause"], cause, "{task}: {ti}");
    }
}
