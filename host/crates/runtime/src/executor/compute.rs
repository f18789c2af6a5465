//! Computing for a try: rendering its input, validating what goes in and what comes out.
//!
//! Most of it takes microseconds and is done where the try is. What turns out to take longer begins anew on a thread of its own, of
//! which there are few: no guest waits for it, its memory and its CPU time are the try's, and it ends soon after the try does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use model::budget::{Budget, Exhausted, Watch, within};
use tokio::sync::Semaphore;

use crate::limits::Account;
use crate::meter::{CpuClock, thread_cpu_nanos};

/// Bounds of work on a thread of guests: a millisecond.
const HERE: Budget = Budget::new(300_000, 4 << 20);
/// Bounds of work on a thread of its own. The work itself has lower ones.
const THERE: Budget = Budget::new(u64::MAX, u64::MAX);

/// The threads for what takes long.
#[derive(Debug)]
pub(super) struct ComputePool(Arc<Semaphore>);

impl ComputePool {
    /// Half as many threads as guests have, at least one.
    pub(super) fn new(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new((threads / 2).max(1))))
    }
}

/// The computing of one try.
pub(super) struct Compute {
    pub(super) pool: Arc<ComputePool>,
    pub(super) account: Arc<Account>,
    pub(super) cpu: Arc<CpuClock>,
    pub(super) cpu_limit: Duration,
}

impl Compute {
    /// Does some work, perhaps twice; `unfinished` says whether its failure is that of a budget. Where the try's CPU time is used up, or
    /// nobody waits any more, it never answers: the try is given up then.
    pub(super) async fn run<J, T, E>(
        &self,
        job: &Arc<J>,
        work: impl Fn(&J) -> Result<T, E> + Send + 'static,
        unfinished: fn(&E) -> Option<Exhausted>,
    ) -> Result<T, E>
    where
        J: Send + Sync + 'static,
        T: Send + 'static,
        E: Send + 'static,
    {
        let done = within(HERE, || work(job));
        match done.as_ref().err().and_then(unfinished) {
            Some(Exhausted::Steps | Exhausted::Bytes) => drop(done),
            Some(Exhausted::Depth | Exhausted::Stopped) | None => return done,
        }
        let Ok(permit) = Arc::clone(&self.pool.0).acquire_owned().await else {
            return std::future::pending().await;
        };
        let wanted = Wanted::default();
        let (job, cpu, account) = (Arc::clone(job), Arc::clone(&self.cpu), Arc::clone(&self.account));
        let (unwanted, limit) = (Arc::clone(&wanted.0), self.cpu_limit);
        let done = tokio::task::spawn_blocking(move || {
            let began = thread_cpu_nanos();
            let watch = Watched {
                unwanted,
                account,
                taken: AtomicU64::new(0),
                began,
                left: limit.saturating_sub(cpu.used()),
            };
            let done = within(THERE.watched(Arc::new(watch)), || work(&job));
            cpu.add(thread_cpu_nanos().saturating_sub(began));
            drop(job);
            drop(permit);
            done
        });
        match done.await {
            Ok(Err(error)) if unfinished(&error) == Some(Exhausted::Stopped) => std::future::pending().await,
            Ok(done) => done,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The executor shuts down.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// Lives as long as somebody waits.
#[derive(Default)]
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Watches the work on its thread.
struct Watched {
    unwanted: Arc<AtomicBool>,
    account: Arc<Account>,
    taken: AtomicU64,
    /// The thread's clock at the beginning.
    began: u64,
    /// The rest of the try's CPU time.
    left: Duration,
}

impl Watch for Watched {
    fn stopped(&self) -> bool {
        let used = Duration::from_nanos(thread_cpu_nanos().saturating_sub(self.began));
        self.unwanted.load(Ordering::Relaxed) || used > self.left
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = self.account.take(bytes);
        if taken {
            self.taken.fetch_add(bytes, Ordering::Relaxed);
        }
        taken
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.account.give_back(*self.taken.get_mut());
    }
}

#[cfg(test)]
mod tests {
    use model::budget::{grow, spend};

    use super::*;
    use crate::limits::MachineMemory;

    fn compute(memory: u64, cpu_limit: Duration) -> Compute {
        let machine = Arc::new(MachineMemory::new(1 << 30));
        Compute {
            pool: Arc::new(ComputePool::new(2)),
            account: Arc::new(Account::new(machine, memory)),
            cpu: Arc::new(CpuClock::default()),
            cpu_limit,
        }
    }

    fn work(steps: u64) -> Result<std::thread::ThreadId, Exhausted> {
        for _ in 0..steps / 1_000 {
            spend(1_000)?;
        }
        Ok(std::thread::current().id())
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "as it is asked")]
    fn unfinished(why: &Exhausted) -> Option<Exhausted> {
        Some(*why)
    }

    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn short_work_is_done_here_and_long_work_elsewhere() {
        let compute = compute(1 << 20, LONG);
        let here = std::thread::current().id();
        assert_eq!(
            compute.run(&Arc::new(10_000), |steps| work(*steps), unfinished).await,
            Ok(here)
        );
        let there = compute
            .run(&Arc::new(10_000_000), |steps| work(*steps), unfinished)
            .await;
        assert_ne!(there, Ok(here));
    }

    #[tokio::test]
    async fn what_long_work_makes_is_on_the_trys_account() {
        let compute = compute(8 << 20, LONG);
        let grown = |bytes: u64| move |(): &()| grow(bytes);
        assert_eq!(compute.run(&Arc::new(()), grown(6 << 20), unfinished).await, Ok(()));
        assert!(compute.account.peak() >= 6 << 20);
        assert_eq!(compute.account.free(), 8 << 20, "it is given back");
        assert_eq!(
            compute.run(&Arc::new(()), grown(9 << 20), unfinished).await,
            Err(Exhausted::Bytes)
        );
        assert!(compute.account.refusal().is_some());
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_ends_and_lets_go() {
        let compute = compute(8 << 20, LONG);
        let (begun, mut told) = tokio::sync::mpsc::unbounded_channel();
        let forever = move |(): &()| -> Result<(), Exhausted> {
            loop {
                spend(100)?;
                let _ = begun.send(());
            }
        };
        let job = Arc::new(());
        tokio::select! {
            done = compute.run(&job, forever, unfinished) => unreachable!("{done:?}"),
            () = async {
                // More than is done here.
                for _ in 0..20_000 {
                    told.recv().await;
                }
            } => {}
        }
        // The only thread is free again once the work has seen that it is not wanted.
        let next = compute
            .run(&Arc::new(10_000_000), |steps| work(*steps), unfinished)
            .await;
        assert!(next.is_ok());
        while told.recv().await.is_some() {}
        assert_eq!(Arc::strong_count(&job), 1);
    }

    #[tokio::test]
    async fn long_work_counts_as_the_trys_cpu_time_and_ends_with_it() {
        let compute = compute(8 << 20, Duration::from_millis(20));
        let job = Arc::new(());
        let forever = |(): &()| -> Result<(), Exhausted> {
            loop {
                spend(100)?;
            }
        };
        let cpu = Arc::clone(&compute.cpu);
        let polled = tokio::select! {
            biased;
            done = compute.run(&job, forever, unfinished) => Some(done),
            // It is over when the time is noted, and never answers.
            () = async { while cpu.used() <= Duration::from_millis(20) { tokio::task::yield_now().await; } } => None,
        };
        assert_eq!(polled, None);
    }
}
