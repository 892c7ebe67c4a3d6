//! The call machine driven by hand (`flows`) and at random (`properties`).

mod flows;
mod properties;
mod world;
