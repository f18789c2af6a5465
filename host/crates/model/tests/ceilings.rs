//! Random hostile input, under a ceiling of CPU time and of memory: templates, schemas with values, schemas with schemas, and manifests.
//!
//! Each target runs in a process of its own, which dies where it takes more than it may: an endless computation, a stack that is used up and
//! memory without bound are failures of the test, not of whoever runs it. All is counted in steps and bytes, so the ceilings are what a
//! step and a byte may be worth. `AIRTIGHT_CEILINGS_CASES` and `AIRTIGHT_CEILINGS_SEED` look further.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use model::budget::{Budget, within};
use model::manifest::{self, Components, ResolvedComponent};
use model::schema::{Shape, Step, Validator};
use model::template::{InputTemplate, TemplateContext, XcomInput, XcomRef};
use serde_json::{Map, Value, json};

/// Bounds of a case.
const STEPS: u64 = 3_000_000;
const BYTES: u64 = 32 << 20;
/// The CPU time of a case, in a build without optimisation: a step is some nanoseconds in one with it.
const CPU: Duration = Duration::from_secs(6);
/// The largest size of the process: some times the bytes that are counted.
const MEMORY_KIB: u64 = 700 << 10;
/// Set in the process that does the work.
const CHILD: &str = "AIRTIGHT_CEILINGS_CHILD";

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

/// Runs cases in a process of their own.
fn under_ceilings(test: &str, case: fn(&mut Rng)) {
    if std::env::var_os(CHILD).is_some() {
        limit_process();
        let (first, count) = (
            number("AIRTIGHT_CEILINGS_SEED", 1),
            number("AIRTIGHT_CEILINGS_CASES", 40),
        );
        for seed in first..first + count {
            let before = cpu_time();
            let thread = std::thread::Builder::new().stack_size(2 << 20);
            let done = thread.spawn(move || case(&mut Rng(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)));
            let done = done.unwrap().join();
            assert!(done.is_ok(), "seed {seed} panicked");
            let used = cpu_time().saturating_sub(before);
            let peak = peak_memory_kib();
            if std::env::var_os("AIRTIGHT_CEILINGS_SHOW").is_some() {
                eprintln!("seed {seed}: {used:?}, {peak} KiB");
            }
            assert!(used <= CPU, "seed {seed} took {used:?} of CPU time");
            assert!(peak <= MEMORY_KIB, "with seed {seed} the process had {peak} KiB");
        }
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Limits for what no assertion of ours would see in time.
fn limit_process() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    for (resource, most) in [(Resource::As, 4 << 30), (Resource::Cpu, 3_600)] {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit).unwrap();
    }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap(),
        u32::try_from(time.tv_nsec).unwrap(),
    )
}

fn peak_memory_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let digits = line.map(|line| line.chars().filter(char::is_ascii_digit).collect::<String>());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Xorshift.
struct Rng(u64);

impl Rng {
    fn below(&mut self, most: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % most.max(1)
    }

    fn index(&mut self, most: usize) -> usize {
        usize::try_from(self.below(most as u64)).unwrap()
    }

    fn of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.index(all.len())]
    }

    fn often(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn in_budget<T>(work: impl FnOnce() -> T) -> T {
    within(Budget::new(STEPS, BYTES), work)
}

// ---- templates

fn source(rng: &mut Rng) -> String {
    let base = rng.of(&[
        "xcom.a",
        "xcom.b",
        "range(20000)",
        "range(300)",
        "params.list",
        "conf",
        "x",
    ]);
    let filter = rng.of(&[
        "",
        "",
        "|list",
        "|sort",
        "|reverse",
        "|map('string')|list",
        "[::-1]",
        "|unique",
    ]);
    format!("{base}{filter}")
}

fn expression(rng: &mut Rng, depth: u32) -> String {
    if depth == 0 {
        let times = rng.of(&["3", "1000", "3000", "99999999"]);
        return match rng.below(9) {
            0 => format!("'xy' * {times}"),
            1 => format!("[1, 'z'] * {times}"),
            2 => "x".to_owned(),
            3 => "18446744073709551615".to_owned(),
            4 => "'a,b c<é>'".to_owned(),
            5 => "params.n".to_owned(),
            _ => source(rng),
        };
    }
    let a = expression(rng, depth - 1);
    if rng.often(55) {
        let filter = rng.of(&[
            "replace('x', 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy')",
            "replace('', 'zzzzzzzzzzzzzzzzzzzz')",
            "map('replace', '', 'wwwwwwwwwwwwwwwwwwwwwwwwwwwww')",
            "map('tojson')",
            "map(attribute='k.n.m')",
            "select('in', xcom.a)",
            "rejectattr('k', 'eq', 3)",
            "join(', ')",
            "join(params.text)",
            "sort(attribute='k')",
            "groupby('k', default=1)",
            "dictsort",
            "items",
            "unique",
            "sum(start=[])",
            "sum(attribute='k')",
            "split('x')",
            "split",
            "lines",
            "list",
            "string",
            "tojson",
            "upper",
            "title",
            "length",
            "int",
            "float",
            "round(3)",
            "max",
            "min",
            "first",
            "last",
            "reverse",
            "default([])",
            "abs",
        ]);
        return format!("({a})|{filter}");
    }
    let b = expression(rng, depth - 1);
    match rng.below(8) {
        0 => format!(
            "({a})[{}:{}:{}]",
            rng.of(&["", "-3", "1"]),
            rng.of(&["", "2", "-99"]),
            rng.of(&["", "-1", "2"])
        ),
        1 => format!("[{a}, {b}, {a}]"),
        2 => format!("{{'k': {a}, 'n': {b}}}"),
        3 => format!("({a} if {b} else {a})"),
        _ => {
            let op = rng.of(&[
                "~", "~", "+", "*", "==", "<", "in", "not in", "-", "//", "%", "**", "and", "or",
            ]);
            format!("({a}) {op} ({b})")
        }
    }
}

fn template(rng: &mut Rng) -> String {
    let depth = u32::try_from(rng.below(5)).unwrap();
    let inner = expression(rng, depth);
    match rng.below(4) {
        0 | 1 => format!("{{% for x in {} %}}{{{{ {inner} }}}}{{% endfor %}}", source(rng)),
        2 => format!(
            "{{% for x in {} %}}{{% for y in {} if x == y %}}{{{{ ({inner})|length }}}}{{% endfor %}}{{% endfor %}}",
            source(rng),
            source(rng)
        ),
        _ => format!("{{{{ {inner} }}}}"),
    }
}

fn render(input: &Value, xcom: &str) {
    let Ok(template) = InputTemplate::parse(input) else {
        return;
    };
    let xcoms: HashMap<XcomRef, XcomInput> = template
        .xcom_refs()
        .iter()
        .map(|reference| (reference.clone(), XcomInput::One(Arc::from(xcom))))
        .collect();
    let params = json!({"list": vec![json!({"k": 1}); 500], "n": 7, "text": "x".repeat(5_000)});
    let conf = json!({"a": 1});
    let context = TemplateContext {
        dag_id: "d",
        run_id: "r",
        task_id: "t",
        map_index: -1,
        try_number: 1,
        iteration: None,
        items: &[],
        callback: None,
        logical_date: None,
        data_interval_start: None,
        data_interval_end: None,
        params: &params,
        conf: &conf,
        xcoms: &xcoms,
    };
    let _ = in_budget(|| template.render(&context, 200_000, 16 << 20));
}

#[test]
fn rendering() {
    under_ceilings("rendering", |rng| {
        let xcom = match rng.below(4) {
            0 => json!("<x é>".repeat(20_000)).to_string(),
            1 => json!(
                (0..2_000)
                    .map(|n| json!({"k": n % 7, "n": {"m": "x"}}))
                    .collect::<Vec<_>>()
            )
            .to_string(),
            2 => format!("[{}1]", "1,".repeat(20_000)),
            _ => json!({"k": [[1, 2], [3]], "n": "x"}).to_string(),
        };
        let templates: Vec<String> = (0..=rng.below(3)).map(|_| template(rng)).collect();
        render(&json!(templates), &xcom);
    });
}

// ---- schemas

fn reference(rng: &mut Rng) -> Value {
    json!({"$ref": format!("#/$defs/{}", rng.below(6))})
}

fn schema_node(rng: &mut Rng, depth: u32) -> Value {
    let child = |rng: &mut Rng| {
        if depth == 0 || rng.often(50) {
            reference(rng)
        } else {
            schema_node(rng, depth - 1)
        }
    };
    let mut node = Map::new();
    for _ in 0..=rng.below(3) {
        let several = |rng: &mut Rng| -> Value { (0..=rng.below(4)).map(|_| child(rng)).collect() };
        let (word, value) = match rng.below(20) {
            0 | 1 => ("anyOf", several(rng)),
            2 => ("allOf", several(rng)),
            3 => ("oneOf", several(rng)),
            4 => ("not", child(rng)),
            5 => ("items", child(rng)),
            6 | 7 => ("properties", json!({"a": child(rng), "b": child(rng)})),
            8 => ("additionalProperties", child(rng)),
            9 => (
                "patternProperties",
                json!({"^[ab]*a[ab]{20}$": child(rng), "b": child(rng)}),
            ),
            10 => (
                "pattern",
                json!(rng.of(&["^(a+)+$", "[ab]*a[ab]{100}", "\\p{L}{3}", "^a", "(?i)x|y"])),
            ),
            11 => (
                "enum",
                json!((0..rng.below(200)).map(|n| json!([n, {"a": n}])).collect::<Vec<_>>()),
            ),
            12 => ("uniqueItems", json!(true)),
            13 => ("unevaluatedProperties", child(rng)),
            14 => ("unevaluatedItems", child(rng)),
            15 => ("contains", child(rng)),
            16 => ("required", json!(["a"])),
            17 => ("dependentSchemas", json!({"a": child(rng)})),
            18 => ("propertyNames", child(rng)),
            _ => ("type", json!(rng.of(&["object", "array", "string", "integer"]))),
        };
        node.insert(word.to_owned(), value);
        if rng.often(20) {
            node.insert("if".to_owned(), child(rng));
            node.insert("then".to_owned(), child(rng));
        }
    }
    Value::Object(node)
}

fn schema(rng: &mut Rng) -> Value {
    let Value::Object(mut root) = schema_node(rng, 2) else {
        return json!({});
    };
    let defs: Map<String, Value> = (0..6).map(|at| (at.to_string(), schema_node(rng, 2))).collect();
    root.insert("$defs".to_owned(), Value::Object(defs));
    if rng.often(20) {
        let draft = rng.of(&[
            "http://json-schema.org/draft-07/schema#",
            "https://json-schema.org/draft/2019-09/schema",
        ]);
        root.insert("$schema".to_owned(), json!(draft));
    }
    Value::Object(root)
}

fn value(rng: &mut Rng, depth: u32) -> Value {
    grown(rng, depth, &mut 3_000)
}

/// A value of about so many values.
fn grown(rng: &mut Rng, depth: u32, left: &mut u32) -> Value {
    *left = left.saturating_sub(1);
    if depth == 0 || *left == 0 {
        return match rng.below(4) {
            0 => json!("ab".repeat(rng.index(300))),
            1 => json!(rng.below(10)),
            2 => Value::Null,
            _ => json!([]),
        };
    }
    match rng.below(5) {
        0 => Value::Array((0..rng.below(4)).map(|_| grown(rng, depth - 1, left)).collect()),
        1 => Value::Array(
            (0..rng.below(400))
                .map(|_| grown(rng, depth.min(2) - 1, left))
                .collect(),
        ),
        _ => json!({"a": grown(rng, depth - 1, left), "b": grown(rng, depth.min(4) - 1, left)}),
    }
}

#[test]
fn validating() {
    under_ceilings("validating", |rng| {
        let schema = schema(rng);
        in_budget(|| {
            let Ok(validator) = Validator::compile(&schema) else {
                return;
            };
            let depth = u32::try_from(rng.below(40)).unwrap();
            let value = value(rng, depth);
            let _ = validator.check(&value);
        });
    });
}

#[test]
fn compiling_patterns() {
    under_ceilings("compiling_patterns", |rng| {
        let parts = [
            "\\p{L}",
            "[a-z]",
            "(?i)é",
            "\\w",
            ".",
            "(a|b|cd)",
            "\\P{Lu}",
            "[^\\p{N}]",
            "\\d",
        ];
        let pattern = |rng: &mut Rng| {
            let mut pattern = String::new();
            for _ in 0..=rng.below(30) {
                let (part, most) = (rng.of(&parts), rng.below(60));
                let _ = match rng.below(4) {
                    0 => write!(pattern, "({part}){{{most}}}"),
                    1 => write!(pattern, "({part}*)+"),
                    2 => write!(pattern, "(({part}){{{most}}}){{0}}"),
                    _ => write!(pattern, "{part}"),
                };
            }
            pattern
        };
        let nodes: Vec<Value> = (0..rng.below(300)).map(|_| json!({"pattern": pattern(rng)})).collect();
        let text = json!("aé1".repeat(2_000));
        in_budget(|| {
            if let Ok(validator) = Validator::compile(&json!({"anyOf": nodes, "minLength": 1})) {
                let _ = validator.check(&text);
            }
        });
    });
}

#[test]
fn comparing_schemas() {
    under_ceilings("comparing_schemas", |rng| {
        let (a, b) = (schema(rng), schema(rng));
        in_budget(|| {
            let (given, wanted) = (Shape::of(&a), Shape::of(&b));
            let _ = (given.excludes(&wanted), given.may_lack(&wanted), given.element(0));
            if let Step::To { shape, .. } = given.member("a") {
                let _ = (shape.excludes(&wanted), wanted.excludes(&shape));
            }
        });
    });
}

// ---- manifests

#[test]
fn checking_manifests() {
    under_ceilings("checking_manifests", |rng| {
        let (param, input, output) = (schema(rng), schema(rng), schema(rng));
        let default = value(rng, 12);
        let mut param = param;
        param["default"] = default;
        let component = format!("sha256:{}", "0".repeat(64));
        let literal = value(rng, 6);
        let templates: Vec<Value> = (0..=rng.below(4)).map(|_| json!(template(rng))).collect();
        let source = json!({
            "dag": "d",
            "params": {"p": param},
            "tasks": {
                "a": {"component": component, "input": {"a": literal, "b": "{{ params.p.a }}"}},
                "b": {"component": component, "input": {"a": "{{ xcom.a.a }}", "b": "{{ xcom.a.b.a }}", "c": templates}},
            },
        });
        let descriptor = json!({"format": 1, "tasks": [{"name": "t", "input": input, "output": output}]});
        in_budget(|| {
            let manifest = manifest::read(&source.to_string());
            let components: Components = manifest
                .components()
                .into_iter()
                .map(|component| {
                    let resolved = ResolvedComponent {
                        digest: component.value.digest().unwrap(),
                        descriptor: serde_json::from_value(descriptor.clone()).unwrap(),
                    };
                    (component.value, Ok(resolved))
                })
                .collect();
            let _ = manifest::compile(&manifest, &components);
        });
    });
}
