//! The radio imaging workflow: DAGs that trigger a DAG for each stage, a mapped group with a loop in it, tries that fail on purpose, a
//! question to a person. What it finds is compared with what was put in; the bounds are explained in `tasks/radio_imaging/README.md`.

use serde_json::{Value, json};

use crate::support::{Client, Database, Server};

const DAG: &str = include_str!("../../tasks/radio_imaging/dag.yaml");
const CONTINUUM: &str = include_str!("../../tasks/radio_imaging/continuum.yaml");
const STAGES: [&str; 4] = [
    include_str!("../../tasks/radio_imaging/calibration.yaml"),
    include_str!("../../tasks/radio_imaging/solver.yaml"),
    include_str!("../../tasks/radio_imaging/assembly.yaml"),
    include_str!("../../tasks/radio_imaging/catalogue.yaml"),
];
const TRUTH: &str = include_str!("../../tasks/radio_imaging/data/truth.json");

/// How far a source may be from its place, in pixels: fainter ones, and those from 0.1 Jy on.
const POSITION: (f64, f64) = (0.3, 0.1);
/// How far a flux may be off, as a share.
const FLUX: f64 = 0.02;
/// Or, in the mean of all channels, as a share of CLEAN's threshold.
const REMAINS: f64 = 0.5;

/// The manifest with uploaded components in the place of local files.
fn uploaded(manifest: &str) -> String {
    ["radio_cube", "radio_clean", "radio_catalogue"]
        .iter()
        .fold(manifest.to_owned(), |text, name| {
            let file = format!("../../target/wasm32-wasip2/guest/{name}.wasm");
            text.replace(&file, &format!("{}@1.0", name.replace('_', "-")))
        })
}

async fn server(manifest: &str) -> (Server, Client) {
    let server = Server::start(&Database::Own).await;
    let client = server.client().await;
    client.push("radio-cube@1.0", test_artifacts::RADIO_CUBE).await;
    client.push("radio-clean@1.0", test_artifacts::RADIO_CLEAN).await;
    client
        .push("radio-catalogue@1.0", test_artifacts::RADIO_CATALOGUE)
        .await;
    for manifest in STAGES.into_iter().chain([manifest]) {
        client.deploy(&uploaded(manifest)).await.ok();
    }
    (server, client)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}

fn fluxes(source: &Value) -> Vec<f64> {
    list(&source["flux_jy"]).iter().map(number).collect()
}

/// Each source that was put in was found at its place, and nothing else. `flux` is what it should have, and `off` how far from it
/// what was found may be.
fn compare(found: &Value, flux: impl Fn(&Value, &Value) -> f64, off: impl Fn(f64) -> f64) {
    let truth: Value = serde_json::from_str(TRUTH).expect("the file is JSON");
    let (put_in, found) = (list(&truth["sources"]), list(found));
    assert_eq!((put_in.len(), found.len()), (10, 10), "{found:?}");
    for source in put_in {
        let distance = |found: &Value| {
            (number(&source["x"]) - number(&found["x_px"])).hypot(number(&source["y"]) - number(&found["y_px"]))
        };
        let near = found.iter().min_by(|a, b| distance(a).total_cmp(&distance(b)));
        let near = near.expect("something was found");
        let flux = flux(source, near);
        let bound = if flux >= 0.1 { POSITION.1 } else { POSITION.0 };
        assert!(distance(near) <= bound, "{near} for {source}");
        assert!(
            (number(&near["flux_jy"]) - flux).abs() < off(flux),
            "{near} for {source}"
        );
    }
}

/// The catalogue of a run of the cube, and what was put in.
async fn check_catalogue(client: &Client, run_id: &str) -> Value {
    let published = client.xcom("radio_imaging", run_id, "catalogue", "return_value").await;
    let found = published["result"].clone();
    let reference_hz = number(&found["reference_frequency_hz"]);
    compare(
        &found["sources"],
        |source, found| {
            assert_eq!(source["kind"], found["kind"], "{found}");
            match source["spectral_index"].as_f64() {
                Some(index) => number(&source["flux_at_1_400GHz_jy"]) * (reference_hz / 1.4e9).powf(index),
                None => fluxes(source).into_iter().fold(0.0, f64::max),
            }
        },
        |flux| FLUX * flux,
    );
    found
}

/// The run of a stage that a run of the workflow triggered first.
fn stage(run_id: &str, stage: &str) -> String {
    format!("{run_id}.{stage}.1")
}

/// All task instances of a task: map index, state, try.
async fn instances(client: &Client, dag: &str, run_id: &str, task: &str) -> Vec<(i64, String, u64)> {
    let path = format!("/dags/{dag}/dagRuns/{run_id}/taskInstances?task_id={task}&limit=100");
    let page = client.get(&path).await.ok();
    let of = |ti: &Value| {
        (
            ti["map_index"].as_i64().expect("a number"),
            ti["state"].as_str().unwrap_or_default().to_owned(),
            ti["try_number"].as_u64().expect("a number"),
        )
    };
    list(&page["task_instances"]).iter().map(of).collect()
}

async fn asked(client: &Client, run_id: &str) -> Value {
    let waiting = format!("/dags/radio_imaging/dagRuns/{run_id}/hitlDetails?response_received=false&task_id=review");
    let waiting = client
        .until("radio_imaging", &waiting, |answer| answer["total_entries"] == 1)
        .await;
    waiting["hitl_details"][0].clone()
}

async fn answer(client: &Client, run_id: &str, option: &str) {
    let path = format!("/dags/radio_imaging/dagRuns/{run_id}/taskInstances/review/-1/hitlDetails");
    client.patch(&path, &json!({"chosen_options": [option]})).await.ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cube_is_imaged_although_tries_fail_and_the_server_is_killed() {
    let (mut server, client) = server(DAG).await;
    let conf = json!({"simulate_failures": true, "failure_rate": 0.3, "seed": 5});
    let run_id = client.trigger("radio_imaging", conf).await;
    // In the middle of the loops.
    let solving = format!("/dags/radio_imaging/dagRuns/{run_id}/taskInstances?task_id=solver&state=deferred");
    client
        .until("radio_imaging", &solving, |answer| answer["total_entries"] == 1)
        .await;
    let solver = stage(&run_id, "solver");
    let restored = format!("/dags/radio_solver/dagRuns/{solver}/taskInstances?task_id=solver.restore&state=success");
    client
        .until("radio_solver", &restored, |answer| answer["total_entries"] != 0)
        .await;
    server.kill();
    server.resume().await;
    let client = server.client().await;

    let question = asked(&client, &run_id).await;
    assert_eq!(question["subject"], "Radio imaging is usable: calibration scores 0.84");
    check_catalogue(&client, &run_id).await;
    let steps = instances(&client, "radio_solver", &solver, "solver.clean.clean_step").await;
    let failed: u64 = steps.iter().map(|(_, _, tries)| tries - 1).sum();
    assert!(
        steps.iter().all(|(_, state, _)| state == "success") && failed > 0,
        "{steps:?}"
    );
    // The noisiest channel is the first to be done, the reference says.
    let rounds = |channel: i64| steps.iter().filter(|(index, ..)| index / 100 == channel).count();
    assert!(
        (0..10).all(|channel| rounds(channel) >= rounds(2)) && rounds(2) > 1,
        "{steps:?}"
    );

    answer(&client, &run_id, "approve").await;
    assert_eq!(client.wait("radio_imaging", &run_id).await, "success");
    let report = client.xcom("radio_imaging", &run_id, "report", "return_value").await;
    assert_eq!((&report["sources"], &report["lines"]), (&json!(10), &json!(2)));
    assert!(
        client
            .log("radio_imaging", &run_id, "report", 1)
            .await
            .contains("approve")
    );
    let saved = client
        .xcom("radio_imaging", &run_id, "save_context", "return_value")
        .await;
    assert_eq!(saved["stages"], json!(["calibration", "imaging", "catalogue"]));

    // The server that was killed still knows what need not be given; and a run goes on from what another saved.
    let conf = json!({"context": saved["context"], "minimum": 0});
    let next = client.trigger("radio_imaging", conf).await;
    assert_eq!(client.wait("radio_imaging", &next).await, "success");
    let loaded = client
        .xcom("radio_imaging", &next, "load_context", "return_value")
        .await;
    assert_eq!(list(&loaded["qa"]).len(), 3, "{loaded}");
    // Each stage was one run, whatever happened.
    let path = format!("/dags/radio_imaging/dagRuns/{run_id}/children");
    let children = client.get(&path).await.ok();
    let stages: Vec<&str> = list(&children["dag_runs"])
        .iter()
        .map(|run| run["dag_id"].as_str().unwrap_or_default())
        .collect();
    assert_eq!(
        stages,
        ["radio_calibration", "radio_solver", "radio_assembly", "radio_catalogue"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_iteration_that_is_cleared_is_made_again_with_what_follows_from_it() {
    let (_server, client) = server(DAG).await;
    let run_id = client.trigger("radio_imaging", json!({"minimum": 0.5})).await;
    assert_eq!(client.wait("radio_imaging", &run_id).await, "success");
    let before = check_catalogue(&client, &run_id).await;
    assert_eq!(
        instances(&client, "radio_imaging", &run_id, "review").await[0].1,
        "skipped"
    );
    let solver = stage(&run_id, "solver");
    let steps = instances(&client, "radio_solver", &solver, "solver.clean.clean_step").await;

    let body = json!({
        "dag_run_id": solver,
        "task_ids": [["solver.clean.clean_step", 301]],
        "include_downstream": true,
        "only_failed": false,
        "dry_run": false,
    });
    client.post("/dags/radio_solver/clearTaskInstances", &body).await.ok();
    assert_eq!(client.wait("radio_solver", &solver).await, "success");
    // Channel 3 from its iteration 1 on, and of the others nothing.
    let again: Vec<(i64, String, u64)> = steps
        .into_iter()
        .map(|(index, state, tries)| (index, state, tries + u64::from((301..400).contains(&index))))
        .collect();
    assert_eq!(
        instances(&client, "radio_solver", &solver, "solver.clean.clean_step").await,
        again
    );
    let restored = instances(&client, "radio_solver", &solver, "solver.restore").await;
    let twice: Vec<i64> = restored
        .iter()
        .filter(|(_, _, tries)| *tries == 2)
        .map(|(index, ..)| *index)
        .collect();
    assert_eq!((restored.len(), twice), (10, vec![3]), "{restored:?}");

    // What the stages after it make of that, is for the workflow: its tasks trigger them anew.
    let body = json!({
        "dag_run_id": run_id,
        "task_ids": ["assembly"],
        "include_downstream": true,
        "only_failed": false,
        "dry_run": false,
    });
    client.post("/dags/radio_imaging/clearTaskInstances", &body).await.ok();
    assert_eq!(client.wait("radio_imaging", &run_id).await, "success");
    assert_eq!(check_catalogue(&client, &run_id).await, before);
    assert_eq!(instances(&client, "radio_imaging", &run_id, "solver").await[0].2, 1);
    let second = format!("/dags/radio_assembly/dagRuns/{run_id}.assembly.2");
    assert_eq!(client.get(&second).await.ok()["state"], "success");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_rejected_is_reported_and_not_saved() {
    let (_server, client) = server(DAG).await;
    let run_id = client.trigger("radio_imaging", json!({"threshold_sigmas": 20})).await;
    asked(&client, &run_id).await;
    answer(&client, &run_id, "reject").await;
    assert_eq!(client.wait("radio_imaging", &run_id).await, "success");
    let task_instances = client.task_instances("radio_imaging", &run_id).await;
    assert_eq!(
        (
            &task_instances["report"]["state"],
            &task_instances["save_context"]["state"]
        ),
        (&json!("success"), &json!("skipped"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_continuum_takes_the_same_solver_with_other_arguments() {
    let (_server, client) = server(CONTINUUM).await;
    let run_id = client.trigger("radio_continuum", json!({})).await;
    assert_eq!(client.wait("radio_continuum", &run_id).await, "success");
    let published = client
        .xcom("radio_continuum", &run_id, "catalogue", "return_value")
        .await;
    let found = &published["result"];
    let averaged = client
        .xcom("radio_continuum", &run_id, "average_channels", "return_value")
        .await;
    let solver = client
        .get(&format!("/dags/radio_solver/dagRuns/{}", stage(&run_id, "solver")))
        .await
        .ok();
    assert_eq!(
        (&solver["conf"]["threshold_sigmas"], &solver["parent"]["dag_id"]),
        (&json!(4), &json!("radio_continuum"))
    );
    let threshold = 4.0 * number(&averaged["channels"][0]["sigma_jy"]);
    let truth: Value = serde_json::from_str(TRUTH).expect("the file is JSON");
    let weights: Vec<f64> = list(&truth["noise_sigma_jy"])
        .iter()
        .map(|sigma| number(sigma).powi(-2))
        .collect();
    compare(
        &found["sources"],
        |source, _| {
            let weighted = fluxes(source)
                .into_iter()
                .zip(&weights)
                .map(|(flux, weight)| flux * weight);
            weighted.sum::<f64>() / weights.iter().sum::<f64>()
        },
        |flux| (FLUX * flux).max(REMAINS * threshold),
    );
    let stages: Vec<&Value> = list(&found["context"]["qa"])
        .iter()
        .map(|entry| &entry["stage"])
        .collect();
    assert_eq!(stages, ["calibration", "continuum", "continuum_catalogue"]);
}
