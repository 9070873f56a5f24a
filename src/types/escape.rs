//! Names from archives, hooks and shared storage, made safe to print.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// The bytes as text: control characters and invalid UTF-8 are escaped, and long texts are cut at 512 characters.
///
/// A hostile name can then neither move a terminal's cursor nor fake a line of the journal.
pub fn escaped(bytes: &[u8]) -> String {
    const CHARACTERS_MAX: usize = 512;
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || is_invisible(character) {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
        if text.len() > 4 * CHARACTERS_MAX {
            break;
        }
    }
    if text.chars().count() > CHARACTERS_MAX {
        text = text.chars().take(CHARACTERS_MAX).collect();
        text.push('…');
    }
    text
}

/// A path as text, escaped as by [`escaped`].
pub fn escaped_path(path: &Path) -> String {
    escaped(path.as_os_str().as_bytes())
}

/// Whether a URL's host and port (`a:80`, `[::1]:80`, `a`) have no port, or one that can be.
pub fn is_port_good(authority: &str) -> bool {
    let behind = authority.rsplit_once(']').map_or(authority, |(_, behind)| behind);
    behind.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok_and(|port| port != 0))
}

/// The path that a URL writes with `%20` and the like.
pub fn path_of_url(text: &str) -> PathBuf {
    OsString::from_vec(bytes_of_url(text)).into()
}

/// The bytes that a part of a URL writes with `%20` and the like. A `%` that begins no byte stands for itself.
pub fn bytes_of_url(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits =
            after.get(..2).filter(|digits| *first == b'%' && digits.iter().all(u8::is_ascii_hexdigit));
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    bytes
}

/// Marks that change the direction of a text, and other characters without a width.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_writes_any_path() {
        for (text, path) in [
            ("/run/app.sock", "/run/app.sock"),
            ("%2Frun%2fmy%20app.sock", "/run/my app.sock"),
            ("/a%25b/n%c3%a9", "/a%b/né"),
            ("/100%/%zz/%2", "/100%/%zz/%2"),
        ] {
            assert_eq!(path_of_url(text), Path::new(path), "{text}");
        }
    }

    #[test]
    fn control_characters_never_reach_a_terminal() {
        assert_eq!(escaped(b"a\x1b[2Jb\n\xff"), "a\\u{1b}[2Jb\\n\\xff");
        assert_eq!(escaped("né".as_bytes()), "né");
        assert_eq!(escaped("\u{202e}x".as_bytes()), "\\u{202e}x");
        assert_eq!(escaped(&[b'a'; 9000]).chars().count(), 513);
    }
}
