//! Lays out a tree: everything but the contents that must come from the archive.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;

use super::super::meta::{PageWriter, Record, parent_of};
use super::super::{Error, Index, PageKind};
use super::chunks::{Candidates, Here, Place};
use super::consistency::Trees;
use super::crew::{self, Crew, Take, Taken, Taker};
use super::directories::{Directories, Touched};
use super::join::{Numbered, Pair, Shared, entries_of_old, join, shared_pages};
use super::maker::{self, Maker, weight};
use super::owner::Owner;
use super::reuse::{Base, Method, Reuse, has_same_content, note};
use super::wanted::Wanted;
use super::work::Plan;
use super::{StageOrder, Staged};
use crate::release::tree::{Root, TreeWriter};
use crate::sys::disk::Disk;
use crate::types::Digest;
use crate::types::entry::Kind;

/// Memory for files of the base that the release has under another name; with more of them its index is read again.
const SOURCES_BYTES: usize = 16 << 20;

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
    /// Files of the base that may have chunks of the release's.
    candidates: Candidates,
    /// What must come from the archive.
    pub(super) plan: Plan,
    /// How many files must come from it, those not counted that the base has under another name.
    pub(super) waiting: u64,
    /// Entries of each kind, written like pages.
    pub(super) links: PageWriter,
    pub(super) hard_links: PageWriter,
    pub(super) directories: Directories,
    /// Directories of the base in which something changes, with their times.
    touched: Touched,
    pub(super) inodes: Arc<[AtomicU64]>,
    reused: u64,
}

impl<'a> Layout<'a> {
    pub fn new(index: &'a Index<'a>, order: &'a StageOrder<'a>, disk: &'a Disk) -> Result<Self, Error> {
        let root = Arc::new(Root::open(order.into, disk)?);
        let owner = Owner::of_process();
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
            candidates: Candidates::default(),
            plan: Plan::new(index)?,
            waiting: 0,
            links: PageWriter::default(),
            hard_links: PageWriter::default(),
            directories: Directories::default(),
            touched: Touched::default(),
            inodes: (0..files).map(|_| AtomicU64::default()).collect(),
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
        self.want_missed(&missed)
    }

    fn taker(&self, base: &'a Base) -> Result<Taker<'a>, Error> {
        let reuse = Reuse::new(base, self.order, self.owner, self.disk)?;
        Ok(Taker::new(reuse, TreeWriter::new(Arc::clone(&self.root)), Arc::clone(&self.inodes)))
    }

    fn pair(&mut self, pair: Pair, hands: &mut Hands<'_, '_, '_, 'a>) -> Result<(), Error> {
        match pair {
            Pair::New(new) => {
                if self.is_snapshot {
                    self.make_way(&new.record)?;
                }
                self.make(new, None, hands)
            }
            Pair::Same(new, old_number) => self.make(new, Some((None, old_number)), hands),
            Pair::Both(new, old) => {
                if !has_same_content(&old.record.entry, &new.record.entry) {
                    self.candidates.add(&old);
                }
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
            Pair::Gone(old) => {
                self.candidates.add(&old);
                if self.is_snapshot { self.make_way(&old.record) } else { Ok(()) }
            }
        }
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
        if !parent.is_empty() && !self.touched.contains(parent) {
            match self.writer.time_of_parent(path) {
                Ok(time) => self.touched.add(parent, time),
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

    /// Plans what must come from the archive, in path order. `missed` are numbers of files that the base has no more.
    fn want_missed(&mut self, missed: &[usize]) -> Result<(), Error> {
        let mut wanted = std::mem::take(&mut self.wanted);
        if !missed.is_empty() {
            let files =
                self.index.records().filter(|record| record.as_ref().map_or(true, Record::has_content));
            wanted = wanted.merged(missed, files)?;
        }
        self.waiting += wanted.len();
        let (plan, index) = (&mut self.plan, self.index);
        wanted.each(&mut |record, number| plan.add(index, &record, number, false))
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
        let mut needed = self.plan.contents()?;
        while !needed.is_empty() {
            let sources = self.sources(base, &needed)?;
            if sources.is_empty() {
                break;
            }
            needed.retain(|content| !sources.contains_key(content));
            let mut taker = self.taker(base)?;
            let (reused, waiting) = (&mut self.reused, &mut self.waiting);
            self.plan.reduce(&mut |record, number| {
                let Kind::File { content, .. } = &record.entry.kind else { return Ok(false) };
                let Some(old) = sources.get(content) else { return Ok(false) };
                let is_taken = taker.take(record, number, &old.record, old.file)?;
                *reused += u64::from(is_taken);
                *waiting -= u64::from(is_taken);
                Ok(is_taken)
            })?;
        }
        Ok(())
    }

    /// Files of the base with contents that are needed: as many as memory has room for.
    fn sources(&self, base: &Base, needed: &HashSet<Digest>) -> Result<HashMap<Digest, Numbered>, Error> {
        let shared = if self.is_snapshot { Shared::Skipped } else { Shared::Read };
        let mut sources: HashMap<Digest, Numbered> = HashMap::new();
        let mut bytes = 0;
        entries_of_old(self.index, &base.installed.index, shared, &mut |old| {
            if let Kind::File { content, .. } = &old.record.entry.kind
                && bytes < SOURCES_BYTES
                && old.record.has_content()
                && needed.contains(content)
            {
                bytes += weight(&old.record);
                sources.entry(*content).or_insert(old);
            }
        })?;
        Ok(sources)
    }

    /// Takes over chunks of large files that other files of the base have, too.
    pub fn take_chunks(&mut self) -> Result<(), Error> {
        // A tree that is being repaired is the one that cannot be believed.
        let Some(base) = self.order.base.filter(|_| !self.order.is_suspect) else { return Ok(()) };
        let places = self.candidates.find(&self.plan, &base.installed.index)?;
        let mut reuse = Reuse::new(base, self.order, self.owner, self.disk)?;
        let mut files: HashMap<usize, Option<Arc<File>>> = HashMap::new();
        for (frame, Place { candidate, offset }) in places {
            let file = match files.get(&candidate) {
                Some(file) => file.clone(),
                None => {
                    let old = self.candidates.get(candidate);
                    let opened =
                        old.map(|old| reuse.open_whole(&old.record, old.file)).transpose()?.flatten();
                    let file = opened.map(Arc::new);
                    files.insert(candidate, file.clone());
                    file
                }
            };
            if let Some(file) = file
                && let Some(work) = self.plan.work.remove(&frame)
            {
                self.plan.here.insert(frame, (work, Here { file, offset }));
            }
        }
        Ok(())
    }

    /// Makes further hard links, and gives directories their metadata.
    pub fn finish(&mut self) -> Result<(), Error> {
        for record in self.hard_links.take_entries() {
            let entry = record?.entry;
            if let Some(first) = &entry.same_as {
                self.writer.hard_link(&entry.path, first)?;
            }
        }
        let writer = &mut self.writer;
        std::mem::take(&mut self.touched).each(|path, time| writer.set_time(path, time))?;
        let (owner, is_snapshot) = (self.owner, self.is_snapshot);
        self.directories.each_reversed(&mut |record| {
            let (path, meta) = (&record.entry.path, owner.meta(&record.entry));
            if is_snapshot {
                writer.finish_directory(path, &meta)?;
            } else {
                writer.finish_directory_as(path, &meta)?;
            }
            Ok(())
        })
    }

    /// What was built, and the inode of each file.
    pub fn built(self, trees: Trees, fetched: u64) -> (Staged, Vec<u64>) {
        let root = self.index.root();
        let staged = Staged {
            tree: trees.here,
            declared: trees.declared,
            entries: root.entries,
            files: root.files,
            bytes: root.plain,
            reused: self.reused,
            fetched,
            kept_owner: self.owner.is_kept(),
        };
        (staged, self.inodes.iter().map(|inode| inode.load(Ordering::Relaxed)).collect())
    }
}

fn is_no_directory(error: &crate::sys::disk::Error) -> bool {
    let number = error.source.raw_os_error().unwrap_or(0);
    [Errno::ENOENT, Errno::ENOTDIR, Errno::ELOOP].iter().any(|errno| *errno as i32 == number)
}
