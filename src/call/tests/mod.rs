//! The call machine driven by hand (`flows`; `early`: before the answer; `sessions`: what passes between joined legs;
//! `referrals`: transfers by REFER; `identities`: who is shown to be calling) and at random (`properties`).

mod early;
mod flows;
mod identities;
mod properties;
mod referrals;
mod sessions;
mod world;
