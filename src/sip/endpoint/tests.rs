//! Endpoints joined by a virtual network with a virtual clock: what they do at every moment of a call, and when messages
//! get lost.

mod digest;
mod ending;
mod full;
mod large;
mod loss;
pub(crate) mod net;
mod passed_on;
mod races;
mod refer;
mod reliable;
mod replaces;
mod session_timers;
mod setup;
mod within;
