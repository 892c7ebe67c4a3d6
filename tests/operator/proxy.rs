//! A way to the API server that can fall silent: connections stay open and nothing comes any more, as when a node in
//! between has vanished.

use std::sync::{Arc, Mutex};

use kube::Config;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

pub struct Proxy {
    /// Leads over the proxy.
    pub config: Config,
    frozen: Arc<Mutex<Vec<CancellationToken>>>,
    cut: Arc<Mutex<bool>>,
}

impl Proxy {
    pub async fn start(mut config: Config) -> Self {
        let server = config.cluster_url.authority().unwrap().to_string();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        config.tls_server_name.get_or_insert_with(|| config.cluster_url.host().unwrap().to_owned());
        config.cluster_url = address.parse().unwrap();
        let frozen = Arc::new(Mutex::new(Vec::<CancellationToken>::new()));
        let cut = Arc::new(Mutex::new(false));
        let (open, is_cut) = (Arc::clone(&frozen), Arc::clone(&cut));
        tokio::spawn(async move {
            loop {
                let (mut near, _) = listener.accept().await.unwrap();
                let freeze = CancellationToken::new();
                if *is_cut.lock().unwrap() {
                    freeze.cancel();
                }
                open.lock().unwrap().push(freeze.clone());
                let mut far = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        () = freeze.cancelled() => std::future::pending().await,
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        Self { config, frozen, cut }
    }

    /// Connections that are open now fall silent; later ones work.
    pub fn freeze(&self) {
        self.frozen.lock().unwrap().drain(..).for_each(|open| open.cancel());
    }

    /// All connections fall silent, later ones too.
    pub fn cut(&self) {
        *self.cut.lock().unwrap() = true;
        self.freeze();
    }
}
