//! The tasks that an arrow from a group comes from.
//!
//! Airflow: `TaskGroup.get_leaves`: the last tasks of the group, without its teardowns. Where a teardown is the last one, the tasks before it
//! that nothing but teardowns follows take its place, and so on through teardowns; but not a setup by its arrow to its own teardown.

use std::collections::BTreeSet;

/// What is known of the tasks of a group.
pub(super) struct Members<'e> {
    /// The group's tasks, however deep, ascending.
    pub(super) inside: &'e [usize],
    /// Of all tasks.
    pub(super) upstream: &'e [BTreeSet<usize>],
    /// Of all tasks.
    pub(super) roles: &'e [Role],
}

/// The part that a task plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Work,
    Setup,
    Teardown,
}

impl Members<'_> {
    fn role(&self, task: usize) -> Role {
        self.roles.get(task).copied().unwrap_or(Role::Work)
    }

    fn before(&self, task: usize) -> impl Iterator<Item = usize> + '_ {
        let upstream = self.upstream.get(task).into_iter().flatten().copied();
        upstream.filter(|at| self.inside.binary_search(at).is_ok())
    }

    /// Ascending.
    pub(super) fn last(&self) -> Vec<usize> {
        let all = || self.inside.iter().copied();
        let followed: BTreeSet<usize> = all().flat_map(|at| self.before(at)).collect();
        let by_work: BTreeSet<usize> = all()
            .filter(|at| self.role(*at) != Role::Teardown)
            .flat_map(|at| self.before(at))
            .collect();
        let mut found = BTreeSet::new();
        let mut seen = BTreeSet::new();
        let mut open = Vec::new();
        for at in all().filter(|at| !followed.contains(at)) {
            match self.role(at) {
                Role::Teardown => open.push(at),
                Role::Work | Role::Setup => drop(found.insert(at)),
            }
        }
        while let Some(teardown) = open.pop() {
            for before in self.before(teardown) {
                match self.role(before) {
                    Role::Teardown if seen.insert(before) => open.push(before),
                    Role::Work if !by_work.contains(&before) => drop(found.insert(before)),
                    Role::Teardown | Role::Setup | Role::Work => {}
                }
            }
        }
        if found.is_empty() {
            // Nothing but setups and teardowns (Airflow draws no arrow): the last setups; where there are none, whoever waits for the
            // group means its teardowns.
            let last_setup = |at: &usize| self.role(*at) == Role::Setup && !by_work.contains(at);
            found.extend(all().filter(last_setup));
        }
        if found.is_empty() {
            found.extend(all().filter(|at| !followed.contains(at)));
        }
        found.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Airflow's `TaskGroup.get_leaves`, line by line, of a group in a DAG in which edges lead from earlier to later tasks.
    fn airflow(inside: &[usize], upstream: &[BTreeSet<usize>], roles: &[Role]) -> BTreeSet<usize> {
        let ids: BTreeSet<usize> = inside.iter().copied().collect();
        let downstream = |task: usize| (0..upstream.len()).filter(move |at| upstream[*at].contains(&task));
        let has_other = |task: usize, exclude: usize| {
            downstream(task).any(|down| down != exclude && ids.contains(&down) && roles[down] != Role::Teardown)
        };
        fn recurse(
            task: usize,
            ids: &BTreeSet<usize>,
            upstream: &[BTreeSet<usize>],
            roles: &[Role],
            has_other: &dyn Fn(usize, usize) -> bool,
            found: &mut BTreeSet<usize>,
        ) {
            for &before in &upstream[task] {
                if !ids.contains(&before) {
                    continue;
                } else if roles[before] == Role::Teardown {
                    recurse(before, ids, upstream, roles, has_other, found);
                } else if roles[task] == Role::Teardown && roles[before] == Role::Setup {
                    continue;
                } else if !has_other(before, task) {
                    found.insert(before);
                }
            }
        }
        let mut found = BTreeSet::new();
        for &task in inside {
            if downstream(task).all(|down| !ids.contains(&down)) {
                if roles[task] == Role::Teardown {
                    recurse(task, &ids, upstream, roles, &has_other, &mut found);
                } else {
                    found.insert(task);
                }
            }
        }
        found
    }

    proptest! {
        #[test]
        fn arrows_from_a_group_come_from_where_airflow_draws_them(
            tasks in prop::collection::vec((any::<u16>(), 0..3_u8, any::<bool>()), 1..10),
        ) {
            let upstream: Vec<BTreeSet<usize>> = tasks
                .iter()
                .enumerate()
                .map(|(at, (edges, ..))| (0..at).filter(|before| edges >> before & 1 == 1).collect())
                .collect();
            let roles: Vec<Role> = tasks
                .iter()
                .map(|(_, role, _)| [Role::Work, Role::Setup, Role::Teardown][usize::from(*role)])
                .collect();
            let inside: Vec<usize> = (0..tasks.len()).filter(|at| tasks[*at].2).collect();
            let members = Members { inside: &inside, upstream: &upstream, roles: &roles };
            let found: BTreeSet<usize> = members.last().into_iter().collect();
            let expected = airflow(&inside, &upstream, &roles);
            if expected.is_empty() {
                prop_assert_eq!(found.is_empty(), inside.is_empty(), "an arrow from a group is never lost");
            } else {
                prop_assert_eq!(found, expected);
            }
        }
    }
}
