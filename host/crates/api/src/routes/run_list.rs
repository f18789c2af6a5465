//! Lists of dag runs: the filters of `GET …/dagRuns` and of `POST …/dagRuns/list`, and the rows that only we can filter.

use model::{DagId, DagRunState};
use ports::query::{Listed, Page, RunField, RunFilter, RunRow, TimeRange};

use crate::error::ApiError;
use crate::openapi::{Kind, Param};
use crate::request::{JsonObject, NumberRange, Patterns, Query, text};
use crate::shape::duration;
use crate::state::App;
use crate::{order, page};

pub(super) const FILTERS: &[Param] = &[
    ("cursor", Kind::Text),
    ("run_after", Kind::Times),
    ("logical_date", Kind::Times),
    ("start_date", Kind::Times),
    ("end_date", Kind::Times),
    ("updated_at", Kind::Times),
    ("duration", Kind::Numbers),
    ("conf_contains", Kind::Text),
    ("run_type", Kind::Texts),
    ("state", Kind::Texts),
    ("dag_version", Kind::Ints),
    ("bundle_version", Kind::Text),
    ("run_id", Kind::Patterns),
    ("dag_id", Kind::Patterns),
    ("triggering_user_name", Kind::Patterns),
    ("partition_key", Kind::Patterns),
    ("consuming_asset_pattern", Kind::Text),
    ("order_by", Kind::Texts),
];

const COLUMNS: &[(&str, Option<RunField>)] = &[
    ("id", Some(RunField::Key)),
    ("state", Some(RunField::State)),
    ("dag_id", Some(RunField::DagId)),
    ("run_id", Some(RunField::RunId)),
    ("dag_run_id", Some(RunField::RunId)),
    ("logical_date", Some(RunField::LogicalDate)),
    ("run_after", Some(RunField::RunAfter)),
    ("start_date", Some(RunField::StartDate)),
    ("end_date", Some(RunField::EndDate)),
    ("updated_at", Some(RunField::UpdatedAt)),
    ("data_interval_start", Some(RunField::DataIntervalStart)),
    ("data_interval_end", Some(RunField::DataIntervalEnd)),
    ("partition_date", None),
];

/// Which runs: what the database filters by, and the rest.
#[derive(Default)]
pub(super) struct RunSelection {
    filter: RunFilter,
    dag_ids: Option<Vec<DagId>>,
    duration: NumberRange,
    conf_contains: Option<String>,
    run_ids: Patterns,
    dags: Patterns,
    users: Patterns,
    impossible: bool,
}

impl RunSelection {
    /// From a query string.
    pub(super) fn from_query(dag_id: Option<DagId>, query: &mut Query) -> Result<Self, ApiError> {
        let mut run_ids = query.patterns("run_id");
        let filter = RunFilter {
            dag_id,
            run_id_pattern: run_ids.take_like(),
            states: query.all_named("state"),
            run_types: query.all_named("run_type"),
            version_numbers: query.counts("dag_version"),
            run_after: query.times("run_after"),
            logical_date: query.times("logical_date"),
            start_date: query.times("start_date"),
            end_date: query.times("end_date"),
            updated_at: query.times("updated_at"),
            parent: None,
            order_by: Vec::new(),
        };
        let given = |name: &str| query.text(name).is_some_and(|text| !text.is_empty());
        let impossible = [
            "bundle_version",
            "partition_key_pattern",
            "partition_key_prefix_pattern",
        ]
        .into_iter()
        .chain(["consuming_asset_pattern"])
        .any(given);
        let selection = Self {
            duration: query.numbers("duration"),
            conf_contains: query
                .text("conf_contains")
                .filter(|text| !text.is_empty())
                .map(str::to_owned),
            dags: query.patterns("dag_id"),
            users: query.patterns("triggering_user_name"),
            dag_ids: None,
            run_ids,
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
        let dag_ids = body.texts("dag_ids");
        let states = body.list("states", |value| match value {
            serde_json::Value::Null => Err(("enum", "a dag run always has a state".to_owned())),
            value => text(value)?
                .parse::<DagRunState>()
                .map_err(|error| ("enum", error.to_string())),
        });
        let mut selection = Self {
            filter: RunFilter {
                states: states.unwrap_or_default(),
                run_after: body_times(&mut body, "run_after"),
                logical_date: body_times(&mut body, "logical_date"),
                start_date: body_times(&mut body, "start_date"),
                end_date: body_times(&mut body, "end_date"),
                ..RunFilter::default()
            },
            duration: body_numbers(&mut body, "duration"),
            conf_contains: body.text("conf_contains").filter(|text| !text.is_empty()),
            ..Self::default()
        };
        body.finish()?;
        selection.restrict_dags(dag_ids);
        Ok((selection.ordered(&Vec::from_iter(order_by))?, page))
    }

    fn restrict_dags(&mut self, dag_ids: Option<Vec<String>>) {
        let Some(dag_ids) = dag_ids.filter(|ids| !ids.is_empty()) else {
            return;
        };
        // A text that cannot be an id matches no DAG.
        let mut ids: Vec<DagId> = dag_ids.iter().filter_map(|id| DagId::new(id).ok()).collect();
        self.impossible |= ids.is_empty();
        if ids.len() == 1 {
            self.filter.dag_id = ids.pop();
        } else {
            self.dag_ids = Some(ids);
        }
    }

    fn ordered(mut self, names: &[String]) -> Result<Self, ApiError> {
        self.filter.order_by = order::parse(names, COLUMNS)?;
        Ok(self)
    }

    fn database_suffices(&self) -> bool {
        self.dag_ids.is_none()
            && self.duration.is_open()
            && self.conf_contains.is_none()
            && self.run_ids.is_empty()
            && self.dags.is_empty()
            && self.users.is_empty()
    }

    fn keeps(&self, row: &RunRow) -> bool {
        let user = row.triggering_user.as_deref().unwrap_or_default();
        self.dag_ids.as_ref().is_none_or(|ids| ids.contains(&row.dag_id))
            && self.duration.holds(duration(row.start_date, row.end_date))
            && self
                .conf_contains
                .as_ref()
                .is_none_or(|part| row.conf.contains(part.as_str()))
            && self.run_ids.matches(row.run_id.as_str())
            && self.dags.matches(row.dag_id.as_str())
            && self.users.matches(user)
    }

    pub(super) async fn rows(&self, app: &App, page: Page) -> Result<Listed<RunRow>, ApiError> {
        if self.impossible {
            return Ok(Listed {
                items: Vec::new(),
                total: 0,
            });
        }
        if self.database_suffices() {
            return Ok(app.metadata.runs(&self.filter, page).await?);
        }
        let mut rows = page::scan("this filter", |page| app.metadata.runs(&self.filter, page)).await?;
        rows.retain(|row| self.keeps(row));
        Ok(page::cut(rows, page))
    }
}

/// `page_offset` and `page_limit` of a batch request.
pub(super) fn batch_page(body: &mut JsonObject) -> Page {
    let mut number = |name: &str, default: u64| match body.integer(name) {
        Some(number) if number < 0 => {
            body.violate(name, "greater_than_equal", "this must not be negative");
            default
        }
        Some(number) => number.unsigned_abs(),
        None => default,
    };
    let offset = number("page_offset", 0);
    let limit = number("page_limit", u64::from(page::MAX_LIMIT));
    Page {
        limit: u32::try_from(limit).unwrap_or(page::MAX_LIMIT).min(page::MAX_LIMIT),
        offset: offset.min(i64::MAX.unsigned_abs() / 2),
    }
}

pub(super) fn body_times(body: &mut JsonObject, name: &str) -> TimeRange {
    TimeRange {
        gte: body.time(&format!("{name}_gte")),
        gt: body.time(&format!("{name}_gt")),
        lte: body.time(&format!("{name}_lte")),
        lt: body.time(&format!("{name}_lt")),
    }
}

pub(super) fn body_numbers(body: &mut JsonObject, name: &str) -> NumberRange {
    NumberRange {
        gte: body.number(&format!("{name}_gte")),
        gt: body.number(&format!("{name}_gt")),
        lte: body.number(&format!("{name}_lte")),
        lt: body.number(&format!("{name}_lt")),
    }
}
