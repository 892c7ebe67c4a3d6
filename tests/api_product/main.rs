//! The product's REST API: the program `voicedock api` on a real API server, asked by curl.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

mod calls;
mod command_line;
mod conformance;
mod document;
mod keys;
mod ownership;
mod resources;
mod spans;
mod stage;
#[path = "../support/mod.rs"]
mod support;
