use axum::http::Method;
use serde_json::{Value, json};

use super::Server;

const RUN: &str = "/api/v2/dags/etl/dagRuns/r";

#[tokio::test]
async fn shapes_of_reads() {
    let server = Server::new();
    server.ended_run().await;
    for (name, path) in [
        ("dags", "/api/v2/dags".to_owned()),
        ("dag_details", "/api/v2/dags/etl/details".to_owned()),
        ("dag_source", "/api/v2/dagSources/etl".to_owned()),
        ("dag_versions", "/api/v2/dags/~/dagVersions".to_owned()),
        ("dag_stats", "/api/v2/dagStats".to_owned()),
        ("tasks", "/api/v2/dags/etl/tasks?order_by=-task_id".to_owned()),
        ("dag_run", RUN.to_owned()),
        ("dag_runs", "/api/v2/dags/~/dagRuns?limit=1".to_owned()),
        ("task_instance", format!("{RUN}/taskInstances/load")),
        ("tries", format!("{RUN}/taskInstances/load/tries")),
        (
            "hitl_details",
            "/api/v2/dags/~/dagRuns/~/hitlDetails?response_received=true&limit=1".to_owned(),
        ),
        (
            "hitl_detail_try",
            format!("{RUN}/taskInstances/load/-1/hitlDetails/tries/1"),
        ),
        ("callbacks", format!("{RUN}/callbacks?order_by=-callback_id&limit=1")),
        ("callback", "/api/v2/dags/etl/dagRuns/r/callbacks/1".to_owned()),
        ("notifications", "/api/v2/notifications?level=error".to_owned()),
        ("logs", format!("{RUN}/taskInstances/load/logs/1")),
        ("xcoms", format!("{RUN}/taskInstances/~/xcomEntries?order_by=-task_id")),
        ("xcom", format!("{RUN}/taskInstances/load/xcomEntries/return_value")),
        ("pool", "/api/v2/pools/default_pool".to_owned()),
        ("event_logs", "/api/v2/eventLogs?event_pattern=trigger".to_owned()),
        ("import_errors", "/api/v2/importErrors".to_owned()),
    ] {
        let answer = server.get(&path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text);
        insta::assert_json_snapshot!(name, answer.json());
    }
}

#[tokio::test]
async fn a_run_names_its_parent_and_lists_its_children() {
    let server = Server::new();
    server.ended_run().await;
    let body = json!({"dag_run_id": "child", "logical_date": null});
    server.send(Method::POST, "/api/v2/dags/etl/dagRuns", body).await;
    server.fake.adopt("child", "r");
    let child = server.get("/api/v2/dags/etl/dagRuns/child").await.json();
    let parent = json!({"dag_id": "etl", "dag_run_id": "r", "task_id": "load", "map_index": 3, "depth": 1});
    assert_eq!(
        (&child["parent"], &child["triggered_by"]),
        (&parent, &json!("operator"))
    );
    let children = server.get(&format!("{RUN}/children")).await.json();
    assert_eq!(
        (&children["total_entries"], &children["dag_runs"][0]),
        (&json!(1), &child)
    );
    let none = server
        .get("/api/v2/dags/etl/dagRuns/child/children?limit=5")
        .await
        .json();
    assert_eq!(none["total_entries"], 0);
    let nobody = server.get("/api/v2/dags/etl/dagRuns/nope/children").await;
    assert_eq!(
        (nobody.status.as_u16(), &nobody.json()["code"]),
        (404, &json!("dag_run_not_found"))
    );
}

#[tokio::test]
async fn unknown_things_are_404_with_their_code() {
    let server = Server::new();
    server.ended_run().await;
    for (path, code) in [
        ("/api/v2/dags/nope".to_owned(), "dag_not_found"),
        ("/api/v2/dags/no%20pe".to_owned(), "dag_not_found"),
        ("/api/v2/dags/%ff".to_owned(), "route_not_found"),
        ("/api/v2/dags/etl/dagRuns/nope".to_owned(), "dag_run_not_found"),
        ("/api/v2/dags/nope/dagRuns/r".to_owned(), "dag_not_found"),
        ("/api/v2/dags/nope/dagRuns".to_owned(), "dag_not_found"),
        ("/api/v2/dags/etl/tasks/nope".to_owned(), "task_not_found"),
        ("/api/v2/dags/etl/dagVersions/7".to_owned(), "dag_version_not_found"),
        (format!("{RUN}/taskInstances/nope"), "task_instance_not_found"),
        (format!("{RUN}/taskInstances/load/3"), "task_instance_not_found"),
        (format!("{RUN}/taskInstances/load/tries/9"), "try_not_found"),
        (format!("{RUN}/taskInstances/load/logs/9"), "try_not_found"),
        (format!("{RUN}/callbacks/9"), "callback_not_found"),
        (format!("{RUN}/callbacks/9/logs"), "callback_not_found"),
        (
            "/api/v2/dags/etl/dagRuns/nope/callbacks".to_owned(),
            "dag_run_not_found",
        ),
        (
            format!("{RUN}/taskInstances/train/-1/hitlDetails"),
            "hitl_detail_not_found",
        ),
        (
            format!("{RUN}/taskInstances/load/-1/hitlDetails/tries/9"),
            "try_not_found",
        ),
        (format!("{RUN}/taskInstances/load/xcomEntries/nope"), "xcom_not_found"),
        ("/api/v2/pools/nope".to_owned(), "pool_not_found"),
        ("/api/v2/components/ml@9".to_owned(), "component_not_found"),
        (format!("/api/v2/blobs/sha256:{}", "0".repeat(64)), "blob_not_found"),
        (
            "/api/v2/dags/etl/dagRuns/nope/wait?interval=1".to_owned(),
            "dag_run_not_found",
        ),
    ] {
        assert_eq!(server.get(&path).await.error(), (404, code.to_owned()), "{path}");
    }
}

#[tokio::test]
async fn bad_queries_name_every_problem() {
    let server = Server::new();
    let answer = server
        .get("/api/v2/dags/~/dagRuns?limit=x&offset=-1&state=odd&run_after_gte=never")
        .await;
    assert_eq!(answer.error(), (422, "validation_failed".to_owned()));
    let detail = answer.json()["detail"].clone();
    let places: Vec<&str> = detail
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem["loc"][1].as_str().unwrap())
        .collect();
    assert_eq!(places, ["limit", "offset", "state", "run_after_gte"]);
    insta::assert_json_snapshot!(detail[0]);
    let answer = server.get("/api/v2/dags?order_by=-nope").await;
    assert_eq!(answer.error(), (400, "invalid_order_by".to_owned()));
    assert_eq!(server.get("/api/v2/dags?limit=100000").await.status, 200);
}

#[tokio::test]
async fn triggers_with_everything_given() {
    let server = Server::new();
    let body = json!({
        "dag_run_id": "manual__2026-01-31T04:00:00+00:00",
        "logical_date": "2026-01-31T05:00:00+01:00",
        "data_interval_start": "2026-01-30T04:00:00Z",
        "data_interval_end": "2026-01-31T04:00:00Z",
        "run_after": "2026-01-31T04:00:00Z",
        "conf": { "threshold": 0.5 },
        "note": "by hand",
    });
    let answer = server
        .send(Method::POST, "/api/v2/dags/etl/dagRuns", body.clone())
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    insta::assert_json_snapshot!(answer.json());
    let again = server.send(Method::POST, "/api/v2/dags/etl/dagRuns", body).await;
    assert_eq!(again.error(), (409, "dag_run_exists".to_owned()));
    let same_date = json!({ "logical_date": "2026-01-31T04:00:00Z" });
    let answer = server.send(Method::POST, "/api/v2/dags/etl/dagRuns", same_date).await;
    assert_eq!(answer.error(), (409, "dag_run_exists".to_owned()));
    let encoded = "/api/v2/dags/etl/dagRuns/manual__2026-01-31T04%3A00%3A00%2B00%3A00";
    assert_eq!(server.get(encoded).await.json()["note"], "by hand");
}

#[tokio::test]
async fn trigger_names_every_problem_of_its_body() {
    let server = Server::new();
    let body = json!({ "conf": [], "note": 7, "data_interval_start": "2026-01-30T04:00:00", "odd": 1 });
    let answer = server.send(Method::POST, "/api/v2/dags/etl/dagRuns", body).await;
    let detail = answer.json()["detail"].clone();
    let problems: Vec<Value> = detail
        .as_array()
        .unwrap()
        .iter()
        .map(|p| json!([p["type"], p["loc"]]))
        .collect();
    insta::assert_json_snapshot!(problems);
}

#[tokio::test]
async fn changes_and_removes_runs() {
    let server = Server::new();
    server.ended_run().await;
    let answer = server
        .send(Method::PATCH, RUN, json!({ "state": "failed", "note": "no" }))
        .await;
    assert_eq!(
        (&answer.json()["state"], &answer.json()["note"]),
        (&json!("failed"), &json!("no"))
    );
    let answer = server
        .send(
            Method::PATCH,
            &format!("{RUN}?update_mask=note"),
            json!({ "state": "success", "note": "yes" }),
        )
        .await;
    assert_eq!(
        (&answer.json()["state"], &answer.json()["note"]),
        (&json!("failed"), &json!("yes"))
    );
    let answer = server.send(Method::PATCH, RUN, json!({ "state": "running" })).await;
    assert_eq!(answer.error(), (422, "validation_failed".to_owned()));
    let request = server
        .request(&Method::DELETE, RUN)
        .body(axum::body::Body::empty())
        .unwrap();
    assert_eq!(server.answer(request).await.status, 204);
    assert_eq!(server.get(RUN).await.status, 404);
}

#[tokio::test]
async fn makes_changes_and_removes_pools() {
    let server = Server::new();
    let made = server
        .send(
            Method::POST,
            "/api/v2/pools",
            json!({"name": "db", "slots": 3, "description": "Few"}),
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(
        made.json(),
        json!({
            "name": "db", "slots": 3, "description": "Few", "include_deferred": false, "occupied_slots": 0,
            "running_slots": 0, "queued_slots": 0, "scheduled_slots": 0, "open_slots": 3, "deferred_slots": 0,
            "team_name": null,
        })
    );
    let again = server
        .send(Method::POST, "/api/v2/pools", json!({"name": "db", "slots": 1}))
        .await;
    assert_eq!(again.error(), (409, "pool_exists".to_owned()));
    let wrong = server
        .send(
            Method::POST,
            "/api/v2/pools",
            json!({"name": "a b", "slots": -2, "team_name": "x", "more": 1}),
        )
        .await;
    assert_eq!(wrong.error().0, 422);
    let named: Vec<_> = wrong.json()["detail"]
        .as_array()
        .unwrap()
        .iter()
        .map(|found| found["loc"][1].clone())
        .collect();
    assert_eq!(named, ["name", "slots", "team_name", "more"]);

    let path = "/api/v2/pools/db";
    let changed = server
        .send(
            Method::PATCH,
            path,
            json!({"slots": -1, "description": null, "include_deferred": true}),
        )
        .await
        .json();
    assert_eq!(
        (&changed["slots"], &changed["open_slots"]),
        (&json!(-1), &json!(-1)),
        "without bound"
    );
    assert_eq!(
        (&changed["description"], &changed["include_deferred"]),
        (&json!(null), &json!(true))
    );
    let masked = server
        .send(
            Method::PATCH,
            "/api/v2/pools/db?update_mask=slots",
            json!({"slots": 7, "pool": "other"}),
        )
        .await
        .json();
    assert_eq!(
        (&masked["name"], &masked["slots"]),
        (&json!("db"), &json!(7)),
        "only what the mask names"
    );
    let unknown = server
        .send(Method::PATCH, "/api/v2/pools/db?update_mask=color", json!({"slots": 7}))
        .await;
    assert_eq!(unknown.error(), (400, "not_supported".to_owned()));
    let renamed = server.send(Method::PATCH, path, json!({"pool": "base"})).await.json();
    assert_eq!((&renamed["name"], &renamed["slots"]), (&json!("base"), &json!(7)));
    let gone = server.send(Method::PATCH, path, json!({"slots": 1})).await;
    assert_eq!(gone.error(), (404, "pool_not_found".to_owned()));

    // Deferred task instances count where the pool says so (three are deferred in `default_pool`).
    let plain = server.get("/api/v2/pools/default_pool").await.json();
    assert_eq!(
        (&plain["deferred_slots"], &plain["occupied_slots"]),
        (&json!(3), &json!(0))
    );
    let counted = server
        .send(
            Method::PATCH,
            "/api/v2/pools/default_pool",
            json!({"include_deferred": true}),
        )
        .await
        .json();
    assert_eq!(
        (&counted["occupied_slots"], &counted["open_slots"]),
        (&json!(3), &json!(125))
    );
    let kept = server
        .send(Method::PATCH, "/api/v2/pools/default_pool", json!({"pool": "x"}))
        .await;
    assert_eq!(kept.error(), (400, "default_pool_protected".to_owned()));
    assert_eq!(
        server
            .send(Method::DELETE, "/api/v2/pools/default_pool", json!({}))
            .await
            .error()
            .0,
        400
    );
    let in_use = server.send(Method::DELETE, "/api/v2/pools/used", json!({})).await;
    assert_eq!(in_use.json()["detail"], "pool `used` is in use by `etl`, `other`");
    assert_eq!(in_use.error(), (409, "pool_in_use".to_owned()));
    assert_eq!(
        server
            .send(Method::DELETE, "/api/v2/pools/base", json!({}))
            .await
            .status,
        204
    );
    assert_eq!(server.get("/api/v2/pools").await.json()["total_entries"], 1);
}

#[tokio::test]
async fn pauses_by_patch() {
    let server = Server::new();
    let answer = server
        .send(Method::PATCH, "/api/v2/dags/etl", json!({ "is_paused": true }))
        .await;
    assert_eq!(answer.json()["is_paused"], true);
    assert_eq!(server.get("/api/v2/dags?paused=false").await.json()["total_entries"], 0);
    let answer = server
        .send(Method::PATCH, "/api/v2/dags?paused=true", json!({ "is_paused": false }))
        .await;
    assert_eq!(answer.json()["dags"][0]["is_paused"], false);
    let answer = server.send(Method::PATCH, "/api/v2/dags/etl", json!({})).await;
    assert_eq!(answer.error(), (422, "validation_failed".to_owned()));
}

#[tokio::test]
async fn clears_task_instances_and_runs() {
    let server = Server::new();
    server.ended_run().await;
    let clear = "/api/v2/dags/etl/clearTaskInstances";
    let answer = server.send(Method::POST, clear, json!({ "dag_run_id": "r" })).await;
    assert_eq!(answer.json()["total_entries"], 0, "only failed ones by default");
    let body = json!({ "dag_run_id": "r", "only_failed": false, "task_ids": ["load", ["train", -1]] });
    let answer = server.send(Method::POST, clear, body).await;
    assert_eq!(answer.json()["total_entries"], 2);
    assert_eq!(
        server.get(&format!("{RUN}/taskInstances/load")).await.json()["state"],
        "success",
        "a dry run"
    );
    let body = json!({ "dag_run_id": "r", "only_failed": false, "dry_run": false, "task_ids": ["load"] });
    assert_eq!(server.send(Method::POST, clear, body).await.json()["total_entries"], 1);
    assert_eq!(
        server.get(&format!("{RUN}/taskInstances/load")).await.json()["state"],
        Value::Null
    );
    for body in [
        json!({ "include_future": true }),
        json!({ "task_ids": [["load"]] }),
        json!({ "start_date": "2026-01-02T00:00:00Z", "end_date": "2026-01-01T00:00:00Z" }),
    ] {
        assert_eq!(server.send(Method::POST, clear, body).await.error().0, 422);
    }
    let answer = server.send(Method::POST, &format!("{RUN}/clear"), json!({})).await;
    assert_eq!(answer.json()["total_entries"], 2);
    let answer = server
        .send(
            Method::POST,
            &format!("{RUN}/clear"),
            json!({ "dry_run": false, "note": "again" }),
        )
        .await;
    assert_eq!(answer.json()["note"], "again");
}

#[tokio::test]
async fn batches_filter_by_body() {
    let server = Server::new();
    server.ended_run().await;
    let runs = server
        .send(
            Method::POST,
            "/api/v2/dags/~/dagRuns/list",
            json!({ "dag_ids": ["etl", "x"], "page_limit": 5 }),
        )
        .await;
    assert_eq!(runs.json()["total_entries"], 1, "{}", runs.text);
    let none = server
        .send(
            Method::POST,
            "/api/v2/dags/~/dagRuns/list",
            json!({ "dag_ids": ["no such"] }),
        )
        .await;
    assert_eq!(none.json()["total_entries"], 0);
    let tis = "/api/v2/dags/~/dagRuns/~/taskInstances/list";
    let answer = server
        .send(Method::POST, tis, json!({ "state": ["success"], "task_ids": ["load"] }))
        .await;
    assert_eq!(answer.json()["total_entries"], 1);
    assert_eq!(
        server
            .send(Method::POST, "/api/v2/dags/~/dagRuns/nope", json!({}))
            .await
            .status,
        405
    );
}

#[tokio::test]
async fn deploys_manifests() {
    let server = Server::new();
    let yaml = "application/yaml";
    let answer = server.put_text(Method::PUT, "/api/v2/dags", yaml, "dag: etl").await;
    insta::assert_json_snapshot!(answer.json());
    assert_eq!(answer.status, 200);
    let answer = server.put_text(Method::POST, "/api/v2/dags", yaml, "dag: etl").await;
    assert_eq!(answer.error(), (409, "dag_exists".to_owned()));
    let answer = server
        .put_text(Method::PUT, "/api/v2/dags/other", yaml, "dag: etl")
        .await;
    assert_eq!(answer.error(), (400, "dag_id_mismatch".to_owned()));
    let answer = server
        .put_text(Method::PUT, "/api/v2/dags", yaml, "dag: compiling")
        .await;
    assert_eq!(answer.error(), (409, "component_compiling".to_owned()));
    assert_eq!(answer.headers["retry-after"], "1");
    let answer = server.put_text(Method::POST, "/api/v2/dags/check", yaml, "wrong").await;
    assert_eq!(answer.error(), (422, "manifest_invalid".to_owned()));
    insta::assert_json_snapshot!(
        "manifest_errors",
        json!([answer.json()["detail"], answer.json()["diagnostics"]])
    );
    assert_eq!(
        server
            .put_text(Method::POST, "/api/v2/dags/check", yaml, "dag: etl")
            .await
            .status,
        200
    );
    let answer = server
        .put_text(Method::PUT, "/api/v2/dags", "application/json", "{}")
        .await;
    assert_eq!(answer.error(), (415, "unsupported_media_type".to_owned()));
    let answer = server
        .put_text(Method::PUT, "/api/v2/dags", yaml, &"#".repeat(65 << 10))
        .await;
    assert_eq!(answer.error(), (413, "body_too_large".to_owned()));
}

#[tokio::test]
async fn uploads_components() {
    let server = Server::new();
    let (path, wasm) = ("/api/v2/components?name=ml&version=1.2", "application/wasm");
    let answer = server.put_text(Method::POST, path, wasm, "abc").await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["state"]),
        (201, &json!("compiling"))
    );
    insta::assert_json_snapshot!(answer.json());
    let answer = server
        .put_text(Method::POST, &format!("{path}&wait=true"), wasm, "abc")
        .await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["state"]),
        (200, &json!("ready"))
    );
    assert_eq!(server.get("/api/v2/components/ml%401.2").await.status, 200);
    assert_eq!(server.get("/api/v2/components").await.json()["total_entries"], 1);
    let request = server
        .request(&Method::DELETE, "/api/v2/components/ml@1.2")
        .body(axum::body::Body::empty())
        .unwrap();
    assert_eq!(
        server.answer(request).await.error(),
        (409, "component_in_use".to_owned())
    );
    for path in ["/api/v2/components?name=ml", "/api/v2/components?name=a%2Fb&version=1"] {
        let answer = server.put_text(Method::POST, path, wasm, "abc").await;
        assert_eq!(answer.error(), (422, "validation_failed".to_owned()), "{path}");
    }
    let answer = server.put_text(Method::POST, path, "application/zip", "abc").await;
    assert_eq!(answer.error(), (415, "unsupported_media_type".to_owned()));
    let answer = server.put_text(Method::POST, path, wasm, &"x".repeat(257 << 10)).await;
    assert_eq!(answer.error(), (413, "body_too_large".to_owned()));
}

#[tokio::test]
async fn uploads_and_downloads_blobs() {
    let server = Server::new();
    let content = "x".repeat(200 << 10);
    let answer = server
        .put_text(Method::POST, "/api/v2/blobs", "text/csv", &content)
        .await;
    assert_eq!(answer.status, 201);
    let reference = answer.json();
    assert_eq!(reference["media_type"], "text/csv");
    let path = format!("/api/v2/blobs/{}", reference["$blob"].as_str().unwrap());
    let answer = server.get(&path).await;
    assert_eq!(answer.text, content);
    assert_eq!(answer.headers["content-length"], content.len().to_string().as_str());
    let answer = server
        .put_text(Method::POST, "/api/v2/blobs", "text/csv", &"x".repeat(257 << 10))
        .await;
    assert_eq!(answer.error(), (413, "body_too_large".to_owned()));
}

#[tokio::test]
async fn logs_as_text_and_lines() {
    let server = Server::new();
    server.ended_run().await;
    let path = format!("{RUN}/taskInstances/load/logs/1");
    let ask = |accept: &'static str, path: String| {
        let request = server.request(&Method::GET, &path).header("accept", accept);
        server.answer(request.body(axum::body::Body::empty()).unwrap())
    };
    let text = ask("text/plain", path.clone()).await;
    assert!(text.text.ends_with("INFO    second\\u{1b}[0m\n"), "{}", text.text);
    let lines = ask("application/x-ndjson", path.clone()).await;
    assert_eq!(lines.text.lines().count(), 2);
    let followed = ask("application/json", format!("{path}?follow=true")).await;
    assert_eq!(followed.text, lines.text);
    let events = ask("text/event-stream", format!("{path}?follow=true")).await;
    assert!(events.text.ends_with("event: end\ndata: {}\n\n"), "{}", events.text);
    let answer = ask("image/png", path.clone()).await;
    assert_eq!(answer.error(), (406, "not_acceptable".to_owned()));
    let rest = ask("application/json", format!("{path}?token=l1")).await;
    assert_eq!(rest.json()["content"].as_array().unwrap().len(), 1);
    assert_eq!(
        ask("*/*", format!("{path}?token=x")).await.error(),
        (400, "invalid_token".to_owned())
    );
}

#[tokio::test]
async fn xcom_as_text() {
    let server = Server::new();
    server.ended_run().await;
    let answer = server
        .get(&format!(
            "{RUN}/taskInstances/load/xcomEntries/return_value?stringify=true"
        ))
        .await;
    assert_eq!(
        answer.json()["value"],
        r#"{"rows":90071992547409931234,"accuracy":0.9}"#
    );
    let answer = server
        .get(&format!("{RUN}/taskInstances/load/xcomEntries/return_value"))
        .await;
    assert!(
        answer
            .text
            .contains(r#""value":{"rows":90071992547409931234,"accuracy":0.9}"#),
        "digits are kept"
    );
}

#[tokio::test]
async fn a_question_is_answered_once_and_as_it_asks() {
    let server = Server::new();
    server.ended_run().await;
    let path = |task: &str| format!("{RUN}/taskInstances/{task}/-1/hitlDetails");
    let answer = server
        .send(
            Method::PATCH,
            &path("load"),
            json!({"chosen_options": ["yes"], "params_input": {"amount": 4}}),
        )
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    assert_eq!(body["chosen_options"], json!(["yes"]));
    assert_eq!(body["params_input"], json!({"amount": 4}));
    assert!(body["responded_at"].is_string() && body["responded_by"]["id"].is_string());
    for (task, body, error) in [
        ("load", json!({"chosen_options": ["maybe"]}), (400, "invalid_answer")),
        ("load", json!({"chosen_options": []}), (422, "validation_failed")),
        ("load", json!({"params_input": {}}), (422, "validation_failed")),
        ("train", json!({"chosen_options": ["yes"]}), (409, "conflict")),
    ] {
        let answer = server.send(Method::PATCH, &path(task), body).await;
        assert_eq!(answer.error(), (error.0, error.1.to_owned()));
    }
}
