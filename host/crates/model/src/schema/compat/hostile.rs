//! Schemas that are small and stand for many.

use serde_json::{Value, json};

use super::*;
use crate::budget::{self, steps_left, within};

/// Counts the steps of comparing two schemas in every way in which a manifest asks.
fn steps(a: &Value, b: &Value) -> u64 {
    within(budget::Budget::new(u64::MAX / 4, 1 << 30), || {
        let before = steps_left();
        let (given, wanted) = (Shape::of(a), Shape::of(b));
        let _ = given.excludes(&wanted);
        let _ = given.may_lack(&wanted);
        if let Step::To { shape, .. } = given.member("a") {
            let _ = shape.excludes(&wanted);
        }
        let _ = given.element(0);
        before - steps_left()
    })
}

#[test]
fn comparing_schemas_takes_bounded_steps() {
    let values: Vec<Value> = (0..6_000).map(Value::from).collect();
    let others: Vec<Value> = (6_000..12_000).map(Value::from).collect();
    let names: Vec<String> = (0..4_000).map(|n| format!("n{n}")).collect();
    let tree = |width: usize| {
        let branch = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"]});
        json!({"$defs": {"n": {"anyOf": vec![branch; width]}}, "$ref": "#/$defs/n"})
    };
    let same = json!({"enum": values});
    let properties: Map<String, Value> = names
        .iter()
        .map(|name| (name.clone(), json!({"type": "string"})))
        .collect();
    let schemas = [
        json!({"allOf": vec![json!({}); 20_000]}),
        json!({"$defs": {"e": same}, "allOf": vec![json!({"$ref": "#/$defs/e"}); 1_000]}),
        json!({"enum": values}),
        json!({"enum": others}),
        json!({"type": "object", "required": names, "properties": properties}),
        json!({"type": "object", "required": names, "additionalProperties": {"type": "integer"}, "allOf": vec![json!({"required": names}); 20]}),
        tree(2),
        tree(30),
    ];
    for (at, a) in schemas.iter().enumerate() {
        for (bt, b) in schemas.iter().enumerate() {
            let steps = steps(a, b);
            assert!(steps < 8 * MAX_STEPS as u64 + 1_000_000, "{at} {bt}: {steps}");
        }
    }
}

#[test]
fn what_is_not_found_out_is_no_answer() {
    let a = json!({"type": "string"});
    let b = json!({"type": "integer"});
    assert!(Shape::of(&a).excludes(&Shape::of(&b)).is_some());
    let (excluded, member) = within(budget::Budget::new(10, 1 << 20), || {
        let shape = Shape::of(&a);
        (shape.excludes(&Shape::of(&b)), shape.member("x"))
    });
    assert_eq!(excluded, None);
    assert!(matches!(member, Step::To { .. }), "{member:?}");
}
