//! One SQL statement with its arguments. The text is always made of constants of this crate; whatever comes from outside is an
//! argument, never text.

use std::fmt::Write as _;
use std::sync::Arc;

use model::{Digest, Timestamp};
use uuid::Uuid;

use super::Dialect;

/// An argument.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<Arc<str>>),
    Bytes(Vec<u8>),
    /// Arrays exist on PostgreSQL only.
    Ints(Vec<Option<i64>>),
    /// Arrays exist on PostgreSQL only.
    Texts(Vec<Option<String>>),
}

/// A NUL character cannot be stored by PostgreSQL at all. A task's message may hold one, and must not be able to break a tick.
pub(crate) fn without_nul(text: &str) -> std::borrow::Cow<'_, str> {
    if text.contains('\0') {
        text.replace('\0', "\u{fffd}").into()
    } else {
        text.into()
    }
}

impl From<i64> for Value {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<i32> for Value {
    fn from(value: i32) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Int(Some(value.into()))
    }
}

impl From<Timestamp> for Value {
    fn from(value: Timestamp) -> Self {
        Self::Int(Some(value.0))
    }
}

impl From<Option<Timestamp>> for Value {
    fn from(value: Option<Timestamp>) -> Self {
        Self::Int(value.map(|time| time.0))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Self::Text(Some(without_nul(value).into()))
    }
}

impl From<&String> for Value {
    fn from(value: &String) -> Self {
        value.as_str().into()
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        value.as_str().into()
    }
}

impl From<Option<&str>> for Value {
    fn from(value: Option<&str>) -> Self {
        value.map_or(Self::Text(None), Self::from)
    }
}

impl From<Digest> for Value {
    fn from(value: Digest) -> Self {
        Self::Text(Some(value.to_string().into()))
    }
}

impl From<Uuid> for Value {
    fn from(value: Uuid) -> Self {
        Self::Text(Some(value.to_string().into()))
    }
}

impl From<Vec<u8>> for Value {
    fn from(value: Vec<u8>) -> Self {
        Self::Bytes(value)
    }
}

/// SQL text in pieces, with one `?` for each argument.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statement {
    text: std::borrow::Cow<'static, str>,
    args: Vec<Value>,
}

impl Statement {
    /// A statement that begins with this text, whose placeholders are filled by [`Statement::arg`].
    pub(crate) fn new(text: &'static str) -> Self {
        Self {
            text: text.into(),
            args: Vec::new(),
        }
    }

    /// Fills the next `?`.
    #[must_use]
    pub(crate) fn arg(mut self, value: impl Into<Value>) -> Self {
        self.args.push(value.into());
        self
    }

    /// Appends text without placeholders.
    pub(crate) fn push(&mut self, text: &str) -> &mut Self {
        self.text.to_mut().push_str(text);
        self
    }

    /// Appends a placeholder and its argument.
    pub(crate) fn bind(&mut self, value: impl Into<Value>) -> &mut Self {
        self.text.to_mut().push('?');
        self.args.push(value.into());
        self
    }

    /// Appends `(?, ?, …)`; nothing matches where there are no values.
    pub(crate) fn bind_list<T: Into<Value>>(&mut self, values: impl IntoIterator<Item = T>) -> &mut Self {
        self.push("(");
        let mut first = true;
        for value in values {
            if !std::mem::take(&mut first) {
                self.push(", ");
            }
            self.bind(value);
        }
        if first {
            self.push("NULL");
        }
        self.push(")")
    }

    /// Appends another statement, text and arguments.
    pub(crate) fn append(&mut self, other: Statement) -> &mut Self {
        self.text.to_mut().push_str(&other.text);
        self.args.extend(other.args);
        self
    }

    /// The size of the arguments.
    pub(super) fn bytes(&self) -> usize {
        let size = |value: &Value| match value {
            Value::Int(_) => 8,
            Value::Text(text) => text.as_ref().map_or(0, |text| text.len()),
            Value::Bytes(bytes) => bytes.len(),
            Value::Ints(values) => values.len() * 8,
            Value::Texts(values) => values.iter().flatten().map(String::len).sum(),
        };
        self.args.iter().map(size).sum()
    }

    /// The text for a dialect, and the arguments. PostgreSQL wants numbered placeholders. No statement of this crate holds a `?`
    /// in a literal, an operator or a comment (the tests run each of them on both databases).
    pub(super) fn finish(self, dialect: Dialect) -> (std::borrow::Cow<'static, str>, Vec<Value>) {
        let text = match dialect {
            Dialect::Sqlite => self.text,
            Dialect::Postgres if self.args.is_empty() => self.text,
            Dialect::Postgres => {
                let mut numbered = String::with_capacity(self.text.len() + self.args.len());
                let mut pieces = self.text.split('?');
                numbered.push_str(pieces.next().unwrap_or_default());
                for (index, piece) in pieces.enumerate() {
                    let _ = write!(numbered, "${}", index + 1);
                    numbered.push_str(piece);
                }
                numbered.into()
            }
        };
        (text, self.args)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_gets_numbered_placeholders() {
        let mut statement = Statement::new("SELECT 1 WHERE a = ? AND b IN ").arg(1_i64);
        statement.bind_list(["x", "y"]).push(" LIMIT ").bind(3_i64);
        let (text, args) = statement.clone().finish(Dialect::Postgres);
        assert_eq!(text, "SELECT 1 WHERE a = $1 AND b IN ($2, $3) LIMIT $4");
        assert_eq!(args.len(), 4);
        assert_eq!(
            statement.finish(Dialect::Sqlite).0,
            "SELECT 1 WHERE a = ? AND b IN (?, ?) LIMIT ?"
        );
    }

    #[test]
    fn an_empty_list_matches_nothing() {
        let mut statement = Statement::new("SELECT 1 WHERE a IN ");
        statement.bind_list(Vec::<i64>::new());
        assert_eq!(statement.finish(Dialect::Sqlite).0, "SELECT 1 WHERE a IN (NULL)");
    }
}
