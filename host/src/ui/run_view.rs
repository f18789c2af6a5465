//! A run on the screen: its task instances, live while it goes on and as a table at the end; log lines.

use std::collections::HashMap;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;

use super::mapped::Many;
use super::term::{self, Paint};
use super::{escape, format};

/// What the view knows of one task instance.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TaskLine {
    /// Task id, with the map index where it has one.
    pub name: String,
    /// The task, where this is one of its many instances.
    pub of_many: Option<String>,
    /// Its state; empty where it has none yet.
    pub state: String,
    /// The try.
    pub try_number: u32,
    /// How long the last try took, or takes so far.
    pub duration: Option<Duration>,
    /// Why the last try ended.
    pub cause: String,
    /// What it said when it failed or skipped, or how far it is.
    pub note: String,
}

/// What a task instance of the API is called: `clean`, or `clean[3]` where it is one of several.
pub(crate) fn name_of(ti: &Value) -> String {
    let task_id = ti.get("task_id").and_then(Value::as_str).unwrap_or_default();
    match ti.get("map_index").and_then(Value::as_i64).filter(|index| *index >= 0) {
        Some(index) => format!("{task_id}[{index}]"),
        None => task_id.to_owned(),
    }
}

/// Adds to each object what its task instance is called, as `name`.
pub(crate) fn with_names(mut items: Vec<Value>) -> Vec<Value> {
    for item in &mut items {
        let name = name_of(item);
        if let Some(item) = item.as_object_mut() {
            item.insert("name".to_owned(), Value::from(name));
        }
    }
    items
}

impl TaskLine {
    /// Out of a task instance of the API.
    pub(crate) fn of(ti: &Value) -> Self {
        let text = |key: &str| ti.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let index = ti.get("map_index").and_then(Value::as_i64).filter(|index| *index >= 0);
        Self {
            name: name_of(ti),
            of_many: index.map(|_| text("task_id")),
            state: text("state"),
            try_number: ti
                .get("try_number")
                .and_then(Value::as_u64)
                .and_then(|n| u32::try_from(n).ok())
                .unwrap_or(0),
            duration: ti
                .get("duration")
                .and_then(Value::as_f64)
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            cause: text("cause"),
            note: text("cause_message"),
        }
    }

    fn mark(&self, paint: Paint) -> String {
        match self.state.as_str() {
            "success" => paint.green("✓"),
            "failed" | "upstream_failed" => paint.red("✗"),
            "skipped" => paint.dim("⊘"),
            "running" => paint.blue("▶"),
            "up_for_retry" | "up_for_reschedule" => paint.yellow("↻"),
            "awaiting_input" => paint.yellow("?"),
            _ => paint.dim("·"),
        }
    }

    /// The one-line form.
    pub(crate) fn render(&self, width: usize, paint: Paint) -> String {
        let name = escape::line(&self.name);
        let state = if self.state.is_empty() { "waiting" } else { &self.state };
        let mut text = format!(
            "{} {name:<width$}  {}",
            self.mark(paint),
            paint.state(&escape::line(state))
        );
        if let Some(duration) = self.duration {
            text.push_str(&format!("  {}", format::duration(duration)));
        }
        if self.try_number > 1 {
            text.push_str(&format!("  {}", paint.yellow(&format!("try {}", self.try_number))));
        }
        if !self.cause.is_empty() && self.cause != "returned" {
            text.push_str(&format!("  {}", escape::line(&self.cause)));
        }
        if !self.note.is_empty() {
            text.push_str(&format!(
                "  {}",
                paint.dim(&escape::shorten(&escape::line(&self.note), 100))
            ));
        }
        text
    }
}

struct Row {
    key: String,
    shown: TaskLine,
    bar: Option<ProgressBar>,
}

/// Shows task instances while they change: a tree that redraws on a terminal, one line a change elsewhere. On standard error.
pub(crate) struct LiveView {
    bars: Option<MultiProgress>,
    rows: Vec<Row>,
    /// Tasks with many instances, each one row.
    many: HashMap<String, Many>,
    width: usize,
    paint: Paint,
}

fn still() -> ProgressStyle {
    ProgressStyle::with_template("{msg}").expect("the template is well-formed")
}

/// Shows how long a task runs, or no longer.
fn run_clock(bar: &ProgressBar, runs: bool) {
    if runs {
        bar.set_style(ProgressStyle::with_template("{msg}  {elapsed}").expect("the template is well-formed"));
        bar.reset_elapsed();
        bar.enable_steady_tick(Duration::from_millis(250));
    } else {
        bar.disable_steady_tick();
        bar.set_style(still());
    }
}

/// Whether a line says what was so before what is shown. An executor may say that a try runs before the scheduler has told
/// everybody that it was queued, and what was read may be newer than the next event.
pub(super) fn is_older(line: &TaskLine, shown: &TaskLine) -> bool {
    let rank = |state: &str| match state {
        "" | "scheduled" => 0,
        "queued" => 1,
        "running" => 2,
        _ => 3,
    };
    let waits = matches!(
        shown.state.as_str(),
        "up_for_retry" | "up_for_reschedule" | "restarting"
    );
    line.try_number == shown.try_number && !waits && rank(&line.state) < rank(&shown.state)
}

/// A terminal has no room for more lines than this.
const MAX_LIVE_ROWS: usize = 40;

impl LiveView {
    /// For these tasks, in this order. More may come later.
    pub(crate) fn new(names: &[String]) -> Self {
        let live = term::stderr_is_terminal() && names.len() <= MAX_LIVE_ROWS;
        let mut view = Self {
            bars: live.then(MultiProgress::new),
            rows: Vec::new(),
            many: HashMap::new(),
            width: names.iter().map(|name| name.chars().count()).max().unwrap_or(0),
            paint: Paint::stderr(),
        };
        for name in names {
            let line = TaskLine {
                name: name.clone(),
                ..TaskLine::default()
            };
            view.add(name.clone(), line);
        }
        view
    }

    fn add(&mut self, key: String, line: TaskLine) {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner().with_style(still()));
            bar.set_message(line.render(self.width, self.paint));
            bar.tick();
            bar
        });
        self.rows.push(Row { key, shown: line, bar });
    }

    /// A task instance is like this now.
    pub(crate) fn update(&mut self, line: TaskLine) {
        let Some(task) = line.of_many.clone() else {
            return self.update_one(line);
        };
        let many = self.many.entry(task.clone()).or_default();
        if !many.take(&line) {
            return;
        }
        let (all, is_news) = (many.line(&task), many.is_news());
        self.put(&task, all, is_news);
        let is_shown = self.rows.iter().any(|row| row.key == line.name);
        if is_shown || (line.state == "failed" && self.rows.len() < MAX_LIVE_ROWS) {
            self.update_one(line);
        }
    }

    /// A task has so many instances, of which not all are told of.
    pub(crate) fn expect(&mut self, task: &str, instances: usize) {
        self.many.entry(task.to_owned()).or_default().expect(instances);
    }

    /// Takes an event that is about no single task instance.
    pub(crate) fn take_expanded(&mut self, event: &Value) {
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        let instances = event.get("instances").and_then(Value::as_u64);
        if let (Some("expanded"), Some(task), Some(instances)) = (text("event"), text("task_id"), instances) {
            self.expect(task, usize::try_from(instances).unwrap_or(usize::MAX));
        }
    }

    fn update_one(&mut self, line: TaskLine) {
        let shown = self.rows.iter().find(|row| row.key == line.name).map(|row| &row.shown);
        if shown.is_some_and(|shown| *shown == line || is_older(&line, shown)) {
            return;
        }
        // A change of nothing but the running time is not worth a line.
        let is_news = shown.is_none_or(|shown| (&shown.state, shown.try_number) != (&line.state, line.try_number));
        let key = line.name.clone();
        self.put(&key, line, is_news);
    }

    /// A row shows this from now on. Without a terminal it is printed if it is news.
    fn put(&mut self, key: &str, line: TaskLine, is_news: bool) {
        if self.bars.is_none() && is_news {
            term::errln(&line.render(self.width, self.paint));
        }
        let Some(row) = self.rows.iter_mut().find(|row| row.key == key) else {
            return self.add(key.to_owned(), line);
        };
        if let Some(bar) = &row.bar {
            if (line.state == "running") != (row.shown.state == "running") {
                run_clock(bar, line.state == "running");
            }
            bar.set_message(line.render(self.width, self.paint));
        }
        row.shown = line;
    }

    /// Leaves the screen to somebody who types.
    pub(crate) fn hide(&self) {
        if let Some(bars) = &self.bars {
            let _ = bars.clear();
            bars.set_draw_target(ProgressDrawTarget::hidden());
        }
    }

    /// Comes back after [`LiveView::hide`].
    pub(crate) fn show(&self) {
        if let Some(bars) = &self.bars {
            bars.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Takes it off the screen, for a table in its place.
    pub(crate) fn clear(self) {
        for bar in self.rows.iter().filter_map(|row| row.bar.as_ref()) {
            bar.finish_and_clear();
        }
    }
}

/// A structured log message as one line for people.
pub(crate) fn log_line(line: &Value, paint: Paint) -> String {
    let text = |key: &str| line.get(key).and_then(Value::as_str);
    let event = escape::line(text("event").unwrap_or_default());
    let mut shown = String::new();
    if let Some(time) = text("timestamp") {
        let clock = time.get(11..23).unwrap_or(time);
        shown.push_str(&paint.dim(&escape::line(clock)));
        shown.push(' ');
    }
    let level = text("level").unwrap_or("info");
    let tag = match level {
        "error" | "critical" => paint.red("ERROR"),
        "warning" | "warn" => paint.yellow("WARN "),
        "debug" => paint.dim("DEBUG"),
        "trace" => paint.dim("TRACE"),
        _ => "INFO ".to_owned(),
    };
    shown.push_str(&tag);
    let source = text("source").or_else(|| text("logger")).unwrap_or_default();
    if !source.is_empty() {
        shown.push(' ');
        shown.push_str(&paint.dim(&format!("{:<6}", escape::line(source))));
    }
    shown.push(' ');
    shown.push_str(&event);
    if let Some(fields) = line.get("fields").and_then(Value::as_object) {
        for (key, value) in fields {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            shown.push_str(&format!(" {}={}", paint.dim(&escape::line(key)), escape::line(&value)));
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_task_instance_is_one_safe_line() {
        let line = TaskLine::of(&json!({
            "task_id": "train", "map_index": 3, "state": "failed", "try_number": 2, "duration": 1.5,
            "cause": "trapped", "cause_message": "panicked\n\u{1b}[31mred",
        }));
        insta::assert_snapshot!(line.render(10, Paint::never()), @"✗ train[3]    failed  1.5s  try 2  trapped  panicked\\n\\e[31mred");
        let waiting = TaskLine::of(&json!({"task_id": "load", "map_index": -1, "state": null, "try_number": 0}));
        insta::assert_snapshot!(waiting.render(10, Paint::never()), @"· load        waiting");
    }

    #[test]
    fn what_is_shown_never_goes_back_within_a_try() {
        let at = |state: &str, try_number| TaskLine {
            state: state.to_owned(),
            try_number,
            ..TaskLine::default()
        };
        assert!(is_older(&at("queued", 1), &at("running", 1)));
        assert!(is_older(&at("running", 1), &at("success", 1)));
        assert!(!is_older(&at("queued", 2), &at("failed", 1)));
        assert!(!is_older(&at("running", 1), &at("up_for_reschedule", 1)));
        assert!(!is_older(&at("failed", 1), &at("running", 1)));
    }

    #[test]
    fn a_log_line_is_one_safe_line() {
        let line = json!({
            "timestamp": "2026-01-31T04:05:06.789012Z", "level": "warning", "source": "log",
            "event": "two\nlines\u{9b}", "fields": {"rows": 3, "file": "a\u{7}"},
        });
        insta::assert_snapshot!(log_line(&line, Paint::never()), @"04:05:06.789 WARN  log    two\\nlines\\x9b rows=3 file=a\\x07");
    }
}
