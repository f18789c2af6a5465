//! Manifests of the largest size that is permitted, each of a shape in which comparing everything with everything would be the square
//! of it. The bound on CPU time is generous: with one such step each would take minutes.

use std::fmt::Write as _;
use std::time::Duration;

use super::tests::components;
use super::*;
use crate::run::testing::cpu_time;

/// Far above what any takes in a build without optimisation, far below the square.
const ENOUGH: Duration = Duration::from_secs(40);

/// Checks a manifest of about a mebibyte; answers what was found.
fn check(name: &str, source: &str) -> Vec<Diagnostic> {
    assert!(source.len() <= MAX_MANIFEST_BYTES, "{name}: {}", source.len());
    let began = cpu_time();
    let manifest = read(source);
    let components = components(&manifest);
    let checked = compile(&manifest, &components);
    let took = cpu_time().checked_sub(began).unwrap();
    assert!(took < ENOUGH, "{name} took {took:?}");
    checked.map_or_else(|found| found, |checked| checked.diagnostics)
}

/// Lines from a pattern until the text is full.
fn lines(head: &str, line: impl Fn(usize) -> String, tail: &str) -> (String, usize) {
    at_most(usize::MAX, head, line, tail)
}

/// The same, with a bound on the lines: the values of a manifest have one, too.
fn at_most(most: usize, head: &str, line: impl Fn(usize) -> String, tail: &str) -> (String, usize) {
    let mut source = head.to_owned();
    let mut count = 0;
    loop {
        let next = line(count);
        if count == most || source.len() + next.len() + tail.len() > MAX_MANIFEST_BYTES - 64 {
            source.push_str(tail);
            return (source, count);
        }
        source.push_str(&next);
        count += 1;
    }
}

fn codes(found: &[Diagnostic]) -> Vec<&str> {
    let mut codes: Vec<&str> = found.iter().map(|found| found.code.as_str()).collect();
    codes.dedup();
    codes
}

fn group(name: &str, tasks: usize, more: &str) -> String {
    let mut text = format!("  {name}:\n    {more}\n    tasks:\n");
    for n in 0..tasks {
        let _ = writeln!(text, "      t{n}: *t");
    }
    text
}

/// `t` is an anchor for tasks, so that many fit.
const HEAD: &str = "dag: d\ntasks:\n  first: &t {component: single@1}\n";

#[test]
fn groups_that_follow_each_other_are_refused_by_their_edges_before_these_are_made() {
    let source = format!(
        "{HEAD}{}{}",
        group("a", 5_000, "tooltip: x"),
        group("b", 5_000, "after: [a]")
    );
    let found = check("two groups", &source);
    assert_eq!(codes(&found), ["manifest_too_large"], "{found:?}");
    let line = source.lines().position(|line| line.contains("after: [a]")).unwrap() + 1;
    assert_eq!(found[0].line as usize, line);
    assert!(
        found[0].message.contains("more than 200000 edges")
            && found[0].message.contains("group `b` waits for group `a`: 25000000"),
        "{}",
        found[0].message
    );
    assert!(found[0].hint.as_ref().unwrap().contains("one task in between"));

    // Many arrows, none of which is too large by itself: the largest is named.
    let mut source = format!("{HEAD}{}", group("a", 300, "tooltip: x"));
    for n in 0..20 {
        source.push_str(&group(&format!("b{n}"), if n == 3 { 99 } else { 80 }, "after: [a]"));
    }
    let found = check("many arrows", &source);
    assert!(
        found[0].message.contains("group `b3` waits for group `a`: 29700"),
        "{found:?}"
    );

    // What is allowed is made in full, and an arrow that is said twice is one.
    let source = format!(
        "{HEAD}{}{}",
        group("a", 447, "tooltip: x"),
        group("b", 447, "after: [a, a, a]")
    );
    let manifest = parse(&source).unwrap();
    let edges: usize = manifest.tasks.iter().map(|task| task.upstream.len()).sum();
    assert_eq!(edges, 447 * 447);
}

#[test]
fn groups_in_a_row_and_tasks_that_follow_a_large_group_are_no_burden() {
    let after = |n: usize| {
        if n == 0 {
            "[]".to_owned()
        } else {
            format!("[g{}]", n - 1)
        }
    };
    let line = |n: usize| format!("  g{n}: {{after: {}, tasks: {{t: *t}}}}\n", after(n));
    let (source, count) = at_most(16_000, HEAD, line, "");
    assert_eq!(count, 16_000);
    assert_eq!(codes(&check("groups in a row", &source)), [""; 0]);

    // A group whose tasks follow each other has one last task, which thousands wait for.
    let mut head = format!("{HEAD}  g:\n    tasks:\n      t0: *t\n");
    for n in 1..8_000 {
        let _ = writeln!(head, "      t{n}: {{component: single@1, after: [t{}]}}", n - 1);
    }
    let (source, count) = lines(&head, |n| format!("  w{n}: {{component: single@1, after: [g]}}\n"), "");
    assert!(count > 10_000);
    assert_eq!(codes(&check("a large group", &source)), [""; 0]);
}

#[test]
fn names_that_are_wrong_are_compared_with_a_bounded_number_of_others() {
    let (source, count) = lines(
        HEAD,
        |n| format!("  task_number_{n}: {{component: single@1, after: [task_nunber_{n}]}}\n"),
        "",
    );
    assert!(count > 15_000);
    let found = check("unknown tasks", &source);
    assert_eq!(codes(&found), ["manifest_unknown_task"]);
    assert_eq!(found.len(), 500);
    assert!(
        found
            .iter()
            .any(|found| found.hint.as_deref() == Some("did you mean `task_number_0`?"))
    );

    let (source, count) = lines(
        "dag: d\ntasks:\n",
        |n| format!("  t{n}: {{component: \"nothing_like_it_{n}@1\"}}\n"),
        "",
    );
    assert!(count > 15_000);
    assert_eq!(codes(&check("unknown components", &source)), ["component_not_found"]);
}

#[test]
fn places_on_a_long_line_are_found_at_once() {
    let (source, count) = lines(
        "dag: d\ntasks: {a: {component: single@1, input: [",
        |_| "'{{ x }}',".to_owned(),
        "]}}",
    );
    assert!(count > 90_000);
    let found = check("one line", &source);
    assert_eq!((codes(&found), found.len()), (vec!["template_invalid"], 500));
    let (source, count) = lines(
        "dag: d\ntasks: {a: {component: single@1, input: [",
        |n| format!("'{{{{ xcom.x{n} }}}}',"),
        "]}}",
    );
    assert!(count > 40_000);
    let found = check("one line", &source);
    assert_eq!((codes(&found), found.len()), (vec!["manifest_unknown_task"], 500));
    let last = &found[499];
    let (line, column) = (last.line as usize, last.column as usize);
    assert_eq!(line, 2);
    assert!(source.lines().nth(1).unwrap()[column - 1..].starts_with("xcom.x499 "));
}

#[test]
fn names_within_a_group_are_looked_up() {
    let (source, count) = lines(
        &format!("{HEAD}  g:\n    tasks:\n      source: *t\n"),
        |n| format!("      t{n}: {{component: single@1, input: {{x: '{{{{ xcom.source.v }}}}'}}}}\n"),
        "",
    );
    assert!(count > 10_000);
    assert_eq!(codes(&check("a group", &source)), [""; 0]);
}

#[test]
fn what_is_upstream_of_callbacks_is_asked_at_once() {
    // Each task is downstream of all before it, and all have a callback that names the first one.
    let (source, count) = lines(
        "dag: d\ndefaults: {on_failure: {notify: '{{ xcom.t0 | default(0) }}'}}\ntasks:\n  t0: {component: single@1}\n",
        |n| format!("  t{}: {{component: single@1, after: [t{n}]}}\n", n + 1),
        "",
    );
    assert!(count > 20_000);
    assert_eq!(codes(&check("callbacks in a chain", &source)), [""; 0]);
    // Each names another one.
    let (source, count) = lines(
        HEAD,
        |n| {
            let after = if n == 0 {
                "first".to_owned()
            } else {
                format!("t{}", n - 1)
            };
            format!(
                "  t{n}: {{component: single@1, after: [{after}], on_failure: {{notify: '{{{{ xcom.{after} }}}}'}}}}\n"
            )
        },
        "",
    );
    assert!(count > 8_000);
    assert_eq!(codes(&check("a callback each", &source)), [""; 0]);
}

#[test]
fn what_is_copied_is_bounded_in_bytes() {
    let text = "x".repeat(MAX_MANIFEST_BYTES / 2);
    let (source, _) = lines(
        &format!("dag: d\ntasks:\n  a: {{component: single@1, input: {{x: &big '{text}'}}}}\n"),
        |n| format!("  t{n}: {{component: single@1, input: {{x: *big}}}}\n"),
        "",
    );
    let found = check("aliases of a long text", &source);
    assert_eq!(codes(&found), ["manifest_too_large"]);
    assert!(found[0].message.contains("bytes of text"), "{found:?}");

    let notify = "x".repeat(100_000);
    let (source, _) = at_most(
        1_000,
        &format!("dag: d\ndefaults: {{on_failure: {{notify: '{notify}'}}}}\ntasks:\n  t: &t {{component: single@1}}\n"),
        |n| format!("  t{n}: *t\n"),
        "",
    );
    let found = check("long defaults", &source);
    assert_eq!(codes(&found), ["manifest_too_large"]);
    assert!(found[0].message.contains("`defaults` is copied"), "{found:?}");

    let codes_of: String = (0..30_000).map(|n| format!("code: rate_limited_{n},")).collect();
    let source = format!(
        "dag: d\ndefaults: {{retry_policy: [{{on: [{}]}}]}}\ntasks:\n  t: &t {{component: single@1}}\n",
        codes_of.trim_end_matches(',')
    );
    let (source, _) = at_most(1_000, &source, |n| format!("  t{n}: *t\n"), "");
    assert_eq!(codes(&check("long rules", &source)), ["manifest_too_large"]);

    // Keys above many templates are in the path to each of them.
    let key = "k".repeat(MAX_MANIFEST_BYTES / 2);
    let (source, _) = lines(
        &format!("dag: d\ntasks:\n  a:\n    component: single@1\n    input:\n      ? {key}\n      : ["),
        |_| "'{{ ds }}',".to_owned(),
        "]\n",
    );
    let found = check("long keys", &source);
    assert_eq!(codes(&found), ["template_invalid"]);
    assert!(found[0].message.contains("keys over all templates"), "{found:?}");
}

#[test]
fn lists_of_any_length_are_read_in_one_go() {
    let tail = "]\ntasks: {a: {component: single@1}}\n";
    let (source, _) = at_most(120_000, "dag: d\ntags: [", |n| format!("t{n},"), tail);
    assert_eq!(codes(&check("tags", &source)), [""; 0]);
    let (source, _) = lines(
        "dag: d\ntasks: {a: {human: {subject: x, options: [",
        |n| format!("o{n},"),
        "]}}}\n",
    );
    assert_eq!(codes(&check("options", &source)), ["manifest_value"]);
    let (source, count) = at_most(
        90_000,
        "dag: d\nparams: {",
        |n| format!("p{n}: 1,"),
        "}\ntasks: {a: {component: single@1, input: ['{{ params.p1 }}']}}\n",
    );
    assert!(count > 80_000);
    assert_eq!(codes(&check("parameters", &source)), [""; 0]);
    let params: String = (0..25_000).map(|n| format!("p{n}: 1,")).collect();
    let (source, count) = lines(
        &format!("dag: d\nparams: {{{params}}}\ntasks: {{a: {{component: single@1, input: ["),
        |n| format!("'{{{{ params.p{} }}}}',", n % 25_000),
        "]}}\n",
    );
    assert!(count > 25_000);
    assert_eq!(codes(&check("uses of parameters", &source)), [""; 0]);
    let (source, count) = lines(HEAD, |n| format!("  t{n}: {{component: 'sha256:{n:064x}'}}\n"), "");
    assert!(count > 10_000);
    assert_eq!(codes(&check("components", &source)), ["component_task_unknown"]);
}

#[test]
fn repeats_and_setups_are_bounded() {
    let (source, _) = lines(
        HEAD,
        |n| format!("  t{n}: {{component: single@1, expand: {{x: '{{{{ xcom.first.p{n} }}}}'}}}}\n"),
        "",
    );
    let found = check("measures", &source);
    assert_eq!(codes(&found), ["manifest_too_large"]);
    assert!(found[0].message.contains("more than 100 different parts"), "{found:?}");
    let (source, count) = lines(
        HEAD,
        |n| format!("  t{n}: {{component: single@1, expand: {{x: '{{{{ xcom.first }}}}'}}}}\n"),
        "",
    );
    assert!(count > 10_000);
    assert_eq!(codes(&check("mapped over one task", &source)), [""; 0]);
    let (source, count) = at_most(
        12_000,
        HEAD,
        |n| format!("  g{n}: {{expand: {{x: [1]}}, tasks: {{t: *t}}}}\n"),
        "",
    );
    assert!(count > 10_000);
    assert_eq!(codes(&check("mapped groups", &source)), [""; 0]);
    let (source, count) = lines(
        HEAD,
        |n| {
            let after = if n == 0 {
                "first".to_owned()
            } else {
                format!("t{}", n - 1)
            };
            format!("  t{n}: {{component: single@1, setup: true, after: [{after}]}}\n")
        },
        "",
    );
    assert!(count > 10_000);
    let found = check("setups", &source);
    assert_eq!(codes(&found), ["manifest_too_large"]);
    assert!(found[0].message.contains("setups"), "{found:?}");
}

#[test]
fn labels_that_choose_the_same_group_are_bounded() {
    let head = format!("{HEAD}{}", group("g", 5_000, "after: [choose]"));
    let (source, count) = lines(
        &format!("{head}  choose:\n    component: single@1\n    branches:\n"),
        |n| format!("      l{n}: [g]\n"),
        "",
    );
    assert!(count > 20_000);
    let found = check("labels", &source);
    let told = |found: &Diagnostic| found.message.contains("choose more than 200000 tasks");
    assert!(found.iter().any(told), "{found:?}");
}

#[test]
fn a_wrong_callback_of_all_tasks_is_told_once() {
    let text = "{{ xcom.last }}".repeat(200);
    let (source, count) = at_most(
        5_000,
        &format!("dag: d\ndefaults: {{on_failure: {{notify: '{text} {{{{ item }}}}'}}}}\ntasks:\n"),
        |n| format!("  t{n}: {{component: single@1}}\n"),
        "  last: {component: single@1}\n",
    );
    assert_eq!(count, 5_000);
    let found = check("a callback of all", &source);
    assert_eq!(codes(&found), ["manifest_unknown_task", "manifest_expand"], "{found:?}");
    assert_eq!(found.len(), 201);
}

#[test]
fn hostile_schemas_are_compared_within_bounds() {
    // A component whose schema has thousands of parts, alternatives and names, used by all tasks.
    let branch = |n: usize| serde_json::json!({"properties": {format!("p{n}"): {"type": "string"}}, "required": [format!("p{n}")]});
    let parts: Vec<_> = (0..400).map(branch).collect();
    let alternatives: Vec<_> = (0..30).map(branch).collect();
    let schema = serde_json::json!({"type": "object", "allOf": parts, "anyOf": alternatives});
    let descriptor = Descriptor {
        format: 1,
        sdk: None,
        tasks: vec![TaskDescriptor {
            name: "t".to_owned(),
            doc: String::new(),
            input: schema.clone(),
            output: schema,
            needs: Vec::new(),
            labels: None,
        }],
    };
    let (source, count) = lines(
        "dag: d\ntasks:\n  first: {component: hostile@1, input: '{{ conf.x }}'}\n",
        |n| format!("  t{n}: {{component: hostile@1, input: '{{{{ xcom.first }}}}'}}\n"),
        "",
    );
    assert!(count > 10_000);
    let manifest = read(&source);
    let resolved = ResolvedComponent {
        digest: crate::id::Digest([0; 32]),
        descriptor: std::sync::Arc::new(descriptor),
    };
    let components = [("hostile@1".parse().unwrap(), Ok(resolved))].into();
    let began = cpu_time();
    let checked = compile(&manifest, &components);
    let took = cpu_time().checked_sub(began).unwrap();
    assert!(took < ENOUGH, "{took:?}");
    // A dozen such tasks are checked; ten thousand are more than anybody pays for, and that is said.
    let findings = checked.err().unwrap_or_default();
    assert!(
        findings.iter().all(|found| found.code == "manifest_too_costly"),
        "{findings:?}"
    );
    let few = source.lines().take(14).collect::<Vec<_>>().join("\n");
    let checked = compile(&read(&few), &components);
    assert!(checked.is_ok(), "{checked:?}");
}

#[test]
fn as_many_tasks_as_fit_are_no_burden() {
    let (source, count) = lines(HEAD, |n| format!("  t{n}: *t\n"), "");
    // The limit on values comes first.
    assert!(count > 60_000);
    assert_eq!(codes(&check("all", &source)), ["manifest_too_large"]);
    let mut source = HEAD.to_owned();
    for n in 0..45_000 {
        let _ = writeln!(source, "  t{n}: *t");
    }
    assert_eq!(codes(&check("plain tasks", &source)), [""; 0]);
    let (source, count) = lines(
        HEAD,
        |n| {
            let after = if n == 0 {
                "first".to_owned()
            } else {
                format!("t{}", n - 1)
            };
            format!("  t{n}: {{component: single@1, after: [{after}]}}\n")
        },
        "",
    );
    assert!(count > 20_000);
    assert_eq!(codes(&check("a chain", &source)), [""; 0]);
    // A cycle through all of them.
    let source = source.replacen("single@1}", &format!("single@1, after: [t{}]}}", count - 1), 1);
    assert_eq!(codes(&check("a cycle", &source)), ["manifest_cycle"]);
}
