//! What commands take that ask a cluster: which one, about which namespaces, and how the answer is written.

use std::path::PathBuf;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config, Resource};

use super::Output;
use super::cluster::{ClusterError, PATIENCE};

/// Which cluster is asked.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Cluster {
    /// The kubeconfig [default: KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, value_name = "PATH")]
    kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
}

/// What a command takes that asks about namespaces of a cluster.
#[derive(Clone, Debug, clap::Args)]
pub struct Question {
    /// The namespace [default: that of the context]
    #[arg(long, short, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// Every namespace
    #[arg(long, short = 'A', conflicts_with = "namespace")]
    all_namespaces: bool,
    #[command(flatten)]
    cluster: Cluster,
    /// How the answer is written
    #[arg(long, short, value_enum, default_value_t)]
    pub output: Output,
}

/// The way to a cluster's objects: read and never written.
#[derive(Clone)]
pub struct Asked {
    /// The client.
    pub client: Client,
    /// The only namespace; all when `None`.
    pub namespace: Option<String>,
}

impl Cluster {
    /// A client of the cluster, and the namespace of the context.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub async fn client(&self) -> Result<(Client, String), ClusterError> {
        let named = self.kubeconfig.is_some() || self.context.is_some();
        let config =
            if named { self.config().await } else { Config::infer().await.map_err(|e| e.to_string()) };
        let mut config = config.map_err(ClusterError::NoCluster)?;
        config.connect_timeout = Some(PATIENCE);
        let namespace = config.default_namespace.clone();
        let client = Client::try_from(config).map_err(|error| ClusterError::NoCluster(error.to_string()))?;
        Ok((client, namespace))
    }

    async fn config(&self) -> Result<Config, String> {
        let kubeconfig = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let kubeconfig = kubeconfig.map_err(|error| error.to_string())?;
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| error.to_string())
    }
}

impl Asked {
    /// The way to the cluster.
    ///
    /// # Errors
    /// When there is no such cluster.
    pub async fn new(question: &Question) -> Result<Self, ClusterError> {
        let (client, of_context) = question.cluster.client().await?;
        let namespace = question.namespace.clone().unwrap_or(of_context);
        Ok(Self { client, namespace: (!question.all_namespaces).then_some(namespace) })
    }

    /// Objects of a kind where they are asked about.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Where they are asked about, in words.
    pub fn place(&self) -> String {
        self.namespace.as_ref().map_or_else(|| "any namespace".to_owned(), |name| format!("namespace {name}"))
    }
}
