//! The call machine driven by hand (`flows`; `early`: before the answer; `sessions`: what passes between joined legs;
//! `referrals`: transfers by REFER; `announcements`: what is said before one,
//! `farewells`: and before the end; `agents`: what passes between a call and its agent beside SIP; `attended`: with the agent's own call;
//! `replacements`: who comes in the place of a human; `trials`: destinations that are tested; `identities`: who is shown to be calling, `stir`: signed) and at random
//! (`properties`).

mod agents;
mod announcements;
mod attended;
mod early;
mod farewells;
mod flows;
mod identities;
mod newcomers;
mod properties;
mod referrals;
mod replacements;
mod sessions;
mod stir;
mod tables;
mod trials;
mod world;
