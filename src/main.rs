//! The program: see [`voicedock::command_line`].

use std::process::ExitCode;

/// Gives memory back after a peak of calls, which the system's allocator does not.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[tokio::main]
async fn main() -> ExitCode {
    voicedock::command_line::run(std::env::args_os().collect()).await
}
