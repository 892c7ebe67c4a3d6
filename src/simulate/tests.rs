//! A caller and someone who is called, directly with each other over the loopback network.

use std::net::SocketAddr;
use std::time::Duration;

use super::caller::{self, Expectation, Experience};
use super::party::{Args, Called, Role};
use super::report::{Form, Report};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
const TIMEOUT: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(50);
/// Long enough for a few messages on a machine that is busy with other things.
const LONG: Duration = Duration::from_secs(2);

fn party(rules: &[&str]) -> Args {
    Args::at(LOOPBACK, rules.iter().map(|rule| rule.parse().unwrap()).collect())
}

/// Calls the party and returns what the caller experienced and the words that each of the two told.
async fn talk(
    role: Role,
    args: Args,
    change: impl FnOnce(&mut caller::Args),
) -> (Vec<Experience>, Vec<String>, Vec<String>) {
    let mut called = Called::listen(role, args, Report::new(Form::Kept)).await.unwrap();
    let mut call = caller::Args::to(called.address(), "+31612345678");
    call.listen = Some(LOOPBACK);
    call.hang_up_after = MOMENT;
    change(&mut call);
    let mut report = Report::new(Form::Kept);
    let experiences = tokio::time::timeout(TIMEOUT, async {
        let experiences = tokio::select! {
            ended = called.serve() => panic!("the party ended: {ended:?}"),
            experiences = caller::call(call, &mut report) => experiences.unwrap(),
        };
        // The caller's goodbye may still be under way.
        while called.calls() > 0 {
            tokio::select! {
                ended = called.serve() => panic!("the party ended: {ended:?}"),
                () = tokio::time::sleep(MOMENT / 10) => {}
            }
        }
        experiences
    })
    .await
    .unwrap();
    let words = |report: &Report| report.events().into_iter().map(str::to_owned).collect();
    (experiences, words(&report), words(called.report()))
}

#[tokio::test]
async fn a_caller_hears_who_answered_and_hangs_up() {
    for tcp in [false, true] {
        let (experiences, caller, human) =
            talk(Role::Human, party(&["*:name=sales,answer-after=20ms"]), |call| call.tcp = tcp).await;
        assert_eq!(experiences[0].heard[0].name, "human sales");
        assert!(experiences[0].has(Expectation::Ended));
        assert_eq!(caller, ["calls", "ringing", "answered", "hung-up"], "tcp: {tcp}");
        assert_eq!(human, ["listening", "called", "ringing", "answered", "ended"], "tcp: {tcp}");
    }
}

#[tokio::test]
async fn whoever_is_busy_declines_or_is_away_refuses_with_its_code() {
    for (rule, code) in [("*:busy", 486), ("*:decline", 603), ("+31612345678:offline", 480)] {
        let (experiences, caller, human) = talk(Role::Human, party(&[rule]), |_| ()).await;
        assert_eq!(experiences[0].refused, Some(code), "{rule}");
        assert_eq!(caller, ["calls", "refused"], "{rule}");
        assert_eq!(human, ["listening", "called", "refused"], "{rule}");
    }
}

#[tokio::test]
async fn a_caller_whom_nobody_answers_gives_up_and_the_ringing_stops() {
    let (experiences, caller, human) =
        talk(Role::Human, party(&["*:no-answer"]), |call| call.give_up_after = LONG).await;
    assert_eq!(experiences[0], Experience { rang: true, ..Experience::default() });
    assert_eq!(caller, ["calls", "ringing", "hung-up", "refused"]);
    assert_eq!(human, ["listening", "called", "ringing", "ended"]);
}

#[tokio::test]
async fn someone_who_hangs_up_ends_the_call_for_the_caller() {
    let (experiences, caller, human) = talk(Role::Human, party(&["*:hang-up-after=20ms"]), |call| {
        call.hang_up_after = TIMEOUT;
    })
    .await;
    assert!(experiences[0].has(Expectation::Ended));
    assert_eq!(caller, ["calls", "answered", "ended"]);
    assert_eq!(human, ["listening", "called", "answered", "hung-up"]);
}

#[tokio::test]
async fn an_agent_asks_for_its_transfer_and_hears_that_a_phone_takes_none() {
    let rule = "*:transfer-to=sales,after=10ms";
    let (_, _, agent) = talk(Role::Agent, party(&[rule]), |call| call.hang_up_after = LONG).await;
    assert_eq!(agent, ["listening", "called", "answered", "asks", "transfer-refused", "ended"]);
}

#[tokio::test]
async fn a_pbx_with_a_password_sends_back_whoever_does_not_know_it() {
    let mut args = party(&[]);
    args.credentials = Some("office:secret".into());
    let (experiences, ..) = talk(Role::Human, args.clone(), |_| ()).await;
    assert_eq!(experiences[0].refused, Some(407), "without a password");
    let (experiences, ..) =
        talk(Role::Human, args.clone(), |call| call.credentials = Some("office:wrong".into())).await;
    assert_eq!(experiences[0].refused, Some(407), "with a wrong password");
    let (experiences, ..) =
        talk(Role::Human, args, |call| call.credentials = Some("office:secret".into())).await;
    assert!(experiences[0].has(Expectation::Answered), "with the right one: {experiences:?}");
}

#[tokio::test]
async fn many_calls_at_a_rate_are_all_placed_and_all_end() {
    let (experiences, ..) = talk(Role::Human, party(&[]), |call| (call.calls, call.rate) = (50, 500.0)).await;
    assert_eq!(experiences.len(), 50);
    assert!(experiences.iter().all(|experience| experience.has(Expectation::Ended)));
}
