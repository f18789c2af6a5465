//! Tasks that ask people.

use std::time::Duration;

use model::dag::TaskKind;
use model::human::{APPROVE, Approval, HumanStep, OnTimeout, REJECT};
use model::{Cause, DagRunState, MapIndex, TaskId, TaskInstanceState, Work};
use ports::control::{ClearRequest, Control as _, ControlError, RespondRequest, Responded};
use ports::executor::TryOutcome;
use ports::query::RunRow;
use serde_json::{Value, json};

use crate::support::{DagBuilder, Reply, Rig, RigBuilder};

fn step() -> HumanStep {
    HumanStep {
        options: [APPROVE, REJECT].map(str::to_owned).to_vec(),
        defaults: None,
        multiple: false,
        params: Default::default(),
        assigned_users: Vec::new(),
        timeout: None,
        on_timeout: OnTimeout::Fail,
        approval: Some(Approval { fail_on_reject: false }),
        branches: false,
    }
}

fn asks(step: HumanStep) -> DagBuilder {
    let kind = TaskKind::ShortCircuit {
        ignore_downstream_trigger_rules: false,
    };
    DagBuilder::new("d")
        .task_with("ask", &[], |task| {
            task.work = Work::Human(Box::new(step));
            task.kind = kind;
        })
        .task("next", &["ask"])
}

fn builder() -> RigBuilder {
    RigBuilder::new(|request| match &request.task.work {
        Work::Human(_) => Reply::End(
            TryOutcome::AwaitInput {
                subject: "Go on?".to_owned(),
                body: Some("It costs **7**.".to_owned()),
            },
            Vec::new(),
        ),
        _ => Reply::done(),
    })
}

async fn waiting(rig: &Rig) -> RunRow {
    let mut events = rig.handle.subscribe();
    let run = rig.trigger("d").await;
    asked(&mut events).await;
    run
}

async fn asked(events: &mut tokio::sync::broadcast::Receiver<ports::control::RunEvent>) {
    loop {
        let event = events.recv().await.unwrap();
        if let ports::control::RunEvent::TaskInstance { state, .. } = event
            && state == TaskInstanceState::AwaitingInput
        {
            return;
        }
    }
}

async fn respond(rig: &Rig, run: &RunRow, option: &str) -> Result<Responded, ControlError> {
    respond_as(rig, run, "ask", option, "ann").await
}

async fn respond_as(rig: &Rig, run: &RunRow, task: &str, option: &str, user: &str) -> Result<Responded, ControlError> {
    let request = RespondRequest {
        dag_id: run.dag_id.clone(),
        run_id: run.run_id.clone(),
        task_id: TaskId::new(task).unwrap(),
        map_index: MapIndex::UNMAPPED,
        chosen_options: vec![option.to_owned()],
        params_input: serde_json::Map::new(),
        user: user.to_owned(),
    };
    rig.handle.respond(request).await
}

#[tokio::test(start_paused = true)]
async fn an_answer_lets_the_run_go_on_and_is_what_the_task_publishes() {
    let rig = builder().start().await;
    rig.deploy(asks(step())).await;
    let run = waiting(&rig).await;
    let (question, answer) = rig.store.inner.hitl_of(run.key).remove(0);
    assert_eq!(
        (question.subject.as_str(), question.body.as_deref()),
        ("Go on?", Some("It costs **7**."))
    );
    assert_eq!(answer, None);
    let responded = respond(&rig, &run, APPROVE).await.unwrap();
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(rig.state(run.key, "next"), TaskInstanceState::Success);
    let (_, answer) = rig.store.inner.hitl_of(run.key).remove(0);
    let answer = answer.unwrap();
    assert_eq!((answer.user.as_deref(), answer.at), (Some("ann"), responded.at));
    let (_, _, key, value) = rig.store.inner.xcoms_of(run.key).remove(0);
    assert_eq!(key, "return_value");
    let value: Value = serde_json::from_str(&value.value).unwrap();
    assert_eq!(value["chosen_options"], json!([APPROVE]));
    assert_eq!(value["responded_by_user"]["id"], "ann");
    let line = rig.store.inner.audit_log().pop().unwrap();
    assert_eq!((line.event, line.user.as_str()), ("update_hitl_detail", "ann"));
}

#[tokio::test(start_paused = true)]
async fn a_rejection_skips_what_follows() {
    let rig = builder().start().await;
    rig.deploy(asks(step())).await;
    let run = waiting(&rig).await;
    respond(&rig, &run, REJECT).await.unwrap();
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(rig.state(run.key, "next"), TaskInstanceState::Skipped);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_changes_nothing_and_says_why() {
    let rig = builder().start().await;
    rig.deploy(asks(HumanStep {
        assigned_users: vec!["ann".to_owned()],
        ..step()
    }))
    .await;
    let run = waiting(&rig).await;
    let commits = rig.commits();
    let bob = respond_as(&rig, &run, "ask", APPROVE, "bob").await;
    assert!(matches!(bob, Err(ControlError::Forbidden(_))), "{bob:?}");
    let odd = respond(&rig, &run, "Perhaps").await;
    assert!(matches!(odd, Err(ControlError::InvalidAnswer { .. })), "{odd:?}");
    let nobody = respond_as(&rig, &run, "next", APPROVE, "ann").await;
    assert!(matches!(nobody, Err(ControlError::NotAsked(_))), "{nobody:?}");
    let unknown = respond_as(&rig, &run, "nope", APPROVE, "ann").await;
    assert!(matches!(unknown, Err(ControlError::TaskNotFound { .. })), "{unknown:?}");
    assert_eq!(rig.state(run.key, "ask"), TaskInstanceState::AwaitingInput);
    assert_eq!(rig.commits(), commits);
    respond(&rig, &run, APPROVE).await.unwrap();
    rig.finished(&run).await;
    // Afterwards there is nothing to answer, whoever asks and whatever is said.
    for (option, user) in [(REJECT, "ann"), ("Perhaps", "bob")] {
        let late = respond_as(&rig, &run, "ask", option, user).await;
        assert!(matches!(late, Err(ControlError::Conflict(_))), "{late:?}");
    }
    assert_eq!(rig.state(run.key, "next"), TaskInstanceState::Success);
}

#[tokio::test(start_paused = true)]
async fn a_question_outlives_the_server_and_holds_no_slot() {
    let id = uuid::Uuid::from_u128(7);
    let rig = builder()
        .config(|config| {
            config.parallelism = Some(1);
            config.scheduler_id = id;
        })
        .start()
        .await;
    rig.deploy(asks(step())).await;
    let first = waiting(&rig).await;
    // The one slot is free for others.
    let second = waiting(&rig).await;
    let (store, clock) = rig.crash().await;
    let rig = builder()
        .config(|config| {
            config.parallelism = Some(1);
            config.scheduler_id = id;
        })
        .store(store)
        .clock(clock)
        .start()
        .await;
    assert_eq!(rig.executor.count(), 0, "it is not asked again");
    respond(&rig, &first, APPROVE).await.unwrap();
    respond(&rig, &second, REJECT).await.unwrap();
    assert_eq!(rig.finished(&first).await, DagRunState::Success);
    assert_eq!(rig.finished(&second).await, DagRunState::Success);
    let states = [&first, &second].map(|run| rig.state(run.key, "next"));
    assert_eq!(states, [TaskInstanceState::Success, TaskInstanceState::Skipped]);
}

#[tokio::test(start_paused = true)]
async fn when_time_runs_out_the_defaults_are_the_answer_or_it_fails() {
    let minute = Some(Duration::from_secs(60));
    let rig = builder().start().await;
    rig.deploy(asks(HumanStep {
        defaults: Some(vec![APPROVE.to_owned()]),
        timeout: minute,
        on_timeout: OnTimeout::Default,
        ..step()
    }))
    .await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Success);
    let (_, answer) = rig.store.inner.hitl_of(run.key).remove(0);
    let answer = answer.unwrap();
    assert_eq!((answer.user, answer.chosen_options), (None, vec![APPROVE.to_owned()]));
    assert_eq!(rig.store.inner.xcoms_of(run.key).len(), 1);

    let rig = builder().start().await;
    rig.deploy(asks(HumanStep {
        timeout: minute,
        ..step()
    }))
    .await;
    let (run, state) = rig.run_to_end("d").await;
    assert_eq!(state, DagRunState::Failed);
    let ti = rig.ti(run.key, "ask");
    assert_eq!(
        (ti.cause, ti.message.as_deref()),
        (Some(Cause::TimedOut), Some("nobody answered in time"))
    );
}

#[tokio::test(start_paused = true)]
async fn a_cleared_question_is_asked_anew() {
    let rig = builder().start().await;
    rig.deploy(asks(step())).await;
    let run = waiting(&rig).await;
    let mut events = rig.handle.subscribe();
    let clear = ClearRequest {
        run_id: Some(run.run_id.clone()),
        tasks: Some(vec![(TaskId::new("ask").unwrap(), None)]),
        user: "ann".to_owned(),
        ..ClearRequest::default()
    };
    rig.handle.clear(&run.dag_id, clear).await.unwrap();
    asked(&mut events).await;
    assert_eq!(rig.store.inner.hitl_of(run.key).len(), 2, "one question a try");
    respond(&rig, &run, APPROVE).await.unwrap();
    rig.finished(&run).await;
    let answered: Vec<bool> = rig
        .store
        .inner
        .hitl_of(run.key)
        .iter()
        .map(|(_, answer)| answer.is_some())
        .collect();
    assert_eq!(answered, [false, true]);
}
