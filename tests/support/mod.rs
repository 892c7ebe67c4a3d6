//! What the tests against real parts share. Each test binary takes what it needs with `mod support;`.
#![allow(dead_code)]

pub mod api_server;
pub mod kubelet;
pub mod net;
pub mod pages;
pub mod rules;
pub mod tools;
pub mod verdicts;
