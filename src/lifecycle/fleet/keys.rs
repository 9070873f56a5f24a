//! Whose word counts in a fleet: the keys that may sign in the namespace `cutover-fleet`.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::own::Own;
use crate::coord::look::{Keys, Signer};

use crate::release::trust::{
    Error, KEY_DIRECTORIES, KeyPair, Keyring, Namespace, SignError, public_line, sign,
};
use crate::sys::disk::Disk;
use crate::types::chain;

/// The trusted keys of a node.
#[derive(Clone, Debug, Default)]
pub struct FleetKeys(Keyring);

impl FleetKeys {
    /// Loads the files of keys; without any, those of the usual places that are there.
    pub fn load(files: &[String], revoked: &Path) -> Result<Self, Error> {
        let usual = KEY_DIRECTORIES.into_iter().filter(|path| Path::new(path).exists());
        let paths: Vec<PathBuf> = match files {
            [] => usual.map(Into::into).collect(),
            files => files.iter().map(Into::into).collect(),
        };
        Ok(Self(Keyring::load(&paths, revoked)?))
    }
}

impl Keys for FleetKeys {
    fn operator(&self, covered: &str, armored: &str) -> Result<String, String> {
        let now = Timestamp::now();
        let signers = self.0.verify(Namespace::Fleet, covered.as_bytes(), Some(armored.as_bytes()), now, 1);
        match signers {
            Ok(signers) => Ok(signers.first().map(|signer| signer.name.clone()).unwrap_or_default()),
            Err(refusal) => Err(refusal.to_string()),
        }
    }

    fn node(&self, key: &str, covered: &str, armored: &str) -> Result<(), String> {
        let signed = self.0.is_signed_by(key, Namespace::Fleet, covered.as_bytes(), armored.as_bytes());
        signed.map_err(|refusal| refusal.to_string())
    }
}

/// The key that this node signs its facts with: made when it joins, and kept. Its public half, in one line.
pub fn own_key(disk: &Disk, path: &Path, node: &str) -> Result<String, SignError> {
    if !path.exists() {
        let pair = KeyPair::generate(node)?;
        disk.replace(path, pair.private.as_bytes(), 0o600)?;
    }
    public_line(path)
}

/// Why nobody would believe what this node signs: the key that it has joined with is gone, damaged, or another one.
pub fn without_key(own: &Own, signer: &dyn Signer) -> Option<String> {
    let (node, listed) = (&own.node, own.key.as_ref()?);
    let why = match signer.public() {
        Ok(key) if key == *listed => return None,
        Ok(_) => "`.cutover/fleet.key` is another one".to_owned(),
        Err(why) => why,
    };
    Some(format!(
        "`{node}` is without the key that it has joined with: {why}; put it back from a backup, or remove what is there, and \
         `cutover fleet replace {node}` frees the name, `cutover fleet join` makes a new key, and \
         `cutover fleet members --add {node}` lists it"
    ))
}

/// A private key, or the public one of a key that an agent holds.
#[derive(Clone, Debug)]
pub struct KeyFile(pub PathBuf);

impl Signer for KeyFile {
    fn public(&self) -> Result<String, String> {
        public_line(&self.0).map_err(|error| chain(&error))
    }

    fn sign(&self, covered: &str) -> Result<String, String> {
        sign(&self.0, Namespace::Fleet, covered.as_bytes()).map_err(|error| chain(&error))
    }
}
