//! The whole system with real parts: Kubernetes with two nodes, the chart, the image, and real SIP calls from outside.
//!
//! SIPp plays the carrier, the assistant's agent and the human (`sipp/*.xml`), Kamailio a trunk that demands digest
//! authentication (`kamailio/trunk.cfg`); they are ordinary processes on this machine, outside of the cluster. One cluster
//! serves all tests, which take turns and keep apart by namespaces. What a test starts ends with it, however it ends.
//!
//! `KUBECONFIG` names the cluster, which must be able to reach this machine; `hack/test.sh` brings one up. Tests that
//! stop parts of the cluster need one of `tests/cluster`, and say so.

// Whatever is not as it should be fails the test, and says what it was.
#![allow(clippy::expect_used)]

mod calls;
mod command_line;
mod configuration;
mod digest;
mod events;
mod exposure;
mod faults;
mod harness;
mod load;
mod models;
mod product_api;
mod refusals;
mod registration;
mod release;
mod scaling;
mod transfers;
