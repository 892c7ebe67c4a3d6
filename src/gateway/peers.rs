//! The other pods of the same gateway: where a SIP request or an HTTP request about one of their calls is sent.
//!
//! Known from their Leases (the acknowledgements, see `routing::ack`), watched by label. Fail-static: a lost watch leaves
//! the peers as they were last seen. A pod that is draining is a peer like any other: it has calls.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch_objects};
use kube::{Api, Client, ResourceExt};

use super::acknowledge::OwnLease;
use super::call_id::Instance;
use super::config::Config;
use super::metrics::GatewayMetrics;
use crate::routing::ack::{self, Acknowledgement, TrunkReports};

/// Seconds after which the API server ends a watch and it is resumed; five more, and a watch that went silent is replaced.
const WATCH_SECONDS: u32 = 45;

/// The other pods of this gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers(pub HashMap<Instance, Peer>);

/// Another pod of this gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The pod's name, for logs and warnings.
    pub pod: String,
    /// Where it takes SIP: on the same ports as this pod.
    pub sip: IpAddr,
    /// Where it takes HTTP.
    pub http: SocketAddr,
    /// It takes no new calls; those that it has it keeps.
    pub draining: bool,
    /// What it found about the trunks that it keeps.
    pub trunks: TrunkReports,
}

impl Peers {
    /// The pod that has this instance.
    pub fn get(&self, instance: Instance) -> Option<&Peer> {
        self.0.get(&instance)
    }

    /// Whether a pod has this address, in its canonical form.
    pub fn has(&self, address: IpAddr) -> bool {
        self.0.values().any(|peer| peer.sip == address)
    }
}

/// Keeps `peers` current until the process ends, and shows this pod's own Lease to `own`.
pub async fn watch(
    client: Client,
    config: Config,
    peers: Arc<ArcSwap<Peers>>,
    own: Arc<OwnLease>,
    metrics: GatewayMetrics,
) {
    let leases: Api<Lease> = Api::namespaced(client, &config.pod.namespace);
    let selector = watcher::Config::default().labels(&ack::selector(&config.gateway)).timeout(WATCH_SECONDS);
    let mut known = Known::new(&config.pod.name);
    let mut events = pin!(watch_objects(leases, selector).default_backoff());
    while let Some(event) = events.next().await {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(
                    "the Leases of gateway {} can't be watched, trying again: {error}",
                    config.gateway
                );
                continue;
            }
        };
        if let Some(version) = known.hear(event) {
            own.show(version);
        }
        if let Some(found) = known.changed(&peers.load()) {
            metrics.peers.set(i64::try_from(found.0.len()).unwrap_or(i64::MAX));
            peers.store(Arc::new(found));
        }
    }
}

/// The peers as the events of the watch tell them.
struct Known {
    /// This pod's name.
    own: String,
    /// By the name of the Lease, which is the pod's.
    pods: BTreeMap<String, (Instance, Peer)>,
    /// A list that is being received; replaces `pods` once it is complete.
    listed: Option<BTreeMap<String, (Instance, Peer)>>,
    /// The version of this pod's own Lease in that list.
    own_listed: Option<String>,
}

impl Known {
    fn new(own: &str) -> Self {
        Self { own: own.to_owned(), pods: BTreeMap::new(), listed: None, own_listed: None }
    }

    /// Takes an event in. Returns what it says of this pod's own Lease, if anything: its version, or that there is none.
    fn hear(&mut self, event: Event<Lease>) -> Option<Option<String>> {
        match event {
            Event::Init => {
                self.listed = Some(BTreeMap::new());
                self.own_listed = None;
            }
            Event::InitApply(lease) if lease.name_any() == self.own => {
                self.own_listed = lease.resource_version();
            }
            Event::InitApply(lease) => {
                let listed = self.listed.get_or_insert_default();
                listed.extend(peer(&lease).map(|found| (lease.name_any(), found)));
            }
            Event::InitDone => {
                self.pods = self.listed.take().unwrap_or_default();
                return Some(self.own_listed.take());
            }
            Event::Apply(lease) if lease.name_any() == self.own => return Some(lease.resource_version()),
            Event::Delete(lease) if lease.name_any() == self.own => return Some(None),
            Event::Apply(lease) => match peer(&lease) {
                Some(found) => drop(self.pods.insert(lease.name_any(), found)),
                None => drop(self.pods.remove(&lease.name_any())),
            },
            Event::Delete(lease) => drop(self.pods.remove(&lease.name_any())),
        }
        None
    }

    /// The peers, if they are others than `before`.
    fn changed(&self, before: &Peers) -> Option<Peers> {
        let found = Peers(self.pods.values().map(|(instance, peer)| (*instance, peer.clone())).collect());
        if found == *before { None } else { Some(found) }
    }
}

/// The pod that a Lease speaks of; `None` (and a warning) when it can't be read.
pub fn peer(lease: &Lease) -> Option<(Instance, Peer)> {
    let pod = lease.name_any();
    let said = match Acknowledgement::parse(lease.annotations()) {
        Ok(said) => said,
        Err(error) => {
            tracing::warn!("Lease {pod} is not used to reach its pod: {error}");
            return None;
        }
    };
    match said.address.parse::<SocketAddr>() {
        Ok(http) => {
            let Acknowledgement { draining, trunks, .. } = said;
            Some((Instance(said.instance), Peer { pod, sip: http.ip(), http, draining, trunks }))
        }
        Err(_) => {
            tracing::warn!("Lease {pod} is not used to reach its pod: '{}' is not ip:port", said.address);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(pod: &str, instance: u32, address: &str) -> Lease {
        let said = Acknowledgement { instance, address: address.to_owned(), ..Acknowledgement::default() };
        let mut lease = Lease::default();
        lease.metadata.name = Some(pod.to_owned());
        lease.metadata.resource_version = Some("7".to_owned());
        lease.metadata.annotations = Some(said.annotations());
        lease
    }

    fn listed(leases: Vec<Lease>) -> Vec<Event<Lease>> {
        let applied = leases.into_iter().map(Event::InitApply);
        [Event::Init].into_iter().chain(applied).chain([Event::InitDone]).collect()
    }

    fn pods(known: &Known) -> Vec<String> {
        let found = known.changed(&Peers::default()).unwrap_or_default();
        let mut pods: Vec<String> =
            found.0.iter().map(|(instance, peer)| format!("{instance} {} {}", peer.pod, peer.http)).collect();
        pods.sort();
        pods
    }

    #[test]
    fn the_other_pods_are_peers_and_this_one_is_not() {
        let mut known = Known::new("gw-1");
        for event in listed(vec![lease("gw-1", 1, "10.0.0.1:8080"), lease("gw-2", 2, "[2001:db8::2]:8080")]) {
            known.hear(event);
        }
        assert_eq!(pods(&known), ["00000002 gw-2 [2001:db8::2]:8080"]);
        known.hear(Event::Apply(lease("gw-3", 3, "10.0.0.3:8080")));
        known.hear(Event::Delete(lease("gw-2", 2, "[2001:db8::2]:8080")));
        assert_eq!(pods(&known), ["00000003 gw-3 10.0.0.3:8080"]);
    }

    #[test]
    fn a_new_list_replaces_the_old_one_only_when_it_is_complete() {
        let mut known = Known::new("gw-1");
        for event in listed(vec![lease("gw-2", 2, "10.0.0.2:8080")]) {
            known.hear(event);
        }
        known.hear(Event::Init);
        known.hear(Event::InitApply(lease("gw-3", 3, "10.0.0.3:8080")));
        assert_eq!(pods(&known), ["00000002 gw-2 10.0.0.2:8080"], "a pod is not lost during a list");
        known.hear(Event::InitDone);
        assert_eq!(pods(&known), ["00000003 gw-3 10.0.0.3:8080"]);
    }

    #[test]
    fn what_the_watch_shows_of_our_own_lease_is_told() {
        let own = || lease("gw-1", 1, "10.0.0.1:8080");
        let mut known = Known::new("gw-1");
        let mut last = |events: Vec<Event<Lease>>| events.into_iter().map(|event| known.hear(event)).last();
        assert_eq!(last(listed(vec![])), Some(Some(None)), "it isn't there");
        assert_eq!(last(listed(vec![own()])), Some(Some(Some("7".to_owned()))));
        assert_eq!(last(vec![Event::Apply(own())]), Some(Some(Some("7".to_owned()))));
        assert_eq!(last(vec![Event::Delete(own())]), Some(Some(None)));
        assert_eq!(
            last(vec![Event::Apply(lease("gw-2", 2, "10.0.0.2:8080"))]),
            Some(None),
            "that is another's"
        );
    }

    #[test]
    fn a_peer_that_drains_is_still_a_peer() {
        let mut known = Known::new("gw-1");
        let mut draining = lease("gw-2", 2, "10.0.0.2:8080");
        draining.annotations_mut().insert(ack::DRAINING.to_owned(), "true".to_owned());
        known.hear(Event::Apply(lease("gw-2", 2, "10.0.0.2:8080")));
        let before = known.changed(&Peers::default()).unwrap();
        known.hear(Event::Apply(draining));
        let after = known.changed(&before).unwrap();
        assert_eq!((before.0[&Instance(2)].draining, after.0[&Instance(2)].draining), (false, true));
    }

    #[test]
    fn a_lease_that_can_not_be_read_is_no_peer() {
        let mut known = Known::new("gw-1");
        known.hear(Event::Apply(lease("gw-2", 2, "")));
        known.hear(Event::Apply(lease("gw-3", 3, "example.com:8080")));
        assert_eq!(pods(&known), Vec::<String>::new());
    }
}
