//! The report for programs. It holds nothing that differs from one call to the next.

use model::TaskIndex;
use model::simulate::{Hang, Outcome, Played, Scenario};
use serde_json::{Value, json};

use super::{Simulated, state};

pub(super) fn value(simulated: &Simulated) -> Value {
    let report = &simulated.report;
    let names = |tasks: &[TaskIndex]| tasks.iter().map(|task| simulated.name(*task)).collect::<Vec<_>>();
    let played = |played: &Played| {
        json!({
            "scenario": scenario(simulated, &played.scenario),
            "run_state": state(played.state, played.hang.is_some()),
            "run_time": played.run_time.as_secs_f64(),
            "not_run": names(&played.not_run),
        })
    };
    let singles = report.singles.iter().map(|single| {
        let mut value = played(&single.played);
        value["task_id"] = json!(simulated.name(single.task));
        value["failure"] = json!(single.fault.word());
        value["task_state"] = json!(single.task_state);
        value["tries"] = json!(single.tries);
        value
    });
    let hidden = |unnoticed: bool| {
        let found = report
            .hidden
            .iter()
            .filter(move |hidden| hidden.unnoticed() == unnoticed);
        let found = found.map(|hidden| {
            json!({
                "task_id": simulated.name(hidden.task),
                "failures": hidden.faults.iter().map(|fault| fault.word()).collect::<Vec<_>>(),
                "why": hidden.why(&simulated.dag),
                "advice": hidden.advice(&simulated.dag),
                "scenario": scenario(simulated, &hidden.scenario),
                "count": hidden.count,
            })
        });
        found.collect::<Vec<_>>()
    };
    let hangs = report.hangs.iter().map(|(of, hang)| {
        let (why, task) = match hang {
            Hang::Person(task) => ("person", Some(simulated.name(*task))),
            Hang::Capacity(task) => ("capacity", Some(simulated.name(*task))),
            Hang::Past(task) => ("past", Some(simulated.name(*task))),
            Hang::Endless => ("endless", None),
        };
        let reason = simulated.simulator.why(*hang);
        json!({"scenario": scenario(simulated, of), "why": why, "task_id": task, "reason": reason})
    });
    let path = report.happy.critical_path.iter().map(|stretch| {
        json!({
            "task_id": simulated.name(stretch.task),
            "map_index": stretch.map_index,
            "from": stretch.from.as_secs_f64(),
            "to": stretch.to.as_secs_f64(),
        })
    });
    let random = &report.random;
    let mut happy = outcome(simulated, &Scenario::default(), &report.happy);
    happy["critical_path"] = path.collect();
    let waits = report.happy.waits.iter().map(|(task, wait)| {
        json!({
            "task_id": simulated.name(*task),
            "seconds": wait.as_secs_f64(),
            "reason": simulated.simulator.slots(*task),
        })
    });
    happy["waits_for_slots"] = waits.collect();
    json!({
        "dag_id": simulated.dag.id,
        "seed": simulated.seed,
        "happy": happy,
        "requested": simulated.requested.as_ref().map(|(scenario, of)| outcome(simulated, scenario, of)),
        "choices": report.choices.iter().map(played).collect::<Vec<_>>(),
        "single_failures": singles.collect::<Vec<_>>(),
        "run_before_failed": report.past.as_ref().map(played),
        "random": {
            "count": random.count,
            "success": random.success,
            "unnoticed": random.unnoticed,
            "failed": random.failed,
            "never_ends": random.hang,
        },
        "unnoticed": hidden(true),
        "handled": hidden(false),
        "skipped_instead": names(&report.soft),
        "no_second_try": names(&report.no_second_try),
        "no_second_host": names(&report.no_second_host),
        "never_ends": hangs.collect::<Vec<_>>(),
        "deadlocks": report.deadlocks.iter().map(|of| scenario(simulated, of)).collect::<Vec<_>>(),
        "never_ran": names(&report.never_ran),
        "scenarios": report.played,
        "left_out": report.left_out,
    })
}

fn scenario(simulated: &Simulated, scenario: &Scenario) -> String {
    scenario.in_words(&simulated.dag)
}

fn outcome(simulated: &Simulated, of: &Scenario, outcome: &Outcome) -> Value {
    let tis = outcome.tis.iter().map(|ti| {
        json!({
            "task_id": simulated.name(ti.task),
            "map_index": ti.map_index,
            "state": ti.state,
            "cause": ti.cause,
            "tries": ti.tries,
        })
    });
    json!({
        "scenario": scenario(simulated, of),
        "run_state": state(outcome.state, outcome.hang.is_some()),
        "run_time": outcome.run_time.as_secs_f64(),
        "task_instances": tis.collect::<Vec<_>>(),
    })
}
