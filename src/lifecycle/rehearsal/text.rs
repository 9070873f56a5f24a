//! Unit files as text: how they are read, and how names and paths are written into them.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// What a unit file says, as (section, key, value): comments are left out, lines that go on are joined.
pub fn assignments(text: &str) -> Vec<(String, String, String)> {
    let (mut section, mut found, mut begun) = (String::new(), Vec::new(), String::new());
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.starts_with(['#', ';']) {
            continue;
        }
        let (part, goes_on) = match trimmed.strip_suffix('\\') {
            Some(part) => (part, true),
            None => (trimmed, false),
        };
        begun.push_str(part);
        if goes_on {
            begun.push(' ');
            continue;
        }
        let whole = std::mem::take(&mut begun);
        if let Some(name) = whole.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.clone_into(&mut section);
        } else if let Some((key, value)) = whole.split_once('=') {
            found.push((section.clone(), key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    found
}

/// The value with the specifiers that stand for the unit's own name (systemd.unit(5)): in the rehearsal's unit they would
/// be others.
pub fn with_names(value: &str, unit: &str) -> String {
    let (stem, _) = unit.rsplit_once('.').unwrap_or((unit, ""));
    let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
    let last = prefix.rsplit('-').next().unwrap_or(prefix);
    let mut text = String::new();
    let mut characters = value.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            text.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => text.push_str(unit),
            Some('N') => text.push_str(stem),
            Some('p') => text.push_str(prefix),
            Some('P') => text.push_str(&unescaped(prefix)),
            Some('i') => text.push_str(instance),
            Some('I') => text.push_str(&unescaped(instance)),
            Some('j') => text.push_str(last),
            Some('J') => text.push_str(&unescaped(last)),
            Some(other) => {
                text.push('%');
                text.push(other);
            }
            None => text.push('%'),
        }
    }
    text
}

/// A part of a unit's name as it was before it was escaped (systemd-escape(1)).
fn unescaped(name: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), name.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        let code = after.strip_prefix(b"x").filter(|_| first == b'\\').and_then(|code| code.get(..2));
        let code = code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match (code, first) {
            (Some(byte), _) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            (None, first) => {
                bytes.push(if first == b'-' { b'/' } else { first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A name as a part of a unit's name: `-` and all that units' names do not have become `\xNN` (systemd-escape(1)).
pub fn escaped_name(name: &str) -> String {
    let mut text = String::new();
    for (position, byte) in name.bytes().enumerate() {
        let is_plain = byte.is_ascii_alphanumeric() || byte == b'_' || (byte == b'.' && position > 0);
        if is_plain {
            text.push(char::from(byte));
        } else {
            // To write to a text never fails.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A path as a word in a unit file: blanks, colons and quotes are escaped, and `%` is no specifier.
pub fn word(path: &Path) -> String {
    let mut text = String::new();
    for character in path.to_string_lossy().chars() {
        match character {
            '%' => text.push_str("%%"),
            '\\' | '"' | '\'' | ':' | ' ' | '\t' => {
                text.push('\\');
                text.push(character);
            }
            other => text.push(other),
        }
    }
    text
}

/// A text as one quoted word in a unit file.
pub fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('\n', "\\n");
    format!("\"{text}\"")
}

/// Whether a path can be said in a unit file.
pub fn can_be_said(path: &Path) -> bool {
    path.to_str().is_some_and(|text| !text.contains(|c: char| c.is_control()))
}

/// The files that systemd reads for a unit: fragment first, then drop-ins; of those drop-ins that every service has
/// (`service.d`) systemd reads them for the rehearsal's unit, too.
pub fn files_of(fragment: &str, drop_ins: &str) -> Vec<PathBuf> {
    let own = |path: &&Path| {
        path.parent()
            .and_then(Path::file_name)
            .is_none_or(|folder| folder != "service.d" && folder != "socket.d")
    };
    let fragment = Some(Path::new(fragment)).filter(|path| path.is_absolute());
    fragment
        .into_iter()
        .chain(drop_ins.split_whitespace().map(Path::new).filter(own))
        .map(Path::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_escaped_as_systemd_does() {
        assert_eq!(escaped_name("1.2-rc+1"), "1.2\\x2drc\\x2b1");
        assert_eq!(unescaped(&escaped_name("1.2-rc~1")), "1.2-rc~1");
    }

    #[test]
    fn paths_are_words() {
        assert_eq!(word(Path::new("/a b/50%:c")), "/a\\ b/50%%\\:c");
        assert!(!can_be_said(Path::new("/a\nb")));
        assert_eq!(quoted("say \"50%\""), "\"say \\\"50%%\\\"\"");
        let files = files_of(
            "/lib/a.service",
            "/etc/systemd/system/service.d/x.conf /etc/systemd/system/a.service.d/y.conf",
        );
        assert_eq!(files, [Path::new("/lib/a.service"), Path::new("/etc/systemd/system/a.service.d/y.conf")]);
    }
}
