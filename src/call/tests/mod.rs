//! The call machine driven by hand (`flows`; `early`: before the answer; `sessions`: what passes between joined legs;
//! `referrals`: transfers by REFER; `announcements`: what is said before one; `attended`: with the agent's own call;
//! `identities`: who is shown to be calling, `stir`: signed) and at random (`properties`).

mod announcements;
mod attended;
mod early;
mod flows;
mod identities;
mod properties;
mod referrals;
mod sessions;
mod stir;
mod tables;
mod world;
