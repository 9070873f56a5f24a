//! More lies: in the bytes of pages, of the root and of the whole archive, and in fields at the end of their range.

use super::cases::Lies;
use super::encode::{CHUNK, END, Entry, Frame, GROUP, HARD_LINK, LINK, Page, PageBytes, number, sha256};

/// Adds them.
pub fn add(lies: &mut Lies) {
    bytes_of_pages(lies);
    lists_of_pages(lies);
    roots(lies);
    surroundings(lies);
    names(lies);
    attributes(lies);
    numbers(lies);
    contents(lies);
    bombs(lies);
}

/// What need not be a lie, but is seldom seen: it is refused, or gives the tree that it says.
pub fn odd() -> Lies {
    let mut odd = Lies::default();
    for seconds in [-1, -(1 << 31), 0, (1 << 33) + 1] {
        odd.add_entries(format!("time {seconds}"), move |entries| entries[9].seconds = seconds);
        odd.add_entries(format!("time {seconds}, with nanoseconds"), move |entries| {
            (entries[9].seconds, entries[9].nanoseconds) = (seconds, 500_000_000);
        });
    }
    odd.add_entries("owner of 31 bits", |entries| entries[9].uid = (1 << 31) - 1);
    odd.add_entries("owner of 32 bits", |entries| entries[9].uid = u64::from(u32::MAX) - 1);
    odd.add_entries("a directory that belongs to its group", |entries| entries[0].mode = 0o2755);
    odd.add_entries("a sticky directory", |entries| entries[0].mode = 0o1777);
    odd.add_entries("a link of 1000 bytes", |entries| entries[6].target = vec![b'x'; 1000]);
    odd.add_entries("a name that is no text", |entries| entries[9].path = vec![b'n', 0xff, b'\n']);
    odd.add_entries("an empty attribute", |entries| entries[9].xattrs = vec![(b"user.x".to_vec(), vec![])]);
    odd.add_entries("an attribute with a sign of equality", |entries| {
        entries[9].xattrs = vec![(b"user.a=b".to_vec(), b"1".to_vec())];
    });
    odd.add_entries("many generations", |entries| {
        entries.truncate(2);
        for number in 0..200 {
            let file = Entry::file(&format!("many-{number:03}"), b"x");
            entries.push(Entry { generation: 1 << (number % 60), ..file });
        }
    });
    type Compress = fn(&[u8]) -> Vec<u8>;
    let frames: [(&str, Compress); 4] = [
        ("two frames of zstd", |plain| {
            let (one, other) = plain.split_at(plain.len() / 2);
            [one, other].map(|part| zstd::bulk::compress(part, 3).unwrap()).concat()
        }),
        ("a skippable frame before it", |plain| {
            let skipped = [&0x184D_2A50_u32.to_le_bytes()[..], &4_u32.to_le_bytes(), b"skip"].concat();
            [skipped, zstd::bulk::compress(plain, 3).unwrap()].concat()
        }),
        ("no size in it", |plain| zstd::stream::encode_all(plain, 3).unwrap()),
        ("a long window", |plain| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
            encoder.window_log(27).unwrap();
            std::io::Write::write_all(&mut encoder, plain).unwrap();
            encoder.finish().unwrap()
        }),
    ];
    for (name, compress) in frames {
        for kind in [GROUP, CHUNK, END] {
            odd.add(format!("{name}, kind {kind}"), move |draft| {
                let frame = draft.frames.iter_mut().find(|frame| frame.kind == kind).unwrap();
                frame.bytes = Some(compress(&frame.plain));
            });
        }
    }
    odd
}

fn bytes_of_pages(lies: &mut Lies) {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 9] = [
        ("a number in two bytes", |bytes| {
            bytes[1] |= 0x80;
            bytes.insert(2, 0);
        }),
        ("a number of 70 bits", |bytes| {
            bytes.splice(1..2, [[0xff; 9].as_slice(), &[0x7f]].concat());
        }),
        ("a number that does not end", |bytes| bytes.push(0x80)),
        ("the last byte is missing", |bytes| bytes.truncate(bytes.len() - 1)),
        ("one byte more", |bytes| bytes.push(0)),
        ("twice the same", |bytes| bytes.extend(bytes.clone())),
        ("nothing", Vec::clear),
        ("ones", |bytes| bytes.fill(0xff)),
        ("a string without end", |bytes| {
            bytes.truncate(2);
            number(bytes, 1 << 62);
        }),
    ];
    for (name, change) in changes {
        for page in [0, 4, 5] {
            lies.add(format!("{name}, page {page}"), move |draft| {
                draft.pages.push(Page { bytes: Some(change), ..Page::number(page) });
            });
        }
    }
    lies.add("the first path of a page begins with another one", |draft| {
        draft.pages.push(Page { bytes: Some(|bytes| bytes[1] = 3), ..Page::number(1) });
    });
}

fn lists_of_pages(lies: &mut Lies) {
    type Change = fn(&mut Vec<PageBytes>);
    let changes: [(&str, Change); 11] = [
        ("pages 0 and 1 change places", |pages| pages.swap(0, 1)),
        ("pages 1 and 2 change places", |pages| pages.swap(1, 2)),
        ("pages 2 and 3 change places", |pages| pages.swap(2, 3)),
        ("frames before the last entries", |pages| pages.swap(3, 4)),
        ("locations before frames", |pages| pages.swap(4, 5)),
        ("page 0 twice", |pages| pages.insert(1, pages[0].clone())),
        ("page 2 twice, at the end", |pages| pages.insert(4, pages[2].clone())),
        ("page 1 is missing", |pages| drop(pages.remove(1))),
        ("the frames are missing", |pages| drop(pages.remove(4))),
        ("the locations twice", |pages| pages.push(pages[5].clone())),
        ("an empty page", |pages| {
            let (kind, items, files) = (1, 0, 0);
            pages
                .insert(2, PageBytes { kind, items, files, first: b"lib/large".to_vec(), bytes: Vec::new() });
        }),
    ];
    for (name, change) in changes {
        lies.add(name, move |draft| draft.arrange = Some(change));
        lies.add(format!("{name}, sums that fit"), move |draft| {
            draft.arrange = Some(change);
            let mut pages = draft.meta();
            // Frames and locations, which have no entries.
            let none = PageBytes { kind: 2, items: 0, files: 0, first: Vec::new(), bytes: Vec::new() };
            pages.extend([none.clone(), none]);
            change(&mut pages);
            draft.root.entries = Some(pages.iter().map(|page| page.items).sum());
            draft.root.files = Some(pages.iter().map(|page| page.files).sum());
        });
    }
    for (name, offset) in
        [("one before", u64::MAX), ("beyond the end", 1 << 40), ("nothing", 0), ("all", u64::MAX / 2)]
    {
        for number in [1, 4, 5] {
            lies.add(format!("page {number} is elsewhere: {name}"), move |draft| {
                draft.pages.push(Page { offset: Some(offset), ..Page::number(number) });
            });
        }
    }
    for (name, value) in [("no", 0), ("many", 1 << 40), ("all", u64::MAX)] {
        lies.add(format!("{name} items"), move |draft| {
            draft.pages.push(Page { items: Some(value), ..Page::number(1) });
        });
        lies.add(format!("{name} files"), move |draft| {
            draft.pages.push(Page { files: Some(if value == 0 { 9 } else { value }), ..Page::number(1) });
        });
        lies.add(format!("{name} plain bytes"), move |draft| {
            draft.pages.push(Page { plain: Some(value), ..Page::number(1) });
        });
    }
}

fn roots(lies: &mut Lies) {
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 7] = [
        ("cut", |bytes| bytes.truncate(bytes.len() - 1)),
        ("empty", Vec::clear),
        ("zeros", |bytes| bytes.fill(0)),
        ("ones", |bytes| bytes.fill(0xff)),
        ("a number in two bytes", |bytes| {
            bytes[0] |= 0x80;
            bytes.insert(1, 0);
        }),
        ("a mebibyte more", |bytes| bytes.resize(bytes.len() + (1 << 20), 0)),
        ("forty mebibytes more", |bytes| bytes.resize(bytes.len() + (40 << 20), 0)),
    ];
    for (name, change) in changes {
        lies.add(format!("root, {name}"), move |draft| draft.root_bytes = Some(change));
    }
    lies.add("root, all sums as large as can be", |draft| {
        let all = Some(u64::MAX);
        let root = &mut draft.root;
        (root.entries, root.files, root.bytes, root.compressed, root.largest) = (all, all, all, all, all);
        (root.frames, root.generation) = (all, all);
    });
    lies.add("root, entries of half a million", |draft| draft.root.entries = Some(500_000));
}

fn surroundings(lies: &mut Lies) {
    type BytesLie = fn(&mut [u8]);
    let footers: [(&str, BytesLie); 5] = [
        ("offset of the end", |footer| footer[8..16].fill(0xff)),
        ("no offset", |footer| footer[8..16].fill(0)),
        ("size of 4 GiB", |footer| footer[16..20].fill(0xff)),
        ("plain size of 4 GiB", |footer| footer[20..24].fill(0xff)),
        ("frames without end", |footer| footer[56..64].fill(0xff)),
    ];
    for (name, change) in footers {
        lies.add(format!("footer, {name}"), move |draft| draft.footer = Some(change));
    }
    type Change = fn(&mut Vec<u8>);
    let tables: [(&str, Change); 6] = [
        ("a frame less", |table| drop(table.drain(..8))),
        ("a frame more", |table| drop(table.splice(..0, [0; 8]))),
        ("another plain size", |table| table[4] ^= 1),
        ("a descriptor", |table| {
            let at = table.len() - 5;
            table[at] = 0x80;
        }),
        ("a number of frames", |table| {
            let at = table.len() - 9;
            table[at] += 1;
        }),
        ("two frames change places", |table| {
            let first: Vec<u8> = table.drain(..8).collect();
            table.splice(8..8, first);
        }),
    ];
    for (name, change) in tables {
        lies.add(format!("seek table, {name}"), move |draft| draft.table = Some(change));
    }
    let wholes: [(&str, Change); 5] = [
        ("bytes before the index", |bytes| {
            let at = index_of(bytes);
            bytes.splice(at..at, *b"bytes");
        }),
        ("a frame before the index", |bytes| {
            let at = index_of(bytes);
            bytes.splice(at..at, zstd::bulk::compress(&[0; 1024], 3).unwrap());
        }),
        ("a frame before all", |bytes| drop(bytes.splice(..0, zstd::bulk::compress(&[0; 512], 3).unwrap()))),
        ("another head of the index", |bytes| {
            let at = index_of(bytes);
            bytes[at] ^= 1;
        }),
        ("another length of the index", |bytes| {
            let at = index_of(bytes);
            bytes[at + 4] ^= 1;
        }),
    ];
    for (name, change) in wholes {
        lies.add(name, move |draft| draft.whole = Some(change));
    }
}

/// Where the frame with the index begins.
fn index_of(bytes: &[u8]) -> usize {
    bytes.windows(4).rposition(|four| four == 0x184D_2A5B_u32.to_le_bytes()).unwrap()
}

fn names(lies: &mut Lies) {
    for path in ["", ".", "/", "./", "..", "bin/.", "bin/..", "./bin", "/bin", "bin/", "bin//", "bi\0n"] {
        lies.add_entries(format!("directory {path:?}"), move |entries| {
            let at = entries.partition_point(|entry| entry.path.as_slice() < path.as_bytes());
            entries.insert(at, Entry::directory(path));
        });
        lies.add_entries(format!("link {path:?}"), move |entries| {
            let at = entries.partition_point(|entry| entry.path.as_slice() < path.as_bytes());
            entries.insert(at, Entry::link(path, "x"));
        });
    }
    for (name, path) in [
        ("a name of 256 bytes", "z".repeat(256)),
        ("a path of 4096 bytes", format!("z{}", vec!["z".repeat(15); 256].join("/"))),
        ("a path of 300 names", vec!["z"; 300].join("/")),
    ] {
        lies.add_entries(name, move |entries| {
            let steps: Vec<usize> = path.match_indices('/').map(|(at, _)| at).collect();
            entries.extend(steps.into_iter().map(|at| Entry::directory(&path[..at])));
            entries.push(Entry::file(&path, b"x"));
        });
    }
    for (name, path) in [("a link", "lib/link/x"), ("a file", "lib/older/x"), ("itself", "notes/notes")] {
        lies.add_entries(format!("a file beneath {name}"), move |entries| {
            let at = entries.partition_point(|entry| entry.path.as_slice() < path.as_bytes());
            entries.insert(at, Entry { generation: 2, ..Entry::file(path, b"x") });
        });
    }
    lies.add_entries("a hard link through a link", |entries| {
        entries[6] = Entry::link("lib/link", "../bin");
        let mut again = entries[1].again("lib/z");
        again.target = b"lib/link/app".to_vec();
        entries.insert(9, again);
    });
    for target in ["/bin/app", "./bin/app", "bin//app", "bin/../bin/app", "", "bin/app\0", ".."] {
        lies.add_entries(format!("a hard link to {target:?}"), move |entries| {
            entries[2].target = target.into();
        });
    }
    for (name, target) in
        [("4096 bytes", vec![b'x'; 4096]), ("a NUL", b"x\0y".to_vec()), ("nothing", Vec::new())]
    {
        lies.add_entries(format!("a symbolic link to {name}"), move |entries| {
            entries[6].target.clone_from(&target)
        });
    }
}

fn attributes(lies: &mut Lies) {
    let one = |name: &str| vec![(name.as_bytes().to_vec(), b"1".to_vec())];
    for (name, xattrs) in [
        ("no name in `user`", one("user.")),
        ("a name of 256 bytes", one(&format!("user.{}", "x".repeat(251)))),
        ("a NUL", one("user.a\0b")),
        ("no name space", one("x")),
        ("system", one("system.posix_acl_access")),
        ("selinux", one("security.selinux")),
        ("upper case", one("USER.x")),
        ("twice", [one("user.x"), one("user.x")].concat()),
        ("another order", [one("user.y"), one("user.x")].concat()),
        ("a line feed in the name", one("user.a\n9 mtime=1\n")),
    ] {
        for at in [0, 1, 9] {
            let xattrs = xattrs.clone();
            lies.add_entries(format!("attribute: {name}, entry {at}"), move |entries| {
                entries[at].xattrs.clone_from(&xattrs);
            });
        }
    }
    lies.add_entries("an attribute of a link", move |entries| entries[6].xattrs.clone_from(&one("user.x")));
    lies.add_entries("ten thousand attributes", |entries| {
        entries[9].xattrs =
            (0..10_000).map(|number| (format!("user.{number:05}").into_bytes(), b"1".to_vec())).collect();
    });
}

fn numbers(lies: &mut Lies) {
    for mode in [0o10_0644, 0o4_0755, 0o20_000, 1 << 32 | 0o644, u64::MAX] {
        for at in [0, 1, 9] {
            lies.add_entries(format!("mode {mode:o}, entry {at}"), move |entries| entries[at].mode = mode);
        }
    }
    for seconds in [i64::MIN, i64::MAX, -(1 << 31) - 1, 1 << 34, 253_402_300_800] {
        for at in [0, 6, 9] {
            lies.add_entries(format!("time {seconds}, entry {at}"), move |entries| {
                entries[at].seconds = seconds
            });
        }
    }
    for nanoseconds in [1_000_000_000, u64::from(u32::MAX), u64::MAX] {
        lies.add(format!("{nanoseconds} nanoseconds"), move |draft| {
            draft.entries[9].nanoseconds = nanoseconds
        });
    }
    for kind in [0, 5, 6, 7, 8, 255] {
        lies.add(format!("an entry of kind {kind}"), move |draft| draft.entries[9].kind = kind);
    }
    for owner in [u64::from(u32::MAX), 1 << 32, u64::MAX] {
        lies.add_entries(format!("hard link of {owner}"), move |entries| {
            (entries[1].gid, entries[2].gid) = (owner, owner);
        });
    }
    lies.add("a generation as large as can be", |draft| draft.entries[1].generation = u64::MAX);
}

fn contents(lies: &mut Lies) {
    lies.add("two sizes that are right together", |draft| {
        draft.entries[1].size = draft.entries[1].size.wrapping_add(1 << 63);
        draft.entries[9].size = draft.entries[9].size.wrapping_add(1 << 63);
    });
    lies.add("a byte from one file to the next", |draft| {
        draft.entries[1].size -= 1;
        draft.entries[9].size += 1;
    });
    lies.add_entries("the digest of a file here with another size", |entries| {
        let digest = entries[1].digest;
        let file = Entry { digest, generation: 2, ..Entry::file("bin/app-two", b"the good program\n.") };
        entries.insert(3, file);
    });
    lies.add_entries("the digest of a large file here with another size", |entries| {
        let digest = entries[5].digest;
        entries[5].content.push(7);
        (entries[5].size, entries[5].digest) = (8001, digest);
    });
    lies.add_entries("the digest of nothing with a size", |entries| {
        let digest = sha256(b"");
        entries[9] = Entry { digest, generation: 2, ..Entry::file("notes", b"something") };
    });
    lies.add_entries("another digest of nothing", |entries| entries[3].digest = sha256(b"x"));
    lies.add("a padding that is not zero", |draft| {
        let frame = draft.frames.iter_mut().find(|frame| frame.kind == GROUP).unwrap();
        // Behind the content of `bin/app`.
        frame.plain[512 + 100] = 1;
    });
    lies.add("links and hard links are each other", |draft| {
        for entry in &mut draft.entries {
            entry.kind = match entry.kind {
                LINK => HARD_LINK,
                HARD_LINK => LINK,
                kind => kind,
            };
        }
    });
}

fn bombs(lies: &mut Lies) {
    for kind in [GROUP, CHUNK, END] {
        lies.add(format!("a bomb in a frame of kind {kind}"), move |draft| {
            let frame = draft.frames.iter_mut().find(|frame| frame.kind == kind).unwrap();
            frame.bytes = Some(zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap());
        });
        lies.add(format!("a frame of kind {kind} with a wrong checksum"), move |draft| {
            let frame = draft.frames.iter_mut().find(|frame| frame.kind == kind).unwrap();
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 3).unwrap();
            encoder.include_checksum(true).unwrap();
            std::io::Write::write_all(&mut encoder, &frame.plain).unwrap();
            let mut bytes = encoder.finish().unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            frame.bytes = Some(bytes);
        });
        lies.add(format!("a frame of kind {kind} of the longest size"), move |draft| {
            let frame = draft.frames.iter_mut().find(|frame| frame.kind == kind).unwrap();
            frame.said_plain = Some(16 << 20);
        });
        lies.add(format!("a frame of kind {kind} that reaches into the next"), move |draft| {
            let at = draft.frames.iter().position(|frame| frame.kind == kind).unwrap();
            let length = zstd::bulk::compress(&draft.frames[at].plain, 3).unwrap().len() as u64;
            draft.frames[at].said_size = Some(length + 1);
        });
        lies.add(format!("a frame of kind {kind} beyond the end"), move |draft| {
            let at = draft.frames.iter().position(|frame| frame.kind == kind).unwrap();
            draft.frames[at].said_size = Some(10 << 20);
            let sum: usize = draft.frames.iter().map(|frame| frame.plain.len()).sum();
            draft.root.compressed = Some((10 << 20) + sum as u64);
        });
        lies.add(format!("a frame of kind {kind} twice"), move |draft| {
            let at = draft.frames.iter().position(|frame| frame.kind == kind).unwrap();
            let again: Frame = draft.frames[at].clone();
            draft.frames.insert(at, again);
        });
    }
}
