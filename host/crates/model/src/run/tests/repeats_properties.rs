//! Random DAGs with mappings, groups and loops, driven in random order with random ends: what is counted step by step is what a
//! count from nothing gives, a try ends once, and every run ends.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::dag::{Combine, DagParts, Expansion, Group, GroupIndex, Loop, MapSource, MapValues, Repeat};
use crate::run::scope::Phase;
use crate::run::take_along;
use crate::run::ti::Slot;
use crate::trigger_rule::{TriggerRule, Upstream};

#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Of each group: where its parent is (a number modulo the groups before it, or none), and what repeats it.
    groups: Vec<(Option<u8>, u8)>,
    tasks: Vec<TaskPlan>,
    /// Whether the first task is a setup, and which tasks its teardown, which comes last, follows.
    teardown: Option<u8>,
}

#[derive(Clone, Debug)]
struct TaskPlan {
    group: Option<u8>,
    upstream: Vec<u8>,
    rule: u8,
    /// None, a literal's length, or a source.
    expand: Option<(bool, u8)>,
    retries: u8,
    /// Work, for most.
    role: u8,
}

pub(super) fn plans() -> impl Strategy<Value = Plan> {
    let group = (proptest::option::of(any::<u8>()), any::<u8>());
    let task = (
        proptest::option::weighted(0.6, any::<u8>()),
        proptest::collection::vec(any::<u8>(), 0..3),
        any::<u8>(),
        proptest::option::weighted(0.4, (any::<bool>(), any::<u8>())),
        0..2_u8,
        0..10_u8,
    )
        .prop_map(|(group, upstream, rule, expand, retries, role)| TaskPlan {
            group,
            upstream,
            rule,
            expand,
            retries,
            role,
        });
    (
        proptest::collection::vec(group, 0..4),
        proptest::collection::vec(task, 1..8),
        proptest::option::weighted(0.5, any::<u8>()),
    )
        .prop_map(|(groups, tasks, teardown)| Plan {
            groups,
            tasks,
            teardown,
        })
}

/// Edges go from earlier to later tasks, so there are no cycles.
pub(super) fn build(plan: &Plan) -> Arc<Dag> {
    const RULES: [TriggerRule; 6] = [
        TriggerRule::AllSuccess,
        TriggerRule::AllDone,
        TriggerRule::OneFailed,
        TriggerRule::NoneFailed,
        TriggerRule::OneSuccess,
        TriggerRule::Always,
    ];
    let mut tasks: Vec<Task> = Vec::new();
    for (at, of) in plan.tasks.iter().enumerate() {
        let mut upstream: Vec<u32> = of
            .upstream
            .iter()
            .filter(|_| at > 0)
            .map(|before| u32::from(*before) % u32::try_from(at).unwrap())
            .collect();
        upstream.sort_unstable();
        upstream.dedup();
        let mut made = Task {
            trigger_rule: RULES[usize::from(of.rule) % RULES.len()],
            group: of
                .group
                .filter(|_| !plan.groups.is_empty())
                .map(|group| GroupIndex(u32::from(group) % u32::try_from(plan.groups.len()).unwrap())),
            ..task(&format!("t{at}"), &upstream)
        };
        made.retry.retries = of.retries.into();
        match of.role {
            7 | 8 => made.role = TaskRole::Setup,
            9 => {
                made.role = TaskRole::Teardown {
                    on_failure_fail_dagrun: of.retries == 1,
                };
                made.trigger_rule = TriggerRule::AllDoneSetupSuccess;
            }
            _ => {}
        }
        tasks.push(made);
    }
    if let Some(follows) = plan.teardown {
        tasks[0].role = TaskRole::Setup;
        tasks[0].group = None;
        let number = u32::try_from(tasks.len()).unwrap();
        let upstream: Vec<u32> = (0..number)
            .filter(|at| *at == 0 || follows >> (at % 8) & 1 == 1)
            .collect();
        tasks.push(Task {
            role: TaskRole::Teardown {
                on_failure_fail_dagrun: follows % 3 == 0,
            },
            trigger_rule: TriggerRule::AllDoneSetupSuccess,
            ..task("teardown", &upstream)
        });
    }
    // Measures: whatever a task measures, the driver answers with a number that fits its kind.
    let mut groups: Vec<Group> = plan
        .groups
        .iter()
        .enumerate()
        .map(|(at, (parent, _))| Group {
            id: format!("g{at}"),
            parent: parent
                .filter(|_| at > 0)
                .map(|parent| GroupIndex(u32::from(parent) % u32::try_from(at).unwrap())),
            tooltip: None,
            repeat: None,
        })
        .collect();
    let lies_in = |groups: &[Group], of: Option<GroupIndex>, outer: u32| {
        std::iter::successors(of, |at| groups[at.at()].parent).any(|at| at.0 == outer)
    };
    for (at, (_, kind)) in plan.groups.iter().enumerate() {
        let number = u32::try_from(at).unwrap();
        let inside: Vec<usize> = (0..tasks.len())
            .filter(|task| lies_in(&groups, tasks[*task].group, number))
            .collect();
        let direct = inside
            .iter()
            .copied()
            .find(|task| tasks[*task].group == Some(GroupIndex(number)));
        groups[at].repeat = match kind % 4 {
            // The deciding task lies directly in the loop and is not mapped.
            0 => direct.map(|until| {
                Repeat::Loop(Loop {
                    max: 3,
                    until: TaskIndex(u32::try_from(until).unwrap()),
                    measure: 0,
                })
            }),
            1 => Some(Repeat::Mapped(literals(u32::from(*kind) % 3))),
            2 => {
                let first = inside.first().copied().unwrap_or(0);
                let source = (0..first).find(|task| !inside.contains(task));
                source.map(|source| Repeat::Mapped(of_task(source)))
            }
            _ => None,
        };
        if let Some(Repeat::Mapped(Expansion { sources, .. })) = &groups[at].repeat
            && let MapValues::Xcom { task: source, .. } = sources[0].values
        {
            for task in inside {
                if !tasks[task].upstream.contains(&source) {
                    tasks[task].upstream.push(source);
                    tasks[task].upstream.sort_unstable();
                }
            }
        }
    }
    // As a deploy demands it: a teardown and its setups lie in the same repeated group.
    let repeats = |of: Option<GroupIndex>| {
        std::iter::successors(of, |at| groups[at.at()].parent).find(|at| groups[at.at()].repeat.is_some())
    };
    for at in 0..tasks.len() {
        let is_apart = |of: &TaskIndex| {
            let setup = &tasks[of.at()];
            setup.role == TaskRole::Setup && repeats(setup.group) != repeats(tasks[at].group)
        };
        if tasks[at].is_teardown() && tasks[at].upstream.iter().any(is_apart) {
            tasks[at].role = TaskRole::Work;
            tasks[at].trigger_rule = TriggerRule::AllDone;
        }
    }
    let untils: Vec<u32> = groups
        .iter()
        .filter_map(|group| match &group.repeat {
            Some(Repeat::Loop(repeat)) => Some(repeat.until.0),
            _ => None,
        })
        .collect();
    for (at, of) in plan.tasks.iter().enumerate() {
        let number = u32::try_from(at).unwrap();
        let may_be_mapped = !untils.contains(&number) && tasks[at].role == TaskRole::Work;
        let Some((is_literal, length)) = of.expand.filter(|_| may_be_mapped) else {
            continue;
        };
        if is_literal {
            tasks[at].expand = Some(literals(u32::from(length) % 3));
        } else if let Some(source) = tasks[at].upstream.first().copied() {
            tasks[at].expand = Some(of_task(source.at()));
        }
    }
    dag(tasks, |parts: &mut DagParts| parts.groups = groups)
}

fn literals(length: u32) -> Expansion {
    expansion(MapValues::Literal {
        value: (0..length).collect::<Vec<u32>>().into(),
    })
}

fn of_task(source: usize) -> Expansion {
    expansion(MapValues::Xcom {
        task: TaskIndex(u32::try_from(source).unwrap()),
        key: "return_value".to_owned(),
        path: Vec::new(),
        measure: 0,
    })
}

fn expansion(values: MapValues) -> Expansion {
    Expansion {
        how: Combine::Product,
        sources: vec![MapSource {
            name: "x".to_owned(),
            values,
        }],
        limit: 10,
    }
}

/// Everything that is counted, by what it is counted for.
fn counted(run: &RunState) -> Vec<(String, [Upstream; 2], u32, u32, u32)> {
    let mut all: Vec<_> = (0..run.nodes.len())
        .filter_map(|at| run.nodes.get(at))
        .map(|node| {
            let first = node
                .slot(0)
                .and_then(|slot| run.tis.get(slot))
                .expect("a node has an instance");
            let name = format!("{}[{}]", node.task.0, first.map_index.0);
            (
                name,
                [node.upstream, node.setups()],
                node.waiting,
                node.not_chosen,
                node.len(),
            )
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

pub(super) fn check(run: &RunState) -> Result<(), TestCaseError> {
    let fans = (0..run.fans.len())
        .filter_map(|at| run.fans.get(at))
        .map(|fan| fan.phase);
    let nodes = (0..run.nodes.len())
        .filter_map(|at| run.nodes.get(at))
        .map(|node| node.phase);
    if fans.chain(nodes).any(|phase| phase == Phase::Stale) {
        // One that goes on from rows may revise what is mapped a step earlier.
        return Ok(());
    }
    let restored = RunState::restore(run.key(), run.dag().clone(), run.snapshot());
    let states: Vec<_> = run.tis().map(|(task, at, ti)| (task.0, at.0, ti.state)).collect();
    prop_assert_eq!(counted(&restored), counted(run), "{:?}", states);
    prop_assert_eq!(&restored.totals, &run.totals);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases.max(10_000), ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_repeated_the_counts_are_right_and_the_run_ends(
        plan in plans(),
        choices in proptest::collection::vec(any::<u16>(), 64),
    ) {
        let dag = build(&plan);
        let mut run = RunState::new(DagRunKey(1), dag.clone(), START, START);
        let mut now = START;
        let mut step = |run: &mut RunState, event: Event| {
            now = now.plus(Duration::from_micros(1));
            advance(run, event, now)
        };
        step(&mut run, Event::Start);
        let mut choices = choices.into_iter().cycle();
        let mut ended: HashMap<(TaskIndex, MapIndex, u32), u32> = HashMap::new();
        // Of each teardown that may run, what there was before it could. A mapped group whose first element ended before the group was
        // expanded brings further instances later: those a teardown does not know of.
        let mut there: BTreeSet<(TaskIndex, MapIndex)> = BTreeSet::new();
        let mut known_to: HashMap<(TaskIndex, MapIndex), BTreeSet<(TaskIndex, MapIndex)>> = HashMap::new();
        for round in 0..2_000 {
            if run.state().is_finished() {
                break;
            }
            prop_assert!(round < 1_999, "the run does not end");
            let choice = usize::from(choices.next().unwrap());
            let ready: Vec<(TaskIndex, MapIndex)> = run.ready().map(|(task, map_index, _)| (task, map_index)).collect();
            known_to.retain(|place, _| ready.contains(place));
            for place in ready.iter().filter(|(task, _)| dag.task(*task).is_some_and(Task::is_teardown)) {
                known_to.entry(*place).or_insert_with(|| there.clone());
            }
            there = run.tis().map(|(task, map_index, _)| (task, map_index)).collect();
            if ready.is_empty() {
                // Retries that are due.
                step(&mut run, Event::Timer);
                continue;
            }
            let (task, map_index) = ready[choice % ready.len()];
            step(&mut run, Event::Admit { task, map_index });
            let dispatch = run.ti(task, map_index).unwrap().dispatch;
            let try_number = run.ti(task, map_index).unwrap().try_number.0;
            let (end, measured) = match choice % 7 {
                0 => (TryEnd::Failed { cause: Cause::Failed, fatal: false, code: None }, Vec::new()),
                1 => (TryEnd::Skip, Vec::new()),
                // A length, whether something was published, or whether a loop is over: 0, 1 or 2 fits all.
                rest => (TryEnd::Done, vec![u32::try_from(rest % 3).unwrap()]),
            };
            let started_at = START;
            let transitions = step(&mut run, Event::TryFinished { task, map_index, dispatch, end, measured, started_at, ended_at: started_at });
            for transition in &transitions {
                if let Transition::TryEnded { task, map_index, try_number, .. } = transition {
                    *ended.entry((*task, *map_index, try_number.0)).or_default() += 1;
                }
            }
            prop_assert_eq!(ended.get(&(task, map_index, try_number)), Some(&1), "a try ends once");
            if dag.task(task).is_some_and(Task::is_teardown) {
                let (_, scope) = run.slot_of(task, map_index).and_then(|at| run.node_of(at)).unwrap();
                // What it meets: in a repeated group, that of its own element or iteration.
                // What leads to it without needing what its setups prepared may run again by itself.
                let scopes = dag.setup_scopes().into_iter().filter(|(setup, _)| dag.teardowns_of(*setup).contains(&task));
                let users: BTreeSet<TaskIndex> = scopes.flat_map(|(setup, scope)| scope.into_iter().chain([setup])).collect();
                let awaited = dag.awaited(task).iter().filter(|of| users.contains(of));
                let awaited = awaited.flat_map(|of| run.visible_slots(scope, *of));
                let known = known_to.get(&(task, map_index));
                let uses = |slot: &Slot| {
                    !slot.ti.state.is_finished() && known.is_none_or(|known| known.contains(&(slot.task, slot.map_index)))
                };
                let used = awaited.filter(|at| run.tis.get(*at).is_some_and(uses)).count();
                prop_assert_eq!(used, 0, "nothing uses what was torn down");
            }
            check(&run)?;
            if choice % 11 == 0 {
                // The process ends and another one goes on.
                let mut restored = RunState::restore(run.key(), dag.clone(), run.snapshot());
                step(&mut restored, Event::Resume);
                run = restored;
            }
            if choice % 23 == 0 && round < 300 {
                // With all that follows, as people do.
                let first = TaskIndex(u32::try_from(choice % dag.tasks.len()).unwrap());
                let mut cleared = dag.descendants(&[first]);
                cleared.insert(first);
                let all = run.tis().map(|(task, map_index, _)| (task, map_index));
                let mut some: Vec<_> = all.filter(|(task, _)| cleared.contains(task)).collect();
                let known = run.tis().map(|(task, map_index, ti)| (task, map_index, ti.state));
                some.extend(take_along(&dag, &some, known));
                step(&mut run, Event::Clear { task_instances: some });
                step(&mut run, Event::Start);
            }
        }
        // Airflow's leaf rule, on all instances.
        if run.totals.unfinished == 0 {
            let failed = run.tis().any(|(task, _, ti)| {
                dag.is_leaf(task) && matches!(ti.state, TaskInstanceState::Failed | TaskInstanceState::UpstreamFailed)
            });
            prop_assert_eq!(run.state() == DagRunState::Failed, failed);
        }
    }
}
