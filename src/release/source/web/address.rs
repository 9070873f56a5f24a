//! Addresses of a web server, and where a redirection may lead.

use super::super::Error;
use crate::types::escaped;

/// `http://…` or `https://…`, without user, password and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    is_secure: bool,
    /// Host and port, in lower case.
    authority: String,
    /// Begins with `/`; may have a query.
    path: String,
}

impl Address {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |problem| Error::Address { address: without_secrets(text), problem };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no `https://`"))?;
        let is_secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(Error::Scheme(escaped(scheme.as_bytes()))),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.contains('@') {
            return Err(wrong("user and password belong into the file `[source] credentials`"));
        }
        if authority.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("it has no host, or characters that must be escaped"));
        }
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { is_secure, authority: authority.to_ascii_lowercase(), path })
    }

    /// The file `name` in this directory.
    pub fn file(&self, name: &str) -> Self {
        let directory = self.path.split('?').next().unwrap_or_default().trim_end_matches('/');
        Self { path: format!("{directory}/{name}"), ..self.clone() }
    }

    /// Where a redirection leads: absolute, or relative to this address. Never from `https` to anything else.
    pub fn redirected(&self, location: &str) -> Result<Self, Error> {
        let scheme = if self.is_secure { "https" } else { "http" };
        let has_scheme = location.split_once(':').is_some_and(|(scheme, _)| {
            !scheme.is_empty()
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        });
        let next = if has_scheme {
            Self::parse(location)?
        } else if location.starts_with("//") {
            Self::parse(&format!("{scheme}:{location}"))?
        } else if location.starts_with('/') {
            Self::parse(&format!("{scheme}://{}{location}", self.authority))?
        } else {
            let path = self.path.split('?').next().unwrap_or_default();
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            Self::parse(&format!("{scheme}://{}{directory}/{location}", self.authority))?
        };
        if self.is_secure && !next.is_secure {
            let problem = "it leads from https to http";
            return Err(Error::Address { address: next.place(), problem });
        }
        Ok(next)
    }

    /// Whether both are the same server, so that credentials may be sent.
    pub fn is_same_server(&self, other: &Self) -> bool {
        let port = if self.is_secure { ":443" } else { ":80" };
        let bare = |authority: &str| authority.strip_suffix(port).unwrap_or(authority).to_owned();
        self.is_secure == other.is_secure && bare(&self.authority) == bare(&other.authority)
    }

    /// The address as a request needs it.
    pub fn text(&self) -> String {
        format!("{}{}", self.server(), self.path)
    }

    /// The address as people may read it: a query may be a secret.
    pub fn place(&self) -> String {
        escaped(format!("{}{}", self.server(), self.path.split('?').next().unwrap_or_default()).as_bytes())
    }

    fn server(&self) -> String {
        format!("{}://{}", if self.is_secure { "https" } else { "http" }, self.authority)
    }
}

/// An address that could not be read, without what stands before an `@` and after a `?`.
fn without_secrets(text: &str) -> String {
    let text = text.split('?').next().unwrap_or_default();
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    escaped(format!("{scheme}://{rest}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirections_lead_where_they_may() {
        let from = Address::parse("https://a.example/x/shop?k=1").unwrap();
        for (location, wanted) in [
            ("https://b.example/y?s=1", "https://b.example/y?s=1"),
            ("//b.example/y", "https://b.example/y"),
            ("/y", "https://a.example/y"),
            ("y", "https://a.example/x/y"),
            ("HTTPS://A.example", "https://a.example/"),
        ] {
            assert_eq!(from.redirected(location).unwrap().text(), wanted);
        }
        for location in [
            "http://a.example/x",
            "file:///etc/passwd",
            "ftp://a/x",
            "https://u:p@b.example/",
            "https:///x",
            "https://a b/",
        ] {
            assert!(from.redirected(location).is_err(), "{location}");
        }
        assert_eq!(from.place(), "https://a.example/x/shop");
        assert_eq!(from.file("f").text(), "https://a.example/x/shop/f");
    }

    #[test]
    fn a_server_is_scheme_host_and_port() {
        let parse = |text| Address::parse(text).unwrap();
        let one = parse("https://a.example/x");
        for (other, same) in [
            ("https://A.example:443/y", true),
            ("https://a.example:444/y", false),
            ("http://a.example:443/y", false),
            ("https://b.example/x", false),
        ] {
            assert_eq!(one.is_same_server(&parse(other)), same, "{other}");
        }
    }

    #[test]
    fn passwords_stay_out_of_messages() {
        let error = Address::parse("https://me:secret@a.example/x?token=secret").unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}
