//! A registry of the Open Container Initiative: `oci://registry.example/team/shop`.
//!
//! ```text
//! tag channel-<name>   an artifact of the channel's file and its signature
//! tag <version>        an artifact of manifest, signature and archive; `+` and `~` stand as `_`
//! ```
//! An artifact is a list of blobs, each with its name as the annotation `org.opencontainers.image.title`: what `oras push`
//! makes of the same files is taken, and any program for artifacts can read ours. Blobs are read by ranges.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Deserialize;
use serde_json::json;
use ureq::http::{HeaderMap, Method, header};

use super::super::{Before, Error, Item, Of, Settings, Upload};
use super::Web;
use super::address::{self, Address};
use super::credentials::{self, Login};
use super::dialect::{Dialect, Sent};
use super::request::Header;
use crate::types::{Digest, escaped};

/// What the manifest of an artifact is.
const MANIFEST_KIND: &str = "application/vnd.oci.image.manifest.v1+json";

/// What is understood when an artifact is asked for.
const KINDS: &str =
    "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";

/// The longest manifest of an artifact, by the specification.
const ARTIFACT_BYTES_MAX: usize = 4 << 20;

/// The longest answer of a server of tokens.
const TOKEN_BYTES_MAX: usize = 256 << 10;

/// The annotation that names a file.
pub const TITLE: &str = "org.opencontainers.image.title";

/// A repository of a registry.
#[derive(Debug)]
pub struct Registry {
    /// `https://registry.example/v2/team/shop`.
    base: Address,
    place: String,
    login: Option<Login>,
    /// The value of `Authorization`, once the registry has asked who we are.
    authorization: Mutex<Option<String>>,
    /// The artifacts that were looked at: channel and signature are then of one moment.
    seen: Mutex<HashMap<String, Option<Artifact>>>,
}

/// What a registry says of a tag.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Artifact {
    #[serde(default)]
    layers: Vec<Blob>,
}

/// A blob of an artifact.
#[derive(Clone, Debug, Deserialize)]
pub struct Blob {
    digest: String,
    #[serde(default)]
    annotations: HashMap<String, serde_json::Value>,
}

impl Registry {
    /// The repository at this address.
    pub fn new(url: &str, settings: &Settings) -> Result<Self, Error> {
        let place =
            escaped(url.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/').as_bytes());
        let wrong = |problem| Error::Address { address: place.clone(), problem };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| wrong("it has no `oci://`"))?;
        let (host, repository) = rest.split_once('/').unwrap_or((rest, ""));
        let repository = repository.trim_end_matches('/');
        if !is_repository(repository) {
            return Err(wrong("after the registry's name comes that of a repository, in small letters"));
        }
        // As everybody does: a registry on this very machine has no certificate.
        let is_plain = scheme.eq_ignore_ascii_case("oci+http") || is_loopback(host);
        let server = if host == "docker.io" { "registry-1.docker.io" } else { host };
        let base =
            Address::parse(&format!("http{}://{server}/v2/{repository}", if is_plain { "" } else { "s" }))?;
        let login = credentials::login(host, settings.credentials.as_deref())?;
        Ok(Self { base, place, login, authorization: Mutex::default(), seen: Mutex::default() })
    }

    /// What a tag stands for. `None` when there is no such tag.
    fn artifact(&self, web: &Web, tag: &str) -> Result<Option<Artifact>, Error> {
        if let Some(seen) = lock(&self.seen).get(tag) {
            return Ok(seen.clone());
        }
        let address = self.base.below(&["manifests", tag]);
        let artifact = match web.read_small(&address, ARTIFACT_BYTES_MAX)? {
            None => None,
            Some(bytes) => {
                let what = address.place();
                let read = serde_json::from_slice(&bytes);
                Some(read.map_err(|_| Error::Answer { what, problem: "it is not an artifact of files" })?)
            }
        };
        lock(&self.seen).insert(tag.to_owned(), artifact.clone());
        Ok(artifact)
    }

    /// Gets a token from wherever the registry sends us.
    fn token(&self, web: &Web, challenge: &Challenge) -> Result<Option<String>, Error> {
        let realm = self.base.redirected(challenge.realm.as_bytes())?;
        let mut query: Vec<(&str, &str)> = Vec::new();
        query.extend(challenge.service.iter().map(|service| ("service", service.as_str())));
        query.extend(challenge.scope.iter().flat_map(|scope| scope.split(' ')).map(|scope| ("scope", scope)));
        let deadline = web.deadline(1);
        let response = match &self.login {
            Some(Login::Refresh(token)) => {
                query.extend([
                    ("grant_type", "refresh_token"),
                    ("client_id", "cutover"),
                    ("refresh_token", token),
                ]);
                let form = address::form(&query);
                let kind = (header::CONTENT_TYPE, "application/x-www-form-urlencoded".to_owned());
                web.send_text(&Method::POST, &realm, &[kind], &form, deadline)?
            }
            login => {
                let basic = match login {
                    Some(Login::Password(pair)) => Some((header::AUTHORIZATION, credentials::basic(pair))),
                    _ => None,
                };
                web.get(&realm.with_query(&query), basic.as_slice(), deadline)?
            }
        };
        let Some(bytes) = web.body_of(response, &realm, TOKEN_BYTES_MAX)? else { return Ok(None) };
        let answer: TokenAnswer = serde_json::from_slice(&bytes).unwrap_or_default();
        Ok(answer.token.or(answer.access_token).filter(|token| !token.is_empty()))
    }
}

/// What a server of tokens says.
#[derive(Default, Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Dialect for Registry {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn locate(&self, web: &Web, item: Item<'_>) -> Result<Option<Address>, Error> {
        let Some(artifact) = self.artifact(web, &tag_of(item))? else { return Ok(None) };
        let Some(blob) = artifact.blob(item.name) else { return Ok(None) };
        let digest: Digest = blob.digest.parse().map_err(|_| Error::Answer {
            what: format!("{}/{}", self.place, item.name),
            problem: "its digest is not one of SHA-256",
        })?;
        Ok(Some(self.base.below(&["blobs", &digest.to_string()])))
    }

    fn headers(&self, sent: &Sent<'_>) -> Result<Vec<Header>, Error> {
        // Not to the server of tokens, even if it is the same one: it is told who we are in its own way.
        let is_ours = sent.address.is_below(&self.base);
        let authorization = lock(&self.authorization).clone().filter(|_| is_ours);
        Ok(authorization.map(|value| (header::AUTHORIZATION, value)).into_iter().collect())
    }

    fn accepts(&self, address: &Address) -> Option<&'static str> {
        address.text().contains("/manifests/").then_some(KINDS)
    }

    fn introduce(&self, web: &Web, sent: &Sent<'_>, headers: &HeaderMap) -> Result<bool, Error> {
        if !sent.address.is_below(&self.base) {
            return Ok(false);
        }
        let challenges =
            headers.get_all(header::WWW_AUTHENTICATE).into_iter().filter_map(|value| value.to_str().ok());
        let challenges: Vec<Challenge> = challenges.filter_map(Challenge::read).collect();
        let wants = |kind: &str| challenges.iter().find(|one| one.kind == kind);
        let authorization = match (&self.login, wants("bearer"), wants("basic")) {
            (Some(Login::Token(token)), _, _) => Some(format!("Bearer {token}")),
            (_, Some(challenge), _) => self.token(web, challenge)?.map(|token| format!("Bearer {token}")),
            (Some(Login::Password(pair)), None, Some(_)) => Some(credentials::basic(pair)),
            _ => None,
        };
        let is_news = authorization.is_some() && *lock(&self.authorization) != authorization;
        *lock(&self.authorization) = authorization;
        Ok(is_news)
    }

    fn put(&self, web: &Web, of: Of<'_>, files: &[Upload<'_>]) -> Result<(), Error> {
        let Some(last) = files.last() else { return Ok(()) };
        let item = Item { of, name: last.name };
        self.check_tag(web, item, last.before)?;
        let empty = b"{}".to_vec();
        let config = Upload { name: "", content: &empty, sha256: Digest::of(&empty), before: Before::Any };
        for file in files.iter().chain([&config]) {
            self.put_blob(web, file)?;
        }
        // Registries know no condition for a tag: it is looked at just before.
        self.check_tag(web, item, last.before)?;
        let artifact = made_of(of, files, &config);
        let bytes = serde_json::to_vec(&artifact).unwrap_or_default();
        let upload = Upload { name: "", sha256: Digest::of(&bytes), content: &bytes, before: Before::Any };
        let kind = (header::CONTENT_TYPE, MANIFEST_KIND.to_owned());
        let put =
            web.put_file(&Method::PUT, &self.base.below(&["manifests", &tag_of(item)]), &[kind], &upload);
        lock(&self.seen).clear();
        put
    }

    fn keeps_releases_apart(&self) -> bool {
        true
    }

    fn is_replaced_in_place(&self) -> bool {
        false
    }
}

impl Registry {
    /// Looks at what would be replaced. Several names lead to one tag: what is there must be of this very file.
    fn check_tag(&self, web: &Web, item: Item<'_>, before: Before) -> Result<(), Error> {
        let tag = tag_of(item);
        let occupied = |by: String| {
            let (what, new) =
                (format!("{}:{tag}", self.place), format!("`{}`", escaped(item.name.as_bytes())));
            Err(Error::Occupied { what, by, new })
        };
        if let (Of::Release(_), Some(channel)) = (item.of, tag.strip_prefix("channel-")) {
            return occupied(format!("the tag of channel `{}`", escaped(channel.as_bytes())));
        }
        lock(&self.seen).clear();
        let there = self.artifact(web, &tag)?;
        let blob = there.as_ref().and_then(|artifact| artifact.blob(item.name));
        if let (Some(there), None) = (&there, blob) {
            let names: Vec<_> = there.layers.iter().filter_map(Blob::title).map(str::to_owned).collect();
            return occupied(match names.is_empty() {
                true => "another artifact".to_owned(),
                false => format!("that of `{}`", escaped(names.join(", ").as_bytes())),
            });
        }
        before.check(blob.and_then(|blob| blob.digest.parse().ok()), || self.place.clone())
    }

    /// Brings one blob, if it is not there.
    fn put_blob(&self, web: &Web, file: &Upload<'_>) -> Result<(), Error> {
        let digest = file.sha256.to_string();
        let deadline = web.deadline(1);
        let there = web.send(&Method::HEAD, &self.base.below(&["blobs", &digest]), &[], None, deadline)?;
        if there.status().is_success() {
            return Ok(());
        }
        let uploads = self.base.below(&["blobs", "uploads", ""]);
        let begun = web.send_text(&Method::POST, &uploads, &[], "", deadline)?;
        let location = super::text_of(begun.headers(), header::LOCATION);
        let Some(location) = location.filter(|_| begun.status().is_success()) else {
            return Err(super::status(&uploads, &begun));
        };
        let address = uploads.redirected(location.as_bytes())?.with_query(&[("digest", &digest)]);
        let kind = (header::CONTENT_TYPE, "application/octet-stream".to_owned());
        web.put_file(&Method::PUT, &address, &[kind], file)
    }
}

/// The manifest of an artifact of these files.
fn made_of(of: Of<'_>, files: &[Upload<'_>], config: &Upload<'_>) -> serde_json::Value {
    let blob = |kind: &str, file: &Upload<'_>| {
        let mut blob = json!({
            "mediaType": kind, "digest": file.sha256.to_string(), "size": file.content.size(),
        });
        if !file.name.is_empty() {
            blob["annotations"] = json!({TITLE: file.name});
        }
        blob
    };
    let layers: Vec<_> = files.iter().map(|file| blob(kind_of(file.name), file)).collect();
    json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_KIND,
        "artifactType": match of {
            Of::Channel(_) => "application/vnd.cutover.channel.v1",
            Of::Release(_) => "application/vnd.cutover.release.v1",
        },
        "config": blob("application/vnd.oci.empty.v1+json", config),
        "layers": layers,
    })
}

/// The media type of a file.
fn kind_of(name: &str) -> &'static str {
    const KINDS: [(&str, &str); 6] = [
        (".manifest", "application/vnd.cutover.manifest.v1"),
        (".sig", "application/vnd.cutover.signature.v1"),
        (".channel", "application/vnd.cutover.channel.v1"),
        (".tar.zst", "application/vnd.cutover.archive.v1.tar+zstd"),
        (".tar.gz", "application/vnd.cutover.archive.v1.tar+gzip"),
        (".tar", "application/vnd.cutover.archive.v1.tar"),
    ];
    let known = KINDS.iter().find(|(ending, _)| name.ends_with(ending));
    known.map_or("application/octet-stream", |(_, kind)| kind)
}

impl Artifact {
    /// The blob of a file.
    fn blob(&self, name: &str) -> Option<&Blob> {
        self.layers.iter().find(|blob| blob.title() == Some(name))
    }
}

impl Blob {
    /// The name of the file.
    fn title(&self) -> Option<&str> {
        self.annotations.get(TITLE)?.as_str()
    }
}

/// The tag that a file's artifact has.
pub fn tag_of(item: Item<'_>) -> String {
    item.release().replace(['+', '~'], "_")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another thread leaves a value that was whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_loopback(host: &str) -> bool {
    let name = host.strip_prefix('[').map_or_else(
        || host.split(':').next().unwrap_or_default(),
        |rest| rest.split(']').next().unwrap_or_default(),
    );
    name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

fn is_repository(name: &str) -> bool {
    let is_part = |part: &str| {
        let bytes = part.as_bytes();
        let is_letter = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        bytes.first().is_some_and(is_letter)
            && bytes.last().is_some_and(is_letter)
            && bytes.iter().all(|byte| is_letter(byte) || b"._-".contains(byte))
    };
    name.len() <= 255 && name.split('/').all(is_part)
}

/// How a registry wants to learn who asks: `Bearer realm="…",service="…",scope="…"`.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    kind: String,
    realm: String,
    service: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    fn read(text: &str) -> Option<Self> {
        let (kind, mut rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let mut values: HashMap<String, String> = HashMap::new();
        while let Some((name, after)) = rest.split_once('=') {
            let name = name.trim_matches([' ', ',']).to_ascii_lowercase();
            let value;
            (value, rest) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.split_once(',').unwrap_or((after, "")),
            };
            values.insert(name, value.trim().to_owned());
        }
        Some(Self {
            kind: kind.to_ascii_lowercase(),
            realm: values.remove("realm").unwrap_or_default(),
            service: values.remove("service"),
            scope: values.remove("scope"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Of;
    use super::*;

    #[test]
    fn a_repository_is_found_by_its_address() {
        for (url, wanted) in [
            ("oci://registry.example/team/shop", Some("https://registry.example/v2/team/shop")),
            ("oci://registry.example:5000/shop/", Some("https://registry.example:5000/v2/shop")),
            ("oci://localhost:5000/shop", Some("http://localhost:5000/v2/shop")),
            ("oci://127.0.0.1:5000/shop", Some("http://127.0.0.1:5000/v2/shop")),
            ("oci://[::1]:5000/shop", Some("http://[::1]:5000/v2/shop")),
            ("oci+http://registry.example/shop", Some("http://registry.example/v2/shop")),
            ("oci://docker.io/team/shop", Some("https://registry-1.docker.io/v2/team/shop")),
            ("oci://registry.example", None),
            ("oci://registry.example/Team/shop", None),
            ("oci://registry.example/team//shop", None),
            ("oci://registry.example/../shop", None),
            ("oci://me:secret@registry.example/shop", None),
        ] {
            let registry = Registry::new(url, &Settings::default()).ok();
            assert_eq!(registry.map(|registry| registry.base.text()).as_deref(), wanted, "{url}");
        }
    }

    #[test]
    fn a_tag_has_no_plus() {
        let item = Item { of: Of::Release("1.0+build~7"), name: "x" };
        assert_eq!(tag_of(item), "1.0_build_7");
        assert_eq!(tag_of(Item { of: Of::Channel("stable"), name: "x" }), "channel-stable");
    }

    #[test]
    fn a_challenge_is_read() {
        let text = r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let challenge = Challenge::read(text).unwrap();
        assert_eq!(challenge.kind, "bearer");
        assert_eq!(challenge.realm, "https://auth.example/token");
        assert_eq!(challenge.service.as_deref(), Some("registry.example"));
        assert_eq!(challenge.scope.as_deref(), Some("repository:a/b:pull,push"));
        let challenge = Challenge::read("Basic realm=simple, charset=\"UTF-8\"").unwrap();
        assert_eq!((challenge.kind.as_str(), challenge.realm.as_str()), ("basic", "simple"));
        for text in ["", "Bearer", "Bearer realm=\"", "Bearer =,=,"] {
            drop(Challenge::read(text));
        }
    }
}
