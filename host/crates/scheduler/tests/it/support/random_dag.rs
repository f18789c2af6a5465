//! Random DAGs with everything that a run can have. Edges go from earlier to later tasks.

use std::time::Duration;

use indexmap::IndexMap;
use model::between::{IfExists, TriggerDag};
use model::callback::{Callback, CallbackAction, CallbackEvent, NotificationLevel, TEXT};
use model::dag::{
    Combine, Expansion, Group, GroupIndex, Loop, MapSource, MapValues, Measure, Measured, Repeat, Task, TaskKind,
    TaskRole,
};
use model::human::{HumanStep, OnTimeout};
use model::past::Past;
use model::retry_rule::{RetryAction, RetryRule};
use model::sensor::Sensor;
use model::work::ComponentTask;
use model::{Cause, DagId, DagRunState, Digest, Limits, TaskIndex, TriggerRule, Work};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::DagBuilder;

/// The pool that some tasks share.
pub(crate) const NARROW: &str = "narrow";

const RULES: [TriggerRule; 12] = [
    TriggerRule::AllSuccess,
    TriggerRule::AllFailed,
    TriggerRule::AllDone,
    TriggerRule::AllDoneMinOneSuccess,
    TriggerRule::AllSkipped,
    TriggerRule::OneFailed,
    TriggerRule::OneSuccess,
    TriggerRule::OneDone,
    TriggerRule::NoneFailed,
    TriggerRule::NoneFailedMinOneSuccess,
    TriggerRule::NoneSkipped,
    TriggerRule::Always,
];

/// What is known of the tasks before they are made.
struct Plan {
    random: StdRng,
    groups: Vec<Group>,
    group_of: Vec<Option<GroupIndex>>,
    upstream: Vec<Vec<usize>>,
    expand: Vec<Option<Expansion>>,
    measures: Vec<Vec<Measure>>,
}

/// The DAG whose runs some tasks trigger.
pub(crate) const CHILD: &str = "child";

/// A DAG for a seed. What a task is tells its name: `branch…`, `circuit…`, `sensor…`, `human…`, `trigger…`, `setup`, `teardown`, else
/// `work…`.
pub(crate) fn random_dag(id: &str, seed: u64) -> DagBuilder {
    let mut plan = Plan::new(StdRng::seed_from_u64(seed));
    plan.repeat_groups();
    plan.expand_tasks();
    plan.build(id)
}

impl Plan {
    fn new(mut random: StdRng) -> Self {
        let tasks = random.random_range(3..9_usize);
        let groups: Vec<Group> = (0..random.random_range(0..3_u32))
            .map(|at| Group {
                id: format!("g{at}"),
                parent: (at > 0 && random.random_bool(0.3)).then_some(GroupIndex(0)),
                tooltip: None,
                repeat: None,
            })
            .collect();
        let count = u32::try_from(groups.len()).unwrap();
        let group_of = (0..tasks)
            .map(|_| (count > 0 && random.random_bool(0.5)).then(|| GroupIndex(random.random_range(0..count))))
            .collect();
        let upstream = (0..tasks)
            .map(|at| {
                let mut of: Vec<usize> = (0..random.random_range(0..3_usize).min(at))
                    .map(|_| random.random_range(0..at))
                    .collect();
                of.sort_unstable();
                of.dedup();
                of
            })
            .collect();
        Self {
            random,
            groups,
            group_of,
            upstream,
            expand: vec![None; tasks],
            measures: vec![Vec::new(); tasks],
        }
    }

    fn around(&self, task: usize) -> Vec<GroupIndex> {
        let parent = |at: &GroupIndex| self.groups[at.at()].parent;
        std::iter::successors(self.group_of[task], parent).collect()
    }

    /// Whether others see a list of what the task publishes.
    fn is_many(&self, task: usize) -> bool {
        let is_mapped = |at: &GroupIndex| matches!(self.groups[at.at()].repeat, Some(Repeat::Mapped(_)));
        self.expand[task].is_some() || self.around(task).iter().any(is_mapped)
    }

    fn measure(&mut self, task: usize, what: Measured) -> u32 {
        self.measures[task].push(Measure {
            key: "return_value".to_owned(),
            path: Vec::new(),
            what,
        });
        u32::try_from(self.measures[task].len() - 1).unwrap()
    }

    fn expansion(&mut self, source: Option<usize>) -> Expansion {
        let values = match source {
            None => MapValues::Literal {
                value: (0..self.random.random_range(0..4_u32)).collect::<Vec<_>>().into(),
            },
            Some(task) => {
                let what = if self.is_many(task) {
                    Measured::Present
                } else {
                    Measured::Length { limit: 8 }
                };
                MapValues::Xcom {
                    task: index(task),
                    key: "return_value".to_owned(),
                    path: Vec::new(),
                    measure: self.measure(task, what),
                }
            }
        };
        Expansion {
            how: Combine::Product,
            sources: vec![MapSource {
                name: "x".to_owned(),
                values,
            }],
            limit: 8,
        }
    }

    /// Loops and mapped groups, from the outside in; what decides about a loop is no mapped task.
    fn repeat_groups(&mut self) {
        for at in 0..self.groups.len() {
            let group = GroupIndex(u32::try_from(at).unwrap());
            let inside: Vec<usize> = (0..self.group_of.len())
                .filter(|task| self.around(*task).contains(&group))
                .collect();
            let direct = inside.iter().copied().find(|task| self.group_of[*task] == Some(group));
            self.groups[at].repeat = match self.random.random_range(0..4) {
                0 => direct.map(|until| {
                    let truth = Measured::Truth {
                        expression: "value".to_owned(),
                    };
                    Repeat::Loop(Loop {
                        max: self.random.random_range(1..4),
                        until: index(until),
                        measure: self.measure(until, truth),
                    })
                }),
                1 => Some(Repeat::Mapped(self.expansion(None))),
                2 => {
                    let before = inside.first().copied().unwrap_or(0);
                    let sources: Vec<usize> = (0..before).filter(|task| self.group_of[*task].is_none()).collect();
                    sources.choose(&mut self.random).copied().map(|source| {
                        for task in &inside {
                            if !self.upstream[*task].contains(&source) {
                                self.upstream[*task].push(source);
                                self.upstream[*task].sort_unstable();
                            }
                        }
                        Repeat::Mapped(self.expansion(Some(source)))
                    })
                }
                _ => None,
            };
        }
    }

    fn expand_tasks(&mut self) {
        for task in 0..self.expand.len() {
            if !self.decides(task) && self.random.random_bool(0.25) {
                let seen = |source: &usize| self.around(task).contains_all(&self.around(*source));
                let sources: Vec<usize> = self.upstream[task].iter().copied().filter(seen).collect();
                let source = sources.choose(&mut self.random).copied();
                self.expand[task] = Some(self.expansion(source));
            }
        }
    }

    fn decides(&self, task: usize) -> bool {
        let until = |group: &Group| matches!(&group.repeat, Some(Repeat::Loop(repeat)) if repeat.until == index(task));
        self.groups.iter().any(until)
    }

    fn build(mut self, id: &str) -> DagBuilder {
        let tasks = self.group_of.len();
        let has_teardown = self.random.random_bool(0.4);
        let mut names: Vec<String> = Vec::new();
        let mut dag = DagBuilder::new(id);
        if has_teardown {
            dag = dag.task_with("setup", &[], |task| task.role = TaskRole::Setup);
            // The places of all others move by one.
            self.shift();
        }
        for at in 0..tasks {
            let is_plain = self.decides(at + usize::from(has_teardown)) || self.expand[at].is_some();
            let kind = if is_plain { 0 } else { self.random.random_range(0..14) };
            let name = match kind {
                0..6 => format!("work{at}"),
                6 => format!("branch{at}"),
                7 => format!("circuit{at}"),
                8 => format!("sensor{at}"),
                9..12 => format!("trigger{at}"),
                _ => format!("human{at}"),
            };
            let mut upstream: Vec<&str> = self.upstream[at].iter().map(|of| names[*of].as_str()).collect();
            if has_teardown && upstream.is_empty() && self.group_of[at].is_none() {
                upstream.push("setup");
            }
            let mut random = StdRng::from_rng(&mut self.random);
            dag = dag.task_with(&name, &upstream, |task| {
                task.group = self.group_of[at];
                task.expand = self.expand[at].take();
                task.measures = std::mem::take(&mut self.measures[at]);
                settle(task, &mut random);
            });
            names.push(name);
        }
        dag = self.inner_setup(dag, &mut names);
        if has_teardown {
            let mut upstream: Vec<&str> = names
                .iter()
                .map(String::as_str)
                .filter(|_| self.random.random_bool(0.5))
                .collect();
            upstream.push("setup");
            dag = dag.task_with("teardown", &upstream, |task| {
                task.role = TaskRole::Teardown {
                    on_failure_fail_dagrun: self.random.random_bool(0.5),
                };
                task.trigger_rule = TriggerRule::AllDoneSetupSuccess;
            });
        }
        dag.with(|parts| {
            parts.groups = self.groups;
            parts.max_active_runs = self.random.random_range(1..4);
            let looks_back = parts.tasks.iter().any(|task| task.past.matters());
            // What waits for a run that failed waits as long as that one is as it is, as in Airflow, unless its own run's time runs out.
            if self.random.random_bool(if looks_back { 0.5 } else { 0.1 }) {
                parts.dagrun_timeout = Some(Duration::from_secs(self.random.random_range(1..40)));
            }
            parts.callbacks = callbacks(&mut self.random, &CallbackEvent::OF_DAG);
            for task in &mut parts.tasks {
                if task.id.as_str().starts_with("branch") {
                    let some = task.downstream.iter().copied().filter(|_| self.random.random_bool(0.5));
                    let labels = [("some".to_owned(), some.collect()), ("none".to_owned(), Vec::new())];
                    task.kind = TaskKind::Branch {
                        labels: IndexMap::from(labels),
                    };
                }
            }
        })
    }

    /// A setup and a teardown within a group that is repeated, with a task between them: each element, and each iteration, has its own.
    fn inner_setup(&mut self, mut dag: DagBuilder, names: &mut Vec<String>) -> DagBuilder {
        let repeated = (0..self.groups.len()).find(|at| self.groups[*at].repeat.is_some());
        let Some(at) = repeated.filter(|_| self.random.random_bool(0.5)) else {
            return dag;
        };
        let group = Some(GroupIndex(u32::try_from(at).unwrap()));
        // What is mapped over is upstream of all that lies within, around it too.
        let mut sources: Vec<String> = Vec::new();
        for around in std::iter::successors(group, |at| self.groups[at.at()].parent) {
            if let Some(Repeat::Mapped(expansion)) = &self.groups[around.at()].repeat
                && let MapValues::Xcom { task, .. } = &expansion.sources[0].values
            {
                sources.push(dag.name(*task));
            }
        }
        let sources: Vec<&str> = sources.iter().map(String::as_str).collect();
        let mut random = StdRng::from_rng(&mut self.random);
        dag = dag.task_with("inner_setup", &sources, |task| {
            task.group = group;
            task.role = TaskRole::Setup;
            task.retry.retries = random.random_range(0..2);
        });
        let within: Vec<&str> = sources.iter().copied().chain(["inner_setup"]).collect();
        dag = dag.task_with("inner_work", &within, |task| {
            task.group = group;
            settle(task, &mut random);
        });
        let after: Vec<&str> = within.iter().copied().chain(["inner_work"]).collect();
        dag = dag.task_with("inner_teardown", &after, |task| {
            task.group = group;
            task.role = TaskRole::Teardown {
                on_failure_fail_dagrun: random.random_bool(0.5),
            };
            task.trigger_rule = TriggerRule::AllDoneSetupSuccess;
        });
        names.extend(["inner_setup", "inner_work", "inner_teardown"].map(str::to_owned));
        dag
    }

    /// A task comes before all that are planned.
    fn shift(&mut self) {
        let later = |task: &mut TaskIndex| task.0 += 1;
        let sources = |expansion: &mut Expansion| {
            for source in &mut expansion.sources {
                if let MapValues::Xcom { task, .. } = &mut source.values {
                    later(task);
                }
            }
        };
        self.expand.iter_mut().flatten().for_each(sources);
        for group in &mut self.groups {
            match &mut group.repeat {
                Some(Repeat::Loop(repeat)) => later(&mut repeat.until),
                Some(Repeat::Mapped(expansion)) => sources(expansion),
                None => {}
            }
        }
    }
}

/// What a task does and how it is tried and waits.
fn settle(task: &mut Task, random: &mut StdRng) {
    let name = task.id.to_string();
    if random.random_bool(0.4) {
        task.trigger_rule = *RULES.choose(random).unwrap();
    }
    if name.starts_with("circuit") {
        task.kind = TaskKind::ShortCircuit {
            ignore_downstream_trigger_rules: random.random_bool(0.5),
        };
    } else if name.starts_with("sensor") {
        task.sensor = Some(Sensor {
            poke_interval: random.random_bool(0.5).then(|| Duration::from_secs(2)),
            timeout: Duration::from_secs(random.random_range(2..20)),
            soft_fail: random.random_bool(0.5),
            exponential_backoff: random.random_bool(0.3),
            max_wait: None,
        });
    } else if name.starts_with("human") {
        task.work = Work::Human(Box::new(HumanStep {
            options: vec!["yes".to_owned(), "no".to_owned()],
            defaults: Some(vec!["no".to_owned()]),
            multiple: false,
            params: IndexMap::new(),
            assigned_users: Vec::new(),
            timeout: Some(Duration::from_secs(random.random_range(1..30))),
            on_timeout: *[OnTimeout::Default, OnTimeout::Fail, OnTimeout::Skip]
                .choose(random)
                .unwrap(),
            approval: None,
            branches: false,
        }));
    }
    if name.starts_with("trigger") {
        task.work = Work::TriggerDag(Box::new(TriggerDag {
            dag: Some(DagId::new(CHILD).unwrap()),
            allowed: Vec::new(),
            if_exists: *IfExists::ALL.choose(random).unwrap(),
            wait: random.random_bool(0.7),
            allowed_states: vec![DagRunState::Success],
            result: None,
            timeout: random.random_bool(0.3).then(|| Duration::from_secs(3)),
        }));
    }
    if random.random_bool(0.1) {
        task.past = *[Past::DependsOnPast, Past::WaitForDownstream].choose(random).unwrap();
    }
    task.when = random.random_bool(0.1).then(|| "{{ params.when }}".to_owned());
    task.callbacks = callbacks(random, CallbackEvent::ALL);
    task.retry.retries = random.random_range(0..3);
    task.retry.exponential_backoff = random.random_bool(0.3);
    // What was cleared often has many tries: without a bound it would wait for hours.
    task.retry.max_delay = Some(Duration::from_secs(60));
    if random.random_bool(0.2) {
        task.retry.rules.push(RetryRule {
            causes: vec![Cause::Trapped],
            codes: Vec::new(),
            action: *[RetryAction::Retry, RetryAction::Fail].choose(random).unwrap(),
            delay: Some(Duration::from_secs(1)),
            memory: None,
        });
    }
    if random.random_bool(0.4) {
        task.pool = NARROW.to_owned();
        task.pool_slots = random.random_range(1..3);
    }
    task.rerun_on_loss = random.random_bool(0.9);
    task.queueing.weight = random.random_range(1..20);
    task.queueing.max_active_tis_per_dag = random.random_bool(0.1).then_some(2);
    task.queueing.max_active_tis_per_dagrun = random.random_bool(0.1).then_some(1);
}

/// Few have callbacks, as in life.
fn callbacks(random: &mut StdRng, events: &[CallbackEvent]) -> Vec<Callback> {
    let called = events
        .iter()
        .filter(|_| random.random_bool(0.15))
        .copied()
        .collect::<Vec<_>>();
    let mut one = |event: CallbackEvent| {
        let (action, text) = match random.random_range(0..3) {
            0 => (
                CallbackAction::Notify {
                    level: NotificationLevel::Info,
                },
                "it ended",
            ),
            1 => (
                CallbackAction::Notify {
                    level: NotificationLevel::Info,
                },
                "{{ callback.state }}",
            ),
            _ => {
                let component = ComponentTask {
                    reference: "alerts@1".to_owned(),
                    digest: Digest::of(b"alerts"),
                    entry: "send".to_owned(),
                };
                let limits = Limits::default();
                (CallbackAction::Task { component, limits }, "it ended")
            }
        };
        Callback {
            event,
            action,
            input: serde_json::json!({ TEXT: text }),
        }
    };
    called.into_iter().map(&mut one).collect()
}

/// A small DAG for the runs that others trigger.
pub(crate) fn child_dag() -> DagBuilder {
    DagBuilder::chain(CHILD, 2).with(|dag| dag.max_active_runs = 4)
}

fn index(at: usize) -> TaskIndex {
    TaskIndex(u32::try_from(at).unwrap())
}

trait ContainsAll {
    fn contains_all(&self, others: &Self) -> bool;
}

impl ContainsAll for Vec<GroupIndex> {
    fn contains_all(&self, others: &Self) -> bool {
        others.iter().all(|other| self.contains(other))
    }
}
