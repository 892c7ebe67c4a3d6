//! The double of OpenAI's Realtime API, as its clients see it: SIP over TLS, REST, a WebSocket, and signed webhooks that real
//! programs verify.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by a panic")]

mod calls;
mod client;
mod faults;
mod judges;
mod program;
#[path = "../support/realtime.rs"]
mod realtime;
#[path = "../support/tools.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod tools;
