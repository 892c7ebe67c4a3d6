//! The number of pods of one gateway: fixed, or by its calls as [`scale`] decides; what to apply, and what came of that.
//!
//! With `autoscaling` the number is kept nowhere but in the Deployment: a new leader goes on from the one that it finds there,
//! and from one that somebody else sets.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::resources::sip_gateway::Autoscaling;

use super::acknowledge::Roll;
use super::provision::{DEFAULT_REPLICAS, Provision, Replicas};
use super::scale::{self, Scaler};

/// The number of pods of one gateway.
#[derive(Debug, Default)]
pub struct Scaling {
    fixed: Option<i32>,
    autoscaling: Option<Autoscaling>,
    /// With `autoscaling`, once it is known how many pods there are.
    scaler: Option<Scaler>,
    /// Whether the number has to be decided anew.
    due: bool,
    /// As the Deployment says.
    replicas: Option<i32>,
}

/// A gateway has another number of pods by its calls.
#[derive(Debug)]
pub struct Scaled {
    /// How many it had.
    pub from: i32,
    /// How many it has.
    pub to: i32,
    /// Why, as a part of a sentence.
    pub why: String,
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "scaled from {} to {} pods: {}", self.from, self.to, self.why)
    }
}

impl Scaling {
    /// Takes in what the spec says.
    pub fn asked(&mut self, replicas: Option<i32>, autoscaling: Option<Autoscaling>) {
        self.fixed = replicas;
        self.scaler = self.scaler.take().filter(|_| autoscaling.is_some());
        self.autoscaling = autoscaling;
        self.due = true;
    }

    /// The pods, or their calls, are others.
    pub fn look_again(&mut self) {
        self.due = true;
    }

    /// Decides the number anew if something has changed, or if fewer were enough for long enough; returns whether another one
    /// has to be applied.
    pub fn decide(&mut self, roll: &Roll, now: Instant) -> bool {
        let (Some(autoscaling), Some(scaler)) = (&self.autoscaling, &mut self.scaler) else { return false };
        let ripe = scaler.wake().is_some_and(|at| at <= now);
        (std::mem::take(&mut self.due) || ripe) && scaler.decide(autoscaling, &roll.loads(), now)
    }

    /// When to decide anew although nothing has changed.
    pub fn wake(&self) -> Option<Instant> {
        self.scaler.as_ref()?.wake()
    }

    /// What to apply.
    pub fn wanted(&self) -> Replicas {
        match &self.autoscaling {
            None => Replicas::Fixed(self.fixed.unwrap_or(DEFAULT_REPLICAS)),
            Some(Autoscaling { min, max, .. }) => {
                let wanted = self.scaler.as_ref().map(Scaler::current);
                Replicas::ByCalls { wanted, min: *min, max: *max }
            }
        }
    }

    /// The marks on pods that have to change before that is applied.
    pub fn marks(&self, roll: &Roll) -> Vec<(String, Option<&'static str>)> {
        let fewer = self.replicas.zip(self.scaler.as_ref()).map(|(before, scaler)| before - scaler.current());
        fewer.filter(|fewer| *fewer > 0).map(|fewer| scale::marks(&roll.loads(), fewer)).unwrap_or_default()
    }

    /// Takes in that the Deployment was applied; returns how that has scaled the gateway by its calls, if it did.
    pub fn applied(&mut self, made: &Provision, window: Duration, now: Instant) -> Option<Scaled> {
        let replicas = made.replicas?;
        self.replicas = Some(replicas);
        let Autoscaling { min, max, .. } = self.autoscaling.as_ref()?;
        let why = match &mut self.scaler {
            Some(scaler) if !made.by_others => scaler.why().to_owned(),
            known => {
                match known {
                    Some(scaler) => scaler.set(replicas, now),
                    None => *known = Some(Scaler::new(window, replicas, now)),
                }
                self.due = true;
                format!("autoscaling goes from {min} to {max}")
            }
        };
        let from = made.replicas_before.filter(|before| *before != replicas)?;
        Some(Scaled { from, to: replicas, why })
    }

    /// How many pods there should be, once the Deployment says so.
    pub fn replicas(&self) -> Option<i32> {
        self.replicas
    }
}
