//! One call's state machine: pure. `(state, input) → effects`; no sockets, no clock, no async.
//!
//! A [`Call`] holds a caller's leg and joins it with one other leg at a time: the assistant's agent, or a human. Whoever
//! is being dialled is an [`attempt`]; an attempt that is answered takes the caller over (a *hand-over*), one that is not
//! leaves everything as it was. Read [`machine`] for the dispatch, [`attempt`] for dialling, `transfer` for
//! who is dialled and what is told of it, `agent` for what passes between a call and its agent beside SIP, `announcement`
//! and `farewell` for what the assistant says before a transfer and before the end, [`hand_over`] for the moment in which a caller moves, `referral` for
//! what the caller's trunk does instead, `replacement` for who comes in the place of a human and `newcomer` for who comes in the caller's, [`relay`] for what passes between joined legs.
//!
//! What holds at every moment, whatever comes in whichever order (`tests` drives it at random):
//! - a leg that was dialled is hung up unless it ended by itself, exactly once;
//! - the agent's leg is left alone until the caller has moved; a transfer that fails changes nothing for the caller;
//! - nobody is dialled for a transfer before its message was heard to its end, or can't be heard any more;
//! - an agent that asked for a transfer hears its one outcome, as long as its leg is there;
//! - a caller who hangs up takes every leg of the call along, also one that is still ringing;
//! - each transfer has exactly one outcome, and `answered` can't be built without the accepted re-INVITE, or the trunk's
//!   own word that it was.

mod agent;
mod announcement;
pub mod attempt;
mod farewell;
pub mod hand_over;
mod identity;
pub mod input;
pub mod machine;
mod media;
mod newcomer;
pub mod outcome;
mod referral;
pub mod relay;
mod replacement;
pub mod sdp;
mod stir;
#[cfg(test)]
mod tests;
mod transfer;
mod trial;

pub use input::{
    AskId, Channel, Command, CommandRefusal, Conclusion, Context, Dial, Effect, Input, LegKey, Place, Record,
    Refer, Tell, TellId, Telling, Timer, Untold, Wish,
};
pub use machine::{Call, CallStart, Status};
pub use outcome::{Message, Outcome, TransferRecord, Try};
pub use relay::passed_on;
