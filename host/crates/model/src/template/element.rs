//! Lists and objects that are mapped over, as JSON texts: their length, and their elements digit for digit.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::path::{Segment, follow};

/// Why something cannot be mapped over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ElementError {
    /// The path leads nowhere.
    #[error("it is not there")]
    Missing,
    /// Airflow: `UnmappableXComTypePushed`.
    #[error("it is neither a list nor an object")]
    NotMappable,
}

/// How many elements the list, or members the object, at a path has.
pub fn mapped_length(text: &str, path: &[Segment]) -> Result<usize, ElementError> {
    split(text, path).map(|elements| elements.len())
}

/// The elements of the list at a path; of an object its members as `[key, value]` (Airflow: the items of a dictionary).
pub fn split(text: &str, path: &[Segment]) -> Result<Vec<String>, ElementError> {
    let text = follow(text, path).ok_or(ElementError::Missing)?;
    match text.trim_start().as_bytes().first() {
        Some(b'[') => {
            let elements = Vec::<&RawValue>::deserialize(&mut serde_json::Deserializer::from_str(text));
            let elements = elements.map_err(|_| ElementError::NotMappable)?;
            Ok(elements.into_iter().map(|element| element.get().to_owned()).collect())
        }
        Some(b'{') => {
            let members: Members<'_> = serde_json::from_str(text).map_err(|_| ElementError::NotMappable)?;
            Ok(members.0)
        }
        _ => Err(ElementError::NotMappable),
    }
}

struct Members<'a>(Vec<String>, std::marker::PhantomData<&'a ()>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    let key = serde_json::Value::from(key);
                    members.push(format!("[{key},{}]", value.get()));
                }
                Ok(Members(members, std::marker::PhantomData))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// An object's text with more members behind its own.
pub fn with_members(object: &str, members: &str) -> Option<String> {
    let inner = |text: &str| {
        let text = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim().to_owned();
        Some(text)
    };
    let (first, second) = (inner(object)?, inner(members)?);
    let comma = if first.is_empty() || second.is_empty() { "" } else { "," };
    Some(format!("{{{first}{comma}{second}}}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_arrive_digit_for_digit() {
        let text = r#"{"rows": [1.10, {"a": [2]}, "x"], "by_name": {"a": 1, "b": [2.50]}}"#;
        let path = |key: &str| [Segment::Key(key.to_owned())];
        assert_eq!(split(text, &path("rows")).unwrap(), ["1.10", r#"{"a": [2]}"#, "\"x\""]);
        assert_eq!(
            split(text, &path("by_name")).unwrap(),
            [r#"["a",1]"#, r#"["b",[2.50]]"#]
        );
        assert_eq!(mapped_length(text, &path("rows")), Ok(3));
        assert_eq!(split(text, &path("none")), Err(ElementError::Missing));
        assert_eq!(split("7", &[]), Err(ElementError::NotMappable));
        assert_eq!(split("[]", &[]), Ok(Vec::new()));
    }

    #[test]
    fn members_are_put_behind_members() {
        assert_eq!(with_members("{}", r#"{"a":1}"#).unwrap(), r#"{"a":1}"#);
        assert_eq!(with_members(r#"{"b": 2 }"#, r#"{"a":1}"#).unwrap(), r#"{"b": 2,"a":1}"#);
        assert_eq!(with_members(r#"{"b":2}"#, "{}").unwrap(), r#"{"b":2}"#);
        assert_eq!(with_members("[]", "{}"), None);
    }
}
