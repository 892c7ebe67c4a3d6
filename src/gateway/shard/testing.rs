//! A destination that is tested: a call of the machine that nobody placed, with something to say in the caller's place.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{Entry, Shard, context};
use crate::call::{Call, CallStart};
use crate::gateway::call_id::CallId;
use crate::gateway::control::{ControlError, Test};
use crate::gateway::plane::TESTS;
use crate::routing::decide::Answer;
use crate::sip::endpoint::Opening;
use crate::sip::event::{Body, Flow, IncomingCall, Party, Reliability, Transport};

impl Shard {
    /// Dials a destination; the call that this is.
    pub(super) fn test(&mut self, test: &Test) -> Result<CallId, ControlError> {
        let shared = Arc::clone(&self.shared);
        if shared.intake.opening() != Opening::Open {
            return Err(ControlError::Full);
        }
        let permit = Arc::clone(&shared.tests).try_acquire_owned();
        let permit = permit.map_err(|_| ControlError::TooManyTests(TESTS))?;
        let snapshot = shared.snapshot.load();
        let Test { destination, number, namespace } = test;
        let answer = snapshot.index.test(destination, number.as_ref(), namespace.as_deref())?;
        let id = self.new_call();
        tracing::info!(call = %id, number = %answer.object(), "a destination is tested");
        let host = shared.advertised_host(Transport::Udp);
        let incoming = stand_in(id, &answer, host.parse().unwrap_or(Ipv4Addr::UNSPECIFIED.into()));
        let start = CallStart { id: id.to_string(), incoming, answer };
        let (call, effects) = Call::test(start, destination, context(self.now(), &snapshot, &shared.lines))?;
        let mut entry = Entry { permit: Some(permit), ..Entry::new(id, call, BTreeMap::new()) };
        // Whoever asked looks for it right away.
        entry.view.publish(&entry.call, &shared.calls);
        self.begin(entry, effects);
        Ok(id)
    }
}

/// What a caller would send: from the number itself, with an offer of silence.
fn stand_in(id: CallId, answer: &Answer, own: IpAddr) -> IncomingCall {
    let number = answer.number().to_string();
    let party = Party { display: String::new(), user: number.clone(), host: String::new() };
    let family = if own.is_ipv6() { "IP6" } else { "IP4" };
    let offer = format!(
        "v=0\r\no=- {} 1 IN {family} {own}\r\ns=-\r\nc=IN {family} {own}\r\nt=0 0\r\n\
         m=audio 9 RTP/AVP 0 8 101\r\na=rtpmap:101 telephone-event/8000\r\na=inactive\r\n",
        id.serial >> 1
    );
    IncomingCall {
        flow: Flow { transport: Transport::Udp, peer: SocketAddr::new(own, 0) },
        called: number.clone(),
        from: party.clone(),
        to: party,
        asserted: Some(number),
        privacy: false,
        max_forwards: 70,
        call_id: id.to_string(),
        authorization: Vec::new(),
        identity: Vec::new(),
        date: None,
        headers: Vec::new(),
        reliability: Reliability::Unknown,
        replaces: None,
        offer: Some(Body::sdp(offer)),
    }
}
