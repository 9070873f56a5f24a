//! Building a tree from an ordinary archive.
//!
//! The archive is read once, from one end to the other, and each file is hashed while it is written, so that the digest
//! of the finished tree costs no second reading. It is decompressed and unpacked behind a [`wall`]: the thread that
//! does it can change nothing but that tree. A refused archive leaves an empty directory behind.

use std::io::{self, Read};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use nix::errno::Errno;
use nix::sys::stat::{Mode, fchmod};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, fstatfs};
use sha2::{Digest as _, Sha256};

use super::archive::{
    self, Admitted, Ledger, Limits, Member, MemberKind, Node, NodeKind, Reader, Rule, Span,
};
use super::tree::{self, Meta, Root, Times, TreeWriter};
use crate::sys::disk::{self, Context, Disk};
use crate::sys::wall;
use crate::types::entry::{Entry, TreeDigest};
use crate::types::progress::{Activity, Progress};
use crate::types::{Digest, escaped};

/// A tree that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The digest of the tree as it is on disk: what [`super::scan::digest`] finds.
    pub tree: Digest,
    /// The digest of the tree as the archive says that it is: what its manifest signs. It differs from `tree` only
    /// where owners and special bits could not be given, by a process that is not root's, and times that the file system
    /// does not have.
    pub declared: Digest,
    /// Entries of the archive, and directories that have none.
    pub entries: u64,
    pub files: u64,
    /// Bytes of the files, holes included.
    pub bytes: u64,
    /// Whether all belongs to whom the process runs as, whatever the archive says.
    pub kept_owner: bool,
    /// How many files lost their setuid and setgid bits for the same reason.
    pub dropped_setid: u64,
}

/// Why no tree was built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The archive is refused, or cannot be read.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// The machine refused a change.
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

/// Unpacks an archive into the empty directory `into`, which nobody else may write to. Nothing is synced.
///
/// # Errors
/// When the archive breaks a rule or the machine refuses; what was made is removed again, as far as that is possible.
pub fn unpack(
    archive: impl Read + Send + 'static,
    name: &str,
    into: &Path,
    limits: &Limits,
    disk: &Disk,
    progress: &dyn Progress,
) -> Result<Built, Error> {
    let root = Arc::new(Root::open(into, disk)?);
    let (written, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    progress.begin(Activity::Unpack, None, None);
    let built = thread::scope(|scope| {
        // btrfs gains nothing by it: its commits write the same metadata again each time.
        let is_flushed = !fstatfs(&*root).is_ok_and(|found| found.filesystem_type() == BTRFS_SUPER_MAGIC);
        let flusher =
            is_flushed.then(|| scope.spawn(|| tree::flush_behind(&*root, into, disk, &written, &is_over)));
        let built = wall::behind(Some(&*root), || {
            let reader = Reader::open(archive, name, limits)?;
            let writer = TreeWriter::new(root.clone());
            Staging { writer, reader, progress, written: &written, dropped_setid: 0 }.run()
        });
        is_over.store(true, Ordering::Release);
        if let Some(flusher) = flusher {
            flusher.thread().unpark();
            flusher.join().unwrap_or_else(|panic| resume_unwind(panic))?;
        }
        built
    });
    progress.end();
    if built.is_err() {
        // The first error is the one to tell; whatever is left, the store's own cleaning finds.
        drop(tree::empty(&root, disk));
    }
    built
}

struct Staging<'a> {
    reader: Reader,
    writer: TreeWriter,
    progress: &'a dyn Progress,
    /// Bytes, for the helper that writes them back meanwhile.
    written: &'a AtomicU64,
    dropped_setid: u64,
}

impl Staging<'_> {
    fn run(mut self) -> Result<Built, Error> {
        let root = self.writer.root().clone();
        fchmod(&root, Mode::S_IRWXU).context("set the mode of", root.path())?;
        while let Some((member, admitted)) = self.reader.next_member()? {
            for place in admitted.implied.clone() {
                let path = self.reader.ledger().path(place);
                let made = self.writer.directory(&path);
                made.map_err(|error| self.judged(error))?;
            }
            if !admitted.is_repeated {
                self.make(&member, &admitted)?;
            }
        }
        self.finish_directories()?;
        if let Some(name) = self.reader.left_out() {
            tracing::warn!(
                "attributes of other systems, such as `{}`, mean nothing here and are left out",
                escaped(name)
            );
        }
        let times = Times::of(&*root, root.path())?;
        fchmod(&root, Mode::from_bits_truncate(0o755)).context("set the mode of", root.path())?;
        let kept_owner = !root.may_give_away();
        let ledger = self.reader.ledger();
        let declared = digest(ledger, |_| {});
        let is_as_declared = !kept_owner && times == Times::ALL;
        let tree = if is_as_declared { declared } else { digest(ledger, |entry| self.as_here(entry, times)) };
        let totals = ledger.totals();
        Ok(Built {
            tree,
            declared,
            entries: totals.entries,
            files: totals.files,
            bytes: totals.bytes,
            kept_owner,
            dropped_setid: self.dropped_setid,
        })
    }

    fn make(&mut self, member: &Member, admitted: &Admitted) -> Result<(), Error> {
        let path = &member.path;
        let made = match &member.kind {
            MemberKind::Directory => self.writer.directory(path),
            MemberKind::Link { target } => {
                let meta = self.meta(admitted.node);
                self.writer.link(path, target, &meta)
            }
            MemberKind::HardLink { .. } => {
                let ledger = self.reader.ledger();
                match ledger.node(admitted.node).kind {
                    NodeKind::HardLink { file } => self.writer.hard_link(path, &ledger.path(file)),
                    _ => {
                        let meta = self.meta(admitted.node);
                        self.writer.link(path, self.reader.ledger().link_target(admitted.node), &meta)
                    }
                }
            }
            MemberKind::File { size, spans } => {
                return self.file(member, *size, spans.as_deref(), admitted.node);
            }
        };
        self.progress.advance(0, 1);
        made.map_err(|error| self.judged(error))
    }

    fn file(&mut self, member: &Member, size: u64, spans: Option<&[Span]>, node: u32) -> Result<(), Error> {
        let xattrs = member.xattrs.clone();
        let meta = Meta { xattrs: Some(&xattrs), ..self.meta(node) };
        if member.mode & !meta.mode != 0 {
            self.dropped_setid += 1;
        }
        let opened = self.writer.file(&member.path, &meta);
        let mut file = opened.map_err(|error| self.judged(error))?;
        let whole = [Span { offset: 0, length: size }];
        let mut spans = spans.unwrap_or(&whole).iter().copied();
        let mut span = spans.next().unwrap_or(Span { offset: size, length: 0 });
        let mut hasher = Sha256::new();
        let mut hashed = 0;
        let (progress, written) = (self.progress, self.written);
        self.reader.data::<Error>(|mut bytes| {
            written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            progress.advance(bytes.len() as u64, 0);
            while !bytes.is_empty() {
                if span.length == 0 {
                    // The sum of all spans is the length of the data, so another one is there.
                    let Some(next) = spans.next() else { return Ok(()) };
                    span = next;
                    continue;
                }
                let length = bytes.len().min(usize::try_from(span.length).unwrap_or(usize::MAX));
                let (here, rest) = bytes.split_at(length);
                hash_zeros(&mut hasher, span.offset - hashed);
                hasher.update(here);
                file.write(here, span.offset)?;
                span.offset += length as u64;
                span.length -= length as u64;
                hashed = span.offset;
                bytes = rest;
            }
            Ok(())
        })?;
        hash_zeros(&mut hasher, size - hashed);
        self.reader.ledger_mut().set_content(node, hasher.into());
        file.finish(size, &meta)?;
        self.progress.advance(0, 1);
        Ok(())
    }

    fn finish_directories(&mut self) -> Result<(), Error> {
        let ledger = self.reader.ledger();
        for place in ledger.in_order().into_iter().rev() {
            let node = ledger.node(place);
            if matches!(node.kind, NodeKind::Directory) {
                let meta = Meta { xattrs: ledger.xattrs(place), ..meta_of(node, self.writer.root()) };
                self.writer.finish_directory(&ledger.path(place), &meta)?;
            }
        }
        Ok(())
    }

    fn meta(&self, place: u32) -> Meta<'static> {
        meta_of(self.reader.ledger().node(place), self.writer.root())
    }

    /// Makes of an entry of the archive what it is on disk, when the process is not root's, or times are kept in part.
    fn as_here(&self, entry: &mut Entry, times: Times) {
        entry.mtime = times.kept(entry.mtime);
        if self.writer.root().may_give_away() {
            return;
        }
        let (uid, gid) = self.writer.root().owner();
        (entry.uid, entry.gid) = (uid, gid);
        if matches!(entry.kind, crate::types::entry::Kind::File { .. }) {
            entry.mode &= !0o6000;
        }
    }

    /// An error of the machine that is the archive's fault: names that this file system takes for equal, or not at all.
    fn judged(&self, error: disk::Error) -> Error {
        const NAMES: [Errno; 5] =
            [Errno::EEXIST, Errno::EINVAL, Errno::EILSEQ, Errno::ENAMETOOLONG, Errno::EMLINK];
        let number = error.source.raw_os_error().unwrap_or(0);
        if NAMES.iter().any(|errno| *errno as i32 == number) {
            let cause = io::Error::from_raw_os_error(number).to_string();
            return self.reader.refuse(Rule::FileSystemName(cause)).into();
        }
        error.into()
    }
}

fn meta_of(node: &Node, root: &Root) -> Meta<'static> {
    let mode = u32::from(node.mode);
    let mtime = (node.seconds, node.nanoseconds);
    if root.may_give_away() {
        return Meta { mode, uid: node.uid, gid: node.gid, mtime, xattrs: None };
    }
    let (uid, gid) = root.owner();
    let is_file = matches!(node.kind, NodeKind::File { .. });
    Meta { mode: if is_file { mode & !0o6000 } else { mode }, uid, gid, mtime, xattrs: None }
}

fn digest(ledger: &Ledger, change: impl Fn(&mut Entry)) -> Digest {
    let mut digest = TreeDigest::default();
    for mut entry in ledger.entries() {
        change(&mut entry);
        digest.add(&entry);
    }
    digest.finish()
}

fn hash_zeros(hasher: &mut Sha256, mut length: u64) {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while length > 0 {
        let now = length.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..now as usize]);
        length -= now;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::process::Command;

    use super::*;
    use crate::release::scan;
    use crate::types::progress::Silent;

    fn run(command: &str, directory: &Path) {
        let status = Command::new("sh").args(["-ec", command]).current_dir(directory).status().unwrap();
        assert!(status.success(), "{command}");
    }

    fn unpacked(archive: &Path, into: &Path) -> Result<Built, Error> {
        let file = std::fs::File::open(archive).unwrap();
        let limits = Limits { allow_setid: true, ..Limits::default() };
        unpack(file, &archive.display().to_string(), into, &limits, &Disk::default(), &Silent)
    }

    #[test]
    fn a_tree_comes_out_as_gnu_tar_and_gzip_and_zstd_put_it_in() {
        let place = tempfile::tempdir().unwrap();
        run(
            "mkdir -p in/a/b in/c; echo one > in/a/one; ln in/a/one in/c/again; ln -s ../one in/a/link
             printf '%s' two > in/a/b/two; chmod 1777 in/c; [ $(id -u) != 0 ] || { chown 1:2 in/a/b/two; chmod 4755 in/a/b/two; }
             truncate -s 10M in/holes; printf x | dd of=in/holes bs=1 seek=5000000 conv=notrunc status=none
             touch -d 2001-02-03T04:05:06.789 in/a; : > in/empty; mkfifo in/fifo; rm in/fifo
             touch in/$(printf %0200d 7) 'in/a
b'; mkdir -p in/$(printf %0150d 1)/$(printf %0150d 2)
             tar -C in --sparse --format=gnu -cf gnu.tar . ; tar -C in --sparse --format=pax -czf pax.tar.gz .
             cd in; tar --format=gnu --zstd -cf ../gnu.tar.zst *",
            place.path(),
        );
        let wanted = scan::walk(&place.path().join("in")).unwrap();
        let wanted: BTreeMap<_, _> = wanted
            .map(|entry| entry.map(|entry| (entry.path.clone(), entry)))
            .collect::<Result<_, _>>()
            .unwrap();
        for archive in ["gnu.tar", "pax.tar.gz", "gnu.tar.zst"] {
            let into = place.path().join(format!("{archive}.d"));
            run(&format!("mkdir {archive}.d"), place.path());
            let built = unpacked(&place.path().join(archive), &into).unwrap();
            assert_eq!(scan::digest(&into).unwrap(), built.tree, "{archive}");
            for entry in scan::walk(&into).unwrap() {
                let mut entry = entry.unwrap();
                let wanted = &wanted[&entry.path];
                if archive.starts_with("gnu") {
                    entry.mtime.1 = wanted.mtime.1;
                }
                assert_eq!(&entry, wanted, "{archive}");
            }
            assert_eq!(built.entries, wanted.len() as u64, "{archive}");
        }
    }

    #[test]
    fn a_refused_archive_leaves_nothing() {
        let place = tempfile::tempdir().unwrap();
        run("mkdir -p in/a; echo x > in/a/x; tar -C in -cf x.tar a; mkdir out", place.path());
        let bytes = std::fs::read(place.path().join("x.tar")).unwrap();
        Disk::default().replace(&place.path().join("cut.tar"), &bytes[..1536], 0o600).unwrap();
        let error = unpacked(&place.path().join("cut.tar"), &place.path().join("out")).unwrap_err();
        assert!(error.to_string().contains("no end mark"), "{error}");
        assert_eq!(std::fs::read_dir(place.path().join("out")).unwrap().count(), 0);
    }
}
