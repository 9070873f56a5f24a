//! Detached signatures: SSHSIG, as `ssh-keygen -Y sign` writes them, one or several in a file.
//!
//! The whole file must be in the form, and each signature in it must be good over the bytes: then there is no byte in it
//! whose change goes unnoticed. Whether its key is trusted is not asked here.

use ssh_key::public::KeyData;
use ssh_key::{Algorithm, LineEnding, PublicKey, SshSig};

use super::Refusal;

/// The longest file of signatures in bytes.
pub const SIGNATURES_BYTES_MAX: usize = 16 << 10;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const END: &str = "-----END SSH SIGNATURE-----\n";

/// Bit of a security key's flags: somebody touched it.
const USER_PRESENT: u8 = 1;

/// The keys that signed `bytes` in this namespace, in the order of their signatures.
pub fn keys_that_signed(namespace: &str, bytes: &[u8], signatures: &[u8]) -> Result<Vec<KeyData>, Refusal> {
    if signatures.len() > SIGNATURES_BYTES_MAX {
        return Err(Refusal::NotASignature);
    }
    let mut left = std::str::from_utf8(signatures).map_err(|_| Refusal::NotASignature)?;
    let mut keys = Vec::new();
    while !left.is_empty() {
        let end = left.find(END).ok_or(Refusal::NotASignature)? + END.len();
        let (block, rest) = left.split_at(end);
        keys.push(key_that_signed(namespace, bytes, block)?);
        left = rest;
    }
    if keys.is_empty() { Err(Refusal::NotASignature) } else { Ok(keys) }
}

fn key_that_signed(namespace: &str, bytes: &[u8], block: &str) -> Result<KeyData, Refusal> {
    let signature = decode(block)?;
    let key = signature.public_key().clone();
    if signature.namespace() != namespace {
        let found = signature.namespace().chars().take(64).collect();
        return Err(Refusal::Namespace { found, wanted: namespace.to_owned() });
    }
    let is_sound = signature.version() == 1
        && signature.reserved().is_empty()
        && signature.algorithm() == key.algorithm();
    if !is_sound {
        return Err(Refusal::NotASignature);
    }
    let fingerprint = super::fingerprint(&key);
    if key.algorithm() == Algorithm::SkEd25519 {
        // The signature of a security key is followed by its flags and a counter of four bytes.
        let flags = signature.signature_bytes().iter().rev().nth(4).copied().unwrap_or(0);
        if flags & USER_PRESENT == 0 {
            return Err(Refusal::NobodyPresent(fingerprint));
        }
    }
    PublicKey::from(key.clone())
        .verify(namespace, bytes, &signature)
        .map_err(|_| Refusal::WrongSignature(fingerprint))?;
    Ok(key)
}

/// Decodes one armoured block. It must be the very text that encoding gives: base64 leaves no room for variants.
fn decode(block: &str) -> Result<SshSig, Refusal> {
    if !block.starts_with(BEGIN) {
        return Err(Refusal::NotASignature);
    }
    let signature = SshSig::from_pem(block).map_err(|_| unsupported(block))?;
    if !matches!(signature.public_key().algorithm(), Algorithm::Ed25519 | Algorithm::SkEd25519) {
        return Err(unsupported(block));
    }
    let again = signature.to_pem(LineEnding::LF).map_err(|_| Refusal::NotASignature)?;
    if again.trim_end() == block.trim_end() { Ok(signature) } else { Err(Refusal::NotASignature) }
}

/// Why a block cannot be decoded, as far as it tells: the type of the key stands in its first bytes.
fn unsupported(block: &str) -> Refusal {
    let body: Vec<u8> = block.lines().skip(1).flat_map(str::bytes).take(96).collect();
    let bytes = decode_base64(&body);
    // "SSHSIG", version (4 bytes), length of the key (4 bytes), length of its type (4 bytes), its type.
    let kind = || {
        let length = u32::from_be_bytes(bytes.get(14..18)?.try_into().ok()?);
        let kind = bytes.get(18..18 + usize::try_from(length).ok()?)?;
        String::from_utf8(kind.to_vec()).ok().filter(|kind| kind.bytes().all(|byte| byte.is_ascii_graphic()))
    };
    match kind() {
        Some(kind) if kind.contains("-cert-v01@") => Refusal::Certificate,
        Some(kind) if kind != "ssh-ed25519" && kind != "sk-ssh-ed25519@openssh.com" => {
            Refusal::Algorithm(kind)
        }
        _ => Refusal::NotASignature,
    }
}

/// Decodes as much as is base64: for a message only.
fn decode_base64(text: &[u8]) -> Vec<u8> {
    let value = |byte: &u8| -> Option<u32> {
        Some(u32::from(match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        }))
    };
    let mut bytes = Vec::new();
    for group in text.chunks_exact(4) {
        let Some(values) = group.iter().map(value).collect::<Option<Vec<_>>>() else { break };
        let bits = values.iter().fold(0, |bits, value| bits << 6 | value);
        bytes.extend_from_slice(&bits.to_be_bytes()[1..]);
    }
    bytes
}

/// The signatures of a file that are good over `bytes`, each with its key; others are left out.
pub fn good_signatures(namespace: &str, bytes: &[u8], signatures: &[u8]) -> Vec<(KeyData, String)> {
    let text = std::str::from_utf8(signatures).unwrap_or_default();
    let blocks = text.split_inclusive(END);
    let good =
        blocks.filter_map(|block| Some((key_that_signed(namespace, bytes, block).ok()?, block.to_owned())));
    good.collect()
}
