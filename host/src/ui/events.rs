//! Run events as lines of the live view. Events come from a server as JSON, or from the scheduler in this process.

use std::collections::HashMap;

use model::Timestamp;
use serde_json::Value;

use super::run_view::TaskLine;

/// What the events so far say of each task instance.
#[derive(Default)]
pub(crate) struct Lines {
    known: HashMap<String, (TaskLine, Option<Timestamp>)>,
}

impl Lines {
    /// Takes an event; answers the task instance as it is now, if the event is about one.
    pub(crate) fn take(&mut self, event: &Value) -> Option<TaskLine> {
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
        let kind = text("event");
        if !matches!(kind, "task_instance" | "progress") {
            return None;
        }
        let index = event.get("map_index").and_then(Value::as_i64).unwrap_or(-1);
        let task = text("task_id").to_owned();
        let (name, of_many) = match index {
            ..0 => (task, None),
            _ => (format!("{task}[{index}]"), Some(task)),
        };
        let (line, started) = self.known.entry(name.clone()).or_insert_with(|| {
            let line = TaskLine {
                name,
                of_many,
                ..TaskLine::default()
            };
            (line, None)
        });
        if kind == "progress" {
            let percent = event.get("fraction").and_then(Value::as_f64);
            let percent = percent.map(|part| format!("{:.0}% ", part * 100.0)).unwrap_or_default();
            line.note = format!("{percent}{}", text("note"));
            return Some(line.clone());
        }
        let try_number = event
            .get("try_number")
            .and_then(Value::as_u64)
            .and_then(|number| u32::try_from(number).ok());
        let try_number = try_number.unwrap_or_default();
        let state = text("state");
        let at: Option<Timestamp> = text("at").parse().ok();
        line.state = if state == "no_status" {
            String::new()
        } else {
            state.to_owned()
        };
        line.try_number = try_number;
        line.cause = text("cause").to_owned();
        line.note.clear();
        if state == "running" {
            *started = at;
        } else if let (Some(started), Some(at)) = (started.take(), at) {
            line.duration = Some(at.since(started));
        }
        Some(line.clone())
    }
}

/// Reads server-sent events out of a stream of bytes; answers the JSON of each.
#[derive(Default)]
pub(crate) struct EventStream {
    rest: Vec<u8>,
    data: String,
}

impl EventStream {
    /// Takes a piece of the stream.
    pub(crate) fn push(&mut self, chunk: &[u8]) -> Vec<Value> {
        let mut events = Vec::new();
        for byte in chunk {
            if *byte != b'\n' {
                self.rest.push(*byte);
                continue;
            }
            let line = String::from_utf8_lossy(&self.rest).into_owned();
            self.rest.clear();
            let line = line.trim_end_matches('\r');
            if let Some(data) = line.strip_prefix("data:") {
                self.data.push_str(data.strip_prefix(' ').unwrap_or(data));
            } else if line.is_empty() && !self.data.is_empty() {
                events.extend(serde_json::from_str(&self.data));
                self.data.clear();
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn events_survive_being_cut_anywhere() {
        let text = "event: dag_run\ndata: {\"a\":\"ä\"}\n\n: heartbeat\n\ndata: {\"b\":2}\r\n\r\n".as_bytes();
        for cut in 0..text.len() {
            let mut stream = EventStream::default();
            let mut events = stream.push(&text[..cut]);
            events.extend(stream.push(&text[cut..]));
            assert_eq!(events, [json!({"a": "ä"}), json!({"b": 2})], "{cut}");
        }
    }

    #[test]
    fn a_try_lasts_from_its_start_to_its_end() {
        let mut lines = Lines::default();
        let mut take = |state: &str, at: &str| {
            lines.take(&json!({
                "event": "task_instance", "task_id": "t", "map_index": -1, "try_number": 1, "state": state, "at": at,
            }))
        };
        assert_eq!(take("running", "2026-01-01T00:00:00Z").unwrap().state, "running");
        let ended = take("success", "2026-01-01T00:00:02Z").unwrap();
        assert_eq!(
            (ended.state.as_str(), ended.duration),
            ("success", Some(Duration::from_secs(2)))
        );
    }
}
