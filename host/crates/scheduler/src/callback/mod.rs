//! Callbacks: noted where a try or a run ends, committed with that, and carried out afterwards.
//!
//! `due` turns what the model says into rows of the tick's own transaction. `carry` reads from the database what is left to do, a few at a
//! time, and gives it to the executor: after a crash as after any commit. Two steps are committed for each attempt: that it begins
//! (before it does, so that attempts are counted whatever happens) and how it ended. `flight` holds the attempts that are out.

pub(crate) mod carry;
mod due;
pub(crate) mod flight;
mod report;

pub(crate) use report::ended;
