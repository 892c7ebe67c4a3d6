//! A datagram at the front door: it is let in, answered with a message that would be let in, or dropped; the guard's glance
//! agrees with what is read; and what is let in passes to another pod and back.

#![no_main]

use std::time::Duration;

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sipx_sip::{HeaderName, Limits, Message};
use voicedock::sip::challenger::{Challenger, Judged};
use voicedock::sip::event::{Flow, Transport};
use voicedock::sip::front_door::{Verdict, admit, reply_stateless};
use voicedock::sip::glance::{Claim, claim, claim_of};
use voicedock::sip::identity::{Identity, owner_of, owner_of_response, shard_of};
use voicedock::sip::proxy::{self, OurVia};

fn flow(last: u8) -> Flow {
    Flow { transport: Transport::Udp, peer: ([192, 0, 2, last], 5060).into() }
}

fn let_in(bytes: Bytes, from: Flow) -> Message {
    match admit(bytes.clone(), from, &Limits::datagram()) {
        Verdict::Message(message) => *message,
        other => panic!("{other:?} of {}", String::from_utf8_lossy(&bytes)),
    }
}

fuzz_target!(|data: &[u8]| {
    let identity = Identity::new(7, 0, [1; 16]);
    let seen = claim(data, &identity);
    match admit(Bytes::copy_from_slice(data), flow(1), &Limits::datagram()) {
        Verdict::Message(message) => {
            // A glance may miss what folding hides, but never sees what isn't there.
            assert!(seen != Claim::Proven || claim_of(&message, &identity) == Claim::Proven);
            let _ = shard_of(&message, 4);
            match *message {
                Message::Request(request) => passed_on(&request),
                Message::Response(response) => {
                    let _ = owner_of_response(&response);
                    let _ = proxy::forward_response(&response, &our());
                }
            }
        }
        Verdict::Reply { bytes, .. } => {
            let head = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
            assert!(head.starts_with(b"SIP/2.0 "), "{}", String::from_utf8_lossy(&bytes));
        }
        Verdict::Drop(_) | Verdict::Nothing => {}
    }
});

fn our() -> OurVia {
    OurVia { sent_by: "192.0.2.2:5060".into(), transport: Transport::Udp, key: [2; 16] }
}

fn passed_on(request: &sipx_sip::Request) {
    let _ = owner_of(request);
    let authorization: Vec<Vec<u8>> =
        request.headers.get_all(&HeaderName::Authorization).map(|row| row.value().into_owned()).collect();
    let judged = Challenger::new("realm".into(), [3; 16]).judge(
        &authorization,
        "INVITE",
        [((), "a", "b")],
        Duration::ZERO,
    );
    assert!(matches!(judged, Judged::Unanswered { .. }), "nobody has our nonce");
    let Some(onward) = proxy::forward_request(request, flow(1), &our()) else { return };
    let Message::Request(onward) = let_in(onward, flow(2)) else { panic!("it is a request") };
    assert_eq!(proxy::source_of(&onward), Some(flow(1)));
    let reply = reply_stateless(&onward, 200, "OK", &[]);
    let Message::Response(reply) = let_in(reply, flow(3)) else { panic!("it is a response") };
    let (_, back) = proxy::forward_response(&reply, &our()).expect("it comes back");
    let Message::Response(_) = let_in(back, flow(2)) else { panic!("it is a response") };
}
