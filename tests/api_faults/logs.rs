//! What operators and gateways log: for a person who sets RUST_LOG, and runs one test.

use std::sync::Once;

use tracing::level_filters::LevelFilter;

static CAPTURED: Once = Once::new();

/// Writes what RUST_LOG asks for.
pub fn capture() {
    CAPTURED.call_once(|| {
        let filter = tracing_subscriber::EnvFilter::builder()
            .with_default_directive(LevelFilter::OFF.into())
            .from_env_lossy();
        tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_test_writer().init();
    });
}
