//! Task instances that need many slots, and those that wait elsewhere.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::tests::{admitted, at, dag, key, limited, mapped, with};
use super::*;
use crate::dag::Task;
use crate::id::TiKey;
use crate::run::testing::cpu_time;

/// `slots` of a pool are taken by one that runs.
fn occupied(slots: i64, by: u32) -> (Capacity, ReadyQueue) {
    let mut capacity = Capacity::new(100);
    capacity.set_pool("p", slots);
    capacity.occupy(key(100, 0), &dag("old"), &with("p", by, 1));
    (capacity, ReadyQueue::new())
}

fn kept(capacity: &Capacity) -> Vec<(String, TiKey, u32)> {
    let all = capacity.kept();
    all.map(|(pool, kept)| (pool.to_owned(), kept.key, kept.slots))
        .collect()
}

#[test]
fn what_needs_many_slots_is_run_however_many_small_ones_come() {
    let (mut capacity, mut ready) = (Capacity::new(100), ReadyQueue::new());
    capacity.set_pool("p", 4);
    let mut ends: BTreeMap<i64, Vec<TiKey>> = BTreeMap::new();
    ready.push(key(1, 0), &dag("big"), &with("p", 4, 1), at(5));
    for second in 0..400 {
        for ended in ends.remove(&second).unwrap_or_default() {
            capacity.release(ended);
        }
        // Two a second, each of a new run, each for two seconds, all more important: the pool is never empty.
        for number in 0..2 {
            ready.push(
                key(second * 2 + number + 10, 0),
                &dag("small"),
                &with("p", 1, 4),
                at(second),
            );
        }
        for key in admitted(&mut capacity, &mut ready, at(second)) {
            if key.run.0 == 1 {
                assert!((30..60).contains(&second), "its weight counts: {second}");
                return;
            }
            ends.entry(second + 2).or_default().push(key);
        }
    }
    panic!("it never ran");
}

#[test]
fn what_it_leaves_over_is_for_others_and_no_more() {
    let (mut capacity, mut ready) = occupied(6, 3);
    ready.push(key(1, 0), &dag("big"), &with("p", 5, 9), at(0));
    for run in 2..5 {
        ready.push(key(run, 0), &dag("small"), &with("p", 1, 1), at(1));
    }
    // Three are free. Five of six are its own, so that all others together have one.
    assert!(admitted(&mut capacity, &mut ready, at(2)).is_empty());
    assert_eq!(kept(&capacity), [("p".to_owned(), key(1, 0), 5)]);
    capacity.release(key(100, 0));
    assert_eq!(admitted(&mut capacity, &mut ready, at(3)), [key(1, 0), key(2, 0)]);
    assert!(kept(&capacity).is_empty());
    capacity.release(key(1, 0));
    assert_eq!(admitted(&mut capacity, &mut ready, at(4)).len(), 2);
}

#[test]
fn more_urgent_ones_are_not_held_up() {
    let (mut capacity, mut ready) = occupied(4, 2);
    ready.push(key(1, 0), &dag("big"), &with("p", 3, 5), at(0));
    ready.push(key(2, 0), &dag("urgent"), &with("p", 1, 9), at(0));
    ready.push(key(3, 0), &dag("small"), &with("p", 1, 1), at(0));
    assert_eq!(admitted(&mut capacity, &mut ready, at(1)), [key(2, 0)]);
    assert_eq!(kept(&capacity), [("p".to_owned(), key(1, 0), 3)]);
}

#[test]
fn each_pool_keeps_for_its_own() {
    let (mut capacity, mut ready) = occupied(4, 2);
    capacity.set_pool("q", 4);
    capacity.occupy(key(101, 0), &dag("old"), &with("q", 3, 1));
    ready.push(key(1, 0), &dag("a"), &with("p", 4, 5), at(0));
    ready.push(key(2, 0), &dag("b"), &with("q", 4, 5), at(0));
    // The second largest of a pool keeps nothing.
    ready.push(key(3, 0), &dag("c"), &with("p", 3, 4), at(0));
    for (run, pool) in [(4, "p"), (5, "q"), (6, "r")] {
        ready.push(key(run, 0), &dag("small"), &with(pool, 1, 1), at(0));
    }
    capacity.set_pool("r", 1);
    assert_eq!(admitted(&mut capacity, &mut ready, at(1)), [key(6, 0)]);
    let both = [("p".to_owned(), key(1, 0), 4), ("q".to_owned(), key(2, 0), 4)];
    assert_eq!(kept(&capacity), both);
    // One that goes away keeps nothing any more.
    ready.remove(key(1, 0));
    assert!(admitted(&mut capacity, &mut ready, at(2)).is_empty());
    assert_eq!(kept(&capacity)[0], ("p".to_owned(), key(3, 0), 3));
    ready.remove_run(key(3, 0).run);
    assert_eq!(admitted(&mut capacity, &mut ready, at(3)), [key(4, 0)]);
}

/// A pool with two of four slots in use, one that needs three, and a small one: whether the small one is admitted.
fn small_one_runs(spoil: impl FnOnce(&mut Capacity, &mut Task)) -> bool {
    let (mut capacity, mut ready) = occupied(4, 2);
    let mut big = Task {
        pool_slots: 3,
        ..limited("big", None, None)
    };
    big.queueing.weight = 9;
    spoil(&mut capacity, &mut big);
    ready.push(key(1, 0), &dag("big"), &big, at(0));
    ready.push(key(2, 0), &dag("small"), &with("p", 1, 1), at(0));
    admitted(&mut capacity, &mut ready, at(1)) == [key(2, 0)]
}

#[test]
fn nothing_is_kept_for_what_could_not_run_anyway() {
    assert!(!small_one_runs(|_, _| {}));
    assert!(small_one_runs(|_, big| big.pool_slots = 5), "more than the pool has");
    assert!(
        small_one_runs(|capacity, _| capacity.set_dag(&dag("big"), 9, true)),
        "paused"
    );
    assert!(
        small_one_runs(|capacity, _| {
            capacity.set_dag(&dag("big"), 1, false);
            capacity.set_pool("other", 1);
            capacity.occupy(key(50, 1), &dag("big"), &with("other", 1, 1));
        }),
        "its DAG has as many as it may"
    );
    let held_back = |per_dagrun| {
        small_one_runs(|capacity, big| {
            capacity.set_pool("other", 1);
            let mut same = big.clone();
            same.pool = "other".to_owned();
            same.pool_slots = 1;
            capacity.occupy(mapped(1, 0, 3), &dag("big"), &same);
            if per_dagrun {
                big.queueing.max_active_tis_per_dagrun = Some(1);
            } else {
                big.queueing.max_active_tis_per_dag = Some(1);
            }
        })
    };
    assert!(held_back(true) && held_back(false), "its task has as many as it may");
    assert!(
        small_one_runs(|capacity, _| {
            // What is deferred waits for others, which may need the very slots that would be kept.
            capacity.set_include_deferred("p", true);
            capacity.defer(key(100, 0), false);
        }),
        "nobody knows when what is deferred gives its slots back"
    );
}

#[test]
fn the_next_one_in_line_keeps_where_the_first_is_held_back() {
    let (mut capacity, mut ready) = occupied(4, 2);
    let mut narrow = limited("narrow", Some(1), None);
    narrow.pool_slots = 3;
    narrow.queueing.weight = 9;
    let mut held = narrow.clone();
    held.pool = "other".to_owned();
    held.pool_slots = 1;
    capacity.set_pool("other", 1);
    capacity.occupy(mapped(50, 0, 0), &dag("d"), &held);
    for index in 0..5 {
        ready.push(mapped(1, 0, index), &dag("d"), &narrow, at(0));
    }
    // In another lane, less urgent than those, more urgent than the small one.
    ready.push(key(2, 0), &dag("next"), &with("p", 4, 5), at(0));
    ready.push(key(3, 0), &dag("small"), &with("p", 1, 1), at(0));
    assert!(admitted(&mut capacity, &mut ready, at(1)).is_empty());
    assert_eq!(kept(&capacity), [("p".to_owned(), key(2, 0), 4)]);
    capacity.release(mapped(50, 0, 0));
    assert!(admitted(&mut capacity, &mut ready, at(2)).is_empty());
    assert_eq!(kept(&capacity), [("p".to_owned(), mapped(1, 0, 0), 3)]);
}

#[test]
fn a_place_of_its_dag_is_kept_with_the_slots() {
    let (mut capacity, mut ready) = occupied(4, 2);
    capacity.set_pool("q", -1);
    capacity.set_dag(&dag("d"), 2, false);
    ready.push(key(1, 0), &dag("d"), &with("p", 3, 9), at(0));
    for index in 1..4 {
        ready.push(key(1, index), &dag("d"), &with("q", 1, 1), at(0));
    }
    assert_eq!(admitted(&mut capacity, &mut ready, at(1)), [key(1, 1)]);
    capacity.release(key(100, 0));
    assert_eq!(admitted(&mut capacity, &mut ready, at(2)), [key(1, 0)]);
}

#[test]
fn a_pool_that_got_smaller_keeps_nothing_for_what_does_not_fit_any_more() {
    let (mut capacity, mut ready) = occupied(4, 1);
    ready.push(key(1, 0), &dag("big"), &with("p", 4, 9), at(0));
    ready.push(key(2, 0), &dag("small"), &with("p", 1, 1), at(0));
    assert!(admitted(&mut capacity, &mut ready, at(1)).is_empty());
    capacity.set_pool("p", 3);
    assert_eq!(admitted(&mut capacity, &mut ready, at(2)), [key(2, 0)]);
    capacity.set_pool("p", 0);
    capacity.release(key(2, 0));
    capacity.release(key(100, 0));
    assert!(admitted(&mut capacity, &mut ready, at(3)).is_empty() && kept(&capacity).is_empty());
    capacity.set_pool("p", 4);
    assert_eq!(admitted(&mut capacity, &mut ready, at(4)), [key(1, 0)]);
}

#[test]
fn what_is_deferred_counts_for_its_task_where_it_waits_for_its_own_run() {
    for counts in [true, false] {
        let (mut capacity, mut ready) = (Capacity::new(1), ReadyQueue::new());
        capacity.set_pool("p", 1);
        capacity.set_dag(&dag("d"), 1, false);
        let narrow = limited("t", Some(1), None);
        for index in 0..2 {
            ready.push(mapped(1, 0, index), &dag("d"), &narrow, at(0));
        }
        assert_eq!(admitted(&mut capacity, &mut ready, at(1)), [mapped(1, 0, 0)]);
        capacity.defer(mapped(1, 0, 0), counts);
        capacity.defer(mapped(1, 0, 0), counts);
        assert_eq!(
            (capacity.used(), capacity.pool_used("p")),
            (0, 0),
            "it takes no slot of any kind"
        );
        let now = admitted(&mut capacity, &mut ready, at(2));
        assert_eq!(now.len(), usize::from(!counts));
        capacity.release(mapped(1, 0, 0));
        capacity.release(mapped(1, 0, 0));
        assert_eq!(admitted(&mut capacity, &mut ready, at(3)).len(), usize::from(counts));
        assert_eq!(capacity.used(), 1);
        capacity.release(mapped(1, 0, 1));
        assert_eq!((capacity.used(), capacity.pool_used("p")), (0, 0));
    }
}

#[test]
fn a_pool_that_includes_what_is_deferred_has_fewer_slots_for_others() {
    let (mut capacity, mut ready) = (Capacity::new(9), ReadyQueue::new());
    capacity.set_pool("p", 2);
    capacity.occupy_deferred(key(1, 0), &dag("d"), &with("p", 2, 1), true);
    assert_eq!((capacity.used(), capacity.pool_used("p")), (0, 0));
    ready.push(key(2, 0), &dag("d"), &with("p", 1, 1), at(0));
    capacity.set_include_deferred("p", true);
    assert!(admitted(&mut capacity, &mut ready, at(1)).is_empty());
    // It may be changed while something is deferred.
    capacity.set_include_deferred("p", false);
    assert_eq!(admitted(&mut capacity, &mut ready, at(2)), [key(2, 0)]);
    ready.push(key(3, 0), &dag("d"), &with("p", 1, 1), at(0));
    capacity.set_include_deferred("p", true);
    assert!(admitted(&mut capacity, &mut ready, at(3)).is_empty());
    capacity.release(key(1, 0));
    assert_eq!(admitted(&mut capacity, &mut ready, at(4)), [key(3, 0)]);
}

#[test]
fn a_hundred_thousand_that_do_not_fit_cost_a_look_at_their_lanes() {
    let (mut capacity, mut ready) = occupied(4, 3);
    let (big, small) = (with("p", 2, 9), with("q", 1, 1));
    capacity.set_pool("q", -1);
    for index in 0..100_000 {
        ready.push(key(index % 50, u32::try_from(index).unwrap()), &dag("d"), &big, at(0));
    }
    let began = cpu_time();
    for index in 0..10_000 {
        let (run, task) = (1_000 + i64::from(index), key(1_000 + i64::from(index), index));
        ready.push(task, &dag("e"), &small, at(run));
        assert_eq!(admitted(&mut capacity, &mut ready, at(run)), [task]);
        capacity.release(task);
        ready.remove_run(task.run);
    }
    let took = cpu_time().checked_sub(began).unwrap();
    assert!(ready.len() == 100_000 && took.as_secs() < 15, "{took:?}");
}

/// Something to be admitted in a random play.
#[derive(Clone, Debug)]
struct Wanted {
    slots: u32,
    weight: i32,
    lasts: i64,
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (1..4_u32, 0..4_i32, 1..6_i64).prop_map(|(slots, weight, lasts)| Wanted { slots, weight, lasts })
}

proptest! {
    /// However many small ones there are always waiting: each task instance that fits its pool at all is admitted, in a time that depends
    /// on weights and on how long tasks take alone. And a pool never has free slots for nothing.
    #[test]
    fn all_that_fits_a_pool_at_all_runs_in_the_end_and_no_slot_is_idle_for_nothing(
        pool_slots in 1..7_u32,
        parallelism in 1..9_u32,
        others in prop::collection::vec(wanted(), 8),
        big in (1..7_u32, 0..4_i32),
        max_active_tasks in 1..6_u32,
    ) {
        let (mut capacity, mut ready) = (Capacity::new(parallelism), ReadyQueue::new());
        capacity.set_pool("p", i64::from(pool_slots));
        capacity.set_dag(&dag("d"), max_active_tasks, false);
        let needs = big.0.min(pool_slots);
        let mut ends: BTreeMap<i64, Vec<TiKey>> = BTreeMap::new();
        let mut out: BTreeMap<TiKey, u32> = BTreeMap::new();
        let mut waiting: BTreeMap<TiKey, (u32, i64)> = BTreeMap::new();
        let mut next = 10_i64;
        let mut admitted_at = None;
        for second in 0..400_i64 {
            for ended in ends.remove(&second).unwrap_or_default() {
                capacity.release(ended);
                out.remove(&ended);
            }
            if second == 20 {
                ready.push(key(1, 0), &dag("d"), &with("p", needs, big.1), at(second));
                waiting.insert(key(1, 0), (needs, 3));
            }
            // There are always some others that wait, of ever new runs.
            while waiting.len() < 4 {
                let one = &others[usize::try_from(next).unwrap() % others.len()];
                let slots = one.slots.min(pool_slots);
                ready.push(key(next, 0), &dag("e"), &with("p", slots, one.weight), at(second));
                waiting.insert(key(next, 0), (slots, one.lasts));
                next += 1;
            }
            for key in admitted(&mut capacity, &mut ready, at(second)) {
                let (slots, lasts) = waiting.remove(&key).expect("it waited");
                out.insert(key, slots);
                ends.entry(second + lasts).or_default().push(key);
                if key.run.0 == 1 {
                    admitted_at = Some(second);
                }
            }
            let used: u32 = out.values().sum();
            prop_assert!(used <= pool_slots && out.len() <= parallelism as usize);
            let free = pool_slots - used;
            let holder = capacity.kept().next().map(|(_, kept)| kept);
            if out.len() < parallelism as usize {
                for (key, (slots, _)) in &waiting {
                    if *slots > free {
                        continue;
                    }
                    // It would fit: then there is one which does not, has them kept, and needs all but fewer of the pool than this one.
                    let Some(kept) = holder else {
                        prop_assert!(false, "{:?} waits for nothing, {} free", key, free);
                        continue;
                    };
                    prop_assert!(waiting.contains_key(&kept.key) && kept.key != *key);
                    prop_assert!(kept.slots > free && kept.slots <= pool_slots);
                    prop_assert!(used + slots + kept.slots > pool_slots, "what is left over is not kept");
                }
            }
            if admitted_at.is_some() {
                break;
            }
        }
        // Three points of weight are 30 s; then at most those few that waited as long.
        prop_assert!(admitted_at.is_some_and(|at| at < 20 + 30 + 10 + 60), "{:?}", admitted_at);
    }

    /// What is dispatched, deferred and ended in any order: all is counted as it is.
    #[test]
    fn what_is_deferred_is_counted_as_the_pool_says(
        steps in prop::collection::vec((0..6_u8, 0..6_u32, any::<bool>()), 1..120),
        pool_slots in 1..6_i64,
    ) {
        let (mut capacity, mut ready) = (Capacity::new(4), ReadyQueue::new());
        capacity.set_pool("p", pool_slots);
        let narrow = limited("t", Some(2), None);
        let (mut includes, mut out) = (false, BTreeMap::new());
        for (now, (what, index, counts)) in steps.into_iter().enumerate() {
            let now = at(i64::try_from(now).unwrap());
            let key = mapped(1, 0, i32::try_from(index).unwrap());
            match what {
                0 | 1 if !out.contains_key(&key) => ready.push(key, &dag("d"), &narrow, now),
                2 => {
                    capacity.defer(key, counts);
                    if let Some(deferred @ None) = out.get_mut(&key) {
                        *deferred = Some(counts);
                    }
                }
                3 => { capacity.release(key); out.remove(&key); }
                4 => { includes = counts; capacity.set_include_deferred("p", includes); }
                _ => for key in admitted(&mut capacity, &mut ready, now) {
                    prop_assert!(out.insert(key, None).is_none());
                    let dispatched = out.values().filter(|deferred| deferred.is_none()).count();
                    let held = if includes { out.len() } else { dispatched };
                    prop_assert!(i64::try_from(held).unwrap() <= pool_slots && dispatched <= 4);
                    prop_assert!(out.values().filter(|deferred| **deferred != Some(false)).count() <= 2);
                },
            }
            let dispatched = out.values().filter(|deferred| deferred.is_none()).count();
            prop_assert_eq!(capacity.used(), dispatched);
            prop_assert_eq!(capacity.pool_used("p"), i64::try_from(dispatched).unwrap());
        }
    }
}
