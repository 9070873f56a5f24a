//! Makes an archive of a directory: a `.tar.zst` like any other, that also carries an index.
//!
//! ```text
//! links   symbolic links, in path order
//! files   by the release in which their content last changed, the newest first; within one by path
//!         small ones in groups; those over 1 MiB in chunks of their own, cut by content
//! names   further hard links, in path order
//! end     directories, in path order, and the end of the tar
//! ```
//! Directories come last because tar programs give a directory its time and mode before they have made all entries
//! in it: these would then change the time, and would not get into a directory that nobody may write.
//!
//! So whoever has an earlier release reads little more than the start. The same tree, base, level and version of zstd
//! give the same bytes.

mod base;
mod chunks;
mod output;
mod pages;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base::Base;
use output::{Compressors, Output};
use pages::{Pages, Totals};

use super::archive::Limits;
use super::channel::{CHANNEL_BYTES_MAX, Channel};
use super::exclusive::{self, Exclusive};
use super::index::member::{END, header, padding};
use super::index::meta::{XATTRS_MAX, check_path};
use super::index::{self, FrameKind, Record};
use super::scan;
use super::source::{LocalFile, local};
use super::trust::signature_file;
use crate::sys::access_list;
use crate::sys::disk::{self, Context as _, Disk};
use crate::types::entry::{Entry, Kind, TreeDigest};
use crate::types::progress::{Activity, Progress};
use crate::types::{Digest, Version, escaped_path};

/// The level at which frames are compressed unless told otherwise.
pub const LEVEL: i32 = 9;
/// Files longer than this are cut into chunks.
const SMALL_MAX: u64 = 1 << 20;
/// Plain bytes of a group: a 64th of all within these bounds, so that small releases are unpacked in parallel, too.
const GROUP_MIN: u64 = 256 << 10;
const GROUP_MAX: u64 = 8 << 20;

/// What is to be packed, and how.
#[derive(Clone, Debug)]
pub struct PackOrder {
    pub directory: PathBuf,
    pub product: String,
    pub version: Version,
    /// The archive; replaced when it is there.
    pub output: PathBuf,
    /// The archive of the release before: what did not change since keeps its time, and its place behind what did.
    pub base: Option<PathBuf>,
    /// Level of compression: 1 to 19.
    pub level: i32,
    /// Threads; 0 for as many as there are cores.
    pub jobs: usize,
    /// Whose the entries are on the nodes.
    pub owners: Owners,
}

/// Whose the entries of a release are: numbers, which mean somebody else on each machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    Root,
    /// All belong to this user and group.
    These(u32, u32),
    /// Each belongs to whom it belongs to here.
    Kept,
}

impl Owners {
    /// Gives an entry its owner on the nodes.
    fn apply(self, entry: &mut Entry) -> Result<(), index::Error> {
        let (uid, gid) = match self {
            Self::Kept => return Ok(()),
            Self::These(uid, gid) => (uid, gid),
            Self::Root => {
                let is_setid = matches!(entry.kind, Kind::File { .. }) && entry.mode & 0o6000 != 0;
                if is_setid && (entry.uid, entry.gid) != (0, 0) {
                    let rule = "it is setuid or setgid, and would become root's: say whose it is with `--owner U:G` \
                         or `--keep-owner`";
                    return Err(index::Error::Entry { path: entry.path.clone(), rule });
                }
                (0, 0)
            }
        };
        (entry.uid, entry.gid) = (uid, gid);
        Ok(())
    }
}

/// What was packed: what a manifest says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed {
    /// Bytes of the archive.
    pub size: u64,
    /// SHA-256 of the archive.
    pub sha256: Digest,
    /// SHA-256 of the root of its index.
    pub index: Digest,
    pub tree: Digest,
    /// Bytes of all files.
    pub unpacked: u64,
    pub entries: u64,
    /// Sockets, which are no part of it.
    pub left_out: Vec<Vec<u8>>,
}

/// A directory that cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody writes into the directory.
    #[error("cannot pack `{}`: it changed meanwhile", escaped_path(.0))]
    Changed(PathBuf),
    /// The base cannot be used.
    #[error("cannot use `{}` as the base: it is an archive without an index", escaped_path(.0))]
    BaseWithoutIndex(PathBuf),
    /// There is nothing to pack.
    #[error("cannot pack `{}`: it is empty", escaped_path(.0))]
    Empty(PathBuf),
    /// What would be replaced is published.
    #[error("`{}` has been published, and is not replaced", escaped_path(.0))]
    Published(PathBuf),
    /// Somebody else packs to the same place.
    #[error(transparent)]
    Lock(#[from] exclusive::Error),
    /// The format has no room for it.
    #[error("the release is too large: its index would be longer than 4 GiB")]
    TooLarge,
    #[error("cannot compress")]
    Compress(#[source] io::Error),
    /// An entry breaks a rule of the format, or the base does.
    #[error(transparent)]
    Index(#[from] index::Error),
    #[error(transparent)]
    Disk(#[from] disk::Error),
}

/// Packs a directory into an archive. The archive appears whole, by one rename.
///
/// # Errors
/// When the directory has what no release may have, changes meanwhile, or the disk refuses.
pub fn pack(order: &PackOrder, disk: &Disk, progress: &dyn Progress) -> Result<Packed, Error> {
    pack_with(order, disk, progress, |_| Ok(()))
}

/// Packs like [`pack`], and has `finish` write what goes with the archive before anybody else packs to the same place.
///
/// # Errors
/// Those of [`pack`] and `finish`; also when the archive that is there has been published, or somebody else packs to it.
pub fn pack_with(
    order: &PackOrder,
    disk: &Disk,
    progress: &dyn Progress,
    finish: impl FnOnce(&Packed) -> Result<(), disk::Error>,
) -> Result<Packed, Error> {
    let _lock = Exclusive::acquire(disk, &beside(&order.output, "lock"), Duration::ZERO)?;
    ensure_not_published(order)?;
    let private = beside(&order.output, "new");
    let packed = write(order, &private, disk, progress);
    let packed = packed.and_then(|packed| {
        read_back(&private, &packed)?;
        disk.rename(&private, &order.output)?;
        Ok(packed)
    });
    match packed {
        Ok(packed) => {
            progress.end();
            finish(&packed)?;
            Ok(packed)
        }
        Err(error) => {
            // The first error is the one to tell.
            drop(disk.remove_file(&private));
            Err(error)
        }
    }
}

/// Writes the archive to a private file.
fn write(order: &PackOrder, private: &Path, disk: &Disk, progress: &dyn Progress) -> Result<Packed, Error> {
    let mut base = order.base.as_deref().map(Base::open).transpose()?;
    progress.begin(Activity::Pack, None, None);
    let mut records = Vec::new();
    let mut walk = scan::walk(&order.directory)?;
    for entry in walk.by_ref() {
        let mut entry = entry?;
        check_entry(&entry)?;
        order.owners.apply(&mut entry)?;
        records.push(Record { entry, generation: 0 });
    }
    if let Some(path) = walk.others().first() {
        return Err(index::Error::Entry { path: path.clone(), rule: scan::OTHER }.into());
    }
    let left_out = walk.sockets().to_vec();
    if records.is_empty() {
        return Err(Error::Empty(order.directory.clone()));
    }
    if let Some(base) = &mut base {
        base.date(&mut records)?;
    }
    let mut tree = TreeDigest::default();
    records.iter().for_each(|record| tree.add(&record.entry));
    let tree = tree.finish();
    let totals = Totals::of(&records, tree);
    let (unpacked, entries) = (totals.plain, totals.entries);
    progress.begin(Activity::Pack, Some(unpacked), Some(entries));

    disk.ask("write", &order.output)?;
    let mut output = Output::create(private)?;
    let group = (unpacked / 64).clamp(GROUP_MIN, GROUP_MAX);
    let (frames, locations) = std::thread::scope(|scope| {
        let compressors = Compressors::start(scope, threads(order.jobs), order.level);
        let writer = Members {
            directory: &order.directory,
            group: usize::try_from(group).unwrap_or(usize::MAX),
            open: Vec::new(),
            compressors,
            output: &mut output,
            progress,
        };
        writer.write(&records)
    })?;
    let mut pages = Pages::default();
    pages.add_entries(&records)?;
    pages.add_frames(&frames)?;
    pages.add_locations(&locations)?;
    let index = pages.finish(totals, &frames, base.as_ref().map(Base::root), &mut output)?;
    let (size, sha256) = output.finish()?;
    Ok(Packed { size, sha256, index, tree, unpacked, entries, left_out })
}

/// What the format cannot carry.
fn check_entry(entry: &Entry) -> Result<(), index::Error> {
    check_path(&entry.path)?;
    let refuse = |rule| Err(index::Error::Entry { path: entry.path.clone(), rule });
    if entry.xattrs.keys().any(|name| access_list::is_one(name)) {
        return refuse(
            "it has an access list (ACL), which no release carries: `setfacl -R -b` takes it off, or pack a copy \
             without (`cp -r --no-preserve=all`)",
        );
    }
    let sizes = entry.xattrs.iter().map(|(name, value)| name.len() + value.len());
    if sizes.sum::<usize>() > XATTRS_MAX {
        return refuse("its extended attributes are longer than 64 KiB");
    }
    if entry.xattrs.keys().any(|name| name.contains(&b'=')) {
        return refuse("the name of an extended attribute has a `=`");
    }
    Ok(())
}

/// Opens a file that must still have `size` bytes.
fn open(path: &Path, size: u64) -> Result<File, Error> {
    let file = File::open(path).context("open", path)?;
    let now = file.metadata().context("look at", path)?.len();
    if now == size { Ok(file) } else { Err(Error::Changed(path.to_owned())) }
}

/// A name beside the archive, which lists of archives pass over.
fn beside(output: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(output.file_name().unwrap_or_default());
    name.push(".");
    name.push(end);
    output.with_file_name(name)
}

/// Refuses to replace what nodes may fetch: a release that is signed, or that a channel beside it names.
fn ensure_not_published(order: &PackOrder) -> Result<(), Error> {
    let published = || Err(Error::Published(order.output.clone()));
    let manifest = local::manifest_beside(&order.output);
    if manifest.as_deref().is_some_and(|path| path.exists() && signature_file(path).exists()) {
        return published();
    }
    let folder = order.output.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    for entry in std::fs::read_dir(folder).context("list", folder)? {
        let path = entry.context("list", folder)?.path();
        if order.output.exists() && path.extension().is_some_and(|end| end == "channel") {
            let bytes = disk::read_small(&path, CHANNEL_BYTES_MAX).ok().flatten().unwrap_or_default();
            let names =
                |channel: Channel| channel.product == order.product && channel.find(&order.version).is_some();
            if Channel::parse(&bytes).is_ok_and(names) {
                return published();
            }
        }
    }
    Ok(())
}

/// Reads the archive as a node does, before it is shown: what a disk or a mistake of ours made of it is found here.
fn read_back(path: &Path, packed: &Packed) -> Result<(), Error> {
    let changed = || Error::Changed(path.to_owned());
    let mut file = File::open(path).context("open", path)?;
    let mut hasher = sha2::Sha256::default();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer).context("read", path)? {
            0 => break,
            read => sha2::Digest::update(&mut hasher, &buffer[..read]),
        }
    }
    if Digest::from(hasher) != packed.sha256 {
        return Err(changed());
    }
    let source = LocalFile::new(file, path).map_err(index::Error::from)?;
    let index = index::Index::open(Arc::new(source), Some(packed.index))?.ok_or_else(changed)?;
    let limits = Limits {
        bytes: u64::MAX,
        entries: u64::MAX,
        allow_setid: true,
        allow_capabilities: true,
        ..Limits::default()
    };
    Ok(index::check(&index, &limits)?)
}

fn threads(jobs: usize) -> usize {
    if jobs > 0 { jobs } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

struct Members<'a> {
    directory: &'a Path,
    group: usize,
    /// The frame that is being filled.
    open: Vec<u8>,
    compressors: Compressors,
    output: &'a mut Output,
    progress: &'a dyn Progress,
}

impl Members<'_> {
    /// Writes all members; gives the frames, and the first frame of each file in path order.
    fn write(mut self, records: &[Record]) -> Result<(Vec<index::Frame>, Vec<u64>), Error> {
        for record in records {
            if matches!(record.entry.kind, Kind::Link { .. }) {
                self.header(FrameKind::Links, record)?;
            }
        }
        self.close(FrameKind::Links)?;
        let files: Vec<&Record> = records.iter().filter(|record| record.has_content()).collect();
        let mut order: Vec<usize> = (0..files.len()).collect();
        order.sort_by_key(|at| (std::cmp::Reverse(files[*at].generation), *at));
        let mut locations = vec![0; files.len()];
        let mut generation = None;
        for at in order {
            let record = files[at];
            if generation.replace(record.generation) != Some(record.generation) {
                self.close(FrameKind::Group)?;
            }
            locations[at] = self.file(record)?;
        }
        self.close(FrameKind::Group)?;
        for record in records.iter().filter(|record| record.entry.same_as.is_some()) {
            self.header(FrameKind::HardLinks, record)?;
        }
        self.close(FrameKind::HardLinks)?;
        for record in records.iter().filter(|record| record.entry.kind == Kind::Directory) {
            self.header(FrameKind::End, record)?;
        }
        self.open.resize(self.open.len() + END, 0);
        self.close(FrameKind::End)?;
        Ok((self.compressors.finish(self.output)?, locations))
    }

    fn header(&mut self, kind: FrameKind, record: &Record) -> Result<(), Error> {
        let header = header(&record.entry);
        self.make_room(kind, header.len())?;
        self.open.extend(header);
        Ok(())
    }

    fn make_room(&mut self, kind: FrameKind, length: usize) -> Result<(), Error> {
        if self.open.len() + length > self.group { self.close(kind) } else { Ok(()) }
    }

    fn close(&mut self, kind: FrameKind) -> Result<(), Error> {
        if self.open.is_empty() {
            return Ok(());
        }
        let plain = std::mem::take(&mut self.open);
        self.compressors.give(kind, plain, self.output)
    }

    /// Writes a file; gives the number of the frame in which its content begins.
    fn file(&mut self, record: &Record) -> Result<u64, Error> {
        let Kind::File { size, content } = record.entry.kind else { return Ok(0) };
        let path = self.directory.join(OsStr::from_bytes(&record.entry.path));
        let header = header(&record.entry);
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let location = if size > SMALL_MAX {
            self.make_room(FrameKind::Group, header.len())?;
            self.open.extend(header);
            self.close(FrameKind::Group)?;
            let location = self.compressors.next_number();
            self.chunks(&path, size, content)?;
            location
        } else {
            self.make_room(FrameKind::Group, header.len() + length + padding(size))?;
            self.open.extend(header);
            let start = self.open.len();
            let mut file = open(&path, size)?.take(size + 1);
            file.read_to_end(&mut self.open).context("read", &path)?;
            if Digest::of(&self.open[start..]) != content {
                return Err(Error::Changed(path));
            }
            self.compressors.next_number()
        };
        self.open.resize(self.open.len() + padding(size), 0);
        self.progress.advance(size, 1);
        Ok(location)
    }

    fn chunks(&mut self, path: &Path, size: u64, content: Digest) -> Result<(), Error> {
        use sha2::{Digest as _, Sha256};
        let mut file = open(path, size)?;
        let mut hasher = Sha256::new();
        let mut bytes = Vec::with_capacity(chunks::MAX);
        loop {
            let wanted = chunks::MAX - bytes.len();
            let read = (&mut file).take(wanted as u64).read_to_end(&mut bytes).context("read", path)?;
            hasher.update(&bytes[bytes.len() - read..]);
            if bytes.is_empty() {
                break;
            }
            let rest = bytes.split_off(chunks::first_cut(&bytes));
            self.compressors.give(FrameKind::Chunk, std::mem::replace(&mut bytes, rest), self.output)?;
        }
        if Digest::from(hasher) == content { Ok(()) } else { Err(Error::Changed(path.to_owned())) }
    }
}
