//! Pages of lists: `limit` and `offset` of a query string, and what the answer says of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::ApiError;

/// Entries on a page when `limit` is left out.
pub const USUAL_LIMIT: usize = 50;
/// Most entries on a page.
pub const LARGEST_LIMIT: usize = 1000;
/// Largest `offset`.
pub const LARGEST_OFFSET: usize = 1_000_000;

/// Which page is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Most entries on it.
    pub limit: usize,
    /// Entries before it.
    pub offset: usize,
}

/// Which page of how many entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pagination {
    /// Entries in all.
    pub total: usize,
    /// Most entries on the page.
    pub limit: usize,
    /// Entries before the page.
    pub offset: usize,
}

/// Reads a query string. Unknown parameters are refused: a filter that is ignored would mislead.
///
/// # Errors
/// When a parameter is unknown or out of its bounds; the error names it.
pub fn of_query(query: &str, largest_limit: usize) -> Result<Page, ApiError> {
    let mut page = Page { limit: USUAL_LIMIT, offset: 0 };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = |smallest: usize, largest: usize| {
            value.parse().ok().filter(|number| (smallest..=largest).contains(number)).ok_or_else(|| {
                ApiError::invalid(name, format!("{name} is not a whole number from {smallest} to {largest}"))
            })
        };
        match name {
            "limit" => page.limit = number(1, largest_limit)?,
            "offset" => page.offset = number(0, LARGEST_OFFSET)?,
            _ => {
                let name: String = name.chars().take(64).collect();
                return Err(ApiError::invalid(name, "no such parameter; there are limit and offset"));
            }
        }
    }
    Ok(page)
}
