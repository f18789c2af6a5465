//! Paging as Airflow does it, and filters that the database does not know: those search a bounded number of rows here.

use ports::query::{Listed, Page, QueryError};

use crate::error::{ApiError, Code};

/// What a list answers where the caller names no limit (Airflow: `fallback_page_limit`).
pub(crate) const DEFAULT_LIMIT: u32 = 50;
/// The longest page; a larger limit is cut down (Airflow: `maximum_page_limit`).
pub(crate) const MAX_LIMIT: u32 = 100;
/// How many rows a filter may search outside of the database.
const SCAN_ROWS: u64 = 20_000;
const SCAN_PAGE: u32 = 1_000;

/// Reads all rows, at most [`SCAN_ROWS`]. `what` names the filters that need it.
pub(crate) async fn scan<T, F, Fut>(what: &str, mut fetch: F) -> Result<Vec<T>, ApiError>
where
    F: FnMut(Page) -> Fut,
    Fut: Future<Output = Result<Listed<T>, QueryError>>,
{
    let mut rows = Vec::new();
    loop {
        let page = Page {
            limit: SCAN_PAGE,
            offset: rows.len() as u64,
        };
        let listed = fetch(page).await?;
        if listed.total > SCAN_ROWS {
            return Err(ApiError::new(
                Code::TooManyRows,
                format!(
                    "{what} would have to search {} rows, at most {SCAN_ROWS} are searched; narrow the list down by other filters",
                    listed.total
                ),
            ));
        }
        let empty = listed.items.is_empty();
        rows.extend(listed.items);
        if empty || rows.len() as u64 >= listed.total {
            return Ok(rows);
        }
    }
}

/// The page of rows that are all in memory.
pub(crate) fn cut<T>(rows: Vec<T>, page: Page) -> Listed<T> {
    let total = rows.len() as u64;
    let offset = usize::try_from(page.offset).unwrap_or(usize::MAX);
    let items = rows.into_iter().skip(offset).take(page.limit as usize).collect();
    Listed { items, total }
}

/// A cursor is an offset that the caller need not understand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor(pub(crate) u64);

impl Cursor {
    /// The first page is the empty text.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        if text.is_empty() {
            return Ok(Self(0));
        }
        let offset = text.strip_prefix('p').and_then(|digits| digits.parse().ok());
        offset
            .map(Self)
            .ok_or_else(|| ApiError::new(Code::InvalidToken, "the cursor is not one that this server gave out"))
    }

    /// The cursors after and before a page.
    pub(crate) fn around(page: Page, total: u64) -> (Option<String>, Option<String>) {
        let next = page.offset.saturating_add(u64::from(page.limit));
        let previous = page.offset.saturating_sub(u64::from(page.limit));
        (
            (next < total && page.limit > 0).then(|| format!("p{next}")),
            (page.offset > 0).then(|| format!("p{previous}")),
        )
    }
}
