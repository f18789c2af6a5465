//! What the tests share: a clock, DAGs, executors, a store with faults, and a scheduler on top of them.

mod clock;
mod dags;
mod executor;
mod faulty;
mod random_dag;
mod rig;
mod unreliable;

pub(crate) use clock::TokioClock;
pub(crate) use dags::DagBuilder;
pub(crate) use executor::{Reply, TestExecutor, failure};
pub(crate) use faulty::{BAD_CHECKPOINT, Fault, FaultyStore};
pub(crate) use random_dag::{CHILD, NARROW, child_dag, random_dag};
pub(crate) use rig::{Rig, RigBuilder, request, run_id};
pub(crate) use unreliable::UnreliableExecutor;
