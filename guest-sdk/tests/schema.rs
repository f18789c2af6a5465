//! Whatever a type serializes to fits the schema of its output, and closed is what can be closed.

use std::collections::{BTreeMap, HashMap};

use airtight_sdk::prelude::*;
use airtight_sdk::{TaskOutput, testing};
use serde_json::Value;

#[data]
struct Point {
    x: f64,
    y: Option<f64>,
}

#[data]
struct Named {
    name: String,
    #[serde(flatten)]
    point: Point,
}

#[data]
struct Extensible {
    known: u8,
    #[serde(flatten)]
    others: HashMap<String, u8>,
}

#[data]
struct Anything {
    known: u8,
    #[serde(flatten)]
    others: Value,
}

#[data]
struct MaybeFlat {
    known: u8,
    #[serde(flatten)]
    point: Option<Point>,
}

#[data]
struct FlatEnum {
    known: u8,
    #[serde(flatten)]
    shape: Internal,
}

#[data]
enum External {
    Unit,
    New(Point),
    Struct { point: Point },
}

#[data]
#[serde(tag = "kind")]
enum Internal {
    Unit,
    New(Point),
    Struct { point: Point },
}

#[data]
#[serde(tag = "kind", content = "value")]
enum Adjacent {
    New(Point),
    Struct { point: Point },
}

#[data]
#[serde(untagged)]
enum Untagged {
    Number(f64),
    New(Point),
    Struct { point: Box<Point> },
}

#[data]
struct Tree {
    name: String,
    children: Vec<Tree>,
}

#[data]
struct Deep {
    points: Vec<Point>,
    pair: (Point, u8),
    by_name: BTreeMap<String, Point>,
    blob: Option<Blob>,
    tree: Option<Tree>,
}

#[data]
struct Wrapper(Point);

fn point() -> Point {
    Point { x: 1.0, y: None }
}

#[track_caller]
fn fits<T: TaskOutput + serde::Serialize>(value: T) -> Value {
    let schema = T::schema();
    let value = serde_json::to_value(value).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    if let Err(error) = validator.validate(&value) {
        panic!("{value} does not fit {schema:#}: {error}");
    }
    schema
}

#[test]
fn what_is_serialized_fits() {
    fits(point());
    fits(Named {
        name: "a".into(),
        point: point(),
    });
    fits(Extensible {
        known: 1,
        others: HashMap::from([("b".into(), 2)]),
    });
    fits(Anything {
        known: 1,
        others: json!({"b": [1]}),
    });
    fits(MaybeFlat {
        known: 1,
        point: Some(point()),
    });
    fits(MaybeFlat { known: 1, point: None });
    fits(FlatEnum {
        known: 1,
        shape: Internal::Unit,
    });
    fits(FlatEnum {
        known: 1,
        shape: Internal::New(point()),
    });
    fits(FlatEnum {
        known: 1,
        shape: Internal::Struct { point: point() },
    });
    fits(External::Unit);
    fits(External::New(point()));
    fits(External::Struct { point: point() });
    fits(Internal::Unit);
    fits(Internal::New(point()));
    fits(Internal::Struct { point: point() });
    fits(Adjacent::New(point()));
    fits(Adjacent::Struct { point: point() });
    fits(Untagged::Number(1.0));
    fits(Untagged::New(point()));
    fits(Untagged::Struct {
        point: Box::new(point()),
    });
    fits(Wrapper(point()));
    fits(vec![Some(point()), None]);
    fits(json!({"a": 1}));
    let tree = Tree {
        name: "a".into(),
        children: vec![Tree {
            name: "b".into(),
            children: vec![],
        }],
    };
    let blob = Blob::from_bytes("x", None).unwrap();
    fits(Deep {
        points: vec![point()],
        pair: (point(), 1),
        by_name: BTreeMap::from([("a".into(), point())]),
        blob: Some(blob),
        tree: Some(tree),
    });
}

#[test]
fn what_can_be_closed_is_closed() {
    assert_eq!(fits(point())["additionalProperties"], false);
    let named = fits(Named {
        name: "a".into(),
        point: point(),
    });
    assert_eq!(named["additionalProperties"], false, "{named:#}");
    let points = fits(vec![point()]);
    assert_eq!(points["$defs"]["Point"]["additionalProperties"], false, "{points:#}");
    let tree = fits(Tree {
        name: "a".into(),
        children: vec![],
    });
    assert_eq!(tree["additionalProperties"], false, "{tree:#}");
}

#[test]
fn what_shares_a_value_stays_open() {
    // The tag stands beside the members of `Point`.
    let internal = fits(Internal::New(point()));
    assert!(internal["$defs"]["Point"].get("additionalProperties").is_none() || internal.get("$defs").is_none());
    let extensible = fits(Extensible {
        known: 1,
        others: HashMap::new(),
    });
    assert_ne!(extensible["additionalProperties"], false, "{extensible:#}");
}

/// Takes anything.
#[task]
fn takes(input: Point) -> f64 {
    input.x
}

#[test]
fn inputs_stay_open() {
    let describe = testing::describe();
    let input = &describe["tasks"][0]["input"];
    assert!(input.get("additionalProperties").is_none(), "{input:#}");
    assert_eq!(input["required"], json!(["x"]));
}
