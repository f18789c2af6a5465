//! Steps between DAGs: what they are given is rendered, and refused where it cannot be used.

use model::between::{Awaited, IfExists, States, TriggerDag, WaitForDag};
use model::{Cause, DagId, DagRunState, Digest, Work};
use ports::between::RunSelector;
use ports::executor::{TryOutcome, TryReport};
use serde_json::{Value, json};

use crate::support::{World, died, request};

fn triggers() -> Work {
    Work::TriggerDag(Box::new(TriggerDag {
        dag: Some(DagId::new("child").unwrap()),
        allowed: Vec::new(),
        if_exists: IfExists::Fail,
        wait: true,
        allowed_states: vec![DagRunState::Success],
        result: None,
        timeout: None,
    }))
}

fn waits() -> Work {
    let states = States {
        allowed: vec![DagRunState::Success],
        failed: Vec::new(),
        skipped: Vec::new(),
    };
    Work::WaitForDag(Box::new(WaitForDag {
        dag: DagId::new("other").unwrap(),
        awaited: Awaited::Run { states },
    }))
}

async fn report(world: &World, work: Work, input: Value) -> TryReport {
    let mut request = request(Digest([0; 32]), "none", input);
    let mut task = ports::executor::TaskSpec::clone(&request.task);
    task.work = work;
    request.task = std::sync::Arc::new(task);
    world.report(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_is_given_is_rendered() {
    let world = World::new();
    world
        .xcoms
        .put("load", &json!({"rows": [1, 2.50], "id": 9_007_199_254_740_993_u64}));
    let input = json!({
        "conf": {"rows": "{{ xcom.load.rows }}", "deep": {"id": "{{ xcom.load.id }}"}},
        "run_id": "solve-{{ try_number }}",
        "logical_date": "2026-01-31T04:00:00+00:00",
    });
    let done = report(&world, triggers(), input).await;
    let TryOutcome::TriggerDag(asked) = &done.outcome else {
        panic!("{done:?}");
    };
    assert_eq!(
        asked.conf,
        json!({"rows": [1, 2.50], "deep": {"id": 9_007_199_254_740_993_u64}})
    );
    assert_eq!(asked.run_id.as_ref().map(model::RunId::as_str), Some("solve-1"));
    assert_eq!(asked.logical_date, "2026-01-31T04:00:00Z".parse().ok());
    assert!(done.xcoms.is_empty());

    let bare = report(&world, triggers(), json!({"logical_date": "{{ none }}"})).await;
    let TryOutcome::TriggerDag(asked) = &bare.outcome else {
        panic!("{bare:?}");
    };
    assert_eq!(
        (&asked.conf, &asked.run_id, asked.logical_date),
        (&json!({}), &None, None)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_names_its_run_by_its_name_or_its_date() {
    let world = World::new();
    let named = report(&world, waits(), json!({"run_id": "{{ 'one' }}"})).await;
    let one = RunSelector::RunId(model::RunId::new("one").unwrap());
    assert_eq!(named.outcome, TryOutcome::WaitForDag(one));
    let dated = report(&world, waits(), json!({"logical_date": "2026-01-31T04:00:00Z"})).await;
    let date = RunSelector::LogicalDate("2026-01-31T04:00:00Z".parse().unwrap());
    assert_eq!(dated.outcome, TryOutcome::WaitForDag(date));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_used_is_an_invalid_input() {
    let world = World::new();
    let long = "x".repeat(2 << 20);
    for (work, input, said) in [
        (
            triggers(),
            json!({"conf": "{{ [1] }}"}),
            "must be an object, not a list",
        ),
        (triggers(), json!({"conf": {"a": long}}), "the limit is 1048576"),
        (triggers(), json!({"run_id": "{{ 7 }}"}), "must be text, not a number"),
        (triggers(), json!({"run_id": ""}), "`run_id` is not valid"),
        (triggers(), json!({"logical_date": "tomorrow"}), "is not a time"),
        (
            waits(),
            json!({"logical_date": "{{ none }}"}),
            "no logical date to wait for",
        ),
    ] {
        let refused = report(&world, work, input).await;
        let failure = died(&refused, Cause::InputInvalid);
        assert!(failure.message.contains(said), "{failure:?}");
    }
}
