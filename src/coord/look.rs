//! One look at one name of the board, and what may be believed of it.

use super::board::{Board, Created, Read};
use super::facts::seal::{self, Seal};
use super::facts::{FORMAT, Fact, format_of, names, other_format};
use crate::types::Digest;

#[derive(Clone, Debug, PartialEq)]
pub enum Look<T> {
    Found(T),
    Absent,
    /// A file that says nothing: why not.
    Bad(String),
    /// The storage did not answer.
    Unreachable(String),
}

/// A fact as it was found.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub fact: Fact,
    /// The digest of its file.
    pub digest: Digest,
    pub name: String,
    pub text: String,
    /// Who signed it, if it is signed and that was asked for.
    pub signer: Option<String>,
}

/// Whose signatures count. Given by whoever has keys.
pub trait Keys {
    /// The operator who signed exactly this text; or why nobody who counts did.
    fn operator(&self, covered: &str, armored: &str) -> Result<String, String>;
    /// Whether this public key signed exactly this text; or why it does not count.
    fn node(&self, key: &str, covered: &str, armored: &str) -> Result<(), String>;
}

pub trait Signer {
    /// The public half of its key, in one line; or why the key is of no use.
    fn public(&self) -> Result<String, String>;
    /// The signature over this text, in armour.
    fn sign(&self, covered: &str) -> Result<String, String>;
}

/// What a node believes of what operators are said to have written.
#[derive(Clone, Copy)]
pub struct Trust<'a> {
    pub keys: &'a dyn Keys,
    /// Whether the unsigned is believed.
    pub allow_unsigned: bool,
}

/// Looks at a fact of a node, or a gate.
pub fn look(board: &mut dyn Board, name: &str) -> Look<Found> {
    looked(name, board.read(name))
}

/// The same, of what was read.
pub fn looked(name: &str, read: Read) -> Look<Found> {
    match read {
        Read::Absent => Look::Absent,
        Read::Bad(why) => Look::Bad(why),
        Read::Unreachable(why) => Look::Unreachable(why),
        Read::Bytes(text) => found(name, &text, None),
    }
}

/// Looks at a fact of an operator.
pub fn look_signed(board: &mut dyn Board, name: &str, trust: Trust<'_>) -> Look<Found> {
    match board.read(name) {
        Read::Absent => Look::Absent,
        Read::Bad(why) => Look::Bad(why),
        Read::Unreachable(why) => Look::Unreachable(why),
        Read::Bytes(text) => found(name, &text, Some(trust)),
    }
}

/// What the file of this name says, if its seal holds.
pub fn found(name: &str, text: &str, trust: Option<Trust<'_>>) -> Look<Found> {
    let opened = match seal::open(name, text.as_bytes()) {
        Ok(opened) => opened,
        // Another format may be sealed in another way.
        Err(bad) => {
            return Look::Bad(match text.lines().next().and_then(format_of) {
                Some(format) if format != FORMAT => other_format(format).to_string(),
                _ => bad.to_string(),
            });
        }
    };
    let signer = match (&opened.seal, trust) {
        (_, None) => None,
        (Seal::Signature(armored), Some(trust)) => match trust.keys.operator(&opened.covered, armored) {
            Ok(signer) => Some(signer),
            // Trusting everybody does not need the signature to be good.
            Err(_) if trust.allow_unsigned => None,
            Err(why) => return Look::Bad(why),
        },
        (Seal::Sum, Some(trust)) if trust.allow_unsigned => None,
        (Seal::Sum, Some(_)) => return Look::Bad("it is not signed".into()),
    };
    match Fact::parse(opened.line) {
        Ok(fact) => {
            let (digest, name, text) = (opened.digest, name.to_owned(), text.to_owned());
            Look::Found(Found { fact, digest, name, text, signer })
        }
        Err(bad) => Look::Bad(bad.to_string()),
    }
}

/// Pins a fact to a name, and says what the name holds then.
pub fn put(board: &mut dyn Board, name: &str, fact: &Fact) -> Look<Found> {
    put_text(board, name, &seal_summed(name, fact))
}

/// The file of a fact under a checksum, for this name.
pub fn seal_summed(name: &str, fact: &Fact) -> String {
    String::from_utf8(seal::summed(name, &fact.line())).unwrap_or_default()
}

/// The file of a fact under an operator's signature, for this name; under a checksum without a signer.
pub fn seal_signed(name: &str, fact: &Fact, signer: Option<&dyn Signer>) -> Result<String, String> {
    let Some(signer) = signer else { return Ok(seal_summed(name, fact)) };
    let line = fact.line();
    let bytes =
        seal::signed(&line, &signer.sign(&seal::covered(name, &line))?).map_err(|bad| bad.to_string())?;
    String::from_utf8(bytes).map_err(|error| error.to_string())
}

/// Pins the file of a fact to a name, and says what the name holds then.
pub fn put_text(board: &mut dyn Board, name: &str, text: &str) -> Look<Found> {
    pin_text(board, name, text).unwrap_or_else(|NotMade(why)| Look::Unreachable(why))
}

/// Certainly nothing was made; why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotMade(pub String);

/// The same as [`put_text`], for whoever must know when it is certain that nothing was made.
pub fn pin_text(board: &mut dyn Board, name: &str, text: &str) -> Result<Look<Found>, NotMade> {
    debug_assert!(names::is_name(name), "{name}");
    match board.create(name, text) {
        Created::Mine => Ok(found(name, text, None)),
        Created::Theirs(there) => Ok(found(name, &there, None)),
        Created::Refused(why) => Err(NotMade(why)),
        Created::Unknown(why) => Ok(Look::Unreachable(why)),
    }
}
