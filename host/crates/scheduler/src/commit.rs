//! One tick, one commit, and the ways in which a commit can fail.
//!
//! * Passing: the drafts are dropped, the work goes back in order, and after a pause it is tried again.
//! * Data: the write is split until one run is left; that one is set aside and all others go on.
//! * Unknown: the tick id is read back before anything else happens.
//! * Slots taken: a pool has fewer free slots than memory thought. The drafts are dropped, the slots are counted anew in the
//!   database, and the tick is decided again. Nothing is wrong with the database, and nobody is told so.

use std::collections::{HashSet, VecDeque};
use std::error::Error;
use std::sync::atomic::Ordering;
use std::time::Duration;

use model::DagRunKey;
use ports::control::ControlError;
use ports::store::{CommitError, TickWrite};

use crate::core::{Core, Failing};
use crate::inbox::DagOp;
use crate::metrics::Metrics;
use crate::tick::Tick;
use crate::write::Write;

/// How long a stopping scheduler tries to commit the last results.
const GIVE_UP_AFTER: Duration = Duration::from_secs(30);

/// What became of a tick's parts.
#[derive(Default)]
pub(crate) struct Outcome {
    /// What was written.
    pub(crate) written: Vec<Write>,
    /// Runs whose data cannot be written, and why.
    pub(crate) bad_runs: Vec<(DagRunKey, String)>,
    /// Changes of DAGs and pools that cannot be written, and why.
    pub(crate) bad_dags: Vec<(usize, String)>,
    /// Why the rest was not written: try again.
    pub(crate) passing: Option<String>,
    pub(crate) fenced: bool,
    /// The rest was not written because a pool has too few free slots: count them, decide again.
    pub(crate) slots_taken: bool,
}

impl Outcome {
    fn all(&self) -> bool {
        self.bad_runs.is_empty()
            && self.bad_dags.is_empty()
            && self.passing.is_none()
            && !self.fenced
            && !self.slots_taken
    }
}

/// How one commit ended, once that is known.
enum Ended {
    Written,
    Passing(String),
    Data(String),
    Fenced,
    SlotsTaken,
}

/// So many times in a row a tick may find its slots taken before that counts as a failing database.
const MAX_RECOUNTS: u32 = 3;

impl Core {
    /// Decides a tick, commits it and releases what follows.
    pub(crate) async fn tick(&mut self) {
        let now = self.shared.clock.now();
        let mut tick = self.decide(now);
        let write = self.write(&mut tick);
        let outcome = self.commit(write).await;
        if outcome.fenced {
            self.fenced = true;
            return;
        }
        if outcome.all() {
            self.dags.keep();
            self.slots.pools.keep();
            self.recounts = 0;
            self.succeeded();
            self.release_all(tick, outcome.written);
            return;
        }
        self.partly(tick, outcome).await;
    }

    /// Writes all of it, or as much as can be written.
    async fn commit(&mut self, write: Write) -> Outcome {
        let mut outcome = Outcome::default();
        let mut open = vec![write];
        // Parts that need slots which another part gives back.
        let mut deferred: Vec<Write> = Vec::new();
        let mut written_before = 0;
        loop {
            let Some(part) = open.pop() else {
                if deferred.is_empty() {
                    return outcome;
                }
                if outcome.written.len() == written_before {
                    outcome.slots_taken = true;
                    return outcome;
                }
                written_before = outcome.written.len();
                open.extend(deferred.drain(..).rev());
                continue;
            };
            if part.is_empty() {
                outcome.written.push(part);
                continue;
            }
            match self.commit_part(&part.tick).await {
                Ended::Written => outcome.written.push(part),
                Ended::Fenced => {
                    outcome.fenced = true;
                    return outcome;
                }
                Ended::SlotsTaken => {
                    Metrics::count(&self.shared.metrics.commits_failed_slots);
                    deferred.push(part);
                }
                Ended::Passing(reason) => {
                    Metrics::count(&self.shared.metrics.commits_failed_passing);
                    outcome.passing = Some(reason);
                    return outcome;
                }
                Ended::Data(reason) => {
                    Metrics::count(&self.shared.metrics.commits_failed_data);
                    tracing::warn!(reason, parts = part.parts(), "the database refused the data of a tick");
                    if part.parts() <= 1 {
                        outcome
                            .bad_runs
                            .extend(part.runs.iter().map(|key| (*key, reason.clone())));
                        outcome
                            .bad_dags
                            .extend(part.changes().map(|change| (change, reason.clone())));
                    } else {
                        let (first, second) = part.split();
                        open.push(second);
                        open.push(first);
                    }
                }
            }
        }
    }

    async fn commit_part(&mut self, tick: &TickWrite) -> Ended {
        let Some(lease) = self.shared.lease.get().cloned() else {
            return Ended::Fenced;
        };
        let began = tokio::time::Instant::now();
        match self.shared.store.commit_tick(&lease, tick).await {
            Ok(()) => {
                let micros = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
                Metrics::add(&self.shared.metrics.commit_micros, micros);
                Metrics::count(&self.shared.metrics.ticks);
                Ended::Written
            }
            Err(CommitError::Fenced) => Ended::Fenced,
            Err(CommitError::SlotsTaken) => Ended::SlotsTaken,
            Err(CommitError::Passing(reason)) => Ended::Passing(chain(&*reason)),
            Err(CommitError::Data(reason)) => Ended::Data(chain(&*reason)),
            Err(CommitError::Unknown(reason)) => self.read_back(&lease, tick, chain(&*reason)).await,
        }
    }

    /// Finds out what became of a commit. The lease is renewed first: that waits for the lock which the lost transaction holds
    /// if it is still under way, so that the answer about the tick is final.
    async fn read_back(&mut self, lease: &ports::store::Lease, tick: &TickWrite, reason: String) -> Ended {
        Metrics::count(&self.shared.metrics.commits_unknown);
        tracing::warn!(reason, "it is not known whether a tick was committed; reading it back");
        loop {
            let now = self.shared.clock.now();
            let expires_at = now.plus(self.shared.config.lease_ttl);
            let problem = match self.shared.store.renew_lease(lease, now, expires_at).await {
                Err(CommitError::Fenced) => return Ended::Fenced,
                Err(error) => chain(&error),
                Ok(()) => match self.shared.store.tick_committed(tick.tick_id).await {
                    Ok(true) => {
                        Metrics::count(&self.shared.metrics.ticks);
                        return Ended::Written;
                    }
                    Ok(false) => return Ended::Passing(reason),
                    Err(error) => chain(&error),
                },
            };
            self.failed(problem);
            self.pause().await;
            if self.fenced {
                return Ended::Fenced;
            }
            if self.is_hopeless() {
                return Ended::Passing(reason);
            }
        }
    }

    /// Something was not written. What was, takes effect; what cannot be is set aside; the rest goes back.
    async fn partly(&mut self, mut tick: Tick, outcome: Outcome) {
        let written: HashSet<DagRunKey> = outcome
            .written
            .iter()
            .flat_map(|part| part.runs.iter().copied())
            .collect();
        let dags_written: HashSet<usize> = outcome.written.iter().flat_map(Write::changes).collect();
        let bad: HashSet<DagRunKey> = outcome.bad_runs.iter().map(|(key, _)| *key).collect();
        let bad_dags: HashSet<usize> = outcome.bad_dags.iter().map(|(change, _)| *change).collect();

        // What is neither written nor bad goes back, the last taken first.
        let mut kept = Vec::new();
        let now = tick.now;
        let touched: HashSet<DagRunKey> = tick.order.iter().copied().collect();
        for applied in std::mem::take(&mut tick.items).into_iter().rev() {
            let done = written.contains(&applied.key) || bad.contains(&applied.key) || !touched.contains(&applied.key);
            if done {
                kept.push(applied);
            } else {
                self.queue.put_back(applied.key, applied.item, now);
            }
        }
        kept.reverse();
        tick.items = kept;
        let mut changes = Vec::new();
        for (change, applied) in std::mem::take(&mut tick.dag_changes).into_iter().enumerate().rev() {
            if dags_written.contains(&change) || bad_dags.contains(&change) || applied.write.is_err() {
                changes.push((change, applied));
            } else {
                self.dag_ops.push_front(applied.op);
            }
        }
        changes.reverse();
        self.dags.take_back(|change| dags_written.contains(&change));
        self.slots.pools.take_back(|change| dags_written.contains(&change));
        tick.drafts.retain(|key, _| written.contains(key));
        tick.order.retain(|key| written.contains(key));

        let mut bad_items = Vec::new();
        tick.items.retain_mut(|applied| {
            let is_bad = bad.contains(&applied.key);
            if is_bad {
                let item = std::mem::replace(&mut applied.item, crate::inbox::Item::Timer);
                bad_items.push((applied.key, item));
            }
            !is_bad
        });
        for (change, applied) in changes {
            match outcome.bad_dags.iter().find(|(bad, _)| *bad == change) {
                Some((_, reason)) => {
                    self.callback_refused(&applied.op);
                    applied.op.refuse(ControlError::Internal(reason.clone().into()));
                }
                None => tick.dag_changes.push(applied),
            }
        }
        self.release_all(tick, outcome.written);
        self.rebuild_slots();
        for (key, reason) in outcome.bad_runs {
            let items = bad_items
                .extract_if(.., |(of, _)| *of == key)
                .map(|(_, item)| item)
                .collect();
            self.set_aside(key, reason, items).await;
        }
        if let Some(reason) = outcome.passing {
            self.failed(reason);
            self.pause().await;
        } else if outcome.slots_taken {
            self.recount().await;
        } else {
            self.recounts = 0;
            self.succeeded();
        }
    }

    /// Somebody changed a pool in the database: from here on memory goes by what is there.
    async fn recount(&mut self) {
        self.recounts = self.recounts.saturating_add(1);
        tracing::warn!(
            times = self.recounts,
            "a pool had fewer free slots than a tick was to take; counting anew"
        );
        let Some(lease) = self.shared.lease.get().cloned() else {
            self.fenced = true;
            return;
        };
        let problem = match self.shared.store.recount_slots(&lease).await {
            Ok(pools) => {
                self.slots.counted(pools);
                if self.recounts <= MAX_RECOUNTS {
                    return;
                }
                "a pool has fewer free slots than its task instances leave".to_owned()
            }
            Err(CommitError::Fenced) => {
                self.fenced = true;
                return;
            }
            Err(error) => chain(&error),
        };
        self.failed(problem);
        self.pause().await;
    }

    /// Capacity and gates hold what the dropped drafts decided: they are made anew from what is committed.
    pub(crate) fn rebuild_slots(&mut self) {
        self.slots.clear();
        for dag in self.dags.iter() {
            self.slots.set_dag(&dag.version, dag.paused);
        }
        for run in self.runs.values() {
            self.slots.add_run(run);
        }
    }

    fn failed(&mut self, reason: String) {
        let now = self.shared.clock.now();
        let failing = self.failing.get_or_insert(Failing {
            since: now,
            attempts: 0,
        });
        failing.attempts = failing.attempts.saturating_add(1);
        tracing::warn!(
            reason,
            attempts = failing.attempts,
            "a tick could not be committed; trying again"
        );
        let mut condition = self.shared.condition();
        condition.problem = Some(format!("the database cannot commit: {reason}"));
        condition.failing_since = Some(failing.since);
    }

    fn succeeded(&mut self) {
        if self.failing.take().is_some() {
            tracing::info!("ticks are committed again");
            self.shared.refusing.store(false, Ordering::Release);
            let mut condition = self.shared.condition();
            condition.problem = None;
            condition.failing_since = None;
        }
    }

    /// Looks whether the database commits again: those who asked were refused, so that nothing is left whose commit would show it.
    pub(crate) async fn probe(&mut self) {
        let Some(lease) = self.shared.lease.get().cloned() else {
            self.fenced = true;
            return;
        };
        let now = self.shared.clock.now();
        let until = now.plus(self.shared.config.lease_ttl);
        match self.shared.store.renew_lease(&lease, now, until).await {
            Ok(()) => self.succeeded(),
            Err(CommitError::Fenced) => self.fenced = true,
            Err(error) => {
                self.failed(chain(&error));
                self.pause().await;
            }
        }
    }

    /// Waits before the next attempt. Messages are taken in meanwhile; after a while those who wait for an answer get one.
    async fn pause(&mut self) {
        let config = &self.shared.config;
        let attempts = self.failing.map_or(1, |failing| failing.attempts);
        let doublings = attempts.saturating_sub(1).min(16);
        let length = config.backoff.saturating_mul(1 << doublings).min(config.backoff_max);
        self.refuse_waiting();
        let over = tokio::time::sleep(length);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => break,
                message = self.inbox.recv() => match message {
                    Some(message) => {
                        self.accept(message);
                        self.refuse_waiting();
                        if self.fenced {
                            return;
                        }
                    }
                    None => return,
                },
            }
        }
    }

    fn refuse_waiting(&mut self) {
        let now = self.shared.clock.now();
        let Some(failing) = self.failing else { return };
        if now.since(failing.since) < self.shared.config.unavailable_after {
            return;
        }
        self.shared.refusing.store(true, Ordering::Release);
        for item in self.queue.take_requests() {
            item.refuse(ControlError::Unavailable);
        }
        let (requests, facts): (VecDeque<_>, VecDeque<_>) = self.dag_ops.drain(..).partition(DagOp::is_request);
        self.dag_ops = facts;
        for op in requests {
            op.refuse(ControlError::Unavailable);
        }
        // Ended runs that were loaded for a request that is answered now.
        self.runs
            .retain(|_, run| !run.state.state().is_finished() || !run.lazy.is_empty());
    }

    /// Whether a stopping scheduler should stop although the last results are not committed: the database has been away for
    /// too long. They count as lost after the next start.
    pub(crate) fn is_hopeless(&self) -> bool {
        let now = self.shared.clock.now();
        self.executor_stopped
            && self
                .failing
                .is_some_and(|failing| now.since(failing.since) > GIVE_UP_AFTER)
    }
}

/// An error with its causes, for people.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
