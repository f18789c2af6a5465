//! The pools of a manifest against those of the server that it is deployed to.

use std::collections::{BTreeMap, BTreeSet};

use super::declared::Manifest;
use super::diagnostic::{Findings, Pos};
use super::section::short;
use crate::dag::DEFAULT_POOL;

/// The pools of a server by name, with their slots; negative is without bound.
pub type Pools = BTreeMap<String, i64>;

/// Notes the pools that nobody was asked about.
pub(super) fn unchecked(manifest: &Manifest, findings: &mut Findings) {
    let mut said: BTreeSet<&str> = BTreeSet::new();
    for pool in manifest.tasks.iter().filter_map(|task| task.settings.pool.as_ref()) {
        if pool.value != DEFAULT_POOL && said.insert(&pool.value) {
            findings
                .note(
                    "pool_not_checked",
                    pool.pos,
                    format!("pool `{}` was not checked: no server was asked", short(&pool.value)),
                )
                .hint("the server that this is deployed to must have it: `airtight pools list`");
        }
    }
}

/// Reports pools that do not exist, and tasks that need more slots than their pool has: they would wait for ever.
pub(super) fn check(manifest: &Manifest, pools: &Pools, findings: &mut Findings) {
    // What stands in `defaults` is said once, not once a task.
    let mut said: BTreeSet<(Pos, &str)> = BTreeSet::new();
    for task in &manifest.tasks {
        let settings = &task.settings;
        let (name, pool_pos) = match &settings.pool {
            Some(pool) => (pool.value.as_str(), pool.pos),
            None => (DEFAULT_POOL, task.pos),
        };
        let Some(&slots) = pools.get(name) else {
            if said.insert((pool_pos, name)) {
                let hint = findings
                    .suggest(name, pools.keys().map(String::as_str))
                    .unwrap_or_else(|| "make it first: `airtight pools set`".to_owned());
                findings
                    .error(
                        "manifest_unknown_pool",
                        pool_pos,
                        format!("pool `{}` does not exist", short(name)),
                    )
                    .hint(hint);
            }
            continue;
        };
        let (needed, pos) = match &settings.pool_slots {
            Some(needed) => (needed.value, needed.pos),
            None => (1, pool_pos),
        };
        if slots < 0 || i64::from(needed) <= slots || !said.insert((pos, name)) {
            continue;
        }
        if slots == 0 {
            // A pool that holds everything back for now: it can be opened again.
            findings
                .warning(
                    "manifest_pool_slots",
                    pos,
                    format!("pool `{}` has no slots: its tasks wait until it has", short(name)),
                )
                .hint("`airtight pools set` changes it");
        } else {
            findings
                .error(
                    "manifest_pool_slots",
                    pos,
                    format!(
                        "task `{}` needs {needed} slots, but pool `{}` has {slots}",
                        task.id,
                        short(name)
                    ),
                )
                .hint("it would wait for ever; lower `pool_slots`, or enlarge the pool with `airtight pools set`");
        }
    }
}
