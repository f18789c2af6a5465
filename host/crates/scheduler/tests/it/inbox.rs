//! What another process asks by rows of the inbox: the same answers as here, and each request done once whatever stops meanwhile.

use std::sync::Arc;
use std::time::Duration;

use model::{DagRunState, Timestamp};
use ports::control::{ControlError, NewPool};
use ports::inbox::{Answer, Done, InboxStore as _, Request};
use ports::store::{CommitError, SchedulerStore as _};
use scheduler::MemoryStore;
use uuid::Uuid;

use crate::support::{DagBuilder, Fault, FaultyStore, Reply, Rig, RigBuilder, request, run_id};

fn trigger() -> Request {
    Request::Trigger(request("d"))
}

/// Commits a request as another process does.
async fn ask(store: &MemoryStore, request: &Request) -> Uuid {
    let id = Uuid::now_v7();
    let text = serde_json::to_string(request).unwrap();
    store.ask(id, &text, Timestamp(0)).await.unwrap();
    id
}

async fn answer(store: &MemoryStore, id: Uuid) -> Answer {
    loop {
        let answers = store.answers(&[id]).await.unwrap();
        match answers.first() {
            Some((_, text)) => return serde_json::from_str(text).unwrap(),
            None => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    }
}

async fn rig_with(plan: impl FnMut(u64, &ports::store::TickWrite) -> Fault + Send + 'static) -> Rig {
    let store = FaultyStore::new(Arc::new(MemoryStore::new()), plan);
    RigBuilder::new(|_| Reply::done()).store(store).start().await
}

/// The next process, on what the last one left.
async fn next(crashed: &FaultyStore, clock: &Arc<crate::support::TokioClock>) -> Rig {
    tokio::time::advance(Duration::from_secs(60)).await;
    RigBuilder::new(|_| Reply::done())
        .store(FaultyStore::new(Arc::clone(&crashed.inner), |_, _| Fault::None))
        .clock(Arc::clone(clock))
        .start()
        .await
}

/// The tick that does what a request asks for.
fn settles(tick: &ports::store::TickWrite) -> bool {
    tick.audit.iter().any(|line| line.settles.is_some())
}

#[tokio::test(start_paused = true)]
async fn a_request_is_found_without_a_bell_within_a_second() {
    let rig = rig_with(|_, _| Fault::None).await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let began = rig.now();
    let id = ask(&rig.store.inner, &trigger()).await;
    let Ok(Done::Run(run)) = answer(&rig.store.inner, id).await else {
        panic!("no run")
    };
    assert!(rig.now().since(began) <= Duration::from_millis(1_100));
    assert_eq!(rig.finished(&run).await, DagRunState::Success);
    assert_eq!(run.triggering_user.as_deref(), Some("tester"));
}

#[tokio::test(start_paused = true)]
async fn a_bell_makes_it_found_at_once() {
    let rig = rig_with(|_, _| Fault::None).await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let began = rig.now();
    let id = ask(&rig.store.inner, &trigger()).await;
    rig.handle.ring();
    answer(&rig.store.inner, id).await.unwrap();
    assert!(rig.now().since(began) < Duration::from_millis(10));
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_answered_and_what_cannot_be_read_too() {
    let rig = rig_with(|_, _| Fault::None).await;
    let store = &rig.store.inner;
    let unreadable = Uuid::now_v7();
    store.ask(unreadable, "{\"new\":1}", Timestamp(0)).await.unwrap();
    let unknown = ask(store, &trigger()).await;
    rig.handle.ring();
    assert!(matches!(
        answer(store, unreadable).await,
        Err(ControlError::Internal(_))
    ));
    let refused = answer(store, unknown).await;
    assert!(
        matches!(&refused, Err(ControlError::DagNotFound(dag)) if dag.as_str() == "d"),
        "{refused:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_is_done_once_when_the_scheduler_dies_with_it() {
    for (fault, done_by_the_first) in [(Fault::CrashBefore, false), (Fault::CrashAfter, true)] {
        let rig = rig_with(move |_, tick| if settles(tick) { fault } else { Fault::None }).await;
        rig.deploy(DagBuilder::chain("d", 1)).await;
        let id = ask(&rig.store.inner, &trigger()).await;
        let mut crashed = rig.store.crashed.subscribe();
        rig.handle.ring();
        crashed.wait_for(|crashed| *crashed).await.unwrap();
        let (store, clock) = rig.crash().await;
        assert!(store.inner.answers(&[id]).await.unwrap().is_empty());
        let rig = next(&store, &clock).await;
        let answer = answer(&store.inner, id).await;
        match done_by_the_first {
            true => assert!(matches!(answer, Ok(Done::Unsaid)), "{answer:?}"),
            false => assert!(matches!(answer, Ok(Done::Run(_))), "{answer:?}"),
        }
        let runs = store.inner.runs();
        assert_eq!(runs.len(), 1, "{fault:?}");
        assert_eq!(rig.finished(&runs[0]).await, DagRunState::Success);
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_whose_outcome_is_not_known_does_it_once() {
    for fault in [Fault::UnknownLost, Fault::UnknownWritten] {
        let mut first = true;
        let rig = rig_with(move |_, tick| {
            if settles(tick) && std::mem::take(&mut first) {
                fault
            } else {
                Fault::None
            }
        })
        .await;
        rig.deploy(DagBuilder::chain("d", 1)).await;
        let id = ask(&rig.store.inner, &trigger()).await;
        rig.handle.ring();
        assert!(matches!(answer(&rig.store.inner, id).await, Ok(Done::Run(_))));
        assert_eq!(rig.store.inner.runs().len(), 1, "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_waits_until_the_database_writes_again() {
    let mut refusals = 200;
    let rig = rig_with(move |_, tick| {
        if settles(tick) && refusals > 0 {
            refusals -= 1;
            Fault::Passing
        } else {
            Fault::None
        }
    })
    .await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let id = ask(&rig.store.inner, &trigger()).await;
    rig.handle.ring();
    let answer = answer(&rig.store.inner, id).await;
    assert!(matches!(answer, Ok(Done::Run(_))), "{answer:?}");
    assert_eq!(rig.store.inner.runs().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_while_no_scheduler_ran_is_done_by_the_next() {
    let rig = rig_with(|_, _| Fault::None).await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let (store, clock) = rig.crash().await;
    let mut named = request("d");
    named.run_id = Some(run_id("mine"));
    let ids = [
        ask(&store.inner, &Request::Trigger(named.clone())).await,
        ask(&store.inner, &trigger()).await,
    ];
    let rig = next(&store, &clock).await;
    for id in ids {
        let Ok(Done::Run(run)) = answer(&store.inner, id).await else {
            panic!("no run")
        };
        assert_eq!(rig.finished(&run).await, DagRunState::Success);
    }
    let again = ask(&store.inner, &Request::Trigger(named)).await;
    rig.handle.ring();
    assert!(matches!(
        answer(&store.inner, again).await,
        Err(ControlError::RunExists(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn more_requests_than_are_done_at_a_time_are_all_done() {
    let rig = rig_with(|_, _| Fault::None).await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let mut ids = Vec::new();
    for at in 0..300 {
        let request = match at % 3 {
            0 => trigger(),
            1 => Request::CreatePool {
                pool: NewPool {
                    name: format!("pool-{at}"),
                    slots: at,
                    description: None,
                    include_deferred: false,
                },
                user: "tester".to_owned(),
            },
            _ => Request::SetPaused {
                dag_id: request("d").dag_id,
                paused: false,
                user: "tester".to_owned(),
            },
        };
        ids.push(ask(&rig.store.inner, &request).await);
    }
    rig.handle.ring();
    let began = rig.now();
    for id in &ids {
        answer(&rig.store.inner, *id).await.unwrap();
    }
    assert!(
        rig.now().since(began) < Duration::from_secs(1),
        "nobody waits for the next look"
    );
    assert_eq!(rig.store.inner.runs().len(), 100);
    assert_eq!(rig.store.inner.all_pools().len(), 101);
    let settled = rig.store.inner.audit_log();
    let mut settled: Vec<_> = settled.iter().filter_map(|line| line.settles).collect();
    settled.sort();
    ids.sort();
    assert_eq!(settled, ids);
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_that_stops_answers_what_it_has_done() {
    let rig = rig_with(|_, _| Fault::None).await;
    rig.deploy(DagBuilder::chain("d", 1)).await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(ask(&rig.store.inner, &trigger()).await);
    }
    rig.handle.ring();
    answer(&rig.store.inner, ids[0]).await.unwrap();
    rig.handle.shutdown(Duration::ZERO).await;
    rig.running.await.unwrap();
    let store = &rig.store.inner;
    let answered = store.answers(&ids).await.unwrap().len();
    assert_eq!(
        store.runs().len(),
        answered,
        "what is done is answered, the rest is not begun"
    );
    let rig = next(&rig.store, &rig.clock).await;
    for id in ids {
        let answer = answer(&rig.store.inner, id).await;
        assert!(matches!(answer, Ok(Done::Run(_))), "{answer:?}");
    }
    assert_eq!(rig.store.inner.runs().len(), 100);
}

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_takes_are_removed() {
    let rig = rig_with(|_, _| Fault::None).await;
    let id = ask(&rig.store.inner, &trigger()).await;
    answer(&rig.store.inner, id).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(3_000)).await;
    assert_eq!(rig.store.inner.answers(&[id]).await.unwrap().len(), 1);
    tokio::time::sleep(Duration::from_secs(1_300)).await;
    assert!(rig.store.inner.answers(&[id]).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_scheduler_without_the_lease_answers_nothing() {
    let rig = rig_with(|_, _| Fault::None).await;
    let old = rig.store.inner.lease().unwrap();
    let id = ask(&rig.store.inner, &trigger()).await;
    let (store, clock) = rig.crash().await;
    let _next = next(&store, &clock).await;
    let late = [(id, "late".to_owned())];
    let refused = store.inner.answer_inbox(&old, &late, Timestamp(0)).await;
    assert!(matches!(refused, Err(CommitError::Fenced)));
    assert!(matches!(
        answer(&store.inner, id).await,
        Err(ControlError::DagNotFound(_))
    ));
}
