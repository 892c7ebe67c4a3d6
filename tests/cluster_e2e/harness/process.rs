//! Programs that a test runs: they end with the test, and say what they said when the test fails.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A program in the background, with a process group of its own. Dropping it kills the group; the end of the thread that
/// started it ends the program, by the kernel's hand: with SIGTERM, on which programs end their own children as well.
pub struct Process {
    name: String,
    child: Child,
    files: Vec<PathBuf>,
}

impl Process {
    /// Starts `program` with its output in `directory`. `files` are further files that it writes, for when the test fails.
    pub fn start(name: &str, directory: &Path, program: &str, args: &[String], files: Vec<PathBuf>) -> Self {
        let output = directory.join(format!("{name}.out"));
        let file = File::create(&output).unwrap_or_else(|error| panic!("{}: {error}", output.display()));
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "--", program])
            .args(args)
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file can be shared"))
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("setpriv {program}: {error}; `make tools` installs what tests need")
            });
        let files = [vec![output], files].concat();
        Self { name: name.to_owned(), child, files }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of an own child can be asked for")
    }

    /// Waits for it to end by itself.
    pub fn end(&mut self, limit: Duration) -> Result<ExitStatus, String> {
        let start = Instant::now();
        loop {
            match self.status() {
                Some(status) => return Ok(status),
                None if start.elapsed() >= limit => {
                    return Err(format!("{} still runs after {limit:?}", self.name));
                }
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, signal: &str) {
        run("kill", &["-s", signal, &self.id().to_string()]);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let running = matches!(self.child.try_wait(), Ok(None));
        // Kamailio is a dozen processes: killing the first one only would leave the others behind.
        let group = format!("-{}", self.id());
        let _ = Command::new("kill").args(["-s", "KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- {}{}", self.name, if running { " (was still running)" } else { "" });
            for file in &self.files {
                let text = fs::read(file).unwrap_or_default();
                if !text.is_empty() {
                    eprintln!("-- {}:\n{}", file.display(), tail(&String::from_utf8_lossy(&text), 12_000));
                }
            }
        }
    }
}

/// The last part of a text that is too long to show.
pub fn tail(text: &str, bytes: usize) -> &str {
    let start = text.len().saturating_sub(bytes);
    let start = (start..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(text.len());
    text[start..].trim()
}

/// What a program that has ended said.
pub struct Said {
    /// Whether it succeeded.
    pub success: bool,
    /// Standard output.
    pub output: String,
    /// Standard error.
    pub errors: String,
}

/// Runs a program to its end.
pub fn say(command: &mut Command) -> Said {
    let done = command.stdin(Stdio::null()).output();
    let done =
        done.unwrap_or_else(|error| panic!("{command:?}: {error}; `make tools` installs what tests need"));
    Said {
        success: done.status.success(),
        output: String::from_utf8_lossy(&done.stdout).into_owned(),
        errors: String::from_utf8_lossy(&done.stderr).into_owned(),
    }
}

/// Runs a program that has to succeed and returns its output.
pub fn succeed(command: &mut Command) -> String {
    let said = say(command);
    assert!(said.success, "{command:?} failed:\n{}{}", said.output, said.errors);
    said.output
}

/// Runs a program of the system that has to succeed.
pub fn run(program: &str, args: &[&str]) -> String {
    succeed(Command::new(program).args(args))
}
