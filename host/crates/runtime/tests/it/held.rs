//! What the host holds for a guest counts as the guest's memory while it is held.

use model::{Cause, MapIndex};
use ports::executor::TryRequest;
use ports::payload::{Pulled, XcomValue};
use serde_json::{Value, json};
use test_artifacts as artifacts;

use crate::support::{World, died, limited, returned};

const MIB: usize = 1 << 20;
const MEMORY: u64 = 16 << 20;

fn small(request: TryRequest) -> TryRequest {
    limited(request, |limits| limits.memory_bytes = MEMORY)
}

/// What `each` published: texts of these lengths.
fn publish(world: &World, lengths: impl IntoIterator<Item = usize>) {
    let values = lengths.into_iter().enumerate().map(|(index, length)| {
        let value = XcomValue {
            value: format!("\"{}\"", "x".repeat(length)).into(),
            blobs: Vec::new(),
        };
        (MapIndex(i32::try_from(index).unwrap()), value)
    });
    let key = ("each".to_owned(), "return_value".to_owned());
    let values = Pulled::Mapped(values.collect());
    world.xcoms.0.lock().unwrap().insert(key, values);
}

fn source() -> Value {
    json!({"task": "each", "key": "return_value"})
}

#[tokio::test]
async fn a_list_that_is_larger_than_the_memory_limit_is_not_pulled() {
    let world = World::new();
    publish(&world, vec![MIB; 20]);
    let request = world.request(artifacts::XCOM_LIMITS, "pull", source()).await;
    let report = world.report(small(request)).await;
    let failed = died(&report, Cause::Failed);
    assert!(
        failed.message.contains("memory limit") && failed.message.contains("in parts"),
        "{}",
        failed.message
    );
    let peak = report.usage.peak_memory_bytes;
    assert!(peak < 4 << 20, "{peak}: nothing of the list was held");
    // In parts it can be read, and a guest that handles the error goes on.
    let request = world.request(artifacts::XCOM_LIMITS, "reduce", source()).await;
    let reduced = returned(&world.report(small(request)).await);
    assert_eq!(reduced[2], json!(20 * MIB));
    let request = world.request(artifacts::XCOM_LIMITS, "pull_code", source()).await;
    assert_eq!(returned(&world.report(small(request)).await), json!("other"));
}

#[tokio::test]
async fn a_value_that_is_larger_than_the_memory_limit_is_not_handed_over() {
    let world = World::new();
    world.xcoms.put("each", &json!("x".repeat(20 * MIB)));
    for entry in ["pull_code", "reduce_code"] {
        let request = world.request(artifacts::XCOM_LIMITS, entry, source()).await;
        let answer = returned(&world.report(small(request)).await);
        let refused = if entry == "pull_code" {
            json!("other")
        } else {
            json!(["ok", "other"])
        };
        assert_eq!(answer, refused);
    }
}

#[tokio::test]
async fn what_was_handed_over_is_no_longer_held() {
    let world = World::new();
    publish(&world, vec![MIB / 2; 4]);
    let request = world.request(artifacts::XCOM_LIMITS, "pull_often", source()).await;
    assert_eq!(returned(&world.report(small(request)).await), json!(100));
}

#[tokio::test]
async fn an_input_that_is_larger_than_the_memory_limit_never_reaches_the_guest() {
    let world = World::new();
    let run = async |input| {
        let request = world.request(artifacts::XCOM_ROUND_TRIP, "round_trip", input).await;
        world.report(small(request)).await
    };
    world.xcoms.put("each", &json!("x".repeat(7 * MIB)));
    let report = run(json!({"a": "{{ xcom.each }}", "b": "{{ xcom.each }}"})).await;
    let failed = died(&report, Cause::OutOfMemory);
    assert!(
        failed.message.contains("rendered input") && failed.message.contains("limits.memory"),
        "{}",
        failed.message
    );
    assert!(
        report.usage.peak_memory_bytes <= 16 << 20,
        "what it makes is on the account"
    );

    publish(&world, vec![MIB; 20]);
    let report = run(json!("{{ xcom.each | length }}")).await;
    let failed = died(&report, Cause::OutOfMemory);
    assert!(
        failed.message.contains("XComs") && failed.message.contains("16 MiB"),
        "{}",
        failed.message
    );
    assert_eq!(report.usage.peak_memory_bytes, 0, "nothing of the list was read");
    // What was read for the input is given back before the guest begins.
    // A template that calculates with it reads it once more, as values.
    publish(&world, vec![MIB; 7]);
    let report = run(json!("{{ xcom.each | length }}")).await;
    assert_eq!(returned(&report), json!(7));
    assert!(report.usage.peak_memory_bytes >= 14 << 20);
    publish(&world, vec![MIB; 14]);
    let report = run(json!("{{ xcom.each | length }}")).await;
    let failed = died(&report, Cause::OutOfMemory);
    assert!(failed.message.contains("rendered input"), "{}", failed.message);
}

#[tokio::test]
async fn a_blob_is_read_into_the_guests_memory() {
    let world = World::new();
    let blob = world.blobs.put(&[b'x'; 2 << 20]);
    let input = json!({"blob": blob.to_value()});
    let request = world.request(artifacts::BLOB_ACCESS, "read_when_full", input).await;
    let answer = returned(&world.report(small(request)).await);
    let answer = answer.as_str().unwrap();
    assert!(
        answer.contains("memory limit") && answer.contains("smaller pieces"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_checkpoint_counts_while_it_is_saved_and_loaded() {
    let world = World::new();
    let input = json!({"bytes": 1_000_000});
    let request = world
        .request(artifacts::CHECKPOINT_ACCESS, "save_and_load_when_full", input)
        .await;
    let answer = returned(&world.report(small(request)).await);
    let said = |index: usize| answer[index].as_str().unwrap();
    assert_eq!(said(0), "ok");
    assert!(said(1).contains("memory limit"), "{answer}");
    assert!(said(2).contains("memory limit"), "{answer}");
}
