//! The documentation: every page is in the book, every link leads somewhere, and every command is run or says why not.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

mod commands;
mod links;
#[path = "../support/mod.rs"]
mod support;
