//! What the fuzz target of the whole machine plays: a gateway without sockets and clock, and the script that an input is.

pub mod gateway;
pub mod script;
