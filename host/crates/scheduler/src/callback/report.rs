//! What an executor said of a callback, and what follows from it.

use std::time::Duration;

use model::callback::{CallbackKind, CallbackState};
use model::{Cause, Timestamp};
use ports::callback::{CallbackChange, CallbackId};
use ports::executor::{TryFailure, TryId, TryOutcome, TryReport};
use serde_json::Value;

use crate::config::Config;

/// How often a callback is given to an executor.
pub(crate) const ATTEMPTS: u32 = 3;
/// The key of a return value (Airflow: `XCOM_RETURN_KEY`).
const RETURN_VALUE: &str = "return_value";
/// The longest message that is kept, in bytes.
const MAX_MESSAGE_BYTES: usize = 8 << 10;

/// The change that a report brings. None for the report: it was handed back, and that does not count as an attempt.
pub(crate) fn ended(
    config: &Config,
    id: &TryId,
    kind: CallbackKind,
    report: Option<&TryReport>,
    started_at: Option<Timestamp>,
    now: Timestamp,
) -> Option<CallbackChange> {
    let callback = id.callback?;
    let attempt = id.dispatch.0;
    let Some(report) = report else {
        return Some(CallbackChange {
            state: CallbackState::Queued,
            attempt: attempt.saturating_sub(1),
            ..unchanged(callback)
        });
    };
    let base = CallbackChange {
        attempt,
        started_at: started_at.or(Some(report.started_at)),
        ended_at: Some(report.ended_at.min(now)),
        ..unchanged(callback)
    };
    let failed = |cause: Cause, fatal: bool, code: Option<String>, message: &str| {
        let message = message
            .get(..message.floor_char_boundary(MAX_MESSAGE_BYTES))
            .unwrap_or_default();
        let again = !fatal && attempt < ATTEMPTS;
        CallbackChange {
            state: if again {
                CallbackState::Queued
            } else {
                CallbackState::Failed
            },
            next_at: again.then(|| now.plus(delay(config, attempt))),
            cause: Some(cause),
            code,
            message: Some(message.to_owned()),
            ..base.clone()
        }
    };
    Some(match &report.outcome {
        TryOutcome::Done { .. } | TryOutcome::Skip { .. } => CallbackChange {
            state: CallbackState::Success,
            text: (kind == CallbackKind::Notification).then(|| text(report)),
            message: match &report.outcome {
                TryOutcome::Skip { reason } => Some(reason.clone()),
                _ => None,
            },
            ..base
        },
        TryOutcome::Failed(TryFailure {
            cause,
            message,
            fatal,
            code,
            ..
        }) => failed(*cause, *fatal, code.clone(), message),
        TryOutcome::Branch { .. }
        | TryOutcome::Reschedule { .. }
        | TryOutcome::AwaitInput { .. }
        | TryOutcome::TriggerDag(_)
        | TryOutcome::WaitForDag(_) => failed(
            Cause::ContractViolation,
            true,
            None,
            "a callback must be done when it answers: it can neither choose a branch nor be poked again",
        ),
    })
}

/// The wait after an attempt that failed.
fn delay(config: &Config, attempt: u32) -> Duration {
    config
        .callback_retry_delay
        .saturating_mul(1 << attempt.saturating_sub(1).min(16))
}

/// A change that says nothing yet.
pub(crate) const fn unchanged(id: CallbackId) -> CallbackChange {
    CallbackChange {
        id,
        state: CallbackState::Queued,
        attempt: 0,
        next_at: None,
        started_at: None,
        ended_at: None,
        cause: None,
        code: None,
        message: None,
        text: None,
    }
}

/// The text of a notification is its return value.
fn text(report: &TryReport) -> String {
    let value = report.xcoms.iter().find(|push| push.key == RETURN_VALUE);
    match value.and_then(|push| serde_json::from_str(&push.value).ok()) {
        Some(Value::String(text)) => text,
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
