//! Vectors that are cheap to clone and to change in few places: chunks behind `Arc`, copied when they are written to.

use std::sync::Arc;

use super::ti::{Slot, Ti};
use crate::id::MapIndex;
use crate::state::TaskInstanceState;
use crate::time::Timestamp;

/// Entries in a chunk: small enough to copy for one change, large enough that cloning the vector of chunks costs little.
const CHUNK: usize = 64;

/// A copy-on-write vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunked<T> {
    chunks: Vec<Arc<Vec<T>>>,
}

impl<T: Clone> Chunked<T> {
    pub(super) fn get(&self, at: usize) -> Option<&T> {
        self.chunks.get(at / CHUNK)?.get(at % CHUNK)
    }

    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        Arc::make_mut(self.chunks.get_mut(at / CHUNK)?).get_mut(at % CHUNK)
    }

    pub(super) fn len(&self) -> usize {
        match self.chunks.last() {
            Some(last) => (self.chunks.len() - 1) * CHUNK + last.len(),
            None => 0,
        }
    }

    pub(super) fn push(&mut self, item: T) {
        match self.chunks.last_mut() {
            Some(last) if last.len() < CHUNK => Arc::make_mut(last).push(item),
            _ => self.chunks.push(Arc::new(vec![item])),
        }
    }
}

impl<T> Default for Chunked<T> {
    fn default() -> Self {
        Self { chunks: Vec::new() }
    }
}

/// The task instances of a run, with a summary of each chunk, so that the few that matter are found without a look at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TiTable {
    chunks: Vec<TiChunk>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct TiChunk {
    slots: Arc<Vec<Slot>>,
    summary: Summary,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Summary {
    next_at: Option<Timestamp>,
    scheduled: u16,
    dispatched: u16,
    unfinished: u16,
}

fn is_scheduled(ti: &Ti) -> bool {
    ti.state == TaskInstanceState::Scheduled
}

fn is_dispatched(ti: &Ti) -> bool {
    ti.state.is_dispatched()
}

fn is_unfinished(ti: &Ti) -> bool {
    !ti.state.is_finished()
}

impl TiTable {
    pub(super) fn len(&self) -> usize {
        match self.chunks.last() {
            Some(last) => (self.chunks.len() - 1) * CHUNK + last.slots.len(),
            None => 0,
        }
    }

    /// Adds a task instance that nothing has happened to.
    pub(super) fn push(&mut self, slot: Slot) {
        if self.chunks.last().is_none_or(|chunk| chunk.slots.len() >= CHUNK) {
            self.chunks.push(TiChunk {
                slots: Arc::new(Vec::new()),
                summary: Summary::default(),
            });
        }
        if let Some(chunk) = self.chunks.last_mut() {
            chunk.summary.unfinished += 1;
            Arc::make_mut(&mut chunk.slots).push(slot);
        }
    }

    /// Gives a task instance another map index.
    pub(super) fn renumber(&mut self, at: usize, map_index: MapIndex) {
        let slots = self
            .chunks
            .get_mut(at / CHUNK)
            .map(|chunk| Arc::make_mut(&mut chunk.slots));
        if let Some(slot) = slots.and_then(|slots| slots.get_mut(at % CHUNK)) {
            slot.map_index = map_index;
        }
    }

    pub(super) fn get(&self, at: usize) -> Option<&Slot> {
        self.chunks.get(at / CHUNK)?.slots.get(at % CHUNK)
    }

    /// Changes one task instance and the summary of its chunk.
    pub(super) fn edit(&mut self, at: usize, edit: impl FnOnce(&mut Ti)) {
        let Some(chunk) = self.chunks.get_mut(at / CHUNK) else {
            return;
        };
        let Some(slot) = Arc::make_mut(&mut chunk.slots).get_mut(at % CHUNK) else {
            return;
        };
        let ti = &mut slot.ti;
        let before = (is_scheduled(ti), is_dispatched(ti), is_unfinished(ti), ti.next_at);
        edit(ti);
        let after = (is_scheduled(ti), is_dispatched(ti), is_unfinished(ti), ti.next_at);
        let summary = &mut chunk.summary;
        let recount = |counter: &mut u16, before: bool, after: bool| {
            *counter = counter
                .saturating_add(u16::from(after))
                .saturating_sub(u16::from(before));
        };
        recount(&mut summary.scheduled, before.0, after.0);
        recount(&mut summary.dispatched, before.1, after.1);
        recount(&mut summary.unfinished, before.2, after.2);
        if before.3 != after.3 {
            if before.3 == summary.next_at {
                summary.next_at = chunk.slots.iter().filter_map(|slot| slot.ti.next_at).min();
            } else {
                summary.next_at = summary.next_at.into_iter().chain(after.3).min();
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.matching(|_| true, |_| true)
    }

    pub(super) fn scheduled(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.matching(|summary| summary.scheduled > 0, is_scheduled)
    }

    pub(super) fn dispatched(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.matching(|summary| summary.dispatched > 0, is_dispatched)
    }

    pub(super) fn unfinished(&self) -> impl Iterator<Item = (usize, &Slot)> {
        self.matching(|summary| summary.unfinished > 0, is_unfinished)
    }

    /// Those that are due by `now`, the longest due first.
    pub(super) fn due(&self, now: Timestamp) -> Vec<usize> {
        let mut due: Vec<(Timestamp, usize)> = self
            .matching(move |summary| summary.next_at.is_some_and(|at| at <= now), |_| true)
            .filter_map(|(at, slot)| {
                slot.ti
                    .next_at
                    .filter(|next_at| *next_at <= now)
                    .map(|next_at| (next_at, at))
            })
            .collect();
        due.sort_unstable();
        due.into_iter().map(|(_, at)| at).collect()
    }

    pub(super) fn next_at(&self) -> Option<Timestamp> {
        self.chunks.iter().filter_map(|chunk| chunk.summary.next_at).min()
    }

    fn matching(
        &self,
        chunk_matches: impl Fn(&Summary) -> bool,
        matches: fn(&Ti) -> bool,
    ) -> impl Iterator<Item = (usize, &Slot)> {
        self.chunks
            .iter()
            .enumerate()
            .filter(move |(_, chunk)| chunk_matches(&chunk.summary))
            .flat_map(move |(at, chunk)| {
                let first = at * CHUNK;
                let slots = chunk.slots.iter().enumerate();
                slots.filter_map(move |(at, slot)| matches(&slot.ti).then_some((first + at, slot)))
            })
    }
}
