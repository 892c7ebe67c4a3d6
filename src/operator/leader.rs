//! Leader election: of the operator's replicas, one writes; all of them watch and compile.
//!
//! Promises: a term ends, for the replica that holds it, before another replica can begin one (its own monotonic deadline,
//! measured from the start of the last renewal that succeeded, is shorter than the lease); no clock of another machine
//! is trusted (a candidate waits until it has seen the same Lease unchanged for the whole lease duration); every call is
//! bounded; a replica that ends gives the lease back. kube-lease-manager isn't used: it doesn't report a lease that is lost
//! to API errors.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Timings of the lease. `renew < give_up < duration`.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long a lease holds without renewal.
    pub duration: Duration,
    /// How long a leader goes on without a renewal that succeeded.
    pub give_up: Duration,
    /// Pause between two renewals, and between two looks of a candidate.
    pub renew: Duration,
}

impl Timing {
    /// What is wrong with the timings, if anything is.
    pub fn check(&self) -> Result<(), String> {
        if self.renew < self.give_up && self.give_up < self.duration && !self.renew.is_zero() {
            return Ok(());
        }
        Err(format!(
            "lease timings {:?} (retry) < {:?} (renew deadline) < {:?} (duration) don't hold; \
             give --lease-retry-seconds, --lease-renew-deadline-seconds and --lease-duration-seconds in rising order",
            self.renew, self.give_up, self.duration
        ))
    }
}

/// The time for which this replica is the leader. Every write asks it first.
#[derive(Clone, Debug)]
pub struct Term {
    deadline: Arc<Mutex<Instant>>,
    ended: CancellationToken,
}

impl Term {
    /// A term that holds until `deadline`, unless it is renewed or ended.
    pub fn until(deadline: Instant) -> Self {
        Self { deadline: Arc::new(Mutex::new(deadline)), ended: CancellationToken::new() }
    }

    /// Whether this replica may write now. Once it may not, it never may again in this term: what was not begun for that
    /// reason is begun anew in the next.
    pub fn holds(&self) -> bool {
        !self.ended.is_cancelled() && Instant::now() < self.deadline()
    }

    /// Returns when the term has ended.
    pub async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn deadline(&self) -> Instant {
        *self.deadline.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prolongs the term; false when it has run out meanwhile.
    fn renew(&self, deadline: Instant) -> bool {
        let mut known = self.deadline.lock().unwrap_or_else(PoisonError::into_inner);
        let in_time = Instant::now() < *known;
        if in_time {
            *known = deadline;
        }
        in_time
    }

    fn end(&self) {
        self.ended.cancel();
    }
}

/// A candidate for the lease.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: Timing,
}

impl Elector {
    /// A candidate `identity`, unique among replicas and restarts, for the Lease `namespace/name`.
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str, timing: Timing) -> Self {
        Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: identity.to_owned(),
            timing,
        }
    }

    /// Runs until `stop`; says through `terms` when a term begins and when it has ended. Whoever cancels `stop` has stopped
    /// writing before: the lease is given back at once.
    pub async fn run(self, terms: watch::Sender<Option<Term>>, stop: CancellationToken) {
        let mut seen: Option<(String, Instant)> = None;
        while !stop.is_cancelled() {
            let started = Instant::now();
            match self.campaign(&mut seen).await {
                Ok(Some(lease)) => {
                    self.lead(lease, started, &terms, &stop).await;
                    seen = None;
                }
                Ok(None) => {}
                Err(error) => warn!("lease {}: {error}; it is tried again", self.name),
            }
            let pause = jitter(self.timing.renew);
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One attempt: the Lease, if it is ours now.
    async fn campaign(&self, seen: &mut Option<(String, Instant)>) -> Result<Option<Lease>, LeaseError> {
        let Some(lease) = self.bounded(self.api.get_opt(&self.name)).await? else {
            let lease = Lease {
                metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
                spec: Some(self.claim(None)),
            };
            return self.unless_lost_race(self.api.create(&PostParams::default(), &lease)).await;
        };
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        let spec = lease.spec.clone().unwrap_or_default();
        let free = spec.holder_identity.as_deref().unwrap_or_default().is_empty();
        let mine = spec.holder_identity.as_deref() == Some(&self.identity);
        let known_since = match seen {
            Some((known, since)) if *known == version => *since,
            _ => {
                let now = Instant::now();
                *seen = Some((version, now));
                now
            }
        };
        // The holder's own duration counts, should the timings of two versions of the operator differ.
        let held_for = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = held_for.map_or(self.timing.duration, Duration::from_secs).max(self.timing.duration);
        if !(free || mine || known_since.elapsed() >= duration) {
            return Ok(None);
        }
        let claimed = Lease { spec: Some(self.claim(Some(&spec))), ..lease };
        self.unless_lost_race(self.api.replace(&self.name, &PostParams::default(), &claimed)).await
    }

    /// Holds the lease that was claimed by a call begun at `started`, until it is lost or `stop`.
    async fn lead(
        &self,
        mut lease: Lease,
        started: Instant,
        terms: &watch::Sender<Option<Term>>,
        stop: &CancellationToken,
    ) {
        let term = Term::until(started + self.timing.give_up);
        info!("{} leads: it holds the lease {}", self.identity, self.name);
        terms.send_replace(Some(term.clone()));
        let mut pause = self.timing.renew;
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(term.deadline()) => break,
                () = tokio::time::sleep(pause) => {}
            }
            let started = Instant::now();
            let renewed = Lease { spec: Some(self.claim(lease.spec.as_ref())), ..lease.clone() };
            let remaining = term.deadline().saturating_duration_since(started);
            let params = PostParams::default();
            let call = self.api.replace(&self.name, &params, &renewed);
            match tokio::time::timeout(remaining.min(self.timing.renew), call).await {
                Ok(Ok(current)) => {
                    lease = current;
                    if !term.renew(started + self.timing.give_up) {
                        break;
                    }
                    pause = self.timing.renew;
                }
                Ok(Err(kube::Error::Api(status))) if status.is_conflict() || status.is_not_found() => {
                    // Our own renewal may have got through although its answer was lost; else somebody took the lease.
                    match self.bounded(self.api.get_opt(&self.name)).await {
                        Ok(Some(current)) if holder(&current) == Some(&self.identity) => {
                            lease = current;
                            pause = Duration::ZERO;
                        }
                        Ok(_) => break,
                        Err(_) => pause = self.timing.renew / 4,
                    }
                }
                Ok(Err(error)) => {
                    warn!("lease {}: renewal failed: {error}; it is tried again", self.name);
                    pause = self.timing.renew / 4;
                }
                Err(_) => {
                    warn!("lease {}: renewal wasn't answered in time; it is tried again", self.name);
                    pause = self.timing.renew / 4;
                }
            }
        }
        term.end();
        terms.send_replace(None);
        if stop.is_cancelled() {
            self.release(lease).await;
        } else {
            warn!(
                "{} no longer leads: the lease {} was lost; it is a candidate again",
                self.identity, self.name
            );
        }
    }

    /// Gives the lease back, so that another replica needn't wait for it to run out.
    async fn release(&self, lease: Lease) {
        let mut spec = lease.spec.clone().unwrap_or_default();
        spec.holder_identity = Some(String::new());
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let free = Lease { spec: Some(spec), ..lease };
        match self.bounded(self.api.replace(&self.name, &PostParams::default(), &free)).await {
            Ok(_) => info!("{} gave the lease {} back", self.identity, self.name),
            Err(error) => warn!("lease {} couldn't be given back and runs out by itself: {error}", self.name),
        }
    }

    fn claim(&self, previous: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let mut spec = previous.cloned().unwrap_or_default();
        if spec.holder_identity.as_deref() != Some(&self.identity) {
            let transitions = spec.lease_transitions.unwrap_or_default();
            spec.lease_transitions = Some(if previous.is_some() { transitions + 1 } else { 0 });
            spec.acquire_time = Some(now.clone());
            spec.holder_identity = Some(self.identity.clone());
        }
        spec.lease_duration_seconds =
            Some(i32::try_from(self.timing.duration.as_secs_f64().ceil() as i64).unwrap_or(i32::MAX).max(1));
        spec.renew_time = Some(now);
        spec
    }

    async fn bounded<T>(&self, call: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
        match tokio::time::timeout(self.timing.renew, call).await {
            Ok(result) => result.map_err(LeaseError::Api),
            Err(_) => Err(LeaseError::TimedOut),
        }
    }

    /// `None` when another replica was faster.
    async fn unless_lost_race(
        &self,
        call: impl Future<Output = kube::Result<Lease>>,
    ) -> Result<Option<Lease>, LeaseError> {
        match self.bounded(call).await {
            Ok(lease) => Ok(Some(lease)),
            Err(LeaseError::Api(kube::Error::Api(status)))
                if status.is_conflict() || status.is_already_exists() =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("no answer from the API server in time")]
    TimedOut,
    #[error("{0}")]
    Api(#[source] kube::Error),
}

fn holder(lease: &Lease) -> Option<&String> {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref())
}

/// Between 80 % and 120 % of `pause`, so that replicas don't knock in step.
fn jitter(pause: Duration) -> Duration {
    pause.mul_f64(rand::random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_term_that_has_run_out_is_not_brought_back_by_a_renewal_that_was_answered_late() {
        let second = Duration::from_secs(1);
        let term = Term::until(Instant::now() + second);
        assert!(term.renew(Instant::now() + second * 2), "in time");
        tokio::time::advance(second * 2).await;
        assert!(!term.holds());
        assert!(!term.renew(Instant::now() + second * 2));
        assert!(!term.holds(), "work was refused since: it is only begun anew in another term");
    }
}
