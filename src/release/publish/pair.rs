//! A channel and its signature, replaced together.
//!
//! ```text
//! <name>.channel.next.sig, <name>.channel.next     first: the new pair, whole
//! <name>.channel.sig, <name>.channel               then: what nodes read
//! ```
//! While channel and signature do not fit, nodes read the pair that comes next: so whoever is killed between any two of
//! these steps leaves the old channel or the new one. The next publisher goes on where this one stopped.

use std::path::{Path, PathBuf};

use super::Error;
use crate::release::channel::{CHANNEL_BYTES_MAX, Channel, next_name};
use crate::release::trust::{self, Namespace, Refusal, SIGNATURES_BYTES_MAX, keys_that_signed};
use crate::sys::disk::{self, Disk};

/// The files of one channel.
pub struct Pair<'a> {
    disk: &'a Disk,
    key: Option<&'a Path>,
    path: PathBuf,
    next: PathBuf,
}

/// What the next channel goes on from.
pub enum Ground {
    Nothing,
    /// A channel that the given key has signed, or one without signature where none is wanted.
    Channel(Box<Channel>),
    /// What is there cannot be built upon, and another is begun. What it says, if it can be read: nobody vouches for it.
    Anew(Option<Box<Channel>>),
}

impl Ground {
    /// The channel to go on from.
    pub fn channel(&self) -> Option<&Channel> {
        match self {
            Self::Channel(channel) => Some(channel),
            Self::Nothing | Self::Anew(_) => None,
        }
    }

    /// The channel that is there, whoever vouches for it.
    pub fn said(&self) -> Option<&Channel> {
        match self {
            Self::Channel(channel) => Some(channel),
            Self::Anew(channel) => channel.as_deref(),
            Self::Nothing => None,
        }
    }

    fn of(channel: Option<Channel>) -> Self {
        channel.map_or(Self::Nothing, |channel| Self::Channel(Box::new(channel)))
    }
}

/// A channel that the given key has signed.
struct Signed {
    channel: Channel,
    bytes: Vec<u8>,
    signature: Vec<u8>,
}

impl<'a> Pair<'a> {
    /// The channel `name` in a directory; `key` signs it.
    pub fn new(disk: &'a Disk, directory: &Path, name: &str, key: Option<&'a Path>) -> Self {
        let file = format!("{name}.channel");
        Self { disk, key, next: directory.join(next_name(&file)), path: directory.join(file) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the channel says now. An update that was interrupted is finished first.
    ///
    /// With `anew` a channel that cannot be built upon is no error.
    pub fn read(
        &self,
        anew: bool,
        written: &mut Vec<PathBuf>,
        notes: &mut Vec<String>,
    ) -> Result<Ground, Error> {
        let Some(key) = self.key else { return self.read_unsigned().map(Ground::of) };
        let next = self.signed(&self.next, key).ok().flatten();
        let now = self.signed(&self.path, key);
        let channel = match (now, next) {
            (Ok(Some(now)), Some(next)) if next.channel.serial > now.channel.serial => {
                Some(self.finish(next, written, notes)?)
            }
            (Ok(Some(now)), _) => Some(now.channel),
            (Ok(None), Some(next)) | (Err(Error::Signature { .. }), Some(next)) => {
                Some(self.finish(next, written, notes)?)
            }
            (Ok(None), None) => None,
            (Err(_), _) if anew => {
                let bytes = disk::read_small(&self.path, CHANNEL_BYTES_MAX).ok().flatten();
                let said = bytes.and_then(|bytes| Channel::parse(&bytes).ok());
                return Ok(Ground::Anew(said.map(Box::new)));
            }
            (Err(error), _) => return Err(error),
        };
        Ok(Ground::of(channel))
    }

    fn read_unsigned(&self) -> Result<Option<Channel>, Error> {
        if trust::signature_file(&self.path).exists() {
            return Err(Error::Unsigned(self.path.clone()));
        }
        let bytes = disk::read_small(&self.path, CHANNEL_BYTES_MAX)?;
        bytes.map(|bytes| self.parse(&self.path, &bytes)).transpose()
    }

    /// A channel at `path` that the key has signed; `None` when there is none.
    fn signed(&self, path: &Path, key: &Path) -> Result<Option<Signed>, Error> {
        let Some(bytes) = disk::read_small(path, CHANNEL_BYTES_MAX)? else { return Ok(None) };
        let refused = |refusal| Error::Signature { path: path.to_owned(), refusal };
        let signature = disk::read_small(&trust::signature_file(path), SIGNATURES_BYTES_MAX)?;
        let signature = signature.ok_or_else(|| refused(Refusal::Unsigned))?;
        let keys = keys_that_signed(Namespace::Channel.as_str(), &bytes, &signature).map_err(refused)?;
        if !keys.contains(&trust::public_key(key)?) {
            let found = keys.iter().map(trust::fingerprint).collect::<Vec<_>>().join(", ");
            return Err(Error::OtherKey { path: path.to_owned(), found });
        }
        let channel = self.parse(path, &bytes)?;
        Ok(Some(Signed { channel, bytes, signature }))
    }

    /// Also refuses another channel's file that somebody has put in this one's place.
    fn parse(&self, path: &Path, bytes: &[u8]) -> Result<Channel, Error> {
        let channel = Channel::parse(bytes)
            .map_err(|malformed| Error::Malformed { path: path.to_owned(), malformed })?;
        let name = self.path.file_stem().unwrap_or_default();
        if name == channel.channel.as_str() {
            Ok(channel)
        } else {
            Err(Error::OtherChannel { path: path.to_owned(), found: channel.channel })
        }
    }

    /// Goes on with what another publisher has begun: all of it is signed already.
    fn finish(
        &self,
        next: Signed,
        written: &mut Vec<PathBuf>,
        notes: &mut Vec<String>,
    ) -> Result<Channel, Error> {
        self.show(&next.bytes, Some(&next.signature), written)?;
        notes.push(format!("serial {}, which was interrupted, is published first", next.channel.serial));
        Ok(next.channel)
    }

    /// Publishes a channel, and compares what is there afterwards.
    pub fn write(&self, text: &str, written: &mut Vec<PathBuf>) -> Result<(), Error> {
        let Some(key) = self.key else { return self.show(text.as_bytes(), None, written) };
        let signature = trust::sign(key, Namespace::Channel, text.as_bytes())?;
        self.disk.replace(&trust::signature_file(&self.next), signature.as_bytes(), 0o644)?;
        self.disk.replace(&self.next, text.as_bytes(), 0o644)?;
        self.show(text.as_bytes(), Some(signature.as_bytes()), written)
    }

    /// Has nodes read these, and removes the pair that came next.
    fn show(&self, text: &[u8], signature: Option<&[u8]>, written: &mut Vec<PathBuf>) -> Result<(), Error> {
        let signature_path = trust::signature_file(&self.path);
        if let Some(signature) = signature {
            self.disk.replace(&signature_path, signature, 0o644)?;
            written.push(signature_path.clone());
        }
        self.disk.replace(&self.path, text, 0o644)?;
        written.push(self.path.clone());
        let there = disk::read_small(&self.path, CHANNEL_BYTES_MAX)?;
        let there_signature = match signature {
            Some(_) => disk::read_small(&signature_path, SIGNATURES_BYTES_MAX)?,
            None => None,
        };
        if there.as_deref() != Some(text) || there_signature.as_deref() != signature {
            return Err(Error::Overwritten(self.path.clone()));
        }
        if signature.is_some() {
            self.disk.remove_files(&[self.next.clone(), trust::signature_file(&self.next)])?;
        }
        Ok(())
    }
}
