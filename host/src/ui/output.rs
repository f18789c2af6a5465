//! `--output table|json|yaml`: an answer as the server gave it, or the columns that people look for.

use std::time::Duration;

use clap::ValueEnum;
use model::json::read_given;
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::term::{self, Paint};
use super::{escape, format, pretty};

/// How to print answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// The columns that matter, for people.
    Table,
    /// The whole answer as JSON.
    Json,
    /// The whole answer as YAML.
    Yaml,
}

/// How a column shows its value.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Show {
    /// As it is.
    Text,
    /// Its first line, shortened.
    Line,
    /// A state, in its colour.
    State,
    /// RFC 3339, shortened.
    Time,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A digest, shortened.
    Digest,
    /// A list, joined by commas.
    List,
    /// JSON, on one line, shortened.
    Json,
}

/// A column: its title, where the value is (JSON pointer), how it is shown.
pub(crate) type Column = (&'static str, &'static str, Show);

impl Output {
    /// Prints a list.
    pub(crate) fn list(self, rows: &[Value], columns: &[Column]) {
        match self {
            Self::Table => term::outln(&table(rows, columns, Paint::stdout())),
            _ => self.value(&Value::Array(rows.to_vec())),
        }
    }

    /// Prints one thing: as a table of its fields.
    pub(crate) fn record(self, value: &Value, fields: &[Column]) {
        if self != Self::Table {
            return self.value(value);
        }
        let paint = Paint::stdout();
        let width = fields.iter().map(|(title, ..)| title.len()).max().unwrap_or(0);
        for (title, pointer, show) in fields {
            let text = cell(value.pointer(pointer), *show, paint);
            if !text.is_empty() {
                term::outln(&format!("{}  {text}", paint.dim(&format!("{title:<width$}"))));
            }
        }
    }

    /// Prints JSON text digit for digit: a tree of it would hold the nearest float of a long number.
    pub(crate) fn json_text(self, text: &str) {
        let given = read_given(text);
        match (self, given) {
            // JSON is YAML, too.
            (Self::Yaml, Ok(value)) => self.value(&value),
            (_, _) => match pretty::pretty(text) {
                Some(pretty) => term::outln(&escape::json(&pretty)),
                None => term::outln(&escape::json(text)),
            },
        }
    }

    /// Prints a whole value. Tables know nothing of it: JSON.
    pub(crate) fn value(self, value: &Value) {
        match self {
            Self::Yaml => {
                let text = serde_norway::to_string(value).expect("JSON values are YAML values");
                term::out(&escape::block(&text));
            }
            Self::Json | Self::Table => {
                let text = serde_json::to_string_pretty(value).expect("JSON values have string keys");
                term::outln(&escape::json(&text));
            }
        }
    }
}

/// A table without lines, as `kubectl` and `docker` print them: easy to read, to copy and to cut.
pub(crate) fn table(rows: &[Value], columns: &[Column], paint: Paint) -> String {
    let titles = columns
        .iter()
        .map(|(title, ..)| paint.dim(&title.to_uppercase()))
        .collect();
    let cells = rows
        .iter()
        .map(|row| {
            columns
                .iter()
                .map(|(_, pointer, show)| cell(row.pointer(pointer), *show, paint))
                .collect()
        })
        .collect();
    plain_table(titles, cells)
}

/// A table of texts: columns as wide as their widest cell, two spaces between them.
pub(crate) fn plain_table(titles: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let lines: Vec<_> = std::iter::once(titles).chain(rows).collect();
    let mut widths: Vec<usize> = Vec::new();
    for line in &lines {
        for (index, cell) in line.iter().enumerate() {
            let width = shown_width(cell);
            match widths.get_mut(index) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let mut text = Vec::new();
    for line in lines {
        let mut shown = String::new();
        for (cell, width) in line.iter().zip(&widths) {
            shown.push_str(cell);
            shown.push_str(&" ".repeat(width - shown_width(cell) + 2));
        }
        text.push(shown.trim_end().to_owned());
    }
    text.join("\n")
}

/// Columns of a terminal that a text takes. The only escape sequences in it are colours of ours.
fn shown_width(text: &str) -> usize {
    let mut width = 0;
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\x1b') {
        width += before.width();
        rest = after.split_once('m').map_or("", |(_, after)| after);
    }
    width + rest.width()
}

fn cell(value: Option<&Value>, show: Show, paint: Paint) -> String {
    let Some(value) = value else { return String::new() };
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let shown = match show {
        Show::Text => text,
        Show::Line => match text.split_once('\n') {
            Some((first, _)) => format!("{} …", escape::shorten(first, 98)),
            None => escape::shorten(&text, 100).into_owned(),
        },
        Show::State => return paint.state(&escape::line(&text)),
        Show::Time => format::time(&text),
        Show::Seconds => match value.as_f64().map(Duration::try_from_secs_f64) {
            Some(Ok(duration)) => format::duration(duration),
            _ => String::new(),
        },
        Show::Bytes => value.as_u64().map(format::bytes).unwrap_or_default(),
        Show::Digest => format::digest(&text),
        Show::List => {
            let items: Vec<_> = value.as_array().into_iter().flatten().map(item).collect();
            items.join(", ")
        }
        Show::Json => match value {
            Value::Null => String::new(),
            _ => escape::shorten(&value.to_string(), 100).into_owned(),
        },
    };
    escape::line(&shown).into_owned()
}

/// An item of a list: a text, a tag `{name, version}`, or something named.
fn item(value: &Value) -> String {
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    match (value, text("name"), text("version")) {
        (Value::String(text), ..) => text.clone(),
        (_, Some(name), Some(version)) => format!("{name}@{version}"),
        (_, Some(name), None) => name.to_owned(),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tables_show_what_was_asked_for_and_escape_it() {
        let rows = [
            json!({"id": "a", "state": "success", "start": "2026-01-31T04:05:06Z", "seconds": 1.25, "tags": ["x", {"name": "y"}]}),
            json!({"id": "b\u{1b}[2J", "state": null, "size": 2048}),
        ];
        let columns: [Column; 6] = [
            ("dag", "/id", Show::Text),
            ("state", "/state", Show::State),
            ("start", "/start", Show::Time),
            ("duration", "/seconds", Show::Seconds),
            ("tags", "/tags", Show::List),
            ("size", "/size", Show::Bytes),
        ];
        insta::assert_snapshot!(table(&rows, &columns, Paint::never()), @r"
        DAG     STATE    START                DURATION  TAGS  SIZE
        a       success  2026-01-31 04:05:06  1.2s      x, y
        b\e[2J                                                2.0 KiB
        ");
    }
}
