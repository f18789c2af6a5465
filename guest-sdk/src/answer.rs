//! What a task can answer, as types: a value, an [`Outcome`], a [`Branch`].

use std::marker::PhantomData;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use crate::{Failure, schema};

/// An answer on its way to the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// JSON text of the return value.
    Done(String),
    /// Why it did not run.
    Skip(String),
    /// The labels chosen.
    Branch(Vec<String>),
    /// Milliseconds until the next poke.
    Reschedule(u64),
}

/// An answer of a task that is not always a value.
///
/// ```
/// use airtight_sdk::prelude::*;
/// use std::time::Duration;
///
/// #[data]
/// struct Found {
///     files: Vec<String>,
/// }
///
/// /// Waits for files: a sensor.
/// #[task]
/// fn wait_for_files(input: Found) -> Result<Outcome<usize>> {
///     if context::dag_id() == "holiday" {
///         return Ok(Outcome::skip("nobody works today"));
///     }
///     match input.files.len() {
///         0 => Ok(Outcome::reschedule(Duration::from_secs(60))),
///         n => Ok(Outcome::Done(n)),
///     }
/// }
/// # assert_eq!(wait_for_files(Found { files: vec![] }).unwrap(), Outcome::Reschedule(Duration::from_secs(60)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// The task succeeded with this value.
    Done(T),
    /// The task chose not to run; people see the reason. Downstream tasks follow their trigger rules.
    Skip(String),
    /// Not yet: run the task again after this time, as the same try. Nothing is held meanwhile.
    Reschedule(Duration),
}

impl<T> Outcome<T> {
    /// [`Outcome::Skip`] with a reason.
    pub fn skip(reason: impl Into<String>) -> Self {
        Self::Skip(reason.into())
    }

    /// [`Outcome::Reschedule`]; waits shorter than a millisecond count as one.
    pub fn reschedule(after: Duration) -> Self {
        Self::Reschedule(after)
    }
}

/// The labels of a branch task: an enum without fields with `#[derive(Labels)]`.
pub trait Labels {
    /// All labels, as the manifest's `branches` names them.
    fn labels() -> &'static [&'static str];
    /// The label of this one.
    fn label(&self) -> &'static str;
}

/// The answer of a branch task: which labels it chose. The manifest says which tasks follow each label; the others are skipped.
///
/// ```
/// use airtight_sdk::prelude::*;
///
/// #[data]
/// struct Gate {
///     accuracy: f64,
///     threshold: f64,
/// }
///
/// #[derive(Labels)]
/// enum Verdict {
///     Accept,
///     Reject,
/// }
///
/// /// Lets good models pass.
/// #[task]
/// fn accuracy_gate(input: Gate) -> Branch<Verdict> {
///     Branch::to(if input.accuracy > input.threshold { Verdict::Accept } else { Verdict::Reject })
/// }
/// # assert_eq!(accuracy_gate(Gate { accuracy: 0.9, threshold: 0.8 }).chosen(), ["accept"]);
/// # assert_eq!(airtight_sdk::testing::describe()["tasks"][0]["labels"], json!(["accept", "reject"]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch<L> {
    chosen: Vec<&'static str>,
    labels: PhantomData<fn() -> L>,
}

impl<L: Labels> Branch<L> {
    /// Follows one label.
    pub fn to(label: L) -> Self {
        Self::to_all([label])
    }

    /// Follows several labels.
    pub fn to_all(labels: impl IntoIterator<Item = L>) -> Self {
        let mut chosen: Vec<&'static str> = Vec::new();
        for label in labels {
            if !chosen.contains(&label.label()) {
                chosen.push(label.label());
            }
        }
        Self {
            chosen,
            labels: PhantomData,
        }
    }

    /// Follows none: everything directly downstream is skipped.
    pub fn none() -> Self {
        Self {
            chosen: Vec::new(),
            labels: PhantomData,
        }
    }

    /// The labels chosen.
    pub fn chosen(&self) -> &[&'static str] {
        &self.chosen
    }
}

/// What a task function may return, alone or in a [`Result`](crate::Result): every type that is `Serialize` and `JsonSchema`,
/// [`Outcome`] and [`Branch`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the answer of a task",
    note = "put `#[data]` on the type, or derive `Serialize` and `JsonSchema` for it",
    note = "a `Result` must be written `Result<…>` in the signature, not behind another name"
)]
pub trait TaskOutput: Sized {
    /// The JSON Schema of the return value.
    #[doc(hidden)]
    fn schema() -> Value;
    /// The labels, if this is a branch.
    #[doc(hidden)]
    fn labels() -> Option<&'static [&'static str]> {
        None
    }
    /// What goes to the host.
    #[doc(hidden)]
    fn into_answer(self) -> Result<Answer, Failure>;
}

impl<T: Serialize + JsonSchema> TaskOutput for T {
    fn schema() -> Value {
        schema::output_schema::<T>()
    }

    fn into_answer(self) -> Result<Answer, Failure> {
        match serde_json::to_string(&self) {
            Ok(json) => Ok(Answer::Done(json)),
            Err(error) => Err(
                Failure::fatal(format!("the return value cannot be written as JSON: {error}")).code("output_invalid"),
            ),
        }
    }
}

impl<T: TaskOutput> TaskOutput for Outcome<T> {
    fn schema() -> Value {
        T::schema()
    }

    fn labels() -> Option<&'static [&'static str]> {
        T::labels()
    }

    fn into_answer(self) -> Result<Answer, Failure> {
        match self {
            Self::Done(value) => value.into_answer(),
            Self::Skip(reason) => Ok(Answer::Skip(reason)),
            Self::Reschedule(after) => {
                // Rounded up: poking early would only mean poking once more.
                let millis = after.as_nanos().div_ceil(1_000_000).max(1);
                Ok(Answer::Reschedule(u64::try_from(millis).unwrap_or(u64::MAX)))
            }
        }
    }
}

impl<L: Labels> TaskOutput for Branch<L> {
    /// A branch task has no return value.
    fn schema() -> Value {
        schema::output_schema::<()>()
    }

    fn labels() -> Option<&'static [&'static str]> {
        Some(L::labels())
    }

    fn into_answer(self) -> Result<Answer, Failure> {
        Ok(Answer::Branch(self.chosen.into_iter().map(str::to_owned).collect()))
    }
}

/// `Result<T, E>` seen from the macro, which cannot name `T` and `E`.
pub trait Fallible {
    /// `T`.
    type Value;
    /// With the error made a failure.
    fn into_result(self) -> Result<Self::Value, Failure>;
}

impl<T, E: Into<Failure>> Fallible for Result<T, E> {
    type Value = T;

    fn into_result(self) -> Result<T, Failure> {
        self.map_err(Into::into)
    }
}

/// The last step of every task.
pub fn answer<T: TaskOutput>(returned: Result<T, Failure>) -> Result<Answer, Failure> {
    returned?.into_answer()
}
