//! `…/wait`: lines of JSON with the state of a run, the last one as soon as the run has ended.
//!
//! A client that takes nothing but `application/json` (the official Python client is one) gets only the last line: one JSON
//! value, after empty lines that keep the connection alive.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use model::{DagId, DagRunState, MapIndex, RunId, TaskId};
use ports::query::XcomFilter;
use serde_json::{Map, Value, json};

use super::under;
use crate::error::{ApiError, Code};
use crate::openapi::{Kind, Op, Routes};
use crate::page;
use crate::request::{Media, PathArgs, Query, negotiate};
use crate::shape::RawJson;
use crate::state::App;

/// The longest time without a line.
const MAX_INTERVAL_S: f64 = 3_600.0;
const RETURN_VALUE: &str = "return_value";

pub(crate) fn add(routes: Routes) -> Routes {
    routes.get(
        under!(run "/wait"),
        wait,
        Op::new("dag_run", "wait_dag_run_until_finished", "Wait until a run has ended")
            .query(&[("interval", Kind::Number), ("result", Kind::Texts)])
            .raw(200, "application/x-ndjson")
            .raw(200, "application/json"),
    )
}

struct Waiter {
    app: Arc<App>,
    dag_id: DagId,
    run_id: RunId,
    interval: Duration,
    results: Vec<TaskId>,
    /// A stream that waits holds one of the server's permits.
    _permit: tokio::sync::OwnedSemaphorePermit,
}

enum Next {
    /// Write a line of this state.
    Line(DagRunState),
    /// Wait for the next state.
    Wait,
    End,
}

async fn wait(
    State(app): State<Arc<App>>,
    path: PathArgs,
    mut query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let media = negotiate(&headers, &[Media::Ndjson, Media::Json])?;
    let interval = match query.number("interval") {
        Some(seconds) if seconds > 0.0 => seconds.min(MAX_INTERVAL_S),
        Some(_) => {
            query.violate("interval", "greater_than", "this must be greater than 0");
            1.0
        }
        None => 1.0,
    };
    query.finish()?;
    let results = query.texts("result");
    let results: Result<Vec<TaskId>, _> = results.iter().map(|id| TaskId::new(id)).collect();
    let results = results.map_err(|error| ApiError::new(Code::TaskNotFound, error.to_string()))?;
    let (dag_id, run_id) = (path.dag_id()?, path.run_id()?);
    // Memory answers this; an unknown run is 404 before the stream begins.
    let state = app.control.wait(&dag_id, &run_id, Duration::ZERO).await?;
    let waiter = Waiter {
        _permit: permit(&app)?,
        app,
        dag_id,
        run_id,
        interval: Duration::from_secs_f64(interval),
        results,
    };
    let stream = futures::stream::unfold((waiter, Next::Line(state)), move |(waiter, next)| async move {
        let (line, next) = match next {
            Next::End => return None,
            Next::Line(state) => waiter.line(state).await,
            Next::Wait => match waiter.next().await {
                Some(Ok(state)) => waiter.line(state).await,
                Some(Err(error)) => (error.to_line(), Next::End),
                None => return None,
            },
        };
        // Leading white space belongs to no JSON value.
        let unfinished = media == Media::Json && !matches!(next, Next::End);
        let text = if unfinished {
            "\n".to_owned()
        } else {
            format!("{line}\n")
        };
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(text)), (waiter, next)))
    });
    Ok(([(header::CONTENT_TYPE, media.as_str())], Body::from_stream(stream)).into_response())
}

/// One of the bounded number of open streams.
pub(super) fn permit(app: &App) -> Result<tokio::sync::OwnedSemaphorePermit, ApiError> {
    let permit = app.streams.clone().try_acquire_owned();
    permit.map_err(|_| ApiError::new(Code::TooManyStreams, "too many streams are open, try again").retry_after(5))
}

impl Waiter {
    async fn next(&self) -> Option<Result<DagRunState, ApiError>> {
        let state = self.app.control.wait(&self.dag_id, &self.run_id, self.interval);
        tokio::select! {
            state = state => Some(state.map_err(ApiError::from)),
            () = self.app.shutdown.cancelled() => None,
        }
    }

    async fn line(&self, state: DagRunState) -> (Value, Next) {
        if !state.is_finished() {
            return (json!({ "state": state }), Next::Wait);
        }
        if self.results.is_empty() {
            return (json!({ "state": state }), Next::End);
        }
        match self.results().await {
            Ok(results) => (json!({ "state": state, "results": results }), Next::End),
            Err(error) => (error.to_line(), Next::End),
        }
    }

    /// The return values of the tasks: a list for a mapped task, in index order.
    async fn results(&self) -> Result<Map<String, Value>, ApiError> {
        let mut results = Map::new();
        for task_id in &self.results {
            let filter = XcomFilter {
                dag_id: Some(self.dag_id.clone()),
                run_id: Some(self.run_id.clone()),
                task_id: Some(task_id.clone()),
                key: Some(RETURN_VALUE.to_owned()),
                map_index: None,
            };
            let rows = page::scan("the results", |page| self.app.metadata.xcoms(&filter, page)).await?;
            let mut indices: Vec<MapIndex> = rows.iter().map(|row| row.ti.map_index).collect();
            indices.sort();
            let mut values = Vec::with_capacity(indices.len());
            for index in &indices {
                let row = self
                    .app
                    .metadata
                    .xcom(&self.dag_id, &self.run_id, task_id, *index, RETURN_VALUE)
                    .await?;
                let value = row.and_then(|row| row.value);
                let value = value.map(|value| RawJson::new(&value.value)).transpose()?;
                values.push(serde_json::to_value(value).map_err(ApiError::internal)?);
            }
            let value = match indices.as_slice() {
                [] => continue,
                [MapIndex::UNMAPPED] => values.pop().unwrap_or_default(),
                _ => Value::Array(values),
            };
            results.insert(task_id.to_string(), value);
        }
        Ok(results)
    }
}
