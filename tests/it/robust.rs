//! Places behind a line that is counted, cut, busy, away or lying: what a node fetches, and what becomes of its updates.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use cutover::types::Digest;

use crate::places::{AZURITE, Daemon, bucket, container, daemon, follow, free_port, registry};
use crate::plan::noise;
use crate::refusals::Desk;
use crate::web::{Server, file, status};

/// What the line does.
const WELL: usize = 0;
const AWAY: usize = 1;
const BUSY: usize = 2;
const LYING: usize = 3;

/// A line to a server: whoever speaks with it is counted.
struct Line {
    port: u16,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    mode: AtomicUsize,
    /// Bytes that came from the server.
    bytes: AtomicU64,
    connects: AtomicUsize,
    /// After so many bytes from the server a connection is cut.
    cut: AtomicU64,
}

impl Line {
    fn to(server: u16) -> Self {
        Self::beside(server, Arc::new(State { cut: AtomicU64::new(u64::MAX), ..State::default() }))
    }

    /// One that is counted and cut together with another.
    fn beside(server: u16, state: Arc<State>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ours = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&ours);
                thread::spawn(move || carry(stream, server, &state));
            }
        });
        Self { port, state }
    }

    fn set(&self, mode: usize) {
        self.state.mode.store(mode, Ordering::SeqCst);
    }

    /// Bytes and connections since the last time.
    fn counted(&self) -> (u64, usize) {
        (self.state.bytes.swap(0, Ordering::SeqCst), self.state.connects.swap(0, Ordering::SeqCst))
    }
}

fn carry(mut client: TcpStream, server: u16, state: &State) {
    state.connects.fetch_add(1, Ordering::SeqCst);
    let mode = state.mode.load(Ordering::SeqCst);
    if mode == AWAY {
        return;
    }
    if mode == BUSY {
        let mut asked = [0; 4096];
        drop(client.read(&mut asked));
        drop(client.write_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        return;
    }
    let Ok(mut upstream) = TcpStream::connect(("127.0.0.1", server)) else { return };
    let (mut asks, mut answers) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
    thread::spawn(move || {
        drop(std::io::copy(&mut asks, &mut answers));
        drop(answers.shutdown(Shutdown::Write));
    });
    let cut = state.cut.load(Ordering::SeqCst);
    let (mut buffer, mut sent) = (vec![0; 16 << 10], 0_u64);
    while let Ok(got @ 1..) = upstream.read(&mut buffer) {
        let got = got.min(usize::try_from(cut - sent).unwrap_or(usize::MAX));
        if mode == LYING && (sent..sent + got as u64).contains(&150_000) {
            buffer[usize::try_from(150_000 - sent).unwrap()] ^= 1;
        }
        state.bytes.fetch_add(got as u64, Ordering::SeqCst);
        sent += got as u64;
        if client.write_all(&buffer[..got]).is_err() || sent >= cut {
            break;
        }
    }
    drop(client.shutdown(Shutdown::Both));
    drop(upstream.shutdown(Shutdown::Both));
}

/// Where releases live in a test.
struct Place {
    desk: Desk,
    line: Line,
    /// As publishers and nodes name it.
    to: String,
    url: String,
    credentials: bool,
    /// Connections that a request takes: it may be led elsewhere.
    hops: usize,
}

impl Place {
    fn new(desk: Desk, line: Line, to: String, url: String, credentials: Option<&str>) -> Self {
        let mut more = "retries = 0".to_owned();
        if let Some(text) = credentials {
            let path = desk.path("credentials");
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            more = format!("{more}\ncredentials = \"{}\"", path.display());
        }
        follow(&desk, &url, &more);
        Self { desk, line, to, url, credentials: credentials.is_some(), hops: 1 }
    }

    /// Packs a release that differs in one file of a hundred.
    fn pack(&self, version: &str, base: Option<&str>) -> u64 {
        for number in 0..100 {
            let path = self.desk.path(&format!("app/{number:02}"));
            if base.is_none() || number == 7 {
                fs::write(path, noise(number + 1000 * version.len() as u64, 30_000)).unwrap();
            }
        }
        let archive = format!("source/shop-{version}.tar.zst");
        let mut words = vec!["pack", "app", "--product", "shop", "--version", version, "-o", &archive];
        let base = base.map(|base| format!("source/shop-{base}.tar.zst"));
        words.extend(base.iter().flat_map(|base| ["--base", base.as_str()]));
        self.desk.well(&words);
        fs::metadata(self.desk.path(&archive)).unwrap().len()
    }

    fn publish(&self, version: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cutover"));
        let words = ["publish", "source", version, "--product", "shop", "--key", "team", "--to", &self.to];
        command.args(words).current_dir(self.desk.path("."));
        if self.credentials {
            command.args(["--credentials", "credentials"]);
        }
        command
    }

    fn published(&self, version: &str) {
        let done = self.publish(version).output().unwrap();
        assert!(done.status.success(), "{}: {}", self.to, String::from_utf8_lossy(&done.stderr));
    }

    #[track_caller]
    fn updates_to(&self, version: &str) {
        let (code, said) = self.desk.update();
        assert_eq!((code, self.desk.active().as_str()), (0, version), "{}: {said}", self.url);
    }
}

/// Installs, updates, and is cut, away, busy, lied to; `cuts` at random bytes.
fn holds_there(place: &Place, cuts: usize) {
    let (desk, line) = (&place.desk, &place.line);
    let size = place.pack("2.0", None);
    place.published("2.0");
    line.counted();
    // A lying server gives nothing that is kept, and changes nothing.
    line.set(LYING);
    let (code, said) = desk.update();
    assert!(code == 12 || code == 1, "{}: {code}: {said}", place.url);
    assert_eq!(desk.active(), "1.0", "{}: {said}", place.url);
    // A server that has no time is not asked without end.
    line.set(BUSY);
    line.counted();
    let (code, said) = desk.update();
    let (_, connects) = line.counted();
    assert!(code == 1 && connects <= 4, "{}: {code}, {connects} connections: {said}", place.url);
    line.set(WELL);
    let mut random = 88_172_645_463_325_252_u64;
    let (mut fetched, mut count) = (0, 0);
    loop {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let is_cut = count < cuts;
        let cut = if is_cut { 1000 + random % (2 * size / cuts.max(1) as u64) } else { u64::MAX };
        line.state.cut.store(cut, Ordering::SeqCst);
        let (code, said) = desk.update();
        fetched += line.counted().0;
        count += 1;
        if code == 0 {
            break;
        }
        assert!(is_cut && code == 1, "{}: cut after {cut}: {code}: {said}", place.url);
        assert_eq!(desk.active(), "1.0", "{}: {said}", place.url);
    }
    assert_eq!(desk.active(), "2.0");
    // Small files, and what is said beside bytes, come with each attempt.
    let most = size + size / 10 + count as u64 * 40_000;
    assert!(fetched <= most, "{}: {fetched} bytes of {size} in {count} attempts", place.url);
    line.state.cut.store(u64::MAX, Ordering::SeqCst);
    // One file of a hundred.
    let size = place.pack("2.01", Some("2.0"));
    place.published("2.01");
    line.counted();
    place.updates_to("2.01");
    let (fetched, connects) = line.counted();
    assert!(fetched <= size * 5 / 100, "{}: {fetched} bytes of {size}", place.url);
    assert!(connects <= 20 * place.hops, "{}: {connects} connections", place.url);
    // Going back needs nobody.
    line.set(AWAY);
    desk.well(&["--config", "node.toml", "rollback"]);
    assert_eq!((desk.active().as_str(), line.counted().1), ("2.0", 0));
    line.set(WELL);
    two_publishers(place);
}

/// Two publishers at once: each says what became of it, and nodes take what is there.
fn two_publishers(place: &Place) {
    for version in ["3.0", "4.0"] {
        fs::write(place.desk.path("app/file"), version).unwrap();
        let archive = format!("source/shop-{version}.tar.zst");
        place.desk.well(&["pack", "app", "--product", "shop", "--version", version, "-o", &archive]);
    }
    // Each in a directory of its own, as two runs of a CI have.
    let copied =
        Command::new("cp").args(["-r", "source", "other"]).current_dir(place.desk.path(".")).status();
    assert!(copied.unwrap().success());
    let mut other = place.publish("4.0");
    let words: Vec<_> = other.get_args().map(std::ffi::OsStr::to_owned).collect();
    other = Command::new(env!("CARGO_BIN_EXE_cutover"));
    let words = words.into_iter().map(|word| if word == "source" { "other".into() } else { word });
    other.args(words).current_dir(place.desk.path("."));
    let started = [place.publish("3.0"), other].map(|mut command| {
        command.stderr(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap()
    });
    let ended = started.map(|child| child.wait_with_output().unwrap());
    for done in &ended {
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success() || said.contains("somebody else"), "{}: {said}", place.to);
    }
    assert!(ended.iter().any(|done| done.status.success()), "{}", place.to);
    let (code, said) = place.desk.run(&["--config", "node.toml", "unhold"]);
    assert_eq!(code, 0, "{said}");
    let (code, said) = place.desk.update();
    let active = place.desk.active();
    assert!(code == 0 && ["3.0", "4.0"].contains(&active.as_str()), "{}: {active}: {said}", place.url);
}

fn in_registry(test: &str) -> Option<(Place, Daemon)> {
    let desk = Desk::new();
    let (daemon, port) = registry(test, &desk, false)?;
    let line = Line::to(port);
    let url = format!("oci://127.0.0.1:{}/team/shop", line.port);
    Some((Place::new(desk, line, url.clone(), url, None), daemon))
}

fn in_bucket(test: &str) -> Option<(Place, Daemon)> {
    let (daemon, port) = bucket(test)?;
    let line = Line::to(port);
    let url = format!("s3://shop/releases?endpoint=http://127.0.0.1:{}&region=us-east-1", line.port);
    Some((Place::new(Desk::new(), line, url.clone(), url, Some("key:secret")), daemon))
}

fn in_container(test: &str) -> Option<(Place, Daemon)> {
    let desk = Desk::new();
    let (daemon, port) = container(test, &desk)?;
    let (line, account) = (Line::to(port), "devstoreaccount1");
    let url =
        format!("az://box/releases?account={account}&endpoint=http://127.0.0.1:{}/{account}", line.port);
    Some((Place::new(desk, line, url.clone(), url, Some(AZURITE)), daemon))
}

/// A directory that a web server shows.
fn behind_nginx(test: &str) -> Option<(Place, Daemon)> {
    let desk = Desk::new();
    let (port, root) = (free_port(), desk.path(".").canonicalize().unwrap());
    let shown: PathBuf = root.join("shown");
    for directory in [&shown, &root.join("nginx")] {
        fs::create_dir(directory).unwrap();
    }
    let text = format!(
        "daemon off; master_process off; pid {0}/nginx/pid; error_log {0}/nginx/log; events {{}}
        http {{ access_log off; client_body_temp_path {0}/nginx/a; proxy_temp_path {0}/nginx/b;
        fastcgi_temp_path {0}/nginx/c; uwsgi_temp_path {0}/nginx/d; scgi_temp_path {0}/nginx/e;
        server {{ listen 127.0.0.1:{port}; root {0}/shown; }} }}",
        root.display()
    );
    fs::write(root.join("nginx.conf"), text).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-c").arg(root.join("nginx.conf"));
    let daemon = daemon(test, port, &mut command)?;
    let line = Line::to(port);
    let url = format!("http://127.0.0.1:{}", line.port);
    Some((Place::new(desk, line, shown.display().to_string(), url, None), daemon))
}

/// A forge: files of releases, for whoever has its token; each request is led to an object store elsewhere, by an address
/// that holds for that request.
fn at_a_forge() -> (Place, [Server; 2]) {
    let files: Arc<Mutex<HashMap<String, Vec<u8>>>> = Arc::default();
    let signed: Arc<Mutex<HashSet<String>>> = Arc::default();
    let tag = |bytes: &[u8]| format!("\"{}\"", Digest::of(bytes).hex());
    let (kept, valid) = (Arc::clone(&files), Arc::clone(&signed));
    let store = Server::new(move |asked, stream| {
        let is_mine = valid.lock().unwrap().remove(&asked.path) && asked.header("authorization").is_none();
        let path = asked.path.split('?').next().unwrap();
        match kept.lock().unwrap().get(path).filter(|_| is_mine).cloned() {
            Some(bytes) => file(asked, stream, &bytes, &tag(&bytes), usize::MAX),
            None => status(stream, "403 Forbidden", "", b""),
        }
    });
    let line = Line::to(store.port());
    let elsewhere = line.port;
    let count = AtomicUsize::new(0);
    let forge = Server::new(move |asked, stream| {
        if asked.header("authorization") != Some("Bearer ghp_secret") {
            return status(stream, "404 Not Found", "", b"");
        }
        let mut files = files.lock().unwrap();
        let there = files.get(&asked.path);
        if asked.method == "PUT" {
            let is_refused = match (asked.header("if-none-match"), asked.header("if-match")) {
                (Some("*"), _) => there.is_some(),
                (_, Some(wanted)) => there.map(|bytes| tag(bytes)).as_deref() != Some(wanted),
                _ => false,
            };
            if is_refused {
                return status(stream, "412 Precondition Failed", "", b"");
            }
            files.insert(asked.path.clone(), asked.body.clone());
            return status(stream, "201 Created", "", b"");
        }
        if there.is_none() {
            return status(stream, "404 Not Found", "", b"");
        }
        let address = format!("{}?sig={}", asked.path, count.fetch_add(1, Ordering::SeqCst));
        signed.lock().unwrap().insert(address.clone());
        let location = format!("Location: http://127.0.0.1:{elsewhere}{address}\r\n");
        status(stream, "302 Found", &location, b"")
    });
    let line = Line::beside(forge.port(), line.state);
    let url = format!("http://127.0.0.1:{}/shop/releases/download/{{release}}/{{file}}", line.port);
    let place = Place::new(Desk::new(), line, url.clone(), url, Some("ghp_secret\n"));
    (Place { hops: 2, ..place }, [forge, store])
}

#[test]
fn a_forge_behind_a_poor_line() {
    let (place, [forge, _store]) = at_a_forge();
    holds_there(&place, 2);
    let put: Vec<String> =
        forge.asked().into_iter().filter(|asked| asked.method == "PUT").map(|asked| asked.path).collect();
    for path in ["2.0/shop-2.0.tar.zst", "2.01/shop-2.01.manifest.sig", "channel-stable/stable.channel"] {
        assert!(put.contains(&format!("/shop/releases/download/{path}")), "{path}: {put:?}");
    }
}

#[test]
fn a_registry_behind_a_poor_line() {
    let Some((place, _daemon)) = in_registry("a_registry_behind_a_poor_line") else { return };
    holds_there(&place, 2);
}

#[test]
fn a_container_of_azure_behind_a_poor_line() {
    let test = "a_container_of_azure_behind_a_poor_line";
    let Some((place, _daemon)) = in_container(test) else { return };
    holds_there(&place, 2);
}

#[test]
fn a_web_server_behind_a_poor_line() {
    let Some((place, _daemon)) = behind_nginx("a_web_server_behind_a_poor_line") else { return };
    holds_there(&place, 2);
}

#[test]
#[ignore = "a hundred cuts at each place: minutes; `make test-crashes`"]
fn a_hundred_cuts_at_each_place_by_any_method() {
    let test = "a_hundred_cuts_at_each_place_by_any_method";
    let places = [in_registry(test), in_bucket(test), in_container(test), behind_nginx(test)];
    for (place, _daemon) in places.into_iter().flatten() {
        holds_there(&place, 100);
    }
    holds_there(&at_a_forge().0, 100);
}
