//! Keys that are trusted no more: public keys or `SHA256:…` fingerprints, one a line, with a comment after them.

use std::collections::BTreeSet;

use ssh_key::public::KeyData;
use ssh_key::{Fingerprint, HashAlg};

use super::signers::{Problem, is_key_type, lines, parse_key};

/// The fingerprints of revoked keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    fingerprints: BTreeSet<String>,
}

impl Revoked {
    /// Reads a list. An error tells the line, from 1: a line passed over would be a key still trusted.
    pub fn parse(bytes: &[u8]) -> Result<Self, (usize, Problem)> {
        let mut fingerprints = BTreeSet::new();
        for (number, line) in lines(bytes) {
            let line = line.map_err(|problem| (number, problem))?;
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let first = line.split_ascii_whitespace().next().unwrap_or_default();
            let fingerprint = if is_key_type(first) {
                super::fingerprint(&parse_key(line).map_err(|problem| (number, problem))?.0)
            } else {
                let parsed: Fingerprint = first.parse().map_err(|_| (number, Problem::NoKey))?;
                if parsed.algorithm() != HashAlg::Sha256 {
                    return Err((number, Problem::NoKey));
                }
                parsed.to_string()
            };
            fingerprints.insert(fingerprint);
        }
        Ok(Self { fingerprints })
    }

    /// Whether the key is on the list.
    pub fn contains(&self, key: &KeyData) -> bool {
        self.fingerprints.contains(&super::fingerprint(key))
    }
}
