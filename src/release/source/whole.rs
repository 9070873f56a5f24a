//! Fetching a whole archive into a private file, to the exact byte and digest.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use sha2::{Digest as _, Sha256};

use super::{Error, Ranges};
use crate::types::Digest;
use crate::types::progress::{Activity, Progress};

/// Bytes moved at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Copies the archive into `private` and compares size and digest with the signed ones.
///
/// Takes up where a fetch before it was cut: the bytes that `private` has are hashed, the rest is read from the source.
/// If the digest is then wrong, all is fetched once more, since what was there may have been of another archive.
/// Afterwards `private` stands at its beginning. Unpack from this same descriptor: its name is never looked up again.
/// Bytes that do not have the signed digest are removed from `private` at once.
///
/// # Errors
/// [`Error::Size`] and [`Error::Digest`] when the archive is not the signed one; else what hindered the transfer.
pub fn fetch_whole(
    ranges: &dyn Ranges,
    size: u64,
    digest: Digest,
    private: &mut File,
    progress: &dyn Progress,
) -> Result<(), Error> {
    if ranges.size() != size {
        return Err(Error::Size { found: ranges.size(), signed: size });
    }
    progress.begin(Activity::Fetch, Some(size), None);
    let fetched = fetch(ranges, size, digest, private, progress);
    progress.end();
    if fetched.as_ref().is_err_and(Error::is_refusal) {
        private.set_len(0).map_err(Error::Write)?;
    }
    fetched
}

fn fetch(
    ranges: &dyn Ranges,
    size: u64,
    digest: Digest,
    private: &mut File,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let there = private.metadata().map_err(Error::Write)?.len();
    let resume_at = if there <= size { there } else { 0 };
    match copy(ranges, size, digest, private, resume_at, progress) {
        Err(Error::Digest { .. }) if resume_at > 0 => copy(ranges, size, digest, private, 0, progress),
        copied => copied,
    }
}

/// Keeps the first `resume_at` bytes, and copies the others.
fn copy(
    ranges: &dyn Ranges,
    size: u64,
    digest: Digest,
    private: &mut File,
    resume_at: u64,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    private.set_len(resume_at).and_then(|()| private.rewind()).map_err(Error::Write)?;
    let mut kept = Read::by_ref(private).take(resume_at);
    loop {
        let read = kept.read(&mut buffer).map_err(Error::Write)?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
        progress.advance(read as u64, 0);
    }
    private.seek(SeekFrom::Start(resume_at)).map_err(Error::Write)?;
    let mut left = size - resume_at;
    let mut reader = if left > 0 { ranges.read_range(resume_at, left)? } else { Box::new(io::empty()) };
    while left > 0 {
        let wanted = CHUNK_BYTES.min(usize::try_from(left).unwrap_or(CHUNK_BYTES));
        let read = match reader.read(&mut buffer[..wanted]) {
            Ok(0) => return Err(Error::cut("the archive")),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::reading("the archive", error)),
        };
        hasher.update(&buffer[..read]);
        private.write_all(&buffer[..read]).map_err(Error::Write)?;
        left -= read as u64;
        progress.advance(read as u64, 0);
    }
    let found = Digest::from(hasher);
    if found != digest {
        return Err(Error::Digest { found, signed: digest });
    }
    private.rewind().map_err(Error::Write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::progress::Silent;

    fn fetched(archive: &Vec<u8>, signed: &[u8], private: &mut File) -> Result<Vec<u8>, Error> {
        fetch_whole(archive, signed.len() as u64, Digest::of(signed), private, &Silent)?;
        let mut bytes = Vec::new();
        private.read_to_end(&mut bytes).unwrap();
        Ok(bytes)
    }

    #[test]
    fn an_archive_comes_whole_whatever_was_there_before() {
        let archive: Vec<u8> = (0..700_000_u32).flat_map(u32::to_le_bytes).collect();
        for there in [&archive[..0], &archive[..1], &archive[..300_001], &archive[..], b"something else"] {
            let mut private = tempfile::tempfile().unwrap();
            private.write_all(there).unwrap();
            assert!(fetched(&archive, &archive, &mut private).unwrap() == archive, "{} bytes", there.len());
        }
    }

    #[test]
    fn another_archive_is_refused_and_not_kept() {
        let (signed, other) = (vec![1; 1000], vec![2; 1000]);
        let mut private = tempfile::tempfile().unwrap();
        assert!(matches!(fetched(&other, &signed, &mut private), Err(Error::Digest { .. })));
        assert_eq!(private.metadata().unwrap().len(), 0);
        for wrong_size in [vec![1; 999], vec![1; 1001]] {
            assert!(matches!(fetched(&wrong_size, &signed, &mut private), Err(Error::Size { .. })));
        }
    }
}
