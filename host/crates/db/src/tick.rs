//! One tick as statements, in the one order in which all ticks touch the tables: lease, DAGs, pools, runs, task instances, tries,
//! XComs, questions to people, notes, heartbeats, callbacks, checkpoints, deletions, intents, audit log, inbox. Parts that are empty cost nothing.

use model::Timestamp;
use ports::store::{Lease, TickWrite};

use crate::sql::{Dialect, Statement};
use crate::table::dag_version::EncodeError;
use crate::table::{
    audit_log, callback, checkpoint, dag, dag_run, hitl_detail, inbox, intent, scheduler_lease, slot_pool,
    task_instance, task_instance_heartbeat, task_instance_note, xcom,
};

/// Rows in the order of their keys; of those with the same key only the last. (PostgreSQL refuses a statement that touches a row
/// twice, and a fixed order of locks excludes deadlocks.)
fn last_by_key<'a, T, K: Ord>(rows: &'a [T], key: impl Fn(&'a T) -> K) -> Vec<&'a T> {
    let mut sorted: Vec<&'a T> = rows.iter().collect();
    if !sorted.is_sorted_by(|a, b| key(a) < key(b)) {
        sorted.sort_by_key(|row| key(row));
        sorted.reverse();
        sorted.dedup_by(|a, b| key(a) == key(b));
        sorted.reverse();
    }
    sorted
}

/// All that a tick does, lease check included.
pub(crate) fn statements(dialect: Dialect, lease: &Lease, tick: &TickWrite) -> Result<Vec<Statement>, EncodeError> {
    let TickWrite {
        tick_id,
        now,
        dags,
        pauses,
        pools,
        slots,
        new_runs,
        runs,
        parents,
        task_instance_deletes,
        task_instances,
        tries,
        xcom_deletes,
        xcoms,
        hitl_requests,
        hitl_answers,
        callbacks,
        note_moves,
        notes,
        heartbeats,
        checkpoint_deletes,
        run_deletes,
        intents,
        intent_runs_done,
        audit,
    } = tick;
    let now = now.unwrap_or(Timestamp(0));
    let mut statements = vec![scheduler_lease::check_for_tick(lease, *tick_id)];
    for change in dags {
        statements.extend(dag::write(dialect, change, now)?);
    }
    statements.extend(pauses.iter().map(dag::pause));
    statements.extend(pools.iter().map(slot_pool::write));
    statements.extend(slot_pool::take(slots));
    if !new_runs.is_empty() {
        statements.push(dag_run::insert(dialect, lease, new_runs, now));
        statements.extend(xcom::insert_of_runs(dialect, new_runs));
    }
    if !runs.is_empty() {
        statements.push(dag_run::update(dialect, lease, &last_by_key(runs, |run| run.key), now));
    }
    if !parents.is_empty() {
        statements.push(dag_run::update_parents(dialect, &last_by_key(parents, |row| row.run)));
    }
    if !task_instance_deletes.is_empty() {
        statements.push(task_instance::delete(dialect, task_instance_deletes));
    }
    if !task_instances.is_empty() {
        let rows = last_by_key(task_instances, |ti| ti.key);
        statements.push(task_instance::upsert(dialect, &rows, now));
    }
    if !tries.is_empty() {
        let rows = last_by_key(tries, |ti| (ti.key, ti.try_number));
        statements.push(task_instance::upsert_tries(dialect, &rows, now));
    }
    if !xcom_deletes.is_empty() {
        statements.extend(xcom::delete(dialect, xcom_deletes));
    }
    if !xcoms.is_empty() {
        let rows = last_by_key(xcoms, |xcom| (xcom.ti, xcom.key.as_str()));
        statements.extend(xcom::upsert(dialect, &rows, now));
    }
    if !hitl_requests.is_empty() {
        let rows = last_by_key(hitl_requests, |request| (request.ti, request.try_number));
        statements.push(hitl_detail::upsert(dialect, &rows, now));
    }
    statements.extend(hitl_answers.iter().map(hitl_detail::answer));
    if !note_moves.is_empty() {
        statements.extend(task_instance_note::renumber(dialect, note_moves));
    }
    if !notes.is_empty() {
        let rows = last_by_key(notes, |note| note.ti);
        statements.push(task_instance_note::upsert(dialect, &rows, now));
    }
    if !heartbeats.is_empty() {
        let rows = last_by_key(heartbeats, |heartbeat| heartbeat.ti);
        statements.push(task_instance_heartbeat::upsert(dialect, &rows));
    }
    if !callbacks.is_empty() {
        statements.push(callback::insert(dialect, callbacks, now));
    }
    if !checkpoint_deletes.is_empty() {
        statements.extend(checkpoint::delete(dialect, checkpoint_deletes));
    }
    if !run_deletes.is_empty() {
        statements.push(dag_run::delete(dialect, run_deletes));
    }
    if !intents.is_empty() {
        statements.extend(intent::begin(dialect, intents)?);
    }
    if !intent_runs_done.is_empty() {
        statements.push(intent::runs_done(dialect, intent_runs_done));
    }
    if !audit.is_empty() {
        statements.push(audit_log::insert(dialect, audit, now));
        statements.extend(inbox::settle(audit));
    }
    Ok(statements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_keys_wins() {
        let rows = [(2, 'a'), (1, 'b'), (2, 'c'), (1, 'd'), (3, 'e')];
        let rows: Vec<_> = last_by_key(&rows, |row| row.0).into_iter().copied().collect();
        assert_eq!(rows, [(1, 'd'), (2, 'c'), (3, 'e')]);
    }

    #[test]
    fn sorted_rows_stay_as_they_are() {
        let rows = [1, 2, 5];
        assert_eq!(last_by_key(&rows, |row| *row), [&1, &2, &5]);
        let repeated = [1, 1, 2];
        assert_eq!(last_by_key(&repeated, |row| *row), [&1, &2]);
    }
}
