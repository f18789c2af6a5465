//! Every cause of death, and whether a tired person understands the message.

use std::time::{Duration, Instant};

use model::{Cause, OnLogLimit};
use serde_json::{Value, json};
use test_artifacts as artifacts;

use crate::support::{World, died, limited, request, returned};
use crate::wat::Wat;

#[tokio::test]
pub(crate) async fn cause_trap() {
    let world = World::new();
    let run = |entry: &'static str, input| world.run(artifacts::CAUSE_TRAP, entry, input);

    let report = run("panic_now", json!(null)).await;
    let trapped = died(&report, Cause::Trapped);
    assert!(
        trapped.message.contains("the ledger does not balance"),
        "{}",
        trapped.message
    );
    assert!(trapped.message.contains("panicked at"), "{}", trapped.message);
    assert!(trapped.message.contains("\n  at "), "{}", trapped.message);
    assert!(!trapped.fatal && report.xcoms.is_empty());
    let log = world.log(report.id);
    assert!(log.contains("half a line"), "the last bytes are there: {log}");

    let report = run("index_out_of_bounds", json!({"at": 9})).await;
    assert!(
        died(&report, Cause::Trapped)
            .message
            .contains("the len is 3 but the index is 9")
    );

    let report = run("recurse_forever", json!(null)).await;
    died(&report, Cause::Trapped);

    let report = run("exit_process", json!(null)).await;
    assert!(
        died(&report, Cause::Trapped).message.contains("exit(3)")
            || died(&report, Cause::Trapped).message.contains("exit(1)")
    );

    let report = run("connect_or_panic", json!(null)).await;
    died(&report, Cause::Denied);
    assert!(world.log(report.id).contains("no grant for the network"));
    let report = run("connect_and_report", json!(null)).await;
    died(&report, Cause::Denied);
    // As the standard library reports it, without a code.
    let report = run("connect_and_fail", json!(null)).await;
    let denied = died(&report, Cause::Denied);
    assert!(
        denied.message.contains("Permission denied") && denied.code.is_none(),
        "{denied:?}"
    );
    for entry in ["read_file", "write_file_or_panic"] {
        let report = run(entry, json!(null)).await;
        let message = &died(&report, Cause::Denied).message;
        assert!(
            message.contains("no file system") && message.contains("as a Blob"),
            "{message}"
        );
    }
    let report = run("read_file_and_go_on", json!(null)).await;
    let message = &died(&report, Cause::Failed).message;
    assert_eq!(message, "the ledger does not balance (true)");
}

#[tokio::test]
pub(crate) async fn cause_limit() {
    let world = World::new();
    let request = |entry: &'static str, input| world.request(artifacts::CAUSE_LIMIT, entry, input);

    let memory = limited(request("eat_memory", json!(null)).await, |limits| {
        limits.memory_bytes = 32 << 20
    });
    let report = world.report(memory).await;
    let message = &died(&report, Cause::OutOfMemory).message;
    assert!(
        message.contains("32 MiB") && message.contains("limits.memory"),
        "{message}"
    );
    assert!(report.usage.peak_memory_bytes <= 32 << 20 && report.usage.peak_memory_bytes > 16 << 20);

    let probe = limited(request("probe_memory", json!(null)).await, |limits| {
        limits.memory_bytes = 32 << 20
    });
    assert!(
        returned(&world.report(probe).await)
            .as_u64()
            .is_some_and(|mib| (16..32).contains(&mib))
    );

    for endless in ["spin", "call_forever", "ask_clock_forever", "sleep_long"] {
        let wall = limited(request(endless, json!(null)).await, |limits| {
            limits.timeout = Duration::from_millis(100)
        });
        let begin = Instant::now();
        let report = world.report(wall).await;
        assert!(died(&report, Cause::TimedOut).message.contains("limits.timeout"));
        assert!(
            begin.elapsed() < Duration::from_secs(30),
            "{endless} took {:?}",
            begin.elapsed()
        );
    }
    for endless in ["spin", "call_forever"] {
        let cpu = limited(request(endless, json!(null)).await, |limits| {
            limits.cpu_time = Duration::from_millis(50)
        });
        let report = world.report(cpu).await;
        assert!(died(&report, Cause::CpuExhausted).message.contains("limits.cpu_time"));
        assert!(report.usage.cpu >= Duration::from_millis(50));
    }
    for flood in ["flood_log", "flood_records"] {
        let log = limited(request(flood, json!(null)).await, |limits| {
            limits.log_bytes = 100_000;
            limits.on_log_limit = OnLogLimit::Fail;
        });
        let report = world.report(log).await;
        assert!(died(&report, Cause::OutputLimit).message.contains("limits.log"));
        let written: usize = world.log(report.id).len();
        assert!(written < 200_000, "{written}");
    }
    let report = world
        .report(request("return_text", json!({"bytes": 2_000_000})).await)
        .await;
    assert!(died(&report, Cause::OutputLimit).message.contains("Blob"));
}

#[tokio::test]
async fn sleeping_costs_no_cpu() {
    let world = World::new();
    let sleeping = world.request(artifacts::CAUSE_LIMIT, "sleep_long", json!(null)).await;
    let report = world
        .report(limited(sleeping, |limits| limits.timeout = Duration::from_millis(300)))
        .await;
    died(&report, Cause::TimedOut);
    assert!(report.usage.cpu < Duration::from_millis(150), "{:?}", report.usage.cpu);
}

/// The CPU time of a guest that is cancelled while it says something, and never stops by itself. The clock on the wall would measure how busy
/// the machine is; this is what the guest still did.
async fn cpu_when_cancelled(world: &World, entry: &str, input: Value, says: &'static str) -> Duration {
    world.cancel_when_it_says(says);
    let request = world.request(artifacts::CAUSE_LIMIT, entry, input).await;
    let report = world.report(request).await;
    died(&report, Cause::Cancelled);
    report.usage.cpu
}

#[tokio::test]
async fn a_cancel_stops_a_guest_whatever_it_does() {
    let world = World::new();
    // What is loaded once does not count.
    world.run(artifacts::CAUSE_LIMIT, "compute", json!({"bytes": 1})).await;
    let begun = [
        ("spin", "spinning"),
        ("call_forever", "calling"),
        ("ask_clock_forever", "asking"),
        ("sleep_long", "sleeping"),
    ];
    for (endless, says) in begun {
        let cpu = cpu_when_cancelled(&world, endless, json!(null), says).await;
        assert!(cpu < Duration::from_millis(50), "{endless}: {cpu:?}");
    }
}

/// One bulk memory instruction cannot be interrupted: then it takes 0.5 ms a MiB at most.
#[tokio::test]
async fn a_cancel_stops_a_guest_between_two_bulk_instructions() {
    const MIB: usize = 256;
    let world = World::new();
    let input = json!({"bytes": MIB << 20});
    // Until it says that it fills, it has touched its memory once.
    let before = world.request(artifacts::CAUSE_LIMIT, "fill_once", input.clone()).await;
    let before = world.report(before).await.usage.cpu;
    let cpu = cpu_when_cancelled(&world, "fill_forever", input, "filling").await;
    let after = cpu.saturating_sub(before);
    let bound = Duration::from_millis(50) + Duration::from_micros(500) * u32::try_from(MIB).unwrap();
    assert!(after < bound, "{after:?} after the cancel, {before:?} before it");
}

#[tokio::test]
async fn memory_is_summed_over_many_memories_and_tables() {
    let world = World::new();
    let run = async |wat: Wat| {
        let (digest, _) = world.compile_bytes(&wat.wasm()).await.expect("a good component");
        let request = limited(request(digest, "t", json!(null)), |limits| {
            limits.memory_bytes = 16 << 20;
            limits.table_elements = 100_000;
        });
        world.report(request).await
    };
    // Three memories that grow by 8 MiB each: every single one is under the limit. A refused growth is fatal here.
    let many = Wat {
        memory: "(memory (export \"memory\") 2) (memory $b 1) (memory $c 1) (memory $d 1)".to_owned(),
        run: "(if (i32.eq (memory.grow $b (i32.const 128)) (i32.const -1)) (then unreachable))
              (if (i32.eq (memory.grow $c (i32.const 128)) (i32.const -1)) (then unreachable))
              (if (i32.eq (memory.grow $d (i32.const 128)) (i32.const -1)) (then unreachable))
              unreachable"
            .to_owned(),
        ..Wat::default()
    };
    let report = run(many).await;
    died(&report, Cause::OutOfMemory);
    assert!(report.usage.peak_memory_bytes <= 16 << 20);

    let table = Wat {
        module: format!("{} (table $t 1 funcref)", Wat::default().module),
        run: "(if (i32.eq (table.grow $t (ref.null func) (i32.const 200000)) (i32.const -1)) (then unreachable)) unreachable"
            .to_owned(),
        ..Wat::default()
    };
    assert!(
        died(&run(table).await, Cause::OutOfMemory)
            .message
            .contains("table elements")
    );

    // The same traps without a refusal are plain traps.
    died(&run(Wat::run("unreachable")).await, Cause::Trapped);
    died(&run(Wat::run("(i32.load (i32.const -8))")).await, Cause::Trapped);
    // More memory at the start than the limit.
    let large = Wat {
        memory: "(memory (export \"memory\") 300)".to_owned(),
        ..Wat::default()
    };
    died(&run(large).await, Cause::OutOfMemory);
}
