use std::collections::HashMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::time::Timestamp;

fn xcoms(values: &[(&str, &str, &str)]) -> HashMap<XcomRef, XcomInput> {
    values
        .iter()
        .map(|(task, key, text)| {
            let xcom = XcomRef {
                task: (*task).to_owned(),
                key: (*key).to_owned(),
                previous: false,
            };
            (xcom, XcomInput::One(Arc::from(*text)))
        })
        .collect()
}

fn render_with(input: &Value, xcoms: &HashMap<XcomRef, XcomInput>) -> Result<String, RenderError> {
    let params = json!({"threshold": 0.85, "name": "wine {{ ds }}", "rows": [1, {"a": null}]});
    let template = InputTemplate::parse(input).unwrap();
    let context = TemplateContext {
        dag_id: "d",
        run_id: "manual__1",
        task_id: "t",
        map_index: -1,
        try_number: 2,
        iteration: None,
        items: &[],
        callback: None,
        logical_date: "2026-01-31T04:05:06Z".parse::<Timestamp>().ok(),
        data_interval_start: None,
        data_interval_end: None,
        params: &params,
        conf: &json!({"big": 1}),
        xcoms,
    };
    template.render(&context, 100_000, 1 << 20)
}

fn render(template: &str) -> String {
    let xcoms = xcoms(&[
        (
            "load",
            "return_value",
            r#"{"rows": 12345678901234567890123456789012345678901234567890, "f": 1.10, "n": null, "big": 170141183460469231731687303715884105727, "list": [3, 1], "s": "a\"\u00e9"}"#,
        ),
        ("group.load-data", "return_value", r#"{"x": 1e-7}"#),
        ("load", "report", "[1, 2]"),
        (
            "clean",
            "return_value",
            r#"{"accuracy": 0.9, "n": 3, "tags": ["a", "b"], "m": {"k": [true]}, "big": 170141183460469231731687303715884105727}"#,
        ),
    ]);
    match render_with(&json!(template), &xcoms) {
        Ok(text) => text,
        Err(error) => format!("error: {error}"),
    }
}

#[test]
fn a_path_arrives_digit_for_digit() {
    assert_eq!(
        render("{{ xcom.load.rows }}"),
        "12345678901234567890123456789012345678901234567890"
    );
    assert_eq!(render("{{ xcom.load.f }}"), "1.10");
    assert_eq!(render("{{xcom['group.load-data'].x}}\n"), "1e-7");
    assert_eq!(render("{{- xcom.load.n -}}"), "null");
    assert_eq!(render("{{ xcom_key('load', 'report')[1] }}"), "2");
    assert_eq!(render("{{ xcom.load.s }}"), r#""a\"\u00e9""#);
    assert_eq!(render("{{ params.rows[1] }}"), r#"{"a":null}"#);
    assert_eq!(render("{{ conf }}"), r#"{"big":1}"#);
    assert_eq!(render("{{ try_number }}"), "2");
}

#[test]
fn one_expression_keeps_its_type() {
    assert_eq!(render("{{ xcom.clean.accuracy > params.threshold }}"), "true");
    assert_eq!(render("{{ xcom.clean.n + 1 }}"), "4");
    assert_eq!(
        render("{{ xcom.clean.big - 1 }}"),
        "170141183460469231731687303715884105726"
    );
    assert_eq!(render("{{ xcom.clean.accuracy / 1 }}"), "0.9");
    assert_eq!(
        render("{{ {'a': xcom.clean.m, 'b': none} }}"),
        r#"{"a":{"k":[true]},"b":null}"#
    );
    assert_eq!(render("{{ xcom.clean.tags | map('upper') | list }}"), r#"["A","B"]"#);
    assert_eq!(render("{{ xcom.clean.missing | default(7) }}"), "7");
    assert_eq!(render("{{ xcom.nowhere | default([]) }}"), "[]");
    // What was not published at all is missing with all that would be in it.
    assert_eq!(render("{{ xcom.nowhere.rows[0] | default(none) }}"), "null");
    assert_eq!(render("{{ previous.nowhere.count|d(1) + 1 }}"), "2");
    assert_eq!(render("<{{ xcom.nowhere.a.b | default('x') }}>"), "\"<x>\"");
    assert_eq!(render("{{ xcom.clean.tags | join('-') }}"), "\"a-b\"");
    assert_eq!(render("{{ 'x' if xcom.clean.n is odd else 'y' }}"), "\"x\"");
}

#[test]
fn anything_else_is_text_and_never_rendered_again() {
    assert_eq!(
        render("n={{ xcom.clean.n }} m={{ xcom.clean.m }} {{ none }}"),
        r#""n=3 m={\"k\":[true]} null""#
    );
    assert_eq!(render("{{ params.name }}"), "\"wine {{ ds }}\"");
    assert_eq!(render("<{{ params.name }}>"), "\"<wine {{ ds }}>\"");
    assert_eq!(
        render("{% for t in xcom.clean.tags %}{{ loop.index }}{{ t }}{% endfor %}"),
        "\"1a2b\""
    );
    assert_eq!(
        render("{{ ds }} {{ ds_nodash }} {{ ts }} {{ ts_nodash }}"),
        "\"2026-01-31 20260131 2026-01-31T04:05:06+00:00 20260131T040506\""
    );
    assert_eq!(render("{{ '{{' }}"), "\"{{\"");
    assert_eq!(render("a {{ 1 }}\n"), "\"a 1\\n\"");
}

#[test]
fn what_is_missing_is_an_error() {
    for (template, message) in [
        (
            "{{ xcom.load.nothing }}",
            "error: cannot render the input: `xcom.load.nothing` is not there",
        ),
        (
            "{{ xcom.gone.a }}",
            "error: cannot render the input: `xcom.gone` is not there: task `gone` published nothing under it",
        ),
        (
            "{{ data_interval_start }}",
            "error: cannot render the input: `data_interval_start` is not set: the run has none",
        ),
        (
            "{{ xcom.clean.nothing + 1 }}",
            "error: cannot render the input: invalid operation: tried to use + operator",
        ),
        (
            "<{{ xcom.clean.nothing }}{{ xcom.clean.nothing | default(1) }}>",
            "error: cannot render the input: undefined value",
        ),
        ("<{{ xcom.gone.a }}>", "error: cannot render the input: undefined value"),
        (
            "<{{ xcom.clean.nothing }}>",
            "error: cannot render the input: undefined value",
        ),
        (
            "{{ [xcom.clean.nothing] }}",
            "error: cannot render the input: `[xcom.clean.nothing]` is not there",
        ),
        (
            "{{ xcom.load.rows + 1 }}",
            "error: cannot render the input: invalid operation: cannot read `xcom.load`: 123456789012345678901234567890123456789012345678 \
             has more than 128 bits; it can be passed on whole, but not used in an expression at line 1, column 60",
        ),
    ] {
        let rendered = render(template);
        assert!(rendered.starts_with(message), "{template}: {rendered}");
    }
}

#[test]
fn a_default_stands_for_a_path_that_leads_nowhere() {
    for (template, expected) in [
        ("{{ previous.step.n | default(0) + 1 }}", "1"),
        ("{{ xcom.gone.a[0].b | default(none) }}", "null"),
        ("{{ xcom.clean.n | default(0) }}", "3"),
        ("<{{ xcom.gone.a.b | d ('-') }}>", "\"<->\""),
    ] {
        assert_eq!(render(template), expected, "{template}");
    }
    for template in [
        "{{ xcom.gone.a.b }}",
        "{{ xcom.clean.n | default(0) + xcom.gone.a.b }}",
        "{{ [xcom.gone.a.b, xcom.n | default(0)] }}",
    ] {
        let rendered = render(template);
        assert!(rendered.starts_with("error: "), "{template}: {rendered}");
    }
}

#[test]
fn work_and_output_are_bounded() {
    let big = format!("\"{}\"", "x".repeat(600_000));
    let list = format!("[{}1]", "1,".repeat(10_000));
    let xcoms = xcoms(&[("a", "return_value", &big), ("l", "return_value", &list)]);
    let fault = |template: &str| render_with(&json!(template), &xcoms).unwrap_err().fault;
    let too_large = RenderFault::TooLarge { limit: 1 << 20 };
    assert_eq!(fault("{{ xcom.a }}{{ xcom.a }}"), too_large);
    assert_eq!(fault("{{ xcom.a ~ xcom.a }}"), too_large);
    assert_eq!(fault("{{ [xcom.a, xcom.a] }}"), too_large);
    assert_eq!(fault("{{ xcom.a | replace('x', 'yyyyyyyyyy') }}"), too_large);
    assert_eq!(fault("{{ xcom.l | join(xcom.a) | length }}"), too_large);
    assert_eq!(fault("{{ ('x' * 16000000) | length ~ xcom.a ~ xcom.a }}"), too_large);
    assert_eq!(
        fault("{% for a in xcom.l %}{% for b in xcom.l %}{% for c in xcom.l %}{% endfor %}{% endfor %}{% endfor %}"),
        RenderFault::OutOfFuel
    );
    assert_eq!(
        render_with(&json!({"a": ["{{ xcom.a }}", "{{ xcom.a }}"]}), &xcoms)
            .unwrap_err()
            .path,
        "/a/1"
    );
}

#[test]
fn names_its_upstream_tasks() {
    let input = json!({
        "rows": "{{ xcom.load.rows }}",
        "x": ["{{ xcom['group.load-data'].x | default(1) }}"],
        "t": "{% if xcom_key('check', 'report') %}{{ xcom.load }}{% endif %}",
    });
    let template = InputTemplate::parse(&input).unwrap();
    let refs: Vec<(&str, &str)> = template.xcom_refs().iter().map(|r| (&*r.task, &*r.key)).collect();
    assert_eq!(
        refs,
        [
            ("check", "report"),
            ("group.load-data", "return_value"),
            ("load", "return_value")
        ]
    );
    let uses: Vec<(&str, usize)> = template.xcom_uses().iter().map(|u| (&*u.path, u.offset)).collect();
    assert_eq!(uses, [("/rows", 3), ("/x/0", 3), ("/t", 6), ("/t", 39)]);
    let sources: Vec<&str> = template.sources().iter().map(|(pointer, _)| *pointer).collect();
    assert_eq!(sources, ["/rows", "/t"]);
}

#[test]
fn refuses_what_cannot_be_known_or_bounded() {
    let mut table = String::new();
    for template in [
        "{{ xcom[params.task].x }}",
        "{{ xcom_key(params.task, 'k') }}",
        "{{ xcom }}",
        "{{ xcom_key }}",
        "{{ xcom_key('a') }}",
        "{% for xcom in params.list %}{% endfor %}",
        "{% for x in [params.a ~ params.a] %}{% endfor %}",
        "{% set x = 1 %}",
        "{% macro f() %}{% endmacro %}",
        "{% include 'x' %}",
        "{{ parms.x }}",
        "{{ load.rows }}",
        "{{ dag_run.conf }}",
        "{{ ti.xcom_pull('a') }}",
        "{{ xcom.a | uper }}",
        "{{ xcom.a is odder }}",
        "{{ xcom.a | center(1000000000) }}",
        "{{ xcom.a.items() }}",
        "{{ rnge(3) }}",
        "{{ xcom.load.",
        "a {{ b",
        "{{ 1 +* 2 }}",
        "{% if %}",
        "é {{ nope }} {{ nope2 }}",
    ] {
        let errors = InputTemplate::parse(&json!({"k": template})).unwrap_err();
        for error in errors {
            assert_eq!(error.path, "/k");
            let hint = error.hint.map_or_else(String::new, |hint| format!(" ({hint})"));
            table.push_str(&format!("{template}\n  {}: {}{hint}\n", error.offset, error.message));
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn all_listed_filters_and_tests_exist() {
    for filter in super::language::FILTERS {
        let template = format!("{{{{ 1 | {filter} }}}}");
        let input = InputTemplate::parse(&json!(template)).unwrap();
        if let Err(error) = render_with(&json!(template), &HashMap::new()) {
            assert!(!error.to_string().contains("unknown filter"), "{filter}");
        }
        assert!(input.xcom_refs().is_empty());
    }
    for test in super::language::TESTS {
        if let Err(error) = render_with(&json!(format!("{{{{ 1 is {test} }}}}")), &HashMap::new()) {
            assert!(!error.to_string().contains("unknown test"), "{test}");
        }
    }
}

proptest! {
    #[test]
    fn never_panics(template in "[{}%# a-z.'\"\\[\\]()|+~0-9é\n-]{0,60}", open in any::<bool>()) {
        let text = if open { format!("{{{{{template}}}}}") } else { template };
        if let Ok(template) = InputTemplate::parse(&json!(text)) {
            let params = json!({});
            let context = TemplateContext {
                dag_id: "", run_id: "", task_id: "", map_index: -1, try_number: 1, iteration: None, items: &[], callback: None, logical_date: None,
                data_interval_start: None, data_interval_end: None, params: &params, conf: &params, xcoms: &HashMap::new(),
            };
            if let Ok(text) = template.render(&context, 1_000, 10_000) {
                prop_assert!(crate::json::check(&text, 10_000).is_ok(), "{}", text);
            }
        }
    }
}

#[test]
fn the_reference_names_everything_that_a_template_may_use() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../docs/manifest.md");
    let text = std::fs::read_to_string(path).unwrap();
    let names = [
        super::language::ROOTS,
        super::language::FUNCTIONS,
        super::language::FILTERS,
    ]
    .concat();
    for name in names {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
}
