//! Why a task instance or a run waits for capacity, in plain words.

/// A pool, as whoever explains knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolNow<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its slots; negative is without bound.
    pub slots: i64,
    /// Those in use by what is dispatched.
    pub used: i64,
    /// Those in use by what is deferred; none where the pool does not include it.
    pub deferred: i64,
}

/// For whom what becomes free in a pool is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptFor<'a> {
    /// For nobody, or it is not known.
    Nobody,
    /// For the one that is asked about.
    Itself,
    /// For this one, which needs so many slots.
    Another(&'a str, u32),
}

/// What a task instance that may run waits for in its pool, which is called `name`; nothing where it fits.
pub fn waits_for_pool(name: &str, pool: Option<PoolNow<'_>>, needs: u32, kept: KeptFor<'_>) -> Option<String> {
    let Some(pool) = pool else {
        return Some(format!("pool `{name}` does not exist"));
    };
    if pool.slots < 0 {
        return None;
    }
    let wanted = format!("it needs {} of pool `{name}`", slots(i64::from(needs)));
    if pool.slots == 0 {
        return Some(format!("{wanted}, which has none: it waits until the pool gets some"));
    }
    if i64::from(needs) > pool.slots {
        return Some(format!(
            "{wanted}, which has {} in all: it waits until the pool gets more",
            pool.slots
        ));
    }
    let free = pool
        .slots
        .saturating_sub(pool.used)
        .saturating_sub(pool.deferred)
        .max(0);
    let elsewhere = match pool.deferred {
        0 => String::new(),
        held => format!(" ({held} held by task instances that are deferred)"),
    };
    let fits = i64::from(needs) <= free;
    let kept = match kept {
        KeptFor::Another(who, its) if free > 0 => {
            format!(", kept for {who}, which is more urgent and needs {its}")
        }
        KeptFor::Itself if free > 0 && !fits => ", kept for it".to_owned(),
        _ if fits => return None,
        _ => String::new(),
    };
    Some(format!(
        "{wanted}, of which {free} of {} {} free{elsewhere}{kept}",
        pool.slots,
        if free == 1 { "is" } else { "are" }
    ))
}

/// What a queued run waits for that is due: its DAG has as many runs running as it may, which are (some of) `running`.
pub fn waits_for_run_slot(dag_id: &str, max_active_runs: u32, running: &[&str], all_running: u64) -> String {
    let names: Vec<String> = running.iter().map(|run| format!("`{run}`")).collect();
    let more = match all_running.saturating_sub(u64::try_from(running.len()).unwrap_or(u64::MAX)) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!(
        "it waits for a run slot: DAG `{dag_id}` has `max_active_runs: {max_active_runs}`, and {}{more} {} running",
        names.join(", "),
        if all_running == 1 { "is" } else { "are" }
    )
}

/// `1 slot`, `3 slots`.
pub fn slots(count: i64) -> String {
    if count == 1 {
        "1 slot".to_owned()
    } else {
        format!("{count} slots")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(slots: i64, used: i64, deferred: i64) -> Option<PoolNow<'static>> {
        Some(PoolNow {
            name: "x",
            slots,
            used,
            deferred,
        })
    }

    #[test]
    fn the_words_say_what_is_needed_what_is_free_and_for_whom_it_is_kept() {
        let other = KeptFor::Another("`big` of run `r1`", 3);
        let why = |pool, needs, kept| waits_for_pool("x", pool, needs, kept);
        assert_eq!(why(pool(4, 3, 0), 1, KeptFor::Nobody), None);
        assert_eq!(why(pool(-1, 900, 0), 7, KeptFor::Nobody), None);
        let cases = [
            (None, 1, KeptFor::Nobody, "pool `x` does not exist"),
            (
                pool(0, 0, 0),
                1,
                KeptFor::Nobody,
                "it needs 1 slot of pool `x`, which has none: it waits until the pool gets some",
            ),
            (
                pool(2, 0, 0),
                3,
                KeptFor::Nobody,
                "it needs 3 slots of pool `x`, which has 2 in all: it waits until the pool gets more",
            ),
            (
                pool(4, 3, 0),
                3,
                KeptFor::Itself,
                "it needs 3 slots of pool `x`, of which 1 of 4 is free, kept for it",
            ),
            (
                pool(4, 2, 0),
                1,
                other,
                "it needs 1 slot of pool `x`, of which 2 of 4 are free, kept for `big` of run `r1`, which is more urgent and needs 3",
            ),
            (
                pool(2, 0, 2),
                1,
                other,
                "it needs 1 slot of pool `x`, of which 0 of 2 are free (2 held by task instances that are deferred)",
            ),
            // It was made smaller than what runs there.
            (
                pool(1, 5, 0),
                1,
                KeptFor::Nobody,
                "it needs 1 slot of pool `x`, of which 0 of 1 are free",
            ),
        ];
        for (pool, needs, kept, words) in cases {
            assert_eq!(why(pool, needs, kept).as_deref(), Some(words));
        }
    }

    #[test]
    fn a_run_without_a_slot_names_those_that_have_them() {
        assert_eq!(
            waits_for_run_slot("d", 1, &["r2"], 1),
            "it waits for a run slot: DAG `d` has `max_active_runs: 1`, and `r2` is running"
        );
        assert_eq!(
            waits_for_run_slot("d", 5, &["a", "b"], 5),
            "it waits for a run slot: DAG `d` has `max_active_runs: 5`, and `a`, `b` and 3 more are running"
        );
    }
}
