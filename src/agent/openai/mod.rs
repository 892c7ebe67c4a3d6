//! OpenAI Realtime over SIP, and servers that speak like it.
//!
//! ```text
//! INVITE sip:proj_…@sip.api.openai.com ──▶ webhook realtime.call.incoming ──▶ accept (REST) ──▶ 200 to the INVITE
//!                                                                               └──▶ WebSocket: events of the conversation
//! ```
//!
//! [`webhook`], [`script`], [`events`] and [`conversation`] are pure; [`rest`] and [`socket`] are the ways to the API, and
//! `gateway::session` drives all of them for a call.

pub mod conversation;
pub mod events;
pub mod rest;
pub mod script;
pub mod socket;
pub mod webhook;
