//! `qa_score` and `qa_gate`: from the scores of the stages to a decision, and to what a person needs to take it.

use std::fmt::Write as _;

use airtight_sdk::prelude::*;
use radio_domain::{Context, StageScore, Verdict};

#[data]
struct Judge {
    context: Context,
}

#[data]
struct Judgement {
    /// The lowest of all stages.
    score: f64,
    verdict: Verdict,
    /// The stage that has it.
    worst_stage: String,
    stages: Vec<StageScore>,
    /// One line, for the subject of a question to a person.
    subject: String,
    /// All scores and reasons, as Markdown: what the person reads.
    body: String,
}

/// Sums the scores of all stages up: the whole is as good as its worst stage.
#[task]
fn qa_score(input: Judge) -> Result<Judgement> {
    let Some(worst) = input.context.worst().cloned() else {
        return Err(Failure::fatal("no stage was scored yet").code("no_scores"));
    };
    let verdict = Verdict::from(worst.score);
    let subject = format!("Radio imaging is {verdict}: {} scores {:.2}", worst.stage, worst.score);
    info!(score = worst.score, stage = worst.stage, "{subject}");
    Ok(Judgement {
        score: worst.score,
        verdict,
        worst_stage: worst.stage,
        subject,
        body: describe(&input.context),
        stages: input.context.qa,
    })
}

/// The scores as Markdown.
pub(crate) fn describe(context: &Context) -> String {
    let mut text = String::from("| stage | score | verdict |\n|---|---:|---|\n");
    // Writing to a string does not fail.
    for StageScore { stage, score, .. } in &context.qa {
        let _ = writeln!(text, "| {stage} | {score:.2} | {} |", Verdict::from(*score));
    }
    for StageScore { stage, reasons, .. } in &context.qa {
        for reason in reasons {
            let _ = write!(text, "\n* **{stage}:** {reason}.");
        }
    }
    text
}

#[data]
struct Gate {
    /// What `qa_score` answered.
    score: f64,
    /// From this score on nobody is asked.
    #[serde(default = "default_minimum")]
    #[schemars(range(min = 0.0, max = 1.0))]
    minimum: f64,
}

fn default_minimum() -> f64 {
    0.9
}

#[derive(Labels)]
enum Decision {
    /// Good enough: goes on by itself.
    Accept,
    /// A person has to look at it.
    Review,
}

/// Lets good results pass and sends others to a person.
#[task]
fn qa_gate(input: Gate) -> Branch<Decision> {
    // A score that is no number is not good enough.
    if input.score >= input.minimum {
        Branch::to(Decision::Accept)
    } else {
        warn!(
            score = input.score,
            minimum = input.minimum,
            "a person has to look at it"
        );
        Branch::to(Decision::Review)
    }
}

#[cfg(test)]
mod tests {
    use airtight_sdk::testing::{Ran, run};

    use super::*;

    #[test]
    fn the_worst_stage_decides() {
        let mut context = Context::default();
        assert_eq!(
            qa_score(Judge {
                context: context.clone()
            })
            .map(|_| ())
            .unwrap_err()
            .get_code(),
            Some("no_scores")
        );
        context.score("calibration", 0.8, vec!["channel 2 is noisy".to_owned()]);
        context.score("imaging", 1.0, Vec::new());
        let judgement = qa_score(Judge { context }).unwrap();
        assert_eq!((judgement.score, judgement.verdict), (0.8, Verdict::Usable));
        assert_eq!(judgement.subject, "Radio imaging is usable: calibration scores 0.80");
        assert_eq!(
            judgement.body,
            "| stage | score | verdict |\n|---|---:|---|\n| calibration | 0.80 | usable |\n| imaging | 1.00 | good |\n\n\
             * **calibration:** channel 2 is noisy."
        );
    }

    #[test]
    fn the_gate_asks_a_person_below_the_minimum() {
        let labels = |input| run("qa_gate", &input).unwrap();
        assert_eq!(labels(json!({"score": 0.9})), Ran::Branch(vec!["accept".to_owned()]));
        assert_eq!(labels(json!({"score": 0.89})), Ran::Branch(vec!["review".to_owned()]));
        assert_eq!(
            labels(json!({"score": 0.5, "minimum": 0.5})),
            Ran::Branch(vec!["accept".to_owned()])
        );
    }
}
