//! YAML text to a tree in which every key and value knows its place. Bounded: size, depth, and what aliases expand to.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span};
use serde_json::{Number, Value};

use super::diagnostic::{Findings, Pos};

/// The largest manifest, in bytes.
pub const MAX_MANIFEST_BYTES: usize = 1 << 20;
/// How deep it may nest.
pub const MAX_MANIFEST_DEPTH: usize = 64;
/// How many nodes it may have after aliases were expanded.
pub const MAX_MANIFEST_NODES: usize = 200_000;
/// The number of bytes of text it may have after aliases were expanded: an alias copies what it stands for.
pub const MAX_MANIFEST_TEXT: usize = 8 << 20;

/// A value with its place.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) pos: Pos,
    /// Where it lies in the text, in characters.
    pub(super) span: (usize, usize),
    pub(super) kind: Kind,
    nodes: usize,
    height: usize,
    /// The bytes of its texts and keys.
    bytes: usize,
}

/// Why a number is none of JSON's, and what to do about it.
#[derive(Clone, Debug)]
pub(super) struct BadNumber {
    why: String,
    hint: &'static str,
}

#[derive(Clone, Debug)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Number(Number),
    /// A number that JSON readers cannot hold.
    BadNumber(BadNumber),
    Text(String),
    Seq(Arc<Vec<Node>>),
    Map(Arc<Vec<Entry>>),
}

/// A key and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) pos: Pos,
    pub(super) value: Node,
}

impl Node {
    fn leaf(span: Span, kind: Kind) -> Self {
        Self {
            bytes: match &kind {
                Kind::Text(text) => text.len(),
                _ => 0,
            },
            pos: pos(span.start),
            span: (span.start.index(), span.end.index()),
            kind,
            nodes: 1,
            height: 0,
        }
    }

    /// What a copy of it takes, about: its texts, and a word or two for each value.
    pub(super) const fn weight(&self) -> usize {
        self.bytes.saturating_add(self.nodes.saturating_mul(16))
    }

    /// What it is, for people.
    pub(super) const fn what(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(_) => "true or false",
            Kind::Number(_) | Kind::BadNumber(_) => "a number",
            Kind::Text(_) => "text",
            Kind::Seq(_) => "a list",
            Kind::Map(_) => "a map",
        }
    }

    /// The node as JSON. Numbers that JSON cannot hold are `null` here; [`Node::bad_numbers`] reports them.
    pub(super) fn to_json(&self) -> Value {
        match &self.kind {
            Kind::Null | Kind::BadNumber(_) => Value::Null,
            Kind::Bool(value) => (*value).into(),
            Kind::Number(number) => Value::Number(number.clone()),
            Kind::Text(text) => text.as_str().into(),
            Kind::Seq(items) => items.iter().map(Self::to_json).collect(),
            Kind::Map(entries) => entries
                .iter()
                .map(|entry| (entry.key.clone(), entry.value.to_json()))
                .collect(),
        }
    }

    /// Reports the numbers that JSON cannot hold.
    pub(super) fn bad_numbers(&self, findings: &mut Findings) {
        match &self.kind {
            Kind::BadNumber(number) => {
                findings
                    .error("manifest_value", self.pos, number.why.clone())
                    .hint(number.hint);
            }
            Kind::Seq(items) => items.iter().for_each(|item| item.bad_numbers(findings)),
            Kind::Map(entries) => entries.iter().for_each(|entry| entry.value.bad_numbers(findings)),
            _ => {}
        }
    }

    /// Where a key of a map stands.
    pub(super) fn key_pos(&self, key: &str) -> Option<Pos> {
        match &self.kind {
            Kind::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| entry.pos),
            _ => None,
        }
    }

    /// The node that a JSON pointer leads to, or the last one on the way.
    pub(super) fn at(&self, pointer: &str) -> &Self {
        let mut node = self;
        for step in pointer.split('/').skip(1) {
            let step = step.replace("~1", "/").replace("~0", "~");
            let next = match &node.kind {
                Kind::Seq(items) => step.parse::<usize>().ok().and_then(|at| items.get(at)),
                Kind::Map(entries) => entries.iter().find(|entry| entry.key == step).map(|entry| &entry.value),
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }
}

/// Reads the text. What cannot be read is reported; the tree is there if the text is YAML at all.
pub(super) fn read(source: &str, findings: &mut Findings) -> Option<Node> {
    if source.len() > MAX_MANIFEST_BYTES {
        findings
            .error(
                "manifest_too_large",
                Pos::START,
                format!(
                    "the manifest has {} bytes; the limit is {MAX_MANIFEST_BYTES} bytes",
                    source.len()
                ),
            )
            .hint("split the DAG in several, or map one task over a list with `expand` instead of writing many");
        return None;
    }
    let mut builder = Builder {
        findings,
        stack: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        root: None,
        documents: 0,
    };
    let mut parser = Parser::new_from_str(source);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => {
                if builder.event(event, span).is_err() {
                    return None;
                }
            }
            Err(error) => {
                syntax_error(source, &error, builder.findings);
                return None;
            }
        }
    }
    let root = builder.root.take();
    if root.is_none() {
        findings
            .error("manifest_empty", Pos::START, "the manifest is empty")
            .hint("it needs at least `dag:` and `tasks:`");
    }
    root
}

fn pos(marker: Marker) -> Pos {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Pos {
        line: count(marker.line()).max(1),
        column: count(marker.col().saturating_add(1)),
    }
}

fn syntax_error(source: &str, error: &ScanError, findings: &mut Findings) {
    let place = pos(*error.marker());
    let line = source.lines().nth(place.line as usize - 1).unwrap_or_default();
    let indentation = line.len() - line.trim_start().len();
    let finding = findings.error("manifest_syntax", place, format!("not valid YAML: {}", error.info()));
    if line.get(..indentation).is_some_and(|blank| blank.contains('\t')) || error.info().contains("tab") {
        finding.hint("YAML is indented with spaces; replace the tab");
    } else if line.contains("{{") {
        finding.hint("a value that starts with `{{` must be in quotes: \"{{ … }}\"");
    } else if line.trim_start().starts_with('@') || line.contains(": @") || line.contains(": `") {
        finding.hint("a value that starts with this character must be in quotes");
    } else if error.info().contains("quoted scalar") {
        finding.hint("a quote that starts here is not closed");
    } else if error.info().contains("mapping values are not allowed") {
        finding.hint("is this line indented as the lines above it? a text with `: ` in it must be in quotes");
    } else if error.info().contains("':' indicator") || error.info().contains("flow") {
        finding.hint("a bracket or a quote above is not closed");
    } else {
        finding.hint("the text cannot be read from here on; look at this line and at the one above it");
    }
}

/// The reading cannot go on; it has been reported.
struct Stop;

struct Builder<'f> {
    findings: &'f mut Findings,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
    documents: usize,
}

struct Frame {
    start: Span,
    anchor: usize,
    nodes: usize,
    height: usize,
    bytes: usize,
    body: Body,
}

enum Body {
    Seq(Vec<Node>),
    Map {
        entries: Vec<Entry>,
        /// The keys, and the line of each.
        seen: HashMap<String, u32>,
        /// The key whose value comes next. `None` inside is a key that was refused.
        key: Option<Option<(String, Pos)>>,
    },
}

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Stop> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.findings
                        .error(
                            "manifest_unsupported_yaml",
                            pos(span.start),
                            "a second document in the file",
                        )
                        .hint("write one DAG a file");
                    return Err(Stop);
                }
            }
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    self.findings
                        .error(
                            "manifest_unsupported_yaml",
                            pos(span.start),
                            "the alias stands inside of what it refers to",
                        )
                        .hint("write the value out here, or let the alias refer to something that ends before it");
                    return Err(Stop);
                };
                self.add(node, span)?;
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.tag(tag.is_some(), span);
                let kind = match style {
                    ScalarStyle::Plain => plain(&text),
                    _ => Kind::Text(text.into_owned()),
                };
                let node = Node::leaf(span, kind);
                self.anchor(anchor, &node);
                self.add(node, span)?;
            }
            Event::SequenceStart(anchor, tag) => {
                self.tag(tag.is_some(), span);
                self.open(span, anchor, Body::Seq(Vec::new()))?;
            }
            Event::MappingStart(anchor, tag) => {
                self.tag(tag.is_some(), span);
                self.open(
                    span,
                    anchor,
                    Body::Map {
                        entries: Vec::new(),
                        seen: HashMap::new(),
                        key: None,
                    },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(frame) = self.stack.pop() {
                    let kind = match frame.body {
                        Body::Seq(items) => Kind::Seq(Arc::new(items)),
                        Body::Map { entries, .. } => Kind::Map(Arc::new(entries)),
                    };
                    let node = Node {
                        pos: pos(frame.start.start),
                        span: (frame.start.start.index(), span.end.index()),
                        kind,
                        nodes: frame.nodes,
                        height: frame.height + 1,
                        bytes: frame.bytes,
                    };
                    self.anchor(frame.anchor, &node);
                    self.add(node, frame.start)?;
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        Ok(())
    }

    fn tag(&mut self, tagged: bool, span: Span) {
        if tagged {
            self.findings
                .error(
                    "manifest_unsupported_yaml",
                    pos(span.start),
                    "YAML tags (`!…`) are not allowed",
                )
                .hint("remove the tag; quote a value that starts with `!`");
        }
    }

    fn anchor(&mut self, anchor: usize, node: &Node) {
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
    }

    fn open(&mut self, span: Span, anchor: usize, body: Body) -> Result<(), Stop> {
        if self.stack.len() >= MAX_MANIFEST_DEPTH {
            return self.too_deep(span);
        }
        self.stack.push(Frame {
            start: span,
            anchor,
            nodes: 1,
            height: 0,
            bytes: 0,
            body,
        });
        Ok(())
    }

    fn too_deep(&mut self, span: Span) -> Result<(), Stop> {
        self.findings
            .error(
                "manifest_too_deep",
                pos(span.start),
                format!("the manifest nests deeper than {MAX_MANIFEST_DEPTH} levels"),
            )
            .hint("a value that nests so deep belongs into a parameter or a blob, as JSON text");
        Err(Stop)
    }

    fn add(&mut self, node: Node, span: Span) -> Result<(), Stop> {
        if self.stack.len() + node.height > MAX_MANIFEST_DEPTH {
            return self.too_deep(span);
        }
        // Inner nodes of a closed collection were counted when they were added; an alias counts for all that it repeats.
        let total = self
            .stack
            .last()
            .map_or(0, |frame| frame.nodes)
            .saturating_add(node.nodes);
        self.nodes = self.nodes.max(total);
        let bytes = self
            .stack
            .last()
            .map_or(0, |frame| frame.bytes)
            .saturating_add(node.bytes);
        let excess = if total > MAX_MANIFEST_NODES {
            Some(format!("{MAX_MANIFEST_NODES} values"))
        } else if bytes > MAX_MANIFEST_TEXT {
            Some(format!("{MAX_MANIFEST_TEXT} bytes of text"))
        } else {
            None
        };
        if let Some(excess) = excess {
            self.findings
                .error(
                    "manifest_too_large",
                    pos(span.start),
                    format!("the manifest has more than {excess}, with its aliases expanded"),
                )
                .hint("an alias stands for a copy of its anchor's value; use `defaults:`, `params:`, or fewer of them");
            return Err(Stop);
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        frame.nodes = total;
        frame.bytes = bytes;
        frame.height = frame.height.max(node.height);
        match &mut frame.body {
            Body::Seq(items) => items.push(node),
            Body::Map { entries, seen, key } => match key.take() {
                Some(Some((key, pos))) => entries.push(Entry { key, pos, value: node }),
                Some(None) => {}
                None => {
                    let checked = check_key(node, span, seen, self.findings);
                    *key = Some(checked);
                }
            },
        }
        Ok(())
    }
}

fn check_key(
    node: Node,
    span: Span,
    seen: &mut HashMap<String, u32>,
    findings: &mut Findings,
) -> Option<(String, Pos)> {
    let place = pos(span.start);
    let text = match node.kind {
        Kind::Text(text) => text,
        Kind::Number(number) => number.to_string(),
        Kind::Bool(value) => value.to_string(),
        Kind::Null => "null".to_owned(),
        Kind::BadNumber(_) | Kind::Seq(_) | Kind::Map(_) => {
            findings
                .error("manifest_unsupported_yaml", place, "a key must be text")
                .hint("a value that starts with `{` or `[` must be in quotes if it is text");
            return None;
        }
    };
    if text == "<<" {
        findings
            .error("manifest_unsupported_yaml", place, "merge keys (`<<`) are not allowed")
            .hint("write the keys out, or use `defaults:`");
        return None;
    }
    if let Some(line) = seen.get(&text) {
        let shown: String = text.chars().take(64).collect();
        findings
            .error("manifest_duplicate_key", place, format!("key `{shown}` is there twice"))
            .hint(format!(
                "it stands in line {line}, too; remove one of them, or give it another name"
            ));
        return None;
    }
    seen.insert(text.clone(), place.line);
    Some((text, place))
}

const AS_TEXT: &str = "put it in quotes and let the task read it as text";
const NO_NUMBER: &str = "JSON has no such number: write `null`, or put it in quotes and let the task read it as text";

/// A plain scalar by the rules of YAML 1.2's core schema.
fn plain(text: &str) -> Kind {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Kind::Null,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Kind::BadNumber(BadNumber {
            why: format!("{text} is not a JSON number"),
            hint: NO_NUMBER,
        });
    }
    let radix = |digits: &str, radix| match u64::from_str_radix(digits, radix) {
        Ok(number) => Some(Kind::Number(number.into())),
        Err(error) if *error.kind() == std::num::IntErrorKind::PosOverflow => Some(too_long(text)),
        Err(_) => None,
    };
    if let Some(digits) = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+')) {
        return radix(digits, 16).unwrap_or_else(|| Kind::Text(text.to_owned()));
    }
    if let Some(digits) = text.strip_prefix("0o").filter(|digits| !digits.starts_with('+')) {
        return radix(digits, 8).unwrap_or_else(|| Kind::Text(text.to_owned()));
    }
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Kind::Text(text.to_owned());
    }
    if unsigned.bytes().all(|b| b.is_ascii_digit()) {
        let text = text.strip_prefix('+').unwrap_or(text);
        return match (text.parse::<u64>(), text.parse::<i64>()) {
            (Ok(number), _) => Kind::Number(number.into()),
            (_, Ok(number)) => Kind::Number(number.into()),
            _ => too_long(text),
        };
    }
    let float = unsigned.bytes().any(|b| b.is_ascii_digit())
        && unsigned
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    match text.parse::<f64>() {
        Ok(number) if float => match Number::from_f64(number) {
            Some(number) => Kind::Number(number),
            None => Kind::BadNumber(BadNumber {
                why: format!("{text} is out of the range of 64-bit floats"),
                hint: AS_TEXT,
            }),
        },
        _ => Kind::Text(text.to_owned()),
    }
}

fn too_long(text: &str) -> Kind {
    let shown: String = text.chars().take(48).collect();
    Kind::BadNumber(BadNumber {
        why: format!("{shown} has more than 64 bits"),
        hint: AS_TEXT,
    })
}
