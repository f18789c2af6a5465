//! Questions to people and their answers, as a draft notes them.

use model::human::{Answer, HumanStep, REJECTED};
use model::run::TryEnd;
use model::{TaskInstanceState, Timestamp};
use ports::control::ControlError;
use ports::executor::{TryOutcome, TryReport};
use ports::payload::XcomValue;
use ports::store::{HitlAnswer, HitlRequest, XcomWrite};

use crate::outcome::Details;
use crate::run::{Draft, Place};

/// The key of a return value (Airflow: `XCOM_RETURN_KEY`).
const RETURN_VALUE: &str = "return_value";

impl Draft {
    fn step(&self, place: Place) -> Option<&HumanStep> {
        self.live.version.dag().task(place.0)?.work.human()
    }

    /// An executor rendered the question.
    pub(crate) fn asked(&mut self, report: &TryReport) {
        if let TryOutcome::AwaitInput { subject, body } = &report.outcome {
            self.hitl_requests.push(HitlRequest {
                ti: report.id.ti,
                try_number: report.id.try_number,
                subject: subject.clone(),
                body: body.clone(),
            });
        }
    }

    /// Notes an answer with all that follows from it but the run's decisions; answers what it means for those.
    pub(crate) fn answer(
        &mut self,
        place: Place,
        answer: &Answer,
        at: Timestamp,
        user: Option<&str>,
    ) -> Option<TryEnd> {
        let task = self.live.version.dag().task(place.0)?;
        let end = task.work.human()?.end(task, &answer.chosen_options);
        let try_number = self.state.ti(place.0, place.1)?.try_number;
        let ti = self.ti(place);
        self.hitl_answers.push(HitlAnswer {
            ti,
            try_number,
            user: user.map(str::to_owned),
            at,
            chosen_options: answer.chosen_options.clone(),
            params_input: answer.params_input.to_string(),
        });
        if let TryEnd::Failed { .. } = end {
            let details = Details {
                message: Some("it was rejected".to_owned()),
                code: Some(REJECTED.to_owned()),
                ..Details::default()
            };
            self.details.insert(place, Some(details));
        } else {
            let value = answer.return_value(at, user);
            // As in the configuration of a run: who may answer may name blobs. What is no reference to a try is none here.
            let blobs = model::json::check(&value, u64::MAX).unwrap_or_default();
            self.xcoms.push(XcomWrite {
                ti,
                key: RETURN_VALUE.to_owned(),
                value: XcomValue {
                    value: value.into(),
                    blobs,
                },
            });
        }
        Some(end)
    }

    /// Nobody answered in time, and the run went on with the defaults.
    pub(crate) fn take_defaults(&mut self, place: Place, now: Timestamp) {
        if let Some(answer) = self.step(place).and_then(HumanStep::default_answer) {
            self.answer(place, &answer, now, None);
        }
    }

    /// Whether a try ended because its question went unanswered.
    pub(crate) fn nobody_answered(&self, place: Place, now: Timestamp) -> bool {
        let waited_since = self.state.ti(place.0, place.1).and_then(|ti| ti.start_date);
        self.step(place)
            .and_then(|step| step.timeout)
            .zip(waited_since)
            .is_some_and(|(timeout, since)| since.plus(timeout) <= now)
    }
}

/// Refuses an answer that nobody waits for.
pub(crate) fn check_waits(draft: &Draft, place: Place) -> Result<(), ControlError> {
    let Some(ti) = draft.state.ti(place.0, place.1) else {
        return Err(ControlError::NotAsked(format!(
            "the task has no instance with map index {}",
            place.1.0
        )));
    };
    if ti.state == TaskInstanceState::AwaitingInput {
        return Ok(());
    }
    let is = match ti.state {
        TaskInstanceState::NoStatus => "has not started".to_owned(),
        state => format!("is `{state}`"),
    };
    Err(ControlError::Conflict(format!(
        "the task instance {is}; only one that is `awaiting_input` takes an answer, and only one answer"
    )))
}

/// What the audit log says of an answer.
pub(crate) fn audit_extra(draft: &Draft, place: Place) -> String {
    let task = draft.live.version.dag().task(place.0);
    let task_id = task.map(|task| task.id.as_str()).unwrap_or_default();
    serde_json::json!({"task_id": task_id, "map_index": place.1.0}).to_string()
}

/// A refusal to answer with: a tick may be taken twice, so it does not give away what it was handed.
pub(crate) fn copy(error: &ControlError) -> ControlError {
    match error {
        ControlError::InvalidAnswer { problems } => ControlError::InvalidAnswer {
            problems: problems.clone(),
        },
        ControlError::Forbidden(why) => ControlError::Forbidden(why.clone()),
        other => ControlError::Conflict(other.to_string()),
    }
}
