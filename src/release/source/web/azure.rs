//! Azure's object store: `az://container/prefix?account=shop`.
//!
//! Requests are signed with the account's key, or carry a shared access signature. Both come from `[source] credentials`
//! (`ACCOUNT:KEY`, or the signature, `sv=…`), else from the environment (`AZURE_STORAGE_ACCOUNT`, `AZURE_STORAGE_KEY`,
//! `AZURE_STORAGE_SAS_TOKEN`).

use jiff::Timestamp;
use ureq::http::{HeaderName, header};

use super::super::{Error, Item, Settings};
use super::address::Address;
use super::bucket::hmac;
use super::dialect::{Dialect, Sent};
use super::request::Header;
use super::{Web, credentials};
use crate::sys::owned;
use crate::types::{base64, escaped, from_base64};

/// The version of the protocol that is spoken.
const VERSION: &str = "2021-08-06";

/// A place in a container.
#[derive(Debug)]
pub struct Container {
    /// Carries the shared access signature, where there is one.
    base: Address,
    place: String,
    account: String,
    key: Option<Key>,
}

struct Key(Vec<u8>);

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Key(…)")
    }
}

/// What signs, or stands for a signature.
#[derive(Default)]
struct Secrets {
    account: Option<String>,
    key: Option<String>,
    signature: Option<String>,
}

impl Container {
    /// The place at this address. `?account=NAME` must follow it, unless the credentials name the account;
    /// `endpoint=https://…` may.
    pub fn new(url: &str, settings: &Settings) -> Result<Self, Error> {
        let (address, query) = url.split_once('?').unwrap_or((url, ""));
        let place = escaped(address.trim_end_matches('/').as_bytes());
        let wrong = |problem| Error::Address { address: place.clone(), problem };
        let (_, rest) = address.split_once("://").ok_or_else(|| wrong("it has no `az://`"))?;
        let (container, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let is_letter =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-$".contains(&byte);
        let names: Vec<&str> = prefix.split('/').filter(|name| !name.is_empty()).collect();
        if container.is_empty() || !container.bytes().all(is_letter) {
            return Err(wrong("after `://` comes the name of a container, in small letters"));
        }
        if names.iter().any(|name| [".", ".."].contains(name)) {
            return Err(wrong("`.` and `..` are no names of directories there"));
        }
        let (mut endpoint, mut account) = (None, None);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some(("endpoint", value)) => endpoint = Some(value.trim_end_matches('/').to_owned()),
                Some(("account", value)) => account = Some(value.to_owned()),
                _ => return Err(wrong("only `account=` and `endpoint=` can follow the `?`")),
            }
        }
        let secrets = match settings.credentials.as_deref() {
            Some(path) => secrets_of_file(path)?,
            None => secrets_of_environment(),
        };
        let account = account.or(secrets.account);
        let account = account.ok_or_else(|| wrong("it does not name the account: add `?account=NAME`"))?;
        if !account.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
            return Err(wrong("an account has small letters and digits"));
        }
        let key = secrets.key.map(|key| from_base64(&key).ok_or_else(|| wrong("its key is not one")));
        let endpoint = endpoint.unwrap_or_else(|| format!("https://{account}.blob.core.windows.net"));
        let base = Address::parse(&endpoint)?.below(&[container]).below(&names);
        let base = match secrets.signature {
            Some(signature) => base.with_raw_query(signature.trim_start_matches('?'))?,
            None => base,
        };
        Ok(Self { base, place, account, key: key.transpose()?.map(Key) })
    }

    /// The header `Authorization` of a request with these headers beside those of its own.
    fn signature(&self, sent: &Sent<'_>, own: &[Header], key: &Key) -> String {
        let value = |name: HeaderName| {
            let found = sent.headers.iter().find(|(header, _)| *header == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        let length = sent.content.map(|content| content.size).filter(|size| *size > 0);
        let length = length.map(|size| size.to_string()).unwrap_or_default();
        let lines = [
            sent.method.as_str(),
            "",
            "",
            &length,
            "",
            value(header::CONTENT_TYPE),
            "",
            "",
            value(header::IF_MATCH),
            value(header::IF_NONE_MATCH),
            "",
            value(header::RANGE),
        ];
        let mut special: Vec<String> = own.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
        special.sort();
        let (path, query) = sent.address.path_and_query();
        let mut pairs: Vec<String> = query
            .split('&')
            .filter(|pair| !pair.is_empty())
            .map(|pair| format!("\n{}", pair.replacen('=', ":", 1)))
            .collect();
        pairs.sort();
        let text =
            format!("{}\n{}/{}{path}{}", lines.join("\n"), special.concat(), self.account, pairs.concat());
        let signature = base64(&hmac(&key.0, text.as_bytes()));
        format!("SharedKey {}:{signature}", self.account)
    }
}

impl Dialect for Container {
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
        let date = Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let mut headers = vec![
            (HeaderName::from_static("x-ms-date"), date),
            (HeaderName::from_static("x-ms-version"), VERSION.to_owned()),
        ];
        if sent.content.is_some() {
            headers.push((HeaderName::from_static("x-ms-blob-type"), "BlockBlob".to_owned()));
        }
        if let Some(key) = &self.key {
            let authorization = self.signature(sent, &headers, key);
            headers.push((header::AUTHORIZATION, authorization));
        }
        Ok(headers)
    }
}

fn secrets_of_file(path: &str) -> Result<Secrets, Error> {
    let bytes = credentials::read(path)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    if text.bytes().any(|byte| !byte.is_ascii_graphic()) {
        let wanted = "`ACCOUNT:KEY`, or a shared access signature";
        return Err(owned::Error::Not { path: path.into(), wanted }.into());
    }
    Ok(match text.split_once(':') {
        Some((account, key)) if !text.contains("sig=") => {
            Secrets { account: Some(account.to_owned()), key: Some(key.to_owned()), signature: None }
        }
        _ => Secrets { signature: Some(text), ..Secrets::default() },
    })
}

fn secrets_of_environment() -> Secrets {
    let variable = |names: [&str; 2]| {
        names.iter().find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    };
    Secrets {
        account: variable(["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]),
        key: variable(["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"]),
        signature: variable(["AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY"]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_is_found_by_its_address() {
        for (url, wanted) in [
            ("az://box/a/b?account=shop", Some("https://shop.blob.core.windows.net/box/a/b")),
            ("az://box?account=shop&endpoint=http://localhost:1/shop/", Some("http://localhost:1/shop/box")),
            ("az://box", None),
            ("az://Box?account=shop", None),
            ("az://box/../x?account=shop", None),
            ("az://box?account=shop&color=red", None),
            ("az://box?account=my.shop", None),
        ] {
            let container = Container::new(url, &Settings::default()).ok();
            assert_eq!(container.map(|container| container.base.text()).as_deref(), wanted, "{url}");
        }
    }
}
