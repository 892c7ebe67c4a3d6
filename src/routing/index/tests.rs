//! The index against the compile of everything: random changes in random order, compared after every step.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::resources::{Assistant, PhoneNumber, TransferDestination};
use crate::routing::compile::tests::properties::object;
use crate::routing::compile::tests::world::World;
use crate::routing::compile::{Compiled, compile};
use crate::routing::slice::{Slice, cut, table_hash};

/// One change, as the operator learns of it.
#[derive(Clone, Debug)]
enum Step {
    /// An object is there, in this generation.
    Put(Value, i64),
    /// An object has another status or annotation: nothing that has a meaning.
    Touch(prop::sample::Index),
    /// An object is gone.
    Delete(prop::sample::Index),
    /// A list: what is there of a kind but for one, and perhaps another.
    Relist(Value, prop::sample::Index),
    Labels([Option<bool>; 2]),
    Secret(String, Option<(u8, bool)>),
    DefaultGateway(Option<String>),
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let facts = proptest::option::of((0..3u8, any::<bool>()));
    prop_oneof![
        12 => (object(), 1..4i64).prop_map(|(object, generation)| Step::Put(object, generation)),
        2 => any::<prop::sample::Index>().prop_map(Step::Touch),
        4 => any::<prop::sample::Index>().prop_map(Step::Delete),
        1 => (object(), any::<prop::sample::Index>()).prop_map(|(object, index)| Step::Relist(object, index)),
        1 => any::<[Option<bool>; 2]>().prop_map(Step::Labels),
        2 => ("n[ab]/k[0-3]", facts).prop_map(|(key, facts)| Step::Secret(key, facts)),
        1 => proptest::option::of("na/k[0-3]").prop_map(Step::DefaultGateway),
        10 => Just(Step::Settle),
    ]
}

/// The index and, beside it, the objects that it should know.
#[derive(Default)]
struct Pair {
    index: Index,
    objects: Objects,
    /// What it was when it was settled last.
    compiled: Compiled,
}

impl Pair {
    fn take(&mut self, step: Step) {
        match step {
            Step::Put(document, generation) => {
                let mut document = document;
                document["metadata"]["generation"] = generation.into();
                let one = World::from_values([document]).objects();
                self.put_all(one);
            }
            Step::Touch(index) => {
                let one = self.choose(&index);
                let touched = |metadata: &mut kube::api::ObjectMeta| {
                    let seen = ("seen".to_owned(), "now".to_owned());
                    metadata.annotations.get_or_insert_default().extend([seen]);
                };
                let mut one = one;
                one.numbers.values_mut().for_each(|object| touched(&mut Arc::make_mut(object).metadata));
                one.gateways.values_mut().for_each(|object| touched(&mut Arc::make_mut(object).metadata));
                one.trunks.values_mut().for_each(|object| touched(&mut Arc::make_mut(object).metadata));
                assert!(!self.put_all(one), "an annotation has no meaning");
            }
            Step::Delete(index) => {
                let one = self.choose(&index);
                delete(&mut self.index, &mut self.objects, &one.numbers);
                delete(&mut self.index, &mut self.objects, &one.assistants);
                delete(&mut self.index, &mut self.objects, &one.destinations);
                delete(&mut self.index, &mut self.objects, &one.trunks);
                delete(&mut self.index, &mut self.objects, &one.gateways);
            }
            Step::Relist(document, index) => {
                let (one, without) = (World::from_values([document]).objects(), self.choose(&index));
                relist(self, &one.numbers, &without.numbers);
                relist(self, &one.assistants, &without.assistants);
                relist(self, &one.destinations, &without.destinations);
                relist(self, &one.trunks, &without.trunks);
                relist(self, &one.gateways, &without.gateways);
            }
            Step::Labels(teams) => {
                let labels = |team| {
                    if team { BTreeMap::from([("team".to_owned(), "a".to_owned())]) } else { BTreeMap::new() }
                };
                let namespaces = ["na", "nb"].into_iter().zip(teams);
                let namespaces = namespaces.filter_map(|(name, team)| Some((name.to_owned(), labels(team?))));
                self.objects.namespaces = namespaces.collect();
                self.index.set_namespaces(self.objects.namespaces.clone());
            }
            Step::Secret(key, facts) => {
                let key: ObjectKey = key.parse().unwrap();
                let facts = facts.map(|(version, whole)| SecretFacts {
                    uid: "1".to_owned(),
                    resource_version: version.to_string(),
                    keys: ["secret", "username", "password"]
                        .into_iter()
                        .skip(if whole { 0 } else { 2 })
                        .map(str::to_owned)
                        .collect(),
                    certificates: BTreeSet::new(),
                    private_keys: BTreeSet::new(),
                    is_sealed: false,
                });
                match facts.clone() {
                    Some(facts) => self.objects.secrets.insert(key.clone(), facts),
                    None => self.objects.secrets.remove(&key),
                };
                self.index.set_secret(&key, facts);
            }
            Step::DefaultGateway(gateway) => {
                self.objects.default_gateway = gateway.map(|gateway| gateway.parse().unwrap());
                self.index.set_default_gateway(self.objects.default_gateway.clone());
            }
            Step::Settle => self.settle(),
        }
    }

    fn put_all(&mut self, objects: Objects) -> bool {
        let mut changed = put(&mut self.index, &mut self.objects, objects.numbers);
        changed |= put(&mut self.index, &mut self.objects, objects.assistants);
        changed |= put(&mut self.index, &mut self.objects, objects.destinations);
        changed |= put(&mut self.index, &mut self.objects, objects.trunks);
        changed | put(&mut self.index, &mut self.objects, objects.gateways)
    }

    /// One of the objects, alone.
    fn choose(&self, index: &prop::sample::Index) -> Objects {
        let mut chosen = Objects::default();
        let all: Vec<ObjectRef> = compile(&self.objects).verdicts.into_keys().collect();
        if all.is_empty() {
            return chosen;
        }
        let ObjectRef { kind, key } = index.get(&all).clone();
        match kind {
            Kind::Assistant => only(&mut chosen.assistants, &self.objects.assistants, key),
            Kind::PhoneNumber => only(&mut chosen.numbers, &self.objects.numbers, key),
            Kind::SipGateway => only(&mut chosen.gateways, &self.objects.gateways, key),
            Kind::SipTrunk => only(&mut chosen.trunks, &self.objects.trunks, key),
            Kind::TransferDestination => only(&mut chosen.destinations, &self.objects.destinations, key),
        }
        chosen
    }

    fn settle(&mut self) {
        let delta = self.index.settle();
        let after = compile(&self.objects);
        let before = std::mem::replace(&mut self.compiled, after);
        assert_eq!(verdicts(&self.index), self.compiled.verdicts);
        for (gateway, table) in &self.compiled.tables {
            let kept = &self.index.tables()[gateway];
            let expected = cut(table);
            assert_eq!(slices(kept), expected, "{gateway}");
            assert_eq!(kept.sliced().hash(), table_hash(expected.iter().map(|slice| slice.hash.as_str())));
            let counts =
                [table.numbers.len(), table.assistants.len(), table.destinations.len(), table.trunks.len()];
            assert_eq!(kept.sliced().counts(), counts);
            assert_eq!(kept.credentials(), &self.compiled.credentials[gateway], "{gateway}");
        }
        assert_eq!(self.index.tables().len(), self.compiled.tables.len());
        let needed: BTreeSet<_> = self.index.secrets_needed().cloned().collect();
        assert_eq!(needed, crate::routing::compile::secrets_needed(&self.objects));
        assert_eq!(delta, difference(&before, &self.compiled));
        assert_eq!(self.index.settle(), Delta::default(), "nothing is left");
    }
}

fn put<K: Indexed>(index: &mut Index, objects: &mut Objects, new: BTreeMap<ObjectKey, Arc<K>>) -> bool {
    let mut changed = false;
    for (key, object) in new {
        changed |= index.apply(&key, object.clone());
        K::of_mut(objects).insert(key, object);
    }
    changed
}

fn delete<K: Indexed>(index: &mut Index, objects: &mut Objects, gone: &BTreeMap<ObjectKey, Arc<K>>) {
    for key in gone.keys() {
        assert!(index.delete::<K>(key));
        K::of_mut(objects).remove(key);
    }
}

/// Lists the kind of which there is one to be put.
fn relist<K: Indexed>(
    pair: &mut Pair,
    one: &BTreeMap<ObjectKey, Arc<K>>,
    without: &BTreeMap<ObjectKey, Arc<K>>,
) {
    if one.is_empty() {
        return;
    }
    let objects = K::of_mut(&mut pair.objects);
    objects.retain(|key, _| !without.contains_key(key));
    objects.extend(one.iter().map(|(key, object)| (key.clone(), object.clone())));
    pair.index.reset(objects.clone());
}

fn only<K>(chosen: &mut BTreeMap<ObjectKey, Arc<K>>, all: &BTreeMap<ObjectKey, Arc<K>>, key: ObjectKey) {
    let object = all[&key].clone();
    chosen.insert(key, object);
}

fn verdicts(index: &Index) -> BTreeMap<ObjectRef, Verdict> {
    index.verdicts().iter().map(|(object, verdict)| (object.clone(), (**verdict).clone())).collect()
}

fn slices(table: &GatewayTable) -> Vec<Slice> {
    let sliced = table.sliced();
    let of = |outline: crate::routing::slice::Outline<'_>| Slice {
        part: outline.part.to_string(),
        hash: outline.hash.to_owned(),
        content: sliced.draft(&outline).content(),
    };
    sliced.outlines().map(of).collect()
}

fn difference(before: &Compiled, after: &Compiled) -> Delta {
    let verdicts =
        after.verdicts.iter().filter(|(object, verdict)| before.verdicts.get(object) != Some(verdict));
    let gone = before.verdicts.keys().filter(|object| !after.verdicts.contains_key(object));
    let gateways: BTreeSet<_> = before.tables.keys().chain(after.tables.keys()).collect();
    let tables = gateways.into_iter().filter(|gateway| {
        before.tables.get(gateway) != after.tables.get(gateway)
            || before.credentials.get(gateway) != after.credentials.get(gateway)
    });
    Delta {
        verdicts: verdicts.map(|(object, _)| object.clone()).collect(),
        gone: gone.cloned().collect(),
        tables: tables.cloned().collect(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn after_any_changes_everything_is_as_if_it_had_been_compiled_at_once(
        steps in proptest::collection::vec(step(), 1..90)
    ) {
        let mut pair = Pair::default();
        pair.take(Step::DefaultGateway(Some("na/k0".to_owned())));
        for step in steps {
            pair.take(step);
        }
        pair.settle();
    }
}

#[test]
fn an_assistant_without_agent_is_told_of_a_gateway_whose_number_another_object_holds() {
    let mut pair = Pair::default();
    pair.take(Step::DefaultGateway(Some("na/gateway".to_owned())));
    let object = |kind: &str, name: &str, created: u8, spec: Value| {
        let created = format!("2026-01-01T00:00:0{created}Z");
        json!({
            "kind": kind, "metadata": {"name": name, "namespace": "na", "creationTimestamp": created}, "spec": spec,
        })
    };
    let number = |assistant: &str| json!({"number": "+31201234567", "assistantRef": {"name": assistant}});
    let agent = json!({"sip": {"uri": "sip:agent@ai"}});
    for object in [
        object("SipGateway", "gateway", 0, json!({"defaultAgent": agent})),
        object("Assistant", "with", 0, json!({"agent": agent})),
        object("Assistant", "without", 0, json!({})),
        object("PhoneNumber", "older", 1, number("with")),
        object("PhoneNumber", "younger", 2, number("without")),
    ] {
        pair.take(Step::Put(object, 1));
    }
    pair.settle();
    pair.take(Step::Put(object("SipGateway", "gateway", 0, json!({})), 2));
    pair.settle();
    let assistant = ObjectRef { kind: Kind::Assistant, key: ObjectKey::new("na", "without") };
    let found = pair.index.verdicts()[&assistant].resolved_refs.reason;
    assert_eq!(found, crate::resources::conditions::reason::REF_NOT_FOUND);
}

#[test]
fn a_gateways_other_default_agent_reaches_the_assistants_that_have_none() {
    let mut pair = Pair::default();
    pair.take(Step::DefaultGateway(Some("na/gateway".to_owned())));
    let object = |kind: &str, spec: Value| {
        let name = kind.to_lowercase().replace("sip", "");
        json!({"kind": kind, "metadata": {"name": name, "namespace": "na"}, "spec": spec})
    };
    let gateway = |uri: &str| object("SipGateway", json!({"defaultAgent": {"sip": {"uri": uri}}}));
    let number = json!({"number": "+31201234567", "assistantRef": {"name": "assistant"}});
    for object in [gateway("sip:a@ai"), object("Assistant", json!({})), object("PhoneNumber", number)] {
        pair.take(Step::Put(object, 1));
    }
    pair.settle();
    pair.take(Step::Put(gateway("sip:b@ai"), 2));
    pair.settle();
    let table = &pair.index.tables()[&ObjectKey::new("na", "gateway")];
    assert!(format!("{:?}", slices(table)).contains("sip:b@ai"));
}

/// A shop whose numbers all lead to one assistant.
fn shop(numbers: usize) -> Index {
    let mut index = Index::default();
    index.set_default_gateway(Some(ObjectKey::new("shop", "gateway")));
    let world = World::parse(&[
        "kind: SipGateway\nmetadata: {name: gateway, namespace: shop}\nspec: {}",
        "kind: Assistant\nmetadata: {name: support, namespace: shop}\nspec: {agent: {sip: {uri: 'sip:agent@ai'}}, \
         llmConfig: {tools: [{type: transfer_call, destinations: [{destinationRef: {name: sales}}]}]}}",
        "kind: TransferDestination\nmetadata: {name: sales, namespace: shop}\n\
         spec: {type: number, number: '+31612345678', description: Sales, trunkRef: {name: office}}",
        "kind: SipTrunk\nmetadata: {name: office, namespace: shop}\nspec: {host: pbx.example.com}",
    ]);
    let objects = world.objects();
    index.reset(objects.gateways);
    index.reset(objects.assistants);
    index.reset(objects.destinations);
    index.reset(objects.trunks);
    index.reset((0..numbers).map(|number| (line(number), phone_number(number, "support"))).collect());
    index.settle();
    index
}

fn line(number: usize) -> ObjectKey {
    ObjectKey::new("shop", format!("line-{number}"))
}

fn phone_number(number: usize, assistant: &str) -> Arc<PhoneNumber> {
    let spec = json!({"number": format!("+3120{number:07}"), "assistantRef": {"name": assistant}});
    Arc::new(PhoneNumber::new(&line(number).name, serde_json::from_value(spec).unwrap()))
}

#[test]
fn one_changed_number_makes_one_verdict_and_one_slice_anew() {
    let mut index = shop(3000);
    let before = slices(&index.tables()[&ObjectKey::new("shop", "gateway")]);
    index.apply(&line(7), phone_number(7, "nobody"));
    let delta = index.settle();
    let number = ObjectRef { kind: Kind::PhoneNumber, key: line(7) };
    let assistant = ObjectRef { kind: Kind::Assistant, key: ObjectKey::new("shop", "support") };
    assert_eq!(delta.verdicts, BTreeSet::from([assistant, number]), "the assistant has one number less");
    let after = slices(&index.tables()[&ObjectKey::new("shop", "gateway")]);
    assert_eq!(before.iter().zip(&after).filter(|(before, after)| before != after).count(), 1);
}

#[test]
fn numbers_are_not_looked_at_when_their_assistants_destination_changes() {
    let mut index = shop(10);
    let sales = ObjectKey::new("shop", "sales");
    let mut changed = (*index.objects().destinations[&sales]).clone();
    changed.spec.description = "Prices".to_owned();
    index.apply(&sales, Arc::new(changed));
    index.settle_trunks();
    index.settle_destinations();
    assert_eq!((index.dirty.assistants.len(), index.dirty.numbers.len()), (0, 0), "it is of use as before");
    index.settle();
    index.delete::<TransferDestination>(&sales);
    index.settle_trunks();
    index.settle_destinations();
    assert_eq!((index.dirty.assistants.len(), index.dirty.numbers.len()), (1, 0));
    index.settle_assistants();
    assert_eq!(index.dirty.numbers.len(), 0, "the assistant answers as before");
    index.settle();
    index.delete::<Assistant>(&ObjectKey::new("shop", "support"));
    index.settle_assistants();
    assert_eq!(index.dirty.numbers.len(), 10);
}
