//! What a server is told of who asks: a file that only its owner can read.

use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::super::Error;
use super::super::directory::read_bounded;
use crate::sys::owned;
use crate::types::{base64, escaped_path, from_base64};

/// The longest file of credentials in bytes.
const BYTES_MAX: usize = 64 << 10;

/// Reads the file of credentials.
pub fn read(path: &str) -> Result<Vec<u8>, Error> {
    let path = Path::new(path);
    let none = || owned::Error::Not { path: path.to_owned(), wanted: "a file of credentials: there is none" };
    let file = owned::open(path)?.ok_or_else(none)?;
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
        None => Ok(basic(text)),
    }
}

/// The header `Authorization` for a user and a password.
pub fn basic(pair: &str) -> String {
    format!("Basic {}", base64(pair.as_bytes()))
}

/// Who we are for a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    /// `user:password`.
    Password(String),
    /// A token that the registry takes as it is.
    Token(String),
    /// A token for which others are given.
    Refresh(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Login(…)")
    }
}

/// The login for a registry: of the file that the settings name, else where docker and podman keep theirs.
pub fn login(host: &str, path: Option<&str>) -> Result<Option<Login>, Error> {
    if let Some(path) = path {
        let bytes = read(path)?;
        if bytes.starts_with(b"{") {
            return Ok(of_auth_file(&bytes, host));
        }
        let authorization = authorization(path)?;
        return Ok(match authorization.strip_prefix("Bearer ") {
            Some(token) => Some(Login::Token(token.to_owned())),
            None => String::from_utf8(bytes).ok().map(Login::Password),
        });
    }
    for path in auth_files() {
        // A file that is not there, or not ours, is one that nobody named.
        let Ok(Some(file)) = owned::open(&path) else { continue };
        let bytes = read_bounded(file, BYTES_MAX, &escaped_path(&path))?;
        if let Some(login) = of_auth_file(&bytes, host) {
            return Ok(Some(login));
        }
    }
    Ok(None)
}

/// Where docker and podman keep their logins.
fn auth_files() -> Vec<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = variable("HOME");
    let config = variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let candidates = [
        variable("REGISTRY_AUTH_FILE"),
        variable("XDG_RUNTIME_DIR").map(|path| path.join("containers/auth.json")),
        Some(format!("/run/containers/{}/auth.json", nix::unistd::getuid()).into()),
        config.map(|path| path.join("containers/auth.json")),
        variable("DOCKER_CONFIG").map(|path| path.join("config.json")),
        home.map(|path| path.join(".docker/config.json")),
    ];
    candidates.into_iter().flatten().collect()
}

/// The login for a registry in an `auth.json`.
fn of_auth_file(bytes: &[u8], host: &str) -> Option<Login> {
    #[derive(Deserialize)]
    struct File {
        #[serde(default)]
        auths: BTreeMap<String, Auth>,
    }
    #[derive(Deserialize)]
    struct Auth {
        auth: Option<String>,
        username: Option<String>,
        password: Option<String>,
        identitytoken: Option<String>,
        registrytoken: Option<String>,
    }
    let file: File = serde_json::from_slice(bytes).ok()?;
    let names = match host {
        "docker.io" => &["https://index.docker.io/v1/", "docker.io"][..],
        host => &[host][..],
    };
    let bare = |name: &str| {
        let name = name.trim_start_matches("https://").trim_start_matches("http://");
        name.split('/').next().unwrap_or_default().to_owned()
    };
    let found = names.iter().find_map(|name| file.auths.get(*name));
    let auth =
        found.or_else(|| file.auths.iter().find(|(name, _)| bare(name) == host).map(|(_, auth)| auth))?;
    let full = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = full(&auth.registrytoken) {
        return Some(Login::Token(token));
    }
    if let Some(token) = full(&auth.identitytoken) {
        return Some(Login::Refresh(token));
    }
    let pair = match (full(&auth.auth), &auth.username, &auth.password) {
        (Some(text), _, _) => String::from_utf8(from_base64(&text)?).ok()?,
        (None, Some(user), Some(password)) => format!("{user}:{password}"),
        _ => return None,
    };
    Some(Login::Password(pair.trim_end_matches('\0').to_owned()))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_logins_of_docker_and_podman_are_found() {
        let file = br#"{"auths": {
            "registry.example": {"auth": "bWU6c2VjcmV0"},
            "https://other.example/v1/": {"username": "you", "password": "word"},
            "https://index.docker.io/v1/": {"identitytoken": "T"},
            "empty.example": {}
        }, "credsStore": "x"}"#;
        let password = |pair: &str| Some(Login::Password(pair.to_owned()));
        assert_eq!(of_auth_file(file, "registry.example"), password("me:secret"));
        assert_eq!(of_auth_file(file, "other.example"), password("you:word"));
        assert_eq!(of_auth_file(file, "docker.io"), Some(Login::Refresh("T".to_owned())));
        assert_eq!(of_auth_file(file, "empty.example"), None);
        assert_eq!(of_auth_file(file, "nowhere.example"), None);
        assert_eq!(of_auth_file(b"{", "registry.example"), None);
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
