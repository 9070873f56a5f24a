//! Space that is given up when the disk is full, so that going back needs none that is free.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{BTRFS_SUPER_MAGIC, statfs};
use xattr::FileExt as _;

use super::{Context, Disk, Error, is_no_space, open, remove_if_there};

/// The reserve holds files of this size for the contents that one rollback writes,
const RESERVE_DATA: (usize, usize) = (8, 256 << 10);
/// and on btrfs, where every change needs metadata too (a rename wants 3 MiB to be free), one file with so many
/// attributes of this size: each takes a node of the metadata for itself.
const RESERVE_METADATA: (usize, usize) = (640, 14_000);

impl Disk {
    /// Makes the reserve that [`Disk::replace`] and others may spend, as far as there is room. Not durable: it need not be.
    pub fn fill_reserve(&self) -> Result<(), Error> {
        let Some(directory) = &self.reserve else { return Ok(()) };
        let paths = (0..RESERVE_DATA.0).map(|number| directory.join(number.to_string()));
        let missing: Vec<PathBuf> = paths.filter(|path| !path.exists()).collect();
        let metadata = directory.join("metadata");
        let lacks_metadata = is_btrfs(directory.parent().unwrap_or(directory)) && !metadata.exists();
        if missing.is_empty() && !lacks_metadata {
            return Ok(());
        }
        self.make_directory(directory, 0o700)?;
        self.ask("reserve space in", directory)?;
        // Bytes are written rather than allocated: btrfs must own the blocks too.
        let fill = |path: &Path| File::create(path)?.write_all(&[0xa5; RESERVE_DATA.1]);
        let fill_metadata = || {
            let file = File::create(&metadata)?;
            let (number, size) = RESERVE_METADATA;
            (0..number).try_for_each(|number| file.set_xattr(format!("user.{number}"), &vec![0xa5; size]))
        };
        let mut filled: Vec<_> = missing.iter().map(|path| (path, fill(path))).collect();
        if lacks_metadata {
            filled.push((&metadata, fill_metadata()));
        }
        for (path, result) in filled {
            match result {
                Ok(()) => {}
                Err(error) if is_no_space(&error) => drop(remove_if_there(path)),
                Err(error) => return Err(error).context("reserve space in", path),
            }
        }
        Ok(())
    }

    /// Does the work; when there is no space, gives up the reserve and does it again.
    pub(super) fn spending_reserve(&self, work: impl Fn() -> Result<(), Error>) -> Result<(), Error> {
        let result = work();
        let (Err(error), Some(directory)) = (&result, &self.reserve) else { return result };
        let files = reserve_files(directory);
        if !error.is_no_space() || files.is_empty() {
            return result;
        }
        self.ask("free the reserve", directory)?;
        for file in &files {
            remove_if_there(file).context("free the reserve", file)?;
        }
        // The space comes back with the file system's next commit.
        let folder = open::directory(directory).context("free the reserve", directory)?;
        nix::unistd::syncfs(&folder).context("free the reserve", directory)?;
        work()
    }
}

fn is_btrfs(path: &Path) -> bool {
    statfs(path).is_ok_and(|found| found.filesystem_type() == BTRFS_SUPER_MAGIC)
}

fn reserve_files(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nix::errno::Errno;

    use super::super::Change;
    use super::*;

    #[test]
    fn the_reserve_is_spent_when_there_is_no_space() {
        let directory = tempfile::tempdir().unwrap();
        let reserve = directory.path().join("reserve");
        Disk::default().with_reserve(reserve.clone()).fill_reserve().unwrap();
        let full = reserve.clone();
        let disk = Disk::with_probe(Arc::new(move |change: Change<'_>| {
            if change.action == "write" && !reserve_files(&full).is_empty() {
                return Err(Errno::ENOSPC.into());
            }
            Ok(())
        }))
        .with_reserve(reserve.clone());
        disk.replace(&directory.path().join("file"), b"x", 0o600).unwrap();
        assert!(reserve_files(&reserve).is_empty());
    }
}
