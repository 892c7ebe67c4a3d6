//! The call machine driven by hand (`flows`; `early`: before the answer; `sessions`: what passes between joined legs;
//! `referrals`: transfers by REFER; `announcements`: what is said before one; `identities`: who is shown to be calling, `stir`:
//! signed) and at random (`properties`).

mod announcements;
mod early;
mod flows;
mod identities;
mod properties;
mod referrals;
mod sessions;
mod stir;
mod world;
