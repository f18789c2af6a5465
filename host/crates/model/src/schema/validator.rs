//! A compiled JSON Schema. A schema refers only to itself, is bounded in size, and its patterns run in linear time: it comes
//! from a component, so it must not be able to fetch, hang or fill memory. What checking a value against it may cost is bounded by a
//! [`Budget`](crate::budget::Budget), since references make few bytes of schema as large as the value is deep.

use std::fmt::Write as _;

use jsonschema::PatternOptions;
use serde_json::Value;

use super::counted::{Counted, CountedNode, Weights, run};
use super::patterns::{self, MAX_PATTERN_BYTES};
use super::unrolled;
use crate::budget::{self, Budget, Exhausted, within};
use crate::json::check_syntax;

/// The largest schema, in bytes of JSON text.
pub const MAX_SCHEMA_BYTES: usize = 64 << 10;

/// How many findings about one value are told; a person fixes no more at a time.
const MAX_FINDINGS: usize = 16;

/// How many characters of a finding are shown: it may quote the value.
const MAX_FINDING_CHARS: usize = 400;

/// Bounds of one validation: a value of 16 MiB against an ordinary schema takes a fraction of it.
const VALIDATION: Budget = Budget::new(100_000_000, 64 << 20);

/// Bounds of telling what is wrong. Beyond that it is only told that something is.
const FINDINGS: Budget = Budget::new(5_000_000, 16 << 20);

/// The longest text that the format `regex` accepts, in bytes.
const MAX_REGEX_TEXT: usize = 4 << 10;

/// A schema cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// It is over the limit.
    #[error("the schema has {size} bytes; the limit is {MAX_SCHEMA_BYTES} bytes")]
    TooLarge {
        /// What it has.
        size: usize,
    },
    /// It refers to another document.
    #[error("the schema refers to `{0}`; a schema can refer only to itself")]
    RemoteReference(String),
    /// It is not a JSON Schema, or has a pattern that cannot run in linear time.
    #[error("not a usable JSON Schema: {0}")]
    Invalid(String),
    /// A pattern is over the limit.
    #[error("a pattern of the schema has {size} bytes; the limit is 4096 bytes")]
    PatternTooLong {
        /// What it has.
        size: usize,
    },
    /// The automata of the patterns are over the limit.
    #[error(
        "the patterns of the schema are too large together: compiled, they may have 2 MiB; \
         `\\p{{…}}` and large repeats are what makes them large"
    )]
    PatternsTooLarge,
    /// References stand for very many schemas.
    #[error(
        "`unevaluatedProperties` and `unevaluatedItems` of the schema apply to more than {limit} schemas, counted along all ways through \
         references"
    )]
    TooManyCopies {
        /// The most.
        limit: usize,
    },
    /// Compiling it takes more than may be taken.
    #[error("the schema cannot be compiled: {0}")]
    TooCostly(Exhausted),
}

/// A compiled JSON Schema.
#[derive(Clone, Debug)]
pub struct Validator {
    compiled: jsonschema::Validator<Counted>,
    weights: Weights,
    bytes: usize,
    patterns_bytes: usize,
}

impl Validator {
    /// Compiles a schema.
    pub fn compile(schema: &Value) -> Result<Self, SchemaError> {
        let size = schema.to_string().len();
        if size > MAX_SCHEMA_BYTES {
            return Err(SchemaError::TooLarge { size });
        }
        if let Some(reference) = remote_reference(schema) {
            return Err(SchemaError::RemoteReference(reference));
        }
        budget::spend(64 * size as u64).map_err(SchemaError::TooCostly)?;
        unrolled::check(schema)?;
        let patterns = patterns::measure(schema)?;
        let compiled = jsonschema::options_for::<Counted>()
            .offline()
            .with_pattern_options(
                PatternOptions::regex()
                    .size_limit(MAX_PATTERN_BYTES)
                    .dfa_size_limit(patterns.cache_bytes()),
            )
            // The engine's own would build a tree of a text that anybody wrote.
            .with_format("regex", |text: &str| {
                text.len() <= MAX_REGEX_TEXT && jsonschema_regex::to_rust_regex(text).is_ok()
            })
            .with_content_media_type("application/json", |text| check_syntax(text, u64::MAX).is_ok())
            .build(schema)
            .map_err(|error| SchemaError::Invalid(shorten(&describe(&error))))?;
        Ok(Self {
            compiled,
            weights: Weights {
                look: branches(schema) / 16,
                text: 4 * patterns.states as u64,
                name: 4 * (patterns.name_states + patterns.count) as u64,
                // As a tree, a value has some times the bytes of its text.
                error: 16 * quoted(schema),
            },
            // Measured: nodes have some times the bytes of their text, automata some times those of their first form.
            patterns_bytes: patterns.bytes,
            bytes: 16 * size + 4 * patterns.bytes + patterns.count * patterns.cache_bytes(),
        })
    }

    /// About how much memory it holds, in bytes.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The size of the automata of its patterns, in bytes, in the form in which they are measured.
    pub const fn patterns_bytes(&self) -> usize {
        self.patterns_bytes
    }

    /// Tells that the value matches. One that would take too long to check does not.
    pub fn is_valid(&self, value: &Value) -> bool {
        self.check(value).is_ok_and(|findings| findings.is_empty())
    }

    /// What is wrong with the value, for people; empty where it matches.
    pub fn validate(&self, value: &Value) -> Vec<String> {
        self.findings(value)
            .into_iter()
            .map(|finding| finding.to_string())
            .collect()
    }

    /// Findings about the value; empty where it matches. That it would take too long to check is a finding, too.
    pub fn findings(&self, value: &Value) -> Vec<Finding> {
        self.check(value).unwrap_or_else(|why| {
            vec![Finding::whole(format!(
                "it cannot be checked against its schema: {why}"
            ))]
        })
    }

    /// Checks the value; the findings are empty where it matches. Fails where the budget ends before the check.
    pub fn check(&self, value: &Value) -> Result<Vec<Finding>, Exhausted> {
        within(VALIDATION, || {
            if run(self.weights, || self.compiled.is_valid(CountedNode(value)))? {
                return Ok(Vec::new());
            }
            let told = within(FINDINGS, || run(self.weights, || self.tell(value)));
            match told {
                Ok(findings) if !findings.is_empty() => Ok(findings),
                Err(why @ Exhausted::Stopped) => Err(why),
                Ok(_) | Err(_) => Ok(vec![Finding::whole(
                    "it would take too long to find out why".to_owned(),
                )]),
            }
        })
    }

    fn tell(&self, value: &Value) -> Vec<Finding> {
        self.compiled
            .iter_errors(CountedNode(value))
            .take(MAX_FINDINGS)
            .map(|error| Finding {
                path: error.instance_path().as_str().to_owned(),
                keyword: error.kind().keyword().to_owned(),
                conditional: ["/then", "/else", "/dependentSchemas", "/dependencies"]
                    .iter()
                    .any(|word| error.evaluation_path().as_str().contains(word)),
                message: shorten(&error),
            })
            .collect()
    }
}

/// One thing that is wrong with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where: a JSON pointer, empty for the whole value.
    pub path: String,
    /// The schema keyword that it breaks: `required`, `type`, …
    pub keyword: String,
    /// Whether the keyword holds only because of other members of the value (`then`, `else`, dependencies).
    pub conditional: bool,
    /// What.
    pub message: String,
}

impl Finding {
    fn whole(message: String) -> Self {
        Self {
            path: String::new(),
            keyword: String::new(),
            conditional: true,
            message,
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.path, self.message)
        }
    }
}

fn describe(error: &jsonschema::ValidationError<'_>) -> String {
    let path = error.instance_path().as_str();
    if path.is_empty() {
        error.to_string()
    } else {
        format!("{path}: {error}")
    }
}

/// The first characters of a text, which may quote a value of any size: no more of it is written.
fn shorten(text: &dyn std::fmt::Display) -> String {
    let mut short = Short {
        text: String::new(),
        left: MAX_FINDING_CHARS,
    };
    if write!(short, "{text}").is_err() {
        short.text.push('…');
    }
    short.text
}

struct Short {
    text: String,
    left: usize,
}

impl std::fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for c in text.chars() {
            self.left = self.left.checked_sub(1).ok_or(std::fmt::Error)?;
            self.text.push(c);
        }
        Ok(())
    }
}

/// The largest `enum` or `const` of a schema, in bytes of text: errors hold a copy of it.
fn quoted(schema: &Value) -> u64 {
    match schema {
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| match key.as_str() {
                "enum" | "const" => value.to_string().len() as u64,
                "default" | "examples" => 0,
                _ => quoted(value),
            })
            .max()
            .unwrap_or(0),
        Value::Array(items) => items.iter().map(quoted).max().unwrap_or(0),
        _ => 0,
    }
}

/// Counts the branches of a schema: they may be gone through without a look at the value.
fn branches(schema: &Value) -> u64 {
    match schema {
        Value::Object(members) => members
            .iter()
            .map(|(key, value)| match (key.as_str(), value) {
                ("allOf" | "anyOf" | "oneOf", Value::Array(items)) => items.len() as u64 + branches(value),
                ("not" | "if" | "then" | "else", _) => 1 + branches(value),
                _ => branches(value),
            })
            .sum(),
        Value::Array(items) => items.iter().map(branches).sum(),
        _ => 0,
    }
}

/// The first `$ref` (or `$dynamicRef`) that leaves the document. A root `$id` is no way around: references are compared as text.
fn remote_reference(schema: &Value) -> Option<String> {
    match schema {
        Value::Object(object) => object.iter().find_map(|(key, value)| match (key.as_str(), value) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(target)) if !target.starts_with('#') => {
                Some(target.clone())
            }
            ("const" | "enum" | "default" | "examples", _) => None,
            _ => remote_reference(value),
        }),
        Value::Array(items) => items.iter().find_map(remote_reference),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn says_what_is_wrong_and_where() {
        let schema = json!({
            "type": "object",
            "properties": {"rows": {"type": "array", "items": {"$ref": "#/$defs/row"}}},
            "required": ["rows"],
            "$defs": {"row": {"type": "integer"}},
        });
        let validator = Validator::compile(&schema).unwrap();
        assert_eq!(validator.validate(&json!({"rows": [1, 2]})), Vec::<String>::new());
        assert_eq!(
            validator.validate(&json!({"rows": [1, "x"]})),
            ["/rows/1: \"x\" is not of type \"integer\""]
        );
        assert_eq!(validator.validate(&json!({})), ["\"rows\" is a required property"]);
    }

    #[test]
    fn refuses_schemas_that_reach_out_or_hang() {
        let remote = |target: &str| Validator::compile(&json!({"properties": {"a": {"$ref": target}}})).unwrap_err();
        for target in [
            "https://example.com/a.json",
            "file:///etc/passwd",
            "other.json",
            "//host/x",
        ] {
            assert_eq!(remote(target), SchemaError::RemoteReference(target.to_owned()));
        }
        let backtracking = Validator::compile(&json!({"pattern": "^(?=a)b"}));
        assert!(matches!(backtracking, Err(SchemaError::Invalid(_))), "{backtracking:?}");
        let automaton = Validator::compile(&json!({"pattern": "(\\w{1000}){1000}"}));
        assert!(matches!(automaton, Err(SchemaError::PatternsTooLarge)), "{automaton:?}");
        let large = Validator::compile(&json!({"description": "x".repeat(MAX_SCHEMA_BYTES)}));
        assert!(matches!(large, Err(SchemaError::TooLarge { .. })), "{large:?}");
        assert!(matches!(
            Validator::compile(&json!({"type": "strin"})),
            Err(SchemaError::Invalid(_))
        ));
        assert!(matches!(Validator::compile(&json!(7)), Err(SchemaError::Invalid(_))));
        assert!(matches!(
            Validator::compile(&json!({"$ref": "#/$defs/nowhere"})),
            Err(SchemaError::Invalid(_))
        ));
    }

    #[test]
    fn a_pattern_that_backtracks_elsewhere_is_linear_here() {
        let validator = Validator::compile(&json!({"pattern": "^(a+)+$"})).unwrap();
        assert!(!validator.is_valid(&json!(format!("{}!", "a".repeat(100_000)))));
    }
}
