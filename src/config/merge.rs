//! Fragments on top of each other, and who said what.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

/// The file that each value comes from, by dotted key.
pub type Origins = BTreeMap<String, PathBuf>;

/// Puts the values of `over` on top of `base`.
pub(super) fn merge(base: &mut Table, over: Table, file: &Path, prefix: &str, origins: &mut Origins) {
    for (key, value) in over {
        let name = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) => merge(below, above, file, &name, origins),
            (_, Value::Table(above)) => {
                let mut below = Table::new();
                merge(&mut below, above, file, &name, origins);
                base.insert(key, Value::Table(below));
            }
            (_, value) => {
                base.insert(key, value);
                origins.insert(name, file.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_fragment_replaces_keys_and_whole_arrays() {
        let mut merged =
            toml::from_str("root = '/a'\n[store]\nkeep = 3\nmethod = 'copy'\n[[data]]\npath = '/x'").unwrap();
        let over = toml::from_str("[store]\nkeep = 4\n[[data]]\npath = '/y'").unwrap();
        let mut origins = Origins::new();
        merge(&mut merged, over, Path::new("later"), "", &mut origins);
        let wanted: Table =
            toml::from_str("root = '/a'\n[store]\nkeep = 4\nmethod = 'copy'\n[[data]]\npath = '/y'").unwrap();
        assert_eq!(merged, wanted);
        assert_eq!(origins.keys().collect::<Vec<_>>(), ["data", "store.keep"]);
    }
}
