//! `when`: what it renders to decides whether a try begins, whatever the task does.

use std::sync::Arc;

use model::between::{IfExists, TriggerDag};
use model::human::{HumanStep, OnTimeout};
use model::{Cause, DagId, DagRunState, Work};
use ports::executor::{Element, ElementAt, Position, TryOutcome, TryReport, TryRequest};
use serde_json::{Value, json};
use test_artifacts as artifacts;

use crate::support::{World, died, returned};

/// A task of a component with `when`.
async fn asked(world: &World, when: &str) -> TryRequest {
    let mut request = world
        .request(artifacts::XCOM_ROUND_TRIP, "round_trip", json!({"a": 1}))
        .await;
    Arc::make_mut(&mut request.task).when = Some(when.to_owned());
    request
}

async fn run(world: &World, when: &str) -> TryReport {
    let request = asked(world, when).await;
    world.report(request).await
}

fn reason(report: &TryReport) -> &str {
    match &report.outcome {
        TryOutcome::Skip { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_false_skips_and_says_so_where_people_look() {
    let world = World::new();
    world.xcoms.put("load", &json!({"rows": 0}));
    assert_eq!(
        returned(&run(&world, "{{ xcom.load.rows == 0 }}").await),
        json!({"a": 1})
    );
    let skipped = run(&world, "{{ xcom.load.rows > 0 }}").await;
    assert_eq!(reason(&skipped), "`when` is false: {{ xcom.load.rows > 0 }}");
    assert!(skipped.xcoms.is_empty());
    let log = world.log(skipped.id);
    assert!(log.contains("skipped: `when` is false"), "{log}");
    let long = format!("{{{{ false and '{}' }}}}", "é".repeat(4_000));
    assert!(reason(&run(&world, &long).await).len() < 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_truth_value_is_an_invalid_input() {
    let world = World::new();
    world
        .xcoms
        .put("load", &json!({"rows": 0, "name": "x".repeat(100_000)}));
    for (when, said) in [
        ("{{ xcom.load.rows }}", "it rendered to 0"),
        ("{{ 'true' }}", "it rendered to \"true\""),
        ("{{ none }}", "it rendered to null"),
        ("{{ xcom.load }}", "over the limit"),
        ("{{ xcom.load.more }}", "`xcom.load.more` is not there"),
        ("{{ xcom.nobody }}", "nobody"),
        (
            "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
            "too many steps",
        ),
    ] {
        let refused = run(&world, when).await;
        let failure = died(&refused, Cause::InputInvalid);
        assert!(
            failure.message.contains("`when`") && failure.message.contains(said) && failure.message.len() < 1_000,
            "{when}: {failure:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mapped_instance_is_asked_by_itself() {
    let world = World::new();
    for (size, runs) in [(1, false), (5, true)] {
        let mut request = asked(&world, "{{ item.size > 2 }}").await;
        request.position = Some(Box::new(Position {
            elements: vec![Element {
                name: "size".to_owned(),
                into_input: true,
                at: ElementAt::Value {
                    value: size.to_string(),
                },
            }],
            iteration: None,
        }));
        Arc::make_mut(&mut request.task).map_index_template = Some("size {{ item.size }}".to_owned());
        let report = world.report(request).await;
        assert_eq!(matches!(report.outcome, TryOutcome::Done { .. }), runs, "{report:?}");
        assert_eq!(report.rendered_map_index, Some(format!("size {size}")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn built_in_steps_are_asked_before_they_begin() {
    let world = World::new();
    let human = Work::Human(Box::new(HumanStep {
        options: vec!["OK".to_owned()],
        defaults: None,
        multiple: false,
        params: Default::default(),
        assigned_users: Vec::new(),
        timeout: None,
        on_timeout: OnTimeout::Fail,
        approval: None,
        branches: false,
    }));
    let trigger = Work::TriggerDag(Box::new(chooses(&["child"])));
    for work in [human, trigger, Work::LatestOnly] {
        for (when, skips) in [("{{ false }}", true), ("{{ true }}", false)] {
            let mut request = asked(&world, when).await;
            let task = Arc::make_mut(&mut request.task);
            task.work = work.clone();
            task.input = json!({"subject": "Go on?", "dag": "child"});
            let report = world.report(request).await;
            assert_eq!(matches!(report.outcome, TryOutcome::Skip { .. }), skips, "{report:?}");
        }
    }
}

fn chooses(allowed: &[&str]) -> TriggerDag {
    TriggerDag {
        dag: None,
        allowed: allowed.iter().map(|dag| DagId::new(dag).unwrap()).collect(),
        if_exists: IfExists::Fail,
        wait: true,
        allowed_states: vec![DagRunState::Success],
        result: None,
        timeout: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_names_one_of_the_dags_that_are_allowed() {
    let world = World::new();
    world.xcoms.put("load", &json!("b"));
    let named = async |dag: Value| {
        let mut request = asked(&world, "{{ true }}").await;
        let task = Arc::make_mut(&mut request.task);
        task.work = Work::TriggerDag(Box::new(chooses(&["a", "b"])));
        task.input = json!({"dag": dag});
        world.report(request).await
    };
    let done = named(json!("{{ xcom.load }}")).await;
    let TryOutcome::TriggerDag(asked) = &done.outcome else {
        panic!("{done:?}");
    };
    assert_eq!(asked.dag.as_ref().map(DagId::as_str), Some("b"));
    for (dag, said) in [
        (
            json!("{{ 'c' }}"),
            "the rendered `dag` is `c`, which is not one of `allowed`: a, b",
        ),
        (json!("{{ none }}"), "not one of `allowed`"),
        (json!("{{ 1 }}"), "must be text, not a number"),
    ] {
        let refused = named(dag).await;
        let failure = died(&refused, Cause::InputInvalid);
        assert!(failure.message.contains(said), "{failure:?}");
    }
}
