//! The generated bindings and the component's exports. Nothing of this is visible to authors.

#![expect(
    unsafe_code,
    reason = "the canonical ABI is unsafe by nature; all of it is generated"
)]
#![expect(clippy::allow_attributes_without_reason, reason = "generated")]

wit_bindgen::generate!({
    world: "task",
    path: "../wit",
    default_bindings_module: "crate::bindings",
});

use std::io::Write;

use airtight::task::types::FailureKind;
use exports::airtight::task::guest::{Failure, Guest, Outcome};

use crate::answer::Answer;
use crate::registry;

struct Component;

impl Guest for Component {
    fn describe() -> String {
        registry::describe().to_string()
    }

    fn run(task: String, input: String) -> Result<Outcome, Failure> {
        let answer = registry::run(&task, &input);
        // Nobody else does: a component has no `main` to return from. A closed standard output is no reason to fail.
        let _ = std::io::stdout().flush();
        match answer {
            Ok(Answer::Done(json)) => Ok(Outcome::Done(json)),
            Ok(Answer::Skip(reason)) => Ok(Outcome::Skip(reason)),
            Ok(Answer::Branch(labels)) => Ok(Outcome::Branch(labels)),
            Ok(Answer::Reschedule(millis)) => Ok(Outcome::Reschedule(millis)),
            Err(failure) => Err(Failure {
                message: failure.message().to_owned(),
                kind: match failure.kind() {
                    crate::FailureKind::Retryable => FailureKind::Retryable,
                    crate::FailureKind::Fatal => FailureKind::Fatal,
                },
                code: failure.get_code().map(str::to_owned),
                details: failure.get_details().map(ToString::to_string),
            }),
        }
    }
}

export!(Component);
