//! What a template may use. Everything here is bounded by the size of its operands: a filter that can grow a value without
//! bound (`center`, `format`, `indent`, …) is not in the lists, and `replace` and `join` are ours.

/// Names that stand for a run's data.
pub(super) const ROOTS: &[&str] = &[
    "xcom",
    "previous",
    "item",
    "iteration",
    "callback",
    "params",
    "conf",
    "dag_id",
    "run_id",
    "task_id",
    "map_index",
    "try_number",
    "logical_date",
    "data_interval_start",
    "data_interval_end",
    "ds",
    "ds_nodash",
    "ts",
    "ts_nodash",
];

/// Functions.
pub(super) const FUNCTIONS: &[&str] = &["xcom_key", "range"];

/// Filters.
pub(super) const FILTERS: &[&str] = &[
    "abs",
    "attr",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "dictsort",
    "first",
    "float",
    "groupby",
    "int",
    "items",
    "join",
    "last",
    "length",
    "lines",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "select",
    "selectattr",
    "sort",
    "split",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "unique",
    "upper",
];

/// Tests (`is …`).
pub(super) const TESTS: &[&str] = &[
    "boolean",
    "defined",
    "divisibleby",
    "endingwith",
    "eq",
    "equalto",
    "even",
    "false",
    "float",
    "ge",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sequence",
    "startingwith",
    "string",
    "true",
    "undefined",
];

/// The longest string with a template, in bytes.
pub(super) const MAX_TEMPLATE_BYTES: usize = 16 << 10;

/// How many tokens one `{{ … }}` or `{% … %}` may have. The engine parses, compiles and drops expressions by recursion, and not
/// every chain (`not not …`, `a - a - …`) counts for its own bound.
pub(super) const MAX_TOKENS: usize = 500;

/// How many `+`, `~` and `*` one template may have: each can copy its operands.
pub(super) const MAX_COPIES: usize = 100;

/// Airflow's names that have another name here, or none yet.
pub(super) fn airflow_hint(name: &str) -> Option<&'static str> {
    Some(match name {
        "dag_run" => "use `run_id`, `conf` or `logical_date` directly",
        "dag" => "use `dag_id`",
        "task" => "use `task_id`",
        "ti" | "task_instance" => {
            "XComs are `xcom.<task>` or `xcom_key(\"<task>\", \"<key>\")`; see also `task_id`, `try_number`"
        }
        "execution_date" => "use `logical_date`",
        "var" | "conn" => "variables and connections are not supported by this version",
        "macros" => "macros are not supported; use filters",
        _ => return None,
    })
}
