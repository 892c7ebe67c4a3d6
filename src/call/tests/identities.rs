//! Who a human and a trunk are told is calling, and what for.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::world::*;
use crate::call::{Command, Input, LegKey};
use crate::routing::table::{CallerIdHeaderEntry, ObjectKey};
use crate::sip::event::*;

/// The headers of the INVITE to a human, after a transfer of a call that came in like this over a trunk like this.
fn told(
    header: CallerIdHeaderEntry,
    change: impl FnOnce(&mut IncomingCall),
) -> (Party, BTreeMap<String, String>) {
    let mut table = table(false);
    let carrier = table.trunks.get_mut(&ObjectKey::new("acme", "carrier")).unwrap();
    Arc::make_mut(carrier).caller_id_header = header;
    let mut world = World::called(table, change);
    world.on(AGENT, LegEvent::Answered { body: sdp("agent") });
    world.transfer("sales");
    let dial = world.leg(HUMAN).dial.clone().unwrap();
    (dial.from, dial.headers.into_iter().collect())
}

#[test]
fn a_trunk_reads_the_callers_number_in_the_header_that_it_wants() {
    for (header, name, value) in [
        (CallerIdHeaderEntry::PAI, "P-Asserted-Identity", "<sip:+31687654321@{host}>"),
        (
            CallerIdHeaderEntry::RPID,
            "Remote-Party-ID",
            "<sip:+31687654321@{host}>;party=calling;privacy=off;screen=yes",
        ),
    ] {
        let (from, headers) = told(header, |_| ());
        assert_eq!(from.user, "+31687654321");
        assert_eq!(headers.get(name).map(String::as_str), Some(value), "{headers:?}");
    }
    let (from, headers) = told(CallerIdHeaderEntry::From, |_| ());
    assert_eq!((from.user.as_str(), from.display.as_str()), ("+31687654321", "Ann"));
    assert!(
        !headers.keys().any(|name| name.contains("Identity") || name.contains("Party-ID")),
        "{headers:?}"
    );
}

#[test]
fn a_caller_who_wants_to_be_hidden_is_shown_to_the_trunk_only() {
    for (header, name, value) in [
        (CallerIdHeaderEntry::PAI, "P-Asserted-Identity", "<sip:+31600000001@{host}>"),
        (
            CallerIdHeaderEntry::RPID,
            "Remote-Party-ID",
            "<sip:+31600000001@{host}>;party=calling;privacy=full;screen=yes",
        ),
    ] {
        let (from, headers) = told(header, |incoming| {
            incoming.privacy = true;
            incoming.asserted = Some("+31600000001".into());
        });
        assert_eq!((from.user.as_str(), from.host.as_str()), ("anonymous", "anonymous.invalid"));
        assert_eq!(headers.get(name).map(String::as_str), Some(value), "{headers:?}");
        assert_eq!(headers.get("Privacy").map(String::as_str), Some("id"));
    }
}

#[test]
fn nobody_vouches_for_an_anonymous_caller_or_writes_headers_for_a_strange_one() {
    let (from, headers) = told(CallerIdHeaderEntry::PAI, |incoming| incoming.from.user = "Anonymous".into());
    assert_eq!(from.host, "anonymous.invalid");
    assert!(!headers.contains_key("P-Asserted-Identity"), "{headers:?}");
    let (_, headers) = told(CallerIdHeaderEntry::PAI, |incoming| {
        incoming.from.user = "1@evil.example>\r\nX: {host}".into();
    });
    assert_eq!(headers["P-Asserted-Identity"], "<sip:1%40evil.example%3E%0D%0AX%3A%20%7Bhost%7D@{host}>");
}

#[test]
fn a_trunk_is_told_that_the_call_was_meant_for_another_number() {
    let header = |world: &mut World, leg: LegKey, name: &str| {
        let headers = world.leg(leg).dial.clone().unwrap().headers;
        headers.into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
    };
    let mut world = World::ringing();
    let first = "<sip:+31201234567@{host}>";
    let deflected = Some(format!("{first};reason=deflection;counter=1"));
    assert_eq!(header(&mut world, HUMAN, "Diversion"), deflected);
    let history = format!("{first};index=1, <sip:+31612345678@198.51.100.1:5060>;index=1.1;mp=1");
    assert_eq!(header(&mut world, HUMAN, "History-Info"), Some(history));
    assert_eq!(header(&mut world, HUMAN, "Referred-By").as_deref(), Some(first), "a REFER asked for it");
    let mut world = World::answered();
    world.transfer("sales");
    assert_eq!(header(&mut world, HUMAN, "Diversion"), deflected);
    assert_eq!(header(&mut world, HUMAN, "Referred-By"), None, "no REFER asked for it");
    world.on(HUMAN, refused(486));
    let wanted = "sip:desk@192.0.2.30".parse().unwrap();
    world.input(Input::Command(Command::Transfer { wanted, message: None }));
    let direct = LegKey::Dialled(2);
    for name in ["Diversion", "History-Info", "P-Asserted-Identity"] {
        assert_eq!(header(&mut world, direct, name), None, "{name}");
    }
    let mut world = World::with(table(true), sdp("caller"));
    world.on(LegKey::Dialled(0), refused(500));
    world.on(LegKey::Dialled(1), refused(500));
    let unavailable = Some(format!("{first};reason=unavailable;counter=1"));
    assert_eq!(header(&mut world, LegKey::Dialled(2), "Diversion"), unavailable);
}

#[test]
fn the_human_sees_the_callers_number() {
    let mut world = World::ringing();
    let dial = world.leg(HUMAN).dial.clone().unwrap();
    assert_eq!(dial.from.user, "+31687654321");
    assert!(
        dial.headers
            .iter()
            .any(|(name, value)| name == "P-Asserted-Identity" && value.contains("+31687654321"))
    );
    assert_eq!(dial.max_forwards, 69);
}
