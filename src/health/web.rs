//! Asks a web server: over TCP or a Unix socket, with headers and certificates of the admin's choice.

use std::io::{self, Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ureq::http::Uri;
use ureq::tls::{ClientCert, PemItem, RootCerts, TlsConfig, parse_pem};
// Not covered by the promises of semver: Cargo.lock names the version that this is written for.
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};

use super::Answer;
use super::probes::{READ_MAX, Told, contains, not_yet, shown};
use super::settings::Http;
use crate::sys::tls;
use crate::types::{Span, base64, bytes_of_url, escaped, escaped_path};

/// No file of certificates is longer.
const PEM_MAX: usize = 1 << 20;

/// Whether a page answers 200 within the limit.
pub fn answers(url: &str, limit: Duration) -> bool {
    let page: Result<Http, _> = serde_json::from_value(serde_json::json!({"url": url}));
    page.is_ok_and(|page| http(&page, limit).0.is_healthy())
}

/// Asks. Redirections are not followed and proxies not used: the answer of this very server counts.
pub fn http(check: &Http, limit: Duration) -> Told {
    let (url, socket) = match check.target() {
        Ok(target) => target,
        Err(why) => return (Answer::CannotRun, why),
    };
    let certificates = match certificates(check) {
        Ok(certificates) => certificates,
        Err(why) => return (Answer::CannotRun, why),
    };
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(limit))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_idle_connections(0)
        .proxy(None)
        .user_agent("cutover")
        .tls_config(certificates)
        .build();
    let agent = match socket {
        Some(socket) => ureq::Agent::with_parts(config, UnixConnector(socket), Nowhere),
        None => ureq::Agent::with_parts(config, tls::connector(), Everywhere),
    };
    let mut request = agent.get(&url);
    let has_one = check.all_headers().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    if let Some(who) = authorization(&url).filter(|_| !has_one) {
        request = request.header("authorization", who);
    }
    for (name, value) in check.all_headers() {
        request = request.header(name, value);
    }
    match request.call() {
        Ok(response) => judge(check, response, limit),
        Err(ureq::Error::Timeout(_)) => (Answer::NotYet, format!("no answer within {}", Span(limit))),
        Err(error) => (unanswered(&error), error.to_string()),
    }
}

/// The header for the user and the password that stand in a URL, where a `%` writes what could not stand there: `ureq` would
/// send them as they are written.
fn authorization(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let (who, _) = uri.authority()?.as_str().rsplit_once('@')?;
    let (user, password) = who.split_once(':').unwrap_or((who, ""));
    let pair = [&bytes_of_url(user)[..], b":", &bytes_of_url(password)].concat();
    Some(format!("Basic {}", base64(&pair)))
}

fn judge(check: &Http, mut response: ureq::http::Response<ureq::Body>, limit: Duration) -> Told {
    let status = response.status().as_u16();
    let is_expected = status == check.status;
    let Some(text) = check.text.as_deref().filter(|_| is_expected) else {
        if is_expected {
            // The rest is nobody's question: it may be a stream that never ends.
            return (Answer::Healthy, format!("status {status}"));
        }
        let (page, _) = read(response.body_mut().as_reader(), |page| page.len() >= super::probes::SHOWN_MAX);
        return (Answer::Sick, format!("status {status} instead of {}: {}", check.status, shown(&page)));
    };
    let (page, broke_off) = read(response.body_mut().as_reader(), |page| contains(page, text.as_bytes()));
    match broke_off {
        _ if contains(&page, text.as_bytes()) => (Answer::Healthy, format!("status {status}")),
        Some(error) if error.kind() == io::ErrorKind::TimedOut => {
            (Answer::Sick, format!("status {status}, and no end of the page within {}", Span(limit)))
        }
        Some(error) => (Answer::Sick, format!("status {status}, then {error}")),
        None => {
            let text = escaped(text.as_bytes());
            (Answer::Sick, format!("status {status} without `{text}`: {}", shown(&page)))
        }
    }
}

/// Reads a page until it is enough, or its end. A page that breaks off still shows what it began with.
fn read(mut reader: impl Read, is_enough: impl Fn(&[u8]) -> bool) -> (Vec<u8>, Option<io::Error>) {
    let (mut page, mut buffer) = (Vec::new(), [0; 8192]);
    while (page.len() as u64) < READ_MAX && !is_enough(&page) {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => page.extend_from_slice(&buffer[..count]),
            Err(error) => return (page, Some(error)),
        }
    }
    page.truncate(usize::try_from(READ_MAX).unwrap_or(usize::MAX));
    (page, None)
}

fn unanswered(error: &ureq::Error) -> Answer {
    match error {
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => Answer::NotYet,
        ureq::Error::Io(error) => not_yet(error),
        ureq::Error::BadUri(_) | ureq::Error::Http(_) => Answer::CannotRun,
        _ => Answer::Sick,
    }
}

/// Which servers are trusted, and who we are.
fn certificates(check: &Http) -> Result<TlsConfig, String> {
    let roots = match &check.ca {
        None => RootCerts::PlatformVerifier,
        Some(path) => {
            let certificates: Vec<_> = pem(path)?.into_iter().filter_map(certificate).collect();
            if certificates.is_empty() {
                return Err(format!("`{}` holds no certificate", escaped_path(path)));
            }
            RootCerts::from(certificates)
        }
    };
    let client = match (&check.cert, &check.key) {
        (None, _) => None,
        (Some(cert), key) => {
            let chain: Vec<_> = pem(cert)?.into_iter().filter_map(certificate).collect();
            let place = key.as_ref().unwrap_or(cert);
            let key = pem(place)?.into_iter().find_map(|item| match item {
                PemItem::PrivateKey(key) => Some(key),
                _ => None,
            });
            let key = key.ok_or_else(|| format!("`{}` holds no private key", escaped_path(place)))?;
            Some(ClientCert::new_with_certs(&chain, key))
        }
    };
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .client_cert(client)
        .disable_verification(check.insecure)
        .build())
}

fn certificate(item: PemItem<'static>) -> Option<ureq::tls::Certificate<'static>> {
    match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    }
}

fn pem(path: &Path) -> Result<Vec<PemItem<'static>>, String> {
    let cannot = |why: &dyn std::fmt::Display| format!("`{}`: {why}", escaped_path(path));
    let bytes = crate::sys::disk::read_small(path, PEM_MAX).map_err(|error| cannot(&error))?;
    let bytes = bytes.ok_or_else(|| cannot(&"there is no such file"))?;
    parse_pem(&bytes).collect::<Result<_, _>>().map_err(|error| cannot(&error))
}

/// All addresses of a host. `localhost` is both loopback addresses, whatever the hosts file says: applications listen on
/// one or the other.
#[derive(Debug)]
struct Everywhere;

impl Resolver for Everywhere {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout);
        if uri.host() != Some("localhost") {
            return found;
        }
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut addresses = found.unwrap_or_else(|_| self.empty());
        for address in loopbacks(port) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(addresses)
    }
}

/// The addresses of this machine itself.
pub(super) fn loopbacks(port: u16) -> [SocketAddr; 2] {
    [IpAddr::V6(Ipv6Addr::LOCALHOST), IpAddr::V4(Ipv4Addr::LOCALHOST)]
        .map(|address| SocketAddr::new(address, port))
}

/// A socket has a path, and no address.
#[derive(Debug)]
struct Nowhere;

impl Resolver for Nowhere {
    fn resolve(
        &self,
        _: &Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
        Ok(addresses)
    }
}

/// Connects to a Unix socket.
#[derive(Debug)]
struct UnixConnector(PathBuf);

impl<In: Transport> Connector<In> for UnixConnector {
    type Out = Either<In, UnixTransport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<In>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        let buffers =
            LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(UnixTransport { stream: UnixStream::connect(&self.0)?, buffers })))
    }
}

struct UnixTransport {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl std::fmt::Debug for UnixTransport {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.stream.fmt(formatter)
    }
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.stream.set_write_timeout(timeout.not_zero().map(|left| *left))?;
        let written = self.stream.write_all(&self.buffers.output()[..amount]);
        written.map_err(|error| or_timeout(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        self.stream.set_read_timeout(timeout.not_zero().map(|left| *left))?;
        let read = self.stream.read(self.buffers.input_append_buf());
        let count = read.map_err(|error| or_timeout(error, timeout))?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        // Connections are not used again.
        false
    }
}

fn or_timeout(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn check(text: &str) -> Http {
        toml::from_str(text).unwrap()
    }

    /// Answers one request, and hands back what was asked.
    fn answer_once(mut stream: impl Read + io::Write, answer: &[u8]) -> String {
        let mut request = vec![0; 4096];
        let count = stream.read(&mut request).unwrap();
        stream.write_all(answer).unwrap();
        String::from_utf8_lossy(&request[..count]).to_lowercase()
    }

    fn served_once(answer: &'static str) -> (String, std::thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || answer_once(listener.accept().unwrap().0, answer.as_bytes()));
        (format!("http://{address}/up"), server)
    }

    fn ask(answer: &'static str, text: Option<&str>) -> Told {
        let text = text.map(|text| format!("text = \"{text}\"")).unwrap_or_default();
        http(&check(&format!("url = \"{}\"\n{text}", served_once(answer).0)), LIMIT)
    }

    #[test]
    fn a_page_must_have_the_status_and_the_text() {
        assert_eq!(ask("HTTP/1.0 200 OK\r\n\r\nup 2.4.1", Some("2.4.1")).0, Answer::Healthy);
        let (answer, detail) = ask("HTTP/1.0 200 OK\r\n\r\nup 2.4.0", Some("2.4.1"));
        assert_eq!(answer, Answer::Sick, "{detail}");
        let (answer, detail) = ask("HTTP/1.1 500 Oops\r\nContent-Length: 5\r\n\r\nno db", None);
        assert_eq!((answer, detail.as_str()), (Answer::Sick, "status 500 instead of 200: no db"));
        assert_eq!(ask("HTTP/1.0 302 Go\r\nLocation: http://127.0.0.1:1/\r\n\r\n", None).0, Answer::Sick);
        assert_eq!(ask("nonsense", None).0, Answer::Sick);
    }

    #[test]
    fn a_stream_that_never_ends_is_well_when_it_has_the_status_or_the_text() {
        for text in ["", "text = \"begin\""] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let server = std::thread::spawn(move || {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; 4096]).unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\nbegin").unwrap();
                // Until the check has hung up.
                let _ = stream.read(&mut [0; 1]);
            });
            let told = http(&check(&format!("url = \"http://{address}/events\"\n{text}")), LIMIT);
            assert_eq!(told, (Answer::Healthy, "status 200".into()), "{text}");
            server.join().unwrap();
        }
    }

    #[test]
    fn headers_and_the_host_are_sent() {
        let (url, server) = served_once("HTTP/1.0 200 OK\r\n\r\n");
        let text = format!("url = \"{url}\"\nhost = \"shop.example.com\"\nheaders = {{ X-Probe = \"yes\" }}");
        assert_eq!(http(&check(&text), LIMIT).0, Answer::Healthy);
        let request = server.join().unwrap();
        assert_eq!(request.matches("host:").count(), 1, "{request}");
        assert!(request.contains("host: shop.example.com") && request.contains("x-probe: yes"), "{request}");
    }

    #[test]
    fn user_and_password_of_the_url_are_sent_as_they_are() {
        for (who, more, header) in [
            ("me:secret", "", "basic bwu6c2vjcmv0"),
            // `me@home` and `p@ss:100%`
            ("me%40home:p%40ss%3A100%", "", "basic bwvaag9tztpwqhnzojewmcu="),
            ("me", "", "basic bwu6"),
            ("me:secret", "headers = { Authorization = \"Bearer x\" }", "bearer x"),
        ] {
            let (url, server) = served_once("HTTP/1.0 200 OK\r\n\r\n");
            let url = url.replace("http://", &format!("http://{who}@"));
            let told = http(&check(&format!("url = \"{url}\"\n{more}")), LIMIT);
            assert_eq!(told.0, Answer::Healthy, "{who}: {told:?}");
            let request = server.join().unwrap();
            assert!(request.contains(&format!("authorization: {header}\r\n")), "{who}: {request}");
            assert_eq!(request.matches("authorization:").count(), 1, "{who}: {request}");
        }
    }

    #[test]
    fn a_unix_socket_is_asked_in_every_spelling() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.sock");
        let shown = path.display();
        let encoded = path.to_str().unwrap().replace('/', "%2F");
        for text in [
            format!("url = \"http://shop/up?x=1\"\nunix = \"{shown}\""),
            format!("url = \"http://shop/up?x=1\"\nsocket = \"{shown}\""),
            format!("url = \"http+unix://{encoded}/up?x=1\""),
            format!("url = \"http+unix://{}/up?x=1\"", encoded.replace('k', "%6b")),
            format!("url = \"http+unix://{shown}/up?x=1\""),
            format!("url = \"http://unix:{shown}:/up?x=1\""),
            format!("url = \"unix:{shown}:/up?x=1\""),
        ] {
            let listener = UnixListener::bind(&path).unwrap();
            let server = std::thread::spawn(move || {
                answer_once(listener.accept().unwrap().0, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            });
            assert_eq!(http(&check(&text), LIMIT), (Answer::Healthy, "status 200".into()), "{text}");
            let request = server.join().unwrap();
            assert!(request.starts_with("get /up?x=1 http/1.1"), "{text}: {request}");
            crate::sys::disk::Disk::default().remove_file(&path).unwrap();
        }
        let gone = check(&format!("url = \"http://shop/\"\nunix = \"{shown}\""));
        assert_eq!(http(&gone, LIMIT).0, Answer::NotYet);
    }

    #[test]
    fn localhost_is_both_loopback_addresses() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                eprintln!("SKIPPED localhost_is_both_loopback_addresses: no {address} here");
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            std::thread::spawn(move || answer_once(listener.accept().unwrap().0, b"HTTP/1.0 200 OK\r\n\r\n"));
            let told = http(&check(&format!("url = \"http://localhost:{port}/\"")), LIMIT);
            assert_eq!(told.0, Answer::Healthy, "{address}: {}", told.1);
        }
    }

    #[test]
    fn certificates_that_cannot_be_read_are_told_as_such() {
        let check = check("url = \"https://127.0.0.1:1/\"\nca = \"/no/such/file\"");
        let (answer, detail) = http(&check, LIMIT);
        assert!(answer == Answer::CannotRun && detail.contains("/no/such/file"), "{detail}");
    }
}
