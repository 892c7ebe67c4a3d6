//! The programs that tests start: where `hack/tools.sh` puts them, else on the PATH.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Output};

/// Path of a program.
pub fn tool(name: &str) -> PathBuf {
    cached(name).unwrap_or_else(|| PathBuf::from(name))
}

/// Path of a program that `hack/tools.sh` has installed.
pub fn cached(name: &str) -> Option<PathBuf> {
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/voicedock"));
    let cache = env::var_os("VOICEDOCK_CACHE").map(PathBuf::from).or_else(home)?;
    Some(cache.join("bin").join(name)).filter(|path| path.exists())
}

/// Runs a program to its end.
///
/// # Panics
/// When it can't be started.
pub fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; run hack/tools.sh, which installs it"))
}

/// What a program prints when it succeeds.
///
/// # Panics
/// When it fails, with what it says then.
pub fn printed(command: &mut Command) -> String {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}
