//! The operator on a real API server: every test has a namespace and operators of its own that watch only that, and
//! gateway pods whose control side is the real one.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test that can't go on panics")]

#[path = "operator/certificates.rs"]
mod certificates;
#[path = "operator/election.rs"]
mod election;
#[path = "operator/failover.rs"]
mod failover;
#[path = "operator/logs.rs"]
mod logs;
#[path = "operator/provisioning.rs"]
mod provisioning;
#[path = "operator/proxy.rs"]
mod proxy;
#[path = "operator/publishing.rs"]
mod publishing;
#[path = "operator/reachable.rs"]
mod reachable;
#[path = "operator/references.rs"]
mod references;
#[path = "operator/scaling.rs"]
mod scaling;
#[path = "operator/secrecy.rs"]
mod secrecy;
#[path = "operator/stage.rs"]
mod stage;
mod support;
#[path = "operator/verdicts.rs"]
mod verdicts;
