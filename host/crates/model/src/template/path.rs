//! Paths into JSON text, followed without building a tree: what they lead to is a slice of the text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Segment {
    /// A member of an object.
    Key(String),
    /// An element of an array.
    Index(usize),
}

/// A path for people: `.rows[0]`.
pub(crate) fn show(path: &[Segment]) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Key(key) if !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || c == '_') => {
                format!(".{key}")
            }
            Segment::Key(key) => format!("[{}]", Value::from(key.as_str())),
            Segment::Index(index) => format!("[{index}]"),
        })
        .collect()
}

/// What the path leads to, as text; nothing if it leads nowhere. The text must be JSON.
pub fn follow<'a>(mut text: &'a str, path: &[Segment]) -> Option<&'a str> {
    for segment in path {
        text = step(text, segment)?;
    }
    Some(text)
}

fn step<'a>(text: &'a str, segment: &Segment) -> Option<&'a str> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let found: Option<&'a RawValue> = match segment {
        Segment::Key(key) => deserializer.deserialize_map(Member(key)).ok()?,
        Segment::Index(index) => deserializer.deserialize_seq(Element(*index)).ok()?,
    };
    found.map(RawValue::get)
}

struct Member<'k>(&'k str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key::<Key<'de>>()? {
            if key.0 == self.0 {
                found = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

struct Element(usize);

impl<'de> Visitor<'de> for Element {
    type Value = Option<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        let mut at = 0;
        while let Some(item) = seq.next_element::<&'de RawValue>()? {
            if at == self.0 {
                found = Some(item);
            }
            at += 1;
        }
        Ok(found)
    }
}

/// What the path leads to in a tree.
pub fn follow_value<'a>(mut value: &'a Value, path: &[Segment]) -> Option<&'a Value> {
    for segment in path {
        value = match segment {
            Segment::Key(key) => value.as_object()?.get(key)?,
            Segment::Index(index) => value.as_array()?.get(*index)?,
        };
    }
    Some(value)
}
