//! How an AI is reached and spoken to beside SIP.
//!
//! An agent that speaks SIP for itself needs nothing of this. For one over OpenAI ([`openai`]) the gateway takes the part of the
//! program behind it: it answers the webhook, runs the session and carries out what the model asks for.

pub mod openai;

/// The innermost reason: "connection refused" rather than "client error".
pub(crate) fn innermost(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
