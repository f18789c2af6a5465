//! Path parameters, percent-decoded once. A text that cannot be an id names nothing: 404, as for any id that is not there.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use model::{DagId, MapIndex, RunId, TaskId, TryNumber};

use super::value::{self, at, shown, violation};
use crate::error::{ApiError, Code};

/// The parameters of the path.
pub(crate) struct PathArgs(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for PathArgs {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let raw = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::new(Code::RouteNotFound, "the path is not valid UTF-8 once it is decoded"))?;
        Ok(Self(
            raw.iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
        ))
    }
}

impl PathArgs {
    /// The text of a parameter; the empty text if the route has none of that name.
    pub(crate) fn text(&self, name: &str) -> &str {
        let found = self.0.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// A parameter that must be this literal: `POST …/dagRuns/list` shares its route with `GET …/dagRuns/{dag_run_id}`.
    pub(crate) fn literal(&self, name: &str, literal: &str) -> Result<(), ApiError> {
        if self.text(name) == literal {
            return Ok(());
        }
        Err(ApiError::new(Code::MethodNotAllowed, "this method is not allowed here"))
    }

    pub(crate) fn dag_id(&self) -> Result<DagId, ApiError> {
        let text = self.text("dag_id");
        DagId::new(text).map_err(|_| missing(Code::DagNotFound, "DAG", text))
    }

    /// `~` is any.
    pub(crate) fn any_dag_id(&self) -> Result<Option<DagId>, ApiError> {
        if self.text("dag_id") == "~" {
            return Ok(None);
        }
        self.dag_id().map(Some)
    }

    pub(crate) fn run_id(&self) -> Result<RunId, ApiError> {
        let text = self.text("dag_run_id");
        RunId::new(text).map_err(|_| missing(Code::DagRunNotFound, "dag run", text))
    }

    /// `~` is any.
    pub(crate) fn any_run_id(&self) -> Result<Option<RunId>, ApiError> {
        if self.text("dag_run_id") == "~" {
            return Ok(None);
        }
        self.run_id().map(Some)
    }

    pub(crate) fn task_id(&self) -> Result<TaskId, ApiError> {
        let text = self.text("task_id");
        TaskId::new(text).map_err(|_| missing(Code::TaskNotFound, "task", text))
    }

    /// `~` is any.
    pub(crate) fn any_task_id(&self) -> Result<Option<TaskId>, ApiError> {
        if self.text("task_id") == "~" {
            return Ok(None);
        }
        self.task_id().map(Some)
    }

    /// The map index in the path, if the route has one.
    pub(crate) fn map_index(&self) -> Result<Option<MapIndex>, ApiError> {
        match self.text("map_index") {
            "" => Ok(None),
            text => {
                let index = self.number("map_index", text)?;
                let index = i32::try_from(index).ok().filter(|index| *index >= -1);
                let index = index.ok_or_else(|| missing(Code::TaskInstanceNotFound, "map index", text))?;
                Ok(Some(MapIndex(index)))
            }
        }
    }

    pub(crate) fn try_number(&self, name: &str) -> Result<TryNumber, ApiError> {
        let text = self.text(name);
        let number = self.number(name, text)?;
        let number = u32::try_from(number).map_err(|_| missing(Code::TryNotFound, "try", text))?;
        Ok(TryNumber(number))
    }

    pub(crate) fn version_number(&self) -> Result<u32, ApiError> {
        let text = self.text("version_number");
        let number = self.number("version_number", text)?;
        u32::try_from(number).map_err(|_| missing(Code::DagVersionNotFound, "DAG version", text))
    }

    pub(crate) fn number(&self, name: &str, text: &str) -> Result<i64, ApiError> {
        value::integer(text).map_err(|(kind, msg)| {
            let violation = violation(at("path", name), kind, msg, shown(text));
            ApiError::violations(vec![violation])
        })
    }
}

fn missing(code: Code, what: &str, text: &str) -> ApiError {
    let shown: String = text.chars().take(64).collect();
    ApiError::new(code, format!("{what} `{shown}` does not exist"))
}
