//! [`Failure`]: how a task says that it failed.

use std::error::Error as StdError;
use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::Error;

/// Whether another try makes sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// Another try may succeed: the task's retries apply.
    Retryable,
    /// It would fail again: the remaining retries are skipped.
    Fatal,
}

/// A failure that a task returns.
///
/// Every error converts into one by `?`: retryable, with the error and its sources as the message. Errors of the host keep their
/// code; those that would come again in every try (`denied`, `not_upstream`, `invalid`, `too_large`) are fatal.
///
/// `Failure` is not itself a `std::error::Error`, since only so can every error convert into it.
///
/// ```
/// use airtight_sdk::prelude::*;
///
/// fn parse(text: &str) -> Result<f64> {
///     if text.is_empty() {
///         return Err(Failure::fatal("the file has no rows").code("no_rows").details(json!({"rows": 0})));
///     }
///     Ok(text.parse::<f64>()?)
/// }
///
/// assert_eq!(parse("x").unwrap_err().message(), "invalid float literal");
/// assert!(parse("").unwrap_err().is_fatal());
/// ```
#[derive(Clone, PartialEq)]
#[must_use = "a failure does nothing unless the task returns it"]
pub struct Failure(Box<Parts>);

/// Boxed, so that the `Result` of every task stays small.
#[derive(Clone, PartialEq)]
struct Parts {
    message: String,
    kind: FailureKind,
    code: Option<String>,
    details: Option<Value>,
}

impl Failure {
    fn new(kind: FailureKind, message: String) -> Self {
        Self(Box::new(Parts {
            message,
            kind,
            code: None,
            details: None,
        }))
    }

    /// A failure that may pass: the task's retries apply.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Retryable, message.into())
    }

    /// A failure that would come again: the remaining retries are skipped.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Fatal, message.into())
    }

    /// Adds a stable name for programs, in `snake_case`.
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.0.code = Some(code.into());
        self
    }

    /// Adds anything machine-readable. A value that is no JSON is replaced by the reason why it is not.
    pub fn details(mut self, details: impl Serialize) -> Self {
        self.0.details = Some(
            serde_json::to_value(details)
                .unwrap_or_else(|error| Value::String(format!("the details cannot be written as JSON: {error}"))),
        );
        self
    }

    /// Puts what was being done before the message: `cannot read the model: …`.
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.0.message = format!("{doing}: {}", self.0.message);
        self
    }

    /// What people read.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether another try makes sense.
    pub fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// Whether the remaining retries are skipped.
    pub fn is_fatal(&self) -> bool {
        self.0.kind == FailureKind::Fatal
    }

    /// The stable name, if it has one.
    pub fn get_code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// The details, if it has any.
    pub fn get_details(&self) -> Option<&Value> {
        self.0.details.as_ref()
    }

    /// A retryable failure from an error that `?` cannot take because it is no `std::error::Error` itself: `anyhow::Error` and
    /// boxed errors. Its code and kind are those of an SDK error among its causes.
    ///
    /// ```
    /// use airtight_sdk::prelude::*;
    ///
    /// # fn load() -> std::result::Result<u32, Box<dyn std::error::Error + Send + Sync>> { Ok("7".parse()?) }
    /// /// Loads a number by code that returns boxed errors.
    /// #[task]
    /// fn number() -> Result<u32> {
    ///     load().map_err(Failure::from_boxed)
    /// }
    /// # assert_eq!(number().unwrap(), 7);
    /// ```
    pub fn from_boxed(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let error = error.into();
        Self::from_error(&*error)
    }

    fn from_error(error: &(dyn StdError + 'static)) -> Self {
        let mut failure = Self::retryable(error.to_string());
        let mut at = Some(error);
        while let Some(error) = at {
            if let Some(host) = host_error(error) {
                if host.is_permanent() {
                    failure.0.kind = FailureKind::Fatal;
                }
                failure.0.code.get_or_insert_with(|| host.code().to_owned());
            }
            at = error.source();
            if let Some(source) = at {
                let text = source.to_string();
                // Many errors repeat their source in their own text.
                if !failure.0.message.ends_with(&text) {
                    failure.0.message.push_str(": ");
                    failure.0.message.push_str(&text);
                }
            }
        }
        failure
    }
}

/// `io::Error` hides the error inside it from `source`, and the blob streams return `io::Error`.
fn host_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    error.downcast_ref::<Error>().or_else(|| {
        let inner = error.downcast_ref::<std::io::Error>()?.get_ref()?;
        inner.downcast_ref::<Error>()
    })
}

impl<E: StdError + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::from_error(&error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("message", &self.0.message)
            .field("kind", &self.0.kind)
            .field("code", &self.0.code)
            .field("details", &self.0.details.as_ref().map(Value::to_string))
            .finish()
    }
}
