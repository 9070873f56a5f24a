//! An archive that somebody names on the command line.

use std::path::{Path, PathBuf};

use crate::release::text::is_name;
use crate::types::{Version, escaped_path};

/// Ends of archives' names that are known.
pub const ENDINGS: [&str; 5] = [".tar", ".tar.zst", ".tar.gz", ".tgz", ".tzst"];

/// The name does not say which version it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` does not say its version: it should be named `<product>-<version>.tar[.zst|.gz]`")]
pub struct NoVersion(pub String);

/// Where the manifest of the archive `file` lies, if it has one: beside it, with `.manifest` for `.tar[.zst|.gz]`.
pub fn manifest_beside(file: &Path) -> Option<PathBuf> {
    let stem = stem(file)?;
    Some(file.with_file_name(format!("{stem}.manifest")))
}

/// Product and version by the archive's name `<product>-<version>.tar[.zst|.gz]`.
///
/// Both may contain hyphens. A known product is taken off the front; else the version begins at the first digit after a
/// hyphen, or after the last hyphen.
pub fn product_and_version(file: &Path, product: Option<&str>) -> Result<(String, Version), NoVersion> {
    let wrong = || NoVersion(escaped_path(file));
    let stem = stem(file).ok_or_else(wrong)?;
    let known = product.and_then(|product| {
        let rest = stem.strip_prefix(product)?.strip_prefix('-')?;
        Some((product, rest))
    });
    match known {
        Some((product, version)) if is_name(product) => {
            Ok((product.to_owned(), version.parse().map_err(|_| wrong())?))
        }
        Some(_) => Err(wrong()),
        None => split_stem(stem).ok_or_else(wrong),
    }
}

/// Product and version of a name without its end.
pub fn split_stem(stem: &str) -> Option<(String, Version)> {
    let bytes = stem.as_bytes();
    let is_start = |at: &usize| bytes[*at] == b'-' && bytes.get(at + 1).is_some_and(u8::is_ascii_digit);
    let at_digit = (0..bytes.len()).find(is_start).map(|at| (&stem[..at], &stem[at + 1..]));
    let (product, version) = at_digit.or_else(|| stem.rsplit_once('-'))?;
    is_name(product).then_some((product.to_owned(), version.parse().ok()?))
}

/// The file's name without the end that says what it is.
pub fn stem(file: &Path) -> Option<&str> {
    let name = file.file_name()?.to_str()?;
    ENDINGS.iter().find_map(|ending| name.strip_suffix(ending)).filter(|stem| !stem.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_product_and_version() {
        for (name, known, product, version) in [
            ("/x/shop-1.4.2.tar.zst", None, "shop", "1.4.2"),
            ("shop-1.4.2.tar", None, "shop", "1.4.2"),
            ("my-shop-1.0-rc1.tar.gz", None, "my-shop", "1.0-rc1"),
            ("my-shop-v2.tar", None, "my-shop", "v2"),
            ("shop-1.0.tgz", None, "shop", "1.0"),
            ("shop-v2-beta.tar", Some("shop"), "shop", "v2-beta"),
            ("shop-3-x-1.tar", Some("shop-3-x"), "shop-3-x", "1"),
            ("shop-2.tar", Some("other"), "shop", "2"),
        ] {
            let (found_product, found_version) = product_and_version(Path::new(name), known).unwrap();
            assert_eq!((found_product.as_str(), found_version.as_str()), (product, version), "{name}");
        }
        for name in
            ["shop.tar", "shop-1.2.zip", "-1.tar", "shop-.tar", ".tar", "shop-1 2.tar", "shop-1.tar.xz"]
        {
            assert!(product_and_version(Path::new(name), None).is_err(), "{name}");
        }
    }

    #[test]
    fn the_manifest_lies_beside_the_archive() {
        let beside = |name| manifest_beside(Path::new(name));
        assert_eq!(beside("/x/shop-1.tar.zst"), Some("/x/shop-1.manifest".into()));
        assert_eq!(beside("shop-1.tar"), Some("shop-1.manifest".into()));
        assert_eq!(beside("shop-1.zip"), None);
    }
}
