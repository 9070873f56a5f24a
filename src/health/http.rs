//! The `http` kind of a check: what it says, and what of it cannot work.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::types::{is_port_good, path_of_url};

/// A web server answers a GET as expected. Redirections are answers, not followed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// `http://` or `https://`; `http+unix://` for a Unix socket.
    pub url: String,
    #[serde(default = "ok")]
    pub status: u16,
    /// A text that the first 64 KiB of the answer must contain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The `Host` header, where the application answers to its own name only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// The Unix socket that the server listens on; the URL then says host and path only.
    #[serde(default, alias = "socket", skip_serializing_if = "Option::is_none")]
    pub unix: Option<PathBuf>,
    /// Certificates (PEM) of the authorities that are trusted, in place of the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Our own certificate (PEM), and its private key if that is in the same file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// The private key (PEM) of our certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// Takes any certificate: for a server whose certificate nobody signed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
}

impl Http {
    /// The URL to ask, and the Unix socket if it is asked there; or what is wrong.
    pub(super) fn target(&self) -> Result<(String, Option<PathBuf>), String> {
        let wrong = |why: &str| Err(format!("`{}` {why}", self.url.escape_debug()));
        let (url, socket) = match socket_of(&self.url) {
            Some((socket, path)) => (format!("http://localhost{path}"), Some(socket)),
            None => (self.url.clone(), self.unix.clone()),
        };
        if url.contains(|letter: char| letter.is_whitespace() || letter.is_control()) {
            return wrong("has a blank: write it as `%20`");
        }
        let is_web = |scheme: &str| scheme == "http" || (scheme == "https" && socket.is_none());
        match url.parse::<ureq::http::Uri>() {
            Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => {
                if !uri.scheme_str().is_some_and(is_web) {
                    return wrong(
                        "is not a URL that begins with `http://` or `https://` (on a Unix socket `http://`)",
                    );
                }
                if !uri.authority().is_some_and(|authority| is_port_good(authority.as_str())) {
                    return wrong("has a port that cannot be: ports are numbers from 1 to 65535");
                }
            }
            _ => return wrong("is not a URL that begins with `http://` or `https://`"),
        }
        if socket.as_ref().is_some_and(|socket| !socket.is_absolute()) {
            return wrong("is asked on a Unix socket, whose path must be absolute");
        }
        Ok((url, socket))
    }

    /// All headers, the host among them.
    pub(super) fn all_headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let host = self.host.iter().map(|host| ("host", host.as_str()));
        host.chain(self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// What cannot work, in words.
    pub(super) fn flaw(&self) -> Option<String> {
        if let Err(why) = self.target() {
            return Some(why);
        }
        if self.unix.is_some() && socket_of(&self.url).is_some() {
            return Some("the Unix socket stands in `url` and in `unix`".to_owned());
        }
        for (name, value) in self.all_headers() {
            let is_good = name.parse::<ureq::http::HeaderName>().is_ok()
                && value.parse::<ureq::http::HeaderValue>().is_ok();
            if !is_good {
                return Some(format!("`{}` is not a header", name.escape_debug()));
            }
        }
        let hosts = self.all_headers().filter(|(name, _)| name.eq_ignore_ascii_case("host")).count();
        if hosts > 1 {
            return Some("`host` stands twice".to_owned());
        }
        let files = [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)];
        if let Some((name, _)) =
            files.iter().find(|(_, file)| file.as_ref().is_some_and(|file| !file.is_absolute()))
        {
            return Some(format!("`{name}` must be an absolute path"));
        }
        let is_tls = self.url.starts_with("https://");
        let wants_tls = self.insecure || files.iter().any(|(_, file)| file.is_some());
        if wants_tls && !is_tls {
            return Some(
                "`ca`, `cert`, `key` and `insecure` need a URL that begins with `https://`".to_owned(),
            );
        }
        if self.key.is_some() && self.cert.is_none() {
            return Some("`key` needs `cert`".to_owned());
        }
        (self.insecure && self.ca.is_some())
            .then(|| "`insecure` takes any certificate: `ca` has no use".to_owned())
    }
}

/// The socket and the path of a URL such as `http+unix://%2Frun%2Fapp.sock/up`, `http+unix:///run/app.sock/up` or
/// `http://unix:/run/app.sock:/up`.
fn socket_of(url: &str) -> Option<(PathBuf, String)> {
    let rest = ["http://unix:", "http+unix://", "unix://", "unix:"]
        .iter()
        .find_map(|begin| url.strip_prefix(begin))?;
    let or_root = |path: &str| if path.is_empty() { "/".to_owned() } else { path.to_owned() };
    if let Some((socket, path)) = rest.split_once(":/") {
        return Some((socket.into(), format!("/{path}")));
    }
    if !rest.starts_with('/') {
        let (socket, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        return Some((path_of_url(socket), or_root(path)));
    }
    // The socket's name ends where the path begins: people call it so.
    let end =
        [".sock/", ".socket/"].iter().find_map(|ending| rest.find(ending).map(|at| at + ending.len() - 1));
    let (socket, path) = rest.split_at(end.unwrap_or(rest.len()));
    Some((socket.into(), or_root(path)))
}

fn ok() -> u16 {
    200
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_named_as_people_name_them() {
        let split = |url: &str| socket_of(url).map(|(socket, path)| (socket.display().to_string(), path));
        let wanted = |path: &str| Some(("/run/a.sock".to_owned(), path.to_owned()));
        assert_eq!(split("http+unix:///run/a.sock/up"), wanted("/up"));
        assert_eq!(split("http+unix://%2Frun%2Fa.sock/up"), wanted("/up"));
        assert_eq!(split("http://unix:/run/a.sock:/up"), wanted("/up"));
        assert_eq!(split("unix:///run/a.sock"), wanted("/"));
        assert_eq!(split("http://unix/up"), None);
    }
}
