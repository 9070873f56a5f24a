//! Lays out a tree: everything but the contents that must come from the archive.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use super::super::meta::{PageReader, PageWriter, Record, parent_of};
use super::super::{Error, Index, PageKind};
use super::join::{Numbered, Pair, changed_of_old, join};
use super::owner::{Owner, admit};
use super::reuse::{Method, Reuse, has_same_content, note};
use super::work::Plan;
use super::{StageOrder, Staged};
use crate::release::tree::{Root, TreeWriter};
use crate::sys::disk::{Context as _, Disk};
use crate::types::Digest;
use crate::types::entry::{Kind, TreeDigest};
use crate::types::progress::Progress;

/// A tree that is being laid out.
pub struct Layout<'a> {
    index: &'a Index<'a>,
    order: &'a StageOrder<'a>,
    progress: &'a dyn Progress,
    pub(super) root: Arc<Root>,
    pub(super) owner: Owner,
    writer: TreeWriter,
    reuse: Option<Reuse<'a>>,
    /// The tree began as a snapshot of the base.
    is_snapshot: bool,
    /// What must come from the archive.
    pub(super) plan: Plan,
    /// How many files must come from it, those not counted that the base has under another name.
    pub(super) waiting: u64,
    needed: HashSet<Digest>,
    /// Entries of each kind, written like pages.
    pub(super) links: PageWriter,
    pub(super) hard_links: PageWriter,
    pub(super) directories: PageWriter,
    /// Directories of the base in which something changes, with their times.
    touched: BTreeMap<Vec<u8>, (i64, u32)>,
    pub(super) inodes: Vec<AtomicU64>,
    declared: TreeDigest,
    here: TreeDigest,
    reused: u64,
}

impl<'a> Layout<'a> {
    /// Nothing is made yet.
    pub fn new(
        index: &'a Index<'a>,
        order: &'a StageOrder<'a>,
        disk: &Disk,
        progress: &'a dyn Progress,
    ) -> Result<Self, Error> {
        let root = Arc::new(Root::open(order.into, disk)?);
        let owner = Owner::of(&root);
        let reuse = order.base.map(|base| Reuse::new(base, order, owner, disk)).transpose()?;
        let mut inodes = Vec::new();
        inodes.resize_with(usize::try_from(index.root().files).unwrap_or(0), AtomicU64::default);
        Ok(Self {
            index,
            order,
            progress,
            writer: TreeWriter::new(Arc::clone(&root)),
            root,
            owner,
            is_snapshot: reuse.is_some() && order.method == Method::Btrfs,
            reuse,
            plan: Plan::new(index)?,
            waiting: 0,
            needed: HashSet::new(),
            links: PageWriter::default(),
            hard_links: PageWriter::default(),
            directories: PageWriter::default(),
            touched: BTreeMap::new(),
            inodes,
            declared: TreeDigest::default(),
            here: TreeDigest::default(),
            reused: 0,
        })
    }

    /// Whether all files come from the archive.
    pub fn is_complete(&self) -> bool {
        self.reuse.is_none()
    }

    fn base(&self) -> Option<&'a Index<'a>> {
        self.order.base.map(|base| &base.installed.index)
    }

    /// Makes directories, links, and the files that the base has under the same name.
    pub fn lay_out(&mut self) -> Result<(), Error> {
        let (index, base, skip) = (self.index, self.base(), self.is_snapshot);
        join(index, base, skip, &mut |pair| self.pair(pair))?;
        if skip {
            self.see_skipped();
        }
        Ok(())
    }

    fn pair(&mut self, pair: Pair) -> Result<(), Error> {
        match pair {
            Pair::New(new) => {
                self.take_notice(&new)?;
                if self.is_snapshot {
                    self.make_way(&new.record)?;
                }
                self.make(&new, None)
            }
            Pair::Both(new, old) => {
                self.take_notice(&new)?;
                if !self.is_snapshot {
                    return self.make(&new, Some(&old));
                }
                if new.record.entry == old.record.entry {
                    self.see_same(&new, &old);
                    return Ok(());
                }
                if new.record.entry.kind == Kind::Directory && old.record.entry.kind == Kind::Directory {
                    // What the new one does not have must go; there is no way to take attributes off here.
                    if new.record.entry.xattrs == old.record.entry.xattrs {
                        self.directories.add(&new.record);
                        return Ok(());
                    }
                    return self.refresh_directory(&new);
                }
                self.make_way(&new.record)?;
                self.make(&new, Some(&old))
            }
            Pair::Gone(old) if self.is_snapshot => self.make_way(&old.record),
            Pair::Gone(_) => Ok(()),
        }
    }

    fn take_notice(&mut self, new: &Numbered) -> Result<(), Error> {
        let entry = &new.record.entry;
        admit(entry, self.order.limits)?;
        if !self.is_snapshot {
            self.declared.add(entry);
            if self.owner.is_kept() {
                self.here.add(&self.owner.as_here(entry.clone()));
            }
        }
        Ok(())
    }

    /// A directory whose attributes changed: the old ones are taken off.
    fn refresh_directory(&mut self, new: &Numbered) -> Result<(), Error> {
        self.writer.clear_attributes(&new.record.entry.path)?;
        self.directories.add(&new.record);
        Ok(())
    }

    /// Removes what has an entry's name, and notes the time of its directory before.
    fn make_way(&mut self, record: &Record) -> Result<(), Error> {
        let path = &record.entry.path;
        let parent = parent_of(path);
        if !parent.is_empty() && !self.touched.contains_key(parent) {
            match self.writer.time_of_parent(path) {
                Ok(time) => drop(self.touched.insert(parent.to_vec(), time)),
                // The directory itself has gone already, or is something else now.
                Err(error) if is_no_directory(&error) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(self.writer.remove(path)?)
    }

    fn make(&mut self, new: &Numbered, old: Option<&Numbered>) -> Result<(), Error> {
        let record = &new.record;
        let entry = &record.entry;
        match &entry.kind {
            Kind::Directory => {
                self.writer.directory(&entry.path)?;
                self.directories.add(record);
            }
            Kind::Link { target } => {
                self.writer.link(&entry.path, target, &self.owner.meta(entry))?;
                if self.is_complete() {
                    self.links.add(record);
                }
            }
            Kind::File { .. } if entry.same_as.is_some() => self.hard_links.add(record),
            Kind::File { size, content } => {
                let old =
                    old.filter(|old| old.record.has_content() && has_same_content(&old.record.entry, entry));
                if let (Some(old), Some(reuse)) = (old, &mut self.reuse)
                    && let Some(inode) = reuse.take(&mut self.writer, record, &old.record, old.file)?
                {
                    note(&self.inodes, new.file, inode);
                    self.reused += 1;
                    return Ok(());
                }
                if self.reuse.is_some() && *size > 0 {
                    self.needed.insert(*content);
                }
                self.plan.add(self.index, record, new.file, self.reuse.is_none())?;
                self.waiting += 1;
            }
        }
        Ok(())
    }

    fn see_same(&mut self, new: &Numbered, old: &Numbered) {
        if let Some(base) = self.order.base.filter(|_| new.record.has_content()) {
            note(&self.inodes, new.file, base.installed.seen.inodes.get(old.file).copied().unwrap_or(0));
            self.reused += 1;
        }
    }

    /// The files of pages that both have kept their inodes.
    fn see_skipped(&mut self) {
        let Some(base) = self.order.base else { return };
        let mut starts = HashMap::new();
        let mut start = 0;
        for page in base.installed.index.root().of_kind(PageKind::Meta) {
            starts.insert(page.digest, start);
            start += usize::try_from(page.files).unwrap_or(0);
        }
        let mut at = 0;
        for page in self.index.root().of_kind(PageKind::Meta) {
            let files = usize::try_from(page.files).unwrap_or(0);
            if let Some(old) = starts.get(&page.digest) {
                for number in 0..files {
                    let inode = base.installed.seen.inodes.get(old + number).copied().unwrap_or(0);
                    note(&self.inodes, at + number, inode);
                }
                self.reused += page.files;
            }
            at += files;
        }
    }

    /// Takes over files that the base has under another name.
    pub fn take_moved(&mut self) -> Result<(), Error> {
        let (Some(base), Some(reuse)) = (self.base(), &mut self.reuse) else { return Ok(()) };
        if self.needed.is_empty() {
            return Ok(());
        }
        let needed = &self.needed;
        let mut sources: HashMap<Digest, Numbered> = HashMap::new();
        changed_of_old(self.index, base, self.is_snapshot, &mut |old| {
            if let Kind::File { content, .. } = &old.record.entry.kind
                && old.record.has_content()
                && needed.contains(content)
            {
                sources.entry(*content).or_insert(old);
            }
        })?;
        if sources.is_empty() {
            return Ok(());
        }
        let (writer, inodes, reused) = (&mut self.writer, &self.inodes, &mut self.reused);
        let waiting = &mut self.waiting;
        self.plan.reduce(&mut |record, number| {
            let Kind::File { content, .. } = &record.entry.kind else { return Ok(false) };
            let Some(old) = sources.get(content) else { return Ok(false) };
            let Some(inode) = reuse.take(writer, record, &old.record, old.file)? else { return Ok(false) };
            note(inodes, number, inode);
            *reused += 1;
            *waiting -= 1;
            Ok(true)
        })
    }

    /// Makes further hard links, and gives directories their metadata.
    pub fn finish(&mut self) -> Result<(), Error> {
        let page = self.hard_links.take();
        for record in PageReader::new(&page) {
            let entry = record?.entry;
            let Some(first) = &entry.same_as else { continue };
            self.writer.hard_link(&entry.path, first)?;
            self.check_link(&entry)?;
        }
        for (path, time) in std::mem::take(&mut self.touched) {
            self.writer.set_time(&path, time)?;
        }
        let page = self.directories.take();
        let directories: Vec<Record> = PageReader::new(&page).collect::<Result<_, _>>()?;
        for record in directories.iter().rev() {
            self.writer.finish_directory(&record.entry.path, &self.owner.meta(&record.entry))?;
        }
        self.progress.advance(0, directories.len() as u64);
        Ok(())
    }

    /// That a further name says the same of its file as the first.
    fn check_link(&self, entry: &crate::types::entry::Entry) -> Result<(), Error> {
        let path = self.root.path_of(&entry.path);
        let opened = self.root.open_beneath(&entry.path, OFlag::O_PATH).context("open", &path)?;
        let found = fstat(opened).context("look at", &path)?;
        let meta = self.owner.meta(entry);
        let Kind::File { size, .. } = entry.kind else { return Ok(()) };
        let is_same = u64::try_from(found.st_size) == Ok(size)
            && (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (meta.mode, meta.uid, meta.gid)
            && (found.st_mtime, found.st_mtime_nsec) == (meta.mtime.0, i64::from(meta.mtime.1));
        let rule = "it differs from the file that it is a further name of";
        if is_same { Ok(()) } else { Err(Error::Differs { path: entry.path.clone(), rule }) }
    }

    /// What was built, and the inode of each file.
    pub fn built(self, fetched: u64) -> Result<(Staged, Vec<u64>), Error> {
        let root = self.index.root();
        let (declared, tree) = if self.is_snapshot {
            // Not all entries were read; the root, which is verified, says what they are.
            (root.tree, root.tree)
        } else {
            let declared = self.declared.finish();
            let here = if self.owner.is_kept() { self.here.finish() } else { declared };
            (declared, here)
        };
        if declared != root.tree {
            let (found, wanted) = (declared, root.tree);
            return Err(Error::Digest { part: "the tree", found, wanted });
        }
        let staged = Staged {
            tree,
            declared,
            entries: root.entries,
            files: root.files,
            bytes: root.plain,
            reused: self.reused,
            fetched,
            kept_owner: self.owner.is_kept(),
        };
        Ok((staged, self.inodes.into_iter().map(|inode| inode.load(Ordering::Relaxed)).collect()))
    }
}

fn is_no_directory(error: &crate::sys::disk::Error) -> bool {
    let number = error.source.raw_os_error().unwrap_or(0);
    [Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP].iter().any(|errno| *errno as i32 == number)
}
