//! Which store the arguments name, and how it is reached.

use std::io::Read as _;
use std::str::FromStr;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::path::Path;
use object_store::{BackoffConfig, ObjectStore, ObjectStoreScheme, RetryConfig};

use crate::Arguments;

/// The longest file of settings.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// The store, and what all names in it begin with. Asks nobody yet.
pub fn open(arguments: &Arguments, timeout: Duration) -> Result<(Box<dyn ObjectStore>, Path), String> {
    let url = arguments.url.parse().map_err(|error| format!("`{}`: {error}", arguments.url))?;
    let (scheme, prefix) = ObjectStoreScheme::parse(&url).map_err(|error| error.to_string())?;
    // One provider for all connections; who was first does not matter.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(50),
            max_backoff: Duration::from_millis(500),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: timeout,
    };
    let said = said(arguments)?;
    let url = arguments.url.as_str();
    let built: Result<Box<dyn ObjectStore>, object_store::Error> = match scheme {
        ObjectStoreScheme::AmazonS3 => {
            let mut builder = AmazonS3Builder::new().with_url(url).with_retry(retry);
            for (key, value) in settings::<AmazonS3ConfigKey>("aws_", &said)? {
                builder = builder.with_config(key, value);
            }
            builder.build().map(|store| Box::new(store) as _)
        }
        ObjectStoreScheme::GoogleCloudStorage => {
            let mut builder = GoogleCloudStorageBuilder::new().with_url(url).with_retry(retry);
            for (key, value) in settings::<GoogleConfigKey>("google_", &said)? {
                builder = builder.with_config(key, value);
            }
            builder.build().map(|store| Box::new(store) as _)
        }
        ObjectStoreScheme::MicrosoftAzure => {
            let mut builder = MicrosoftAzureBuilder::new().with_url(url).with_retry(retry);
            for (key, value) in settings::<AzureConfigKey>("azure_", &said)? {
                builder = builder.with_config(key, value);
            }
            builder.build().map(|store| Box::new(store) as _)
        }
        // Local directories need no program of their own, and plain HTTP servers have no conditional put.
        _ => return Err(format!("`{url}` is neither of S3 nor of Google Cloud nor of Azure")),
    };
    Ok((built.map_err(|error| error.to_string())?, prefix))
}

/// What file and options say, in this order.
fn said(arguments: &Arguments) -> Result<Vec<(String, String)>, String> {
    let mut lines = Vec::new();
    if let Some(file) = &arguments.options {
        let mut text = String::new();
        std::fs::File::open(file)
            .and_then(|open| open.take(FILE_BYTES_MAX).read_to_string(&mut text))
            .map_err(|error| format!("cannot read `{}`: {error}", file.display()))?;
        let is_said = |line: &&str| !line.is_empty() && !line.starts_with('#');
        lines.extend(text.lines().map(str::trim).filter(is_said).map(ToOwned::to_owned));
    }
    lines.extend(arguments.option.iter().cloned());
    let pair = |line: String| {
        let (name, value) = line.split_once('=').ok_or("a setting of the store has no `=`")?;
        Ok((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
    };
    lines.into_iter().map(pair).collect()
}

/// The environment's settings with this prefix, and then those that were said. Only the latter must be known ones.
fn settings<K: FromStr>(prefix: &str, said: &[(String, String)]) -> Result<Vec<(K, String)>, String> {
    let mut all: Vec<(K, String)> = std::env::vars()
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| name.starts_with(prefix))
        .filter_map(|(name, value)| Some((name.parse().ok()?, value)))
        .collect();
    for (name, value) in said {
        let key = name.parse().map_err(|_| format!("this store has no setting `{name}`"))?;
        all.push((key, value.clone()));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(url: &str, options: &[&str]) -> Arguments {
        let option = options.iter().map(|text| (*text).to_owned()).collect();
        Arguments { url: url.into(), option, options: None, timeout_ms: 1000 }
    }

    #[test]
    fn each_kind_of_store_is_found_by_its_address() {
        let limit = Duration::from_secs(1);
        for (url, options, name) in [
            ("s3://bucket/shop", &["aws_region=eu-1"][..], "AmazonS3(bucket)"),
            ("gs://bucket/shop", &[], "GoogleCloudStorage(bucket)"),
            (
                "az://box/shop",
                &["azure_storage_account_name=a"],
                "MicrosoftAzure { account: a, container: box }",
            ),
        ] {
            let (store, prefix) = open(&arguments(url, options), limit).unwrap();
            assert_eq!((store.to_string().as_str(), prefix.as_ref()), (name, "shop"));
        }
        for (url, options) in [
            ("file:///tmp", &[][..]),
            ("https://example.org/", &[]),
            ("bucket", &[]),
            ("s3://bucket", &["aws_colour=red"]),
            ("s3://bucket", &["nothing"]),
        ] {
            assert!(open(&arguments(url, options), limit).is_err(), "{url} {options:?}");
        }
    }
}
