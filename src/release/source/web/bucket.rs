//! An object store that speaks S3: `s3://bucket/prefix`, `gs://bucket/prefix`.
//!
//! Requests are signed (AWS Signature Version 4), with the SHA-256 of what is sent: the store refuses what came damaged.
//! Keys come from `[source] credentials`, else from the environment (`AWS_ACCESS_KEY_ID`, …), else from the machine that
//! the node runs on; without any, nothing is signed, which suffices for a public bucket.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use ureq::http::{HeaderMap, HeaderName, Method, header};

use super::super::{Error, Item, Settings};
use super::address::Address;
use super::dialect::{Dialect, Sent};
use super::request::Header;
use super::{Web, credentials};
use crate::sys::owned;
use crate::types::{Digest, escaped};

/// How long a machine of a cloud may take to say who it is.
const MACHINE_TIMEOUT: Duration = Duration::from_secs(2);

/// The longest answer of it.
const MACHINE_BYTES_MAX: usize = 64 << 10;

/// Keys that were lent are asked for anew so long before they end.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// A place in a bucket.
#[derive(Debug)]
pub struct Bucket {
    base: Address,
    place: String,
    region: String,
    is_google: bool,
    keys: Mutex<Option<Keys>>,
}

#[derive(Clone)]
struct Keys {
    id: String,
    secret: String,
    token: Option<String>,
    /// Until when they hold; for ever, if they are ours.
    until: Option<Timestamp>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Keys(…)")
    }
}

impl Bucket {
    /// The place at this address. `?endpoint=https://minio.example&region=eu-central-1` may follow it.
    pub fn new(url: &str, settings: &Settings) -> Result<Self, Error> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let place = escaped(address.trim_end_matches('/').as_bytes());
        let wrong = |problem| Error::Address { address: place.clone(), problem };
        let (scheme, rest) = address.split_once("://").ok_or_else(|| wrong("it has no `s3://`"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_letter =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte);
        if bucket.is_empty() || !bucket.bytes().all(is_letter) {
            return Err(wrong("after `://` comes the name of a bucket, in small letters"));
        }
        let is_google = scheme.eq_ignore_ascii_case("gs");
        let (mut endpoint, mut region) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("endpoint", value)) => endpoint = Some(value.to_owned()),
                Some(("region", value)) => region = Some(value.to_owned()),
                _ => return Err(wrong("only `endpoint=` and `region=` can follow the `?`")),
            }
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let (base, region) = if is_google {
            let endpoint = endpoint.unwrap_or_else(|| "https://storage.googleapis.com".to_owned());
            (
                format!("{}/{bucket}", endpoint.trim_end_matches('/')),
                region.unwrap_or_else(|| "auto".to_owned()),
            )
        } else {
            let endpoint =
                endpoint.or_else(|| variable("AWS_ENDPOINT_URL_S3")).or_else(|| variable("AWS_ENDPOINT_URL"));
            let region = region.or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
            let region = region.unwrap_or_else(|| "us-east-1".to_owned());
            let base = match endpoint {
                Some(endpoint) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
                // A certificate is for one name below the region's.
                None if bucket.contains(['.', '_']) => format!("https://s3.{region}.amazonaws.com/{bucket}"),
                None => format!("https://{bucket}.s3.{region}.amazonaws.com"),
            };
            (base, region)
        };
        let names: Vec<&str> = prefix.split('/').filter(|name| !name.is_empty()).collect();
        if names.iter().any(|name| [".", ".."].contains(name)) {
            return Err(wrong("`.` and `..` are no names of directories there"));
        }
        let keys = match settings.credentials.as_deref() {
            Some(path) => Some(keys_of_file(path)?),
            None => keys_of_environment(is_google),
        };
        Ok(Self {
            base: Address::parse(&base)?.below(&names),
            place,
            region,
            is_google,
            keys: Mutex::new(keys),
        })
    }

    fn keys(&self) -> Option<Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The headers of a request that is signed at this time.
    fn signed(&self, sent: &Sent<'_>, keys: &Keys, now: Timestamp) -> Vec<Header> {
        let payload = sent.content.map_or_else(|| Digest::of(b""), |content| content.sha256).hex();
        let (time, day) = (now.strftime("%Y%m%dT%H%M%SZ").to_string(), now.strftime("%Y%m%d").to_string());
        let mut headers = vec![
            ("host", sent.address.authority().to_owned()),
            ("x-amz-content-sha256", payload.clone()),
            ("x-amz-date", time.clone()),
        ];
        headers.extend(keys.token.iter().map(|token| ("x-amz-security-token", token.clone())));
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        let (path, query) = sent.address.path_and_query();
        let mut pairs: Vec<String> =
            query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.to_owned()).collect();
        pairs.sort();
        let canonical = format!("{}\n{path}\n{}\n{lines}\n{names}\n{payload}", sent.method, pairs.join("&"));
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", Digest::of(canonical.as_bytes()).hex());
        let start = format!("AWS4{}", keys.secret).into_bytes();
        let key = [day.as_str(), &self.region, "s3", "aws4_request"]
            .iter()
            .fold(start, |key, part| hmac(&key, part.as_bytes()).to_vec());
        let signature = Digest(hmac(&key, text.as_bytes())).hex();
        let credential = format!("{}/{scope}", keys.id);
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={signature}");
        // The host is sent by whoever sends the request.
        let sent = headers.into_iter().skip(1).map(|(name, value)| (HeaderName::from_static(name), value));
        sent.chain([(header::AUTHORIZATION, authorization)]).collect()
    }

    /// What the machine that we run on may do, as it says itself.
    fn lent(&self, web: &Web) -> Result<Option<Keys>, Error> {
        if self.is_google {
            let address =
                "http://metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token";
            let flavor = (HeaderName::from_static("metadata-flavor"), "Google".to_owned());
            let Some(text) = machine(web, &Method::GET, address, &[flavor])? else { return Ok(None) };
            let Ok(token) = serde_json::from_str::<GoogleToken>(&text) else { return Ok(None) };
            let until = Timestamp::now() + Duration::from_secs(token.expires_in);
            return Ok(Some(Keys {
                id: String::new(),
                secret: String::new(),
                token: Some(token.access_token),
                until: Some(until),
            }));
        }
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let container = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI").or_else(|| {
            variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
                .map(|path| format!("http://169.254.170.2{path}"))
        });
        let text = match container {
            Some(address) => {
                let token = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").or_else(|| {
                    std::fs::read_to_string(variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE")?).ok()
                });
                let token = token.map(|token| (header::AUTHORIZATION, token.trim().to_owned()));
                machine(web, &Method::GET, &address, token.as_slice())?
            }
            None => instance(web)?,
        };
        let keys = text.and_then(|text| serde_json::from_str::<LentKeys>(&text).ok());
        Ok(keys.map(|keys| Keys {
            id: keys.access_key_id,
            secret: keys.secret_access_key,
            token: keys.token,
            until: keys.expiration.and_then(|text| text.parse().ok()),
        }))
    }
}

#[derive(Deserialize)]
struct GoogleToken {
    access_token: String,
    expires_in: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LentKeys {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

/// What a virtual machine of AWS says (version 2 of its service).
fn instance(web: &Web) -> Result<Option<String>, Error> {
    const PLACE: &str = "http://169.254.169.254/latest";
    let lifetime = (HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds"), "300".to_owned());
    let Some(token) = machine(web, &Method::PUT, &format!("{PLACE}/api/token"), &[lifetime])? else {
        return Ok(None);
    };
    let token = [(HeaderName::from_static("x-aws-ec2-metadata-token"), token)];
    let roles = format!("{PLACE}/meta-data/iam/security-credentials/");
    let Some(role) = machine(web, &Method::GET, &roles, &token)? else { return Ok(None) };
    let role = role.lines().next().unwrap_or_default();
    machine(web, &Method::GET, &format!("{roles}{role}"), &token)
}

/// A text of the machine that we run on. `None` when there is nobody to ask.
fn machine(web: &Web, method: &Method, address: &str, headers: &[Header]) -> Result<Option<String>, Error> {
    let address = Address::parse(address)?;
    let deadline = Instant::now() + MACHINE_TIMEOUT;
    let answer = match method {
        &Method::PUT => web.send_text(method, &address, headers, "", deadline),
        _ => web.get(&address, headers, deadline),
    };
    let answer = answer.and_then(|response| web.body_of(response, &address, MACHINE_BYTES_MAX));
    match answer {
        Ok(bytes) => Ok(bytes.and_then(|bytes| String::from_utf8(bytes).ok())),
        Err(error) => {
            tracing::debug!(%error, "this machine lends no keys");
            Ok(None)
        }
    }
}

impl Dialect for Bucket {
    fn place(&self) -> String {
        self.place.clone()
    }

    fn locate(&self, _: &Web, item: Item<'_>) -> Result<Option<Address>, Error> {
        Ok(Some(self.base.below(&[item.name])))
    }

    fn headers(&self, sent: &Sent<'_>) -> Result<Vec<Header>, Error> {
        if !self.base.is_same_server(sent.address) {
            return Ok(Vec::new());
        }
        Ok(match self.keys() {
            Some(keys) if keys.secret.is_empty() => {
                let token = keys.token.unwrap_or_default();
                vec![(header::AUTHORIZATION, format!("Bearer {token}"))]
            }
            Some(keys) => self.signed(sent, &keys, Timestamp::now()),
            None => Vec::new(),
        })
    }

    fn introduce(&self, web: &Web, sent: &Sent<'_>, _: &HeaderMap) -> Result<bool, Error> {
        if !self.base.is_same_server(sent.address) {
            return Ok(false);
        }
        let soon = Timestamp::now() + RENEW_BEFORE;
        match self.keys() {
            Some(Keys { until: None, .. }) => return Ok(false),
            Some(Keys { until: Some(until), .. }) if until > soon => return Ok(false),
            Some(_) | None => {}
        }
        let lent = self.lent(web)?;
        let is_lent = lent.is_some();
        *self.keys.lock().unwrap_or_else(PoisonError::into_inner) = lent;
        Ok(is_lent)
    }
}

/// `KEY:SECRET`, or `KEY:SECRET:SESSION`.
fn keys_of_file(path: &str) -> Result<Keys, Error> {
    let bytes = credentials::read(path)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut parts = text.splitn(3, ':').map(|part| part.trim().to_owned());
    match (parts.next(), parts.next(), parts.next()) {
        (Some(id), Some(secret), token) if !id.is_empty() && !secret.is_empty() => {
            Ok(Keys { id, secret, token, until: None })
        }
        _ => Err(owned::Error::Not { path: path.into(), wanted: "`KEY:SECRET`" }.into()),
    }
}

fn keys_of_environment(is_google: bool) -> Option<Keys> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    if is_google {
        return None;
    }
    let (id, secret) = (variable("AWS_ACCESS_KEY_ID")?, variable("AWS_SECRET_ACCESS_KEY")?);
    Some(Keys { id, secret, token: variable("AWS_SESSION_TOKEN"), until: None })
}

/// HMAC of RFC 2104 with SHA-256.
pub(super) fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    const BLOCK: usize = 64;
    let mut block = [0_u8; BLOCK];
    if key.len() > BLOCK {
        block[..32].copy_from_slice(&Digest::of(key).0);
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let with = |pad: u8, text: &[u8]| -> [u8; 32] {
        let mut hasher = Sha256::new();
        hasher.update(block.map(|byte| byte ^ pad));
        hasher.update(text);
        Digest::from(hasher).0
    };
    with(0x5c, &with(0x36, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(url: &str) -> Option<Bucket> {
        Bucket::new(url, &Settings::default()).ok()
    }

    #[test]
    fn a_bucket_is_found_by_its_address() {
        for (url, wanted) in [
            ("s3://shop/a/b?region=eu-1", Some("https://shop.s3.eu-1.amazonaws.com/a/b")),
            ("s3://my.shop?region=eu-1", Some("https://s3.eu-1.amazonaws.com/my.shop")),
            ("s3://shop/a?endpoint=http://localhost:9000/", Some("http://localhost:9000/shop/a")),
            ("gs://shop/a", Some("https://storage.googleapis.com/shop/a")),
            ("s3://", None),
            ("s3://Shop", None),
            ("s3://shop/../x", None),
            ("s3://shop?color=red", None),
            ("s3://key:secret@shop/x", None),
        ] {
            assert_eq!(bucket(url).map(|bucket| bucket.base.text()).as_deref(), wanted, "{url}");
        }
    }

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let digest = |key: &[u8], text: &[u8]| Digest(hmac(key, text)).hex();
        assert_eq!(
            digest(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            digest(&[0xaa; 131], b"Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    /// The example of Amazon's documentation, "GET Object", without its range.
    #[test]
    fn requests_are_signed_as_documented() {
        let bucket =
            bucket("s3://examplebucket?region=us-east-1&endpoint=https://examplebucket.s3.amazonaws.com")
                .unwrap();
        let keys = Keys {
            id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".into(),
            token: None,
            until: None,
        };
        let address = Address::parse("https://examplebucket.s3.amazonaws.com/?lifecycle=").unwrap();
        let sent = Sent { method: &Method::GET, address: &address, headers: &[], content: None };
        let headers = bucket.signed(&sent, &keys, "2013-05-24T00:00:00Z".parse().unwrap());
        let (_, authorization) = headers.last().unwrap();
        assert_eq!(
            authorization,
            "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, \
             SignedHeaders=host;x-amz-content-sha256;x-amz-date, \
             Signature=fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"
        );
    }
}
