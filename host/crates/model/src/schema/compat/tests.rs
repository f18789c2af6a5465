use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::schema::Validator;

fn excluded(a: &Value, b: &Value) -> Option<String> {
    Shape::of(a).excludes(&Shape::of(b))
}

#[test]
fn what_is_certain() {
    let object = |properties: Value, required: Value, more: bool| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": more});
    for (producer, consumer, why) in [
        (
            json!({"type": "string"}),
            json!({"type": "number"}),
            "a string is not a number",
        ),
        (
            json!({"type": ["string", "null"]}),
            json!({"type": "array"}),
            "null or a string is not an array",
        ),
        (
            json!({"enum": ["a", "b"]}),
            json!({"const": "c"}),
            "no value matches both schemas",
        ),
        (
            json!({"type": "integer", "minimum": 10}),
            json!({"maximum": 5, "type": "number"}),
            "no value matches both schemas",
        ),
        (
            object(json!({"a": {"type": "string"}}), json!(["a"]), true),
            object(json!({"a": {"type": "integer"}}), json!([]), true),
            "`a`: a string is not a number",
        ),
        (
            object(json!({"a": true}), json!([]), false),
            object(json!({}), json!(["b"]), true),
            "there is no `b`",
        ),
        (
            object(json!({"b": false}), json!([]), true),
            object(json!({}), json!(["b"]), true),
            "there is no `b`",
        ),
        (
            json!({"anyOf": [{"type": "string"}, {"$ref": "#/$defs/n"}], "$defs": {"n": {"type": "null"}}}),
            json!({"oneOf": [{"type": "object"}, {"type": "array"}]}),
            "null or a string is not an array or an object",
        ),
        (
            json!({"type": "array", "items": {"type": "string"}, "minItems": 1}),
            json!({"type": "array", "items": {"type": "number"}}),
            "no value matches both schemas",
        ),
        (
            json!({"allOf": [{"type": "string"}, true]}),
            json!({"type": "null"}),
            "a string is not null",
        ),
        (json!(false), json!(true), "nothing is not any value"),
    ] {
        assert_eq!(
            excluded(&producer, &consumer).as_deref(),
            Some(why),
            "{producer} → {consumer}"
        );
        assert!(excluded(&consumer, &producer).is_some(), "{consumer} → {producer}");
    }
}

#[test]
fn what_is_not_certain() {
    for (producer, consumer) in [
        (json!({"type": "number"}), json!({"type": "integer"})),
        (json!({"type": "object"}), json!({"type": "object", "required": ["a"]})),
        (json!({"type": "string"}), json!({"type": "string", "pattern": "^x$"})),
        (json!({"enum": [1]}), json!({"const": 1.0})),
        (
            json!({"properties": {"a": {"type": "string"}}, "required": ["a"]}),
            json!({"properties": {"a": {"type": "null"}}}),
        ),
        (
            json!({"type": "array", "items": {"type": "string"}}),
            json!({"type": "array", "items": {"type": "number"}}),
        ),
        (json!({"$ref": "#/$defs/nowhere"}), json!({"type": "string"})),
        (json!({"$ref": "#"}), json!({"type": "string"})),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#", "$ref": "#/definitions/s", "type": "null", "definitions": {"s": {"type": "string"}}}),
            json!({"type": "string"}),
        ),
        (
            json!({"type": "object", "additionalProperties": false, "patternProperties": {"^b": {}}}),
            json!({"required": ["b"], "type": "object"}),
        ),
    ] {
        assert_eq!(excluded(&producer, &consumer), None, "{producer} → {consumer}");
    }
}

#[test]
fn a_recursive_schema_ends() {
    let list = json!({"$ref": "#/$defs/l", "$defs": {"l": {
        "type": "object", "required": ["next"], "properties": {"next": {"$ref": "#/$defs/l"}},
        "anyOf": [{"$ref": "#/$defs/l"}, {"$ref": "#/$defs/l"}],
    }}});
    assert_eq!(excluded(&list, &list), None);
}

#[test]
fn few_bytes_do_not_stand_for_endless_work() {
    let mut properties = Map::new();
    for name in 0..30 {
        properties.insert(
            format!("p{name}"),
            json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}, {"$ref": "#/$defs/x"}]}),
        );
    }
    let bomb = json!({
        "type": "object", "properties": properties, "required": properties.keys().collect::<Vec<_>>(),
        "allOf": [{"anyOf": [{"$ref": "#/$defs/x"}, {"$ref": "#/$defs/x"}]}, {"oneOf": [{"$ref": "#"}, {"$ref": "#"}]}],
        "$defs": {"x": {"allOf": [{"$ref": "#"}, {"$ref": "#/$defs/x"}, {"$ref": "#"}]}},
    });
    assert_eq!(excluded(&bomb, &bomb), None);
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        (-3..3_i32).prop_map(Value::from),
        (-3..3_i32).prop_map(|n| json!(f64::from(n) / 2.0)),
        "[ab]{0,2}".prop_map(Value::from),
    ]
}

fn instance() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..3).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

fn schema() -> impl Strategy<Value = Value> {
    let types = prop::sample::select(vec![
        "null", "boolean", "integer", "number", "string", "array", "object",
    ]);
    let leaf = prop_oneof![
        Just(json!({})),
        any::<bool>().prop_map(Value::from),
        types.clone().prop_map(|name| json!({"type": name})),
        (types.clone(), types.clone()).prop_map(|(a, b)| if a == b {
            json!({"type": a})
        } else {
            json!({"type": [a, b]})
        }),
        instance().prop_map(|value| json!({"const": value})),
        prop::collection::vec(scalar(), 1..4).prop_map(|values| json!({"enum": values})),
        (-2..3_i32, -2..3_i32)
            .prop_map(|(low, high)| json!({"type": "number", "minimum": low, "exclusiveMaximum": high})),
        prop::sample::select(vec!["#/$defs/x", "#/$defs/y", "#"]).prop_map(|target| json!({"$ref": target})),
    ];
    leaf.prop_recursive(3, 16, 3, move |inner| {
        let names = prop::collection::btree_set("[abc]", 0..3);
        prop_oneof![
            (
                prop::collection::btree_map("[abc]", inner.clone(), 0..3),
                names,
                inner.clone(),
                any::<(bool, bool)>()
            )
                .prop_map(|(properties, required, more, (typed, closed))| {
                    let mut schema = json!({"properties": properties, "required": required});
                    if typed {
                        schema["type"] = json!("object");
                    }
                    if closed {
                        schema["additionalProperties"] = more;
                    }
                    schema
                }),
            (inner.clone(), 0..3_u32, 0..3_u32).prop_map(|(items, least, most)| {
                json!({"type": "array", "items": items, "minItems": least, "maxItems": most})
            }),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|branches| json!({"anyOf": branches})),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|branches| json!({"oneOf": branches})),
            prop::collection::vec(inner, 1..3).prop_map(|branches| json!({"allOf": branches})),
        ]
    })
}

fn document() -> impl Strategy<Value = Value> {
    (schema(), schema(), schema()).prop_map(|(schema, x, y)| json!({"allOf": [schema], "$defs": {"x": x, "y": y}}))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    /// What is called certain is certain: no value that the producer's schema accepts is accepted by the consumer's.
    #[test]
    fn no_value_matches_schemas_that_exclude_each_other(
        producer in document(),
        consumer in document(),
        values in prop::collection::vec(instance(), 24),
    ) {
        if excluded(&producer, &consumer).is_some() {
            // A schema that refers to itself without end cannot be compiled; it says nothing.
            if let (Ok(a), Ok(b)) = (Validator::compile(&producer), Validator::compile(&consumer)) {
                for value in values {
                    prop_assert!(!(a.is_valid(&value) && b.is_valid(&value)), "{} matches {} and {}", value, producer, consumer);
                }
            }
        }
    }

    /// Following a path is as careful: what is said to be never there is not there, and what is there has the shape.
    #[test]
    fn members_are_followed_carefully(producer in document(), other in schema(), values in prop::collection::vec(instance(), 24)) {
        let Ok(validator) = Validator::compile(&producer) else { return Ok(()) };
        let accepted: Vec<&Value> = values.iter().filter(|value| validator.is_valid(value)).collect();
        for name in ["a", "b"] {
            match Shape::of(&producer).member(name) {
                Step::Never(_) => for value in &accepted {
                    prop_assert!(value.get(name).is_none(), "{} has {} in {}", value, name, producer);
                },
                Step::To { shape, certain } => {
                    let excludes = shape.excludes(&Shape::of(&other)).is_some();
                    let other = Validator::compile(&other);
                    for value in &accepted {
                        let member = value.get(name);
                        prop_assert!(!certain || member.is_some(), "{} lacks {} in {}", value, name, producer);
                        if let (true, Ok(other), Some(member)) = (excludes, &other, member) {
                            prop_assert!(!other.is_valid(member));
                        }
                    }
                }
            }
        }
    }
}

/// Choices, reproducible from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 8).unwrap_or(0) % sides
    }

    fn flip(&mut self) -> bool {
        self.roll(2) == 0
    }
}

/// A schema that accepts the value, more or less narrowly. `defs` collects what it refers to.
fn schema_for(value: &Value, dice: &mut Dice, defs: &mut Map<String, Value>) -> Value {
    let other = || json!({"type": "string", "pattern": "^never$"});
    match dice.roll(10) {
        0 => json!({}),
        1 => json!({"const": value}),
        2 => json!({"enum": ["zzz", value, {"z": 1}]}),
        3 => json!({"anyOf": [other(), schema_for(value, dice, defs)]}),
        4 => json!({"allOf": [schema_for(value, dice, defs), schema_for(value, dice, defs)]}),
        5 => {
            let schema = schema_for(value, dice, defs);
            let name = format!("d{}", defs.len());
            defs.insert(name.clone(), schema);
            json!({"$ref": format!("#/$defs/{name}")})
        }
        6 => json!({"oneOf": [schema_for(value, dice, defs), other()]}),
        _ => narrow(value, dice, defs),
    }
}

fn narrow(value: &Value, dice: &mut Dice, defs: &mut Map<String, Value>) -> Value {
    match value {
        Value::Null => json!({"type": ["null", "string"]}),
        Value::Bool(_) => json!({"type": "boolean"}),
        Value::String(_) => json!({"type": "string", "minimum": 900}),
        Value::Number(number) => {
            let whole = number.as_f64().is_some_and(|number| number.fract() == 0.0);
            let name = if whole && dice.flip() { "integer" } else { "number" };
            let mut schema = json!({"type": name});
            let value = number.as_f64().unwrap_or_default();
            if dice.flip() {
                schema["minimum"] = json!(value);
            }
            match dice.roll(3) {
                0 => schema["exclusiveMaximum"] = json!(value + 0.5),
                1 => schema["maximum"] = json!(value),
                _ => {}
            }
            schema
        }
        Value::Array(items) => {
            let accepted: Vec<Value> = items.iter().map(|item| schema_for(item, dice, defs)).collect();
            let mut schema = json!({"type": "array", "minItems": dice.roll(items.len() + 1)});
            if !accepted.is_empty() && dice.flip() {
                schema["items"] = json!({"anyOf": accepted});
            }
            if dice.flip() {
                schema["maxItems"] = json!(items.len() + dice.roll(2));
            }
            schema
        }
        Value::Object(members) => {
            let mut properties = Map::new();
            let mut required = Vec::new();
            for (name, member) in members {
                if dice.flip() {
                    properties.insert(name.clone(), schema_for(member, dice, defs));
                }
                if dice.flip() {
                    required.push(name.clone());
                }
            }
            let all = members.keys().all(|name| properties.contains_key(name));
            // Members that the value does not have may have any schema, even one that nothing matches.
            for name in ["a", "b", "c"] {
                if !members.contains_key(name) && dice.flip() {
                    properties.insert(
                        name.to_owned(),
                        if dice.flip() {
                            json!(false)
                        } else {
                            json!({"type": "null"})
                        },
                    );
                }
            }
            let mut schema = json!({"properties": properties, "required": required});
            if dice.flip() {
                schema["type"] = json!("object");
            }
            if all && dice.flip() {
                schema["additionalProperties"] = json!(false);
            } else if dice.flip() {
                schema["patternProperties"] = json!({"^[abc]$": true});
                schema["additionalProperties"] = json!(false);
            }
            schema
        }
    }
}

fn document_for(value: &Value, seed: u64) -> Value {
    let mut defs = Map::new();
    let schema = schema_for(value, &mut Dice(seed | 1), &mut defs);
    json!({"allOf": [schema], "$defs": defs})
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// The other way round, and much sharper: two schemas that accept the same value never exclude each other, nor do the
    /// members of the value.
    #[test]
    fn schemas_with_a_common_value_do_not_exclude_each_other(value in instance(), seeds in any::<(u64, u64)>()) {
        let (a, b) = (document_for(&value, seeds.0), document_for(&value, seeds.1));
        for schema in [&a, &b] {
            prop_assert!(Validator::compile(schema).is_ok_and(|validator| validator.is_valid(&value)), "{} is not {}", value, schema);
        }
        prop_assert_eq!(excluded(&a, &b), None, "{} is of {} and {}", &value, &a, &b);
        let (a, b) = (Shape::of(&a), Shape::of(&b));
        for name in ["a", "b", "c"] {
            match (value.get(name), a.member(name), b.member(name)) {
                (Some(_), Step::To { shape: a, .. }, Step::To { shape: b, .. }) => prop_assert_eq!(a.excludes(&b), None),
                (Some(_), _, _) => prop_assert!(false, "{} has {}", value, name),
                (None, Step::To { certain, .. }, _) => prop_assert!(!certain),
                (None, Step::Never(_), _) => {}
            }
        }
        for index in 0..value.as_array().map_or(0, Vec::len) {
            match (a.element(index), b.element(index)) {
                (Step::To { shape: a, .. }, Step::To { shape: b, .. }) => prop_assert_eq!(a.excludes(&b), None),
                _ => prop_assert!(false, "{} has {}", value, index),
            }
        }
    }
}
