//! Answers to the questions that a DAG asks while it is tested: from the terminal if there is one, else its defaults.

use std::collections::HashSet;
use std::io::IsTerminal as _;

use model::human::{Answer, HumanStep};
use model::{Dag, TaskInstanceState, TiKey, TryNumber};
use ports::control::{Control as _, ControlError, RespondRequest};
use ports::query::RunRow;
use scheduler::{Handle, MemoryStore};
use serde_json::Map;
use tokio::sync::oneshot;

use super::session::{USER, control};
use crate::cli::value_argument;
use crate::failure::{Exit, Failure, OrFail as _, Result};
use crate::ui::{escape, term};

/// What was asked already.
#[derive(Default)]
pub(super) struct Asked(HashSet<(TiKey, TryNumber)>);

impl Asked {
    /// Answers all that waits for an answer.
    pub(super) async fn answer_all(
        &mut self,
        handle: &Handle,
        store: &MemoryStore,
        dag: &Dag,
        run: &RunRow,
        mut before: impl FnMut(),
    ) -> Result<()> {
        let waiting = store
            .task_instances(run.key)
            .into_iter()
            .filter(|ti| ti.state == TaskInstanceState::AwaitingInput);
        for ti in waiting {
            if !self.0.insert((ti.key, ti.try_number)) {
                continue;
            }
            let questions = store.hitl_of(run.key);
            let question = questions
                .into_iter()
                .map(|(question, _)| question)
                .find(|question| (question.ti, question.try_number) == (ti.key, ti.try_number));
            let step = dag.task(ti.key.task).and_then(|task| task.work.human());
            let (Some(question), Some(step)) = (question, step) else {
                continue;
            };
            before();
            term::errln(&format!("{} asks: {}", ti.task_id, escape::line(&question.subject)));
            if let Some(body) = &question.body {
                term::errln(&escape::block(body));
            }
            let answer = if std::io::stdin().is_terminal() {
                from_terminal(step.clone()).await?
            } else {
                from_defaults(step, ti.task_id.as_str())?
            };
            let request = RespondRequest {
                dag_id: run.dag_id.clone(),
                run_id: run.run_id.clone(),
                task_id: ti.task_id.clone(),
                map_index: ti.key.map_index,
                chosen_options: answer.chosen_options,
                params_input: answer.params_input.as_object().cloned().unwrap_or_default(),
                user: step.assigned_users.first().map_or(USER, String::as_str).to_owned(),
            };
            match handle.respond(request).await {
                Ok(_) => {}
                // Time ran out while somebody was typing.
                Err(ControlError::Conflict(why)) => term::errln(&why),
                Err(error) => return Err(control(error)),
            }
        }
        Ok(())
    }
}

fn from_defaults(step: &HumanStep, task: &str) -> Result<Answer> {
    let chosen = step.defaults.as_ref();
    match chosen.map(|chosen| step.check(chosen, &Map::new())) {
        Some(Ok(answer)) => {
            term::errln(&format!(
                "standard input is no terminal; taking {}",
                answer.chosen_options.join(", ")
            ));
            Ok(answer)
        }
        Some(Err(problems)) => Err(Failure::new(
            Exit::Invalid,
            format!(
                "task `{task}` asks a person, and its defaults do not answer it: {}",
                problems.join("; ")
            ),
        )),
        None => Err(Failure::new(
            Exit::Invalid,
            format!("task `{task}` asks a person, but standard input is no terminal and the task has no `defaults`"),
        )
        .hint("run it in a terminal, or give the task `defaults: [option]`")),
    }
}

/// Asks until the answer fits. The thread that reads is left behind when the program ends.
async fn from_terminal(step: HumanStep) -> Result<Answer> {
    let (sender, answer) = oneshot::channel();
    std::thread::spawn(move || {
        let _ = sender.send(prompt(
            &step,
            &mut std::io::stdin().lock(),
            &mut std::io::stderr().lock(),
        ));
    });
    answer
        .await
        .ok()
        .and_then(|answer| answer.transpose())
        .unwrap_or_else(|| Err(std::io::ErrorKind::UnexpectedEof.into()))
        .or_fail(Exit::Interrupted, || "nobody answered".to_owned())
}

/// Asks; none at the end of the input.
fn prompt(
    step: &HumanStep,
    input: &mut impl std::io::BufRead,
    output: &mut impl std::io::Write,
) -> std::io::Result<Option<Answer>> {
    'again: loop {
        for (at, option) in step.options.iter().enumerate() {
            let is_default = step.defaults.iter().flatten().any(|default| default == option);
            let mark = if is_default { " (default)" } else { "" };
            writeln!(output, "  {}  {}{mark}", at + 1, escape::line(option))?;
        }
        let how = if step.multiple {
            "numbers or names, separated by commas"
        } else {
            "a number or a name"
        };
        let Some(line) = ask(input, output, &format!("Choose {how}: "))? else {
            return Ok(None);
        };
        let mut chosen: Vec<String> = line
            .split(',')
            .map(str::trim)
            .filter(|word| !word.is_empty())
            .map(|word| {
                let by_number = word
                    .parse::<usize>()
                    .ok()
                    .and_then(|number| step.options.get(number.checked_sub(1)?));
                by_number.cloned().unwrap_or_else(|| word.to_owned())
            })
            .collect();
        if step.options.contains(&line) {
            chosen = vec![line];
        }
        if chosen.is_empty() {
            chosen = step.defaults.clone().unwrap_or_default();
        }
        let mut entered = Map::new();
        for (name, param) in &step.params {
            let default = param
                .default
                .as_ref()
                .map(|default| format!(" [{default}]"))
                .unwrap_or_default();
            let Some(text) = ask(
                input,
                output,
                &format!("{}{}: ", escape::line(name), escape::line(&default)),
            )?
            else {
                return Ok(None);
            };
            if !text.is_empty() {
                match value_argument(&text) {
                    Ok(value) => entered.insert(name.clone(), value),
                    Err(error) => {
                        writeln!(output, "{}: {}", escape::line(name), escape::line(&error.to_string()))?;
                        continue 'again;
                    }
                };
            }
        }
        match step.check(&chosen, &entered) {
            Ok(answer) => return Ok(Some(answer)),
            Err(problems) => {
                for problem in problems {
                    writeln!(output, "{}", escape::line(&problem))?;
                }
            }
        }
    }
}

fn ask(
    input: &mut impl std::io::BufRead,
    output: &mut impl std::io::Write,
    question: &str,
) -> std::io::Result<Option<String>> {
    write!(output, "{question}")?;
    output.flush()?;
    let mut line = String::new();
    let read = input.read_line(&mut line)?;
    Ok((read > 0).then(|| line.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use model::dag::Param;
    use model::human::OnTimeout;
    use serde_json::json;

    use super::*;

    fn step() -> HumanStep {
        let amount = Param {
            schema: json!({"type": "integer", "minimum": 1}),
            default: Some(json!(10)),
        };
        HumanStep {
            options: vec!["small".to_owned(), "large, very".to_owned()],
            defaults: Some(vec!["small".to_owned()]),
            multiple: false,
            params: [("amount".to_owned(), amount)].into_iter().collect(),
            assigned_users: Vec::new(),
            timeout: None,
            on_timeout: OnTimeout::Default,
            approval: None,
            branches: false,
        }
    }

    fn typed(text: &str) -> (Option<Answer>, String) {
        let mut output = Vec::new();
        let answer = prompt(&step(), &mut text.as_bytes(), &mut output).unwrap();
        (answer, String::from_utf8(output).unwrap())
    }

    #[test]
    fn a_value_that_would_not_be_kept_is_asked_for_again() {
        let (answer, shown) = typed("1\n123456789012345678901234567890\n1\n7\n");
        assert_eq!(answer.unwrap().params_input, json!({"amount": 7}));
        assert!(shown.contains("more than 64 bits"), "{shown}");
    }

    #[test]
    fn an_answer_is_typed_by_number_by_name_or_left_to_the_defaults() {
        for (text, option, amount) in [
            ("2\n5\n", "large, very", 5),
            ("large, very\n\n", "large, very", 10),
            ("\n\n", "small", 10),
        ] {
            let answer = typed(text).0.unwrap();
            assert_eq!(
                (answer.chosen_options, answer.params_input),
                (vec![option.to_owned()], json!({"amount": amount}))
            );
        }
    }

    #[test]
    fn what_does_not_fit_is_asked_again_and_the_end_of_the_input_is_no_answer() {
        let (answer, shown) = typed("3\n0\n1\n4\n");
        assert_eq!(answer.unwrap().params_input, json!({"amount": 4}));
        assert!(shown.contains("`3` is not one of the options"), "{shown}");
        assert!(shown.contains("parameter `amount` is not valid"), "{shown}");
        assert_eq!(typed("1\n").0, None);
        assert_eq!(typed("").0, None);
    }

    #[test]
    fn without_a_terminal_the_defaults_answer_or_nothing_does() {
        assert_eq!(from_defaults(&step(), "t").unwrap().chosen_options, ["small"]);
        let none = HumanStep {
            defaults: None,
            ..step()
        };
        assert!(from_defaults(&none, "t").is_err());
    }
}
