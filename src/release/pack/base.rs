//! What a release has in common with the one before it.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;

use super::Error;
use crate::release::index::meta::parent_of;
use crate::release::index::{self, Index, Record, Root};
use crate::release::source::LocalFile;
use crate::sys::disk::Context as _;
use crate::types::Digest;
use crate::types::entry::{Entry, Kind, path_order};

/// The archive of the release before.
pub struct Base {
    index: Index<'static>,
}

impl Base {
    /// Reads the index of the archive at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).context("open", path)?;
        let source = LocalFile::new(file, path).map_err(index::Error::from)?;
        let index = Index::open(Arc::new(source), None)?;
        Ok(Self { index: index.ok_or_else(|| Error::BaseWithoutIndex(path.to_owned()))? })
    }

    pub fn root(&self) -> &Root {
        self.index.root()
    }

    /// Gives each entry the time that it had in the base, if it is the same, and each file the generation of its
    /// content, under whatever name it had it.
    pub fn date(&self, records: &mut [Record]) -> Result<(), Error> {
        let newest = self.index.root().generation + 1;
        let names = names_by_directory(records.iter().map(|record| &record.entry));
        let mut generations: HashMap<Digest, u64> = HashMap::new();
        let mut old_entries = Vec::new();
        for old in self.index.records() {
            let Record { entry, generation } = old?;
            if let Kind::File { content, .. } = entry.kind
                && entry.same_as.is_none()
            {
                generations.insert(content, generation);
            }
            old_entries.push(entry);
        }
        let old_names = names_by_directory(old_entries.iter());
        let mut rest = records.iter_mut().peekable();
        for old in &old_entries {
            while let Some(record) = rest.next_if(|record| path_order(&record.entry.path, &old.path).is_le())
            {
                let entry = &mut record.entry;
                let is_same = entry.path == old.path
                    && (&entry.kind, &entry.same_as) == (&old.kind, &old.same_as)
                    && names.get(&entry.path) == old_names.get(&old.path);
                if is_same {
                    entry.mtime = old.mtime;
                }
            }
        }
        // One file has one time, whichever of its names the base has.
        for at in 0..records.len() {
            let Some(first) = &records[at].entry.same_as else { continue };
            if let Ok(first) = records.binary_search_by(|record| path_order(&record.entry.path, first)) {
                records[at].entry.mtime = records[first].entry.mtime;
            }
        }
        for record in records.iter_mut().filter(|record| record.has_content()) {
            if let Kind::File { content, .. } = &record.entry.kind {
                record.generation = generations.get(content).copied().unwrap_or(newest);
            }
        }
        Ok(())
    }
}

/// A number for each directory that is another one when other names are in it.
fn names_by_directory<'a>(entries: impl Iterator<Item = &'a Entry>) -> HashMap<Vec<u8>, u64> {
    let mut numbers: HashMap<Vec<u8>, u64> = HashMap::new();
    for entry in entries {
        let mut hasher = DefaultHasher::new();
        entry.path.hash(&mut hasher);
        let number = numbers.entry(parent_of(&entry.path).to_vec()).or_default();
        *number = number.wrapping_add(hasher.finish());
    }
    numbers
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{AT_FDCWD, AtFlags};
    use nix::unistd::linkat;

    use super::super::{LEVEL, Owners, PackOrder, pack};
    use super::*;
    use crate::sys::disk::Disk;
    use crate::types::progress::Silent;

    #[test]
    fn a_file_gets_and_loses_names_and_keeps_its_time() {
        let place = tempfile::tempdir().unwrap();
        let disk = Disk::default();
        // Each word is a file: its names, of which the first is the oldest.
        let releases: [&[&[&str]]; 5] = [
            &[&["git"], &["other"]],
            &[&["git", "git-add"], &["other"]],
            &[&["git", "a-first", "z-last", "other"]],
            &[&["z-last", "other"], &["git"], &["a-first"]],
            &[&["git", "other", "z-last"], &["a-first"]],
        ];
        for (number, files) in releases.iter().enumerate() {
            let tree = place.path().join(format!("tree{number}"));
            disk.make_directory(&tree, 0o755).unwrap();
            for names in *files {
                disk.replace(&tree.join(names[0]), b"the same", 0o644).unwrap();
                for name in &names[1..] {
                    let (first, name) = (tree.join(names[0]), tree.join(name));
                    linkat(AT_FDCWD, &first, AT_FDCWD, &name, AtFlags::empty()).unwrap();
                }
            }
            let archive = |number: usize| place.path().join(format!("{number}.tar.zst"));
            let order = PackOrder {
                directory: tree,
                product: "app".into(),
                version: number.to_string().parse().unwrap(),
                output: archive(number),
                base: number.checked_sub(1).map(archive),
                level: LEVEL,
                jobs: 1,
                owners: Owners::Root,
            };
            pack(&order, &disk, &Silent).unwrap();
            let packed = Base::open(&archive(number)).unwrap();
            let times = packed.index.records().map(|record| {
                let entry = record.unwrap().entry;
                (entry.same_as.unwrap_or(entry.path), entry.mtime)
            });
            let mut times: Vec<_> = times.collect();
            times.sort();
            times.dedup();
            assert_eq!(times.len(), files.len(), "{times:?}");
        }
    }
}
