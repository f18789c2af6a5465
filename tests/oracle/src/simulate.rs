//! Cases that a simulation can express, driven by it: what it injects must end as in Airflow, too.

use std::sync::Arc;

use model::dag::{DagParts, Measure, Measured};
use model::simulate::{Assumptions, Choice, Fault, Injection, Scenario, Simulator, Which};
use model::{Dag, MapIndex, TaskIndex};

use crate::Mismatch;
use crate::case::{Case, Outcome};
use crate::compare;
use crate::compile::{Plan, compile};
use crate::drive::Observed;

/// Simulates a case and compares; nothing where a simulation cannot express it.
pub fn simulate(case: &Case) -> Option<Vec<Mismatch>> {
    let plan = compile(case).ok()?;
    let mut scenario = Scenario::default();
    let mut assumptions = Assumptions::default();
    for (at, bodies) in plan.outcomes.iter().enumerate() {
        let task = TaskIndex(u32::try_from(at).ok()?);
        let mapped = plan.dag.task(task)?.expand.is_some();
        for (body, outcome) in bodies.iter().enumerate() {
            let which = if mapped {
                Which::Index(MapIndex(i32::try_from(body).ok()?))
            } else {
                Which::Every
            };
            let fault = match outcome {
                Outcome::Success { .. } | Outcome::Branch { .. } => None,
                Outcome::ShortCircuitTrue | Outcome::ShortCircuitFalse => None,
                Outcome::Fail => Some(Fault::FailsAlways),
                Outcome::FailNoRetry => Some(Fault::FailsFatally),
                Outcome::Skip => Some(Fault::Skips),
                Outcome::FailThenSucceed { failures, .. } => Some(Fault::Fails(*failures)),
            };
            scenario
                .injections
                .extend(fault.map(|fault| Injection { task, which, fault }));
            match outcome {
                Outcome::Branch { follow } => {
                    let follow = follow.iter().map(|id| plan.dag.index_of(id));
                    let choice = Choice::Tasks(follow.collect::<Option<_>>()?);
                    scenario.choices.insert(task, choice);
                }
                Outcome::ShortCircuitFalse => {
                    scenario.choices.insert(task, Choice::Falsy);
                }
                Outcome::Success { emits: Some(emits) } | Outcome::FailThenSucceed { emits: Some(emits), .. } => {
                    assumptions.map_lengths.insert(task, *emits);
                }
                _ => {}
            }
        }
        // What each instance of a mapped task chooses or publishes is not the simulation's to say.
        if mapped && (scenario.choices.contains_key(&task) || assumptions.map_lengths.contains_key(&task)) {
            return None;
        }
    }
    let dag = measured(&plan);
    let outcome = Simulator::new(Arc::clone(&dag), assumptions).run(&scenario);
    let name = |task: TaskIndex, map_index: MapIndex| {
        let id = dag.task(task).map_or_else(String::new, |task| task.id.to_string());
        if map_index == MapIndex::UNMAPPED {
            id
        } else {
            format!("{id}[{}]", map_index.0)
        }
    };
    let observed = Observed {
        end: outcome
            .tis
            .iter()
            .map(|ti| (name(ti.task, ti.map_index), ti.state.to_string()))
            .collect(),
        tries: outcome
            .tis
            .iter()
            .map(|ti| (name(ti.task, ti.map_index), ti.tries))
            .collect(),
        run_state: outcome.state.to_string(),
        broken: outcome.hang.map(|hang| format!("{hang:?}")),
    };
    Some(compare(case, "simulation", &observed))
}

/// The DAG with what an executor would measure: the length of each list, and of an instance whether it published.
fn measured(plan: &Plan) -> Arc<Dag> {
    let mut parts = DagParts::from(Dag::clone(&plan.dag));
    for task in &mut parts.tasks {
        let what = if task.expand.is_some() {
            Measured::Present
        } else {
            Measured::Length { limit: u32::MAX }
        };
        task.measures = vec![Measure {
            key: "return_value".to_owned(),
            path: Vec::new(),
            what,
        }];
    }
    Arc::new(Dag::from(parts))
}
