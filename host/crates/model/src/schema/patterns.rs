//! The patterns of a schema, measured before the engine compiles them: few characters (`\p{L}{20}`) can stand for a very large automaton,
//! so all automata of a schema have one limit together.

use std::collections::HashSet;

use regex_automata::nfa::thompson::{Compiler, Config};
use regex_automata::util::syntax;
use serde_json::Value;

use super::validator::SchemaError;
use crate::budget;

/// The automata of all patterns of one schema, in bytes. What the engine makes of them is some times as large.
pub(super) const MAX_PATTERNS_BYTES: usize = 2 << 20;
/// The automaton of one pattern, in bytes.
pub(super) const MAX_PATTERN_BYTES: usize = 1 << 20;
/// The longest pattern, in bytes.
const MAX_PATTERN_TEXT: usize = 4 << 10;
/// The cost of a pattern beside its automaton.
const PATTERN_BYTES: usize = 4 << 10;
/// The caches of all patterns for one thread, in bytes.
const CACHES_BYTES: usize = 4 << 20;
/// The cost of reading a Unicode class, in steps: its table is copied and sorted.
const CLASS_STEPS: u64 = 20_000;

/// All patterns of a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Patterns {
    /// The size of their automata together, in bytes.
    pub(super) bytes: usize,
    /// States of the largest one.
    pub(super) states: usize,
    /// States, together, of those that members' names are compared with.
    pub(super) name_states: usize,
    /// The number of patterns.
    pub(super) count: usize,
}

impl Patterns {
    /// The largest cache of one pattern, in bytes.
    pub(super) fn cache_bytes(&self) -> usize {
        (CACHES_BYTES / self.count.max(1)).clamp(32 << 10, 256 << 10)
    }
}

/// Measures the patterns of a schema. One that is none is left for the engine to report.
pub(super) fn measure(schema: &Value) -> Result<Patterns, SchemaError> {
    let mut found = Found::default();
    collect(schema, &mut found);
    let mut patterns = Patterns {
        count: found.texts.len() + found.names.len(),
        ..Patterns::default()
    };
    let mut known = HashSet::new();
    let all = found.texts.iter().map(|text| (text, false));
    for (text, of_names) in all.chain(found.names.iter().map(|text| (text, true))) {
        if text.len() > MAX_PATTERN_TEXT {
            return Err(SchemaError::PatternTooLong { size: text.len() });
        }
        let left = MAX_PATTERNS_BYTES.saturating_sub(patterns.bytes).min(MAX_PATTERN_BYTES);
        let Some((bytes, states)) = automaton(text, left)? else {
            continue;
        };
        if known.insert(*text) {
            patterns.bytes += bytes + PATTERN_BYTES;
        }
        patterns.states = patterns.states.max(states);
        if of_names {
            patterns.name_states += states;
        }
        if patterns.bytes > MAX_PATTERNS_BYTES {
            return Err(SchemaError::PatternsTooLarge);
        }
    }
    Ok(patterns)
}

/// The size of a pattern's automaton, and its states.
fn automaton(text: &str, limit: usize) -> Result<Option<(usize, usize)>, SchemaError> {
    let classes = text.matches(r"\p").count() + text.matches(r"\P").count() + text.matches(r"(?i").count();
    let steps = 100 * text.len() as u64 + CLASS_STEPS * classes as u64;
    budget::spend(1_000 + steps).map_err(SchemaError::TooCostly)?;
    let Ok(translated) = jsonschema_regex::to_rust_regex(text) else {
        return Ok(None);
    };
    let Ok(hir) = syntax::parse(&translated) else {
        return Ok(None);
    };
    let config = Config::new().nfa_size_limit(Some(limit));
    match Compiler::new().configure(config).build_from_hir(&hir) {
        Ok(nfa) => {
            let bytes = nfa.memory_usage();
            budget::spend(bytes as u64).map_err(SchemaError::TooCostly)?;
            Ok(Some((bytes, nfa.states().len())))
        }
        Err(error) if error.size_limit().is_some() => {
            let _ = budget::spend(limit as u64);
            Err(SchemaError::PatternsTooLarge)
        }
        Err(_) => Ok(None),
    }
}

#[derive(Default)]
struct Found<'s> {
    texts: HashSet<&'s str>,
    names: HashSet<&'s str>,
}

fn collect<'s>(schema: &'s Value, found: &mut Found<'s>) {
    match schema {
        Value::Object(members) => {
            for (key, value) in members {
                match (key.as_str(), value) {
                    ("pattern", Value::String(text)) => {
                        found.texts.insert(text);
                    }
                    ("patternProperties", Value::Object(by_pattern)) => {
                        found.names.extend(by_pattern.keys().map(String::as_str));
                        collect(value, found);
                    }
                    ("const" | "enum" | "default" | "examples", _) => {}
                    _ => collect(value, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn patterns_are_measured_together() {
        let one = measure(&json!({"pattern": "^[a-z]{1,20}$"})).unwrap();
        assert_eq!(one.count, 1);
        assert!(one.bytes < 16 << 10 && one.states > 20, "{one:?}");
        let names = measure(&json!({"patternProperties": {"^x-": {"pattern": "^x-"}}})).unwrap();
        assert!(names.name_states > 0 && names.bytes < 8 << 10, "{names:?}");
        let some: Vec<_> = (0..4)
            .map(|n| json!({"pattern": format!("^\\p{{L}}{{1,4}}{n}$")}))
            .collect();
        measure(&json!({"anyOf": some})).unwrap();
        let many: Vec<_> = (0..200)
            .map(|n| json!({"pattern": format!("\\p{{L}}{{20}}{n}")}))
            .collect();
        assert_eq!(measure(&json!({"anyOf": many})), Err(SchemaError::PatternsTooLarge));
        let tiny: Vec<_> = (0..1_000).map(|n| json!({"pattern": n.to_string()})).collect();
        assert_eq!(measure(&json!({"anyOf": tiny})), Err(SchemaError::PatternsTooLarge));
        let long = json!({"pattern": "a".repeat(5_000)});
        assert_eq!(measure(&long), Err(SchemaError::PatternTooLong { size: 5_000 }));
        assert_eq!(
            measure(&json!({"pattern": "("})).unwrap().bytes,
            0,
            "the engine says what is wrong with it"
        );
    }

    #[test]
    fn values_are_no_patterns() {
        let schema = json!({"default": {"pattern": "("}, "properties": {"pattern": {"const": {"pattern": "x"}}}});
        assert_eq!(measure(&schema).unwrap(), Patterns::default());
    }
}
