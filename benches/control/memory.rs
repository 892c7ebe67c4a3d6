//! Resident memory of the operator and of a gateway, at rest.

use std::time::{Duration, Instant};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};

use crate::clients::Crowd;
use crate::programs::{Memory, Program};
use crate::stage::Stage;

/// The allocator gives pages back over ten seconds: memory that hasn't fallen for that long has come to rest.
const REST: Duration = Duration::from_secs(12);
/// The longest wait for that.
const LIMIT: Duration = Duration::from_secs(60);
/// Less than this, MiB, is no fall.
const NOTHING: f64 = 1.0;
/// Size of an unrelated Secret, bytes.
const SECRET: usize = 500_000;

/// Memory of the operator, and of the gateway that takes most.
pub async fn measure(stage: &Stage) -> (Memory, Memory) {
    stage.is_tidy().await;
    let operator = stage.operator();
    let gateways = stage.gateways.iter().map(|gateway| &gateway.program);
    let all: Vec<&Program> = [operator].into_iter().chain(gateways).collect();
    let total = || all.iter().map(|program| program.memory().now).sum::<f64>();
    let began = Instant::now();
    let mut lowest = (total(), Instant::now());
    while lowest.1.elapsed() < REST && began.elapsed() < LIMIT {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = total();
        if now < lowest.0 - NOTHING {
            lowest = (now, Instant::now());
        }
    }
    let gateways = stage.gateways.iter().map(|gateway| gateway.program.memory());
    let most = gateways.max_by(|a, b| a.now.total_cmp(&b.now)).expect("there are gateways");
    (operator.memory(), most)
}

/// Adds large Secrets that nothing names, where the operator watches.
pub async fn add_secrets(stage: &Stage, crowd: &Crowd, count: usize) {
    crowd
        .all(0..count, async |client, index| {
            let data = [("blob".to_owned(), ByteString(vec![b'x'; SECRET]))];
            let metadata = ObjectMeta { name: Some(format!("unrelated-{index}")), ..ObjectMeta::default() };
            let secret = Secret { metadata, data: Some(data.into()), ..Secret::default() };
            let secrets: Api<Secret> = Api::namespaced(client.clone(), &stage.namespace);
            secrets.create(&PostParams::default(), &secret).await.expect("a Secret can be created");
        })
        .await;
}
