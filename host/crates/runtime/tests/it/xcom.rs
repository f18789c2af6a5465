//! `push` and `pull`.

use model::{Cause, DispatchNumber, MapIndex};
use ports::payload::{Pulled, XcomValue};
use serde_json::json;
use test_artifacts as artifacts;

use crate::support::{OWN, World, died, limited, returned};

#[tokio::test]
pub(crate) async fn xcom_round_trip() {
    let world = World::new();
    let value = json!({"rows": [1, 2.5, "three"]});
    let report = world.run(artifacts::XCOM_ROUND_TRIP, "round_trip", value.clone()).await;
    assert_eq!(returned(&report), value);
    let keys: Vec<&str> = report.xcoms.iter().map(|push| push.key.as_str()).collect();
    assert_eq!(keys, ["value", "return_value"]);
}

/// A poke belongs to the same try as the one before: it sees what that one has published, and the limits are those of both.
#[tokio::test]
async fn what_an_earlier_dispatch_of_the_try_published_is_its_own() {
    let world = World::new();
    let text = json!("x".repeat(60));
    for key in 0..998 {
        world.xcoms.put_as(OWN, &format!("early-{key}"), &json!(1));
    }
    world.xcoms.put_as(OWN, "key-0", &text);
    let poke = async |entry: &'static str, input, dispatch| {
        let mut request = world.request(artifacts::XCOM_LIMITS, entry, input).await;
        request.id.dispatch = DispatchNumber(dispatch);
        request.first_of_try = dispatch == 1;
        request
    };
    let own = json!({"task": "a_task", "key": "key-0"});
    let request = poke("pull", own.clone(), 2).await;
    assert_eq!(returned(&world.report(request).await), text);
    // The first dispatch of all has nothing before it.
    let request = poke("pull", own, 1).await;
    assert!(world.report(request).await.xcoms.is_empty());
    // `key-0` is replaced; one more key fits.
    let request = poke("push_keys", json!({"keys": 3}), 2).await;
    assert_eq!(returned(&world.report(request).await), json!(["invalid", 2]));
    // All of them have 1,060 bytes.
    let request = poke("push_text", json!({"bytes": 100}), 2).await;
    let report = world
        .report(limited(request, |limits| limits.xcom_total_bytes = 1_100))
        .await;
    assert_eq!(returned(&report), json!("too_large"));
    let request = poke("push_text", json!({"bytes": 100}), 1).await;
    let report = world
        .report(limited(request, |limits| limits.xcom_total_bytes = 1_100))
        .await;
    assert_eq!(returned(&report), json!("ok"));
}

#[tokio::test]
pub(crate) async fn xcom_limits() {
    let world = World::new();
    let run = |entry: &'static str, input| world.run(artifacts::XCOM_LIMITS, entry, input);

    assert_eq!(returned(&run("push_text", json!({"bytes": 1000})).await), json!("ok"));
    assert_eq!(
        returned(&run("push_text", json!({"bytes": 1 << 20})).await),
        json!("too_large")
    );
    assert_eq!(
        returned(&run("push_keys", json!({"keys": 1001})).await),
        json!(["invalid", 1000])
    );

    let again = run("push_again", json!({"keys": 5000})).await;
    assert_eq!(again.xcoms.len(), 1, "a second push of a key replaces the first");
    assert_eq!(&*again.xcoms[0].value, "4999");

    // The guest is told that the sum is full, and its answer does not fit any more either.
    let request = world
        .request(artifacts::XCOM_LIMITS, "push_keys", json!({"keys": 100}))
        .await;
    let report = world
        .report(limited(request, |limits| limits.xcom_total_bytes = 50))
        .await;
    died(&report, Cause::OutputLimit);
    assert!(report.xcoms.is_empty());

    world.xcoms.put("load", &json!({"rows": 3}));
    let pulled = run("pull", json!({"task": "load", "key": "return_value"})).await;
    assert_eq!(returned(&pulled), json!({"rows": 3}));
    let missing = run("pull", json!({"task": "load", "key": "other"})).await;
    assert!(missing.xcoms.is_empty());
    let refused = run("pull_code", json!({"task": "stranger", "key": "return_value"})).await;
    assert_eq!(returned(&refused), json!("not_upstream"));
    let invalid = run("pull_code", json!({"task": "a b", "key": "return_value"})).await;
    assert_eq!(returned(&invalid), json!("invalid"));
}

#[tokio::test]
async fn values_of_many_instances_are_read_one_after_another() {
    let world = World::new();
    let value = |text: &str| XcomValue {
        value: text.into(),
        blobs: Vec::new(),
    };
    let values = vec![(MapIndex(0), value("\"a\"")), (MapIndex(3), value("\"bcd\""))];
    let key = |task: &str| (task.to_owned(), "return_value".to_owned());
    world
        .xcoms
        .0
        .lock()
        .unwrap()
        .insert(key("mapped"), Pulled::Mapped(values));
    world.xcoms.put("load", &json!("whole"));

    let run = |entry: &'static str, task: &str, key: &str| {
        world.run(artifacts::XCOM_LIMITS, entry, json!({"task": task, "key": key}))
    };
    let reduced = run("reduce", "mapped", "return_value").await;
    assert_eq!(returned(&reduced), json!([2, [0, 3], 4]));
    let one = run("reduce", "load", "return_value").await;
    assert_eq!(returned(&one), json!([1, [null], 5]));
    let none = run("reduce", "mapped", "other").await;
    assert_eq!(returned(&none), json!([0, [], 0]));
    let refused = run("reduce_code", "stranger", "k").await;
    assert_eq!(returned(&refused), json!(["not_upstream", "not_upstream"]));
    let invalid = run("reduce_code", "a b", "k").await;
    assert_eq!(returned(&invalid), json!(["invalid", "invalid"]));
}

#[tokio::test]
async fn references_to_foreign_blobs_are_refused() {
    let world = World::new();
    let foreign = world.blobs.put(b"somebody else's");
    let push = json!({"digest": foreign.digest.to_string(), "size": foreign.size});
    assert_eq!(
        returned(&world.run(artifacts::XCOM_LIMITS, "push_reference", push).await),
        json!("invalid")
    );
    let return_it = json!({"digest": foreign.digest.to_string()});
    died(
        &world.run(artifacts::BLOB_ACCESS, "return_foreign", return_it).await,
        Cause::ContractViolation,
    );
}

#[tokio::test]
async fn nothing_is_published_after_a_trap() {
    let world = World::new();
    let report = world.run(artifacts::CAUSE_TRAP, "panic_now", json!(null)).await;
    died(&report, Cause::Trapped);
    assert!(report.xcoms.is_empty());
}
