mod answers;

use std::collections::BTreeMap;

use jiff::Timestamp;

use self::answers::who;
use super::*;
use crate::routing::schedule::{Hours, Schedule};
use crate::routing::table::{
    AssistantEntry, BackupEntry, DestinationEntry, DestinationTarget, FailoverEntry, NumberFormatEntry,
    ReferEntry, TrunkEntry,
};

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

fn e164(text: &str) -> E164 {
    text.parse().unwrap()
}

fn uri(text: &str) -> SipTarget {
    crate::routing::uri::parse_target(text, None).unwrap()
}

fn trunk(host: &str, sources: &[&str], namespaces: &[&str]) -> TrunkEntry {
    TrunkEntry {
        host: host.into(),
        port: None,
        transport: TransportEntry::Udp,
        any_transport: false,
        proxy: None,
        refer: None,
        failover: None,
        credential: Some(CredentialId(format!("cred-{host}"))),
        tls: None,
        credentials_missing: false,
        realm: Some(host.into()),
        authenticates: false,
        allowed_sources: sources.iter().map(|source| source.parse().unwrap()).collect(),
        number_format: NumberFormatEntry::E164,
        allowed_prefixes: vec![],
        denied_prefixes: vec![],
        limits: Limits::default(),
        inbound_limits: Limits::default(),
        probe_seconds: None,
        register_seconds: None,
        caller_id_header: CallerIdHeaderEntry::PAI,
        session_timer: SessionTimerEntry::default(),
        allowed_namespaces: namespaces.iter().map(|&namespace| namespace.into()).collect(),
    }
}

fn destination(target: DestinationTarget, trunk: Option<&str>) -> DestinationEntry {
    DestinationEntry {
        target,
        description: "for tests".into(),
        message: Some("One moment.".into()),
        trunk: trunk.map(key),
        by_refer: false,
        ring_timeout_seconds: 20,
        caller_id: CallerIdEntry::PhoneNumber,
        headers: vec![("X-Reason".into(), "test".into())],
        schedule: None,
        then: vec![],
        return_to_assistant: true,
    }
}

fn number(object: &str) -> NumberEntry {
    NumberEntry {
        object: key(object),
        assistant: Some(key("shop/support")),
        transfer_trunk: None,
        transfer_trunk_unusable: false,
        fallback: None,
    }
}

/// A Monday, 10:00 in Amsterdam.
fn monday() -> Timestamp {
    "2026-01-05T09:00:00Z".parse().unwrap()
}

/// Trunks that carry as much as they may when they have a limit of one call.
struct Busy;

impl Lines for Busy {
    fn full(&self, _: &ObjectKey, limits: Limits) -> Option<Limit> {
        limits.calls.filter(|most| *most == 1).map(Limit::Calls)
    }
}

fn now() -> Now<'static> {
    Now { at: monday(), lines: &Busy }
}

/// A shop with a carrier (inbound) and a PBX, and an assistant with a destination of each kind.
struct World(Table);

impl World {
    fn new() -> Self {
        let mut world = Self(Table::default());
        world.number("+31201234567", number("shop/main"));
        world.trunk("shop/carrier", trunk("sip.carrier.net", &["203.0.113.0/24"], &["shop"]));
        world.trunk("shop/pbx", trunk("pbx.shop.nl", &[], &["shop"]));
        world.destination("shop/sales", destination(DestinationTarget::Number(e164("+31612345678")), None));
        world.destination(
            "shop/front",
            destination(DestinationTarget::Number(e164("+31687654321")), Some("shop/pbx")),
        );
        world.destination(
            "shop/desk",
            destination(DestinationTarget::Sip(uri("sip:desk@desk.shop.nl:5070")), None),
        );
        world.destination(
            "shop/ext",
            destination(DestinationTarget::Sip(uri("sip:front@pbx")), Some("shop/pbx")),
        );
        let names = ["sales", "front", "desk", "ext"];
        let destinations: BTreeMap<_, _> =
            names.iter().map(|&name| (name.to_owned(), ObjectKey::new("shop", name))).collect();
        let agent = AgentEntry::Sip {
            targets: vec![uri("sip:agent@ai")],
            headers: vec![],
            answer_timeout_seconds: 10,
            hook: None,
        };
        world.0.assistants.insert(
            key("shop/support"),
            Arc::new(AssistantEntry { agent, destinations, script: None, events: None }),
        );
        world
    }

    fn number(&mut self, number: &str, entry: NumberEntry) {
        self.0.numbers.insert(e164(number), Arc::new(entry));
    }

    fn trunk(&mut self, name: &str, entry: TrunkEntry) {
        self.0.trunks.insert(key(name), Arc::new(entry));
    }

    fn destination(&mut self, name: &str, entry: DestinationEntry) {
        self.0.destinations.insert(key(name), Arc::new(entry));
    }

    fn change_number(&mut self, change: impl FnOnce(&mut NumberEntry)) {
        change(Arc::make_mut(self.0.numbers.get_mut(&e164("+31201234567")).unwrap()));
    }

    fn change_trunk(&mut self, name: &str, change: impl FnOnce(&mut TrunkEntry)) {
        change(Arc::make_mut(self.0.trunks.get_mut(&key(name)).unwrap()));
    }

    fn change_destination(&mut self, name: &str, change: impl FnOnce(&mut DestinationEntry)) {
        change(Arc::make_mut(self.0.destinations.get_mut(&key(name)).unwrap()));
    }

    fn index(&self) -> Index {
        Index::new(Arc::new(self.0.clone()))
    }

    fn transfer(&self, wanted: &str, authority: Authority) -> Result<TransferRoute, TransferRefusal> {
        self.plan(wanted, authority).map(|plan| plan.route)
    }

    fn plan(&self, wanted: &str, authority: Authority) -> Result<Plan, TransferRefusal> {
        let call = CallFacts {
            number: e164("+31201234567"),
            inbound_trunk: key("shop/carrier"),
            may_be_referred: true,
        };
        self.index().transfer(&call, Some(&key("shop/support")), &wanted.parse().unwrap(), authority, now())
    }
}

// How does a transfer go?

#[test]
fn the_destinations_trunk_comes_first_then_the_numbers_then_the_inbound_one() {
    let mut world = World::new();
    let rule = |world: &World, name: &str| {
        let route = world.transfer(name, Authority::Assistant).unwrap();
        (route.trunk_rule, route.trunk.unwrap().to_string())
    };
    assert_eq!(rule(&world, "sales"), (TrunkRule::Inbound, "shop/carrier".into()));
    assert_eq!(rule(&world, "front"), (TrunkRule::Destination, "shop/pbx".into()));
    world.change_number(|number| number.transfer_trunk = Some(key("shop/pbx")));
    assert_eq!(rule(&world, "sales"), (TrunkRule::Number, "shop/pbx".into()));
}

#[test]
fn a_number_is_dialled_at_its_trunk_with_all_that_the_trunk_and_the_destination_say() {
    let mut world = World::new();
    world.change_trunk("shop/pbx", |trunk| {
        trunk.host = "2001:db8::1".into();
        trunk.port = Some(5070);
        trunk.transport = TransportEntry::Tcp;
    });
    let route = world.transfer("front", Authority::Assistant).unwrap();
    let target = SipTarget {
        uri: "sip:+31687654321@[2001:db8::1]:5070".into(),
        host: "2001:db8::1".into(),
        port: Some(5070),
        transport: TransportEntry::Tcp,
        any_transport: false,
        route: None,
        tls: None,
    };
    let expected = TransferRoute {
        destination: Some(key("shop/front")),
        label: "front".into(),
        message: Some("One moment.".into()),
        target,
        refer_to: None,
        failover: Failover::default(),
        trunk: Some(key("shop/pbx")),
        trunk_rule: TrunkRule::Destination,
        limits: Limits::default(),
        credential: Some(CredentialId("cred-pbx.shop.nl".into())),
        realm: Some("pbx.shop.nl".into()),
        caller_id: CallerIdEntry::PhoneNumber,
        caller_id_header: CallerIdHeaderEntry::PAI,
        headers: vec![("X-Reason".into(), "test".into())],
        ring_timeout_seconds: 20,
        session_timer: SessionTimerEntry::default(),
    };
    assert_eq!(route, expected);
}

#[test]
fn the_trunks_other_hosts_are_dialled_with_their_own_request_uri() {
    let mut world = World::new();
    let backup = BackupEntry { priority: 20, host: "pbx2.shop.nl".into(), port: Some(5070), weight: 5 };
    world.change_trunk("shop/pbx", |trunk| {
        trunk.failover = Some(FailoverEntry { hosts: vec![backup], final_codes: vec![486] });
    });
    let route = world.transfer("front", Authority::Assistant).unwrap();
    assert_eq!(route.target.uri, "sip:+31687654321@pbx.shop.nl");
    let elsewhere = &route.failover.elsewhere[0];
    assert_eq!(elsewhere.target, uri("sip:+31687654321@pbx2.shop.nl:5070"));
    assert_eq!((elsewhere.priority, elsewhere.weight, route.failover.final_codes), (20, 5, vec![486]));
    let route = world.transfer("ext", Authority::Assistant).unwrap();
    let elsewhere = &route.failover.elsewhere[0].target;
    assert_eq!((elsewhere.uri.as_str(), elsewhere.host.as_str()), ("sip:front@pbx", "pbx2.shop.nl"));
    // A URI that is dialled directly is held to the rules of the trunk whose host it names, a backup's as well.
    world.change_trunk("shop/pbx", |trunk| trunk.denied_prefixes = vec!["+3190".into()]);
    let refusal = world.transfer("sip:+31900123456@pbx2.shop.nl", Authority::Api).unwrap_err();
    assert!(matches!(refusal, TransferRefusal::NotAllowed { .. }), "{refusal}");
}

#[test]
fn a_sip_destination_is_dialled_directly_or_through_its_own_trunk() {
    let world = World::new();
    let direct = world.transfer("desk", Authority::Assistant).unwrap();
    assert_eq!((direct.trunk, direct.trunk_rule), (None, TrunkRule::Direct));
    assert_eq!((direct.target, direct.credential), (uri("sip:desk@desk.shop.nl:5070"), None));
    assert_eq!(direct.caller_id_header, CallerIdHeaderEntry::From);
    let through = world.transfer("ext", Authority::Assistant).unwrap();
    assert_eq!((through.target.uri.as_str(), through.target.host.as_str()), ("sip:front@pbx", "pbx.shop.nl"));
    assert_eq!(through.trunk, Some(key("shop/pbx")));
}

#[test]
fn an_assistant_may_have_what_it_lists_by_name_number_or_uri_and_nothing_else() {
    let world = World::new();
    for (wanted, label) in [
        ("sales", "sales"),
        ("+31 6 1234-5678", "sales"),
        ("tel:+31612345678", "sales"),
        ("sip:desk@DESK.shop.nl:5070", "desk"),
    ] {
        assert_eq!(world.transfer(wanted, Authority::Assistant).unwrap().label, label, "{wanted}");
    }
    for wanted in ["ceo", "+31600000000", "sip:anyone@example.com", "Sales"] {
        let refusal = world.transfer(wanted, Authority::Assistant).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            format!(
                "'{wanted}' is not a destination of assistant shop/support; it may transfer to: desk, ext, front, sales"
            )
        );
    }
}

#[test]
fn the_api_may_also_have_any_number_and_any_uri_but_no_unknown_name() {
    let world = World::new();
    let route = world.transfer("+31600000000", Authority::Api).unwrap();
    assert_eq!((route.label.as_str(), route.destination), ("+31600000000", None));
    assert_eq!(route.target.uri, "sip:+31600000000@sip.carrier.net");
    assert_eq!((route.caller_id, route.ring_timeout_seconds), (CallerIdEntry::Preserve, 30));
    let route = world.transfer("sip:anyone@example.com", Authority::Api).unwrap();
    assert_eq!((route.trunk, route.label.as_str()), (None, "sip:anyone@example.com"));
    assert_eq!(world.transfer("+31612345678", Authority::Api).unwrap().destination, Some(key("shop/sales")));
    assert!(matches!(world.transfer("ceo", Authority::Api), Err(TransferRefusal::UnknownDestination { .. })));
}

#[test]
fn the_api_may_transfer_a_call_that_has_no_assistant() {
    let world = World::new();
    let call =
        CallFacts { number: e164("+31201234567"), inbound_trunk: key("shop/carrier"), may_be_referred: true };
    let wanted = Wanted::Number(e164("+31612345678"));
    assert!(world.index().transfer(&call, None, &wanted, Authority::Api, now()).is_ok());
    assert!(world.index().transfer(&call, None, &wanted, Authority::Assistant, now()).is_err());
    assert!(
        world.index().transfer(&call, Some(&key("shop/gone")), &wanted, Authority::Assistant, now()).is_err()
    );
}

#[test]
fn prefixes_hold_for_the_assistant_and_for_the_api_and_a_denied_one_wins() {
    let mut world = World::new();
    world.change_trunk("shop/carrier", |trunk| {
        trunk.allowed_prefixes = vec!["+31".into()];
        trunk.denied_prefixes = vec!["+3161".into()];
    });
    let refused =
        |wanted: &str| TransferRefusal::NotAllowed { trunk: key("shop/carrier"), wanted: wanted.into() };
    assert_eq!(world.transfer("sales", Authority::Assistant), Err(refused("+31612345678")));
    assert_eq!(world.transfer("+31612345679", Authority::Api), Err(refused("+31612345679")));
    assert_eq!(world.transfer("+4930123456", Authority::Api), Err(refused("+4930123456")));
    assert!(world.transfer("+31301234567", Authority::Api).is_ok());
}

#[test]
fn a_uri_at_a_trunks_host_does_not_get_round_the_trunks_prefixes() {
    let mut world = World::new();
    world.change_trunk("shop/pbx", |trunk| trunk.allowed_prefixes = vec!["+31".into()]);
    for user in [
        "+4930123456",
        "%2B4930123456",
        "004930123456",
        "4930123456",
        "+49-30-123456",
        "112",
        "+4930123456;x=y",
    ] {
        let wanted = format!("sip:{user}@PBX.shop.nl");
        let refusal = world.transfer(&wanted, Authority::Api).unwrap_err();
        assert!(matches!(refusal, TransferRefusal::NotAllowed { .. }), "{wanted}: {refusal}");
    }
    for user in ["+31301234567", "front", "front2"] {
        let wanted = format!("sip:{user}@pbx.shop.nl");
        assert!(world.transfer(&wanted, Authority::Api).is_ok(), "{wanted}");
    }
    let target = DestinationTarget::Sip(uri("sip:+4930123456@elsewhere"));
    world.destination("shop/ext", destination(target, Some("shop/pbx")));
    assert!(matches!(world.transfer("ext", Authority::Assistant), Err(TransferRefusal::NotAllowed { .. })));
}

#[test]
fn a_strangers_trunk_does_not_shut_off_direct_uris() {
    let mut world = World::new();
    let mut stranger = trunk("desk.shop.nl", &[], &["evil"]);
    stranger.denied_prefixes = vec!["+".into()];
    world.trunk("evil/desk", stranger);
    assert!(world.transfer("sip:+31301234567@desk.shop.nl", Authority::Api).is_ok());
}

#[test]
fn a_transfer_to_the_number_that_the_caller_dialled_is_a_loop() {
    let world = World::new();
    let refusal = Err(TransferRefusal::Loop(e164("+31201234567")));
    assert_eq!(world.transfer("+31201234567", Authority::Api), refusal);
    assert_eq!(world.transfer("sip:31201234567@sip.carrier.net", Authority::Api), refusal);
}

#[test]
fn a_trunk_without_its_credentials_recognises_calls_but_carries_none_out() {
    let mut world = World::new();
    world.change_trunk("shop/carrier", |trunk| {
        trunk.credential = None;
        trunk.credentials_missing = true;
    });
    assert!(who(&world, "203.0.113.7", "+31201234567").is_ok());
    let refusal = TransferRefusal::CredentialsMissing(key("shop/carrier"));
    assert_eq!(world.transfer("sales", Authority::Assistant), Err(refusal));
    assert!(world.transfer("front", Authority::Assistant).is_ok());
}

#[test]
fn a_trunk_that_authenticates_is_recognised_from_anywhere_unless_it_lists_sources() {
    let mut world = World::new();
    world.change_trunk("shop/pbx", |trunk| trunk.authenticates = true);
    world.change_trunk("shop/carrier", |trunk| trunk.authenticates = true);
    let listed = who(&world, "203.0.113.7", "+31201234567").unwrap();
    let credential = CredentialId("cred-sip.carrier.net".into());
    assert_eq!((listed.trunk(), listed.proof()), (&key("shop/carrier"), Some(Some(&credential))));
    assert!(matches!(who(&world, "192.0.2.1", "+31201234567"), Err(AnswerRefusal::UnknownSource(_))));

    let index = world.index();
    let anywhere: Vec<_> = index.by_digest().map(|(key, _)| key.clone()).collect();
    assert_eq!(anywhere, [key("shop/pbx")]);
    let found = index.who_answers_over(&key("shop/pbx"), "+31201234567").unwrap();
    assert_eq!((found.trunk(), found.object()), (&key("shop/pbx"), &key("shop/main")));
    let unknown = AnswerRefusal::UnknownNumber(key("shop/pbx"));
    assert_eq!(index.who_answers_over(&key("shop/pbx"), "+31999"), Err(unknown));

    world.change_trunk("shop/carrier", |trunk| trunk.credential = None);
    assert_eq!(
        who(&world, "203.0.113.7", "+31201234567").unwrap().proof(),
        Some(None),
        "nobody can prove it"
    );
}

#[test]
fn no_other_trunk_takes_the_place_of_a_transfer_trunk_that_cannot_be_used() {
    let mut world = World::new();
    world.change_number(|number| number.transfer_trunk_unusable = true);
    let refusal = TransferRefusal::TransferTrunkUnusable(key("shop/main"));
    assert_eq!(world.transfer("sales", Authority::Assistant), Err(refusal));
    assert!(world.transfer("front", Authority::Assistant).is_ok());
}

#[test]
fn a_call_that_outlives_its_trunk_or_its_number_is_told_so() {
    let mut world = World::new();
    world.change_trunk("shop/carrier", |trunk| trunk.allowed_namespaces = vec![]);
    let no_route = TransferRefusal::NoRoute("+31612345678".into());
    assert_eq!(world.transfer("sales", Authority::Assistant), Err(no_route.clone()));
    world.0.trunks.remove(&key("shop/carrier"));
    assert_eq!(world.transfer("sales", Authority::Assistant), Err(no_route));
    world.0.numbers.clear();
    let gone = TransferRefusal::NumberGone(e164("+31201234567"));
    assert_eq!(world.transfer("sales", Authority::Assistant), Err(gone));
}

#[test]
fn the_callers_trunk_is_asked_to_dial_in_the_form_that_it_reads() {
    let mut world = World::new();
    world.change_destination("shop/sales", |sales| sales.by_refer = true);
    world.change_destination("shop/desk", |desk| desk.by_refer = true);
    let route = world.transfer("sales", Authority::Assistant).unwrap();
    assert_eq!(route.refer_to, None, "the trunk takes no REFER: the gateway dials");
    let refer_to =
        |world: &World, name: &str| world.transfer(name, Authority::Assistant).unwrap().refer_to.unwrap();
    world.change_trunk("shop/carrier", |trunk| trunk.refer = Some(ReferEntry::Tel));
    assert_eq!(refer_to(&world, "sales"), "tel:+31612345678");
    assert_eq!(refer_to(&world, "desk"), "sip:desk@desk.shop.nl:5070");
    world.change_trunk("shop/carrier", |trunk| {
        trunk.refer = Some(ReferEntry::Sip { host: "2001:db8::7".into() })
    });
    assert_eq!(refer_to(&world, "sales"), "sip:+31612345678@[2001:db8::7]");
    let route = world.transfer("sales", Authority::Assistant).unwrap();
    assert_eq!((route.trunk, route.trunk_rule), (Some(key("shop/carrier")), TrunkRule::Inbound));
    // Its own rules hold, and a call can't be sent to where it came from.
    world.change_trunk("shop/carrier", |trunk| trunk.denied_prefixes = vec!["+316".into()]);
    let refusal = world.transfer("sales", Authority::Assistant).unwrap_err();
    assert!(matches!(refusal, TransferRefusal::NotAllowed { .. }), "{refusal}");
    world.change_destination("shop/sales", |sales| {
        sales.target = DestinationTarget::Number(e164("+31201234567"))
    });
    assert!(matches!(world.transfer("sales", Authority::Assistant), Err(TransferRefusal::Loop(_))));
}

#[test]
fn a_caller_who_was_not_answered_yet_is_not_referred() {
    let mut world = World::new();
    world.change_destination("shop/sales", |sales| sales.by_refer = true);
    world.change_trunk("shop/carrier", |trunk| trunk.refer = Some(ReferEntry::Tel));
    let call = CallFacts {
        number: e164("+31201234567"),
        inbound_trunk: key("shop/carrier"),
        may_be_referred: false,
    };
    assert_eq!(world.index().fallback(&call, &key("shop/sales"), now()).unwrap().route.refer_to, None);
}

#[test]
fn a_trunk_that_carries_as_much_as_it_may_takes_no_transfer() {
    let mut world = World::new();
    world.change_trunk("shop/carrier", |trunk| trunk.limits.calls = Some(1));
    world.change_trunk("shop/pbx", |trunk| trunk.limits.calls = Some(2));
    for wanted in ["sales", "+31600000000"] {
        let refusal = world.transfer(wanted, Authority::Api).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "trunk shop/carrier takes no further call now: it carries 1 calls, as many as its \
             outbound.maxConcurrentCalls lets one gateway pod dial"
        );
    }
    assert!(world.transfer("front", Authority::Assistant).is_ok());
    world.change_trunk("shop/pbx", |trunk| trunk.limits.calls = Some(1));
    assert!(matches!(world.transfer("ext", Authority::Assistant), Err(TransferRefusal::Full { .. })));
    assert!(world.transfer("desk", Authority::Assistant).is_ok(), "it needs no trunk");
}

#[test]
fn a_destination_outside_of_its_hours_is_not_dialled_and_says_when_it_opens() {
    let mut world = World::new();
    let hours = |from: &str, to: &str| {
        let zone = "Europe/Amsterdam".parse().unwrap();
        Some(Schedule::new(zone, vec![Hours::new(0, from, to).unwrap()]))
    };
    world.change_destination("shop/sales", |sales| sales.schedule = hours("11:00", "12:00"));
    world.change_destination("shop/front", |front| front.schedule = hours("10:00", "12:00"));
    let refusal = world.transfer("sales", Authority::Assistant).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "destination sales is closed; it opens Monday 5 January 2026 at 11:00 in Europe/Amsterdam"
    );
    assert_eq!(
        world.transfer("+31612345678", Authority::Api),
        Err(refusal),
        "the number is that of a destination"
    );
    assert!(world.transfer("front", Authority::Assistant).is_ok());
    let call =
        CallFacts { number: e164("+31201234567"), inbound_trunk: key("shop/carrier"), may_be_referred: true };
    assert!(matches!(
        world.index().fallback(&call, &key("shop/sales"), now()),
        Err(TransferRefusal::Closed { .. })
    ));
}

#[test]
fn those_that_can_not_be_dialled_are_passed_over_and_the_first_says_where_the_caller_goes_in_the_end() {
    let mut world = World::new();
    let closed = Schedule::new("UTC".parse().unwrap(), vec![Hours::new(6, "09:00", "10:00").unwrap()]);
    world.change_destination("shop/sales", |sales| {
        sales.schedule = Some(closed.clone());
        sales.then = ["shop/front", "shop/gone", "shop/desk", "shop/ext"].map(key).into();
        sales.return_to_assistant = false;
    });
    world.change_destination("shop/front", |front| front.schedule = Some(closed));
    let plan = world.plan("sales", Authority::Assistant).unwrap();
    let passed_over: Vec<_> = plan.passed_over.iter().map(|passed| passed.label.as_str()).collect();
    assert_eq!(passed_over, ["sales", "front", "gone"]);
    assert!(matches!(plan.passed_over[2].refusal, TransferRefusal::DestinationGone(_)));
    assert_eq!((plan.route.label.as_str(), plan.then), ("desk", vec![key("shop/ext")]));
    assert!(!plan.return_to_assistant, "the first one's finally");
    world.change_destination("shop/sales", |sales| sales.then = vec![key("shop/front")]);
    let refusal = world.plan("sales", Authority::Assistant).unwrap_err();
    assert!(refusal.to_string().starts_with("destination sales is closed"), "{refusal}");
}

#[test]
fn the_fallback_is_dialled_by_the_same_rules_and_never_returns_to_the_assistant() {
    let world = World::new();
    let call =
        CallFacts { number: e164("+31201234567"), inbound_trunk: key("shop/carrier"), may_be_referred: true };
    let plan = world.index().fallback(&call, &key("shop/front"), now()).unwrap();
    assert_eq!((plan.route.label.as_str(), plan.route.trunk_rule), ("front", TrunkRule::Destination));
    assert!(!plan.return_to_assistant);
    let gone = TransferRefusal::DestinationGone(key("shop/nobody"));
    assert_eq!(world.index().fallback(&call, &key("shop/nobody"), now()), Err(gone));
}

#[test]
fn what_is_wanted_is_read_as_uri_number_or_name() {
    let read = |text: &str| text.parse::<Wanted>();
    assert_eq!(read("+31 20 123 4567"), Ok(Wanted::Number(e164("+31201234567"))));
    assert_eq!(read("SIP:a@b"), Ok(Wanted::Uri(uri("sip:a@b"))));
    for name in ["sales", "0201234567", "31201234567", "", "+", "+31", "a:b"] {
        assert_eq!(read(name), Ok(Wanted::Name(name.into())), "{name}");
    }
    assert!(read("sip:").is_err());
    assert!(read("sips:a@b").is_err());
}
