//! The compiler child against good and hostile components.

use std::sync::Arc;
use std::time::Duration;

use model::Digest;
use ports::component::{ComponentCompiler as _, Refusal};
use runtime::{ChildCompiler, CodeCache, CompilerConfig};
use serde_json::json;
use test_artifacts as artifacts;

use crate::support::{World, compiler_config, engine, request, returned};
use crate::wat::{ANYTHING, Wat};

async fn refusal(wasm: &[u8]) -> Refusal {
    World::new().compile_bytes(wasm).await.expect_err("it must be refused")
}

#[track_caller]
fn assert_refused(refusal: &Refusal, code: &str, says: &str) {
    assert_eq!(refusal.code, code, "{}", refusal.message);
    assert!(refusal.message.contains(says), "{}", refusal.message);
}

#[tokio::test]
async fn a_good_component_says_what_it_holds() {
    let (_, inspected) = World::new().compile(artifacts::ANSWER_KINDS).await.unwrap();
    let choose = inspected
        .descriptor
        .tasks
        .iter()
        .find(|task| task.name == "choose")
        .unwrap();
    assert_eq!(
        choose.labels.as_deref(),
        Some(&["accept".to_owned(), "reject".to_owned()][..])
    );
    assert_eq!(inspected.capabilities, ["xcom"]);
    let (_, inspected) = World::new().compile(artifacts::BLOB_ACCESS).await.unwrap();
    assert_eq!(inspected.capabilities, ["blobs", "checkpoint", "xcom"]);
    assert!(inspected.imports.iter().any(|import| import.starts_with("wasi:cli/")));
    let (_, inspected) = World::new().compile(artifacts::BLOB_ACCESS).await.unwrap();
    assert_eq!(inspected.capabilities, ["blobs", "checkpoint", "xcom"]);
}

#[tokio::test]
async fn files_that_are_no_components() {
    assert_refused(&refusal(b"hello").await, "component_not_wasm", "not a WebAssembly file");
    assert_refused(&refusal(b"").await, "component_not_wasm", "not a WebAssembly file");
    assert_refused(
        &refusal(b"\0asm\x01\0\0\0").await,
        "component_is_core_module",
        "wasm32-wasip2",
    );
    let whole = std::fs::read(artifacts::XCOM_ROUND_TRIP).unwrap();
    for length in [9, 100, whole.len() / 2, whole.len() - 1] {
        assert_refused(
            &refusal(&whole[..length]).await,
            "component_invalid",
            "not a valid component for this server",
        );
    }
    let mut broken = whole.clone();
    for byte in broken.iter_mut().skip(1000).step_by(997) {
        *byte ^= 0x55;
    }
    assert_refused(
        &refusal(&broken).await,
        "component_invalid",
        "not a valid component for this server",
    );
}

#[tokio::test]
async fn components_of_other_worlds() {
    let empty = wat::parse_str("(component)").unwrap();
    assert_refused(&refusal(&empty).await, "component_world_mismatch", "exports nothing");
    let unknown = r#"(component (import "wasi:http/outgoing-handler@0.3.0" (instance)))"#;
    assert_refused(
        &refusal(&wat::parse_str(unknown).unwrap()).await,
        "component_import_unknown",
        "wasi:http/outgoing-handler@0.3.0",
    );
    let other_type = r#"(import "airtight:task/xcom@0.1.0" (instance (export "push" (func))))"#;
    let other_type = Wat::default()
        .text()
        .replacen("(component\n", &format!("(component\n  {other_type}\n"), 1);
    assert_refused(
        &refusal(&wat::parse_str(other_type).unwrap()).await,
        "component_import_unknown",
        "push",
    );
    let minor = r#"(component (import "airtight:task/xcom@0.2.0" (instance)))"#;
    assert_refused(
        &refusal(&wat::parse_str(minor).unwrap()).await,
        "component_import_unknown",
        "xcom@0.2.0",
    );
    let without_describe = Wat::default()
        .text()
        .replace(r#"(export "describe" (func $describe))"#, "");
    assert_refused(
        &refusal(&wat::parse_str(without_describe).unwrap()).await,
        "component_world_mismatch",
        "describe",
    );
}

/// A whole component of the world, but for what it imports beyond it.
#[tokio::test]
async fn components_of_a_newer_patch_of_the_world() {
    let importing = |import: &str| {
        let text = Wat::done("1").text();
        let text = text.replacen("(component\n", &format!("(component\n  {import}\n"), 1);
        wat::parse_str(text).unwrap()
    };
    // A newer patch is no reason to refuse what does not use what is new in it.
    let subset = r#"(import "airtight:task/log@0.1.0" (instance))
        (import "airtight:task/context@0.1.7" (instance (export "dag-id" (func (result string)))))"#;
    World::new().compile_bytes(&importing(subset)).await.unwrap();
    for (import, missing) in [
        (
            r#"(import "airtight:task/xcom@0.1.9" (instance (export "peek" (func))))"#,
            "(0.1.9) than this server has (0.1.0): the function `peek` of `xcom` is missing here",
        ),
        (
            r#"(import "airtight:task/blobs@0.1.2" (instance
                 (export "reader" (type $reader (sub resource)))
                 (export "[method]reader.seek" (func (param "self" (borrow $reader)) (param "to" u64)))))"#,
            "the function `[method]reader.seek` of `blobs` is missing here",
        ),
        (
            r#"(import "airtight:task/gpu@0.1.3" (instance (export "devices" (func (result u32)))))"#,
            "the interface `gpu` is missing here",
        ),
    ] {
        let refused = refusal(&importing(import)).await;
        assert_refused(
            &refused,
            "component_import_unknown",
            "a newer version of `airtight:task`",
        );
        assert_refused(&refused, "component_import_unknown", missing);
    }
}

#[tokio::test]
async fn components_that_want_too_much() {
    let four_gib = Wat {
        memory: "(memory (export \"memory\") 65536)".to_owned(),
        ..Wat::default()
    };
    let refused = refusal(&four_gib.wasm()).await;
    assert_refused(&refused, "component_too_large", "4 GiB");
    assert_refused(&refused, "component_too_large", "64 MiB");
    let memories = Wat {
        memory: format!("(memory (export \"memory\") 2) {}", "(memory 1)".repeat(40)),
        ..Wat::default()
    };
    assert_refused(
        &refusal(&memories.wasm()).await,
        "component_too_large",
        "41 linear memories; this server runs components with at most 16",
    );
}

/// With one second of CPU time for all, a component that takes far longer to compile is refused for its import.
#[tokio::test]
async fn imports_are_read_before_the_compiler_runs() {
    let (dir, compiler, _) = own_compiler(CompilerConfig {
        cpu_time: Duration::from_secs(1),
        ..compiler_config()
    });
    let body = "(drop (i32.load (i32.const 1)))".repeat(700_000);
    let functions = format!("(func {body})").repeat(4);
    let plain = Wat::default();
    let module = format!("{} {functions}", plain.module);
    let text = Wat { module, ..plain }.text();
    let refused = async |name: &str, text: &str| {
        let path = dir.path().join(name);
        let wasm = wat::parse_str(text).unwrap();
        std::fs::write(&path, &wasm).unwrap();
        let answer = compiler.compile(Digest::of(&wasm), &path).await.unwrap();
        answer.expect_err("it must be refused")
    };
    let slow = refused("slow", &text).await;
    assert_refused(&slow, "component_not_compilable", "1 s of CPU time");
    assert_refused(&slow, "component_not_compilable", "--compile-cpu-time");
    for import in [
        r#"(import "acme:things/robot@1.0.0" (instance (export "move" (func))))"#,
        r#"(import "airtight:task/xcom@0.1.9" (instance (export "peek" (func))))"#,
    ] {
        let importing = text.replacen("(component\n", &format!("(component\n  {import}\n"), 1);
        assert_eq!(refused("unknown", &importing).await.code, "component_import_unknown");
    }
    let mute = text.replace("airtight:task/guest@0.1.0", "acme:other/guest@0.1.0");
    assert_refused(
        &refused("mute", &mute).await,
        "component_world_mismatch",
        "acme:other/guest",
    );
}

#[tokio::test]
async fn describe_is_called_under_limits() {
    let describing = |body: &str| Wat {
        describe: body.to_owned(),
        ..Wat::default()
    };
    assert_refused(
        &refusal(&describing("unreachable").wasm()).await,
        "component_describe_failed",
        "trapped",
    );
    assert_refused(
        &refusal(&describing("(loop $l (br $l)) unreachable").wasm()).await,
        "component_describe_failed",
        "longer than 5 s",
    );
    let eater = describing("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))) unreachable");
    assert_refused(&refusal(&eater.wasm()).await, "component_describe_failed", "64 MiB");
    let long = describing(
        "(drop (memory.grow (i32.const 64))) (memory.fill (i32.const 4096) (i32.const 32) (i32.const 2000000))
         (i32.store (i32.const 0) (i32.const 4096)) (i32.store (i32.const 4) (i32.const 2000000)) (i32.const 0)",
    );
    assert_refused(&refusal(&long.wasm()).await, "component_describe_failed", "1 MiB");
    assert_refused(
        &refusal(&Wat::describing("hello").wasm()).await,
        "component_descriptor_invalid",
        "JSON",
    );
    assert_refused(
        &refusal(&Wat::describing(r#"{"format": 7}"#).wasm()).await,
        "component_format_unknown",
        "format 7",
    );
    let remote = ANYTHING.replace("\"input\":true", "\"input\":{\"$ref\":\"https://example.com\"}");
    assert_refused(
        &refusal(&Wat::describing(&remote).wasm()).await,
        "component_descriptor_invalid",
        "input schema",
    );
}

#[tokio::test]
async fn deep_nesting_and_huge_functions() {
    let deep = Wat::run(&format!(
        "{}{} unreachable",
        "(block ".repeat(20_000),
        ")".repeat(20_000)
    ));
    // Whether the nesting is accepted is the compiler's business; that this process lives on is ours.
    let world = World::new();
    let _ = world.compile_bytes(&deep.wasm()).await;
    let huge = Wat::run(&format!("{} unreachable", "(drop (i32.const 1))".repeat(3_000_000)));
    let refused = world
        .compile_bytes(&huge.wasm())
        .await
        .expect_err("over the size of a function");
    assert_refused(&refused, "component_invalid", "not a valid component for this server");
}

fn own_compiler(config: CompilerConfig) -> (tempfile::TempDir, Arc<ChildCompiler>, Arc<CodeCache>) {
    let dir = tempfile::tempdir().unwrap();
    let code = Arc::new(CodeCache::open(&dir.path().join("code"), &engine()).unwrap());
    (dir, Arc::new(ChildCompiler::new(config, Arc::clone(&code))), code)
}

#[tokio::test]
async fn the_child_is_limited() {
    let digest = Digest::of(b"any");
    let path = std::path::Path::new(artifacts::ANSWER_KINDS);

    let (dir, compiler, _) = own_compiler(CompilerConfig {
        memory_bytes: 150 << 20,
        ..compiler_config()
    });
    let large = dir.path().join("large.wasm");
    let body = format!("{} unreachable", "(drop (i32.load (i32.const 1)))".repeat(700_000));
    std::fs::write(&large, Wat::run(&body).wasm()).unwrap();
    let refused = compiler
        .compile(digest, &large)
        .await
        .unwrap()
        .expect_err("too little memory");
    assert_refused(&refused, "component_not_compilable", "150 MiB of memory");

    let (_dir, compiler, _) = own_compiler(CompilerConfig {
        timeout: Duration::from_millis(1),
        ..compiler_config()
    });
    let refused = compiler
        .compile(digest, path)
        .await
        .unwrap()
        .expect_err("too little time");
    assert_refused(&refused, "component_not_compilable", "took longer than");

    let (_dir, compiler, _) = own_compiler(CompilerConfig::new("/nonexistent/airtight".into(), Vec::new()));
    compiler
        .compile(digest, path)
        .await
        .expect_err("a failure of this machine");
}

#[tokio::test]
async fn compiled_code_that_is_gone_or_damaged_is_compiled_again() {
    let (dir, compiler, code) = own_compiler(compiler_config());
    let wasm = Wat::done("17").wasm();
    let path = dir.path().join("seventeen.wasm");
    std::fs::write(&path, &wasm).unwrap();
    let digest = Digest::of(&wasm);
    compiler.compile(digest, &path).await.unwrap().unwrap();

    for damage in [true, false] {
        for entry in std::fs::read_dir(dir.path().join("code")).unwrap() {
            let file = entry.unwrap().path();
            if file.extension().is_some_and(|extension| extension == "cwasm") {
                if damage {
                    let mut bytes = std::fs::read(&file).unwrap();
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 0xff;
                    std::fs::write(&file, bytes).unwrap();
                } else {
                    std::fs::remove_file(&file).unwrap();
                }
            }
        }
        let world = World::with(engine(), Arc::clone(&code));
        world.blobs.stored.lock().unwrap().insert(digest, wasm.clone().into());
        assert_eq!(
            returned(&world.report(request(digest, "t", json!(null))).await),
            json!(17)
        );
    }

    compiler.evict(digest).await;
    let world = World::with(engine(), code);
    crate::support::died(
        &world.report(request(digest, "t", json!(null))).await,
        model::Cause::LoadFailed,
    );
}
