//! Findings in a manifest.

use serde::{Deserialize, Serialize};

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

/// How many findings are kept; a manifest with more is not a manifest.
const MAX_FINDINGS: usize = 500;

/// Collects findings.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    list: Vec<Diagnostic>,
    spare: Option<Diagnostic>,
}

impl Findings {
    pub(super) fn error(&mut self, code: &str, pos: Pos, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Error, code, pos, message.into())
    }

    pub(super) fn warning(&mut self, code: &str, pos: Pos, message: impl Into<String>) -> &mut Diagnostic {
        self.add(Severity::Warning, code, pos, message.into())
    }

    fn add(&mut self, severity: Severity, code: &str, pos: Pos, message: String) -> &mut Diagnostic {
        let finding = Diagnostic {
            severity,
            code: code.to_owned(),
            message: printable(message),
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
                .hint("its schemas, or those of its components, stand for more than they seem to: look for references in several branches");
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
        list.dedup();
        list
    }
}
