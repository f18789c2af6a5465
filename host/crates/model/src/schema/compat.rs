//! Can what one schema describes be what another one accepts? Only certain answers count: "never" is said only where no value
//! can match both, and everything that is not understood is ignored, which can only make a schema wider.
//!
//! A schema becomes alternatives (from `anyOf`, `oneOf`) of parts that must all hold (from `allOf`, local `$ref`). Two
//! schemas exclude each other if every pair of alternatives does: by type, by closed sets of values, by number ranges, or by
//! a required property that is forbidden or excluded in turn.

use std::cell::Cell;
use std::collections::HashSet;
use std::rc::Rc;

use serde_json::{Map, Value};

/// More alternatives are not told apart: the `anyOf` is ignored then.
const MAX_ALTERNATIVES: usize = 32;
/// How deep properties of properties are compared.
const MAX_DEPTH: usize = 8;
/// How many `$ref`, `allOf` and `anyOf` are followed in a row.
const MAX_HOPS: usize = 16;
/// Parts that are looked at or copied in all, for one shape and everything that is asked of it: schemas come from components, and
/// few bytes of references can stand for very many schemas.
const MAX_STEPS: usize = 200_000;

/// What a value can be: at least all that its schemas accept.
#[derive(Clone, Debug)]
pub struct Shape<'s> {
    alternatives: Vec<Vec<Part<'s>>>,
    budget: Budget,
}

/// The rest of [`MAX_STEPS`], and of the budget of whoever asks. Where it is used up, schemas count as accepting anything, and
/// what was found out so far counts as nothing.
#[derive(Clone, Debug)]
struct Budget(Rc<Cell<usize>>);

impl Budget {
    fn new() -> Self {
        Self(Rc::new(Cell::new(MAX_STEPS)))
    }

    fn spend(&self, steps: usize) -> bool {
        let left = self.0.get().checked_sub(steps);
        let paid = left.is_some() && crate::budget::spend(4 * steps as u64).is_ok();
        self.0.set(left.filter(|_| paid).unwrap_or(0));
        paid
    }

    /// Tells that it is used up.
    fn is_done(&self) -> bool {
        self.0.get() == 0
    }
}

/// Counts the parts of alternatives.
fn parts_of(alternatives: &[Vec<Part<'_>>]) -> usize {
    alternatives.iter().map(|parts| 1 + parts.len()).sum()
}

/// A schema object without what was followed already, and the document that its references refer to.
#[derive(Clone, Copy, Debug)]
struct Part<'s> {
    root: &'s Value,
    schema: Schema<'s>,
    /// The types that it accepts.
    types: u8,
}

#[derive(Clone, Copy, Debug)]
enum Schema<'s> {
    Never,
    Object(&'s Map<String, Value>),
}

/// Where one step of a path leads.
#[derive(Clone, Debug)]
pub enum Step<'s> {
    /// Nowhere, for any value that the schema accepts; the reason says why.
    Never(String),
    /// To a value of this shape. `certain` says whether every value has one there.
    To {
        /// What is there.
        shape: Shape<'s>,
        /// Whether it is always there.
        certain: bool,
    },
}

const NULL: u8 = 1;
const BOOLEAN: u8 = 2;
const NUMBER: u8 = 4;
const STRING: u8 = 8;
const ARRAY: u8 = 16;
const OBJECT: u8 = 32;
const ANY: u8 = 63;

impl<'s> Shape<'s> {
    /// What a schema accepts.
    pub fn of(schema: &'s Value) -> Self {
        let budget = Budget::new();
        Self {
            alternatives: expand(schema, schema, 0, &budget),
            budget,
        }
    }

    /// The same shape for another question: what was asked before does not count.
    #[must_use]
    pub fn afresh(&self) -> Self {
        Self {
            alternatives: self.alternatives.clone(),
            budget: Budget::new(),
        }
    }

    /// Values of these shapes at once.
    fn both(&self, other: &Self) -> Self {
        let (mine, theirs) = (&self.alternatives, &other.alternatives);
        let steps = parts_of(mine)
            .saturating_mul(theirs.len())
            .saturating_add(parts_of(theirs).saturating_mul(mine.len()));
        let mut alternatives = Vec::new();
        if self.budget.spend(steps) {
            for a in mine {
                for b in theirs {
                    alternatives.push(a.iter().chain(b).copied().collect());
                }
            }
        } else {
            alternatives.push(Vec::new());
        }
        Self {
            alternatives,
            budget: self.budget.clone(),
        }
    }

    /// Whether some value is a list or an object: what can be mapped over.
    pub fn has_elements(&self) -> bool {
        self.types() & (ARRAY | OBJECT) != 0
    }

    /// Whether some value is an object.
    pub fn has_members(&self) -> bool {
        self.types() & OBJECT != 0
    }

    /// Whether every value is a list.
    pub fn is_list(&self) -> bool {
        self.types() == ARRAY
    }

    /// Why values of both shapes are empty lists at some place: where it is, and why no element fits. Values that are not lists
    /// for certain are not judged.
    pub fn only_empty(&self, other: &Self) -> Option<(String, String)> {
        self.only_empty_within(other, 0)
    }

    fn only_empty_within(&self, other: &Self, depth: usize) -> Option<(String, String)> {
        if depth > MAX_DEPTH || !self.budget.spend(1) {
            return None;
        }
        if self.types() == ARRAY && other.types() & ARRAY != 0 {
            let (Step::To { shape: given, .. }, Step::To { shape: wanted, .. }) = (self.element(0), other.element(0))
            else {
                return None;
            };
            if given.types() == 0 || wanted.types() == 0 {
                return None;
            }
            if let Some(why) = given.excludes(&wanted) {
                return Some((String::new(), why));
            }
            return given
                .only_empty_within(&wanted, depth + 1)
                .map(|(path, why)| (format!("[0]{path}"), why));
        }
        if self.types() == OBJECT && other.types() & OBJECT != 0 {
            return self
                .declared()
                .into_iter()
                .take_while(|_| self.budget.spend(parts_of(&self.alternatives)))
                .filter(|name| other.declares(name))
                .find_map(|name| match (self.member(name), other.member(name)) {
                    (
                        Step::To {
                            shape: given,
                            certain: true,
                        },
                        Step::To { shape: wanted, .. },
                    ) => given
                        .only_empty_within(&wanted, depth + 1)
                        .map(|(path, why)| (format!(".{name}{path}"), why)),
                    _ => None,
                });
        }
        None
    }

    /// The names of the members that any schema declares.
    pub fn declared(&self) -> Vec<&'s str> {
        let mut seen: HashSet<&'s str> = HashSet::new();
        let parts = self.alternatives.iter().flatten();
        let declared = parts.filter_map(|part| part.keyword("properties").and_then(Value::as_object));
        let names = declared.flat_map(Map::keys).map(String::as_str);
        names.filter(|name| seen.insert(name)).collect()
    }

    /// Whether some schema says what members beside those that it declares may be, even that there may be none.
    pub fn says_of_others(&self) -> bool {
        const WORDS: [&str; 4] = [
            "additionalProperties",
            "patternProperties",
            "unevaluatedProperties",
            "propertyNames",
        ];
        let mut parts = self.alternatives.iter().flatten();
        parts.any(|part| WORDS.iter().any(|word| part.keyword(word).is_some()))
    }

    /// The first text that says what values are for.
    pub fn description(&self) -> Option<&'s str> {
        let mut parts = self.alternatives.iter().flatten();
        parts.find_map(|part| part.keyword("description").and_then(Value::as_str))
    }

    /// Whether the only value is `null`.
    pub fn only_null(&self) -> bool {
        self.types() == NULL
    }

    /// Names of the types that a value can have, for people.
    pub fn describe(&self) -> String {
        describe(self.types())
    }

    fn types(&self) -> u8 {
        self.budget.spend(parts_of(&self.alternatives));
        self.alternatives.iter().fold(0, |types, parts| types | types_of(parts))
    }

    /// Why no value can be of both shapes; nothing if one could.
    pub fn excludes(&self, other: &Self) -> Option<String> {
        if !never(&self.both(other), 0) || self.budget.is_done() {
            return None;
        }
        Some(self.reason(other, 0))
    }

    /// The reason of an exclusion, in the words of the first level where it shows.
    fn reason(&self, other: &Self, depth: usize) -> String {
        let (mine, theirs) = (self.types(), other.types());
        if mine & theirs == 0 {
            return format!("{} is not {}", describe(mine), describe(theirs));
        }
        let mut known: HashSet<&String> = HashSet::new();
        let parts = self.alternatives.iter().chain(&other.alternatives).flatten();
        for name in parts.flat_map(required).filter(|name| known.insert(name)) {
            if !self.budget.spend(1) {
                break;
            }
            match (self.member(name), other.member(name)) {
                (Step::Never(why), _) | (_, Step::Never(why)) => return why,
                (Step::To { shape: a, .. }, Step::To { shape: b, .. }) => {
                    if depth < MAX_DEPTH && never(&a.both(&b), 0) {
                        return format!("`{name}`: {}", a.reason(&b, depth + 1));
                    }
                }
            }
        }
        "no value matches both schemas".to_owned()
    }

    /// The member `name` of an object.
    pub fn member(&self, name: &str) -> Step<'s> {
        self.sure(self.member_there(name))
    }

    /// The step that was found out, while there was something left to find it out with.
    fn sure(&self, step: Step<'s>) -> Step<'s> {
        if self.budget.is_done() {
            return Step::To {
                shape: self.with(vec![Vec::new()]),
                certain: true,
            };
        }
        step
    }

    fn member_there(&self, name: &str) -> Step<'s> {
        if self.types() & OBJECT == 0 {
            return Step::Never(format!("{} has no member `{name}`", self.describe()));
        }
        let mut shapes: Vec<Vec<Part<'s>>> = Vec::new();
        let mut certain = true;
        for parts in self.alternatives.iter().filter(|parts| types_of(parts) & OBJECT != 0) {
            let demanded: usize = parts.iter().map(|part| 1 + required(part).count()).sum();
            if !self.budget.spend(demanded) {
                break;
            }
            match member_of(parts, name, &self.budget) {
                Some(shape) => {
                    certain &=
                        types_of(parts) == OBJECT && parts.iter().any(|part| required(part).any(|known| known == name));
                    shapes.extend(shape.alternatives);
                }
                None => certain = false,
            }
        }
        if shapes.is_empty() {
            return Step::Never(format!("there is no `{name}`"));
        }
        certain &= self.types() == OBJECT;
        Step::To {
            shape: self.with(shapes),
            certain,
        }
    }

    /// The element `index` of an array.
    pub fn element(&self, index: usize) -> Step<'s> {
        self.sure(self.element_there(index))
    }

    fn element_there(&self, index: usize) -> Step<'s> {
        if self.types() & ARRAY == 0 {
            return Step::Never(format!("{} has no element {index}", self.describe()));
        }
        let mut shapes: Vec<Vec<Part<'s>>> = Vec::new();
        for parts in self.alternatives.iter().filter(|parts| types_of(parts) & ARRAY != 0) {
            if let Some(shape) = element_of(parts, index, &self.budget) {
                shapes.extend(shape.alternatives);
            }
        }
        if shapes.is_empty() {
            return Step::Never(format!("there is no element {index}"));
        }
        Step::To {
            shape: self.with(shapes),
            certain: false,
        }
    }

    /// Names of members that `other` demands, and that values of this shape may lack although they are declared.
    pub fn may_lack(&self, other: &Self) -> Vec<String> {
        let ([theirs], OBJECT) = (other.alternatives.as_slice(), self.types()) else {
            return Vec::new();
        };
        let mut known: HashSet<&String> = HashSet::new();
        let mut names: Vec<String> = Vec::new();
        for name in theirs.iter().flat_map(required).filter(|name| known.insert(name)) {
            if !self.budget.spend(parts_of(&self.alternatives)) {
                break;
            }
            if self.declares(name) && matches!(self.member(name), Step::To { certain: false, .. }) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Whether any schema declares a member of that name.
    pub fn declares(&self, name: &str) -> bool {
        self.alternatives.iter().flatten().any(|part| {
            part.keyword("properties")
                .and_then(Value::as_object)
                .is_some_and(|all| all.contains_key(name))
        })
    }

    /// Other alternatives; too many of them become one that accepts anything.
    fn with(&self, mut alternatives: Vec<Vec<Part<'s>>>) -> Self {
        if alternatives.len() > MAX_ALTERNATIVES {
            alternatives = vec![Vec::new()];
        }
        Self {
            alternatives,
            budget: self.budget.clone(),
        }
    }
}

impl<'s> Part<'s> {
    fn keyword(&self, name: &str) -> Option<&'s Value> {
        match self.schema {
            Schema::Never => None,
            Schema::Object(members) => members.get(name),
        }
    }
}

/// All members that a part demands.
fn required<'s>(part: &Part<'s>) -> impl Iterator<Item = &'s String> {
    part.keyword("required")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|name| match name {
            Value::String(name) => Some(name),
            _ => None,
        })
}

/// The schema as alternatives of parts.
fn expand<'s>(root: &'s Value, schema: &'s Value, hops: usize, budget: &Budget) -> Vec<Vec<Part<'s>>> {
    let anything = || vec![Vec::new()];
    let members = match schema {
        Value::Bool(false) => {
            return vec![vec![Part {
                root,
                schema: Schema::Never,
                types: 0,
            }]];
        }
        Value::Object(members) if hops < MAX_HOPS && budget.spend(1) => members,
        _ => return anything(),
    };
    // A nested `$id` starts another document, which local references would then refer to.
    if hops > 0 && members.contains_key("$id") {
        return anything();
    }
    let followed = members.get("$ref").and_then(Value::as_str).map(|reference| {
        reference
            .strip_prefix('#')
            // A percent-encoded pointer leads nowhere here, and is ignored.
            .and_then(|pointer| root.pointer(pointer))
            .map_or_else(anything, |target| expand(root, target, hops + 1, budget))
    });
    if let Some(followed) = &followed
        && old_draft(root)
    {
        return followed.clone();
    }
    let mut alternatives = vec![vec![Part {
        root,
        schema: Schema::Object(members),
        types: types_of_schema(members, budget),
    }]];
    if let Some(followed) = followed {
        alternatives = product(alternatives, followed, budget);
    }
    for part in members.get("allOf").and_then(Value::as_array).into_iter().flatten() {
        if budget.is_done() {
            return anything();
        }
        alternatives = product(alternatives, expand(root, part, hops + 1, budget), budget);
    }
    for word in ["anyOf", "oneOf"] {
        if let Some(branches) = members.get(word).and_then(Value::as_array)
            && !branches.is_empty()
        {
            let branches = branches
                .iter()
                .take_while(|_| !budget.is_done())
                .flat_map(|branch| expand(root, branch, hops + 1, budget))
                .collect();
            if budget.is_done() {
                return anything();
            }
            alternatives = product(alternatives, branches, budget);
        }
    }
    alternatives
}

/// Both at once; the second is ignored where that gives too many alternatives.
fn product<'s>(mut a: Vec<Vec<Part<'s>>>, b: Vec<Vec<Part<'s>>>, budget: &Budget) -> Vec<Vec<Part<'s>>> {
    if a.len().saturating_mul(b.len()) > MAX_ALTERNATIVES {
        return a;
    }
    if let [only] = b.as_slice() {
        // In place: a schema may have thousands of parts, one after the other.
        if budget.spend(a.len().saturating_mul(1 + only.len())) {
            for left in &mut a {
                left.extend_from_slice(only);
            }
        }
        return a;
    }
    let copied = parts_of(&a).saturating_mul(b.len()) + parts_of(&b).saturating_mul(a.len());
    if !budget.spend(copied) {
        return a;
    }
    a.iter()
        .flat_map(|left| b.iter().map(move |right| left.iter().chain(right).copied().collect()))
        .collect()
}

/// In drafts up to 7, `$ref` hides what stands beside it.
fn old_draft(root: &Value) -> bool {
    root.get("$schema").and_then(Value::as_str).is_some_and(|draft| {
        ["draft-03", "draft-04", "draft-06", "draft-07"]
            .iter()
            .any(|old| draft.contains(old))
    })
}

fn types_of(parts: &[Part<'_>]) -> u8 {
    parts.iter().fold(ANY, |types, part| types & part.types)
}

fn types_of_schema(members: &Map<String, Value>, budget: &Budget) -> u8 {
    let mut types = match members.get("type") {
        Some(Value::String(name)) => type_bit(name),
        Some(Value::Array(names)) => names
            .iter()
            .fold(0, |types, name| types | name.as_str().map_or(ANY, type_bit)),
        _ => ANY,
    };
    if let Some(value) = members.get("const") {
        types &= bit_of(value);
    }
    if let Some(Value::Array(values)) = members.get("enum") {
        budget.spend(values.len() / 4);
        types &= values.iter().fold(0, |types, value| types | bit_of(value));
    }
    types
}

fn type_bit(name: &str) -> u8 {
    match name {
        "null" => NULL,
        "boolean" => BOOLEAN,
        "number" | "integer" => NUMBER,
        "string" => STRING,
        "array" => ARRAY,
        "object" => OBJECT,
        _ => ANY,
    }
}

const fn bit_of(value: &Value) -> u8 {
    match value {
        Value::Null => NULL,
        Value::Bool(_) => BOOLEAN,
        Value::Number(_) => NUMBER,
        Value::String(_) => STRING,
        Value::Array(_) => ARRAY,
        Value::Object(_) => OBJECT,
    }
}

fn describe(types: u8) -> String {
    if types == ANY {
        return "any value".to_owned();
    }
    let names: Vec<&str> = [
        (NULL, "null"),
        (BOOLEAN, "a boolean"),
        (NUMBER, "a number"),
        (STRING, "a string"),
        (ARRAY, "an array"),
        (OBJECT, "an object"),
    ]
    .into_iter()
    .filter(|(bit, _)| types & bit != 0)
    .map(|(_, name)| name)
    .collect();
    match names.as_slice() {
        [] => "nothing".to_owned(),
        names => names.join(" or "),
    }
}

/// Whether no value is of the shape.
fn never(shape: &Shape<'_>, depth: usize) -> bool {
    shape
        .alternatives
        .iter()
        .all(|parts| never_parts(parts, depth, &shape.budget))
}

fn never_parts(parts: &[Part<'_>], depth: usize, budget: &Budget) -> bool {
    if depth > MAX_DEPTH || !budget.spend(1 + parts.len()) {
        return false;
    }
    let types = types_of(parts);
    if types == 0 || no_common_value(parts, types, budget) {
        return true;
    }
    match types {
        NUMBER => empty_range(parts),
        OBJECT => parts
            .iter()
            .flat_map(required)
            .take_while(|_| budget.spend(1))
            .any(|name| match member_of(parts, name, budget) {
                None => true,
                Some(member) => never(&member, depth + 1),
            }),
        ARRAY => {
            let at_least = parts
                .iter()
                .filter_map(|part| part.keyword("minItems").and_then(Value::as_u64))
                .max();
            at_least.is_some_and(|count| count > 0)
                && element_of(parts, 0, budget).is_none_or(|first| never(&first, depth + 1))
        }
        _ => false,
    }
}

/// Whether closed sets of values have nothing in common, given the types that are left.
fn no_common_value(parts: &[Part<'_>], types: u8, budget: &Budget) -> bool {
    let mut sets = parts.iter().flat_map(|part| {
        let one = part.keyword("const").map(std::slice::from_ref);
        let many = part.keyword("enum").and_then(Value::as_array).map(Vec::as_slice);
        [one, many].into_iter().flatten()
    });
    let Some(first) = sets.next() else {
        return false;
    };
    let mut left: Vec<&Value> = first.iter().filter(|value| bit_of(value) & types != 0).collect();
    for set in sets {
        // Most values differ in their first bytes.
        if !budget.spend(left.len().saturating_mul(set.len()) / 4) {
            return false;
        }
        left.retain(|value| set.iter().any(|other| maybe_equal(value, other)));
    }
    left.is_empty()
}

/// Whether two JSON values may be equal: numbers by value, so that 1 equals 1.0.
fn maybe_equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| maybe_equal(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len()
                && a.iter()
                    .all(|(key, value)| b.get(key).is_some_and(|other| maybe_equal(value, other)))
        }
        _ => a == b,
    }
}

/// Whether the bounds leave no number. Rounding to 64-bit floats keeps the order, so "greater" is certain.
fn empty_range(parts: &[Part<'_>]) -> bool {
    let bounds = |word: &'static str| {
        parts
            .iter()
            .filter_map(move |part| part.keyword(word).and_then(Value::as_f64))
    };
    let low = bounds("minimum").chain(bounds("exclusiveMinimum")).reduce(f64::max);
    let high = bounds("maximum").chain(bounds("exclusiveMaximum")).reduce(f64::min);
    matches!((low, high), (Some(low), Some(high)) if low > high)
}

/// The shape of a member; nothing where the parts forbid it.
fn member_of<'s>(parts: &[Part<'s>], name: &str, budget: &Budget) -> Option<Shape<'s>> {
    let mut alternatives: Vec<Vec<Part<'s>>> = vec![Vec::new()];
    budget.spend(parts.len());
    for part in parts {
        if budget.is_done() {
            break;
        }
        let declared = part.keyword("properties").and_then(|all| all.get(name));
        let by_pattern = part
            .keyword("patternProperties")
            .and_then(Value::as_object)
            .is_some_and(|all| !all.is_empty());
        let schema = match (declared, part.keyword("additionalProperties")) {
            (Some(schema), _) => schema,
            (None, Some(schema)) if !by_pattern => schema,
            _ => continue,
        };
        if *schema == Value::Bool(false) {
            return None;
        }
        alternatives = product(alternatives, expand(part.root, schema, 1, budget), budget);
    }
    Some(Shape {
        alternatives,
        budget: budget.clone(),
    })
}

/// The shape of an element; nothing where the parts forbid it.
fn element_of<'s>(parts: &[Part<'s>], index: usize, budget: &Budget) -> Option<Shape<'s>> {
    let mut alternatives: Vec<Vec<Part<'s>>> = vec![Vec::new()];
    for part in parts {
        let most = part.keyword("maxItems").and_then(Value::as_u64);
        if most.is_some_and(|most| most <= index as u64) {
            return None;
        }
        // Tuples are written differently in different drafts; what is not the plain form is ignored.
        let schema = match (part.keyword("prefixItems"), part.keyword("items")) {
            (None, Some(schema @ (Value::Object(_) | Value::Bool(_)))) => schema,
            _ => continue,
        };
        if *schema == Value::Bool(false) {
            return None;
        }
        alternatives = product(alternatives, expand(part.root, schema, 1, budget), budget);
    }
    Some(Shape {
        alternatives,
        budget: budget.clone(),
    })
}

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod tests;
