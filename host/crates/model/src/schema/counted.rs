//! JSON values that count how they are looked at. The engine for JSON Schema reaches a value only through this, so whatever a schema
//! makes of it, branches times members times references, costs the budget what it costs the thread.
//!
//! The engine cannot be told to stop. What runs out unwinds it instead, up to [`run`]: nothing of a validation is kept.

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use jsonschema::json::{Array, Json, Node, NodeIdentity, Object, cmp};
use jsonschema::types::JsonType;
use serde_json::{Map, Number, Value};

use crate::budget::{self, Exhausted};

/// The size of an error beside the value that it is about.
const ERROR_BYTES: u64 = 512;
/// Longer lists are compared by their elements' texts, not each element with each.
const PAIRWISE: usize = 15;

/// Additions of a schema to the cost of a look.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weights {
    /// To any: what the engine may do without looking at the value again.
    pub(super) look: u64,
    /// To each 16 bytes of a text: its patterns.
    pub(super) text: u64,
    /// To each 16 bytes of a member's name: patterns of names.
    pub(super) name: u64,
    /// To each error, in bytes: what it quotes of the schema.
    pub(super) error: u64,
}

thread_local! {
    static WEIGHTS: Cell<Weights> = const { Cell::new(Weights { look: 0, text: 0, name: 0, error: 0 }) };
}

/// The payload that unwinds the engine.
struct Out(Exhausted);

/// Runs the engine; answers why it had to be ended.
pub(super) fn run<T>(weights: Weights, work: impl FnOnce() -> T) -> Result<T, Exhausted> {
    let before = WEIGHTS.replace(weights);
    // The engine's state is made for the call and lost with it.
    let done = catch_unwind(AssertUnwindSafe(work));
    WEIGHTS.set(before);
    done.map_err(|payload| match payload.downcast::<Out>() {
        Ok(out) => out.0,
        Err(panic) => resume_unwind(panic),
    })
}

fn or_out(done: Result<(), Exhausted>) {
    if let Err(why) = done {
        // No hook is called and nothing is printed: nobody panicked.
        resume_unwind(Box::new(Out(why)));
    }
}

fn spend(steps: u64) {
    or_out(budget::spend(steps));
}

fn look() {
    spend(1 + WEIGHTS.get().look);
}

/// Sixteenths of a text, at least one.
fn sixteenths(text: &str) -> u64 {
    1 + text.len() as u64 / 16
}

/// The representation, for the engine.
pub(super) struct Counted;

/// One value.
#[derive(Clone, Copy)]
pub(super) struct CountedNode<'a>(pub(super) &'a Value);

impl Json for Counted {
    type Node<'a> = CountedNode<'a>;
    type PreparedKey = String;
    type StringBuffer = Value;

    fn prepare_key(key: &str) -> String {
        key.to_owned()
    }

    fn with_string_node<T>(buffer: &mut Value, string: &str, f: impl FnOnce(CountedNode<'_>) -> T) -> T {
        spend(sixteenths(string));
        match buffer {
            Value::String(known) => string.clone_into(known),
            _ => *buffer = Value::String(string.to_owned()),
        }
        f(CountedNode(buffer))
    }
}

impl<'a> Node<'a, Counted> for CountedNode<'a> {
    type Object = CountedObject<'a>;
    type Array = CountedArray<'a>;
    type Number = &'a Number;

    fn as_object(&self) -> Option<CountedObject<'a>> {
        look();
        self.0.as_object().map(CountedObject)
    }

    fn as_array(&self) -> Option<CountedArray<'a>> {
        look();
        self.0.as_array().map(|items| CountedArray(items))
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        look();
        let text = self.0.as_str()?;
        spend(sixteenths(text).saturating_mul(1 + WEIGHTS.get().text));
        Some(Cow::Borrowed(text))
    }

    fn as_number(&self) -> Option<&'a Number> {
        look();
        self.0.as_number()
    }

    fn as_boolean(&self) -> Option<bool> {
        look();
        self.0.as_bool()
    }

    fn is_null(&self) -> bool {
        look();
        self.0.is_null()
    }

    fn json_type(&self) -> JsonType {
        look();
        match self.0 {
            Value::Null => JsonType::Null,
            Value::Bool(_) => JsonType::Boolean,
            Value::Number(_) => JsonType::Number,
            Value::String(_) => JsonType::String,
            Value::Array(_) => JsonType::Array,
            Value::Object(_) => JsonType::Object,
        }
    }

    fn string_length(&self) -> Option<u64> {
        look();
        let text = self.0.as_str()?;
        spend(sixteenths(text));
        Some(text.chars().count() as u64)
    }

    fn equals_value(&self, expected: &Value) -> bool {
        equal(self.0, expected)
    }

    fn to_value(&self) -> Cow<'a, Value> {
        // For errors only: they are what grows.
        or_out(budget::grow(ERROR_BYTES + WEIGHTS.get().error));
        Cow::Borrowed(self.0)
    }

    fn identity(&self) -> Option<NodeIdentity> {
        look();
        // References ask for it, and nothing else makes a schema deep.
        or_out(budget::deeper());
        Some(NodeIdentity::new(std::ptr::from_ref(self.0).addr()))
    }
}

/// Compares two values as JSON Schema does; looks at no more than both have in common.
fn equal(a: &Value, b: &Value) -> bool {
    look();
    match (a, b) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, value)| {
                    spend(sixteenths(key));
                    b.get(key).is_some_and(|other| equal(value, other))
                })
        }
        (Value::String(a), Value::String(b)) => {
            spend(sixteenths(a));
            a == b
        }
        (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => false,
        _ => cmp::equal(a, b),
    }
}

/// An object.
#[derive(Clone, Copy)]
pub(super) struct CountedObject<'a>(&'a Map<String, Value>);

impl<'a> Object<'a, Counted> for CountedObject<'a> {
    type Node = CountedNode<'a>;
    type MemberName = &'a str;
    type MembersIter = Members<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn get(&self, key: &String) -> Option<CountedNode<'a>> {
        look();
        self.0.get(key).map(CountedNode)
    }

    fn members(&self) -> Members<'a> {
        look();
        Members(self.0.iter())
    }
}

/// Members of an object.
pub(super) struct Members<'a>(serde_json::map::Iter<'a>);

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, CountedNode<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.0.next()?;
        look();
        spend(sixteenths(name).saturating_mul(1 + WEIGHTS.get().name));
        Some((name, CountedNode(value)))
    }
}

/// An array.
#[derive(Clone, Copy)]
pub(super) struct CountedArray<'a>(&'a [Value]);

impl<'a> Array<'a, Counted> for CountedArray<'a> {
    type Node = CountedNode<'a>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        self.0.len()
    }

    fn elements(&self) -> Elements<'a> {
        look();
        Elements(self.0.iter())
    }

    fn is_unique(&self) -> bool {
        let items = self.0;
        if items.len() <= PAIRWISE {
            return items
                .iter()
                .enumerate()
                .all(|(at, item)| !items.iter().take(at).any(|earlier| equal(item, earlier)));
        }
        // The engine's own hashes tell lists of lists apart only by what is in them: `[[]]` and `[[[]]]` would collide by the thousand.
        let mut seen = HashSet::with_capacity(items.len());
        items.iter().all(|item| {
            let mut text = String::new();
            canonical(item, &mut text);
            or_out(budget::grow(64 + text.len() as u64));
            seen.insert(text)
        })
    }
}

/// Elements of an array.
pub(super) struct Elements<'a>(std::slice::Iter<'a, Value>);

impl<'a> Iterator for Elements<'a> {
    type Item = CountedNode<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.0.next()?;
        look();
        Some(CountedNode(item))
    }
}

/// A text that is the same for equal values, and for no others.
fn canonical(value: &Value, out: &mut String) {
    spend(2);
    match value {
        Value::Number(number) => canonical_number(number, out),
        Value::Array(items) => {
            out.push('[');
            for item in items {
                canonical(item, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            spend(8 * sorted.len() as u64);
            sorted.sort_unstable_by_key(|(name, _)| *name);
            out.push('{');
            for (name, member) in sorted {
                spend(sixteenths(name));
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                canonical(member, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::String(text) => {
            spend(4 * sixteenths(text));
            out.push_str(&value.to_string());
        }
        Value::Null | Value::Bool(_) => out.push_str(&value.to_string()),
    }
}

/// Numbers are the same by value: `1` is `1.0`.
fn canonical_number(number: &Number, out: &mut String) {
    use std::fmt::Write as _;
    let _ = match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(number), ..) => write!(out, "{number}"),
        (_, Some(number), _) => write!(out, "{number}"),
        // Whole numbers are written whole.
        (.., Some(number)) if number == number.trunc() && number.abs() < 1e19 => write!(out, "{:.0}", number + 0.0),
        (.., Some(number)) => write!(out, "f{:x}", number.to_bits()),
        _ => write!(out, "{number}"),
    };
}

#[cfg(test)]
mod tests {
    use jsonschema::json::unique;
    use serde_json::json;

    use super::*;
    use crate::budget::{Budget, within};

    fn is_unique(items: &Value) -> bool {
        CountedArray(items.as_array().unwrap()).is_unique()
    }

    #[test]
    fn lists_are_unique_like_to_the_engine() {
        let long = |extra: Value| {
            let mut items: Vec<Value> = (0..20).map(|n| json!({"a": n, "b": [n]})).collect();
            items.push(extra);
            Value::Array(items)
        };
        for (items, expected) in [
            (json!([]), true),
            (json!([1, 1.0]), false),
            (json!([{"a": 1, "b": 2}, {"b": 2.0, "a": 1}]), false),
            (long(json!({"b": [3.0], "a": 3})), false),
            (long(json!({"b": [3.5], "a": 3})), true),
            (long(json!("3")), true),
            (long(json!([[], [[]]])), true),
        ] {
            assert_eq!(is_unique(&items), expected, "{items}");
            assert_eq!(unique::is_unique(items.as_array().unwrap()), expected, "{items}");
        }
        let zeros: Vec<Value> = (0..20).map(|n| json!(n)).chain([json!(-0.0)]).collect();
        assert!(!is_unique(&Value::Array(zeros)));
    }

    #[test]
    fn lists_that_hash_alike_cost_what_they_are_long() {
        // All binary trees of brackets: the engine's hash is the same for all.
        let mut trees = vec![json!([])];
        for at in 0..2_000 {
            let (left, right) = (at / 45 % trees.len(), at % 45 % trees.len());
            trees.push(json!([trees[left].clone(), trees[right].clone()]));
        }
        trees.dedup();
        let items = Value::Array(trees);
        let steps = within(Budget::new(50_000_000, 64 << 20), || {
            let before = budget::steps_left();
            run(Weights::default(), || is_unique(&items)).unwrap();
            before - budget::steps_left()
        });
        assert!(steps < 20 * items.to_string().len() as u64, "{steps}");
    }

    #[test]
    fn other_panics_pass() {
        let caught = catch_unwind(|| run(Weights::default(), || resume_unwind(Box::new(7_u8)))).unwrap_err();
        assert_eq!(caught.downcast_ref::<u8>(), Some(&7));
    }
}
