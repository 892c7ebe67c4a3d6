//! One shard's SIP: legs, transactions, timers. Inputs: admitted messages, time, commands. Outputs: bytes and leg events.

use bytes::Bytes;

use super::event::{Body, Flow, LegEvent, LegId, OutgoingInvite, RequestId};
use super::time::Millis;

/// What a shard's endpoint produces.
#[derive(Clone, Debug)]
pub enum Output {
    /// Bytes to send.
    Transmit {
        /// Where to.
        flow: Flow,
        /// One whole SIP message.
        bytes: Bytes,
    },
    /// Something happened on a leg.
    Leg(LegId, LegEvent),
}

/// See the module.
pub struct Endpoint {}

#[allow(unused_variables)]
impl Endpoint {
    /// Sends an INVITE.
    pub fn invite(&mut self, invite: OutgoingInvite, now: Millis) -> LegId {
        LegId(1)
    }
    /// Sends a provisional response (101–199) to the leg's INVITE.
    pub fn progress(&mut self, leg: LegId, code: u16, body: Option<Body>, now: Millis) {}
    /// Sends 200 to the leg's INVITE and repeats it until it is acknowledged.
    pub fn answer(&mut self, leg: LegId, body: Option<Body>, now: Millis) {}
    /// Refuses the leg's INVITE with 300–699; `headers` such as Retry-After or Reason.
    pub fn refuse(&mut self, leg: LegId, code: u16, headers: &[(&str, String)], now: Millis) {}
    /// Acknowledges the 2xx to an INVITE or re-INVITE that carried no offer.
    pub fn ack(&mut self, leg: LegId, body: Option<Body>, now: Millis) {}
    /// Sends a re-INVITE; one that meets another in flight waits its turn.
    pub fn reoffer(&mut self, leg: LegId, offer: Option<Body>, now: Millis) {}
    /// Answers a request inside the leg.
    pub fn respond(&mut self, leg: LegId, request: RequestId, code: u16, body: Option<Body>, now: Millis) {}
    /// Sends NOTIFY with a sipfrag body (`SIP/2.0 code reason`) about the leg's last REFER; `last` ends the subscription.
    pub fn notify(&mut self, leg: LegId, request: RequestId, code: u16, reason: &str, last: bool, now: Millis) {}
    /// Sends a request inside the leg (INFO, MESSAGE).
    pub fn request(&mut self, leg: LegId, method: &str, body: Option<Body>, now: Millis) -> RequestId {
        RequestId(1)
    }
    /// Ends the leg in whatever way its state asks for: CANCEL (once a 1xx came), refusal of an unanswered INVITE (487/480),
    /// BYE (after the ACK), ACK + BYE for a 2xx that crosses. `reason` becomes the Reason header.
    pub fn hang_up(&mut self, leg: LegId, reason: Option<&str>, now: Millis) {}
    /// When [`Self::handle_timeout`] must be called next.
    pub fn next_timeout(&self) -> Option<Millis> {
        None
    }
    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Millis) {}
    /// The next output; drain after every call.
    pub fn poll(&mut self) -> Option<Output> {
        None
    }
}
