//! What is left of a step that would be too large: the rest is done in steps that follow, beside what happens to other runs.
//!
//! Nothing of it is stored. Which task instances may run, cannot run or are skipped follows from the rows, so a run that is taken over
//! is looked at as a whole ([`Event::Resume`](super::Event::Resume)).

use std::collections::VecDeque;
use std::sync::Arc;

use super::advance::Look;
use super::state::RunState;
use crate::state::DagRunState;

/// The number of looks that are kept together.
const TOGETHER: usize = 1_024;

/// What has still to be looked at, the oldest first. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Later {
    /// All nodes from this one on.
    sweep: Option<usize>,
    looks: VecDeque<Arc<[Look]>>,
    /// How many of the first of `looks` are done.
    done: usize,
}

impl Later {
    /// All nodes have to be looked at, and nothing besides.
    pub(super) fn all(&mut self) {
        *self = Self {
            sweep: Some(0),
            ..Self::default()
        };
    }

    /// Nothing is left.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sweep.is_none() && self.looks.is_empty()
    }

    /// The next; there are `nodes` nodes.
    pub(super) fn pop(&mut self, nodes: usize) -> Option<Look> {
        if let Some(at) = self.sweep {
            self.sweep = Some(at + 1).filter(|next| *next < nodes);
            if at < nodes {
                return Some(Look::Node(at));
            }
        }
        let first = self.looks.front()?;
        let look = first.get(self.done).copied();
        self.done += 1;
        if self.done >= first.len() {
            self.looks.pop_front();
            self.done = 0;
        }
        look
    }

    /// Adds looks behind all others.
    pub(super) fn extend(&mut self, looks: &mut VecDeque<Look>) {
        while !looks.is_empty() {
            let some = looks.drain(..looks.len().min(TOGETHER));
            self.looks.push_back(some.collect());
        }
    }
}

impl RunState {
    /// Keeps the run as it is while something is done to it in several steps: what runs may end, but nothing is let run, admitted or
    /// expanded. It is not stored.
    pub fn hold(&mut self) {
        self.held = true;
    }

    /// Lets the run go on. Give it [`Event::Resume`](super::Event::Resume) then.
    pub fn let_go(&mut self) {
        self.held = false;
    }

    /// Whether nothing of it may be admitted now.
    pub fn is_held(&self) -> bool {
        self.held || self.timing_out
    }

    /// Whether something is left to do: give it [`Event::GoOn`](super::Event::GoOn).
    pub fn has_more(&self) -> bool {
        self.state == DagRunState::Running
            && (self.timing_out || (!self.held && !(self.later.is_empty() && self.due_loops.is_empty())))
    }

    /// Whether the last step did not get to the end of what it was told to do to the run: give it the same event again.
    pub fn is_cut_short(&self) -> bool {
        self.cut_short
    }
}
