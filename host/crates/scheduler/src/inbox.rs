//! What arrives at the loop. Everything comes through one channel; nothing here decides.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::human::Answer;
use model::run::RunState;
use model::{DagId, DagRunKey, DagRunState, DispatchNumber, MapIndex, TaskIndex, TaskInstanceState, Timestamp};
use ports::callback::CallbackChange;
use ports::control::{ControlError, NewPool, PoolPatch};
use ports::deploy::DagVersion;
use ports::executor::{ExecutorEvent, TryReport};
use ports::intent::{ClearWork, Intent, IntentWork, IntentWrite};
use ports::query::{PoolRow, QueryError, RunRow};
use ports::store::{NewRun, StoredRun};
use tokio::sync::oneshot;
use uuid::Uuid;

use crate::asker::Asker;
use crate::between::{BetweenMessage, Resolution, Triggered};
use crate::callback::flight::About;
use crate::large::Progress;
use crate::past::FoundBefore;
use crate::run::Place;
use crate::version::Version;

/// Where an answer goes, once what it says is committed.
pub(crate) type Reply<T> = oneshot::Sender<Result<T, ControlError>>;

/// A message to the loop.
pub(crate) enum Message {
    /// The executor says something of a dispatch.
    Executor(ExecutorEvent),
    /// There are marks that the loop did not expect.
    Marks,
    /// A change to a DAG or to a pool.
    Dag(DagOp),
    /// A new run.
    New(Box<NewRunOp>),
    /// A change to a run that exists.
    Run(DagRunKey, RunOp),
    /// A run that was asked for has been read (or not).
    Loaded(DagRunKey, Result<Option<Box<LoadedRun>>, QueryError>),
    /// Which run is before one that looks back.
    Before {
        dag_id: DagId,
        key: DagRunKey,
        /// The number of the look-up.
        asked: u64,
        found: Option<Box<FoundBefore>>,
    },
    /// The latest runs of a DAG.
    Recent {
        dag_id: DagId,
        /// The number of the look-up.
        asked: u64,
        runs: Vec<(DagRunKey, Timestamp, DagRunState)>,
    },
    /// Something that runs have to do with other runs has been read.
    Between(Box<BetweenMessage>),
    /// The lease could not be renewed: another scheduler has it.
    Fenced,
    /// Stop gracefully.
    Shutdown {
        /// How long running tries may go on.
        grace: Duration,
    },
    /// The executor has stopped; nothing follows from it.
    ExecutorStopped,
}

/// A run as it was stored, with its version.
pub(crate) struct LoadedRun {
    pub(crate) stored: StoredRun,
    pub(crate) state: RunState,
    /// Rows that are not there, and may be written later.
    pub(crate) lazy: BTreeSet<Place>,
    pub(crate) version: Arc<Version>,
}

/// A change to a DAG or to a pool.
pub(crate) enum DagOp {
    Deploy {
        version: Arc<DagVersion>,
        paused: Option<bool>,
        by: Asker,
        /// Whether the DAG was new.
        reply: Reply<bool>,
        /// Whether an existing DAG may be replaced.
        replace: bool,
    },
    SetPaused {
        dag_id: DagId,
        paused: bool,
        by: Asker,
        reply: Reply<()>,
    },
    Delete {
        /// What removes its rows once it is marked.
        intent: Arc<Intent>,
        by: Asker,
        reply: Reply<()>,
    },
    /// An intent begins.
    Promise {
        intent: Arc<Intent>,
        by: Asker,
        reply: Reply<()>,
    },
    /// A step of an intent.
    Intent { write: IntentWrite, reply: Reply<()> },
    /// A step of carrying a callback out.
    Callback {
        change: CallbackChange,
        /// What people are told of it.
        about: Arc<About>,
        /// None where it is the end of an attempt: nobody waits for that.
        reply: Option<Reply<()>>,
    },
    Pool {
        op: PoolOp,
        by: Asker,
        /// The pool as it is then, unless it is deleted.
        reply: Reply<Option<PoolRow>>,
    },
}

/// What to do to a pool.
pub(crate) enum PoolOp {
    Create(NewPool),
    Change { name: String, patch: PoolPatch },
    Delete { name: String },
}

/// A new run, complete but for its state.
pub(crate) struct NewRunOp {
    pub(crate) new: NewRun,
    pub(crate) state: RunState,
    pub(crate) version: Arc<Version>,
    pub(crate) by: Asker,
    pub(crate) reply: Reply<RunRow>,
}

/// A change to a run that exists.
pub(crate) enum RunOp {
    /// Clears what fits when its turn comes: there may be other instances by then than whoever asked has seen.
    Clear {
        work: Arc<ClearWork>,
        /// Names the intent that it becomes where the run is large.
        promise: Uuid,
        by: Asker,
        reply: Reply<()>,
    },
    /// Clears, sets or ends what an intent says, or some of it where the run is large. With the last of it the run counts as dealt with.
    CarryOut {
        intent: Uuid,
        work: Arc<IntentWork>,
        /// Who asked for it.
        user: String,
        from: Progress,
        /// Where to go on; none where nothing is left.
        reply: Reply<Option<Progress>>,
    },
    SetState {
        state: DagRunState,
        promise: Uuid,
        by: Asker,
        reply: Reply<()>,
    },
    SetTaskInstanceState {
        work: Arc<ClearWork>,
        state: TaskInstanceState,
        promise: Uuid,
        by: Asker,
        reply: Reply<()>,
    },
    Respond {
        task: TaskIndex,
        map_index: MapIndex,
        at: Timestamp,
        /// The answer, or why it is refused if it comes to that.
        verdict: Result<Answer, ControlError>,
        by: Asker,
        reply: Reply<()>,
    },
    Note {
        note: String,
        by: Asker,
        reply: Reply<()>,
    },
    /// Notes something about task instances.
    TaskInstanceNote {
        work: Arc<ClearWork>,
        note: String,
        promise: Uuid,
        by: Asker,
        reply: Reply<()>,
    },
    Delete {
        by: Asker,
        reply: Reply<()>,
    },
}

impl RunOp {
    /// Answers that it cannot be done.
    pub(crate) fn refuse(self, error: ControlError) {
        if let Self::CarryOut { reply, .. } = self {
            let _ = reply.send(Err(error));
            return;
        }
        let (Self::Clear { reply, .. }
        | Self::SetState { reply, .. }
        | Self::SetTaskInstanceState { reply, .. }
        | Self::Respond { reply, .. }
        | Self::Note { reply, .. }
        | Self::TaskInstanceNote { reply, .. }
        | Self::Delete { reply, .. }) = self
        else {
            return;
        };
        let _ = reply.send(Err(error));
    }
}

impl DagOp {
    /// Answers that it cannot be done.
    pub(crate) fn refuse(self, error: ControlError) {
        match self {
            Self::Deploy { reply, .. } => drop(reply.send(Err(error))),
            Self::Pool { reply, .. } => drop(reply.send(Err(error))),
            Self::Callback { reply, .. } => drop(reply.map(|reply| reply.send(Err(error)))),
            Self::SetPaused { reply, .. }
            | Self::Delete { reply, .. }
            | Self::Promise { reply, .. }
            | Self::Intent { reply, .. } => {
                drop(reply.send(Err(error)));
            }
        }
    }

    /// Whether somebody waits for the answer: not so where an attempt of a callback has ended, which is a fact and not a request.
    pub(crate) fn is_request(&self) -> bool {
        !matches!(self, Self::Callback { reply: None, .. })
    }

    /// Answers that it is done. What becomes of a pool is answered where it is known.
    pub(crate) fn confirm(self, new_dag: bool) {
        match self {
            Self::Deploy { reply, .. } => drop(reply.send(Ok(new_dag))),
            Self::Pool { .. } => {}
            Self::Callback { reply, .. } => drop(reply.map(|reply| reply.send(Ok(())))),
            Self::SetPaused { reply, .. }
            | Self::Delete { reply, .. }
            | Self::Promise { reply, .. }
            | Self::Intent { reply, .. } => {
                drop(reply.send(Ok(())));
            }
        }
    }
}

/// Work for one run, in the order of arrival.
pub(crate) enum Item {
    /// The run itself.
    New(Box<NewRunOp>),
    /// An executor acknowledged a dispatch.
    Started {
        task: TaskIndex,
        map_index: MapIndex,
        dispatch: DispatchNumber,
        at: Timestamp,
    },
    /// An executor has a dispatch, which goes on.
    Heard {
        task: TaskIndex,
        map_index: MapIndex,
        dispatch: DispatchNumber,
        at: Timestamp,
    },
    /// A dispatch ended.
    Finished(Box<TryReport>),
    /// A dispatch ended by asking for a run of another DAG.
    Triggered(Box<Triggered>),
    /// What a deferred try waits for has happened.
    Resolved(Box<Resolution>),
    /// The executor gave a dispatch back.
    HandedBack {
        task: TaskIndex,
        map_index: MapIndex,
        dispatch: DispatchNumber,
    },
    /// Something of the run is due.
    Timer,
    /// Found at start: a dispatch of the last process.
    Lost {
        task: TaskIndex,
        map_index: MapIndex,
        dispatch: DispatchNumber,
        acknowledged: bool,
    },
    /// Found at start: nothing happened, but its rows may lag behind its rules.
    Recovered,
    /// What the run before allows is known, or has changed.
    Past,
    /// A request.
    Op(RunOp),
}

impl Item {
    /// Whether it can wait for something else to make a tick.
    pub(crate) fn is_soft(&self) -> bool {
        matches!(self, Self::Started { .. } | Self::Heard { .. })
    }

    /// Whether somebody waits for the answer.
    pub(crate) fn is_request(&self) -> bool {
        matches!(self, Self::New(_) | Self::Op(_))
    }

    /// Answers that it cannot be done; work that nobody waits for is dropped.
    pub(crate) fn refuse(self, error: ControlError) {
        match self {
            Self::New(op) => drop(op.reply.send(Err(error))),
            Self::Op(op) => op.refuse(error),
            Self::Started { .. }
            | Self::Heard { .. }
            | Self::Finished(_)
            | Self::Triggered(_)
            | Self::Resolved(_)
            | Self::HandedBack { .. }
            | Self::Timer
            | Self::Lost { .. }
            | Self::Recovered
            | Self::Past => {}
        }
    }
}
