//! A source that is reached by HTTP: a web server, a registry (OCI), an object store.
//!
//! ```text
//! mod          small files and archives, whoever gives them
//! dialect      where on the server a file is, and what the server is told of who asks: plain, registry, bucket
//! request      one request, through redirections
//! retry, pace  when it is asked again; how fast, and how slow
//! part         a part of an archive, taken up again where it was cut
//! put          files brought there, by whoever publishes
//! ```
//! Trust comes from signatures and digests; TLS keeps out those who only listen or cut. The server may be hostile all
//! the same: it is followed through few redirections, never to a weaker or another scheme, is waited for within bounds,
//! and gives at most as many bytes as were asked for. The proxy is the configured one, never one of the environment.

mod address;
mod azure;
mod bucket;
mod credentials;
mod dialect;
mod pace;
mod part;
mod put;
mod registry;
mod request;
mod retry;

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::DefaultResolver;
use ureq::{Agent, Body, Proxy, ProxyProtocol};

use self::address::Address;
use self::azure::Container;
use self::bucket::Bucket;
use self::dialect::{Dialect, Plain};
use self::pace::{RateLimit, StallWatch};
use self::part::WebArchive;
use self::registry::Registry;
use self::retry::Attempts;
use super::directory::read_bounded;
use super::{Error, Item, Of, Ranges, Settings, Sink, Source, Upload};
use crate::sys::tls;

/// A transfer of so many bytes a second in the long run is fast enough; with [`GRACE`] it gives the time allowed.
const RATE_MIN: u64 = 64 << 10;

/// Time allowed for a transfer, whatever its size.
const GRACE: Duration = Duration::from_secs(600);

/// Time allowed for any transfer at most.
const TRANSFER_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The releases on a server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Web {
    dialect: Arc<dyn Dialect>,
    agent: Agent,
    rate: Option<RateLimit>,
    stall: StallWatch,
    retries: u32,
}

/// How long a transfer of so many bytes may take, with this limit of bytes a second.
pub fn time_allowed(bytes: u64, limit: Option<u64>) -> Duration {
    // The limit may be below what is asked of a server; twice the time, for other transfers share it.
    let rate = limit.map_or(RATE_MIN, |limit| (limit / 2).clamp(1, RATE_MIN));
    GRACE + Duration::from_secs(bytes / rate).min(TRANSFER_MAX)
}

/// The addresses that lead here.
pub const SCHEMES: [&str; 7] = ["https", "http", "oci", "oci+http", "s3", "gs", "az"];

impl Web {
    /// A source at `url`. Nothing is sent yet; the credentials are read.
    pub fn new(url: &str, settings: &Settings) -> Result<Self, Error> {
        let dialect: Arc<dyn Dialect> = match url.split_once("://") {
            Some((scheme, _)) => match scheme.to_ascii_lowercase().as_str() {
                "oci" | "oci+http" => Arc::new(Registry::new(url, settings)?),
                "az" => Arc::new(Container::new(url, settings)?),
                "s3" | "gs" => Arc::new(Bucket::new(url, settings)?),
                _ => Arc::new(Plain::new(url, settings)?),
            },
            None => Arc::new(Plain::new(url, settings)?),
        };
        let wrong_proxy = |_| Error::Proxy;
        let proxy = settings.proxy.as_deref().map(Proxy::new).transpose().map_err(wrong_proxy)?;
        if proxy
            .as_ref()
            .is_some_and(|proxy| !matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https))
        {
            return Err(Error::Proxy);
        }
        let stall_timeout = settings.stall_timeout.0;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(proxy)
            .user_agent(concat!("cutover/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .tls_config(TlsConfig::builder().root_certs(certificates()).build())
            .timeout_resolve(Some(settings.connect_timeout.0))
            .timeout_connect(Some(settings.connect_timeout.0))
            .timeout_send_request(Some(stall_timeout))
            .timeout_recv_response(Some(stall_timeout))
            .timeout_per_read(Some(stall_timeout))
            .timeout_per_write(Some(stall_timeout))
            .build();
        Ok(Self {
            dialect,
            agent: Agent::with_parts(config, tls::connector(), DefaultResolver::default()),
            rate: settings.rate_limit.map(|limit| RateLimit::new(limit.0)),
            stall: StallWatch::new(stall_timeout, settings.stall_bytes.0),
            retries: settings.retries,
        })
    }

    /// Where a file is; `None` where the server has to be asked for that, and has none.
    fn locate(&self, item: Item<'_>) -> Result<Option<Address>, Error> {
        item.check()?;
        self.dialect.locate(self, item)
    }

    /// By when a transfer of so many bytes must have ended.
    fn deadline(&self, bytes: u64) -> Instant {
        Instant::now() + time_allowed(bytes, self.rate.as_ref().map(RateLimit::bytes_per_second))
    }

    /// A whole small file, however often it must be asked for.
    fn read_small(&self, file: &Address, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        // What a cache has of these files may be older than what the server has.
        let fresh = (header::CACHE_CONTROL, "no-cache".to_owned());
        let accept = self.dialect.accepts(file).map(|kinds| (header::ACCEPT, kinds.to_owned()));
        let headers: Vec<_> = std::iter::once(fresh).chain(accept).collect();
        let deadline = self.deadline(limit as u64);
        let mut attempts = Attempts::new(self.retries, deadline);
        loop {
            let answer =
                self.get(file, &headers, deadline).and_then(|answer| self.body_of(answer, file, limit));
            match answer {
                Err(error) if attempts.may_go_on(&error) => {}
                result => return result,
            }
        }
    }

    fn body_of(
        &self,
        response: Response<Body>,
        file: &Address,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, Error> {
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            _ => return Err(status(file, &response)),
        }
        let length = content_length(response.headers());
        let is_encoded = is_encoded(response.headers());
        if length.is_some_and(|length| length > limit as u64) {
            return Err(Error::TooLong { what: file.place(), limit: limit as u64 });
        }
        let reader = self.paced(response);
        let bytes = read_bounded(reader, limit, &file.place())?;
        if length.is_some_and(|length| length != bytes.len() as u64) {
            return Err(Error::cut(file.place()));
        }
        // Some stores say so of what is plain.
        if is_encoded && std::str::from_utf8(&bytes).is_err() {
            return Err(Error::Answer { what: file.place(), problem: ENCODED });
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
        self.dialect.place()
    }

    fn small(&self, item: Item<'_>, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        match self.locate(item)? {
            Some(file) => self.read_small(&file, limit),
            None => Ok(None),
        }
    }

    fn archive(&self, item: Item<'_>, size: u64) -> Result<Box<dyn Ranges>, Error> {
        let missing = || Error::Missing(format!("{}/{}", self.place(), item.name));
        let file = self.locate(item)?.ok_or_else(missing)?;
        Ok(Box::new(WebArchive::open(self.clone(), file, size)?))
    }

    fn is_replaced_in_place(&self) -> bool {
        self.dialect.is_replaced_in_place()
    }
}

impl Sink for Web {
    fn put(&self, of: Of<'_>, files: &[Upload<'_>]) -> Result<(), Error> {
        files.iter().try_for_each(|file| Item { of, name: file.name }.check())?;
        self.dialect.put(self, of, files)
    }

    fn keeps_releases_apart(&self) -> bool {
        self.dialect.keeps_releases_apart()
    }

    fn shows_at_once(&self) -> bool {
        // What is never replaced in place is replaced as a whole.
        !self.dialect.is_replaced_in_place()
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
        // Little at a time where the rate is low: a server gives up who does not read for a minute.
        let most = self.rate.as_ref().map_or(usize::MAX, RateLimit::bytes_at_once).min(buffer.len());
        let read = self.reader.read(&mut buffer[..most])?;
        self.stall.came(read as u64, asked.elapsed())?;
        if let Some(rate) = &self.rate {
            std::thread::sleep(rate.wait_after(read as u64));
        }
        Ok(read)
    }
}

/// Whom TLS trusts: the machine's certificates, or those in the file that `SSL_CERT_FILE` names, read now: later it may
/// be out of reach.
fn certificates() -> RootCerts {
    let named =
        std::env::var_os("SSL_CERT_FILE").and_then(|path| std::fs::read(path).ok()).unwrap_or_default();
    let certificates = parse_pem(&named).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    match certificates.collect::<Vec<_>>() {
        none if none.is_empty() => RootCerts::PlatformVerifier,
        some => some.into(),
    }
}

fn read_error(file: &Address, source: io::Error) -> Error {
    Error::Read { what: file.place(), source }
}

/// What a server said in place of the file.
fn status(file: &Address, response: &Response<Body>) -> Error {
    let retry_after = retry::retry_after(response.headers());
    Error::Status { what: file.place(), status: response.status().as_u16(), retry_after }
}

fn text_of(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// What is wrong with an answer that was compressed on the way.
const ENCODED: &str = "it is compressed (`Content-Encoding`), though nobody asked for that";

fn is_encoded(headers: &HeaderMap) -> bool {
    text_of(headers, header::CONTENT_ENCODING).is_some_and(|how| !how.eq_ignore_ascii_case("identity"))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    text_of(headers, header::CONTENT_LENGTH)?.trim().parse().ok()
}
