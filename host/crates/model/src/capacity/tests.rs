use proptest::prelude::*;

use super::*;
use crate::dag::{Queueing, Task};
use crate::id::{DagId, DagRunKey, MapIndex, TaskIndex, TiKey};
use crate::run::testing::{cpu_time, task};
use crate::time::Timestamp;

pub(super) fn key(run: i64, task: u32) -> TiKey {
    TiKey {
        run: DagRunKey(run),
        task: TaskIndex(task),
        map_index: MapIndex::UNMAPPED,
    }
}

pub(super) fn dag(name: &str) -> DagId {
    DagId::new(name).unwrap()
}

pub(super) fn with(pool: &str, slots: u32, weight: i32) -> Task {
    Task {
        pool: pool.to_owned(),
        pool_slots: slots,
        priority_weight: weight,
        queueing: Queueing {
            weight,
            ..Queueing::default()
        },
        ..task("t", &[])
    }
}

/// A task of pool `p` with limits of its own.
pub(super) fn limited(id: &str, per_dag: Option<u32>, per_dagrun: Option<u32>) -> Task {
    Task {
        pool: "p".to_owned(),
        queueing: Queueing {
            max_active_tis_per_dag: per_dag,
            max_active_tis_per_dagrun: per_dagrun,
            ..Queueing::default()
        },
        ..task(id, &[])
    }
}

pub(super) fn mapped(run: i64, task: u32, map_index: i32) -> TiKey {
    TiKey {
        map_index: MapIndex(map_index),
        ..key(run, task)
    }
}

pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

pub(super) fn admitted(capacity: &mut Capacity, ready: &mut ReadyQueue, now: Timestamp) -> Vec<TiKey> {
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
fn a_task_at_its_limit_waits_and_holds_nobody_else_up() {
    let (mut capacity, mut ready) = (Capacity::new(100), ReadyQueue::new());
    capacity.set_pool("p", -1);
    let narrow = limited("narrow", Some(3), Some(2));
    for run in 1..=3 {
        for index in 0..4 {
            ready.push(mapped(run, 0, index), &dag("d"), &narrow, at(run));
        }
        ready.push(key(run, 1), &dag("d"), &limited("free", None, None), at(run));
    }
    // A task of that name in another DAG is another task.
    ready.push(key(9, 0), &dag("other"), &narrow, at(9));
    let first = admitted(&mut capacity, &mut ready, at(10));
    let narrow_of = |keys: &[TiKey], run| keys.iter().filter(|key| key.run.0 == run && key.task.0 == 0).count();
    assert_eq!(first.iter().filter(|key| key.task.0 == 1).count(), 3);
    assert_eq!(narrow_of(&first, 9), 1);
    let of_d: Vec<usize> = (1..=3).map(|run| narrow_of(&first, run)).collect();
    assert_eq!(of_d.iter().sum::<usize>(), 3, "three in all runs: {first:?}");
    assert!(of_d.iter().all(|count| *count <= 2), "two in one run: {first:?}");
    assert_eq!(ready.len(), 9);
    assert!(admitted(&mut capacity, &mut ready, at(11)).is_empty());
    // One that ends makes room for one, and for no more.
    let ended = *first.iter().find(|key| key.run.0 < 9 && key.task.0 == 0).unwrap();
    capacity.release(ended);
    assert_eq!(admitted(&mut capacity, &mut ready, at(12)).len(), 1);
    // The other runs go away: nothing of theirs is left, and what is left goes on.
    ready.remove_run(DagRunKey(1));
    ready.remove_run(DagRunKey(2));
    capacity.release_run(DagRunKey(1));
    capacity.release_run(DagRunKey(2));
    let mut rounds = 0;
    while !ready.is_empty() {
        capacity.release_run(DagRunKey(3));
        assert!(!admitted(&mut capacity, &mut ready, at(13)).is_empty());
        rounds += 1;
    }
    assert!(rounds <= 2, "{rounds}");
}

#[test]
fn a_task_is_counted_by_its_id_over_versions() {
    let (mut capacity, mut ready) = (Capacity::new(100), ReadyQueue::new());
    capacity.set_pool("p", -1);
    // In the old version the task had another position and no limit.
    ready.push(key(1, 5), &dag("d"), &limited("t", None, None), at(0));
    ready.push(key(2, 0), &dag("d"), &limited("t", Some(1), None), at(1));
    assert_eq!(admitted(&mut capacity, &mut ready, at(2)), [key(1, 5)]);
    capacity.release(key(1, 5));
    assert_eq!(admitted(&mut capacity, &mut ready, at(3)), [key(2, 0)]);
}

#[test]
fn a_starved_task_is_run_although_a_limit_held_it_back_meanwhile() {
    let (mut capacity, mut ready) = (Capacity::new(2), ReadyQueue::new());
    capacity.set_pool("p", 2);
    let low = limited("low", Some(1), None);
    ready.push(key(1, 0), &dag("low"), &low, at(0));
    assert_eq!(admitted(&mut capacity, &mut ready, at(0)), [key(1, 0)]);
    // The second waits for the first, and from then on for what is more important: its waiting counts from the beginning.
    ready.push(key(2, 0), &dag("low"), &low, at(0));
    for second in 0..1000 {
        if second == 100 {
            capacity.release(key(1, 0));
        }
        for slot in 0..2 {
            ready.push(
                key(second * 2 + slot + 10, 0),
                &dag("high"),
                &with("p", 1, 20),
                at(second),
            );
        }
        for key in admitted(&mut capacity, &mut ready, at(second)) {
            if key.run.0 == 2 {
                assert!((190..300).contains(&second), "{second}");
                return;
            }
            capacity.release(key);
        }
    }
    panic!("the low task never ran");
}

#[test]
fn ten_thousand_entries_at_a_limit_are_put_aside_once() {
    let (mut capacity, mut ready) = (Capacity::new(64), ReadyQueue::new());
    capacity.set_pool("p", -1);
    let narrow = limited("narrow", None, Some(4));
    for index in 0..10_000 {
        ready.push(mapped(1, 0, index), &dag("d"), &narrow, at(0));
    }
    let began = cpu_time();
    let mut done = 0;
    while done < 10_000 {
        let now = admitted(&mut capacity, &mut ready, at(1));
        assert_eq!(now.len(), 4);
        done += now.len();
        for key in now {
            capacity.release(key);
        }
    }
    let took = cpu_time().checked_sub(began).unwrap();
    assert!(ready.is_empty() && took.as_secs() < 15, "{took:?}");
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
    let started = cpu_time();
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
    let took = cpu_time().checked_sub(started).unwrap();
    assert!(took.as_secs() < 15, "{took:?}");
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

#[test]
fn a_run_may_start_out_of_turn_where_its_dag_has_a_slot() {
    let mut gate = RunGate::new();
    gate.set_dag(&dag("d"), 1, false);
    gate.running(DagRunKey(9), &dag("d"), at(0));
    gate.queue(DagRunKey(1), &dag("d"), at(10));
    gate.queue(DagRunKey(2), &dag("d"), at(20));
    let full = |gate: &RunGate, now| gate.full(at(now)).cloned().collect::<Vec<_>>();
    assert!(full(&gate, 5).is_empty(), "nothing is due");
    assert_eq!(gate.next_due_of(&dag("d"), at(5)), Some(at(10)));
    assert_eq!(gate.next_due_of(&dag("d"), at(10)), Some(at(20)));
    assert_eq!(gate.next_due_of(&dag("d"), at(20)), None);
    assert_eq!(full(&gate, 15), [dag("d")]);
    assert_eq!(gate.due_of(&dag("d"), at(15)).next(), Some(DagRunKey(1)));
    assert!(gate.is_due(DagRunKey(1), at(15)) && !gate.is_due(DagRunKey(2), at(15)));
    assert!(!gate.is_due(DagRunKey(9), at(15)), "it runs");
    assert!(!gate.start(DagRunKey(1), at(15)), "there is no slot");
    gate.queue(DagRunKey(9), &dag("d"), at(0));
    assert!(full(&gate, 30).is_empty(), "there is one now");
    assert!(!gate.start(DagRunKey(2), at(15)), "it is not due");
    assert!(gate.start(DagRunKey(2), at(30)));
    assert_eq!(gate.running_of(&dag("d")), 1);
    assert!(gate.startable(at(30)).is_empty());
    gate.set_dag(&dag("d"), 1, true);
    assert!(full(&gate, 30).is_empty(), "a paused DAG starts nothing");
    gate.set_dag(&dag("d"), 1, false);
    gate.remove(DagRunKey(2));
    assert_eq!(gate.startable(at(30)), [DagRunKey(9)]);
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

    /// Limits of single tasks: they hold, nothing is lost, and nothing waits that could go.
    #[test]
    fn limits_of_tasks_hold_and_hold_nothing_else_up(
        steps in prop::collection::vec((0..8_u8, 0..3_i64, 0..3_u32, 0..4_i32), 1..160),
        limits in prop::collection::vec((prop::option::of(1..4_u32), prop::option::of(1..3_u32)), 3),
        pool_slots in -1..8_i64,
        parallelism in 1..10_u32,
    ) {
        let (mut capacity, mut ready) = (Capacity::new(parallelism), ReadyQueue::new());
        capacity.set_pool("p", pool_slots);
        let tasks: Vec<Task> = limits
            .iter()
            .enumerate()
            .map(|(at, (per_dag, per_dagrun))| limited(&format!("t{at}"), *per_dag, *per_dagrun))
            .collect();
        // Two of the runs are of one DAG.
        let dag_of = |run: i64| dag(if run < 2 { "d" } else { "e" });
        let mut waiting = std::collections::BTreeSet::new();
        let mut out = std::collections::BTreeSet::new();
        for (now, (what, run, index, map_index)) in steps.into_iter().enumerate() {
            let now = at(i64::try_from(now).unwrap());
            let key = mapped(run, index, map_index);
            match what {
                0..=3 if !out.contains(&key) && !waiting.contains(&key) => {
                    ready.push(key, &dag_of(run), &tasks[index as usize], now);
                    waiting.insert(key);
                }
                4 => { capacity.release(key); out.remove(&key); }
                5 => { prop_assert_eq!(ready.remove(key), waiting.remove(&key)); }
                6 if map_index == 0 => {
                    ready.remove_run(key.run);
                    waiting.retain(|waiting| waiting.run != key.run);
                }
                _ => {
                    for key in admitted(&mut capacity, &mut ready, now) {
                        prop_assert!(waiting.remove(&key), "admitted what did not wait");
                        prop_assert!(out.insert(key));
                    }
                    let room = out.len() < parallelism as usize
                        && (pool_slots < 0 || i64::try_from(out.len()).unwrap() < pool_slots);
                    for key in &waiting {
                        let (per_dag, per_dagrun) = limits[key.task.at()];
                        let same = |other: &&TiKey| other.task == key.task && dag_of(other.run.0) == dag_of(key.run.0);
                        let in_dag = out.iter().filter(same).count();
                        let in_run = out.iter().filter(same).filter(|other| other.run == key.run).count();
                        let fits = per_dag.is_none_or(|limit| in_dag < limit as usize)
                            && per_dagrun.is_none_or(|limit| in_run < limit as usize);
                        prop_assert!(!(room && fits), "{:?} waits for nothing", key);
                    }
                }
            }
            prop_assert_eq!(ready.len(), waiting.len());
            for (index, (per_dag, per_dagrun)) in limits.iter().enumerate() {
                for run in 0..3_i64 {
                    let of = |other: &&TiKey| other.task.at() == index && dag_of(other.run.0) == dag_of(run);
                    let in_dag = out.iter().filter(of).count();
                    let in_run = out.iter().filter(of).filter(|other| other.run.0 == run).count();
                    prop_assert!(per_dag.is_none_or(|limit| in_dag <= limit as usize));
                    prop_assert!(per_dagrun.is_none_or(|limit| in_run <= limit as usize));
                }
            }
        }
    }
}
