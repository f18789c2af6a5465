//! Scopes: the task groups that are repeated, as a tree. Scope 0 is the run itself. Tasks of one scope meet one to one in
//! each instance of it; a task further out meets all instances.
//!
//! A map index is made of the positions along the way from the outside in: with the positions o₁ … oₙ and the limits L₁ … Lₙ it is
//! ((o₁·L₂ + o₂)·L₃ + o₃)…; so a task that is mapped once has Airflow's map index. What is not expanded yet has −1, and within
//! something that is, −1 − i, where i is the index that its first element will have.

use super::Task;
use super::repeat::{Expansion, Group, Repeat};
use crate::id::{MapIndex, TaskIndex};

/// The scope of everything that is not repeated.
pub const ROOT: u32 = 0;

/// One level of scopes.
#[derive(Clone, Debug)]
pub struct ScopeDef {
    /// The repeated group; none for the root.
    pub group: Option<u32>,
    /// The scope around it; itself for the root.
    pub parent: u32,
    /// How deep it lies; 0 for the root.
    pub depth: u32,
    /// How many instances there may be in one instance of its parent.
    pub limit: u32,
    /// Whether it is a loop.
    pub is_loop: bool,
    /// Its tasks, not those of the scopes inside.
    pub tasks: Vec<TaskIndex>,
    /// The scopes right inside.
    pub children: Vec<u32>,
    /// Its place among its parent's children.
    pub position: u32,
}

/// The scopes of a DAG.
#[derive(Clone, Debug)]
pub struct Scopes {
    defs: Vec<ScopeDef>,
    /// Of each task: its scope, and its place among the scope's tasks.
    tasks: Vec<(u32, u32)>,
}

impl Scopes {
    pub(super) fn of(groups: &[Group], tasks: &[Task]) -> Self {
        let mut defs = vec![ScopeDef {
            group: None,
            parent: ROOT,
            depth: 0,
            limit: 1,
            is_loop: false,
            tasks: Vec::new(),
            children: Vec::new(),
            position: 0,
        }];
        let mut of_group: Vec<u32> = Vec::with_capacity(groups.len());
        for (at, group) in groups.iter().enumerate() {
            let outer = group
                .parent
                .and_then(|parent| of_group.get(parent.at()).copied())
                .unwrap_or(ROOT);
            let Some(repeat) = &group.repeat else {
                of_group.push(outer);
                continue;
            };
            let def = number(defs.len());
            let (depth, position) = match defs.get_mut(outer as usize) {
                Some(parent) => {
                    parent.children.push(def);
                    (parent.depth + 1, number(parent.children.len() - 1))
                }
                None => (1, 0),
            };
            defs.push(ScopeDef {
                group: Some(number(at)),
                parent: outer,
                depth,
                limit: repeat.limit().max(1),
                is_loop: matches!(repeat, Repeat::Loop(_)),
                tasks: Vec::new(),
                children: Vec::new(),
                position,
            });
            of_group.push(def);
        }
        let tasks = tasks
            .iter()
            .enumerate()
            .map(|(at, task)| {
                let scope = task
                    .group
                    .and_then(|group| of_group.get(group.at()).copied())
                    .unwrap_or(ROOT);
                let place = defs.get_mut(scope as usize).map_or(0, |def| {
                    def.tasks.push(TaskIndex(number(at)));
                    number(def.tasks.len() - 1)
                });
                (scope, place)
            })
            .collect();
        Self { defs, tasks }
    }

    /// A scope.
    pub fn get(&self, scope: u32) -> Option<&ScopeDef> {
        self.defs.get(scope as usize)
    }

    /// The scope of a task, and its place among the scope's tasks.
    pub fn of_task(&self, task: TaskIndex) -> (u32, u32) {
        self.tasks.get(task.at()).copied().unwrap_or((ROOT, 0))
    }

    /// Whether nothing of the DAG is repeated.
    pub fn is_flat(&self) -> bool {
        self.defs.len() == 1
    }

    /// The innermost scope that two scopes lie in.
    pub fn common(&self, a: u32, b: u32) -> u32 {
        let (mut a, mut b) = (a, b);
        while a != b {
            let (Some(of_a), Some(of_b)) = (self.get(a), self.get(b)) else {
                return ROOT;
            };
            if of_a.depth >= of_b.depth {
                a = of_a.parent;
            } else {
                b = of_b.parent;
            }
        }
        a
    }

    /// Whether a task lies in the scope of another one: what one instance of that decides concerns it.
    pub fn is_within(&self, task: TaskIndex, of: TaskIndex) -> bool {
        let around = self.of_task(of).0;
        around == ROOT || self.common(self.of_task(task).0, around) == around
    }

    /// The scopes from right inside `outer` down to `inner`, which lies in it.
    pub fn path(&self, outer: u32, inner: u32) -> Vec<u32> {
        let mut path = Vec::new();
        let mut at = inner;
        while at != outer && at != ROOT {
            path.push(at);
            at = self.get(at).map_or(ROOT, |def| def.parent);
        }
        path.reverse();
        path
    }

    /// The limits along the way to a task, from the outside in; the last one is that of the task's own mapping.
    fn limits(&self, task: TaskIndex, own: Option<&Expansion>) -> Vec<u32> {
        let path = self.path(ROOT, self.of_task(task).0);
        let outer = path.iter().filter_map(|scope| self.get(*scope)).map(|def| def.limit);
        outer.chain(own.map(|own| own.limit.max(1))).collect()
    }

    /// The map index of these positions. What is not expanded yet has fewer positions than there are limits.
    pub fn map_index(&self, task: TaskIndex, own: Option<&Expansion>, positions: &[u32]) -> MapIndex {
        let limits = self.limits(task, own);
        if limits.is_empty() {
            return MapIndex::UNMAPPED;
        }
        let mut index: i64 = 0;
        for (at, limit) in limits.iter().enumerate() {
            let position = positions.get(at).copied().unwrap_or(0);
            index = index * i64::from(*limit) + i64::from(position);
        }
        let index = i32::try_from(index).unwrap_or(i32::MAX);
        MapIndex(if positions.len() < limits.len() {
            -1 - index
        } else {
            index
        })
    }

    /// The positions that a map index stands for; nothing where it cannot be one of the task's. Of what is not expanded yet only
    /// the positions count that are.
    pub fn positions(&self, task: TaskIndex, own: Option<&Expansion>, index: MapIndex) -> Option<Vec<u32>> {
        let limits = self.limits(task, own);
        if limits.is_empty() {
            return (index == MapIndex::UNMAPPED).then(Vec::new);
        }
        let index = if index.0 < 0 { -1 - index.0 } else { index.0 };
        split(&limits, index.unsigned_abs())
    }

    /// Whether every map index of a task fits its type.
    pub fn fits(&self, task: TaskIndex, own: Option<&Expansion>) -> bool {
        let product = self
            .limits(task, own)
            .iter()
            .fold(1_i64, |all, limit| all.saturating_mul(i64::from(*limit)));
        product <= i64::from(i32::MAX)
    }
}

/// Takes an index apart by its limits; nothing where it is out of them.
fn split(limits: &[u32], index: u32) -> Option<Vec<u32>> {
    let mut rest = index;
    let mut positions = Vec::with_capacity(limits.len());
    for (at, limit) in limits.iter().enumerate().rev() {
        if at == 0 {
            positions.push(rest);
        } else {
            positions.push(rest % limit);
            rest /= limit;
        }
    }
    positions.reverse();
    let fits = positions
        .first()
        .zip(limits.first())
        .is_none_or(|(first, limit)| first < limit);
    fits.then_some(positions)
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::repeat::{Combine, GroupIndex, Loop};
    use crate::run::testing::task;

    fn mapped(limit: u32) -> Expansion {
        Expansion {
            how: Combine::Product,
            sources: Vec::new(),
            limit,
        }
    }

    fn group(id: &str, parent: Option<u32>, repeat: Option<Repeat>) -> Group {
        Group {
            id: id.to_owned(),
            parent: parent.map(GroupIndex),
            tooltip: None,
            repeat,
        }
    }

    /// A loop of 5 in a group mapped over up to 10, and a plain group around both; tasks: outside, mapped, looping.
    fn scopes() -> Scopes {
        let groups = [
            group("plain", None, None),
            group("plain.m", Some(0), Some(Repeat::Mapped(mapped(10)))),
            group(
                "plain.m.l",
                Some(1),
                Some(Repeat::Loop(Loop {
                    max: 5,
                    until: TaskIndex(2),
                    measure: 0,
                })),
            ),
        ];
        let of = |id: &str, group: Option<u32>| Task {
            group: group.map(GroupIndex),
            ..task(id, &[])
        };
        Scopes::of(&groups, &[of("a", Some(0)), of("b", Some(1)), of("c", Some(2))])
    }

    #[test]
    fn plain_groups_are_no_scopes() {
        let scopes = scopes();
        assert_eq!([0, 1, 2].map(|at| scopes.of_task(TaskIndex(at)).0), [0, 1, 2]);
        assert_eq!(scopes.common(1, 2), 1);
        assert_eq!(scopes.common(0, 2), 0);
        assert_eq!(scopes.path(0, 2), [1, 2]);
    }

    #[test]
    fn map_indexes_are_made_of_positions() {
        let (scopes, own) = (scopes(), mapped(3));
        let of = |task: u32, own: Option<&Expansion>, positions: &[u32]| {
            let index = scopes.map_index(TaskIndex(task), own, positions);
            let back = scopes.positions(TaskIndex(task), own, index).unwrap();
            assert_eq!(back[..positions.len()], *positions);
            index.0
        };
        assert_eq!(of(0, None, &[]), -1);
        assert_eq!(of(0, Some(&own), &[]), -1);
        assert_eq!(of(0, Some(&own), &[2]), 2);
        assert_eq!(of(1, None, &[7]), 7);
        assert_eq!(of(2, None, &[7, 4]), 39);
        assert_eq!(of(2, Some(&own), &[7, 4, 2]), 119);
        assert_eq!(of(2, Some(&own), &[7, 4]), -118, "not expanded yet");
        assert_eq!(of(2, Some(&own), &[]), -1);
        assert_eq!(scopes.positions(TaskIndex(0), None, MapIndex(0)), None);
        assert_eq!(scopes.positions(TaskIndex(1), None, MapIndex(10)), None);
        assert!(scopes.fits(TaskIndex(2), Some(&own)));
        assert!(!scopes.fits(TaskIndex(2), Some(&mapped(u32::MAX))));
    }
}
