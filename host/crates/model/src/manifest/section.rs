//! Reading one section of the tree by its table: unknown keys, missing keys and wrong types are reported, and reading goes on.

use std::str::FromStr;
use std::time::Duration;

use super::component::ComponentRef;
use super::diagnostic::{Findings, Pos};
use super::field::{self, Field, FieldKind, airflow_name};
use super::quantity;
use super::suggest;
use super::tree::{Kind, Node};
use crate::trigger_rule::TriggerRule;
use crate::weight::WeightRule;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub pos: Pos,
}

impl<T> Spanned<T> {
    pub(super) const fn new(value: T, pos: Pos) -> Self {
        Self { value, pos }
    }
}

/// A map of the manifest with the table of its keys.
pub(super) struct Section<'n> {
    name: &'n str,
    fields: &'static [&'static [Field]],
    node: &'n Node,
}

impl<'n> Section<'n> {
    /// Starts to read a section; reports what is not a map, and unknown keys.
    pub(super) fn open(
        name: &'n str,
        fields: &'static [&'static [Field]],
        node: &'n Node,
        findings: &mut Findings,
    ) -> Option<Self> {
        let Kind::Map(entries) = &node.kind else {
            let keys: Vec<&str> = fields
                .iter()
                .copied()
                .flatten()
                .map(|field| field.name)
                .take(4)
                .collect();
            let hint = match node.kind {
                Kind::Seq(_) => format!(
                    "write `key: value` without `- ` in front; its keys are {}, …",
                    keys.join(", ")
                ),
                _ => format!(
                    "write its keys below it, indented, each with a value: {}, …",
                    keys.join(", ")
                ),
            };
            findings
                .error(
                    "manifest_type",
                    node.pos,
                    format!("{name} must be a map, not {}", node.what()),
                )
                .hint(hint);
            return None;
        };
        let names = || fields.iter().copied().flatten().map(|field| field.name);
        for entry in entries.iter() {
            if names().any(|known| known == entry.key) || findings.is_full() {
                continue;
            }
            let hint = airflow_name(&entry.key)
                .map(str::to_owned)
                .or_else(|| suggest::closest(&entry.key, names()).map(|known| format!("did you mean `{known}`?")));
            let known: Vec<&str> = names().collect();
            let hint = hint.unwrap_or_else(|| format!("known keys: {}", known.join(", ")));
            findings
                .error(
                    "manifest_unknown_key",
                    entry.pos,
                    format!("unknown key `{}` in {name}", short(&entry.key)),
                )
                .hint(hint);
        }
        Some(Self { name, fields, node })
    }

    fn field(&self, key: &str) -> &'static Field {
        self.fields
            .iter()
            .copied()
            .flatten()
            .find(|field| field.name == key)
            .expect("the reader asks only for keys of its table")
    }

    fn kind(&self, key: &str) -> FieldKind {
        self.field(key).kind
    }

    /// What a copy of the section takes, about.
    pub(super) const fn weight(&self) -> usize {
        self.node.weight()
    }

    /// What a key means, and how it is written: for whoever left it out or wrote something else.
    fn explain(&self, key: &str) -> String {
        match field::example(key) {
            Some(example) => format!("{} Write `{example}`", self.field(key).doc),
            None => self.field(key).doc.trim_end_matches('.').to_owned(),
        }
    }

    /// The value of a key, if it is there and not null.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.raw(key).filter(|node| !matches!(node.kind, Kind::Null))
    }

    /// The value of a key, if it is there.
    pub(super) fn raw(&self, key: &str) -> Option<&'n Node> {
        debug_assert!(matches!(self.kind(key), _));
        match &self.node.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// Whether a key has a value.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// The place of a key.
    pub(super) fn key_pos(&self, key: &str) -> Pos {
        match &self.node.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| entry.pos),
            _ => None,
        }
        .unwrap_or(self.node.pos)
    }

    /// Reports a key that must be there and is not.
    pub(super) fn missing(&self, key: &str, findings: &mut Findings, pos: Pos) {
        if self.raw(key).is_none() {
            findings
                .error(
                    "manifest_missing_key",
                    pos,
                    format!("{} needs the key `{key}`", self.name),
                )
                .hint(self.explain(key));
        } else if self.get(key).is_none() {
            findings
                .error("manifest_missing_key", self.key_pos(key), format!("`{key}` is empty"))
                .hint(self.explain(key));
        }
    }

    pub(super) fn text(&self, key: &str, findings: &mut Findings) -> Option<Spanned<String>> {
        text(key, self.get(key)?, findings)
    }

    pub(super) fn bool(&self, key: &str, findings: &mut Findings) -> Option<Spanned<bool>> {
        let node = self.get(key)?;
        match &node.kind {
            Kind::Bool(value) => Some(Spanned::new(*value, node.pos)),
            other => {
                let finding = findings.error(
                    "manifest_type",
                    node.pos,
                    format!("`{key}` must be true or false, not {}", node.what()),
                );
                if let Kind::Text(text) = other {
                    match text.to_ascii_lowercase().as_str() {
                        "yes" | "on" | "y" => drop(finding.hint("write `true`")),
                        "no" | "off" | "n" => drop(finding.hint("write `false`")),
                        "true" | "false" => drop(finding.hint("remove the quotes")),
                        _ => drop(finding.hint(self.explain(key))),
                    }
                } else {
                    match other {
                        Kind::Number(number) if number.as_u64() == Some(1) => drop(finding.hint("write `true`")),
                        Kind::Number(number) if number.as_u64() == Some(0) => drop(finding.hint("write `false`")),
                        _ => drop(finding.hint(self.explain(key))),
                    }
                }
                None
            }
        }
    }

    pub(super) fn int<T: TryFrom<i64>>(&self, key: &str, findings: &mut Findings) -> Option<Spanned<T>> {
        let FieldKind::Int { min, max } = self.kind(key) else {
            debug_assert!(false, "`{key}` is not a number in the table");
            return None;
        };
        let node = self.get(key)?;
        let Kind::Number(number) = &node.kind else {
            let finding = findings.error(
                "manifest_type",
                node.pos,
                format!("`{key}` must be a whole number, not {}", node.what()),
            );
            match &node.kind {
                Kind::Text(text) if text.parse::<i64>().is_ok() => finding.hint("remove the quotes"),
                _ => finding.hint(self.explain(key)),
            };
            return None;
        };
        match number.as_i64().filter(|number| (min..=max).contains(number)) {
            Some(value) => T::try_from(value).ok().map(|value| Spanned::new(value, node.pos)),
            None => {
                findings
                    .error(
                        "manifest_value",
                        node.pos,
                        format!("`{key}` must be a whole number from {min} to {max}, not {number}"),
                    )
                    .hint(self.explain(key));
                None
            }
        }
    }

    pub(super) fn duration(&self, key: &str, findings: &mut Findings) -> Option<Spanned<Duration>> {
        let node = self.get(key)?;
        let read = match &node.kind {
            Kind::Text(text) => quantity::duration(text),
            Kind::Number(number) => quantity::duration(&number.to_string()),
            _ => {
                findings
                    .error(
                        "manifest_type",
                        node.pos,
                        format!("`{key}` must be a duration, not {}", node.what()),
                    )
                    .hint("write `90s`, `5m`, `1h30m`, or a number of seconds");
                return None;
            }
        };
        match read {
            Ok(value) => Some(Spanned::new(value, node.pos)),
            Err(why) => {
                findings
                    .error("manifest_value", node.pos, format!("`{key}`: {why}"))
                    .hint("write `90s`, `5m`, `1h30m`, `250ms`, or a number of seconds");
                None
            }
        }
    }

    /// A duration of which zero makes no sense: a limit that is reached before anything has begun.
    pub(super) fn time_limit(&self, key: &str, findings: &mut Findings) -> Option<Spanned<Duration>> {
        let limit = self.duration(key, findings)?;
        if limit.value.is_zero() {
            findings
                .error("manifest_value", limit.pos, format!("`{key}` must be longer than zero"))
                .hint(format!("remove it, or write a time such as `{key}: 10m`"));
            return None;
        }
        Some(limit)
    }

    pub(super) fn size(&self, key: &str, findings: &mut Findings) -> Option<Spanned<u64>> {
        let FieldKind::Size { min, max } = self.kind(key) else {
            debug_assert!(false, "`{key}` is not a size in the table");
            return None;
        };
        let node = self.get(key)?;
        let read = match &node.kind {
            Kind::Text(text) => quantity::size(text),
            Kind::Number(number) => quantity::size(&number.to_string()),
            _ => {
                findings
                    .error(
                        "manifest_type",
                        node.pos,
                        format!("`{key}` must be a size, not {}", node.what()),
                    )
                    .hint("write `512MiB`, `10MB`, or a number of bytes");
                return None;
            }
        };
        match read {
            Ok(value) if (min..=max).contains(&value) => Some(Spanned::new(value, node.pos)),
            Ok(value) => {
                findings
                    .error(
                        "manifest_value",
                        node.pos,
                        format!("`{key}` must be from {min} to {max} bytes, not {value}"),
                    )
                    .hint(format!(
                        "a bare number counts bytes; with a unit: `{key}: {}`",
                        quantity::show_size(value.clamp(min.max(1 << 20), max))
                    ));
                None
            }
            Err(why) => {
                findings
                    .error("manifest_value", node.pos, format!("`{key}`: {why}"))
                    .hint("write `512MiB`, `10MB`, or a number of bytes");
                None
            }
        }
    }

    pub(super) fn trigger_rule(&self, key: &str, findings: &mut Findings) -> Option<Spanned<TriggerRule>> {
        let names = TriggerRule::ALL.iter().map(|rule| rule.as_str());
        self.one_of(key, "trigger rule", names, findings)
    }

    pub(super) fn weight_rule(&self, key: &str, findings: &mut Findings) -> Option<Spanned<WeightRule>> {
        let names = WeightRule::ALL.iter().map(|rule| rule.as_str());
        self.one_of(key, "weight rule", names, findings)
    }

    /// One of a closed set of names.
    fn one_of<T: FromStr>(
        &self,
        key: &str,
        what: &str,
        names: impl Iterator<Item = &'static str> + Clone,
        findings: &mut Findings,
    ) -> Option<Spanned<T>> {
        let text = self.text(key, findings)?;
        match text.value.parse::<T>() {
            Ok(value) => Some(Spanned::new(value, text.pos)),
            Err(_) => {
                let hint = suggest::closest(&text.value, names.clone()).map_or_else(
                    || format!("known: {}", names.collect::<Vec<_>>().join(", ")),
                    |name| format!("did you mean `{name}`?"),
                );
                findings
                    .error(
                        "manifest_value",
                        text.pos,
                        format!("unknown {what} `{}`", short(&text.value)),
                    )
                    .hint(hint);
                None
            }
        }
    }

    /// One of a few names.
    pub(super) fn choice(&self, key: &str, names: &[&str], findings: &mut Findings) -> Option<Spanned<String>> {
        let text = self.text(key, findings)?;
        if names.contains(&text.value.as_str()) {
            return Some(text);
        }
        let hint = suggest::closest(&text.value, names.iter().copied()).map_or_else(
            || format!("known: {}", names.join(", ")),
            |name| format!("did you mean `{name}`?"),
        );
        findings
            .error(
                "manifest_value",
                text.pos,
                format!("`{}` is not a value of `{key}`", short(&text.value)),
            )
            .hint(hint);
        None
    }

    /// A factor from over 1 to 1000, in percent.
    pub(super) fn percent(&self, key: &str, findings: &mut Findings) -> Option<Spanned<u32>> {
        let node = self.get(key)?;
        let Kind::Number(number) = &node.kind else {
            findings
                .error(
                    "manifest_type",
                    node.pos,
                    format!("`{key}` must be a number, not {}", node.what()),
                )
                .hint("write `2`, or `1.5`, without quotes");
            return None;
        };
        match quantity::percent(&number.to_string()).filter(|percent| (101..=100_000).contains(percent)) {
            Some(percent) => Some(Spanned::new(percent, node.pos)),
            None => {
                findings
                    .error(
                        "manifest_value",
                        node.pos,
                        format!("`{key}` must be over 1, at most 1000, with at most two decimals; it is {number}"),
                    )
                    .hint("write `2`, or `1.5`");
                None
            }
        }
    }

    pub(super) fn component(&self, key: &str, findings: &mut Findings) -> Option<Spanned<ComponentRef>> {
        let text = self.text(key, findings)?;
        match text.value.parse() {
            Ok(value) => Some(Spanned::new(value, text.pos)),
            Err(error) => {
                findings
                    .error("manifest_value", text.pos, format!("{error}"))
                    .hint("for example `ml@1.2` for an uploaded component, or `./ml.wasm` for a local file");
                None
            }
        }
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &str, findings: &mut Findings) -> Option<Vec<Spanned<String>>> {
        texts(key, self.get(key)?, findings)
    }
}

/// A node that must be text.
pub(super) fn text(what: &str, node: &Node, findings: &mut Findings) -> Option<Spanned<String>> {
    if let Kind::Text(text) = &node.kind {
        return Some(Spanned::new(text.clone(), node.pos));
    }
    let finding = findings.error(
        "manifest_type",
        node.pos,
        format!("`{what}` must be text, not {}", node.what()),
    );
    match &node.kind {
        Kind::Number(_) | Kind::Bool(_) | Kind::BadNumber(_) => drop(finding.hint("put it in quotes")),
        Kind::Map(_) => drop(finding.hint("a value that starts with `{` must be in quotes if it is text")),
        Kind::Seq(_) => drop(finding.hint("write one text; what starts with `[` must be in quotes if it is text")),
        _ => drop(finding.hint("write a text here, or remove the key")),
    }
    None
}

/// A node that must be a list of texts.
pub(super) fn texts(what: &str, node: &Node, findings: &mut Findings) -> Option<Vec<Spanned<String>>> {
    match &node.kind {
        Kind::Seq(items) => Some(items.iter().filter_map(|item| text(what, item, findings)).collect()),
        Kind::Text(one) => {
            findings
                .error("manifest_type", node.pos, format!("`{what}` must be a list, not text"))
                .hint(format!("write `[{}]`", short(one)));
            None
        }
        _ => {
            findings
                .error(
                    "manifest_type",
                    node.pos,
                    format!("`{what}` must be a list, not {}", node.what()),
                )
                .hint("write the entries in brackets, `[a, b]`, or one a line with `- ` in front");
            None
        }
    }
}

/// The start of a text, for messages.
pub(super) fn short(text: &str) -> String {
    if text.chars().count() <= 64 {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(64).collect();
    short.push('…');
    short
}
