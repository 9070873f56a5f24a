//! Lies, each in an archive whose digests all fit.

use super::encode::{
    CHUNK, DIRECTORY, Draft, END, Entry, FILE, Frame, GROUP, HARD_LINK, HARD_LINKS, LINK, LINKS, Page, sha256,
};

/// An archive without a lie.
pub fn honest() -> Draft {
    let content = |length: u32| -> Vec<u8> {
        (0..length).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    };
    let large = Entry { chunk: Some(3000), ..Entry::file("lib/large", &content(8000)) };
    let older = Entry { generation: 1, ..Entry::file("lib/older", b"from an earlier release") };
    let newer = |entry: Entry| Entry { generation: 2, ..entry };
    let app = newer(Entry { mode: 0o755, ..Entry::file("bin/app", b"the good program\n") });
    let again = app.again("bin/app-again");
    Draft::of(vec![
        Entry::directory("bin"),
        app,
        again,
        newer(Entry::file("bin/zero", b"")),
        Entry::directory("lib"),
        newer(large),
        Entry::link("lib/link", "large"),
        older,
        newer(Entry { nanoseconds: 120_000_000, ..Entry::file("lib/timed", &[0; 1024]) }),
        newer(Entry::file("notes", b"short")),
    ])
}

type Change = Box<dyn Fn(&mut Draft)>;

/// All lies: the name of each, and its archive.
pub fn all() -> Vec<(String, Draft)> {
    let mut lies = Lies::default();
    contents(&mut lies);
    hard_links(&mut lies);
    fields(&mut lies);
    order(&mut lies);
    sums(&mut lies);
    frames(&mut lies);
    members(&mut lies);
    places(&mut lies);
    pages(&mut lies);
    super::more::add(&mut lies);
    lies.drafts()
}

/// Collects lies.
#[derive(Default)]
pub struct Lies(Vec<(String, Change)>);
impl Lies {
    pub fn add(&mut self, name: impl Into<String>, change: impl Fn(&mut Draft) + 'static) {
        self.0.push((name.into(), Box::new(change)));
    }

    /// The same in the honest archive of other entries.
    pub fn add_entries(&mut self, name: impl Into<String>, change: impl Fn(&mut Vec<Entry>) + 'static) {
        self.add(name, move |draft| {
            let mut entries = draft.entries.clone();
            change(&mut entries);
            *draft = Draft::of(entries);
        });
    }

    /// The archive of each.
    pub fn drafts(self) -> Vec<(String, Draft)> {
        let drafts = self.0.into_iter().map(|(name, change)| {
            let mut draft = honest();
            change(&mut draft);
            (name, draft)
        });
        drafts.collect()
    }
}

fn numbers(kind: u8) -> Vec<usize> {
    let entries = honest().entries;
    (0..entries.len()).filter(|at| entries[*at].kind == kind).collect()
}

/// The index says something else of a content than its frame has.
fn contents(lies: &mut Lies) {
    for at in numbers(FILE) {
        lies.add(format!("digest of file {at}"), move |draft| draft.entries[at].digest = sha256(b"another"));
        lies.add(format!("content of file {at}"), move |draft| {
            let mut entries = draft.entries.clone();
            let said = entries[at].clone();
            match entries[at].content.first_mut() {
                Some(byte) => *byte ^= 1,
                None => return draft.entries[at].digest = sha256(b"empty"),
            }
            *draft = Draft::of(entries);
            draft.entries[at] = said;
        });
        lies.add(format!("size of file {at}, one more"), move |draft| draft.entries[at].size += 1);
        lies.add(format!("size of file {at}, a block more"), move |draft| draft.entries[at].size += 512);
        lies.add(format!("size of file {at}, huge"), move |draft| draft.entries[at].size = 1 << 40);
        lies.add(format!("size of file {at}, all"), move |draft| draft.entries[at].size = u64::MAX);
        lies.add(format!("size of file {at}, none"), move |draft| {
            let size = &mut draft.entries[at].size;
            *size = if *size == 0 { 3 } else { 0 };
        });
        lies.add(format!("generation of file {at}"), move |draft| draft.entries[at].generation += 3);
    }
    // A large file of nothing but zeros.
    for bytes in [None, Some(10)] {
        lies.add(format!("zeros without end, {bytes:?}"), move |draft| {
            let zeros = Frame::new(CHUNK, vec![0; 4 << 20]);
            let frame = Frame { bytes: Some(zstd::bulk::compress(&zeros.plain, 3).unwrap()), ..zeros };
            let entry = draft.entry("lib/large");
            (entry.size, entry.digest) = (3 * (4 << 20), sha256(b"zeros"));
            let first = draft.frames.iter().position(|frame| frame.kind == CHUNK).unwrap();
            draft.frames.splice(first..first + 3, vec![frame; 3]);
            draft.root.bytes = bytes;
        });
    }
}

/// Changes an entry of the index, and of the archive with it.
type EntryLie = fn(&mut Entry);
/// Changes bytes in place.
type BytesLie = fn(&mut [u8]);

/// A further hard link is not what its first name is.
fn hard_links(lies: &mut Lies) {
    let changes: [(&str, EntryLie); 13] = [
        ("size", |link| link.size += 1),
        ("digest", |link| link.digest = sha256(b"x")),
        ("mode", |link| link.mode = 0o644),
        ("setuid", |link| link.mode = 0o4755),
        ("owner", |link| link.uid += 1),
        ("group", |link| link.gid += 1),
        ("time", |link| link.seconds += 1),
        ("nanoseconds", |link| link.nanoseconds = 7),
        ("attributes", |link| link.xattrs = vec![(b"user.x".to_vec(), b"1".to_vec())]),
        ("first name is a directory", |link| link.target = b"bin".to_vec()),
        ("first name is missing", |link| link.target = b"bin/ap".to_vec()),
        ("first name comes later", |link| link.target = b"notes".to_vec()),
        ("first name is itself", |link| link.target = b"bin/app-again".to_vec()),
    ];
    for (name, change) in changes {
        lies.add(format!("hard link, {name}"), move |draft| {
            let mut entries = draft.entries.clone();
            change(&mut entries[2]);
            *draft = Draft::of(entries);
        });
    }
    lies.add("hard link to a symbolic link", |draft| {
        let mut entries = draft.entries.clone();
        let mut link = entries[2].clone();
        (link.path, link.target) = (b"lib/z".to_vec(), b"lib/link".to_vec());
        entries.insert(9, link);
        *draft = Draft::of(entries);
    });
    lies.add("hard link to a hard link", |draft| {
        let mut entries = draft.entries.clone();
        let mut link = entries[2].clone();
        (link.path, link.target) = (b"bin/app-more".to_vec(), b"bin/app-again".to_vec());
        entries.insert(3, link);
        *draft = Draft::of(entries);
    });
}

/// A field is out of its range; the archive has the same.
fn fields(lies: &mut Lies) {
    let changes: [(&str, EntryLie); 8] = [
        ("owner 4294967295", |entry| entry.uid = u32::MAX.into()),
        ("group 4294967295", |entry| entry.gid = u32::MAX.into()),
        ("owner of 33 bits", |entry| entry.uid = 1 << 32),
        ("mode of more than permissions", |entry| entry.mode |= 0o10000),
        ("nanoseconds", |entry| entry.nanoseconds = 1_000_000_000),
        ("attribute trusted", |entry| entry.xattrs = vec![(b"trusted.x".to_vec(), b"1".to_vec())]),
        ("attribute without a name", |entry| entry.xattrs = vec![(Vec::new(), b"1".to_vec())]),
        ("attribute of 65 KiB", |entry| entry.xattrs = vec![(b"user.x".to_vec(), vec![7; 65 << 10])]),
    ];
    for (name, change) in changes {
        for at in [0, 1, 6, 9] {
            lies.add(format!("{name}, entry {at}"), move |draft| {
                let mut entries = draft.entries.clone();
                change(&mut entries[at]);
                *draft = Draft::of(entries);
            });
        }
    }
    for path in ["..", "bin/../x", "/abs", "bin//x", "bin/.", "zero\0byte", "z/", ""] {
        lies.add(format!("path {path:?}"), move |draft| {
            let mut entries = draft.entries.clone();
            entries.push(Entry { generation: 1, ..Entry::file(path, b"x") });
            *draft = Draft::of(entries);
        });
    }
    lies.add("path of a long component", |draft| {
        let mut entries = draft.entries.clone();
        entries.push(Entry::file(&"z".repeat(256), b"x"));
        *draft = Draft::of(entries);
    });
    lies.add("an unknown kind", |draft| draft.entries[9].kind = 9);
    lies.add("a link without a target", |draft| draft.entry("lib/link").target.clear());
    lies.add("a link with another mode", |draft| draft.entry("lib/link").mode = 0o755);
    lies.add("no entries", |draft| *draft = Draft::of(Vec::new()));
}

/// Entries are not in path order, twice there, or without their directory.
fn order(lies: &mut Lies) {
    for at in 0..9 {
        lies.add(format!("entries {at} and the next change places"), move |draft| {
            let mut entries = draft.entries.clone();
            entries.swap(at, at + 1);
            *draft = Draft::of(entries);
        });
    }
    for at in 0..10 {
        for page in [3, at + 1, 100] {
            lies.add(format!("entry {at} is there twice, pages of {page}"), move |draft| {
                let mut entries = draft.entries.clone();
                entries.insert(at, entries[at].clone());
                *draft = Draft::of(entries);
                draft.page = page;
            });
        }
    }
    for at in [0, 4] {
        lies.add(format!("directory {at} is missing"), move |draft| {
            let mut entries = draft.entries.clone();
            entries.remove(at);
            *draft = Draft::of(entries);
        });
        lies.add(format!("directory {at} is a link"), move |draft| {
            let mut entries = draft.entries.clone();
            let path = String::from_utf8(entries[at].path.clone()).unwrap();
            entries[at] = Entry::link(&path, "elsewhere");
            *draft = Draft::of(entries);
        });
        lies.add(format!("directory {at} is a file"), move |draft| {
            let mut entries = draft.entries.clone();
            let path = String::from_utf8(entries[at].path.clone()).unwrap();
            entries[at] = Entry::file(&path, b"file");
            *draft = Draft::of(entries);
        });
    }
}

/// The root's sums are others than those of its entries.
fn sums(lies: &mut Lies) {
    lies.add("entries", |draft| draft.root.entries = Some(11));
    lies.add("files", |draft| draft.root.files = Some(5));
    for bytes in [0, 10, 9294, 1 << 40, u64::MAX] {
        lies.add(format!("bytes {bytes}"), move |draft| draft.root.bytes = Some(bytes));
    }
    for largest in [0, 1, 16 << 20, u64::MAX] {
        lies.add(format!("largest frame {largest}"), move |draft| draft.root.largest = Some(largest));
    }
    lies.add("compressed bytes", |draft| draft.root.compressed = Some(100));
    lies.add("frames", |draft| draft.root.frames = Some(3));
    lies.add("more frames than any", |draft| draft.root.frames = Some(u32::MAX.into()));
    lies.add("generation", |draft| draft.root.generation = Some(1));
    lies.add("later generation", |draft| draft.root.generation = Some(9));
    lies.add("tree", |draft| draft.root.tree = Some(sha256(b"tree")));
    lies.add("format", |draft| draft.root.format = Some(2));
    lies.add("hash", |draft| draft.root.hash = Some(2));
    lies.add("more after the root", |draft| draft.root.more = vec![0]);
}

/// Frames are others than the index says, or in another order.
fn frames(lies: &mut Lies) {
    let count = honest().frames.len();
    for at in 0..count {
        lies.add(format!("frame {at}, digest"), move |draft| {
            draft.frames[at].said_digest = Some(sha256(b"frame"));
        });
        lies.add(format!("frame {at}, plain size"), move |draft| {
            let length = draft.frames[at].plain.len() as u64;
            draft.frames[at].said_plain = Some(length + 512);
        });
        lies.add(format!("frame {at}, less"), move |draft| {
            draft.frames[at].said_plain = Some(draft.frames[at].plain.len() as u64 - 1);
        });
        lies.add(format!("frame {at}, size"), move |draft| draft.frames[at].said_size = Some(30));
        lies.add(format!("frame {at}, no zstd"), move |draft| {
            draft.frames[at].bytes = Some(b"this is no frame of zstd".to_vec());
        });
        lies.add(format!("frame {at}, cut"), move |draft| {
            let mut bytes = zstd::bulk::compress(&draft.frames[at].plain, 3).unwrap();
            bytes.truncate(bytes.len() - 3);
            draft.frames[at].bytes = Some(bytes);
        });
        lies.add(format!("frame {at}, kind"), move |draft| {
            let kind = &mut draft.frames[at].kind;
            *kind = if *kind == GROUP { LINKS } else { GROUP };
        });
        lies.add(format!("frame {at}, unknown kind"), move |draft| draft.frames[at].kind = 5);
        lies.add(format!("frame {at} is empty"), move |draft| {
            draft.frames[at].plain.clear();
        });
    }
    for at in 0..count - 1 {
        lies.add(format!("frames {at} and the next change places"), move |draft| {
            draft.frames.swap(at, at + 1)
        });
    }
    lies.add("the end comes first", |draft| {
        let end = draft.frames.pop().unwrap();
        draft.frames.insert(0, end);
        draft.locations.iter_mut().for_each(|location| *location += 1);
    });
    lies.add("hard links come before their files", |draft| {
        let at = draft.frames.iter().position(|frame| frame.kind == HARD_LINKS).unwrap();
        let links = draft.frames.remove(at);
        draft.frames.insert(0, links);
        draft.locations.iter_mut().for_each(|location| *location += 1);
    });
    lies.add("an older generation comes first", |draft| {
        let mut entries = draft.entries.clone();
        entries.iter_mut().for_each(|entry| entry.generation = 3 - entry.generation);
        let said = draft.entries.clone();
        *draft = Draft::of(entries);
        draft.entries = said;
    });
    lies.add("no frames", |draft| draft.frames.clear());
}

/// Members are others than their entries.
fn members(lies: &mut Lies) {
    lies.add("a large file without a header", |draft| {
        let first = draft.frames.iter().position(|frame| frame.kind == CHUNK).unwrap();
        let header = draft.entry("lib/large").header().len();
        let plain = &mut draft.frames[first - 1].plain;
        plain.truncate(plain.len() - header);
    });
    lies.add("a large file without its padding", |draft| {
        let last = draft.frames.iter().rposition(|frame| frame.kind == CHUNK).unwrap();
        draft.frames[last + 1].plain.drain(..192);
    });
    for (name, kind) in [("links", LINKS), ("files", GROUP), ("hard links", HARD_LINKS), ("directories", END)]
    {
        lies.add(format!("another name among {name}"), move |draft| change_header(draft, kind, 0, b'X'));
        lies.add(format!("another mode among {name}"), move |draft| change_header(draft, kind, 103, b'7'));
        lies.add(format!("another owner among {name}"), move |draft| change_header(draft, kind, 113, b'7'));
        lies.add(format!("another time among {name}"), move |draft| change_header(draft, kind, 146, b'1'));
        lies.add(format!("another kind among {name}"), move |draft| change_header(draft, kind, 156, b'6'));
        lies.add(format!("a member more among {name}"), move |draft| {
            let frame = draft.frames.iter_mut().find(|frame| frame.kind == kind).unwrap();
            let more = Entry::file("smuggled", b"").header();
            let at = if kind == END { frame.plain.len() - 1024 } else { frame.plain.len() };
            frame.plain.splice(at..at, more);
        });
        lies.add(format!("a member less among {name}"), move |draft| {
            let frame = draft.frames.iter_mut().find(|frame| frame.kind == kind).unwrap();
            frame.plain.drain(..512);
        });
    }
    lies.add("no end mark", |draft| {
        let end = draft.frames.last_mut().unwrap();
        end.plain.truncate(end.plain.len() - 1024);
    });
    lies.add("half an end mark", |draft| {
        let end = draft.frames.last_mut().unwrap();
        end.plain.truncate(end.plain.len() - 512);
    });
    lies.add("an end mark with something in it", |draft| {
        *draft.frames.last_mut().unwrap().plain.last_mut().unwrap() = 1;
    });
    lies.add("something after the end mark", |draft| {
        draft.frames.last_mut().unwrap().plain.extend(vec![0; 512]);
    });
    lies.add("two ends", |draft| draft.frames.push(Frame::new(END, vec![0; 1024])));
}

fn change_header(draft: &mut Draft, kind: u8, at: usize, byte: u8) {
    let frame = draft.frames.iter_mut().find(|frame| frame.kind == kind).unwrap();
    frame.plain[at] = byte;
    super::encode::sum(&mut frame.plain[..512]);
}

/// Locations lead elsewhere.
fn places(lies: &mut Lies) {
    for at in 0..honest().locations.len() {
        for (name, by) in [("after", 1), ("before", u64::MAX), ("nowhere", 1000), ("far away", u64::MAX / 2)]
        {
            lies.add(format!("location {at}, {name}"), move |draft| {
                draft.locations[at] = draft.locations[at].wrapping_add(by);
            });
        }
    }
    lies.add("two files with the same chunks", |draft| {
        let chunk = draft.locations[2];
        draft.locations[5] = chunk;
    });
    lies.add("a location less", |draft| {
        draft.locations.pop();
    });
}

/// Pages, footer and seek table are others than the root says.
fn pages(lies: &mut Lies) {
    type Change = fn(&mut Page);
    let changes: [(&str, Change); 9] = [
        ("kind", |page| page.kind = Some(if page.number == 4 { 1 } else { 2 })),
        ("items", |page| page.items = Some(2)),
        ("files", |page| page.files = Some(3)),
        ("first", |page| page.first = Some(b"another".to_vec())),
        ("offset", |page| page.offset = Some(7)),
        ("plain size", |page| page.plain = Some(5)),
        ("long plain size", |page| page.plain = Some(1 << 19)),
        ("digest", |page| page.digest = Some(sha256(b"page"))),
        ("more", |page| page.more = vec![0x80, 0]),
    ];
    for (name, change) in changes {
        for number in [0, 1, 4, 5] {
            lies.add(format!("page {number}, {name}"), move |draft| {
                let mut page = Page::number(number);
                change(&mut page);
                draft.pages.push(page);
            });
        }
    }
    let footers: [(&str, BytesLie); 6] = [
        ("offset", |footer| footer[8] ^= 1),
        ("size", |footer| footer[16] ^= 1),
        ("plain size", |footer| footer[20] ^= 1),
        ("digest", |footer| footer[24] ^= 1),
        ("frames", |footer| footer[56] ^= 1),
        ("reserved", |footer| footer[95] = 1),
    ];
    for (name, change) in footers {
        lies.add(format!("footer, {name}"), move |draft| draft.footer = Some(change));
    }
    lies.add("seek table", |draft| draft.table = Some(|table| table[0] ^= 1));
    lies.add("kinds of entries, all", |draft| {
        draft.entries.iter_mut().filter(|entry| entry.kind == LINK).for_each(|entry| entry.kind = DIRECTORY);
    });
    lies.add("hard links are files", |draft| {
        draft.entries.iter_mut().filter(|entry| entry.kind == HARD_LINK).for_each(|entry| entry.kind = FILE);
    });
}
