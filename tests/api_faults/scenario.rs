//! What people change, and what goes wrong meanwhile on the way of the operator that leads.

use std::collections::VecDeque;
use std::time::Duration;

use kube::Client;
use serde_json::json;
use tokio::task::JoinSet;
use voicedock::operator::leader::Timing;
use voicedock::resources::conditions::condition;

use crate::history::{Event, History, PATIENCE, short};
use crate::promises::{Broken, Look, watch_over};
use crate::stage::{GatewayPod, Operator, PACE, Pace, Stage, sales};
use crate::way::{Fault, Plan, Way};
use crate::world::World;

/// How often pods read the head besides watching it: hardly ever, in the time that a test takes.
const CONFIRM_EVERY: Duration = Duration::from_secs(60);

/// How fast operators are in a scene in which a fault strikes. With a short lease another operator takes over soon; but a
/// renewal has to be answered within `renew` however busy the machine is, or terms end before anything is done in them.
fn pace(fault: Fault) -> Pace {
    let seconds = Duration::from_secs_f64;
    let lease = match fault {
        Fault::Last | Fault::Stranded => {
            Timing { duration: seconds(5.0), give_up: seconds(4.0), renew: seconds(1.2) }
        }
        _ => Timing { duration: seconds(10.0), give_up: seconds(8.0), renew: seconds(2.0) },
    };
    // At once, so that collecting meets whatever comes next.
    Pace { lease, collect_after: Duration::ZERO, ..PACE }
}

/// What people do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// They write everything that a call needs.
    Begin,
    /// They delete the destination, to which the assistant still refers.
    Delete,
    /// They change the password of the trunk. Slices that the destination was in are useless now, and are deleted.
    Rotate,
    /// They make the destination again as it was: the same slices are needed again.
    MakeAgain,
    /// They make another destination of it, while an earlier change is still under way.
    MakeAnother,
}

/// A round of changes after which everything is as it was before, but for the password.
pub const ROUND: [Step; 3] = [Step::Delete, Step::Rotate, Step::MakeAgain];

/// Whose writes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// Those of the operator that leads.
    Operator,
    /// Those of the first gateway pod.
    Gateway,
}

/// A namespace with gateway pods and an operator that leads.
pub struct Scene {
    pub stage: Stage,
    history: History,
    fault: Fault,
    operator: Operator,
    /// The operator's way to the API server.
    pub way: Way,
    /// The first pod's, if it is the party.
    gateways_way: Option<Way>,
    _pods: Vec<GatewayPod>,
    _watching: JoinSet<()>,
    broken: Broken,
    look: Look,
    /// The revision up to which everything was looked at.
    looked_at: u64,
    written: Written,
}

/// What people wrote last, of what they change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The number of the destination; `None` without a destination.
    pub sales: Option<&'static str>,
    /// The trunk's password.
    pub password: String,
}

impl Scene {
    /// A scene for a fault on the way of a party, with one or more gateway pods, in which nothing was written yet.
    pub async fn open(fault: Fault, party: Party, pods: usize) -> Self {
        let stage = Stage::empty("fault").await;
        let history = History::of(&stage).await;
        let gateways_way = match party {
            Party::Operator => None,
            Party::Gateway => Some(Way::open(stage.client.clone()).await),
        };
        let (broken, mut watching, mut all) = (Broken::default(), JoinSet::new(), Vec::new());
        for number in 1..=pods {
            let way = gateways_way.as_ref().filter(|_| number == 1);
            let client = way.map(|way| Client::try_from(way.config.clone()).unwrap());
            let client = client.unwrap_or_else(|| stage.client.clone());
            let pod = stage.pod_over(&format!("gw-{number}"), client, CONFIRM_EVERY).await;
            watching.spawn(watch_over(&pod, broken.clone()));
            all.push(pod);
        }
        let way = Way::open(stage.client.clone()).await;
        let operator = stage.operator_at(pace(fault), way.config.clone());
        let look = Look::at(&stage.namespace);
        Self {
            stage,
            history,
            fault,
            operator,
            way,
            gateways_way,
            _pods: all,
            _watching: watching,
            broken,
            look,
            looked_at: 0,
            written: Written::default(),
        }
    }

    fn party(&self) -> &Way {
        self.gateways_way.as_ref().unwrap_or(&self.way)
    }

    /// Plays `steps` without a fault.
    pub async fn play_well(&mut self, steps: &[Step]) -> Result<(), String> {
        self.play(usize::MAX, steps).await.map(drop)
    }

    /// Plays `steps` with the fault at the party's n-th write. Returns whether there were as many.
    pub async fn play(&mut self, nth: usize, steps: &[Step]) -> Result<bool, String> {
        let fault = self.fault;
        let plan = self.party().plan(fault, nth);
        let played = self.act(&plan, steps).await;
        let complete = self.history.catch_up(&self.stage, |_| true).await?;
        let events = self.history.between(std::mem::replace(&mut self.looked_at, complete), complete);
        let mut broken = self.look.take_in(&events);
        broken.extend(played.err());
        broken.append(&mut self.broken.lock().unwrap());
        if broken.is_empty() {
            return Ok(plan.struck().is_some());
        }
        let write = plan.struck().map(|write| write.to_string()).unwrap_or_default();
        let (namespace, broken) = (&self.stage.namespace, short(&broken.join("\n")));
        let of_interest = |event: &&Event| event.name != "voicedock-operator";
        let lines: Vec<_> = events.iter().filter(of_interest).map(Event::line).collect();
        let events = lines.join("\n");
        Err(format!("{fault:?} at write {nth} {write} of {steps:?} in {namespace}:\n{broken}\n{events}"))
    }

    async fn act(&mut self, plan: &Plan, steps: &[Step]) -> Result<(), String> {
        let fault = self.fault;
        let mut ahead: VecDeque<Step> = steps.iter().copied().collect();
        let mut has_struck = false;
        while let Some(mut step) = ahead.pop_front() {
            self.change(step).await;
            if !has_struck {
                tokio::select! {
                    biased;
                    () = plan.strikes() => {}
                    done = self.done(step) => done?,
                }
            }
            let Some(write) = plan.struck().filter(|_| !has_struck) else {
                self.done(step).await?;
                continue;
            };
            has_struck = true;
            let old_leader = match fault {
                Fault::Last | Fault::Stranded => Some(self.take_over().await),
                _ => None,
            };
            // One that has crashed is gone; one that is cut off is still there, and tries.
            let old_leader = old_leader.filter(|_| fault == Fault::Stranded);
            if matches!(fault, Fault::Stranded | Fault::Late | Fault::StaleWatches) {
                // The next change overtakes it.
                step = ahead.pop_front().unwrap_or_else(|| {
                    ahead.push_back(Step::MakeAgain);
                    Step::MakeAnother
                });
                self.change(step).await;
                self.party().refresh();
            }
            self.done(step).await?;
            if matches!(fault, Fault::Stranded | Fault::Late) {
                plan.release().await;
                self.history.catch_up(&self.stage, |plural| write.path.contains(plural)).await?;
                self.done(step).await?;
            }
            if matches!(fault, Fault::Last | Fault::Stranded) {
                // The last thing that a new leader makes, so that the next round begins when it is done.
                let made = tokio::time::timeout(PATIENCE, self.way.has_written("deployments")).await;
                made.map_err(|_| "the next leader makes nothing of what a gateway needs")?;
            }
            drop(old_leader);
        }
        Ok(())
    }

    /// Another operator is started, over a way of its own. Returns the one that led, and its way.
    async fn take_over(&mut self) -> (Operator, Way) {
        let way = Way::open(self.stage.client.clone()).await;
        let operator = self.stage.operator_at(pace(self.fault), way.config.clone());
        (std::mem::replace(&mut self.operator, operator), std::mem::replace(&mut self.way, way))
    }

    async fn change(&mut self, step: Step) {
        let stage = &self.stage;
        let Written { sales: number, password } = &mut self.written;
        match step {
            Step::Begin => {
                (*number, *password) = (Some("+31612345678"), "first-password".to_owned());
                stage.gateway().await;
                stage.office().await;
            }
            Step::Delete => {
                *number = None;
                stage.delete("TransferDestination", "sales").await;
            }
            Step::Rotate => {
                password.push('+');
                stage.secret_value("office-pbx", "password", password).await;
            }
            Step::MakeAgain | Step::MakeAnother => {
                let made = if step == Step::MakeAgain { "+31612345678" } else { "+31687654321" };
                *number = Some(made);
                stage.apply("TransferDestination", "sales", sales(made)).await;
            }
        }
    }

    /// Waits until a step has done what it should.
    async fn done(&self, step: Step) -> Result<(), String> {
        let look = |world: &World| {
            world.shows(&self.written)?;
            match step {
                // No longer, so that the next step meets the writes that this one leads to.
                Step::Delete | Step::Rotate => world.is_published(),
                _ => world.is_converged().and_then(|()| world.is_collected()),
            }
        };
        self.history.until(look).await.map_err(|error| format!("{step:?}: {error}"))
    }

    /// Ends the operator; another one leads, looks at everything, and writes nothing.
    pub async fn stays_quiet(mut self) -> Result<(), String> {
        let (leader, _way) = self.take_over().await;
        leader.end().await;
        let before = self.history.catch_up(&self.stage, |_| true).await?;
        // An object that it has a status to write of, to know that it has looked.
        self.stage.apply("SipTrunk", "unrelated", json!({ "host": "line.example.com" })).await;
        let looked = |world: &World| {
            let reports = world.reports();
            let mut unrelated = reports.iter().filter(|report| report.object.key.name == "unrelated");
            let ready = unrelated.any(|report| report.says(condition::READY));
            ready.then_some(()).ok_or_else(|| "the new trunk isn't Ready".to_owned())
        };
        self.history.until(looked).await?;
        self.operator.end().await;
        let after = self.history.catch_up(&self.stage, |_| true).await?;
        let expected = ["unrelated", "voicedock-operator"];
        let events = self.history.between(before, after);
        let written: Vec<_> =
            events.iter().filter(|event| !expected.contains(&&*event.name)).map(Event::line).collect();
        if written.is_empty() { Ok(()) } else { Err(format!("another leader wrote {written:#?}")) }
    }
}
