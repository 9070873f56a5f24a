//! Addresses of a web server, and where a redirection may lead.

use super::super::{Error, Item};
use crate::types::{escaped, is_port_good};

/// What may stand in the address of a source.
const RELEASE: &str = "{release}";
const FILE: &str = "{file}";

/// `http://…` or `https://…`, without user, password and fragment.
///
/// That of a source is a directory, or a template such as `https://forge.example/shop/download/{release}/{file}`. What
/// stands after a `?` (a token, as a rule) is sent with every file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    is_secure: bool,
    /// Host and port, in lower case.
    authority: String,
    /// Begins with `/`; may have a query.
    path: String,
}

impl Address {
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
        if !is_port_good(authority) {
            return Err(wrong("its port cannot be: ports are numbers from 1 to 65535"));
        }
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { is_secure, authority: authority.to_ascii_lowercase(), path })
    }

    /// The address of a source: a directory or a template.
    pub fn of_source(text: &str) -> Result<Self, Error> {
        let address = Self::parse(text)?;
        let rest = address.path.replace(RELEASE, "").replace(FILE, "");
        if rest.contains(['{', '}']) || address.authority.contains(['{', '}']) {
            let problem = "only `{release}` and `{file}` can stand in braces, and not in the host's name";
            return Err(Error::Address { address: without_secrets(text), problem });
        }
        Ok(address)
    }

    /// Whether the template has a place for the release.
    pub fn has_place_of_release(&self) -> bool {
        self.path.contains(RELEASE)
    }

    /// A file of this source.
    pub fn file(&self, item: Item<'_>) -> Self {
        let (path, query) = match self.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.path.as_str(), None),
        };
        let mut path = match self.path.contains(FILE) {
            true => path.to_owned(),
            false => format!("{}/{FILE}", path.trim_end_matches('/')),
        };
        path.extend(query.iter().flat_map(|query| ["?", query]));
        let path = path.replace(RELEASE, &quoted(&item.release())).replace(FILE, &quoted(item.name));
        Self { path, ..self.clone() }
    }

    /// What lies below this directory; a query stays.
    pub fn below(&self, names: &[&str]) -> Self {
        let (path, query) = self.path_and_query();
        let mut path = names.iter().fold(path.trim_end_matches('/').to_owned(), |path, name| {
            // A digest keeps its colon: some registries know it by that only.
            path + "/" + &quoted(name).replace("%3A", ":")
        });
        if !query.is_empty() {
            path = format!("{path}?{query}");
        }
        Self { path, ..self.clone() }
    }

    /// The same with this query, which is written as it must be.
    pub fn with_raw_query(&self, query: &str) -> Result<Self, Error> {
        Self::parse(&format!("{}?{query}", self.text()))
    }

    /// The same with a query, after whatever it has of one.
    pub fn with_query(&self, pairs: &[(&str, &str)]) -> Self {
        let query = form(pairs);
        let joint = match (query.is_empty(), self.path.contains('?')) {
            (true, _) => "",
            (false, true) => "&",
            (false, false) => "?",
        };
        Self { path: format!("{}{joint}{query}", self.path), ..self.clone() }
    }

    /// Where a redirection leads: absolute, or relative to this address, as RFC 3986 has it. Never from `https` to anything else. What servers
    /// forget to escape is escaped, as browsers do.
    pub fn redirected(&self, location: &[u8]) -> Result<Self, Error> {
        let location = escape_rest(location);
        let scheme = if self.is_secure { "https" } else { "http" };
        let has_scheme = location.split_once(':').is_some_and(|(scheme, _)| {
            !scheme.is_empty()
                && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        });
        let next = if has_scheme {
            Self::parse(&location)?
        } else if location.starts_with("//") {
            Self::parse(&format!("{scheme}:{location}"))?
        } else if location.starts_with('/') {
            Self::parse(&format!("{scheme}://{}{location}", self.authority))?
        } else {
            let path = self.path.split('?').next().unwrap_or_default();
            if location.starts_with('?') {
                return Self::parse(&format!("{scheme}://{}{path}{location}", self.authority));
            }
            let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
            Self::parse(&format!("{scheme}://{}{directory}/{location}", self.authority))?
        };
        let next = Self { path: without_dots(&next.path), ..next };
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

    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// What follows the host, in two parts.
    pub fn path_and_query(&self) -> (&str, &str) {
        self.path.split_once('?').unwrap_or((&self.path, ""))
    }

    /// Whether it is on the same server, and beneath that path.
    pub fn is_below(&self, directory: &Self) -> bool {
        let rest = self.path.strip_prefix(directory.path.trim_end_matches('/'));
        self.is_same_server(directory) && rest.is_some_and(|rest| rest.starts_with('/'))
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

/// A path whose `.` and `..` are resolved (RFC 3986, 5.2.4): servers refuse one that has any. A query stays.
fn without_dots(path_and_query: &str) -> String {
    let (path, query) = match path_and_query.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path_and_query, None),
    };
    let mut names = Vec::new();
    let mut rest = path.strip_prefix('/').unwrap_or(path).split('/').peekable();
    while let Some(name) = rest.next() {
        let is_last = rest.peek().is_none();
        match name {
            "." => {}
            ".." => drop(names.pop()),
            name => {
                names.push(name);
                continue;
            }
        }
        // A directory ends with a slash.
        if is_last {
            names.push("");
        }
    }
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    format!("/{}{query}", names.join("/"))
}

/// Pairs as they stand in a query or a form.
pub fn form(pairs: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={}", quoted(value))).collect();
    pairs.join("&")
}

/// A name as it stands in a path: some servers (S3) take a bare `+` for a blank.
fn quoted(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// An address in which only what may stand in one is left.
fn escape_rest(bytes: &[u8]) -> String {
    let escaped = |byte: &u8| match byte.is_ascii_graphic() {
        true => char::from(*byte).to_string(),
        false => format!("%{byte:02X}"),
    };
    bytes.trim_ascii().iter().map(escaped).collect()
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
    use super::super::super::Of;
    use super::*;

    #[test]
    fn redirections_lead_where_they_may() {
        let from = Address::parse("https://a.example/x/shop?k=1").unwrap();
        for (location, wanted) in [
            ("https://b.example/y?s=1", "https://b.example/y?s=1"),
            ("//b.example/y", "https://b.example/y"),
            ("/y", "https://a.example/y"),
            ("y", "https://a.example/x/y"),
            ("?s=2", "https://a.example/x/shop?s=2"),
            ("/y?name=a b.tar", "https://a.example/y?name=a%20b.tar"),
            ("/y?name=ü", "https://a.example/y?name=%C3%BC"),
            ("HTTPS://A.example", "https://a.example/"),
            ("../y", "https://a.example/y"),
            ("./y", "https://a.example/x/y"),
            ("../../../y/./z?a=/../b", "https://a.example/y/z?a=/../b"),
            ("../y/..", "https://a.example/"),
            ("/y/../z/.", "https://a.example/z/"),
            ("//b.example/y/../z//w", "https://b.example/z//w"),
            ("https://b.example/y/..z/../", "https://b.example/y/"),
        ] {
            assert_eq!(from.redirected(location.as_bytes()).unwrap().text(), wanted);
        }
        for location in
            ["http://a.example/x", "file:///etc/passwd", "ftp://a/x", "https://u:p@b.example/", "https:///x"]
        {
            assert!(from.redirected(location.as_bytes()).is_err(), "{location}");
        }
        assert_eq!(from.place(), "https://a.example/x/shop");
    }

    #[test]
    fn a_source_is_a_directory_or_a_template() {
        let release = Item { of: Of::Release("1.0+b7"), name: "shop-1.0+b7.tar" };
        let channel = Item { of: Of::Channel("stable"), name: "stable.channel" };
        for (url, wanted) in [
            (
                "https://a.example/x/shop",
                ["https://a.example/x/shop/shop-1.0%2Bb7.tar", "https://a.example/x/shop/stable.channel"],
            ),
            ("http://a.example", ["http://a.example/shop-1.0%2Bb7.tar", "http://a.example/stable.channel"]),
            (
                "https://a.example/x/?sv=T%2Fx&e=1",
                [
                    "https://a.example/x/shop-1.0%2Bb7.tar?sv=T%2Fx&e=1",
                    "https://a.example/x/stable.channel?sv=T%2Fx&e=1",
                ],
            ),
            (
                "https://a.example/download/{release}/{file}",
                [
                    "https://a.example/download/1.0%2Bb7/shop-1.0%2Bb7.tar",
                    "https://a.example/download/channel-stable/stable.channel",
                ],
            ),
            (
                "https://a.example/v{release}",
                [
                    "https://a.example/v1.0%2Bb7/shop-1.0%2Bb7.tar",
                    "https://a.example/vchannel-stable/stable.channel",
                ],
            ),
            (
                "https://a.example/get?file={file}",
                ["https://a.example/get?file=shop-1.0%2Bb7.tar", "https://a.example/get?file=stable.channel"],
            ),
        ] {
            let address = Address::of_source(url).unwrap();
            assert_eq!([address.file(release).text(), address.file(channel).text()], wanted, "{url}");
        }
        for url in [
            "https://a.example/{tag}/{file}",
            "https://{release}.example/{file}",
            "https://a.example/{",
            "https://a.example:99999/",
            "http://[::1]:x/",
        ] {
            assert!(Address::of_source(url).is_err(), "{url}");
        }
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
