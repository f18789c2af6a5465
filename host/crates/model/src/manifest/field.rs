//! The format, as tables: which keys each section has, what their values are, and what they mean. The reader accepts what the
//! tables say, and the published JSON Schema is made from the same tables, so the two cannot drift apart.

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
    WeightRule,
    Component,
    Params,
    Section(&'static [Field]),
    Tasks,
    Input,
    Branches,
    ShortCircuit,
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
        "params",
        FieldKind::Params,
        "The parameters of a run: each a default value, or a JSON Schema with `default`.",
    ),
    field(
        "defaults",
        FieldKind::Section(SETTINGS),
        "Settings of all tasks that do not set their own.",
    ),
    field("tasks", FieldKind::Tasks, "The tasks, by id."),
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
    field("doc_md", FieldKind::Text, "Markdown for people."),
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
        "trigger_rule",
        FieldKind::TriggerRule,
        "When the task may run. Default: `all_success`.",
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
        "What the try may write to its log. Default: 10MiB.",
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

/// Airflow's names that have another name here, for hints.
pub(super) fn airflow_name(name: &str) -> Option<&'static str> {
    Some(match name {
        "dag_id" => "the key is `dag`",
        "execution_timeout" => "the key is `timeout`",
        "default_args" => "the key is `defaults`",
        "depends_on" | "upstream" | "needs" | "dependencies" => "the key is `after`",
        "is_paused_upon_creation" => "the key is `paused`",
        "task_concurrency" => "the key is `max_active_tis_per_dag`",
        "depends_on_past"
        | "wait_for_downstream"
        | "expand"
        | "map"
        | "setup"
        | "teardown"
        | "outlets"
        | "inlets"
        | "sla"
        | "deadline" => "not supported by this version",
        _ => return None,
    })
}
