//! Files brought to a server by `PUT`, each by itself: web servers that take them, forges, object stores.

use std::time::{Duration, Instant};

use ureq::http::{Method, StatusCode, header};

use super::super::{Before, Error, Item, Of, Upload};
use super::address::Address;
use super::request::{Content, Header};
use super::retry::{self, Attempts};
use super::{Web, text_of};
use crate::types::Digest;

/// A file that is replaced only if it is what it was may not be longer.
const REPLACED_BYTES_MAX: usize = 1 << 20;

/// So long what was brought may be seen as it was before.
const NOTICING_TIME: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(250);

impl Web {
    /// Puts one file after the other, after a look at what each replaces.
    pub(super) fn put_each(&self, of: Of<'_>, files: &[Upload<'_>]) -> Result<(), Error> {
        let mut all = Vec::new();
        for file in files {
            if let Some(address) = self.locate(Item { of, name: file.name })? {
                all.push((self.condition(&address, file.before)?, address, file));
            }
        }
        all.iter().try_for_each(|(condition, address, file)| {
            match self.put_file(&Method::PUT, address, condition, file) {
                // What is there is this very file: it came, and the answer was lost.
                Err(Error::Overtaken(_)) if self.condition(address, Before::Content(file.sha256)).is_ok() => {
                    Ok(())
                }
                // Stores say so while somebody else replaces it, and others where its directory is missing.
                Err(Error::Put { status: 409, .. })
                    if matches!(self.condition(address, file.before), Err(Error::Overtaken(_))) =>
                {
                    Err(Error::Overtaken(address.place()))
                }
                put => put,
            }
        })?;
        all.iter().try_for_each(|(_, address, file)| self.see_kept(address, file))
    }

    /// Sees that a small file is there as it was brought: a server that takes anything may keep nothing. A cache gets a
    /// moment to notice.
    fn see_kept(&self, address: &Address, file: &Upload<'_>) -> Result<(), Error> {
        if file.content.size() > REPLACED_BYTES_MAX as u64 {
            return Ok(());
        }
        let began = Instant::now();
        loop {
            let found = match self.read_small(address, REPLACED_BYTES_MAX) {
                Err(Error::TooLong { .. }) => None,
                read => read?,
            };
            if found.is_some_and(|bytes| Digest::of(&bytes) == file.sha256) {
                return Ok(());
            }
            if began.elapsed() >= NOTICING_TIME {
                return Err(Error::NotKept(address.place()));
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    /// The header by which a server replaces a file only if it is what it was. Not every server heeds it, so it is
    /// looked at, too.
    fn condition(&self, address: &Address, before: Before) -> Result<Vec<Header>, Error> {
        if before == Before::Any {
            return Ok(Vec::new());
        }
        let fresh = [(header::CACHE_CONTROL, "no-cache".to_owned())];
        let response = self.get(address, &fresh, self.deadline(REPLACED_BYTES_MAX as u64))?;
        let tag = text_of(response.headers(), header::ETAG).filter(|tag| !tag.starts_with("W/"));
        let found = self.body_of(response, address, REPLACED_BYTES_MAX)?;
        before.check(found.as_deref().map(Digest::of), || address.place())?;
        Ok(match (before, tag) {
            (Before::Absent, _) => vec![(header::IF_NONE_MATCH, "*".to_owned())],
            (_, Some(tag)) => vec![(header::IF_MATCH, tag)],
            (_, None) => Vec::new(),
        })
    }

    /// Sends a file, however often it must be sent.
    pub(super) fn put_file(
        &self,
        method: &Method,
        address: &Address,
        headers: &[Header],
        file: &Upload<'_>,
    ) -> Result<(), Error> {
        let size = file.content.size();
        let open = || file.content.read_range(0, size);
        let content = Content { open: &open, size, sha256: file.sha256 };
        let deadline = self.deadline(size);
        let mut attempts = Attempts::new(self.retries, deadline);
        loop {
            let sent = self.send(method, address, headers, Some(&content), deadline).and_then(|response| {
                match response.status() {
                    status if status.is_success() => Ok(()),
                    StatusCode::PRECONDITION_FAILED => Err(Error::Overtaken(address.place())),
                    status => Err(Error::Put {
                        what: address.place(),
                        status: status.as_u16(),
                        retry_after: retry::retry_after(response.headers()),
                    }),
                }
            });
            match sent {
                Err(error) if attempts.may_go_on(&error) => {}
                result => return result,
            }
        }
    }
}
