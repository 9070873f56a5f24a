//! Files of trusted keys, in OpenSSH's `allowed_signers` form.
//!
//! ```text
//! release@example namespaces="cutover-release",valid-before="20270101Z" ssh-ed25519 AAAA… comment
//! ssh-ed25519 AAAA… comment                                              a bare public key, as ssh-keygen writes it
//! ```
//! Read as ssh-keygen reads it, only stricter: an option that is not known, or a key that can't be used, is an error
//! rather than a line passed over. A key without `namespaces` may sign releases and channels.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, PublicKey};

use super::Namespace;

/// A key, and what it is trusted with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey {
    pub key: KeyData,
    /// The principals of its line, else its comment.
    pub name: String,
    /// Patterns of namespaces; without them, releases and channels.
    pub namespaces: Option<Vec<String>>,
    /// It counts from then on.
    pub valid_after: Option<Timestamp>,
    pub valid_before: Option<Timestamp>,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Bytes that are not UTF-8, or control characters.
    #[error("it has bytes that are not plain text")]
    NotText,
    /// There is no key on it.
    #[error("there is no public key on it")]
    NoKey,
    #[error("its public key can't be read")]
    BadKey,
    /// A key of another kind.
    #[error("keys of type `{0}` are not supported: use ssh-ed25519 or sk-ssh-ed25519@openssh.com")]
    Algorithm(String),
    /// A certificate, or an authority of certificates.
    #[error("certificates are not supported: name the plain key")]
    Certificate,
    /// A quote is not closed, or stands where it must not.
    #[error("a quotation mark is missing")]
    Quote,
    #[error("the option `{0}` is unknown: there are `namespaces`, `valid-after` and `valid-before`")]
    Option(String),
    /// The option is given twice.
    #[error("the option `{0}` is given twice")]
    Twice(String),
    /// The time can't be read.
    #[error("`{0}` is not a time such as `20260131Z` or `202601311200Z`")]
    Time(String),
    /// It would never be valid.
    #[error("`valid-before` must be later than `valid-after`")]
    NeverValid,
}

impl TrustedKey {
    /// Whether it may sign in this namespace.
    pub fn may_sign(&self, namespace: Namespace) -> bool {
        match &self.namespaces {
            Some(patterns) => matches_list(namespace.as_str(), patterns),
            None => matches!(namespace, Namespace::Release | Namespace::Channel),
        }
    }

    /// Whether it counts at this time. Both ends belong to the span, as with ssh-keygen.
    pub fn is_valid_at(&self, at: Timestamp) -> bool {
        self.valid_after.is_none_or(|from| at >= from) && self.valid_before.is_none_or(|until| at <= until)
    }

    /// The key's fingerprint, `SHA256:…`.
    pub fn fingerprint(&self) -> String {
        super::fingerprint(&self.key)
    }
}

/// Reads a file of keys. An error tells the line, from 1.
pub fn parse(bytes: &[u8]) -> Result<Vec<TrustedKey>, (usize, Problem)> {
    let mut keys = Vec::new();
    for (index, line) in lines(bytes) {
        let line = line.map_err(|problem| (index, problem))?;
        if !line.is_empty() && !line.starts_with('#') {
            keys.push(parse_line(line).map_err(|problem| (index, problem))?);
        }
    }
    Ok(keys)
}

/// The lines as text without the white space around, with their numbers from 1.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = (usize, Result<&str, Problem>)> {
    bytes.split(|byte| *byte == b'\n').enumerate().map(|(index, line)| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let is_plain =
            |text: &&str| !text.chars().any(|character| character.is_control() && character != '\t');
        let text = std::str::from_utf8(line).ok().filter(is_plain);
        (index + 1, text.map(str::trim).ok_or(Problem::NotText))
    })
}

fn parse_line(line: &str) -> Result<TrustedKey, Problem> {
    if is_bare_key(line) {
        let (key, comment) = parse_key(line)?;
        return Ok(TrustedKey {
            key,
            name: comment,
            namespaces: None,
            valid_after: None,
            valid_before: None,
        });
    }
    let (principals, rest) = word(line)?;
    let rest = rest.trim_start();
    let (options, key_text) = if is_key_type(first_word(rest)) {
        ("", rest)
    } else {
        word(rest).map(|(one, two)| (one, two.trim_start()))?
    };
    if !is_key_type(first_word(key_text)) {
        return Err(Problem::NoKey);
    }
    let (key, _) = parse_key(key_text)?;
    let name = principals.trim_matches('"').to_owned();
    let mut trusted = TrustedKey { key, name, namespaces: None, valid_after: None, valid_before: None };
    parse_options(options, &mut trusted)?;
    Ok(trusted)
}

/// The type and the body of a key, and the comment after it.
pub(super) fn parse_key(text: &str) -> Result<(KeyData, String), Problem> {
    let mut words = text.split_ascii_whitespace();
    let (kind, body) = words.next().zip(words.next()).ok_or(Problem::NoKey)?;
    if kind.ends_with("-cert-v01@openssh.com") {
        return Err(Problem::Certificate);
    }
    if !["ssh-ed25519", "sk-ssh-ed25519@openssh.com"].contains(&kind) {
        return Err(Problem::Algorithm(kind.to_owned()));
    }
    let key = PublicKey::from_openssh(&format!("{kind} {body}")).map_err(|_| Problem::BadKey)?;
    let key = key.key_data().clone();
    if !matches!(key.algorithm(), Algorithm::Ed25519 | Algorithm::SkEd25519) {
        return Err(Problem::BadKey);
    }
    Ok((key, words.collect::<Vec<_>>().join(" ")))
}

pub(super) fn is_key_type(word: &str) -> bool {
    ["ssh-", "sk-ssh-", "ecdsa-sha2-", "sk-ecdsa-"].iter().any(|prefix| word.starts_with(prefix))
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-@.".contains(&byte))
        && word != "ssh-"
}

/// Whether a line is a key without principals. Its body tells, since principals may look like a kind of key: `ssh-keygen`
/// takes `ssh-deploy ssh-ed25519 AAAA…` for a key of `ssh-deploy`.
fn is_bare_key(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let (kind, second) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let is_option = || second.contains('=') && !second.ends_with('=');
    is_key_type(kind) && !(is_key_type(second) || (is_option() && words.any(is_key_type)))
}

fn first_word(text: &str) -> &str {
    text.split_ascii_whitespace().next().unwrap_or_default()
}

/// Splits at the first white space outside quotation marks.
fn word(text: &str) -> Result<(&str, &str), Problem> {
    let mut is_quoted = false;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'"' => is_quoted = !is_quoted,
            b' ' | b'\t' if !is_quoted => return Ok(text.split_at(index)),
            _ => {}
        }
    }
    if is_quoted { Err(Problem::Quote) } else { Err(Problem::NoKey) }
}

fn parse_options(mut text: &str, trusted: &mut TrustedKey) -> Result<(), Problem> {
    while !text.is_empty() {
        let name_end = text.find(['=', ',']).unwrap_or(text.len());
        let (name, rest) = text.split_at(name_end);
        let name = name.to_ascii_lowercase();
        if name == "cert-authority" {
            return Err(Problem::Certificate);
        }
        if !["namespaces", "valid-after", "valid-before"].contains(&name.as_str()) {
            return Err(Problem::Option(name));
        }
        let value = rest.strip_prefix("=\"").ok_or(Problem::Quote)?;
        let (value, rest) = value.split_once('"').ok_or(Problem::Quote)?;
        set_option(&name, value, trusted)?;
        text = match rest.strip_prefix(',') {
            Some(next) if !next.is_empty() => next,
            Some(_) => return Err(Problem::Option(String::new())),
            None if rest.is_empty() => rest,
            None => return Err(Problem::Quote),
        };
    }
    match (trusted.valid_after, trusted.valid_before) {
        (Some(from), Some(until)) if until <= from => Err(Problem::NeverValid),
        _ => Ok(()),
    }
}

fn set_option(name: &str, value: &str, trusted: &mut TrustedKey) -> Result<(), Problem> {
    let is_twice = match name {
        "namespaces" => {
            let patterns = value.split(',').map(|pattern| pattern.trim().to_owned()).collect();
            trusted.namespaces.replace(patterns).is_some()
        }
        "valid-after" => trusted.valid_after.replace(parse_time(value)?).is_some(),
        _ => trusted.valid_before.replace(parse_time(value)?).is_some(),
    };
    if is_twice { Err(Problem::Twice(name.to_owned())) } else { Ok(()) }
}

/// `YYYYMMDD[HHMM[SS]]`, in local time unless `Z` follows.
fn parse_time(text: &str) -> Result<Timestamp, Problem> {
    let parse = || {
        let (digits, zone) = match text.strip_suffix(['Z', 'z']) {
            Some(digits) => (digits, TimeZone::UTC),
            None => (text, TimeZone::system()),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let full = match digits.len() {
            8 => format!("{digits}000000"),
            12 => format!("{digits}00"),
            14 => digits.to_owned(),
            _ => return None,
        };
        let moment = DateTime::strptime("%Y%m%d%H%M%S", full).ok()?;
        zone.to_timestamp(moment).ok()
    };
    parse().ok_or_else(|| Problem::Time(text.chars().take(40).collect()))
}

/// OpenSSH's lists of patterns: one must match, and none that begins with `!` may.
fn matches_list(text: &str, patterns: &[String]) -> bool {
    let is_denied = |pattern: &String| {
        pattern.strip_prefix('!').is_some_and(|denied| matches(text.as_bytes(), denied.as_bytes()))
    };
    !patterns.iter().any(is_denied)
        && patterns.iter().any(|pattern| matches(text.as_bytes(), pattern.as_bytes()))
}

/// `*` stands for any bytes, `?` for one. Takes time in proportion to the product of the lengths at most.
fn matches(text: &[u8], pattern: &[u8]) -> bool {
    let (mut at, mut place) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while at < text.len() {
        match pattern.get(place) {
            Some(b'*') => {
                star = Some((place, at));
                place += 1;
            }
            Some(byte) if *byte == b'?' || *byte == text[at] => {
                at += 1;
                place += 1;
            }
            _ => {
                let Some((star_place, star_at)) = star else { return false };
                star = Some((star_place, star_at + 1));
                at = star_at + 1;
                place = star_place + 1;
            }
        }
    }
    pattern[place..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBlpWAWL3YX4RkG0aFm7tqyUqsbP4hEnFLlnTNzJvTKf";

    fn one(line: &str) -> Result<TrustedKey, Problem> {
        let mut keys = parse(line.as_bytes()).map_err(|(line, problem)| {
            assert_eq!(line, 1);
            problem
        })?;
        assert_eq!(keys.len(), 1);
        Ok(keys.remove(0))
    }

    #[test]
    fn lines_are_read_as_ssh_keygen_reads_them() {
        let bare = one(&format!("{KEY} release key")).unwrap();
        assert_eq!(bare.name, "release key");
        assert!(bare.may_sign(Namespace::Release) && bare.may_sign(Namespace::Channel));
        assert!(!bare.may_sign(Namespace::Fleet));

        let plain = one(&format!("a@x,b@x {KEY}\r")).unwrap();
        let looks_like_a_kind = one(&format!("ssh-deploy {KEY}"));
        assert_eq!(looks_like_a_kind.unwrap().name, "ssh-deploy");
        let with_options = one(&format!("sk-ssh-team namespaces=\"cutover-release\" {KEY}"));
        assert_eq!(with_options.unwrap().name, "sk-ssh-team");
        assert_eq!(one(&format!("ssh-ed25519 {KEY}")).unwrap().name, "ssh-ed25519");
        assert_eq!((plain.name.as_str(), &plain.key), ("a@x,b@x", &bare.key));

        let full = one(&format!(
            "\"release team\"  namespaces=\"cutover-release,cutover-fleet\",Valid-After=\"20260101Z\",valid-before=\"202601020304Z\"\t{KEY} x"
        ))
        .unwrap();
        assert_eq!(full.name, "release team");
        assert!(full.may_sign(Namespace::Release) && full.may_sign(Namespace::Fleet));
        assert!(!full.may_sign(Namespace::Channel));
        for (at, valid) in [
            ("2025-12-31T23:59:59Z", false),
            ("2026-01-01T00:00:00Z", true),
            ("2026-01-02T03:04:00Z", true),
            ("2026-01-02T03:04:01Z", false),
        ] {
            assert_eq!(full.is_valid_at(at.parse().unwrap()), valid, "{at}");
        }
        let text = format!("# a comment\n\n{KEY}\n  \n x {KEY}\n");
        assert_eq!(parse(text.as_bytes()).unwrap().len(), 2);
    }

    #[test]
    fn patterns_of_namespaces_match_as_with_openssh() {
        for (patterns, matched) in [
            ("cutover-*", true),
            ("*", true),
            ("cutover-?elease", true),
            ("git,cutover-release", true),
            ("cutover-*,!cutover-release", false),
            ("cutover", false),
            ("*-channel", false),
            ("", false),
        ] {
            let key = one(&format!("x namespaces=\"{patterns}\" {KEY}")).unwrap();
            assert_eq!(key.may_sign(Namespace::Release), matched, "{patterns}");
        }
    }

    #[test]
    fn a_line_that_is_not_understood_is_an_error() {
        let key_end = KEY.split(' ').nth(1).unwrap();
        let cases = [
            (format!("x namespace=\"a\" {KEY}"), Problem::Option("namespace".into())),
            (format!("x cert-authority {KEY}"), Problem::Certificate),
            (format!("x cert-authority,namespaces=\"a\" {KEY}"), Problem::Certificate),
            (format!("x namespaces=\"a\",namespaces=\"b\" {KEY}"), Problem::Twice("namespaces".into())),
            (format!("x namespaces=a {KEY}"), Problem::Quote),
            (format!("x namespaces=\"a {KEY}"), Problem::Quote),
            (format!("x namespaces=\"a\", {KEY}"), Problem::Option(String::new())),
            (format!("x valid-before=\"2026\" {KEY}"), Problem::Time("2026".into())),
            (format!("x valid-before=\"20261301Z\" {KEY}"), Problem::Time("20261301Z".into())),
            (format!("x valid-after=\"20260102Z\",valid-before=\"20260101Z\" {KEY}"), Problem::NeverValid),
            ("x namespaces=\"a\"".into(), Problem::NoKey),
            ("ssh-ed25519".into(), Problem::NoKey),
            ("ssh-ed25519 AAAA".into(), Problem::BadKey),
            (KEY[..KEY.len() - 4].to_owned(), Problem::BadKey),
            (format!("sk-ssh-ed25519@openssh.com {key_end}"), Problem::BadKey),
            (format!("ssh-rsa {key_end}"), Problem::Algorithm("ssh-rsa".into())),
            (format!("ssh-ed25519-cert-v01@openssh.com {key_end}"), Problem::Certificate),
            (format!("x\0 {KEY}"), Problem::NotText),
        ];
        for (line, wanted) in cases {
            assert_eq!(one(&line).unwrap_err(), wanted, "{line}");
        }
    }
}
