//! Many instances of one task: one line with counts, and those that failed by their index.

use std::collections::{BTreeMap, HashMap};

use model::Timestamp;
use serde_json::{Value, json};

use super::run_view::{TaskLine, is_older};

/// Failed instances of one task that are shown one by one.
pub(crate) const MAX_FAILED: usize = 20;

/// How many instances are in which state.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tally(BTreeMap<String, usize>);

impl Tally {
    fn add(&mut self, state: &str) {
        match self.0.get_mut(state) {
            Some(count) => *count += 1,
            None => drop(self.0.insert(state.to_owned(), 1)),
        }
    }

    fn remove(&mut self, state: &str) {
        if let Some(count) = self.0.get_mut(state) {
            *count = count.saturating_sub(1);
        }
    }

    fn count(&self, state: &str) -> usize {
        self.0.get(state).copied().unwrap_or(0)
    }

    /// What is removed is no instance any more.
    pub(crate) fn total(&self) -> usize {
        self.0.values().sum::<usize>() - self.count("removed")
    }

    /// How many have ended.
    pub(crate) fn done(&self) -> usize {
        ["success", "failed", "skipped", "upstream_failed"]
            .iter()
            .map(|state| self.count(state))
            .sum()
    }

    /// The state of all of them together.
    pub(crate) fn state(&self) -> &'static str {
        let order: &[&'static str] = if self.done() == self.total() {
            &["failed", "upstream_failed", "success", "skipped"]
        } else {
            &[
                "running",
                "awaiting_input",
                "restarting",
                "queued",
                "up_for_reschedule",
                "up_for_retry",
                "deferred",
                "scheduled",
            ]
        };
        order.iter().find(|state| self.count(state) > 0).copied().unwrap_or("")
    }

    /// `[37/100, 2 failed]`
    pub(crate) fn render(&self) -> String {
        let mut text = format!("[{}/{}", self.done(), self.total());
        for state in ["failed", "upstream_failed", "skipped"] {
            match self.count(state) {
                0 => {}
                count => text.push_str(&format!(", {count} {state}")),
            }
        }
        text + "]"
    }
}

/// What the live view knows of the instances of a task.
#[derive(Default)]
pub(super) struct Many {
    instances: HashMap<String, TaskLine>,
    tally: Tally,
    /// How many there are at least: those that wait are not all told of.
    expected: usize,
    /// How many had ended when it was said last.
    said: usize,
}

impl Many {
    /// An instance is like this now. False if that is no news.
    pub(super) fn take(&mut self, line: &TaskLine) -> bool {
        if let Some(known) = self.instances.get(&line.name) {
            if known == line || is_older(line, known) {
                return false;
            }
            self.tally.remove(&known.state);
        }
        self.tally.add(&line.state);
        self.instances.insert(line.name.clone(), line.clone());
        true
    }

    /// There are so many.
    pub(super) fn expect(&mut self, instances: usize) {
        self.expected = self.expected.max(instances);
    }

    fn all(&self) -> Tally {
        let mut all = self.tally.clone();
        let unseen = self.expected.saturating_sub(self.instances.len());
        if unseen > 0 {
            *all.0.entry("scheduled".to_owned()).or_default() += unseen;
        }
        all
    }

    /// All of them as one line.
    pub(super) fn line(&self, task: &str) -> TaskLine {
        let all = self.all();
        TaskLine {
            name: format!("{task} {}", all.render()),
            state: all.state().to_owned(),
            ..TaskLine::default()
        }
    }

    /// Whether another tenth of them has ended, or the last one, since this was asked.
    pub(super) fn is_news(&mut self) -> bool {
        let all = self.all();
        let (done, total) = (all.done(), all.total());
        self.said = self.said.min(done);
        let news = done >= self.said + (total / 10).max(1) || (done == total && done > self.said);
        if news {
            self.said = done;
        }
        news
    }
}

fn text<'v>(row: &'v Value, key: &str) -> &'v str {
    row.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn is_one_of_many(row: &Value) -> bool {
    row.get("map_index")
        .and_then(Value::as_i64)
        .is_some_and(|index| index >= 0)
}

/// The name of a task instance: the task's, with the map index and what that is called.
fn name(row: &Value) -> String {
    let index = row.get("map_index").unwrap_or(&Value::Null);
    match text(row, "rendered_map_index") {
        "" => format!("{}[{index}]", text(row, "task_id")),
        called => format!("{}[{index}] {called}", text(row, "task_id")),
    }
}

/// Task instances of the API, in the order of their keys, for a table of tasks.
pub(crate) fn collapse(rows: Vec<Value>) -> Vec<Value> {
    let mut shown = Vec::new();
    let same = |left: &Value, right: &Value| {
        is_one_of_many(left) && is_one_of_many(right) && text(left, "task_id") == text(right, "task_id")
    };
    for many in rows.chunk_by(same) {
        match many {
            [one] if !is_one_of_many(one) => shown.push(one.clone()),
            many => summarise(many, &mut shown),
        }
    }
    shown
}

/// Task instances one by one, under their own names.
pub(crate) fn named(mut rows: Vec<Value>) -> Vec<Value> {
    for row in rows.iter_mut().filter(|row| is_one_of_many(row)) {
        let name = name(row);
        if let Some(task) = row.get_mut("task_id") {
            *task = name.into();
        }
    }
    rows
}

fn summarise(many: &[Value], shown: &mut Vec<Value>) {
    let mut tally = Tally::default();
    for row in many {
        tally.add(text(row, "state"));
    }
    let time = |row: &Value, key: &str| text(row, key).parse::<Timestamp>().ok();
    let start = many.iter().filter_map(|row| time(row, "start_date")).min();
    let end = many.iter().filter_map(|row| time(row, "end_date")).max();
    let end = end.filter(|_| tally.done() == tally.total());
    let number = |key: &str| many.iter().filter_map(|row| row.get(key)?.as_u64()).max();
    let first = many.first().map_or("", |row| text(row, "task_id"));
    shown.push(json!({
        "task_id": format!("{first} {}", tally.render()),
        "state": tally.state(),
        "try_number": number("try_number"),
        "peak_memory_bytes": number("peak_memory_bytes"),
        "start_date": start,
        "duration": start.zip(end).map(|(start, end)| end.since(start).as_secs_f64()),
    }));
    let failed: Vec<Value> = many
        .iter()
        .filter(|row| text(row, "state") == "failed")
        .cloned()
        .collect();
    let more = failed.len().saturating_sub(MAX_FAILED);
    shown.extend(named(failed.into_iter().take(MAX_FAILED).collect()));
    if more > 0 {
        shown.push(json!({"task_id": format!("{first}[…]"), "message": format!("{more} more failed"), "cause_message": format!("{more} more failed")}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(index: i64, state: &str) -> Value {
        json!({"task_id": "clean", "map_index": index, "state": state, "try_number": 1, "rendered_map_index": format!("{index}.csv"),
            "start_date": "2026-01-31T04:00:00Z", "end_date": "2026-01-31T04:00:02Z"})
    }

    #[test]
    fn ten_thousand_instances_are_one_line_and_the_failed_ones() {
        let mut rows = vec![json!({"task_id": "load", "map_index": -1, "state": "success"})];
        rows.extend((0..10_000).map(|index| row(index, if index % 5_000 == 7 { "failed" } else { "success" })));
        let shown = collapse(rows);
        let names: Vec<_> = shown.iter().map(|row| text(row, "task_id")).collect();
        assert_eq!(
            names,
            [
                "load",
                "clean [10000/10000, 2 failed]",
                "clean[7] 7.csv",
                "clean[5007] 5007.csv"
            ]
        );
        assert_eq!(shown[1]["state"], "failed");
        assert_eq!(shown[1]["duration"], 2.0);
    }

    #[test]
    fn failed_ones_are_bounded_too() {
        let shown = collapse((0..100).map(|index| row(index, "failed")).collect());
        assert_eq!(shown.len(), MAX_FAILED + 2);
        assert_eq!(shown[MAX_FAILED + 1]["cause_message"], "80 more failed");
    }

    #[test]
    fn what_waits_to_be_expanded_is_a_task_as_any_other() {
        let rows = vec![json!({"task_id": "clean", "map_index": -1, "state": null})];
        assert_eq!(collapse(rows.clone()), rows);
    }

    #[test]
    fn a_line_follows_its_instances() {
        let mut many = Many::default();
        let mut take = |index: usize, state: &str| {
            let line = TaskLine {
                name: format!("clean[{index}]"),
                state: state.to_owned(),
                try_number: 1,
                ..TaskLine::default()
            };
            many.take(&line).then(|| (many.line("clean").name, many.is_news()))
        };
        take(0, "running");
        many.expect(100);
        let mut take = |index: usize, state: &str| {
            let line = TaskLine {
                name: format!("clean[{index}]"),
                state: state.to_owned(),
                try_number: 1,
                ..TaskLine::default()
            };
            many.take(&line).then(|| (many.line("clean").name, many.is_news()))
        };
        for index in 1..50 {
            take(index, "running");
        }
        assert_eq!(take(3, "queued"), None, "what was overtaken is no news");
        let news: Vec<String> = (0..100)
            .filter_map(|index| take(index, if index == 50 { "failed" } else { "success" }))
            .filter(|(_, news)| *news)
            .map(|(line, _)| line)
            .collect();
        assert_eq!(news.len(), 10);
        assert_eq!(news[3], "clean [40/100]");
        assert_eq!(news[9], "clean [100/100, 1 failed]");
    }
}
