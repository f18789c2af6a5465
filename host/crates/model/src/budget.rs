//! Budgets of what others make this process compute: manifests, schemas, values and templates come from outside, and few bytes of
//! them can stand for very much work.
//!
//! Whoever starts such work says how many steps it may take, how many bytes it may make, and who watches it: [`within`]. Whatever does
//! the work says what it does: [`spend`], [`grow`]. The budget belongs to the thread, because engines that are not ours (JSON Schema,
//! Jinja) call back without a word about who asked. A budget inside of another one is never more than what is left of the outer one.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Steps between two looks at the watch: less than a millisecond of work.
const SLICE_STEPS: u64 = 1 << 16;
/// Bytes that are asked of the watch at a time.
const SLICE_BYTES: u64 = 1 << 20;
/// The stack that the work may use, in bytes. Threads have twice that.
const MAX_STACK_BYTES: usize = 1 << 20;

/// Bounds of some work.
#[derive(Clone)]
pub struct Budget {
    /// Steps: each is some nanoseconds.
    pub steps: u64,
    /// Bytes that it makes and holds at once, at most.
    pub bytes: u64,
    /// Who can end it, and whose account the bytes are taken from.
    pub watch: Option<Arc<dyn Watch>>,
}

impl Budget {
    /// So many steps and bytes, watched by nobody.
    pub const fn new(steps: u64, bytes: u64) -> Self {
        Self {
            steps,
            bytes,
            watch: None,
        }
    }

    /// The same, watched.
    #[must_use]
    pub fn watched(mut self, watch: Arc<dyn Watch>) -> Self {
        self.watch = Some(watch);
        self
    }
}

/// Looks at work while it is done.
pub trait Watch: Send + Sync {
    /// Tells that nobody wants the work any more, or that its time is over.
    fn stopped(&self) -> bool {
        false
    }

    /// Takes bytes from the account of whoever wants the work. They are given back by whoever owns the account.
    fn take(&self, _bytes: u64) -> bool {
        true
    }
}

/// The reason why work was not finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// All steps are taken.
    #[error("it takes too many steps")]
    Steps,
    /// All bytes are made.
    #[error("it takes too much memory")]
    Bytes,
    /// It is nested too deeply.
    #[error("it is nested too deeply")]
    Depth,
    /// The watch ended it.
    #[error("it was stopped")]
    Stopped,
}

thread_local! {
    /// Steps and bytes that are left until the next look: without a budget, everything.
    static STEPS: Cell<u64> = const { Cell::new(u64::MAX) };
    static BYTES: Cell<u64> = const { Cell::new(u64::MAX) };
    /// Where the outermost budget of the thread began on the stack; 0 without one.
    static BASE: Cell<usize> = const { Cell::new(0) };
    static SCOPE: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// The rest of a budget, behind the next look.
struct Scope {
    steps: u64,
    bytes: u64,
    watch: Option<Arc<dyn Watch>>,
    /// Bytes that were asked of the watch.
    taken: u64,
    spent: Option<Exhausted>,
}

/// Stops the work that it watches when it is dropped: it lives with whoever wants the work.
#[derive(Default)]
pub struct StopOnDrop(Arc<Flag>);

#[derive(Default)]
struct Flag(AtomicBool);

impl Watch for Flag {
    fn stopped(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl StopOnDrop {
    /// The watch for the work.
    pub fn watch(&self) -> Arc<dyn Watch> {
        Arc::clone(&self.0) as Arc<dyn Watch>
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

/// Takes steps.
pub fn spend(steps: u64) -> Result<(), Exhausted> {
    let left = STEPS.get();
    if left >= steps {
        STEPS.set(left - steps);
        return Ok(());
    }
    more_steps(steps)
}

/// Makes bytes: they cost steps, too.
pub fn grow(bytes: u64) -> Result<(), Exhausted> {
    spend(1 + bytes / 64)?;
    let left = BYTES.get();
    if left >= bytes {
        BYTES.set(left - bytes);
        return Ok(());
    }
    more_bytes(bytes)
}

/// Refuses to go deeper where the stack would not last. Whatever calls itself as deeply as its data wants asks here.
pub fn deeper() -> Result<(), Exhausted> {
    let here = 0_u8;
    let base = BASE.get();
    if base == 0 || std::ptr::from_ref(&here).addr().abs_diff(base) <= MAX_STACK_BYTES {
        return Ok(());
    }
    Err(fail(Exhausted::Depth))
}

/// Answers why the innermost budget is used up, if it is.
pub fn exhausted() -> Option<Exhausted> {
    SCOPE.with_borrow(|scope| scope.as_ref().and_then(|scope| scope.spent))
}

/// Tells that a budget within this one used up what this one has, although that was not noted here: who began the work with little may begin
/// it again with more.
pub fn is_spent() -> bool {
    steps_left() == 0
}

/// Steps that are left in this thread.
pub fn steps_left() -> u64 {
    let beyond = SCOPE.with_borrow(|scope| scope.as_ref().map_or(0, |scope| scope.steps));
    STEPS.get().saturating_add(beyond)
}

#[cold]
fn more_steps(steps: u64) -> Result<(), Exhausted> {
    let failed = SCOPE.with_borrow_mut(|scope| {
        let scope = scope.as_mut()?;
        if let Some(spent) = scope.spent {
            return Some(spent);
        }
        if scope.watch.as_ref().is_some_and(|watch| watch.stopped()) {
            return Some(Exhausted::Stopped);
        }
        let left = STEPS.get().saturating_add(scope.steps);
        if left < steps {
            return Some(Exhausted::Steps);
        }
        let slice = (left - steps).min(SLICE_STEPS);
        scope.steps = left - steps - slice;
        STEPS.set(slice);
        None
    });
    failed.map_or(Ok(()), |why| Err(fail(why)))
}

#[cold]
fn more_bytes(bytes: u64) -> Result<(), Exhausted> {
    let failed = SCOPE.with_borrow_mut(|scope| {
        let scope = scope.as_mut()?;
        if let Some(spent) = scope.spent {
            return Some(spent);
        }
        let left = BYTES.get().saturating_add(scope.bytes);
        if left < bytes {
            return Some(Exhausted::Bytes);
        }
        let wanted = (bytes - BYTES.get()).max(SLICE_BYTES.min(scope.bytes));
        if !scope.watch.as_ref().is_none_or(|watch| watch.take(wanted)) {
            return Some(Exhausted::Bytes);
        }
        scope.bytes = scope.bytes.saturating_sub(wanted);
        scope.taken = scope.taken.saturating_add(wanted);
        BYTES.set((BYTES.get().saturating_add(wanted)).saturating_sub(bytes));
        None
    });
    failed.map_or(Ok(()), |why| Err(fail(why)))
}

/// From here on everything in the scope is refused.
fn fail(why: Exhausted) -> Exhausted {
    STEPS.set(0);
    BYTES.set(0);
    SCOPE.with_borrow_mut(|scope| {
        if let Some(scope) = scope {
            scope.steps = 0;
            scope.bytes = 0;
            return *scope.spent.get_or_insert(why);
        }
        why
    })
}

/// Does work within a budget. The steps that it takes are taken from the budget around it, too; its bytes are given back with it.
pub fn within<T>(budget: Budget, work: impl FnOnce() -> T) -> T {
    let here = 0_u8;
    let steps = budget.steps.min(steps_left());
    let outer = SCOPE.with_borrow(|scope| {
        scope.as_ref().map(|scope| {
            let bytes = BYTES.get().saturating_add(scope.bytes);
            (bytes, scope.watch.clone(), scope.spent)
        })
    });
    let (bytes, credit, watch, spent) = match outer {
        // What was asked of the watch already is there to be used.
        Some((bytes, watch, spent)) => {
            let bytes = budget.bytes.min(bytes);
            (bytes, BYTES.get().min(bytes), budget.watch.or(watch), spent)
        }
        None => (budget.bytes, 0, budget.watch, None),
    };
    let slice = if spent.is_some() { 0 } else { steps.min(SLICE_STEPS) };
    let saved = Saved {
        steps: STEPS.replace(slice),
        bytes: BYTES.replace(if spent.is_some() { 0 } else { credit }),
        base: BASE.get(),
        given: steps,
        scope: SCOPE.replace(Some(Scope {
            steps: steps - slice,
            bytes: bytes - credit,
            watch,
            taken: 0,
            spent,
        })),
    };
    if saved.base == 0 {
        BASE.set(std::ptr::from_ref(&here).addr());
    }
    // Also where the work unwinds.
    let _restored = saved;
    work()
}

/// The budget around.
struct Saved {
    steps: u64,
    bytes: u64,
    base: usize,
    /// Steps that the inner one had.
    given: u64,
    scope: Option<Scope>,
}

impl Drop for Saved {
    fn drop(&mut self) {
        let used = self.given.saturating_sub(steps_left());
        let inner = SCOPE.replace(self.scope.take());
        STEPS.set(self.steps);
        BYTES.set(self.bytes);
        BASE.set(self.base);
        let is_inner = SCOPE.with_borrow_mut(|scope| {
            if let (Some(outer), Some(inner)) = (scope.as_mut(), &inner) {
                let credit = inner.taken.min(outer.bytes);
                outer.bytes -= credit;
                BYTES.set(self.bytes.saturating_add(credit));
                outer.taken = outer.taken.saturating_add(inner.taken);
            }
            scope.is_some()
        });
        if is_inner {
            // What the inner one failed of is for its own starter to say.
            let _ = spend(used.min(steps_left()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    #[test]
    fn steps_and_bytes_run_out_once_and_for_all() {
        within(Budget::new(1_000_000, 100), || {
            for _ in 0..9 {
                spend(100_000).unwrap();
            }
            grow(60).unwrap();
            assert_eq!(grow(60), Err(Exhausted::Bytes));
            assert_eq!(spend(1), Err(Exhausted::Bytes), "nothing more is done");
            assert_eq!(exhausted(), Some(Exhausted::Bytes));
        });
        within(Budget::new(10, 10), || {
            assert_eq!(spend(11), Err(Exhausted::Steps));
            assert_eq!(spend(1), Err(Exhausted::Steps));
        });
        assert_eq!(spend(u64::MAX / 2), Ok(()), "no budget, no bound");
        STEPS.set(u64::MAX);
    }

    #[test]
    fn an_inner_budget_takes_from_the_outer_one() {
        within(Budget::new(1_000, 1_000), || {
            within(Budget::new(600, u64::MAX), || {
                assert_eq!(spend(500), Ok(()));
                assert_eq!(grow(1_001), Err(Exhausted::Bytes));
            });
            assert!(steps_left() < 500, "{}", steps_left());
            assert_eq!(grow(900), Ok(()), "bytes are given back");
            within(Budget::new(u64::MAX, 0), || {
                assert_eq!(spend(500), Err(Exhausted::Steps))
            });
        });
    }

    #[test]
    fn an_unwinding_work_leaves_the_outer_budget_as_it_was() {
        within(Budget::new(100, 0), || {
            let unwound = std::panic::catch_unwind(|| {
                within(Budget::new(50, 0), || {
                    spend(10).unwrap();
                    std::panic::resume_unwind(Box::new(()));
                })
            });
            assert!(unwound.is_err());
            assert_eq!(steps_left(), 90);
            assert_eq!(exhausted(), None);
        });
    }

    #[derive(Default)]
    struct Eye {
        looks: AtomicU64,
    }

    impl Watch for Eye {
        fn stopped(&self) -> bool {
            self.looks.fetch_add(1, Ordering::Relaxed) >= 3
        }
    }

    #[test]
    fn the_watch_is_asked_now_and_then() {
        let eye = Arc::new(Eye::default());
        let watched = Budget::new(u64::MAX / 2, u64::MAX / 2).watched(Arc::clone(&eye) as Arc<dyn Watch>);
        within(watched, || {
            let mut steps = 0_u64;
            while spend(100).is_ok() {
                steps += 100;
            }
            assert!(steps >= SLICE_STEPS && steps <= 5 * SLICE_STEPS, "{steps}");
            assert_eq!(exhausted(), Some(Exhausted::Stopped));
        });
        struct Purse(AtomicU64);
        impl Watch for Purse {
            fn take(&self, bytes: u64) -> bool {
                self.0.fetch_add(bytes, Ordering::Relaxed) + bytes <= 3 << 20
            }
        }
        let purse = Arc::new(Purse(AtomicU64::new(0)));
        let watched = Budget::new(u64::MAX / 2, u64::MAX / 2).watched(Arc::clone(&purse) as Arc<dyn Watch>);
        within(watched, || {
            assert_eq!(grow(100), Ok(()));
            assert_eq!(purse.0.load(Ordering::Relaxed), SLICE_BYTES);
            for _ in 0..10 {
                within(Budget::new(u64::MAX, u64::MAX), || assert_eq!(grow(2 << 20), Ok(())));
            }
            assert!(
                purse.0.load(Ordering::Relaxed) < 3 << 20,
                "what is given back is used again"
            );
            assert_eq!(grow(2 << 20), Ok(()));
            assert_eq!(grow(1 << 20), Err(Exhausted::Bytes));
        });
    }

    #[test]
    fn work_that_nobody_wants_stops() {
        let stop = StopOnDrop::default();
        let budget = Budget::new(u64::MAX / 2, 0).watched(stop.watch());
        within(budget, || {
            assert_eq!(spend(10 * SLICE_STEPS), Ok(()));
            drop(stop);
            assert_eq!(spend(10 * SLICE_STEPS), Err(Exhausted::Stopped));
        });
    }

    #[test]
    fn what_was_too_little_is_seen_from_outside() {
        let work = || within(Budget::new(1_000, 0), || spend(500));
        assert!(!within(Budget::new(600, 0), || work().is_err() || is_spent()));
        assert!(within(Budget::new(400, 0), || work().is_err() && is_spent()));
    }

    #[test]
    fn depth_is_bounded() {
        fn down(n: u64) -> u64 {
            let held = [n; 16];
            match deeper() {
                Ok(()) => std::hint::black_box(down(n + 1) + std::hint::black_box(held)[3] % 2),
                Err(why) => {
                    assert_eq!(why, Exhausted::Depth);
                    n
                }
            }
        }
        assert!(within(Budget::new(u64::MAX, u64::MAX), || down(0)) > 100);
    }
}
