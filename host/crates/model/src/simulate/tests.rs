//! Each fault by itself, what is assumed, what is found, and that every simulation ends.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use proptest::prelude::*;

use super::*;
use crate::cause::Cause;
use crate::dag::{
    Combine, Dag, Expansion, Group, GroupIndex, Loop, MapSource, MapValues, Measure, Measured, Repeat, RetryPolicy,
    Task, TaskKind, TaskRole,
};
use crate::human::{HumanStep, OnTimeout};
use crate::id::{MapIndex, TaskIndex};
use crate::run::testing::{dag, task};
use crate::sensor::Sensor;
use crate::state::{DagRunState, TaskInstanceState};
use crate::trigger_rule::TriggerRule;
use crate::work::Work;

const A: TaskIndex = TaskIndex(0);
const B: TaskIndex = TaskIndex(1);
const C: TaskIndex = TaskIndex(2);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn retried(id: &str, upstream: &[u32], retries: u32) -> Task {
    Task {
        retry: RetryPolicy {
            retries,
            delay: seconds(10),
            ..RetryPolicy::default()
        },
        ..task(id, upstream)
    }
}

/// `a` with one retry, then `b`, then `c`.
fn chain() -> Arc<Dag> {
    dag(vec![retried("a", &[], 1), task("b", &[0]), task("c", &[1])], |_| {})
}

fn inject(task: TaskIndex, fault: Fault) -> Scenario {
    Scenario {
        injections: vec![Injection {
            task,
            which: Which::First,
            fault,
        }],
        ..Scenario::default()
    }
}

fn simulator(dag: &Arc<Dag>) -> Simulator {
    Simulator::new(Arc::clone(dag), Assumptions::default())
}

fn states(outcome: &Outcome) -> Vec<&'static str> {
    outcome.tis.iter().map(|ti| ti.state.as_str()).collect()
}

#[track_caller]
fn ends(dag: &Arc<Dag>, scenario: &Scenario, state: &str, tis: &[&str], tries: &[u32], time: Duration) {
    let outcome = simulator(dag).run(scenario);
    let found: Vec<u32> = outcome.tis.iter().map(|ti| ti.tries).collect();
    assert_eq!(
        (outcome.state.as_str(), states(&outcome), found, outcome.run_time),
        (state, tis.to_vec(), tries.to_vec(), time)
    );
}

#[test]
fn nothing_goes_wrong() {
    let all = ["success"; 3];
    ends(&chain(), &Scenario::default(), "success", &all, &[1, 1, 1], seconds(3));
}

#[test]
fn each_fault_does_what_it_says() {
    let (dag, all) = (chain(), ["success"; 3]);
    let lost = ["failed", "upstream_failed", "upstream_failed"];
    let limit = dag.tasks[0].limits.timeout;
    ends(
        &dag,
        &inject(A, Fault::Fails(1)),
        "success",
        &all,
        &[2, 1, 1],
        seconds(14),
    );
    ends(
        &dag,
        &inject(A, Fault::Fails(2)),
        "failed",
        &lost,
        &[2, 0, 0],
        seconds(12),
    );
    ends(
        &dag,
        &inject(A, Fault::FailsAlways),
        "failed",
        &lost,
        &[2, 0, 0],
        seconds(12),
    );
    ends(
        &dag,
        &inject(A, Fault::FailsFatally),
        "failed",
        &lost,
        &[1, 0, 0],
        seconds(1),
    );
    ends(
        &dag,
        &inject(A, Fault::TimesOut),
        "failed",
        &lost,
        &[2, 0, 0],
        limit * 2 + seconds(10),
    );
    let half = Duration::from_millis(500);
    ends(
        &dag,
        &inject(A, Fault::Lost),
        "success",
        &all,
        &[1, 1, 1],
        seconds(3) + half,
    );
    // Four dispatches of each of two tries are lost.
    ends(
        &dag,
        &inject(A, Fault::LostAlways),
        "failed",
        &lost,
        &[2, 0, 0],
        half * 8 + seconds(10),
    );
    ends(
        &dag,
        &inject(A, Fault::Skips),
        "success",
        &["skipped"; 3],
        &[1, 0, 0],
        seconds(1),
    );
    let outcome = simulator(&dag).run(&inject(A, Fault::LostAlways));
    assert_eq!(outcome.tis[0].cause, Some(Cause::InfrastructureLost));
    assert_eq!(outcome.tis[0].dispatches, 8);
}

#[test]
fn what_is_assumed_to_take_too_long_times_out_by_itself() {
    let assumptions = Assumptions {
        task_times: BTreeMap::from([(B, seconds(10_000))]),
        ..Assumptions::default()
    };
    let outcome = Simulator::new(chain(), assumptions).run(&Scenario::default());
    assert_eq!(states(&outcome), ["success", "failed", "upstream_failed"]);
    assert_eq!(outcome.tis[1].cause, Some(Cause::TimedOut));
}

#[test]
fn slots_are_waited_for_and_the_critical_path_is_what_took_long() {
    let tasks = vec![task("a", &[]), task("b", &[]), task("c", &[0, 1])];
    let dag = dag(tasks, |_| {});
    let assumptions = Assumptions {
        task_times: BTreeMap::from([(B, seconds(5))]),
        ..Assumptions::default()
    };
    let together = Simulator::new(Arc::clone(&dag), assumptions.clone()).trace(&Scenario::default());
    assert_eq!(together.run_time, seconds(6));
    let path: Vec<_> = together
        .critical_path
        .iter()
        .map(|at| (at.task, at.from, at.to))
        .collect();
    assert_eq!(path, [(B, seconds(0), seconds(5)), (C, seconds(5), seconds(6))]);
    let one_by_one = Assumptions {
        parallelism: 1,
        ..assumptions.clone()
    };
    let outcome = Simulator::new(Arc::clone(&dag), one_by_one).run(&Scenario::default());
    assert_eq!(outcome.run_time, seconds(7));
    let no_slots = Assumptions {
        pools: BTreeMap::from([("default_pool".to_owned(), 0)]),
        ..assumptions
    };
    let outcome = Simulator::new(dag, no_slots).run(&Scenario::default());
    assert_eq!(
        (outcome.state, outcome.hang),
        (DagRunState::Running, Some(Hang::Capacity(A)))
    );
}

fn branching() -> Arc<Dag> {
    let gate = Task {
        kind: TaskKind::Branch {
            labels: IndexMap::from([("left".to_owned(), vec![B]), ("right".to_owned(), vec![C])]),
        },
        ..task("gate", &[])
    };
    dag(vec![gate, task("left", &[0]), task("right", &[0])], |_| {})
}

#[test]
fn every_label_is_played_and_faults_of_what_only_it_leads_to() {
    let report = sweep(&simulator(&branching()), &Sweep::default());
    assert_eq!(states(&report.happy), ["success", "success", "skipped"]);
    assert_eq!(report.choices.len(), 1);
    assert_eq!(report.choices[0].not_run, [B]);
    assert_eq!(report.never_ran, []);
    let right = report
        .singles
        .iter()
        .find(|single| (single.task, single.fault) == (C, Fault::FailsAlways));
    let right = right.expect("it was reached by the other label");
    assert_eq!((right.played.state, right.tries), (DagRunState::Failed, 1));
    assert_eq!(right.played.scenario.choices[&A], Choice::Label("right".to_owned()));
}

/// `work` fails, and `report` runs whatever happened.
fn hiding(rule: TriggerRule) -> Arc<Dag> {
    let last = Task {
        trigger_rule: rule,
        ..task("report", &[0])
    };
    dag(vec![task("work", &[]), last], |_| {})
}

#[test]
fn a_failure_that_an_all_done_leaf_hides_is_told() {
    let dag = hiding(TriggerRule::AllDone);
    let report = sweep(&simulator(&dag), &Sweep::default());
    let [hidden] = report.hidden.as_slice() else {
        panic!("{:?}", report.hidden)
    };
    assert_eq!((hidden.task, &hidden.by), (A, &Hides::Passed(vec![B])));
    assert!(
        hidden.unnoticed() && hidden.faults.contains(&Fault::Fails(1)),
        "{:?}",
        hidden.faults
    );
    assert!(hidden.why(&dag).contains("`report` (all_done)"), "{}", hidden.why(&dag));
    assert!(report.random.unnoticed > 0);
    // Its own failure is seen.
    assert_eq!(report.no_second_try, [B]);
    let seen = sweep(&simulator(&hiding(TriggerRule::NoneFailed)), &Sweep::default());
    assert_eq!(seen.hidden, []);
    assert_eq!(seen.no_second_try, [A, B]);
}

#[test]
fn a_failure_that_calls_somebody_is_noticed() {
    let called = |event| {
        let mut dag = Dag::clone(&hiding(TriggerRule::AllDone));
        dag.tasks[0].callbacks = vec![crate::run::testing::notify(event, "it failed")];
        let dag = Arc::new(dag);
        sweep(&simulator(&dag), &Sweep::default())
    };
    let report = called(crate::callback::CallbackEvent::Failure);
    let [hidden] = report.hidden.as_slice() else {
        panic!("{:?}", report.hidden)
    };
    assert_eq!((&hidden.by, hidden.unnoticed()), (&Hides::Told, false));
    assert_eq!(report.random.unnoticed, 0);
    let report = called(crate::callback::CallbackEvent::Retry);
    assert!(report.hidden[0].unnoticed(), "only the last failure counts");
}

#[test]
fn a_failure_with_a_handler_is_told_apart() {
    let dag = hiding(TriggerRule::OneFailed);
    let report = sweep(&simulator(&dag), &Sweep::default());
    let [hidden] = report.hidden.as_slice() else {
        panic!("{:?}", report.hidden)
    };
    assert_eq!(hidden.by, Hides::Handled(vec![B]));
    assert!(!hidden.unnoticed());
    assert_eq!(report.never_ran, [], "the handler runs when something fails");
    let twice = report
        .singles
        .iter()
        .find(|single| (single.task, single.fault) == (B, Fault::FailsAlways));
    let twice = twice.expect("the handler's own failure is played too");
    assert_eq!(twice.played.state, DagRunState::Failed);
    assert_eq!(twice.played.scenario.injections.len(), 2);
}

#[test]
fn a_failed_teardown_is_hidden_unless_it_counts() {
    for counts in [false, true] {
        let setup = Task {
            role: TaskRole::Setup,
            ..task("create", &[])
        };
        let teardown = Task {
            role: TaskRole::Teardown {
                on_failure_fail_dagrun: counts,
            },
            trigger_rule: TriggerRule::AllDoneSetupSuccess,
            ..task("delete", &[0, 1])
        };
        let dag = dag(vec![setup, task("work", &[0]), teardown], |_| {});
        let report = sweep(&simulator(&dag), &Sweep::default());
        let hidden: Vec<_> = report
            .hidden
            .iter()
            .map(|hidden| (hidden.task, hidden.by.clone()))
            .collect();
        if counts {
            // Then it is the only leaf, and hides the work.
            assert_eq!(hidden, [(B, Hides::Passed(vec![C]))]);
        } else {
            assert_eq!(hidden, [(C, Hides::Teardown)]);
        }
    }
}

#[test]
fn other_dags_take_the_time_that_is_assumed() {
    let with = |timeout| {
        let step = crate::between::TriggerDag {
            dag: Some(crate::id::DagId::new("other").unwrap()),
            allowed: Vec::new(),
            if_exists: crate::between::IfExists::Fail,
            wait: true,
            allowed_states: vec![DagRunState::Success],
            result: None,
            timeout,
        };
        let solve = Task {
            work: Work::TriggerDag(Box::new(step)),
            ..task("solve", &[])
        };
        dag(vec![solve, task("use", &[0])], |_| {})
    };
    // Longer than the wall time of a guest.
    let play = |dag: &Arc<Dag>| {
        let mut assumptions = Assumptions::default();
        assumptions.task_times.insert(A, seconds(7_200));
        sweep(&Simulator::new(Arc::clone(dag), assumptions), &Sweep::default())
    };
    let forever = with(None);
    let report = play(&forever);
    assert_eq!(
        (report.happy.state, report.happy.run_time),
        (DagRunState::Success, seconds(7_201))
    );
    assert!(!Fault::TimesOut.suits(&forever.tasks[0]) && !Fault::Skips.suits(&forever.tasks[0]));
    let bounded = with(Some(seconds(60)));
    assert_eq!(play(&bounded).happy.state, DagRunState::Failed);
    assert!(Fault::TimesOut.suits(&bounded.tasks[0]));
}

#[test]
fn people_answer_in_time_or_never() {
    let ask = |timeout, on_timeout| {
        let step = HumanStep {
            options: vec!["Approve".to_owned(), "Reject".to_owned()],
            defaults: None,
            multiple: false,
            params: IndexMap::new(),
            assigned_users: Vec::new(),
            timeout,
            on_timeout,
            approval: Some(crate::human::Approval { fail_on_reject: false }),
            branches: false,
        };
        let ask = Task {
            work: Work::Human(Box::new(step)),
            kind: TaskKind::ShortCircuit {
                ignore_downstream_trigger_rules: false,
            },
            ..task("ask", &[])
        };
        dag(vec![ask, task("go", &[0])], |_| {})
    };
    let forever = ask(None, OnTimeout::Fail);
    let report = sweep(&simulator(&forever), &Sweep::default());
    assert_eq!(report.happy.run_time, seconds(61));
    assert_eq!(report.hangs, [(inject(A, Fault::TimesOut), Hang::Person(A))]);
    assert_eq!(report.choices[0].not_run, [B], "{:?}", report.choices);
    assert_eq!(report.choices[0].scenario.in_words(&forever), "ask → Reject");
    let skipping = ask(Some(seconds(100)), OnTimeout::Skip);
    let report = sweep(&simulator(&skipping), &Sweep::default());
    assert_eq!((report.hangs, report.soft), (Vec::new(), vec![A]));
    // Nobody answers within a second.
    let hasty = ask(Some(seconds(1)), OnTimeout::Fail);
    let outcome = simulator(&hasty).run(&Scenario::default());
    assert_eq!(states(&outcome), ["failed", "upstream_failed"]);
}

#[test]
fn sensors_are_poked_and_give_up() {
    let sensor = |soft_fail| {
        let sensor = Task {
            sensor: Some(Sensor {
                poke_interval: Some(seconds(30)),
                soft_fail,
                ..Sensor::default()
            }),
            ..task("wait", &[])
        };
        dag(vec![sensor, task("go", &[0])], |_| {})
    };
    let hard = sensor(false);
    // Two pokes say "not yet".
    ends(
        &hard,
        &Scenario::default(),
        "success",
        &["success"; 2],
        &[1, 1],
        seconds(64),
    );
    let outcome = simulator(&hard).run(&inject(A, Fault::TimesOut));
    assert_eq!(states(&outcome), ["failed", "upstream_failed"]);
    assert_eq!(outcome.run_time, Sensor::default().timeout + seconds(1));
    assert!(outcome.tis[0].dispatches < 30, "a week of pokes is cut short");
    let report = sweep(&simulator(&sensor(true)), &Sweep::default());
    assert_eq!((report.soft, report.hidden), (vec![A], Vec::new()));
}

fn xcom_of(task: TaskIndex) -> Expansion {
    Expansion {
        how: Combine::Product,
        sources: vec![MapSource {
            name: "x".to_owned(),
            values: MapValues::Xcom {
                task,
                key: "return_value".to_owned(),
                path: Vec::new(),
                measure: 0,
            },
        }],
        limit: 100,
    }
}

fn measure(what: Measured) -> Measure {
    Measure {
        key: "return_value".to_owned(),
        path: Vec::new(),
        what,
    }
}

#[test]
fn mapped_tasks_are_as_many_as_assumed_and_one_of_them_fails() {
    let list = Task {
        measures: vec![measure(Measured::Length { limit: 100 })],
        ..task("list", &[])
    };
    let each = Task {
        expand: Some(xcom_of(A)),
        ..task("each", &[0])
    };
    let dag = dag(vec![list, each], |_| {});
    let assumptions = |length| Assumptions {
        map_lengths: BTreeMap::from([(A, length)]),
        ..Assumptions::default()
    };
    let run = |length, scenario: &Scenario| Simulator::new(Arc::clone(&dag), assumptions(length)).run(scenario);
    assert_eq!(run(5, &Scenario::default()).of(B).count(), 5);
    assert_eq!(
        run(1_000, &Scenario::default()).of(B).count(),
        100,
        "no list is longer than it may be"
    );
    assert_eq!(
        run(0, &Scenario::default()).state_of(B),
        Some(TaskInstanceState::Skipped)
    );
    let failed = |which| {
        let injections = vec![Injection {
            task: B,
            which,
            fault: Fault::FailsAlways,
        }];
        let scenario = Scenario {
            injections,
            ..Scenario::default()
        };
        let outcome = run(4, &scenario);
        assert_eq!(outcome.state, DagRunState::Failed);
        let failed = outcome.of(B).filter(|ti| ti.state == TaskInstanceState::Failed);
        failed.map(|ti| ti.map_index.0).collect::<Vec<_>>()
    };
    assert_eq!(failed(Which::First), [0]);
    assert_eq!(failed(Which::Every), [0, 1, 2, 3]);
    assert_eq!(failed(Which::Index(MapIndex(2))), [2]);
}

#[test]
fn loops_go_round_until_their_condition_holds() {
    let step = Task {
        group: Some(GroupIndex(0)),
        measures: vec![measure(Measured::Truth {
            expression: "true".to_owned(),
        })],
        ..task("solve.step", &[])
    };
    let dag = dag(vec![step, task("after", &[0])], |parts| {
        parts.groups = vec![Group {
            id: "solve".to_owned(),
            parent: None,
            tooltip: None,
            repeat: Some(Repeat::Loop(Loop {
                max: 4,
                until: A,
                measure: 0,
            })),
        }];
    });
    let iterations = |iterations| {
        let assumptions = Assumptions {
            iterations,
            ..Assumptions::default()
        };
        let outcome = Simulator::new(Arc::clone(&dag), assumptions).trace(&Scenario::default());
        assert_eq!(outcome.state, DagRunState::Success);
        assert_eq!(
            outcome.critical_path.len(),
            outcome.tis.len(),
            "{:?}",
            outcome.critical_path
        );
        outcome.of(A).count()
    };
    assert_eq!(
        [iterations(0), iterations(1), iterations(3), iterations(9)],
        [1, 1, 3, 4]
    );
}

#[test]
fn the_same_seed_gives_the_same_report_and_work_is_bounded() {
    let dag = branching();
    let report = |seed, work| {
        let options = Sweep {
            seed,
            random: 200,
            work,
        };
        sweep(&simulator(&dag), &options)
    };
    let (one, other) = (report(7, u64::MAX), report(7, u64::MAX));
    assert_eq!(format!("{one:?}"), format!("{other:?}"));
    assert_ne!(one.random, report(8, u64::MAX).random);
    let short = report(7, 8 * 30);
    assert_eq!((short.played, short.left_out), (30, one.played - 30));
}

#[test]
fn a_thousand_retries_stay_within_the_work_bound() {
    let tasks = vec![
        retried("list", &[], 1_000),
        Task {
            expand: Some(xcom_of(A)),
            ..retried("each", &[0], 1_000)
        },
        retried("last", &[1], 1_000),
    ];
    let tasks = tasks.into_iter().map(|task| Task {
        measures: vec![measure(Measured::Length { limit: 1_000 })],
        ..task
    });
    let dag = dag(tasks.collect(), |_| {});
    let assumptions = Assumptions {
        map_length: 100,
        ..Assumptions::default()
    };
    let work = 100_000;
    let began = crate::run::testing::cpu_time();
    let options = Sweep {
        work,
        ..Sweep::default()
    };
    let report = sweep(&Simulator::new(dag, assumptions), &options);
    let took = crate::run::testing::cpu_time().checked_sub(began).unwrap();
    assert!(report.events <= work * 4 + 20_000, "{} events, {took:?}", report.events);
    assert!(report.left_out > 500 && report.played > 20, "{report:?}");
    assert!(
        report.hangs.is_empty(),
        "what is broken off is no hang: {:?}",
        report.hangs
    );
    assert!(took < seconds(120), "{took:?}");
}

#[test]
fn a_run_whose_run_before_failed_waits_and_says_for_what() {
    let mut add = retried("add", &[], 0);
    add.past = crate::past::Past::DependsOnPast;
    let dag = dag(vec![add, task("publish", &[0]), task("alone", &[])], |dag| {
        dag.max_active_runs = 1;
    });
    let report = sweep(&simulator(&dag), &Sweep::default());
    assert_eq!(report.happy.state, DagRunState::Success);
    let past = report.past.unwrap();
    assert_eq!((past.hang, past.not_run.as_slice()), (Some(Hang::Past(A)), &[A, B][..]));
    assert_eq!(past.scenario.in_words(&dag), "the run before failed");
    assert_eq!(report.hangs, [(past.scenario, Hang::Past(A))]);
    let why = simulator(&dag).why(Hang::Past(A));
    assert!(
        why.starts_with("add waits until it has succeeded, or was skipped, in the run before")
            && why.ends_with("where there is no other (`max_active_runs: 1`)"),
        "{why}"
    );
    assert!(sweep(&simulator(&chain()), &Sweep::default()).past.is_none());
}

#[test]
fn what_waits_for_slots_says_for_which() {
    let big = Task {
        pool: "gpu".to_owned(),
        pool_slots: 3,
        ..task("big", &[])
    };
    let small = Task {
        pool: "gpu".to_owned(),
        ..task("small", &[])
    };
    let dag = dag(vec![small, big], |_| {});
    let play = |slots| {
        let assumptions = Assumptions {
            pools: BTreeMap::from([("gpu".to_owned(), slots)]),
            ..Assumptions::default()
        };
        let simulator = Simulator::new(Arc::clone(&dag), assumptions);
        let outcome = simulator.trace(&Scenario::default());
        (
            outcome.waits,
            outcome.hang.map(|hang| simulator.why(hang)),
            simulator.slots(B),
        )
    };
    let (waits, hang, words) = play(3);
    assert_eq!((waits, hang), (vec![(B, seconds(1))], None));
    assert!(
        words.starts_with("it needs 3 slots of pool `gpu`, which has 3,"),
        "{words}"
    );
    let (waits, hang, _) = play(2);
    assert!(waits.is_empty());
    assert_eq!(
        hang.as_deref(),
        Some(
            "big waits for slots that there will never be: it needs 3 slots of pool `gpu`, which has 2 in all: it waits until the pool gets \
             more"
        )
    );
    assert_eq!(play(4).0, []);
}

#[test]
fn faults_have_words() {
    for fault in Fault::SINGLE {
        assert_eq!(Fault::from_word(&fault.word()), Some(*fault));
    }
    assert_eq!(Fault::from_word("3"), Some(Fault::Fails(3)));
    assert_eq!((Fault::from_word("0"), Fault::from_word("never")), (None, None));
}

fn random_dag() -> impl Strategy<Value = Arc<Dag>> {
    let one = (any::<u8>(), 0..13_usize, 0..8_u8, 0..3_u32, any::<bool>());
    (prop::collection::vec(one, 0..9), any::<bool>()).prop_map(|(specs, timeout)| {
        let tasks: Vec<Task> = specs
            .into_iter()
            .enumerate()
            .map(|(at, (edges, rule, kind, retries, flag))| {
                let upstream: Vec<u32> = (0_u32..).take(at).filter(|up| edges >> up & 1 == 1).collect();
                let plain = retried(&format!("t{at}"), &upstream, retries);
                let rule = TriggerRule::ALL[rule];
                let step = HumanStep {
                    options: vec!["OK".to_owned()],
                    defaults: flag.then(|| vec!["OK".to_owned()]),
                    multiple: false,
                    params: IndexMap::new(),
                    assigned_users: Vec::new(),
                    timeout: Some(seconds(100)),
                    on_timeout: OnTimeout::ALL[usize::from(edges) % 3],
                    approval: None,
                    branches: false,
                };
                Task {
                    trigger_rule: rule,
                    role: match rule {
                        TriggerRule::AllDoneSetupSuccess => TaskRole::Teardown {
                            on_failure_fail_dagrun: flag,
                        },
                        _ if flag && at < 2 => TaskRole::Setup,
                        _ => TaskRole::Work,
                    },
                    kind: match kind {
                        0 => TaskKind::Branch {
                            labels: IndexMap::from([("none".to_owned(), Vec::new())]),
                        },
                        1 => TaskKind::ShortCircuit {
                            ignore_downstream_trigger_rules: flag,
                        },
                        _ => TaskKind::Plain,
                    },
                    work: if kind == 2 {
                        Work::Human(Box::new(step))
                    } else {
                        plain.work.clone()
                    },
                    sensor: (kind == 3).then(|| Sensor {
                        soft_fail: flag,
                        exponential_backoff: retries > 0,
                        ..Sensor::default()
                    }),
                    measures: vec![measure(Measured::Length { limit: 100 })],
                    expand: upstream
                        .first()
                        .filter(|_| kind == 4 && at > 0)
                        .map(|first| xcom_of(TaskIndex(*first))),
                    rerun_on_loss: flag,
                    ..plain
                }
            })
            .collect();
        dag(tasks, |dag| {
            dag.dagrun_timeout = timeout.then_some(seconds(500));
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// Whatever the DAG and the faults: no panic, the run ends, and a hidden failure is one.
    #[test]
    fn every_simulation_ends(dag in random_dag(), seed in any::<u64>()) {
        let report = sweep(&simulator(&dag), &Sweep { seed, random: 20, work: u64::MAX });
        prop_assert!(report.hangs.is_empty(), "{:?}", report.hangs);
        prop_assert!(report.happy.state.is_finished());
        prop_assert_eq!(report.random.count, 20);
        prop_assert_eq!(report.random.success + report.random.failed, 20);
        for hidden in &report.hidden {
            let outcome = simulator(&dag).run(&hidden.scenario);
            prop_assert_eq!(outcome.state, DagRunState::Success);
            prop_assert_eq!(outcome.state_of(hidden.task), Some(TaskInstanceState::Failed));
            prop_assert!(!hidden.why(&dag).is_empty() && !hidden.advice(&dag).is_empty());
        }
    }
}
