//! A compiled JSON Schema. A schema refers only to itself, is bounded in size, and its patterns run in linear time: it comes
//! from a component, so it must not be able to fetch, hang or fill memory.

use jsonschema::PatternOptions;
use serde_json::Value;

/// The largest schema, in bytes of JSON text.
pub const MAX_SCHEMA_BYTES: usize = 64 << 10;

/// How many findings about one value are told; a person fixes no more at a time.
const MAX_FINDINGS: usize = 16;

/// How many characters of a finding are shown: it may quote the value.
const MAX_FINDING_CHARS: usize = 400;

/// The largest automaton of one pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

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
}

/// A compiled JSON Schema.
#[derive(Clone, Debug)]
pub struct Validator {
    compiled: jsonschema::Validator,
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
        let compiled = jsonschema::options()
            .offline()
            .with_pattern_options(
                PatternOptions::regex()
                    .size_limit(MAX_PATTERN_BYTES)
                    .dfa_size_limit(MAX_PATTERN_BYTES),
            )
            .build(schema)
            .map_err(|error| SchemaError::Invalid(shorten(&describe(&error))))?;
        Ok(Self { compiled })
    }

    /// Whether the value matches.
    pub fn is_valid(&self, value: &Value) -> bool {
        self.compiled.is_valid(value)
    }

    /// What is wrong with the value, for people; empty where it matches.
    pub fn validate(&self, value: &Value) -> Vec<String> {
        self.findings(value)
            .into_iter()
            .map(|finding| finding.to_string())
            .collect()
    }

    /// What is wrong with the value, and where; empty where it matches.
    pub fn findings(&self, value: &Value) -> Vec<Finding> {
        if self.compiled.is_valid(value) {
            return Vec::new();
        }
        let mut findings: Vec<Finding> = self
            .compiled
            .iter_errors(value)
            .take(MAX_FINDINGS)
            .map(|error| Finding {
                path: error.instance_path().as_str().to_owned(),
                keyword: error.kind().keyword().to_owned(),
                conditional: ["/then", "/else", "/dependentSchemas", "/dependencies"]
                    .iter()
                    .any(|word| error.evaluation_path().as_str().contains(word)),
                message: shorten(&error.to_string()),
            })
            .collect();
        if findings.is_empty() {
            findings.push(Finding {
                path: String::new(),
                keyword: String::new(),
                conditional: true,
                message: "does not match the schema".to_owned(),
            });
        }
        findings
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

fn shorten(text: &str) -> String {
    if text.chars().count() <= MAX_FINDING_CHARS {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(MAX_FINDING_CHARS).collect();
    short.push('…');
    short
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
        assert!(matches!(automaton, Err(SchemaError::Invalid(_))), "{automaton:?}");
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
