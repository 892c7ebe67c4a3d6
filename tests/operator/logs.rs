//! Every log line of the test process, kept for a look at it.

use std::io;
use std::sync::{LazyLock, Mutex, Once};

use tracing_subscriber::fmt::MakeWriter;

static LOGS: LazyLock<Mutex<Vec<u8>>> = LazyLock::new(Mutex::default);
static CAPTURED: Once = Once::new();

struct Logs;

impl io::Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOGS.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Logs {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        Self
    }
}

/// Keeps every log line of the process, ours and the libraries', down to TRACE.
pub fn capture() {
    CAPTURED.call_once(|| {
        let filter = tracing_subscriber::EnvFilter::new(
            "trace,h2=info,hyper=info,hyper_util=info,rustls=info,tower=info",
        );
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(|| Logs).init();
    });
}

/// What has been logged.
pub fn captured() -> String {
    String::from_utf8_lossy(&LOGS.lock().unwrap()).into_owned()
}
