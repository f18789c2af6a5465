use proptest::prelude::*;

use super::*;
use crate::dag::Task;
use crate::id::{DagId, DagRunKey, MapIndex, TaskIndex, TiKey};
use crate::run::testing::task;
use crate::time::Timestamp;

fn key(run: i64, task: u32) -> TiKey {
    TiKey {
        run: DagRunKey(run),
        task: TaskIndex(task),
        map_index: MapIndex::UNMAPPED,
    }
}

fn dag(name: &str) -> DagId {
    DagId::new(name).unwrap()
}

fn with(pool: &str, slots: u32, weight: i32) -> Task {
    Task {
        pool: pool.to_owned(),
        pool_slots: slots,
        priority_weight: weight,
        ..task("t", &[])
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

fn admitted(capacity: &mut Capacity, ready: &mut ReadyQueue, now: Timestamp) -> Vec<TiKey> {
    admit(capacity, ready, now)
        .into_iter()
        .map(|admitted| admitted.key)
        .collect()
}

#[test]
fn higher_weight_goes_first_and_within_a_weight_who_came_first() {
    let (mut capacity, mut ready) = (Capacity::new(10), ReadyQueue::new());
    capacity.set_pool("p", 10);
    for (index, weight) in [(0, 1), (1, 5), (2, 1), (3, 5)] {
        ready.push(key(1, index), &dag("d"), &with("p", 1, weight), at(0));
    }
    let order: Vec<u32> = admitted(&mut capacity, &mut ready, at(1))
        .iter()
        .map(|key| key.task.0)
        .collect();
    assert_eq!(order, [1, 3, 0, 2]);
}

#[test]
fn runs_take_turns_however_much_one_has_queued() {
    let (mut capacity, mut ready) = (Capacity::new(4), ReadyQueue::new());
    capacity.set_pool("p", -1);
    for index in 0..1000 {
        ready.push(key(1, index), &dag("a"), &with("p", 1, 1), at(0));
    }
    assert_eq!(admitted(&mut capacity, &mut ready, at(0)).len(), 4);
    // Long after, another run comes: it gets every other slot at once.
    for index in 0..10 {
        ready.push(key(2, index), &dag("b"), &with("p", 1, 1), at(600));
    }
    for index in 0..4 {
        capacity.release(key(1, index));
    }
    let runs: Vec<i64> = admitted(&mut capacity, &mut ready, at(600))
        .iter()
        .map(|key| key.run.0)
        .collect();
    assert_eq!(runs.iter().filter(|run| **run == 2).count(), 2, "{runs:?}");
}

#[test]
fn a_starved_task_is_eventually_run() {
    let (mut capacity, mut ready) = (Capacity::new(1), ReadyQueue::new());
    capacity.set_pool("p", 1);
    ready.push(key(1, 0), &dag("low"), &with("p", 1, 1), at(0));
    // Something more important comes in every second, from ever new runs, and takes a second.
    for second in 0..1000 {
        ready.push(key(second + 2, 0), &dag("high"), &with("p", 1, 20), at(second));
        let now = admitted(&mut capacity, &mut ready, at(second));
        assert_eq!(now.len(), 1);
        if now[0] == key(1, 0) {
            assert!(second >= 190, "not before its time either: {second}");
            return;
        }
        capacity.release(now[0]);
    }
    panic!("the low task never ran");
}

#[test]
fn paused_dags_unknown_pools_and_full_dags_wait() {
    let (mut capacity, mut ready) = (Capacity::new(10), ReadyQueue::new());
    capacity.set_pool("p", 10);
    capacity.set_dag(&dag("paused"), 10, true);
    capacity.set_dag(&dag("narrow"), 1, false);
    ready.push(key(1, 0), &dag("paused"), &with("p", 1, 1), at(0));
    ready.push(key(2, 0), &dag("other"), &with("nowhere", 1, 1), at(0));
    ready.push(key(3, 0), &dag("narrow"), &with("p", 1, 1), at(0));
    ready.push(key(3, 1), &dag("narrow"), &with("p", 1, 1), at(0));
    assert_eq!(admitted(&mut capacity, &mut ready, at(0)), [key(3, 0)]);
    capacity.release(key(3, 0));
    capacity.release(key(3, 0));
    capacity.set_dag(&dag("paused"), 10, false);
    capacity.set_pool("nowhere", 1);
    let mut now = admitted(&mut capacity, &mut ready, at(0));
    now.sort();
    assert_eq!(now, [key(1, 0), key(2, 0), key(3, 1)]);
    assert!(ready.is_empty());
}

#[test]
fn a_hundred_thousand_entries_are_admitted_without_scans() {
    let (mut capacity, mut ready) = (Capacity::new(16), ReadyQueue::new());
    capacity.set_pool("p", -1);
    capacity.set_pool("full", 0);
    let (open, blocked) = (with("p", 1, 1), with("full", 1, 9));
    for index in 0..50_000 {
        ready.push(key(1, index), &dag("d"), &open, at(0));
        ready.push(key(1, 50_000 + index), &dag("d"), &blocked, at(0));
    }
    let started = std::time::Instant::now();
    let mut done = 0;
    while done < 50_000 {
        let now = admitted(&mut capacity, &mut ready, at(1));
        assert!(!now.is_empty());
        done += now.len();
        for key in now {
            capacity.release(key);
        }
    }
    assert_eq!(ready.len(), 50_000);
    assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
    ready.remove_run(DagRunKey(1));
    assert!(ready.is_empty() && admit(&mut capacity, &mut ready, at(2)).is_empty());
}

#[test]
fn runs_start_in_order_while_their_dag_has_slots() {
    let mut gate = RunGate::new();
    gate.set_dag(&dag("d"), 2, false);
    for (run, run_after) in [(1, 30), (2, 10), (3, 20), (4, 900)] {
        gate.queue(DagRunKey(run), &dag("d"), at(run_after));
    }
    assert_eq!(gate.next_timer(), Some(at(10)));
    assert_eq!(gate.startable(at(25)), [DagRunKey(2), DagRunKey(3)]);
    assert!(gate.startable(at(50)).is_empty(), "two run");
    assert_eq!(gate.next_timer(), None, "time alone starts nothing");
    gate.remove(DagRunKey(2));
    gate.set_dag(&dag("d"), 2, true);
    assert!(gate.startable(at(50)).is_empty(), "paused");
    gate.set_dag(&dag("d"), 2, false);
    assert_eq!(gate.startable(at(50)), [DagRunKey(1)]);
    gate.remove(DagRunKey(1));
    assert_eq!(gate.next_timer(), Some(at(900)));
    assert_eq!(gate.running_of(&dag("d")), 1);
    gate.queue(DagRunKey(3), &dag("d"), at(20));
    assert_eq!(
        gate.startable(at(50)),
        [DagRunKey(3)],
        "a run that was cleared waits and starts again"
    );
}

proptest! {
    /// Whatever is pushed, admitted, released and resized: no bound is passed by an admission, and nothing is lost or doubled.
    #[test]
    fn admission_never_over_commits(
        steps in prop::collection::vec((0..6_u8, 0..4_i64, 0..12_u32, 1..4_u32, -3..3_i32), 1..120),
        pool_slots in 0..6_i64,
        parallelism in 1..8_u32,
        max_active_tasks in 1..4_u32,
    ) {
        let (mut capacity, mut ready) = (Capacity::new(parallelism), ReadyQueue::new());
        capacity.set_pool("p", pool_slots);
        capacity.set_pool("q", -1);
        for run in 0..2 {
            capacity.set_dag(&dag(&format!("d{run}")), max_active_tasks, false);
        }
        let mut waiting = std::collections::BTreeMap::new();
        let mut out: std::collections::BTreeMap<TiKey, (i64, &str, u32)> = std::collections::BTreeMap::new();
        for (now, (what, run, index, slots, weight)) in steps.into_iter().enumerate() {
            let now = at(i64::try_from(now).unwrap() * 7);
            let key = key(run, index);
            match what {
                0..=2 if !out.contains_key(&key) && !waiting.contains_key(&key) => {
                    let pool = if index % 3 == 0 { "q" } else { "p" };
                    ready.push(key, &dag(&format!("d{}", run % 2)), &with(pool, slots, weight), now);
                    waiting.insert(key, (run % 2, pool, slots));
                }
                3 => { capacity.release(key); out.remove(&key); }
                4 => { prop_assert_eq!(ready.remove(key), waiting.remove(&key).is_some()); }
                _ => for key in admitted(&mut capacity, &mut ready, now) {
                    let entry = waiting.remove(&key);
                    prop_assert!(entry.is_some(), "admitted what did not wait");
                    out.extend(entry.map(|entry| (key, entry)));
                },
            }
            prop_assert_eq!(ready.len(), waiting.len());
            prop_assert_eq!(capacity.used(), out.len());
            prop_assert!(out.len() <= parallelism as usize);
            let of_pool: u32 = out.values().filter(|(_, pool, _)| *pool == "p").map(|(_, _, slots)| slots).sum();
            prop_assert!(i64::from(of_pool) <= pool_slots);
            prop_assert_eq!(capacity.pool_used("p"), i64::from(of_pool));
            for dag in 0..2 {
                prop_assert!(out.values().filter(|(of, _, _)| *of == dag).count() <= max_active_tasks as usize);
            }
        }
    }
}
