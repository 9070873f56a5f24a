//! Lays out a tree: everything but the contents that must come from the archive.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::fstat;

use super::super::meta::{PageReader, PageWriter, Record, parent_of};
use super::super::{Error, Index, PageKind};
use super::crew::{self, Crew, Take, Taken, Taker};
use super::join::{Numbered, Pair, Shared, entries_of_old, join, shared_pages};
use super::maker::{self, Maker};
use super::owner::{Owner, admit};
use super::reuse::{Base, Method, Reuse, has_same_content, note};
use super::wanted::Wanted;
use super::work::Plan;
use super::{StageOrder, Staged};
use crate::release::tree::{Root, TreeWriter};
use crate::sys::disk::{Context as _, Disk};
use crate::types::Digest;
use crate::types::entry::{Kind, TreeDigest};

/// Who helps: with a whole tree, or with one that has a base.
enum Hands<'h, 'scope, 'env, 'a> {
    Maker(&'h mut Maker<'scope>),
    Crew(&'h mut Crew<'env, 'a>),
}

/// A tree that is being laid out.
pub struct Layout<'a> {
    index: &'a Index<'a>,
    order: &'a StageOrder<'a>,
    pub(super) root: Arc<Root>,
    pub(super) owner: Owner,
    writer: TreeWriter,
    disk: &'a Disk,
    /// The tree began as a snapshot of the base.
    is_snapshot: bool,
    /// Files that the base does not have under the same name.
    wanted: Wanted,
    /// What must come from the archive.
    pub(super) plan: Plan,
    /// How many files must come from it, those not counted that the base has under another name.
    pub(super) waiting: u64,
    /// Entries of each kind, written like pages.
    pub(super) links: PageWriter,
    pub(super) hard_links: PageWriter,
    pub(super) directories: PageWriter,
    /// Directories of the base in which something changes, with their times.
    touched: BTreeMap<Vec<u8>, (i64, u32)>,
    pub(super) inodes: Arc<[AtomicU64]>,
    declared: TreeDigest,
    here: TreeDigest,
    reused: u64,
}

impl<'a> Layout<'a> {
    /// Nothing is made yet.
    pub fn new(index: &'a Index<'a>, order: &'a StageOrder<'a>, disk: &'a Disk) -> Result<Self, Error> {
        let root = Arc::new(Root::open(order.into, disk)?);
        let owner = Owner::of(&root);
        let files = usize::try_from(index.root().files).unwrap_or(0);
        Ok(Self {
            index,
            order,
            writer: TreeWriter::new(Arc::clone(&root)),
            root,
            owner,
            disk,
            is_snapshot: order.base.is_some() && order.method == Method::Btrfs,
            wanted: Wanted::default(),
            plan: Plan::new(index)?,
            waiting: 0,
            links: PageWriter::default(),
            hard_links: PageWriter::default(),
            directories: PageWriter::default(),
            touched: BTreeMap::new(),
            inodes: (0..files).map(|_| AtomicU64::default()).collect(),
            declared: TreeDigest::default(),
            here: TreeDigest::default(),
            reused: 0,
        })
    }

    /// Whether all files come from the archive.
    pub fn is_complete(&self) -> bool {
        self.order.base.is_none()
    }

    /// Makes directories, links, and the files that the base has under the same name.
    pub fn lay_out(&mut self) -> Result<(), Error> {
        let index = self.index;
        let Some(base) = self.order.base else {
            return std::thread::scope(|scope| {
                let mut maker = Maker::start(scope, TreeWriter::new(Arc::clone(&self.root)), self.owner);
                let found = &mut |pair| self.pair(pair, &mut Hands::Maker(&mut maker));
                let joined = join(index, None, Shared::Read, found);
                maker.finish(joined)
            });
        };
        let old = &base.installed.index;
        let shared = crew::Shared::default();
        if self.is_snapshot {
            let mut crew = Crew::alone(&shared, self.taker(base)?);
            join(index, Some(old), Shared::Skipped, &mut |pair| {
                self.pair(pair, &mut Hands::Crew(&mut crew))
            })?;
            crew.flush()?;
            drop(crew);
            self.see_skipped();
        } else {
            let laid = std::thread::scope(|scope| {
                let mut crew = Crew::start(scope, &shared, self.order.threads, &|| self.taker(base))?;
                join(index, Some(old), Shared::Read, &mut |pair| {
                    self.pair(pair, &mut Hands::Crew(&mut crew))
                })?;
                crew.flush()
            });
            // What stopped the threads is the reason; that there are none left is not.
            if laid.is_err() {
                shared.finish()?;
                return laid;
            }
        }
        let Taken { count, missed } = shared.finish()?;
        self.reused += count;
        self.want_missed(missed)
    }

    fn taker(&self, base: &'a Base) -> Result<Taker<'a>, Error> {
        let reuse = Reuse::new(base, self.order, self.owner, self.disk)?;
        Ok(Taker::new(reuse, TreeWriter::new(Arc::clone(&self.root)), Arc::clone(&self.inodes)))
    }

    fn pair(&mut self, pair: Pair, hands: &mut Hands<'_, '_, '_, 'a>) -> Result<(), Error> {
        match pair {
            Pair::New(new) => {
                self.take_notice(&new)?;
                if self.is_snapshot {
                    self.make_way(&new.record)?;
                }
                self.make(new, None, hands)
            }
            Pair::Same(new, old_number) => {
                self.take_notice(&new)?;
                self.make(new, Some((None, old_number)), hands)
            }
            Pair::Both(new, old) => {
                self.take_notice(&new)?;
                if self.is_snapshot {
                    if new.record.entry == old.record.entry {
                        self.see_same(&new, &old);
                        return Ok(());
                    }
                    if new.record.entry.kind == Kind::Directory && old.record.entry.kind == Kind::Directory {
                        return self.refresh_directory(&new, &old);
                    }
                    self.make_way(&new.record)?;
                }
                let has_same =
                    old.record.has_content() && has_same_content(&old.record.entry, &new.record.entry);
                self.make(new, has_same.then_some((Some(old.record), old.file)), hands)
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

    /// A directory that changed. Attributes that it has no more must be taken off.
    fn refresh_directory(&mut self, new: &Numbered, old: &Numbered) -> Result<(), Error> {
        if new.record.entry.xattrs != old.record.entry.xattrs {
            self.writer.clear_attributes(&new.record.entry.path)?;
        }
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

    /// Makes an entry, or has it made. `old` is a file of the base with the same content, where that is not the same
    /// entry, and its number there.
    fn make(
        &mut self,
        new: Numbered,
        old: Option<(Option<Record>, usize)>,
        hands: &mut Hands<'_, '_, '_, 'a>,
    ) -> Result<(), Error> {
        let Numbered { record, file: number } = new;
        let is_further_name = record.entry.same_as.is_some();
        match (&record.entry.kind, hands) {
            (Kind::Directory, hands) => {
                self.directories.add(&record);
                self.make_name(record, hands)?;
            }
            (Kind::Link { .. }, hands) => {
                if self.is_complete() {
                    self.links.add(&record);
                }
                self.make_name(record, hands)?;
            }
            (Kind::File { .. }, _) if is_further_name => self.hard_links.add(&record),
            (Kind::File { .. }, Hands::Maker(_)) => {
                self.plan.add(self.index, &record, number, true)?;
                self.waiting += 1;
            }
            (Kind::File { .. }, Hands::Crew(crew)) => match old {
                Some((old, old_number)) => crew.add(Take { new: record, number, old, old_number })?,
                None => self.wanted.add(&record, number),
            },
        }
        Ok(())
    }

    fn make_name(&mut self, record: Record, hands: &mut Hands<'_, '_, '_, 'a>) -> Result<(), Error> {
        match hands {
            Hands::Maker(maker) => maker.add(record),
            Hands::Crew(_) => maker::make(&mut self.writer, self.owner, &record),
        }
    }

    /// Plans what must come from the archive, in path order.
    fn want_missed(&mut self, missed: Vec<(Record, usize)>) -> Result<(), Error> {
        let wanted = std::mem::take(&mut self.wanted);
        self.waiting += wanted.len() + missed.len() as u64;
        let mut missed = missed.into_iter().peekable();
        let (plan, index) = (&mut self.plan, self.index);
        let mut add = |record: &Record, number| plan.add(index, record, number, false);
        wanted.each(&mut |record, number| {
            while let Some((missed, before)) = missed.next_if(|(_, before)| *before < number) {
                add(&missed, before)?;
            }
            add(&record, number)
        })?;
        missed.try_for_each(|(record, number)| add(&record, number))
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
        let starts = shared_pages(self.index, &base.installed.index);
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
        let Some(base) = self.order.base else { return Ok(()) };
        let needed = self.plan.contents()?;
        if needed.is_empty() {
            return Ok(());
        }
        let shared = if self.is_snapshot { Shared::Skipped } else { Shared::Read };
        let mut sources: HashMap<Digest, Numbered> = HashMap::new();
        entries_of_old(self.index, &base.installed.index, shared, &mut |old| {
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
        let mut taker = self.taker(base)?;
        let (reused, waiting) = (&mut self.reused, &mut self.waiting);
        self.plan.reduce(&mut |record, number| {
            let Kind::File { content, .. } = &record.entry.kind else { return Ok(false) };
            let Some(old) = sources.get(content) else { return Ok(false) };
            let is_taken = taker.take(record, number, &old.record, old.file)?;
            *reused += u64::from(is_taken);
            *waiting -= u64::from(is_taken);
            Ok(is_taken)
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
            let (path, meta) = (&record.entry.path, self.owner.meta(&record.entry));
            if self.is_snapshot {
                self.writer.finish_directory(path, &meta)?;
            } else {
                self.writer.finish_directory_as(path, &meta)?;
            }
        }
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
        Ok((staged, self.inodes.iter().map(|inode| inode.load(Ordering::Relaxed)).collect()))
    }
}

fn is_no_directory(error: &crate::sys::disk::Error) -> bool {
    let number = error.source.raw_os_error().unwrap_or(0);
    [Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP].iter().any(|errno| *errno as i32 == number)
}
