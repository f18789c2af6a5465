//! Guests that take more than is theirs, beside others that must not notice.

use std::sync::Arc;
use std::time::Duration;

use model::{Cause, Digest};
use ports::executor::{Executor as _, ExecutorEvent, TryId, TryOutcome};
use runtime::{EngineConfig, TaskEngine};
use serde_json::json;
use test_artifacts as artifacts;

use crate::support::{World, died, failure, limited, request, returned, shared_code};
use crate::wat::{Wat, calling};

/// A component with so many tables beside its own parts; it runs until it is stopped.
fn tables(tables: usize) -> Vec<u8> {
    let each = 16;
    let modules = format!("(core module $t {})", "(table 1 funcref)".repeat(each));
    let instances = "(core instance (instantiate $t))".repeat(tables / each);
    parts(&format!("{modules}{instances}"))
}

/// A component with so many core instances beside its own.
fn core_instances(number: usize) -> Vec<u8> {
    let instances = "(core instance (instantiate $e))".repeat(number);
    parts(&format!("(core module $e){instances}"))
}

fn parts(parts: &str) -> Vec<u8> {
    let text = Wat::run("(loop $l (br $l)) unreachable").text();
    let text = text.replacen("(component\n", &format!("(component\n{parts}\n"), 1);
    wat::parse_str(text).unwrap()
}

/// Waits for the next dispatch that begins.
async fn begins(world: &World) -> TryId {
    loop {
        match world.event().await {
            ExecutorEvent::Started { id, .. } => return id,
            ExecutorEvent::Finished(report) => panic!("{:?}", report.outcome),
            _ => {}
        }
    }
}

#[tokio::test]
async fn tries_wait_for_the_engine_and_never_fail_for_the_lack_of_it() {
    let config = EngineConfig {
        slots: Some(8),
        ..EngineConfig::default()
    };
    let world = World::with(TaskEngine::new(&config).unwrap(), shared_code());
    let (large, inspected) = world.compile_bytes(&tables(64)).await.unwrap();
    assert_eq!((inspected.needs.tables, inspected.needs.memories), (64, 1));
    assert_eq!(inspected.needs.core_instances, 5, "{:?}", inspected.needs);
    assert!(inspected.needs.initial_bytes >= 128 << 10 && inspected.needs.code_bytes > 0);

    let all: Vec<_> = (0..5).map(|_| request(large, "t", json!(null))).collect();
    for request in &all {
        world.executor.dispatch(request.clone());
    }
    let first = [begins(&world).await, begins(&world).await];
    // The other three wait for the engine, without the slots that others need.
    for _ in 0..10 {
        let report = world.run(artifacts::ANSWER_KINDS, "echo", json!(1)).await;
        assert!(
            matches!(report.outcome, TryOutcome::Done { .. }),
            "{:?}",
            report.outcome
        );
    }
    world.executor.cancel(first[0]);
    let next = loop {
        match world.event().await {
            ExecutorEvent::Started { id, .. } => break id,
            ExecutorEvent::Finished(report) => assert_eq!(report.id, first[0]),
            _ => {}
        }
    };
    assert!(!first.contains(&next));
    // Who waits can be cancelled.
    let waits: Vec<TryId> = all.iter().map(|request| request.id).collect();
    for id in waits.iter().filter(|id| !first.contains(id) && **id != next) {
        world.executor.cancel(*id);
        let report = world.finished(*id).await;
        assert!(died(&report, Cause::Cancelled).message.contains("before it started"));
    }
    world.executor.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn what_no_pool_can_hold_is_refused_with_the_numbers() {
    let world = World::new();
    let memories = |number: usize| Wat {
        memory: format!("(memory (export \"memory\") 2) {}", "(memory 1)".repeat(number)),
        ..Wat::default()
    };
    for (wasm, says) in [
        (tables(128), ["128", "64"]),
        (core_instances(200), ["201", "200"]),
        (memories(40).wasm(), ["41", "16"]),
    ] {
        let refused = world.compile_bytes(&wasm).await.expect_err("too large");
        assert_eq!(refused.code, "component_too_large", "{}", refused.message);
        for number in says {
            assert!(refused.message.contains(number), "{}", refused.message);
        }
    }
    let (_, inspected) = world
        .compile_bytes(&core_instances(199))
        .await
        .expect("the most there may be");
    assert_eq!(inspected.needs.core_instances, 200);
}

async fn run(world: &World, wasm: &[u8]) -> ports::executor::TryReport {
    let (digest, _): (Digest, _) = world.compile_bytes(wasm).await.expect("a good component");
    world.report(request(digest, "t", json!(null))).await
}

const RANDOM: &str = r#"(import "wasi:random/random@0.2.3" (instance $host (export "get-random-bytes" (func (param "len" u64) (result (list u8))))))"#;
const INSECURE: &str = r#"(import "wasi:random/insecure@0.2.3" (instance $host (export "get-insecure-random-bytes" (func (param "len" u64) (result (list u8))))))"#;

#[tokio::test]
async fn one_call_for_random_bytes_is_bounded_and_charged() {
    let world = World::new();
    for (import, function) in [(RANDOM, "get-random-bytes"), (INSECURE, "get-insecure-random-bytes")] {
        let asking = |bytes: u64| {
            let call = format!("(call $host (i64.const {bytes}) (i32.const 64))");
            calling(import, function, "(param i64 i32)", &call)
        };
        let trapped = run(&world, &asking(60 << 20)).await;
        let message = &died(&trapped, Cause::Trapped).message;
        assert!(
            message.contains(function) && message.contains("62914560 bytes"),
            "{message}"
        );
        assert!(message.contains("at most 1048576"), "{message}");
        assert_eq!(returned(&run(&world, &asking(1 << 20)).await), json!(null));
        // The list counts as the guest's memory.
        let (digest, _) = world.compile_bytes(&asking(1 << 20)).await.unwrap();
        let small = limited(request(digest, "t", json!(null)), |limits| {
            limits.memory_bytes = (3 << 20) + (512 << 10);
        });
        let message = &died(&world.report(small).await, Cause::OutOfMemory).message.clone();
        assert!(message.contains("limits.memory"), "{message}");
    }
}

#[tokio::test]
async fn one_poll_waits_for_a_bounded_list() {
    let world = World::new();
    let import = r#"(import "wasi:io/poll@0.2.3" (instance $host (export "pollable" (type $p (sub resource)))
        (export "poll" (func (param "in" (list (borrow $p))) (result (list u32))))))"#;
    // No handle is looked at before the list is taken for too long: the guest has none.
    let call = "(call $host (i32.const 1024) (i32.const 0) (i32.const 64))";
    let report = run(&world, &calling(import, "poll", "(param i32 i32 i32)", call)).await;
    assert!(
        died(&report, Cause::Trapped).message.contains("empty poll list"),
        "the call arrives"
    );

    let report = world
        .run(artifacts::CAUSE_LIMIT, "poll_many", json!({"pollables": 4096}))
        .await;
    assert_eq!(returned(&report), json!(4096));
    let report = world
        .run(artifacts::CAUSE_LIMIT, "poll_many", json!({"pollables": 4097}))
        .await;
    let message = &died(&report, Cause::Trapped).message;
    assert!(
        message.contains("4097 pollables") && message.contains("at most 4096"),
        "{message}"
    );
}

#[tokio::test]
async fn one_write_to_standard_output_is_bounded() {
    let world = World::new();
    let report = world
        .run(artifacts::CAUSE_LIMIT, "write_at_once", json!({"bytes": 65536}))
        .await;
    assert_eq!(returned(&report), json!(65536));
    let report = world
        .run(artifacts::CAUSE_LIMIT, "write_at_once", json!({"bytes": 65537}))
        .await;
    let message = &died(&report, Cause::Trapped).message;
    assert!(
        message.contains("65537 bytes") && message.contains("check-write"),
        "{message}"
    );
}

#[tokio::test]
async fn a_guest_has_few_blobs_open_for_writing_and_reads_as_many_as_it_likes() {
    let world = World::new();
    let report = world
        .run(artifacts::BLOB_ACCESS, "keep_writers", json!({"handles": 16}))
        .await;
    assert_eq!(returned(&report), json!(16));
    let report = world
        .run(artifacts::BLOB_ACCESS, "keep_writers", json!({"handles": 17}))
        .await;
    let failed = failure(&report);
    assert_eq!(
        (failed.cause, failed.message.contains("16 blobs")),
        (Cause::Failed, true),
        "{failed:?}"
    );
    // Those that are finished or left count no more.
    let report = world
        .run(artifacts::BLOB_ACCESS, "write_one_by_one", json!({"handles": 100}))
        .await;
    assert_eq!(returned(&report), json!(100));

    let blob = world.blobs.put(b"for the input");
    let input = json!({"blob": blob.to_value(), "handles": 5000});
    let report = world.run(artifacts::BLOB_ACCESS, "keep_readers", input).await;
    assert_eq!(returned(&report), json!(5000));
}

#[tokio::test]
async fn what_a_blob_keeps_in_memory_is_charged() {
    let world = World::new();
    let memory = |limits: &mut model::Limits| limits.memory_bytes = 24 << 20;
    let writers = async || {
        let input = json!({"handles": 16});
        world.request(artifacts::BLOB_ACCESS, "keep_full_writers", input).await
    };
    let peak = world.report(writers().await).await.usage.peak_memory_bytes;
    assert!(peak >= 16 << 20, "{peak}");
    let writers = writers().await;
    let report = world
        .report(limited(writers, |limits| limits.memory_bytes = 8 << 20))
        .await;
    assert!(
        failure(&report).message.contains("memory limit"),
        "{:?}",
        failure(&report)
    );

    let large: &'static [u8] = vec![7; 4 << 20].leak();
    let blob = world.blobs.put(large);
    let input = json!({"blob": blob.to_value(), "handles": 100});
    let readers = world.request(artifacts::BLOB_ACCESS, "keep_readers", input).await;
    let report = world.report(limited(readers, memory)).await;
    assert!(
        failure(&report).message.contains("memory limit"),
        "{:?}",
        failure(&report)
    );
}

const HTTP: &str = r#"(import "wasi:io/poll@0.2.4" (instance $poll (export "pollable" (type (sub resource)))))
    (alias export $poll "pollable" (type $pollable))
    (import "wasi:io/streams@0.2.4" (instance $streams (export "output-stream" (type (sub resource)))))
    (alias export $streams "output-stream" (type $stream))
    (import "wasi:http/types@0.2.4" (instance $types
      (alias outer 1 $pollable (type $pollable))
      (alias outer 1 $stream (type $stream))
      (export "pollable" (type $p (eq $pollable)))
      (export "output-stream" (type $s (eq $stream)))
      (export "fields" (type $fields (sub resource)))
      (export "outgoing-request" (type $request (sub resource)))
      (export "request-options" (type $options (sub resource)))
      (export "future-incoming-response" (type $future (sub resource)))
      (type $error' (variant (case "DNS-timeout") (case "HTTP-request-denied") (case "internal-error" (option string))))
      (export "error-code" (type $error (eq $error')))
      (export "[method]outgoing-request.body" (func (param "self" (borrow $request)) (result (result (own $s)))))
      (export "[method]future-incoming-response.subscribe" (func (param "self" (borrow $future)) (result (own $p))))
      (export "[constructor]request-options" (func (result (own $options))))
      (export "[method]request-options.set-connect-timeout" (func (param "self" (borrow $options)) (param "duration" (option u64)) (result (result))))
      (export "[constructor]fields" (func (result (own $fields))))
      (export "[constructor]outgoing-request" (func (param "headers" (own $fields)) (result (own $request))))
      (export "[method]outgoing-request.set-authority" (func (param "self" (borrow $request)) (param "authority" (option string)) (result (result))))))
    (alias export $types "outgoing-request" (type $request))
    (alias export $types "request-options" (type $options))
    (alias export $types "future-incoming-response" (type $future))
    (alias export $types "error-code" (type $error))
    (import "wasi:http/outgoing-handler@0.2.4" (instance $host
      (alias outer 1 $request (type $request))
      (alias outer 1 $options (type $options))
      (alias outer 1 $future (type $future))
      (alias outer 1 $error (type $error))
      (export "outgoing-request" (type $r (eq $request)))
      (export "request-options" (type $o (eq $options)))
      (export "future-incoming-response" (type $f (eq $future)))
      (export "error-code" (type $e (eq $error)))
      (export "handle" (func (param "request" (own $r)) (param "options" (option (own $o))) (result (result (own $f) (error $e)))))))
    (alias export $types "[constructor]fields" (func $fields))
    (alias export $types "[constructor]outgoing-request" (func $new))
    (alias export $types "[constructor]request-options" (func $newopts))
    (alias export $types "[method]request-options.set-connect-timeout" (func $settime))
    (core func $newopts' (canon lower (func $newopts)))
    (core func $settime' (canon lower (func $settime)))
    (core func $fields' (canon lower (func $fields)))
    (core func $new' (canon lower (func $new)))"#;

/// As the runtime of a JavaScript component calls it: headers, a request, and `handle`, which answers an error that the guest can catch.
#[tokio::test]
async fn http_is_linked_and_denied() {
    let world = World::new();
    let component = |after: &str| {
        let call = format!(
            "(if (call $settime (call $newopts) (i32.const 0) (i64.const 0)) (then unreachable))
             (call $host (call $new (call $fields)) (i32.const 0) (i32.const 0) (i32.const 64))
             (if (i32.ne (i32.load8_u (i32.const 64)) (i32.const 1)) (then unreachable))
             (if (i32.ne (i32.load8_u (i32.const 68)) (i32.const 1)) (then unreachable)) {after}"
        );
        let text = crate::wat::calling_text(HTTP, "handle", "(param i32 i32 i32 i32)", &call);
        let text = text
            .replace(
                "(core instance $host'",
                "(core instance $more (export \"fields\" (func $fields')) (export \"new\" (func $new'))
                 (export \"newopts\" (func $newopts')) (export \"settime\" (func $settime')))\n(core instance $host'",
            )
            .replace("(with \"host\"", "(with \"more\" (instance $more)) (with \"host\"")
            .replace(
                "(import \"host\"",
                "(import \"more\" \"fields\" (func $fields (result i32)))
                 (import \"more\" \"new\" (func $new (param i32) (result i32)))
                 (import \"more\" \"newopts\" (func $newopts (result i32)))
                 (import \"more\" \"settime\" (func $settime (param i32 i32 i64) (result i32)))
                 (import \"host\"",
            );
        wat::parse_str(text).unwrap()
    };
    // A guest that handles the error goes on.
    let report = run(&world, &component("")).await;
    assert_eq!(returned(&report), json!(null));
    assert!(
        world.log(report.id).contains("no grant for the network"),
        "{}",
        world.log(report.id)
    );
    // One that cannot is denied.
    let report = run(&world, &component("unreachable")).await;
    assert!(died(&report, Cause::Denied).message.contains("denied"));
}

/// Half of the guests harm, half are innocent: these all end well.
#[tokio::test]
async fn innocent_tries_beside_hostile_ones_end_well() {
    let world = Arc::new(World::new());
    let (spin, _) = world.compile_bytes(&tables(64)).await.unwrap();
    let call = "(loop $l (call $host (i64.const 1048576) (i32.const 64)) (br $l))";
    let random = calling(RANDOM, "get-random-bytes", "(param i64 i32)", call);
    let (random, _) = world.compile_bytes(&random).await.unwrap();
    let hostile: Vec<_> = (0..6)
        .flat_map(|_| [request(spin, "t", json!(null)), request(random, "t", json!(null))])
        .collect();
    for request in &hostile {
        world.executor.dispatch(request.clone());
    }
    for _ in 0..20 {
        let report = world.run(artifacts::ANSWER_KINDS, "echo", json!(1)).await;
        assert!(
            matches!(report.outcome, TryOutcome::Done { .. }),
            "{:?}",
            report.outcome
        );
    }
    for request in &hostile {
        world.executor.cancel(request.id);
    }
    let mut left = hostile.len();
    while left > 0 {
        if let ExecutorEvent::Finished(report) = world.event().await {
            died(&report, Cause::Cancelled);
            left -= 1;
        }
    }
}
