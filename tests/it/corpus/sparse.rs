//! Files with holes.

use std::os::unix::fs::MetadataExt;

use super::build::{Head, Tar};
use super::{Case, Place, accepted, lines, refused, run, small_limits};

pub fn cases() -> Vec<Case> {
    [old(), new()].concat()
}

#[test]
fn broken_maps_of_holes_are_refused() {
    run(old());
    run(new());
}

#[test]
fn holes_stay_holes() {
    let megabytes = 32 << 20;
    let spans = [(0, 512), (megabytes / 2, 512), (megabytes, 0)];
    let bytes = sparse_old("a", megabytes, &spans, &[b'x'; 1024]).end();
    let place = Place::new();
    let built = place.unpack(&bytes, &small_limits()).unwrap();
    let found = place.tree().join("a").metadata().unwrap();
    assert_eq!((found.len(), built.bytes), (megabytes, megabytes));
    assert!(found.blocks() * 512 < megabytes / 8, "{} blocks", found.blocks());
    assert_eq!(lines(&place.tree()).len(), 1);
}

fn octal(number: u64) -> Vec<u8> {
    format!("{number:011o}\0").into_bytes()
}

/// An old header with at most four spans.
fn head_old(name: &str, size: u64, spans: &[(u64, u64)]) -> Head {
    let head = Head::gnu(b'S', name).put(483, &octal(size));
    spans.iter().enumerate().fold(head, |head, (at, (offset, length))| {
        head.put(386 + at * 24, &octal(*offset)).put(398 + at * 24, &octal(*length))
    })
}

fn sparse_old(name: &str, size: u64, spans: &[(u64, u64)], data: &[u8]) -> Tar {
    Tar::new().entry(head_old(name, size, spans), data)
}

fn extension(spans: &[(u64, u64)], more: bool) -> [u8; 512] {
    let mut block = [0; 512];
    for (at, (offset, length)) in spans.iter().enumerate() {
        block[at * 24..at * 24 + 12].copy_from_slice(&octal(*offset));
        block[at * 24 + 12..at * 24 + 24].copy_from_slice(&octal(*length));
    }
    block[504] = u8::from(more);
    block
}

fn old() -> Vec<Case> {
    let block = [b'x'; 512];
    let many: Vec<(u64, u64)> = (0..4).map(|at| (at * 1024, 512)).collect();
    let extended = |more| {
        let head = head_old("a", 8192, &many).put(482, &[1]).size(3072);
        let spans = [(4096, 512), (5120, 512), (8192, 0)];
        Tar::new().head(head).raw(extension(&spans, more)).data(vec![b'x'; 3072])
    };
    let endless = (0..70_000 / 21 + 1)
        .fold(Tar::new().head(head_old("a", 1 << 40, &[(0, 0)]).put(482, &[1])), |tar, _| {
            tar.raw(extension(&[(0, 0); 21], true))
        });
    vec![
        accepted("old, all holes", &["f a"], sparse_old("a", 0, &[(0, 0)], &[]).end()),
        accepted(
            "old, one span",
            &[&format!("f a {}", "x".repeat(512))],
            sparse_old("a", 512, &[(0, 512)], &block).end(),
        ),
        refused(
            "old, spans overlap",
            "SparseMap",
            sparse_old("a", 4096, &[(0, 512), (256, 512)], &[b'x'; 1024]).end(),
        ),
        refused(
            "old, spans descend",
            "SparseMap",
            sparse_old("a", 4096, &[(1024, 512), (0, 512)], &[b'x'; 1024]).end(),
        ),
        refused("old, beyond the size", "SparseMap", sparse_old("a", 512, &[(512, 512)], &block).end()),
        refused(
            "old, beyond 64 bits",
            "SparseMap",
            Tar::new()
                .entry(
                    head_old("a", 512, &[])
                        .put(386, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff00000001000\0"),
                    block,
                )
                .end(),
        ),
        refused(
            "old, fewer data than spans",
            "SparseMap",
            sparse_old("a", 4096, &[(0, 512), (1024, 512)], &block).end(),
        ),
        refused(
            "old, more data than spans",
            "SparseMap",
            sparse_old("a", 4096, &[(0, 512)], &[b'x'; 1024]).end(),
        ),
        refused(
            "old, a span off its block",
            "SparseMap",
            sparse_old("a", 4096, &[(0, 100), (1024, 412)], &block).end(),
        ),
        refused(
            "old, a span of letters",
            "SparseMap",
            Tar::new().entry(head_old("a", 512, &[]).put(386, b"zzzzzzzzzzz\x0000000001000\0"), block).end(),
        ),
        refused(
            "old, size of letters",
            "Number",
            Tar::new().entry(head_old("a", 512, &[(0, 512)]).put(483, b"zzz"), block).end(),
        ),
        refused(
            "old, 8 EiB of holes",
            "TooManyBytes",
            Tar::new()
                .head(head_old("a", 0, &[(0, 0)]).put(483, b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff"))
                .end(),
        ),
        refused("old, data taken for a part of the map", "SparseMap", extended(true).end()),
        accepted("old, a map in two blocks", &[&format!("f a {}…", wanted(512))], extended(false).end()),
        refused("old, endless map", "SparseMap", endless.end()),
        refused(
            "old, map goes on after its end",
            "SparseMap",
            Tar::new()
                .head(head_old("a", 512, &[(0, 512)]).put(482, &[1]).size(512))
                .raw(extension(&[], false))
                .data(block)
                .end(),
        ),
    ]
}

/// The beginning of the file as a case shows it.
fn wanted(length: usize) -> String {
    "x".repeat(length)
}

fn new() -> Vec<Case> {
    let with = |size: &str, map: &str, data: &[u8]| {
        let mut content = map.as_bytes().to_vec();
        content.resize(content.len().next_multiple_of(512), 0);
        content.extend_from_slice(data);
        Tar::new()
            .pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"a"),
                ("GNU.sparse.realsize", size.as_bytes()),
            ])
            .file("GNUSparseFile.0/a", content)
            .end()
    };
    let part = |records: &[(&str, &[u8])]| Tar::new().pax(records).file("GNUSparseFile.0/a", "0\n").end();
    vec![
        accepted("new, no data", &["f a"], with("0", "0\n", b"")),
        accepted("new, a name of its own", &["f a xy"], with("2", "1\n0\n2\n", b"xy")),
        refused("new, overlap", "SparseMap", with("2000", "2\n0\n512\n256\n512\n", &[b'x'; 1024])),
        refused("new, beyond the size", "SparseMap", with("1", "1\n0\n2\n", b"xy")),
        refused("new, fewer data", "SparseMap", with("9", "1\n0\n9\n", b"xy")),
        refused("new, more data", "SparseMap", with("9", "1\n0\n1\n", b"xy")),
        refused("new, map of letters", "SparseMap", with("9", "x\n", b"")),
        refused("new, map with a sign", "SparseMap", with("9", "-1\n", b"")),
        refused("new, map that does not end", "SparseMap", with("9", "3\n0\n0\n", b"")),
        refused("new, too many spans", "SparseMap", with("9", "65537\n", b"")),
        refused("new, a number without an end", "SparseMap", with("9", &"1".repeat(2000), b"")),
        refused("new, 8 EiB of holes", "TooManyBytes", with("9223372036854775807", "0\n", b"")),
        refused(
            "new, no name",
            "SparseMap",
            part(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"0")]),
        ),
        refused(
            "new, no size",
            "SparseMap",
            part(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.name", b"a")]),
        ),
        refused(
            "new, of version 2",
            "SparseKind",
            part(&[
                ("GNU.sparse.major", b"2"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"a"),
                ("GNU.sparse.realsize", b"0"),
            ]),
        ),
        refused("new, a name without a version", "SparseKind", part(&[("GNU.sparse.name", b"a")])),
        refused(
            "new, for a directory",
            "SparseKind",
            Tar::new()
                .pax(&[
                    ("GNU.sparse.major", b"1"),
                    ("GNU.sparse.minor", b"0"),
                    ("GNU.sparse.name", b"a"),
                    ("GNU.sparse.realsize", b"0"),
                ])
                .directory("a")
                .end(),
        ),
    ]
}
