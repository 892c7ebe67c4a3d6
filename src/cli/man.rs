//! `voicedock man --out DIR`: a page for the program and for each of its commands.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use super::{WELL, unanswered};

/// What `voicedock man` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The directory, made if it isn't there, such as ~/.local/share/man/man1
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs `voicedock man`.
pub fn run(args: &Args, command: clap::Command) -> ExitCode {
    let written = fs::create_dir_all(&args.out).and_then(|()| clap_mangen::generate_to(command, &args.out));
    match written {
        Ok(()) => ExitCode::from(WELL),
        Err(error) => {
            let out = args.out.display();
            unanswered(&format!(
                "can't write man pages to {out}: {error}; give a directory that can be written with --out"
            ))
        }
    }
}
