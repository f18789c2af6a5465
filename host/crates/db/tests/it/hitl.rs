//! Questions to people and their answers.

use model::dag::Param;
use model::human::{HumanStep, OnTimeout};
use model::{DagRunKey, DagRunState, TaskInstanceState, TryNumber, Work};
use ports::intent::IntentWrite;
use ports::query::{HitlField, HitlFilter, Metadata, OrderBy, Page, TiFilter, TimeRange};
use ports::store::{DagWrite, HitlAnswer, HitlRequest, TiWrite, TickWrite};
use rstest::rstest;
use serde_json::json;

use crate::support::{Backend, NOW, TestDb, dag_id, key, new_run, run_write, seconds, ti, tick, version_with};

const PAGE: Page = Page { limit: 100, offset: 0 };

fn request(run: i64, try_number: u32, subject: &str, body: Option<&str>) -> HitlRequest {
    HitlRequest {
        ti: key(run, 0),
        try_number: TryNumber(try_number),
        subject: subject.to_owned(),
        body: body.map(str::to_owned),
    }
}

fn row(run: i64, try_number: u32, state: TaskInstanceState) -> TiWrite {
    TiWrite {
        try_number: TryNumber(try_number),
        ..ti(key(run, 0), "ask", state)
    }
}

#[rstest]
#[tokio::test]
async fn questions_are_kept_answered_and_found(#[values(Backend::Sqlite, Backend::Postgres)] backend: Backend) {
    let Some(test) = TestDb::open(backend).await else {
        return;
    };
    let amount = Param {
        schema: json!({"type": "integer"}),
        default: Some(json!(1)),
    };
    let version = version_with("etl", 1, &["ask"], |dag| {
        dag.tasks[0].work = Work::Human(Box::new(HumanStep {
            options: vec!["yes".into(), "no".into()],
            defaults: None,
            multiple: false,
            params: [("amount".to_owned(), amount)].into_iter().collect(),
            assigned_users: Vec::new(),
            timeout: None,
            on_timeout: OnTimeout::Fail,
            approval: None,
            branches: false,
        }));
    });
    let lease = test.with_dag(&version).await;
    test.commit(
        &lease,
        TickWrite {
            new_runs: vec![new_run(&version, 1), new_run(&version, 2)],
            runs: vec![run_write(1, DagRunState::Running), run_write(2, DagRunState::Running)],
            task_instances: vec![
                row(1, 1, TaskInstanceState::AwaitingInput),
                row(2, 1, TaskInstanceState::AwaitingInput),
            ],
            hitl_requests: vec![
                request(2, 1, "Deploy\0 it?", Some("50% of \u{1F980}")),
                request(1, 1, "Spend it?", None),
            ],
            ..tick()
        },
    )
    .await;
    // The first question of run 1 was in vain, the second is answered.
    test.commit(
        &lease,
        TickWrite {
            now: Some(seconds(5)),
            task_instances: vec![row(1, 2, TaskInstanceState::Success)],
            hitl_requests: vec![request(1, 2, "Spend it now?", None)],
            hitl_answers: vec![HitlAnswer {
                ti: key(1, 0),
                try_number: TryNumber(2),
                user: Some("ann".into()),
                at: seconds(6),
                chosen_options: vec!["yes".into(), "\"no\"".into()],
                params_input: r#"{"amount":9007199254740993}"#.into(),
            }],
            ..tick()
        },
    )
    .await;

    let db = test.again().await;
    let found = async |filter: HitlFilter| {
        let listed = db.hitl_details(&filter, PAGE).await.unwrap();
        assert_eq!(listed.total, listed.items.len() as u64);
        let subjects: Vec<String> = listed.items.into_iter().map(|row| row.subject).collect();
        subjects
    };
    assert_eq!(
        found(HitlFilter::default()).await,
        ["Deploy\u{fffd} it?", "Spend it now?"]
    );
    let order_by = vec![OrderBy {
        field: HitlField::Subject,
        descending: true,
    }];
    let all = HitlFilter {
        order_by,
        ..HitlFilter::default()
    };
    assert_eq!(found(all).await[0], "Spend it now?");
    for (filter, count) in [
        (
            HitlFilter {
                response_received: Some(true),
                ..HitlFilter::default()
            },
            1,
        ),
        (
            HitlFilter {
                response_received: Some(false),
                ..HitlFilter::default()
            },
            1,
        ),
        (
            HitlFilter {
                responded_by: vec!["ann".into()],
                ..HitlFilter::default()
            },
            1,
        ),
        (
            HitlFilter {
                responded_by: vec!["bob".into()],
                ..HitlFilter::default()
            },
            0,
        ),
        (
            HitlFilter {
                subject_pattern: Some("%SPEND%".into()),
                ..HitlFilter::default()
            },
            1,
        ),
        (
            HitlFilter {
                body_pattern: Some(r"%50\%%".into()),
                ..HitlFilter::default()
            },
            1,
        ),
        (
            HitlFilter {
                dag_id_pattern: Some("e%".into()),
                ..HitlFilter::default()
            },
            2,
        ),
        (
            HitlFilter {
                dag_id_pattern: Some("x%".into()),
                ..HitlFilter::default()
            },
            0,
        ),
        (
            HitlFilter {
                created_at: TimeRange {
                    gt: Some(NOW),
                    ..TimeRange::default()
                },
                ..HitlFilter::default()
            },
            1,
        ),
        (
            HitlFilter {
                ti: TiFilter {
                    dag_id: Some(dag_id("etl")),
                    states: vec![TaskInstanceState::AwaitingInput],
                    ..TiFilter::default()
                },
                ..HitlFilter::default()
            },
            1,
        ),
    ] {
        let shown = format!("{filter:?}");
        assert_eq!(found(filter).await.len(), count, "{shown}");
    }

    let answered = HitlFilter {
        response_received: Some(true),
        ..HitlFilter::default()
    };
    let row = db.hitl_details(&answered, PAGE).await.unwrap().items.remove(0);
    assert_eq!((row.created_at, row.responded_at), (seconds(5), Some(seconds(6))));
    assert_eq!(row.responded_by.as_deref(), Some("ann"));
    assert_eq!(row.chosen_options, Some(vec!["yes".to_owned(), "\"no\"".to_owned()]));
    assert_eq!(row.params_input.unwrap().to_string(), r#"{"amount":9007199254740993}"#);
    assert_eq!(row.step.options, ["yes", "no"]);
    let mut first = row.ti.clone();
    first.try_number = TryNumber(1);
    let first = db.hitl_detail(first).await.unwrap().unwrap();
    assert_eq!((first.subject.as_str(), first.responded_at), ("Spend it?", None));

    // They go with their run.
    let gone = TickWrite {
        run_deletes: vec![DagRunKey(1)],
        ..tick()
    };
    test.commit(&lease, gone).await;
    assert_eq!(
        found(HitlFilter::default()).await.len(),
        1,
        "they are not listed any more"
    );
    let rest = IntentWrite::Purge {
        runs: vec![DagRunKey(1)],
        rows: 16,
    };
    let rest = TickWrite {
        dags: vec![DagWrite::Intent(rest)],
        ..tick()
    };
    test.commit(&lease, rest).await;
    assert!(db.hitl_detail(row.ti).await.unwrap().is_none());
    assert_eq!(found(HitlFilter::default()).await.len(), 1);
    test.db.close().await;
    db.close().await;
}
