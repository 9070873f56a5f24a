//! What a server is told of who asks: a file that only its owner can read.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::super::Error;
use super::super::directory::read_bounded;
use crate::sys::owned;
use crate::types::escaped_path;

/// The longest file of credentials in bytes.
const BYTES_MAX: usize = 64 << 10;

/// Reads the file of credentials.
pub fn read(path: &str) -> Result<Vec<u8>, Error> {
    let path = Path::new(path);
    let file = owned::open(path)?.ok_or_else(|| Error::Missing(escaped_path(path)))?;
    let unreadable = |source| Error::Read { what: escaped_path(path), source };
    let mode = file.metadata().map_err(unreadable)?.mode();
    if mode & 0o077 != 0 {
        let wanted = "private: run `chmod 600` on it";
        return Err(owned::Error::Not { path: path.to_owned(), wanted }.into());
    }
    Ok(read_bounded(file, BYTES_MAX, &escaped_path(path))?.trim_ascii().to_vec())
}

/// The header `Authorization` of a web server: `user:password`, or a token alone.
pub fn authorization(path: &str) -> Result<String, Error> {
    let bytes = read(path)?;
    let wanted = "`user:password`, or a token";
    let wrong = || owned::Error::Not { path: path.into(), wanted };
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong())?;
    if text.is_empty() || text.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(wrong().into());
    }
    let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
    let token = match first.eq_ignore_ascii_case("bearer") {
        true => Some(rest.trim()),
        false => (!text.contains(':')).then_some(text),
    };
    match token {
        Some(token) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(format!("Bearer {token}"))
        }
        Some(_) => Err(wrong().into()),
        None => Ok(format!("Basic {}", base64(text.as_bytes()))),
    }
}

/// Base64 of RFC 4648, with padding.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits =
            group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = (bits >> (18 - 6 * place)) & 63;
            text.push(if place <= group.len() { char::from(DIGITS[digit as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (bytes, text) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn a_file_holds_a_password_or_a_token() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("credentials");
        let mut file = std::fs::File::create(&path).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut said = |text: &str| {
            file.set_len(0).unwrap();
            std::io::Seek::rewind(&mut file).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            authorization(path.to_str().unwrap()).ok()
        };
        assert_eq!(said("me:secret\n").as_deref(), Some("Basic bWU6c2VjcmV0"));
        assert_eq!(said("me:pass word\n").as_deref(), Some("Basic bWU6cGFzcyB3b3Jk"));
        assert_eq!(said("ghp_1234\n").as_deref(), Some("Bearer ghp_1234"));
        assert_eq!(said("Bearer a.b-c==\n").as_deref(), Some("Bearer a.b-c=="));
        for text in ["", "\n", "bearer", "two words", "me:se\ncret"] {
            assert_eq!(said(text), None, "{text:?}");
        }
    }
}
