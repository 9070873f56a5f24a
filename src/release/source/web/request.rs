//! One request: sent, followed through redirections, and answered to whoever asks who we are.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::http::{HeaderName, Method, Request, Response, header};
use ureq::{Body, SendBody};

use super::super::Error;
use super::address::Address;
use super::dialect::Sent;
use super::{Web, read_error};
use crate::sys::tls;
use crate::types::Digest;

/// Redirections that are followed for one request.
const REDIRECTIONS_MAX: u32 = 5;

/// A header of a request.
pub type Header = (HeaderName, String);

/// What is sent to a server beside an address: it can be sent again.
pub struct Content<'a> {
    /// Opens it at its beginning.
    pub open: &'a dyn Fn() -> Result<Box<dyn Read + Send>, Error>,
    /// Its bytes.
    pub size: u64,
    /// Their SHA-256.
    pub sha256: Digest,
}

impl Web {
    /// Asks for a file. Gives whatever answer comes at last.
    pub(super) fn get(
        &self,
        file: &Address,
        headers: &[Header],
        deadline: Instant,
    ) -> Result<Response<Body>, Error> {
        self.send(&Method::GET, file, headers, None, deadline)
    }

    /// Sends a request, through redirections; a second time, if the server then knows us.
    pub(super) fn send(
        &self,
        method: &Method,
        file: &Address,
        headers: &[Header],
        content: Option<&Content<'_>>,
        deadline: Instant,
    ) -> Result<Response<Body>, Error> {
        let (mut address, mut is_known) = (file.clone(), false);
        let mut redirections = 0;
        loop {
            let sent = Sent { method, address: &address, headers, content };
            let mut own = self.dialect.headers(&sent)?;
            own.extend_from_slice(headers);
            let response = self.exchange(&sent, &own, deadline).map_err(|error| read_error(file, error))?;
            let status = response.status().as_u16();
            let location = response.headers().get(header::LOCATION).map(|value| value.as_bytes().to_vec());
            match status {
                301 | 302 | 303 | 307 | 308 => {
                    let Some(location) = location.filter(|location| !location.is_empty()) else {
                        let problem = "it redirects, and does not say where to";
                        return Err(Error::Answer { what: file.place(), problem });
                    };
                    redirections += 1;
                    if redirections > REDIRECTIONS_MAX {
                        let problem = "it is redirected too often";
                        return Err(Error::Address { address: file.place(), problem });
                    }
                    address = address.redirected(&location)?;
                }
                // An object store says 403 to a stranger.
                401 | 403 if !is_known && self.dialect.introduce(self, &sent, response.headers())? => {
                    is_known = true
                }
                // An address that was signed for one request holds no more; the next attempt gets another.
                400 | 401 | 403 if !address.is_same_server(file) => {
                    let text = format!("it leads to another server, which answers with status {status}");
                    return Err(read_error(file, io::Error::other(text)));
                }
                _ => return Ok(response),
            }
        }
    }

    pub(super) fn send_text(
        &self,
        method: &Method,
        address: &Address,
        headers: &[Header],
        text: &str,
        deadline: Instant,
    ) -> Result<Response<Body>, Error> {
        let open = || -> Result<Box<dyn Read + Send>, Error> {
            Ok(Box::new(io::Cursor::new(text.as_bytes().to_vec())))
        };
        let content = Content { open: &open, size: text.len() as u64, sha256: Digest::of(text.as_bytes()) };
        self.send(method, address, headers, Some(&content), deadline)
    }

    /// One request and one answer. What the server is not told here it is not told at all.
    fn exchange(&self, sent: &Sent<'_>, headers: &[Header], deadline: Instant) -> io::Result<Response<Body>> {
        let mut request = Request::builder().method(sent.method.clone()).uri(sent.address.text());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        let body = match sent.content {
            None => SendBody::none(),
            Some(content) => {
                request = request.header(header::CONTENT_LENGTH, content.size);
                SendBody::from_owned_reader((content.open)().map_err(Error::into_io)?)
            }
        };
        let request = request.body(body).map_err(io::Error::other)?;
        let request = self.agent.configure_request(request).timeout_global(Some(left)).build();
        self.agent.run(request).map_err(|error| match error {
            ureq::Error::Timeout(_) => {
                io::Error::new(io::ErrorKind::TimedOut, "the server does not answer in time")
            }
            other => tls::in_words(other.into_io()),
        })
    }
}
