//! What an archive has made so far, as a tree in about 110 bytes an entry.
//!
//! It decides what the file system must not decide: one path, one entry; parents are directories of this archive; hard
//! links lead to its files. It also keeps what the digest of the tree needs, so that nothing is read twice.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

use super::{Limits, Member, MemberKind, Rule, Totals};
use crate::types::Digest;
use crate::types::entry::{Entry, Kind};

/// Names, link targets and attributes of one archive, in bytes together.
const METADATA_MAX: u64 = 64 << 20;
const ROOT: u32 = 0;
const NONE: u32 = u32::MAX;

/// The tree of an archive.
pub struct Ledger {
    nodes: Vec<Node>,
    names: Vec<u8>,
    xattrs: HashMap<u32, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Where the entry of a parent and name is: places by their hash, the next free one where that is taken. At least
    /// half are free.
    found: Vec<u32>,
    random: RandomState,
    metadata: u64,
    totals: Totals,
    repeats: u64,
    most_bytes: u64,
    most_entries: u64,
}

#[derive(Clone, Debug)]
pub struct Node {
    pub kind: NodeKind,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub seconds: i64,
    /// Nanoseconds of the time.
    pub nanoseconds: u32,
    parent: u32,
    name_at: u32,
    name_length: u16,
}

#[derive(Clone, Debug)]
pub enum NodeKind {
    Directory,
    File {
        /// Bytes, holes included.
        size: u64,
        /// Its content's digest, once [`Ledger::set_content`] was told.
        content: [u8; 32],
    },
    /// A symbolic link; where its target stands among the names.
    Link {
        at: u32,
        length: u16,
    },
    /// A further name of the file at this place in the ledger.
    HardLink {
        file: u32,
    },
}

/// What a member is to the tree.
pub struct Admitted {
    /// Its place in the ledger.
    pub node: u32,
    /// Directories that it needs and that have no member of their own yet: their places, topmost first.
    pub implied: std::ops::Range<u32>,
    /// Whether it is a directory that exists already.
    pub is_repeated: bool,
}

impl Ledger {
    pub fn new(limits: &Limits) -> Self {
        let mut ledger = Self {
            nodes: Vec::new(),
            names: Vec::new(),
            xattrs: HashMap::new(),
            found: vec![NONE; 1024],
            random: RandomState::new(),
            metadata: 0,
            totals: Totals::default(),
            repeats: 0,
            most_bytes: limits.bytes,
            most_entries: limits.entries.min(u64::from(u32::MAX / 2)),
        };
        ledger.nodes.push(Node::implied_directory(ROOT, 0, 0));
        ledger
    }

    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The entry at a place.
    pub fn node(&self, place: u32) -> &Node {
        &self.nodes[place as usize]
    }

    /// The extended attributes of the entry at a place.
    pub fn xattrs(&self, place: u32) -> Option<&BTreeMap<Vec<u8>, Vec<u8>>> {
        self.xattrs.get(&place)
    }

    /// Records the digest of a file's content.
    pub fn set_content(&mut self, place: u32, digest: Digest) {
        if let NodeKind::File { content, .. } = &mut self.nodes[place as usize].kind {
            *content = digest.0;
        }
    }

    /// Takes the next member, if it breaks no rule.
    pub fn admit(&mut self, member: &Member) -> Result<Admitted, Rule> {
        if member.path.is_empty() {
            // The root is the store's: its member is counted, so that repeating it has an end, and ignored.
            return match member.kind {
                MemberKind::Directory => {
                    let first = self.nodes.len() as u32;
                    Ok(Admitted { node: ROOT, implied: first..first, is_repeated: true })
                }
                _ => Err(Rule::EmptyName),
            };
        }
        let (parents, name) = match member.path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&member.path[..slash], &member.path[slash + 1..]),
            None => (&b""[..], &member.path[..]),
        };
        let first = self.nodes.len() as u32;
        let parent = self.imply(parents)?;
        let implied = first..self.nodes.len() as u32;
        if let Some(place) = self.child(parent, name) {
            let is_directory = matches!(self.node(place).kind, NodeKind::Directory);
            if !is_directory || !matches!(member.kind, MemberKind::Directory) {
                return Err(Rule::Repeated);
            }
            // A directory after its files is counted already; one that repeats without end is not let in either.
            self.repeats += 1;
            if self.repeats > self.most_entries {
                return Err(Rule::TooManyEntries(self.most_entries));
            }
            self.set_metadata(place, member)?;
            return Ok(Admitted { node: place, implied, is_repeated: true });
        }
        let kind = self.kind(member)?;
        let node = self.add(parent, name, kind)?;
        self.set_metadata(node, member)?;
        if let Some(first) = self.linked_link(member) {
            self.copy_metadata(node, first);
        }
        Ok(Admitted { node, implied, is_repeated: false })
    }

    fn kind(&mut self, member: &Member) -> Result<NodeKind, Rule> {
        Ok(match &member.kind {
            MemberKind::Directory => NodeKind::Directory,
            MemberKind::File { size, spans } => {
                self.count_file(*size, spans.as_deref())?;
                NodeKind::File { size: *size, content: [0; 32] }
            }
            MemberKind::Link { target } => {
                let at = self.keep(target)?;
                NodeKind::Link { at, length: target.len() as u16 }
            }
            MemberKind::HardLink { target } => {
                let target = self.find(target).ok_or(Rule::HardLinkTarget)?;
                match self.node(target).kind {
                    NodeKind::File { .. } => NodeKind::HardLink { file: target },
                    NodeKind::HardLink { file } => NodeKind::HardLink { file },
                    // A further name of a symbolic link, as `cp -al` makes it: a symbolic link of its own tells the same.
                    NodeKind::Link { at, length } => NodeKind::Link { at, length },
                    NodeKind::Directory => return Err(Rule::HardLinkTarget),
                }
            }
        })
    }

    /// The symbolic link that a hard link is a further name of.
    fn linked_link(&self, member: &Member) -> Option<u32> {
        let MemberKind::HardLink { target } = &member.kind else { return None };
        self.find(target).filter(|place| matches!(self.node(*place).kind, NodeKind::Link { .. }))
    }

    fn copy_metadata(&mut self, place: u32, first: u32) {
        let Node { mode, uid, gid, seconds, nanoseconds, .. } = *self.node(first);
        let node = &mut self.nodes[place as usize];
        (node.mode, node.uid, node.gid, node.seconds, node.nanoseconds) =
            (mode, uid, gid, seconds, nanoseconds);
    }

    /// Where a symbolic link points to.
    pub fn link_target(&self, place: u32) -> &[u8] {
        self.target(self.node(place))
    }

    fn count_file(&mut self, size: u64, spans: Option<&[super::Span]>) -> Result<(), Rule> {
        const ALLOCATION: u64 = 4096;
        let bytes = self.totals.bytes.checked_add(size).filter(|bytes| *bytes <= self.most_bytes);
        self.totals.bytes = bytes.ok_or(Rule::TooManyBytes(self.most_bytes))?;
        self.totals.files += 1;
        self.totals.allocated += match spans {
            None => size.div_ceil(ALLOCATION) * ALLOCATION,
            Some(spans) => spans
                .iter()
                .map(|span| {
                    let end = (span.offset + span.length).div_ceil(ALLOCATION);
                    (end - span.offset / ALLOCATION) * ALLOCATION
                })
                .sum(),
        };
        Ok(())
    }

    fn count_entry(&mut self) -> Result<(), Rule> {
        if self.totals.entries >= self.most_entries {
            return Err(Rule::TooManyEntries(self.most_entries));
        }
        self.totals.entries += 1;
        Ok(())
    }

    fn set_metadata(&mut self, place: u32, member: &Member) -> Result<(), Rule> {
        if matches!(member.kind, MemberKind::HardLink { .. }) {
            // All names of a file share what its first member said.
            return Ok(());
        }
        let node = &mut self.nodes[place as usize];
        node.mode = member.mode as u16;
        (node.uid, node.gid) = (member.uid, member.gid);
        (node.seconds, node.nanoseconds) = member.mtime;
        self.xattrs.remove(&place);
        if !member.xattrs.is_empty() {
            let bytes: usize = member.xattrs.iter().map(|(name, value)| 64 + name.len() + value.len()).sum();
            self.spend(bytes)?;
            self.xattrs.insert(place, member.xattrs.clone());
        }
        Ok(())
    }

    /// Finds the directories of a path, and makes those that are missing.
    fn imply(&mut self, parents: &[u8]) -> Result<u32, Rule> {
        let mut place = ROOT;
        if parents.is_empty() {
            return Ok(place);
        }
        for name in parents.split(|byte| *byte == b'/') {
            place = match self.child(place, name) {
                Some(child) if matches!(self.node(child).kind, NodeKind::Directory) => child,
                Some(_) => return Err(Rule::ThroughNonDirectory),
                None => self.add(place, name, NodeKind::Directory)?,
            };
        }
        Ok(place)
    }

    fn find(&self, path: &[u8]) -> Option<u32> {
        path.split(|byte| *byte == b'/').try_fold(ROOT, |place, name| self.child(place, name))
    }

    fn child(&self, parent: u32, name: &[u8]) -> Option<u32> {
        let place = self.found[self.slot(parent, name)];
        (place != NONE).then_some(place)
    }

    /// The slot of the entry with this parent and name, or the free one where it belongs.
    fn slot(&self, parent: u32, name: &[u8]) -> usize {
        let mask = self.found.len() - 1;
        let mut slot = self.random.hash_one((parent, name)) as usize & mask;
        while let Some(node) = self.nodes.get(self.found[slot] as usize) {
            if node.parent == parent && self.name(node) == name {
                break;
            }
            slot = (slot + 1) & mask;
        }
        slot
    }

    /// Doubles the slots when half of them are taken.
    fn make_room(&mut self) {
        if self.nodes.len() * 2 < self.found.len() {
            return;
        }
        self.found = vec![NONE; self.found.len() * 2];
        for place in 1..self.nodes.len() {
            let node = &self.nodes[place];
            let slot = self.slot(node.parent, self.name(node));
            self.found[slot] = place as u32;
        }
    }

    fn add(&mut self, parent: u32, name: &[u8], kind: NodeKind) -> Result<u32, Rule> {
        self.count_entry()?;
        let place = self.nodes.len() as u32;
        let name_at = self.keep(name)?;
        self.make_room();
        let slot = self.slot(parent, name);
        self.found[slot] = place;
        self.nodes.push(Node { kind, ..Node::implied_directory(parent, name_at, name.len() as u16) });
        Ok(place)
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<u32, Rule> {
        self.spend(bytes.len())?;
        let at = self.names.len() as u32;
        self.names.extend_from_slice(bytes);
        Ok(at)
    }

    fn spend(&mut self, bytes: usize) -> Result<(), Rule> {
        self.metadata += bytes as u64;
        if self.metadata > METADATA_MAX { Err(Rule::TooMuchMetadata(METADATA_MAX)) } else { Ok(()) }
    }

    fn name(&self, node: &Node) -> &[u8] {
        &self.names[node.name_at as usize..][..usize::from(node.name_length)]
    }

    /// The path of the entry at a place.
    pub fn path(&self, place: u32) -> Vec<u8> {
        let mut names = Vec::new();
        let mut place = place;
        while place != ROOT {
            names.push(self.name(self.node(place)));
            place = self.node(place).parent;
        }
        names.reverse();
        names.join(&b'/')
    }

    /// All places but the root's, in path order: each directory before what it holds.
    pub fn in_order(&self) -> Vec<u32> {
        let mut children: Vec<u32> = (1..self.nodes.len() as u32).collect();
        children.sort_unstable_by(|one, other| {
            let (one, other) = (self.node(*one), self.node(*other));
            one.parent.cmp(&other.parent).then_with(|| self.name(one).cmp(self.name(other)))
        });
        let of = |parent: u32| {
            let start = children.partition_point(|place| self.node(*place).parent < parent);
            let end = children.partition_point(|place| self.node(*place).parent <= parent);
            start..end
        };
        let mut order = Vec::with_capacity(children.len());
        let mut open = vec![of(ROOT)];
        while let Some(range) = open.last_mut() {
            let Some(at) = range.next() else {
                open.pop();
                continue;
            };
            let place = children[at];
            order.push(place);
            if matches!(self.node(place).kind, NodeKind::Directory) {
                open.push(of(place));
            }
        }
        order
    }

    /// All entries in path order, as the archive says that they are.
    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let mut first_names: HashMap<u32, u32> = HashMap::new();
        let order = self.in_order();
        for place in &order {
            if let NodeKind::HardLink { file } = self.node(*place).kind {
                first_names.insert(file, NONE);
            }
        }
        order.into_iter().map(move |place| {
            let file = match self.node(place).kind {
                NodeKind::HardLink { file } => file,
                _ => place,
            };
            let mut same_as = None;
            if let Some(first) = first_names.get_mut(&file) {
                if *first == NONE {
                    *first = place;
                } else {
                    same_as = Some(self.path(*first));
                }
            }
            self.entry(place, file, same_as)
        })
    }

    fn entry(&self, place: u32, file: u32, same_as: Option<Vec<u8>>) -> Entry {
        let node = self.node(file);
        let kind = match node.kind {
            NodeKind::Directory => Kind::Directory,
            NodeKind::File { size, content } => Kind::File { size, content: Digest(content) },
            NodeKind::Link { .. } => Kind::Link { target: self.target(node).to_vec() },
            // A hard link's file is never itself a hard link.
            NodeKind::HardLink { .. } => Kind::Directory,
        };
        Entry {
            path: self.path(place),
            kind,
            mode: u32::from(node.mode),
            uid: node.uid,
            gid: node.gid,
            mtime: (node.seconds, node.nanoseconds),
            xattrs: self.xattrs.get(&file).cloned().unwrap_or_default(),
            same_as,
        }
    }

    fn target(&self, node: &Node) -> &[u8] {
        match node.kind {
            NodeKind::Link { at, length } => &self.names[at as usize..][..usize::from(length)],
            NodeKind::Directory | NodeKind::File { .. } | NodeKind::HardLink { .. } => b"",
        }
    }
}

impl Node {
    /// A directory that no member describes: as if made by a careful `mkdir -p` at the beginning of time.
    fn implied_directory(parent: u32, name_at: u32, name_length: u16) -> Self {
        Self {
            kind: NodeKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            seconds: 0,
            nanoseconds: 0,
            parent,
            name_at,
            name_length,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(path: &str) -> Member {
        Member {
            path: path.as_bytes().to_vec(),
            kind: MemberKind::Directory,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            xattrs: BTreeMap::new(),
        }
    }

    #[test]
    fn many_entries_are_found_again_and_come_in_order() {
        let mut ledger = Ledger::new(&Limits::default());
        for number in 0..5000 {
            ledger.admit(&directory(&format!("{}/{number}", number % 7))).unwrap();
        }
        assert_eq!(ledger.totals().entries, 5007);
        for number in 0..5000 {
            assert!(ledger.admit(&directory(&format!("{}/{number}", number % 7))).unwrap().is_repeated);
        }
        let mut digest = crate::types::entry::TreeDigest::default();
        // It asserts the order.
        ledger.entries().for_each(|entry| digest.add(&entry));
    }

    #[test]
    fn an_entry_takes_little_memory() {
        assert!(size_of::<Node>() <= 88, "{}", size_of::<Node>());
    }
}
