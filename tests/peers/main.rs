//! One gateway with real peers: SIPp, Kamailio, PJSUA2 and baresip, each in a process of its own, in a network that each test makes
//! for itself.
//!
//! The gateway is the program as it is shipped; it serves from its disk copy and never sees an API server, so a test takes
//! seconds and many run at once. Flows run twice: as they are, and with one datagram in twenty from and to the gateway lost
//! (`with_one_datagram_in_twenty_lost::`), where each has to end just as well.
//!
//! It takes root, for the networks. `hack/tools.sh cluster` installs the programs.

// Whatever is not as it should be fails the test, and says what it was.
#![allow(clippy::expect_used)]

/// Makes tests of flows, each a function that is given a stage: one test without loss, and one with.
macro_rules! flows {
    ($($flow:ident),* $(,)?) => {
        mod with_nothing_lost {
            $(#[test]
            fn $flow() {
                super::$flow($crate::harness::stage::Stage::new($crate::harness::network::Loss::None));
            })*
        }

        mod with_one_datagram_in_twenty_lost {
            $(#[test]
            fn $flow() {
                super::$flow($crate::harness::stage::Stage::new($crate::harness::network::Loss::OneInTwenty));
            })*
        }
    };
}

mod agents;
mod audio;
mod calls;
mod harness;
mod ipv6;
mod legs;
mod offices;
mod secured;
mod transfers;
mod trunks;
