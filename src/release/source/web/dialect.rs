//! Where on a server the files of a source are, and what the server is told of who asks.

use std::fmt::Debug;

use ureq::http::{HeaderMap, Method, header};

use super::super::{Error, Item, Of, Settings, Upload};
use super::address::Address;
use super::request::{Content, Header};
use super::{Web, credentials};

/// A request that is about to be sent.
pub struct Sent<'a> {
    pub method: &'a Method,
    /// To where; not always the server of the source, after redirections.
    pub address: &'a Address,
    pub headers: &'a [Header],
    pub content: Option<&'a Content<'a>>,
}

/// A way to keep releases on a server.
pub trait Dialect: Send + Sync + Debug {
    /// Where the source is, for messages; without credentials.
    fn place(&self) -> String;

    /// Where a file is. `None` when the server, asked for that, knows no such file.
    fn locate(&self, web: &Web, item: Item<'_>) -> Result<Option<Address>, Error>;

    /// What this request says of who sends it. Never a secret to a server that is not the source's.
    fn headers(&self, sent: &Sent<'_>) -> Result<Vec<Header>, Error>;

    /// What kinds of answers are understood, where that must be said.
    fn accepts(&self, _: &Address) -> Option<&'static str> {
        None
    }

    /// The server wants to know who asks. Whether it is worth to send the same again.
    fn introduce(&self, _: &Web, _: &Sent<'_>, _: &HeaderMap) -> Result<bool, Error> {
        Ok(false)
    }

    /// Brings files there: see [`super::super::Sink::put`].
    fn put(&self, web: &Web, of: Of<'_>, files: &[Upload<'_>]) -> Result<(), Error> {
        web.put_each(of, files)
    }

    /// See [`super::super::Sink::keeps_releases_apart`].
    fn keeps_releases_apart(&self) -> bool {
        false
    }

    /// See [`super::super::Source::is_replaced_in_place`].
    fn is_replaced_in_place(&self) -> bool {
        true
    }
}

/// Files in a directory of a web server, or wherever a template says that they are.
#[derive(Debug)]
pub struct Plain {
    base: Address,
    authorization: Option<String>,
}

impl Plain {
    pub fn new(url: &str, settings: &Settings) -> Result<Self, Error> {
        let base = Address::of_source(url)?;
        let authorization = settings.credentials.as_deref().map(credentials::authorization).transpose()?;
        Ok(Self { base, authorization })
    }
}

impl Dialect for Plain {
    fn place(&self) -> String {
        self.base.place().trim_end_matches('/').to_owned()
    }

    fn locate(&self, _: &Web, item: Item<'_>) -> Result<Option<Address>, Error> {
        Ok(Some(self.base.file(item)))
    }

    fn keeps_releases_apart(&self) -> bool {
        self.base.has_place_of_release()
    }

    fn headers(&self, sent: &Sent<'_>) -> Result<Vec<Header>, Error> {
        let authorization = self.authorization.as_ref().filter(|_| self.base.is_same_server(sent.address));
        Ok(authorization.map(|value| (header::AUTHORIZATION, value.clone())).into_iter().collect())
    }
}
