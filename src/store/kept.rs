//! Small files of ours that must survive power cuts and be noticed when they are broken: journal, settings, state, and what
//! a node must not forget of its fleet.
//!
//! ```json
//! {"format":1,"sum":"sha256:<of the exact bytes of body>","body":{…}}
//! ```

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::sys::disk::{self, Disk, Error};
use crate::types::Digest;

/// The format that this program writes, and the newest that it reads.
const FORMAT: u32 = 1;
/// No file of ours is longer.
const BYTES_MAX: usize = 4 << 20;

/// A file of ours, as it was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Kept<T> {
    Missing,
    Whole(T),
    Damaged(Damage),
}

/// Why a file of ours cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It is as it was written, and says what this program does not know: a newer one wrote it.
    #[error("it was written by a newer cutover ({0})")]
    Newer(String),
    /// It is not as it was written, or was never ours.
    #[error("{0}")]
    Spoilt(String),
    /// Somebody else could have written it: it belongs to another user (`chown -R`), or all may write to it.
    #[error("{0}")]
    Exposed(String),
}

#[derive(Serialize)]
struct Writing<'a> {
    format: u32,
    sum: Digest,
    body: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reading<'a> {
    #[serde(rename = "format")]
    _format: u32,
    sum: Digest,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// Who may read and write a file of ours.
pub const MODE: u32 = 0o600;

/// Replaces the file by this value.
pub fn save<T: Serialize>(disk: &Disk, path: &Path, value: &T) -> Result<(), Error> {
    disk.replace(path, &bytes(path, value)?, MODE)
}

/// What a file with this value has in it.
pub fn bytes<T: Serialize>(path: &Path, value: &T) -> Result<Vec<u8>, Error> {
    let text = || -> serde_json::Result<String> {
        let body = serde_json::value::to_raw_value(value)?;
        let sum = Digest::of(body.get().as_bytes());
        serde_json::to_string(&Writing { format: FORMAT, sum, body: &body })
    };
    let text = text().map_err(|error| Error::new("write", path, error))?;
    Ok((text + "\n").into_bytes())
}

/// Reads the file.
///
/// # Errors
/// Only when the disk refuses to say what is there: a link, a folder or a device in its place is damage.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Kept<T>, Error> {
    let bytes = match disk::read_own(path, BYTES_MAX) {
        Ok(None) => return Ok(Kept::Missing),
        Ok(Some(bytes)) => bytes,
        Err(error) if error.source.raw_os_error().is_some() => return Err(error),
        Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied => {
            return Ok(Kept::Damaged(Damage::Exposed(error.source.to_string())));
        }
        Err(error) => return Ok(Kept::Damaged(Damage::Spoilt(error.source.to_string()))),
    };
    Ok(parse(&bytes).map_or_else(Kept::Damaged, Kept::Whole))
}

/// Reads the content of such a file.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Damage> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let format: Format = serde_json::from_slice(bytes)
        .map_err(|error| Damage::Spoilt(format!("it is not a file of cutover's: {error}")))?;
    if format.format > FORMAT {
        return Err(Damage::Newer(format!("format {}", format.format)));
    }
    let reading: Reading<'_> =
        serde_json::from_slice(bytes).map_err(|error| Damage::Spoilt(error.to_string()))?;
    if Digest::of(reading.body.get().as_bytes()) != reading.sum {
        return Err(Damage::Spoilt("its content does not match its checksum".into()));
    }
    // The checksum holds, so some cutover wrote just this.
    serde_json::from_str(reading.body.get()).map_err(|error| Damage::Newer(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::state::State;

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let state = State { pins: vec!["1.0".parse().unwrap()], ..State::default() };
        save(&Disk::default(), &path, &state).unwrap();
        let whole = disk::read_small(&path, BYTES_MAX).unwrap().unwrap();
        assert_eq!(load::<State>(&path).unwrap(), Kept::Whole(state.clone()));
        for position in 0..whole.len() - 1 {
            for bit in 0..8 {
                let mut broken = whole.clone();
                broken[position] ^= 1 << bit;
                // A letter's case in the digest's hex is no damage.
                assert!(
                    parse::<State>(&broken).map_or(true, |read| read == state),
                    "bit {bit} of byte {position}"
                );
            }
            assert!(parse::<State>(&whole[..position]).is_err(), "cut at {position}");
        }
        let later = parse::<State>(br#"{"format":2,"new":true}"#);
        assert_eq!(later, Err(Damage::Newer("format 2".into())));
        save(&Disk::default(), &path, &serde_json::json!({"not_known_yet": true})).unwrap();
        assert!(matches!(load::<State>(&path).unwrap(), Kept::Damaged(Damage::Newer(_))));
    }
}
