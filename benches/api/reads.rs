//! Reads: how many a second the `api` role answers on one core, and how long they take at half of what is wanted.

use std::process::Command;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, PostParams};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::client::Client;
use crate::programs::Start;
use crate::report::{Figures, Latencies, say};
use crate::support::api_server::ApiServer;
use crate::wait::{SOON, until};

/// Assistants, and as many numbers.
const OBJECTS: usize = 1_000;
/// Numbers that share a trunk.
const A_TRUNK: usize = 100;
/// Objects that are written at the same time.
const WRITES: usize = 16;
/// Connections that read.
const CONNECTIONS: usize = 8;
/// Reads a second that are wanted; at half of them they are timed.
pub const WANTED: f64 = 1_000.0;
/// How long each part takes.
const TIME: Duration = Duration::from_secs(10);

/// Measures both.
pub fn measure(runtime: &Runtime, server: &ApiServer, start: &Start, share: usize, figures: &mut Figures) {
    let objects = OBJECTS / share;
    say(&format!("reads: writing {objects} assistants and as many numbers"));
    let namespace = runtime.block_on(async {
        let namespace = server.namespace("reads").await;
        let writes = futures::stream::iter(all(objects));
        writes
            .for_each_concurrent(WRITES, |(kind, name, spec)| create(server, &namespace, kind, name, spec))
            .await;
        namespace
    });
    // The API has a core to itself; whoever asks has the others.
    let processors = thread::available_parallelism().map_or(1, usize::from);
    assert!(processors > 1, "one core is for the API, another one for whoever asks");
    let (process, http) = start.api(&["taskset", "--cpu-list", "0"], "api-of-reads");
    run_on(&format!("1-{}", processors - 1));
    let key = start.key(&namespace);
    until("the API shows all numbers", SOON, || {
        let (status, body) = Client::connect(http, &key)?.ask("GET", "/api/v1/numbers?limit=1", "")?;
        let total = serde_json::from_str::<Value>(&body).unwrap_or_default()["pagination"]["total"].clone();
        if total == objects { Ok(()) } else { Err(std::io::Error::other(format!("{status}: {total}"))) }
    });

    let paths = paths(objects);
    let time = TIME / share as u32;
    let one_after_the_other = |connection: usize| {
        let mut client = Client::connect(http, &key).expect("the API listens");
        let begin = Instant::now();
        let mut count = 0;
        while begin.elapsed() < time {
            read(&mut client, &paths[(connection + count * CONNECTIONS) % paths.len()]);
            count += 1;
        }
        count
    };
    let counts = in_threads(one_after_the_other);
    let rate = counts.iter().sum::<usize>() as f64 / time.as_secs_f64();
    figures.set("reads", "max_rate", rate);

    // Evenly spaced, whatever the answers take: a time counts from when the request was due.
    let paced = |rate: f64| {
        let interval = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
        let one = |connection: usize| {
            let mut client = Client::connect(http, &key).expect("the API listens");
            let begin = Instant::now() + interval.mul_f64(connection as f64 / CONNECTIONS as f64);
            let due = (0..).map(|number| begin + interval * number).take_while(|due| *due < begin + time);
            let times = due.enumerate().map(|(number, due)| {
                thread::sleep(due.saturating_duration_since(Instant::now()));
                read(&mut client, &paths[(connection + number * CONNECTIONS) % paths.len()]);
                due.elapsed()
            });
            times.collect::<Vec<_>>()
        };
        Latencies::from(in_threads(one).concat())
    };
    for rate in [WANTED / 2.0, rate / 2.0] {
        let times = paced(rate);
        let (p50, p99) = (times.p50(), times.p99());
        figures
            .note(format!("reads at {rate:.0}/s: p50 {p50:.3} ms, p99 {p99:.3} ms, {} of them", times.len()));
        if rate == WANTED / 2.0 {
            figures.set("reads", "p99_ms", p99);
        }
    }
    drop(process);
}

/// Single objects, and now and then a page of 20.
fn paths(objects: usize) -> Vec<String> {
    let of_one = |number: usize| {
        let mut paths = vec![
            format!("/api/v1/assistants/a-{number}"),
            format!("/api/v1/numbers/n-{number}"),
            format!("/api/v1/sip-trunks/t-{}", number / A_TRUNK),
        ];
        if number.is_multiple_of(3) {
            paths.push(format!("/api/v1/numbers?limit=20&offset={number}"));
        }
        paths
    };
    (0..objects).flat_map(of_one).collect()
}

fn read(client: &mut Client, path: &str) {
    let (status, body) = client.ask("GET", path, "").expect("the API answers");
    assert_eq!(status, 200, "{path}: {body}");
}

fn in_threads<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (results, work) = (&results, &work);
            scope.spawn(move || {
                let result = work(connection);
                results.lock().expect("nobody panics with it").push(result);
            });
        }
    });
    results.into_inner().expect("nobody panicked with it")
}

/// From now on this process, all of its threads, runs on these cores.
fn run_on(cores: &str) {
    let own = std::process::id().to_string();
    let done = Command::new("taskset").args(["--all-tasks", "--cpu-list", "--pid", cores, &own]).output();
    assert!(done.as_ref().is_ok_and(|done| done.status.success()), "taskset: {done:?}");
}

/// What is read.
fn all(objects: usize) -> impl Iterator<Item = (&'static str, String, Value)> {
    (0..objects).flat_map(|number| {
        let trunk = json!({ "host": "pbx.example.com", "displayName": "Office PBX" });
        let destination = json!({
            "type": "number", "number": "+31612345678", "description": "Sales team - for pricing and quotes",
            "message": "I'm transferring you to our sales team, one moment please.",
        });
        let assistant = json!({
            "displayName": "Support Assistant", "firstMessage": "Welcome to Acme support, how can I help you?",
            "llmConfig": {
                "provider": "openai", "model": "gpt-4o-mini",
                "messages": [{ "role": "system", "content": "You are a support agent for Acme." }],
                "tools": [{ "type": "transfer_call", "destinations": [destination] }, { "type": "end_call" }],
            },
        });
        let named = json!({
            "number": format!("+3120{number:07}"), "displayName": "Main line",
            "assistantRef": { "name": format!("a-{number}") },
            "transferTrunkRef": { "name": format!("t-{}", number / A_TRUNK) },
        });
        let trunk = number
            .is_multiple_of(A_TRUNK)
            .then(|| ("SipTrunk", format!("t-{}", number / A_TRUNK), trunk));
        trunk.into_iter().chain([
            ("Assistant", format!("a-{number}"), assistant),
            ("PhoneNumber", format!("n-{number}"), named),
        ])
    })
}

async fn create(server: &ApiServer, namespace: &str, kind: &str, name: String, spec: Value) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("voicedock.dev", "v1alpha1", kind));
    let api: Api<DynamicObject> = Api::namespaced_with(server.client.clone(), namespace, &resource);
    let object = DynamicObject::new(&name, &resource).data(json!({ "spec": spec }));
    let created = api.create(&PostParams::default(), &object).await;
    created.unwrap_or_else(|error| panic!("{kind} {name} can't be created: {error}"));
}
