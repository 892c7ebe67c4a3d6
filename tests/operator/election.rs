//! The lease itself, when the way to the API server falls silent.

use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use voicedock::operator::leader::{Elector, Term, Timing};

use crate::proxy::Proxy;
use crate::stage::{Stage, sales};

const TIMING: Timing = Timing {
    duration: Duration::from_secs(3),
    give_up: Duration::from_secs(2),
    renew: Duration::from_millis(300),
};

struct Candidate {
    terms: watch::Receiver<Option<Term>>,
    stop: CancellationToken,
}

impl Candidate {
    fn start(client: Client, stage: &Stage, identity: &str) -> Self {
        let (tell, terms) = watch::channel(None);
        let stop = CancellationToken::new();
        let elector = Elector::new(client, &stage.namespace, "lease", identity, TIMING);
        tokio::spawn(elector.run(tell, stop.clone()));
        Self { terms, stop }
    }

    async fn leads(&mut self) -> Term {
        let term = timeout(Duration::from_secs(20), self.terms.wait_for(Option::is_some)).await;
        term.expect("it leads in time").unwrap().clone().unwrap()
    }
}

#[tokio::test]
async fn a_leader_that_is_cut_off_stops_writing_before_another_begins() {
    let stage = Stage::empty("cut-off").await;
    let proxy = Proxy::start(stage.config().await).await;
    let mut first = Candidate::start(Client::try_from(proxy.config.clone()).unwrap(), &stage, "first");
    let term = first.leads().await;
    assert!(term.holds());
    let mut second = Candidate::start(stage.client.clone(), &stage, "second");
    proxy.cut();
    let cut = Instant::now();
    timeout(Duration::from_secs(20), term.ended()).await.expect("it notices by itself");
    assert!(cut.elapsed() < TIMING.duration, "before the lease has run out: {:?}", cut.elapsed());
    assert!(second.terms.borrow().is_none(), "nobody else leads yet");
    let next = second.leads().await;
    assert!(next.holds() && !term.holds());
    first.stop.cancel();
    second.stop.cancel();
}

#[tokio::test]
async fn of_many_candidates_one_leads_at_a_time() {
    let stage = Stage::empty("many").await;
    let mut candidates: Vec<_> =
        (0..5).map(|n| Candidate::start(stage.client.clone(), &stage, &format!("candidate-{n}"))).collect();
    for left in (1..=5).rev() {
        let leading = async {
            loop {
                let leading: Vec<_> = (0..left)
                    .filter(|n| candidates[*n].terms.borrow().as_ref().is_some_and(Term::holds))
                    .collect();
                assert!(leading.len() <= 1, "{leading:?}");
                if let [leading] = leading[..] {
                    return leading;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let leading = timeout(Duration::from_secs(20), leading).await.expect("one leads in time");
        let candidate = candidates.remove(leading);
        candidate.stop.cancel();
    }
}

#[tokio::test]
async fn an_operator_whose_connections_fall_silent_finds_its_way_back() {
    let stage = Stage::empty("silent").await;
    stage.gateway().await;
    let proxy = Proxy::start(stage.config().await).await;
    let _operator = stage.operator_over(proxy.config.clone());
    let _pod = stage.pod("gw-1").await;
    stage.office().await;
    stage.is_ready("PhoneNumber", "main").await;
    proxy.freeze();
    stage.apply("TransferDestination", "sales", sales("+31687654321")).await;
    stage.is_ready("TransferDestination", "sales").await;
}
