//! Server-sent events: what happens to DAGs, runs and task instances, as it is committed.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use model::{DagId, RunId};
use ports::control::RunEvent;
use serde_json::json;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

use super::wait::permit;
use super::{dag_runs, under};
use crate::error::ApiError;
use crate::openapi::{Kind, Op, Routes};
use crate::request::{PathArgs, Query};
use crate::state::{App, EventsOf};

/// The header of an event stream that names the scheduler in this process. A server without one does not have it: whoever follows a scheduler is
/// told what it already told.
pub const EVENTS_OF: &str = "airtight-events-of";

pub(crate) fn add(routes: Routes) -> Routes {
    routes
        .get(
            "/api/v2/events",
            all,
            Op::new("event", "get_events", "What happens from now on")
                .query(&[("dag_id", Kind::Text), ("run_id", Kind::Text)])
                .raw(200, "text/event-stream"),
        )
        .get(
            under!(run "/events"),
            of_run,
            Op::new(
                "event",
                "get_dag_run_events",
                "The state of a run, then what happens to it",
            )
            .raw(200, "text/event-stream"),
        )
}

/// Which events.
#[derive(Default)]
struct Selection {
    dag_id: Option<DagId>,
    run_id: Option<RunId>,
}

impl Selection {
    fn keeps(&self, event: &RunEvent) -> bool {
        let (dag_id, run_id) = match event {
            RunEvent::DagRun { dag_id, run_id, .. }
            | RunEvent::TaskInstance { dag_id, run_id, .. }
            | RunEvent::Expanded { dag_id, run_id, .. }
            | RunEvent::Callback { dag_id, run_id, .. }
            | RunEvent::Progress { dag_id, run_id, .. } => (dag_id, Some(run_id)),
            RunEvent::Dag { dag_id, .. } => (dag_id, None),
        };
        self.dag_id.as_ref().is_none_or(|wanted| wanted == dag_id)
            && self.run_id.as_ref().is_none_or(|wanted| Some(wanted) == run_id)
    }
}

const fn name(event: &RunEvent) -> &'static str {
    match event {
        RunEvent::DagRun { .. } => "dag_run",
        RunEvent::TaskInstance { .. } => "task_instance",
        RunEvent::Expanded { .. } => "expanded",
        RunEvent::Progress { .. } => "progress",
        RunEvent::Callback { .. } => "callback",
        RunEvent::Dag { .. } => "dag",
    }
}

fn shape(event: &RunEvent) -> Event {
    let data = serde_json::to_string(event).unwrap_or_default();
    Event::default().event(name(event)).data(data)
}

async fn all(State(app): State<Arc<App>>, mut query: Query) -> Result<Response, ApiError> {
    let id = |name: &str| query.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let (dag_id, run_id) = (id("dag_id"), id("run_id"));
    let dag_id = dag_id.map(|text| DagId::new(&text)).transpose();
    if let Err(error) = &dag_id {
        query.violate("dag_id", "value_error", &error.to_string());
    }
    let run_id = run_id.map(|text| RunId::new(&text)).transpose();
    if let Err(error) = &run_id {
        query.violate("run_id", "value_error", &error.to_string());
    }
    query.finish()?;
    let selection = Selection {
        dag_id: dag_id.unwrap_or_default(),
        run_id: run_id.unwrap_or_default(),
    };
    let receiver = app.control.subscribe();
    stream(app, receiver, selection, None)
}

async fn of_run(State(app): State<Arc<App>>, path: PathArgs) -> Result<Response, ApiError> {
    // Subscribed first, so that nothing falls between the state and the events.
    let receiver = app.control.subscribe();
    let row = dag_runs::find(&app, &path).await?;
    let state = RunEvent::DagRun {
        dag_id: row.dag_id.clone(),
        run_id: row.run_id.clone(),
        state: row.state,
        at: row.end_date.or(row.start_date).unwrap_or(row.queued_at),
    };
    let selection = Selection {
        dag_id: Some(row.dag_id),
        run_id: Some(row.run_id),
    };
    stream(app, receiver, selection, Some(state))
}

fn stream(
    app: Arc<App>,
    receiver: broadcast::Receiver<RunEvent>,
    selection: Selection,
    first: Option<RunEvent>,
) -> Result<Response, ApiError> {
    let permit = permit(&app)?;
    let heartbeat = app.limits.heartbeat;
    let of = app.events_of.clone();
    let gaps = Gaps::of(&of);
    let state = (app, receiver, gaps, selection, first, permit);
    let events = futures::stream::unfold(state, |state| async move {
        let (app, mut receiver, mut gaps, selection, mut first, permit) = state;
        if let Some(first) = first.take() {
            return Some((
                Ok::<_, Infallible>(shape(&first)),
                (app, receiver, gaps, selection, None, permit),
            ));
        }
        let event = loop {
            let received = tokio::select! {
                received = receiver.recv() => received,
                () = gaps.next() => Err(RecvError::Lagged(0)),
                () = app.shutdown.cancelled() => return None,
            };
            match received {
                Ok(event) if selection.keeps(&event) => break shape(&event),
                Ok(_) => {}
                // The reader was too slow: it is told, and reads the state anew.
                Err(RecvError::Lagged(missed)) => {
                    break Event::default()
                        .event("lagged")
                        .data(json!({ "missed": missed }).to_string());
                }
                Err(RecvError::Closed) => return None,
            }
        };
        Some((Ok(event), (app, receiver, gaps, selection, None, permit)))
    });
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(heartbeat).text("heartbeat"))
        .into_response();
    if let EventsOf::This(scheduler) = of
        && let Ok(scheduler) = scheduler.to_string().try_into()
    {
        response.headers_mut().insert(EVENTS_OF, scheduler);
    }
    Ok(response)
}

/// Tells where events may have been missed on their way to this process, from now on.
struct Gaps(Option<watch::Receiver<u64>>);

impl Gaps {
    fn of(events: &EventsOf) -> Self {
        match events {
            EventsOf::This(_) => Self(None),
            EventsOf::Another(gaps) => {
                let mut gaps = gaps.clone();
                gaps.mark_unchanged();
                Self(Some(gaps))
            }
        }
    }

    async fn next(&mut self) {
        if let Some(gaps) = &mut self.0
            && gaps.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}
