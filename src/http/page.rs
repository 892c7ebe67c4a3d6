//! Pages of lists: `limit` and `offset` of a query string, and what the answer says of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::ApiError;
use crate::gateway::calls::KEEP_SECONDS;

/// Entries on a page when `limit` is left out.
pub const USUAL_LIMIT: usize = 50;
/// Most entries on a page.
pub const LARGEST_LIMIT: usize = 1000;
/// Largest `offset`.
pub const LARGEST_OFFSET: usize = 1_000_000;

/// The parameter of a list of calls: those that have been over for as many seconds or longer are left out.
pub const ENDED_WITHIN: &str = "ended_within";
/// Its largest value, and what it is when left out: all that are remembered.
pub const LONGEST_ENDED: usize = KEEP_SECONDS as usize;

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
    read(query, largest_limit, None)
}

/// Reads the query string of a list of calls: a page, and for how many seconds a call may have been over.
///
/// # Errors
/// As [`of_query`].
pub fn of_calls(query: &str, largest_limit: usize) -> Result<(Page, usize), ApiError> {
    let mut ended_within = LONGEST_ENDED;
    let page = read(query, largest_limit, Some(&mut ended_within))?;
    Ok((page, ended_within))
}

fn read(query: &str, largest_limit: usize, mut ended_within: Option<&mut usize>) -> Result<Page, ApiError> {
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
            ENDED_WITHIN if let Some(seconds) = ended_within.as_deref_mut() => {
                *seconds = number(0, LONGEST_ENDED)?
            }
            _ => {
                let name: String = name.chars().take(64).collect();
                let known = if ended_within.is_some() {
                    "limit, offset and ended_within"
                } else {
                    "limit and offset"
                };
                return Err(ApiError::invalid(name, format!("no such parameter; there are {known}")));
            }
        }
    }
    Ok(page)
}
