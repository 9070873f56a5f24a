//! A source on a web server.
//!
//! Trust comes from signatures and digests; TLS keeps out those who only listen or cut. The server may be hostile all
//! the same: it is followed through few redirections, never to a weaker or another scheme, is waited for within bounds,
//! and gives at most as many bytes as were asked for. The proxy is the configured one, never one of the environment.

mod address;
mod credentials;
mod pace;
mod part;
mod retry;

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http::{HeaderMap, Response, StatusCode, header};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Proxy};

use self::address::Address;
use self::pace::{RateLimit, StallWatch};
use self::part::WebArchive;
use self::retry::Attempts;
use super::directory::read_bounded;
use super::{Error, Item, Ranges, Settings, Source};

/// Redirections that are followed for one request.
const REDIRECTIONS_MAX: u32 = 5;

/// A transfer of so many bytes a second in the long run is fast enough; with [`GRACE`] it gives the time allowed.
const RATE_MIN: u64 = 64 << 10;

/// Time allowed for a transfer, whatever its size.
const GRACE: Duration = Duration::from_secs(600);

/// Time allowed for any transfer at most.
const TRANSFER_MAX: Duration = Duration::from_secs(30 * 86_400);

/// The releases on a web server. Cheap to clone.
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
        let base = Address::of_source(url)?;
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
            authorization: settings.credentials.as_deref().map(credentials::authorization).transpose()?,
            rate: settings.rate_limit.map(|limit| RateLimit::new(limit.0)),
            stall: StallWatch::new(stall_timeout, settings.stall_bytes.0),
            retries: settings.retries,
        })
    }

    fn file(&self, item: Item<'_>) -> Result<Address, Error> {
        item.check()?;
        Ok(self.base.file(item))
    }

    /// By when a transfer of so many bytes must have ended.
    fn deadline(&self, bytes: u64) -> Instant {
        // The limit may be below what is asked of a server; twice the time, for other transfers share it.
        let rate =
            self.rate.as_ref().map_or(RATE_MIN, |rate| (rate.bytes_per_second() / 2).clamp(1, RATE_MIN));
        Instant::now() + GRACE + Duration::from_secs(bytes / rate).min(TRANSFER_MAX)
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
                let is_led_elsewhere = address != *file;
                let has_expired = matches!(response.status().as_u16(), 400 | 401 | 403);
                if is_led_elsewhere && has_expired {
                    // The address that was signed for this request holds no more; the next one gets another.
                    return Err(Error::Answer {
                        what: file.place(),
                        problem: "it leads where it is refused",
                    });
                }
                return Ok(response);
            }
            let location = text_of(response.headers(), header::LOCATION);
            address = address.redirected(&location.unwrap_or_default())?;
        }
        Err(Error::Address { address: file.place(), problem: "it is redirected too often" })
    }

    fn try_small(&self, file: &Address, limit: usize, deadline: Instant) -> Result<Option<Vec<u8>>, Error> {
        // What a cache has of these files may be older than what the server has.
        let response = self.get(file, &[(header::CACHE_CONTROL, "no-cache".to_owned())], deadline)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(None),
            _ => return Err(status(file, &response)),
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

    fn small(&self, item: Item<'_>, limit: usize) -> Result<Option<Vec<u8>>, Error> {
        let file = self.file(item)?;
        let deadline = self.deadline(limit as u64);
        let mut attempts = Attempts::new(self.retries, deadline);
        loop {
            match self.try_small(&file, limit, deadline) {
                Err(error) if attempts.may_go_on(&error) => {}
                result => return result,
            }
        }
    }

    fn archive(&self, item: Item<'_>, size: u64) -> Result<Box<dyn Ranges>, Error> {
        Ok(Box::new(WebArchive::open(self.clone(), self.file(item)?, size)?))
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

/// What a server said in place of the file.
fn status(file: &Address, response: &Response<Body>) -> Error {
    let retry_after = retry::retry_after(response.headers());
    Error::Status { what: file.place(), status: response.status().as_u16(), retry_after }
}

fn text_of(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    text_of(headers, header::CONTENT_LENGTH)?.trim().parse().ok()
}
