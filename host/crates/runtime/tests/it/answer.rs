//! What a task answers, and what is done with it.

use std::time::Duration;

use model::Cause;
use ports::executor::{ExecutorEvent, TryOutcome};
use serde_json::json;
use test_artifacts as artifacts;

use crate::support::{World, died, failure, request, returned};
use crate::wat::{ANYTHING, Wat};

#[tokio::test]
pub(crate) async fn answer_kinds() {
    let world = World::new();
    let run = |entry: &'static str, input| world.run(artifacts::ANSWER_KINDS, entry, input);

    let value = json!({"big": 12345678901234567_u64, "text": "a\"b\u{e9}", "list": [1, null, {"x": 1.5}]});
    let report = run("echo", value.clone()).await;
    assert_eq!(returned(&report), value);
    assert_eq!(report.outcome, TryOutcome::Done { falsy: false });
    assert!(report.started_at <= report.ended_at);
    assert!(report.usage.peak_memory_bytes > 0 && report.usage.cpu > Duration::ZERO);

    for (input, falsy) in [(json!(0), true), (json!([]), true), (json!("no"), false)] {
        assert_eq!(run("echo", input).await.outcome, TryOutcome::Done { falsy });
    }
    let nothing = run("echo", json!(null)).await;
    assert_eq!(nothing.outcome, TryOutcome::Done { falsy: true });
    assert!(nothing.xcoms.is_empty(), "a null return value is not pushed");

    let skipped = run("skip", json!(null)).await;
    let reason = "nothing to do today".to_owned();
    assert_eq!(skipped.outcome, TryOutcome::Skip { reason });
    assert_eq!(skipped.xcoms.len(), 1);

    let after = Duration::from_millis(1500);
    assert_eq!(
        run("not_yet", json!(null)).await.outcome,
        TryOutcome::Reschedule { after }
    );
    let labels = vec!["reject".to_owned()];
    assert_eq!(
        run("choose", json!({"count": 0})).await.outcome,
        TryOutcome::Branch { labels }
    );
}

#[tokio::test]
async fn a_returned_failure_keeps_its_words_and_publishes() {
    let world = World::new();
    let report = world
        .run(artifacts::ANSWER_KINDS, "fail_with_report", json!(null))
        .await;
    let failed = died(&report, Cause::Failed);
    assert_eq!(failed.message, "7 bad rows");
    assert_eq!(failed.code.as_deref(), Some("quality_failed"));
    assert_eq!(failed.details.as_deref(), Some(r#"{"rows":7}"#));
    assert!(failed.fatal);
    assert_eq!(report.xcoms.len(), 1);
    assert_eq!(&*report.xcoms[0].value, r#"{"bad_rows":7}"#);

    let report = world
        .run(artifacts::ANSWER_KINDS, "fail_by_question_mark", json!(null))
        .await;
    assert!(!died(&report, Cause::Failed).fatal);
}

#[tokio::test]
async fn an_input_against_its_schema_never_reaches_the_guest() {
    let world = World::new();
    let report = world
        .run(artifacts::ANSWER_KINDS, "typed", json!({"count": "many"}))
        .await;
    let failed = died(&report, Cause::InputInvalid);
    assert!(failed.fatal);
    assert!(failed.message.contains("/count"), "{}", failed.message);
    assert!(
        report.usage.peak_memory_bytes < 1000,
        "the input, and no guest's memory"
    );
    assert_eq!(
        returned(&world.run(artifacts::ANSWER_KINDS, "typed", json!({"count": 3})).await),
        json!(3)
    );
}

#[tokio::test]
async fn templates_are_rendered_with_what_upstream_tasks_published() {
    let world = World::new();
    world.xcoms.put("load", &json!({"rows": [1, 2, 3], "name": "iris"}));
    let input = json!({
        "rows": "{{ xcom.load.rows }}",
        "title": "{{ xcom.load.name }} at {{ params.threshold }}",
        "plain": "no template",
        "try": "{{ try_number }}",
    });
    let report = world.run(artifacts::ANSWER_KINDS, "echo", input).await;
    assert_eq!(
        returned(&report),
        json!({"rows": [1, 2, 3], "title": "iris at 0.85", "plain": "no template", "try": 1})
    );

    let missing = world
        .run(artifacts::ANSWER_KINDS, "echo", json!("{{ xcom.load.nothing }}"))
        .await;
    assert!(died(&missing, Cause::InputInvalid).message.contains("nothing"));
    let not_upstream = world
        .run(artifacts::ANSWER_KINDS, "echo", json!("{{ xcom.other }}"))
        .await;
    assert!(died(&not_upstream, Cause::InputInvalid).message.contains("other"));
}

#[tokio::test]
async fn broken_contracts_are_named() {
    let world = World::new();
    let run = async |wat: Wat| {
        let (digest, _) = world.compile_bytes(&wat.wasm()).await.expect("a good component");
        world.report(request(digest, "t", json!(null))).await
    };
    assert_eq!(returned(&run(Wat::done(r#"{"a": 1}"#)).await), json!({"a": 1}));

    for broken in ["{", "", "1 2", r#"{"a":1,"a":2}"#, "NaN", &"[".repeat(100)] {
        let report = run(Wat::done(broken)).await;
        died(&report, Cause::ContractViolation);
        assert!(report.xcoms.is_empty());
    }
    let against_schema = Wat {
        describe: Wat::describing(&ANYTHING.replace("\"output\":true", "\"output\":{\"type\":\"string\"}")).describe,
        module: Wat::describing(&ANYTHING.replace("\"output\":true", "\"output\":{\"type\":\"string\"}")).module,
        ..Wat::done("17")
    };
    let report = run(against_schema).await;
    assert!(
        died(&report, Cause::ContractViolation)
            .message
            .contains("output schema")
    );
}

#[tokio::test]
async fn an_unknown_task_or_component_cannot_be_loaded() {
    let world = World::new();
    let report = world.run(artifacts::ANSWER_KINDS, "no_such_task", json!(null)).await;
    assert!(
        died(&report, Cause::LoadFailed).message.contains("echo"),
        "it says which there are"
    );

    let unknown = request(model::Digest::of(b"nobody ever uploaded this"), "t", json!(null));
    died(&world.report(unknown).await, Cause::LoadFailed);
}

#[tokio::test]
async fn started_comes_before_finished() {
    let world = World::new();
    let request = world.request(artifacts::ANSWER_KINDS, "echo", json!(1)).await;
    let id = request.id;
    ports::executor::Executor::dispatch(&*world.executor, request);
    assert!(matches!(world.event().await, ExecutorEvent::Started { id: found, .. } if found == id));
    assert!(matches!(world.event().await, ExecutorEvent::Finished(report) if report.id == id));
}

#[tokio::test]
async fn the_failure_is_in_the_log() {
    let world = World::new();
    let report = world
        .run(artifacts::ANSWER_KINDS, "fail_with_report", json!(null))
        .await;
    assert_eq!(failure(&report).cause, Cause::Failed);
    assert!(world.log(report.id).contains("failed: 7 bad rows"));
}
