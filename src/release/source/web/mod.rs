//! A source on a web server.
//!
//! Trust comes from signatures and digests; TLS keeps out those who only listen or cut. The server may be hostile all
//! the same: it is followed through few redirections, never to a weaker or another scheme, is waited for within bounds,
//! and gives at most as many bytes as were asked for. The proxy is the configured one, never one of the environment.

mod address;
mod pace;
mod part;

use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use self::address::Address;
use self::pace::{RateLimit, StallWatch};
use self::part::WebArchive;
use super::directory::read_bounded;
use super::{Error, Ranges, Settings, Source};
use crate::release::text::is_file_name;
use crate::sys::owned;
use crate::types::escaped;

/// Redirections that are followed for one request.
const REDIRECTIONS_MAX: u32 = 5;

/// A transfer of so many bytes a second in the long run is fast enough; with [`GRACE`] it gives the time allowed.
const RATE_MIN: u64 = 64 << 10;

/// Time allowed for a transfer, whatever its size.
const GRACE: Duration = Duration::from_secs(600);

/// The longest file of credentials in bytes.
const CREDENTIALS_BYTES_MAX: usize = 4096;

/// A web server's directory of releases. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Web {
    base: Address,
    agent: Agent,
    /// The value of the header `Authorization`, sent to this server only.
    authorization: Option<String>,
    rate: Option<RateLimit>,
    stall: StallWatch,
    retries: u32,
}

impl Web {
    /// A source at `url`. Nothing is sent yet.
    pub fn new(url: &str, settings: &Settings) -> Result<Self, Error> {
        let base = Address::parse(url)?;
        let wrong_proxy = |_| Error::Proxy;
        let proxy = settings.proxy.as_deref().map(Proxy::new).transpose().map_err(wrong_proxy)?;
        let stall_timeout = settings.stall_timeout.0;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .user_agent(concat!("cutover/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
            .timeout_resolve(Some(settings.connect_timeout.0))
            .timeout_connect(Some(settings.connect_timeout.0))
            .timeout_send_request(Some(stall_timeout))
            .timeout_recv_response(Some(stall_timeout))
            .timeout_per_read(Some(stall_timeout))
            .timeout_per_write(Some(stall_timeout))
            .build();
        Ok(Self {
            base,
            agent: config.new_agent(),
            authorization: settings.credentials.as_deref().map(credentials).transpose()?,
            rate: settings.rate_limit.map(|limit| RateLimit::new(limit.0)),
            stall: StallWatch::new(stall_timeout, settings.stall_bytes.0),
            retries: settings.retries,
        })
    }

    fn file(&self, name: &str) -> Result<Address, Error> {
        if is_file_name(name) { Ok(self.base.file(name)) } else { Err(Error::Name(escaped(name.as_bytes()))) }
    }

    /// Asks for a file, through redirections. Gives whatever answer comes at last.
    fn get(
        &self,
        file: &Address,
        headers: &[(header::HeaderName, String)],
        deadline: Instant,
    ) -> Result<Response<Body>, Error> {
        let mut address = file.clone();
        for _ in 0..=REDIRECTIONS_MAX {
            let mut request = self.agent.get(address.text());
            for (name, value) in headers {
                request = request.header(name, value);
            }
            if let Some(authorization) =
                self.authorization.as_ref().filter(|_| self.base.is_same_server(&address))
            {
                request = request.header(header::AUTHORIZATION, authorization);
            }
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            let sent = request.config().timeout_global(Some(left)).build().call();
            let response = sent.map_err(|error| read_error(file, told(error)))?;
            let is_elsewhere = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !is_elsewhere {
                return Ok(response);
            }
            let location = text_of(response.headers(), header::LOCATION);
            address = address.redirected(&location.unwrap_or_default())?;
        }
        Err(Error::Address { address: file.place(), problem: "it is redirected too often" })
    }

    fn try_small(&self, file: &Address, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let deadline = deadline(limit as u64);
        let response = self.get(file, &[], deadline)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            status => return Err(Error::Status { what: file.place(), status: status.as_u16() }),
        }
        let length = content_length(response.headers());
        if length.is_some_and(|length| length > limit as u64) {
            return Err(Error::TooLong { what: file.place(), limit: limit as u64 });
        }
        let reader = self.paced(response);
        let bytes = read_bounded(reader, limit, &file.place())?;
        if length.is_some_and(|length| length != bytes.len() as u64) {
            return Err(Error::cut(file.place()));
        }
        Ok(Some(bytes))
    }

    fn paced(&self, response: Response<Body>) -> Paced {
        let reader = response.into_body().into_with_config().limit(u64::MAX).reader();
        Paced { reader: Box::new(reader), rate: self.rate.clone(), stall: self.stall.clone() }
    }
}

impl Source for Web {
    fn place(&self) -> String {
        self.base.place().trim_end_matches('/').to_owned()
    }

    fn small(&self, name: &str, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let file = self.file(name)?;
        let mut attempt = 0;
        loop {
            match self.try_small(&file, limit) {
                Err(error) if error.is_passing() && attempt < self.retries => {
                    std::thread::sleep(pause(attempt));
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    fn archive(&self, name: &str) -> Result<Box<dyn Ranges>, Error> {
        Ok(Box::new(WebArchive::open(self.clone(), self.file(name)?)?))
    }
}

/// A body that is read neither too fast nor too slowly.
struct Paced {
    reader: Box<dyn Read + Send>,
    rate: Option<RateLimit>,
    stall: StallWatch,
}

impl Read for Paced {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let asked = Instant::now();
        let read = self.reader.read(buffer)?;
        self.stall.came(read as u64, asked.elapsed())?;
        if let Some(rate) = &self.rate {
            std::thread::sleep(rate.wait_after(read as u64));
        }
        Ok(read)
    }
}

/// By when a transfer of so many bytes must have ended.
fn deadline(bytes: u64) -> Instant {
    Instant::now() + GRACE + Duration::from_secs((bytes / RATE_MIN).min(30 * 86_400))
}

/// How long to wait before the next attempt: longer every time, at most 16 s.
fn pause(attempt: u32) -> Duration {
    Duration::from_millis(250) * 2_u32.pow(attempt.min(6))
}

fn told(error: ureq::Error) -> io::Error {
    match error {
        ureq::Error::Timeout(_) => {
            io::Error::new(io::ErrorKind::TimedOut, "the server does not answer in time")
        }
        other => other.into_io(),
    }
}

fn read_error(file: &Address, source: io::Error) -> Error {
    Error::Read { what: file.place(), source }
}

fn text_of(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    text_of(headers, header::CONTENT_LENGTH)?.trim().parse().ok()
}

/// Reads `user:password` from a file that only its owner can read, for the header `Authorization`.
fn credentials(path: &str) -> Result<String, Error> {
    use std::os::unix::fs::MetadataExt as _;
    let path = Path::new(path);
    let missing = || Error::Missing(crate::types::escaped_path(path));
    let file = owned::open(path)?.ok_or_else(missing)?;
    let unreadable = |source| Error::Read { what: crate::types::escaped_path(path), source };
    let mode = file.metadata().map_err(unreadable)?.mode();
    if mode & 0o077 != 0 {
        return Err(
            owned::Error::Not { path: path.to_owned(), wanted: "private: run `chmod 600` on it" }.into()
        );
    }
    let bytes = read_bounded(file, CREDENTIALS_BYTES_MAX, &crate::types::escaped_path(path))?;
    let text = bytes.trim_ascii();
    if !text.contains(&b':') || text.iter().any(u8::is_ascii_control) {
        return Err(owned::Error::Not { path: path.to_owned(), wanted: "of the form `user:password`" }.into());
    }
    Ok(format!("Basic {}", base64(text)))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) & 63;
            text.push(if place <= group.len() { char::from(DIGITS[digit as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
