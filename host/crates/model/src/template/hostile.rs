//! Templates that are small and mean much work.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};

use super::*;
use crate::budget::{Budget, Exhausted, Watch, steps_left, within};

const FUEL: u64 = 200_000;
const MAX: usize = 16 << 20;

fn render_input(input: &Value, xcom: &str) -> Result<String, RenderFault> {
    let template = InputTemplate::parse(input).unwrap();
    let xcoms: HashMap<XcomRef, XcomInput> = template
        .xcom_refs()
        .iter()
        .map(|reference| (reference.clone(), XcomInput::One(Arc::from(xcom))))
        .collect();
    let params = json!({});
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
        conf: &params,
        xcoms: &xcoms,
    };
    template.render(&context, FUEL, MAX).map_err(|error| error.fault)
}

fn render(template: &str) -> Result<String, RenderFault> {
    render_input(&json!(template), "null")
}

/// Renders; answers the steps that it took, too.
fn steps(template: &str, xcom: &str) -> (u64, Result<String, RenderFault>) {
    within(Budget::new(20_000_000, 256 << 20), || {
        let before = steps_left();
        let done = render_input(&json!(template), xcom);
        (before - steps_left(), done)
    })
}

const MEMORY: RenderFault = RenderFault::Exhausted(Exhausted::Bytes);

#[test]
fn the_sum_of_what_is_made_is_bounded() {
    let z = "z".repeat(1_000);
    for template in [
        format!("{{{{ range(1000)|map('string')|map('replace','','{z}')|map('replace','z','{z}')|list|length }}}}"),
        format!(
            "{{% for i in range(20000) %}}{{{{ ('x'|replace('x','y'*3000)|replace('y','z'*5000))|length }}}}{{% endfor %}}"
        ),
        "{{ ('x' * 99999999 ~ 'x' * 99999999 ~ 'x' * 99999999)|length }}".to_owned(),
        "{{ ([1] * 99999999)|length }}".to_owned(),
        "{{ ([[1] * 1000] * 1000 * 100000)|list|length }}".to_owned(),
        "{{ ('x' * 50000000)|list|length }}".to_owned(),
        "{{ ('x ' * 50000000)|split|length }}".to_owned(),
        "{{ ('x' * 90000000)|upper|lower|title|length }}".to_owned(),
        "{{ (('<' * 90000000)|tojson)|length }}".to_owned(),
        "{{ range(100000)|map('string')|map('replace', '', 'abcdefghijklmnopqrstuvwxyz' * 100)|sort|length }}"
            .to_owned(),
    ] {
        assert_eq!(render(&template), Err(MEMORY), "{template}");
    }
}

#[test]
fn the_sum_of_what_is_done_is_bounded() {
    let list = json!(
        (0..20_000)
            .map(|n| json!({"n": n, "s": "some text"}))
            .collect::<Vec<_>>()
    )
    .to_string();
    for template in [
        "{% for i in range(20000) %}{{ xcom.a == xcom.a }}{% endfor %}",
        "{% for i in range(20000) %}{{ xcom.a|tojson|length }}{% endfor %}",
        "{% for i in range(20000) %}{{ xcom.a|sort(attribute='n')|first }}{% endfor %}",
        "{% for i in xcom.a %}{{ i in xcom.a }}{% endfor %}",
        "{% for i in range(20000) %}{{ 1 in xcom.a }}{% endfor %}",
        "{% for i in range(20000) %}{{ xcom.a|map(attribute='n')|sum }}{% endfor %}",
        "{{ range(100000)|map('replace', '', '')|map('string')|select('in', xcom.a)|list|length }}",
        "{% for i in xcom.a %}{% for j in xcom.a %}{% for k in xcom.a %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for i in range(20000) %}{{ xcom.a|groupby('s')|length }}{% endfor %}",
        "{% for i in range(20000) %}{{ xcom.a[::-1]|length }}{% endfor %}",
        "{% for i in range(20000) %}{{ ([xcom.a] * 9)|sum(start=[])|length }}{% endfor %}",
    ] {
        let (_, done) = steps(template, &list);
        assert!(
            matches!(&done, Err(RenderFault::OutOfFuel)) || done == Err(MEMORY),
            "{template}: {done:?}"
        );
    }
}

#[test]
fn many_templates_share_one_budget() {
    let input = json!(vec!["{% for i in range(20000) %}{% endfor %}"; 2_000]);
    let done = within(Budget::new(20_000_000, 256 << 20), || render_input(&input, "null"));
    assert_eq!(done, Err(RenderFault::OutOfFuel));
    let text = json!("x".repeat(1 << 20)).to_string();
    let input = json!(vec!["{{ xcom.a[0] | default(1) }}"; 200]);
    assert!(
        render_input(&input, &text).is_ok(),
        "what a name stands for is read once"
    );
    let input = json!(vec!["{{ xcom.a.b }}"; 500]);
    let large = format!("{{\"x\": {text}, \"b\": 1}}");
    let done = within(Budget::new(20_000_000, 256 << 20), || render_input(&input, &large));
    assert_eq!(done, Err(RenderFault::OutOfFuel));
    // What one template makes is given back before the next.
    let input = json!(vec!["{{ ('x' * 90000000)|length }}"; 20]);
    assert!(render_input(&input, "null").is_ok());
}

#[derive(Default)]
struct Eye(AtomicU64);

impl Watch for Eye {
    fn stopped(&self) -> bool {
        self.0.fetch_add(1, Ordering::Relaxed) > 2
    }
}

#[test]
fn a_rendering_ends_when_nobody_wants_it_any_more() {
    let eye = Arc::new(Eye::default());
    let watched = Budget::new(u64::MAX / 4, 1 << 30).watched(Arc::clone(&eye) as Arc<dyn Watch>);
    let done = within(watched, || {
        render("{% for i in range(20000) %}{{ ('x' * 3000)|length }}{% endfor %}")
    });
    assert!(eye.0.load(Ordering::Relaxed) < 10, "it ends when it is told so");
    assert_eq!(done, Err(RenderFault::Exhausted(Exhausted::Stopped)));
}

#[test]
fn an_ordinary_template_takes_few_steps() {
    let rows = json!({"rows": [{"name": "a", "n": 1}, {"name": "b", "n": 2}]}).to_string();
    for template in [
        "{{ xcom.a.rows | map(attribute='name') | join(', ') }}",
        "{% for row in xcom.a.rows %}{{ loop.index }}: {{ row.name | upper }}{% endfor %}",
        "report-{{ run_id }}.csv",
        "{{ xcom.a.rows | length > 1 }}",
    ] {
        let (steps, done) = steps(template, &rows);
        assert!(done.is_ok(), "{template}: {done:?}");
        assert!(steps < 5_000, "{template}: {steps}");
    }
}

#[test]
fn a_key_that_is_written_with_escapes_is_found() {
    for template in [
        "{{ xcom_key('a', 'it\\'s') + 1 }}",
        "{{ xcom_key('a', 'return\\x5fvalue') + 1 }}",
        "{{ xcom_key('a', 'return_value') + 1 }}",
    ] {
        assert_eq!(render_input(&json!(template), "3").as_deref(), Ok("4"), "{template}");
    }
}

#[test]
fn slices_are_cut_to_what_is_there() {
    let list = "[1, 2, 3, 4, 5]";
    for (template, expected) in [
        ("{{ xcom.a[3:0:-1] }}", "[4,3,2]"),
        ("{{ xcom.a[0:9:-1] }}", "[]"),
        ("{{ xcom.a[::-2] }}", "[5,3,1]"),
        ("{{ xcom.a[1:3] }}", "[2,3]"),
        ("{{ xcom.a[-2:] }}", "[4,5]"),
        ("{{ xcom.a[:-9223372036854775808:-9223372036854775807] }}", "[5]"),
        ("{{ 'héllo'[::-1] }}", "\"olléh\""),
        ("{{ 'héllo'[0:3:-1] }}", "\"\""),
        ("{{ (1, 2, 3)[0:2:-1] | list }}", "[]"),
        ("{{ none[0:1] }}", "[]"),
    ] {
        assert_eq!(
            render_input(&json!(template), list).as_deref(),
            Ok(expected),
            "{template}"
        );
    }
    for template in [
        "{{ xcom.a[::0] }}",
        "{{ xcom.a['x':] }}",
        "{{ 3[0:1] }}",
        "{{ xcom.a[:1.5] }}",
    ] {
        let done = render_input(&json!(template), list);
        assert!(matches!(done, Err(RenderFault::Failed(_))), "{template}: {done:?}");
    }
}

#[test]
fn integers_that_would_not_fit_are_an_error() {
    for template in [
        "{{ 18446744073709551615 + 1 }}",
        "{{ xcom.a + 1 }}",
        "{{ 9223372036854775807 * 3 }}",
        "{{ -9223372036854775808 - 1 }}",
        "{{ 2 ** 64 }}",
        "{{ 2 ** 200 }}",
        "{{ -xcom.a }}",
        "{{ [xcom.a, 1] | sum }}",
        "{{ '99999999999999999999' | int }}",
        "{{ 340282366920938463463374607431768211455 + 340282366920938463463374607431768211455 }}",
        "n={{ xcom.a + 1 }}",
    ] {
        match render_input(&json!(template), "18446744073709551615") {
            Err(RenderFault::Failed(why)) => assert!(
                why.contains("overflow") || why.contains("operator"),
                "{template}: {why}"
            ),
            done => panic!("{template}: {done:?}"),
        }
    }
    for (template, expected) in [
        ("{{ 18446744073709551614 + 1 }}", "18446744073709551615"),
        ("{{ xcom.a - 1 }}", "18446744073709551614"),
        ("{{ 7 // 2 + 7 % 4 - 2 ** 3 }}", "-2"),
        ("{{ 7 / 2 }}", "3.5"),
        ("{{ 1 + 1.5 }}", "2.5"),
    ] {
        let done = render_input(&json!(template), "18446744073709551615");
        assert_eq!(done.as_deref(), Ok(expected), "{template}");
    }
}

/// The same by the engine that the language is taken from.
fn engine(template: &str, xcom: &str) -> Result<String, minijinja::Error> {
    let mut environment = minijinja::Environment::new();
    environment.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_formatter(|out, _, value| {
        let text = match value.as_str() {
            Some(text) => text.to_owned(),
            None => {
                let mut text = String::new();
                value::write_json(value, &mut text, MAX, 0).map_err(|_| minijinja::ErrorKind::UndefinedError)?;
                text
            }
        };
        out.write_str(&text).map_err(minijinja::Error::from)
    });
    let task = minijinja::Value::from_pairs([("a", value::from_json(xcom).unwrap())]);
    let root = minijinja::Value::from_pairs([("xcom", task)]);
    let mut out = String::new();
    match template.strip_prefix("{{").and_then(|inner| inner.strip_suffix("}}")) {
        Some(inner) if !inner.contains("}}") => {
            let value = environment.compile_expression(inner)?.eval(root)?;
            value::write_json(&value, &mut out, MAX, 0).map_err(|_| minijinja::ErrorKind::UndefinedError)?;
        }
        _ => value::write_string(&environment.render_str(template, root)?, &mut out),
    }
    Ok(out)
}

#[test]
fn the_language_is_what_it_was() {
    let value = r#"{"l": [{"k": "b", "n": 2}, {"k": "a", "n": 1}, {"k": "b", "n": 3}], "m": {"x": 1, "y": null}, "s": "Some Text", "z": []}"#;
    for (template, expected) in [
        (
            "{{ xcom.a.l | sort(attribute='n') | map(attribute='n') | list }}",
            "[1,2,3]",
        ),
        ("{{ xcom.a.l | sum(attribute='n') }}", "6"),
        ("{{ xcom.a.l | sum('n', 10) }}", "16"),
        ("{{ [[1], [2, 3]] | sum(start=[]) }}", "[1,2,3]"),
        ("{{ xcom.a.l | groupby('k') | map('first') | list }}", r#"["a","b"]"#),
        (
            "{% for k, rows in xcom.a.l | groupby('k') %}{{ k }}={{ rows | length }};{% endfor %}",
            r#""a=1;b=2;""#,
        ),
        (
            "{{ xcom.a.l | selectattr('n', 'gt', 1) | map(attribute='k') | unique | list }}",
            r#"["b"]"#,
        ),
        ("{{ xcom.a.m | items | list }}", r#"[["x",1],["y",null]]"#),
        ("{{ xcom.a.m | dictsort | map('last') | list }}", "[1,null]"),
        ("{% for x in xcom.a.z %}{{ x }}{% else %}none{% endfor %}", r#""none""#),
        (
            "{% for r in xcom.a.l if r.n > 1 %}{{ loop.index }}/{{ loop.length }}{% if not loop.last %},{% endif %}{% endfor %}",
            r#""1/2,2/2""#,
        ),
        (
            "{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 2 not in [1, 2] }}",
            r#""true false false""#,
        ),
        ("{{ xcom.a.z or 'empty' }} {{ xcom.a.s and 1 }}", r#""empty 1""#),
        ("{{ 'a' ~ 1 ~ ('x' if false) ~ [1, 'q'] }}", r#""a1[1, 'q']""#),
        (
            "{{ xcom.a.s.nope is defined }} {{ xcom.a.nope is undefined }}",
            r#""false true""#,
        ),
        (
            "{{ xcom.a.s | lower | replace('e', '3') | split(' ') }}",
            r#"["som3","t3xt"]"#,
        ),
        ("{{ [1, 2] + [3] }}", "[1,2,3]"),
        ("{{ [1, 2] * 2 }}", "[1,2,1,2]"),
        ("{{ 'ab' * 2 }}", r#""abab""#),
        ("{{ range(1, 7, 2) | list }}", "[1,3,5]"),
        ("{{ xcom.a['m']['x'] }}", "1"),
        ("{{ xcom.a.l[0].k }}{{ xcom.a.l[-1].n }}", r#""b3""#),
        ("{{ (xcom.a.l | map(attribute='n'))[1] }}", "1"),
        ("{{ not xcom.a.z }}", "true"),
        ("{{ xcom.a.z | tojson }}", r#""[]""#),
        (
            "{{ [3, 1, 2] | max }}{{ [3, 1, 2] | min }}{{ [1] | first }}{{ 'abc' | last }}",
            r#""311c""#,
        ),
        (
            "{{ 3.7 | int }}{{ '4' | int }}{{ 2.5 | round }}{{ -3 | abs }}",
            r#""342.03""#,
        ),
        ("{{ true + 1 }}", "2"),
        ("{{ xcom.a.s[0] ~ xcom.a.s[-1] }}", r#""St""#),
    ] {
        let done = render_input(&json!(template), value);
        assert_eq!(done.as_deref(), Ok(expected), "{template}");
        let engine = engine(template, value).unwrap_or_else(|error| panic!("{template}: {error:#}"));
        assert_eq!(engine, expected, "{template}: the engine");
    }
}
