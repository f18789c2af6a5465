//! What an executor does for callbacks: the same sandbox, with what they are told; they publish nothing and save nothing.

use std::sync::Arc;

use model::callback::TEXT;
use model::{Cause, Work};
use ports::callback::CallbackId;
use ports::executor::{CALLBACK_SLOTS, Executor as _, TryRequest};
use serde_json::{Value, json};
use test_artifacts as artifacts;

use crate::support::{World, died, failure, returned};

/// The request as one of a callback.
fn called(mut request: TryRequest, id: i64) -> TryRequest {
    request.id.callback = Some(CallbackId(id));
    request.callback = Some(Arc::new(
        json!({"event": "on_failure", "message": "no luck", "try_number": 2}),
    ));
    request
}

fn with_input(mut request: TryRequest, input: Value) -> TryRequest {
    Arc::make_mut(&mut request.task).input = input;
    request
}

#[tokio::test]
async fn a_notification_is_rendered_within_bounds() {
    let world = World::new();
    world.xcoms.put("load", &json!({"rows": 3}));
    let base = world.request(artifacts::LOG_LINES, "all_ways", json!({})).await;
    let mut ids = 1..;
    let mut notify = |text: &str| {
        let id = ids.next().expect("there are many");
        let mut request = with_input(called(base.clone(), id), json!({ TEXT: text }));
        Arc::make_mut(&mut request.task).work = Work::Notify;
        request
    };
    let text = "{{ task_id }} {{ callback.message }}, {{ xcom.load.rows }} rows, {{ params.threshold }}";
    assert_eq!(
        returned(&world.report(notify(text)).await),
        json!("a_task no luck, 3 rows, 0.85")
    );
    assert_eq!(
        returned(&world.report(notify("{{ callback.try_number }}")).await),
        json!("2")
    );
    died(
        &world.report(notify("{{ callback.nothing }}")).await,
        Cause::InputInvalid,
    );
    let long = "{% for a in range(1000) %}{% for b in range(20) %}{{ callback.message }}{% endfor %}{% endfor %}";
    died(&world.report(notify(long)).await, Cause::InputInvalid);
    // What is no callback sees none.
    let mut none = notify("{{ callback.message }}");
    none.callback = None;
    died(&world.report(none).await, Cause::InputInvalid);
}

#[tokio::test]
async fn a_callback_publishes_and_saves_nothing_and_leaves_its_answer_in_its_log() {
    let world = World::new();
    let request = world
        .request(
            artifacts::XCOM_ROUND_TRIP,
            "round_trip",
            json!("{{ callback.message }}"),
        )
        .await;
    let report = world.report(called(request, 1)).await;
    assert_eq!(failure(&report).cause, Cause::Denied);
    assert!(report.xcoms.is_empty());

    let save = world
        .request(artifacts::CHECKPOINT_ACCESS, "save_code", json!({"bytes": 10}))
        .await;
    let save = called(save, 2);
    let id = save.id;
    let report = world.report(save).await;
    assert!(report.xcoms.is_empty(), "what it returns is nobody's XCom");
    assert!(world.log(id).contains("returned \"denied\""), "{}", world.log(id));
    assert!(world.checkpoints.saved.lock().unwrap().is_empty());
}

#[tokio::test]
async fn callbacks_and_tasks_do_not_wait_for_each_other() {
    let world = World::new();
    let endless = world.request(artifacts::CAUSE_LIMIT, "spin", json!(null)).await;
    let ids: Vec<_> = (1..=i64::from(CALLBACK_SLOTS) + 1)
        .map(|id| {
            let request = called(endless.clone(), id);
            let id = request.id;
            world.executor.dispatch(request);
            id
        })
        .collect();
    // The slots of callbacks are taken, one has to wait; a task runs at once.
    let report = world.run(artifacts::XCOM_ROUND_TRIP, "round_trip", json!(7)).await;
    assert_eq!(returned(&report), json!(7));
    for id in ids {
        world.executor.cancel(id);
        died(&world.finished(id).await, Cause::Cancelled);
    }
}
