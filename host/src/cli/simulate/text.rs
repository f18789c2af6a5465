//! The report for people, made for 100 columns.

use model::simulate::{Hang, Outcome, Scenario, Single};
use model::{TaskIndex, TaskInstanceState};
use unicode_width::UnicodeWidthStr;

use super::{Simulated, state};
use crate::ui::output::plain_table;
use crate::ui::term::Paint;
use crate::ui::{escape, format};

const WIDTH: usize = 100;

/// Tasks that wait for slots which are shown, those that wait longest.
const WAITS: usize = 5;

/// Rows of a table that are shown; JSON has them all.
const ROWS: usize = 80;

pub(super) fn render(simulated: &Simulated, paint: Paint) -> String {
    let mut page = Page {
        simulated,
        paint,
        text: String::new(),
    };
    page.happy();
    page.requested();
    page.choices();
    page.singles();
    page.unnoticed();
    page.remarks();
    page.end();
    page.text.trim_end().to_owned()
}

struct Page<'a> {
    simulated: &'a Simulated,
    paint: Paint,
    text: String,
}

impl Page<'_> {
    fn line(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn heading(&mut self, heading: &str) {
        let heading = self.paint.bold(heading);
        self.line("");
        self.line(&heading);
    }

    /// Text in lines of the page's width, each after `indent`, the first after `mark`.
    fn wrapped(&mut self, mark: &str, text: &str) {
        let indent = " ".repeat(mark.width());
        let mut line = mark.to_owned();
        let mut empty = true;
        for word in escape::line(text).split(' ') {
            if !empty && line.width() + 1 + word.width() > WIDTH {
                self.line(&line);
                line.clone_from(&indent);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        self.line(&line);
    }

    fn names(&self, tasks: &[TaskIndex]) -> String {
        let names: Vec<String> = tasks.iter().map(|task| self.simulated.name(*task)).collect();
        names.join(", ")
    }

    /// As many names as fit, and how many more there are.
    fn some_names(&self, tasks: &[TaskIndex], width: usize) -> String {
        let mut shown = String::new();
        for (at, task) in tasks.iter().enumerate() {
            let name = self.simulated.name(*task);
            let rest = tasks.len() - at;
            if at > 0 && shown.width() + name.width() + 8 > width {
                return format!("{shown}, +{rest}");
            }
            if at > 0 {
                shown.push_str(", ");
            }
            shown.push_str(&name);
        }
        escape::shorten(&shown, width).into_owned()
    }

    fn happy(&mut self) {
        let simulated = self.simulated;
        let happy = &simulated.report.happy;
        let tasks = simulated.dag.tasks.len();
        self.line(&format!(
            "{}: {tasks} {}, nothing is run",
            self.paint.bold(&escape::line(simulated.dag.id.as_str())),
            if tasks == 1 { "task" } else { "tasks" }
        ));
        self.heading("When nothing goes wrong");
        let ended = self.ended(happy);
        self.line(&format!("  {ended}"));
        let path: Vec<String> = happy
            .critical_path
            .iter()
            .map(|stretch| {
                let name = crate::local::instance_name(&simulated.name(stretch.task), stretch.map_index);
                format!("{name} {}", format::duration(stretch.to.saturating_sub(stretch.from)))
            })
            .collect();
        if !path.is_empty() {
            self.wrapped("  longest way: ", &path.join(" → "));
        }
        for (task, wait) in happy.waits.iter().take(WAITS) {
            let (name, wait) = (simulated.name(*task), format::duration(*wait));
            let slots = simulated.simulator.slots(*task);
            self.wrapped("  waits for slots: ", &format!("{name} {wait} ({slots})"));
        }
    }

    fn ended(&self, outcome: &Outcome) -> String {
        let word = state(outcome.state, outcome.hang.is_some());
        let word = match outcome.hang {
            Some(_) => self.paint.red(word),
            None => self.paint.state(word),
        };
        format!("{word} after {}", format::duration(outcome.run_time))
    }

    fn requested(&mut self) {
        let simulated = self.simulated;
        let Some((scenario, outcome)) = &simulated.requested else {
            return;
        };
        self.heading(&format!(
            "As asked: {}",
            escape::line(&scenario.in_words(&simulated.dag))
        ));
        let ended = self.ended(outcome);
        self.line(&format!("  {ended}"));
        let titles = ["TASK", "STATE", "TRIES", "CAUSE"]
            .map(|title| self.paint.dim(title))
            .to_vec();
        let rows = outcome.tis.iter().take(ROWS).map(|ti| {
            let state = match ti.state {
                TaskInstanceState::NoStatus => String::new(),
                state => self.paint.state(state.as_str()),
            };
            vec![
                escape::shorten(&crate::local::instance_name(&simulated.name(ti.task), ti.map_index), 50).into_owned(),
                state,
                ti.tries.to_string(),
                ti.cause.map(|cause| cause.to_string()).unwrap_or_default(),
            ]
        });
        let table = plain_table(titles, rows.collect());
        self.line(&table);
        self.more(outcome.tis.len(), "task instances");
    }

    fn more(&mut self, of: usize, what: &str) {
        if of > ROWS {
            self.line(&format!("… and {} more {what}; `--output json` has all", of - ROWS));
        }
    }

    fn choices(&mut self) {
        let report = &self.simulated.report;
        if report.choices.is_empty() {
            return;
        }
        self.heading("Other choices");
        let titles = ["CHOICE", "RUN", "RUN TIME", "DOES NOT RUN"]
            .map(|title| self.paint.dim(title))
            .to_vec();
        let rows = report.choices.iter().take(ROWS).map(|played| {
            let words = played.scenario.in_words(&self.simulated.dag);
            let words = escape::shorten(&escape::line(&words), 40).into_owned();
            vec![
                words,
                self.paint.state(state(played.state, played.hang.is_some())),
                format::duration(played.run_time),
                self.some_names(&played.not_run, 30),
            ]
        });
        let table = plain_table(titles, rows.collect());
        self.line(&table);
        self.more(report.choices.len(), "choices");
    }

    /// One row for all faults of a task that come to the same.
    fn singles(&mut self) {
        let report = &self.simulated.report;
        self.heading("One failure at a time");
        let mut groups: Vec<Vec<&Single>> = Vec::new();
        for single in &report.singles {
            let alike = |group: &&mut Vec<&Single>| group.first().is_some_and(|first| comes_to_the_same(first, single));
            match groups.iter_mut().rev().find(alike) {
                Some(group) => group.push(single),
                None => groups.push(vec![single]),
            }
        }
        let titles = ["TASK", "FAILURE", "ENDS AS", "RUN", "TRIES", "RUN TIME", "DOES NOT RUN"];
        let titles = titles.map(|title| self.paint.dim(title)).to_vec();
        let mut rows = Vec::new();
        let mut last = None;
        for group in groups.iter().take(ROWS) {
            let Some(first) = group.first() else { continue };
            let name = if last == Some(first.task) {
                String::new()
            } else {
                escape::shorten(&self.simulated.name(first.task), 18).into_owned()
            };
            last = Some(first.task);
            let mut faults = lines_of(group.iter().map(|single| single.fault.word())).into_iter();
            let task_state = first.task_state.map_or("", TaskInstanceState::as_str);
            rows.push(vec![
                name,
                faults.next().unwrap_or_default(),
                self.paint.state(task_state),
                self.paint.state(state(first.played.state, first.played.hang.is_some())),
                range(group.iter().map(|single| single.tries), |tries| tries.to_string()),
                range(group.iter().map(|single| single.played.run_time), format::duration),
                self.some_names(&first.played.not_run, 20),
            ]);
            rows.extend(faults.map(|more| vec![String::new(), more]));
        }
        let table = plain_table(titles, rows);
        self.line(&table);
        self.more(groups.len(), "rows");
    }

    fn unnoticed(&mut self) {
        let simulated = self.simulated;
        let unnoticed: Vec<_> = simulated
            .report
            .hidden
            .iter()
            .filter(|hidden| hidden.unnoticed())
            .collect();
        if unnoticed.is_empty() {
            let all_clear = format!(
                "{} no task fails without its run failing, or a task being there for it",
                self.paint.green("✓")
            );
            self.line("");
            self.line(&all_clear);
            return;
        }
        let heading = format!("FAILURES THAT NOBODY WOULD NOTICE ({})", unnoticed.len());
        let heading = self.paint.red(&heading);
        self.line("");
        self.line(&heading);
        for hidden in unnoticed {
            let how = if hidden.faults.is_empty() {
                hidden.scenario.in_words(&simulated.dag)
            } else {
                hidden
                    .faults
                    .iter()
                    .map(|fault| fault.word())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let text = format!(
                "{} fails ({how}), the run is a success: {}.",
                simulated.name(hidden.task),
                hidden.why(&simulated.dag)
            );
            self.wrapped("  ! ", &text);
            self.wrapped("    → ", &format!("{}.", hidden.advice(&simulated.dag)));
        }
    }

    fn remarks(&mut self) {
        let simulated = self.simulated;
        let report = &simulated.report;
        self.heading("Worth knowing");
        let before = self.text.len();
        for hidden in report.hidden.iter().filter(|hidden| !hidden.unnoticed()) {
            let name = simulated.name(hidden.task);
            self.wrapped("  • ", &format!("{name} fails: {}.", hidden.why(&simulated.dag)));
        }
        let lists = [
            (
                &report.soft,
                "Skipped where others would fail, with everything that needs them:",
            ),
            (&report.no_second_try, "One failed try fails the run (no `retries`):"),
            (
                &report.no_second_host,
                "One lost host fails the run (`rerun_on_loss: false`):",
            ),
            (&report.never_ran, "Never ran, whatever went wrong:"),
        ];
        for (tasks, what) in lists {
            if !tasks.is_empty() {
                let names = self.names(tasks.get(..20).unwrap_or(tasks));
                let more = tasks.len().saturating_sub(20);
                let more = if more > 0 {
                    format!(" and {more} more")
                } else {
                    String::new()
                };
                self.wrapped("  • ", &format!("{what} {names}{more}."));
            }
        }
        for (scenario, hang) in &report.hangs {
            let why = simulated.simulator.why(*hang);
            let what = match hang {
                Hang::Past(_) => "The run waits",
                _ => "The run never ends",
            };
            self.wrapped("  • ", &format!("{what}: {why} ({}).", self.words(scenario)));
        }
        for scenario in &report.deadlocks {
            let words = self.words(scenario);
            self.wrapped(
                "  • ",
                &format!("Nothing can move any more, and the run fails ({words})."),
            );
        }
        if self.text.len() == before {
            self.line("  nothing");
        }
    }

    fn words(&self, scenario: &Scenario) -> String {
        scenario.in_words(&self.simulated.dag)
    }

    fn end(&mut self) {
        let simulated = self.simulated;
        let report = &simulated.report;
        let random = &report.random;
        if random.count > 0 {
            self.heading("Several failures at a time");
            let text = format!(
                "{} random scenarios: {} failed, {} succeeded ({} of them with a failure that nobody would notice){}",
                random.count,
                random.failed,
                random.success,
                random.unnoticed,
                if random.hang > 0 {
                    format!(", {} never ended", random.hang)
                } else {
                    String::new()
                },
            );
            self.wrapped("  ", &text);
        }
        let rate = report.played as f64 / simulated.took.as_secs_f64().max(1e-6);
        let left_out = match report.left_out {
            0 => String::new(),
            some => format!("; {some} left out, for the DAG is large"),
        };
        let line = format!(
            "{} scenarios in {}, {:.0} a second, seed {}{left_out}",
            report.played,
            format::duration(simulated.took),
            rate,
            simulated.seed
        );
        let line = self.paint.dim(&line);
        self.line("");
        self.line(&line);
    }
}

fn comes_to_the_same(one: &Single, other: &Single) -> bool {
    let what = |single: &Single| (single.task, single.task_state, single.played.state, single.played.hang);
    what(one) == what(other) && one.played.not_run == other.played.not_run
}

/// The words in lines that a narrow column has room for.
fn lines_of(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() <= 20 => line.push_str(&format!(", {word}")),
            Some(line) => {
                line.push(',');
                lines.push(word);
            }
            None => lines.push(word),
        }
    }
    lines
}

/// `3`, or `1–3`.
fn range<T: Ord + Copy>(values: impl Iterator<Item = T> + Clone, show: impl Fn(T) -> String) -> String {
    let (Some(least), Some(most)) = (values.clone().min(), values.max()) else {
        return String::new();
    };
    let (least, most) = (show(least), show(most));
    if least == most {
        least
    } else {
        format!("{least}–{most}")
    }
}
