//! A small shop that answers HTTP, to be released, broken, and brought back: the application of `make demo`.
//!
//! ```text
//! shop serve --port 8080 --data DIR     answers until SIGTERM, then finishes what it has begun
//! shop start --port 8080 --data DIR     the same in the background; returns when it answers
//! shop stop  --port 8080 --data DIR     ends the one in the background, and waits until it is gone
//! shop get URL                          prints one answer
//! shop load --port 8080                 asks until SIGTERM, then tells what it saw
//! ```
//! It runs from its release: `<tree>/bin/shop`, with `<tree>/etc/shop.conf`, which says how this release behaves.
#![allow(
    clippy::allow_attributes,
    clippy::disallowed_methods,
    reason = "an application, not a part of cutover"
)]

use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

mod client;
mod orders;
mod server;

/// How long starting and stopping may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the command line says.
struct Options {
    port: u16,
    data: PathBuf,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("shop: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> io::Result<()> {
    match arguments.first().map(String::as_str) {
        Some("serve") => {
            let options = options(arguments)?;
            server::serve(&tree()?, options.port, &options.data)
        }
        Some("start") => start(&options(arguments)?),
        Some("stop") => stop(&options(arguments)?),
        Some("get") => {
            let url = arguments.get(1).ok_or_else(|| io::Error::other("get needs a URL"))?;
            println!("{}", client::get(url)?.trim_end());
            Ok(())
        }
        Some("load") => client::load(options(arguments)?.port),
        _ => {
            Err(io::Error::other("usage: shop serve|start|stop|load --port PORT --data DIR, or shop get URL"))
        }
    }
}

fn options(arguments: &[String]) -> io::Result<Options> {
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).cloned()
    };
    let port = value("--port").unwrap_or_else(|| "8080".to_owned());
    Ok(Options {
        port: port.parse().map_err(|_| io::Error::other(format!("`{port}` is not a port")))?,
        data: value("--data").unwrap_or_else(|| "data".to_owned()).into(),
    })
}

/// The release that this program belongs to: the directory above `bin/`.
fn tree() -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    Ok(program.parent().and_then(Path::parent).unwrap_or(Path::new("/")).to_owned())
}

/// Does nothing when this release runs already: whoever was interrupted may say it again.
fn start(options: &Options) -> io::Result<()> {
    if running(options).is_some_and(|pid| program_of(pid) == std::env::current_exe().ok()) {
        return Ok(());
    }
    fs::create_dir_all(&options.data)?;
    let log = fs::OpenOptions::new().create(true).append(true).open(options.data.join("shop.log"))?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["serve", "--port", &options.port.to_string(), "--data"])
        .arg(&options.data)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .spawn()?;
    fs::write(pid_file(options), child.id().to_string())?;
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!(
                "it ended at once, {status}: see {}",
                options.data.join("shop.log").display()
            )));
        }
        if client::connects(options.port) {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other("it does not answer"))
}

fn stop(options: &Options) -> io::Result<()> {
    let begun = Instant::now();
    while let Some(pid) = running(options) {
        let is_late = begun.elapsed() > PATIENCE;
        kill(Pid::from_raw(pid), if is_late { Signal::SIGKILL } else { Signal::SIGTERM })?;
        std::thread::sleep(Duration::from_millis(5));
    }
    match fs::remove_file(pid_file(options)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn pid_file(options: &Options) -> PathBuf {
    options.data.join("shop.pid")
}

/// The shop in the background, if it runs.
fn running(options: &Options) -> Option<i32> {
    let pid = fs::read_to_string(pid_file(options)).ok()?.trim().parse().ok()?;
    program_of(pid).filter(|program| program.to_string_lossy().contains("/bin/shop")).map(|_| pid)
}

/// What a process runs; one that only waits for its parent to take notice runs nothing any more.
fn program_of(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}
