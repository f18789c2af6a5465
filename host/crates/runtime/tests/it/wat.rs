//! Components written by hand, for what no SDK would produce.

/// A component of our world. `run` is the body of `(func (param $task i32) (param $task_len i32) (param $input i32)
/// (param $input_len i32) (result i32))`; memory from 1024 on is free, the answer is laid out by the canonical ABI.
pub(crate) struct Wat {
    pub(crate) describe: String,
    pub(crate) run: String,
    /// Fields of the core module.
    pub(crate) module: String,
    /// The core module's memory.
    pub(crate) memory: String,
}

/// The descriptor of one task `t` that takes and returns anything.
pub(crate) const ANYTHING: &str = r#"{"format":1,"tasks":[{"name":"t","doc":"","input":true,"output":true}]}"#;

impl Default for Wat {
    fn default() -> Self {
        Self {
            describe: text_at_0(ANYTHING),
            run: done("null"),
            module: data(ANYTHING),
            memory: "(memory (export \"memory\") 2)".to_owned(),
        }
    }
}

impl Wat {
    /// A component whose `run` answers `done` with this text.
    pub(crate) fn done(text: &str) -> Self {
        Self {
            run: done(text),
            ..Self::default()
        }
    }

    /// A component with this body of `run`.
    pub(crate) fn run(body: &str) -> Self {
        Self {
            run: body.to_owned(),
            ..Self::default()
        }
    }

    /// A component with this descriptor.
    pub(crate) fn describing(text: &str) -> Self {
        Self {
            describe: text_at_0(text),
            module: data(text),
            ..Self::default()
        }
    }

    pub(crate) fn text(&self) -> String {
        let Self {
            describe,
            run,
            module,
            memory,
        } = self;
        format!(
            r#"(component
  (core module $m
    {memory}
    (global $next (mut i32) (i32.const 65536))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      global.get $next
      global.get $next
      local.get 3
      i32.add
      i32.const 7
      i32.add
      i32.const -8
      i32.and
      global.set $next)
    {module}
    (func (export "describe") (result i32) {describe})
    (func (export "run") (param $task i32) (param $task_len i32) (param $input i32) (param $input_len i32) (result i32)
      {run}))
  (core instance $i (instantiate $m))
  (type $outcome' (variant (case "done" string) (case "skip" string) (case "branch" (list string)) (case "reschedule" u64)))
  (export $outcome "outcome" (type $outcome'))
  (type $kind' (enum "retryable" "fatal"))
  (export $kind "kind" (type $kind'))
  (type $failure' (record (field "message" string) (field "kind" $kind) (field "code" (option string)) (field "details" (option string))))
  (export $failure "failure" (type $failure'))
  (func $describe (result string)
    (canon lift (core func $i "describe") (memory (core memory $i "memory"))))
  (func $run (param "task" string) (param "input" string) (result (result $outcome (error $failure)))
    (canon lift (core func $i "run") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
  (instance $guest (export "describe" (func $describe)) (export "run" (func $run)))
  (export "airtight:task/guest@0.1.0" (instance $guest)))"#
        )
    }

    /// As a binary.
    pub(crate) fn wasm(&self) -> Vec<u8> {
        ::wat::parse_str(self.text()).expect("valid WAT")
    }
}

/// Data at 1024.
fn data(text: &str) -> String {
    format!("(data (i32.const 1024) \"{}\")", escape(text))
}

/// Answers a string that lies at 1024.
fn text_at_0(text: &str) -> String {
    format!(
        "(i32.store (i32.const 0) (i32.const 1024)) (i32.store (i32.const 4) (i32.const {})) (i32.const 0)",
        text.len()
    )
}

/// Writes a text at 32768 and answers `ok(done(text))`.
fn done(text: &str) -> String {
    use std::fmt::Write as _;
    let mut code = String::new();
    for (at, byte) in text.bytes().enumerate() {
        let _ = write!(code, "(i32.store8 (i32.const {}) (i32.const {byte}))", 32768 + at);
    }
    let _ = write!(
        code,
        "(i32.store8 (i32.const 0) (i32.const 0)) (i32.store8 (i32.const 8) (i32.const 0))
         (i32.store (i32.const 16) (i32.const 32768)) (i32.store (i32.const 20) (i32.const {})) (i32.const 0)",
        text.len()
    );
    code
}

fn escape(text: &str) -> String {
    text.bytes().map(|byte| format!("\\{byte:02x}")).collect()
}

/// A component that imports one function of the host, and whose `run` does this before it answers `null`. In the body the function is `$host`; the
/// memory has 4 MiB, and whatever the host hands over lies behind the first 192 KiB.
pub(crate) fn calling(import: &str, function: &str, signature: &str, body: &str) -> Vec<u8> {
    ::wat::parse_str(calling_text(import, function, signature, body)).expect("valid WAT")
}

/// See [`calling`]. The import defines the instance `$host`.
pub(crate) fn calling_text(import: &str, function: &str, signature: &str, body: &str) -> String {
    let run = format!("{body} {}", done("null"));
    let text = Wat::run(&run).text();
    // The memory belongs to a module of its own, since a function of the host is lowered into it before the task's module exists.
    let (before, after) = text.split_once("(core module $m").expect("the task's module");
    let libc = format!(
        r#"{before}{import}
  (alias export $host "{function}" (func $host'))
  (core module $libc (memory (export "memory") 64)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 196608))
  (core instance $libc (instantiate $libc))
  (core func $host'' (canon lower (func $host') (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core instance $host' (export "host" (func $host'')))
  (core module $m (import "host" "host" (func $host {signature})) (import "libc" "memory" (memory 0))"#
    );
    let after = after
        .replacen("(memory (export \"memory\") 2)", "(export \"memory\" (memory 0))", 1)
        .replacen(
            "(instantiate $m)",
            "(instantiate $m (with \"libc\" (instance $libc)) (with \"host\" (instance $host')))",
            1,
        );
    format!("{libc}{after}")
}
