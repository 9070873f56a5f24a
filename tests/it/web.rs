//! A source on a web server: servers that are slow, endless, cut transfers, or lead elsewhere.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use cutover::release::source::{self, Error, Item, Of, Settings, Source, fetch_whole};
use cutover::types::progress::Silent;
use cutover::types::{Digest, Size, Span};

/// What a server was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The range asked for, first and last byte.
    pub fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()?))
    }
}

type Answer = dyn Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync;

/// A web server of this test: one request a connection, answered by a function.
pub struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    is_over: Arc<AtomicBool>,
}

impl Server {
    pub fn new(
        answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        Self::at("127.0.0.1:0", answer)
    }

    /// One at this address.
    pub fn at(
        place: &str,
        answer: impl Fn(&Asked, &mut TcpStream) -> std::io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(place).unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let is_over = Arc::new(AtomicBool::new(false));
        let answer: Arc<Answer> = Arc::new(answer);
        let (log, over) = (Arc::clone(&asked), Arc::clone(&is_over));
        thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                thread::spawn(move || serve(stream.unwrap(), &*answer, &log));
            }
        });
        Self { address, asked, is_over }
    }

    pub fn url(&self) -> String {
        format!("http://{}/shop", self.address)
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn settings(&self) -> Settings {
        Settings { url: Some(self.url()), retries: 0, ..Settings::default() }
    }

    pub fn source(&self) -> Box<dyn Source> {
        source::open(&self.settings()).unwrap()
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(mut stream: TcpStream, answer: &Answer, log: &Mutex<Vec<Asked>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let pairs = lines.take_while(|line| !line.is_empty());
    let headers = pairs
        .filter_map(|line| line.split_once(':').map(|(key, value)| (key.to_owned(), value.trim().to_owned())))
        .collect();
    let mut asked = Asked { method, path, headers, body: Vec::new() };
    let length = asked.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    if reader.take(length).read_to_end(&mut asked.body).is_err() {
        return;
    }
    log.lock().unwrap().push(asked.clone());
    // The client may go away whenever it likes.
    drop(answer(&asked, &mut stream));
}

pub fn status(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n")?;
    stream.write_all(body)
}

/// Answers as a good server does, but sends at most `cut_after` bytes of a body.
pub fn file(
    asked: &Asked,
    stream: &mut TcpStream,
    bytes: &[u8],
    tag: &str,
    cut_after: usize,
) -> std::io::Result<()> {
    let is_fresh = asked.header("if-range").is_none_or(|wanted| wanted == tag);
    let (code, range, body) = match asked.range().filter(|_| is_fresh) {
        Some((first, last)) => {
            let last = last.min(bytes.len() - 1);
            let range = format!("Content-Range: bytes {first}-{last}/{}\r\n", bytes.len());
            ("206 Partial Content", range, &bytes[first..=last])
        }
        None => ("200 OK", String::new(), bytes),
    };
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {code}\r\nConnection: close\r\nContent-Length: {length}\r\nETag: {tag}\r\n{range}\r\n"
    )?;
    stream.write_all(&body[..length.min(cut_after)])
}

/// Bytes of the archive.
pub const SIZE: u64 = 1_200_000;

pub fn item(name: &str) -> Item<'_> {
    Item { of: Of::Release("1"), name }
}

pub fn archive() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

pub fn fetch(source: &dyn Source, signed: &[u8]) -> Result<Vec<u8>, Error> {
    let mut private = tempfile::tempfile().unwrap();
    let ranges = source.archive(item("shop-1.tar"), signed.len() as u64)?;
    fetch_whole(&*ranges, signed.len() as u64, Digest::of(signed), &mut private, &Silent)?;
    let mut bytes = Vec::new();
    private.read_to_end(&mut bytes).unwrap();
    Ok(bytes)
}

#[test]
fn small_files_and_parts_of_archives_are_read() {
    let bytes = archive();
    let served = bytes.clone();
    let server = Server::new(move |asked, stream| match asked.path.as_str() {
        "/shop/stable.channel" => status(stream, "200 OK", "", b"text"),
        "/shop/shop-1.tar" => file(asked, stream, &served, "\"1\"", usize::MAX),
        _ => status(stream, "404 Not Found", "", b"nothing"),
    });
    let source = server.source();
    assert_eq!(source.small(item("stable.channel"), 4).unwrap().unwrap(), b"text");
    assert!(matches!(source.small(item("stable.channel"), 3), Err(Error::TooLong { .. })));
    assert!(source.small(item("absent"), 3).unwrap().is_none());
    assert!(matches!(source.archive(item("absent"), SIZE), Err(Error::Missing(_))));
    assert!(matches!(source.small(item("../x"), 3), Err(Error::Name(_))));
    let ranges = source.archive(item("shop-1.tar"), SIZE).unwrap();
    assert!(ranges.has_ranges() && ranges.size() == bytes.len() as u64);
    let mut part = Vec::new();
    ranges.read_range(1000, 5000).unwrap().read_to_end(&mut part).unwrap();
    assert!(part == bytes[1000..6000]);
    assert!(ranges.read_range(0, 0).unwrap().read_to_end(&mut part).is_ok());
    assert!(matches!(ranges.read_range(bytes.len() as u64, 1), Err(Error::OutOfRange { .. })));
    assert!(fetch(&*source, &bytes).unwrap() == bytes);
    assert!(server.asked().iter().all(|asked| asked.header("accept-encoding") == Some("identity")));
}

#[test]
fn a_server_without_ranges_gives_the_whole() {
    let bytes = archive();
    let served = bytes.clone();
    let server = Server::new(move |_, stream| status(stream, "200 OK", "", &served));
    let source = server.source();
    let ranges = source.archive(item("shop-1.tar"), SIZE).unwrap();
    assert!(!ranges.has_ranges());
    let mut part = Vec::new();
    ranges.read_range(1000, 5000).unwrap().read_to_end(&mut part).unwrap();
    assert!(part == bytes[1000..6000]);
    assert!(fetch(&*source, &bytes).unwrap() == bytes);
}

#[test]
fn a_transfer_that_is_cut_at_any_byte_is_taken_up_again() {
    let bytes = archive();
    let served = bytes.clone();
    // Each answer is cut after another number of bytes; each brings at least one.
    let seed = AtomicUsize::new(12345);
    let server = Server::new(move |asked, stream| {
        let random = seed.fetch_add(0x9e37_79b9, Ordering::SeqCst).wrapping_mul(0x2545_f491) >> 7;
        file(asked, stream, &served, "\"1\"", 1 + random % 600_000)
    });
    let source = source::open(&Settings { retries: 20, ..server.settings() }).unwrap();
    assert!(fetch(&*source, &bytes).unwrap() == bytes);
    let resumed: Vec<_> = server.asked().iter().filter_map(Asked::range).map(|(first, _)| first).collect();
    assert!(resumed.len() > 3 && resumed.windows(2).skip(1).all(|pair| pair[0] < pair[1]), "{resumed:?}");
    // Without leave to try again, the cut is told.
    let once = server.source();
    assert!(matches!(fetch(&*once, &bytes), Err(Error::Read { .. } | Error::Cut(_))));
}

#[test]
fn an_archive_that_changes_under_way_is_refused() {
    let (bytes, other) = (archive(), vec![7; archive().len()]);
    let served = bytes.clone();
    let count = AtomicUsize::new(0);
    let server = Server::new(move |asked, stream| match count.fetch_add(1, Ordering::SeqCst) {
        0 | 1 => file(asked, stream, &served, "\"1\"", 100_000),
        _ => file(asked, stream, &other, "\"2\"", usize::MAX),
    });
    let source = source::open(&Settings { retries: 3, ..server.settings() }).unwrap();
    let error = fetch(&*source, &bytes).unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error}");
}

#[test]
fn slow_retrieval_is_given_up() {
    for stage in ["headers", "body"] {
        let server = Server::new(move |_, stream| {
            if stage == "body" {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
            } else {
                write!(stream, "HTTP/1.1 200 OK\r\nX-Slow: ")?;
            }
            // A byte now and then, for ever.
            loop {
                stream.write_all(b"x")?;
                thread::sleep(Duration::from_millis(10));
            }
        });
        let impatient = Settings {
            stall_timeout: Span(Duration::from_millis(200)),
            stall_bytes: Size(4096),
            ..server.settings()
        };
        let source = source::open(&impatient).unwrap();
        let Err(Error::Read { source: cause, .. }) = source.small(item("stable.channel"), 1 << 20) else {
            panic!("{stage}: slow bytes were waited for");
        };
        assert_eq!(cause.kind(), ErrorKind::TimedOut, "{stage}: {cause}");
    }
}

#[test]
fn endless_data_are_not_read() {
    let server = Server::new(|asked, stream| {
        if asked.path.ends_with("headers") {
            write!(stream, "HTTP/1.1 200 OK\r\n")?;
            loop {
                write!(stream, "X-More: {}\r\n", "x".repeat(1000))?;
            }
        }
        write!(stream, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        loop {
            write!(stream, "1000\r\n{}\r\n", "x".repeat(0x1000))?;
        }
    });
    let source = server.source();
    assert!(matches!(source.small(item("stable.channel"), 1 << 20), Err(Error::TooLong { .. })));
    assert!(matches!(source.small(item("headers"), 1 << 20), Err(Error::Read { .. })));
    let endless = source.archive(item("shop-1.tar"), SIZE).unwrap();
    let mut read = Vec::new();
    endless.read_range(1000, 5000).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read.len(), 5000, "no more than is wanted");
}

#[test]
fn redirections_are_followed_within_bounds_and_without_credentials() {
    let target = Server::new(|_, stream| status(stream, "200 OK", "", b"text"));
    let elsewhere = format!("http://{}/x", target.address);
    let server = Server::new(move |asked, stream| {
        let location = match asked.path.as_str() {
            "/shop/away" => elsewhere.clone(),
            "/shop/near" => "there".to_owned(),
            "/shop/there" => return status(stream, "200 OK", "", b"near"),
            "/shop/file" => "file:///etc/passwd".to_owned(),
            _ => "/shop/loop".to_owned(),
        };
        status(stream, "302 Found", &format!("Location: {location}\r\n"), b"")
    });
    let directory = tempfile::tempdir().unwrap();
    let credentials = directory.path().join("credentials");
    std::fs::write(&credentials, "me:secret\n").unwrap();
    let mut settings =
        Settings { credentials: Some(credentials.to_str().unwrap().to_owned()), ..server.settings() };
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&credentials, std::fs::Permissions::from_mode(0o644)).unwrap();
    assert!(matches!(source::open(&settings), Err(Error::Owned(_))), "others can read them");
    std::fs::set_permissions(&credentials, std::fs::Permissions::from_mode(0o600)).unwrap();
    let source = source::open(&settings).unwrap();
    assert_eq!(source.small(item("near"), 9).unwrap().unwrap(), b"near");
    assert_eq!(source.small(item("away"), 9).unwrap().unwrap(), b"text");
    assert!(matches!(source.small(item("loop"), 9), Err(Error::Address { .. })));
    assert!(matches!(source.small(item("file"), 9), Err(Error::Scheme(_))));
    let secret = Some("Basic bWU6c2VjcmV0");
    assert!(server.asked().iter().all(|asked| asked.header("authorization") == secret));
    assert!(target.asked().iter().all(|asked| asked.header("authorization").is_none()));
    assert_eq!(server.asked().iter().filter(|asked| asked.path == "/shop/loop").count(), 6);
    settings.url = Some(server.url().replace("http://", "http://me:secret@"));
    let error = source::open(&settings).err().unwrap().to_string();
    assert!(!error.contains("secret"), "{error}");
}

#[test]
fn a_server_in_trouble_is_asked_again_and_a_refusing_one_is_not() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let server = Server::new(move |asked, stream| {
        if asked.path.ends_with("forbidden") {
            return status(stream, "403 Forbidden", "", b"");
        }
        match counted.fetch_add(1, Ordering::SeqCst) {
            0 => status(stream, "503 Service Unavailable", "", b""),
            // Too few bytes, then none at all.
            1 => write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nte"),
            2 => Ok(()),
            _ => status(stream, "200 OK", "", b"text"),
        }
    });
    let source = source::open(&Settings { retries: 3, ..server.settings() }).unwrap();
    assert_eq!(source.small(item("stable.channel"), 9).unwrap().unwrap(), b"text");
    assert_eq!(count.load(Ordering::SeqCst), 4);
    assert!(matches!(source.small(item("forbidden"), 9), Err(Error::Status { status: 403, .. })));
    let asked = server.asked();
    assert_eq!(asked.iter().filter(|asked| asked.path.ends_with("forbidden")).count(), 1);
}

#[test]
fn the_proxy_is_the_configured_one() {
    let proxy = Server::new(|_, stream| status(stream, "200 OK", "", b"by proxy"));
    let settings = Settings {
        url: Some("http://releases.invalid/shop".into()),
        proxy: Some(format!("http://{}", proxy.address)),
        retries: 0,
        ..Settings::default()
    };
    let outcome = source::open(&settings).unwrap().small(item("stable.channel"), 9);
    let asked = proxy.asked();
    assert!(!asked.is_empty(), "{outcome:?}");
    let wrong = Settings { proxy: Some("::".into()), ..settings };
    assert!(matches!(source::open(&wrong), Err(Error::Proxy)));
}

#[test]
fn the_program_updates_from_a_web_server_and_fetches_what_it_lacks() {
    let desk = crate::refusals::Desk::new();
    let directory = desk.path("source");
    for (has_ranges, version) in [(true, "1.1"), (false, "1.2")] {
        if !has_ranges {
            desk.release(version);
        }
        let served = directory.clone();
        let server = Server::new(move |asked, stream| {
            let name = asked.path.rsplit('/').next().unwrap_or_default();
            match std::fs::read(served.join(name)) {
                Ok(bytes) if has_ranges => {
                    file(asked, stream, &bytes, &format!("\"{}\"", bytes.len()), usize::MAX)
                }
                Ok(bytes) => status(stream, "200 OK", "", &bytes),
                Err(_) => status(stream, "404 Not Found", "", b""),
            }
        });
        let configuration = desk.path("node.toml");
        let text = std::fs::read_to_string(&configuration).unwrap();
        let url = text.lines().find(|line| line.starts_with("url")).unwrap();
        std::fs::write(&configuration, text.replace(url, &format!("url = \"{}\"", server.url()))).unwrap();
        let (code, said) = desk.update();
        assert_eq!((code, desk.active().as_str()), (0, version), "{said}");
        let asked = server.asked();
        let names: Vec<_> = asked.iter().map(|asked| asked.path.as_str()).collect();
        assert_eq!(names[..2], ["/shop/stable.channel", "/shop/stable.channel.sig"]);
        let before = asked.len();
        let (code, said) = desk.update();
        assert_eq!(
            (code, server.asked().len() - before),
            (0, 2),
            "an idle run asks for the channel only: {said}"
        );
    }
    let (code, said) = desk.update();
    assert_eq!(code, 1, "the server is gone: {said}");
    assert_eq!(desk.active(), "1.2");
}
