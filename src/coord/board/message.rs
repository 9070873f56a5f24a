//! What a node and its helper say to each other: JSON, its length in four bytes (most significant first) before it.

use std::io::{self, Read as _, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ClockRead, Created, Done, Listed, Read};

/// A request of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    Create {
        name: String,
        text: String,
    },
    Read {
        name: String,
    },
    List {
        name: String,
    },
    Prepare {
        name: String,
    },
    Beat {
        name: String,
        text: String,
    },
    Clock {
        name: String,
    },
    Remove {
        name: String,
    },
    /// This and the next are only asked of a helper of this program: whatever else stands for a board has no such questions.
    Shut {
        name: String,
    },
    /// As many of the first as come within this time, one at least.
    ReadSome {
        names: Vec<String>,
        within_ms: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    Created(Created),
    Read(Read),
    /// What the first of those hold that were asked for.
    Some(Vec<Read>),
    /// The first names of a long listing; more of it follows.
    Part(Vec<String>),
    Listed(Listed),
    Done(Done),
    Clock(ClockRead),
    Shut(Option<String>),
}

/// The most names in one message.
pub const PART_NAMES: usize = 50_000;

/// The longest message: so many of the longest names, escaped, and as many again of helpers that send more at once.
pub const MESSAGE_BYTES_MAX: usize = 2 * PART_NAMES * 260;

/// Room for so much is made at once; for what is longer, as it comes.
const LIKELY: usize = 1 << 20;

pub fn send(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    to.write_all(&[&length.to_be_bytes()[..], &body].concat())?;
    to.flush()
}

/// Reads one message; nothing when the other side has closed.
pub fn receive<T: DeserializeOwned>(from: &mut impl io::Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::other(format!("a message of {length} bytes is too long")));
    }
    let mut body = Vec::with_capacity(length.min(LIKELY));
    from.take(length as u64).read_to_end(&mut body)?;
    if body.len() < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(serde_json::from_slice(&body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_received_as_it_was_sent() {
        let request = Request::Create { name: "rollouts/000017".into(), text: "{}\n\"".into() };
        let mut wire = Vec::new();
        send(&mut wire, &request).unwrap();
        assert_eq!(receive(&mut &wire[..]).unwrap(), Some(request));
        assert_eq!(receive::<Request>(&mut &b""[..]).unwrap(), None);
        assert!(receive::<Request>(&mut &wire[..wire.len() - 1]).is_err());
        assert!(receive::<Request>(&mut &[0xff; 8][..]).is_err());
    }
}
