//! Start marks and heartbeats on their way to the loop. They can wait, so they do not wake it: it takes them along when it is awake anyway, and it says
//! whether it will look at them soon by itself.

use std::sync::{Mutex, MutexGuard, PoisonError};

use model::Timestamp;
use ports::executor::TryId;

/// What an executor says that changes no decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It started a dispatch.
    Started(TryId, Timestamp),
    /// It has a dispatch, which goes on.
    Heard(TryId, Timestamp),
}

/// The marks.
#[derive(Debug, Default)]
pub(crate) struct Marks(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    marks: Vec<Mark>,
    /// Whether the loop looks here soon.
    expected: bool,
}

impl Marks {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds marks. `true` where the loop has to be woken for them.
    pub(crate) fn push(&self, marks: impl IntoIterator<Item = Mark>) -> bool {
        let mut waiting = self.waiting();
        waiting.marks.extend(marks);
        !std::mem::replace(&mut waiting.expected, true)
    }

    /// Takes all marks. `expected` says whether the loop looks here soon again.
    pub(crate) fn take(&self, expected: bool) -> Vec<Mark> {
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

    fn started(dispatch: u32) -> Mark {
        Mark::Started(id(dispatch), Timestamp(dispatch.into()))
    }

    #[test]
    fn only_the_first_mark_that_nobody_expects_wakes_the_loop() {
        let marks = Marks::default();
        assert!(marks.push([started(1)]));
        assert!(!marks.push([started(2)]));
        assert_eq!(marks.take(false), [started(1), started(2)]);
        marks.expect();
        assert!(!marks.push([started(3)]));
        assert_eq!(marks.take(true), [started(3)]);
        assert!(!marks.push([started(4)]));
        marks.take(false);
        assert!(marks.push([started(5)]));
    }
}
