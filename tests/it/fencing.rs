//! Schedulers are fenced: two processes never write the same runs.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Database, Server, skip, start_refused};

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_data_directory_stops() {
    let server = Server::start(&Database::Own).await;
    let (code, text) = start_refused(server.data_dir(), &[]);
    assert_ne!(code, Some(0));
    assert!(text.contains("in use"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_database_stops() {
    let database = Database::shared_sqlite();
    let server = Server::start(&database).await;
    let url = database.url().expect("it is shared");
    let other = server.scratch().join("other");
    let (code, text) = start_refused(&other, &["--database", &url]);
    assert_ne!(code, Some(0));
    assert!(text.contains("database is in use by scheduler"), "{text}");
}

/// One server is stopped past its lease, a second one takes over, the first goes on: it must find out and write nothing.
async fn a_paused_server_is_fenced(database: Database) {
    let mut first = Server::start(&database).await;
    let client = first.client().await;
    client.push("workload@1", test_artifacts::E2E_WORKLOAD).await;
    let mut manifest =
        "dag: chain\ntasks:\n  t0: {component: workload@1, task: spin, input: {ms: 20, value: 0}}\n".to_owned();
    for index in 1..20 {
        let before = index - 1;
        manifest += &format!(
            "  t{index}: {{component: workload@1, task: spin, input: {{ms: 20, value: \"{{{{ xcom.t{before} + 1 }}}}\"}}}}\n"
        );
    }
    client.deploy(&manifest).await.ok();
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(client.trigger("chain", json!({})).await);
    }
    first.signal(Signal::STOP);

    // The lease has to run out: until then a second server refuses to start and says so.
    let mut second = first.sibling(&database);
    second.copy_blobs_from(&first);
    loop {
        match second.try_start().await {
            Ok(()) => break,
            Err(text) if text.contains("database is locked") => {
                // It was stopped in the middle of a commit, and holds the file's lock: let it go on to another moment.
                first.signal(Signal::CONT);
                client.get("/monitor/health").await.ok();
                first.signal(Signal::STOP);
            }
            Err(text) => assert!(text.contains("database is in use by scheduler"), "{text}"),
        }
    }
    first.signal(Signal::CONT);
    let status = first.wait_exit().await;
    assert!(!status.success(), "the fenced server ended as if nothing had happened");
    assert!(first.log().contains("taken over"), "{}", first.log());

    let client = second.client().await;
    for run_id in &runs {
        let state = client.wait("chain", run_id).await;
        assert_eq!(
            state,
            "success",
            "{run_id}: {:#?}",
            client.task_instances("chain", run_id).await
        );
        for (task_id, ti) in client.task_instances("chain", run_id).await {
            let path = format!("/dags/chain/dagRuns/{run_id}/taskInstances/{task_id}/tries");
            assert_eq!(client.get(&path).await.ok()["total_entries"], 1, "{ti}");
            let index: i64 = task_id.trim_start_matches('t').parse().expect("a number");
            assert_eq!(
                client.xcom("chain", run_id, &task_id, "return_value").await,
                json!(index)
            );
        }
    }
    assert!(second.stop().await, "{}", second.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_is_fenced_on_sqlite() {
    a_paused_server_is_fenced(Database::shared_sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_server_is_fenced_on_postgres() {
    match test_postgres::database().await {
        Some(database) => a_paused_server_is_fenced(Database::Postgres(Box::new(database))).await,
        None => skip("a_paused_server_is_fenced_on_postgres", "PostgreSQL is not installed"),
    }
}
