//! Start marks on their way to the loop. They can wait, so they do not wake it: it takes them along when it is awake anyway, and it says
//! whether it will look at them soon by itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use model::Timestamp;
use ports::executor::TryId;

/// The marks.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    marks: Vec<(TryId, Timestamp)>,
    /// Whether the loop looks here soon.
    expected: bool,
}

impl Marks {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a mark. `true` where the loop has to be woken for it.
    pub(crate) fn push(&self, id: TryId, at: Timestamp) -> bool {
        let mut waiting = self.waiting();
        waiting.marks.push((id, at));
        !std::mem::replace(&mut waiting.expected, true)
    }

    /// Takes all marks. `expected` says whether the loop looks here soon again.
    pub(crate) fn take(&self, expected: bool) -> Vec<(TryId, Timestamp)> {
        let mut waiting = self.waiting();
        waiting.expected = expected;
        std::mem::take(&mut waiting.marks)
    }

    /// The loop looks here soon.
    pub(crate) fn expect(&self) {
        self.waiting().expected = true;
    }
}

#[cfg(test)]
mod tests {
    use model::{DagRunKey, DispatchNumber, MapIndex, RunUuid, TaskIndex, TiKey, TryNumber};

    use super::*;

    fn id(dispatch: u32) -> TryId {
        TryId {
            ti: TiKey {
                run: DagRunKey(1),
                task: TaskIndex(0),
                map_index: MapIndex::UNMAPPED,
            },
            run_uuid: RunUuid(uuid::Uuid::nil()),
            try_number: TryNumber(1),
            dispatch: DispatchNumber(dispatch),
            callback: None,
        }
    }

    #[test]
    fn only_the_first_mark_that_nobody_expects_wakes_the_loop() {
        let marks = Marks::default();
        assert!(marks.push(id(1), Timestamp(1)));
        assert!(!marks.push(id(2), Timestamp(2)));
        assert_eq!(marks.take(false), [(id(1), Timestamp(1)), (id(2), Timestamp(2))]);
        marks.expect();
        assert!(!marks.push(id(3), Timestamp(3)));
        assert_eq!(marks.take(true), [(id(3), Timestamp(3))]);
        assert!(!marks.push(id(4), Timestamp(4)));
        marks.take(false);
        assert!(marks.push(id(5), Timestamp(5)));
    }
}
