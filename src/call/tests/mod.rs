//! The call machine driven by hand (`flows`; `sessions`: what passes between joined legs) and at random (`properties`).

mod flows;
mod properties;
mod sessions;
mod world;
