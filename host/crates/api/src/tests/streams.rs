use axum::body::{Body, BodyDataStream};
use axum::http::Method;
use futures::StreamExt as _;
use model::{DagId, DagRunState, RunId};
use ports::control::RunEvent;
use serde_json::json;

use super::fake::NOW;
use super::{SCHEDULER, Server};
use crate::{EVENTS_OF, EventsOf};

async fn open(server: &Server, path: &str) -> BodyDataStream {
    let request = server.request(&Method::GET, path).body(Body::empty()).unwrap();
    let response = server.raw(request).await;
    assert_eq!(response.status(), 200);
    response.into_body().into_data_stream()
}

async fn next(stream: &mut BodyDataStream) -> Option<String> {
    let bytes = stream.next().await?.unwrap();
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

fn event(dag_id: &str, run_id: &str) -> RunEvent {
    RunEvent::DagRun {
        dag_id: DagId::new(dag_id).unwrap(),
        run_id: RunId::new(run_id).unwrap(),
        state: DagRunState::Running,
        at: NOW,
    }
}

#[tokio::test]
async fn wait_answers_at_once_and_at_the_end() {
    let server = Server::new();
    let body = json!({ "dag_run_id": "r", "logical_date": null });
    server.send(Method::POST, "/api/v2/dags/etl/dagRuns", body).await;
    let path = "/api/v2/dags/etl/dagRuns/r/wait?interval=3600&result=load";
    let mut stream = open(&server, path).await;
    assert_eq!(next(&mut stream).await.as_deref(), Some("{\"state\":\"running\"}\n"));
    server.fake.finish("r");
    let last: serde_json::Value = serde_json::from_str(&next(&mut stream).await.unwrap()).unwrap();
    assert_eq!(last["state"], "success");
    assert_eq!(last["results"]["load"]["accuracy"], 0.9);
    assert_eq!(next(&mut stream).await, None);
    let request = server.request(&Method::GET, path).header("accept", "application/json");
    let answer = server.answer(request.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (&answer.headers["content-type"], answer.text.lines().count()),
        (&"application/json".parse().unwrap(), 1)
    );
    let bad = server.get("/api/v2/dags/etl/dagRuns/r/wait?interval=0").await;
    assert_eq!(bad.error(), (422, "validation_failed".to_owned()));
}

#[tokio::test]
async fn events_are_filtered_and_a_slow_reader_is_told() {
    let server = Server::new();
    let mut stream = open(&server, "/api/v2/events?dag_id=etl&run_id=r").await;
    server.fake.events.send(event("etl", "other")).unwrap();
    server.fake.events.send(event("etl", "r")).unwrap();
    let text = next(&mut stream).await.unwrap();
    assert!(
        text.starts_with("event: dag_run\ndata: {\"event\":\"dag_run\",\"dag_id\":\"etl\",\"run_id\":\"r\""),
        "{text}"
    );
    for _ in 0..20 {
        server.fake.events.send(event("etl", "r")).unwrap();
    }
    let text = next(&mut stream).await.unwrap();
    assert_eq!(text, "event: lagged\ndata: {\"missed\":4}\n\n");
}

#[tokio::test]
async fn a_silent_stream_says_that_it_is_alive_and_ends_at_shutdown() {
    let server = Server::new();
    server.ended_run().await;
    let mut stream = open(&server, "/api/v2/dags/etl/dagRuns/r/events").await;
    let first = next(&mut stream).await.unwrap();
    assert!(first.contains("\"state\":\"success\""), "{first}");
    assert_eq!(next(&mut stream).await.unwrap().trim(), ": heartbeat");
    server.shutdown.cancel();
    while let Some(text) = next(&mut stream).await {
        assert_eq!(text.trim(), ": heartbeat");
    }
}

#[tokio::test]
async fn a_stream_says_whose_events_it_tells_and_where_some_may_be_missing() {
    let server = Server::new();
    let events = |server: &Server| {
        let request = server.request(&Method::GET, "/api/v2/events");
        request.body(Body::empty()).unwrap()
    };
    let own = server.raw(events(&server)).await;
    assert_eq!(own.headers()[EVENTS_OF], SCHEDULER.to_string());

    let (missed, gaps) = tokio::sync::watch::channel(3);
    let server = Server::telling(EventsOf::Another(gaps));
    let told = server.raw(events(&server)).await;
    assert!(!told.headers().contains_key(EVENTS_OF));
    let mut stream = told.into_body().into_data_stream();
    server.fake.events.send(event("etl", "r")).unwrap();
    assert!(
        next(&mut stream).await.unwrap().contains("dag_run"),
        "nothing was missed before"
    );
    missed.send(4).unwrap();
    assert_eq!(
        next(&mut stream).await.unwrap(),
        "event: lagged\ndata: {\"missed\":0}\n\n"
    );
    drop(missed);
    assert_eq!(next(&mut stream).await.unwrap().trim(), ": heartbeat");
}
