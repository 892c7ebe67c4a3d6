//! Stateless forwarding between pods: a request that reaches a pod which doesn't own its dialog goes on to the owner, a new
//! one that reaches a pod which drains goes on to one that doesn't, a CANCEL whose INVITE is not here goes to every other
//! pod, and the response comes back the same way (RFC 3261 §16.11).
//!
//! Our Via carries the source of the request, so nothing has to be remembered; its branch is a keyed digest of the source
//! and of the branch below it, so that a retransmission, a CANCEL and an ACK get the same one, and nobody can make us send
//! a response anywhere else.

use std::hash::Hasher;
use std::net::SocketAddr;

use bytes::Bytes;
use siphasher::sip::SipHasher24;
use sipx_sip::headers::{CSeq, MaxForwards, first_hop_end};
use sipx_sip::{Header, HeaderName, Message, Method, Request, Response, Via};

use super::event::{Flow, TlsPeer, Transport};
use super::read;
use super::via;

const BRANCH_PREFIX: &str = "z9hG4bKvp";

/// What we write into the Via of a request that we forward.
#[derive(Clone, Debug)]
pub struct OurVia {
    /// The address at which the owner's response reaches this pod, `host:port`.
    pub sent_by: String,
    /// Over what.
    pub transport: Transport,
    /// Secret random bytes of this process.
    pub key: [u8; 16],
}

/// Whether the hop below is another pod of ours, as its Via says. Good for nothing but for not mistaking that pod for the
/// peer: anybody can write such a branch.
pub fn is_forwarded(via: &Via) -> bool {
    via.branch().is_some_and(|branch| branch.starts_with(BRANCH_PREFIX.as_bytes()))
}

/// Whether a response belongs to [`forward_response`] rather than to an endpoint.
pub fn is_for_proxy(response: &Response) -> bool {
    read::top_via(&response.headers).is_some_and(|via| is_forwarded(&via))
}

/// Where a request that another pod passed on came from before, as that pod says; believe it only when the request came
/// from a pod.
pub fn source_of(request: &Request) -> Option<Flow> {
    let via = read::top_via(&request.headers).filter(is_forwarded)?;
    flow(std::str::from_utf8(via.param("vd-from")?).ok()?)
}

/// The Via that the sender of a request wrote, below those of the pods that passed it on. Its branch names the transaction,
/// whichever pods a retransmission, an ACK or a CANCEL comes through.
pub fn sender_via(request: &Request) -> Option<Via> {
    request.headers.get_all(&HeaderName::Via).find_map(|row| {
        let value = row.value();
        let via = Via::parse_one(value.get(..first_hop_end(&value))?).ok()?;
        (!is_forwarded(&via)).then_some(via)
    })
}

/// The branch of the Via that [`forward_request`] writes: the same for each repetition.
pub fn branch_for(request: &Request, source: Flow, our: &OurVia) -> Option<String> {
    Some(branch(&our.key, &read::top_via(&request.headers)?, &text(source)))
}

/// That branch in the response to a CANCEL; `None` in any other response.
pub fn branch_of_cancel(response: &Response) -> Option<Vec<u8>> {
    let cseq = response.headers.typed::<CSeq>()?.ok()?;
    (cseq.method == Method::Cancel).then_some(())?;
    Some(read::top_via(&response.headers)?.branch()?.to_vec())
}

/// The request as it goes on to its owner. `source` is where it came from. `None` when its Max-Forwards are used up (answer
/// 483) or its Via can't be read.
pub fn forward_request(request: &Request, source: Flow, our: &OurVia) -> Option<Bytes> {
    let below = read::top_via(&request.headers)?;
    let max_forwards = match request.headers.typed::<MaxForwards>() {
        Some(Ok(MaxForwards(0))) => return None,
        Some(Ok(MaxForwards(left))) => left - 1,
        _ => 70,
    };
    let source = text(source);
    let branch = branch(&our.key, &below, &source);
    let transport = our.transport.name();
    let via = format!("SIP/2.0/{transport} {};branch={branch};rport;vd-from=\"{source}\"", our.sent_by);
    let mut forwarded = request.clone();
    forwarded.headers.remove_all(&HeaderName::MaxForwards);
    forwarded.headers.push_front(Header::build(HeaderName::MaxForwards, max_forwards.to_string()).ok()?);
    forwarded.headers.push_front(Header::build(HeaderName::Via, via).ok()?);
    Some(Message::Request(forwarded).to_bytes())
}

/// The owner's response as it goes back, and where to. `None` when it isn't one to a request that we forwarded.
pub fn forward_response(response: &Response, our: &OurVia) -> Option<(Flow, Bytes)> {
    let ours = read::top_via(&response.headers)?;
    let source = String::from_utf8(ours.param("vd-from")?.to_vec()).ok()?;
    let mut back = response.clone();
    let row = back.headers.remove_first(&HeaderName::Via)?;
    let value = row.value();
    // Others may have joined the hops into one row.
    let rest = value.get(first_hop_end(&value) + 1..).unwrap_or_default().trim_ascii();
    if !rest.is_empty() {
        back.headers.push_front(Header::build(HeaderName::Via, rest.to_vec()).ok()?);
    }
    let below = read::top_via(&back.headers)?;
    (ours.branch()? == branch(&our.key, &below, &source).as_bytes()).then_some(())?;
    Some((via::response_flow(&below, flow(&source)?), Message::Response(back).to_bytes()))
}

fn branch(key: &[u8; 16], below: &Via, source: &str) -> String {
    let half = |domain: u8| {
        let mut hasher = SipHasher24::new_with_key(key);
        hasher.write_u8(domain);
        hasher.write(source.as_bytes());
        hasher.write_u8(0);
        hasher.write(&below.host.to_bytes());
        hasher.write_u16(below.port.unwrap_or(0));
        hasher.write(below.branch().unwrap_or_default());
        hasher.finish()
    };
    format!("{BRANCH_PREFIX}{:016x}{:016x}", half(b'p'), half(b'q'))
}

fn text(flow: Flow) -> String {
    format!("{} {}", flow.transport.name().to_ascii_lowercase(), flow.peer)
}

fn flow(text: &str) -> Option<Flow> {
    let (transport, peer) = text.split_once(' ')?;
    let transport = match transport {
        "tcp" => Transport::Tcp,
        // Whose certificate it carried is not told: nobody else can answer on it anyway.
        "tls" => Transport::Tls(TlsPeer::ANYBODY),
        _ => Transport::Udp,
    };
    Some(Flow { transport, peer: peer.parse::<SocketAddr>().ok()? })
}

#[cfg(test)]
mod tests;
