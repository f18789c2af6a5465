//! Schemas and values that are small and mean much work.

use serde_json::{Value, json};

use super::*;
use crate::budget::{Budget, Exhausted, steps_left, within};

/// Each level of the value can be described in two ways, and each of those in two.
fn twice() -> Value {
    let branch = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"]});
    json!({"$defs": {"n": {"anyOf": [branch, branch]}}, "$ref": "#/$defs/n"})
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!({}), |inner, _| json!({"a": inner}))
}

/// Counts the steps of some work.
fn steps<T>(work: impl FnOnce() -> T) -> (u64, T) {
    within(Budget::new(u64::MAX / 4, 1 << 30), || {
        let before = steps_left();
        let done = work();
        (before - steps_left(), done)
    })
}

#[test]
fn a_value_that_can_be_described_in_very_many_ways_is_refused_in_bounded_steps() {
    let validator = Validator::compile(&twice()).unwrap();
    for depth in [3, 20, 60, 100] {
        let (steps, problems) = steps(|| validator.validate(&nested(depth)));
        assert!(!problems.is_empty(), "{depth}");
        assert!(steps < 110_000_000, "{depth}: {steps}");
    }
    // A few ways can be told.
    let problems = validator.validate(&nested(1));
    assert!(problems[0].contains("not valid under any"), "{problems:?}");
}

#[test]
fn a_validation_stops_when_its_budget_does() {
    let validator = Validator::compile(&json!({"items": {"type": "integer"}})).unwrap();
    let value = json!(vec![1; 100_000]);
    assert_eq!(validator.check(&value), Ok(Vec::new()));
    let checked = within(Budget::new(10_000, 1 << 20), || validator.check(&value));
    assert_eq!(checked, Err(Exhausted::Steps));
    let problems = within(Budget::new(10_000, 1 << 20), || validator.validate(&value));
    assert_eq!(
        problems,
        ["it cannot be checked against its schema: it takes too many steps"]
    );
    assert!(!within(Budget::new(10_000, 1 << 20), || validator.is_valid(&value)));
    assert!(validator.is_valid(&value), "the budget is over");
}

#[test]
fn what_a_watch_stops_is_not_told_as_a_finding() {
    struct Gone;
    impl crate::budget::Watch for Gone {
        fn stopped(&self) -> bool {
            true
        }
    }
    let validator = Validator::compile(&twice()).unwrap();
    let budget = Budget::new(u64::MAX / 4, 1 << 30).watched(std::sync::Arc::new(Gone));
    let checked = within(budget, || validator.check(&nested(100)));
    assert_eq!(checked, Err(Exhausted::Stopped));
}

#[test]
fn references_that_lead_far_without_a_step_into_the_value_do_not_use_up_the_stack() {
    let count = 1_500;
    let mut defs = serde_json::Map::new();
    for at in 0..count {
        let next = format!("#/$defs/{}", at + 1);
        defs.insert(at.to_string(), json!({"allOf": [{"$ref": next}]}));
    }
    defs.insert(count.to_string(), json!({"properties": {"a": {"$ref": "#/$defs/0"}}}));
    let schema = json!({"$ref": "#/$defs/0", "$defs": defs});
    // On a stack like that of a thread that serves requests.
    let checked = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || {
            let validator = Validator::compile(&schema).unwrap();
            let checked = validator.check(&nested(100));
            // Letting go of it is recursion, too.
            drop(validator);
            checked
        })
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(checked, Err(Exhausted::Depth));
}

#[test]
fn an_ordinary_tree_is_as_deep_as_json_may_be() {
    let schema =
        json!({"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}}}});
    let checked = std::thread::Builder::new()
        .stack_size(2 << 20)
        .spawn(move || {
            Validator::compile(&schema)
                .unwrap()
                .check(&nested(crate::json::MAX_DEPTH))
        })
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(checked, Ok(Vec::new()));
}

#[test]
fn branches_that_look_at_nothing_cost_steps() {
    let schema = json!({"items": {"allOf": vec![Value::Bool(true); 10_000]}});
    let validator = Validator::compile(&schema).unwrap();
    let (steps, checked) = steps(|| validator.check(&json!(vec![Value::Null; 1_000])));
    assert_eq!(checked, Ok(Vec::new()));
    assert!(steps > 1_000 * 500, "{steps}");
}

#[test]
fn a_pattern_costs_what_its_text_is_long() {
    let validator = Validator::compile(&json!({"items": {"pattern": "[ab]*a[ab]{199}$"}})).unwrap();
    let text = "ab".repeat(100_000);
    let (one, checked) = steps(|| validator.check(&json!([text])));
    assert_eq!(checked, Ok(Vec::new()));
    assert!(one > 5_000_000, "{one}");
    let many = json!(vec![text; 5]);
    let checked = within(Budget::new(10_000_000, 1 << 20), || validator.check(&many));
    assert_eq!(checked, Err(Exhausted::Steps));
}

#[test]
fn errors_are_told_in_bounded_memory() {
    let validator = Validator::compile(&json!({"items": {"type": "integer"}})).unwrap();
    let value = json!(vec!["x"; 200_000]);
    assert_eq!(validator.validate(&value), ["it would take too long to find out why"]);
    let few = json!(vec!["x"; 100]);
    assert_eq!(validator.validate(&few).len(), 16);
    // A finding quotes a value of any size in a few words.
    let large = validator.validate(&json!(["y".repeat(4 << 20)]));
    assert!(large[0].len() < 500, "{}", large[0].len());
}

#[test]
fn compiled_schemas_say_how_large_they_are() {
    let plain = Validator::compile(&json!({"type": "string"})).unwrap();
    let with = Validator::compile(&json!({"pattern": "^\\p{L}{1,8}$"})).unwrap();
    assert!(
        plain.bytes() < 4_000 && with.bytes() > 100_000,
        "{} {}",
        plain.bytes(),
        with.bytes()
    );
}

#[test]
fn texts_that_are_documents_of_their_own_are_not_held_as_trees() {
    let schema = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "properties": {
            "a": {"contentMediaType": "application/json"},
            "b": {"format": "regex"},
        },
    });
    let validator = Validator::compile(&schema).unwrap();
    assert!(validator.is_valid(&json!({"a": "[1, {}]", "b": "^a+$"})));
    for bad in [json!({"a": "[1,"}), json!({"b": "("}), json!({"b": "a".repeat(5_000)})] {
        assert!(!validator.is_valid(&bad), "{bad}");
    }
}
