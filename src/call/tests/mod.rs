//! The call machine driven by hand (`flows`; `early`: before the answer; `sessions`: what passes between
//! joined legs) and at random (`properties`).

mod early;
mod flows;
mod properties;
mod sessions;
mod world;
