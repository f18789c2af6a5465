//! Findings in a manifest.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::suggest;
use crate::budget::{Exhausted, exhausted, is_spent};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Shown, and harmless.
    Note,
    /// Worth a look; the manifest is accepted.
    Warning,
    /// The manifest is refused.
    Error,
}

impl Severity {
    /// The name in messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One finding in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// How bad.
    pub severity: Severity,
    /// A stable code, see `docs/errors.md`.
    pub code: String,
    /// What is wrong.
    pub message: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl std::fmt::Display for Diagnostic {
    /// `3:5: error: key `x` is there twice [manifest_duplicate_key]`, and the hint on a line of its own.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            severity,
            code,
            message,
            line,
            column,
            hint,
        } = self;
        write!(f, "{line}:{column}: {}: {message} [{code}]", severity.as_str())?;
        match hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

impl Diagnostic {
    /// Adds what to do about it.
    pub(super) fn hint(&mut self, hint: impl Into<String>) -> &mut Self {
        self.hint = Some(printable(hint.into()));
        self
    }

    /// Adds what to do about it, if anything is known.
    pub(super) fn maybe_hint(&mut self, hint: Option<String>) -> &mut Self {
        self.hint = hint.map(printable);
        self
    }
}

/// A place in the manifest, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pos {
    /// The line.
    pub line: u32,
    /// The column in characters.
    pub column: u32,
}

impl Pos {
    /// The first character.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// Findings quote the manifest, and are read in terminals: control characters are shown escaped.
fn printable(text: String) -> String {
    if !text.contains(char::is_control) {
        return text;
    }
    text.chars()
        .flat_map(|c| {
            let escaped = c.is_control().then(|| c.escape_default());
            let plain = (!c.is_control()).then_some(c);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

/// The code of what takes more than may be taken.
pub(super) const TOO_COSTLY: &str = "manifest_too_costly";
/// What to do about it.
pub(super) const COSTLY_HINT: &str =
    "the schema, or the value, stands for more than it seems to: look for references in several branches";

/// How many findings are kept; a manifest with more is not a manifest.
const MAX_FINDINGS: usize = 500;

/// Collects findings.
#[derive(Clone, Debug)]
pub(super) struct Findings {
    list: Vec<Diagnostic>,
    spare: Option<Diagnostic>,
    /// What may still be compared for suggestions.
    comparable: usize,
    /// What was told by its name, wherever else it is named.
    named: HashSet<String>,
}

impl Default for Findings {
    fn default() -> Self {
        Self {
            list: Vec::new(),
            spare: None,
            comparable: suggest::MAX_COMPARED,
            named: HashSet::new(),
        }
    }
}

impl Findings {
    /// Whether a further finding would not be kept: nothing need be worked out for it.
    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= MAX_FINDINGS
    }

    /// Whether names can still be compared for suggestions.
    pub(super) fn can_suggest(&self) -> bool {
        self.comparable > 0 && !self.is_full()
    }

    /// Whether something is named for the first time: what is wrong with it is told there.
    pub(super) fn is_first(&mut self, name: &str) -> bool {
        self.named.insert(name.to_owned())
    }

    /// A hint that names the closest of the known names, or lists them if there are few. For lists that a manifest or a server
    /// brings: what is compared is bounded over all findings.
    pub(super) fn suggest<'a>(
        &mut self,
        text: &str,
        known: impl IntoIterator<Item = &'a str> + Clone,
    ) -> Option<String> {
        if self.is_full() {
            return None;
        }
        suggest::hint_within(text, known, &mut self.comparable)
    }

    /// The closest of the known names alone, bounded in the same way.
    pub(super) fn closest<'a>(&mut self, text: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        if self.is_full() {
            return None;
        }
        suggest::closest_within(text, known, &mut self.comparable)
    }

    pub(super) fn error(&mut self, code: &str, pos: Pos, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Error, code, pos, message)
    }

    pub(super) fn warning(&mut self, code: &str, pos: Pos, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Warning, code, pos, message)
    }

    pub(super) fn note(&mut self, code: &str, pos: Pos, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Note, code, pos, message)
    }

    /// A finding of any severity.
    pub(super) fn add(
        &mut self,
        severity: Severity,
        code: &str,
        pos: Pos,
        message: impl Into<String>,
    ) -> &mut Diagnostic {
        let finding = Diagnostic {
            severity,
            code: code.to_owned(),
            message: printable(message.into()),
            line: pos.line,
            column: pos.column,
            hint: None,
        };
        if self.list.len() >= MAX_FINDINGS {
            return self.spare.insert(finding);
        }
        self.list.push(finding);
        let last = self.list.len() - 1;
        &mut self.list[last]
    }

    /// Says that the budget was not enough for the manifest, if it was not.
    pub(super) fn if_exhausted(&mut self) {
        if let Some(why) = exhausted().or(is_spent().then_some(Exhausted::Steps)) {
            self.error(TOO_COSTLY, Pos::START, format!("the manifest cannot be checked: {why}"))
                .hint(COSTLY_HINT);
        }
    }

    pub(super) fn errors(&self) -> usize {
        self.list
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .count()
    }

    /// All findings in the order of the text, without repeats.
    pub(super) fn sorted(&self) -> Vec<Diagnostic> {
        let mut list = self.list.clone();
        list.sort_by_key(|finding| (finding.line, finding.column));
        let mut told = HashSet::new();
        list.retain(|finding| {
            told.insert((
                finding.line,
                finding.column,
                finding.code.clone(),
                without_task(&finding.message),
            ))
        });
        list
    }
}

/// A message without the names of tasks: what several share, by an alias or by `defaults`, is wrong in one place.
fn without_task(message: &str) -> String {
    let mut parts = message.split("task `");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str("task `");
        text.push_str(part.split_once('`').map_or("", |(_, rest)| rest));
    }
    text
}
