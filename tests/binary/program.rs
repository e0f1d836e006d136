//! Starts the program and follows what it says. With MIDGE_BINARY it is another one than cargo built: a command such as
//! `qemu-arm -cpu arm1176 /tmp/midge`, to which the arguments are added.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

/// Far beyond what anything here takes: a test that waits so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);

/// The program's words on a command line.
pub fn words() -> Vec<String> {
    let other = std::env::var("MIDGE_BINARY").ok();
    other.map_or_else(
        || vec![env!("CARGO_BIN_EXE_midge").to_string()],
        |other| other.split(' ').map(str::to_string).collect(),
    )
}

/// Whether the program's process is an emulator.
pub fn is_emulated() -> bool {
    words().len() > 1
}

/// The program without any argument.
pub fn bare() -> Command {
    let words = words();
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

/// The program with these arguments.
pub fn command(arguments: &[&str], rust_log: Option<&str>) -> Command {
    let mut command = bare();
    // Whoever runs the tests, what the program makes belongs to them.
    command.args(arguments).args(["--user", "root"]).env_remove("RUST_LOG").stdin(Stdio::null());
    command.envs(rust_log.map(|filters| ("RUST_LOG", filters)));
    command
}

/// Whether whoever runs the tests is root.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|of_process| of_process.uid() == 0)
}

/// The program with these arguments, which becomes this user although the tests are run by root.
pub fn command_as(user: u32, arguments: &[&str]) -> Command {
    let mut command = command(arguments, None);
    let user = user.to_string();
    command.envs([("PUID", &user), ("PGID", &user)]).stderr(Stdio::piped());
    command
}

/// Runs the program to its end.
pub fn run(arguments: &[&str], rust_log: Option<&str>) -> Output {
    let mut output = command(arguments, rust_log).output().unwrap();
    output.stdout = without_warning(&output.stdout);
    output.stderr = without_warning(&output.stderr);
    output
}

/// Said when the tests are run by root, whom `--user root` lets stay root; else it says nothing.
fn is_about_root(line: &str) -> bool {
    line.contains("keeps running as root")
}

fn without_warning(text: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(text);
    text.split_inclusive('\n').filter(|line| !is_about_root(line)).collect::<String>().into_bytes()
}

/// Runs the program to its failure: its exit code and the only lines it may have written, without their times.
pub fn fail(arguments: &[&str]) -> (i32, Vec<String>) {
    let output = run(arguments, None);
    assert!(output.stdout.is_empty(), "{output:?}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), stderr.lines().map(|line| without_time(line).to_string()).collect())
}

/// The text behind `EPOCHSECONDS: `.
pub fn without_time(line: &str) -> &str {
    match line.split_once(": ") {
        Some((time, text)) if time.parse::<u64>().is_ok_and(|seconds| seconds > 1_600_000_000) => text,
        _ => line,
    }
}

/// The program while it runs; killed at the end of the test if it still does.
pub struct Midge {
    child: Child,
    lines: Receiver<String>,
}

impl Midge {
    pub fn start(arguments: &[&str], rust_log: Option<&str>) -> Midge {
        Midge::follow(command(arguments, rust_log).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Follows a process whose standard error is piped.
    pub fn follow(mut child: Child) -> Midge {
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stderr.lines().map(Result::unwrap).filter(|line| !is_about_root(line)) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Midge { child, lines }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line it writes.
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("it says nothing")
    }

    /// All lines up to the one that says the broker runs, without their times.
    pub fn start_lines(&self) -> Vec<String> {
        let mut seen = Vec::new();
        while !seen.last().is_some_and(|line: &String| line.ends_with(" running")) {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("it does not run: {seen:#?}"));
            assert_ne!(without_time(&line), line, "the line has no time");
            seen.push(without_time(&line).to_string());
        }
        seen
    }

    /// Sends the signal. MIDGE_RTMIN says what RTMIN is to the program: 35 with musl, and 37 with musl in QEMU.
    pub fn signal(&self, signal: &str) {
        let first_real_time = std::env::var("MIDGE_RTMIN").ok().filter(|_| signal == "RTMIN");
        let signal = first_real_time.as_deref().unwrap_or(signal);
        let kill = format!("kill -{signal} {}", self.pid());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// The next line it writes that has these words, without its time.
    pub fn line_with(&self, words: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(words) {
                return without_time(&line).to_string();
            }
        }
    }

    /// Sends the signal, waits for the end, and returns it with the lines written since `start_lines`.
    pub fn stop(mut self, signal: &str) -> (ExitStatus, Vec<String>) {
        self.signal(signal);
        let mut rest = Vec::new();
        // The channel ends when the program's standard error does.
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => rest.push(without_time(&line).to_string()),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("{signal} does not end it: {rest:#?}"),
            }
        }
        (self.child.wait().unwrap(), rest)
    }
}

impl Drop for Midge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The port in `Opening FAMILY listen socket on port N.`; `None` if there is no such line.
pub fn port(lines: &[String], family: &str) -> Option<u16> {
    let prefix = format!("Opening {family} listen socket on port ");
    lines.iter().find_map(|line| line.strip_prefix(&prefix)?.strip_suffix('.')?.parse().ok())
}
