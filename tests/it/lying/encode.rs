//! An encoder of indexed archives that knows `docs/format.md` and nothing of the packer, and can lie in every field.

use sha2::{Digest as _, Sha256};

pub const DIRECTORY: u8 = 1;
pub const FILE: u8 = 2;
pub const LINK: u8 = 3;
pub const HARD_LINK: u8 = 4;

/// Frames of a page, which must not exceed a mebibyte.
const FRAMES_OF_A_PAGE: usize = 10_000;

pub const LINKS: u8 = 0;
pub const GROUP: u8 = 1;
pub const CHUNK: u8 = 2;
pub const HARD_LINKS: u8 = 3;
pub const END: u8 = 4;

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// What an index says of an entry, and the content that its member has.
#[derive(Clone, Debug)]
pub struct Entry {
    pub kind: u8,
    pub path: Vec<u8>,
    pub mode: u64,
    pub uid: u64,
    pub gid: u64,
    pub seconds: i64,
    pub nanoseconds: u64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub size: u64,
    pub generation: u64,
    pub digest: [u8; 32],
    /// Of a link; the first name of a further hard link.
    pub target: Vec<u8>,
    pub content: Vec<u8>,
    /// Its content comes in chunks of so many bytes.
    pub chunk: Option<usize>,
}

impl Entry {
    fn new(kind: u8, path: &str, mode: u64) -> Self {
        let (uid, gid) = (nix::unistd::geteuid().as_raw().into(), nix::unistd::getegid().as_raw().into());
        Self {
            kind,
            path: path.into(),
            mode,
            uid,
            gid,
            seconds: 1_700_000_000,
            nanoseconds: 0,
            xattrs: Vec::new(),
            size: 0,
            generation: 1,
            digest: [0; 32],
            target: Vec::new(),
            content: Vec::new(),
            chunk: None,
        }
    }

    pub fn directory(path: &str) -> Self {
        Self::new(DIRECTORY, path, 0o755)
    }

    pub fn file(path: &str, content: &[u8]) -> Self {
        let (size, digest) = (content.len() as u64, sha256(content));
        Self { size, digest, content: content.to_vec(), ..Self::new(FILE, path, 0o644) }
    }

    pub fn link(path: &str, target: &str) -> Self {
        Self { target: target.into(), ..Self::new(LINK, path, 0o777) }
    }

    /// A further name of another entry.
    pub fn again(&self, path: &str) -> Self {
        Self { kind: HARD_LINK, path: path.into(), target: self.path.clone(), ..self.clone() }
    }

    /// Its member's headers.
    pub fn header(&self) -> Vec<u8> {
        let mut name = self.path.clone();
        let (flag, size, link): (u8, u64, &[u8]) = match self.kind {
            DIRECTORY => {
                name.push(b'/');
                (b'5', 0, b"")
            }
            LINK => (b'2', 0, &self.target),
            HARD_LINK => (b'1', 0, &self.target),
            _ => (b'0', self.size, b""),
        };
        let mut extended = Vec::new();
        let split = (name.len() > 100)
            .then(|| (name.len() - 101..name.len() - 1).find(|at| name[*at] == b'/'))
            .map(|at| at.filter(|at| (1..=155).contains(at)));
        let (prefix, short) = match split {
            None => (Vec::new(), name.clone()),
            Some(Some(at)) => (name[..at].to_vec(), name[at + 1..].to_vec()),
            Some(None) => {
                record(&mut extended, b"path", &name);
                (Vec::new(), name[..100].to_vec())
            }
        };
        if link.len() > 100 {
            record(&mut extended, b"linkpath", link);
        }
        let is_in_range = (0..1 << 33).contains(&self.seconds);
        if self.nanoseconds != 0 || !is_in_range {
            let text = if self.nanoseconds == 0 {
                self.seconds.to_string()
            } else {
                format!("{}.{:09}", self.seconds, self.nanoseconds).trim_end_matches('0').to_owned()
            };
            record(&mut extended, b"mtime", text.as_bytes());
        }
        for (key, value) in [("uid", self.uid), ("gid", self.gid)] {
            if value > 0o7_777_777 {
                record(&mut extended, key.as_bytes(), value.to_string().as_bytes());
            }
        }
        if size > 0o77_777_777_777 {
            record(&mut extended, b"size", size.to_string().as_bytes());
        }
        for (name, value) in &self.xattrs {
            record(&mut extended, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
        }
        let mut bytes = Vec::new();
        if !extended.is_empty() {
            bytes.extend(block(b"", b"PaxHeaders", b'x', [0o644, 0, 0, extended.len() as u64, 0], b""));
            extended.resize(extended.len().next_multiple_of(512), 0);
            bytes.extend(extended);
        }
        let fits = |value: u64, most| if value > most { 0 } else { value };
        let numbers = [
            self.mode,
            fits(self.uid, 0o7_777_777),
            fits(self.gid, 0o7_777_777),
            fits(size, 0o77_777_777_777),
            if is_in_range { self.seconds.unsigned_abs() } else { 0 },
        ];
        bytes.extend(block(&prefix, &short, flag, numbers, &link[..link.len().min(100)]));
        bytes
    }
}

fn record(bytes: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let length = (rest + 1..).find(|length| rest + length.to_string().len() == *length).unwrap();
    bytes.extend([length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat());
}

fn block(prefix: &[u8], name: &[u8], flag: u8, numbers: [u64; 5], link: &[u8]) -> Vec<u8> {
    let [mode, uid, gid, size, mtime] = numbers;
    let mut block = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, format!("{mode:07o}").as_bytes());
    put(108, format!("{uid:07o}").as_bytes());
    put(116, format!("{gid:07o}").as_bytes());
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{mtime:011o}").as_bytes());
    put(148, b"        ");
    put(156, &[flag]);
    put(157, link);
    put(257, b"ustar\x0000");
    put(345, prefix);
    sum(&mut block);
    block
}

/// Gives a header its checksum.
pub fn sum(block: &mut [u8]) {
    block[148..156].copy_from_slice(b"        ");
    let sum: u64 = block[..512].iter().map(|byte| u64::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// A frame, and what the index says of it where that is a lie.
#[derive(Clone, Debug)]
pub struct Frame {
    pub kind: u8,
    pub plain: Vec<u8>,
    pub said_plain: Option<u64>,
    pub said_size: Option<u64>,
    pub said_digest: Option<[u8; 32]>,
    /// Instead of the zstd frame.
    pub bytes: Option<Vec<u8>>,
}

impl Frame {
    pub fn new(kind: u8, plain: Vec<u8>) -> Self {
        Self { kind, plain, said_plain: None, said_size: None, said_digest: None, bytes: None }
    }
}

/// What the root says where that is a lie.
#[derive(Clone, Debug, Default)]
pub struct Root {
    pub format: Option<u64>,
    pub hash: Option<u64>,
    pub entries: Option<u64>,
    pub files: Option<u64>,
    pub bytes: Option<u64>,
    pub compressed: Option<u64>,
    pub largest: Option<u64>,
    pub frames: Option<u64>,
    pub generation: Option<u64>,
    pub tree: Option<[u8; 32]>,
    pub more: Vec<u8>,
}

/// What the root says of a page where that is a lie, by its number.
#[derive(Clone, Debug)]
pub struct Page {
    pub number: usize,
    pub kind: Option<u8>,
    pub items: Option<u64>,
    pub files: Option<u64>,
    pub first: Option<Vec<u8>>,
    pub offset: Option<u64>,
    pub plain: Option<u64>,
    pub digest: Option<[u8; 32]>,
    /// Appended to its content.
    pub more: Vec<u8>,
    /// Changes its content.
    pub bytes: Option<fn(&mut Vec<u8>)>,
}

impl Page {
    pub fn number(number: usize) -> Self {
        let (kind, items, files, first) = (None, None, None, None);
        Self {
            number,
            kind,
            items,
            files,
            first,
            offset: None,
            plain: None,
            digest: None,
            more: Vec::new(),
            bytes: None,
        }
    }
}

/// An archive before it is written.
#[derive(Clone, Debug)]
pub struct Draft {
    pub entries: Vec<Entry>,
    pub frames: Vec<Frame>,
    pub locations: Vec<u64>,
    /// Entries of a page of metadata.
    pub page: usize,
    pub root: Root,
    pub pages: Vec<Page>,
    /// Instead of the right one.
    pub footer: Option<fn(&mut [u8])>,
    pub table: Option<fn(&mut Vec<u8>)>,
    /// Changes the list of pages.
    pub arrange: Option<fn(&mut Vec<PageBytes>)>,
    /// Changes the bytes of the root, and of the whole archive.
    pub root_bytes: Option<fn(&mut Vec<u8>)>,
    pub whole: Option<fn(&mut Vec<u8>)>,
}

impl Draft {
    /// The honest archive of these entries, which come in path order.
    pub fn of(entries: Vec<Entry>) -> Self {
        let headers = |kind: u8| -> Vec<u8> {
            entries.iter().filter(|entry| entry.kind == kind).flat_map(Entry::header).collect()
        };
        let mut frames = vec![Frame::new(LINKS, headers(LINK))];
        let files: Vec<&Entry> = entries.iter().filter(|entry| entry.kind == FILE).collect();
        let mut order: Vec<usize> = (0..files.len()).collect();
        order.sort_by_key(|at| (std::cmp::Reverse(files[*at].generation), *at));
        let mut locations = vec![0; files.len()];
        let mut open = Vec::new();
        let mut generation = None;
        for at in order {
            let file = files[at];
            if generation.replace(file.generation) != Some(file.generation) {
                frames.push(Frame::new(GROUP, std::mem::take(&mut open)));
            }
            frames.retain(|frame| !frame.plain.is_empty());
            open.extend(file.header());
            if let Some(chunk) = file.chunk {
                frames.push(Frame::new(GROUP, std::mem::take(&mut open)));
                locations[at] = frames.len() as u64;
                frames.extend(file.content.chunks(chunk).map(|chunk| Frame::new(CHUNK, chunk.to_vec())));
            } else {
                locations[at] = frames.len() as u64;
                open.extend(&file.content);
            }
            open.resize(open.len() + (512 - file.content.len() % 512) % 512, 0);
        }
        frames.push(Frame::new(GROUP, open));
        frames.push(Frame::new(HARD_LINKS, headers(HARD_LINK)));
        frames.push(Frame::new(END, [headers(DIRECTORY), vec![0; 1024]].concat()));
        frames.retain(|frame| !frame.plain.is_empty());
        Self {
            entries,
            frames,
            locations,
            page: 3,
            root: Root::default(),
            pages: Vec::new(),
            footer: None,
            table: None,
            arrange: None,
            root_bytes: None,
            whole: None,
        }
    }

    pub fn entry(&mut self, path: &str) -> &mut Entry {
        self.entries.iter_mut().find(|entry| entry.path == path.as_bytes()).unwrap()
    }

    /// The digest of the tree that the entries describe.
    pub fn tree(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for entry in &self.entries {
            let letter: &[u8] = match entry.kind {
                DIRECTORY => b"d",
                LINK => b"l",
                _ => b"f",
            };
            hasher.update(letter);
            hasher.update(&entry.path);
            hasher.update(format!("\0{:o}\0{}\0{}\0", entry.mode, entry.uid, entry.gid));
            hasher.update(format!("{}.{:09}\0", entry.seconds, entry.nanoseconds));
            match entry.kind {
                DIRECTORY => {}
                LINK => hasher.update([entry.target.as_slice(), b"\0"].concat()),
                _ => {
                    hasher.update(format!("{}\0", entry.size));
                    hasher.update(entry.digest);
                }
            }
            hasher.update(format!("{}\0", entry.xattrs.len()));
            for (name, value) in &entry.xattrs {
                hasher.update([name, format!("\0{}\0", value.len()).as_bytes(), value].concat());
            }
            if entry.kind == HARD_LINK {
                hasher.update(&entry.target);
            }
            hasher.update([0]);
        }
        hasher.finalize().into()
    }

    pub fn meta(&self) -> Vec<PageBytes> {
        let pages = self.entries.chunks(self.page).map(|entries| {
            let (mut bytes, mut last) = (Vec::new(), &b""[..]);
            for entry in entries {
                put_entry(&mut bytes, entry, last);
                last = &entry.path;
            }
            let files = entries.iter().filter(|entry| entry.kind == FILE).count() as u64;
            PageBytes { kind: 1, items: entries.len() as u64, files, first: entries[0].path.clone(), bytes }
        });
        pages.collect()
    }

    /// The pages of metadata, of frames and of places, as they are before they are compressed.
    fn all_pages(&self, frames: &[Vec<u8>]) -> Vec<PageBytes> {
        let said = |(frame, bytes): (&Frame, &Vec<u8>)| {
            let mut said = Vec::new();
            number(&mut said, frame.said_size.unwrap_or(bytes.len() as u64));
            number(&mut said, frame.said_plain.unwrap_or(frame.plain.len() as u64));
            said.push(frame.kind);
            said.extend(frame.said_digest.unwrap_or_else(|| sha256(bytes)));
            said
        };
        let said: Vec<Vec<u8>> = self.frames.iter().zip(frames).map(said).collect();
        let mut places = Vec::new();
        let mut last = 0;
        for location in &self.locations {
            signed(&mut places, location.wrapping_sub(last).cast_signed());
            last = *location;
        }
        let page = |kind, items: usize, bytes| PageBytes {
            kind,
            items: items as u64,
            files: 0,
            first: Vec::new(),
            bytes,
        };
        let mut pages = self.meta();
        let pieces = said.len().div_ceil(FRAMES_OF_A_PAGE).max(1);
        for piece in 0..pieces {
            let some = &said[piece * FRAMES_OF_A_PAGE..said.len().min((piece + 1) * FRAMES_OF_A_PAGE)];
            pages.push(page(2, some.len(), some.concat()));
        }
        if !self.locations.is_empty() {
            pages.push(page(3, self.locations.len(), places));
        }
        pages
    }

    /// The archive, and the digest of its root.
    pub fn write(&self) -> (Vec<u8>, [u8; 32]) {
        let frames: Vec<Vec<u8>> = self
            .frames
            .iter()
            .map(|frame| {
                frame.bytes.clone().unwrap_or_else(|| zstd::bulk::compress(&frame.plain, 3).unwrap())
            })
            .collect();
        let mut archive = frames.concat();
        let compressed = archive.len() as u64;
        let mut pages = self.all_pages(&frames);
        if let Some(arrange) = self.arrange {
            arrange(&mut pages);
        }
        let mut all = Vec::new();
        let mut list = Vec::new();
        for (at, page) in pages.iter().enumerate() {
            let lie = self.pages.iter().find(|lie| lie.number == at).cloned().unwrap_or(Page::number(at));
            let mut plain = [page.bytes.as_slice(), &lie.more].concat();
            if let Some(change) = lie.bytes {
                change(&mut plain);
            }
            let bytes = zstd::bulk::compress(&plain, 3).unwrap();
            list.push(lie.kind.unwrap_or(page.kind));
            number(&mut list, lie.items.unwrap_or(page.items));
            number(&mut list, lie.files.unwrap_or(page.files));
            string(&mut list, &lie.first.unwrap_or(page.first.clone()));
            number(&mut list, lie.offset.unwrap_or(compressed + 8 + all.len() as u64));
            number(&mut list, bytes.len() as u64);
            number(&mut list, lie.plain.unwrap_or(plain.len() as u64));
            list.extend(lie.digest.unwrap_or_else(|| sha256(&bytes)));
            all.extend(bytes);
        }
        let mut root_plain = self.root(compressed, pages.len() as u64, &list);
        if let Some(change) = self.root_bytes {
            change(&mut root_plain);
        }
        let root = zstd::bulk::compress(&root_plain, 3).unwrap();
        let mut footer = b"CUTOVER\x01".to_vec();
        footer.extend((compressed + 8 + all.len() as u64).to_le_bytes());
        footer.extend((root.len() as u32).to_le_bytes());
        footer.extend((root_plain.len() as u32).to_le_bytes());
        footer.extend(sha256(&root));
        footer.extend(compressed.to_le_bytes());
        footer.resize(96, 0);
        if let Some(lie) = self.footer {
            lie(&mut footer);
        }
        let length = (all.len() + root.len() + 96) as u32;
        archive.extend(0x184D_2A5B_u32.to_le_bytes());
        archive.extend(length.to_le_bytes());
        archive.extend([all, root.clone(), footer].concat());
        let mut table = Vec::new();
        for (frame, bytes) in self.frames.iter().zip(&frames) {
            table.extend((bytes.len() as u32).to_le_bytes());
            table.extend((frame.plain.len() as u32).to_le_bytes());
        }
        table.extend((length + 8).to_le_bytes());
        table.extend(0_u32.to_le_bytes());
        table.extend((frames.len() as u32 + 1).to_le_bytes());
        table.extend([0, 0xb1, 0xea, 0x92, 0x8f]);
        if let Some(lie) = self.table {
            lie(&mut table);
        }
        archive.extend(0x184D_2A5E_u32.to_le_bytes());
        archive.extend((table.len() as u32).to_le_bytes());
        archive.extend(table);
        if let Some(change) = self.whole {
            change(&mut archive);
        }
        (archive, sha256(&root))
    }

    fn root(&self, compressed: u64, pages: u64, list: &[u8]) -> Vec<u8> {
        let files = || self.entries.iter().filter(|entry| entry.kind == FILE);
        let lie = &self.root;
        let bytes = files().map(|entry| entry.size).fold(0, u64::wrapping_add);
        let largest = self.frames.iter().map(|frame| frame.said_plain.unwrap_or(frame.plain.len() as u64));
        let mut root = Vec::new();
        for value in [
            lie.format.unwrap_or(1),
            lie.hash.unwrap_or(1),
            lie.entries.unwrap_or(self.entries.len() as u64),
            lie.files.unwrap_or(files().count() as u64),
            lie.bytes.unwrap_or(bytes),
            lie.compressed.unwrap_or(compressed),
            lie.largest.unwrap_or(largest.max().unwrap_or(0)),
            lie.frames.unwrap_or(self.frames.len() as u64),
            lie.generation.unwrap_or(files().map(|entry| entry.generation).max().unwrap_or(0)),
        ] {
            number(&mut root, value);
        }
        root.extend(lie.tree.unwrap_or_else(|| self.tree()));
        number(&mut root, pages);
        root.extend(list);
        root.extend(&lie.more);
        root
    }
}

/// A page before it is compressed.
#[derive(Clone, Debug)]
pub struct PageBytes {
    pub kind: u8,
    pub items: u64,
    pub files: u64,
    pub first: Vec<u8>,
    pub bytes: Vec<u8>,
}

fn put_entry(bytes: &mut Vec<u8>, entry: &Entry, last: &[u8]) {
    let shared = last.iter().zip(&entry.path).take_while(|(one, other)| one == other).count();
    bytes.push(entry.kind);
    number(bytes, shared as u64);
    string(bytes, &entry.path[shared..]);
    number(bytes, entry.mode);
    number(bytes, entry.uid);
    number(bytes, entry.gid);
    signed(bytes, entry.seconds);
    number(bytes, entry.nanoseconds);
    number(bytes, entry.xattrs.len() as u64);
    for (name, value) in &entry.xattrs {
        string(bytes, name);
        string(bytes, value);
    }
    match entry.kind {
        FILE => {
            number(bytes, entry.size);
            number(bytes, entry.generation);
            bytes.extend(entry.digest);
        }
        LINK => string(bytes, &entry.target),
        HARD_LINK => {
            number(bytes, entry.size);
            bytes.extend(entry.digest);
            string(bytes, &entry.target);
        }
        _ => {}
    }
}

/// LEB128.
pub fn number(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn signed(bytes: &mut Vec<u8>, value: i64) {
    number(bytes, if value < 0 { (-(value + 1)).cast_unsigned() * 2 + 1 } else { value.cast_unsigned() * 2 });
}

fn string(bytes: &mut Vec<u8>, value: &[u8]) {
    number(bytes, value.len() as u64);
    bytes.extend(value);
}
