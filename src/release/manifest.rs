//! The manifest: what a release is, in a small text that its maker signs.
//!
//! ```text
//! format = 1
//! product = shop
//! version = 1.4.2
//! archive = shop-1.4.2.tar.zst
//! size = 48213377
//! sha256 = 3b0c…                        of the whole archive
//! unpacked = 190400123                  bytes of all files, entries = names in the tree: limits for the unpacker
//! entries = 5120
//! index = sha256:9f…                    of the index root: frames are then verified one by one
//! tree = sha256:77…                     of the tree that must result
//! compatible = x86_64, arm64            one of these must be in the node's list
//! data_read = [3, 4]                    epochs of data that this release reads, and the one that it writes
//! data_write = 4
//! ```
//! `sha256sum` and `stat` suffice to write one by hand. The digest of a release is that of its manifest's exact bytes.

use super::text::{Document, Malformed, ValueProblem};
use crate::types::{Digest, Version};

/// The longest manifest in bytes.
pub const MANIFEST_BYTES_MAX: usize = 64 << 10;

const KEYS: [&str; 13] = [
    "format",
    "product",
    "version",
    "archive",
    "size",
    "sha256",
    "unpacked",
    "entries",
    "index",
    "tree",
    "compatible",
    "data_read",
    "data_write",
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Which application this is a release of.
    pub product: String,
    pub version: Version,
    /// The archive's file name, beside the manifest.
    pub archive: String,
    /// The archive's exact size in bytes.
    pub size: u64,
    /// Digest of the whole archive.
    pub sha256: Digest,
    /// Bytes of all files of the tree together: a limit for unpacking.
    pub unpacked: Option<u64>,
    /// Number of entries of the tree: a limit for unpacking.
    pub entries: Option<u64>,
    /// Digest of the index root, for an indexed archive.
    pub index: Option<Digest>,
    /// Digest of the canonical unpacked tree.
    pub tree: Option<Digest>,
    /// Kinds of nodes that it is for; empty: for all.
    pub compatible: Vec<String>,
    /// Epochs of data that it reads; empty: not said.
    pub data_read: Vec<u64>,
    /// The epoch of the data that it writes.
    pub data_write: Option<u64>,
    /// Keys that begin with `x-`, with their values: for people and other programs.
    pub extras: Vec<(String, String)>,
}

impl Manifest {
    /// What can be said of any archive. Nothing limits the unpacking, and the release is for all nodes.
    pub fn plain(product: String, version: Version, archive: String, size: u64, sha256: Digest) -> Self {
        Self {
            product,
            version,
            archive,
            size,
            sha256,
            unpacked: None,
            entries: None,
            index: None,
            tree: None,
            compatible: Vec::new(),
            data_read: Vec::new(),
            data_write: None,
            extras: Vec::new(),
        }
    }

    /// Reads a manifest. Verify the signature over the same bytes first.
    ///
    /// # Errors
    /// Names line and key of the first thing that is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let document = Document::read(bytes, MANIFEST_BYTES_MAX, &KEYS, &[])?;
        let number = |key: &str| document.get(key).map(|line| line.number()).transpose();
        let digest = |key: &str| document.get(key).map(|line| line.digest()).transpose();
        let data_write = number("data_write")?;
        let data_read = match document.get("data_read") {
            None => Vec::new(),
            Some(line) => {
                let epochs = line.numbers()?;
                if data_write.is_some_and(|writes| !epochs.contains(&writes)) {
                    let problem = "a release must read the epoch that it writes (`data_write`)";
                    return Err(line.wrong(ValueProblem::Conflict(problem)));
                }
                epochs
            }
        };
        Ok(Self {
            product: document.need("product")?.name()?,
            version: document.need("version")?.version()?,
            archive: document.need("archive")?.file_name()?,
            size: document.need("size")?.number()?,
            sha256: document.need("sha256")?.digest()?,
            unpacked: number("unpacked")?,
            entries: number("entries")?,
            index: digest("index")?,
            tree: digest("tree")?,
            compatible: document.get("compatible").map(|line| line.names()).transpose()?.unwrap_or_default(),
            data_read,
            data_write,
            extras: document.extras(),
        })
    }

    /// The manifest as a text: always the same bytes for the same facts, and read back as they are.
    pub fn to_text(&self) -> String {
        let mut lines = vec![
            "format = 1".to_owned(),
            format!("product = {}", self.product),
            format!("version = {}", self.version),
            format!("archive = {}", self.archive),
            format!("size = {}", self.size),
            format!("sha256 = {}", self.sha256.hex()),
        ];
        let mut optional = |key: &str, value: Option<String>| {
            lines.extend(value.map(|value| format!("{key} = {value}")));
        };
        optional("unpacked", self.unpacked.map(|bytes| bytes.to_string()));
        optional("entries", self.entries.map(|entries| entries.to_string()));
        optional("index", self.index.map(|digest| digest.to_string()));
        optional("tree", self.tree.map(|digest| digest.to_string()));
        optional("compatible", (!self.compatible.is_empty()).then(|| self.compatible.join(", ")));
        optional("data_read", (!self.data_read.is_empty()).then(|| format!("{:?}", self.data_read)));
        optional("data_write", self.data_write.map(|epoch| epoch.to_string()));
        for (key, value) in &self.extras {
            optional(key, Some(value.clone()));
        }
        lines.join("\n") + "\n"
    }

    /// The digest of the release that [`Manifest::to_text`] describes. For a manifest that was read, take the digest
    /// of the bytes that were read instead.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_text().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Manifest {
        Manifest {
            product: "shop".into(),
            version: "1.4.2".parse().unwrap(),
            archive: "shop-1.4.2.tar.zst".into(),
            size: 48,
            sha256: Digest::of(b"archive"),
            unpacked: Some(190),
            entries: Some(5),
            index: Some(Digest::of(b"index")),
            tree: Some(Digest::of(b"tree")),
            compatible: vec!["x86_64".into(), "arm64".into()],
            data_read: vec![3, 4],
            data_write: Some(4),
            extras: vec![("x-commit".into(), "abc = def".into())],
        }
    }

    #[test]
    fn a_manifest_is_read_back_as_it_was_written() {
        let text = full().to_text();
        assert_eq!(Manifest::parse(text.as_bytes()).unwrap(), full());
        assert!(text.contains("\ndata_read = [3, 4]\n"), "{text}");
    }

    #[test]
    fn a_manifest_written_by_hand_is_read() {
        let text = format!(
            "format=1\nproduct = shop\nversion = 1\narchive = shop-1.tar\nsize = 10240\nsha256 = {}",
            Digest::of(b"x").hex()
        );
        let manifest = Manifest::parse(text.as_bytes()).unwrap();
        assert_eq!((manifest.size, manifest.index, manifest.unpacked), (10240, None, None));
    }

    #[test]
    fn everything_else_is_refused_with_line_and_key() {
        let good = full().to_text();
        let cases = [
            ("format = 1\n", "", "line 1: the first line must be `format = 1`"),
            (
                "format = 1",
                "format = 2",
                "it has format 2, and this cutover reads format 1: it was made for a newer one",
            ),
            ("format = 1\n", "\nformat = 1\n", "line 1: it is empty"),
            (
                "product = shop",
                "product = a b",
                "line 2: `product`: `a b` is not a name: at most 64 letters, digits or `._-`, the first a letter or digit",
            ),
            ("product = shop\n", "", "`product` is missing"),
            ("product = shop", "produkt = shop", "line 2: `produkt` is unknown (did you mean `product`?)"),
            (
                "product = shop",
                "product = shop\nproduct = shop",
                "line 3: `product` is given twice, first on line 2",
            ),
            (
                "version = 1.4.2",
                "version = ../x",
                "line 3: `version`: `../x` is not a version: letters, digits or `._+~-`, the first a letter or digit",
            ),
            ("version = 1.4.2", "version =", "line 3: `version`: its value is empty"),
            (
                "archive = shop-1.4.2.tar.zst",
                "archive = a/b",
                "line 4: `archive`: `a/b` is not a plain file name: letters, digits or `._+~-`, the first a letter or digit",
            ),
            ("size = 48", "size = +48", "line 5: `size`: `+48` is not a whole number below 2^64"),
            ("size = 48", "size = 048", "line 5: `size`: `048` is not a whole number below 2^64"),
            (
                "size = 48",
                "size = 18446744073709551616",
                "line 5: `size`: `18446744073709551616` is not a whole number below 2^64",
            ),
            ("size = 48", "size 48", "line 5: it is not of the form `key = value`"),
            ("size = 48", "size = 48\r", "line 5: it has the control character U+000D"),
            ("size = 48", "size\t= 48", "line 5: it has the control character U+0009"),
            (
                "data_read = [3, 4]",
                "data_read = [3",
                "line 12: `data_read`: `[3` is not a list of whole numbers such as `[3, 4]`",
            ),
            (
                "data_read = [3, 4]",
                "data_read = [3]",
                "line 12: `data_read`: a release must read the epoch that it writes (`data_write`)",
            ),
        ];
        for (old, new, wanted) in cases {
            assert!(good.contains(old));
            let text = good.replacen(old, new, 1);
            assert_eq!(Manifest::parse(text.as_bytes()).unwrap_err().to_string(), wanted, "{new}");
        }
        let not_text = [good.as_bytes(), b"x-a = \xff\n"].concat();
        assert_eq!(Manifest::parse(&not_text).unwrap_err().to_string(), "line 15: it is not UTF-8");
        let long = format!("{good}x-long = {}\n", "a".repeat(MANIFEST_BYTES_MAX));
        assert!(matches!(Manifest::parse(long.as_bytes()), Err(Malformed::TooLong { .. })));
        assert!(Manifest::parse(b"").is_err());
    }
}
