//! The format, as tables: which keys each section has, what their values are, and what they mean. The reader accepts what the
//! tables say, and the published JSON Schema is made from the same tables, so the two cannot drift apart.

use crate::limits::OnLogLimit;

/// One key of a section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: FieldKind,
    pub(super) doc: &'static str,
}

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum FieldKind {
    Text,
    /// Letters, digits, `_`, `-`, `.`; at most 250 bytes.
    Key,
    Bool,
    Int {
        min: i64,
        max: i64,
    },
    Duration,
    Size {
        min: u64,
        max: u64,
    },
    Tags,
    TaskIds,
    TriggerRule,
    /// A number over 1 with at most two decimals.
    Factor,
    /// One of these.
    Choice(&'static [&'static str]),
    RetryPolicy,
    /// Causes of death, and codes of failures.
    Ends,
    WeightRule,
    Component,
    Params,
    Section(&'static [Field]),
    /// From name to a list, an object, or a template of one.
    Sources,
    Teardown,
    /// A template of true or false, or one of these.
    Condition,
    Tasks,
    Input,
    Branches,
    ShortCircuit,
    /// One callback, or a list of them.
    Callbacks,
    /// True or false, or a section.
    Approval,
    /// Nothing can be granted in this version.
    Grants,
    /// A key of the format's next versions: only an absent value is accepted.
    NotSupported,
}

const fn field(name: &'static str, kind: FieldKind, doc: &'static str) -> Field {
    Field { name, kind, doc }
}

const COUNT: FieldKind = FieldKind::Int { min: 1, max: 1_000_000 };
const MAX_SIZE: u64 = 1 << 50;

/// The whole manifest.
pub(super) const DAG: &[Field] = &[
    field("dag", FieldKind::Key, "The id of the DAG."),
    field("description", FieldKind::Text, "One line for people."),
    field("doc_md", FieldKind::Text, "Markdown for people."),
    field("owner", FieldKind::Text, "Who looks after it. Default: `airflow`."),
    field("tags", FieldKind::Tags, "For filtering."),
    field(
        "paused",
        FieldKind::Bool,
        "Whether a new DAG starts paused. Holds only when the DAG is deployed first.",
    ),
    field(
        "max_active_runs",
        COUNT,
        "How many runs may be running at a time. Default: 16.",
    ),
    field(
        "max_active_tasks",
        COUNT,
        "How many task instances of all runs may be running at a time. Default: 16.",
    ),
    field("dagrun_timeout", FieldKind::Duration, "How long a run may take."),
    field(
        "max_consecutive_failed_dag_runs",
        FieldKind::Int { min: 0, max: 1_000 },
        "After so many failed runs in a row the DAG is paused. Default: 0, which is never.",
    ),
    field(
        "params",
        FieldKind::Params,
        "The parameters of a run: each a default value, or a JSON Schema with `default`.",
    ),
    field(
        "defaults",
        FieldKind::Section(SETTINGS),
        "Settings of all tasks that do not set their own.",
    ),
    field(
        "strict_params",
        FieldKind::Bool,
        "Refuse a run whose `conf` has a member that is none of the parameters. Default: false.",
    ),
    field("tasks", FieldKind::Tasks, "The tasks, by id."),
    field(
        "on_success",
        FieldKind::Callbacks,
        "What is done when a run has succeeded.",
    ),
    field(
        "on_failure",
        FieldKind::Callbacks,
        "What is done when a run has failed.",
    ),
    field(
        "schedule",
        FieldKind::NotSupported,
        "Not supported by this version, except `null`.",
    ),
    field("catchup", FieldKind::NotSupported, "Not supported by this version."),
    field("start_date", FieldKind::NotSupported, "Not supported by this version."),
    field("end_date", FieldKind::NotSupported, "Not supported by this version."),
];

/// One task, beside the settings.
pub(super) const TASK: &[Field] = &[
    field(
        "component",
        FieldKind::Component,
        "`name@version`, `name@sha256:…`, `sha256:…` or `./path.wasm`.",
    ),
    field(
        "task",
        FieldKind::Text,
        "Which task of the component. Default: its only task, else the one named as the id.",
    ),
    field("input", FieldKind::Input, "The input; strings may be templates."),
    field(
        "after",
        FieldKind::TaskIds,
        "Upstream tasks, beside those that templates name.",
    ),
    field(
        "branches",
        FieldKind::Branches,
        "Of a branch task: for each label the direct downstream tasks that it chooses.",
    ),
    field(
        "short_circuit",
        FieldKind::ShortCircuit,
        "Skip what follows if the answer counts as false.",
    ),
    field(
        "grants",
        FieldKind::Grants,
        "What the task may use of the host. Nothing in this version.",
    ),
    field(
        "human",
        FieldKind::Section(HUMAN),
        "Instead of a component: ask a person, and wait for the answer.",
    ),
    field(
        "latest_only",
        FieldKind::Bool,
        "Instead of a component: skip what directly follows unless the run is the latest one of the schedule.",
    ),
    field(
        "trigger_dag",
        FieldKind::Section(TRIGGER_DAG),
        "Instead of a component: start a run of another DAG, and wait for its end if it says so.",
    ),
    field(
        "wait_for_dag",
        FieldKind::Section(WAIT_FOR_DAG),
        "Instead of a component: wait for a run, a task or a task group of another DAG.",
    ),
    field("doc_md", FieldKind::Text, "Markdown for people."),
    field(
        "map_index_template",
        FieldKind::Text,
        "A template that names an instance of a mapped task for people.",
    ),
    field(
        "when",
        FieldKind::Condition,
        "A template of true or false; where it is false, the task is skipped.",
    ),
    field(
        "setup",
        FieldKind::Bool,
        "The task prepares something for those between it and its teardowns.",
    ),
    field(
        "teardown",
        FieldKind::Teardown,
        "The task cleans up what its setups, upstream tasks with `setup`, prepared.",
    ),
];

/// What makes a task or a group many.
pub(super) const MAPPING: &[Field] = &[
    field(
        "expand",
        FieldKind::Sources,
        "One instance for each element; of several lists, for each combination.",
    ),
    field(
        "expand_zip",
        FieldKind::Sources,
        "One instance for each element of several lists side by side.",
    ),
    field(
        "expand_kwargs",
        FieldKind::Input,
        "One instance for each object of a list, whose members go into the input.",
    ),
    field(
        "map_limit",
        FieldKind::Int { min: 1, max: 100_000 },
        "How many instances there may be. Default: 10000.",
    ),
];

/// A task group.
pub(super) const GROUP: &[Field] = &[
    field("tooltip", FieldKind::Text, "One line for people."),
    field(
        "after",
        FieldKind::TaskIds,
        "What the first tasks of the group wait for.",
    ),
    field(
        "defaults",
        FieldKind::Section(SETTINGS),
        "Settings of the group's tasks that do not set their own.",
    ),
    field(
        "loop",
        FieldKind::Section(LOOP),
        "Repeat the group until a condition holds.",
    ),
    field("tasks", FieldKind::Tasks, "The group's tasks, by id."),
];

/// A loop.
pub(super) const LOOP: &[Field] = &[
    field(
        "until",
        FieldKind::Text,
        "A template over what one task of the group returned; the loop is over when it counts as true.",
    ),
    field(
        "max",
        FieldKind::Int { min: 1, max: 100_000 },
        "How many iterations there are at the most.",
    ),
];

/// What a person is asked.
pub(super) const HUMAN: &[Field] = &[
    field("subject", FieldKind::Text, "What is asked, in one line; a template."),
    field("body", FieldKind::Text, "The details, in Markdown; a template."),
    field("options", FieldKind::Tags, "What can be chosen. Default: `OK`."),
    field(
        "defaults",
        FieldKind::Tags,
        "What is proposed, and taken when time runs out.",
    ),
    field("multiple", FieldKind::Bool, "Whether several options can be chosen."),
    field(
        "params",
        FieldKind::Params,
        "Values to enter, as the `params` of a DAG.",
    ),
    field("assigned_users", FieldKind::Tags, "Who may answer. Default: everybody."),
    field("timeout", FieldKind::Duration, "How long to wait. Default: for ever."),
    field(
        "on_timeout",
        FieldKind::Choice(&["default", "fail", "skip"]),
        "What happens then. Default: the defaults are taken if there are any, else the try fails.",
    ),
    field(
        "approval",
        FieldKind::Approval,
        "Ask for `Approve` or `Reject`; what follows is skipped when it is rejected.",
    ),
];

/// Which DAG is triggered, and how.
pub(super) const TRIGGER_DAG: &[Field] = &[
    field(
        "dag",
        FieldKind::Text,
        "The DAG; a template where `allowed` says which.",
    ),
    field(
        "allowed",
        FieldKind::Tags,
        "The DAGs that the template in `dag` may name.",
    ),
    field(
        "conf",
        FieldKind::Input,
        "The `conf` of the run; strings may be templates.",
    ),
    field(
        "run_id",
        FieldKind::Text,
        "The name of the run; a template. Default: one is made.",
    ),
    field(
        "logical_date",
        FieldKind::Text,
        "The logical date of the run; a template. Default: none.",
    ),
    field(
        "if_exists",
        FieldKind::Choice(&["fail", "skip", "reuse", "reset"]),
        "What happens where there is a run of that name, or date, already. Default: `fail`.",
    ),
    field(
        "wait",
        FieldKind::Bool,
        "Whether the try lasts until the run has ended.",
    ),
    field(
        "allowed_states",
        FieldKind::Tags,
        "The ends of the run that let the try succeed. Default: `success`.",
    ),
    field(
        "failed_states",
        FieldKind::Tags,
        "The ends of the run that fail the try. Default: those that are not allowed.",
    ),
    field(
        "result",
        FieldKind::Key,
        "The task of the other DAG whose return value is published as `result`.",
    ),
];

/// What of another DAG is waited for.
pub(super) const WAIT_FOR_DAG: &[Field] = &[
    field("dag", FieldKind::Key, "The DAG."),
    field("task", FieldKind::Key, "Wait for all instances of this task."),
    field("group", FieldKind::Key, "Wait for all tasks of this group."),
    field("run_id", FieldKind::Text, "Of the run with this name; a template."),
    field(
        "logical_date",
        FieldKind::Text,
        "Of the run with this logical date; a template. Default: that of the own run.",
    ),
    field(
        "allowed_states",
        FieldKind::Tags,
        "When all are in one of these states, the task succeeds. Default: `success`.",
    ),
    field(
        "failed_states",
        FieldKind::Tags,
        "When one is in one of these states, the try fails. Default: none.",
    ),
    field(
        "skipped_states",
        FieldKind::Tags,
        "When one is in one of these states, the task is skipped. Default: none.",
    ),
];

/// An approval.
pub(super) const APPROVAL: &[Field] = &[
    field(
        "fail_on_reject",
        FieldKind::Bool,
        "Fail instead of skipping what follows.",
    ),
    field(
        "ignore_downstream_trigger_rules",
        FieldKind::Bool,
        "Skip everything that follows, not just the direct downstream tasks.",
    ),
];

/// What `defaults` and tasks share.
pub(super) const SETTINGS: &[Field] = &[
    field(
        "retries",
        FieldKind::Int { min: 0, max: 10_000 },
        "Tries beyond the first. Default: 0.",
    ),
    field(
        "retry_delay",
        FieldKind::Duration,
        "The wait before the next try. Default: 5m.",
    ),
    field(
        "retry_exponential_backoff",
        FieldKind::Bool,
        "Double the wait with each try.",
    ),
    field("max_retry_delay", FieldKind::Duration, "The longest wait before a try."),
    field(
        "retry_policy",
        FieldKind::RetryPolicy,
        "What follows a failed try, by how it ended. The first rule that matches decides.",
    ),
    field(
        "sensor",
        FieldKind::Section(SENSOR),
        "How the task is poked while it answers \"not yet\".",
    ),
    field(
        "trigger_rule",
        FieldKind::TriggerRule,
        "When the task may run. Default: `all_success`.",
    ),
    field(
        "depends_on_past",
        FieldKind::Bool,
        "Whether the task waits until it has succeeded, or was skipped, in the run before.",
    ),
    field(
        "wait_for_downstream",
        FieldKind::Bool,
        "The same, and for the tasks that directly follow it in the run before.",
    ),
    field(
        "timeout",
        FieldKind::Duration,
        "Wall time of one try; the same as `limits.timeout`.",
    ),
    field("limits", FieldKind::Section(LIMITS), "What one try may use."),
    field(
        "rerun_on_loss",
        FieldKind::Bool,
        "Run again when the executor was lost. Default: true.",
    ),
    field(
        "max_infra_retries",
        FieldKind::Int { min: 0, max: 1_000 },
        "How many losses of the executor one try survives. Default: 3.",
    ),
    field(
        "pool",
        FieldKind::Key,
        "The pool that the slots come from. Default: `default_pool`.",
    ),
    field(
        "pool_slots",
        FieldKind::Int { min: 1, max: 100_000 },
        "How many slots the task takes. Default: 1.",
    ),
    field(
        "priority_weight",
        FieldKind::Int {
            min: i32::MIN as i64,
            max: i32::MAX as i64,
        },
        "Higher goes first. Default: 1.",
    ),
    field(
        "weight_rule",
        FieldKind::WeightRule,
        "Whose weights count with the task's own. Default: `downstream`.",
    ),
    field(
        "max_active_tis_per_dag",
        COUNT,
        "How many task instances of the task may be running at a time in all runs of the DAG.",
    ),
    field(
        "max_active_tis_per_dagrun",
        COUNT,
        "How many task instances of the task may be running at a time in one run.",
    ),
    field(
        "queue",
        FieldKind::Key,
        "The queue of executors that the task is meant for. Default: `default`.",
    ),
    field(
        "on_success",
        FieldKind::Callbacks,
        "What is done when the task has succeeded.",
    ),
    field(
        "on_failure",
        FieldKind::Callbacks,
        "What is done when the task has failed and has no tries left.",
    ),
    field(
        "on_retry",
        FieldKind::Callbacks,
        "What is done when a try has failed and another one follows.",
    ),
    field(
        "on_skipped",
        FieldKind::Callbacks,
        "What is done when the task has skipped itself.",
    ),
];

/// A callback.
pub(super) const CALLBACK: &[Field] = &[
    field(
        "component",
        FieldKind::Component,
        "Of a callback that runs a task: `name@version`, `name@sha256:…`, `sha256:…` or `./path.wasm`.",
    ),
    field(
        "task",
        FieldKind::Text,
        "Which task of the component. Default: its only task, else the one named as the event.",
    ),
    field(
        "input",
        FieldKind::Input,
        "The input; strings may be templates, which see `callback`.",
    ),
    field("limits", FieldKind::Section(LIMITS), "What it may use."),
    field(
        "timeout",
        FieldKind::Duration,
        "Its wall time; the same as `limits.timeout`. Default: 5m.",
    ),
    field(
        "notify",
        FieldKind::Text,
        "Instead of a task: a text for people; a template, which sees `callback`.",
    ),
    field(
        "level",
        FieldKind::Choice(&["info", "warning", "error"]),
        "How urgent the text is. Default: `error` of a failure, `warning` of a retry, else `info`.",
    ),
];

/// A rule of `retry_policy`.
pub(super) const RETRY_RULE: &[Field] = &[
    field(
        "on",
        FieldKind::Ends,
        "Causes of death, and codes of failures as `code: text`.",
    ),
    field(
        "action",
        FieldKind::Choice(&["retry", "fail", "default"]),
        "Try again as long as there are retries, fail at once, or as without a policy. Default: `retry`.",
    ),
    field(
        "delay",
        FieldKind::Duration,
        "The wait before the next try, instead of the task's own.",
    ),
    field(
        "memory_factor",
        FieldKind::Factor,
        "The memory limit of the next try, in multiples of the last one's.",
    ),
    field(
        "max_memory",
        FieldKind::Size {
            min: 64 << 10,
            max: 64 << 30,
        },
        "The memory limit never grows beyond this. Default: 64GiB.",
    ),
];

/// How a sensor is poked.
pub(super) const SENSOR: &[Field] = &[
    field(
        "poke_interval",
        FieldKind::Duration,
        "The wait between two pokes; at least 1s. Default: what the task asks for.",
    ),
    field(
        "timeout",
        FieldKind::Duration,
        "How long the task may wait, from its first poke on, over all tries. Default: 7d.",
    ),
    field(
        "soft_fail",
        FieldKind::Bool,
        "Skip instead of failing when time runs out or a failure is fatal.",
    ),
    field("exponential_backoff", FieldKind::Bool, "Wait longer from poke to poke."),
    field("max_wait", FieldKind::Duration, "The longest wait of a backoff."),
];

/// Limits of one try.
pub(super) const LIMITS: &[Field] = &[
    field(
        "memory",
        FieldKind::Size {
            min: 64 << 10,
            max: 64 << 30,
        },
        "All memories of the try. Default: 512MiB.",
    ),
    field("timeout", FieldKind::Duration, "Wall time. Default: 1h."),
    field("cpu_time", FieldKind::Duration, "CPU time. Default: the wall time."),
    field(
        "log",
        FieldKind::Size { min: 0, max: 1 << 40 },
        "What the try may write to its log, as it is stored. Default: 10MiB.",
    ),
    field(
        "on_log_limit",
        FieldKind::Choice(OnLogLimit::NAMES),
        "A log that is over its limit is cut in the middle, or the try fails with `output_limit`. Default: cut.",
    ),
    field(
        "xcom_value",
        FieldKind::Size { min: 2, max: 64 << 20 },
        "One XCom value, in bytes of JSON. Default: 1MiB.",
    ),
    field(
        "xcom_total",
        FieldKind::Size { min: 2, max: 1 << 30 },
        "All XCom values of one try. Default: 16MiB.",
    ),
    field(
        "xcom_keys",
        FieldKind::Int { min: 0, max: 100_000 },
        "XCom keys of one try. Default: 1000.",
    ),
    field(
        "blobs",
        FieldKind::Size { min: 0, max: MAX_SIZE },
        "The sum of all blobs that one try writes. Default: 10GiB.",
    ),
    field(
        "checkpoint",
        FieldKind::Size { min: 0, max: 64 << 20 },
        "A checkpoint. Default: 1MiB.",
    ),
    field(
        "resources",
        FieldKind::Int { min: 1, max: 1_000_000 },
        "Live host resources. Default: 10000.",
    ),
    field(
        "table_elements",
        FieldKind::Int {
            min: 1,
            max: 100_000_000,
        },
        "Elements of all tables. Default: 1000000.",
    ),
];

/// How a key may be written, for hints about what is missing or wrong.
pub(super) fn example(key: &str) -> Option<&'static str> {
    Some(match key {
        "dag" => "dag: my_dag",
        "tasks" => "tasks: {load: {component: my-tasks@1.0, task: load}}",
        "component" => "component: name@version",
        "subject" => "subject: \"Deploy to production?\"",
        "until" => "until: \"{{ xcom.<task of the group>.done }}\"",
        "max" => "max: 100",
        "on" => "on: [out_of_memory]",
        "retries" => "retries: 3",
        "paused" => "paused: true",
        "wait" => "wait: true",
        "multiple" => "multiple: true",
        "setup" => "setup: true",
        "latest_only" => "latest_only: true",
        "depends_on_past" => "depends_on_past: true",
        "wait_for_downstream" => "wait_for_downstream: true",
        "soft_fail" => "soft_fail: true",
        _ => return None,
    })
}

/// Airflow's names that have another name here, for hints.
pub(super) fn airflow_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "dag_id" => "the key is `dag`",
        "execution_timeout" => "the key is `timeout`",
        "default_args" => "the key is `defaults`",
        "depends_on" | "upstream" | "needs" | "dependencies" => "the key is `after`",
        "is_paused_upon_creation" => "the key is `paused`",
        "on_success_callback" => "the key is `on_success`",
        "on_failure_callback" => "the key is `on_failure`",
        "on_retry_callback" => "the key is `on_retry`",
        "on_skipped_callback" => "the key is `on_skipped`",
        "when" => "`when` belongs to a task; put it on those that it is about",
        "if" | "condition" => "the key is `when`, in a task",
        "skip_when_already_exists" => "write `if_exists: skip`",
        "reset_dag_run" => "write `if_exists: reset`",
        "trigger_dag_id" => "the key is `dag`",
        "trigger_run_id" => "the key is `run_id`",
        "task_concurrency" => "the key is `max_active_tis_per_dag`",
        "concurrency" => "the key is `max_active_tasks`",
        "task_id" | "group_id" => "the id is the key of the map under `tasks`",
        "external_dag_id" => "the key is `dag`",
        "wait_for_completion" => "the key is `wait`",
        "external_task_id" => "the key is `task`",
        "external_task_group_id" => "the key is `group`",
        "execution_date" => "the key is `logical_date`",
        "params_input" | "op_kwargs" | "kwargs" | "arguments" => "the key is `input`",
        "python_callable" | "bash_command" | "image" | "command" | "operator" => {
            "a task runs a component: `component: name@version`"
        }
        "on_execute_callback" | "map" | "outlets" | "inlets" | "sla" | "deadline" => "not supported by this version",
        _ => return None,
    })
}
