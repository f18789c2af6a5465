//! The logs of tries: in parts as Airflow gives them, as text, or followed live.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::future::BoxFuture;
use futures::{Stream, StreamExt as _};
use model::{MapIndex, Timestamp};
use ports::log::{LogKey, LogLevel, LogLine, LogPart, LogSource};
use ports::query::TiRow;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;

use super::task_instances::find;
use super::under;
use super::wait::permit;
use crate::error::{ApiError, Code};
use crate::escape;
use crate::openapi::{Kind, Op, Param, Routes};
use crate::request::{Media, PathArgs, Query, negotiate};
use crate::shape::Time;
use crate::state::App;

/// Lines that are read at a time.
const PART_LINES: usize = 1_000;
/// Lines in one answer; the rest comes with the continuation token.
const ANSWER_LINES: usize = 10_000;

/// What every log is asked with.
pub(super) const QUERY: &[Param] = &[
    ("full_content", Kind::Flag),
    ("token", Kind::Text),
    ("follow", Kind::Flag),
];

pub(crate) fn add(routes: Routes) -> Routes {
    routes.get(
        under!(ti "/logs/{try_number}"),
        get,
        Op::new(
            "task_instance",
            "get_log",
            "The log of a try; `follow=true` streams it live",
        )
        .query(QUERY)
        .query(&[("map_index", Kind::Int)])
        .ok::<TaskInstancesLogResponse>()
        .raw(200, "application/x-ndjson")
        .raw(200, "text/plain")
        .raw(200, "text/event-stream"),
    )
}

#[derive(Serialize, ToSchema)]
pub(super) struct TaskInstancesLogResponse {
    content: Vec<LogMessage>,
    continuation_token: Option<String>,
}

/// One line. The text is what the task wrote: escape its control characters before a terminal sees them.
#[derive(Serialize, ToSchema)]
struct LogMessage {
    timestamp: Time,
    event: String,
    level: &'static str,
    /// `stdout`, `stderr`, `log`, or `system` for what the server says.
    logger: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    fields: Option<Value>,
}

impl From<LogLine> for LogMessage {
    fn from(line: LogLine) -> Self {
        Self {
            timestamp: Time(line.timestamp),
            event: line.event,
            level: level(line.level),
            logger: match line.source {
                LogSource::Stdout => "stdout",
                LogSource::Stderr => "stderr",
                LogSource::Log => "log",
                LogSource::System => "system",
            },
            fields: line.fields,
        }
    }
}

const fn level(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Trace => "trace",
        LogLevel::Debug => "debug",
        LogLevel::Info => "info",
        LogLevel::Warning => "warning",
        LogLevel::Error => "error",
    }
}

/// A line for people: control characters are escaped, so that a task cannot write to the terminal of whoever reads it.
fn text(line: &LogLine) -> String {
    let mut text = format!("{} {:<7} ", line.timestamp, level(line.level).to_uppercase());
    escape::push_line(&mut text, &line.event);
    if let Some(fields) = &line.fields {
        text.push(' ');
        escape::push_json(&mut text, &fields.to_string());
    }
    text.push('\n');
    text
}

/// For how long after its end a try may still be on its way into its log, where another process writes it.
const FRESH: Duration = Duration::from_secs(2);

/// Asks the database whether the try is over: nothing will be written any more, whether the log says so or not.
pub(super) type IsOver = Box<dyn Fn() -> BoxFuture<'static, Result<bool, ApiError>> + Send + Sync>;

/// Where a reader is in a log.
pub(super) struct Reader {
    app: Arc<App>,
    key: LogKey,
    at: u64,
    is_over: IsOver,
    over: bool,
    /// The try has only just ended: its last lines may not be written yet.
    fresh: bool,
    /// It was waited for more. Who waits in vain is to ask whether the try is over.
    waited: bool,
    ended: bool,
}

impl Reader {
    /// `over` is whether the try is over now, and when it ended, if that is known.
    pub(super) fn new(
        app: &Arc<App>,
        key: LogKey,
        wanted: &Wanted,
        over: (bool, Option<Timestamp>),
        is_over: IsOver,
    ) -> Self {
        let (over, ended_at) = over;
        let now = app.clock.now();
        Self {
            app: Arc::clone(app),
            key,
            at: wanted.from,
            is_over,
            over,
            fresh: over && ended_at.is_some_and(|at| now.since(at) < FRESH),
            waited: false,
            ended: false,
        }
    }

    async fn part(&mut self) -> Result<LogPart, ApiError> {
        loop {
            let part = self
                .app
                .logs
                .read(self.key, self.at, PART_LINES)
                .await
                .map_err(ApiError::internal)?;
            self.at = part.next;
            self.ended = part.ended;
            if part.ended || !part.lines.is_empty() {
                return Ok(part);
            }
            if !self.over && self.waited {
                self.over = (self.is_over)().await?;
                self.fresh = self.over;
            }
            if !self.fresh {
                self.ended = self.over;
                return Ok(part);
            }
            // Read once more after nothing came for a moment.
            self.fresh = !self.app.logs.settle(self.key).await;
        }
    }

    async fn wait(&mut self) {
        self.app.logs.wait(self.key, self.at).await;
        self.waited = true;
    }
}

/// How a log is asked for.
pub(super) struct Wanted {
    follow: bool,
    full: bool,
    media: Media,
    from: u64,
}

impl Wanted {
    pub(super) fn read(query: &mut Query, headers: &HeaderMap) -> Result<Self, ApiError> {
        let follow = query.flag("follow").unwrap_or(false);
        let offered: &[Media] = if follow {
            &[Media::Ndjson, Media::Events, Media::Text]
        } else {
            &[Media::Json, Media::Ndjson, Media::Text]
        };
        // A client that only says that it wants JSON gets lines of it when it follows.
        let media = match negotiate(headers, offered) {
            Err(_) if follow && negotiate(headers, &[Media::Json]).is_ok() => Media::Ndjson,
            media => media?,
        };
        let full = query.flag("full_content").unwrap_or(false);
        let from = match query.text("token").filter(|token| !token.is_empty()) {
            None => 0,
            Some(token) => token.strip_prefix('l').and_then(|at| at.parse().ok()).ok_or_else(|| {
                ApiError::new(
                    Code::InvalidToken,
                    "the continuation token is not one that this server gave out",
                )
            })?,
        };
        Ok(Self {
            follow,
            full,
            media,
            from,
        })
    }
}

async fn get(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let map_index = query.map_index("map_index").unwrap_or(MapIndex::UNMAPPED);
    let wanted = Wanted::read(&mut query, &headers)?;
    query.finish()?;
    let number = path.try_number("try_number")?;
    let row = find(&app, &path, map_index).await?;
    if number > row.try_number {
        return Err(ApiError::new(
            Code::TryNotFound,
            format!("task instance `{}` has no try {}", row.task_id, number.0),
        ));
    }
    let key = LogKey {
        run_uuid: row.run_uuid,
        task: row.key.task,
        map_index,
        try_number: number,
        callback: None,
    };
    let over = (is_over(&row, &key), row.end_date);
    let ids = (row.dag_id, row.run_id, row.task_id);
    let ask = Arc::clone(&app);
    let is_over: IsOver = Box::new(move || {
        let (app, (dag_id, run_id, task_id)) = (Arc::clone(&ask), ids.clone());
        Box::pin(async move {
            let row = app.metadata.task_instance(&dag_id, &run_id, &task_id, map_index);
            Ok(row.await?.is_none_or(|row| is_over(&row, &key)))
        })
    });
    let reader = Reader::new(&app, key, &wanted, over, is_over);
    answer(&app, reader, &wanted).await
}

/// Whether the try of a log is over, by the row of its task instance.
fn is_over(row: &TiRow, key: &LogKey) -> bool {
    row.run_uuid != key.run_uuid || key.try_number < row.try_number || !row.state.is_dispatched()
}

/// The log in the form that is asked for.
pub(super) async fn answer(app: &Arc<App>, mut reader: Reader, wanted: &Wanted) -> Result<Response, ApiError> {
    let media = wanted.media;
    if wanted.follow {
        return followed(reader, media, permit(app)?);
    }
    if media == Media::Json {
        let most = if wanted.full { usize::MAX } else { ANSWER_LINES };
        let mut lines = Vec::new();
        loop {
            let part = reader.part().await?;
            let empty = part.lines.is_empty();
            lines.extend(part.lines);
            if empty || reader.ended || lines.len() >= most {
                break;
            }
        }
        return Ok(Json(TaskInstancesLogResponse {
            content: lines.into_iter().map(LogMessage::from).collect(),
            continuation_token: (!reader.ended).then(|| format!("l{}", reader.at)),
        })
        .into_response());
    }
    // As it is now, to its present end, without holding it all in memory.
    let parts = futures::stream::unfold(Some(reader), |reader| async move {
        let mut reader = reader?;
        let part = match reader.part().await {
            Ok(part) => part,
            Err(error) => return Some((Err(error), None)),
        };
        let more = !part.lines.is_empty() && !reader.ended;
        Some((Ok(part.lines), more.then_some(reader)))
    });
    Ok(lines(parts, media))
}

fn lines(parts: impl Stream<Item = Result<Vec<LogLine>, ApiError>> + Send + 'static, media: Media) -> Response {
    let bytes = parts.map(move |part| {
        let text: String = match part {
            Ok(lines) => lines.into_iter().map(|line| format_line(line, media)).collect(),
            Err(error) => format!("{}\n", error.to_line()),
        };
        Ok::<_, std::convert::Infallible>(Bytes::from(text))
    });
    ([(header::CONTENT_TYPE, media.as_str())], Body::from_stream(bytes)).into_response()
}

fn format_line(line: LogLine, media: Media) -> String {
    if media == Media::Text {
        return text(&line);
    }
    let mut json = serde_json::to_string(&LogMessage::from(line)).unwrap_or_default();
    json.push('\n');
    json
}

/// Streams what is there and what comes, until the try has ended.
fn followed(reader: Reader, media: Media, permit: OwnedSemaphorePermit) -> Result<Response, ApiError> {
    let heartbeat = reader.app.limits.heartbeat;
    let parts = futures::stream::unfold(Some((reader, permit)), |state| async move {
        let (mut reader, permit) = state?;
        let shutdown = reader.app.shutdown.clone();
        loop {
            let part = match reader.part().await {
                Ok(part) => part,
                Err(error) => return Some((Err(error), None)),
            };
            if !part.lines.is_empty() {
                let next = (!reader.ended).then_some((reader, permit));
                return Some((Ok(part.lines), next));
            }
            if reader.ended {
                return None;
            }
            tokio::select! {
                () = reader.wait() => {}
                () = shutdown.cancelled() => return None,
            }
        }
    });
    if media != Media::Events {
        return Ok(lines(parts, media));
    }
    let events = parts.flat_map(|part| {
        let events: Vec<Event> = match part {
            Ok(lines) => lines
                .into_iter()
                .filter_map(|line| Event::default().event("line").json_data(LogMessage::from(line)).ok())
                .collect(),
            Err(error) => Event::default()
                .event("error")
                .json_data(error.to_line())
                .into_iter()
                .collect(),
        };
        futures::stream::iter(events.into_iter().map(Ok::<_, std::convert::Infallible>))
    });
    // A browser would reconnect after the end of the stream; the last event tells it not to.
    let end = futures::stream::once(async { Ok(Event::default().event("end").data("{}")) });
    Ok(Sse::new(events.chain(end))
        .keep_alive(KeepAlive::new().interval(heartbeat).text("heartbeat"))
        .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_escapes_what_a_terminal_would_obey() {
        let line = LogLine {
            timestamp: Timestamp(0),
            level: LogLevel::Info,
            source: LogSource::Stdout,
            event: "a\u{1b}[2J\r\tb\u{202e}".to_owned(),
            fields: Some(serde_json::json!({"k\u{9b}": "\u{1b}[2J\u{7f}\u{85}\u{202e}"})),
        };
        assert_eq!(
            text(&line),
            "1970-01-01T00:00:00.000000Z INFO    a\\u{1b}[2J\\u{d}\tb\\u{202e} \
             {\"k\\u009b\":\"\\u001b[2J\\u007f\\u0085\\u202e\"}\n"
        );
    }
}
