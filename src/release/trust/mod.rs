//! Whose releases are taken: keys, signatures, revocation, thresholds.
//!
//! ```text
//! /etc/cutover/keys/*.pub, /usr/lib/cutover/keys/*.pub   trusted keys, each with what it may sign
//! /etc/cutover/revoked                                   keys that are trusted no more
//! ```
//! Signatures are those of `ssh-keygen -Y sign`: anybody can make and check them without this program. What is signed
//! for one purpose counts for no other (the namespace), and several keys may be asked for (the threshold).

mod revoked;
mod sign;
mod signature;
mod signers;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use ssh_key::HashAlg;
use ssh_key::public::KeyData;

pub use revoked::Revoked;
pub use sign::{Error as SignError, KeyPair, public_key, public_line, sign, sign_file, signature_file};
pub use signature::{SIGNATURES_BYTES_MAX, keys_that_signed};
pub use signers::{Problem, TrustedKey, parse as parse_keys};

use crate::sys::owned;
use crate::types::{escaped, escaped_path};

/// Where keys are looked for when none are configured.
pub const KEY_DIRECTORIES: [&str; 2] = ["/etc/cutover/keys", "/usr/lib/cutover/keys"];

/// The longest file of keys in bytes.
const KEYS_BYTES_MAX: usize = 1 << 20;

/// What a signature is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Namespace {
    /// A manifest: this is a release.
    Release,
    /// A channel: this release is to run.
    Channel,
    /// A file of a fleet's rollout.
    Fleet,
}

impl Namespace {
    /// Its name in the signature.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Release => "cutover-release",
            Self::Channel => "cutover-channel",
            Self::Fleet => "cutover-fleet",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signer {
    /// `SHA256:…`, as `ssh-keygen -l` shows it.
    pub fingerprint: String,
    /// The name in the file of keys.
    pub name: String,
}

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("it is not signed")]
    Unsigned,
    /// The file is not one of signatures, or damaged.
    #[error("its signature file is damaged or not of `ssh-keygen -Y sign`")]
    NotASignature,
    #[error("it is signed with a certificate, which is not supported: sign with the plain key")]
    Certificate,
    /// Made with a key of another kind.
    #[error("it is signed with a key of type `{}`, which is not supported: sign with an ed25519 key", escaped(.0.as_bytes()))]
    Algorithm(String),
    #[error("it is signed for `{}`, not for `{wanted}`", escaped(.found.as_bytes()))]
    Namespace {
        /// What it was signed for.
        found: String,
        /// What it must be signed for.
        wanted: String,
    },
    /// A security key that nobody touched.
    #[error("nobody touched the security key {0} when it signed")]
    NobodyPresent(String),
    /// Not over these bytes.
    #[error("it was changed after {0} signed it, or the signature is of another file")]
    WrongSignature(String),
    /// Too few of the keys that signed it count.
    #[error("{}", too_few(*needed, *counted, others))]
    TooFew {
        /// How many different trusted keys there must be.
        needed: u32,
        counted: usize,
        /// The others, and why they don't count.
        others: Vec<(String, NotCounted)>,
    },
    /// Nobody is trusted at all.
    #[error("no key is trusted for `{0}` on this node")]
    NoKeys(&'static str),
}

/// Why a good signature does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotCounted {
    /// The key is in no file of keys.
    #[error("is not trusted here")]
    Unknown,
    #[error("is revoked")]
    Revoked,
    /// The key is trusted with other things.
    #[error("may not sign this")]
    OtherRole,
    /// The key is trusted at other times.
    #[error("is not valid at this time")]
    OtherTime,
}

fn too_few(needed: u32, counted: usize, others: &[(String, NotCounted)]) -> String {
    let others: Vec<_> = others.iter().map(|(key, why)| format!("{key} {why}")).collect();
    let others = if others.is_empty() { String::new() } else { format!(": {}", others.join(", ")) };
    match needed {
        1 => format!("it is signed by no trusted key{others}"),
        _ => format!("it needs signatures of {needed} trusted keys, and has {counted}{others}"),
    }
}

/// Files of keys that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others could have written it.
    #[error(transparent)]
    Owned(#[from] owned::Error),
    /// A line is not understood.
    #[error("`{}`, line {line}: {problem}", escaped_path(.file))]
    Line {
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it.
        problem: Problem,
    },
    /// A file that is configured is not there.
    #[error("the file of keys `{}` is not there", escaped_path(.0))]
    Missing(PathBuf),
    /// A binary list of `ssh-keygen -k`.
    #[error("`{}` is a binary revocation list: list public keys or fingerprints instead, one a line", escaped_path(.0))]
    BinaryList(PathBuf),
}

/// The keys that a node trusts.
#[derive(Clone, Debug, Default)]
pub struct Keyring {
    keys: Vec<TrustedKey>,
    revoked: Revoked,
}

impl Keyring {
    /// A keyring of these keys.
    pub fn new(keys: Vec<TrustedKey>, revoked: Revoked) -> Self {
        Self { keys, revoked }
    }

    /// Loads the files that `paths` name, each a file of keys or a directory of `*.pub`; without any, the usual
    /// directories. `revoked` need not exist.
    ///
    /// # Errors
    /// When somebody else could have written one of them, or a line is not understood. Then nobody is trusted.
    pub fn load(paths: &[impl AsRef<Path>], revoked: &Path) -> Result<Self, Error> {
        let mut keys = Vec::new();
        for path in paths.iter().map(AsRef::as_ref) {
            if !load_path(path, &mut keys)? {
                return Err(Error::Missing(path.to_owned()));
            }
        }
        if paths.is_empty() {
            for directory in KEY_DIRECTORIES {
                load_path(Path::new(directory), &mut keys)?;
            }
        }
        let list = owned::read(revoked, KEYS_BYTES_MAX)?.unwrap_or_default();
        if list.starts_with(b"SSHKRL\n") {
            return Err(Error::BinaryList(revoked.to_owned()));
        }
        let revoked = Revoked::parse(&list).map_err(in_file(revoked))?;
        Ok(Self { keys, revoked })
    }

    /// All keys, revoked ones too.
    pub fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }

    /// Whether the key counts no more.
    pub fn is_revoked(&self, key: &TrustedKey) -> bool {
        self.revoked.contains(&key.key)
    }

    /// The fingerprints of the keys that may sign in this namespace at this time, sorted.
    pub fn fingerprints(&self, namespace: Namespace, at: Timestamp) -> Vec<String> {
        let counts = |key: &&TrustedKey| self.judge(&key.key, namespace, at).is_ok();
        let mut found: Vec<_> = self.keys.iter().filter(counts).map(TrustedKey::fingerprint).collect();
        found.sort();
        found.dedup();
        found
    }

    /// Whether `signatures` hold over exactly these bytes, for this purpose, at this time, by at least `threshold`
    /// different trusted keys. Gives the signers that count.
    ///
    /// Every signature in the file must be good, also those of keys that are not trusted.
    pub fn verify(
        &self,
        namespace: Namespace,
        bytes: &[u8],
        signatures: Option<&[u8]>,
        at: Timestamp,
        threshold: u32,
    ) -> Result<Vec<Signer>, Refusal> {
        if !self.keys.iter().any(|key| key.may_sign(namespace)) {
            return Err(Refusal::NoKeys(namespace.as_str()));
        }
        let signatures = signatures.ok_or(Refusal::Unsigned)?;
        let mut signers: Vec<Signer> = Vec::new();
        let mut others = Vec::new();
        for key in signature::keys_that_signed(namespace.as_str(), bytes, signatures)? {
            let fingerprint = fingerprint(&key);
            match self.judge(&key, namespace, at) {
                Ok(_) if signers.iter().any(|signer| signer.fingerprint == fingerprint) => {}
                Ok(trusted) => signers.push(Signer { fingerprint, name: trusted.name.clone() }),
                Err(why) => others.push((fingerprint, why)),
            }
        }
        let needed = threshold.max(1);
        if u32::try_from(signers.len()).unwrap_or(u32::MAX) >= needed {
            Ok(signers)
        } else {
            Err(Refusal::TooFew { needed, counted: signers.len(), others })
        }
    }

    /// Whether exactly this key, given in OpenSSH's form, made the one signature over these bytes, and was not revoked.
    pub fn is_signed_by(
        &self,
        key: &str,
        namespace: Namespace,
        bytes: &[u8],
        signature: &[u8],
    ) -> Result<(), Refusal> {
        let wanted = ssh_key::PublicKey::from_openssh(key).map_err(|_| Refusal::NotASignature)?;
        let signed = signature::keys_that_signed(namespace.as_str(), bytes, signature)?;
        let counts = signed == [wanted.key_data().clone()] && !self.revoked.contains(wanted.key_data());
        if counts {
            return Ok(());
        }
        let others = signed.iter().map(|key| (fingerprint(key), NotCounted::Unknown)).collect();
        Err(Refusal::TooFew { needed: 1, counted: 0, others })
    }

    /// Whether the key counts, by any of its lines.
    fn judge(&self, key: &KeyData, namespace: Namespace, at: Timestamp) -> Result<&TrustedKey, NotCounted> {
        if self.revoked.contains(key) {
            return Err(NotCounted::Revoked);
        }
        let mut why = NotCounted::Unknown;
        for trusted in self.keys.iter().filter(|trusted| trusted.key == *key) {
            match (trusted.may_sign(namespace), trusted.is_valid_at(at)) {
                (true, true) => return Ok(trusted),
                (true, false) => why = NotCounted::OtherTime,
                (false, _) if why == NotCounted::Unknown => why = NotCounted::OtherRole,
                (false, _) => {}
            }
        }
        Err(why)
    }
}

/// Adds the keys of a file, or of a directory's `*.pub`; `false` when there is neither.
fn load_path(path: &Path, keys: &mut Vec<TrustedKey>) -> Result<bool, Error> {
    if path.is_dir() {
        let Some(names) = owned::list(path)? else { return Ok(false) };
        for name in names.iter().filter(|name| name.as_encoded_bytes().ends_with(b".pub")) {
            load_file(&path.join(name), keys)?;
        }
        return Ok(true);
    }
    load_file(path, keys)
}

fn load_file(path: &Path, keys: &mut Vec<TrustedKey>) -> Result<bool, Error> {
    let Some(bytes) = owned::read(path, KEYS_BYTES_MAX)? else { return Ok(false) };
    keys.extend(signers::parse(&bytes).map_err(in_file(path))?);
    Ok(true)
}

fn in_file(path: &Path) -> impl Fn((usize, Problem)) -> Error + '_ {
    |(line, problem)| Error::Line { file: path.to_owned(), line, problem }
}

/// `SHA256:…`, as `ssh-keygen -l` shows it.
pub fn fingerprint(key: &KeyData) -> String {
    key.fingerprint(HashAlg::Sha256).to_string()
}

#[cfg(test)]
mod tests;
