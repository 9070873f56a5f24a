//! The application that nodes run: a small web server whose releases are good, sick or broken, as their
//! `etc/app.conf` says. Times are seconds. Built by `rustc` alone: the standard library is all it uses.
//!
//! ```text
//! crash=0         ends that long after its start       sick-after=2     /health answers 503 from then on
//! ignore-term=1   does not stop when it is told to      schema=2         form of the data that it writes
//! start-delay=1   is ready only then                    leave-behind=1   starts a process that outlives it
//! second-port=9   listens there, too                    lose-records=1   makes older data anew without their records
//! ballast=64      takes so many MiB of memory
//! ```
//! A node on which `/run/sick` names a release is sick of that one; with `/etc/sick` a rehearsal sees it, too.
//! Data: `schema` (a number) and `records` (a line each). It makes older data anew in its own form, and refuses to
//! start on newer ones, as real applications do.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::FromRawFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};
use std::{env, process, thread};

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
}
const SIGTERM: i32 = 15;
const SIG_IGN: usize = 1;

static STOP: AtomicBool = AtomicBool::new(false);
static IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);

extern "C" fn on_term(_: i32) {
    STOP.store(true, SeqCst);
}

struct App {
    version: String,
    settings: HashMap<String, f64>,
    data: PathBuf,
    started: Instant,
}

impl App {
    fn get(&self, key: &str) -> Option<f64> {
        self.settings.get(key).copied()
    }

    fn is_past(&self, key: &str) -> bool {
        self.get(key).is_some_and(|seconds| self.started.elapsed().as_secs_f64() >= seconds)
    }

    fn is_sick_here(&self) -> bool {
        let names = |path| fs::read_to_string(path).is_ok_and(|version| version.trim() == self.version);
        names("/run/sick") || names("/etc/sick")
    }

    fn open_data(&self) -> io::Result<()> {
        fs::create_dir_all(&self.data)?;
        let wanted = self.get("schema").unwrap_or(1.0);
        let schema = self.data.join("schema");
        let found: f64 = fs::read_to_string(&schema).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0.0);
        if found > wanted {
            eprintln!("data have schema {found}, this release knows {wanted}");
            process::exit(3);
        }
        if found < wanted {
            let records = self.data.join("records");
            let old = fs::read_to_string(&records).unwrap_or_default();
            let new: String = old.lines().map(|line| format!("{line} (schema {wanted})\n")).collect();
            let new = if self.get("lose-records").is_some() { String::new() } else { new };
            fs::write(records, if found == 0.0 { old } else { new })?;
            fs::write(schema, wanted.to_string())?;
        }
        Ok(())
    }

    fn answer(&self, request: &str) -> (u16, String) {
        let (path, query) = request.split_once('?').unwrap_or((request, ""));
        match path {
            "/version" => (200, self.version.clone()),
            "/health" if self.is_past("sick-after") || self.is_sick_here() => (503, "sick".into()),
            "/health" => (200, "well".into()),
            "/add" => {
                let add = || {
                    let mut file = File::options().create(true).append(true).open(self.data.join("records"))?;
                    writeln!(file, "{query}")
                };
                add().map_or_else(|error: io::Error| (500, error.to_string()), |()| (200, "added".into()))
            }
            _ => (404, "no such page".into()),
        }
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let (status, text) = self.answer(line.split(' ').nth(1).unwrap_or("/"));
        let length = text.len();
        write!(reader.into_inner(), "HTTP/1.0 {status} X\r\nContent-Length: {length}\r\n\r\n{text}")
    }
}

/// Tells systemd that the application is ready.
fn notify() {
    if let (Ok(path), Ok(socket)) = (env::var("NOTIFY_SOCKET"), UnixDatagram::unbound()) {
        let _ = socket.send_to(b"READY=1", path);
    }
}

fn main() -> io::Result<()> {
    if env::var("HELPER").is_ok() {
        thread::sleep(Duration::from_secs(3600));
    }
    let program = env::current_exe()?;
    let tree = program.parent().and_then(Path::parent).unwrap_or(Path::new("/"));
    let settings = fs::read_to_string(tree.join("etc/app.conf")).unwrap_or_default();
    let pairs = settings.lines().filter_map(|line| line.split_once('='));
    let app = Arc::new(App {
        version: fs::read_to_string(tree.join("VERSION"))?.trim().to_owned(),
        settings: pairs.filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?))).collect(),
        data: env::var("DATA").unwrap_or_else(|_| "/srv/app/data".into()).into(),
        started: Instant::now(),
    });
    println!("app {} starts", app.version);
    if app.is_past("crash") {
        eprintln!("app {} crashes, as it should", app.version);
        process::exit(1);
    }
    let handler = if app.get("ignore-term").is_some() { SIG_IGN } else { on_term as *const () as usize };
    // SAFETY: the handler only stores to an atomic.
    unsafe { signal(SIGTERM, handler) };
    if app.get("leave-behind").is_some() {
        process::Command::new(&program).arg0("helper").env("HELPER", "1").env_remove("NOTIFY_SOCKET").spawn()?;
    }
    app.open_data()?;
    thread::sleep(Duration::from_secs_f64(app.get("start-delay").unwrap_or(0.0)));
    let listener = if env::var("LISTEN_FDS").is_ok_and(|count| count == "1") {
        // SAFETY: systemd hands over the socket as descriptor 3 (sd_listen_fds(3)).
        unsafe { TcpListener::from_raw_fd(3) }
    } else {
        let port = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(8080);
        TcpListener::bind(("127.0.0.1", port))?
    };
    let _second = match app.get("second-port") {
        Some(port) => Some(TcpListener::bind(("0.0.0.0", port as u16))?),
        None => None,
    };
    // Written, since memory that nobody has touched is no memory.
    let _ballast = vec![1_u8; app.get("ballast").unwrap_or(0.0) as usize * (1 << 20)];
    notify();
    let crashing = Arc::clone(&app);
    thread::spawn(move || {
        while crashing.get("crash").is_some() {
            if crashing.is_past("crash") {
                process::exit(1);
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    listener.set_nonblocking(true)?;
    while !STOP.load(SeqCst) {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(1));
            continue;
        };
        stream.set_nonblocking(false)?;
        IN_FLIGHT.fetch_add(1, SeqCst);
        let app = Arc::clone(&app);
        thread::spawn(move || {
            let _ = app.serve(stream);
            IN_FLIGHT.fetch_sub(1, SeqCst);
        });
    }
    // What was accepted is answered; the rest waits in the socket, if that is systemd's.
    while IN_FLIGHT.load(SeqCst) > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
