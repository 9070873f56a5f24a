//! Making keys and signatures: the same bytes as `ssh-keygen` makes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ssh_key::private::Ed25519Keypair;
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, HashAlg, LineEnding, PrivateKey, PublicKey};

use super::signature::{SIGNATURES_BYTES_MAX, good_signatures, keys_that_signed};
use super::signers::is_key_type;
use super::{Namespace, Refusal};
use crate::sys::disk::{self, Disk};
use crate::types::escaped_path;

/// The longest private key file in bytes.
const KEY_BYTES_MAX: usize = 64 << 10;

/// The longest file that is signed: manifests and channels are small.
const SIGNED_BYTES_MAX: usize = 1 << 20;

/// A key or a signature that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Disk(#[from] disk::Error),
    #[error("there is no key file `{}`", escaped_path(.0))]
    NoKey(PathBuf),
    #[error("there is no file `{}`", escaped_path(.0))]
    NoFile(PathBuf),
    /// The key can't be used.
    #[error("cannot sign with the key `{}`", escaped_path(.path))]
    Key {
        path: PathBuf,
        /// What is wrong with it.
        source: ssh_key::Error,
    },
    /// There are no random numbers.
    #[error("cannot make a key: the machine gives no random numbers")]
    Random,
    #[error("cannot run `ssh-keygen` to sign with `{}`", escaped_path(.path))]
    Run { path: PathBuf, source: io::Error },
    #[error("`ssh-keygen` did not sign with `{}`: see above why", escaped_path(.0))]
    Refused(PathBuf),
    /// Nobody accepts signatures of such a key.
    #[error("cannot sign with the key `{}`: it is of type `{kind}`, and only ed25519 keys count", escaped_path(.path))]
    KeyType { path: PathBuf, kind: String },
    /// It signed, and nobody would accept that.
    #[error("a signature of the key `{}` does not count: {refusal}", escaped_path(.path))]
    Unsound { path: PathBuf, refusal: Refusal },
}

/// A new pair of keys, as the texts of two files.
pub struct KeyPair {
    /// The OpenSSH private key, not encrypted: for a file of mode 0600.
    pub private: String,
    /// The public key, one line.
    pub public: String,
}

impl KeyPair {
    pub fn generate(comment: &str) -> Result<Self, Error> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| Error::Random)?;
        let wrong = |source| Error::Key { path: PathBuf::from(comment), source };
        let mut key = PrivateKey::from(Ed25519Keypair::from_seed(&seed));
        key.set_comment(comment);
        Ok(Self {
            private: key.to_openssh(LineEnding::LF).map_err(wrong)?.to_string(),
            public: key.public_key().to_openssh().map_err(wrong)? + "\n",
        })
    }
}

/// Signs `bytes` with the key in `key_file`, and gives the text of the signature.
///
/// A plain ed25519 key is used at once. Encrypted keys, keys of an agent (name the public key's file) and security keys
/// are left to `ssh-keygen`, which asks on the terminal for what it needs. Whoever signed, the result is verified as a
/// node verifies it.
pub fn sign(key_file: &Path, namespace: Namespace, bytes: &[u8]) -> Result<String, Error> {
    let key = public_key(key_file)?;
    let text = unverified(key_file, namespace, bytes)?;
    let unsound = |refusal| Error::Unsound { path: key_file.to_owned(), refusal };
    match keys_that_signed(namespace.as_str(), bytes, text.as_bytes()).map_err(unsound)? {
        keys if keys == [key] => Ok(text),
        keys => {
            let other = keys.iter().map(super::fingerprint).collect();
            Err(unsound(Refusal::WrongSignature(other)))
        }
    }
}

fn unverified(key_file: &Path, namespace: Namespace, bytes: &[u8]) -> Result<String, Error> {
    let text = disk::read_small(key_file, KEY_BYTES_MAX)?.ok_or_else(|| Error::NoKey(key_file.to_owned()))?;
    match PrivateKey::from_openssh(&text) {
        Ok(key) if !key.is_encrypted() && key.algorithm() == Algorithm::Ed25519 => {
            let wrong = |source| Error::Key { path: key_file.to_owned(), source };
            let signature = key.sign(namespace.as_str(), HashAlg::Sha512, bytes).map_err(wrong)?;
            let text = signature.to_pem(LineEnding::LF).map_err(wrong)?;
            Ok(text.trim_end().to_owned() + "\n")
        }
        _ => sign_by_ssh_keygen(key_file, namespace, bytes),
    }
}

fn sign_by_ssh_keygen(key_file: &Path, namespace: Namespace, bytes: &[u8]) -> Result<String, Error> {
    let cannot = |source| Error::Run { path: key_file.to_owned(), source };
    let mut child = Command::new("ssh-keygen")
        .args(["-Y", "sign", "-n", namespace.as_str(), "-f"])
        .arg(std::path::absolute(key_file).map_err(cannot)?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A broken pipe means that it gave up early, and it has said why.
        match stdin.write_all(bytes) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(cannot(error)),
            _ => {}
        }
    }
    let output = child.wait_with_output().map_err(cannot)?;
    let text = String::from_utf8(output.stdout).unwrap_or_default();
    if output.status.success() && text.starts_with("-----BEGIN SSH SIGNATURE-----") {
        return Ok(text);
    }
    Err(Error::Refused(key_file.to_owned()))
}

/// The public key of a key file: of a private one (even if it is encrypted), or of a `.pub`. Refuses one whose signatures
/// nobody accepts.
pub fn public_key(key_file: &Path) -> Result<KeyData, Error> {
    let text = disk::read_small(key_file, KEY_BYTES_MAX)?.ok_or_else(|| Error::NoKey(key_file.to_owned()))?;
    let text = String::from_utf8_lossy(&text);
    let read = match text.starts_with("-----BEGIN ") {
        true => PrivateKey::from_openssh(text.as_bytes()).map(|key| key.public_key().clone()),
        false => PublicKey::from_openssh(text.trim()),
    };
    let other_type = |kind: &str| Error::KeyType { path: key_file.to_owned(), kind: kind.to_owned() };
    match read {
        Ok(key) if is_accepted(&key.algorithm()) => Ok(key.key_data().clone()),
        Ok(key) => Err(other_type(key.algorithm().as_str())),
        Err(source) => Err(match other_kind(key_file, &text) {
            Some(kind) => other_type(&kind),
            None => Error::Key { path: key_file.to_owned(), source },
        }),
    }
}

fn is_accepted(algorithm: &Algorithm) -> bool {
    matches!(algorithm, Algorithm::Ed25519 | Algorithm::SkEd25519)
}

/// Of which type a key is that this program cannot read: the line of its public key begins with that.
fn other_kind(key_file: &Path, text: &str) -> Option<String> {
    let mut public = key_file.as_os_str().to_owned();
    public.push(".pub");
    let beside = disk::read_small(Path::new(&public), KEY_BYTES_MAX).ok().flatten().unwrap_or_default();
    let beside = String::from_utf8_lossy(&beside);
    let kinds =
        [text, &beside].map(|line| line.split_ascii_whitespace().next().unwrap_or_default().to_owned());
    let is_other = |kind: &&String| is_key_type(kind) && !kind.parse().is_ok_and(|kind| is_accepted(&kind));
    kinds.iter().find(is_other).cloned()
}

/// The same, in OpenSSH's form.
pub fn public_line(key_file: &Path) -> Result<String, Error> {
    let wrong = |source| Error::Key { path: key_file.to_owned(), source };
    PublicKey::from(public_key(key_file)?).to_openssh().map_err(wrong)
}

/// Signs a file: its signature goes into `<file>.sig`. Signatures of other keys that are there and hold are kept.
pub fn sign_file(disk: &Disk, file: &Path, key_file: &Path, namespace: Namespace) -> Result<PathBuf, Error> {
    let bytes = disk::read_small(file, SIGNED_BYTES_MAX)?.ok_or_else(|| Error::NoFile(file.to_owned()))?;
    let signature = sign(key_file, namespace, &bytes)?;
    let new = good_signatures(namespace.as_str(), &bytes, signature.as_bytes());
    let path = signature_file(file);
    let there = disk::read_small(&path, SIGNATURES_BYTES_MAX)?.unwrap_or_default();
    let others = good_signatures(namespace.as_str(), &bytes, &there)
        .into_iter()
        .filter(|(key, _)| new.iter().all(|(other, _)| other != key));
    let text: String = others.map(|(_, block)| block).chain([signature]).collect();
    disk.replace(&path, text.as_bytes(), 0o644)?;
    Ok(path)
}

/// `<file>.sig`.
pub fn signature_file(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}
