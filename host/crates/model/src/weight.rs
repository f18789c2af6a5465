//! What a task weighs when task instances compete for slots (Airflow: `task_priority_strategy`).

use crate::dag::Task;
use crate::graph;
use crate::state::text_enum;

text_enum! {
    /// What the effective weight of a task is made of.
    WeightRule {
        /// Its own weight and that of all tasks that it leads to: what much depends on goes first.
        Downstream = "downstream",
        /// Its own weight and that of all tasks that lead to it: runs that are nearly done go first.
        Upstream = "upstream",
        /// Its own weight alone.
        Absolute = "absolute",
    }
}

/// How many tasks are looked at together: each task carries one bit for each of them.
const BLOCK: usize = 64;

/// Fills in the effective weights. A task that can be reached in several ways counts once; sums stay within 32 bits.
///
/// The sum over everything reachable has no shortcut where paths meet, and 100,000 tasks have 5,000,000,000 pairs: so reachability
/// is computed for 64 tasks at a time, with one word a task.
pub fn weigh(tasks: &mut [Task]) {
    let edges: Vec<Vec<usize>> = tasks
        .iter()
        .map(|task| task.downstream.iter().map(|at| at.at()).collect())
        .collect();
    let own: Vec<i64> = tasks.iter().map(|task| i64::from(task.priority_weight)).collect();
    let wanted = |rule| tasks.iter().any(|task| task.queueing.weight_rule == rule);
    let downstream = wanted(WeightRule::Downstream).then(|| reachable_sums(&edges, &own));
    let upstream = wanted(WeightRule::Upstream).then(|| reachable_sums(&graph::reversed(&edges), &own));
    for (at, task) in tasks.iter_mut().enumerate() {
        let others = match task.queueing.weight_rule {
            WeightRule::Downstream => &downstream,
            WeightRule::Upstream => &upstream,
            WeightRule::Absolute => &None,
        };
        let others = others.as_ref().and_then(|sums| sums.get(at)).copied().unwrap_or(0);
        let sum = i64::from(task.priority_weight).saturating_add(others);
        task.queueing.weight = i32::try_from(sum.clamp(i32::MIN.into(), i32::MAX.into())).unwrap_or_default();
    }
}

/// For each node the sum of what all nodes weigh that can be reached from it. Nothing where there is a cycle.
fn reachable_sums(edges: &[Vec<usize>], own: &[i64]) -> Vec<i64> {
    let mut sums = vec![0_i64; edges.len()];
    let Some(order) = graph::topological_order(edges) else {
        return sums;
    };
    let mut position = vec![0; edges.len()];
    for (at, node) in order.iter().enumerate() {
        position[*node] = at;
    }
    // In the order itself: what a node leads to lies behind it, so a block concerns only what comes before its end.
    let edges: Vec<Vec<usize>> = order
        .iter()
        .map(|node| {
            edges[*node]
                .iter()
                .filter_map(|to| position.get(*to).copied())
                .collect()
        })
        .collect();
    let weights: Vec<i64> = order.iter().map(|node| own[*node]).collect();
    let mut reached = vec![0_u64; order.len()];
    for start in (0..order.len()).step_by(BLOCK) {
        let end = order.len().min(start + BLOCK);
        let block = Block::new(&weights[start..end]);
        for at in (0..end).rev() {
            let mut bits = 0;
            for &to in edges[at].iter().filter(|to| **to < end) {
                bits |= reached[to];
                if to >= start {
                    bits |= 1 << (to - start);
                }
            }
            reached[at] = bits;
            let sum = &mut sums[order[at]];
            *sum = sum.saturating_add(block.sum(bits));
        }
    }
    sums
}

/// The weights of a block, for summing by bits.
enum Block<'w> {
    /// All weigh the same, as they mostly do.
    Same(i64),
    Various(&'w [i64]),
}

impl<'w> Block<'w> {
    fn new(weights: &'w [i64]) -> Self {
        match weights {
            [first, rest @ ..] if rest.iter().all(|weight| weight == first) => Self::Same(*first),
            _ => Self::Various(weights),
        }
    }

    fn sum(&self, mut bits: u64) -> i64 {
        match self {
            Self::Same(weight) => weight * i64::from(bits.count_ones()),
            Self::Various(weights) => {
                let mut sum = 0;
                while bits != 0 {
                    sum += weights.get(bits.trailing_zeros() as usize).copied().unwrap_or(0);
                    bits &= bits - 1;
                }
                sum
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::TaskIndex;
    use crate::run::testing::{self, cpu_time};

    fn tasks(edges: &[Vec<usize>], weights: &[i32], rule: WeightRule) -> Vec<Task> {
        let index = |at: usize| TaskIndex(u32::try_from(at).unwrap());
        let mut tasks: Vec<Task> = weights
            .iter()
            .zip(edges)
            .enumerate()
            .map(|(at, (weight, to))| {
                let mut task = testing::task(&format!("t{at}"), &[]);
                task.priority_weight = *weight;
                task.queueing.weight_rule = rule;
                task.downstream = to.iter().map(|to| index(*to)).collect();
                task
            })
            .collect();
        weigh(&mut tasks);
        tasks
    }

    fn weights(edges: &[Vec<usize>], own: &[i32], rule: WeightRule) -> Vec<i32> {
        let tasks = tasks(edges, own, rule);
        tasks.iter().map(|task| task.queueing.weight).collect()
    }

    #[test]
    fn a_diamond_counts_its_end_once() {
        // Airflow's own example has the same shape: the end is reached in two ways and counts once.
        let edges = [vec![1, 2], vec![3], vec![3], vec![]];
        let own = [1, 10, 100, 1000];
        assert_eq!(weights(&edges, &own, WeightRule::Downstream), [1111, 1010, 1100, 1000]);
        assert_eq!(weights(&edges, &own, WeightRule::Upstream), [1, 11, 101, 1111]);
        assert_eq!(weights(&edges, &own, WeightRule::Absolute), own);
    }

    #[test]
    fn sums_stay_within_their_type() {
        let edges = [vec![1], vec![2], vec![]];
        assert_eq!(weights(&edges, &[i32::MAX; 3], WeightRule::Downstream), [i32::MAX; 3]);
        assert_eq!(weights(&edges, &[i32::MIN; 3], WeightRule::Upstream), [i32::MIN; 3]);
    }

    #[test]
    fn a_chain_of_a_hundred_thousand_is_no_burden() {
        let count = 100_000;
        let edges: Vec<Vec<usize>> = (1..=count)
            .map(|next| if next < count { vec![next] } else { vec![] })
            .collect();
        let began = cpu_time();
        let sums = reachable_sums(&edges, &vec![1; count]);
        assert_eq!((sums[0], sums[count - 1]), (99_999, 0));
        let took = cpu_time().checked_sub(began).unwrap();
        assert!(took.as_secs() < 30, "{took:?}");
    }

    proptest! {
        /// What a node's sum is, said in the plainest way.
        #[test]
        fn sums_are_those_of_the_reachable(
            pairs in prop::collection::vec((0..150_usize, 0..150_usize), 0..300),
            own in prop::collection::vec(-5..6_i64, 150),
            flat in any::<bool>(),
        ) {
            let own = if flat { vec![3; 150] } else { own };
            let mut edges = vec![Vec::new(); 150];
            for (a, b) in pairs {
                // Against the numbering, so that the order has to be found; no cycle can come of it.
                if a > b { edges[a].push(b); }
            }
            let sums = reachable_sums(&edges, &own);
            for (node, sum) in sums.iter().enumerate() {
                let expected: i64 = graph::descendants(&edges, &[node]).iter().map(|to| own[*to]).sum();
                prop_assert_eq!(*sum, expected);
            }
        }
    }
}
