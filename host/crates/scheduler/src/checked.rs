//! Values that people and tasks send, against schemas that others wrote: most checks take microseconds and are made where they are asked
//! for. One that takes longer begins anew on a thread of its own, and ends soon after the request that it is made for.

use model::budget::{Budget, StopOnDrop, is_spent, within};
use ports::control::ControlError;
use tokio::sync::Semaphore;

/// Bounds of a check on a thread that serves requests: well below a millisecond.
const HERE: Budget = Budget::new(100_000, 1 << 20);
/// Bounds of a check elsewhere: about a second.
const THERE: Budget = Budget::new(200_000_000, 256 << 20);
/// Checks that are made elsewhere at a time. Others wait.
static CHECKS: Semaphore = Semaphore::const_new(2);

/// Makes a check, perhaps twice.
pub(crate) async fn checked<T: Send + 'static>(check: impl Fn() -> T + Send + 'static) -> Result<T, ControlError> {
    let (done, spent) = within(HERE, || (check(), is_spent()));
    if !spent {
        return Ok(done);
    }
    drop(done);
    let permit = CHECKS.acquire().await.map_err(|_| ControlError::Stopping)?;
    let wanted = StopOnDrop::default();
    let budget = THERE.watched(wanted.watch());
    let done = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        within(budget, check)
    });
    done.await.map_err(|error| ControlError::Internal(Box::new(error)))
}

#[cfg(test)]
mod tests {
    use model::budget::spend;

    use super::*;

    fn work(steps: u64) -> (bool, std::thread::ThreadId) {
        let mut left = steps;
        while left > 0 && spend(1_000.min(left)).is_ok() {
            left -= 1_000.min(left);
        }
        (left == 0, std::thread::current().id())
    }

    #[tokio::test]
    async fn short_checks_are_made_here_and_long_ones_elsewhere() {
        let here = std::thread::current().id();
        assert_eq!(checked(|| work(50_000)).await.unwrap(), (true, here));
        let (finished, thread) = checked(|| work(10_000_000)).await.unwrap();
        assert!(finished && thread != here);
        let (finished, _) = checked(|| work(u64::MAX / 2)).await.unwrap();
        assert!(!finished, "it ends");
    }
}
