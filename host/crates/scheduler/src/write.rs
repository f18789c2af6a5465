//! One tick's rows, and how they are taken apart when the database refuses them: by run, and by change of a DAG or pool.

use std::collections::{HashMap, HashSet};

use model::{DagRunKey, Timestamp};
use ports::store::{AuditWrite, TickWrite};
use uuid::Uuid;

/// Whose a line of the audit log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// A run's.
    Run(DagRunKey),
    /// A change's of a DAG or pool, by its position among the tick's.
    Change(usize),
}

/// A tick to write. Every row belongs to a run or to a change of a DAG or pool.
pub(crate) struct Write {
    pub(crate) tick: TickWrite,
    /// Whose line each of `tick.audit` is.
    pub(crate) audit_of: Vec<Owner>,
    /// The runs, in the order in which they were touched; those that are tied follow each other.
    pub(crate) runs: Vec<DagRunKey>,
    /// Runs that are written with the one before them in `runs`, or not at all: what happens to one happens because of the other.
    pub(crate) tied: HashSet<DagRunKey>,
    /// Which change each of `tick.dags` is.
    pub(crate) dags: Vec<usize>,
    /// Which change each of `tick.pools` is.
    pub(crate) pools: Vec<usize>,
}

impl Write {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            tick: TickWrite {
                tick_id: Uuid::new_v4(),
                now: Some(now),
                ..TickWrite::default()
            },
            audit_of: Vec::new(),
            runs: Vec::new(),
            tied: HashSet::new(),
            dags: Vec::new(),
            pools: Vec::new(),
        }
    }

    /// The changes of DAGs and pools that it writes.
    pub(crate) fn changes(&self) -> impl Iterator<Item = usize> + '_ {
        self.dags.iter().chain(&self.pools).copied()
    }

    pub(crate) fn is_empty(&self) -> bool {
        let tick = &self.tick;
        tick.dags.is_empty()
            && tick.pauses.is_empty()
            && tick.pools.is_empty()
            && tick.slots.is_empty()
            && tick.new_runs.is_empty()
            && tick.runs.is_empty()
            && tick.parents.is_empty()
            && tick.task_instance_deletes.is_empty()
            && tick.task_instances.is_empty()
            && tick.tries.is_empty()
            && tick.xcom_deletes.is_empty()
            && tick.xcoms.is_empty()
            && tick.hitl_requests.is_empty()
            && tick.hitl_answers.is_empty()
            && tick.callbacks.is_empty()
            && tick.note_moves.is_empty()
            && tick.notes.is_empty()
            && tick.heartbeats.is_empty()
            && tick.checkpoint_deletes.is_empty()
            && tick.run_deletes.is_empty()
            && tick.intents.is_empty()
            && tick.intent_runs_done.is_empty()
            && tick.audit.is_empty()
    }

    pub(crate) fn audit(&mut self, of: Owner, line: AuditWrite) {
        self.tick.audit.push(line);
        self.audit_of.push(of);
    }

    /// How many parts it can be taken into.
    pub(crate) fn parts(&self) -> usize {
        self.runs.len() - self.tied.len() + self.dags.len() + self.pools.len()
    }

    /// Ties runs together: each group becomes one part. Most ticks have no ties.
    pub(crate) fn tie(&mut self, ties: &[(DagRunKey, DagRunKey)]) {
        if ties.is_empty() {
            return;
        }
        let mut group_of: HashMap<DagRunKey, usize> = HashMap::new();
        let mut groups: Vec<Vec<DagRunKey>> = Vec::new();
        for (a, b) in ties {
            let mut group = |key: DagRunKey| {
                *group_of.entry(key).or_insert_with(|| {
                    groups.push(vec![key]);
                    groups.len() - 1
                })
            };
            let (a, b) = (group(*a), group(*b));
            if a == b {
                continue;
            }
            // The smaller one joins the larger one.
            let size = |at: usize| groups.get(at).map_or(0, Vec::len);
            let (into, from) = if size(a) < size(b) { (b, a) } else { (a, b) };
            let moved = groups.get_mut(from).map(std::mem::take).unwrap_or_default();
            group_of.extend(moved.iter().map(|key| (*key, into)));
            if let Some(group) = groups.get_mut(into) {
                group.extend(moved);
            }
        }
        let written: HashSet<DagRunKey> = self.runs.iter().copied().collect();
        let grouped: HashSet<DagRunKey> = groups.iter().flatten().copied().collect();
        self.runs.retain(|key| !grouped.contains(key));
        for group in groups {
            let mut keys = group.into_iter().filter(|key| written.contains(key));
            self.runs.extend(keys.next());
            for key in keys {
                self.runs.push(key);
                self.tied.insert(key);
            }
        }
    }

    /// The place nearest to `at` where no group is taken apart.
    fn seam(&self, at: usize) -> usize {
        let is_seam = |at: &usize| self.runs.get(*at).is_none_or(|key| !self.tied.contains(key));
        let before = (1..=at).rev().find(is_seam);
        before.unwrap_or_else(|| (at..self.runs.len()).find(is_seam).unwrap_or(self.runs.len()))
    }

    /// Takes it apart into two that together write the same: changes of DAGs and pools first, since runs may need them.
    pub(crate) fn split(mut self) -> (Self, Self) {
        let now = self.tick.now.unwrap_or(Timestamp(0));
        let mut first = Self::new(now);
        let changes = self.dags.len() + self.pools.len();
        let (runs_first, changes_first) = match (changes, self.runs.len()) {
            (0, runs) => (self.seam(runs / 2), 0),
            (changes, 0) => (0, changes / 2),
            (changes, _) => (0, changes),
        };
        let dags_first = self.dags.len().min(changes_first);
        first.dags = self.dags.drain(..dags_first).collect();
        first.tick.dags = self.tick.dags.drain(..dags_first).collect();
        let pools_first = changes_first - dags_first;
        first.pools = self.pools.drain(..pools_first).collect();
        first.tick.pools = self.tick.pools.drain(..pools_first).collect();
        first.runs = self.runs.drain(..runs_first).collect();
        let of: HashSet<DagRunKey> = first.runs.iter().copied().collect();
        first.tied = self.tied.extract_if(|key| of.contains(key)).collect();

        fn part<T>(rows: &mut Vec<T>, is_first: impl Fn(&T) -> bool) -> Vec<T> {
            let (first, second) = std::mem::take(rows).into_iter().partition(|row| is_first(row));
            *rows = second;
            first
        }
        let (from, to) = (&mut self.tick, &mut first.tick);
        to.pauses = part(&mut from.pauses, |pause| of.contains(&pause.run));
        to.slots = part(&mut from.slots, |row| of.contains(&row.run));
        to.new_runs = part(&mut from.new_runs, |row| of.contains(&row.context.key));
        to.runs = part(&mut from.runs, |row| of.contains(&row.key));
        to.parents = part(&mut from.parents, |row| of.contains(&row.run));
        to.task_instance_deletes = part(&mut from.task_instance_deletes, |ti| of.contains(&ti.run));
        to.task_instances = part(&mut from.task_instances, |row| of.contains(&row.key.run));
        to.tries = part(&mut from.tries, |row| of.contains(&row.key.run));
        to.xcom_deletes = part(&mut from.xcom_deletes, |ti| of.contains(&ti.run));
        to.xcoms = part(&mut from.xcoms, |row| of.contains(&row.ti.run));
        to.hitl_requests = part(&mut from.hitl_requests, |row| of.contains(&row.ti.run));
        to.hitl_answers = part(&mut from.hitl_answers, |row| of.contains(&row.ti.run));
        to.callbacks = part(&mut from.callbacks, |row| of.contains(&row.run));
        to.note_moves = part(&mut from.note_moves, |(ti, _)| of.contains(&ti.run));
        to.notes = part(&mut from.notes, |note| of.contains(&note.ti.run));
        to.heartbeats = part(&mut from.heartbeats, |heartbeat| of.contains(&heartbeat.ti.run));
        to.checkpoint_deletes = part(&mut from.checkpoint_deletes, |ti| of.contains(&ti.run));
        to.run_deletes = part(&mut from.run_deletes, |key| of.contains(key));
        to.intents = part(&mut from.intents, |intent| {
            intent.runs.iter().any(|key| of.contains(key))
        });
        to.intent_runs_done = part(&mut from.intent_runs_done, |(_, key)| of.contains(key));
        let lines = std::mem::take(&mut self.tick.audit);
        let owners = std::mem::take(&mut self.audit_of);
        for (line, owner) in lines.into_iter().zip(owners) {
            let is_first = match owner {
                Owner::Run(key) => of.contains(&key),
                Owner::Change(change) => first.changes().any(|first| first == change),
            };
            if is_first { &mut first } else { &mut self }.audit(owner, line);
        }
        self.tick.tick_id = Uuid::new_v4();
        (first, self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(runs: &[i64], ties: &[(i64, i64)]) -> Write {
        let mut write = Write::new(Timestamp(0));
        write.runs = runs.iter().copied().map(DagRunKey).collect();
        let ties: Vec<_> = ties.iter().map(|(a, b)| (DagRunKey(*a), DagRunKey(*b))).collect();
        write.tie(&ties);
        write
    }

    /// Takes it apart as far as it goes.
    fn parts(write: Write) -> Vec<Vec<i64>> {
        if write.parts() <= 1 {
            let mut keys: Vec<i64> = write.runs.iter().map(|key| key.0).collect();
            keys.sort_unstable();
            return vec![keys];
        }
        let (first, second) = write.split();
        assert!(!first.runs.is_empty() && !second.runs.is_empty(), "each split goes on");
        [parts(first), parts(second)].concat()
    }

    #[test]
    fn runs_that_are_tied_stay_together_however_often_a_tick_is_split() {
        let mut found = parts(write(&[1, 2, 3, 4, 5, 6, 7], &[(2, 6), (6, 7), (3, 4), (1, 9)]));
        found.sort();
        assert_eq!(found, [vec![1], vec![2, 6, 7], vec![3, 4], vec![5]]);
        assert_eq!(parts(write(&[1, 2, 3], &[(1, 2), (2, 3)])), [[1, 2, 3]]);
        assert_eq!(parts(write(&[1, 2], &[])), [[1], [2]]);
    }
}
