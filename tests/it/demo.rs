//! The example pipeline, on the data that it ships.

use serde_json::{Value, json};

use crate::support::{Client, Database, Server};

const DAG: &str = include_str!("../../tasks/model_training/dag.yaml");

async fn server() -> (Server, Client) {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("training-data@1.0", test_artifacts::TRAINING_DATA).await;
    client.push("training-model@1.0", test_artifacts::TRAINING_MODEL).await;
    client
        .push("training-release@1.0", test_artifacts::TRAINING_RELEASE)
        .await;
    client.deploy(DAG).await.ok();
    (server, client)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_good_model_is_registered_and_reported() {
    let (_server, client) = server().await;
    let run_id = client.trigger("model_training", json!({})).await;
    assert_eq!(client.wait("model_training", &run_id).await, "success");
    let task_instances = client.task_instances("model_training", &run_id).await;
    assert_eq!(task_instances.len(), 9);
    assert!(
        task_instances.values().all(|ti| ti["state"] == "success"),
        "{task_instances:?}"
    );

    // The reference: logistic regression, five folds, 0.9789; another split gives another mean within about a point.
    let evaluated = client.xcom("model_training", &run_id, "evaluate", "return_value").await;
    let accuracy = evaluated["cross_validated_accuracy"].as_f64().expect("a number");
    assert!((accuracy - 0.9789).abs() < 0.015, "{evaluated}");

    // Two components carry two versions of one crate that cannot be linked together.
    let split = client.xcom("model_training", &run_id, "split", "return_value").await;
    let versions = (
        split["shuffled_by"].as_str().expect("text"),
        evaluated["shuffled_by"].as_str().expect("text"),
    );
    assert!(versions.0.contains("0.9") && versions.1.contains("0.8"), "{versions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_below_the_threshold_is_reported_but_not_registered() {
    let (_server, client) = server().await;
    let run_id = client.trigger("model_training", json!({"threshold": 1.0})).await;
    assert_eq!(client.wait("model_training", &run_id).await, "success");
    let task_instances = client.task_instances("model_training", &run_id).await;
    assert_eq!(task_instances["register"]["state"], "skipped");
    assert_eq!(task_instances["report"]["state"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn dirty_data_is_stopped_with_a_report() {
    let (_server, client) = server().await;
    let run_id = client.trigger("model_training", json!({"source": "dirty"})).await;
    assert_eq!(client.wait("model_training", &run_id).await, "failed");
    let task_instances = client.task_instances("model_training", &run_id).await;
    let check = &task_instances["check_quality"];
    assert_eq!(
        (&check["state"], &check["cause"], &check["try_number"]),
        (&json!("failed"), &json!("failed"), &json!(1))
    );
    assert_eq!(task_instances["train"]["state"], "upstream_failed");
    let path = format!("/notifications?dag_id=model_training&dag_run_id={run_id}");
    let told = client
        .until("model_training", &path, |told| told["total_entries"] == 1)
        .await;
    let told = told["notifications"][0].clone();
    let text = told["text"].as_str().unwrap_or_default();
    assert!(
        text.starts_with("The table `dirty` is not fit for training: "),
        "{told}"
    );
    let report: Value = client.xcom("model_training", &run_id, "check_quality", "report").await;
    let text = report.to_string();
    for count in ["63", "50", "25", "12", "8", "5"] {
        assert!(text.contains(&format!(":{count}")), "{count} is not in {text}");
    }
}
