//! Lists of task instances: the filters of `GET …/taskInstances` and of `POST …/taskInstances/list`.

use model::{DagId, MapIndex, RunId, TaskId, TaskInstanceState};
use ports::query::{Listed, Page, TiField, TiFilter, TiRow};

use super::run_list::{batch_page, body_numbers, body_times};
use crate::error::ApiError;
use crate::openapi::{Kind, Param};
use crate::request::{JsonObject, NumberRange, Patterns, Query, text};
use crate::shape::duration;
use crate::state::App;
use crate::{order, page};

pub(super) const FILTERS: &[Param] = &[
    ("cursor", Kind::Text),
    ("task_id", Kind::Text),
    ("run_after", Kind::Times),
    ("logical_date", Kind::Times),
    ("start_date", Kind::Times),
    ("end_date", Kind::Times),
    ("updated_at", Kind::Times),
    ("duration", Kind::Numbers),
    ("task_display_name", Kind::Patterns),
    ("task_group_id", Kind::Text),
    ("dag_id", Kind::Patterns),
    ("run_id", Kind::Patterns),
    ("state", Kind::Texts),
    ("cause", Kind::Texts),
    ("pool", Kind::Texts),
    ("pool_name", Kind::Patterns),
    ("queue", Kind::Texts),
    ("queue_name", Kind::Patterns),
    ("executor", Kind::Texts),
    ("version_number", Kind::Ints),
    ("try_number", Kind::Ints),
    ("operator", Kind::Texts),
    ("operator_name", Kind::Patterns),
    ("map_index", Kind::Ints),
    ("rendered_map_index", Kind::Patterns),
    ("order_by", Kind::Texts),
];

const COLUMNS: &[(&str, Option<TiField>)] = &[
    ("id", Some(TiField::Key)),
    ("task_id", Some(TiField::TaskId)),
    ("task_display_name", Some(TiField::TaskId)),
    ("map_index", Some(TiField::MapIndex)),
    ("state", Some(TiField::State)),
    ("duration", Some(TiField::Duration)),
    ("start_date", Some(TiField::StartDate)),
    ("end_date", Some(TiField::EndDate)),
    ("logical_date", Some(TiField::LogicalDate)),
    ("run_after", Some(TiField::RunAfter)),
    ("try_number", Some(TiField::TryNumber)),
    ("rendered_map_index", Some(TiField::RenderedMapIndex)),
];

/// Which task instances: what the database filters by, and the rest.
#[derive(Default)]
pub(super) struct TiSelection {
    filter: TiFilter,
    dag_ids: Option<Vec<DagId>>,
    run_ids: Option<Vec<RunId>>,
    map_indices: Vec<i64>,
    versions: Vec<u32>,
    operators: Vec<String>,
    duration: NumberRange,
    /// Only tasks of this group, however deep.
    group: Option<String>,
    /// What instances of mapped tasks are called.
    names: Patterns,
    tasks: Patterns,
    dags: Patterns,
    runs: Patterns,
    pools: Patterns,
    operator_names: Patterns,
    queues: Vec<String>,
    queue_names: Patterns,
    impossible: bool,
}

impl TiSelection {
    /// From a query string. `task_id` is that of the path, if it has one.
    pub(super) fn from_query(
        dag_id: Option<DagId>,
        run_id: Option<RunId>,
        task_id: Option<TaskId>,
        query: &mut Query,
    ) -> Result<Self, ApiError> {
        let mut tasks = query.patterns("task_display_name");
        let mut filter = TiFilter {
            dag_id,
            run_id,
            task_ids: task_id.into_iter().collect(),
            task_id_pattern: tasks.take_like(),
            states: query.states("state"),
            causes: query.all_named("cause"),
            pools: query.texts("pool"),
            start_date: query.times("start_date"),
            end_date: query.times("end_date"),
            logical_date: query.times("logical_date"),
            run_after: query.times("run_after"),
            updated_at: query.times("updated_at"),
            try_numbers: query.counts("try_number"),
            ..TiFilter::default()
        };
        let mut map_indices = query.ints("map_index");
        if let [one] = map_indices.as_slice() {
            filter.map_index = i32::try_from(*one).ok().map(MapIndex);
            if filter.map_index.is_some() {
                map_indices.clear();
            }
        }
        let given = |name: &str| query.text(name).is_some_and(|text| !text.is_empty());
        let mut impossible = given("executor");
        let group = query
            .text("task_group_id")
            .filter(|group| !group.is_empty())
            .map(str::to_owned);
        if let Some(task_id) = query.text("task_id").filter(|text| !text.is_empty()) {
            match TaskId::new(task_id) {
                Ok(task_id) => filter.task_ids = vec![task_id],
                Err(_) => impossible = true,
            }
        }
        let selection = Self {
            versions: query.counts("version_number"),
            operators: query.texts("operator"),
            duration: query.numbers("duration"),
            group,
            names: query.patterns("rendered_map_index"),
            dags: query.patterns("dag_id"),
            runs: query.patterns("run_id"),
            pools: query.patterns("pool_name"),
            operator_names: query.patterns("operator_name"),
            queues: query.texts("queue"),
            queue_names: query.patterns("queue_name"),
            dag_ids: None,
            run_ids: None,
            map_indices,
            tasks,
            impossible,
            filter,
        };
        query.finish()?;
        selection.ordered(&query.texts("order_by"))
    }

    /// From the body of a batch request; answers the page, too.
    pub(super) fn from_body(mut body: JsonObject) -> Result<(Self, Page), ApiError> {
        let page = batch_page(&mut body);
        let order_by = body.text("order_by");
        let states = body.list("state", |value| match value {
            serde_json::Value::Null => Ok(TaskInstanceState::NoStatus),
            value => text(value)?
                .parse::<TaskInstanceState>()
                .map_err(|error| ("enum", error.to_string())),
        });
        let given = |ids: Option<Vec<String>>| ids.filter(|ids| !ids.is_empty());
        let dag_ids = given(body.texts("dag_ids"));
        let run_ids = given(body.texts("dag_run_ids"));
        let task_ids = given(body.texts("task_ids"));
        let queues = body.texts("queue").unwrap_or_default();
        let elsewhere = body.texts("executor").unwrap_or_default();
        // Texts that cannot be ids match nothing.
        let dag_ids = dag_ids.map(|ids| ids.iter().filter_map(|id| DagId::new(id).ok()).collect::<Vec<_>>());
        let run_ids = run_ids.map(|ids| ids.iter().filter_map(|id| RunId::new(id).ok()).collect::<Vec<_>>());
        let task_ids = task_ids.map(|ids| ids.iter().filter_map(|id| TaskId::new(id).ok()).collect::<Vec<_>>());
        let mut selection = Self {
            filter: TiFilter {
                states: states.unwrap_or_default(),
                pools: body.texts("pool").unwrap_or_default(),
                run_after: body_times(&mut body, "run_after"),
                logical_date: body_times(&mut body, "logical_date"),
                start_date: body_times(&mut body, "start_date"),
                end_date: body_times(&mut body, "end_date"),
                ..TiFilter::default()
            },
            duration: body_numbers(&mut body, "duration"),
            queues,
            impossible: !elsewhere.is_empty()
                || dag_ids.as_ref().is_some_and(Vec::is_empty)
                || run_ids.as_ref().is_some_and(Vec::is_empty)
                || task_ids.as_ref().is_some_and(Vec::is_empty),
            ..Self::default()
        };
        body.finish()?;
        selection.filter.task_ids = task_ids.unwrap_or_default();
        match dag_ids.as_deref() {
            Some([one]) => selection.filter.dag_id = Some(one.clone()),
            _ => selection.dag_ids = dag_ids,
        }
        match run_ids.as_deref() {
            Some([one]) => selection.filter.run_id = Some(one.clone()),
            _ => selection.run_ids = run_ids,
        }
        Ok((selection.ordered(&Vec::from_iter(order_by))?, page))
    }

    fn ordered(mut self, names: &[String]) -> Result<Self, ApiError> {
        self.filter.order_by = order::parse(names, COLUMNS)?;
        Ok(self)
    }

    /// Only instances of what is repeated: Airflow lists what waits to be expanded among the others.
    pub(super) fn mapped(mut self) -> Self {
        self.filter.only_mapped = true;
        self
    }

    fn database_suffices(&self) -> bool {
        let patterns = [
            &self.tasks,
            &self.names,
            &self.dags,
            &self.runs,
            &self.pools,
            &self.operator_names,
            &self.queue_names,
        ];
        self.dag_ids.is_none()
            && self.group.is_none()
            && self.run_ids.is_none()
            && self.map_indices.is_empty()
            && self.versions.is_empty()
            && self.operators.is_empty()
            && self.queues.is_empty()
            && self.duration.is_open()
            && patterns.iter().all(|patterns| patterns.is_empty())
    }

    fn keeps(&self, row: &TiRow) -> bool {
        self.dag_ids.as_ref().is_none_or(|ids| ids.contains(&row.dag_id))
            && self.run_ids.as_ref().is_none_or(|ids| ids.contains(&row.run_id))
            && (self.map_indices.is_empty() || self.map_indices.contains(&i64::from(row.key.map_index.0)))
            && (self.versions.is_empty() || self.versions.contains(&row.version_number))
            && (self.operators.is_empty() || self.operators.contains(&row.operator))
            && self.duration.holds(duration(row.start_date, row.end_date))
            && self.group.as_deref().is_none_or(|group| in_group(&row.task_id, group))
            && (self.names.is_empty()
                || row
                    .rendered_map_index
                    .as_deref()
                    .is_some_and(|name| self.names.matches(name)))
            && self.tasks.matches(row.task_id.as_str())
            && self.dags.matches(row.dag_id.as_str())
            && self.runs.matches(row.run_id.as_str())
            && self.pools.matches(&row.pool)
            && self.operator_names.matches(&row.operator_name)
            && (self.queues.is_empty() || self.queues.contains(&row.queue))
            && self.queue_names.matches(&row.queue)
    }

    pub(super) async fn rows(&self, app: &App, page: Page) -> Result<Listed<TiRow>, ApiError> {
        if self.impossible {
            return Ok(Listed {
                items: Vec::new(),
                total: 0,
            });
        }
        let mut listed = if self.database_suffices() {
            app.metadata.task_instances(&self.filter, page).await?
        } else {
            let mut rows = page::scan("this filter", |page| app.metadata.task_instances(&self.filter, page)).await?;
            rows.retain(|row| self.keeps(row));
            page::cut(rows, page)
        };
        overlay(app, &mut listed.items);
        Ok(listed)
    }
}

/// Whether a task lies in a group: its id begins with that of the group.
pub(super) fn in_group(task_id: &TaskId, group: &str) -> bool {
    let rest = task_id.as_str().strip_prefix(group);
    rest.is_some_and(|rest| rest.starts_with('.'))
}

/// Lays what memory knows over rows of any runs.
pub(super) fn overlay(app: &App, rows: &mut [TiRow]) {
    for rows in rows.chunk_by_mut(|left, right| left.key.run == right.key.run) {
        if let Some(first) = rows.first() {
            app.control.overlay(first.key.run, rows);
        }
    }
}
